//! What was seen of the watched files: content and rights, since these decide whether anything has
//! changed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::config::files::CONFIG_MAX;
use crate::config::folder::{FILES_MAX, Stamp, app_of};
use crate::config::further::{FURTHER_MAX, Noted};

/// What was seen: equal if `load` would see the same.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    file: MainFile,
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
            file: MainFile::look(file, CONFIG_MAX),
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

/// What was seen of a file: equal if `load` would see the same.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
enum MainFile {
    #[default]
    Missing,
    /// There, but it cannot be read.
    Unreadable(io::ErrorKind),
    Content {
        bytes: Vec<u8>,
        /// Mode and owner, by which `load` refuses some files.
        rights: (u32, u32),
    },
}

impl MainFile {
    fn look(file: &Path, limit: u64) -> Self {
        let read = || -> io::Result<Self> {
            let meta = fs::metadata(file)?;
            if !meta.is_file() {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let mut bytes = Vec::new();
            // One byte more than `load` accepts: all files beyond that are equally too large.
            File::open(file)?.take(limit + 1).read_to_end(&mut bytes)?;
            Ok(Self::Content { bytes, rights: (meta.mode(), meta.uid()) })
        };
        read().unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            kind => Self::Unreadable(kind),
        })
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

/// What was seen of a file, as a hash.
#[derive(Debug, Clone)]
pub(in crate::config) struct SeenFile {
    /// As long as this is the same, so is the content.
    stamp: Option<Stamp>,
    /// A hash of its content and rights.
    hash: u64,
}

impl PartialEq for SeenFile {
    /// Whether the content is the same: a file may have been touched.
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Eq for SeenFile {}

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

impl SeenFile {
    /// Looks at a file of which `load` reads `limit` bytes at most.
    pub(in crate::config) fn look(path: &Path, before: Option<&Self>, limit: u64) -> Self {
        let now = SystemTime::now();
        let stamp = fs::metadata(path).ok().and_then(|meta| Stamp::of(&meta, now));
        let same = before.filter(|before| stamp.is_some() && before.stamp == stamp);
        let hash = same.map_or_else(
            || {
                let mut hasher = DefaultHasher::new();
                MainFile::look(path, limit).hash(&mut hasher);
                hasher.finish()
            },
            |before| before.hash,
        );
        Self { stamp, hash }
    }
}
