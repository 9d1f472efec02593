//! The keys of one app: `[app]`, `[health]`, `[drain]`, `[rollback]`, `[upstream]`,
//! `[hooks]`.

use std::path::PathBuf;
use std::time::Duration;

use super::super::companions;
use super::super::read::Reader;
use super::super::show::{self, list, optional, or_zero};
use super::super::tiers;
use super::super::values::{self, Input, Parsed, SHORTEST, some};
use super::super::{
    Affinity, AppConfig, Balance, CommandLine, Mode, OwnerCheck, Protocol, Standby, Sticky, StopSignal,
    defaults,
};
use super::{Key, Records, replicas};

/// The most of what is counted: probes, crashes.
const COUNT_MAX: u32 = 1000;

/// With fewer open files no runtime starts.
const LEAST_OPEN_FILES: u64 = 16;

/// With less memory no process starts.
pub(crate) const LEAST_MEMORY: u64 = 1024 * 1024;

const OWNER_CHECK: &[(&str, OwnerCheck)] = &[("warn", OwnerCheck::Warn), ("strict", OwnerCheck::Strict)];

const AFFINITY: &[(&str, Affinity)] = &[("request", Affinity::Request), ("connection", Affinity::Connection)];

const STANDBY: &[(&str, Standby)] = &[("drain", Standby::Drain), ("window", Standby::Window)];

const BALANCE: &[(&str, Balance)] =
    &[("least", Balance::Least), ("round_robin", Balance::RoundRobin), ("random", Balance::Random)];

const STICKY: &[(&str, Sticky)] =
    &[("off", Sticky::Off), ("cookie", Sticky::Cookie), ("address", Sticky::Address)];

const PROTOCOL: &[(&str, Protocol)] = &[("http/1.1", Protocol::Http1), ("h2c", Protocol::H2c)];

const TOLD: &[(&str, bool)] = &[("off", false), ("v2", true)];

const MODE: &[(&str, Mode)] = &[("http", Mode::Http), ("tcp", Mode::Tcp)];

pub(super) const APP: &[Key] = &[
    row!(app, "app.target", some(values::port), optional(show::number), app.target)
        .variable("INITIAL_TARGET_PORT")
        .makes_release(|app| record("target", app.target)),
    Key::app("app.command", read_command, |config, _| config.app.command.as_ref().map(show::command))
        .variable("APP_COMMAND")
        .makes_release(|app| command_records("command", "command.word", app.command.as_ref())),
    replicas::REPLICAS,
    row!(app, "app.balance", values::choice(BALANCE), show::word(BALANCE), balance),
    row!(app, "app.sticky", values::choice(STICKY), show::word(STICKY), sticky),
    row!(app, "app.mode", values::choice(MODE), show::word(MODE), mode),
    Key::app(
        tiers::KEY,
        |_, reader, config| tiers::read(reader, &mut config.tiers),
        |config, secrets| config.tiers.as_ref().map(|tiers| tiers.show(secrets)),
    ),
    row!(
        app,
        "app.max_memory",
        some(values::size(LEAST_MEMORY, i64::MAX as u64)),
        optional(show::size),
        app.max_memory
    ),
    Key::app(
        "app.recycle_after",
        |key, reader, config| {
            reader.set(key, values::duration(Duration::ZERO), &mut config.app.recycle_after);
        },
        // It means something only beside the limit.
        |config, _| config.app.max_memory.map(|_| show::time(&config.app.recycle_after)),
    ),
    row!(app, "app.directory", some(values::path), optional(show::path), app.directory)
        .makes_release(|app| record("directory", lossy(&app.directory))),
    Key::app("app.env", read_env, |config, secrets| Some(show::table(&config.app.env, secrets)))
        .makes_release(|app| {
            let records = app.env.iter().map(|(name, value)| [("env.name", name), ("env.value", value)]);
            records.flatten().map(|(record, text)| (record, text.clone())).collect()
        }),
    row!(app, "app.env_file", some(values::path), optional(show::path), app.env_file)
        .makes_release(|app| record("env_file", lossy(&app.env_file))),
    Key::app(
        companions::KEY,
        |_, reader, config| companions::read(reader, &mut config.app.processes),
        |config, secrets| companions::show(&config.app.processes, secrets),
    )
    .makes_release(|app| companions::records(&app.processes)),
    row!(app, "app.user", some(values::account), optional(show::string), app.user)
        .makes_release(|app| record("user", app.user.as_ref())),
    row!(app, "app.group", some(values::account), optional(show::string), app.group)
        .makes_release(|app| record("group", app.group.as_ref())),
    row!(
        app,
        "app.open_files",
        some(values::integer(LEAST_OPEN_FILES, u64::from(u32::MAX))),
        optional(show::number),
        app.limits.open_files
    )
    .makes_release(|app| record("open_files", app.limits.open_files)),
    row!(
        app,
        "app.memory",
        some(values::size(LEAST_MEMORY, i64::MAX as u64)),
        optional(show::size),
        app.limits.memory
    )
    .makes_release(|app| record("memory", app.limits.memory)),
    row!(app, "app.cpu", some(values::percent), optional(show::percent), app.limits.cpu)
        .makes_release(|app| record("cpu", app.limits.cpu)),
    row!(
        app,
        "app.tasks",
        some(values::integer(1, u64::from(u32::MAX))),
        optional(show::number),
        app.limits.tasks
    )
    .makes_release(|app| record("tasks", app.limits.tasks)),
    row!(app, "app.port_env", values::variable_name, show::string, app.port_env).makes_release(|app| {
        record("port_env", Some(&app.port_env).filter(|name| *name != defaults::PORT_ENV))
    }),
    row!(app, "app.before", some(values::command), optional(show::command), app.before)
        .makes_release(|app| command_records("before", "before.word", app.before.as_ref())),
    row!(app, "app.before_timeout", values::duration(SHORTEST), show::time, app.before_timeout),
    row!(app, "app.verify", some(values::command), optional(show::command), app.verify)
        .makes_release(|app| command_records("verify", "verify.word", app.verify.as_ref())),
    row!(app, "app.verify_timeout", values::duration(SHORTEST), show::time, app.verify_timeout),
    row!(app, "app.start_timeout", values::duration(SHORTEST), show::time, app.start_timeout),
    row!(
        app,
        "app.stop_signal",
        values::signal,
        |signal: &StopSignal| show::string(signal.name),
        app.stop_signal
    ),
    row!(app, "app.stop_timeout", values::duration(Duration::ZERO), show::time, app.stop_timeout),
    row!(app, "app.owner_check", values::choice(OWNER_CHECK), show::word(OWNER_CHECK), app.owner_check),
    row!(app, "app.deploy_on_change", values::boolean, show::number, app.deploy_on_change),
    row!(app, "app.restart.backoff", values::duration(SHORTEST), show::time, app.restart.backoff),
    row!(app, "app.restart.max_backoff", values::duration(SHORTEST), show::time, app.restart.max_backoff),
    row!(app, "app.restart.burst", values::integer(1, COUNT_MAX), show::number, app.restart.burst),
    row!(app, "app.restart.within", values::duration(SHORTEST), show::time, app.restart.within),
    row!(app, "app.restart.give_up", values::boolean, show::number, app.restart.give_up),
];

