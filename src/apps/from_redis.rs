//! The apps of Redis: a service for each host of its table, and what others see of them.
//!
//! State: the connection ([`Redis`]), the table that was applied last, for each of its hosts where
//! its requests go ([`Host`]), and the probes of all targets where they are wanted ([`Probes`]).
//! The registry owns it and publishes the routes; others see the hosts as they are ([`Seen`]).
//! There may be very many of these apps, so one has neither task nor record; they share their
//! configuration and their counters; and what did not change from one table to the next is not
//! touched.
//!
//! A list is in force as soon as it is read: a target that is new gets requests before its first
//! probe. One that fails its probes gets none while at most half of its list fails, until a probe
//! is good again.
//!
//! A host that a file has a route for stays that file's. A target that leaves gets no new request;
//! it is closed once its requests have ended, after `drain.period` at the latest.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use self::host::{Common, Host};
pub(super) use self::seen::Seen;
use self::voice::Voice;
use super::claims::{InForce, Spot};
use super::probes::Probes;
use crate::config::{AppConfig, Config, Hosts};
use crate::health::Prober;
use crate::proxy::{At, Board, Counters, Destination, Route, Target};
use crate::redis::{Redis, Routes};

mod host;
mod seen;
mod voice;

/// What every name of these apps begins with; the host follows.
const PREFIX: &str = "redis:";

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
    /// Whether there are other hosts than when the [routes](FromRedis::routes) were asked for last.
    has_other_hosts: bool,
    /// `None`: no target is probed.
    probes: Option<Probes>,
    prober: Prober,
    /// The hosts, and what else others see.
    seen: Seen,
    voice: Voice,
}

/// What came of a newer table.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Whether any list differs.
    pub(super) other_lists: bool,
    /// The targets that left, to be [drained](drain).
    pub(super) left: Vec<Arc<Target>>,
}

/// What holds for all apps of Redis; without Redis, what stands for every app.
pub(super) fn config_of_all(config: &Config) -> Arc<AppConfig> {
    config.redis.as_ref().map_or_else(|| Arc::clone(&config.app), |redis| Arc::clone(&redis.app))
}

impl FromRedis {
    pub(super) fn new(source: Redis, config: &Config, counters: &Counters, prober: Prober) -> Self {
        let probes = begin_probes(config, &prober);
        let config = config_of_all(config);
        let probed = probes.as_ref().map(|probes| probes.seen().clone());
        let seen = Seen::new(Arc::clone(&config), counters.apart(), probed, source.follow_status());
        let (routes, applied, has_other_hosts) = (source.routes(), Routes::default(), true);
        let voice = Voice::new();
        Self { source, routes, config, applied, has_other_hosts, probes, prober, seen, voice }
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
        let marker = self.source.marker();
        let (seen, config) = (&self.seen, &*self.config);
        let mut common =
            Common { config, marker: &marker, probes: self.probes.as_ref(), voice: &mut self.voice };
        let mut hosts = seen.hosts_mut();
        if !Arc::ptr_eq(&new.table, &self.applied.table) {
            applied.other_lists = true;
            let changes = new.table.changes_since(&self.applied.table);
            for list in changes.removed {
                if let Some(host) = hosts.remove(list.hosts()) {
                    self.has_other_hosts = true;
                    seen.note_health(host.is_unhealthy(), false);
                    if let Some(probes) = common.probes {
                        probes.replace(list.hosts(), host.list().targets(), &[]);
                    }
                    applied.left.extend_from_slice(host.addresses().targets());
                }
            }
            for list in changes.set {
                let host = hosts.entry(list.hosts().clone()).or_insert_with(|| {
                    self.has_other_hosts = true;
                    let (_, route) = board.add_counted(Arc::clone(&self.config), seen.counters());
                    Host::new(Arc::clone(&list), route)
                });
                let (marked, was_unhealthy) = (places_of(list.hosts(), &new), host.is_unhealthy());
                applied.left.append(&mut host.put(list, &mut common));
                seen.note_health(was_unhealthy, host.is_unhealthy());
                host.mark(marked, common.voice);
            }
        }
        if !Arc::ptr_eq(&new.out, &self.applied.out) {
            let marked = self.applied.out.keys().chain(new.out.keys()).collect::<HashSet<_>>();
            for marked in marked {
                if let Some(host) = hosts.get_mut(marked) {
                    host.mark(places_of(marked, &new), common.voice);
                }
            }
        }
        // What the probes have said since.
        if let Some(probes) = common.probes {
            for turned in probes.take_turned() {
                if let Some(host) = hosts.get_mut(&turned) {
                    let was_unhealthy = host.is_unhealthy();
                    host.judge(probes.seen(), &mut common);
                    seen.note_health(was_unhealthy, host.is_unhealthy());
                }
            }
        }
        drop(hosts);
        self.applied = new;
        applied
    }

    /// Puts another configuration in force for all of them.
    pub(super) fn configure(&mut self, config: &Config, board: &Board) {
        let others_are_probed = self.probes.is_some() != wants_probes(config);
        if others_are_probed {
            self.probes = begin_probes(config, &self.prober);
            self.seen.probed = self.probes.as_ref().map(|probes| probes.seen().clone());
        }
        let config = config_of_all(config);
        if config == self.config && !others_are_probed {
            return;
        }
        if let Some(probes) = &self.probes {
            probes.configure(Arc::clone(&config));
        }
        self.seen.config = Arc::clone(&config);
        let (seen, marker) = (&self.seen, self.source.marker());
        let mut common =
            Common { config: &config, marker: &marker, probes: self.probes.as_ref(), voice: &mut self.voice };
        for host in seen.hosts_mut().values_mut() {
            board.configure_app(host.addresses().service(), Arc::clone(&config));
            let was_unhealthy = host.is_unhealthy();
            // The same targets, so none leaves.
            host.put(Arc::clone(host.list()), &mut common);
            seen.note_health(was_unhealthy, host.is_unhealthy());
        }
        self.config = config;
    }

    /// Notes which hosts a file has; `in_force`: the routes of the files. Returns whether
    /// [`FromRedis::routes`] are others than when they were asked for last.
    pub(super) fn give_way(&mut self, in_force: &InForce) -> bool {
        let table = self.seen.hosts();
        let has_host = |hosts: &Hosts| table.contains_key(hosts);
        let taken: BTreeMap<_, _> = in_force
            .iter()
            .filter_map(|(spot, app)| match spot {
                Spot::Under(hosts, path) if **path == *"/" && has_host(hosts) => {
                    Some((hosts.clone(), format!("{spot} belongs to app `{app}`")))
                }
                _ => None,
            })
            .collect();
        drop(table);
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
    pub(super) fn routes(&mut self) -> Vec<Route<Destination>> {
        self.has_other_hosts = false;
        let (hosts, taken) = (self.seen.hosts(), &self.seen.taken);
        let free = hosts.iter().filter(|(hosts, _)| !taken.contains_key(hosts));
        let route = |(hosts, host): (&Hosts, &Host)| Route {
            at: At::Instance { hosts: hosts.clone(), path: "/".into() },
            to: host.destination(),
        };
        free.map(route).collect()
    }

    /// Ends. Returns the targets, to be [drained](drain).
    pub(super) async fn end(self) -> Vec<Arc<Target>> {
        self.source.end().await;
        let hosts = self.seen.hosts();
        hosts.values().flat_map(|host| host.addresses().targets().iter().cloned()).collect()
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

/// Lets no new request to `targets`, and closes each once its requests have ended, after `period`
/// at the latest.
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
