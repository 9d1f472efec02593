//! Sets on their way out: traffic left them, or they never got any. They drain, are stopped, and
//! are forgotten when nothing is left of them.

use super::*;

/// A set on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// The set.
    pub(super) set: ReplicaSet,
    /// How far it is.
    pub(super) stage: LeavingStage,
}

/// How far a [`Leaving`] set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeavingStage {
    /// It finishes its requests.
    Draining {
        /// The drain has ended.
        over: bool,
        /// The save that records the switch that retired it.
        seq: u64,
    },
    /// Its stop was ordered.
    Stopping,
}

impl Leaving {
    pub(super) fn drains(&self) -> bool {
        matches!(self.stage, LeavingStage::Draining { .. })
    }
}

impl State {
    /// The set of this id that still drains.
    pub(super) fn drains(&self, set: SetId) -> Option<&ReplicaSet> {
        let set = |leaving: &&Leaving| leaving.drains() && leaving.set.id() == set;
        self.leaving.iter().find(set).map(|leaving| &leaving.set)
    }

    /// The newest set of this release that still drains.
    pub(super) fn draining_set_of(&self, release: &ReleaseRef) -> Option<SetId> {
        let of = |leaving: &&Leaving| leaving.drains() && leaving.set.release() == release;
        self.leaving.iter().rev().find(of).map(|leaving| leaving.set.id())
    }

    /// The set that still drains and is what a switch to `release` means.
    pub(super) fn draining_set_meant_by(&self, release: &ReleaseRef) -> Option<&ReplicaSet> {
        let meant = |leaving: &&Leaving| leaving.drains() && leaving.set.is_meant_by(release);
        self.leaving.iter().find(meant).map(|leaving| &leaving.set)
    }

    pub(super) fn is_draining(&self, id: RunId) -> bool {
        self.leaving.iter().any(|leaving| leaving.drains() && leaving.set.is_ready(id))
    }

    /// The sets whose drain is not over, each with what names the drain, and its runs.
    pub fn drains_under_way(&self) -> impl Iterator<Item = (SetId, u64, Vec<RunId>)> {
        self.leaving.iter().filter_map(|leaving| match leaving.stage {
            LeavingStage::Draining { over: false, seq } => {
                Some((leaving.set.id(), seq, leaving.set.ready_runs().map(|run| run.id).collect()))
            }
            _ => None,
        })
    }

    /// Traffic has left `set`; save `seq` records that.
    pub(super) fn let_go(&mut self, set: ReplicaSet, seq: u64, round: &mut Round<'_>) {
        if !set.serves() {
            self.forget_or_await(set);
            return;
        }
        for run in set.ready_runs() {
            round.push(Effect::Tell(Tell::Draining { run: run.id }));
        }
        round.push(Effect::Timer(Timer::Drain(set.id(), seq)));
        self.leaving.push(Leaving { set, stage: LeavingStage::Draining { over: false, seq } });
    }

    /// Keeps a set that is being stopped until nothing is left of it.
    pub(super) fn forget_or_await(&mut self, set: ReplicaSet) {
        if set.runs().next().is_some() {
            self.leaving.push(Leaving { set, stage: LeavingStage::Stopping });
        }
    }

    /// Takes a set out of those that leave, to make it live again.
    pub(super) fn take_leaving(&mut self, set: SetId) -> Option<ReplicaSet> {
        let at = self.leaving.iter().position(|leaving| leaving.set.id() == set)?;
        Some(self.leaving.remove(at).set)
    }

    /// The drain of a set is over.
    pub(super) fn drain_over(&mut self, set: SetId, drain: u64, round: &mut Round<'_>) {
        for leaving in self.leaving.iter_mut().filter(|leaving| leaving.set.id() == set) {
            if let LeavingStage::Draining { over: over @ false, seq } = &mut leaving.stage
                && *seq == drain
            {
                *over = true;
                for run in leaving.set.ready_runs() {
                    round.push(Effect::Close { run: run.id });
                    round.push(Effect::Tell(Tell::Drained { run: run.id }));
                }
            }
        }
    }

    /// The process of a run has ended that is not starting, and not live.
    pub(super) fn exited_while_leaving(&mut self, id: RunId, round: &mut Round<'_>) {
        let drains = |leaving: &Leaving| leaving.drains() && leaving.set.is_ready(id);
        if let Some(at) = self.leaving.iter().position(drains) {
            let leaving = &mut self.leaving[at];
            if let Some(run) = leaving.set.lose(id) {
                leaving.set.stop_lost(run, round);
            }
            leaving.set.leave(round);
            if !leaving.set.serves() {
                let Leaving { set, .. } = self.leaving.remove(at);
                self.forget_or_await(set);
            }
        }
        self.lost_for_revival(id, round);
    }

    /// Nothing is left of a run.
    pub(super) fn gone(&mut self, id: RunId, round: &mut Round<'_>) {
        let candidate = self.task.as_mut().and_then(|task| task.stage.candidate_mut());
        let leaving = self.leaving.iter_mut().map(|leaving| &mut leaving.set);
        let mut sets = self.live.set_mut().into_iter().chain(candidate).chain(leaving);
        let release = sets.find_map(|set| set.gone(id).then(|| set.release().clone()));
        let Some(release) = release.or_else(|| self.companion_gone(id)) else { return };
        self.leaving.retain(|leaving| leaving.set.runs().next().is_some());
        round.push(Effect::Tell(Tell::Stopped { run: id, release }));
        round.save();
        self.companions_crashed(id, round);
    }

    /// Stops the sets whose drain is over and whose retirement is written down, but for those that
    /// may be made live again.
    pub(super) fn stop_what_has_drained(&mut self, round: &mut Round<'_>) {
        let reviving = self.task.as_ref().and_then(|task| task.stage.revives());
        let standby = round.policy.standby && self.window.is_some() && self.stopping != Stopping::Groups;
        // Nothing may run beside what is to be started.
        let standby = standby && !self.makes_room();
        let recorded = self.recorded;
        let previous = self.previous().and_then(|previous| previous.set).filter(|_| standby);
        let (stop, stay) = std::mem::take(&mut self.leaving).into_iter().partition(|leaving| {
            let id = Some(leaving.set.id());
            matches!(leaving.stage, LeavingStage::Draining { over: true, seq } if seq <= recorded)
                && reviving != id
                && previous != id
        });
        self.leaving = stay;
        for Leaving { mut set, .. } in stop {
            set.stop(round);
            self.forget_or_await(set);
        }
    }

    /// Ends every drain: all groups are to be stopped.
    pub(super) fn end_drains(&mut self, round: &mut Round<'_>) {
        for Leaving { set, stage } in &mut self.leaving {
            if let LeavingStage::Draining { over: over @ false, .. } = stage {
                set.close(round);
                *over = true;
            }
        }
    }

    /// Kills what is being stopped.
    pub(super) fn kill_all(&self, round: &mut Round<'_>) {
        let live = self.live.set().into_iter().flat_map(ReplicaSet::stopping_runs);
        let leaving = self.leaving.iter().flat_map(|leaving| leaving.set.runs());
        for run in live.chain(leaving) {
            round.push(Effect::Kill { run: run.id });
        }
        self.kill_companions(round);
    }
}
