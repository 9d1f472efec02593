//! The board as one thread sees it, and how a request of this thread claims a target.
//!
//! State: a [`ServiceHere`] for the board's own service and for each that a request was routed to,
//! with the epoch at which it was read, read anew by the first look after something was published;
//! and every target that may still have connections on this thread. All of it belongs to the
//! thread. A target leaves when it is over and nothing here uses it any more.
//!
//! The order that matters is the board's: the epoch is read first, the pointers after it. The first
//! claim of a request trusts the request's own look; a claim that is refused looks again.

mod view;
mod waiting;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use self::view::NowHere;
pub(super) use self::view::{NoClaim, ServiceHere};
use super::address::ListenerId;
use super::balance::Members;
use super::bells::Doorbells;
use super::board::{Board, Found, Now, Service, Services, Way};
use super::connection::ClientConnection;
use super::crowd::Reception;
use super::hold::Queue;
use super::pins::Stay;
use super::settings::Settings;
use super::sticky::Wish;
use super::target::Target;
use super::upstream::pool::{Claim, LocalTarget};
use crate::config::{Affinity, AppConfig, Mode};

/// The services of several apps as this thread sees them.
struct AppsHere {
    services: Arc<Services>,
    /// By place; `None`: no request has been routed to it yet.
    seen: RefCell<Box<[Option<Rc<ServiceHere>>]>>,
    /// The epoch at which all of `seen` was looked through.
    swept: Cell<u64>,
}

/// The service that a request goes to.
pub(super) struct Routed {
    pub(super) service: Rc<ServiceHere>,
    /// How many bytes at the beginning of its path the app does not get.
    pub(super) cut: usize,
}

/// Why a request goes to no app, though there are several.
pub(super) enum Aside {
    /// None is there for it. With the board's own service.
    NoRoute(Rc<ServiceHere>),
    /// The app's clients are sent to another place: to this scheme and authority.
    Redirect(Rc<ServiceHere>, Arc<str>),
}

/// One thread's view of the board.
pub(super) struct Here {
    lane: usize,
    bells: Arc<Doorbells>,
    board: Arc<Board>,
    /// The board's own service.
    own: RefCell<Rc<ServiceHere>>,
    /// The epoch that was read before `own`.
    epoch: Cell<u64>,
    /// All targets that may still have connections here.
    locals: RefCell<Locals>,
    /// The requests that wait here.
    queues: RefCell<Queues>,
}

/// The queues of one thread, each by where its service lies.
type Queues = HashMap<*const Service, (Arc<Service>, Rc<Queue>)>;

/// No epoch: what was read at it is read anew.
const UNREAD: u64 = u64::MAX;

/// Targets as one thread uses them, each by where it lies: there may be very many.
type Locals = HashMap<*const Target, Rc<LocalTarget>>;

impl Here {
    pub(super) fn new(lane: usize, board: Arc<Board>, bells: Arc<Doorbells>) -> Self {
        let epoch = board.epoch();
        let (locals, queues) = (RefCell::default(), RefCell::default());
        let reader = Reader { lane, board: &board, bells: &bells, locals: &locals, queues: &queues };
        let own = RefCell::new(reader.own(None, epoch));
        Self { lane, bells, board, own, epoch: Cell::new(epoch), locals, queues }
    }

