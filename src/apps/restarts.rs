//! When what drives an app is started again after it has ended by a fault of portok: at once twice,
//! then later and later. Pure.
//!
//! The app's requests go on meanwhile as they were. A minute without a fault forgets those before.
//! Whether there is an end to it is its owner's decision.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// After so many faults in a row it is started again at once.
const AT_ONCE: u32 = 2;

/// The delay after the first fault beyond these. It doubles with each further one.
const FIRST_DELAY: Duration = Duration::from_secs(1);

const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// How long a fault counts.
const COUNTED: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    /// Those of the last minute, oldest first.
    lately: Vec<Instant>,
    in_a_row: u32,
    stage: Stage,
    /// What went wrong last.
    why: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Runs,
    /// It has fallen, and is started again then.
    Waits(Instant),
    /// It is about to be started again: what it left under way ends.
    Settles,
    /// It is not started again.
    GivenUp,
}

impl Restarts {
    /// Notes that it has ended by a fault, or could not be started again. Returns after which delay
    /// it is to be.
    pub(super) fn fell(&mut self, why: String, now: Instant) -> Duration {
        if self.lately.last().is_none_or(|last| now >= *last + COUNTED) {
            self.in_a_row = 0;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.lately.retain(|fault| now < *fault + COUNTED);
        self.lately.push(now);
        self.why = why;
        let delay = delay(self.in_a_row);
        self.stage = Stage::Waits(now + delay);
        delay
    }

    /// Whether there was a fault too many for one minute.
    pub(super) fn are_too_many(&self) -> bool {
        self.lately.len() > AT_ONCE as usize
    }

    /// It is never started again.
    pub(super) fn give_up(&mut self) {
        self.stage = Stage::GivenUp;
    }

    /// When it is to be started again.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.stage {
            Stage::Waits(until) => Some(until),
            Stage::Runs | Stage::Settles | Stage::GivenUp => None,
        }
    }

    /// It is due at once, if it is to be started again at all.
    pub(super) fn hurry(&mut self, now: Instant) {
        if matches!(self.stage, Stage::Waits(_) | Stage::Settles) {
            self.stage = Stage::Waits(now);
        }
    }

    /// What it left under way is given time to end.
    pub(super) fn settle(&mut self) {
        self.stage = Stage::Settles;
    }

    /// Whether it is about to be started again.
    pub(super) fn is_settling(&self) -> bool {
        self.stage == Stage::Settles
    }

    /// It runs again.
    pub(super) fn began(&mut self) {
        self.stage = Stage::Runs;
    }

    /// Whether it does not run.
    pub(super) fn is_down(&self) -> bool {
        self.stage != Stage::Runs
    }

    /// What is wrong while it does not run.
    pub(super) fn error(&self) -> Option<String> {
        if !self.is_down() {
            return None;
        }
        let mut text = self.why.clone();
        if self.in_a_row > 1 {
            _ = write!(text, " ({} faults in a row)", self.in_a_row);
        }
        let when = match (self.stage, delay(self.in_a_row)) {
            (Stage::GivenUp, _) => "it is not started again".to_owned(),
            (_, Duration::ZERO) => "it is started again".to_owned(),
            (_, delay) => format!("it is started again {} later", humantime::format_duration(delay)),
        };
        Some(format!("{text}; {when}; requests go on as they were"))
    }
}

/// How long after so many faults in a row it is started again.
fn delay(faults: u32) -> Duration {
    match faults.checked_sub(AT_ONCE + 1) {
        None => Duration::ZERO,
        Some(doublings) => FIRST_DELAY.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_DELAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_limit_and_a_minute_without_a_fault_forgets_them() {
        let (mut restarts, mut now) = (Restarts::default(), Instant::now());
        for expected in [0, 0, 1, 2, 4, 8, 16, 30, 30] {
            let delay = restarts.fell("broken".into(), now);
            assert_eq!(delay.as_secs(), expected);
            assert_eq!(restarts.due(), Some(now + delay));
            restarts.settle();
            restarts.began();
            // It falls again soon.
            now += delay + Duration::from_secs(5);
        }
        now += COUNTED;
        assert_eq!(restarts.fell("broken".into(), now), Duration::ZERO);
        assert!(!restarts.are_too_many());
        assert_eq!(delay(u32::MAX), LONGEST_DELAY);
    }

    #[test]
    fn three_within_a_minute_are_too_many_and_three_within_two_are_not() {
        for (apart, too_many) in [(29, true), (31, false)] {
            let (mut restarts, now) = (Restarts::default(), Instant::now());
            for number in 0..3 {
                restarts.fell("broken".into(), now + number * Duration::from_secs(apart));
            }
            assert_eq!(restarts.are_too_many(), too_many, "{apart} s apart");
        }
    }

    #[test]
    fn what_is_wrong_is_said_until_it_runs_again() {
        let (mut restarts, now) = (Restarts::default(), Instant::now());
        assert!(restarts.error().is_none() && !restarts.is_down());
        restarts.fell("it fell".into(), now);
        assert_eq!(restarts.error().unwrap(), "it fell; it is started again; requests go on as they were");
        restarts.fell("it fell".into(), now);
        restarts.fell("it fell".into(), now);
        let third = "it fell (3 faults in a row); it is started again 1s later; \
                     requests go on as they were";
        assert_eq!(restarts.error().unwrap(), third);
        restarts.hurry(now);
        assert_eq!(restarts.due(), Some(now));
        restarts.settle();
        assert!(restarts.due().is_none() && restarts.is_settling() && restarts.error().is_some());
        restarts.began();
        restarts.hurry(now);
        assert!(restarts.error().is_none() && restarts.due().is_none());
        restarts.give_up();
        assert!(restarts.error().unwrap().contains("not started again"));
    }
}
