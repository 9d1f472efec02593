//! The coordinator's hands: carries out the machine's effects, and tells the world about them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::{Coordinator, RunFacts};
use crate::config::AppConfig;
use crate::health::Probe;
use crate::proxy::Target;
use crate::release::clock::now;
use crate::release::events::AttemptLog;
use crate::release::message::{Message, Report};
use crate::release::run::{Start, run, see_through};
use crate::release::spec::ReleaseSpec;
use crate::release::state::{Effect, FormerTarget, Live, Origin, RunId, Timer};
use crate::wire;

/// Between two probes of somebody else's app that is to be live and does not answer yet.
const PATIENT_PAUSE: Duration = Duration::from_millis(100);

impl Coordinator {
    /// Carries out one effect. Never waits.
    pub(super) fn perform(&mut self, effect: Effect, config: &Arc<AppConfig>) {
        match effect {
            Effect::Save { seq } => self.save = Some(seq),
            Effect::Spawn { run, release } => self.spawn(run, release, config),
            Effect::Await { run } => self.await_readiness(run, config),
            Effect::Probe { run, patient } => self.ask(run, patient),
            Effect::Route { run, former } => self.point(run, former),
            Effect::Hold => {
                self.health.active_port_ok = false;
                drop(self.route.hold());
            }
            Effect::Unroute => {
                self.health.active_port_ok = false;
                drop(self.route.route(None));
            }
            Effect::Close { run } => {
                for target in self.slots.get(&run).iter().flat_map(|slot| &slot.targets) {
                    target.close();
                }
            }
            Effect::Stop { run } => {
                if let Some(slot) = self.slots.get_mut(&run) {
                    slot.stop = true;
                    slot.kill_at = SystemTime::now().checked_add(config.app.stop_timeout);
                    slot.settled.cancel();
                    if let Some(process) = &slot.process {
                        process.stop(config.app.stop_signal, config.app.stop_timeout);
                    }
                }
            }
            Effect::Kill { run } => {
                if let Some(slot) = self.slots.get_mut(&run) {
                    slot.kill = true;
                    if let Some(process) = &slot.process {
                        process.kill();
                    }
                }
            }
            Effect::Forget { run } => {
                if let Some(asking) = self.slots.get_mut(&run).and_then(|slot| slot.asking.take()) {
                    asking.abort();
                }
            }
            Effect::Timer(timer) => {
                let after = match timer {
                    Timer::Drain(..) => config.drain.period,
                    Timer::Window(_) => config.rollback.window,
                    Timer::Restart(_, delay) | Timer::Calm(_, delay) => delay,
                };
                self.timers.start(timer, after);
            }
            Effect::Resume(timer, left) => self.timers.start(timer, left),
            Effect::Tell(tell) => self.tell(tell),
            Effect::Refuse(refusal) => self.refusal = Some(refusal),
            Effect::AlreadyLive => self.already_live = true,
            Effect::UnderWay => self.accepted = self.attempt.as_ref().map(AttemptLog::reader),
            Effect::Finished => self.finished = true,
        }
    }

    pub(super) fn slot(&mut self, run: RunId) -> &mut RunFacts {
        let known = self.state.runs().find(|known| known.id == run).cloned();
        self.slots.entry(run).or_insert_with(|| RunFacts {
            release: known.as_ref().map(|run| run.release.id.clone()).unwrap_or_default(),
            port: known.and_then(|run| run.port),
            process: None,
            stop: false,
            kill: false,
            kill_at: None,
            settled: CancellationToken::new(),
            asking: None,
            targets: Vec::new(),
            started_at: None,
            autopsy: None,
            probe: None,
            exit: None,
        })
    }

    fn spawn(&mut self, id: RunId, release: String, config: &AppConfig) {
        self.slot(id);
        let Some(spec) = self.history.get(&release).and_then(|entry| entry.spec.clone()) else {
            // Cannot be: every release is known before the machine hears of it. Said instead of hung.
            let autopsy =
                wire::Autopsy { summary: format!("release `{release}` is not known"), ..Default::default() };
            let reports = self.reports.clone();
            self.tasks.spawn(async move {
                for report in [Report::NotReady(Box::new(autopsy)), Report::Gone(None)] {
                    let _coordinator_gone = reports.send(Message::Run(id, Box::new(report))).await;
                }
            });
            return;
        };
        let start = self.how_to_start(id, release, spec, config);
        let hold_port = self.placeholder.is_held();
        self.tasks.spawn(run(start, hold_port, Arc::clone(&self.supervisor), self.reports.clone()));
    }

