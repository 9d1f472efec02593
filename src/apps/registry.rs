//! The registry: which apps there are, and which routes lead to them.
//!
//! One task owns both. It makes and joins the coordinators, is the only one that publishes routes,
//! and tells everybody else of the apps by a snapshot. A newer configuration comes as an
//! [`Order`]; what is to be done follows from a comparison ([`super::plan`]) that may be made at any
//! time: after a reload, when the delay of a removal has passed, when an app has been removed.
//!
//! A coordinator that ends by a fault is started again from its record, [`RESTARTS`] times a
//! minute; the others go on. Then the daemon is told that it is lost.
//!
//! While the daemon hands over, nothing is added, removed or started again. The task ends once it
//! was told so ([`Order::End`]) and every coordinator has ended.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Known;
use super::claims::{InForce, Origin, held};
use super::from_redis::FromRedis;
use super::kept::Kept;
use super::leaving::{Leaving, LeavingSet};
use super::means::{Means, Owner, Prepared};
use super::plan::{self, Begin, Missing, Plan};
use super::running::{Body, Nature, Running, Trouble, without_configuration};
use super::targets::TargetSet;
use super::unbound::Unbound;
use crate::config::{AppConfig, Config, Several};
use crate::proxy::{At, Destination};
use crate::release::store::{Found, Store};
use crate::wire::{AppChange, AppReload};

mod channels;
mod from_redis;
mod sets;
mod shown;

pub(super) use self::channels::Channels;
pub(super) use self::from_redis::settings;

/// How often a coordinator is started again within [`COUNTED`].
const RESTARTS: usize = 2;
const COUNTED: Duration = Duration::from_secs(60);

/// How long what a lost coordinator left under way may take to end.
const SETTLE: Duration = Duration::from_secs(5);

/// How often a claimant of a route is looked at that gets it once it is healthy.
const LOOK_AT_HEALTH: Duration = Duration::from_millis(100);

/// Orders that may wait.
pub(super) const ORDERS: usize = 16;

/// What the registry is told.
#[derive(Debug)]
pub(super) enum Order {
    /// Put this configuration in force. Answered with what became of which app.
    Reconfigure { config: Arc<Config>, prune: bool, reply: oneshot::Sender<Vec<AppReload>> },
    /// Add, remove and start nothing.
    StandStill(oneshot::Sender<()>),
    /// Go on.
    GoOn,
    /// Add, remove and start nothing any more; end with the last coordinator.
    End(oneshot::Sender<()>),
}

/// What of the registry's tasks has ended.
#[derive(Debug)]
enum Ended {
    Coordinator(Owner),
    /// What is of no further interest.
    Other,
    Removal(Owner),
    /// That of an app with targets.
    SetRemoval(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Moving,
    Still,
    Ending,
}

/// See the module.
pub(super) struct Registry {
    means: Means,
    config: Arc<Config>,
    running: BTreeMap<String, Running>,
    leaving: BTreeMap<Owner, Leaving>,
    /// Apps with targets that are being removed, by a number of their own.
    leaving_sets: BTreeMap<u64, LeavingSet>,
    /// Apps that could not begin, each with the reason.
    absent: BTreeMap<String, String>,
    /// The last comparison.
    plan: Plan,
    routes: InForce,
    /// The routes of files as the data plane has them; `None`: none were published yet, or some of
    /// Redis that are no more.
    published: Option<HashMap<At, Destination>>,
    /// Why apps do not get some of their routes.
    refused: BTreeMap<Arc<str>, String>,
    waits_for_health: bool,
    redis: Option<FromRedis>,
    /// With several apps: their files, for the next start.
    kept: Option<Kept>,
    /// Where this portokd listens.
    listen: watch::Receiver<Vec<SocketAddr>>,
    unbound: Unbound,
    /// Targets of Redis that left and have requests in flight.
    drains: JoinSet<()>,
    life: Life,
    /// Coordinators that run once the registry does.
    prepared: Vec<(Owner, Prepared)>,
    /// Drivers of targets that run with them.
    drivers: Vec<TargetSet>,
    tasks: JoinSet<Ended>,
    known: watch::Sender<Arc<Known>>,
    /// The addresses that apps have for themselves.
    addresses: watch::Sender<BTreeSet<SocketAddr>>,
    orders: mpsc::Receiver<Order>,
    lost: watch::Sender<bool>,
}

impl Registry {
    pub(super) fn new(means: Means, config: Arc<Config>, channels: Channels) -> Self {
        let Channels { listen, unbound, known, addresses, orders, lost } = channels;
        let kept = config.apps.is_some().then(|| Kept::start(&config.state_file));
        Self {
            means,
            config,
            running: BTreeMap::new(),
            leaving: BTreeMap::new(),
            leaving_sets: BTreeMap::new(),
            absent: BTreeMap::new(),
            plan: Plan::default(),
            routes: InForce::new(),
            published: None,
            refused: BTreeMap::new(),
            waits_for_health: false,
            redis: None,
            kept,
            listen,
            unbound,
            drains: JoinSet::new(),
            life: Life::Moving,
            prepared: Vec::new(),
            drivers: Vec::new(),
            tasks: JoinSet::new(),
            known,
            addresses,
            orders,
            lost,
        }
    }

