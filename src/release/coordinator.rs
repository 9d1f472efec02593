//! The one driver of an app: turns requests, reports, timers and saves into events of the machine
//! ([`super::state`]), and the machine's effects into calls.
//!
//! Owns the machine's state, the history, the runs' handles, the timers and the route's only writer. Everything it
//! starts is in one [`JoinSet`]. It ends after [`Message::StopAll`] when every group is gone and the last record is
//! written. It never waits: what takes time (a process, a probe, a disk) is a task that sends a [`Message`] back.
//! Dropping its future leaves processes running; the record names them, and the next start takes them over.
//!
//! The ordering that matters is the machine's; this file adds one: the record is made from the state after all
//! effects of a step, so that what is written is never half a step. While it stands still ([`still`]) it makes no step.

mod boot;
mod hear;
mod in_force;
mod perform;
mod recording;
mod requests;
mod snapshot;
mod still;
mod tell;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::events::{Attempt, AttemptLog};
use super::handle::Handle;
use super::history::History;
use super::message::{Message, Reports};
use super::placeholder::Placeholder;
use super::record::{Failure, Record};
use super::spec::ReleaseSpec;
use super::state::{Event, Live, Policy, Refusal, RunId, State};
use super::store::{Found, Store};
use super::view::View;
use crate::config::{AppConfig, Standby};
use crate::health::Unable;
use crate::proxy::{RouteWriter, Stats, Target};
use crate::supervisor::{Identity, Process, Supervisor};
use crate::wire::{self, ProbeReport};
use recording::keep_record;
use still::Still;

/// Messages that may wait; senders wait beyond it.
const INBOX: usize = 256;

/// How often an early end of a drain is looked for.
const EARLY_DRAIN_LOOK: Duration = Duration::from_millis(20);

/// What a coordinator is made of.
pub struct Parts {
    /// The configuration in force.
    pub config: watch::Receiver<Arc<AppConfig>>,
    /// Starts processes.
    pub supervisor: Arc<Supervisor>,
    /// Makes targets.
    pub stats: Arc<Stats>,
    /// Points requests at them.
    pub route: RouteWriter,
    /// Keeps the record.
    pub store: Store,
    /// What the store found.
    pub found: Found,
    /// Tells the hooks; must not block.
    pub notify: Box<dyn Fn(wire::HookEvent) + Send>,
    /// Do not continue what the record says (`portok run`).
    pub fresh: bool,
    /// Cancelled once no predecessor serves requests any more that it took before this daemon came: until then nobody here
    /// can say that a target is idle.
    pub alone: CancellationToken,
}

/// What is known of a run beside what the machine knows.
struct RunFacts {
    release: String,
    port: Option<u16>,
    process: Option<Process>,
    /// Ordered before there was a process.
    stop: bool,
    /// Ordered before there was a process.
    kill: bool,
    /// When SIGKILL is due, once a stop was ordered.
    kill_at: Option<SystemTime>,
    settled: CancellationToken,
    asking: Option<AbortHandle>,
    targets: Vec<Arc<Target>>,
    started_at: Option<SystemTime>,
    autopsy: Option<Box<wire::Autopsy>>,
    probe: Option<ProbeReport>,
    exit: Option<String>,
}

/// The content of a release that is asked for.
#[derive(Debug, Default)]
struct Offered {
    spec: Option<ReleaseSpec>,
    /// The fingerprint of `[app]`, where it is nothing but that.
    app: Option<String>,
}

/// A move of traffic whose record is being written.
struct Unconfirmed {
    seq: u64,
    log: AttemptLog,
    event: wire::Event,
    moved: wire::Moved,
}

