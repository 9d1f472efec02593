//! The runs of an app: the process of each, what is known of it, and what was ordered for it.
//!
//! Owned by the coordinator. The machine decides which runs exist; what is known of a run is
//! dropped when the machine forgets it. An order that comes before the process is carried out as
//! soon as there is one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::task::AbortHandle;
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;

use super::placeholder::Placeholder;
use super::record::StoredRun;
use super::run::{Start, follow, run, see_through};
use super::state::{DeployStep, ProcessName, Role, Run, RunId};
use super::step::{StepStart, run_step};
use super::tasks::Tasks;
use crate::config::StopSignal;
use crate::supervisor::{Exit, Identity, PortTaken, Process, Supervisor};
use crate::wire::{Autopsy, ProbeReport};

/// How a process is stopped: the signal, and the time until SIGKILL.
#[derive(Debug, Clone, Copy)]
pub(super) struct StopLadder {
    pub(super) signal: StopSignal,
    pub(super) timeout: Duration,
}

/// All runs, and what makes their processes.
#[derive(Debug)]
pub(super) struct Runs {
    /// In the order of their starts. The record keeps it, so the next daemon knows which is the
    /// youngest.
    known: BTreeMap<RunId, RunFacts>,
    supervisor: Arc<Supervisor>,
    placeholder: Placeholder,
    /// The processes that the earlier daemon recorded, until those that nobody takes over are gone.
    leftovers: Option<Vec<Identity>>,
}

/// What is known of a run beside what the machine knows.
#[derive(Debug, Default)]
pub(super) struct RunFacts {
    release: String,
    /// Which companion of the release it is.
    companion: Option<ProcessName>,
    /// The step of a deploy that it is; `None`: it is none.
    step: Option<DeployStep>,
    port: Option<u16>,
    /// The number of its place, which is known longer than it has the place.
    replica: u16,
    process: Option<Process>,
    /// Its process is being executed.
    spawning: bool,
    /// It was taken over, and a task waits for its readiness.
    awaited: bool,
    /// Its stop was ordered.
    stop: bool,
    /// SIGKILL was ordered.
    kill: bool,
    /// When SIGKILL is due, once a stop was ordered.
    kill_at: Option<SystemTime>,
    /// Cancelled when its readiness does not matter any more.
    settled: CancellationToken,
    /// The task that probes it, where it has no process of ours that is starting.
    probing: Option<AbortHandle>,
    started_at: Option<SystemTime>,
    autopsy: Option<Box<Autopsy>>,
    probe: Option<ProbeReport>,
    exit: Option<String>,
    /// It was started on a port that nothing held for it.
    unheld: bool,
}

impl RunFacts {
    /// Its release.
    pub(super) fn release(&self) -> &str {
        &self.release
    }

    /// Which companion of the release it is.
    pub(super) fn companion(&self) -> Option<&ProcessName> {
        self.companion.as_ref()
    }

    /// The number of the place that it has or had.
    pub(super) fn replica(&self) -> u16 {
        self.replica
    }

    /// The last lines that it printed.
    pub(super) fn output(&self, lines: usize) -> Vec<String> {
        let printed = self.process.iter().flat_map(|process| process.output(lines));
        printed.map(|line| line.line).collect()
    }

    /// Its process, once started.
    pub(super) fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// The step of a deploy that it is.
    pub(super) fn step(&self) -> Option<DeployStep> {
        self.step
    }

    /// By which name it is told apart from the replicas that get requests, where it is none.
    pub(super) fn process_name(&self) -> Option<&str> {
        self.companion.as_deref().or_else(|| Some(self.step?.as_str()))
    }

    /// Whether it is a replica of the app, and not what runs beside that.
    pub(super) fn is_of_the_app(&self) -> bool {
        self.companion.is_none() && self.step.is_none()
    }

    /// Its port, once known.
    pub(super) fn port(&self) -> Option<u16> {
        self.port
    }