    /// Keeps the apps until their end.
    pub(super) async fn run(mut self) {
        self.run_prepared();
        for owner in self.leaving.keys().cloned().collect::<Vec<_>>() {
            self.stop(owner);
        }
        let mut may_be_told = true;
        while self.life != Life::Ending || !self.tasks.is_empty() {
            let moves = self.life == Life::Moving;
            let removal = self.next_removal().filter(|_| moves);
            let health = (moves && self.waits_for_health).then(|| Instant::now() + LOOK_AT_HEALTH);
            tokio::select! {
                order = self.orders.recv(), if may_be_told => match order {
                    Some(order) => self.receive(order).await,
                    None => {
                        may_be_told = false;
                        self.life = Life::Ending;
                    }
                },
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(Ended::Coordinator(owner)) => self.coordinator_ended(owner).await,
                    Ok(Ended::Removal(owner)) => self.removed(&owner),
                    Ok(Ended::SetRemoval(number)) => self.set_removed(number),
                    Ok(Ended::Other) => {}
                    Err(error) => tracing::error!("a task of the registry panicked: {error}"),
                },
                () = at(removal) => drop(self.compare(false)),
                () = at(health) => if self.settle() {
                    self.publish();
                },
                () = Self::redis_changed(&mut self.redis), if self.life == Life::Moving => self.follow_redis(),
                Ok(()) = self.listen.changed(), if self.life == Life::Moving => self.configure_redis().await,
                () = self.unbound.changed() => self.follow_unbound(),
                Some(_drained) = self.drains.join_next() => {}
            }
        }
        if let Some(redis) = self.redis.take() {
            // Requests that are under way end where they are.
            let _targets = redis.end().await;
        }
    }

    async fn receive(&mut self, order: Order) {
        match order {
            Order::Reconfigure { config, prune, reply } => {
                self.config = config;
                self.configure_redis().await;
                let changes = match self.several() {
                    Some(_) => self.compare(prune),
                    None => self.reconfigure_the_one(),
                };
                let _asker_gone = reply.send(changes);
            }
            Order::StandStill(done) => {
                if self.life == Life::Moving {
                    self.life = Life::Still;
                }
                let _asker_gone = done.send(());
            }
            Order::GoOn => {
                if self.life == Life::Still {
                    self.life = Life::Moving;
                    self.begin_fallen_again().await;
                    // What came due meanwhile, and apps that waited for a removal that has ended.
                    let _changes = self.compare(false);
                }
            }
            Order::End(done) => {
                self.life = Life::Ending;
                let _asker_gone = done.send(());
            }
        }
    }

    fn several(&self) -> Option<&Several> {
        self.config.apps.as_ref()
    }

    /// When an app is due to be removed although nothing was ordered.
    fn next_removal(&self) -> Option<Instant> {
        self.plan.look_again(self.several()?).map(Instant::from_std)
    }

    // ---- what the configuration says ----

    fn reconfigure_the_one(&mut self) -> Vec<AppReload> {
        let app = Arc::clone(&self.config.app);
        for running in self.running.values() {
            running.config.send_replace(Arc::clone(&app));
        }
        self.publish();
        Vec::new()
    }

