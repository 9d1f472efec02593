//! The task of an app with targets: probes them, publishes who serves, drains who leaves.
//!
//! State: everything here, owned by the task; others see [`View`]s. Dropped, what was published
//! last stays. The orderings that matter: who serves is published before the former are retired,
//! so that no request finds only members that refuse it; a switch is on disk before traffic moves;
//! of two configurations the newer one is in force, whatever was asked for between them. While the
//! record is on its way to the disk, which may be slow, probes go on and the driver says that it
//! runs; all other messages wait, in their order.

mod orders;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::handle::{Handle, Message, busy, held};
use super::picture::{MemberView, View};
use super::publisher::Publisher;
use super::record::{File, Record, ports_of, switch_of};
use super::schedule::Schedule;
use super::set::{Condition, Id, Rules, Set, State};
use super::voice::log_turn;
use crate::config::AppConfig;
use crate::health::{Event, Place, Probe, Prober, Unable, UnderWay};
use crate::proxy::{RouteWriter, ServiceCounters, Target};
use crate::release::End;
#[cfg(debug_assertions)]
use crate::release::failpoint;
use crate::release::records::{Former, Records};
use crate::release::spec::random;
use crate::wire::{self, Code, ErrorBody, HookEvent, Phase, ProbeReport, Reason, TargetState};

/// Messages that wait for the driver, at most.
const MESSAGES: usize = 32;

/// How long a driver before this one may take to be done with the record.
const FORMER_WRITES_WITHIN: Duration = Duration::from_secs(10);

/// How often an early end of a drain is looked for.
const EARLY_DRAIN_LOOK: Duration = Duration::from_millis(50);

/// What an app with targets is made of.
pub struct Parts {
    /// Its configuration in force, which names it and has targets.
    pub config: watch::Receiver<Arc<AppConfig>>,
    /// The one writer of its service's requests.
    pub route: RouteWriter,
    /// The counters of that service.
    pub counters: Arc<ServiceCounters>,
    /// Where its record is.
    pub records: Records,
    /// Cancelled once a driver before this one writes that record no more.
    pub recorded: Option<CancellationToken>,
    /// Where the probes of all apps have their turns.
    pub prober: Prober,
    /// What was set aside of the app before.
    pub former: Former,
    /// Tells the app's hooks; must not block.
    pub notify: Box<dyn Fn(HookEvent) + Send>,
}

/// The driver of an app with targets; [`TargetSet::run`] is its life.
pub struct TargetSet {
    config: Arc<AppConfig>,
    /// What is to be in force.
    configs: watch::Receiver<Arc<AppConfig>>,
    set: Set,
    /// The members that serve or drain, as the proxy knows them.
    targets: HashMap<Id, Arc<Target>>,
    /// Who serves, as it was published.
    published: Vec<Id>,
    publisher: Publisher,
    /// The counters of its service.
    counters: Arc<ServiceCounters>,
    /// `None`: it is set aside.
    file: Option<File>,
    /// The end of who had the file before.
    recorded: Option<CancellationToken>,
    /// What was set aside before.
    former: Former,
    record: Record,
    notify: Box<dyn Fn(HookEvent) + Send>,
    state_error: Option<String>,
    probes: UnderWay<Id>,
    schedule: Schedule,
    last_checked_at: Option<String>,
    standing: Standing,
    started: Instant,
    messages: mpsc::Receiver<Message>,
    /// Those that came while the record was being written; at most [`MESSAGES`].
    waiting: VecDeque<Message>,
    views: watch::Sender<Arc<View>>,
}

/// Whether the driver goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Running,
    Frozen,
    /// It begins nothing new.
    Stopping,
    /// As [`Standing::Stopping`]; once nothing is in flight, and at the end of the drain, it ends.
    Removed {
        since: Instant,
    },
}

