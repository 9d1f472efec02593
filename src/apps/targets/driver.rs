//! The task of an app with targets: probes them, publishes who serves, drains who leaves.
//!
//! State: everything here, owned by the task; others see [`View`]s. Dropped, what was published
//! last stays. The orderings that matter: who serves is published before the former are retired,
//! so that no request finds only members that refuse it; a switch is on disk before traffic moves.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};

use super::handle::{Handle, MemberView, Message, View, busy, probe_of};
use super::publisher::Publisher;
use super::record::{File, Record};
use super::set::{Condition, Id, Pace, Rules, Set, State};
use crate::config::AppConfig;
use crate::health::Unable;
use crate::proxy::{RouteWriter, ServiceCounters, Target};
use crate::release::spec::switch_id;
use crate::wire::{self, Code, ErrorBody, Phase, ProbeReport, Reason, TargetState};

/// Messages that wait for the driver, at most.
const MESSAGES: usize = 32;

/// How soon a target is probed again that is waited for.
const JOINING_PACE: Duration = Duration::from_millis(250);

/// How often an early end of a drain is looked for.
const EARLY_DRAIN_LOOK: Duration = Duration::from_millis(50);

/// What an app with targets is made of.
pub struct Parts {
    /// Its configuration, which has targets.
    pub config: Arc<AppConfig>,
    /// The one writer of its service's requests.
    pub route: RouteWriter,
    /// The counters of that service.
    pub counters: Arc<ServiceCounters>,
    /// Where its record is kept; `None`: nowhere.
    pub record: Option<PathBuf>,
}

/// The driver of an app with targets; [`TargetSet::run`] is its life.
pub struct TargetSet {
    config: Arc<AppConfig>,
    set: Set,
    /// The members that serve or drain, as the proxy knows them.
    targets: HashMap<Id, Arc<Target>>,
    /// Who serves, as it was published.
    published: Vec<Id>,
    publisher: Publisher,
    file: File,
    record: Record,
    state_error: Option<String>,
    probes: JoinSet<(Id, Result<ProbeReport, Unable>)>,
    /// When each member is probed next; `None`: it is being probed.
    due: HashMap<Id, Option<Instant>>,
    last_checked_at: Option<String>,
    standing: Standing,
    started: Instant,
    messages: mpsc::Receiver<Message>,
    views: watch::Sender<Arc<View>>,
}

/// Whether the driver goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Running,
    Frozen,
    /// It begins nothing new.
    Stopping,
}

impl TargetSet {
    /// Makes the driver of an app; reads its record (blocking). Unprobed targets serve at once,
    /// others once it [runs](Self::run) and they are healthy.
    pub fn start(parts: Parts) -> (Handle, Self) {
        let Parts { config, route, counters, record } = parts;
        let file = File::new(record);
        let record = file.read(config.targets.as_deref().unwrap_or_default());
        let (sender, messages) = mpsc::channel(MESSAGES);
        let mut driver = Self {
            publisher: Publisher::new(route, &counters, None),
            set: Set::default(),
            targets: HashMap::new(),
            published: Vec::new(),
            state_error: None,
            probes: JoinSet::new(),
            due: HashMap::new(),
            last_checked_at: None,
            standing: Standing::Running,
            started: Instant::now(),
            views: watch::Sender::new(Arc::new(View::of_nothing(config.clone()))),
            config,
            file,
            record,
            messages,
        };
        driver.list();
        driver.serve();
        driver.show();
        let (views, turn) = (driver.views.subscribe(), Arc::new(Semaphore::new(1)));
        (Handle { messages: sender, views, counters, turn }, driver)
    }

    /// Runs until it is stopped or left, or nobody has a handle any more.
    pub async fn run(mut self) {
        self.begin_probes();
        loop {
            let wake = self.next_wake();
            let runs = self.standing == Standing::Running;
            tokio::select! {
                message = self.messages.recv() => match message {
                    None => return,
                    Some(message) => if self.hear(message).await { return },
                },
                Some(probed) = self.probes.join_next(), if runs => match probed {
                    Ok((id, report)) => self.probed(id, report),
                    // A probe that failed by a fault of its own is made again.
                    Err(_) => self.due.retain(|_, due| due.is_some()),
                },
                () = tokio::time::sleep_until(wake), if runs => (),
            }
            if self.standing == Standing::Running {
                self.serve();
                self.begin_probes();
            }
            self.show();
        }
    }

    /// Obeys. Returns whether it ends.
    async fn hear(&mut self, message: Message) -> bool {
        match message {
            Message::Configure(config) => self.configure(config).await,
            Message::Switch(addrs, asker) => {
                let switched = self.switch(addrs).await;
                // The switch stands, whether or not anybody waits for the answer.
                let _gone = asker.send(switched);
            }
            Message::Freeze(asker) => {
                let _gone = asker.send(self.freeze().await);
            }
            Message::Thaw if self.standing == Standing::Frozen => self.standing = Standing::Running,
            Message::Thaw => (),
            Message::Beat(done) => {
                let _gone = done.send(());
            }
            Message::Shutdown => self.standing = Standing::Stopping,
            Message::Leave(done) => {
                let _gone = done.send(());
                return true;
            }
            Message::Stop(done) => {
                self.standing = Standing::Stopping;
                self.publisher.publish(&[], &self.config);
                self.targets.values().for_each(|target| target.close());
                self.show();
                let _gone = done.send(());
                return true;
            }
        }
        false
    }

