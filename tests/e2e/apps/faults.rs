//! What drives an app ends by faults of portok, again and again: the app is driven again later and
//! later, its requests go on, and nothing else is touched.

use std::fs;

use serde_json::{Value, json};

use super::{apps, edge, get, live_pid, put, put_text, record, reload, status, wait_for};
use crate::harness::command::PORTOKD;
use crate::harness::conf::Conf;
use crate::harness::{Daemon, Load, World, assert_mentions, wait_until};

/// Starts the daemon. What drives an app fails at these steps (`APP:N-M`).
pub(super) fn start_failing<'w>(world: &'w World, conf: &Conf, steps: &str) -> Daemon<'w> {
    conf.save();
    let mut env = world.env();
    env.insert("PORTOK_PANIC_AT".to_owned(), steps.to_owned());
    let file = conf.file().display().to_string();
    Daemon::attach(world, world.spawn(PORTOKD, &["--config", &file], &env))
}

/// What `portok apps` says is wrong with an app.
fn error(world: &World, app: &str) -> String {
    let row = apps(world).into_iter().find(|row| row["app"] == app).unwrap();
    row["error"].as_str().unwrap_or_default().to_owned()
}

/// Waits until an app has fallen so often in a row.
#[track_caller]
fn wait_for_faults(daemon: &Daemon<'_>, app: &str, faults: usize) {
    let explain = || format!("{}\n{}", error(daemon.world, app), daemon.log());
    let expected = format!("({faults} faults in a row)");
    wait_until("it is down", explain, || error(daemon.world, app).contains(&expected).then_some(()));
}

/// Has a coordinator fall in the middle of a deploy, and again whenever it has been started again.
#[track_caller]
fn fall(daemon: &Daemon<'_>, app: &str, faults: usize) {
    let next = daemon.world.app(&format!("{app}-2"));
    let body = json!({ "command": next.command(), "release": next.version() });
    // It is lost with the coordinator.
    let _lost = daemon.admin("POST", &format!("/__deploy?app={app}"), Some(&body));
    wait_for_faults(daemon, app, faults);
}

#[test]
fn a_coordinator_that_falls_again_and_again_is_started_later_and_later_and_the_others_go_on() {
    let world = World::new();
    let conf = edge(&world);
    put(&world, "steady", &["app.test"], &world.app("steady-1"));
    put(&world, "api", &["api.test"], &world.app("api-1"));
    let daemon = start_failing(&world, &conf, "api:14-18");
    wait_for(&daemon, "app.test", "steady-1");
    wait_for(&daemon, "api.test", "api-1");
    let load = Load::start(daemon.addr);
    fall(&daemon, "api", 5);
    // It stays so for 4 s.
    let next = json!({ "command": world.app("api-3").command(), "release": "api-3" });
    let refusal = daemon.admin("POST", "/__deploy?app=api", Some(&next));
    refusal.refused(409, "busy");
    assert_mentions(&error(&world, "api"), &["ended by a fault of portok", "it is started again 4s later"]);
    let shown = status(&daemon, "api");
    assert_mentions(&shown.config.error.unwrap_or_default(), &["ended by a fault of portok"]);
    get(&daemon, "api.test", "/").expect(200);
    let next = json!({ "command": world.app("steady-2").command(), "release": "steady-2" });
    daemon.admin("POST", "/__deploy?app=steady", Some(&next)).expect(200);
    wait_for(&daemon, "app.test", "steady-2");
    assert_eq!(error(&world, "steady"), "");
    let explain = || format!("{}\n{}", error(&world, "api"), daemon.log());
    wait_until("it runs again", explain, || error(&world, "api").is_empty().then_some(()));
    live_pid(&daemon, "api");
    let next = json!({ "command": world.app("api-4").command(), "release": "api-4" });
    daemon.admin("POST", "/__deploy?app=api", Some(&next)).expect(200);
    wait_for(&daemon, "api.test", "api-4");
    load.finish_without_failure();
    daemon.terminate();
}

