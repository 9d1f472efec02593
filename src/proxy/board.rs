//! The board: where requests go now, and by which configuration they are served.
//!
//! State: an epoch, and the pointers that it covers: the configuration, which the
//! [`Plane`](super::Plane) writes, and each service's [`Now`], which its [`RouteWriter`] writes.
//! Every data-plane thread reads them through a view of its own (`here.rs`), without a lock. The
//! board lives as long as anybody uses it.
//!
//! The orderings that matter:
//! - *publish*: the pointer is stored, then the epoch is counted up, and only then is a former
//!   target retired or closed;
//! - *look*: the epoch is read first, the pointers after it, and the view keeps the epoch that was
//!   read. A pointer stored in between is at most newer than the view's epoch, so the next look
//!   reads it again;
//! - *claim*: a view may still name a former target. It refuses the claim once it is retired or
//!   closed, and whoever sees that flag also sees the epoch that was counted up before it: the look
//!   that follows finds the new pointer.
//!
//! That an app is held and that it serves are values of one pointer, so nobody sees neither of them
//! while one follows the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::counters::ServiceCounters;
use super::target::Target;
use crate::config::Config;

/// Where a service's requests go now.
///
/// Requests that are spread over several targets will be one more variant, beside [`Now::One`]: a
/// single target is the fast path and never pays for it.
#[derive(Debug)]
pub enum Now {
    /// Nowhere: a request gets 503.
    Empty,
    /// The next target is near: a request waits for it, up to the connect timeout, then gets 503.
    /// Published while a crashed app is started again, because its port may be anybody's meanwhile.
    Held,
    /// To this target. Each tenure has a target of its own: one that was retired or closed is never
    /// published again.
    One(Arc<Target>),
}

/// An app as the data plane knows it.
#[derive(Debug)]
pub(super) struct Service {
    now: ArcSwap<Now>,
    counters: Arc<ServiceCounters>,
}

impl Service {
    /// Where its requests go now. Part of a look: the epoch is read before.
    pub(super) fn now(&self) -> Arc<Now> {
        self.now.load_full()
    }

    pub(super) fn counters(&self) -> &Arc<ServiceCounters> {
        &self.counters
    }
}

/// What all data-plane threads read.
#[derive(Debug)]
pub struct Board {
    epoch: AtomicU64,
    config: ArcSwap<Config>,
    service: Service,
}

impl Board {
    /// A board with one service, whose requests go nowhere yet, and that service's only writer.
    pub fn new(config: Arc<Config>, counters: Arc<ServiceCounters>) -> (Arc<Self>, RouteWriter) {
        let service = Service { now: ArcSwap::from_pointee(Now::Empty), counters };
        let config = ArcSwap::new(config);
        let board = Arc::new(Self { epoch: AtomicU64::new(0), config, service });
        (board.clone(), RouteWriter { board })
    }

    /// Counts what was published. A request pays for this load and a comparison.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// The one service.
    pub(super) fn service(&self) -> &Service {
        &self.service
    }

    /// Publishes `config`: every look from now on finds it.
    pub(super) fn configure(&self, config: Arc<Config>) {
        self.config.store(config);
        self.advance();
    }

    fn advance(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }
}

/// Writes where the requests of one service go. There is one per service and it cannot be cloned.
#[derive(Debug)]
pub struct RouteWriter {
    board: Arc<Board>,
}

impl RouteWriter {
    /// Publishes `now` and returns the target that it replaces, which is neither retired nor closed
    /// yet: the caller decides which (`retire` after a switch, `close` after a rollback).
    pub fn set(&mut self, now: Now) -> Option<Arc<Target>> {
        let former = self.board.service.now.swap(Arc::new(now));
        self.board.advance();
        match &*former {
            Now::One(target) => Some(target.clone()),
            Now::Empty | Now::Held => None,
        }
    }
}
