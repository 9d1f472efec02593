//! One data-plane thread: what its tasks share, the list of its client connections, and its keeper.
//!
//! State: everything here belongs to one thread and is reached through one `Rc`; nothing is locked.
//! It is made when the thread starts and dropped with it. No borrow is held over an await.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::Reserved;
use super::bells::Doorbells;
use super::board::Board;
use super::clock;
use super::connection::ClientConnection;
use super::counters::{ConnectionLane, Counters};
use super::guests::Guests;
use super::here::Here;
use super::spares::Spares;
use super::stayers::Stayers;
use crate::tls::Face;

/// What a thread is made of.
pub(super) struct WorkerParts {
    pub(super) lane: usize,
    pub(super) board: Arc<Board>,
    pub(super) counters: Arc<Counters>,
    pub(super) reserved: Arc<dyn Reserved>,
    pub(super) bells: Arc<Doorbells>,
}

/// How far a drain goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Until every connection and tunnel has ended.
    Empty,
    /// Until only tunnels are left, which may stay for as long as their two ends like.
    OnlyTunnels,
}

/// When the last sweeps of the connections were, the oldest first.
///
/// Which connection is quiet is counted in sweeps. By the clock all are, after a moment in which
/// the whole machine stood still; but that moment lies between two sweeps.
#[derive(Debug, Clone, Copy, Default)]
struct Sweeps([u64; 3]);

impl Sweeps {
    /// These and one more.
    fn and(self, now: u64) -> Self {
        let Self([_, older, last]) = self;
        Self([older, last, now])
    }

    /// What has waited since this moment, or longer, is quiet.
    fn quiet(self) -> u64 {
        self.0[0]
    }
}

/// What the tasks of one thread share.
pub(super) struct Worker {
    /// The thread's number: its place in all counters that are kept per thread.
    lane: usize,
    counters: Arc<Counters>,
    pub(super) reserved: Arc<dyn Reserved>,
    face: Arc<Face>,
    pub(super) here: Here,
    pub(super) guests: Guests,
    pub(super) spares: Spares,
    connections: RefCell<Vec<Rc<ClientConnection>>>,
    /// How many have come of which it is not known yet who their clients are.
    arriving: Cell<usize>,
    /// Rings when a connection has ended or become a tunnel.
    fewer: Notify,
    draining: Cell<bool>,
    /// The place of the connection that the next sweep begins with.
    next: Cell<usize>,
    swept: Cell<Sweeps>,
    /// Its tunnels and event streams.
    pub(super) stayers: Rc<Stayers>,
    bells: Arc<Doorbells>,
}

impl Worker {
    /// Makes a thread's state, and starts the task that keeps it.
    pub(super) fn start(parts: WorkerParts) -> Rc<Self> {
        let WorkerParts { lane, board, counters, reserved, bells } = parts;
        clock::advance(counters.uptime());
        let worker = Rc::new(Self {
            lane,
            face: Arc::clone(board.face()),
            guests: Guests::new(board.own().crowd().clone(), counters.clone()),
            here: Here::new(lane, board, bells.clone()),
            spares: Spares::default(),
            counters,
            reserved,
            connections: RefCell::default(),
            arriving: Cell::new(0),
            fewer: Notify::new(),
            draining: Cell::new(false),
            next: Cell::new(0),
            swept: Cell::default(),
            stayers: Rc::default(),
            bells,
        });
        tokio::task::spawn_local(worker.clone().keep());
        worker
    }

    /// What this thread counts of client connections.
    fn counts(&self) -> &ConnectionLane {
        self.counters.lane(self.lane)
    }

    /// What clients are shown over TLS.
    pub(super) fn face(&self) -> &Arc<Face> {
        &self.face
    }

    /// Lists a connection until the guard is dropped.
    pub(super) fn list(self: &Rc<Self>, client: Rc<ClientConnection>) -> Listed {
        let mut connections = self.connections.borrow_mut();
        client.index.set(connections.len());
        connections.push(client.clone());
        if client.connection().is_none() {
            self.counts().opened();
        }
        Listed { worker: self.clone(), client }
    }

