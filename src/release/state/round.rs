//! What every edge of a step gets: the moment, the settings, fresh numbers, and where it says what
//! is to be done.

use std::time::Duration;

use super::{Companion, Effect, Origin, Policy, ReleaseRef};
use crate::config::Replicas;

/// The numbers that were given away: runs, sets, saves and tickets never share one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Ids(u64);

impl Ids {
    /// A number that nothing else of this machine has.
    pub(super) fn fresh(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }

    /// `taken` is another's number, and so are those below it.
    pub(super) fn skip(&mut self, taken: u64) {
        self.0 = self.0.max(taken);
    }
}

/// One step of the machine.
#[derive(Debug)]
pub(super) struct Round<'a> {
    /// The moment, of any monotonic clock.
    pub(super) now: Duration,
    pub(super) policy: &'a Policy,
    pub(super) ids: Ids,
    /// What is to be done, in its order.
    pub(super) out: Vec<Effect>,
}

impl<'a> Round<'a> {
    pub(super) fn push(&mut self, effect: Effect) {
        self.out.push(effect);
    }

    pub(super) fn fresh(&mut self) -> u64 {
        self.ids.fresh()
    }

    /// How many replicas a release may have.
    pub(super) fn replicas(&self, release: &ReleaseRef) -> Replicas {
        match release.origin {
            Origin::Managed => self.policy.replicas,
            Origin::Unmanaged { .. } => Replicas::fixed(release.origin.count()),
        }
    }

    /// The companions of a release.
    pub(super) fn companions(&self, release: &ReleaseRef) -> &'a [Companion] {
        match release.origin {
            Origin::Managed => self.policy.companions.get(&release.id).map_or(&[], Vec::as_slice),
            Origin::Unmanaged { .. } => &[],
        }
    }

    /// Has the record written. Gives back the number of the save.
    pub(super) fn save(&mut self) -> u64 {
        let seq = self.fresh();
        self.push(Effect::Save { seq });
        seq
    }
}
