//! The apps of Redis: a service for each host of its table, and what others see of them.
//!
//! State: the connection ([`Redis`]), the table that was applied last, for each of its hosts the
//! service with its targets, and the probes of all targets where they are wanted ([`Probes`]). The
//! registry owns it and publishes the routes. There may be very many of these apps, so one has
//! neither task nor record; they share their configuration and their counters; and what did not
//! change from one table to the next is not touched.
//!
//! A list is in force as soon as it is read: a target that is new gets requests before its first
//! probe. One that fails its probes gets none while at most half of its list fails, until a probe is
//! good again.
//!
//! A host that a file has a route for stays that file's. A target that leaves gets no new request;
//! it is closed once its requests have ended, after `drain.period` at the latest.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::app::{App, Facts, Kind};
use super::claims::{InForce, Spot};
use super::hosted::Hosted;
use super::probes::{Probed, Probes, Verdict};
use super::running::without_configuration;
use super::targets::Addresses;
use crate::config::{AppConfig, AppRoutes, Config, Hosts};
use crate::health::Prober;
use crate::proxy::{
    At, Board, Counters, Destination, Ejections, Route, RouteWriter, Service, ServiceCounters, Target,
};
use crate::redis::{Frontend, Marker, Redis, Routes};
use crate::wire::{AppSource, Phase, RedisStatus};

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
    /// Whether there are other hosts than when the [routes](FromRedis::routes) were asked for last.
    has_other_hosts: bool,
    /// `None`: no target is probed.
    probes: Option<Probes>,
    prober: Prober,
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
    /// What the probes said of them.
    verdict: Verdict,
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
    /// Shared and not copied with every change: there may be very many.
    hosts: Arc<RwLock<BTreeMap<Hosts, Arc<Hosted>>>>,
    /// Hosts that a file has, each with the reason why Redis does not.
    taken: Arc<BTreeMap<Hosts, String>>,
    /// How many hosts have too many targets that fail their probes.
    unhealthy: Arc<AtomicUsize>,
    status: watch::Receiver<Arc<RedisStatus>>,
}