    /// Compares what runs with what is configured, and does what follows. Returns what became of
    /// which app.
    pub(super) fn compare(&mut self, prune: bool) -> Vec<AppReload> {
        let config = Arc::clone(&self.config);
        let Some(wanted) = &config.apps else { return Vec::new() };
        let running = self.running.iter().map(|(name, app)| (name.clone(), app.config())).collect();
        let plan = plan::plan(&running, wanted, &self.plan.missing, Instant::now().into_std(), prune);
        let mut changes = Vec::new();
        let mut became =
            |app: &str, change, why| changes.push(AppReload { app: app.to_owned(), change, why });
        self.absent.retain(|name, _| wanted.refused.contains_key(name) || wanted.apps.contains_key(name));
        for name in &plan.remove {
            self.remove(name);
            became(name, AppChange::Removed, None);
        }
        for name in &plan.change {
            let Some(new) = wanted.apps.get(name) else { continue };
            if self.change(name, new) {
                became(name, AppChange::Changed, None);
            }
        }
        for name in &plan.add {
            let Some(new) = wanted.apps.get(name) else { continue };
            match self.add(name, new) {
                true => became(name, AppChange::Added, None),
                // One that waits for the end of a removal is told of when it begins.
                false => {
                    if let Some(why) = self.absent.get(name) {
                        became(name, AppChange::Refused, Some(why.clone()));
                    }
                }
            }
        }
        self.note_troubles(wanted, &plan, &mut became);
        self.plan = plan;
        if let Some(kept) = &self.kept {
            kept.note(&wanted.texts, |name| self.running.contains_key(name));
        }
        let _publishes_anyway = self.settle();
        changes.extend(self.refused.iter().map(|(app, why)| {
            let (app, why) = (app.to_string(), Some(why.clone()));
            AppReload { app, change: AppChange::Refused, why }
        }));
        self.publish();
        changes
    }

    /// Notes of each app what keeps it from being what is configured.
    fn note_troubles(
        &mut self,
        wanted: &Several,
        plan: &Plan,
        became: &mut impl FnMut(&str, AppChange, Option<String>),
    ) {
        let gone = |missing: &Missing| match (&wanted.unreadable, &missing.spared) {
            (Some(error), _) => plan::unknown(error),
            (None, Some(why)) => why.clone(),
            (None, None) => {
                let delay = humantime::format_duration(wanted.removal_delay);
                format!("its configuration is gone: it is stopped {delay} after that was seen")
            }
        };
        for (name, running) in &mut self.running {
            let trouble = match (wanted.refused.get(name), plan.missing.get(name)) {
                (Some(why), _) => Some(Trouble::Refused(why.clone())),
                (None, Some(missing)) => Some(Trouble::Gone(gone(missing))),
                (None, None) => None,
            };
            if trouble != running.trouble {
                match &trouble {
                    Some(Trouble::Refused(why)) => tracing::error!(app = name, "it stays as it was: {why}"),
                    Some(Trouble::Gone(why)) => tracing::warn!(app = name, "{why}"),
                    None => {}
                }
            }
            if let Some(Trouble::Refused(why) | Trouble::Gone(why)) = &trouble {
                became(name, AppChange::Refused, Some(why.clone()));
            }
            running.trouble = trouble;
        }
        for (name, why) in &wanted.refused {
            if self.running.contains_key(name) {
                continue;
            }
            if self.absent.get(name) != Some(why) {
                tracing::error!(app = name, "it is left out: {why}");
                self.absent.insert(name.clone(), why.clone());
            }
            became(name, AppChange::Refused, Some(why.clone()));
        }
    }

    /// Begins an app that is new. False: not yet, or it cannot.
    fn add(&mut self, name: &str, new: &Arc<AppConfig>) -> bool {
        let owner = Some(name.to_owned());
        if Nature::of(new) == Nature::Managed {
            // What runs of the app of this name goes first.
            if self.leaving.contains_key(&owner) {
                return false;
            }
            match self.means.records.open_added(name) {
                Ok(opened) => self.begin(name, Arc::clone(new), Some(opened)),
                Err(error) => self.leave_out(name, error.to_string()),
            }
        } else {
            self.begin(name, Arc::clone(new), None);
        }
        self.run_prepared();
        let is_there = self.running.contains_key(name);
        if is_there {
            tracing::info!(app = name, "added");
        }
        is_there
    }

