//! The clients that come to one thread: who is let in, whom a request counts for, and the warning
//! when a limit is full.
//!
//! State: the address that came last, so that many connections of one address look it up once (with
//! a proxy in front of portok, all of them). It belongs to the thread. The counts are the
//! [`Crowd`]'s, over all threads.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::connection::ClientConnection;
use super::counters::Counters;
use super::crowd::{self, Crowd, Guest, Limit, Visit};
use super::headers::is_trusted;
use super::settings::Settings;
use super::who;

/// One thread's entrance.
pub(super) struct Guests {
    crowd: Arc<Crowd>,
    counters: Arc<Counters>,
    last: RefCell<Option<Rc<Guest>>>,
}

impl Guests {
    pub(super) fn new(crowd: Arc<Crowd>, counters: Arc<Counters>) -> Self {
        Self { crowd, counters, last: RefCell::default() }
    }

    /// Lets a connection of `peer` in; `None`: a limit is full.
    pub(super) fn admit(&self, peer: IpAddr, settings: &Settings) -> Option<Visit> {
        let (limits, trusted) = (&settings.config.limits, &settings.config.proxy.trusted);
        let each = match limits.connections_per_address {
            Some(most) if !is_trusted(peer, trusted) => most,
            _ => usize::MAX,
        };
        let limit = match Visit::begin(self.guest(peer), limits.connections, each) {
            Ok(visit) => return Some(visit),
            Err(limit) => limit,
        };
        self.counters.connection_refused(reason_of(limit));
        match limit {
            Limit::Connections => self.warn_full(limit, Some(limits.connections), None),
            _ => self.warn_full(limit, Some(each), Some(peer)),
        }
        None
    }

    /// Counts a connection that cannot be let in because no file descriptor is left for it.
    #[cold]
    pub(super) fn refuse_for_descriptors(&self) {
        self.counters.connection_refused(reason_of(Limit::Descriptors));
        self.warn_full(Limit::Descriptors, None, None);
    }

    /// Whom a request of `client` counts for: the address that its `fields` name, if the peer is
    /// trusted, else the peer itself.
    #[cold]
    pub(super) fn named<'a, I>(
        &self,
        client: &ClientConnection,
        settings: &Settings,
        fields: impl Fn() -> I,
    ) -> Rc<Guest>
    where
        I: Iterator<Item = (&'a [u8], &'a [u8])>,
    {
        let peer = client.peer.ip();
        let named = match settings.trusts(peer) {
            true => who::client(peer, &settings.config.proxy.trusted, fields),
            false => peer,
        };
        if named == peer { client.guest().clone() } else { self.guest(named) }
    }

    /// Warns once a minute that `limit` is full, and names `address`, or else the address that has
    /// most of it.
    #[cold]
    pub(super) fn warn_full(&self, limit: Limit, most: Option<usize>, address: Option<IpAddr>) {
        if !self.crowd.is_news(limit) {
            return;
        }
        let filler = match address {
            Some(address) => Some(self.crowd.share(address, limit)),
            None => self.crowd.filler(limit),
        };
        tracing::warn!("{}", crowd::notice(limit, most, filler));
    }

    /// The guest of address `ip`. The crowd is asked only if another address came last.
    fn guest(&self, ip: IpAddr) -> Rc<Guest> {
        let mut last = self.last.borrow_mut();
        match &*last {
            Some(guest) if guest.ip() == ip => guest.clone(),
            _ => last.insert(self.crowd.guest(ip)).clone(),
        }
    }
}

/// Why a connection was closed, as the metrics name it.
fn reason_of(limit: Limit) -> &'static str {
    limit.key().strip_prefix("limits.").unwrap_or("descriptors")
}
