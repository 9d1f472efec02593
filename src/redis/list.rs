//! One list, `frontend:<host>`: what it says, or why it is malformed. Pure.
//!
//! Its first element is a label, and each further one a target, `http://IP:PORT`; without a port it
//! is 80, as hipache has it. The list comes from outside, so nothing of it is taken on trust.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::bounds::Bounds;
use crate::config::{Hosts, NoHosts};

/// The longest element, in bytes.
pub(super) const LONGEST_ELEMENT: usize = 1024;

/// The most targets of a list.
pub(super) const MOST_TARGETS: usize = 64;

/// The longest target, in bytes: more than the longest address with its port. Of a list with a
/// longer one, nothing is read behind it.
const LONGEST_TARGET: usize = 128;

/// How much of an element a message quotes, in characters.
const QUOTED: usize = 80;

/// What a well-formed list says. There may be very many, so what follows from the rest is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frontend {
    hosts: Hosts,
    label: Box<str>,
    targets: Targets,
    /// Key and URLs as they were read, where they are not [as portok writes them](Written::plain).
    written: Option<Box<Written>>,
}

/// In the order of the URLs. Two may be equal: such a target gets twice as much.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Targets {
    One(SocketAddr),
    Several(Box<[SocketAddr]>),
}

/// How a list and its key are written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Written {
    /// The host as the key has it.
    key: Box<str>,
    urls: Box<[Box<str>]>,
}

impl Written {
    /// Whether key and URLs follow from what they say.
    fn plain(&self, hosts: &Hosts, targets: &[SocketAddr]) -> bool {
        matches!(hosts, Hosts::Exact(host) if *host.as_str() == *self.key)
            && self.urls.iter().zip(targets).all(|(url, target)| **url == *plain_url(*target))
    }
}

/// A target as portok writes it.
fn plain_url(target: SocketAddr) -> String {
    format!("http://{target}")
}

