//! What a listener takes of what is sent to an address. Pure.

use std::net::{IpAddr, SocketAddr};

/// Whether a listener at `listen` takes what is sent to `target`. Of the addresses of this host it
/// knows those in `local` and the loopback ones.
pub fn takes(listen: SocketAddr, target: SocketAddr, local: &[IpAddr]) -> bool {
    let [bound, address] = [listen, target].map(|address| address.ip().to_canonical());
    let is_here = || address.is_loopback() || local.iter().any(|ip| ip.to_canonical() == address);
    covers(listen, target) && (bound == address || is_here())
}

/// Whether a connection could come to either of two addresses, so that they cannot be given to two
/// owners. Port 0 is another port each time.
pub fn overlaps(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() != 0 && (covers(one, other) || covers(other, one))
}

/// Whether an address of this host is `listen`, or one of all those that it stands for. `[::]`
/// takes connections to IPv4 addresses too, where nobody else does.
fn covers(listen: SocketAddr, address: SocketAddr) -> bool {
    let (bound, ip) = (listen.ip().to_canonical(), address.ip().to_canonical());
    let stands_for = match bound {
        IpAddr::V4(all) => all.is_unspecified() && ip.is_ipv4(),
        IpAddr::V6(all) => all.is_unspecified(),
    };
    listen.port() == address.port() && (bound == ip || stands_for)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: [&str; 2]) -> [SocketAddr; 2] {
        texts.map(|text| text.parse().unwrap())
    }

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
            let [one, other] = addresses([one, other]);
            assert_eq!(overlaps(one, other), excluded, "{one} and {other}");
            assert_eq!(overlaps(other, one), excluded, "{other} and {one}");
        }
    }

    #[test]
    fn a_listener_takes_what_is_sent_to_its_address_or_to_this_host() {
        let local = ["10.0.0.5".parse().unwrap(), "::ffff:10.0.0.6".parse().unwrap()];
        for (listen, target, taken) in [
            ("10.0.0.9:80", "10.0.0.9:80", true),
            ("10.0.0.9:80", "[::ffff:10.0.0.9]:80", true),
            ("10.0.0.9:80", "10.0.0.9:81", false),
            ("10.0.0.5:80", "127.0.0.1:80", false),
            ("0.0.0.0:80", "127.0.0.9:80", true),
            ("0.0.0.0:80", "10.0.0.5:80", true),
            ("0.0.0.0:80", "10.0.0.6:80", true),
            ("0.0.0.0:80", "10.0.0.9:80", false),
            ("0.0.0.0:80", "[::1]:80", false),
            ("[::]:80", "[::1]:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:80", "10.0.0.9:80", false),
        ] {
            let [listen, target] = addresses([listen, target]);
            assert_eq!(takes(listen, target, &local), taken, "{listen} and {target}");
        }
    }
}
