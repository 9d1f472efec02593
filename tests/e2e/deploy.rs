//! A release through the whole path, and who else may act meanwhile.

use std::net::TcpListener;

use portok::wire::NDJSON;
use serde_json::{Value, json};

use crate::harness::{Conn, World, assert_at, assert_mentions, deploy_body, live, pid, procs, wait_until};

#[test]
fn a_deploy_moves_traffic_and_stops_the_old_release() {
    let world = World::new();
    let (old, new) = (world.app("v1"), world.app("v2"));
    let daemon = world.start(&world.conf().app(&old));
    let before = daemon.wait_until_serves("v1");
    let old_release = live(&before).unwrap().to_owned();
    let moved = daemon.deploy(&new).expect(200).json();
    assert_at(&moved, "/success", true);
    assert_at(&moved, "/release", "v2");
    assert_at(&moved, "/outcome", "live");
    assert_at(&moved, "/switch/reason", "deploy");
    assert_at(&moved, "/switch/from", before.active_port.unwrap());
    assert_eq!(daemon.get("/").version(), "v2");
    let status = daemon.status();
    assert_eq!(live(&status), Some("v2"));
    assert_eq!(status.phase.as_str(), "watching");
    assert!(status.watch_until.is_some());
    assert_eq!(
        status.previous.as_ref().map(|previous| previous.release.as_str()),
        Some(old_release.as_str())
    );
    assert_eq!(serde_json::to_value(status.last_switch).unwrap(), moved["switch"]);
    daemon.wait_until_stopped(&old_release);
    assert_eq!(old.journal().last().map(String::as_str), Some("end"));
    assert_eq!(old.count("signal SIGTERM"), 1);
    assert!(!procs::is_alive(old.pids()[0]), "stopped means gone");
    assert_eq!(new.count("signal"), 0);
}

#[test]
fn the_stream_tells_the_events_of_a_deploy_in_order() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    let events = daemon.deploy_stream(&world.app("v2").with("health", "503,200").with("say", "a-line-of-v2"));
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap_or_default()).collect();
    let place = |name: &str| {
        names.iter().position(|found| *found == name).unwrap_or_else(|| panic!("{name} is not in {names:?}"))
    };
    assert_eq!(names[0], "accepted");
    let order = ["accepted", "spawned", "probe", "healthy", "switched", "finished"].map(place);
    assert!(order.is_sorted(), "{names:?}");
    assert!(names.contains(&"output"), "{names:?}");
    assert_eq!(names.last(), Some(&"finished"));
    for event in &events {
        assert!(
            event["at"].is_string() && event["release"] == "v2" || event["event"] == "draining",
            "{event:#}"
        );
    }
    assert_at(events.last().unwrap(), "/outcome", "live");
    assert!(events[place("spawned")]["pid"].is_u64());
    let probe = events.iter().find(|event| event["probe"]["status"] == 503);
    assert!(probe.is_some(), "the failed probe is told with its status: {events:#?}");
}

#[test]
fn a_detached_deploy_answers_202_and_goes_on() {
    let world = World::new();
    let daemon = world.start(&world.conf());
    let gate = world.path("gate");
    let app = world.app("v1").with("bind_after", gate.display());
    let answer = daemon.admin("POST", "/__deploy?detach=1", Some(&deploy_body(&app))).expect(202).json();
    assert_at(&answer, "/release", "v1");
    let status = daemon.wait_until("there is a candidate", |status| status.candidate.is_some());
    assert_eq!(status.candidate.unwrap().release, "v1");
    assert_eq!(daemon.row("v1").outcome, None, "its deploy is under way");
    world.touch("gate");
    daemon.wait_until_live("v1");
}

