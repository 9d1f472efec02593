//! How many lines of the log others may cause. Pure; the clock is passed in.

use std::time::{Duration, Instant};

/// The lines that the log still takes: so many at once, and one more from time to time.
#[derive(Debug)]
pub struct Lines {
    most: u32,
    left: u32,
    pause: Duration,
    /// When the last one more came.
    at: Option<Instant>,
    left_out: u32,
}

impl Lines {
    /// At most so many at once, and one more after each `pause`.
    pub fn new(most: u32, pause: Duration) -> Self {
        Self { most, left: most, pause, at: None, left_out: 0 }
    }

    /// Whether there is room for a line now, and what it has to end with: how many there was none
    /// for.
    pub fn next(&mut self, now: Instant) -> Option<String> {
        let at = self.at.get_or_insert(now);
        while self.left < self.most && now.saturating_duration_since(*at) >= self.pause {
            (self.left, *at) = (self.left + 1, *at + self.pause);
        }
        if self.left == self.most {
            *at = now;
        }
        let Some(left) = self.left.checked_sub(1) else {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        };
        self.left = left;
        let left_out = std::mem::take(&mut self.left_out);
        Some(if left_out > 0 {
            format!(" ({left_out} lines before this one are left out)")
        } else {
            String::new()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_those_left_out_are_counted() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut lines = Lines::new(2, Duration::from_secs(60));
        let room: Vec<_> = [0, 1, 2, 59].map(|second| lines.next(at(second)).is_some()).to_vec();
        assert_eq!(room, [true, true, false, false]);
        assert_eq!(lines.next(at(60)).unwrap(), " (2 lines before this one are left out)");
        assert_eq!(
            (lines.next(at(61)), lines.next(at(120)).as_deref()),
            (None, Some(" (1 lines before this one are left out)"))
        );
        let later: Vec<_> = [1000, 1001, 1002].map(|second| lines.next(at(second)).is_some()).to_vec();
        assert_eq!(later, [true, true, false]);
    }
}
