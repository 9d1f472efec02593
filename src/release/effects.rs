//! The coordinator's hands: carries out the machine's effects, and tells the world about them.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Duration;
use tokio_util::sync::CancellationToken;

use super::autopsy::describe;
use super::coordinator::{Coordinator, Message, Slot};
use super::events::AttemptLog;
use super::run::{Report, Start, run};
use super::spec;
use super::state::{Abort, Effect, Event, FormerTarget, Live, Origin, ReleaseRef, RunId, Tell, Timer};
use crate::config::Config;
use crate::health::Probe;
use crate::wire::{self, Code, ErrorBody, EventKind, Outcome, Reason};

/// Between two probes of somebody else's app that is to be live and does not answer yet.
const PATIENT_PAUSE: Duration = Duration::from_millis(100);

impl Coordinator {
    /// Carries out one effect. Never waits.
    pub(super) fn perform(&mut self, effect: Effect, config: &Arc<Config>) {
        match effect {
            Effect::Save { seq } => self.save = Some(seq),
            Effect::Spawn { run, release, hold_port } => self.spawn(run, release, hold_port, config),
            Effect::Probe { run, patient } => self.ask(run, patient),
            Effect::Route { run, former } => self.point(run, former),
            Effect::Hold => drop(self.route.hold()),
            Effect::Unroute => drop(self.route.route(None)),
            Effect::Close { run } => {
                for target in self.slots.get(&run).iter().flat_map(|slot| &slot.targets) {
                    target.close();
                }
            }
            Effect::Stop { run } => {
                if let Some(slot) = self.slots.get_mut(&run) {
                    slot.stop = true;
                    slot.settled.cancel();
                    if let Some(process) = &slot.process {
                        process.stop(config.app.stop_signal, config.app.stop_timeout);
                    }
                }
            }
            Effect::Kill { run } => {
                if let Some(process) = self.slots.get(&run).and_then(|slot| slot.process.as_ref()) {
                    process.kill();
                }
            }
            Effect::Forget { run } => {
                if let Some(asking) = self.slots.get_mut(&run).and_then(|slot| slot.asking.take()) {
                    asking.abort();
                }
            }
            Effect::Timer(timer) => {
                let after = match timer {
                    Timer::Drain(_) => config.drain.period,
                    Timer::Window(_) => config.rollback.window,
                    Timer::Restart(_, delay) => delay,
                };
                self.timers.start(timer, after);
            }
            Effect::Tell(tell) => self.tell(tell),
            Effect::Refuse(refusal) => self.refusal = Some(refusal),
            Effect::AlreadyLive => self.already_live = true,
            Effect::Finished => self.finished = true,
        }
    }

    fn slot(&mut self, run: RunId) -> &mut Slot {
        let known = self.state.runs().find(|known| known.id == run).cloned();
        self.slots.entry(run).or_insert_with(|| Slot {
            release: known.as_ref().map(|run| run.release.id.clone()).unwrap_or_default(),
            port: known.and_then(|run| run.port),
            process: None,
            stop: false,
            settled: CancellationToken::new(),
            asking: None,
            targets: Vec::new(),
            started_at: None,
            autopsy: None,
            probe: None,
            exit: None,
        })
    }

    fn spawn(&mut self, id: RunId, release: String, hold_port: bool, config: &Config) {
        let settled = self.slot(id).settled.clone();
        let Some(spec) = self.history.get(&release).and_then(|entry| entry.spec.clone()) else {
            // Cannot be: every release is known before the machine hears of it. Said instead of hung.
            let autopsy =
                wire::Autopsy { summary: format!("release `{release}` is not known"), ..Default::default() };
            let reports = self.reports.clone();
            self.tasks.spawn(async move {
                let report = Report::NotReady(Box::new(autopsy));
                let _coordinator_gone = reports.send(Message::Run(id, report)).await;
                let _coordinator_gone = reports.send(Message::Run(id, Report::Gone(None))).await;
            });
            return;
        };
        let start = Start {
            run: id,
            hold_port,
            probe: Probe {
                // The port is known when the process is.
                addr: (std::net::Ipv4Addr::LOCALHOST, 0).into(),
                path: spec.health_path.clone().unwrap_or_else(|| config.health.path.clone()),
                host: config.health.host.clone(),
                timeout: config.health.timeout,
            },
            release,
            spec,
            successes: config.health.successes,
            start_timeout: config.app.start_timeout,
            owner_check: config.app.owner_check,
            settled,
        };
        self.tasks.spawn(run(start, Arc::clone(&self.supervisor), self.reports.clone()));
    }

