//! What the machine wants done and told: data that the driver carries out.

use std::time::Duration;

use super::{DeployStep, ProcessName, ReleaseRef, RunId, SetId};
use crate::config::HoldOn;
use crate::wire::Reason;

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write the record. `Recorded` follows.
    Save {
        /// Its number, larger than any before.
        seq: u64,
    },
    /// Start a process. `Spawned` follows, then `Ready` or `NotReady`, `Signalled` when it is
    /// stopped, `Exited`, and at last exactly one `Gone`.
    Spawn {
        /// Its run.
        run: RunId,
        /// The release to run.
        release: String,
        /// Which companion of the release; `None`: the app itself.
        process: Option<ProcessName>,
        /// The number of its place in its set.
        replica: u16,
        /// Not before nothing is left of this run, which is being stopped.
        after: Option<RunId>,
    },
    /// Run a step of a deploy. `StepStarted` follows, then `StepEnded`, `Signalled` when it is
    /// stopped, and at last exactly one `Gone`.
    RunStep {
        /// Its run.
        run: RunId,
        /// The release that it belongs to.
        release: String,
        /// Which step.
        step: DeployStep,
        /// The run whose port it is told.
        beside: Option<RunId>,
        /// How long it may take.
        within: Duration,
    },
    /// Wait for the readiness of a run that was taken over. `Ready` or `NotReady` follows.
    Await {
        /// Its run.
        run: RunId,
    },
    /// Probe a run that no process is started for. `Ready` or `NotReady` follows.
    Probe {
        /// Its run.
        run: RunId,
        /// Probe until it is healthy.
        patient: bool,
    },
    /// Spread new requests over runs of one set.
    Serve {
        /// The set.
        set: SetId,
        /// Its runs that get requests: at least one.
        runs: Vec<RunId>,
        /// The set that had them, where it is another, and what becomes of its targets.
        former: Option<(SetId, FormerTarget)>,
    },
    /// Take the target away; requests wait for the next one, which comes for this reason.
    Hold(HoldOn),
    /// Take the target away; requests wait, and the first that does is [`super::Event::Wake`].
    Idle,
    /// Take the target away; requests are refused.
    Unroute,
    /// Let a run take no request any more.
    Close {
        /// The run.
        run: RunId,
    },
    /// Let a run take no request any more, and end its tunnels.
    Cut {
        /// The run.
        run: RunId,
    },
    /// Stop a run: its stop signal now, SIGKILL after `app.stop_timeout`.
    Stop {
        /// The run.
        run: RunId,
    },
    /// Send SIGKILL to a run now.
    Kill {
        /// The run.
        run: RunId,
    },
    /// Forget an unmanaged run.
    Forget {
        /// The run.
        run: RunId,
    },
    /// Start a timer.
    Timer(Timer),
    /// Start a timer of an earlier daemon for the rest of its time.
    Resume(Timer, Duration),
    /// Tell the attempt's readers, the history, the hooks and the log.
    Tell(Tell),
    /// Refuse the request in hand.
    Refuse(Refusal),
    /// The release of the request in hand is live already.
    AlreadyLive,
    /// What the request in hand asks for is under way already.
    UnderWay,
    /// Every run is gone: the daemon may end.
    Finished,
}

/// What becomes of the targets that traffic leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormerTarget {
    /// Pinned clients may stay for the drain.
    Retire,
    /// Pinned clients move, too.
    Close,
}

/// A timer. Its end is an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// `drain.period`, then [`super::Event::DrainOver`] for this drain of the set. A set that is
    /// made live again gets another one.
    Drain(SetId, u64),
    /// `rollback.window`, then [`super::Event::WindowOver`].
    Window(u64),
    /// This delay, then [`super::Event::RestartDue`].
    Restart(u64, Duration),
    /// This delay, then [`super::Event::Calm`].
    Calm(u64, Duration),
}

