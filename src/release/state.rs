//! The release machine: what happens next, decided without clock, I/O or async.
//!
//! [`State::step`] takes one [`Event`] and returns the [`Effect`]s that the driver
//! ([`super::coordinator`]) has to carry out, in their order. Boot, deploy, switch, rollback, crash
//! and configuration edit all walk the same edges with another [`Reason`].
//!
//! Two machines make one step. The release machine (here) decides which release is live. It thinks
//! in sets: a [`ReplicaSet`] is the second machine, which keeps the runs of one release in one
//! tenure. The release machine owns the sets, each where it is needed: in [`Live`], in the [`Task`]
//! under way, on its way out ([`Leaving`]), or beside the app ([`Companions`]).
//!
//! ```text
//!              Deploy / Switch / Rollback                    all ready
//!   (no task) ────────────────────────────▶ task: Recording ─▶ Starting ─────▶ live ──window──▶ settled
//!                                             │ not written     │ one failed     (its set restarts what
//!                                             ▼                 ▼                 crashes, replaces what grew
//!                                          refused           aborted              too large, grows and
//!                                                                                 shrinks, down to idle)
//!
//!   A deploy may have more stages, each given up like Starting; after Vacating the former release
//!   is started again:
//!   Recording ─▶ Before ─▶ Vacating ─▶ Accompanying ─▶ Starting ─▶ Verifying ─▶ live
//!
//!   what live replaces, and what a set gives up that shrinks:
//!   leaving: Draining ──drain over, outcome recorded──▶ Stopping ──Gone──▶ forgotten
//! ```
//!
//! The files:
//! - `names`: releases, sets, runs. `event`: what the machine hears. `effect`: what it wants done.
//! - `round`: what every edge of a step gets.
//! - `replicas`: the set machine. `places`: those of a set, and which of them get requests.
//! - The edges of the release machine by cause: `boot`, `requests`, `way_back` (rollbacks), `task`
//!   (what is under way, from its record to its end), `steps` (what runs around a deploy),
//!   `recreate` (the live release is stopped first), `runs` (what is reported of a run), `serving`
//!   (who gets requests, and how many replicas there are), `growth` (how their number follows the
//!   load, down to none), `recycling` (one that has grown too large is replaced), `leaving` (sets on
//!   their way out).
//! - `companions`: the processes of a release that get no requests.
//! - `past`: what was live, and what is in quarantine. `standing`: the phase. `members`: the places
//!   and runs as others see them.
//!
//! The property test asserts what holds after every step:
//! - there is at most one task;
//! - requests go only to runs of one set that were ready and have not ended;
//! - every run that was started is stopped exactly once, and never while it is live;
//! - a run is stopped only after the switch that retired it was written down, or the writing
//!   failed;
//! - a companion that does not start before the candidate starts only when its release is live on
//!   disk, and when nothing is left of such companions of others;
//! - no two releases run at a time where each deploy is a `recreate`.
//!
//! Three orderings matter. `Spawn` waits for the end of the `Save` before it, so that a daemon that
//! dies in between finds its intent. `Serve` comes before the `Save` of its outcome, because
//! traffic must not wait for a disk. `Stop` of the former run waits for the end of that `Save`.

mod boot;
mod companions;
mod effect;
mod event;
mod growth;
mod leaving;
mod members;
mod names;
mod past;
mod places;
mod recreate;
mod recycling;
mod replicas;
mod requests;
mod round;
mod runs;
mod serving;
mod standing;
mod steps;
mod task;
mod way_back;

use std::time::Duration;

use crate::config::HoldOn;
use crate::wire::{Phase, Reason};

pub use effect::{Abort, Effect, FormerTarget, Refusal, Tell, Timer};
pub use event::{Adopted, Boot, Event, Policy, Role};
pub use growth::Load;
pub use leaving::{Leaving, LeavingStage};
pub use members::Member;
pub use names::{Companion, Origin, ProcessName, ReleaseRef, Run, RunId, SetId};
pub use past::{Past, Served};
pub use replicas::ReplicaSet;
pub use standing::Hindrance;
pub use steps::DeployStep;
pub use task::{Plan, Stage, Task};
pub use way_back::{WayBack, WayTo};

use companions::Companions;
use recycling::Recycling;
use round::{Ids, Round};

/// The release that serves, or should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Live {
    /// No release ever became live.
    None,
    /// A set of it serves, or is to be brought up.
    Set(ReplicaSet),
}

impl Live {
    fn set(&self) -> Option<&ReplicaSet> {
        match self {
            Self::None => None,
            Self::Set(set) => Some(set),
        }
    }

    fn set_mut(&mut self) -> Option<&mut ReplicaSet> {
        match self {
            Self::None => None,
            Self::Set(set) => Some(set),
        }
    }
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
    /// Another release takes its place, or was to, and nothing may run beside that.
    Replaced,
}

/// The release to go back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// The release.
    pub release: ReleaseRef,
    /// Its set, where that still drains.
    pub set: Option<SetId>,
}

