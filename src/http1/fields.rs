//! What a field is to a proxy, by its name, and the small parts of values. Pure.

use http::{HeaderName, header};

/// How many options the `Connection` of a message may have. Each is compared with every field.
pub(crate) const MOST_OPTIONS: usize = 100;

/// What a field is to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Connection,
    ContentLength,
    Date,
    Expect,
    /// One of the four that portok sets: `X-Forwarded-For`, `-Proto`, `-Port`, `-Host`.
    Forwarded,
    /// Another spelling of one of the four, which many servers read as that one.
    ForwardedAlias,
    /// Another field that says who the client is or how it asked, in whatever spelling.
    Claim,
    Host,
    Http2Settings,
    KeepAlive,
    Te,
    TransferEncoding,
    Upgrade,
    /// Any other: it passes.
    Other,
}

impl Kind {
    /// The kind of the field `name`, in any case. The length is looked at first, so that most names
    /// are compared with one known name or none.
    pub(crate) fn of(name: &[u8]) -> Self {
        match name.len() {
            2 if is(name, b"te") => Self::Te,
            4 if is(name, b"host") => Self::Host,
            4 if is(name, b"date") => Self::Date,
            6 if is(name, b"expect") => Self::Expect,
            7 if is(name, b"upgrade") => Self::Upgrade,
            10 if is(name, b"connection") => Self::Connection,
            10 if is(name, b"keep-alive") => Self::KeepAlive,
            14 if is(name, b"content-length") => Self::ContentLength,
            14 if is(name, b"http2-settings") => Self::Http2Settings,
            9 | 15..=18 if matches!(name[0] | 0x20, b'x' | b'f') => Self::of_forwarding(name),
            16 if is(name, b"proxy-connection") => Self::KeepAlive,
            17 if is(name, b"transfer-encoding") => Self::TransferEncoding,
            _ => Self::Other,
        }
    }