    /// The probe of a run, with the settings in force now.
    pub(super) fn probe_of(&self, id: RunId) -> Option<Probe> {
        let run = self.state.runs().find(|run| run.id == id)?;
        let config = self.config.borrow();
        let entry = self.history.get(&run.release.id);
        let path = entry.and_then(|entry| entry.spec.as_ref()?.health_path.clone());
        Some(Probe {
            addr: (std::net::Ipv4Addr::LOCALHOST, run.port?).into(),
            path: path.unwrap_or_else(|| config.health.path.clone()),
            host: config.health.host.clone(),
            timeout: config.health.timeout,
        })
    }

    fn ask(&mut self, id: RunId, patient: bool) {
        let Some(probe) = self.probe_of(id) else { return };
        let (reports, successes) = (self.reports.clone(), self.config.borrow().health.successes);
        let (asked, config) = (self.first_probe.clone(), self.config.clone());
        let asking = self.tasks.spawn(async move {
            let mut good = 0;
            let report = loop {
                let timeout = config.borrow().health.timeout;
                let report = Probe { timeout, ..probe.clone() }.ask().await;
                good = if report.healthy { good + 1 } else { 0 };
                asked.send_replace(true);
                if good >= successes || !(patient || report.healthy) {
                    break report;
                }
                if !report.healthy {
                    tokio::time::sleep(PATIENT_PAUSE).await;
                }
            };
            let _coordinator_gone = reports.send(Message::Asked(id, report)).await;
        });
        self.slot(id).asking = Some(asking);
    }

    fn point(&mut self, id: RunId, former: Option<(RunId, FormerTarget)>) {
        let Some(run) = self.state.runs().find(|run| run.id == id) else { return };
        let Some(port) = run.port else { return };
        let target = self.stats.target(&run.release.id, port);
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
        self.health =
            wire::HealthMetrics { active_port_ok: true, last_checked_at: Some(now()), consecutive_fails: 0 };
    }

    /// What a run's task saw.
    pub(super) fn reported(&mut self, id: RunId, report: Report) {
        match report {
            Report::Spawned(process) => {
                let (pid, port, time) = (process.pid(), process.port(), SystemTime::now());
                let config = Arc::clone(&self.config.borrow());
                let slot = self.slot(id);
                if slot.stop {
                    process.stop(config.app.stop_signal, config.app.stop_timeout);
                }
                slot.process = Some(process);
                slot.port = Some(port);
                slot.started_at = Some(time);
                let release = slot.release.clone();
                self.history.update(&release, |row| {
                    row.started_at = Some(wire::rfc3339(time));
                    row.stopped_at = None;
                    row.exit = None;
                    row.port = Some(port);
                });
                tracing::info!(release, pid, port, "started");
                self.event_of(id, EventKind::Spawned, |event| {
                    event.pid = Some(pid);
                    event.port = Some(port);
                });
                self.step(Event::Spawned { run: id, port });
            }
            Report::Probe(report) => {
                let message = describe(&report);
                self.event_of(id, EventKind::Probe, |event| {
                    event.message = message;
                    event.probe = Some(report);
                });
            }
            Report::Output(line) => {
                let line = line.line.clone();
                self.event_of(id, EventKind::Output, |event| event.line = Some(line));
            }
            Report::Unproven => {
                let release = self.slot(id).release.clone();
                tracing::warn!(release, "the listener cannot be proven to be the release's own");
            }
            Report::Ready(report) => {
                let message =
                    format!("status {} after {} probes", report.status.unwrap_or(0), report.attempts);
                self.event_of(id, EventKind::Healthy, |event| {
                    event.message = Some(message);
                    event.probe = Some(report);
                });
                self.step(Event::Ready { run: id });
            }
            Report::NotReady(autopsy) => {
                self.slot(id).autopsy = Some(autopsy);
                self.step(Event::NotReady { run: id });
            }
            Report::Exited { exit, port_taken, autopsy } => {
                let slot = self.slot(id);
                slot.exit = Some(exit.to_string());
                if autopsy.is_some() {
                    slot.autopsy = autopsy;
                }
                let release = slot.release.clone();
                self.history.update(&release, |row| row.exit = Some(exit.to_string()));
                if self.state.live_run().is_some_and(|run| run.id == id) {
                    tracing::error!(release, "the live release ended: {exit}");
                    self.verdict = Some(format!("it ended: {exit}"));
                }
                self.step(Event::Exited { run: id, port_taken });
            }
            Report::Gone(exit) => {
                let release = self.slot(id).release.clone();
                let another = self.state.runs().any(|run| run.id != id && run.release.id == release);
                self.history.update(&release, |row| {
                    if !another {
                        row.stopped_at = Some(now());
                    }
                    if let Some(exit) = exit {
                        row.exit = Some(exit.to_string());
                    }
                });
                self.step(Event::Gone { run: id });
            }
        }
    }

