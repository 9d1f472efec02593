//! Dead marks: the targets of a list that somebody could not reach. Pure; the clock is passed in.
//!
//! A mark comes from the set `dead:<host>`, whose members are indexes among the list's URLs, or
//! from a message on the channel `dead`, `host;url;index;length`. It ends by itself: with the set's
//! time to live, or some time after the message. When all of a host's targets are marked, the marks
//! count for nothing: somebody who sees none of them alive is likely to be cut off himself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::list::{Frontend, MOST_TARGETS};
use super::table::Table;
use crate::config::Hosts;

/// The targets that get no requests, as indexes among those of each host, in order.
pub type Out = BTreeMap<Hosts, Box<[usize]>>;

/// The marks of all hosts.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// As the sets said when they were last read.
    read: BTreeMap<Hosts, Ends>,
    /// As messages said since.
    told: BTreeMap<Hosts, Ends>,
    /// No mark ends before. It is asked for with every message, and there may be very many marks.
    first_end: Option<Instant>,
}

/// Marked indexes with their end.
type Ends = BTreeMap<usize, Instant>;

/// Indexes of a list's targets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Indexes(u64);

impl Indexes {
    /// These, or `None` where one is none of a list.
    pub(super) fn of(indexes: impl IntoIterator<Item = usize>) -> Option<Self> {
        let with = |bits: u64, index| (index < MOST_TARGETS).then(|| bits | 1_u64 << index);
        indexes.into_iter().try_fold(0, with).map(Self)
    }

    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        (0..MOST_TARGETS).filter(move |index| self.0 >> index & 1 == 1)
    }
}

/// The sets that a pass found, for the marks to be replaced by. There may be one for every list,
/// whosever it is; of those whose host is not in the table yet only so many are kept.
#[derive(Debug, Default)]
pub(super) struct Sets {
    found: BTreeMap<String, (Duration, Indexes)>,
    /// Sets that count for nothing, by key, with the reason.
    pub(super) void: BTreeMap<String, &'static str>,
    /// How many of them are of hosts that the table does not have.
    strange: usize,
}

/// The most sets of hosts that the table does not have yet, and the most that are told of which
/// count for nothing.
const MOST_STRANGE: usize = 1000;

impl Sets {
    /// `dead:<key>` has these members for so long; `None`: for ever, or too many of them.
    pub(super) fn add(
        &mut self,
        key: String,
        ttl: Option<Duration>,
        indexes: Option<Indexes>,
        table: &Table,
    ) {
        if table.of_key(&key).is_none() {
            if self.strange == MOST_STRANGE {
                return;
            }
            self.strange += 1;
        }
        let why = match (ttl, indexes) {
            (Some(ttl), Some(indexes)) => {
                self.found.insert(key, (ttl, indexes));
                return;
            }
            (None, _) => "it has no time to live",
            (_, None) => "it has more members than a list has targets",
        };
        if self.void.len() < MOST_STRANGE {
            self.void.insert(key, why);
        }
    }
}

impl Marks {
    /// All sets have been read at `now`, for the lists of `table`.
    pub(super) fn read(&mut self, sets: &Sets, table: &Table, now: Instant) {
        self.read.clear();
        for (key, (ttl, indexes)) in &sets.found {
            let Some(frontend) = table.of_key(key) else { continue };
            let indexes = indexes.iter().filter(|index| *index < frontend.targets().len());
            let ends = indexes.filter_map(|index| Some((index, now.checked_add(*ttl)?))).collect();
            self.read.insert(frontend.hosts().clone(), ends);
        }
        self.find_first_end();
    }

    /// A message came at `now`; its mark ends after `ttl`. A message that speaks of another list
    /// than the one in force is passed over.
    pub(super) fn told(&mut self, message: &str, table: &Table, now: Instant, ttl: Duration) {
        if let Some((frontend, index)) = message_of(message, table)
            && let Some(end) = now.checked_add(ttl)
        {
            self.told.entry(frontend.hosts().clone()).or_default().insert(index, end);
            self.first_end = Some(self.first_end.map_or(end, |first| first.min(end)));
        }
    }

