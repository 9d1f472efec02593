//! The place of an instance's records, and the lock that makes it one daemon's.
//!
//! The one app of an instance has its record in the state file. Each of several apps has one of its
//! own in the folder `<state_file without .json>.d`. The record of an app that was removed is set
//! aside there as `<record>.removed-<time>`, and taken up when the app is added again.
//!
//! A lock file beside the state file, and in the folder, keeps a second daemon away for as long as
//! this one lives (`lock.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::holder::holder_of;
use super::lock::{self, is_at};
use super::store::{self, Found, Store, StoreError, is_refused, with_suffix};
use crate::config::{Fnv, beside_state_file, is_instance_name};
use crate::folder;

/// How long a child of a killed daemon may take from fork to exec, which wait for the disk that the
/// program is on.
const BETWEEN_FORK_AND_EXEC: Duration = Duration::from_secs(1);

/// Between two looks whether the lock is free.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What the name of the folder of records ends with.
const FOLDER: &str = ".d";

/// What the name of a record ends with.
const RECORD: &str = ".json";

/// What the name of a file ends with that says which targets of an app are in force.
const TARGETS: &str = ".targets.json";

/// What the name of an app is followed by where [`Removed`] has that file of it.
const OF_TARGETS: &str = ".targets";

/// What follows in the name of one that was set aside.
const REMOVED: &str = ".removed-";

/// How many records of an app are kept that was removed.
const REMOVED_KEPT: usize = 3;

/// The newest records that were set aside, by the apps' names, as they lay there at one moment.
#[derive(Debug, Default)]
pub struct Removed(BTreeMap<String, PathBuf>);

impl Removed {
    /// What was set aside of an app's targets.
    pub fn targets(&self, app: &str) -> Former {
        Former::Known(self.0.get(&format!("{app}{OF_TARGETS}")).cloned())
    }
}

/// What was set aside last of one app.
#[derive(Debug, Clone)]
pub enum Former {
    /// This, or nothing.
    Known(Option<PathBuf>),
    /// It may be set aside only now.
    Unknown,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Records {
    /// The state file: the record of the one app.
    file: PathBuf,
    /// `None` where the folder cannot be written; nothing can be saved then either.
    lock: Option<Arc<File>>,
}

impl Records {
    /// As [`Records::take`], with the folder of the records of several apps, and tries again for a
    /// moment where a lock is taken. Where one app (not `several`) has no such folder, none is made.
    ///
    /// The daemon before this one may just have been killed. A child that it was starting then
    /// holds the lock until it executes its program or ends. A lock that children do not inherit
    /// (fcntl(2)) is no way out: it cannot be given to a successor, and is released with the first
    /// descriptor of the file that is closed.
    ///
    /// # Errors
    /// As [`Records::take`]; the folder is another daemon's, or the state file of one lies in it.
    pub async fn take_when_free(
        file: &Path,
        inherited: Option<File>,
        several: bool,
    ) -> Result<(Self, Vec<String>), StoreError> {
        let deadline = Instant::now() + BETWEEN_FORK_AND_EXEC;
        let take = |inherited| {
            let (records, mut warnings) = Self::take(file, inherited)?;
            warnings.extend(records.claim_folder(several)?);
            Ok((records, warnings))
        };
        if let Some(lock) = inherited {
            return take(Some(lock));
        }
        loop {
            match take(None) {
                Err(
                    StoreError::Taken { .. }
                    | StoreError::InOthersFolder { .. }
                    | StoreError::OthersFolder { .. },
                ) if Instant::now() < deadline => sleep(LOOK_AGAIN).await,
                Err(StoreError::Taken { file, lock, .. }) => {
                    let holder = holder_of(&lock);
                    return Err(StoreError::Taken { file, lock, holder });
                }
                outcome => return outcome,
            }
        }
    }

