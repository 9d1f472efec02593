//! The clients of an app that are remembered, in the order in which they were seen. Pure.
//!
//! A list without holes: each client knows who was seen just before it and just after it, by their
//! places. Whoever is seen moves to the end; the first is the one to forget.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::window::{Allowance, Standing, Window};

/// Who makes requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Client {
    /// Whoever has this known key.
    Key(Arc<[u8]>),
    /// Whoever is at this address, or in this network.
    Network(IpAddr),
}

/// How much is remembered at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) clients: usize,
    /// Seconds of all clients together in which they made requests.
    pub(super) steps: usize,
}

/// The clients, and what each did.
#[derive(Debug)]
pub(super) struct Book {
    bounds: Bounds,
    places: HashMap<Client, usize>,
    entries: Vec<Entry>,
    /// Who was seen longest ago, and who last; [`NOBODY`] where there is none.
    first: usize,
    last: usize,
    /// How many seconds all remember together.
    steps: usize,
}

#[derive(Debug)]
struct Entry {
    client: Client,
    window: Window,
    /// The time in which its requests count, as of the last one.
    within: u64,
    before: usize,
    after: usize,
}

/// No entry's place.
const NOBODY: usize = usize::MAX;

/// How many that have nothing to remember any more are forgotten with a request: more than come
/// with it.
const FORGOTTEN_AT_ONCE: usize = 2;

