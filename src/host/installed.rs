//! What is installed on this machine: the units that systemd reads, and the portokd beside this
//! program.

use std::path::PathBuf;

use super::failure::{HostCode, HostFailure};
use super::places::Places;
use super::{files, unit};
use crate::plain::describe_io;

/// A unit file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnitFile {
    /// Its path.
    pub(crate) path: PathBuf,
    /// Its text.
    pub(crate) text: String,
}

/// The unit `name` of a package.
///
/// # Errors
/// It exists and cannot be read.
pub(crate) fn packaged(places: &Places, name: &str) -> Result<Option<UnitFile>, HostFailure> {
    for folder in &places.packaged {
        let path = folder.join(name);
        if let Some(text) = files::read(&path)? {
            return Ok(Some(UnitFile { path, text }));
        }
    }
    Ok(None)
}

/// The unit `name` that systemd uses: the administrator's, else the package's.
///
/// # Errors
/// It exists and cannot be read.
pub(crate) fn effective(places: &Places, name: &str) -> Result<Option<UnitFile>, HostFailure> {
    let path = places.units.join(name);
    match files::read(&path)? {
        Some(text) => Ok(Some(UnitFile { path, text })),
        None => packaged(places, name),
    }
}

/// The user that portokd runs as under systemd, if it is not root. The unit and its drop-ins name
/// it, read in systemd's order.
///
/// # Errors
/// One of them cannot be read.
pub(crate) fn user(places: &Places) -> Result<Option<nix::unistd::User>, HostFailure> {
    let mut texts: Vec<_> =
        effective(places, unit::SERVICE_NAME)?.map(|unit| unit.text).into_iter().collect();
    for path in files::entries(&places.units.join(format!("{}.d", unit::SERVICE_NAME)))? {
        if path.extension().is_some_and(|ending| ending == "conf") {
            texts.extend(files::read(&path)?);
        }
    }
    let name = unit::user(texts.iter().map(String::as_str));
    let user = name.and_then(|name| nix::unistd::User::from_name(&name).ok().flatten());
    Ok(user.filter(|user| !user.uid.is_root()))
}

/// The portokd in the folder of this portok. The two are installed together.
///
/// # Errors
/// There is none.
pub(crate) fn portokd_beside() -> Result<PathBuf, HostFailure> {
    let own = std::env::current_exe().map_err(|error| {
        let message = format!("cannot find out where this portok lies: {}", describe_io(&error));
        HostFailure::new(HostCode::Failed, message, "is /proc mounted?")
    })?;
    let portokd = own.with_file_name("portokd");
    if portokd.is_file() {
        return Ok(portokd);
    }
    let message = format!("there is no portokd beside {}", own.display());
    Err(HostFailure::new(HostCode::Failed, message, "install both programs into one folder"))
}
