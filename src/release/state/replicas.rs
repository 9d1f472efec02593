//! The set machine: the replicas of one release in one tenure.
//!
//! A [`ReplicaSet`] has a place for each replica. One run after another fills a place. The set
//! decides on which port a start is tried again, and when a place is filled again after a crash. It
//! knows nothing of live, candidate or previous: the release machine ([`super::State`]) tells it
//! what to do, and learns by [`Said`] what became of a run.
//!
//! ```text
//!              port taken                     Exited
//!               ⟲ (thrice)       Ready       (Lost)
//!   start ──▶ Starting ───────────────▶ Ready ──────▶ Undecided ──a rollback began──▶ (waits for it)
//!                 ▲ │ NotReady, Exited                   ▲ │
//!                 │ └────────────(Failed)────────────────┘ │ crashed
//!                 └───────delay over────── Waiting ◀───────┘──── or GivenUp
//! ```
//!
//! A run that left its place is in `stopping` until nothing is left of it.

use std::collections::VecDeque;
use std::time::Duration;

use super::round::Round;
use super::{DownCause, Effect, Origin, ReleaseRef, Run, RunId, SetId, Tell, Timer};

/// How often a start whose port was taken is tried again on another port.
const PORT_TRIES: u32 = 3;

/// The replicas of one release in one tenure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaSet {
    id: SetId,
    release: ReleaseRef,
    places: Vec<Place>,
    /// Runs whose stop was ordered and of which something may be left.
    stopping: Vec<Run>,
    /// Why those of its places that are not ready are not.
    cause: DownCause,
    /// When a run of it crashed lately, oldest first.
    crashes: VecDeque<Duration>,
}

/// A place of a set, and what fills it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// A run that is not ready yet.
    Starting {
        run: Run,
        /// How many ports were tried.
        tries: u32,
    },
    /// A run that is or was ready, and has not ended.
    Ready { run: Run },
    /// Nothing; its run has ended, and what is done about it depends on what the release does.
    Undecided,
    /// Nothing, until the delay is over.
    Waiting {
        /// Names the timer; a timer with another ticket is stale.
        ticket: u64,
    },
    /// Nothing, for good.
    GivenUp,
}

impl Place {
    fn run(&self) -> Option<&Run> {
        match self {
            Self::Starting { run, .. } | Self::Ready { run } => Some(run),
            Self::Undecided | Self::Waiting { .. } | Self::GivenUp => None,
        }
    }
}

