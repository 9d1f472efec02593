//! Which fields pass, and the head that goes to the app (RFC 9110, 7.6.1; RFC 9112, 3).
//!
//! Pure functions over hyper's header map; the head is written straight to bytes, no map is rebuilt. Order
//! matters in one place: what the client's `Connection` names is left out **before** portok adds its own fields,
//! so that a client cannot make it leave them out.

use std::net::{IpAddr, SocketAddr};

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

use crate::config::Forwarded;

/// What the head towards the app depends on beside the request itself.
pub(super) struct Context<'a> {
    /// The client's address as text.
    pub(super) peer: &'a str,
    /// Whether the client may say who came before it.
    pub(super) trusted: bool,
    /// What happens to `X-Forwarded-*`.
    pub(super) forwarded: Forwarded,
    /// The app's address, for requests without a host.
    pub(super) target: SocketAddr,
    /// The body is sent in chunks.
    pub(super) chunked: bool,
    /// The request asks for another protocol.
    pub(super) upgrade: bool,
    /// The connection is kept for further requests.
    pub(super) keep_alive: bool,
}

/// Writes the head of `request` as the app gets it.
pub(super) fn write_head(out: &mut Vec<u8>, request: &Parts, context: &Context<'_>) {
    let headers = &request.headers;
    out.extend_from_slice(request.method.as_str().as_bytes());
    out.push(b' ');
    write_target(out, request);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    write_host(out, request, context);
    let nominated = nominations(headers);
    let mut came_forwarded = false;
    for (name, value) in headers {
        let forwarded = is_forwarded(name);
        came_forwarded |= forwarded;
        let skipped = is_hop_by_hop(name)
            || *name == header::HOST
            || (context.chunked && *name == header::CONTENT_LENGTH)
            || (forwarded && context.forwarded != Forwarded::Off)
            || nominated.contains(name);
        if !skipped {
            line(out, name.as_str(), value.as_bytes());
        }
    }
    if context.chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if context.forwarded != Forwarded::Off {
        let keep = came_forwarded && (context.trusted || context.forwarded == Forwarded::Append);
        write_forwarded(out, request, keep.then_some(&nominated), context.peer);
    }
    write_connection(out, headers, context);
    out.extend_from_slice(b"\r\n");
}

/// The request target in the form an origin server gets it (RFC 9112, 3.2.1), byte for byte.
fn write_target(out: &mut Vec<u8>, request: &Parts) {
    let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
    if target.starts_with('?') || target.is_empty() {
        out.push(b'/');
    }
    out.extend_from_slice(target.as_bytes());
}

/// An absolute target's host wins over the field (RFC 9112, 3.2.2).
fn write_host(out: &mut Vec<u8>, request: &Parts, context: &Context<'_>) {
    if let Some(authority) = request.uri.authority() {
        line(out, "host", authority.as_str().as_bytes());
    } else if let Some(host) = request.headers.get(header::HOST) {
        line(out, "host", host.as_bytes());
    } else {
        line(out, "host", context.target.to_string().as_bytes());
    }
}

fn write_connection(out: &mut Vec<u8>, headers: &HeaderMap, context: &Context<'_>) {
    if context.upgrade {
        for value in headers.get_all(header::UPGRADE) {
            line(out, "upgrade", value.as_bytes());
        }
        out.extend_from_slice(b"connection: upgrade\r\n");
        return;
    }
    let trailers = has_token(headers, &header::TE, b"trailers");
    if trailers {
        out.extend_from_slice(b"te: trailers\r\n");
    }
    out.extend_from_slice(match (trailers, context.keep_alive) {
        (false, true) => b"",
        (false, false) => b"connection: close\r\n",
        (true, true) => b"connection: te\r\n",
        (true, false) => b"connection: te, close\r\n",
    });
}

