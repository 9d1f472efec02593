//! The apps of a daemon: which there are, which requests lead to them, and what all of them are
//! told together.
//!
//! [`Apps`] is the face for the rest of the daemon: it finds an [`App`], puts a configuration in
//! force, and fans out what concerns all (`together`): freeze, leave, stop. Which apps there are is
//! known by one task, the `registry`, which makes what `boot`, `means` and `running` describe,
//! compares it with the configuration (`plan`), settles who has which route (`claims`), starts
//! again what fell (`restarts`), and lets apps go (`leaving`). It is told which of their own
//! addresses cannot be bound (`unbound`). Each managed app has a coordinator of its own, which
//! decides everything about its releases and owns its state. The apps of Redis (`from_redis`,
//! `hosted`) have none; their targets are probed together, where that is wanted (`probes`).
//! `drivers` is what coordinators and the drivers of targets have in common.
//!
//! [`Apps`] is cheap to clone, and dropping it changes nothing. [`Coordinators`] are the tasks:
//! they end after [`Apps::stop_all`] or [`Apps::leave`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use self::drivers::Driver;
use self::registry::{Order, Registry};
use crate::config::Config;
use crate::proxy::ServiceCounters;
use crate::supervisor::{Common, memory_of};
use crate::wire::{AppReload, AppSource, Code, ErrorBody, RedisStatus, ReplicaRow};

mod app;
mod boot;
mod claims;
mod drivers;
mod from_redis;
mod hosted;
pub mod kept;
mod leaving;
mod means;
mod plan;
mod probes;
mod registry;
mod restarts;
mod running;
pub mod targets;
#[cfg(test)]
mod testing;
mod together;
mod unbound;

pub use app::App;
pub use boot::{BootError, Parts, addresses_at_a_start, addresses_of, conflicts, redis_of};
pub use means::Notify;
pub use unbound::Failures;

/// How many apps a refusal names.
const MOST_NAMED: usize = 20;

/// Which apps there are.
#[derive(Debug, Clone, Default)]
struct Known {
    /// The instance's name.
    instance: String,
    /// Whether the instance has several apps: then each request to one names it.
    several: bool,
    apps: BTreeMap<String, App>,
    /// Those of Redis.
    redis: Option<from_redis::Seen>,
    /// What drives the apps that are being removed, with their names.
    leaving: Vec<(String, Driver)>,
}

/// The apps, for the rest of the daemon.
#[derive(Debug, Clone)]
pub struct Apps {
    known: watch::Receiver<Arc<Known>>,
    addresses: watch::Receiver<BTreeSet<SocketAddr>>,
    orders: mpsc::Sender<Order>,
    lost: watch::Receiver<bool>,
    common: Arc<Common>,
    /// What drives the one app, whose snapshots are followed.
    followed: Option<Driver>,
}

/// The apps' coordinators before they run.
pub struct Waiting {
    registry: Registry,
}

/// The running coordinators, and the task that keeps them.
#[derive(Debug)]
pub struct Coordinators {
    task: tokio::task::JoinHandle<()>,
}

impl Waiting {
    /// Lets them run: what the records name is taken over or made live again from here on.
    pub fn run(self) -> Coordinators {
        Coordinators { task: tokio::spawn(self.registry.run()) }
    }
}

impl Coordinators {
    /// Waits until all have ended.
    pub async fn ended(self) {
        let _panicked = self.task.await;
    }
}

impl Apps {
    /// The addresses that apps have of their own. They are followed, too, where they cannot be
    /// bound.
    pub fn addresses(&self) -> watch::Receiver<BTreeSet<SocketAddr>> {
        self.addresses.clone()
    }

    /// The app that a request is for: the one that it names; without a name, the one that there
    /// is.
    ///
    /// # Errors
    /// `app_required`: there are several, and none was named. `no_such_app`.
    pub fn find(&self, name: Option<&str>) -> Result<App, ErrorBody> {
        let known = self.known.borrow();
        let found = match name {
            Some(name) => match known.apps.get(name) {
                Some(app) => Some(app.clone()),
                None => known.redis.as_ref().and_then(|redis| redis.find(name)),
            },
            None if known.several => return Err(required(&known)),
            None => known.apps.values().next().cloned(),
        };
        found.ok_or_else(|| no_such(name.unwrap_or_default(), &known))
    }

    /// All apps, in the order of the bytes of their names.
    pub fn list(&self) -> Vec<App> {
        let known = Arc::clone(&self.known.borrow());
        let mut apps: Vec<App> = known.apps.values().cloned().collect();
        if let Some(redis) = &known.redis {
            apps.append(&mut redis.list());
            apps.sort_by(|one, other| one.name().cmp(other.name()));
        }
        apps
    }

    /// The apps that files configure, in the order of the bytes of their names: without those of
    /// Redis.
    pub fn of_files(&self) -> Vec<App> {
        self.known.borrow().apps.values().cloned().collect()
    }

