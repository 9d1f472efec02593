//! The number of an app's processes follows the load between two bounds, and an operator's word.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::Signal;
use portok::wire::{ReplicaRow, ReplicaState};
use serde_json::{Value, json};
use toml::toml;

use crate::harness::app::App;
use crate::harness::conf::Conf;
use crate::harness::doomed::tries_all;
use crate::harness::{
    Asked, Conn, Daemon, Doomed, Load, World, ask, assert_mentions, live, sweep, wait_until,
};

/// A process is busy with two requests, and one second of quiet stops one.
fn conf(world: &World, app: &App, min: i64, max: i64) -> Conf {
    let mut replicas = toml! { busy_at = 2 idle = "1s" };
    replicas.insert("min".into(), min.into());
    replicas.insert("max".into(), max.into());
    world
        .conf()
        .app(app)
        .set("app.replicas", replicas)
        .set("rollback.window", "100ms")
        .set("app.restart", toml! { backoff = "10ms" max_backoff = "200ms" burst = 3 within = "60s" })
}

fn wait_until_ready(daemon: &Daemon<'_>, ready: usize) -> portok::wire::Status {
    daemon.wait_until(&format!("{ready} are ready"), |status| {
        status.replicas.map_or((1, 1), |all| (all.ready, all.wanted)) == (ready, ready)
            && status.candidate.is_none()
    })
}

fn wait_until_run(world: &World, number: usize) -> BTreeSet<u32> {
    wait_until(
        "as many run",
        || format!("{:#?}", world.processes()),
        || {
            let pids: BTreeSet<u32> = world.processes().iter().map(|process| process.pid).collect();
            (pids.len() == number).then_some(pids)
        },
    )
}

fn wait_until_settled(daemon: &Daemon<'_>) -> portok::wire::Status {
    daemon.wait_until("its window has passed", |status| status.phase.as_str() == "settled")
}

/// Requests that the app is busy with until they are released.
struct Busy<'w> {
    world: &'w World,
    file: String,
    conns: Vec<Conn>,
}

impl<'w> Busy<'w> {
    fn new(world: &'w World, daemon: &Daemon<'_>, number: usize, name: &str) -> Self {
        let file = world.path(name).display().to_string();
        let request = format!("GET /hold?file={file} HTTP/1.1\r\nhost: app.test\r\n\r\n");
        let conns = (0..number).map(|_| {
            let mut conn = daemon.connect();
            conn.send(request.as_bytes()).unwrap();
            conn
        });
        Self { world, file: name.to_owned(), conns: conns.collect() }
    }

    /// Lets the app answer: all of them are.
    fn release(self) {
        self.world.touch(&self.file);
        for mut conn in self.conns {
            conn.answer("GET").unwrap().expect(200);
        }
    }
}

#[test]
fn it_grows_under_load_and_shrinks_in_quiet() {
    let world = World::new();
    let app = world.app("v1");
    let daemon = world.start(&conf(&world, &app, 1, 3));
    daemon.wait_until_serves("v1");
    wait_until_settled(&daemon);
    let first = wait_until_run(&world, 1);
    let busy = Busy::new(&world, &daemon, 8, "go-on");
    let status = wait_until_ready(&daemon, 3);
    assert_eq!(live(&status), live(&daemon.status()));
    assert_eq!(wait_until_run(&world, 3).intersection(&first).count(), 1);
    busy.release();
    wait_until_ready(&daemon, 1);
    assert_eq!(wait_until_run(&world, 1), first, "the youngest leave");
    assert_eq!(app.count("start "), 3);
    assert_mentions(
        &daemon.log(),
        &["scaled: busy, one replica more is started", "scaled: quiet, one replica fewer will do"],
    );
    daemon.terminate();
}

#[test]
fn nobody_waits_for_one_that_starts_while_another_lives() {
    let world = World::looking_often();
    world.touch("may-start");
    let app = world.app("v1").with("bind_after", world.path("may-start").display());
    let daemon = world.start(&conf(&world, &app, 1, 2));
    daemon.wait_until_serves("v1");
    wait_until_settled(&daemon);
    std::fs::remove_file(world.path("may-start")).unwrap();
    let busy = Busy::new(&world, &daemon, 2, "go-on");
    daemon.wait_until("one more starts", |status| {
        status.replicas.is_some_and(|all| (all.ready, all.wanted) == (1, 2))
    });
    for _ in 0..20 {
        daemon.get("/").expect(200);
    }
    assert_eq!(daemon.status().phase.as_str(), "degraded");
    world.touch("may-start");
    wait_until_ready(&daemon, 2);
    busy.release();
    daemon.terminate();
}

