//! The hosts that a route is for, as a configuration names them. Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use crate::http1::host::{compared, is_host};

/// The longest host that a route may name: the longest name of the DNS, as text (RFC 1035, 2.3.4).
const LONGEST: usize = 253;

/// What a route can be for.
pub(super) const EXPECTED: &str =
    "a name, an address, an IPv6 address in brackets, `*.` and a name, or `*`; without a port";

/// The hosts that a route is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hosts {
    /// This one.
    Exact(Host),
    /// Every one below this name: `a.example.com` and `a.b.example.com` are below `example.com`.
    Below(Host),
    /// Every one.
    Any,
}

/// A host in the form that hosts are compared in; made by [`Hosts::from_str`] alone. A clone shares
/// its text: there may be very many, each known in several places.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(Arc<str>);

impl Host {
    /// In lower case, without a dot at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is an address, not a name: nobody asks for one in TLS (RFC 6066, 3).
    pub fn is_address(&self) -> bool {
        self.0.starts_with('[') || self.0.parse::<IpAddr>().is_ok()
    }
}

/// Why a text names no hosts that a route can be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a host is {EXPECTED}")]
pub struct NoHosts;

impl FromStr for Hosts {
    type Err = NoHosts;

    /// Reads `example.com`, `127.0.0.1`, `[::1]`, `*.example.com` or `*`.
    fn from_str(text: &str) -> Result<Self, NoHosts> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let (name, is_below) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
        let is_plain = !name.starts_with('.') && !name.contains("..") && !name.contains(['*', '%']);
        let fits = is_plain && is_host(name.as_bytes());
        let host = compared(name.as_bytes());
        let without_dot = name.len() - usize::from(name.ends_with('.'));
        // What a comparison cuts off is no part of a route.
        if !fits || host.len() != without_dot || host.len() > LONGEST || is_below && !is_name(name) {
            return Err(NoHosts);
        }
        let host = Host(String::from_utf8_lossy(&host).into());
        Ok(if is_below { Self::Below(host) } else { Self::Exact(host) })
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(&host.0),
            Self::Below(name) => write!(f, "*.{}", name.0),
            Self::Any => f.write_str("*"),
        }
    }
}

/// Whether a host is no address: the last label of an IPv4 address is a number, and of no name that
/// is in use (RFC 3696, 2).
fn is_name(host: &str) -> bool {
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    !host.starts_with('[') && !last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_in_the_form_they_are_compared_in() {
        for (text, shown) in [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("*.Example.com", "*.example.com"),
            ("*", "*"),
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("_x.y", "_x.y"),
        ] {
            assert_eq!(text.parse::<Hosts>().unwrap().to_string(), shown);
        }
        let long = "a".repeat(254);
        for text in [
            "", "*.", "**", "a.*", "*.*.a", "*a", "a:80", "a:", "[::1]:80", "*.[::1]", "*.0.0.1", "[::1",
            "a b", "a/b", ".a", "*..a", "a..", "a%20b", &long,
        ] {
            assert_eq!(text.parse::<Hosts>(), Err(NoHosts), "{text}");
        }
    }
}
