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

    pub fn merge(&mut self, other: &[(usize, u64)]) {
        for &(slot, count) in other {
            if self.counts.len() <= slot {
                self.counts.resize(slot + 1, 0);
            }
            self.counts[slot] += count;
            self.total += count;
        }
    }

    /// The buckets that anything is in.
    pub fn filled(&self) -> Vec<(usize, u64)> {
        self.counts.iter().copied().enumerate().filter(|(_, count)| *count > 0).collect()
    }

    pub fn total(&self) -> u64 {
        self.total
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_within_a_64th_above_what_was_recorded() {
        for nanos in [1, 63, 64, 65, 1_000, 123_456, 98_765_432_101] {
            let mut histogram = Histogram::default();
            histogram.record(Duration::from_nanos(nanos));
            let told = histogram.quantile(0.5);
            assert!(told >= nanos && told <= nanos + nanos / 64 + 1, "{nanos}: {told}");
        }
    }

    #[test]
    fn quantiles_of_a_merged_histogram_are_those_of_all_that_was_recorded() {
        let (mut all, mut half) = (Histogram::default(), Histogram::default());
        for millis in 1..=100 {
            let one = if millis % 2 == 0 { &mut all } else { &mut half };
            one.record(Duration::from_millis(millis));
        }
        all.merge(&half.filled());
        assert_eq!(all.total(), 100);
        let p99 = all.quantile(0.99) as f64 / 1e6;
        assert!((99.0..101.0).contains(&p99), "{p99}");
    }
}
