//! What is said of each process and each target: `portok ps`, `GET /__replicas`, and whose lines
//! are in `portok logs`.

use nix::sys::signal::Signal;
use portok::wire::{ReplicaRole, ReplicaRow, ReplicaState};
use serde_json::{Value, json};
use toml::toml;

use crate::harness::conf::Conf;
use crate::harness::{Daemon, World, assert_mentions, procs, wait_until};

fn conf(world: &World, replicas: i64) -> Conf {
    world
        .conf()
        .app(&world.app("v1").with("say", "hello"))
        .set("app.replicas", replicas)
        .set("rollback.window", "100ms")
        .set("drain.period", "30s")
        .set("drain.early", false)
        .set("app.restart", toml! { backoff = "30s" max_backoff = "60s" burst = 9 within = "60s" })
}

fn rows(daemon: &Daemon<'_>) -> Vec<ReplicaRow> {
    serde_json::from_value(daemon.admin("GET", "/__replicas", None).expect(200).json()).unwrap()
}

#[track_caller]
fn wait_for(daemon: &Daemon<'_>, what: &str, check: impl Fn(&[ReplicaRow]) -> bool) -> Vec<ReplicaRow> {
    let explain = || format!("{:#?}\n{}", rows(daemon), daemon.log());
    wait_until(what, explain, || Some(rows(daemon)).filter(|rows| check(rows)))
}

/// So many rows of the live release are ready.
fn ready(rows: &[ReplicaRow]) -> usize {
    rows.iter().filter(|row| (row.role, row.state) == (ReplicaRole::Live, ReplicaState::Ready)).count()
}

#[test]
fn each_process_is_listed_with_what_it_has_done_and_what_became_of_it() {
    let world = World::new();
    let daemon = world.start(&conf(&world, 3));
    wait_for(&daemon, "all are ready", |rows| ready(rows) == 3);
    (0..9).for_each(|_| drop(daemon.get("/").expect(200)));
    let all = wait_for(&daemon, "nothing is in flight", |rows| rows.iter().all(|row| row.inflight == 0));
    let numbers: Vec<_> = all.iter().map(|row| (row.replica, row.tunnels)).collect();
    assert_eq!(numbers, [(0, 0), (1, 0), (2, 0)]);
    assert_eq!(all.iter().map(|row| row.requests).sum::<u64>(), 9);
    for row in &all {
        assert_eq!((row.app.as_str(), row.restarts, &row.last_exit), (world.name(), 0, &None));
        assert!(row.memory.is_some_and(|bytes| bytes > 100_000), "{row:?}");
        assert!(row.port.is_some() && row.pid.is_some() && row.started_at.is_some(), "{row:?}");
    }
    let mut tunnel = daemon.connect();
    let upgrade = [("host", "a"), ("connection", "Upgrade"), ("upgrade", "websocket")];
    tunnel.request("GET", "/ws", &upgrade, None).unwrap().expect(101);
    wait_for(&daemon, "the tunnel counts", |rows| {
        rows.iter().filter(|row| (row.inflight, row.tunnels) == (1, 1)).count() == 1
    });
    // One that has crashed has no process until its delay is over. What is left of its group is
    // listed until it is gone.
    procs::send(all[1].pid.unwrap(), Signal::SIGKILL);
    let crashed = wait_for(&daemon, "its place waits, and nothing is left of it", |rows| {
        rows[1].state == ReplicaState::Waiting && rows.len() == 3
    });
    assert_eq!((crashed[1].pid, crashed[1].memory), (None, None));
    assert_mentions(&crashed[1].last_exit.as_ref().unwrap().exit, &["SIGKILL"]);
    assert_mentions(
        &daemon.portok(&["ps"]).ended(0).out,
        &["live", "web.0  ready", "web.1  waiting", "RESTARTS", "MB"],
    );
    let listed: Value = serde_json::from_str(&daemon.portok(&["ps", "--json"]).ended(0).out).unwrap();
    assert_eq!((&listed[1]["state"], &listed[1]["process"]), (&json!("waiting"), &Value::Null));
}

#[test]
fn the_former_release_is_previous_while_it_drains() {
    let world = World::new();
    let daemon = world.start(&conf(&world, 2).set("app.restart", toml! { backoff = "10ms" }));
    wait_for(&daemon, "all are ready", |rows| ready(rows) == 2);
    daemon.deploy(&world.app("v2")).expect(200);
    let all = rows(&daemon);
    let seen: Vec<_> = all.iter().map(|row| (row.role, row.state, row.replica)).collect();
    let (live, previous) = (ReplicaRole::Live, ReplicaRole::Previous);
    let (ready, draining) = (ReplicaState::Ready, ReplicaState::Draining);
    assert_eq!(seen, [(live, ready, 0), (live, ready, 1), (previous, draining, 0), (previous, draining, 1)]);
    // A place that was filled again says so, and how the former one ended.
    daemon.wait_until("its window has passed", |status| status.phase.as_str() == "settled");
    procs::send(all[1].pid.unwrap(), Signal::SIGKILL);
    let again = wait_for(&daemon, "it is there again", |rows| {
        (rows[1].restarts, rows[1].state) == (1, ReplicaState::Ready)
    });
    assert_eq!((again[0].restarts, again[0].last_exit.is_none()), (0, true));
    assert_mentions(&again[1].last_exit.as_ref().unwrap().exit, &["SIGKILL"]);
    assert_eq!(again[1].requests, 0, "since it is ready");
    let metrics = daemon.admin("GET", "/__metrics?format=prometheus", None).expect(200).text();
    assert_mentions(&metrics, &["\nportok_replicas_ready 2\n", "\nportok_replicas_wanted 2\n"]);
}

#[test]
fn the_lines_of_several_replicas_are_told_apart() {
    let world = World::new();
    let daemon = world.start(&conf(&world, 2));
    wait_for(&daemon, "all are ready", |rows| ready(rows) == 2);
    let said = |query: &str| {
        let logs = daemon.admin("GET", &format!("/__logs{query}"), None).expect(200).json();
        let lines = logs["lines"].as_array().unwrap().clone();
        lines
            .iter()
            .filter(|line| line["line"] == "hello")
            .map(|line| line["replica"].clone())
            .collect::<Vec<_>>()
    };
    let mut both = said("");
    both.sort_by_key(Value::as_u64);
    assert_eq!(both, [json!(0), json!(1)]);
    assert_eq!(said("?replica=1"), [json!(1)]);
    assert_eq!(said("?process=web").len(), 2);
    daemon.admin("GET", "/__logs?process=worker", None).refused(404, "not_found");
    daemon.admin("GET", "/__logs?replica=x", None).refused(400, "bad_request");
    assert_mentions(&daemon.portok(&["logs"]).ended(0).out, &[" 0| hello\n", " 1| hello\n"]);
    let second = daemon.portok(&["logs", "--replica", "1"]).ended(0).out;
    assert!(second.contains(" 1| hello\n") && !second.contains(" 0| hello"), "{second}");
}
