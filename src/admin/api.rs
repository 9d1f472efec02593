//! One admin request from its head to its answer.
//!
//! [`Admin`] owns the limiters and tracks the tasks that answer. The head is judged as a whole
//! ([`examine`]) before a byte of the body is read ([`body`]); then the request is one call
//! ([`calls`]); the counters are read by [`numbers`].

mod body;
mod calls;
mod numbers;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use self::body::read;
use super::answer::{self, Refusal};
use super::browser::{self, Surface};
use super::rate::Limits;
use super::routes::{self, Call, Route};
use super::{Parts, Peer, auth};
use crate::config::Config;
use crate::proxy::{self, ReservedBody};
use crate::wire::{self, Code, ErrorBody};

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

    /// Answers one request of `peer`. Whatever goes wrong is in the answer.
    ///
    /// If the future is dropped, a call that was not made yet is lost. [`Admin::spawn`] loses none.
    pub async fn answer(&self, peer: Peer, request: Request<Incoming>) -> Response<ReservedBody> {
        let (head, body) = request.into_parts();
        let response =
            self.respond(&peer, &head, body).await.unwrap_or_else(|refusal| refusal.into_response());
        if head.method == Method::HEAD { answer::without_body(response) } else { response }
    }

    /// Answers one request in a task of the control plane. The task goes on when nobody waits for
    /// the answer any more.
    pub(super) fn spawn(
        self: &Arc<Self>,
        peer: Peer,
        request: Request<Incoming>,
    ) -> JoinHandle<Response<ReservedBody>> {
        let admin = Arc::clone(self);
        self.tasks.spawn_on(async move { admin.answer(peer, request).await }, &self.parts.control)
    }

    /// Waits until every accepted request is answered. To be called once nothing accepts requests
    /// any more; the deadline is the caller's.
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

    /// Where a request of `peer` came in.
    fn surface(&self, peer: &Peer) -> Surface {
        match peer {
            Peer::Unix { .. } => Surface::Socket,
            Peer::Tcp { at, .. } if at.to_canonical().is_loopback() => Surface::Loopback,
            Peer::Tcp { .. } => Surface::Open,
        }
    }

    /// Judges the head, reads the body where there is one to read, makes the call.
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
        let body = if route.acts() { read(body, route.most_body()).await? } else { Bytes::new() };
        let listen: Vec<_> = self.parts.listen.borrow().iter().map(SocketAddr::port).collect();
        let asked = routes::call(route, head.uri.query(), &head.headers, &body, &listen)?;
        if matches!((&asked.call, peer), (Call::Upgrade(Some(_)), Peer::Tcp { .. })) {
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
        self.perform(asked, &Caller { peer, headers: &head.headers }, &config).await
    }
}

/// [`Admin`] as the proxy calls it on the public port.
#[derive(Debug, Clone)]
pub struct Public(Arc<Admin>);

impl Public {
    /// Answers requests under the reserved prefix with `admin`.
    pub fn new(admin: Arc<Admin>) -> Self {
        Self(admin)
    }
}

impl proxy::Reserved for Public {
    fn answer(
        &self,
        listener: proxy::ListenerId,
        peer: SocketAddr,
        request: Request<Incoming>,
    ) -> Pin<Box<dyn Future<Output = Response<ReservedBody>> + Send>> {
        let task = self.0.spawn(Peer::Tcp { peer, at: listener.addr().ip() }, request);
        Box::pin(joined(task))
    }

    fn knows(&self, peer: SocketAddr, token: &[u8], proxied: bool) -> bool {
        let config = self.0.config();
        let mut limits = self.0.limits.lock().unwrap_or_else(PoisonError::into_inner);
        auth::knows(peer, (token, proxied), &config.admin, &mut limits, Instant::now())
    }
}

/// The answer of a task of [`Admin::spawn`]. Dropping the future does not end the task.
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

/// Who makes a call, as far as a call may depend on it.
struct Caller<'a> {
    peer: &'a Peer,
    headers: &'a http::HeaderMap,
}

/// Judges a request by its head: who asks, how often, with which token, for what.
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
    // On the socket no path of an app is in the way, so the usual prefix works there as well.
    let usual = matches!(peer, Peer::Unix { .. }) && !path.starts_with(&config.prefix);
    let prefix = if usual { wire::PREFIX } else { &config.prefix };
    routes::find(prefix, path, &head.method, admitted)
}

#[cfg(test)]
mod tests;
