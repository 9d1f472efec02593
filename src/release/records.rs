//! The place of an instance's records, and the lock that makes it one daemon's.
//!
//! The one app of an instance has its record in the state file. Each of several apps has one of its
//! own in the folder `<state_file without .json>.d`, whatever kind of app it is (`parts.rs`). The
//! record of an app that was removed, or what it was as another kind, is set aside there as
//! `<record>.removed-<time>`, and taken up when it is that again.
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

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::holder::holder_of;
use super::lock::{self, is_at};
use super::parts::{self, Part, Turns};
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

/// What follows in the name of one that was set aside.
const REMOVED: &str = ".removed-";

/// How many records of an app are kept that was removed, of each kind that it was.
const REMOVED_KEPT: usize = 3;

/// The records that were set aside, by the apps' names, as they lay there at one moment.
#[derive(Debug, Default)]
pub struct Removed(BTreeMap<String, Vec<PathBuf>>);

impl Removed {
    /// What was set aside of an app's targets.
    pub fn targets(&self, app: &str) -> Former {
        Former::Known(self.newest(app, Part::Targets))
    }

    fn newest(&self, app: &str, part: Part) -> Option<PathBuf> {
        self.0.get(app)?.iter().filter(|file| has(file, part)).max().cloned()
    }
}

/// The apps that have a record, by what it is of.
#[derive(Debug, Default)]
pub struct Recorded {
    /// Those with releases, or with a record that cannot be understood.
    pub releases: BTreeSet<String>,
    /// Those that keep which of their targets are in force.
    pub targets: BTreeSet<String>,
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
    turns: Turns,
}

