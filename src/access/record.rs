//! Which requests get a line, and the way of their entries to the thread that writes them.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use super::entry::Entry;
use crate::config::Access;

thread_local! {
    /// The state of a thread's random numbers (xorshift64*); never zero.
    static DICE: Cell<u64> = Cell::new(RandomState::new().hash_one(0) | 1);
}

/// What the thread of a log is sent.
pub(super) enum Message {
    Entry(Box<Entry>),
    /// There is something to look at beside the queue.
    Look,
}

/// Takes the entries of requests that have ended. Shared by all threads of the data plane.
#[derive(Debug)]
pub struct Recorder {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    sample: f64,
    slow: Duration,
    has_query: bool,
}

impl Recorder {
    pub(super) fn new(queue: SyncSender<Message>, dropped: Arc<AtomicU64>, access: &Access) -> Self {
        let Access { sample, slow, query: has_query, .. } = *access;
        Self { queue, dropped, sample, slow, has_query }
    }

    /// Whether lines have the query of the target.
    pub fn has_query(&self) -> bool {
        self.has_query
    }

    /// Puts the entry of a request into the queue, if the request gets a line. Never waits: where
    /// the queue is full, the entry is dropped and counted.
    pub fn record(&self, entry: Box<Entry>) {
        if self.takes(&entry, roll) && self.queue.try_send(Message::Entry(entry)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether a request gets a line: one that failed or was slow always does. `roll`: a random
    /// number from 0 on, below 1.
    fn takes(&self, entry: &Entry, roll: impl FnOnce() -> f64) -> bool {
        self.sample >= 1.0 || entry.is_error() || entry.duration > self.slow || roll() < self.sample
    }
}

/// A random number from 0 on, below 1.
fn roll() -> f64 {
    DICE.with(|state| {
        let mut x = state.get();
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        state.set(x);
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit exactly")]
        let number = (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64;
        number / 9_007_199_254_740_992.0
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::config::{AccessFile, AccessFormat};

    fn access(sample: f64) -> Access {
        let (file, format) = (AccessFile::Stdout, AccessFormat::Json);
        Access { file, format, query: false, sample, slow: Duration::from_secs(1) }
    }

    fn entry() -> Entry {
        let mut entry = Entry::new(Ipv4Addr::LOCALHOST.into(), "HTTP/1.1");
        entry.status = 200;
        entry
    }

    #[test]
    fn errors_and_slow_requests_always_get_a_line() {
        let (queue, _entries) = sync_channel(1);
        let recorder = Recorder::new(queue, Arc::default(), &access(0.0));
        let takes = |change: fn(&mut Entry)| {
            let mut entry = entry();
            change(&mut entry);
            recorder.takes(&entry, || 0.0)
        };
        assert!(!takes(|_| ()));
        assert!(!takes(|entry| entry.status = 404));
        assert!(!takes(|entry| entry.duration = Duration::from_secs(1)));
        assert!(takes(|entry| entry.status = 500));
        assert!(takes(|entry| entry.error = Some("no_route")));
        assert!(takes(|entry| entry.duration = Duration::from_millis(1001)));
    }

    #[test]
    fn a_share_of_the_others_gets_one() {
        let (queue, _entries) = sync_channel(1);
        let recorder = Recorder::new(queue, Arc::default(), &access(0.25));
        let taken = (0..100_000).filter(|_| recorder.takes(&entry(), roll)).count();
        assert!((24_000..26_000).contains(&taken), "{taken}");
        assert!((0..1000).map(|_| roll()).all(|number| (0.0..1.0).contains(&number)));
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (queue, entries) = sync_channel(2);
        let dropped = Arc::new(AtomicU64::new(0));
        let recorder = Recorder::new(queue, Arc::clone(&dropped), &access(1.0));
        for _ in 0..5 {
            recorder.record(Box::new(entry()));
        }
        assert_eq!(dropped.load(Ordering::Relaxed), 3);
        assert_eq!(entries.try_iter().count(), 2);
    }
}
