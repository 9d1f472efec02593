//! Who is here: how many connections, requests and tunnels each client address has, over all
//! threads.
//!
//! State: one [`Crowd`] a service, shared by the threads; that of the board's own service has the
//! connections, too. Looking an address up takes a lock for one look at a map; a thread skips it
//! for the address that came last ([`Reception`]). A request only adds to a counter and takes from
//! it. An address is forgotten with its last guard: [`Visit`], [`Guest`] or [`Stay`].

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::clock;

/// How many maps the addresses are spread over, each with a lock of its own.
const MAPS: usize = 16;

/// How often a full limit is logged, in milliseconds.
const TOLD_EVERY: u64 = 60_000;

/// What can be full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Connections,
    ConnectionsPerAddress,
    RequestsPerAddress,
    Tunnels,
    UpstreamConnections,
    /// File descriptors of this process, except those that are kept back.
    Descriptors,
}

impl Limit {
    /// How many there are.
    const COUNT: usize = 6;

    /// Its key in the configuration.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Connections => "limits.connections",
            Self::ConnectionsPerAddress => "limits.connections_per_address",
            Self::RequestsPerAddress => "limits.requests_per_address",
            Self::Tunnels => "limits.tunnels",
            Self::UpstreamConnections => "upstream.max_connections",
            Self::Descriptors => "the limit of open files",
        }
    }

    /// What happens beyond the limit, and the word for what an address has of it.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Connections | Self::ConnectionsPerAddress | Self::Descriptors => {
                ("further connections are closed at once", "connections")
            }
            Self::RequestsPerAddress => ("further requests get 429 too_many_at_once", "requests"),
            Self::Tunnels => ("further upgrades get 503 too_many_tunnels", "tunnels"),
            Self::UpstreamConnections => {
                ("requests that wait longer than upstream.connect_timeout get 503 upstream_full", "requests")
            }
        }
    }
}

/// Everybody who is here.
#[derive(Debug)]
pub(super) struct Crowd {
    /// The app of several whose clients they are.
    app: Option<String>,
    /// Made when somebody comes: most of very many apps have nobody.
    maps: OnceLock<Box<Maps>>,
    hasher: RandomState,
    connections: AtomicUsize,
    tunnels: AtomicUsize,
    /// When each limit was last logged as full; 0: never.
    told: [AtomicU64; Limit::COUNT],
}

type Maps = [Mutex<HashMap<IpAddr, Known>>; MAPS];

/// An address, and how many guests hold it.
#[derive(Debug)]
struct Known {
    address: Arc<Address>,
    guests: usize,
}

/// What one address has.
#[derive(Debug)]
struct Address {
    ip: IpAddr,
    connections: AtomicUsize,
    requests: AtomicUsize,
    tunnels: AtomicUsize,
}

impl Address {
    fn new(ip: IpAddr) -> Self {
        let zero = || AtomicUsize::new(0);
        Self { ip, connections: zero(), requests: zero(), tunnels: zero() }
    }

    /// How much it has of what `limit` counts.
    fn share(&self, limit: Limit) -> usize {
        let counter = match limit {
            Limit::Connections | Limit::ConnectionsPerAddress | Limit::Descriptors => &self.connections,
            Limit::RequestsPerAddress | Limit::UpstreamConnections => &self.requests,
            Limit::Tunnels => &self.tunnels,
        };
        counter.load(Relaxed)
    }
}

/// Who fills a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Filler {
    address: IpAddr,
    share: usize,
}

impl Crowd {
    /// Nobody yet. `app`: the one of several whose clients they will be.
    pub(super) fn of(app: Option<String>) -> Arc<Self> {
        Arc::new(Self {
            app,
            maps: OnceLock::new(),
            hasher: RandomState::new(),
            connections: AtomicUsize::new(0),
            tunnels: AtomicUsize::new(0),
            told: Default::default(),
        })
    }

    /// The address `ip`, remembered as long as the guest lives.
    pub(super) fn guest(self: &Arc<Self>, ip: IpAddr) -> Rc<Guest> {
        let mut map = self.map(ip);
        let known = map.entry(ip).or_insert_with(|| Known { address: Arc::new(Address::new(ip)), guests: 0 });
        known.guests += 1;
        Rc::new(Guest { crowd: self.clone(), address: known.address.clone() })
    }

    /// Warns once a minute that `limit` is full, and names `address`, or else the address that has
    /// most of it.
    #[cold]
    pub(super) fn warn_full(&self, limit: Limit, most: Option<usize>, address: Option<IpAddr>) {
        if !self.is_news(limit) {
            return;
        }
        let filler = match address {
            Some(address) => Some(self.share(address, limit)),
            None => self.filler(limit),
        };
        tracing::warn!("{}", notice(limit, self.app.as_deref(), most, filler));
    }

