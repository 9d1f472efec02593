//! The folder beside the main file in which every file is an app of its own.
//!
//! Each file is all or nothing for itself: what is wrong with one is that app's. What was read of a
//! file is remembered until the file differs, so that a change of one among a thousand costs what
//! one file costs; nothing but the time depends on it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::AppConfig;
use super::files::{self, Owner, Who};
use super::keys;
use super::limits::Host;
use super::one_of_several::{self, Sections};
use super::raw::{self, Names};
use super::read::{Given, Reader};
use super::seen_file::Stamp;
use super::values::{NAME_EXPECTED, is_instance_name};

/// The most files of apps.
pub(super) const FILES_MAX: usize = 10_000;

/// The largest file of an app, in bytes.
const FILE_MAX: u64 = 64 * 1024;

/// The files of apps in a folder, by the name of the app, which is the file's stem.
pub(super) type Listed = BTreeMap<String, PathBuf>;

/// What one file says of its app.
#[derive(Debug)]
pub(super) struct AppFile {
    /// The file.
    pub(super) path: PathBuf,
    /// The app, or all that is wrong with the file.
    pub(super) app: Result<Arc<AppConfig>, String>,
    /// What it says; empty where that is not valid.
    pub(super) text: Arc<str>,
    /// What is odd but no error, with the file's place.
    pub(super) warnings: Vec<String>,
    /// Place, name and value of its targets.
    pub(super) targets: Option<String>,
    /// The same of the addresses where it listens itself.
    pub(super) listen: Option<String>,
}

/// What was read of the files of apps before.
#[derive(Debug, Clone, Default)]
pub struct Remembered(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    /// Under which conditions; under others nothing of it counts.
    under: Option<Conditions>,
    files: BTreeMap<String, (Stamp, Arc<AppFile>)>,
}

/// What a file is read under.
#[derive(Debug, Clone, PartialEq)]
struct Conditions {
    folder: PathBuf,
    sections: Sections,
    who: Who,
    host: Host,
    client: bool,
}

/// Lists the files of apps in `folder`. Hidden files and what editors leave are none.
///
/// # Errors
/// The folder is not there, cannot be read, may be written by others, or holds too many.
pub(super) fn list(folder: &Path, who: &Who, owner: Owner<'_>) -> io::Result<Listed> {
    files::trust_folder(folder, who, owner)?;
    let mut listed = Listed::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if let Some(app) = app_of(&path) {
            listed.insert(app, path);
        }
        if listed.len() > FILES_MAX {
            return Err(io::Error::other(format!("it has more than {FILES_MAX} files of apps")));
        }
    }
    Ok(listed)
}

/// The app whose file `path` is by its name.
pub(super) fn app_of(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    let stem = name.strip_suffix(".toml")?;
    (!stem.is_empty() && !stem.starts_with('.')).then(|| stem.to_owned())
}

/// Reads the files that [`list`] has found in `folder`, in their order.
pub(super) fn read(
    folder: &Path,
    listed: Listed,
    given: &Given<'_>,
    sections: &Sections,
) -> Vec<(String, Arc<AppFile>)> {
    let under = Conditions {
        folder: folder.to_owned(),
        sections: sections.clone(),
        who: given.who.clone(),
        host: given.host.clone(),
        client: given.sources.client,
    };
    let mut memory = given.sources.remembered.0.lock().unwrap_or_else(PoisonError::into_inner);
    if memory.under.as_ref() != Some(&under) {
        memory.under = Some(under);
        memory.files.clear();
    }
    let now = SystemTime::now();
    let mut read = Vec::with_capacity(listed.len());
    let mut remembered = Vec::with_capacity(listed.len());
    for (app, path) in listed {
        // Looked at before it is read: a change in between is seen the next time.
        let stamp = match fs::metadata(&path) {
            Ok(meta) => Stamp::of(&meta, now),
            // It was deleted meanwhile; a link that leads nowhere is a file that cannot be read.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => continue,
            Err(_) => None,
        };
        let further = || given.further.borrow().len();
        let others = further();
        let file = match memory.files.get(&app) {
            Some((before, file)) if Some(*before) == stamp => Arc::clone(file),
            _ => Arc::new(read_file(&app, path, given, sections)),
        };
        // One that names another file may say something else although it has not changed itself.
        let has_pages = file.app.as_ref().is_ok_and(|app| app.errors.dir.as_deref() != sections.errors_dir());
        let is_whole = file.app.is_ok() && !has_pages && further() == others;
        if let Some(stamp) = stamp.filter(|_| is_whole) {
            remembered.push((app.clone(), (stamp, Arc::clone(&file))));
        }
        read.push((app, file));
    }
    // Made at once of what is in order: a tenth of what one insertion after the other takes.
    memory.files = remembered.into_iter().collect();
    read
}

