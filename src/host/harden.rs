//! The unit of an instance whose app portok does not start: portokd has no child there that could need rights, so a
//! drop-in takes them away.

use std::path::PathBuf;

use super::failure::HostFailure;
use super::files::{self, Existing, Readers};
use super::instances::Instance;
use super::places::Places;
use super::report::HostReport;
use super::systemctl::{self, Trouble};
use super::{installed, unit};
use crate::config::Config;

/// Whether portokd starts nothing for an instance with this configuration.
pub(super) fn fits(config: &Config) -> bool {
    config.app.app.target.is_some() && config.app.app.command.is_none()
}

/// Where the drop-in of `instance` lies.
pub(super) fn path(places: &Places, instance: &str) -> PathBuf {
    places.units.join(unit::hardened_of(instance))
}

/// The drop-in of `instance`, where portok wrote one.
///
/// # Errors
/// It is there and cannot be read.
pub(super) fn written(places: &Places, instance: &str) -> Result<Option<PathBuf>, HostFailure> {
    let path = path(places, instance);
    Ok(files::read(&path)?.filter(|text| unit::is_ours(text)).map(|_| path))
}

/// The drop-ins that these instances should have.
pub(super) fn wanted(places: &Places, instances: &[Instance]) -> Vec<PathBuf> {
    let fits = |instance: &&Instance| instance.config.as_ref().is_ok_and(fits);
    instances.iter().filter(fits).map(|instance| path(places, &instance.name)).collect()
}

/// Writes the drop-in of a new `instance`, or takes away that of the one it replaces. Where there is no unit yet, `init` does it
/// later. An instance serves without it, too: what goes wrong is said and ends nothing.
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

/// Takes the drop-in away, and its folder where nothing else is in it; whether there was one.
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

/// Has systemd read its units again, where there is one.
pub(super) fn read_again(report: &mut HostReport) {
    match systemctl::systemctl(&["daemon-reload"]) {
        Ok(_) | Err(Trouble::Missing | Trouble::NotRunning) => {}
        Err(trouble) => report.note(format!("systemd did not read the units again: {}", trouble.describe())),
    }
}
