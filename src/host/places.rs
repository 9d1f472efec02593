//! Where portok's files lie on this host. Pure: the environment is handed in.

use std::path::{Path, PathBuf};

/// Where configurations lie unless moved.
pub(crate) const CONFIG: &str = "/etc/portok";
/// Where state lies unless moved.
pub(crate) const STATE: &str = "/var/lib/portok";
/// Where an administrator's units lie unless moved.
const UNITS: &str = "/etc/systemd/system";
/// Where a package's units lie.
const PACKAGED: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];

/// The folders of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    /// `NAME.toml`, `NAME.env`, `NAME.token`.
    pub(crate) config: PathBuf,
    /// `NAME.json`, and `NAME/NAME.json` under systemd.
    pub(crate) state: PathBuf,
    /// The units that `init` writes.
    pub(crate) units: PathBuf,
    /// The units of packages. None where `units` was moved: then that folder is the whole of systemd's world.
    pub(crate) packaged: Vec<PathBuf>,
}

impl Places {
    /// Those of this process.
    pub(crate) fn of_process() -> Self {
        Self::from(|variable| std::env::var_os(variable).filter(|dir| !dir.is_empty()).map(PathBuf::from))
    }

    /// As `moved` says by variable.
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

    /// Whether the configurations lie elsewhere than a unit expects by itself.
    pub(crate) fn is_config_moved(&self) -> bool {
        self.config != Path::new(CONFIG)
    }

    /// Whether state lies elsewhere than a unit expects by itself.
    pub(crate) fn is_state_moved(&self) -> bool {
        self.state != Path::new(STATE)
    }

    /// What an `add` holds while it chooses and writes. No instance's name begins with a dot.
    pub(crate) fn lock(&self) -> PathBuf {
        self.config.join(".add.lock")
    }

    /// `NAME.toml`, `NAME.env` or `NAME.token` of an instance. The name was checked when it was typed or listed.
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
