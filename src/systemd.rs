//! The daemon's side of systemd's protocols: messages to the service manager (sd_notify(3)), and
//! the sockets that it passes ([`passed`], sd_listen_fds(3)).
//!
//! The state is a queue and the thread that sends from it, so that a service manager that does not
//! read delays nothing. A message that does not fit is dropped, as a datagram would be. Messages
//! are sent in the order in which they were queued. The thread ends when the last [`Manager`] is
//! dropped. [`Manager::flush`] waits until all queued messages have been sent.
//!
//! Without `NOTIFY_SOCKET` there is no thread, and every call is a no-op.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::oneshot;

use crate::wire;

mod passed;

pub use passed::{PASSED_VARIABLES, Passed, Unclaimed};

/// The most messages that wait in the queue.
const QUEUE: usize = 64;

/// How long [`Manager::flush`] waits.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// The longest sentence in the status line, in characters.
const STATUS_WORDS: usize = 200;

/// The way to the service manager. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Manager {
    queue: Option<SyncSender<Message>>,
}

#[derive(Debug)]
enum Message {
    /// Lines of the protocol, with a descriptor where they are about one.
    Tell(String, Option<OwnedFd>),
    /// Answered when all earlier messages have been sent.
    Flush(oneshot::Sender<()>),
}

impl Manager {
    /// The service manager that started this process, if it wants notifications.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn from_env() -> io::Result<Self> {
        if std::env::var_os("NOTIFY_SOCKET").is_none_or(|path| path.is_empty()) {
            return Ok(Self { queue: None });
        }
        let (queue, messages) = sync_channel(QUEUE);
        std::thread::Builder::new().name("portok-notify".to_owned()).spawn(move || send_all(&messages))?;
        Ok(Self { queue: Some(queue) })
    }

    /// No service manager.
    pub fn none() -> Self {
        Self { queue: None }
    }

    /// Whether there is a service manager.
    pub fn listens(&self) -> bool {
        self.queue.is_some()
    }

    /// Says that the sockets are bound and it is known what runs, or that a reload is over.
    pub fn ready(&self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// Says that a reload begins. [`Manager::ready`] ends it.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            // Newer managers need the time. Every kernel has the clock.
            Err(error) => tracing::debug!(%error, "no monotonic clock"),
        }
    }

    /// Says that the daemon is ending.
    pub fn stopping(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// Says that `pid` is the daemon now. Later messages of this process are ignored.
    pub fn main_pid(&self, pid: u32) {
        self.tell(&[NotifyState::MainPid(pid)]);
    }

    /// Sets the line that `systemctl status` shows.
    pub fn status(&self, line: &str) {
        self.tell(&[NotifyState::Status(line)]);
    }

    /// Extends the time for the operation under way: `time`, from now on.
    pub fn extend(&self, time: Duration) {
        self.tell(&[NotifyState::ExtendTimeoutUsec(u32::try_from(time.as_micros()).unwrap_or(u32::MAX))]);
    }

    /// Tells the watchdog that both planes still run.
    pub fn alive(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    /// Gives `socket` to the service manager, which passes it to the next daemon under this name
    /// even if this one is killed. A socket that the manager already has is kept once.
    pub fn keep(&self, name: &str, socket: impl AsFd) {
        if self.queue.is_none() {
            return;
        }
        match socket.as_fd().try_clone_to_owned() {
            Ok(socket) => {
                let lines = [NotifyState::FdStore, NotifyState::FdName(name)];
                self.give(Message::Tell(text(&lines), Some(socket)));
            }
            Err(error) => {
                tracing::warn!("the listening socket cannot be given to the service manager: {error}");
            }
        }
    }

    /// Makes the service manager drop every socket that it keeps under this name.
    pub fn forget(&self, name: &str) {
        self.tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
    }

    /// Waits until all messages so far have been sent, for at most [`FLUSH_WITHIN`].
    pub async fn flush(&self) {
        let (done, sent) = oneshot::channel();
        if self.give(Message::Flush(done)) {
            // If the manager does not read, nothing more can be done.
            let _unread = tokio::time::timeout(FLUSH_WITHIN, sent).await;
        }
    }

    fn tell(&self, lines: &[NotifyState<'_>]) {
        self.give(Message::Tell(text(lines), None));
    }

    fn give(&self, message: Message) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.try_send(message).is_ok())
    }
}

/// How often to call [`Manager::alive`]: twice within the watchdog's time. `None` if there is no
/// watchdog.
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|patience| patience / 2).filter(|every| !every.is_zero())
}

