//! One process group: the task that owns it, and the handle on that task.
//!
//! The task ([`Owned::run`]) is the only one that reaps the leader and signals the group. It goes
//! through three stages: *running*, until the leader ends or a stop is ordered; *the group's
//! ladder*, until the group is empty; *the sweep* of what left the group. Then it publishes that
//! all is gone, and ends. A group that an earlier daemon started goes the same way by other means:
//! [`super::adopt`].
//!
//! The leader is only waited for with `inner().wait()` of the group child: command-group's own
//! `wait` and `try_wait` reap by group and lose the status that tokio waits for. `exited` is
//! published after the output was read once more, so that a task that sees the exit also sees the
//! last lines.

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
use super::spawn::{self, ChildPlan, SpawnError};
use super::stop::{self, FIRST_LOOK, LONGEST_LOOK, STOP_TIMEOUT, StopOrder, UNKILLABLE_AFTER};
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
    /// `None`: it was told no port of its own.
    lease: Option<Lease>,
    log: Arc<RunLog>,
    order: watch::Sender<Option<StopOrder>>,
    signalled: watch::Receiver<bool>,
    exited: watch::Receiver<Option<Exit>>,
    gone: watch::Receiver<Option<Exit>>,
}

impl Shared {
    /// Closes what holds its port against others.
    fn let_port_go(&self) {
        if let Some(lease) = &self.lease {
            lease.let_go();
        }
    }
}

/// Makes the handle, and the task's side of it.
pub(super) fn pair(identity: Identity, lease: Option<Lease>, reading: Reading) -> (Process, Owned) {
    let (order, orders) = watch::channel(None);
    let (signalled, signalled_seen) = watch::channel(false);
    let (exited, exited_seen) = watch::channel(None);
    let (gone, gone_seen) = watch::channel(None);
    let log = Arc::clone(reading.log());
    let shared = Shared {
        identity,
        lease,
        log,
        order,
        signalled: signalled_seen,
        exited: exited_seen,
        gone: gone_seen,
    };
    let shared = Arc::new(shared);
    (Process { shared: Arc::clone(&shared) }, Owned { shared, orders, signalled, exited, gone, reading })
}

/// Starts the plan and the task that owns what it became.
///
/// The task is spawned before the process, and owns it from the first moment: if the caller is
/// dropped midway, even with the answer on its way, the process is killed, never forgotten.
pub(super) async fn start(
    groups: &TaskTracker,
    letting_go: &CancellationToken,
    plan: ChildPlan,
    tag: String,
    lease: Option<Lease>,
    reading: Reading,
) -> Result<Process, SpawnError> {
    let (answer, started) = oneshot::channel();
    let letting_go = letting_go.clone();
    groups.spawn(async move {
        // Blocking: fork and exec wait for the disk that the program is on.
        let spawned = tokio::task::spawn_blocking(move || execute(plan, tag)).await.unwrap_or_else(|panic| {
            Err(SpawnError::new("cannot start the app".to_owned(), std::io::Error::other(panic)))
        });
        let (child, identity) = match spawned {
            Ok(spawned) => spawned,
            Err(error) => {
                reading.end();
                // A caller that was dropped needs no error.
                let _ = answer.send(Err(error));
                return;
            }
        };
        let (process, owned) = pair(identity, lease, reading);
        let (taken, is_taken) = oneshot::channel();
        drop(answer.send(Ok(Delivered { process: process.clone(), taken })));
        if is_taken.await.is_err() {
            // Nobody knows of it, a daemon that comes after this one neither.
            process.kill();
            owned.run(child).await;
            return;
        }
        // Once let go, its processes are another daemon's: dropping the child neither signals nor
        // waits.
        letting_go.run_until_cancelled(owned.run(child)).await;
    });
    let ending =
        || SpawnError { message: "cannot start the app: the daemon is ending".to_owned(), source: None };
    let Delivered { process, taken } = started.await.unwrap_or_else(|_| Err(ending()))?;
    taken.send(()).map_err(|()| ending())?;
    Ok(process)
}

