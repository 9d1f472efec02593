//! How the coordinator begins: it takes over what the earlier daemon left running, stops the
//! leftovers, and tells the machine what the record says.
//!
//! The ordering that matters: nothing is started before the leftovers are gone, so that no release
//! runs twice. Where nothing has to be started the machine begins before that.

use std::time::SystemTime;

use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use super::companions::stop_timeout_of;
use super::{Coordinator, Step};
use crate::release::clock::now;
use crate::release::history::{Content, Rest, attempt};
use crate::release::life::{Booting, Life};
use crate::release::message::Message;
use crate::release::record::{Record, StoredRun};
use crate::release::refusal::refused;
use crate::release::spec;
use crate::release::state::{
    Adopted, Boot, DeployStep, Event, Origin, Past, Refusal, ReleaseRef, Role, Run, RunId, Served,
};
use crate::release::tasks::report;
use crate::release::turns::Turn;
use crate::supervisor::{Process, Survivor};
use crate::wire::{self, Reason};

/// What the supervisor needs to take a recorded run over.
fn survivor(run: &StoredRun, stop_timeout: Duration) -> Survivor {
    let stopping = (run.role == Role::Stopping).then(|| left(run.until, stop_timeout));
    let StoredRun { identity, release, replica, process, step, port, .. } = run.clone();
    let process = process.map(Into::into).or_else(|| step.map(|step| step.as_str().into()));
    let port = Some(port).filter(|port| *port != 0);
    Survivor { identity, release, replica, process, port, stopping }
}

/// The time left until a recorded moment: nothing where none is known, and never more than the
/// whole, even if the clock was changed since.
fn left(until: Option<SystemTime>, whole: Duration) -> Duration {
    let left = until.and_then(|until| until.duration_since(SystemTime::now()).ok());
    left.unwrap_or_default().min(whole)
}

/// What is left of the recorded watch window. One that waited for the resume begins with that: it
/// is still whole where requests are `paused`.
fn window_rest(record: &Record, paused: bool, whole: Duration) -> Duration {
    match record.watch_until {
        Some(_) if record.watch_waits && paused => whole,
        Some(until) if record.watch_waits => {
            let resumed = record.orders.pause_ends();
            left(resumed.and_then(|at| at.checked_add(whole)).or(Some(until)), whole)
        }
        until => left(until, whole),
    }
}

