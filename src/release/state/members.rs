//! What others see of the machine: every place of its sets, every run that has lost its place and
//! of which something may be left, and the step of a deploy that runs.

use super::places::{Filling, Place};
use super::*;
use crate::wire::{ReplicaRole, ReplicaState};

/// A place, or a run that has lost its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member<'a> {
    /// The release.
    pub release: &'a ReleaseRef,
    /// The set; one that does not exist for a step.
    pub set: SetId,
    /// Which companion of the release it is, or which step; `None`: the app itself.
    pub process: Option<&'a str>,
    /// What the set is for.
    pub role: ReplicaRole,
    /// The number of the place; `None` where the run has lost it.
    pub replica: Option<u16>,
    /// The run; `None` where the place is empty.
    pub run: Option<RunId>,
    /// What it does.
    pub state: ReplicaState,
    /// How often the place was filled again after a crash.
    pub restarts: u32,
}

impl State {
    /// Every place of every set, every run that has lost its place, and the step that runs.
    pub fn members(&self) -> Vec<Member<'_>> {
        self.sets().flat_map(|set| self.members_of(set)).chain(self.step_under_way()).collect()
    }

    /// The step of the task under way.
    fn step_under_way(&self) -> Option<Member<'_>> {
        let task = self.task.as_ref()?;
        let (step, run) = task.stage.step()?;
        Some(Member {
            release: &task.release,
            set: SetId(0),
            process: Some(step.as_str()),
            role: ReplicaRole::Candidate,
            replica: Some(0),
            run: Some(run.id),
            state: ReplicaState::Starting,
            restarts: 0,
        })
    }

    /// What a set is for.
    fn role_of_set(&self, set: &ReplicaSet) -> ReplicaRole {
        let is = |other: Option<SetId>| other == Some(set.id());
        let is_of = |release: Option<&ReleaseRef>| release == Some(set.release());
        let task = self.task.as_ref();
        if is(self.live.set().map(ReplicaSet::id)) {
            ReplicaRole::Live
        } else if is(self.candidate().map(ReplicaSet::id)) || is(task.and_then(|task| task.stage.revives())) {
            ReplicaRole::Candidate
        } else if is(self.previous().and_then(|previous| previous.set)) {
            ReplicaRole::Previous
        } else if self.leaving.iter().any(|leaving| is(Some(leaving.set.id()))) {
            ReplicaRole::Draining
        } else if is_of(self.live_release()) {
            // A companion is what its release is.
            ReplicaRole::Live
        } else if is_of(task.map(|task| &task.release)) {
            ReplicaRole::Candidate
        } else {
            ReplicaRole::Draining
        }
    }

    fn members_of<'a>(&'a self, set: &'a ReplicaSet) -> Vec<Member<'a>> {
        let (release, id, process) = (set.release(), set.id(), set.process().map(|name| &**name));
        let role = self.role_of_set(set);
        let member = |replica, run, state, restarts| Member {
            release,
            set: id,
            process,
            role,
            replica,
            run,
            state,
            restarts,
        };
        let places = set.places().iter().filter_map(|place| {
            let run = place.filling.run().map(|run| run.id);
            Some(member(Some(place.replica), run, self.state_of(place, set, role)?, place.restarts))
        });
        let stopping = set.stopping_runs().map(|run| member(None, Some(run.id), ReplicaState::Stopping, 0));
        places.chain(stopping).collect()
    }

    /// What a place does. `None`: it is empty, and nobody will fill it.
    fn state_of(&self, place: &Place, set: &ReplicaSet, role: ReplicaRole) -> Option<ReplicaState> {
        let leaves = matches!(role, ReplicaRole::Previous | ReplicaRole::Draining);
        let gets_requests = role == ReplicaRole::Live && set.process().is_none();
        Some(match &place.filling {
            Filling::Starting { .. } => ReplicaState::Starting,
            Filling::Ready { .. } if leaves => ReplicaState::Draining,
            Filling::Ready { run, .. } if gets_requests && !self.served.contains(&run.id) => {
                ReplicaState::Ejected
            }
            Filling::Ready { .. } => ReplicaState::Ready,
            // What leaves is filled by nobody.
            Filling::Undecided | Filling::Waiting { .. } if leaves => return None,
            Filling::Undecided | Filling::Waiting { .. } => ReplicaState::Waiting,
            Filling::GivenUp if role == ReplicaRole::Live && self.stopping == Stopping::No => {
                ReplicaState::Waiting
            }
            Filling::GivenUp => return None,
        })
    }
}
