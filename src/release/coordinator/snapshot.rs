//! How the snapshot for others is made.

use super::Coordinator;
use crate::config::Replicas;
use crate::release::state::{Member, RunId};
use crate::release::view::{MemberView, View, empty_status};
use crate::wire::{self, ReplicaRole};

impl Coordinator {
    /// The app as it is now.
    pub(super) fn make_view(&self) -> View {
        let first = self.state.first_run();
        // One that is not started yet has no port, and another one serves.
        let active_port =
            self.state.live_run().and_then(|ready| first.and_then(|run| run.port).or(ready.port));
        let live_runs = self.state.live_runs();
        let live_status = self
            .state
            .live_release()
            .map(|release| self.release_status(&release.id, first.map(|run| run.id), self.state.restarts));
        let candidate = self.state.candidate_run().or_else(|| self.state.revived_run()).map(|run| run.id);
        let runs_beside = |run: Option<RunId>| {
            let place = run.and_then(|run| self.state.place_of(run));
            place.map(|(set, _)| self.state.runs_of(set)).unwrap_or_default()
        };
        let task = self.state.task.as_ref();
        let candidate_status = task.map(|task| wire::ReleaseStatus {
            step: self.step_status(),
            ..self.release_status(&task.release.id, candidate, 0)
        });
        let previous = self.state.previous_run().map(|run| run.id);
        let previous_status = self.state.previous();
        let previous_status =
            previous_status.map(|found| self.release_status(&found.release.id, previous, 0));
        let drains = self.state.drains_under_way();
        let drain_until = drains.filter_map(|(set, seq, _)| self.timers.drain_ends(set, seq)).max();
        // While it waits nobody knows when it ends.
        let watch_until = self.state.window.and_then(|window| self.timers.window_ends(window.ticket));
        // Before the boot the recorded release counts as starting.
        let booting = self.life.booting().and_then(|booting| booting.record.live.as_ref());
        let live_status = live_status.or_else(|| Some(self.release_status(&booting?.id, None, 0)));
        let phase = match self.state.phase() {
            wire::Phase::Empty if booting.is_some() => wire::Phase::Starting,
            phase => phase,
        };
        let status = wire::Status {
            active_port,
            drain_until: drain_until.map(wire::rfc3339),
            last_switch: self.voice.last_switch().cloned(),
            instance: self.config.borrow().name.clone(),
            phase,
            health: self.live_probe.health().clone(),
            live: live_status,
            candidate: candidate_status,
            previous: previous_status,
            watch_until: watch_until.map(wire::rfc3339),
            state_error: self.recorder.error().map(str::to_owned),
            last_failure: self.voice.last_failure().map(|failure| failure.message.clone()),
            last_failure_at: self.voice.last_failure().map(|failure| failure.at.clone()),
            last_exit: self.voice.last_exit().cloned(),
            traffic: self.traffic_now(),
            paused: self.orders.paused(),
            frozen: self.orders.frozen(),
            replicas: self.ready_of_wanted(self.state.in_use()),
            scale: self.scale_status(),
            quarantined: self.state.past.quarantined().map(str::to_owned).collect(),
            ..empty_status()
        };
        View {
            booted: self.life.booting().is_none_or(|booting| booting.awaits_turn),
            status: Some(status),
            app_in_force: self.app_in_force(),
            edit_pending: self.edits.is_pending(),
            releases: self.history.rows(),
            health: self.live_probe.health().clone(),
            probes: live_runs.iter().filter_map(|run| self.probe_of(*run)).collect(),
            live: self.traffic.in_flight(&live_runs),
            candidate: self.traffic.in_flight(&runs_beside(candidate)),
            previous: self.traffic.in_flight(&runs_beside(previous)),
            members: self.member_views(),
        }
    }

    /// Every replica of every set, those that are leaving included.
    fn member_views(&self) -> Vec<MemberView> {
        let app = self.config.borrow().name.clone();
        let members = self.state.members();
        let is_live = |member: &Member<'_>| {
            member.role == ReplicaRole::Live && member.process.is_none() && member.replica.is_some()
        };
        // Of a single one the record knows more than the place.
        let is_alone = members.iter().filter(|member| is_live(member)).count() == 1;
        let view = |member: &Member<'_>| {
            let facts = member.run.and_then(|run| self.runs.get(run));
            let replica = member.replica.or_else(|| Some(facts?.replica())).unwrap_or_default();
            let is_known = is_alone && is_live(member);
            let last_exit = self.exits.get(member.set, replica).or_else(|| {
                self.voice.last_exit().filter(|exit| is_known && exit.release == member.release.id)
            });
            let requests = member.run.map(|run| self.traffic.in_flight(&[run])).unwrap_or_default();
            let row = wire::ReplicaRow {
                app: app.clone(),
                release: Some(member.release.id.clone()),
                role: member.role,
                process: member.process.or_else(|| facts?.process_name()).map(str::to_owned),
                replica,
                state: member.state,
                address: None,
                port: facts.and_then(|facts| facts.port()),
                pid: facts.and_then(|facts| facts.pid_that_runs()),
                inflight: 0,
                tunnels: 0,
                requests: 0,
                restarts: if is_known { self.state.restarts } else { member.restarts },
                memory: None,
                started_at: facts.and_then(|facts| facts.started_at()).map(wire::rfc3339),
                last_exit: last_exit.cloned(),
            };
            let process = facts.filter(|facts| facts.pid_that_runs().is_some());
            let process = process.and_then(|facts| facts.process()).map(|process| process.identity().clone());
            MemberView { row, requests, process }
        };
        members.iter().map(view).collect()
    }

    /// What becomes of requests. Of an idle app none waits before one has come.
    pub(super) fn traffic_now(&self) -> wire::Traffic {
        match self.traffic.now() {
            wire::Traffic::Held if self.state.is_idle() && !self.orders.is_paused() => wire::Traffic::Open,
            now => now,
        }
    }

    /// How many replicas are ready, and how many there are to be now. `None` where it is always
    /// one.
    fn ready_of_wanted(&self, ready: usize) -> Option<wire::Replicas> {
        let ports = self.state.live_release().map_or(0, |live| live.origin.ports().len());
        if ports > 0 {
            return (ports > 1).then_some(wire::Replicas { ready, wanted: ports });
        }
        let replicas = self.replicas();
        let wanted = if self.state.live_release().is_some() { self.state.wanted() } else { replicas.min };
        let is_one = replicas == Replicas { min: 1, max: 1, ..replicas } && ready <= 1;
        (!is_one).then_some(wire::Replicas { ready, wanted: usize::from(wanted) })
    }

    /// The step of the deploy under way that runs.
    fn step_status(&self) -> Option<wire::StepStatus> {
        let (step, run) = self.state.task.as_ref()?.stage.step()?;
        let facts = self.runs.get(run.id);
        Some(wire::StepStatus {
            step: step.as_str().to_owned(),
            pid: facts.and_then(|facts| facts.pid_that_runs()),
            started_at: facts.and_then(|facts| facts.started_at()).map(wire::rfc3339),
        })
    }

    fn release_status(&self, release: &str, run: Option<RunId>, restarts: u32) -> wire::ReleaseStatus {
        let facts = run.and_then(|run| self.runs.get(run));
        wire::ReleaseStatus {
            release: release.to_owned(),
            port: facts.and_then(|facts| facts.port()),
            pid: facts.and_then(|facts| facts.pid_that_runs()),
            started_at: facts.and_then(|facts| facts.started_at()).map(wire::rfc3339),
            restarts,
            inflight: 0,
            step: None,
        }
    }
}
