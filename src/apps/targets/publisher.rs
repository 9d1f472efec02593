//! Makes targets of addresses, and publishes which of them requests go to.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::{Affinity, AppConfig};
use crate::proxy::{Ejections, Now, ReleaseCounters, RouteWriter, ServiceCounters, Spread, Target, Tenure};

/// What answers count for in the metrics by release: an app with targets has no releases.
const RELEASE: &str = "targets";

/// The one writer of a service whose targets somebody else runs.
#[derive(Debug)]
pub(super) struct Publisher {
    route: RouteWriter,
    release: Arc<ReleaseCounters>,
    tenure: Tenure,
    ejections: Option<Arc<dyn Ejections>>,
}

impl Publisher {
    /// Points nowhere yet. `ejections` is told of targets that the data plane puts out.
    pub(super) fn new(
        route: RouteWriter,
        counters: &ServiceCounters,
        ejections: Option<Arc<dyn Ejections>>,
    ) -> Self {
        Self { route, release: counters.release(RELEASE), tenure: Tenure::default(), ejections }
    }

    /// A new tenure of `addr`.
    pub(super) fn target(&self, addr: SocketAddr) -> Arc<Target> {
        Target::new(addr, self.release.clone())
    }

    /// What is published next is another set: client connections that are pinned to the former
    /// stay there while it drains.
    pub(super) fn begin_tenure(&mut self) {
        self.tenure = Tenure::default();
    }

    /// Points requests at `targets`.
    pub(super) fn publish(&mut self, targets: &[Arc<Target>], config: &AppConfig) {
        let now = match targets {
            [] => Now::Empty,
            // The fast path. A pin is to a set, so one that may get more members is published as a
            // set where there are pins.
            [target] if config.drain.affinity == Affinity::Request => Now::One(target.clone()),
            _ => {
                let spread = Spread::new(targets.to_vec(), config.balance, self.tenure.clone());
                let told = self.ejections.clone();
                Now::Spread(Arc::new(told.into_iter().fold(spread, Spread::told)))
            }
        };
        drop(self.route.set(now));
    }
}
