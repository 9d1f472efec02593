//! What the old release still does after a switch, and what comes before its signal.

use std::time::{Duration, SystemTime};

use crate::harness::app::App;
use crate::harness::{Conn, Daemon, World, live, pid, procs, wait_until};

/// A request that the app holds until `NAME.go` exists.
fn hold(daemon: &Daemon<'_>, app: &App, name: &str) -> Conn {
    let mut conn = daemon.connect();
    let before = app.count("hold begin");
    let path = format!("/hold?file={}", daemon.world.path(&format!("{name}.go")).display());
    conn.send(&crate::harness::http::request_bytes("GET", &path, &[], None)).unwrap();
    app.wait_for(before + 1, "hold begin");
    conn
}

#[test]
fn a_request_in_flight_finishes_on_the_old_release_before_its_signal() {
    let world = World::new();
    let app = world.app("v1");
    let daemon = world.start(&world.conf().app(&app).set("drain.period", "60s"));
    let release = live(&daemon.wait_until_serves("v1")).unwrap().to_owned();
    let mut held = hold(&daemon, &app, "first");
    daemon.deploy(&world.app("v2")).expect(200);
    // The switch has returned, and the request is still open.
    assert_eq!(app.count("hold end"), 0);
    assert_eq!(daemon.get("/").version(), "v2");
    let status = daemon.status();
    assert!(status.drain_until.is_some());
    let previous = status.previous.expect("the old release is draining");
    assert_eq!((previous.release.as_str(), previous.inflight), (release.as_str(), 1));
    world.touch("first.go");
    let answer = held.answer("GET").unwrap().expect(200);
    assert_eq!((answer.version(), answer.text().as_str()), ("v1", "v1 held\n"));
    daemon.wait_until_stopped(&release);
    let journal: Vec<_> = app
        .journal()
        .into_iter()
        .filter(|line| line.starts_with("hold") || line.starts_with("signal"))
        .collect();
    assert_eq!(journal, ["hold begin", "hold end", "signal SIGTERM"]);
    assert_eq!(daemon.status().drain_until, None);
}

#[test]
fn a_request_may_even_finish_between_the_signal_and_the_kill() {
    let world = World::new();
    let app = world.app("v1").with("term_after", world.path("end").display());
    let daemon =
        world.start(&world.conf().app(&app).set("drain.period", "100ms").set("app.stop_timeout", "60s"));
    let release = live(&daemon.wait_until_serves("v1")).unwrap().to_owned();
    let mut held = hold(&daemon, &app, "long");
    daemon.deploy(&world.app("v2")).expect(200);
    app.wait_for(1, "signal SIGTERM");
    world.touch("long.go");
    assert_eq!(held.answer("GET").unwrap().expect(200).version(), "v1");
    world.touch("end");
    let row = daemon.wait_until_stopped(&release);
    assert_eq!(row.exit.as_deref(), Some("exit status 0"));
}

#[test]
fn a_release_that_ignores_its_signal_is_killed() {
    let world = World::new();
    let app = world.app("v1").flag("ignore_term");
    let daemon = world.start(&world.conf().app(&app).set("app.stop_timeout", "300ms"));
    let release = live(&daemon.wait_until_serves("v1")).unwrap().to_owned();
    daemon.deploy(&world.app("v2")).expect(200);
    let row = daemon.wait_until_stopped(&release);
    assert!(row.exit.as_deref().is_some_and(|exit| exit.contains("SIGKILL")), "{row:#?}");
    assert_eq!(app.count("signal SIGTERM"), 1);
    assert_eq!(
        row.outcome.map(|outcome| outcome.as_str()),
        Some("live"),
        "its end does not change what it was"
    );
}

