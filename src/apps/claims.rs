//! Which of several apps gets which route. Pure.
//!
//! A route that two apps claim belongs to the one that has it in force, or had it when the daemon
//! before ended. Where neither has it, the main file goes first, then names in the order of their
//! bytes. An app whose configuration is gone gives its route to a claimant that is healthy. What
//! Redis has for these hosts does not count.
//!
//! Of addresses that overlap, such as `0.0.0.0:80` and `127.0.0.1:80`, only one app can have some.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::config::{AppConfig, AppRoutes, Config, Hosts, SpotGroup, overlaps};

pub(super) use crate::config::Spot;

/// Where an app is configured, the most important place first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// In the main file.
    MainFile,
    /// In a file of its own.
    OwnFile,
}

impl Origin {
    /// Where `config` has this app.
    pub(super) fn of(config: &Config, app: &AppConfig) -> Self {
        let file = app.place.rsplit_once(':').map_or(app.place.as_str(), |(file, _)| file);
        let main = config.file.as_ref().map(|file| file.display().to_string());
        if main.as_deref() == Some(file) { Self::MainFile } else { Self::OwnFile }
    }
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
pub(super) type InForce = HashMap<Spot, Arc<str>, RandomState>;

/// The routes that more than one app claims, each with the name of the one that has it.
pub(super) type Contested = BTreeMap<Spot, Arc<str>>;

/// Who gets what.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) routes: InForce,
    /// What an app does without.
    pub(super) refused: BTreeMap<Arc<str>, Without>,
    pub(super) contested: Contested,
    /// Whether a claimant gets a route as soon as it is healthy.
    pub(super) waits_for_health: bool,
}

/// The routes that an app claims and does not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Without {
    /// Where it claims them.
    place: String,
    /// Each of them, and who has it, where.
    pub(super) routes: String,
    /// Whether it gets them all once it is healthy.
    pub(super) passes: bool,
}

/// One app's claim to one route.
#[derive(Debug)]
struct Bid<'a> {
    spot: Spot,
    claim: &'a Claim,
    /// Whether it is in force.
    holds: bool,
}

/// Settles who gets what; `before`: who has it.
pub(super) fn settle(claims: &[Claim], before: &InForce) -> Settled {
    let mut order: Vec<&Claim> = claims.iter().collect();
    order.sort_by(|one, other| (one.origin, &one.config.name).cmp(&(other.origin, &other.config.name)));
    let bid = |claim, spot| {
        let holds = before.get(&spot).is_some_and(|app| **app == *name(claim));
        Bid { spot, claim, holds }
    };
    let bids: Vec<Bid<'_>> = order
        .into_iter()
        .flat_map(|claim| Spot::of(&claim.config.routes).map(move |spot| bid(claim, spot)))
        .collect();
    let mut groups: HashMap<SpotGroup<'_>, Vec<&Bid<'_>>, RandomState> = HashMap::default();
    groups.reserve(bids.len());
    for bid in &bids {
        groups.entry(bid.spot.group()).or_default().push(bid);
    }
    let mut settled = Settled::default();
    settled.routes.reserve(bids.len());
    let mut refused: BTreeMap<&str, Vec<Lost<'_>>> = BTreeMap::new();
    for group in groups.into_values() {
        let (granted, lost) = grant(group);
        settled.routes.extend(granted.into_iter().map(|bid| (bid.spot.clone(), name(bid.claim).into())));
        for lost in lost {
            settled.waits_for_health |= lost.to.is_gone();
            settled.contested.insert(lost.to.spot.clone(), name(lost.to.claim).into());
            refused.entry(name(lost.bid.claim)).or_default().push(lost);
        }
    }
    settled.refused = refused.into_iter().map(|(app, lost)| (app.into(), Without::of(lost))).collect();
    settled
}

/// Who had what before a start: each of the `contested` routes its app; an app that has `stayed` as
/// it was, the others that it claims.
pub(super) fn held_before<'a>(contested: &Contested, stayed: impl Iterator<Item = &'a AppConfig>) -> InForce {
    let mut held: InForce = contested.iter().map(|(spot, app)| (spot.clone(), Arc::clone(app))).collect();
    let taken = addresses(&held);
    for app in stayed {
        for spot in Spot::of(&app.routes) {
            // An address that overlaps one of another app was not had.
            if !matches!(spot, Spot::At(own) if taken.iter().any(|addr| overlaps(*addr, own))) {
                held.entry(spot).or_insert_with(|| app.name.as_str().into());
            }
        }
    }
    held
}

