//! The edges that a fact causes: the end of a save, of a run or of a timer, and what a probe said.

use std::time::Duration;

use super::*;

impl State {
    pub(super) fn saved(
        &mut self,
        seq: u64,
        ok: bool,
        now: Duration,
        policy: &Policy,
        out: &mut Vec<Effect>,
    ) {
        self.recorded = self.recorded.max(seq);
        let Some(Task { release, reason, stage: Stage::Recording { seq: waited, revive } }) = &self.task
        else {
            return;
        };
        if *waited > seq {
            return;
        }
        if !ok && !reason.is_rollback() {
            self.abort(Abort::Unrecorded, now, policy, out);
            return;
        }
        let (release, revive) = (release.clone(), revive.filter(|run| self.is_draining(*run)));
        let stage = match revive {
            Some(run) => {
                out.push(Effect::Probe { run, patient: false });
                Stage::Reviving { run }
            }
            None => Stage::Starting { run: self.start_candidate(&release, out), tries: 1 },
        };
        if let Some(task) = &mut self.task {
            task.stage = stage;
        }
    }

    pub(super) fn spawned(&mut self, id: RunId, port: u16, out: &mut Vec<Effect>) {
        let run = match (&mut self.task, &mut self.live) {
            (Some(Task { stage: Stage::Starting { run, .. }, .. }), _) if run.id == id => Some(run),
            (_, Live::Down { stage: DownStage::Starting { run, .. }, .. }) if run.id == id => Some(run),
            _ => self.leaving.iter_mut().map(|leaving| &mut leaving.run).find(|run| run.id == id),
        };
        if let Some(run) = run {
            run.port = Some(port);
            self.save(out);
        }
    }

    pub(super) fn ready(&mut self, id: RunId, policy: &Policy, out: &mut Vec<Effect>) {
        match (&self.task, &self.live) {
            (Some(Task { stage: Stage::Starting { run, .. }, .. }), _) if run.id == id => {
                let run = run.clone();
                let starts = run.managed();
                self.go_live(run, starts, policy, out);
            }
            (Some(Task { stage: Stage::Reviving { run }, .. }), _) if *run == id => {
                if let Some(at) = self.leaving.iter().position(|leaving| leaving.run.id == id) {
                    let run = self.leaving.remove(at).run;
                    self.go_live(run, false, policy, out);
                }
            }
            (_, Live::Down { stage: DownStage::Starting { run, .. }, cause, .. }) if run.id == id => {
                let (run, boot) = (run.clone(), *cause == DownCause::Boot);
                out.push(Effect::Route { run: id, former: None });
                out.push(Effect::Tell(Tell::Restored { run: id, boot }));
                self.live = Live::Up { run };
                if !boot {
                    // Counted on from the record, where any number may stand.
                    self.restarts = self.restarts.saturating_add(1);
                }
                self.save(out);
            }
            _ => {}
        }
    }

    /// Moves traffic to `run`. `started`: its process was started for that.
    fn go_live(&mut self, run: Run, started: bool, policy: &Policy, out: &mut Vec<Effect>) {
        let Some(task) = self.task.take() else { return };
        let back = task.reason.is_rollback();
        let left = self.live_release().cloned();
        let former = match std::mem::replace(&mut self.live, Live::Up { run: run.clone() }) {
            Live::Up { run } => Some(run),
            Live::Down { stage: DownStage::Starting { run, .. }, .. } => {
                self.retire_run(run, out);
                None
            }
            Live::None | Live::Down { .. } => None,
        };
        if let Some(left) = left.as_ref().filter(|_| back) {
            self.past.quarantine(&left.id);
        }
        self.past.went_live(&run.release);
        self.crashes.clear();
        self.restarts = 0;
        let treatment = if back { FormerTarget::Close } else { FormerTarget::Retire };
        let former_id = former.as_ref().map(|former| former.id);
        out.push(Effect::Route { run: run.id, former: former_id.map(|id| (id, treatment)) });
        let seq = self.save(out);
        out.push(Effect::Tell(Tell::Switched {
            run: run.id,
            from: former_id,
            reason: task.reason,
            from_release: left,
            seq,
        }));
        if let Some(former) = former {
            out.push(Effect::Tell(Tell::Draining { run: former.id }));
            out.push(Effect::Timer(Timer::Drain(former.id, seq)));
            self.leaving.push(Leaving { run: former, stage: LeavingStage::Draining { over: false, seq } });
        }
        // A rollback to a run that never stopped needs no proof.
        if policy.window && (started || !back) {
            self.watch(task.reason, out);
        } else {
            self.settle();
        }
    }

    pub(super) fn not_ready(&mut self, id: RunId, now: Duration, policy: &Policy, out: &mut Vec<Effect>) {
        match (&self.task, &self.live) {
            (Some(Task { stage: Stage::Starting { run, .. }, .. }), _) if run.id == id => {
                let why = if run.managed() { Abort::NotReady } else { Abort::Unhealthy };
                self.abort(why, now, policy, out);
            }
            (Some(Task { stage: Stage::Reviving { run }, .. }), _) if *run == id => {
                self.abort(Abort::Unhealthy, now, policy, out);
            }
            (_, Live::Down { stage: DownStage::Starting { run, .. }, .. }) if run.id == id => {
                let run = run.clone();
                self.retire_run(run, out);
                self.crashed(now, policy, out);
            }
            _ => {}
        }
    }

