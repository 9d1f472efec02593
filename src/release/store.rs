//! The file of the durable record, crash-safe and locked.
//!
//! Owned by one [`Store`], which the coordinator's recorder alone calls.
//!
//! The record is written whole: to a temporary file in the same folder, which is synced and renamed
//! over the former one; then the folder is synced. A crash or a full disk leaves the former record.
//! A write that is cut off may leave the temporary file, never a torn record.
//!
//! A lock file beside the record keeps a second daemon away for as long as this one lives. The lock
//! belongs to the open file (flock(2)), so a successor that is given the descriptor holds it too,
//! without a gap.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::libc;
use rustix::fs::{FlockOperation, flock};
use tokio::time::{Instant, sleep};

use super::record::{Record, Schema};
use crate::config::Fnv;
use crate::folder;

/// The largest record that is read, in bytes. The bounds of the history and of requests keep
/// records far smaller.
const MAX_RECORD: u64 = 64 << 20;

/// How long a child of a killed daemon may take from fork to exec, which wait for the disk that the
/// program is on.
const BETWEEN_FORK_AND_EXEC: Duration = Duration::from_secs(1);

/// Between two looks whether the lock is free.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another daemon has it.
    #[error("the state file {} belongs to another running portokd (lock {})", file.display(), lock.display())]
    Taken {
        /// The state file.
        file: PathBuf,
        /// The lock file.
        lock: PathBuf,
    },
    /// The inherited lock is that of another state file.
    #[error(
        "the state file {} is not that of the running daemon, whose lock was passed on: the place of the state changes with a \
         restart only",
        file.display()
    )]
    Elsewhere {
        /// The state file.
        file: PathBuf,
    },
    /// Another user could choose where the record lies.
    #[error("{} is a link that uid {uid} has made where everybody may: the state is not kept behind it", link.display())]
    Planted {
        /// The link.
        link: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Something else than a file has the name. It is neither read nor set aside.
    #[error("{} is no regular file, which the state and its lock have to be", file.display())]
    NotAFile {
        /// The state file, or its lock.
        file: PathBuf,
    },
    /// A successor cannot go on from the record.
    #[error("the state file {} cannot be used: {source}", file.display())]
    Unreadable {
        /// The state file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The place of the record, locked.
#[derive(Debug)]
pub struct Store {
    file: PathBuf,
    // Held for the daemon's life. `None` where the folder cannot be written; nothing can be saved
    // then either.
    lock: Option<File>,
}

/// What a store found when it was opened.
#[derive(Debug)]
pub struct Found {
    /// The record; empty where there was none, or none that can be read.
    pub record: Record,
    /// The beginning of the tags of all processes that are started under this record. It is made of
    /// the lock file's identity, so that the processes are found again even when the record is
    /// lost. `None` where there is no lock file.
    pub mark: Option<String>,
    /// What is to be logged: a broken record that was set aside, a folder that cannot be written.
    pub warnings: Vec<String>,
}

impl Store {
    /// As [`Store::open`], and tries again for a moment where the lock is taken.
    ///
    /// The daemon before this one may just have been killed. A child that it was starting then
    /// holds the lock until it executes its program or ends. A lock that children do not inherit
    /// (fcntl(2)) is no way out: it cannot be given to a successor, and is released with the first
    /// descriptor of the file that is closed.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_when_free(file: &Path, inherited: Option<File>) -> Result<(Self, Found), StoreError> {
        let deadline = Instant::now() + BETWEEN_FORK_AND_EXEC;
        if let Some(lock) = inherited {
            return Self::open(file, Some(lock));
        }
        loop {
            match Self::open(file, None) {
                Err(StoreError::Taken { .. }) if Instant::now() < deadline => sleep(LOOK_AGAIN).await,
                outcome => return outcome,
            }
        }
    }

    /// Locks the place and reads the record. A record that cannot be understood is set aside as
    /// `<file>.corrupt-<time>`. `inherited` is the lock of a predecessor.
    ///
    /// # Errors
    /// Another daemon holds the lock; the inherited lock is that of another place; something else
    /// than a file has the name of the record or the lock; another user's link leads there.
    pub fn open(file: &Path, inherited: Option<File>) -> Result<(Self, Found), StoreError> {
        let mut warnings = Vec::new();
        // Instances of other users have their records there too, so the folder is not private. Each
        // record is.
        if let Some(folder) = file.parent()
            && let Err(error) = folder::make(folder, 0o755)
        {
            warnings.push(format!("cannot make the state folder {}: {error}", folder.display()));
        }
        if let Some((link, uid)) = folder::planted_link(file) {
            return Err(StoreError::Planted { link, uid });
        }
        let lock_file = with_suffix(file, ".lock");
        let lock = match inherited {
            Some(lock) if is_at(&lock, &lock_file) => Some(lock),
            Some(_) => return Err(StoreError::Elsewhere { file: file.to_owned() }),
            None => match open_lock(&lock_file) {
                Ok(Some(lock)) => Some(lock),
                Ok(None) => return Err(StoreError::Taken { file: file.to_owned(), lock: lock_file }),
                Err(error) if is_refused(&error) => return Err(StoreError::NotAFile { file: lock_file }),
                Err(error) => {
                    warnings.push(format!("cannot lock {}: {error}", lock_file.display()));
                    None
                }
            },
        };
        let record = match read(file) {
            Ok(record) => record,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Record::default(),
            Err(error) if is_refused(&error) => return Err(StoreError::NotAFile { file: file.to_owned() }),
            Err(error) => {
                let aside = set_aside(file);
                warnings.push(format!(
                    "the state file {} cannot be used ({error}); {aside}; starting from the configuration",
                    file.display()
                ));
                Record::default()
            }
        };
        let mark = lock.as_ref().and_then(|lock| mark(lock, &lock_file));
        Ok((Self { file: file.to_owned(), lock }, Found { record, mark, warnings }))
    }

    /// Checks that a successor with the inherited lock can go on from the record. Changes nothing.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn check(file: &Path, inherited: &File) -> Result<(), StoreError> {
        if !is_at(inherited, &with_suffix(file, ".lock")) {
            return Err(StoreError::Elsewhere { file: file.to_owned() });
        }
        match read(file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::Unreadable { file: file.to_owned(), source })
            }
            _ => Ok(()),
        }
    }

    /// Removes the record and its lock, and then `folder` and the one above it where they are
    /// empty. Does nothing where another daemon has the lock.
    pub fn discard(file: &Path, folder: &Path) {
        let lock_file = with_suffix(file, ".lock");
        let Ok(Some(_locked)) = open_lock(&lock_file) else { return };
        for path in [file, &lock_file] {
            let _may_never_have_been_there = fs::remove_file(path);
        }
        for folder in folder.ancestors().take(2) {
            let _others_use_it = fs::remove_dir(folder);
        }
    }

    /// A copy of the lock. The place stays locked until the last copy is closed. `None` where there
    /// is no lock.
    pub fn lock(&self) -> Option<File> {
        self.lock.as_ref().and_then(|lock| lock.try_clone().ok())
    }

    /// Writes the record. Blocking: a few milliseconds on a good disk.
    ///
    /// # Errors
    /// The operation that failed, and its path. The former record is whole.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(record)?;
        let temporary = with_suffix(&self.file, ".tmp");
        let written = (|| {
            let mut file = open_regular(
                OpenOptions::new().create(true).truncate(true).write(true).mode(0o600),
                &temporary,
            )?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            #[cfg(debug_assertions)]
            super::failpoint::reached();
            fs::rename(&temporary, &self.file)?;
            #[cfg(debug_assertions)]
            super::failpoint::reached();
            let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        })();
        written.map_err(|error: io::Error| {
            // The rest of a failed attempt only takes room on a disk that may be full.
            let _may_not_exist = fs::remove_file(&temporary);
            io::Error::new(
                error.kind(),
                format!("cannot write the state file {}: {error}", self.file.display()),
            )
        })
    }
}

