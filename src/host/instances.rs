//! The instances of this machine: every `NAME.toml` and `NAME.env`, read as their daemon would read
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::failure::{HostCode, HostFailure};
use super::places::Places;
use super::{files, installed};
use crate::config::{self, Config, ConfigErrors, Sources, is_instance_name};

/// One instance, according to its files.
#[derive(Debug)]
pub(crate) struct Instance {
    /// The stem of its files.
    pub(crate) name: String,
    /// `NAME.toml` and `NAME.env`, as far as they exist.
    pub(crate) files: Vec<PathBuf>,
    /// Their configuration, or what is wrong with it.
    pub(crate) config: Result<Config, ConfigErrors>,
}

/// How strictly a configuration is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// As a client that wants to know about the instance.
    Lenient,
    /// As strictly as the daemon.
    Strict,
}

/// All instances, sorted by name. A file whose stem is not a valid instance name is ignored.
///
/// # Errors
/// The folder cannot be read.
pub(crate) fn all(places: &Places, reading: Reading) -> Result<Vec<Instance>, HostFailure> {
    let mut names = BTreeSet::new();
    for path in files::entries(&places.config)? {
        let ending = path.extension().and_then(|ending| ending.to_str());
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        if let (Some("toml" | "env"), Some(stem)) = (ending, stem)
            && let Some(name) = if ending == Some("toml") { places.instance_of(stem) } else { Some(stem) }
            && is_instance_name(name)
        {
            names.insert(name.to_owned());
        }
    }
    Ok(names.into_iter().filter_map(|name| find(places, &name, reading)).collect())
}

/// One instance; `None` if it has no file.
pub(crate) fn find(places: &Places, name: &str, reading: Reading) -> Option<Instance> {
    let (toml, env) = (places.file(name, "toml"), places.file(name, "env"));
    let is_there = |path: &PathBuf| std::fs::symlink_metadata(path).is_ok();
    let reading = if belongs_to_daemon(places, name) { Reading::Lenient } else { reading };
    let config = load(places, name, is_there(&env).then_some(&env), reading);
    let files: Vec<_> = [toml, env].into_iter().filter(is_there).collect();
    (!files.is_empty()).then(|| Instance { name: name.to_owned(), files, config })
}

/// One instance, which must exist.
///
/// # Errors
/// It has no file.
pub(crate) fn get(places: &Places, name: &str, reading: Reading) -> Result<Instance, HostFailure> {
    find(places, name, reading).ok_or_else(|| {
        let message = format!(
            "there is no instance `{name}`: neither {} nor {name}.env is in {}",
            places.file(name, "toml").file_name().unwrap_or_default().display(),
            places.config.display()
        );
        HostFailure::new(
            HostCode::NotFound,
            message,
            format!("portok list shows all; make one: portok add {name}"),
        )
    })
}

/// Whether a file of the instance belongs to portokd's own user. That user may use it; another one,
/// such as root, would distrust it.
fn belongs_to_daemon(places: &Places, name: &str) -> bool {
    let Ok(Some(user)) = installed::user(places) else { return false };
    let is_theirs = |path: PathBuf| path.metadata().is_ok_and(|meta| meta.uid() == user.uid.as_raw());
    ["toml", "token"].iter().any(|ending| is_theirs(places.file(name, ending)))
}

fn load(
    places: &Places,
    name: &str,
    env: Option<&PathBuf>,
    reading: Reading,
) -> Result<Config, ConfigErrors> {
    let mut variables = match env {
        Some(file) => config::read_env_file(file, None, None)
            .map_err(|problem| ConfigErrors { problems: vec![problem] })?,
        None => BTreeMap::new(),
    };
    let folders = [("PORTOK_CONFIG_DIR", &places.config), ("PORTOK_STATE_DIR", &places.state)];
    variables.extend(folders.map(|(variable, folder)| (variable.to_owned(), folder.display().to_string())));
    variables.extend(places.flavor.iter().map(|flavor| ("PORTOK_FLAVOR".to_owned(), flavor.clone())));
    config::load(&Sources {
        instance: Some(name.to_owned()),
        env: variables,
        client: reading == Reading::Lenient,
        ..Sources::default()
    })
}

impl Instance {
    /// The name of its daemon and its app in the journal.
    pub(crate) fn called(&self) -> &str {
        self.config.as_ref().map_or(&self.name, |config| &config.name)
    }

    /// The public port.
    pub(crate) fn listen(&self) -> Option<u16> {
        let first = self.config.as_ref().ok()?.listen.first()?;
        Some(first.port()).filter(|port| *port != 0)
    }

    /// Its public port, its target port, and where connections are encrypted; of several apps,
    /// their own addresses too.
    pub(crate) fn ports(&self) -> impl Iterator<Item = u16> {
        let config = self.config.as_ref().ok();
        let target = config.and_then(|config| config.app.app.target);
        let apps =
            config.and_then(|config| config.apps.as_ref()).into_iter().flat_map(|all| all.apps.values());
        let own = apps.flat_map(|app| &app.routes.listen).map(SocketAddr::port);
        let encrypted = config.and_then(|config| config.tls.as_ref()).into_iter().flat_map(|tls| &tls.listen);
        self.listen().into_iter().chain(target).chain(own).chain(encrypted.map(SocketAddr::port))
    }

    /// The first of its files that this user may not read.
    pub(crate) fn closed_file(&self) -> Option<&Path> {
        let is_closed = |file: &&PathBuf| {
            File::open(file).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
        };
        self.files.iter().find(is_closed).map(PathBuf::as_path)
    }

    /// The paths of its files, as a list for people.
    pub(crate) fn file_names(&self) -> String {
        let names: Vec<_> = self.files.iter().map(|file| file.display().to_string()).collect();
        names.join(" + ")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn both_kinds_of_files_are_instances_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().to_owned();
        let places = Places {
            state: config.join("state"),
            units: config.clone(),
            packaged: Vec::new(),
            config,
            flavor: None,
        };
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        write("api.toml", "listen = 3000\n[app]\ncommand = \"true\"\n");
        write("api.token", "x");
        write("api.app.env", "A=1");
        write("web.env", "LISTEN_PORT=80\nINITIAL_TARGET_PORT=8080\nADMIN_TOKEN='0123456789abcdef'\n");
        write("both.toml", "listen = 4000\n");
        write("both.env", "LISTEN_PORT=4001\n");
        write("bad.toml", "listen = \"nowhere\"\n");
        let found = all(&places, Reading::Strict).unwrap();
        let names: Vec<_> = found.iter().map(|instance| instance.name.as_str()).collect();
        assert_eq!(names, ["api", "bad", "both", "web"]);
        assert!(found[1].config.is_err());
        assert_eq!(found[2].listen(), Some(4001));
        assert_eq!(found[2].files.len(), 2);
        assert_eq!(found[3].ports().collect::<Vec<_>>(), [80, 8080]);
        assert_eq!(get(&places, "none", Reading::Strict).unwrap_err().code, HostCode::NotFound);
    }
}
