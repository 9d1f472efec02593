//! The keys of the instance: its name, its addresses and files, `[admin]`, `[proxy]`.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use super::super::files::{self, Owner};
use super::super::read::Reader;
use super::super::show::{self, list, optional, or_zero, secret};
use super::super::values::{self, Input, Parsed, SHORTEST, none_if_zero, some};
use super::super::{
    Config, Forwarded, ForwardedHeader, ProxyProtocol, RequestId, Secret, defaults, is_instance_name, paths,
};
use super::{Key, OnChange};

/// The sizes of a head that can be configured. Ordinary cookies do not fit below the least (and
/// hyper refuses less); above the most, a few clients can take all memory.
const HEADER_SIZE: (usize, usize) = (8 * 1024, 1024 * 1024);

/// The most addresses to listen on: a descriptor each, in every daemon that takes them over.
pub(super) const LISTEN_MAX: usize = 64;

/// The most requests of one connection of HTTP/2 at a time: each may hold memory of its own.
const STREAMS_MAX: u32 = 10_000;

/// Answers to a request that no app is for.
const NO_ROUTE_STATUS: &[u16] = &[404, 400];

const FORWARDED: &[(&str, Forwarded)] =
    &[("trusted", Forwarded::Trusted), ("append", Forwarded::Append), ("off", Forwarded::Off)];

const FORWARDED_HEADER: &[(&str, ForwardedHeader)] = &[
    ("x-forwarded", ForwardedHeader::XForwarded),
    ("forwarded", ForwardedHeader::Forwarded),
    ("both", ForwardedHeader::Both),
];

const PROXY_PROTOCOL: &[(&str, ProxyProtocol)] = &[
    ("off", ProxyProtocol::Off),
    ("v1", ProxyProtocol::V1),
    ("v2", ProxyProtocol::V2),
    ("any", ProxyProtocol::Any),
];

const REQUEST_ID: &[(&str, RequestId)] =
    &[("off", RequestId::Off), ("keep", RequestId::Keep), ("make", RequestId::Make)];

pub(super) const TOP: &[Key] = &[
    Key::instance("name", read_name, |config, _| Some(show::string(&config.name)))
        .variable("INSTANCE_NAME")
        .on_change(OnChange::Refuse("the instance's socket and files carry it; restart portokd")),
    Key::instance("listen", read_listen, |config, _| Some(show::one_or_more(show::text)(&config.listen)))
        .variable("LISTEN_PORT")
        .on_change(OnChange::Rebind),
    Key::instance("removal_delay", read_removal_delay, |config, _| {
        config.apps.as_ref().map(|apps| show::time(&apps.removal_delay))
    })
    .for_several(),
    Key::instance("state_file", read_state_file, |config, _| Some(show::path(&config.state_file)))
        .variable("STATE_FILE")
        .on_change(OnChange::Refuse("the record in use cannot move; restart portokd")),
];

pub(super) const ADMIN: &[Key] = &[
    Key::instance("admin.token", read_token, |config, secrets| {
        config.admin.token.as_ref().map(|token| secret(token.expose(), secrets))
    })
    .variable("ADMIN_TOKEN"),
    // Shown as the token in it, which counts.
    Key::instance("admin.token_file", read_token_file, |_, _| None),
    Key::instance("admin.socket", read_socket, |config, _| config.admin.socket.as_ref().map(show::path))
        .variable("ADMIN_UNIX_SOCKET")
        .on_change(OnChange::ReopenSocket),
    row!(instance, "admin.socket_group", some(values::account), optional(show::string), admin.socket_group)
        .on_change(OnChange::ReopenSocket),
    row!(instance, "admin.allow", [values::net], list(show::net), admin.allow).variable("ADMIN_ALLOWLIST"),
    row!(instance, "admin.hosts", [values::host_name], list(show::string), admin.hosts),
    row!(instance, "admin.allow_forwarded", values::boolean, show::number, admin.allow_forwarded),
    row!(instance, "admin.rate_limit", values::integer(1, 1_000_000), show::number, admin.rate_limit),
    row!(instance, "admin.public", values::boolean, show::number, admin.public),
    row!(instance, "admin.prefix", values::prefix, show::string, admin.prefix),
    row!(instance, "admin.remote_deploy", values::boolean, show::number, admin.remote_deploy),
];

