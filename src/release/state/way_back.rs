//! The way back: what a rollback does, decided once for the rollback itself and for a dry run.

use super::*;

/// What a rollback does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WayBack {
    /// The release that gets traffic.
    pub to: ReleaseRef,
    /// How that release comes to serve.
    pub by: WayTo,
    /// The release that is live now. It loses traffic, and enters quarantine.
    pub from: Option<ReleaseRef>,
    /// The candidate that is given up first.
    pub cancels: Option<ReleaseRef>,
    /// Whether a watch window opens.
    pub watched: bool,
    /// Whether the live release is stopped before the other one is started.
    pub recreates: bool,
}

/// How a release comes to serve again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayTo {
    /// It serves already.
    Serves,
    /// A rollback to it is under way.
    UnderWay,
    /// This set of it still drains, and is made live again.
    Revive(SetId),
    /// It is started or, where it is unmanaged, probed.
    Start,
}

impl State {
    /// What a rollback would do now. `to` names the release; `None` is the previous one.
    ///
    /// # Errors
    /// Why there is no way back.
    pub fn way_back(&self, to: Option<&str>, force: bool, policy: &Policy) -> Result<WayBack, Refusal> {
        if self.stopping != Stopping::No {
            return Err(Refusal::ShuttingDown);
        }
        let from = self.live_release();
        let to = match to {
            None => self.past.previous(from.map(|release| release.id.as_str())).ok_or_else(|| {
                Refusal::NoPrevious { quarantined: self.past.quarantined().next().map(str::to_owned) }
            })?,
            Some(id) => self.named(id, force)?,
        };
        let under_way = |task: &&Task| task.reason.is_rollback() && task.release == *to;
        let by = if self.is_live_and_well(to) {
            WayTo::Serves
        } else if self.task.as_ref().filter(under_way).is_some() {
            WayTo::UnderWay
        } else {
            self.draining_set_of(to).map_or(WayTo::Start, WayTo::Revive)
        };
        let task = self.task.as_ref().filter(|_| by != WayTo::UnderWay);
        Ok(WayBack {
            to: to.clone(),
            by,
            from: from.cloned(),
            cancels: task.map(|task| task.release.clone()),
            watched: policy.window && by == WayTo::Start && to.origin == Origin::Managed,
            recreates: by == WayTo::Start && self.stops_live_first(to, policy),
        })
    }

    /// The release of this id, where one may go back to it.
    fn named(&self, id: &str, force: bool) -> Result<&ReleaseRef, Refusal> {
        let release = || id.to_owned();
        let Some(served) = self.past.get(id) else {
            return Err(Refusal::NoSuchRelease { release: release() });
        };
        if self.is_live_and_well(&served.release) {
            Ok(&served.release)
        } else if self.live_release() == Some(&served.release) {
            Err(Refusal::LiveIsDown { release: release() })
        } else if served.quarantined && !force {
            Err(Refusal::Quarantined { release: release() })
        } else {
            Ok(&served.release)
        }
    }

    /// Whether the release is live, and serves or would with the next request.
    pub(super) fn is_live_and_well(&self, release: &ReleaseRef) -> bool {
        self.live.set().is_some_and(|live| live.release() == release && (live.serves() || live.is_idle()))
    }

    /// Goes back.
    pub(super) fn go_back(&mut self, way: WayBack, reason: Reason, round: &mut Round<'_>) {
        if way.cancels.is_some() {
            self.give_up(Abort::MadeWay, None, round);
        }
        match way.by {
            WayTo::Serves => {
                round.push(Effect::AlreadyLive);
                self.bring_back(round);
            }
            WayTo::UnderWay => round.push(Effect::UnderWay),
            // It still runs, so nothing is written down before: the way back does not wait for a
            // disk.
            WayTo::Revive(set) => {
                let (stage, plan) = (self.revive(&way.to, set, round), Plan::default());
                self.task = Some(Task { release: way.to, reason, plan, before_done: false, stage });
                round.push(Effect::Tell(Tell::Accepted));
            }
            WayTo::Start => {
                let plan = Plan { recreate: way.recreates, ..Plan::default() };
                self.record_intent(way.to, reason, plan, None, round);
            }
        }
    }

    /// Begins an automatic rollback. False where there is nothing to go back to, or a rollback is
    /// under way already.
    pub(super) fn roll_back(&mut self, round: &mut Round<'_>) -> bool {
        if self.goes_back() {
            return false;
        }
        let Ok(way) = self.way_back(None, false, round.policy) else { return false };
        self.go_back(way, Reason::AutoRollback, round);
        true
    }

    /// A rollback is under way.
    pub(super) fn goes_back(&self) -> bool {
        self.task.as_ref().is_some_and(|task| task.reason.is_rollback())
    }

    /// Opens the watch window of the release that has just become live.
    pub(super) fn watch(&mut self, reason: Reason, round: &mut Round<'_>) {
        let ticket = round.fresh();
        let goes_back = reason != Reason::AutoRollback;
        self.window = Some(Window { ticket, goes_back, waits: false });
        if let Live::Set(set) = &mut self.live {
            set.places_mut().begin_window();
        }
        round.push(Effect::Timer(Timer::Window(ticket)));
    }

    /// The time of a watch window is over. What did not serve was not watched.
    pub(super) fn window_over(&mut self, ticket: u64, round: &mut Round<'_>) {
        let serves = self.live.set().is_some_and(|live| live.serves() || live.is_idle());
        match &mut self.window {
            Some(window) if window.ticket == ticket && !serves => window.waits = true,
            Some(window) if window.ticket == ticket => {
                self.settle();
                round.push(Effect::Tell(Tell::Settled));
            }
            _ => {}
        }
    }

    /// The watch window of a release that serves again begins anew, where its time was over
    /// meanwhile.
    pub(super) fn watch_again(&mut self, round: &mut Round<'_>) {
        if let Some(window) = self.window.as_mut().filter(|window| window.waits)
            && self.live.set().is_some_and(ReplicaSet::serves)
        {
            window.waits = false;
            round.push(Effect::Timer(Timer::Window(window.ticket)));
        }
    }

    /// The live release has proven itself: its window and its quarantine end.
    pub(super) fn settle(&mut self) {
        self.window = None;
        if let Some(id) = self.live_release().map(|release| release.id.clone()) {
            self.past.absolve(&id);
        }
    }
}
