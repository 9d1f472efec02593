//! What an operator orders: that requests wait, that portok answers them, that nothing is deployed;
//! and that requests wait for an app that crashed.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::app::App;
use crate::harness::http::request_bytes;
use crate::harness::{Answer, Conn, Daemon, World, assert_mentions, live, pid, procs, wait_until};

/// A daemon with an app that is live for good.
fn served(world: &World) -> Daemon<'_> {
    let daemon = world.start(&world.conf().app(&world.app("v1")).set("rollback.window", "0s"));
    daemon.wait_until_serves("v1");
    daemon
}

/// A request that is there and waits.
#[track_caller]
fn waiting(daemon: &Daemon<'_>, number: usize) -> Conn {
    let mut conn = daemon.connect();
    conn.send(&request_bytes("GET", "/", &[], None)).unwrap();
    wait_for_inflight(daemon, number);
    conn
}

#[track_caller]
fn wait_for_inflight(daemon: &Daemon<'_>, number: usize) {
    let inflight = || daemon.admin("GET", "/__metrics", None).expect(200).json()["inflight"].clone();
    wait_until("the requests are there", || daemon.log(), || (inflight() == number).then_some(()));
}

fn traffic(daemon: &Daemon<'_>) -> &'static str {
    daemon.status().traffic.as_str()
}

#[track_caller]
fn refused(answer: &Answer, code: &str) {
    assert_eq!((answer.status(), answer.header("portok-error")), (503, Some(code)));
    assert!(answer.header("retry-after").is_some());
}

#[test]
fn a_pause_holds_requests_until_a_resume_and_survives_the_daemon() {
    let world = World::new();
    let daemon = served(&world);
    assert_eq!(traffic(&daemon), "open");
    let said = daemon.portok(&["pause", "--for", "10m", "--by", "ann", "--note", "new database"]).ended(0);
    assert_mentions(&said.out, &["requests wait", "ann", "new database"]);
    assert_eq!(traffic(&daemon), "held");
    let mut held = waiting(&daemon, 1);
    assert_mentions(
        &daemon.portok(&["status"]).ended(0).out,
        &["requests", "they are held", "paused", "by ann, ", " left: new database"],
    );
    let paused = daemon.status().paused.expect("who and until when");
    assert_eq!((&*paused.by, paused.note.as_deref()), ("ann", Some("new database")));
    assert!(paused.until.is_some_and(|until| until > paused.at), "it ends by itself");
    for query in ["for=", "fro=10s", "for=10s&note=x&nope"] {
        daemon.admin("POST", &format!("/__pause?{query}"), None).refused(400, "bad_request");
    }
    // A deploy goes its way meanwhile.
    daemon.deploy(&world.app("v2")).expect(200);
    daemon.portok(&["resume"]).ended(0);
    assert_eq!(held.answer("GET").unwrap().expect(200).version(), "v2");
    assert_eq!(traffic(&daemon), "open");

    daemon.admin("POST", "/__pause?for=10m", None).expect(200);
    daemon.kill();
    let daemon = world.start_saved(&world.conf());
    assert_eq!(traffic(&daemon), "held");
    let mut held = waiting(&daemon, 1);
    daemon.admin("POST", "/__resume", None).expect(200);
    assert_eq!(held.answer("GET").unwrap().expect(200).version(), "v2");
    daemon.wait_until_recorded();
    let record = std::fs::read_to_string(world.state_file()).unwrap();
    assert!(!record.contains("orders"), "a record without orders is as before: {record}");
}

#[test]
fn a_pause_ends_by_itself_before_those_that_wait_give_up() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1")).set("rollback.window", "0s").set("hold.max_time", "1s");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let told = daemon.admin("POST", "/__pause", None).expect(200).json();
    assert!(told["until"].is_string(), "{told:#}");
    assert_eq!(daemon.get("/").expect(200).version(), "v1");
    assert_eq!(traffic(&daemon), "open");
    daemon.admin("POST", "/__pause?for=1m", None).expect(200);
    refused(&daemon.get("/"), "held_too_long");
    for wrong in ["0s", "11m", "soon"] {
        daemon.admin("POST", &format!("/__pause?for={wrong}"), None).refused(400, "bad_request");
    }
    daemon.admin("POST", "/__freeze?for=1s&for=2s", None).refused(400, "bad_request");
    daemon.admin("POST", "/__pause?note=%0a", None).refused(400, "bad_request");
}

