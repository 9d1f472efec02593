//! `portok remove` and `portok clean`: what portok made goes, what others made stays and is named.
//!
//! The daemon ends before its files go: a running one would write its state again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::args::Remove;
use super::instances::{self, Instance, Reading};
use super::places::Places;
use super::report::Report;
use super::systemctl::{self, Trouble, systemctl};
use super::unit::{self, service_of, socket_of};
use super::{Asker, files, harden};
use crate::cli::failure::{Failure, HostCode};
use crate::config::is_instance_name;

/// Stops an instance and removes its files.
///
/// # Errors
/// There is no such instance; it runs and `--force` is not given, or runs outside systemd; something cannot be removed.
pub(crate) async fn remove(places: &Places, options: &Remove, asker: &Asker<'_>) -> Result<Report, Failure> {
    let name = options.name.as_str();
    let instance = instances::find(places, name, Reading::Lenient);
    let files = files_of(places, name, instance.as_ref())?;
    let state = if options.keep_state { Vec::new() } else { state_of(places, name)? };
    if instance.is_none() && files.is_empty() && state.is_empty() {
        instances::get(places, name, Reading::Lenient)?;
    }
    let mut report = Report::about(name);
    let called = instance.as_ref().map_or(name, Instance::called);
    end(name, called, options.force, asker, &mut report).await?;
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

/// Ends the daemon through systemd and makes sure that none is left.
async fn end(
    name: &str,
    called: &str,
    force: bool,
    asker: &Asker<'_>,
    report: &mut Report,
) -> Result<(), Failure> {
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
        return Err(Failure::host(HostCode::Running, message, "--force stops it first, and its app with it"));
    }
    shut_down(name, report).await.map_err(|trouble| trouble.into_failure(&operation, Some(name)))?;
    // Where systemd does not know of one, somebody else may have started it.
    match asker.question(name, called).await {
        Some(status) => Err(Failure::host(
            HostCode::Running,
            format!("`{name}` runs as process {}, which systemd did not start", status.pid),
            format!("end it first: kill {}", status.pid),
        )),
        None => Ok(()),
    }
}

/// Stops and disables both units of an instance, those that systemd knows.
async fn shut_down(name: &str, report: &mut Report) -> Result<(), Trouble> {
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
            // Otherwise systemd goes on listing it.
            systemctl(&["reset-failed", unit])?;
        }
    }
    Ok(())
}

/// The configuration files of an instance, and what `portok add` put beside them.
fn files_of(places: &Places, name: &str, instance: Option<&Instance>) -> Result<Vec<PathBuf>, Failure> {
    let mut found: BTreeSet<PathBuf> =
        instance.map(|instance| instance.files.iter().cloned().collect()).unwrap_or_default();
    for path in files::entries(&places.config)? {
        if path == places.file(name, "token") || is_leftover(&path, name) {
            found.insert(path);
        }
    }
    Ok(found.into_iter().collect())
}

/// What an interrupted `add` may have left: `.NAME.toml.0123456789abcdef`.
fn is_leftover(path: &Path, name: &str) -> bool {
    let Some(file) = path.file_name().and_then(|file| file.to_str()) else { return false };
    ["toml", "env", "token"].iter().any(|ending| {
        file.strip_prefix(&format!(".{name}.{ending}."))
            .is_some_and(|random| random.len() == 16 && random.chars().all(|c| c.is_ascii_hexdigit()))
    })
}

/// The state of an instance: `NAME.json` with what lies beside it, and the folder that systemd made for it.
fn state_of(places: &Places, name: &str) -> Result<Vec<PathBuf>, Failure> {
    Ok(files::entries(&places.state)?.into_iter().filter(|path| state_owner(path) == Some(name)).collect())
}

