//! The board as one thread sees it, and how a request of this thread claims a target.
//!
//! State: a [`ServiceHere`] with the epoch at which it was read, made anew by the first look after
//! something was published; and every target that may still have connections on this thread. All of
//! it belongs to the thread. A target leaves when it is over and nothing here uses it any more.
//!
//! The order that matters is the board's: the epoch is read first, the pointers after it. The first
//! claim of a request trusts the request's own look; a claim that is refused looks again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::board::{Board, Now};
use super::connection::ClientConnection;
use super::counters::{RequestLane, ServiceCounters};
use super::settings::Settings;
use super::target::Target;
use super::upstream::pool::{Claim, Doorbells, LocalTarget, Pinned};
use crate::config::{Affinity, Upstream};

/// Why a request finds no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoTarget {
    /// Nothing serves.
    Empty,
    /// The next one is near.
    Held,
}

/// A service as this thread saw it last. It does not change; a request keeps the one that it began
/// with.
pub(super) struct ServiceHere {
    pub(super) settings: Settings,
    pub(super) counters: Arc<ServiceCounters>,
    lane: usize,
    live: Result<Rc<LocalTarget>, NoTarget>,
}

impl ServiceHere {
    /// This thread's counters of the service's requests.
    pub(super) fn counts(&self) -> &RequestLane {
        self.counters.lane(self.lane)
    }

    /// The thread's number.
    pub(super) fn lane(&self) -> usize {
        self.lane
    }

    /// Claims the live target; `None`: there is none, or it may not be claimed any more.
    fn claim(&self) -> Option<Claim> {
        self.live.as_ref().ok().and_then(|local| Claim::new(local.clone(), false))
    }
}

/// One thread's view of the board.
pub(super) struct Here {
    lane: usize,
    bells: Arc<Doorbells>,
    board: Arc<Board>,
    /// The epoch that was read before `service`.
    epoch: Cell<u64>,
    service: RefCell<Rc<ServiceHere>>,
    /// All targets that may still have connections here.
    locals: RefCell<Vec<Rc<LocalTarget>>>,
}

impl Here {
    pub(super) fn new(lane: usize, board: Arc<Board>, bells: Arc<Doorbells>) -> Self {
        let epoch = Cell::new(board.epoch());
        let locals = RefCell::default();
        let service = RefCell::new(Rc::new(read(lane, &board, &bells, &locals)));
        Self { lane, bells, board, epoch, service, locals }
    }

    /// The service as it is now. One atomic load while nothing has been published.
    pub(super) fn look(&self) -> Rc<ServiceHere> {
        let epoch = self.board.epoch();
        if epoch != self.epoch.get() {
            self.renew(epoch);
        }
        self.service.borrow().clone()
    }

    #[cold]
    fn renew(&self, epoch: u64) {
        let service = read(self.lane, &self.board, &self.bells, &self.locals);
        self.service.replace(Rc::new(service));
        self.epoch.set(epoch);
    }

    /// Claims a target for a request of `client` that has looked at `service`: the target that the
    /// client is pinned to, else the live one.
    pub(super) fn claim(&self, service: &ServiceHere, client: &ClientConnection) -> Result<Claim, NoTarget> {
        let affinity = service.settings.app.drain.affinity;
        let mut pinned = client.pinned.borrow_mut();
        if affinity == Affinity::Request {
            *pinned = None;
        } else if let Some(claim) = pinned.as_ref().and_then(|pinned| Claim::new(pinned.local.clone(), true))
        {
            return Ok(claim);
        }
        let claim = match service.claim() {
            Some(claim) => claim,
            None => self.claim_anew()?,
        };
        if affinity == Affinity::Connection {
            *pinned = Some(Pinned::new(claim.local.clone()));
        }
        Ok(claim)
    }

