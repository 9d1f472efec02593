//! The requests that wait on one thread: where, and when they are let go.
//!
//! State: a queue for each service that has any, owned by the thread's view of the board. It leaves
//! once nobody waits in it.

use std::rc::Rc;
use std::sync::Arc;

use super::{Here, UNREAD};
use crate::proxy::board::{Now, Service};
use crate::proxy::hold::{Queue, Room};

impl Here {
    /// Room for the bytes of a request that is to wait. `None`: all that wait have as many as they
    /// may.
    pub(in crate::proxy) fn room(&self, bytes: u64) -> Option<Room<'_>> {
        Room::take(self.board.held_bytes(), self.board.config().hold_memory, bytes)
    }

    /// Where the requests of `service` wait on this thread.
    pub(in crate::proxy) fn queue(&self, service: &Arc<Service>) -> Rc<Queue> {
        let new = || {
            let queue = Queue::new(service.queued().clone(), self.bells.clone(), self.lane);
            (service.clone(), queue)
        };
        self.queues.borrow_mut().entry(Arc::as_ptr(service)).or_insert_with(new).1.clone()
    }

    /// Lets those go that wait in `queue` for `service`, as far as it takes requests now.
    pub(in crate::proxy) fn let_go(&self, service: &Service, queue: &Queue) {
        let release = || service.config(&self.board.config()).hold.release;
        match &*service.now() {
            Now::Held(_) => queue.shut(),
            Now::One(_) => queue.open(release()),
            Now::Spread(spread) if !spread.members().is_empty() => {
                queue.open(release().saturating_mul(spread.members().len()));
            }
            Now::Empty | Now::Near | Now::Maintenance(_) | Now::Spread(_) => queue.dissolve(),
        }
    }

    /// Lets all of the thread's requests go that need not wait any more. Where none waits any more,
    /// the next ones do not come that way.
    pub(in crate::proxy) fn let_all_go(&self) {
        if self.queues.borrow().is_empty() {
            return;
        }
        let queues: Vec<_> = self.queues.borrow().values().cloned().collect();
        queues.iter().for_each(|(service, queue)| self.let_go(service, queue));
        for (service, queue) in queues {
            if queue.is_empty() {
                self.queues.borrow_mut().remove(&Arc::as_ptr(&service));
                self.read_anew(&service);
            }
        }
    }

    /// Has the next look at `service` read what the board says.
    fn read_anew(&self, service: &Arc<Service>) {
        let own = self.own.borrow();
        if Arc::ptr_eq(&own.service, service) {
            self.epoch.set(UNREAD);
        }
        let Some(apps) = &own.apps else { return };
        let seen = apps.seen.borrow();
        let its = seen.iter().flatten().filter(|seen| Arc::ptr_eq(&seen.service, service));
        its.for_each(|seen| seen.epoch.set(UNREAD));
    }
}
