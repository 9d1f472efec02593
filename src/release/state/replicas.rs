//! The set machine: the replicas of one release in one tenure.
//!
//! A [`ReplicaSet`] has a place for each replica. One run after another fills a place. The set
//! decides on which port a start is tried again, and when a place is filled again after a crash. It
//! knows nothing of live, candidate or previous: the release machine ([`super::State`]) tells it
//! what to do, and learns by [`Said`] what became of a run.
//!
//! ```text
//!                   port taken                     Exited
//!                    ⟲ (thrice)       Ready       (lose)
//! begin, grow ──▶ Starting ───────────────▶ Ready ──────▶ Undecided ─a rollback began─▶ (waits)
//!                     ▲ │ NotReady, Exited    │              ▲ │
//!                     │ └────────────(Failed)─┼──────────────┘ │ crashed
//!                     └───────delay over──────┼─ Waiting ◀─────┘──── or GivenUp
//!                                             └─ shrink ──▶ (a set of its own: drains, is stopped)
//! ```
//!
//! A place that is not ready is taken away at once, and its run is stopped. A set without a place is
//! idle: it has no run until it grows.
//!
//! A run that left its place is in `stopping` until nothing is left of it. [`Places`] has the
//! places themselves, and which of them get requests. `ordered` has what the set is told to do.
//!
//! A set that gives its runs away, because another release takes its place, is empty until there is
//! room: then it is filled up, or takes back what it gave.

mod ordered;

use std::collections::VecDeque;
use std::time::Duration;

use super::growth::Growth;
use super::places::{Filling, Places};
use super::round::Round;
use super::{Companion, DownCause, Effect, Origin, ProcessName, ReleaseRef, Run, RunId, SetId, Tell, Timer};

/// How often a start whose port was taken is tried again on another port.
const PORT_TRIES: u32 = 3;

/// The replicas of one release in one tenure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaSet {
    id: SetId,
    release: ReleaseRef,
    /// Which companion of the release its runs are; `None`: the app itself.
    process: Option<ProcessName>,
    places: Places,
    /// Runs whose stop was ordered and of which something may be left.
    stopping: Vec<Run>,
    /// Why those of its places that are not ready are not.
    cause: DownCause,
    /// When a run of it crashed lately, oldest first.
    crashes: VecDeque<Duration>,
    /// Failed probes in a row that an earlier daemon counted: those of the run that is ready next.
    inherited_fails: u32,
    /// In a box, as most sets have nothing there.
    growth: Box<Growth>,
}

/// What an end means for the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// The run had no place, or its start is tried again.
    Nothing,
    /// It had not become ready; its place is empty and undecided.
    Failed,
}

/// A run has become ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Came {
    /// It was started because another one had crashed.
    pub(super) again: bool,
}

/// How far the return of a set is that serves no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Return {
    /// A run of it starts.
    Starting,
    /// A run is started after a delay.
    Waiting,
    /// Nothing is done for it.
    None,
}

// ---- how a set begins ----

impl ReplicaSet {
    fn with(places: Places, release: ReleaseRef, round: &mut Round<'_>) -> Self {
        Self {
            id: SetId(round.fresh()),
            release,
            process: None,
            places,
            stopping: Vec::new(),
            cause: DownCause::Boot,
            crashes: VecDeque::new(),
            inherited_fails: 0,
            growth: Box::default(),
        }
    }

    /// A set of no replicas.
    pub(super) fn vacant(release: ReleaseRef, round: &mut Round<'_>) -> Self {
        Self::with(Places::default(), release, round)
    }

    /// A set of so many replicas, which start. An unmanaged one is probed until the first bad
    /// answer.
    pub(super) fn start(release: ReleaseRef, count: u16, round: &mut Round<'_>) -> Self {
        let mut set = Self::vacant(release, round);
        set.places.widen(count);
        set.fill_up(false, round);
        set
    }