    /// Looks again until a target can be claimed or there is none.
    #[cold]
    fn claim_anew(&self) -> Result<Claim, NoTarget> {
        let mut refused: Option<Rc<LocalTarget>> = None;
        loop {
            let local = self.look().live.clone()?;
            // A target that is published although nobody may claim it: nothing serves.
            if refused.is_some_and(|refused| Rc::ptr_eq(&refused, &local)) {
                return Err(NoTarget::Empty);
            }
            if let Some(claim) = Claim::new(local.clone(), false) {
                return Ok(claim);
            }
            refused = Some(local);
        }
    }

    /// Drops idle connections that are of no use any more, and targets that are over.
    pub(super) fn sweep(&self) {
        let service = self.look();
        let upstream = &service.settings.app.upstream;
        let is_left = |local: &Rc<LocalTarget>| {
            local.sweep(upstream);
            let live = service.live.as_ref().is_ok_and(|live| Rc::ptr_eq(live, local));
            let over = local.target.is_closed() || local.target.is_retired() || local.is_empty();
            over && !live && Rc::strong_count(local) == 1
        };
        let left: Vec<_> = self.locals.borrow_mut().extract_if(.., |local| is_left(local)).collect();
        drop(left);
    }
}

/// Reads the board's pointers; the epoch was read before.
fn read(
    lane: usize,
    board: &Board,
    bells: &Arc<Doorbells>,
    locals: &RefCell<Vec<Rc<LocalTarget>>>,
) -> ServiceHere {
    let settings = Settings::new(board.config());
    let live = match &*board.service().now() {
        Now::Empty => Err(NoTarget::Empty),
        Now::Held => Err(NoTarget::Held),
        Now::One(target) => {
            let upstream = &settings.app.upstream;
            Ok(local_of(target, lane, bells, upstream, &mut locals.borrow_mut()))
        }
    };
    ServiceHere { settings, counters: board.service().counters().clone(), lane, live }
}

/// `target` as this thread uses it.
fn local_of(
    target: &Arc<Target>,
    lane: usize,
    bells: &Arc<Doorbells>,
    upstream: &Upstream,
    locals: &mut Vec<Rc<LocalTarget>>,
) -> Rc<LocalTarget> {
    if let Some(known) = locals.iter().find(|local| Arc::ptr_eq(&local.target, target)) {
        return known.clone();
    }
    let local = Rc::new(LocalTarget::new(target.clone(), lane, bells.clone(), upstream));
    locals.push(local.clone());
    local
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
            let visit = Visit::begin(Crowd::new().guest(PEER), 1, 1).unwrap();
            Self { counters, board, routes, here, client: ClientConnection::new((PEER, 1).into(), visit, 0) }
        }

        fn target(&self, port: u16) -> Arc<Target> {
            Target::new((PEER, port).into(), self.counters.service().release("v1"))
        }

        /// The port of the target that a request claims which has looked at `service`.
        fn claimed(&self, service: &ServiceHere) -> Result<u16, NoTarget> {
            self.here.claim(service, &self.client).map(|claim| claim.local.target.addr().port())
        }
    }

    #[test]
    fn a_look_reads_the_pointers_only_after_something_was_published() {
        let mut fixture = Fixture::new();
        let first = fixture.here.look();
        assert!(Rc::ptr_eq(&first, &fixture.here.look()));
        fixture.routes.set(Now::Held);
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
        assert_eq!(fixture.claimed(&before), Err(NoTarget::Empty));
        fixture.routes.set(Now::Held);
        assert_eq!(fixture.claimed(&before), Err(NoTarget::Held), "it looks again before it gives up");
        let target = fixture.target(1);
        fixture.routes.set(Now::One(target.clone()));
        assert_eq!(fixture.claimed(&before), Ok(1));
        target.close();
        assert_eq!(fixture.claimed(&before), Err(NoTarget::Empty), "published, but nobody may claim it");
    }

    #[test]
    fn a_target_that_is_over_leaves_the_thread() {
        let mut fixture = Fixture::new();
        let target = fixture.target(1);
        fixture.routes.set(Now::One(target.clone()));
        let claim = fixture.here.claim(&fixture.here.look(), &fixture.client).unwrap();
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
