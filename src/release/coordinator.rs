//! The one driver of an app: turns requests, reports, timers and saves into events of the machine
//! ([`super::state`]), and the machine's effects into calls.
//!
//! It owns the machine's state, the history, and one object for each thing that it drives: the
//! runs, the traffic, the record, the live release's probes, the edits of `[app]`, and what is told
//! of all that. It never waits: what takes time (a process, a probe, a disk) is a task that sends a
//! [`Message`] back. It ends after [`Message::StopAll`], when every group is gone and the last
//! record is written, or after [`Message::Leave`], when every process stays. Dropping its future
//! leaves processes running; the record names them, and the next daemon takes them over.
//!
//! The ordering that matters is the machine's. This file adds one: the record is made from the
//! state after all effects of a step, so that what is written is never half a step.

mod boot;
mod companions;
mod drains;
mod hear;
mod in_force;
mod orders;
mod perform;
mod probes;
mod reload;
mod requests;
mod save;
mod scale;
mod snapshot;
mod steps;
mod still;
mod tell;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Duration, Instant};

use self::probes::probe_interval;
use super::clock::Clock;
use super::edits::Edits;
use super::events::Attempt;
use super::exits::Exits;
use super::handle::Handle;
use super::history::{Content, History};
use super::life::{Booting, Life};
use super::live_probe::LiveProbe;
use super::looks::Looks;
use super::memory::Kernel;
use super::message::{Message, reply};
use super::orders::{Moment, Orders};
use super::placeholder::Placeholder;
use super::record::Record;
use super::recorder::Recorder;
use super::runs::Runs;
use super::scale::Scaling;
use super::state::{Event, Policy, Refusal, RunId, State, Timer};
use super::store::{Found, Store};
use super::tasks::Tasks;
use super::timers::Timers;
use super::traffic::Traffic;
use super::turns::{Turn, Turns};
use super::view::View;
use super::voice::Voice;
use crate::config::{AppConfig, DeployStrategy, Standby};
use crate::supervisor::Supervisor;
use crate::wire::{self, Reason};

/// Messages that may wait; senders wait beyond it.
const INBOX: usize = 256;

/// How long the last record may take to be written.
const LAST_SAVE: Duration = Duration::from_secs(5);

/// What a coordinator is made of.
pub struct Parts {
    /// The configuration in force.
    pub config: watch::Receiver<Arc<AppConfig>>,
    /// Starts processes.
    pub supervisor: Arc<Supervisor>,
    /// Points requests at them.
    pub traffic: Traffic,
    /// Keeps the record.
    pub store: Store,
    /// What the store found.
    pub found: Found,
    /// Tells the hooks; must not block.
    pub notify: Box<dyn Fn(wire::HookEvent) + Send>,
    /// Do not continue what the record says (`portok run`).
    pub fresh: bool,
    /// Where it gets its turn to start its first release; `None`: it waits for none.
    pub turns: Option<Turns>,
}

/// The driver.
pub struct Coordinator {
    state: State,
    life: Life,
    history: History,
    runs: Runs,
    exits: Exits,
    timers: Timers,
    tasks: Tasks,
    traffic: Traffic,
    recorder: Recorder,
    voice: Voice,
    live_probe: LiveProbe,
    memory_looks: Looks,
    kernel: Kernel,
    edits: Edits,
    orders: Orders,
    scaling: Scaling,
    load_looks: Looks,
    /// A watch window that begins when requests go on, and how long it is.
    late_window: Option<(Timer, Duration)>,
    config: watch::Receiver<Arc<AppConfig>>,
    turns: Option<Turns>,
    /// Its turn to start its first release.
    turn: Option<Turn>,
    clock: Clock,
    inbox: mpsc::Receiver<Message>,
    view: watch::Sender<Arc<View>>,
    /// Becomes true once an unmanaged app has been probed for the first time, or none has to be.
    first_probe: watch::Sender<bool>,
    /// Who waits for the coordinator's end.
    end_awaited: Option<oneshot::Sender<Vec<wire::Ended>>>,
    /// The processes that ended since the end was announced.
    ended: Vec<wire::Ended>,
}

