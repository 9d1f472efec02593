//! One run of a managed release, from its start until nothing is left of it.
//!
//! It is a task of the coordinator, which joins it. It owns no state. It reports `Spawned`, `Ready`
//! or `NotReady`, `Exited` and `Gone`, in this order, and the last one exactly once. The process is
//! stopped through its [`Process`] handle, not through this task; cancelling `settled` only ends
//! the wait for readiness.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::autopsy::{Cause, Diagnosis, Evidence, OUTPUT_LINES, examine};
use super::events::MAX_OUTPUT;
use super::message::{Message, Report, Reports, Waiting};
use super::spec::ReleaseSpec;
use super::state::{ProcessName, RunId};
use super::tasks;
use crate::config::OwnerCheck;
use crate::health::Probe;
use crate::supervisor::{Exit, Ids, Launch, Owner, Port, Process, SpawnError, Supervisor};
use crate::want;
use crate::wire::{Autopsy, LogLine, ProbeReport};

/// How long a candidate may take to end by itself after another process was seen on its port. One
/// that finds its port taken ends, and is then started on another port.
const STRANGER_GRACE: Duration = Duration::from_secs(1);

/// Between two tries to start a process when portok itself lacks what it needs.
const WANT_PAUSE: Duration = Duration::from_millis(100);

/// How long the execution of a process is waited for that is given up meanwhile.
const EXECUTION: Duration = Duration::from_secs(10);

/// Between two looks for the owner of a listener that answered and was gone when its owner was
/// looked for.
const OWNER_RETRY: Duration = Duration::from_millis(10);

/// Why a process was not started whose start was given up meanwhile.
const GIVEN_UP: &str = "it was given up before it was started";

/// How long nothing is reported of a candidate that does not listen yet.
const STARTING: Duration = Duration::from_secs(1);

/// After how long a report names what most likely is wrong. Each later look comes after twice the
/// time.
const EXPLAINED: Duration = Duration::from_secs(3);

/// A probe without an answer for longer than this counts as the last probe at the end of the start
/// timeout.
const HANGING: Duration = Duration::from_millis(500);

/// What a run needs to know.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) run: RunId,
    pub(super) release: String,
    /// Which companion of the release it is; `None`: the app itself.
    pub(super) process: Option<ProcessName>,
    /// The number of its place in its set.
    pub(super) replica: u16,
    pub(super) spec: ReleaseSpec,
    pub(super) probe: Probe,
    pub(super) successes: u32,
    pub(super) start_timeout: Duration,
    pub(super) owner_check: OwnerCheck,
    /// Whether a file configures the daemon.
    pub(super) has_file: bool,
    pub(super) settled: CancellationToken,
}

/// Starts the process, once nothing is left of the process `after`, and stays with it until nothing
/// is left. `hold_port`: the port is held against others until the process listens.
pub(super) async fn run(
    start: Start,
    after: Option<Process>,
    hold_port: bool,
    supervisor: Arc<Supervisor>,
    reports: Reports,
) {
    let tell = Teller { run: start.run, reports: reports.clone() };
    let has_room = match after {
        Some(after) => start.settled.run_until_cancelled(after.gone()).await.is_some(),
        None => true,
    };
    let spawning = || spawn(&start, hold_port, &supervisor);
    let spawned = if has_room {
        spawn_within(&start.release, start.start_timeout, &start.settled, spawning).await
    } else {
        Err(unstarted(GIVEN_UP))
    };
    let process = match spawned {
        Ok(process) => process,
        Err(error) => {
            let autopsy = Autopsy { summary: chain(&error), ..Autopsy::default() };
            tell.that(Report::NotReady(Box::new(autopsy))).await;
            tell.that(Report::Gone(None)).await;
            return;
        }
    };
    tell.that(Report::Spawned(process.clone())).await;
    if start.process.is_some() {
        follow(start.run, process, reports).await;
    } else {
        see_through(start, process, reports).await;
    }
}

/// Stays with a process from its first probe until nothing is left of it.
pub(super) async fn see_through(start: Start, process: Process, reports: Reports) {
    let tell = Teller { run: start.run, reports };
    let readiness = until_ready(&start, &process, &tell).await;
    let exit = until_ended(&process, &tell).await;
    let (port_taken, autopsy) = match readiness {
        Readiness::Ended { last, diagnosis } => {
            let taken = process.port_taken().await;
            let seen = Evidence { exit: Some(exit), diagnosis, ..evidence(&start, &process, last) };
            (taken, Some(Box::new(examine(&Cause::Exited, seen))))
        }
        Readiness::Told => (None, None),
    };
    tell.that(Report::Exited { exit, port_taken, autopsy }).await;
    until_gone(&process, &tell).await;
}