    /// Locks the place of the state file. `inherited` is the lock of a predecessor. Returns what is
    /// to be logged too.
    ///
    /// # Errors
    /// Another daemon holds the lock, or has its records in this folder; the inherited lock is that
    /// of another place; something else than a file has the name of the lock; another user's link
    /// leads there.
    pub fn take(file: &Path, inherited: Option<File>) -> Result<(Self, Vec<String>), StoreError> {
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
        lock::check_outside(file)?;
        let lock_file = lock::of(file);
        let lock = match inherited {
            Some(lock) if is_at(&lock, &lock_file) => Some(lock),
            Some(_) => return Err(StoreError::Elsewhere { file: file.to_owned() }),
            None => match lock::open(&lock_file) {
                Ok(Some(lock)) => Some(lock),
                Ok(None) => {
                    return Err(StoreError::Taken { file: file.to_owned(), lock: lock_file, holder: None });
                }
                Err(error) if is_refused(&error) => return Err(StoreError::NotAFile { file: lock_file }),
                Err(error) => {
                    warnings.push(format!("cannot lock {}: {error}", lock_file.display()));
                    None
                }
            },
        };
        Ok((Self { file: file.to_owned(), lock: lock.map(Arc::new) }, warnings))
    }

    /// Locks the folder of the records of several apps, and makes it where there are `several`.
    /// Returns what is to be logged.
    fn claim_folder(&self, several: bool) -> Result<Option<String>, StoreError> {
        let (Some(lock), folder) = (&self.lock, self.folder()) else { return Ok(None) };
        // Where it cannot be made, each record says so.
        let _told_later = several.then(|| folder::make(&folder, 0o755));
        let is_there = folder.is_dir() && folder::planted_link(&folder).is_none();
        if !is_there {
            return Ok(None);
        }
        // What others have there is left as it is.
        let is_record = |app: &String| store::read(&self.record_of(Some(app))).is_ok();
        let is_ours = several || self.apps().iter().any(is_record);
        lock::claim(lock, &self.file, &folder, is_ours)
    }

    /// Opens the record of the one app, or that of `app` of several.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open(&self, app: Option<&str>) -> Result<(Store, Found), StoreError> {
        let file = self.record_of(app);
        let folder = app.map(|_| folder::make(&self.folder(), 0o755).err()).unwrap_or_default();
        let (store, mut found) = Store::open(file, self.lock.clone(), self.mark(app))?;
        found.warnings.extend(
            folder.map(|error| format!("cannot make the folder {}: {error}", self.folder().display())),
        );
        Ok((store, found))
    }

