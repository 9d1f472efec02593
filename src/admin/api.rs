//! One request from its head to its answer: admission, route, body, call.
//!
//! [`Admin`] owns the limiters and tracks the tasks that answer. The head is judged as a whole before a byte of
//! the body is asked for ([`examine`]).

use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::answer::{self, Refusal};
use super::browser::{self, Surface};
use super::prometheus::{self, Exposition};
use super::rate::Limits;
use super::request::{self, bad};
use super::routes::{self, Call, Follow, MetricsFormat, Route};
use super::{Parts, Peer, UpgradeOrder, auth};
use crate::config::Config;
use crate::proxy::{self, ReservedBody};
use crate::release;
use crate::wire::{self, Code, ErrorBody};

/// How long a request's body may take.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// How much of a body that is too long is read and thrown away, in bytes: a client that is still sending when its
/// connection is closed may never see the answer.
const DISCARDED: usize = 8 * request::MAX_BODY;
/// How long a reload may take: it reads one file and binds at most one address.
const RELOAD_WITHIN: Duration = Duration::from_secs(60);
/// Events of a stream that wait for a slow client; more wait at the coordinator.
const EVENTS_AHEAD: usize = 16;

/// The admin API of one daemon.
#[derive(Debug)]
pub struct Admin {
    parts: Parts,
    limits: Mutex<Limits>,
    own_uid: u32,
    tasks: TaskTracker,
}

