//! The release machine: what happens next, decided without clock, I/O or async.
//!
//! [`State::step`] takes one [`Event`] and returns the [`Effect`]s that the driver
//! ([`super::coordinator`]) has to carry out, in their order. Boot, deploy, switch, rollback, crash and configuration edit all
//! walk the same edges with another [`Reason`].
//!
//! ```text
//!              Deploy / Switch / Rollback                    Ready
//!   (no task) ────────────────────────────▶ task: Recording ─▶ Starting ─────▶ live: Up ──window──▶ settled
//!                                             │ not written     │ NotReady       │  ▲ Exited
//!                                             ▼                 ▼ Exited         ▼  │ Ready
//!                                          refused           aborted        live: Down ⟲ (delays grow)
//!
//!   what live replaces: leaving: Draining ──drain over, outcome recorded──▶ Stopping ──Gone──▶ forgotten
//! ```
//!
//! Rules that hold after every step (the property test asserts them): at most one task; the route points only at a
//! run that was ready; every run that was started is stopped exactly once, and never while it is live; a
//! stop is never sent before the outcome of the switch that retired it was written down (or the writing failed).
//!
//! The orderings that matter: `Save` comes before `Spawn` and is waited for (a daemon that dies in between finds its
//! intent); `Route` comes before the `Save` of its outcome, because traffic must not wait for a disk; `Stop` of the former
//! run waits for that `Save`.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::wire::{Phase, Reason};

/// How often a candidate whose port was taken is started again on another port.
const PORT_TRIES: u32 = 3;

/// One tenure of a process (or of somebody else's app) under portok.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId(pub u64);

/// A release, by name and kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRef {
    /// Its id.
    pub id: String,
    /// Who starts it.
    pub origin: Origin,
}

/// Who starts a release's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// portok does.
    Managed,
    /// Somebody else did; it listens on this port of 127.0.0.1.
    Unmanaged {
        /// The port.
        port: u16,
    },
}

/// One run of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its identity within this daemon's life.
    pub id: RunId,
    /// The release it runs.
    pub release: ReleaseRef,
    /// Its port, once known.
    pub port: Option<u16>,
}

impl Run {
    fn managed(&self) -> bool {
        self.release.origin == Origin::Managed
    }
}

/// What serves, or should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Live {
    /// Nothing ever became live.
    None,
    /// It serves.
    Up {
        /// The run that the route points at.
        run: Run,
    },
    /// It should serve and has no process that is ready.
    Down {
        /// The release that should serve.
        release: ReleaseRef,
        /// Why it is down.
        cause: DownCause,
        /// What is done about it.
        stage: DownStage,
    },
}

/// Why the live release is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownCause {
    /// The daemon has just started.
    Boot,
    /// Its process ended.
    Crash,
    /// It ended too often within a time.
    CrashLoop,
}

/// What is done about a live release that is down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DownStage {
    /// A rollback is under way; nothing before it has ended.
    AwaitingRollback,
    /// The delay before the next start runs.
    Waiting {
        /// Names the timer; others are stale.
        ticket: u64,
    },
    /// A run of it is starting.
    Starting {
        /// The run.
        run: Run,
        /// How many ports were tried.
        tries: u32,
    },
    /// Nothing, until the next deploy (or the end of the daemon).
    GivenUp,
}

/// The one deploy, switch or rollback under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// What shall become live.
    pub release: ReleaseRef,
    /// Why.
    pub reason: Reason,
    /// How far it is.
    pub stage: Stage,
}

/// How far a [`Task`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// The intent is being written down.
    Recording {
        /// The save that carries it.
        seq: u64,
        /// A run that is still there and may be made live again.
        revive: Option<RunId>,
    },
    /// Started (or, unmanaged, being probed), not ready yet.
    Starting {
        /// The candidate's run.
        run: Run,
        /// How many ports were tried.
        tries: u32,
    },
    /// A run that was leaving is probed.
    Reviving {
        /// The run, still in [`State::leaving`].
        run: RunId,
    },
}

/// A run that traffic left, or that never got any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// The run.
    pub run: Run,
    /// How far it is.
    pub stage: LeavingStage,
}

/// How far a [`Leaving`] run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeavingStage {
    /// It finishes what it has.
    Draining {
        /// The drain has ended.
        over: bool,
        /// The save that tells of the switch that retired it.
        seq: u64,
    },
    /// The stop ladder runs.
    Stopping,
}

