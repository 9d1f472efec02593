//! The phase of the app, its health, and what an upgrade of the daemon would interrupt.

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
    /// Requests wait for the live release, which crashed. They would wait in vain: this daemon does
    /// not hear of the release's return once another daemon drives the app.
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
                DownCause::Boot => Phase::Starting,
                DownCause::Crash => Phase::Restarting,
                DownCause::CrashLoop => Phase::Failed,
            };
        }
        if self.goes_back_by_itself() {
            Phase::Watching
        } else if self.unhealthy {
            Phase::Unhealthy
        } else if self.calm.is_some() {
            Phase::Unstable
        } else if self.window.is_some() {
            Phase::Watching
        } else {
            Phase::Settled
        }
    }

    /// An automatic rollback is under way.
    fn goes_back_by_itself(&self) -> bool {
        self.task.as_ref().is_some_and(|task| task.reason == Reason::AutoRollback)
    }

    /// When the live release crashed lately, oldest first, by the clock of [`State::step`].
    pub fn crashes(&self) -> impl Iterator<Item = Duration> {
        self.live.set().into_iter().flat_map(ReplicaSet::crashes)
    }

    /// How many probes of the live run have failed in a row, in its watch window or later.
    pub fn failed_probes(&self) -> u32 {
        self.fails
    }

    /// Takes up what the record says about the live release.
    pub(super) fn resume_standing(&mut self, fails: u32, policy: &Policy) {
        self.fails = fails;
        self.unhealthy = fails >= policy.threshold;
    }

    /// Counts a probe of the live run.
    pub(super) fn note_probe(&mut self, id: RunId, healthy: bool, round: &mut Round<'_>) {
        if self.live_run().is_none_or(|run| run.id != id) {
            return;
        }
        self.fails = if healthy { 0 } else { self.fails.saturating_add(1) };
        let unhealthy = self.fails >= round.policy.threshold;
        if std::mem::replace(&mut self.unhealthy, unhealthy) != unhealthy {
            round.save();
        }
    }

    /// Where another run than `was_up` serves, or none: forgets the probes, and lets the last crash
    /// matter for a while.
    pub(super) fn note_who_serves(&mut self, was_up: Option<RunId>, round: &mut Round<'_>) {
        let up = self.live_run().map(|run| run.id);
        if up == was_up {
            return;
        }
        if was_up.is_some() {
            self.fails = 0;
            self.unhealthy = false;
        }
        self.calm = None;
        let within = round.policy.restart.within;
        let last = self.live.set().and_then(|live| live.crashes().next_back());
        let left = last.map(|last| within.saturating_sub(round.now.saturating_sub(last)));
        if let Some(left) = left.filter(|left| up.is_some() && !left.is_zero()) {
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
        }
    }

    /// What a hand-over to another daemon would lose now.
    pub fn hindrance(&self) -> Option<Hindrance> {
        if let Some(Task { release, reason, stage }) = &self.task {
            let step = match stage {
                Stage::Recording { .. } => "its intent is being written down",
                Stage::Starting { .. } => "it is not healthy yet",
                Stage::Reviving { .. } => "its running process is being probed",
            };
            return Some(Hindrance::Task { release: release.id.clone(), reason: *reason, step });
        }
        // A crash loop holds no requests: they are refused.
        let live = self.live.set().filter(|live| !live.serves() && live.cause() == DownCause::Crash)?;
        let step = match live.comes_back() {
            Return::None => return None,
            Return::Waiting => "it is about to be started again",
            Return::Starting => "it is being started again",
        };
        Some(Hindrance::Held { release: live.release().id.clone(), step })
    }
}
