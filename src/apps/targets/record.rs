//! What of an app with targets survives a restart: the ports that an operator switched to, and the
//! last switch.
//!
//! Owned by the app's driver, which alone writes it. Without a file nothing is kept.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

use crate::release::store;
use crate::wire::Switch;

/// The record's version. A record of another version is set aside.
const SCHEMA: u32 = 1;

/// How long a write may take. The driver waits for it, and answers nobody meanwhile.
const WRITE_WITHIN: Duration = Duration::from_secs(2);

/// The file of the record.
#[derive(Debug)]
pub(super) struct File {
    path: Option<PathBuf>,
    /// A write that has not ended in time. No other begins before it ends, which would let the
    /// older of two records win.
    late: Option<JoinHandle<io::Result<()>>>,
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    schema: u32,
    /// What an operator switched to; null while the configuration's own list is in force.
    #[serde(default)]
    targets: Option<Vec<SocketAddr>>,
    /// The configuration's own list at that time.
    #[serde(default)]
    configured: Vec<SocketAddr>,
    /// The last move of traffic.
    #[serde(default)]
    pub(super) last_switch: Option<Switch>,
}

impl Record {
    /// Nothing was switched yet, and the configuration says `configured`.
    pub(super) fn new(configured: &[SocketAddr]) -> Self {
        Self { schema: SCHEMA, targets: None, configured: configured.to_vec(), last_switch: None }
    }

    /// The list in force.
    pub(super) fn in_force(&self) -> &[SocketAddr] {
        self.targets.as_deref().unwrap_or(&self.configured)
    }

    /// The configuration says `configured`. Returns whether that is another list than before, which
    /// is in force then.
    pub(super) fn configure(&mut self, configured: &[SocketAddr]) -> bool {
        if is_same(&self.configured, configured) {
            return false;
        }
        self.configured = configured.to_vec();
        self.targets = None;
        true
    }

    /// With `targets` in force until the configuration's own list changes.
    pub(super) fn switched(&self, targets: Vec<SocketAddr>, switch: Switch) -> Self {
        Self { targets: Some(targets), last_switch: Some(switch), ..self.clone() }
    }
}

/// Whether two lists name the same addresses.
pub(super) fn is_same(one: &[SocketAddr], other: &[SocketAddr]) -> bool {
    one.len() == other.len() && one.iter().all(|addr| other.contains(addr))
}

impl File {
    /// The file at `path`; `None`: nothing is kept.
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, late: None }
    }

    /// The record as it was left, for an app whose configuration says `configured`. Blocking.
    pub(super) fn read(&self, configured: &[SocketAddr]) -> Record {
        let new = Record::new(configured);
        let Some(file) = &self.path else { return new };
        let read = store::read_whole(file).and_then(|bytes| {
            let record: Record = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
            if record.schema == SCHEMA { Ok(record) } else { Err(io::Error::other("its schema is another")) }
        });
        match read {
            Ok(mut record) => {
                record.configure(configured);
                record
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => new,
            Err(error) => {
                let aside = store::set_aside(file);
                tracing::warn!("the state file {} cannot be used ({error}); {aside}", file.display());
                new
            }
        }
    }

    /// Writes `record`.
    ///
    /// # Errors
    /// The file system's own; or the write, or one before it, does not end in time.
    pub(super) async fn write(&mut self, record: &Record) -> io::Result<()> {
        let Some(path) = self.path.clone() else { return Ok(()) };
        if self.late.as_ref().is_some_and(|write| !write.is_finished()) {
            return Err(late(&path));
        }
        let bytes = serde_json::to_vec_pretty(record)?;
        let to = path.clone();
        let mut write = spawn_blocking(move || store::write_whole(&to, &bytes));
        match timeout(WRITE_WITHIN, &mut write).await {
            Ok(written) => written.unwrap_or_else(|error| Err(io::Error::other(error))),
            Err(_) => {
                self.late = Some(write);
                Err(late(&path))
            }
        }
    }
}

fn late(path: &Path) -> io::Error {
    let text = format!("{} could not be written within {WRITE_WITHIN:?}", path.display());
    io::Error::new(io::ErrorKind::TimedOut, text)
}
