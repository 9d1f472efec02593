//! Companions: the processes of a release that get no requests. Each is a [`ReplicaSet`] whose runs
//! are ready as soon as they were executed.
//!
//! They belong to the tenure of their release, whatever its replicas do.
//!
//! ```text
//!   before the candidate: ahead ──▶ live ──switch──▶ left ──switch recorded──▶ stopping ──Gone──▶
//!                           └─────────── given up ──────────────────────────────▲
//! ```
//!
//! Those that start after the switch begin as `live`, once the switch is written down and nothing
//! is left of any companion of another tenure. A companion that has ended is started again only
//! when its whole group is gone, so that no two of one ever run.

use std::collections::BTreeMap;

use super::replicas::Said;
use super::*;

/// The companions of all releases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Companions {
    /// Those of the live release.
    live: Vec<ReplicaSet>,
    /// Those that run before the release of the task is live.
    ahead: Vec<ReplicaSet>,
    /// Those of releases that lost traffic, until that is written down.
    left: Vec<ReplicaSet>,
    /// Those whose stop was ordered.
    stopping: Vec<ReplicaSet>,
    /// The save that records the last switch.
    switch: u64,
    /// What an earlier daemon left is being stopped: nothing is started yet.
    leftovers: bool,
    /// Of those that were taken over some may be missing.
    incomplete: bool,
    /// When those of the live release crashed lately under an earlier daemon, until each has its
    /// set.
    inherited: BTreeMap<ProcessName, Vec<Duration>>,
    /// Companions at their crash limit that run now, each with the timer after which they count as
    /// well.
    on_trial: Vec<(SetId, u64)>,
}

impl Companions {
    pub(super) fn sets(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.live.iter().chain(&self.ahead).chain(&self.left).chain(&self.stopping)
    }

    fn sets_mut(&mut self) -> impl Iterator<Item = &mut ReplicaSet> {
        self.live.iter_mut().chain(&mut self.ahead).chain(&mut self.left).chain(&mut self.stopping)
    }

    /// The set of a run that is a companion.
    fn set_of(&mut self, id: RunId) -> Option<&mut ReplicaSet> {
        self.sets_mut().find(|set| set.runs().any(|run| run.id == id))
    }

    /// The runs of those that run before their release is live.
    pub(super) fn ahead(&self) -> impl Iterator<Item = &Run> {
        self.ahead.iter().flat_map(ReplicaSet::runs)
    }

    /// Those of the live release, once all of them are there that may be.
    #[cfg(test)]
    pub(super) fn complete(&self) -> Option<&[ReplicaSet]> {
        let waits = self.leftovers || self.incomplete || !self.left.is_empty() || !self.stopping.is_empty();
        (!waits).then_some(&self.live)
    }

    /// Whether what an earlier daemon left is still being stopped.
    pub(super) fn has_leftovers(&self) -> bool {
        self.leftovers
    }

    fn is_ahead(&self, set: SetId) -> bool {
        self.ahead.iter().any(|ahead| ahead.id() == set)
    }

    /// Whether those that start before the candidate run.
    fn are_ahead(&self) -> bool {
        self.ahead.iter().all(|set| set.places().are_complete())
    }

    /// Whether one of the live release is at its crash limit.
    pub(super) fn loops(&self) -> bool {
        self.live.iter().any(|set| set.cause() == DownCause::CrashLoop)
    }

    /// When those of the live release crashed lately, each that did.
    pub(super) fn crashes(&self) -> impl Iterator<Item = (&ProcessName, impl Iterator<Item = Duration>)> {
        let crashed = self.live.iter().filter(|set| set.crashes().next().is_some());
        crashed.filter_map(|set| Some((set.process()?, set.crashes())))
    }

    /// Keeps sets that are being stopped until nothing is left of them.
    fn keep_until_gone(&mut self, sets: Vec<ReplicaSet>) {
        self.stopping.extend(sets.into_iter().filter(|set| set.runs().next().is_some()));
    }