/// What came of a newer table.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Whether any list differs.
    pub(super) other_lists: bool,
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
    pub(super) fn new(source: Redis, config: &Config, counters: &Counters, prober: Prober) -> Self {
        let probes = begin_probes(config, &prober);
        let config = config_of_all(config);
        let seen = Seen {
            config: Arc::clone(&config),
            counters: counters.apart(),
            hosts: Arc::default(),
            taken: Arc::default(),
            unhealthy: Arc::default(),
            status: source.follow_status(),
        };
        let (routes, applied) = (source.routes(), Routes::default());
        let (hosts, has_other_hosts) = (HashMap::new(), true);
        Self { source, routes, config, applied, hosts, has_other_hosts, probes, prober, seen }
    }

    /// The connection.
    pub(super) fn source(&self) -> &Redis {
        &self.source
    }

    /// What others see.
    pub(super) fn seen(&self) -> Seen {
        self.seen.clone()
    }

    /// Waits for another table, other marks, or targets that begin or cease to fail their probes.
    /// Cancel safe.
    pub(super) async fn changed(&mut self) {
        let Self { routes, probes, .. } = self;
        let turned = async {
            match probes {
                Some(probes) => probes.turned().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Ok(()) = routes.changed() => {}
            () = turned => {}
        }
    }

    /// Puts the newest table, marks and probes in force; routes to hosts that are new are the
    /// registry's to publish.
    pub(super) fn apply(&mut self, board: &Arc<Board>) -> Applied {
        let new = self.routes.borrow_and_update().clone();
        let mut applied = Applied::default();
        if !Arc::ptr_eq(&new.table, &self.applied.table) {
            applied.other_lists = true;
            let changes = new.table.changes_since(&self.applied.table);
            let seen = &self.seen;
            let mut hosts = seen.hosts_mut();
            for frontend in changes.removed {
                hosts.remove(frontend.hosts());
                if let Some(host) = self.hosts.remove(frontend.hosts()) {
                    self.has_other_hosts = true;
                    seen.note_health(host.verdict.is_unhealthy, false);
                    if let Some(probes) = &self.probes {
                        probes.replace(frontend.hosts(), host.list().targets(), &[]);
                    }
                    applied.left.extend_from_slice(host.addresses.targets());
                }
            }
            for frontend in changes.set {
                let list = (Arc::clone(&frontend), self.config.upstream.eject_for);
                let host = self.hosts.entry(frontend.hosts().clone()).or_insert_with(|| {
                    self.has_other_hosts = true;
                    let (service, route) =
                        board.add_counted(Arc::clone(&self.config), Arc::clone(&seen.counters));
                    Host::new(list.clone(), self.source.marker(), service, route)
                });
                let was_unhealthy = host.verdict.is_unhealthy;
                applied.left.append(&mut host.put(list, self.probes.as_ref(), &self.config));
                seen.note_health(was_unhealthy, host.verdict.is_unhealthy);
                host.mark(places_of(frontend.hosts(), &new));
                let hosted = host.seen(&seen.counters, self.probes.as_ref());
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
        self.follow_probes();
        applied
    }

    /// Puts in force what the probes have said since.
    fn follow_probes(&mut self) {
        let Some(probes) = &self.probes else { return };
        for hosts in probes.take_turned() {
            if let Some(host) = self.hosts.get_mut(&hosts) {
                let was_unhealthy = host.verdict.is_unhealthy;
                host.judge(probes.seen(), &self.config);
                self.seen.note_health(was_unhealthy, host.verdict.is_unhealthy);
            }
        }
    }

    /// Puts another configuration in force for all of them.
    pub(super) fn configure(&mut self, config: &Config, board: &Board) {
        let is_probed = self.probes.is_some();
        let others_are_probed = is_probed != wants_probes(config);
        if others_are_probed {
            self.probes = begin_probes(config, &self.prober);
        }
        let config = config_of_all(config);
        if config == self.config && !others_are_probed {
            return;
        }
        if let Some(probes) = &self.probes {
            probes.configure(Arc::clone(&config));
        }
        self.seen.config = Arc::clone(&config);
        let mut seen = self.seen.hosts_mut();
        for (hosts, host) in &mut self.hosts {
            board.configure_app(&host.service, Arc::clone(&config));
            // The same targets, so none leaves.
            let was_unhealthy = host.verdict.is_unhealthy;
            host.put((host.list(), config.upstream.eject_for), self.probes.as_ref(), &config);
            self.seen.note_health(was_unhealthy, host.verdict.is_unhealthy);
            if others_are_probed {
                seen.insert(hosts.clone(), Arc::new(host.seen(&self.seen.counters, self.probes.as_ref())));
            }
        }
        drop(seen);
        self.config = config;
    }

    /// Notes which hosts a file has; `in_force`: the routes of the files. Returns whether
    /// [`FromRedis::routes`] are others than when they were asked for last.
    pub(super) fn give_way(&mut self, in_force: &InForce) -> bool {
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
        let differ = self.has_other_hosts || !taken.keys().eq(self.seen.taken.keys());
        self.seen.taken = Arc::new(taken);
        differ
    }

    /// The routes of the hosts that no file has.
    pub(super) fn routes(&mut self) -> impl Iterator<Item = Route<Destination>> {
        self.has_other_hosts = false;
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

/// Whether the targets are probed.
fn wants_probes(config: &Config) -> bool {
    config.redis.as_ref().is_some_and(|redis| redis.probe)
}

fn begin_probes(config: &Config, prober: &Prober) -> Option<Probes> {
    wants_probes(config).then(|| Probes::start(config_of_all(config), prober.clone()))
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
        Self { service, addresses, ejections, out: Box::default(), verdict: Verdict::default() }
    }

    /// The list in force.
    fn list(&self) -> Arc<Frontend> {
        Arc::clone(&self.ejections.list.load().0)
    }

    /// Points requests at the targets of this list. Its marks are void. Returns the targets that
    /// left.
    fn put(
        &mut self,
        list: (Arc<Frontend>, Duration),
        probes: Option<&Probes>,
        config: &AppConfig,
    ) -> Vec<Arc<Target>> {
        let former = self.list();
        if *former != *list.0 {
            self.mark(&[]);
        }
        let targets = list.0.targets().to_vec();
        self.verdict = match probes {
            Some(probes) => {
                probes.replace(list.0.hosts(), former.targets(), &targets);
                probes.seen().verdict(&targets)
            }
            None => Verdict::default(),
        };
        self.ejections.list.store(Arc::new(list));
        self.addresses.put(&targets, &self.verdict.out, config)
    }

    /// Takes those of its targets out that fail their probes, and the others back in.
    fn judge(&mut self, probed: &Probed, config: &AppConfig) {
        let verdict = probed.verdict(self.list().targets());
        if verdict.out != self.verdict.out {
            self.addresses.leave_out(&verdict.out, config);
        }
        self.verdict = verdict;
    }

    /// It as others see it.
    fn seen(&self, counters: &Arc<ServiceCounters>, probes: Option<&Probes>) -> Hosted {
        let probed = probes.map(|probes| probes.seen().clone());
        Hosted::new(self.list(), self.addresses.targets(), Arc::clone(counters), probed)
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
        let hosted = host.parse().ok().and_then(|hosts: Hosts| self.hosts().get(&hosts).cloned());
        match hosted.filter(|hosted| hosted.name() == name) {
            Some(hosted) => Some(self.app(&hosted, &malformed)),
            None => malformed.get(host).map(|reason| self.malformed(host, reason)),
        }
    }

    /// All of them, and those whose list says nothing.
    pub(super) fn list(&self) -> Vec<App> {
        let status = self.status.borrow().clone();
        let malformed: HashMap<_, _> =
            status.malformed_lists.iter().map(|list| (&*list.host, &*list.reason)).collect();
        let hosts = self.hosts();
        let in_force: HashSet<_> = hosts.values().map(|hosted| hosted.frontend().key()).collect();
        let lost = malformed.iter().filter(|(host, _)| !in_force.contains(*host));
        let lost = lost.map(|(host, reason)| self.malformed(host, reason));
        hosts.values().map(|hosted| self.app(hosted, &malformed)).chain(lost).collect()
    }

    /// One host was unhealthy, and is.
    fn note_health(&self, was_unhealthy: bool, is_unhealthy: bool) {
        match (was_unhealthy, is_unhealthy) {
            (false, true) => self.unhealthy.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.unhealthy.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
    }

    fn hosts(&self) -> RwLockReadGuard<'_, BTreeMap<Hosts, Arc<Hosted>>> {
        // Plain values, whole at every moment.
        self.hosts.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn hosts_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<Hosts, Arc<Hosted>>> {
        self.hosts.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counters of all of them together.
    pub(super) fn counters(&self) -> Arc<ServiceCounters> {
        Arc::clone(&self.counters)
    }

    /// The phase of every one.
    pub(super) fn phases(&self) -> impl Iterator<Item = Phase> {
        let all = self.hosts().len();
        let unhealthy = self.unhealthy.load(Ordering::Relaxed).min(all);
        let others = std::iter::repeat_n(Phase::Settled, all - unhealthy);
        std::iter::repeat_n(Phase::Unhealthy, unhealthy).chain(others)
    }

    /// Requests and tunnels in flight.
    pub(super) fn inflight(&self) -> u64 {
        self.hosts().values().map(|hosted| hosted.inflight()).sum()
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
            routes: Some(if taken.is_some() { none() } else { hosted.routes() }),
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
