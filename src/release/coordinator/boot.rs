//! How the coordinator begins: leftovers, the record, `[app]`; and what an edit of `[app]` brings later.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use super::Coordinator;
use crate::config::{AppChange, StopSignal, app_change, app_fingerprint};
use crate::release::clock::now;
use crate::release::history::attempt;
use crate::release::message::Message;
use crate::release::record::{Record, StoredRun};
use crate::release::refusal::refused;
use crate::release::run::follow;
use crate::release::spec;
use crate::release::state::{
    Adopted, Boot, Event, Origin, Past, Refusal, ReleaseRef, Role, Run, RunId, Served,
};
use crate::supervisor::{Process, Survivor};
use crate::wire::{self, Code, ErrorBody, Reason};

/// How long a request waits for leftovers to be gone before it is refused.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many requests may wait so.
const EARLY: usize = 16;

/// What the supervisor needs to take a recorded run over.
fn survivor(run: &StoredRun, stop_timeout: Duration) -> Survivor {
    let stopping = (run.role == Role::Stopping).then(|| left(run.until, stop_timeout));
    Survivor { identity: run.identity.clone(), release: run.release.clone(), port: run.port, stopping }
}

/// What is left until then, nothing where no time is known; never more than the whole, whatever the clock says by now.
fn left(until: Option<SystemTime>, whole: Duration) -> Duration {
    let left = until.and_then(|until| until.duration_since(SystemTime::now()).ok());
    left.unwrap_or_default().min(whole)
}

/// What was live. An older daemon wrote down only what became of the attempts.
fn past_of(record: &Record) -> Past {
    if let Some(past) = &record.past {
        return past.clone();
    }
    let mut rows: Vec<_> = record.releases.iter().filter(|entry| entry.row.switched_at.is_some()).collect();
    rows.sort_by(|one, other| one.row.switched_at.cmp(&other.row.switched_at));
    let served = rows.into_iter().filter_map(|entry| {
        let release = match &entry.spec {
            Some(_) => spec::managed(&entry.row.release),
            None => spec::unmanaged(spec::unmanaged_port(&entry.row.release)?),
        };
        let quarantined = entry.row.outcome == Some(wire::Outcome::RolledBack);
        Some(Served { release, quarantined })
    });
    let mut served: Vec<_> = served.collect();
    if let Some(previous) = &record.previous
        && !served.iter().any(|known| known.release == *previous)
    {
        served.insert(0, Served { release: previous.clone(), quarantined: false });
    }
    Past::new(served)
}

impl Coordinator {
    /// Takes over what the record names and still runs, and stops what it does not name.
    pub(super) fn take_stock(&mut self) {
        let recorded = self.found.as_ref().filter(|_| !self.fresh);
        let runs = recorded.map(|record| record.runs.clone()).unwrap_or_default();
        let identities = self.leftovers.clone().unwrap_or_default();
        let app = self.config.borrow().app.clone();
        let (supervisor, reports) = (Arc::clone(&self.supervisor), self.reports.clone());
        self.tasks.spawn(async move {
            let mut processes = Vec::with_capacity(runs.len());
            for run in &runs {
                let adopted = supervisor.adopt(&survivor(run, app.stop_timeout)).await;
                let (release, pid) = (run.release.as_str(), run.identity.pid);
                processes.push(
                    adopted.inspect_err(|error| tracing::info!(release, pid, "not taken over: {error}")).ok(),
                );
            }
            let spared: Vec<_> =
                processes.iter().flatten().map(|process| process.identity().clone()).collect();
            let _coordinator_gone = reports.send(Message::TakenOver(processes)).await;
            let others = identities.into_iter().filter(|identity| !spared.contains(identity)).collect();
            supervisor.stop_leftovers(others, &spared, app.stop_signal, app.stop_timeout).await;
            let _coordinator_gone = reports.send(Message::LeftoversGone).await;
        });
    }