    /// The pid of its leader, also when that has ended.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// The pid of its leader; `None` when that has ended, because the number may be another
    /// process's by then.
    pub(super) fn pid_that_runs(&self) -> Option<u32> {
        self.pid().filter(|_| self.exit.is_none())
    }

    /// When its process was started.
    pub(super) fn started_at(&self) -> Option<SystemTime> {
        self.started_at
    }

    /// How its leader ended.
    pub(super) fn exit(&self) -> Option<&str> {
        self.exit.as_deref()
    }

    /// What the probe saw that decided over it.
    pub(super) fn probe(&self) -> Option<&ProbeReport> {
        self.probe.as_ref()
    }

    /// Cancelled when its readiness does not matter any more.
    pub(super) fn settled(&self) -> CancellationToken {
        self.settled.clone()
    }
}

impl Runs {
    /// No run yet. `leftovers` are the processes that the earlier daemon recorded.
    pub(super) fn new(
        supervisor: Arc<Supervisor>,
        placeholder: Placeholder,
        leftovers: Vec<Identity>,
    ) -> Self {
        Self { known: BTreeMap::new(), supervisor, placeholder, leftovers: Some(leftovers) }
    }

    /// What is known of a run.
    pub(super) fn get(&self, run: RunId) -> Option<&RunFacts> {
        self.known.get(&run)
    }

    /// What is known of `run`, from now on at least what the machine knows.
    pub(super) fn enter(&mut self, run: &Run) -> &RunFacts {
        self.entry(run)
    }

    fn entry(&mut self, run: &Run) -> &mut RunFacts {
        self.known.entry(run.id).or_insert_with(|| RunFacts {
            release: run.release.id.clone(),
            companion: run.process.clone(),
            port: run.port,
            ..RunFacts::default()
        })
    }

    /// Forgets the runs that `is_known` does not hold for.
    pub(super) fn retain(&mut self, is_known: impl Fn(RunId) -> bool) {
        self.known.retain(|run, _| is_known(*run));
    }

    /// What starts processes.
    pub(super) fn supervisor(&self) -> Arc<Supervisor> {
        Arc::clone(&self.supervisor)
    }

    /// Whether the app is started with its port held against others.
    pub(super) fn placeholder(&self) -> Placeholder {
        self.placeholder
    }

    // ---- orders ----

    /// Starts the process of a run, not before nothing is left of the run `after`.
    pub(super) fn spawn(&mut self, start: Start, after: Option<RunId>, tasks: &mut Tasks) {
        let hold_port = self.placeholder.is_held();
        if let Some(facts) = self.known.get_mut(&start.run) {
            facts.replica = start.replica;
            (facts.unheld, facts.spawning) = (!hold_port, true);
        }
        let reports = tasks.reports();
        let after = after.and_then(|after| self.known.get(&after)?.process.clone());
        tasks.spawn(run(start, after, hold_port, self.supervisor(), reports));
    }

    /// Runs a step of a deploy.
    pub(super) fn run_step(&mut self, run: &Run, start: StepStart, tasks: &mut Tasks) {
        let facts = self.entry(run);
        (facts.step, facts.spawning) = (Some(start.step), true);
        let reports = tasks.reports();
        tasks.spawn(run_step(start, self.supervisor(), reports));
    }

    /// Waits for the readiness of a run that was taken over, and then for its end.
    pub(super) fn await_readiness(&mut self, start: Start, tasks: &mut Tasks) {
        let Some(facts) = self.known.get_mut(&start.run) else { return };
        // It is known: only a run that has a process is taken over.
        let Some(process) = facts.process.clone() else { return };
        facts.awaited = true;
        let reports = tasks.reports();
        tasks.spawn(see_through(start, process, reports));
    }

