//! The configuration: what it may say, where it comes from, and what a change of it needs.
//!
//! [`Config`] is the configuration as it is meant: every value present, parsed and in its range.
//! One app's part of it is [`AppConfig`]. It is immutable; a reload makes a new one. How it comes
//! about:
//!
//! - `keys` declares every key once: its name, its variable, whose setting it is, how it is read
//!   and shown;
//! - `defaults` has the value of every field that no source sets;
//! - `raw` parses the TOML file and keeps the place of every value; `env` reads the environment
//!   variables (compatible with npm portok);
//! - `values` parses and `show` writes one value of a kind;
//! - `read` lays file and environment over one another and collects **all** problems;
//! - `secret` knows which values are never shown; `effective` shows all others;
//! - `validate` goes through the keys and checks what has to fit together;
//! - `several` knows whether an instance has several apps, `folder` reads those with a file of
//!   their own, `one_of_several` reads one, `clashes` knows whose addresses do not go together;
//! - [`load()`] is the one way through all of them;
//! - [`diff()`] says what a change of the configuration needs, `fingerprint` whether an edit of
//!   `[app]` makes another release;
//! - `files`, `paths` and `limits` know which files to trust, where files lie by default, and which
//!   limits this host can hold an app to;
//! - `companions` reads what runs beside an app;
//! - `hosts` reads the hosts that a route is for; `address` knows which addresses a listener takes;
//! - `access` has what `[access]` says, `log_levels` reads `log.level`, `pages` the pages of
//!   `errors.dir`;
//! - `hold` has what `[hold]` says, `replicas` what `app.replicas` says; `redis` has what `[redis]`
//!   says, and reads its URL;
//! - `tiers` has what `app.tiers` says, and reads the file of its keys; `further` knows which such
//!   files there are;
//! - `tls` has what `[tls]` says;
//! - `health` knows which ways of asking for health go together;
//! - `tcp` knows what an app of connections needs, and what it has no use for;
//! - `recreate` knows what does not go together with `deploy.strategy = "recreate"`;
//! - [`read_env_file`] reads a file of variables in systemd's syntax;
//! - [`watch`] tells when the file may have changed.
//!
//! Only `load`, `folder`, `read_env_file`, `pages`, the readers of the files of tokens and keys and
//! `watch` do I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

pub use self::access::{Access, AccessFile, AccessFormat};
pub use self::address::{overlaps, takes};
pub(crate) use self::companions::{COMPANIONS_MOST, is_companion_name};
pub use self::companions::{Companion, CompanionStart, Companions};
pub use self::defaults::APPS_OF_REDIS;
#[cfg(test)]
pub(crate) use self::defaults::of_an_empty_file;
pub use self::diff::{AppsDiff, Diff, diff};
pub use self::env_file::read_env_file;
pub(crate) use self::files::{read_certificate, read_key};
pub use self::fingerprint::{AppChange, app_change, app_fingerprint};
pub use self::fnv::Fnv;
pub use self::folder::Remembered;
pub use self::further::FurtherFiles;
pub use self::hold::{Hold, HoldOn};
pub use self::hosts::{Host, Hosts, NoHosts};
pub(crate) use self::keys::LEAST_MEMORY;
pub use self::keys::{Key, keys, variable_of, variables};
pub use self::limits::{Limits, SYSTEMD_RUN};
pub use self::load::{file_of, instance_file, load};
pub use self::log_levels::{LogLevel, LogLevels};
pub use self::pages::{Errors, Pages};
pub use self::paths::{beside_state_file, default_socket, instance_of_app_file};
pub use self::recreate::cannot_recreate;
pub use self::redis::{Redis, RedisServer};
pub use self::replicas::Replicas;
pub use self::secret::looks_secret;
pub use self::several::{AppText, KeptApp, Started};
pub use self::spots::{Spot, SpotGroup};
pub use self::tiers::{Tier, TierBy, TierKeys, Tiers, network};
pub use self::tls::{Acme, AppTls, Challenge, ExternalAccount, Tls, TlsVersion};
pub use self::values::is_instance_name;
pub use self::withheld::is_withheld;
pub use crate::wire::{CommandLine, DeployStrategy};

mod access;
mod address;
mod clashes;
mod companions;
mod defaults;
mod diff;
mod effective;
mod env;
mod env_file;
mod files;
mod fingerprint;
mod fnv;
mod folder;
mod further;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod health;
mod hold;
mod hosts;
mod keys;
mod limits;
mod load;
mod log_levels;
mod one_of_several;
mod pages;
mod paths;
mod raw;
mod read;
mod recreate;
mod redis;
mod replicas;
mod secret;
mod seen_file;
mod several;
mod show;
mod spots;
mod tcp;
mod tiers;
mod tls;
mod validate;
mod values;
pub mod watch;
mod withheld;

