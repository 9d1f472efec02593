//! The edges that a request causes: deploy, switch, and the daemon's end. `way_back` has the
//! rollback.

use super::*;

impl State {
    /// Whether a task can begin; refuses the request otherwise.
    fn admits(&self, round: &mut Round<'_>) -> bool {
        let refusal = match &self.task {
            _ if self.stopping != Stopping::No => Refusal::ShuttingDown,
            Some(task) => task.busy(),
            None => return true,
        };
        round.push(Effect::Refuse(refusal));
        false
    }

    pub(super) fn deploy(
        &mut self,
        release: ReleaseRef,
        reason: Reason,
        force: bool,
        plan: Plan,
        round: &mut Round<'_>,
    ) {
        if !self.admits(round) {
            return;
        }
        if !force && self.is_live_and_well(&release) {
            round.push(Effect::AlreadyLive);
        } else if !force && self.past.is_quarantined(&release.id) {
            round.push(Effect::Refuse(Refusal::Quarantined { release: release.id }));
        } else {
            self.record_intent(release, reason, plan, None, round);
        }
    }

    pub(super) fn switch(&mut self, release: ReleaseRef, reason: Reason, round: &mut Round<'_>) {
        if !self.admits(round) {
            return;
        }
        let ports = release.origin.ports();
        if self.live.set().is_some_and(|live| live.serves() && live.is_meant_by(&release)) {
            round.push(Effect::AlreadyLive);
            return;
        }
        // An operator may switch to a port in quarantine. An edit may not.
        if reason == Reason::Config && self.past.is_quarantined(&release.id) {
            round.push(Effect::Refuse(Refusal::Quarantined { release: release.id }));
            return;
        }
        // The port of a managed run that still drains: that very run is meant.
        let drains = self.draining_set_meant_by(&release);
        let is_one = |run: &&Run| run.port.is_some_and(|port| ports.contains(&port));
        let taken =
            |run: &&Run| run.managed() && is_one(run) && (drains.is_none() || !self.is_draining(run.id));
        if let Some(run) = self.runs().find(taken) {
            round.push(Effect::Refuse(Refusal::PortInUse { release: run.release.id.clone() }));
            return;
        }
        let (release, revive) = match drains {
            Some(set) => (set.release().clone(), Some(set.id())),
            None => (release, None),
        };
        self.record_intent(release, reason, Plan::default(), revive, round);
    }

    pub(super) fn shut_down(&mut self, round: &mut Round<'_>) {
        if self.stopping != Stopping::No {
            return;
        }
        self.stopping = Stopping::Announced;
        if self.task.is_some() {
            self.abort(Abort::Interrupted, None, round);
        }
        if let Live::Set(set) = &mut self.live {
            set.stop_starting(round);
        }
    }

    pub(super) fn stop_all(&mut self, round: &mut Round<'_>) {
        self.stopping = Stopping::Groups;
        if let Live::Set(set) = &mut self.live {
            if set.serves() {
                self.served.clear();
                round.push(Effect::Unroute);
                set.close(round);
            }
            set.stop(round);
        }
        self.end_drains(round);
        self.stop_companions(round);
    }
}
