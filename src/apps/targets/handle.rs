//! An app with targets as others see it: requests in, snapshots out.
//!
//! A handle is cheap to clone, and dropping it changes nothing.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::picture::{Picture, View};
use super::record::is_same;
use crate::config::AppConfig;
use crate::health::{Ask, Probe, Prober};
use crate::proxy::{ServiceCounters, Target};
use crate::release;
use crate::release::orders::Order;
use crate::wire::{self, Code, ErrorBody, Phase, ReplicaRole, ReplicaRow, ReplicaState, Said, TargetState};

/// What reaches the driver.
pub(super) enum Message {
    /// Traffic is to go to these, which are healthy.
    Switch(Vec<SocketAddr>, oneshot::Sender<Result<wire::Switch, ErrorBody>>),
    /// Obey an operator.
    Order(Order, Said, oneshot::Sender<Result<wire::Ordered, ErrorBody>>),
    /// Answer whether another daemon can take over now.
    MayFreeze(oneshot::Sender<Result<(), ErrorBody>>),
    /// Write the record and stand still; with `interrupt` also where requests wait.
    Freeze {
        interrupt: bool,
        asker: oneshot::Sender<Result<(), ErrorBody>>,
    },
    Thaw,
    Beat(oneshot::Sender<()>),
    /// Say that the driver runs, whatever else it was told before.
    Pulse(oneshot::Sender<()>),
    /// Begin nothing any more.
    Shutdown,
    /// The app is removed: finish what is in flight, and end.
    Remove(oneshot::Sender<()>),
    /// End, with nothing serving.
    Stop(oneshot::Sender<()>),
    /// End, and leave everything as it is.
    Leave(oneshot::Sender<()>),
}

/// An app with targets as the admin API and the daemon see it.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(super) messages: mpsc::Sender<Message>,
    pub(super) views: watch::Receiver<Arc<View>>,
    pub(super) counters: Arc<ServiceCounters>,
    /// One switch at a time.
    pub(super) turn: Arc<Semaphore>,
    /// Where probes have their turns.
    pub(super) prober: Prober,
    /// Cancelled once the driver writes its record no more.
    pub(super) recorded: CancellationToken,
}

impl Handle {
    fn view(&self) -> Arc<View> {
        self.views.borrow().clone()
    }

    /// The app's phase.
    pub fn phase(&self) -> Phase {
        self.picture(&self.view()).phase()
    }

    /// The app's part of `status`. The caller fills in the daemon's.
    pub fn status(&self) -> wire::Status {
        let view = self.view();
        let picture = self.picture(&view);
        let targets = picture.targets().map(|(member, state, error)| wire::TargetStatus {
            address: member.addr.to_string(),
            state,
            inflight: member.target.as_deref().map_or(0, Target::inflight),
            last_error: error.map(str::to_owned),
        });
        wire::Status {
            active_port: view.active_port,
            drain_until: view.drain_until.clone(),
            last_switch: view.last_switch.clone(),
            phase: picture.phase(),
            state_error: view.state_error.clone(),
            health: view.health.clone(),
            targets: targets.collect(),
            traffic: view.traffic,
            paused: view.paused.clone(),
            frozen: view.frozen.clone(),
            ..release::empty_status()
        }
    }

    /// How many targets get requests, and how many there should be.
    pub fn replicas(&self) -> wire::Replicas {
        let view = self.view();
        wire::Replicas { ready: self.picture(&view).ready().count(), wanted: view.listed.len() }
    }

    /// The targets as rows, each by its place among those that are known.
    pub fn members(&self) -> Vec<release::Member> {
        let view = self.view();
        let picture = self.picture(&view);
        let rows = (0..).zip(picture.targets()).map(|(replica, (member, state, _))| {
            let target = member.target.as_deref();
            ReplicaRow {
                app: view.config.name.clone(),
                release: None,
                role: if member.listed { ReplicaRole::Live } else { ReplicaRole::Draining },
                process: None,
                replica,
                state: match state {
                    TargetState::Starting => ReplicaState::Starting,
                    TargetState::Ready => ReplicaState::Ready,
                    TargetState::Ejected => ReplicaState::Ejected,
                    TargetState::Draining => ReplicaState::Draining,
                },
                address: Some(member.addr.to_string()),
                port: Some(member.addr.port()),
                pid: None,
                inflight: target.map_or(0, Target::inflight),
                tunnels: target.map_or(0, Target::tunnels),
                requests: target.map_or(0, Target::requests),
                restarts: 0,
                memory: None,
                started_at: None,
                last_exit: None,
            }
        });
        rows.map(|row| release::Member { row, process: None }).collect()
    }

