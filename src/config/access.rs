//! What `[access]` says: where a line for each request goes, and for which requests.

use std::path::PathBuf;
use std::time::Duration;

/// `[access]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Access {
    /// Where the lines go.
    pub file: AccessFile,
    /// What a line looks like.
    pub format: AccessFormat,
    /// Whether a line has the query of its request's target.
    pub query: bool,
    /// The share of the requests that get a line, from 0 to 1, beside those that always get one.
    pub sample: f64,
    /// A request that takes longer always gets a line, as one does that fails.
    pub slow: Duration,
}

/// `access.file`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessFile {
    /// Nowhere.
    Off,
    /// To portokd's standard output.
    Stdout,
    /// To this file.
    Path(PathBuf),
}

/// `access.format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessFormat {
    /// One JSON object.
    Json,
    /// The combined log format of Apache and nginx, with further fields behind it.
    Combined,
    /// As hipache writes it.
    Hipache,
}

impl Access {
    /// Whether lines go anywhere.
    pub fn is_on(&self) -> bool {
        self.file != AccessFile::Off
    }
}
