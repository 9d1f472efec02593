//! How an app's targets are, as others see it: what the driver has decided, and what requests have
//! found out meanwhile. Pure.
//!
//! A member to which requests failed is marked, and out as long as another one is in. When all that
//! get requests are marked, the marks count for nothing: requests go to them, and that they failed
//! is known of each.

use super::handle::{MemberView, View};
use crate::wire::{Phase, TargetState};

/// What is known of a marked target that gets requests all the same.
const REQUESTS_FAILED: &str = "requests to it failed";

/// An app's targets at one moment.
pub(super) struct Picture<'a> {
    view: &'a View,
    members: Vec<Seen<'a>>,
}

struct Seen<'a> {
    member: &'a MemberView,
    state: TargetState,
    marked: bool,
}

impl<'a> Picture<'a> {
    /// `view` is what the driver says; `is_marked` whether requests to a member failed.
    pub(super) fn of(view: &'a View, is_marked: impl Fn(&MemberView) -> bool) -> Self {
        let see = |member: &'a MemberView| Seen { member, state: member.state, marked: is_marked(member) };
        let mut members: Vec<_> = view.members.iter().map(see).collect();
        if members.iter().any(|seen| seen.is_ready() && !seen.marked) {
            for seen in members.iter_mut().filter(|seen| seen.is_ready() && seen.marked) {
                seen.state = TargetState::Ejected;
            }
        }
        Self { view, members }
    }

    /// Each target with how it is, and what is wrong with it.
    pub(super) fn targets(&self) -> impl Iterator<Item = (&'a MemberView, TargetState, Option<&str>)> {
        self.members.iter().map(|seen| {
            let found = (seen.is_ready() && seen.marked).then_some(REQUESTS_FAILED);
            (seen.member, seen.state, seen.member.last_error.as_deref().or(found))
        })
    }

    /// Those that get requests.
    pub(super) fn ready(&self) -> impl Iterator<Item = &'a MemberView> {
        self.members.iter().filter(|seen| seen.is_ready()).map(|seen| seen.member)
    }

    /// The app's phase.
    pub(super) fn phase(&self) -> Phase {
        if self.view.phase != Phase::Settled {
            return self.view.phase;
        }
        let mut ready = self.members.iter().filter(|seen| seen.is_ready());
        if ready.all(|seen| seen.marked || seen.member.fails) {
            return Phase::Unhealthy;
        }
        let wanted = self.members.iter().filter(|seen| seen.member.listed);
        if wanted.filter(|seen| seen.is_ready()).count() < self.view.listed.len() {
            Phase::Degraded
        } else {
            Phase::Settled
        }
    }
}

impl Seen<'_> {
    fn is_ready(&self) -> bool {
        self.state == TargetState::Ready
    }
}
