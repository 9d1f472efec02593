//! The header by which a connection to an app says who its client is: version 2 of the PROXY
//! protocol (haproxy's `proxy-protocol.txt`, of 2020). Pure.

use std::net::{IpAddr, SocketAddr};

/// What a header of version 2 begins with.
pub const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// That of a connection of portok's own, such as a probe's: `LOCAL`, about nobody.
pub const OWN: [u8; 16] =
    [b'\r', b'\n', b'\r', b'\n', 0, b'\r', b'\n', b'Q', b'U', b'I', b'T', b'\n', 0x20, 0, 0, 0];

/// A client, and where it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Introduction {
    /// Its address.
    pub client: SocketAddr,
    /// The address of portok's that it is connected to.
    pub at: SocketAddr,
}

impl Introduction {
    /// The header of a connection of this client: `PROXY` over TCP. Where one address is of IPv6,
    /// both are written as such.
    pub fn header(&self) -> Vec<u8> {
        let Self { client, at } = self;
        let addresses = match (client.ip(), at.ip()) {
            (IpAddr::V4(client), IpAddr::V4(at)) => [client.octets(), at.octets()].concat(),
            (client, at) => [client, at].map(six).concat(),
        };
        let family = if addresses.len() == 8 { 0x11 } else { 0x21 };
        let ports = [client.port(), at.port()].map(u16::to_be_bytes).concat();
        let length = u16::try_from(addresses.len() + ports.len()).unwrap_or(u16::MAX).to_be_bytes();
        [&SIGNATURE[..], &[0x21, family], &length, &addresses, &ports].concat()
    }
}

fn six(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_are_written_as_the_protocol_has_them() {
        let of = |client: &str, at: &str| {
            let introduction = Introduction { client: client.parse().unwrap(), at: at.parse().unwrap() };
            let header = introduction.header();
            assert_eq!(header[..12], SIGNATURE);
            header[12..].to_vec()
        };
        assert_eq!(
            of("1.2.3.4:258", "10.0.0.1:443"),
            [0x21, 0x11, 0, 12, 1, 2, 3, 4, 10, 0, 0, 1, 1, 2, 1, 0xbb]
        );
        let six = of("[2001:db8::1]:80", "10.0.0.1:443");
        assert_eq!((&six[..4], six.len()), (&[0x21, 0x21, 0, 36][..], 40));
        assert_eq!(six[4..20], "2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        assert_eq!(six[20..36], "::ffff:10.0.0.1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        assert_eq!(six[36..], [0, 80, 1, 0xbb]);
        assert_eq!((&OWN[..12], &OWN[12..]), (&SIGNATURE[..], &[0x20, 0, 0, 0][..]));
    }
}
