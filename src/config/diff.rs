//! What a change of the configuration needs. Pure.

use super::keys::KEYS;
use super::render::{self, Secrets};
use super::{App, CommandLine, Config};

/// The difference between the configuration in force and a new one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// The dotted keys that differ, in the order of the contract. Values are not in it.
    pub changed: Vec<String>,
    /// Another address to listen on.
    pub listen: bool,
    /// What becomes of the app.
    pub app: AppChange,
    /// Changes that a running daemon cannot make, each with the reason. Any of them refuses the whole reload.
    pub refused: Vec<String>,
}

impl Diff {
    /// Whether both configurations are the same.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty()
    }
}

/// What an edit of `[app]` asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AppChange {
    /// Nothing: what makes a release is the same, or `deploy_on_change` is off, or nothing is left to run.
    #[default]
    None,
    /// A deploy of the new `[app]`.
    Redeploy,
    /// A switch to the new `app.target`.
    Switch(u16),
}

/// What cannot change while the daemon runs, and why.
const FIXED: &[(&str, &str)] = &[
    ("name", "the instance's socket and files carry it; restart portokd"),
    ("state_file", "the record in use cannot move; restart portokd"),
    ("proxy.threads", "the threads are started once; restart portokd"),
];

/// Compares the configuration in force with a new one.
pub fn diff(old: &Config, new: &Config) -> Diff {
    let value = |config, key| render::value(config, key, Secrets::Shown);
    let changed: Vec<_> =
        KEYS.iter().map(|key| key.name).filter(|key| value(old, key) != value(new, key)).collect();
    let refused = FIXED
        .iter()
        .filter(|(key, _)| changed.contains(key))
        .map(|(key, why)| {
            let [old, new] = [old, new].map(|config| value(config, key).unwrap_or_default());
            format!("{key} cannot change from {old} to {new} in a running daemon: {why}")
        })
        .collect();
    Diff {
        listen: changed.contains(&"listen"),
        app: app_change(&old.app, &new.app),
        refused,
        changed: changed.into_iter().map(str::to_owned).collect(),
    }
}

fn app_change(old: &App, new: &App) -> AppChange {
    if !new.deploy_on_change || app_fingerprint(old) == app_fingerprint(new) {
        return AppChange::None;
    }
    match (&new.command, new.target) {
        (Some(_), _) => AppChange::Redeploy,
        (None, Some(port)) => AppChange::Switch(port),
        (None, None) => AppChange::None,
    }
}

/// What makes a release of `app` the one it is, as a short text: equal for equal releases, kept on disk to tell
/// whether `[app]` differs from the one that was attempted last.
///
/// Of an app that portok starts: command, directory, env, env_file, user, group, port_env. Of one that
/// somebody else starts: its port alone. It is the FNV-1a hash with 128 bits, in hex, of one record a key that is
/// set and not the default, so that a key that a later version adds changes nothing until it is used. A record is
/// the key, `=`, the value's length in decimal, `:`, the value, a line feed. Whoever writes the configuration is
/// trusted: a forged collision would only keep an own edit from being deployed.
pub fn app_fingerprint(app: &App) -> String {
    let mut hash = Fnv::new();
    match (&app.command, app.target) {
        (None, Some(port)) => hash.record("target", &port.to_string()),
        (command, _) => {
            match command {
                Some(CommandLine::Shell(text)) => hash.record("command", text),
                Some(CommandLine::Exec(words)) => {
                    words.iter().for_each(|word| hash.record("command.word", word));
                }
                None => {}
            }
            let path = |path: &std::path::PathBuf| path.to_string_lossy().into_owned();
            let optional = [
                ("directory", app.directory.as_ref().map(path)),
                ("env_file", app.env_file.as_ref().map(path)),
                ("user", app.user.clone()),
                ("group", app.group.clone()),
                ("port_env", Some(app.port_env.clone()).filter(|name| name != "PORT")),
            ];
            for (key, value) in optional {
                if let Some(value) = value {
                    hash.record(key, &value);
                }
            }
            for (name, value) in &app.env {
                hash.record("env.name", name);
                hash.record("env.value", value);
            }
        }
    }
    format!("{:032x}", hash.0)
}

/// FNV-1a with 128 bits (draft-eastlake-fnv, section 5).
struct Fnv(u128);

impl Fnv {
    fn new() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    fn record(&mut self, key: &str, value: &str) {
        let length = value.len().to_string();
        for part in [key, "=", &length, ":", value, "\n"] {
            for byte in part.bytes() {
                self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
            }
        }
    }
}
