//! How TLS is spoken with clients: versions, sessions that can be taken up again, and what each is
//! shown.
//!
//! The keys of session tickets belong to the process and change by themselves, whatever becomes of
//! the certificates. So a client takes its session up again after a reload.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{
    ClientHello, ProducesTickets, ResolvesServerCert, ServerSessionMemoryCache, StoresServerSessions,
};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};

use super::names::{Name, cover};
use super::pair::Pair;
use crate::config::TlsVersion;

/// The most sessions that are remembered, of clients of TLS 1.2 that take no tickets.
const SESSIONS: usize = 4096;

/// What is spoken inside (RFC 7301; RFC 9113, 3.2).
const HTTP_1_1: &[u8] = b"http/1.1";
pub const HTTP_2: &[u8] = b"h2";

/// What all connections share.
pub(super) struct Speaker {
    provider: Arc<CryptoProvider>,
    tickets: Arc<dyn ProducesTickets>,
    sessions: Arc<dyn StoresServerSessions>,
}

/// A certificate as it is shown to clients.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) terms: Arc<ServerConfig>,
    names: Vec<Name>,
}

impl Shown {
    /// Whether the certificate is for this host, which may have a port.
    pub(super) fn covers(&self, host: &[u8]) -> bool {
        cover(&self.names, host)
    }
}

impl Speaker {
    /// # Errors
    /// The system has no randomness.
    pub(super) fn new() -> Result<Self, rustls::Error> {
        let tickets = ring::Ticketer::new()?;
        let sessions = ServerSessionMemoryCache::new(SESSIONS);
        Ok(Self { provider: Arc::new(ring::default_provider()), tickets, sessions })
    }

    pub(super) fn provider(&self) -> &Arc<CryptoProvider> {
        &self.provider
    }

    /// A certificate as it is shown to clients that speak `oldest` or a newer version, and `http2`
    /// inside where that is so.
    ///
    /// # Errors
    /// rustls cannot speak so; no configuration asks for that.
    pub(super) fn show(&self, pair: &Pair, oldest: TlsVersion, http2: bool) -> Result<Shown, rustls::Error> {
        let versions: &[_] = match oldest {
            TlsVersion::V12 => &[&version::TLS13, &version::TLS12],
            TlsVersion::V13 => &[&version::TLS13],
        };
        let mut terms = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Only(Arc::clone(&pair.certified))));
        let spoken: &[_] = if http2 { &[HTTP_2, HTTP_1_1] } else { &[HTTP_1_1] };
        terms.alpn_protocols = spoken.iter().map(|name| name.to_vec()).collect();
        terms.ticketer = Arc::clone(&self.tickets);
        terms.session_storage = Arc::clone(&self.sessions);
        Ok(Shown { terms: Arc::new(terms), names: pair.facts.names.clone() })
    }
}

impl fmt::Debug for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Speaker")
    }
}

/// The one certificate of these terms: which it is has been decided before.
#[derive(Debug)]
pub(super) struct Only(pub(super) Arc<CertifiedKey>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}