    // ---- what is asked for ----

    /// Puts another configuration in force.
    async fn configure(&mut self, config: Arc<AppConfig>) {
        let configured = config.targets.clone().unwrap_or_default();
        // `balance` and `drain.affinity` say how the same members are published.
        let is_published_so =
            (config.balance, config.drain.affinity) == (self.config.balance, self.config.drain.affinity);
        self.config = config;
        if !is_published_so {
            self.published.clear();
        }
        let from = self.active_port();
        if self.record.configure(&configured) {
            let to: Vec<_> = configured.iter().map(SocketAddr::port).collect();
            if let Some(switch) = switch_of(from, &to, Reason::Config) {
                self.record.last_switch = Some(switch);
            }
            self.write().await;
        }
        self.list();
    }

    /// Moves traffic to `addrs`, which are healthy.
    async fn switch(&mut self, addrs: Vec<SocketAddr>) -> Result<wire::Switch, ErrorBody> {
        match self.standing {
            Standing::Running => (),
            Standing::Frozen => return Err(busy()),
            Standing::Stopping => return Err(going_down()),
        }
        let ports: Vec<_> = addrs.iter().map(SocketAddr::port).collect();
        let Some(switch) = switch_of(self.active_port(), &ports, Reason::Manual) else {
            return Err(ErrorBody::new(Code::BadRequest, "Bad request", "a switch needs a port"));
        };
        let record = self.record.switched(addrs, switch.clone());
        if let Err(error) = self.file.write(&record).await {
            self.state_error = Some(error.to_string());
            return Err(ErrorBody::new(Code::StateUnwritable, "State not written", error.to_string()));
        }
        (self.record, self.state_error) = (record, None);
        self.publisher.begin_tenure();
        self.set.switch(self.record.in_force(), is_probed(&self.config));
        tracing::info!(?ports, "traffic is switched");
        Ok(switch)
    }

    async fn freeze(&mut self) -> Result<(), ErrorBody> {
        if self.standing == Standing::Stopping {
            return Err(going_down());
        }
        if self.state_error.is_some() {
            self.write().await;
            if let Some(error) = &self.state_error {
                return Err(ErrorBody::new(Code::StateUnwritable, "State not written", error.clone()));
            }
        }
        self.standing = Standing::Frozen;
        Ok(())
    }

    /// Writes the record. What goes wrong is shown.
    async fn write(&mut self) {
        self.state_error = self.file.write(&self.record).await.err().map(|error| error.to_string());
        if let Some(error) = &self.state_error {
            tracing::error!("{error}");
        }
    }

    /// The list in force is that of the record.
    fn list(&mut self) {
        self.set.list(self.record.in_force(), is_probed(&self.config));
    }

    // ---- what follows ----

    /// A probe has ended.
    fn probed(&mut self, id: Id, report: Result<ProbeReport, Unable>) {
        self.due.remove(&id);
        let rules = self.rules();
        match report {
            Ok(report) => {
                self.last_checked_at = Some(wire::rfc3339(SystemTime::now()));
                let error = report.said().filter(|_| !report.healthy);
                let error = error.or_else(|| (!report.healthy).then(|| "no answer".to_owned()));
                self.set.probed(id, error, rules);
            }
            // That says nothing of the target.
            Err(unable) => tracing::warn!("{unable}"),
        }
        let pace =
            self.set.members(rules).find(|(member, _)| member.id == id).and_then(|(m, _)| m.wants_probe());
        let after = match pace {
            Some(Pace::Joining) => JOINING_PACE.min(self.interval()),
            Some(Pace::Watching) => self.interval(),
            None => return,
        };
        self.due.insert(id, Some(Instant::now() + after));
    }

    /// Publishes who serves, retires who leaves, closes whose drain is over.
    fn serve(&mut self) {
        let (rules, now) = (self.rules(), self.started.elapsed());
        // Who leaves is decided by who serves without it; both change at once for requests.
        let left = self.set.leaves(now, rules);
        let serving: Vec<_> = self.set.serving(rules).map(|member| (member.id, member.addr)).collect();
        let ids: Vec<_> = serving.iter().map(|(id, _)| *id).collect();
        for (id, addr) in serving {
            self.targets.entry(id).or_insert_with(|| self.publisher.target(addr));
        }
        if ids != self.published {
            let targets: Vec<_> = ids.iter().map(|id| self.targets[id].clone()).collect();
            self.publisher.publish(&targets, &self.config);
            self.published = ids;
        }
        for id in left {
            if let Some(target) = self.targets.get(&id) {
                target.retire();
            }
        }
        let (early, targets) = (self.config.drain.early, &self.targets);
        let is_idle =
            |id: Id| early && targets.get(&id).is_none_or(|target| target.inflight() + target.pinned() == 0);
        for id in self.set.over(now, is_idle) {
            if let Some(target) = self.targets.remove(&id) {
                target.close();
            }
        }
    }