    fn reader(&self) -> Reader<'_> {
        let Self { board, bells, locals, queues, .. } = self;
        Reader { lane: self.lane, board, bells, locals, queues }
    }

    /// The board's own service as it is now. One atomic load while nothing has been published.
    pub(super) fn look(&self) -> Rc<ServiceHere> {
        let epoch = self.board.epoch();
        if epoch != self.epoch.get() {
            self.renew(epoch);
        }
        self.own.borrow().clone()
    }

    #[cold]
    fn renew(&self, epoch: u64) {
        let own = self.reader().own(Some(&self.own.borrow()), epoch);
        self.own.replace(own);
        self.epoch.set(epoch);
    }

    /// The service of a request of `client` for `host` and `path` that has looked at `own`.
    pub(super) fn route<'h>(
        &self,
        own: Rc<ServiceHere>,
        client: &ClientConnection,
        host: impl FnOnce() -> Option<&'h [u8]>,
        path: &[u8],
    ) -> Result<Routed, Aside> {
        let Some(apps) = &own.apps else { return Ok(Routed { service: own, cut: 0 }) };
        let Some(Found { place, how }) = apps.services.find(client.listener(), host, path) else {
            return Err(Aside::NoRoute(own));
        };
        let service = self.app(apps, *place);
        match how {
            Way::App { cut } => Ok(Routed { service, cut: *cut }),
            Way::Redirect(to) => Err(Aside::Redirect(service, to.clone())),
        }
    }

    /// The service that every connection to `listener` goes to as it is, by what `own` says; `None`:
    /// requests of HTTP come in there.
    pub(super) fn of_connections(
        &self,
        own: &Rc<ServiceHere>,
        listener: &ListenerId,
    ) -> Option<Rc<ServiceHere>> {
        let service = match &own.apps {
            None => own.clone(),
            Some(_) if listener.is_of_the_instance() => return None,
            Some(apps) => self.app(apps, apps.services.find(listener, || None, b"/")?.place),
        };
        (service.settings.app.mode == Mode::Tcp).then_some(service)
    }

    /// The service that a connection of TLS goes to as it is, whose client asks for this name.
    pub(super) fn named(&self, own: &ServiceHere, name: &[u8]) -> Option<Rc<ServiceHere>> {
        let apps = own.apps.as_ref()?;
        Some(self.app(apps, apps.services.named(name)?.place))
    }

    /// The service at `place` of `apps`, which a look has just found.
    fn app(&self, apps: &AppsHere, place: usize) -> Rc<ServiceHere> {
        let mut seen = apps.seen.borrow_mut();
        let seen = &mut seen[place];
        // The look has read this epoch.
        let epoch = self.epoch.get();
        match seen {
            Some(known) if known.epoch.get() == epoch => known.clone(),
            _ => {
                let service = self.reader().service(apps.services.at(place), seen.as_ref(), epoch);
                *seen = Some(service.clone());
                service
            }
        }
    }

    /// The same service as it is now.
    pub(super) fn look_again(&self, service: &ServiceHere) -> Rc<ServiceHere> {
        let own = self.look();
        if Arc::ptr_eq(&own.service, &service.service) {
            return own;
        }
        // Where it has lost its routes meanwhile, it still ends what it began.
        self.reader().service(&service.service, None, self.epoch.get())
    }

    /// Claims a target for a request of `client` that has looked at `service`: one that the client
    /// is pinned to, else a live one; of several the one that is its `wish`, if that is ready.
    pub(super) fn claim(
        &self,
        service: &ServiceHere,
        client: &ClientConnection,
        wish: Option<Wish>,
    ) -> Result<Claim, NoClaim> {
        let affinity = service.settings.app.drain.affinity;
        if affinity == Affinity::Request {
            client.pins().leave(&service.service);
        } else if service.live.leaves_pins()
            && let Some(claimed) = service.claim_pinned(client, &[], wish)
        {
            return claimed;
        }
        match service.claim_one() {
            Some(claim) => {
                if affinity == Affinity::Connection {
                    client.pins().pin(Stay::With(claim.local.clone()));
                }
                Ok(claim)
            }
            None => self.claim_anew(service, client, &[], false, wish),
        }
    }

    /// As [`Self::claim`], for a request that has `tried` some of several targets, and `passes`
    /// those that wait because it has waited itself. Looks again until one can be claimed or there
    /// is none.
    #[inline(never)]
    pub(super) fn claim_anew(
        &self,
        service: &ServiceHere,
        client: &ClientConnection,
        tried: &[Rc<LocalTarget>],
        passes: bool,
        wish: Option<Wish>,
    ) -> Result<Claim, NoClaim> {
        let mut latest: Option<Rc<ServiceHere>> = None;
        loop {
            let service = latest.as_deref().unwrap_or(service);
            if let Some(claimed) = service.claim_now(client, tried, passes, wish) {
                return claimed;
            }
            let next = self.look_again(service);
            // Targets that are published although nobody may claim them: nothing serves.
            if Arc::ptr_eq(&next.now, &service.now) && next.is_behind() == service.is_behind() {
                return Err(next.live.to(passes).why_not());
            }
            latest = Some(next);
        }
    }

    /// Replaces the views that are not what the board says any more: one of an app that nobody asks
    /// for would hold on to the target that was live before.
    fn renew_apps(&self) {
        let own = self.look();
        let Some(apps) = &own.apps else { return };
        let epoch = self.epoch.get();
        if apps.swept.replace(epoch) == epoch {
            return;
        }
        for (place, seen) in apps.seen.borrow_mut().iter_mut().enumerate() {
            if seen.is_some() {
                *seen = Some(self.reader().service(apps.services.at(place), seen.as_ref(), epoch));
            }
        }
    }

    /// Notes how much is in flight at each service, and how much of it at members is other
    /// threads'.
    pub(super) fn sample_inflight(&self) {
        self.locals.borrow().values().for_each(|local| local.note_elsewhere());
        let own = self.look();
        own.counters.sample_inflight();
        // What this thread never served has nothing in flight here.
        if let Some(apps) = &own.apps {
            apps.seen.borrow().iter().flatten().for_each(|seen| seen.counters.sample_inflight());
        }
    }

    /// Drops idle connections that are of no use any more, and targets that are over.
    pub(super) fn sweep(&self) {
        let config = self.board.config();
        let is_left = |local: &Rc<LocalTarget>| {
            local.sweep(&local.service.config(&config).upstream);
            let over = local.target.is_closed() || local.target.is_retired() || local.is_empty();
            // A view in which it is live, a claim and a pin hold it too.
            over && Rc::strong_count(local) == 1
        };
        self.renew_apps();
        let left: Vec<_> = self.locals.borrow_mut().extract_if(|_, local| is_left(local)).collect();
        drop(left);
    }
}

