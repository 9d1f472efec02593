//! What happens to an attempt, as its followers and hooks read it.

use serde::{Deserialize, Serialize};

use super::{ErrorBody, Outcome, ProbeReport, Switch, is_false};

/// What an [`Event`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The request was accepted and is under way.
    Accepted,
    /// The process was started.
    Spawned,
    /// A probe failed in a new way, or it is known what most likely is wrong (what is equal is told once).
    Probe,
    /// The release answers its health path.
    Healthy,
    /// Traffic moved.
    Switched,
    /// The old target finishes what it has.
    Draining,
    /// The old target's drain is over.
    Drained,
    /// The old process group is gone.
    Stopped,
    /// Traffic moved back.
    RolledBack,
    /// Given up before the switch.
    Aborted,
    /// The release printed a line.
    Output,
    /// The end of a deploy's stream.
    Finished,
}

impl EventKind {
    /// The event's name as it stands in the stream.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Spawned => "spawned",
            Self::Probe => "probe",
            Self::Healthy => "healthy",
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

/// One line of a deploy's stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When, RFC 3339.
    pub at: String,
    /// What.
    pub event: EventKind,
    /// Which release it is about.
    pub release: String,
    /// The port, where the event has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The process id, where the event has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// What happened, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// `accepted`: the directory in which the command runs, where it is not the daemon's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// `probe`: what it saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeReport>,
    /// `probe`: what most likely is wrong and how to mend it, once the release was waited for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// `output`: the line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// `switched`, `rolled_back`: the move. `finished`: the deploy's move, when traffic moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<Switch>,
    /// `finished`: how it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// `finished`, `aborted`: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
    /// `finished`: the release was live already, nothing moved.
    #[serde(default, skip_serializing_if = "is_false")]
    pub already_live: bool,
    /// `finished`: the candidate that was cancelled for a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<String>,
}

impl Event {
    /// An event without details.
    pub fn new(at: String, event: EventKind, release: impl Into<String>) -> Self {
        Self {
            at,
            event,
            release: release.into(),
            port: None,
            pid: None,
            message: None,
            directory: None,
            probe: None,
            hint: None,
            line: None,
            switch: None,
            outcome: None,
            error: None,
            already_live: false,
            cancelled: None,
        }
    }
}

/// What a hook gets on its standard input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HookEvent {
    /// When, RFC 3339.
    pub at: String,
    /// `switched`, `aborted`, `rolled_back` or `failed`.
    pub event: String,
    /// The instance's name.
    pub instance: String,
    /// The release it is about.
    pub release: Option<String>,
    /// What happened, as a sentence.
    pub message: String,
    /// The move of traffic, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<Switch>,
}