    /// Begins the probes that are due.
    fn begin_probes(&mut self) {
        let (rules, now) = (self.rules(), Instant::now());
        let wanted: Vec<_> = self
            .set
            .members(rules)
            .filter(|(member, _)| member.wants_probe().is_some())
            .map(|(member, _)| (member.id, member.addr))
            .collect();
        self.due.retain(|id, _| wanted.iter().any(|(wanted, _)| wanted == id));
        for (id, addr) in wanted {
            match self.due.get(&id) {
                Some(None) => continue,
                Some(Some(due)) if *due > now => continue,
                Some(Some(_)) | None => (),
            }
            self.due.insert(id, None);
            let probe = probe_of(&self.config, addr);
            self.probes.spawn(async move { (id, probe.ask().await) });
        }
    }

    /// When there is something to do unasked.
    fn next_wake(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let probe = self.due.values().filter_map(|due| *due).min();
        let drain = self.set.drains_until().min().map(|until| {
            let over = self.started + until;
            if self.config.drain.early { over.min(Instant::now() + EARLY_DRAIN_LOOK) } else { over }
        });
        probe.into_iter().chain(drain).fold(far, Instant::min)
    }

    fn rules(&self) -> Rules {
        let AppConfig { health, rollback, drain, .. } = &*self.config;
        let failures = health.failures.unwrap_or(rollback.threshold).max(1);
        Rules { successes: health.successes.max(1), failures, drain: drain.period }
    }

    fn interval(&self) -> Duration {
        self.config.health.interval.unwrap_or(self.config.rollback.interval)
    }

    fn active_port(&self) -> Option<u16> {
        self.set.serving(self.rules()).next().map(|member| member.addr.port())
    }

    /// Publishes a snapshot.
    fn show(&mut self) {
        let rules = self.rules();
        let first = self.set.serving(rules).next();
        let bad = first.map_or(0, Set::bad_probes);
        let health = wire::HealthMetrics {
            active_port_ok: first.is_some() && bad == 0,
            last_checked_at: self.last_checked_at.clone(),
            consecutive_fails: bad,
        };
        let phase = match self.set.condition(rules) {
            _ if self.standing == Standing::Stopping => Phase::Stopping,
            Condition::Empty => Phase::Empty,
            Condition::Starting => Phase::Starting,
            Condition::Unhealthy => Phase::Unhealthy,
            Condition::Good => Phase::Settled,
        };
        let members = self.set.members(rules).map(|(member, state)| MemberView {
            addr: member.addr,
            state: match state {
                State::Joining => TargetState::Starting,
                State::Serving => TargetState::Ready,
                State::Out => TargetState::Ejected,
                State::Leaving => TargetState::Draining,
            },
            probed: member.probed,
            target: self.targets.get(&member.id).cloned(),
            last_error: member.last_error.clone(),
        });
        let drain_until = self.set.drains_until().max().map(|until| {
            let left = until.saturating_sub(self.started.elapsed());
            wire::rfc3339(SystemTime::now() + left)
        });
        let view = View {
            config: self.config.clone(),
            listed: self.record.in_force().to_vec(),
            phase,
            members: members.collect(),
            last_switch: self.record.last_switch.clone(),
            drain_until,
            state_error: self.state_error.clone(),
            health,
            known: self.set.is_known(),
        };
        self.views.send_replace(Arc::new(view));
    }
}

impl View {
    fn of_nothing(config: Arc<AppConfig>) -> Self {
        Self {
            config,
            listed: Vec::new(),
            phase: Phase::Starting,
            members: Vec::new(),
            last_switch: None,
            drain_until: None,
            state_error: None,
            health: wire::HealthMetrics::default(),
            known: false,
        }
    }
}

/// Which addresses are probed: those of this host always, others where the operator said which path.
fn is_probed(config: &AppConfig) -> impl Fn(SocketAddr) -> bool + use<> {
    let remote = config.health.path_is_set;
    move |addr| remote || addr.ip().is_loopback()
}

/// A move of traffic that happens now; `None`: it goes nowhere.
fn switch_of(from: Option<u16>, to: &[u16], reason: Reason) -> Option<wire::Switch> {
    Some(wire::Switch {
        from,
        from_release: None,
        to: *to.first()?,
        to_ports: to.to_vec(),
        to_release: None,
        at: wire::rfc3339(SystemTime::now()),
        reason,
        id: switch_id(),
    })
}

fn going_down() -> ErrorBody {
    ErrorBody::new(Code::ShuttingDown, "Shutting down", "the daemon is going down")
}
