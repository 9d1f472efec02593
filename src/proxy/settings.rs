//! The configuration as requests read it.
//!
//! Values that would cost each request a conversion are worked out once, when a configuration comes
//! into force. Pure data: nothing here changes.

use std::net::IpAddr;
use std::sync::Arc;

use super::address::Scheme;
use super::clock;
use super::edge::Edge;
use super::extras::Wanted;
use super::headers;
use super::socket;
use super::sticky::{Rule, Wish};
use super::tiers;
use super::upstream::pool::LocalTarget;
use crate::access::Recorder;
use crate::config::{AppConfig, Config, Forwarded, Mode, Protocol, ProxyProtocol};
use crate::http1::host::compared;
use crate::tls::{Choice, Face};

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
    /// The number of requests of one address up to which a further one is admitted without a closer
    /// look: none where the app has tiers.
    pub(super) admitted_at_once: usize,
    /// The status for requests that no app has a route for.
    pub(super) no_route_status: u16,
    /// Whether any wait for the app has a limit once it is connected.
    pub(super) is_impatient: bool,
    /// Of the instance: whether a connection is looked at before it is served
    /// ([`arrival`](super::arrival)).
    pub(super) looks_closer: bool,
    /// Whether the app speaks HTTP/2. Its requests never go the short way: see [`Wanted`].
    pub(super) is_h2c: bool,
    /// What `[tls]` asks of requests, if there is that.
    pub(super) edge: Option<Edge>,
    /// How clients stay with one of several targets, if they do.
    pub(super) sticky: Option<Rule>,
    /// How many requests each client may make in a time, if that is limited.
    pub(super) tiers: Option<tiers::Rule>,
    /// What else its requests want; most want nothing.
    pub(super) wanted: Option<Box<Wanted>>,
    /// Whether an answer of the app may have fields of portok's own: see [`super::ticket`],
    /// and [`Edge`].
    pub(super) adds_fields: bool,
    own: Own,
}

/// Which requests portok itself may answer. Worked out once, so that every request pays for the
/// paths that there are and for no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    Nothing,
    /// Those under the admin prefix.
    Admin,
    /// Those that ask whether it is there, and maybe those under the admin prefix.
    Ping,
    /// Those that TLS has to do with, and maybe the others.
    Tls,
}

/// Whether any connection of an instance has to be looked at before it is served. `app`: its one
/// app, or what stands in the place of several.
fn looks_closer(config: &Config, app: &Arc<AppConfig>) -> bool {
    if !Arc::ptr_eq(app, &config.app) {
        return false;
    }
    let of_several = config.apps.iter().flat_map(|several| several.apps.values());
    let of_redis = config.redis.iter().map(|redis| &redis.app);
    let looks = |app: &Arc<AppConfig>| app.mode == Mode::Tcp || app.upstream.proxy_protocol;
    config.proxy.proxy_protocol != ProxyProtocol::Off
        || [app].into_iter().chain(of_several).chain(of_redis).any(looks)
}

impl Settings {
    /// `recorder` takes the lines of the access log, if there is one; `face` is what clients are shown
    /// over TLS.
    pub(super) fn new(
        config: Arc<Config>,
        app: Arc<AppConfig>,
        recorder: Option<Arc<Recorder>>,
        face: &Arc<Face>,
    ) -> Self {
        let idle_timeout = clock::millis(config.proxy.idle_timeout);
        let header_timeout = clock::millis(config.proxy.header_timeout);
        let (limits, upstream) = (&app.limits, &app.upstream);
        let send_timeout = socket::send_timeout_of(limits.send_timeout);
        let requests_per_address = limits.requests_per_address.unwrap_or(usize::MAX);
        let is_impatient = upstream.response_timeout.or(upstream.read_timeout).or(upstream.timeout).is_some();
        let (sticky, tiers) = (Rule::of(&app), tiers::Rule::of(&app));
        let wanted = Wanted::of(&config, &app, recorder).map(Box::new);
        let edge = Edge::of(&config, face);
        let tells_browsers = edge.as_ref().is_some_and(|edge| edge.hsts.is_some());
        Self {
            idle_timeout,
            header_timeout,
            send_timeout,
            requests_per_address,
            admitted_at_once: if tiers.is_some() { 0 } else { requests_per_address },
            no_route_status: config.proxy.no_route_status,
            is_impatient,
            looks_closer: looks_closer(&config, &app),
            is_h2c: upstream.protocol == Protocol::H2c,
            own: match &config.proxy {
                _ if edge.is_some() => Own::Tls,
                proxy if proxy.ping.is_some() || proxy.ping_host.is_some() => Own::Ping,
                _ if config.admin.public => Own::Admin,
                _ => Own::Nothing,
            },
            adds_fields: sticky.is_some()
                || tells_browsers
                || wanted.as_ref().is_some_and(|wanted| wanted.adds_fields()),
            sticky,
            tiers,
            wanted,
            edge,
            app,
            config,
        }
    }

    /// Whether portok itself may have to answer a request for this host and path. `shown`: what the
    /// client was shown, if it speaks TLS.
    pub(super) fn may_be_own<'c>(
        &self,
        host: &[u8],
        path: &[u8],
        shown: impl FnOnce() -> Option<&'c Choice>,
    ) -> bool {
        match self.own {
            Own::Nothing => false,
            Own::Admin => path.starts_with(self.config.admin.prefix.as_bytes()),
            Own::Ping => self.is_under_prefix(path) || self.is_ping(|| Some(host), path),
            Own::Tls => self.may_be_own_with_tls(host, path, shown()),
        }
    }

    #[inline(never)]
    fn may_be_own_with_tls(&self, host: &[u8], path: &[u8], shown: Option<&Choice>) -> bool {
        self.is_under_prefix(path)
            || self.is_ping(|| Some(host), path)
            || self.edge.as_ref().is_some_and(|edge| edge.may_answer(host, shown))
    }

    /// Whether the path is one of the admin API, which is served here.
    pub(super) fn is_under_prefix(&self, path: &[u8]) -> bool {
        self.config.admin.public && path.starts_with(self.config.admin.prefix.as_bytes())
    }

    /// Whether a request for this path and host asks whether portok is there (`proxy.ping`,
    /// `proxy.ping_host`). The method is the caller's to judge.
    pub(super) fn is_ping<'h>(&self, host: impl FnOnce() -> Option<&'h [u8]>, path: &[u8]) -> bool {
        if matches!(self.own, Own::Nothing | Own::Admin) {
            return false;
        }
        let (own_path, own_host) = (&self.config.proxy.ping, &self.config.proxy.ping_host);
        let path = path.split(|&byte| byte == b'?').next().unwrap_or_default();
        own_path.as_ref().is_some_and(|own| own.as_bytes() == path)
            || own_host
                .as_ref()
                .is_some_and(|own| host().is_some_and(|host| own.as_bytes() == &*compared(host)))
    }

    /// The value of the `Set-Cookie` for a client that speaks `scheme`, had a `wish` and was
    /// answered by `local`.
    pub(super) fn told(&self, wish: Option<Wish>, local: &LocalTarget, scheme: Scheme) -> Option<String> {
        self.sticky.as_ref()?.told(wish?, local.place(), scheme)
    }

    /// Whether `peer` may say who came before it, in `X-Forwarded-*`.
    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        let proxy = &self.config.proxy;
        proxy.forwarded == Forwarded::Trusted && headers::is_trusted(peer, &proxy.trusted)
    }
}