/// The driver.
pub struct Coordinator {
    state: State,
    config: watch::Receiver<Arc<AppConfig>>,
    supervisor: Arc<Supervisor>,
    stats: Arc<Stats>,
    route: RouteWriter,
    notify: Box<dyn Fn(wire::HookEvent) + Send>,
    history: History,
    slots: HashMap<RunId, RunFacts>,
    timers: super::timers::Timers,
    tasks: JoinSet<()>,
    keeper: JoinHandle<()>,
    reports: Reports,
    attempt: Option<AttemptLog>,
    unconfirmed: Vec<Unconfirmed>,
    /// Requests that came before the start.
    early: Vec<Message>,
    /// The attempt that began in this step, for whoever asked for it.
    accepted: Option<Attempt>,
    /// The content of the release that is asked for in this step.
    offered: Option<Offered>,
    refusal: Option<Refusal>,
    already_live: bool,
    finished: bool,
    last_switch: Option<wire::Switch>,
    /// Until a later attempt succeeds.
    last_failure: Option<Failure>,
    /// Until the live release is settled again.
    last_exit: Option<wire::LastExit>,
    /// Why the watch window's verdict is bad.
    verdict: Option<String>,
    health: wire::HealthMetrics,
    state_error: Option<String>,
    /// Who waits for the end of which save.
    disk_looks: Vec<(u64, oneshot::Sender<()>)>,
    /// The save that this step wants.
    save: Option<u64>,
    /// Whether it is known if somebody else's app can be live at the start.
    first_probe: watch::Sender<bool>,
    /// The newest that was asked for: one asked for again stands for all before it.
    last_save: u64,
    app_attempted: Option<String>,
    app_edited: bool,
    placeholder: Placeholder,
    /// The `[app]` that was not deployed because its content is in quarantine.
    app_quarantined: Option<String>,
    /// The record of the earlier daemon, until the machine has heard of it.
    found: Option<Record>,
    /// What was taken over of its runs.
    taken_over: Vec<Option<Process>>,
    /// The processes that the earlier daemon recorded, while what nobody takes over is still being stopped.
    leftovers: Option<Vec<Identity>>,
    fresh: bool,
    alone: CancellationToken,
    inbox: mpsc::Receiver<Message>,
    saves: watch::Sender<Option<(u64, Arc<Record>)>>,
    save_retry: Option<Instant>,
    next_watch: Option<Instant>,
    /// The run whose probe is under way.
    watching: Option<RunId>,
    /// It was said that portok itself cannot probe now.
    unable_told: bool,
    began: Instant,
    /// The same moment as time since 1970.
    began_at: Duration,
    view: watch::Sender<Arc<View>>,
    stopped: Option<oneshot::Sender<()>>,
    /// While it stands still.
    still: Option<Still>,
    /// Its processes stay when it ends.
    leaves: bool,
}

impl Coordinator {
    /// Makes the coordinator and the handle that others use. Nothing happens before [`Coordinator::run`].
    pub fn new(parts: Parts) -> (Self, Handle) {
        let Parts { config, supervisor, stats, route, store, found, notify, fresh, alone } = parts;
        for warning in &found.warnings {
            tracing::warn!("{warning}");
        }
        let (reports, inbox) = mpsc::channel(INBOX);
        let (saves, save_requests) = watch::channel(None);
        let keeper = tokio::spawn(keep_record(store, save_requests, reports.clone()));
        let record = found.record;
        let leftovers = record.runs.iter().map(|run| run.identity.clone()).collect();
        let history = History::new(if fresh { Vec::new() } else { record.releases.clone() });
        let (view, views) = watch::channel(Arc::new(View::default()));
        let (first_probe, probed) = watch::channel(false);
        let handle = Handle::new(reports.clone(), views, config.clone(), Arc::clone(&supervisor), probed);
        let mut coordinator = Self {
            state: State::default(),
            config,
            supervisor,
            stats,
            route,
            notify,
            history,
            slots: HashMap::new(),
            timers: super::timers::Timers::default(),
            tasks: JoinSet::new(),
            keeper,
            reports,
            attempt: None,
            unconfirmed: Vec::new(),
            early: Vec::new(),
            accepted: None,
            offered: None,
            refusal: None,
            already_live: false,
            finished: false,
            last_switch: if fresh { None } else { record.last_switch.clone() },
            last_failure: if fresh { None } else { record.last_failure.clone() },
            last_exit: if fresh { None } else { record.last_exit.clone() },
            verdict: None,
            health: wire::HealthMetrics::default(),
            state_error: None,
            disk_looks: Vec::new(),
            save: None,
            first_probe,
            last_save: 0,
            app_attempted: if fresh { None } else { record.app_attempted.clone() },
            app_edited: false,
            placeholder: Placeholder::remembered(record.no_placeholder),
            app_quarantined: if fresh { None } else { record.app_quarantined.clone() },
            found: Some(record),
            taken_over: Vec::new(),
            leftovers: Some(leftovers),
            fresh,
            alone,
            inbox,
            saves,
            save_retry: None,
            next_watch: None,
            watching: None,
            unable_told: false,
            began: Instant::now(),
            began_at: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
            view,
            stopped: None,
            still: None,
            leaves: false,
        };
        coordinator.publish();
        (coordinator, handle)
    }

