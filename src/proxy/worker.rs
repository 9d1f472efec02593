//! One data-plane thread: what its tasks share, and its keeper.
//!
//! State: everything here belongs to one thread and is reached through one `Rc`; nothing is locked. It is made when
//! the thread starts and dropped with it. A borrow never lives over an await.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use super::answer::Fault;
use super::clock;
use super::crowd::{self, Crowd, Guest, Limit, Stay, Visit};
use super::plane::Until;
use super::record::Record;
use super::socket;
use super::stats::{Shard, Stats};
use super::switchboard::{Now, Reader, Switchboard};
use super::upstream::pool::{Claim, Doorbells, Local, Pinned};
use super::who;
use super::{Reserved, Target};
use crate::config::{Affinity, Config, Forwarded};

/// How many spare buffers for the bytes of tunnels and bodies a thread keeps, and of large ones.
const SPARE: usize = 32;
const SPARE_LARGE: usize = 4;

/// Their sizes.
const BUFFER: usize = 64 * 1024;
const LARGE_BUFFER: usize = 512 * 1024;

/// How many for heads: one for each request that comes in one turn of the event loop, so that none is allocated.
const SPARE_HEADS: usize = 128;

/// How large a head buffer is made.
const HEAD: usize = 4 * 1024;

/// A head buffer larger than this is not kept.
const LARGEST_HEAD: usize = 32 * 1024;

/// How much a buffer for the bytes of tunnels and bodies holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BufferSize {
    Usual,
    /// For a stream that is known to move fast.
    Large,
}

impl BufferSize {
    pub(super) fn length(self) -> usize {
        match self {
            Self::Usual => BUFFER,
            Self::Large => LARGE_BUFFER,
        }
    }
}

/// What a thread is made of.
pub(super) struct Parts {
    pub(super) lane: usize,
    pub(super) config: watch::Receiver<Arc<Config>>,
    pub(super) switchboard: Switchboard,
    pub(super) stats: Arc<Stats>,
    pub(super) reserved: Arc<dyn Reserved>,
    pub(super) bells: Arc<Doorbells>,
    pub(super) crowd: Arc<Crowd>,
}

/// The configuration as requests read it.
pub(super) struct Settings {
    pub(super) config: Arc<Config>,
    /// Milliseconds.
    pub(super) idle_timeout: u64,
    pub(super) header_timeout: u64,
    pub(super) tunnel_idle: u64,
    /// What the kernel is told; 0: none.
    pub(super) send_timeout: u32,
    pub(super) requests_per_address: usize,
    /// Whether anything of the app's is waited for with a limit.
    pub(super) is_impatient: bool,
}

impl Settings {
    fn new(config: Arc<Config>) -> Rc<Self> {
        let idle_timeout = clock::millis(config.proxy.idle_timeout);
        let header_timeout = clock::millis(config.proxy.header_timeout);
        let (limits, upstream) = (&config.limits, &config.upstream);
        let tunnel_idle = limits.tunnel_idle.map_or(clock::NEVER, clock::millis);
        let send_timeout = socket::send_timeout_of(limits.send_timeout);
        let requests_per_address = limits.requests_per_address.unwrap_or(usize::MAX);
        let is_impatient = upstream.response_timeout.or(upstream.read_timeout).or(upstream.timeout).is_some();
        Rc::new(Self {
            idle_timeout,
            header_timeout,
            tunnel_idle,
            send_timeout,
            requests_per_address,
            is_impatient,
            config,
        })
    }
}

/// The live target as one thread uses it, and the value of the switchboard that names it.
struct Current {
    now: Arc<Now>,
    local: Rc<Local>,
}

/// Why a request finds no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoTarget {
    /// Nothing serves.
    Empty,
    /// The next one is near.
    Held,
}