/// The watch window of the live release. It ends when traffic moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Names its timer; a timer with another ticket is stale.
    pub ticket: u64,
    /// Whether a bad verdict brings a rollback. After an automatic rollback it does not: portok
    /// goes back once a deploy.
    pub goes_back: bool,
    /// Its time was over while the release did not serve: it begins anew when that serves again.
    pub waits: bool,
}

/// All that the machine knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What serves, or should.
    pub live: Live,
    /// What is under way.
    pub task: Option<Task>,
    /// Sets on their way out.
    leaving: Vec<Leaving>,
    companions: Companions,
    /// What was live, and what of it is in quarantine.
    pub past: Past,
    /// The watch window, while open.
    pub window: Option<Window>,
    /// How often the live release was started again after a crash.
    pub restarts: u32,
    /// Names the timer after which the last crash does not matter any more, while it runs.
    calm: Option<u64>,
    /// So many of the live runs have failed `health.failures` probes in a row that all of them
    /// get requests.
    unhealthy: bool,
    /// The runs that requests go to.
    served: Vec<RunId>,
    /// Replicas of the live release are missing since the boot, and are started once the leftovers
    /// are gone.
    lacks_since_boot: bool,
    recycling: Recycling,
    /// The live release replaced the one before it before it was started.
    pub recreated: bool,
    stopping: Stopping,
    recorded: u64,
    ids: Ids,
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
            companions: Companions::default(),
            past: Past::default(),
            window: None,
            restarts: 0,
            calm: None,
            unhealthy: false,
            served: Vec::new(),
            lacks_since_boot: false,
            recycling: Recycling::default(),
            recreated: false,
            stopping: Stopping::No,
            recorded: 0,
            ids: Ids::default(),
        }
    }
}

impl State {
    /// The release that serves or should.
    pub fn live_release(&self) -> Option<&ReleaseRef> {
        self.live.set().map(ReplicaSet::release)
    }

    /// A run that serves: of several the one of the lowest number.
    pub fn live_run(&self) -> Option<&Run> {
        self.live.set()?.ready_runs().next()
    }

    /// The runs of the live release that are ready, in the order of their numbers.
    pub fn live_runs(&self) -> Vec<RunId> {
        self.live.set().into_iter().flat_map(ReplicaSet::ready_runs).map(|run| run.id).collect()
    }

    /// How many runs of the live release get requests: those that are ready and not out for failed
    /// probes.
    pub fn in_use(&self) -> usize {
        self.live_runs().iter().filter(|run| self.served.contains(run)).count()
    }

    /// Whether this run is to bring the live release back, or is to join it.
    pub fn restores(&self, id: RunId) -> bool {
        self.live.set().is_some_and(|live| live.is_starting(id))
    }

    /// The run of the live release that has the lowest number, ready or not.
    pub fn first_run(&self) -> Option<&Run> {
        self.live.set()?.places().runs().next()
    }

    /// Whether this run was started for the task under way.
    pub fn is_candidate(&self, id: RunId) -> bool {
        let in_set = self.candidate().is_some_and(|set| set.is_starting(id) || set.is_ready(id));
        in_set || self.step_of(id).is_some()
    }

    /// Whether this run is a companion that runs before the release of the task is live.
    pub fn is_ahead(&self, id: RunId) -> bool {
        self.companions.ahead().any(|run| run.id == id)
    }

    /// The run of the lowest number that was started for the task under way.
    pub fn candidate_run(&self) -> Option<&Run> {
        self.candidate()?.places().runs().next()
    }

    /// The set of a run, and its number there.
    pub fn place_of(&self, id: RunId) -> Option<(SetId, u16)> {
        self.sets().find_map(|set| Some((set.id(), set.places().number_of(id)?)))
    }

    /// What the record says of the place of a run: its set, 0 for a set of its own, and its number
    /// there.
    pub fn stored_place(&self, id: RunId) -> (u64, u16) {
        let place = |set: &ReplicaSet| {
            let replica = set.places().number_of(id)?;
            Some((if set.places().len() > 1 { set.id().0 } else { 0 }, replica))
        };
        self.sets().find_map(place).unwrap_or_default()
    }

    /// Whether this set is not forgotten.
    pub fn has_set(&self, set: SetId) -> bool {
        self.sets().any(|known| known.id() == set)
    }

    /// The ready runs of this set, in the order of their numbers.
    pub fn ready_runs_of(&self, set: SetId) -> Vec<RunId> {
        let set = self.sets().find(|known| known.id() == set);
        set.into_iter().flat_map(ReplicaSet::ready_runs).map(|run| run.id).collect()
    }

    /// Every run of this set that is not forgotten.
    pub fn runs_of(&self, set: SetId) -> Vec<RunId> {
        let set = self.sets().find(|known| known.id() == set);
        set.into_iter().flat_map(ReplicaSet::runs).map(|run| run.id).collect()
    }

    /// The set that was started for the task under way.
    fn candidate(&self) -> Option<&ReplicaSet> {
        self.task.as_ref()?.stage.candidate()
    }

    /// The run that the task under way may make live again.
    pub fn revived_run(&self) -> Option<&Run> {
        let set = self.task.as_ref()?.stage.revives()?;
        self.drains(set)?.ready_runs().next()
    }