impl TargetSet {
    /// Makes the driver of an app. Its targets serve once it [runs](Self::run): those that are
    /// probed when they are healthy, others at once.
    pub fn start(parts: Parts) -> (Handle, Self) {
        let Parts { config: mut configs, route, counters, records, recorded, former, prober, notify } = parts;
        let config = Arc::clone(&configs.borrow_and_update());
        let file = File::new(records, &config.name);
        let gone = file.gone();
        let (sender, messages) = mpsc::channel(MESSAGES);
        let driver = Self {
            publisher: Publisher::new(route),
            counters: Arc::clone(&counters),
            set: Set::default(),
            targets: HashMap::new(),
            published: Vec::new(),
            state_error: None,
            probes: UnderWay::new(prober.clone()),
            schedule: Schedule::default(),
            last_checked_at: None,
            standing: Standing::Running,
            started: Instant::now(),
            views: watch::Sender::new(Arc::new(View::of_nothing(config.clone()))),
            record: Record::new(config.targets.as_deref().unwrap_or_default()),
            config,
            configs,
            file: Some(file),
            recorded,
            former,
            notify,
            messages,
            waiting: VecDeque::new(),
        };
        let (views, turn) = (driver.views.subscribe(), Arc::new(Semaphore::new(1)));
        (Handle { messages: sender, views, counters, turn, prober, recorded: gone }, driver)
    }

    /// Runs until it is stopped, left or removed, or nobody has a handle any more.
    pub async fn run(mut self) -> End {
        self.take_up().await;
        let mut turn = None;
        loop {
            match self.standing {
                Standing::Running => {
                    self.serve();
                    self.begin_probes(turn.take());
                }
                Standing::Removed { since } if self.is_drained(since) => return self.stop(),
                Standing::Frozen | Standing::Stopping | Standing::Removed { .. } => self.probes.give_up(),
            }
            self.show();
            #[cfg(debug_assertions)]
            failpoint::step_taken(&self.config.name);
            let (wake, runs) = (self.next_wake(), self.standing == Standing::Running);
            let waits = runs || matches!(self.standing, Standing::Removed { .. });
            if let Some(message) = self.waiting.pop_front() {
                if let Some(end) = self.hear(message).await {
                    return end;
                }
                continue;
            }
            tokio::select! {
                message = self.messages.recv() => match message {
                    None => return End::Left,
                    Some(message) => if let Some(end) = self.hear(message).await { return end },
                },
                Ok(()) = self.configs.changed(), if runs => self.configure().await,
                event = self.probes.next(), if runs => turn = self.probe_turned(event),
                () = tokio::time::sleep_until(wake), if waits => (),
            }
            if runs {
                self.end_orders().await;
            }
        }
    }

    /// Waits for the disk, which has the file. Until then only what has nothing to do with the
    /// record goes on.
    async fn meanwhile<T>(&mut self, disk: impl Future<Output = T>) -> T {
        let mut disk = pin!(disk);
        loop {
            let (runs, has_room) = (self.standing == Standing::Running, self.waiting.len() < MESSAGES);
            let turn = tokio::select! {
                done = &mut disk => return done,
                Some(message) = self.messages.recv(), if has_room => match message {
                    Message::Pulse(done) => {
                        let _gone = done.send(());
                        continue;
                    }
                    message => {
                        self.waiting.push_back(message);
                        continue;
                    }
                },
                event = self.probes.next(), if runs => self.probe_turned(event),
            };
            self.serve();
            self.begin_probes(turn);
            self.show();
        }
    }

    /// Begins with what the record says.
    async fn take_up(&mut self) {
        if let Some(recorded) = self.recorded.take()
            && tokio::time::timeout(FORMER_WRITES_WITHIN, recorded.cancelled()).await.is_err()
        {
            tracing::warn!(app = self.config.name, "a driver before this one still has its record");
        }
        if let Some(file) = &self.file {
            let configured = self.config.targets.clone().unwrap_or_default();
            (self.record, self.state_error) = file.read(configured, self.former.clone()).await;
        }
        if let Some(error) = &self.state_error {
            tracing::error!(app = self.config.name, "{error}");
        }
        self.take_orders_up();
        self.list();
    }

