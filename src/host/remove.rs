//! `portok remove`: stops one instance and removes its files.
//!
//! The daemon ends before its files are removed: a running one would write its state again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::daemons::{Answered, Daemons};
use super::failure::{HostCode, HostFailure};
use super::instances::{self, Instance, Reading};
use super::places::Places;
use super::report::HostReport;
use super::systemctl::{self, Trouble, systemctl};
use super::unit::{service_of, socket_of};
use super::{files, harden};
use crate::config::is_instance_name;

/// What [`remove`] is asked for.
#[derive(Debug)]
pub(crate) struct RemoveOptions<'a> {
    /// The instance.
    pub(crate) name: &'a str,
    /// Stop it if it runs.
    pub(crate) force: bool,
    /// Leave its state where it is.
    pub(crate) keep_state: bool,
    /// Only say what would be done.
    pub(crate) dry_run: bool,
}

/// Stops an instance and removes its files.
///
/// # Errors
/// There is no such instance, it runs and `force` is not set, it runs outside systemd, or a file
/// cannot be removed.
pub(crate) async fn remove(
    places: &Places,
    options: &RemoveOptions<'_>,
    daemons: &dyn Daemons,
) -> Result<HostReport, HostFailure> {
    let name = options.name;
    let instance = instances::find(places, name, Reading::Lenient);
    let files = files_of(places, name, instance.as_ref())?;
    let state = if options.keep_state { Vec::new() } else { state_of(places, name)? };
    if instance.is_none() && files.is_empty() && state.is_empty() {
        instances::get(places, name, Reading::Lenient)?;
    }
    let mut report = HostReport { dry_run: options.dry_run, ..HostReport::about(name) };
    if options.dry_run {
        if may_end(name, options.force)? {
            report.step("would stop", service_of(name));
        }
        for path in files.iter().chain(&state).filter(|path| path.symlink_metadata().is_ok()) {
            report.step("would remove", path.display());
        }
        return Ok(report);
    }
    let called = instance.as_ref().map_or(name, Instance::called);
    end(name, called, options.force, daemons, &mut report).await?;
    for path in files.iter().chain(&state) {
        if files::remove(path)? {
            report.step("removed", path.display());
        }
    }
    if harden::take_away(places, name, &mut report)? {
        harden::read_again(&mut report);
    }
    if options.keep_state {
        state_of(places, name)?.iter().for_each(|path| report.step("kept", path.display()));
    }
    let configured = instance.and_then(|instance| instance.config.ok()).map(|config| config.state_file);
    if let Some(file) = configured.filter(|file| !file.starts_with(&places.state) && file.exists()) {
        report.step("kept", file.display());
    }
    Ok(report)
}

/// Ends the daemon through systemd, and makes sure that none is left.
pub(super) async fn end(
    name: &str,
    called: &str,
    force: bool,
    daemons: &dyn Daemons,
    report: &mut HostReport,
) -> Result<(), HostFailure> {
    may_end(name, force)?;
    let operation = format!("removal of `{name}`");
    shut_down(name, report).await.map_err(|trouble| trouble.into_failure(&operation, Some(name)))?;
    // A daemon may still run that systemd did not start.
    match daemons.ask_instance(name, called).await {
        Some(Answered { daemon, .. }) => Err(HostFailure::new(
            HostCode::Running,
            format!("`{name}` runs as process {}, which systemd did not start", daemon.pid),
            format!("end it first: kill {}", daemon.pid),
        )),
        None => Ok(()),
    }
}

/// Whether systemd runs the instance, which may be ended where `force` is set.
fn may_end(name: &str, force: bool) -> Result<bool, HostFailure> {
    let service = service_of(name);
    let operation = format!("removal of `{name}`");
    let is_running = match systemctl::states(std::slice::from_ref(&service)) {
        Ok(states) => {
            states.get(&service).is_some_and(|state| state.is_running() || state.has_left_its_app())
        }
        Err(Trouble::Missing | Trouble::NotRunning) => false,
        Err(trouble) => return Err(trouble.into_failure(&operation, Some(name))),
    };
    if is_running && !force {
        let message = format!("`{name}` runs");
        return Err(HostFailure::new(
            HostCode::Running,
            message,
            "--force stops it first, and its app with it",
        ));
    }
    Ok(is_running)
}

