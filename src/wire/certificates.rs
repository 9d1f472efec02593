//! The certificates that clients are shown.

use serde::{Deserialize, Serialize};

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRow {
    /// What it is called: by its file without the ending, or by its app.
    pub name: String,
    /// The app whose own it is.
    pub app: Option<String>,
    /// Where it comes from.
    pub source: CertificateSource,
    /// Its file.
    pub file: String,
    /// The file of its key.
    pub key: Option<String>,
    /// The hosts that it is for. Of one that cannot be read: none.
    pub names: Vec<String>,
    /// Who vouches for it.
    pub issuer: Option<String>,
    /// From when on it holds, RFC 3339.
    pub not_before: Option<String>,
    /// Until when, RFC 3339.
    pub not_after: Option<String>,
    /// Whole days that are left; below zero once it has expired.
    pub days: Option<i64>,
    /// Whether it is shown to clients.
    pub state: CertificateState,
    /// Whether it is shown to clients for whose host there is none.
    pub default: bool,
    /// What is wrong with it, or with what its files hold now.
    pub error: Option<String>,
    /// What is odd about its files.
    pub warning: Option<String>,
    /// When one that comes by itself is renewed, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_at: Option<String>,
}

/// Where a certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateSource {
    /// An operator's files.
    File,
    /// It comes by itself (`tls.acme`).
    Acme,
}

/// Whether a certificate is shown to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CertificateState {
    /// It is.
    Serving,
    /// It is, but its files hold something bad now: the former one is shown until it expires.
    Kept,
    /// It is, and clients will not accept it before its time.
    NotYetValid,
    /// It is to come by itself, and has not come yet.
    Ordered,
    /// It has expired, and is left out.
    Expired,
    /// Its files hold no certificate with a key that fits, and it is left out.
    Bad,
}

impl CertificateState {
    /// Whether clients are shown it.
    pub fn serves(self) -> bool {
        matches!(self, Self::Serving | Self::Kept | Self::NotYetValid)
    }

    /// The state's name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Kept => "kept",
            Self::NotYetValid => "not_yet_valid",
            Self::Ordered => "ordered",
            Self::Expired => "expired",
            Self::Bad => "bad",
        }
    }
}