    /// Whether it is time to log that `limit` is full: true once a minute.
    fn is_news(&self, limit: Limit) -> bool {
        let (told, now) = (&self.told[limit as usize], clock::uptime());
        let due = |last: u64| (last == 0 || now >= last + TOLD_EVERY).then_some(now);
        told.fetch_update(Relaxed, Relaxed, due).is_ok()
    }

    /// What `address` has of what `limit` counts.
    fn share(&self, address: IpAddr, limit: Limit) -> Filler {
        let share = self.map(address).get(&address).map_or(0, |known| known.address.share(limit));
        Filler { address, share }
    }

    /// The address that has most of what `limit` counts. Looks at all addresses.
    fn filler(&self, limit: Limit) -> Option<Filler> {
        let most = |map: &Mutex<HashMap<IpAddr, Known>>| {
            let all = lock(map);
            let shares = all
                .values()
                .map(|known| Filler { address: known.address.ip, share: known.address.share(limit) });
            shares.max_by_key(|filler| filler.share)
        };
        self.maps().iter().filter_map(most).max_by_key(|filler| filler.share)
    }

    fn map(&self, ip: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, Known>> {
        let at = usize::try_from(self.hasher.hash_one(ip) % MAPS as u64).unwrap_or(0);
        lock(&self.maps()[at])
    }

    fn maps(&self) -> &Maps {
        self.maps.get_or_init(|| Box::new(std::array::from_fn(|_| Mutex::default())))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The line that says that `limit`, whose value is `most`, is full; `app`: for this one of several.
fn notice(limit: Limit, app: Option<&str>, most: Option<usize>, filler: Option<Filler>) -> String {
    let (consequence, what) = limit.words();
    let most = most.map_or_else(String::new, |most| format!(" = {most}"));
    let app = app.map_or_else(String::new, |app| format!(" for the app {app}"));
    let mut text = format!("{}{most} is full{app}: {consequence}", limit.key());
    if let Some(Filler { address, share }) = filler {
        text.push_str(&format!("; {address} has {share} {what}"));
    }
    if limit == Limit::RequestsPerAddress {
        text.push_str("; if this is a proxy in front of portok, add it to proxy.trusted");
    }
    text
}

/// Where one thread looks addresses up: it remembers the one that came last, so that many of one
/// address are looked up once (with a proxy in front of portok, all of them).
#[derive(Debug)]
pub(super) struct Reception {
    crowd: Arc<Crowd>,
    last: RefCell<Option<Rc<Guest>>>,
}

impl Reception {
    pub(super) fn new(crowd: Arc<Crowd>) -> Self {
        Self { crowd, last: RefCell::default() }
    }

    pub(super) fn crowd(&self) -> &Arc<Crowd> {
        &self.crowd
    }

    /// The guest of address `ip`. The crowd is asked only if another address came last.
    pub(super) fn guest(&self, ip: IpAddr) -> Rc<Guest> {
        let mut last = self.last.borrow_mut();
        match &*last {
            Some(guest) if guest.ip() == ip => guest.clone(),
            _ => last.insert(self.crowd.guest(ip)).clone(),
        }
    }
}

/// A client's address, while a connection or request of it is here.
#[derive(Debug)]
pub(super) struct Guest {
    crowd: Arc<Crowd>,
    address: Arc<Address>,
}

impl Guest {
    pub(super) fn ip(&self) -> IpAddr {
        self.address.ip
    }

    /// Whether it is one of `crowd`.
    pub(super) fn is_of(&self, crowd: &Arc<Crowd>) -> bool {
        Arc::ptr_eq(&self.crowd, crowd)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let ip = self.address.ip;
        let mut map = self.crowd.map(ip);
        if let Some(known) = map.get_mut(&ip) {
            known.guests -= 1;
            if known.guests == 0 {
                map.remove(&ip);
            }
        }
    }
}

/// One connection of an address.
#[derive(Debug)]
pub(super) struct Visit {
    guest: Rc<Guest>,
}

impl Visit {
    /// Counts a connection of `guest`. Fails with the limit that is full: there are `most` already,
    /// or `most_each` of this address.
    pub(super) fn begin(guest: Rc<Guest>, most: usize, most_each: usize) -> Result<Self, Limit> {
        let visit = Self { guest };
        let all = visit.guest.crowd.connections.fetch_add(1, Relaxed);
        let own = visit.guest.address.connections.fetch_add(1, Relaxed);
        if all >= most {
            Err(Limit::Connections)
        } else if own >= most_each {
            Err(Limit::ConnectionsPerAddress)
        } else {
            Ok(visit)
        }
    }

    pub(super) fn guest(&self) -> &Rc<Guest> {
        &self.guest
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.guest.address.connections.fetch_sub(1, Relaxed);
        self.guest.crowd.connections.fetch_sub(1, Relaxed);
    }
}

/// One request of an address until its answer is over, or the tunnel that it became.
#[derive(Debug)]
pub(super) struct Stay {
    guest: Rc<Guest>,
    request: bool,
    tunnel: bool,
}

impl Stay {
    /// Counts a request. Also returns how many the address has under way now, this one included.
    pub(super) fn begin(guest: Rc<Guest>) -> (Self, usize) {
        let number = guest.address.requests.fetch_add(1, Relaxed) + 1;
        (Self { guest, request: true, tunnel: false }, number)
    }

    pub(super) fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Takes a place among `most` tunnels. Returns false if all are taken.
    pub(super) fn reserve_tunnel(&mut self, most: usize) -> bool {
        let more = |open| (open < most).then_some(open + 1);
        let reserved = self.guest.crowd.tunnels.fetch_update(Relaxed, Relaxed, more).is_ok();
        if reserved {
            self.guest.address.tunnels.fetch_add(1, Relaxed);
            self.tunnel = true;
        }
        reserved
    }

    /// Notes that the request is the tunnel now that it has a place for: it no longer counts as a
    /// request.
    pub(super) fn become_tunnel(&mut self) {
        if std::mem::take(&mut self.request) {
            self.guest.address.requests.fetch_sub(1, Relaxed);
        }
    }

    /// Gives the place among the tunnels back.
    pub(super) fn leave_tunnels(&mut self) {
        if std::mem::take(&mut self.tunnel) {
            self.guest.address.tunnels.fetch_sub(1, Relaxed);
            self.guest.crowd.tunnels.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.become_tunnel();
        self.leave_tunnels();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const TWO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    fn known(crowd: &Crowd) -> usize {
        crowd.maps().iter().map(|map| lock(map).len()).sum()
    }

    #[test]
    fn an_address_is_forgotten_with_the_last_that_came_of_it() {
        let crowd = Crowd::of(None);
        let first = Visit::begin(crowd.guest(ONE), 10, 10).unwrap();
        let second = Visit::begin(crowd.guest(ONE), 10, 10).unwrap();
        let other = Visit::begin(crowd.guest(TWO), 10, 10).unwrap();
        let (stay, _) = Stay::begin(second.guest().clone());
        assert_eq!(known(&crowd), 2);
        drop((first, second, other));
        assert_eq!(known(&crowd), 1, "a request outlives its connection");
        drop(stay);
        assert_eq!(known(&crowd), 0);
        assert_eq!(crowd.connections.load(Relaxed), 0);
    }

    #[test]
    fn a_refused_connection_takes_no_place() {
        let crowd = Crowd::of(None);
        let _one = Visit::begin(crowd.guest(ONE), 2, 1).unwrap();
        for _ in 0..3 {
            assert_eq!(Visit::begin(crowd.guest(ONE), 2, 1).unwrap_err(), Limit::ConnectionsPerAddress);
        }
        let two = Visit::begin(crowd.guest(TWO), 2, 1).unwrap();
        assert_eq!(Visit::begin(crowd.guest(TWO), 2, 9).unwrap_err(), Limit::Connections);
        drop(two);
        Visit::begin(crowd.guest(TWO), 2, 1).unwrap();
    }

    #[test]
    fn a_tunnel_is_no_request() {
        let crowd = Crowd::of(None);
        let guest = crowd.guest(ONE);
        let (mut stay, number) = Stay::begin(guest.clone());
        assert_eq!(number, 1);
        assert!(stay.reserve_tunnel(1));
        let (mut late, number) = Stay::begin(guest.clone());
        assert_eq!(number, 2);
        assert!(!late.reserve_tunnel(1));
        stay.become_tunnel();
        assert_eq!(guest.address.requests.load(Relaxed), 1);
        drop(stay);
        assert!(late.reserve_tunnel(1));
        assert_eq!(guest.address.requests.load(Relaxed), 1);
    }

    #[test]
    fn who_has_most_is_named() {
        let crowd = Crowd::of(None);
        let _one = Visit::begin(crowd.guest(ONE), 9, 9).unwrap();
        let two = Visit::begin(crowd.guest(TWO), 9, 9).unwrap();
        let _three = Visit::begin(crowd.guest(TWO), 9, 9).unwrap();
        let _stay = Stay::begin(two.guest().clone());
        assert_eq!(crowd.filler(Limit::Connections), Some(Filler { address: TWO, share: 2 }));
        let filler = crowd.filler(Limit::RequestsPerAddress);
        assert_eq!(
            notice(Limit::RequestsPerAddress, None, Some(1), filler),
            "limits.requests_per_address = 1 is full: further requests get 429 too_many_at_once; 10.0.0.2 has 1 \
             requests; if this is a proxy in front of portok, add it to proxy.trusted"
        );
        assert_eq!(
            notice(Limit::Tunnels, Some("shop"), Some(2), None),
            "limits.tunnels = 2 is full for the app shop: further upgrades get 503 too_many_tunnels"
        );
        assert!(crowd.is_news(Limit::Tunnels));
        assert!(!crowd.is_news(Limit::Tunnels), "told a moment ago");
        assert!(crowd.is_news(Limit::Connections), "each limit is told by itself");
    }
}
