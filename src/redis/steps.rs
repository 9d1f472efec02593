//! What the steps of a pass over the keys said, so that what a step of the next pass says again is
//! neither sent nor read again. Pure.
//!
//! A step is known by the cursor at which it begins. Which keys it has may be others in the next
//! pass; its digest tells, since it is one of all that the step says.

use std::collections::HashMap;
use std::sync::Arc;

use super::table::Said;

/// The steps of one pass.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// In the order of the pass.
    steps: Vec<Step>,
    /// The last one that began at each cursor.
    by_cursor: HashMap<String, usize>,
    /// How many lists they have.
    lists: usize,
    /// Whether anything in them is not of the pass before.
    is_new: bool,
}

/// What one step said of its lists.
#[derive(Debug, Clone)]
struct Step {
    digest: Box<str>,
    lists: Arc<[Said]>,
}

impl Steps {
    /// The digest of the step that begins there.
    pub(super) fn digest(&self, cursor: &str) -> Option<&str> {
        Some(&self.at(cursor)?.digest)
    }

    /// The next step of the pass says this.
    pub(super) fn add(&mut self, cursor: String, digest: String, lists: Vec<Said>) {
        self.is_new = true;
        self.push(cursor, Step { digest: digest.into(), lists: lists.into() });
    }

    /// The next step of the pass says what it said in `before`. False: that has none.
    pub(super) fn add_known(&mut self, cursor: String, before: &Self) -> bool {
        let Some(step) = before.at(&cursor).cloned() else { return false };
        self.push(cursor, step);
        true
    }

    fn push(&mut self, cursor: String, step: Step) {
        self.lists += step.lists.len();
        self.by_cursor.insert(cursor, self.steps.len());
        self.steps.push(step);
    }

    fn at(&self, cursor: &str) -> Option<&Step> {
        self.steps.get(*self.by_cursor.get(cursor)?)
    }

    /// How many lists they have, those with them that a pass has seen twice.
    pub(super) fn len(&self) -> usize {
        self.lists
    }

    /// All lists.
    pub(super) fn lists(&self) -> impl Iterator<Item = &Said> {
        self.steps.iter().flat_map(|step| step.lists.iter())
    }

    /// Whether they say the same as those of the pass before, `before`.
    pub(super) fn say_the_same_as(&self, before: &Self) -> bool {
        let counts = |steps: &Self| (steps.steps.len(), steps.by_cursor.len());
        !self.is_new && counts(self) == counts(before)
    }
}

#[cfg(test)]
mod tests {
    use super::super::list::Malformed;
    use super::*;

    fn steps(steps: &[(&str, &str)]) -> Steps {
        let mut all = Steps::default();
        for (cursor, digest) in steps {
            let lists = vec![Said::Malformed(format!("of {digest}"), Malformed::NoList)];
            all.add((*cursor).to_owned(), (*digest).to_owned(), lists);
        }
        all
    }

    #[test]
    fn what_is_known_is_taken_over() {
        let before = steps(&[("0", "a"), ("8", "b")]);
        assert_eq!((before.digest("8"), before.digest("4")), (Some("b"), None));
        let mut again = Steps::default();
        assert!(again.add_known("0".to_owned(), &before) && !again.say_the_same_as(&before));
        assert!(!again.add_known("4".to_owned(), &before));
        assert!(again.add_known("8".to_owned(), &before) && again.say_the_same_as(&before));
        assert_eq!((again.len(), again.lists().count(), again.digest("0")), (2, 2, Some("a")));
        again.add("2".to_owned(), "c".to_owned(), Vec::new());
        assert!(!again.say_the_same_as(&before));
    }

    #[test]
    fn of_two_steps_at_a_cursor_both_count() {
        let mut twice = steps(&[("0", "a"), ("0", "b")]);
        assert_eq!((twice.len(), twice.lists().count(), twice.digest("0")), (2, 2, Some("b")));
        let before = steps(&[("0", "a"), ("8", "b")]);
        twice = Steps::default();
        assert!(twice.add_known("0".to_owned(), &before) && twice.add_known("0".to_owned(), &before));
        assert_eq!(twice.len(), 2);
    }
}
