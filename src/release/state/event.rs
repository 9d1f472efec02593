//! What the machine hears, and the settings that its decisions depend on.

use super::{ReleaseRef, RunId};
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

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The daemon started with this record.
    Boot {
        /// The recorded live release.
        live: Option<ReleaseRef>,
        /// The recorded previous one.
        previous: Option<ReleaseRef>,
    },
    /// Make a new release live.
    Deploy {
        /// A managed release.
        release: ReleaseRef,
        /// `Deploy` or `Config`.
        reason: Reason,
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
    Rollback,
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
    Probed {
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
}
