//! What the machine hears, and the settings that its decisions depend on: data that the driver
//! collects.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Companion, DeployStep, Load, Past, Plan, ProcessName, ReleaseRef, Run, RunId, SetId};
use crate::wire::Reason;

/// The settings that decisions depend on, as they are in force at a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether a switch opens a watch window.
    pub window: bool,
    /// Failed probes in a row that bring a rollback in the watch window.
    pub threshold: u32,
    /// Failed probes in a row that take one of several runs out, outside the window.
    pub failures: u32,
    /// Whether the former release runs until the window has passed.
    pub standby: bool,
    /// How many replicas of a managed release run.
    pub replicas: crate::config::Replicas,
    /// The companions of each release that has some.
    pub companions: BTreeMap<String, Vec<Companion>>,
    /// The memory beyond which a replica is replaced, in bytes.
    pub max_memory: Option<u64>,
    /// A replica that gets there within this time of being ready is not replaced.
    pub recycle_after: Duration,
    /// Whether what goes back stops the live release first.
    pub recreate: bool,
    /// What happens after a crash.
    pub restart: crate::config::Restart,
}

/// What an earlier daemon left: what it wrote down, and which of its runs were taken over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Boot {
    /// The recorded live release.
    pub live: Option<ReleaseRef>,
    /// What was live, and what of it is in quarantine.
    pub past: Past,
    /// How often the live release was started again after a crash.
    pub restarts: u32,
    /// When it crashed lately, oldest first, by the clock of [`super::State::step`].
    pub crashes: Vec<Duration>,
    /// When each of its companions crashed lately, likewise.
    pub companion_crashes: BTreeMap<ProcessName, Vec<Duration>>,
    /// How many of its probes had failed in a row.
    pub failed_probes: u32,
    /// The release that was to become live while nothing was, and why. Its run may serve already,
    /// and only the record of that may be missing.
    pub unfinished: Option<(ReleaseRef, Reason)>,
    /// The rest of the watch window that was open.
    pub window: Option<Duration>,
    /// The last move of traffic was an automatic rollback.
    pub went_back: bool,
    /// The live release ran when it was written down, and has ended while there was no daemon. A
    /// boot of the host in between does not count.
    pub ended: bool,
    /// An automatic rollback was under way.
    pub going_back: bool,
    /// The live release replaced the one before it before it was started.
    pub recreated: bool,
    /// Another one was to replace the live release so: that may have been stopped for it.
    pub recreating: bool,
    /// Processes that nobody takes over are still being stopped: nothing is started beside what
    /// serves before [`Event::LeftoversGone`].
    pub leftovers: bool,
    /// How many replicas the live release was to have; `None`: as many as ran.
    pub wanted: Option<u16>,
    /// The runs that were taken over. The driver numbers them from 1 on.
    pub runs: Vec<Adopted>,
}

/// A run that was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// Which.
    pub run: Run,
    /// What the earlier daemon called its set; 0 for a set of its own.
    pub set: u64,
    /// Its number in the set.
    pub replica: u16,
    /// What it was doing.
    pub role: Role,
    /// The step of a deploy that it is; `None`: it is a replica.
    pub step: Option<DeployStep>,
    /// The rest of its drain, where it drains.
    pub left: Duration,
    /// How long ago its process was started.
    pub age: Duration,
    /// The limit of memory that it reached too soon for a replacement to help.
    pub grows_fast: Option<u64>,
}

/// What a run does for its release. It is written down, so that the next daemon knows what to do
/// with the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// It serves.
    Live,
    /// It is to serve, and is not ready yet.
    Restoring,
    /// Traffic has left it.
    Draining,
    /// Its stop signal was delivered.
    Stopping,
    /// It is to become live, or is to be stopped.
    #[default]
    Candidate,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The daemon started with this record.
    Boot(Boot),
    /// Make a new release live.
    Deploy {
        /// A managed release.
        release: ReleaseRef,
        /// `Deploy` or `Config`.
        reason: Reason,
        /// Also where it is live already (then with a fresh process), or in quarantine.
        force: bool,
        /// What it does on its way.
        plan: Plan,
    },
    /// Move traffic to ports.
    Switch {
        /// The release that stands for the ports, where no run of the machine has one of them.
        release: ReleaseRef,
        /// `Manual` or `Config`.
        reason: Reason,
    },
    /// Go back to a release that was live.
    Rollback {
        /// The release; `None` for the previous one.
        to: Option<String>,
        /// Also where the release is in quarantine.
        force: bool,
    },
    /// Give up the task under way.
    Cancel,
    /// The daemon is to end: begin nothing new.
    Shutdown,
    /// Requests have finished or had their time: stop all runs.
    StopAll,
    /// Kill the runs that are being stopped.
    KillAll,
    /// A save has ended.
    Recorded {
        /// Which. It covers all before it.
        seq: u64,
        /// Whether it is on disk.
        ok: bool,
    },
    /// A run's process was started.
    Spawned {
        /// Which.
        run: RunId,
        /// On which port.
        port: u16,
    },
    /// The process of a step was started.
    StepStarted {
        /// Its run.
        run: RunId,
    },
    /// A step has ended or could not be started, or its time is over.
    StepEnded {
        /// Its run.
        run: RunId,
        /// Its process has ended with status 0.
        done: bool,
    },
    /// A run's stop signal was delivered.
    Signalled {
        /// Which.
        run: RunId,
    },
    /// A run is healthy, and its listener is its own.
    Ready {
        /// Which.
        run: RunId,
    },
    /// A run could not be started, was not healthy in time, or could not be proven to be the
    /// release's own.
    NotReady {
        /// Which.
        run: RunId,
    },
    /// The leader of a run's group ended.
    Exited {
        /// Which.
        run: RunId,
        /// Because it found its port taken.
        port_taken: bool,
    },
    /// Nothing is left of a run.
    Gone {
        /// Which.
        run: RunId,
    },
    /// A live run was probed.
    LiveProbed {
        /// Which.
        run: RunId,
        /// Whether it answered with 2xx.
        healthy: bool,
    },
    /// The memory of a live run was looked at.
    Memory {
        /// Which.
        run: RunId,
        /// What its processes have together.
        bytes: u64,
    },
    /// A set's drain is over.
    DrainOver {
        /// Which.
        set: SetId,
        /// Which of its drains: the save of the switch that began it.
        seq: u64,
    },
    /// A watch window's time is over.
    WindowOver {
        /// Which.
        ticket: u64,
    },
    /// A restart's delay is over.
    RestartDue {
        /// Which.
        ticket: u64,
    },
    /// What an earlier daemon left and nobody took over is gone.
    LeftoversGone,
    /// The settings may have changed.
    Settings,
    /// The load of a set was looked at.
    Load {
        /// Which.
        set: SetId,
        /// What it is.
        load: Load,
    },
    /// A request waits while the app is idle.
    Wake,
    /// The live release's last crash does not matter any more.
    Calm {
        /// Which wait is over.
        ticket: u64,
    },
}
