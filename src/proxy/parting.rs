//! When those leave a target who would stay: its tunnels and event streams, once it is on its way
//! out. Pure.
//!
//! They have a time of their own (`drain.tunnels`). In its last half each is asked to leave at a
//! moment of its own, so that not all come back at once; at its end whoever is left is cut. Moments
//! are those of the clock that all threads share.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::clock;

/// The golden ratio's fraction, of 2^64: its multiples fall evenly into any part of a whole,
/// however many there are.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// How long whoever leaves last has for it, in milliseconds: at least, and at most.
const ANSWER: (u64, u64) = (250, 1_000);

/// When they leave. Written by the coordinator, read by all threads.
#[derive(Debug)]
pub(super) struct Parting {
    from: AtomicU64,
    until: AtomicU64,
    /// How many have a turn.
    turns: AtomicU64,
}

impl Default for Parting {
    fn default() -> Self {
        Self {
            from: AtomicU64::new(clock::NEVER),
            until: AtomicU64::new(clock::NEVER),
            turns: AtomicU64::new(0),
        }
    }
}

/// What is to become of one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Stay,
    /// Say goodbye at the next opportunity.
    Leave,
    /// Its time is over.
    Cut,
}

/// The place of one in the order of leaving: a share of the time, of 2^64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn(u64);

impl Parting {
    /// They leave in the last half of the `time` that begins at `now`; `None`: they stay.
    pub(super) fn set(&self, now: u64, time: Option<Duration>) {
        let (from, until) = match time.map(clock::millis) {
            Some(time) => (now.saturating_add(time / 2), now.saturating_add(time)),
            None => (clock::NEVER, clock::NEVER),
        };
        // Whoever reads between the two sees no earlier end than there is.
        self.until.store(clock::NEVER, Relaxed);
        self.from.store(from, Relaxed);
        self.until.store(until, Relaxed);
    }

    /// Whether they have a time.
    pub(super) fn is_set(&self) -> bool {
        self.from.load(Relaxed) != clock::NEVER
    }

    /// The turn of one more.
    pub(super) fn turn(&self) -> Turn {
        Turn(self.turns.fetch_add(1, Relaxed).wrapping_mul(GOLDEN))
    }

    /// What is to become at `now` of the one that has this turn.
    pub(super) fn order(&self, now: u64, turn: Turn) -> Order {
        let (from, until) = (self.from.load(Relaxed), self.until.load(Relaxed));
        if now >= until {
            Order::Cut
        } else if until != clock::NEVER && now >= moment(from, until, turn) {
            Order::Leave
        } else {
            Order::Stay
        }
    }
}

/// The moment of a turn between two. The last one leaves time for an answer.
fn moment(from: u64, until: u64, Turn(share): Turn) -> u64 {
    let (least, most) = ANSWER;
    let time = until.saturating_sub(from);
    let turns = time - (time / 8).clamp(least, most).min(time);
    let part = (u128::from(turns) * u128::from(share)) >> 64;
    from.saturating_add(u64::try_from(part).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn of_a_hundred_no_tenth_of_the_last_half_has_more_than_fifteen() {
        for before in [0, 1, 7, 1_000, 123_456] {
            for count in [10_usize, 100, 1_000] {
                let parting = Parting::default();
                (0..before).for_each(|_| _ = parting.turn());
                parting.set(1_000, Some(MINUTE));
                let mut turns: Vec<_> = (0..count).map(|_| parting.turn()).collect();
                let mut left = Vec::new();
                for now in (1_000..61_000).step_by(100) {
                    let stay = turns.len();
                    turns.retain(|turn| parting.order(now, *turn) == Order::Stay);
                    left.push(stay - turns.len());
                }
                assert!(turns.is_empty(), "nobody is left to be cut");
                assert_eq!(left[..300].iter().sum::<usize>(), 0, "the first half is undisturbed");
                for tenth in left[300..].chunks(30) {
                    let leave: usize = tenth.iter().sum();
                    assert!(leave * 100 <= 15 * count || count == 10 && leave <= 2, "{count}: {left:?}");
                }
            }
        }
    }

    #[test]
    fn the_last_one_has_time_for_an_answer() {
        for time in [500, 1_000, 4_000, 60_000] {
            let parting = Parting::default();
            parting.set(0, Some(Duration::from_millis(time)));
            let orders = |now| (0..100).map(|_| parting.order(now, parting.turn())).collect::<Vec<_>>();
            assert!(orders(time - 250).iter().all(|order| *order == Order::Leave), "{time}");
        }
    }

    #[test]
    fn whoever_is_left_is_cut_at_the_end_and_who_has_no_time_stays() {
        let parting = Parting::default();
        let turn = parting.turn();
        assert_eq!(parting.order(u64::MAX - 1, turn), Order::Stay);
        parting.set(5, Some(MINUTE));
        assert!(parting.is_set());
        assert_eq!(
            [30_004, 30_005, 60_004, 60_005].map(|now| parting.order(now, turn)),
            [Order::Stay, Order::Leave, Order::Leave, Order::Cut]
        );
        // More time, or none, holds at once.
        parting.set(50_005, Some(MINUTE));
        assert_eq!(parting.order(60_005, turn), Order::Stay);
        parting.set(0, None);
        assert_eq!((parting.order(u64::MAX - 1, turn), parting.is_set()), (Order::Stay, false));
    }
}
