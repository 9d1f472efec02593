//! What a change of the configuration needs. Pure.

use super::fnv::Fnv;
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
        refused,
        changed: changed.into_iter().map(str::to_owned).collect(),
    }
}

/// What the `[app]` of a configuration asks for, given the [`app_fingerprint`] of the one that was attempted last,
/// `None` when none ever was. Whoever keeps that on disk decides by it, not by the configuration before: an
/// edit that was held back by `deploy_on_change = false` is still due when that ends.
pub fn app_change(attempted: Option<&str>, app: &App) -> AppChange {
    if !app.deploy_on_change || attempted == Some(app_fingerprint(app).as_str()) {
        return AppChange::None;
    }
    match (&app.command, app.target) {
        (Some(_), _) => AppChange::Redeploy,
        (None, Some(port)) => AppChange::Switch(port),
        (None, None) => AppChange::None,
    }
}

/// What makes a release of `app` the one it is, as a short text: equal for equal releases, kept on disk to tell
/// whether `[app]` differs from the one that was attempted last.
///
/// Of an app that portok starts: command, directory, env, env_file, user, group, limits, port_env. Of one that
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
            let limits = &app.limits;
            let optional = [
                ("directory", app.directory.as_ref().map(path)),
                ("env_file", app.env_file.as_ref().map(path)),
                ("user", app.user.clone()),
                ("group", app.group.clone()),
                ("open_files", limits.open_files.map(|files| files.to_string())),
                ("memory", limits.memory.map(|bytes| bytes.to_string())),
                ("cpu", limits.cpu.map(|percent| percent.to_string())),
                ("tasks", limits.tasks.map(|tasks| tasks.to_string())),
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
    hash.hex()
}

#[cfg(test)]
mod tests {
    use super::super::tests::Case;
    use super::*;

    fn config(text: &str) -> Config {
        let case = Case::file(text);
        let mut config = case.good();
        // Each case has a folder of its own.
        config.state_file = "/state".into();
        config
    }

    /// What the new `[app]` asks for when the old one was attempted.
    fn change(old: &str, new: &str) -> AppChange {
        app_change(Some(&app_fingerprint(&config(old).app)), &config(new).app)
    }

    fn between(old: &str, new: &str) -> Diff {
        diff(&config(old), &config(new))
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
    fn what_makes_a_release_deploys_and_the_rest_of_app_does_not() {
        for line in [
            "command = \"node b.js\"",
            "command = [\"node\", \"a.js\"]",
            "command = \"node a.js\"\ndirectory = \"/srv\"",
            "command = \"node a.js\"\nenv = { A = \"b\" }",
            "command = \"node a.js\"\nenv_file = \"/srv/env\"",
            "command = \"node a.js\"\nuser = \"api\"",
            "command = \"node a.js\"\ngroup = \"api\"",
            "command = \"node a.js\"\nport_env = \"APP_PORT\"",
            "command = \"node a.js\"\nopen_files = 100",
            "command = \"node a.js\"\nmemory = \"512MB\"",
            "command = \"node a.js\"\ncpu = \"150%\"",
            "command = \"node a.js\"\ntasks = 200",
        ] {
            let edited = between(APP, &format!("[app]\n{line}\n"));
            assert_eq!(change(APP, &format!("[app]\n{line}\n")), AppChange::Redeploy, "{line}");
            assert_eq!(edited.changed.len(), 1, "{line}: {:?}", edited.changed);
            let held = format!("[app]\n{line}\ndeploy_on_change = false\n");
            assert_eq!(change(APP, &held), AppChange::None, "{line}");
            assert_eq!(change("", &format!("[app]\n{line}\n")), AppChange::Redeploy, "{line}");
        }
        for line in [
            "start_timeout = \"5s\"",
            "stop_signal = \"INT\"",
            "stop_timeout = \"1s\"",
            "owner_check = \"strict\"",
            "deploy_on_change = false",
            "restart = { burst = 1, backoff = \"1s\" }",
        ] {
            let edited = between(APP, &format!("{APP}{line}\n"));
            assert_eq!(change(APP, &format!("{APP}{line}\n")), AppChange::None, "{line}");
            assert!(!edited.is_empty(), "{line}");
        }
    }

    #[test]
    fn another_target_is_a_switch() {
        let target = |port: u16| format!("[app]\ntarget = {port}\n");
        assert_eq!(change(&target(4000), &target(4001)), AppChange::Switch(4001));
        assert_eq!(change(APP, &target(4001)), AppChange::Switch(4001));
        assert_eq!(change("", &target(4001)), AppChange::Switch(4001));
        assert_eq!(change(&target(4000), APP), AppChange::Redeploy);
        assert_eq!(change(&target(4000), ""), AppChange::None);
        assert_eq!(change(APP, ""), AppChange::None);
        let env = format!("{}env = {{ A = \"b\" }}\n", target(4000));
        assert_eq!(change(&target(4000), &env), AppChange::None, "portok does not start it");
    }

    #[test]
    fn what_was_attempted_last_decides() {
        let app = config(APP).app;
        assert_eq!(app_change(None, &app), AppChange::Redeploy);
        assert_eq!(app_change(Some("other"), &app), AppChange::Redeploy);
        assert_eq!(app_change(Some(&app_fingerprint(&app)), &app), AppChange::None);
        assert_eq!(app_change(None, &config("").app), AppChange::None);
    }

    #[test]
    fn what_is_fixed_is_refused_with_the_reason() {
        let old = config("[proxy]\nthreads = 1\n");
        let mut new = config("name = \"web\"\n[proxy]\nthreads = 2\n");
        new.state_file = "/elsewhere".into();
        let refused = diff(&old, &new).refused;
        assert_eq!(refused.len(), 3, "{refused:?}");
        assert!(refused[0].starts_with("name cannot change from \"api\" to \"web\""), "{refused:?}");
        assert!(refused[1].starts_with("state_file cannot change from \"/state\" to \"/elsewhere\""));
        assert!(refused[2].starts_with("proxy.threads cannot change from 1 to 2"), "{refused:?}");
        assert!(refused.iter().all(|reason| reason.ends_with("restart portokd")));
    }

    #[test]
    fn the_fingerprint_is_the_published_hash_and_stays_what_it_is() {
        // Kept on disk: these must never change.
        let app = |text: &str| app_fingerprint(&config(text).app);
        assert_eq!(app(""), "6c62272e07bb014262b821756295c58d");
        assert_eq!(app("[app]\ntarget = 4000\n"), "bc503959a53287ffa82cc8b9d2a9cd25");
        assert_eq!(app(APP), "3b648bed88852abd5ff121ffea049320");
    }

    #[test]
    fn the_fingerprint_knows_what_belongs_to_what() {
        let app = |lines: &str| app_fingerprint(&config(&format!("[app]\n{lines}\n")).app);
        let different = [
            "command = \"a b\"",
            "command = [\"a b\"]",
            "command = [\"a\", \"b\"]",
            "command = \"a\"\nuser = \"b\"",
            "command = \"a\"\ngroup = \"b\"",
            "command = \"a\"\nenv = { a = \"b\" }",
            "command = \"a\"\nenv = { a = \"b\", c = \"\" }",
            "command = \"a\"\nenv = { ab = \"\" }",
            "command = \"a\"\nenv = { a = \"\", b = \"\" }",
            "target = 1",
        ];
        let mut seen: Vec<_> = different.iter().map(|lines| app(lines)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), different.len());
        assert_eq!(
            app("command = \"a\"\nport_env = \"PORT\"\nstop_timeout = \"1s\""),
            app("command = \"a\"")
        );
    }
}
