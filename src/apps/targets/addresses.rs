//! A list of addresses that gets an app's requests as it is: without probes, record and task.
//!
//! Owned by whoever has the list. Dropped, what was published last stays. One at rest costs its
//! service, its targets and nothing else.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use super::publisher::Publisher;
use crate::config::AppConfig;
use crate::proxy::{Ejections, RouteWriter, Service, Target};

/// See the module.
#[derive(Debug)]
pub struct Addresses {
    publisher: Publisher,
    targets: Targets,
}

/// Targets in the order of their list. A clone shares them.
#[derive(Debug, Clone)]
pub enum Targets {
    /// Most lists have one, which needs no room beside itself.
    One(Arc<Target>),
    /// Any other number.
    Several(Arc<[Arc<Target>]>),
}

impl Deref for Targets {
    type Target = [Arc<Target>];

    fn deref(&self) -> &[Arc<Target>] {
        match self {
            Self::One(target) => std::slice::from_ref(target),
            Self::Several(targets) => targets,
        }
    }
}

impl FromIterator<Arc<Target>> for Targets {
    fn from_iter<I: IntoIterator<Item = Arc<Target>>>(targets: I) -> Self {
        let mut targets: Vec<_> = targets.into_iter().collect();
        match (targets.pop(), targets.is_empty()) {
            (Some(only), true) => Self::One(only),
            (last, _) => {
                targets.extend(last);
                Self::Several(targets.into())
            }
        }
    }
}

impl Addresses {
    /// Points nowhere yet.
    pub fn new(route: RouteWriter) -> Self {
        Self { publisher: Publisher::new(route), targets: Targets::from_iter([]) }
    }

    /// The service whose requests it points.
    pub fn service(&self) -> &Arc<Service> {
        self.publisher.service()
    }

    /// Points requests at these addresses but those at the places `out`; one that stays keeps its
    /// connections and marks. Where several serve, what `told` makes is told of those that the data
    /// plane puts out. Returns the targets that left. They get no new request; the caller closes
    /// each after its drain.
    pub fn put(
        &mut self,
        addrs: &[SocketAddr],
        out: &[usize],
        config: &AppConfig,
        told: impl FnOnce() -> Arc<dyn Ejections>,
    ) -> Vec<Arc<Target>> {
        let mut former = self.targets.to_vec();
        let mut next = |addr: &SocketAddr| match former.iter().position(|target| target.addr() == *addr) {
            Some(at) => former.swap_remove(at),
            None => self.publisher.target(*addr),
        };
        let targets = addrs.iter().map(&mut next).collect();
        self.targets = targets;
        self.leave_out(out, config, told);
        former.iter().for_each(|target| target.retire());
        former
    }

    /// Points requests at all of them but those at these places of the list. `told` is as for
    /// [`put`](Self::put).
    pub fn leave_out(
        &mut self,
        out: &[usize],
        config: &AppConfig,
        told: impl FnOnce() -> Arc<dyn Ejections>,
    ) {
        let is_in = |(place, target): (usize, &Arc<Target>)| (!out.contains(&place)).then(|| target.clone());
        let serving: Vec<_> = self.targets.iter().enumerate().filter_map(is_in).collect();
        self.publisher.publish(&serving, config, || Some(told()));
    }

    /// Puts the address at this place of the list out for `time`, as if it had failed. When all are
    /// out, that counts for nothing. Returns the target if it was in.
    pub fn set_out(&self, place: usize, time: Duration) -> Option<&Target> {
        let target = self.targets.get(place)?;
        target.put_out(time, self.service().counters()).then_some(&**target)
    }

    /// Takes the address at this place back in. Returns the target if it was out.
    pub fn set_in(&self, place: usize) -> Option<&Target> {
        let target = self.targets.get(place)?;
        target.take_in().then_some(&**target)
    }

    /// The targets, in the order of the list.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }
}
