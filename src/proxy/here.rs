//! Where requests go now, as one thread sees it.
//!
//! State: the targets that may still have connections on this thread, and which of them is live. It belongs to
//! the thread. A target leaves when it is over and nothing here uses it any more.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::connection::ClientConnection;
use super::switchboard::{Now, Reader, Switchboard};
use super::target::Target;
use super::upstream::pool::{Claim, Doorbells, LocalTarget, Pinned};
use crate::config::{Affinity, AppConfig, Upstream};

/// The live target as one thread uses it, and the value of the switchboard that names it.
struct Current {
    now: Arc<Now>,
    local: Rc<LocalTarget>,
}

/// Why a request finds no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoTarget {
    /// Nothing serves.
    Empty,
    /// The next one is near.
    Held,
}

/// One thread's view of the switchboard.
pub(super) struct Here {
    lane: usize,
    bells: Arc<Doorbells>,
    route: RefCell<Reader>,
    /// The live target of the last look that found one.
    current: RefCell<Option<Current>>,
    /// All targets that may still have connections here.
    locals: RefCell<Vec<Rc<LocalTarget>>>,
}

impl Here {
    pub(super) fn new(lane: usize, switchboard: &Switchboard, bells: Arc<Doorbells>) -> Self {
        let route = RefCell::new(switchboard.reader());
        Self { lane, bells, route, current: RefCell::default(), locals: RefCell::default() }
    }

    /// Claims a target for a request of `client`: the one it is pinned to, else the live one.
    pub(super) fn claim(&self, client: &ClientConnection, config: &AppConfig) -> Result<Claim, NoTarget> {
        let affinity = config.drain.affinity;
        let mut pinned = client.pinned.borrow_mut();
        if affinity == Affinity::Request {
            *pinned = None;
        } else if let Some(claim) = pinned.as_ref().and_then(|pinned| Claim::new(pinned.local.clone(), true))
        {
            return Ok(claim);
        }
        let claim = self.claim_live(&config.upstream)?;
        if affinity == Affinity::Connection {
            *pinned = Some(Pinned::new(claim.local.clone()));
        }
        Ok(claim)
    }

    fn claim_live(&self, upstream: &Upstream) -> Result<Claim, NoTarget> {
        let mut refused: Option<Rc<LocalTarget>> = None;
        loop {
            let local = self.live(upstream)?;
            // A target that is routed to although nobody may claim it: nothing serves.
            if refused.is_some_and(|refused| Rc::ptr_eq(&refused, &local)) {
                return Err(NoTarget::Empty);
            }
            if let Some(claim) = Claim::new(local.clone(), false) {
                return Ok(claim);
            }
            refused = Some(local);
        }
    }

    fn live(&self, upstream: &Upstream) -> Result<Rc<LocalTarget>, NoTarget> {
        let mut route = self.route.borrow_mut();
        let now = route.load();
        let mut current = self.current.borrow_mut();
        if let Some(current) = &*current
            && Arc::ptr_eq(&current.now, now)
        {
            return Ok(current.local.clone());
        }
        let target = match &**now {
            Now::One(target) => target,
            Now::Held => return Err(NoTarget::Held),
            Now::Empty => return Err(NoTarget::Empty),
        };
        let local = self.local(target, upstream);
        *current = Some(Current { now: now.clone(), local: local.clone() });
        Ok(local)
    }

    fn local(&self, target: &Arc<Target>, upstream: &Upstream) -> Rc<LocalTarget> {
        let mut locals = self.locals.borrow_mut();
        if let Some(known) = locals.iter().find(|local| Arc::ptr_eq(&local.target, target)) {
            return known.clone();
        }
        let local = Rc::new(LocalTarget::new(target.clone(), self.lane, self.bells.clone(), upstream));
        locals.push(local.clone());
        local
    }

    /// Drops idle connections that are of no use any more, and targets that are over.
    pub(super) fn sweep(&self, upstream: &Upstream) {
        let current = self.live(upstream).ok();
        if current.is_none() {
            self.current.take();
        }
        let is_left = |local: &Rc<LocalTarget>| {
            local.sweep(upstream);
            let live = current.as_ref().is_some_and(|current| Rc::ptr_eq(current, local));
            let over = local.target.is_closed() || local.target.is_retired() || local.is_empty();
            over && !live && Rc::strong_count(local) == 1
        };
        let left: Vec<_> = self.locals.borrow_mut().extract_if(.., |local| is_left(local)).collect();
        drop(left);
    }
}
