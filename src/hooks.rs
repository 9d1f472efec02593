//! Hooks: runs a program of the operator's for each event.
//!
//! One task runs `hooks.on_event`, one event at a time, with the event as a JSON value on the
//! program's standard input. The task owns the processes it starts; [`HookSender`] only fills its
//! queue. A hook that fails, hangs or floods is a line in the log and never affects a release.
//!
//! Bounds: [`QUEUE`] events wait (when there are more, the oldest is dropped); a hook that runs
//! longer than [`RUN_WITHIN`] is killed with its whole process group; [`KEPT_OUTPUT`] bytes of each
//! of its outputs are logged.
//!
//! When the task is told to stop, it still runs what is queued, all together within
//! [`LAST_WITHIN`]. If its future is dropped, the group of the running hook is killed.
//!
//! The one ordering that matters: the leader of a hook's group is reaped only after its outputs
//! have ended. Until then it is at least a zombie, so its process id, which is the group's id too,
//! cannot belong to another process when the group is killed.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::{AppConfig, is_withheld};
use crate::supervisor::start_child;
use crate::wire::HookEvent;

/// Events that wait for their hook.
const QUEUE: usize = 16;
/// How long one hook may run.
const RUN_WITHIN: Duration = Duration::from_secs(30);
/// How long the remaining hooks may run once the daemon stops.
const LAST_WITHIN: Duration = Duration::from_secs(5);
/// How much of each of a hook's outputs is logged, in bytes.
const KEPT_OUTPUT: usize = 4096;

/// Where events for the hook go. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HookSender {
    queue: Arc<Queue>,
}

impl HookSender {
    /// Queues `event`. Never blocks and never fails: if [`QUEUE`] events wait already, the oldest
    /// is dropped, with a line in the log.
    /// `app` is the configuration of the app that it is about, which names the hook's program.
    pub fn send(&self, event: HookEvent, app: watch::Receiver<Arc<AppConfig>>) {
        let dropped = {
            let mut events = self.queue.events();
            let dropped = if events.len() >= QUEUE { events.pop_front() } else { None };
            events.push_back(Told { event, app });
            dropped
        };
        if let Some(dropped) = dropped {
            tracing::warn!(
                event = dropped.event.event,
                at = dropped.event.at,
                "a hook was not run: too many events wait"
            );
        }
        self.queue.filled.notify_one();
    }
}

/// An event on its way to its hook.
#[derive(Debug)]
struct Told {
    event: HookEvent,
    app: watch::Receiver<Arc<AppConfig>>,
}

#[derive(Debug, Default)]
struct Queue {
    events: Mutex<VecDeque<Told>>,
    filled: Notify,
}

impl Queue {
    fn events(&self) -> MutexGuard<'_, VecDeque<Told>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<Told> {
        self.events().pop_front()
    }
}

/// Makes the queue and the task that empties it until `stop`. The future is to be spawned on the
/// control plane and joined after `stop`; then it ends within five seconds.
///
/// The program is read from the app's configuration for each event. Without a program, events are
/// dropped silently.
pub fn start(stop: CancellationToken) -> (HookSender, impl Future<Output = ()> + Send + 'static) {
    let queue = Arc::new(Queue::default());
    let runner = work(Arc::clone(&queue), stop, |Told { event, app }| {
        let hook = app.borrow().hooks.on_event.clone();
        async move {
            if let Some(argv) = hook {
                tell(&argv, &event).await;
            }
        }
    });
    (HookSender { queue }, runner)
}

