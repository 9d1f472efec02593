//! The places of members, by which sticky clients know them, and the numbers that choose one for
//! an address. Pure.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// By what a sticky client knows a member of a set: no two members of one have the same.
///
/// That of a process which portok runs is its number in its set. That of an address is a short
/// hash: it stays the same when the list has another order or other members, after a restart, and
/// on another host with the same list; and since some four billion addresses share each, it tells
/// no client which one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place(u16);

impl Place {
    /// That of a process with this number.
    pub fn new(number: u16) -> Self {
        Self(number)
    }

    /// Those of `addrs` as members of `app`, in their order. Of two with the same hash the lower
    /// address has it, and the other the next one that is free.
    pub fn of_addresses(app: &str, addrs: impl Iterator<Item = SocketAddr>) -> Box<[Self]> {
        let mut sorted: Vec<_> = addrs.enumerate().collect();
        sorted.sort_by_key(|(_, addr)| *addr);
        let (mut taken, mut places) = (HashSet::new(), vec![Self(0); sorted.len()]);
        for (at, addr) in sorted {
            let hash = hash(app.bytes().chain([0]).chain(octets(addr.ip())).chain(addr.port().to_be_bytes()));
            // There are far more places than members.
            let mut place = Self(low_bits(hash));
            while !taken.insert(place) {
                place = Self(place.0.wrapping_add(1));
            }
            places[at] = place;
        }
        places.into()
    }

    /// As [shown](fmt::Display); nothing else is read.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let is_plain = matches!(text, [b'0'] | [b'1'..=b'9', ..]);
        let digits = str::from_utf8(text).ok().filter(|_| is_plain)?;
        digits.parse().ok().map(Self)
    }

    /// How much a client, as its [hash](hash_of), belongs there.
    pub(in crate::proxy) fn weight(self, client: u64) -> u64 {
        mix(client ^ mix(u64::from(self.0) + 1))
    }

    #[cfg(test)]
    pub(super) fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A client's address as a number.
pub(super) fn hash_of(client: IpAddr) -> u64 {
    hash(octets(client))
}

fn octets(ip: IpAddr) -> impl Iterator<Item = u8> {
    let (v4, v6) = match ip {
        IpAddr::V4(ip) => (Some(ip.octets()), None),
        IpAddr::V6(ip) => (None, Some(ip.octets())),
    };
    v4.into_iter().flatten().chain(v6.into_iter().flatten())
}

/// The same in every version of portok: FNV-1a with 64 bits, whose bits are then [mixed](mix).
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    mix(bytes.fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// Has every bit depend on every other (the last step of splitmix64: Steele, Lea, Flood, 2014).
fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn low_bits(hash: u64) -> u16 {
    let [low, high, ..] = hash.to_le_bytes();
    u16::from_le_bytes([low, high])
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn addrs(ports: impl Iterator<Item = u16>) -> Vec<SocketAddr> {
        ports.map(|port| (Ipv4Addr::LOCALHOST, port).into()).collect()
    }

    #[test]
    fn an_address_keeps_its_place_in_another_list() {
        let places = |addrs: &[SocketAddr]| Place::of_addresses("shop", addrs.iter().copied());
        let all = addrs(8080..8084);
        let known = places(&all);
        let known_last_first: Vec<_> = known.iter().rev().copied().collect();
        let last_first: Vec<_> = all.iter().rev().copied().collect();
        assert_eq!(*places(&last_first), *known_last_first);
        assert_eq!(*places(&all[1..3]), known[1..3]);
        assert_ne!(*Place::of_addresses("other", all.into_iter()), *known, "another app's are others");
        // Of every version: a cookie outlives an upgrade.
        assert_eq!(known.iter().map(|place| place.0).collect::<Vec<_>>(), [26230, 58801, 880, 33812]);
    }

    #[test]
    fn no_two_members_have_the_same_place() {
        let places = Place::of_addresses("shop", addrs(1..2000).into_iter());
        assert_eq!(places.iter().collect::<HashSet<_>>().len(), 1999);
    }

    #[test]
    fn addresses_spread_over_members_and_few_move_with_a_change() {
        let members: Vec<_> = (0..5).map(Place::new).collect();
        let of = |members: &[Place], client: u32| {
            let client = hash_of(Ipv4Addr::from_bits(0x0a00_0000 + client).into());
            *members.iter().max_by_key(|place| place.weight(client)).unwrap()
        };
        let count = 5_000;
        for place in &members {
            let own = (0..count).filter(|client| of(&members, *client) == *place).count();
            assert!((800..1200).contains(&own), "{place} has {own} of {count}");
        }
        for client in 0..count {
            let (before, after) = (of(&members, client), of(&members[1..], client));
            assert!(before == after || before == members[0], "only those of the member that is gone move");
        }
    }
}
