//! From keys to the meant [`Config`]: defaults, ranges, and what has to fit together.
//!
//! [`validate()`] always builds a whole configuration, with the default where a value is missing or bad, and
//! notes each problem in the reader; the caller throws the configuration away when there are any. So nothing
//! stops at the first error. Of the outside it asks only what [`super::paths`] asks, reads a token file, and
//! asks for the number of cores.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::env::Env;
use super::files::{self, Owner, Who};
use super::limits::Host;
use super::paths;
use super::read::Reader;
use super::values::{self, Input, Parsed, SHORTEST};
use super::*;

/// The built-in defaults that do not depend on anything.
mod defaults {
    use std::time::Duration;

    pub(super) const NAME: &str = "default";
    pub(super) const LISTEN_PORT: u16 = 3000;
    pub(super) const PORT_ENV: &str = "PORT";
    pub(super) const START_TIMEOUT: Duration = Duration::from_secs(60);
    pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(10);
    pub(super) const BACKOFF: Duration = Duration::from_millis(100);
    pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(30);
    pub(super) const BURST: u32 = 5;
    pub(super) const WITHIN: Duration = Duration::from_secs(60);
    pub(super) const HEALTH_PATH: &str = "/health";
    pub(super) const HEALTH_HOST: &str = "127.0.0.1";
    pub(super) const HEALTH_TIMEOUT: Duration = Duration::from_secs(5);
    pub(super) const SUCCESSES: u32 = 1;
    pub(super) const DRAIN: Duration = Duration::from_secs(30);
    pub(super) const WINDOW: Duration = Duration::from_secs(60);
    pub(super) const INTERVAL: Duration = Duration::from_secs(5);
    pub(super) const THRESHOLD: u32 = 3;
    pub(super) const ALLOW: [&str; 2] = ["127.0.0.1", "::1"];
    pub(super) const RATE_LIMIT: u32 = 10;
    pub(super) const PREFIX: &str = crate::wire::PREFIX;
    pub(super) const TRUSTED: [&str; 2] = ["127.0.0.1", "::1"];
    pub(super) const UPGRADES: [&str; 1] = ["websocket"];
    pub(super) const CLIENT_IDLE: Duration = Duration::from_secs(5);
    pub(super) const HEADER: Duration = Duration::from_secs(6);
    pub(super) const MAX_HEADER_SIZE: u64 = 64 * 1024;
    pub(super) const HEADERS: usize = 256;
    pub(super) const MAX_CONNECTIONS: usize = 1024;
    pub(super) const CONNECT: Duration = Duration::from_secs(2);
    pub(super) const UPSTREAM_IDLE: Duration = Duration::from_secs(4);
    pub(super) const TCP_KEEPALIVE: Duration = Duration::from_secs(1);
    pub(super) const TIMEOUT_STATUS: u16 = 504;
    pub(super) const MAX_IDLE: usize = 1024;
    pub(super) const CONNECTIONS: (u64, u64) = (512, 50_000);
    pub(super) const TUNNELS: usize = 10_000;
    pub(super) const BODY: Duration = Duration::from_secs(60);
    pub(super) const SEND: Duration = Duration::from_secs(60);
}

/// The most data-plane threads.
const THREADS_MAX: usize = 256;

/// The most of what is counted: probes, crashes.
const COUNT_MAX: u32 = 1000;

/// With fewer no runtime starts.
const LEAST_OPEN_FILES: u64 = 16;

/// With less no process starts.
const LEAST_MEMORY: u64 = 1024 * 1024;

/// The most of what clients may have at a time: connections, requests, tunnels.
const CLIENT_MAX: usize = 1_000_000;

/// A shorter token is warned about.
const TOKEN_SHORT: usize = 16;

/// The heads that can be allowed: below the least, ordinary cookies do not fit (and hyper refuses); above the
/// most, a few clients can take the memory.
const HEADER_SIZE: (u64, u64) = (8 * 1024, 1024 * 1024);

/// How many fields of a head can be allowed: with fewer ordinary browsers are refused.
const HEADERS: (usize, usize) = (32, 4096);

