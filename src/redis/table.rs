//! The table: what every well-formed list says, by its hosts. Pure data: a table does not change; a
//! new one takes its place.
//!
//! A [`Look`] collects what one pass over Redis finds. Its table differs from the one before it in
//! what changed, and shares the rest.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;

use super::bounds::Bounds;
use super::list::{Frontend, Malformed};
use crate::config::Hosts;

/// The most hosts of a table.
pub(super) const MOST_HOSTS: usize = 100_000;

/// What every list says, in the order of their hosts, of which no two are the same.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Table(Box<[Arc<Frontend>]>);

/// How one table differs from another.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What is new, or says something else.
    pub set: Vec<Arc<Frontend>>,
    /// What is gone.
    pub removed: Vec<Arc<Frontend>>,
}

/// What one list says, by the host as its key has it.
#[derive(Debug, Clone)]
pub(super) enum Said {
    /// It is well-formed.
    Well(Arc<Frontend>),
    /// It says nothing, for this reason. In a box: most are well-formed, and there are very many.
    Malformed(Box<(String, Malformed)>),
}

/// Lists by what they say.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    /// Well-formed ones.
    pub(super) hosts: usize,
    /// Those that say nothing.
    pub(super) malformed: usize,
}

impl AddAssign for Count {
    fn add_assign(&mut self, more: Self) {
        self.hosts += more.hosts;
        self.malformed += more.malformed;
    }
}

/// One pass over the lists of Redis.
#[derive(Debug)]
pub(super) struct Look {
    before: Arc<Table>,
    found: BTreeMap<Hosts, Arc<Frontend>>,
    /// By the host as the key has it.
    malformed: BTreeMap<String, Malformed>,
}

/// What a pass found.
#[derive(Debug)]
pub(super) struct Looked {
    /// The table that the lists say.
    pub(super) table: Table,
    /// The lists that say nothing, by the host as the key has it.
    pub(super) malformed: BTreeMap<String, Malformed>,
    /// Hosts that the table has no room for, and lists that say nothing beside those in
    /// `malformed`.
    pub(super) beyond: Count,
}

impl Table {
    /// Of these frontends the first for each host.
    pub(super) fn new(frontends: impl IntoIterator<Item = Frontend>) -> Self {
        let mut table = BTreeMap::new();
        for frontend in frontends {
            table.entry(frontend.hosts().clone()).or_insert_with(|| Arc::new(frontend));
        }
        Self::of(table)
    }

    fn of(by_hosts: BTreeMap<Hosts, Arc<Frontend>>) -> Self {
        Self(by_hosts.into_values().collect())
    }

    /// What the list for these hosts says.
    pub fn get(&self, hosts: &Hosts) -> Option<&Arc<Frontend>> {
        let at = self.0.binary_search_by(|frontend| frontend.hosts().cmp(hosts)).ok()?;
        self.0.get(at)
    }

    /// What the list whose key has this host says.
    pub(super) fn of_key(&self, key: &str) -> Option<&Arc<Frontend>> {
        self.get(&key.parse().ok()?).filter(|frontend| frontend.key() == key)
    }

    /// All of them, in the order of their hosts.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Frontend>> + ExactSizeIterator {
        self.0.iter()
    }

    /// How many hosts it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no host.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How it differs from `old`.
    pub fn changes_since(&self, old: &Self) -> Changes {
        let mut changes = Changes::default();
        let (mut new, mut old) = (self.0.iter().peekable(), old.0.iter().peekable());
        loop {
            // Both are in the order of their hosts.
            let order = match (new.peek(), old.peek()) {
                (Some(new), Some(old)) => new.hosts().cmp(old.hosts()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return changes,
            };
            let new = if order == Ordering::Greater { None } else { new.next() };
            let old = if order == Ordering::Less { None } else { old.next() };
            match (new, old) {
                // Most are shared, and need no look at what they say.
                (Some(new), Some(old)) if Arc::ptr_eq(new, old) || new == old => {}
                (Some(new), _) => changes.set.push(Arc::clone(new)),
                (None, old) => changes.removed.extend(old.cloned()),
            }
        }
    }

    /// The table that its lists say by other bounds: without those that are forbidden now.
    pub(super) fn within(&self, bounds: &Bounds) -> Self {
        let is_admitted = |frontend: &Frontend| {
            let list: Vec<_> = frontend.list().map(|element| element.into_owned()).collect();
            Frontend::read(frontend.key(), &list, bounds).is_ok_and(|again| again == *frontend)
        };
        Self(self.0.iter().filter(|frontend| is_admitted(frontend)).cloned().collect())
    }
}

impl Said {
    /// The list of `frontend:<key>` says nothing, for this reason.
    pub(super) fn malformed(key: String, reason: Malformed) -> Self {
        Self::Malformed(Box::new((key, reason)))
    }