/// What an end means for the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// The run had no place, or its start is tried again.
    Nothing,
    /// It had not become ready; its place is empty and undecided.
    Failed,
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
    /// A set whose place is empty for now.
    pub(super) fn vacant(release: ReleaseRef, round: &mut Round<'_>) -> Self {
        let id = SetId(round.fresh());
        let (stopping, crashes) = (Vec::new(), VecDeque::new());
        Self { id, release, places: vec![Place::GivenUp], stopping, cause: DownCause::Boot, crashes }
    }

    /// A set whose run starts. An unmanaged one is probed until the first bad answer.
    pub(super) fn start(release: ReleaseRef, round: &mut Round<'_>) -> Self {
        let mut set = Self::vacant(release, round);
        for at in 0..set.places.len() {
            set.places[at] = set.begin(false, 1, round);
        }
        set
    }

    /// The set of a run that an earlier daemon started and that is or was ready.
    pub(super) fn of_ready(run: Run, round: &mut Round<'_>) -> Self {
        let mut set = Self::vacant(run.release.clone(), round);
        set.take_in_ready(run);
        set
    }

    /// The set of a run that an earlier daemon started and that is not ready yet.
    pub(super) fn of_starting(run: Run, round: &mut Round<'_>) -> Self {
        let mut set = Self::vacant(run.release.clone(), round);
        set.take_in_starting(run);
        set
    }

    /// The set of a run that is being stopped.
    pub(super) fn of_stopping(run: Run, round: &mut Round<'_>) -> Self {
        let mut set = Self::vacant(run.release.clone(), round);
        set.stopping.push(run);
        set
    }

    /// Takes up when runs of the release crashed lately, oldest first.
    pub(super) fn remember_crashes(&mut self, crashes: Vec<Duration>) {
        self.crashes = crashes.into();
    }

    /// Forgets the crashes: a new tenure begins.
    pub(super) fn forget_crashes(&mut self) {
        self.crashes.clear();
    }

    /// Puts a run of an earlier daemon into an empty place. False where there is none.
    pub(super) fn take_in_ready(&mut self, run: Run) -> bool {
        self.fill(Place::Ready { run })
    }

    /// The same for a run that is not ready yet.
    pub(super) fn take_in_starting(&mut self, run: Run) -> bool {
        self.fill(Place::Starting { run, tries: 1 })
    }

    fn fill(&mut self, place: Place) -> bool {
        let Some(at) = self.places.iter().position(|place| *place == Place::GivenUp) else { return false };
        self.places[at] = place;
        true
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

    pub(super) fn managed(&self) -> bool {
        self.release.origin == Origin::Managed
    }

    /// The runs that may get requests.
    pub(super) fn ready_runs(&self) -> impl Iterator<Item = &Run> {
        self.places.iter().filter_map(|place| match place {
            Place::Ready { run } => Some(run),
            _ => None,
        })
    }

    /// The runs that are not ready yet.
    pub(super) fn starting_runs(&self) -> impl Iterator<Item = &Run> {
        self.places.iter().filter_map(|place| match place {
            Place::Starting { run, .. } => Some(run),
            _ => None,
        })
    }

    /// Every run that is not forgotten.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.places.iter().filter_map(Place::run).chain(&self.stopping)
    }

    /// The runs whose stop was ordered and of which something may be left.
    pub(super) fn stopping_runs(&self) -> impl Iterator<Item = &Run> {
        self.stopping.iter()
    }

    /// Whether a run of it may get requests.
    pub(super) fn serves(&self) -> bool {
        self.ready_runs().next().is_some()
    }

    /// Whether this run of it may get requests.
    pub(super) fn is_ready(&self, id: RunId) -> bool {
        self.ready_runs().any(|run| run.id == id)
    }

    /// Whether this run of it is not ready yet.
    pub(super) fn is_starting(&self, id: RunId) -> bool {
        self.starting_runs().any(|run| run.id == id)
    }

    /// Whether every place has a run that is ready.
    pub(super) fn is_complete(&self) -> bool {
        self.places.iter().all(|place| matches!(place, Place::Ready { .. }))
    }

    /// Whether a place is empty for good.
    pub(super) fn has_given_up(&self) -> bool {
        self.places.contains(&Place::GivenUp)
    }

    /// Whether the fate of a place is open.
    pub(super) fn is_undecided(&self) -> bool {
        self.places.contains(&Place::Undecided)
    }

    /// Why those of its places that are not ready are not.
    pub(super) fn cause(&self) -> DownCause {
        self.cause
    }

    /// When runs of it crashed lately, oldest first.
    pub(super) fn crashes(&self) -> impl DoubleEndedIterator<Item = Duration> {
        self.crashes.iter().copied()
    }

    /// How far its return is, where it serves no request.
    pub(super) fn comes_back(&self) -> Return {
        if self.starting_runs().next().is_some() {
            Return::Starting
        } else if self.places.iter().any(|place| matches!(place, Place::Waiting { .. })) {
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
        let filled = self.places.iter_mut().filter_map(|place| match place {
            Place::Starting { run, .. } | Place::Ready { run } => Some(run),
            _ => None,
        });
        filled.chain(&mut self.stopping).find(|run| run.id == id)
    }

    fn place_of(&mut self, id: RunId) -> Option<&mut Place> {
        self.places.iter_mut().find(|place| place.run().is_some_and(|run| run.id == id))
    }

    /// A run of it is ready. False where it was not waited for.
    pub(super) fn ready(&mut self, id: RunId) -> bool {
        let Some(place) = self.place_of(id) else { return false };
        let Place::Starting { run, .. } = place else { return false };
        *place = Place::Ready { run: run.clone() };
        // A crash loop ends here; later crashes may be another.
        if self.cause == DownCause::CrashLoop || self.is_complete() {
            self.cause = DownCause::Crash;
        }
        true
    }

    /// A run of it could not be started, or was not ready in time.
    pub(super) fn not_ready(&mut self, id: RunId, round: &mut Round<'_>) -> Said {
        if !self.is_starting(id) {
            return Said::Nothing;
        }
        self.vacate(id, Place::Undecided, round);
        Said::Failed
    }

    /// The process of a run that was not ready yet has ended.
    pub(super) fn exited(&mut self, id: RunId, port_taken: bool, round: &mut Round<'_>) -> Said {
        let Some(Place::Starting { tries, .. }) = self.place_of(id) else { return Said::Nothing };
        let tries = *tries;
        if !port_taken || tries >= PORT_TRIES {
            return self.not_ready(id, round);
        }
        round.push(Effect::Tell(Tell::PortTaken { run: id }));
        let next = self.begin(true, tries + 1, round);
        self.vacate(id, next, round);
        Said::Nothing
    }

    /// The process of a ready run has ended. Requests are pointed elsewhere already.
    pub(super) fn lose(&mut self, id: RunId, round: &mut Round<'_>) {
        round.push(Effect::Close { run: id });
        self.vacate(id, Place::Undecided, round);
        if self.cause == DownCause::Boot || !self.serves() {
            self.cause = DownCause::Crash;
        }
    }

    /// Counts each empty place whose fate is open as a crash: decides when it is filled again.
    pub(super) fn crashed(&mut self, round: &mut Round<'_>) {
        while let Some(at) = self.places.iter().position(|place| *place == Place::Undecided) {
            self.places[at] = self.after_crash(round);
        }
    }

    fn after_crash(&mut self, round: &mut Round<'_>) -> Place {
        let restart = &round.policy.restart;
        let now = round.now;
        self.crashes.push_back(now);
        while self.crashes.front().is_some_and(|first| now.saturating_sub(*first) > restart.within) {
            self.crashes.pop_front();
        }
        let count = u32::try_from(self.crashes.len()).unwrap_or(u32::MAX);
        // Each replica may crash as often as a single one.
        let burst = restart.burst.saturating_mul(u32::try_from(self.places.len()).unwrap_or(u32::MAX));
        // A crash loop ends with a run that becomes ready or with a deploy: its rare tries would
        // look like single crashes otherwise.
        let was_looping = self.cause == DownCause::CrashLoop;
        let looping = was_looping || count >= burst;
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
        round.push(Effect::Tell(Tell::Crashed { release, delay, loops_now }));
        let Some(delay) = delay else { return Place::GivenUp };
        let ticket = round.fresh();
        round.push(Effect::Timer(Timer::Restart(ticket, delay)));
        Place::Waiting { ticket }
    }

    /// The delay of a place is over.
    pub(super) fn restart_due(&mut self, ticket: u64, round: &mut Round<'_>) {
        let waits = |place: &Place| matches!(place, Place::Waiting { ticket: waited } if *waited == ticket);
        if let Some(at) = self.places.iter().position(waits) {
            self.places[at] = self.begin(true, 1, round);
        }
    }

    /// Nothing is left of a run. False where its stop was not ordered.
    pub(super) fn gone(&mut self, id: RunId) -> bool {
        let before = self.stopping.len();
        self.stopping.retain(|run| run.id != id);
        self.stopping.len() < before
    }
}

