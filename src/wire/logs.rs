//! What `GET /__logs` answers: the lines that an app printed.

use serde::{Deserialize, Serialize};

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
