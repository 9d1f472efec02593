//! The wait for the first good probes.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Probe;
use crate::wire::ProbeReport;

/// The pause between probes, as a part of the time that the app has taken so far. An app that is up
/// within half a second waits 10 ms for its probe at most; a slow app costs ten probes a second.
const PART: u32 = 50;
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

impl Probe {
    /// Probes until `successes` answers in a row are healthy (0 counts as 1). The first probe comes
    /// at once, the others after pauses that grow from 2 ms to 100 ms. `each` gets every report,
    /// numbered by its `attempts`. A probe that portok itself could not make is reported and counts
    /// for nothing.
    ///
    /// Never gives up: the caller has the deadline, and drops the future.
    pub async fn until_healthy(&self, successes: u32, mut each: impl FnMut(&ProbeReport)) -> ProbeReport {
        let (mut attempts, mut in_a_row) = (0_u32, 0_u32);
        let began = Instant::now();
        let mut told = false;
        loop {
            match self.ask().await {
                Ok(mut report) => {
                    attempts = attempts.saturating_add(1);
                    report.attempts = attempts;
                    in_a_row = if report.healthy { in_a_row + 1 } else { 0 };
                    each(&report);
                    if in_a_row >= successes.max(1) {
                        return report;
                    }
                }
                Err(unable) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(addr = %self.addr, "{unable}");
                    }
                    each(&ProbeReport { attempts, ..unable.report() });
                }
            }
            sleep((began.elapsed() / PART).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)).await;
        }
    }
}
