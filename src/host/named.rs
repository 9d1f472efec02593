//! Checks that what a configuration names exists: folders, files, programs, users, groups.
//!
//! portokd itself checks most of them only when it starts a release, so that a folder may be made
//! after the configuration. `doctor` checks them before.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::unistd::{Group, User};

use crate::config::{AccessFile, AppConfig, CommandLine, Config};
use crate::plain::describe_io;

/// Something that is missing, or not as its key needs it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// `app.directory "/srv/api": no such directory`.
    pub(super) text: String,
    /// What to do.
    pub(super) hint: String,
}

/// Everything that `config` names and that does not exist; of several apps, with the app that names
/// it.
pub(super) fn missing(config: &Config) -> Vec<Missing> {
    let group = config.admin.socket_group.as_deref();
    let own = group.and_then(|name| account("admin.socket_group", "group", name));
    let apps: Vec<Missing> = match &config.apps {
        None => missing_of(&config.app),
        Some(several) => {
            let named = |app: &AppConfig, missing: Missing| {
                let text = format!("app `{}`: {}", app.name, missing.text);
                Missing { text, ..missing }
            };
            let apps = several.apps.values();
            apps.flat_map(|app| missing_of(app).into_iter().map(move |missing| named(app, missing))).collect()
        }
    };
    let log = match &config.access.file {
        AccessFile::Path(path) => {
            path.parent().and_then(|folder| directory("the folder of access.file", folder))
        }
        AccessFile::Off | AccessFile::Stdout => None,
    };
    apps.into_iter().chain(own).chain(log).collect()
}

/// Everything that the configuration of one app names and that does not exist.
fn missing_of(config: &AppConfig) -> Vec<Missing> {
    let app = &config.app;
    let programs = [
        ("app.command", first_word(app.command.as_ref())),
        (
            "hooks.on_event",
            config.hooks.on_event.as_ref().and_then(|words| words.first()).map(String::as_str),
        ),
    ];
    let found = [
        app.directory.as_deref().and_then(|path| directory("app.directory", path)),
        app.env_file.as_deref().and_then(env_file),
        config.errors.dir.as_deref().and_then(|path| directory("errors.dir", path)),
        app.user.as_deref().and_then(|name| account("app.user", "user", name)),
        app.group.as_deref().and_then(|name| account("app.group", "group", name)),
    ];
    let programs = programs.into_iter().filter_map(|(key, program)| program_of(key, Path::new(program?)));
    found.into_iter().flatten().chain(programs).collect()
}

/// Why an app cannot run in the folder `path`, which `key` names.
pub(super) fn directory(key: &str, path: &Path) -> Option<Missing> {
    let why = match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => return None,
        Ok(_) => "it is not a directory".to_owned(),
        Err(error) => absence(&error, "no such directory")?,
    };
    let shown = path.display();
    Some(Missing { text: format!("{key} {shown}: {why}"), hint: format!("make it first: mkdir -p {shown}") })
}

fn env_file(path: &Path) -> Option<Missing> {
    let why = match fs::metadata(path) {
        Ok(meta) if meta.is_file() => return None,
        Ok(_) => "it is not a file".to_owned(),
        Err(error) => absence(&error, "no such file")?,
    };
    let hint = "write it, or leave the key out".to_owned();
    Some(Missing { text: format!("app.env_file {}: {why}", path.display()), hint })
}

/// A program named by an absolute path. Other programs are searched for only when they start.
fn program_of(key: &str, path: &Path) -> Option<Missing> {
    if !path.is_absolute() {
        return None;
    }
    let why = match fs::metadata(path) {
        Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => return None,
        Ok(_) => "it is no program".to_owned(),
        Err(error) => absence(&error, "no such program")?,
    };
    let hint = "correct the path, or install it".to_owned();
    Some(Missing { text: format!("{key} {}: {why}", path.display()), hint })
}

/// The program of a command without a shell. Only the shell can tell the programs of a shell
/// command.
fn first_word(command: Option<&CommandLine>) -> Option<&str> {
    match command? {
        CommandLine::Exec(words) => words.first().map(String::as_str),
        CommandLine::Shell(_) => None,
    }
}

fn account(key: &str, kind: &str, name: &str) -> Option<Missing> {
    let is_there = match kind {
        "user" => User::from_name(name).map(|user| user.is_some()),
        _ => Group::from_name(name).map(|group| group.is_some()),
    };
    // A user database that does not answer proves nothing.
    if is_there.unwrap_or(true) {
        return None;
    }
    let hint = format!("make it: {kind}add --system {name}");
    Some(Missing { text: format!("{key} {name}: no such {kind}"), hint })
}

/// Why something is absent; `None` if this user may not look, because then it is not known to be
/// missing.
fn absence(error: &io::Error, missing: &str) -> Option<String> {
    match error.kind() {
        io::ErrorKind::PermissionDenied => None,
        io::ErrorKind::NotFound => Some(missing.to_owned()),
        _ => Some(describe_io(error)),
    }
}
