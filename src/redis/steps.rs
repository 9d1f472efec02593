//! What the steps of a pass over the keys said, so that what a step of the next pass says again is
//! neither sent nor read again. Pure.
//!
//! A step is known by the cursor at which it begins. Which keys it has may be others in the next
//! pass; its digest tells, since it is one of all that the step says.
//!
//! Anybody may make lists without end. Those whose host is in the table are all kept, since it has
//! only so many; of the others there is room for some, and the rest is counted.

use std::collections::HashMap;
use std::sync::Arc;

use super::table::{Count, MOST_HOSTS, Said, Table};

/// How many lists are kept of hosts that the table does not have.
const ROOM: Count = Count { hosts: MOST_HOSTS, malformed: 1000 };

/// The steps of one pass.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// In the order of the pass.
    steps: Vec<Arc<Step>>,
    /// The last one that began at each cursor.
    by_cursor: HashMap<String, usize>,
    /// How much of the room they have taken.
    taken: Count,
    /// Whether anything in them is not of the pass before.
    is_new: bool,
}

/// What one step said of its lists.
#[derive(Debug, Default)]
struct Step {
    digest: String,
    lists: Vec<Said>,
    /// How many of the lists have taken room.
    taken: Count,
    /// For how many more there was no room.
    beyond: Count,
}

impl Steps {
    /// The digest of the step of the pass `before` that begins at `cursor`, if what was kept of it
    /// is what there is room for now.
    pub(super) fn digest<'a>(&self, cursor: &str, before: &'a Self) -> Option<&'a str> {
        let step = before.at(cursor)?;
        let is_as_large = |taken: usize, beyond: usize, most: usize, all: usize| {
            let room = most.saturating_sub(all);
            taken == room || taken < room && beyond == 0
        };
        let (taken, beyond) = (step.taken, step.beyond);
        let fits = is_as_large(taken.hosts, beyond.hosts, ROOM.hosts, self.taken.hosts)
            && is_as_large(taken.malformed, beyond.malformed, ROOM.malformed, self.taken.malformed);
        fits.then_some(&step.digest)
    }

    /// The next step of the pass says this; `table` is the one in force.
    pub(super) fn add<E>(
        &mut self,
        cursor: String,
        digest: String,
        lists: impl Iterator<Item = Result<Said, E>>,
        table: &Table,
    ) -> Result<(), E> {
        let mut step = Step { digest, ..Step::default() };
        for said in lists {
            let said = said?;
            if !said.is_known(table) {
                let (taken, beyond, all, most) = match &said {
                    Said::Well(_) => {
                        (&mut step.taken.hosts, &mut step.beyond.hosts, self.taken.hosts, ROOM.hosts)
                    }
                    Said::Malformed(..) => (
                        &mut step.taken.malformed,
                        &mut step.beyond.malformed,
                        self.taken.malformed,
                        ROOM.malformed,
                    ),
                };
                if all + *taken >= most {
                    *beyond += 1;
                    continue;
                }
                *taken += 1;
            }
            step.lists.push(said);
        }
        if step.lists.is_empty() && step.beyond == Count::default() {
            // Most steps, where there are very many other keys. What was kept of it before is
            // missed.
            return Ok(());
        }
        step.lists.shrink_to_fit();
        self.is_new = true;
        self.push(cursor, Arc::new(step));
        Ok(())
    }

    /// The next step of the pass says what it said in `before`. False: that has none.
    pub(super) fn add_known(&mut self, cursor: String, before: &Self) -> bool {
        let Some(step) = before.at(&cursor) else { return false };
        self.push(cursor, Arc::clone(step));
        true
    }

    fn push(&mut self, cursor: String, step: Arc<Step>) {
        self.taken += step.taken;
        self.by_cursor.insert(cursor, self.steps.len());
        self.steps.push(step);
    }

    fn at(&self, cursor: &str) -> Option<&Arc<Step>> {
        self.steps.get(*self.by_cursor.get(cursor)?)
    }

    /// Whether there are none that have lists.
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The lists that are kept.
    pub(super) fn lists(&self) -> impl Iterator<Item = &Said> {
        self.steps.iter().flat_map(|step| &step.lists)
    }

    /// How many more there are, for which there was no room; twice those that the pass saw twice.
    pub(super) fn beyond(&self) -> Count {
        self.steps.iter().fold(Count::default(), |mut all, step| {
            all += step.beyond;
            all
        })
    }

    /// Whether they say the same as those of the pass before, `before`.
    pub(super) fn say_the_same_as(&self, before: &Self) -> bool {
        let counts = |steps: &Self| (steps.steps.len(), steps.by_cursor.len());
        !self.is_new && counts(self) == counts(before)
    }
}