#[test]
fn it_grows_during_a_deploy_and_the_next_release_has_as_many() {
    let world = World::looking_often();
    let daemon = world.start(&conf(&world, &world.app("v1"), 1, 3));
    daemon.wait_until_serves("v1");
    wait_until_settled(&daemon);
    let next = world.app("v2").with("bind_after", world.path("may-start").display());
    daemon.deploy_detached(&next);
    let busy = Busy::new(&world, &daemon, 2, "go-on");
    daemon.wait_until("live has two", |status| {
        status.candidate.is_some() && status.replicas.is_some_and(|all| (all.ready, all.wanted) == (2, 2))
    });
    world.touch("may-start");
    daemon.wait_until("the next one has two as well", |status| {
        live(status) == Some("v2") && status.replicas.is_some_and(|all| all.ready == 2)
    });
    busy.release();
    daemon.terminate();
}

#[test]
fn a_scale_counts_until_the_file_says_something_else() {
    let world = World::looking_often();
    let app = world.app("v1");
    let mut conf = conf(&world, &app, 1, 2).set("app.replicas", 1);
    let daemon = world.start(&conf);
    let first = daemon.wait_until_serves("v1");
    wait_until_settled(&daemon);
    assert_mentions(&daemon.portok(&["scale", "3", "--by", "ann"]).ended(0).out, &["3 replicas"]);
    let status = wait_until_ready(&daemon, 3);
    assert_eq!(status.last_switch, first.last_switch, "it is no deploy");
    assert_mentions(&daemon.log(), &["scaled", "ann"]);
    let before = wait_until_run(&world, 3);
    let (row, live) = (daemon.releases().remove(0), first.live.unwrap());
    assert_eq!((row.port, row.started_at), (live.port, live.started_at), "those of its first process");
    daemon.kill();
    let daemon = world.start(&conf);
    wait_until_ready(&daemon, 3);
    assert_eq!(wait_until_run(&world, 3), before);
    let said = daemon.portok(&["--json", "scale", "2..4"]).ended(0).json();
    assert_eq!(said, json!({ "min": 2, "max": 4 }));
    // Whatever else is edited, the scale stands.
    conf.put("drain.period", "9s");
    conf.save();
    daemon.admin("POST", "/__reload", None).expect(200);
    assert_mentions(&daemon.portok(&["scale", "2"]).ended(0).out, &["2 replicas"]);
    wait_until_ready(&daemon, 2);
    conf.put("app.replicas", 4);
    conf.save();
    daemon.admin("POST", "/__reload", None).expect(200);
    wait_until_ready(&daemon, 4);
    // The record is written by a thread of its own, a moment later.
    let record = || std::fs::read_to_string(world.state_file()).unwrap();
    wait_until("the record holds no scale any more", record, || {
        let record: Value = serde_json::from_str(&record()).unwrap();
        (record["scale"].is_null() && record["wanted"].is_null()).then_some(())
    });
    daemon.terminate();
}

#[test]
fn the_end_waits_for_what_a_replica_that_leaves_still_has() {
    let world = World::new();
    let app = world.app("v1");
    let mut daemon = world.start(&conf(&world, &app, 2, 2).set("drain.period", "60s"));
    wait_until_ready(&daemon, 2);
    wait_until_settled(&daemon);
    let rows = |daemon: &Daemon<'_>| -> Vec<ReplicaRow> {
        serde_json::from_value(daemon.admin("GET", "/__replicas", None).expect(200).json()).unwrap()
    };
    let mut busy = Busy::new(&world, &daemon, 1, "first");
    app.wait_for(1, "hold begin");
    // The youngest is the one that leaves.
    if rows(&daemon).iter().any(|row| row.replica == 0 && row.inflight == 1) {
        let second = Busy::new(&world, &daemon, 1, "second");
        app.wait_for(2, "hold begin");
        std::mem::replace(&mut busy, second).release();
    }
    daemon.portok(&["scale", "1"]).ended(0);
    wait_until(
        "one leaves with its request",
        || daemon.log(),
        || {
            let leaves = |row: &ReplicaRow| (row.state, row.inflight) == (ReplicaState::Draining, 1);
            rows(&daemon).iter().any(leaves).then_some(())
        },
    );
    daemon.signal(Signal::SIGTERM);
    wait_until("it accepts no more", || daemon.log(), || Conn::tcp(daemon.addr).is_err().then_some(()));
    assert_eq!(app.count("signal"), 0, "nobody is asked to go while there is work");
    busy.release();
    daemon.wait().ended(0);
    world.wait_for_none_left();
}

#[test]
fn a_scale_during_a_deploy_is_used_after_it() {
    let world = World::looking_often();
    let daemon = world.start(&conf(&world, &world.app("v1"), 1, 1));
    daemon.wait_until_serves("v1");
    wait_until_settled(&daemon);
    daemon.deploy_detached(&world.app("v2").with("bind_after", world.path("may-start").display()));
    let said = daemon.admin("POST", "/__scale?min=2&max=2", None).expect(200).json();
    assert_eq!(said, json!({ "min": 2, "max": 2, "noted": true }));
    // A turn of the coordinator later it still is only noted.
    daemon.admin("POST", "/__scale?min=2&max=2", None).expect(200);
    assert_eq!(daemon.status().replicas, None);
    world.touch("may-start");
    let status = wait_until_ready(&daemon, 2);
    assert_eq!(live(&status), Some("v2"));
    daemon.terminate();
}

