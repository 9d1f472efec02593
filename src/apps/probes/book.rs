//! Which addresses are probed, which of them is next, and which fail. Pure; the clock is passed in.
//!
//! An address is in the book as long as some host has it among its targets, and once, however many
//! have it: what is asked is the same for all of them. One that was never probed counts as healthy.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Instant;

use crate::config::Hosts;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Book {
    entries: HashMap<SocketAddr, Entry>,
    /// Those that wait for their next probe, the first one first.
    waiting: BTreeSet<(Instant, SocketAddr)>,
    /// Those that fail since the last [`Book::turned`], or fail no more.
    turned: HashSet<SocketAddr>,
}

/// One address.
#[derive(Debug)]
struct Entry {
    /// Whose target it is.
    hosts: HashSet<Hosts>,
    /// Bad probes in a row.
    bad: u32,
    /// Why the last probe was bad.
    error: Option<Box<str>>,
    /// When it is probed next; `None`: it is being probed.
    due: Option<Instant>,
}

impl Book {
    /// These hosts have this address from `now` on. One that is new is probed at once.
    pub(super) fn add(&mut self, hosts: &Hosts, addr: SocketAddr, now: Instant) {
        let entry = self.entries.entry(addr).or_insert_with(|| {
            self.waiting.insert((now, addr));
            Entry { hosts: HashSet::new(), bad: 0, error: None, due: Some(now) }
        });
        if !entry.hosts.contains(hosts) {
            entry.hosts.insert(hosts.clone());
        }
    }

    /// These hosts have it no more.
    pub(super) fn remove(&mut self, hosts: &Hosts, addr: SocketAddr) {
        let Some(entry) = self.entries.get_mut(&addr) else { return };
        entry.hosts.remove(hosts);
        if entry.hosts.is_empty() {
            if let Some(due) = entry.due {
                self.waiting.remove(&(due, addr));
            }
            self.entries.remove(&addr);
            self.turned.remove(&addr);
        }
    }

    /// The next address that is due at `now`. It is being probed from then on, until
    /// [`Book::probed`].
    pub(super) fn next(&mut self, now: Instant) -> Option<SocketAddr> {
        let (due, addr) = *self.waiting.first()?;
        if due > now {
            return None;
        }
        self.waiting.pop_first();
        if let Some(entry) = self.entries.get_mut(&addr) {
            entry.due = None;
        }
        Some(addr)
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.first().map(|(due, _)| *due)
    }

    /// A probe had this outcome: why it was bad, or nothing. An address fails after so many
    /// `failures` in a row.
    pub(super) fn probed(&mut self, addr: SocketAddr, error: Option<String>, failures: u32) {
        let Some(entry) = self.entries.get_mut(&addr) else { return };
        let failed = entry.bad >= failures;
        entry.bad = if error.is_some() { entry.bad.saturating_add(1) } else { 0 };
        entry.error = error.map(Into::into);
        if failed != (entry.bad >= failures) {
            self.turned.insert(addr);
        }
    }

    /// It is probed again at `due`.
    pub(super) fn again(&mut self, addr: SocketAddr, due: Instant) {
        let Some(entry) = self.entries.get_mut(&addr) else { return };
        if let Some(former) = entry.due.replace(due) {
            self.waiting.remove(&(former, addr));
        }
        self.waiting.insert((due, addr));
    }

    /// Nobody waits longer than until `latest`.
    pub(super) fn hasten(&mut self, latest: Instant) {
        while let Some((due, addr)) = self.waiting.last().copied().filter(|(due, _)| *due > latest) {
            self.waiting.remove(&(due, addr));
            self.waiting.insert((latest, addr));
            if let Some(entry) = self.entries.get_mut(&addr) {
                entry.due = Some(latest);
            }
        }
    }

    /// Those that are being probed are due at `now`: nothing will come of their probes.
    pub(super) fn all_again(&mut self, now: Instant) {
        for (addr, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.due.is_none()) {
            entry.due = Some(now);
            self.waiting.insert((now, *addr));
        }
    }

