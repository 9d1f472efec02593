//! Those who stay long with a target: tunnels and event streams. Who they are, and when each is to
//! leave once its target is on its way out.
//!
//! State: a [`Staying`] is owned by the tunnel or the answer; its target lists it for whoever asks,
//! and its thread's [`Stayers`] list it for the keeper, which wakes it when its moment has come.
//! Both forget it when it is dropped.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

use super::clock;
use super::parting::{Order, Turn};
use super::stayer::{Entry, StayerKind};
use super::target::Target;

/// Those of one thread.
#[derive(Debug, Default)]
pub(super) struct Stayers(RefCell<Vec<Rc<Place>>>);

/// One of them, on its thread.
#[derive(Debug)]
struct Place {
    target: Arc<Target>,
    /// When it is its turn to leave, once that has been asked for.
    turn: Cell<Option<Turn>>,
    /// What it was told last.
    order: Cell<Order>,
    waker: RefCell<Option<Waker>>,
    index: Cell<usize>,
}

impl Place {
    fn look(&self, now: u64) -> Order {
        let Some(parting) = self.target.parting() else { return Order::Stay };
        let turn = self.turn.get().unwrap_or_else(|| parting.turn());
        self.turn.set(Some(turn));
        parting.order(now, turn)
    }
}

impl Stayers {
    /// Wakes those whose moment has come.
    pub(super) fn sweep(&self) {
        let now = clock::uptime();
        for place in &*self.0.borrow() {
            let order = place.look(now);
            if place.order.replace(order) != order
                && let Some(waker) = &*place.waker.borrow()
            {
                waker.wake_by_ref();
            }
        }
    }
}

/// One who stays, while the guard lives.
#[derive(Debug)]
pub(super) struct Staying {
    stayers: Rc<Stayers>,
    place: Rc<Place>,
    number: u64,
    entry: Arc<Entry>,
}

impl Staying {
    /// A client at `peer` that has asked for `path` stays with `target`.
    pub(super) fn begin(
        stayers: &Rc<Stayers>,
        target: &Arc<Target>,
        kind: StayerKind,
        peer: IpAddr,
        path: &[u8],
    ) -> Self {
        let (number, entry) = target.stayer_list().enter(kind, peer, path);
        let mut listed = stayers.0.borrow_mut();
        let place = Rc::new(Place {
            target: Arc::clone(target),
            turn: Cell::new(None),
            order: Cell::new(Order::Stay),
            waker: RefCell::default(),
            index: Cell::new(listed.len()),
        });
        listed.push(Rc::clone(&place));
        drop(listed);
        Self { stayers: Rc::clone(stayers), place, number, entry }
    }

    /// What it is.
    pub(super) fn kind(&self) -> StayerKind {
        self.entry.kind()
    }

    /// What is to become of it. `waker` is woken when that changes.
    pub(super) fn order(&self, waker: &Waker) -> Order {
        let mut known = self.place.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
        self.place.order.get()
    }

    /// Notes bytes that have passed.
    pub(super) fn moved(&self, bytes: usize) {
        self.entry.moved(bytes);
    }
}

impl Drop for Staying {
    fn drop(&mut self) {
        self.place.target.stayer_list().strike(self.number);
        let mut listed = self.stayers.0.borrow_mut();
        let index = self.place.index.get();
        listed.swap_remove(index);
        if let Some(moved) = listed.get(index) {
            moved.index.set(index);
        }
    }
}
