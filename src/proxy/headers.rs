//! Which fields pass, and the head that goes to the app (RFC 9110, 7.6.1; RFC 9112, 3).
//!
//! Pure functions over fields as pairs of bytes, whoever parsed them; the head is written straight to bytes, no map
//! is built for it. Order matters in one place: what the client's `Connection` names is left out **before** portok adds
//! its own fields, so that a client cannot make it leave them out.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;

use crate::config::Forwarded;

/// A request's head as the client sent it.
pub(super) struct Asked<'a, F> {
    pub(super) method: &'a str,
    /// Path and query.
    pub(super) target: &'a str,
    /// The host of an absolute target.
    pub(super) authority: Option<&'a str>,
    /// What `Host` says.
    pub(super) host: Option<&'a [u8]>,
    /// What `Connection` names.
    pub(super) nominated: &'a [HeaderName],
    /// Gives all fields, name and value; lines of one name in their order.
    pub(super) fields: F,
}

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
    /// The client takes trailers.
    pub(super) trailers: bool,
    /// The connection is kept for further requests.
    pub(super) keep_alive: bool,
}

/// What a field is to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Connection,
    ContentLength,
    Date,
    Expect,
    Forwarded,
    Host,
    KeepAlive,
    Te,
    TransferEncoding,
    Upgrade,
    /// Any other: it passes.
    Other,
}

impl Kind {
    /// The kind of the field `name`, in whatever case. Told by its length first: most names are compared with one or none.
    pub(super) fn of(name: &[u8]) -> Self {
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            2 if is(b"te") => Self::Te,
            4 if is(b"host") => Self::Host,
            4 if is(b"date") => Self::Date,
            6 if is(b"expect") => Self::Expect,
            7 if is(b"upgrade") => Self::Upgrade,
            10 if is(b"connection") => Self::Connection,
            10 if is(b"keep-alive") => Self::KeepAlive,
            14 if is(b"content-length") => Self::ContentLength,
            15 if is(b"x-forwarded-for") => Self::Forwarded,
            16 if is(b"x-forwarded-port") || is(b"x-forwarded-host") => Self::Forwarded,
            16 if is(b"proxy-connection") => Self::KeepAlive,
            17 if is(b"transfer-encoding") => Self::TransferEncoding,
            17 if is(b"x-forwarded-proto") => Self::Forwarded,
            _ => Self::Other,
        }
    }

    /// Whether it concerns one connection only, named in `Connection` or not. `Expect` is among them because
    /// portok answers it itself.
    pub(super) fn is_hop_by_hop(self) -> bool {
        use Kind::{Connection, Expect, KeepAlive, Te, TransferEncoding, Upgrade};
        matches!(self, Connection | Expect | KeepAlive | Te | TransferEncoding | Upgrade)
    }
}