    /// Opens the record of an app of several that is added. Where there is none, the newest one
    /// that was set aside, as `removed` has it, is taken up: its history and what is in quarantine.
    /// Nothing of it runs.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_added(&self, app: &str, removed: &Removed) -> Result<(Store, Found), StoreError> {
        let is_new = !self.record_of(Some(app)).exists();
        let (store, mut found) = self.open(Some(app))?;
        if is_new && let Some(former) = removed.0.get(app) {
            match store::read(former) {
                Ok(record) => {
                    found.record = record.of_an_app_that_was_removed();
                    match store.write(&found.record) {
                        Ok(()) => drop(fs::remove_file(former)),
                        Err(error) => found.warnings.push(error.to_string()),
                    }
                }
                Err(error) => {
                    found.warnings.push(format!("{} is not taken up: {error}", former.display()));
                }
            }
        }
        Ok((store, found))
    }

    /// The newest records of apps of several that were set aside, as they are now. One look at the
    /// folder serves any number of apps that are added.
    pub fn removed_apps(&self) -> Removed {
        let mut newest = BTreeMap::new();
        for path in fs::read_dir(self.folder()).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some((app, _)) = name.split_once(&format!("{RECORD}{REMOVED}")) {
                let newer = newest.entry(app.to_owned()).or_insert_with(|| path.clone());
                *newer = path.max(std::mem::take(newer));
            }
        }
        Removed(newest)
    }

    /// The names of the apps of several that have a record which this portok can read. Whatever else
    /// lies in the folder counts for nothing and is left as it is.
    pub fn apps_that_can_be_read(&self) -> BTreeSet<String> {
        let mut apps = self.apps();
        apps.retain(|app| {
            let record = self.record_of(Some(app));
            store::read(&record)
                .inspect_err(|error| tracing::warn!("{} is no record of an app: {error}", record.display()))
                .is_ok()
        });
        apps
    }

    /// The names of the apps of several that have a record.
    pub fn apps(&self) -> BTreeSet<String> {
        named(&self.folder(), &[RECORD])
    }

    /// The names of the apps of several that keep which of their targets are in force.
    pub fn apps_with_targets(&self) -> BTreeSet<String> {
        named(&self.folder(), &[TARGETS])
    }

    /// Where an app of several keeps which of its targets are in force. It is no record of releases,
    /// and has another name than that: an app that becomes one of another kind has both for a while.
    pub fn targets_of(&self, app: &str) -> PathBuf {
        self.folder().join(format!("{app}{TARGETS}"))
    }

    /// Makes the folder of [`Records::targets_of`]. Where nothing is there, what was set aside last
    /// (`former`) is taken up. Blocking.
    ///
    /// # Errors
    /// The operation that failed, and its path.
    pub fn take_up_targets(&self, app: &str, former: Former) -> io::Result<()> {
        let folder = self.folder();
        folder::make(&folder, 0o755).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot make the folder {}: {error}", folder.display()))
        })?;
        let file = self.targets_of(app);
        if file.exists() {
            return Ok(());
        }
        let former = match former {
            Former::Known(former) => former,
            Former::Unknown => removed(&file).pop(),
        };
        let Some(former) = former else { return Ok(()) };
        fs::rename(&former, &file).map_err(|error| {
            io::Error::new(error.kind(), format!("{} is not taken up: {error}", former.display()))
        })
    }

    /// As [`Records::set_aside`], for what [`Records::targets_of`] names.
    ///
    /// # Errors
    /// It cannot be renamed. The error names it.
    pub fn set_targets_aside(&self, app: &str) -> io::Result<()> {
        set_removed_aside(&self.targets_of(app))
    }

    /// Whether the one app has a record.
    pub fn has_one(&self) -> bool {
        self.file.exists()
    }

    /// Sets the record of an app aside that was removed (`None`: that of the one app), and removes
    /// the oldest ones of it. Does nothing where there is none.
    ///
    /// # Errors
    /// It cannot be renamed. The error names it.
    pub fn set_aside(&self, app: Option<&str>) -> io::Result<()> {
        set_removed_aside(&self.record_of(app))
    }

    /// A copy of the lock. The place stays locked until the last copy is closed. `None` where there
    /// is no lock.
    pub fn lock(&self) -> Option<File> {
        self.lock.as_ref().and_then(|lock| lock.try_clone().ok())
    }

    /// Checks that a successor with the inherited lock can go on from the record of the one app, or
    /// that the place is the same one where there are `several`: each of them may have its own
    /// trouble. Changes nothing.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn check(file: &Path, inherited: &File, several: bool) -> Result<(), StoreError> {
        if !is_at(inherited, &lock::of(file)) {
            return Err(StoreError::Elsewhere { file: file.to_owned() });
        }
        match if several { Ok(None) } else { store::read(file).map(Some) } {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::Unreadable { file: file.to_owned(), source })
            }
            _ => Ok(()),
        }
    }

    /// Removes the record of the one app and the lock, and then `folder` and the one above it where
    /// they are empty. Does nothing where another daemon has the lock.
    pub fn discard(file: &Path, folder: &Path) {
        let lock_file = lock::of(file);
        let Ok(Some(_locked)) = lock::open(&lock_file) else { return };
        for path in [file, &lock_file] {
            let _may_never_have_been_there = fs::remove_file(path);
        }
        for folder in folder.ancestors().take(2) {
            let _others_use_it = fs::remove_dir(folder);
        }
    }

    /// The folder of the records of several apps.
    fn folder(&self) -> PathBuf {
        beside_state_file(&self.file, FOLDER)
    }

    fn record_of(&self, app: Option<&str>) -> PathBuf {
        app.map_or_else(|| self.file.clone(), |app| self.folder().join(format!("{app}{RECORD}")))
    }

    /// The hash of device, inode and path of the lock, and of the app's name where there are
    /// several: two apps with one mark would stop one another's processes. A daemon in a container
    /// may have the same path, on another file system.
    fn mark(&self, app: Option<&str>) -> Option<String> {
        let meta = self.lock.as_ref()?.metadata().ok()?;
        let path = fs::canonicalize(lock::of(&self.file)).ok()?;
        let mut hash = Fnv::new();
        hash.record("device", &meta.dev().to_string());
        hash.record("inode", &meta.ino().to_string());
        hash.record("path", &path.to_string_lossy());
        if let Some(app) = app {
            hash.record("app", app);
        }
        Some(hash.hex())
    }
}

