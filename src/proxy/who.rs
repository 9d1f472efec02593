//! Who the client is when a trusted peer names it. Pure.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::headers::is_trusted;
use crate::http1::fields::tokens;

/// The client of a request that came from `peer`, which is trusted: the right-most address in
/// `X-Forwarded-For` that is not trusted, or in `Forwarded` if there is no such field. What stands
/// left of an unreadable entry is not believed.
pub(super) fn client<'a, I>(peer: IpAddr, trusted: &[IpNet], fields: impl Fn() -> I) -> IpAddr
where
    I: Iterator<Item = (&'a [u8], &'a [u8])>,
{
    let named = |wanted: &'static [u8]| {
        fields().filter(move |(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    };
    let mut hops: Vec<Option<IpAddr>> = named(b"x-forwarded-for").flat_map(tokens).map(address).collect();
    if hops.is_empty() {
        hops = named(b"forwarded").flat_map(elements).map(forwarded_for).collect();
    }
    let mut client = peer;
    for hop in hops.into_iter().rev() {
        let Some(address) = hop else { break };
        client = address;
        if !is_trusted(client, trusted) {
            break;
        }
    }
    client
}

/// An address, with or without a port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip = bare.parse().ok().or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()));
    ip.map(|ip: IpAddr| ip.to_canonical())
}

/// The elements of `Forwarded` (RFC 7239, 4). A comma between quotes does not end one.
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    value.split(move |&byte| {
        quoted ^= byte == b'"';
        byte == b',' && !quoted
    })
}

/// What an element of `Forwarded` says after `for=`.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let pairs = element.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    let node = pairs
        .filter_map(|pair| pair.split_at_checked(4))
        .find(|(name, _)| name.eq_ignore_ascii_case(b"for="))?;
    let node = node.1.strip_prefix(b"\"").and_then(|node| node.strip_suffix(b"\"")).unwrap_or(node.1);
    address(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn client_of(fields: &[(&str, &str)]) -> String {
        let trusted = ["127.0.0.1/32", "10.0.0.0/8"].map(|net| net.parse().unwrap());
        let fields = || fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        client(PEER, &trusted, fields).to_string()
    }

    #[test]
    fn the_right_most_address_that_is_not_trusted_is_the_client() {
        for (value, expected) in [
            ("1.2.3.4", "1.2.3.4"),
            ("6.6.6.6, 1.2.3.4", "1.2.3.4"),
            ("6.6.6.6, 1.2.3.4, 10.0.0.7", "1.2.3.4"),
            ("6.6.6.6,1.2.3.4 ,\t10.0.0.7,10.0.0.8", "1.2.3.4"),
            ("1.2.3.4:5678", "1.2.3.4"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1"),
            ("::ffff:1.2.3.4", "1.2.3.4"),
            // Nothing but trusted ones: the outermost.
            ("10.0.0.9, 10.0.0.7", "10.0.0.9"),
            // What cannot be read ends the way back.
            ("1.2.3.4, unknown", "127.0.0.1"),
            ("1.2.3.4, unknown, 10.0.0.7", "10.0.0.7"),
            ("unknown, 1.2.3.4", "1.2.3.4"),
            ("", "127.0.0.1"),
        ] {
            assert_eq!(client_of(&[("X-Forwarded-For", value)]), expected, "for {value:?}");
        }
        assert_eq!(client_of(&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2")]), "2.2.2.2");
    }

    #[test]
    fn forwarded_is_read_where_there_is_no_other() {
        for (value, expected) in [
            ("for=1.2.3.4", "1.2.3.4"),
            ("for=6.6.6.6, For=1.2.3.4;proto=http;by=10.0.0.1", "1.2.3.4"),
            ("proto=http; for=\"[2001:db8::1]:4711\"", "2001:db8::1"),
            ("for=1.2.3.4;x=\"a,for=6.6.6.6\"", "1.2.3.4"),
            ("for=1.2.3.4, for=_hidden", "127.0.0.1"),
            ("for=1.2.3.4, proto=http", "127.0.0.1"),
        ] {
            assert_eq!(client_of(&[("Forwarded", value)]), expected, "for {value:?}");
        }
        assert_eq!(client_of(&[("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "1.2.3.4")]), "1.2.3.4");
    }
}
