//! The apps of Redis: a service for each host of its table, and what others see of them.
//!
//! State: the connection ([`Redis`]), the table that was applied last, and for each of its hosts the
//! service with its targets. The registry owns it and publishes the routes. There may be very many of
//! these apps, so one has neither task nor record; they share their configuration and their counters;
//! and what did not change from one table to the next is not touched.
//!
//! A host that a file has a route for stays that file's. A target that leaves gets no new request;
//! it is closed once its requests have ended, after `drain.period` at the latest.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::app::{App, Facts, Kind};
use super::claims::{InForce, Spot};
use super::hosted::Hosted;
use super::running::without_configuration;
use super::targets::Addresses;
use crate::config::{AppConfig, AppRoutes, Config, Hosts};
use crate::proxy::{
    At, Board, Counters, Destination, Ejections, Route, RouteWriter, Service, ServiceCounters, Target,
};
use crate::redis::{Frontend, Marker, Redis, Routes};
use crate::wire::{AppSource, RedisStatus};

/// What every name of these apps begins with; the host follows.
const PREFIX: &str = "redis:";

/// How long a marked target is out unless its mark ends before: a mark says itself when it ends.
const OUT: Duration = Duration::from_secs(24 * 60 * 60);

/// How often it is looked whether targets that left have requests in flight.
const LOOK: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct FromRedis {
    source: Redis,
    routes: watch::Receiver<Routes>,
    config: Arc<AppConfig>,
    /// What was applied last.
    applied: Routes,
    hosts: HashMap<Hosts, Host>,
    seen: Seen,
}

/// The service of one host.
#[derive(Debug)]
struct Host {
    service: Arc<Service>,
    addresses: Addresses,
    ejections: Arc<Teller>,
    /// The places of its targets that are marked.
    out: Box<[usize]>,
}

/// Marks the targets that the data plane puts out, for the other portoks at this Redis.
#[derive(Debug)]
struct Teller {
    marker: Marker,
    /// The list in force, and how long a mark of ours counts.
    list: ArcSwap<(Arc<Frontend>, Duration)>,
}

/// The apps of Redis as others see them. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    config: Arc<AppConfig>,
    counters: Arc<ServiceCounters>,
    hosts: Arc<BTreeMap<Hosts, Arc<Hosted>>>,
    /// Hosts that a file has, each with the reason why Redis does not.
    taken: Arc<BTreeMap<Hosts, String>>,
    status: watch::Receiver<Arc<RedisStatus>>,
}

/// What came of a newer table.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Whether there are other hosts.
    pub(super) other_hosts: bool,
    /// The targets that left, to be [drained](drain).
    pub(super) left: Vec<Arc<Target>>,
}

impl Ejections for Teller {
    fn ejected(&self, target: &Arc<Target>) {
        let list = self.list.load();
        let (frontend, time) = &**list;
        if let Some(place) = frontend.targets().iter().position(|addr| *addr == target.addr()) {
            self.marker.mark_dead(frontend, place, *time);
        }
    }
}

/// What holds for all apps of Redis; without Redis, what stands for every app.
pub(super) fn config_of_all(config: &Config) -> Arc<AppConfig> {
    config.redis.as_ref().map_or_else(|| Arc::clone(&config.app), |redis| Arc::clone(&redis.app))
}

impl FromRedis {
    pub(super) fn new(source: Redis, config: &Config, counters: &Counters) -> Self {
        let config = config_of_all(config);
        let seen = Seen {
            config: Arc::clone(&config),
            counters: counters.apart(),
            hosts: Arc::default(),
            taken: Arc::default(),
            status: source.follow_status(),
        };
        let (routes, applied) = (source.routes(), Routes::default());
        Self { source, routes, config, applied, hosts: HashMap::new(), seen }
    }

    /// The connection.
    pub(super) fn source(&self) -> &Redis {
        &self.source
    }

    /// What others see.
    pub(super) fn seen(&self) -> Seen {
        self.seen.clone()
    }

