//! A target's connections on one thread: kept alive, last in first out, and handed on.
//!
//! State: owned by this thread, except the number of open connections, which is the target's, over
//! all threads (`upstream.max_connections`). It ends with the target: a closed one keeps no idle
//! connection.
//!
//! A request that waits because the limit is reached gets a connection
//! - from this thread: an exchange that ends hands its connection to the request that has waited
//!   longest here;
//! - from another thread: where others wait elsewhere, a connection is closed instead of pooled
//!   (every second time if requests wait here too), and its permit wakes one of them. Threads give
//!   up their idle connections when their keepers are woken ([`Doorbells`]), so that these starve
//!   nobody.
//!
//! The order that matters: a waiter first counts itself, then looks at the pool and the limit, then
//! sleeps. Whoever frees something frees it first and looks at the waiters after that. A dropped
//! waiter passes its wake-up on.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use super::connection::Connection;
use super::h2c::links::Links;
use crate::config::Upstream;
use crate::proxy::bells::Doorbells;
use crate::proxy::board::Service;
use crate::proxy::clock;
use crate::proxy::hold::Pass;
use crate::proxy::sticky::Place;
use crate::proxy::target::{Permit, Target};

/// A target as one thread uses it.
#[derive(Debug)]
pub(in crate::proxy) struct LocalTarget {
    pub(in crate::proxy) target: Arc<Target>,
    /// The service that it belongs to.
    pub(in crate::proxy) service: Arc<Service>,
    pub(in crate::proxy) lane: usize,
    bells: Arc<Doorbells>,
    idle: RefCell<Vec<Connection>>,
    /// Its connections over HTTP/2. In a box, because few targets have any.
    links: OnceCell<Box<Links>>,
    waiting: Cell<usize>,
    handed: Notify,
    /// How many idle connections are kept.
    most_idle: Cell<usize>,
    /// Whether it is one of several.
    is_member: Cell<bool>,
    /// By what sticky clients know it, as one of several.
    place: Cell<Option<Place>>,
    /// What other threads had in flight at the last tick.
    elsewhere: Cell<u64>,
    /// Whether the last connection that both this thread and another wanted went to the other.
    gave_away: Cell<bool>,
}

/// A connection to use, or the right to open one.
#[derive(Debug)]
pub(in crate::proxy) enum Lent {
    Kept(Connection),
    Fresh(Permit),
}

impl LocalTarget {
    pub(in crate::proxy) fn new(
        target: Arc<Target>,
        service: Arc<Service>,
        lane: usize,
        bells: Arc<Doorbells>,
        settings: &Upstream,
    ) -> Self {
        let (idle, waiting, handed) = (RefCell::default(), Cell::new(0), Notify::new());
        let most_idle = Cell::new(share(settings.max_idle, bells.0.len(), lane));
        let (gave_away, is_member, elsewhere) = (Cell::new(false), Cell::new(false), Cell::new(0));
        Self {
            target,
            service,
            lane,
            bells,
            idle,
            links: OnceCell::new(),
            waiting,
            handed,
            most_idle,
            is_member,
            place: Cell::new(None),
            elsewhere,
            gave_away,
        }
    }

    /// Notes that it serves alone from now on.
    pub(in crate::proxy) fn be_alone(&self) {
        self.is_member.set(false);
        self.place.set(None);
        self.note_elsewhere();
    }

    /// Notes that it is one of several from now on. `place`: by what sticky clients know it.
    pub(in crate::proxy) fn be_member(&self, place: Option<Place>) {
        self.is_member.set(true);
        self.place.set(place);
        self.note_elsewhere();
    }

    /// Whether it is one of several.
    pub(in crate::proxy) fn is_member(&self) -> bool {
        self.is_member.get()
    }

    /// By what sticky clients know it.
    pub(in crate::proxy) fn place(&self) -> Option<Place> {
        self.place.get()
    }

    /// What is in flight at it: this thread's exactly, the others' as of the last tick.
    pub(in crate::proxy) fn load(&self) -> u64 {
        self.target.inflight_of(self.lane) + self.elsewhere.get()
    }

    /// Whether a request would have to wait for a connection, of which `most` may be open.
    pub(in crate::proxy) fn is_full(&self, most: usize) -> bool {
        self.idle.borrow().is_empty() && self.target.is_full(most)
    }

    /// Looks what other threads have in flight.
    pub(in crate::proxy) fn note_elsewhere(&self) {
        if self.is_member.get() && self.bells.0.len() > 1 {
            let own = self.target.inflight_of(self.lane);
            self.elsewhere.set(self.target.inflight().saturating_sub(own));
        }
    }

    /// A kept connection, without waiting. None if a `fresh` one is wanted.
    pub(in crate::proxy) fn try_kept(&self, fresh: bool) -> Option<Connection> {
        if fresh || self.waiting.get() > 0 {
            return None;
        }
        self.kept(clock::uptime())
    }

    /// A connection or a permit, without waiting. `fresh`: no kept connection.
    pub(in crate::proxy) fn try_take(&self, fresh: bool, settings: &Upstream) -> Option<Lent> {
        if self.waiting.get() > 0 {
            return None;
        }
        self.take(fresh, settings)
    }

    /// Waits for a connection or a permit; the caller has the deadline.
    pub(in crate::proxy) async fn wait(&self, fresh: bool, settings: &Upstream) -> Lent {
        let _elsewhere = self.target.wait();
        let _here = WaitingHere::new(self);
        loop {
            let handed = std::pin::pin!(self.handed.notified());
            let freed = std::pin::pin!(self.target.freed().notified());
            let (mut handed, mut freed) = (handed, freed);
            handed.as_mut().enable();
            freed.as_mut().enable();
            if let Some(lent) = self.take(fresh, settings) {
                // More connections may lie here than wake-ups were stored.
                if self.waiting.get() > 1 && !self.idle.borrow().is_empty() {
                    self.handed.notify_one();
                }
                return lent;
            }
            self.bells.ring(self.lane);
            tokio::select! {
                () = handed => (),
                () = freed => (),
            }
        }
    }

