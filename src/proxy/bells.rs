//! How the threads of the data plane are woken from outside: each has a bell, which its keeper
//! hears.

use tokio::sync::Notify;

/// The bells of all threads.
#[derive(Debug)]
pub(super) struct Doorbells(pub(super) Box<[Notify]>);

impl Doorbells {
    /// Wakes the keepers of all threads but one.
    pub(super) fn ring(&self, but: usize) {
        self.0.iter().enumerate().filter(|(lane, _)| *lane != but).for_each(|(_, bell)| bell.notify_one());
    }

    /// Wakes the keepers of all threads.
    pub(super) fn ring_all(&self) {
        self.0.iter().for_each(Notify::notify_one);
    }

    /// Wakes the keeper of one thread.
    pub(super) fn ring_at(&self, lane: usize) {
        self.0[lane].notify_one();
    }

    /// How many threads there are.
    pub(super) fn lanes(&self) -> usize {
        self.0.len()
    }
}
