//! What the machine wants done and told.

use std::time::Duration;

use super::{ReleaseRef, RunId};
use crate::wire::Reason;

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write the record; answer with `Recorded`.
    Save {
        /// Its number; they grow.
        seq: u64,
    },
    /// Start a process; answer with `Spawned`, then `Ready` or `NotReady`, later `Signalled` (when it is stopped) and `Exited`,
    /// at last exactly one `Gone`.
    Spawn {
        /// Its run.
        run: RunId,
        /// The release to run.
        release: String,
    },
    /// Wait for the readiness of a run that was taken over; answer with `Ready` or `NotReady`.
    Await {
        /// Its run.
        run: RunId,
    },
    /// Ask a run that no process is started for; answer with `Ready` or `NotReady`.
    Probe {
        /// Its run.
        run: RunId,
        /// Ask until it is healthy.
        patient: bool,
    },
    /// Point new requests at a run.
    Route {
        /// The run.
        run: RunId,
        /// The run that had them; `close`: nobody stays pinned to it.
        former: Option<(RunId, FormerTarget)>,
    },
    /// No target; requests wait a little for the next.
    Hold,
    /// No target; requests are refused.
    Unroute,
    /// A run's target takes no request any more.
    Close {
        /// The run.
        run: RunId,
    },
    /// Start the stop ladder.
    Stop {
        /// The run.
        run: RunId,
    },
    /// SIGKILL now.
    Kill {
        /// The run.
        run: RunId,
    },
    /// A run without a process of ours is of no interest any more.
    Forget {
        /// The run.
        run: RunId,
    },
    /// Start a timer.
    Timer(Timer),
    /// Start a timer that an earlier daemon had started, with what is left of it.
    Resume(Timer, Duration),
    /// Tell everybody who wants to know.
    Tell(Tell),
    /// The request in hand is refused.
    Refuse(Refusal),
    /// What was asked for is live already: nothing to do.
    AlreadyLive,
    /// What was asked for is under way already: whoever asked follows that.
    UnderWay,
    /// Everything is gone: the daemon may end.
    Finished,
}

/// What becomes of the target that a route leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormerTarget {
    /// Pinned connections may stay for the drain.
    Retire,
    /// Nobody stays.
    Close,
}

/// A timer; its end comes back as the event of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// `drain.period`, then [`super::Event::DrainOver`] for this drain of the run; one that was revived has another.
    Drain(RunId, u64),
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
        /// To this run.
        run: RunId,
        /// From this one.
        from: Option<RunId>,
        /// Why.
        reason: Reason,
        /// The release that lost traffic.
        from_release: Option<ReleaseRef>,
        /// The save that records it.
        seq: u64,
    },
    /// A run finishes what it has.
    Draining {
        /// Which.
        run: RunId,
    },
    /// Its drain is over.
    Drained {
        /// Which.
        run: RunId,
    },
    /// Nothing is left of it.
    Stopped {
        /// Which.
        run: RunId,
        /// Its release.
        release: ReleaseRef,
    },
    /// A task was given up; traffic did not move.
    Aborted {
        /// The release that did not become live.
        release: ReleaseRef,
        /// The reason of the task.
        reason: Reason,
        /// Its run, where it had one.
        run: Option<RunId>,
        /// Why.
        why: Abort,
    },
    /// The live run ended; it is started again after a delay.
    Crashed {
        /// The release.
        release: ReleaseRef,
        /// The delay; `None`: not at all.
        delay: Option<Duration>,
        /// With this crash the limit is reached.
        loops_now: bool,
    },
    /// The live release serves again (or, at boot, for the first time).
    Restored {
        /// The run that serves.
        run: RunId,
        /// At boot, not after a crash.
        boot: bool,
    },
    /// The first release of all is made live by this daemon, as an earlier one had begun to.
    Resumed {
        /// Its run.
        run: RunId,
    },
    /// The live run went on while there was no daemon.
    Adopted {
        /// The run that serves.
        run: RunId,
    },
    /// The window's verdict is bad and portok goes back nowhere.
    NoWayBack {
        /// It has just gone back to the live release by itself, which it does once a deploy; else there is nothing to go
        /// back to.
        went_back: bool,
    },
    /// The watch window has passed.
    Settled,
    /// The live release has not crashed for long enough.
    Calm,
}

/// Why a task was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// The candidate's process ended.
    Exited,
    /// The candidate could not be started, was not healthy in time, or could not be trusted.
    NotReady,
    /// The target did not answer its health path with 2xx.
    Unhealthy,
    /// An operator ended it.
    Cancelled,
    /// It made way for a rollback.
    MadeWay,
    /// The intent could not be written down.
    Unrecorded,
    /// The daemon is going down.
    Interrupted,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Another one is under way.
    Busy {
        /// What it wants to make live.
        release: String,
        /// Why.
        reason: Reason,
    },
    /// There is no previous release.
    NoPrevious {
        /// The one in quarantine that was live last: a person may name it.
        quarantined: Option<String>,
    },
    /// No release of this id was ever live.
    NoSuchRelease {
        /// The id.
        release: String,
    },
    /// Traffic was taken away from it, and nobody insists on it.
    Quarantined {
        /// The id.
        release: String,
    },
    /// It is what is live, and down: it is being restarted, or given up.
    LiveIsDown {
        /// The id.
        release: String,
    },
    /// There is nothing to cancel.
    NothingUnderWay,
    /// The port is a run's of ours that is being stopped, or is not ready.
    PortInUse {
        /// The run's release.
        release: String,
    },
    /// The daemon has not begun yet.
    Booting,
    /// The daemon is going down.
    ShuttingDown,
}