pub(super) const HEALTH: &[Key] = &[
    Key::app(
        "health.path",
        |key, reader, config| reader.set(key, values::url_path, &mut config.health.path),
        // It means something only where it is asked for.
        |config, _| (config.health.key() == "health.path").then(|| show::string(&config.health.path)),
    )
    .variable("HEALTH_PATH"),
    Key::app(
        "health.host",
        |key, reader, config| reader.set(key, values::host, &mut config.health.host),
        |config, _| (!config.health.tcp).then(|| show::string(&config.health.host)),
    ),
    row!(app, "health.tcp", values::boolean, show::number, health.tcp),
    row!(app, "health.grpc", some(values::grpc_service), optional(show::string), health.grpc),
    row!(app, "health.timeout", values::duration(SHORTEST), show::time, health.timeout)
        .variable("HEALTH_TIMEOUT_MS"),
    row!(app, "health.successes", values::integer(1, COUNT_MAX), show::number, health.successes),
    row!(
        app,
        "health.failures",
        some(values::integer(1, COUNT_MAX)),
        optional(show::number),
        health.failures
    ),
    row!(app, "health.interval", some(values::duration(SHORTEST)), optional(show::time), health.interval),
];

pub(super) const DRAIN: &[Key] = &[
    row!(app, "drain.period", values::duration(Duration::ZERO), show::time, drain.period)
        .variable("DRAIN_MS"),
    row!(app, "drain.tunnels", some(values::duration(Duration::ZERO)), optional(show::time), drain.tunnels),
    row!(app, "drain.early", values::boolean, show::number, drain.early),
    row!(app, "drain.affinity", values::choice(AFFINITY), show::word(AFFINITY), drain.affinity)
        .variable("DRAIN_AFFINITY"),
];

pub(super) const ROLLBACK: &[Key] = &[
    row!(app, "rollback.window", values::duration(Duration::ZERO), show::time, rollback.window)
        .variable("ROLLBACK_WINDOW_MS"),
    row!(app, "rollback.interval", values::duration(SHORTEST), show::time, rollback.interval)
        .variable("ROLLBACK_CHECK_EVERY_MS"),
    row!(app, "rollback.threshold", values::integer(1, COUNT_MAX), show::number, rollback.threshold)
        .variable("ROLLBACK_FAIL_THRESHOLD"),
    row!(app, "rollback.standby", values::choice(STANDBY), show::word(STANDBY), rollback.standby),
];

