//! One data-plane thread: what its tasks share, the list of its client connections, and its keeper.
//!
//! State: everything here belongs to one thread and is reached through one `Rc`; nothing is locked. It is made
//! when the thread starts and dropped with it. No borrow is held over an await.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;

use super::Reserved;
use super::clock;
use super::connection::ClientConnection;
use super::crowd::Crowd;
use super::guests::Guests;
use super::here::Here;
use super::settings::Settings;
use super::spares::Spares;
use super::stats::{Shard, Stats};
use super::switchboard::Switchboard;
use super::upstream::pool::Doorbells;
use crate::config::Config;

/// What a thread is made of.
pub(super) struct WorkerParts {
    pub(super) lane: usize,
    pub(super) config: watch::Receiver<Arc<Config>>,
    pub(super) switchboard: Switchboard,
    pub(super) stats: Arc<Stats>,
    pub(super) reserved: Arc<dyn Reserved>,
    pub(super) bells: Arc<Doorbells>,
    pub(super) crowd: Arc<Crowd>,
}

/// How far a drain goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Until every connection and tunnel has ended.
    Empty,
    /// Until only tunnels are left, which may stay for as long as their two ends like.
    OnlyTunnels,
}

/// What the tasks of one thread share.
pub(super) struct Worker {
    /// The thread's number: its place in all counters that are kept per thread.
    pub(super) lane: usize,
    pub(super) stats: Arc<Stats>,
    pub(super) reserved: Arc<dyn Reserved>,
    pub(super) here: Here,
    pub(super) guests: Guests,
    pub(super) spares: Spares,
    /// Made of the configuration that was in force at the last look.
    settings: RefCell<Rc<Settings>>,
    config: RefCell<watch::Receiver<Arc<Config>>>,
    connections: RefCell<Vec<Rc<ClientConnection>>>,
    /// Rings when a connection has ended or become a tunnel.
    fewer: Notify,
    draining: Cell<bool>,
    bells: Arc<Doorbells>,
}

impl Worker {
    /// Makes a thread's state, and starts the task that keeps it.
    pub(super) fn start(parts: WorkerParts) -> Rc<Self> {
        let WorkerParts { lane, mut config, switchboard, stats, reserved, bells, crowd } = parts;
        clock::advance(stats.uptime());
        let settings = Rc::new(Settings::new(config.borrow_and_update().clone()));
        let worker = Rc::new(Self {
            lane,
            here: Here::new(lane, &switchboard, bells.clone()),
            guests: Guests::new(crowd, stats.clone()),
            spares: Spares::default(),
            stats,
            reserved,
            settings: RefCell::new(settings),
            config: RefCell::new(config),
            connections: RefCell::default(),
            fewer: Notify::new(),
            draining: Cell::new(false),
            bells,
        });
        tokio::task::spawn_local(worker.clone().keep());
        worker
    }

    /// The configuration in force. Once a reload has been answered, every look finds the new one. Costs one atomic
    /// load while nothing has changed.
    pub(super) fn settings(&self) -> Rc<Settings> {
        // An error means that the sender has gone: the last configuration stays in force.
        if self.config.borrow().has_changed().unwrap_or(false) {
            let config = self.config.borrow_mut().borrow_and_update().clone();
            self.settings.replace(Rc::new(Settings::new(config)));
        }
        self.settings.borrow().clone()
    }

    /// This thread's counters.
    pub(super) fn shard(&self) -> &Shard {
        self.stats.shard(self.lane)
    }

    /// Lists a connection until the guard is dropped.
    pub(super) fn list(self: &Rc<Self>, client: Rc<ClientConnection>) -> Listed {
        let mut connections = self.connections.borrow_mut();
        client.index.set(connections.len());
        connections.push(client.clone());
        self.shard().client_opened();
        Listed { worker: self.clone(), client }
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
            let over = {
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
            clock::advance(self.stats.uptime());
            if ticked {
                self.sweep_connections();
                self.stats.sample_inflight();
            }
            self.here.sweep(&self.settings().app.upstream);
        }
    }

    fn sweep_connections(&self) {
        let settings = self.settings();
        self.connections.borrow().iter().for_each(|client| client.sweep(&settings, self.draining.get()));
    }
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
            worker.stats.error(worker.lane, "internal", "a connection was lost to a panic".to_owned());
        }
        let mut connections = worker.connections.borrow_mut();
        let index = self.client.index.get();
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
