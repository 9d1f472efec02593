//! What a change of the configuration needs. Pure.

use super::Config;
use super::keys::{Key, OnChange, keys};
use super::show::Secrets;

/// The difference between the configuration in force and a new one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// The dotted keys that differ, in the order in which they are shown, without their values.
    pub changed: Vec<String>,
    /// Whether the address to listen on differs.
    pub listen: bool,
    /// Whether the admin socket or its group differs.
    pub socket: bool,
    /// Changes that a running daemon cannot make, each with the reason. Any of them refuses the
    /// whole reload.
    pub refused: Vec<String>,
}

impl Diff {
    /// Whether both configurations are the same.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty()
    }
}

/// Compares the configuration in force with a new one.
pub fn diff(old: &Config, new: &Config) -> Diff {
    let value = |config, key: &Key| key.show(config, Secrets::Shown);
    let mut diff = Diff::default();
    for key in keys().filter(|key| value(old, key) != value(new, key)) {
        diff.changed.push(key.name.to_owned());
        match key.on_change {
            OnChange::Apply => {}
            OnChange::Rebind => diff.listen = true,
            OnChange::ReopenSocket => diff.socket = true,
            OnChange::Refuse(why) => {
                let name = key.name;
                let [old, new] = [old, new].map(|config| value(config, key).unwrap_or_default());
                diff.refused
                    .push(format!("{name} cannot change from {old} to {new} in a running daemon: {why}"));
            }
        }
    }
    diff
}

#[cfg(test)]
mod tests {
    use super::super::tests::Case;
    use super::*;

    fn between(old: &str, new: &str) -> Diff {
        diff(&Case::comparable(old), &Case::comparable(new))
    }

    const APP: &str = "[app]\ncommand = \"node a.js\"\n";

    #[test]
    fn the_same_is_no_change() {
        let same = between(APP, &format!("listen = 3000\n\n{APP}stop_timeout = \"10000ms\" # as before\n"));
        assert_eq!(same, Diff::default());
        assert!(same.is_empty());
    }

    #[test]
    fn changed_keys_are_named_without_their_values() {
        let changed = between(
            "[admin]\ntoken = \"hunter2-hunter2-a\"\n[app]\nenv = { API_KEY = \"hunter3\" }\n",
            "listen = 4000\n[admin]\ntoken = \"hunter2-hunter2-b\"\n[app]\nenv = { API_KEY = \"hunter4\" }\n\
             [health]\ntimeout = \"1s\"\n[hooks]\non_event = [\"x\"]\n",
        );
        assert_eq!(changed.changed, ["listen", "app.env", "health.timeout", "admin.token", "hooks.on_event"]);
        assert!(changed.listen && changed.refused.is_empty());
        assert!(!format!("{changed:?}").contains("hunter"));
    }

    #[test]
    fn what_is_fixed_is_refused_with_the_reason() {
        let old = Case::comparable("[proxy]\nthreads = 1\n");
        let mut new = Case::comparable("name = \"web\"\n[proxy]\nthreads = 2\n");
        new.state_file = "/elsewhere".into();
        let refused = diff(&old, &new).refused;
        assert_eq!(refused.len(), 3, "{refused:?}");
        assert!(refused[0].starts_with("name cannot change from \"api\" to \"web\""), "{refused:?}");
        assert!(refused[1].starts_with("state_file cannot change from \"/state\" to \"/elsewhere\""));
        assert!(refused[2].starts_with("proxy.threads cannot change from 1 to 2"), "{refused:?}");
        assert!(refused.iter().all(|reason| reason.ends_with("restart portokd")));
    }
}
