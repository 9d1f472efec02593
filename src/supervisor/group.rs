//! One process group: the task that owns it, and the handle on that task.
//!
//! The task ([`Owned::run`]) is the only one that reaps the leader and signals the group. It lives through three
//! stages: *running* until the leader ends or a stop is ordered; *the group's ladder* until the group is empty; *the sweep*
//! of what left the group. Then it publishes that all is gone, and ends.
//!
//! (A group that an earlier daemon started goes the same way by other means: [`super::adopt`].)
//!
//! The leader is waited for with `inner().wait()` of the group child only: command-group's own `wait` and `try_wait`
//! reap by group and lose the status that tokio waits for. `exited` is published after the output was read once more, so
//! that who sees the exit also sees the last lines.

use std::sync::Arc;
use std::time::Duration;

use command_group::AsyncGroupChild;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::hunt::Hunt;
use super::output::Reading;
use super::ring::RunLog;
use super::spawn::{self, Plan, SpawnError};
use super::stop::{self, FIRST_LOOK, LONGEST_LOOK, Order, STOP_TIMEOUT, UNKILLABLE_AFTER};
use super::{Exit, Identity, Lease, Owner, PortTaken, last, oom, owner, proc};
use crate::config::StopSignal;
use crate::wire::LogLine;

/// A running process group. Cheap to clone; dropping it stops nothing.
#[derive(Debug, Clone)]
pub struct Process {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    identity: Identity,
    lease: Lease,
    log: Arc<RunLog>,
    order: watch::Sender<Option<Order>>,
    asked: watch::Receiver<bool>,
    exited: watch::Receiver<Option<Exit>>,
    gone: watch::Receiver<Option<Exit>>,
}

/// Makes the handle and the task's side of it.
pub(super) fn pair(identity: Identity, lease: Lease, reading: Reading) -> (Process, Owned) {
    let (order, orders) = watch::channel(None);
    let (asked, asked_seen) = watch::channel(false);
    let (exited, exited_seen) = watch::channel(None);
    let (gone, gone_seen) = watch::channel(None);
    let log = Arc::clone(reading.log());
    let shared =
        Shared { identity, lease, log, order, asked: asked_seen, exited: exited_seen, gone: gone_seen };
    let shared = Arc::new(shared);
    (Process { shared: Arc::clone(&shared) }, Owned { shared, orders, asked, exited, gone, reading })
}

/// Starts the plan and the task that owns what it became.
///
/// The task is spawned before the process, and owns it from the first moment: when the caller is dropped midway, the
/// process is killed, never forgotten.
pub(super) async fn start(
    groups: &TaskTracker,
    letting_go: &CancellationToken,
    plan: Plan,
    tag: String,
    lease: Lease,
    reading: Reading,
) -> Result<Process, SpawnError> {
    let (answer, started) = oneshot::channel();
    let letting_go = letting_go.clone();
    groups.spawn(async move {
        // Fork and exec wait for the disk that the program is on.
        let spawned = tokio::task::spawn_blocking(move || execute(plan, tag)).await.unwrap_or_else(|panic| {
            Err(SpawnError::new("cannot start the app".to_owned(), std::io::Error::other(panic)))
        });
        let (child, identity) = match spawned {
            Ok(spawned) => spawned,
            Err(error) => {
                reading.end();
                // Nobody waits any more, or the error is theirs.
                let _ = answer.send(Err(error));
                return;
            }
        };
        let (process, owned) = pair(identity, lease, reading);
        if let Err(Ok(unwanted)) = answer.send(Ok(process)) {
            unwanted.kill();
        }
        // Let go, its processes are somebody else's: dropping the child neither signals nor waits.
        letting_go.run_until_cancelled(owned.run(child)).await;
    });
    started.await.unwrap_or_else(|_| {
        Err(SpawnError { message: "cannot start the app: the daemon is ending".to_owned(), source: None })
    })
}

fn execute(plan: Plan, tag: String) -> Result<(AsyncGroupChild, Identity), SpawnError> {
    let child = spawn::start(plan)?;
    if let Some(pid) = child.id() {
        oom::spare_no_more(pid);
    }
    let identity = child
        .id()
        .ok_or_else(|| std::io::Error::other("it has no pid"))
        .and_then(|pid| Identity::of(pid, tag))
        .map_err(|error| {
            if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
                let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
            }
            SpawnError::new(format!("cannot identify the process that was started: {error}"), error)
        })?;
    Ok((child, identity))
}

impl Process {
    /// What it is, for the durable record.
    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// The leader's pid.
    pub fn pid(&self) -> u32 {
        self.shared.identity.pid
    }

    /// The port it was told to listen on.
    pub fn port(&self) -> u16 {
        self.shared.lease.port()
    }

    /// Waits until the leader has ended, and what it printed is read. Cancel safe, any number of waiters.
    pub async fn exited(&self) -> Exit {
        published(self.shared.exited.clone()).await
    }

