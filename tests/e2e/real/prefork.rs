//! Servers that fork workers, each of them as one replica: gunicorn, Node's cluster, puma.
//!
//! The leader listens and the workers answer. To portok they are one process group with one port.

use std::collections::BTreeSet;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use portok::wire::Status;
use serde_json::json;

use super::asking::Asking;
use super::{file, has};
use crate::harness::conf::Conf;
use crate::harness::{Daemon, World, live, pid, procs, wait_until};

/// How many workers each of them has.
const WORKERS: usize = 3;

fn conf(world: &World, command: &str) -> Conf {
    world
        .conf()
        .set("app.command", command)
        .set("app.env.PYTHONDONTWRITEBYTECODE", "1")
        .set("app.env.GO_ON", go_on(world).display().to_string())
        .set("drain.early", false)
        .set("drain.period", "200ms")
        .set("rollback.window", "100ms")
}

/// `/slow` is answered once this file exists.
fn go_on(world: &World) -> PathBuf {
    world.path("go-on")
}

fn pids(world: &World) -> BTreeSet<u32> {
    world.processes().iter().map(|process| process.pid).collect()
}

fn worker(daemon: &Daemon<'_>) -> u32 {
    daemon.get("/").expect(200).text().trim().parse().expect("a pid")
}

#[test]
fn gunicorn() {
    if has("gunicorn") {
        let options = format!("--workers {WORKERS} --chdir {} wsgi:app", file(""));
        lives(&format!("exec gunicorn --bind 127.0.0.1:$PORT {options}"), "Handling signal: term");
    }
}

#[test]
fn node_cluster() {
    if has("node") {
        lives(&format!("exec node {}", file("cluster.js")), "no further requests");
    }
}

#[test]
fn puma() {
    if has("puma") {
        let options = format!("--workers {WORKERS} --threads 1:4 --environment production");
        let command = format!("exec puma --bind tcp://127.0.0.1:$PORT {options} {}", file("config.ru"));
        lives(&command, "Gracefully shutting down workers");
    }
}

/// The life of such an app: deploys under load, a stop with a request in flight, the death of a
/// worker, the death of the daemon, the end. `ending`: what its leader prints at SIGTERM.
fn lives(command: &str, ending: &str) {
    let world = World::new();
    let conf = conf(&world, command);
    let daemon = world.start(&conf);
    let first = daemon.wait_until("it is settled", |status| status.phase.as_str() == "settled");
    for number in 1..=2 {
        let before = live(&daemon.status()).unwrap().to_owned();
        let mut slow = daemon.connect();
        slow.send(b"GET /slow HTTP/1.1\r\nhost: app.test\r\n\r\n").expect("it is connected");
        let is_there = |status: &Status| status.live.as_ref().is_some_and(|live| live.inflight == 1);
        daemon.wait_until("the request is there", is_there);
        let load = Asking::start(daemon.addr);
        let body = json!({ "command": command, "release": format!("v{number}") });
        daemon.admin("POST", "/__deploy", Some(&body)).expect(200);
        let has_ended = || (daemon.log().matches(ending).count() == number).then_some(());
        wait_until("it has its signal", || daemon.log(), has_ended);
        // A worker that has a request when the signal comes answers it.
        world.touch("go-on");
        assert_eq!(slow.answer("GET").expect("an answer").expect(200).version(), before);
        std::fs::remove_file(go_on(&world)).expect("it is there");
        daemon.wait_until_stopped(&before);
        load.finish();
    }
    assert_ne!(pid(&daemon.status()), pid(&first));

    daemon.wait_until("it is settled", |status| status.phase.as_str() == "settled");
    let before = daemon.status();
    let killed = worker(&daemon);
    assert_ne!(Some(killed), pid(&before), "a worker answers");
    procs::send(killed, Signal::SIGKILL);
    wait_until("it is dead", || killed.to_string(), || (!procs::is_alive(killed)).then_some(()));
    (0..30).for_each(|_| assert_ne!(worker(&daemon), killed));
    let after = daemon.status();
    let of = |status: &Status| {
        let live = status.live.as_ref().map(|live| (live.pid, live.restarts));
        (live, status.phase, status.last_switch.clone())
    };
    assert_eq!(of(&after), of(&before), "portok has not noticed");

    daemon.wait_until_recorded();
    let alive = wait_until(
        "it has all its workers",
        || format!("{:#?}", world.processes()),
        || Some(pids(&world)).filter(|pids| pids.len() == WORKERS + 1),
    );
    daemon.kill();
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v2");
    assert_eq!((pids(&world), pid(&daemon.status())), (alive, pid(&before)), "the same processes");
    let load = Asking::start(daemon.addr);
    daemon.portok(&["rollback"]).ended(0);
    daemon.wait_until_stopped("v2");
    load.finish();
    // Nothing of the group is left behind.
    daemon.terminate();
}
