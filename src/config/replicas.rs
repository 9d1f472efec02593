//! What `app.replicas` says.

use std::time::Duration;

/// `app.replicas`: how many processes of a release run at a time. Where the bounds differ, the
/// number follows the load between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replicas {
    /// At least so many. 0: none runs while no request comes.
    pub min: u16,
    /// At most so many, and at least one.
    pub max: u16,
    /// One more is started where each of those that are ready has so many requests in flight.
    pub busy_at: u32,
    /// One is stopped where those that stay have been half as busy for so long.
    pub idle: Duration,
}

impl Replicas {
    /// The most processes of one release.
    pub const MOST: u16 = 64;

    /// Always so many.
    pub const fn fixed(count: u16) -> Self {
        Self { min: count, max: count, busy_at: 8, idle: Duration::from_secs(60) }
    }

    /// The same, where no two may run at a time.
    #[must_use]
    pub fn alone(self) -> Self {
        Self { min: self.min.min(1), max: self.max.min(1), ..self }
    }

    /// Whether there are always as many.
    pub fn is_fixed(&self) -> bool {
        self.min == self.max
    }

    /// `wanted`, as far as the bounds allow it.
    pub fn within(&self, wanted: u16) -> u16 {
        wanted.clamp(self.min, self.max)
    }
}