    /// Whether the targets in force are those of the configuration.
    pub fn app_in_force(&self) -> wire::AppInForce {
        let view = self.view();
        let in_force = is_same(&view.listed, view.config.targets.as_deref().unwrap_or_default());
        wire::AppInForce { in_force, why: (!in_force).then(|| "switched".to_owned()) }
    }

    /// How the targets are, what the data plane knows of them included.
    fn picture<'a>(&self, view: &'a View) -> Picture<'a> {
        let is_marked = |target: &Target| target.is_out(&self.counters);
        Picture::of(view, |member| member.target.as_deref().is_some_and(is_marked))
    }

    /// Requests and tunnels in flight on all targets.
    pub fn inflight(&self) -> u64 {
        let view = self.view();
        view.members.iter().filter_map(|member| member.target.as_deref()).map(Target::inflight).sum()
    }

    /// The last probe of the target that [`Handle::status`] calls the active one.
    pub fn health(&self) -> wire::HealthMetrics {
        self.views.borrow().health.clone()
    }

    /// Probes every target that gets requests: healthy when one answers 2xx. Targets that are never
    /// probed count as healthy.
    pub async fn check_health(&self) -> wire::Health {
        let view = self.view();
        let ready: Vec<_> = self.picture(&view).ready().map(|member| (member.addr, member.probed)).collect();
        health_of(&self.prober, &view.config, &ready).await
    }

    /// Probes these ports of this host, and moves traffic there when all are healthy. A caller that
    /// goes away cancels nothing.
    ///
    /// # Errors
    /// `busy`, `health_failed`, `state_unwritable`, `shutting_down`; nothing has moved then.
    pub async fn switch(&self, ports: &[u16]) -> Result<wire::Switched, ErrorBody> {
        let (handle, ports) = (self.clone(), ports.to_vec());
        let switched = tokio::spawn(async move { handle.switch_to(ports).await }).await;
        switched.unwrap_or_else(|error| {
            Err(ErrorBody::new(Code::Internal, "Internal error", format!("the switch ended: {error}")))
        })
    }

    async fn switch_to(&self, mut ports: Vec<u16>) -> Result<wire::Switched, ErrorBody> {
        let Ok(_turn) = self.turn.try_acquire() else { return Err(busy()) };
        let mut seen = std::collections::BTreeSet::new();
        ports.retain(|port| seen.insert(*port));
        let view = self.view();
        let addrs: Vec<_> = ports.iter().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, *port))).collect();
        if is_same(&view.listed, &addrs) && view.serving().count() == addrs.len() {
            return Ok(wire::Switched::already(&ports, view.last_switch.clone()));
        }
        let successes = view.config.health.successes;
        let reports = ask_all(&self.prober, &view.config, &addrs, successes).await;
        if let Some((port, report)) = ports.iter().zip(reports).find(|(_, report)| !report.healthy) {
            let message = format!("Port {port} {}", Ask::of(&view.config, None).failed());
            let mut error = ErrorBody::new(Code::HealthFailed, "Health check failed", message);
            error.hint = report.said().map(|said| format!("the probe saw: {said}"));
            return Err(error);
        }
        let switch = self.ask(|asker| Message::Switch(addrs, asker)).await??;
        Ok(wire::Switched::to(&ports, Some(switch)))
    }

    /// Has an operator's order obeyed. Returns once it is kept over the daemon's end; that it
    /// cannot be kept is in the answer's message.
    ///
    /// # Errors
    /// `bad_request` (a pause that `hold.on` leaves out), `busy`, `no_such_app` (it is being
    /// removed), `shutting_down`.
    pub async fn order(&self, order: Order, said: Said) -> Result<wire::Ordered, ErrorBody> {
        self.ask(|asker| Message::Order(order, said, asker)).await?
    }

    /// Waits until every target was probed once, so that a daemon in front of healthy targets never
    /// answers 503 at its start.
    pub async fn first_probe(&self) {
        let mut views = self.views.clone();
        let _driver_gone = views.wait_for(|view| view.known).await;
    }

    /// Waits for the next snapshot. False when there will be none.
    pub async fn changed(&mut self) -> bool {
        self.views.changed().await.is_ok()
    }

    /// Waits until the driver has received a message that is sent now. Cancel safe.
    pub async fn beat(&self) {
        let _driver_gone = self.ask(Message::Beat).await;
    }

    /// Waits until the driver has said that it runs. Cancel safe.
    pub async fn pulse(&self) {
        let _driver_gone = self.ask(Message::Pulse).await;
    }

    /// Whether another daemon can take over now without a loss.
    ///
    /// # Errors
    /// `busy`: a switch is under way, or requests are held.
    pub async fn may_freeze(&self) -> Result<(), ErrorBody> {
        if self.turn.available_permits() == 0 {
            return Err(busy());
        }
        self.ask(Message::MayFreeze).await?
    }

    /// Makes the driver write its record and stand still until [`Handle::thaw`] or
    /// [`Handle::leave`]. With `interrupt` also where a switch is under way, which is refused then.
    ///
    /// # Errors
    /// `busy`, `state_unwritable`, `shutting_down`. Nothing has changed then.
    pub async fn freeze(&self, interrupt: bool) -> Result<(), ErrorBody> {
        if !interrupt {
            self.may_freeze().await?;
        }
        self.ask(|asker| Message::Freeze { interrupt, asker }).await?
    }

    /// Lets the driver go on as if it had never stood still.
    pub async fn thaw(&self) {
        self.tell(Message::Thaw).await;
    }

    /// Ends the driver and leaves everything as it is.
    pub async fn leave(&self) {
        let _driver_gone = self.ask(Message::Leave).await;
    }

    /// Waits for the driver's end.
    pub async fn ended(&self) {
        self.messages.closed().await;
    }

    /// Begins nothing new from now on.
    pub async fn shut_down(&self) {
        self.tell(Message::Shutdown).await;
    }

    /// Lets the app go, to which no route leads any more: sets its record aside, begins nothing
    /// new, and ends the driver once no request is in flight, after `drain.period` at the latest.
    /// Waits until it has begun. False where the driver has ended already, by a fault: its record
    /// may still be there.
    pub async fn remove(&self) -> bool {
        self.ask(Message::Remove).await.is_ok()
    }

    /// Cancelled once the driver writes its record no more: another one may have it then.
    pub fn recorded(&self) -> CancellationToken {
        self.recorded.clone()
    }

    /// Takes traffic away and ends the driver. Requests in flight go on; the programs that run the
    /// targets are not portok's to stop.
    pub async fn stop(&self) {
        let _driver_gone = self.ask(Message::Stop).await;
    }

    async fn tell(&self, message: Message) {
        // A driver that has ended needs to know nothing.
        let _driver_gone = self.messages.send(message).await;
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, ErrorBody> {
        let gone = || ErrorBody::new(Code::ShuttingDown, "Shutting down", "the daemon is going down");
        let (asker, answer) = oneshot::channel();
        self.messages.send(message(asker)).await.map_err(|_closed| gone())?;
        answer.await.map_err(|_dropped| gone())
    }
}

