//! `deploy.strategy = "recreate"`: an app that refuses to run twice is deployed, gone back from and
//! killed in the middle, and no request fails.

use std::net::TcpListener;

use serde_json::json;

use crate::harness::app::{App, alone as alone_by};
use crate::harness::conf::Conf;
use crate::harness::{Daemon, Load, World, assert_at, assert_mentions, live, wait_until};

/// The app, which ends at once where another one runs.
fn alone(world: &World, app: &App) -> String {
    app.command_alone(&world.path("lock"))
}

fn conf(world: &World, app: &App) -> Conf {
    world
        .conf()
        .set("app.command", alone(world, app))
        .set("deploy.strategy", "recreate")
        .set("rollback.window", "100ms")
        .set("drain.period", "30s")
        .set("app.stop_timeout", "2s")
}

fn deploy(daemon: &Daemon<'_>, world: &World, app: &App, query: &str) -> crate::harness::http::Answer {
    let body = json!({ "command": alone(world, app), "release": app.version() });
    daemon.admin("POST", &format!("/__deploy{query}"), Some(&body))
}

fn wait_until_settled(daemon: &Daemon<'_>) {
    daemon.wait_until("its window has passed", |status| status.phase.as_str() == "settled");
}

#[test]
fn deploys_and_ways_back_under_load_fail_no_request_and_never_run_two() {
    let world = World::new();
    let daemon = world.start(&conf(&world, &world.app("v0")));
    daemon.wait_until_serves("v0");
    let load = Load::start(daemon.addr);
    for number in 1..=3 {
        let app = world.app(&format!("v{number}"));
        let moved = deploy(&daemon, &world, &app, "").expect(200).json();
        assert_at(&moved, "/switch/reason", "deploy");
        load.wait_for_more(20);
        wait_until_settled(&daemon);
    }
    let plan = daemon.admin("POST", "/__rollback?dry_run=1", None).expect(200).json();
    assert_mentions(plan["message"].as_str().unwrap(), &["v2", "requests wait"]);
    daemon.admin("POST", "/__rollback", None).expect(200);
    assert_eq!(daemon.get("/").version(), "v2");
    load.wait_for_more(20);
    let report = load.finish_without_failure();
    assert_eq!(report.by_version.len(), 4, "{report:#?}");
    assert_eq!(world.app("v2").pids().len(), 2);
    daemon.terminate();
}

#[test]
fn a_candidate_that_fails_or_is_cancelled_is_gone_before_the_former_release_is_back() {
    let world = World::new();
    let daemon = world.start(&conf(&world, &world.app("v1")));
    let status = daemon.wait_until_serves("v1");
    wait_until_settled(&daemon);
    let first = live(&status).unwrap().to_owned();
    let load = Load::start(daemon.addr);
    let answer = deploy(&daemon, &world, &world.app("v2").with("exit", 3), "").refused(409, "deploy_aborted");
    assert_at(&answer, "/outcome", "aborted");
    assert_mentions(answer["message"].as_str().unwrap(), &["exit status 3", "is started again"]);
    daemon.wait_until_serves("v1");
    let hangs = world.app("v3").flag("health_hang");
    deploy(&daemon, &world, &hangs, "?detach=1").expect(202);
    hangs.wait_for(1, "health hangs");
    assert_eq!(daemon.status().phase.as_str(), "starting");
    daemon.portok(&["cancel"]).ended(0);
    daemon.wait_until_serves("v1");
    load.wait_for_more(20);
    load.finish_without_failure();
    let status = daemon.status();
    assert_eq!(
        (live(&status), status.last_switch.as_ref().and_then(|last| last.to_release.as_deref())),
        (Some(&*first), Some(&*first))
    );
    assert_eq!(daemon.row("v3").outcome.map(|outcome| outcome.as_str()), Some("cancelled"));
    wait_until("one is left", || daemon.log(), || (world.processes().len() == 1).then_some(()));
    daemon.terminate();
}

