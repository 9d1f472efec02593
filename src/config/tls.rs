//! `[tls]`: where connections are encrypted, with which certificates, and what becomes of requests
//! that are not. Pure.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// `[tls]`, which is there where `tls.listen` is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Where connections are encrypted: at least one address.
    pub listen: Vec<SocketAddr>,
    /// The folder of certificates and their keys.
    pub cert_dir: Option<PathBuf>,
    /// The name of the certificate for clients that name no host, or one that has none.
    pub default: Option<String>,
    /// The oldest version of the protocol that is spoken.
    pub min_version: TlsVersion,
    /// The status with which a request that is not encrypted is sent to where it would be; `None`:
    /// it is served.
    pub redirect: Option<u16>,
    /// The value of `Strict-Transport-Security` in answers that are encrypted.
    pub hsts: Option<String>,
}

impl Tls {
    /// With nothing set but where it listens.
    pub(super) fn at(listen: Vec<SocketAddr>) -> Self {
        Self {
            listen,
            cert_dir: None,
            default: None,
            min_version: TlsVersion::V12,
            redirect: Some(308),
            hsts: None,
        }
    }
}

/// `tls.min_version`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V12,
    /// TLS 1.3 (RFC 8446).
    V13,
}

/// `app.tls`: a certificate of the app's own, each field where it is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppTls {
    /// The certificate, followed by those that vouch for it.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

impl AppTls {
    /// The certificate and its key.
    pub fn pair(&self) -> Option<(&Path, &Path)> {
        self.cert.as_deref().zip(self.key.as_deref())
    }
}