/// How a coordinator ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every process is gone, and the last record is written.
    Stopped,
    /// Its processes stay; the record names them.
    Left,
    /// By a fault of its own, as whoever runs it finds. Its processes stay, as the record has them.
    Fell,
}

/// One step of the machine: what the driver adds to it, and what came of it.
#[derive(Debug, Default)]
struct Step {
    /// The content of the release that a deploy asks for.
    content: Option<Content>,
    /// The save that the step wants.
    save: Option<u64>,
    /// The machine's answer to a request.
    answer: Option<Answer>,
    /// Every run is gone.
    finished: bool,
}

/// The machine's answer to a request.
#[derive(Debug)]
enum Answer {
    Refused(Refusal),
    /// The attempt that began, or is under way already.
    Accepted(Attempt),
    AlreadyLive,
}

/// What the coordinator turns to next.
enum Next {
    Message(Message),
    Timer,
    LiveProbe,
    MemoryLook,
    EarlyDrain,
    SaveRetry,
    /// An order ends by itself.
    OrderOver,
    /// The load is to be looked at.
    Look,
    /// A request has begun to wait.
    Waits,
    Config,
    /// The app's turn to start its first release has ended.
    TurnOver,
    Joined,
    /// Nobody can send messages or configurations any more.
    Closed,
}

impl Coordinator {
    /// Makes the coordinator and the handle that others use. Nothing happens before
    /// [`Coordinator::run`].
    pub fn new(parts: Parts) -> (Self, Handle) {
        let Parts { config, supervisor, traffic, store, found, notify, fresh, turns } = parts;
        for warning in &found.warnings {
            tracing::warn!("{warning}");
        }
        // Processes that the record names are stopped even where it is not continued.
        let leftovers = found.record.runs.iter().map(|run| run.identity.clone()).collect();
        let placeholder = Placeholder::remembered(found.record.no_placeholder);
        let record = if fresh { Record::default() } else { found.record };
        let (reports, inbox) = mpsc::channel(INBOX);
        let (view, views) = watch::channel(Arc::new(View::default()));
        let (first_probe, probed) = watch::channel(false);
        let handle = Handle::new(reports.clone(), views, config.clone(), Arc::clone(&supervisor), probed);
        let instance = config.borrow().name.clone();
        let mut coordinator = Self {
            state: State::default(),
            history: History::new(record.releases.clone()),
            runs: Runs::new(supervisor, placeholder, leftovers),
            exits: Exits::default(),
            timers: Timers::default(),
            tasks: Tasks::new(reports.clone()),
            traffic,
            recorder: Recorder::start(store, reports),
            voice: Voice::new(instance, notify, &record),
            live_probe: LiveProbe::default(),
            memory_looks: Looks::at_memory(),
            kernel: Kernel::default(),
            edits: Edits::new(&record),
            orders: record.orders.clone().taken_up(Moment::now()),
            scaling: Scaling::new(record.scale.clone()),
            load_looks: Looks::at_load(),
            late_window: None,
            life: Life::Booting(Booting { record, ..Booting::default() }),
            config,
            turns,
            turn: None,
            clock: Clock::start(),
            inbox,
            view,
            first_probe,
            end_awaited: None,
            ended: Vec::new(),
        };
        coordinator.take_orders_up();
        coordinator.publish();
        (coordinator, handle)
    }

    /// Drives the app until all of it is stopped or left.
    pub async fn run(mut self) -> End {
        self.take_stock();
        self.want_memory_looks();
        while !self.is_over() {
            match self.next_turn().await {
                Next::Message(message) => self.receive(message),
                Next::Timer => self.end_timers(),
                Next::LiveProbe => self.probe_live(),
                Next::MemoryLook => self.weigh_live(),
                Next::EarlyDrain => self.end_idle_drains(),
                Next::SaveRetry => self.repeat_save(),
                Next::OrderOver => self.end_orders(),
                Next::Look => self.look_at_load(),
                // It is looked for below.
                Next::Waits => {}
                Next::Config => self.look_at_app(),
                Next::TurnOver | Next::Joined => {}
                Next::Closed => break,
            }
            self.use_noted_scale();
            self.wake();
            self.deploy_edited_app();
            if self.turn.is_some() {
                self.give_turn_on();
            }
            self.publish();
        }
        let end = if matches!(self.life, Life::Finished) { End::Stopped } else { End::Left };
        self.end().await;
        end
    }

