//! What is kept of ACME on disk, beside the records of apps: the account, what was ordered lately,
//! and a file for each host with its certificate and key. The folder is the daemon's alone, and so is
//! each file in it.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use instant_acme::AccountCredentials;
use serde::{Deserialize, Serialize};

/// The file of everything that is no certificate.
const FILE: &str = "acme.json";

/// What a record that cannot be read is called from then on.
const BROKEN: &str = "acme.json.broken";

/// Everything that is no certificate.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Record {
    /// The server that all of it is about.
    pub(super) directory: String,
    pub(super) account: Option<StoredAccount>,
    /// When something was ordered lately, in seconds since 1970.
    pub(super) orders: Vec<u64>,
    pub(super) hosts: BTreeMap<String, StoredHost>,
}

/// The account, and whose it is. Its key is in it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoredAccount {
    pub(super) directory: String,
    pub(super) email: String,
    pub(super) credentials: AccountCredentials,
}

/// What became of the orders of a host. Moments are seconds since 1970.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct StoredHost {
    /// How many have failed since one was fulfilled.
    pub(super) failures: u32,
    pub(super) failed: u64,
    pub(super) limited: bool,
    pub(super) error: Option<String>,
    /// When the server was asked about the renewal, and what it has said.
    pub(super) asked: Option<u64>,
    pub(super) suggested: Option<u64>,
}

/// A certificate with those that vouch for it, and its key, in PEM.
pub(super) struct Issued {
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Issued {
    /// Both in one file.
    pub(super) fn as_file(&self) -> String {
        format!("{}\n{}", self.key.trim_end(), self.certificate)
    }
}

/// Where all of it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Home(pub(super) PathBuf);

impl Home {
    /// Makes the folder where it is missing, and reads the record. One that cannot be read is put
    /// aside, and another one begun.
    pub(super) fn open(&self) -> io::Result<Record> {
        match fs::DirBuilder::new().mode(0o700).create(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => fs::set_permissions(&self.0, fs::Permissions::from_mode(0o700))?,
        }
        let text = match fs::read(self.0.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Record::default()),
            text => text?,
        };
        serde_json::from_slice(&text).or_else(|error| {
            let (from, to) = (self.0.join(FILE), self.0.join(BROKEN));
            fs::rename(&from, &to)?;
            // Its own words may have some of the text, which has a key.
            tracing::error!(
                "{}: the record of ACME is broken at line {}; it is {} now, and another account is made",
                from.display(),
                error.line(),
                to.display()
            );
            Ok(Record::default())
        })
    }

    pub(super) fn save(&self, record: &Record) -> io::Result<()> {
        put(&self.0.join(FILE), &serde_json::to_vec_pretty(record)?)
    }

    /// Keeps a certificate and its key, in one file: the former pair goes with the new one's coming.
    pub(super) fn keep(&self, host: &str, issued: &Issued) -> io::Result<()> {
        put(&file_of(&self.0, host), issued.as_file().as_bytes())
    }

    /// The file of a host, if it has one.
    pub(super) fn pair(&self, host: &str) -> Option<Vec<u8>> {
        fs::read(file_of(&self.0, host)).ok()
    }
}

/// Where a host has its certificate and its key.
pub(in crate::tls) fn file_of(folder: &Path, host: &str) -> PathBuf {
    folder.join(format!("{host}.pem"))
}

/// Writes a file that nobody else may read, whole or not at all.
fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let _left_behind = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}