/// The addresses that the apps of this configuration would get for themselves; `before`: who had
/// what.
pub(super) fn addresses_for(config: &Config, before: &InForce) -> BTreeSet<SocketAddr> {
    addresses(&for_all(config, before, |app| !app.routes.listen.is_empty()).routes)
}

/// Which routes two apps claim, and which of them would get each: a sentence for each app that
/// would do without some.
pub(super) fn conflicts(config: &Config, before: &InForce) -> Vec<String> {
    let sentence = |(app, without): (&Arc<str>, &Without)| {
        let Without { place, routes, .. } = without;
        format!("{place}: app `{app}` would be in force without {routes}")
    };
    for_all(config, before, |_| true).refused.iter().map(sentence).collect()
}

/// Who of these apps would get what if none of them were healthy.
fn for_all(config: &Config, before: &InForce, is_one: impl Fn(&AppConfig) -> bool) -> Settled {
    let apps = config.apps.iter().flat_map(|several| several.apps.values()).filter(|app| is_one(app));
    let claims: Vec<_> = apps
        .map(|app| Claim {
            config: Arc::clone(app),
            origin: Origin::of(config, app),
            standing: Standing::Waiting,
        })
        .collect();
    settle(&claims, before)
}

/// The addresses that apps have for themselves.
pub(super) fn addresses(in_force: &InForce) -> BTreeSet<SocketAddr> {
    let address = |spot: &Spot| match spot {
        Spot::At(addr) => Some(*addr),
        Spot::Under(..) | Spot::Named(_) => None,
    };
    in_force.keys().filter_map(address).collect()
}

/// Whether `app` has all the routes in force that it claims.
pub(super) fn has_all(app: &AppConfig, in_force: &InForce) -> bool {
    Spot::of(&app.routes).all(|spot| in_force.get(&spot).is_some_and(|holder| **holder == *app.name))
}

/// What `app` has in force of the routes that it claims.
pub(super) fn held(app: &AppConfig, in_force: &InForce) -> AppRoutes {
    let has = |spot: &Spot| in_force.get(spot).is_some_and(|holder| **holder == *app.name);
    let spots: Vec<_> = Spot::of(&app.routes).filter(has).collect();
    let hosts = |hosts: &Hosts| {
        spots.iter().any(|spot| matches!(spot, Spot::Under(held, _) | Spot::Named(held) if held == hosts))
    };
    let path = |path: &str| spots.iter().any(|spot| matches!(spot, Spot::Under(_, held) if **held == *path));
    AppRoutes {
        hosts: app.routes.hosts.iter().filter(|name| hosts(name)).cloned().collect(),
        paths: app.routes.paths.iter().filter(|beginning| path(beginning)).cloned().collect(),
        listen: app.routes.listen.iter().filter(|addr| has(&Spot::At(**addr))).copied().collect(),
        strip_prefix: app.routes.strip_prefix,
        passthrough: app.routes.passthrough,
    }
}

/// A bid that another one excludes.
#[derive(Debug)]
struct Lost<'a> {
    bid: &'a Bid<'a>,
    to: &'a Bid<'a>,
}

/// Which bids of one group get their routes, and which do not. They come in their order.
fn grant<'a>(mut bids: Vec<&'a Bid<'a>>) -> (Vec<&'a Bid<'a>>, Vec<Lost<'a>>) {
    if bids.len() == 1 {
        return (bids, Vec::new());
    }
    let given_up: Vec<_> = bids.iter().copied().filter(|bid| bid.holds && bid.is_gone()).collect();
    bids.sort_by_key(|bid| match (bid.holds, bid.claim.standing) {
        (true, Standing::Waiting | Standing::Healthy) => 0,
        (false, Standing::Healthy) if given_up.iter().any(|gone| gone.excludes(bid)) => 1,
        (true, Standing::Gone) => 2,
        (false, Standing::Waiting | Standing::Healthy) => 3,
        (false, Standing::Gone) => 4,
    });
    let (mut granted, mut lost): (Vec<&Bid<'_>>, _) = (Vec::new(), Vec::new());
    for bid in bids {
        match granted.iter().copied().find(|granted| granted.excludes(bid)) {
            None => granted.push(bid),
            Some(to) if !bid.is_gone() => lost.push(Lost { bid, to }),
            Some(_) => {}
        }
    }
    (granted, lost)
}

fn name(claim: &Claim) -> &str {
    &claim.config.name
}

impl Without {
    /// What one app lost.
    fn of(mut lost: Vec<Lost<'_>>) -> Self {
        /// How many are named.
        const MOST: usize = 3;
        lost.sort_by(|one, other| one.bid.spot.cmp(&other.bid.spot));
        let place = lost.first().map_or_else(String::new, |lost| lost.bid.claim.config.place.clone());
        let passes = lost.iter().all(|lost| lost.to.is_gone());
        let mut all: Vec<_> = lost.iter().take(MOST).map(ToString::to_string).collect();
        if lost.len() > MOST {
            all.push(format!("and {} more", lost.len() - MOST));
        }
        Self { place, routes: all.join("; "), passes }
    }
}

impl fmt::Display for Without {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, routes, .. } = self;
        if place.is_empty() { Ok(()) } else { write!(f, "{place}: ") }?;
        write!(f, "in force without {routes}")
    }
}