/// Why a list says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The rest of its key is no host.
    #[error("the key does not end in a host: {0}")]
    Host(#[from] NoHosts),
    /// Another key names the same hosts.
    #[error("frontend:{0} names the same host")]
    Twice(String),
    /// The key holds something else.
    #[error("the key holds no list")]
    NoList,
    /// It has more elements than are read.
    #[error("it has more than {MOST_TARGETS} targets")]
    TooMany,
    /// It has a label at most.
    #[error("it has no targets")]
    NoTargets,
    /// An element is too long; the label is the first one.
    #[error("element {0} is longer than {LONGEST_ELEMENT} bytes")]
    Long(usize),
    /// An element is no UTF-8.
    #[error("element {0} is no text")]
    NoText(usize),
    /// A URL with a user or a password, which no message quotes.
    #[error("element {0} has credentials: a target is http://IP:PORT")]
    Credentials(usize),
    /// An element that is no target.
    #[error("{element} {problem}: a target is http://IP:PORT")]
    Target {
        /// The element, quoted.
        element: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A target that may not be one.
    #[error("{target} {objection}")]
    Forbidden {
        /// Its address.
        target: SocketAddr,
        /// What forbids it.
        objection: Cow<'static, str>,
    },
}

impl Frontend {
    /// Reads the list of `frontend:<key>`.
    ///
    /// # Errors
    /// Why it is malformed: the first reason.
    pub(super) fn read<E: AsRef<[u8]>>(
        key: &str,
        elements: &[E],
        bounds: &Bounds,
    ) -> Result<Self, Malformed> {
        let hosts = key.parse()?;
        if elements.len() > MOST_TARGETS + 1 {
            return Err(Malformed::TooMany);
        }
        let numbered = elements.iter().map(AsRef::as_ref).zip(1..);
        let mut list = numbered.map(|(element, number)| text(element, number));
        let label = list.next().transpose()?.unwrap_or_default();
        let urls = list.collect::<Result<Box<[_]>, _>>()?;
        let targets = urls.iter().zip(2..).map(|(url, number)| target(url, number, bounds));
        let targets = match *targets.collect::<Result<Box<[_]>, _>>()? {
            [] => return Err(Malformed::NoTargets),
            [target] => Targets::One(target),
            ref several => Targets::Several(several.into()),
        };
        let written = Written { key: key.into(), urls };
        let is_plain = written.plain(&hosts, targets.all());
        Ok(Self { hosts, label, targets, written: (!is_plain).then(|| Box::new(written)) })
    }

    /// Whether `elements` is the list that it was read from.
    pub(super) fn is_of<E: AsRef<[u8]>>(&self, key: &str, elements: &[E]) -> bool {
        self.key() == key
            && elements.len() == self.targets().len() + 1
            && self.list().zip(elements).all(|(own, element)| own.as_bytes() == element.as_ref())
    }

    /// The host as the key has it: `dead:<host>` has the same.
    pub fn key(&self) -> &str {
        match (&self.written, &self.hosts) {
            (Some(written), _) => &written.key,
            (None, Hosts::Exact(host) | Hosts::Below(host)) => host.as_str(),
            (None, Hosts::Any) => "*",
        }
    }

    /// The hosts whose requests it is for.
    pub fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// The name of its app.
    pub fn app(&self) -> String {
        format!("redis:{}", self.hosts)
    }

    /// What somebody has called it. It is shown and never a name; it may hold any character.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Where its requests go, in the order of the list: the index of a dead mark is one among them.
    pub fn targets(&self) -> &[SocketAddr] {
        self.targets.all()
    }

    /// The list as it was read.
    pub(super) fn list(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let urls = (0..self.targets().len()).filter_map(|index| self.url(index));
        std::iter::once(Cow::from(&*self.label)).chain(urls)
    }

    /// The target of this index as the list writes it.
    pub(super) fn url(&self, index: usize) -> Option<Cow<'_, str>> {
        match &self.written {
            Some(written) => written.urls.get(index).map(|url| Cow::from(&**url)),
            None => self.targets().get(index).map(|target| plain_url(*target).into()),
        }
    }
}

impl Targets {
    fn all(&self) -> &[SocketAddr] {
        match self {
            Self::One(target) => std::slice::from_ref(target),
            Self::Several(targets) => targets,
        }
    }
}

/// An element as text; the label is number 1.
fn text(element: &[u8], number: usize) -> Result<Box<str>, Malformed> {
    if element.len() > LONGEST_ELEMENT {
        return Err(Malformed::Long(number));
    }
    str::from_utf8(element).map(Into::into).map_err(|_| Malformed::NoText(number))
}

fn target(url: &str, number: usize, bounds: &Bounds) -> Result<SocketAddr, Malformed> {
    if url.contains('@') {
        return Err(Malformed::Credentials(number));
    }
    let address = if url.len() > LONGEST_TARGET { Err("is longer than an address") } else { address(url) };
    let target = address.map_err(|problem| Malformed::Target {
        element: format!("{:?}", url.chars().take(QUOTED).collect::<String>()),
        problem,
    })?;
    bounds.admit(target).map_err(|objection| Malformed::Forbidden { target, objection })
}