    /// The kind of a name that may be one of those that tell about the client.
    #[cold]
    fn of_forwarding(name: &[u8]) -> Self {
        const OWN: [&[u8]; 4] =
            [b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-port", b"x-forwarded-host"];
        const CLAIMS: [&[u8]; 5] =
            [b"forwarded", b"x-real-ip", b"x-forwarded-ssl", b"x-forwarded-scheme", b"x-forwarded-prefix"];
        let among = |names: &[&[u8]]| names.iter().any(|known| is_spelling(name, known));
        if OWN.iter().any(|known| name.eq_ignore_ascii_case(known)) {
            Self::Forwarded
        } else if among(&OWN) {
            Self::ForwardedAlias
        } else if among(&CLAIMS) {
            Self::Claim
        } else {
            Self::Other
        }
    }

    /// Whether it concerns one connection only, whether or not `Connection` names it. `Expect` is
    /// among them because portok answers it itself.
    pub(crate) fn is_hop_by_hop(self) -> bool {
        use Kind::{Connection, Expect, Http2Settings, KeepAlive, Te, TransferEncoding, Upgrade};
        matches!(self, Connection | Expect | Http2Settings | KeepAlive | Te | TransferEncoding | Upgrade)
    }
}

/// Whether `name`, a token (RFC 9110, 5.6.2), is `known` in any case. `known` is in lower case and
/// has only letters, digits and `-`.
///
/// Eight bytes are compared at once, with the bit of the case set in all of them: of a token's
/// characters, that bit makes only a letter another one of these. In a name of 9 to 15 bytes the
/// first and the last eight bytes overlap.
fn is<const LENGTH: usize>(name: &[u8], known: &[u8; LENGTH]) -> bool {
    const CASE: u64 = u64::from_ne_bytes([0x20; 8]);
    let word = |bytes: &[u8]| bytes.first_chunk().map(|eight| u64::from_ne_bytes(*eight) | CASE);
    name.len() == LENGTH
        && match LENGTH {
            8..=16 => word(name) == word(known) && word(&name[LENGTH - 8..]) == word(&known[LENGTH - 8..]),
            _ => name.eq_ignore_ascii_case(known),
        }
}

/// Whether a server may read `name` as `known`, which is in lower case: CGI and its heirs turn each
/// `-` into `_`.
pub(crate) fn is_spelling(name: &[u8], known: &[u8]) -> bool {
    let plain = |byte: &u8| if *byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    name.len() == known.len() && name.iter().map(plain).eq(known.iter().copied())
}

/// Whether a server may read the field `name` as `X-Forwarded-Prefix`.
pub(crate) fn is_forwarded_prefix(name: &[u8]) -> bool {
    is_spelling(name, b"x-forwarded-prefix")
}

/// Whether the field `name`, in any spelling, must not be passed on in a trailer (RFC 9110, 6.5.1):
/// a field that frames or routes a message, names the client, or had to be known before the body. A
/// server may add a trailer's fields to those of the head.
pub(crate) fn is_forbidden_trailer(name: &HeaderName) -> bool {
    const NAMES: [&[u8]; 26] = [
        b"authorization",
        b"cache-control",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"cookie",
        b"expect",
        b"forwarded",
        b"host",
        b"http2-settings",
        b"keep-alive",
        b"max-forwards",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"range",
        b"set-cookie",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"via",
        b"www-authenticate",
        b"x-real-ip",
    ];
    const FORWARDED: &[u8] = b"x-forwarded-";
    let name = name.as_str().as_bytes();
    let begins = name.get(..FORWARDED.len()).is_some_and(|start| is_spelling(start, FORWARDED));
    begins || NAMES.iter().any(|known| is_spelling(name, known))
}

/// Whether `name` is one of the fields that `Connection` names.
pub(crate) fn is_among(nominated: &[HeaderName], name: &[u8]) -> bool {
    nominated.iter().any(|nominated| name.eq_ignore_ascii_case(nominated.as_str().as_bytes()))
}

/// The field that an option of `Connection` names, if it may be left out. A field without which the
/// message would mean something else may not.
pub(crate) fn nominated(option: &[u8]) -> Option<HeaderName> {
    const OPTIONS: [&[u8]; 3] = [b"close", b"keep-alive", b"upgrade"];
    if OPTIONS.iter().any(|known| option.eq_ignore_ascii_case(known)) {
        return None;
    }
    let name = HeaderName::from_bytes(option).ok()?;
    (!matches!(name, header::HOST | header::CONTENT_LENGTH)).then_some(name)
}

/// The parts of a comma-separated value without the blanks around them. Empty parts are left out.
pub(crate) fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// A number written in decimal digits and nothing else.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    let digit = |byte: &u8| byte.is_ascii_digit().then(|| u64::from(byte - b'0'));
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| number.checked_mul(10)?.checked_add(digit(byte)?))
}

/// Writes a field as it came, with its name in lower case, so that both ways of reading give the
/// same bytes.
pub(crate) fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let start = out.len();
    line(out, name, value);
    out[start..start + name.len()].make_ascii_lowercase();
}

/// Writes a field of portok's own. One reservation for its four parts.
#[inline]
pub(crate) fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Letters, digits and `others`.
pub(crate) const fn table(others: &[u8]) -> [bool; 256] {
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

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(Kind::of(b"HTTP2-Settings"), Kind::Http2Settings);
        for other in ["", "cookie", "accept", "x-forwarded-by", "x-forwarded-server", "referer", "user-agent"]
        {
            assert_eq!(Kind::of(other.as_bytes()), Kind::Other, "{other}");
        }
    }

    #[test]
    fn what_tells_about_the_client_is_told_in_any_spelling() {
        for alias in [
            "X_Forwarded_For",
            "x-forwarded_for",
            "X_FORWARDED_PROTO",
            "x_forwarded-host",
            "X-Forwarded_Port",
        ] {
            assert_eq!(Kind::of(alias.as_bytes()), Kind::ForwardedAlias, "{alias}");
        }
        for claim in [
            "Forwarded",
            "X-Real-IP",
            "x_real_ip",
            "X-Forwarded-Ssl",
            "X_Forwarded_Scheme",
            "X-Forwarded-Prefix",
        ] {
            assert_eq!(Kind::of(claim.as_bytes()), Kind::Claim, "{claim}");
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
}