#[test]
fn a_second_deploy_or_switch_meanwhile_is_refused_and_told_which() {
    let world = World::new();
    let other = world.app("other").start_unmanaged();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    let app = world.app("v2").with("bind_after", world.path("gate").display());
    daemon.deploy_detached(&app);
    app.wait_for(1, "start ");
    let refused = daemon.deploy(&world.app("v3")).refused(409, "busy");
    assert!(refused["message"].as_str().unwrap().contains("v2"), "it says which: {refused:#}");
    daemon.admin("POST", &format!("/__switch?port={}", other.port), None).refused(409, "busy");
    daemon.admin("POST", "/__rollback", None).expect(409);
    assert!(world.app("v3").pids().is_empty());
    world.touch("gate");
    daemon.wait_until_live("v2");
    daemon.deploy(&world.app("v3")).expect(200);
}

#[test]
fn a_deploy_in_the_watch_window_or_the_drain_is_not_refused() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")).set("drain.early", false));
    daemon.wait_until_serves("v1");
    daemon.deploy(&world.app("v2")).expect(200);
    let status = daemon.status();
    assert!(status.drain_until.is_some() && status.watch_until.is_some(), "{status:#?}");
    daemon.deploy(&world.app("v3")).expect(200);
    assert_eq!(daemon.get("/").version(), "v3");
}

#[test]
fn a_client_that_goes_away_cancels_nothing() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    for (version, accept) in [("v2", "application/json"), ("v3", NDJSON)] {
        let app = world.app(version).with("bind_after", world.path(version).display());
        let mut conn = Conn::unix(&world.socket()).unwrap();
        let body = deploy_body(&app).to_string();
        let headers = [("content-type", "application/json"), ("accept", accept)];
        let request =
            crate::harness::http::request_bytes("POST", "/__deploy", &headers, Some(body.as_bytes()));
        conn.send(&request).unwrap();
        app.wait_for(1, "start ");
        drop(conn);
        world.touch(version);
        daemon.wait_until_live(version);
    }
}

#[test]
fn cancel_ends_a_hung_candidate_and_nothing_else() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    daemon.admin("POST", "/__cancel", None).refused(404, "not_found");
    let app = world.app("v2").flag("health_hang");
    let mut waiting = daemon.spawn_portok(&["deploy", "--json", "--release", "v2", "--cmd", &app.command()]);
    app.wait_for(1, "health hangs");
    let cancelled = daemon.admin("POST", "/__cancel", None).expect(200).json();
    assert_at(&cancelled, "/release", "v2");
    let said = waiting.wait().ended(3);
    assert_at(&said.json(), "/outcome", "cancelled");
    let row = daemon.wait_until_stopped("v2");
    assert_eq!(row.outcome.map(|outcome| outcome.as_str()), Some("cancelled"));
    assert!(!procs::is_alive(app.pids()[0]));
    assert_eq!(daemon.get("/").version(), "v1");
    daemon.admin("POST", "/__cancel", None).refused(404, "not_found");
    daemon.deploy(&world.app("v3")).expect(200);
}

#[test]
fn a_known_release_id_with_other_content_is_refused() {
    let world = World::new();
    let daemon = world.start(&world.conf());
    daemon.deploy(&world.app("v1")).expect(200);
    daemon.deploy(&world.app("v2")).expect(200);
    let body = json!({ "command": world.app("v3").command(), "release": "v1" });
    let refused = daemon.admin("POST", "/__deploy", Some(&body)).refused(400, "bad_request");
    assert!(refused["message"].as_str().unwrap().contains("v1"), "{refused:#}");
    assert!(world.app("v3").pids().is_empty());
    assert_eq!(daemon.get("/").version(), "v2");
}

