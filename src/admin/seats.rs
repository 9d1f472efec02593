//! Who may keep a connection to the admin socket.
//!
//! Idle connections must not keep anybody out. So there is a bound for all connections and a lower
//! one for each user, and when one is reached, the connection that has been idle for the longest
//! time makes room for the new one. If every connection is being answered, the new one gets no
//! seat.
//!
//! [`Seats`] belongs to the loop that accepts; each connection keeps its [`Seat`] until it ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

/// The connections that are open.
#[derive(Debug)]
pub(super) struct Seats {
    all: usize,
    each: usize,
    taken: Vec<Weak<Seat>>,
}

/// One connection's seat; given back when its last owner drops it.
#[derive(Debug)]
pub(super) struct Seat {
    uid: u32,
    /// Since when the connection is idle; `None` while a request is answered.
    idle: Mutex<Option<Instant>>,
    /// Cancelled when another connection needs the seat.
    leave: CancellationToken,
}

impl Seats {
    /// Seats for `all` connections, three quarters of which one user may have.
    pub(super) fn new(all: usize) -> Self {
        Self { all, each: (all * 3 / 4).max(1), taken: Vec::new() }
    }

    /// A seat for a connection of `uid`, if need be that of an idle one.
    pub(super) fn take(&mut self, uid: u32) -> Option<Arc<Seat>> {
        self.taken.retain(|seat| seat.upgrade().is_some_and(|seat| !seat.leave.is_cancelled()));
        let own = |seat: &Seat| seat.uid == uid;
        if self.count(own) >= self.each {
            self.make_room(own)?;
        } else if self.count(|_| true) >= self.all {
            self.make_room(|_| true)?;
        }
        let seat =
            Arc::new(Seat { uid, idle: Mutex::new(Some(Instant::now())), leave: CancellationToken::new() });
        self.taken.push(Arc::downgrade(&seat));
        Some(seat)
    }

    fn count(&self, of: impl Fn(&Seat) -> bool) -> usize {
        self.taken.iter().filter_map(Weak::upgrade).filter(|seat| of(seat)).count()
    }

    /// Ends the connection that has been idle for the longest time; `None` if none is.
    fn make_room(&self, of: impl Fn(&Seat) -> bool) -> Option<()> {
        let seats = self.taken.iter().filter_map(Weak::upgrade).filter(|seat| of(seat));
        let idle = seats.filter_map(|seat| {
            let since = *seat.idle();
            since.map(|since| (since, seat))
        });
        let (_, longest) = idle.min_by_key(|(since, _)| *since)?;
        longest.leave.cancel();
        Some(())
    }
}

impl Seat {
    fn idle(&self) -> MutexGuard<'_, Option<Instant>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection is busy, until the guard is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        *self.idle() = None;
        Busy(Arc::clone(self))
    }

    /// Ends when another connection needs the seat.
    pub(super) async fn needed(&self) {
        self.leave.cancelled().await;
    }
}

/// A connection whose request is being answered.
#[derive(Debug)]
pub(super) struct Busy(Arc<Seat>);

impl Drop for Busy {
    fn drop(&mut self) {
        *self.0.idle() = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_asks_nothing_for_the_longest_time_makes_room() {
        let mut seats = Seats::new(4);
        let own: Vec<_> = (0..3).map(|_| seats.take(7).unwrap()).collect();
        let busy = own[0].busy();
        let fourth = seats.take(7).expect("the second has asked nothing");
        let left =
            |seats: &[Arc<Seat>]| seats.iter().map(|seat| seat.leave.is_cancelled()).collect::<Vec<_>>();
        assert_eq!(left(&own), [false, true, false]);
        let other = seats.take(8).expect("the bound of one user leaves room for another");
        // The first has been idle since now, the third for longer.
        drop(busy);
        let _fifth = seats.take(9).expect("the third makes room");
        assert_eq!(left(&own), [false, true, true]);
        assert!(!fourth.leave.is_cancelled() && !other.leave.is_cancelled());
    }

    #[test]
    fn who_is_being_answered_makes_no_room_and_who_has_left_does() {
        let mut seats = Seats::new(4);
        let own: Vec<_> = (0..3).map(|_| seats.take(7).unwrap()).collect();
        let busy: Vec<_> = own.iter().map(Seat::busy).collect();
        assert!(seats.take(7).is_none());
        let other = seats.take(8).unwrap();
        let _other_busy = other.busy();
        assert!(seats.take(9).is_none());
        drop((own, busy));
        assert!(seats.take(7).is_some());
    }
}
