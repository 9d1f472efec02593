//! A list of addresses that gets an app's requests as it is: without probes, record and task.
//!
//! Owned by whoever has the list. Dropped, what was published last stays. One at rest costs its
//! service, its targets and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::publisher::Publisher;
use crate::config::AppConfig;
use crate::proxy::{Ejections, RouteWriter, ServiceCounters, Target};

/// See the module.
#[derive(Debug)]
pub struct Addresses {
    publisher: Publisher,
    counters: Arc<ServiceCounters>,
    /// In the order of the list.
    targets: Box<[Arc<Target>]>,
}

impl Addresses {
    /// Points nowhere yet. `ejections` is told of targets that the data plane puts out.
    pub fn new(
        route: RouteWriter,
        counters: Arc<ServiceCounters>,
        ejections: Option<Arc<dyn Ejections>>,
    ) -> Self {
        let publisher = Publisher::new(route, &counters, ejections);
        Self { publisher, counters, targets: Box::default() }
    }

    /// Points requests at these addresses but those at the places `out`; one that stays keeps its
    /// connections and marks. Returns the targets that left. They get no new request; the caller
    /// closes each after its drain.
    pub fn put(&mut self, addrs: &[SocketAddr], out: &[usize], config: &AppConfig) -> Vec<Arc<Target>> {
        let mut former = std::mem::take(&mut self.targets).into_vec();
        let mut next = |addr: &SocketAddr| match former.iter().position(|target| target.addr() == *addr) {
            Some(at) => former.swap_remove(at),
            None => self.publisher.target(*addr),
        };
        self.targets = addrs.iter().map(&mut next).collect();
        self.leave_out(out, config);
        former.iter().for_each(|target| target.retire());
        former
    }

    /// Points requests at all of them but those at these places of the list.
    pub fn leave_out(&mut self, out: &[usize], config: &AppConfig) {
        let is_in = |(place, target): (usize, &Arc<Target>)| (!out.contains(&place)).then(|| target.clone());
        let serving: Vec<_> = self.targets.iter().enumerate().filter_map(is_in).collect();
        self.publisher.publish(&serving, config);
    }

    /// Puts the address at this place of the list out for `time`, as if it had failed. When all are
    /// out, that counts for nothing.
    pub fn set_out(&self, place: usize, time: Duration) {
        if let Some(target) = self.targets.get(place) {
            target.put_out(time, &self.counters);
        }
    }

    /// Takes the address at this place back in.
    pub fn set_in(&self, place: usize) {
        if let Some(target) = self.targets.get(place) {
            target.take_in();
        }
    }

    /// At which place of the list `target` is; `None`: it has left.
    pub fn place_of(&self, target: &Arc<Target>) -> Option<usize> {
        self.targets.iter().position(|known| Arc::ptr_eq(known, target))
    }

    /// The targets, in the order of the list.
    pub fn targets(&self) -> &[Arc<Target>] {
        &self.targets
    }

    /// Requests and tunnels in flight, those of targets that left excepted.
    pub fn inflight(&self) -> u64 {
        self.targets.iter().map(|target| target.inflight()).sum()
    }
}