    /// These lists are not what they were: what was said of their targets is void.
    pub(super) fn forget<'a>(&mut self, changed: impl Iterator<Item = &'a Arc<Frontend>>) {
        for frontend in changed {
            self.told.remove(frontend.hosts());
        }
    }

    /// Drops the marks that have ended.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.first_end.is_none_or(|first| first > now) {
            return;
        }
        for marks in [&mut self.read, &mut self.told] {
            marks.retain(|_, ends| {
                ends.retain(|_, end| *end > now);
                !ends.is_empty()
            });
        }
        self.find_first_end();
    }

    /// When the next mark ends, or before, where one that would have ended then is gone.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.first_end
    }

    fn find_first_end(&mut self) {
        let all = self.read.values().chain(self.told.values());
        self.first_end = all.flat_map(|ends| ends.values()).min().copied();
    }

    /// The targets that get no requests.
    pub(super) fn out(&self, table: &Table) -> Out {
        let mut marked: BTreeMap<&Hosts, Vec<usize>> = BTreeMap::new();
        for (hosts, ends) in self.read.iter().chain(&self.told) {
            marked.entry(hosts).or_default().extend(ends.keys());
        }
        let out = marked.into_iter().filter_map(|(hosts, mut indexes)| {
            let targets = table.get(hosts)?.targets().len();
            indexes.sort_unstable();
            indexes.dedup();
            indexes.retain(|index| *index < targets);
            let counts = !indexes.is_empty() && indexes.len() < targets;
            counts.then(|| (hosts.clone(), indexes.into()))
        });
        out.collect()
    }
}

/// The message that tells others of a mark.
pub(super) fn message(frontend: &Frontend, index: usize) -> Option<String> {
    let (key, url, length) = (frontend.key(), frontend.url(index)?, frontend.targets().len());
    Some(format!("{key};{url};{index};{length}"))
}

fn message_of<'a>(message: &str, table: &'a Table) -> Option<(&'a Arc<Frontend>, usize)> {
    let mut parts = message.split(';');
    let (key, url) = (parts.next()?, parts.next()?);
    let (index, length): (usize, usize) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let frontend = table.of_key(key)?;
    let is_of_this_list =
        length == frontend.targets().len() && frontend.url(index).is_some_and(|own| own == url);
    (parts.next().is_none() && is_of_this_list).then_some((frontend, index))
}

#[cfg(test)]
mod tests {
    use super::super::bounds::Bounds;
    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    fn table_of(lists: &[(&str, &[&str])]) -> Table {
        let bounds = Bounds { allow: vec!["10.0.0.0/8".parse().unwrap()], ..Bounds::default() };
        Table::new(lists.iter().map(|(key, urls)| {
            let list: Vec<_> = ["label"].iter().chain(*urls).collect();
            Frontend::read(key, &list.iter().map(|text| text.as_bytes()).collect::<Vec<_>>(), &bounds)
                .unwrap()
        }))
    }

    const A: &str = "http://10.0.0.1:80";
    const B: &str = "http://10.0.0.2:80";

    fn two() -> Table {
        table_of(&[("Shop", &[A, B]), ("*.a", &[A, B]), ("one", &[A])])
    }

    fn shown(out: &Out) -> String {
        let shown: Vec<_> = out.iter().map(|(hosts, indexes)| format!("{hosts} {indexes:?}")).collect();
        shown.join(", ")
    }