#[test]
fn while_a_coordinator_is_down_another_daemon_can_take_over() {
    let world = World::new();
    let conf = edge(&world);
    put(&world, "steady", &["app.test"], &world.app("steady-1"));
    put(&world, "api", &["api.test"], &world.app("api-1"));
    let mut daemon = start_failing(&world, &conf, "api:14-18");
    wait_for(&daemon, "app.test", "steady-1");
    wait_for(&daemon, "api.test", "api-1");
    let steady = live_pid(&daemon, "steady");
    let load = Load::start(daemon.addr);
    fall(&daemon, "api", 5);
    // Its successor is given the same steps to fail at, and is asked for none of them.
    daemon.upgrade();
    live_pid(&daemon, "api");
    get(&daemon, "api.test", "/").expect(200);
    assert_eq!(error(&world, "api"), "");
    assert_eq!(live_pid(&daemon, "steady"), steady);
    load.finish_without_failure();
    daemon.terminate();
}

#[test]
fn while_a_coordinator_is_down_its_app_can_be_removed_and_the_daemon_stopped() {
    for is_removed in [true, false] {
        let world = World::new();
        let conf = edge(&world).set("removal_delay", "0s");
        put(&world, "steady", &["app.test"], &world.app("steady-1"));
        put(&world, "third", &["third.test"], &world.app("third-1"));
        put(&world, "api", &["api.test"], &world.app("api-1"));
        let daemon = start_failing(&world, &conf, "api:14-18");
        for app in ["steady", "third", "api"] {
            live_pid(&daemon, app);
        }
        fall(&daemon, "api", 5);
        if is_removed {
            super::take_away(&world, "api");
            reload(&daemon);
            let explain = || format!("{:?}\n{}", world.processes(), daemon.log());
            wait_until("it is stopped", explain, || (world.processes().len() == 2).then_some(()));
            let is_there = || record(&world, "api").exists();
            wait_until("its record is set aside", || daemon.log(), || (!is_there()).then_some(()));
        }
        daemon.terminate();
        assert!(world.processes().is_empty(), "{:?}", world.processes());
    }
}

#[test]
fn a_record_that_is_none_when_a_coordinator_is_started_again_is_waited_for() {
    let world = World::new();
    let conf = edge(&world);
    put(&world, "steady", &["app.test"], &world.app("steady-1"));
    put(&world, "api", &["api.test"], &world.app("api-1"));
    let daemon = start_failing(&world, &conf, "api:14-17");
    wait_for(&daemon, "app.test", "steady-1");
    wait_for(&daemon, "api.test", "api-1");
    fall(&daemon, "api", 4);
    let recorded: Value = serde_json::from_slice(&fs::read(record(&world, "api")).unwrap()).unwrap();
    let runs = recorded["runs"].as_array().unwrap();
    let before = runs.iter().find(|run| run["role"] == "live").unwrap()["identity"]["pid"].clone();
    let aside = world.path("state/aside");
    fs::rename(record(&world, "api"), &aside).unwrap();
    fs::create_dir(record(&world, "api")).unwrap();
    wait_for_faults(&daemon, "api", 5);
    assert_mentions(&error(&world, "api"), &["cannot be started again", "api.json is no regular file"]);
    get(&daemon, "api.test", "/").expect(200);
    get(&daemon, "app.test", "/").expect(200);
    fs::remove_dir(record(&world, "api")).unwrap();
    fs::rename(&aside, record(&world, "api")).unwrap();
    let explain = || format!("{}\n{}", error(&world, "api"), daemon.log());
    wait_until("it runs again", explain, || error(&world, "api").is_empty().then_some(()));
    assert_eq!(live_pid(&daemon, "api"), before, "what its record names is taken over");
    daemon.terminate();
}