    /// Adds an event to the attempt under way, where it is about its run.
    fn event_of(&mut self, id: RunId, kind: EventKind, fill: impl FnOnce(&mut wire::Event)) {
        let candidate = match &self.state.task {
            Some(super::state::Task { stage: super::state::Stage::Starting { run, .. }, .. }) => Some(run.id),
            _ => None,
        };
        if candidate == Some(id)
            && let Some(attempt) = &mut self.attempt
        {
            let mut event = wire::Event::new(now(), kind, self.slots[&id].release.clone());
            fill(&mut event);
            attempt.push(event);
        }
    }

    fn push(&mut self, event: wire::Event) {
        if let Some(attempt) = &mut self.attempt {
            attempt.push(event);
        }
    }

    fn tell(&mut self, tell: Tell) {
        match tell {
            Tell::Accepted => {
                let Some(task) = &self.state.task else { return };
                let (id, reason) = (task.release.id.clone(), task.reason);
                let unmanaged = task.release.origin != Origin::Managed;
                tracing::info!(release = id, reason = reason.as_str(), "accepted");
                if unmanaged && self.history.get(&id).is_none() {
                    self.history.begin(&id, None, |_| true);
                }
                let mut log = AttemptLog::new(&id);
                let mut event = wire::Event::new(now(), EventKind::Accepted, id);
                event.message = Some(reason.as_str().to_owned());
                log.push(event);
                self.accepted = Some(log.reader());
                self.attempt = Some(log);
            }
            Tell::PortTaken { run } => {
                let release = self.slot(run).release.clone();
                tracing::warn!(release, "its port was taken; trying another");
            }
            Tell::Switched { run, from, reason, from_release } => {
                self.switched(run, from, reason, from_release)
            }
            Tell::Draining { run } => self.tell_run(run, EventKind::Draining),
            Tell::Drained { run } => self.tell_run(run, EventKind::Drained),
            Tell::Stopped { run, release } => {
                let exit = self.slots.get(&run).and_then(|slot| slot.exit.clone());
                tracing::info!(release = release.id, exit, "stopped");
            }
            Tell::Aborted { release, reason, run, why } => self.aborted(&release, reason, run, why),
            Tell::Crashed { release, delay, looping } => {
                let exit = self.verdict.take().unwrap_or_else(|| "it is not healthy".into());
                let next = match delay {
                    Some(delay) => format!("started again in {}", humantime::format_duration(delay)),
                    None => "not started again before the next deploy".to_owned(),
                };
                tracing::error!(release = release.id, "the live release crashed: {exit}; {next}");
                if looping {
                    let message = format!("`{}` crashes again and again: {exit}; {next}", release.id);
                    self.last_failure = Some(message.clone());
                    self.hook("failed", Some(release.id), message, None);
                }
            }
            Tell::Restored { run, boot } => {
                let release = self.slot(run).release.clone();
                tracing::info!(release, boot, "the live release serves");
                self.last_failure = None;
                self.history.update(&release, |row| row.outcome = Some(Outcome::Live));
            }
            Tell::NothingToGoBackTo => {
                let verdict = self.verdict.take().unwrap_or_default();
                let message =
                    format!("the live release is bad ({verdict}) and there is nothing to go back to");
                tracing::error!("{message}");
                self.last_failure = Some(message.clone());
                let release = self.state.live_release().map(|release| release.id.clone());
                self.hook("failed", release, message, None);
            }
            Tell::Settled => tracing::info!("the watch window has passed"),
        }
    }

