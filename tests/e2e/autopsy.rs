//! Candidates that misbehave: each deploy is aborted, says why, leaves nothing behind, and traffic never moved.

use serde_json::Value;

use crate::harness::app::App;
use crate::harness::conf::Conf;
use crate::harness::{Daemon, World, assert_at, assert_mentions, live, pid, procs, wait_until};

/// A daemon whose candidates have all the time that a test may take: for those that end by themselves, or get ready.
fn patient(world: &World) -> Conf {
    world.conf().app(&world.app("v1")).set("app.start_timeout", "10m").set("app.stop_timeout", "300ms")
}

/// A daemon whose candidates' time ends: for those that never get ready.
fn conf(world: &World) -> Conf {
    patient(world).set("app.start_timeout", "4s").set("health.timeout", "500ms")
}

/// Deploys `app` as `v2`, asserts that it is aborted as the contract says, and gives back the autopsy.
#[track_caller]
fn aborted(daemon: &Daemon<'_>, app: &App) -> Value {
    let before = daemon.status();
    let body = daemon.deploy(app).refused(409, "deploy_aborted");
    assert_at(&body, "/release", app.version());
    assert_at(&body, "/outcome", "aborted");
    let autopsy = body["autopsy"].clone();
    assert!(autopsy["summary"].as_str().is_some_and(|text| !text.is_empty()), "{body:#}");
    let after = daemon.status();
    assert_eq!(
        (live(&after), pid(&after), after.active_port),
        (live(&before), pid(&before), before.active_port)
    );
    assert_eq!(after.last_switch, before.last_switch);
    assert!(after.last_failure.is_some());
    assert_eq!(daemon.get("/").version(), "v1");
    daemon.wait_until("the candidate is gone", |status| status.candidate.is_none());
    let row = daemon.wait_until_stopped(app.version());
    assert_eq!(row.outcome.map(|outcome| outcome.as_str()), Some("aborted"));
    let serving = pid(&after).unwrap();
    wait_until(
        "only the live one runs",
        || format!("{:#?}", daemon.world.processes()),
        || daemon.world.processes().iter().all(|process| process.pid == serving).then_some(()),
    );
    autopsy
}

#[test]
fn one_that_exits_is_told_with_its_status_and_last_lines() {
    let world = World::new();
    let daemon = world.start(&patient(&world));
    daemon.wait_until_serves("v1");
    let autopsy = aborted(&daemon, &world.app("v2").with("exit", 7));
    assert_at(&autopsy, "/exit", "exit status 7");
    assert_mentions(&autopsy["output"].to_string(), &["about to fail", "left-pad"]);
    assert!(autopsy["port"].is_u64());
}

#[test]
fn one_that_a_signal_ends_is_told_with_the_signal() {
    let world = World::new();
    let daemon = world.start(&patient(&world));
    daemon.wait_until_serves("v1");
    let body = serde_json::json!({ "command": "kill -SEGV $$", "release": "v2" });
    let body = daemon.admin("POST", "/__deploy", Some(&body)).refused(409, "deploy_aborted");
    assert_mentions(body["autopsy"]["exit"].as_str().unwrap_or_default(), &["11", "SIGSEGV"]);
}

#[test]
fn one_whose_command_does_not_exist_is_told_so() {
    let world = World::new();
    let daemon = world.start(&patient(&world));
    daemon.wait_until_serves("v1");
    let body = serde_json::json!({ "command": "no-such-program-at-all --port {port}", "release": "v2" });
    let body = daemon.admin("POST", "/__deploy", Some(&body)).refused(409, "deploy_aborted");
    assert_at(&body["autopsy"], "/exit", "exit status 127");
    assert_mentions(&body["autopsy"]["output"].to_string(), &["no-such-program-at-all"]);
    assert_eq!(daemon.get("/").version(), "v1");
}

