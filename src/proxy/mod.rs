//! The data plane: accepts connections, claims a target for each request, passes bytes.
//!
//! The public face, used by the coordinator (switch, retire, close), by the daemon (start, rebind, stop)
//! and by the admin API (counters).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::watch;

use crate::config::Config;

/// The body of an answer under the reserved prefix: streamed (a deploy's events) or whole.
pub type ReservedBody = http_body_util::combinators::BoxBody<Bytes, io::Error>;

/// Answers requests under the reserved admin prefix. The proxy knows the prefix, not what stands under it.
pub trait Reserved: Send + Sync + 'static {
    /// Answers one request of `peer`. Called on a data-plane thread: hands the work to the control plane.
    fn answer(
        &self,
        peer: SocketAddr,
        request: Request<Incoming>,
    ) -> Pin<Box<dyn Future<Output = Response<ReservedBody>> + Send>>;
}

/// One tenure of an address as the proxy's destination.
#[derive(Debug)]
pub struct Target {}

impl Target {
    /// Where it is: always loopback.
    pub fn addr(&self) -> SocketAddr {
        todo!()
    }
    /// The release it belongs to.
    pub fn release(&self) -> &str {
        todo!()
    }
    /// From now on only client connections that are pinned to it may claim it.
    pub fn retire(&self) {
        todo!()
    }
    /// From now on nobody may claim it; its pooled idle connections are dropped. What is in flight goes on.
    pub fn close(&self) {
        todo!()
    }
    /// Requests and tunnels that claimed it and have not ended.
    pub fn inflight(&self) -> u64 {
        todo!()
    }
    /// Client connections that would still claim it with their next request (affinity `connection`).
    pub fn pinned(&self) -> u64 {
        todo!()
    }
}

/// Reads where requests go: wait-free, one clone per data-plane thread.
#[derive(Debug, Clone)]
pub struct Switchboard {}

/// Writes where requests go. There is one per app and it cannot be cloned.
#[derive(Debug)]
pub struct RouteWriter {}

impl RouteWriter {
    /// Makes `target` the live one and gives back the one it replaced, which is neither retired nor closed
    /// yet: the caller decides which (`retire` after a switch, `close` after a rollback).
    pub fn route(&mut self, _target: Option<Arc<Target>>) -> Option<Arc<Target>> {
        todo!()
    }
}

impl RouteWriter {
    /// Takes the live target away and lets requests wait for the next one (up to the connect timeout, then 503).
    pub fn hold(&mut self) -> Option<Arc<Target>> {
        todo!()
    }
}

/// Makes a switchboard that points nowhere, and its only writer.
pub fn switchboard() -> (Switchboard, RouteWriter) {
    todo!()
}

/// The counters of all threads, and the maker of targets (whose counters outlive them here, bounded).
#[derive(Debug)]
pub struct Stats {}

impl Stats {
    /// For `threads` data-plane threads.
    pub fn new(_threads: usize) -> Arc<Self> {
        todo!()
    }
    /// A new tenure of `127.0.0.1:port` for `release`.
    pub fn target(&self, _release: &str, _port: u16) -> Arc<Target> {
        todo!()
    }
    /// All counters as they are now.
    pub fn snapshot(&self) -> Snapshot {
        todo!()
    }
}

/// Counters at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Requests and tunnels under way.
    pub inflight: u64,
    /// The most at once.
    pub inflight_max: u64,
    /// Requests to apps since the start (admin requests are not counted).
    pub total_requests: u64,
    /// Requests that portok answered with an error of its own (`portok-error`), or broke off.
    pub total_proxy_errors: u64,
    /// Answers `1xx` (101 only), `2xx`, `3xx`, `4xx`, `5xx`.
    pub by_class: [u64; 5],
    /// Mean over the last 60 s, or since the start while younger.
    pub rolling_rps60: f64,
    /// Connections opened to apps.
    pub upstream_sockets_created: u64,
    /// Client connections open now.
    pub client_connections: u64,
    /// Upper bounds in seconds with the number of requests at or below each (cumulative), without `+Inf`.
    pub latency_buckets: Vec<(f64, u64)>,
    /// The sum of all latencies in seconds; their number is `total_requests` minus what is in flight.
    pub latency_sum: f64,
    /// How many latencies were measured.
    pub latency_count: u64,
    /// Per release (newest last, bounded; older ones are summed up as `other`): answers by class.
    pub by_release: Vec<(String, [u64; 5])>,
    /// The proxy's last error.
    pub last_error: Option<crate::wire::ProxyErrorView>,
}

/// The running data plane: its threads, and what accepts for them.
#[derive(Debug)]
pub struct Plane {}

impl Plane {
    /// Starts `config.proxy.threads` threads that accept from `listener` (bound and listening).
    ///
    /// # Errors
    /// The listener cannot be shared among threads, or a thread cannot be started.
    pub fn start(
        _listener: TcpListener,
        _config: watch::Receiver<Arc<Config>>,
        _switchboard: Switchboard,
        _stats: Arc<Stats>,
        _reserved: Arc<dyn Reserved>,
    ) -> io::Result<Self> {
        todo!()
    }
    /// Accepts from `listener` on every thread, then stops accepting on the former one (what is in its queue
    /// is accepted first). Open connections stay.
    ///
    /// # Errors
    /// The listener cannot be shared among threads; nothing has changed then.
    pub async fn rebind(&self, _listener: TcpListener) -> io::Result<()> {
        todo!()
    }
    /// Stops accepting; idle client connections are closed, others after their current answer
    /// (`Connection: close`). Returns once every connection and tunnel has ended.
    pub async fn drain(&self) {
        todo!()
    }
    /// Cuts what is left, ends the threads and joins them.
    pub async fn shut_down(self) {
        todo!()
    }
}

/// Binds and listens, with the options the data plane wants (backlog, `SO_REUSEADDR`).
///
/// # Errors
/// The kernel's own, for example that the address is in use.
pub fn bind(_addr: SocketAddr) -> io::Result<TcpListener> {
    todo!()
}