/// The release to go back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// The release.
    pub release: ReleaseRef,
    /// Its run, which may still be among the leaving.
    pub run: Option<RunId>,
}

/// The watch window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Names its timer; others are stale.
    pub ticket: u64,
    /// Failed probes in a row.
    pub fails: u32,
}

/// All that the machine knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What serves, or should.
    pub live: Live,
    /// What is under way.
    pub task: Option<Task>,
    /// Runs on their way out.
    pub leaving: Vec<Leaving>,
    /// What `live` replaced last.
    pub previous: Option<Previous>,
    /// The watch window, while open.
    pub window: Option<Window>,
    /// How often the live release was started again after a crash.
    pub restarts: u32,
    crashes: VecDeque<Duration>,
    stopping: Stopping,
    recorded: u64,
    next: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    /// Nothing new is begun; requests finish.
    Announced,
    /// All groups are being stopped.
    Groups,
}

/// The settings that decisions depend on, as they are in force at this step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether a switch opens a watch window.
    pub window: bool,
    /// Failed probes in a row that bring a rollback.
    pub threshold: u32,
    /// Keep the former release running until the window has passed.
    pub standby: bool,
    /// What happens after a crash.
    pub restart: crate::config::Restart,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The daemon started with this record.
    Boot {
        /// The recorded live release.
        live: Option<ReleaseRef>,
        /// The recorded previous one.
        previous: Option<ReleaseRef>,
    },
    /// Make a new release live.
    Deploy {
        /// A managed release.
        release: ReleaseRef,
        /// `Deploy` or `Config`.
        reason: Reason,
    },
    /// Move traffic to a port.
    Switch {
        /// The release that stands for the port, where it is nobody's we know.
        release: ReleaseRef,
        /// The port.
        port: u16,
        /// `Manual` or `Config`.
        reason: Reason,
    },
    /// Go back.
    Rollback,
    /// Give up what is under way.
    Cancel,
    /// The daemon is asked to end: begin nothing new.
    Shutdown,
    /// Requests have finished or had their time: stop all groups.
    StopAll,
    /// Kill what is left.
    KillAll,
    /// A save has ended.
    Recorded {
        /// Which; it stands for all before it too.
        seq: u64,
        /// Whether it is on disk.
        ok: bool,
    },
    /// A run's process was started.
    Spawned {
        /// Which.
        run: RunId,
        /// On which port.
        port: u16,
    },
    /// A run answers its health path and its listener is its own.
    Ready {
        /// Which.
        run: RunId,
    },
    /// A run could not be started, is not healthy in time, or must not be trusted.
    NotReady {
        /// Which.
        run: RunId,
    },
    /// The leader of a run's group ended.
    Exited {
        /// Which.
        run: RunId,
        /// It found its port taken.
        port_taken: bool,
    },
    /// Nothing is left of a run.
    Gone {
        /// Which.
        run: RunId,
    },
    /// The live run was probed.
    Probed {
        /// Which.
        run: RunId,
        /// Whether it answered with 2xx.
        healthy: bool,
    },
    /// A run's drain is over.
    DrainOver {
        /// Which.
        run: RunId,
    },
    /// A watch window's time is over.
    WindowOver {
        /// Which.
        ticket: u64,
    },
    /// A restart's delay is over.
    RestartDue {
        /// Which.
        ticket: u64,
    },
}

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write the record; answer with `Recorded`.
    Save {
        /// Its number; they grow.
        seq: u64,
    },
    /// Start a process; answer with `Spawned`, then `Ready` or `NotReady`, later `Exited`, at last exactly one `Gone`.
    Spawn {
        /// Its run.
        run: RunId,
        /// The release to run.
        release: String,
        /// Hold the port against others until the process listens.
        hold_port: bool,
    },
    /// Ask a run that no process is started for; answer with `Ready` or `NotReady`.
    Probe {
        /// Its run.
        run: RunId,
        /// Ask until it is healthy.
        patient: bool,
    },
    /// Point new requests at a run.
    Route {
        /// The run.
        run: RunId,
        /// The run that had them; `close`: nobody stays pinned to it.
        former: Option<(RunId, FormerTarget)>,
    },
    /// No target; requests wait a little for the next.
    Hold,
    /// No target; requests are refused.
    Unroute,
    /// A run's target takes no request any more.
    Close {
        /// The run.
        run: RunId,
    },
    /// Start the stop ladder.
    Stop {
        /// The run.
        run: RunId,
    },
    /// SIGKILL now.
    Kill {
        /// The run.
        run: RunId,
    },
    /// A run without a process of ours is of no interest any more.
    Forget {
        /// The run.
        run: RunId,
    },
    /// Start a timer.
    Timer(Timer),
    /// Tell everybody who wants to know.
    Tell(Tell),
    /// The request in hand is refused.
    Refuse(Refusal),
    /// The port is live already: nothing to do.
    AlreadyLive,
    /// Everything is gone: the daemon may end.
    Finished,
}

