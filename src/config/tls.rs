//! `[tls]`: where connections are encrypted, with which certificates, and what becomes of requests
//! that are not. Pure.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::Secret;

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
    /// From whom certificates come by themselves, if they do.
    pub acme: Option<Acme>,
}

/// `[tls.acme]`, which is there where `tls.acme.email` is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// Whom the server may write to.
    pub email: String,
    /// The address of the server's directory (RFC 8555, 7.1.1).
    pub directory: String,
    /// The hosts that get a certificate, in lower case; empty: every exact host of every app.
    pub hosts: Vec<String>,
    /// How the server makes sure that a host is ours.
    pub challenge: Challenge,
    /// Who vouches for the server itself; `None`: whom the system trusts.
    pub ca_file: Option<PathBuf>,
    /// The account elsewhere that the one at the server belongs to.
    pub eab: Option<ExternalAccount>,
}

impl Acme {
    /// With nothing set but the address of a person.
    pub(super) fn of(email: String) -> Self {
        Self {
            email,
            directory: "https://acme-v02.api.letsencrypt.org/directory".to_owned(),
            hosts: Vec::new(),
            challenge: Challenge::TlsAlpn01,
            ca_file: None,
            eab: None,
        }
    }
}

/// `tls.acme.challenge`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// In a handshake (RFC 8737).
    TlsAlpn01,
    /// In a request that is not encrypted (RFC 8555, 8.3).
    Http01,
}

/// `tls.acme.eab` (RFC 8555, 7.3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// The key's name.
    pub id: String,
    /// The key, in base64url.
    pub key: Secret,
}

impl ExternalAccount {
    /// The key itself.
    pub fn key_bytes(&self) -> Vec<u8> {
        base64url(self.key.expose()).unwrap_or_default()
    }
}

/// The bytes that `text` means in base64url (RFC 4648, 5); `None`: it is not that, or nothing.
pub(super) fn base64url(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::new();
    for four in digits.chunks(4) {
        let mut bits = 0_u32;
        for digit in four {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'-' => 62,
                b'_' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        let whole = match four.len() {
            4 => 3,
            3 => 2,
            2 => 1,
            _ => return None,
        };
        bits <<= 6 * (4 - four.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..=whole]);
    }
    (!bytes.is_empty()).then_some(bytes)
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
            acme: None,
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

#[cfg(test)]
mod tests {
    use super::base64url;

    #[test]
    fn base64url_is_that_of_rfc_4648() {
        for (text, bytes) in [
            ("Zg", &b"f"[..]),
            ("Zg==", b"f"),
            ("Zm8", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYmFy", b"foobar"),
            ("-_8", &[0xfb, 0xff]),
        ] {
            assert_eq!(base64url(text).as_deref(), Some(bytes), "{text}");
        }
        for text in ["", "=", "A", "Zm9v!", "+/8", "Zm 9v"] {
            assert_eq!(base64url(text), None, "{text}");
        }
    }
}