    fn is_over(&self) -> bool {
        match self.life {
            Life::Leaving { .. } => true,
            Life::Finished => !self.runs.has_leftovers(),
            Life::Booting(_) | Life::Moving | Life::Still(_) => false,
        }
    }

    /// Waits for what is next. Cancel safe.
    async fn next_turn(&mut self) -> Next {
        let drains_end_early = self.config.borrow().drain.early || self.state.makes_room();
        let drains_may_end = drains_end_early && self.state.drains_under_way().next().is_some();
        let moves = self.life.moves();
        let wakes = moves && self.state.is_idle();
        tokio::select! {
            message = self.inbox.recv() => message.map_or(Next::Closed, Next::Message),
            () = at(self.timers.next()), if moves => Next::Timer,
            () = at(self.live_probe.next()), if moves => Next::LiveProbe,
            () = at(self.memory_looks.next()), if moves => Next::MemoryLook,
            () = at(self.recorder.retry_at()), if moves => Next::SaveRetry,
            () = at(self.orders.next_end().map(Instant::from_std)), if moves => Next::OrderOver,
            () = at(self.load_looks.next()), if moves => Next::Look,
            () = self.traffic.asked(), if wakes => Next::Waits,
            () = self.traffic.look_early(), if drains_may_end && moves => Next::EarlyDrain,
            changed = self.config.changed(), if moves => changed.map_or(Next::Closed, |()| Next::Config),
            () = at(self.turn.as_ref().map(Turn::ends)), if moves => Next::TurnOver,
            () = self.tasks.join_next() => Next::Joined,
        }
    }

    async fn end(mut self) {
        if !self.life.is_recorded() {
            self.write_record(self.recorder.last());
        }
        let written = self.recorder.close();
        self.inbox.close();
        // What still runs is a probe or the like; every process is gone, or stays.
        self.tasks.abort_all();
        let supervisor = self.runs.supervisor();
        if matches!(self.life, Life::Leaving { .. }) {
            supervisor.let_go();
        }
        let ended = async {
            written.await;
            self.tasks.join_all().await;
            supervisor.idle().await;
        };
        if tokio::time::timeout(LAST_SAVE, ended).await.is_err() {
            tracing::warn!("the last record was not written within {LAST_SAVE:?}");
        }
        if let Some(asker) = self.end_awaited {
            reply(asker, self.ended);
        }
    }

    fn receive(&mut self, message: Message) {
        let received = match &self.life {
            Life::Booting(_) => self.receive_while_booting(message),
            Life::Still(_) => self.receive_while_still(message),
            Life::Moving | Life::Finished | Life::Leaving { .. } => Some(message),
        };
        let Some(message) = received else { return };
        match message {
            // It was interrupted, and is prepared anew.
            Message::Deploy { reason: Reason::Config, .. } if !self.edits.prepared() => {}
            Message::Deploy { prepared, reason, force, asker } => {
                reply(asker, self.deploy(*prepared, reason, force));
            }
            Message::Switch { ports, reason, asker } => reply(asker, self.switch(&ports, reason)),
            Message::Rollback { asked, asker } => reply(asker, self.roll_back(&asked)),
            Message::Cancel { asker } => reply(asker, self.cancel()),
            Message::Order { order, said, asker } => reply(asker, self.obey(order, said)),
            Message::Drains { asked, asker } => reply(asker, self.drains(asked)),
            Message::Scale { bounds, said, asker } => reply(asker, self.scale(bounds, &said)),
            Message::Shutdown => {
                self.step(Event::Shutdown);
                self.hold_nobody(None);
            }
            Message::StopAll { done } => {
                self.end_awaited = Some(done);
                self.step(Event::StopAll);
            }
            Message::Kill => {
                self.runs.kill_leftovers(&mut self.tasks);
                // Only runs that are being stopped are killed.
                self.step(Event::StopAll);
                self.step(Event::KillAll);
            }
            Message::MayFreeze { asker } => reply(asker, self.may_freeze()),
            Message::Freeze { interrupt, asker } => self.freeze(interrupt, asker),
            Message::Thaw => self.thaw(),
            Message::Leave { successor, done } => self.go_without_end(successor, done),
            Message::Beat(done) => reply(done, ()),
            Message::Run(run, report) => self.hear(run, *report),
            Message::ProbeEnded(run, report) => self.probe_ended(run, *report),
            Message::LiveProbed(run, report) => self.live_probed(run, report),
            Message::Weighed(seen) => self.weighed(seen),
            Message::Saved { seq, result } => self.saved(seq, result),
            Message::LookAtDisk(done) => self.look_at_disk(done),
            Message::ConfigNotPrepared { error } => self.edit_not_prepared(*error),
            Message::TakenOver(processes) => self.stock_taken(processes),
            Message::LeftoversGone => self.leftovers_gone(),
            Message::TurnCame(turn) => self.turn_came(turn),
        }
    }