impl Book {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, places: HashMap::new(), entries: Vec::new(), first: NOBODY, last: NOBODY, steps: 0 }
    }

    /// Judges a request of `client` at `now`, which is no earlier than the last one.
    pub(super) fn admit(&mut self, client: &Client, now: u64, allowance: Allowance) -> Standing {
        let place = match self.places.get(client) {
            Some(&place) => {
                self.unlink(place);
                place
            }
            None => self.add(client.clone()),
        };
        self.link_last(place);
        let entry = &mut self.entries[place];
        entry.within = allowance.within;
        let before = entry.window.len();
        let standing = entry.window.admit(now, allowance);
        self.steps = self.steps - before + entry.window.len();
        self.tidy(now);
        standing
    }

    /// Forgets those who are too many, and some who have nothing to remember.
    fn tidy(&mut self, now: u64) {
        while self.first != self.last
            && (self.entries.len() > self.bounds.clients || self.steps > self.bounds.steps)
        {
            self.forget_first();
        }
        for _ in 0..FORGOTTEN_AT_ONCE {
            if self.first == self.last {
                return;
            }
            let Entry { window, within, .. } = &mut self.entries[self.first];
            let before = window.len();
            window.forget(now, *within);
            let (after, is_empty) = (window.len(), window.is_empty());
            self.steps = self.steps - before + after;
            if !is_empty {
                return;
            }
            self.forget_first();
        }
    }

    fn add(&mut self, client: Client) -> usize {
        let place = self.entries.len();
        let window = Window::default();
        self.places.insert(client.clone(), place);
        self.entries.push(Entry { client, window, within: 0, before: NOBODY, after: NOBODY });
        place
    }

    fn forget_first(&mut self) {
        let place = self.first;
        self.unlink(place);
        let entry = self.entries.swap_remove(place);
        self.places.remove(&entry.client);
        self.steps -= entry.window.len();
        // The one that was at the end of the memory has this place now.
        if let Some(Entry { client, before, after, .. }) = self.entries.get(place) {
            let (before, after) = (*before, *after);
            if let Some(moved) = self.places.get_mut(client) {
                *moved = place;
            }
            self.set_after(before, place);
            self.set_before(after, place);
        }
    }

    fn unlink(&mut self, place: usize) {
        let Entry { before, after, .. } = self.entries[place];
        self.set_after(before, after);
        self.set_before(after, before);
    }

    fn link_last(&mut self, place: usize) {
        let last = self.last;
        let entry = &mut self.entries[place];
        (entry.before, entry.after) = (last, NOBODY);
        self.set_after(last, place);
        self.last = place;
    }

    /// Notes who comes after the one at `place`; after nobody comes the first.
    fn set_after(&mut self, place: usize, after: usize) {
        match self.entries.get_mut(place) {
            Some(entry) => entry.after = after,
            None => self.first = after,
        }
    }

    /// Notes who comes before the one at `place`; before nobody comes the last.
    fn set_before(&mut self, place: usize, before: usize) {
        match self.entries.get_mut(place) {
            Some(entry) => entry.before = before,
            None => self.last = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    const MINUTE: Allowance = Allowance { most: 500, within: 60_000 };

    fn client(number: u32) -> Client {
        Client::Network(Ipv4Addr::from(number).into())
    }

    fn book(clients: usize, steps: usize) -> Book {
        Book::new(Bounds { clients, steps })
    }

    /// Those that are remembered, the one seen longest ago first.
    fn order(book: &Book) -> Vec<Client> {
        let mut order = Vec::new();
        let (mut place, mut before) = (book.first, NOBODY);
        while let Some(entry) = book.entries.get(place) {
            assert_eq!(entry.before, before);
            assert_eq!(book.places[&entry.client], place);
            order.push(entry.client.clone());
            (before, place) = (place, entry.after);
        }
        assert_eq!(book.last, before);
        assert_eq!((order.len(), order.len()), (book.entries.len(), book.places.len()));
        assert_eq!(book.steps, book.entries.iter().map(|entry| entry.window.len()).sum::<usize>());
        order
    }

    #[test]
    fn of_120_000_clients_the_last_100_000_are_remembered() {
        let mut book = book(100_000, usize::MAX);
        for number in 0..120_000 {
            book.admit(&client(number), 1, MINUTE);
        }
        assert_eq!(order(&book), (20_000..120_000).map(client).collect::<Vec<_>>());
        assert_eq!(book.admit(&client(20_000), 2, MINUTE).left, 498, "remembered");
        assert_eq!(book.admit(&client(0), 2, MINUTE).left, 499, "forgotten");
        assert_eq!(book.admit(&client(20_000), 2, MINUTE).left, 497, "seen a moment ago");
        assert_eq!(book.admit(&client(20_001), 2, MINUTE).left, 499, "now the one seen longest ago");
    }

    #[test]
    fn many_seconds_of_few_clients_are_bounded_as_well() {
        let day = Allowance { most: 1_000_000, within: 86_400_000 };
        let mut book = book(100, 1_000);
        for second in 0..600 {
            for number in 0..3 {
                book.admit(&client(number), second * 1_000, day);
            }
            assert!(book.steps <= 1_000);
        }
        order(&book);
        let alone = book.admit(&client(9), 600_000, day);
        assert_eq!(alone.left, 999_999);
    }

    #[test]
    fn who_has_nothing_to_remember_is_forgotten_soon() {
        let mut book = book(100, 1_000);
        for number in 0..50 {
            book.admit(&client(number), 0, MINUTE);
        }
        for _ in 0..25 {
            book.admit(&client(99), 60_000, MINUTE);
        }
        assert_eq!(order(&book), [client(99)]);
    }

    proptest! {
        #[test]
        fn the_list_holds_whatever_comes(
            requests in proptest::collection::vec((0_u32..12, 0_u64..3_000), 1..300),
            clients in 1_usize..10,
            steps in 1_usize..30,
        ) {
            let (mut book, mut now, mut seen) = (book(clients, steps), 0, Vec::new());
            let allowance = Allowance { most: 3, within: 5_000 };
            for (number, gap) in requests {
                now += gap;
                book.admit(&client(number), now, allowance);
                seen.retain(|before| *before != client(number));
                seen.push(client(number));
                let order = order(&book);
                prop_assert!(order.len() <= clients);
                prop_assert!(book.steps <= steps || order.len() == 1);
                prop_assert!(seen.ends_with(&order), "the others were seen before these");
            }
        }
    }
}