    /// The set of a companion, whose places are empty for now.
    pub(super) fn of_companion(release: ReleaseRef, companion: &Companion, round: &mut Round<'_>) -> Self {
        let mut set = Self { process: Some(companion.process.clone()), ..Self::vacant(release, round) };
        set.places.widen(companion.replicas);
        set
    }

    /// The set of a run that an earlier daemon started and that is or was ready.
    pub(super) fn of_ready(run: Run, replica: u16, round: &mut Round<'_>) -> Self {
        let (release, process) = (run.release.clone(), run.process.clone());
        let mut set = Self { process, ..Self::vacant(release, round) };
        set.take_in_ready(run, replica);
        set
    }

    /// The set of a run that is being stopped.
    pub(super) fn of_stopping(run: Run, round: &mut Round<'_>) -> Self {
        let (release, process) = (run.release.clone(), run.process.clone());
        Self { process, stopping: vec![run], ..Self::vacant(release, round) }
    }

    /// Takes up when runs of the release crashed lately, oldest first, and how many probes of the
    /// run that is ready next had failed in a row.
    pub(super) fn resume(&mut self, crashes: Vec<Duration>, fails: u32) {
        self.crashes = crashes.into();
        self.inherited_fails = fails;
    }

    /// Takes the place of `former`, a set of the same release in the same tenure.
    pub(super) fn succeed(&mut self, former: &mut Self) {
        self.crashes = std::mem::take(&mut former.crashes);
        self.cause = former.cause;
    }

    /// A new tenure begins: its crashes are forgotten, its probes are counted anew.
    pub(super) fn begin_tenure(&mut self) {
        self.crashes.clear();
        self.inherited_fails = 0;
        self.places.forget_probes();
        self.places.forget_restarts();
    }

    /// Whether a run of an earlier daemon may fill this place.
    pub(super) fn accepts(&self, replica: u16) -> bool {
        self.places.accepts(replica)
    }

    /// Puts a ready run of an earlier daemon into its place.
    pub(super) fn take_in_ready(&mut self, run: Run, replica: u16) {
        let fails = std::mem::take(&mut self.inherited_fails);
        self.places.take_in(replica, Filling::Ready { run, fails, watched: 0 });
    }

    /// The same for a run that is not ready yet.
    pub(super) fn take_in_starting(&mut self, run: Run, replica: u16) {
        self.places.take_in(replica, Filling::Starting { run, tries: 1, again: false });
    }
}

// ---- what others see of it ----

impl ReplicaSet {
    pub(super) fn id(&self) -> SetId {
        self.id
    }

    pub(super) fn release(&self) -> &ReleaseRef {
        &self.release
    }

    /// Which companion of the release it is; `None`: the app itself.
    pub(super) fn process(&self) -> Option<&ProcessName> {
        self.process.as_ref()
    }

    pub(super) fn is_companion(&self) -> bool {
        self.process.is_some()
    }

    pub(super) fn managed(&self) -> bool {
        self.release.origin == Origin::Managed
    }

    /// The places, and which of them get requests.
    pub(super) fn places(&self) -> &Places {
        &self.places
    }

    pub(super) fn places_mut(&mut self) -> &mut Places {
        &mut self.places
    }

    /// The runs that may get requests, in the order of their numbers.
    pub(super) fn ready_runs(&self) -> impl Iterator<Item = &Run> {
        self.places.ready()
    }

    /// The runs that are not ready yet.
    pub(super) fn starting_runs(&self) -> impl Iterator<Item = &Run> {
        self.places.starting()
    }

    /// The runs whose stop was ordered and of which something may be left.
    pub(super) fn stopping_runs(&self) -> impl Iterator<Item = &Run> {
        self.stopping.iter()
    }

