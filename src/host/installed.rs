//! What is installed on this host: the units that systemd would read.

use std::path::PathBuf;

use super::places::Places;
use super::{files, unit};
use crate::cli::failure::Failure;

/// A unit file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Where it lies.
    pub(crate) path: PathBuf,
    /// What it says.
    pub(crate) text: String,
}

/// The package's unit of that name.
///
/// # Errors
/// It is there and cannot be read.
pub(crate) fn packaged(places: &Places, name: &str) -> Result<Option<Unit>, Failure> {
    for folder in &places.packaged {
        let path = folder.join(name);
        if let Some(text) = files::read(&path)? {
            return Ok(Some(Unit { path, text }));
        }
    }
    Ok(None)
}

/// The unit that systemd uses: the administrator's, else the package's.
///
/// # Errors
/// It is there and cannot be read.
pub(crate) fn effective(places: &Places, name: &str) -> Result<Option<Unit>, Failure> {
    let path = places.units.join(name);
    match files::read(&path)? {
        Some(text) => Ok(Some(Unit { path, text })),
        None => packaged(places, name),
    }
}

/// The user that portokd runs as under systemd, where it is another than root: as the unit and its drop-ins say, in
/// the order in which systemd reads them.
///
/// # Errors
/// One of them cannot be read.
pub(crate) fn user(places: &Places) -> Result<Option<nix::unistd::User>, Failure> {
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