/// What becomes of the target that a route leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormerTarget {
    /// Pinned connections may stay for the drain.
    Retire,
    /// Nobody stays.
    Close,
}

/// A timer; its end comes back as the event of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// `drain.period`, then [`Event::DrainOver`].
    Drain(RunId),
    /// `rollback.window`, then [`Event::WindowOver`].
    Window(u64),
    /// This delay, then [`Event::RestartDue`].
    Restart(u64, Duration),
}

/// What is worth telling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tell {
    /// A task begins.
    Accepted,
    /// A candidate is started again because its port was taken.
    PortTaken {
        /// The run that found it.
        run: RunId,
    },
    /// Traffic moved; the task is done.
    Switched {
        /// To this run.
        run: RunId,
        /// From this one.
        from: Option<RunId>,
        /// Why.
        reason: Reason,
        /// The release that lost traffic.
        from_release: Option<ReleaseRef>,
    },
    /// A run finishes what it has.
    Draining {
        /// Which.
        run: RunId,
    },
    /// Its drain is over.
    Drained {
        /// Which.
        run: RunId,
    },
    /// Nothing is left of it.
    Stopped {
        /// Which.
        run: RunId,
        /// Its release.
        release: ReleaseRef,
    },
    /// A task was given up; traffic did not move.
    Aborted {
        /// The release that did not become live.
        release: ReleaseRef,
        /// The reason of the task.
        reason: Reason,
        /// Its run, where it had one.
        run: Option<RunId>,
        /// Why.
        why: Abort,
    },
    /// The live run ended; it is started again after a delay.
    Crashed {
        /// The release.
        release: ReleaseRef,
        /// The delay; `None`: not at all.
        delay: Option<Duration>,
        /// The limit is reached.
        looping: bool,
    },
    /// The live release serves again (or, at boot, for the first time).
    Restored {
        /// The run that serves.
        run: RunId,
        /// At boot, not after a crash.
        boot: bool,
    },
    /// The window's verdict is bad and there is nothing to go back to.
    NothingToGoBackTo,
    /// The watch window has passed.
    Settled,
}

/// Why a task was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// The candidate's process ended.
    Exited,
    /// The candidate could not be started, was not healthy in time, or could not be trusted.
    NotReady,
    /// The target did not answer its health path with 2xx.
    Unhealthy,
    /// An operator ended it.
    Cancelled,
    /// The intent could not be written down.
    Unrecorded,
    /// The daemon is going down.
    Interrupted,
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Another one is under way.
    Busy {
        /// What it wants to make live.
        release: String,
        /// Why.
        reason: Reason,
    },
    /// There is no previous release.
    NoPrevious,
    /// There is nothing to cancel.
    NothingUnderWay,
    /// The daemon is going down.
    ShuttingDown,
}

impl Default for State {
    fn default() -> Self {
        Self {
            live: Live::None,
            task: None,
            leaving: Vec::new(),
            previous: None,
            window: None,
            restarts: 0,
            crashes: VecDeque::new(),
            stopping: Stopping::No,
            recorded: 0,
            next: 0,
        }
    }
}

impl State {
    /// Where the app's life stands.
    pub fn phase(&self) -> Phase {
        if self.stopping != Stopping::No {
            return Phase::Stopping;
        }
        match &self.live {
            Live::Up { .. } if self.window.is_some() => Phase::Watching,
            Live::Up { .. } => Phase::Settled,
            Live::Down { cause: DownCause::Boot, .. } => Phase::Starting,
            Live::Down { cause: DownCause::Crash, .. } => Phase::Restarting,
            Live::Down { cause: DownCause::CrashLoop, .. } => Phase::Failed,
            Live::None if self.task.is_some() => Phase::Starting,
            Live::None => Phase::Empty,
        }
    }

    /// The release that serves or should.
    pub fn live_release(&self) -> Option<&ReleaseRef> {
        match &self.live {
            Live::None => None,
            Live::Up { run } => Some(&run.release),
            Live::Down { release, .. } => Some(release),
        }
    }

