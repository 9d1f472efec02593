//! Makes and removes files safely in folders where others may interfere. A file is complete and has
//! its mode before it gets its name. An existing file is replaced, and never written through. A
//! link is removed, and never followed.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::failure::{HostCode, HostFailure};
use crate::plain::describe_io;

/// The longest configuration, token or unit file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Who may read a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Its owner.
    Owner,
    /// Its owner and this group.
    Group(u32),
    /// Everybody: it holds no secret.
    Everybody,
}

impl Readers {
    /// Whether a file has exactly these readers.
    pub(crate) fn are_those_of(self, meta: &fs::Metadata) -> bool {
        let mode = meta.mode() & 0o777;
        match self {
            Self::Owner => mode == 0o600,
            Self::Group(group) => mode == 0o640 && meta.gid() == group,
            Self::Everybody => mode == 0o644,
        }
    }
}

/// What to do if the file exists already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Keep it, and fail.
    Keep,
    /// Replace it.
    Replace,
}

/// Writes a file, completely or not at all.
///
/// # Errors
/// The file exists and is to be kept, or the folder cannot be written.
pub(crate) fn write(
    path: &Path,
    text: &str,
    readers: Readers,
    existing: Existing,
) -> Result<(), HostFailure> {
    let result = random_hex(8).and_then(|random| {
        let temporary = beside(path, &random)?;
        let result = fill(&temporary, text, readers).and_then(|()| match existing {
            Existing::Replace => fs::rename(&temporary, path),
            // Unlike a rename, a hard link never replaces an existing name.
            Existing::Keep => fs::hard_link(&temporary, path),
        });
        // Does nothing after a rename.
        drop(fs::remove_file(&temporary));
        result.and_then(|()| sync_folder_of(path))
    });
    result.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            let message = format!("{} is there already", path.display());
            HostFailure::new(HostCode::Exists, message, "--force overwrites it")
        }
        _ => failed("write", path, &error),
    })
}

fn beside(path: &Path, random: &str) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or_else(|| io::Error::other("it has no file name"))?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{random}"));
    Ok(path.with_file_name(temporary))
}

fn fill(temporary: &Path, text: &str, readers: Readers) -> io::Result<()> {
    // `create_new` fails if anything has the name, a link included.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(text.as_bytes())?;
    set_readers(&file, readers)?;
    file.sync_all()
}

/// Sets the group before the mode, so that the previous group can never read the file.
fn set_readers(file: &File, readers: Readers) -> io::Result<()> {
    let mode = match readers {
        Readers::Owner => 0o600,
        Readers::Group(group) => {
            fchown(file, None, Some(group))?;
            0o640
        }
        Readers::Everybody => 0o644,
    };
    file.set_permissions(Permissions::from_mode(mode))
}

/// An exclusive lock between processes. Its file is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    _file: File,
}

/// Waits until nobody else holds the lock at `path`, and takes it.
///
/// # Errors
/// The lock's file cannot be made.
pub(crate) fn lock(path: &Path) -> Result<Lock, HostFailure> {
    let take = || -> io::Result<Lock> {
        loop {
            let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
            // Mode 0600: whoever can open the file can hold the lock.
            let file =
                OpenOptions::new().write(true).create(true).mode(0o600).custom_flags(flags).open(path)?;
            rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))?;
            // If its last holder has removed the file meanwhile, others lock a new one: try again.
            let inode = |meta: fs::Metadata| (meta.dev(), meta.ino());
            let there = fs::symlink_metadata(path).ok().map(inode);
            if there == Some(inode(file.metadata()?)) {
                return Ok(Lock { path: path.to_owned(), _file: file });
            }
        }
    };
    take().map_err(|error| failed("lock", path, &error))
}

impl Drop for Lock {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

/// Sets the readers of an existing file.
///
/// # Errors
/// It is not a regular file, or this user may not change it.
pub(crate) fn share(path: &Path, readers: Readers) -> Result<(), HostFailure> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let result = OpenOptions::new().read(true).custom_flags(flags).open(path).and_then(|file| {
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("expected a regular file"));
        }
        set_readers(&file, readers)
    });
    result.map_err(|error| failed("change the rights of", path, &error))
}

/// Makes a folder, and its parents, that everybody may read and only the owner may change.
///
/// # Errors
/// It cannot be made, or what exists there cannot be trusted.
pub(crate) fn make_folder(path: &Path) -> Result<(), HostFailure> {
    let result = match path.parent() {
        Some(parent) => fs::create_dir_all(parent),
        None => Ok(()),
    };
    let made = result.and_then(|()| DirBuilder::new().mode(0o755).create(path));
    match made {
        // The umask may have removed rights.
        Ok(()) => open_folder(path),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => check_folder(path),
        Err(error) => Err(failed("make", path, &error)),
    }
}

/// Lets everybody read a folder.
///
/// # Errors
/// The folder is not this user's.
pub(crate) fn open_folder(path: &Path) -> Result<(), HostFailure> {
    let result = fs::set_permissions(path, Permissions::from_mode(0o755)).and_then(|()| sync_folder_of(path));
    result.map_err(|error| failed("open", path, &error))
}

/// Refuses a folder in which another user could replace files.
///
/// # Errors
/// The folder cannot be trusted; the failure says why and what to do.
pub(crate) fn check_folder(path: &Path) -> Result<(), HostFailure> {
    match distrust(path) {
        Ok(None) => Ok(()),
        Ok(Some((why, hint))) => {
            Err(HostFailure::new(HostCode::Failed, format!("{} is not used: {why}", path.display()), hint))
        }
        Err(error) => Err(failed("look at", path, &error)),
    }
}

