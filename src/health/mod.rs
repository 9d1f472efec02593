//! Health: one probe, and the wait for the first good ones.
//!
//! A probe sends one GET over HTTP/1.1, on a connection of its own that it closes. So it learns
//! about the process that listens now, and not about a connection that was kept. Whatever goes
//! wrong with the app is in the probe's report. A probe that portok itself could not make
//! ([`Unable`]) counts neither as a success nor as a failure.
//!
//! The caller decides what a row of reports means. If a future is dropped, its connection is closed
//! and nothing is left. The probes of all targets of a daemon share one [`Prober`], which is the
//! only state here: it bounds how many are [under way](UnderWay) at a time.

use std::net::SocketAddr;
use std::time::Duration;

use crate::wire::ProbeReport;

mod probe;
mod prober;
mod ready;
#[cfg(test)]
mod tests;
mod under_way;

pub use prober::{Place, Prober};
pub use under_way::{Event, UnderWay};

/// The error of a probe where nobody listened.
pub const REFUSED: &str = "connection refused";

/// A probe could not be made because portok itself lacks something, such as a file descriptor.
#[derive(Debug, thiserror::Error)]
#[error("portok itself cannot probe it now: {0}")]
pub struct Unable(pub std::io::Error);

impl Unable {
    /// A report to be shown; nothing is to be judged by it.
    pub fn report(&self) -> ProbeReport {
        ProbeReport { error: Some(self.to_string()), ..ProbeReport::default() }
    }
}

/// What to ask, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The app's address.
    pub addr: SocketAddr,
    /// The path, with its query.
    pub path: String,
    /// The `Host` header.
    pub host: String,
    /// How long a probe may take, from connecting to the end of the answer's head.
    pub timeout: Duration,
    /// How many fields an answer's head may have.
    pub most_fields: usize,
}
