//! A call from its request to its answer.
//!
//! Every call is one of [`release::Handle`], the counters or the daemon; nothing is decided here.

use std::path::PathBuf;

use bytes::Bytes;
use http::{Response, StatusCode};
use std::time::Duration;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::super::answer;
use super::super::prometheus::{self, Exposition};
use super::super::routes::{Call, Follow, MetricsFormat};
use super::super::{ReloadOrder, UpgradeOrder};
use super::Admin;
use crate::config::Config;
use crate::proxy::{self, ReservedBody};
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
        call: Call,
        config: &Config,
    ) -> Result<Response<ReservedBody>, ErrorBody> {
        let app = &self.parts.app;
        Ok(match call {
            Call::Status => answer::json(StatusCode::OK, &self.status(config).await),
            Call::Metrics(MetricsFormat::Json) => answer::json(StatusCode::OK, &self.metrics(config)),
            Call::Metrics(MetricsFormat::Prometheus) => {
                let text = prometheus::write(&Exposition {
                    counters: &self.parts.counters.snapshot(),
                    health: &app.health(),
                    status: &self.status(config).await,
                    started_at: self.parts.started_at,
                });
                answer::whole(StatusCode::OK, prometheus::CONTENT_TYPE, text)
            }
            Call::Health => {
                let health = app.check_health().await;
                let status = if health.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                answer::json(status, &health)
            }
            Call::Switch(port) => answer::json(StatusCode::OK, &app.switch(port).await?),
            Call::Deploy { request, force, follow } => {
                self.follow(app.deploy(request, force).await?, follow).await?
            }
            Call::Cancel => answer::json(StatusCode::OK, &app.cancel().await?),
            Call::Rollback(asked, follow) => match app.rollback(asked).await? {
                release::Rollback::Plan(plan) => answer::json(StatusCode::OK, &plan),
                release::Rollback::Accepted(attempt) => self.follow(attempt, follow).await?,
            },
            Call::Releases => answer::json(StatusCode::OK, &app.releases()),
            Call::Logs { release, lines } => {
                answer::json(StatusCode::OK, &app.logs(release.as_deref(), lines)?)
            }
            Call::Reload { prune } => answer::json(StatusCode::OK, &self.reload(prune).await?),
            Call::Upgrade(binary) => answer::json(StatusCode::OK, &self.upgrade(binary).await?),
        })
    }

    /// Answers with as much of the attempt as the client waits for.
    async fn follow(
        &self,
        attempt: release::Attempt,
        follow: Follow,
    ) -> Result<Response<ReservedBody>, ErrorBody> {
        Ok(match follow {
            Follow::End => answer::json(StatusCode::OK, &attempt.finished().await?),
            Follow::Nothing => {
                if let Some(moved) = attempt.already_live() {
                    return Ok(answer::json(StatusCode::OK, &moved));
                }
                let release = attempt.release().to_owned();
                let place = attempt.directory().map(|place| format!(" in {place}")).unwrap_or_default();
                let message = format!("Release {release} is being deployed{place}");
                answer::json(StatusCode::ACCEPTED, &wire::Accepted { success: true, message, release })
            }
            Follow::Events => {
                let (lines, body) = mpsc::channel(EVENTS_AHEAD);
                self.tasks.spawn_on(pass_on(attempt, lines), &self.parts.control);
                answer::stream(body)
            }
        })
    }

    async fn status(&self, config: &Config) -> wire::Status {
        let status = self.parts.app.status_of_now().await;
        wire::Status {
            instance: config.name.clone(),
            config: wire::ConfigStatus {
                app_in_force: Some(self.parts.app.app_in_force()),
                ..self.parts.config_status.borrow().clone()
            },
            version: env!("CARGO_PKG_VERSION").to_owned(),
            listen: self.parts.listen.borrow().to_string(),
            pid: std::process::id(),
            ..status
        }
    }

    fn metrics(&self, config: &Config) -> wire::Metrics {
        let counters = self.parts.counters.snapshot();
        metrics(
            counters,
            self.parts.app.health(),
            wire::rfc3339(self.parts.started_at),
            config.app.upstream.debug,
        )
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

/// Passes the events of an attempt on until the attempt is finished or nobody listens. The attempt
/// goes on either way.
async fn pass_on(mut attempt: release::Attempt, lines: mpsc::Sender<Bytes>) {
    loop {
        let event = tokio::select! {
            event = attempt.next() => event,
            () = lines.closed() => None,
        };
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

/// The counters in the form of npm portok.
pub(super) fn metrics(
    counters: proxy::Snapshot,
    health: wire::HealthMetrics,
    started_at: String,
    debug: bool,
) -> wire::Metrics {
    // npm portok has four classes; upgrades (101) are in none of them.
    let classes = ["2xx", "3xx", "4xx", "5xx"].into_iter().zip(&counters.by_class[1..]);
    wire::Metrics {
        started_at,
        inflight: counters.inflight,
        inflight_max: counters.inflight_max,
        total_requests: counters.total_requests,
        total_proxy_errors: counters.total_proxy_errors,
        status_counters: classes.map(|(class, count)| (class.to_owned(), *count)).collect(),
        rolling_rps60: (counters.rolling_rps60 * 100.0).round() / 100.0,
        health,
        last_proxy_error: counters.last_error,
        upstream_sockets_created: debug.then_some(counters.upstream_sockets_created),
    }
}
