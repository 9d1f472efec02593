//! The switchboard: where an app's requests go now.
//!
//! State: one atomic pointer to a [`Now`], written through the one [`RouteWriter`] of the app, read without a lock by
//! every data-plane thread. That an app is held and that it serves are values of the same pointer, so no reader sees
//! neither of them while one follows the other. A reader may still see the former target for a moment; that is
//! harmless, because a claim looks at the target's own flags ([`Target::retire`] comes after [`RouteWriter::route`]),
//! and a reader that sees the flag also sees the new pointer.

use std::sync::Arc;

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;

use super::target::Target;

/// Where requests go now.
#[derive(Debug)]
pub(super) enum Now {
    /// Nowhere: a request gets 503.
    Empty,
    /// The next target is near: a request waits for it, up to the connect timeout.
    Held,
    /// To this target.
    One(Arc<Target>),
}

/// Reads where requests go: wait-free, one clone per data-plane thread.
#[derive(Debug, Clone)]
pub struct Switchboard {
    now: Arc<ArcSwap<Now>>,
}

/// One thread's view of the switchboard: reloaded only when the pointer changed.
pub(super) type Reader = Cache<Arc<ArcSwap<Now>>, Arc<Now>>;

impl Switchboard {
    pub(super) fn reader(&self) -> Reader {
        Cache::new(self.now.clone())
    }
}

/// Writes where requests go. There is one per app and it cannot be cloned.
#[derive(Debug)]
pub struct RouteWriter {
    now: Arc<ArcSwap<Now>>,
}

impl RouteWriter {
    /// Makes `target` the live one and gives back the one it replaced, which is neither retired nor closed
    /// yet: the caller decides which (`retire` after a switch, `close` after a rollback). Each tenure has a target of its
    /// own: one that was retired or closed is never routed to again.
    pub fn route(&mut self, target: Option<Arc<Target>>) -> Option<Arc<Target>> {
        self.set(target.map_or(Now::Empty, Now::One))
    }

    /// Takes the live target away and lets requests wait for the next one (up to the connect timeout, then 503):
    /// it crashed and is being started again, and its port may be anybody's meanwhile.
    pub fn hold(&mut self) -> Option<Arc<Target>> {
        self.set(Now::Held)
    }

    fn set(&mut self, now: Now) -> Option<Arc<Target>> {
        match &*self.now.swap(Arc::new(now)) {
            Now::One(former) => Some(former.clone()),
            Now::Empty | Now::Held => None,
        }
    }
}

/// Makes a switchboard that points nowhere, and its only writer.
pub fn switchboard() -> (Switchboard, RouteWriter) {
    let now = Arc::new(ArcSwap::from_pointee(Now::Empty));
    (Switchboard { now: now.clone() }, RouteWriter { now })
}
