//! Which fields pass, and the head that goes to the app (RFC 9110, 7.6.1; RFC 9112, 3).
//!
//! Pure functions over fields as pairs of bytes, so that it does not matter which parser read them.
//! The head is written straight to bytes, without a map in between. Order matters in one place:
//! what the client's `Connection` names is left out **before** portok adds its own fields, so that
//! a client cannot have them left out.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

use super::address::Scheme;
use crate::config::Forwarded;
use crate::http1::fields::{Kind, field, is_among, is_forwarded_prefix, line, tokens};

/// A request's head as the client sent it.
pub(super) struct RequestHead<'a, F> {
    pub(super) method: &'a str,
    /// Path and query, byte for byte.
    pub(super) target: &'a [u8],
    /// The host of an absolute target.
    pub(super) authority: Option<&'a [u8]>,
    /// What `Host` says.
    pub(super) host: Option<&'a [u8]>,
    /// What `Connection` names.
    pub(super) nominated: &'a [HeaderName],
    /// Gives all fields as name and value, lines of one name in their order.
    pub(super) fields: F,
}

impl<'a, F> RequestHead<'a, F> {
    /// The same with these fields.
    pub(super) fn with<G>(self, fields: G) -> RequestHead<'a, G> {
        let Self { method, target, authority, host, nominated, fields: _ } = self;
        RequestHead { method, target, authority, host, nominated, fields }
    }
}

/// What the head for the app depends on, apart from the request itself.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// The client's address as text.
    pub(super) peer: &'a str,
    /// How the client speaks to portok.
    pub(super) scheme: Scheme,
    /// Whether the client may say who came before it.
    pub(super) trusted: bool,
    /// How `X-Forwarded-*` is treated.
    pub(super) forwarded: Forwarded,
    /// The app's address, for requests without a host.
    pub(super) target: SocketAddr,
    /// The body is sent in chunks.
    pub(super) chunked: bool,
    /// The protocols that the app may switch to.
    pub(super) upgrade: Option<&'a [u8]>,
    /// The client takes trailers.
    pub(super) trailers: bool,
    /// The connection is kept for further requests.
    pub(super) keep_alive: bool,
    /// What was taken off at the beginning of the path; empty: nothing.
    pub(super) taken: &'a [u8],
}

/// A target without `cut` bytes at its beginning, which end at the border of a segment, and those
/// bytes. What is left begins with one slash, however many were there.
pub(super) fn cut_prefix(target: &[u8], cut: usize) -> (&[u8], &[u8]) {
    if cut == 0 {
        return (&[], target);
    }
    let (taken, rest) = target.split_at(cut.min(target.len()));
    let slashes = rest.iter().take_while(|&&byte| byte == b'/').count();
    // Where there is none, `write_target` adds it.
    (taken, &rest[slashes.saturating_sub(1)..])
}

/// Writes `head` as the app gets it.
pub(super) fn write_head<'a, F, I>(out: &mut Vec<u8>, head: &RequestHead<'a, F>, context: &Context<'_>)
where
    F: Fn() -> I,
    I: Iterator<Item = (&'a [u8], &'a [u8])>,
{
    out.extend_from_slice(head.method.as_bytes());
    out.push(b' ');
    write_target(out, head.target);
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    // The host of an absolute target wins over the field (RFC 9112, 3.2.2).
    let host = head.authority.or(head.host);
    match host {
        Some(host) => out.extend_from_slice(host),
        None => out.extend_from_slice(context.target.to_string().as_bytes()),
    }
    out.extend_from_slice(b"\r\n");
    let mut came_forwarded = false;
    for (name, value) in (head.fields)() {
        let kind = Kind::of(name);
        came_forwarded |= kind == Kind::Forwarded;
        let skipped = match kind {
            Kind::Other | Kind::Date => false,
            Kind::ContentLength => context.chunked,
            Kind::Forwarded => context.forwarded != Forwarded::Off,
            Kind::ForwardedAlias => context.forwarded == Forwarded::Trusted,
            Kind::Claim => !context.trusted && is_replaced(name, context),
            Kind::Host => true,
            kind => kind.is_hop_by_hop(),
        };
        if !skipped && !is_among(head.nominated, name) {
            field(out, name, value);
        }
    }
    if context.chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if context.forwarded != Forwarded::Off {
        let believed = came_forwarded && (context.trusted || context.forwarded == Forwarded::Append);
        if believed {
            write_believed(out, head, context, host);
        } else {
            // In few parts: each costs more than its bytes.
            out.extend_from_slice(b"x-forwarded-for: ");
            out.extend_from_slice(context.peer.as_bytes());
            out.extend_from_slice(match context.scheme {
                Scheme::Http => b"\r\nx-forwarded-proto: http\r\nx-forwarded-port: ",
                Scheme::Https => b"\r\nx-forwarded-proto: https\r\nx-forwarded-port: ",
            });
            out.extend_from_slice(host.and_then(port_of).unwrap_or(context.scheme.port()));
            if let Some(host) = host {
                out.extend_from_slice(b"\r\nx-forwarded-host: ");
                out.extend_from_slice(host);
            }
            out.extend_from_slice(b"\r\n");
        }
    }
    if !context.taken.is_empty() {
        line(out, b"x-forwarded-prefix", context.taken);
    }
    write_connection(out, context);
    out.extend_from_slice(b"\r\n");
}

