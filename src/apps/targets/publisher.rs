//! Makes targets of addresses, and publishes which of them requests go to.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::{Affinity, AppConfig, Sticky};
use crate::proxy::{Bar, Ejections, Now, Place, RouteWriter, Service, Spread, Target, Tenure};
use crate::wire::Traffic;

/// What answers count for in the metrics by release: an app with targets has no releases.
const RELEASE: &str = "targets";

/// The one writer of a service whose targets somebody else runs.
#[derive(Debug)]
pub(super) struct Publisher {
    route: RouteWriter,
    /// That of the set that was published last, once it has had several members.
    tenure: Option<Tenure>,
}

impl Publisher {
    /// Points nowhere yet.
    pub(super) fn new(route: RouteWriter) -> Self {
        Self { route, tenure: None }
    }

    /// The service whose requests it points.
    pub(super) fn service(&self) -> &Arc<Service> {
        self.route.service()
    }

    /// A new tenure of `addr`.
    pub(super) fn target(&self, addr: SocketAddr) -> Arc<Target> {
        Target::new(addr, self.service().counters().release(RELEASE))
    }

    /// What is published next is another set: client connections that are pinned to the former
    /// stay there while it drains.
    pub(super) fn begin_tenure(&mut self) {
        self.tenure = None;
    }

    /// Puts what an operator has ordered in the way of requests, or takes it away.
    pub(super) fn bar(&mut self, bar: Option<Bar>) {
        self.route.bar(bar);
    }

    /// What becomes of requests.
    pub(super) fn traffic(&self) -> Traffic {
        self.route.traffic()
    }

    /// How many requests wait.
    pub(super) fn waiting(&self) -> usize {
        self.route.waiting()
    }

    /// Points requests at `targets`. Where they are several, what `told` makes is told of those
    /// that the data plane puts out.
    pub(super) fn publish(
        &mut self,
        targets: &[Arc<Target>],
        config: &AppConfig,
        told: impl FnOnce() -> Option<Arc<dyn Ejections>>,
    ) {
        let now = match targets {
            [] => Now::Empty,
            // The fast path. A pin is to a set, and a cookie names one of a set: where there are
            // such, one that may get more members is published as a set.
            [target] if config.drain.affinity == Affinity::Request && config.sticky != Sticky::Cookie => {
                Now::One(target.clone())
            }
            _ => {
                let tenure = self.tenure.get_or_insert_default().clone();
                let mut spread = Spread::new(targets.to_vec(), config.balance, tenure);
                if config.sticky != Sticky::Off {
                    let addrs = targets.iter().map(|target| target.addr());
                    spread = spread.placed(Place::of_addresses(&config.name, addrs));
                }
                Now::Spread(Arc::new(told().into_iter().fold(spread, Spread::told)))
            }
        };
        drop(self.route.set(now));
    }
}