    /// Waits until the whole group, and everything that carries the run's tag, is gone. When the leader ends by
    /// itself, what it left behind is stopped by the ladder first. Cancel safe.
    pub async fn gone(&self) -> Exit {
        published(self.shared.gone.clone()).await
    }

    /// Waits until a stop that was ordered has reached the group. Cancel safe; for ever, where none is.
    pub async fn asked_to_stop(&self) {
        if self.shared.asked.clone().wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether a stop that was ordered has reached the group.
    pub fn was_asked_to_stop(&self) -> bool {
        *self.shared.asked.borrow()
    }

    /// Starts the stop ladder: `signal` to the group, after `timeout` SIGKILL to all that is left. The first
    /// call decides the signal; a later one may only shorten the time.
    pub fn stop(&self, signal: StopSignal, timeout: Duration) {
        self.order(Order::stop(signal, timeout));
    }

    /// SIGKILL to all of it, now.
    pub fn kill(&self) {
        self.order(Order::kill());
    }

    pub(super) fn order(&self, order: Order) {
        self.shared.order.send_if_modified(|slot| Order::merge(slot, order));
    }

    /// Gives up the port's placeholder: the app listens.
    pub fn listening(&self) {
        self.shared.lease.let_go();
    }

    /// Whose the listener on its port is.
    pub async fn owner(&self) -> Owner {
        let (run, port) = (self.shared.run(), self.port());
        stop::look(move || owner::of_port(&run, port)).await.unwrap_or(Owner::Unproven)
    }

    /// Where its processes listen.
    pub async fn listeners(&self) -> Vec<std::net::SocketAddr> {
        let run = self.shared.run();
        stop::look(move || owner::listeners(&run)).await.unwrap_or_default()
    }

    /// The last `lines` it printed.
    pub fn output(&self, lines: usize) -> Vec<LogLine> {
        last(self.shared.log.lines(), lines)
    }

    /// What had its port, where its end looks like a taken one: it says so in its output, or a stranger listens there.
    pub async fn port_taken(&self) -> Option<PortTaken> {
        let says_so = self.shared.log.lines().iter().any(|line| {
            let line = line.line.to_ascii_lowercase();
            super::tells_taken_port(&line)
        });
        match self.owner().await {
            Owner::Stranger { .. } => Some(PortTaken::ByAnother),
            _ if !says_so => None,
            Owner::Nobody if self.shared.lease.was_held() => Some(PortTaken::ByPlaceholder),
            // It speaks of some other port, which another one would not help.
            Owner::Nobody if self.shared.lease.is_free() => None,
            _ => Some(PortTaken::ByAnother),
        }
    }

    /// Lines as they are printed from now on (bounded; a slow reader loses the oldest).
    pub fn follow(&self) -> broadcast::Receiver<Arc<LogLine>> {
        self.shared.log.follow()
    }
}

impl Shared {
    fn run(&self) -> owner::Run {
        owner::Run {
            leader: self.identity.pid,
            start_time: self.identity.start_time,
            tag: self.identity.tag.clone(),
        }
    }
}

/// Waits for the value. Its sender is only dropped without one when the runtime ends.
async fn published(mut value: watch::Receiver<Option<Exit>>) -> Exit {
    value.wait_for(Option::is_some).await.ok().and_then(|exit| *exit).unwrap_or(Exit::Unknown)
}

/// The task's side.
pub(super) struct Owned {
    shared: Arc<Shared>,
    pub(super) orders: watch::Receiver<Option<Order>>,
    asked: watch::Sender<bool>,
    exited: watch::Sender<Option<Exit>>,
    gone: watch::Sender<Option<Exit>>,
    reading: Reading,
}

enum Event {
    Ended(Exit),
    Ordered,
    Tick,
}

impl Owned {
    async fn run(mut self, mut child: AsyncGroupChild) {
        let pid = self.shared.identity.pid;
        let mut hunt = Hunt::for_tag(&self.shared.identity.tag);

        let mut exit = None;
        match self.first_event(&mut child).await {
            Event::Ended(ended) => exit = Some(self.announce(ended).await),
            Event::Ordered | Event::Tick => {
                // Before the signal: afterwards nobody may be left who knows them as children.
                let noted = stop::look(move || {
                    hunt.note_descendants(pid);
                    hunt
                });
                hunt = noted.await.unwrap_or_else(|| Hunt::for_tag(&self.shared.identity.tag));
            }
        }
        let since = Instant::now();
        let signal = self.ordered().map_or(Signal::SIGTERM as i32, |order| order.signal);
        let exit = self.empty_the_group(&mut child, exit, signal, since).await;

        stop::sweep(hunt, signal, || self.deadline(since)).await;
        self.end(exit).await;
    }