    /// Drives the app until all of it is stopped.
    pub async fn run(mut self) {
        self.take_stock();
        while !self.finished || (self.leftovers.is_some() && !self.leaves) {
            enum Turn {
                Message(Option<Message>),
                Timer,
                Watch,
                EarlyDrain,
                SaveRetry,
                PatienceEnds,
                Config(bool),
                Joined(Option<Result<(), tokio::task::JoinError>>),
            }
            let wanted = self.config.borrow().drain.early;
            let early = wanted && !self.draining().is_empty();
            let working = !self.tasks.is_empty();
            let moves = self.still.is_none();
            let patience_ends = self.patience_ends();
            let turn = tokio::select! {
                message = self.inbox.recv() => Turn::Message(message),
                () = at(self.timers.next()), if moves => Turn::Timer,
                () = at(self.next_watch), if moves => Turn::Watch,
                () = at(self.save_retry), if moves => Turn::SaveRetry,
                () = at(patience_ends), if moves => Turn::PatienceEnds,
                () = look_early(&self.alone), if early && moves => Turn::EarlyDrain,
                changed = self.config.changed(), if moves => Turn::Config(changed.is_ok()),
                joined = self.tasks.join_next(), if working => Turn::Joined(joined),
            };
            match turn {
                Turn::Message(Some(message)) => self.receive(message),
                Turn::Message(None) => break,
                Turn::Timer => {
                    while let Some(timer) = self.timers.take_due() {
                        self.step(match timer {
                            super::state::Timer::Drain(run, seq) => Event::DrainOver { run, seq },
                            super::state::Timer::Window(ticket) => Event::WindowOver { ticket },
                            super::state::Timer::Restart(ticket, _) => Event::RestartDue { ticket },
                            super::state::Timer::Calm(ticket, _) => Event::Calm { ticket },
                        });
                    }
                }
                Turn::Watch => self.watch_live(),
                Turn::EarlyDrain => self.end_idle_drains(),
                Turn::PatienceEnds => self.lose_patience(),
                Turn::SaveRetry => {
                    self.save_retry = None;
                    self.save = Some(self.last_save);
                    self.write_record();
                }
                Turn::Config(true) => self.look_at_app(),
                // The configuration's owner ends last; without it nothing changes any more.
                Turn::Config(false) => break,
                Turn::Joined(Some(Err(error))) if error.is_panic() => {
                    tracing::error!("a task of the coordinator panicked: {error}");
                }
                Turn::Joined(_) => {}
            }
            if self.still.is_none() {
                self.deploy_edited_app();
            }
            self.publish();
        }
        self.end().await;
    }

    async fn end(mut self) {
        /// How long the last record may take to be written.
        const LAST_SAVE: Duration = Duration::from_secs(5);
        if !self.is_recorded() {
            self.save = Some(self.last_save);
            self.write_record();
        }
        // The writer ends when nobody can ask it any more, after it has written what it was asked last.
        drop(std::mem::replace(&mut self.saves, watch::channel(None).0));
        self.inbox.close();
        self.confirm(u64::MAX);
        // What still runs is a probe or the like; every process is gone, or stays.
        self.tasks.abort_all();
        if self.leaves {
            self.supervisor.let_go();
        }
        let ended = async {
            let _panicked = self.keeper.await;
            while self.tasks.join_next().await.is_some() {}
            self.supervisor.idle().await;
        };
        if tokio::time::timeout(LAST_SAVE, ended).await.is_err() {
            tracing::warn!("the last record was not written within {LAST_SAVE:?}");
        }
        if let Some(stopped) = self.stopped {
            // Whoever asked may have gone.
            let _nobody_waits = stopped.send(());
        }
    }

