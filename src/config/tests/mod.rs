//! Loading, from sources in a folder to a configuration or its problems.

mod limits;
mod places;
mod readme;
mod rejected;
mod several;
mod several_files;
mod shown;
mod sources;
mod tls;
mod trust;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::files::Who;
use super::limits::Host;
use super::load::load_as;
use super::*;

/// Sources in a folder of their own.
pub(super) struct Case {
    pub(super) dir: tempfile::TempDir,
    pub(super) sources: Sources,
    pub(super) who: Who,
    pub(super) host: Host,
}

impl Case {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let owner = fs::metadata(dir.path()).unwrap();
        let mut case = Self {
            sources: Sources::default(),
            who: Who { uid: owner.uid(), gid: owner.gid(), groups: vec![owner.gid()] },
            host: able(),
            dir,
        };
        for folder in ["state", "etc", "run"] {
            fs::create_dir(case.path(folder)).unwrap();
        }
        let [state, etc] = [case.path("state"), case.path("etc")].map(|path| path.display().to_string());
        case.set("PORTOK_STATE_DIR", &state);
        case.set("PORTOK_CONFIG_DIR", &etc);
        case
    }

    /// A TOML file with this text.
    pub(super) fn file(text: &str) -> Self {
        let mut case = Self::new();
        case.write("api.toml", text);
        case.sources.file = Some(case.config());
        case
    }

    /// The configuration of a file with this text, without what differs from case to case: each has
    /// a folder of its own.
    pub(super) fn comparable(text: &str) -> Config {
        Config { state_file: "/state".into(), ..Self::file(text).good() }
    }

    /// The least environment that configures alone.
    pub(super) fn environment() -> Self {
        let mut case = Self::new();
        case.set("INITIAL_TARGET_PORT", "8080");
        case.set("ADMIN_TOKEN", "0123456789abcdef");
        case
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn config(&self) -> PathBuf {
        self.path("api.toml")
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        mode(&path, 0o600);
        path
    }

    /// The file of an app of its own.
    pub(super) fn app(&self, name: &str, text: &str) -> PathBuf {
        let _there_already = fs::create_dir(self.path("api.d"));
        mode(&self.path("api.d"), 0o755);
        self.write(&format!("api.d/{name}.toml"), text)
    }

    pub(super) fn set(&mut self, variable: &str, value: &str) {
        self.sources.env.insert(variable.to_owned(), value.to_owned());
    }

    pub(super) fn load(&self) -> Result<Config, ConfigErrors> {
        load_as(&self.sources, &self.who, &self.host)
    }

    pub(super) fn good(&self) -> Config {
        self.load().unwrap_or_else(|errors| panic!("refused: {errors}"))
    }

    pub(super) fn problems(&self) -> Vec<String> {
        match self.load() {
            Err(errors) => errors.problems,
            Ok(config) => panic!("accepted: {}", config.effective_toml()),
        }
    }
}

/// A host that can hold apps to every limit.
fn able() -> Host {
    let controllers = ["cpu", "memory", "pids"].map(str::to_owned).into();
    Host { uid: 0, open_files: 524_288, systemd: true, systemd_run: true, controllers }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn warned(config: &Config, part: &str) -> bool {
    config.warnings.iter().any(|warning| warning.contains(part))
}