#[test]
fn a_scale_that_cannot_be_is_refused() {
    let world = World::looking_often();
    let daemon = world.start(&conf(&world, &world.app("v1"), 1, 2).set("hold.on", vec!["crash"]));
    daemon.wait_until_serves("v1");
    for (query, why) in [
        ("min=0&max=0", "the most has to be a number from 1 to 64"),
        ("min=1&max=65", "the most has to be a number from 1 to 64"),
        ("min=3&max=2", "the least is more than the most"),
        ("min=0&max=2", "hold.on has no \"idle\""),
        ("min=1", "`max` has to be a number"),
        ("min=1&max=2&mx=3", "there is no parameter `mx` here"),
    ] {
        let said = daemon.admin("POST", &format!("/__scale?{query}"), None).refused(400, "bad_request");
        assert_mentions(&said.to_string().replace("\\\"", "\""), &[why]);
    }
    daemon.portok(&["scale", "65"]).ended(5);
    daemon.portok(&["scale", "many"]).ended(2);
    assert_eq!(daemon.status().replicas.map(|all| all.wanted), Some(1), "nothing has changed");
    daemon.terminate();

    let world = World::looking_often();
    let unmanaged = world.app("v1").start_unmanaged();
    let daemon = world.start(&world.conf().set("app.target", i64::from(unmanaged.port)));
    daemon.wait_until_serves("v1");
    let said = daemon.admin("POST", "/__scale?min=1&max=2", None).refused(400, "bad_request");
    assert_mentions(&said.to_string(), &["it has no command"]);
}

/// The daemon is killed at `point` of a way up to three replicas and down to one. False: the whole
/// way was walked without coming to it.
fn dies_at(point: u64) -> bool {
    let world = World::looking_often();
    let conf = conf(&world, &world.app("v1"), 1, 1).set("drain.period", "30ms").set("drain.early", false);
    let doomed = Doomed::start(&world, &conf, point);
    doomed.wait_until_status("it is settled", |status| status["phase"] == "settled");
    for count in [3, 1] {
        ask(&world, "POST", &format!("/__scale?min={count}&max={count}"), None);
        doomed.wait_until_status("as many are ready", |status| {
            let ready = status["replicas"]["ready"].as_u64().unwrap_or(1);
            ready == count && status["phase"] == "settled" && status["drainUntil"].is_null()
        });
    }
    if !doomed.dies() {
        world.wait_for_none_left();
        return false;
    }
    let daemon = world.start(&conf);
    let status = daemon.wait_until("as many as are wanted are ready", |status| {
        status.active_port.is_some()
            && status.replicas.is_none_or(|all| all.ready == all.wanted)
            && status.candidate.is_none()
    });
    let wanted = status.replicas.map_or(1, |all| all.wanted);
    assert!(wanted == 1 || wanted == 3, "point {point}: {wanted} are wanted");
    wait_until(
        "as many run",
        || format!("point {point}: {:#?}\n{}", world.processes(), daemon.log()),
        || (world.processes().len() == wanted).then_some(()),
    );
    daemon.portok(&["scale", "2"]).ended(0);
    wait_until_ready(&daemon, 2);
    daemon.terminate();
    true
}

#[test]
fn a_daemon_that_is_killed_while_it_scales_leaves_no_process_and_doubles_none() {
    let end = sweep(4, dies_at);
    assert!(end > 35, "the way has more points than {end}");
}

#[test]
fn saw_teeth_of_load_lose_no_request() {
    // A minute of them, or as many as show the way up and down more than once.
    let teeth = if tries_all() { 12 } else { 3 };
    let world = World::looking_often();
    let app = world.app("v1");
    let conf = conf(&world, &app, 1, 3).set("drain.period", "5s");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    wait_until_settled(&daemon);
    let load = Load::of(&Asked { addr: daemon.addr, host: "app.test".to_owned(), status: 200, tls: None }, 1);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !over.load(Ordering::Relaxed) {
                let all = daemon.status().replicas.expect("its bounds differ");
                assert!((1..=3).contains(&all.wanted) && (1..=3).contains(&all.ready), "{all:?}");
                seen.insert(all.ready);
                load.wait_for_more(1);
            }
            seen
        });
        for tooth in 0..teeth {
            let busy = Busy::new(&world, &daemon, 8, &format!("go-on-{tooth}"));
            wait_until_ready(&daemon, 3);
            busy.release();
            wait_until_ready(&daemon, 1);
        }
        over.store(true, Ordering::Relaxed);
        assert_eq!(watcher.join().unwrap(), [1, 2, 3].into());
    });
    load.finish_without_failure();
    wait_until_run(&world, 1);
    assert!(app.count("start ") > 2 * teeth, "two more for each tooth");
    daemon.terminate();
}