    /// Obeys. Returns how it ends.
    async fn hear(&mut self, message: Message) -> Option<End> {
        // Whoever has configured something and then asks sees it in force.
        if self.standing == Standing::Running && self.configs.has_changed().unwrap_or(false) {
            self.configure().await;
        }
        match message {
            Message::Switch(addrs, asker) => {
                let switched = self.switch(addrs).await;
                // The switch stands, whether or not anybody waits for the answer.
                let _gone = asker.send(switched);
            }
            Message::Order(order, said, asker) => {
                let ordered = self.obey(order, said).await;
                let _gone = asker.send(ordered);
            }
            Message::MayFreeze(asker) => {
                let _gone = asker.send(self.holds_nothing());
            }
            Message::Freeze { interrupt, asker } => {
                let _gone = asker.send(self.freeze(interrupt).await);
            }
            Message::Thaw if self.standing == Standing::Frozen => self.standing = Standing::Running,
            Message::Thaw => (),
            Message::Beat(done) | Message::Pulse(done) => {
                let _gone = done.send(());
            }
            Message::Shutdown if matches!(self.standing, Standing::Removed { .. }) => (),
            Message::Shutdown => {
                self.standing = Standing::Stopping;
                self.hold_nobody();
            }
            Message::Remove(done) => {
                self.standing = Standing::Removed { since: Instant::now() };
                self.publisher.bar(None);
                self.set_record_aside().await;
                let _gone = done.send(());
            }
            Message::Leave(done) => {
                self.hold_nobody();
                let _gone = done.send(());
                return Some(End::Left);
            }
            Message::Stop(done) => {
                let end = self.stop();
                let _gone = done.send(());
                return Some(end);
            }
        }
        None
    }

    /// Takes traffic away, and ends what is in flight.
    fn stop(&mut self) -> End {
        self.standing = Standing::Stopping;
        self.publisher.publish(&[], &self.config, || None);
        self.targets.values().for_each(|target| target.close());
        self.show();
        End::Stopped
    }

    /// Whether nothing is in flight any more of an app that was removed at `since`, or its drain is
    /// over. The first look is a moment late: a request may be on its way that had a route.
    fn is_drained(&self, since: Instant) -> bool {
        let passed = since.elapsed();
        let idle = || self.targets.values().all(|target| target.inflight() == 0);
        passed >= self.config.drain.period || passed >= EARLY_DRAIN_LOOK && idle()
    }

    // ---- what is asked for ----

    /// Puts the newest configuration in force. An edit of the targets is no deploy: new ones join
    /// when they are healthy, removed ones drain.
    async fn configure(&mut self) {
        let config = Arc::clone(&self.configs.borrow_and_update());
        let configured = config.targets.clone().unwrap_or_default();
        // These say how the same members are published.
        let how = |config: &AppConfig| (config.balance, config.sticky, config.drain.affinity);
        let is_published_so = how(&config) == how(&self.config);
        self.config = config;
        self.schedule.hasten(Instant::now().into_std(), self.config.probe_interval(), chance);
        if !is_published_so {
            self.published.clear();
        }
        let (from, former) = (self.active_port(), ports_of(self.record.in_force()));
        if self.record.configure(&configured) {
            let to = ports_of(&configured);
            let switch = switch_of(from, former, &to, Reason::Config);
            if let Some(switch) = &switch {
                self.record.last_switch = Some(switch.clone());
            }
            self.write().await;
            switch.iter().for_each(|switch| self.tell(switch));
        }
        self.list();
    }

    /// Moves traffic to `addrs`, which are healthy.
    async fn switch(&mut self, addrs: Vec<SocketAddr>) -> Result<wire::Switch, ErrorBody> {
        self.may_change()?;
        self.record.orders.admits()?;
        let ports = ports_of(&addrs);
        let (from, former) = (self.active_port(), ports_of(self.record.in_force()));
        let Some(switch) = switch_of(from, former, &ports, Reason::Manual) else {
            return Err(ErrorBody::new(Code::BadRequest, "Bad request", "a switch needs a port"));
        };
        let record = self.record.switched(addrs, switch.clone());
        self.save(&record).await;
        if let Some(error) = &self.state_error {
            return Err(ErrorBody::new(Code::StateUnwritable, "State not written", error.clone()));
        }
        self.record = record;
        self.publisher.begin_tenure();
        self.set.switch(self.record.in_force(), is_probed(&self.config));
        tracing::info!(app = self.config.name, ?ports, "traffic is switched");
        self.tell(&switch);
        Ok(switch)
    }

    /// Writes the record. What goes wrong is shown.
    async fn write(&mut self) {
        self.save(&self.record.clone()).await;
        if let Some(error) = &self.state_error {
            tracing::error!(app = self.config.name, "{error}");
        }
    }

