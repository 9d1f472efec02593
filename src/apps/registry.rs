//! The registry: which apps there are, and which routes lead to them.
//!
//! One task owns both. It makes and joins the coordinators, is the only one that publishes routes,
//! and tells everybody else of the apps by a snapshot. A newer configuration comes as an
//! [`Order`]; what is to be done follows from a comparison ([`super::plan`]) that may be made at
//! any time: after a reload, when the delay of a removal has passed, when an app has been removed.
//!
//! What drives an app is started again after a fault (`registry/restarts.rs`); the others go on.
//!
//! While the daemon hands over, nothing is added, removed or started again. The task ends once it
//! was told so ([`Order::End`], [`Order::ShutDown`]) and every coordinator has ended.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Known;
use super::claims::{InForce, Origin, Without, held};
use super::from_redis::FromRedis;
use super::kept::{self, Kept};
use super::leaving::{Leaving, LeavingSet};
use super::means::{Means, Owner, Prepared};
use super::plan::{self, Missing, Plan};
use super::running::{Body, Driven, Nature, Running, Trouble};
use super::unbound::Unbound;
use crate::config::{AppConfig, Config, Several};
use crate::proxy::{At, Destination};
use crate::release::records::Removed;
use crate::wire::{AppChange, AppReload};

mod channels;
mod from_redis;
mod kinds;
mod making;
mod restarts;
mod sets;
mod shown;

pub(super) use self::channels::Channels;
pub(super) use self::from_redis::settings;
use self::sets::PreparedSet;

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
    /// Add, remove and start nothing any more; end with the last coordinator. Everything stays.
    End(oneshot::Sender<()>),
    /// The same, before all is stopped.
    ShutDown(oneshot::Sender<()>),
}

/// What of the registry's tasks has ended.
#[derive(Debug)]
enum Ended {
    /// What drives an app.
    Driver(Owner),
    /// What a fallen coordinator had under way.
    Settled(Owner),
    Removal(Owner),
    /// That of an app with targets.
    SetRemoval(u64),
}

/// Why the apps are compared with their configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// It is loaded anew; with `prune` what is missing goes at once.
    Anew { prune: bool },
    /// Something has become due.
    Again,
}

/// What became of an app that is new.
enum Addition {
    Began,
    /// What runs of the former app of this name goes first.
    Waits,
    /// It cannot begin.
    Refused(String),
}

/// What became of an app whose configuration is another one.
enum Change {
    /// That only stands elsewhere.
    Elsewhere,
    Changed,
    /// It is of another kind, and cannot begin as that.
    Refused(String),
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
    /// What answers for apps of another kind until they are healthy as that.
    former: BTreeMap<String, Running>,
    leaving: BTreeMap<Owner, Leaving>,
    /// Apps with targets that are being removed, by a number of their own.
    leaving_sets: BTreeMap<u64, LeavingSet>,
    /// Apps that could not begin, each with the reason.
    absent: BTreeMap<String, String>,
    /// The last comparison.
    plan: Plan,
    /// Who has which route; before the first comparison: had, when the daemon ended.
    routes: InForce,
    /// The routes of files as the data plane has them; `None`: none were published yet, or some of
    /// Redis that are no more.
    published: Option<HashMap<At, Destination, RandomState>>,
    /// Why apps do not get some of their routes.
    refused: BTreeMap<Arc<str>, Without>,
    waits_for_health: bool,
    redis: Option<FromRedis>,
    /// With several apps: what is kept of them for the next start.
    kept: Option<Kept>,
    /// Where this portokd listens.
    listen: watch::Receiver<Vec<SocketAddr>>,
    unbound: Unbound,
    /// Targets of Redis that left and have requests in flight.
    drains: JoinSet<()>,
    life: Life,
    /// Coordinators that do not run yet.
    prepared: Vec<(Owner, Prepared)>,
    /// Drivers of targets that do not.
    drivers: Vec<PreparedSet>,
    tasks: JoinSet<Ended>,
    known: watch::Sender<Arc<Known>>,
    /// The addresses that apps have for themselves.
    addresses: watch::Sender<BTreeSet<SocketAddr>>,
    orders: mpsc::Receiver<Order>,
    lost: watch::Sender<bool>,
}