    /// Begins at once where nothing has to be started: what serves goes on serving. Otherwise what is left of the former
    /// daemon's processes has to be gone first, so that no release runs twice.
    pub(super) fn stock_taken(&mut self, processes: Vec<Option<Process>>) {
        self.taken_over = processes;
        let Some(record) = self.found.as_ref().filter(|_| !self.fresh) else { return };
        let serves = |(run, process): (&StoredRun, &Option<Process>)| {
            process.is_some() && matches!(run.role, Role::Live | Role::Restoring)
        };
        let starts_nothing = match &record.live {
            Some(release) if release.origin == Origin::Managed => {
                record.runs.iter().zip(&self.taken_over).any(serves)
            }
            Some(_) => true,
            None => self.unfinished(record).is_some(),
        };
        if starts_nothing && self.state.phase() != wire::Phase::Stopping {
            self.begin();
        }
    }

    /// What is asked while leftovers are looked for and stopped: nothing is known to be live yet, and nothing may be
    /// started. It waits a moment, since mostly there is nothing to stop; then it is refused. Gives back what means
    /// the same as later.
    pub(super) fn receive_before_boot(&mut self, message: Message) -> Option<Message> {
        let asks =
            matches!(message, Message::Deploy { .. } | Message::Rollback { .. } | Message::Switch { .. });
        match message {
            message if asks => {
                let waits = self.began.elapsed() < PATIENCE && self.early.len() < EARLY;
                if waits && self.state.phase() != wire::Phase::Stopping {
                    self.early.push(message);
                } else {
                    self.refuse_early(message);
                }
            }
            Message::StopAll { done } => self.stopped = Some(done),
            Message::Kill => self.kill_leftovers(),
            other => return Some(other),
        }
        None
    }

    /// When those who wait for the start have waited long enough.
    pub(super) fn patience_ends(&self) -> Option<Instant> {
        (!self.early.is_empty()).then(|| self.began + PATIENCE)
    }

    pub(super) fn lose_patience(&mut self) {
        for message in std::mem::take(&mut self.early) {
            self.refuse_early(message);
        }
    }

    fn refuse_early(&self, message: Message) {
        let stopping = self.state.phase() == wire::Phase::Stopping;
        let refusal = refused(if stopping { &Refusal::ShuttingDown } else { &Refusal::Booting });
        match message {
            Message::Deploy { reply, .. } => {
                let _asker_gone = reply.send(Err(refusal));
            }
            Message::Rollback { reply, .. } => {
                let _asker_gone = reply.send(Err(refusal));
            }
            Message::Switch { reply, .. } => {
                let _asker_gone = reply.send(Err(refusal));
            }
            _ => {}
        }
    }

    /// Those who are in a hurry do not wait for the ladder.
    pub(super) fn kill_leftovers(&mut self) {
        const KILL: StopSignal = StopSignal { number: 9, name: "SIGKILL" };
        let Some(identities) = self.leftovers.clone() else { return };
        let supervisor = Arc::clone(&self.supervisor);
        self.tasks.spawn(async move {
            supervisor.stop_leftovers(identities, &[], KILL, Duration::ZERO).await;
        });
    }

    /// Begins, where that has not been done yet.
    pub(super) fn leftovers_gone(&mut self) {
        self.leftovers = None;
        if self.found.is_some() {
            self.begin();
        }
    }

    fn begin(&mut self) {
        self.boot();
        if self.stopped.is_some() {
            self.lose_patience();
            self.step(Event::StopAll);
        }
        for message in std::mem::take(&mut self.early) {
            self.receive(message);
        }
    }

