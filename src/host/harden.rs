//! Hardens the unit of an instance whose app is unmanaged. Its portokd has no child that could need
//! rights, so a drop-in takes the rights away.

use std::path::PathBuf;

use super::failure::HostFailure;
use super::files::{self, Existing, Readers};
use super::instances::Instance;
use super::places::Places;
use super::report::HostReport;
use super::systemctl::{self, Trouble};
use super::{installed, unit};
use crate::config::Config;

/// Whether an instance with this configuration has only an unmanaged app. One of several apps may
/// get a command at any time.
pub(super) fn fits(config: &Config) -> bool {
    config.apps.is_none() && config.app.app.target.is_some() && config.app.app.command.is_none()
}

/// The path of the drop-in of `instance`.
pub(super) fn path(places: &Places, instance: &str) -> PathBuf {
    places.units.join(unit::hardened_of(instance))
}

/// The path of the drop-in of `instance`, if portok wrote one.
///
/// # Errors
/// It exists and cannot be read.
pub(super) fn written(places: &Places, instance: &str) -> Result<Option<PathBuf>, HostFailure> {
    let path = path(places, instance);
    Ok(files::read(&path)?.filter(|text| unit::is_ours(text)).map(|_| path))
}

/// The drop-ins that these instances should have.
pub(super) fn wanted(places: &Places, instances: &[Instance]) -> Vec<PathBuf> {
    let fits = |instance: &&Instance| instance.config.as_ref().is_ok_and(fits);
    instances.iter().filter(fits).map(|instance| path(places, &instance.name)).collect()
}

/// Writes the drop-in of a new `instance`, or removes that of the instance that it replaces. If
/// there is no unit yet, `init` does it later. An instance also serves without it, so a failure is
/// only noted in the report.
pub(super) fn bring_about(places: &Places, instance: &str, is_hardened: bool, report: &mut HostReport) {
    let result =
        if is_hardened { write(places, instance, report) } else { take_away(places, instance, report) };
    match result {
        Ok(true) => read_again(report),
        Ok(false) => {}
        Err(failure) => {
            report.note(format!("the unit of `{instance}` is as it was: {}", failure.message));
        }
    }
}

fn write(places: &Places, instance: &str, report: &mut HostReport) -> Result<bool, HostFailure> {
    if installed::effective(places, unit::SERVICE_NAME)?.is_none() {
        return Ok(false);
    }
    let path = path(places, instance);
    let found = files::read(&path)?;
    if found.as_deref().is_some_and(|text| !unit::is_ours(text) || text == unit::hardened()) {
        report.step("kept", path.display());
        return Ok(false);
    }
    if let Some(folder) = path.parent() {
        files::make_folder(folder)?;
    }
    files::write(&path, &unit::hardened(), Readers::Everybody, Existing::Replace)?;
    report.step(if found.is_none() { "created" } else { "updated" }, path.display());
    Ok(true)
}

/// Removes the drop-in, and its folder if it is empty then. Returns whether there was one.
///
/// # Errors
/// It cannot be read or removed.
pub(super) fn take_away(
    places: &Places,
    instance: &str,
    report: &mut HostReport,
) -> Result<bool, HostFailure> {
    let Some(path) = written(places, instance)? else { return Ok(false) };
    files::remove(&path)?;
    report.step("removed", path.display());
    path.parent().map(files::remove_if_empty);
    Ok(true)
}

/// Makes systemd read its units again, if systemd runs this machine.
pub(super) fn read_again(report: &mut HostReport) {
    match systemctl::systemctl(&["daemon-reload"]) {
        Ok(_) | Err(Trouble::Missing | Trouble::NotRunning) => {}
        Err(trouble) => report.note(format!("systemd did not read the units again: {}", trouble.describe())),
    }
}