/// Whether a claim of a client that is not trusted is taken off. What was taken off the path is
/// portok's own to say, however the other claims are treated.
fn is_replaced(name: &[u8], context: &Context<'_>) -> bool {
    context.forwarded == Forwarded::Trusted || !context.taken.is_empty() && is_forwarded_prefix(name)
}

/// The request target in the form an origin server gets it (RFC 9112, 3.2.1), byte for byte.
fn write_target(out: &mut Vec<u8>, target: &[u8]) {
    if matches!(target, [] | [b'?', ..]) {
        out.push(b'/');
    }
    out.extend_from_slice(target);
}

fn write_connection(out: &mut Vec<u8>, context: &Context<'_>) {
    if let Some(protocols) = context.upgrade {
        line(out, b"upgrade", protocols);
        out.extend_from_slice(b"connection: upgrade\r\n");
        return;
    }
    if context.trailers {
        out.extend_from_slice(b"te: trailers\r\n");
    }
    out.extend_from_slice(match (context.trailers, context.keep_alive) {
        (false, true) => b"",
        (false, false) => b"connection: close\r\n",
        (true, true) => b"connection: te\r\n",
        (true, false) => b"connection: te, close\r\n",
    });
}

/// Writes the four `X-Forwarded-*` with what came of them, unless `Connection` names it. `-For` is
/// a list of all hops. The others are facts about the outermost hop and stay as they came, except
/// with `append`, which also adds to `-Proto` and `-Port`, as npm portok does.
#[inline(never)]
fn write_believed<'a, F, I>(
    out: &mut Vec<u8>,
    head: &RequestHead<'a, F>,
    context: &Context<'_>,
    host: Option<&[u8]>,
) where
    F: Fn() -> I,
    I: Iterator<Item = (&'a [u8], &'a [u8])>,
{
    let came = |name: &'static [u8]| {
        let fields = (!is_among(head.nominated, name)).then(&head.fields);
        let named =
            move |(other, value): (&[u8], &'a [u8])| other.eq_ignore_ascii_case(name).then_some(value);
        fields.into_iter().flatten().filter_map(named).filter(|value| !value.is_empty())
    };
    let append = |out: &mut Vec<u8>, name: &'static [u8], own: &[u8]| {
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        for value in came(name) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(own);
        out.extend_from_slice(b"\r\n");
    };
    let keep = |out: &mut Vec<u8>, name: &'static [u8], own: Option<&[u8]>| {
        let mut told = came(name).peekable();
        if told.peek().is_some() {
            told.for_each(|value| line(out, name, value));
        } else if let Some(own) = own {
            line(out, name, own);
        }
    };
    append(out, b"x-forwarded-for", context.peer.as_bytes());
    let host_came = came(b"x-forwarded-host").next();
    if context.forwarded == Forwarded::Append {
        append(out, b"x-forwarded-proto", context.scheme.name());
        append(out, b"x-forwarded-port", host.and_then(port_of).unwrap_or(context.scheme.port()));
    } else {
        // Of the hop that the other two tell about.
        let scheme = came(b"x-forwarded-proto").next().map_or(context.scheme, scheme_of);
        let port = host_came.or(host).and_then(port_of).unwrap_or(scheme.port());
        keep(out, b"x-forwarded-proto", Some(context.scheme.name()));
        keep(out, b"x-forwarded-port", Some(port));
    }
    keep(out, b"x-forwarded-host", host);
}