#[test]
fn bad_deploy_bodies_are_refused_and_start_nothing() {
    let world = World::new();
    let app = world.app("v1");
    let daemon = world.start(&world.conf());
    let command = app.command();
    let bad = [
        json!({ "comand": command }),
        json!({ "command": command, "user": "root" }),
        json!({ "command": 7 }),
        json!({ "command": [] }),
        json!({ "command": "" }),
        json!({ "command": command, "env": { "A": 1 } }),
        json!({ "command": command, "env": { "A=B": "x" } }),
        json!({ "command": command, "env": { "A": "x\u{0}y" } }),
        json!({ "command": command, "release": "" }),
        json!({ "command": command, "release": "a b" }),
        json!({ "command": command, "release": "../etc" }),
        json!({ "command": command, "release": "x".repeat(65) }),
        json!({ "command": command, "healthPath": "no-slash" }),
        json!({ "command": command, "healthPath": "/a b" }),
        json!([]),
        json!("deploy"),
        Value::Null,
    ];
    for body in &bad {
        let answer = daemon.admin("POST", "/__deploy", Some(body));
        assert_eq!(answer.status(), 400, "{body}: {}", answer.text());
        answer.refused(400, "bad_request");
    }
    let mut conn = Conn::unix(&world.socket()).unwrap();
    conn.request("POST", "/__deploy", &[], Some(b"{\"command\": ")).unwrap().refused(400, "bad_request");
    assert!(app.pids().is_empty());
    assert_eq!(daemon.status().phase.as_str(), "empty");
    assert!(daemon.releases().is_empty());
}

#[test]
fn a_huge_deploy_body_is_refused_without_reading_it_all() {
    let world = World::new();
    let daemon = world.start(&world.conf());
    let mut conn = Conn::unix(&world.socket()).unwrap();
    let head = "POST /__deploy HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000000\r\n\r\n{\"command\": \"";
    conn.send(head.as_bytes()).unwrap();
    let block = vec![b'x'; 64 * 1024];
    // It answers, or stops taking more, long before the announced end.
    let mut sent = 0;
    while sent < 64 * 1024 * 1024 && conn.send(&block).is_ok() {
        sent += block.len();
    }
    assert!(sent < 64 * 1024 * 1024, "it took {sent} bytes");
    assert_eq!(daemon.status().phase.as_str(), "empty");
}

#[test]
fn without_a_command_a_deploy_takes_the_configured_app_or_says_that_there_is_none() {
    let world = World::new();
    let daemon = world.start(&world.conf());
    daemon.admin("POST", "/__deploy", Some(&json!({}))).refused(409, "no_app");
    drop(daemon);

    let world = World::new();
    let app = world.app("v1");
    let daemon = world.start(&world.conf().app(&app));
    let before = daemon.wait_until_serves("v1");
    daemon.admin("POST", "/__deploy", Some(&json!({}))).expect(200);
    let after = daemon.status();
    assert_ne!(live(&after), live(&before), "it is a release of its own");
    assert_ne!(pid(&after), pid(&before));
    daemon.admin("POST", "/__deploy", None).expect(200);
    assert_eq!(app.count("start "), 3);
}

#[test]
fn a_candidate_becomes_live_after_so_many_good_probes_in_a_row() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")).set("health.successes", 3));
    daemon.wait_until_serves("v1");
    let app = world.app("v2").with("health", "200,200,500,200,500,200,200,200");
    daemon.deploy(&app).expect(200);
    let health: Vec<_> =
        app.journal().into_iter().filter(|line| line.starts_with("health ")).take(8).collect();
    assert_eq!(health.len(), 8, "all eight were asked before the switch: {health:?}");
    assert_eq!(daemon.get("/").version(), "v2");
}

#[test]
fn a_late_candidate_is_waited_for() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    let app = world.app("v2").with("bind_after", world.path("gate").display());
    daemon.deploy_detached(&app);
    app.wait_for(1, "start ");
    assert_eq!(daemon.get("/").version(), "v1");
    world.touch("gate");
    daemon.wait_until_live("v2");
    assert_eq!(daemon.get("/").version(), "v2");
}

#[test]
fn the_health_path_of_a_release_is_its_own() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    let app = world.app("v2").with("health_path", "/ready");
    let body = json!({ "command": app.command(), "release": "v2", "healthPath": "/ready" });
    daemon.admin("POST", "/__deploy", Some(&body)).expect(200);
    assert!(app.count("health 200") > 0);
    let health = daemon.admin("GET", "/__health", None).expect(200).json();
    assert_at(&health, "/healthy", true);
    // The next one does not inherit it.
    let next = world.app("v3");
    daemon.deploy(&next).expect(200);
    assert!(next.count("health 200") > 0);
}

