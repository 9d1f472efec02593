//! Those who stay long with a target: tunnels and event streams. Who they are, and when each is to
//! leave once its target is on its way out.
//!
//! State: a [`Staying`] is owned by the tunnel or the answer; its target lists it for whoever asks,
//! and its thread's [`Stayers`] list it for the keeper, which wakes it when its moment has come. Both
//! forget it when it is dropped. A target's list is behind a lock that is taken when one comes, goes,
//! or is asked for, and never while bytes move.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use super::clock;
use super::parting::{Order, Turn};
use super::target::Target;

/// The longest path that is kept, in bytes.
const LONGEST_PATH: usize = 256;

/// What stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StayerKind {
    /// A WebSocket.
    WebSocket,
    /// Another tunnel.
    Tunnel,
    /// An event stream.
    EventStream,
}

impl StayerKind {
    /// That of a tunnel by which the protocol of this name is spoken.
    pub(super) fn of_tunnel(protocol: &[u8]) -> Self {
        if protocol.eq_ignore_ascii_case(b"websocket") { Self::WebSocket } else { Self::Tunnel }
    }
}

/// One who stays, as whoever asks sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stayer {
    /// What it is.
    pub kind: StayerKind,
    /// The address of its client.
    pub peer: IpAddr,
    /// The path that was asked for, without the query.
    pub path: String,
    /// For how long it has been there.
    pub age: Duration,
    /// How many bytes have passed, in both directions.
    pub bytes: u64,
}

/// Those who stay with one target.
#[derive(Debug, Default)]
pub(super) struct Guests {
    listed: Mutex<HashMap<u64, Arc<Entry>>>,
    number: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    kind: StayerKind,
    peer: IpAddr,
    path: Box<[u8]>,
    since: u64,
    bytes: AtomicU64,
}

impl Guests {
    /// Who is there at `now`; those who have been there longest first.
    pub(super) fn at(&self, now: u64) -> Vec<Stayer> {
        let stayer = |entry: &Arc<Entry>| Stayer {
            kind: entry.kind,
            peer: entry.peer,
            path: String::from_utf8_lossy(&entry.path).into_owned(),
            age: Duration::from_millis(now.saturating_sub(entry.since)),
            bytes: entry.bytes.load(Relaxed),
        };
        let mut all: Vec<_> = self.lock().values().map(stayer).collect();
        all.sort_by(|one, other| other.age.cmp(&one.age).then_with(|| one.path.cmp(&other.path)));
        all
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Entry>>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
        let path = path.split(|&byte| byte == b'?').next().unwrap_or_default();
        let path = path[..path.len().min(LONGEST_PATH)].into();
        let entry = Arc::new(Entry { kind, peer, path, since: clock::uptime(), bytes: AtomicU64::new(0) });
        let guests = target.guests();
        let number = guests.number.fetch_add(1, Relaxed);
        guests.lock().insert(number, Arc::clone(&entry));
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
        self.entry.kind
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
        // One thread alone writes it.
        self.entry.bytes.store(self.entry.bytes.load(Relaxed) + bytes as u64, Relaxed);
    }
}

impl Drop for Staying {
    fn drop(&mut self) {
        self.place.target.guests().lock().remove(&self.number);
        let mut listed = self.stayers.0.borrow_mut();
        let index = self.place.index.get();
        listed.swap_remove(index);
        if let Some(moved) = listed.get(index) {
            moved.index.set(index);
        }
    }
}
