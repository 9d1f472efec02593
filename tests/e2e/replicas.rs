//! Releases of several processes: requests are spread over them, a deploy moves to all of them at
//! once, and one that ends is replaced while the others serve.

use std::collections::BTreeSet;
use std::net::TcpStream;

use nix::sys::signal::Signal;
use serde_json::json;
use toml::toml;

use crate::harness::app::App;
use crate::harness::conf::Conf;
use crate::harness::{Daemon, Load, World, assert_mentions, live, procs, wait_until};

fn conf(world: &World, app: &App, replicas: i64) -> Conf {
    world
        .conf()
        .app(app)
        .set("app.replicas", replicas)
        .set("rollback.window", "100ms")
        .set("drain.period", "300ms")
        .set("app.restart", toml! { backoff = "10ms" max_backoff = "200ms" burst = 3 within = "60s" })
}

fn wait_until_ready(daemon: &Daemon<'_>, replicas: usize) -> portok::wire::Status {
    daemon.wait_until("every replica is ready", |status| {
        status.replicas.is_some_and(|all| (all.ready, all.wanted) == (replicas, replicas))
            && status.candidate.is_none()
    })
}

/// The replicas that answer, by their numbers.
fn who_answers(daemon: &Daemon<'_>, requests: usize) -> BTreeSet<String> {
    let number = |_| {
        let environment = daemon.get("/env").expect(200).json();
        environment["PORTOK_REPLICA"].as_str().expect("a number").to_owned()
    };
    (0..requests).map(number).collect()
}

fn pids(world: &World) -> BTreeSet<u32> {
    world.processes().iter().map(|process| process.pid).collect()
}

#[test]
fn each_replica_gets_requests_and_knows_its_number() {
    let world = World::new();
    let daemon = world.start(&conf(&world, &world.app("v1"), 3));
    let status = wait_until_ready(&daemon, 3);
    assert_eq!(who_answers(&daemon, 9), ["0", "1", "2"].map(str::to_owned).into());
    assert_eq!(pids(&world).len(), 3);
    let health = daemon.admin("GET", "/__health", None).expect(200).json();
    assert_eq!(health["replicas"].as_array().map(Vec::len), Some(3), "{health}");
    assert_eq!(health["port"], json!(status.active_port));
    let status = daemon.admin("GET", "/__status", None).expect(200).json();
    assert_eq!(status.get("plan"), Some(&json!(null)), "no deploy in steps is under way");
    assert_mentions(&daemon.portok(&["status"]).ended(0).out, &["3 of 3 ready"]);
    daemon.terminate();
}

#[test]
fn one_that_is_killed_costs_no_request_and_comes_back_with_its_number() {
    let world = World::new();
    let daemon = world.start(&conf(&world, &world.app("v1"), 3));
    wait_until_ready(&daemon, 3);
    daemon.wait_until("its window has passed", |status| status.phase.as_str() == "settled");
    for _ in 0..5 {
        let before = pids(&world);
        procs::send(*before.first().unwrap(), Signal::SIGKILL);
        // Each is for itself a connection, and none may fail.
        (0..30).for_each(|_| drop(daemon.get("/").expect(200)));
        wait_until(
            "another one has its place",
            || daemon.log(),
            || {
                let now = pids(&world);
                (now.len() == 3 && now != before).then_some(())
            },
        );
        wait_until_ready(&daemon, 3);
    }
    assert_eq!(who_answers(&daemon, 9).len(), 3);
    assert_eq!(daemon.status().live.map(|live| live.restarts), Some(5));
}

#[test]
fn under_load_one_that_is_killed_costs_no_request() {
    let world = World::new();
    let app = world.app("v1");
    let daemon = world.start(&conf(&world, &app, 3).set("app.restart.burst", 50));
    wait_until_ready(&daemon, 3);
    daemon.wait_until("its window has passed", |status| status.phase.as_str() == "settled");
    let load = Load::idempotent(daemon.addr);
    for started in 4..8 {
        procs::send(*pids(&world).first().unwrap(), Signal::SIGKILL);
        wait_until("another is started", || daemon.log(), || (app.count("start ") == started).then_some(()));
        load.wait_for_more(50);
        wait_until_ready(&daemon, 3);
    }
    load.finish_without_failure();
    daemon.terminate();
}

