//! Which routes two apps of an instance both claim. Pure: which of them has it, the daemon decides.

use std::collections::BTreeMap;

use crate::config::AppConfig;

/// A route that a second app claims.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Clash {
    /// `api.example.com/v1`, or `listen 127.0.0.1:9080`.
    pub(super) route: String,
    /// The app that comes first.
    pub(super) first: Claimant,
    /// The other one.
    pub(super) second: Claimant,
}

/// An app that claims a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claimant {
    pub(super) app: String,
    /// Where it is configured.
    pub(super) place: String,
}

impl Claimant {
    fn of(app: &AppConfig) -> Self {
        Self { app: app.name.clone(), place: app.place.clone() }
    }
}

/// Every route that more than one of `apps` claims; the first app in their order comes first.
pub(super) fn clashes<'a>(apps: impl IntoIterator<Item = &'a AppConfig>) -> Vec<Clash> {
    let mut claimed: BTreeMap<String, Claimant> = BTreeMap::new();
    let mut clashes = Vec::new();
    for app in apps {
        for route in routes(app) {
            match claimed.get(&route) {
                // An app may name a route twice.
                Some(first) if first.app == app.name => {}
                Some(first) => {
                    clashes.push(Clash { route, first: first.clone(), second: Claimant::of(app) });
                }
                None => _ = claimed.insert(route, Claimant::of(app)),
            }
        }
    }
    clashes
}

fn routes(app: &AppConfig) -> impl Iterator<Item = String> {
    let routes = &app.routes;
    let by_host =
        routes.hosts.iter().flat_map(|host| routes.paths.iter().map(move |path| format!("{host}{path}")));
    by_host.chain(routes.listen.iter().map(|address| format!("listen {address}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn app(name: &str, hosts: &[&str], paths: &[&str], listen: &[&str]) -> AppConfig {
        let mut app = (*config::of_an_empty_file().app).clone();
        app.name = name.to_owned();
        app.routes.hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
        app.routes.paths = paths.iter().map(|path| (*path).to_owned()).collect();
        app.routes.listen = listen.iter().map(|address| address.parse().unwrap()).collect();
        app
    }

    #[test]
    fn only_the_very_same_route_is_claimed_twice() {
        let apps = [
            app("api", &["a.org", "*.a.org"], &["/", "/v1"], &["127.0.0.1:1"]),
            app("shop", &["A.org."], &["/v1/x"], &[]),
            app("web", &["b.org", "*.a.org"], &["/v1"], &["127.0.0.1:1"]),
            app("all", &["*"], &["/"], &["127.0.0.1:2"]),
        ];
        let found: Vec<_> = clashes(&apps)
            .into_iter()
            .map(|clash| format!("{}: {}, {}", clash.route, clash.first.app, clash.second.app))
            .collect();
        assert_eq!(found, ["*.a.org/v1: api, web", "listen 127.0.0.1:1: api, web"]);
        assert_eq!(clashes([&app("twice", &["a.org", "a.org"], &["/"], &[])]), []);
    }
}