#[test]
fn a_window_that_opens_while_requests_wait_begins_when_they_go_on() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")).set("rollback.window", "2s"));
    daemon.wait_until("it is settled", |status| status.phase.as_str() == "settled");
    daemon.admin("POST", "/__pause?for=10m", None).expect(200);
    daemon.deploy(&world.app("v2")).expect(200);
    let status = daemon.status();
    assert_eq!((status.phase.as_str(), status.watch_until), ("watching", None));
    daemon.admin("POST", "/__resume", None).expect(200);
    assert!(daemon.status().watch_until.is_some());
    daemon.wait_until("it is settled", |status| status.phase.as_str() == "settled");
}

#[test]
fn in_maintenance_portok_answers_itself_also_after_a_restart() {
    let world = World::new();
    let daemon = served(&world);
    world.write("soon.html", "<p>soon");
    let page = world.path("soon.html").display().to_string();
    daemon.portok(&["maintenance", "on", "--page", &page, "--status", "404"]).ended(0);
    let shown = |daemon: &Daemon<'_>| {
        let answer = daemon.get("/");
        assert_eq!((answer.status(), answer.header("portok-error")), (404, Some("maintenance")));
        assert!(answer.header("retry-after").is_some());
        assert_eq!(answer.text(), "<p>soon");
        assert_eq!(traffic(daemon), "maintenance");
    };
    shown(&daemon);
    daemon.admin("GET", "/__health", None).expect(200);
    daemon.kill();
    let daemon = world.start_saved(&world.conf());
    shown(&daemon);
    let turned = daemon.portok(&["maintenance", "off", "--json"]).ended(0).json();
    assert_eq!(turned["traffic"], "open");
    daemon.wait_until_serves("v1");

    let order = |body: &Value| daemon.admin("POST", "/__maintenance", Some(body));
    for wrong in [
        json!({}),
        json!([true]),
        json!({ "on": true, "status": 99 }),
        json!({ "on": true, "status": 304 }),
        json!({ "on": true, "body": "x" }),
        json!({ "on": false, "page": "x" }),
        json!({ "on": true, "page": "x".repeat(256 * 1024 + 1) }),
    ] {
        order(&wrong).refused(400, "bad_request");
    }
    order(&json!({ "on": true, "page": "\"\n".repeat(128 * 1024) })).expect(200);
    assert_eq!(daemon.get("/").text().len(), 256 * 1024);
    world.write("long.html", &"x".repeat(256 * 1024 + 1));
    let page = world.path("long.html").display().to_string();
    assert_mentions(&daemon.portok(&["maintenance", "on", "--page", &page]).ended(2).err, &["too long"]);
}

#[test]
fn nothing_is_deployed_in_a_freeze_and_a_thaw_deploys_the_edit_that_waited() {
    let world = World::new();
    let v1 = world.app("v1");
    let conf = world.conf().app(&v1).set("rollback.window", "0s").set("drain.period", "100ms");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    daemon.deploy(&world.app("v2")).expect(200);
    daemon.portok(&["freeze", "--by", "ann", "--note", "the sale"]).ended(0);
    let frozen = |daemon: &Daemon<'_>| {
        let frozen = daemon.status().frozen.unwrap();
        assert_eq!(
            (frozen.by.as_str(), frozen.note.as_deref(), frozen.until),
            ("ann", Some("the sale"), None)
        );
        let refusal = daemon.deploy(&world.app("v3")).refused(409, "frozen");
        assert_mentions(refusal["message"].as_str().unwrap(), &["ann", "the sale"]);
        daemon.admin("POST", "/__switch?port=1", None).refused(409, "frozen");
    };
    frozen(&daemon);
    assert_mentions(&daemon.portok(&["status"]).ended(0).out, &["frozen", "ann", "the sale"]);
    assert_eq!(daemon.portok(&["deploy"]).code, 5);
    // An edit waits, and goes on waiting in the next daemon; a rollback does not.
    conf.clone().app(&world.app("v4")).save();
    daemon.admin("POST", "/__reload", None).expect(200);
    daemon.wait_until("the edit waits", |status| status.config.pending);
    daemon.kill();
    let daemon = world.start_saved(&conf);
    daemon.wait_until_serves("v2");
    frozen(&daemon);
    assert!(daemon.status().config.pending);
    daemon.admin("POST", "/__rollback", None).expect(200);
    daemon.wait_until_serves("v1");
    let said = daemon.portok(&["thaw"]).ended(0).out;
    assert_mentions(&said, &["deploys go on", "is deployed now"]);
    let status = daemon.wait_until_serves("v4");
    assert!(!status.config.pending && status.frozen.is_none(), "{status:#?}");
    daemon.admin("POST", "/__thaw", None).expect(200);
}