    /// A run that was taken over before it was ready.
    fn await_readiness(&mut self, id: RunId, config: &AppConfig) {
        let slot = self.slot(id);
        let (release, process) = (slot.release.clone(), slot.process.clone());
        let spec = self.history.get(&release).and_then(|entry| entry.spec.clone());
        // Both are known: only what has them is taken over.
        let (Some(process), Some(spec)) = (process, spec) else { return };
        let start = self.how_to_start(id, release, spec, config);
        self.tasks.spawn(see_through(start, process, self.reports.clone()));
    }

    fn how_to_start(&mut self, id: RunId, release: String, spec: ReleaseSpec, config: &AppConfig) -> Start {
        Start {
            run: id,
            // The port is known when the process is.
            probe: probe(config, 0, spec.health_path.clone()),
            release,
            spec,
            successes: config.health.successes,
            start_timeout: config.app.start_timeout,
            owner_check: config.app.owner_check,
            has_file: config.in_file,
            settled: self.slot(id).settled.clone(),
        }
    }

    /// The probe of a run, with the settings in force now.
    pub(super) fn probe_of(&self, id: RunId) -> Option<Probe> {
        let run = self.state.runs().find(|run| run.id == id)?;
        let config = self.config.borrow();
        let entry = self.history.get(&run.release.id);
        let path = entry.and_then(|entry| entry.spec.as_ref()?.health_path.clone());
        Some(probe(&config, run.port?, path))
    }

    fn ask(&mut self, id: RunId, patient: bool) {
        let Some(first) = self.probe_of(id) else { return };
        let reports = self.reports.clone();
        let (asked, config) = (self.first_probe.clone(), self.config.clone());
        let asking = self.tasks.spawn(async move {
            let mut good = 0;
            let began = Instant::now();
            let report = loop {
                // As it is configured now: a wrong path may be mended meanwhile.
                let config = config.borrow().clone();
                let asks = if patient { probe(&config, first.addr.port(), None) } else { first.clone() };
                let report = match asks.ask().await {
                    Ok(report) => report,
                    // It says nothing of the app. Not for ever, where somebody waits for the answer.
                    Err(_) if patient || began.elapsed() < config.health.timeout => {
                        asked.send_replace(true);
                        tokio::time::sleep(PATIENT_PAUSE).await;
                        continue;
                    }
                    Err(unable) => break unable.report(),
                };
                good = if report.healthy { good + 1 } else { 0 };
                asked.send_replace(true);
                if good >= config.health.successes || !(patient || report.healthy) {
                    break report;
                }
                if !report.healthy {
                    tokio::time::sleep(PATIENT_PAUSE).await;
                }
            };
            let _coordinator_gone = reports.send(Message::ProbeEnded(id, Box::new(report))).await;
        });
        self.slot(id).asking = Some(asking);
    }

    fn point(&mut self, id: RunId, former: Option<(RunId, FormerTarget)>) {
        let Some(run) = self.state.runs().find(|run| run.id == id) else { return };
        let Some(port) = run.port else { return };
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let target = Target::new(addr, self.stats.release(&run.release.id));
        let slot = self.slot(id);
        // Whoever is pinned to an earlier tenure of this run moves to the new one.
        slot.targets.retain(|tenure| {
            tenure.close();
            tenure.inflight() > 0
        });
        slot.targets.push(Arc::clone(&target));
        self.route.route(Some(target));
        if let Some((former, treatment)) = former {
            for target in self.slots.get(&former).iter().flat_map(|slot| &slot.targets) {
                match treatment {
                    FormerTarget::Retire => target.retire(),
                    FormerTarget::Close => target.close(),
                }
            }
        }
        // One that was taken over may have failed its probes for long.
        let fails = self.state.failed_probes();
        self.health = wire::HealthMetrics {
            active_port_ok: fails == 0,
            last_checked_at: Some(now()),
            consecutive_fails: fails,
        };
    }

    /// Whether an app that may serve already has not been asked yet: an unmanaged one, or a first release whose switch was
    /// not written down.
    pub(super) fn awaits_first_probe(&self) -> bool {
        match &self.state.live {
            Live::Down { release, .. } => release.origin != Origin::Managed,
            Live::None => self.state.task.is_some(),
            Live::Up { .. } => false,
        }
    }
}

/// The probe of what listens on `port`, at the release's own path where it has one.
fn probe(config: &AppConfig, port: u16, path: Option<String>) -> Probe {
    let health = &config.health;
    Probe {
        addr: (Ipv4Addr::LOCALHOST, port).into(),
        path: path.unwrap_or_else(|| health.path.clone()),
        host: health.host.clone(),
        timeout: health.timeout,
        most_fields: config.max_fields,
    }
}
