//! Which routes two apps of an instance both claim, by the daemon's own rule ([`Spot::excludes`]).
//! Pure: which of them has it, the daemon decides.

use std::collections::HashMap;

use crate::config::{AppConfig, Spot, SpotGroup};

/// A route that a second app claims.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Clash {
    /// Who comes first.
    pub(super) first: Claimant,
    /// The other one. Of addresses that overlap its own is another one.
    pub(super) second: Claimant,
}

/// An app that claims a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claimant {
    pub(super) app: String,
    /// Where it is configured.
    pub(super) place: String,
    /// `api.example.com/v1`, or `listen 127.0.0.1:9080`.
    pub(super) route: String,
}

impl Claimant {
    fn of(app: &AppConfig, spot: &Spot) -> Self {
        let route = match spot {
            Spot::Under(hosts, path) => format!("{hosts}{path}"),
            Spot::Named(hosts) => format!("{hosts} of TLS"),
            Spot::At(address) => format!("listen {address}"),
        };
        Self { app: app.name.clone(), place: app.place.clone(), route }
    }
}

/// Every route that more than one of `apps` claims; the first app in their order comes first.
pub(super) fn clashes<'a>(apps: impl IntoIterator<Item = &'a AppConfig>) -> Vec<Clash> {
    let claims: Vec<_> =
        apps.into_iter().flat_map(|app| Spot::of(&app.routes).map(move |spot| (app, spot))).collect();
    let mut claimed: HashMap<SpotGroup<'_>, Vec<&(&AppConfig, Spot)>> = HashMap::new();
    let mut clashes = Vec::new();
    for claim in &claims {
        let (app, spot) = claim;
        let earlier = claimed.entry(spot.group()).or_default();
        // An app may name a route twice.
        match earlier.iter().find(|(other, others)| other.name != app.name && others.excludes(spot)) {
            Some((first, others)) => {
                clashes.push(Clash { first: Claimant::of(first, others), second: Claimant::of(app, spot) });
            }
            None => earlier.push(claim),
        }
    }
    clashes
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
    fn the_very_same_host_and_path_and_addresses_that_overlap_are_claimed_twice() {
        let apps = [
            app("api", &["a.org", "*.a.org"], &["/", "/v1"], &["127.0.0.1:1"]),
            app("shop", &["A.org."], &["/v1/x"], &[]),
            app("web", &["b.org", "*.a.org"], &["/v1"], &["127.0.0.1:1"]),
            app("all", &["*"], &["/"], &["127.0.0.1:2"]),
            app("wide", &[], &["/"], &["0.0.0.0:2", "0.0.0.0:3"]),
        ];
        let found: Vec<_> = clashes(&apps)
            .into_iter()
            .map(|Clash { first, second }| {
                format!("{} {}, {} {}", first.app, first.route, second.app, second.route)
            })
            .collect();
        let expected = [
            "api *.a.org/v1, web *.a.org/v1",
            "api listen 127.0.0.1:1, web listen 127.0.0.1:1",
            "all listen 127.0.0.1:2, wide listen 0.0.0.0:2",
        ];
        assert_eq!(found, expected);
        assert_eq!(clashes([&app("twice", &["a.org", "a.org"], &["/"], &[])]), []);
    }
}