fn text(lines: &[NotifyState<'_>]) -> String {
    lines.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn send_all(messages: &Receiver<Message>) {
    let mut failed = false;
    while let Ok(message) = messages.recv() {
        let sent = match message {
            Message::Tell(text, None) => sd_notify::notify(&[NotifyState::Custom(&text)]),
            Message::Tell(text, Some(socket)) => {
                sd_notify::notify_with_fds(&[NotifyState::Custom(&text)], &[socket.as_fd()])
            }
            Message::Flush(done) => {
                let _nobody_waits = done.send(());
                continue;
            }
        };
        if let Err(error) = sent
            && !std::mem::replace(&mut failed, true)
        {
            tracing::warn!("the service manager cannot be told how the daemon is: {error}");
        }
    }
}

/// The status line: how the app is.
pub fn status_line(status: &wire::Status) -> String {
    let phase = status.phase.as_str();
    let mut line = match (&status.live, status.phase) {
        (_, wire::Phase::Empty) => "empty: nothing to serve".to_owned(),
        (Some(live), _) => match live.port {
            Some(port) => format!("{phase}: release {} on 127.0.0.1:{port}", live.release),
            None => format!("{phase}: release {}", live.release),
        },
        (None, _) => phase.to_owned(),
    };
    if let Some(until) = status.watch_until.as_deref().and_then(time_of_day) {
        line += &format!(", until {until} UTC");
    }
    if let Some(candidate) = &status.candidate {
        line += &format!("; next: release {}", candidate.release);
    }
    if status.phase == wire::Phase::Failed
        && let Some(why) = &status.last_failure
    {
        let why: String = why.chars().take_while(|letter| *letter != '\n').take(STATUS_WORDS).collect();
        line += &format!("; {why}");
    }
    line
}

/// The status line of several apps: how many are in which phase, the most first.
pub fn status_line_of(phases: &[wire::Phase]) -> String {
    let mut counts: Vec<(usize, &str)> = Vec::new();
    for phase in phases {
        match counts.iter_mut().find(|(_, name)| *name == phase.as_str()) {
            Some((count, _)) => *count += 1,
            None => counts.push((1, phase.as_str())),
        }
    }
    counts.sort_by_key(|(count, name)| (std::cmp::Reverse(*count), *name));
    let counts: Vec<_> = counts.iter().map(|(count, name)| format!("{count} {name}")).collect();
    let apps = if phases.len() == 1 { "app" } else { "apps" };
    let all = if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) };
    format!("{} {apps}{all}", phases.len())
}

/// The time of day in an RFC 3339 date, in whole seconds.
fn time_of_day(date: &str) -> Option<&str> {
    date.split_once('T').and_then(|(_, time)| time.get(..8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_several_apps_counts_their_phases() {
        use wire::Phase::{Settled, Watching};
        assert_eq!(status_line_of(&[Settled, Watching, Settled]), "3 apps: 2 settled, 1 watching");
        assert_eq!(status_line_of(&[Settled]), "1 app: 1 settled");
        assert_eq!(status_line_of(&[]), "0 apps");
    }

    fn status(phase: wire::Phase) -> wire::Status {
        let release = |id: &str, port| wire::ReleaseStatus {
            release: id.to_owned(),
            port,
            pid: None,
            started_at: None,
            restarts: 0,
            inflight: 0,
            step: None,
        };
        wire::Status {
            active_port: None,
            drain_until: None,
            last_switch: None,
            instance: "api".into(),
            app: None,
            phase,
            live: Some(release("v1", Some(41237))),
            candidate: Some(release("v2", None)),
            previous: None,
            watch_until: Some("2026-11-25T12:00:03.120Z".into()),
            config: wire::ConfigStatus {
                file: None,
                loaded_at: String::new(),
                error: None,
                app_in_force: None,
                pending: false,
            },
            version: String::new(),
            listen: String::new(),
            pid: 1,
            quarantined: Vec::new(),
            replicas: None,
            scale: None,
            targets: Vec::new(),
            traffic: wire::Traffic::Open,
            paused: None,
            frozen: None,
            plan: None,
            redis: None,
            state_error: None,
            last_failure: Some("it ended\nand more".into()),
            last_failure_at: None,
            last_exit: None,
            health: wire::HealthMetrics::default(),
        }
    }

    #[test]
    fn the_status_line_tells_phase_release_address_and_time() {
        let mut watching = status(wire::Phase::Watching);
        assert_eq!(
            status_line(&watching),
            "watching: release v1 on 127.0.0.1:41237, until 12:00:03 UTC; next: release v2"
        );
        watching.candidate = None;
        watching.watch_until = None;
        watching.phase = wire::Phase::Settled;
        assert_eq!(status_line(&watching), "settled: release v1 on 127.0.0.1:41237");
        let mut idle = wire::Status { phase: wire::Phase::Idle, ..watching.clone() };
        idle.live.iter_mut().for_each(|live| live.port = None);
        assert_eq!(status_line(&idle), "idle: release v1");
        watching.phase = wire::Phase::Failed;
        assert_eq!(status_line(&watching), "failed: release v1 on 127.0.0.1:41237; it ended");
        watching.live = None;
        watching.phase = wire::Phase::Stopping;
        assert_eq!(status_line(&watching), "stopping");
        watching.phase = wire::Phase::Empty;
        assert_eq!(status_line(&watching), "empty: nothing to serve");
    }

    #[tokio::test]
    async fn without_a_manager_everything_is_for_nothing() {
        let manager = Manager::none();
        manager.ready();
        manager.reloading();
        manager.keep("listen", io::stderr());
        manager.flush().await;
        assert!(!manager.listens());
    }
}
