//! What `[hold]` says.

use std::time::Duration;

/// `[hold]`: when requests wait for an app that takes none, and within which bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// What they wait for, each once.
    pub on: Vec<HoldOn>,
    /// How many wait at a time.
    pub max_requests: usize,
    /// How long each waits.
    pub max_time: Duration,
    /// How many of those that have waited are in flight at a time, for each member that takes
    /// requests.
    pub release: usize,
}

impl Hold {
    /// Whether requests are held for this reason.
    pub fn is_on(&self, reason: HoldOn) -> bool {
        self.on.contains(&reason)
    }
}

/// `hold.on`: what requests may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldOn {
    /// The end of a start after a crash.
    Crash,
    /// The end of a start from zero.
    Idle,
    /// The end of a deploy that stops the former release first.
    Recreate,
    /// An operator's word.
    Pause,
}
