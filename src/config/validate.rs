//! From keys to a [`Config`]: the defaults, then what the sources set, then what has to fit
//! together.
//!
//! [`validate()`] does not stop at the first problem. It always builds a whole configuration, with
//! the default where a value is missing or bad, and notes each problem in the reader. If there are
//! any, the caller throws the configuration away.

use std::net::SocketAddr;
use std::sync::Arc;

use super::read::Reader;
use super::{App, AppConfig, Config, Limits, Sources, defaults, keys};

/// A shorter token is warned about.
const TOKEN_SHORT: usize = 16;

/// Builds the configuration. It may be used only if the reader has no problems afterwards.
pub(super) fn validate(r: &mut Reader<'_>) -> Config {
    let mut config = defaults::config(r.given);
    for key in keys::in_reading_order() {
        key.read(r, &mut config);
    }
    if !r.is_set("limits.requests_per_address") {
        let by_default = defaults::requests_per_address(r.given, &config.app.upstream);
        Arc::make_mut(&mut config.app).limits.requests_per_address = by_default;
    }
    if !r.given.sources.client {
        host_allows(r, &config.app.app.limits);
    }
    let app = Arc::make_mut(&mut config.app);
    app.name.clone_from(&config.name);
    app.most_fields = config.limits.headers;
    fits_together(r, &config);
    config
}

/// Rejects limits that this host cannot enforce. Not for a client, which starts no app.
fn host_allows(r: &mut Reader<'_>, limits: &Limits) {
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

/// Checks what is wrong or odd only together with something else.
fn fits_together(r: &mut Reader<'_>, config: &Config) {
    let Config { admin, proxy, .. } = config;
    let AppConfig { app, rollback, .. } = &*config.app;
    let own = config.listen.iter().map(SocketAddr::port).find(|port| app.target == Some(*port));
    if let Some(port) = own.filter(|_| r.is_set("app.target")) {
        r.reject("app.target", &format!("a port other than {port}, where portok itself listens"));
    }
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
    missing(r, app);
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
