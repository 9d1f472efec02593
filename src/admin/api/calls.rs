//! A call from its request to its answer.
//!
//! Every call is one of an [`App`], the counters or the daemon; nothing is decided here.

use std::path::PathBuf;

use bytes::Bytes;
use http::{Response, StatusCode};
use std::time::Duration;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::super::answer::{self, Refusal};
use super::super::routes::{AppCall, Asked, Call, Follow};
use super::super::{Peer, ReloadOrder, ShutdownOrder, UpgradeOrder, request, rows, said, troubles};
use super::{Admin, Caller};
use crate::apps::App;
use crate::config::{AppRoutes, Config};
use crate::proxy::ReservedBody;
use crate::release;
use crate::wire::{self, Code, ErrorBody};

/// How long a reload may take: it reads one file and binds at most one address.
const RELOAD_WITHIN: Duration = Duration::from_secs(60);

/// Events of a stream that wait for a slow client; more wait at the coordinator.
const EVENTS_AHEAD: usize = 16;

impl Admin {
    /// Makes the call and writes its outcome.
    pub(super) async fn perform(
        &self,
        asked: Asked,
        caller: &Caller<'_>,
        config: &Config,
    ) -> Result<Response<ReservedBody>, Refusal> {
        let name = asked.app.as_deref();
        // A call that needs no app finds the one that it names.
        let named = name.map(|name| self.parts.apps.find(Some(name))).transpose()?;
        Ok(match asked.call {
            Call::Apps => {
                let apps = named.map_or_else(|| self.parts.apps.list(), |app| vec![app]);
                answer::json(StatusCode::OK, &apps.iter().map(rows::row).collect::<Vec<_>>())
            }
            Call::Replicas => answer::json(StatusCode::OK, &self.parts.apps.replicas(named).await?),
            Call::Certificates => {
                let mut rows = self.parts.certificates.rows();
                rows.retain(|row| named.as_ref().is_none_or(|app| row.app.as_deref() == Some(app.name())));
                answer::json(StatusCode::OK, &rows)
            }
            Call::Metrics(format) => self.numbers(named, format, config).await,
            Call::Reload { prune } => answer::json(StatusCode::OK, &self.reload(prune).await?),
            Call::Shutdown => answer::json(StatusCode::OK, &self.shut_down(caller.peer).await?),
            Call::Upgrade(binary) => answer::json(StatusCode::OK, &self.upgrade(binary).await?),
            Call::Of(AppCall::Status) if named.is_none() && self.parts.apps.are_none() => {
                let of_none = self.of_instance(None, release::empty_status(), config);
                answer::json(StatusCode::OK, &of_none)
            }
            Call::Of(call) => {
                let app = named.map_or_else(|| self.parts.apps.find(None), Ok)?;
                self.perform_of(&app, call, caller, config).await?
            }
        })
    }

    /// Makes a call of one app.
    async fn perform_of(
        &self,
        app: &App,
        call: AppCall,
        caller: &Caller<'_>,
        config: &Config,
    ) -> Result<Response<ReservedBody>, Refusal> {
        Ok(match call {
            AppCall::Status => answer::json(StatusCode::OK, &self.status(app, config).await),
            AppCall::Health => {
                let health = app.check_health().await;
                let status = if health.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                answer::json(status, &health)
            }
            AppCall::Switch(ports) => answer::json(StatusCode::OK, &app.switch(&ports).await?),
            AppCall::Deploy { mut request, strategy, force, follow } => {
                if matches!(caller.peer, Peer::Unix { .. }) && app.config().app.directory.is_none() {
                    request::run_where_the_caller_is(&mut request, caller.headers)?;
                }
                let warning = self.warning(app);
                self.follow(app.deploy(request, strategy, force).await?, follow, warning).await?
            }
            AppCall::Cancel => answer::json(StatusCode::OK, &app.cancel().await?),
            AppCall::Rollback(asked, follow) => match app.rollback(asked).await? {
                release::Rollback::Plan(plan) => answer::json(StatusCode::OK, &plan),
                release::Rollback::Accepted(attempt) => self.follow(attempt, follow, None).await?,
            },
            AppCall::Order(order, said) => {
                let said = said::by_somebody(said, caller.peer).await;
                answer::json(StatusCode::OK, &app.order(order, said).await?)
            }
            AppCall::Scale(bounds, said) => {
                let said = said::by_somebody(said, caller.peer).await;
                answer::json(StatusCode::OK, &app.scale(bounds, said).await?)
            }
            AppCall::Drains(asked) => answer::json(StatusCode::OK, &app.drains(asked).await?),
            AppCall::Releases => answer::json(StatusCode::OK, &app.releases()),
            AppCall::Logs(asked) => answer::json(StatusCode::OK, &app.logs(&asked)?),
        })
    }

    /// Answers with as much of the attempt as the client waits for, and with the `warning`.
    async fn follow(
        &self,
        attempt: release::Attempt,
        follow: Follow,
        warning: Option<String>,
    ) -> Result<Response<ReservedBody>, ErrorBody> {
        Ok(match follow {
            Follow::End => {
                let moved = attempt.finished().await?;
                answer::json(StatusCode::OK, &wire::Moved { warning, ..moved })
            }
            Follow::Nothing => {
                if let Some(moved) = attempt.already_live() {
                    let moved = wire::Moved { warning, ..moved };
                    return Ok(answer::json(StatusCode::OK, &moved));
                }
                let release = attempt.release().to_owned();
                let place = attempt.directory().map(|place| format!(" in {place}")).unwrap_or_default();
                let message = format!("Release {release} is being deployed{place}");
                let accepted = wire::Accepted { success: true, message, release, warning };
                answer::json(StatusCode::ACCEPTED, &accepted)
            }
            Follow::Events => {
                let (lines, body) = mpsc::channel(EVENTS_AHEAD);
                self.tasks.spawn_on(pass_on(attempt, warning, lines), &self.parts.control);
                answer::stream(body)
            }
        })
    }

