//! The boot: the machine goes on where an earlier daemon left the app.

use std::collections::BTreeMap;

use super::*;

/// How many replicas the live release is to have: as it is `recorded`, else as many as ran.
fn wanted(recorded: Option<u16>, live: &ReleaseRef, runs: &[Adopted], round: &Round<'_>) -> u16 {
    let of_live = |adopted: &&Adopted| {
        matches!(adopted.role, Role::Live | Role::Restoring) && adopted.run.release == *live
    };
    let ran = || u16::try_from(runs.iter().filter(of_live).count()).unwrap_or(u16::MAX).max(1);
    round.replicas(live).within(recorded.unwrap_or_else(ran))
}

impl State {
    pub(super) fn boot(&mut self, boot: Boot, round: &mut Round<'_>) {
        let Boot { live, past, restarts, crashes, failed_probes, unfinished, window, went_back, .. } = boot;
        let ended = boot.ended && !boot.recreating;
        let Boot { going_back, recreating, leftovers, runs, companion_crashes, .. } = boot;
        runs.iter().for_each(|adopted| round.ids.skip(adopted.run.id.0));
        let wanted = live.as_ref().map_or(0, |live| wanted(boot.wanted, live, &runs, round));
        // With that nothing may run twice.
        let wanted = if boot.recreated { wanted.min(1) } else { wanted };
        self.restarts = restarts;
        self.recreated = boot.recreated;
        self.past = past;
        if let Some(live) = &live {
            self.past.went_live(live);
        }
        self.live = live.map_or(Live::None, |release| {
            let mut set = ReplicaSet::vacant(release, round);
            // Of several it is not known whose they were.
            set.resume(crashes, if wanted == 1 { failed_probes } else { 0 });
            Live::Set(set)
        });
        let took_over = !runs.is_empty();
        let (companions, runs): (Vec<_>, Vec<_>) =
            runs.into_iter().partition(|adopted| adopted.run.process.is_some());
        let mut drains = BTreeMap::new();
        for adopted in runs {
            if adopted.role == Role::Live || adopted.role == Role::Draining {
                self.has_run_for(&adopted, round);
            }
            match &unfinished {
                Some((release, reason)) if self.may_resume(release, &adopted) => {
                    self.resume(adopted, *reason, round);
                }
                _ if adopted.role == Role::Draining => self.take_over_drain(adopted, &mut drains, round),
                _ => self.take_over(adopted, round),
            }
        }
        if let Live::Set(set) = &mut self.live {
            set.widen(wanted);
            if set.is_idle() {
                round.push(Effect::Idle);
            }
        }
        if let Some(Task { release, stage: Stage::Starting { set }, .. }) = &mut self.task {
            set.widen(round.replicas(release).min.max(1));
            set.fill_up(false, round);
        }
        self.take_over_companions(companions, companion_crashes, leftovers, round);
        // One may have been about to replace another.
        if window.is_none() && !going_back && self.stopping == Stopping::No {
            self.shrink_to(wanted, round);
        }
        if let Some(left) = window.filter(|_| self.live != Live::None) {
            let ticket = round.fresh();
            self.window = Some(Window { ticket, goes_back: !went_back, waits: false });
            round.push(Effect::Resume(Timer::Window(ticket), left));
        }
        // Nothing is started where the daemon was told to end while the leftovers were looked for.
        if self.stopping == Stopping::No {
            self.take_up(ended, going_back, recreating, leftovers, round);
        }
        if took_over {
            round.save();
        }
    }

    /// Whether this run may still become live: it may where no release was, because nothing is
    /// given up for it.
    fn may_resume(&self, release: &ReleaseRef, adopted: &Adopted) -> bool {
        let Adopted { run, role, replica, step, .. } = adopted;
        let fits = match &self.task {
            None => true,
            Some(Task { stage: Stage::Starting { set }, .. }) => set.accepts(*replica),
            Some(_) => false,
        };
        let free = self.live == Live::None && self.stopping == Stopping::No;
        let is_candidate = *role == Role::Candidate && step.is_none();
        free && fits && is_candidate && run.release == *release
    }

    /// Keeps the candidate of an earlier daemon, which may have served already.
    fn resume(&mut self, adopted: Adopted, reason: Reason, round: &mut Round<'_>) {
        let Adopted { run, replica, .. } = adopted;
        round.push(Effect::Await { run: run.id });
        round.push(Effect::Tell(Tell::Resumed { run: run.id }));
        let release = run.release.clone();
        let task = self.task.get_or_insert_with(|| {
            let set = ReplicaSet::vacant(release.clone(), round);
            let (plan, stage) = (Plan::default(), Stage::Starting { set });
            Task { release, reason, plan, before_done: false, stage }
        });
        if let Stage::Starting { set } = &mut task.stage {
            set.take_in_starting(run, replica);
        }
    }

