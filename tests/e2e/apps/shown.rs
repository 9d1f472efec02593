//! What an operator sees of several apps that are not as they should be: by each way of looking.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::{apps, edge, file, get, put, put_text, reload, status, wait_for};
use crate::harness::app::Unmanaged;
use crate::harness::command::{PORTOK, Said};
use crate::harness::{Daemon, World, assert_at, assert_mentions, wait_until};
use crate::listeners::free;

/// What is wrong with an app, as its row says.
fn error(world: &World, app: &str) -> String {
    let apps = apps(world);
    let row = apps.iter().find(|row| row["app"] == app).unwrap_or_else(|| panic!("{apps:#?}"));
    row["error"].as_str().unwrap_or_default().to_owned()
}

#[track_caller]
fn wait_for_error(daemon: &Daemon<'_>, app: &str, parts: &[&str]) {
    let explain = || format!("{:#?}\n{}", apps(daemon.world), daemon.log());
    wait_until(&format!("{app} has the error {parts:?}"), explain, || {
        let error = error(daemon.world, app);
        parts.iter().all(|part| error.contains(part)).then_some(())
    });
}

/// Runs a command that administers this machine, whose folder of configurations is the world's.
#[track_caller]
fn administer(world: &World, words: &[&str]) -> Said {
    let mut env: BTreeMap<String, String> = world.env();
    for (variable, folder) in
        [("PORTOK_CONFIG_DIR", "conf"), ("PORTOK_STATE_DIR", "state"), ("PORTOK_UNIT_DIR", "units")]
    {
        env.insert(variable.to_owned(), world.path(folder).display().to_string());
    }
    world.spawn(PORTOK, words, &env).wait()
}

#[test]
fn a_main_file_that_is_not_in_force_is_seen_by_whoever_looks() {
    let world = World::new();
    let conf = edge(&world);
    put(&world, "api", &["api.test"], &world.app("a1"));
    let daemon = world.start(&conf);
    wait_for(&daemon, "api.test", "a1");
    daemon.portok(&["status", "--wait", "1m"]).ended(0);

    let broken = format!("redirct = 1\n{}", conf.text());
    for (text, part) in [(Some(broken.as_str()), "redirct"), (None, "cannot read the configuration file")] {
        match text {
            Some(text) => conf.save_text(text),
            None => fs::remove_file(conf.file()).unwrap(),
        }
        daemon.admin("POST", "/__reload", None).refused(422, "config_invalid");
        let main = format!("! {}: its configuration is not in force: ", world.name());
        for words in [&["status"][..], &["apps"], &["status", "--wait", "1m"]] {
            assert_mentions(&daemon.portok(words).ended(0).out, &[&main, part]);
        }
        for words in [&["status", "--json"][..], &["apps", "--json"]] {
            let said = daemon.portok(words).ended(0);
            assert!(said.json().is_array(), "{said:?}");
            assert_mentions(&said.err, &[&main, part]);
        }
        let metrics = daemon.admin("GET", "/__metrics", None).expect(200).json();
        assert_mentions(metrics["instance"]["config"]["error"].as_str().unwrap_or_default(), &[part]);
        // Without its file an instance is found by its socket, at the default place alone.
        for words in [&["list"][..], &["doctor"]].into_iter().filter(|_| text.is_some()) {
            assert_mentions(&administer(&world, words).out, &[part]);
        }
        let api = daemon.portok(&["deploy", "--app", "api", "--force", "--json"]).ended(0);
        let warned = api.json();
        assert_mentions(warned["warning"].as_str().unwrap_or_default(), &[part, "what was loaded at"]);
        assert_eq!(api.err.matches("warning: ").count(), 2, "before and after: {}", api.err);
    }
    conf.save();
    reload(&daemon);
    assert!(!daemon.portok(&["apps"]).ended(0).out.contains("! "));
    let clean = daemon.portok(&["deploy", "--app", "api", "--force", "--json"]).ended(0);
    assert_at(&clean.json(), "/warning", Value::Null);
    daemon.terminate();
}

#[test]
fn an_edit_that_failed_and_a_file_that_was_refused_are_said_of_their_app() {
    let world = World::new();
    let conf = edge(&world);
    put(&world, "api", &["api.test"], &world.app("a1"));
    put_text(&world, "new", "hosts = [\"new.test\"]\ncommand = \"exit 3\"\n");
    let daemon = world.start(&conf);
    wait_for(&daemon, "api.test", "a1");
    wait_for_error(&daemon, "new", &["its table is not in force, and nothing is live: its deploy failed"]);

    put_text(&world, "api", "hosts = [\"api.test\"]\ncommand = \"exit 4\"\n");
    reload(&daemon);
    wait_for_error(&daemon, "api", &["its table is not in force: its deploy failed", "status 4"]);
    let shown = daemon.portok(&["apps"]).ended(0).out;
    assert_mentions(&shown, &["! api: its table is not in force", "! new: "]);
    for words in [&["list"][..], &["doctor"]] {
        assert_mentions(&administer(&world, words).out, &["its deploy failed", "status 4"]);
    }

    put_text(&world, "api", "hosts = [\"api.test\"]\ncomand = \"x\"\n");
    reload(&daemon);
    // The file of an app is as secret as the main one.
    fs::set_permissions(file(&world, "new"), Permissions::from_mode(0o644)).unwrap();
    let readable = format!("everybody may read {}", file(&world, "new").display());
    assert_mentions(&administer(&world, &["doctor"]).out, &[&readable]);

    let file = file(&world, "api").display().to_string();
    let words = ["deploy", "--app", "api", "--cmd", &world.app("a2").command()];
    let said = daemon.portok(&words).ended(0);
    let warning = format!("warning: its file {file} is not in force: ");
    assert_eq!(said.err.matches(&warning).count(), 2, "{}", said.err);
    assert_mentions(&said.err, &["comand", "what is deployed is what was in force before"]);
    let status = status(&daemon, "api");
    assert_eq!(status.config.file.as_deref(), Some(&*file));
    daemon.terminate();
}