/// What is known beside the keys.
#[derive(Debug)]
pub(super) struct Given<'a> {
    /// Flags and environment.
    pub(super) sources: &'a Sources,
    /// The file that was read.
    pub(super) file: Option<&'a Path>,
    /// Who runs.
    pub(super) who: &'a Who,
    /// Where.
    pub(super) host: &'a Host,
}

impl Given<'_> {
    fn env(&self) -> Env<'_> {
        Env(&self.sources.env)
    }

    /// Whether the environment alone configures a daemon, whose defaults are those of npm portok then.
    fn as_npm(&self) -> bool {
        self.file.is_none() && !self.sources.overrides.foreground
    }
}

/// Builds the configuration; whether it may be used depends on the reader's problems.
pub(super) fn validate(given: &Given<'_>, r: &mut Reader<'_>) -> Config {
    let name = name(given, r);
    let foreground = given.sources.overrides.foreground;
    let run_dir = paths::run_dir(&name, given.who, given.env(), foreground);
    let state_file = state_file(given, r, &name, &run_dir);
    let upstream = upstream(r);
    let config = Config {
        listen: listen(given, r),
        state_file,
        app: app(given, r),
        health: health(r),
        drain: drain(given, r),
        rollback: rollback(r),
        admin: admin(given, r, &run_dir),
        proxy: proxy(given, r),
        limits: client_limits(given, r, upstream.max_connections),
        upstream,
        hooks: Hooks { on_event: r.read("hooks.on_event", values::words) },
        log: Log { verbose_errors: r.read("log.verbose_errors", values::boolean).unwrap_or(false) },
        file: given.file.map(Path::to_owned),
        warnings: Vec::new(),
        name,
        run_dir,
    };
    fits_together(given, r, &config);
    config
}

fn name(given: &Given<'_>, r: &mut Reader<'_>) -> String {
    let instance = given.sources.instance.as_deref();
    let parse = |input: Input<'_>| -> Parsed<String> {
        let name = values::instance_name(input)?;
        match instance {
            Some(instance) if instance != name => Err(format!("\"{instance}\", as --instance says")),
            _ => Ok(name),
        }
    };
    if let Some(set) = r.read("name", parse) {
        return set;
    }
    if let Some(instance) = instance {
        return instance.to_owned();
    }
    let Some(file) = given.file else { return defaults::NAME.to_owned() };
    let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    if !is_instance_name(&stem) && !r.given("name") {
        r.problem(format!(
            "{}: name is missing and the file's stem {stem:?} cannot be one: expected {}",
            file.display(),
            values::NAME_EXPECTED
        ));
    }
    stem
}

fn state_file(given: &Given<'_>, r: &mut Reader<'_>, name: &str, run_dir: &Path) -> PathBuf {
    if let Some(set) = r.read("state_file", values::path) {
        return set;
    }
    if given.sources.overrides.foreground {
        return run_dir.join("state.json");
    }
    let (file, warning) = paths::state_file(name, given.who, given.env());
    r.warnings.extend(warning);
    std::path::absolute(&file).unwrap_or(file)
}

