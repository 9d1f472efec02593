//! The names that a certificate is for. Pure.

use std::fmt;

use crate::http1::host::compared;

/// One name of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    /// This host.
    Exact(String),
    /// Every host that has one label more than this name (RFC 6125, 6.4.3).
    Below(String),
}

impl Name {
    /// The name that a certificate has as `text`.
    pub(super) fn of(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        match text.strip_prefix("*.") {
            Some(below) => Self::Below(below.to_owned()),
            None => Self::Exact(text),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
        }
    }
}

/// Whether one of `names` is for `host`, which may have a port.
pub(super) fn cover(names: &[Name], host: &[u8]) -> bool {
    let host = compared(host);
    let below = above(&host);
    names.iter().any(|name| match name {
        Name::Exact(name) => name.as_bytes() == &*host,
        Name::Below(name) => below == Some(name.as_bytes()),
    })
}

/// What follows the first label of a host; `None`: nothing does.
pub(super) fn above(host: &[u8]) -> Option<&[u8]> {
    let dot = host.iter().position(|&byte| byte == b'.')?;
    (dot > 0).then(|| &host[dot + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let names = ["Example.com", "*.example.com", "10.0.0.1", "[::1]"].map(Name::of);
        for (host, covered) in [
            ("example.com", true),
            ("EXAMPLE.com.:443", true),
            ("a.example.com", true),
            ("a.b.example.com", false),
            (".example.com", false),
            ("example.org", false),
            ("10.0.0.1:8443", true),
            ("[::1]:8443", true),
            ("com", false),
            ("", false),
        ] {
            assert_eq!(cover(&names, host.as_bytes()), covered, "{host}");
        }
    }
}
