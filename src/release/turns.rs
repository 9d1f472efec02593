//! Turns: at a start with many apps only some bring up their first release at a time.
//!
//! A turn is given on when it is dropped: once the app serves, has failed, or after
//! [`LONGEST`]. What serves already needs none, and a request to the app waits for none.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, Instant};

/// How long a turn lasts at most.
const LONGEST: Duration = Duration::from_secs(5);

/// Where the apps of a daemon get their turns. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Turns(Arc<Semaphore>);

/// The turn of one app.
#[derive(Debug)]
pub(super) struct Turn {
    _place: Option<OwnedSemaphorePermit>,
    ends: Instant,
}

impl Turns {
    /// So many at a time.
    pub fn new(places: usize) -> Self {
        Self(Arc::new(Semaphore::new(places.max(1))))
    }

    /// Waits for a turn. Cancel safe.
    pub(super) async fn next(self) -> Turn {
        // It is never closed.
        let place = self.0.acquire_owned().await.ok();
        Turn { _place: place, ends: Instant::now() + LONGEST }
    }
}

impl Turn {
    /// When it ends at the latest.
    pub(super) fn ends(&self) -> Instant {
        self.ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_have_a_turn_at_a_time_and_the_next_ones_when_it_is_given_on() {
        let turns = Turns::new(2);
        let (first, _second) = (turns.clone().next().await, turns.clone().next().await);
        let mut third = std::pin::pin!(turns.next());
        assert!(tokio::time::timeout(LONGEST, &mut third).await.is_err());
        assert!(first.ends() <= Instant::now());
        drop(first);
        third.await;
    }
}
