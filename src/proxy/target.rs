//! A target: one tenure of an address, and who uses it.
//!
//! State: two flags, written by the coordinator; and for each data-plane thread one lane of
//! counters, written by that thread alone. A target ends with its last claim, connection and
//! reference. There may be very many, most of which nobody ever asks for: what only requests need
//! is made by the first one ([`Used`]).
//!
//! A lane counts what has begun and what has ended, and what is in flight is the difference: so the
//! requests of a target are known without another count.
//!
//! The one ordering that matters: a claim adds to its lane and **then** reads the flags;
//! [`Target::retire`] and [`Target::close`] store the flag, and whoever drains reads the counters
//! **after** that, of each lane first what has ended. All of it is sequentially consistent, so
//! either the claim sees the flag and gives back, or the drain sees the claim. Knowing a target is
//! no claim. That there are counters at all is a flag as well, which a claim finds set or sets
//! before it counts: a drain whose flag came after that finds them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;

use self::mark::Mark;
pub(super) use self::mark::Standing;
use super::clock;
use super::counters::{ReleaseCounters, ServiceCounters};
use super::parting::Parting;
use super::stayer::{Stayer, StayerList};

mod mark;

const RETIRED: u8 = 1;
const CLOSED: u8 = 2;
/// Somebody has claimed it.
const USED: u8 = 4;

/// One tenure of an address as the proxy's destination.
#[derive(Debug)]
pub struct Target {
    addr: SocketAddr,
    /// The number of the replica that it is, if it is one.
    replica: Option<u16>,
    release: Arc<ReleaseCounters>,
    flags: AtomicU8,
    /// Whether it is out, as one of several.
    mark: Mark,
    used: OnceLock<Box<Used>>,
}

/// What those who use a target share.
#[derive(Debug)]
struct Used {
    lanes: Box<[Lane]>,
    connections: Connections,
    /// The claims that are tunnels.
    tunnels: AtomicU64,
    /// Its tunnels and event streams.
    stayer_list: StayerList,
    /// When they leave.
    parting: Parting,
    /// From this moment on a client that is pinned to it may not claim it either.
    pinned_until: AtomicU64,
}

/// One thread's counters, on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Lane {
    /// Claims that were granted. One that is being judged is in it, too.
    begun: AtomicU64,
    /// Those of them that have ended.
    ended: AtomicU64,
    pinned: AtomicU64,
}

/// How many connections to the target are open, over all threads, and who waits for one.
#[derive(Debug, Default)]
struct Connections {
    open: AtomicUsize,
    waiting: AtomicUsize,
    freed: Notify,
}

impl Target {
    /// A new tenure of `addr`, whose answers count for `release`.
    pub fn new(addr: SocketAddr, release: Arc<ReleaseCounters>) -> Arc<Self> {
        Self::make(addr, None, release)
    }

    /// The same for the replica `number` of its release.
    pub fn of_replica(addr: SocketAddr, number: u16, release: Arc<ReleaseCounters>) -> Arc<Self> {
        Self::make(addr, Some(number), release)
    }

    fn make(addr: SocketAddr, replica: Option<u16>, release: Arc<ReleaseCounters>) -> Arc<Self> {
        let (flags, mark, used) = (AtomicU8::new(0), Mark::new(), OnceLock::new());
        Arc::new(Self { addr, replica, flags, mark, used, release })
    }