/// Opens and locks the lock file; `None` where another daemon has the lock.
fn open_lock(path: &Path) -> io::Result<Option<File>> {
    let options = &mut OpenOptions::new();
    let opened = open_regular(options.create(true).truncate(false).write(true).mode(0o600), path);
    // A lock file on a read-only disk can still be locked, and tells the mark.
    let opened = opened.or_else(|error| {
        open_regular(OpenOptions::new().read(true), path)
            .map_err(|second| if is_refused(&second) { second } else { error })
    })?;
    match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
        // A daemon that ended meanwhile may have removed this file: another one is the lock then.
        Ok(()) => Ok(Some(opened).filter(|opened| is_at(opened, path))),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a regular file and nothing else. A named pipe would block, and a link may lead to another
/// user's choice.
fn open_regular(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let opened = options.custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => io::Error::new(io::ErrorKind::InvalidInput, "it is a link"),
        _ => error,
    })?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
    }
}

/// Whether the error says that [`open_regular`] found something else than a file.
fn is_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
}

/// Whether `path` is the path of the open file.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |meta: fs::Metadata| (meta.dev(), meta.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(file), Ok(path)) => identity(file) == identity(path),
        _ => false,
    }
}

/// The hash of device, inode and path. A daemon in a container may have the same path, on another
/// file system.
fn mark(lock: &File, path: &Path) -> Option<String> {
    let meta = lock.metadata().ok()?;
    let mut hash = Fnv::new();
    hash.record("device", &meta.dev().to_string());
    hash.record("inode", &meta.ino().to_string());
    hash.record("path", &fs::canonicalize(path).ok()?.to_string_lossy());
    Some(hash.hex())
}