    /// Whether `table` has what this very list said before.
    pub(super) fn is_known(&self, table: &Table) -> bool {
        let key = match self {
            Self::Well(frontend) => frontend.key(),
            Self::Malformed(malformed) => &malformed.0,
        };
        table.of_key(key).is_some()
    }

    /// The list of `frontend:<key>` has these elements. What is in `before` already is shared with
    /// it.
    pub(super) fn of<E: AsRef<[u8]>>(key: &str, elements: &[E], before: &Table, bounds: &Bounds) -> Self {
        let known = key.parse().ok().and_then(|hosts| before.get(&hosts));
        match known.filter(|known| known.is_of(key, elements)) {
            Some(known) => Self::Well(Arc::clone(known)),
            None => match Frontend::read(key, elements, bounds) {
                Ok(frontend) => Self::Well(Arc::new(frontend)),
                Err(reason) => Self::malformed(key.to_owned(), reason),
            },
        }
    }
}

impl Look {
    /// A pass after the one that made `before`.
    pub(super) fn new(before: Arc<Table>) -> Self {
        Self { before, found: BTreeMap::new(), malformed: BTreeMap::new() }
    }

    /// A list says this. A pass may see a list twice; then the later one counts.
    pub(super) fn take(&mut self, said: &Said) {
        match said {
            Said::Well(frontend) => self.found(Arc::clone(frontend)),
            Said::Malformed(malformed) => {
                let (key, reason) = &**malformed;
                if let Ok(hosts) = key.parse()
                    && self.found.get(&hosts).is_some_and(|found| found.key() == *key)
                {
                    self.found.remove(&hosts);
                }
                self.malformed.insert(key.clone(), reason.clone());
            }
        }
    }

    /// Of two keys for the same host the one counts that is written as hosts are compared, else the
    /// first in byte order: an order that does not depend on the pass.
    fn found(&mut self, frontend: Arc<Frontend>) {
        let rank = |key: &str, hosts: &Hosts| (key != hosts.to_string(), key.to_owned());
        let hosts = frontend.hosts().clone();
        self.malformed.remove(frontend.key());
        let (first, second) = match self.found.remove(&hosts) {
            None => (frontend, None),
            Some(same) if same.key() == frontend.key() => (frontend, None),
            Some(other) if rank(other.key(), &hosts) < rank(frontend.key(), &hosts) => {
                (other, Some(frontend))
            }
            Some(other) => (frontend, Some(other)),
        };
        if let Some(second) = second {
            self.malformed.insert(second.key().to_owned(), Malformed::Twice(first.key().to_owned()));
        }
        self.found.insert(hosts, first);
    }

    /// The end of the pass, which has seen so many lists beyond those that were taken. A malformed
    /// list leaves its host as it was.
    pub(super) fn finish(mut self, beyond: Count) -> Looked {
        for key in self.malformed.keys() {
            if let Some(before) = self.before.of_key(key) {
                self.found.entry(before.hosts().clone()).or_insert_with(|| Arc::clone(before));
            }
        }
        let mut looked = Looked { table: Table::of(self.found), malformed: self.malformed, beyond };
        looked.bound(&self.before);
        looked
    }
}

impl Looked {
    /// The table keeps these, which are in `before` and not in it.
    pub(super) fn keep(&mut self, kept: &[Arc<Frontend>], before: &Table) {
        if !kept.is_empty() {
            let mut all = [&*self.table.0, kept].concat();
            all.sort_by(|one, other| one.hosts().cmp(other.hosts()));
            self.table = Table(all.into());
            self.bound(before);
        }
    }

