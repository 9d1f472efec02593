//! The mark of a target that is one of several: whether it is out, because it failed.
//!
//! One number, written by whoever finds the target at fault: a data-plane thread, or the control
//! plane. It is in until it is marked; a marked one is out until a moment, from which on one
//! request, over all threads, may try it. Whoever begins that trial ends it.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

const IN: u64 = 0;
const ON_TRIAL: u64 = u64::MAX;

/// Whether a target is out; see the module. Moments are those of the data plane's clock that
/// all threads share.
#[derive(Debug)]
pub(in crate::proxy) struct Mark(AtomicU64);

/// What a mark says at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum Standing {
    In,
    /// Out, or tried by another request.
    Out,
    /// Its time is over: one request may try it.
    Due,
}

impl Mark {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(IN))
    }

    /// What it says at `now`.
    pub(in crate::proxy) fn at(&self, now: u64) -> Standing {
        match self.0.load(SeqCst) {
            IN => Standing::In,
            until if until <= now => Standing::Due,
            _ => Standing::Out,
        }
    }

    /// Takes it out until `until`. Whoever is out already stays at least as long; a trial under way
    /// decides by itself. Returns whether it was in.
    pub(in crate::proxy) fn put_out(&self, until: u64) -> bool {
        let until = until.clamp(IN + 1, ON_TRIAL - 1);
        self.0.fetch_max(until, SeqCst) == IN
    }

    /// Begins the trial that is due at `now`. False: it is not, or another request was faster.
    pub(in crate::proxy) fn begin_trial(&self, now: u64) -> bool {
        let due = |until: u64| (until != IN && until <= now).then_some(ON_TRIAL);
        self.0.fetch_update(SeqCst, SeqCst, due).is_ok()
    }

    /// Ends the trial: it is in again, or out until the moment that is given.
    pub(in crate::proxy) fn end_trial(&self, out_until: Option<u64>) {
        let next = out_until.map_or(IN, |until| until.clamp(IN + 1, ON_TRIAL - 1));
        // Whoever took it back in meanwhile knows better.
        let _taken_back = self.0.compare_exchange(ON_TRIAL, next, SeqCst, SeqCst);
    }

    /// Takes it back in. Returns whether it was out.
    pub(in crate::proxy) fn take_in(&self) -> bool {
        self.0.swap(IN, SeqCst) != IN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_its_time_one_request_tries_it() {
        let mark = Mark::new();
        assert_eq!(mark.at(5), Standing::In);
        assert!(mark.put_out(10) && !mark.put_out(9), "only the first finds it in");
        assert_eq!((mark.at(9), mark.begin_trial(9)), (Standing::Out, false));
        assert_eq!(mark.at(10), Standing::Due);
        assert!(mark.begin_trial(10) && !mark.begin_trial(10));
        assert_eq!(mark.at(u64::MAX - 1), Standing::Out, "nobody else tries it meanwhile");
        assert!(!mark.put_out(99));
        mark.end_trial(Some(20));
        assert_eq!((mark.at(19), mark.at(20)), (Standing::Out, Standing::Due));
        assert!(mark.begin_trial(20));
        mark.end_trial(None);
        assert_eq!(mark.at(20), Standing::In);
        assert!(!mark.begin_trial(20), "one that is in needs no trial");
    }

    #[test]
    fn one_that_is_taken_back_in_stays_in_whatever_its_trial_says() {
        let mark = Mark::new();
        assert!(mark.put_out(1) && mark.begin_trial(1));
        assert!(mark.take_in() && !mark.take_in(), "only the first finds it out");
        mark.end_trial(Some(9));
        assert_eq!(mark.at(2), Standing::In);
    }
}