#[test]
fn targets_are_told_by_their_addresses_and_a_switch_away_from_the_file_is_seen() {
    let world = World::new();
    let mut programs: Vec<Unmanaged> =
        ["one", "two"].iter().map(|version| world.app(version).start_unmanaged()).collect();
    let [one, two] = [programs[0].port, programs[1].port];
    let conf = edge(&world);
    put_text(
        &world,
        "stock",
        &format!(
            "hosts = [\"*\"]\ntargets = [\"127.0.0.1:{one}\", \"127.0.0.1:{two}\"]\nhealth.interval = \"50ms\"\n"
        ),
    );
    let daemon = world.start(&conf);
    wait_for(&daemon, "stock.test", "one");
    daemon.portok(&["status", "--wait", "1m"]).ended(0);
    let shown = daemon.portok(&["status", "--app", "stock"]).ended(0).out;
    assert_mentions(&shown, &["2 of 2 serve", &format!("127.0.0.1:{one}"), &format!("127.0.0.1:{two}")]);
    assert!(!shown.contains("nothing"), "{shown}");

    programs[1].kill();
    let dead = format!("127.0.0.1:{two}: connection refused");
    wait_for_error(&daemon, "stock", &["1 of 2 targets serve; ", &dead]);
    let shown = daemon.portok(&["status", "--app", "stock"]).ended(0).out;
    assert_mentions(&shown, &["1 of 2 serve", &format!("! target {dead}")]);
    let log = daemon.log();
    let out = log.lines().find(|line| line.contains("a target is out, its probes fail"));
    assert_mentions(out.unwrap_or(&log), &["stock", &two.to_string(), "refused"]);

    let switched = daemon.portok(&["--app", "stock", "switch", &one.to_string()]).ended(0).out;
    assert_mentions(&switched, &[&format!("Switched to port {one}")]);
    wait_for_error(&daemon, "stock", &["its targets are not those of its table", &one.to_string()]);
    let in_force = status(&daemon, "stock").config.app_in_force.unwrap();
    assert_eq!((in_force.in_force, in_force.why.as_deref()), (false, Some("switched")));
    let shown = daemon.portok(&["status", "--app", "stock"]).ended(0).out;
    assert_mentions(&shown, &["! not the targets of its table: ", "1 of 1 serve"]);
    let again = daemon.portok(&["--app", "stock", "switch", &one.to_string()]).ended(0).out;
    assert_eq!(again.trim_end(), format!("Port {one} is live already"));

    // Both were in force, and both are told of.
    let third = world.app("three").start_unmanaged();
    let both = [one.to_string(), third.port.to_string()];
    daemon.portok(&["--app", "stock", "switch", &both[0], &both[1]]).ended(0);
    let back = daemon.portok(&["--app", "stock", "switch", &both[0]]).ended(0).out;
    assert_mentions(&back, &[&format!("was ports {}, {}", both[0], both[1])]);
    daemon.terminate();
    assert!(programs[0].is_alive());
}

#[test]
fn a_status_names_the_apps_own_file_and_address_and_a_redirect_is_well() {
    let world = World::new();
    let [own] = free();
    let conf = edge(&world);
    let text = format!("listen = [\"{own}\"]\nredirect = \"https://example.com\"\n");
    put_text(&world, "hook", &text);
    let other = world.app("foreign").start_unmanaged();
    put(&world, "api", &["api.test"], &world.app("a1"));
    let daemon = world.start(&conf);
    wait_for(&daemon, "api.test", "a1");
    let hook = status(&daemon, "hook");
    assert_eq!(hook.listen, own.to_string());
    assert_eq!(hook.config.file, Some(file(&world, "hook").display().to_string()));
    assert_eq!(status(&daemon, "api").listen, daemon.addr.to_string());
    let metrics = daemon.admin("GET", "/__metrics?app=hook", None).expect(200).json();
    assert_at(&metrics, "/health/activePortOk", true);
    let health = daemon.portok(&["--app", "hook", "health"]).ended(0).out;
    assert_eq!(health.trim_end(), "healthy: portok answers, no target is needed");

    let switched = daemon.portok(&["--app", "api", "switch", &other.port.to_string()]).ended(0);
    assert_mentions(&switched.err, &["warning: app `api` has a command", "portok rollback"]);
    assert_eq!(get(&daemon, "api.test", "/").expect(200).version(), "foreign");

    let second = world.portokd(&["--config", &conf.file().display().to_string()], &world.env()).ended(1);
    assert_mentions(&second.err, &[&format!("another running portokd (pid {}, lock ", daemon.pid())]);
    daemon.terminate();
}
