//! How many requests each client of an app may make in a time (`app.tiers`).
//!
//! A request finds its client and its tier in its own fields and the keys of the configuration; it
//! is then judged, and counted, among the requests of that client within the tier's time. State:
//! one [`Clients`] a service, which all threads share and which outlives every configuration. What
//! a request does there is a look into a map and a few steps in memory, behind a lock of its own
//! app's; apps without tiers have none of it. So counts are exact over all threads.
//!
//! No crate does this. `governor`, `leaky-bucket` and `ratelimit` refill a bucket: who has paused
//! may make a tier's requests at once and goes on at its rate, which is up to twice as many as it
//! may in some minute. `limitador` begins its windows at fixed times, with the same outcome. None
//! bounds its memory by forgetting whoever was seen longest ago. Here each client's requests are
//! kept by the second: [`window`], and the clients in the order in which they were seen: [`book`].

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use http::{HeaderName, HeaderValue};

use super::clock;
use crate::config::{AppConfig, TierBy, Tiers, network};

use self::book::{Book, Bounds, Client};
use self::window::{Allowance, Standing};

mod book;
mod window;

/// How much is remembered of the clients of one app: 64 MiB of seconds.
const BOUNDS: Bounds = Bounds { clients: 100_000, steps: 4_000_000 };

/// The clients of one app, for all threads.
#[derive(Debug)]
pub(super) struct Clients {
    /// Moments are counted from here. The threads' own clocks are too coarse.
    start: Instant,
    book: Mutex<Book>,
}

impl Default for Clients {
    fn default() -> Self {
        Self { start: Instant::now(), book: Mutex::new(Book::new(BOUNDS)) }
    }
}

impl Clients {
    fn admit(&self, client: &Client, allowance: Allowance) -> Standing {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        // Asked behind the lock: no moment comes before one that was noted.
        let now = clock::millis(self.start.elapsed());
        book.admit(client, now, allowance)
    }
}

/// The tiers of an app, as its requests read them.
#[derive(Debug)]
pub(super) struct Rule(Arc<Tiers>);

impl Rule {
    /// Those of `app`, if it has any.
    pub(super) fn of(app: &AppConfig) -> Option<Self> {
        app.tiers.clone().map(Self)
    }

    /// The place that a request with these `fields` has, of a client at `address`.
    #[inline(never)]
    pub(super) fn place<'a>(
        &self,
        mut fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        address: IpAddr,
    ) -> Box<Place> {
        let Self(tiers) = self;
        let network = network(address);
        let known = match &tiers.by {
            TierBy::Address => tiers.keys.of_network(network).map(|tier| (Client::Network(network), tier)),
            TierBy::Header(wanted) => {
                let value = fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted.as_bytes()));
                let known = value.and_then(|(_, value)| tiers.keys.of_text(value.trim_ascii()));
                known.map(|(key, tier)| (Client::Key(key), tier))
            }
        };
        let (client, tier) = known.unwrap_or((Client::Network(network), tiers.anonymous));
        let tier = &tiers.tiers[tier];
        let allowance = Allowance { most: tier.most, within: clock::millis(tier.within) };
        Box::new(Place { client, tier: tier.name.clone(), allowance, standing: None })
    }
}

/// Where a request stands: whose it is, and what that client may.
#[derive(Debug)]
pub(super) struct Place {
    client: Client,
    tier: Arc<str>,
    allowance: Allowance,
    /// `None`: not judged yet.
    standing: Option<Standing>,
}

impl Place {
    /// Judges the request, and counts it among those of its client unless it is one too many.
    pub(super) fn admit(&mut self, clients: &Clients) -> Result<(), Quota> {
        let standing = clients.admit(&self.client, self.allowance);
        self.standing = Some(standing);
        if standing.refused { Err(self.quota(standing)) } else { Ok(()) }
    }

    /// The name of the tier.
    pub(super) fn tier(&self) -> &str {
        &self.tier
    }

    /// What the client is told with an answer; `None`: the request was not judged.
    pub(super) fn told(&self) -> Option<Quota> {
        self.standing.map(|standing| self.quota(standing))
    }