    /// Puts another configuration of an app in force. False: it only stands elsewhere.
    fn change(&mut self, name: &str, new: &Arc<AppConfig>) -> bool {
        let origin = Origin::of(&self.config, new);
        let Some(running) = self.running.get_mut(name) else { return false };
        if running.nature() != Nature::of(new) {
            tracing::info!(app = name, "it is another kind of app from now on: what runs of it is stopped");
            self.remove(name);
            self.add(name, new);
            return true;
        }
        let former = running.config.send_replace(Arc::clone(new));
        running.left.extend(held(&former, &self.routes).listen);
        self.means.board.configure_app(&running.service, Arc::clone(new));
        running.origin = origin;
        let is_same = AppConfig { place: former.place.clone(), ..(**new).clone() } == *former;
        !is_same
    }

    fn remove(&mut self, name: &str) {
        let Some(running) = self.running.remove(name) else { return };
        let Running { config, service, body, .. } = running;
        let owner = Some(name.to_owned());
        match body {
            Body::Managed(managed) => {
                tracing::info!(app = name, "it is removed: its requests finish, then it is stopped");
                self.leaving.insert(owner.clone(), Leaving { managed, service, config });
                self.stop(owner);
            }
            Body::Targets(targets) => {
                let config = Arc::clone(&config.borrow());
                self.let_set_go(LeavingSet { targets, service, config });
            }
            Body::Redirect => tracing::info!(app = name, "removed"),
        }
    }

    /// Notes that an app cannot begin.
    pub(super) fn leave_out(&mut self, name: &str, why: String) {
        if self.absent.get(name) != Some(&why) {
            tracing::error!(app = name, "it is left out: {why}");
        }
        self.absent.insert(name.to_owned(), why);
    }

    /// Makes an app of several; a managed one with what was found of its record.
    pub(super) fn begin(&mut self, name: &str, new: Arc<AppConfig>, opened: Option<(Store, Found)>) {
        let (service, route) = self.means.board.add(Arc::clone(&new), &self.means.counters);
        let origin = Origin::of(&self.config, &new);
        let config = watch::Sender::new(new);
        let body = match opened {
            None if Nature::of(&config.borrow()) == Nature::Targets => {
                Body::Targets(self.begin_set(name, config.subscribe(), (&service, route)))
            }
            None => Body::Redirect,
            Some(opened) => {
                let owner = Some(name.to_owned());
                let turns = self.means.turns.clone();
                let made = self.means.manage(&owner, config.subscribe(), (&service, route), opened, turns);
                match made {
                    Ok((managed, prepared)) => {
                        self.prepared.push((owner, prepared));
                        Body::Managed(managed)
                    }
                    Err(error) => return self.leave_out(name, error.to_string()),
                }
            }
        };
        let running = Running::new(service, config, body, origin);
        self.absent.remove(name);
        self.running.insert(name.to_owned(), running);
    }

    /// Makes what stops an app that nothing configures, and takes its record away.
    pub(super) fn begin_to_stop(&mut self, owner: Owner, opened: (Store, Found)) {
        let name = owner.as_deref().unwrap_or(&self.config.name);
        let config = without_configuration(&self.config.app, name);
        let (service, route) = self.means.board.add(Arc::clone(&config), &self.means.counters);
        let config = watch::Sender::new(config);
        match self.means.manage(&owner, config.subscribe(), (&service, route), opened, None) {
            Ok((managed, prepared)) => {
                tracing::warn!(app = name, "nothing configures it any more: what runs of it is stopped");
                self.prepared.push((owner.clone(), prepared));
                self.leaving.insert(owner, Leaving { managed, service, config });
            }
            Err(error) => tracing::error!(app = name, "it cannot be stopped: {error}"),
        }
    }