#[test]
fn a_strangers_good_answer_on_the_candidates_port_aborts_the_deploy() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    let app = world.app("v2").flag("bind_never");
    let mut waiting = daemon.spawn_portok(&["deploy", "--json", "--release", "v2", "--cmd", &app.command()]);
    let port = app.wait_for(1, "start ").split(' ').next_back().unwrap().to_owned();
    // With SO_REUSEADDR a bound port that nobody listens on can be bound by another.
    let mut stranger = world.app("stranger").with("port", port).start_unmanaged();
    let said = waiting.wait().ended(3);
    assert!(stranger.is_alive(), "a stranger is never signalled");
    assert_mentions(&said.out, &[&stranger.pid().to_string()]);
    assert_eq!(daemon.get("/").version(), "v1");
    assert_ne!(live(&daemon.status()), Some("v2"));
    daemon.wait_until_stopped("v2");
    assert!(!procs::is_alive(app.pids()[0]));
}

#[test]
fn a_candidate_that_finds_its_port_taken_is_started_on_another() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    let app = world.app("v2").with("bind_after", world.path("gate").display());
    daemon.deploy_detached(&app);
    let first = app.wait_for(1, "start ");
    let port: u16 = first.split(' ').next_back().unwrap().parse().unwrap();
    // It takes the port and answers nobody.
    let thief =
        TcpListener::bind(("127.0.0.1", port)).expect("the placeholder lets others with SO_REUSEADDR in");
    world.touch("gate");
    let status = daemon.wait_until_live("v2");
    assert_ne!(status.active_port, Some(port));
    assert_eq!(daemon.get("/").version(), "v2");
    assert_eq!(app.count("bind failed"), 1);
    drop(thief);
}

#[test]
fn an_app_without_reuseaddr_gets_its_port_all_the_same() {
    let world = World::new();
    let app = world.app("v1").flag("no_reuseaddr");
    let daemon = world.start(&world.conf().app(&app));
    daemon.wait_until_serves("v1");
    daemon.deploy(&world.app("v2").flag("no_reuseaddr")).expect(200);
    assert_eq!(daemon.get("/").version(), "v2");
}

#[test]
fn releases_are_listed_newest_first_with_their_ends() {
    let world = World::new();
    let daemon = world.start(&world.conf());
    daemon.deploy(&world.app("v1")).expect(200);
    daemon.deploy(&world.app("v2").with("exit", 9)).expect(409);
    daemon.deploy(&world.app("v3")).expect(200);
    daemon.wait_until_stopped("v1");
    let rows = daemon.releases();
    let ids: Vec<_> = rows.iter().map(|row| row.release.as_str()).collect();
    assert_eq!(ids, ["v3", "v2", "v1"]);
    let outcomes: Vec<_> = rows.iter().map(|row| row.outcome.map(|outcome| outcome.as_str())).collect();
    assert_eq!(outcomes, [Some("live"), Some("aborted"), Some("live")]);
    assert_eq!(rows[1].exit.as_deref(), Some("exit status 9"));
    assert!(rows[1].switched_at.is_none() && rows[1].stopped_at.is_some());
    assert!(rows[0].switched_at.is_some() && rows[0].stopped_at.is_none() && rows[0].exit.is_none());
    assert!(rows[2].switched_at.is_some() && rows[2].stopped_at.is_some() && rows[2].exit.is_some());
    let raw = daemon.admin("GET", "/__releases", None).json();
    for key in ["release", "command", "outcome", "startedAt", "switchedAt", "stoppedAt", "exit"] {
        assert!(raw[0].get(key).is_some(), "{key} is missing in {raw:#}");
    }
}

