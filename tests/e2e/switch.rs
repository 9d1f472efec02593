//! Unmanaged apps: portok only moves traffic.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;
use portok::wire::{ReplicaRow, ReplicaState};

use crate::harness::{Answer, Daemon, Load, World, assert_at, assert_mentions, live, pid, procs, wait_until};

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

/// Moves traffic to all of these ports.
fn switch_to(daemon: &Daemon<'_>, ports: &[u16]) -> Answer {
    let query: Vec<_> = ports.iter().map(|port| format!("port={port}")).collect();
    daemon.admin("POST", &format!("/__switch?{}", query.join("&")), None)
}

/// The versions that answer so many requests, each over a connection of its own.
fn versions(daemon: &Daemon<'_>, requests: usize) -> BTreeSet<String> {
    (0..requests).map(|_| daemon.get("/").expect(200).version().to_owned()).collect()
}

fn names<const N: usize>(versions: [&str; N]) -> BTreeSet<String> {
    versions.map(str::to_owned).into()
}

#[test]
fn several_ports_get_traffic_together_and_are_gone_back_to_together() {
    let world = World::new();
    let [one, two, three] = ["v1", "v2", "v3"].map(|version| world.app(version).start_unmanaged());
    let conf = world
        .conf()
        .set("app.target", i64::from(one.port))
        .set("app.sticky", "cookie")
        .set("drain.period", "100ms");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let said = daemon.portok(&["switch", &three.port.to_string(), &two.port.to_string()]).ended(0).out;
    let mut ports = [two.port, three.port];
    ports.sort_unstable();
    assert_mentions(&said, &["Switched to ports", &three.port.to_string(), "was port"]);
    let status = daemon.status();
    let switch = status.last_switch.clone().expect("a switch");
    assert_eq!((switch.from, &switch.to_ports[..]), (Some(one.port), &ports[..]));
    assert_eq!(status.active_port, Some(ports[0]));
    assert_eq!(status.replicas.map(|all| (all.ready, all.wanted)), Some((2, 2)));
    assert_eq!(versions(&daemon, 8), names(["v2", "v3"]));
    let message = format!("Ports {}, {} are live already", ports[0], ports[1]);
    assert_at(&switch_to(&daemon, &ports).expect(200).json(), "/message", message.as_str());
    // The cookie names the address, whichever others there are.
    let own = daemon.get("/").expect(200);
    let cookie = own.header("set-cookie").and_then(|set| set.split(';').next()).expect("a cookie").to_owned();
    let own_port = if own.version() == "v2" { two.port } else { three.port };

    // The next daemon takes the set up, and a set with a member that is not healthy gets nothing.
    daemon.wait_until_recorded();
    daemon.kill();
    let daemon = world.start(&conf);
    daemon.wait_until("both serve", |status| status.replicas.as_ref().is_some_and(|all| all.ready == 2));
    assert_eq!(versions(&daemon, 8), names(["v2", "v3"]));
    let sick = world.app("sick").with("health", "500").start_unmanaged();
    let refused = switch_to(&daemon, &[one.port, sick.port]).refused(409, "health_failed");
    assert_at(
        &refused,
        "/message",
        format!("Port {} did not respond with 2xx at /health", sick.port).as_str(),
    );
    assert_eq!(versions(&daemon, 8), names(["v2", "v3"]));

    switch_to(&daemon, &[own_port, one.port]).expect(200);
    let mut conn = daemon.connect();
    for _ in 0..6 {
        let answer = conn.request("GET", "/", &[("cookie", &cookie)], None).unwrap().expect(200);
        assert_eq!((answer.version(), answer.header("set-cookie")), (own.version(), None));
    }
    assert_eq!(versions(&daemon, 8), names(["v1", own.version()]));
    daemon.admin("POST", "/__rollback", None).expect(200);
    assert_eq!(versions(&daemon, 8), names(["v2", "v3"]));
    // One of them alone is another release.
    switch_to(&daemon, &[two.port]).expect(200);
    assert_eq!(versions(&daemon, 6), names(["v2"]));
    assert_eq!(daemon.status().replicas, None);
    daemon.terminate();
}

#[test]
fn one_of_several_ports_that_dies_costs_no_request_and_comes_back() {
    let world = World::new();
    let mut apps = ["v1", "v2", "v3"].map(|version| world.app(version).start_unmanaged());
    let conf = world
        .conf()
        .set("app.target", i64::from(apps[0].port))
        .set("health.interval", "50ms")
        .set("health.failures", 2)
        .set("rollback.interval", "1h")
        .set("rollback.window", "0");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let ports = apps.each_ref().map(|app| app.port);
    switch_to(&daemon, &ports).expect(200);
    let load = Load::idempotent(daemon.addr);
    load.wait_for_more(50);
    apps[1].kill();
    load.wait_for_more(100);
    load.finish_without_failure();
    // What the load had in flight on the other thread is known a moment later.
    wait_until(
        "both that live are asked in turn",
        || daemon.log(),
        || {
            let asked = versions(&daemon, 12);
            assert!(asked.is_subset(&names(["v1", "v3"])), "{asked:?}");
            (asked.len() == 2).then_some(())
        },
    );
    // Two of three are more than half: all serve, and what is alive answers.
    apps[2].kill();
    daemon.wait_until("most fail", |status| status.phase.as_str() == "unhealthy");
    assert_eq!(versions(&daemon, 6), names(["v1"]));
    daemon.terminate();
}

#[test]
fn one_of_several_ports_to_which_requests_fail_is_shown_as_out_for_a_while() {
    let world = World::new();
    let mut apps = ["v1", "v2"].map(|version| world.app(version).start_unmanaged());
    let conf = world
        .conf()
        .set("app.target", i64::from(apps[0].port))
        .set("health.interval", "1h")
        .set("rollback.window", "0");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let ports = apps.each_ref().map(|app| app.port);
    switch_to(&daemon, &ports).expect(200);
    let states = || -> Vec<ReplicaState> {
        let rows = daemon.admin("GET", "/__replicas", None).expect(200).json();
        let rows: Vec<ReplicaRow> = serde_json::from_value(rows).unwrap();
        let served = ports.iter().filter_map(|port| rows.iter().find(|row| row.port == Some(*port)));
        served.map(|row| row.state).collect()
    };
    assert_eq!(states(), [ReplicaState::Ready, ReplicaState::Ready]);
    apps[1].kill();
    assert_eq!(versions(&daemon, 12), names(["v1"]));
    assert_eq!(states(), [ReplicaState::Ready, ReplicaState::Ejected]);
    assert_mentions(
        &daemon.log(),
        &[&format!("failed: Connection refused (os error 111) target=127.0.0.1:{}", ports[1])],
    );
    daemon.terminate();
}

#[test]
fn an_app_with_a_command_is_switched_to_one_port() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    let refused = switch_to(&daemon, &[8081, 8082]).refused(400, "bad_request");
    assert_mentions(&refused.to_string(), &["has a command", "one port"]);
    assert_eq!(daemon.get("/").version(), "v1");
}

#[test]
fn a_refused_switch_is_recorded_when_it_is_answered() {
    let world = World::new();
    let first = world.app("v1").start_unmanaged();
    let conf = world.conf().set("app.target", i64::from(first.port));
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let sick = world.app("sick").with("health", "500").start_unmanaged();
    switch(&daemon, sick.port).refused(409, "health_failed");
    daemon.kill();
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let row = daemon.row(&format!("port-{}", sick.port));
    assert_eq!(row.outcome.map(|outcome| outcome.as_str()), Some("aborted"), "{row:#?}");
    daemon.terminate();
}
