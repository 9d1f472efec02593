//! An app's requests: which run they go to, and how many each run still has. All use of the proxy
//! is here.
//!
//! Owned by the coordinator. A run has a target for each tenure, from the moment at which requests
//! are pointed at it; a target that was retired or closed never gets a new request.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::time::Duration;
use tokio_util::sync::CancellationToken;

use super::state::{FormerTarget, RunId};
use crate::proxy::{Bar, Held, Now, RouteWriter, ServiceCounters, Target};
use crate::wire;

/// How often an early end of a drain is looked for.
const EARLY_DRAIN_LOOK: Duration = Duration::from_millis(20);

/// The coordinator's side of the data plane.
#[derive(Debug)]
pub struct Traffic {
    route: RouteWriter,
    counters: Arc<ServiceCounters>,
    alone: CancellationToken,
    targets: HashMap<RunId, Vec<Arc<Target>>>,
}

/// The requests that a run has; counted whenever it is asked.
#[derive(Debug, Clone, Default)]
pub(super) struct InFlight(Vec<Arc<Target>>);

impl Traffic {
    /// Points nowhere. `route` points requests at targets, `counters` counts their answers by
    /// release. `alone` is cancelled once no predecessor serves requests that it took before this
    /// daemon came: until then nobody here can tell whether a target is idle.
    pub fn new(route: RouteWriter, counters: Arc<ServiceCounters>, alone: CancellationToken) -> Self {
        Self { route, counters, alone, targets: HashMap::new() }
    }

    /// Points new requests at `run`, and retires or closes the targets of the run that had them.
    pub(super) fn point(
        &mut self,
        run: RunId,
        release: &str,
        port: u16,
        former: Option<(RunId, FormerTarget)>,
    ) {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let target = Target::new(addr, self.counters.release(release));
        let tenures = self.targets.entry(run).or_default();
        // A client that is pinned to an earlier tenure of this run moves to the new one.
        tenures.retain(|tenure| {
            tenure.close();
            tenure.inflight() > 0
        });
        tenures.push(Arc::clone(&target));
        self.route.set(Now::One(target));
        let Some((former, treatment)) = former else { return };
        for target in self.of(former) {
            match treatment {
                FormerTarget::Retire => target.retire(),
                FormerTarget::Close => target.close(),
            }
        }
    }

    /// Takes the live target away. Requests wait for the next one: within the bounds of `[hold]`
    /// where they are held `on_crash`, else a little.
    pub(super) fn hold(&mut self, on_crash: bool) {
        drop(self.route.set(if on_crash { Now::Held(Held::Unpinned) } else { Now::Near }));
    }

    /// Whether nothing was ever pointed at: not by a coordinator before this one either.
    pub(super) fn is_empty(&self) -> bool {
        self.route.is_empty()
    }

    /// Puts what an operator has ordered in the way of requests, or takes it away.
    pub(super) fn bar(&mut self, bar: Option<Bar>) {
        self.route.bar(bar);
    }

    /// What becomes of requests.
    pub(super) fn now(&self) -> wire::Traffic {
        self.route.traffic()
    }

    /// How many requests wait.
    pub(super) fn waiting(&self) -> usize {
        self.route.waiting()
    }

    /// Takes the live target away. Requests are refused.
    pub(super) fn unroute(&mut self) {
        drop(self.route.set(Now::Empty));
    }

    /// Lets `run` take no request any more.
    pub(super) fn close(&self, run: RunId) {
        self.of(run).iter().for_each(|target| target.close());
    }

    /// Whether `run` has no request, and no client is pinned to it.
    pub(super) fn is_idle(&self, run: RunId) -> bool {
        self.of(run).iter().all(|target| target.inflight() + target.pinned() == 0)
    }

    /// The requests that `run` has.
    pub(super) fn in_flight(&self, run: Option<RunId>) -> InFlight {
        InFlight(run.map(|run| self.of(run).to_vec()).unwrap_or_default())
    }

    /// Forgets the runs that `is_known` does not hold for.
    pub(super) fn retain(&mut self, is_known: impl Fn(RunId) -> bool) {
        self.targets.retain(|run, _| is_known(*run));
    }

    /// Waits until it is worth looking for a drain that can end early. Cancel safe.
    pub(super) async fn look_early(&self) {
        self.alone.cancelled().await;
        tokio::time::sleep(EARLY_DRAIN_LOOK).await;
    }

    fn of(&self, run: RunId) -> &[Arc<Target>] {
        self.targets.get(&run).map_or(&[], Vec::as_slice)
    }
}

impl InFlight {
    /// How many there are now.
    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|target| target.inflight()).sum()
    }
}
