//! The switchboard: which target is live.
//!
//! State: one atomic pointer, written through the one [`RouteWriter`] of the app, read without a lock by every
//! data-plane thread. A reader may still see the former target for a moment; that is harmless, because a
//! claim looks at the target's own flags ([`Target::retire`] comes after [`RouteWriter::route`]), and whoever sees
//! the flag also sees the new pointer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use arc_swap::cache::Cache;

use super::target::Target;

/// Reads where requests go: wait-free, one clone per data-plane thread.
#[derive(Debug, Clone)]
pub struct Switchboard {
    live: Arc<ArcSwapOption<Target>>,
    next_is_near: Arc<AtomicBool>,
}

/// One thread's view of the live target: reloaded only when the pointer changed.
pub(super) type Reader = Cache<Arc<ArcSwapOption<Target>>, Option<Arc<Target>>>;

impl Switchboard {
    pub(super) fn reader(&self) -> Reader {
        Cache::new(self.live.clone())
    }

    /// Whether a request that finds no target does well to wait for the next one. Looked at only then.
    pub(super) fn next_is_near(&self) -> bool {
        self.next_is_near.load(Ordering::Acquire)
    }
}

/// Writes where requests go. There is one per app and it cannot be cloned.
#[derive(Debug)]
pub struct RouteWriter {
    live: Arc<ArcSwapOption<Target>>,
    next_is_near: Arc<AtomicBool>,
}

impl RouteWriter {
    /// Makes `target` the live one and gives back the one it replaced, which is neither retired nor closed
    /// yet: the caller decides which (`retire` after a switch, `close` after a rollback). Each tenure has a target of its
    /// own: one that was retired or closed is never routed to again.
    pub fn route(&mut self, target: Option<Arc<Target>>) -> Option<Arc<Target>> {
        self.next_is_near.store(false, Ordering::Release);
        self.live.swap(target)
    }

    /// Takes the live target away and lets requests wait for the next one (up to the connect timeout, then 503):
    /// it crashed and is being started again, and its port may be anybody's meanwhile.
    pub fn hold(&mut self) -> Option<Arc<Target>> {
        self.next_is_near.store(true, Ordering::Release);
        self.live.swap(None)
    }
}

/// Makes a switchboard that points nowhere, and its only writer.
pub fn switchboard() -> (Switchboard, RouteWriter) {
    let live = Arc::new(ArcSwapOption::empty());
    let near = Arc::new(AtomicBool::new(false));
    (Switchboard { live: live.clone(), next_is_near: near.clone() }, RouteWriter { live, next_is_near: near })
}