/// What the tasks of one thread share.
pub(super) struct Worker {
    pub(super) lane: usize,
    pub(super) stats: Arc<Stats>,
    pub(super) reserved: Arc<dyn Reserved>,
    /// Made of the configuration that was in force at the last look.
    settings: RefCell<Rc<Settings>>,
    config: RefCell<watch::Receiver<Arc<Config>>>,
    route: RefCell<Reader>,
    /// The live target of the last look that found one, and all targets that may still have connections here.
    current: RefCell<Option<Current>>,
    locals: RefCell<Vec<Rc<Local>>>,
    connections: RefCell<Vec<Rc<Record>>>,
    /// A connection has ended or become a tunnel.
    fewer: Notify,
    draining: Cell<bool>,
    bells: Arc<Doorbells>,
    crowd: Arc<Crowd>,
    /// Who came last: many who follow each other are of one address, all of them where a proxy stands before.
    last_guest: RefCell<Option<Rc<Guest>>>,
    heads: RefCell<Vec<Vec<u8>>>,
    buffers: RefCell<Vec<Box<[u8]>>>,
    large_buffers: RefCell<Vec<Box<[u8]>>>,
}

impl Worker {
    /// Its state, and the task that keeps it.
    pub(super) fn start(parts: Parts) -> Rc<Self> {
        let Parts { lane, mut config, switchboard, stats, reserved, bells, crowd } = parts;
        clock::advance(stats.uptime());
        let settings = Settings::new(config.borrow_and_update().clone());
        let worker = Rc::new(Self {
            lane,
            stats,
            reserved,
            settings: RefCell::new(settings),
            config: RefCell::new(config),
            route: RefCell::new(switchboard.reader()),
            current: RefCell::default(),
            locals: RefCell::default(),
            connections: RefCell::default(),
            fewer: Notify::new(),
            draining: Cell::new(false),
            bells,
            crowd,
            last_guest: RefCell::default(),
            heads: RefCell::default(),
            buffers: RefCell::default(),
            large_buffers: RefCell::default(),
        });
        tokio::task::spawn_local(worker.clone().keep());
        worker
    }

    /// The configuration in force: whoever asks after a reload was answered gets the new one. One atomic load while
    /// nothing has changed.
    pub(super) fn settings(&self) -> Rc<Settings> {
        // An error says that the sender has gone: what came last stays in force until the end.
        if self.config.borrow().has_changed().unwrap_or(false) {
            let config = self.config.borrow_mut().borrow_and_update().clone();
            self.settings.replace(Settings::new(config));
        }
        self.settings.borrow().clone()
    }

    pub(super) fn shard(&self) -> &Shard {
        self.stats.shard(self.lane)
    }

    /// Claims a target for a request of `record`: the one it is pinned to, else the live one.
    pub(super) fn claim(&self, record: &Record, affinity: Affinity) -> Result<Claim, NoTarget> {
        let mut pinned = record.pinned.borrow_mut();
        if affinity == Affinity::Request {
            *pinned = None;
        } else if let Some(claim) = pinned.as_ref().and_then(|pinned| Claim::new(pinned.local.clone(), true))
        {
            return Ok(claim);
        }
        let claim = self.claim_live()?;
        if affinity == Affinity::Connection {
            *pinned = Some(Pinned::new(claim.local.clone()));
        }
        Ok(claim)
    }

    fn claim_live(&self) -> Result<Claim, NoTarget> {
        let mut refused: Option<Rc<Local>> = None;
        loop {
            let local = self.live()?;
            // A target that is routed to although nobody may claim it: nothing serves.
            if refused.is_some_and(|refused| Rc::ptr_eq(&refused, &local)) {
                return Err(NoTarget::Empty);
            }
            if let Some(claim) = Claim::new(local.clone(), false) {
                return Ok(claim);
            }
            refused = Some(local);
        }
    }

    fn live(&self) -> Result<Rc<Local>, NoTarget> {
        let mut route = self.route.borrow_mut();
        let now = route.load();
        let mut current = self.current.borrow_mut();
        if let Some(current) = &*current
            && Arc::ptr_eq(&current.now, now)
        {
            return Ok(current.local.clone());
        }
        let target = match &**now {
            Now::One(target) => target,
            Now::Held => return Err(NoTarget::Held),
            Now::Empty => return Err(NoTarget::Empty),
        };
        let local = self.local(target);
        *current = Some(Current { now: now.clone(), local: local.clone() });
        Ok(local)
    }

