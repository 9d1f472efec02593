//! The one deploy, switch or rollback under way: from the record of its intent to its success or
//! its end.

use super::*;

/// The one deploy, switch or rollback under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// What shall become live.
    pub release: ReleaseRef,
    /// Why.
    pub reason: Reason,
    /// What it does on its way.
    pub plan: Plan,
    /// Its step `before` has ended as it should.
    pub before_done: bool,
    /// How far it is.
    pub stage: Stage,
}

/// What a [`Task`] does beside starting its release: decided when it is accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// How long its step `before` may take; `None`: it has none.
    pub before: Option<Duration>,
    /// How long its step `verify` may take; `None`: it has none.
    pub verify: Option<Duration>,
    /// The live release is stopped before the other one is started.
    pub recreate: bool,
}

/// How far a [`Task`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// The intent is being written down.
    Recording {
        /// The save that carries it.
        seq: u64,
        /// A set that still drains and may be made live again.
        revive: Option<SetId>,
    },
    /// Its step `before` runs.
    Before {
        /// The step.
        run: Run,
    },
    /// The live release is being stopped.
    Vacating {
        /// Its runs, among those that leave; `None`: it had none.
        former: Option<SetId>,
    },
    /// The companions that start before it are being executed.
    Accompanying,
    /// It was started, or (unmanaged) is being probed, and is not ready yet.
    Starting {
        /// The candidate.
        set: ReplicaSet,
    },
    /// Its step `verify` runs.
    Verifying {
        /// The candidate, all of which is ready.
        set: ReplicaSet,
        /// The step.
        run: Run,
    },
    /// A set that still drains is probed.
    Reviving {
        /// The set, still among those that leave.
        set: SetId,
        /// Its runs that have not answered yet.
        unproven: Vec<RunId>,
    },
}

impl Task {
    /// The refusal of another request meanwhile.
    pub fn busy(&self) -> Refusal {
        Refusal::Busy { release: self.release.id.clone(), reason: self.reason }
    }
}

impl Stage {
    /// The set that may be made live again.
    pub(super) fn revives(&self) -> Option<SetId> {
        match self {
            Self::Recording { revive, .. } => *revive,
            Self::Reviving { set, .. } => Some(*set),
            _ => None,
        }
    }

    /// The set that was started.
    pub(super) fn candidate(&self) -> Option<&ReplicaSet> {
        match self {
            Self::Starting { set } | Self::Verifying { set, .. } => Some(set),
            _ => None,
        }
    }

    /// The set that was started.
    pub(super) fn candidate_mut(&mut self) -> Option<&mut ReplicaSet> {
        match self {
            Self::Starting { set } | Self::Verifying { set, .. } => Some(set),
            _ => None,
        }
    }
}

impl State {
    /// Begins a task.
    pub(super) fn record_intent(
        &mut self,
        release: ReleaseRef,
        reason: Reason,
        plan: Plan,
        revive: Option<SetId>,
        round: &mut Round<'_>,
    ) {
        let seq = round.save();
        let stage = Stage::Recording { seq, revive };
        self.task = Some(Task { release, reason, plan, before_done: false, stage });
        round.push(Effect::Tell(Tell::Accepted));
    }

    /// A save has ended: the candidate may start once its intent is written down.
    pub(super) fn saved(&mut self, seq: u64, ok: bool, round: &mut Round<'_>) {
        self.recorded = self.recorded.max(seq);
        let Some(Task { release, reason, stage: Stage::Recording { seq: waited, revive }, .. }) = &self.task
        else {
            return;
        };
        if *waited > seq {
            return;
        }
        if !ok && !reason.is_rollback() {
            self.abort(Abort::Unrecorded, None, round);
            return;
        }
        let release = release.clone();
        match revive.filter(|set| self.drains(*set).is_some()) {
            Some(set) => {
                let stage = self.revive(&release, set, round);
                if let Some(task) = &mut self.task {
                    task.stage = stage;
                }
            }
            None => self.begin_plan(round),
        }
    }

    /// Probes the runs of a set that still drains.
    pub(super) fn revive(&mut self, release: &ReleaseRef, set: SetId, round: &mut Round<'_>) -> Stage {
        self.accompany(release, round);
        let runs = self.drains(set).into_iter().flat_map(ReplicaSet::ready_runs);
        let unproven: Vec<RunId> = runs.map(|run| run.id).collect();
        for run in &unproven {
            round.push(Effect::Probe { run: *run, patient: false });
        }
        Stage::Reviving { set, unproven }
    }

    /// A run of the candidate is ready, or one that is to be made live again has answered. False
    /// where the run is neither.
    pub(super) fn ready_for_task(&mut self, id: RunId, round: &mut Round<'_>) -> bool {
        let Some(task) = &mut self.task else { return false };
        match &mut task.stage {
            Stage::Starting { set } => {
                if set.ready(id).is_none() {
                    return false;
                }
                if set.places().are_complete() {
                    let set = set.clone();
                    self.all_ready(set, round);
                }
            }
            Stage::Reviving { set, unproven } => {
                if !unproven.contains(&id) {
                    return false;
                }
                unproven.retain(|run| *run != id);
                let proven = Some(*set).filter(|_| unproven.is_empty());
                if let Some(set) = proven.and_then(|set| self.take_leaving(set)) {
                    self.go_live(set, false, round);
                }
            }
            _ => return false,
        }
        true
    }

