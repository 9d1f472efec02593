//! Which of several apps gets which route. Pure.
//!
//! A route that two apps claim belongs to the one that has it in force. Where neither has it, the
//! main file goes first, then names in the order of their bytes. An app whose configuration is gone
//! gives its route to a claimant that is healthy. What Redis has for these hosts does not count.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::{AppConfig, AppRoutes, Hosts};

/// A route, of which one app can have it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Spot {
    /// Requests at the instance's addresses for these hosts, below this path.
    Under(Hosts, Box<str>),
    /// All requests at this address.
    At(SocketAddr),
}

/// Where an app is configured, the most important place first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// In the main file.
    MainFile,
    /// In a file of its own.
    OwnFile,
}

/// How a claimant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is configured, and nothing of it is healthy.
    Waiting,
    /// It is configured and healthy.
    Healthy,
    /// Its configuration is gone, or it has none.
    Gone,
}

/// What one app claims.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) config: Arc<AppConfig>,
    pub(super) origin: Origin,
    pub(super) standing: Standing,
}

/// The routes in force, each with the name of its app.
pub(super) type InForce = HashMap<Spot, Arc<str>>;

/// Who gets what.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) routes: InForce,
    /// Which routes an app does not get, and why.
    pub(super) refused: BTreeMap<Arc<str>, String>,
    /// Whether a claimant gets a route as soon as it is healthy.
    pub(super) waits_for_health: bool,
}

/// Settles who gets what; `before`: who has it.
pub(super) fn settle(claims: &[Claim], before: &InForce) -> Settled {
    let mut order: Vec<&Claim> = claims.iter().collect();
    order.sort_by(|one, other| (one.origin, &one.config.name).cmp(&(other.origin, &other.config.name)));
    let mut claimed: HashMap<Spot, Vec<&Claim>> = HashMap::new();
    for claim in order {
        for spot in spots(&claim.config.routes) {
            claimed.entry(spot).or_default().push(claim);
        }
    }
    let mut settled = Settled::default();
    let mut refused: BTreeMap<Arc<str>, Vec<(Spot, &Claim)>> = BTreeMap::new();
    for (spot, claimants) in claimed {
        let holder = before.get(&spot).map(|app| &**app);
        let winner = winner(&claimants, holder);
        let gives_way = winner.standing == Standing::Gone;
        for claim in &claimants {
            if !std::ptr::eq(*claim, winner) && claim.standing != Standing::Gone {
                settled.waits_for_health |= gives_way;
                refused.entry(name(claim)).or_default().push((spot.clone(), winner));
            }
        }
        settled.routes.insert(spot, name(winner));
    }
    settled.refused = refused.into_iter().map(|(app, lost)| (app, why(lost))).collect();
    settled
}

/// All routes that an app claims.
pub(super) fn spots(routes: &AppRoutes) -> impl Iterator<Item = Spot> + '_ {
    let under = routes
        .hosts
        .iter()
        .flat_map(|hosts| routes.paths.iter().map(|path| Spot::Under(hosts.clone(), path.as_str().into())));
    under.chain(routes.listen.iter().map(|addr| Spot::At(*addr)))
}

/// What `app` has in force of the routes that it claims.
pub(super) fn held(app: &AppConfig, in_force: &InForce) -> AppRoutes {
    let has = |spot: &Spot| in_force.get(spot).is_some_and(|holder| **holder == *app.name);
    let spots: Vec<_> = spots(&app.routes).filter(has).collect();
    let hosts =
        |hosts: &Hosts| spots.iter().any(|spot| matches!(spot, Spot::Under(held, _) if held == hosts));
    let path = |path: &str| spots.iter().any(|spot| matches!(spot, Spot::Under(_, held) if **held == *path));
    AppRoutes {
        hosts: app.routes.hosts.iter().filter(|name| hosts(name)).cloned().collect(),
        paths: app.routes.paths.iter().filter(|beginning| path(beginning)).cloned().collect(),
        listen: app.routes.listen.iter().filter(|addr| has(&Spot::At(**addr))).copied().collect(),
        strip_prefix: app.routes.strip_prefix,
    }
}

/// Who gets a route of its claimants, which come in their order.
fn winner<'a>(claimants: &[&'a Claim], holder: Option<&str>) -> &'a Claim {
    let candidates = || claimants.iter().copied();
    let holder = candidates().find(|claim| holder == Some(&*claim.config.name));
    let of = |standing: Standing| candidates().find(|claim| claim.standing == standing);
    match holder {
        Some(holder) if holder.standing != Standing::Gone => holder,
        Some(gone) => of(Standing::Healthy).unwrap_or(gone),
        None => candidates().find(|claim| claim.standing != Standing::Gone).unwrap_or(claimants[0]),
    }
}

fn name(claim: &Claim) -> Arc<str> {
    claim.config.name.as_str().into()
}

