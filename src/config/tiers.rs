//! `app.tiers`: how many requests a client of an app may make in a time, by the tier of its key.
//!
//! Which key has which tier stands in a file of its own, a line each. A key is a secret: nothing
//! here shows one, and a problem of the file names its line alone.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::files::{self, Owner};
use super::further::FURTHER_MAX;
use super::read::Reader;
use super::show::{self, Secrets};
use super::values::{self, Input, NAME_EXPECTED, Parsed, is_instance_name};

/// The key whose table has the tiers.
pub(super) const KEY: &str = "app.tiers";

/// The tier of a request without a known key.
const ANONYMOUS: &str = "anonymous";

/// What the table has beside its tiers.
const BY: &str = "by";
const KEYS: &str = "keys";

/// The most tiers of an app.
const TIERS_MOST: usize = 64;

/// The most requests of a tier in its time.
const REQUESTS_MOST: u32 = 1_000_000_000;

/// The longest time of a tier: what a client did in it is remembered second by second.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

const EXAMPLE: &str = "a table, such as { by = \"address\", anonymous = \"500/1m\" }";

/// The tiers of an app.
#[derive(Debug, Clone, PartialEq)]
pub struct Tiers {
    /// Where a request has its key.
    pub by: TierBy,
    /// Where the keys were read.
    pub file: Option<PathBuf>,
    /// Which client has which tier.
    pub keys: TierKeys,
    /// The tiers, at least one.
    pub tiers: Vec<Tier>,
    /// Which of them is that of requests without a known key.
    pub anonymous: usize,
}

/// `app.tiers.by`: what a request's key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TierBy {
    /// The client's address.
    Address,
    /// The value of the field of this name, in lower case.
    Header(String),
}

/// One tier: so many requests of a client in any such time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// Its name.
    pub name: Arc<str>,
    /// The most requests, at least 1.
    pub most: u32,
    /// The time, in whole seconds.
    pub within: Duration,
}

/// The clients that are known, each with the place of its tier.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TierKeys {
    by_text: HashMap<Arc<[u8]>, usize>,
    by_network: HashMap<IpAddr, usize>,
}

impl TierKeys {
    /// The tier of the key `text`, and the key itself as it is kept.
    pub fn of_text(&self, text: &[u8]) -> Option<(Arc<[u8]>, usize)> {
        self.by_text.get_key_value(text).map(|(key, tier)| (Arc::clone(key), *tier))
    }

    /// The tier of the client at `network`, which is what [`network`] makes of its address.
    pub fn of_network(&self, network: IpAddr) -> Option<usize> {
        self.by_network.get(&network).copied()
    }

    /// The same for the same keys and tiers, whatever their order.
    fn fingerprint(&self) -> u64 {
        let hash = |key: &dyn Fn(&mut DefaultHasher), tier: &usize| {
            let mut hasher = DefaultHasher::new();
            key(&mut hasher);
            tier.hash(&mut hasher);
            hasher.finish()
        };
        let texts = self.by_text.iter().map(|(key, tier)| hash(&|hasher| key.hash(hasher), tier));
        let networks = self.by_network.iter().map(|(key, tier)| hash(&|hasher| key.hash(hasher), tier));
        texts.chain(networks).fold(0, u64::wrapping_add)
    }
}

impl fmt::Debug for TierKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.by_text.len() + self.by_network.len())
    }
}

/// Whom an address stands for: of IPv6 its /64, which one subscriber has.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// Reads the tiers of an app.
pub(super) fn read(r: &mut Reader<'_>, tiers: &mut Option<Arc<Tiers>>) {
    let Some(entries) = r.read_entries(KEY, EXAMPLE) else { return };
    let by = r.read_part(KEY, BY, by);
    let file = r.read_part(KEY, KEYS, values::path);
    let mut list = Vec::new();
    for (name, at, _) in entries.into_iter().filter(|(name, ..)| ![BY, KEYS].contains(name)) {
        if !is_instance_name(name) {
            let called = r.called_in(KEY, name);
            r.reject_called(at, &called, &format!("{NAME_EXPECTED} as the name of a tier"));
        } else if let Some((most, within)) = r.read_part(KEY, name, allowance) {
            list.push(Tier { name: name.into(), most, within });
        }
    }
    if list.len() > TIERS_MOST {
        r.reject(KEY, &format!("at most {TIERS_MOST} tiers, not {}", list.len()));
        return;
    }
    let anonymous = list.iter().position(|tier| &*tier.name == ANONYMOUS);
    if anonymous.is_none() && !r.has_part(KEY, ANONYMOUS) {
        let expected = "expected, such as \"500/1m\": what clients without a known key may";
        r.reject(KEY, &format!("a tier `{ANONYMOUS}`, {expected}"));
    }
    let Some(by) = fitting(r, by, file.is_some(), list.len()) else { return };
    let Some(anonymous) = anonymous else { return };
    let keys = file.as_ref().and_then(|file| keys_in(r, file, &by, &list)).unwrap_or_default();
    *tiers = Some(Arc::new(Tiers { by, file, keys, tiers: list, anonymous }));
}

