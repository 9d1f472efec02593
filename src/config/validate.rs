//! From keys to a [`Config`]: the defaults, then what the sources set, then what has to fit
//! together.
//!
//! [`validate()`] does not stop at the first problem. It always builds a whole configuration, with
//! the default where a value is missing or bad, and notes each problem in the reader. If there are
//! any, the caller throws the configuration away. Of an instance of several apps it builds all but
//! these: [`super::one_of_several`] reads each of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::address::overlaps;
use super::keys::{self, Key};
use super::read::Reader;
use super::{App, AppConfig, AppTls, Config, Limits, Rollback, Several, Sources, Upstream};
use super::{defaults, health, recreate, tcp};

/// A shorter token is warned about.
const TOKEN_SHORT: usize = 16;

/// How many apps an instance has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    Several,
}

/// Builds the configuration. It may be used only if the reader has no problems afterwards.
pub(super) fn validate(r: &mut Reader<'_>, shape: Shape) -> Config {
    let mut config = defaults::config(r.given);
    if shape == Shape::Several {
        config.apps = Some(Several { removal_delay: Duration::from_secs(5), ..Several::default() });
        // A prefix that is reserved on the hosts of every app is not acceptable.
        config.admin.public = false;
    }
    for key in keys::in_reading_order() {
        match shape {
            Shape::One if key.is_for_several() => only_for_several(r, key),
            Shape::Several if key.name.starts_with("app.") => only_for_one(r, key),
            Shape::One | Shape::Several => key.read(r, &mut config),
        }
    }
    derive(r, &mut config);
    let is_set = health::fits(r, &mut Arc::make_mut(&mut config.app).health);
    if shape == Shape::One {
        tells_clients(r, &mut Arc::make_mut(&mut config.app).upstream);
        let has_tls = config.tls.is_some();
        tcp::fits(r, Arc::make_mut(&mut config.app), has_tls, is_set);
        host_allows(r, &config.app.app.limits);
        app_fits_together(r, &config);
        tls_fits(r, &config.app.tls, config.tls.is_some());
        recreate::fits(r, Arc::make_mut(&mut config.app));
        missing(r, &config.app.app);
    }
    fits_together(r, &config);
    config
}

/// A key of `[apps.NAME]` and of what stands for every one.
fn only_for_several(r: &mut Reader<'_>, key: &Key) {
    if r.in_file(key.name) {
        r.reject(key.name, "nothing, because only an instance of several apps has it ([apps.NAME])");
    }
}

/// A key of `[app]`; that the file has one beside several apps is noted by the caller.
fn only_for_one(r: &mut Reader<'_>, key: &Key) {
    let expected = "nothing, because this instance has several apps, each with its own";
    let _never = r.read_variable(key.name, |_| Err::<(), _>(expected.to_owned()));
}

/// What follows from other keys where it is not set.
fn derive(r: &Reader<'_>, config: &mut Config) {
    let app = Arc::make_mut(&mut config.app);
    if !r.is_set("limits.requests_per_address") {
        app.limits.requests_per_address = defaults::requests_per_address(r.given, &app.upstream);
    }
    app.name.clone_from(&config.name);
    app.most_fields = config.limits.headers;
}

/// A connection that names its client is never another one's.
pub(super) fn tells_clients(r: &mut Reader<'_>, upstream: &mut Upstream) {
    if !upstream.proxy_protocol {
        return;
    }
    if upstream.keepalive && r.is_set("upstream.keepalive") {
        let called = r.called("upstream.proxy_protocol");
        r.reject(
            "upstream.keepalive",
            &format!("false, because {called} = \"v2\": a connection is one client's"),
        );
    }
    upstream.keepalive = false;
}

/// Rejects limits that this host cannot enforce. Not for a client, which starts no app.
pub(super) fn host_allows(r: &mut Reader<'_>, limits: &Limits) {
    if r.given.sources.client {
        return;
    }
    let host = r.given.host;
    let hard = host.open_files;
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
        if let Some(why) = host.refuses(controller).filter(|_| set) {
            r.reject(key, &format!("nothing, because portokd cannot hold an app to it: {why}"));
        }
    }
}

