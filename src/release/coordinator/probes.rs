//! How runs are looked at that are not starting: the live ones are probed from time to time, and
//! weighed where their memory has a limit; one that is to become live is probed.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::Coordinator;
use crate::config::AppConfig;
use crate::health::{Probe, Unable};
use crate::release::memory::look;
use crate::release::message::Message;
use crate::release::probing::Probing;
use crate::release::state::{Event, RunId};
use crate::wire::ProbeReport;

/// Between two probes of a live run; `watched`: the watch window is open.
pub(super) fn probe_interval(config: &AppConfig, watched: bool) -> Duration {
    if watched { config.rollback.interval } else { config.probe_interval() }
}

impl Coordinator {
    /// The probe of a run, with the settings in force now.
    pub(super) fn probe_of(&self, id: RunId) -> Option<Probe> {
        let run = self.run_of(id)?;
        let config = self.config.borrow();
        let entry = self.history.get(&run.release.id);
        let path = entry.and_then(|entry| entry.spec.as_ref()?.health_path.clone());
        Some(Probe::of(&config, (Ipv4Addr::LOCALHOST, run.port?).into(), path))
    }

    /// Probes a run that no process is started for; the machine hears [`Event::Ready`] or
    /// [`Event::NotReady`].
    pub(super) fn start_probing(&mut self, id: RunId, patient: bool) {
        let Some(run) = self.run_of(id).cloned() else { return };
        let Some(probe) = self.probe_of(id) else { return };
        let (config, first_probe) = (self.config.clone(), self.first_probe.clone());
        let probing = Probing { run: id, probe, patient, config, first_probe };
        let task = self.tasks.spawn_for(probing.run());
        self.runs.probing(&run, task);
    }

    pub(super) fn probe_ended(&mut self, run: RunId, report: ProbeReport) {
        let event = if report.healthy { Event::Ready { run } } else { Event::NotReady { run } };
        self.runs.probed(run, report);
        self.step(event);
    }

    /// Probes one of the live runs once.
    pub(super) fn probe_live(&mut self) {
        let interval = probe_interval(&self.config.borrow(), self.state.window.is_some());
        let Some(run) = self.live_probe.due(&self.state.live_runs(), interval) else { return };
        let Some(probe) = self.probe_of(run) else { return };
        self.live_probe.began(run);
        self.tasks.spawn_for(async move { Message::LiveProbed(run, probe.ask().await.map(Box::new)) });
    }

    /// Looks at the memory of the live runs.
    pub(super) fn weigh_live(&mut self) {
        self.memory_looks.begin();
        let identity = |run: RunId| {
            let facts = self.runs.get(run).filter(|facts| facts.pid_that_runs().is_some())?;
            Some((run, facts.process()?.identity().clone()))
        };
        let runs = self.state.live_runs().into_iter().filter_map(identity).collect();
        self.tasks.spawn_for(async move { Message::Weighed(look(runs).await) });
    }

    pub(super) fn weighed(&mut self, seen: Vec<(RunId, Option<u64>)>) {
        self.memory_looks.end();
        for (run, bytes) in self.kernel.said(seen) {
            self.step(Event::Memory { run, bytes });
        }
        self.want_memory_looks();
    }

    /// Looks at the memory of the live release only where that has a limit.
    pub(super) fn want_memory_looks(&mut self) {
        let wanted = self.config.borrow().app.max_memory.is_some();
        self.memory_looks.want(wanted);
    }

    pub(super) fn live_probed(&mut self, run: RunId, report: Result<Box<ProbeReport>, Unable>) {
        let (interval, threshold) = {
            let config = self.config.borrow();
            (probe_interval(&config, self.state.window.is_some()), config.rollback.threshold)
        };
        if !self.live_probe.ended(run, interval) || !self.state.live_runs().contains(&run) {
            return;
        }
        let Some(judged) = self.live_probe.judge(report, self.state.failed_probes_of(run), threshold) else {
            return;
        };
        if let Some(symptom) = judged.symptom {
            self.voice.notice(symptom);
        }
        self.step(Event::LiveProbed { run, healthy: judged.healthy });
    }
}