impl Records {
    /// As [`Records::take`], with the folder of the records of several apps, and tries again for a
    /// moment where a lock is taken. Where one app (not `several`) has no such folder, none is
    /// made.
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
        Ok((Self { file: file.to_owned(), lock: lock.map(Arc::new), turns: Turns::default() }, warnings))
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
        let is_ours = several || named(&folder).iter().any(is_record);
        lock::claim(lock, &self.file, &folder, is_ours)
    }

    /// Opens the record of the one app, or that of `app` of several.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open(&self, app: Option<&str>) -> Result<(Store, Found), StoreError> {
        let file = self.record_of(app);
        let folder = app.map(|_| folder::make(&self.folder(), 0o755).err()).unwrap_or_default();
        let turn = app.map(|_| self.turns.of(&file));
        let (store, mut found) = Store::open(file, self.lock.clone(), self.mark(app), turn)?;
        found.warnings.extend(
            folder.map(|error| format!("cannot make the folder {}: {error}", self.folder().display())),
        );
        Ok((store, found))
    }

    /// Opens the record of an app of several that is added. Where it has no releases, the newest
    /// one with some that was set aside, as `removed` has it, is taken up: its history and what is
    /// in quarantine. Nothing of it runs.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_added(&self, app: &str, removed: &Removed) -> Result<(Store, Found), StoreError> {
        let file = self.record_of(Some(app));
        let is_new = parts::of(&file).map_or(!file.exists(), |has| !has.releases);
        let (store, mut found) = self.open(Some(app))?;
        if is_new && let Some(former) = removed.newest(app, Part::Releases) {
            match store::read(&former) {
                Ok(record) => {
                    found.record = record.of_an_app_that_was_removed();
                    match store.write(&found.record) {
                        Ok(()) => drop(fs::remove_file(&former)),
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

    /// The records of apps of several that were set aside, as they are now. One look at the folder
    /// serves any number of apps that are added.
    pub fn removed_apps(&self) -> Removed {
        let mut all = BTreeMap::<String, Vec<PathBuf>>::new();
        for path in fs::read_dir(self.folder()).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some((app, _)) = name.split_once(&format!("{RECORD}{REMOVED}")) {
                all.entry(app.to_owned()).or_default().push(path);
            }
        }
        Removed(all)
    }

    /// The names of the apps of several that have a record of releases which this portok can read.
    /// Whatever else lies in the folder counts for nothing and is left as it is.
    pub fn apps_that_can_be_read(&self) -> BTreeSet<String> {
        let mut apps = self.apps().releases;
        apps.retain(|app| {
            let record = self.record_of(Some(app));
            store::read(&record)
                .inspect_err(|error| tracing::warn!("{} is no record of an app: {error}", record.display()))
                .is_ok()
        });
        apps
    }

    /// The apps of several that have a record. Blocking: looks into each.
    pub fn apps(&self) -> Recorded {
        let mut recorded = Recorded::default();
        for app in named(&self.folder()) {
            let has = parts::of(&self.record_of(Some(&app))).ok();
            if has.is_none_or(|has| has.releases) {
                recorded.releases.insert(app.clone());
            }
            if has.is_some_and(|has| has.targets) {
                recorded.targets.insert(app);
            }
        }
        recorded
    }

    /// What an app of several keeps of its targets; `None`: nothing. Blocking.
    ///
    /// # Errors
    /// The record cannot be read. The error names it.
    pub fn read_targets(&self, app: &str) -> io::Result<Option<Value>> {
        let file = self.record_of(Some(app));
        parts::read_targets(&file).map_err(|error| of_file(&error, &file, "cannot be read"))
    }

    /// Writes what an app of several keeps of its targets. Blocking.
    ///
    /// # Errors
    /// The operation that failed, and its path.
    pub fn write_targets(&self, app: &str, targets: Value) -> io::Result<()> {
        let file = self.record_of(Some(app));
        parts::write_targets(&file, &self.turns.of(&file), targets)
    }

    /// Makes the folder of [`Records::write_targets`]. Where nothing is kept, what was set aside
    /// last (`former`) is taken up. Blocking.
    ///
    /// # Errors
    /// The operation that failed, and its path.
    pub fn take_up_targets(&self, app: &str, former: Former) -> io::Result<()> {
        let folder = self.folder();
        folder::make(&folder, 0o755).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot make the folder {}: {error}", folder.display()))
        })?;
        let file = self.record_of(Some(app));
        if parts::of(&file).map_or(file.exists(), |has| has.targets) {
            return Ok(());
        }
        let former = match former {
            Former::Known(former) => former,
            Former::Unknown => removed(&file).into_iter().rfind(|file| has(file, Part::Targets)),
        };
        let Some(former) = former else { return Ok(()) };
        let taken_up = match parts::read_targets(&former) {
            _ if !file.exists() => fs::rename(&former, &file),
            Ok(Some(targets)) => self.write_targets(app, targets).and_then(|()| fs::remove_file(&former)),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        taken_up.map_err(|error| of_file(&error, &former, "is not taken up"))
    }

    /// As [`Records::set_aside`], for what the app keeps of its targets.
    ///
    /// # Errors
    /// It cannot be written or renamed. The error names it.
    pub fn set_targets_aside(&self, app: &str) -> io::Result<()> {
        self.set_part_aside(app, Part::Targets)
    }

    /// Takes away what an app keeps of its targets and what cannot be understood. Returns what
    /// became of it.
    pub fn set_broken_targets_aside(&self, app: &str) -> String {
        let file = self.record_of(Some(app));
        let aside = with_suffix(&file, &format!(".corrupt-{}", store::time_in_a_name()));
        match parts::take_out(&file, &self.turns.of(&file), Part::Targets, &aside) {
            Ok(_) => format!("it was set aside as {}", aside.display()),
            Err(error) => format!("setting it aside as {} failed: {error}", aside.display()),
        }
    }

    /// Whether the one app has a record.
    pub fn has_one(&self) -> bool {
        self.file.exists()
    }

    /// Sets the releases of an app aside that was removed, or is another kind now (`None`: the
    /// record of the one app), and removes the oldest ones of it. Does nothing where there are
    /// none.
    ///
    /// # Errors
    /// They cannot be written or renamed. The error names the record.
    pub fn set_aside(&self, app: Option<&str>) -> io::Result<()> {
        let Some(app) = app else {
            let aside = removed_name(&self.file);
            return match fs::rename(&self.file, aside) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                renamed => renamed
                    .map(|()| forget_older(removed(&self.file)))
                    .map_err(|error| of_file(&error, &self.file, "cannot be set aside")),
            };
        };
        self.set_part_aside(app, Part::Releases)
    }

    fn set_part_aside(&self, app: &str, part: Part) -> io::Result<()> {
        let file = self.record_of(Some(app));
        let taken_out = parts::take_out(&file, &self.turns.of(&file), part, &removed_name(&file));
        if taken_out.map_err(|error| of_file(&error, &file, "cannot be set aside"))? {
            forget_older(removed(&file).into_iter().filter(|file| has(file, part)).collect());
        }
        Ok(())
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

/// The names of the apps that have a record beside this state file. The place need not be this
/// daemon's yet.
pub fn recorded(state_file: &Path) -> BTreeSet<String> {
    named(&beside_state_file(state_file, FOLDER))
}

/// The names of the apps that have a file in the folder of records.
fn named(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let name = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_suffix(RECORD).filter(|name| is_instance_name(name)).map(str::to_owned)
    };
    entries.filter_map(name).collect()
}

/// Whether the file is a record with this part.
fn has(file: &Path, part: Part) -> bool {
    parts::of(file).is_ok_and(|has| part.is_in(has))
}

/// The name of a record that is set aside now.
fn removed_name(record: &Path) -> PathBuf {
    with_suffix(record, &format!("{REMOVED}{}", store::time_in_a_name()))
}

/// Removes all but the newest of these, which come oldest first.
fn forget_older(removed: Vec<PathBuf>) {
    for older in &removed[..removed.len().saturating_sub(REMOVED_KEPT)] {
        let _gone_already = fs::remove_file(older);
    }
}

fn of_file(error: &io::Error, file: &Path, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("the record {} {what}: {error}", file.display()))
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
mod tests;
