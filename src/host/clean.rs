//! `portok clean`: removes everything that portok made on this machine. Files of others stay, and
//! the report names them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::daemons::Daemons;
use super::failure::HostFailure;
use super::files;
use super::instances::{self, Instance, Reading};
use super::places::Places;
use super::remove::{end, files_of, state_owner};
use super::report::HostReport;
use super::systemctl::{self, Trouble};
use super::unit::{self, service_of};
use crate::config::is_instance_name;

/// Removes everything that portok made on this machine. Without `force`, only reports what it would
/// do.
///
/// # Errors
/// A daemon cannot be stopped, or a file cannot be removed.
pub(crate) async fn clean(
    places: &Places,
    force: bool,
    daemons: &dyn Daemons,
) -> Result<HostReport, HostFailure> {
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
    let mut report = HostReport { dry_run: !force, ..HostReport::default() };
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
        end(name, called, true, daemons, &mut report).await?;
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

fn keep_folder(folder: &Path, report: &mut HostReport) {
    report.step("kept", format!("{}, which holds what is not portok's", folder.display()));
}

/// Whether `report` lists work that was not done.
pub(crate) fn has_work(report: &HostReport) -> bool {
    report.steps.iter().any(|step| step.action.starts_with("would"))
}

/// The `NAME` in `portok@NAME.service`.
fn instance_of(unit: &str) -> Option<String> {
    let name = unit.strip_prefix("portok@")?;
    let name = name.strip_suffix(".service").or_else(|| name.strip_suffix(".socket"))?;
    is_instance_name(name).then(|| name.to_owned())
}

/// Whether `path` is the drop-in folder of one instance, such as `portok@api.service.d`.
fn is_drop_in_folder(path: &Path) -> bool {
    let unit = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".d"));
    unit.and_then(instance_of).is_some() && path.is_dir()
}

/// The unit files that `init` and `add` wrote, and the files of the same names that they did not
/// write.
fn units_of(places: &Places) -> Result<(Vec<PathBuf>, Vec<PathBuf>), HostFailure> {
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
    fn only_names_of_instances_are_taken_from_systemd() {
        assert_eq!(instance_of("portok@api.service").as_deref(), Some("api"));
        assert_eq!(instance_of("portok@api.socket").as_deref(), Some("api"));
        for other in ["portok@.service", "portok@a\\x2fb.service", "portok@api.slice", "api.service"] {
            assert_eq!(instance_of(other), None, "{other}");
        }
    }
}