pub(super) const UPSTREAM: &[Key] = &[
    row!(app, "upstream.protocol", values::choice(PROTOCOL), show::word(PROTOCOL), upstream.protocol),
    row!(app, "upstream.proxy_protocol", values::choice(TOLD), show::word(TOLD), upstream.proxy_protocol),
    row!(app, "upstream.keepalive", values::boolean, show::number, upstream.keepalive)
        .variable("UPSTREAM_KEEPALIVE"),
    row!(app, "upstream.max_connections", values::integer(1, 65_535), show::number, upstream.max_connections)
        .variable("UPSTREAM_MAX_SOCKETS"),
    row!(app, "upstream.connect_timeout", values::duration(SHORTEST), show::time, upstream.connect_timeout),
    row!(
        app,
        "upstream.response_timeout",
        values::duration_or_none,
        or_zero(show::time),
        upstream.response_timeout
    ),
    row!(app, "upstream.read_timeout", values::duration_or_none, or_zero(show::time), upstream.read_timeout),
    row!(app, "upstream.timeout", values::duration_or_none, or_zero(show::time), upstream.timeout),
    row!(app, "upstream.timeout_status", values::integer(400, 599), show::number, upstream.timeout_status),
    row!(app, "upstream.idle_timeout", values::duration(SHORTEST), show::time, upstream.idle_timeout),
    row!(app, "upstream.max_idle", values::integer(0, 65_535), show::number, upstream.max_idle),
    row!(app, "upstream.tcp_keepalive", whole_seconds, show::time, upstream.tcp_keepalive)
        .variable("UPSTREAM_KEEPALIVE_MSECS"),
    row!(app, "upstream.retries", values::integer(0, COUNT_MAX), show::number, upstream.retries),
    row!(app, "upstream.eject_for", values::duration(SHORTEST), show::time, upstream.eject_for),
    Key::app("upstream.eject_on", read_eject_on, |config, _| {
        Some(list(show::number)(&config.upstream.eject_on))
    }),
    row!(app, "upstream.debug", values::boolean, show::number, upstream.debug).variable("DEBUG_UPSTREAM"),
];

pub(super) const HOOKS: &[Key] =
    &[row!(app, "hooks.on_event", some(values::words), optional(list(show::string)), hooks.on_event)];

/// The command, from the command line's flag before all other sources. It excludes a target.
fn read_command(key: &'static str, r: &mut Reader<'_>, config: &mut AppConfig) {
    let app = &mut config.app;
    r.set(key, some(values::command), &mut app.command);
    if let Some(flag) = &r.given.sources.overrides.command {
        let empty = match flag {
            CommandLine::Shell(text) => text.trim().is_empty(),
            CommandLine::Exec(words) => words.first().is_none_or(|program| program.trim().is_empty()),
        };
        if empty {
            r.problem("--cmd = \"\": expected a command");
        }
        app.target = None;
        app.command = Some(flag.clone());
    } else if r.is_set("app.target") && r.is_set(key) && !r.is_of_several() {
        let called = r.called(key);
        let expected = format!(
            "nothing, because {called} is set too: portok either starts the app or is told where it runs"
        );
        r.reject("app.target", &expected);
    }
}

/// The statuses of answers, each once.
fn read_eject_on(key: &'static str, r: &mut Reader<'_>, config: &mut AppConfig) {
    let statuses = 400..=599_u16;
    let most = statuses.len();
    if let Some(list) = r.read_different(key, 0..=most, values::integer(*statuses.start(), *statuses.end())) {
        config.upstream.eject_on = list;
    }
}

/// The variables, among which the port's own cannot be.
fn read_env(key: &'static str, r: &mut Reader<'_>, config: &mut AppConfig) {
    let app = &mut config.app;
    let port_env = &app.port_env;
    let env = r.read_map(key, |name| match values::is_variable(name) {
        Ok(()) if name == port_env => {
            Err(format!("no value for {name}: portok sets it to the port it chose (app.port_env)"))
        }
        parsed => parsed,
    });
    app.env = env.into_iter().collect();
}

/// `TCP_KEEPIDLE` counts whole seconds, at most 32767 (tcp(7), the kernel's `MAX_TCP_KEEPIDLE`).
fn whole_seconds(input: Input<'_>) -> Parsed<Duration> {
    const MAX: u64 = 32_767;
    let time = values::duration(SHORTEST)(input)?;
    let seconds = u64::try_from(time.as_millis().div_ceil(1000)).unwrap_or(MAX);
    Ok(Duration::from_secs(seconds.min(MAX)))
}

/// The records of a command: one of a `text` for the shell, one a `word` else.
fn command_records(text: &'static str, word: &'static str, command: Option<&CommandLine>) -> Records {
    match command {
        Some(CommandLine::Shell(shell)) => vec![(text, shell.clone())],
        Some(CommandLine::Exec(words)) => words.iter().map(|each| (word, each.clone())).collect(),
        None => Vec::new(),
    }
}

/// One record, where there is a value.
fn record(name: &'static str, value: Option<impl ToString>) -> Records {
    value.map(|value| (name, value.to_string())).into_iter().collect()
}

fn lossy(path: &Option<PathBuf>) -> Option<String> {
    path.as_ref().map(|path| path.to_string_lossy().into_owned())
}