#[test]
fn the_configured_stop_signal_is_used() {
    let world = World::new();
    let app = world.app("v1");
    let daemon = world.start(&world.conf().app(&app).set("app.stop_signal", "SIGQUIT"));
    let release = live(&daemon.wait_until_serves("v1")).unwrap().to_owned();
    daemon.deploy(&world.app("v2")).expect(200);
    daemon.wait_until_stopped(&release);
    assert_eq!((app.count("signal SIGQUIT"), app.count("signal SIGTERM")), (1, 0));
}

#[test]
fn stopped_means_that_the_whole_group_is_gone() {
    let world = World::new();
    // The leader ends at once; its child, which does the work, takes its time.
    let app = world.app("v1").flag("wrapper").with("term_after", world.path("end").display());
    let daemon = world.start(&world.conf().app(&app).set("app.stop_timeout", "60s"));
    let release = live(&daemon.wait_until_serves("v1")).unwrap().to_owned();
    let [leader, worker] = app.pids()[..] else { panic!("{:?}", app.journal()) };
    daemon.deploy(&world.app("v2")).expect(200);
    app.wait_for(2, "signal SIGTERM");
    wait_until("the leader is gone", String::new, || (!procs::is_alive(leader)).then_some(()));
    assert!(procs::is_alive(worker), "no SIGKILL before its time");
    assert_eq!(daemon.row(&release).stopped_at, None);
    world.touch("end");
    daemon.wait_until_stopped(&release);
    assert!(!procs::is_alive(worker));
}

#[test]
fn a_helper_with_a_session_of_its_own_goes_with_its_release() {
    let world = World::new();
    let app = world.app("v1").flag("helper");
    let daemon = world.start(&world.conf().app(&app).set("app.stop_timeout", "300ms"));
    let release = live(&daemon.wait_until_serves("v1")).unwrap().to_owned();
    let helper: u32 = app.wait_for(1, "helper ").parse().unwrap();
    assert!(procs::is_alive(helper));
    daemon.deploy(&world.app("v2")).expect(200);
    daemon.wait_until_stopped(&release);
    assert!(!procs::is_alive(helper));
}

#[test]
fn without_early_end_the_old_release_is_kept_for_the_whole_drain() {
    let world = World::new();
    let app = world.app("v1");
    let daemon = world.start(&world.conf().app(&app).set("drain.period", "60s").set("drain.early", false));
    let before = daemon.wait_until_serves("v1");
    daemon.deploy(&world.app("v2")).expect(200);
    let mut conn = daemon.connect();
    for _ in 0..50 {
        assert_eq!(conn.request("GET", "/", &[], None).unwrap().version(), "v2");
    }
    let status = daemon.status();
    assert!(status.drain_until.is_some());
    assert_eq!(status.previous.and_then(|previous| previous.pid), pid(&before));
    assert_eq!(app.count("signal"), 0);
    // Nothing is pinned with affinity "request": a switch back needs no new process.
    daemon.admin("POST", "/__rollback", None).expect(200);
    assert_eq!(daemon.live_pid(), pid(&before).unwrap());
}

#[test]
fn with_request_affinity_a_kept_alive_connection_moves_with_its_next_request() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")).set("drain.early", false));
    daemon.wait_until_serves("v1");
    let mut conn = daemon.connect();
    assert_eq!(conn.request("GET", "/", &[], None).unwrap().version(), "v1");
    daemon.deploy(&world.app("v2")).expect(200);
    assert_eq!(conn.request("GET", "/", &[], None).unwrap().version(), "v2");
}

#[test]
fn with_connection_affinity_it_stays_while_the_old_target_drains_and_early_end_waits_for_it() {
    let world = World::new();
    let app = world.app("v1");
    let conf = world
        .conf()
        .app(&app)
        .set("drain.affinity", "connection")
        .set("drain.period", "60s")
        .set("proxy.idle_timeout", "60s");
    let daemon = world.start(&conf);
    let release = live(&daemon.wait_until_serves("v1")).unwrap().to_owned();
    let mut pinned = daemon.connect();
    assert_eq!(pinned.request("GET", "/", &[], None).unwrap().version(), "v1");
    daemon.deploy(&world.app("v2")).expect(200);
    for _ in 0..20 {
        assert_eq!(pinned.request("GET", "/", &[], None).unwrap().version(), "v1");
        assert_eq!(daemon.get("/").version(), "v2");
    }
    assert_eq!(app.count("signal"), 0);
    assert!(daemon.status().drain_until.is_some());
    drop(pinned);
    daemon.wait_until_stopped(&release);
}