/// A process on its way to who asked for it. Where it is dropped on the way, the process is killed.
#[derive(Debug)]
struct Delivered {
    process: Process,
    taken: oneshot::Sender<()>,
}

fn execute(plan: ChildPlan, tag: String) -> Result<(AsyncGroupChild, Identity), SpawnError> {
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

    /// The port it was told to listen on, if it was.
    pub fn port(&self) -> Option<u16> {
        self.shared.lease.as_ref().map(Lease::port)
    }

    /// Waits until the leader has ended and what it printed is read. Cancel safe, any number of
    /// waiters.
    pub async fn exited(&self) -> Exit {
        published(self.shared.exited.clone()).await
    }

    /// Waits until the whole group and everything that carries the run's tag is gone. Where the
    /// leader ends by itself, what it left behind is stopped by the ladder first. Cancel safe.
    pub async fn gone(&self) -> Exit {
        published(self.shared.gone.clone()).await
    }

    /// Waits until the stop signal has reached the group; for ever where no stop is ordered. Cancel
    /// safe.
    pub async fn signalled(&self) {
        if self.shared.signalled.clone().wait_for(|signalled| *signalled).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the stop signal has reached the group.
    pub fn was_signalled(&self) -> bool {
        *self.shared.signalled.borrow()
    }

    /// Starts the stop ladder: `signal` to the group, after `timeout` SIGKILL to all that is left.
    /// The first call decides the signal; a later one may only shorten the time.
    pub fn stop(&self, signal: StopSignal, timeout: Duration) {
        self.order(StopOrder::stop(signal, timeout));
    }

    /// Sends SIGKILL to all of it, now.
    pub fn kill(&self) {
        self.order(StopOrder::kill());
    }

    pub(super) fn order(&self, order: StopOrder) {
        self.shared.order.send_if_modified(|slot| StopOrder::merge(slot, order));
    }

    /// Gives up the port's placeholder: the app listens.
    pub fn listening(&self) {
        self.shared.let_port_go();
    }

    /// Whose the listener on its port is.
    pub async fn owner(&self) -> Owner {
        let Some(port) = self.port() else { return Owner::Nobody };
        let run = self.identity().clone();
        stop::look(move || owner::of_port(&run, port)).await.unwrap_or(Owner::Unproven)
    }

    /// Where its processes listen.
    pub async fn listeners(&self) -> Vec<std::net::SocketAddr> {
        let run = self.identity().clone();
        stop::look(move || owner::listeners(&run)).await.unwrap_or_default()
    }

    /// The last `lines` it printed.
    pub fn output(&self, lines: usize) -> Vec<LogLine> {
        last(self.shared.log.lines(), lines)
    }

    /// What has its port, if its end looks as if the port was taken: its output says so, or a
    /// stranger listens there.
    pub async fn port_taken(&self) -> Option<PortTaken> {
        let lease = self.shared.lease.as_ref()?;
        let says_so = self.shared.log.lines().iter().any(|line| {
            let line = line.line.to_ascii_lowercase();
            super::tells_taken_port(&line)
        });
        match self.owner().await {
            Owner::Stranger { .. } => Some(PortTaken::ByAnother),
            _ if !says_so => None,
            Owner::Nobody if lease.was_held() => Some(PortTaken::ByPlaceholder),
            // Its output speaks of another port than this one; leasing a new one would not help.
            Owner::Nobody if lease.is_free() => None,
            _ => Some(PortTaken::ByAnother),
        }
    }

    /// Lines as they are printed from now on. The queue is bounded: a slow reader loses the oldest.
    pub fn follow(&self) -> broadcast::Receiver<Arc<LogLine>> {
        self.shared.log.follow()
    }
}

/// Waits for the value. Its sender is dropped without one only when the runtime ends.
async fn published(mut value: watch::Receiver<Option<Exit>>) -> Exit {
    value.wait_for(Option::is_some).await.ok().and_then(|exit| *exit).unwrap_or(Exit::Unknown)
}

/// The task's side.
pub(super) struct Owned {
    shared: Arc<Shared>,
    pub(super) orders: watch::Receiver<Option<StopOrder>>,
    signalled: watch::Sender<bool>,
    exited: watch::Sender<Option<Exit>>,
    gone: watch::Sender<Option<Exit>>,
    reading: Reading,
}

/// What the task of a group waits for.
pub(super) enum GroupEvent {
    Ended(Exit),
    Ordered,
    /// The next step is due.
    Due,
}

impl Owned {
    async fn run(mut self, mut child: AsyncGroupChild) {
        let pid = self.shared.identity.pid;
        let mut hunt = Hunt::for_tag(&self.shared.identity.tag);

        let mut exit = None;
        match self.first_event(&mut child).await {
            GroupEvent::Ended(ended) => exit = Some(self.announce(ended).await),
            GroupEvent::Ordered | GroupEvent::Due => {
                // Before the signal: afterwards no parent may be left to know them by.
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

    /// Nothing of it is left: reads the last lines, gives the port back, publishes the end.
    pub(super) async fn end(self, exit: Exit) {
        self.reading.catch_up().await;
        self.reading.end();
        self.shared.let_port_go();
        let _ = self.gone.send(Some(exit));
    }

    /// Runs until the leader ends or a stop is ordered.
    async fn first_event(&mut self, child: &mut AsyncGroupChild) -> GroupEvent {
        tokio::select! {
            status = child.inner().wait() => GroupEvent::Ended(status.map_or(Exit::Unknown, Exit::from)),
            _ = self.orders.wait_for(Option::is_some) => GroupEvent::Ordered,
        }
    }

    /// The group's ladder. Once no member of the group is left, returns how the leader ended.
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
        let mut signalled = false;
        loop {
            // The leader first: as long as it is not reaped, its zombie is a member.
            if let Some(exit) = exit
                && is_empty(pid, pause).await
            {
                return exit;
            }
            if !signalled {
                send(pid, signal);
                signalled = true;
                self.tell_signalled();
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
                    GroupEvent::Ended(status.map_or(Exit::Unknown, Exit::from))
                }
                Ok(()) = self.orders.changed() => GroupEvent::Ordered,
                () = sleep_until(wake) => GroupEvent::Due,
            };
            match event {
                GroupEvent::Ended(ended) => exit = Some(self.announce(ended).await),
                GroupEvent::Ordered => {}
                GroupEvent::Due => pause = stop::longer(pause),
            }
        }
    }

    /// Publishes that the group has its signal.
    pub(super) fn tell_signalled(&self) {
        self.signalled.send_replace(true);
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// Publishes the leader's end, once its last lines are read.
    pub(super) async fn announce(&mut self, exit: Exit) -> Exit {
        self.reading.catch_up().await;
        let _ = self.exited.send(Some(exit));
        exit
    }

    /// Logs that the time to end by itself is over.
    pub(super) fn warn_of_kill(&self) {
        let (pid, release) = (self.shared.identity.pid, self.shared.log.release());
        tracing::warn!(release, pid, "{}", stop::overdue(self.ordered()));
    }

    pub(super) fn ordered(&self) -> Option<StopOrder> {
        *self.orders.borrow()
    }

    /// When SIGKILL is due, and whether it is due at once for everything.
    pub(super) fn deadline(&self, since: Instant) -> (Instant, bool) {
        self.ordered().map_or((since + STOP_TIMEOUT, false), |order| (order.kill_at, order.at_once))
    }
}

/// Sends the signal to the whole group, and `SIGCONT`, so that stopped members act on it. Only
/// called while the group has not been seen empty.
fn send(group: u32, number: i32) {
    let Some(group) = raw(group) else { return };
    if let Ok(signal) = Signal::try_from(number) {
        let _ = killpg(group, signal);
        if signal != Signal::SIGKILL {
            let _ = killpg(group, Signal::SIGCONT);
        }
    }
}

/// Whether no member of the group is left. A zombie that its parent does not reap (in a container
/// without an init) is no member; to tell, all processes are looked at, once the quick answer stays
/// away.
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