    /// Takes over the process of a recorded run. SIGKILL is due after `left`, where it is being
    /// stopped.
    pub(super) fn take_over(&mut self, run: &Run, stored: &StoredRun, process: Process, left: Duration) {
        let facts = self.entry(run);
        facts.replica = stored.replica;
        facts.started_at = stored.started_at;
        facts.step = stored.step;
        facts.process = Some(process);
        // As it is really due, whatever the record says: the next daemon reads it too.
        facts.kill_at = SystemTime::now().checked_add(left);
    }

    /// Waits for the end of a run that was taken over, unless its readiness is waited for, and with
    /// that its end.
    pub(super) fn follow(&self, run: RunId, tasks: &mut Tasks) {
        let Some(facts) = self.known.get(&run).filter(|facts| !facts.awaited) else { return };
        let Some(process) = facts.process.clone() else { return };
        let reports = tasks.reports();
        tasks.spawn(follow(run, process, reports));
    }

    /// Keeps the task that probes `run`, to be able to end it.
    pub(super) fn probing(&mut self, run: &Run, task: AbortHandle) {
        self.entry(run).probing = Some(task);
    }

    /// Ends the task that probes `run`.
    pub(super) fn stop_probing(&mut self, run: RunId) {
        if let Some(probing) = self.known.get_mut(&run).and_then(|facts| facts.probing.take()) {
            probing.abort();
        }
    }

    /// Stops a run.
    pub(super) fn stop(&mut self, run: RunId, ladder: StopLadder) {
        let Some(facts) = self.known.get_mut(&run) else { return };
        facts.stop = true;
        facts.kill_at = SystemTime::now().checked_add(ladder.timeout);
        facts.settled.cancel();
        if let Some(process) = &facts.process {
            process.stop(ladder.signal, ladder.timeout);
        }
    }

    /// Sends SIGKILL to a run.
    pub(super) fn kill(&mut self, run: RunId) {
        let Some(facts) = self.known.get_mut(&run) else { return };
        facts.kill = true;
        if let Some(process) = &facts.process {
            process.kill();
        }
    }

    // ---- facts ----

    /// The process of a run has been started. Carries out the orders that came before.
    pub(super) fn spawned(&mut self, run: RunId, process: Process, at: SystemTime, ladder: StopLadder) {
        let Some(facts) = self.known.get_mut(&run) else { return };
        if facts.stop {
            process.stop(ladder.signal, ladder.timeout);
        }
        if facts.kill {
            process.kill();
        }
        facts.port = process.port();
        facts.spawning = false;
        facts.process = Some(process);
        facts.started_at = Some(at);
    }

    /// Whether a process is being executed, of which nothing is known yet.
    pub(super) fn are_spawning(&self) -> bool {
        self.known.values().any(|facts| facts.spawning)
    }

    /// The task that probed a run has ended.
    pub(super) fn probed(&mut self, run: RunId, report: ProbeReport) {
        if let Some(facts) = self.known.get_mut(&run) {
            facts.probe = Some(report);
            facts.probing = None;
        }
    }

    /// A run is healthy.
    pub(super) fn ready(&mut self, run: RunId) {
        self.placeholder.succeeded(self.was_held(run));
    }

    /// Whether the port of a run was held for it, as far as is known.
    fn was_held(&self, run: RunId) -> bool {
        self.known.get(&run).is_none_or(|facts| !facts.unheld)
    }

    /// A run could not be started or was not healthy in time.
    pub(super) fn not_ready(&mut self, run: RunId, autopsy: Box<Autopsy>) {
        if let Some(facts) = self.known.get_mut(&run) {
            facts.autopsy = Some(autopsy);
        }
        self.placeholder.failed(self.was_held(run), None);
    }

    /// A companion has ended, or could not be started.
    pub(super) fn companion_ended(&mut self, run: RunId, exit: Option<Exit>, autopsy: Autopsy) {
        let Some(facts) = self.known.get_mut(&run) else { return };
        facts.exit = exit.map(|exit| exit.to_string());
        facts.autopsy = Some(Box::new(autopsy));
    }

