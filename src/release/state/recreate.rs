//! Recreate: for an app of which no two releases may run at a time, the live release is stopped
//! before the other one is started. Requests wait meanwhile.
//!
//! ```text
//!   live:  serves ──make_room──▶ vacant ─────────────────────────────▶ replaced
//!                                 │  ▲ └─ given up, all else is gone ─▶ starts again
//!                                 ▼  └─── given up while it drains
//!   what it was: leaving: Draining, then Stopping ──gone──▶ the candidate starts
//! ```
//!
//! The live release stays the live one all the time: its set is vacant ([`DownCause::Replaced`]),
//! and its runs leave as a set of their own. Nothing is started, neither the candidate nor the live
//! release again, before nothing is left of whatever else has run.

use super::*;

impl State {
    /// Whether a task that goes back to `to` stops the live release first: because an app is
    /// configured so, or because the live release itself was made live so.
    pub(super) fn stops_live_first(&self, to: &ReleaseRef, policy: &Policy) -> bool {
        to.origin == Origin::Managed && (policy.recreate || self.recreated)
    }

    /// Whether no two processes of the app may run at a time.
    pub(super) fn runs_alone(&self, policy: &Policy) -> bool {
        let recreates = || self.task.as_ref().is_some_and(|task| task.plan.recreate);
        policy.recreate || self.recreated || recreates()
    }

    /// Whether a process of the live release may be started: where no two may run at a time,
    /// nothing else is left.
    pub(super) fn has_room(&self, policy: &Policy) -> bool {
        let stops = || self.live.set().is_some_and(|live| live.stopping_runs().next().is_some());
        !(policy.recreate || self.recreated) || self.leaving.is_empty() && !stops()
    }

    /// Whether the live release is down because another one takes its place, or was to.
    pub fn is_vacant(&self) -> bool {
        self.live.set().is_some_and(|live| live.cause() == DownCause::Replaced && !live.serves())
    }

    /// Whether something is started once nothing else is left.
    pub fn makes_room(&self) -> bool {
        let vacates = |task: &Task| matches!(task.stage, Stage::Vacating { .. });
        self.is_vacant() || self.task.as_ref().is_some_and(vacates)
    }

    /// The candidate's turn to start has come, or that of what has to be gone before.
    pub(super) fn make_room(&mut self, round: &mut Round<'_>) {
        if !self.task.as_ref().is_some_and(|task| task.plan.recreate) {
            self.start_candidate(round);
            return;
        }
        let former = self.vacate(round);
        if let Some(task) = &mut self.task {
            task.stage = Stage::Vacating { former };
        }
    }

    fn start_candidate(&mut self, round: &mut Round<'_>) {
        let Some(release) = self.task.as_ref().map(|task| task.release.clone()) else { return };
        let stage = self.begin_candidate(&release, round);
        if let Some(task) = &mut self.task {
            task.stage = stage;
        }
    }

    /// Takes the live release's runs from it: requests wait, and these finish what they have. Gives
    /// back the set that they are now. An unmanaged one serves on: it cannot be stopped.
    fn vacate(&mut self, round: &mut Round<'_>) -> Option<SetId> {
        let Live::Set(live) = &mut self.live else { return None };
        if !live.managed() {
            return None;
        }
        round.push(Effect::Hold(HoldOn::Recreate));
        self.served.clear();
        self.lacks_since_boot = false;
        let former = live.give_away(round);
        let seq = round.save();
        let id = former.as_ref().map(ReplicaSet::id);
        if let Some(former) = former {
            self.let_go(former, seq, round);
        }
        // What drains beside it has to go too.
        for leaving in self.leaving.iter().filter(|leaving| leaving.drains()) {
            for run in leaving.set.ready_runs() {
                let id = run.id;
                round.push(if run.managed() { Effect::Cut { run: id } } else { Effect::Close { run: id } });
            }
        }
        id
    }

    /// Whether this run was the live release's, and still runs for the case that the task is given
    /// up.
    pub(super) fn may_be_taken_back(&self, id: RunId) -> bool {
        match self.task.as_ref().map(|task| &task.stage) {
            Some(Stage::Vacating { former: Some(former) }) => {
                self.drains(*former).is_some_and(|set| set.is_ready(id))
            }
            _ => false,
        }
    }

    /// The task is given up before anything was started: what still drains of the live release is
    /// taken back.
    pub(super) fn take_back(&mut self, former: SetId, round: &mut Round<'_>) {
        if self.drains(former).is_none() {
            return;
        }
        let (Some(mut former), Live::Set(live)) = (self.take_leaving(former), &mut self.live) else { return };
        live.take_back(&mut former);
        self.forget_or_await(former);
        self.serve(None, round);
    }

    /// Starts what waits until nothing else is left: the candidate, or the live release again.
    pub(super) fn start_in_the_room(&mut self, round: &mut Round<'_>) {
        if self.stopping != Stopping::No || !self.leaving.is_empty() || self.companions.has_leftovers() {
            return;
        }
        let Live::Set(live) = &mut self.live else {
            if matches!(&self.task, Some(Task { stage: Stage::Vacating { .. }, .. })) {
                self.start_candidate(round);
            }
            return;
        };
        if live.stopping_runs().next().is_some() {
            return;
        }
        match &self.task {
            Some(Task { stage: Stage::Vacating { .. }, .. }) => self.start_candidate(round),
            Some(task) if task.keeps_vacant() => {}
            _ if live.cause() != DownCause::Replaced => {}
            _ if live.is_idle() => {
                live.has_room();
                round.push(Effect::Idle);
            }
            _ => live.fill_up(true, round),
        }
    }

    /// Whether the task under way keeps the live release from being started.
    pub(super) fn is_kept_vacant(&self) -> bool {
        self.is_vacant() && self.task.as_ref().is_some_and(Task::keeps_vacant)
    }
}

impl Task {
    /// Whether the live release is not to be started again meanwhile.
    fn keeps_vacant(&self) -> bool {
        match self.stage {
            Stage::Recording { .. } => self.plan.recreate && self.plan.before.is_none(),
            Stage::Vacating { .. } => true,
            // One that was begun beside a vacant release would else be joined by it.
            Stage::Accompanying | Stage::Starting { .. } | Stage::Verifying { .. } => true,
            Stage::Before { .. } | Stage::Reviving { .. } => false,
        }
    }
}
