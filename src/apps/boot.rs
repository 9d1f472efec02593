//! How the apps begin: from their records, with a coordinator each.
//!
//! The orderings that matter: all records are read before anything is started, and the pipes that
//! belong to no recorded run of any app are removed then. Each app's own boot follows when its
//! coordinator runs. An app that has a record and no configuration is stopped.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::claims::{self, InForce, Origin};
use super::kept::{self, Kept};
use super::means::{Means, Notify, Owner};
use super::plan::{self, Begin};
use super::registry::{self, Channels, ORDERS, Registry};
use super::running::{Body, Nature, Running};
use super::unbound::{Failures, Unbound};
use super::{Apps, Waiting};
use crate::config::{Config, Several};
use crate::health::Prober;
use crate::proxy::{Board, Counters, RouteWriter};
use crate::redis::{self, Redis};
use crate::release::Turns;
use crate::release::records::Records;
use crate::release::store::{Found, Store, StoreError};
use crate::supervisor::{Common, Identity};

/// What the apps need to begin.
pub struct Parts {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// What all apps' processes share.
    pub common: Arc<Common>,
    /// Where the services of several apps are, and the routes to them.
    pub board: Arc<Board>,
    /// Redis as a source of apps.
    pub redis: Option<Redis>,
    /// Where this portokd listens.
    pub listen: watch::Receiver<Vec<SocketAddr>>,
    /// Where it cannot, although apps have these addresses of their own.
    pub unbound: watch::Receiver<Failures>,
    /// Points the requests of the one app at targets.
    pub route: RouteWriter,
    /// The data plane's counters.
    pub counters: Arc<Counters>,
    /// Where the records are.
    pub records: Records,
    /// Tells the hooks; must not block.
    pub notify: Notify,
    /// Do not continue what the records say (`portok run`).
    pub fresh: bool,
    /// Cancelled once no predecessor serves requests any more.
    pub alone: CancellationToken,
}

