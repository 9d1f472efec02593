//! Events: what happens during a deploy or rollback, as the command line and hooks read it.

use serde::{Deserialize, Serialize};

use super::autopsy::ProbeReport;
use super::error::ErrorBody;
use super::moves::is_false;
use super::release::{Outcome, Switch};

/// The kind of a [`StreamEvent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The request was accepted and is under way.
    Accepted,
    /// `app.before` was started.
    BeforeStarted,
    /// `app.before` has ended, or its time is over.
    BeforeEnded,
    /// The process was started.
    Spawned,
    /// A probe failed in another way than the one before, or the likely cause is known.
    Probe,
    /// The release is healthy.
    Healthy,
    /// `app.verify` was started.
    VerifyStarted,
    /// `app.verify` has ended, or its time is over.
    VerifyEnded,
    /// Traffic moved.
    Switched,
    /// The old target finishes its requests.
    Draining,
    /// The old target's drain is over.
    Drained,
    /// The old process group is gone.
    Stopped,
    /// Traffic moved back.
    RolledBack,
    /// The deploy was aborted before the switch.
    Aborted,
    /// The release printed a line.
    Output,
    /// The last event of the stream.
    Finished,
}

impl EventKind {
    /// The name of the event in the stream.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::BeforeStarted => "before_started",
            Self::BeforeEnded => "before_ended",
            Self::Spawned => "spawned",
            Self::Probe => "probe",
            Self::Healthy => "healthy",
            Self::VerifyStarted => "verify_started",
            Self::VerifyEnded => "verify_ended",
            Self::Switched => "switched",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Stopped => "stopped",
            Self::RolledBack => "rolled_back",
            Self::Aborted => "aborted",
            Self::Output => "output",
            Self::Finished => "finished",
        }
    }
}

/// One event: one line of the stream of a deploy or rollback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamEvent {
    /// When, RFC 3339.
    pub at: String,
    /// What kind of event it is.
    pub event: EventKind,
    /// The release it is about.
    pub release: String,
    /// The port, if the event has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The process id, if the event has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Which companion of the release it is about, if it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// What happened, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `accepted`: the directory in which the command runs, if it is not the daemon's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// `accepted`: what the operator should know, although the deploy goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// `probe`: its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeReport>,
    /// `probe`: what most likely is wrong and what to do, once the release has taken a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// `output`: the line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// `finished`: how many further lines of output had no event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<usize>,
    /// `switched`, `rolled_back`: the switch. `finished`: the deploy's switch, if traffic moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<Switch>,
    /// `finished`: how it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// `finished`, `aborted`: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
    /// `finished`: whether the release was live already, so that nothing moved.
    #[serde(default, skip_serializing_if = "is_false")]
    pub already_live: bool,
    /// `finished`: the candidate that a rollback cancelled first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<String>,
    /// `finished`: `done` where traffic did not move and `app.before` has run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

impl StreamEvent {
    /// An event without details.
    pub fn new(at: String, event: EventKind, release: impl Into<String>) -> Self {
        Self {
            at,
            event,
            release: release.into(),
            port: None,
            pid: None,
            process: None,
            message: None,
            directory: None,
            warning: None,
            probe: None,
            hint: None,
            line: None,
            left_out: None,
            switch: None,
            outcome: None,
            error: None,
            already_live: false,
            cancelled: None,
            before: None,
        }
    }
}

/// The event that a hook reads from its standard input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HookEvent {
    /// When, RFC 3339.
    pub at: String,
    /// `switched`, `aborted`, `rolled_back` or `failed`.
    pub event: String,
    /// The instance's name.
    pub instance: String,
    /// The name of the app, where the instance has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// The release it is about.
    pub release: Option<String>,
    /// What happened, as a sentence.
    pub message: String,
    /// The switch, if traffic moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<Switch>,
}
