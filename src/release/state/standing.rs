//! The phase of the app, its health, and what an upgrade of the daemon would interrupt.

use super::places::Filling;
use super::replicas::Return;
use super::*;

/// What a hand-over to another daemon would lose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hindrance {
    /// A deploy, switch or rollback is under way.
    Task {
        /// The release that it is to make live.
        release: String,
        /// Why.
        reason: Reason,
        /// How far it is.
        step: &'static str,
    },
    /// Requests wait for the live release, which crashed or was to be replaced. They would wait in
    /// vain: this daemon does not hear of the release's return once another daemon drives the app.
    Held {
        /// The live release.
        release: String,
        /// How far its return is.
        step: &'static str,
    },
}

impl State {
    /// The phase of the app.
    pub fn phase(&self) -> Phase {
        if self.stopping != Stopping::No {
            return Phase::Stopping;
        }
        let Some(live) = self.live.set() else {
            return if self.task.is_some() { Phase::Starting } else { Phase::Empty };
        };
        if !live.serves() {
            return match live.cause() {
                _ if live.is_idle() => Phase::Idle,
                DownCause::Boot => Phase::Starting,
                DownCause::Replaced if self.task.is_some() => Phase::Starting,
                DownCause::Crash | DownCause::Replaced => Phase::Restarting,
                DownCause::CrashLoop => Phase::Failed,
            };
        }
        if self.goes_back_by_itself() {
            Phase::Watching
        } else if self.unhealthy {
            Phase::Unhealthy
        } else if self.lacks_replicas(live) || self.one_is_out(live) || self.companions.loops() {
            Phase::Degraded
        } else if self.calm.is_some() {
            Phase::Unstable
        } else if self.window.is_some() {
            Phase::Watching
        } else {
            Phase::Settled
        }
    }

    /// A run that is ready gets no requests, because it failed its probes.
    fn one_is_out(&self, live: &ReplicaSet) -> bool {
        self.served.len() < live.ready_runs().count()
    }

    /// Whether one of the live replicas is not ready: the one that is to replace another is not
    /// needed yet.
    fn lacks_replicas(&self, live: &ReplicaSet) -> bool {
        let replacement = self.recycling.place();
        let mut needed = live.places().iter().filter(|place| Some(place.replica) != replacement);
        needed.any(|place| !matches!(place.filling, Filling::Ready { .. }))
    }

    /// An automatic rollback is under way.
    fn goes_back_by_itself(&self) -> bool {
        self.task.as_ref().is_some_and(|task| task.reason == Reason::AutoRollback)
    }

    /// When the live release crashed lately, oldest first, by the clock of [`State::step`].
    pub fn crashes(&self) -> impl Iterator<Item = Duration> {
        self.live.set().into_iter().flat_map(ReplicaSet::crashes)
    }

    /// When the companions of the live release crashed lately, each that did, likewise.
    pub fn companion_crashes(&self) -> impl Iterator<Item = (&ProcessName, impl Iterator<Item = Duration>)> {
        self.companions.crashes()
    }

    /// How many probes of a live run have failed in a row: the most that one of them has.
    pub fn failed_probes(&self) -> u32 {
        self.live.set().map_or(0, ReplicaSet::failed_probes)
    }

    /// How many probes of this live run have failed in a row.
    pub fn failed_probes_of(&self, id: RunId) -> u32 {
        self.live.set().and_then(|live| live.places().fails_of(id)).unwrap_or(0)
    }

    /// Looks whether the live release fails its probes.
    pub(super) fn note_health(&mut self, round: &mut Round<'_>) {
        let unhealthy = self.fails_its_probes(round.policy);
        if std::mem::replace(&mut self.unhealthy, unhealthy) != unhealthy {
            round.save();
        }
    }

    fn fails_its_probes(&self, policy: &Policy) -> bool {
        let failures = if self.window.is_some() { policy.threshold } else { policy.failures };
        self.live.set().is_some_and(|live| live.places().is_unhealthy(failures))
    }

    /// Where other runs serve than `before`, or none: looks at their health anew, and lets the last
    /// crash matter for a while.
    pub(super) fn note_who_serves(&mut self, before: &[RunId], round: &mut Round<'_>) {
        let up = self.live_runs();
        if up == before {
            return;
        }
        self.unhealthy = self.fails_its_probes(round.policy);
        self.calm = None;
        let within = round.policy.restart.within;
        let last = self.live.set().and_then(|live| live.crashes().next_back());
        let left = last.map(|last| within.saturating_sub(round.now.saturating_sub(last)));
        if let Some(left) = left.filter(|left| !up.is_empty() && !left.is_zero()) {
            let ticket = round.fresh();
            self.calm = Some(ticket);
            round.push(Effect::Timer(Timer::Calm(ticket, left)));
        }
    }

    /// The last crash does not matter any more.
    pub(super) fn calmed(&mut self, ticket: u64, round: &mut Round<'_>) {
        if self.calm == Some(ticket) {
            self.calm = None;
            round.push(Effect::Tell(Tell::Calm));
            round.save();
        } else {
            self.companion_calmed(ticket);
        }
    }

    /// What a hand-over to another daemon would lose now.
    pub fn hindrance(&self) -> Option<Hindrance> {
        if let Some(Task { release, reason, stage, .. }) = &self.task {
            let step = match stage {
                Stage::Recording { .. } => "its intent is being written down",
                Stage::Before { .. } => "its step `before` runs",
                Stage::Vacating { .. } => "the release before it is being stopped",
                Stage::Accompanying => "its companions are being started",
                Stage::Starting { .. } => "it is not healthy yet",
                Stage::Verifying { .. } => "its step `verify` runs",
                Stage::Reviving { .. } => "its running process is being probed",
            };
            return Some(Hindrance::Task { release: release.id.clone(), reason: *reason, step });
        }
        // A crash loop holds no requests: they are refused.
        let comes = |cause| matches!(cause, DownCause::Crash | DownCause::Replaced);
        let live = self.live.set().filter(|live| !live.serves() && comes(live.cause()))?;
        let step = match live.comes_back() {
            Return::None if live.cause() == DownCause::Replaced => "what was to replace it is being stopped",
            Return::None => return None,
            Return::Waiting => "it is about to be started again",
            Return::Starting => "it is being started again",
        };
        Some(Hindrance::Held { release: live.release().id.clone(), step })
    }
}