    /// Begins an app of several with the daemon, from what was found of its record.
    pub(super) fn begin_at_start(&mut self, name: &str, begin: &Begin, record: Option<(Store, Found)>) {
        let configured = self.several().and_then(|several| several.apps.get(name)).cloned();
        let config = configured.unwrap_or_else(|| without_configuration(&self.config.app, name));
        self.begin(name, config, record);
        if let Begin::FromRecord { why, spared: true } = begin {
            let missing = Missing { since: Instant::now().into_std(), spared: Some(why.clone()) };
            self.plan.missing.insert(name.to_owned(), missing);
        }
    }

    /// Takes the one app of an instance that has one.
    pub(super) fn take_the_one(&mut self, running: Running, prepared: Prepared) {
        self.prepared.push((None, prepared));
        self.running.insert(running.config().name.clone(), running);
    }

    // ---- its tasks ----

    fn run_prepared(&mut self) {
        for driver in self.drivers.drain(..) {
            self.tasks.spawn(async move {
                driver.run().await;
                Ended::Other
            });
        }
        for (owner, prepared) in self.prepared.drain(..) {
            self.tasks.spawn(async move {
                prepared.run().await;
                Ended::Coordinator(owner)
            });
        }
    }

    fn stop(&mut self, owner: Owner) {
        let Some(leaving) = self.leaving.get(&owner) else { return };
        let (records, alone) = (self.means.records.clone(), self.means.alone.clone());
        let stopped = leaving.stop(owner.clone(), records, alone);
        self.tasks.spawn(async move {
            // Its end is told in any case, so that an app of this name can begin.
            if let Err(error) = tokio::spawn(stopped).await {
                tracing::error!(app = owner, "its removal ended by a fault of portok: {error}");
            }
            Ended::Removal(owner)
        });
    }

    fn removed(&mut self, owner: &Owner) {
        self.leaving.remove(owner);
        if self.life == Life::Moving {
            // An app that was added again meanwhile begins now.
            let _changes = self.compare(false);
        }
        self.publish();
    }

    async fn coordinator_ended(&mut self, owner: Owner) {
        if self.life == Life::Moving {
            let name = owner.unwrap_or_else(|| self.config.name.clone());
            self.begin_again(&name).await;
        }
    }

    /// Starts again what fell while nothing was to be started.
    async fn begin_fallen_again(&mut self) {
        for name in self.running.keys().cloned().collect::<Vec<_>>() {
            self.begin_again(&name).await;
        }
    }

    /// Starts a coordinator again that ended by a fault. What it had under way ends first; its
    /// processes stay, and the new one takes them over as the next daemon would.
    async fn begin_again(&mut self, name: &str) {
        let Some(running) = self.running.get_mut(name) else { return };
        let Body::Managed(managed) = &mut running.body else { return };
        if !managed.has_fallen() {
            return;
        }
        managed.restarts.retain(|at| at.elapsed() < COUNTED);
        if managed.restarts.len() >= RESTARTS {
            tracing::error!(app = name, "its coordinator has ended again and again");
            self.lost.send_replace(true);
            return;
        }
        tracing::error!(app = name, "its coordinator ended by a fault of portok: it is started again");
        let mut restarts = std::mem::take(&mut managed.restarts);
        restarts.push(Instant::now());
        managed.supervisor.let_go();
        let settled = async {
            managed.supervisor.idle().await;
            managed.recorded.cancelled().await;
        };
        if tokio::time::timeout(SETTLE, settled).await.is_err() {
            tracing::warn!(app = name, "what it had under way did not end within {SETTLE:?}");
        }
        let owner = self.config.apps.is_some().then(|| name.to_owned());
        let route = self.means.board.write_again(&running.service);
        let begun = self.means.records.open(owner.as_deref()).map_err(|error| error.to_string());
        let begun = begun.and_then(|opened| {
            let config = running.config.subscribe();
            let made = self.means.manage(&owner, config, (&running.service, route), opened, None);
            made.map_err(|error| error.to_string())
        });
        match begun {
            Ok((again, prepared)) => {
                *managed = again;
                managed.restarts = restarts;
                self.prepared.push((owner, prepared));
                self.run_prepared();
                self.publish();
            }
            Err(error) => {
                tracing::error!(app = name, "its coordinator cannot be started again: {error}");
                self.lost.send_replace(true);
            }
        }
    }
}

/// Waits for a moment that may never come. Cancel safe.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