    // ---- steps ----

    /// One step of the machine, and all that follows from it. Gives back the answer to a request.
    fn step(&mut self, event: Event) -> Option<Answer> {
        self.step_with(event, Step::default())
    }

    fn step_with(&mut self, event: Event, mut step: Step) -> Option<Answer> {
        let config = Arc::clone(&self.config.borrow());
        tracing::debug!(?event, "step");
        let were_up = self.state.live_runs();
        let policy = self.policy();
        for effect in self.state.step(event, self.clock.now(), &policy) {
            #[cfg(debug_assertions)]
            super::failpoint::reached();
            self.perform(effect, &config, &mut step);
        }
        let are_up = self.state.live_runs();
        if are_up != were_up && !are_up.iter().any(|run| were_up.contains(run)) {
            let interval = probe_interval(&config, self.state.window.is_some());
            self.live_probe.begin_anew(are_up.len(), interval);
        }
        let known: Vec<RunId> = self.state.runs().map(|run| run.id).collect();
        self.runs.retain(|run| known.contains(&run));
        self.traffic.retain(|run| known.contains(&run));
        let state = &self.state;
        self.exits.retain(|set| state.has_set(set));
        if self.state.phase() == wire::Phase::Settled {
            self.voice.forget_exit();
        }
        self.load_looks.want(self.state.follows_load(&policy).is_some());
        self.tell_begun();
        if let Some(seq) = step.save {
            self.write_record(seq);
        }
        if step.finished {
            self.life = Life::Finished;
        }
        #[cfg(debug_assertions)]
        {
            super::failpoint::reached();
            super::failpoint::step_taken(&config.name);
        }
        step.answer
    }

    fn end_timers(&mut self) {
        while let Some(timer) = self.timers.take_due() {
            self.step(match timer {
                Timer::Drain(set, seq) => Event::DrainOver { set, seq },
                Timer::Window(ticket) => Event::WindowOver { ticket },
                Timer::Restart(ticket, _) => Event::RestartDue { ticket },
                Timer::Calm(ticket, _) => Event::Calm { ticket },
            });
        }
    }

    // ---- drains ----

    fn end_idle_drains(&mut self) {
        let drains: Vec<_> = self.state.drains_under_way().collect();
        for (set, seq, runs) in drains {
            if self.traffic.are_idle(&runs) {
                self.step(Event::DrainOver { set, seq });
            }
        }
    }

    // ---- settings ----

    /// What the machine decides by.
    fn policy(&self) -> Policy {
        let replicas = self.replicas();
        let config = self.config.borrow();
        Policy {
            window: !config.rollback.window.is_zero(),
            threshold: config.rollback.threshold,
            failures: config.probes_to_fail(),
            standby: config.rollback.standby == Standby::Window,
            replicas,
            companions: self.history.companions(),
            max_memory: config.app.max_memory,
            recycle_after: config.app.recycle_after,
            recreate: config.deploy.strategy == DeployStrategy::Recreate,
            restart: config.app.restart.clone(),
        }
    }

    // ---- what others see ----

    fn publish(&mut self) {
        let past = &self.state.past;
        self.history.mark(|release| past.is_quarantined(release));
        self.view.send_replace(Arc::new(self.make_view()));
    }
}

/// Waits for a moment that may never come. Cancel safe.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