fn read_file(app: &str, path: PathBuf, given: &Given<'_>, sections: &Sections) -> AppFile {
    match parse_file(app, &path, given, sections) {
        Ok((Valid { app, warnings, targets, listen }, text)) => {
            AppFile { path, app: Ok(Arc::new(app)), text: text.into(), warnings, targets, listen }
        }
        Err(problems) => {
            let (app, text) = (Err(problems), Arc::default());
            AppFile { path, app, text, warnings: Vec::new(), targets: None, listen: None }
        }
    }
}

/// The app that the file `app` in `folder` has been, by its text at that time. `None`: that is not
/// valid any more.
pub(super) fn read_kept(
    app: &str,
    folder: &Path,
    text: &str,
    given: &Given<'_>,
    sections: &Sections,
) -> Option<Valid> {
    let path = folder.join(format!("{app}.toml"));
    parse(app, &path, text, given, sections).ok()
}

/// As [`read_kept`], of an app that had its table in the main file.
pub(super) fn read_kept_in_main_file(
    app: &str,
    main: &Path,
    text: &str,
    given: &Given<'_>,
    sections: &Sections,
) -> Option<Valid> {
    // Places count from the table's beginning.
    let table = PathBuf::from(format!("{}: [apps.{app}]", main.display()));
    let mut valid = parse(app, &table, text, given, sections).ok()?;
    valid.app.place = main.display().to_string();
    Some(valid)
}

/// What a file says that has no problems; the fields are those of an [`AppFile`].
pub(super) struct Valid {
    pub(super) app: AppConfig,
    warnings: Vec<String>,
    pub(super) targets: Option<String>,
    pub(super) listen: Option<String>,
}

fn parse_file(
    app: &str,
    path: &Path,
    given: &Given<'_>,
    sections: &Sections,
) -> Result<(Valid, String), String> {
    let place = path.display();
    if !is_instance_name(app) {
        return Err(format!("{place}: the stem {app:?} is to be the app's name: expected {NAME_EXPECTED}"));
    }
    let owner = Owner::of_configuration(given.sources.client);
    let content = files::read(path, FILE_MAX, given.who, owner)
        .map_err(|error| format!("{place}: cannot read the app's file: {error}"))?;
    let valid = parse(app, path, &content.text, given, sections)?;
    Ok((valid, content.text))
}

fn parse(
    app: &str,
    path: &Path,
    text: &str,
    given: &Given<'_>,
    sections: &Sections,
) -> Result<Valid, String> {
    let place = path.display();
    let (raw, problems) = raw::parse_app(path, text, keys::WORDS).map_err(|problem| problem.text)?;
    let section = raw.whole(Names::File);
    let mut reader = Reader::of_app(given, section, problems);
    let config = one_of_several::read(&mut reader, app, section.place(), sections);
    let [targets, listen] =
        ["app.targets", "app.listen"].map(|key| reader.quoted(key).map(|(_, quoted)| quoted));
    let (problems, warnings) = reader.finish();
    if !problems.is_empty() {
        return Err(problems.join("\n"));
    }
    let warnings = warnings.iter().map(|warning| format!("{place}: {warning}")).collect();
    Ok(Valid { app: config, warnings, targets, listen })
}