/// What a request's key is, if that goes together with whether there is a file of keys.
fn fitting(r: &mut Reader<'_>, by: Option<TierBy>, has_file: bool, tiers: usize) -> Option<TierBy> {
    match by {
        None if r.has_part(KEY, BY) => None,
        None if has_file => {
            r.reject(KEY, "`by` in it, \"address\" or \"header:NAME\", because keys is set: what a key is");
            None
        }
        Some(TierBy::Header(_)) if !has_file && !r.has_part(KEY, KEYS) => {
            let expected = "\"address\", because keys is not set: no field's value is a known key";
            r.reject_part(KEY, BY, expected);
            None
        }
        by => {
            if !has_file && tiers > 1 {
                let called = r.called(KEY);
                r.warnings.push(format!(
                    "{called}: keys is not set, so every client is {ANONYMOUS} and no other tier is anybody's"
                ));
            }
            Some(by.unwrap_or(TierBy::Address))
        }
    }
}

/// The keys in `file`. `None`: it is refused, or is not for this reader.
fn keys_in(r: &mut Reader<'_>, file: &Path, by: &TierBy, tiers: &[Tier]) -> Option<TierKeys> {
    // The command line looks for the daemon alone.
    if r.given.sources.client {
        return None;
    }
    r.given.note_further(file);
    let read = files::read(file, FURTHER_MAX, r.given.who, Owner::Trusted)
        .map_err(|error| error.to_string())
        .and_then(|content| Ok((parse(&content.text, by, tiers)?, content.world_readable)));
    match read {
        Ok((keys, world_readable)) => {
            if world_readable {
                let (called, file) = (r.called(KEY), file.display());
                let text = format!("{called}.keys: everybody may read {file}; run: chmod o-r {file}");
                r.warnings.push(text);
            }
            Some(keys)
        }
        Err(why) => {
            r.reject_part(KEY, KEYS, &format!("a file with a key and its tier on each line, but: {why}"));
            None
        }
    }
}

/// Reads lines of a key and its tier. Empty ones, and those that begin with `#`, say nothing.
fn parse(text: &str, by: &TierBy, tiers: &[Tier]) -> Result<TierKeys, String> {
    let mut keys = TierKeys::default();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_matches([' ', '\t', '\r']);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, tier) = line
            .rsplit_once([' ', '\t'])
            .map(|(key, tier)| (key.trim_end_matches([' ', '\t']), tier))
            .ok_or_else(|| format!("line {number} is not a key, a space and the name of a tier"))?;
        // The word may be the key, where somebody has mixed the two up.
        let tier = tiers.iter().position(|known| &*known.name == tier).ok_or_else(|| {
            let names: Vec<_> = tiers.iter().map(|tier| &*tier.name).collect();
            format!("the last word of line {number} is none of the tiers: {}", names.join(", "))
        })?;
        if key.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(format!("the key of line {number} has a control character in it"));
        }
        let before = match by {
            TierBy::Header(_) => keys.by_text.insert(key.as_bytes().into(), tier),
            TierBy::Address => {
                let address = key.parse().map_err(|_| {
                    format!("line {number} does not begin with an IP address, which `by` says is the key")
                })?;
                keys.by_network.insert(network(address), tier)
            }
        };
        if before.is_some_and(|before| before != tier) {
            return Err(format!("the key of line {number} has another tier on a line before it"));
        }
    }
    Ok(keys)
}

/// Where a request has its key.
fn by(input: Input<'_>) -> Parsed<TierBy> {
    let header = |text: &str| {
        let name = HeaderName::from_bytes(text.strip_prefix("header:")?.as_bytes()).ok()?;
        Some(TierBy::Header(name.as_str().to_owned()))
    };
    match input.text() {
        Some("address") => Some(TierBy::Address),
        text => text.and_then(header),
    }
    .ok_or_else(|| "\"address\", or \"header:\" and a field's name, such as \"header:x-api-key\"".to_owned())
}

