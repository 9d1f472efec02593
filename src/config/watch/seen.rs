//! What was seen of the watched files: content and rights, since these decide whether anything has
//! changed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::files::CONFIG_MAX;
use crate::config::folder::{FILES_MAX, app_of};
use crate::config::further::{FURTHER_MAX, Noted};
use crate::config::seen_file::{Content, SeenFile};

/// What was seen: equal if `load` would see the same.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    file: Content,
    apps: Folder,
    /// The files that these name.
    further: Noted,
}

impl Seen {
    /// What is there now. What has not changed since is not read again.
    pub(super) fn look_again(&self, file: &Path, apps: &Path) -> Self {
        let look = |(file, seen): (&PathBuf, &SeenFile)| {
            (file.clone(), SeenFile::look(file, Some(seen), FURTHER_MAX))
        };
        Self {
            file: Content::look(file, CONFIG_MAX),
            apps: Folder::look(apps, &self.apps),
            further: self.further.iter().map(look).collect(),
        }
    }

    /// A load has read these further files. What was seen of one since is known.
    pub(super) fn note(&mut self, further: &Noted) {
        self.further.retain(|file, _| further.contains_key(file));
        for (file, seen) in further {
            self.further.entry(file.clone()).or_insert_with(|| seen.clone());
        }
    }
}

/// What was seen of the folder of apps: equal if `load` would see the same.
#[derive(Debug, Default, PartialEq, Eq)]
enum Folder {
    #[default]
    Missing,
    /// There, but it cannot be read.
    Unreadable(io::ErrorKind),
    Files {
        /// Mode and owner.
        rights: (u32, u32),
        files: BTreeMap<String, SeenFile>,
    },
}

impl Folder {
    /// Looks again; what has not changed since `before` is not read again.
    fn look(folder: &Path, before: &Self) -> Self {
        let look = || -> io::Result<Self> {
            let meta = fs::metadata(folder)?;
            let mut files = BTreeMap::new();
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                let Some(app) = app_of(&path) else { continue };
                let seen = SeenFile::look(&path, before.file(&app), CONFIG_MAX);
                files.insert(app, seen);
                if files.len() > FILES_MAX {
                    return Err(io::ErrorKind::QuotaExceeded.into());
                }
            }
            Ok(Self::Files { rights: (meta.mode(), meta.uid()), files })
        };
        look().unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            kind => Self::Unreadable(kind),
        })
    }

    fn file(&self, app: &str) -> Option<&SeenFile> {
        match self {
            Self::Files { files, .. } => files.get(app),
            Self::Missing | Self::Unreadable(_) => None,
        }
    }
}