fn listen(given: &Given<'_>, r: &mut Reader<'_>) -> SocketAddr {
    // On a developer's machine nobody else is meant to reach it unasked.
    let host = if given.sources.overrides.foreground { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    let set = r.read("listen", values::listen(host));
    let flag = given.sources.overrides.listen.as_deref().map(|text| {
        values::listen(host)(Input::Text(text.trim()))
            .map_err(|expected| r.problem(format!("--listen = {text:?}: expected {expected}")))
    });
    let default = SocketAddr::from((host, defaults::LISTEN_PORT));
    flag.and_then(Result::ok).or(set).unwrap_or(default)
}

fn app(given: &Given<'_>, r: &mut Reader<'_>) -> App {
    let port_env =
        r.read("app.port_env", values::variable_name).unwrap_or_else(|| defaults::PORT_ENV.to_owned());
    let env = r.read_map("app.env", |name| match name {
        "" => Err("a variable's name, not an empty one".to_owned()),
        _ if name.contains(['=', '\0']) => Err("a variable's name, without `=` and NUL".to_owned()),
        _ if name == port_env => {
            Err(format!("no value for {name}: portok sets it to the port it chose (app.port_env)"))
        }
        _ => Ok(()),
    });
    let mut target = r.read("app.target", values::port);
    let mut command = r.read("app.command", values::command);
    if let Some(flag) = &given.sources.overrides.command {
        let empty = match flag {
            CommandLine::Shell(text) => text.trim().is_empty(),
            CommandLine::Exec(words) => words.first().is_none_or(|program| program.trim().is_empty()),
        };
        if empty {
            r.problem("--cmd = \"\": expected a command");
        }
        target = None;
        command = Some(flag.clone());
    } else if r.given("app.target") && r.given("app.command") {
        let expected = format!(
            "nothing, because {} is set too: portok either starts the app or is told where it runs",
            r.called("app.command")
        );
        r.reject("app.target", &expected);
    }
    App {
        target,
        command,
        directory: r.read("app.directory", values::path),
        env: env.into_iter().collect(),
        env_file: r.read("app.env_file", values::path),
        user: r.read("app.user", values::account),
        group: r.read("app.group", values::account),
        limits: app_limits(given, r),
        port_env,
        start_timeout: time(r, "app.start_timeout", SHORTEST, defaults::START_TIMEOUT),
        stop_signal: r.read("app.stop_signal", values::signal).unwrap_or(values::SIGTERM),
        stop_timeout: time(r, "app.stop_timeout", Duration::ZERO, defaults::STOP_TIMEOUT),
        restart: Restart {
            backoff: time(r, "app.restart.backoff", SHORTEST, defaults::BACKOFF),
            max_backoff: time(r, "app.restart.max_backoff", SHORTEST, defaults::MAX_BACKOFF),
            burst: count(r, "app.restart.burst", defaults::BURST),
            within: time(r, "app.restart.within", SHORTEST, defaults::WITHIN),
            give_up: flag(r, "app.restart.give_up", false),
        },
        owner_check: r.read("app.owner_check", values::choice(OWNER_CHECK)).unwrap_or(OwnerCheck::Warn),
        deploy_on_change: flag(r, "app.deploy_on_change", true),
    }
}

fn app_limits(given: &Given<'_>, r: &mut Reader<'_>) -> Limits {
    let limits = Limits {
        open_files: r.read("app.open_files", values::integer(LEAST_OPEN_FILES, u64::from(u32::MAX))),
        memory: r.read("app.memory", values::size(LEAST_MEMORY, i64::MAX as u64)),
        cpu: r.read("app.cpu", values::percent),
        tasks: r.read("app.tasks", values::integer(1, u64::from(u32::MAX))),
    };
    // Who only looks for the daemon is not the one who sets them.
    if given.sources.client {
        return limits;
    }
    let hard = given.host.open_files;
    if limits.open_files.is_some_and(|soft| soft > hard) {
        let expected =
            format!("at most {hard}, this process's own hard limit (LimitNOFILE= of a unit sets it)");
        r.reject("app.open_files", &expected);
    }
    let counted = [
        ("app.memory", limits.memory.is_some(), "memory"),
        ("app.cpu", limits.cpu.is_some(), "cpu"),
        ("app.tasks", limits.tasks.is_some(), "pids"),
    ];
    for (key, set, controller) in counted {
        if let Some(why) = given.host.refuses(controller).filter(|_| set) {
            r.reject(key, &format!("nothing, because portokd cannot hold an app to it: {why}"));
        }
    }
    limits
}

fn health(r: &mut Reader<'_>) -> Health {
    Health {
        path: r.read("health.path", values::url_path).unwrap_or_else(|| defaults::HEALTH_PATH.to_owned()),
        host: r.read("health.host", values::host).unwrap_or_else(|| defaults::HEALTH_HOST.to_owned()),
        timeout: time(r, "health.timeout", SHORTEST, defaults::HEALTH_TIMEOUT),
        successes: count(r, "health.successes", defaults::SUCCESSES),
    }
}

fn drain(given: &Given<'_>, r: &mut Reader<'_>) -> Drain {
    let affinity = if given.as_npm() { Affinity::Connection } else { Affinity::Request };
    Drain {
        period: time(r, "drain.period", Duration::ZERO, defaults::DRAIN),
        early: flag(r, "drain.early", false),
        affinity: r.read("drain.affinity", values::choice(AFFINITY)).unwrap_or(affinity),
    }
}

fn rollback(r: &mut Reader<'_>) -> Rollback {
    Rollback {
        window: time(r, "rollback.window", Duration::ZERO, defaults::WINDOW),
        interval: time(r, "rollback.interval", SHORTEST, defaults::INTERVAL),
        threshold: count(r, "rollback.threshold", defaults::THRESHOLD),
        standby: r.read("rollback.standby", values::choice(STANDBY)).unwrap_or(Standby::Drain),
    }
}

fn admin(given: &Given<'_>, r: &mut Reader<'_>, run_dir: &Path) -> Admin {
    let socket = r.read("admin.socket", values::socket_path);
    Admin {
        token: token(given, r).map(Secret::new),
        socket_configured: socket.is_some(),
        socket: Some(socket.unwrap_or_else(|| run_dir.join("admin.sock"))),
        socket_group: r.read("admin.socket_group", values::account),
        allow: r.read_list("admin.allow", values::net).unwrap_or_else(|| nets(&defaults::ALLOW)),
        hosts: r.read_list("admin.hosts", values::host_name).unwrap_or_default(),
        allow_forwarded: flag(r, "admin.allow_forwarded", false),
        rate_limit: r.read("admin.rate_limit", values::integer(1, 1_000_000)).unwrap_or(defaults::RATE_LIMIT),
        public: flag(r, "admin.public", true),
        prefix: r.read("admin.prefix", values::prefix).unwrap_or_else(|| defaults::PREFIX.to_owned()),
        remote_deploy: flag(r, "admin.remote_deploy", false),
    }
}

fn token(given: &Given<'_>, r: &mut Reader<'_>) -> Option<String> {
    let set = r.read("admin.token", values::token);
    let file = r.read("admin.token_file", values::path);
    if r.in_file("admin.token") && r.in_file("admin.token_file") {
        r.reject("admin.token_file", "nothing, because admin.token is set too");
    }
    if set.is_some() || r.given("admin.token") {
        return set;
    }
    let file = file?;
    let client = given.sources.client;
    let owner = if client { Owner::Any } else { Owner::Trusted };
    match files::read(&file, files::TOKEN_MAX, given.who, owner) {
        // The command line may run as somebody who reaches the daemon by its socket alone.
        Err(_) if client => None,
        Err(error) => {
            r.reject("admin.token_file", &format!("a file with the token in it, but: {error}"));
            None
        }
        Ok(content) => {
            let token = content.text.trim_end_matches(['\n', '\r']);
            if content.world_readable {
                r.warnings.push(format!(
                    "admin.token_file: everybody may read {}; run: chmod o-r {}",
                    file.display(),
                    file.display()
                ));
            }
            values::token(Input::Text(token))
                .map_err(|expected| {
                    r.reject("admin.token_file", &format!("a file that holds {expected}, and nothing else"));
                })
                .ok()
        }
    }
}

fn proxy(given: &Given<'_>, r: &mut Reader<'_>) -> Proxy {
    let by_default = if given.as_npm() { Forwarded::Append } else { Forwarded::Trusted };
    let file = r.read_file("proxy.forwarded", values::choice(FORWARDED));
    let forwarded = match r.read_variable("proxy.forwarded", values::boolean) {
        Some(false) => Forwarded::Off,
        Some(true) => file.filter(|file| *file != Forwarded::Off).unwrap_or(by_default),
        None => file.unwrap_or(by_default),
    };
    let (least, most) = HEADER_SIZE;
    let max_header_size =
        r.read("proxy.max_header_size", values::size(least, most)).unwrap_or(defaults::MAX_HEADER_SIZE);
    Proxy {
        threads: r.read("proxy.threads", values::integer(1, THREADS_MAX)).unwrap_or_else(cores),
        forwarded,
        trusted: r.read_list("proxy.trusted", values::net).unwrap_or_else(|| nets(&defaults::TRUSTED)),
        upgrades: r
            .read_list("proxy.upgrades", values::upgrade)
            .unwrap_or_else(|| defaults::UPGRADES.map(str::to_owned).into()),
        idle_timeout: time(r, "proxy.idle_timeout", SHORTEST, defaults::CLIENT_IDLE),
        header_timeout: time(r, "proxy.header_timeout", SHORTEST, defaults::HEADER),
        max_header_size: usize::try_from(max_header_size).unwrap_or(usize::MAX),
        max_body: r.read("proxy.max_body", values::size(0, u64::MAX)).filter(|limit| *limit != 0),
        fast_path: flag(r, "proxy.fast_path", false),
    }
}

fn nets(addresses: &[&str]) -> Vec<IpNet> {
    addresses.iter().filter_map(|address| values::net(Input::Text(address)).ok()).collect()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(THREADS_MAX))
}