    pub(super) fn exited(
        &mut self,
        id: RunId,
        port_taken: bool,
        now: Duration,
        policy: &Policy,
        out: &mut Vec<Effect>,
    ) {
        match (&mut self.task, &mut self.live) {
            (Some(Task { stage: Stage::Starting { run, tries }, release, .. }), _) if run.id == id => {
                let (tries, release) = (*tries, release.clone());
                if !port_taken || tries >= PORT_TRIES {
                    self.abort(Abort::Exited, now, policy, out);
                    return;
                }
                out.push(Effect::Tell(Tell::PortTaken { run: id }));
                let next = self.start_candidate(&release, out);
                if let Some(Task { stage: Stage::Starting { run, tries }, .. }) = &mut self.task {
                    *tries += 1;
                    let former = std::mem::replace(run, next);
                    self.retire_run(former, out);
                }
            }
            (_, Live::Up { run }) if run.id == id => {
                let run = run.clone();
                let release = run.release.clone();
                out.push(Effect::Hold);
                out.push(Effect::Close { run: id });
                self.retire_run(run, out);
                let down = |stage| Live::Down { release, cause: DownCause::Crash, stage };
                if self.stopping != Stopping::No {
                    self.live = down(DownStage::GivenUp);
                    out.push(Effect::Unroute);
                    return;
                }
                self.live = down(DownStage::AwaitingRollback);
                let goes_back = self.window.take().is_some_and(|window| window.goes_back);
                if !(goes_back && self.roll_back(policy, out)) {
                    self.crashed(now, policy, out);
                }
            }
            (_, Live::Down { stage: DownStage::Starting { run, tries }, .. }) if run.id == id => {
                let (run, tries) = (run.clone(), *tries);
                if !port_taken || tries >= PORT_TRIES {
                    self.retire_run(run, out);
                    self.crashed(now, policy, out);
                    return;
                }
                out.push(Effect::Tell(Tell::PortTaken { run: id }));
                let next = self.start(&run.release, out);
                self.retire_run(run, out);
                if let Live::Down { stage, .. } = &mut self.live {
                    *stage = DownStage::Starting { run: next, tries: tries + 1 };
                }
            }
            _ => self.exited_while_leaving(id, out),
        }
    }

    pub(super) fn exited_while_leaving(&mut self, id: RunId, out: &mut Vec<Effect>) {
        if self.is_draining(id)
            && let Some(at) = self.leaving.iter().position(|leaving| leaving.run.id == id)
        {
            let Leaving { run, .. } = self.leaving.remove(at);
            out.push(Effect::Close { run: id });
            self.retire_run(run, out);
        }
        // The run that was to be made live again has just ended: its release is started instead.
        if let Some(Task { stage: stage @ Stage::Reviving { .. }, .. }) = &mut self.task
            && matches!(stage, Stage::Reviving { run } if *run == id)
        {
            self.next += 1;
            let seq = self.next;
            *stage = Stage::Recording { seq, revive: None };
            out.push(Effect::Save { seq });
        }
    }

    pub(super) fn gone(&mut self, id: RunId, out: &mut Vec<Effect>) {
        if let Some(at) = self.leaving.iter().position(|leaving| leaving.run.id == id) {
            let Leaving { run, .. } = self.leaving.remove(at);
            out.push(Effect::Tell(Tell::Stopped { run: id, release: run.release }));
            self.save(out);
        }
    }

    pub(super) fn probed(&mut self, id: RunId, healthy: bool, policy: &Policy, out: &mut Vec<Effect>) {
        if self.live_run().is_none_or(|run| run.id != id) {
            return;
        }
        let decided = self.goes_back() || self.stopping != Stopping::No;
        let Some(window) = &mut self.window else { return };
        window.fails = if healthy { 0 } else { window.fails.saturating_add(1) };
        // During a rollback the failures are only counted: should it fail, the next probe decides.
        if window.fails < policy.threshold || decided {
            return;
        }
        let goes_back = window.goes_back;
        self.window = None;
        if !(goes_back && self.roll_back(policy, out)) {
            out.push(Effect::Tell(Tell::NoWayBack { went_back: !goes_back }));
        }
    }

    pub(super) fn drain_over(&mut self, id: RunId, drain: u64, out: &mut Vec<Effect>) {
        for leaving in &mut self.leaving {
            if leaving.run.id == id
                && let LeavingStage::Draining { over: over @ false, seq } = &mut leaving.stage
                && *seq == drain
            {
                *over = true;
                out.push(Effect::Close { run: id });
                out.push(Effect::Tell(Tell::Drained { run: id }));
            }
        }
    }

    pub(super) fn restart_due(&mut self, ticket: u64, out: &mut Vec<Effect>) {
        let Live::Down { release, stage: DownStage::Waiting { ticket: waited }, .. } = &self.live else {
            return;
        };
        if *waited != ticket || self.stopping != Stopping::No {
            return;
        }
        let release = release.clone();
        let run = self.start(&release, out);
        if let Live::Down { stage, .. } = &mut self.live {
            *stage = DownStage::Starting { run, tries: 1 };
        }
    }
}