/// Reads the board's pointers for a thread; the epoch was read before.
struct Reader<'a> {
    lane: usize,
    board: &'a Board,
    bells: &'a Arc<Doorbells>,
    locals: &'a RefCell<Locals>,
    queues: &'a RefCell<Queues>,
}

impl Reader<'_> {
    /// The board's own service, with those of several apps. What was `known` before and has not
    /// changed stays.
    fn own(&self, known: Option<&Rc<ServiceHere>>, epoch: u64) -> Rc<ServiceHere> {
        let services = self.board.services();
        let apps = services.map(|services| match known.and_then(|known| known.apps.as_ref()) {
            Some(apps) if Arc::ptr_eq(&apps.services, &services) => apps.clone(),
            _ => {
                let seen = RefCell::new(std::iter::repeat_n(None, services.len()).collect());
                Rc::new(AppsHere { services, seen, swept: Cell::new(epoch) })
            }
        });
        let of = |known: &Rc<ServiceHere>| known.apps.as_ref().map(Rc::as_ptr);
        let known = known.filter(|known| of(known) == apps.as_ref().map(Rc::as_ptr));
        self.read(self.board.own(), known, epoch, apps)
    }

    /// The service of one app of several.
    fn service(
        &self,
        service: &Arc<Service>,
        known: Option<&Rc<ServiceHere>>,
        epoch: u64,
    ) -> Rc<ServiceHere> {
        self.read(service, known, epoch, None)
    }

    fn read(
        &self,
        service: &Arc<Service>,
        known: Option<&Rc<ServiceHere>>,
        epoch: u64,
        apps: Option<Rc<AppsHere>>,
    ) -> Rc<ServiceHere> {
        let config = self.board.config();
        let (app, now) = (service.config(&config), service.now());
        let is_behind = self.is_queued(service) && matches!(&*now, Now::One(_) | Now::Spread(_));
        let is_same = |known: &&Rc<ServiceHere>| {
            Arc::ptr_eq(&known.now, &now)
                && known.is_behind() == is_behind
                && Arc::ptr_eq(&known.settings.config, &config)
                && Arc::ptr_eq(&known.settings.app, &app)
        };
        if let Some(known) = known.filter(is_same) {
            known.epoch.set(epoch);
            return known.clone();
        }
        let live = match &*now {
            Now::Empty => NowHere::Empty,
            Now::Near => NowHere::Near,
            Now::Held(which) => NowHere::Held(*which),
            Now::Maintenance(answer) => NowHere::Maintenance(answer.clone()),
            Now::One(target) => {
                let alone = self.local_of(target, service, &app);
                alone.be_alone();
                NowHere::One(alone)
            }
            Now::Spread(spread) if spread.members().is_empty() => NowHere::Empty,
            Now::Spread(spread) => {
                let members = spread.members().iter();
                let locals = members.map(|target| self.local_of(target, service, &app)).collect();
                NowHere::Spread(Rc::new(Members::new(spread.clone(), locals, self.lane, &app.upstream)))
            }
        };
        let live = if is_behind { NowHere::Behind(Box::new(live)) } else { live };
        let (lane, counters, service) = (self.lane, service.counters().clone(), service.clone());
        let settings = Settings::new(config, app, self.board.recorder(), self.board.face());
        let epoch = Cell::new(epoch);
        let reception = Reception::new(service.crowd().clone());
        Rc::new(ServiceHere { settings, counters, lane, live, service, reception, now, epoch, apps })
    }

    /// Whether requests of `service` wait on this thread.
    fn is_queued(&self, service: &Arc<Service>) -> bool {
        let queues = self.queues.borrow();
        queues.get(&Arc::as_ptr(service)).is_some_and(|(_, queue)| !queue.is_empty())
    }

    /// `target` as this thread uses it.
    fn local_of(&self, target: &Arc<Target>, service: &Arc<Service>, app: &AppConfig) -> Rc<LocalTarget> {
        let mut locals = self.locals.borrow_mut();
        if let Some(known) = locals.get(&Arc::as_ptr(target)) {
            debug_assert!(Arc::ptr_eq(&known.service, service), "a target belongs to one service");
            return known.clone();
        }
        let (target, service, bells) = (target.clone(), service.clone(), self.bells.clone());
        let local = Rc::new(LocalTarget::new(target, service, self.lane, bells, &app.upstream));
        locals.insert(Arc::as_ptr(&local.target), local.clone());
        local
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use tokio::sync::Notify;

    use super::*;
    use crate::proxy::counters::Counters;
    use crate::proxy::crowd::{Crowd, Visit};
    use crate::proxy::{RouteWriter, tests};

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    struct Fixture {
        counters: Arc<Counters>,
        board: Arc<Board>,
        routes: RouteWriter,
        here: Here,
        client: Rc<ClientConnection>,
    }

    impl Fixture {
        fn new() -> Self {
            let counters = Counters::new(1);
            let (board, routes) = Board::new(Arc::new(tests::config()), counters.service().clone());
            let here = Here::new(0, board.clone(), Arc::new(Doorbells(Box::new([Notify::new()]))));
            let visit = Visit::begin(Crowd::of(None).guest(PEER), 1, 1).unwrap();
            let client = ClientConnection::new((PEER, 1).into(), tests::door(), visit);
            Self { counters, board, routes, here, client }
        }

        fn target(&self, port: u16) -> Arc<Target> {
            Target::new((PEER, port).into(), self.counters.service().release("v1"))
        }

        /// The port of the target that a request claims which has looked at `service`.
        fn claimed(&self, service: &ServiceHere) -> Result<u16, &'static str> {
            match self.here.claim(service, &self.client, None) {
                Ok(claim) => Ok(claim.local.target.addr().port()),
                Err(NoClaim::Empty) => Err("empty"),
                Err(NoClaim::Near) => Err("near"),
                Err(NoClaim::Held) => Err("held"),
                Err(NoClaim::Maintenance(_)) => Err("maintenance"),
                Err(NoClaim::Trial(_)) => Err("trial"),
            }
        }
    }

    #[test]
    fn a_look_reads_the_pointers_only_after_something_was_published() {
        let mut fixture = Fixture::new();
        let first = fixture.here.look();
        assert!(Rc::ptr_eq(&first, &fixture.here.look()));
        fixture.routes.set(Now::Near);
        let second = fixture.here.look();
        assert!(!Rc::ptr_eq(&first, &second));
        let mut config = tests::config();
        config.proxy.max_body = Some(7);
        fixture.board.configure(Arc::new(config));
        assert_eq!(fixture.here.look().settings.config.proxy.max_body, Some(7));
        assert_eq!(second.settings.config.proxy.max_body, None, "a request keeps what it began with");
    }

    #[test]
    fn a_request_that_looked_before_a_switch_is_refused_by_the_former_target_and_finds_the_new_one() {
        let mut fixture = Fixture::new();
        let (blue, green) = (fixture.target(1), fixture.target(2));
        assert!(fixture.routes.set(Now::One(blue.clone())).is_none());
        let before = fixture.here.look();
        let former = fixture.routes.set(Now::One(green)).unwrap();
        assert_eq!(fixture.claimed(&before), Ok(1), "not retired yet: it may still be claimed");
        former.retire();
        assert_eq!(fixture.claimed(&before), Ok(2));
        assert_eq!(blue.inflight(), 0);
    }

    #[test]
    fn without_a_target_a_request_learns_whether_one_is_near() {
        let mut fixture = Fixture::new();
        let before = fixture.here.look();
        assert_eq!(fixture.claimed(&before), Err("empty"));
        fixture.routes.set(Now::Near);
        assert_eq!(fixture.claimed(&before), Err("near"), "it looks again before it gives up");
        let target = fixture.target(1);
        fixture.routes.set(Now::One(target.clone()));
        assert_eq!(fixture.claimed(&before), Ok(1));
        target.close();
        assert_eq!(fixture.claimed(&before), Err("empty"), "published, but nobody may claim it");
    }

    #[test]
    fn a_target_that_is_over_leaves_the_thread() {
        let mut fixture = Fixture::new();
        let target = fixture.target(1);
        fixture.routes.set(Now::One(target.clone()));
        let claim = fixture.here.claim(&fixture.here.look(), &fixture.client, None).unwrap();
        fixture.routes.set(Now::Empty);
        target.close();
        fixture.here.sweep();
        assert_eq!(fixture.here.locals.borrow().len(), 1, "a claim still uses it");
        drop(claim);
        fixture.here.sweep();
        assert!(fixture.here.locals.borrow().is_empty());
        assert_eq!(Arc::strong_count(&target), 1);
    }
}