/// Stays with a process whose readiness does not matter until nothing is left of it.
pub(super) async fn follow(run: RunId, process: Process, reports: Reports) {
    let tell = Teller { run, reports };
    let exit = until_ended(&process, &tell).await;
    tell.that(Report::Exited { exit, port_taken: None, autopsy: None }).await;
    until_gone(&process, &tell).await;
}

/// Waits for the end of the leader, and reports the delivery of its stop signal.
async fn until_ended(process: &Process, tell: &Teller) -> Exit {
    tokio::select! {
        biased;
        exit = process.exited() => exit,
        () = process.signalled() => {
            tell.that(Report::Signalled).await;
            process.exited().await
        }
    }
}

async fn until_gone(process: &Process, tell: &Teller) {
    let exit = process.gone().await;
    tell.that(Report::Gone(Some(exit))).await;
}

/// Sends the reports of a run.
pub(super) struct Teller {
    pub(super) run: RunId,
    pub(super) reports: Reports,
}

impl Teller {
    pub(super) async fn that(&self, report: Report) {
        tasks::report(&self.reports, Message::Run(self.run, Box::new(report))).await;
    }
}

pub(super) fn unstarted(why: &str) -> SpawnError {
    SpawnError { message: why.to_owned(), source: None }
}

/// Starts a process of `release`, unless that takes longer than `within` or is given up. Then
/// nothing of it is left.
pub(super) async fn spawn_within<F>(
    release: &str,
    within: Duration,
    settled: &CancellationToken,
    spawn: impl Fn() -> F,
) -> Result<Process, SpawnError>
where
    F: Future<Output = Result<Process, SpawnError>>,
{
    let given_up = settled.child_token();
    let mut spawning = pin!(spawn_when_possible(release, &given_up, spawn));
    let why = tokio::select! {
        biased;
        spawned = &mut spawning => return spawned,
        () = settled.cancelled() => GIVEN_UP,
        () = tokio::time::sleep(within) => "it could not be started in time",
    };
    given_up.cancel();
    // What is being executed by now runs for a moment. Who hears of the end may start something
    // that must not run beside it.
    match tokio::time::timeout(EXECUTION, spawning).await {
        Ok(Ok(process)) => {
            process.kill();
            process.gone().await;
            Err(unstarted(why))
        }
        Ok(Err(error)) => Err(error),
        // Dropped, it kills what it starts.
        Err(_) => Err(unstarted(why)),
    }
}

/// Starts a process of `release` as soon as portok itself has what it needs for that, or gives up.
/// A want of portok (of memory, of descriptors) is no failure of the app.
async fn spawn_when_possible<F>(
    release: &str,
    given_up: &CancellationToken,
    spawn: impl Fn() -> F,
) -> Result<Process, SpawnError>
where
    F: Future<Output = Result<Process, SpawnError>>,
{
    let mut told = false;
    loop {
        let want = match spawn().await {
            Err(error) if error.source.as_ref().is_some_and(want::is_own) => error,
            spawned => return spawned,
        };
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(release, "portok itself cannot start it now: {}", chain(&want));
        }
        if given_up.run_until_cancelled(tokio::time::sleep(WANT_PAUSE)).await.is_none() {
            let message = format!("portok itself could not start it in time: {}", want.message);
            return Err(SpawnError { message, source: want.source });
        }
    }
}

async fn spawn(start: &Start, hold_port: bool, supervisor: &Supervisor) -> Result<Process, SpawnError> {
    let ReleaseSpec { command, directory, env, user, group, limits, port_env, .. } = start.spec.clone();
    let identity = identity(user, group).await?;
    let port = match start.process {
        Some(_) => Port::None,
        None => Port::Own(supervisor.lease(hold_port).map_err(|source| SpawnError {
            message: "cannot find a free port".into(),
            source: Some(source),
        })?),
    };
    let (release, process, replica) = (start.release.clone(), start.process.clone(), Some(start.replica));
    let step = None;
    let launch =
        Launch { release, process, step, replica, command, directory, env, identity, limits, port_env, port };
    supervisor.spawn(launch).await
}

