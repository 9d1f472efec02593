//! Where the daemon listens, and whose listener it is. Pure.

use std::net::SocketAddr;

/// One of the daemon's listeners: whose it is, and the address that it is configured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenerId {
    /// The instance's: host and path say which app a request is for.
    Instance(SocketAddr),
    /// The instance's too, where connections are encrypted.
    Tls(SocketAddr),
    /// One app's own, where that gets every request.
    App(SocketAddr),
}

/// How clients speak to a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(super) fn name(self) -> &'static [u8] {
        match self {
            Self::Http => b"http",
            Self::Https => b"https",
        }
    }

    /// The port that a host without one means.
    pub(super) fn port(self) -> &'static [u8] {
        match self {
            Self::Http => b"80",
            Self::Https => b"443",
        }
    }
}

impl ListenerId {
    /// The address that it is configured with. Port 0: the kernel has chosen one.
    pub fn addr(self) -> SocketAddr {
        match self {
            Self::Instance(addr) | Self::Tls(addr) | Self::App(addr) => addr,
        }
    }

    /// Whether it is the instance's, where host and path say which app a request is for.
    pub fn is_of_the_instance(self) -> bool {
        !matches!(self, Self::App(_))
    }
}
