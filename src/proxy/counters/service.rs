//! The counters of one service's requests.
//!
//! State: one lane per thread, written by that thread alone with plain loads and stores (no
//! read-modify-write, no shared cache line), and summed up by whoever asks. The last error is
//! behind a mutex that only errors touch.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use super::releases::{Classes, ReleaseCounters, Releases};
use super::{Snapshot, bump, count_one, lock, named};
use crate::wire::ProxyErrorView;

/// The window of the request rate, in seconds.
const WINDOW: u64 = 60;

/// Slots of the rate's ring: a second is written again only after it has left the window.
const SLOTS: usize = 64;

/// Upper bounds of the latency histogram, in milliseconds.
const BOUNDS: [u64; 13] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000];

/// The codes of requests that a limit refused.
const REASONS: [&str; 6] =
    ["too_many_at_once", "tier_limit", "too_many_tunnels", "upstream_full", "body_timeout", "body_too_large"];

/// The counters of one service, over all threads and releases.
#[derive(Debug)]
pub struct ServiceCounters {
    started: Instant,
    lanes: Box<[RequestLane]>,
    inflight_max: AtomicU64,
    refused: [AtomicU64; REASONS.len()],
    releases: Mutex<Releases>,
    last_error: Mutex<Option<ProxyErrorView>>,
}

impl ServiceCounters {
    /// Counters for `threads` threads. `started`: when the data plane's counters began.
    pub(super) fn new(threads: usize, started: Instant) -> Arc<Self> {
        Arc::new(Self {
            started,
            lanes: (0..threads).map(|_| RequestLane::default()).collect(),
            inflight_max: AtomicU64::new(0),
            refused: Default::default(),
            releases: Mutex::new(Releases::default()),
            last_error: Mutex::new(None),
        })
    }

    /// The counters of the release `name`, for its targets. They outlive the targets.
    pub fn release(&self, name: &str) -> Arc<ReleaseCounters> {
        lock(&self.releases).counters(name, self.lanes.len())
    }

    /// What thread `lane` counts.
    pub(in crate::proxy) fn lane(&self, lane: usize) -> &RequestLane {
        &self.lanes[lane]
    }

    /// Notes how much is in flight over all threads now, if it was never more.
    pub(in crate::proxy) fn sample_inflight(&self) {
        self.inflight_max.fetch_max(self.inflight(), Relaxed);
    }

    /// Counts an error of thread `lane` and keeps it as the last one.
    pub(in crate::proxy) fn error(&self, lane: usize, code: &str, message: String) {
        bump(&self.lanes[lane].errors, 1);
        let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        *lock(&self.last_error) = Some(ProxyErrorView { code: code.to_owned(), message, at });
    }

    /// Counts a request that got `code`, if that is the code of a limit.
    pub(in crate::proxy) fn refused(&self, code: &str) {
        count_one(&REASONS, &self.refused, code);
    }

    /// The counters as they are now. Those of client connections are not among them.
    pub fn snapshot(&self) -> Snapshot {
        self.sample_inflight();
        let sum = |counter: fn(&RequestLane) -> &AtomicU64| {
            self.lanes.iter().map(|lane| counter(lane).load(Relaxed)).sum()
        };
        let mut by_class = [0; 5];
        let mut buckets = [0; BOUNDS.len() + 1];
        for lane in &self.lanes {
            lane.classes.add_to(&mut by_class);
            for (total, bucket) in buckets.iter_mut().zip(&lane.latency) {
                *total += bucket.load(Relaxed);
            }
        }
        let latency_count = buckets.iter().sum();
        let mut below = 0;
        let latency_buckets = BOUNDS
            .iter()
            .zip(buckets)
            .map(|(bound, count)| {
                below += count;
                (Duration::from_millis(*bound).as_secs_f64(), below)
            })
            .collect();
        Snapshot {
            inflight: self.inflight(),
            inflight_max: self.inflight_max.load(Relaxed),
            total_requests: sum(|lane| &lane.requests),
            total_proxy_errors: sum(|lane| &lane.errors),
            by_class,
            rolling_rps60: self.rate(),
            upstream_sockets_created: sum(|lane| &lane.sockets_created),
            requests_refused: named(&REASONS, &self.refused),
            latency_buckets,
            latency_sum: Duration::from_micros(sum(|lane| &lane.latency_micros)).as_secs_f64(),
            latency_count,
            by_release: lock(&self.releases).totals(),
            last_error: lock(&self.last_error).clone(),
            ..Snapshot::default()
        }
    }