/// Why the apps cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The record of the one app.
    #[error(transparent)]
    Record(#[from] StoreError),
    /// The kernel's random numbers cannot be read.
    #[error("cannot start the supervisor")]
    Supervisor(#[source] io::Error),
}

/// Begins to read the apps that the configuration expects in Redis. The table that was kept on disk
/// is in force at once.
pub async fn redis_of(config: &Config, listen: &[SocketAddr]) -> Option<Redis> {
    let settings = registry::settings(config, listen)?;
    Some(Redis::start(settings, &redis::table_file(&config.state_file)).await)
}

/// The addresses that apps get for themselves at a start with this configuration.
pub fn addresses_at_a_start(config: &Config) -> BTreeSet<SocketAddr> {
    claims::addresses_for(config, &held_before(config))
}

/// The addresses that the apps of this configuration would get for themselves if there were no
/// others.
pub fn addresses_of(config: &Config) -> BTreeSet<SocketAddr> {
    claims::addresses_for(config, &InForce::default())
}

/// Which routes two apps claim, and which of them gets each at a start with this configuration: a
/// sentence for each app that would do without some.
pub fn conflicts(config: &Config) -> Vec<String> {
    claims::conflicts(config, &held_before(config))
}

/// Who had which route when the daemon ended, as far as that decides who gets it.
pub(super) fn held_before(config: &Config) -> InForce {
    config.apps.as_ref().map_or_else(InForce::default, |wanted| kept::in_force(&config.state_file, wanted))
}

/// A record that was opened.
type Opened = (Store, Found);

impl Apps {
    /// Makes the apps' coordinators. Nothing is started before they run.
    ///
    /// # Errors
    /// The record of the one app cannot be used; the kernel's random numbers cannot be read.
    pub fn boot(parts: Parts) -> Result<(Self, Waiting), BootError> {
        let Parts { config, redis, listen, unbound, route, .. } = parts;
        let several = config.apps.is_some();
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let means = Means {
            instance: config.name.clone(),
            common: Arc::clone(&parts.common),
            board: parts.board,
            counters: parts.counters,
            records: parts.records,
            prober: Prober::of_this_process(),
            notify: parts.notify,
            fresh: parts.fresh,
            alone: parts.alone,
            turns: several.then(|| Turns::new(cores)),
        };
        let (known, see) = watch::channel(Arc::default());
        let (addresses, see_addresses) = watch::channel(BTreeSet::new());
        let (orders, told) = mpsc::channel(ORDERS);
        let (lost, is_lost) = watch::channel(false);
        let unbound = Unbound::new(unbound);
        let channels = Channels { listen, unbound, known, addresses, orders: told, lost };
        let registry = match config.apps.clone() {
            None => the_one(means, config, route, channels)?,
            Some(wanted) => all(means, config, &wanted, redis, channels),
        };
        registry.publish();
        let (known, addresses, lost, common) = (see, see_addresses, is_lost, parts.common);
        Ok((Self { known, addresses, orders, lost, common, followed: None }, Waiting { registry }))
    }
}

/// The registry of an instance with one app.
fn the_one(
    means: Means,
    config: Arc<Config>,
    route: RouteWriter,
    channels: Channels,
) -> Result<Registry, BootError> {
    let opened = means.records.open(None)?;
    kept::forget(&config.state_file);
    let former = orphans(&means, means.records.apps_that_can_be_read().into_iter().map(Some));
    keep_pipes(&means.common, former.iter().map(|(_, (_, found))| found).chain([&opened.1]));
    let app = watch::Sender::new(Arc::clone(&config.app));
    let service = Arc::clone(means.board.own());
    let made = means.manage(&None, app.subscribe(), (&service, route), opened, None);
    let (managed, prepared) = made.map_err(BootError::Supervisor)?;
    let body = Body::Managed(managed);
    let running = Running::new(service, app, body, Origin::MainFile);
    let targets = means.records.apps().targets;
    let mut registry = Registry::new(means, config, None, channels);
    registry.sweep_targets(&targets);
    registry.take_the_one(running, prepared);
    for (owner, opened) in former {
        registry.begin_to_stop(owner, opened);
    }
    Ok(registry)
}

/// The registry of an instance with several apps.
fn all(
    means: Means,
    config: Arc<Config>,
    wanted: &Several,
    redis: Option<Redis>,
    channels: Channels,
) -> Registry {
    let (recorded, removed) = (means.records.apps(), means.records.removed_apps());
    let kept = Kept::start(&config.state_file);
    let (names, spared) = kept.before();
    let ran = names.chain(&recorded.releases).cloned().collect();
    let missing = plan::missing_at_start(wanted, &ran, spared, Instant::now().into_std());
    let begin = plan::start(wanted, &recorded.releases, &missing);
    let is_managed = |name: &str| wanted.apps.get(name).is_none_or(|app| Nature::of(app) == Nature::Managed);
    let (mut opened, mut stopped) = (Vec::new(), Vec::new());
    for (name, begin) in begin {
        match begin {
            Begin::LeftOut => {}
            // One that is none of ours any more by its configuration has a record of when it was.
            Begin::Configured if !is_managed(&name) => {
                if recorded.releases.contains(&name) {
                    stopped.push(Some(name.clone()));
                }
                opened.push((name, None));
            }
            Begin::Configured => {
                let record = means.records.open_added(&name, &removed);
                opened.push((name, Some(record)));
            }
            Begin::FromRecord => {
                let record = means.records.open(Some(&name));
                opened.push((name, Some(record)));
            }
            Begin::Orphaned => stopped.push(Some(name)),
        }
    }
    if means.records.has_one() {
        stopped.push(None);
    }
    let stopped = orphans(&means, stopped.into_iter());
    let found = opened.iter().filter_map(|(_, record)| record.as_ref()?.as_ref().ok());
    let found = found.chain(stopped.iter().map(|(_, opened)| opened)).map(|(_, found)| found);
    keep_pipes(&means.common, found);
    let mut registry = Registry::new(means, config, Some(kept), channels);
    registry.sweep_targets(&recorded.targets);
    registry.take_missing(missing);
    for (owner, opened) in stopped {
        registry.begin_to_stop(owner, opened);
    }
    for (name, record) in opened {
        match record.transpose() {
            Ok(record) => registry.begin_at_start(&name, record, &removed),
            Err(error) => registry.leave_out(&name, error.to_string()),
        }
    }
    if let Some(redis) = redis {
        registry.take_redis(redis);
    }
    registry.look_again();
    registry
}

/// Opens the records of apps that are to be stopped.
fn orphans(means: &Means, owners: impl Iterator<Item = Owner>) -> Vec<(Owner, Opened)> {
    let open = |owner: Owner| match means.records.open(owner.as_deref()) {
        Ok(opened) => Some((owner, opened)),
        Err(error) => {
            tracing::error!("what runs of an app that nothing configures is not stopped: {error}");
            None
        }
    };
    owners.filter_map(open).collect()
}

/// Removes all pipes but those of the recorded runs.
fn keep_pipes<'a>(common: &Common, found: impl Iterator<Item = &'a Found>) {
    let recorded: Vec<Identity> =
        found.flat_map(|found| found.record.runs.iter().map(|run| run.identity.clone())).collect();
    common.remove_pipes_but(&recorded);
}