    /// Where there are too many hosts, those stay that were there before.
    fn bound(&mut self, before: &Table) {
        let left_out = self.table.len().saturating_sub(MOST_HOSTS);
        if left_out > 0 {
            let mut left = left_out;
            // The last ones go. At least as many are new: the table before had no more than the
            // most.
            let mut stays = |frontend: &&Arc<Frontend>| {
                let goes = left > 0 && before.get(frontend.hosts()).is_none();
                left -= usize::from(goes);
                !goes
            };
            let mut hosts: Vec<_> = self.table.iter().rev().filter(&mut stays).cloned().collect();
            hosts.reverse();
            self.table = Table(hosts.into());
            self.beyond.hosts += left_out;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds() -> Bounds {
        Bounds { allow: vec!["10.0.0.0/8".parse().unwrap()], ..Bounds::default() }
    }

    fn looked(before: &Table, lists: &[(&str, &str)]) -> Looked {
        let mut look = Look::new(Arc::new(before.clone()));
        for (key, url) in lists {
            take(&mut look, key, url);
        }
        look.finish(Count::default())
    }

    fn take(look: &mut Look, key: &str, url: &str) {
        look.take(&Said::of(key, &["label", url], &look.before, &bounds()));
    }

    fn table(lists: &[(&str, &str)]) -> Table {
        looked(&Table::default(), lists).table
    }

    fn shown(table: &Table) -> Vec<String> {
        table.iter().map(|one| format!("{} {}", one.key(), one.targets()[0])).collect()
    }

    const A: &str = "http://10.0.0.1:80";
    const B: &str = "http://10.0.0.2:80";
    const BAD: &str = "http://shop:80";

    #[test]
    fn what_did_not_change_is_shared() {
        let before = table(&[("a", A), ("b", A), ("c", A)]);
        let after = looked(&before, &[("a", A), ("b", B), ("d", B)]).table;
        let hosts = |host: &str| host.parse().unwrap();
        assert!(Arc::ptr_eq(before.get(&hosts("a")).unwrap(), after.get(&hosts("a")).unwrap()));
        let changes = after.changes_since(&before);
        let keys = |list: &[Arc<Frontend>]| list.iter().map(|one| one.key().to_owned()).collect::<Vec<_>>();
        assert_eq!(
            (keys(&changes.set), keys(&changes.removed)),
            (vec!["b".into(), "d".into()], vec!["c".into()])
        );
        assert_eq!(after.changes_since(&after.clone()), Changes::default());
    }

    #[test]
    fn a_malformed_list_leaves_its_host_as_it_was() {
        let before = table(&[("a", A), ("b", A)]);
        let after = looked(&before, &[("a", BAD), ("b", B), ("c", BAD)]);
        assert_eq!(shown(&after.table), ["a 10.0.0.1:80", "b 10.0.0.2:80"]);
        assert_eq!(after.malformed.keys().collect::<Vec<_>>(), ["a", "c"]);
        // And when the list is gone, so is the host.
        assert_eq!(shown(&looked(&after.table, &[("b", B)]).table), ["b 10.0.0.2:80"]);
    }

    #[test]
    fn of_two_keys_for_a_host_the_plain_one_counts() {
        for order in [[("A.b", A), ("a.B", B), ("a.b", B)], [("a.b", B), ("A.b", A), ("a.B", B)]] {
            let looked = looked(&Table::default(), &order);
            assert_eq!(shown(&looked.table), ["a.b 10.0.0.2:80"]);
            assert_eq!(looked.malformed["A.b"].to_string(), "frontend:a.b names the same host");
            assert_eq!(looked.malformed.len(), 2, "{:?}", looked.malformed);
        }
        assert_eq!(shown(&table(&[("a.B", A), ("A.b", B)])), ["A.b 10.0.0.2:80"]);
        // The other key's list goes malformed: it is not the host's any more.
        let before = table(&[("a.b", A)]);
        assert_eq!(shown(&looked(&before, &[("A.b", BAD)]).table), Vec::<String>::new());
    }

    #[test]
    fn a_pass_may_see_a_list_twice() {
        let looked =
            looked(&Table::default(), &[("a", BAD), ("a", A), ("b", A), ("b", B), ("c", A), ("c", BAD)]);
        assert_eq!(shown(&looked.table), ["a 10.0.0.1:80", "b 10.0.0.2:80"]);
        assert_eq!(looked.malformed.keys().collect::<Vec<_>>(), ["c"]);
    }

    #[test]
    fn other_bounds_take_out_what_they_forbid() {
        let before = table(&[("a", A), ("b", B)]);
        let narrow = Bounds { allow: vec!["10.0.0.1/32".parse().unwrap()], ..Bounds::default() };
        assert_eq!(shown(&before.within(&narrow)), ["a 10.0.0.1:80"]);
        assert_eq!(before.within(&bounds()), before);
    }

    #[test]
    fn hosts_are_bounded_and_those_that_are_there_stay() {
        let mut look = Look::new(Arc::default());
        for number in 0..MOST_HOSTS {
            take(&mut look, &format!("m{number}"), A);
        }
        let full = look.finish(Count::default());
        assert_eq!((full.table.len(), full.beyond.hosts), (MOST_HOSTS, 0));
        let mut look = Look::new(Arc::new(full.table.clone()));
        for number in 1..MOST_HOSTS {
            take(&mut look, &format!("m{number}"), A);
        }
        for host in ["a", "b", "z"] {
            take(&mut look, host, A);
        }
        let mut more = look.finish(Count { hosts: 1, malformed: 2 });
        assert_eq!((more.table.len(), more.beyond), (MOST_HOSTS, Count { hosts: 3, malformed: 2 }));
        let changes = more.table.changes_since(&full.table);
        assert_eq!((changes.set[0].key(), changes.set.len(), changes.removed[0].key()), ("a", 1, "m0"));
        // What is kept takes the room of what is new.
        more.keep(&changes.removed, &full.table);
        assert_eq!(more.table.changes_since(&full.table), Changes::default());
        assert_eq!((more.table.len(), more.beyond.hosts), (MOST_HOSTS, 4));
    }
}