    fn local(&self, target: &Arc<Target>) -> Rc<Local> {
        let mut locals = self.locals.borrow_mut();
        if let Some(known) = locals.iter().find(|local| Arc::ptr_eq(&local.target, target)) {
            return known.clone();
        }
        let upstream = &self.settings().config.upstream;
        let local = Rc::new(Local::new(target.clone(), self.lane, self.bells.clone(), upstream));
        locals.push(local.clone());
        local
    }

    /// Lets a connection of `peer` in; `None`: it is one too many.
    pub(super) fn admit(&self, peer: IpAddr) -> Option<Visit> {
        let settings = self.settings();
        let (limits, trusted) = (&settings.config.limits, &settings.config.proxy.trusted);
        let each = match limits.connections_per_address {
            Some(most) if !super::headers::is_trusted(peer, trusted) => most,
            _ => usize::MAX,
        };
        let limit = match Visit::begin(self.guest(peer), limits.connections, each) {
            Ok(visit) => return Some(visit),
            Err(limit) => limit,
        };
        self.stats.connection_refused(reason_of(limit));
        match limit {
            Limit::Connections => self.tell_full(limit, Some(limits.connections), None),
            _ => self.tell_full(limit, Some(each), Some(peer)),
        }
        None
    }

    /// The guest of address `ip`, without a look at the crowd where it is the one who came last.
    fn guest(&self, ip: IpAddr) -> Rc<Guest> {
        let mut last = self.last_guest.borrow_mut();
        match &*last {
            Some(guest) if guest.ip() == ip => guest.clone(),
            _ => last.insert(self.crowd.guest(ip)).clone(),
        }
    }

    /// A connection cannot be let in, for want of descriptors.
    #[cold]
    pub(super) fn lacks_descriptors(&self) {
        self.stats.connection_refused(reason_of(Limit::Descriptors));
        self.tell_full(Limit::Descriptors, None, None);
    }