    fn stop(&mut self, mut sets: Vec<ReplicaSet>, round: &mut Round<'_>) {
        sets.iter_mut().for_each(|set| set.stop(round));
        self.on_trial.retain(|(trial, _)| !sets.iter().any(|set| set.id() == *trial));
        self.keep_until_gone(sets);
    }

    /// Starts those that run before their release is live, but for one of whose former tenure
    /// something is left: two of one never run.
    fn fill_ahead(&mut self, round: &mut Round<'_>) {
        if self.leftovers {
            return;
        }
        let Self { ahead, left, stopping, .. } = self;
        let is_left = |set: &ReplicaSet| {
            let is_it =
                |other: &ReplicaSet| other.process() == set.process() && other.release() == set.release();
            left.iter().chain(&*stopping).any(is_it)
        };
        for set in ahead.iter_mut().filter(|set| set.cause() == DownCause::Boot) {
            if !is_left(set) {
                set.fill_up(false, round);
            }
        }
    }

    /// Adds a set for each of `wanted` that has none there. Nothing is started.
    fn begin(
        sets: &mut Vec<ReplicaSet>,
        release: &ReleaseRef,
        wanted: impl Iterator<Item = Companion>,
        round: &mut Round<'_>,
    ) {
        for companion in wanted {
            if !sets.iter().any(|set| set.process() == Some(&companion.process)) {
                sets.push(ReplicaSet::of_companion(release.clone(), &companion, round));
            }
        }
    }

    /// The set of this companion among `sets`, which is added where it is missing.
    fn set_in<'a>(
        sets: &'a mut Vec<ReplicaSet>,
        release: &ReleaseRef,
        companion: &Companion,
        round: &mut Round<'_>,
    ) -> Option<&'a mut ReplicaSet> {
        let is_it = |set: &ReplicaSet| set.process() == Some(&companion.process);
        if !sets.iter().any(is_it) {
            sets.push(ReplicaSet::of_companion(release.clone(), companion, round));
        }
        sets.iter_mut().find(|set| is_it(set))
    }

    /// The sets of the live release take up what an earlier daemon knew of their crashes.
    fn inherit(&mut self) {
        for set in &mut self.live {
            if let Some(crashes) = set.process().and_then(|process| self.inherited.remove(process)) {
                set.resume(crashes, 0);
            }
        }
    }
}

// ---- their tenure ----

impl State {
    /// Starts the companions that a candidate needs before it. Those that run already stay.
    pub(super) fn accompany(&mut self, release: &ReleaseRef, round: &mut Round<'_>) {
        let wanted = round.companions(release);
        let before = wanted.iter().filter(|companion| companion.before).cloned();
        Companions::begin(&mut self.companions.ahead, release, before, round);
        self.companions.fill_ahead(round);
    }

    /// Starts the candidate, after the companions that it needs before it. A way back does not wait
    /// for them.
    pub(super) fn begin_candidate(&mut self, release: &ReleaseRef, round: &mut Round<'_>) -> Stage {
        self.accompany(release, round);
        if self.goes_back() || self.companions.are_ahead() {
            let count = self.wanted_of_candidate(release, round);
            Stage::Starting { set: ReplicaSet::start(release.clone(), count, round) }
        } else {
            Stage::Accompanying
        }
    }

    /// Traffic has moved; save `seq` records that.
    pub(super) fn companions_switch(&mut self, seq: u64) {
        let companions = &mut self.companions;
        companions.switch = seq;
        companions.inherited.clear();
        companions.left.append(&mut companions.live);
        companions.live = std::mem::take(&mut companions.ahead);
    }

    /// The task was given up.
    pub(super) fn stop_companions_ahead(&mut self, round: &mut Round<'_>) {
        let ahead = std::mem::take(&mut self.companions.ahead);
        self.companions.stop(ahead, round);
    }