pub(super) const PROXY: &[Key] = &[
    row!(instance, "proxy.threads", values::integer(1, defaults::THREADS_MAX), show::number, proxy.threads)
        .variable("PORTOK_THREADS")
        .on_change(OnChange::Refuse("the threads are started once; restart portokd")),
    Key::instance("proxy.forwarded", read_forwarded, |config, _| {
        Some(show::word(FORWARDED)(&config.proxy.forwarded))
    })
    .variable("ENABLE_XFWD"),
    row!(instance, "proxy.trusted", [values::net], list(show::net), proxy.trusted),
    row!(instance, "proxy.upgrades", [values::upgrade], list(show::string), proxy.upgrades),
    row!(
        instance,
        "proxy.proxy_protocol",
        values::choice(PROXY_PROTOCOL),
        show::word(PROXY_PROTOCOL),
        proxy.proxy_protocol
    ),
    row!(instance, "proxy.http2", values::boolean, show::number, proxy.http2),
    row!(instance, "proxy.max_streams", values::integer(1, STREAMS_MAX), show::number, proxy.max_streams),
    row!(instance, "proxy.idle_timeout", values::duration(SHORTEST), show::time, proxy.idle_timeout)
        .variable("SERVER_KEEPALIVE_TIMEOUT"),
    row!(instance, "proxy.header_timeout", values::duration(SHORTEST), show::time, proxy.header_timeout)
        .variable("SERVER_HEADERS_TIMEOUT"),
    row!(instance, "proxy.max_header_size", header_size, header_size_shown, proxy.max_header_size),
    row!(
        instance,
        "proxy.max_body",
        none_if_zero(values::size(0, u64::MAX)),
        or_zero(show::size),
        proxy.max_body
    ),
    row!(
        instance,
        "proxy.no_route_status",
        values::choice_of(NO_ROUTE_STATUS),
        show::number,
        proxy.no_route_status
    )
    .for_several(),
    row!(instance, "proxy.ping", some(values::url_path), optional(show::string), proxy.ping),
    row!(instance, "proxy.ping_host", some(values::host_name), optional(show::string), proxy.ping_host),
    row!(instance, "proxy.fast_path", values::boolean, show::number, proxy.fast_path).variable("FAST_PATH"),
    row!(
        instance,
        "proxy.forwarded_header",
        values::choice(FORWARDED_HEADER),
        show::word(FORWARDED_HEADER),
        proxy.forwarded_header
    ),
    row!(instance, "proxy.real_ip", values::boolean, show::number, proxy.real_ip),
    row!(instance, "proxy.request_id", values::choice(REQUEST_ID), show::word(REQUEST_ID), proxy.request_id),
    row!(instance, "proxy.debug", values::boolean, show::number, proxy.debug),
];

/// The name, and the folder that is called by it. By default it is `--instance`'s, else the stem of
/// the file's name.
fn read_name(key: &'static str, r: &mut Reader<'_>, config: &mut Config) {
    let given = r.given;
    let instance = given.sources.instance.as_deref();
    let parse = |input: Input<'_>| -> Parsed<String> {
        let name = values::instance_name(input)?;
        match instance {
            Some(instance) if instance != name => Err(format!("\"{instance}\", as --instance says")),
            _ => Ok(name),
        }
    };
    config.name = match (r.read(key, parse), instance, given.file) {
        (Some(set), _, _) => set,
        (None, Some(instance), _) => instance.to_owned(),
        (None, None, None) => defaults::NAME.to_owned(),
        (None, None, Some(file)) => {
            let stem = paths::stem(file, given.env());
            if !is_instance_name(&stem) && !r.is_set(key) {
                r.problem(format!(
                    "{}: name is missing and the file's stem {stem:?} cannot be one: expected {}",
                    file.display(),
                    values::NAME_EXPECTED
                ));
            }
            stem
        }
    };
    let foreground = given.sources.overrides.foreground;
    config.run_dir = paths::run_dir(&config.name, given.who, given.env(), foreground);
}