    /// Whom a request of `record` counts for: the one that its `fields` name, where they are believed, else the peer.
    #[cold]
    pub(super) fn named_guest<'a, I>(
        &self,
        record: &Record,
        settings: &Settings,
        fields: impl Fn() -> I,
    ) -> Rc<Guest>
    where
        I: Iterator<Item = (&'a [u8], &'a [u8])>,
    {
        let peer = record.peer.ip();
        let client = match trusts(settings, record) {
            true => who::client(peer, &settings.config.proxy.trusted, fields),
            false => peer,
        };
        if client == peer { record.guest().clone() } else { self.guest(client) }
    }

    /// Says that `limit` is full, once a minute, and who fills it: `address`, or whoever has most.
    #[cold]
    pub(super) fn tell_full(&self, limit: Limit, most: Option<usize>, address: Option<IpAddr>) {
        if !self.crowd.is_news(limit) {
            return;
        }
        let filler = match address {
            Some(address) => Some(self.crowd.share(address, limit)),
            None => self.crowd.filler(limit),
        };
        tracing::warn!("{}", crowd::notice(limit, most, filler));
    }

    /// Lists a connection until the guard is dropped.
    pub(super) fn list(self: &Rc<Self>, record: Rc<Record>) -> Listed {
        let mut connections = self.connections.borrow_mut();
        record.index.set(connections.len());
        connections.push(record.clone());
        self.shard().client_opened();
        Listed { worker: self.clone(), record }
    }

    /// From now on connections close as soon as they have nothing under way.
    pub(super) fn drain(&self) {
        self.draining.set(true);
        self.sweep_connections();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Waits until what is left is as few as `until` says.
    pub(super) async fn drained(&self, until: Until) {
        loop {
            let fewer = self.fewer.notified();
            let over = {
                let connections = self.connections.borrow();
                match until {
                    Until::Empty => connections.is_empty(),
                    Until::OnlyTunnels => connections.iter().all(|record| record.is_tunnel()),
                }
            };
            if over {
                return;
            }
            fewer.await;
        }
    }

    /// A connection has become a tunnel.
    pub(super) fn tunnelled(&self) {
        self.fewer.notify_waiters();
    }

    /// An empty buffer for a head.
    pub(super) fn head_buffer(&self) -> Vec<u8> {
        self.heads.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(HEAD))
    }

    pub(super) fn keep_head_buffer(&self, mut buffer: Vec<u8>) {
        let mut heads = self.heads.borrow_mut();
        if heads.len() < SPARE_HEADS && buffer.capacity() > 0 && buffer.capacity() <= LARGEST_HEAD {
            buffer.clear();
            heads.push(buffer);
        }
    }

    /// A buffer to move the bytes of a tunnel or a body with.
    pub(super) fn buffer(&self, size: BufferSize) -> Box<[u8]> {
        let spare = match size {
            BufferSize::Usual => &self.buffers,
            BufferSize::Large => &self.large_buffers,
        };
        spare.borrow_mut().pop().unwrap_or_else(|| vec![0; size.length()].into_boxed_slice())
    }

    pub(super) fn keep_buffer(&self, buffer: Box<[u8]>) {
        let (spare, most) = match buffer.len() {
            BUFFER => (&self.buffers, SPARE),
            _ => (&self.large_buffers, SPARE_LARGE),
        };
        let mut spare = spare.borrow_mut();
        if spare.len() < most {
            spare.push(buffer);
        }
    }

    /// Moves the clock and looks after everything, until the thread ends.
    async fn keep(self: Rc<Self>) {
        let mut tick = tokio::time::interval(clock::TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let ticked = tokio::select! {
                _ = tick.tick() => true,
                () = self.bells.0[self.lane].notified() => false,
            };
            clock::advance(self.stats.uptime());
            if ticked {
                self.sweep_connections();
                self.stats.sample_inflight();
            }
            self.sweep_targets();
        }
    }

    fn sweep_connections(&self) {
        let settings = self.settings();
        self.connections.borrow().iter().for_each(|record| record.sweep(&settings, self.draining.get()));
    }

    fn sweep_targets(&self) {
        let settings = self.settings();
        let current = self.live().ok();
        if current.is_none() {
            self.current.take();
        }
        let is_left = |local: &Rc<Local>| {
            local.sweep(&settings.config.upstream);
            let live = current.as_ref().is_some_and(|current| Rc::ptr_eq(current, local));
            let over = local.target.is_closed() || local.target.is_retired() || local.is_empty();
            over && !live && Rc::strong_count(local) == 1
        };
        let left: Vec<_> = self.locals.borrow_mut().extract_if(.., |local| is_left(local)).collect();
        drop(left);
    }
}

/// Keeps a connection in its thread's list.
pub(super) struct Listed {
    worker: Rc<Worker>,
    record: Rc<Record>,
}

impl Listed {
    pub(super) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    pub(super) fn record(&self) -> &Rc<Record> {
        &self.record
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let worker = &self.worker;
        if std::thread::panicking() {
            tracing::error!(peer = %self.record.peer, "a client connection was lost to a fault of portok itself");
            worker.stats.error(worker.lane, "internal", "a connection was lost to a panic".to_owned());
        }
        let mut connections = worker.connections.borrow_mut();
        let index = self.record.index.get();
        connections.swap_remove(index);
        if let Some(moved) = connections.get(index) {
            moved.index.set(index);
        }
        worker.shard().client_closed();
        if worker.draining.get() {
            worker.fewer.notify_waiters();
        }
    }
}

/// One request in the counters; ends with the last byte of its answer, or with its tunnel.
pub(super) struct Ticket {
    worker: Rc<Worker>,
    started: Option<Instant>,
    /// Its answer was given whole. A tunnel, or a client that went away, took no measured time.
    finished: Cell<bool>,
    /// `None`: it has not been admitted.
    stay: Option<Stay>,
}

impl Ticket {
    pub(super) fn new(worker: Rc<Worker>, fast: bool) -> Self {
        let second = (!fast).then(|| clock::now() / 1_000);
        if worker.shard().begin(second) {
            worker.stats.sample_inflight();
        }
        let started = (!fast).then(Instant::now);
        Self { worker, started, finished: Cell::new(false), stay: None }
    }