/// Probes all at a time, as far as there are places, each until one probe is bad or `times` were
/// good. The last report of each.
async fn ask_all(
    prober: &Prober,
    config: &AppConfig,
    addrs: &[SocketAddr],
    times: u32,
) -> Vec<wire::ProbeReport> {
    let ask = |addr: &SocketAddr| {
        let (prober, probe) = (prober.clone(), Probe::of(config, *addr, None));
        tokio::spawn(async move {
            let mut report = wire::ProbeReport::default();
            for _ in 0..times {
                report = prober.ask(&probe).await.unwrap_or_else(|unable| unable.report());
                if !report.healthy {
                    break;
                }
            }
            report
        })
    };
    let tasks: Vec<_> = addrs.iter().map(ask).collect();
    let mut reports = Vec::new();
    for task in tasks {
        reports.push(task.await.unwrap_or_default());
    }
    reports
}

/// How the targets are that get requests, each with whether it is probed: healthy when one is.
pub(in crate::apps) async fn health_of(
    prober: &Prober,
    config: &AppConfig,
    targets: &[(SocketAddr, bool)],
) -> wire::Health {
    let probed: Vec<_> = targets.iter().filter(|(_, probed)| *probed).map(|(addr, _)| *addr).collect();
    let mut reports = ask_all(prober, config, &probed, 1).await.into_iter();
    let reports = targets.iter().map(|(addr, probed)| {
        let report = if *probed { reports.next() } else { None };
        wire::ReplicaHealth::of(*addr, report.as_ref())
    });
    wire::Health::of(reports.collect())
}

/// Requests of `app` are held, which an upgrade would lose.
pub(super) fn held(app: &str, waiting: usize) -> ErrorBody {
    let what =
        if waiting == 1 { "a request is held".to_owned() } else { format!("{waiting} requests are held") };
    ErrorBody::new(Code::Busy, "Busy", format!("app `{app}`: {what}"))
        .with_hint("try again when it is over, or wait for it: portok upgrade --wait 10m")
}

pub(super) fn busy() -> ErrorBody {
    ErrorBody::new(Code::Busy, "Busy", "another switch is under way, or the daemon is being replaced")
}