#[test]
fn the_end_of_a_freeze_deploys_nothing_by_itself() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1")).set("rollback.window", "0s");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    daemon.admin("POST", "/__freeze?for=1500ms", None).expect(200);
    assert!(daemon.status().frozen.unwrap().until.is_some());
    conf.clone().app(&world.app("v2")).save();
    daemon.admin("POST", "/__reload", None).expect(200);
    daemon.wait_until("the freeze has ended", |status| status.frozen.is_none());
    let pending = |daemon: &Daemon<'_>| {
        daemon.admin("POST", "/__reload", None).expect(200);
        let status = daemon.wait_until_recorded();
        assert!(status.config.pending && status.candidate.is_none(), "{status:#?}");
        assert_eq!(daemon.get("/").version(), "v1");
    };
    pending(&daemon);
    daemon.kill();
    let daemon = world.start_saved(&conf);
    daemon.wait_until_serves("v1");
    pending(&daemon);
    // A deploy is possible, and of the same [app] it is that edit's.
    daemon.portok(&["deploy"]).ended(0);
    let status = daemon.wait_until_serves("v2");
    assert!(!status.config.pending, "{status:#?}");
}

#[test]
fn an_upgrade_carries_a_pause_and_is_refused_while_requests_are_held() {
    let world = World::new();
    let mut daemon = served(&world);
    daemon.admin("POST", "/__pause?for=10m", None).expect(200);
    daemon.admin("POST", "/__freeze", None).expect(200);
    let mut held = waiting(&daemon, 1);
    let refusal = daemon.admin("POST", "/__upgrade", None).refused(409, "busy");
    assert_mentions(refusal["message"].as_str().unwrap(), &["a request is held"]);
    daemon.admin("POST", "/__resume", None).expect(200);
    held.answer("GET").unwrap().expect(200);
    daemon.admin("POST", "/__pause?for=10m", None).expect(200);
    daemon.upgrade();
    assert_eq!(traffic(&daemon), "held");
    assert!(daemon.status().frozen.is_some());
    let mut held = waiting(&daemon, 1);
    daemon.admin("POST", "/__resume", None).expect(200);
    assert_eq!(held.answer("GET").unwrap().expect(200).version(), "v1");
}

#[test]
fn at_the_daemons_end_nobody_waits_for_what_is_paused() {
    let world = World::new();
    let daemon = served(&world);
    daemon.admin("POST", "/__pause?for=10m", None).expect(200);
    let mut held = waiting(&daemon, 1);
    daemon.signal(Signal::SIGTERM);
    refused(&held.answer("GET").unwrap(), "no_live_target");
}

/// An app that listens once `ready` is there.
fn slow(world: &World) -> App {
    world.touch("ready");
    world.app("v1").with("bind_after", world.path("ready").display())
}