/// The releases that were live. The record of an older daemon has only the outcome of the attempts.
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
        self.look_at_replicas();
        let runs = self.life.booting().map(|booting| booting.record.runs.clone()).unwrap_or_default();
        let identities = self.runs.leftovers().to_vec();
        let supervisor = self.runs.supervisor();
        let app = self.config.borrow().app.clone();
        let of_app = app.stop_timeout;
        let record = self.life.booting().map(|booting| &booting.record);
        let timeout = |run| record.map_or(of_app, |record| stop_timeout_of(record, run, of_app));
        let survivors: Vec<_> = runs.iter().map(|run| survivor(run, timeout(run))).collect();
        let reports = self.tasks.reports();
        self.tasks.spawn(async move {
            let mut processes = Vec::with_capacity(runs.len());
            for survivor in &survivors {
                let adopted = supervisor.adopt(survivor).await;
                let (release, pid) = (survivor.release.as_str(), survivor.identity.pid);
                processes.push(
                    adopted.inspect_err(|error| tracing::info!(release, pid, "not taken over: {error}")).ok(),
                );
            }
            let spared: Vec<_> =
                processes.iter().flatten().map(|process| process.identity().clone()).collect();
            report(&reports, Message::TakenOver(processes)).await;
            let others = identities.into_iter().filter(|identity| !spared.contains(identity)).collect();
            supervisor.stop_leftovers(others, &spared, app.stop_signal, app.stop_timeout).await;
            report(&reports, Message::LeftoversGone).await;
        });
    }

    /// Begins at once where nothing has to be started: what serves goes on serving.
    pub(super) fn stock_taken(&mut self, processes: Vec<Option<Process>>) {
        let Life::Booting(booting) = &mut self.life else { return };
        booting.taken_over = processes;
        if (self.starts_nothing() || self.serves_on()) && !self.is_stopping() {
            self.begin();
        }
    }

    /// Whether some replicas of the live release serve, and the boot may begin with these: what is
    /// missing is no reason to go back.
    fn serves_on(&self) -> bool {
        let Some(Booting { record, taken_over, .. }) = self.life.booting() else { return false };
        let serves =
            |(run, process): (&StoredRun, &Option<Process>)| process.is_some() && run.role == Role::Live;
        let goes_back = record.intent.as_ref().is_some_and(|intent| intent.reason == Reason::AutoRollback);
        record.runs.iter().zip(taken_over).any(serves) && self.window_left(record).is_none() && !goes_back
    }

    /// Whether the boot will start no process.
    fn starts_nothing(&self) -> bool {
        let Some(booting) = self.life.booting() else { return false };
        let Booting { record, taken_over, .. } = booting;
        let wanted = usize::from(self.replicas().within(record.wanted.unwrap_or(1)));
        let all_run = |roles: &[Role]| {
            let found = record.runs.iter().zip(taken_over);
            let serves = |run: &StoredRun| run.is_of_the_app() && roles.contains(&run.role);
            found.filter(|(run, process)| process.is_some() && serves(run)).count() >= wanted
        };
        match &record.live {
            Some(release) if release.origin == Origin::Managed => all_run(&[Role::Live, Role::Restoring]),
            Some(_) => true,
            None => self.unfinished(booting).is_some() && wanted > 0 && all_run(&[Role::Candidate]),
        }
    }

    /// Refuses what would move traffic, and notes the wish to stop everything. Gives back what
    /// means the same as later.
    pub(super) fn receive_while_booting(&mut self, message: Message) -> Option<Message> {
        let awaits_turn = self.life.booting().is_some_and(|booting| booting.awaits_turn);
        match message {
            // Who asks for something does not wait for the app's turn.
            Message::Deploy { .. }
            | Message::Rollback { .. }
            | Message::Switch { .. }
            | Message::Order { .. }
            | Message::Drains { .. }
            | Message::Scale { .. }
            | Message::StopAll { .. }
            | Message::Kill
                if awaits_turn =>
            {
                self.begin();
                Some(message)
            }
            Message::Deploy { .. }
            | Message::Rollback { .. }
            | Message::Switch { .. }
            | Message::Order { .. }
            | Message::Drains { .. }
            | Message::Scale { .. } => {
                let refusal = if self.is_stopping() { Refusal::ShuttingDown } else { Refusal::Booting };
                message.refuse(|| refused(&refusal))
            }
            Message::StopAll { done } => {
                self.stop_after_boot(done);
                None
            }
            Message::Kill => {
                self.runs.kill_leftovers(&mut self.tasks);
                None
            }
            other => Some(other),
        }
    }

    fn stop_after_boot(&mut self, done: oneshot::Sender<Vec<wire::Ended>>) {
        self.end_awaited = Some(done);
        if let Life::Booting(booting) = &mut self.life {
            booting.stop_all = true;
        }
    }

    /// Begins, where that has not been done yet.
    pub(super) fn leftovers_gone(&mut self) {
        self.runs.leftovers_gone();
        if matches!(self.life, Life::Moving) {
            self.step(Event::LeftoversGone);
            return;
        }
        let Some(turns) = self.turns.take() else { return self.begin() };
        if let Life::Booting(booting) = &mut self.life {
            if booting.stop_all {
                return self.begin();
            }
            booting.awaits_turn = true;
            self.tasks.spawn_for(async move { Message::TurnCame(turns.next().await) });
        }
    }

    /// It is the app's turn to start what it has.
    pub(super) fn turn_came(&mut self, turn: Turn) {
        if self.life.booting().is_some() {
            self.turn = Some(turn);
            self.begin();
        }
    }

    /// Gives the turn on once the app serves, or will not.
    pub(super) fn give_turn_on(&mut self) {
        let comes_up = match self.state.phase() {
            wire::Phase::Starting | wire::Phase::Restarting => true,
            wire::Phase::Empty => self.edits.is_open() || self.state.task.is_some(),
            _ => false,
        };
        self.turn.take_if(|turn| !comes_up || turn.ends() <= Instant::now());
    }

    fn begin(&mut self) {
        let unfinished = self.life.booting().and_then(|booting| self.unfinished(booting));
        let Some(booting) = self.life.take_booting() else { return };
        let stop_all = booting.stop_all;
        self.boot(booting, unfinished);
        if stop_all {
            self.step(Event::StopAll);
        }
        // Requests that wait for the boot come before an edit that waits for it.
        self.publish();
    }

    fn boot(&mut self, booting: Booting, unfinished: Option<(ReleaseRef, Reason)>) {
        let Booting { record, taken_over, rewrite, .. } = booting;
        if let Some(intent) = record.intent.as_ref().filter(|_| unfinished.is_none()) {
            self.history.ended(&intent.release.id, wire::Outcome::Interrupted, |row| {
                row.reason = Some("the daemon ended while it was under way".into());
            });
        }
        let lost =
            |(run, process): (&StoredRun, &Option<Process>)| process.is_none() && served_until_lately(run);
        let ended = record.runs.iter().zip(&taken_over).any(lost);
        let runs = self.take_over(&record, taken_over);
        let (live, past) = self.what_was_live(&record);
        let live = live.or_else(|| self.configured_target());
        let app = self.config.borrow().app.clone();
        // What is recorded is started first; an edit that was made meanwhile is deployed over it.
        self.edits.look_at_start(&app, live.is_none() && unfinished.is_none());
        let boot = Boot {
            live,
            past,
            restarts: record.restarts,
            crashes: self.moments(&record.crashes),
            companion_crashes: record
                .companion_crashes
                .iter()
                .map(|(process, crashes)| (process.as_str().into(), self.moments(crashes)))
                .collect(),
            failed_probes: record.failed_probes,
            unfinished,
            window: self.window_left(&record),
            went_back: record.last_switch.as_ref().is_some_and(|last| last.reason == Reason::AutoRollback),
            ended,
            leftovers: self.runs.has_leftovers(),
            recreated: record.recreated,
            recreating: record.makes_room(),
            going_back: record.intent.is_some_and(|intent| intent.reason == Reason::AutoRollback),
            wanted: record.wanted,
            runs,
        };
        let save = rewrite.then(|| self.recorder.last());
        let adopted: Vec<RunId> = boot.runs.iter().map(|adopted| adopted.run.id).collect();
        self.step_with(Event::Boot(boot), Step { save, ..Step::default() });
        // The machine has the readiness of some awaited, which follows them too.
        adopted.into_iter().for_each(|run| self.runs.follow(run, &mut self.tasks));
        self.hold_what_returns();
        if !self.awaits_first_probe() {
            self.first_probe.send_replace(true);
        }
    }

    /// The release that was live, and all that were, as far as their content is known.
    fn what_was_live(&self, record: &Record) -> (Option<ReleaseRef>, Past) {
        let known = |release: &ReleaseRef| {
            release.origin != Origin::Managed
                || self.history.get(&release.id).is_some_and(|entry| entry.spec.is_some())
        };
        let mut past = past_of(record);
        past.retain(known);
        (record.live.clone().filter(known), past)
    }

    /// The unmanaged app that is configured, which is made live where nothing was.
    fn configured_target(&mut self) -> Option<ReleaseRef> {
        let app = self.config.borrow().app.clone();
        let release = spec::unmanaged(app.target?);
        self.history.begin(attempt(&release.id, Content::default()), &[]);
        self.edits.adopt(&app);
        Some(release)
    }

    /// What is left of the watch window. After a boot of the host nothing can be said about a
    /// release that had to end with it.
    fn window_left(&self, record: &Record) -> Option<Duration> {
        let of_this_boot = record.runs.iter().all(|run| run.identity.is_of_this_boot());
        let whole = self.config.borrow().rollback.window;
        let rest =
            if of_this_boot { window_rest(record, self.orders.is_paused(), whole) } else { Duration::ZERO };
        Some(rest).filter(|rest| !rest.is_zero())
    }

    /// What was to become live while nothing was, where its process still runs.
    fn unfinished(&self, booting: &Booting) -> Option<(ReleaseRef, Reason)> {
        let Booting { record, taken_over, .. } = booting;
        let intent = record.intent.as_ref().filter(|_| record.live.is_none())?;
        let release = &intent.release;
        // What has to pass a step is not made live without it.
        let known = self.history.get(&release.id).and_then(|entry| entry.spec.as_ref());
        let known = known.is_some_and(|spec| spec.verify.is_none());
        let candidate = |(run, process): (&StoredRun, &Option<Process>)| {
            let is_candidate = run.is_of_the_app() && run.role == Role::Candidate;
            process.is_some() && is_candidate && run.release == release.id
        };
        let runs = record.runs.iter().zip(taken_over).any(candidate);
        (known && runs && !self.is_stopping()).then(|| (release.clone(), intent.reason))
    }

    /// Moments of the record by the machine's clock; none is later than now, whatever the host's
    /// clock said.
    fn moments(&self, written: &[String]) -> Vec<Duration> {
        let now = self.clock.now();
        let moment = |text: &String| {
            let time = humantime::parse_rfc3339(text).ok()?;
            time.duration_since(SystemTime::UNIX_EPOCH).ok()
        };
        written.iter().filter_map(moment).map(|at| at.min(now)).collect()
    }

    /// Makes runs of what was taken over. The record names the runs in the order
    /// of `processes`.
    fn take_over(&mut self, record: &Record, processes: Vec<Option<Process>>) -> Vec<Adopted> {
        let (longest, stop_timeout) = {
            let config = self.config.borrow();
            // No more is believed of a recorded end: the clock may jump.
            (config.drain.longest(true), config.app.stop_timeout)
        };
        for (stored, process) in record.runs.iter().zip(&processes) {
            if process.is_none() && stored.is_of_the_app() {
                let started_at = stored.started_at.map(wire::rfc3339);
                let rest = rest_of(&stored.release, record, &processes);
                let (id, now) = (&stored.release, now());
                self.history.process_ended(id, started_at.as_deref(), rest, None, Some(&now));
            }
        }
        let mut adopted = Vec::new();
        for (stored, process) in record.runs.iter().zip(processes) {
            let release = spec::managed(&stored.release);
            let Some(process) = process else { continue };
            let id = RunId(adopted.len() as u64 + 1);
            let (role, port, pid) = (stored.role, process.port(), process.pid());
            let name = stored.process.as_deref();
            // Of a companion and a step the record says what an older daemon is to do with it.
            let does = stored.is_of_the_app().then(|| tracing::field::debug(role));
            let step = stored.step.map(DeployStep::as_str);
            tracing::info!(
                release = stored.release,
                process = name,
                step,
                pid,
                port,
                role = does,
                "taken over"
            );
            let run = Run { id, release, process: name.map(Into::into), port };
            let timeout = stop_timeout_of(record, stored, stop_timeout);
            self.runs.take_over(&run, stored, process, left(stored.until, timeout));
            let (set, replica) = (stored.set, stored.replica);
            let (step, left) = (stored.step, left(stored.until, longest));
            let age = stored.started_at.and_then(|at| at.elapsed().ok()).unwrap_or_default();
            let grows_fast = stored.grows_fast;
            adopted.push(Adopted { run, set, replica, role, step, left, age, grows_fast });
        }
        adopted
    }

    /// Whether an app that may serve already has not been probed yet: an unmanaged one, or a first
    /// release whose switch was not written down.
    fn awaits_first_probe(&self) -> bool {
        match self.state.live_release() {
            Some(release) => release.origin != Origin::Managed && self.state.live_run().is_none(),
            None => self.state.task.is_some(),
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.state.phase() == wire::Phase::Stopping
    }
}

