//! What one client did in the last while, second by second. Pure.

use std::collections::VecDeque;

/// How many requests a client may make in a time, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    pub(super) most: u32,
    pub(super) within: u64,
}

/// How a client stands after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// The request is one too many, and does not count.
    pub(super) refused: bool,
    /// How many more it may make now.
    pub(super) left: u32,
    /// In how many milliseconds it may make more than now.
    pub(super) more_in: u64,
}

/// The requests of one second.
#[derive(Debug, Clone, Copy)]
struct Step {
    /// When the last of them came, in milliseconds: all are forgotten by it.
    last: u64,
    requests: u32,
}

/// The requests of a client that count. It is never asked of an earlier moment than before.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The oldest first.
    steps: VecDeque<Step>,
    requests: u64,
}

/// How long a step is, in milliseconds.
const STEP: u64 = 1000;

impl Window {
    /// Judges a request at `now`, and counts it if it is not refused.
    pub(super) fn admit(&mut self, now: u64, allowance: Allowance) -> Standing {
        self.forget(now, allowance.within);
        let refused = self.requests >= u64::from(allowance.most);
        if !refused {
            self.count(now);
        }
        let left = u64::from(allowance.most).saturating_sub(self.requests);
        Standing {
            refused,
            left: u32::try_from(left).unwrap_or(u32::MAX),
            more_in: self.more_in(now, allowance),
        }
    }

    fn count(&mut self, now: u64) {
        self.requests += 1;
        match self.steps.back_mut() {
            Some(step) if step.last / STEP == now / STEP => {
                step.last = now;
                step.requests = step.requests.saturating_add(1);
            }
            _ => self.steps.push_back(Step { last: now, requests: 1 }),
        }
    }

    /// Forgets the steps that are over for so long, in milliseconds.
    pub(super) fn forget(&mut self, now: u64, within: u64) {
        while let Some(step) = self.steps.front()
            && now.saturating_sub(step.last) >= within
        {
            self.requests -= u64::from(step.requests);
            self.steps.pop_front();
        }
    }

    /// In how many milliseconds so many are forgotten that more requests pass than now.
    fn more_in(&self, now: u64, allowance: Allowance) -> u64 {
        let mut left = self.requests;
        let most = u64::from(allowance.most).min(self.requests);
        for step in &self.steps {
            left -= u64::from(step.requests);
            if left < most {
                return (step.last + allowance.within).saturating_sub(now);
            }
        }
        0
    }

    /// Whether nothing counts any more.
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// How many seconds it remembers.
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Allowance = Allowance { most: 500, within: 60_000 };

    #[test]
    fn the_501st_within_a_minute_is_refused_and_does_not_count() {
        let mut window = Window::default();
        for number in 0..500 {
            let standing = window.admit(1_000 + number, MINUTE);
            assert_eq!((standing.refused, standing.left), (false, 499 - u32::try_from(number).unwrap()));
        }
        for late in [1_500, 20_000, 61_498] {
            assert!(window.admit(late, MINUTE).refused);
        }
        let refused = window.admit(60_000, MINUTE);
        assert_eq!((refused.left, refused.more_in), (0, 1_499), "all came in one second");
        assert!(!window.admit(61_499, MINUTE).refused);
        assert_eq!(window.requests, 1);
    }

    #[test]
    fn another_allowance_holds_at_once_for_what_was_counted_before() {
        let mut window = Window::default();
        for second in 0..10 {
            assert!(!window.admit(second * 1_000, MINUTE).refused);
        }
        let less = Allowance { most: 4, within: 60_000 };
        let standing = window.admit(10_000, less);
        assert!(standing.refused);
        // Seven of the ten have to be forgotten.
        assert_eq!(standing.more_in, 6_000 + 60_000 - 10_000);
        assert!(!window.admit(10_000, MINUTE).refused);
        assert!(window.admit(66_000, less).refused, "one more has come since");
        assert!(!window.admit(67_000, less).refused);
        assert_eq!(window.len(), 4);
    }

    #[test]
    fn who_does_nothing_is_forgotten() {
        let mut window = Window::default();
        window.admit(5, MINUTE);
        window.forget(60_004, MINUTE.within);
        assert!(!window.is_empty());
        window.forget(60_005, MINUTE.within);
        assert!(window.is_empty() && window.requests == 0);
    }

    proptest! {
        #[test]
        fn no_time_has_more_than_it_may_and_who_waits_as_told_passes(
            gaps in proptest::collection::vec(0_u64..1_500, 1..200),
            most in 1_u32..8,
            seconds in 1_u64..6,
        ) {
            let allowance = Allowance { most, within: seconds * 1_000 };
            let (mut window, mut now, mut passed) = (Window::default(), 0, Vec::new());
            for gap in gaps {
                now += gap;
                let standing = window.admit(now, allowance);
                let within = passed.iter().filter(|&&at| now - at < allowance.within).count();
                prop_assert!(within < most as usize || standing.refused);
                if standing.refused {
                    // A second before, nobody would have been refused.
                    let within = passed.iter().filter(|&&at| now - at < allowance.within + STEP).count();
                    prop_assert!(within >= most as usize);
                    let mut again = Window { steps: window.steps.clone(), requests: window.requests };
                    prop_assert!(again.admit(now + standing.more_in - 1, allowance).refused);
                    prop_assert!(!again.admit(now + standing.more_in, allowance).refused);
                } else {
                    passed.push(now);
                    prop_assert_eq!(standing.left == 0, window.requests == u64::from(most));
                }
            }
            prop_assert!(window.len() <= seconds as usize + 1);
        }
    }
}