#[cfg(test)]
mod tests;

/// The configuration of one instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The instance's name: `[A-Za-z0-9_-]`, 1 to 64 characters.
    pub name: String,
    /// The file it was read from; `None` when the environment alone configures.
    pub file: Option<PathBuf>,
    /// Where requests are accepted: at least one address. Port 0: the kernel chooses.
    pub listen: Vec<SocketAddr>,
    /// The durable record.
    pub state_file: PathBuf,
    /// The folder of the default socket. The pipes of the apps lie there, wherever the socket is.
    /// To be made with mode 0700.
    pub run_dir: PathBuf,
    /// For the log: what is odd but no error (a fallback taken, an unusual value).
    pub warnings: Vec<String>,
    /// Its app. With several apps: what stands for every one of them, and serves requests that have
    /// none.
    pub app: Arc<AppConfig>,
    /// Its several apps. `None`: there is one.
    pub apps: Option<Several>,
    /// Where further apps are read from. `None`: nowhere.
    pub redis: Option<Redis>,
    /// Where and how connections are encrypted. `None`: nowhere.
    pub tls: Option<Tls>,
    /// Who may use the admin API.
    pub admin: Admin,
    /// The side towards clients.
    pub proxy: Proxy,
    /// What clients may use at most, over all apps.
    pub limits: ClientLimits,
    /// How many bytes the requests that are held may have together: their heads, and what was read
    /// of their bodies.
    pub hold_memory: u64,
    /// What is written of each request.
    pub access: Access,
    /// What is logged.
    pub log: Log,
}

/// The apps of an instance that has several: each in a table of the main file or in a file of its
/// own.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Several {
    /// The apps by name.
    pub apps: BTreeMap<String, Arc<AppConfig>>,
    /// Apps whose file is not valid, by name, each with all that is wrong with it. Such an app
    /// stays as it is; one that is in `apps` too is what it is there.
    pub refused: BTreeMap<String, String>,
    /// What is said of each of `apps`.
    pub texts: BTreeMap<String, AppText>,
    /// Those of `apps` that nothing configures any more: they are as they were last, until it is
    /// decided what becomes of them.
    pub gone: BTreeSet<String>,
    /// The folder in which every file is an app. `None`: there is none, and there was none.
    pub folder: Option<PathBuf>,
    /// Why the folder cannot be read. Then nothing is known of the apps in it, and all stay.
    pub unreadable: Option<String>,
    /// How long an app's file has to be gone before the app is removed.
    pub removal_delay: Duration,
}

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

impl Config {
    /// The instance's own addresses: the plain ones, then those where connections are encrypted.
    pub fn own_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listen.iter().chain(self.tls.iter().flat_map(|tls| &tls.listen)).copied()
    }
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

/// A signal that may be configured to stop an app, by number and name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopSignal {
    /// Its number on this system.
    pub number: i32,
    /// Its name, `SIGTERM`.
    pub name: &'static str,
}

impl StopSignal {
    /// The signal of this name.
    pub fn named(name: &str) -> Option<Self> {
        values::signal(values::Input::Text(name)).ok()
    }
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

/// `[admin]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// The token; without one, nobody has access over TCP.
    pub token: Option<Secret>,
    /// Where the unix socket is; `None` when a default could not be found.
    pub socket: Option<PathBuf>,
    /// Whether `socket` was configured. Then a failure to make it is an error, otherwise a warning.
    pub socket_configured: bool,
    /// Members of this group may use the socket.
    pub socket_group: Option<String>,
    /// Peers that may use the admin API over TCP. IPv4-mapped addresses are compared as IPv4.
    pub allow: Vec<IpNet>,
    /// Further names, in lower case, that requests over the unix socket and on loopback listeners
    /// may have as `Host`.
    pub hosts: Vec<String>,
    /// Accept admin requests that came through another proxy on this host.
    pub allow_forwarded: bool,
    /// Admin requests a minute and address, over TCP.
    pub rate_limit: u32,
    /// Serve the admin paths on the public port.
    pub public: bool,
    /// Their prefix, `/__`.
    pub prefix: String,
    /// Allow changes by other than loopback peers.
    pub remote_deploy: bool,
}