/// Why a folder cannot be trusted, and what to do; `None` if it can be trusted.
pub(crate) fn distrust(path: &Path) -> io::Result<Option<(String, String)>> {
    let own = nix::unistd::geteuid().as_raw();
    let trusted = |uid: u32| uid == 0 || uid == own;
    let (link, meta) = (fs::symlink_metadata(path)?, fs::metadata(path)?);
    let shown = path.display();
    Ok(if !meta.is_dir() {
        Some(("it is not a folder".into(), format!("move it away: mv {shown} {shown}.old")))
    } else if !trusted(link.uid()) || !trusted(meta.uid()) {
        let uid = if trusted(link.uid()) { meta.uid() } else { link.uid() };
        Some((format!("it belongs to uid {uid}"), format!("chown -h root: {shown}")))
    } else if meta.mode() & 0o022 != 0 {
        let why = format!("others may write it (mode {:04o})", meta.mode() & 0o7777);
        Some((why, format!("chmod go-w {shown}")))
    } else {
        None
    })
}

/// Removes a file, a link or a whole folder without following links. Returns whether there was one.
///
/// # Errors
/// It cannot be removed.
pub(crate) fn remove(path: &Path) -> Result<bool, HostFailure> {
    let result = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("remove", path, &error)),
    }
}

/// Removes a folder if it is empty. Returns whether it was removed.
pub(crate) fn remove_if_empty(path: &Path) -> bool {
    fs::remove_dir(path).is_ok()
}

/// The paths in `folder`, sorted; none if there is no such folder.
///
/// # Errors
/// It cannot be read.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>, HostFailure> {
    let found = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
    match found {
        Ok(mut paths) => {
            paths.sort();
            Ok(paths)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed("read", folder, &error)),
    }
}

/// The text of a file; `None` if there is no such file.
///
/// # Errors
/// It exists and cannot be read.
pub(crate) fn read(path: &Path) -> Result<Option<String>, HostFailure> {
    match read_limited(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path, &error)),
    }
}

/// The text of a file, refused beyond [`MAX_FILE`] bytes.
///
/// # Errors
/// It cannot be read, is not UTF-8, or is too long.
pub(crate) fn read_limited(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let n_bytes = File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if n_bytes as u64 > MAX_FILE {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("longer than {MAX_FILE} bytes")));
    }
    Ok(text)
}

/// The failure of an operation on a file.
pub(crate) fn failed(verb: &str, path: &Path, error: &io::Error) -> HostFailure {
    let message = format!("cannot {verb} {}: {}", path.display(), describe_io(error));
    let denied = matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem);
    HostFailure {
        code: HostCode::Failed,
        message,
        causes: Vec::new(),
        hint: denied.then(|| "use sudo".to_owned()).filter(|_| !nix::unistd::geteuid().is_root()),
    }
}

/// `n_bytes` random bytes from the kernel, as hexadecimal digits.
///
/// # Errors
/// The kernel gives none.
pub(crate) fn random_hex(n_bytes: usize) -> io::Result<String> {
    let mut bytes = vec![0; n_bytes];
    let mut filled = 0;
    while filled < n_bytes {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_secret_is_its_owners_alone_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.token");
        write(&path, "s", Readers::Owner, Existing::Keep).unwrap();
        assert_eq!(mode(&path), 0o600);
        let again = write(&path, "other", Readers::Owner, Existing::Keep).unwrap_err();
        assert_eq!(again.code, HostCode::Exists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "s");
        write(&path, "other", Readers::Group(nix::unistd::getegid().as_raw()), Existing::Replace).unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("other", 0o640));
        share(&path, Readers::Owner).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(entries(folder.path()).unwrap(), [path]);
    }

    #[test]
    fn links_are_replaced_or_removed_and_never_followed() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let link = folder.path().join("api.toml");
        symlink(&victim, &link).unwrap();
        assert_eq!(write(&link, "x", Readers::Owner, Existing::Keep).unwrap_err().code, HostCode::Exists);
        assert!(share(&link, Readers::Everybody).is_err());
        write(&link, "x", Readers::Owner, Existing::Replace).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_file());
        let tree = folder.path().join("tree");
        fs::create_dir(&tree).unwrap();
        symlink(folder.path(), tree.join("up")).unwrap();
        let link = folder.path().join("to-tree");
        symlink(&tree, &link).unwrap();
        assert!(remove(&link).unwrap() && tree.is_dir());
        assert!(remove(&tree).unwrap() && !remove(&tree).unwrap());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[test]
    fn a_folder_that_others_may_write_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        make_folder(&inner).unwrap();
        assert_eq!(mode(&inner), 0o755);
        make_folder(&inner).unwrap();
        fs::set_permissions(&inner, Permissions::from_mode(0o777)).unwrap();
        let failure = make_folder(&inner).unwrap_err();
        assert!(format!("{failure:?}").contains("others may write it (mode 0777)"), "{failure:?}");
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(format!("{:?}", make_folder(&file).unwrap_err()).contains("not a folder"));
    }

    #[test]
    fn random_bytes_differ() {
        let (one, other) = (random_hex(32).unwrap(), random_hex(32).unwrap());
        assert_eq!(one.len(), 64);
        assert_ne!(one, other);
    }
}