// ---- orders ----

impl ReplicaSet {
    /// Starts a run for each place that is empty for good. An unmanaged one is probed until it is
    /// healthy.
    pub(super) fn fill_up(&mut self, round: &mut Round<'_>) {
        for at in 0..self.places.len() {
            if self.places[at] == Place::GivenUp {
                self.places[at] = self.begin(true, 1, round);
            }
        }
    }

    /// The runs that are missing have ended while nobody saw it.
    pub(super) fn ended_unseen(&mut self) {
        for place in self.places.iter_mut().filter(|place| **place == Place::GivenUp) {
            *place = Place::Undecided;
        }
        self.cause = DownCause::Crash;
    }

    /// Fills no place whose fate is open.
    pub(super) fn give_up_undecided(&mut self) {
        for place in self.places.iter_mut().filter(|place| **place == Place::Undecided) {
            *place = Place::GivenUp;
        }
    }

    /// Stops what is not ready.
    pub(super) fn stop_starting(&mut self, round: &mut Round<'_>) {
        let starting: Vec<RunId> = self.starting_runs().map(|run| run.id).collect();
        starting.into_iter().for_each(|id| self.vacate(id, Place::GivenUp, round));
    }

    /// Lets its runs take no request any more.
    pub(super) fn close(&self, round: &mut Round<'_>) {
        for run in self.ready_runs() {
            round.push(Effect::Close { run: run.id });
        }
    }

    /// Stops every run.
    pub(super) fn stop(&mut self, round: &mut Round<'_>) {
        let filled: Vec<RunId> = self.places.iter().filter_map(Place::run).map(|run| run.id).collect();
        filled.into_iter().for_each(|id| self.vacate(id, Place::GivenUp, round));
    }

    /// Takes a run out of its place and stops it. An unmanaged one is forgotten instead.
    fn vacate(&mut self, id: RunId, next: Place, round: &mut Round<'_>) {
        let Some(place) = self.place_of(id) else { return };
        if let Place::Starting { run, .. } | Place::Ready { run } = std::mem::replace(place, next) {
            if run.managed() {
                round.push(Effect::Stop { run: id });
                self.stopping.push(run);
            } else {
                round.push(Effect::Forget { run: id });
            }
        }
    }

    /// Starts a run. An unmanaged one is probed: until it is healthy, where `patient`.
    fn begin(&self, patient: bool, tries: u32, round: &mut Round<'_>) -> Place {
        let id = RunId(round.fresh());
        let port = match self.release.origin {
            Origin::Managed => {
                round.push(Effect::Spawn { run: id, release: self.release.id.clone() });
                None
            }
            Origin::Unmanaged { port } => {
                round.push(Effect::Probe { run: id, patient });
                Some(port)
            }
        };
        Place::Starting { run: Run { id, release: self.release.clone(), port }, tries }
    }
}