/// Where the apps of the instance with this state file are kept as they were configured last.
pub fn kept_file(state_file: &Path) -> PathBuf {
    beside_state_file(state_file, ".apps.json")
}

/// The names of the apps that have a record beside this state file, of releases or of targets. The
/// place need not be this daemon's yet.
pub fn recorded(state_file: &Path) -> BTreeSet<String> {
    named(&beside_state_file(state_file, FOLDER), &[RECORD, TARGETS])
}

/// The names of the apps that have a file with such an ending in the folder of records.
fn named(folder: &Path, endings: &[&str]) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let name = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let mut names = endings.iter().filter_map(|ending| name.strip_suffix(ending));
        names.find(|name| is_instance_name(name)).map(str::to_owned)
    };
    entries.filter_map(name).collect()
}

/// Sets a record aside whose app was removed, and removes the oldest ones of it. Does nothing where
/// there is none.
fn set_removed_aside(file: &Path) -> io::Result<()> {
    let aside = with_suffix(file, &format!("{REMOVED}{}", store::time_in_a_name()));
    match fs::rename(file, &aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let why = format!("cannot set the record {} aside: {error}", file.display());
            return Err(io::Error::new(error.kind(), why));
        }
        _ => {}
    }
    let removed = removed(file);
    for older in &removed[..removed.len().saturating_sub(REMOVED_KEPT)] {
        let _gone_already = fs::remove_file(older);
    }
    Ok(())
}

/// The records that were set aside from this place, oldest first.
fn removed(record: &Path) -> Vec<PathBuf> {
    let beginning = format!("{}{REMOVED}", record.file_name().unwrap_or_default().to_string_lossy());
    let entries = record.parent().and_then(|folder| fs::read_dir(folder).ok());
    let entries = entries.into_iter().flatten().flatten();
    let of_app = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&beginning);
    let mut removed: Vec<_> = entries.filter(of_app).map(|entry| entry.path()).collect();
    removed.sort();
    removed
}

#[cfg(test)]
mod tests {
    use super::super::record::Record;
    use super::*;
    use crate::release::spec::unmanaged;

    fn record() -> Record {
        Record { live: Some(unmanaged(8081)), app_attempted: Some("f".into()), ..Record::default() }
    }

    /// Takes a place that was given up just now. A child that another test is starting may hold the
    /// lock for a moment.
    fn again(file: &Path) -> Records {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(Records::take_when_free(file, None, false)).unwrap().0
    }