    /// Counts it for its client's address, which must not have too many.
    pub(super) fn admit(&mut self, guest: Rc<Guest>, settings: &Settings) -> Result<(), Fault> {
        let (stay, number) = Stay::begin(guest);
        if number > settings.requests_per_address {
            self.one_too_many(stay, settings)
        } else {
            self.stay = Some(stay);
            Ok(())
        }
    }

    /// A trusted peer that names no client stands for many.
    #[cold]
    fn one_too_many(&mut self, stay: Stay, settings: &Settings) -> Result<(), Fault> {
        let ip = stay.guest().ip();
        if super::headers::is_trusted(ip, &settings.config.proxy.trusted) {
            self.stay = Some(stay);
            return Ok(());
        }
        drop(stay);
        self.worker.tell_full(Limit::RequestsPerAddress, Some(settings.requests_per_address), Some(ip));
        Err(Fault::TooManyAtOnce)
    }

    /// Takes a place for the tunnel that it may become.
    pub(super) fn reserve_tunnel(&mut self, settings: &Settings) -> Result<(), Fault> {
        let most = settings.config.limits.tunnels;
        if self.stay.as_mut().is_none_or(|stay| stay.reserve_tunnel(most)) {
            return Ok(());
        }
        self.worker.tell_full(Limit::Tunnels, Some(most), None);
        Err(Fault::TooManyTunnels)
    }

    /// It has become a tunnel.
    pub(super) fn become_tunnel(&mut self) {
        if let Some(stay) = &mut self.stay {
            stay.become_tunnel();
        }
    }

    /// It becomes no tunnel: its place is free for another one.
    pub(super) fn leave_tunnels(&mut self) {
        if let Some(stay) = &mut self.stay {
            stay.leave_tunnels();
        }
    }

    /// The answer's status is known.
    pub(super) fn answered(&self, status: u16, target: Option<&Target>) {
        self.worker.shard().answered(status);
        if let (Some(target), true) = (target, self.started.is_some()) {
            target.release_counters().answered(self.worker.lane, status);
        }
    }

    /// The answer is whole.
    pub(super) fn finish(&self) {
        self.finished.set(true);
    }

    /// It gets no answer of the app's, but this one. `at`: whose target was asked; what it failed in counts for its release.
    pub(super) fn refuse(
        &self,
        fault: &Fault,
        at: Option<&Local>,
        settings: &Settings,
        close: bool,
    ) -> Response<Bytes> {
        let config = &settings.config;
        if matches!(fault, Fault::UpstreamFull) {
            self.worker.tell_full(Limit::UpstreamConnections, Some(config.upstream.max_connections), None);
        }
        self.worker.stats.request_refused(fault.code());
        let cause = fault.cause();
        tracing::debug!(code = fault.code(), %cause, "a request got no answer of the app's");
        self.failed(fault.code(), cause);
        let response = fault.answer(config.log.verbose_errors, close, config.upstream.timeout_status);
        let at = at.filter(|_| response.status().is_server_error());
        self.answered(response.status().as_u16(), at.map(|at| &*at.target));
        self.finish();
        response
    }

    /// Its answer broke off; why.
    pub(super) fn broke(&self, fault: &Fault) -> String {
        let cause = fault.cause();
        tracing::debug!(code = fault.code(), %cause, "an answer broke off");
        self.failed(fault.code(), cause.clone());
        cause
    }

    /// It ended in an error of the proxy.
    pub(super) fn failed(&self, code: &str, message: String) {
        self.worker.stats.error(self.worker.lane, code, message);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let measured = self.started.filter(|_| self.finished.get());
        self.worker.shard().end(measured.map(|started| started.elapsed()));
    }
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

/// Why a connection was closed, as the metrics tell it.
fn reason_of(limit: Limit) -> &'static str {
    limit.key().strip_prefix("limits.").unwrap_or("descriptors")
}

/// How `X-Forwarded-*` is treated for a client.
pub(super) fn trusts(settings: &Settings, record: &Record) -> bool {
    settings.config.proxy.forwarded == Forwarded::Trusted
        && super::headers::is_trusted(record.peer.ip(), &settings.config.proxy.trusted)
}

/// How long a refused connection is left alone before it is tried again: at first, and at the most.
pub(super) const REFUSED_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));
