//! `portok upgrade`: another daemon in the running one's place, without losing a connection; or nothing at all.

use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::http::request_bytes;
use crate::harness::{Conn, Daemon, Load, Manager, World, assert_mentions, pid, procs, wait_until};

/// A tunnel that has said its first line.
fn tunnel(daemon: &Daemon<'_>, version: &str) -> Conn {
    let mut conn = daemon.connect();
    conn.send(&request_bytes("GET", "/", &[("connection", "upgrade"), ("upgrade", "websocket")], None))
        .unwrap();
    assert_eq!(conn.answer("GET").unwrap().status(), 101);
    assert_eq!(conn.line().unwrap(), version);
    conn
}

fn hold(world: &World, daemon: &Daemon<'_>, file: &str) -> Conn {
    let mut conn = daemon.connect();
    let path = format!("/hold?file={}", world.path(file).display());
    conn.send(&request_bytes("GET", &path, &[], None)).unwrap();
    conn
}

/// A program for `--binary`.
fn script(world: &World, name: &str, text: &str) -> String {
    let path = world.path(name);
    world.write(name, &format!("#!/bin/sh\n{text}\n"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    path.display().to_string()
}

#[test]
fn an_upgrade_under_load_loses_no_request_no_tunnel_and_no_stream() {
    let world = World::new();
    let manager = Manager::new(&world).with("WATCHDOG_USEC", "2000000");
    let app = world.app("v1");
    let conf = world.conf().app(&app).set("drain.early", false).set("drain.period", "500ms");
    let mut daemon = world.start_managed(&conf, &manager);
    let live = daemon.wait_until_serves("v1");
    let (before, first) = (pid(&live).unwrap(), live.live.unwrap().release);
    let old = daemon.pid();
    let load = Load::start(daemon.addr);
    let mut tunnel = tunnel(&daemon, "v1");
    let mut held = hold(&world, &daemon, "go");
    app.wait_for(1, "hold begin");
    let mut events = daemon.connect();
    let path = format!("/sse?file={}", world.path("go").display());
    events.send(&request_bytes("GET", &path, &[], None)).unwrap();
    assert_eq!(events.head().unwrap().status, 200);
    assert_eq!(events.chunk().unwrap().unwrap(), b"data: 1\n\n");

    let heir = daemon.upgrade();
    assert_ne!(heir, old);
    let status = daemon.status();
    assert_eq!((status.pid, pid(&status)), (heir, Some(before)), "{status:#?}");
    manager.wait_for(1, &format!("MAINPID={heir}"));
    manager.wait_for(2, "READY=1");
    load.wait_for_more(200);
    tunnel.send(b"still\n").unwrap();
    assert_eq!(tunnel.line().unwrap(), "still");
    assert!(procs::is_alive(old), "it finishes what it has");
    daemon.admin("POST", "/__upgrade", None).refused(409, "busy");

    world.touch("go");
    assert_eq!(held.answer("GET").unwrap().expect(200).version(), "v1");
    assert_eq!(events.chunk().unwrap().unwrap(), b"data: 2\n\n");
    assert!(events.chunk().unwrap().is_none());
    tunnel.finish_sending().unwrap();
    assert_eq!(tunnel.line().unwrap(), "bye");
    daemon.wait().ended(0);
    assert_eq!(app.count("signal"), 0);

    // The new one is a daemon like any other: it deploys, and is upgraded in its turn.
    daemon.deploy(&world.app("v2")).expect(200);
    daemon.wait_until_stopped(&first);
    load.ban("v1");
    load.wait_for_more(100);
    let third = daemon.upgrade();
    load.wait_for_more(100);
    load.finish_without_failure();
    assert_eq!(daemon.status().pid, third);
    assert_eq!(manager.count("STOPPING=1"), 0);
    daemon.wait_until_live("v2");
}

#[test]
fn an_upgrade_without_a_service_manager_keeps_socket_state_and_output() {
    let world = World::new();
    let app = world.app("v1");
    let conf = world.conf().app(&app);
    let mut daemon = world.start(&conf);
    let first = pid(&daemon.wait_until_serves("v1")).unwrap();
    daemon.upgrade();
    daemon.wait().ended(0);
    let limits = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limits_before = limits(first);
    // What it prints is read by the new one.
    daemon.deploy(&world.app("v2").with("say", "hello")).expect(200);
    let logs = daemon.admin("GET", "/__logs?release=v2&lines=100", None).expect(200);
    assert_mentions(&logs.text(), &["hello"]);
    assert_eq!(limits(daemon.live_pid()), limits_before, "limits that the daemon raised for itself");
    // The state is still this instance's alone.
    let file = conf.file().display().to_string();
    let second = world.portokd(&["--config", &file], &world.env()).ended(1);
    assert_mentions(&second.err, &["another running portokd"]);
}

#[test]
fn a_drain_does_not_end_early_while_the_predecessor_has_requests() {
    let world = World::new();
    let app = world.app("v1");
    let conf = world.conf().app(&app).set("drain.period", "10m").set("drain.early", true);
    let mut daemon = world.start(&conf);
    let live = daemon.wait_until_serves("v1").live.unwrap().release;
    let mut held = hold(&world, &daemon, "go");
    app.wait_for(1, "hold begin");
    daemon.upgrade();
    let next = world.app("v2");
    daemon.deploy(&next).expect(200);
    daemon.wait_until_serves("v2");
    // Long enough for many looks.
    for _ in 0..100 {
        daemon.get("/");
    }
    assert_eq!(app.count("signal"), 0, "its last request is the predecessor's");
    world.touch("go");
    assert_eq!(held.answer("GET").unwrap().expect(200).version(), "v1");
    daemon.wait_until_stopped(&live);
    daemon.wait().ended(0);
}

#[test]
fn the_state_is_free_for_the_next_start_while_an_old_daemon_still_has_tunnels() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let mut daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let mut tunnel = tunnel(&daemon, "v1");
    let heir = daemon.upgrade();
    procs::send(heir, Signal::SIGUSR2);
    daemon.wait_for_heir();
    let next = world.start(&conf);
    next.wait_until_serves("v1");
    tunnel.send(b"still\n").unwrap();
    assert_eq!(tunnel.line().unwrap(), "still");
    drop(tunnel);
    daemon.wait().ended(0);
    next.terminate();
}

#[test]
fn a_successor_that_dies_is_left_to_the_service_manager_and_the_app_goes_on() {
    let world = World::new();
    let manager = Manager::new(&world);
    let app = world.app("v1");
    let conf = world.conf().app(&app);
    let mut daemon = world.start_managed(&conf, &manager);
    let before = pid(&daemon.wait_until_serves("v1")).unwrap();
    let mut tunnel = tunnel(&daemon, "v1");
    let heir = daemon.upgrade();
    procs::send(heir, Signal::SIGKILL);
    // Its parent goes too, so that the service manager learns of it.
    daemon.wait().ended(0);
    daemon.wait_for_heir();
    assert!(matches!(tunnel.rest().as_deref(), Ok(b"") | Err(_)));
    let next = world.start_managed(&conf, &manager);
    assert_eq!((next.addr, next.live_pid()), (daemon.addr, before));
    next.wait_until_serves("v1");
    next.terminate();
}

#[test]
fn the_watch_window_goes_on_in_the_successor() {
    let world = World::new();
    let conf = world
        .conf()
        .app(&world.app("v1"))
        .set("rollback.window", "10m")
        .set("drain.period", "10m")
        .set("drain.early", false);
    let mut daemon = world.start(&conf);
    let first = daemon.wait_until_serves("v1").live.unwrap().release;
    daemon.deploy(&world.app("v2")).expect(200);
    let watching = daemon.wait_until_recorded();
    daemon.upgrade();
    daemon.wait().ended(0);
    let status = daemon.status();
    assert_eq!((&status.phase, &status.live), (&watching.phase, &watching.live), "{status:#?}");
    procs::send(pid(&status).unwrap(), Signal::SIGKILL);
    let back = daemon.wait_until_live(&first);
    assert_eq!(back.last_switch.unwrap().reason.as_str(), "auto-rollback");
    assert_eq!(world.app("v1").pids().len(), 1, "the process that was still draining");
}

#[test]
fn what_does_not_come_up_changes_nothing_and_says_why() {
    let world = World::new();
    let app = world.app("v1");
    let conf = world.conf().app(&app).set("drain.early", false).set("drain.period", "500ms");
    let daemon = world.start(&conf);
    let before = pid(&daemon.wait_until_serves("v1")).unwrap();
    let load = Load::start(daemon.addr);
    let socket = world.socket().display().to_string();
    let good_words = "read -r first; echo 'ready 9.9.9' >&0; read -r go";
    let ends = script(&world, "ends", "echo 'cannot find libfoo' >&2; exit 3");
    let crashes = script(&world, "crashes", "kill -SEGV $$");
    let ends_late = script(&world, "ends-late", &format!("{good_words}; rm -f {socket}; exit 7"));
    let refuses =
        script(&world, "refuses", &format!("{good_words}; echo 'failed no room left' >&0; read -r x"));
    let foreign = script(&world, "foreign", "read -r first; echo hello >&0; read -r x");
    for (binary, words) in [
        (ends.as_str(), &["status 3", "cannot find libfoo"][..]),
        (&crashes, &["signal 11"]),
        (&ends_late, &["status 7"]),
        (&refuses, &["no room left"]),
        (&foreign, &["hello"]),
        ("/no/such/portokd", &["cannot be started"]),
    ] {
        let said = daemon.portok(&["upgrade", "--binary", binary]).ended(1);
        assert_mentions(&said.err, words);
        assert_mentions(&said.err, &["nothing has changed"]);
        let status = daemon.status();
        assert_eq!((status.pid, pid(&status)), (daemon.pid(), Some(before)), "after {binary}");
    }
    // A configuration that the new one cannot read.
    conf.save_text("listen = [");
    daemon.wait_until("the edit was refused", |status| status.config.error.is_some());
    let said = daemon.portok(&["upgrade"]).ended(1);
    assert_mentions(&said.err, &["status 2", "error:"]);
    conf.save();
    // A state at another place.
    conf.clone().set("state_file", world.path("state/other.json").display().to_string()).save();
    daemon.wait_until("the edit was refused", |status| {
        status.config.error.as_ref().is_some_and(|error| error.contains("state_file"))
    });
    assert_mentions(&daemon.portok(&["upgrade"]).ended(1).err, &["restart"]);
    conf.save();
    daemon.wait_until("the file is good again", |status| status.config.error.is_none());
    // And it still deploys.
    daemon.deploy(&world.app("v2")).expect(200);
    load.wait_for_more(50);
    load.finish_without_failure();
    daemon.terminate();
}

#[test]
fn a_successor_that_hangs_is_killed() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    let file = world.path("hangs.pid");
    let hangs = script(&world, "hangs", &format!("echo $$ > {}; exec sleep 600", file.display()));
    let said = daemon.portok(&["upgrade", "--binary", &hangs]).ended(1);
    assert_mentions(&said.err, &["did not say `ready` within 20s"]);
    let hanging: u32 = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
    // The kernel takes its time with the end of a process that was killed.
    wait_until("it is gone", || daemon.log(), || (!procs::is_alive(hanging)).then_some(()));
    daemon.deploy(&world.app("v2")).expect(200);
    daemon.terminate();
}

