//! What a client connection stays with (`drain.affinity`): at most one target, or one set of
//! several, of each app. In a set it may get any member.
//!
//! State: owned by the connection. A pin ends with it, or when the connection leaves its target or
//! set. A pin to a set counts at each of its members.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::balance::Members;
use super::board::Service;
use super::upstream::pool::LocalTarget;

/// The pins of one client connection. No pin needs no memory, and most connections that have any
/// have one.
#[derive(Debug, Default)]
pub(super) struct Pins(RefCell<Option<Box<Pin>>>);

/// Where a connection stays.
#[derive(Debug, Clone)]
pub(super) enum Stay {
    With(Rc<LocalTarget>),
    Among(Rc<Members>),
}

impl Stay {
    fn locals(&self) -> &[Rc<LocalTarget>] {
        match self {
            Self::With(local) => std::slice::from_ref(local),
            Self::Among(members) => members.locals(),
        }
    }

    /// The service that it belongs to.
    pub(super) fn service(&self) -> &Arc<Service> {
        &self.locals()[0].service
    }

    /// Whether nobody may claim anything of it any more.
    pub(super) fn is_closed(&self) -> bool {
        self.locals().iter().all(|local| local.target.is_closed())
    }
}

/// A pin, which counts.
#[derive(Debug)]
struct Pin {
    stay: Stay,
    next: Option<Box<Self>>,
}

impl Pins {
    /// What of `service` the connection stays with.
    pub(super) fn of(&self, service: &Arc<Service>) -> Option<Stay> {
        let pins = self.0.borrow();
        let mut pins = std::iter::successors(pins.as_deref(), |pin| pin.next.as_deref());
        pins.find(|pin| Arc::ptr_eq(pin.stay.service(), service)).map(|pin| pin.stay.clone())
    }

    /// Stays there from now on, and nowhere else of its service.
    pub(super) fn pin(&self, stay: Stay) {
        self.leave(stay.service());
        stay.locals().iter().for_each(|local| local.target.pin(local.lane));
        let mut first = self.0.borrow_mut();
        let next = first.take();
        *first = Some(Box::new(Pin { stay, next }));
    }

    /// Stays with nothing of `service`.
    pub(super) fn leave(&self, service: &Arc<Service>) {
        self.retain(|stay| !Arc::ptr_eq(stay.service(), service));
    }

    /// Leaves that for which `stays` is false.
    pub(super) fn retain(&self, stays: impl Fn(&Stay) -> bool) {
        let mut left = self.0.borrow_mut().take();
        while let Some(mut pin) = left {
            left = pin.next.take();
            if stays(&pin.stay) {
                let mut first = self.0.borrow_mut();
                pin.next = first.take();
                *first = Some(pin);
            }
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.stay.locals().iter().for_each(|local| local.target.unpin(local.lane));
        // One after the other: a long list must not take the stack.
        let mut next = self.next.take();
        while let Some(mut pin) = next {
            next = pin.next.take();
        }
    }
}