    /// A run that was to be made live again has ended. Where it was the last one of its set, the
    /// release is started instead.
    pub(super) fn lost_for_revival(&mut self, id: RunId, round: &mut Round<'_>) {
        let Some(Task { stage: Stage::Reviving { set, unproven }, .. }) = &mut self.task else { return };
        let set = *set;
        unproven.retain(|run| *run != id);
        let proven = unproven.is_empty();
        if self.drains(set).is_none() {
            let seq = round.save();
            let release = self.task.as_ref().map(|task| task.release.clone());
            let recreate = release.is_some_and(|release| self.stops_live_first(&release, round.policy));
            if let Some(task) = &mut self.task {
                task.plan.recreate = recreate;
                task.stage = Stage::Recording { seq, revive: None };
            }
        } else if proven && let Some(set) = self.take_leaving(set) {
            self.go_live(set, false, round);
        }
    }

    /// Moves traffic to `set`. `started`: its processes were started for that.
    pub(super) fn go_live(&mut self, mut set: ReplicaSet, started: bool, round: &mut Round<'_>) {
        let Some(task) = self.task.take() else { return };
        let Some(run) = set.ready_runs().next().map(|run| run.id) else { return };
        let back = task.reason.is_rollback();
        let left = self.live_release().cloned();
        set.begin_tenure();
        self.past_moves(set.release(), left.as_ref().filter(|_| back));
        let wanted = self.wanted();
        let former = match std::mem::replace(&mut self.live, Live::Set(set)) {
            Live::Set(mut former) => {
                former.leave(round);
                Some(former)
            }
            Live::None => None,
        };
        self.restarts = 0;
        self.recreated = task.plan.recreate;
        let treatment = if back { FormerTarget::Close } else { FormerTarget::Retire };
        let served = former.as_ref().filter(|former| former.serves());
        let former_run = served.and_then(|former| former.ready_runs().next()).map(|run| run.id);
        self.serve(Some(served.map(|former| (former.id(), treatment))), round);
        let seq = round.save();
        self.companions_switch(seq);
        round.push(Effect::Tell(Tell::Switched {
            run,
            from: former_run,
            reason: task.reason,
            from_release: left,
            seq,
        }));
        if let Some(former) = former {
            self.let_go(former, seq, round);
        }
        // A rollback to a run that never stopped needs no proof.
        if round.policy.window && (started || !back) {
            self.watch(task.reason, round);
        } else {
            self.settle();
        }
        // Neither a set that drained nor one that was started before has grown meanwhile.
        self.grow_to(wanted, round);
    }

    /// Traffic moves to `to`; a rollback takes it away from `left`.
    fn past_moves(&mut self, to: &ReleaseRef, left: Option<&ReleaseRef>) {
        if let Some(left) = left {
            self.past.quarantine(&left.id);
        }
        self.past.went_live(to);
    }

    /// Gives the task up and brings back what is down. Traffic stays where it is. `by`: the run
    /// that is the reason.
    pub(super) fn abort(&mut self, why: Abort, by: Option<RunId>, round: &mut Round<'_>) {
        self.give_up(why, by, round);
        self.bring_back(round);
    }

    /// No rollback is under way any more: what has ended meanwhile is started again.
    pub(super) fn bring_back(&mut self, round: &mut Round<'_>) {
        if self.stopping == Stopping::No && self.live.set().is_some_and(|live| live.places().is_undecided()) {
            self.crashed(round);
        }
    }

    /// Gives the task up.
    pub(super) fn give_up(&mut self, why: Abort, by: Option<RunId>, round: &mut Round<'_>) {
        let revived = self.revived_run().map(|run| run.id);
        let Some(Task { release, reason, before_done, stage, .. }) = self.task.take() else { return };
        let run = match stage {
            Stage::Recording { .. } | Stage::Accompanying => None,
            Stage::Before { run } => {
                let id = run.id;
                self.stop_step(run, round);
                Some(id)
            }
            Stage::Vacating { former } => {
                former.into_iter().for_each(|former| self.take_back(former, round));
                None
            }
            Stage::Starting { set } => self.stop_candidate(set, round),
            Stage::Verifying { set, run } => {
                self.stop_step(run, round);
                self.stop_candidate(set, round)
            }
            Stage::Reviving { .. } => revived,
        };
        self.stop_companions_ahead(round);
        let run = by.or(run);
        let seq = (why != Abort::Unrecorded).then(|| round.save());
        round.push(Effect::Tell(Tell::Aborted { release, reason, run, why, before_done, seq }));
    }

    /// Stops a set that was started in vain. Gives back the run of the lowest number.
    fn stop_candidate(&mut self, mut set: ReplicaSet, round: &mut Round<'_>) -> Option<RunId> {
        let run = set.runs().next().map(|run| run.id);
        set.stop(round);
        self.forget_or_await(set);
        run
    }
}
