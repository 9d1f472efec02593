//! The apps of Redis as others see them: snapshots of single ones are made when they are asked for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

use super::PREFIX;
use super::host::Host;
use crate::apps::app::{App, Facts, Kind};
use crate::apps::hosted::Hosted;
use crate::apps::probes::Probed;
use crate::apps::running::without_configuration;
use crate::config::{AppConfig, AppRoutes, Hosts};
use crate::proxy::ServiceCounters;
use crate::redis::Frontend;
use crate::wire::{AppSource, Phase, RedisStatus};

/// The hosts in force.
pub(super) type Table = HashMap<Hosts, Host>;

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::apps) struct Seen {
    pub(super) config: Arc<AppConfig>,
    pub(super) counters: Arc<ServiceCounters>,
    /// Shared and not copied with every change: there may be very many.
    hosts: Arc<RwLock<Table>>,
    /// Hosts that a file has, each with the reason why Redis does not.
    pub(super) taken: Arc<BTreeMap<Hosts, String>>,
    /// What the probes say; `None`: there are none.
    pub(super) probed: Option<Probed>,
    /// How many hosts have too many targets that fail their probes.
    unhealthy: Arc<AtomicUsize>,
    status: watch::Receiver<Arc<RedisStatus>>,
}

impl Seen {
    /// Without a host yet.
    pub(super) fn new(
        config: Arc<AppConfig>,
        counters: Arc<ServiceCounters>,
        probed: Option<Probed>,
        status: watch::Receiver<Arc<RedisStatus>>,
    ) -> Self {
        let (hosts, taken, unhealthy) = (Arc::default(), Arc::default(), Arc::default());
        Self { config, counters, hosts, taken, probed, unhealthy, status }
    }

    /// The app of this name.
    pub(in crate::apps) fn find(&self, name: &str) -> Option<App> {
        let host = name.strip_prefix(PREFIX)?;
        let status = self.status.borrow().clone();
        let malformed = status.malformed_lists.iter().map(|list| (&*list.host, &*list.reason)).collect();
        let hosts: Option<Hosts> = host.parse().ok();
        let hosted = hosts.and_then(|hosts| Some(self.hosts().get(&hosts)?.seen(self.probed.clone())));
        match hosted.filter(|hosted| hosted.name() == name) {
            Some(hosted) => Some(self.app(hosted, &malformed)),
            None => malformed.get(host).map(|reason| self.malformed(host, reason)),
        }
    }

    /// All of them, and those whose list says nothing.
    pub(in crate::apps) fn list(&self) -> Vec<App> {
        let status = self.status.borrow().clone();
        let malformed: HashMap<_, _> =
            status.malformed_lists.iter().map(|list| (&*list.host, &*list.reason)).collect();
        let hosts = self.hosts();
        let in_force: HashSet<_> = hosts.values().map(|host| host.list().key()).collect();
        let lost = malformed.iter().filter(|(host, _)| !in_force.contains(*host));
        let lost = lost.map(|(host, reason)| self.malformed(host, reason));
        let seen = |host: &Host| self.app(host.seen(self.probed.clone()), &malformed);
        hosts.values().map(seen).chain(lost).collect()
    }

    /// One host was unhealthy, and is.
    pub(super) fn note_health(&self, was_unhealthy: bool, is_unhealthy: bool) {
        match (was_unhealthy, is_unhealthy) {
            (false, true) => self.unhealthy.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.unhealthy.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
    }

    pub(super) fn hosts(&self) -> RwLockReadGuard<'_, Table> {
        // Plain values, whole at every moment.
        self.hosts.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hosts_mut(&self) -> RwLockWriteGuard<'_, Table> {
        self.hosts.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counters of all of them together.
    pub(in crate::apps) fn counters(&self) -> Arc<ServiceCounters> {
        Arc::clone(&self.counters)
    }

    /// The phase of every one.
    pub(in crate::apps) fn phases(&self) -> impl Iterator<Item = Phase> {
        let all = self.hosts().len();
        let unhealthy = self.unhealthy.load(Ordering::Relaxed).min(all);
        let others = std::iter::repeat_n(Phase::Settled, all - unhealthy);
        std::iter::repeat_n(Phase::Unhealthy, unhealthy).chain(others)
    }

    /// Requests and tunnels in flight.
    pub(in crate::apps) fn inflight(&self) -> u64 {
        let hosts = self.hosts();
        let targets = hosts.values().flat_map(|host| host.addresses().targets().iter());
        targets.map(|target| target.inflight()).sum()
    }

    /// How it stands with the server.
    pub(in crate::apps) fn status(&self) -> RedisStatus {
        (**self.status.borrow()).clone()
    }

    fn app(&self, hosted: Hosted, malformed: &HashMap<&str, &str>) -> App {
        let frontend: &Frontend = hosted.frontend();
        let taken = self.taken.get(frontend.hosts());
        let is_as_it_was = malformed.get(frontend.key()).map(|reason| {
            format!("its list says something else by now, which is malformed; it stays as it was: {reason}")
        });
        let troubles: Vec<_> = taken.cloned().into_iter().chain(is_as_it_was).collect();
        let none = || AppRoutes { hosts: Vec::new(), ..AppRoutes::default() };
        let routes = Some(if taken.is_some() { none() } else { hosted.routes() });
        App::new(Facts {
            config: Arc::clone(&self.config),
            counters: Arc::clone(&self.counters),
            kind: Kind::Redis(Arc::new(hosted)),
            routes,
            error: (!troubles.is_empty()).then(|| troubles.join("; ")),
            stale: None,
            source: AppSource::Redis,
            leaves: false,
            down: false,
        })
    }

    /// What is shown of a list that says nothing, for a host that has no other.
    fn malformed(&self, host: &str, reason: &str) -> App {
        let config = without_configuration(&self.config, &format!("{PREFIX}{host}"));
        App::new(Facts {
            routes: None,
            config,
            counters: Arc::clone(&self.counters),
            kind: Kind::Absent,
            error: Some(format!("its list is malformed: {reason}")),
            stale: None,
            source: AppSource::Redis,
            leaves: false,
            down: false,
        })
    }
}