    /// The release to go back to.
    pub fn previous(&self) -> Option<Previous> {
        let live = self.live_release().map(|release| release.id.as_str());
        let release = self.past.previous(live)?.clone();
        let set = self.draining_set_of(&release);
        Some(Previous { release, set })
    }

    /// The run of the release to go back to, where that still drains.
    pub fn previous_run(&self) -> Option<&Run> {
        self.drains(self.previous()?.set?)?.ready_runs().next()
    }

    /// The role to write down for a run. `signalled`: its stop signal has been delivered. A run
    /// whose stop was only ordered is recorded as `Candidate`; the next daemon signals it, possibly
    /// a second time.
    pub fn role(&self, id: RunId, signalled: bool) -> Role {
        match self.live.set() {
            Some(live) if live.is_ready(id) => Role::Live,
            Some(live) if live.is_starting(id) => Role::Restoring,
            _ if signalled => Role::Stopping,
            // It goes on as the live release, should this daemon end now.
            _ if self.may_be_taken_back(id) => Role::Live,
            _ if self.is_draining(id) => Role::Draining,
            _ => Role::Candidate,
        }
    }

    /// Every run that is not forgotten.
    pub fn runs(&self) -> impl Iterator<Item = &Run> {
        let step = self.task.as_ref().and_then(|task| task.stage.step()).map(|(_, run)| run);
        self.sets().flat_map(ReplicaSet::runs).chain(step)
    }

    fn sets(&self) -> impl Iterator<Item = &ReplicaSet> {
        let leaving = self.leaving.iter().map(|leaving| &leaving.set);
        self.live.set().into_iter().chain(self.candidate()).chain(leaving).chain(self.companions.sets())
    }

    /// A number that nothing else of this machine has.
    pub(super) fn fresh(&mut self) -> u64 {
        self.ids.fresh()
    }
}

impl State {
    /// Takes one event at the moment `now` (of any monotonic clock). Returns what is to be done.
    pub fn step(&mut self, event: Event, now: Duration, policy: &Policy) -> Vec<Effect> {
        let mut round = Round { now, policy, ids: self.ids, out: Vec::new() };
        let was_up = self.live_runs();
        self.take(event, &mut round);
        self.note_who_serves(&was_up, &mut round);
        self.recycle(&mut round);
        self.adjust(&mut round);
        self.serve(None, &mut round);
        self.stop_what_has_drained(&mut round);
        self.start_in_the_room(&mut round);
        self.watch_again(&mut round);
        self.see_to_companions(&mut round);
        self.forget_the_gone();
        if self.stopping == Stopping::Groups && self.runs().next().is_none() {
            round.push(Effect::Finished);
        }
        self.ids = round.ids;
        round.out
    }

    fn take(&mut self, event: Event, round: &mut Round<'_>) {
        match event {
            Event::Boot(boot) => self.boot(boot, round),
            Event::Deploy { release, reason, force, plan } => {
                self.deploy(release, reason, force, plan, round);
            }
            Event::Switch { release, reason } => self.switch(release, reason, round),
            Event::Rollback { to, force } => match self.way_back(to.as_deref(), force, round.policy) {
                Ok(way) => self.go_back(way, Reason::ManualRollback, round),
                Err(refusal) => round.push(Effect::Refuse(refusal)),
            },
            Event::Cancel if self.task.is_some() => self.abort(Abort::Cancelled, None, round),
            Event::Cancel => round.push(Effect::Refuse(Refusal::NothingUnderWay)),
            Event::Shutdown => self.shut_down(round),
            Event::StopAll => self.stop_all(round),
            Event::KillAll => self.kill_all(round),
            Event::Recorded { seq, ok } => self.saved(seq, ok, round),
            Event::Spawned { run, port } => self.spawned(run, port, round),
            Event::StepStarted { run } => self.step_started(run, round),
            Event::StepEnded { run, done } => self.step_ended(run, done, round),
            // It is written down, so that no later daemon signals it again.
            Event::Signalled { run } if self.runs().any(|known| known.id == run) => drop(round.save()),
            Event::Signalled { .. } => {}
            Event::Ready { run } => self.ready(run, round),
            Event::NotReady { run } => self.not_ready(run, round),
            Event::Exited { run, port_taken } => self.exited(run, port_taken, round),
            Event::Gone { run } => self.gone(run, round),
            Event::LiveProbed { run, healthy } => self.probed(run, healthy, round),
            Event::Memory { run, bytes } => self.weighed(run, bytes, round),
            Event::DrainOver { set, seq } => self.drain_over(set, seq, round),
            Event::WindowOver { ticket } => self.window_over(ticket, round),
            Event::RestartDue { ticket } => self.restart_due(ticket, round),
            Event::LeftoversGone => self.start_what_lacks(round),
            // What they change is looked at after each step.
            Event::Settings => {}
            Event::Load { set, load } => self.loaded(set, load, round),
            Event::Wake => self.wake(round),
            Event::Calm { ticket } => self.calmed(ticket, round),
        }
    }
}

#[cfg(test)]
mod tests;
