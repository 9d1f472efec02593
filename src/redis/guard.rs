//! The guard against mass removal: a Redis that was flushed, or is not the one that was meant, must
//! not take every host away. Pure; the clock is passed in.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::table::Table;
use crate::config::Hosts;

/// As many hosts may always go at once.
const FEW: usize = 10;

/// Looks in a row that have to say the same.
pub(super) const LOOKS: u32 = 3;

/// Between two looks that count.
const APART: Duration = Duration::from_secs(60);

/// Judges each new table, and holds one back that would remove too much.
#[derive(Debug, Default)]
pub(super) struct Guard(Option<Held>);

/// A removal that is held back.
#[derive(Debug)]
pub(super) struct Held {
    /// The hosts that every look since the first would remove.
    missing: BTreeSet<Hosts>,
    /// Of so many.
    of: usize,
    /// Looks that said so, each a while after the one before it.
    looks: u32,
    last: Instant,
}

impl Held {
    /// The hosts that would be removed.
    pub(super) fn missing(&self) -> usize {
        self.missing.len()
    }

    /// Of so many.
    pub(super) fn of(&self) -> usize {
        self.of
    }

    /// Looks that said so.
    pub(super) fn looks(&self) -> u32 {
        self.looks
    }
}

impl Guard {
    /// Whether `new` may take the place of `old`.
    pub(super) fn lets_pass(&mut self, old: &Table, new: &Table, now: Instant) -> bool {
        let removed = || old.iter().map(|one| one.hosts()).filter(|hosts| new.get(hosts).is_none());
        let of = old.len();
        if !is_too_much(removed().count(), of) {
            self.0 = None;
            return true;
        }
        let mut missing: BTreeSet<_> = removed().cloned().collect();
        if let Some(held) = &mut self.0 {
            let still: BTreeSet<_> = held.missing.intersection(&missing).cloned().collect();
            if is_too_much(still.len(), of) {
                missing = still;
                if now.saturating_duration_since(held.last) >= APART {
                    held.looks += 1;
                    held.last = now;
                }
                if held.looks >= LOOKS {
                    self.0 = None;
                    return true;
                }
                held.missing = missing;
                return false;
            }
        }
        // The first look, or one that says something else.
        self.0 = Some(Held { missing, of, looks: 1, last: now });
        false
    }

    /// What is held back now.
    pub(super) fn held(&self) -> Option<&Held> {
        self.0.as_ref()
    }
}

fn is_too_much(removed: usize, of: usize) -> bool {
    removed > FEW && removed * 2 > of
}

#[cfg(test)]
mod tests {
    use super::super::bounds::Bounds;
    use super::super::list::Frontend;
    use super::*;

    fn table(hosts: impl IntoIterator<Item = usize>) -> Table {
        let bounds = Bounds { allow: vec!["10.0.0.0/8".parse().unwrap()], ..Bounds::default() };
        let read = |host| Frontend::read(&format!("h{host}"), &["l", "http://10.0.0.1:80"], &bounds).unwrap();
        Table::new(hosts.into_iter().map(read))
    }

    #[test]
    fn few_and_at_most_half_pass_at_once() {
        let now = Instant::now();
        for (of, left, passes) in
            [(10, 0, true), (11, 0, false), (11, 1, true), (20, 9, false), (20, 10, true), (100, 49, false)]
        {
            let mut guard = Guard::default();
            assert_eq!(guard.lets_pass(&table(0..of), &table(0..left), now), passes, "{left} of {of}");
            assert_eq!(guard.held().is_none(), passes);
        }
        // New hosts make up for none that is gone.
        assert!(!Guard::default().lets_pass(&table(0..20), &table(20..60), now));
    }

    #[test]
    fn the_third_look_a_minute_apart_passes() {
        let (old, new) = (table(0..20), table(0..5));
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut guard = Guard::default();
        for (second, looks) in [(0, 1), (1, 1), (59, 1), (60, 2), (61, 2), (119, 2)] {
            assert!(!guard.lets_pass(&old, &new, at(second)), "{second}");
            let held = guard.held().unwrap();
            assert_eq!((held.looks(), held.missing(), held.of()), (looks, 15, 20), "{second}");
        }
        assert!(guard.lets_pass(&old, &new, at(120)));
        assert!(guard.held().is_none());
    }

    #[test]
    fn a_look_that_says_something_else_begins_anew() {
        let old = table(0..20);
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut guard = Guard::default();
        assert!(!guard.lets_pass(&old, &table(0..5), at(0)));
        assert!(!guard.lets_pass(&old, &table(0..5), at(60)));
        // Some of them are back, and enough are missing still.
        assert!(!guard.lets_pass(&old, &table(0..9), at(100)));
        assert_eq!((guard.held().unwrap().looks(), guard.held().unwrap().missing()), (2, 11));
        // Others are missing now.
        assert!(!guard.lets_pass(&old, &table(9..15), at(110)));
        assert_eq!(guard.held().unwrap().looks(), 1);
        assert!(!guard.lets_pass(&old, &table(9..15), at(170)));
        // All are back: that passes, and is forgotten.
        assert!(guard.lets_pass(&old, &old, at(171)));
        assert!(!guard.lets_pass(&old, &table(9..15), at(230)));
        assert_eq!(guard.held().unwrap().looks(), 1);
    }
}
