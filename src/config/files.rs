//! Reads configuration, token, key and environment files: bounded in size, and safe ones only.
//!
//! Such a file decides what runs. So a file that others may write is refused unread. The rights of
//! the opened file count, not those of its name.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// The largest configuration file, in bytes.
pub(super) const CONFIG_MAX: u64 = 1024 * 1024;

/// The largest token file, in bytes.
pub(super) const TOKEN_MAX: u64 = 8 * 1024;

/// The reader: the effective ids of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Who {
    /// Effective user.
    pub(super) uid: u32,
    /// Effective group.
    pub(super) gid: u32,
    /// Effective and supplementary groups.
    pub(super) groups: Vec<u32>,
}

impl Who {
    /// This process (proc_pid_status(5)). Without `/proc` it counts as root's, which is trusted
    /// least.
    pub(super) fn current() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let numbers = |label: &str| -> Vec<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix(label)).unwrap_or("");
            line.split_whitespace().filter_map(|number| number.parse().ok()).collect()
        };
        // The line has the real, effective, saved and file system ids.
        let effective = |label: &str| numbers(label).get(1).copied().unwrap_or(0);
        let mut groups = numbers("Groups:");
        let gid = effective("Gid:");
        groups.push(gid);
        Self { uid: effective("Uid:"), gid, groups }
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

/// Who may own a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner<'a> {
    /// Root or the reader.
    Trusted,
    /// Also the app's own user, and, for a file below the app's directory, the owner of that: for
    /// an environment file.
    App { user: Option<u32>, directory: Option<&'a Path> },
    /// Anybody: the reader only wants to find the daemon.
    Any,
}

impl Owner<'_> {
    /// Who may own a configuration file that a daemon reads, or a client that looks for it.
    pub(super) fn of_configuration(client: bool) -> Self {
        if client { Self::Any } else { Self::Trusted }
    }

    /// The further users that may own what was opened at `at`.
    fn further(self, at: &Path) -> [Option<u32>; 2] {
        let Self::App { user, directory } = self else { return [None; 2] };
        let directory = directory.filter(|directory| at.starts_with(directory));
        [user, directory.and_then(|directory| Some(fs::metadata(directory).ok()?.uid()))]
    }
}

/// A file's text, and whether it is readable for all.
#[derive(Debug)]
pub(super) struct Content {
    /// The whole file.
    pub(super) text: String,
    /// Whether everybody may read it.
    pub(super) world_readable: bool,
}

/// Reads the text in `path`, at most `limit` bytes.
///
/// # Errors
/// The reason, without the path. The kind is that of the operation that failed.
pub(super) fn read(path: &Path, limit: u64, who: &Who, owner: Owner<'_>) -> io::Result<Content> {
    let (bytes, meta) = read_bytes(path, limit, who, owner)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count() + 1;
        io::Error::new(io::ErrorKind::InvalidData, format!("it is not UTF-8 text, see line {line}"))
    })?;
    Ok(Content { text, world_readable: meta.mode() & 0o004 != 0 })
}

/// Reads `path`, at most `limit` bytes.
///
/// # Errors
/// As [`read`].
pub(super) fn read_bytes(
    path: &Path,
    limit: u64,
    who: &Who,
    owner: Owner<'_>,
) -> io::Result<(Vec<u8>, Metadata)> {
    // O_NONBLOCK, because opening a named pipe would wait for a writer.
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("expected a regular file"));
    }
    // The file's own place, whatever links led to it.
    let at = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).or_else(|_| path.canonicalize())?;
    let further = owner.further(&at);
    trust(path, &meta, who, owner == Owner::Any, further)?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it is larger than {}", bytesize::ByteSize(limit))));
    }
    Ok((bytes, meta))
}

/// The largest file of certificates, and of a key, in bytes.
const CERTIFICATE_MAX: u64 = 256 * 1024;

/// Reads a certificate's file, whoever owns it: without the key that fits it, it is nothing.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_certificate(path: &Path) -> io::Result<Vec<u8>> {
    read_bytes(path, CERTIFICATE_MAX, &Who::current(), Owner::Any).map(|(bytes, _)| bytes)
}

/// Reads a key's file. Also returns whether everybody may read it.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_key(path: &Path) -> io::Result<(Vec<u8>, bool)> {
    let (bytes, meta) = read_bytes(path, CERTIFICATE_MAX, &Who::current(), Owner::Trusted)?;
    Ok((bytes, meta.mode() & 0o004 != 0))
}

/// Checks that nobody can put a file into `folder`, or take one away, who could not write it.
///
/// # Errors
/// As [`read`].
pub(super) fn trust_folder(folder: &Path, who: &Who, owner: Owner<'_>) -> io::Result<()> {
    let meta = fs::metadata(folder)?;
    if !meta.is_dir() {
        return Err(io::Error::other("expected a folder"));
    }
    trust(folder, &meta, who, owner == Owner::Any, [None; 2])
}

