//! The last crash in each place of each set, as this daemon has seen it.
//!
//! Owned by the coordinator. A run forgets its end when it is gone, and another one fills its place;
//! who looks at the place later wants to know what became of the former.

use std::collections::HashMap;

use super::clock::now;
use super::state::SetId;
use crate::wire::LastExit;

/// The last crash in each place.
#[derive(Debug, Default)]
pub(super) struct Exits(HashMap<(SetId, u16), LastExit>);

impl Exits {
    /// The run in this place ended now, and not because it was told to.
    pub(super) fn note(&mut self, (set, replica): (SetId, u16), release: &str, exit: String) {
        self.0.insert((set, replica), LastExit { release: release.to_owned(), exit, at: now() });
    }

    /// The last crash in this place.
    pub(super) fn get(&self, set: SetId, replica: u16) -> Option<&LastExit> {
        self.0.get(&(set, replica))
    }

    /// Forgets the sets that `is_known` does not hold for.
    pub(super) fn retain(&mut self, is_known: impl Fn(SetId) -> bool) {
        self.0.retain(|(set, _), _| is_known(*set));
    }
}