    fn tell_run(&mut self, run: RunId, kind: EventKind) {
        let release = self.slot(run).release.clone();
        tracing::info!(release, "{}", kind.as_str());
    }

    fn switched(&mut self, run: RunId, from: Option<RunId>, reason: Reason, left: Option<ReleaseRef>) {
        let (release, port) = {
            let slot = self.slot(run);
            (slot.release.clone(), slot.port.unwrap_or_default())
        };
        let from_port = from.and_then(|from| self.slots.get(&from)?.port);
        let switch = wire::Switch { from: from_port, to: port, at: now(), reason, id: spec::switch_id() };
        self.last_switch = Some(switch.clone());
        self.last_failure = None;
        self.history.update(&release, |row| {
            row.outcome = Some(Outcome::Live);
            row.reason = None;
            row.switched_at = Some(switch.at.clone());
            row.port = Some(port);
        });
        let back = matches!(reason, Reason::AutoRollback | Reason::ManualRollback);
        let message = match (back, &left) {
            (true, Some(left)) => {
                let why = match reason {
                    Reason::AutoRollback => self.verdict.take().unwrap_or_else(|| "its watch failed".into()),
                    _ => "an operator asked for it".to_owned(),
                };
                self.history.update(&left.id, |row| {
                    row.outcome = Some(Outcome::RolledBack);
                    row.reason = Some(why.clone());
                });
                format!("rolled back from `{}` to `{release}` on port {port}: {why}", left.id)
            }
            _ => format!("`{release}` is live on port {port}"),
        };
        tracing::info!(release, from = from_port, to = port, reason = reason.as_str(), "{message}");
        let kind = if back { EventKind::RolledBack } else { EventKind::Switched };
        let about = if back { left.map_or_else(|| release.clone(), |left| left.id) } else { release.clone() };
        let mut event = wire::Event::new(now(), kind, about.clone());
        event.port = Some(port);
        event.switch = Some(switch.clone());
        event.message = Some(message.clone());
        self.push(event);
        self.hook(kind.as_str(), Some(about), message.clone(), Some(switch.clone()));
        if let Some(from) = from {
            let mut event = wire::Event::new(now(), EventKind::Draining, self.slot(from).release.clone());
            event.port = from_port;
            self.push(event);
        }
        let mut event = wire::Event::new(now(), EventKind::Finished, release.clone());
        event.outcome = Some(Outcome::Live);
        event.switch = Some(switch.clone());
        event.message = Some(message.clone());
        if let Some(attempt) = self.attempt.take() {
            attempt.end(
                event,
                Ok(wire::Moved { success: true, message, release, outcome: Outcome::Live, switch }),
            );
        }
    }

    fn aborted(&mut self, release: &ReleaseRef, reason: Reason, run: Option<RunId>, why: Abort) {
        let slot = run.and_then(|run| self.slots.get_mut(&run));
        let (autopsy, probe) = match slot {
            Some(slot) => (slot.autopsy.take(), slot.probe.clone()),
            None => (None, None),
        };
        let path = self.config.borrow().health.path.clone();
        let error = explain(release, reason, why, autopsy.map(|autopsy| *autopsy), probe.as_ref(), &path);
        let outcome = error.outcome.unwrap_or(Outcome::Aborted);
        tracing::error!(release = release.id, reason = reason.as_str(), "{}", error.message);
        let rollback = matches!(reason, Reason::AutoRollback | Reason::ManualRollback);
        if why == Abort::Unrecorded {
            self.history.forget(&release.id);
        } else if !rollback {
            self.history.update(&release.id, |row| {
                row.outcome = Some(outcome);
                row.reason = Some(error.message.clone());
            });
        }
        if why != Abort::Cancelled {
            self.last_failure = Some(error.message.clone());
        }
        let mut event = wire::Event::new(now(), EventKind::Aborted, release.id.clone());
        event.message = Some(error.message.clone());
        self.push(event);
        if why != Abort::Interrupted {
            let kind = if rollback { "failed" } else { "aborted" };
            self.hook(kind, Some(release.id.clone()), error.message.clone(), None);
        }
        let mut event = wire::Event::new(now(), EventKind::Finished, release.id.clone());
        event.outcome = Some(outcome);
        event.error = Some(error.clone());
        if let Some(attempt) = self.attempt.take() {
            attempt.end(event, Err(error));
        }
    }