fn trust(
    path: &Path,
    meta: &Metadata,
    who: &Who,
    is_anybodys: bool,
    further: [Option<u32>; 2],
) -> io::Result<()> {
    let rights = Rights { mode: meta.mode(), uid: meta.uid(), gid: meta.gid() };
    let Some(objection) = rights.objection(who, is_anybodys, further) else { return Ok(()) };
    let advice = match objection {
        Objection::Writable(_) => format!("run: chmod go-w {}", path.display()),
        Objection::Owner(_) => format!("run: chown {} {}", who.uid, path.display()),
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("{objection}, refused; {advice}")))
}

/// Who may write a file: its mode, user and group.
#[derive(Debug, Clone, Copy)]
struct Rights {
    mode: u32,
    uid: u32,
    gid: u32,
}

/// Why a file is not trusted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Objection {
    #[error("{0}")]
    Writable(String),
    #[error("{0}")]
    Owner(String),
}

impl Rights {
    /// The one rule for all files that decide what runs, or who decides it. The file has to belong
    /// to root, to the reader or to one of `further`. Only root's group or the reader's may write
    /// it.
    fn objection(self, who: &Who, is_anybodys: bool, further: [Option<u32>; 2]) -> Option<Objection> {
        let Self { mode, uid, gid } = self;
        let writers = match () {
            () if mode & 0o002 != 0 => Some("everybody may".to_owned()),
            () if mode & 0o020 != 0 && gid != 0 && gid != who.gid => {
                Some(format!("its group (gid {gid}) may"))
            }
            () => None,
        };
        if let Some(writers) = writers {
            return Some(Objection::Writable(format!("{writers} write it (mode {:04o})", mode & 0o7777)));
        }
        if is_anybodys || uid == 0 || uid == who.uid || further.contains(&Some(uid)) {
            return None;
        }
        Some(Objection::Owner(format!(
            "it belongs to uid {uid}, who is neither root nor uid {} that reads it",
            who.uid
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_write_what_says_what_runs() {
        let root = Who { uid: 0, gid: 0, groups: vec![0] };
        let daemon = Who { uid: 500, gid: 50, groups: vec![50, 60] };
        const NONE: [Option<u32>; 2] = [None, None];
        const APP: [Option<u32>; 2] = [Some(700), Some(800)];
        // mode, uid, gid, reader, further owners, believed
        let table = [
            (0o600, 0, 0, &root, NONE, true),
            (0o644, 0, 9, &root, NONE, true),
            (0o660, 0, 0, &root, NONE, true),
            (0o660, 0, 9, &root, NONE, false),
            (0o646, 0, 0, &root, NONE, false),
            (0o662, 0, 0, &root, NONE, false),
            (0o600, 700, 700, &root, NONE, false),
            (0o600, 700, 700, &root, APP, true),
            (0o600, 800, 800, &root, APP, true),
            (0o600, 900, 900, &root, APP, false),
            (0o660, 700, 700, &root, APP, false),
            (0o606, 700, 700, &root, APP, false),
            (0o600, 500, 50, &daemon, NONE, true),
            (0o660, 500, 50, &daemon, NONE, true),
            (0o660, 0, 50, &daemon, NONE, true),
            (0o660, 500, 0, &daemon, NONE, true),
            (0o660, 500, 60, &daemon, NONE, false),
            (0o600, 0, 0, &daemon, NONE, true),
            (0o600, 501, 50, &daemon, NONE, false),
        ];
        for (mode, uid, gid, who, further, believed) in table {
            let rights = Rights { mode, uid, gid };
            let objection = rights.objection(who, false, further);
            assert_eq!(objection.is_none(), believed, "{rights:?} {further:?} {objection:?}");
            // A client believes anybody's, but not what others may write.
            let anybodys = rights.objection(who, true, NONE);
            assert_eq!(anybodys.is_some(), matches!(objection, Some(Objection::Writable(_))), "{rights:?}");
        }
    }

    #[test]
    fn only_what_lies_below_the_apps_directory_may_be_its_owners() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().canonicalize().unwrap().join("app");
        fs::create_dir(&directory).unwrap();
        let owner = fs::metadata(&directory).unwrap().uid();
        let of = |directory| Owner::App { user: Some(700), directory };
        assert_eq!(of(Some(&directory)).further(&directory.join("x/.env")), [Some(700), Some(owner)]);
        assert_eq!(of(Some(&directory)).further(&folder.path().join("application/.env")), [Some(700), None]);
        assert_eq!(of(None).further(&directory.join(".env")), [Some(700), None]);
        assert_eq!(Owner::Trusted.further(&directory.join(".env")), [None, None]);
    }
}