fn upstream(r: &mut Reader<'_>) -> Upstream {
    let tcp_keepalive = time(r, "upstream.tcp_keepalive", SHORTEST, defaults::TCP_KEEPALIVE);
    Upstream {
        keepalive: flag(r, "upstream.keepalive", true),
        max_connections: r
            .read("upstream.max_connections", values::integer(1, 65_535))
            .unwrap_or(defaults::MAX_CONNECTIONS),
        connect_timeout: time(r, "upstream.connect_timeout", SHORTEST, defaults::CONNECT),
        response_timeout: time_or_none(r, "upstream.response_timeout", None),
        read_timeout: time_or_none(r, "upstream.read_timeout", None),
        timeout: time_or_none(r, "upstream.timeout", None),
        timeout_status: r
            .read("upstream.timeout_status", values::integer(400, 599))
            .unwrap_or(defaults::TIMEOUT_STATUS),
        idle_timeout: time(r, "upstream.idle_timeout", SHORTEST, defaults::UPSTREAM_IDLE),
        max_idle: r.read("upstream.max_idle", values::integer(0, 65_535)).unwrap_or(defaults::MAX_IDLE),
        // TCP_KEEPIDLE counts whole seconds, at most 32767 (tcp(7) and the kernel's MAX_TCP_KEEPIDLE).
        tcp_keepalive: Duration::from_secs(tcp_keepalive.as_millis().div_ceil(1000).min(32_767) as u64),
        debug: flag(r, "upstream.debug", false),
    }
}

