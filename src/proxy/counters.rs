//! The counters of the data plane: of client connections, which belong to the whole plane, and of
//! requests, which belong to a [service] and its [releases].
//!
//! State: one lane per thread, written by that thread alone, and summed up by whoever asks.
//! Counters begin with the daemon and end with it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::wire::ProxyErrorView;

mod releases;
mod service;

pub use releases::ReleaseCounters;
pub(super) use service::RequestLane;
pub use service::ServiceCounters;

/// Why a client's connection is closed at once: too many in all, too many of its address, no
/// descriptor left for it.
const REASONS: [&str; 3] = ["connections", "connections_per_address", "descriptors"];

/// The counters of all threads.
#[derive(Debug)]
pub struct Counters {
    started: Instant,
    lanes: Box<[ConnectionLane]>,
    refused: [AtomicU64; REASONS.len()],
    /// Written by the access log, too.
    access_dropped: Arc<AtomicU64>,
    service: Arc<ServiceCounters>,
}

/// Counters at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Requests and tunnels under way.
    pub inflight: u64,
    /// The most at once.
    pub inflight_max: u64,
    /// Requests to apps since the start (admin requests are not counted).
    pub total_requests: u64,
    /// Requests that portok answered with an error of its own (`portok-error`), or broke off.
    pub total_proxy_errors: u64,
    /// Answers `1xx` (101 only), `2xx`, `3xx`, `4xx`, `5xx`.
    pub by_class: [u64; 5],
    /// Mean over the last 60 s, or since the start while younger.
    pub rolling_rps60: f64,
    /// Connections opened to apps.
    pub upstream_sockets_created: u64,
    /// Client connections open now.
    pub client_connections: u64,
    /// Upper bounds in seconds with the number of requests at or below each (cumulative), without
    /// `+Inf`.
    pub latency_buckets: Vec<(f64, u64)>,
    /// The sum of all latencies in seconds; their number is `total_requests` minus what is in
    /// flight.
    pub latency_sum: f64,
    /// How many latencies were measured.
    pub latency_count: u64,
    /// Connections of clients that were closed at once, by reason.
    pub connections_refused: Vec<(&'static str, u64)>,
    /// Lines of the access log that were lost.
    pub access_dropped: u64,
    /// Requests that a limit refused, by code.
    pub requests_refused: Vec<(&'static str, u64)>,
    /// Per release (newest last, bounded; older ones are summed up as `other`): answers by class.
    pub by_release: Vec<(String, [u64; 5])>,
    /// The proxy's last error.
    pub last_error: Option<ProxyErrorView>,
}

impl Snapshot {
    /// Adds the counters of another service. The most at once becomes the sum of what was the most
    /// of each, which may never have been under way together.
    pub fn add(&mut self, other: Self) {
        self.inflight += other.inflight;
        self.inflight_max += other.inflight_max;
        self.total_requests += other.total_requests;
        self.total_proxy_errors += other.total_proxy_errors;
        self.by_class.iter_mut().zip(other.by_class).for_each(|(sum, count)| *sum += count);
        self.rolling_rps60 += other.rolling_rps60;
        self.upstream_sockets_created += other.upstream_sockets_created;
        self.client_connections += other.client_connections;
        self.access_dropped += other.access_dropped;
        add_named(&mut self.connections_refused, other.connections_refused);
        add_named(&mut self.requests_refused, other.requests_refused);
        // The bounds are the same everywhere; a snapshot of nothing has none.
        if self.latency_buckets.is_empty() {
            self.latency_buckets = other.latency_buckets;
        } else {
            let sums = self.latency_buckets.iter_mut().zip(other.latency_buckets);
            sums.for_each(|((_, sum), (_, count))| *sum += count);
        }
        self.latency_sum += other.latency_sum;
        self.latency_count += other.latency_count;
        self.by_release.extend(other.by_release);
        // The form of the times sorts as they do.
        let later = |one: &ProxyErrorView, other: &ProxyErrorView| one.at < other.at;
        match (&self.last_error, other.last_error) {
            (Some(own), Some(error)) if !later(own, &error) => {}
            (_, Some(error)) => self.last_error = Some(error),
            (_, None) => {}
        }
    }
}

fn add_named(sums: &mut Vec<(&'static str, u64)>, counts: Vec<(&'static str, u64)>) {
    for (name, count) in counts {
        match sums.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += count,
            None => sums.push((name, count)),
        }
    }
}