    /// Writes `record`, and notes what went wrong.
    async fn save(&mut self, record: &Record) {
        let Some(mut file) = self.file.take() else { return };
        let written = self.meanwhile(file.write(record)).await;
        self.file = Some(file);
        self.state_error = written.err().map(|error| error.to_string());
    }

    async fn set_record_aside(&mut self) {
        let Some(file) = self.file.take() else { return };
        if let Err(error) = self.meanwhile(file.set_aside()).await {
            tracing::error!(app = self.config.name, "{error}");
        }
    }

    /// Tells the hooks of a switch. Whoever passes it on knows the names of instance and app.
    fn tell(&self, switch: &wire::Switch) {
        let to: Vec<_> = switch.to_ports.iter().map(u16::to_string).collect();
        let why =
            if switch.reason == Reason::Config { "as the configuration says" } else { "by an operator" };
        let ports = if to.len() == 1 { "port" } else { "ports" };
        (self.notify)(HookEvent {
            at: switch.at.clone(),
            event: "switched".to_owned(),
            instance: String::new(),
            app: None,
            release: None,
            message: format!("traffic goes to {ports} {}, {why}", to.join(", ")),
            switch: Some(switch.clone()),
        });
    }

    /// The list in force is that of the record.
    fn list(&mut self) {
        self.set.list(self.record.in_force(), is_probed(&self.config));
    }

    // ---- what follows ----

    /// Something has become of the probes. Returns a turn to make one.
    fn probe_turned(&mut self, event: Event<Id>) -> Option<Place> {
        match event {
            Event::Turn(place) => return Some(place),
            Event::Ended(id, report) => self.probed(id, report),
            // A probe that failed by a fault of its own is made again.
            Event::Fell(_) => self.schedule.fell(Instant::now().into_std()),
        }
        None
    }

    /// A probe has ended.
    fn probed(&mut self, id: Id, report: Result<ProbeReport, Unable>) {
        let (rules, now, interval) = (self.rules(), Instant::now().into_std(), self.config.probe_interval());
        // That says nothing of the target.
        let Ok(report) = report else { return self.schedule.not_probed(id, now, interval) };
        if self.set.active(rules).is_none_or(|active| active.id == id) {
            self.last_checked_at = Some(wire::rfc3339(SystemTime::now()));
        }
        let fails = |set: &Set| set.members(rules).any(|(m, _)| m.id == id && m.fails(rules));
        let failed = fails(&self.set);
        if report.healthy {
            self.take_in_last(id);
        }
        self.set.probed(id, report.complaint(), rules);
        if fails(&self.set) != failed {
            log_turn(&self.config.name, &self.set, rules, id);
        }
        let probed = self.set.members(rules).find(|(member, _)| member.id == id);
        if let Some(pace) = probed.and_then(|(member, _)| member.wants_probe()) {
            self.schedule.probed(id, now, (pace, interval), chance());
        }
    }

