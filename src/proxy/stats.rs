//! The counters of the data plane.
//!
//! State: one shard per thread, written by that thread alone with plain loads and stores (no read-modify-write,
//! no shared cache line), summed up by whoever asks. The last error sits behind a mutex that only errors
//! touch. Counters of releases outlive their targets, the last [`RELEASES`] by name, older ones in a sum.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::wire::ProxyErrorView;

/// How many releases keep counters of their own.
const RELEASES: usize = 8;

/// The window of the request rate, in seconds.
const WINDOW: u64 = 60;

/// Slots of the rate's ring: a second is written again only after it has left the window.
const SLOTS: usize = 64;

/// Upper bounds of the latency histogram, in milliseconds.
const BOUNDS: [u64; 13] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000];

/// Why a client's connection is closed at once: too many in all, too many of its address, no descriptor left for it.
const CONNECTION_REASONS: [&str; 3] = ["connections", "connections_per_address", "descriptors"];

/// The codes of requests that a limit refused.
const REQUEST_REASONS: [&str; 5] =
    ["too_many_at_once", "too_many_tunnels", "upstream_full", "body_timeout", "body_too_large"];

/// The counters of all threads and releases.
#[derive(Debug)]
pub struct Stats {
    started: Instant,
    shards: Box<[Shard]>,
    inflight_max: AtomicU64,
    connections_refused: [AtomicU64; CONNECTION_REASONS.len()],
    requests_refused: [AtomicU64; REQUEST_REASONS.len()],
    releases: Mutex<Releases>,
    last_error: Mutex<Option<ProxyErrorView>>,
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
    /// Upper bounds in seconds with the number of requests at or below each (cumulative), without `+Inf`.
    pub latency_buckets: Vec<(f64, u64)>,
    /// The sum of all latencies in seconds; their number is `total_requests` minus what is in flight.
    pub latency_sum: f64,
    /// How many latencies were measured.
    pub latency_count: u64,
    /// Connections of clients that were closed at once, by reason.
    pub connections_refused: Vec<(&'static str, u64)>,
    /// Requests that a limit refused, by code.
    pub requests_refused: Vec<(&'static str, u64)>,
    /// Per release (newest last, bounded; older ones are summed up as `other`): answers by class.
    pub by_release: Vec<(String, [u64; 5])>,
    /// The proxy's last error.
    pub last_error: Option<ProxyErrorView>,
}

impl Stats {
    /// For `threads` data-plane threads.
    pub fn new(threads: usize) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            shards: (0..threads.max(1)).map(|_| Shard::default()).collect(),
            inflight_max: AtomicU64::new(0),
            connections_refused: Default::default(),
            requests_refused: Default::default(),
            releases: Mutex::new(Releases::default()),
            last_error: Mutex::new(None),
        })
    }

    /// The counters of `release`, for its targets. They outlive the targets here: the last few releases by name,
    /// older ones in a sum.
    pub fn release(&self, name: &str) -> Arc<ReleaseCounters> {
        lock(&self.releases).counters(name, self.shards.len())
    }

    /// All counters as they are now.
    pub fn snapshot(&self) -> Snapshot {
        self.sample_inflight();
        let sum =
            |counter: fn(&Shard) -> &AtomicU64| self.shards.iter().map(|s| counter(s).load(Relaxed)).sum();
        let mut by_class = [0; 5];
        let mut buckets = [0; BOUNDS.len() + 1];
        for shard in &self.shards {
            shard.classes.add_to(&mut by_class);
            for (total, bucket) in buckets.iter_mut().zip(&shard.latency) {
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
            total_requests: sum(|shard| &shard.requests),
            total_proxy_errors: sum(|shard| &shard.errors),
            by_class,
            rolling_rps60: self.rate(),
            upstream_sockets_created: sum(|shard| &shard.sockets_created),
            client_connections: sum(|shard| &shard.clients),
            connections_refused: named(&CONNECTION_REASONS, &self.connections_refused),
            requests_refused: named(&REQUEST_REASONS, &self.requests_refused),
            latency_buckets,
            latency_sum: Duration::from_micros(sum(|shard| &shard.latency_micros)).as_secs_f64(),
            latency_count,
            by_release: lock(&self.releases).totals(),
            last_error: lock(&self.last_error).clone(),
        }
    }

    /// How long the counters have been running.
    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn threads(&self) -> usize {
        self.shards.len()
    }

    pub(super) fn shard(&self, lane: usize) -> &Shard {
        &self.shards[lane]
    }

    /// Looks at how much is in flight over all threads now.
    pub(super) fn sample_inflight(&self) {
        self.inflight_max.fetch_max(self.inflight(), Relaxed);
    }

    /// Counts an error of thread `lane` and keeps it as the last one.
    pub(super) fn error(&self, lane: usize, code: &str, message: String) {
        bump(&self.shards[lane].errors, 1);
        let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        *lock(&self.last_error) = Some(ProxyErrorView { code: code.to_owned(), message, at });
    }

    /// Counts a connection of a client that was closed at once, for `reason`.
    pub(super) fn connection_refused(&self, reason: &str) {
        count_one(&CONNECTION_REASONS, &self.connections_refused, reason);
    }

    /// Counts a request that got `code`, where that is a limit's.
    pub(super) fn request_refused(&self, code: &str) {
        count_one(&REQUEST_REASONS, &self.requests_refused, code);
    }

    fn inflight(&self) -> u64 {
        self.shards.iter().map(|shard| shard.inflight.load(Relaxed)).sum()
    }

    fn rate(&self) -> f64 {
        let uptime = self.started.elapsed();
        let now = uptime.as_secs();
        let counted: u64 =
            self.shards.iter().map(|shard| shard.rate.since(now.saturating_sub(WINDOW - 1))).sum();
        #[expect(clippy::cast_precision_loss, reason = "a rate is an estimate")]
        let counted = counted as f64;
        counted / uptime.as_secs_f64().clamp(1.0, Duration::from_secs(WINDOW).as_secs_f64())
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

/// One thread's counters; only that thread writes them.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Shard {
    requests: AtomicU64,
    inflight: AtomicU64,
    peak: AtomicU64,
    errors: AtomicU64,
    classes: Classes,
    clients: AtomicU64,
    sockets_created: AtomicU64,
    latency: [AtomicU64; BOUNDS.len() + 1],
    latency_micros: AtomicU64,
    rate: Ring,
}

impl Shard {
    /// A request begins. `second` (since the start) is where the rate counts it, `None` leaves it out.
    /// True when this thread has never had so many at once: time to look at the sum.
    pub(super) fn begin(&self, second: Option<u64>) -> bool {
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

    /// A request or tunnel ended.
    pub(super) fn end(&self, latency: Option<Duration>) {
        self.inflight.store(self.inflight.load(Relaxed).saturating_sub(1), Relaxed);
        if let Some(latency) = latency {
            let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
            let bucket = BOUNDS.partition_point(|bound| bound * 1_000 < micros);
            bump(&self.latency[bucket], 1);
            bump(&self.latency_micros, micros);
        }
    }

    /// An answer with `status` went out.
    pub(super) fn answered(&self, status: u16) {
        self.classes.count(status);
    }

    pub(super) fn socket_created(&self) {
        bump(&self.sockets_created, 1);
    }

    pub(super) fn client_opened(&self) {
        bump(&self.clients, 1);
    }

    pub(super) fn client_closed(&self) {
        self.clients.store(self.clients.load(Relaxed).saturating_sub(1), Relaxed);
    }
}

/// Answers by class of status.
#[derive(Debug, Default)]
struct Classes([AtomicU64; 5]);

impl Classes {
    fn count(&self, status: u16) {
        if let Some(class) = usize::from(status / 100).checked_sub(1).and_then(|class| self.0.get(class)) {
            bump(class, 1);
        }
    }

    fn add_to(&self, sum: &mut [u64; 5]) {
        for (sum, count) in sum.iter_mut().zip(&self.0) {
            *sum += count.load(Relaxed);
        }
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
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn threads(&self) -> usize {
        self.lanes.len()
    }

    pub(super) fn answered(&self, lane: usize, status: u16) {
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
struct Releases {
    named: VecDeque<Arc<ReleaseCounters>>,
    /// No longer named, but a target still counts on them.
    leaving: Vec<Arc<ReleaseCounters>>,
    other: [u64; 5],
}

impl Releases {
    fn counters(&mut self, release: &str, lanes: usize) -> Arc<ReleaseCounters> {
        if let Some(known) = self.named.iter().find(|counters| counters.name == release) {
            return known.clone();
        }
        let lanes = (0..lanes).map(|_| ReleaseLane::default()).collect();
        let counters = Arc::new(ReleaseCounters { name: release.to_owned(), lanes });
        self.named.push_back(counters.clone());
        if self.named.len() > RELEASES {
            self.leaving.extend(self.named.pop_front());
        }
        self.fold();
        counters
    }

    /// Sums up what nobody counts on any more.
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

    fn totals(&mut self) -> Vec<(String, [u64; 5])> {
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

/// Adds to a counter that only this thread writes.
fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

/// These locks guard plain values that are whole at every moment: a panic elsewhere does not spoil them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