/// Runs `each` for one event after the other until `stop`, then for the rest within
/// [`LAST_WITHIN`].
async fn work<Run>(queue: Arc<Queue>, stop: CancellationToken, each: impl Fn(Told) -> Run)
where
    Run: Future<Output = ()>,
{
    enum Wake {
        Event,
        Stop,
    }
    let too_late = async {
        stop.cancelled().await;
        sleep(LAST_WITHIN).await;
    };
    let all = async {
        loop {
            while let Some(event) = queue.take() {
                each(event).await;
            }
            // No event is missed: a permit given between the look and the wait is kept.
            let wake = tokio::select! {
                () = queue.filled.notified() => Wake::Event,
                () = stop.cancelled() => Wake::Stop,
            };
            match wake {
                Wake::Event => {}
                Wake::Stop if queue.events().is_empty() => return true,
                Wake::Stop => {}
            }
        }
    };
    let told_all = tokio::select! {
        told_all = all => told_all,
        () = too_late => false,
    };
    if !told_all {
        let left = queue.events().len();
        tracing::warn!(left, "hooks were cut short: the daemon stops");
    }
}

/// Runs one hook and logs how it ended.
async fn tell(argv: &[String], event: &HookEvent) {
    let program = argv.first().map_or("", String::as_str);
    let name = event.event.as_str();
    match run(argv, event, sleep(RUN_WITHIN)).await {
        Ok(Ended { status: Some(status), stdout, stderr }) if status.success() => {
            tracing::debug!(program, event = name, stdout, stderr, "hook ran");
        }
        Ok(Ended { status: Some(status), stdout, stderr }) => {
            tracing::warn!(program, event = name, %status, stdout, stderr, "hook failed");
        }
        Ok(Ended { status: None, stdout, stderr }) => {
            let seconds = RUN_WITHIN.as_secs();
            tracing::warn!(
                program,
                event = name,
                stdout,
                stderr,
                "hook killed with its process group: it did not end, or did not close its output, within {seconds} s"
            );
        }
        Err(cause) => tracing::warn!(program, event = name, %cause, "hook not run"),
    }
}

/// How a hook ended.
#[derive(Debug)]
struct Ended {
    /// `None`: it was overdue and has been killed.
    status: Option<ExitStatus>,
    stdout: String,
    stderr: String,
}

