//! Files that are read and written whole. No state.
//!
//! A file is written to a temporary one in the same folder, which is synced and renamed over the
//! former one; then the folder is synced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::folder::open_regular;

/// The largest record that is read, in bytes. The bounds of the history and of requests keep
/// records far smaller.
const MAX_RECORD: u64 = 64 << 20;

/// Writes a file whole: a crash or a full disk leaves the former one. Blocking.
///
/// # Errors
/// The operation that failed, and its path.
pub fn write_whole(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = with_suffix(file, ".tmp");
    let written = (|| {
        let mut new =
            open_regular(OpenOptions::new().create(true).truncate(true).write(true).mode(0o600), &temporary)?;
        new.write_all(bytes)?;
        new.sync_all()?;
        #[cfg(debug_assertions)]
        super::failpoint::reached();
        fs::rename(&temporary, file)?;
        #[cfg(debug_assertions)]
        super::failpoint::reached();
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    })();
    written.map_err(|error: io::Error| {
        // The rest of a failed attempt only takes room on a disk that may be full.
        let _may_not_exist = fs::remove_file(&temporary);
        io::Error::new(error.kind(), format!("cannot write the state file {}: {error}", file.display()))
    })
}

/// Reads a file of at most [`MAX_RECORD`] bytes.
///
/// # Errors
/// It is no regular file, is larger, or cannot be read.
pub fn read_whole(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(OpenOptions::new().read(true), file)?.take(MAX_RECORD + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_RECORD {
        return Err(io::Error::other(format!("it is larger than {MAX_RECORD} bytes")));
    }
    Ok(bytes)
}

pub(super) fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