    #[test]
    fn a_second_store_is_refused_while_the_first_lives() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        let first = Records::take(&file, None).unwrap();
        let error = Records::take(&file, None).unwrap_err().to_string();
        assert!(error.contains("another running portokd") && error.contains("state.json"), "{error}");
        drop(first);
        again(&file);
    }

    #[tokio::test]
    async fn a_child_that_has_the_lock_for_a_moment_longer_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        let (killed, _) = Records::take(&file, None).unwrap();
        // It holds the descriptor until it ends, as a child holds it until it executes its program.
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "exec sleep 0.1"])
            .stdin(killed.lock().unwrap())
            .spawn()
            .unwrap();
        drop(killed);
        drop(Records::take_when_free(&file, None, false).await.unwrap());
        assert!(child.wait().unwrap().success());
        let (_lives, _) = Records::take_when_free(&file, None, false).await.unwrap();
        let second = Records::take_when_free(&file, None, false).await.unwrap_err().to_string();
        assert!(second.contains("another running portokd"), "{second}");
    }

    #[test]
    fn a_lock_file_that_cannot_be_written_locks_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        // Nobody, not even root, may write to a program that runs, as on a read-only disk.
        let lock = lock::of(&file);
        fs::copy("/bin/sleep", &lock).unwrap();
        let mut runs = std::process::Command::new(&lock).arg("60").spawn().unwrap();
        let (first, warnings) = Records::take(&file, None).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        assert!(first.mark(None).is_some());
        assert!(Records::take(&file, None).unwrap_err().to_string().contains("another running portokd"));
        drop(first);
        runs.kill().unwrap();
        runs.wait().unwrap();
    }

    #[test]
    fn a_successor_holds_the_lock_without_a_gap() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        let (first, _) = Records::take(&file, None).unwrap();
        first.open(None).unwrap().0.write(&record()).unwrap();
        let passed_on = first.lock().unwrap();
        Records::check(&file, &passed_on, false).unwrap();
        assert!(Records::check(&folder.path().join("other.json"), &passed_on, false).is_err());
        let (second, _) = Records::take(&file, Some(passed_on)).unwrap();
        assert_eq!(second.open(None).unwrap().1.record, record());
        drop(first);
        Records::take(&file, None).unwrap_err();
        fs::write(&file, "{ torn").unwrap();
        assert!(Records::check(&file, &second.lock().unwrap(), false).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "{ torn", "nothing is set aside");
        drop(second);
        again(&file);
    }

    #[test]
    fn each_of_several_apps_has_a_record_and_a_mark_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("edge.json");
        let (records, _) = Records::take(&file, None).unwrap();
        assert!(records.apps().is_empty());
        let [api, shop] = ["api", "shop"].map(|app| records.open(Some(app)).unwrap());
        api.0.write(&record()).unwrap();
        shop.0.write(&Record::default()).unwrap();
        let marks = [api.1.mark, shop.1.mark, records.mark(None)];
        assert!(marks.iter().all(Option::is_some));
        assert!(marks[0] != marks[1] && marks[1] != marks[2] && marks[0] != marks[2]);
        assert!(folder.path().join("edge.d/api.json").exists());
        assert_eq!(records.apps(), ["api".to_owned(), "shop".to_owned()].into());
        // A record that cannot be understood is the trouble of its app alone.
        fs::write(records.record_of(Some("shop")), "{ torn").unwrap();
        assert_eq!(records.open(Some("shop")).unwrap().1.warnings.len(), 1);
        let found = records.open(Some("api")).unwrap().1;
        assert!(found.warnings.is_empty() && found.record == record());
    }

    #[test]
    fn what_is_no_record_counts_for_nothing_where_there_is_one_app() {
        let folder = tempfile::tempdir().unwrap();
        let (records, _) = Records::take(&folder.path().join("edge.json"), None).unwrap();
        records.open(Some("api")).unwrap().0.write(&record()).unwrap();
        let theirs = ["torn", "theirs", "newer"].map(|app| records.record_of(Some(app)));
        let texts = ["{ torn", r#"{"colour": "blue"}"#, r#"{"schema": 99}"#];
        for (file, text) in theirs.iter().zip(texts) {
            fs::write(file, text).unwrap();
        }
        assert_eq!(records.apps_that_can_be_read(), ["api".to_owned()].into());
        for (file, text) in theirs.iter().zip(texts) {
            assert_eq!(fs::read_to_string(file).unwrap(), text);
        }
    }

    #[test]
    fn a_record_that_was_set_aside_is_taken_up_without_what_was_live() {
        let folder = tempfile::tempdir().unwrap();
        let (records, _) = Records::take(&folder.path().join("edge.json"), None).unwrap();
        records.set_aside(Some("api")).unwrap();
        for failed_probes in 1..=5 {
            let record = Record { failed_probes, app_quarantined: Some("q".into()), ..record() };
            records.open(Some("api")).unwrap().0.write(&record).unwrap();
            records.set_aside(Some("api")).unwrap();
            assert!(records.apps().is_empty());
        }
        let aside = removed(&records.record_of(Some("api")));
        assert_eq!((aside.len(), aside.last()), (REMOVED_KEPT, records.removed_apps().0.get("api")));
        let open_added = |app| records.open_added(app, &records.removed_apps());
        let (_, found) = open_added("api").unwrap();
        assert!(found.warnings.is_empty(), "{:?}", found.warnings);
        let Record { live, app_attempted, app_quarantined, failed_probes, .. } = found.record;
        assert_eq!((live, app_attempted, failed_probes), (None, None, 0));
        assert_eq!(app_quarantined.as_deref(), Some("q"));
        assert_eq!(removed(&records.record_of(Some("api"))).len(), REMOVED_KEPT - 1);
        assert_eq!(records.apps(), ["api".to_owned()].into(), "what is taken up is written at once");
        assert_eq!(open_added("other").unwrap().1.record, Record::default());
    }
}
