//! The release machine: what happens next, decided without clock, I/O or async.
//!
//! [`State::step`] takes one [`Event`] and returns the [`Effect`]s that the driver
//! ([`super::coordinator`]) has to carry out, in their order. Boot, deploy, switch, rollback, crash
//! and configuration edit all walk the same edges with another [`Reason`]. `event` lists what the
//! machine hears, `effect` what it wants done; the other files hold its edges by cause.
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
//! The property test asserts what holds after every step:
//! - there is at most one task;
//! - the route points only at a run that was ready;
//! - every run that was started is stopped exactly once, and never while it is live;
//! - a run is stopped only after the switch that retired it was written down, or the writing
//!   failed.
//!
//! Three orderings matter. `Spawn` waits for the end of the `Save` before it, so that a daemon that
//! dies in between finds its intent. `Route` comes before the `Save` of its outcome, because
//! traffic must not wait for a disk. `Stop` of the former run waits for the end of that `Save`.

mod boot;
mod effect;
mod event;
mod facts;
mod past;
mod requests;
mod standing;
mod way_back;

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::wire::{Phase, Reason};

pub use effect::{Abort, Effect, FormerTarget, Refusal, Tell, Timer};
pub use event::{Adopted, Boot, Event, Policy, Role};
pub use past::{Past, Served};
pub use standing::Hindrance;
pub use way_back::{WayBack, WayTo};

/// How often a candidate whose port was taken is started again on another port.
const PORT_TRIES: u32 = 3;

/// One tenure of a process, or of an unmanaged app, under portok.
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
    /// portok does not; it listens on this port of 127.0.0.1.
    Unmanaged {
        /// The port.
        port: u16,
    },
}

/// One run of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Its id, unique within this daemon's life.
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

/// The release that serves, or should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Live {
    /// No release ever became live.
    None,
    /// It serves.
    Up {
        /// The run that the route points at.
        run: Run,
    },
    /// It should serve, and no process of it is ready.
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
    /// Its process ended too often within `app.restart.within`.
    CrashLoop,
}

/// What is done about a live release that is down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DownStage {
    /// Nothing for now: a rollback is under way.
    AwaitingRollback,
    /// It is started when the delay is over.
    Waiting {
        /// Names the timer; a timer with another ticket is stale.
        ticket: u64,
    },
    /// A run of it is starting.
    Starting {
        /// The run.
        run: Run,
        /// How many ports were tried.
        tries: u32,
    },
    /// Nothing, until the next deploy or the end of the daemon.
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

impl Task {
    /// The refusal of another request meanwhile.
    pub fn busy(&self) -> Refusal {
        Refusal::Busy { release: self.release.id.clone(), reason: self.reason }
    }
}

/// How far a [`Task`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// The intent is being written down.
    Recording {
        /// The save that carries it.
        seq: u64,
        /// A run that still drains and may be made live again.
        revive: Option<RunId>,
    },
    /// It was started, or (unmanaged) is being probed, and is not ready yet.
    Starting {
        /// The candidate's run.
        run: Run,
        /// How many ports were tried.
        tries: u32,
    },
    /// A run that still drains is probed.
    Reviving {
        /// The run, still in [`State::leaving`].
        run: RunId,
    },
}

/// A run on its way out: traffic left it, or it never got any.
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
    /// It finishes its requests.
    Draining {
        /// The drain has ended.
        over: bool,
        /// The save that records the switch that retired it.
        seq: u64,
    },
    /// Its stop was ordered.
    Stopping,
}

/// The release to go back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// The release.
    pub release: ReleaseRef,
    /// Its run, where that still drains.
    pub run: Option<RunId>,
}

/// The watch window of the live release. It ends when traffic moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Names its timer; a timer with another ticket is stale.
    pub ticket: u64,
    /// Failed probes in a row.
    pub fails: u32,
    /// Whether a bad verdict brings a rollback. After an automatic rollback it does not: portok
    /// goes back once a deploy.
    pub goes_back: bool,
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
    /// What was live, and what of it is in quarantine.
    pub past: Past,
    /// The watch window, while open.
    pub window: Option<Window>,
    /// How often the live release was started again after a crash.
    pub restarts: u32,
    crashes: VecDeque<Duration>,
    /// Names the timer after which the last crash does not matter any more, while it runs.
    calm: Option<u64>,
    /// Probes of the live run that failed in a row.
    fails: u32,
    /// As many as `rollback.threshold` have failed.
    unhealthy: bool,
    stopping: Stopping,
    recorded: u64,
    next: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    /// Nothing new is begun, and requests finish.
    Announced,
    /// All groups are being stopped.
    Groups,
}

