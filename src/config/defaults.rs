//! The values of a configuration in which no source sets anything.
//!
//! A few depend on who configures: the environment alone configures as npm portok, and what clients
//! may use depends on what the host allows this process.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::read::Given;
use super::stop_signal;
use super::values::{self, Input};
use super::{
    Access, AccessFile, AccessFormat, Admin, Affinity, App, AppConfig, AppLimits, AppRoutes, AppTls, Balance,
    ClientLimits, Config, Deploy, DeployStrategy, Drain, Errors, Forwarded, ForwardedHeader, Health, Hold,
    HoldOn, Hooks, Limits, Log, LogLevels, Mode, OwnerCheck, Protocol, Proxy, ProxyProtocol, Redis,
    RedisServer, Replicas, RequestId, Restart, Rollback, Standby, Sticky, Upstream,
};

/// The name of an instance that has neither a file nor a name.
pub(super) const NAME: &str = "default";

/// The name of all apps of Redis together, where they are counted.
pub const APPS_OF_REDIS: &str = "redis";

/// The variable that carries the port.
pub(super) const PORT_ENV: &str = "PORT";

/// The most data-plane threads.
pub(super) const THREADS_MAX: usize = 256;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The configuration before any source is read. What carries the instance's name is set with it.
pub(super) fn config(given: &Given<'_>) -> Config {
    let foreground = given.sources.overrides.foreground;
    // On a developer's machine nobody else is meant to reach it unasked.
    let host = if foreground { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    Config {
        name: String::new(),
        file: given.file.map(Path::to_owned),
        listen: vec![SocketAddr::from((host, 3000))],
        state_file: PathBuf::new(),
        run_dir: PathBuf::new(),
        warnings: Vec::new(),
        app: Arc::new(app_config(given)),
        apps: None,
        redis: None,
        tls: None,
        admin: admin(),
        proxy: proxy(given),
        limits: client_limits(given),
        hold_memory: 64 << 20,
        access: Access {
            file: AccessFile::Off,
            format: AccessFormat::Json,
            query: false,
            sample: 1.0,
            slow: secs(1),
        },
        log: Log { level: LogLevels::default(), verbose_errors: false },
    }
}

/// The configuration of a file in which nothing stands, whatever host the tests run on.
#[cfg(test)]
pub(crate) fn of_an_empty_file() -> Config {
    let host = super::limits::Host { open_files: 524_288, ..super::limits::Host::current() };
    config(&Given {
        sources: &super::Sources::default(),
        file: Some(Path::new("/etc/portok/test.toml")),
        who: &super::files::Who::current(),
        host: &host,
        further: std::cell::RefCell::default(),
    })
}

/// What it takes from its instance is set when that is read.
fn app_config(given: &Given<'_>) -> AppConfig {
    AppConfig {
        name: String::new(),
        place: String::new(),
        mode: Mode::Http,
        routes: AppRoutes::default(),
        tls: AppTls::default(),
        targets: None,
        redirect: None,
        in_file: given.file.is_some(),
        most_fields: 0,
        app: app(),
        balance: Balance::Least,
        sticky: Sticky::Off,
        tiers: None,
        health: Health {
            path: "/health".to_owned(),
            host: "127.0.0.1".to_owned(),
            tcp: false,
            grpc: None,
            is_set: false,
            timeout: secs(5),
            successes: 1,
            interval: None,
            failures: None,
        },
        drain: Drain {
            period: secs(30),
            // Of npm portok a tunnel ends with its process.
            tunnels: given.as_npm().then_some(Duration::ZERO),
            early: false,
            affinity: if given.as_npm() { Affinity::Connection } else { Affinity::Request },
        },
        rollback: Rollback { window: secs(60), interval: secs(5), threshold: 3, standby: Standby::Drain },
        deploy: Deploy { strategy: DeployStrategy::Switch },
        upstream: upstream(),
        limits: app_limits(),
        hold: hold(given),
        errors: Errors::default(),
        hooks: Hooks { on_event: None },
    }
}

fn app() -> App {
    App {
        target: None,
        command: None,
        directory: None,
        env: BTreeMap::new(),
        env_file: None,
        user: None,
        group: None,
        limits: Limits::default(),
        replicas: Replicas::fixed(1),
        processes: BTreeMap::new(),
        max_memory: None,
        recycle_after: secs(600),
        port_env: PORT_ENV.to_owned(),
        before: None,
        before_timeout: secs(300),
        verify: None,
        verify_timeout: secs(300),
        start_timeout: secs(60),
        stop_signal: stop_signal::SIGTERM,
        stop_timeout: secs(10),
        restart: Restart {
            backoff: Duration::from_millis(100),
            max_backoff: secs(30),
            burst: 5,
            within: secs(60),
            give_up: false,
        },
        owner_check: OwnerCheck::Warn,
        deploy_on_change: true,
    }
}

fn upstream() -> Upstream {
    Upstream {
        protocol: Protocol::Http1,
        proxy_protocol: false,
        keepalive: true,
        max_connections: 1024,
        connect_timeout: secs(2),
        response_timeout: None,
        read_timeout: None,
        timeout: None,
        timeout_status: 504,
        idle_timeout: secs(4),
        max_idle: 1024,
        tcp_keepalive: secs(1),
        retries: 3,
        eject_for: secs(30),
        eject_on: Vec::new(),
        debug: false,
    }
}

fn admin() -> Admin {
    Admin {
        token: None,
        socket: None,
        socket_configured: false,
        socket_group: None,
        allow: nets(&["127.0.0.1", "::1"]),
        hosts: Vec::new(),
        allow_forwarded: false,
        rate_limit: 10,
        public: true,
        prefix: crate::wire::PREFIX.to_owned(),
        remote_deploy: false,
    }
}

fn proxy(given: &Given<'_>) -> Proxy {
    Proxy {
        threads: std::thread::available_parallelism().map_or(1, |cores| cores.get().min(THREADS_MAX)),
        forwarded: if given.as_npm() { Forwarded::Append } else { Forwarded::Trusted },
        trusted: nets(&["127.0.0.1", "::1"]),
        upgrades: vec!["websocket".to_owned()],
        proxy_protocol: ProxyProtocol::Off,
        http2: true,
        max_streams: 128,
        idle_timeout: secs(5),
        header_timeout: secs(6),
        max_header_size: 64 * 1024,
        max_body: None,
        no_route_status: 404,
        ping: None,
        ping_host: None,
        fast_path: false,
        forwarded_header: ForwardedHeader::XForwarded,
        real_ip: false,
        request_id: RequestId::Off,
        debug: false,
    }
}

fn client_limits(given: &Given<'_>) -> ClientLimits {
    // A connection of a client takes one to the app as well, and each release its own files.
    let connections = (given.host.open_files / 4).clamp(512, 50_000);
    ClientLimits {
        connections: usize::try_from(connections).unwrap_or(usize::MAX),
        connections_per_address: None,
        headers: 256,
        requests_per_connection: None,
    }
}

fn app_limits() -> AppLimits {
    AppLimits {
        // Depends on what is read: see `requests_per_address`.
        requests_per_address: None,
        tunnels: 10_000,
        body_timeout: Some(secs(60)),
        send_timeout: Some(secs(60)),
        tunnel_idle: None,
    }
}

fn hold(given: &Given<'_>) -> Hold {
    // Of npm portok a request knows nothing but the connect timeout.
    let on = if given.as_npm() {
        vec![HoldOn::Pause]
    } else {
        vec![HoldOn::Crash, HoldOn::Idle, HoldOn::Recreate, HoldOn::Pause]
    };
    Hold { on, max_requests: 1000, max_time: secs(30), release: 32 }
}

/// Routes from `server`, where nothing but its URL is set. Loopback addresses are not allowed: what
/// listens there trusts the programs of this host.
pub(super) fn redis(server: RedisServer, of_all: &AppConfig) -> Redis {
    Redis {
        server,
        prefix: String::new(),
        refresh: secs(1),
        allow: nets(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]),
        probe: false,
        app: Arc::new(app_of_redis(of_all)),
    }
}

/// All apps of Redis, where `[redis.app]` sets nothing; `of_all`: what stands for every app. They
/// choose among their targets as hipache does.
pub(super) fn app_of_redis(of_all: &AppConfig) -> AppConfig {
    let routes = AppRoutes { hosts: Vec::new(), ..AppRoutes::default() };
    AppConfig { name: APPS_OF_REDIS.to_owned(), routes, balance: Balance::Random, ..of_all.clone() }
}

/// How many requests one address may have at a time by default: half of the connections to the app.
pub(super) fn requests_per_address(given: &Given<'_>, upstream: &Upstream) -> Option<usize> {
    (!given.as_npm()).then_some((upstream.max_connections / 2).max(1))
}

fn nets(addresses: &[&str]) -> Vec<IpNet> {
    addresses.iter().filter_map(|address| values::net(Input::Text(address)).ok()).collect()
}
