//! The coordinator as others see it: requests in, snapshots out.
//!
//! A handle is cheap to clone, and dropping it changes nothing. A request whose future is dropped
//! may be carried out all the same.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::changed;
use super::events::Attempt;
use super::message::{Message, OrderReply, PlannedRollback, RollbackReply, ScaleReply, SwitchReply};
use super::orders::Order;
use super::scale::Bounds;
use super::spec;
use super::tasks::report;
use super::view::{Member, MemberView, View, empty_status};
use crate::config::AppConfig;
use crate::health::Probe;
use crate::supervisor::Supervisor;
use crate::wire::{self, Code, ErrorBody, Reason, Said};

/// The answer to a request for a rollback.
#[derive(Debug)]
pub enum Rollback {
    /// What the rollback would do: the request was a dry run.
    Plan(wire::RollbackPlan),
    /// It is under way, or has nothing to do.
    Accepted(Attempt),
}

/// How long a status waits for another try to write a disk that could not be written.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

/// How long an order waits for the disk that keeps it.
const KEPT_WITHIN: Duration = Duration::from_secs(10);

/// How long after the start a request waits for the boot before it is refused. Mostly nothing is
/// left to be stopped, and the boot is over at once.
const BOOT_PATIENCE: Duration = Duration::from_secs(1);

/// The coordinator as the admin API and the daemon see it.
#[derive(Debug, Clone)]
pub struct Handle {
    requests: mpsc::Sender<Message>,
    views: watch::Receiver<Arc<View>>,
    config: watch::Receiver<Arc<AppConfig>>,
    supervisor: Arc<Supervisor>,
    first_probe: watch::Receiver<bool>,
    /// When a request does not wait for the boot any more.
    boot_patience_ends: Instant,
}

impl Handle {
    pub(super) fn new(
        requests: mpsc::Sender<Message>,
        views: watch::Receiver<Arc<View>>,
        config: watch::Receiver<Arc<AppConfig>>,
        supervisor: Arc<Supervisor>,
        first_probe: watch::Receiver<bool>,
    ) -> Self {
        let boot_patience_ends = Instant::now() + BOOT_PATIENCE;
        Self { requests, views, config, supervisor, first_probe, boot_patience_ends }
    }

    /// Starts a new release; with `force` also one that is live already, or in quarantine, and with
    /// a `strategy` by that instead of the configured one. Returns once the attempt is accepted and
    /// its intent is written down.
    ///
    /// # Errors `busy`, `quarantined`, `no_app`, `bad_request` (a known id with other content; an
    /// unusable directory, environment file or user; a strategy that the app cannot use),
    /// `state_unwritable`, `shutting_down`.
    pub async fn deploy(
        &self,
        request: wire::DeployRequest,
        strategy: Option<wire::DeployStrategy>,
        force: bool,
    ) -> Result<Attempt, ErrorBody> {
        let config = Arc::clone(&self.config.borrow());
        // It reads files, which must not block the control plane's thread.
        let prepared = tokio::task::spawn_blocking(move || spec::prepare(request, strategy, &config))
            .await
            .map_err(|error| ErrorBody::new(Code::Internal, "Internal error", error.to_string()))??;
        let mut attempt = self
            .ask_booted(|asker| {
                let prepared = Box::new(prepared);
                Message::Deploy { prepared, reason: Reason::Deploy, force, asker }
            })
            .await?;
        attempt.begun().await?;
        Ok(attempt)
    }

    /// Probes `ports` and moves traffic there, once all of them are healthy.
    ///
    /// # Errors
    /// `busy`, `health_failed`, `state_unwritable`, `shutting_down`.
    pub async fn switch(&self, ports: &[u16]) -> Result<wire::Switched, ErrorBody> {
        let asked = ports.to_vec();
        let answer =
            self.ask_booted(|asker| Message::Switch { ports: asked, reason: Reason::Manual, asker }).await?;
        Ok(match answer {
            SwitchReply::AlreadyLive(last) => wire::Switched::already(ports, last),
            SwitchReply::Accepted(attempt) => wire::Switched::to(ports, attempt.finished().await?.switch),
        })
    }

