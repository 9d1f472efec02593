//! What a change of the configuration needs. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::keys::{Key, Kind, OnChange, holds_for_redis, keys};
use super::show::Secrets;
use super::{AppConfig, Config, Several};

/// The difference between the configuration in force and a new one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// The dotted keys that differ, in the order in which they are shown, without their values.
    /// Those of several apps are in `apps`.
    pub changed: Vec<String>,
    /// Whether the addresses to listen on differ.
    pub listen: bool,
    /// Whether the admin socket or its group differs.
    pub socket: bool,
    /// What differs among several apps.
    pub apps: AppsDiff,
    /// Changes that a running daemon cannot make, each with the reason. Any of them refuses the
    /// whole reload.
    pub refused: Vec<String>,
}

/// What differs among several apps. Apps whose file is refused differ in nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AppsDiff {
    /// Apps that are new, by name.
    pub added: Vec<String>,
    /// Apps that are gone.
    pub removed: Vec<String>,
    /// Apps that stay, with the keys that differ, such as `apps.api.health.path`.
    pub changed: BTreeMap<String, Vec<String>>,
}

impl Diff {
    /// Whether both configurations are the same.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.apps == AppsDiff::default()
    }
}

/// Compares the configuration in force with a new one.
pub fn diff(old: &Config, new: &Config) -> Diff {
    let value = |config, key: &Key| key.show(config, Secrets::Shown);
    let mut diff = Diff::default();
    for key in keys().filter(|key| key.is_in(new) && value(old, key) != value(new, key)) {
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
    if let (Some(old), Some(new)) = (&old.redis, &new.redis) {
        diff.changed.append(&mut changed_keys(&old.app, &new.app, "redis.app", holds_for_redis));
    }
    match (&old.apps, &new.apps) {
        (None, None) => {}
        (Some(old), Some(new)) => diff.apps = between(old, new),
        (before, _) => {
            let (from, to) = if before.is_none() { ("one app", "several") } else { ("several apps", "one") };
            diff.changed.push("apps".to_owned());
            diff.refused.push(format!(
                "apps: an instance cannot change from {from} to {to} in a running daemon: its record is another; \
                 restart portokd"
            ));
        }
    }
    diff
}

/// What differs among several apps.
fn between(old: &Several, new: &Several) -> AppsDiff {
    let mut diff = AppsDiff::default();
    // Of a folder that cannot be read nothing is known, and of a file that is not valid neither.
    let is_known = |name: &String| new.unreadable.is_none() && !new.refused.contains_key(name);
    let gone = old.apps.keys().filter(|name| !new.apps.contains_key(*name) && is_known(name));
    diff.removed = gone.cloned().collect();
    for (name, app) in &new.apps {
        match old.apps.get(name) {
            None => diff.added.push(name.clone()),
            Some(before) if Arc::ptr_eq(before, app) || before == app => {}
            Some(before) => {
                let kinds = [Kind::of(before), Kind::of(app)];
                let can_use = |key: &str| kinds.into_iter().flatten().any(|kind| kind.can_use(key));
                let changed = changed_keys(before, app, &format!("apps.{name}"), can_use);
                if !changed.is_empty() {
                    diff.changed.insert(name.clone(), changed);
                }
            }
        }
    }
    diff
}

/// The keys in which two configurations of an app differ, among those that it can use, as they
/// stand below `table`.
fn changed_keys(
    old: &AppConfig,
    new: &AppConfig,
    table: &str,
    can_use: impl Fn(&str) -> bool,
) -> Vec<String> {
    let value = |app, key: &Key| key.show_app(app, Secrets::Shown);
    let differs = |key: &&Key| can_use(key.name) && value(old, key) != value(new, key);
    let in_app = |key: &Key| key.name.strip_prefix("app.").unwrap_or(key.name);
    let mut changed: Vec<_> = keys()
        .filter(|key| key.is_of_an_app())
        .filter(differs)
        .map(|key| format!("{table}.{}", in_app(key)))
        .collect();
    if old.health.is_set != new.health.is_set {
        let own = if old.health.is_set { &old.health } else { &new.health };
        let key = format!("{table}.{}", own.key());
        if !changed.contains(&key) {
            changed.push(key);
        }
    }
    changed
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