impl Counters {
    /// Counters for `threads` data-plane threads.
    pub fn new(threads: usize) -> Arc<Self> {
        let (threads, started) = (threads.max(1), Instant::now());
        Arc::new(Self {
            started,
            lanes: (0..threads).map(|_| ConnectionLane::default()).collect(),
            refused: Default::default(),
            access_dropped: Arc::default(),
            service: ServiceCounters::new(threads, started),
        })
    }

    /// The counters of the one service's requests.
    pub fn service(&self) -> &Arc<ServiceCounters> {
        &self.service
    }

    /// Counts the lines of the access log that are lost.
    pub fn access_dropped(&self) -> &Arc<AtomicU64> {
        &self.access_dropped
    }

    /// Counters of requests that are counted apart from all others.
    pub fn apart(&self) -> Arc<ServiceCounters> {
        ServiceCounters::new(self.threads(), self.started)
    }

    /// All counters as they are now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            client_connections: self.lanes.iter().map(|lane| lane.open.load(Relaxed)).sum(),
            connections_refused: named(&REASONS, &self.refused),
            access_dropped: self.access_dropped.load(Relaxed),
            ..self.service.snapshot()
        }
    }

    /// How long the counters have been running.
    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn threads(&self) -> usize {
        self.lanes.len()
    }

    /// What thread `lane` counts of client connections.
    pub(super) fn lane(&self, lane: usize) -> &ConnectionLane {
        &self.lanes[lane]
    }

    /// Counts a connection of a client that was closed at once, for `reason`.
    pub(super) fn connection_refused(&self, reason: &str) {
        count_one(&REASONS, &self.refused, reason);
    }
}

/// What one thread counts of client connections; only that thread writes it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct ConnectionLane {
    open: AtomicU64,
}

impl ConnectionLane {
    pub(super) fn opened(&self) {
        bump(&self.open, 1);
    }

    pub(super) fn closed(&self) {
        self.open.store(self.open.load(Relaxed).saturating_sub(1), Relaxed);
    }
}

/// Adds to the counter called `name`, if there is one.
fn count_one(names: &[&str], counters: &[AtomicU64], name: &str) {
    if let Some(at) = names.iter().position(|known| *known == name) {
        counters[at].fetch_add(1, Relaxed);
    }
}

/// Counters with their names.
fn named(names: &[&'static str], counters: &[AtomicU64]) -> Vec<(&'static str, u64)> {
    names.iter().copied().zip(counters.iter().map(|counter| counter.load(Relaxed))).collect()
}

/// Adds to a counter that only this thread writes.
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

/// These locks guard plain values that are whole at every moment: a panic elsewhere does not spoil
/// them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_of_two_services_add_up() {
        let error = |at: &str| ProxyErrorView { code: at.into(), message: String::new(), at: at.into() };
        let one = Snapshot {
            total_requests: 3,
            by_class: [0, 2, 0, 0, 1],
            rolling_rps60: 0.5,
            requests_refused: vec![("upstream_full", 1)],
            latency_buckets: vec![(0.001, 1), (0.002, 3)],
            latency_count: 3,
            last_error: Some(error("2026-01-01T00:00:01.000Z")),
            ..Snapshot::default()
        };
        let newer = Some(error("2026-01-01T00:00:02.000Z"));
        let other = Snapshot { inflight: 2, last_error: newer.clone(), ..one.clone() };
        let mut sum = Snapshot::default();
        sum.add(one.clone());
        assert_eq!(sum.latency_buckets, one.latency_buckets);
        sum.add(other);
        sum.add(one);
        assert_eq!((sum.total_requests, sum.inflight, sum.by_class), (9, 2, [0, 6, 0, 0, 3]));
        assert_eq!((sum.requests_refused, sum.latency_count), (vec![("upstream_full", 3)], 9));
        assert_eq!(sum.latency_buckets, [(0.001, 3), (0.002, 9)]);
        assert_eq!(sum.last_error, newer);
    }
}
