//! `hooks.on_event`: who is told, what, and that a bad hook holds nothing up.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;
use toml::toml;

use crate::harness::conf::Conf;
use crate::harness::daemon::TOKEN;
use crate::harness::{World, live, procs, wait_until};

/// A hook that writes each event into a file of its own.
fn with_hook(world: &World, conf: Conf) -> Conf {
    let folder = world.path("told");
    fs::create_dir(&folder).unwrap();
    let script = format!("cat > {0}/$$.new && mv {0}/$$.new {0}/$$.json", folder.display());
    conf.set("hooks.on_event", vec!["/bin/sh".to_owned(), "-c".to_owned(), script])
}

fn told(world: &World) -> Vec<Value> {
    let entries = fs::read_dir(world.path("told")).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap()).collect()
}

/// Waits until the hook was told `event` about `release`.
#[track_caller]
fn wait_for_event(world: &World, event: &str, release: &str) -> Value {
    wait_until(
        &format!("the hook is told {event} of {release}"),
        || format!("{:#?}", told(world)),
        || told(world).into_iter().find(|told| told["event"] == event && told["release"] == release),
    )
}

#[test]
fn it_is_told_of_switches_aborts_rollbacks_and_failures() {
    let world = World::new();
    let conf = world
        .conf()
        .app(&world.app("v1").with("exit_if", world.path("broken").display()))
        .set("rollback.window", "10m")
        .set("rollback.interval", "50ms")
        .set("app.restart", toml! { backoff = "10ms" max_backoff = "60s" burst = 2 within = "60s" });
    let daemon = world.start(&with_hook(&world, conf));
    let first = live(&daemon.wait_until_serves("v1")).unwrap().to_owned();
    wait_for_event(&world, "switched", &first);

    daemon.deploy(&world.app("v2").with("health_file", world.path("health").display())).expect(200);
    let switched = wait_for_event(&world, "switched", "v2");
    assert_eq!(switched["instance"], world.name());
    assert_eq!(switched["switch"]["reason"], "deploy");
    assert!(switched["message"].is_string() && switched["at"].is_string());
    assert!(!switched.to_string().contains(TOKEN));

    daemon.deploy(&world.app("v3").with("exit", 1)).expect(409);
    wait_for_event(&world, "aborted", "v3");

    world.write("health", "500");
    let rolled = wait_for_event(&world, "rolled_back", "v2");
    assert_eq!(rolled["switch"]["reason"], "auto-rollback");

    daemon.wait_until_serves("v1");
    world.touch("broken");
    procs::send(daemon.live_pid(), Signal::SIGKILL);
    wait_for_event(&world, "failed", &first);
    fs::remove_file(world.path("broken")).unwrap();
}

#[test]
fn a_hook_that_hangs_fails_or_is_missing_holds_nothing_up() {
    let hooks = [
        vec!["/bin/sh", "-c", "exec env PORTOK_INSTANCE=$0 tail -f /dev/null"],
        vec!["/bin/sh", "-c", "exit 1"],
        vec!["/bin/sh", "-c", "kill -9 $$"],
        vec!["/no/such/hook"],
    ];
    for hook in hooks {
        let world = World::new();
        let daemon = world.start(
            &world.conf().app(&world.app("v1")).set("hooks.on_event", [&hook[..], &[world.name()]].concat()),
        );
        daemon.wait_until_serves("v1");
        for version in ["v2", "v3", "v4"] {
            daemon.deploy(&world.app(version)).expect(200);
        }
        assert_eq!(daemon.get("/").version(), "v4");
        // The hung one carries the instance's tag: it must not outlive the daemon.
        daemon.terminate();
    }
}