#[test]
fn requests_that_come_when_all_were_killed_at_once_are_answered_by_the_next() {
    let world = World::new();
    let app = world.app("v1");
    let daemon = world.start(&conf(&world, &app, 3).set("app.restart.burst", 50));
    wait_until_ready(&daemon, 3);
    daemon.wait_until("its window has passed", |status| status.phase.as_str() == "settled");
    for _ in 0..3 {
        let all = pids(&world);
        let replicas = daemon.admin("GET", "/__replicas", None).json();
        let ports: Vec<u16> = replicas
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|row| u16::try_from(row["port"].as_u64()?).ok())
            .collect();
        all.iter().for_each(|pid| procs::send(*pid, Signal::SIGKILL));
        // A request that two dying processes took one after the other would not be sent again, and
        // a process that is dead to its parent may still have threads that hold its listener.
        let refuses = |port: &u16| TcpStream::connect(("127.0.0.1", *port)).is_err();
        wait_until("all refuse", || daemon.log(), || ports.iter().all(refuses).then_some(()));
        // Whether portok knows already or learns it by a refused connection.
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| drop(daemon.get("/").expect(200)));
            }
        });
        wait_until_ready(&daemon, 3);
        assert_eq!(pids(&world).intersection(&all).count(), 0);
    }
    let metrics = daemon.admin("GET", "/__metrics", None).json();
    assert_eq!(metrics["statusCounters"]["5xx"], json!(0));
    daemon.terminate();
}

#[test]
fn all_that_are_killed_come_back() {
    let world = World::new();
    let daemon = world.start(&conf(&world, &world.app("v1"), 2));
    let before = wait_until_ready(&daemon, 2);
    daemon.wait_until("its window has passed", |status| status.phase.as_str() == "settled");
    for pid in pids(&world) {
        procs::send(pid, Signal::SIGKILL);
    }
    daemon.wait_until("both are new", |status| {
        status.live.as_ref().is_some_and(|live| live.restarts == 2) && status.active_port.is_some()
    });
    let after = wait_until_ready(&daemon, 2);
    assert_eq!(after.last_switch, before.last_switch, "traffic has not moved");
    assert_eq!(daemon.get("/").expect(200).version(), "v1");
}

#[test]
fn a_deploy_and_the_way_back_move_to_all_at_once() {
    let world = World::new();
    let daemon = world.start(&conf(&world, &world.app("v1"), 3).set("rollback.window", "60s"));
    let first = wait_until_ready(&daemon, 3);
    let switched = daemon.deploy(&world.app("v2")).expect(200).json();
    let versions = |expected: &str| {
        (0..9).for_each(|_| assert_eq!(daemon.get("/").expect(200).version(), expected));
    };
    versions("v2");
    assert_eq!(switched["switch"]["toPorts"].as_array().map(Vec::len), Some(3), "{switched}");
    assert_eq!(switched["switch"]["fromPorts"].as_array().map(Vec::len), Some(3), "{switched}");
    let second = pids(&world);
    daemon.wait_until_stopped(live(&first).unwrap());
    wait_until("three are left", || format!("{second:?}"), || (pids(&world).len() == 3).then_some(()));
    // In the window one that ends is a bad verdict, and the way back is to all of them.
    procs::send(*pids(&world).first().unwrap(), Signal::SIGKILL);
    daemon.wait_until_live(live(&first).unwrap());
    wait_until_ready(&daemon, 3);
    versions("v1");
}

#[test]
fn deploys_of_several_replicas_lose_no_request() {
    let world = World::new();
    let daemon = world.start(&conf(&world, &world.app("v0"), 3));
    wait_until_ready(&daemon, 3);
    let load = Load::start(daemon.addr);
    for number in 1..=8 {
        let before = live(&daemon.status()).unwrap().to_owned();
        daemon.deploy(&world.app(&format!("v{number}"))).expect(200);
        load.wait_for_more(20);
        daemon.wait_until_stopped(&before);
    }
    let report = load.finish_without_failure();
    assert_eq!(report.by_version.len(), 9, "every release served: {report:#?}");
    wait_until("three are left", || daemon.log(), || (pids(&world).len() == 3).then_some(()));
    let metrics = daemon.admin("GET", "/__metrics", None).json();
    assert_eq!((&metrics["totalProxyErrors"], &metrics["statusCounters"]["5xx"]), (&json!(0), &json!(0)));
    daemon.terminate();
}

#[test]
fn a_candidate_of_which_one_fails_is_given_up_and_nothing_of_it_is_left() {
    let world = World::new();
    let daemon = world.start(&conf(&world, &world.app("v1"), 3));
    wait_until_ready(&daemon, 3);
    let before = pids(&world);
    let bad = world.app("v2");
    let command = format!("test $PORTOK_REPLICA = 1 && echo no place for me && exit 7; {}", bad.command());
    let body = json!({ "command": command, "release": "v2" });
    let answer = daemon.admin("POST", "/__deploy", Some(&body)).expect(409).json();
    assert_mentions(&answer.to_string(), &["exit status 7", "no place for me"]);
    wait_until("only the live ones are left", || daemon.log(), || (pids(&world) == before).then_some(()));
    assert_eq!(who_answers(&daemon, 9).len(), 3);
    assert_eq!(daemon.get("/").version(), "v1");
}

