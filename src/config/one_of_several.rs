//! One app of several: what its table or file sets, over what the instance's sections say for every
//! app. All apps of Redis together are read as one. Pure.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::address::overlaps;
use super::hosts::Hosts;
use super::keys::{self, Kind};
use super::read::Reader;
use super::validate::{host_allows, restarts, tells_clients, tls_fits, watch_window};
use super::{AppConfig, Config, defaults, health, recreate, tcp};

const HEALTH_TIMEOUT: &str = "health.timeout";

/// How long a probe of a target may take at most. The probes of all apps with targets share a bound
/// and take turns: with a longer time, a few apps whose targets are silent would keep all others
/// from theirs.
const LONGEST_PROBE: Duration = Duration::from_secs(60);

const REQUESTS_PER_ADDRESS: &str = "limits.requests_per_address";

/// What stands for every app.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sections {
    app: Arc<AppConfig>,
    /// Where the instance listens, plainly and encrypted.
    listen: Vec<(SocketAddr, Listens)>,
    /// Whether it listens anywhere encrypted.
    has_tls: bool,
    /// Whether they say how many requests of one address an app takes.
    has_requests_per_address: bool,
}

impl Sections {
    /// What `config` says, which `reader` has read.
    pub(super) fn of(config: &Config, reader: &Reader<'_>) -> Self {
        Self {
            app: Arc::clone(&config.app),
            listen: listens(config, reader),
            has_tls: config.tls.is_some(),
            has_requests_per_address: reader.is_set(REQUESTS_PER_ADDRESS),
        }
    }
}

impl Sections {
    /// Where the pages of apps lie that name no other folder.
    pub(super) fn errors_dir(&self) -> Option<&Path> {
        self.app.errors.dir.as_deref()
    }
}

/// A key that says where the instance listens, and the place where the file has it.
#[derive(Debug, Clone, PartialEq)]
struct Listens {
    key: &'static str,
    at: Option<String>,
}

fn listens(config: &Config, reader: &Reader<'_>) -> Vec<(SocketAddr, Listens)> {
    let by = |key| Listens { key, at: reader.position_of(key) };
    let (plain, encrypted) = (by("listen"), by("tls.listen"));
    let plain = config.listen.iter().map(|addr| (*addr, plain.clone()));
    let tls = config.tls.iter().flat_map(|tls| &tls.listen);
    plain.chain(tls.map(|addr| (*addr, encrypted.clone()))).collect()
}

/// Reads the app `name`. It may be used only if the reader has no problems afterwards.
pub(super) fn read(r: &mut Reader<'_>, name: &str, place: String, sections: &Sections) -> AppConfig {
    let mut config = AppConfig { name: name.to_owned(), place, ..(*sections.app).clone() };
    let kind = kind(r);
    for key in keys::of_apps() {
        match kind {
            _ if !r.in_file(key.name) => {}
            Some(kind) if !kind.can_use(key.name) => {
                // A second kind has its own message.
                if Kind::ALL.iter().all(|other| other.key() != key.name) {
                    let expected = format!("nothing, because {} has no use for it", kind.called());
                    r.reject(key.name, &expected);
                }
            }
            _ => key.read_app(r, &mut config),
        }
    }
    config.health.is_set = health::fits(r, &mut config.health);
    tells_clients(r, &mut config.upstream);
    let is_set = config.health.is_set;
    tcp::fits(r, &mut config, sections.has_tls, is_set);
    if let Some(kind) = kind {
        derive(r, &mut config, kind, sections);
        if kind == Kind::Targets {
            bound_probes(r, &mut config);
        }
        if kind == Kind::Command {
            recreate::fits(r, &mut config);
        }
        fits_together(r, &config, kind);
    }
    routes_fit(r, &config, sections);
    tls_fits(r, &config.tls, sections.has_tls);
    config
}

/// Reads what holds for all apps of Redis. As [`read`].
pub(super) fn read_of_redis(r: &mut Reader<'_>, sections: &Sections) -> AppConfig {
    let mut config = defaults::app_of_redis(&sections.app);
    for key in keys::of_apps().filter(|key| r.in_file(key.name)).collect::<Vec<_>>() {
        if keys::holds_for_redis(key.name) {
            key.read_app(r, &mut config);
        } else {
            r.reject(key.name, "nothing, because it cannot hold for all apps of Redis");
        }
    }
    config.health.is_set = health::fits(r, &mut config.health);
    tells_clients(r, &mut config.upstream);
    bound_probes(r, &mut config);
    config
}

