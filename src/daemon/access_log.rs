//! The access log of the configuration in force.
//!
//! A log of another file, or in another format, is opened before anything of a reload is in force,
//! so that one that cannot be opened refuses it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::StartError;
use crate::access::{Log, Recorder};
use crate::config::{Access, AccessFile};
use crate::proxy::Counters;

/// How long the last lines may take.
const LAST_LINES: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct AccessLog {
    log: Option<Log>,
    dropped: Arc<AtomicU64>,
}

/// What a reload puts in force.
pub(super) enum Prepared {
    Same,
    /// Another log, or none.
    Other(Option<Log>),
}

impl AccessLog {
    /// Opens what the daemon starts with. `counters` count the lines that are lost.
    pub(super) fn open(access: &Access, counters: &Counters) -> Result<Self, StartError> {
        let dropped = Arc::clone(counters.access_dropped());
        let log = Log::start(access, Arc::clone(&dropped)).map_err(|source| {
            let path = match &access.file {
                AccessFile::Path(path) => Some(path.clone()),
                AccessFile::Off | AccessFile::Stdout => None,
            };
            StartError::AccessLog { path, source }
        })?;
        Ok(Self { log, dropped })
    }

    /// Who takes what it says of requests, by what `access` says.
    pub(super) fn recorder(&self, access: &Access) -> Option<Arc<Recorder>> {
        self.log.as_ref().map(|log| log.recorder(access))
    }

    /// Opens the log of another configuration, if that has another one. Fails with all that is to
    /// be said.
    pub(super) fn prepare(&self, access: &Access) -> Result<Prepared, String> {
        if self.log.as_ref().is_some_and(|log| log.is_of(access)) {
            return Ok(Prepared::Same);
        }
        let failed = |error: io::Error| match &access.file {
            AccessFile::Path(path) => format!("access.file: cannot open {}: {error}", path.display()),
            AccessFile::Off | AccessFile::Stdout => format!("access.file: cannot start the log: {error}"),
        };
        Log::start(access, Arc::clone(&self.dropped)).map(Prepared::Other).map_err(failed)
    }

    /// Puts in force what was prepared. The former log ends once its last line is written.
    pub(super) fn change(&mut self, prepared: Prepared) {
        if let Prepared::Other(log) = prepared {
            self.log = log;
        }
    }

    /// Has the file opened anew.
    pub(super) fn reopen(&self) {
        match &self.log {
            Some(log) => log.reopen(),
            None => tracing::info!("SIGUSR1: there is no access log"),
        }
    }

    /// Waits for the last lines, but not for ever. Nothing is recorded any more.
    pub(super) async fn finish(self) {
        if let Some(log) = self.log {
            let _ended = tokio::task::spawn_blocking(move || log.finish(LAST_LINES)).await;
        }
    }
}
