//! The requests that change the daemon itself, and their answers: reload and upgrade.

use serde::{Deserialize, Serialize};

use super::apps::AppReload;

/// The answer to `POST /__reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Whether all that is configured is in force. Of one app it is always true: what is refused
    /// then is an [`ErrorBody`](super::ErrorBody).
    pub success: bool,
    /// What happened, as a sentence.
    pub message: String,
    /// The keys whose values differ from those in force before.
    pub changed: Vec<String>,
    /// What became of which of several apps. Absent when nothing did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<AppReload>,
}

/// The body of `POST /__upgrade`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct UpgradeRequest {
    /// The new daemon's program; `None` means the path that the running daemon was started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<String>,
}

/// The answer to `POST /__upgrade`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Upgraded {
    /// Always true; a failure answers with an [`ErrorBody`](super::ErrorBody).
    pub success: bool,
    /// What happened, as a sentence.
    pub message: String,
    /// The new daemon's process id.
    pub pid: u32,
    /// The new daemon's version.
    pub version: String,
}
