//! The looks at the memory of the live replicas, for apps with `app.max_memory`: when the next one
//! is due.
//!
//! Owned by the coordinator, which has at most one look under way, in a task of its own.

use tokio::time::{Duration, Instant};

use crate::supervisor::{Identity, memory_of};

use super::state::RunId;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(10);

/// The looks.
#[derive(Debug, Default)]
pub(super) struct MemoryLooks {
    next: Option<Instant>,
    under_way: bool,
    /// It was logged that the kernel does not say.
    unable_logged: bool,
}

impl MemoryLooks {
    /// When the next look is due; `None` while none is wanted or one is under way.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Looks from now on, or does not any more.
    pub(super) fn want(&mut self, wanted: bool) {
        if !wanted {
            self.next = None;
        } else if self.next.is_none() && !self.under_way {
            self.next = Some(Instant::now() + period());
        }
    }

    /// A look begins.
    pub(super) fn begin(&mut self) {
        self.next = None;
        self.under_way = true;
    }

    /// The look has ended, and another one is due after a while. Gives back what was seen.
    pub(super) fn end(&mut self, seen: Vec<(RunId, Option<u64>)>) -> Vec<(RunId, u64)> {
        self.under_way = false;
        self.want(true);
        if !seen.is_empty() && seen.iter().all(|(_, bytes)| bytes.is_none()) {
            if !std::mem::replace(&mut self.unable_logged, true) {
                tracing::warn!(
                    "app.max_memory has no effect: the kernel does not say how much memory it has"
                );
            }
        } else {
            self.unable_logged = false;
        }
        seen.into_iter().filter_map(|(run, bytes)| Some((run, bytes?))).collect()
    }
}

/// The memory of these runs now.
pub(super) async fn look(runs: Vec<(RunId, Identity)>) -> Vec<(RunId, Option<u64>)> {
    let (ids, processes): (Vec<_>, Vec<_>) = runs.into_iter().unzip();
    ids.into_iter().zip(memory_of(processes).await).collect()
}

/// Tests do not wait so long.
fn period() -> Duration {
    #[cfg(debug_assertions)]
    if let Some(millis) = std::env::var("PORTOK_MEMORY_LOOKS_MS").ok().and_then(|text| text.parse().ok()) {
        return Duration::from_millis(millis);
    }
    PERIOD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_look_at_a_time_and_none_where_none_is_wanted() {
        let mut looks = MemoryLooks::default();
        assert_eq!(looks.next(), None);
        looks.want(true);
        let first = looks.next();
        assert_eq!(first, Some(Instant::now() + PERIOD));
        looks.want(true);
        assert_eq!(looks.next(), first, "it is not put off");
        looks.begin();
        looks.want(true);
        assert_eq!(looks.next(), None, "one is under way");
        let seen = looks.end(vec![(RunId(1), Some(5)), (RunId(2), None)]);
        assert_eq!((seen, looks.next().is_some()), (vec![(RunId(1), 5)], true));
        looks.want(false);
        assert_eq!(looks.next(), None);
    }
}
