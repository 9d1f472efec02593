//! Which hosts a request may name (RFC 9112, 3.2; RFC 3986, 3.2.2). Pure.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use super::fields;

/// Bytes of a name (a `reg-name`). IPv4 addresses consist of them, too.
const NAME: [bool; 256] = fields::table(b"-._~!$&'()*+,;=%");

/// Whether `host` is a name, an IPv4 address or an IPv6 address in brackets, with or without a port
/// up to 65535.
pub(crate) fn is_host(host: &[u8]) -> bool {
    let length = host.iter().take_while(|&&byte| NAME[usize::from(byte)]).count();
    match host.get(length) {
        None => length > 0,
        Some(b':') => length > 0 && is_port(&host[length + 1..]),
        Some(b'[') if length == 0 => is_bracketed(&host[1..]),
        Some(_) => false,
    }
}

/// Judges what follows the opening bracket: an address, the closing bracket, maybe a port.
fn is_bracketed(rest: &[u8]) -> bool {
    let Some(close) = rest.iter().position(|&byte| byte == b']') else { return false };
    let is_address = str::from_utf8(&rest[..close]).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok());
    is_address
        && match &rest[close + 1..] {
            [] => true,
            [b':', port @ ..] => is_port(port),
            _ => false,
        }
}

/// Judges what follows the colon. By RFC 3986 that may be empty.
fn is_port(port: &[u8]) -> bool {
    let mut number = 0;
    port.iter().all(|byte| {
        number = number * 10 + u32::from(byte.wrapping_sub(b'0'));
        byte.is_ascii_digit() && number <= u32::from(u16::MAX)
    })
}

/// `host` in the form that hosts are compared in: lower case, without its port and one dot at its
/// end.
pub(crate) fn compared(host: &[u8]) -> Cow<'_, [u8]> {
    let end = match host.first() {
        Some(b'[') => host.iter().position(|&byte| byte == b']').map_or(host.len(), |close| close + 1),
        _ => host.iter().position(|&byte| byte == b':').unwrap_or(host.len()),
    };
    let host = &host[..end];
    let host = host.strip_suffix(b".").unwrap_or(host);
    if host.iter().any(u8::is_ascii_uppercase) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_hosts() {
        for host in [
            "a",
            "a.example-1.org",
            "a.example.org.",
            "_x.test:3000",
            "xn--bcher-kva.example",
            "a%20b",
            "a:",
            "a:0",
            "a:65535",
            "127.0.0.1",
            "127.0.0.1:80",
            "[::1]",
            "[::1]:8080",
            "[2001:db8::7]:65535",
            "[::ffff:1.2.3.4]",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn what_is_none_of_them_is_no_host() {
        for host in [
            "",
            ":80",
            "a b",
            "a/b",
            "a?b",
            "u@a",
            "a:b",
            "a:-1",
            "a:+1",
            "a:99999999",
            "a:65536",
            "a:80:90",
            "a:80 ",
            "::1",
            "[::1",
            "::1]",
            "[]",
            "[::1]]",
            "[::1]80",
            "[::1]:x",
            "[::1]:65536",
            "[127.0.0.1]",
            "[fe80::1%25eth0]",
            "[v1.x]",
            "a[::1]",
            "a\u{fc}",
            "a\tb",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
    }
}
