//! What happens when somebody asks: boot, deploy, switch, rollback, the end.

use std::time::Duration;

use super::*;

impl State {
    pub(super) fn boot(&mut self, boot: Boot, now: Duration, policy: &Policy, out: &mut Vec<Effect>) {
        let Boot { live, previous, restarts, window, ended, going_back, runs } = boot;
        let ids = runs.iter().map(|adopted| adopted.run.id.0);
        self.next = ids.fold(self.next, u64::max);
        self.restarts = restarts;
        self.live = live.map_or(Live::None, |release| Live::Down {
            release,
            cause: DownCause::Boot,
            stage: DownStage::GivenUp,
        });
        for Adopted { run, role, left } in runs {
            self.take_over(run, role, left, out);
        }
        self.previous = previous.map(|release| {
            let drains =
                |leaving: &&Leaving| leaving.run.release == release && self.is_draining(leaving.run.id);
            let run = self.leaving.iter().find(drains).map(|leaving| leaving.run.id);
            Previous { release, run }
        });
        // Asked to end while the leftovers were looked for: nothing is started any more.
        if self.stopping == Stopping::No {
            self.take_up(window, ended, going_back, now, policy, out);
        }
        self.save(out);
    }

    /// A run of an earlier daemon.
    fn take_over(&mut self, run: Run, role: Role, left: Duration, out: &mut Vec<Effect>) {
        let is_live = self.live_release() == Some(&run.release);
        match role {
            Role::Live if is_live => {
                out.push(Effect::Route { run: run.id, former: None });
                out.push(Effect::Tell(Tell::Adopted { run: run.id }));
                self.live = Live::Up { run };
            }
            Role::Restoring if is_live && self.stopping == Stopping::No => {
                out.push(Effect::Await { run: run.id });
                let (release, stage) = (run.release.clone(), DownStage::Starting { run, tries: 1 });
                self.live = Live::Down { release, cause: DownCause::Boot, stage };
            }
            Role::Draining => {
                // No save of this daemon's has to come before its stop.
                let seq = self.recorded;
                out.push(Effect::Resume(Timer::Drain(run.id, seq), left));
                self.leaving.push(Leaving { run, stage: LeavingStage::Draining { over: false, seq } });
            }
            Role::Stopping => self.leaving.push(Leaving { run, stage: LeavingStage::Stopping }),
            Role::Live | Role::Restoring | Role::Candidate => self.leave(run, out),
        }
    }

    /// The live release goes on where the earlier daemon left it, or is started.
    fn take_up(
        &mut self,
        window: Option<Duration>,
        ended: bool,
        going_back: bool,
        now: Duration,
        policy: &Policy,
        out: &mut Vec<Effect>,
    ) {
        if let Some(left) = window.filter(|_| self.live != Live::None) {
            let ticket = self.fresh();
            self.window = Some(Window { ticket, fails: 0 });
            out.push(Effect::Resume(Timer::Window(ticket), left));
        }
        if let Live::Down { release, cause, stage: stage @ DownStage::GivenUp } = &mut self.live {
            if ended && (self.window.is_some() || going_back) {
                // Its end is one in the watch window, although nobody saw it.
                *cause = DownCause::Crash;
                *stage = DownStage::AwaitingRollback;
                self.window = None;
                if !self.roll_back(Reason::AutoRollback, out) {
                    self.crashed(now, policy, out);
                }
                return;
            }
            let release = release.clone();
            let run = self.start(&release, 1, out);
            let stage = DownStage::Starting { run, tries: 1 };
            self.live = Live::Down { release, cause: DownCause::Boot, stage };
        } else if going_back && matches!(self.live, Live::Up { .. }) {
            self.window = None;
            if !self.roll_back(Reason::AutoRollback, out) {
                out.push(Effect::Tell(Tell::NothingToGoBackTo));
            }
        }
    }

    pub(super) fn admits(&self, out: &mut Vec<Effect>) -> bool {
        let refusal = match &self.task {
            _ if self.stopping != Stopping::No => Refusal::ShuttingDown,
            Some(task) => Refusal::Busy { release: task.release.id.clone(), reason: task.reason },
            None => return true,
        };
        out.push(Effect::Refuse(refusal));
        false
    }

    pub(super) fn switch(&mut self, release: ReleaseRef, port: u16, reason: Reason, out: &mut Vec<Effect>) {
        if !self.admits(out) {
            return;
        }
        if self.live_run().is_some_and(|run| run.port == Some(port)) {
            out.push(Effect::AlreadyLive);
            return;
        }
        let taken = |run: &&Run| run.managed() && run.port == Some(port) && !self.is_draining(run.id);
        if let Some(run) = self.runs().find(taken) {
            out.push(Effect::Refuse(Refusal::PortInUse { release: run.release.id.clone() }));
            return;
        }
        // The port of a run of ours that has not been told to stop: that very run is meant.
        let ours = self.leaving.iter().find(|leaving| {
            leaving.run.port == Some(port) && matches!(leaving.stage, LeavingStage::Draining { .. })
        });
        let (release, revive) = match ours {
            Some(leaving) => (leaving.run.release.clone(), Some(leaving.run.id)),
            None => (release, None),
        };
        self.record_intent(release, reason, revive, out);
    }

    /// A task begins.
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

    /// Begins to go back; false when there is nothing to go back to.
    pub(super) fn roll_back(&mut self, reason: Reason, out: &mut Vec<Effect>) -> bool {
        let Some(previous) = self.previous.clone() else { return false };
        match previous.run.filter(|run| self.is_draining(*run)) {
            // Its process still runs: no disk stands between the verdict and the way back.
            Some(run) => {
                self.window = None;
                out.push(Effect::Tell(Tell::Accepted));
                out.push(Effect::Probe { run, patient: false });
                self.task = Some(Task { release: previous.release, reason, stage: Stage::Reviving { run } });
            }
            None => self.record_intent(previous.release, reason, None, out),
        }
        true
    }

    pub(super) fn shut_down(&mut self, now: Duration, policy: &Policy, out: &mut Vec<Effect>) {
        if self.stopping != Stopping::No {
            return;
        }
        self.stopping = Stopping::Announced;
        self.window = None;
        if self.task.is_some() {
            self.abort(Abort::Interrupted, now, policy, out);
        }
        if let Live::Down { stage, .. } = &mut self.live
            && let DownStage::Starting { run, .. } = std::mem::replace(stage, DownStage::GivenUp)
        {
            self.leave(run, out);
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
            self.leave(run, out);
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