    /// The hosts of which an address has begun or ceased to fail since this was asked last.
    pub(super) fn turned(&mut self) -> HashSet<Hosts> {
        let turned = std::mem::take(&mut self.turned);
        let entries = turned.iter().filter_map(|addr| self.entries.get(addr));
        entries.flat_map(|entry| &entry.hosts).cloned().collect()
    }

    /// Whether [`Book::turned`] has any.
    pub(super) fn has_turned(&self) -> bool {
        !self.turned.is_empty()
    }

    /// How many probes of it were bad, one after the other.
    pub(super) fn bad(&self, addr: SocketAddr) -> u32 {
        self.entries.get(&addr).map_or(0, |entry| entry.bad)
    }

    /// Why its last probe was bad.
    pub(super) fn error(&self, addr: SocketAddr) -> Option<&str> {
        self.entries.get(&addr)?.error.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const FAILURES: u32 = 2;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    fn hosts(name: &str) -> Hosts {
        name.parse().unwrap()
    }

    fn bad() -> Option<String> {
        Some("bad".to_owned())
    }

    #[test]
    fn an_address_of_many_hosts_is_probed_once_and_as_long_as_one_has_it() {
        let (mut book, now) = (Book::default(), Instant::now());
        for name in ["a", "b", "c"] {
            book.add(&hosts(name), addr(1), now);
        }
        book.add(&hosts("a"), addr(2), now);
        assert_eq!((book.next(now), book.next(now), book.next(now)), (Some(addr(1)), Some(addr(2)), None));
        let later = now + Duration::from_secs(5);
        book.again(addr(1), later);
        assert_eq!((book.next_due(), book.next(now), book.next(later)), (Some(later), None, Some(addr(1))));
        book.again(addr(1), later);
        book.remove(&hosts("a"), addr(1));
        book.remove(&hosts("b"), addr(1));
        assert_eq!(book.next_due(), Some(later));
        book.remove(&hosts("c"), addr(1));
        book.remove(&hosts("a"), addr(2));
        // Its probe was under way.
        book.probed(addr(2), bad(), 1);
        book.again(addr(2), later);
        assert_eq!((book.next_due(), book.turned().len()), (None, 0));
    }

    #[test]
    fn it_fails_after_so_many_bad_probes_and_one_good_one_ends_that() {
        let (mut book, now) = (Book::default(), Instant::now());
        book.add(&hosts("a"), addr(1), now);
        book.add(&hosts("b"), addr(1), now);
        book.add(&hosts("c"), addr(2), now);
        book.probed(addr(1), bad(), FAILURES);
        assert!(!book.has_turned());
        book.probed(addr(1), None, FAILURES);
        book.probed(addr(1), bad(), FAILURES);
        assert_eq!((book.has_turned(), book.bad(addr(1)), book.error(addr(1))), (false, 1, Some("bad")));
        book.probed(addr(1), bad(), FAILURES);
        assert!(book.has_turned());
        assert_eq!(book.turned(), [hosts("a"), hosts("b")].into());
        book.probed(addr(1), bad(), FAILURES);
        assert!(!book.has_turned(), "it failed before");
        book.probed(addr(1), None, FAILURES);
        assert_eq!((book.turned().len(), book.bad(addr(1)), book.error(addr(1))), (2, 0, None));
    }

    #[test]
    fn with_a_shorter_interval_nobody_waits_for_the_longer_one() {
        let (mut book, now) = (Book::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        for (port, due) in [(1, 2), (2, 60), (3, 90)] {
            book.add(&hosts("a"), addr(port), now);
            book.next(now);
            book.again(addr(port), at(due));
        }
        book.hasten(at(5));
        let due = || book.next(at(5));
        assert_eq!(std::iter::from_fn(due).collect::<Vec<_>>(), [addr(1), addr(2), addr(3)]);
        assert_eq!(book.next_due(), None);
    }

    #[test]
    fn what_never_ended_is_probed_again() {
        let (mut book, now) = (Book::default(), Instant::now());
        book.add(&hosts("a"), addr(1), now);
        assert_eq!((book.next(now), book.next(now)), (Some(addr(1)), None));
        book.all_again(now);
        assert_eq!((book.next(now), book.next(now)), (Some(addr(1)), None));
    }
}