/// What is worth telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tell {
    /// A task begins.
    Accepted,
    /// A candidate is started again because its port was taken.
    PortTaken {
        /// The run that found it.
        run: RunId,
    },
    /// Traffic moved; the task is done.
    Switched {
        /// To this run: that of the lowest number in its set.
        run: RunId,
        /// From this one, likewise.
        from: Option<RunId>,
        /// Why.
        reason: Reason,
        /// The release that lost traffic.
        from_release: Option<ReleaseRef>,
        /// The save that records it.
        seq: u64,
    },
    /// A run finishes its requests.
    Draining {
        /// Which.
        run: RunId,
    },
    /// Its drain is over.
    Drained {
        /// Which.
        run: RunId,
    },
    /// Nothing is left of a run.
    Stopped {
        /// Which.
        run: RunId,
        /// Its release.
        release: ReleaseRef,
    },
    /// A task was given up, and traffic did not move.
    Aborted {
        /// The release that did not become live.
        release: ReleaseRef,
        /// The reason of the task.
        reason: Reason,
        /// Its run, where it had one.
        run: Option<RunId>,
        /// Why.
        why: Abort,
        /// Its step `before` has ended as it should.
        before_done: bool,
        /// The save that tells of it; `None`: not even its intent could be written down.
        seq: Option<u64>,
    },
    /// The live run ended, and its release is started again after a delay.
    Crashed {
        /// The release.
        release: ReleaseRef,
        /// The delay; `None` where it is not started again.
        delay: Option<Duration>,
        /// With this crash it has ended too often.
        loops_now: bool,
    },
    /// A companion has ended, and is started again after a delay.
    CompanionCrashed {
        /// Its release.
        release: ReleaseRef,
        /// Its name.
        process: ProcessName,
        /// The delay; `None` where it is not started again.
        delay: Option<Duration>,
        /// With this end it has ended too often.
        loops_now: bool,
    },
    /// A companion runs.
    CompanionStarted {
        /// Its run.
        run: RunId,
        /// After a crash.
        again: bool,
    },
    /// The live release serves again (or, at boot, for the first time).
    Restored {
        /// The run that serves.
        run: RunId,
        /// At boot, not after a crash.
        boot: bool,
    },
    /// One more run of the live release serves beside others.
    Joined {
        /// Which.
        run: RunId,
        /// After a crash.
        again: bool,
    },
    /// The live release gets one replica more because of the load.
    Grew {
        /// So many it has had.
        from: u16,
        /// The requests in flight.
        inflight: u64,
    },
    /// The live release gets one replica fewer because of the load.
    Shrank {
        /// So many it has had.
        from: u16,
        /// The requests in flight.
        inflight: u64,
    },
    /// The last replica of the live release is stopped, because nobody asks for it.
    Idle {
        /// The release.
        release: ReleaseRef,
    },
    /// The live release is started because a request came.
    Woken {
        /// The release.
        release: ReleaseRef,
    },
    /// A live run has grown too large, and another one is started to take its place.
    Recycling {
        /// Which.
        run: RunId,
        /// Its memory.
        bytes: u64,
    },
    /// The other one serves; the large one drains.
    Recycled {
        /// The large one.
        run: RunId,
        /// The other one.
        by: RunId,
        /// The memory that the large one had.
        bytes: u64,
    },
    /// The other one did not become ready, and the large one stays.
    NotRecycled {
        /// The large one.
        run: RunId,
    },
    /// A live run has grown too large so soon that a replacement would not help.
    GrowsFast {
        /// Which.
        run: RunId,
        /// Its memory.
        bytes: u64,
    },
    /// This daemon makes the first release of all live, as an earlier one had begun to.
    Resumed {
        /// Its run.
        run: RunId,
    },
    /// The live run went on while there was no daemon.
    Adopted {
        /// The run that serves.
        run: RunId,
    },
    /// The live release is bad, and portok goes back nowhere.
    NoWayBack {
        /// Because it has just gone back to the live release by itself, which it does once a
        /// deploy. Otherwise there is nothing to go back to.
        went_back: bool,
    },
    /// The watch window has passed.
    Settled,
    /// The live release has not crashed for `app.restart.within`.
    Calm,
}

/// Why a task was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// The candidate's process ended.
    Exited,
    /// The candidate could not be started, was not healthy in time, or could not be proven to be
    /// the release's own.
    NotReady,
    /// A step of it failed, could not be started, or took too long.
    Step(DeployStep),
    /// The target did not answer its health path with 2xx.
    Unhealthy,
    /// An operator ended it.
    Cancelled,
    /// It was given up for a rollback.
    MadeWay,
    /// The intent could not be written down.
    Unrecorded,
    /// The daemon is going down.
    Interrupted,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Another task is under way.
    Busy {
        /// The release that it is to make live.
        release: String,
        /// Why.
        reason: Reason,
    },
    /// There is no previous release.
    NoPrevious {
        /// The release in quarantine that was live last: an operator may name it.
        quarantined: Option<String>,
    },
    /// No release of this id was ever live.
    NoSuchRelease {
        /// The id.
        release: String,
    },
    /// Traffic was taken away from the release, and the request does not force it.
    Quarantined {
        /// The id.
        release: String,
    },
    /// The release is live and down: it is being restarted, or given up.
    LiveIsDown {
        /// The id.
        release: String,
    },
    /// No task is under way.
    NothingUnderWay,
    /// The port belongs to a managed run that is not ready, or is being stopped.
    PortInUse {
        /// The run's release.
        release: String,
    },
    /// What an earlier daemon left running is still being stopped.
    Booting,
    /// The daemon is going down.
    ShuttingDown,
}