    // ---- messages ----

    fn receive(&mut self, message: Message) {
        let message = if self.still.is_some() { self.receive_while_still(message) } else { Some(message) };
        let Some(message) = message else { return };
        let message = if self.found.is_some() { self.receive_before_boot(message) } else { Some(message) };
        let Some(message) = message else { return };
        match message {
            Message::Deploy { prepared, reason, force, reply } => {
                let _asker_gone = reply.send(self.deploy(*prepared, reason, force));
            }
            Message::Switch { port, reason, reply } => {
                let _asker_gone = reply.send(self.switch(port, reason));
            }
            Message::Rollback { asked, reply } => {
                let _asker_gone = reply.send(self.roll_back(&asked));
            }
            Message::Cancel { reply } => {
                let _asker_gone = reply.send(self.cancel());
            }
            Message::Shutdown => self.step(Event::Shutdown),
            Message::StopAll { done } => {
                self.stopped = Some(done);
                self.step(Event::StopAll);
            }
            Message::Kill => {
                self.kill_leftovers();
                // What is not on its way out is not killed.
                self.step(Event::StopAll);
                self.step(Event::KillAll);
            }
            Message::MayFreeze { reply } => {
                let _asker_gone = reply.send(self.may_freeze());
            }
            Message::Freeze { interrupt, reply } => self.freeze(interrupt, reply),
            Message::Thaw => self.thaw(),
            Message::Leave { done } => self.go_without_end(done),
            Message::Beat(done) => {
                let _nobody_waits = done.send(());
            }
            Message::Run(run, report) => self.reported(run, *report),
            Message::ProbeEnded(run, report) => {
                let event = if report.healthy { Event::Ready { run } } else { Event::NotReady { run } };
                if let Some(slot) = self.slots.get_mut(&run) {
                    slot.probe = Some(*report);
                    slot.asking = None;
                }
                self.step(event);
            }
            Message::LiveProbed(run, report) => self.watched(run, report),
            Message::Saved { seq, result } => self.saved(seq, result),
            Message::LookAtDisk(done) => self.look_at_disk(done),
            Message::ConfigNotPrepared { error } => {
                tracing::error!("cannot deploy [app]: {}", error.message);
                self.failed(format!("[app] was not deployed: {}", error.message));
                self.save_again();
                self.hook("aborted", None, error.message, None);
            }
            Message::TakenOver(processes) => self.stock_taken(processes),
            Message::LeftoversGone => self.leftovers_gone(),
        }
    }

    fn needed(&self) -> Vec<String> {
        let live = self.state.live_release().map(|release| release.id.clone());
        let previous = self.state.previous().map(|previous| previous.release.id);
        let runs = self.state.runs().map(|run| run.release.id.clone());
        live.into_iter().chain(previous).chain(runs).collect()
    }

    /// One step of the machine, and all that follows from it.
    fn step(&mut self, event: Event) {
        let config = Arc::clone(&self.config.borrow());
        let policy = policy(&config);
        tracing::debug!(?event, "step");
        let was_up = self.state.live_run().map(|run| run.id);
        for effect in self.state.step(event, self.clock(), &policy) {
            #[cfg(debug_assertions)]
            super::failpoint::reached();
            self.perform(effect, &config);
        }
        let now_up = self.state.live_run().map(|run| run.id);
        if now_up != was_up {
            self.next_watch = now_up.map(|_| Instant::now() + config.rollback.interval);
        }
        let runs: Vec<RunId> = self.state.runs().map(|run| run.id).collect();
        self.slots.retain(|id, _| runs.contains(id));
        if self.state.phase() == wire::Phase::Settled {
            self.last_exit = None;
        }
        self.begin_attempt();
        self.write_record();
        #[cfg(debug_assertions)]
        super::failpoint::reached();
    }

