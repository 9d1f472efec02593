//! What the machine hears, and the settings that its decisions depend on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Past, ReleaseRef, Run, RunId};
use crate::wire::Reason;

/// The settings that decisions depend on, as they are in force at this step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether a switch opens a watch window.
    pub window: bool,
    /// Failed probes in a row that bring a rollback.
    pub threshold: u32,
    /// Keep the former release running until the window has passed.
    pub standby: bool,
    /// What happens after a crash.
    pub restart: crate::config::Restart,
}

/// What an earlier daemon left: what it wrote down, and what still runs of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Boot {
    /// The recorded live release.
    pub live: Option<ReleaseRef>,
    /// What was live, and what of it is in quarantine.
    pub past: Past,
    /// How often the live release was started again after a crash.
    pub restarts: u32,
    /// When it crashed lately, oldest first, by the clock of the steps.
    pub crashes: Vec<Duration>,
    /// How many of its probes had failed in a row.
    pub failed_probes: u32,
    /// What was to become live while nothing was, and why: its run may serve already, and only the record of that is
    /// missing.
    pub unfinished: Option<(ReleaseRef, Reason)>,
    /// What is left of the watch window that was open.
    pub window: Option<Duration>,
    /// The last move of traffic was one by which portok itself went back.
    pub went_back: bool,
    /// The live release ran when it was written down, since the host was booted, and has ended with nobody watching.
    pub ended: bool,
    /// A rollback that portok had decided on itself was under way.
    pub going_back: bool,
    /// What was taken over. The ids are the driver's choice, from 1 on.
    pub runs: Vec<Adopted>,
}

/// A run that was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    /// Which.
    pub run: Run,
    /// What it was doing.
    pub role: Role,
    /// What is left of its drain, where it drains.
    pub left: Duration,
}

/// What a run does for its release: written down, so that the next daemon knows what to do with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// It serves.
    Live,
    /// It is to serve and is not ready yet.
    Restoring,
    /// Traffic has left it.
    Draining,
    /// It has got its stop signal.
    Stopping,
    /// It is to become live, or is of no use any more.
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
    },
    /// Move traffic to a port.
    Switch {
        /// The release that stands for the port, where it is nobody's we know.
        release: ReleaseRef,
        /// The port.
        port: u16,
        /// `Manual` or `Config`.
        reason: Reason,
    },
    /// Go back.
    Rollback {
        /// The release to go to; missing: the previous one.
        to: Option<String>,
        /// Also where that one is in quarantine.
        force: bool,
    },
    /// Give up what is under way.
    Cancel,
    /// The daemon is asked to end: begin nothing new.
    Shutdown,
    /// Requests have finished or had their time: stop all groups.
    StopAll,
    /// Kill what is left.
    KillAll,
    /// A save has ended.
    Recorded {
        /// Which; it stands for all before it too.
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
    /// A run has got its stop signal.
    Signalled {
        /// Which.
        run: RunId,
    },
    /// A run answers its health path and its listener is its own.
    Ready {
        /// Which.
        run: RunId,
    },
    /// A run could not be started, is not healthy in time, or must not be trusted.
    NotReady {
        /// Which.
        run: RunId,
    },
    /// The leader of a run's group ended.
    Exited {
        /// Which.
        run: RunId,
        /// It found its port taken.
        port_taken: bool,
    },
    /// Nothing is left of a run.
    Gone {
        /// Which.
        run: RunId,
    },
    /// The live run was probed.
    LiveProbed {
        /// Which.
        run: RunId,
        /// Whether it answered with 2xx.
        healthy: bool,
    },
    /// A run's drain is over.
    DrainOver {
        /// Which.
        run: RunId,
        /// Which of its drains: the `seq` of the switch that began it.
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
    /// The live release's last crash matters no more.
    Calm {
        /// Which wait for that is over.
        ticket: u64,
    },
}
