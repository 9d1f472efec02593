//! Whether an app can listen beside the placeholder, the socket that holds its port against others:
//! pure, learned from the app's starts.
//!
//! An app can where it sets `SO_REUSEADDR`. The runs own the knowledge; the record keeps what is
//! certain.

use crate::supervisor::PortTaken;

/// What is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Placeholder {
    /// The port is held; nothing speaks against it.
    #[default]
    Held,
    /// A start failed, as it seems because of it: this attempt goes on without.
    Suspected,
    /// A start failed with it, and the next one was healthy without it: the app never gets one
    /// again.
    Impossible,
}

impl Placeholder {
    /// Goes on from what an earlier daemon has learned.
    pub(super) fn remembered(impossible: bool) -> Self {
        if impossible { Self::Impossible } else { Self::Held }
    }

    /// Whether the next start has a placeholder.
    pub(super) fn is_held(self) -> bool {
        self == Self::Held
    }

    /// A run that was started with a placeholder (`held`) or without ended before it was healthy.
    /// `taken`: because its port was taken, and by what.
    pub(super) fn failed(&mut self, held: bool, taken: Option<PortTaken>) {
        *self = match (*self, taken) {
            (Self::Held, Some(PortTaken::ByPlaceholder)) => Self::Suspected,
            // It failed without one, too, so that was not the reason.
            (Self::Suspected, None) if !held => Self::Held,
            (known, _) => known,
        };
    }

    /// A run that was started with a placeholder (`held`) or without is healthy.
    pub(super) fn succeeded(&mut self, held: bool) {
        if *self == Self::Suspected && !held {
            *self = Self::Impossible;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_that_only_listens_without_it_never_gets_one_again() {
        let mut placeholder = Placeholder::default();
        placeholder.failed(true, Some(PortTaken::ByPlaceholder));
        assert!(!placeholder.is_held());
        // Another process was faster on the port that nothing held: that says nothing about the
        // app.
        placeholder.failed(false, Some(PortTaken::ByAnother));
        assert_eq!(placeholder, Placeholder::Suspected);
        placeholder.succeeded(false);
        placeholder.failed(false, None);
        assert_eq!(placeholder, Placeholder::Impossible);
        assert_eq!(Placeholder::remembered(true), Placeholder::Impossible);
    }

    #[test]
    fn an_app_that_fails_either_way_keeps_it() {
        let mut placeholder = Placeholder::default();
        placeholder.failed(true, Some(PortTaken::ByAnother));
        placeholder.failed(true, None);
        placeholder.succeeded(true);
        assert_eq!(placeholder, Placeholder::Held);
        placeholder.failed(true, Some(PortTaken::ByPlaceholder));
        placeholder.failed(false, None);
        assert_eq!(placeholder, Placeholder::Held);
    }

    #[test]
    fn what_started_with_it_at_the_same_time_decides_nothing() {
        let mut placeholder = Placeholder::default();
        placeholder.failed(true, Some(PortTaken::ByPlaceholder));
        let succeeds = |it: &mut Placeholder| it.succeeded(true);
        let fails = |it: &mut Placeholder| it.failed(true, None);
        for decides_nothing in [succeeds, fails] {
            decides_nothing(&mut placeholder);
            assert_eq!(placeholder, Placeholder::Suspected);
        }
    }
}
