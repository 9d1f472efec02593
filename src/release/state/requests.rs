//! The edges that a request causes: deploy, switch, and the daemon's end. `way_back` has the
//! rollback.

use std::time::Duration;

use super::*;

impl State {
    /// Whether a task can begin; refuses the request otherwise.
    pub(super) fn admits(&self, out: &mut Vec<Effect>) -> bool {
        let refusal = match &self.task {
            _ if self.stopping != Stopping::No => Refusal::ShuttingDown,
            Some(task) => task.busy(),
            None => return true,
        };
        out.push(Effect::Refuse(refusal));
        false
    }

    pub(super) fn deploy(&mut self, release: ReleaseRef, reason: Reason, force: bool, out: &mut Vec<Effect>) {
        if !self.admits(out) {
            return;
        }
        if !force && self.live_run().is_some_and(|run| run.release == release) {
            out.push(Effect::AlreadyLive);
        } else if !force && self.past.is_quarantined(&release.id) {
            out.push(Effect::Refuse(Refusal::Quarantined { release: release.id }));
        } else {
            self.record_intent(release, reason, None, out);
        }
    }

    pub(super) fn switch(&mut self, release: ReleaseRef, port: u16, reason: Reason, out: &mut Vec<Effect>) {
        if !self.admits(out) {
            return;
        }
        if self.live_run().is_some_and(|run| run.port == Some(port)) {
            out.push(Effect::AlreadyLive);
            return;
        }
        // An operator may switch to a port in quarantine. An edit may not.
        if reason == Reason::Config && self.past.is_quarantined(&release.id) {
            out.push(Effect::Refuse(Refusal::Quarantined { release: release.id }));
            return;
        }
        let taken = |run: &&Run| run.managed() && run.port == Some(port) && !self.is_draining(run.id);
        if let Some(run) = self.runs().find(taken) {
            out.push(Effect::Refuse(Refusal::PortInUse { release: run.release.id.clone() }));
            return;
        }
        // The port of a managed run that still drains: that very run is meant.
        let ours = self.leaving.iter().find(|leaving| {
            leaving.run.port == Some(port) && matches!(leaving.stage, LeavingStage::Draining { .. })
        });
        let (release, revive) = match ours {
            Some(leaving) => (leaving.run.release.clone(), Some(leaving.run.id)),
            None => (release, None),
        };
        self.record_intent(release, reason, revive, out);
    }

    /// Begins a task.
    pub(super) fn record_intent(
        &mut self,
        release: ReleaseRef,
        reason: Reason,
        revive: Option<RunId>,
        out: &mut Vec<Effect>,
    ) {
        let seq = self.save(out);
        self.task = Some(Task { release, reason, stage: Stage::Recording { seq, revive } });
        out.push(Effect::Tell(Tell::Accepted));
    }

    pub(super) fn shut_down(&mut self, now: Duration, policy: &Policy, out: &mut Vec<Effect>) {
        if self.stopping != Stopping::No {
            return;
        }
        self.stopping = Stopping::Announced;
        if self.task.is_some() {
            self.abort(Abort::Interrupted, now, policy, out);
        }
        if let Live::Down { stage, .. } = &mut self.live
            && let DownStage::Starting { run, .. } = std::mem::replace(stage, DownStage::GivenUp)
        {
            self.retire_run(run, out);
        }
    }

    pub(super) fn stop_all(&mut self, out: &mut Vec<Effect>) {
        self.stopping = Stopping::Groups;
        if let Live::Up { run } = &self.live {
            let run = run.clone();
            self.live = Live::Down {
                release: run.release.clone(),
                cause: DownCause::Boot,
                stage: DownStage::GivenUp,
            };
            out.push(Effect::Unroute);
            out.push(Effect::Close { run: run.id });
            self.retire_run(run, out);
        }
        for leaving in &mut self.leaving {
            if let LeavingStage::Draining { over, seq } = leaving.stage {
                if !over {
                    out.push(Effect::Close { run: leaving.run.id });
                }
                leaving.stage = LeavingStage::Draining { over: true, seq };
            }
        }
    }
}
