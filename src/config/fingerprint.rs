//! What makes a release of an app the one it is, and what an edit of `[app]` asks for. Pure.

use super::App;
use super::fnv::Fnv;
use super::keys::keys;

/// What an edit of `[app]` asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AppChange {
    /// Nothing: the release is the same, or `deploy_on_change` is off, or nothing is left to run.
    #[default]
    None,
    /// A deploy of the new `[app]`.
    Redeploy,
    /// A switch to the new `app.target`.
    Switch(u16),
}

/// What the `[app]` of a configuration asks for. `attempted` is the [`app_fingerprint`] of the
/// `[app]` that was attempted last; `None` if none ever was.
///
/// The fingerprint is kept on disk and compared, and not the configuration before, because an edit
/// that `deploy_on_change = false` holds back is still due when that ends.
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

/// What makes a release of `app` the one it is, as a short text: equal for equal releases. It is
/// kept on disk to tell whether `[app]` differs from the one that was attempted last.
///
/// It is the FNV-1a hash with 128 bits, in hex, of the records of the keys that make a release; of
/// an unmanaged app that is its port alone. A key with its default value has no record, so that a
/// key that a later version adds changes nothing until it is used. A record is its name, `=`, the
/// value's length in decimal, `:`, the value, a line feed. Whoever writes the configuration is
/// trusted: a forged collision would only keep their own edit from being deployed.
pub fn app_fingerprint(app: &App) -> String {
    let unmanaged = app.command.is_none() && app.target.is_some();
    let mut makers: Vec<_> = keys().filter(|key| (key.name == "app.target") == unmanaged).collect();
    // The variables come last.
    makers.sort_by_key(|key| key.name == "app.env");
    let mut hash = Fnv::new();
    for (name, value) in makers.iter().filter_map(|key| key.release_records(app)).flatten() {
        hash.record(name, &value);
    }
    hash.hex()
}

#[cfg(test)]
mod tests {
    use super::super::diff;
    use super::super::tests::Case;
    use super::*;

    /// What the new `[app]` asks for when the old one was attempted.
    fn change(old: &str, new: &str) -> AppChange {
        app_change(Some(&app_fingerprint(&Case::comparable(old).app.app)), &Case::comparable(new).app.app)
    }

    const APP: &str = "[app]\ncommand = \"node a.js\"\n";

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
            "command = \"node a.js\"\nbefore = \"npm run migrate\"",
            "command = \"node a.js\"\nverify = [\"npm\", \"test\"]",
        ] {
            let edited = diff(&Case::comparable(APP), &Case::comparable(&format!("[app]\n{line}\n")));
            assert_eq!(change(APP, &format!("[app]\n{line}\n")), AppChange::Redeploy, "{line}");
            assert_eq!(edited.changed.len(), 1, "{line}: {:?}", edited.changed);
            let held = format!("[app]\n{line}\ndeploy_on_change = false\n");
            assert_eq!(change(APP, &held), AppChange::None, "{line}");
            assert_eq!(change("", &format!("[app]\n{line}\n")), AppChange::Redeploy, "{line}");
        }
        for line in [
            "start_timeout = \"5s\"",
            "stop_signal = \"INT\"",
            "before_timeout = \"1s\"",
            "verify_timeout = \"1s\"",
            "stop_timeout = \"1s\"",
            "owner_check = \"strict\"",
            "deploy_on_change = false",
            "restart = { burst = 1, backoff = \"1s\" }",
        ] {
            let edited = diff(&Case::comparable(APP), &Case::comparable(&format!("{APP}{line}\n")));
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
        let app = &Case::comparable(APP).app.app;
        assert_eq!(app_change(None, app), AppChange::Redeploy);
        assert_eq!(app_change(Some("other"), app), AppChange::Redeploy);
        assert_eq!(app_change(Some(&app_fingerprint(app)), app), AppChange::None);
        assert_eq!(app_change(None, &Case::comparable("").app.app), AppChange::None);
    }

    #[test]
    fn the_fingerprint_is_the_published_hash_and_stays_what_it_is() {
        // Kept on disk: these must never change.
        let app = |text: &str| app_fingerprint(&Case::comparable(text).app.app);
        assert_eq!(app(""), "6c62272e07bb014262b821756295c58d");
        assert_eq!(app("[app]\ntarget = 4000\n"), "bc503959a53287ffa82cc8b9d2a9cd25");
        assert_eq!(app(APP), "3b648bed88852abd5ff121ffea049320");
        let every_key = "[app]\ncommand = [\"node\", \"a.js\"]\ndirectory = \"/srv\"\nenv_file = \"/srv/env\"\n\
             user = \"api\"\ngroup = \"www\"\nopen_files = 100\nmemory = \"512MiB\"\ncpu = \"150%\"\ntasks = 200\n\
             port_env = \"APP_PORT\"\nenv = { A = \"b\" }\n";
        assert_eq!(app(every_key), "7a447770b4e42da0a5386102aa7b0d2c");
    }

    #[test]
    fn the_fingerprint_knows_what_belongs_to_what() {
        let app = |lines: &str| app_fingerprint(&Case::comparable(&format!("[app]\n{lines}\n")).app.app);
        let different = [
            "command = \"a b\"",
            "command = [\"a b\"]",
            "command = [\"a\", \"b\"]",
            "command = \"a\"\nuser = \"b\"",
            "command = \"a\"\ngroup = \"b\"",
            "command = \"a\"\nbefore = \"b\"",
            "command = \"a\"\nbefore = [\"b\"]",
            "command = \"a\"\nverify = \"b\"",
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