fn client_limits(given: &Given<'_>, r: &mut Reader<'_>, max_connections: usize) -> ClientLimits {
    let (least, most) = defaults::CONNECTIONS;
    // A connection of a client takes one to the app as well, and each release its own files.
    let connections = (given.host.open_files / 4).clamp(least, most);
    let requests_per_address = (!given.as_npm()).then_some((max_connections / 2).max(1));
    ClientLimits {
        connections: r
            .read("limits.connections", values::integer(1, CLIENT_MAX))
            .unwrap_or_else(|| usize::try_from(connections).unwrap_or(usize::MAX)),
        connections_per_address: most_or_none(r, "limits.connections_per_address", None),
        requests_per_address: most_or_none(r, "limits.requests_per_address", requests_per_address),
        tunnels: r.read("limits.tunnels", values::integer(0, CLIENT_MAX)).unwrap_or(defaults::TUNNELS),
        headers: r.read("limits.headers", values::integer(HEADERS.0, HEADERS.1)).unwrap_or(defaults::HEADERS),
        body_timeout: time_or_none(r, "limits.body_timeout", Some(defaults::BODY)),
        send_timeout: time_or_none(r, "limits.send_timeout", Some(defaults::SEND)),
        tunnel_idle: time_or_none(r, "limits.tunnel_idle", None),
        requests_per_connection: r
            .read("limits.requests_per_connection", values::integer(0, u32::MAX))
            .filter(|most| *most != 0),
    }
}