#[test]
fn an_upgrade_waits_for_no_deploy_and_a_signal_ends_both() {
    let world = World::new();
    let mut daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    let candidate = world.app("v2").flag("bind_never");
    daemon.deploy_detached(&candidate);
    candidate.wait_for(1, "start ");
    daemon.admin("POST", "/__upgrade", None).refused(409, "busy");
    daemon.admin("POST", "/__cancel", None).expect(200);
    let waits = script(&world, "waits", &format!("echo > {}; exec sleep 600", world.path("began").display()));
    let mut asking = daemon.spawn_portok(&["upgrade", "--binary", &waits]);
    wait_until("it began", || daemon.log(), || world.path("began").exists().then_some(()));
    daemon.signal(Signal::SIGTERM);
    assert_mentions(&asking.wait().ended(5).err, &["told to end"]);
    daemon.wait().ended(0);
    world.wait_for_none_left();
}

#[test]
fn an_upgrade_runs_code_so_strangers_and_other_programs_over_tcp_are_refused() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    let token = [("x-admin-token", crate::harness::daemon::TOKEN), ("content-type", "application/json")];
    let body = json!({ "binary": "/bin/false" }).to_string();
    daemon.send("POST", "/__upgrade", &token, Some(body.as_bytes())).refused(403, "forbidden");
    for body in [json!({ "binary": "relative" }), json!({ "program": "/bin/false" })] {
        daemon.admin("POST", "/__upgrade", Some(&body)).refused(400, "bad_request");
    }
    daemon.send_admin("GET", "/__upgrade").refused(405, "method_not_allowed");
}
