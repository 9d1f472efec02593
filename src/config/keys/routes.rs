//! The keys that only an app of several has: which requests it gets, and what it is beside an app
//! with a command.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::super::AppConfig;
use super::super::hosts::{self, Hosts};
use super::super::read::Reader;
use super::super::show::{self, list, one_or_more, optional};
use super::super::tcp;
use super::super::values::{self, Input, Parsed, some};
use super::Key;
use super::instance::LISTEN_MAX;

/// The most hosts of an app.
const HOSTS_MAX: usize = 256;

/// The most beginnings of paths of an app.
const PATHS_MAX: usize = 64;

/// The longest beginning of a path, in bytes.
const PATH_LONGEST: usize = 1024;

/// The most targets of an app.
const TARGETS_MAX: usize = 64;

/// Who speaks TLS with the app's clients.
const ENDS: &[(&str, bool)] = &[("passthrough", true)];

pub(super) const APP: &[Key] = &[
    Key::app("app.hosts", read_hosts, |config, _| unless_empty(&config.routes.hosts, show::text))
        .for_several(),
    Key::app("app.paths", read_paths, |config, _| unless_empty(&config.routes.paths, show::string))
        .for_several(),
    row!(app, "app.strip_prefix", values::boolean, show::number, routes.strip_prefix).for_several(),
    Key::app("app.listen", read_listen, |config, _| {
        Some(&config.routes.listen).filter(|listen| !listen.is_empty()).map(one_or_more(show::text))
    })
    .for_several(),
    Key::app(
        tcp::PASSTHROUGH,
        |key, r, config| r.set(key, values::choice(ENDS), &mut config.routes.passthrough),
        |config, _| config.routes.passthrough.then(|| show::word(ENDS)(&true)),
    )
    .for_several(),
    Key::app("app.targets", read_targets, |config, _| config.targets.as_ref().map(list(show::text)))
        .for_several(),
    row!(app, "app.redirect", some(redirect), optional(show::string), redirect).for_several(),
];

fn unless_empty<T>(items: &Vec<T>, show: impl Fn(&T) -> String) -> Option<String> {
    (!items.is_empty()).then(|| list(show)(items))
}

/// Addresses of its own. With them and without `hosts`, the app is not at the instance's.
fn read_listen(key: &'static str, r: &mut Reader<'_>, config: &mut AppConfig) {
    if let Some(listen) = r.read_one_or_more(key, LISTEN_MAX, values::listen(Ipv4Addr::UNSPECIFIED)) {
        config.routes.listen = listen;
        if !r.in_file("app.hosts") {
            config.routes.hosts.clear();
        }
    }
}

fn read_hosts(key: &'static str, r: &mut Reader<'_>, config: &mut AppConfig) {
    let parse = |input: Input<'_>| -> Parsed<Hosts> {
        input.text().and_then(|text| text.parse().ok()).ok_or_else(|| hosts::EXPECTED.to_owned())
    };
    if let Some(hosts) = r.read_different(key, 1..=HOSTS_MAX, parse) {
        config.routes.hosts = hosts;
    }
}

fn read_paths(key: &'static str, r: &mut Reader<'_>, config: &mut AppConfig) {
    let expected = "the beginning of a path: `/` first, at most 1024 bytes, without spaces, control \
                    characters, `?` and `#`";
    let path = values::text(expected, |path| {
        let is_other = |c: char| c.is_control() || c.is_whitespace() || c == '?' || c == '#';
        path.len() <= PATH_LONGEST && path.starts_with('/') && !path.contains(is_other)
    });
    if let Some(paths) = r.read_different(key, 1..=PATHS_MAX, path) {
        config.routes.paths = paths;
    }
}

fn read_targets(key: &'static str, r: &mut Reader<'_>, config: &mut AppConfig) {
    if let Some(targets) = r.read_different(key, 1..=TARGETS_MAX, target) {
        config.targets = Some(targets);
    }
}

/// The address of one host and a port. An IPv4-mapped IPv6 address means the IPv4 address.
fn target(input: Input<'_>) -> Parsed<SocketAddr> {
    let is_one_host = |address: &SocketAddr| {
        let is_none = match address.ip() {
            IpAddr::V4(ip) => ip.is_broadcast(),
            IpAddr::V6(_) => false,
        };
        !is_none && !address.ip().is_unspecified() && !address.ip().is_multicast() && address.port() != 0
    };
    let address = input.text().and_then(|text| text.parse::<SocketAddr>().ok());
    address
        .map(|address| match address.ip().to_canonical() {
            IpAddr::V4(ip) => SocketAddr::from((ip, address.port())),
            IpAddr::V6(_) => address,
        })
        .filter(is_one_host)
        .ok_or_else(|| {
            "the address and port of one host, no name, such as \"127.0.0.1:8080\" or \"[::1]:8080\""
                .to_owned()
        })
}

/// Scheme, host and, where there is one, port.
fn redirect(input: Input<'_>) -> Parsed<String> {
    let expected = "`http://` or `https://`, a host and maybe a port, such as \"https://example.com\"; \
                    path and query are those of the request";
    let parse = |text: &str| {
        let uri: http::Uri = text.parse().ok()?;
        let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
        let names_one = matches!(authority.host().parse(), Ok(Hosts::Exact(_)));
        let is_whole =
            text.trim_end_matches('/').len() == scheme.len() + "://".len() + authority.as_str().len();
        let fits = matches!(scheme, "http" | "https")
            && names_one
            && is_whole
            && !text.ends_with("//")
            && !authority.as_str().contains('@')
            && (authority.port().is_none() || authority.port_u16().is_some_and(|port| port != 0));
        fits.then(|| format!("{scheme}://{authority}"))
    };
    input.text().and_then(parse).ok_or_else(|| expected.to_owned())
}