/// `[proxy]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Proxy {
    /// Data-plane threads, at least 1.
    pub threads: usize,
    /// What happens to `X-Forwarded-*`.
    pub forwarded: Forwarded,
    /// Peers whose `X-Forwarded-*` are kept.
    pub trusted: Vec<IpNet>,
    /// What a client may upgrade its connection to, in lower case.
    pub upgrades: Vec<String>,
    /// Whether connections of trusted peers begin with a header of the PROXY protocol.
    pub proxy_protocol: ProxyProtocol,
    /// Speak HTTP/2 with clients that want it.
    pub http2: bool,
    /// The most requests of one connection of HTTP/2 at a time, at least 1.
    pub max_streams: u32,
    /// How long a client connection may be idle between requests.
    pub idle_timeout: Duration,
    /// How long a client may take for a request's head.
    pub header_timeout: Duration,
    /// The longest head, in bytes.
    pub max_header_size: usize,
    /// The longest request body in bytes; `None`: no limit.
    pub max_body: Option<u64>,
    /// The status of the answer to a request that is for none of several apps: 404 or 400.
    pub no_route_status: u16,
    /// The path at which portok itself answers that it is there; `None`: at none.
    pub ping: Option<String>,
    /// The host for which portok itself answers that it is there, in lower case; `None`: for none.
    pub ping_host: Option<String>,
    /// Leave out the counting that only metrics need.
    pub fast_path: bool,
    /// By which fields an app is told who its client is.
    pub forwarded_header: ForwardedHeader,
    /// Tell it by `X-Real-IP`, too.
    pub real_ip: bool,
    /// Which requests get an id.
    pub request_id: RequestId,
    /// Tell those who have the admin token which app, release and replica has answered.
    pub debug: bool,
}

/// `proxy.forwarded`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// Append to what trusted peers sent, replace what others sent.
    Trusted,
    /// Always append (`X-Forwarded-Host` is set when absent).
    Append,
    /// Touch nothing.
    Off,
}

/// `proxy.proxy_protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// No connection begins with a header.
    Off,
    /// Each begins with one of version 1.
    V1,
    /// Each begins with one of version 2.
    V2,
    /// Each begins with one of either version.
    Any,
}

impl ProxyProtocol {
    /// Whether a header of version 1 is understood.
    pub fn is_text(self) -> bool {
        matches!(self, Self::V1 | Self::Any)
    }

    /// Whether a header of version 2 is understood.
    pub fn is_binary(self) -> bool {
        matches!(self, Self::V2 | Self::Any)
    }
}

/// `proxy.forwarded_header`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-*`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// All of them.
    Both,
}

/// `proxy.request_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestId {
    /// None.
    Off,
    /// The one that a trusted peer has given, else a new one.
    Keep,
    /// A new one.
    Make,
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

/// `mode`: what the clients of an app bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Requests of HTTP.
    Http,
    /// Connections, whatever is spoken on them.
    Tcp,
}

/// `upstream.protocol`: what an app speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge, unencrypted.
    H2c,
}

/// `[limits]`: what clients may use at most, over all apps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientLimits {
    /// Client connections at a time.
    pub connections: usize,
    /// Client connections of one address at a time; `None`: no limit.
    pub connections_per_address: Option<usize>,
    /// The most fields in the head of a request, and of an answer.
    pub headers: usize,
    /// Requests that a client connection serves before it is closed; `None`: no limit.
    pub requests_per_connection: Option<u32>,
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

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// How much portok logs.
    pub level: LogLevels,
    /// Tell clients the cause of a proxy error in the body of the answer.
    pub verbose_errors: bool,
}

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `value` from being printed.
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value itself, for the one comparison it exists for.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a configuration comes from, beside the environment.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--config FILE`.
    pub file: Option<PathBuf>,
    /// `--instance NAME`.
    pub instance: Option<String>,
    /// The environment's variables, as they were when the process started.
    pub env: BTreeMap<String, String>,
    /// What the command line sets over everything else.
    pub overrides: Overrides,
    /// Whether it is read only to find the daemon, maybe by another user. Then what only the daemon
    /// needs may be missing, the files may belong to anybody (but not be writable for others), and
    /// a token file that cannot be read is left out.
    pub client: bool,
    /// What the daemon that reads it again started as; `None`: none runs with it. See
    /// [`Sources::hold_to`].
    pub started: Option<Started>,
    /// What was said of apps when that was last good, by the app's name. At the start of a daemon
    /// an app whose file is refused, or which nothing configures any more, is as it was, unless it
    /// was removed.
    pub kept: BTreeMap<String, KeptApp>,
    /// What was read of the files of apps before, so that a change of one among many is cheap.
    pub remembered: Remembered,
    /// Which further files were read for the configuration: what watches it follows them.
    pub further: FurtherFiles,
}

/// Values from the command line: they win over file and environment.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--listen`: an address or a port.
    pub listen: Option<String>,
    /// `run --cmd`. Takes the place of `app.target` too.
    pub command: Option<CommandLine>,
    /// `run`: needs no token, no file and no root. Socket and state lie under the user's runtime
    /// folder or the temporary one, and the record of an earlier run is not continued.
    pub foreground: bool,
}

/// Every problem of a configuration. Each names place, key, value and what was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// One sentence each, in the order of the file.
    pub problems: Vec<String>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problems.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}