    /// How long the data plane's counters have been running.
    pub(in crate::proxy) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Requests and tunnels under way.
    pub(in crate::proxy) fn inflight(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.inflight.load(Relaxed)).sum()
    }

    fn rate(&self) -> f64 {
        let uptime = self.started.elapsed();
        let now = uptime.as_secs();
        let counted: u64 =
            self.lanes.iter().map(|lane| lane.rate.since(now.saturating_sub(WINDOW - 1))).sum();
        #[expect(clippy::cast_precision_loss, reason = "a rate is an estimate")]
        let counted = counted as f64;
        counted / uptime.as_secs_f64().clamp(1.0, Duration::from_secs(WINDOW).as_secs_f64())
    }
}

/// What one thread counts of a service's requests; only that thread writes it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(in crate::proxy) struct RequestLane {
    requests: AtomicU64,
    inflight: AtomicU64,
    peak: AtomicU64,
    errors: AtomicU64,
    classes: Classes,
    sockets_created: AtomicU64,
    latency: [AtomicU64; BOUNDS.len() + 1],
    latency_micros: AtomicU64,
    rate: Ring,
}

impl RequestLane {
    /// Counts a request that begins; the rate counts it in `second` (since the start), unless that
    /// is `None`. Returns true when this thread has never had so many at once: time to look at the
    /// sum.
    pub(in crate::proxy) fn begin(&self, second: Option<u64>) -> bool {
        bump(&self.requests, 1);
        if let Some(second) = second {
            self.rate.count(second);
        }
        let inflight = self.inflight.load(Relaxed) + 1;
        self.inflight.store(inflight, Relaxed);
        let peak = inflight > self.peak.load(Relaxed);
        if peak {
            self.peak.store(inflight, Relaxed);
        }
        peak
    }

    /// Counts the end of a request or tunnel, and its latency, if that was measured.
    pub(in crate::proxy) fn end(&self, latency: Option<Duration>) {
        self.inflight.store(self.inflight.load(Relaxed).saturating_sub(1), Relaxed);
        if let Some(latency) = latency {
            let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
            let bucket = BOUNDS.partition_point(|bound| bound * 1_000 < micros);
            bump(&self.latency[bucket], 1);
            bump(&self.latency_micros, micros);
        }
    }

    /// Counts an answer with `status`.
    pub(in crate::proxy) fn answered(&self, status: u16) {
        self.classes.count(status);
    }

    /// Counts a connection that was opened to the app.
    pub(in crate::proxy) fn socket_created(&self) {
        bump(&self.sockets_created, 1);
    }
}

/// Requests of the last seconds.
#[derive(Debug)]
struct Ring([(AtomicU64, AtomicU64); SLOTS]);

impl Default for Ring {
    fn default() -> Self {
        Self(std::array::from_fn(|_| (AtomicU64::new(u64::MAX), AtomicU64::new(0))))
    }
}

impl Ring {
    fn count(&self, second: u64) {
        let (at, count) = &self.0[slot(second)];
        if at.load(Relaxed) == second {
            bump(count, 1);
        } else {
            count.store(1, Relaxed);
            at.store(second, Relaxed);
        }
    }

    fn since(&self, first: u64) -> u64 {
        let recent = |at: &AtomicU64| (first..u64::MAX).contains(&at.load(Relaxed));
        self.0.iter().filter(|(at, _)| recent(at)).map(|(_, count)| count.load(Relaxed)).sum()
    }
}

fn slot(second: u64) -> usize {
    usize::try_from(second % SLOTS as u64).unwrap_or(0)
}
