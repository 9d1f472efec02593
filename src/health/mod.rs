//! Health: one probe, and the wait for the first good ones.
//!
//! A probe asks once over HTTP/1.1, on a connection of its own that it closes: what it learns is about the process that
//! listens now, never about a connection that was kept. What goes wrong is in its report; a probe that portok itself could not
//! make ([`Unable`]) is none, neither a success nor a failure. There is no
//! state: what a row of reports means is decided by who asks. A dropped future closes the connection and leaves nothing.

use std::net::SocketAddr;
use std::time::Duration;

use crate::wire::ProbeReport;

mod probe;
mod ready;
#[cfg(test)]
mod tests;

/// The error of a probe that met no listener.
pub const REFUSED: &str = "connection refused";

/// A probe could not be made, for a want of portok's own.
#[derive(Debug, thiserror::Error)]
#[error("portok itself cannot probe it now: {0}")]
pub struct Unable(pub std::io::Error);

impl Unable {
    /// For those who show a probe and judge nothing by it.
    pub fn report(&self) -> ProbeReport {
        ProbeReport { error: Some(self.to_string()), ..ProbeReport::default() }
    }
}

/// Whom to ask, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The app's address.
    pub addr: SocketAddr,
    /// The path, with its query.
    pub path: String,
    /// The `Host` header.
    pub host: String,
    /// How long it may take from connect to the end of the head.
    pub timeout: Duration,
    /// How many fields an answer's head may have.
    pub most_fields: usize,
}