    /// Counts a connection that is not listed yet, until the guard is dropped: the thread waits for it.
    pub(super) fn arrives(&self) -> Arriving<'_> {
        self.arriving.set(self.arriving.get() + 1);
        Arriving(self)
    }

    /// From now on connections close as soon as they have nothing under way.
    pub(super) fn drain(&self) {
        self.draining.set(true);
        self.sweep_connections();
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Waits until no more is left than `until` says. Without a deadline: the daemon has one.
    pub(super) async fn drained(&self, until: Until) {
        loop {
            let fewer = self.fewer.notified();
            let over = self.arriving.get() == 0 && {
                let connections = self.connections.borrow();
                match until {
                    Until::Empty => connections.is_empty(),
                    Until::OnlyTunnels => connections.iter().all(|client| client.is_tunnel()),
                }
            };
            if over {
                return;
            }
            fewer.await;
        }
    }

    /// Notes that a connection has become a tunnel.
    pub(super) fn tunnelled(&self) {
        self.fewer.notify_waiters();
    }

    /// The keeper: moves the clock and sweeps connections and targets, until the thread ends.
    async fn keep(self: Rc<Self>) {
        let mut tick = tokio::time::interval(clock::TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let ticked = tokio::select! {
                _ = tick.tick() => true,
                () = self.bells.0[self.lane].notified() => false,
            };
            clock::advance(self.counters.uptime());
            self.here.let_all_go();
            if ticked {
                self.stayers.sweep();
                self.sweep_connections();
                self.swept.set(self.swept.get().and(clock::now()));
                self.here.sample_inflight();
            }
            self.here.sweep();
        }
    }

    /// Sweeps the connections: all of them while the thread stops, else as many as it is the turn of.
    fn sweep_connections(&self) {
        let service = self.here.look();
        let connections = self.connections.borrow();
        let (part, quiet) = match self.draining.get() {
            true => (0..connections.len(), Some(self.swept.get().quiet())),
            false => (part_of(connections.len(), self.next.get()), None),
        };
        self.next.set(part.end);
        connections[part].iter().for_each(|client| client.sweep(&service.settings, quiet));
    }
}

/// A connection that is not listed yet.
pub(super) struct Arriving<'w>(&'w Worker);

impl Drop for Arriving<'_> {
    fn drop(&mut self) {
        self.0.arriving.set(self.0.arriving.get() - 1);
        if self.0.draining.get() {
            self.0.fewer.notify_waiters();
        }
    }
}

/// Which of `count` connections a sweep looks at that begins with `next`. Of many it is a quarter, so
/// that a deadline is at most half a second late and tens of thousands that are idle cost little.
fn part_of(count: usize, next: usize) -> Range<usize> {
    const FEW: usize = 1024;
    let begin = if next < count { next } else { 0 };
    begin..count.min(begin + count.div_ceil(4).max(FEW))
}

/// Keeps a connection in its thread's list.
pub(super) struct Listed {
    worker: Rc<Worker>,
    client: Rc<ClientConnection>,
}

impl Listed {
    pub(super) fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    pub(super) fn client(&self) -> &Rc<ClientConnection> {
        &self.client
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let worker = &self.worker;
        if std::thread::panicking() {
            tracing::error!(peer = %self.client.peer, "a client connection was lost to a fault of portok itself");
            let what = "a connection was lost to a panic".to_owned();
            worker.counters.service().error(worker.lane, "internal", what);
        }
        let mut connections = worker.connections.borrow_mut();
        let index = self.client.index.get();
        connections.swap_remove(index);
        if let Some(moved) = connections.get(index) {
            moved.index.set(index);
        }
        if self.client.connection().is_none() {
            worker.counts().closed();
        }
        if worker.draining.get() {
            worker.fewer.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use super::super::settings::Settings;
    use super::super::tests;
    use super::*;
    use crate::proxy::crowd::{Crowd, Visit};

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn few_connections_are_swept_at_once_and_of_many_each_in_turn() {
        for (count, turns) in [(0, 1), (1, 1), (1024, 1), (1025, 2), (4096, 4), (50_001, 4)] {
            let (mut taken, mut next) = (0, 0);
            while taken == 0 || next < count {
                let part = part_of(count, next);
                assert_eq!(part.start, next, "none is left out");
                (taken, next) = (taken + 1, part.end);
            }
            assert_eq!((taken, next), (turns, count));
        }
        assert_eq!(part_of(10, 4000), 0..10, "most of them have ended");
    }

    #[test]
    fn a_moment_in_which_the_machine_stood_still_makes_no_connection_quiet() {
        let config = Arc::new(tests::config());
        let settings = Settings::new(config.clone(), config.app.clone(), None, &Arc::default());
        let visit = Visit::begin(Crowd::of(None).guest(PEER), 1, 1).unwrap();
        let client = ClientConnection::new((PEER, 1).into(), tests::door(), visit);
        let mut swept = Sweeps::default();
        let mut sweep = |milliseconds| {
            clock::advance(Duration::from_millis(milliseconds));
            client.sweep(&settings, Some(swept.quiet()));
            swept = swept.and(clock::now());
            client.is_to_close()
        };
        assert!(!sweep(100) && !sweep(200) && !sweep(300));
        client.begin();
        client.end();
        assert!(!sweep(400) && !sweep(9400), "it may send the next request in this very moment");
        assert!(sweep(9500), "it has waited for a whole tick");
    }
}