/// Runs `argv` with `event` on its standard input, until it ends or `overdue` kills its group.
async fn run(
    argv: &[String],
    event: &HookEvent,
    overdue: impl Future<Output = ()>,
) -> std::io::Result<Ended> {
    let (program, arguments) = argv
        .split_first()
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidInput, "hooks.on_event is empty"))?;
    let mut input = serde_json::to_vec(event)?;
    input.push(b'\n');

    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(inherited(std::env::vars_os()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = start_child(|| command.spawn(), Child::id)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut group = Group(child);

    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = {
        let ended = async {
            let give = async {
                if let Some(mut stdin) = stdin {
                    // A hook need not read its input.
                    let _ = stdin.write_all(&input).await;
                }
            };
            tokio::join!(give, keep(stdout, &mut out), keep(stderr, &mut err));
            group.0.wait().await
        };
        tokio::select! {
            status = ended => Some(status?),
            () = overdue => None,
        }
    };
    if status.is_none() {
        group.kill();
        // A process in an uninterruptible call ends late, even by SIGKILL. It is reaped later then.
        let _ = timeout(LAST_WITHIN, group.0.wait()).await;
    }
    Ok(Ended { status, stdout: shown(&out), stderr: shown(&err) })
}

/// A hook's process group. It is killed as a whole if it is dropped before its leader was reaped.
struct Group(Child);

impl Group {
    fn kill(&self) {
        // No id: the leader was reaped, and the id may belong to another group by now.
        let Some(id) = self.0.id().and_then(|id| i32::try_from(id).ok()) else { return };
        if let Err(cause) = killpg(Pid::from_raw(id), Signal::SIGKILL) {
            tracing::warn!(group = id, %cause, "cannot kill the process group of a hook");
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads `output` to its end and keeps the start of it.
async fn keep(output: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut output) = output else { return };
    let mut chunk = [0; KEPT_OUTPUT];
    while let Ok(count @ 1..) = output.read(&mut chunk).await {
        let room = KEPT_OUTPUT - kept.len();
        kept.extend_from_slice(&chunk[..count.min(room)]);
    }
}

fn shown(output: &[u8]) -> String {
    String::from_utf8_lossy(output).trim_end().to_owned()
}

/// The daemon's environment without portok's own variables and those of systemd for the daemon.
fn inherited(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> impl Iterator<Item = (OsString, OsString)> {
    variables.filter(|(name, _)| !is_withheld(name))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A deadline that only a hang reaches.
    const LONG: Duration = Duration::from_secs(30);

    fn event(name: &str) -> HookEvent {
        HookEvent {
            at: "2026-01-01T00:00:00.000Z".to_owned(),
            event: name.to_owned(),
            instance: "api".to_owned(),
            app: None,
            release: Some("v1".to_owned()),
            message: "traffic moved".to_owned(),
            switch: None,
        }
    }

    fn app() -> watch::Receiver<Arc<AppConfig>> {
        watch::Sender::new(crate::config::of_an_empty_file().app).subscribe()
    }

    fn sh(script: &str) -> Vec<String> {
        ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
    }

    async fn ran(script: &str) -> Ended {
        timeout(LONG, run(&sh(script), &event("switched"), std::future::pending()))
            .await
            .expect("it ends")
            .unwrap()
    }

    async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        timeout(LONG, async {
            loop {
                if let Some(found) = look() {
                    return found;
                }
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("not within {LONG:?}: {what}"))
    }

    /// Whether `pid` is gone; a zombie that nobody reaps is.
    fn gone(pid: &str) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .map_or(true, |stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
    }

    fn written(path: &Path) -> Option<String> {
        std::fs::read_to_string(path)
            .ok()
            .filter(|text| text.ends_with('\n'))
            .map(|text| text.trim().to_owned())
    }

    #[tokio::test]
    async fn a_hook_gets_one_json_event() {
        let ended = ran("cat; echo oops >&2; exit 3").await;
        assert_eq!(serde_json::from_str::<HookEvent>(&ended.stdout).unwrap(), event("switched"));
        assert_eq!(ended.stderr, "oops");
        assert_eq!(ended.status.unwrap().code(), Some(3));
    }

    #[tokio::test]
    async fn a_hook_that_reads_nothing_and_prints_much_is_fine() {
        let ended = ran("exec 0<&-; head -c 1000000 /dev/zero | tr '\\0' x").await;
        assert!(ended.status.unwrap().success());
        assert_eq!(ended.stdout, "x".repeat(KEPT_OUTPUT));
    }

    #[tokio::test]
    async fn a_hook_that_is_not_there_is_an_error() {
        let error =
            run(&["/no/such/hook".to_owned()], &event("failed"), std::future::pending()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        run(&[], &event("failed"), std::future::pending()).await.unwrap_err();
    }

    #[tokio::test]
    async fn an_overdue_hook_is_killed_with_its_group() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pids");
        let script = format!("sleep 1000 & echo $$ $! > {}; wait", file.display());
        let mut pids = String::new();
        let overdue = async { pids = eventually("the hook tells its processes", || written(&file)).await };
        let ended =
            timeout(LONG, run(&sh(&script), &event("switched"), overdue)).await.expect("it ends").unwrap();
        assert!(ended.status.is_none());
        for pid in pids.split(' ') {
            eventually(&format!("process {pid} is gone"), || gone(pid).then_some(())).await;
        }
    }

    #[tokio::test]
    async fn a_hook_that_left_its_output_to_a_child_is_overdue_too() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pids");
        let script = format!("sleep 1000 & echo $$ $! > {}", file.display());
        let mut pids = String::new();
        let overdue = async {
            pids = eventually("the hook tells its processes", || written(&file)).await;
            let leader = pids.split(' ').next().unwrap_or_default();
            eventually("the leader has ended", || gone(leader).then_some(())).await;
        };
        let ended =
            timeout(LONG, run(&sh(&script), &event("switched"), overdue)).await.expect("it ends").unwrap();
        assert!(ended.status.is_none());
        let child = pids.split(' ').nth(1).unwrap();
        eventually("its child is gone", || gone(child).then_some(())).await;
    }

    #[tokio::test]
    async fn a_dropped_run_kills_the_group() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pids");
        let script = format!("sleep 1000 & echo $$ $! > {}; wait", file.display());
        let task =
            tokio::spawn(async move { run(&sh(&script), &event("switched"), std::future::pending()).await });
        let pids = eventually("the hook tells its processes", || written(&file)).await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        for pid in pids.split(' ') {
            eventually(&format!("process {pid} is gone"), || gone(pid).then_some(())).await;
        }
    }

    #[tokio::test]
    async fn events_run_in_their_order_and_one_at_a_time_and_the_oldest_is_dropped() {
        let queue = Arc::new(Queue::default());
        let sender = HookSender { queue: Arc::clone(&queue) };
        for number in 0..QUEUE + 3 {
            sender.send(event(&number.to_string()), app());
        }
        let stop = CancellationToken::new();
        let (running, seen) = (Mutex::new(false), Mutex::new(Vec::new()));
        let worker = work(queue, stop.clone(), |Told { event, .. }| {
            let (running, seen, stop) = (&running, &seen, &stop);
            async move {
                assert!(!std::mem::replace(&mut *running.lock().unwrap(), true));
                tokio::task::yield_now().await;
                *running.lock().unwrap() = false;
                seen.lock().unwrap().push(event.event.clone());
                // Told to stop in the middle: the rest is still run.
                if event.event == "5" {
                    stop.cancel();
                }
            }
        });
        timeout(LONG, worker).await.expect("the worker ends once it is stopped");
        let expected: Vec<String> = (3..QUEUE + 3).map(|number| number.to_string()).collect();
        assert_eq!(*seen.lock().unwrap(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_is_stopped_does_not_wait_for_ever() {
        let queue = Arc::new(Queue::default());
        let sender = HookSender { queue: Arc::clone(&queue) };
        sender.send(event("switched"), app());
        let stop = CancellationToken::new();
        stop.cancel();
        work(queue, stop, |_| std::future::pending()).await;
    }

    #[tokio::test]
    async fn an_event_that_comes_later_wakes_the_worker() {
        let queue = Arc::new(Queue::default());
        let sender = HookSender { queue: Arc::clone(&queue) };
        let stop = CancellationToken::new();
        let (told, mut heard) = tokio::sync::mpsc::channel(1);
        let worker = tokio::spawn(work(queue, stop.clone(), move |Told { event, .. }| {
            let told = told.clone();
            async move { told.send(event.event).await.unwrap() }
        }));
        for name in ["switched", "rolled_back"] {
            sender.send(event(name), app());
            let heard = timeout(LONG, heard.recv()).await.expect("the worker wakes");
            assert_eq!(heard.as_deref(), Some(name));
        }
        stop.cancel();
        timeout(LONG, worker).await.expect("the worker ends").unwrap();
    }

    #[test]
    fn no_secret_of_portok_reaches_a_hook() {
        let names = [
            "PATH",
            "ADMIN_TOKEN",
            "ADMIN_ALLOWLIST",
            "PORTOK_TOKEN",
            "PORTOK_URL",
            "NOTIFY_SOCKET",
            "WATCHDOG_USEC",
            "LISTEN_FDS",
            "LISTEN_PORT",
            "CREDENTIALS_DIRECTORY",
            "JOURNAL_STREAM",
            "STATE_FILE",
            "APP_COMMAND",
            "HOME",
            "SLACK_URL",
        ];
        let left: Vec<OsString> = inherited(names.iter().map(|name| (name.into(), OsString::new())))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(left, ["PATH", "HOME", "SLACK_URL"]);
    }
}