    /// The run that serves.
    pub fn live_run(&self) -> Option<&Run> {
        match &self.live {
            Live::Up { run } => Some(run),
            _ => None,
        }
    }

    /// Every run that is not forgotten.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        let live = match &self.live {
            Live::Up { run } | Live::Down { stage: DownStage::Starting { run, .. }, .. } => Some(run),
            _ => None,
        };
        let task = match &self.task {
            Some(Task { stage: Stage::Starting { run, .. }, .. }) => Some(run),
            _ => None,
        };
        live.into_iter().chain(task).chain(self.leaving.iter().map(|leaving| &leaving.run))
    }

    /// Takes one event at the moment `now` (any monotonic clock) and says what to do.
    pub fn step(&mut self, event: Event, now: Duration, policy: &Policy) -> Vec<Effect> {
        let mut out = Vec::new();
        match event {
            Event::Boot { live, previous } => self.boot(live, previous, &mut out),
            Event::Deploy { release, reason } => {
                if self.admits(&mut out) {
                    self.record_intent(release, reason, None, &mut out);
                }
            }
            Event::Switch { release, port, reason } => self.switch(release, port, reason, &mut out),
            Event::Rollback => {
                if self.admits(&mut out) && !self.roll_back(Reason::ManualRollback, &mut out) {
                    out.push(Effect::Refuse(Refusal::NoPrevious));
                }
            }
            Event::Cancel if self.task.is_some() => self.abort(Abort::Cancelled, now, policy, &mut out),
            Event::Cancel => out.push(Effect::Refuse(Refusal::NothingUnderWay)),
            Event::Shutdown => self.shut_down(now, policy, &mut out),
            Event::StopAll => self.stop_all(&mut out),
            Event::KillAll => {
                out.extend(self.leaving.iter().map(|leaving| Effect::Kill { run: leaving.run.id }));
            }
            Event::Recorded { seq, ok } => self.saved(seq, ok, now, policy, &mut out),
            Event::Spawned { run, port } => self.spawned(run, port, &mut out),
            Event::Ready { run } => self.ready(run, policy, &mut out),
            Event::NotReady { run } => self.not_ready(run, now, policy, &mut out),
            Event::Exited { run, port_taken } => self.exited(run, port_taken, now, policy, &mut out),
            Event::Gone { run } => self.gone(run, &mut out),
            Event::Probed { run, healthy } => self.probed(run, healthy, policy, &mut out),
            Event::DrainOver { run } => self.drain_over(run, &mut out),
            Event::WindowOver { ticket } => {
                if self.window.is_some_and(|window| window.ticket == ticket) {
                    self.window = None;
                    out.push(Effect::Tell(Tell::Settled));
                }
            }
            Event::RestartDue { ticket } => self.restart_due(ticket, &mut out),
        }
        self.stop_what_has_drained(policy, &mut out);
        if self.stopping == Stopping::Groups && self.runs().next().is_none() {
            out.push(Effect::Finished);
        }
        out
    }

    // ---- requests ----

    fn boot(&mut self, live: Option<ReleaseRef>, previous: Option<ReleaseRef>, out: &mut Vec<Effect>) {
        self.previous = previous.map(|release| Previous { release, run: None });
        if let Some(release) = live {
            let run = self.start(&release, 1, out);
            let stage = DownStage::Starting { run, tries: 1 };
            self.live = Live::Down { release, cause: DownCause::Boot, stage };
        }
    }

    fn admits(&self, out: &mut Vec<Effect>) -> bool {
        let refusal = match &self.task {
            _ if self.stopping != Stopping::No => Refusal::ShuttingDown,
            Some(task) => Refusal::Busy { release: task.release.id.clone(), reason: task.reason },
            None => return true,
        };
        out.push(Effect::Refuse(refusal));
        false
    }

    fn switch(&mut self, release: ReleaseRef, port: u16, reason: Reason, out: &mut Vec<Effect>) {
        if !self.admits(out) {
            return;
        }
        if self.live_run().is_some_and(|run| run.port == Some(port)) {
            out.push(Effect::AlreadyLive);
            return;
        }
        // The port of a run of ours that has not been told to stop: that very run is meant.
        let ours = self.leaving.iter().find(|leaving| {
            leaving.run.port == Some(port) && matches!(leaving.stage, LeavingStage::Draining { .. })
        });
        let (release, revive) = match ours {
            Some(leaving) => (leaving.run.release.clone(), Some(leaving.run.id)),
            None => (release, None),
        };
        self.record_intent(release, reason, revive, out);
    }

    /// A task begins: whatever watch window there was ends with it.
    fn record_intent(
        &mut self,
        release: ReleaseRef,
        reason: Reason,
        revive: Option<RunId>,
        out: &mut Vec<Effect>,
    ) {
        self.window = None;
        let seq = self.save(out);
        self.task = Some(Task { release, reason, stage: Stage::Recording { seq, revive } });
        out.push(Effect::Tell(Tell::Accepted));
    }

    /// Begins to go back; false when there is nothing to go back to.
    fn roll_back(&mut self, reason: Reason, out: &mut Vec<Effect>) -> bool {
        let Some(previous) = self.previous.clone() else { return false };
        match previous.run.filter(|run| self.is_draining(*run)) {
            // Its process still runs: no disk stands between the verdict and the way back.
            Some(run) => {
                self.window = None;
                out.push(Effect::Tell(Tell::Accepted));
                out.push(Effect::Probe { run, patient: false });
                self.task = Some(Task { release: previous.release, reason, stage: Stage::Reviving { run } });
            }
            None => self.record_intent(previous.release, reason, None, out),
        }
        true
    }

    fn shut_down(&mut self, now: Duration, policy: &Policy, out: &mut Vec<Effect>) {
        if self.stopping != Stopping::No {
            return;
        }
        self.stopping = Stopping::Announced;
        self.window = None;
        if self.task.is_some() {
            self.abort(Abort::Interrupted, now, policy, out);
        }
        if let Live::Down { stage, .. } = &mut self.live
            && let DownStage::Starting { run, .. } = std::mem::replace(stage, DownStage::GivenUp)
        {
            self.leave(run, out);
        }
    }

    fn stop_all(&mut self, out: &mut Vec<Effect>) {
        self.stopping = Stopping::Groups;
        if let Live::Up { run } = &self.live {
            let run = run.clone();
            self.live = Live::Down {
                release: run.release.clone(),
                cause: DownCause::Boot,
                stage: DownStage::GivenUp,
            };
            out.push(Effect::Unroute);
            out.push(Effect::Close { run: run.id });
            self.leave(run, out);
        }
        for leaving in &mut self.leaving {
            if let LeavingStage::Draining { over, seq } = leaving.stage {
                if !over {
                    out.push(Effect::Close { run: leaving.run.id });
                }
                leaving.stage = LeavingStage::Draining { over: true, seq };
            }
        }
    }

    // ---- facts ----

    fn saved(&mut self, seq: u64, ok: bool, now: Duration, policy: &Policy, out: &mut Vec<Effect>) {
        self.recorded = self.recorded.max(seq);
        let Some(Task { release, reason, stage: Stage::Recording { seq: waited, revive } }) = &self.task
        else {
            return;
        };
        if *waited > seq {
            return;
        }
        if !ok && !is_rollback(*reason) {
            self.abort(Abort::Unrecorded, now, policy, out);
            return;
        }
        let (release, revive) = (release.clone(), revive.filter(|run| self.is_draining(*run)));
        let stage = match revive {
            Some(run) => {
                out.push(Effect::Probe { run, patient: false });
                Stage::Reviving { run }
            }
            None => Stage::Starting { run: self.start_candidate(&release, 1, out), tries: 1 },
        };
        if let Some(task) = &mut self.task {
            task.stage = stage;
        }
    }

    fn spawned(&mut self, id: RunId, port: u16, out: &mut Vec<Effect>) {
        let run = match (&mut self.task, &mut self.live) {
            (Some(Task { stage: Stage::Starting { run, .. }, .. }), _) if run.id == id => Some(run),
            (_, Live::Down { stage: DownStage::Starting { run, .. }, .. }) if run.id == id => Some(run),
            _ => self.leaving.iter_mut().map(|leaving| &mut leaving.run).find(|run| run.id == id),
        };
        if let Some(run) = run {
            run.port = Some(port);
            self.save(out);
        }
    }

    fn ready(&mut self, id: RunId, policy: &Policy, out: &mut Vec<Effect>) {
        match (&self.task, &self.live) {
            (Some(Task { stage: Stage::Starting { run, .. }, .. }), _) if run.id == id => {
                let run = run.clone();
                self.go_live(run, policy, out);
            }
            (Some(Task { stage: Stage::Reviving { run }, .. }), _) if *run == id => {
                if let Some(at) = self.leaving.iter().position(|leaving| leaving.run.id == id) {
                    let run = self.leaving.remove(at).run;
                    self.go_live(run, policy, out);
                }
            }
            (_, Live::Down { stage: DownStage::Starting { run, .. }, cause, .. }) if run.id == id => {
                let (run, boot) = (run.clone(), *cause == DownCause::Boot);
                out.push(Effect::Route { run: id, former: None });
                out.push(Effect::Tell(Tell::Restored { run: id, boot }));
                self.live = Live::Up { run };
                if !boot {
                    self.restarts += 1;
                }
                self.save(out);
            }
            _ => {}
        }
    }

    fn go_live(&mut self, run: Run, policy: &Policy, out: &mut Vec<Effect>) {
        let Some(task) = self.task.take() else { return };
        let back = is_rollback(task.reason);
        let former = std::mem::replace(&mut self.live, Live::Up { run: run.clone() });
        let (previous, former_run) = match former {
            Live::None => (self.previous.take(), None),
            Live::Up { run } => {
                (Some(Previous { release: run.release.clone(), run: Some(run.id) }), Some(run))
            }
            Live::Down { release, stage, .. } => {
                if let DownStage::Starting { run, .. } = stage {
                    self.leave(run, out);
                }
                (Some(Previous { release, run: None }), None)
            }
        };
        self.previous = previous;
        self.crashes.clear();
        self.restarts = 0;
        let treatment = if back { FormerTarget::Close } else { FormerTarget::Retire };
        let former_id = former_run.as_ref().map(|former| former.id);
        out.push(Effect::Route { run: run.id, former: former_id.map(|id| (id, treatment)) });
        let seq = self.save(out);
        out.push(Effect::Tell(Tell::Switched {
            run: run.id,
            from: former_id,
            reason: task.reason,
            from_release: self.previous.as_ref().map(|previous| previous.release.clone()),
        }));
        if let Some(former) = former_run {
            out.push(Effect::Tell(Tell::Draining { run: former.id }));
            out.push(Effect::Timer(Timer::Drain(former.id)));
            self.leaving.push(Leaving { run: former, stage: LeavingStage::Draining { over: false, seq } });
        }
        if policy.window && !back {
            let ticket = self.fresh();
            self.window = Some(Window { ticket, fails: 0 });
            out.push(Effect::Timer(Timer::Window(ticket)));
        }
    }

    fn not_ready(&mut self, id: RunId, now: Duration, policy: &Policy, out: &mut Vec<Effect>) {
        match (&self.task, &self.live) {
            (Some(Task { stage: Stage::Starting { run, .. }, .. }), _) if run.id == id => {
                let why = if run.managed() { Abort::NotReady } else { Abort::Unhealthy };
                self.abort(why, now, policy, out);
            }
            (Some(Task { stage: Stage::Reviving { run }, .. }), _) if *run == id => {
                self.abort(Abort::Unhealthy, now, policy, out);
            }
            (_, Live::Down { stage: DownStage::Starting { run, .. }, .. }) if run.id == id => {
                let run = run.clone();
                self.leave(run, out);
                self.crashed(now, policy, out);
            }
            _ => {}
        }
    }

    fn exited(&mut self, id: RunId, port_taken: bool, now: Duration, policy: &Policy, out: &mut Vec<Effect>) {
        match (&mut self.task, &mut self.live) {
            (Some(Task { stage: Stage::Starting { run, tries }, release, .. }), _) if run.id == id => {
                let (tries, release) = (*tries, release.clone());
                if !port_taken || tries >= PORT_TRIES {
                    self.abort(Abort::Exited, now, policy, out);
                    return;
                }
                out.push(Effect::Tell(Tell::PortTaken { run: id }));
                let next = self.start_candidate(&release, tries + 1, out);
                if let Some(Task { stage: Stage::Starting { run, tries }, .. }) = &mut self.task {
                    *tries += 1;
                    let former = std::mem::replace(run, next);
                    self.leave(former, out);
                }
            }
            (_, Live::Up { run }) if run.id == id => {
                let run = run.clone();
                let release = run.release.clone();
                out.push(Effect::Hold);
                out.push(Effect::Close { run: id });
                self.leave(run, out);
                let down = |stage| Live::Down { release, cause: DownCause::Crash, stage };
                if self.stopping != Stopping::No {
                    self.live = down(DownStage::GivenUp);
                    out.push(Effect::Unroute);
                    return;
                }
                self.live = down(DownStage::AwaitingRollback);
                let watched = self.window.take().is_some();
                if !(watched && self.roll_back(Reason::AutoRollback, out)) {
                    self.crashed(now, policy, out);
                }
            }
            (_, Live::Down { stage: DownStage::Starting { run, tries }, .. }) if run.id == id => {
                let (run, tries) = (run.clone(), *tries);
                if !port_taken || tries >= PORT_TRIES {
                    self.leave(run, out);
                    self.crashed(now, policy, out);
                    return;
                }
                out.push(Effect::Tell(Tell::PortTaken { run: id }));
                let next = self.start(&run.release, tries + 1, out);
                self.leave(run, out);
                if let Live::Down { stage, .. } = &mut self.live {
                    *stage = DownStage::Starting { run: next, tries: tries + 1 };
                }
            }
            _ => self.exited_while_leaving(id, out),
        }
    }

    fn exited_while_leaving(&mut self, id: RunId, out: &mut Vec<Effect>) {
        if self.is_draining(id)
            && let Some(at) = self.leaving.iter().position(|leaving| leaving.run.id == id)
        {
            let Leaving { run, .. } = self.leaving.remove(at);
            out.push(Effect::Close { run: id });
            self.leave(run, out);
        }
        // What was to be made live again has just ended: it is started instead.
        if let Some(Task { stage: stage @ Stage::Reviving { .. }, .. }) = &mut self.task
            && matches!(stage, Stage::Reviving { run } if *run == id)
        {
            self.next += 1;
            let seq = self.next;
            *stage = Stage::Recording { seq, revive: None };
            out.push(Effect::Save { seq });
        }
    }

    fn gone(&mut self, id: RunId, out: &mut Vec<Effect>) {
        if let Some(at) = self.leaving.iter().position(|leaving| leaving.run.id == id) {
            let Leaving { run, .. } = self.leaving.remove(at);
            out.push(Effect::Tell(Tell::Stopped { run: id, release: run.release }));
            self.save(out);
        }
    }

    fn probed(&mut self, id: RunId, healthy: bool, policy: &Policy, out: &mut Vec<Effect>) {
        if self.live_run().is_none_or(|run| run.id != id) {
            return;
        }
        let Some(window) = &mut self.window else { return };
        window.fails = if healthy { 0 } else { window.fails + 1 };
        if window.fails < policy.threshold {
            return;
        }
        self.window = None;
        if !self.roll_back(Reason::AutoRollback, out) {
            out.push(Effect::Tell(Tell::NothingToGoBackTo));
        }
    }

    fn drain_over(&mut self, id: RunId, out: &mut Vec<Effect>) {
        for leaving in &mut self.leaving {
            if leaving.run.id == id
                && let LeavingStage::Draining { over: over @ false, .. } = &mut leaving.stage
            {
                *over = true;
                out.push(Effect::Close { run: id });
                out.push(Effect::Tell(Tell::Drained { run: id }));
            }
        }
    }

    fn restart_due(&mut self, ticket: u64, out: &mut Vec<Effect>) {
        let Live::Down { release, stage: DownStage::Waiting { ticket: waited }, .. } = &self.live else {
            return;
        };
        if *waited != ticket || self.stopping != Stopping::No {
            return;
        }
        let release = release.clone();
        let run = self.start(&release, 1, out);
        if let Live::Down { stage, .. } = &mut self.live {
            *stage = DownStage::Starting { run, tries: 1 };
        }
    }

    // ---- edges shared by several causes ----

    /// The live release has no process: decide when the next one is started.
    fn crashed(&mut self, now: Duration, policy: &Policy, out: &mut Vec<Effect>) {
        let restart = &policy.restart;
        self.crashes.push_back(now);
        while self.crashes.front().is_some_and(|first| now.saturating_sub(*first) > restart.within) {
            self.crashes.pop_front();
        }
        let count = u32::try_from(self.crashes.len()).unwrap_or(u32::MAX);
        let looping = count >= restart.burst;
        // The record of crashes stays as long as it can matter.
        while self.crashes.len() > restart.burst.max(1) as usize {
            self.crashes.pop_front();
        }
        let delay = if !looping {
            let doubled = 2u32.saturating_pow(count.saturating_sub(1).min(31));
            Some(restart.backoff.saturating_mul(doubled).min(restart.max_backoff))
        } else if restart.give_up {
            None
        } else {
            Some(restart.max_backoff)
        };
        let ticket = self.fresh();
        let Live::Down { release, cause, stage } = &mut self.live else { return };
        if looping {
            *cause = DownCause::CrashLoop;
            out.push(Effect::Unroute);
        }
        *stage = match delay {
            Some(_) => DownStage::Waiting { ticket },
            None => DownStage::GivenUp,
        };
        out.push(Effect::Tell(Tell::Crashed { release: release.clone(), delay, looping }));
        out.extend(delay.map(|delay| Effect::Timer(Timer::Restart(ticket, delay))));
    }

    /// Gives the task up. Traffic stays where it is.
    fn abort(&mut self, why: Abort, now: Duration, policy: &Policy, out: &mut Vec<Effect>) {
        let Some(Task { release, reason, stage }) = self.task.take() else { return };
        let run = match stage {
            Stage::Recording { .. } => None,
            Stage::Reviving { run } => Some(run),
            Stage::Starting { run, .. } => {
                let id = run.id;
                self.leave(run, out);
                Some(id)
            }
        };
        out.push(Effect::Tell(Tell::Aborted { release, reason, run, why }));
        if why != Abort::Unrecorded {
            self.save(out);
        }
        if matches!(self.live, Live::Down { stage: DownStage::AwaitingRollback, .. }) {
            self.crashed(now, policy, out);
        }
    }

    /// A run that gets no traffic (any more) is stopped, or forgotten where it is not ours to stop.
    fn leave(&mut self, run: Run, out: &mut Vec<Effect>) {
        if run.managed() {
            out.push(Effect::Stop { run: run.id });
            self.leaving.push(Leaving { run, stage: LeavingStage::Stopping });
        } else {
            out.push(Effect::Forget { run: run.id });
        }
    }

    fn stop_what_has_drained(&mut self, policy: &Policy, out: &mut Vec<Effect>) {
        let reviving = match &self.task {
            Some(Task {
                stage: Stage::Reviving { run } | Stage::Recording { revive: Some(run), .. },
                ..
            }) => Some(*run),
            _ => None,
        };
        let standby = policy.standby && self.window.is_some();
        let recorded = self.recorded;
        let previous = self.previous.as_ref().and_then(|previous| previous.run);
        let (stop, stay) = std::mem::take(&mut self.leaving).into_iter().partition(|leaving| {
            matches!(leaving.stage, LeavingStage::Draining { over: true, seq } if seq <= recorded)
                && reviving != Some(leaving.run.id)
                && !(standby && previous == Some(leaving.run.id))
        });
        self.leaving = stay;
        for Leaving { run, .. } in stop {
            self.leave(run, out);
        }
    }

    /// Starts a run of the live release, patiently where it is somebody else's.
    fn start(&mut self, release: &ReleaseRef, tries: u32, out: &mut Vec<Effect>) -> Run {
        self.begin(release, tries, true, out)
    }

    /// Starts a candidate; somebody else's app is asked once.
    fn start_candidate(&mut self, release: &ReleaseRef, tries: u32, out: &mut Vec<Effect>) -> Run {
        self.begin(release, tries, false, out)
    }

    fn begin(&mut self, release: &ReleaseRef, tries: u32, patient: bool, out: &mut Vec<Effect>) -> Run {
        let id = RunId(self.fresh());
        let port = match release.origin {
            Origin::Managed => {
                // The last try is without the placeholder, for apps that cannot listen beside it.
                let hold_port = tries < PORT_TRIES;
                out.push(Effect::Spawn { run: id, release: release.id.clone(), hold_port });
                None
            }
            Origin::Unmanaged { port } => {
                out.push(Effect::Probe { run: id, patient });
                Some(port)
            }
        };
        Run { id, release: release.clone(), port }
    }

    fn is_draining(&self, id: RunId) -> bool {
        self.leaving
            .iter()
            .any(|leaving| leaving.run.id == id && matches!(leaving.stage, LeavingStage::Draining { .. }))
    }

    fn save(&mut self, out: &mut Vec<Effect>) -> u64 {
        let seq = self.fresh();
        out.push(Effect::Save { seq });
        seq
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

fn is_rollback(reason: Reason) -> bool {
    matches!(reason, Reason::AutoRollback | Reason::ManualRollback)
}

#[cfg(test)]
mod tests;