/// Writes the head of `asked` as the app gets it.
pub(super) fn write_head<'a, F, I>(out: &mut Vec<u8>, asked: &Asked<'a, F>, context: &Context<'_>)
where
    F: Fn() -> I,
    I: Iterator<Item = (&'a [u8], &'a [u8])>,
{
    out.extend_from_slice(asked.method.as_bytes());
    out.push(b' ');
    write_target(out, asked.target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    // An absolute target's host wins over the field (RFC 9112, 3.2.2).
    let host = asked.authority.map(str::as_bytes).or(asked.host);
    match host {
        Some(host) => line(out, b"host", host),
        None => line(out, b"host", context.target.to_string().as_bytes()),
    }
    let mut came_forwarded = false;
    for (name, value) in (asked.fields)() {
        let kind = Kind::of(name);
        came_forwarded |= kind == Kind::Forwarded;
        let skipped = kind.is_hop_by_hop()
            || kind == Kind::Host
            || (context.chunked && kind == Kind::ContentLength)
            || (kind == Kind::Forwarded && context.forwarded != Forwarded::Off)
            || is_among(asked.nominated, name);
        if !skipped {
            field(out, name, value);
        }
    }
    if context.chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if context.forwarded != Forwarded::Off {
        let believed = came_forwarded && (context.trusted || context.forwarded == Forwarded::Append);
        write_forwarded(out, asked, believed, host, context.peer);
    }
    write_connection(out, asked, context);
    out.extend_from_slice(b"\r\n");
}

/// The request target in the form an origin server gets it (RFC 9112, 3.2.1), byte for byte.
fn write_target(out: &mut Vec<u8>, target: &str) {
    if target.starts_with('?') || target.is_empty() {
        out.push(b'/');
    }
    out.extend_from_slice(target.as_bytes());
}

fn write_connection<'a, F, I>(out: &mut Vec<u8>, asked: &Asked<'a, F>, context: &Context<'_>)
where
    F: Fn() -> I,
    I: Iterator<Item = (&'a [u8], &'a [u8])>,
{
    if context.upgrade {
        for (_, value) in (asked.fields)().filter(|(name, _)| Kind::of(name) == Kind::Upgrade) {
            line(out, b"upgrade", value);
        }
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

/// Writes `X-Forwarded-For`, `-Proto` and `-Port` behind what came before, and `-Host` as it came or as the
/// client asked. `believed`: with what came, but for what `Connection` names; else as if nothing had come.
fn write_forwarded<'a, F, I>(
    out: &mut Vec<u8>,
    asked: &Asked<'a, F>,
    believed: bool,
    host: Option<&[u8]>,
    peer: &str,
) where
    F: Fn() -> I,
    I: Iterator<Item = (&'a [u8], &'a [u8])>,
{
    let came = |name: &'static [u8]| {
        let fields = (believed && !is_among(asked.nominated, name)).then(&asked.fields);
        let named =
            move |(other, value): (&[u8], &'a [u8])| other.eq_ignore_ascii_case(name).then_some(value);
        fields.into_iter().flatten().filter_map(named)
    };
    let mut append = |name: &'static [u8], own: &[u8]| {
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        for value in came(name).filter(|value| !value.is_empty()) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(own);
        out.extend_from_slice(b"\r\n");
    };
    append(b"x-forwarded-for", peer.as_bytes());
    append(b"x-forwarded-proto", b"http");
    append(b"x-forwarded-port", host.and_then(port_of).unwrap_or(b"80"));
    let mut came = came(b"x-forwarded-host").peekable();
    if came.peek().is_some() {
        came.for_each(|value| line(out, b"x-forwarded-host", value));
    } else if let Some(host) = host {
        line(out, b"x-forwarded-host", host);
    }
}

/// Writes a field as it came, its name in lower case: nobody can tell from it whether hyper or `plain` read it.
pub(super) fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let start = out.len();
    line(out, name, value);
    out[start..start + name.len()].make_ascii_lowercase();
}

/// Writes a field of portok's own. One reservation for its four parts.
pub(super) fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Whether it is a byte of a host and port (RFC 3986, 3.2.2).
pub(super) fn is_host_byte(byte: u8) -> bool {
    const TABLE: [bool; 256] = table(b"-._~!$&'()*+,;=:[]%");
    TABLE[usize::from(byte)]
}

/// Letters, digits and `others`.
pub(super) const fn table(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
}

/// Whether `name` is one of those that `Connection` names.
pub(super) fn is_among(nominated: &[HeaderName], name: &[u8]) -> bool {
    nominated.iter().any(|nominated| name.eq_ignore_ascii_case(nominated.as_str().as_bytes()))
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

/// The address as text. By hand for IPv4: the standard library's way costs each connection 0.9k instructions.
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

/// Fields that a trailer must not carry on (RFC 9110, 6.5.1): framing, routing, and what concerns one
/// connection.
pub(super) fn is_forbidden_trailer(name: &HeaderName) -> bool {
    let kind = Kind::of(name.as_str().as_bytes());
    kind.is_hop_by_hop() || matches!(kind, Kind::ContentLength | Kind::Host) || *name == header::TRAILER
}

/// The fields that `Connection` names, but those without which the message would mean something else.
pub(super) fn nominations(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter().map(HeaderValue::as_bytes);
    values.flat_map(tokens).filter_map(nominated).collect()
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
pub(super) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Whether a field's list has `token`.
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &[u8]) -> bool {
    let values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    values.flat_map(tokens).any(|part| part.eq_ignore_ascii_case(token))
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
    fn kinds_are_told_in_any_case() {
        assert_eq!(Kind::of(b"Transfer-Encoding"), Kind::TransferEncoding);
        assert_eq!(Kind::of(b"X-FORWARDED-FOR"), Kind::Forwarded);
        assert_eq!(Kind::of(b"proxy-connection"), Kind::KeepAlive);
        for other in ["", "cookie", "accept", "x-forwarded-by", "referer", "user-agent"] {
            assert_eq!(Kind::of(other.as_bytes()), Kind::Other, "{other}");
        }
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