/// Stops and disables the units of an instance that systemd knows.
async fn shut_down(name: &str, report: &mut HostReport) -> Result<(), Trouble> {
    let units = [socket_of(name), service_of(name)];
    let states = match systemctl::states(&units) {
        Ok(states) => states,
        Err(Trouble::Missing | Trouble::NotRunning) => return Ok(()),
        Err(trouble) => return Err(trouble),
    };
    for unit in &units {
        let Some(state) = states.get(unit).filter(|state| state.load != "not-found") else { continue };
        if state.is_running() {
            systemctl(&["stop", unit])?;
            report.step("stopped", unit);
        }
        if systemctl::end_leftovers(unit).await? {
            report.step("stopped", format!("what ran without its daemon in {unit}"));
        }
        if state.is_enabled() {
            systemctl(&["disable", unit])?;
            report.step("disabled", unit);
        }
        if state.active == "failed" {
            // Otherwise systemd keeps listing it.
            systemctl(&["reset-failed", unit])?;
        }
    }
    Ok(())
}

/// The configuration files of an instance, and what `portok add` put beside them.
pub(super) fn files_of(
    places: &Places,
    name: &str,
    instance: Option<&Instance>,
) -> Result<Vec<PathBuf>, HostFailure> {
    let mut found: BTreeSet<PathBuf> =
        instance.map(|instance| instance.files.iter().cloned().collect()).unwrap_or_default();
    for path in files::entries(&places.config)? {
        if path == places.file(name, "token") || is_leftover(&path, name) {
            found.insert(path);
        }
    }
    Ok(found.into_iter().collect())
}

/// Whether `path` is what an interrupted `add` left: `.NAME.toml.0123456789abcdef`.
fn is_leftover(path: &Path, name: &str) -> bool {
    let Some(file) = path.file_name().and_then(|file| file.to_str()) else { return false };
    ["toml", "env", "token"].iter().any(|ending| {
        file.strip_prefix(&format!(".{name}.{ending}."))
            .is_some_and(|random| random.len() == 16 && random.chars().all(|c| c.is_ascii_hexdigit()))
    })
}

/// The state files of an instance: `NAME.json` with the files beside it, and the folder that
/// systemd made for it.
fn state_of(places: &Places, name: &str) -> Result<Vec<PathBuf>, HostFailure> {
    Ok(files::entries(&places.state)?.into_iter().filter(|path| state_owner(path) == Some(name)).collect())
}

/// The instance to which an entry of the state folder belongs, by its name: `api` for `api.json`,
/// for `api.json.corrupt-…`, for a folder `api.acme` with its record, and for a folder `api` that
/// holds such a file or nothing, as systemd makes it. Another folder of that name is not portok's:
/// other programs may use the same parent folder.
pub(super) fn state_owner(path: &Path) -> Option<&str> {
    let file = path.file_name()?.to_str()?;
    let name = match file.split_once(".json") {
        Some((name, rest)) if rest.is_empty() || rest.starts_with(['.', '-']) => name,
        Some(_) => return None,
        // The certificates that have come by themselves, with their keys.
        None if file.ends_with(".acme") && path.join("acme.json").exists() => file.strip_suffix(".acme")?,
        None if path.is_dir() && is_state_folder(path, file) => file,
        None => return None,
    };
    is_instance_name(name).then_some(name)
}

fn is_state_folder(folder: &Path, name: &str) -> bool {
    let state = format!("{name}.json");
    let is_state = |path: &PathBuf| {
        path.file_name().is_some_and(|file| file.as_encoded_bytes().starts_with(state.as_bytes()))
    };
    files::entries(folder).is_ok_and(|entries| entries.is_empty() || entries.iter().any(is_state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instances_state_is_told_from_its_neighbours() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["api", "api2", "lost+found"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let owner = |file: &str| state_owner(&folder.path().join(file)).map(str::to_owned);
        for own in ["api.json", "api.json.corrupt-2026", "api.json.lock", "api.json-x", "api"] {
            assert_eq!(owner(own).as_deref(), Some("api"), "{own}");
        }
        assert_eq!(owner("api2").as_deref(), Some("api2"));
        std::fs::write(folder.path().join("api2/data"), "").unwrap();
        assert_eq!(owner("api2"), None, "somebody else's folder");
        std::fs::write(folder.path().join("api2/api2.json.lock"), "").unwrap();
        assert_eq!(owner("api2").as_deref(), Some("api2"));
        std::fs::create_dir(folder.path().join("api.acme")).unwrap();
        assert_eq!(owner("api.acme"), None, "not portok's");
        std::fs::write(folder.path().join("api.acme/acme.json"), "").unwrap();
        assert_eq!(owner("api.acme").as_deref(), Some("api"));
        for foreign in ["api.jsonx", "a b.json", "README", "lost+found", ".json"] {
            assert_eq!(owner(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn what_an_interrupted_add_left_is_found() {
        assert!(is_leftover(Path::new("/c/.api.toml.0123456789abcdef"), "api"));
        for other in ["/c/.api.toml.swp", "/c/.api2.toml.0123456789abcdef", "/c/api.toml"] {
            assert!(!is_leftover(Path::new(other), "api"), "{other}");
        }
    }
}