/// What was taken over of `release`.
fn rest_of(release: &str, record: &Record, processes: &[Option<Process>]) -> Rest {
    let found = record.runs.iter().zip(processes);
    let of_it =
        found.filter(|(run, process)| process.is_some() && run.is_of_the_app() && run.release == release);
    Rest::of(of_it.map(|(run, _)| matches!(run.role, Role::Live | Role::Restoring)))
}

/// Whether this run was live when it was written down, since the host was booted.
fn served_until_lately(run: &StoredRun) -> bool {
    run.role == Role::Live && run.identity.is_of_this_boot()
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
    fn a_window_that_waits_for_the_resume_outlasts_the_pause() {
        let whole = Duration::from_secs(60);
        let now = SystemTime::now();
        let ago = |secs| now.checked_sub(Duration::from_secs(secs));
        let mut record = Record { watch_until: ago(100), watch_waits: true, ..Record::default() };
        assert_eq!(window_rest(&record, true, whole), whole, "nothing was saved for long");
        record.watch_waits = false;
        assert_eq!(window_rest(&record, true, whole), Duration::ZERO, "it began before the pause");
        // The pause has ended while there was no daemon.
        record = Record { watch_until: ago(100), watch_waits: true, ..Record::default() };
        record.orders = serde_json::from_value(serde_json::json!({ "pause": {
            "by": "root", "at": "2026-01-01T00:00:00Z",
            "until": wire::rfc3339(ago(20).unwrap()),
        } }))
        .unwrap();
        let rest = window_rest(&record, false, whole).as_secs();
        assert!((30..=40).contains(&rest), "{rest}");
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