    /// Takes over a run of an earlier daemon that traffic has left. `drains` has the sets of those
    /// that were taken over so far, by what the earlier daemon called them.
    fn take_over_drain(
        &mut self,
        adopted: Adopted,
        drains: &mut BTreeMap<u64, SetId>,
        round: &mut Round<'_>,
    ) {
        let Adopted { run, set: recorded, replica, left, .. } = adopted;
        let known = drains.get(&recorded).copied().filter(|_| recorded != 0);
        let fits = |leaving: &&mut Leaving| {
            Some(leaving.set.id()) == known
                && *leaving.set.release() == run.release
                && leaving.set.accepts(replica)
        };
        if let Some(leaving) = self.leaving.iter_mut().find(fits) {
            leaving.set.take_in_ready(run, replica);
            return;
        }
        let set = ReplicaSet::of_ready(run, replica, round);
        drains.insert(recorded, set.id());
        // It may be stopped before this daemon has saved anything.
        let seq = self.recorded;
        round.push(Effect::Resume(Timer::Drain(set.id(), seq), left));
        self.leaving.push(Leaving { set, stage: LeavingStage::Draining { over: false, seq } });
    }

    /// Takes over a run of an earlier daemon that does not drain.
    fn take_over(&mut self, adopted: Adopted, round: &mut Round<'_>) {
        let Adopted { run, role, replica, .. } = adopted;
        // One run takes each place of the live release; a second one, whatever wrote it down, is
        // stopped.
        let (id, stopping) = (run.id, self.stopping != Stopping::No);
        let fits = |set: &&mut ReplicaSet| {
            adopted.step.is_none() && *set.release() == run.release && set.accepts(replica)
        };
        let live = self.live.set_mut().filter(fits);
        match (role, live) {
            (Role::Live, Some(live)) => {
                live.take_in_ready(run, replica);
                self.serve(None, round);
                round.push(Effect::Tell(Tell::Adopted { run: id }));
            }
            (Role::Restoring, Some(live)) if !stopping => {
                round.push(Effect::Await { run: id });
                live.take_in_starting(run, replica);
            }
            (Role::Stopping, _) => self.forget_or_await(ReplicaSet::of_stopping(run, round)),
            _ => {
                let mut set = ReplicaSet::of_ready(run, replica, round);
                set.stop(round);
                self.forget_or_await(set);
            }
        }
    }

    /// Brings the live release up, as far as no runs of it were taken over; an end that nobody saw
    /// counts as a crash.
    fn take_up(
        &mut self,
        ended: bool,
        going_back: bool,
        recreating: bool,
        leftovers: bool,
        round: &mut Round<'_>,
    ) {
        let alone = recreating || self.recreated || round.policy.recreate;
        let Live::Set(set) = &mut self.live else { return };
        let in_window = self.window.is_some() || going_back;
        let ended_unseen = set.places().has_given_up() && ended && in_window;
        // The rollback was begun because of an end that the earlier daemon saw.
        let ended_seen = going_back && !set.serves() && !recreating;
        if ended_unseen || ended_seen {
            // It ended in its watch window.
            set.ended_unseen();
            let goes_back = self.window.take().is_none_or(|window| window.goes_back);
            if !(goes_back && self.roll_back(round)) {
                self.crashed(round);
            }
            return;
        }
        let serves = set.serves();
        self.lacks_since_boot = serves && leftovers;
        if alone && !serves {
            set.wait_for_room();
        } else if !self.lacks_since_boot {
            set.fill_up(true, round);
        }
        // One that was stopped for the way back is not started before that.
        if going_back && (serves || recreating) {
            self.window = None;
            if !self.roll_back(round) {
                round.push(Effect::Tell(Tell::NoWayBack { went_back: false }));
            }
        }
    }

    /// Starts what the live release lacks since the boot.
    pub(super) fn start_what_lacks(&mut self, round: &mut Round<'_>) {
        self.companions_may_start();
        let lacks = std::mem::take(&mut self.lacks_since_boot) && self.stopping == Stopping::No;
        if let Live::Set(set) = &mut self.live
            && lacks
        {
            set.fill_up(true, round);
        }
    }
}
