//! How the coordinator begins: leftovers, the record, `[app]`; and what an edit of `[app]` brings later.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};

use super::coordinator::{Coordinator, refused};
use super::message::Message;
use super::spec;
use super::state::{Event, Origin, Refusal, ReleaseRef};
use crate::config::{AppChange, StopSignal, app_change, app_fingerprint};
use crate::supervisor::Identity;
use crate::wire::{self, Code, ErrorBody, Reason};

/// How long a request waits for leftovers to be gone before it is refused.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many requests may wait so.
const EARLY: usize = 16;

impl Coordinator {
    /// Stops what an earlier daemon left running, before anything is started.
    pub(super) fn stop_leftovers(&mut self) {
        let identities = self.leftovers();
        let app = self.config.borrow().app.clone();
        let (supervisor, reports) = (Arc::clone(&self.supervisor), self.reports.clone());
        self.tasks.spawn(async move {
            supervisor.stop_leftovers(&identities, app.stop_signal, app.stop_timeout).await;
            let _coordinator_gone = reports.send(Message::LeftoversGone).await;
        });
    }

    /// What is asked while leftovers are looked for and stopped: nothing is known to be live yet, and nothing may be
    /// started. It waits a moment, since mostly there is nothing to stop; then it is refused. Gives back what means
    /// the same as later.
    pub(super) fn receive_before_boot(&mut self, message: Message) -> Option<Message> {
        let asks =
            matches!(message, Message::Deploy { .. } | Message::Rollback { .. } | Message::Switch { .. });
        match message {
            message if asks => {
                let waits = self.began.elapsed() < PATIENCE && self.early.len() < EARLY;
                if waits && self.state.phase() != wire::Phase::Stopping {
                    self.early.push(message);
                } else {
                    self.refuse_early(message);
                }
            }
            Message::StopAll { done } => self.stopped = Some(done),
            Message::Kill => self.kill_leftovers(),
            other => return Some(other),
        }
        None
    }

    /// When those who wait for the start have waited long enough.
    pub(super) fn patience_ends(&self) -> Option<Instant> {
        (!self.early.is_empty()).then(|| self.began + PATIENCE)
    }

    pub(super) fn lose_patience(&mut self) {
        for message in std::mem::take(&mut self.early) {
            self.refuse_early(message);
        }
    }

    fn refuse_early(&self, message: Message) {
        let stopping = self.state.phase() == wire::Phase::Stopping;
        let refusal = refused(if stopping { &Refusal::ShuttingDown } else { &Refusal::Booting });
        match message {
            Message::Deploy { reply, .. } | Message::Rollback { reply } => {
                let _asker_gone = reply.send(Err(refusal));
            }
            Message::Switch { reply, .. } => {
                let _asker_gone = reply.send(Err(refusal));
            }
            _ => {}
        }
    }

    /// Those who are in a hurry do not wait for the ladder.
    fn kill_leftovers(&mut self) {
        const KILL: StopSignal = StopSignal { number: 9, name: "SIGKILL" };
        let identities = self.leftovers();
        let supervisor = Arc::clone(&self.supervisor);
        self.tasks.spawn(async move {
            supervisor.stop_leftovers(&identities, KILL, Duration::ZERO).await;
        });
    }

    /// Begins; or ends, where that was asked for meanwhile: then the record stays as it was found.
    pub(super) fn leftovers_gone(&mut self) {
        if self.state.phase() == wire::Phase::Stopping {
            self.lose_patience();
            self.finished = true;
            return;
        }
        self.boot();
        for message in std::mem::take(&mut self.early) {
            self.receive(message);
        }
    }

    fn leftovers(&self) -> Vec<Identity> {
        self.found.iter().flat_map(|record| &record.runs).map(|run| run.identity.clone()).collect()
    }

    fn boot(&mut self) {
        let record = self.found.take().filter(|_| !self.fresh).unwrap_or_default();
        if let Some(intent) = &record.intent {
            self.history.update(&intent.release.id, |row| {
                if row.outcome.is_none() {
                    row.outcome = Some(wire::Outcome::Interrupted);
                    row.reason = Some("the daemon ended while it was under way".into());
                }
            });
        }
        let known = |release: &ReleaseRef| {
            release.origin != Origin::Managed
                || self.history.get(&release.id).is_some_and(|entry| entry.spec.is_some())
        };
        let previous = record.previous.filter(known);
        let mut live = record.live.filter(known);
        let app = self.config.borrow().app.clone();
        if live.is_none()
            && let Some(port) = app.target
        {
            let release = spec::unmanaged(port);
            self.history.begin(&release.id, None, &[]);
            self.app_attempted = Some(app_fingerprint(&app));
            live = Some(release);
        }
        // What is recorded is started first; an edit that was made meanwhile is deployed over it. Nothing live and a
        // command: that is the first deploy, or another try of one that failed.
        self.app_edited = match app_change(self.app_attempted.as_deref(), &app) {
            AppChange::Redeploy => true,
            // A recorded port wins over the configured one, now and at the next reload of something else.
            AppChange::Switch(_) => {
                self.app_attempted = Some(app_fingerprint(&app));
                false
            }
            AppChange::None => live.is_none() && app.command.is_some(),
        };
        self.step(Event::Boot { live, previous });
        if !self.awaits_first_probe() {
            self.first_probe.send_replace(true);
        }
    }

    /// Whether `[app]` is to be deployed, as it is configured now.
    pub(super) fn look_at_app(&mut self) {
        let app = &self.config.borrow_and_update().app;
        self.app_edited = app_change(self.app_attempted.as_deref(), app) != AppChange::None;
    }

    /// Deploys an edited `[app]` as soon as nothing else is under way.
    pub(super) fn deploy_edited_app(&mut self) {
        let stopping = self.state.phase() == wire::Phase::Stopping;
        if !self.app_edited || stopping || self.state.task.is_some() || self.found.is_some() {
            return;
        }
        self.app_edited = false;
        let config = Arc::clone(&self.config.borrow());
        let reports = self.reports.clone();
        self.app_attempted = Some(app_fingerprint(&config.app));
        if let Some(port) = config.app.target {
            let (reply, mut answer) = oneshot::channel();
            self.receive(Message::Switch { port, reason: Reason::Config, reply });
            if let Ok(Err(error)) = answer.try_recv() {
                tracing::error!("cannot switch to the edited app.target: {}", error.message);
                self.last_failure = Some(error.message);
            }
            return;
        }
        let (reply, _nobody_waits) = oneshot::channel();
        self.tasks.spawn(async move {
            let prepared =
                tokio::task::spawn_blocking(move || spec::prepare(wire::DeployRequest::default(), &config))
                    .await;
            let message = match prepared {
                Ok(Ok(prepared)) => {
                    Message::Deploy { prepared: Box::new(prepared), reason: Reason::Config, reply }
                }
                Ok(Err(error)) => Message::ConfigNotPrepared { error: Box::new(error) },
                Err(error) => {
                    let error = ErrorBody::new(Code::Internal, "Internal error", error.to_string());
                    Message::ConfigNotPrepared { error: Box::new(error) }
                }
            };
            let _coordinator_gone = reports.send(message).await;
        });
    }
}