/// Why an app does not get these routes: who has each of them, with the places of both.
fn why(mut lost: Vec<(Spot, &Claim)>) -> String {
    /// How many are named.
    const MOST: usize = 3;
    lost.sort_by(|one, other| one.0.cmp(&other.0));
    let more = lost.len().saturating_sub(MOST);
    let mut all: Vec<_> = lost
        .into_iter()
        .take(MOST)
        .map(|(spot, winner)| {
            let AppConfig { name, place, .. } = &*winner.config;
            let place = if place.is_empty() { String::new() } else { format!(" ({place})") };
            format!("{spot} belongs to app `{name}`{place}")
        })
        .collect();
    if more > 0 {
        all.push(format!("and {more} more"));
    }
    all.join("; ")
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Under(hosts, path) if **path == *"/" => write!(f, "host `{hosts}`"),
            Self::Under(hosts, path) => write!(f, "host `{hosts}`, path `{path}`"),
            Self::At(addr) => write!(f, "address {addr}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::app;
    use super::*;

    fn claim(name: &str, hosts: &[&str], origin: Origin, standing: Standing) -> Claim {
        let mut config = app(name);
        config.place = format!("{name}.toml:1");
        config.routes.hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
        Claim { config: Arc::new(config), origin, standing }
    }

    fn shown(settled: &Settled) -> Vec<String> {
        let mut shown: Vec<_> = settled.routes.iter().map(|(spot, app)| format!("{spot} {app}")).collect();
        shown.sort();
        shown
    }

    #[test]
    fn at_a_start_the_main_file_goes_first_and_then_names() {
        use Origin::{MainFile, OwnFile};
        use Standing::Waiting;
        let claims = [
            claim("b", &["x", "y"], OwnFile, Waiting),
            claim("a", &["x"], OwnFile, Waiting),
            claim("z", &["y"], MainFile, Waiting),
        ];
        let settled = settle(&claims, &InForce::new());
        assert_eq!(shown(&settled), ["host `x` a", "host `y` z"]);
        let refused = &settled.refused["b"];
        assert_eq!(refused, "host `x` belongs to app `a` (a.toml:1); host `y` belongs to app `z` (z.toml:1)");
        assert!(!settled.waits_for_health && settled.refused.len() == 1);
        assert_eq!(held(&claims[0].config, &settled.routes).hosts, []);
        assert_eq!(held(&claims[2].config, &settled.routes).hosts.len(), 1);
    }

    #[test]
    fn what_is_in_force_stays_until_its_app_is_gone_and_a_claimant_is_healthy() {
        use Standing::{Gone, Healthy, Waiting};
        let settled = |old, new: &[Standing]| {
            let mut claims = vec![claim("old", &["x"], Origin::OwnFile, old)];
            let more = new.iter().zip(["a", "b"]);
            claims.extend(more.map(|(standing, name)| claim(name, &["x"], Origin::OwnFile, *standing)));
            settle(&claims, &[("x", "old")].map(|(host, app)| spot(host, app)).into())
        };
        fn spot(host: &str, app: &str) -> (Spot, Arc<str>) {
            (Spot::Under(host.parse().unwrap(), "/".into()), app.into())
        }
        for (old, new, winner, waits) in [
            (Waiting, &[Healthy][..], "old", false),
            (Gone, &[Waiting], "old", true),
            (Gone, &[Waiting, Healthy], "b", false),
            (Gone, &[], "old", false),
        ] {
            let settled = settled(old, new);
            assert_eq!(shown(&settled), [format!("host `x` {winner}")], "{old:?} {new:?}");
            assert_eq!(settled.waits_for_health, waits, "{old:?} {new:?}");
        }
        // Once it does not claim it any more, or is removed, the route is free.
        let claims = [claim("a", &["x"], Origin::OwnFile, Waiting)];
        assert_eq!(shown(&settle(&claims, &[spot("x", "old")].into())), ["host `x` a"]);
    }

    #[test]
    fn the_parts_of_a_host_are_apart() {
        let mut v1 = claim("v1", &["x"], Origin::OwnFile, Standing::Waiting);
        Arc::make_mut(&mut v1.config).routes.paths = vec!["/v1".into()];
        let claims = [v1, claim("f", &["x"], Origin::OwnFile, Standing::Waiting)];
        let settled = settle(&claims, &InForce::new());
        assert_eq!(shown(&settled), ["host `x` f", "host `x`, path `/v1` v1"]);
        assert!(settled.refused.is_empty());
    }

    #[test]
    fn addresses_are_claimed_like_hosts() {
        let [mut one, mut other] =
            ["one", "other"].map(|name| claim(name, &[], Origin::OwnFile, Standing::Waiting));
        for claim in [&mut one, &mut other] {
            Arc::make_mut(&mut claim.config).routes.listen = vec!["127.0.0.1:9080".parse().unwrap()];
        }
        let settled = settle(&[one, other], &InForce::new());
        assert_eq!(shown(&settled), ["address 127.0.0.1:9080 one"]);
        assert_eq!(settled.refused["other"], "address 127.0.0.1:9080 belongs to app `one` (one.toml:1)");
    }
}
