//! Reads configuration and token files: bounded, and only those that nobody else may write.
//!
//! Who may write such a file decides what runs, so a file that others may write is refused before it is
//! believed. The rights are those of the opened file, not of its name.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The largest configuration file, in bytes.
pub(super) const CONFIG_MAX: u64 = 1024 * 1024;

/// The largest token file, in bytes.
pub(super) const TOKEN_MAX: u64 = 8 * 1024;

/// Who reads: the effective ids of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Who {
    /// Effective user.
    pub(super) uid: u32,
    /// Effective group and the supplementary ones.
    pub(super) groups: Vec<u32>,
}

impl Who {
    /// This process (proc_pid_status(5)); without `/proc`, as if by root, who is given no fallback.
    pub(super) fn current() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let numbers = |label: &str| -> Vec<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix(label)).unwrap_or("");
            line.split_whitespace().filter_map(|number| number.parse().ok()).collect()
        };
        // Real, effective, saved, file system.
        let effective = |label: &str| numbers(label).get(1).copied().unwrap_or(0);
        let mut groups = numbers("Groups:");
        groups.push(effective("Gid:"));
        Self { uid: effective("Uid:"), groups }
    }

    /// Whether the mode bits let this user make files in `folder`, or make `folder` itself.
    pub(super) fn can_write(&self, folder: &Path) -> bool {
        let Some(found) = folder.ancestors().find_map(|path| fs::metadata(path).ok()) else { return false };
        let bits = match () {
            () if self.uid == 0 => 0o3,
            () if found.uid() == self.uid => found.mode() >> 6,
            () if self.groups.contains(&found.gid()) => found.mode() >> 3,
            () => found.mode(),
        };
        found.is_dir() && bits & 0o3 == 0o3
    }
}

/// Whether a file's owner matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// It has to be root or the reader.
    Trusted,
    /// Anybody's: the reader only wants to find the daemon.
    Any,
}

/// A file's text, and what is to be said about its rights.
#[derive(Debug)]
pub(super) struct Content {
    /// The whole file.
    pub(super) text: String,
    /// Whether everybody may read it.
    pub(super) world_readable: bool,
}

/// Reads `path`, at most `limit` bytes.
///
/// # Errors
/// Why not, without the path in front; the kind is that of the operation that failed.
pub(super) fn read(path: &Path, limit: u64, who: &Who, owner: Owner) -> io::Result<Content> {
    // Before it is opened: opening a FIFO would wait for somebody to write.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("expected a regular file"));
    }
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if meta.mode() & 0o022 != 0 {
        let who = if meta.mode() & 0o002 != 0 { "everybody" } else { "its group" };
        return Err(refused(format!(
            "{who} may write it (mode {:04o}), refused; run: chmod go-w {}",
            meta.mode() & 0o7777,
            path.display()
        )));
    }
    if owner == Owner::Trusted && meta.uid() != 0 && meta.uid() != who.uid {
        return Err(refused(format!(
            "it belongs to uid {}, who is neither root nor uid {} that reads it, refused; run: chown {} {}",
            meta.uid(),
            who.uid,
            who.uid,
            path.display()
        )));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it is larger than {}", bytesize::ByteSize(limit))));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
        io::Error::new(io::ErrorKind::InvalidData, format!("it is not UTF-8 text, see line {line}"))
    })?;
    Ok(Content { text, world_readable: meta.mode() & 0o004 != 0 })
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}