    /// Every run that is not forgotten.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.places.runs().chain(&self.stopping)
    }

    /// Whether a run of it may get requests.
    pub(super) fn serves(&self) -> bool {
        self.ready_runs().next().is_some()
    }

    /// Whether it is to have no replica before a request comes.
    pub(super) fn is_idle(&self) -> bool {
        self.places.len() == 0
    }

    pub(super) fn growth_mut(&mut self) -> &mut Growth {
        &mut self.growth
    }

    /// Whether this run of it may get requests.
    pub(super) fn is_ready(&self, id: RunId) -> bool {
        self.ready_runs().any(|run| run.id == id)
    }

    /// Whether this run of it is not ready yet.
    pub(super) fn is_starting(&self, id: RunId) -> bool {
        self.starting_runs().any(|run| run.id == id)
    }

    /// Whether a switch to the ports that `release` stands for means this set: they are its own, or
    /// one port is that of one of its processes.
    pub(super) fn is_meant_by(&self, release: &ReleaseRef) -> bool {
        let on = |port: u16| self.ready_runs().any(|run| run.port == Some(port));
        match &release.origin.ports()[..] {
            [port] if self.managed() => on(*port),
            _ => self.release == *release,
        }
    }

    /// Why those of its places that are not ready are not.
    pub(super) fn cause(&self) -> DownCause {
        self.cause
    }

    /// When runs of it crashed lately, oldest first.
    pub(super) fn crashes(&self) -> impl DoubleEndedIterator<Item = Duration> {
        self.crashes.iter().copied()
    }

    /// Failed probes in a row: the most that one of its runs has.
    pub(super) fn failed_probes(&self) -> u32 {
        self.places.most_fails().unwrap_or(self.inherited_fails)
    }

    /// How far its return is, where it serves no request.
    pub(super) fn comes_back(&self) -> Return {
        if self.starting_runs().next().is_some() {
            Return::Starting
        } else if self.places.waits() {
            Return::Waiting
        } else {
            Return::None
        }
    }
}

// ---- what becomes of its runs ----

impl ReplicaSet {
    /// The run of this id that is not forgotten.
    pub(super) fn run_mut(&mut self, id: RunId) -> Option<&mut Run> {
        self.places.runs_mut().chain(&mut self.stopping).find(|run| run.id == id)
    }

    /// A run of it is ready. `None` where it was not waited for.
    pub(super) fn ready(&mut self, id: RunId) -> Option<Came> {
        let place = self.places.of(id)?;
        let Filling::Starting { run, again, .. } = &place.filling else { return None };
        let (run, again) = (run.clone(), *again);
        let fails = std::mem::take(&mut self.inherited_fails);
        place.filling = Filling::Ready { run, fails, watched: 0 };
        // A crash loop ends here; later crashes may be another. That a companion runs proves little:
        // its loop ends when it has run for a while.
        let looped = self.cause == DownCause::CrashLoop;
        let is_back = if looped { !self.is_companion() } else { self.places.are_complete() };
        if is_back {
            self.cause = DownCause::Crash;
        }
        Some(Came { again })
    }

    /// A run of it could not be started, or was not ready in time.
    pub(super) fn not_ready(&mut self, id: RunId, round: &mut Round<'_>) -> Said {
        if !self.is_starting(id) {
            return Said::Nothing;
        }
        self.vacate(id, Filling::Undecided, round);
        Said::Failed
    }

    /// The process of a run that was not ready yet has ended. `alone`: no two may run at a time.
    pub(super) fn exited(&mut self, id: RunId, port_taken: bool, alone: bool, round: &mut Round<'_>) -> Said {
        let Some(place) = self.places.of(id) else { return Said::Nothing };
        let Filling::Starting { tries, again, .. } = place.filling else { return Said::Nothing };
        let replica = place.replica;
        if !port_taken || tries >= PORT_TRIES {
            return self.not_ready(id, round);
        }
        round.push(Effect::Tell(Tell::PortTaken { run: id }));
        let run = self.begin_after(alone.then_some(id), replica, true, round);
        self.vacate(id, Filling::Starting { run, tries: tries + 1, again }, round);
        Said::Nothing
    }

