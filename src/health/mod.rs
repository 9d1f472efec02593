//! Health: one probe, and the wait for the first good ones.

use std::net::SocketAddr;
use std::time::Duration;

use crate::wire::ProbeReport;

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
}

impl Probe {
    /// Asks once, on a connection of its own. Never fails: what goes wrong is in the report.
    pub async fn ask(&self) -> ProbeReport {
        todo!()
    }

    /// Asks at once and then in steps that grow from 5 ms to 100 ms until `successes` answers in a row were
    /// healthy. Tells `each` about every report. Never gives up: the caller has the deadline.
    pub async fn until_healthy(&self, _successes: u32, _each: impl FnMut(&ProbeReport)) -> ProbeReport {
        todo!()
    }
}