/// What somebody who came before says of how the client speaks.
fn scheme_of(proto: &[u8]) -> Scheme {
    let is_secure = proto.eq_ignore_ascii_case(b"https") || proto.eq_ignore_ascii_case(b"wss");
    if is_secure { Scheme::Https } else { Scheme::Http }
}

/// The port in a `Host` field's value.
fn port_of(host: &[u8]) -> Option<&[u8]> {
    let colon = host.iter().rposition(|&byte| byte == b':')?;
    let port = &host[colon + 1..];
    (!port.is_empty() && port.iter().all(u8::is_ascii_digit)).then_some(port)
}

/// The address as it is compared and shown: an IPv4 client on an IPv6 socket is an IPv4 client.
pub(super) fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

/// The address as text. IPv4 by hand: the standard library's way costs each connection 0.9k
/// instructions.
pub(super) fn text_of(ip: IpAddr) -> String {
    let IpAddr::V4(v4) = ip else { return ip.to_string() };
    let mut text = String::with_capacity(15);
    for (place, octet) in v4.octets().into_iter().enumerate() {
        if place > 0 {
            text.push('.');
        }
        for (unit, digit) in [(100, octet / 100), (10, octet / 10 % 10), (1, octet % 10)] {
            if octet >= unit || unit == 1 {
                text.push(char::from(b'0' + digit));
            }
        }
    }
    text
}

/// Whether `peer` may say who came before it.
pub(super) fn is_trusted(peer: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&peer))
}

/// The protocols in `Upgrade` that are `allowed`, each once and as the client wrote it. `None`:
/// there is none.
pub(super) fn offered(headers: &HeaderMap, allowed: &[String]) -> Option<Vec<u8>> {
    let mut offered: Vec<&[u8]> = Vec::new();
    for token in headers.get_all(header::UPGRADE).iter().map(HeaderValue::as_bytes).flat_map(tokens) {
        let is_allowed = allowed.iter().any(|name| token.eq_ignore_ascii_case(name.as_bytes()));
        if is_allowed && !offered.iter().any(|known| token.eq_ignore_ascii_case(known)) {
            offered.push(token);
        }
    }
    (!offered.is_empty()).then(|| offered.join(&b", "[..]))
}

/// Whether a 101 names at least one protocol, and none but those that were `offered`.
pub(super) fn is_offered(named: &[u8], offered: &[u8]) -> bool {
    let mut named = tokens(named).peekable();
    named.peek().is_some()
        && named.all(|name| tokens(offered).any(|offered| offered.eq_ignore_ascii_case(name)))
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
    fn what_is_left_of_a_path_begins_with_one_slash() {
        let taken_off = |target: &str, cut| {
            let (taken, rest) = cut_prefix(target.as_bytes(), cut);
            let mut written = Vec::new();
            write_target(&mut written, rest);
            format!("{} {}", str::from_utf8(taken).unwrap(), String::from_utf8(written).unwrap())
        };
        for (target, cut, left) in [
            ("/v1", 3, "/v1 /"),
            ("/v1?x", 3, "/v1 /?x"),
            ("/v1/", 3, "/v1 /"),
            ("/v1/?x", 3, "/v1 /?x"),
            ("/v1/a//b", 3, "/v1 /a//b"),
            ("/v1//evil/x", 3, "/v1 /evil/x"),
            ("/v1///?//", 3, "/v1 /?//"),
            ("//x", 0, " //x"),
            ("", 0, " /"),
        ] {
            assert_eq!(taken_off(target, cut), left, "{target}");
        }
    }

    #[test]
    fn addresses_are_shown_as_everybody_shows_them() {
        for ip in ["0.0.0.0", "127.0.0.1", "10.20.109.255", "99.100.9.19", "::1", "2001:db8::7"] {
            assert_eq!(text_of(ip.parse().unwrap()), ip);
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
