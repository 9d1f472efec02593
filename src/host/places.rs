//! The folders of portok's files on this machine. Pure: the environment is a parameter.

use std::path::{Path, PathBuf};

/// The default folder of configurations.
pub(crate) const CONFIG: &str = "/etc/portok";
/// The default folder of state files.
pub(crate) const STATE: &str = "/var/lib/portok";
/// The default folder of the administrator's units.
const UNITS: &str = "/etc/systemd/system";
/// The folders of a package's units.
const PACKAGED: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];

/// The folders of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    /// `NAME.toml`, `NAME.env`, `NAME.token`.
    pub(crate) config: PathBuf,
    /// `NAME.json`, and `NAME/NAME.json` under systemd.
    pub(crate) state: PathBuf,
    /// The units that `init` writes.
    pub(crate) units: PathBuf,
    /// The folders of packages' units. Empty if `units` was moved: then that folder stands for all
    /// of them.
    pub(crate) packaged: Vec<PathBuf>,
    /// `PORTOK_FLAVOR`: `NAME_FLAVOR.toml` stands in the place of `NAME.toml`.
    pub(crate) flavor: Option<String>,
}

impl Places {
    /// The folders according to this process's environment.
    pub(crate) fn of_process() -> Self {
        let set = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty());
        let flavor = set("PORTOK_FLAVOR").map(|flavor| flavor.to_string_lossy().trim().to_owned());
        Self {
            flavor: flavor.filter(|flavor| !flavor.is_empty()),
            ..Self::from(|variable| set(variable).map(PathBuf::from))
        }
    }

    /// The folders according to `moved`, which looks up a variable.
    pub(crate) fn from(moved: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let place = |variable, default: &str| {
            let folder = moved(variable).unwrap_or_else(|| PathBuf::from(default));
            std::path::absolute(&folder).unwrap_or(folder)
        };
        let units = place("PORTOK_UNIT_DIR", UNITS);
        let packaged =
            if units == Path::new(UNITS) { PACKAGED.map(PathBuf::from).to_vec() } else { Vec::new() };
        Self {
            config: place("PORTOK_CONFIG_DIR", CONFIG),
            state: place("PORTOK_STATE_DIR", STATE),
            units,
            packaged,
            flavor: None,
        }
    }

    /// Whether the configuration folder is not the default one, so that units must name it.
    pub(crate) fn is_config_moved(&self) -> bool {
        self.config != Path::new(CONFIG)
    }

    /// Whether the state folder is not the default one, so that units must name it.
    pub(crate) fn is_state_moved(&self) -> bool {
        self.state != Path::new(STATE)
    }

    /// The lock file that `add` holds while it chooses ports and writes. No instance's name begins
    /// with a dot.
    pub(crate) fn lock(&self) -> PathBuf {
        self.config.join(".add.lock")
    }

    /// The folder in which every file is an app of `instance`, if it has several. The caller has
    /// validated the name.
    pub(crate) fn apps(&self, instance: &str) -> PathBuf {
        self.config.join(format!("{}.d", self.instance_of(instance).unwrap_or(instance)))
    }

    /// `NAME.toml`, `NAME.env` or `NAME.token` of an instance. The caller has validated the name.
    pub(crate) fn file(&self, name: &str, ending: &str) -> PathBuf {
        let name = self.instance_of(name).unwrap_or(name);
        match &self.flavor {
            Some(flavor) if ending == "toml" => self.config.join(format!("{name}_{flavor}.toml")),
            _ => self.config.join(format!("{name}.{ending}")),
        }
    }

    /// The instance of which `stem` is the main file's name: `edge` of `edge_test` in the flavor
    /// `test`. `None`: a file of that name is none in the flavor.
    pub(crate) fn instance_of<'a>(&self, stem: &'a str) -> Option<&'a str> {
        match &self.flavor {
            Some(flavor) => stem.strip_suffix(flavor.as_str())?.strip_suffix('_'),
            None => Some(stem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moved_units_have_no_package_beside_them() {
        let usual = Places::from(|_| None);
        assert_eq!(usual.config, Path::new("/etc/portok"));
        assert_eq!(usual.packaged.len(), 2);
        assert!(!usual.is_config_moved() && !usual.is_state_moved());
        let moved = Places::from(|variable| Some(format!("/t/{variable}").into()));
        assert_eq!(moved.units, Path::new("/t/PORTOK_UNIT_DIR"));
        assert!(moved.packaged.is_empty() && moved.is_config_moved() && moved.is_state_moved());
        assert_eq!(moved.file("api", "env"), Path::new("/t/PORTOK_CONFIG_DIR/api.env"));
        let test = Places { flavor: Some("test".into()), ..usual };
        for name in ["edge", "edge_test"] {
            let files = ["toml", "env", "token"].map(|ending| test.file(name, ending));
            assert_eq!(
                files,
                ["edge_test.toml", "edge.env", "edge.token"].map(|file| test.config.join(file))
            );
            assert_eq!(test.apps(name), test.config.join("edge.d"));
        }
    }
}