    /// A probe of a member was good. Where every member that gets requests is marked, because
    /// requests to it failed, the mark of this one is over: the last one is never out.
    fn take_in_last(&self, id: Id) {
        let serving = || self.published.iter().filter_map(|id| self.targets.get(id));
        if serving().all(|target| target.is_out(&self.counters))
            && self.published.contains(&id)
            && let Some(target) = self.targets.get(&id)
        {
            target.take_in();
        }
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
            self.publisher.publish(&targets, &self.config, || None);
            self.published = ids;
        }
        let drain = &self.config.drain;
        for id in left {
            if let Some(target) = self.targets.get(&id) {
                target.retire();
                target.part(drain.period, drain.tunnels_of(false), &self.counters);
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

    /// Begins the probes that are due, as far as there are places for them; `turn` is one.
    fn begin_probes(&mut self, mut turn: Option<Place>) {
        let (rules, now) = (self.rules(), Instant::now().into_std());
        let wanted = self.set.members(rules).filter(|(member, _)| member.wants_probe().is_some());
        let wanted: HashMap<_, _> = wanted.map(|(member, _)| (member.id, member.addr)).collect();
        self.schedule.keep(&wanted, now);
        while self.schedule.next_due().is_some_and(|due| due <= now) {
            let Some(place) = turn.take().or_else(|| self.probes.place()) else { break };
            let Some(id) = self.schedule.next(now) else { break };
            self.probes.begin(place, id, Probe::of(&self.config, wanted[&id], None));
        }
    }

    /// When there is something to do unasked.
    fn next_wake(&self) -> Instant {
        if let Standing::Removed { since } = self.standing {
            return (Instant::now() + EARLY_DRAIN_LOOK).min(since + self.config.drain.period);
        }
        let far = Instant::now() + Duration::from_secs(3600);
        // What is due waits for its turn, where there is no place.
        let probe = self.schedule.next_due().filter(|_| !self.probes.waits()).map(Instant::from_std);
        let drain = self.set.drains_until().min().map(|until| {
            let over = self.started + until;
            if self.config.drain.early { over.min(Instant::now() + EARLY_DRAIN_LOOK) } else { over }
        });
        let order = self.record.orders.next_end().map(Instant::from_std);
        probe.into_iter().chain(drain).chain(order).fold(far, Instant::min)
    }

    fn rules(&self) -> Rules {
        let AppConfig { health, drain, .. } = &*self.config;
        let failures = self.config.probes_to_fail();
        Rules { successes: health.successes.max(1), failures, drain: drain.period }
    }

    fn active_port(&self) -> Option<u16> {
        self.set.active(self.rules()).map(|member| member.addr.port())
    }

    /// Publishes a snapshot.
    fn show(&mut self) {
        let rules = self.rules();
        let active = self.set.active(rules);
        let bad = active.map_or(0, Set::bad_probes);
        let health = wire::HealthMetrics {
            active_port_ok: active.is_some() && bad == 0,
            last_checked_at: self.last_checked_at.clone(),
            consecutive_fails: bad,
        };
        let phase = match self.set.condition(rules) {
            _ if matches!(self.standing, Standing::Stopping | Standing::Removed { .. }) => Phase::Stopping,
            Condition::Empty => Phase::Empty,
            Condition::Starting => Phase::Starting,
            Condition::Unhealthy => Phase::Unhealthy,
            Condition::Good => Phase::Settled,
        };
        let removed = match self.standing {
            Standing::Removed { since } => Some(since),
            _ => None,
        };
        let members = self.set.members(rules).map(|(member, state)| MemberView {
            addr: member.addr,
            state: match state {
                _ if removed.is_some() => TargetState::Draining,
                State::Joining => TargetState::Starting,
                State::Serving => TargetState::Ready,
                State::Out => TargetState::Ejected,
                State::Leaving => TargetState::Draining,
            },
            probed: member.probed,
            listed: member.is_listed(),
            fails: member.fails(rules),
            target: self.targets.get(&member.id).cloned(),
            last_error: member.last_error.clone(),
        });
        let drain_until = match removed {
            Some(since) => Some(since + self.config.drain.period),
            None => self.set.drains_until().max().map(|until| self.started + until),
        };
        let drain_until = drain_until
            .map(|until| wire::rfc3339(SystemTime::now() + until.saturating_duration_since(Instant::now())));
        let view = View {
            config: self.config.clone(),
            listed: self.record.in_force().to_vec(),
            phase,
            active_port: self.active_port(),
            members: members.collect(),
            last_switch: self.record.last_switch.clone(),
            drain_until,
            state_error: self.state_error.clone(),
            traffic: self.publisher.traffic(),
            paused: self.record.orders.paused(),
            frozen: self.record.orders.frozen(),
            health,
            known: self.set.is_known(),
        };
        self.views.send_replace(Arc::new(view));
    }
}

/// Which addresses are probed: those of this host always, others where the operator said what is
/// asked.
fn is_probed(config: &AppConfig) -> impl Fn(SocketAddr) -> bool + use<> {
    let remote = config.health.is_set;
    move |addr| remote || addr.ip().is_loopback()
}

/// At least 0 and below 1.
fn chance() -> f64 {
    f64::from(random() as u32) / (f64::from(u32::MAX) + 1.0)
}

fn going_down() -> ErrorBody {
    ErrorBody::new(Code::ShuttingDown, "Shutting down", "the daemon is going down")
}
