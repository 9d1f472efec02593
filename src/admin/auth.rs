//! Whether a peer may use the admin API at all, and whether it may change something.
//!
//! A pure function of the peer, the request's head, the configuration and the limiters. Over TCP
//! the checks are, in this order:
//!
//! - address: a peer that is not listed gets one and the same 403, whatever else is configured. So
//!   does a loopback peer that speaks for another one (`X-Forwarded-For`, `Forwarded`);
//! - rate: requests with the right token are counted apart from all others, so that nobody can use
//!   up the token holder's share. Every request that gets here counts, whatever becomes of it;
//! - token: when none is configured, the request is refused here. So only listed peers learn that,
//!   and no faster than they could guess a token;
//! - change: only peers on this host may change something. (The switch is an exception, as in npm
//!   portok.)
//!
//! On the unix socket the kernel names the peer's user, and that decides alone.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use http::header::{AUTHORIZATION, FORWARDED, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue};
use subtle::ConstantTimeEq;

use super::Peer;
use super::answer::Refusal;
use super::rate::Limits;
use crate::config;
use crate::wire::{Code, ErrorBody, TOKEN_HEADER};

/// What an admitted peer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Admitted {
    /// Everything; otherwise only to look, and to switch.
    pub(super) may_change: bool,
}

/// Admits a request. `own_uid` is the daemon's user.
///
/// # Errors
/// `forbidden`, `rate_limited` with `Retry-After`, `unauthorized`.
pub(super) fn admit(
    peer: &Peer,
    headers: &HeaderMap,
    config: &config::Admin,
    own_uid: u32,
    limits: &mut Limits,
    now: Instant,
) -> Result<Admitted, Refusal> {
    match peer {
        Peer::Unix { uid, member, .. } => {
            if *uid == 0 || *uid == own_uid || *member {
                Ok(Admitted { may_change: true })
            } else {
                Err(ErrorBody::new(
                    Code::Forbidden,
                    "Forbidden",
                    format!("user {uid} may not use the admin socket"),
                )
                .with_hint("use it as root, as the daemon's own user or as a member of admin.socket_group")
                .into())
            }
        }
        Peer::Tcp { peer, .. } => admit_tcp(peer, headers, config, limits, now),
    }
}

