//! The lock that makes a place of records one daemon's, and its second name in a folder of records.
//!
//! The lock belongs to the open file (flock(2)), so a successor that is given the descriptor holds
//! it too, without a gap.
//!
//! Two state files can lead to one folder of records, as `edge` and `edge.json` do, and a state
//! file can lie in the folder of another one's records. Each of the two daemons would take the
//! other's records for its own, and stop what runs. So the lock file is linked into the folder:
//! whoever holds it under one name holds it under both.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::store::{StoreError, is_refused, with_suffix};
use crate::folder::open_regular;

/// What the name of a lock file ends with.
const LOCK: &str = ".lock";

/// The lock's name in a folder of records. No app has it.
const IN_FOLDER: &str = ".portokd.lock";

/// The lock file of a state file.
pub(super) fn of(state_file: &Path) -> PathBuf {
    with_suffix(state_file, LOCK)
}

/// Opens and locks the lock file; `None` where another daemon has the lock.
pub(super) fn open(path: &Path) -> io::Result<Option<File>> {
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

/// Whether `path` is the path of the open file.
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    file.metadata().is_ok_and(|file| is_same(&file, path))
}

/// Checks that the state file lies in no folder where another daemon keeps its records.
///
/// # Errors
/// It does.
pub(super) fn check_outside(file: &Path) -> Result<(), StoreError> {
    let Some(folder) = file.parent() else { return Ok(()) };
    if !is_held(&folder.join(IN_FOLDER)) {
        return Ok(());
    }
    let (file, folder, other) = (file.to_owned(), folder.to_owned(), holder(folder));
    Err(StoreError::InOthersFolder { file, folder, other })
}

/// Gives the `lock` of the state file its name in the folder of the records; in one that is not
/// portok's (not `ours`) only looks whether another daemon's has it. Returns what is to be logged.
///
/// # Errors
/// The folder is that of another daemon's records, or another daemon's state file lies in it.
pub(super) fn claim(
    lock: &File,
    file: &Path,
    folder: &Path,
    ours: bool,
) -> Result<Option<String>, StoreError> {
    let others = |other| StoreError::OthersFolder { file: file.to_owned(), folder: folder.to_owned(), other };
    let name = folder.join(IN_FOLDER);
    let claimed = if ours { link(lock, &of(file), &name) } else { Ok(is_at(lock, &name) || !is_held(&name)) };
    match claimed {
        Ok(true) => {}
        Ok(false) => return Err(others(holder(folder))),
        Err(error) => {
            return Ok(Some(format!("cannot lock the folder of records {}: {error}", folder.display())));
        }
    }
    state_file_held_in(folder).map_or(Ok(None), |other| Err(others(other)))
}

/// Links the lock file to `name`, in the place of one that nobody holds. False where another daemon
/// holds that.
fn link(lock: &File, lock_file: &Path, name: &Path) -> io::Result<bool> {
    loop {
        match fs::hard_link(lock_file, name) {
            Ok(()) => return Ok(true),
            Err(_) if is_at(lock, name) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        // Held while it is removed, so that two daemons do not remove one another's.
        let Some(_left_behind) = open(name)? else { return Ok(false) };
        fs::remove_file(name)?;
    }
}

/// The state file of another daemon in this folder.
fn state_file_held_in(folder: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(folder).ok()?.flatten();
    let state_file = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let state_file = name.strip_suffix(LOCK).filter(|_| name != IN_FOLDER)?;
        is_held(&entry.path()).then(|| folder.join(state_file))
    };
    entries.find_map(state_file)
}

/// Whether a daemon holds the lock with this name.
fn is_held(name: &Path) -> bool {
    let Ok(opened) = open_regular(OpenOptions::new().read(true), name) else { return false };
    flock(&opened, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}

/// The state file of the daemon whose records are in this folder; the lock there where that cannot
/// be told.
fn holder(folder: &Path) -> PathBuf {
    let lock = folder.join(IN_FOLDER);
    let whole = folder.with_extension("");
    let candidates = [whole.clone(), with_suffix(&whole, ".json")];
    let is_holder = |file: &PathBuf| fs::metadata(of(file)).is_ok_and(|meta| is_same(&meta, &lock));
    candidates.into_iter().find(is_holder).unwrap_or(lock)
}

fn is_same(meta: &fs::Metadata, path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|other| (meta.dev(), meta.ino()) == (other.dev(), other.ino()))
}

#[cfg(test)]
mod tests {
    use super::super::records::Records;
    use super::*;

    fn take(file: &Path, several: bool) -> Result<Records, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (records, warnings) = runtime.block_on(Records::take_when_free(file, None, several))?;
        assert!(warnings.is_empty(), "{warnings:?}");
        Ok(records)
    }

    #[track_caller]
    fn refused(file: &Path, several: bool, parts: [&Path; 3]) {
        let error = take(file, several).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(&*part.to_string_lossy())), "{error}");
        assert!(error.contains("another running portokd"), "{error}");
    }

    #[test]
    fn two_state_files_that_lead_to_one_folder_of_records_have_one_daemon() {
        let home = tempfile::tempdir().unwrap();
        let [file, other, folder] = ["edge.json", "edge", "edge.d"].map(|name| home.path().join(name));
        for (first, second) in [(&file, &other), (&other, &file)] {
            let holds = take(first, true).unwrap();
            refused(second, true, [second, &folder, first]);
            // An instance of one app would stop what is recorded there.
            refused(second, false, [second, &folder, first]);
            drop(holds);
        }
        drop(take(&other, true).unwrap());
        let holds = take(&file, true).unwrap();
        // A successor has the lock already.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(Records::take_when_free(&file, holds.lock(), true)).unwrap();
    }

    #[test]
    fn a_state_file_in_the_folder_of_anothers_records_is_refused_whichever_comes_first() {
        let home = tempfile::tempdir().unwrap();
        let [file, folder, inside] =
            ["edge.json", "edge.d", "edge.d/b.json"].map(|name| home.path().join(name));
        let holds = take(&file, true).unwrap();
        for several in [false, true] {
            refused(&inside, several, [&inside, &folder, &file]);
        }
        drop(holds);
        let holds = take(&inside, false).unwrap();
        for several in [false, true] {
            refused(&file, several, [&file, &folder, &inside]);
        }
        drop(holds);
        drop(take(&file, true).unwrap());
    }

    #[test]
    fn one_app_without_a_folder_of_records_leaves_nothing_but_its_lock() {
        let home = tempfile::tempdir().unwrap();
        let _holds = take(&home.path().join("edge.json"), false).unwrap();
        let names: Vec<_> =
            fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["edge.json.lock"]);
    }
}
