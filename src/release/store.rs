//! The file of an app's durable record, crash-safe.
//!
//! Owned by one [`Store`], which the coordinator's recorder alone calls. It comes from the
//! [`Records`](super::records::Records) of the instance, which has the lock.
//!
//! The record is written whole: to a temporary file in the same folder, which is synced and renamed
//! over the former one; then the folder is synced. A crash or a full disk leaves the former record.
//! A write that is cut off may leave the temporary file, never a torn record.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tokio_util::sync::{CancellationToken, DropGuard};

use super::parts::{self, Turn};
use super::record::{Record, Schema};
use crate::folder;

pub(super) use super::whole::with_suffix;
pub use super::whole::{read_whole, write_whole};

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another daemon has it.
    #[error(
        "the state file {} belongs to another running portokd ({}lock {})",
        file.display(),
        holder.map(|pid| format!("pid {pid}, ")).unwrap_or_default(),
        lock.display()
    )]
    Taken {
        /// The state file.
        file: PathBuf,
        /// The lock file.
        lock: PathBuf,
        /// The daemon's process id, where it can be seen.
        holder: Option<u32>,
    },
    /// The state file lies where another daemon keeps the records of its apps.
    #[error(
        "the state file {} lies in {}, where another running portokd, that of {}, keeps the records of \
         its apps",
        file.display(), folder.display(), other.display()
    )]
    InOthersFolder {
        /// The state file.
        file: PathBuf,
        /// Its folder.
        folder: PathBuf,
        /// The other daemon's state file.
        other: PathBuf,
    },
    /// The folder of the records is another daemon's, or has its state file.
    #[error(
        "the state file {} has the records of its apps in {}, which is in use by another running portokd, that of {}",
        file.display(), folder.display(), other.display()
    )]
    OthersFolder {
        /// The state file.
        file: PathBuf,
        /// The folder of its records.
        folder: PathBuf,
        /// The other daemon's state file.
        other: PathBuf,
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

/// The file of one record.
#[derive(Debug)]
pub struct Store {
    file: PathBuf,
    /// Where it is the record of an app of several, and may have another part.
    turn: Option<Arc<Turn>>,
    // Held as long as something may be written. `None` where the folder cannot be written; nothing
    // can be saved then either.
    _lock: Option<Arc<File>>,
    gone: CancellationToken,
    _gone: DropGuard,
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
    /// Reads the record at `file`. One that cannot be understood is set aside as
    /// `<file>.corrupt-<time>`. `lock` is that of the instance, `mark` the app's; `turn` is that of
    /// the record of an app of several.
    ///
    /// # Errors
    /// Something else than a file has the name of the record; another user's link leads there.
    pub(super) fn open(
        file: PathBuf,
        lock: Option<Arc<File>>,
        mark: Option<String>,
        turn: Option<Arc<Turn>>,
    ) -> Result<(Self, Found), StoreError> {
        if let Some((link, uid)) = folder::planted_link(&file) {
            return Err(StoreError::Planted { link, uid });
        }
        let mut warnings = Vec::new();
        let record = match read(&file) {
            Ok(record) => record,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Record::default(),
            Err(error) if is_refused(&error) => return Err(StoreError::NotAFile { file }),
            Err(error) => {
                let aside = set_aside(&file);
                warnings.push(format!(
                    "the state file {} cannot be used ({error}); {aside}; starting from the configuration",
                    file.display()
                ));
                Record::default()
            }
        };
        let gone = CancellationToken::new();
        let store = Self { file, turn, _lock: lock, _gone: gone.clone().drop_guard(), gone };
        Ok((store, Found { record, mark, warnings }))
    }

    /// Cancelled once nothing is written here any more.
    pub fn gone(&self) -> CancellationToken {
        self.gone.clone()
    }

    /// Writes the record. Blocking: a few milliseconds on a good disk.
    ///
    /// # Errors
    /// The operation that failed, and its path. The former record is whole.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        match &self.turn {
            Some(turn) => parts::write_releases(&self.file, turn, record),
            None => write_whole(&self.file, &serde_json::to_vec_pretty(record)?),
        }
    }
}

/// Whether the error says that [`folder::open_regular`] found something else than a file.
pub(super) fn is_refused(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
}

pub(super) fn read(file: &Path) -> io::Result<Record> {
    let record: Record = serde_json::from_slice(&read_whole(file)?).map_err(io::Error::other)?;
    let (found, known) = (record.schema, Schema::default());
    if found != known {
        return Err(io::Error::other(format!("its schema is {}, this portokd reads {}", found.0, known.0)));
    }
    Ok(record)
}

/// Now, as it may stand in the name of a file. Later ones come later in the order of bytes.
pub(super) fn time_in_a_name() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string().replace(':', "")
}

/// Gives a file that cannot be understood another name. Returns what became of it.
pub fn set_aside(file: &Path) -> String {
    let aside = with_suffix(file, &format!(".corrupt-{}", time_in_a_name()));
    match fs::rename(file, &aside) {
        Ok(()) => format!("it was set aside as {}", aside.display()),
        Err(error) => format!("setting it aside as {} failed: {error}", aside.display()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::records::Records;
    use super::*;
    use crate::release::spec::unmanaged;

    fn record() -> Record {
        Record { live: Some(unmanaged(8081)), app_attempted: Some("f".into()), ..Record::default() }
    }

    fn open(file: &Path, inherited: Option<File>) -> Result<(Store, Found), StoreError> {
        let (records, warnings) = Records::take(file, inherited)?;
        let (store, mut found) = records.open(None)?;
        found.warnings.extend(warnings);
        Ok((store, found))
    }

    /// Opens a store that was dropped just now. A child that another test is starting may hold the
    /// lock for a moment.
    fn again(file: &Path) -> (Store, Found) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (records, warnings) = runtime.block_on(Records::take_when_free(file, None, false)).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        records.open(None).unwrap()
    }

    #[test]
    fn what_is_written_is_found_again_and_only_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/er/state.json");
        let (store, found) = open(&file, None).unwrap();
        assert_eq!(found.record, Record::default());
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
        store.write(&record()).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        drop(store);
        assert_eq!(again(&file).1.record, record());
    }

    #[test]
    fn a_broken_or_newer_record_is_set_aside_whole() {
        for broken in ["{ torn", "", r#"{"schema": 99}"#, "[]"] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("state.json");
            fs::write(&file, broken).unwrap();
            let (_store, found) = open(&file, None).unwrap();
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
            let (store, found) = open(&file, None).unwrap();
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
                let error = open(&file, None).unwrap_err().to_string();
                assert!(error.contains(name) && error.contains("no regular file"), "{error}");
                assert!(folder.path().join(name).exists());
            }
        }
        // A temporary file may be replaced.
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        let (store, _) = open(&file, None).unwrap();
        make[0](&folder.path().join("state.json.tmp"));
        store.write(&record()).unwrap_err();
        store.write(&record()).unwrap();
        assert_eq!(read(&file).unwrap(), record());
    }

    #[test]
    fn a_failed_write_leaves_the_former_record() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        let (store, _) = open(&file, None).unwrap();
        store.write(&record()).unwrap();
        // A folder in the temporary file's place: it can be neither opened nor replaced, root or
        // not.
        fs::create_dir(folder.path().join("state.json.tmp")).unwrap();
        let error = store.write(&Record::default()).unwrap_err().to_string();
        assert!(error.contains("state.json"), "{error}");
        assert_eq!(read(&file).unwrap(), record());
    }
}