#[test]
fn a_rollback_leaves_nobody_pinned_to_the_release_it_leaves() {
    let world = World::new();
    let daemon = world.start(
        &world.conf().app(&world.app("v1")).set("drain.affinity", "connection").set("drain.early", false),
    );
    daemon.wait_until_serves("v1");
    daemon.deploy(&world.app("v2")).expect(200);
    let mut conn = daemon.connect();
    assert_eq!(conn.request("GET", "/", &[], None).unwrap().version(), "v2");
    daemon.admin("POST", "/__rollback", None).expect(200);
    assert_eq!(conn.request("GET", "/", &[], None).unwrap().version(), "v1");
}

#[test]
fn a_tunnel_lives_on_across_a_switch_and_ends_with_its_release() {
    let world = World::new();
    let app = world.app("v1");
    let daemon = world.start(&world.conf().app(&app).set("drain.period", "1500ms").set("drain.early", true));
    let release = live(&daemon.wait_until_serves("v1")).unwrap().to_owned();
    let mut tunnel = daemon.connect();
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    tunnel.request("GET", "/ws", &upgrade, None).unwrap().expect(101);
    assert_eq!(tunnel.line().unwrap(), "v1");
    daemon.deploy(&world.app("v2")).expect(200);
    for text in ["one", "two", "three"] {
        tunnel.send(format!("{text}\n").as_bytes()).unwrap();
        assert_eq!(tunnel.line().unwrap(), text);
    }
    assert_eq!(daemon.get("/").version(), "v2");
    // It counts as in flight, so the drain lasts its whole period, and then the tunnel ends with the process.
    daemon.wait_until_stopped(&release);
    assert!(matches!(tunnel.rest().as_deref(), Ok(b"") | Err(_)));
    assert_eq!(app.count("tunnel begin"), 1);
}

#[test]
fn a_tunnel_to_an_unmanaged_target_lives_until_a_side_closes_it() {
    let world = World::new();
    let (first, second) = (world.app("v1").start_unmanaged(), world.app("v2").start_unmanaged());
    let daemon =
        world.start(&world.conf().set("app.target", i64::from(first.port)).set("drain.period", "100ms"));
    daemon.wait_until_serves("v1");
    let mut tunnel = daemon.connect();
    tunnel
        .request("GET", "/ws", &[("connection", "upgrade"), ("upgrade", "websocket")], None)
        .unwrap()
        .expect(101);
    assert_eq!(tunnel.line().unwrap(), "v1");
    daemon.admin("POST", &format!("/__switch?port={}", second.port), None).expect(200);
    daemon.wait_until("the drain is over", |status| status.drain_until.is_none());
    tunnel.send(b"still here\n").unwrap();
    assert_eq!(tunnel.line().unwrap(), "still here");
    tunnel.finish_sending().unwrap();
    assert_eq!(tunnel.rest().unwrap(), b"bye\n", "half-close is kept");
}

#[test]
fn a_streamed_answer_goes_on_across_a_switch() {
    let world = World::new();
    let app = world.app("v1");
    let daemon = world.start(&world.conf().app(&app).set("drain.period", "60s"));
    let release = live(&daemon.wait_until_serves("v1")).unwrap().to_owned();
    let mut conn = daemon.connect();
    let path = format!("/sse?file={}", world.path("go").display());
    conn.send(&crate::harness::http::request_bytes("GET", &path, &[], None)).unwrap();
    assert_eq!(conn.head().unwrap().header("content-type"), Some("text/event-stream"));
    // The first event arrives while the answer is open: nothing is buffered whole.
    assert_eq!(conn.chunk().unwrap().unwrap(), b"data: 1\n\n");
    daemon.deploy(&world.app("v2")).expect(200);
    assert_eq!(app.count("signal"), 0);
    world.touch("go");
    assert_eq!(conn.chunk().unwrap().unwrap(), b"data: 2\n\n");
    assert_eq!(conn.chunk().unwrap(), None);
    daemon.wait_until_stopped(&release);
}

