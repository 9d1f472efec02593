//! What becomes of a release: how its deploy ended, when and why traffic moved, and its row in the
//! history.

use serde::{Deserialize, Serialize};

use super::command::CommandLine;

/// How the deploy of a release ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Traffic moved to it.
    Live,
    /// The deploy failed before the switch.
    Aborted,
    /// Traffic moved to it, and back.
    RolledBack,
    /// An operator cancelled the deploy before the switch.
    Cancelled,
    /// The daemon ended during the deploy.
    Interrupted,
}

impl Outcome {
    /// The name of the outcome in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Aborted => "aborted",
            Self::RolledBack => "rolled_back",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }
}

/// Why traffic moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// `portok switch`.
    Manual,
    /// `portok deploy`.
    Deploy,
    /// The `[app]` table, at the daemon's start or after an edit.
    Config,
    /// portok itself, because the release turned bad within its watch window.
    AutoRollback,
    /// `portok rollback`.
    ManualRollback,
}

impl Reason {
    /// Whether traffic moved back.
    pub fn is_rollback(self) -> bool {
        matches!(self, Self::AutoRollback | Self::ManualRollback)
    }

    /// The name of the reason in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Deploy => "deploy",
            Self::Config => "config",
            Self::AutoRollback => "auto-rollback",
            Self::ManualRollback => "manual-rollback",
        }
    }
}

/// One switch of traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Switch {
    /// The port before; null when nothing was live.
    pub from: Option<u16>,
    /// The ports before, where traffic moved away from several targets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from_ports: Vec<u16>,
    /// The release before; absent when nothing was live, and in older records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_release: Option<String>,
    /// The port after; the first of several.
    pub to: u16,
    /// The ports after, where traffic moved to a set of targets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to_ports: Vec<u16>,
    /// The release after; absent in older records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_release: Option<String>,
    /// When, RFC 3339.
    pub at: String,
    /// Why.
    pub reason: Reason,
    /// The switch's own id.
    pub id: String,
}

/// One row of `GET /__releases`: an attempt to make a release live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReleaseRow {
    /// The release's id.
    pub release: String,
    /// Its command; null for an unmanaged app.
    pub command: Option<CommandLine>,
    /// How its deploy ended; null while it is under way.
    pub outcome: Option<Outcome>,
    /// When its process was last started, RFC 3339.
    pub started_at: Option<String>,
    /// When traffic last moved to it, RFC 3339.
    pub switched_at: Option<String>,
    /// When its last process was gone, RFC 3339.
    pub stopped_at: Option<String>,
    /// How its last process ended: `exit status 1`, `signal 9 (SIGKILL)`.
    pub exit: Option<String>,
    /// The port on which it listens or listened.
    pub port: Option<u16>,
    /// Why it did not become live, or did not stay live.
    pub reason: Option<String>,
    /// Whether it is in quarantine because a rollback took traffic away from it. Absent when it is
    /// not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quarantined: bool,
}
