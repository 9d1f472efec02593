//! Unmanaged apps: portok only moves traffic.

use nix::sys::signal::Signal;

use crate::harness::{Answer, Daemon, World, assert_at, assert_mentions, live, pid, procs};

fn switch(daemon: &Daemon<'_>, port: u16) -> Answer {
    daemon.admin("POST", &format!("/__switch?port={port}"), None)
}

#[test]
fn a_switch_to_the_active_port_changes_nothing() {
    let world = World::new();
    let (first, second) = (world.app("v1").start_unmanaged(), world.app("v2").start_unmanaged());
    let daemon = world.start(&world.conf().set("app.target", i64::from(first.port)));
    daemon.wait_until_serves("v1");
    switch(&daemon, second.port).expect(200);
    let before = daemon.status();
    let again = switch(&daemon, second.port).expect(200).json();
    assert_at(&again, "/success", true);
    let after = daemon.status();
    assert_eq!(after.last_switch, before.last_switch);
    assert_eq!(after.active_port, Some(second.port));
}

#[test]
fn an_unhealthy_port_is_never_switched_to() {
    let world = World::new();
    let first = world.app("v1").start_unmanaged();
    let daemon =
        world.start(&world.conf().set("app.target", i64::from(first.port)).set("health.timeout", "300ms"));
    let before = daemon.wait_until_serves("v1");
    let bad = [
        world.app("sick").with("health", "500"),
        world.app("missing").with("health", "404"),
        world.app("moved").flag("health_redirect"),
        world.app("hung").flag("health_hang"),
    ];
    for app in bad {
        let running = app.start_unmanaged();
        let refused = switch(&daemon, running.port).refused(409, "health_failed");
        assert_at(&refused, "/error", "Health check failed");
        let message = format!("Port {} did not respond with 2xx at /health", running.port);
        assert_at(&refused, "/message", message.as_str());
        assert_eq!(app.count("signal"), 0);
    }
    let mut gone = world.app("gone").start_unmanaged();
    gone.kill();
    switch(&daemon, gone.port).refused(409, "health_failed");
    let after = daemon.status();
    assert_eq!((after.active_port, after.last_switch), (before.active_port, before.last_switch));
    assert_eq!(daemon.get("/").version(), "v1");
}

#[test]
fn a_bad_port_is_400() {
    let world = World::new();
    let first = world.app("v1").start_unmanaged();
    let daemon = world.start(&world.conf().set("app.target", i64::from(first.port)));
    daemon.wait_until_serves("v1");
    let own = daemon.addr.port().to_string();
    for query in
        ["", "?port=", "?port=0", "?port=65536", "?port=-1", "?port=http", "?prt=80", &format!("?port={own}")]
    {
        daemon.admin("POST", &format!("/__switch{query}"), None).refused(400, "bad_request");
    }
    assert_eq!(daemon.get("/").version(), "v1");
}

#[test]
fn a_dead_unmanaged_target_rolls_traffic_back_in_the_window() {
    let world = World::new();
    let (first, mut second) = (world.app("v1").start_unmanaged(), world.app("v2").start_unmanaged());
    let conf = world
        .conf()
        .set("app.target", i64::from(first.port))
        .set("rollback.interval", "50ms")
        .set("health.timeout", "500ms");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    switch(&daemon, second.port).expect(200);
    second.kill();
    let status = daemon.wait_until("traffic is back", |status| status.active_port == Some(first.port));
    assert_eq!(status.last_switch.unwrap().reason.as_str(), "auto-rollback");
    assert_eq!(daemon.get("/").version(), "v1");
}

#[test]
fn a_dead_target_outside_the_window_is_502_and_a_switch_mends_it() {
    let world = World::new();
    let (mut first, second) = (world.app("v1").start_unmanaged(), world.app("v2").start_unmanaged());
    let daemon = world.start(&world.conf().set("app.target", i64::from(first.port)));
    daemon.wait_until_serves("v1");
    first.kill();
    let answer = daemon.get("/");
    assert!(
        matches!(
            (answer.status(), answer.header("portok-error")),
            (502, Some("upstream_refused")) | (503, Some("no_live_target"))
        ),
        "{:?}",
        answer.head
    );
    switch(&daemon, second.port).expect(200);
    assert_eq!(daemon.get("/").version(), "v2");
}

#[test]
fn a_managed_release_and_an_unmanaged_target_replace_each_other() {
    let world = World::new();
    let outside_app = world.app("outside");
    let outside = outside_app.start_unmanaged();
    let managed = world.app("v1");
    let daemon = world.start(&world.conf().app(&managed));
    daemon.wait_until_serves("v1");
    let release = live(&daemon.status()).unwrap().to_owned();
    switch(&daemon, outside.port).expect(200);
    let status = daemon.status();
    assert_eq!((status.active_port, pid(&status)), (Some(outside.port), None));
    assert_eq!(daemon.get("/").version(), "outside");
    daemon.wait_until_stopped(&release);
    assert_eq!(managed.count("signal SIGTERM"), 1);
    daemon.deploy(&world.app("v2")).expect(200);
    assert_eq!(daemon.get("/").version(), "v2");
    let rolled = daemon.admin("POST", "/__rollback", None).expect(200).json();
    assert_at(&rolled, "/switch/to", outside.port);
    assert_eq!(daemon.get("/").version(), "outside");
    drop(daemon);
    assert_eq!(outside_app.count("signal"), 0, "an unmanaged target is never signalled");
}

#[test]
fn an_unmanaged_active_port_survives_a_restart() {
    let world = World::new();
    let (first, second) = (world.app("v1").start_unmanaged(), world.app("v2").start_unmanaged());
    let conf = world.conf().set("app.target", i64::from(first.port));
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    switch(&daemon, second.port).expect(200);
    let before = daemon.status();
    daemon.terminate();
    let daemon = world.start(&conf);
    let after = daemon.wait_until_serves("v2");
    assert_eq!((after.active_port, after.last_switch), (Some(second.port), before.last_switch));
}

#[test]
fn the_port_of_a_release_on_its_way_in_or_out_is_never_switched_to() {
    let world = World::new();
    let old = world.app("v1").flag("ignore_term");
    let conf = world.conf().app(&old).set("app.stop_timeout", "10m");
    let daemon = world.start(&conf);
    let before = daemon.wait_until_serves("v1");
    let release = live(&before).unwrap().to_owned();
    let candidate = world.app("v2").with("health_file", world.path("health").display());
    world.write("health", "500");
    daemon.deploy_detached(&candidate);
    candidate.wait_for(1, "health 500");
    let port = daemon.status().candidate.and_then(|candidate| candidate.port).expect("it has a port");
    switch(&daemon, port).refused(409, "busy");
    world.write("health", "200");
    daemon.wait_until_live("v2");
    old.wait_for(1, "signal SIGTERM");
    // It answers its probes still, and is about to be killed.
    let refused = switch(&daemon, before.active_port.unwrap()).refused(409, "health_failed");
    assert_mentions(refused["message"].as_str().unwrap(), &[&release]);
    assert_eq!((live(&daemon.status()), daemon.get("/").version()), (Some("v2"), "v2"));
    procs::send(pid(&before).unwrap(), Signal::SIGKILL);
    daemon.wait_until_stopped(&release);
    assert_eq!(live(&daemon.status()), Some("v2"));
}
