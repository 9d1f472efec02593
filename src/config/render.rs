//! The way back from a [`Config`] to text: for `--check`, and to compare two configurations key by key.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use super::keys::{KEYS, MASK, looks_secret, split};
use super::validate::{AFFINITY, FORWARDED, OWNER_CHECK, STANDBY};
use super::*;

/// Whether secrets stand in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Secrets {
    /// As `***`.
    Masked,
    /// As they are: only for comparing.
    Shown,
}

impl Config {
    /// The whole configuration as TOML that loads again: every key with its value, secrets as `***`. Keys
    /// without a value are comments.
    pub fn effective_toml(&self) -> String {
        let mut text = String::new();
        let mut last = "";
        for key in KEYS {
            let (table, word) = split(key.name);
            if table != last {
                let _ = write!(text, "\n[{table}]\n");
                last = table;
            }
            let _ = match value(self, key.name, Secrets::Masked) {
                Some(value) => writeln!(text, "{word} = {value}"),
                None if key.name == "admin.token_file" && self.admin.token.is_some() => {
                    writeln!(text, "# {word}: what is in it shows as token")
                }
                None => writeln!(text, "# {word} is not set"),
            };
        }
        text
    }
}

/// The value of `key` as TOML; `None` where it has none.
pub(super) fn value(config: &Config, key: &str, secrets: Secrets) -> Option<String> {
    let Config { app, health, drain, rollback, admin, proxy, upstream, limits, .. } = config;
    let restart = &app.restart;
    Some(match key {
        "name" => string(&config.name),
        "listen" => string(&config.listen.to_string()),
        "state_file" => path(&config.state_file),
        "app.target" => app.target?.to_string(),
        "app.command" => command(app.command.as_ref()?),
        "app.directory" => path(app.directory.as_ref()?),
        "app.env" => table(&app.env, secrets),
        "app.env_file" => path(app.env_file.as_ref()?),
        "app.user" => string(app.user.as_ref()?),
        "app.group" => string(app.group.as_ref()?),
        "app.open_files" => app.limits.open_files?.to_string(),
        "app.memory" => size(app.limits.memory?),
        "app.cpu" => string(&format!("{}%", app.limits.cpu?)),
        "app.tasks" => app.limits.tasks?.to_string(),
        "app.port_env" => string(&app.port_env),
        "app.start_timeout" => time(app.start_timeout),
        "app.stop_signal" => string(app.stop_signal.name),
        "app.stop_timeout" => time(app.stop_timeout),
        "app.owner_check" => word(OWNER_CHECK, app.owner_check),
        "app.deploy_on_change" => app.deploy_on_change.to_string(),
        "app.restart.backoff" => time(restart.backoff),
        "app.restart.max_backoff" => time(restart.max_backoff),
        "app.restart.burst" => restart.burst.to_string(),
        "app.restart.within" => time(restart.within),
        "app.restart.give_up" => restart.give_up.to_string(),
        "health.path" => string(&health.path),
        "health.host" => string(&health.host),
        "health.timeout" => time(health.timeout),
        "health.successes" => health.successes.to_string(),
        "drain.period" => time(drain.period),
        "drain.early" => drain.early.to_string(),
        "drain.affinity" => word(AFFINITY, drain.affinity),
        "rollback.window" => time(rollback.window),
        "rollback.interval" => time(rollback.interval),
        "rollback.threshold" => rollback.threshold.to_string(),
        "rollback.standby" => word(STANDBY, rollback.standby),
        "admin.token" => secret(admin.token.as_ref()?.expose(), secrets),
        "admin.socket" => path(admin.socket.as_ref()?),
        "admin.socket_group" => string(admin.socket_group.as_ref()?),
        "admin.allow" => list(admin.allow.iter().map(net)),
        "admin.hosts" => list(&admin.hosts),
        "admin.allow_forwarded" => admin.allow_forwarded.to_string(),
        "admin.rate_limit" => admin.rate_limit.to_string(),
        "admin.public" => admin.public.to_string(),
        "admin.prefix" => string(&admin.prefix),
        "admin.remote_deploy" => admin.remote_deploy.to_string(),
        "proxy.threads" => proxy.threads.to_string(),
        "proxy.forwarded" => word(FORWARDED, proxy.forwarded),
        "proxy.trusted" => list(proxy.trusted.iter().map(net)),
        "proxy.upgrades" => list(&proxy.upgrades),
        "proxy.idle_timeout" => time(proxy.idle_timeout),
        "proxy.header_timeout" => time(proxy.header_timeout),
        "proxy.max_header_size" => size(proxy.max_header_size as u64),
        "proxy.max_body" => size(proxy.max_body.unwrap_or(0)),
        "proxy.fast_path" => proxy.fast_path.to_string(),
        "upstream.keepalive" => upstream.keepalive.to_string(),
        "upstream.max_connections" => upstream.max_connections.to_string(),
        "upstream.connect_timeout" => time(upstream.connect_timeout),
        "upstream.response_timeout" => time(upstream.response_timeout.unwrap_or_default()),
        "upstream.read_timeout" => time(upstream.read_timeout.unwrap_or_default()),
        "upstream.timeout" => time(upstream.timeout.unwrap_or_default()),
        "upstream.timeout_status" => upstream.timeout_status.to_string(),
        "upstream.max_idle" => upstream.max_idle.to_string(),
        "upstream.idle_timeout" => time(upstream.idle_timeout),
        "upstream.tcp_keepalive" => time(upstream.tcp_keepalive),
        "upstream.debug" => upstream.debug.to_string(),
        "limits.connections" => limits.connections.to_string(),
        "limits.connections_per_address" => limits.connections_per_address.unwrap_or(0).to_string(),
        "limits.requests_per_address" => limits.requests_per_address.unwrap_or(0).to_string(),
        "limits.tunnels" => limits.tunnels.to_string(),
        "limits.headers" => limits.headers.to_string(),
        "limits.body_timeout" => time(limits.body_timeout.unwrap_or_default()),
        "limits.send_timeout" => time(limits.send_timeout.unwrap_or_default()),
        "limits.tunnel_idle" => time(limits.tunnel_idle.unwrap_or_default()),
        "limits.requests_per_connection" => limits.requests_per_connection.unwrap_or(0).to_string(),
        "hooks.on_event" => list(config.hooks.on_event.as_ref()?),
        "log.verbose_errors" => config.log.verbose_errors.to_string(),
        // `admin.token_file`: what counts is the token in it.
        _ => return None,
    })
}