impl Bid<'_> {
    fn is_gone(&self) -> bool {
        self.claim.standing == Standing::Gone
    }

    /// Whether only one of two bids of a group can be granted.
    fn excludes(&self, other: &Self) -> bool {
        self.spot.excludes(&other.spot) && name(self.claim) != name(other.claim)
    }
}

impl fmt::Display for Lost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bid: Bid { spot, .. }, to } = self;
        let AppConfig { name, place, .. } = &*to.claim.config;
        match *spot == to.spot {
            true => write!(f, "{spot}, which app `{name}` has")?,
            false => write!(f, "{spot}, which overlaps {} of app `{name}`", to.spot)?,
        }
        if place.is_empty() { Ok(()) } else { write!(f, " ({place})") }?;
        match to.is_gone() {
            true => write!(f, " until this one is healthy: `{name}` is not configured any more"),
            false => Ok(()),
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
        let settled = settle(&claims, &InForce::default());
        assert_eq!(shown(&settled), ["host `x` a", "host `y` z"]);
        let refused = &settled.refused["b"];
        assert_eq!(
            refused.to_string(),
            "b.toml:1: in force without host `x`, which app `a` has (a.toml:1); host `y`, which app `z` has (z.toml:1)"
        );
        assert!(!refused.passes);
        assert!(!settled.waits_for_health && settled.refused.len() == 1);
        let contested: Vec<_> = settled.contested.iter().map(|(spot, app)| format!("{spot} {app}")).collect();
        assert_eq!(contested, ["host `x` a", "host `y` z"]);
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
            settle(&claims, &[spot("x", "old")].into_iter().collect())
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
            assert_eq!(settled.refused.values().any(|without| without.passes), waits, "{old:?} {new:?}");
        }
        // Once it does not claim it any more, or is removed, the route is free.
        let claims = [claim("a", &["x"], Origin::OwnFile, Waiting)];
        assert_eq!(shown(&settle(&claims, &[spot("x", "old")].into_iter().collect())), ["host `x` a"]);
    }

    #[test]
    fn the_parts_of_a_host_are_apart() {
        let mut v1 = claim("v1", &["x"], Origin::OwnFile, Standing::Waiting);
        Arc::make_mut(&mut v1.config).routes.paths = vec!["/v1".into()];
        let claims = [v1, claim("f", &["x"], Origin::OwnFile, Standing::Waiting)];
        let settled = settle(&claims, &InForce::default());
        assert_eq!(shown(&settled), ["host `x` f", "host `x`, path `/v1` v1"]);
        assert!(settled.refused.is_empty());
    }

    fn at(name: &str, addresses: &[&str], standing: Standing) -> Claim {
        let mut claim = claim(name, &[], Origin::OwnFile, standing);
        Arc::make_mut(&mut claim.config).routes.listen =
            addresses.iter().map(|addr| addr.parse().unwrap()).collect();
        claim
    }

    fn in_force(held: &[(&str, &str)]) -> InForce {
        held.iter().map(|(addr, app)| (Spot::At(addr.parse().unwrap()), (*app).into())).collect()
    }

    #[test]
    fn addresses_are_claimed_like_hosts() {
        use Standing::Waiting;
        let claims = ["one", "other"].map(|name| at(name, &["127.0.0.1:9080"], Waiting));
        let settled = settle(&claims, &InForce::default());
        assert_eq!(shown(&settled), ["address 127.0.0.1:9080 one"]);
        let refused =
            "other.toml:1: in force without address 127.0.0.1:9080, which app `one` has (one.toml:1)";
        assert_eq!(settled.refused["other"].to_string(), refused);
    }

    #[test]
    fn before_a_start_an_app_that_stayed_had_what_no_other_had() {
        use Standing::Waiting;
        let contested = [
            (Spot::Under("x".parse().unwrap(), "/".into()), "c".into()),
            (Spot::At("0.0.0.0:9080".parse().unwrap()), "c".into()),
        ];
        let mut stayed =
            [claim("b", &["x", "y"], Origin::OwnFile, Waiting), at("d", &["127.0.0.1:9080"], Waiting)];
        Arc::make_mut(&mut stayed[1].config).routes.hosts = vec!["y".parse().unwrap()];
        let before = held_before(&contested.into(), stayed.iter().map(|claim| &*claim.config));
        // `a` is new, and so is what `c` says.
        let mut claims =
            vec![claim("a", &["x", "y"], Origin::MainFile, Waiting), at("c", &["0.0.0.0:9080"], Waiting)];
        Arc::make_mut(&mut claims[1].config).routes.hosts = vec!["x".parse().unwrap()];
        claims.extend(stayed);
        assert_eq!(shown(&settle(&claims, &before)), ["address 0.0.0.0:9080 c", "host `x` c", "host `y` b"]);
    }

    #[test]
    fn of_addresses_that_overlap_one_app_has_some() {
        use Standing::Waiting;
        let any = ("0.0.0.0:9080", "any");
        for (claims, before, granted, refused) in [
            // At a start the first, by name, has it.
            (
                vec![at("any", &["0.0.0.0:9080"], Waiting), at("here", &["127.0.0.1:9080"], Waiting)],
                &[][..],
                &["address 0.0.0.0:9080 any"][..],
                &["here"][..],
            ),
            // The one that has it in force keeps it.
            (
                vec![at("any", &["0.0.0.0:9080"], Waiting), at("a", &["127.0.0.1:9080"], Waiting)],
                &[any],
                &["address 0.0.0.0:9080 any"],
                &["a"],
            ),
            // Once it does not claim it any more, all that it kept out get theirs.
            (
                vec![at("a", &["127.0.0.1:9080"], Waiting), at("b", &["127.0.0.2:9080"], Waiting)],
                &[any],
                &["address 127.0.0.1:9080 a", "address 127.0.0.2:9080 b"],
                &[],
            ),
            // Where both families take one queue.
            (
                vec![at("any", &["[::]:9080"], Waiting), at("b", &["127.0.0.1:9080", "[::1]:9081"], Waiting)],
                &[],
                &["address [::1]:9081 b", "address [::]:9080 any"],
                &["b"],
            ),
            // One app may have both families, and other ports are apart.
            (
                vec![at("any", &["0.0.0.0:9080", "[::]:9080"], Waiting), at("b", &["[::]:9081"], Waiting)],
                &[],
                &["address 0.0.0.0:9080 any", "address [::]:9080 any", "address [::]:9081 b"],
                &[],
            ),
        ] {
            let settled = settle(&claims, &in_force(before));
            assert_eq!(shown(&settled), granted, "{claims:?}");
            assert_eq!(settled.refused.keys().map(|app| &**app).collect::<Vec<_>>(), refused, "{claims:?}");
        }
        let claims = [at("any", &["0.0.0.0:9080"], Waiting), at("here", &["127.0.0.1:9080"], Waiting)];
        assert_eq!(
            settle(&claims, &InForce::default()).refused["here"].routes,
            "address 127.0.0.1:9080, which overlaps address 0.0.0.0:9080 of app `any` (any.toml:1)"
        );
    }

    #[test]
    fn an_app_that_is_gone_gives_an_address_to_a_healthy_one_that_overlaps() {
        use Standing::{Gone, Healthy, Waiting};
        let settled = |a, b| {
            let old = at("old", &["0.0.0.0:9080"], Gone);
            let [a, b] = [("a", "127.0.0.1:9080", a), ("b", "127.0.0.2:9080", b)]
                .map(|(name, addr, standing)| at(name, &[addr], standing));
            settle(&[old, a, b], &in_force(&[("0.0.0.0:9080", "old")]))
        };
        let waiting = settled(Waiting, Waiting);
        assert_eq!(shown(&waiting), ["address 0.0.0.0:9080 old"]);
        assert!(waiting.waits_for_health && waiting.refused.len() == 2);
        // Nothing keeps the other one out any more.
        let given = settled(Waiting, Healthy);
        assert_eq!(shown(&given), ["address 127.0.0.1:9080 a", "address 127.0.0.2:9080 b"]);
        assert!(!given.waits_for_health && given.refused.is_empty());
    }
}
