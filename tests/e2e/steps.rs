//! The steps around a deploy: `app.before` and `app.verify` run once a deploy and for nothing else,
//! and one that fails, is late or is cancelled ends the deploy before traffic moves.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::app::App;
use crate::harness::conf::Conf;
use crate::harness::wait::lines;
use crate::harness::{Daemon, World, assert_at, assert_mentions, deploy_body, live, procs, wait_until};

fn conf(world: &World, app: &App) -> Conf {
    world
        .conf()
        .app(app)
        .set("rollback.window", "100ms")
        .set("drain.period", "100ms")
        .set("app.stop_timeout", "2s")
}

/// A command that writes its name, its release and its port into the file `steps`.
fn writes(world: &World, name: &str) -> String {
    format!("echo {name} $PORTOK_RELEASE ${{PORT:-none}} >> '{}'", world.path("steps").display())
}

/// What the steps wrote.
fn written(world: &World) -> Vec<String> {
    lines(&world.path("steps"))
}

/// Waits until the live release's processes alone are left.
fn wait_for_the_live_one(world: &World, daemon: &Daemon<'_>) {
    wait_until(
        "nothing else is left",
        || format!("{:#?}\n{}", world.processes(), daemon.log()),
        || (world.processes().len() == 1).then_some(()),
    );
    assert_eq!(daemon.get("/").expect(200).version(), "v1");
}

#[test]
fn they_run_once_a_deploy_and_for_nothing_else() {
    let world = World::new();
    let conf = conf(&world, &world.app("v1"))
        .set("app.before", writes(&world, "before"))
        .set("app.verify", writes(&world, "verify"));
    let daemon = world.start(&conf);
    let status = daemon.wait_until_serves("v1");
    let first = live(&status).unwrap().to_owned();
    let port = status.active_port.unwrap();
    assert_eq!(written(&world), [format!("before {first} none"), format!("verify {first} {port}")]);
    let events = daemon.deploy_stream(&world.app("v2"));
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap_or_default()).collect();
    let wanted = ["accepted", "before_started", "before_ended", "spawned", "healthy", "verify_started"];
    let told = |name: &&str| wanted.contains(name) || ["verify_ended", "switched"].contains(name);
    let told: Vec<_> = names.iter().copied().filter(told).collect();
    assert_eq!(told, [&wanted[..], &["verify_ended", "switched"]].concat(), "{names:?}");
    assert!(events.last().unwrap()["before"].is_null(), "only what was given up says it");
    let port = daemon.status().active_port.unwrap();
    assert_eq!(written(&world)[2..], ["before v2 none".to_owned(), format!("verify v2 {port}")]);
    daemon.wait_until("its window has passed", |status| status.phase.as_str() == "settled");
    daemon.wait_until_stopped(&first);
    // A rollback that has to start a process, a restart, a boot.
    daemon.admin("POST", "/__rollback", None).expect(200);
    assert_eq!(daemon.get("/").version(), "v1");
    daemon.wait_until("its window has passed", |status| status.phase.as_str() == "settled");
    let before = daemon.live_pid();
    procs::send(before, Signal::SIGKILL);
    daemon.wait_until("it is started again", |status| {
        status.live.as_ref().is_some_and(|live| live.pid.is_some_and(|pid| pid != before))
            && status.active_port.is_some()
    });
    daemon.wait_until_recorded();
    daemon.kill();
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    assert_eq!(written(&world).len(), 4, "{:?}", written(&world));
    daemon.terminate();
}

#[test]
fn a_before_that_fails_aborts_with_its_status_and_its_last_lines() {
    let world = World::new();
    // Over one pipe: of two nobody knows which line came first.
    let before =
        "exec 2>&1; echo migrating; case $PORTOK_RELEASE in v2*) echo no such table >&2; exit 7;; esac";
    let daemon = world.start(&conf(&world, &world.app("v1")).set("app.before", before));
    daemon.wait_until_serves("v1");
    let app = world.app("v2");
    let answer = daemon.deploy(&app).refused(409, "deploy_aborted");
    assert_at(&answer, "/outcome", "aborted");
    assert_at(&answer, "/autopsy/exit", "exit status 7");
    assert_mentions(answer["message"].as_str().unwrap(), &["`before`", "exit status 7"]);
    assert_eq!(answer["autopsy"]["output"], json!(["migrating", "no such table"]));
    assert!(answer["before"].is_null(), "{answer:#}");
    assert!(app.pids().is_empty(), "the candidate was never started");
    wait_for_the_live_one(&world, &daemon);
    let logs = daemon.portok(&["logs", "--release", "v2"]).ended(0).out;
    assert_mentions(&logs, &["migrating", "no such table"]);
    let said = daemon.portok(&["deploy", "--release", "v2-again", "--cmd", &app.command()]).ended(3);
    assert_mentions(&said.err, &["app.before", "exit status 7", "no such table"]);
    daemon.deploy(&world.app("v3")).expect(200);
}

#[test]
fn one_that_takes_too_long_is_stopped_with_all_that_it_started() {
    let world = World::new();
    let conf = conf(&world, &world.app("v1"))
        .set("app.before", "test $PORTOK_RELEASE != v2 || { trap '' TERM; sleep 600 & sleep 600; }")
        .set("app.before_timeout", "200ms")
        .set("app.stop_timeout", "200ms");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let answer = daemon.deploy(&world.app("v2")).refused(409, "deploy_aborted");
    assert_mentions(&answer.to_string(), &["not done within 200ms", "app.before_timeout"]);
    wait_for_the_live_one(&world, &daemon);
}