    /// Stops those of a release that lost traffic, and starts those of the live release that it
    /// lacks, as soon as that may be.
    pub(super) fn see_to_companions(&mut self, round: &mut Round<'_>) {
        let companions = &mut self.companions;
        let is_recorded = companions.switch <= self.recorded;
        if is_recorded && !companions.left.is_empty() {
            let left = std::mem::take(&mut companions.left);
            companions.stop(left, round);
        }
        if self.stopping == Stopping::No {
            companions.fill_ahead(round);
        }
        let others = !companions.left.is_empty() || !companions.stopping.is_empty();
        if self.stopping != Stopping::No || !is_recorded || companions.leftovers || others {
            return;
        }
        companions.incomplete = false;
        let Some(release) = self.live.set().map(ReplicaSet::release) else { return };
        let wanted = round.companions(release).iter().cloned();
        Companions::begin(&mut companions.live, release, wanted, round);
        // What was taken over may lack some, too.
        for set in companions.live.iter_mut().filter(|set| set.cause() == DownCause::Boot) {
            set.fill_up(false, round);
        }
        companions.inherit();
    }

    /// Stops all of them; those of a release that lost traffic once that is written down.
    pub(super) fn stop_companions(&mut self, round: &mut Round<'_>) {
        let companions = &mut self.companions;
        let mut all = std::mem::take(&mut companions.live);
        all.append(&mut companions.ahead);
        companions.stop(all, round);
    }

    /// Kills those that are being stopped.
    pub(super) fn kill_companions(&self, round: &mut Round<'_>) {
        for run in self.companions.sets().flat_map(ReplicaSet::stopping_runs) {
            round.push(Effect::Kill { run: run.id });
        }
    }
}

// ---- what is reported of their runs ----

impl State {
    /// A companion was executed. False where the run is none.
    pub(super) fn companion_started(&mut self, id: RunId, round: &mut Round<'_>) -> bool {
        let Some(set) = self.companions.set_of(id) else { return false };
        let (looped, of) = (set.cause() == DownCause::CrashLoop, set.id());
        let Some(came) = set.ready(id) else { return true };
        round.push(Effect::Tell(Tell::CompanionStarted { run: id, again: came.again }));
        round.save();
        if looped {
            let ticket = round.fresh();
            self.companions.on_trial.retain(|(set, _)| *set != of);
            self.companions.on_trial.push((of, ticket));
            round.push(Effect::Timer(Timer::Calm(ticket, round.policy.restart.within)));
        }
        if let Some(Task { release, stage: Stage::Accompanying, .. }) = &self.task
            && self.companions.are_ahead()
        {
            let count = self.wanted_of_candidate(release, round);
            let set = ReplicaSet::start(release.clone(), count, round);
            if let Some(task) = &mut self.task {
                task.stage = Stage::Starting { set };
            }
        }
        true
    }

    /// A companion could not be started. False where the run is none.
    pub(super) fn companion_not_started(&mut self, id: RunId, round: &mut Round<'_>) -> bool {
        let Some(set) = self.companions.set_of(id) else { return false };
        let (of, said) = (set.id(), set.not_ready(id, round));
        if said == Said::Failed && self.companions.is_ahead(of) && !self.goes_back() {
            self.abort(Abort::NotReady, Some(id), round);
        }
        true
    }

    /// The leader of a companion has ended. What follows is decided when its group is gone. False
    /// where the run is none.
    pub(super) fn companion_exited(&mut self, id: RunId, round: &mut Round<'_>) -> bool {
        let Some(set) = self.companions.set_of(id) else { return false };
        if set.is_starting(id) {
            return self.companion_not_started(id, round);
        }
        if let Some(run) = set.lose(id) {
            set.stop_lost(run, round);
        }
        true
    }

    /// Nothing is left of a companion. Gives back its release, `None` where the run is none.
    pub(super) fn companion_gone(&mut self, id: RunId) -> Option<ReleaseRef> {
        let set = self.companions.set_of(id)?;
        let release = set.gone(id).then(|| set.release().clone())?;
        self.companions.stopping.retain(|set| set.runs().next().is_some());
        Some(release)
    }