impl Admin {
    /// An admin API over `parts`. Nothing runs until a request comes.
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            limits: Mutex::default(),
            own_uid: nix::unistd::geteuid().as_raw(),
            tasks: TaskTracker::new(),
        })
    }

    /// Answers one request of `peer`. Never fails: what goes wrong is in the answer.
    ///
    /// Dropping the future before it is done may lose a call that was not made yet; [`Admin::spawn`] does not.
    pub async fn answer(&self, peer: Peer, request: Request<Incoming>) -> Response<ReservedBody> {
        let (head, body) = request.into_parts();
        let response =
            self.respond(&peer, &head, body).await.unwrap_or_else(|refusal| refusal.into_response());
        if head.method == Method::HEAD { answer::without_body(response) } else { response }
    }

    /// Answers one request in a task of the control plane, which goes on when nobody waits for it any more.
    pub(super) fn spawn(
        self: &Arc<Self>,
        peer: Peer,
        request: Request<Incoming>,
    ) -> JoinHandle<Response<ReservedBody>> {
        let admin = Arc::clone(self);
        self.tasks.spawn_on(async move { admin.answer(peer, request).await }, &self.parts.control)
    }

    /// Waits until every request that was accepted is answered. Call it once nothing accepts any more; the
    /// caller has the deadline.
    pub async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.parts.config.borrow())
    }

    /// The daemon's own user.
    pub(super) fn own_uid(&self) -> u32 {
        self.own_uid
    }

    fn surface(&self, peer: &Peer) -> Surface {
        match peer {
            Peer::Unix { .. } => Surface::Socket,
            Peer::Tcp(_) if self.parts.listen.borrow().ip().to_canonical().is_loopback() => Surface::Loopback,
            Peer::Tcp(_) => Surface::Open,
        }
    }

    async fn respond(
        &self,
        peer: &Peer,
        head: &http::request::Parts,
        body: Incoming,
    ) -> Result<Response<ReservedBody>, Refusal> {
        let config = self.config();
        let surface = self.surface(peer);
        let route =
            examine((peer, surface), head, &config.admin, self.own_uid, &self.limits, Instant::now())?;
        let body = if route.acts() { read(body).await? } else { Bytes::new() };
        let listen = self.parts.listen.borrow().port();
        let mut call = routes::call(route, head.uri.query(), &head.headers, &body, listen)?;
        if let (Call::Deploy { request: deploy, .. }, Peer::Unix { .. }) = (&mut call, peer)
            && config.app.app.directory.is_none()
        {
            request::run_where_the_caller_is(deploy, &head.headers)?;
        }
        if matches!((&call, peer), (Call::Upgrade(Some(_)), Peer::Tcp(_))) {
            return Err(ErrorBody::new(
                Code::Forbidden,
                "Forbidden",
                "another program than the daemon's own is accepted over the unix socket only",
            )
            .into());
        }
        if route.acts() {
            tracing::info!(%peer, request = head.uri.path(), "admin request");
        }
        Ok(self.perform(call, &config).await?)
    }

    async fn perform(&self, call: Call, config: &Config) -> Result<Response<ReservedBody>, ErrorBody> {
        let app = &self.parts.app;
        Ok(match call {
            Call::Status => answer::json(StatusCode::OK, &self.status(config).await),
            Call::Metrics(MetricsFormat::Json) => answer::json(StatusCode::OK, &self.metrics(config)),
            Call::Metrics(MetricsFormat::Prometheus) => {
                let text = prometheus::write(&Exposition {
                    counters: &self.parts.stats.snapshot(),
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
            Call::Reload => answer::json(StatusCode::OK, &self.reload().await?),
            Call::Upgrade(binary) => answer::json(StatusCode::OK, &self.upgrade(binary).await?),
        })
    }

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
        let counters = self.parts.stats.snapshot();
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
        // Every step of it has a deadline of its own.
        outcome.await.map_err(|_dropped| gone())?
    }

    async fn reload(&self) -> Result<wire::Reloaded, ErrorBody> {
        let (reply, outcome) = oneshot::channel();
        let asked = async {
            self.parts.reload.send(reply).await.ok()?;
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

/// [`Admin`] as the proxy calls it, on the public port.
#[derive(Debug, Clone)]
pub struct Public(Arc<Admin>);

impl Public {
    /// Answers what stands under the reserved prefix with `admin`.
    pub fn new(admin: Arc<Admin>) -> Self {
        Self(admin)
    }
}

impl proxy::Reserved for Public {
    fn answer(
        &self,
        peer: std::net::SocketAddr,
        request: Request<Incoming>,
    ) -> Pin<Box<dyn Future<Output = Response<ReservedBody>> + Send>> {
        let task = self.0.spawn(Peer::Tcp(peer), request);
        Box::pin(joined(task))
    }
}

/// The answer of a task of [`Admin::spawn`]. Dropping this leaves the task alone.
pub(super) async fn joined(task: JoinHandle<Response<ReservedBody>>) -> Response<ReservedBody> {
    task.await.unwrap_or_else(|cause| {
        answer::error(&if cause.is_panic() {
            ErrorBody::new(Code::Internal, "Internal error", "the request failed by a fault of portok")
                .with_hint("the daemon's log says where")
        } else {
            ErrorBody::new(Code::ShuttingDown, "Shutting down", "the daemon is going down")
        })
    })
}

/// Everything that is judged by a request's head: who asks, how often, with which token, for what.
fn examine(
    (peer, surface): (&Peer, Surface),
    head: &http::request::Parts,
    config: &crate::config::Admin,
    own_uid: u32,
    limits: &Mutex<Limits>,
    now: Instant,
) -> Result<Route, Refusal> {
    browser::check(surface, head, &config.hosts)?;
    let admitted = {
        let mut limits = limits.lock().unwrap_or_else(PoisonError::into_inner);
        auth::admit(peer, &head.headers, config, own_uid, &mut limits, now)?
    };
    let path = head.uri.path();
    // On the socket there is no app whose paths could be in the way: who knows no other prefix uses the usual one.
    let usual = matches!(peer, Peer::Unix { .. }) && !path.starts_with(&config.prefix);
    let prefix = if usual { wire::PREFIX } else { &config.prefix };
    routes::find(prefix, path, &head.method, admitted)
}

/// Reads a body to its end.
async fn read<B>(body: B) -> Result<Bytes, Box<ErrorBody>>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let too_long = || bad(format!("the body is longer than {} bytes", request::MAX_BODY));
    if body.size_hint().lower() > DISCARDED as u64 {
        return Err(too_long());
    }
    let mut body = pin!(body);
    let all = async {
        let (mut kept, mut length) = (BytesMut::new(), 0);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            length += data.len();
            if length > DISCARDED {
                break;
            }
            if length <= request::MAX_BODY {
                kept.extend_from_slice(&data);
            }
        }
        Ok((kept.freeze(), length))
    };
    match timeout(BODY_WITHIN, all).await {
        Ok(Ok((kept, length))) if length <= request::MAX_BODY => Ok(kept),
        Ok(Ok(_)) => Err(too_long()),
        Ok(Err::<_, B::Error>(cause)) => Err(bad(format!("the body cannot be read: {cause}"))),
        Err(_) => Err(bad(format!("the body did not come within {} s", BODY_WITHIN.as_secs()))),
    }
}

/// Passes the events of an attempt on until it is finished or nobody listens. The attempt itself goes on.
async fn pass_on(mut attempt: release::Attempt, lines: mpsc::Sender<Bytes>) {
    loop {
        // Nobody listens any more, or nothing comes any more: the end either way.
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

fn line(event: &wire::Event) -> Option<Bytes> {
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

fn metrics(
    counters: proxy::Snapshot,
    health: wire::HealthMetrics,
    started_at: String,
    debug: bool,
) -> wire::Metrics {
    // npm portok counts four classes; upgrades (101) are in none of them.
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

#[cfg(test)]
mod tests;