    /// The replicas and targets of `named`, or of all apps that files configure, with the memory of
    /// each. Reads that when it is asked.
    ///
    /// # Errors
    /// `bad_request` for an app of Redis.
    pub async fn replicas(&self, named: Option<App>) -> Result<Vec<ReplicaRow>, ErrorBody> {
        if let Some(app) = named.as_ref().filter(|app| app.source() == AppSource::Redis) {
            let message =
                format!("app `{}` is a list in Redis, whose targets are not listed here", app.name());
            return Err(ErrorBody::new(Code::BadRequest, "Bad request", message)
                .with_hint("its status has them: portok status --app NAME"));
        }
        let apps = named.map_or_else(|| self.of_files(), |app| vec![app]);
        let mut members: Vec<_> = apps.iter().flat_map(App::members).collect();
        let processes = members.iter().filter_map(|member| member.process.clone()).collect();
        let mut memory = memory_of(processes).await.into_iter();
        for member in members.iter_mut().filter(|member| member.process.is_some()) {
            member.row.memory = memory.next().flatten();
        }
        Ok(members.into_iter().map(|member| member.row).collect())
    }

    /// The counters of all apps of Redis together; `None`: there is no Redis.
    pub fn counters_of_redis(&self) -> Option<Arc<ServiceCounters>> {
        Some(self.known.borrow().redis.as_ref()?.counters())
    }

    /// How it stands with Redis; `None`: there is none.
    pub fn redis(&self) -> Option<RedisStatus> {
        Some(self.known.borrow().redis.as_ref()?.status())
    }

    /// Whether the instance has several apps, and they are none at the moment.
    pub fn are_none(&self) -> bool {
        self.has_several() && self.list().is_empty()
    }

    /// Whether the instance has several apps (it may be none at the moment), so that a request to
    /// one of them names it.
    pub fn has_several(&self) -> bool {
        self.known.borrow().several
    }

    /// Puts a configuration in force: apps begin, change, and go. With `prune` those go at once
    /// that are gone from it, however many they are. Returns what became of which app of several.
    ///
    /// # Errors
    /// `shutting_down`.
    pub async fn reconfigure(&self, config: Arc<Config>, prune: bool) -> Result<Vec<AppReload>, ErrorBody> {
        let (reply, changes) = oneshot::channel();
        let gone = || ErrorBody::new(Code::ShuttingDown, "Shutting down", "the daemon is going down");
        let order = Order::Reconfigure { config, prune, reply };
        self.orders.send(order).await.map_err(|_ended| gone())?;
        changes.await.map_err(|_ended| gone())
    }

    /// Tells the registry something, and waits until it has heard. At once when it has ended.
    async fn tell(&self, order: impl FnOnce(oneshot::Sender<()>) -> Order) {
        let (done, heard) = oneshot::channel();
        if self.orders.send(order(done)).await.is_ok() {
            let _ended = heard.await;
        }
    }
}

/// The refusal of a request that names none of several apps.
fn required(known: &Known) -> ErrorBody {
    let message = match named(known) {
        Some(apps) => format!("there are several apps, and the request names none: {apps}"),
        None => "the instance has several apps, none of which is there yet".to_owned(),
    };
    ErrorBody::new(Code::AppRequired, "App required", message)
        .with_hint("name one: --app NAME, or ?app=NAME over the API")
}

/// The refusal of a request for an app that is not there.
fn no_such(name: &str, known: &Known) -> ErrorBody {
    let others =
        named(known).map_or_else(|| "there is none yet".to_owned(), |apps| format!("there is: {apps}"));
    let message = format!("there is no app `{name}`; {others}");
    ErrorBody::new(Code::NoSuchApp, "No such app", message)
        .with_hint(format!("portok --instance {} apps shows those that are there", known.instance))
}

/// The names of the apps, for messages; of those of Redis, how many there are. `None`: no app.
fn named(known: &Known) -> Option<String> {
    let mut names: Vec<_> = known.apps.keys().take(MOST_NAMED).cloned().collect();
    if known.apps.len() > MOST_NAMED {
        names.push(format!("{} more", known.apps.len() - MOST_NAMED));
    }
    match known.redis.as_ref().map_or(0, |redis| redis.phases().count()) {
        0 => {}
        1 => names.push("1 of Redis (redis:HOST)".to_owned()),
        count => names.push(format!("{count} of Redis (redis:HOST)")),
    }
    (!names.is_empty()).then(|| names.join(", "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_refusal_names_the_instance_and_what_is_there() {
        let known = Known { instance: "edge".into(), apps: BTreeMap::new(), ..Known::default() };
        assert!(required(&known).message.contains("none of which is there yet"));
        let refused = no_such("api", &known);
        assert_eq!(refused.message, "there is no app `api`; there is none yet");
        assert_eq!(refused.hint.unwrap(), "portok --instance edge apps shows those that are there");
    }
}
