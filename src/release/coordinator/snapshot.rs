//! How the coordinator shows itself to others.

use std::sync::Arc;

use super::{Coordinator, RunFacts};
use crate::proxy::Target;
use crate::release::state::{DownStage, Live, RunId, Stage, Task};
use crate::release::view::{View, empty_status};
use crate::wire;

impl Coordinator {
    /// What everybody may know now.
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
        // What an earlier daemon left is being stopped; what it recorded as live comes next.
        let booting = self.found.as_ref().and_then(|record| record.live.as_ref()).filter(|_| !self.fresh);
        let live_status = live_status.or_else(|| self.release_status(&booting?.id, None, 0));
        let phase = match self.state.phase() {
            wire::Phase::Empty if booting.is_some() => wire::Phase::Starting,
            phase => phase,
        };
        let status = wire::Status {
            active_port: live.and_then(|run| run.port),
            drain_until: drain_until.map(wire::rfc3339),
            last_switch: self.last_switch.clone(),
            instance: self.config.borrow().name.clone(),
            phase,
            health: self.health.clone(),
            live: live_status,
            candidate: candidate_status,
            previous: previous_status,
            watch_until: watch_until.map(wire::rfc3339),
            state_error: self.state_error.clone(),
            last_failure: self.last_failure.as_ref().map(|failure| failure.message.clone()),
            last_failure_at: self.last_failure.as_ref().map(|failure| failure.at.clone()),
            last_exit: self.last_exit.clone(),
            quarantined: self.state.past.quarantined().map(str::to_owned).collect(),
            ..empty_status()
        };
        View {
            booted: self.found.is_none(),
            status: Some(status),
            app_in_force: self.app_in_force(),
            releases: self.history.rows(),
            health: self.health.clone(),
            probe: live.and_then(|run| self.probe_of(run.id)),
            live: self.targets(live.map(|run| run.id)),
            candidate: self.targets(candidate.and_then(|(_, run)| run)),
            previous: self.targets(previous.and_then(|previous| previous.run)),
        }
    }

    fn targets(&self, run: Option<RunId>) -> Vec<Arc<Target>> {
        let slot = run.and_then(|run| self.slots.get(&run));
        slot.map(|slot| slot.targets.clone()).unwrap_or_default()
    }

    fn release_status(
        &self,
        release: &str,
        run: Option<RunId>,
        restarts: u32,
    ) -> Option<wire::ReleaseStatus> {
        let slot: Option<&RunFacts> = run.and_then(|run| self.slots.get(&run));
        // A leader that has ended is nobody's pid any more.
        let process = slot.filter(|slot| slot.exit.is_none()).and_then(|slot| slot.process.as_ref());
        Some(wire::ReleaseStatus {
            release: release.to_owned(),
            port: slot.and_then(|slot| slot.port),
            pid: process.map(crate::supervisor::Process::pid),
            started_at: slot.and_then(|slot| slot.started_at).map(wire::rfc3339),
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
