//! Who has a connection to the admin socket, so that nobody is kept out by connections that ask nothing.
//!
//! [`Seats`] belongs to the loop that accepts; each connection keeps its [`Seat`] until it ends. There is a bound for all and
//! a lower one for each user. At a bound the connection that has asked nothing for the longest time makes room for the new
//! one; where all of them are being answered, the new one finds none.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

/// The connections there are.
#[derive(Debug)]
pub(super) struct Seats {
    all: usize,
    each: usize,
    taken: Vec<Weak<Seat>>,
}

/// One connection's place; given back when the last owner drops it.
#[derive(Debug)]
pub(super) struct Seat {
    uid: u32,
    /// Since when nothing is asked; `None` while a request is answered.
    idle: Mutex<Option<Instant>>,
    /// Somebody else needs the place.
    leave: CancellationToken,
}

impl Seats {
    /// Room for `all` connections, for three quarters of them of one user.
    pub(super) fn new(all: usize) -> Self {
        Self { all, each: (all * 3 / 4).max(1), taken: Vec::new() }
    }

    /// A place for a connection of `uid`, if need be that of one that asks nothing.
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

    /// A request is answered until the guard is dropped.
    pub(super) fn asked(self: &Arc<Self>) -> Asked {
        *self.idle() = None;
        Asked(Arc::clone(self))
    }

    /// Ends when somebody else needs the place.
    pub(super) async fn needed(&self) {
        self.leave.cancelled().await;
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Asked(Arc<Seat>);

impl Drop for Asked {
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
        let asked = own[0].asked();
        let fourth = seats.take(7).expect("the second has asked nothing");
        let left =
            |seats: &[Arc<Seat>]| seats.iter().map(|seat| seat.leave.is_cancelled()).collect::<Vec<_>>();
        assert_eq!(left(&own), [false, true, false]);
        let other = seats.take(8).expect("the bound of one user leaves room for another");
        // The first has been idle since now, the third for longer.
        drop(asked);
        let _fifth = seats.take(9).expect("the third makes room");
        assert_eq!(left(&own), [false, true, true]);
        assert!(!fourth.leave.is_cancelled() && !other.leave.is_cancelled());
    }

    #[test]
    fn who_is_being_answered_makes_no_room_and_who_has_left_does() {
        let mut seats = Seats::new(4);
        let own: Vec<_> = (0..3).map(|_| seats.take(7).unwrap()).collect();
        let asked: Vec<_> = own.iter().map(Seat::asked).collect();
        assert!(seats.take(7).is_none());
        let other = seats.take(8).unwrap();
        let _other_asked = other.asked();
        assert!(seats.take(9).is_none());
        drop((own, asked));
        assert!(seats.take(7).is_some());
    }
}
