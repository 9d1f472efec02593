//! How the snapshot for others is made.

use super::Coordinator;
use crate::release::state::{DownStage, Live, RunId, Stage, Task};
use crate::release::view::{View, empty_status};
use crate::wire;

impl Coordinator {
    /// The app as it is now.
    pub(super) fn make_view(&self) -> View {
        let live = self.state.live_run();
        let live_status = match &self.state.live {
            Live::None => None,
            Live::Up { run } => self.release_status(&run.release.id, Some(run.id), self.state.restarts),
            Live::Down { release, stage, .. } => {
                let run = match stage {
                    DownStage::Starting { run, .. } => Some(run.id),
                    _ => None,
                };
                self.release_status(&release.id, run, self.state.restarts)
            }
        };
        let candidate = self.state.task.as_ref().map(|task| (task, candidate_run(task)));
        let candidate_status =
            candidate.and_then(|(task, run)| self.release_status(&task.release.id, run, 0));
        let previous = self.state.previous();
        let previous_status =
            previous.as_ref().and_then(|previous| self.release_status(&previous.release.id, previous.run, 0));
        let drains = self.draining().into_iter();
        let drain_until = drains.filter_map(|(run, seq)| self.timers.drain_ends(run, seq)).max();
        let watch_until = self.state.window.and_then(|window| self.timers.window_ends(window.ticket));
        // Before the boot the recorded release counts as starting.
        let booting = self.life.booting().and_then(|booting| booting.record.live.as_ref());
        let live_status = live_status.or_else(|| self.release_status(&booting?.id, None, 0));
        let phase = match self.state.phase() {
            wire::Phase::Empty if booting.is_some() => wire::Phase::Starting,
            phase => phase,
        };
        let status = wire::Status {
            active_port: live.and_then(|run| run.port),
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
            quarantined: self.state.past.quarantined().map(str::to_owned).collect(),
            ..empty_status()
        };
        View {
            booted: self.life.booting().is_none_or(|booting| booting.awaits_turn),
            status: Some(status),
            app_in_force: self.app_in_force(),
            releases: self.history.rows(),
            health: self.live_probe.health().clone(),
            probe: live.and_then(|run| self.probe_of(run.id)),
            live: self.traffic.in_flight(live.map(|run| run.id)),
            candidate: self.traffic.in_flight(candidate.and_then(|(_, run)| run)),
            previous: self.traffic.in_flight(previous.and_then(|previous| previous.run)),
        }
    }

    fn release_status(
        &self,
        release: &str,
        run: Option<RunId>,
        restarts: u32,
    ) -> Option<wire::ReleaseStatus> {
        let facts = run.and_then(|run| self.runs.get(run));
        Some(wire::ReleaseStatus {
            release: release.to_owned(),
            port: facts.and_then(|facts| facts.port()),
            pid: facts.and_then(|facts| facts.pid_that_runs()),
            started_at: facts.and_then(|facts| facts.started_at()).map(wire::rfc3339),
            restarts,
            inflight: 0,
        })
    }
}

fn candidate_run(task: &Task) -> Option<RunId> {
    match &task.stage {
        Stage::Recording { revive, .. } => *revive,
        Stage::Starting { run, .. } => Some(run.id),
        Stage::Reviving { run } => Some(*run),
    }
}