#[test]
fn one_that_finds_its_port_taken_is_gone_before_it_is_tried_on_another() {
    let world = World::new();
    let daemon = world.start(&conf(&world, &world.app("v1")).set("app.stop_timeout", "300ms"));
    daemon.wait_until_serves("v1");
    wait_until_settled(&daemon);
    let app = world.app("v2").with("bind_after", world.path("gate").display());
    // A child of it holds the lock as well, and is killed after a while alone.
    let command = format!("(trap '' TERM; sleep 600) & {}", app.command());
    let command = alone_by(&command, &world.path("lock"));
    let body = json!({ "command": command, "release": "v2" });
    daemon.admin("POST", "/__deploy?detach=1", Some(&body)).expect(202);
    let first = app.wait_for(1, "start ");
    let port: u16 = first.split(' ').next_back().unwrap().parse().unwrap();
    let thief = TcpListener::bind(("127.0.0.1", port)).expect("the placeholder lets others in");
    world.touch("gate");
    let status = daemon.wait_until_live("v2");
    assert_ne!(status.active_port, Some(port));
    assert_eq!(app.count("bind failed"), 1);
    assert!(!world.path("lock.taken").exists(), "two ran at a time\n{}", daemon.log());
    drop(thief);
    daemon.terminate();
}

#[test]
fn what_drains_is_taken_back_by_a_cancel_and_tunnels_end_at_once() {
    let world = World::new();
    let app = world.app("v1");
    let daemon = world.start(&conf(&world, &app));
    daemon.wait_until_serves("v1");
    wait_until_settled(&daemon);
    let mut tunnel = daemon.connect();
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    tunnel.request("GET", "/ws", &upgrade, None).unwrap().expect(101);
    assert_eq!(tunnel.line().unwrap(), "v1");
    // It would drain for 30 s.
    let mut slow = daemon.connect();
    let path = format!("/hold?file={}", world.path("never").display());
    slow.send(&crate::harness::http::request_bytes("GET", &path, &[], None)).unwrap();
    app.wait_for(1, "hold begin");
    deploy(&daemon, &world, &world.app("v2"), "?detach=1").expect(202);
    assert!(matches!(tunnel.rest().as_deref(), Ok(b"") | Err(_)), "the tunnel has ended");
    daemon.wait_until("requests wait", |status| status.phase.as_str() == "starting");
    let pid = app.pids()[0];
    daemon.portok(&["cancel"]).ended(0);
    assert_eq!(daemon.get("/").expect(200).version(), "v1");
    assert_eq!((daemon.live_pid(), app.pids()), (pid, vec![pid]), "it was not stopped");
    drop(slow);
    daemon.terminate();
}

#[test]
fn a_crash_in_the_window_goes_back_the_same_way() {
    let world = World::new();
    let conf = conf(&world, &world.app("v1")).set("rollback.window", "60s");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let crash = world.path("crash");
    let load = Load::start(daemon.addr);
    deploy(&daemon, &world, &world.app("v2").with("exit_file", crash.display()), "").expect(200);
    load.wait_for_more(20);
    world.touch("crash");
    daemon.wait_until_serves("v1");
    load.wait_for_more(20);
    let status = daemon.status();
    assert_eq!(status.last_switch.map(|last| last.reason.as_str()), Some("auto-rollback"));
    assert_eq!(status.quarantined, ["v2"]);
    let failures = load.finish().failures;
    // What had reached the app that crashed may be lost with it.
    let lost = |failure: &String| failure.contains("502") || failure.contains("answered");
    assert!(failures.iter().all(lost), "{failures:#?}");
    daemon.terminate();
}

#[test]
fn an_edit_meanwhile_is_deployed_afterwards_and_without_a_hold_requests_get_503() {
    let world = World::new();
    let mut conf = conf(&world, &world.app("v1")).set("hold.on", vec!["crash"]);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let gated = world.app("v2").with("bind_after", world.path("gate").display());
    deploy(&daemon, &world, &gated, "?detach=1").expect(202);
    gated.wait_for(1, "start ");
    let refused = daemon.get("/").expect(503);
    assert_eq!(refused.header("portok-error"), Some("no_live_target"));
    conf.put("app.command", alone(&world, &world.app("v3")));
    conf.save();
    daemon.portok(&["reload"]).ended(0);
    daemon.wait_until("the edit waits", |status| status.config.pending);
    world.touch("gate");
    daemon.wait_until_serves("v3");
    assert_eq!(gated.pids().len(), 1, "what was under way came first");
    daemon.terminate();
}