fn admit_tcp(
    peer: &SocketAddr,
    headers: &HeaderMap,
    config: &config::Admin,
    limits: &mut Limits,
    now: Instant,
) -> Result<Admitted, Refusal> {
    let address = peer.ip().to_canonical();
    let loopback = address.is_loopback();
    let forwarded = headers.contains_key("x-forwarded-for") || headers.contains_key(FORWARDED);

    if !may_ask(address, forwarded, config) {
        return Err(stranger());
    }

    let token = config.token.as_ref();
    let is_right = token.is_some_and(|token| {
        presented(headers).is_some_and(|presented| same(presented, token.expose().as_bytes()))
    });
    let limiter = if is_right { &mut limits.right } else { &mut limits.others };
    if let Err(wait) = limiter.admit(address, config.rate_limit, now) {
        // Rounded up: a whole second too early would be refused again.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let body = ErrorBody::new(
            Code::RateLimited,
            "Too many requests",
            format!("more than {} admin requests within a minute from this address", config.rate_limit),
        )
        .with_hint(format!("try again in {seconds} s, or use the unix socket, which has no limit"));
        return Err(Refusal::with_header(body, RETRY_AFTER, HeaderValue::from(seconds)));
    }

    if token.is_none() {
        return Err(ErrorBody::new(
            Code::Forbidden,
            "Forbidden",
            "the admin API is closed over TCP: no token is configured",
        )
        .with_hint("set admin.token_file (or ADMIN_TOKEN), or use the unix socket")
        .into());
    }
    if !is_right {
        let body = ErrorBody::new(Code::Unauthorized, "Unauthorized", "the admin token is missing or wrong")
            .with_hint(format!("send it as `{TOKEN_HEADER}` or as `Authorization: Bearer`"));
        // RFC 9110, 15.5.2: a 401 names a scheme to use.
        return Err(Refusal::with_header(body, WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
    }

    // A request that another proxy passed on is not from this host, though its connection is.
    Ok(Admitted { may_change: config.remote_deploy || (loopback && !forwarded) })
}

/// Whether `token`, which a request of `peer` to an app has, is the admin token: only a peer that
/// may use the admin API is believed to have it. A wrong one counts as the admin requests without
/// the right one do, and beyond their rate none is looked at.
pub(super) fn knows(
    peer: SocketAddr,
    (token, proxied): (&[u8], bool),
    config: &config::Admin,
    limits: &mut Limits,
    now: Instant,
) -> bool {
    let address = peer.ip().to_canonical();
    if !may_ask(address, proxied, config) || !limits.others.has_room(address, config.rate_limit, now) {
        return false;
    }
    let is_right = config.token.as_ref().is_some_and(|right| same(token, right.expose().as_bytes()));
    if !is_right {
        let _counted = limits.others.admit(address, config.rate_limit, now);
    }
    is_right
}

/// Whether the peer at `address` may use the admin API over TCP. `proxied`: its request came
/// through another proxy.
fn may_ask(address: IpAddr, proxied: bool, config: &config::Admin) -> bool {
    let listed = config.allow.iter().any(|range| range.contains(&address) || contains_mapped(range, address));
    listed && (config.allow_forwarded || !proxied || !address.is_loopback())
}

/// Refuses a change to a peer that may look.
pub(super) fn change_from_afar() -> Refusal {
    ErrorBody::new(
        Code::Forbidden,
        "Forbidden",
        "what changes something is accepted over TCP from loopback peers only, not through another proxy",
    )
    .with_hint("use the unix socket, or set admin.remote_deploy = true")
    .into()
}

/// The one answer for all strangers. It names the settings and not what they are set to.
fn stranger() -> Refusal {
    ErrorBody::new(Code::Forbidden, "Forbidden", "this peer may not use the admin API")
        .with_hint("admin.allow lists who may, admin.allow_forwarded admits requests that came through another proxy")
        .into()
}

/// For a range that was itself written IPv4-mapped (`::ffff:192.0.2.0/120`).
fn contains_mapped(range: &ipnet::IpNet, address: IpAddr) -> bool {
    match (range, address) {
        (ipnet::IpNet::V6(range), IpAddr::V4(address)) => {
            range.prefix_len() >= 96 && range.contains(&address.to_ipv6_mapped())
        }
        _ => false,
    }
}

/// The token that a request carries. portok's own header wins.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(value) = headers.get(TOKEN_HEADER) {
        return Some(value.as_bytes());
    }
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, rest) = value.split_at_checked(b"Bearer ".len())?;
    // RFC 9110, 11.1: the scheme's name is case-insensitive.
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| rest.trim_ascii())
}

/// Compares in a time that depends only on the length of `presented`, which the sender knows.
fn same(presented: &[u8], token: &[u8]) -> bool {
    let mut padded = vec![0; presented.len()];
    for (index, slot) in padded.iter_mut().enumerate() {
        *slot = token.get(index).copied().unwrap_or(0);
    }
    let equal = presented.ct_eq(&padded) & presented.len().ct_eq(&token.len());
    // An empty token is none.
    bool::from(equal) && !token.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_equal_only_when_they_are() {
        assert!(same(b"secret", b"secret"));
        for wrong in ["", "s", "secre", "secrets", "secret\0", "Secret", "secreT"] {
            assert!(!same(wrong.as_bytes(), b"secret"), "{wrong:?}");
        }
        assert!(!same(b"\0\0", b""));
        assert!(!same(b"", b""));
    }

    #[test]
    fn a_token_is_found_in_either_header() {
        let with = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            presented(&headers).map(|token| String::from_utf8(token.to_vec()).unwrap())
        };
        assert_eq!(with(TOKEN_HEADER, "abc").as_deref(), Some("abc"));
        assert_eq!(with("authorization", "Bearer abc").as_deref(), Some("abc"));
        assert_eq!(with("authorization", "bearer  abc").as_deref(), Some("abc"));
        assert_eq!(with("authorization", "Basic abc"), None);
        assert_eq!(with("authorization", "Bearer"), None);
        assert_eq!(with("authorization", "Bearerabc"), None);
        assert_eq!(with("cookie", "abc"), None);
    }
}