    /// Goes back to the previous release or to the named one. A dry run only returns what that
    /// would do.
    ///
    /// # Errors
    /// `no_previous`, `no_such_release`, `quarantined`, `busy` (before the boot), `shutting_down`.
    pub async fn rollback(&self, asked: wire::RollbackRequest) -> Result<Rollback, ErrorBody> {
        let planned = match self.ask_booted(|asker| Message::Rollback { asked, asker }).await? {
            RollbackReply::Accepted(attempt) => return Ok(Rollback::Accepted(attempt)),
            RollbackReply::Plan(planned) => planned,
        };
        let PlannedRollback { mut plan, directory } = *planned;
        if let Some((directory, run_last)) = directory {
            let look = move || changed::changed_since(&directory, run_last);
            plan.directory_changed = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        }
        Ok(Rollback::Plan(plan))
    }

    /// Ends the attempt under way, which has not moved traffic yet.
    ///
    /// # Errors
    /// `not_found` when nothing is under way.
    pub async fn cancel(&self) -> Result<wire::Accepted, ErrorBody> {
        self.ask(|asker| Message::Cancel { asker }).await
    }

    /// Has an operator's order obeyed. Returns once it is kept over the daemon's end; that it
    /// cannot be kept is in the answer's message.
    ///
    /// # Errors
    /// `bad_request` (a pause that `hold.on` leaves out), `busy` (before the boot),
    /// `shutting_down`.
    pub async fn order(&self, order: Order, said: Said) -> Result<wire::Ordered, ErrorBody> {
        let OrderReply { mut ordered, kept } =
            self.ask_booted(|asker| Message::Order { order, said, asker }).await?;
        // A disk that does not answer is reported as it is known to be.
        let _late = tokio::time::timeout(KEPT_WITHIN, kept).await;
        if let Some(error) = self.status().state_error {
            ordered.message.push_str(&format!("; it is not kept over a restart: {error}"));
        }
        Ok(ordered)
    }

    /// Who is still with what traffic has left; with a change of when that ends, as of then.
    ///
    /// # Errors
    /// `not_found` for a change where nothing drains, `busy` (before the boot).
    pub async fn drains(&self, asked: wire::DrainRequest) -> Result<wire::Drain, ErrorBody> {
        self.ask_booted(|asker| Message::Drains { asked, asker }).await
    }

    /// Has so many replicas from now on, or from the end of the deploy under way. Returns once that
    /// is kept over the daemon's end; that it cannot be kept is the answer's warning.
    ///
    /// # Errors
    /// `bad_request` for a number that the app cannot have, `busy` (before the boot),
    /// `shutting_down`.
    pub async fn scale(&self, bounds: Bounds, said: Said) -> Result<wire::Scaled, ErrorBody> {
        let ScaleReply { scaled, kept } =
            self.ask_booted(|asker| Message::Scale { bounds, said, asker }).await?;
        // As of an order.
        let _late = tokio::time::timeout(KEPT_WITHIN, kept).await;
        let error = self.status().state_error;
        let warning = error.map(|error| format!("it is not kept over a restart: {error}"));
        Ok(wire::Scaled { warning, ..scaled })
    }

    /// Whether an edit of `[app]` waits for its deploy.
    pub fn has_pending_edit(&self) -> bool {
        self.views.borrow().edit_pending
    }

    /// As [`Handle::status`], after another try where the state could not be written: a disk that
    /// is free again is not reported as full.
    pub async fn status_of_now(&self) -> wire::Status {
        if self.status().state_error.is_some() {
            // A disk that does not answer in time is reported as it was.
            let _late = tokio::time::timeout(LOOK_WITHIN, self.until_done(Message::LookAtDisk)).await;
        }
        self.status()
    }

    /// The coordinator's part of `status`. The caller fills in `config`, `listen`, `version` and
    /// `pid`.
    pub fn status(&self) -> wire::Status {
        let view = Arc::clone(&self.views.borrow());
        let mut status = view.status.clone().unwrap_or_else(empty_status);
        for (part, requests) in [
            (&mut status.live, &view.live),
            (&mut status.candidate, &view.candidate),
            (&mut status.previous, &view.previous),
        ] {
            if let Some(part) = part {
                part.inflight = requests.count();
            }
        }
        status
    }

    /// The app's name.
    pub fn name(&self) -> String {
        self.config.borrow().name.clone()
    }

    /// Requests in flight on all targets, those of replicas that leave included.
    pub fn in_flight(&self) -> u64 {
        self.views.borrow().members.iter().map(|member| member.requests.count()).sum()
    }

    /// The phase of the app.
    pub fn phase(&self) -> wire::Phase {
        self.views.borrow().status.as_ref().map_or(wire::Phase::Empty, |status| status.phase)
    }

