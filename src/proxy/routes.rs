//! The route table: which of several apps a request goes to, by the listener that it came to, its
//! host and its path. Pure data: a table does not change; a new one takes its place.
//!
//! - At a listener of an app's own, host and path do not matter. All others share the rest.
//! - A host is compared in lower case, without its port and one dot at its end.
//! - An exact host comes before hosts below a name, of these the longest name, then any host. A
//!   host that has routes of its own never falls back to a less exact one.
//! - Of a host's routes the longest path counts that the request's begins with, up to the border of
//!   a segment. Paths are compared as they are: nothing is decoded.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{Hash, Hasher};

use foldhash::fast::RandomState;

use super::address::ListenerId;
use crate::config::{Host, Hosts};
use crate::http1::host::compared;

/// A route: the requests that it is for go to `to`.
#[derive(Debug, Clone)]
pub struct Route<T> {
    /// Which requests it is for.
    pub at: At,
    /// Where they go.
    pub to: T,
}

/// The requests that a route is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum At {
    /// At the instance's listeners, all of which share one table.
    Instance {
        /// Requests for these hosts...
        hosts: Hosts,
        /// ...with this path at the beginning of theirs. It begins with `/`, which alone is every
        /// one.
        path: Box<str>,
    },
    /// At the instance's listeners for TLS, connections whose client asks for these hosts. They go
    /// on as they are.
    Named(Hosts),
    /// Every request at this listener of an app's own.
    Listener(ListenerId),
}

/// Routes by listener, host and path.
#[derive(Debug)]
pub(super) struct Routes<T> {
    listeners: HashMap<ListenerId, T, RandomState>,
    /// By the host of a request.
    hosts: ByHost<Paths<T>>,
    /// By the name that a client asks for in TLS.
    named: ByHost<T>,
}

/// What there is for hosts.
#[derive(Debug)]
struct ByHost<V> {
    exact: Names<V>,
    below: Names<V>,
    /// The longest name in `below`: nothing longer is looked up.
    longest_below: usize,
    any: Option<V>,
}

/// The path that every other one begins with.
const EVERY: &str = "/";

/// What there is for a host's name. Each request looks in here, so the hash is a quick one. Its seed
/// is random: nobody can choose names that make a table slow.
type Names<V> = HashMap<Name, V, RandomState>;

/// A host's name, which is looked up by its bytes.
#[derive(Debug, PartialEq, Eq)]
struct Name(Host);

impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        self.0.as_str().as_bytes()
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let bytes: &[u8] = self.borrow();
        bytes.hash(hasher);
    }
}

/// The routes of one host.
#[derive(Debug)]
enum Paths<T> {
    /// One for every path. Of very many hosts most have this.
    Every(T),
    /// The longest path first.
    Some(Vec<(Box<[u8]>, T)>),
}

/// How near what was found is to the host: an exact one is nearer than any name above it, and of
/// these the longest is.
type Nearness = usize;

impl<V> Default for ByHost<V> {
    fn default() -> Self {
        Self { exact: Names::default(), below: Names::default(), longest_below: 0, any: None }
    }
}

impl<V> ByHost<V> {
    /// Changes what there is for these hosts, or adds something.
    fn set(&mut self, hosts: Hosts, change: impl FnOnce(Option<&mut V>) -> Option<V>) {
        let (names, host) = match hosts {
            Hosts::Exact(host) => (&mut self.exact, host),
            Hosts::Below(name) => {
                self.longest_below = self.longest_below.max(name.as_str().len());
                (&mut self.below, name)
            }
            Hosts::Any => {
                if let Some(new) = change(self.any.as_mut()) {
                    self.any = Some(new);
                }
                return;
            }
        };
        match names.entry(Name(host)) {
            Entry::Occupied(mut there) => _ = change(Some(there.get_mut())),
            Entry::Vacant(free) => _ = change(None).map(|new| free.insert(new)),
        }
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.exact.values_mut().chain(self.below.values_mut()).chain(&mut self.any)
    }

    /// What there is for this host, as hosts are compared, and how near that is.
    #[inline(always)]
    fn find(&self, host: &[u8]) -> Option<(Nearness, &V)> {
        if let Some(found) = self.exact.get(host) {
            return Some((Nearness::MAX, found));
        }
        if self.longest_below > 0 {
            let dots = host.iter().enumerate().filter(|&(at, &byte)| byte == b'.' && at > 0);
            let mut names =
                dots.map(|(at, _)| &host[at + 1..]).filter(|name| name.len() <= self.longest_below);
            // The longest name comes first.
            if let Some(found) = names.find_map(|name| Some((name.len(), self.below.get(name)?))) {
                return Some(found);
            }
        }
        self.any.as_ref().map(|found| (0, found))
    }
}

