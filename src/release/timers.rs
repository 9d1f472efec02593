//! The machine's timers: a handful, so a list will do.

use std::time::SystemTime;

use tokio::time::{Duration, Instant};

use super::state::{RunId, Timer};

/// Timers that run. Owned by the coordinator; a timer that the machine has forgotten ends and is ignored there.
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
    pub(super) fn start(&mut self, timer: Timer, after: Duration) {
        let wall = SystemTime::now().checked_add(after).unwrap_or(SystemTime::UNIX_EPOCH);
        // A time beyond what the clock can say is never reached.
        let Some(due) = Instant::now().checked_add(after) else { return };
        self.running.push(Running { due, wall, timer });
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.running.iter().map(|running| running.due).min()
    }

    /// Takes one that is due.
    pub(super) fn take_due(&mut self) -> Option<Timer> {
        let now = Instant::now();
        let at = self.running.iter().position(|running| running.due <= now)?;
        Some(self.running.swap_remove(at).timer)
    }

    /// When this drain of `run` ends.
    pub(super) fn drain_ends(&self, run: RunId, seq: u64) -> Option<SystemTime> {
        self.wall(Timer::Drain(run, seq))
    }

    /// When the watch window `ticket` ends.
    pub(super) fn window_ends(&self, ticket: u64) -> Option<SystemTime> {
        self.wall(Timer::Window(ticket))
    }

    fn wall(&self, timer: Timer) -> Option<SystemTime> {
        self.running.iter().filter(|running| running.timer == timer).map(|running| running.wall).max()
    }
}
