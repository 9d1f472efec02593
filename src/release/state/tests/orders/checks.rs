//! What has to hold after each step, and from one step to the next.

use super::*;
use crate::config::Replicas;

impl Life {
    /// What portok goes back to by itself is another release than the live one, and in no
    /// quarantine.
    pub(super) fn check_way_back(&self) {
        let live = self.state.live_release().map(|release| release.id.as_str());
        if let Some(previous) = self.state.previous() {
            let id = previous.release.id.as_str();
            assert_ne!(Some(id), live, "live is its own previous");
            assert!(!self.state.past.is_quarantined(id), "the previous one is in quarantine");
        }
        if let Some(task) = self.state.task.as_ref().filter(|task| task.reason == Reason::AutoRollback) {
            let id = task.release.id.as_str();
            assert_ne!(Some(id), live, "it goes back to where it is");
            assert!(!self.state.past.is_quarantined(id), "it goes back to what is in quarantine");
        }
    }

    /// A daemon that is killed on its way back goes on with that.
    pub(super) fn check_boot(&self, boot: &Boot) {
        let goes_on = self.state.goes_back() || self.state.way_back(None, false, &self.policy).is_err();
        assert!(!boot.going_back || goes_on, "the way back is forgotten: {:?}", self.state);
    }

    /// A rollback does what a dry run said; one that is refused changes nothing; what it leaves is
    /// in quarantine.
    pub(super) fn check_rollback(&self, before: &State, event: &Event, effects: &[Effect]) {
        if let Event::Rollback { to, force } = event {
            let bare = to.is_none();
            match before.way_back(to.as_deref(), *force, &self.policy) {
                Err(refusal) => {
                    assert_eq!(effects, [Effect::Refuse(refusal)]);
                    assert_eq!(self.state, *before);
                }
                Ok(way) => {
                    assert!(!(bare && before.past.is_quarantined(&way.to.id)));
                    let task = self.state.task.as_ref().map(|task| &task.release);
                    let goes = way.by != WayTo::Serves;
                    assert_eq!(task, Some(&way.to).filter(|_| goes), "another way than was said");
                }
            }
        }
        for effect in effects {
            if let Effect::Tell(Tell::Switched { reason, from_release: Some(left), .. }) = effect {
                let quarantined = self.state.past.is_quarantined(&left.id);
                assert!(
                    quarantined || !reason.is_rollback(),
                    "`{}` was left and is in no quarantine",
                    left.id
                );
            }
        }
    }

    /// Requests go to the live runs, which are of one set: to all of them, but for those that fail
    /// their probes while others do not.
    pub(super) fn check_route(&self) {
        let live = self.state.live_runs();
        if self.state.live_run().is_some_and(Run::managed) {
            assert!(!self.world.served.is_empty(), "nobody serves, and {live:?} could");
        }
        for run in &self.world.served {
            assert!(live.contains(run), "{run:?} serves and is not live");
        }
    }

    /// A set never has two runs of one number that are not being stopped, and never more than
    /// were wanted at a time, but for one that is to replace another; the live one forgets none of
    /// its places.
    pub(super) fn check_sets(&self) {
        let mut sets = BTreeMap::<SetId, BTreeSet<u16>>::new();
        for run in self.state.runs() {
            if let Some((set, replica)) = self.state.place_of(run.id) {
                let facts = self.world.runs.get(&run.id).copied().unwrap_or_default();
                assert!(facts.stops == 0 || facts.gone, "{run:?} has a place and is being stopped");
                let numbers = sets.entry(set).or_default();
                assert!(numbers.insert(replica), "two of number {replica} in {set:?}");
                assert!(numbers.len() <= usize::from(MOST) + 1, "{set:?} has more than one beyond {MOST}");
            }
        }
        let Live::Set(live) = &self.state.live else { return };
        let grows = self.state.stopping == Stopping::No && live.managed() && !self.state.goes_back();
        assert!(!grows || live.places().len() >= self.policy.replicas.min, "too few: {live:?}");
        if self.state.stopping != Stopping::No {
            return;
        }
        let rollback = self.state.task.as_ref().is_some_and(|task| task.reason == Reason::AutoRollback);
        assert!(rollback || !live.places().is_undecided(), "nobody decides: {live:?}");
        // What waits for room is started when that is there.
        let waits = live.cause() == DownCause::Replaced;
        let task = self.state.task.is_some() || !self.state.leaving.is_empty();
        let nothing_left = live.stopping_runs().next().is_none();
        assert!(!waits || task || !nothing_left || !live.places().has_given_up(), "forgotten: {live:?}");
        let forgotten = !self.policy.restart.give_up && !waits && live.places().has_given_up();
        assert!(!forgotten, "forgotten: {live:?}");
        for ticket in live.places().tickets() {
            let waits = |timer: &Timer| matches!(timer, Timer::Restart(known, _) if *known == ticket);
            assert!(self.world.timers.iter().any(waits), "no timer brings {ticket} back");
        }
    }

