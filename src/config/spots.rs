//! The routes that apps claim, and which of them exclude one another: of these only one app can
//! have one. Pure: `--check`, the daemon and the doctor judge by it alike.
//!
//! A host with a path excludes only the very same one, and so does a name of TLS. An address of an app's own excludes each
//! that overlaps it, such as `0.0.0.0:80` and `127.0.0.1:80`.

use std::fmt;
use std::net::SocketAddr;

use super::address::overlaps;
use super::{AppRoutes, Hosts};

/// A route, of which one app can have it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spot {
    /// Requests at the instance's addresses for these hosts, below this path.
    Under(Hosts, Box<str>),
    /// Connections at the instance's addresses for TLS whose clients ask for these hosts.
    Named(Hosts),
    /// All requests at this address.
    At(SocketAddr),
}

/// What routes have in common that may exclude one another.
#[derive(Debug, PartialEq, Eq, Hash)]
pub enum SpotGroup<'a> {
    /// This host and path.
    Under(&'a Hosts, &'a str),
    /// This name.
    Named(&'a Hosts),
    /// This port.
    Port(u16),
}

impl Spot {
    /// All routes that an app claims.
    pub fn of(routes: &AppRoutes) -> impl Iterator<Item = Self> + '_ {
        let (named, asked): (&[_], &[_]) =
            if routes.passthrough { (&routes.hosts, &[]) } else { (&[], &routes.hosts) };
        let under = asked.iter().flat_map(|hosts| {
            routes.paths.iter().map(|path| Self::Under(hosts.clone(), path.as_str().into()))
        });
        under
            .chain(named.iter().map(|hosts| Self::Named(hosts.clone())))
            .chain(routes.listen.iter().map(|addr| Self::At(*addr)))
    }

    /// The group outside of which it excludes nothing.
    pub fn group(&self) -> SpotGroup<'_> {
        match self {
            Self::Under(hosts, path) => SpotGroup::Under(hosts, path),
            Self::Named(hosts) => SpotGroup::Named(hosts),
            Self::At(addr) => SpotGroup::Port(addr.port()),
        }
    }

    /// Whether only one of two apps can have one of these each.
    pub fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::At(own), Self::At(others)) => own == others || overlaps(*own, *others),
            (own, others) => own == others,
        }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Under(hosts, path) if **path == *"/" => write!(f, "host `{hosts}`"),
            Self::Under(hosts, path) => write!(f, "host `{hosts}`, path `{path}`"),
            Self::Named(hosts) => write!(f, "host `{hosts}` of TLS"),
            Self::At(addr) => write!(f, "address {addr}"),
        }
    }
}
