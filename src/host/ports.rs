//! Chooses the ports of a new instance: ports that no other instance has and on which nobody
//! listens.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;

/// The range of public ports.
pub(crate) const PUBLIC: RangeInclusive<u16> = 3000..=3999;

/// The range of ports for unmanaged apps.
pub(crate) const TARGETS: RangeInclusive<u16> = 8080..=8999;

/// The first port of `range` that is neither `taken` nor in use.
pub(crate) fn choose(
    range: RangeInclusive<u16>,
    taken: &BTreeSet<u16>,
    mut is_free: impl FnMut(u16) -> bool,
) -> Option<u16> {
    range.into_iter().find(|port| !taken.contains(port) && is_free(*port))
}

/// Whether nobody listens on `port`, on any address. It is found out by binding the port. A port
/// that this user may not bind counts as free.
pub(crate) fn is_free(port: u16) -> bool {
    match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => true,
        Err(error) => error.kind() != ErrorKind::AddrInUse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_port_that_nobody_has_is_chosen() {
        let taken = BTreeSet::from([3000, 3002]);
        let mut asked = Vec::new();
        let port = choose(PUBLIC, &taken, |port| {
            asked.push(port);
            port != 3001
        });
        assert_eq!(port, Some(3003));
        assert_eq!(asked, [3001, 3003], "another instance's port is not even tried");
        assert_eq!(choose(7..=9, &BTreeSet::from([7, 8]), |_| false), None);
    }

    #[test]
    fn a_port_is_in_use_whatever_address_it_is_bound_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!is_free(port));
    }
}