#[test]
fn one_whose_directory_does_not_exist_is_told_so() {
    let world = World::new();
    let daemon = world.start(&patient(&world));
    daemon.wait_until_serves("v1");
    let app = world.app("v2");
    let body =
        serde_json::json!({ "command": app.command(), "directory": "/no/such/folder", "release": "v2" });
    let answer = daemon.admin("POST", "/__deploy", Some(&body));
    assert!(matches!(answer.status(), 400 | 409), "{}", answer.text());
    assert_mentions(&answer.text(), &["/no/such/folder"]);
    assert!(app.pids().is_empty());
}

#[test]
fn one_that_never_listens_is_told_with_the_refused_probe() {
    let world = World::new();
    let daemon = world.start(&conf(&world));
    daemon.wait_until_serves("v1");
    let app = world.app("v2").flag("bind_never");
    let autopsy = aborted(&daemon, &app);
    assert_eq!(autopsy["exit"], Value::Null);
    assert_mentions(autopsy["probe"]["error"].as_str().unwrap_or_default(), &["refused"]);
    assert!(autopsy["probe"]["attempts"].as_u64().is_some_and(|attempts| attempts > 5), "{autopsy:#}");
    assert!(!procs::is_alive(app.pids()[0]));
}

#[test]
fn one_that_listens_elsewhere_is_told_where_and_that_it_ignores_its_port() {
    let world = World::new();
    let daemon = world.start(&conf(&world));
    daemon.wait_until_serves("v1");
    let app = world.app("v2").flag("bind_elsewhere");
    let autopsy = aborted(&daemon, &app);
    let elsewhere = app.wait_for(1, "listen ");
    let told = autopsy["port"].to_string();
    assert_eq!(autopsy["listensOn"], serde_json::json!([format!("127.0.0.1:{elsewhere}")]));
    assert_mentions(autopsy["hint"].as_str().unwrap_or_default(), &[&elsewhere, &told, "PORT"]);
}

#[test]
fn one_that_redirects_its_health_is_told_with_the_location() {
    let world = World::new();
    let daemon = world.start(&conf(&world));
    daemon.wait_until_serves("v1");
    let autopsy = aborted(&daemon, &world.app("v2").flag("health_redirect"));
    assert_at(&autopsy, "/probe/status", 302);
    assert_at(&autopsy, "/probe/location", "/login");
    assert_mentions(autopsy["probe"]["body"].as_str().unwrap_or_default(), &["please log in"]);
}

#[test]
fn one_that_is_sick_is_told_with_status_and_body() {
    let world = World::new();
    let daemon = world.start(&conf(&world));
    daemon.wait_until_serves("v1");
    let autopsy = aborted(&daemon, &world.app("v2").with("health", "500"));
    assert_at(&autopsy, "/probe/status", 500);
    assert_mentions(autopsy["probe"]["body"].as_str().unwrap_or_default(), &["health of v2 is 500"]);
}

#[test]
fn one_that_hangs_its_health_is_told_with_the_timeout() {
    let world = World::new();
    let daemon = world.start(&conf(&world));
    daemon.wait_until_serves("v1");
    let autopsy = aborted(&daemon, &world.app("v2").flag("health_hang"));
    assert!(autopsy["probe"]["error"].as_str().is_some_and(|error| !error.is_empty()), "{autopsy:#}");
    assert_eq!(autopsy["probe"]["status"], Value::Null);
}

#[test]
fn one_that_floods_its_output_and_gets_never_healthy_is_stopped_like_any_other() {
    let world = World::new();
    let daemon = world.start(&conf(&world));
    daemon.wait_until_serves("v1");
    let autopsy = aborted(&daemon, &world.app("v2").flag("flood").with("health", "500"));
    let lines = autopsy["output"].as_array().expect("the last lines");
    assert!(!lines.is_empty() && lines.len() <= 200, "{} lines", lines.len());
}

#[test]
fn one_with_an_endless_line_is_stopped_like_any_other() {
    let world = World::new();
    let daemon = world.start(&conf(&world));
    daemon.wait_until_serves("v1");
    let autopsy = aborted(&daemon, &world.app("v2").flag("long_line").with("health", "500"));
    assert!(autopsy.to_string().len() < 512 * 1024, "the answer stays readable");
}