#[test]
fn an_app_that_floods_its_output_neither_blocks_nor_grows_the_daemon() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    daemon.deploy(&world.app("v2").flag("flood").flag("long_line")).expect(200);
    let mut conn = daemon.connect();
    for _ in 0..200 {
        assert_eq!(conn.request("GET", "/", &[], None).unwrap().version(), "v2");
    }
    wait_until(
        "lines arrive",
        || daemon.log(),
        || {
            let logs = daemon.admin("GET", "/__logs?release=v2&lines=5", None).expect(200).json();
            (logs["lines"].as_array()?.len() == 5).then_some(())
        },
    );
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes < 200 * 1024, "the daemon holds {kilobytes} kB");
    daemon.deploy(&world.app("v3")).expect(200);
    daemon.wait_until_stopped("v2");
}

#[test]
fn logs_are_the_last_lines_of_one_release_or_of_all() {
    let world = World::new();
    let daemon = world.start(&world.conf());
    daemon.deploy(&world.app("v1").with("say", "hello-of-one")).expect(200);
    daemon.deploy(&world.app("v2").with("say", "hello-of-two")).expect(200);
    let lines = |path: &str| {
        let logs = daemon.admin("GET", path, None).expect(200).json();
        logs["lines"].as_array().expect("lines are an array").clone()
    };
    let has = |lines: &[Value], text: &str| lines.iter().any(|line| line["line"] == text);
    wait_until(
        "everything was read",
        || daemon.log(),
        || {
            let all = lines("/__logs?lines=1000");
            (has(&all, "hello-of-one") && has(&all, "hello-of-two on standard error")).then_some(())
        },
    );
    let two = lines("/__logs?release=v2&lines=1000");
    assert!(has(&two, "hello-of-two") && !has(&two, "hello-of-one"));
    let stderr = two.iter().find(|line| line["line"] == "hello-of-two on standard error");
    assert_at(stderr.expect("standard error is captured too"), "/stream", "stderr");
    assert_eq!(lines("/__logs?release=v2&lines=1").len(), 1);
    daemon.deploy(&world.app("v3").flag("long_line")).expect(200);
    wait_until(
        "what comes after an endless line",
        || daemon.log(),
        || has(&lines("/__logs?release=v3&lines=1000"), "after the long line").then_some(()),
    );

    daemon.admin("GET", "/__logs?release=nobody", None).refused(404, "not_found");
    for bad in ["0x", "-1", "many"] {
        daemon.admin("GET", &format!("/__logs?lines={bad}"), None).refused(400, "bad_request");
    }
}

#[test]
fn a_forced_redeploy_of_the_live_release_that_is_aborted_leaves_it_live() {
    let world = World::new();
    let daemon = world.start(&world.conf().set("app.start_timeout", "60s"));
    let app = world.app("v1").with("exit_if", world.path("fail").display());
    daemon.deploy(&app).expect(200);
    let before = daemon.status();
    let row = daemon.row("v1");
    world.touch("fail");
    let again = || daemon.admin("POST", "/__deploy?force=1", Some(&deploy_body(&app)));
    again().refused(409, "deploy_aborted");
    let after = daemon.status();
    assert_eq!((live(&after), pid(&after)), (Some("v1"), pid(&before)));
    let rows = daemon.releases();
    assert_eq!(rows[0].outcome.map(|outcome| outcome.as_str()), Some("aborted"), "{rows:#?}");
    assert_eq!(rows[1..], [row], "the attempt that made it live is as it was");
    assert_eq!(daemon.get("/").version(), "v1");
    std::fs::remove_file(world.path("fail")).unwrap();
    again().expect(200);
    let status = daemon.status();
    assert!(live(&status) == Some("v1") && pid(&status) != pid(&before), "{status:#?}");
}

#[test]
fn ids_of_other_peoples_apps_are_no_ids_for_a_deploy() {
    let world = World::new();
    let daemon = world.start(&world.conf());
    let app = world.app("v1");
    for id in ["port-8081", "port-1", "port-65535"] {
        let body = json!({ "command": app.command(), "release": id });
        let refused = daemon.admin("POST", "/__deploy", Some(&body)).refused(400, "bad_request");
        assert_mentions(refused["message"].as_str().unwrap(), &[id]);
    }
    assert!(app.pids().is_empty() && daemon.releases().is_empty());
}