fn read(file: &Path) -> io::Result<Record> {
    let mut bytes = Vec::new();
    open_regular(OpenOptions::new().read(true), file)?.take(MAX_RECORD + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_RECORD {
        return Err(io::Error::other(format!("it is larger than {MAX_RECORD} bytes")));
    }
    let record: Record = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
    let (found, known) = (record.schema, Schema::default());
    if found != known {
        return Err(io::Error::other(format!("its schema is {}, this portokd reads {}", found.0, known.0)));
    }
    Ok(record)
}

fn set_aside(file: &Path) -> String {
    let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string().replace(':', "");
    let aside = with_suffix(file, &format!(".corrupt-{time}"));
    match fs::rename(file, &aside) {
        Ok(()) => format!("it was set aside as {}", aside.display()),
        Err(error) => format!("setting it aside as {} failed: {error}", aside.display()),
    }
}

fn with_suffix(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::release::spec::unmanaged;

    fn record() -> Record {
        Record { live: Some(unmanaged(8081)), app_attempted: Some("f".into()), ..Record::default() }
    }

    /// Opens a store that was dropped just now. A child that another test is starting may hold the
    /// lock for a moment.
    fn again(file: &Path) -> (Store, Found) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(Store::open_when_free(file, None)).unwrap()
    }

    #[test]
    fn what_is_written_is_found_again_and_only_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/er/state.json");
        let (store, found) = Store::open(&file, None).unwrap();
        assert_eq!(found.record, Record::default());
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
        store.write(&record()).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        drop(store);
        assert_eq!(again(&file).1.record, record());
    }

    #[test]
    fn a_second_store_is_refused_while_the_first_lives() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        let first = Store::open(&file, None).unwrap();
        let error = Store::open(&file, None).unwrap_err().to_string();
        assert!(error.contains("another running portokd") && error.contains("state.json"), "{error}");
        drop(first);
        again(&file);
    }

    #[tokio::test]
    async fn a_child_that_has_the_lock_for_a_moment_longer_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        let (killed, _) = Store::open(&file, None).unwrap();
        // It holds the descriptor until it ends, as a child holds it until it executes its program.
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "exec sleep 0.1"])
            .stdin(killed.lock().unwrap())
            .spawn()
            .unwrap();
        drop(killed);
        drop(Store::open_when_free(&file, None).await.unwrap());
        assert!(child.wait().unwrap().success());
        let (_lives, _) = Store::open_when_free(&file, None).await.unwrap();
        let second = Store::open_when_free(&file, None).await.unwrap_err().to_string();
        assert!(second.contains("another running portokd"), "{second}");
    }

    #[test]
    fn a_lock_file_that_cannot_be_written_locks_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        // Nobody, not even root, may write to a program that runs, as on a read-only disk.
        let lock = with_suffix(&file, ".lock");
        fs::copy("/bin/sleep", &lock).unwrap();
        let mut runs = std::process::Command::new(&lock).arg("60").spawn().unwrap();
        let (first, found) = Store::open(&file, None).unwrap();
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
        assert!(found.mark.is_some());
        assert!(Store::open(&file, None).unwrap_err().to_string().contains("another running portokd"));
        drop(first);
        runs.kill().unwrap();
        runs.wait().unwrap();
    }

    #[test]
    fn a_successor_holds_the_lock_without_a_gap() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        let (first, _) = Store::open(&file, None).unwrap();
        first.write(&record()).unwrap();
        let passed_on = first.lock().unwrap();
        Store::check(&file, &passed_on).unwrap();
        assert!(Store::check(&folder.path().join("other.json"), &passed_on).is_err());
        let (second, found) = Store::open(&file, Some(passed_on)).unwrap();
        assert_eq!(found.record, record());
        drop(first);
        Store::open(&file, None).unwrap_err();
        fs::write(&file, "{ torn").unwrap();
        assert!(Store::check(&file, &second.lock().unwrap()).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "{ torn", "nothing is set aside");
        drop(second);
        again(&file);
    }

    #[test]
    fn a_broken_or_newer_record_is_set_aside_whole() {
        for broken in ["{ torn", "", r#"{"schema": 99}"#, "[]"] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("state.json");
            fs::write(&file, broken).unwrap();
            let (_store, found) = Store::open(&file, None).unwrap();
            assert_eq!(found.record, Record::default());
            assert_eq!(found.warnings.len(), 1);
            let aside = fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .find(|path| path.to_string_lossy().contains(".corrupt-"))
                .unwrap_or_else(|| panic!("nothing set aside for {broken:?}"));
            assert_eq!(fs::read_to_string(aside).unwrap(), broken);
        }
    }

    #[test]
    fn numbers_and_times_that_nobody_wrote_are_kept_or_set_aside_and_never_fatal() {
        let record = |watch_until: &str, port: &str, restarts: &str| {
            format!(
                r#"{{"schema": 1, "watchUntil": "{watch_until}", "restarts": {restarts}, "live":
                {{"id": "x", "origin": {{"unmanaged": {{"port": {port}}}}}}}}}"#
            )
        };
        let far = "9999-12-31T23:59:60.999999999Z";
        for (text, is_kept) in [
            (record(far, "1", "4294967295"), true),
            (record("1970-01-01T00:00:00Z", "0", "0"), true),
            (record("1969-12-31T23:59:59Z", "1", "0"), false),
            (record("10000-01-01T00:00:00Z", "1", "0"), false),
            (record("+99999999999999999999", "1", "0"), false),
            (record("2026-01-01T00:00:00.ä00Z", "1", "0"), false),
            (record(far, "65536", "0"), false),
            (record(far, "-1", "0"), false),
            (record(far, "1", "4294967296"), false),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("state.json");
            fs::write(&file, &text).unwrap();
            let (store, found) = Store::open(&file, None).unwrap();
            assert_eq!(found.warnings.is_empty(), is_kept, "{text}: {:?}", found.warnings);
            store.write(&found.record).unwrap();
            drop(store);
            let written = again(&file).1;
            assert!(written.warnings.is_empty(), "{text}: {:?}", written.warnings);
            assert_eq!(written.record.restarts, found.record.restarts);
        }
    }

    #[test]
    fn what_is_no_file_is_refused_and_left_where_it_is() {
        use nix::sys::stat::Mode;
        let make: [fn(&Path); 2] = [
            |path| nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap(),
            |path| fs::create_dir(path).unwrap(),
        ];
        for make in make {
            for name in ["state.json", "state.json.lock"] {
                let folder = tempfile::tempdir().unwrap();
                let file = folder.path().join("state.json");
                make(&folder.path().join(name));
                let error = Store::open(&file, None).unwrap_err().to_string();
                assert!(error.contains(name) && error.contains("no regular file"), "{error}");
                assert!(folder.path().join(name).exists());
            }
        }
        // A temporary file may be replaced.
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        let (store, _) = Store::open(&file, None).unwrap();
        make[0](&folder.path().join("state.json.tmp"));
        store.write(&record()).unwrap_err();
        store.write(&record()).unwrap();
        assert_eq!(read(&file).unwrap(), record());
    }

    #[test]
    fn a_failed_write_leaves_the_former_record() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        let (store, _) = Store::open(&file, None).unwrap();
        store.write(&record()).unwrap();
        // A folder in the temporary file's place: it can be neither opened nor replaced, root or
        // not.
        fs::create_dir(folder.path().join("state.json.tmp")).unwrap();
        let error = store.write(&Record::default()).unwrap_err().to_string();
        assert!(error.contains("state.json"), "{error}");
        assert_eq!(read(&file).unwrap(), record());
    }
}
