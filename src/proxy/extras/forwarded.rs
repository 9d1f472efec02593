//! The field `Forwarded` as an app gets it (RFC 7239). Pure.
//!
//! It has an element for each hop. The hops before a trusted peer are what that peer says of them,
//! in `Forwarded`, or in `X-Forwarded-*` if it sends no other; the last one is the peer itself,
//! with its port.

use std::net::SocketAddr;

use crate::http1::fields::tokens;

/// How the peer asked.
pub(super) struct Hop<'a> {
    pub(super) peer: SocketAddr,
    pub(super) host: Option<&'a [u8]>,
    pub(super) scheme: &'static [u8],
}

/// Adds the value of `Forwarded` to `out`: what came before, and this hop. `came` gives the values
/// of a field of the peer's, where the peer is believed; the name is in lower case.
pub(super) fn write<'a, I>(out: &mut Vec<u8>, hop: &Hop<'_>, came: impl Fn(&'static [u8]) -> I)
where
    I: Iterator<Item = &'a [u8]>,
{
    let start = out.len();
    for value in came(b"forwarded").map(<[u8]>::trim_ascii).filter(|value| !value.is_empty()) {
        begin(out, start);
        out.extend_from_slice(value);
    }
    if out.len() == start {
        // The scheme and the host are facts about the outermost hop.
        let first = |name| came(name).flat_map(tokens).next();
        let facts = [(&b"proto"[..], first(b"x-forwarded-proto")), (b"host", first(b"x-forwarded-host"))];
        for (number, node) in came(b"x-forwarded-for").flat_map(tokens).enumerate() {
            begin(out, start);
            out.extend_from_slice(b"for=");
            value(out, &bracketed(node));
            for (name, fact) in facts.into_iter().filter(|_| number == 0) {
                if let Some(fact) = fact {
                    pair(out, name, fact);
                }
            }
        }
    }
    begin(out, start);
    out.extend_from_slice(b"for=");
    value(out, hop.peer.to_string().as_bytes());
    pair(out, b"proto", hop.scheme);
    if let Some(host) = hop.host {
        pair(out, b"host", host);
    }
}

fn begin(out: &mut Vec<u8>, start: usize) {
    if out.len() > start {
        out.extend_from_slice(b", ");
    }
}

fn pair(out: &mut Vec<u8>, name: &[u8], text: &[u8]) {
    out.push(b';');
    out.extend_from_slice(name);
    out.push(b'=');
    value(out, text);
}

/// A token as it is, anything else between quotes.
fn value(out: &mut Vec<u8>, text: &[u8]) {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if !text.is_empty() && text.iter().all(is_token) {
        out.extend_from_slice(text);
        return;
    }
    out.push(b'"');
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// A bare IPv6 address needs brackets.
fn bracketed(node: &[u8]) -> Vec<u8> {
    let is_bare = str::from_utf8(node).is_ok_and(|node| node.parse::<std::net::Ipv6Addr>().is_ok());
    if is_bare { [b"[", node, b"]"].concat() } else { node.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(peer: &str, host: Option<&str>, came: &[(&str, &str)]) -> String {
        let mut out = Vec::new();
        let hop = Hop { peer: peer.parse().unwrap(), host: host.map(str::as_bytes), scheme: b"http" };
        write(&mut out, &hop, |wanted| {
            let is_it = move |(name, _): &&(&str, &str)| name.as_bytes() == wanted;
            came.iter().filter(is_it).map(|(_, value)| value.as_bytes())
        });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_peer_is_the_last_element_with_its_port() {
        assert_eq!(
            written("192.0.2.7:4711", Some("shop.example.com"), &[]),
            "for=\"192.0.2.7:4711\";proto=http;host=shop.example.com"
        );
        assert_eq!(
            written("[2001:db8::1]:4711", Some("a:81"), &[]),
            "for=\"[2001:db8::1]:4711\";proto=http;host=\"a:81\""
        );
        assert_eq!(written("192.0.2.7:4711", None, &[]), "for=\"192.0.2.7:4711\";proto=http");
    }

    #[test]
    fn what_a_believed_peer_says_comes_first() {
        const OWN: &str = "for=\"10.0.0.1:99\";proto=http;host=h";
        let of = |came: &[(&str, &str)]| written("10.0.0.1:99", Some("h"), came);
        assert_eq!(
            of(&[("forwarded", "for=1.2.3.4;proto=https, for=5.6.7.8"), ("x-forwarded-for", "9.9.9.9")]),
            format!("for=1.2.3.4;proto=https, for=5.6.7.8, {OWN}")
        );
        assert_eq!(of(&[("forwarded", "for=a"), ("forwarded", "for=b")]), format!("for=a, for=b, {OWN}"));
        assert_eq!(
            of(&[
                ("x-forwarded-for", "1.2.3.4, 2001:db8::1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "shop:443"),
            ]),
            format!("for=1.2.3.4;proto=https;host=\"shop:443\", for=\"[2001:db8::1]\", {OWN}")
        );
        assert_eq!(of(&[("x-forwarded-for", "a\"b\\c d")]), format!("for=\"a\\\"b\\\\c d\", {OWN}"));
    }
}