/// The instance that an entry of the state folder belongs to, going by its name: `api` for `api.json`, for
/// `api.json.corrupt-…` and for a folder `api` with such a file, or with nothing, as systemd makes it. Another folder of that
/// name is somebody else's: the place of the states may be one that others use too.
fn state_owner(path: &Path) -> Option<&str> {
    let file = path.file_name()?.to_str()?;
    let name = match file.split_once(".json") {
        Some((name, rest)) if rest.is_empty() || rest.starts_with(['.', '-']) => name,
        Some(_) => return None,
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

/// Removes everything that portok made on this host.
///
/// # Errors
/// `--force` is not given, and there is something to remove; something cannot be stopped or removed.
pub(crate) async fn clean(places: &Places, force: bool, asker: &Asker<'_>) -> Result<Report, Failure> {
    let instances = instances::all(places, Reading::Lenient)?;
    let mut names: BTreeSet<String> = instances.iter().map(|instance| instance.name.clone()).collect();
    match systemctl::loaded() {
        Ok(units) => names.extend(units.iter().filter_map(|unit| instance_of(unit))),
        Err(Trouble::Missing | Trouble::NotRunning) => {}
        Err(trouble) => return Err(trouble.into_failure("clean", None)),
    }
    let mut paths = Vec::new();
    for name in &names {
        let instance = instances.iter().find(|instance| instance.name == *name);
        paths.extend(files_of(places, name, instance)?);
    }
    paths.extend(Some(places.lock()).filter(|path| path.exists()));
    paths.extend(files::entries(&places.state)?.into_iter().filter(|path| state_owner(path).is_some()));
    let (units, foreign) = units_of(places)?;
    let changes_units = !units.is_empty();
    paths.extend(units);
    let mut report = Report { dry_run: !force, ..Report::default() };
    foreign.iter().for_each(|path| report.step("kept", path.display()));
    if !force {
        names.iter().for_each(|name| report.step("would stop", service_of(name)));
        paths.iter().for_each(|path| report.step("would remove", path.display()));
        for folder in [&places.config, &places.state].into_iter().filter(|folder| folder.is_dir()) {
            match files::entries(folder)?.iter().all(|path| paths.contains(path)) {
                true => report.step("would remove", folder.display()),
                false => keep_folder(folder, &mut report),
            }
        }
        return Ok(report);
    }
    for name in &names {
        let instance = instances.iter().find(|instance| instance.name == *name);
        let called = instance.map_or(name.as_str(), Instance::called);
        end(name, called, true, asker, &mut report).await?;
    }
    for path in &paths {
        if files::remove(path)? {
            report.step("removed", path.display());
        }
    }
    for folder in
        paths.iter().filter_map(|path| path.parent()).filter(|folder| folder.starts_with(&places.units))
    {
        if *folder != places.units {
            files::remove_if_empty(folder);
        }
    }
    if changes_units {
        systemctl::read_units_again(&mut report);
    }
    for folder in [&places.config, &places.state] {
        if files::remove_if_empty(folder) {
            report.step("removed", folder.display());
        } else if folder.is_dir() {
            keep_folder(folder, &mut report);
        }
    }
    Ok(report)
}

fn keep_folder(folder: &Path, report: &mut Report) {
    report.step("kept", format!("{}, which holds what is not portok's", folder.display()));
}

/// Whether `clean` would do anything.
pub(crate) fn has_work(report: &Report) -> bool {
    report.steps.iter().any(|step| step.action.starts_with("would"))
}

/// The name in `portok@NAME.service`.
fn instance_of(unit: &str) -> Option<String> {
    let name = unit.strip_prefix("portok@")?;
    let name = name.strip_suffix(".service").or_else(|| name.strip_suffix(".socket"))?;
    is_instance_name(name).then(|| name.to_owned())
}

/// Whether it is the folder of the drop-ins of one instance: `portok@api.service.d`.
fn is_drop_in_folder(path: &Path) -> bool {
    let unit = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".d"));
    unit.and_then(instance_of).is_some() && path.is_dir()
}

/// The unit files that `init` and `add` wrote, and those of their names that it did not.
fn units_of(places: &Places) -> Result<(Vec<PathBuf>, Vec<PathBuf>), Failure> {
    let (mut ours, mut foreign) = (Vec::new(), Vec::new());
    let own = [unit::USER_DROP_IN, unit::SERVICE_NAME, unit::SOCKET_NAME].map(|name| places.units.join(name));
    let folders = files::entries(&places.units)?.into_iter().filter(|path| is_drop_in_folder(path));
    for path in own.into_iter().chain(folders.map(|folder| folder.join(unit::HARDENED))) {
        match files::read(&path)? {
            Some(text) if unit::is_ours(&text) => ours.push(path),
            Some(_) => foreign.push(path),
            None => {}
        }
    }
    Ok((ours, foreign))
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
        for foreign in ["api.jsonx", "a b.json", "README", "lost+found", ".json"] {
            assert_eq!(owner(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn only_names_of_instances_are_taken_from_systemd() {
        assert_eq!(instance_of("portok@api.service").as_deref(), Some("api"));
        assert_eq!(instance_of("portok@api.socket").as_deref(), Some("api"));
        for other in ["portok@.service", "portok@a\\x2fb.service", "portok@api.slice", "api.service"] {
            assert_eq!(instance_of(other), None, "{other}");
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
