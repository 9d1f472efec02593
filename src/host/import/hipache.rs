//! hipache's `config.json`, in the forms of its versions 0.2 to 0.4, and Concussion's, which is
//! that of hipache 0.2 with the address of Redis in a table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::Value;

use super::fields::{Fields, number, one_or_many};
use super::findings::Findings;
use super::hipache_redis;
use super::source::Source;
use super::toml::{Toml, Value as Field};

const ABOUT: &str = "The hosts and their targets stay where they are, in Redis.";

/// hipache's own defaults of what it multiplies.
const WORKERS: u64 = 10;
const SOCKETS: u64 = 100;

/// The longest time that portok takes, in seconds.
const SECONDS_MAX: u64 = 7 * 24 * 3600;

/// The most connections to one target that portok takes.
const CONNECTIONS_MAX: u64 = 65_535;

/// Converts hipache's configuration.
pub(super) fn convert(source: &Source, findings: &mut Findings) -> Option<String> {
    let root = source.json(findings)?;
    let Some(object) = root.as_object() else {
        findings.wrong("the file", &root, "an object");
        return None;
    };
    let mut root = Fields::new("", object);
    let had_http = !root.keys(|key| key == "http").is_empty();
    let mut server = root.object("server", findings);
    let http = root.object("http", findings);
    let listen = listen(had_http, server.as_mut(), http, findings);
    let redis = hipache_redis::read(&mut root, findings);

    let mut toml = Toml::new(ABOUT);
    toml.set("listen", listen.iter().map(SocketAddr::to_string).collect::<Vec<_>>());
    toml.table(&["proxy"]);
    toml.comment("As hipache; without this it is 404.");
    toml.set("no_route_status", 400_u64);
    if let Some(redis) = &redis {
        hipache_redis::write(redis, &mut toml, findings);
    }
    if let Some(server) = &mut server {
        write_upstream(server, &mut toml, findings);
        write_access(server, &mut toml, findings);
    }
    toml.table(&["apps"]);
    toml.comment("None in this file. One that is added here wins over a host in Redis.");
    if let Some(server) = server {
        rest_of_server(server, findings);
    }
    rest_of_root(root, findings);
    Some(toml.finish())
}

/// The addresses of plain HTTP.
fn listen(
    had_http: bool,
    server: Option<&mut Fields<'_>>,
    http: Option<Fields<'_>>,
    findings: &mut Findings,
) -> Vec<SocketAddr> {
    let (mut binds, mut port, mut everywhere) = (Vec::new(), None, false);
    if let Some(server) = server {
        port = server.number("port", 1..=65_535, findings);
        // Before 0.4 no address meant all of them.
        everywhere = port.is_some() && !had_http;
        for key in ["address", "address6"] {
            let at = server.at(key);
            binds.extend(server.take(key).map(|value| (at, value)));
        }
    }
    if let Some(mut http) = http {
        port = http.number("port", 1..=65_535, findings).or(port);
        let at = http.at("bind");
        if let Some(value) = http.take("bind") {
            binds = vec![(at, value)];
        }
        http.unknown("hipache", findings);
    }
    let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(80);
    let mut listen = Vec::new();
    for (place, value) in &binds {
        for bind in one_or_many(value) {
            for address in addresses(place, bind, port, findings) {
                if !listen.contains(&address) {
                    listen.push(address);
                }
            }
        }
    }
    if !listen.is_empty() {
        listen
    } else if everywhere {
        vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()]
    } else {
        vec![(Ipv4Addr::LOCALHOST, port).into()]
    }
}

/// The addresses of one element of `bind`: an address, or an object of address and port.
fn addresses(place: &str, bind: &Value, port: u16, findings: &mut Findings) -> Vec<SocketAddr> {
    let (address, own_port) = match bind.as_object() {
        Some(object) => (object.get("address"), object.get("port")),
        None => (Some(bind), None),
    };
    let ip = match address.and_then(Value::as_str) {
        Some("localhost") => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Some(text) => text.parse().ok(),
        None => None,
    };
    let port = own_port.map_or(Some(port), |value| number(value).and_then(|port| u16::try_from(port).ok()));
    let (Some(ip), Some(port)) = (ip, port.filter(|port| *port > 0)) else {
        findings.wrong(place, bind, "an IP address, or an object of address and port");
        return Vec::new();
    };
    if ip == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        // Node listens on both families there.
        return vec![(Ipv4Addr::UNSPECIFIED, port).into(), (ip, port).into()];
    }
    vec![(ip, port).into()]
}

/// The side towards the backends.
fn write_upstream(server: &mut Fields<'_>, toml: &mut Toml, findings: &mut Findings) {
    let mut keys: Vec<(&str, Field)> = Vec::new();
    if let Some(keepalive) = server.boolean("httpKeepAlive", findings) {
        keys.push(("keepalive", keepalive.into()));
    }
    let workers = server.number("workers", 0..=100_000, findings);
    let sockets = server.number("maxSockets", 0..=100_000, findings);
    if workers.or(sockets).is_some() {
        let all = workers.unwrap_or(WORKERS).max(1) * sockets.unwrap_or(SOCKETS).max(1);
        keys.push(("max_connections", all.min(CONNECTIONS_MAX).into()));
    }
    if workers.is_some() {
        findings.note(
            server.at("workers"),
            "portok has one thread for each core, or proxy.threads; max_connections counts for all of them",
        );
    }
    if let Some(seconds) = server.number("tcpTimeout", 0..=SECONDS_MAX, findings) {
        keys.push(("read_timeout", Field::millis(seconds * 1000)));
    }
    if let Some(retries) = server.number("retryOnError", 0..=1000, findings) {
        keys.push(("retries", retries.into()));
        findings.note(server.at("retryOnError"), "portok never sends a request twice that an app may have begun to carry out, unless it is idempotent");
    }
    if let Some(seconds) = server.number("deadBackendTTL", 1..=SECONDS_MAX, findings) {
        keys.push(("eject_for", Field::millis(seconds * 1000)));
    }
    let on_500 = server.boolean("deadBackendOn500", findings).unwrap_or(true);
    let statuses: Vec<u64> = [500, 501, 502, 503, 504].into_iter().filter(|s| on_500 || *s != 500).collect();
    keys.push(("eject_on", statuses.into()));
    toml.table(&["upstream"]);
    for (key, value) in keys {
        toml.set(key, value);
    }
}

/// The log of requests, in hipache's own format.
fn write_access(server: &mut Fields<'_>, toml: &mut Toml, findings: &mut Findings) {
    let place = server.at("accessLog");
    match server.text("accessLog", findings) {
        Some(file) if file.starts_with('/') => {
            toml.table(&["access"]);
            toml.set("file", file);
            toml.set("format", "hipache");
        }
        Some(_) => findings.note(place, "access.file takes an absolute path: set it"),
        None => {}
    }
}

fn rest_of_server(mut server: Fields<'_>, findings: &mut Findings) {
    let pages = "errors.dir names a folder with pages, which are called 502.html, 4xx.html, default.html";
    server.lost(&["staticDir"], pages, findings);
    server.lost(&["https"], TLS, findings);
    server.lost(&["debug"], "portokd says what goes on in its own log", findings);
    server.unknown("hipache", findings);
}

const TLS: &str = "TLS has no counterpart yet; another proxy has to end it before portok";

fn rest_of_root(mut root: Fields<'_>, findings: &mut Findings) {
    root.lost(&["https"], TLS, findings);
    let user = "portokd runs as the user of its unit: portok init --user USER";
    root.lost(&["user", "group"], user, findings);
    root.unknown("hipache", findings);
}