/// Who a process of an app becomes.
pub(super) async fn identity(user: Option<String>, group: Option<String>) -> Result<Option<Ids>, SpawnError> {
    // The system's databases may be on the network.
    tokio::task::spawn_blocking(move || Ids::resolve(user.as_deref(), group.as_deref()))
        .await
        .unwrap_or_else(|error| Err(error.to_string()))
        .map_err(|message| SpawnError { message, source: None })
}

/// What makes one failed probe differ from another.
type Kind = (Option<u16>, Option<String>);

fn kind(report: &ProbeReport) -> Kind {
    (report.status, report.error.clone())
}

/// What the probes of a candidate saw last, and when.
#[derive(Debug)]
struct Seen {
    last: Option<ProbeReport>,
    /// What was reported of it.
    told: Option<Kind>,
    /// What was found out last.
    diagnosis: Option<Diagnosis>,
    began: Instant,
    answered: Instant,
}

impl Seen {
    /// Takes a report in. True where it is news: a failure of another kind than the one before.
    fn note(&mut self, report: &ProbeReport) -> bool {
        let before = self.last.replace(report.clone());
        self.answered = Instant::now();
        let changed = before.is_none_or(|before| kind(&before) != kind(report));
        // Nothing listens yet, as at the beginning of every start.
        let early = report.status.is_none() && self.began.elapsed() < STARTING;
        let worth = changed && !report.healthy && !early;
        if worth {
            self.told = Some(kind(report));
        }
        worth
    }

    /// What was seen last. A probe without an answer counts.
    fn so_far(&self) -> Option<ProbeReport> {
        let silent = self.answered.elapsed();
        if silent <= HANGING {
            return self.last.clone();
        }
        Some(ProbeReport {
            error: Some(format!("no answer for {:.1}s", silent.as_secs_f64())),
            latency_ms: silent.as_secs_f64() * 1000.0,
            attempts: self.last.as_ref().map_or(1, |last| last.attempts + 1),
            ..ProbeReport::default()
        })
    }
}

