//! The time of day: as the machine counts it, and as it is written down.

use std::time::SystemTime;

use tokio::time::{Duration, Instant};

use crate::wire;

/// Now, as RFC 3339.
pub(super) fn now() -> String {
    wire::rfc3339(SystemTime::now())
}

/// The machine's clock. It is monotonic and shows the time since 1970 as of its start, so that
/// moments in a record can be compared with its own.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    since_1970: Duration,
}

impl Clock {
    /// A clock that starts now.
    pub(super) fn start() -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), since_1970 }
    }

    /// The time on it.
    pub(super) fn now(&self) -> Duration {
        self.since_1970 + self.started.elapsed()
    }
}