/// Writes `X-Forwarded-For`, `-Proto` and `-Port` behind what came before, and `-Host` as it came or as the
/// client asked. `believed`: with what came, but for these fields; `None`: as if nothing had come.
fn write_forwarded(out: &mut Vec<u8>, request: &Parts, believed: Option<&Vec<HeaderName>>, peer: &str) {
    let believed = |name: &'static str| {
        let but = believed.filter(|but| !but.iter().any(|nominated| nominated == name));
        but.map(|_| request.headers.get_all(name)).into_iter().flatten()
    };
    let mut append = |name: &'static str, own: &[u8]| {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        for value in believed(name).filter(|value| !value.is_empty()) {
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(own);
        out.extend_from_slice(b"\r\n");
    };
    let authority = request.uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = authority.or_else(|| request.headers.get(header::HOST).map(HeaderValue::as_bytes));
    append("x-forwarded-for", peer.as_bytes());
    append("x-forwarded-proto", b"http");
    append("x-forwarded-port", host.and_then(port_of).unwrap_or(b"80"));
    let mut came = believed("x-forwarded-host").peekable();
    if came.peek().is_some() {
        came.for_each(|value| line(out, "x-forwarded-host", value.as_bytes()));
    } else if let Some(host) = host {
        line(out, "x-forwarded-host", host);
    }
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The port in a `Host` field's value.
fn port_of(host: &[u8]) -> Option<&[u8]> {
    let colon = host.iter().rposition(|&byte| byte == b':')?;
    let port = &host[colon + 1..];
    (!port.is_empty() && port.iter().all(u8::is_ascii_digit)).then_some(port)
}

/// The address as it is compared and shown: an IPv4 client of a dual socket is an IPv4 client.
pub(super) fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// Whether `peer` may say who came before it.
pub(super) fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&peer))
}

/// Fields that concern one connection only, named in `Connection` or not. `Expect` is among them because
/// portok answers it itself.
pub(super) fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "keep-alive" | "proxy-connection" | "te" | "transfer-encoding" | "upgrade" | "expect"
    )
}

/// Fields that a trailer must not carry on (RFC 9110, 6.5.1): framing, routing, and what concerns one
/// connection.
pub(super) fn is_forbidden_trailer(name: &HeaderName) -> bool {
    is_hop_by_hop(name) || matches!(name.as_str(), "content-length" | "host" | "trailer")
}

fn is_forwarded(name: &HeaderName) -> bool {
    matches!(name.as_str(), "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-port" | "x-forwarded-host")
}

/// The fields that `Connection` names, but those without which the message would mean something else.
fn nominations(headers: &HeaderMap) -> Vec<HeaderName> {
    headers.get_all(header::CONNECTION).iter().flat_map(tokens).filter_map(nominated).collect()
}

/// The field that a token of `Connection` names, when it is one that may be left out.
pub(super) fn nominated(token: &[u8]) -> Option<HeaderName> {
    const OPTIONS: [&[u8]; 3] = [b"close", b"keep-alive", b"upgrade"];
    if OPTIONS.iter().any(|option| token.eq_ignore_ascii_case(option)) {
        return None;
    }
    let name = HeaderName::from_bytes(token).ok()?;
    (!matches!(name, header::HOST | header::CONTENT_LENGTH)).then_some(name)
}

/// The parts of a comma-separated value, without blanks around them; empty ones are left out.
pub(super) fn tokens(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Whether a field's list has `token`.
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &[u8]) -> bool {
    headers.get_all(name).iter().flat_map(tokens).any(|part| part.eq_ignore_ascii_case(token))
}

/// A number written in decimal digits and nothing else.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| number.checked_mul(10)?.checked_add(digit(byte)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_the_one_of_the_host_field() {
        for (host, port) in [
            ("a:81", Some("81")),
            ("[::1]:81", Some("81")),
            ("a", None),
            ("a:", None),
            ("[::1]", None),
            ("a:8x", None),
            ("", None),
        ] {
            assert_eq!(port_of(host.as_bytes()), port.map(str::as_bytes), "{host}");
        }
    }

    #[test]
    fn what_frames_a_message_cannot_be_nominated_away() {
        for kept in ["Host", "content-length", "close", "Keep-Alive", "upgrade", "not a name"] {
            assert_eq!(nominated(kept.as_bytes()), None, "{kept}");
        }
        assert_eq!(nominated(b"X-Mine"), Some(HeaderName::from_static("x-mine")));
    }

    #[test]
    fn lengths_are_digits_only() {
        assert_eq!(decimal(b"0018"), Some(18));
        assert_eq!(decimal(u64::MAX.to_string().as_bytes()), Some(u64::MAX));
        for wrong in ["", "+1", "-1", " 1", "1 ", "0x1", "1_0", "18446744073709551616"] {
            assert_eq!(decimal(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        let mapped = canonical("[::ffff:10.0.0.1]:5".parse().unwrap());
        assert_eq!(mapped.to_string(), "10.0.0.1:5");
        assert!(is_trusted(mapped.ip(), &["10.0.0.0/8".parse().unwrap()]));
        assert!(!is_trusted(mapped.ip(), &["::/0".parse().unwrap()]));
    }
}
