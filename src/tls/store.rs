//! Which certificate a client is shown: by the host that it names before anything is encrypted
//! (SNI, RFC 6066, 3). Pure data: a store does not change; a new one takes its place.
//!
//! An exact name comes before a wildcard. A client that names no host, or one that has no
//! certificate, is shown the default one, if there is one.

use std::collections::HashMap;
use std::sync::Arc;

use super::names::{Name, above};
use crate::http1::host::compared;

/// Certificates by the hosts that they are for; `T` is what is shown.
#[derive(Debug)]
pub(super) struct Store<T> {
    exact: HashMap<Box<[u8]>, Arc<T>>,
    /// By what follows the one label that a wildcard stands for.
    below: HashMap<Box<[u8]>, Arc<T>>,
    default: Option<Arc<T>>,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), below: HashMap::new(), default: None }
    }
}

impl<T> Store<T> {
    /// A store of these certificates. Of two for one name the first counts.
    pub(super) fn new<'n>(
        all: impl IntoIterator<Item = (&'n [Name], Arc<T>)>,
        default: Option<Arc<T>>,
    ) -> Self {
        let mut store = Self { default, ..Self::default() };
        for (names, shown) in all {
            for name in names {
                let (names, name) = match name {
                    Name::Exact(name) => (&mut store.exact, name),
                    Name::Below(name) => (&mut store.below, name),
                };
                names.entry(name.as_bytes().into()).or_insert_with(|| Arc::clone(&shown));
            }
        }
        store
    }

    /// What a client is shown that names this host; `None`: nothing.
    pub(super) fn find(&self, host: Option<&[u8]>) -> Option<&Arc<T>> {
        host.and_then(|host| self.of(host)).or(self.default.as_ref())
    }

    /// Whether there is a certificate for this host itself. The host may have a port.
    pub(super) fn covers(&self, host: &[u8]) -> bool {
        self.of(host).is_some()
    }

    /// Whether this is what is shown to whom nothing else fits.
    pub(super) fn is_default(&self, shown: &Arc<T>) -> bool {
        self.default.as_ref().is_some_and(|default| Arc::ptr_eq(default, shown))
    }

    fn of(&self, host: &[u8]) -> Option<&Arc<T>> {
        let host = compared(host);
        self.exact.get(&*host).or_else(|| self.below.get(above(&host)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(default: Option<&'static str>) -> Store<&'static str> {
        let names = |names: &[&str]| names.iter().map(|name| Name::of(name)).collect::<Vec<_>>();
        let all = [
            (names(&["*.example.com"]), "wild"),
            (names(&["example.com", "www.example.com"]), "main"),
            (names(&["example.com", "*.b.example.com"]), "late"),
        ];
        let all: Vec<_> = all.iter().map(|(names, shown)| (&names[..], Arc::new(*shown))).collect();
        Store::new(all, default.map(Arc::new))
    }

    #[test]
    fn the_most_exact_name_counts_and_then_the_default() {
        for (host, shown) in [
            (Some("example.com"), Some("main")),
            (Some("WWW.Example.com"), Some("main")),
            (Some("api.example.com"), Some("wild")),
            (Some("a.b.example.com"), Some("late")),
            (Some("a.c.example.com"), None),
            (Some("example.org"), None),
            (None, None),
        ] {
            let found = |store: &Store<_>| store.find(host.map(str::as_bytes)).map(|shown| **shown);
            assert_eq!(found(&store(None)), shown, "{host:?}");
            assert_eq!(found(&store(Some("default"))), shown.or(Some("default")), "{host:?}");
        }
        let store = store(Some("default"));
        assert!(store.covers(b"api.example.com:8443") && !store.covers(b"example.org"));
        let of = |host: &[u8]| store.is_default(store.find(Some(host)).unwrap());
        assert!(of(b"example.org") && !of(b"example.com"));
    }
}
