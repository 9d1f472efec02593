//! What hinders an upgrade: a deploy under way, and requests that wait for an app that crashed.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::app::App;
use crate::harness::command::Running;
use crate::harness::http::request_bytes;
use crate::harness::{Daemon, World, assert_mentions, live, pid, procs, wait_until};

/// An app that listens once `ready` is there, and a daemon that holds requests for as long as a
/// test may take.
fn served<'a>(world: &'a World, app: &App) -> Daemon<'a> {
    world.touch("ready");
    let conf = world.conf().app(app).set("rollback.window", "0s").set("hold.max_time", "10m");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    daemon
}

/// The app crashes and does not come back yet.
fn crash(world: &World, daemon: &Daemon<'_>) {
    let before = daemon.status();
    std::fs::remove_file(world.path("ready")).unwrap();
    procs::send(pid(&before).unwrap(), Signal::SIGKILL);
    daemon.wait_until("another process starts", |status| {
        status.phase.as_str() == "restarting" && pid(status).is_some_and(|now| Some(now) != pid(&before))
    });
}

/// The command line has been refused once, said so, and goes on.
fn until_it_waits(upgrade: &Running) {
    let said = || upgrade.said();
    wait_until(
        "the upgrade waits",
        || format!("{:?}", said()),
        || said().1.contains("waiting: app ").then_some(()),
    );
}

fn message(refusal: &Value) -> &str {
    refusal["message"].as_str().unwrap()
}

fn instance(daemon: &Daemon<'_>) -> String {
    format!("app `{}`", daemon.status().instance)
}

#[test]
fn while_requests_wait_for_a_crashed_app_an_upgrade_is_refused_and_loses_none() {
    let world = World::new();
    let app = world.app("v1").with("bind_after", world.path("ready").display());
    let daemon = served(&world, &app);
    let release = live(&daemon.status()).unwrap().to_owned();
    crash(&world, &daemon);
    let mut held = daemon.connect();
    held.send(&request_bytes("GET", "/", &[], None)).unwrap();
    let inflight = || daemon.admin("GET", "/__metrics", None).expect(200).json()["inflight"].clone();
    wait_until("the request waits", || daemon.log(), || (inflight() == 1).then_some(()));
    let refusal = daemon.admin("POST", "/__upgrade", None).refused(409, "busy");
    assert_mentions(message(&refusal), &[&instance(&daemon), &release, "started again"]);
    world.touch("ready");
    assert_eq!(held.answer("GET").unwrap().expect(200).version(), "v1");
    daemon.terminate();
}

#[test]
fn an_upgrade_that_waits_follows_the_return_of_the_app() {
    let world = World::new();
    let app = world.app("v1").with("bind_after", world.path("ready").display());
    let mut daemon = served(&world, &app);
    crash(&world, &daemon);
    let mut held = daemon.connect();
    held.send(&request_bytes("GET", "/", &[], None)).unwrap();
    let mut upgrade = daemon.spawn_portok(&["--json", "upgrade", "--wait", "10m"]);
    until_it_waits(&upgrade);
    world.touch("ready");
    assert_eq!(held.answer("GET").unwrap().expect(200).version(), "v1");
    daemon.has_handed_over(&upgrade.wait().ended(0));
    daemon.wait_until_serves("v1");
    daemon.terminate();
}

#[test]
fn an_upgrade_that_waits_follows_a_deploy_and_tells_for_what() {
    let world = World::new();
    let mut daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    let next = world.app("v2").with("bind_after", world.path("ready").display());
    daemon.deploy_detached(&next);
    next.wait_for(1, "start ");
    let refusal = daemon.admin("POST", "/__upgrade", None).refused(409, "busy");
    assert_mentions(message(&refusal), &[&instance(&daemon), "`v2` (deploy)", "not healthy yet"]);
    assert_mentions(&daemon.portok(&["upgrade", "--wait", "0s"]).ended(5).err, &["not healthy yet"]);
    let mut upgrade = daemon.spawn_portok(&["--json", "upgrade", "--wait", "10m"]);
    until_it_waits(&upgrade);
    world.touch("ready");
    daemon.has_handed_over(&upgrade.wait().ended(0));
    daemon.wait_until_serves("v2");
    daemon.terminate();
}