    fn boot(&mut self) {
        let record = self.found.take().filter(|_| !self.fresh).unwrap_or_default();
        let unfinished = self.unfinished(&record);
        if let Some(intent) = record.intent.as_ref().filter(|_| unfinished.is_none()) {
            self.history.ended(&intent.release.id, wire::Outcome::Interrupted, |row| {
                row.reason = Some("the daemon ended while it was under way".into());
            });
        }
        let runs = self.take_over(&record, unfinished.as_ref().map(|(release, _)| release));
        let serves = runs.iter().any(|adopted| adopted.role == Role::Live);
        let ended =
            !serves && record.runs.iter().any(|run| run.role == Role::Live && run.identity.is_of_this_boot());
        let going_back = record.intent.as_ref().is_some_and(|intent| intent.reason == Reason::AutoRollback);
        // After a boot of the host nothing can be said about a release that had to go with it.
        let of_this_boot = record.runs.iter().all(|run| run.identity.is_of_this_boot());
        let window = left(record.watch_until.filter(|_| of_this_boot), self.config.borrow().rollback.window);
        let known = |release: &ReleaseRef| {
            release.origin != Origin::Managed
                || self.history.get(&release.id).is_some_and(|entry| entry.spec.is_some())
        };
        let mut past = past_of(&record);
        past.retain(known);
        let went_back = record.last_switch.is_some_and(|switch| switch.reason == Reason::AutoRollback);
        let mut live = record.live.filter(known);
        let app = self.config.borrow().app.clone();
        if live.is_none()
            && let Some(port) = app.target
        {
            let release = spec::unmanaged(port);
            self.history.begin(attempt(&release.id, None, None), &[]);
            self.app_attempted = Some(app_fingerprint(&app));
            live = Some(release);
        }
        // What is recorded is started first; an edit that was made meanwhile is deployed over it. Nothing live and a
        // command: that is the first deploy, or another try of one that failed.
        self.app_edited = match app_change(self.app_attempted.as_deref(), &app) {
            AppChange::Redeploy => true,
            // A recorded port wins over the configured one, now and at the next reload of something else.
            AppChange::Switch(_) => {
                self.app_attempted = Some(app_fingerprint(&app));
                false
            }
            AppChange::None => live.is_none() && unfinished.is_none() && app.command.is_some(),
        };
        self.step(Event::Boot(Boot {
            live,
            past,
            restarts: record.restarts,
            crashes: self.moments(&record.crashes),
            failed_probes: record.failed_probes,
            unfinished,
            window: Some(window).filter(|left| !left.is_zero()),
            went_back,
            ended,
            going_back,
            runs,
        }));
        if !self.awaits_first_probe() {
            self.first_probe.send_replace(true);
        }
    }

    /// What was to become live while nothing was, where its process still runs.
    fn unfinished(&self, record: &Record) -> Option<(ReleaseRef, Reason)> {
        let intent = record.intent.as_ref().filter(|_| record.live.is_none())?;
        let release = &intent.release;
        let known = self.history.get(&release.id).is_some_and(|entry| entry.spec.is_some());
        let candidate = |(run, process): (&StoredRun, &Option<Process>)| {
            process.is_some() && run.role == Role::Candidate && run.release == release.id
        };
        let runs = record.runs.iter().zip(&self.taken_over).any(candidate);
        let ends = self.state.phase() == wire::Phase::Stopping;
        (known && runs && !ends).then(|| (release.clone(), intent.reason))
    }

    /// Moments of the record by the machine's clock; none is later than now, whatever the host's clock said.
    fn moments(&self, written: &[String]) -> Vec<Duration> {
        let now = self.clock();
        let moment = |text: &String| {
            let time = humantime::parse_rfc3339(text).ok()?;
            time.duration_since(SystemTime::UNIX_EPOCH).ok()
        };
        written.iter().filter_map(moment).map(|at| at.min(now)).collect()
    }

    /// Makes the slots of what was taken over, and follows it.
    fn take_over(&mut self, record: &Record, mut unfinished: Option<&ReleaseRef>) -> Vec<Adopted> {
        let processes = std::mem::take(&mut self.taken_over);
        let (period, stop_timeout) = {
            let config = self.config.borrow();
            (config.drain.period, config.app.stop_timeout)
        };
        let mut adopted = Vec::new();
        for (run, process) in record.runs.iter().zip(processes) {
            let release = spec::managed(&run.release);
            let Some(process) = process else {
                let started_at = run.started_at.map(wire::rfc3339);
                self.history.process_ended(&run.release, started_at.as_deref(), None, Some(&now()));
                continue;
            };
            let id = RunId(adopted.len() as u64 + 1);
            let role = run.role;
            let (port, pid) = (run.port, process.pid());
            tracing::info!(release = run.release, pid, port, ?role, "taken over");
            let slot = self.slot(id);
            slot.release = run.release.clone();
            slot.port = Some(port);
            slot.started_at = run.started_at;
            slot.process = Some(process.clone());
            let until = run.until;
            // As it is really due, whatever the record says: the next daemon reads it too.
            slot.kill_at = SystemTime::now().checked_add(left(until, stop_timeout));
            let resumes =
                role == Role::Candidate && unfinished.take_if(|wanted| **wanted == release).is_some();
            // The machine lets the readiness of the others be awaited, and that follows them too.
            if role != Role::Restoring && !resumes {
                self.tasks.spawn(follow(id, process, self.reports.clone()));
            }
            let run = Run { id, release, port: Some(port) };
            adopted.push(Adopted { run, role, left: left(until, period) });
        }
        adopted
    }