#[test]
fn a_slow_upload_finishes_on_the_release_it_began_on() {
    let world = World::new();
    let app = world.app("v1");
    let daemon = world.start(&world.conf().app(&app).set("drain.period", "60s"));
    daemon.wait_until_serves("v1");
    let mut conn = daemon.connect();
    conn.send(b"POST /up HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n01234").unwrap();
    daemon.wait_until("the upload is in flight", |status| {
        status.live.as_ref().is_some_and(|live| live.inflight == 1)
    });
    daemon.deploy(&world.app("v2")).expect(200);
    conn.send(b"56789").unwrap();
    let answer = conn.answer("POST").unwrap().expect(200);
    let expected = format!("v1 10 {:016x}\n", crate::harness::fixture::checksum(b"0123456789"));
    assert_eq!(answer.text(), expected);
}

#[test]
fn standby_window_keeps_the_previous_release_running_after_its_drain() {
    let world = World::new();
    let app = world.app("v1");
    let conf = world.conf().app(&app).set("drain.period", "100ms").set("rollback.standby", "window");
    let daemon = world.start(&conf);
    let before = daemon.wait_until_serves("v1");
    daemon.deploy(&world.app("v2")).expect(200);
    let status = daemon.wait_until("the drain is over", |status| status.drain_until.is_none());
    assert!(status.watch_until.is_some());
    assert_eq!(status.previous.and_then(|previous| previous.pid), pid(&before));
    assert_eq!(app.count("signal"), 0);
    daemon.admin("POST", "/__rollback", None).expect(200);
    assert_eq!(daemon.live_pid(), pid(&before).unwrap(), "the same process serves again");
}

#[test]
fn a_later_drain_is_not_ended_by_the_timer_of_an_earlier_one() {
    let world = World::new();
    let app = world.app("v1");
    let conf = world.conf().app(&app).set("drain.period", "2s").set("drain.early", false);
    let daemon = world.start(&conf);
    let before = daemon.wait_until_serves("v1");
    daemon.deploy(&world.app("v2")).expect(200);
    let first = daemon.status().drain_until.expect("v1 drains");
    daemon.admin("POST", "/__rollback", None).expect(200);
    assert_eq!(daemon.live_pid(), pid(&before).unwrap(), "the same process serves again");
    let mut held = hold(&daemon, &app, "long");
    // From here on a drain lasts: the first one's period passes within the second.
    conf.set("drain.period", "10m").save();
    daemon.admin("POST", "/__reload", None).expect(200);
    daemon.admin("POST", "/__rollback?release=v2&force=1", None).expect(200);
    assert_eq!(daemon.get("/").version(), "v2");
    let first = humantime::parse_rfc3339(&first).unwrap() + Duration::from_millis(300);
    wait_until("the first drain's time has passed", String::new, || {
        (SystemTime::now() > first).then_some(())
    });
    // A question that the one who keeps the timers answers.
    daemon.admin("POST", "/__cancel", None).refused(404, "not_found");
    let status = daemon.status();
    assert!(status.drain_until.is_some(), "{status:#?}");
    assert!(procs::is_alive(pid(&before).unwrap()), "v1 drains");
    assert_eq!(app.count("signal"), 0);
    world.touch("long.go");
    assert_eq!(held.answer("GET").unwrap().expect(200).text(), "v1 held\n");
    assert_eq!((app.count("hold end"), app.count("start ")), (1, 1));
}