/// So many requests in such a time: `500/1m`.
fn allowance(input: Input<'_>) -> Parsed<(u32, Duration)> {
    let parse = |text: &str| {
        let (most, within) = text.split_once('/')?;
        let most = most.trim().parse().ok().filter(|most| (1..=REQUESTS_MOST).contains(most))?;
        let within = humantime::parse_duration(within.trim()).ok()?;
        let fits = within.subsec_nanos() == 0 && !within.is_zero() && within <= LONGEST;
        fits.then_some((most, within))
    };
    input.text().and_then(parse).ok_or_else(|| {
        format!(
            "requests and a time, such as \"500/1m\": 1 to {REQUESTS_MOST} in 1s to {}, in whole seconds",
            humantime::format_duration(LONGEST)
        )
    })
}

impl Tiers {
    /// As TOML. `Shown`, for a comparison alone, tells apart what the file of keys says.
    pub(super) fn show(&self, secrets: Secrets) -> String {
        let by = match &self.by {
            TierBy::Address => show::string("address"),
            TierBy::Header(name) => show::string(&format!("header:{name}")),
        };
        let mut parts = vec![format!("{BY} = {by}")];
        parts.extend(self.file.as_ref().map(|file| format!("{KEYS} = {}", show::path(file))));
        parts.extend(self.tiers.iter().map(|tier| {
            let within = humantime::format_duration(tier.within);
            format!("{} = {}", tier.name, show::string(&format!("{}/{within}", tier.most)))
        }));
        if secrets == Secrets::Shown {
            parts.push(format!("# {}", self.keys.fingerprint()));
        }
        format!("{{ {} }}", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Case;
    use super::*;

    fn tiers_of(keys: &str) -> (Case, Tiers) {
        let case =
            case_of("by = \"header:X-Api-Key\", keys = \"KEYS\", anonymous = \"5/1s\", gold = \"7 / 1h\"");
        case.write("keys", keys);
        let tiers = case.good().app.tiers.as_deref().cloned().unwrap();
        (case, tiers)
    }

    /// A configuration with this in the table of tiers. `KEYS` is a file of the case's.
    fn case_of(table: &str) -> Case {
        let case = Case::file("");
        let keys = case.path("keys").display().to_string();
        let table = table.replace("KEYS", &keys);
        case.write("api.toml", &format!("[app]\ncommand = \"x\"\ntiers = {{ {table} }}\n"));
        case
    }

    #[test]
    fn tiers_and_keys_are_read_and_no_key_is_shown() {
        let (case, tiers) =
            tiers_of("# keys\n\nsecret-1 gold\r\nBearer secret-2 \t anonymous\nsecret-1   gold\n");
        assert_eq!(tiers.by, TierBy::Header("x-api-key".to_owned()));
        let gold = tiers.tiers.iter().find(|tier| &*tier.name == "gold").unwrap();
        assert_eq!((gold.most, gold.within), (7, Duration::from_secs(3600)));
        let tier = |key: &[u8]| tiers.keys.of_text(key).map(|(_, tier)| &*tiers.tiers[tier].name);
        assert_eq!(tier(b"secret-1"), Some("gold"));
        assert_eq!(tier(b"Bearer secret-2"), Some("anonymous"));
        assert_eq!(tier(b"secret-2"), None);
        let config = case.good();
        let text = config.effective_toml();
        assert!(!format!("{config:?}{text}").contains("secret-"), "{text}");
        assert!(text.contains("tiers = { by = \"header:x-api-key\", keys = "), "{text}");
        case.write("api.toml", &text);
        assert_eq!(case.good().app.tiers, config.app.tiers);
    }

    #[test]
    fn a_key_can_be_an_address_and_of_ipv6_its_network() {
        let case = case_of("by = \"address\", keys = \"KEYS\", anonymous = \"5/1s\", gold = \"7/1h\"");
        case.write("keys", "10.0.0.7 gold\n2001:db8::7 gold\n::ffff:10.0.0.8 gold\n");
        let tiers = case.good().app.tiers.clone().unwrap();
        for (address, is_known) in [
            ("10.0.0.7", true),
            ("10.0.0.9", false),
            ("10.0.0.8", true),
            ("2001:db8::1:2:3", true),
            ("2001:db8:0:1::7", false),
        ] {
            let tier = tiers.keys.of_network(network(address.parse().unwrap()));
            assert_eq!(tier.is_some(), is_known, "{address}");
        }
    }

    #[test]
    fn an_edit_of_the_keys_is_a_change_that_is_named() {
        let (case, _) = tiers_of("a gold\nb gold\n");
        let old = case.good();
        case.write("keys", "b gold\na gold\n");
        assert!(super::super::diff(&old, &case.good()).is_empty());
        case.write("keys", "b gold\na anonymous\n");
        let diff = super::super::diff(&old, &case.good());
        assert_eq!(diff.changed, ["app.tiers"]);
        assert!(diff.refused.is_empty(), "{diff:?}");
        assert_eq!(
            super::super::app_fingerprint(&old.app.app),
            super::super::app_fingerprint(&case.good().app.app)
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (table, part) in [
            ("by = \"address\"", "expected a tier `anonymous`"),
            ("anonymous = 5", "app.tiers.anonymous = 5: expected requests and a time, such as \"500/1m\""),
            ("anonymous = \"0/1m\"", "1 to 1000000000"),
            ("anonymous = \"5\"", "requests and a time"),
            ("anonymous = \"5/1500ms\"", "in whole seconds"),
            ("anonymous = \"5/25h\"", "1s to 1day"),
            ("anonymous = \"5/0s\"", "1s to 1day"),
            ("by = \"cookie\", anonymous = \"5/1s\"", "app.tiers.by = \"cookie\": expected \"address\", or"),
            ("by = \"header:a b\", anonymous = \"5/1s\"", "such as \"header:x-api-key\""),
            ("by = \"header:x\", anonymous = \"5/1s\"", "because keys is not set"),
            ("keys = \"KEYS\", anonymous = \"5/1s\"", "because keys is set"),
            ("by = \"header:x\", keys = \"/nowhere/x\", anonymous = \"5/1s\"", "No such file"),
            ("anonymous = \"5/1s\", \"a b\" = \"5/1s\"", "as the name of a tier"),
        ] {
            let case = case_of(table);
            case.write("keys", "");
            let problems = case.problems();
            assert_eq!(problems.len(), 1, "{table}: {problems:#?}");
            assert!(problems[0].contains(part), "{table}: {problems:#?}");
        }
    }

    #[test]
    fn a_bad_line_is_named_and_not_quoted() {
        for (keys, part) in [
            ("secret\n", "line 1 is not a key"),
            ("\nsecret gold\ngold secret\n", "the last word of line 3 is none of the tiers: anonymous, gold"),
            ("secret gold\nsecret anonymous\n", "the key of line 2 has another tier on a line before it"),
            ("sec\u{1}ret gold\n", "line 1 has a control character"),
        ] {
            let case = case_of("by = \"header:x\", keys = \"KEYS\", anonymous = \"5/1s\", gold = \"7/1h\"");
            case.write("keys", keys);
            let problems = case.problems();
            assert!(problems[0].contains(part) && !problems[0].contains("secret"), "{problems:#?}");
        }
        let case = case_of("by = \"address\", keys = \"KEYS\", anonymous = \"5/1s\"");
        case.write("keys", "secret anonymous\n");
        assert!(case.problems()[0].contains("line 1 does not begin with an IP address"));
        std::fs::set_permissions(case.path("keys"), std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .unwrap();
        assert!(case.problems()[0].contains("chmod go-w"), "{:#?}", case.problems());
    }

    #[test]
    fn one_of_several_apps_has_tiers_of_its_own() {
        let case = Case::file("");
        case.write("keys", "a gold\n");
        let keys = case.path("keys").display().to_string();
        let table = format!("by = \"header:x\"\nkeys = \"{keys}\"\nanonymous = \"5/1s\"\ngold = \"9/1s\"\n");
        case.write(
            "api.toml",
            &format!("[apps.one]\ncommand = \"x\"\n[apps.one.tiers]\n{table}[apps.two]\ncommand = \"x\"\n"),
        );
        let config = case.good();
        let apps = &config.apps.as_ref().unwrap().apps;
        assert!(apps["one"].tiers.is_some() && apps["two"].tiers.is_none());
        let text = config.effective_toml();
        assert!(text.contains("tiers = { by = \"header:x\""), "{text}");
        case.write("api.toml", "[apps.www]\nredirect = \"https://a.test\"\ntiers.anonymous = \"5/1s\"\n");
        assert!(case.problems()[0].contains("a redirect has no use for it"), "{:#?}", case.problems());
    }
}
