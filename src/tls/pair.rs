//! A certificate and its key, from the bytes of their files. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::Error as TlsError;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::names::Name;

/// The most certificates in a file: a chain has two to four.
const CHAIN_MOST: usize = 16;

/// A certificate and the key that fits it.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) facts: Facts,
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// In its order; none, if it has no `subjectAltName`.
    pub(super) names: Vec<Name>,
    /// Who vouches for it.
    pub(super) issuer: String,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
}

/// Why two files make no pair. Says nothing of what is in the key's file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("there is no certificate in it: expected PEM that begins with -----BEGIN CERTIFICATE-----")]
    NoCertificate,
    #[error("it has more than {CHAIN_MOST} certificates")]
    TooMany,
    #[error("it is broken: {0}")]
    BrokenPem(String),
    #[error("it is not a certificate that can be read: {0}")]
    BrokenCertificate(String),
    #[error("it holds no private key: expected PEM that begins with -----BEGIN PRIVATE KEY-----")]
    NoKey,
    #[error(
        "the private key is locked with a password, which nobody is there to type; \
         run: openssl pkey -in FILE -out NEW"
    )]
    Locked,
    #[error("the private key cannot be used: {0}")]
    BadKey(String),
    #[error("the private key belongs to another certificate")]
    Mismatch,
    #[error(
        "the private key belongs to the certificate at place {0} of the file; that one has to come first"
    )]
    Order(usize),
}

impl Fault {
    /// Whether it is the key's file that is to be looked at.
    pub(super) fn is_of_the_key(&self) -> bool {
        matches!(self, Self::NoKey | Self::Locked | Self::BadKey(_) | Self::Mismatch)
    }
}

impl Pair {
    /// The pair in the content of two files.
    pub(super) fn read(certificate: &[u8], key: &[u8], provider: &CryptoProvider) -> Result<Self, Fault> {
        let chain = chain(certificate)?;
        let facts = Facts::of(&chain[0])?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            pem::Error::NoItemsFound if is_locked(key) => Fault::Locked,
            pem::Error::NoItemsFound => Fault::NoKey,
            // Its own words may have some of the text.
            _ => Fault::BadKey("its PEM is broken".to_owned()),
        })?;
        let key = provider.key_provider.load_private_key(key).map_err(|error| {
            let why = match error {
                TlsError::General(why) => why,
                other => other.to_string(),
            };
            Fault::BadKey(why)
        })?;
        let fits = |chain: &[CertificateDer<'static>]| {
            let pair = CertifiedKey::new(chain.to_vec(), Arc::clone(&key));
            !matches!(
                pair.keys_match(),
                Err(TlsError::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch))
            )
        };
        if !fits(&chain) {
            let place = (1..chain.len()).find(|place| fits(&chain[*place..]));
            return Err(place.map_or(Fault::Mismatch, |place| Fault::Order(place + 1)));
        }
        Ok(Self { certified: Arc::new(CertifiedKey::new(chain, key)), facts })
    }
}

/// The certificates of a file: at least one.
fn chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(text) {
        if chain.len() == CHAIN_MOST {
            return Err(Fault::TooMany);
        }
        chain.push(certificate.map_err(|error| Fault::BrokenPem(error.to_string()))?);
    }
    if chain.is_empty() { Err(Fault::NoCertificate) } else { Ok(chain) }
}

/// Whether a key's file is one that a password opens, in the newer form or the older one.
fn is_locked(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

impl Facts {
    /// What a certificate says.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Self, Fault> {
        let broken = |error: &dyn std::fmt::Display| Fault::BrokenCertificate(error.to_string());
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| broken(&error))?;
        let alternative = parsed.subject_alternative_name().map_err(|error| broken(&error))?;
        let names = alternative.map_or(&[][..], |alternative| &alternative.value.general_names);
        let validity = parsed.validity();
        Ok(Self {
            names: names.iter().filter_map(name).collect(),
            issuer: parsed.issuer().to_string(),
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
        })
    }
}

/// A host of the certificate; an address as a request names it. `None`: it is no host.
fn name(name: &GeneralName<'_>) -> Option<Name> {
    match name {
        GeneralName::DNSName(name) => Some(Name::of(name)),
        GeneralName::IPAddress(bytes) => {
            let v4 = || <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(Ipv4Addr::from(bytes)));
            let v6 = || <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(Ipv6Addr::from(bytes)));
            Some(Name::Exact(match v4().or_else(v6)? {
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            }))
        }
        _ => None,
    }
}

/// A time in seconds since 1970, as near to it as can be shown: 1970 to 9999.
fn time(seconds: i64) -> SystemTime {
    const LAST: i64 = 253_402_300_799;
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.clamp(0, LAST).unsigned_abs())
}
