//! The answers of each release.
//!
//! State: one lane per thread and release, written by that thread alone. A release's counters
//! outlive its targets: the last [`RELEASES`] by name, older ones in a sum once no target counts on
//! them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::bump;

/// How many releases keep counters of their own.
const RELEASES: usize = 8;

/// Answers by class of status.
#[derive(Debug, Default)]
pub(super) struct Classes([AtomicU64; 5]);

impl Classes {
    pub(super) fn count(&self, status: u16) {
        if let Some(class) = usize::from(status / 100).checked_sub(1).and_then(|class| self.0.get(class)) {
            bump(class, 1);
        }
    }

    pub(super) fn add_to(&self, sum: &mut [u64; 5]) {
        for (sum, count) in sum.iter_mut().zip(&self.0) {
            *sum += count.load(Relaxed);
        }
    }
}

/// The answers of one release, over all its targets; one lane per thread.
#[derive(Debug)]
pub struct ReleaseCounters {
    name: String,
    lanes: Box<[ReleaseLane]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct ReleaseLane(Classes);

impl ReleaseCounters {
    /// The release's name.
    pub(in crate::proxy) fn name(&self) -> &str {
        &self.name
    }

    /// How many threads count.
    pub(in crate::proxy) fn threads(&self) -> usize {
        self.lanes.len()
    }

    /// Counts an answer of thread `lane`.
    pub(in crate::proxy) fn answered(&self, lane: usize, status: u16) {
        self.lanes[lane].0.count(status);
    }

    fn totals(&self) -> [u64; 5] {
        let mut sum = [0; 5];
        for lane in &self.lanes {
            lane.0.add_to(&mut sum);
        }
        sum
    }
}

/// Which releases are counted: the last ones by name, the rest in `other`.
#[derive(Debug, Default)]
pub(super) struct Releases {
    named: VecDeque<Arc<ReleaseCounters>>,
    /// No longer named, but a target still counts on them.
    leaving: Vec<Arc<ReleaseCounters>>,
    other: [u64; 5],
}

impl Releases {
    /// The counters of `release`, made if it has none.
    pub(super) fn counters(&mut self, release: &str, threads: usize) -> Arc<ReleaseCounters> {
        if let Some(known) = self.named.iter().find(|counters| counters.name == release) {
            return known.clone();
        }
        let lanes = (0..threads).map(|_| ReleaseLane::default()).collect();
        let counters = Arc::new(ReleaseCounters { name: release.to_owned(), lanes });
        self.named.push_back(counters.clone());
        if self.named.len() > RELEASES {
            self.leaving.extend(self.named.pop_front());
        }
        self.fold();
        counters
    }

    /// Adds what nobody counts on any more to the sum.
    fn fold(&mut self) {
        let other = &mut self.other;
        self.leaving.retain(|counters| {
            let used = Arc::strong_count(counters) > 1;
            if !used {
                add(other, counters.totals());
            }
            used
        });
    }

    /// The answers of every release, older ones as `other` in front.
    pub(super) fn totals(&mut self) -> Vec<(String, [u64; 5])> {
        self.fold();
        let mut other = self.other;
        self.leaving.iter().for_each(|counters| add(&mut other, counters.totals()));
        let older = (other != [0; 5]).then(|| ("other".to_owned(), other));
        older.into_iter().chain(self.named.iter().map(|c| (c.name.clone(), c.totals()))).collect()
    }
}

fn add(sum: &mut [u64; 5], more: [u64; 5]) {
    sum.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}