/// The address in a URL, or what is wrong with it.
fn address(url: &str) -> Result<SocketAddr, &'static str> {
    let (scheme, rest) = url.split_once("://").ok_or("is no URL")?;
    if !scheme.eq_ignore_ascii_case("http") {
        return Err("has another scheme than http");
    }
    if rest.contains('/') {
        return Err("has a path");
    }
    if rest.contains('#') {
        return Err("has a fragment");
    }
    if rest.contains('?') {
        return Err("has a query");
    }
    let (address, port): (IpAddr, _) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or("has a bracket that is not closed")?;
            (
                IpAddr::V6(address.parse::<Ipv6Addr>().map_err(|_| "has no IPv6 address in its brackets")?),
                port,
            )
        }
        None => {
            let (address, port) = rest.split_at(rest.find(':').unwrap_or(rest.len()));
            (IpAddr::V4(address.parse::<Ipv4Addr>().map_err(|_| "names no address")?), port)
        }
    };
    const NO_PORT: &str = "has no port from 1 to 65535";
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => 80,
        // A number's sign is no digit of a port.
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port != 0).ok_or(NO_PORT)?
        }
        _ => return Err(NO_PORT),
    };
    Ok(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds() -> Bounds {
        Bounds {
            allow: ["10.0.0.0/8", "fc00::/7"].map(|range| range.parse().unwrap()).to_vec(),
            listen: vec!["10.0.0.9:80".parse().unwrap()],
            ..Bounds::default()
        }
    }

    fn read(key: &str, list: &[&str]) -> Result<Frontend, String> {
        Frontend::read(key, list, &bounds()).map_err(|malformed| malformed.to_string())
    }

    fn reason(list: &[&str]) -> String {
        read("a.b", list).unwrap_err()
    }

    #[test]
    fn a_list_is_a_label_and_targets() {
        let list = ["My shop", "http://10.0.0.1:8080", "HTTP://[fc00::1]:81", "http://10.0.0.1"];
        let frontend = read("Shop.example.com", &list).unwrap();
        assert_eq!(frontend.label(), "My shop");
        assert_eq!((frontend.key(), &*frontend.app()), ("Shop.example.com", "redis:shop.example.com"));
        let targets: Vec<_> = frontend.targets().iter().map(ToString::to_string).collect();
        assert_eq!(targets, ["10.0.0.1:8080", "[fc00::1]:81", "10.0.0.1:80"]);
        let url = |index| frontend.url(index).map(Cow::into_owned);
        assert_eq!(url(0).unwrap(), "http://10.0.0.1:8080");
        assert_eq!((&*url(2).unwrap(), url(3)), ("http://10.0.0.1", None));
        assert_eq!(frontend.url(usize::MAX), None);
        assert!(frontend.is_of("Shop.example.com", &list));
        assert!(!frontend.is_of("shop.example.com", &list));
        assert!(!frontend.is_of("Shop.example.com", &list[..3]));
        assert!(frontend.list().eq(list));
        // What is written as portok writes it is found again without being kept.
        let plain = ["", "http://10.0.0.1:80", "http://[fc00::1]:81"];
        let frontend = read("a.b", &plain).unwrap();
        assert!(frontend.written.is_none() && frontend.list().eq(plain) && frontend.is_of("a.b", &plain));
        for (key, url) in [("A.b", plain[1]), ("a.b", "http://10.0.0.1"), ("a.b", "HTTP://10.0.0.1:80")] {
            let frontend = read(key, &["", url]).unwrap();
            assert_eq!((frontend.key(), &*frontend.url(0).unwrap()), (key, url));
        }
        // A label may be empty, and a target stand there twice.
        let twice = ["", "http://10.0.0.1:80", "http://10.0.0.1:80"];
        assert_eq!(read("*.b", &twice).unwrap().targets().len(), 2);
        assert_eq!(read("*", &twice).unwrap().app(), "redis:*");
    }

    #[test]
    fn a_key_has_to_end_in_a_host() {
        for key in ["", "a b", "a:80", "a/b", "*a", "a..b", "*.*.a", "\u{e9}.b"] {
            assert!(read(key, &["l", "http://10.0.0.1:80"]).is_err(), "{key}");
        }
    }

    #[test]
    fn whatever_is_no_target_makes_the_list_malformed() {
        for (url, problem) in [
            ("", "is no URL"),
            ("10.0.0.1:80", "is no URL"),
            ("https://10.0.0.1:80", "another scheme"),
            ("unix:///run/x", "another scheme"),
            ("http://shop:80", "names no address"),
            ("http://localhost", "names no address"),
            ("http://", "names no address"),
            ("http://10.0.0.1.:80", "names no address"),
            ("http://10.1:80", "names no address"),
            ("http://010.0.0.1:80", "names no address"),
            ("http://0x0a000001:80", "names no address"),
            ("http://fc00::1:80", "names no address"),
            ("http:// 10.0.0.1:80", "names no address"),
            ("http://[fc00::1", "not closed"),
            ("http://[10.0.0.1]:80", "no IPv6 address"),
            ("http://[fc00::1%eth0]:80", "no IPv6 address"),
            ("http://10.0.0.1:80/", "has a path"),
            ("http://10.0.0.1/x", "has a path"),
            ("http://10.0.0.1:80?x", "has a query"),
            ("http://10.0.0.1:80#x", "has a fragment"),
            ("http://10.0.0.1:", "has no port"),
            ("http://10.0.0.1:0", "has no port"),
            ("http://10.0.0.1:65536", "has no port"),
            ("http://10.0.0.1:+80", "has no port"),
            ("http://10.0.0.1:80\n", "has no port"),
            ("http://[fc00::1]80", "has no port"),
        ] {
            let reason = reason(&["label", "http://10.0.0.1:80", url]);
            assert!(reason.contains(problem), "{url:?}: {reason}");
        }
        assert!(reason(&["label", &format!("http://{}", "x".repeat(900))]).len() < 200);
        let padded = format!("http://10.0.0.1:{:0>120}", 80);
        assert!(reason(&["label", &padded]).contains("is longer than an address"));
    }

    #[test]
    fn credentials_are_refused_and_not_repeated() {
        for url in ["http://user:hunter2@10.0.0.1:80", "ftp://hunter2@x/y", "http://10.0.0.1:80/@hunter2"] {
            let reason = reason(&["label", url]);
            assert!(reason.contains("element 2 has credentials") && !reason.contains("hunter2"), "{reason}");
        }
    }

    #[test]
    fn forbidden_addresses_make_the_list_malformed() {
        for url in
            ["http://11.0.0.1:80", "http://127.0.0.1:80", "http://[::ffff:11.0.0.1]:80", "http://10.0.0.9"]
        {
            let reason = reason(&["label", "http://10.0.0.1:80", url]);
            assert!(reason.contains("redis.allow") || reason.contains("listens on"), "{url}: {reason}");
        }
    }

    #[test]
    fn sizes_are_bounded() {
        assert!(reason(&[]).contains("no targets"));
        assert!(reason(&["label"]).contains("no targets"));
        let longest = "l".repeat(LONGEST_ELEMENT);
        assert!(read("a", &[&longest, "http://10.0.0.1:80"]).is_ok());
        assert!(reason(&[&format!("{longest}l"), "http://10.0.0.1:80"]).contains("element 1 is longer"));
        let mut list = vec!["http://10.0.0.1:80"; MOST_TARGETS + 1];
        assert!(read("a", &list).is_ok());
        list.push("http://10.0.0.1:80");
        assert!(reason(&list).contains("more than 64 targets"));
        let no_text = Frontend::read("a", &[b"\xff"], &bounds()).unwrap_err();
        assert_eq!(no_text, Malformed::NoText(1));
    }

    proptest::proptest! {
        /// Whatever a list holds, its targets are admitted ones, and it is recognised again.
        #[test]
        fn no_list_leads_elsewhere(
            key in "[a-z*.]{0,6}",
            list in proptest::collection::vec(
                "(http|https|HTTP)?(://)?(10\\.0\\.0\\.[0-9]|\\[[a-f0-9:.]{1,12}\\]|[0-9.]{1,9})(:[0-9]{0,6})?.{0,2}",
                0..4
            ),
        ) {
            if let Ok(frontend) = Frontend::read(&key, &list, &bounds()) {
                proptest::prop_assert!(frontend.is_of(&key, &list));
                proptest::prop_assert_eq!(frontend.targets().len() + 1, list.len());
                for target in frontend.targets() {
                    proptest::prop_assert_eq!(bounds().admit(*target), Ok(*target));
                }
            }
        }
    }
}