    /// Waits for another table, or other marks. Cancel safe.
    pub(super) async fn changed(&mut self) {
        if self.routes.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Puts the newest table and marks in force; routes to hosts that are new are the registry's to
    /// publish.
    pub(super) fn apply(&mut self, board: &Arc<Board>) -> Applied {
        let new = self.routes.borrow_and_update().clone();
        let mut applied = Applied::default();
        if !Arc::ptr_eq(&new.table, &self.applied.table) {
            let changes = new.table.changes_since(&self.applied.table);
            let seen = &mut self.seen;
            let hosts = Arc::make_mut(&mut seen.hosts);
            for frontend in changes.removed {
                hosts.remove(frontend.hosts());
                if let Some(host) = self.hosts.remove(frontend.hosts()) {
                    applied.other_hosts = true;
                    applied.left.extend_from_slice(host.addresses.targets());
                }
            }
            for frontend in changes.set {
                let list = (Arc::clone(&frontend), self.config.upstream.eject_for);
                let host = self.hosts.entry(frontend.hosts().clone()).or_insert_with(|| {
                    applied.other_hosts = true;
                    let (service, route) =
                        board.add_counted(Arc::clone(&self.config), Arc::clone(&seen.counters));
                    Host::new(list.clone(), self.source.marker(), service, route)
                });
                applied.left.append(&mut host.put(list, &self.config));
                host.mark(places_of(frontend.hosts(), &new));
                let counters = Arc::clone(&seen.counters);
                let hosted = Hosted::new(Arc::clone(&frontend), host.addresses.targets(), counters);
                hosts.insert(frontend.hosts().clone(), Arc::new(hosted));
            }
        }
        if !Arc::ptr_eq(&new.out, &self.applied.out) {
            let marked = self.applied.out.keys().chain(new.out.keys()).collect::<HashSet<_>>();
            for hosts in marked {
                if let Some(host) = self.hosts.get_mut(hosts) {
                    host.mark(places_of(hosts, &new));
                }
            }
        }
        self.applied = new;
        applied
    }

    /// Puts another configuration in force for all of them.
    pub(super) fn configure(&mut self, config: &Config, board: &Board) {
        let config = config_of_all(config);
        if config == self.config {
            return;
        }
        self.seen.config = Arc::clone(&config);
        for host in self.hosts.values_mut() {
            board.configure_app(&host.service, Arc::clone(&config));
            let list = Arc::clone(&host.ejections.list.load().0);
            // The same targets, so none leaves.
            host.put((list, config.upstream.eject_for), &config);
        }
        self.config = config;
    }

    /// The routes of the hosts that no file has; `in_force`: the routes of the files.
    pub(super) fn routes(&mut self, in_force: &InForce) -> impl Iterator<Item = Route<Destination>> {
        let taken: BTreeMap<_, _> = in_force
            .iter()
            .filter_map(|(spot, app)| match spot {
                Spot::Under(hosts, path) if **path == *"/" && self.hosts.contains_key(hosts) => {
                    Some((hosts.clone(), format!("{spot} belongs to app `{app}`")))
                }
                _ => None,
            })
            .collect();
        for (hosts, why) in &taken {
            if self.seen.taken.get(hosts) != Some(why) {
                tracing::warn!(app = format!("{PREFIX}{hosts}"), "{why}");
            }
        }
        self.seen.taken = Arc::new(taken);
        let taken = &self.seen.taken;
        self.hosts.iter().filter(|(hosts, _)| !taken.contains_key(hosts)).map(|(hosts, host)| Route {
            at: At::Instance { hosts: hosts.clone(), path: "/".into() },
            to: Destination::pass(Arc::clone(&host.service)),
        })
    }

    /// Ends. Returns the targets, to be [drained](drain).
    pub(super) async fn end(self) -> Vec<Arc<Target>> {
        self.source.end().await;
        self.hosts.values().flat_map(|host| host.addresses.targets()).cloned().collect()
    }
}

/// The places that are marked among the targets of these hosts.
fn places_of<'r>(hosts: &Hosts, routes: &'r Routes) -> &'r [usize] {
    routes.out.get(hosts).map(|places| &**places).unwrap_or_default()
}

impl Host {
    fn new(
        list: (Arc<Frontend>, Duration),
        marker: Marker,
        service: Arc<Service>,
        route: RouteWriter,
    ) -> Self {
        let ejections = Arc::new(Teller { marker, list: ArcSwap::from_pointee(list) });
        let told: Arc<dyn Ejections> = ejections.clone();
        let addresses = Addresses::new(route, Arc::clone(service.counters()), Some(told));
        Self { service, addresses, ejections, out: Box::default() }
    }

