//! Several targets of one service: who they are, and which of them are out.
//!
//! State: a spread does not change; another membership is another spread. Which members are out is
//! in their marks, which all threads share: a member whose connection was refused or timed out, or
//! that gave a status of `upstream.eject_on`, is out for `upstream.eject_for`, then one request
//! tries it. The last one that is in is never put out.
//!
//! Spreads that follow one another, as members come and go, are one **tenure**: a client connection
//! is pinned to a tenure (`drain.affinity`), not to a member.

use std::fmt;
use std::sync::Arc;

use super::sticky::Place;
use super::target::{Standing, Target};
use crate::config::Balance;

/// The targets that the requests of a service are spread over.
#[derive(Debug)]
pub struct Spread {
    members: Box<[Arc<Target>]>,
    balance: Balance,
    tenure: Tenure,
    ejections: Option<Arc<dyn Ejections>>,
    /// By what sticky clients know the members; empty where no clients are.
    places: Box<[Place]>,
    /// Whoever publishes it learns at once that a member has ended.
    is_watched: bool,
}

/// What spreads with other members have in common as long as they follow one another without a
/// switch.
#[derive(Debug, Clone, Default)]
pub struct Tenure(Arc<()>);

/// Is told which members the data plane puts out.
pub trait Ejections: fmt::Debug + Send + Sync {
    /// `target` is out, or out once more after it was tried in vain. Called on a data-plane thread:
    /// must not block.
    fn ejected(&self, target: &Arc<Target>);
}

impl Spread {
    /// Requests are spread over `members` by `balance`.
    pub fn new(members: Vec<Arc<Target>>, balance: Balance, tenure: Tenure) -> Self {
        let (members, ejections, places) = (members.into(), None, Box::default());
        Self { members, balance, tenure, ejections, places, is_watched: false }
    }

    /// The same, and whoever publishes it learns at once that a member has ended: a request that
    /// all refuse waits for what is published next.
    #[must_use]
    pub fn watched(self) -> Self {
        Self { is_watched: true, ..self }
    }

    pub(super) fn is_watched(&self) -> bool {
        self.is_watched
    }

    /// The same, and `ejections` is told of its members.
    #[must_use]
    pub fn told(self, ejections: Arc<dyn Ejections>) -> Self {
        Self { ejections: Some(ejections), ..self }
    }

    /// The same, and sticky clients know its members by `places`, which are in the members' order.
    #[must_use]
    pub fn placed(self, places: Box<[Place]>) -> Self {
        debug_assert_eq!(places.len(), self.members.len(), "each member has one place");
        Self { places, ..self }
    }

    /// By what sticky clients know the member at `at`.
    pub(super) fn place(&self, at: usize) -> Option<Place> {
        self.places.get(at).copied()
    }

    pub(super) fn members(&self) -> &[Arc<Target>] {
        &self.members
    }

    pub(super) fn balance(&self) -> Balance {
        self.balance
    }

    /// Whether `other` has the same tenure.
    pub(super) fn continues(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.tenure.0, &other.tenure.0)
    }

    /// Puts a member out until `until`, unless it is the last one that is in at `now`. Whether it
    /// is out by this.
    pub(super) fn eject(&self, target: &Arc<Target>, now: u64, until: u64) -> bool {
        let is_other = |other: &&Arc<Target>| !Arc::ptr_eq(other, target);
        let mut others = self.members.iter().filter(is_other);
        let another_is_in =
            others.any(|other| other.may_be_claimed(false) && other.mark().at(now) == Standing::In);
        let is_out = another_is_in && target.mark().put_out(until);
        if is_out {
            self.tell(target);
        }
        is_out
    }

    /// A member stays out, because it was tried in vain.
    pub(super) fn tell(&self, target: &Arc<Target>) {
        if let Some(ejections) = &self.ejections {
            ejections.ejected(target);
        }
    }
}
