//! The targets that a client connection stays with (`drain.affinity`): at most one of each app.
//!
//! State: owned by the connection. A pin ends with it, or when the connection leaves the target.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::board::Service;
use super::upstream::pool::LocalTarget;

/// The pins of one client connection. No pin needs no memory, and most connections that have any
/// have one.
#[derive(Debug, Default)]
pub(super) struct Pins(RefCell<Option<Box<Pin>>>);

/// A pin to a target, which counts it.
#[derive(Debug)]
struct Pin {
    local: Rc<LocalTarget>,
    next: Option<Box<Self>>,
}

impl Pins {
    /// The target of `service` that the connection stays with.
    pub(super) fn of(&self, service: &Arc<Service>) -> Option<Rc<LocalTarget>> {
        let pins = self.0.borrow();
        let mut pins = std::iter::successors(pins.as_deref(), |pin| pin.next.as_deref());
        pins.find(|pin| Arc::ptr_eq(&pin.local.service, service)).map(|pin| pin.local.clone())
    }

    /// Stays with `local` from now on, and no longer with another target of its service.
    pub(super) fn pin(&self, local: Rc<LocalTarget>) {
        self.leave(&local.service);
        local.target.pin(local.lane);
        let mut first = self.0.borrow_mut();
        let next = first.take();
        *first = Some(Box::new(Pin { local, next }));
    }

    /// Stays with no target of `service`.
    pub(super) fn leave(&self, service: &Arc<Service>) {
        self.retain(|local| !Arc::ptr_eq(&local.service, service));
    }

    /// Leaves the targets for which `stays` is false.
    pub(super) fn retain(&self, stays: impl Fn(&LocalTarget) -> bool) {
        let mut left = self.0.borrow_mut().take();
        while let Some(mut pin) = left {
            left = pin.next.take();
            if stays(&pin.local) {
                let mut first = self.0.borrow_mut();
                pin.next = first.take();
                *first = Some(pin);
            }
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.local.target.unpin(self.local.lane);
        // One after the other: a long list must not take the stack.
        let mut next = self.next.take();
        while let Some(mut pin) = next {
            next = pin.next.take();
        }
    }
}