    fn quota(&self, standing: Standing) -> Quota {
        Quota { tier: self.tier.clone(), allowance: self.allowance, standing }
    }
}

/// What a client may, and how much of it is left: as the fields `RateLimit-Policy` and `RateLimit`
/// say it (draft-ietf-httpapi-ratelimit-headers-10).
#[derive(Debug)]
pub(super) struct Quota {
    tier: Arc<str>,
    allowance: Allowance,
    standing: Standing,
}

impl Quota {
    /// The two fields, name and value.
    pub(super) fn fields(&self) -> [(&'static str, String); 2] {
        let Self { tier, allowance, standing } = self;
        let policy = format!("\"{tier}\";q={};w={}", allowance.most, allowance.within / 1000);
        let left = format!("\"{tier}\";r={};t={}", standing.left, self.seconds());
        [("ratelimit-policy", policy), ("ratelimit", left)]
    }

    /// The same for an answer's head.
    pub(super) fn header_fields(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let field = |(name, value): (&'static str, String)| {
            Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?))
        };
        self.fields().into_iter().filter_map(field)
    }

    /// In how many seconds the client may make more requests than now: the value of `Retry-After`.
    pub(super) fn seconds(&self) -> u64 {
        self.standing.more_in.div_ceil(1000).max(1)
    }

    /// What the tier allows, for a message.
    pub(super) fn allowed(&self) -> String {
        let within = std::time::Duration::from_millis(self.allowance.within);
        format!("{} = {}/{}", self.tier, self.allowance.most, humantime::format_duration(within))
    }
}

#[cfg(test)]
impl Quota {
    /// That of a request that is one too many.
    pub(super) fn of_a_refusal() -> Self {
        let standing = Standing { refused: true, left: 0, more_in: 1_001 };
        Self { tier: "anonymous".into(), allowance: Allowance { most: 500, within: 60_000 }, standing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(by: TierBy) -> Rule {
        let tier = |name: &str, most| crate::config::Tier {
            name: name.into(),
            most,
            within: std::time::Duration::from_secs(3600),
        };
        let tiers = vec![tier("anonymous", 3), tier("gold", 5)];
        Rule(Arc::new(Tiers { by, file: None, keys: Default::default(), tiers, anonymous: 0 }))
    }

    #[test]
    fn threads_together_admit_exactly_what_the_tier_allows() {
        let clients = Clients::default();
        let rule = rule(TierBy::Address);
        let admitted = || {
            let ask = |_: &u32| {
                let place = &mut rule.place(std::iter::empty(), IpAddr::from([10, 0, 0, 1]));
                place.allowance.most = 1_000;
                place.admit(&clients).is_ok()
            };
            (0..2_000).filter(ask).count()
        };
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(admitted)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 1_000);
    }

    #[test]
    fn who_has_no_known_key_is_known_by_the_network() {
        let (clients, rule) = (Clients::default(), rule(TierBy::Header("x-api-key".to_owned())));
        let left = |address: &str| {
            let fields = [(&b"X-API-Key"[..], &b"unknown"[..])];
            let mut place = rule.place(fields.into_iter(), address.parse().unwrap());
            assert_eq!(place.tier(), "anonymous");
            place.admit(&clients).map_or(-1, |()| i64::from(place.standing.unwrap().left))
        };
        assert_eq!(
            ["2001:db8::1", "2001:db8::ffff:2", "2001:db8::3", "2001:db8::4"].map(left),
            [2, 1, 0, -1]
        );
        assert_eq!(["2001:db8:0:1::1", "10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"].map(left), [2, 2, 1, 2]);
    }

    #[test]
    fn the_fields_are_those_of_the_draft() {
        let quota = Quota::of_a_refusal();
        let [policy, left] = quota.fields();
        assert_eq!(policy, ("ratelimit-policy", "\"anonymous\";q=500;w=60".to_owned()));
        assert_eq!(left, ("ratelimit", "\"anonymous\";r=0;t=2".to_owned()));
        assert_eq!((quota.seconds(), quota.allowed().as_str()), (2, "anonymous = 500/1m"));
    }
}