#[cfg(test)]
mod tests {
    use super::super::bounds::Bounds;
    use super::super::list::{Frontend, Malformed};
    use super::*;

    type Lists = Vec<Result<Said, ()>>;

    fn malformed(keys: std::ops::Range<usize>) -> Lists {
        keys.map(|number| Ok(Said::malformed(format!("m{number}"), Malformed::NoList))).collect()
    }

    fn well(keys: std::ops::Range<usize>) -> Lists {
        let bounds = Bounds { allow: vec!["10.0.0.0/8".parse().unwrap()], ..Bounds::default() };
        let list = ["label", "http://10.0.0.1:80"];
        keys.map(|number| Ok(Said::of(&format!("w{number}"), &list, &Table::default(), &bounds))).collect()
    }

    fn add(steps: &mut Steps, cursor: &str, lists: Lists, table: &Table) {
        steps.add(cursor.to_owned(), format!("of {cursor}"), lists.into_iter(), table).unwrap();
    }

    fn steps(cursors: &[&str]) -> Steps {
        let mut all = Steps::default();
        cursors.iter().for_each(|cursor| add(&mut all, cursor, malformed(0..1), &Table::default()));
        all
    }

    #[test]
    fn what_is_known_is_taken_over() {
        let before = steps(&["0", "8"]);
        let mut again = Steps::default();
        assert_eq!((again.digest("8", &before), again.digest("4", &before)), (Some("of 8"), None));
        assert!(again.add_known("0".to_owned(), &before) && !again.say_the_same_as(&before));
        assert!(!again.add_known("4".to_owned(), &before));
        assert!(again.add_known("8".to_owned(), &before) && again.say_the_same_as(&before));
        assert_eq!(again.lists().count(), 2);
        add(&mut again, "2", Vec::new(), &Table::default());
        assert!(
            again.say_the_same_as(&before) && again.digest("2", &again).is_none(),
            "nothing is kept of it"
        );
        add(&mut again, "1", malformed(0..1), &Table::default());
        assert!(!again.say_the_same_as(&before));
        let mut less = Steps::default();
        assert!(less.add_known("0".to_owned(), &before));
        add(&mut less, "8", Vec::new(), &Table::default());
        assert!(!less.say_the_same_as(&before), "what was there is missed");
    }

    #[test]
    fn of_two_steps_at_a_cursor_both_count() {
        let twice = steps(&["0", "0"]);
        assert_eq!(twice.lists().count(), 2);
        let before = steps(&["0", "8"]);
        let mut again = Steps::default();
        assert!(again.add_known("0".to_owned(), &before) && again.add_known("0".to_owned(), &before));
        assert!(!again.say_the_same_as(&before) && again.lists().count() == 2);
    }

    #[test]
    fn what_the_table_has_is_kept_and_of_the_rest_there_is_only_so_much() {
        let frontend = |said: Result<Said, ()>| match said {
            Ok(Said::Well(frontend)) => Some(Frontend::clone(&frontend)),
            _ => None,
        };
        let table = Table::new(well(0..2).into_iter().filter_map(frontend));
        let mut before = Steps::default();
        add(&mut before, "0", well(2..ROOM.hosts), &table);
        add(&mut before, "1", malformed(0..ROOM.malformed - 1), &table);
        add(&mut before, "2", [well(0..ROOM.hosts + 1), malformed(0..3)].concat(), &table);
        add(&mut before, "3", [well(1..2), malformed(7..9)].concat(), &table);
        let of_the_table = before.lists().filter(|said| said.is_known(&table)).count();
        assert_eq!((of_the_table, before.beyond()), (3, Count { hosts: ROOM.hosts - 3, malformed: 4 }));
        assert_eq!(before.lists().count(), ROOM.hosts + ROOM.malformed + 3);
        // With nothing changed, all of that is known.
        let mut again = Steps::default();
        for cursor in ["0", "1", "2", "3"] {
            assert!(again.digest(cursor, &before).is_some(), "{cursor}");
            again.add_known(cursor.to_owned(), &before);
        }
        assert_eq!(again.beyond(), before.beyond());
        // Where room has become free, a step is read again that has more; so is one that has taken
        // more than there is left.
        let mut less = Steps::default();
        add(&mut less, "0", well(2..ROOM.hosts), &table);
        assert!(less.digest("1", &before).is_some());
        assert_eq!((less.digest("2", &before), less.digest("3", &before)), (None, None));
        let mut more = Steps::default();
        add(&mut more, "0", well(2..ROOM.hosts + 9), &table);
        assert_eq!(more.digest("2", &before), None);
    }
}