    /// The right to one more request over HTTP/2, without waiting.
    pub(in crate::proxy) fn try_right(&self, settings: &Upstream) -> Option<Permit> {
        if self.waiting.get() > 0 {
            return None;
        }
        self.target.permit(settings.max_connections)
    }

    /// Waits for the right to one more request over HTTP/2; the caller has the deadline.
    pub(in crate::proxy) async fn right(&self, settings: &Upstream) -> Permit {
        let _elsewhere = self.target.wait();
        let _here = WaitingHere::new(self);
        loop {
            let mut freed = std::pin::pin!(self.target.freed().notified());
            freed.as_mut().enable();
            if let Some(permit) = self.target.permit(settings.max_connections) {
                return permit;
            }
            self.bells.ring(self.lane);
            freed.await;
        }
    }

    /// Its connections over HTTP/2.
    pub(in crate::proxy) fn links(&self) -> &Links {
        self.links.get_or_init(Box::default)
    }

    /// What [`clock::uptime`] will say at the thread's next tick, at least.
    fn exactly_now(&self) -> u64 {
        clock::moment(self.service.counters().uptime())
    }

    fn kept(&self, now: u64) -> Option<Connection> {
        while let Some(connection) = self.pop() {
            if connection.is_usable(now) {
                return Some(connection);
            }
        }
        None
    }

    fn take(&self, fresh: bool, settings: &Upstream) -> Option<Lent> {
        if !fresh && let Some(kept) = self.kept(self.exactly_now()) {
            return Some(Lent::Kept(kept));
        }
        loop {
            if let Some(permit) = self.target.permit(settings.max_connections) {
                return Some(Lent::Fresh(permit));
            }
            // A fresh connection is wanted: at the limit, an idle one makes room for it.
            drop(self.pop()?);
        }
    }

    fn pop(&self) -> Option<Connection> {
        self.idle.borrow_mut().pop()
    }

    /// Takes back a connection after an exchange that left it usable.
    pub(in crate::proxy) fn give_back(&self, mut connection: Connection) {
        if self.target.is_closed() {
            return;
        }
        let here = self.waiting.get();
        if self.target.waiters() > here {
            let away = here == 0 || !self.gave_away.get();
            self.gave_away.set(away);
            if away {
                return;
            }
        }
        if here == 0 && self.idle.borrow().len() >= self.most_idle.get() {
            return;
        }
        connection.rest();
        self.idle.borrow_mut().push(connection);
        if here > 0 {
            self.handed.notify_one();
        }
    }

    /// Whether no connection is kept.
    pub(in crate::proxy) fn is_empty(&self) -> bool {
        self.idle.borrow().is_empty() && self.links.get().is_none_or(|links| links.is_empty())
    }

    /// Drops connections that were idle for too long, and all of them if the target is closed or
    /// others wait.
    pub(in crate::proxy) fn sweep(&self, settings: &Upstream) {
        let all =
            self.target.is_closed() || !settings.keepalive || self.target.waiters() > self.waiting.get();
        let oldest = clock::uptime().saturating_sub(clock::millis(settings.idle_timeout));
        let useless =
            |connection: &Connection| all || connection.idle_since() < oldest || !connection.is_quiet();
        let mut idle = self.idle.borrow_mut();
        let mut dropped: Vec<_> = idle.extract_if(.., |connection| useless(connection)).collect();
        self.most_idle.set(share(settings.max_idle, self.bells.0.len(), self.lane));
        let more = idle.len().saturating_sub(self.most_idle.get());
        dropped.extend(idle.drain(..more));
        drop(idle);
        drop(dropped);
        if let Some(links) = self.links.get() {
            let gone = self.target.is_closed() || !settings.keepalive;
            links.sweep(if gone { clock::NEVER } else { oldest }, self.most_idle.get());
        }
    }
}

/// The share of thread `lane` of `lanes` in `all`. The shares add up to `all`.
fn share(all: usize, lanes: usize, lane: usize) -> usize {
    all / lanes + usize::from(lane < all % lanes)
}

struct WaitingHere<'a>(&'a Cell<usize>);

impl<'a> WaitingHere<'a> {
    fn new(local: &'a LocalTarget) -> Self {
        local.waiting.set(local.waiting.get() + 1);
        Self(&local.waiting)
    }
}

impl Drop for WaitingHere<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// One claim of a target, given back when dropped.
#[derive(Debug)]
pub(in crate::proxy) struct Claim {
    pub(in crate::proxy) local: Rc<LocalTarget>,
    /// Its request was held: it counts among those that were let go.
    pub(in crate::proxy) pass: Option<Pass>,
}

impl Claim {
    #[inline(always)]
    pub(in crate::proxy) fn new(local: Rc<LocalTarget>, pinned: bool) -> Option<Self> {
        // Only a granted claim becomes one: dropping it gives back.
        if local.target.claim(local.lane, pinned) { Some(Self { local, pass: None }) } else { None }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.local.target.unclaim(self.local.lane);
    }
}

/// Whether a connect that failed may succeed a moment later: the app is being started again, or
/// this host lacks something for now.
pub(in crate::proxy) fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    !matches!(error.kind(), Kind::PermissionDenied | Kind::Unsupported | Kind::InvalidInput)
}
