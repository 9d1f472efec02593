//! What reaches the coordinator: requests of others, and reports of its own tasks.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot};

use super::events::Attempt;
use super::orders::Order;
use super::scale::Bounds;
use super::spec::Prepared;
use super::state::RunId;
use super::turns::Turn;
use crate::health::{Ask, Unable};
use crate::supervisor::{Exit, PortTaken, Process};
use crate::wire::{self, Autopsy, ErrorBody, LogLine, ProbeReport, Reason, Said};

/// What others may ask of the coordinator, and what its tasks report.
#[derive(Debug)]
pub(super) enum Message {
    Deploy {
        prepared: Box<Prepared>,
        reason: Reason,
        /// Also where the release is live already, or in quarantine.
        force: bool,
        asker: oneshot::Sender<Result<Attempt, ErrorBody>>,
    },
    Switch {
        ports: Vec<u16>,
        reason: Reason,
        asker: oneshot::Sender<Result<SwitchReply, ErrorBody>>,
    },
    Rollback {
        asked: wire::RollbackRequest,
        asker: oneshot::Sender<Result<RollbackReply, ErrorBody>>,
    },
    Cancel {
        asker: oneshot::Sender<Result<wire::Accepted, ErrorBody>>,
    },
    /// Obey an operator.
    Order {
        order: Order,
        said: Said,
        asker: oneshot::Sender<Result<OrderReply, ErrorBody>>,
    },
    /// Say who drains, and maybe until when they may.
    Drains {
        asked: wire::DrainRequest,
        asker: oneshot::Sender<Result<wire::Drain, ErrorBody>>,
    },
    /// Have so many replicas.
    Scale {
        bounds: Bounds,
        said: Said,
        asker: oneshot::Sender<Result<ScaleReply, ErrorBody>>,
    },
    Shutdown,
    /// Stop every run, and answer with how each ended.
    StopAll {
        done: oneshot::Sender<Vec<wire::Ended>>,
    },
    Kill,
    /// Answer whether another daemon can take over now.
    MayFreeze {
        asker: oneshot::Sender<Result<(), ErrorBody>>,
    },
    /// Write the record and stand still.
    Freeze {
        interrupt: bool,
        asker: oneshot::Sender<Result<(), ErrorBody>>,
    },
    /// Go on.
    Thaw,
    /// End, and leave every process as it is.
    Leave {
        /// Where the daemon accepts that drives the app from now on.
        successor: Option<SocketAddr>,
        done: oneshot::Sender<Vec<wire::Ended>>,
    },
    /// Answer, to show that messages are received.
    Beat(oneshot::Sender<()>),
    Run(RunId, Box<Report>),
    ProbeEnded(RunId, Box<ProbeReport>),
    LiveProbed(RunId, Result<Box<ProbeReport>, Unable>),
    /// The memory of live runs, as far as the kernel says.
    Weighed(Vec<(RunId, Option<u64>)>),
    Saved {
        seq: u64,
        result: Result<(), String>,
    },
    /// Try once more to write a record that could not be written, and answer when that has ended.
    LookAtDisk(oneshot::Sender<()>),
    ConfigNotPrepared {
        error: Box<ErrorBody>,
    },
    /// The processes that were taken over, one for each run of the record, in its order.
    TakenOver(Vec<Option<Process>>),
    LeftoversGone,
    /// It is the app's turn to bring up its first release.
    TurnCame(Turn),
}

impl Message {
    /// Answers a request with `error`. Gives back a message that is none: deploy, switch, rollback,
    /// cancel, an order, a scale and a question about drains are.
    pub(super) fn refuse(self, error: impl FnOnce() -> ErrorBody) -> Option<Self> {
        match self {
            Self::Deploy { asker, .. } => reply(asker, Err(error())),
            Self::Switch { asker, .. } => reply(asker, Err(error())),
            Self::Rollback { asker, .. } => reply(asker, Err(error())),
            Self::Cancel { asker } => reply(asker, Err(error())),
            Self::Order { asker, .. } => reply(asker, Err(error())),
            Self::Drains { asker, .. } => reply(asker, Err(error())),
            Self::Scale { asker, .. } => reply(asker, Err(error())),
            other => return Some(other),
        }
        None
    }
}

/// Answers an asker. It does nothing where the asker has gone.
pub(super) fn reply<T>(asker: oneshot::Sender<T>, answer: T) {
    let _asker_gone = asker.send(answer);
}

/// The answer to a switch.
#[derive(Debug)]
pub(super) enum SwitchReply {
    AlreadyLive(Option<wire::Switch>),
    Accepted(Attempt),
}

/// The answer to an order, which is in force.
#[derive(Debug)]
pub(super) struct OrderReply {
    pub(super) ordered: wire::Ordered,
    /// It is kept, or could not be.
    pub(super) kept: oneshot::Receiver<()>,
}

/// The answer to a scale, which is in force or noted.
#[derive(Debug)]
pub(super) struct ScaleReply {
    pub(super) scaled: wire::Scaled,
    /// It is kept, or could not be.
    pub(super) kept: oneshot::Receiver<()>,
}

/// The answer to a rollback.
#[derive(Debug)]
pub(super) enum RollbackReply {
    /// What the rollback would do: the request was a dry run.
    Plan(Box<PlannedRollback>),
    Accepted(Attempt),
}

/// What a rollback would do, before a look at the disk.
#[derive(Debug)]
pub(super) struct PlannedRollback {
    pub(super) plan: wire::RollbackPlan,
    /// The directory that would run, and when it was run last.
    pub(super) directory: Option<(PathBuf, SystemTime)>,
}

/// What the task of a run reports.
#[derive(Debug)]
pub(super) enum Report {
    /// The process was started.
    Spawned(Process),
    /// A probe failed in another way than the one before.
    Probe(ProbeReport),
    /// The candidate printed a line.
    Output(Arc<LogLine>),
    /// The run is not healthy yet.
    Waiting(Waiting),
    /// The listener cannot be proven to be the run's own.
    Unproven,
    /// The run is healthy.
    Ready(ProbeReport),
    /// The run could not be started, was not healthy in time, or could not be proven to be its own.
    NotReady(Box<Autopsy>),
    /// The process of a step was started.
    StepStarted(Process),
    /// A step has ended or could not be started, or its time is over.
    StepEnded(StepEnd),
    /// Its stop signal was delivered.
    Signalled,
    /// The leader of its group has ended.
    Exited { exit: Exit, port_taken: Option<PortTaken>, autopsy: Option<Box<Autopsy>> },
    /// Nothing is left of its group.
    Gone(Option<Exit>),
}

/// How a step went.
#[derive(Debug)]
pub(super) struct StepEnd {
    /// In a few words.
    pub(super) said: String,
    /// What is known of it where it did not end with status 0.
    pub(super) failure: Option<Box<Autopsy>>,
}

/// A run that is not healthy yet, and what it is waited for with.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) port: u16,
    pub(super) ask: Ask,
    /// What the last probe saw.
    pub(super) probe: Option<ProbeReport>,
    /// Whether that is known to the attempt's readers already.
    pub(super) told: bool,
    /// What most likely is wrong, once that is known.
    pub(super) hint: Option<String>,
}

/// Where tasks send their reports.
pub(super) type Reports = mpsc::Sender<Message>;
