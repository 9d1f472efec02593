//! Latencies in buckets that are one part in 64 wide.

use std::time::Duration;

const FINE: u32 = 6;

/// Counts by nanoseconds.
#[derive(Debug, Default, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    pub fn record(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        let slot = slot(nanos);
        if self.counts.len() <= slot {
            self.counts.resize(slot + 1, 0);
        }
        self.counts[slot] += 1;
        self.total += 1;
    }

    /// Nanoseconds that `share` of all were not above.
    pub fn quantile(&self, share: f64) -> u64 {
        let mut left = (self.total as f64 * share).ceil() as u64;
        for (slot, count) in self.counts.iter().enumerate() {
            left = left.saturating_sub(*count);
            if left == 0 {
                return upper(slot);
            }
        }
        0
    }
}

fn slot(nanos: u64) -> usize {
    let power = nanos.ilog2();
    let shift = power.saturating_sub(FINE);
    ((shift as usize) << FINE) + (nanos >> shift) as usize
}

fn upper(slot: usize) -> u64 {
    let fine = 1 << FINE;
    let shift = (slot >> FINE).saturating_sub(1);
    (((slot - (shift * fine)) as u64 + 1) << shift) - 1
}