    /// Whether the live release is what `[app]` says.
    pub fn app_in_force(&self) -> wire::AppInForce {
        self.views.borrow().app_in_force.clone()
    }

    /// All attempts, newest first.
    pub fn releases(&self) -> Vec<wire::ReleaseRow> {
        self.views.borrow().releases.to_vec()
    }

    /// The replicas of all sets as they are now.
    pub fn members(&self) -> Vec<Member> {
        let view = Arc::clone(&self.views.borrow());
        let serves = |row: &wire::ReplicaRow| {
            row.role == wire::ReplicaRole::Live && row.state == wire::ReplicaState::Ready
        };
        // Where requests to all of them failed, they get requests all the same.
        let one_is_in =
            view.members.iter().any(|MemberView { row, requests, .. }| serves(row) && !requests.is_out());
        let member = |MemberView { row, requests, process }: &MemberView| {
            let is_out = one_is_in && serves(row) && requests.is_out();
            let row = wire::ReplicaRow {
                state: if is_out { wire::ReplicaState::Ejected } else { row.state },
                inflight: requests.count(),
                tunnels: requests.tunnels(),
                requests: requests.requests(),
                ..row.clone()
            };
            Member { row, process: process.clone() }
        };
        view.members.iter().map(member).collect()
    }

    /// The last lines of output, of those that are asked for.
    ///
    /// # Errors
    /// `not_found` for an unknown release.
    pub fn logs(&self, asked: &wire::LogsRequest) -> Result<wire::Logs, ErrorBody> {
        if let Some(id) = &asked.release
            && !self.views.borrow().releases.iter().any(|row| row.release == *id)
        {
            return Err(ErrorBody::new(Code::NotFound, "Not found", format!("release `{id}` is not known"))
                .with_hint("portok releases shows those that are"));
        }
        let lines = self.supervisor.logs(asked);
        if lines.is_empty()
            && let Some(unknown) = self.unknown_printer(asked)
        {
            return Err(ErrorBody::new(Code::NotFound, "Not found", unknown)
                .with_hint("portok ps shows the processes that run"));
        }
        Ok(wire::Logs { release: asked.release.clone(), lines })
    }

    /// Why there are no lines, where the app has no such process.
    fn unknown_printer(&self, asked: &wire::LogsRequest) -> Option<String> {
        let (config, view) = (self.config.borrow(), self.views.borrow());
        let companions = &config.app.processes;
        let process = asked.process.as_deref();
        let fits = |name: &str| process.is_none_or(|process| process == name);
        let runs = |row: &wire::ReplicaRow| fits(row.process.as_deref().unwrap_or(wire::WEB));
        let configured = companions.iter().map(|(name, companion)| (&**name, companion.replicas));
        let configured = configured.chain([(wire::WEB, config.app.replicas.max)]);
        let mut configured = configured.filter(|(name, _)| fits(name));
        let mut rows = view.members.iter().map(|member| &member.row).filter(|row| runs(row));
        match (process, asked.replica) {
            (Some(step), _) if wire::is_step(step) => None,
            (Some(process), None) => {
                let known = configured.next().is_some() || rows.next().is_some();
                (!known).then(|| format!("there is no process `{process}`"))
            }
            (_, Some(replica)) => {
                let known = configured.any(|(_, most)| replica < most);
                let known = known || rows.any(|row| row.replica == replica);
                let of = process.map(|process| format!(" of `{process}`")).unwrap_or_default();
                (!known).then(|| format!("there is no replica {replica}{of}"))
            }
            (None, None) => None,
        }
    }

    /// The last probe of the live target.
    pub fn health(&self) -> wire::HealthMetrics {
        self.views.borrow().health.clone()
    }

    /// Probes the live release now: of several replicas each one that is ready.
    pub async fn check_health(&self) -> wire::Health {
        if self.phase() == wire::Phase::Idle {
            return wire::Health::idle();
        }
        let probes = self.views.borrow().probes.clone();
        let ask = async |probe: Probe| {
            let report = probe.ask().await.unwrap_or_else(|unable| unable.report());
            let error = report.error.clone().or_else(|| {
                let status = report.status.filter(|_| !report.healthy)?;
                Some(format!("status {status} is not 2xx"))
            });
            wire::ReplicaHealth { error, ..wire::ReplicaHealth::of(probe.addr, Some(&report)) }
        };
        let replicas = join_all(probes.into_iter().map(ask)).await;
        let several = replicas.len() > 1;
        let health = wire::Health::of(replicas);
        wire::Health { replicas: health.replicas.filter(|_| several), ..health }
    }

