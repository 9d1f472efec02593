//! The guard against mass removal: a Redis that was flushed, or is not the one that was meant, must
//! not take every host away, neither at once nor a few at a time. Pure; the clock is passed in.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::list::Frontend;
use super::table::Table;
use crate::config::Hosts;

/// As many hosts may always go.
const FEW: usize = 10;

/// Looks in a row that have to say the same.
pub(super) const LOOKS: u32 = 3;

/// Between two looks that count.
const APART: Duration = Duration::from_secs(60);

/// A removal counts together with those of so long before it.
const LATELY: Duration = Duration::from_secs(5 * 60);

/// Judges what each look would remove, and holds it back where it is too much.
#[derive(Debug, Default)]
pub(super) struct Guard {
    held: Option<Held>,
    /// Of each of the last minutes the largest table, with the minute's beginning.
    largest: VecDeque<(Instant, Arc<Table>)>,
}

/// A removal that is held back.
#[derive(Debug)]
pub(super) struct Held {
    /// The hosts that every look since the first would remove.
    missing: BTreeSet<Hosts>,
    /// The hosts that the last look would remove.
    hosts: usize,
    /// Of so many.
    of: usize,
    /// Looks that said so, each a while after the one before it.
    looks: u32,
    last: Instant,
}

impl Held {
    /// The hosts that would be removed.
    pub(super) fn hosts(&self) -> usize {
        self.hosts
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
    /// Which hosts of `old` have to stay for now, though `new`, which a look has found, has them no
    /// more.
    pub(super) fn keeps(&mut self, old: &Arc<Table>, new: &Table, now: Instant) -> Vec<Arc<Frontend>> {
        self.note(old, now);
        let mut gone: Vec<_> = old.iter().filter(|one| new.get(one.hosts()).is_none()).cloned().collect();
        if gone.is_empty() || !self.is_too_much(old, |hosts| new.get(hosts).is_some()) {
            self.held = None;
            return Vec::new();
        }
        let missing: BTreeSet<_> = gone.iter().map(|one| one.hosts().clone()).collect();
        let mut held = self.held.take().and_then(|held| self.again(held, &missing, (old, new), now));
        if let Some(held) = held.take_if(|held| held.looks >= LOOKS) {
            // All looks have said it of these. Of the others this is the first.
            self.largest.clear();
            gone.retain(|one| !held.missing.contains(one.hosts()));
            if !is_too_much(gone.len(), old.len() - held.missing.len()) {
                return Vec::new();
            }
        }
        let first = || Held {
            missing: gone.iter().map(|one| one.hosts().clone()).collect(),
            hosts: 0,
            of: old.len(),
            looks: 1,
            last: now,
        };
        // Without one it is the first look, or one that says something else.
        let held = held.unwrap_or_else(first);
        self.held = Some(Held { hosts: gone.len(), of: old.len(), ..held });
        gone
    }

    /// The removal that is held, after one more look, by which these hosts are missing. `None`: it
    /// says something else.
    fn again(
        &self,
        mut held: Held,
        missing: &BTreeSet<Hosts>,
        (old, new): (&Arc<Table>, &Table),
        now: Instant,
    ) -> Option<Held> {
        held.missing.retain(|hosts| missing.contains(hosts));
        let is_there = |hosts: &Hosts| {
            new.get(hosts).is_some() || missing.contains(hosts) && !held.missing.contains(hosts)
        };
        if !self.is_too_much(old, is_there) {
            return None;
        }
        if now.saturating_duration_since(held.last) >= APART {
            held.looks += 1;
            held.last = now;
        }
        Some(held)
    }

    /// What is held back now.
    pub(super) fn held(&self) -> Option<&Held> {
        self.held.as_ref()
    }

    /// Whether too much is gone if these hosts are there, of `old` or of what there was lately.
    fn is_too_much(&self, old: &Arc<Table>, is_there: impl Fn(&Hosts) -> bool) -> bool {
        let lately = self.largest.iter().map(|(_, table)| table).filter(|table| !Arc::ptr_eq(table, old));
        std::iter::once(old).chain(lately).any(|table| {
            let gone = table.iter().filter(|one| !is_there(one.hosts())).count();
            is_too_much(gone, table.len())
        })
    }

    /// This table is in force now.
    fn note(&mut self, table: &Arc<Table>, now: Instant) {
        let age = |since: Instant| now.saturating_duration_since(since);
        match self.largest.back_mut() {
            Some((since, largest)) if age(*since) < APART => {
                if largest.len() < table.len() {
                    *largest = Arc::clone(table);
                }
            }
            _ => self.largest.push_back((now, Arc::clone(table))),
        }
        self.largest.retain(|(since, _)| age(*since) < LATELY);
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

    fn table(hosts: impl IntoIterator<Item = usize>) -> Arc<Table> {
        let bounds = Bounds { allow: vec!["10.0.0.0/8".parse().unwrap()], ..Bounds::default() };
        let read = |host| Frontend::read(&format!("h{host}"), &["l", "http://10.0.0.1:80"], &bounds).unwrap();
        Arc::new(Table::new(hosts.into_iter().map(read)))
    }

    /// Whether `new` may take the place of `old` as it is.
    fn passes(guard: &mut Guard, old: &Arc<Table>, new: &Table, now: Instant) -> bool {
        let kept = guard.keeps(old, new, now);
        let gone = old.iter().filter(|one| new.get(one.hosts()).is_none()).count();
        assert!(kept.is_empty() || kept.len() == gone, "{} of {gone}", kept.len());
        kept.is_empty()
    }

    #[test]
    fn few_and_at_most_half_pass_at_once() {
        let now = Instant::now();
        for (of, left, is_well) in
            [(10, 0, true), (11, 0, false), (11, 1, true), (20, 9, false), (20, 10, true), (100, 49, false)]
        {
            let mut guard = Guard::default();
            assert_eq!(passes(&mut guard, &table(0..of), &table(0..left), now), is_well, "{left} of {of}");
            assert_eq!(guard.held().is_none(), is_well);
        }
        // New hosts make up for none that is gone.
        assert!(!passes(&mut Guard::default(), &table(0..20), &table(20..60), now));
    }

    #[test]
    fn the_third_look_a_minute_apart_passes() {
        let (old, new) = (table(0..20), table(0..5));
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut guard = Guard::default();
        for (second, looks) in [(0, 1), (1, 1), (59, 1), (60, 2), (61, 2), (119, 2)] {
            assert!(!passes(&mut guard, &old, &new, at(second)), "{second}");
            let held = guard.held().unwrap();
            assert_eq!((held.looks(), held.hosts(), held.of()), (looks, 15, 20), "{second}");
        }
        assert!(passes(&mut guard, &old, &new, at(120)));
        assert!(guard.held().is_none());
        // What went then is no reason to hold the next one.
        assert!(passes(&mut guard, &new, &table(0..4), at(121)));
    }

    #[test]
    fn a_look_that_says_something_else_begins_anew() {
        let old = table(0..20);
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut guard = Guard::default();
        assert!(!passes(&mut guard, &old, &table(0..5), at(0)));
        assert!(!passes(&mut guard, &old, &table(0..5), at(60)));
        // Some of them are back, and enough are missing still.
        assert!(!passes(&mut guard, &old, &table(0..9), at(100)));
        assert_eq!((guard.held().unwrap().looks(), guard.held().unwrap().hosts()), (2, 11));
        // Others are missing now.
        assert!(!passes(&mut guard, &old, &table(9..15), at(110)));
        assert_eq!(guard.held().unwrap().looks(), 1);
        assert!(!passes(&mut guard, &old, &table(9..15), at(170)));
        // All are back: that passes, and is forgotten.
        assert!(passes(&mut guard, &old, &old, at(171)));
        assert!(!passes(&mut guard, &old, &table(9..15), at(230)));
        assert_eq!(guard.held().unwrap().looks(), 1);
    }

    #[test]
    fn many_small_removals_are_held_as_a_large_one() {
        let begin = Instant::now();
        let mut guard = Guard::default();
        let mut old = table(0..20);
        for (left, count) in (10..20).rev().zip(1..) {
            let (new, now) = (table(0..left), begin + Duration::from_secs(5 * count));
            assert!(passes(&mut guard, &old, &new, now), "{left}");
            old = new;
        }
        let at = |seconds: u64| begin + Duration::from_secs(60 + seconds);
        assert!(!passes(&mut guard, &old, &table(0..9), at(0)));
        assert_eq!((guard.held().unwrap().hosts(), guard.held().unwrap().of()), (1, 10));
        // One more goes meanwhile: it is kept too, and two looks have said nothing of it.
        assert!(!passes(&mut guard, &old, &table(0..9), at(60)));
        assert!(!passes(&mut guard, &old, &table(0..8), at(100)));
        assert!(passes(&mut guard, &old, &table(0..8), at(120)));
        // A while later nothing of it counts.
        let mut guard = Guard::default();
        assert!(passes(&mut guard, &table(0..20), &table(0..10), at(0)));
        assert!(!passes(&mut guard, &table(0..10), &table(0..9), at(299)));
        assert!(passes(&mut guard, &table(0..10), &table(0..9), at(300)));
    }

    #[test]
    fn what_is_missing_only_since_is_a_removal_of_its_own() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let (mut guard, old) = (Guard::default(), table(0..100));
        assert!(!passes(&mut guard, &old, &table(0..40), at(0)));
        assert!(!passes(&mut guard, &old, &table(0..40), at(60)));
        let kept = guard.keeps(&old, &table(0..10), at(120));
        let kept: Vec<_> = kept.iter().map(|one| one.key().to_owned()).collect();
        assert!(
            kept.len() == 30 && kept.iter().all(|key| key[1..].parse::<usize>().unwrap() < 40),
            "{kept:?}"
        );
        assert_eq!((guard.held().unwrap().looks(), guard.held().unwrap().hosts()), (1, 30));
    }
}
