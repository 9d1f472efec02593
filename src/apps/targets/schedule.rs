//! When each member of a set is probed next. Pure; the clock and chance are passed in.
//!
//! A member that is new is probed at once, and again soon as long as it is waited for. From then on
//! it is probed once an interval, which it begins anywhere: so members that came together, of one
//! app or of thousands, are not probed together for ever.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::set::{Id, Pace};

/// How soon a member is probed again that is waited for.
const JOINING_PACE: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Schedule(HashMap<Id, Entry>);

#[derive(Debug)]
struct Entry {
    /// When it is probed next; `None`: it is being probed.
    due: Option<Instant>,
    /// Its place in the interval was drawn.
    is_spread: bool,
}

impl Schedule {
    /// These are probed, and no others. Those that are new are due at `now`.
    pub(super) fn keep<T>(&mut self, members: &HashMap<Id, T>, now: Instant) {
        self.0.retain(|id, _| members.contains_key(id));
        for id in members.keys() {
            self.0.entry(*id).or_insert(Entry { due: Some(now), is_spread: false });
        }
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.0.values().filter_map(|entry| entry.due).min()
    }

    /// The one that is due longest at `now`. It is being probed from then on, until it is told when
    /// the next probe is.
    pub(super) fn next(&mut self, now: Instant) -> Option<Id> {
        let due = self
            .0
            .iter_mut()
            .filter_map(|(id, entry)| Some((entry.due.filter(|due| *due <= now)?, *id, entry)));
        let (_, id, entry) = due.min_by_key(|(due, id, _)| (*due, *id))?;
        entry.due = None;
        Some(id)
    }

    /// A probe of it ended at `now`. `chance` is below 1.
    pub(super) fn probed(&mut self, id: Id, now: Instant, (pace, interval): (Pace, Duration), chance: f64) {
        let Some(entry) = self.0.get_mut(&id) else { return };
        let pause = match pace {
            Pace::Joining => JOINING_PACE.min(interval),
            Pace::Watching if entry.is_spread => interval,
            Pace::Watching => interval.mul_f64(chance),
        };
        entry.is_spread = pace == Pace::Watching;
        entry.due = Some(after(now, pause));
    }

    /// A probe of it could not be made at `now`.
    pub(super) fn not_probed(&mut self, id: Id, now: Instant, interval: Duration) {
        if let Some(entry) = self.0.get_mut(&id) {
            entry.due = Some(after(now, interval));
        }
    }

    /// The interval is another one from `now` on. Who would be probed later than a shorter one
    /// allows draws a place in the coming interval: so not all are probed at once. A `chance` is
    /// below
    /// 1.
    pub(super) fn hasten(&mut self, now: Instant, interval: Duration, chance: impl Fn() -> f64) {
        let latest = after(now, interval);
        for due in self.0.values_mut().filter_map(|entry| entry.due.as_mut()).filter(|due| **due > latest) {
            *due = after(now, interval.mul_f64(chance()));
        }
    }

    /// Nothing comes of a probe that is under way: those that are being probed are due again.
    pub(super) fn fell(&mut self, due: Instant) {
        self.0.values_mut().for_each(|entry| entry.due = entry.due.or(Some(due)));
    }
}