    /// Waits until an unmanaged app has been probed for the first time, so that a daemon in front
    /// of a healthy app never answers 503 at its start. At once where there is nothing to wait for.
    pub async fn first_probe(&self) {
        let mut asked = self.first_probe.clone();
        let _coordinator_gone = asked.wait_for(|asked| *asked).await;
    }

    /// Waits until the boot is over: the leftovers of an earlier daemon are gone, and the release
    /// that was live is being made live again. At once when the coordinator has ended.
    pub async fn booted(&self) {
        let mut views = self.views.clone();
        let _coordinator_gone = views.wait_for(|view| view.booted).await;
    }

    /// Waits for the next snapshot. False when there will be none.
    pub async fn changed(&mut self) -> bool {
        self.views.changed().await.is_ok()
    }

    /// Waits until the coordinator has received a message that is sent now. At once when it has
    /// ended. Cancel safe.
    pub async fn beat(&self) {
        self.until_done(Message::Beat).await;
    }

    /// Whether another daemon can take over now without a loss, so that none is started in vain.
    /// The answer may have changed by the time of [`Handle::freeze`].
    ///
    /// # Errors
    /// `busy`: an attempt is under way, or requests wait for a crashed app. `shutting_down`.
    pub async fn may_freeze(&self) -> Result<(), ErrorBody> {
        self.ask(|asker| Message::MayFreeze { asker }).await
    }

    /// Makes the coordinator write its record and stand still: nothing is begun, started, probed,
    /// drained or stopped until [`Handle::thaw`] or [`Handle::leave`]. With `interrupt` also where
    /// an attempt is under way or requests wait.
    ///
    /// # Errors
    /// `busy` as [`Handle::may_freeze`], `state_unwritable`, `shutting_down`. Nothing has changed
    /// then.
    pub async fn freeze(&self, interrupt: bool) -> Result<(), ErrorBody> {
        self.ask(|asker| Message::Freeze { interrupt, asker }).await
    }

    /// Lets the coordinator go on as if it had never stood still.
    pub async fn thaw(&self) {
        report(&self.requests, Message::Thaw).await;
    }

    /// Ends the coordinator and leaves all processes as they are. The record that
    /// [`Handle::freeze`] wrote is its last one. A `successor` gets the requests that would have to
    /// wait here.
    pub async fn leave(&self, successor: Option<SocketAddr>) {
        let _none = self.until_done(|done| Message::Leave { successor, done }).await;
    }

    /// Waits for the coordinator's end, which only the daemon's own end should bring.
    pub async fn ended(&self) {
        self.requests.closed().await;
    }

    /// Begins nothing new from now on, and gives up the attempt under way.
    pub async fn shut_down(&self) {
        report(&self.requests, Message::Shutdown).await;
    }

    /// Stops every run, and waits until nothing is left and the last record is written. Gives back
    /// how each process ended.
    pub async fn stop_all(&self) -> Vec<wire::Ended> {
        self.until_done(|done| Message::StopAll { done }).await
    }

    /// Sends SIGKILL to what [`Handle::stop_all`] is still stopping.
    pub async fn kill_all(&self) {
        report(&self.requests, Message::Kill).await;
    }

    async fn until_done<T: Default>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> T {
        let (done, waited) = oneshot::channel();
        match self.requests.send(message(done)).await {
            Ok(()) => waited.await.unwrap_or_default(),
            Err(_coordinator_gone) => T::default(),
        }
    }

    /// As [`Handle::ask`], after the boot where that is over soon: nothing can be started before.
    async fn ask_booted<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<Result<T, ErrorBody>>) -> Message,
    ) -> Result<T, ErrorBody> {
        // Then it is refused.
        let _late = tokio::time::timeout_at(self.boot_patience_ends, self.booted()).await;
        self.ask(message).await
    }

    async fn ask<T>(
        &self,
        message: impl FnOnce(oneshot::Sender<Result<T, ErrorBody>>) -> Message,
    ) -> Result<T, ErrorBody> {
        let gone = || ErrorBody::new(Code::ShuttingDown, "Shutting down", "the daemon is going down");
        let (asker, answer) = oneshot::channel();
        self.requests.send(message(asker)).await.map_err(|_closed| gone())?;
        answer.await.map_err(|_dropped| gone())?
    }
}