    /// The status of an app, with what is the daemon's own in it.
    pub(super) async fn status(&self, app: &App, config: &Config) -> wire::Status {
        let of_now = app.status_of_now().await;
        self.of_instance(Some(app), of_now, config)
    }

    /// `status` of an app, or of none, with what is the daemon's own in it.
    fn of_instance(&self, app: Option<&App>, status: wire::Status, config: &Config) -> wire::Status {
        let wire::InstanceStatus { name, version, pid, listen, config, redis } = self.instance(config);
        let one_of_several = app.filter(|_| self.parts.apps.has_several());
        wire::Status {
            instance: name,
            app: one_of_several.map(|app| app.name().to_owned()),
            config: wire::ConfigStatus {
                file: one_of_several.and_then(App::file).or(config.file),
                app_in_force: app.map(App::app_in_force),
                pending: app.is_some_and(App::has_pending_edit),
                error: app.and_then(App::error).map(str::to_owned).or(config.error),
                ..config
            },
            version,
            listen: match one_of_several {
                Some(app) => addresses(app.routes(), listen),
                None => listen,
            },
            pid,
            redis,
            ..status
        }
    }

    /// What is the daemon's own in every status.
    pub(super) fn instance(&self, config: &Config) -> wire::InstanceStatus {
        wire::InstanceStatus {
            name: config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            listen: self.parts.listen.borrow()[0].to_string(),
            config: self.parts.config_status.borrow().clone(),
            redis: self.parts.apps.redis(),
        }
    }

    /// What whoever deploys `app` should know.
    fn warning(&self, app: &App) -> Option<String> {
        let config = self.parts.config_status.borrow().clone();
        let file = app.file().filter(|_| self.parts.apps.has_several() && app.stale().is_some());
        troubles::of_deploy(app.stale(), &wire::ConfigStatus { file: file.or(config.file), ..config })
    }

    async fn upgrade(&self, binary: Option<PathBuf>) -> Result<wire::Upgraded, ErrorBody> {
        let (reply, outcome) = oneshot::channel();
        let gone = || {
            ErrorBody::new(
                Code::ShuttingDown,
                "Shutting down",
                "no other daemon was started: this one is ending",
            )
        };
        self.parts.upgrade.try_send(UpgradeOrder { binary, reply }).map_err(|error| match error {
            TrySendError::Full(_) => ErrorBody::new(Code::Busy, "Busy", "another upgrade is under way"),
            TrySendError::Closed(_) => gone(),
        })?;
        // Every step of an upgrade has a deadline of its own.
        outcome.await.map_err(|_dropped| gone())?
    }

    /// Ends the daemon, and waits until nothing of its apps is left.
    async fn shut_down(&self, peer: &Peer) -> Result<Vec<wire::Ended>, ErrorBody> {
        let (reply, outcome) = oneshot::channel();
        let ending = || ErrorBody::new(Code::ShuttingDown, "Shutting down", "the daemon is ending already");
        let order = ShutdownOrder { over_tcp: matches!(peer, Peer::Tcp { .. }), reply };
        self.parts.shutdown.try_send(order).map_err(|_under_way| ending())?;
        // Every step of the end has a deadline of its own.
        outcome.await.map_err(|_dropped| ending())?
    }

    async fn reload(&self, prune: bool) -> Result<wire::Reloaded, ErrorBody> {
        let (reply, outcome) = oneshot::channel();
        let asked = async {
            self.parts.reload.send(ReloadOrder { prune, reply }).await.ok()?;
            outcome.await.ok()
        };
        match timeout(RELOAD_WITHIN, asked).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => Err(ErrorBody::new(
                Code::ShuttingDown,
                "Shutting down",
                "the configuration was not loaded again: the daemon is going down",
            )),
            Err(_) => Err(ErrorBody::new(
                Code::Internal,
                "Internal error",
                format!("the reload did not end within {} s", RELOAD_WITHIN.as_secs()),
            )
            .with_hint("`portok status` shows the configuration in force once it has ended")),
        }
    }
}

/// Where an app of several answers: at the instance's address if it has hosts, and at its own.
fn addresses(routes: &AppRoutes, instances: String) -> String {
    let own = routes.listen.iter().map(ToString::to_string);
    let shared = (!routes.hosts.is_empty() || routes.listen.is_empty()).then_some(instances);
    shared.into_iter().chain(own).collect::<Vec<_>>().join(", ")
}

/// Passes the events of an attempt on, the first with the `warning`, until the attempt is finished
/// or nobody listens. The attempt goes on either way.
async fn pass_on(mut attempt: release::Attempt, mut warning: Option<String>, lines: mpsc::Sender<Bytes>) {
    loop {
        let mut event = tokio::select! {
            event = attempt.next() => event,
            () = lines.closed() => None,
        };
        // The first event says it before anything has happened.
        if let Some(event) = &mut event {
            event.warning = warning.take();
        }
        let Some(line) = event.as_ref().and_then(line) else { return };
        if lines.send(line).await.is_err() {
            return;
        }
    }
}

/// One line of the stream.
fn line(event: &wire::StreamEvent) -> Option<Bytes> {
    match serde_json::to_vec(event) {
        Ok(mut line) => {
            line.push(b'\n');
            Some(line.into())
        }
        Err(cause) => {
            tracing::error!(%cause, "an event cannot be written as JSON");
            None
        }
    }
}