#[test]
fn requests_wait_for_an_app_that_crashed_and_for_one_that_ended_with_its_daemon() {
    let world = World::new();
    let conf = world
        .conf()
        .app(&slow(&world))
        .set("rollback.window", "0s")
        .set("upstream.connect_timeout", "100ms")
        .set("hold.max_requests", 2)
        .set("hold.max_time", "10m");
    let daemon = world.start(&conf);
    let before = daemon.wait_until_serves("v1");
    std::fs::remove_file(world.path("ready")).unwrap();
    procs::send(pid(&before).unwrap(), Signal::SIGKILL);
    let another = |status: &portok::wire::Status| pid(status).is_some_and(|now| Some(now) != pid(&before));
    let status = daemon.wait_until("another process starts", another);
    assert_eq!((status.phase.as_str(), status.traffic.as_str()), ("restarting", "held"));
    let mut held = [waiting(&daemon, 1), waiting(&daemon, 2)];
    refused(&daemon.get("/"), "hold_full");
    world.touch("ready");
    for conn in &mut held {
        assert_eq!(conn.answer("GET").unwrap().expect(200).version(), "v1");
    }
    assert_eq!(traffic(&daemon), "open");

    // So they do when the next daemon has to start it.
    std::fs::remove_file(world.path("ready")).unwrap();
    let app = daemon.live_pid();
    daemon.kill();
    procs::send(app, Signal::SIGKILL);
    let daemon = world.start(&conf);
    let mut held = waiting(&daemon, 1);
    assert_eq!(traffic(&daemon), "held");
    world.touch("ready");
    assert_eq!(held.answer("GET").unwrap().expect(200).version(), "v1");
}

#[test]
fn requests_that_wait_are_refused_once_the_app_has_failed() {
    let world = World::new();
    let restart = toml::toml! { backoff = "300ms" max_backoff = "300ms" burst = 3 give_up = true };
    let app = world.app("v1").with("exit_if", world.path("broken").display());
    let conf = world.conf().app(&app).set("rollback.window", "0s").set("app.restart", restart);
    let daemon = world.start(&conf);
    let before = daemon.wait_until_serves("v1");
    world.touch("broken");
    procs::send(pid(&before).unwrap(), Signal::SIGKILL);
    daemon.wait_until("it is started again", |status| status.phase.as_str() == "restarting");
    refused(&daemon.get("/"), "no_live_target");
    assert_eq!(daemon.status().phase.as_str(), "failed");
    assert_eq!(traffic(&daemon), "open");
}

/// How often the threads of a process have waited for something.
fn waits(pid: u32) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let of = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or_default()
    };
    threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("status")).ok()).map(of).sum()
}

#[test]
fn a_thousand_held_requests_wake_nobody() {
    let world = World::new();
    let conf = world
        .conf()
        .app(&world.app("v1"))
        .set("rollback.window", "0s")
        .set("rollback.interval", "10m")
        .set("proxy.threads", 2)
        .set("hold.max_time", "10m");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    daemon.admin("POST", "/__pause?for=10m", None).expect(200);
    let request = request_bytes("GET", "/", &[], None);
    let mut held: Vec<_> = (0..1000).map(|_| daemon.connect()).collect();
    held.iter_mut().for_each(|conn| conn.send(&request).unwrap());
    wait_for_inflight(&daemon, 1000);
    refused(&daemon.get("/"), "hold_full");
    let before = waits(daemon.pid());
    let time = Duration::from_secs(3);
    crate::harness::wait::pause(time);
    let waited = waits(daemon.pid()) - before;
    // Each thread looks at its clock ten times a second; a thousand requests that look would be
    // thousands.
    assert!(waited < 500, "{waited} times in {time:?}");
    daemon.admin("POST", "/__resume", None).expect(200);
    for conn in &mut held {
        conn.answer("GET").unwrap().expect(200);
    }
}

#[test]
fn without_a_file_a_crash_is_waited_for_as_ever() {
    let world = World::new();
    let mut env = world.npm_env();
    env.remove("INITIAL_TARGET_PORT");
    let app = slow(&world);
    env.insert("APP_COMMAND".to_owned(), app.command());
    let daemon = world.start_with(&[], &env);
    let before = daemon.wait_until_serves("v1");
    std::fs::remove_file(world.path("ready")).unwrap();
    procs::send(pid(&before).unwrap(), Signal::SIGKILL);
    let status = daemon.wait_until("it is restarting", |status| status.phase.as_str() == "restarting");
    assert_eq!(status.traffic.as_str(), "open");
    refused(&daemon.get("/"), "no_live_target");
    assert!(live(&status).is_some());
    daemon.admin("POST", "/__pause?for=10m", None).expect(200);
    world.touch("ready");
    let mut held = waiting(&daemon, 1);
    daemon.admin("POST", "/__resume", None).expect(200);
    held.answer("GET").unwrap().expect(200);
}