    /// One look changes the number by one at most, within the bounds, and never in a window, during
    /// a task or while the set grows already.
    pub(super) fn check_growth(&self, before: &State, event: &Event, effects: &[Effect]) {
        let (Event::Load { load, .. }, Live::Set(was)) = (event, &before.live) else { return };
        let Live::Set(live) = &self.state.live else { return };
        // Other bounds than those of the step before are not the look's doing.
        let Replicas { min, max, .. } = self.policy.replicas;
        let (from, to) = (was.places().len(), live.places().len());
        if !live.managed() || !(min..=max).contains(&from) {
            return;
        }
        assert!((min..=max).contains(&to) && from.abs_diff(to) <= 1, "from {from} to {to} of {min}..{max}");
        let app = |effect: &&Effect| matches!(effect, Effect::Spawn { process: None, .. });
        let spawned = effects.iter().filter(app).count();
        assert_eq!(spawned, usize::from(to > from), "as many start as there are more");
        let may = !was.places().are_growing() && before.stopping == Stopping::No;
        assert!(may || from == to, "two changes at a time");
        let may_shrink = before.window.is_none() && before.task.is_none() && !load.elsewhere;
        assert!(
            may_shrink || to >= from,
            "it shrinks in a window, during a task, or while nobody knows its load"
        );
        let (left, tunnels) = (before.live_runs(), &load.tunnels);
        let left = left.iter().find(|run| !self.state.live_runs().contains(run));
        if let Some(left) = left.filter(|run| tunnels.contains(run)) {
            let stay = self.state.live_runs();
            assert!(!stay.is_empty(), "the last one has tunnels");
            assert!(stay.iter().all(|run| tunnels.contains(run)), "{left:?} has tunnels, others have none");
        }
    }

    /// The live release has each of its companions, and forgets none.
    pub(super) fn check_companions(&self) {
        let State { companions, live: Live::Set(live), stopping: Stopping::No, .. } = &self.state else {
            return;
        };
        let Some(sets) = companions.complete().filter(|_| self.world.switch <= self.state.recorded) else {
            return;
        };
        let wanted = self.policy.companions.get(&live.release().id).map_or(0, Vec::len);
        assert_eq!(sets.len(), if live.managed() { wanted } else { 0 }, "{companions:?}");
        for set in sets {
            let waits = set.stopping_runs().next().is_some();
            assert!(waits || !set.places().is_undecided(), "nobody decides: {set:?}");
            assert!(self.policy.restart.give_up || !set.places().has_given_up(), "forgotten: {set:?}");
            for ticket in set.places().tickets() {
                let brings = |timer: &Timer| matches!(timer, Timer::Restart(known, _) if *known == ticket);
                assert!(self.world.timers.iter().any(brings), "no timer brings {ticket} back");
            }
        }
    }

    /// Where one release replaces the other before it is started, no two run at a time.
    pub(super) fn check_room(&self) {
        let runs = |run: &&Facts| run.is_replica() && run.release.is_some() && !run.gone;
        let releases: BTreeSet<_> = self.world.runs.values().filter(runs).map(|run| run.release).collect();
        let alone = !self.policy.recreate || releases.len() <= 1;
        assert!(alone, "releases {releases:?} run at a time: {:?}", self.state);
    }

    /// The window belongs to the live release: only its end, its verdict or a move of traffic ends
    /// it.
    pub(super) fn check_window(&self, before: &State, event: &Event, effects: &[Effect]) {
        let Some(window) = before.window else { return };
        let moved = |effect: &Effect| matches!(effect, Effect::Tell(Tell::Switched { .. }));
        let verdict = match event {
            Event::Exited { run, .. } => before.live_runs().contains(run),
            Event::Gone { run } => self.world.companions.contains_key(run) && self.state.companions.loops(),
            Event::LiveProbed { run, healthy: false } => {
                let Live::Set(live) = &before.live else { return };
                let failed = live.clone().places_mut().probed(*run, false, true);
                failed.is_some_and(|failed| failed >= self.policy.threshold)
            }
            _ => false,
        };
        let ends =
            verdict || *event == Event::WindowOver { ticket: window.ticket } || effects.iter().any(moved);
        let goes_on = self.state.window.is_some_and(|still| still.ticket == window.ticket);
        assert!(goes_on || ends, "{event:?} took the watch window away");
    }
}