/// Probes until the answers are healthy and the owner of the listener is known.
async fn ask_until_owned(
    start: &Start,
    process: &Process,
    seen: Arc<Mutex<Seen>>,
    failures: mpsc::Sender<ProbeReport>,
) -> (Owner, ProbeReport) {
    let probe =
        Probe { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, port_of(process))), ..start.probe.clone() };
    loop {
        let (seen, failures) = (Arc::clone(&seen), failures.clone());
        let each = move |report: &ProbeReport| {
            if lock(&seen).note(report) {
                // A report is a courtesy: a full queue may lose it.
                let _full = failures.try_send(report.clone());
            }
        };
        let report = probe.until_healthy(start.successes, each).await;
        match process.owner().await {
            Owner::Nobody => tokio::time::sleep(OWNER_RETRY).await,
            owner => return (owner, report),
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reports what is waited for while a candidate is not healthy: at first what the probe saw, later
/// what most likely is wrong. Never ends. Cancel safe.
async fn tell_what_is_waited_for(
    start: &Start,
    process: &Process,
    seen: Arc<Mutex<Seen>>,
    tell: &Teller,
) -> Infallible {
    let began = Instant::now();
    let mut told = None;
    let mut next = STARTING;
    loop {
        tokio::time::sleep_until(began + next).await;
        let last = lock(&seen).so_far();
        let evidence = look(start, process, last.clone()).await;
        let diagnosis = Diagnosis::of(&Cause::TooSlow(start.start_timeout), &evidence);
        let hint = if next < EXPLAINED { None } else { diagnosis.hint.clone() };
        let known = {
            let mut seen = lock(&seen);
            if evidence.shows_a_listener() {
                seen.diagnosis = Some(diagnosis);
            }
            seen.told.is_some() && seen.told == last.as_ref().map(kind)
        };
        if told.as_ref() != Some(&hint) {
            let (port, ask) = (port_of(process), start.probe.ask.clone());
            let waiting = Waiting { port, ask, probe: last, told: known, hint: hint.clone() };
            tell.that(Report::Waiting(waiting)).await;
            told = Some(hint);
        }
        next = if next < EXPLAINED { EXPLAINED } else { next * 2 };
    }
}

/// How the wait for readiness went.
enum Readiness {
    /// It was reported, or does not matter any more.
    Told,
    /// The process ended first. What its last probe saw, and what was found out while it ran.
    Ended { last: Option<ProbeReport>, diagnosis: Option<Diagnosis> },
}

impl Readiness {
    fn ended(seen: &Mutex<Seen>) -> Self {
        let mut seen = lock(seen);
        Self::Ended { last: seen.last.take(), diagnosis: seen.diagnosis.take() }
    }
}

/// Waits for readiness and reports it.
async fn until_ready(start: &Start, process: &Process, tell: &Teller) -> Readiness {
    let now = Instant::now();
    let seen =
        Arc::new(Mutex::new(Seen { last: None, told: None, diagnosis: None, began: now, answered: now }));
    let (failures, mut failed) = mpsc::channel(16);
    let asking = ask_until_owned(start, process, Arc::clone(&seen), failures);
    tokio::pin!(asking);
    let telling = tell_what_is_waited_for(start, process, Arc::clone(&seen), tell);
    tokio::pin!(telling);
    let deadline = tokio::time::sleep(start.start_timeout);
    tokio::pin!(deadline);
    let mut lines = process.follow();
    let mut lines_left = MAX_OUTPUT;
    enum Step {
        Settled,
        Ended,
        TooSlow,
        Answered(Owner, ProbeReport),
        Failed(Option<ProbeReport>),
        Line(Result<Arc<LogLine>, broadcast::error::RecvError>),
    }
    let cause = loop {
        // Output comes last: a flood of lines must not hide that the process ended or that its time
        // is over.
        let step = tokio::select! {
            biased;
            () = start.settled.cancelled() => Step::Settled,
            _exit = process.exited() => Step::Ended,
            () = &mut deadline => Step::TooSlow,
            (owner, report) = &mut asking => Step::Answered(owner, report),
            report = failed.recv() => Step::Failed(report),
            line = lines.recv(), if lines_left > 0 => Step::Line(line),
            never = &mut telling => match never {},
        };
        match step {
            Step::Settled => return Readiness::Told,
            Step::Ended => return Readiness::ended(&seen),
            Step::TooSlow => break Cause::TooSlow(start.start_timeout),
            Step::Failed(report) => {
                if let Some(report) = report {
                    tell.that(Report::Probe(report)).await;
                }
            }
            Step::Line(Ok(line)) => {
                lines_left -= 1;
                tell.that(Report::Output(line)).await;
            }
            Step::Line(Err(broadcast::error::RecvError::Lagged(_))) => {}
            Step::Line(Err(broadcast::error::RecvError::Closed)) => lines_left = 0,
            Step::Answered(Owner::Stranger { pid, command }, _) => {
                if tokio::time::timeout(STRANGER_GRACE, process.exited()).await.is_ok() {
                    return Readiness::ended(&seen);
                }
                break Cause::Stranger(format!("{command}, pid {pid}"));
            }
            Step::Answered(Owner::Unproven, _) if start.owner_check == OwnerCheck::Strict => {
                break Cause::Unproven;
            }
            Step::Answered(owner, report) => {
                process.listening();
                if owner == Owner::Unproven {
                    tell.that(Report::Unproven).await;
                }
                tell.that(Report::Ready(report)).await;
                return Readiness::Told;
            }
        }
    };
    let last = {
        let seen = lock(&seen);
        if matches!(cause, Cause::TooSlow(_)) { seen.so_far() } else { seen.last.clone() }
    };
    let seen = look(start, process, last).await;
    tell.that(Report::NotReady(Box::new(examine(&cause, seen)))).await;
    Readiness::Told
}

/// What is known of a process, with a look at where it listens.
async fn look(start: &Start, process: &Process, probe: Option<ProbeReport>) -> Evidence {
    Evidence { listeners: process.listeners().await, ..evidence(start, process, probe) }
}

/// What is known of a process without a look at it.
fn evidence(start: &Start, process: &Process, probe: Option<ProbeReport>) -> Evidence {
    Evidence {
        output: process.output(OUTPUT_LINES).into_iter().map(|line| line.line).collect(),
        probe,
        port: port_of(process),
        port_env: start.spec.port_env.clone(),
        asked: Some(start.probe.ask.clone()),
        has_file: start.has_file,
        ..Evidence::default()
    }
}

/// The port of a replica, which is always told one.
fn port_of(process: &Process) -> u16 {
    process.port().unwrap_or_default()
}

/// The error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}
