//! An older binary takes over what today's has left, and the other way round: no process is lost or
//! doubled, who is answered gets 200, and what the older one cannot do it says.
//!
//! `PORTOK_TEST_OLDER=PATH` names that portokd, one that knows nothing of several replicas, such as
//! the one of commit 213d39b. Without it nothing is tried.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::harness::conf::Conf;
use crate::harness::{Daemon, Load, World, assert_mentions, live, wait_until};
use crate::killed::quiet_port;

fn older() -> Option<String> {
    let path = std::env::var("PORTOK_TEST_OLDER").ok();
    if path.is_none() {
        println!("SKIPPED: PORTOK_TEST_OLDER names no older portokd");
    }
    path
}

fn conf(world: &World, port: u16) -> Conf {
    world
        .conf()
        .app(&world.app("v1"))
        .set("listen", format!("127.0.0.1:{port}"))
        .set("rollback.window", "100ms")
        .set("drain.period", "300ms")
        .set("drain.early", false)
}

/// Starts the older binary with `conf`.
fn start<'w>(world: &'w World, older: &str, conf: &Conf) -> Daemon<'w> {
    conf.save();
    let file = conf.file().display().to_string();
    Daemon::attach(world, world.spawn(older, &["--config", &file], &world.env()))
}

fn wait_until_run(daemon: &Daemon<'_>, number: usize) {
    wait_until(
        "as many run as are wanted",
        || format!("{:#?}\n{}", daemon.world.processes(), daemon.log()),
        || (daemon.world.processes().len() == number).then_some(()),
    );
}

/// A deploy of `next`, and the way back to `from`.
fn there_and_back(daemon: &Daemon<'_>, from: &str, next: &str) {
    daemon.deploy(&daemon.world.app(next)).expect(200);
    assert_eq!(daemon.get("/").version(), next);
    daemon.admin("POST", "/__rollback", None).expect(200);
    assert_eq!(daemon.get("/").version(), from);
}

/// Ends the load. While there is no daemon nobody answers; who answers is the app.
fn finish(load: Load) {
    load.wait_for_more(50);
    let report = load.finish();
    let wrong = |failure: &&String| ["Head", "answered"].iter().any(|word| failure.contains(word));
    assert_eq!(report.failures.iter().filter(wrong).count(), 0, "{report:#?}");
}

fn load_on(addr: SocketAddr) -> Load {
    let load = Load::start(addr);
    load.wait_for_more(20);
    load
}

#[test]
fn one_process_goes_on_under_either_through_deploys_and_ways_back() {
    let Some(older) = older() else { return };
    let world = World::new();
    let conf = conf(&world, quiet_port());
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    daemon.deploy(&world.app("v2")).expect(200);
    let pid = daemon.live_pid();
    let load = load_on(daemon.addr);
    daemon.kill();
    let daemon = start(&world, &older, &conf);
    daemon.wait_until_serves("v2");
    assert_eq!(daemon.live_pid(), pid, "it goes on\n{}", daemon.log());
    load.wait_for_more(20);
    there_and_back(&daemon, "v2", "v3");
    // It drains still.
    daemon.kill();
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v2");
    assert_eq!(daemon.live_pid(), pid, "it goes on\n{}", daemon.log());
    wait_until_run(&daemon, 1);
    load.wait_for_more(20);
    there_and_back(&daemon, "v2", "v4");
    daemon.wait_until("nothing drains", |status| status.drain_until.is_none());
    wait_until_run(&daemon, 1);
    assert_eq!(daemon.live_pid(), pid);
    finish(load);
    daemon.terminate();
}

#[test]
fn of_a_set_with_a_companion_nothing_is_lost_and_what_cannot_be_is_said() {
    let Some(older) = older() else { return };
    let world = World::new();
    let port = quiet_port();
    let simple = conf(&world, port);
    let conf =
        conf(&world, port).set("app.replicas", 3).set("app.processes.worker.command", "exec sleep 1000");
    let daemon = world.start(&conf);
    let all = |daemon: &Daemon<'_>| {
        daemon.wait_until("all three are ready", |status| {
            status.replicas.is_some_and(|all| all.ready == 3) && status.candidate.is_none()
        });
        wait_until_run(daemon, 4);
        assert_eq!(world.companions().len(), 1);
    };
    all(&daemon);
    let pids = || world.processes().iter().map(|process| process.pid).collect::<BTreeSet<_>>();
    let before = pids();
    let load = load_on(daemon.addr);
    daemon.kill();
    let file = conf.file().display().to_string();
    let said = world.spawn(&older, &["--config", &file], &world.env()).wait().ended(2);
    assert_mentions(&said.err, &["unknown key `app.replicas`", "unknown key `app.processes`"]);
    assert_eq!(pids(), before, "they go on without a daemon");
    // By a file that it knows it serves with one of them at once. The others it stops.
    let daemon = start(&world, &older, &simple);
    daemon.wait_until_serves("v1");
    load.wait_for_more(20);
    // What it makes of the file is another release to it, which it deploys.
    wait_until_run(&daemon, 1);
    there_and_back(&daemon, "v1", "v2");
    wait_until_run(&daemon, 1);
    assert_ne!(live(&daemon.status()), Some("v2"));
    daemon.kill();
    let daemon = world.start(&conf);
    all(&daemon);
    assert_eq!(daemon.get("/").version(), "v1");
    daemon.wait_until("nothing drains", |status| status.drain_until.is_none());
    wait_until_run(&daemon, 4);
    finish(load);
    daemon.terminate();
}
