//! Looks at something that are taken every so often, as long as they are wanted: at the load of the
//! live release, and at the memory of its replicas.
//!
//! Each kind is owned by the coordinator, which has at most one look of it under way. The next one
//! is due a period after the end of the last.

use tokio::time::{Duration, Instant};

/// Between two looks at the load.
const LOAD: Duration = Duration::from_secs(1);

/// Between two looks at the memory.
const MEMORY: Duration = Duration::from_secs(10);

/// The looks of one kind.
#[derive(Debug)]
pub(super) struct Looks {
    period: Duration,
    next: Option<Instant>,
    under_way: bool,
}

impl Looks {
    /// At the load.
    pub(super) fn at_load() -> Self {
        Self::every(period(LOAD, "PORTOK_LOAD_LOOKS_MS"))
    }

    /// At the memory.
    pub(super) fn at_memory() -> Self {
        Self::every(period(MEMORY, "PORTOK_MEMORY_LOOKS_MS"))
    }

    fn every(period: Duration) -> Self {
        Self { period, next: None, under_way: false }
    }

    /// When the next look is due; `None` while none is wanted or one is under way.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Looks from now on, or does not any more.
    pub(super) fn want(&mut self, wanted: bool) {
        if !wanted {
            self.next = None;
        } else if self.next.is_none() && !self.under_way {
            self.next = Some(Instant::now() + self.period);
        }
    }

    /// A look begins.
    pub(super) fn begin(&mut self) {
        self.next = None;
        self.under_way = true;
    }

    /// The look has ended, and another one is due after a while.
    pub(super) fn end(&mut self) {
        self.under_way = false;
        self.want(true);
    }
}

/// Tests do not wait so long; they name another period in a variable.
fn period(usual: Duration, variable: &str) -> Duration {
    #[cfg(debug_assertions)]
    if let Some(millis) = std::env::var(variable).ok().and_then(|text| text.parse().ok()) {
        return Duration::from_millis(millis);
    }
    #[cfg(not(debug_assertions))]
    let _ = variable;
    usual
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_look_at_a_time_and_none_where_none_is_wanted() {
        let mut looks = Looks::at_memory();
        assert_eq!(looks.next(), None);
        looks.want(true);
        let first = looks.next();
        assert_eq!(first, Some(Instant::now() + MEMORY));
        looks.want(true);
        assert_eq!(looks.next(), first, "it is not put off");
        looks.begin();
        looks.want(true);
        assert_eq!(looks.next(), None, "one is under way");
        looks.end();
        assert_eq!(looks.next(), Some(Instant::now() + MEMORY));
        looks.want(false);
        assert_eq!(looks.next(), None);
        assert_eq!(Looks::at_load().period, Duration::from_secs(1));
    }
}