impl Registry {
    pub(super) fn new(means: Means, config: Arc<Config>, kept: Option<Kept>, channels: Channels) -> Self {
        let Channels { listen, unbound, known, addresses, orders, lost } = channels;
        let before = kept.as_ref().zip(config.apps.as_ref());
        let routes = before.map_or_else(InForce::default, |(kept, wanted)| kept.in_force(wanted));
        Self {
            means,
            config,
            running: BTreeMap::new(),
            former: BTreeMap::new(),
            leaving: BTreeMap::new(),
            leaving_sets: BTreeMap::new(),
            absent: BTreeMap::new(),
            plan: Plan::default(),
            routes,
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
            let restart = self.next_restart().filter(|_| moves);
            let health = (moves && self.waits_for_health).then(|| Instant::now() + LOOK_AT_HEALTH);
            tokio::select! {
                order = self.orders.recv(), if may_be_told => match order {
                    Some(order) => self.receive(order).await,
                    None => {
                        may_be_told = false;
                        self.life = Life::Ending;
                    }
                },
                Some(ended) = self.tasks.join_next() => self.tasks_ended(ended),
                () = at(removal) => self.look_again(),
                () = at(restart) => self.start_fallen_again(),
                () = at(health) => if self.settle() {
                    self.publish();
                },
                () = Self::redis_changed(&mut self.redis), if self.life == Life::Moving => self.follow_redis(),
                Ok(()) = self.listen.changed(), if self.life == Life::Moving => self.configure_redis().await,
                () = self.unbound.changed() => self.follow_unbound(),
                Some(_drained) = self.drains.join_next() => {}
                () = kept::go_on(&mut self.kept), if self.life == Life::Moving => {}
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
                    Some(_) => self.compare(Look::Anew { prune }),
                    None => self.reconfigure_the_one(),
                };
                let _asker_gone = reply.send(changes);
            }
            Order::StandStill(done) => {
                if self.life == Life::Moving {
                    self.life = Life::Still;
                }
                let _fallen = self.settle_fallen().await;
                // A successor writes there from now on.
                kept::finish(&mut self.kept).await;
                let _asker_gone = done.send(());
            }
            Order::GoOn => {
                if self.life == Life::Still {
                    self.life = Life::Moving;
                    // What came due meanwhile, and apps that waited for a removal that has ended.
                    self.look_again();
                }
            }
            Order::End(done) => {
                self.life = Life::Ending;
                let _fallen = self.settle_fallen().await;
                let _asker_gone = done.send(());
            }
            Order::ShutDown(done) => {
                self.life = Life::Ending;
                self.drive_fallen().await;
                kept::finish(&mut self.kept).await;
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

    /// Does what has become due, by the configuration that was compared before.
    pub(super) fn look_again(&mut self) {
        let _nobody_asked = self.compare(Look::Again);
    }

    /// Compares what runs with what is configured, and does what follows. Returns what became of
    /// which app.
    fn compare(&mut self, look: Look) -> Vec<AppReload> {
        let config = Arc::clone(&self.config);
        let Some(wanted) = &config.apps else { return Vec::new() };
        let running = self.running.iter().map(|(name, app)| (name.clone(), app.config())).collect();
        let prune = look == Look::Anew { prune: true };
        let mut plan = plan::plan(&running, wanted, &self.plan.missing, Instant::now().into_std(), prune);
        if look == Look::Again {
            // What could not begin is tried again when somebody has had a look at it.
            plan.add.retain(|name| !self.absent.contains_key(name));
        }
        let begins = !(plan.add.is_empty() && plan.change.is_empty());
        let removed = if begins { self.means.records.removed_apps() } else { Removed::default() };
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
            match self.change(name, new, &removed) {
                Change::Elsewhere => {}
                Change::Changed => became(name, AppChange::Changed, None),
                Change::Refused(why) => became(name, AppChange::Refused, Some(why)),
            }
        }
        for name in &plan.add {
            let Some(new) = wanted.apps.get(name) else { continue };
            match self.add(name, new, &removed) {
                Addition::Began => became(name, AppChange::Added, None),
                Addition::Waits => {
                    let why = "it begins once what ran of it before is stopped".to_owned();
                    became(name, AppChange::Pending, Some(why));
                }
                Addition::Refused(why) => became(name, AppChange::Refused, Some(why)),
            }
        }
        self.note_troubles(wanted, &plan, &mut became);
        self.plan = plan;
        if let Some(kept) = &mut self.kept {
            kept.note(&wanted.texts, |name| self.running.contains_key(name));
            kept.note_spared(&self.plan.missing);
        }
        let _publishes_anyway = self.settle();
        changes.extend(self.refused.iter().map(|(app, without)| {
            let change = if without.passes { AppChange::Pending } else { AppChange::Partial };
            AppReload { app: app.to_string(), change, why: Some(without.to_string()) }
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
        let instance = &self.config.name;
        let gone = |missing: &Missing| match (&wanted.unreadable, &missing.spared) {
            (Some(error), _) => (AppChange::Refused, plan::unknown(error)),
            (None, Some(why)) => {
                (AppChange::Refused, format!("{why}: portok --instance {instance} reload --prune"))
            }
            (None, None) => {
                let delay = humantime::format_duration(wanted.removal_delay);
                let why = format!("its configuration is gone: it is stopped {delay} after that was seen");
                (AppChange::Pending, why)
            }
        };
        for (name, running) in &mut self.running {
            // One that cannot begin as another kind is absent as that.
            let refused = wanted.refused.get(name).or_else(|| self.absent.get(name));
            let (change, trouble) = match (refused, plan.missing.get(name)) {
                (Some(why), _) => (AppChange::Refused, Some(Trouble::Refused(why.clone()))),
                (None, Some(missing)) => {
                    let (change, why) = gone(missing);
                    (change, Some(Trouble::Gone(why)))
                }
                (None, None) => (AppChange::Pending, None),
            };
            if trouble != running.trouble {
                match &trouble {
                    Some(Trouble::Refused(why)) => {
                        tracing::error!(app = name, "app `{name}` stays as it was: {why}");
                    }
                    Some(Trouble::Gone(why)) => tracing::warn!(app = name, "app `{name}`: {why}"),
                    None => {}
                }
            }
            // What is absent as another kind has been told of.
            if let Some(Trouble::Refused(why) | Trouble::Gone(why)) = &trouble
                && !self.absent.contains_key(name)
            {
                became(name, change, Some(why.clone()));
            }
            running.trouble = trouble;
        }
        for (name, why) in &wanted.refused {
            if self.running.contains_key(name) {
                continue;
            }
            if self.absent.get(name) != Some(why) {
                tracing::error!(app = name, "app `{name}` is left out: {why}");
                self.absent.insert(name.clone(), why.clone());
            }
            became(name, AppChange::Refused, Some(why.clone()));
        }
    }

    /// Begins an app that is new. `removed`: the records that were set aside.
    fn add(&mut self, name: &str, new: &Arc<AppConfig>, removed: &Removed) -> Addition {
        let owner = Some(name.to_owned());
        if Nature::of(new) == Nature::Managed {
            if self.leaving.contains_key(&owner) {
                self.absent.remove(name);
                return Addition::Waits;
            }
            match self.means.records.open_added(name, removed) {
                Ok(opened) => self.begin(name, Arc::clone(new), Some(opened), removed),
                Err(error) => self.leave_out(name, error.to_string()),
            }
        } else {
            self.begin(name, Arc::clone(new), None, removed);
        }
        self.run_prepared();
        if let Some(why) = self.absent.get(name) {
            return Addition::Refused(why.clone());
        }
        tracing::info!(app = name, "app `{name}` is added");
        Addition::Began
    }

    /// Puts another configuration of an app in force.
    fn change(&mut self, name: &str, new: &Arc<AppConfig>, removed: &Removed) -> Change {
        let origin = Origin::of(&self.config, new);
        let Some(running) = self.running.get_mut(name) else { return Change::Elsewhere };
        if running.nature() != Nature::of(new) {
            return self.change_kind(name, new, removed);
        }
        self.absent.remove(name);
        let former = running.config.send_replace(Arc::clone(new));
        running.left.extend(held(&former, &self.routes).listen);
        self.means.board.configure_app(&running.service, Arc::clone(new));
        running.origin = origin;
        let is_same = AppConfig { place: former.place.clone(), ..(**new).clone() } == *former;
        if is_same { Change::Elsewhere } else { Change::Changed }
    }

    fn remove(&mut self, name: &str) {
        let whole = [self.running.remove(name), self.former.remove(name)];
        for running in whole.into_iter().flatten() {
            self.let_go(name, running);
        }
    }

    /// Lets go of what no route leads to any more.
    fn let_go(&mut self, name: &str, running: Running) {
        let Running { config, service, body, .. } = running;
        let owner = Some(name.to_owned());
        match body {
            Body::Managed(managed) => {
                tracing::info!(
                    app = name,
                    "app `{name}` is removed: its requests finish, then it is stopped"
                );
                let has_fallen = managed.has_fallen();
                self.leaving.insert(owner.clone(), Leaving { managed, service, config });
                if has_fallen {
                    self.settle_leaving(owner);
                } else {
                    self.stop(owner);
                }
            }
            Body::Targets(Driven { handle, .. }) => {
                let config = Arc::clone(&config.borrow());
                let recorded = CancellationToken::new();
                self.let_set_go(LeavingSet { targets: handle, service, config, recorded });
            }
            Body::Redirect => tracing::info!(app = name, "app `{name}` is removed"),
        }
    }

    // ---- its tasks ----

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

    /// Takes note of a task that has ended, and of all others that have: where many apps go, the
    /// rest is looked at once.
    fn tasks_ended(&mut self, first: Result<Ended, JoinError>) {
        let (mut next, mut some_went) = (Some(first), false);
        while let Some(ended) = next {
            match ended {
                Ok(Ended::Driver(owner)) => self.driver_ended(&owner),
                Ok(Ended::Settled(owner)) => self.settled(&owner),
                Ok(Ended::Removal(owner)) => some_went |= self.leaving.remove(&owner).is_some(),
                Ok(Ended::SetRemoval(number)) => some_went |= self.leaving_sets.remove(&number).is_some(),
                Err(error) => tracing::error!("a task of the registry panicked: {error}"),
            }
            next = self.tasks.try_join_next();
        }
        if some_went {
            self.are_fewer();
        }
    }

    /// Goes on without what has been removed.
    fn are_fewer(&mut self) {
        if self.life == Life::Moving {
            // An app that was added again meanwhile begins now.
            self.look_again();
        }
        self.publish();
    }
}

/// Waits for a moment that may never come. Cancel safe.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