/// The moment `interval` after `begun`; of an interval beyond the clock's range a day.
pub(in crate::apps) fn after(begun: Instant, interval: Duration) -> Instant {
    begun.checked_add(interval).unwrap_or_else(|| begun + Duration::from_secs(86_400))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::set::{Rules, Set};
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const RULES: Rules = Rules { successes: 1, failures: 2, drain: INTERVAL };

    /// So many members of one set.
    fn ids(count: u16) -> Vec<Id> {
        let mut set = Set::default();
        let addrs: Vec<_> = (1..=count).map(|port| ([127, 0, 0, 1], port).into()).collect();
        set.list(&addrs, |_| true);
        set.members(RULES).map(|(member, _)| member.id).collect()
    }

    fn keep(schedule: &mut Schedule, ids: &[Id], now: Instant) {
        schedule.keep(&ids.iter().map(|id| (*id, ())).collect(), now);
    }

    fn take_due(schedule: &mut Schedule, now: Instant) -> Vec<Id> {
        std::iter::from_fn(|| schedule.next(now)).collect()
    }

    #[test]
    fn members_that_came_together_are_probed_at_once_and_then_spread_over_the_interval() {
        let (mut schedule, ids, now) = (Schedule::default(), ids(100), Instant::now());
        keep(&mut schedule, &ids, now);
        assert_eq!(take_due(&mut schedule, now), ids);
        assert_eq!(schedule.next_due(), None, "all are being probed");
        for (number, id) in ids.iter().enumerate() {
            let chance = number as f64 / ids.len() as f64;
            schedule.probed(*id, now, (Pace::Watching, INTERVAL), chance);
        }
        // Two rounds, in steps of a tenth of the interval.
        let mut counts = BTreeMap::<Id, usize>::new();
        for step in 0..20 {
            let at = now + INTERVAL / 10 * step + Duration::from_millis(950);
            let due = take_due(&mut schedule, at);
            assert_eq!(due.len(), 10, "in step {step}");
            for id in due {
                *counts.entry(id).or_default() += 1;
                // The probe took no time, and was begun when it was due.
                let place = ids.iter().position(|each| *each == id).unwrap() as u32;
                let begun = now + INTERVAL / 100 * place + INTERVAL * (step / 10);
                schedule.probed(id, begun, (Pace::Watching, INTERVAL), 0.5);
            }
        }
        assert!(counts.values().all(|count| *count == 2), "{counts:?}");
    }

    #[test]
    fn a_shorter_interval_is_used_at_once_and_a_longer_one_from_the_next_probe_on() {
        let (mut schedule, ids, now) = (Schedule::default(), ids(3), Instant::now());
        keep(&mut schedule, &ids, now);
        assert_eq!(take_due(&mut schedule, now), ids);
        schedule.probed(ids[0], now, (Pace::Watching, INTERVAL), 0.9);
        schedule.probed(ids[1], now, (Pace::Watching, INTERVAL), 0.0);
        schedule.hasten(now, INTERVAL * 2, || 0.5);
        assert_eq!(take_due(&mut schedule, now), [ids[1]], "a longer one changes nothing");
        assert_eq!(schedule.next_due(), Some(now + INTERVAL / 10 * 9));
        schedule.hasten(now, INTERVAL / 10, || 0.5);
        assert_eq!(schedule.next_due(), Some(now + INTERVAL / 20));
        schedule.hasten(now, INTERVAL / 20, || 0.5);
        assert_eq!(schedule.next_due(), Some(now + INTERVAL / 20), "it is within the interval");
    }

    #[test]
    fn one_that_is_waited_for_is_probed_soon_and_one_that_could_not_be_an_interval_later() {
        let (mut schedule, ids, now) = (Schedule::default(), ids(2), Instant::now());
        keep(&mut schedule, &ids, now);
        assert_eq!(take_due(&mut schedule, now), ids);
        schedule.probed(ids[0], now, (Pace::Joining, INTERVAL), 0.9);
        schedule.not_probed(ids[1], now, INTERVAL);
        assert_eq!(schedule.next_due(), Some(now + JOINING_PACE));
        assert_eq!(take_due(&mut schedule, now + JOINING_PACE), [ids[0]]);
        assert_eq!(schedule.next_due(), Some(now + INTERVAL));
        schedule.fell(now + INTERVAL / 2);
        assert_eq!(schedule.next_due(), Some(now + INTERVAL / 2));
        keep(&mut schedule, &ids[1..], now);
        assert_eq!(schedule.next_due(), Some(now + INTERVAL), "the other one is forgotten");
        schedule.not_probed(ids[1], now, Duration::MAX);
        assert!(schedule.next_due().is_some());
    }
}
