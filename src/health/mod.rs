//! Health: one probe, and the wait for the first good ones.
//!
//! A probe asks once ([`Ask`]), on a connection of its own that it closes. So it learns about the
//! process that listens now, and not about a connection that was kept. Whatever goes wrong with the
//! app is in the probe's report. A probe that portok itself could not make ([`Unable`]) counts
//! neither as a success nor as a failure.
//!
//! The caller decides what a row of reports means. If a future is dropped, its connection is closed
//! and nothing is left. The probes of all targets of a daemon share one [`Prober`], which is the
//! only state here: it bounds how many are [under way](UnderWay) at a time.

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::{AppConfig, Protocol};
use crate::wire::ProbeReport;

mod failure;
mod grpc;
mod http2;
mod probe;
mod prober;
mod ready;
#[cfg(test)]
mod tests;
mod under_way;

pub use prober::{Place, Prober};
pub use under_way::{Event, UnderWay};

/// The error of a probe where nobody listened.
pub const REFUSED: &str = "connection refused";

/// How much of a failed probe's body is kept, in bytes.
const BODY_LIMIT: usize = 512;

/// A probe could not be made because portok itself lacks something, such as a file descriptor.
#[derive(Debug, thiserror::Error)]
#[error("portok itself cannot probe it now: {0}")]
pub struct Unable(pub std::io::Error);

impl Unable {
    /// A report to be shown; nothing is to be judged by it.
    pub fn report(&self) -> ProbeReport {
        ProbeReport { error: Some(self.to_string()), ..ProbeReport::default() }
    }
}

/// What is asked, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The app's address.
    pub addr: SocketAddr,
    /// What is asked.
    pub ask: Ask,
    /// The `Host` header.
    pub host: String,
    /// How long a probe may take, from connecting to the end of the answer's head.
    pub timeout: Duration,
    /// How many fields an answer's head may have.
    pub most_fields: usize,
    /// Whether a connection says first whose it is: portok's own (`upstream.proxy_protocol`).
    pub tells_whose: bool,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A GET of this path, with its query. Any 2xx is healthy.
    Get(String),
    /// The same over HTTP/2.
    GetOverHttp2(String),
    /// Nothing: a connection that is accepted is healthy.
    Connect,
    /// `grpc.health.v1` about this service, over HTTP/2; empty: about the server. SERVING is
    /// healthy.
    Grpc(String),
}

impl Probe {
    /// That of an app at `addr`, by its configuration. `path`: that of the release, where it has
    /// one of its own.
    pub fn of(config: &AppConfig, addr: SocketAddr, path: Option<String>) -> Self {
        let health = &config.health;
        Self {
            addr,
            ask: Ask::of(config, path),
            host: health.host.clone(),
            timeout: health.timeout,
            most_fields: config.most_fields,
            tells_whose: config.upstream.proxy_protocol,
        }
    }
}

impl Ask {
    /// What an app is asked by its configuration. `path`: as in [`Probe::of`].
    pub fn of(config: &AppConfig, path: Option<String>) -> Self {
        let health = &config.health;
        let get = match config.upstream.protocol {
            Protocol::Http1 => Self::Get,
            Protocol::H2c => Self::GetOverHttp2,
        };
        match (path, &health.grpc) {
            (Some(path), _) => get(path),
            (None, _) if health.tcp => Self::Connect,
            (None, Some(service)) => Self::Grpc(service.clone()),
            (None, None) => get(health.path.clone()),
        }
    }

    /// What an app did not do that is not healthy.
    pub fn failed(&self) -> String {
        match self {
            Self::Get(path) | Self::GetOverHttp2(path) => format!("did not respond with 2xx at {path}"),
            Self::Connect => "did not accept a connection".to_owned(),
            Self::Grpc(service) => format!("did not respond with SERVING to {}", grpc::called(service)),
        }
    }

    /// What is waited for from an app on `port` of this host.
    pub fn awaited(&self, port: u16) -> String {
        match self {
            Self::Get(path) | Self::GetOverHttp2(path) => format!("2xx from http://127.0.0.1:{port}{path}"),
            Self::Connect => format!("a connection to 127.0.0.1:{port}"),
            Self::Grpc(service) => format!("SERVING from {} at 127.0.0.1:{port}", grpc::called(service)),
        }
    }
}
