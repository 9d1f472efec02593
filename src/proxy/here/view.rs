//! One service as a thread saw it last, and how a request claims one of its targets.
//!
//! A view does not change but for the epoch until which it holds; it ends when no request and no
//! thread's [`Here`](super::Here) uses it any more.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::AppsHere;
use crate::config::Affinity;
use crate::proxy::balance::{Chosen, Members, Trial};
use crate::proxy::board::{Held, Maintenance, Now, Service};
use crate::proxy::connection::ClientConnection;
use crate::proxy::counters::{RequestLane, ServiceCounters};
use crate::proxy::crowd::{Crowd, Guest, Reception};
use crate::proxy::pins::Stay;
use crate::proxy::settings::Settings;
use crate::proxy::sticky::Wish;
use crate::proxy::target::Target;
use crate::proxy::upstream::pool::{Claim, LocalTarget};
use crate::proxy::who;

/// Why a request has no ordinary claim.
#[derive(Debug)]
pub(in crate::proxy) enum NoClaim {
    /// Nothing serves, or nothing that the request has not tried.
    Empty,
    /// The next target is near.
    Near,
    /// It has to wait until it is let go.
    Held,
    /// Every request gets this answer.
    Maintenance(Arc<Maintenance>),
    /// The request is to try a member of a set that was out.
    Trial(Box<(Claim, Trial)>),
}

/// Where requests go now, as this thread uses it.
pub(super) enum NowHere {
    One(Rc<LocalTarget>),
    Spread(Rc<Members>),
    Empty,
    Near,
    Held(Held),
    /// There, but others have waited for it: requests queue behind them.
    Behind(Box<Self>),
    Maintenance(Arc<Maintenance>),
}

impl NowHere {
    /// Why nothing of it could be claimed.
    pub(super) fn why_not(&self) -> NoClaim {
        match self {
            Self::Near => NoClaim::Near,
            Self::Held(_) | Self::Behind(_) => NoClaim::Held,
            Self::Maintenance(answer) => NoClaim::Maintenance(answer.clone()),
            Self::One(_) | Self::Spread(_) | Self::Empty => NoClaim::Empty,
        }
    }

    /// Whether a client that is pinned to a target goes there all the same.
    pub(super) fn leaves_pins(&self) -> bool {
        !matches!(self, Self::Held(Held::All) | Self::Behind(_) | Self::Maintenance(_))
    }

    /// What it is for a request that has waited already, if `passes`.
    pub(super) fn to(&self, passes: bool) -> &Self {
        match self {
            Self::Behind(live) if passes => live,
            _ => self,
        }
    }
}

impl From<Chosen> for Result<Claim, NoClaim> {
    fn from(chosen: Chosen) -> Self {
        match chosen {
            Chosen::Member(claim) => Ok(claim),
            Chosen::Trial(trial) => Err(NoClaim::Trial(trial)),
        }
    }
}

/// A service as this thread saw it last. What it says does not change; a request keeps the one that
/// it began with.
pub(in crate::proxy) struct ServiceHere {
    pub(in crate::proxy) settings: Settings,
    pub(in crate::proxy) counters: Arc<ServiceCounters>,
    pub(super) lane: usize,
    pub(super) live: NowHere,
    pub(super) service: Arc<Service>,
    pub(super) reception: Reception,
    /// What `live` was read from.
    pub(super) now: Arc<Now>,
    /// Until this epoch it is what the board says.
    pub(super) epoch: Cell<u64>,
    /// With several apps, in the view of the board's own service: theirs.
    pub(super) apps: Option<Rc<AppsHere>>,
}

impl ServiceHere {
    /// This thread's counters of the service's requests.
    pub(in crate::proxy) fn counts(&self) -> &RequestLane {
        self.counters.lane(self.lane)
    }

    /// The thread's number.
    pub(in crate::proxy) fn lane(&self) -> usize {
        self.lane
    }

    /// With the board's own service: whether there are several apps.
    pub(in crate::proxy) fn is_of_several(&self) -> bool {
        self.apps.is_some()
    }

    /// With the board's own service: whether any connection of TLS goes to an app as it is.
    pub(in crate::proxy) fn has_names(&self) -> bool {
        self.apps.as_ref().is_some_and(|apps| apps.services.has_names())
    }

    /// The service itself.
    pub(in crate::proxy) fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// What the board says of where its requests go.
    pub(in crate::proxy) fn now(&self) -> &Arc<Now> {
        &self.now
    }

    /// Whose requests it has under way.
    pub(in crate::proxy) fn crowd(&self) -> &Crowd {
        self.reception.crowd()
    }