    /// The process of a ready run has ended: empties its place. What is left of the run has to be
    /// [stopped](Self::stop_lost) once requests are pointed elsewhere.
    pub(super) fn lose(&mut self, id: RunId) -> Option<Run> {
        let run = self.places.empty_place(id, Filling::Undecided)?;
        let on_trial = self.is_companion() && self.cause == DownCause::CrashLoop;
        if self.cause == DownCause::Boot || !self.serves() && !on_trial {
            self.cause = DownCause::Crash;
        }
        if !self.serves() {
            self.growth.begin_anew();
        }
        Some(run)
    }

    /// Stops what is left of a run that has ended.
    pub(super) fn stop_lost(&mut self, run: Run, round: &mut Round<'_>) {
        round.push(Effect::Close { run: run.id });
        self.stop_run(run, round);
    }

    /// Counts each empty place whose fate is open as a crash: decides when it is filled again.
    pub(super) fn crashed(&mut self, round: &mut Round<'_>) {
        while let Some(at) = self.places.position(|filling| *filling == Filling::Undecided) {
            let filling = self.after_crash(round);
            self.places.at(at).filling = filling;
        }
    }

    fn after_crash(&mut self, round: &mut Round<'_>) -> Filling {
        let restart = &round.policy.restart;
        let now = round.now;
        self.crashes.push_back(now);
        while self.crashes.front().is_some_and(|first| now.saturating_sub(*first) > restart.within) {
            self.crashes.pop_front();
        }
        let count = u32::try_from(self.crashes.len()).unwrap_or(u32::MAX);
        // Each replica may crash as often as a single one.
        let burst = restart.burst.saturating_mul(u32::from(self.places.len()));
        // A crash loop ends with a run that becomes ready or with a deploy: its rare tries would
        // look like single crashes otherwise.
        let was_looping = self.cause == DownCause::CrashLoop;
        let looping = was_looping || count >= burst;
        if matches!(self.cause, DownCause::Boot | DownCause::Replaced) {
            self.cause = DownCause::Crash;
        }
        // Only as many crashes are remembered as can matter.
        while self.crashes.len() > burst.max(1) as usize {
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
        if looping {
            self.cause = DownCause::CrashLoop;
        }
        let (release, loops_now) = (self.release.clone(), looping && !was_looping);
        round.push(Effect::Tell(match self.process.clone() {
            Some(process) => Tell::CompanionCrashed { release, process, delay, loops_now },
            None => Tell::Crashed { release, delay, loops_now },
        }));
        let Some(delay) = delay else { return Filling::GivenUp };
        let ticket = round.fresh();
        round.push(Effect::Timer(Timer::Restart(ticket, delay)));
        Filling::Waiting { ticket }
    }

    /// It has run well for a while: later crashes are counted anew.
    pub(super) fn end_loop(&mut self) {
        if self.cause == DownCause::CrashLoop {
            self.cause = DownCause::Crash;
        }
    }

    /// The delay of a place is over. Whether a run is started in it again after a crash.
    pub(super) fn restart_due(&mut self, ticket: u64, round: &mut Round<'_>) -> bool {
        let waits =
            |filling: &Filling| matches!(filling, Filling::Waiting { ticket: waited } if *waited == ticket);
        let Some(at) = self.places.position(waits) else { return false };
        let again = self.cause != DownCause::Boot;
        let replica = self.places.at(at).replica;
        let run = self.begin(replica, true, round);
        let place = self.places.at(at);
        place.filling = Filling::Starting { run, tries: 1, again };
        place.restarts = place.restarts.saturating_add(u32::from(again));
        again
    }

    /// Nothing is left of a run. False where its stop was not ordered.
    pub(super) fn gone(&mut self, id: RunId) -> bool {
        let before = self.stopping.len();
        self.stopping.retain(|run| run.id != id);
        self.stopping.len() < before
    }
}