#[test]
fn the_next_daemon_takes_all_of_them_over_and_starts_what_ended_meanwhile() {
    let world = World::new();
    let app = world.app("v1");
    let conf = conf(&world, &app, 3);
    let daemon = world.start(&conf);
    wait_until_ready(&daemon, 3);
    daemon.wait_until("its window has passed", |status| status.phase.as_str() == "settled");
    daemon.wait_until_recorded();
    let before = pids(&world);
    daemon.kill();
    let daemon = world.start(&conf);
    wait_until_ready(&daemon, 3);
    assert_eq!(pids(&world), before);
    assert_eq!(app.count("start "), 3, "none was started twice");
    daemon.wait_until_recorded();
    daemon.kill();
    procs::send(*before.first().unwrap(), Signal::SIGKILL);
    let daemon = world.start(&conf);
    wait_until_ready(&daemon, 3);
    assert_eq!(pids(&world).intersection(&before).count(), 2);
    assert_eq!(who_answers(&daemon, 9).len(), 3);
    daemon.terminate();
}

#[test]
fn another_number_of_replicas_is_no_deploy() {
    let world = World::new();
    let app = world.app("v1");
    let mut conf = conf(&world, &app, 1);
    let daemon = world.start(&conf);
    let first = daemon.wait_until_serves("v1");
    daemon.wait_until("its window has passed", |status| status.phase.as_str() == "settled");
    assert_eq!(first.replicas, None);
    daemon.wait_until_recorded();
    let record = std::fs::read_to_string(world.state_file()).unwrap();
    assert!(!record.contains("\"replica\""), "the record of one is what it always was: {record}");
    for (replicas, starts) in [(4, 4), (2, 4), (3, 5)] {
        conf.put("app.replicas", i64::try_from(replicas).unwrap());
        conf.save();
        let status = wait_until_ready(&daemon, replicas);
        assert_eq!(status.last_switch, first.last_switch);
        wait_until(
            "as many run",
            || format!("{:?}\n{}", pids(&world), daemon.log()),
            || (pids(&world).len() == replicas).then_some(()),
        );
        assert_eq!(app.count("start "), starts);
        assert_eq!(who_answers(&daemon, 12).len(), replicas);
    }
    daemon.terminate();
}

#[test]
fn an_upgrade_of_the_daemon_keeps_every_replica() {
    let world = World::new();
    let app = world.app("v1");
    let mut daemon = world.start(&conf(&world, &app, 3));
    wait_until_ready(&daemon, 3);
    daemon.wait_until("its window has passed", |status| status.phase.as_str() == "settled");
    let before = pids(&world);
    daemon.upgrade();
    wait_until_ready(&daemon, 3);
    assert_eq!((pids(&world), app.count("start ")), (before, 3));
    assert_eq!(who_answers(&daemon, 9).len(), 3);
    daemon.terminate();
}

#[test]
fn the_port_and_the_process_are_those_of_the_lowest_number_ready_or_not() {
    let world = World::new();
    world.touch("may-start");
    let app = world.app("v1").with("bind_after", world.path("may-start").display());
    let daemon = world.start(&conf(&world, &app, 2));
    let before = wait_until_ready(&daemon, 2);
    std::fs::remove_file(world.path("may-start")).unwrap();
    let first = before.live.and_then(|live| live.pid).expect("a process");
    procs::send(first, Signal::SIGKILL);
    let row = |replica: usize| daemon.admin("GET", "/__replicas", None).expect(200).json()[replica].clone();
    let status = daemon.wait_until("the first one starts again", |status| {
        let pid = status.live.as_ref().and_then(|live| live.pid);
        status.replicas.is_some_and(|all| all.ready == 1)
            && pid.is_some_and(|pid| pid != first)
            && row(0)["state"] == "starting"
            && row(0)["pid"] == pid.unwrap()
    });
    let port = status.live.as_ref().and_then(|live| live.port);
    assert!(port.is_some() && status.active_port == port, "{status:#?}");
    assert_ne!(row(1)["port"], port.unwrap());
    daemon.get("/").expect(200);
    world.touch("may-start");
    wait_until_ready(&daemon, 2);
    daemon.terminate();
}

#[test]
fn of_a_candidate_that_is_given_up_the_replica_that_failed_is_told() {
    let world = World::new();
    let daemon = world.start(&conf(&world, &world.app("v1"), 3));
    wait_until_ready(&daemon, 3);
    // The others are waited for, and end when they are told to.
    let command = world.app("v2").flag("bind_never").command();
    let command = format!("test $PORTOK_REPLICA != 1 || {{ sleep 0.3; exit 7; }}; {command}");
    let body = json!({ "command": command, "release": "v2" });
    let said = daemon.admin("POST", "/__deploy", Some(&body)).refused(409, "deploy_aborted");
    assert_mentions(said["message"].as_str().unwrap(), &["replica 1", "exit status 7"]);
    daemon.wait_until_stopped("v2");
    let row = daemon.row("v2");
    assert_eq!(row.exit.as_deref(), Some("exit status 7"), "{row:#?}");
    daemon.terminate();
}
