//! The machine's timers: a handful, kept in a list.
//!
//! Owned by the coordinator, which turns the end of each into an event. A timer that the machine
//! does not want any more is not cancelled; the machine ignores its end.

use std::time::SystemTime;

use tokio::time::{Duration, Instant};

use super::state::{SetId, Timer};

/// The timers that run.
#[derive(Debug, Default)]
pub(super) struct Timers {
    running: Vec<Running>,
}

#[derive(Debug, Clone, Copy)]
struct Running {
    due: Instant,
    wall: SystemTime,
    timer: Timer,
}

impl Timers {
    /// Starts a timer.
    pub(super) fn start(&mut self, timer: Timer, after: Duration) {
        let wall = SystemTime::now().checked_add(after).unwrap_or(SystemTime::UNIX_EPOCH);
        // A moment beyond the clock's range never comes.
        let Some(due) = Instant::now().checked_add(after) else { return };
        self.running.push(Running { due, wall, timer });
    }

    /// How long a timer still runs.
    pub(super) fn left(&self, timer: Timer) -> Option<Duration> {
        let now = Instant::now();
        let left = |running: &Running| running.due.saturating_duration_since(now);
        self.running.iter().filter(|running| running.timer == timer).map(left).max()
    }

    /// Has a timer that runs end after this time.
    pub(super) fn restart(&mut self, timer: Timer, after: Duration) {
        self.running.retain(|running| running.timer != timer);
        self.start(timer, after);
    }

    /// When the next timer is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.running.iter().map(|running| running.due).min()
    }

    /// Takes a timer out that is due.
    pub(super) fn take_due(&mut self) -> Option<Timer> {
        let now = Instant::now();
        let at = self.running.iter().position(|running| running.due <= now)?;
        Some(self.running.swap_remove(at).timer)
    }

    /// When this drain of `set` ends.
    pub(super) fn drain_ends(&self, set: SetId, seq: u64) -> Option<SystemTime> {
        self.wall(Timer::Drain(set, seq))
    }

    /// When the watch window `ticket` ends.
    pub(super) fn window_ends(&self, ticket: u64) -> Option<SystemTime> {
        self.wall(Timer::Window(ticket))
    }

    fn wall(&self, timer: Timer) -> Option<SystemTime> {
        self.running.iter().filter(|running| running.timer == timer).map(|running| running.wall).max()
    }
}