/// Checks what is wrong or odd in the instance only together with something else.
fn fits_together(r: &mut Reader<'_>, config: &Config) {
    let Config { admin, proxy, .. } = config;
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
    let plain_too = |own: &SocketAddr| config.listen.iter().any(|plain| overlaps(*plain, *own));
    let acme = config.tls.as_ref().and_then(|tls| tls.acme.as_ref());
    if config.apps.is_none() && acme.is_some_and(|acme| acme.hosts.is_empty()) {
        let why = "is not set, and one app alone names no hosts: no certificate is ordered";
        r.warnings.push(format!("tls.acme.hosts: it {why}"));
    }
    if let Some(both) = config.tls.iter().flat_map(|tls| &tls.listen).find(|own| plain_too(own)) {
        let plain = r.called("listen");
        r.reject("tls.listen", &format!("addresses other than {both}, which is one of {plain}"));
    }
    watch_window(r, &config.app.rollback);
}

/// Checks what is wrong in `[app]` only together with something else.
fn app_fits_together(r: &mut Reader<'_>, config: &Config) {
    let App { target, .. } = config.app.app;
    let own = config.own_addresses().map(|addr| addr.port()).find(|port| target == Some(*port));
    let config = &*config.app;
    let AppConfig { app, .. } = config;
    if let Some(port) = own.filter(|_| r.is_set("app.target")) {
        r.reject("app.target", &format!("a port other than {port}, where portok itself listens"));
    }
    keys::replicas_fit(r, config);
    if app.command.is_none() && r.is_set("app.processes") {
        let expected = "nothing, because app.command is not set: they run beside the processes of a release";
        r.reject("app.processes", expected);
    }
    if app.command.is_none() && r.is_set("app.max_memory") {
        let expected = "nothing, because app.command is not set: only processes of portok's are replaced";
        r.reject("app.max_memory", expected);
    }
    for key in ["app.before", "app.verify"] {
        if app.target.is_some() && r.is_set(key) {
            r.reject(key, "nothing, because app.target is set: portok deploys nothing there");
        }
    }
    restarts(r, app);
}

/// Checks an app's own certificate: one without a key, or the other way round, is none.
pub(super) fn tls_fits(r: &mut Reader<'_>, tls: &AppTls, is_used: bool) {
    const KEYS: [&str; 2] = ["app.tls.cert", "app.tls.key"];
    for (key, other) in [(KEYS[0], KEYS[1]), (KEYS[1], KEYS[0])] {
        if r.in_file(key) && !r.in_file(other) {
            let other = r.called(other);
            r.reject(key, &format!("{other} beside it: a certificate and its key make a pair"));
        }
    }
    if !is_used && tls.pair().is_some() {
        let called = r.called(KEYS[0]);
        r.warnings.push(format!("{called}: tls.listen is not set, so nobody is shown this certificate"));
    }
}

/// Checks the delays of restarts.
pub(super) fn restarts(r: &mut Reader<'_>, app: &App) {
    if app.restart.max_backoff < app.restart.backoff {
        let key = if r.is_set("app.restart.max_backoff") {
            "app.restart.max_backoff"
        } else {
            "app.restart.backoff"
        };
        let backoff = humantime::format_duration(app.restart.backoff);
        let most = humantime::format_duration(app.restart.max_backoff);
        r.reject(key, &format!("a backoff ({backoff}) that is not above the max_backoff ({most})"));
    }
}

/// Warns of a watch window in which nothing is probed.
pub(super) fn watch_window(r: &mut Reader<'_>, rollback: &Rollback) {
    if !rollback.window.is_zero() && rollback.interval > rollback.window {
        r.warnings.push(format!(
            "{}: {} is longer than the watch window ({}), a bad release is only noticed when it exits",
            r.called("rollback.interval"),
            humantime::format_duration(rollback.interval),
            humantime::format_duration(rollback.window)
        ));
    }
}

/// Checks that everything a daemon needs is set.
fn missing(r: &mut Reader<'_>, app: &App) {
    let Sources { overrides, client, .. } = r.given.sources;
    let app_given = app.command.is_some() || r.is_set("app.target") || r.is_set("app.command");
    if r.given.file.is_some() {
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
    if !overrides.foreground && !r.is_set("admin.token") {
        r.problem("ADMIN_TOKEN is missing: expected the token that admin requests have to carry");
    }
}
