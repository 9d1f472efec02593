//! The configuration of one app, as it is meant: what `[app]` or `[apps.NAME]` says, and the
//! sections that stand for every app.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{
    AppTls, CommandLine, Companions, DeployStrategy, Errors, Hold, Hosts, Limits, Replicas, StopSignal, Tiers,
};

/// The configuration of one app.
#[derive(Debug, Clone, PartialEq)]
pub struct AppConfig {
    /// The app's name; of the one app of an instance: the instance's.
    pub name: String,
    /// Where it is configured, for messages: `file:line`; empty where no file does.
    pub place: String,
    /// What its clients bring.
    pub mode: Mode,
    /// Which requests it gets.
    pub routes: AppRoutes,
    /// A certificate of its own.
    pub tls: AppTls,
    /// The addresses of an unmanaged app, in which the order means nothing. Never set together with
    /// a command.
    pub targets: Option<Vec<SocketAddr>>,
    /// Where its clients are sent instead, with the path and query of their request added: scheme
    /// and authority. Never set together with a command or targets.
    pub redirect: Option<String>,
    /// Whether a file configures it, and not the environment alone.
    pub in_file: bool,
    /// The most fields in the head of an answer: its instance's `limits.headers`.
    pub most_fields: usize,
    /// What to run, or where it runs already.
    pub app: App,
    /// Which of several processes or targets gets a request.
    pub balance: Balance,
    /// Whether a client stays with one of several processes or targets.
    pub sticky: Sticky,
    /// How many requests its clients may make; `None`: any number.
    pub tiers: Option<Arc<Tiers>>,
    /// How health is probed.
    pub health: Health,
    /// What happens to the old target after a switch.
    pub drain: Drain,
    /// When to go back.
    pub rollback: Rollback,
    /// How a candidate takes over.
    pub deploy: Deploy,
    /// The side towards the app.
    pub upstream: Upstream,
    /// What its clients may use at most.
    pub limits: AppLimits,
    /// When its requests are held.
    pub hold: Hold,
    /// What clients see where portok answers in its place.
    pub errors: Errors,
    /// Who is told of its events.
    pub hooks: Hooks,
}

/// Which requests an app gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppRoutes {
    /// For which hosts; empty: for none at the instance's addresses.
    pub hosts: Vec<Hosts>,
    /// The beginnings of their paths, each with a `/` at its own beginning.
    pub paths: Vec<String>,
    /// Whether the app gets the path without that beginning.
    pub strip_prefix: bool,
    /// Whether `hosts` are the names that clients ask for in TLS, which the app itself speaks
    /// (`tls = "passthrough"`).
    pub passthrough: bool,
    /// Addresses of its own, where it gets every request.
    pub listen: Vec<SocketAddr>,
}

impl AppConfig {
    /// Between two probes of one of several processes or targets, outside the watch window.
    pub fn probe_interval(&self) -> Duration {
        self.health.interval.unwrap_or(self.rollback.interval)
    }

    /// Failed probes in a row that take one of several out; at least one.
    pub fn probes_to_fail(&self) -> u32 {
        self.health.failures.unwrap_or(self.rollback.threshold).max(1)
    }
}

impl Default for AppRoutes {
    /// Every request at the instance's addresses.
    fn default() -> Self {
        let (hosts, paths) = (vec![Hosts::Any], vec!["/".to_owned()]);
        Self { hosts, paths, strip_prefix: false, passthrough: false, listen: Vec::new() }
    }
}

/// `mode`: what the clients of an app bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Requests of HTTP.
    Http,
    /// Connections, whatever is spoken on them.
    Tcp,
}

/// `[app]`.
#[derive(Debug, Clone, PartialEq)]
pub struct App {
    /// The port of an unmanaged app. Never set together with `command`.
    pub target: Option<u16>,
    /// The command of a managed app.
    pub command: Option<CommandLine>,
    /// Its working directory; resolved for each release, not here.
    pub directory: Option<PathBuf>,
    /// Added to its environment.
    pub env: BTreeMap<String, String>,
    /// Read for each release, not here.
    pub env_file: Option<PathBuf>,
    /// The user it runs as; `None`: the daemon's own.
    pub user: Option<String>,
    /// The group it runs as; `None`: the user's own.
    pub group: Option<String>,
    /// What it may use at most.
    pub limits: Limits,
    /// How many processes of a release run at a time.
    pub replicas: Replicas,
    /// What of it runs beside the app.
    pub processes: Companions,
    /// The memory beyond which one of them is replaced, in bytes.
    pub max_memory: Option<u64>,
    /// One that gets there within this time of being ready is not replaced.
    pub recycle_after: Duration,
    /// The variable that carries the port.
    pub port_env: String,
    /// What runs once a deploy, before its candidate is started.
    pub before: Option<CommandLine>,
    /// How long that may take.
    pub before_timeout: Duration,
    /// What runs once a deploy, against the candidate, before traffic moves to it.
    pub verify: Option<CommandLine>,
    /// How long that may take.
    pub verify_timeout: Duration,
    /// How long a release may take until it is healthy.
    pub start_timeout: Duration,
    /// Sent to the process group first.
    pub stop_signal: StopSignal,
    /// Between the stop signal and SIGKILL.
    pub stop_timeout: Duration,
    /// What happens after a crash.
    pub restart: Restart,
    /// How sure portok must be that the listener is the candidate's.
    pub owner_check: OwnerCheck,
    /// Whether an edit of `[app]` is deployed.
    pub deploy_on_change: bool,
}