#[test]
fn the_driver_of_targets_is_started_again_and_they_serve_meanwhile() {
    let world = World::new();
    let programs = ["one", "two"].map(|version| world.app(version).start_unmanaged());
    let targets = programs.each_ref().map(|program| format!("\"127.0.0.1:{}\"", program.port)).join(", ");
    let conf = edge(&world);
    put_text(
        &world,
        "shop",
        &format!("hosts = [\"*\"]\ntargets = [{targets}]\nhealth.interval = \"50ms\"\n"),
    );
    put(&world, "steady", &["steady.test"], &world.app("steady-1"));
    let daemon = start_failing(&world, &conf, "shop:60-63");
    wait_for(&daemon, "steady.test", "steady-1");
    let explain = || format!("{:?}\n{}", get(&daemon, "shop.test", "/"), daemon.log());
    wait_until("it serves", explain, || (get(&daemon, "shop.test", "/").status() == 200).then_some(()));
    let load = Load::start(daemon.addr);
    wait_for_faults(&daemon, "shop", 4);
    daemon.admin("POST", "/__switch?app=shop&port=1", None).refused(409, "busy");
    load.wait_for_more(50);
    let explain = || format!("{}\n{}", error(&world, "shop"), daemon.log());
    wait_until("it runs again", explain, || error(&world, "shop").is_empty().then_some(()));
    let order = format!("/__switch?app=shop&port={}", programs[1].port);
    daemon.admin("POST", &order, None).expect(200);
    let report = load.finish_without_failure();
    assert!(["one", "two"].iter().all(|version| report.by_version.contains_key(*version)), "{report:?}");
    daemon.terminate();
}

#[test]
fn while_the_driver_of_targets_is_down_its_app_can_be_removed_and_its_record_is_set_aside() {
    let world = World::new();
    let program = world.app("one").start_unmanaged();
    let conf = edge(&world);
    let shop = format!(
        "hosts = [\"shop.test\"]\ntargets = [\"127.0.0.1:{}\"]\nhealth.interval = \"50ms\"\n",
        program.port
    );
    put_text(&world, "shop", &shop);
    put(&world, "steady", &["steady.test"], &world.app("steady-1"));
    let daemon = start_failing(&world, &conf, "shop:60-64");
    let targets = record(&world, "shop");
    let recorded = json!({ "schema": 1, "targets": { "schema": 1, "configured": [] } });
    fs::write(&targets, recorded.to_string()).unwrap();
    wait_for_faults(&daemon, "shop", 5);
    super::take_away(&world, "shop");
    reload(&daemon);
    wait_until("its record is set aside", || daemon.log(), || (!targets.exists()).then_some(()));
    wait_until("it is gone", || daemon.log(), || (super::names(&world) == ["steady"]).then_some(()));
    // Added again, it is as new, and has what was set aside.
    put_text(&world, "shop", &shop);
    reload(&daemon);
    wait_for(&daemon, "shop.test", "one");
    assert_eq!(fs::read_to_string(&targets).unwrap(), recorded.to_string());
    daemon.terminate();
}

#[test]
fn the_coordinator_of_the_one_app_is_started_again_twice_and_then_the_daemon_ends() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1")).set("rollback.window", "0s").set("drain.early", true);
    let mut daemon = start_failing(&world, &conf, &format!("{}:14-16", world.name()));
    daemon.wait_until_serves("v1");
    let next = json!({ "command": world.app("v2").command(), "release": "v2" });
    let _lost = daemon.admin("POST", "/__deploy", Some(&next));
    daemon.wait().ended(1);
    let log = daemon.log();
    assert_eq!(log.matches("it is started again").count(), 2, "{log}");
    assert_mentions(&log, &["again and again", "the daemon cannot go on without it"]);
    let daemon = world.start_saved(&conf);
    let live = daemon.wait_until_serves("v2").live.unwrap();
    assert_eq!(world.processes().iter().filter(|process| Some(process.pid) == live.pid).count(), 1);
    daemon.terminate();
}