#[test]
fn one_that_ignores_its_signal_is_killed() {
    let world = World::new();
    let daemon = world.start(&conf(&world));
    daemon.wait_until_serves("v1");
    let app = world.app("v2").flag("ignore_term").with("health", "500");
    aborted(&daemon, &app);
    assert_eq!(app.count("signal SIGTERM"), 1, "it was asked first");
}

#[test]
fn one_that_forks_and_leaves_is_aborted_with_its_child() {
    let world = World::new();
    let daemon = world.start(&patient(&world));
    daemon.wait_until_serves("v1");
    let app = world.app("v2").flag("leave").with("bind_after", world.path("never").display());
    let autopsy = aborted(&daemon, &app);
    assert_at(&autopsy, "/exit", "exit status 0");
    // The leader may be gone before its child has begun; whoever began is gone now.
    assert!(app.pids().iter().all(|pid| !procs::is_alive(*pid)), "{:#?}", app.journal());
}

#[test]
fn one_that_double_forks_a_helper_takes_it_along() {
    let world = World::new();
    let daemon = world.start(&conf(&world));
    daemon.wait_until_serves("v1");
    let app = world.app("v2").flag("helper").with("health", "500");
    aborted(&daemon, &app);
    let helper: u32 = app.wait_for(1, "helper ").parse().unwrap();
    assert!(!procs::is_alive(helper));
}

#[test]
fn the_command_line_shows_the_autopsy_and_ends_with_3() {
    let world = World::new();
    let daemon = world.start(&patient(&world));
    daemon.wait_until_serves("v1");
    let command = world.app("v2").with("exit", 7).command();
    let said = daemon.portok(&["deploy", "--release", "v2", "--cmd", &command]).ended(3);
    assert_mentions(&said.err, &["v2", "exit status 7", "left-pad"]);
    let said = daemon.portok(&["deploy", "--json", "--cmd", &command]).ended(3);
    assert_at(&said.json(), "/autopsy/exit", "exit status 7");
}

#[test]
fn strict_ownership_lets_the_candidates_own_listener_through() {
    let world = World::new();
    let daemon = world.start(&patient(&world).set("app.owner_check", "strict"));
    daemon.wait_until_serves("v1");
    // The child of the leader counts as its own.
    daemon.deploy(&world.app("v2").flag("wrapper")).expect(200);
    assert_eq!(daemon.get("/").version(), "v2");
}

#[test]
fn one_whose_health_hangs_longer_than_it_may_start_is_told_with_that_probe() {
    let world = World::new();
    let daemon = world.start(&conf(&world).set("health.timeout", "10m"));
    daemon.wait_until_serves("v1");
    let app = world.app("v2").flag("health_hang");
    let autopsy = aborted(&daemon, &app);
    assert_eq!(app.count("health hangs"), 1, "the one probe lasts as long as the candidate may");
    assert_mentions(autopsy["probe"]["error"].as_str().unwrap_or_default(), &["no answer"]);
    assert_eq!(autopsy["probe"]["status"], Value::Null);
    assert_mentions(autopsy["summary"].as_str().unwrap(), &["no answer"]);
}

#[test]
fn one_that_exits_after_failed_probes_is_told_with_the_last_of_them() {
    let world = World::new();
    let daemon = world.start(&patient(&world));
    daemon.wait_until_serves("v1");
    let app = world.app("v2").with("health", "500").with("exit_file", world.path("exit").display());
    let journal = app.clone();
    let autopsy = std::thread::scope(|scope| {
        let deploy = scope.spawn(|| aborted(&daemon, &app));
        journal.wait_for(3, "health 500");
        world.touch("exit");
        deploy.join().unwrap()
    });
    assert_at(&autopsy, "/exit", "exit status 1");
    assert!(autopsy["probe"]["attempts"].as_u64().is_some_and(|attempts| attempts >= 2), "{autopsy:#}");
    let probe = &autopsy["probe"];
    assert!(probe["status"] == 500 || probe["error"].is_string(), "{autopsy:#}");
}