    /// Points requests at the targets of this list. Its marks are void. Returns the targets that
    /// left.
    fn put(&mut self, list: (Arc<Frontend>, Duration), config: &AppConfig) -> Vec<Arc<Target>> {
        let is_same = *self.ejections.list.load().0 == *list.0;
        if !is_same {
            self.mark(&[]);
        }
        let targets = list.0.targets().to_vec();
        self.ejections.list.store(Arc::new(list));
        self.addresses.put(&targets, config)
    }

    /// These are the places that are marked now.
    fn mark(&mut self, out: &[usize]) {
        for place in self.out.iter().filter(|place| !out.contains(place)) {
            self.addresses.set_in(*place);
        }
        for place in out.iter().filter(|place| !self.out.contains(place)) {
            self.addresses.set_out(*place, OUT);
        }
        self.out = out.into();
    }
}

impl Seen {
    /// The app of this name.
    pub(super) fn find(&self, name: &str) -> Option<App> {
        let host = name.strip_prefix(PREFIX)?;
        let status = self.status.borrow().clone();
        let malformed = status.malformed_lists.iter().map(|list| (&*list.host, &*list.reason)).collect();
        let hosted = host.parse().ok().and_then(|hosts: Hosts| self.hosts.get(&hosts));
        match hosted.filter(|hosted| hosted.name() == name) {
            Some(hosted) => Some(self.app(hosted, &malformed)),
            None => malformed.get(host).map(|reason| self.malformed(host, reason)),
        }
    }

    /// All of them, and those whose list says nothing.
    pub(super) fn list(&self) -> Vec<App> {
        let status = self.status.borrow().clone();
        let malformed: HashMap<_, _> =
            status.malformed_lists.iter().map(|list| (&*list.host, &*list.reason)).collect();
        let in_force: HashSet<_> = self.hosts.values().map(|hosted| hosted.frontend().key()).collect();
        let lost = malformed.iter().filter(|(host, _)| !in_force.contains(*host));
        let lost = lost.map(|(host, reason)| self.malformed(host, reason));
        self.hosts.values().map(|hosted| self.app(hosted, &malformed)).chain(lost).collect()
    }

    /// The counters of all of them together.
    pub(super) fn counters(&self) -> Arc<ServiceCounters> {
        Arc::clone(&self.counters)
    }

    /// How many hosts there are.
    pub(super) fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Requests and tunnels in flight.
    pub(super) fn inflight(&self) -> u64 {
        self.hosts.values().map(|hosted| hosted.inflight()).sum()
    }

    /// How it stands with the server.
    pub(super) fn status(&self) -> RedisStatus {
        (**self.status.borrow()).clone()
    }

    fn app(&self, hosted: &Arc<Hosted>, malformed: &HashMap<&str, &str>) -> App {
        let frontend = hosted.frontend();
        let taken = self.taken.get(frontend.hosts());
        let is_as_it_was = malformed.get(frontend.key()).map(|reason| {
            format!("its list says something else by now, which is malformed; it stays as it was: {reason}")
        });
        let troubles: Vec<_> = taken.cloned().into_iter().chain(is_as_it_was).collect();
        let none = || AppRoutes { hosts: Vec::new(), ..AppRoutes::default() };
        App::new(Facts {
            config: Arc::clone(&self.config),
            counters: Arc::clone(&self.counters),
            kind: Kind::Redis(Arc::clone(hosted)),
            routes: if taken.is_some() { none() } else { hosted.routes() },
            error: (!troubles.is_empty()).then(|| troubles.join("; ")),
            source: AppSource::Redis,
            leaves: false,
        })
    }

    /// What is shown of a list that says nothing, for a host that has no other.
    fn malformed(&self, host: &str, reason: &str) -> App {
        let config = without_configuration(&self.config, &format!("{PREFIX}{host}"));
        App::new(Facts {
            routes: config.routes.clone(),
            config,
            counters: Arc::clone(&self.counters),
            kind: Kind::Absent,
            error: Some(format!("its list is malformed: {reason}")),
            source: AppSource::Redis,
            leaves: false,
        })
    }
}

/// Lets no new request to `targets`, and closes each once its requests have ended, after `period` at
/// the latest.
pub(super) async fn drain(mut targets: Vec<Arc<Target>>, period: Duration) {
    targets.iter().for_each(|target| target.retire());
    let end = Instant::now() + period;
    while !targets.is_empty() && Instant::now() < end {
        sleep(LOOK.min(end - Instant::now())).await;
        for target in targets.extract_if(.., |target| target.inflight() == 0 && target.pinned() == 0) {
            target.close();
        }
    }
    targets.iter().for_each(|target| target.close());
}