#[test]
fn one_that_is_cancelled_is_stopped() {
    let world = World::new();
    let began = world.path("began");
    let before = format!("test $PORTOK_RELEASE != v2 || {{ echo > '{}'; sleep 600; }}", began.display());
    let daemon = world.start(&conf(&world, &world.app("v1")).set("app.before", before));
    daemon.wait_until_serves("v1");
    daemon.deploy_detached(&world.app("v2"));
    wait_until("it runs", || daemon.log(), || began.exists().then_some(()));
    let refused = daemon.admin("POST", "/__upgrade", None).refused(409, "busy");
    assert_mentions(refused["message"].as_str().unwrap(), &["v2", "`before` runs"]);
    assert!(daemon.status().candidate.is_some());
    let rows = daemon.admin("GET", "/__replicas", None).expect(200).json();
    let row = rows.as_array().unwrap().iter().find(|row| row["process"] == "before").expect("its row");
    assert_eq!((&row["role"], &row["release"]), (&json!("candidate"), &json!("v2")), "{rows:#}");
    assert!(row["pid"].is_u64(), "{rows:#}");
    assert_mentions(&daemon.portok(&["ps"]).ended(0).out, &["v2", "before"]);
    daemon.portok(&["cancel"]).ended(0);
    wait_for_the_live_one(&world, &daemon);
    assert_eq!(daemon.row("v2").outcome.map(|outcome| outcome.as_str()), Some("cancelled"));
}

#[test]
fn a_deploy_that_is_aborted_after_it_says_that_it_has_run() {
    let world = World::new();
    let conf = conf(&world, &world.app("v1"))
        .set("app.before", "true")
        .set("app.verify", "test $PORTOK_RELEASE != v3 || { echo not good; exit 1; }");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let events = daemon.deploy_stream(&world.app("v2").with("exit", 3));
    let end = events.last().unwrap();
    assert_at(end, "/before", "done");
    assert_at(end, "/error/before", "done");
    assert_at(end, "/error/autopsy/exit", "exit status 3");
    let app = world.app("v3");
    let said = daemon.portok(&["deploy", "--release", "v3", "--cmd", &app.command()]).ended(3);
    assert_mentions(&said.err, &["`verify` failed (exit status 1)", "not good", "app.before has run"]);
    daemon.wait_until_stopped("v3");
    wait_for_the_live_one(&world, &daemon);
    assert_eq!(app.pids().len(), 1);
}

#[test]
fn a_daemon_that_is_killed_meanwhile_stops_it_and_does_not_run_it_again() {
    for step in ["app.before", "app.verify"] {
        let world = World::new();
        let command = format!("test $PORTOK_RELEASE != v2 || {{ {}; sleep 600; }}", writes(&world, "ran"));
        let conf = conf(&world, &world.app("v1")).set(step, command);
        let daemon = world.start(&conf);
        daemon.wait_until_serves("v1");
        daemon.admin("POST", "/__deploy?detach=1", Some(&deploy_body(&world.app("v2")))).expect(202);
        wait_until("it runs", || daemon.log(), || (written(&world).len() == 1).then_some(()));
        daemon.wait_until_recorded();
        daemon.kill();
        let daemon = world.start(&conf);
        daemon.wait_until_serves("v1");
        wait_for_the_live_one(&world, &daemon);
        assert_eq!(daemon.row("v2").outcome.map(|outcome| outcome.as_str()), Some("interrupted"));
        assert_eq!(written(&world).len(), 1, "{step}");
        daemon.deploy(&world.app("v3")).expect(200);
        daemon.terminate();
    }
}

#[test]
fn a_step_that_a_deploy_waits_for_is_seen_and_told_apart() {
    let world = World::new();
    let before =
        format!("echo migrating; until [ -e '{}' ]; do sleep 0.05; done", world.path("go").display());
    let mut daemon = world.start(&conf(&world, &world.app("v1")).set("app.before", before));
    let logs = |of: &[&str]| daemon.portok(&[&["logs"], of].concat()).ended(0).out;
    wait_until("it has printed", || daemon.log(), || logs(&[]).contains(" before| migrating").then_some(()));
    assert_mentions(&logs(&["--process", "before"]), &["before| migrating"]);
    assert_eq!((logs(&["--process", "web"]), logs(&["--replica", "0"])), (String::new(), String::new()));
    for (of, why) in [
        (["--process", "worker"], "there is no process `worker`"),
        (["--replica", "99"], "there is no replica 99"),
    ] {
        assert_mentions(&daemon.portok(&[&["logs"], &of[..]].concat()).ended(5).err, &[why]);
    }
    assert_mentions(&daemon.portok(&["status"]).ended(0).out, &["runs app.before, pid "]);
    assert_mentions(&daemon.portok(&["ps"]).ended(0).out, &[" candidate\n", "\n  before "]);
    let ended = daemon.portok(&["shutdown", "--json"]).ended(0).json();
    assert_eq!((&ended[0]["process"], &ended[0]["exit"]), (&json!("before"), &json!("signal 15 (SIGTERM)")));
    daemon.wait().ended(0);
    world.wait_for_none_left();
}
