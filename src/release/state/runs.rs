//! The edges that a report of a run causes: its port, its readiness, its end, its probes, and the
//! end of the delay before its next start.

use super::replicas::{Came, Said};
use super::*;

/// The least time between two looks whether what has ended is gone, where nothing may run beside
/// it.
const ROOM_LOOK: Duration = Duration::from_millis(50);

impl State {
    pub(super) fn spawned(&mut self, id: RunId, port: u16, round: &mut Round<'_>) {
        let candidate = self.task.as_mut().and_then(|task| task.stage.candidate_mut());
        let leaving = self.leaving.iter_mut().map(|leaving| &mut leaving.set);
        let mut sets = candidate.into_iter().chain(self.live.set_mut()).chain(leaving);
        if let Some(run) = sets.find_map(|set| set.run_mut(id)) {
            run.port = Some(port);
            round.save();
        }
    }

    pub(super) fn ready(&mut self, id: RunId, round: &mut Round<'_>) {
        if self.companion_started(id, round) || self.ready_for_task(id, round) {
            return;
        }
        let Live::Set(set) = &mut self.live else { return };
        let served = set.serves();
        let Some(Came { again }) = set.ready(id) else { return };
        self.serve(None, round);
        let tell =
            if served { Tell::Joined { run: id, again } } else { Tell::Restored { run: id, boot: !again } };
        round.push(Effect::Tell(tell));
        round.save();
    }

    pub(super) fn not_ready(&mut self, id: RunId, round: &mut Round<'_>) {
        if self.companion_not_started(id, round) {
            return;
        }
        match &mut self.task {
            Some(Task { stage: Stage::Starting { set }, .. }) if set.is_starting(id) => {
                let why = if set.managed() { Abort::NotReady } else { Abort::Unhealthy };
                set.not_ready(id, round);
                self.abort(why, Some(id), round);
            }
            Some(Task { stage: Stage::Reviving { unproven, .. }, .. }) if unproven.contains(&id) => {
                self.abort(Abort::Unhealthy, Some(id), round);
            }
            _ => {
                let Live::Set(set) = &mut self.live else { return };
                if set.not_ready(id, round) == Said::Failed && !self.gave_replacement_up(round) {
                    self.crashed(round);
                }
            }
        }
    }

    pub(super) fn exited(&mut self, id: RunId, port_taken: bool, round: &mut Round<'_>) {
        if self.companion_exited(id, round) {
            return;
        }
        let alone = self.runs_alone(round.policy);
        if let Some(set) = self.task.as_mut().and_then(|task| task.stage.candidate_mut()) {
            // One that was ready, and the others were not yet.
            if let Some(run) = Some(id).filter(|id| set.is_ready(*id)).and_then(|id| set.lose(id)) {
                set.stop_lost(run, round);
                self.abort(Abort::Exited, Some(id), round);
                return;
            }
            if set.is_starting(id) {
                if set.exited(id, port_taken, alone, round) == Said::Failed {
                    self.abort(Abort::Exited, Some(id), round);
                }
                return;
            }
        }
        match &mut self.live {
            Live::Set(set) if set.is_ready(id) => self.lost(id, round),
            Live::Set(set) if set.is_starting(id) => {
                if set.exited(id, port_taken, alone, round) == Said::Failed
                    && !self.gave_replacement_up(round)
                {
                    self.crashed(round);
                }
            }
            _ => self.exited_while_leaving(id, round),
        }
    }

    /// The process of a live run has ended.
    fn lost(&mut self, id: RunId, round: &mut Round<'_>) {
        let Live::Set(set) = &mut self.live else { return };
        let Some(run) = set.lose(id) else { return };
        if set.serves() {
            self.serve(None, round);
        } else {
            self.served.clear();
            round.push(Effect::Hold(HoldOn::Crash));
        }
        let Live::Set(set) = &mut self.live else { return };
        set.stop_lost(run, round);
        if self.stopping != Stopping::No {
            set.give_up_undecided();
            if !set.serves() {
                round.push(Effect::Unroute);
            }
            return;
        }
        let goes_back = self.window.take().is_some_and(|window| window.goes_back);
        if !(goes_back && self.roll_back(round)) {
            self.crashed(round);
        }
    }

    /// The live set lacks a run, and no rollback is waited for: it decides when the next one is
    /// started.
    pub(super) fn crashed(&mut self, round: &mut Round<'_>) {
        let Live::Set(set) = &mut self.live else { return };
        set.crashed(round);
        if set.cause() == DownCause::CrashLoop && !set.serves() {
            round.push(Effect::Unroute);
        }
        // The next daemon counts on from the record.
        round.save();
    }

    pub(super) fn restart_due(&mut self, ticket: u64, round: &mut Round<'_>) {
        if self.stopping != Stopping::No {
            return;
        }
        let has_room = self.has_room(round.policy);
        if let Live::Set(set) = &mut self.live {
            if !has_room && set.places().waits_for(ticket) {
                let later = round.policy.restart.backoff.max(ROOM_LOOK);
                round.push(Effect::Timer(Timer::Restart(ticket, later)));
            } else if set.restart_due(ticket, round) {
                // Counted on from the record, where any number may stand.
                self.restarts = self.restarts.saturating_add(1);
            }
        }
        self.companion_restart_due(ticket, round);
    }

    pub(super) fn probed(&mut self, id: RunId, healthy: bool, round: &mut Round<'_>) {
        let in_window = self.window.is_some();
        let Live::Set(set) = &mut self.live else { return };
        let Some(failed) = set.places_mut().probed(id, healthy, in_window) else { return };
        self.note_health(round);
        // During a rollback the failures are only counted: should it fail, the next probe decides.
        let decided = self.goes_back() || self.stopping != Stopping::No;
        let Some(window) = self.window.filter(|_| failed >= round.policy.threshold && !decided) else {
            return;
        };
        let goes_back = window.goes_back;
        self.window = None;
        if !(goes_back && self.roll_back(round)) {
            round.push(Effect::Tell(Tell::NoWayBack { went_back: !goes_back }));
        }
    }
}
