//! The configuration of an instance beside its apps, as it is meant: what `[admin]`, `[proxy]`,
//! `[limits]` and `[log]` say.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::{LogLevels, Secret};

/// `[admin]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// The token; without one, nobody has access over TCP.
    pub token: Option<Secret>,
    /// Where the unix socket is; `None` when a default could not be found.
    pub socket: Option<PathBuf>,
    /// Whether `socket` was configured. Then a failure to make it is an error, otherwise a warning.
    pub socket_configured: bool,
    /// Members of this group may use the socket.
    pub socket_group: Option<String>,
    /// Peers that may use the admin API over TCP. IPv4-mapped addresses are compared as IPv4.
    pub allow: Vec<IpNet>,
    /// Further names, in lower case, that requests over the unix socket and on loopback listeners
    /// may have as `Host`.
    pub hosts: Vec<String>,
    /// Accept admin requests that came through another proxy on this host.
    pub allow_forwarded: bool,
    /// Admin requests a minute and address, over TCP.
    pub rate_limit: u32,
    /// Serve the admin paths on the public port.
    pub public: bool,
    /// Their prefix, `/__`.
    pub prefix: String,
    /// Allow changes by other than loopback peers.
    pub remote_deploy: bool,
}

/// `[proxy]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Proxy {
    /// Data-plane threads, at least 1.
    pub threads: usize,
    /// What happens to `X-Forwarded-*`.
    pub forwarded: Forwarded,
    /// Peers whose `X-Forwarded-*` are kept.
    pub trusted: Vec<IpNet>,
    /// What a client may upgrade its connection to, in lower case.
    pub upgrades: Vec<String>,
    /// Whether connections of trusted peers begin with a header of the PROXY protocol.
    pub proxy_protocol: ProxyProtocol,
    /// Speak HTTP/2 with clients that want it.
    pub http2: bool,
    /// The most requests of one connection of HTTP/2 at a time, at least 1.
    pub max_streams: u32,
    /// How long a client connection may be idle between requests.
    pub idle_timeout: Duration,
    /// How long a client may take for a request's head.
    pub header_timeout: Duration,
    /// The longest head, in bytes.
    pub max_header_size: usize,
    /// The longest request body in bytes; `None`: no limit.
    pub max_body: Option<u64>,
    /// The status of the answer to a request that is for none of several apps: 404 or 400.
    pub no_route_status: u16,
    /// The path at which portok itself answers that it is there; `None`: at none.
    pub ping: Option<String>,
    /// The host for which portok itself answers that it is there, in lower case; `None`: for none.
    pub ping_host: Option<String>,
    /// Leave out the counting that only metrics need.
    pub fast_path: bool,
    /// By which fields an app is told who its client is.
    pub forwarded_header: ForwardedHeader,
    /// Tell it by `X-Real-IP`, too.
    pub real_ip: bool,
    /// Which requests get an id.
    pub request_id: RequestId,
    /// Tell those who have the admin token which app, release and replica has answered.
    pub debug: bool,
}

/// `proxy.forwarded`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// Append to what trusted peers sent, replace what others sent.
    Trusted,
    /// Always append (`X-Forwarded-Host` is set when absent).
    Append,
    /// Touch nothing.
    Off,
}

/// `proxy.proxy_protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// No connection begins with a header.
    Off,
    /// Each begins with one of version 1.
    V1,
    /// Each begins with one of version 2.
    V2,
    /// Each begins with one of either version.
    Any,
}

impl ProxyProtocol {
    /// Whether a header of version 1 is understood.
    pub fn is_text(self) -> bool {
        matches!(self, Self::V1 | Self::Any)
    }

    /// Whether a header of version 2 is understood.
    pub fn is_binary(self) -> bool {
        matches!(self, Self::V2 | Self::Any)
    }
}

/// `proxy.forwarded_header`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-*`.
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// All of them.
    Both,
}

/// `proxy.request_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestId {
    /// None.
    Off,
    /// The one that a trusted peer has given, else a new one.
    Keep,
    /// A new one.
    Make,
}

/// `[limits]`: what clients may use at most, over all apps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientLimits {
    /// Client connections at a time.
    pub connections: usize,
    /// Client connections of one address at a time; `None`: no limit.
    pub connections_per_address: Option<usize>,
    /// The most fields in the head of a request, and of an answer.
    pub headers: usize,
    /// Requests that a client connection serves before it is closed; `None`: no limit.
    pub requests_per_connection: Option<u32>,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// How much portok logs.
    pub level: LogLevels,
    /// Tell clients the cause of a proxy error in the body of the answer.
    pub verbose_errors: bool,
}