impl Default for State {
    fn default() -> Self {
        Self {
            live: Live::None,
            task: None,
            leaving: Vec::new(),
            past: Past::default(),
            window: None,
            restarts: 0,
            crashes: VecDeque::new(),
            calm: None,
            fails: 0,
            unhealthy: false,
            stopping: Stopping::No,
            recorded: 0,
            next: 0,
        }
    }
}

impl State {
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

    /// The release to go back to.
    pub fn previous(&self) -> Option<Previous> {
        let live = self.live_release().map(|release| release.id.as_str());
        let release = self.past.previous(live)?.clone();
        let run = self.draining_run_of(&release);
        Some(Previous { release, run })
    }

    /// The newest run of this release that still drains.
    fn draining_run_of(&self, release: &ReleaseRef) -> Option<RunId> {
        let drains = |leaving: &&Leaving| {
            leaving.run.release == *release && matches!(leaving.stage, LeavingStage::Draining { .. })
        };
        self.leaving.iter().rev().find(drains).map(|leaving| leaving.run.id)
    }

    /// The role to write down for a run. `signalled`: its stop signal has been delivered. A run
    /// whose stop was only ordered is recorded as `Candidate`; the next daemon signals it, possibly
    /// a second time.
    pub fn role(&self, id: RunId, signalled: bool) -> Role {
        match &self.live {
            Live::Up { run } if run.id == id => Role::Live,
            Live::Down { stage: DownStage::Starting { run, .. }, .. } if run.id == id => Role::Restoring,
            _ if signalled => Role::Stopping,
            _ if self.is_draining(id) => Role::Draining,
            _ => Role::Candidate,
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
}

impl State {
    /// Takes one event at the moment `now` (of any monotonic clock). Returns what is to be done.
    pub fn step(&mut self, event: Event, now: Duration, policy: &Policy) -> Vec<Effect> {
        let mut out = Vec::new();
        let was_up = self.live_run().map(|run| run.id);
        match event {
            Event::Boot(boot) => self.boot(boot, now, policy, &mut out),
            Event::Deploy { release, reason, force } => self.deploy(release, reason, force, &mut out),
            Event::Switch { release, port, reason } => self.switch(release, port, reason, &mut out),
            Event::Rollback { to, force } => match self.way_back(to.as_deref(), force, policy) {
                Ok(way) => self.go_back(way, Reason::ManualRollback, &mut out),
                Err(refusal) => out.push(Effect::Refuse(refusal)),
            },
            Event::Cancel if self.task.is_some() => self.abort(Abort::Cancelled, now, policy, &mut out),
            Event::Cancel => out.push(Effect::Refuse(Refusal::NothingUnderWay)),
            Event::Shutdown => self.shut_down(now, policy, &mut out),
            Event::StopAll => self.stop_all(&mut out),
            Event::KillAll => {
                out.extend(self.leaving.iter().map(|leaving| Effect::Kill { run: leaving.run.id }));
            }
            Event::Recorded { seq, ok } => self.saved(seq, ok, now, policy, &mut out),
            Event::Spawned { run, port } => self.spawned(run, port, &mut out),
            // It is written down, so that no later daemon signals it again.
            Event::Signalled { run } if self.runs().any(|known| known.id == run) => drop(self.save(&mut out)),
            Event::Signalled { .. } => {}
            Event::Ready { run } => self.ready(run, policy, &mut out),
            Event::NotReady { run } => self.not_ready(run, now, policy, &mut out),
            Event::Exited { run, port_taken } => self.exited(run, port_taken, now, policy, &mut out),
            Event::Gone { run } => self.gone(run, &mut out),
            Event::LiveProbed { run, healthy } => {
                self.note_probe(run, healthy, policy, &mut out);
                self.probed(run, healthy, policy, &mut out);
            }
            Event::DrainOver { run, seq } => self.drain_over(run, seq, &mut out),
            Event::WindowOver { ticket } => {
                if self.window.is_some_and(|window| window.ticket == ticket) {
                    self.settle();
                    out.push(Effect::Tell(Tell::Settled));
                }
            }
            Event::RestartDue { ticket } => self.restart_due(ticket, &mut out),
            Event::Calm { ticket } => self.calmed(ticket, &mut out),
        }
        self.note_who_serves(was_up, now, policy, &mut out);
        self.stop_what_has_drained(policy, &mut out);
        if self.stopping == Stopping::Groups && self.runs().next().is_none() {
            out.push(Effect::Finished);
        }
        out
    }

    // ---- edges shared by several causes ----

    /// The live release has no process: decides when the next one is started.
    fn crashed(&mut self, now: Duration, policy: &Policy, out: &mut Vec<Effect>) {
        let restart = &policy.restart;
        self.crashes.push_back(now);
        while self.crashes.front().is_some_and(|first| now.saturating_sub(*first) > restart.within) {
            self.crashes.pop_front();
        }
        let count = u32::try_from(self.crashes.len()).unwrap_or(u32::MAX);
        // A crash loop ends with a deploy only: its rare tries would look like single crashes
        // otherwise.
        let was_looping = matches!(self.live, Live::Down { cause: DownCause::CrashLoop, .. });
        let looping = was_looping || count >= restart.burst;
        // Only as many crashes are remembered as can matter.
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
        let loops_now = looping && !was_looping;
        out.push(Effect::Tell(Tell::Crashed { release: release.clone(), delay, loops_now }));
        out.extend(delay.map(|delay| Effect::Timer(Timer::Restart(ticket, delay))));
        // The next daemon counts on from the record.
        self.save(out);
    }

    /// Gives the task up and brings back what is down. Traffic stays where it is.
    fn abort(&mut self, why: Abort, now: Duration, policy: &Policy, out: &mut Vec<Effect>) {
        self.give_up(why, out);
        let waits = matches!(self.live, Live::Down { stage: DownStage::AwaitingRollback, .. });
        if waits && self.stopping == Stopping::No {
            self.crashed(now, policy, out);
        }
    }

    /// Gives the task up.
    fn give_up(&mut self, why: Abort, out: &mut Vec<Effect>) {
        let Some(Task { release, reason, stage }) = self.task.take() else { return };
        let run = match stage {
            Stage::Recording { .. } => None,
            Stage::Reviving { run } => Some(run),
            Stage::Starting { run, .. } => {
                let id = run.id;
                self.retire_run(run, out);
                Some(id)
            }
        };
        out.push(Effect::Tell(Tell::Aborted { release, reason, run, why }));
        if why != Abort::Unrecorded {
            self.save(out);
        }
    }

    /// The live release has proven itself: its window and its quarantine end.
    fn settle(&mut self) {
        self.window = None;
        if let Some(id) = self.live_release().map(|release| release.id.clone()) {
            self.past.absolve(&id);
        }
    }

    /// Stops a run that gets no traffic any more. An unmanaged one is forgotten instead.
    fn retire_run(&mut self, run: Run, out: &mut Vec<Effect>) {
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
        let standby = policy.standby && self.window.is_some() && self.stopping != Stopping::Groups;
        let recorded = self.recorded;
        let previous = self.previous().and_then(|previous| previous.run);
        let (stop, stay) = std::mem::take(&mut self.leaving).into_iter().partition(|leaving| {
            matches!(leaving.stage, LeavingStage::Draining { over: true, seq } if seq <= recorded)
                && reviving != Some(leaving.run.id)
                && !(standby && previous == Some(leaving.run.id))
        });
        self.leaving = stay;
        for Leaving { run, .. } in stop {
            self.retire_run(run, out);
        }
    }

    /// Starts a run of the live release. An unmanaged one is probed until it is healthy.
    fn start(&mut self, release: &ReleaseRef, out: &mut Vec<Effect>) -> Run {
        self.begin(release, true, out)
    }

    /// Starts a candidate. An unmanaged one is probed until the first bad answer.
    fn start_candidate(&mut self, release: &ReleaseRef, out: &mut Vec<Effect>) -> Run {
        self.begin(release, false, out)
    }

    fn begin(&mut self, release: &ReleaseRef, patient: bool, out: &mut Vec<Effect>) -> Run {
        let id = RunId(self.fresh());
        let port = match release.origin {
            Origin::Managed => {
                out.push(Effect::Spawn { run: id, release: release.id.clone() });
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

    /// A number that nothing else of this machine has.
    pub(super) fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

#[cfg(test)]
mod tests;