/// Bounds the time of a probe of its targets: what is set for it is refused beyond that, and what
/// stands for every app is cut.
fn bound_probes(r: &mut Reader<'_>, config: &mut AppConfig) {
    if config.health.timeout <= LONGEST_PROBE {
        return;
    }
    if r.in_file(HEALTH_TIMEOUT) {
        let most = humantime::format_duration(LONGEST_PROBE);
        let why = "the probes of all apps with targets share a bound, and take turns";
        r.reject(HEALTH_TIMEOUT, &format!("at most {most} for targets: {why}"));
    }
    config.health.timeout = LONGEST_PROBE;
}

/// What kind of app it is: exactly one.
fn kind(r: &mut Reader<'_>) -> Option<Kind> {
    const ONE: &str = "one of `command`, `targets` and `redirect`";
    let mut set = Kind::ALL.into_iter().filter(|kind| r.in_file(kind.key())).collect::<Vec<_>>().into_iter();
    let kind = set.next();
    if r.in_file("app.target") {
        r.reject("app.target", "nothing: one app of several has `targets`, such as [\"127.0.0.1:8080\"]");
    } else if kind.is_none() {
        r.missing(ONE);
    }
    for other in set {
        let first = kind.map_or_else(Default::default, |kind| r.called(kind.key()));
        r.reject(other.key(), &format!("nothing, because {first} is set too: an app has {ONE}"));
    }
    kind
}

/// What follows from other keys where neither the app nor a section sets it.
fn derive(r: &Reader<'_>, config: &mut AppConfig, kind: Kind, sections: &Sections) {
    if r.in_file(REQUESTS_PER_ADDRESS) || sections.has_requests_per_address {
        return;
    }
    match kind {
        Kind::Command => {
            let by_default = defaults::requests_per_address(r.given, &config.upstream);
            config.limits.requests_per_address = by_default;
        }
        Kind::Targets => config.limits.requests_per_address = None,
        Kind::Redirect => {}
    }
}

/// Checks what is wrong or odd only together with something else.
fn fits_together(r: &mut Reader<'_>, config: &AppConfig, kind: Kind) {
    if kind == Kind::Command {
        host_allows(r, &config.app.limits);
        restarts(r, &config.app);
        keys::replicas_fit(r, config);
        if r.in_file("rollback.interval") || r.in_file("rollback.window") {
            watch_window(r, &config.rollback);
        }
    }
    if let Some(redirect) = &config.redirect
        && config.routes.hosts.iter().any(|hosts| leads_to(redirect, hosts))
    {
        let called = r.called("app.redirect");
        r.warnings.push(format!("{called}: {redirect} is one of the app's own hosts"));
    }
}

/// Whether a redirect leads to a host that is named by `hosts`.
fn leads_to(redirect: &str, hosts: &Hosts) -> bool {
    let host = redirect.parse::<http::Uri>().ok().and_then(|uri| uri.host()?.parse().ok());
    match (host, hosts) {
        (Some(Hosts::Exact(host)), Hosts::Exact(own)) => host == *own,
        (Some(Hosts::Exact(host)), Hosts::Below(own)) => {
            host.as_str().strip_suffix(own.as_str()).is_some_and(|rest| rest.ends_with('.'))
        }
        _ => false,
    }
}

/// Checks its own addresses, and what is for hosts alone.
fn routes_fit(r: &mut Reader<'_>, config: &AppConfig, sections: &Sections) {
    let routes = &config.routes;
    let shared =
        |own: &SocketAddr| Some((*own, sections.listen.iter().find(|(addr, _)| overlaps(*addr, *own))?));
    if let Some((own, (instances, Listens { key, at }))) = routes.listen.iter().find_map(shared) {
        let at = at.as_ref().map(|at| format!("{at}: ")).unwrap_or_default();
        let with = format!("addresses of its own: {own} is the instance's too ({at}{key} = \"{instances}\")");
        r.reject("app.listen", &with);
    }
    // `[::]` leaves IPv4 to an address beside it.
    let excludes = |one: &SocketAddr, other: &SocketAddr| {
        one != other && one.is_ipv4() == other.is_ipv4() && overlaps(*one, *other)
    };
    let twice = |one: &SocketAddr| Some((*one, *routes.listen.iter().find(|other| excludes(one, other))?));
    if let Some((one, other)) = routes.listen.iter().find_map(twice) {
        r.reject("app.listen", &format!("addresses that do not overlap; {one} and {other} do"));
    }
    if !routes.listen.is_empty() && routes.hosts.is_empty() {
        for key in ["app.paths", "app.strip_prefix"] {
            if r.in_file(key) {
                r.reject(key, "nothing without `hosts`: at addresses of its own an app gets every request");
            }
        }
    }
}