    /// Whom a request of `client` counts for that names nobody else.
    pub(in crate::proxy) fn guest(&self, client: &ClientConnection) -> Rc<Guest> {
        let own = client.guest();
        let is_itself = client.balancer().is_none();
        if is_itself && own.is_of(self.reception.crowd()) {
            own.clone()
        } else {
            self.reception.guest(client.peer.ip())
        }
    }

    /// Whom a request of `client` counts for that may name another: the address that its `fields`
    /// name, if the peer is trusted, else the peer itself.
    #[cold]
    pub(in crate::proxy) fn named_guest<'a, I>(
        &self,
        client: &ClientConnection,
        fields: impl Fn() -> I,
    ) -> Rc<Guest>
    where
        I: Iterator<Item = (&'a [u8], &'a [u8])>,
    {
        let (peer, settings) = (client.peer.ip(), &self.settings);
        let named = match settings.trusts(peer) {
            true => who::client(peer, &settings.config.proxy.trusted, fields),
            false => peer,
        };
        if named == peer { self.guest(client) } else { self.reception.guest(named) }
    }

    /// Claims the one live target; `None`: there is not one, or it may not be claimed any more.
    pub(super) fn claim_one(&self) -> Option<Claim> {
        match &self.live {
            NowHere::One(local) => Claim::new(local.clone(), false),
            _ => None,
        }
    }

    /// Claims a target for a request of `client` that has `tried` some of several, `passes` those
    /// that wait, and has a `wish` which one it gets. `None`: none may be claimed.
    pub(super) fn claim_now(
        &self,
        client: &ClientConnection,
        tried: &[Rc<LocalTarget>],
        passes: bool,
        wish: Option<Wish>,
    ) -> Option<Result<Claim, NoClaim>> {
        let live = self.live.to(passes);
        let is_pinned = self.settings.app.drain.affinity == Affinity::Connection;
        if is_pinned
            && live.leaves_pins()
            && let Some(claimed) = self.claim_pinned(client, tried, wish)
        {
            return Some(claimed);
        }
        let (claimed, stay) = match live {
            NowHere::One(local) => (Ok(Claim::new(local.clone(), false)?), Stay::With(local.clone())),
            NowHere::Spread(members) => {
                (members.claim(tried, false, wish)?.into(), Stay::Among(members.clone()))
            }
            NowHere::Empty
            | NowHere::Near
            | NowHere::Held(_)
            | NowHere::Behind(_)
            | NowHere::Maintenance(_) => return None,
        };
        if is_pinned {
            client.pins().pin(stay);
        }
        Some(claimed)
    }

    /// Claims where `client` is pinned.
    pub(super) fn claim_pinned(
        &self,
        client: &ClientConnection,
        tried: &[Rc<LocalTarget>],
        wish: Option<Wish>,
    ) -> Option<Result<Claim, NoClaim>> {
        match client.pins().of(&self.service)? {
            Stay::With(local) => match self.members_with(&local) {
                // Its set has several members by now, and the pin is to that.
                Some(live) => {
                    let chosen = live.claim(tried, true, wish)?;
                    client.pins().pin(Stay::Among(live.clone()));
                    Some(chosen.into())
                }
                None if tried.iter().any(|tried| Rc::ptr_eq(tried, &local)) => None,
                None => Claim::new(local, true).map(Ok),
            },
            Stay::Among(members) => {
                let goes_on = |live: &&Rc<Members>| live.spread().continues(members.spread());
                // Until it is left, the set may have other members by now.
                let Some(live) = self.members().filter(goes_on) else {
                    return members.claim(tried, true, wish).map(Into::into);
                };
                let chosen = live.claim(tried, true, wish)?;
                if !Rc::ptr_eq(live, &members) {
                    client.pins().pin(Stay::Among(live.clone()));
                }
                Some(chosen.into())
            }
        }
    }

    /// The several targets that its requests are spread over.
    pub(in crate::proxy) fn members(&self) -> Option<&Rc<Members>> {
        match self.live.to(true) {
            NowHere::Spread(members) => Some(members),
            _ => None,
        }
    }

    /// The same, where `local` is one of them.
    fn members_with(&self, local: &LocalTarget) -> Option<&Rc<Members>> {
        let is_it = |target: &Arc<Target>| Arc::ptr_eq(target, &local.target);
        self.members().filter(|members| members.spread().members().iter().any(is_it))
    }

    /// Whether its requests queue behind others.
    pub(super) fn is_behind(&self) -> bool {
        matches!(self.live, NowHere::Behind(_))
    }
}
