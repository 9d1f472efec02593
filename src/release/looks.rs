//! When the load of the live release is looked at: once a second, while its number of replicas
//! follows the load, and never where it does not.

use tokio::time::{Duration, Instant};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// The next look, where there is one.
#[derive(Debug, Default)]
pub(super) struct Looks(Option<Instant>);

impl Looks {
    /// Looks from now on, or not any more.
    pub(super) fn keep(&mut self, wanted: bool) {
        self.0 = if wanted { self.0.or_else(|| Some(Instant::now() + EVERY)) } else { None };
    }

    /// When the next look is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0
    }

    /// One is taken now.
    pub(super) fn taken(&mut self) {
        self.0 = Some(Instant::now() + EVERY);
    }
}