    pub(super) fn hook(
        &self,
        event: &str,
        release: Option<String>,
        message: String,
        switch: Option<wire::Switch>,
    ) {
        let instance = self.config.borrow().name.clone();
        (self.notify)(wire::HookEvent {
            at: now(),
            event: event.to_owned(),
            instance,
            release,
            message,
            switch,
        });
    }

    /// Lets whoever waits for the attempt know that its intent is written down.
    pub(super) fn begin_attempt(&self) {
        let recorded = !matches!(
            self.state.task,
            None | Some(super::state::Task { stage: super::state::Stage::Recording { .. }, .. })
        );
        if recorded && let Some(attempt) = &self.attempt {
            attempt.begin();
        }
    }

    /// Whether the live run is one of somebody else's that has not been asked yet.
    pub(super) fn awaits_first_probe(&self) -> bool {
        matches!(&self.state.live, Live::Down { release, .. } if release.origin != Origin::Managed)
    }
}

/// Why an attempt was given up, for whoever asked for it.
fn explain(
    release: &ReleaseRef,
    reason: Reason,
    why: Abort,
    autopsy: Option<wire::Autopsy>,
    probe: Option<&wire::ProbeReport>,
    health_path: &str,
) -> ErrorBody {
    let id = &release.id;
    let mut error = match (why, release.origin) {
        (Abort::Exited | Abort::NotReady, _) => {
            let said = autopsy.as_ref().map_or("it was not healthy", |autopsy| autopsy.summary.as_str());
            let what = match reason {
                Reason::AutoRollback | Reason::ManualRollback => "rollback to",
                _ => "deploy of",
            };
            ErrorBody::new(Code::DeployAborted, "Deploy aborted", format!("{what} `{id}` aborted: {said}"))
        }
        (Abort::Unhealthy, Origin::Unmanaged { port }) => ErrorBody::new(
            Code::HealthFailed,
            "Health check failed",
            format!("Port {port} did not respond with 2xx at {health_path}"),
        ),
        (Abort::Unhealthy, Origin::Managed) => ErrorBody::new(
            Code::HealthFailed,
            "Health check failed",
            format!("`{id}` still runs and did not respond with 2xx; traffic stays where it is"),
        ),
        (Abort::Cancelled, _) => ErrorBody::new(
            Code::DeployAborted,
            "Cancelled",
            format!("`{id}` was cancelled; traffic did not move"),
        ),
        (Abort::Unrecorded, _) => ErrorBody::new(
            Code::StateUnwritable,
            "State cannot be written",
            format!("`{id}` was not started: its intent could not be written to the state file"),
        )
        .with_hint("see portok status for the cause; serving and rollback go on"),
        (Abort::Interrupted, _) => ErrorBody::new(
            Code::ShuttingDown,
            "Shutting down",
            format!("`{id}` was given up: the daemon is going down; traffic did not move"),
        ),
    };
    error.release = Some(id.clone());
    error.outcome = Some(match why {
        Abort::Cancelled => Outcome::Cancelled,
        Abort::Interrupted => Outcome::Interrupted,
        _ => Outcome::Aborted,
    });
    if error.hint.is_none() {
        error.hint = autopsy.as_ref().and_then(|autopsy| autopsy.hint.clone());
    }
    if why == Abort::Unhealthy
        && let Some(said) = probe.and_then(describe)
    {
        error.hint = Some(format!("the probe saw: {said}"));
    }
    error.autopsy = autopsy;
    error
}

fn now() -> String {
    wire::rfc3339(SystemTime::now())
}
