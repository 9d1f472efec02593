//! How many replicas an operator has asked for, instead of what the file says.
//!
//! Owned by the coordinator, and kept in its record. It is in force until the file says something
//! else than it did when the operator asked. What is asked for while a deploy is under way is in
//! force after it.

use serde::{Deserialize, Serialize};

use crate::config::{Hold, HoldOn, Replicas};
use crate::wire;

/// The bounds of a number of replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// At least so many.
    pub min: u16,
    /// At most so many.
    pub max: u16,
}

impl Bounds {
    fn of(replicas: &Replicas) -> Self {
        Self { min: replicas.min, max: replicas.max }
    }
}

/// What an operator has asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scale {
    /// So many.
    #[serde(flatten)]
    pub bounds: Bounds,
    /// What the file said then.
    pub instead_of: Bounds,
    /// Who asked, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What is in force, and what comes next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Scaling {
    in_force: Option<Scale>,
    /// What was asked for last. It is not in force while a deploy is under way.
    asked: Option<Scale>,
}

impl Scaling {
    /// Goes on from what the record says.
    pub(super) fn new(recorded: Option<Scale>) -> Self {
        Self { in_force: recorded.clone(), asked: recorded }
    }

    /// What the record is to say.
    pub(super) fn recorded(&self) -> Option<Scale> {
        self.asked.clone()
    }

    /// An operator, `by` name, asks for `bounds`, and the file says `file`.
    pub(super) fn ask(&mut self, bounds: Bounds, by: &str, file: &Replicas) {
        let by = Some(by.to_owned()).filter(|by| !by.is_empty());
        self.asked = Some(Scale { bounds, instead_of: Bounds::of(file), by });
    }

    /// What is shown of it where there are `wanted` replicas, fewer of which `are_kept` for now.
    pub(super) fn status(&self, wanted: u16, are_kept: bool) -> Option<wire::ScaleStatus> {
        let Scale { bounds, instead_of, by } = self.asked.clone()?;
        let file = wire::Bounds { min: instead_of.min, max: instead_of.max };
        let waits = self.is_noted() || are_kept && wanted > bounds.max;
        Some(wire::ScaleStatus { min: bounds.min, max: bounds.max, by, file, waits })
    }

    /// Whether something that was asked for is not in force.
    pub(super) fn is_noted(&self) -> bool {
        self.in_force != self.asked
    }

    /// Puts in force what was asked for.
    pub(super) fn use_noted(&mut self) {
        self.in_force.clone_from(&self.asked);
    }

    /// The file says `file`. Returns whether that ends what an operator has asked for.
    pub(super) fn look_at(&mut self, file: &Replicas) -> bool {
        let ended = self.asked.as_ref().is_some_and(|asked| asked.instead_of != Bounds::of(file));
        if ended {
            *self = Self::default();
        }
        ended
    }

    /// How many replicas there are to be, where the file says `file`. None is the least only where
    /// requests can wait for a start.
    pub(super) fn replicas(&self, file: &Replicas, hold: &Hold) -> Replicas {
        let Bounds { min, max } = self.in_force.as_ref().map_or(Bounds::of(file), |scale| scale.bounds);
        let least = if can_be_idle(hold) { min } else { min.max(1) };
        Replicas { min: least, max, ..*file }
    }
}

/// Whether requests can wait for a start from zero.
pub(super) fn can_be_idle(hold: &Hold) -> bool {
    hold.is_on(HoldOn::Idle) && hold.max_requests > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_until_the_file_says_something_else_and_waits_for_the_end_of_a_deploy() {
        let hold = |on: &[HoldOn]| Hold {
            on: on.to_vec(),
            max_requests: 1,
            max_time: std::time::Duration::from_secs(1),
            release: 1,
        };
        let (wakes, holds_not) = (hold(&[HoldOn::Idle]), hold(&[HoldOn::Crash]));
        let file = Replicas { busy_at: 3, max: 4, ..Replicas::fixed(2) };
        let mut scaling = Scaling::default();
        assert_eq!(scaling.replicas(&file, &wakes), file);
        scaling.ask(Bounds { min: 0, max: 9 }, "root", &file);
        assert!(scaling.is_noted());
        let shown = |scaling: &Scaling, wanted, kept| {
            scaling
                .status(wanted, kept)
                .map(|shown| (shown.max, shown.file.max, shown.by.unwrap(), shown.waits))
        };
        assert_eq!(shown(&scaling, 2, false), Some((9, 4, "root".to_owned(), true)));
        assert_eq!(scaling.replicas(&file, &wakes), file, "a deploy is under way");
        scaling.use_noted();
        let waits = |wanted, kept| shown(&scaling, wanted, kept).map(|(.., waits)| waits);
        assert_eq!(
            [waits(10, true), waits(9, true), waits(10, false)].map(Option::unwrap),
            [true, false, false]
        );
        assert_eq!(scaling.replicas(&file, &wakes), Replicas { min: 0, max: 9, ..file });
        assert_eq!(scaling.replicas(&file, &holds_not).min, 1, "nothing would wait for it");
        let mut next = Scaling::new(scaling.recorded());
        assert_eq!(next, scaling);
        assert!(!next.look_at(&Replicas { busy_at: 7, ..file }), "the bounds are the same");
        assert!(next.look_at(&Replicas { max: 5, ..file }));
        assert_eq!((next.recorded(), next.is_noted()), (None, false));
    }
}