/// `app.restart`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    /// The delay after the first crash; doubled with each further one.
    pub backoff: Duration,
    /// The longest delay, and the pace once the limit is reached.
    pub max_backoff: Duration,
    /// This many crashes...
    pub burst: u32,
    /// ...within this time reach the limit.
    pub within: Duration,
    /// At the limit: stop trying until the next deploy.
    pub give_up: bool,
}

/// `app.owner_check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerCheck {
    /// A listener that cannot be proven to be the candidate's is a warning.
    Warn,
    /// It aborts the deploy.
    Strict,
}

/// `balance`: which of several processes or targets gets a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// The one with the fewest in flight; of equal ones each in turn.
    Least,
    /// Each in turn.
    RoundRobin,
    /// Any.
    Random,
}

/// `sticky`: by what a client stays with one of several processes or targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sticky {
    /// It does not.
    Off,
    /// By a cookie that names the target's place.
    Cookie,
    /// By its address.
    Address,
}

/// `[health]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Asked with GET; any 2xx is healthy. Starts with `/`.
    pub path: String,
    /// A connection that is accepted is healthy; nothing is asked.
    pub tcp: bool,
    /// The service that `grpc.health.v1` is asked about instead, over HTTP/2; empty: the server.
    /// Never together with `tcp`.
    pub grpc: Option<String>,
    /// Whether it is set for this app of several itself what is asked, and not for every one, or
    /// not at all. Only then are its targets on other hosts probed; those on this host always are.
    pub is_set: bool,
    /// The `Host` header of a probe.
    pub host: String,
    /// How long one probe may take.
    pub timeout: Duration,
    /// Good probes in a row before a switch.
    pub successes: u32,
    /// Between two probes of one of several; `None`: as long as `rollback.interval`.
    pub interval: Option<Duration>,
    /// Failed probes in a row that take one of several out; `None`: as many as
    /// `rollback.threshold`.
    pub failures: Option<u32>,
}

/// `[drain]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// How long the old target may finish what it has.
    pub period: Duration,
    /// How long tunnels and event streams may stay; zero: until somebody ends them. `None`: see
    /// [`Drain::tunnels_of`].
    pub tunnels: Option<Duration>,
    /// End the drain once nothing is in flight or pinned.
    pub early: bool,
    /// What a client connection does while the target it used drains.
    pub affinity: Affinity,
}

impl Drain {
    /// How long tunnels and event streams may stay with a target of a release that is `managed` or
    /// not; `None`: until somebody ends them.
    pub fn tunnels_of(&self, managed: bool) -> Option<Duration> {
        self.tunnels.map_or(managed.then_some(self.period), |time| (!time.is_zero()).then_some(time))
    }

    /// How long a drain of a release that is `managed` or not takes: the later of both times.
    pub fn longest(&self, managed: bool) -> Duration {
        self.period.max(self.tunnels_of(managed).unwrap_or_default())
    }
}

/// `drain.affinity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// Each request goes to the live target.
    Request,
    /// A client connection stays with the old target while it drains.
    Connection,
}

/// `[rollback]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollback {
    /// How long after a switch portok may go back by itself.
    pub window: Duration,
    /// Between two probes.
    pub interval: Duration,
    /// Failed probes in a row that bring a rollback.
    pub threshold: u32,
    /// How long the previous release keeps running.
    pub standby: Standby,
}

/// `[deploy]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deploy {
    /// How a candidate takes over.
    pub strategy: DeployStrategy,
}

/// `rollback.standby`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standby {
    /// Until its drain is over.
    Drain,
    /// Until its drain is over and the watch window has passed.
    Window,
}

/// `[upstream]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// What the app speaks.
    pub protocol: Protocol,
    /// Whether a connection to the app begins with a header of version 2 of the PROXY protocol,
    /// which names its client. Then no connection is kept for another one.
    pub proxy_protocol: bool,
    /// Keep connections to the app for further requests.
    pub keepalive: bool,
    /// Connections to one target, over all threads.
    pub max_connections: usize,
    /// How long a connection, or the wait for a free one, may take.
    pub connect_timeout: Duration,
    /// How long until the response's head is there; `None`: no limit.
    pub response_timeout: Option<Duration>,
    /// How long between two bytes of the response; `None`: no limit.
    pub read_timeout: Option<Duration>,
    /// How long the whole exchange may take; `None`: no limit.
    pub timeout: Option<Duration>,
    /// The status of an answer that says that one of the timeouts has passed.
    pub timeout_status: u16,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Unused connections to one target that are kept at most, over all threads.
    pub max_idle: usize,
    /// The idle time before a TCP keep-alive probe.
    pub tcp_keepalive: Duration,
    /// With several targets: how often a request of which nothing was sent goes to the next one.
    pub retries: u32,
    /// How long one of several gets no request after it took no connection, or gave an
    /// answer of `eject_on`.
    pub eject_for: Duration,
    /// The statuses of answers that take one of several out.
    pub eject_on: Vec<u16>,
    /// Show `upstreamSocketsCreated` in the metrics.
    pub debug: bool,
}

/// `upstream.protocol`: what an app speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge, unencrypted.
    H2c,
}

/// `[limits]`: what the clients of one app may use at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppLimits {
    /// Requests of one client address at a time; `None`: no limit.
    pub requests_per_address: Option<usize>,
    /// Tunnels at a time.
    pub tunnels: usize,
    /// How long the next byte of a request's body is waited for; `None`: no limit.
    pub body_timeout: Option<Duration>,
    /// How long a client may take nothing of an answer that waits for it; `None`: no limit.
    pub send_timeout: Option<Duration>,
    /// How long no byte may pass through a tunnel; `None`: no limit.
    pub tunnel_idle: Option<Duration>,
}

/// `[hooks]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// Program and arguments, run with one event on its standard input.
    pub on_event: Option<Vec<String>>,
}
