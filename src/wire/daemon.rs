//! The requests that change the daemon itself, and their answers: reload, upgrade, shutdown.

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

/// A process that ended with the daemon. The answer to `POST /__shutdown` is an array of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// Its app; of the one app of an instance: the instance's name.
    pub app: String,
    /// Its release.
    pub release: String,
    /// Which companion of the release it was; null: the app itself.
    pub process: Option<String>,
    /// The number of its place.
    pub replica: u16,
    /// The id that it had.
    pub pid: u32,
    /// How it ended, such as `exit status 0`.
    pub exit: Option<String>,
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
