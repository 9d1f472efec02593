//! What was seen of one file, so that a change of it shows: its content and rights, and its stamp,
//! which spares reading it again.

use std::fs::{self, File, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A file that changed less than this ago may change again without a trace: its times are those of
/// the kernel's ticks (inode(7)).
const FINENESS: Duration = Duration::from_millis(100);

/// The same where a file system knows whole seconds, or every other one, alone.
const COARSE_FINENESS: Duration = Duration::from_secs(2);

/// What was seen of a file, as a hash.
#[derive(Debug, Clone)]
pub(super) struct SeenFile {
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

impl SeenFile {
    /// Looks at a file of which `load` reads `limit` bytes at most.
    pub(super) fn look(path: &Path, before: Option<&Self>, limit: u64) -> Self {
        let now = SystemTime::now();
        let stamp = fs::metadata(path).ok().and_then(|meta| Stamp::of(&meta, now));
        let same = before.filter(|before| stamp.is_some() && before.stamp == stamp);
        let hash = same.map_or_else(
            || {
                let mut hasher = DefaultHasher::new();
                Content::look(path, limit).hash(&mut hasher);
                hasher.finish()
            },
            |before| before.hash,
        );
        Self { stamp, hash }
    }
}

/// What was seen of a file: equal if `load` would see the same.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Content {
    #[default]
    Missing,
    /// There, but it cannot be read.
    Unreadable(io::ErrorKind),
    There {
        bytes: Vec<u8>,
        /// Mode and owner, by which `load` refuses some files.
        rights: (u32, u32),
    },
}

impl Content {
    pub(super) fn look(file: &Path, limit: u64) -> Self {
        let read = || -> io::Result<Self> {
            let meta = fs::metadata(file)?;
            if !meta.is_file() {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let mut bytes = Vec::new();
            // One byte more than `load` accepts: all files beyond that are equally too large.
            File::open(file)?.take(limit + 1).read_to_end(&mut bytes)?;
            Ok(Self::There { bytes, rights: (meta.mode(), meta.uid()) })
        };
        read().unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            kind => Self::Unreadable(kind),
        })
    }
}

/// Equal as long as a file has not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of a file that was looked at after this moment. `None` where a further change of
    /// it may not show. Whatever changes a file sets `changed` to the time of the clock; `modified`
    /// may be set to any.
    pub(super) fn of(meta: &Metadata, before: SystemTime) -> Option<Self> {
        let stamp = Self {
            inode: (meta.dev(), meta.ino()),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        };
        let fineness = if stamp.changed.1 == 0 { COARSE_FINENESS } else { FINENESS };
        let long_ago = before.checked_sub(fineness)?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let long_ago = (i64::try_from(long_ago.as_secs()).ok()?, i64::from(long_ago.subsec_nanos()));
        (stamp.changed < long_ago).then_some(stamp)
    }
}
