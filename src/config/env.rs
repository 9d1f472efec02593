//! The environment's side of the configuration: variables and the folders of the system.
//!
//! An empty variable counts as not set: that is how unit files and container definitions leave one
//! out. [`mod@super::keys`] has the variable of each key, [`super::values`] the forms of values.
//! Pure: the environment is handed in, as it was when the process started.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The environment as the configuration reads it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Env<'a>(pub(super) &'a BTreeMap<String, String>);

impl<'a> Env<'a> {
    /// The value of `variable` without spaces around it; `None` if it is not set or empty.
    pub(super) fn get(self, variable: &str) -> Option<&'a str> {
        self.0.get(variable).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// The absolute path in `variable`. Relative paths are ignored, as the XDG specification
    /// demands.
    pub(super) fn folder(self, variable: &str) -> Option<&'a Path> {
        self.get(variable).map(Path::new).filter(|path| path.is_absolute())
    }

    /// Which of an instance's files is read in place of `<name>.toml`: `<name>_<flavor>.toml`.
    pub(super) fn flavor(self) -> Option<&'a str> {
        self.get("PORTOK_FLAVOR")
    }

    /// Where `<name>.toml` lies: `PORTOK_CONFIG_DIR`, else `/etc/portok`.
    pub(super) fn config_dir(self) -> PathBuf {
        self.get("PORTOK_CONFIG_DIR").unwrap_or("/etc/portok").into()
    }

    /// Where `<name>.json` lies if systemd did not choose: `PORTOK_STATE_DIR`, else
    /// `/var/lib/portok`.
    pub(super) fn state_dir(self) -> PathBuf {
        self.get("PORTOK_STATE_DIR").unwrap_or("/var/lib/portok").into()
    }
}