    /// Nothing is left of a run. How it ended is known already where its end was reported.
    pub(super) fn gone(&mut self, run: RunId, exit: Option<Exit>) {
        if let Some(facts) = self.known.get_mut(&run).filter(|facts| facts.exit.is_none()) {
            facts.exit = exit.map(|exit| exit.to_string());
        }
    }

    /// A step of a deploy has failed.
    pub(super) fn step_failed(&mut self, run: RunId, autopsy: Box<Autopsy>) {
        if let Some(facts) = self.known.get_mut(&run) {
            facts.autopsy = Some(autopsy);
        }
    }

    /// The leader of a run has ended. `autopsy`: before it was healthy.
    pub(super) fn exited(
        &mut self,
        run: RunId,
        exit: Exit,
        port_taken: Option<PortTaken>,
        autopsy: Option<Box<Autopsy>>,
    ) {
        if autopsy.is_some() {
            self.placeholder.failed(self.was_held(run), port_taken);
        }
        let Some(facts) = self.known.get_mut(&run) else { return };
        facts.exit = Some(exit.to_string());
        facts.autopsy = autopsy.or(facts.autopsy.take());
    }

    /// Takes the autopsy of a run out.
    pub(super) fn take_autopsy(&mut self, run: RunId) -> Option<Autopsy> {
        self.known.get_mut(&run)?.autopsy.take().map(|autopsy| *autopsy)
    }

    /// The runs that have a process, for the record. `role` tells what a run does, given whether
    /// its stop signal was delivered; `place` its set and its number there; `drain_ends` when its
    /// drain does.
    pub(super) fn stored(
        &self,
        role: impl Fn(RunId, bool) -> Role,
        place: impl Fn(RunId) -> (u64, u16),
        grows_fast: impl Fn(RunId) -> Option<u64>,
        drain_ends: impl Fn(RunId) -> Option<SystemTime>,
    ) -> Vec<StoredRun> {
        let stored = self.known.iter().filter_map(|(&run, facts)| {
            let process = facts.process.as_ref()?;
            let role = role(run, process.was_signalled());
            let (set, replica) = place(run);
            Some(StoredRun {
                release: facts.release.clone(),
                identity: process.identity().clone(),
                process: facts.companion.as_deref().map(str::to_owned),
                port: process.port().unwrap_or_default(),
                started_at: facts.started_at,
                role,
                set,
                replica,
                step: facts.step,
                grows_fast: grows_fast(run),
                until: match role {
                    Role::Draining => drain_ends(run),
                    Role::Stopping => facts.kill_at,
                    _ => None,
                },
            })
        });
        let mut stored: Vec<_> = stored.collect();
        // A daemon that knows nothing of companions takes the first candidate for the app.
        stored.sort_by_key(|run| run.process.is_some());
        stored
    }

    // ---- leftovers ----

    /// The processes that the earlier daemon recorded.
    pub(super) fn leftovers(&self) -> &[Identity] {
        self.leftovers.as_deref().unwrap_or_default()
    }

    /// Whether processes that nobody takes over are still being stopped.
    pub(super) fn has_leftovers(&self) -> bool {
        self.leftovers.is_some()
    }

    /// Those that nobody takes over are gone.
    pub(super) fn leftovers_gone(&mut self) {
        self.leftovers = None;
    }

    /// Kills the leftovers without waiting for the stop ladder, for those who are in a hurry.
    pub(super) fn kill_leftovers(&self, tasks: &mut Tasks) {
        const KILL: StopSignal = StopSignal { number: 9, name: "SIGKILL" };
        let Some(identities) = self.leftovers.clone() else { return };
        let supervisor = self.supervisor();
        tasks.spawn(async move {
            supervisor.stop_leftovers(identities, &[], KILL, Duration::ZERO).await;
        });
    }
}
