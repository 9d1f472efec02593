//! Where the daemon listens: whose listener it is, and which addresses exclude one another. Pure.

use std::net::{IpAddr, SocketAddr};

/// One of the daemon's listeners: whose it is, and the address that it is configured with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenerId {
    /// The instance's: host and path say which app a request is for.
    Instance(SocketAddr),
    /// One app's own, where that gets every request.
    App(SocketAddr),
}

impl ListenerId {
    /// The address that it is configured with. Port 0: the kernel has chosen one.
    pub fn addr(self) -> SocketAddr {
        match self {
            Self::Instance(addr) | Self::App(addr) => addr,
        }
    }
}

/// Whether a connection could come to either of two addresses, so that they cannot be given to two
/// owners. Port 0 is another port each time. `[::]` takes connections to IPv4 addresses too, where
/// nobody else does.
pub fn overlaps(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |one: IpAddr, other: IpAddr| match one.to_canonical() {
        IpAddr::V4(all) => all.is_unspecified() && other.to_canonical().is_ipv4(),
        IpAddr::V6(all) => all.is_unspecified(),
    };
    let (a, b) = (one.ip(), other.ip());
    let same = a.to_canonical() == b.to_canonical() || covers(a, b) || covers(b, a);
    one.port() == other.port() && one.port() != 0 && same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_excludes_itself_and_what_it_covers() {
        for (one, other, excluded) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("0.0.0.0:80", "[::]:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:80", "[::1]:80", true),
            ("[::]:80", "[::1]:81", false),
            ("[::1]:80", "[::2]:80", false),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true),
            ("[::ffff:127.0.0.1]:80", "0.0.0.0:80", true),
            ("[::ffff:0.0.0.0]:80", "127.0.0.1:80", true),
        ] {
            let (one, other): (SocketAddr, SocketAddr) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(overlaps(one, other), excluded, "{one} and {other}");
            assert_eq!(overlaps(other, one), excluded, "{other} and {one}");
        }
    }
}