impl<T> Routes<T> {
    /// A table of these routes. Of two for the same requests the first counts.
    pub(super) fn new(routes: impl IntoIterator<Item = Route<T>>) -> Self {
        let mut table =
            Self { listeners: HashMap::default(), hosts: ByHost::default(), named: ByHost::default() };
        for Route { at, to } in routes {
            match at {
                At::Listener(id) => _ = table.listeners.entry(id).or_insert(to),
                At::Named(hosts) => table.named.set(hosts, |there| there.is_none().then_some(to)),
                At::Instance { hosts, path } => table.hosts.set(hosts, |there| match there {
                    Some(paths) => {
                        paths.add(path, to);
                        None
                    }
                    None => Some(Paths::new(path, to)),
                }),
            }
        }
        for paths in table.hosts.all_mut() {
            if let Paths::Some(paths) = paths {
                // Stable: of two equal ones the first is found.
                paths.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
            }
        }
        table
    }

    /// Where a request that came to `listener` goes: for `host`, as the client wrote it, and
    /// `path`, with its query. Without a host only the routes for any host count.
    pub(super) fn find<'h>(
        &self,
        listener: &ListenerId,
        host: impl FnOnce() -> Option<&'h [u8]>,
        path: &[u8],
    ) -> Option<&T> {
        match listener {
            ListenerId::Instance(_) | ListenerId::Tls(_) => self.paths(host())?.find(path),
            ListenerId::App(_) => self.listeners.get(listener),
        }
    }

    fn paths(&self, host: Option<&[u8]>) -> Option<&Paths<T>> {
        let Some(host) = host else { return self.hosts.any.as_ref() };
        self.hosts.find(&compared(host)).map(|(_, paths)| paths)
    }

    /// Whether any connection goes on by the name that its client asks for.
    pub(super) fn has_names(&self) -> bool {
        !(self.named.exact.is_empty() && self.named.below.is_empty())
    }

    /// Where a connection of TLS goes on as it is, whose client asks for this name; `None`: nowhere,
    /// or there are requests that the name is nearer to.
    pub(super) fn named(&self, name: &[u8]) -> Option<&T> {
        let name = compared(name);
        let (nearness, to) = self.named.find(&name)?;
        let is_nearest = self.hosts.find(&name).is_none_or(|(other, _)| nearness >= other);
        is_nearest.then_some(to)
    }
}

impl<T> Paths<T> {
    fn new(path: Box<str>, to: T) -> Self {
        if &*path == EVERY { Self::Every(to) } else { Self::Some(vec![(path.into(), to)]) }
    }

    fn add(&mut self, path: Box<str>, to: T) {
        let mut paths = match std::mem::replace(self, Self::Some(Vec::new())) {
            Self::Every(former) => vec![(Box::from(EVERY.as_bytes()), former)],
            Self::Some(paths) => paths,
        };
        paths.push((path.into(), to));
        *self = Self::Some(paths);
    }

    fn find(&self, path: &[u8]) -> Option<&T> {
        match self {
            Self::Every(to) => Some(to),
            Self::Some(paths) => paths.iter().find(|(prefix, _)| is_under(prefix, path)).map(|(_, to)| to),
        }
    }
}