    /// The number of the replica that it is, if it is one.
    pub(super) fn replica(&self) -> Option<u16> {
        self.replica
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Lets only client connections that are pinned to it claim it from now on.
    pub fn retire(&self) {
        self.flags.fetch_or(RETIRED, Ordering::SeqCst);
    }

    /// Lets nobody claim it from now on, and has its idle connections dropped. Requests in flight
    /// go on.
    pub fn close(&self) {
        self.flags.fetch_or(CLOSED, Ordering::SeqCst);
    }

    /// Traffic has left it. Clients that are pinned to it may stay for `pinned`, its tunnels and
    /// event streams for `stayers`; `None`: until somebody ends them. `counters` are those of its
    /// service.
    pub fn part(&self, pinned: Duration, stayers: Option<Duration>, counters: &ServiceCounters) {
        // Where nobody has used it, nobody will.
        if let Some(used) = self.used.get() {
            let now = counters.uptime();
            used.pinned_until.store(clock::moment(now.saturating_add(pinned)), Ordering::Relaxed);
            used.parting.set(clock::moment(now), stayers);
        }
    }

    /// Its tunnels and event streams may stay after all.
    pub fn stay(&self) {
        if let Some(used) = self.used.get() {
            used.parting.set(0, None);
        }
    }

    /// Its tunnels and event streams; those that have been there longest first. `counters` are
    /// those of its service.
    pub fn stayers(&self, counters: &ServiceCounters) -> Vec<Stayer> {
        let now = clock::moment(counters.uptime());
        self.used.get().map(|used| used.stayer_list.at(now)).unwrap_or_default()
    }

    /// Who stays with it for long.
    pub(super) fn stayer_list(&self) -> &StayerList {
        &self.used().stayer_list
    }

    /// When those leave, if they are to.
    pub(super) fn parting(&self) -> Option<&Parting> {
        self.used.get().map(|used| &used.parting).filter(|parting| parting.is_set())
    }

    /// Puts it out for `time` where it is one of several, as if it had failed. `counters` are those
    /// of its service. Returns whether it was in.
    pub fn put_out(&self, time: Duration, counters: &ServiceCounters) -> bool {
        self.mark.put_out(clock::moment(counters.uptime().saturating_add(time)))
    }

    /// Takes it back in. Returns whether it was out.
    pub fn take_in(&self) -> bool {
        self.mark.take_in()
    }

    /// Whether it is out as one of several: nothing but a trial is sent there.
    pub fn is_out(&self, counters: &ServiceCounters) -> bool {
        self.mark.at(clock::moment(counters.uptime())) != Standing::In
    }

    /// Requests and tunnels that claimed it and have not ended. While others come and go it may be
    /// more by those that end meanwhile, never less.
    pub fn inflight(&self) -> u64 {
        self.lanes().iter().map(Lane::inflight).sum()
    }

    /// Requests and tunnels that have claimed it so far.
    pub fn requests(&self) -> u64 {
        self.lanes().iter().map(|lane| lane.begun.load(Ordering::Relaxed)).sum()
    }

    /// Its tunnels that have not ended.
    pub fn tunnels(&self) -> u64 {
        self.used.get().map_or(0, |used| used.tunnels.load(Ordering::Relaxed))
    }

    /// Counts one more of its claims as a tunnel while the guard lives.
    pub(super) fn tunnel(self: &Arc<Self>) -> Tunnelled {
        self.used().tunnels.fetch_add(1, Ordering::Relaxed);
        Tunnelled { target: self.clone() }
    }

    /// Client connections that would still claim it with their next request (affinity
    /// `connection`).
    pub fn pinned(&self) -> u64 {
        self.lanes().iter().map(|lane| lane.pinned.load(Ordering::SeqCst)).sum()
    }

    /// What all threads count; none where nobody has used it.
    fn lanes(&self) -> &[Lane] {
        // See the module: read before the rest.
        let _used = self.flags.load(Ordering::SeqCst);
        self.used.get().map(|used| &*used.lanes).unwrap_or_default()
    }

    fn used(&self) -> &Used {
        self.used.get_or_init(|| {
            let lanes = (0..self.release.threads()).map(|_| Lane::default()).collect();
            Box::new(Used {
                lanes,
                connections: Connections::default(),
                tunnels: AtomicU64::new(0),
                stayer_list: StayerList::default(),
                parting: Parting::default(),
                pinned_until: AtomicU64::new(clock::NEVER),
            })
        })
    }

    fn lane(&self, lane: usize) -> &Lane {
        &self.used().lanes[lane]
    }

    /// Claims it for one request of thread `lane`. Returns false when it may not be claimed any
    /// more.
    pub(super) fn claim(&self, lane: usize, pinned: bool) -> bool {
        self.lane(lane).begun.fetch_add(1, Ordering::SeqCst);
        let flags = self.flags.load(Ordering::SeqCst);
        let may = flags == USED || self.is_claimed(flags, pinned);
        if !may {
            // It was none.
            self.lane(lane).begun.fetch_sub(1, Ordering::SeqCst);
        }
        may
    }

    /// Whether a claim counts that has found these flags. Out of the way: it is the first one of
    /// all, or the target is on its way out.
    #[cold]
    fn is_claimed(&self, mut flags: u8, pinned: bool) -> bool {
        if flags & USED == 0 {
            flags = self.flags.fetch_or(USED, Ordering::SeqCst);
        }
        self.may_claim(flags, pinned)
    }

    /// Whether a request may claim it, `pinned` to it or not.
    pub(super) fn may_be_claimed(&self, pinned: bool) -> bool {
        self.may_claim(self.flags.load(Ordering::SeqCst), pinned)
    }

    /// Whether a request may claim it while it has these flags, `pinned` to it or not.
    fn may_claim(&self, flags: u8, pinned: bool) -> bool {
        let stays = || {
            let until = |used: &Used| used.pinned_until.load(Ordering::Relaxed);
            pinned && clock::uptime() < self.used.get().map_or(clock::NEVER, |used| until(used))
        };
        flags & CLOSED == 0 && (flags & RETIRED == 0 || stays())
    }

    /// Requests and tunnels of thread `lane` that claimed it and have not ended.
    pub(super) fn inflight_of(&self, lane: usize) -> u64 {
        let lane = self.lane(lane);
        // Both are written by this thread alone.
        lane.begun.load(Ordering::Relaxed) - lane.ended.load(Ordering::Relaxed)
    }

    /// Whether it is out, as one of several.
    pub(super) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Ends a claim.
    pub(super) fn unclaim(&self, lane: usize) {
        self.lane(lane).ended.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn pin(&self, lane: usize) {
        self.lane(lane).pinned.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn unpin(&self, lane: usize) {
        self.lane(lane).pinned.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.flags.load(Ordering::SeqCst) & CLOSED != 0
    }

    pub(super) fn is_retired(&self) -> bool {
        self.flags.load(Ordering::SeqCst) & RETIRED != 0
    }

    pub(super) fn release_counters(&self) -> &ReleaseCounters {
        &self.release
    }

    /// Takes the right to one more connection; `None` when `max` are open.
    pub(super) fn permit(self: &Arc<Self>, max: usize) -> Option<Permit> {
        let more = |open| (open < max).then_some(open + 1);
        self.connections().open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(Permit { target: self.clone() })
    }

    /// Whether `max` connections are open.
    pub(super) fn is_full(&self, max: usize) -> bool {
        self.connections().open.load(Ordering::Relaxed) >= max
    }

    /// How many wait for a connection, over all threads.
    pub(super) fn waiters(&self) -> usize {
        self.connections().waiting.load(Ordering::SeqCst)
    }

    /// Counts a waiter while the guard lives.
    pub(super) fn wait(self: &Arc<Self>) -> Waiting {
        self.connections().waiting.fetch_add(1, Ordering::SeqCst);
        Waiting { target: self.clone() }
    }

    /// Wakes one waiter when a permit is free.
    pub(super) fn freed(&self) -> &Notify {
        &self.connections().freed
    }

    fn connections(&self) -> &Connections {
        &self.used().connections
    }
}

impl Lane {
    /// Claims that have not ended. What has ended is read first: each of those has begun before.
    fn inflight(&self) -> u64 {
        let ended = self.ended.load(Ordering::SeqCst);
        self.begun.load(Ordering::SeqCst).saturating_sub(ended)
    }
}

/// The right to one connection; given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    target: Arc<Target>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        // First the count, then the look at the waiters: a waiter first adds itself, then looks at
        // the count.
        self.target.connections().open.fetch_sub(1, Ordering::SeqCst);
        if self.target.waiters() > 0 {
            self.target.connections().freed.notify_one();
        }
    }
}

/// Counts one tunnel to the target.
#[derive(Debug)]
pub(super) struct Tunnelled {
    target: Arc<Target>,
}

impl Drop for Tunnelled {
    fn drop(&mut self) {
        self.target.used().tunnels.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one waiter for a connection to the target.
#[derive(Debug)]
pub(super) struct Waiting {
    target: Arc<Target>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.target.connections().waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
