//! The files that a configuration names and is made of: those of keys.
//!
//! A load notes each with what it saw of it, so that a watch knows which there are, and which have
//! changed since. The configuration in force need not be that of the last load: a file that was
//! missing is looked for, too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::seen_file::SeenFile;

/// The largest of them, in bytes.
pub(super) const FURTHER_MAX: u64 = 8 * 1024 * 1024;

/// Files by where they lie, each as it was before it was read.
pub(super) type Noted = BTreeMap<PathBuf, SeenFile>;

/// Which further files the last load has read, or could not.
#[derive(Debug, Clone, Default)]
pub struct FurtherFiles(watch::Sender<Noted>);

impl FurtherFiles {
    /// Tells those who follow what a load has read.
    pub(super) fn publish(&self, noted: Noted) {
        self.0.send_if_modified(|before| {
            let differs = *before != noted;
            *before = noted;
            differs
        });
    }

    /// Follows what later loads read.
    pub(super) fn follow(&self) -> watch::Receiver<Noted> {
        self.0.subscribe()
    }
}

/// Looks at `file`, which is to be read then.
pub(super) fn look(file: &Path) -> SeenFile {
    SeenFile::look(file, None, FURTHER_MAX)
}