    #[test]
    fn a_set_marks_the_targets_of_its_own_key_while_it_lives() {
        let (table, now) = (two(), Instant::now());
        let mut sets = Sets::default();
        let mut add = |key: &str, ttl, indexes: &[usize]| {
            sets.add(key.to_owned(), ttl, Indexes::of(indexes.iter().copied()), &table);
        };
        add("Shop", Some(TTL), &[1, 7]);
        add("shop", Some(TTL), &[0]);
        add("x.a", Some(TTL), &[0]);
        add("*.a", None, &[0]);
        add("b", Some(TTL), &[64]);
        add("one", Some(TTL), &[0]);
        add("gone", Some(TTL), &[0]);
        let mut marks = Marks::default();
        marks.read(&sets, &table, now);
        // The only target of `one` is marked, which counts for nothing.
        assert_eq!(shown(&marks.out(&table)), "shop [1]");
        assert_eq!(sets.void.keys().collect::<Vec<_>>(), ["*.a", "b"]);
        assert_eq!(marks.next_end(), Some(now + TTL));
        marks.expire(now + TTL - Duration::from_millis(1));
        assert_eq!(shown(&marks.out(&table)), "shop [1]");
        marks.expire(now + TTL);
        assert_eq!((shown(&marks.out(&table)), marks.next_end()), (String::new(), None));
        // What is read next takes the place of what was read.
        marks.read(&sets, &table, now);
        marks.read(&Sets::default(), &table, now);
        assert_eq!(shown(&marks.out(&table)), "");
    }

    #[test]
    fn sets_of_other_hosts_leave_room_for_those_of_the_table() {
        let (table, mut sets) = (two(), Sets::default());
        for number in 0..2 * MOST_STRANGE {
            sets.add(format!("a{number}"), Some(TTL), Indexes::of([0]), &table);
            sets.add(format!("b{number}"), None, Indexes::of([0]), &table);
        }
        assert_eq!(sets.found.len() + sets.void.len(), MOST_STRANGE);
        sets.add("Shop".to_owned(), Some(TTL), Indexes::of([1]), &table);
        let mut marks = Marks::default();
        marks.read(&sets, &table, Instant::now());
        assert_eq!(shown(&marks.out(&table)), "shop [1]");
    }

    #[test]
    fn a_message_marks_what_it_speaks_of_and_nothing_else() {
        let (table, now) = (two(), Instant::now());
        let mut marks = Marks::default();
        for wrong in [
            "",
            "Shop",
            "Shop;http://10.0.0.2:80;1",
            "Shop;http://10.0.0.2:80;1;2;x",
            "Shop;http://10.0.0.2:80;0;2",
            "Shop;http://10.0.0.2:80;1;3",
            "Shop;http://10.0.0.3:80;1;2",
            "Shop;http://10.0.0.2:80;-1;2",
            "Shop;http://10.0.0.2:80;18446744073709551615;2",
            "shop;http://10.0.0.2:80;1;2",
            "gone;http://10.0.0.2:80;1;2",
            "a b;http://10.0.0.2:80;1;2",
        ] {
            marks.told(wrong, &table, now, TTL);
            assert_eq!(shown(&marks.out(&table)), "", "{wrong}");
        }
        let frontend = table.get(&"shop".parse().unwrap()).unwrap();
        marks.told(&message(frontend, 1).unwrap(), &table, now, TTL);
        marks.told("*.a;http://10.0.0.1:80;0;2", &table, now, TTL);
        assert_eq!(shown(&marks.out(&table)), "shop [1], *.a [0]");
        assert_eq!(message(frontend, 2), None);
        // A pass in which nothing is read of it does not end it; a changed list does.
        marks.read(&Sets::default(), &table, now);
        marks.forget([frontend].into_iter());
        assert_eq!(shown(&marks.out(&table)), "*.a [0]");
        marks.expire(now + TTL);
        assert_eq!(shown(&marks.out(&table)), "");
    }

    #[test]
    fn when_all_are_marked_no_mark_counts() {
        let (table, now) = (two(), Instant::now());
        let mut marks = Marks::default();
        let mut sets = Sets::default();
        sets.add("Shop".to_owned(), Some(TTL), Indexes::of([0]), &table);
        marks.read(&sets, &table, now);
        assert_eq!(shown(&marks.out(&table)), "shop [0]");
        marks.told("Shop;http://10.0.0.2:80;1;2", &table, now, TTL * 2);
        assert_eq!(shown(&marks.out(&table)), "");
        marks.expire(now + TTL);
        assert_eq!(shown(&marks.out(&table)), "shop [1]");
        // The list has become another one, and shorter.
        assert_eq!(shown(&marks.out(&table_of(&[("Shop", &[A])]))), "");
    }
}
