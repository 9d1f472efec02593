//! What `GET /__logs` answers: the lines that an app printed.

use serde::{Deserialize, Serialize};

/// The process name by which a query means the replicas that get requests, and no companion.
pub const WEB: &str = "web";

/// The process names of the steps of a deploy: `app.before` and `app.verify`.
pub const STEPS: [&str; 2] = ["before", "verify"];

/// Whether a process of this name is a step of a deploy. There is one of it, without a number.
pub fn is_step(process: &str) -> bool {
    STEPS.contains(&process)
}

/// What one process of several is called: `web.1`, `worker.0`, `before`. `main`: what those are
/// called that get requests.
pub fn called(process: Option<&str>, replica: u16, main: &str) -> String {
    match process {
        Some(step) if is_step(step) => step.to_owned(),
        _ => format!("{}.{replica}", process.unwrap_or(main)),
    }
}

/// The query of `GET /__logs`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogsRequest {
    /// Only what this release printed.
    pub release: Option<String>,
    /// Only what replicas of this number printed.
    pub replica: Option<u16>,
    /// Only what this companion or step printed; [`WEB`]: what the replicas did that get requests.
    pub process: Option<String>,
    /// How many of the last lines.
    pub lines: usize,
}

impl LogsRequest {
    /// Whether the lines of this process are wanted.
    pub fn wants(&self, release: &str, replica: u16, process: Option<&str>) -> bool {
        self.release.as_ref().is_none_or(|wanted| wanted == release)
            && self.replica.is_none_or(|wanted| wanted == replica && !process.is_some_and(is_step))
            && self.process.as_ref().is_none_or(|wanted| wanted == process.unwrap_or(WEB))
    }
}

/// The answer to `GET /__logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logs {
    /// The release that was asked for; null when all were.
    pub release: Option<String>,
    /// The last lines, oldest first.
    pub lines: Vec<LogLine>,
}

/// One line that an app printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was read, RFC 3339.
    pub at: String,
    /// The release that printed it.
    pub release: String,
    /// The number of the replica that printed it.
    #[serde(default)]
    pub replica: u16,
    /// The companion that it is one of, or the step of a deploy. Absent for a replica that gets
    /// requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// The output on which it was printed.
    pub stream: Stream,
    /// The line without its line end; cut if it was too long.
    pub line: String,
}

/// One of an app's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}
