//! What reaches the coordinator: requests of others, and reports of its own tasks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot};

use super::events::Attempt;
use super::spec::Prepared;
use super::state::RunId;
use crate::health::Unable;
use crate::supervisor::{Exit, PortTaken, Process};
use crate::wire::{self, Autopsy, ErrorBody, LogLine, ProbeReport, Reason};

/// What others may ask of the coordinator, and what its tasks report.
#[derive(Debug)]
pub(super) enum Message {
    Deploy {
        prepared: Box<Prepared>,
        reason: Reason,
        /// Also where it is live already, or in quarantine.
        force: bool,
        reply: oneshot::Sender<Result<Attempt, ErrorBody>>,
    },
    Switch {
        port: u16,
        reason: Reason,
        reply: oneshot::Sender<Result<SwitchReply, ErrorBody>>,
    },
    Rollback {
        asked: wire::RollbackRequest,
        reply: oneshot::Sender<Result<RollbackReply, ErrorBody>>,
    },
    Cancel {
        reply: oneshot::Sender<Result<wire::Accepted, ErrorBody>>,
    },
    Shutdown,
    StopAll {
        done: oneshot::Sender<()>,
    },
    Kill,
    /// Say whether another daemon could take over now.
    MayFreeze {
        reply: oneshot::Sender<Result<(), ErrorBody>>,
    },
    /// Stand still with the record written.
    Freeze {
        interrupt: bool,
        reply: oneshot::Sender<Result<(), ErrorBody>>,
    },
    /// Go on.
    Thaw,
    /// End and leave everything as it is.
    Leave {
        done: oneshot::Sender<()>,
    },
    /// Say that messages are received.
    Beat(oneshot::Sender<()>),
    Run(RunId, Box<Report>),
    ProbeEnded(RunId, Box<ProbeReport>),
    LiveProbed(RunId, Result<Box<ProbeReport>, Unable>),
    Saved {
        seq: u64,
        result: Result<(), String>,
    },
    /// Try to write a record that could not be written, and say when that is done.
    LookAtDisk(oneshot::Sender<()>),
    ConfigNotPrepared {
        error: Box<ErrorBody>,
    },
    /// What was taken over of what the record names, in the record's order.
    TakenOver(Vec<Option<Process>>),
    LeftoversGone,
}

impl Message {
    /// Answers a request with `error`. Gives back a message that is none: deploy, switch, rollback and cancel are.
    pub(super) fn refuse(self, error: impl FnOnce() -> ErrorBody) -> Option<Self> {
        match self {
            Self::Deploy { reply: asker, .. } => reply(asker, Err(error())),
            Self::Switch { reply: asker, .. } => reply(asker, Err(error())),
            Self::Rollback { reply: asker, .. } => reply(asker, Err(error())),
            Self::Cancel { reply: asker } => reply(asker, Err(error())),
            other => return Some(other),
        }
        None
    }
}

/// Answers whoever asked. An asker that has gone does not matter.
pub(super) fn reply<T>(asker: oneshot::Sender<T>, answer: T) {
    let _asker_gone = asker.send(answer);
}

/// How a switch was received.
#[derive(Debug)]
pub(super) enum SwitchReply {
    AlreadyLive(Option<wire::Switch>),
    Accepted(Attempt),
}

/// How a rollback was received.
#[derive(Debug)]
pub(super) enum RollbackReply {
    /// It was only asked what it would do.
    Plan(Box<PlannedRollback>),
    Accepted(Attempt),
}

/// What a rollback would do, as far as that is known without a look at the disk.
#[derive(Debug)]
pub(super) struct PlannedRollback {
    pub(super) plan: wire::RollbackPlan,
    /// The directory that would run, and when it was run last.
    pub(super) directory: Option<(PathBuf, SystemTime)>,
}

/// What a run tells.
#[derive(Debug)]
pub(super) enum Report {
    /// The process runs.
    Spawned(Process),
    /// A probe failed in another way than the one before.
    Probe(ProbeReport),
    /// The candidate printed a line.
    Output(Arc<LogLine>),
    /// It is not healthy yet.
    Waiting(Waiting),
    /// The listener cannot be proven to be the candidate's.
    Unproven,
    /// Healthy.
    Ready(ProbeReport),
    /// Not healthy in time, not startable, or not to be trusted.
    NotReady(Box<Autopsy>),
    /// The stop signal has reached it.
    Signalled,
    /// The leader has ended.
    Exited { exit: Exit, port_taken: Option<PortTaken>, autopsy: Option<Box<Autopsy>> },
    /// Nothing is left.
    Gone(Option<Exit>),
}

/// What a run that is not healthy yet is waited for with.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) port: u16,
    pub(super) path: String,
    /// What the last probe saw.
    pub(super) probe: Option<ProbeReport>,
    /// Whether that has been told already.
    pub(super) told: bool,
    /// What most likely is wrong, once that can be said.
    pub(super) hint: Option<String>,
}

/// Where the reports go.
pub(super) type Reports = mpsc::Sender<Message>;