/// Whether `path`, with its query, begins with `prefix` and goes on at the border of a segment. `/`
/// is the beginning of everything: of `*` and of the missing path of an absolute target, too.
fn is_under(prefix: &[u8], path: &[u8]) -> bool {
    prefix == EVERY.as_bytes()
        || path
            .strip_prefix(prefix)
            .is_some_and(|rest| prefix.ends_with(b"/") || matches!(rest.first(), None | Some(b'/' | b'?')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(routes: &[(&str, &str)]) -> Routes<String> {
        Routes::new(routes.iter().map(|(hosts, path)| Route {
            at: At::Instance { hosts: hosts.parse().unwrap(), path: (*path).into() },
            to: format!("{hosts}{path}"),
        }))
    }

    fn public() -> ListenerId {
        ListenerId::Instance(([127, 0, 0, 1], 80).into())
    }

    fn found<'t>(table: &'t Routes<String>, host: Option<&str>, path: &str) -> Option<&'t str> {
        table.find(&public(), || host.map(str::as_bytes), path.as_bytes()).map(String::as_str)
    }

    #[test]
    fn the_most_exact_host_counts_and_has_no_other_beside_it() {
        let table = table(&[
            ("*", "/"),
            ("a.b", "/"),
            ("*.b", "/"),
            ("*.a.b", "/"),
            ("only.b", "/x"),
            ("*.only.b", "/x"),
            ("127.0.0.1", "/"),
            ("[::1]", "/"),
        ]);
        for (host, to) in [
            ("a.b", Some("a.b/")),
            ("A.B", Some("a.b/")),
            ("a.b.", Some("a.b/")),
            ("a.b:8080", Some("a.b/")),
            ("A.b.:", Some("a.b/")),
            ("a.b..", Some("*/")),
            ("x.b", Some("*.b/")),
            ("x.a.b", Some("*.a.b/")),
            ("y.x.A.b:1", Some("*.a.b/")),
            ("b", Some("*/")),
            ("xa.b", Some("*.b/")),
            (".b", Some("*/")),
            ("only.b", None),
            ("x.only.b", None),
            ("127.0.0.1:80", Some("127.0.0.1/")),
            ("127.0.0.1.", Some("127.0.0.1/")),
            ("[::1]:80", Some("[::1]/")),
            ("[::2]", Some("*/")),
            ("_x-1.c", Some("*/")),
        ] {
            assert_eq!(found(&table, Some(host), "/"), to, "{host}");
        }
        assert_eq!(found(&table, None, "/"), Some("*/"));
        let long = format!("{}.a.b", "x.".repeat(20_000));
        assert_eq!(found(&table, Some(&long), "/"), Some("*.a.b/"));
    }

    #[test]
    fn a_name_of_tls_goes_to_whom_it_is_nearest() {
        let http = ["*", "web.test", "*.web.test", "exact.db.test"].map(|hosts| Route {
            at: At::Instance { hosts: hosts.parse().unwrap(), path: "/only".into() },
            to: hosts,
        });
        let named = ["db.test", "*.db.test", "web.test", "*.a.web.test", "*.b.db.test"]
            .map(|hosts| Route { at: At::Named(hosts.parse().unwrap()), to: hosts });
        let table = Routes::new(http.into_iter().chain(named));
        assert!(table.has_names());
        for (name, to) in [
            ("db.test", Some("db.test")),
            ("DB.test.", Some("db.test")),
            ("x.db.test", Some("*.db.test")),
            ("x.b.db.test", Some("*.b.db.test")),
            ("exact.db.test", None),
            ("web.test", Some("web.test")),
            ("x.web.test", None),
            ("x.a.web.test", Some("*.a.web.test")),
            ("other.test", None),
            ("", None),
        ] {
            assert_eq!(table.named(name.as_bytes()).copied(), to, "{name}");
        }
        // Requests never get there.
        let found = table.find(&public(), || Some(b"db.test"), b"/only");
        assert_eq!(found.copied(), Some("*"));
        assert!(!Routes::<()>::new([]).has_names());
    }

    #[test]
    fn the_longest_path_counts_up_to_the_border_of_a_segment() {
        let table = table(&[("a", "/"), ("a", "/v1"), ("a", "/v1/x"), ("a", "/slash/"), ("b", "/v1")]);
        for (path, to) in [
            ("/", "a/"),
            ("", "a/"),
            ("*", "a/"),
            ("?q", "a/"),
            ("/v1", "a/v1"),
            ("/v1/", "a/v1"),
            ("/v1?x", "a/v1"),
            ("/v1/y", "a/v1"),
            ("/v1x", "a/"),
            ("/V1", "a/"),
            ("/v%31", "a/"),
            ("//v1", "a/"),
            ("/v1/x", "a/v1/x"),
            ("/v1/x/../y", "a/v1/x"),
            ("/v1/xy", "a/v1"),
            ("/slash", "a/"),
            ("/slash/", "a/slash/"),
            ("/slash/x", "a/slash/"),
        ] {
            assert_eq!(found(&table, Some("a"), path), Some(to), "{path}");
        }
        assert_eq!(found(&table, Some("b"), "/"), None);
        assert_eq!(found(&table, Some("c"), "/v1"), None);
        assert_eq!(found(&table, None, "/v1"), None);
    }

    #[test]
    fn of_two_equal_routes_the_first_counts() {
        let own = ListenerId::App(([127, 0, 0, 1], 81).into());
        let everywhere = At::Instance { hosts: Hosts::Any, path: "/".into() };
        let route = |at: &At, to| Route { at: at.clone(), to };
        let at_own = At::Listener(own);
        let table =
            Routes::new([route(&everywhere, 1), route(&everywhere, 2), route(&at_own, 3), route(&at_own, 4)]);
        assert_eq!(table.find(&public(), || None, b"/"), Some(&1));
        assert_eq!(table.find(&own, || unreachable!("its host does not matter"), b"/"), Some(&3));
        let none = ListenerId::App(([127, 0, 0, 1], 82).into());
        assert_eq!(table.find(&none, || None, b"/"), None, "it has no share in the instance's routes");
    }

    proptest::proptest! {
        /// However a client disguises a host, its route is that of its plain form.
        #[test]
        fn no_disguise_changes_a_route(
            label in "[a-z0-9_-]{1,8}", name in "(a|b|a\\.b|c)", upper in proptest::bool::ANY,
            dot in proptest::bool::ANY, port in "(|:|:80|:65535)"
        ) {
            let table = table(&[("a.b", "/"), ("*.a.b", "/"), ("c", "/"), ("*.b", "/")]);
            for plain in [name.clone(), format!("{label}.{name}")] {
                let mut disguised = if upper { plain.to_ascii_uppercase() } else { plain.clone() };
                if dot {
                    disguised.push('.');
                }
                disguised.push_str(&port);
                proptest::prop_assert_eq!(
                    found(&table, Some(&disguised), "/"),
                    found(&table, Some(&plain), "/")
                );
            }
        }
    }
}
