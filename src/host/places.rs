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
}

impl Places {
    /// The folders according to this process's environment.
    pub(crate) fn of_process() -> Self {
        Self::from(|variable| std::env::var_os(variable).filter(|dir| !dir.is_empty()).map(PathBuf::from))
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
        self.config.join(format!("{instance}.d"))
    }

    /// `NAME.toml`, `NAME.env` or `NAME.token` of an instance. The caller has validated the name.
    pub(crate) fn file(&self, name: &str, ending: &str) -> PathBuf {
        self.config.join(format!("{name}.{ending}"))
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
    }
}