    /// Decides about those that have ended and of which nothing is left, once run `id` has gone.
    pub(super) fn companions_crashed(&mut self, id: RunId, round: &mut Round<'_>) {
        let has_ended =
            |set: &&mut ReplicaSet| set.places().is_undecided() && set.stopping_runs().next().is_none();
        let companions = &mut self.companions;
        let mut sets = companions.live.iter_mut().chain(&mut companions.ahead);
        let Some(set) = sets.find(has_ended) else { return };
        if self.stopping != Stopping::No {
            set.give_up_undecided();
            return;
        }
        let looped = set.cause() == DownCause::CrashLoop;
        set.crashed(round);
        let (of, loops) = (set.id(), set.cause() == DownCause::CrashLoop);
        companions.on_trial.retain(|(set, _)| *set != of);
        if looped || !loops {
            return;
        }
        if !self.goes_back() && self.companions.is_ahead(of) {
            self.abort(Abort::Exited, Some(id), round);
        } else {
            self.companion_is_bad(round);
        }
    }

    /// A companion of the live release has reached its crash limit.
    fn companion_is_bad(&mut self, round: &mut Round<'_>) {
        if self.goes_back() {
            return;
        }
        let Some(window) = self.window.take() else { return };
        if !(window.goes_back && self.roll_back(round)) {
            round.push(Effect::Tell(Tell::NoWayBack { went_back: !window.goes_back }));
        }
    }

    /// The delay before the next start of a companion is over.
    pub(super) fn companion_restart_due(&mut self, ticket: u64, round: &mut Round<'_>) {
        let Companions { live, ahead, .. } = &mut self.companions;
        live.iter_mut().chain(ahead).for_each(|set| _ = set.restart_due(ticket, round));
    }

    /// A companion that was at its crash limit has run for `app.restart.within`.
    pub(super) fn companion_calmed(&mut self, ticket: u64) {
        let companions = &mut self.companions;
        let Some(at) = companions.on_trial.iter().position(|(_, known)| *known == ticket) else { return };
        let (of, _) = companions.on_trial.remove(at);
        if let Some(set) = companions.live.iter_mut().find(|set| set.id() == of) {
            set.end_loop();
        }
    }
}

// ---- the boot ----

impl State {
    /// Takes over the companions of an earlier daemon: those of the live release, or of one that is
    /// made live as that daemon had begun to. Others are stopped.
    pub(super) fn take_over_companions(
        &mut self,
        runs: Vec<Adopted>,
        crashes: BTreeMap<ProcessName, Vec<Duration>>,
        leftovers: bool,
        round: &mut Round<'_>,
    ) {
        self.companions.inherited = crashes;
        self.companions.leftovers = leftovers;
        self.companions.incomplete = true;
        for Adopted { run, role, replica, .. } in runs {
            if role == Role::Stopping {
                self.companions.keep_until_gone(vec![ReplicaSet::of_stopping(run, round)]);
                continue;
            }
            let known = round.companions(&run.release).iter().find(|companion| {
                Some(&companion.process) == run.process.as_ref() && replica < companion.replicas
            });
            let is_live = self.live_release() == Some(&run.release);
            let is_ahead = self.task.as_ref().is_some_and(|task| task.release == run.release);
            let sets = match known {
                Some(_) if self.stopping != Stopping::No => None,
                Some(companion) if is_live => Some((&mut self.companions.live, companion)),
                Some(companion) if is_ahead => Some((&mut self.companions.ahead, companion)),
                _ => None,
            };
            let place = sets.and_then(|(sets, companion)| {
                Companions::set_in(sets, &run.release, companion, round).filter(|set| set.accepts(replica))
            });
            if let Some(set) = place {
                set.take_in_ready(run, replica);
            } else {
                let set = ReplicaSet::of_ready(run, replica, round);
                self.companions.stop(vec![set], round);
            }
        }
        self.companions.inherit();
    }

    /// What an earlier daemon left is gone.
    pub(super) fn companions_may_start(&mut self) {
        self.companions.leftovers = false;
    }
}