fn string(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn secret(text: &str, secrets: Secrets) -> String {
    string(if secrets == Secrets::Masked { MASK } else { text })
}

fn path(path: &Path) -> String {
    string(&path.to_string_lossy())
}

fn time(time: Duration) -> String {
    string(&if time.is_zero() { "0".to_owned() } else { humantime::format_duration(time).to_string() })
}

fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = UNITS.iter().find(|(_, unit)| bytes != 0 && bytes.is_multiple_of(*unit));
    string(&unit.map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit)))
}

fn word<T: Copy + PartialEq>(words: &[(&str, T)], value: T) -> String {
    string(words.iter().find(|(_, known)| *known == value).map_or("", |(word, _)| word))
}

fn list(items: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| string(item.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

fn command(command: &CommandLine) -> String {
    match command {
        CommandLine::Shell(text) => string(text),
        CommandLine::Exec(words) => list(words),
    }
}

/// A single address is shown without its prefix length.
fn net(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}

fn table(entries: &BTreeMap<String, String>, secrets: Secrets) -> String {
    if entries.is_empty() {
        return "{}".to_owned();
    }
    let entries: Vec<_> = entries
        .iter()
        .map(|(name, value)| {
            // A name may hide what it holds; a URL with a user and a password does not.
            let with_login = value.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
            let mask = if looks_secret(name) || with_login { secrets } else { Secrets::Shown };
            let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            let name = if bare { name.clone() } else { string(name) };
            format!("{name} = {}", secret(value, mask))
        })
        .collect();
    format!("{{ {} }}", entries.join(", "))
}
