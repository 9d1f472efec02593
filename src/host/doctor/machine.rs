//! The checks of the machine itself: programs, units, systemd, folders.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::super::places::Places;
use super::super::systemctl::{Trouble, systemctl};
use super::super::{files, installed, unit};
use super::{Check, bad, good, unknown, warning};
use crate::plain::describe_io;

/// portok, the portokd beside it and the portokd that systemd starts have the same version.
pub(super) fn programs(places: &Places) -> Vec<Check> {
    let own = env!("CARGO_PKG_VERSION");
    let portokd = match installed::portokd_beside() {
        Ok(portokd) => portokd,
        Err(_) => {
            let hint = "install both programs of one version into one folder";
            return vec![bad("version", format!("portok {own} has no portokd beside it"), hint)];
        }
    };
    let mut programs = vec![portokd.clone()];
    let started = installed::effective(places, unit::SERVICE_NAME).ok().flatten();
    let started = started.and_then(|unit| unit::program(&unit.text));
    programs.extend(started.filter(|program| *program != portokd && program.is_file()));
    programs.iter().map(|program| version(program, own)).collect()
}

fn version(program: &Path, own: &str) -> Check {
    let shown = program.display();
    let said = match Command::new(program).arg("--version").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => {
            let text = format!("{shown} cannot be run: {}", describe_io(&error));
            return bad("version", text, "install portok again");
        }
    };
    if said == format!("portokd {own}") {
        good("version", format!("portok and {shown} are of version {own}"))
    } else {
        let text = format!("portok is of version {own}, {shown} says {said:?}");
        bad("version", text, "install both programs of one version")
    }
}

/// The unit template exists once, and starts a program that exists.
pub(super) fn unit_files(places: &Places) -> Vec<Check> {
    let unit = match installed::effective(places, unit::SERVICE_NAME) {
        Ok(Some(unit)) => unit,
        Ok(None) => return vec![bad("unit", format!("there is no {}", unit::SERVICE_NAME), "portok init")],
        Err(failure) => return vec![unknown("unit", failure)],
    };
    let shown = unit.path.display();
    let mut checks = vec![match unit::program(&unit.text) {
        Some(program) if is_executable(&program) => {
            good("unit", format!("{shown} starts {}", program.display()))
        }
        Some(program) => {
            let text = format!("{shown} starts {}, which is no program", program.display());
            bad("unit", text, "portok init (brings the unit up to date), or install portok again")
        }
        None => bad("unit", format!("{shown} starts nothing"), format!("rm {shown}; portok init")),
    }];
    if !unit::stays_down(&unit.text) {
        let text = format!("{shown} is of an older portok: it starts portokd again after `portok shutdown`");
        checks.push(warning(
            "unit",
            text,
            "portok init (brings the unit up to date), or install portok again",
        ));
    }
    let package = installed::packaged(places, unit::SERVICE_NAME).ok().flatten();
    if let Some(package) = package.filter(|package| package.path != unit.path) {
        let text = format!("{shown} hides the package's {}", package.path.display());
        let hint = format!(
            "portok init --force removes it, unless you want it so: then use a drop-in (systemctl edit {})",
            unit::SERVICE_NAME
        );
        checks.push(warning("unit", text, hint));
    }
    if let Ok(Some(user)) = installed::user(places) {
        checks.push(good("unit", format!("portokd runs as {}", user.name)));
    }
    checks
}

fn is_executable(program: &Path) -> bool {
    fs::metadata(program).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

pub(super) fn systemd() -> Check {
    // It fails for every state but `running`.
    let hint = "start portokd --instance NAME by what runs this host";
    match systemctl(&["is-system-running", "--quiet"]) {
        Ok(_) => good("systemd", "systemd runs this host"),
        Err(trouble @ (Trouble::Missing | Trouble::NotRunning)) => bad("systemd", trouble.describe(), hint),
        // Another unit failed, or the machine is still starting. portok's own units are checked
        // below.
        Err(Trouble::Failed(_)) => match systemctl(&["show", "--property=Version"]) {
            Ok(_) => {
                good("systemd", "systemd runs this host (not all of its units are well: systemctl --failed)")
            }
            Err(trouble) => bad("systemd", trouble.describe(), hint),
        },
    }
}

pub(super) fn folder(what: &'static str, path: &Path) -> Check {
    let shown = path.display();
    match files::distrust(path) {
        Ok(None) => good("folder", format!("{shown} for {what}")),
        Ok(Some((why, hint))) => bad("folder", format!("{shown}: {why}"), hint),
        Err(error) => bad("folder", format!("{shown}: {}", describe_io(&error)), "portok init"),
    }
}