    /// The machine's clock: monotonic, and at this daemon's start the time since 1970, so that what the record says in it
    /// is of the same clock.
    fn clock(&self) -> Duration {
        self.began_at + self.began.elapsed()
    }

    /// What went wrong is kept until a later attempt succeeds.
    fn failed(&mut self, message: String) {
        self.last_failure = Some(Failure { message, at: wire::rfc3339(SystemTime::now()) });
    }

    // ---- probes of the live release ----

    fn watch_live(&mut self) {
        self.next_watch = None;
        let Live::Up { run } = &self.state.live else { return };
        if self.watching == Some(run.id) {
            return;
        }
        let Some(probe) = self.probe_of(run.id) else { return };
        let (id, reports) = (run.id, self.reports.clone());
        self.watching = Some(id);
        self.tasks.spawn(async move {
            let report = probe.ask().await.map(Box::new);
            let _coordinator_gone = reports.send(Message::LiveProbed(id, report)).await;
        });
    }

    fn watched(&mut self, run: RunId, report: Result<Box<ProbeReport>, Unable>) {
        if self.watching != Some(run) {
            return;
        }
        self.watching = None;
        self.next_watch = Some(Instant::now() + self.config.borrow().rollback.interval);
        if self.state.live_run().is_none_or(|live| live.id != run) {
            return;
        }
        let report = match report {
            Ok(report) => report,
            // No probe: it says nothing of the app.
            Err(unable) => {
                if !std::mem::replace(&mut self.unable_told, true) {
                    tracing::warn!("the live release is not watched for now: {unable}");
                }
                return;
            }
        };
        self.unable_told = false;
        self.health = wire::HealthMetrics {
            active_port_ok: report.healthy,
            last_checked_at: Some(wire::rfc3339(SystemTime::now())),
            consecutive_fails: if report.healthy { 0 } else { self.state.failed_probes().saturating_add(1) },
        };
        if !report.healthy {
            let said = report.said().unwrap_or_else(|| "no answer".into());
            let fails = self.health.consecutive_fails;
            // Each failure while it matters, then ever more rarely.
            let news = fails <= self.config.borrow().rollback.threshold || fails.is_power_of_two();
            if news {
                tracing::warn!(fails, "the live release fails its probe: {said}");
            }
            self.verdict = Some(format!("{fails} failed probes in a row, the last: {said}"));
        }
        self.step(Event::LiveProbed { run, healthy: report.healthy });
    }

    // ---- drains ----

    /// The runs whose drain is not over, each with what names the drain.
    fn draining(&self) -> Vec<(RunId, u64)> {
        let drain = |leaving: &super::state::Leaving| match leaving.stage {
            super::state::LeavingStage::Draining { over: false, seq } => Some((leaving.run.id, seq)),
            _ => None,
        };
        self.state.leaving.iter().filter_map(drain).collect()
    }

    fn end_idle_drains(&mut self) {
        for (run, seq) in self.draining() {
            let idle = self.slots.get(&run).is_some_and(|slot| {
                slot.targets.iter().all(|target| target.inflight() + target.pinned() == 0)
            });
            if idle {
                self.step(Event::DrainOver { run, seq });
            }
        }
    }

    fn publish(&mut self) {
        let past = &self.state.past;
        self.history.mark(|release| past.is_quarantined(release));
        self.view.send_replace(Arc::new(self.make_view()));
    }
}

/// What the machine decides by.
fn policy(config: &AppConfig) -> Policy {
    Policy {
        window: !config.rollback.window.is_zero(),
        threshold: config.rollback.threshold,
        standby: config.rollback.standby == Standby::Window,
        restart: config.app.restart.clone(),
    }
}

/// The wait for the next look whether a drain may end early.
async fn look_early(alone: &CancellationToken) {
    alone.cancelled().await;
    tokio::time::sleep(EARLY_DRAIN_LOOK).await;
}

/// The wait for a moment that may never come.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