#[test]
fn what_an_app_cannot_do_is_refused() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1")).set("app.replicas", 2);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let body = json!({ "command": world.app("v2").command(), "release": "v2" });
    let ask = |strategy: &str| daemon.admin("POST", &format!("/__deploy?strategy={strategy}"), Some(&body));
    let refused = ask("recreate").refused(400, "bad_request");
    assert_mentions(refused["message"].as_str().unwrap(), &["recreate", "app.replicas"]);
    let refused = ask("rolling").refused(400, "bad_request");
    assert_mentions(refused["message"].as_str().unwrap(), &["\"rolling\" is not built yet"]);
    let said = daemon.portok(&["deploy", "--strategy", "canary"]).ended(2);
    assert_mentions(&said.err, &["\"canary\" is not built yet"]);
    daemon.portok(&["deploy", "--strategy", "recreate"]).ended(5);
    assert!(world.app("v2").pids().is_empty());
    let check = conf.set("deploy.strategy", "recreate");
    check.save();
    let said = world.portokd(&["--check", "--config", &check.file().display().to_string()], &world.env());
    assert_mentions(&said.ended(2).err, &["app.replicas = 2: expected 1", "recreate"]);
    daemon.terminate();
}

#[test]
fn a_scale_and_a_recreate_refuse_each_other() {
    let world = World::new();
    let mut conf = world.conf().app(&world.app("v1")).set("rollback.window", "100ms");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    wait_until_settled(&daemon);
    daemon.portok(&["scale", "2"]).ended(0);
    let refused = deploy(&daemon, &world, &world.app("v2"), "?strategy=recreate").refused(400, "bad_request");
    assert_mentions(refused["message"].as_str().unwrap(), &["recreate", "scaled to up to 2"]);
    daemon.portok(&["scale", "1"]).ended(0);
    daemon.wait_until("one is left", |status| status.replicas.is_none_or(|all| all.ready == 1));
    let gated = world.app("v2").with("bind_after", world.path("gate").display());
    deploy(&daemon, &world, &gated, "?strategy=recreate&detach=1").expect(202);
    gated.wait_for(1, "start ");
    // It would be used at the end.
    let refused = daemon.admin("POST", "/__scale?min=2&max=2", None).refused(400, "bad_request");
    assert_mentions(refused["message"].as_str().unwrap(), &["may run twice"]);
    world.touch("gate");
    daemon.wait_until_serves("v2");
    daemon.admin("POST", "/__scale?min=2&max=2", None).refused(400, "bad_request");
    // Neither a limit of memory nor another number of replicas lets two of it run.
    conf.put("app.max_memory", "1MiB");
    conf.put("app.replicas", 2);
    conf.save();
    daemon.portok(&["reload"]).ended(0);
    wait_until_settled(&daemon);
    daemon.wait_until_recorded();
    assert_eq!(gated.count("start "), 1);
    daemon.terminate();
}

#[test]
fn companions_stay_with_the_release_that_serves_and_a_step_is_listed() {
    let world = World::new();
    let gate = world.path("gate");
    let before =
        format!("test $PORTOK_RELEASE != v2 || while ! test -e '{}'; do sleep 0.02; done", gate.display());
    let conf = conf(&world, &world.app("v1"))
        .set("app.before", before)
        .set("app.processes.worker.command", "exec sleep 1000");
    let daemon = world.start(&conf);
    let status = daemon.wait_until_serves("v1");
    let first = live(&status).unwrap().to_owned();
    let worker_of = |release: &str| {
        let wanted = [("worker".to_owned(), release.to_owned())];
        wait_until("its worker runs alone", || daemon.log(), || (world.companions() == wanted).then_some(()));
    };
    worker_of(&first);
    deploy(&daemon, &world, &world.app("v2"), "?detach=1").expect(202);
    let listed = |process: &str, role: &str| {
        let rows = daemon.admin("GET", "/__replicas", None).expect(200).json();
        rows.as_array().unwrap().iter().any(|row| row["process"] == process && row["role"] == role)
    };
    wait_until("the step is listed", || daemon.log(), || listed("before", "candidate").then_some(()));
    assert!(listed("worker", "live"));
    assert_eq!(daemon.get("/").expect(200).version(), "v1");
    world.touch("gate");
    daemon.wait_until_serves("v2");
    worker_of("v2");
    daemon.admin("POST", "/__rollback", None).expect(200);
    assert_eq!(daemon.get("/").expect(200).version(), "v1");
    worker_of(&first);
    daemon.terminate();
}
