//! What the data plane and everybody else see of the apps: the routes, and a snapshot.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::super::Known;
use super::super::app::{App, Facts, Kind};
use super::super::claims::{self, Spot};
use super::super::drivers::Driver;
use super::super::from_redis::FromRedis;
use super::super::leaving::{Leaving, LeavingSet};
use super::super::means::Means;
use super::super::running::{Running, without_configuration};
use super::Registry;
use crate::config::AppConfig;
use crate::proxy::{At, ListenerId, Route, Service};
use crate::wire::AppSource;

/// What is said of an app that is not healthy yet as the kind that it is now.
const ANSWERS_AS_IT_WAS: &str =
    "it is another kind of app from now on, and answers as it was until it is healthy";

impl Registry {
    /// Settles which app has which route, and publishes the routes. Whether anything differs.
    pub(super) fn settle(&mut self) -> bool {
        let claims: Vec<_> = self.running.values().map(Running::claim).collect();
        let settled = claims::settle(&claims, &self.routes);
        for (app, without) in &settled.refused {
            if self.refused.get(app) != Some(without) {
                tracing::warn!(app = &**app, "app `{app}` is in force without {}", without.routes);
            }
        }
        for (spot, app) in &settled.routes {
            if let Some(former) = self.routes.get(spot).filter(|former| *former != app) {
                tracing::info!(app = &**app, "app `{app}` has {spot} now, which app `{former}` had");
            }
        }
        let differs = self.routes != settled.routes || self.refused != settled.refused;
        self.routes = settled.routes;
        self.refused = settled.refused;
        if let Some(kept) = &mut self.kept {
            kept.note_contested(settled.contested);
        }
        let succeeded = self.succeeded();
        self.waits_for_health = settled.waits_for_health || !self.former.is_empty();
        let addresses = claims::addresses(&self.routes);
        for running in self.running.values_mut() {
            running.left.retain(|addr| !addresses.contains(addr));
        }
        self.addresses.send_if_modified(|known| {
            let differs = *known != addresses;
            *known = addresses;
            differs
        });
        self.unbound.tell(&self.routes);
        self.route();
        let differs = differs || !succeeded.is_empty();
        for (name, former) in succeeded {
            self.let_go(&name, former);
        }
        differs
    }

    /// Shows which addresses cannot be bound.
    pub(super) fn follow_unbound(&mut self) {
        self.unbound.tell(&self.routes);
        self.publish();
    }

    /// Publishes the routes as they are settled, unless they are those that are published: each
    /// publication costs the data plane's threads what they remember.
    pub(super) fn route(&mut self) {
        let routes = self.routes.iter().filter_map(|(spot, app)| {
            let at = match spot {
                Spot::Under(hosts, path) => At::Instance { hosts: hosts.clone(), path: path.clone() },
                Spot::Named(hosts) => At::Named(hosts.clone()),
                Spot::At(addr) => At::Listener(ListenerId::App(*addr)),
            };
            Some((at, self.answering(app)?.destination()))
        });
        let left = self.running.iter().flat_map(|(name, app)| {
            let to = self.answering(name).unwrap_or(app);
            let at = |addr: &SocketAddr| At::Listener(ListenerId::App(*addr));
            app.left.iter().map(move |addr| (at(addr), to.destination()))
        });
        let mut of_files = HashMap::with_capacity_and_hasher(self.routes.len(), RandomState::default());
        for (at, to) in routes.chain(left) {
            of_files.entry(at).or_insert(to);
        }
        let redis_differs = self.redis.as_mut().is_some_and(|redis| redis.give_way(&self.routes));
        if redis_differs || self.published.as_ref() != Some(&of_files) {
            let of_redis = self.redis.as_mut().map(FromRedis::routes);
            let routes = of_files.iter().map(|(at, to)| Route { at: at.clone(), to: to.clone() });
            self.means.board.route(routes.chain(of_redis.into_iter().flatten()).collect());
            self.published = Some(of_files);
        }
    }

    /// Publishes the apps as they are now.
    pub(in crate::apps) fn publish(&self) {
        let several = self.several().is_some();
        let in_force = several.then_some(&self.routes);
        let seen = |(name, running): (&String, &Running)| {
            let without = self.refused.get(name.as_str()).map(ToString::to_string);
            let former = self.former.get(name);
            let fallen = former.and_then(|former| former.restarts.error());
            let former = former.map(|_| ANSWERS_AS_IT_WAS);
            let troubles: Vec<_> =
                without.as_deref().into_iter().chain(former).chain(fallen.as_deref()).collect();
            (name.clone(), running.seen(in_force, &troubles, &self.unbound))
        };
        let mut apps: BTreeMap<String, App> = self.running.iter().map(seen).collect();
        for (owner, leaving) in &self.leaving {
            let Some(name) = owner else { continue };
            apps.entry(name.clone()).or_insert_with(|| leaving_app(leaving));
        }
        for set in self.leaving_sets.values().rev() {
            apps.entry(set.config.name.clone()).or_insert_with(|| leaving_set(set));
        }
        for (name, why) in &self.absent {
            apps.entry(name.clone()).or_insert_with(|| absent(self.config_of_absent(name), why, &self.means));
        }
        let former = self.former.values().filter_map(Running::driver);
        let sets = self.leaving_sets.values();
        let sets = sets.map(|set| (set.config.name.clone(), Driver::Targets(set.targets.clone())));
        let managed = self
            .leaving
            .values()
            .map(|Leaving { managed, .. }| (managed.handle.name(), Driver::Releases(managed.handle.clone())));
        let leaving = managed.chain(sets).chain(former).collect();
        let redis = self.redis.as_ref().map(FromRedis::seen);
        let instance = self.config.name.clone();
        self.known.send_replace(Arc::new(Known { instance, several, apps, redis, leaving }));
    }
}

impl Registry {
    /// The configuration of an app that could not begin: only where it is configured counts.
    fn config_of_absent(&self, name: &str) -> Arc<AppConfig> {
        let mut config = without_configuration(&self.config.app, name);
        if let Some(several) = self.several() {
            let own_file =
                || Some(format!("{}:1", several.folder.as_ref()?.join(format!("{name}.toml")).display()));
            let place = several.apps.get(name).map(|app| app.place.clone()).or_else(own_file);
            Arc::make_mut(&mut config).place = place.unwrap_or_default();
        }
        config
    }
}

/// An app that could not begin, as others see it.
fn absent(config: Arc<AppConfig>, why: &str, means: &Means) -> App {
    App::new(Facts {
        routes: None,
        config,
        counters: Arc::clone(means.counters.service()),
        kind: Kind::Absent,
        error: Some(why.to_owned()),
        stale: Some(why.to_owned()),
        source: AppSource::File,
        leaves: false,
        down: false,
    })
}

/// An app that is being removed, as others see it.
fn leaving_app(leaving: &Leaving) -> App {
    let Leaving { managed, service, config } = leaving;
    seen_leaving(&config.borrow(), service, Kind::Managed(managed.handle.clone()))
}

/// As [`leaving_app`], of one with targets.
fn leaving_set(set: &LeavingSet) -> App {
    seen_leaving(&set.config, &set.service, Kind::Targets(set.targets.clone()))
}

fn seen_leaving(config: &AppConfig, service: &Service, kind: Kind) -> App {
    let config = without_configuration(config, &config.name);
    App::new(Facts {
        routes: None,
        config,
        counters: Arc::clone(service.counters()),
        kind,
        error: Some("it is being removed".to_owned()),
        stale: None,
        source: AppSource::File,
        leaves: true,
        down: false,
    })
}
