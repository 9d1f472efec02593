//! The keys of `[limits]`: what clients may use at most, over all apps and of each app.

use super::super::show::{self, or_zero};
use super::super::values::{self, none_if_zero};
use super::Key;

/// The most of what clients may have at a time: connections, requests, tunnels.
const CLIENT_MAX: usize = 1_000_000;

/// The numbers of fields that can be configured. Below the least, ordinary browsers are refused.
const HEADERS: (usize, usize) = (32, 4096);

pub(super) const LIMITS: &[Key] = &[
    row!(instance, "limits.connections", values::integer(1, CLIENT_MAX), show::number, limits.connections),
    row!(
        instance,
        "limits.connections_per_address",
        none_if_zero(values::integer(0, CLIENT_MAX)),
        or_zero(show::number),
        limits.connections_per_address
    ),
    row!(
        app,
        "limits.requests_per_address",
        none_if_zero(values::integer(0, CLIENT_MAX)),
        or_zero(show::number),
        limits.requests_per_address
    ),
    row!(app, "limits.tunnels", values::integer(0, CLIENT_MAX), show::number, limits.tunnels),
    row!(instance, "limits.headers", values::integer(HEADERS.0, HEADERS.1), show::number, limits.headers),
    row!(app, "limits.body_timeout", values::duration_or_none, or_zero(show::time), limits.body_timeout),
    row!(app, "limits.send_timeout", values::duration_or_none, or_zero(show::time), limits.send_timeout),
    row!(app, "limits.tunnel_idle", values::duration_or_none, or_zero(show::time), limits.tunnel_idle),
    row!(
        instance,
        "limits.requests_per_connection",
        none_if_zero(values::integer(0, u32::MAX)),
        or_zero(show::number),
        limits.requests_per_connection
    ),
];