/// The addresses, from the command line's flag before all other sources.
fn read_listen(key: &'static str, r: &mut Reader<'_>, config: &mut Config) {
    // On a developer's machine nobody else is meant to reach it unasked.
    let overrides = &r.given.sources.overrides;
    let host = if overrides.foreground { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    if let Some(listen) = r.read_one_or_more(key, LISTEN_MAX, values::listen(host)) {
        config.listen = listen;
    }
    if let Some(text) = overrides.listen.as_deref() {
        match values::listen(host)(Input::Text(text.trim())) {
            Ok(listen) => config.listen = vec![listen],
            Err(expected) => r.problem(format!("--listen = {text:?}: expected {expected}")),
        }
    }
}

/// The state file, by default where systemd or the system keeps such files.
fn read_state_file(key: &'static str, r: &mut Reader<'_>, config: &mut Config) {
    let given = r.given;
    config.state_file = if let Some(set) = r.read(key, values::path) {
        set
    } else if given.sources.overrides.foreground {
        config.run_dir.join("state.json")
    } else {
        let (file, warning) = paths::state_file(&config.name, given.who, given.env());
        r.warnings.extend(warning);
        std::path::absolute(&file).unwrap_or(file)
    };
}

fn read_removal_delay(key: &'static str, r: &mut Reader<'_>, config: &mut Config) {
    if let Some(apps) = &mut config.apps {
        r.set(key, values::duration(Duration::ZERO), &mut apps.removal_delay);
    }
}

fn read_socket(key: &'static str, r: &mut Reader<'_>, config: &mut Config) {
    let set = r.read(key, values::socket_path);
    config.admin.socket_configured = set.is_some();
    config.admin.socket = Some(set.unwrap_or_else(|| config.run_dir.join("admin.sock")));
}

fn read_token(key: &'static str, r: &mut Reader<'_>, config: &mut Config) {
    config.admin.token = r.read(key, values::token).map(Secret::new);
}

/// The token in a file, where no other source sets it.
fn read_token_file(key: &'static str, r: &mut Reader<'_>, config: &mut Config) {
    let file = r.read(key, values::path);
    if r.in_file("admin.token") && r.in_file(key) {
        r.reject(key, "nothing, because admin.token is set too");
    }
    if r.is_set("admin.token") {
        return;
    }
    if let Some(file) = file {
        config.admin.token = token_in(key, &file, r).map(Secret::new);
    }
}

fn token_in(key: &'static str, file: &Path, r: &mut Reader<'_>) -> Option<String> {
    let text = secret_in(key, file, "token", r)?;
    values::token(Input::Text(&text))
        .map_err(|expected| r.reject(key, &format!("a file that holds {expected}, and nothing else")))
        .ok()
}

/// What the file of a secret holds, without the end of its line.
pub(super) fn secret_in(key: &'static str, file: &Path, what: &str, r: &mut Reader<'_>) -> Option<String> {
    let client = r.given.sources.client;
    let content = match files::read(file, files::TOKEN_MAX, r.given.who, Owner::of_configuration(client)) {
        Ok(content) => content,
        // The command line's user may reach the daemon by its socket alone.
        Err(_) if client => return None,
        Err(error) => {
            r.reject(key, &format!("a file with the {what} in it, but: {error}"));
            return None;
        }
    };
    if content.world_readable {
        let file = file.display();
        r.warnings.push(format!("{key}: everybody may read {file}; run: chmod o-r {file}"));
    }
    Some(content.text.trim_end_matches(['\n', '\r']).to_owned())
}

/// The variable is npm portok's and knows only on and off; the file says how.
fn read_forwarded(key: &'static str, r: &mut Reader<'_>, config: &mut Config) {
    let by_default = config.proxy.forwarded;
    let file = r.read_file(key, values::choice(FORWARDED));
    config.proxy.forwarded = match r.read_variable(key, values::boolean) {
        Some(false) => Forwarded::Off,
        Some(true) => file.filter(|file| *file != Forwarded::Off).unwrap_or(by_default),
        None => file.unwrap_or(by_default),
    };
}

fn header_size(input: Input<'_>) -> Parsed<usize> {
    let (least, most) = HEADER_SIZE;
    let size = values::size(least as u64, most as u64)(input)?;
    Ok(usize::try_from(size).unwrap_or(most))
}

fn header_size_shown(size: &usize) -> String {
    show::size(&(*size as u64))
}