    /// Whether `[app]` is to be deployed, as it is configured now.
    pub(super) fn look_at_app(&mut self) {
        let app = &self.config.borrow_and_update().app;
        self.app_edited = app_change(self.app_attempted.as_deref(), app) != AppChange::None;
    }

    /// Deploys an edited `[app]` as soon as nothing else is under way.
    pub(super) fn deploy_edited_app(&mut self) {
        let stopping = self.state.phase() == wire::Phase::Stopping;
        if !self.app_edited || stopping || self.state.task.is_some() || self.found.is_some() {
            return;
        }
        self.app_edited = false;
        let config = Arc::clone(&self.config.borrow());
        let reports = self.reports.clone();
        self.app_attempted = Some(app_fingerprint(&config.app));
        if let Some(port) = config.app.target {
            let (reply, mut answer) = oneshot::channel();
            self.receive(Message::Switch { port, reason: Reason::Config, reply });
            if let Ok(Err(error)) = answer.try_recv() {
                tracing::error!("cannot switch to the edited app.target: {}", error.message);
                self.failed(error.message);
                self.save_again();
            }
            return;
        }
        let (reply, _nobody_waits) = oneshot::channel();
        self.tasks.spawn(async move {
            let prepared =
                tokio::task::spawn_blocking(move || spec::prepare(wire::DeployRequest::default(), &config))
                    .await;
            let message = match prepared {
                Ok(Ok(prepared)) => {
                    let prepared = Box::new(prepared);
                    Message::Deploy { prepared, reason: Reason::Config, force: false, reply }
                }
                Ok(Err(error)) => Message::ConfigNotPrepared { error: Box::new(error) },
                Err(error) => {
                    let error = ErrorBody::new(Code::Internal, "Internal error", error.to_string());
                    Message::ConfigNotPrepared { error: Box::new(error) }
                }
            };
            let _coordinator_gone = reports.send(message).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_daemons_record_tells_what_was_live_and_what_was_left() {
        let row = |id: &str, outcome: &str, switched: Option<&str>| {
            serde_json::json!({ "spec": null, "row": { "release": id, "outcome": outcome, "port": 8081,
                "switchedAt": switched } })
        };
        let text = serde_json::json!({
            "schema": 1,
            "previous": { "id": "port-8080", "origin": { "unmanaged": { "port": 8080 } } },
            "releases": [
                row("port-8083", "rolled_back", Some("2026-01-01T00:00:03.000Z")),
                row("port-8081", "live", Some("2026-01-01T00:00:04.000Z")),
                row("port-8082", "aborted", None),
            ],
        });
        let record: Record = serde_json::from_value(text).unwrap();
        let past = past_of(&record);
        assert!(past.get("port-8082").is_none(), "it never was live");
        assert_eq!(past.quarantined().collect::<Vec<_>>(), ["port-8083"]);
        let previous = past.previous(Some("port-8081")).map(|release| release.id.as_str());
        assert_eq!(previous, Some("port-8080"));
    }

    #[test]
    fn no_time_in_a_record_makes_more_than_the_whole_or_less_than_nothing() {
        let whole = Duration::from_secs(10);
        let far = humantime::parse_rfc3339("9999-12-31T23:59:60.999999999Z").unwrap();
        assert_eq!(left(Some(far), whole), whole);
        assert_eq!(left(Some(SystemTime::UNIX_EPOCH), whole), Duration::ZERO);
        assert_eq!(left(None, whole), Duration::ZERO);
    }
}
