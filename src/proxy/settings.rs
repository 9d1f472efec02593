//! The configuration as requests read it.
//!
//! Values that would cost each request a conversion are worked out once, when a configuration comes
//! into force. Pure data: nothing here changes.

use std::net::IpAddr;
use std::sync::Arc;

use super::clock;
use super::headers;
use super::socket;
use crate::config::{AppConfig, Config, Forwarded};

/// One configuration, prepared for a thread's requests.
pub(super) struct Settings {
    pub(super) config: Arc<Config>,
    /// The app that the requests are for.
    pub(super) app: Arc<AppConfig>,
    /// Milliseconds.
    pub(super) idle_timeout: u64,
    pub(super) header_timeout: u64,
    /// Milliseconds as the kernel gets them; 0: no limit.
    pub(super) send_timeout: u32,
    pub(super) requests_per_address: usize,
    /// The status for requests that no app has a route for.
    pub(super) no_route_status: u16,
    /// Whether any wait for the app has a limit once it is connected.
    pub(super) is_impatient: bool,
}

impl Settings {
    pub(super) fn new(config: Arc<Config>, app: Arc<AppConfig>) -> Self {
        let idle_timeout = clock::millis(config.proxy.idle_timeout);
        let header_timeout = clock::millis(config.proxy.header_timeout);
        let (limits, upstream) = (&app.limits, &app.upstream);
        let send_timeout = socket::send_timeout_of(limits.send_timeout);
        let requests_per_address = limits.requests_per_address.unwrap_or(usize::MAX);
        let is_impatient = upstream.response_timeout.or(upstream.read_timeout).or(upstream.timeout).is_some();
        Self {
            idle_timeout,
            header_timeout,
            send_timeout,
            requests_per_address,
            no_route_status: config.proxy.no_route_status,
            is_impatient,
            app,
            config,
        }
    }

    /// Whether `peer` may say who came before it, in `X-Forwarded-*`.
    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        let proxy = &self.config.proxy;
        proxy.forwarded == Forwarded::Trusted && headers::is_trusted(peer, &proxy.trusted)
    }
}