    /// Nothing of it is left: the last lines, the port, the news.
    pub(super) async fn end(self, exit: Exit) {
        self.reading.catch_up().await;
        self.reading.end();
        self.shared.lease.let_go();
        let _ = self.gone.send(Some(exit));
    }

    /// Runs until the leader ends or a stop is ordered.
    async fn first_event(&mut self, child: &mut AsyncGroupChild) -> Event {
        tokio::select! {
            status = child.inner().wait() => Event::Ended(status.map_or(Exit::Unknown, Exit::from)),
            _ = self.orders.wait_for(Option::is_some) => Event::Ordered,
        }
    }

    /// The group's ladder. Returns how the leader ended once no member of the group is left.
    async fn empty_the_group(
        &mut self,
        child: &mut AsyncGroupChild,
        mut exit: Option<Exit>,
        signal: i32,
        since: Instant,
    ) -> Exit {
        let pid = self.shared.identity.pid;
        let mut killed_at = (signal == Signal::SIGKILL as i32).then_some(since);
        let mut pause = FIRST_LOOK;
        let mut asked = false;
        loop {
            // The leader first: as long as it is not reaped, its zombie is a member.
            if let Some(exit) = exit
                && is_empty(pid, pause).await
            {
                return exit;
            }
            if !asked {
                send(pid, signal);
                asked = true;
                self.tell_asked();
            }
            let (kill_at, at_once) = self.deadline(since);
            let now = Instant::now();
            if killed_at.is_none() && (at_once || now >= kill_at) {
                if !at_once {
                    self.warn_of_kill();
                }
                send(pid, Signal::SIGKILL as i32);
                killed_at = Some(now);
            }
            if killed_at.is_some_and(|at| at.elapsed() >= UNKILLABLE_AFTER) {
                tracing::error!(
                    pid,
                    "the process group survives SIGKILL (held by the kernel) and is given up"
                );
                return match exit {
                    Some(exit) => exit,
                    None => self.announce(Exit::Unknown).await,
                };
            }
            let next_rung = killed_at.map_or(kill_at, |at| at + UNKILLABLE_AFTER);
            let wake = if exit.is_some() { next_rung.min(now + pause) } else { next_rung };
            let event = tokio::select! {
                status = child.inner().wait(), if exit.is_none() => {
                    Event::Ended(status.map_or(Exit::Unknown, Exit::from))
                }
                Ok(()) = self.orders.changed() => Event::Ordered,
                () = sleep_until(wake) => Event::Tick,
            };
            match event {
                Event::Ended(ended) => exit = Some(self.announce(ended).await),
                Event::Ordered => {}
                Event::Tick => pause = stop::longer(pause),
            }
        }
    }

    /// Publishes that the group has got its signal.
    pub(super) fn tell_asked(&self) {
        self.asked.send_replace(true);
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// Publishes the leader's end, after its last lines were read.
    pub(super) async fn announce(&mut self, exit: Exit) -> Exit {
        self.reading.catch_up().await;
        let _ = self.exited.send(Some(exit));
        exit
    }

    /// Says that the time to end by itself is over.
    pub(super) fn warn_of_kill(&self) {
        let (pid, release) = (self.shared.identity.pid, self.shared.log.release());
        tracing::warn!(release, pid, "{}", stop::overdue(self.ordered()));
    }

    pub(super) fn ordered(&self) -> Option<Order> {
        *self.orders.borrow()
    }

    /// When SIGKILL is due, and whether nothing may get any more time.
    pub(super) fn deadline(&self, since: Instant) -> (Instant, bool) {
        self.ordered().map_or((since + STOP_TIMEOUT, false), |order| (order.kill_at, order.at_once))
    }
}

/// The signal to the whole group; `SIGCONT` lets stopped members act on it. Only called while the group is not seen empty.
fn send(group: u32, number: i32) {
    let Some(group) = raw(group) else { return };
    if let Ok(signal) = Signal::try_from(number) {
        let _ = killpg(group, signal);
        if signal != Signal::SIGKILL {
            let _ = killpg(group, Signal::SIGCONT);
        }
    }
}

/// Whether no member of the group is left. One that is only a zombie, whose parent does not read it (a container
/// without an init), is none; that needs a look at all processes, which is taken once the quick answer stays away.
async fn is_empty(group: u32, pause: Duration) -> bool {
    match raw(group).map(|group| killpg(group, None)) {
        None | Some(Err(Errno::ESRCH)) => true,
        Some(_) if pause < LONGEST_LOOK => false,
        Some(_) => {
            let left = stop::look(move || proc::all().iter().any(|stat| stat.group == group && stat.lives()));
            left.await == Some(false)
        }
    }
}

/// Never 0 or 1, which would address the daemon's own group, or every process there is (kill(2)).
fn raw(group: u32) -> Option<Pid> {
    i32::try_from(group).ok().filter(|&group| group > 1).map(Pid::from_raw)
}