/// What is only wrong, missing or odd together with something else.
fn fits_together(given: &Given<'_>, r: &mut Reader<'_>, config: &Config) {
    let Config { app, admin, proxy, rollback, .. } = config;
    if app.target == Some(config.listen.port()) && r.given("app.target") {
        let port = config.listen.port();
        r.reject("app.target", &format!("a port other than {port}, where portok itself listens"));
    }
    if app.restart.max_backoff < app.restart.backoff {
        let key = if r.given("app.restart.max_backoff") {
            "app.restart.max_backoff"
        } else {
            "app.restart.backoff"
        };
        let backoff = humantime::format_duration(app.restart.backoff);
        let most = humantime::format_duration(app.restart.max_backoff);
        r.reject(key, &format!("a backoff ({backoff}) that is not above the max_backoff ({most})"));
    }
    missing(given, r, app);
    if admin.token.as_ref().is_some_and(|token| token.expose().len() < TOKEN_SHORT) {
        r.warnings.push(format!(
            "{}: the token is shorter than {TOKEN_SHORT} characters and could be guessed",
            r.called("admin.token")
        ));
    }
    if proxy.header_timeout <= proxy.idle_timeout {
        r.warnings.push(format!(
            "{}: {} is not above {} ({})",
            r.called("proxy.header_timeout"),
            humantime::format_duration(proxy.header_timeout),
            r.called("proxy.idle_timeout"),
            humantime::format_duration(proxy.idle_timeout)
        ));
    }
    if !rollback.window.is_zero() && rollback.interval > rollback.window {
        r.warnings.push(format!(
            "{}: {} is longer than the watch window ({}), a bad release is only noticed when it exits",
            r.called("rollback.interval"),
            humantime::format_duration(rollback.interval),
            humantime::format_duration(rollback.window)
        ));
    }
}

fn missing(given: &Given<'_>, r: &mut Reader<'_>, app: &App) {
    let Sources { overrides, client, .. } = given.sources;
    let app_given = app.command.is_some() || r.given("app.target") || r.given("app.command");
    if given.file.is_some() {
        if !app_given {
            r.warnings.push(
                "neither app.command nor app.target is set: waiting for a first deploy or switch".to_owned(),
            );
        }
        return;
    }
    if *client {
        return;
    }
    if !app_given {
        let instead = if overrides.foreground { "--cmd or APP_COMMAND" } else { "APP_COMMAND" };
        r.problem(format!(
            "INITIAL_TARGET_PORT is missing: expected the app's port from 1 to 65535, or {instead} with the command \
             that starts it"
        ));
    }
    if !overrides.foreground && !r.given("admin.token") {
        r.problem("ADMIN_TOKEN is missing: expected the token that admin requests have to carry");
    }
}

fn time(r: &mut Reader<'_>, key: &'static str, min: Duration, default: Duration) -> Duration {
    r.read(key, values::duration(min)).unwrap_or(default)
}

fn time_or_none(r: &mut Reader<'_>, key: &'static str, default: Option<Duration>) -> Option<Duration> {
    r.read(key, values::duration_or_none).unwrap_or(default)
}

/// How many there may be at a time; 0 in the file is no limit.
fn most_or_none(r: &mut Reader<'_>, key: &'static str, default: Option<usize>) -> Option<usize> {
    r.read(key, values::integer(0, CLIENT_MAX)).map_or(default, |most| Some(most).filter(|most| *most != 0))
}

fn count(r: &mut Reader<'_>, key: &'static str, default: u32) -> u32 {
    r.read(key, values::integer(1, COUNT_MAX)).unwrap_or(default)
}

fn flag(r: &mut Reader<'_>, key: &'static str, default: bool) -> bool {
    r.read(key, values::boolean).unwrap_or(default)
}

/// The words of `app.owner_check`.
pub(super) const OWNER_CHECK: &[(&str, OwnerCheck)] =
    &[("warn", OwnerCheck::Warn), ("strict", OwnerCheck::Strict)];

/// The words of `drain.affinity`.
pub(super) const AFFINITY: &[(&str, Affinity)] =
    &[("request", Affinity::Request), ("connection", Affinity::Connection)];

/// The words of `rollback.standby`.
pub(super) const STANDBY: &[(&str, Standby)] = &[("drain", Standby::Drain), ("window", Standby::Window)];

/// The words of `proxy.forwarded`.
pub(super) const FORWARDED: &[(&str, Forwarded)] =
    &[("trusted", Forwarded::Trusted), ("append", Forwarded::Append), ("off", Forwarded::Off)];
