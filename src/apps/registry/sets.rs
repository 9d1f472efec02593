//! The apps with targets: how the registry begins one, lets one go, and clears what is left of
//! those that nothing configures.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::super::leaving::LeavingSet;
use super::super::running::{Driven, Nature};
use super::super::targets::{self, TargetSet};
use super::{Ended, Registry};
use crate::config::AppConfig;
use crate::proxy::{RouteWriter, Service};
use crate::release::records::{Former, Removed};

/// The driver of an app with targets that does not run yet.
pub(super) struct PreparedSet {
    app: String,
    driver: TargetSet,
    fell: CancellationToken,
}

impl PreparedSet {
    /// Drives the app until it is stopped, left or removed, or the driver falls, which is noted.
    pub(super) async fn run(self) -> Ended {
        if tokio::spawn(self.driver.run()).await.is_err() {
            self.fell.cancel();
        }
        Ended::Driver(Some(self.app))
    }
}

impl Registry {
    /// Makes the driver of an app with targets that is new. It takes the app's record once one of
    /// its name that is being removed is done with it. `removed`: the records that were set aside.
    pub(super) fn begin_set(
        &mut self,
        name: &str,
        config: watch::Receiver<Arc<AppConfig>>,
        service: (&Arc<Service>, RouteWriter),
        removed: &Removed,
    ) -> Driven {
        let leaving = self.leaving_sets.values().rev().find(|set| set.config.name == name);
        let recorded = leaving.map(|set| set.recorded.clone());
        let former = if leaving.is_some() { Former::Unknown } else { removed.targets(name) };
        self.drive_set(name, config, service, (recorded, former))
    }

    /// Makes the driver of an app with targets. It takes the app's record once a former one is done
    /// with it, or what was set aside of it.
    pub(super) fn drive_set(
        &mut self,
        name: &str,
        config: watch::Receiver<Arc<AppConfig>>,
        (service, route): (&Arc<Service>, RouteWriter),
        (recorded, former): (Option<CancellationToken>, Former),
    ) -> Driven {
        let (handle, driver) = TargetSet::start(targets::Parts {
            notify: self.means.notify_of(&Some(name.to_owned()), config.clone()),
            config,
            route,
            counters: Arc::clone(service.counters()),
            records: self.means.records.clone(),
            recorded,
            prober: self.means.prober.clone(),
            former,
        });
        let fell = CancellationToken::new();
        self.drivers.push(PreparedSet { app: name.to_owned(), driver, fell: fell.clone() });
        Driven { handle, fell }
    }

    /// Lets an app with targets go that no route leads to any more.
    pub(super) fn let_set_go(&mut self, set: LeavingSet) {
        let name = &set.config.name;
        tracing::info!(app = name, "app `{name}` is removed: its requests finish");
        let number = self.leaving_sets.last_key_value().map_or(0, |(last, _)| last + 1);
        let gone = set.go(self.means.records.clone());
        self.leaving_sets.insert(number, set);
        self.tasks.spawn(async move {
            gone.await;
            Ended::SetRemoval(number)
        });
    }

    /// Sets aside what is recorded of targets that nothing configures, of these apps. Where that is
    /// a mistake, nothing is lost: it is taken up when they are configured again. Blocking.
    pub(in crate::apps) fn sweep_targets(&self, recorded: &BTreeSet<String>) {
        let is_known = |name: &String| match self.several() {
            None => false,
            Some(several) => {
                let is_set = |app: &Arc<AppConfig>| Nature::of(app) == Nature::Targets;
                several.unreadable.is_some()
                    || several.refused.contains_key(name)
                    || several.apps.get(name).is_some_and(is_set)
            }
        };
        let records = &self.means.records;
        for name in recorded.iter().filter(|name| !is_known(name)) {
            match records.set_targets_aside(name) {
                Ok(()) => {
                    tracing::info!(
                        app = name,
                        "no targets of app `{name}` are configured: what is recorded of some is set aside"
                    )
                }
                Err(error) => tracing::error!(app = name, "{error}"),
            }
        }
    }
}
