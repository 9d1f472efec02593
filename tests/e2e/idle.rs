//! An app that nobody asks for runs nowhere, and the next request starts it.

use nix::sys::signal::Signal;
use serde_json::Value;
use toml::toml;

use crate::harness::app::App;
use crate::harness::conf::Conf;
use crate::harness::{Conn, Daemon, World, assert_at, assert_mentions, live, procs, wait_until};

fn conf(world: &World, app: &App) -> Conf {
    world
        .conf()
        .app(app)
        .set("app.replicas", toml! { min = 0 max = 2 busy_at = 50 idle = "1s" })
        .set("rollback.window", "100ms")
        .set("app.restart", toml! { backoff = "10ms" max_backoff = "200ms" burst = 50 within = "60s" })
}

/// Waits until nothing runs.
fn wait_until_idle(world: &World, daemon: &Daemon<'_>) -> portok::wire::Status {
    let status = daemon.wait_until("it is idle", |status| status.phase.as_str() == "idle");
    wait_until("nothing runs", || daemon.log(), || world.processes().is_empty().then_some(()));
    status
}

#[test]
fn a_hundred_requests_at_once_start_one_and_are_all_answered() {
    let world = World::looking_often();
    let app = world.app("v1");
    let daemon = world.start(&conf(&world, &app));
    daemon.wait_until_serves("v1");
    for round in 1..=3 {
        wait_until_idle(&world, &daemon);
        let addr = daemon.addr;
        let clients = (0..100).map(|_| {
            std::thread::spawn(move || Conn::tcp(addr)?.request("GET", "/", &[("host", "app.test")], None))
        });
        for client in clients.collect::<Vec<_>>() {
            client.join().unwrap().unwrap().expect(200);
        }
        assert_eq!(app.count("start "), 1 + round);
    }
    assert_mentions(&daemon.log(), &["idle: nothing of it runs", "woken: a request waits for it"]);
    daemon.terminate();
}

#[test]
fn an_idle_app_is_well_and_only_its_own_requests_wake_it() {
    let world = World::looking_often();
    let app = world.app("v1");
    let daemon = world.start(&conf(&world, &app).set("proxy.ping", "/ping"));
    let first = daemon.wait_until_serves("v1");
    let status = wait_until_idle(&world, &daemon);
    assert_eq!((status.active_port, live(&status)), (None, live(&first)));
    assert_eq!(status.last_switch, first.last_switch);
    assert_eq!(status.traffic.as_str(), "open", "nobody waits");
    let health = daemon.admin("GET", "/__health", None).expect(200).json();
    assert_at(&health, "/healthy", true);
    assert_at(&health, "/idle", true);
    assert_at(&health, "/port", Value::Null);
    assert_mentions(&daemon.portok(&["status"]).ended(0).out, &["idle", "the next request starts one"]);
    assert_mentions(&daemon.portok(&["health"]).ended(0).out, &["idle"]);
    daemon.portok(&["status", "--wait", "30s"]).ended(0);
    daemon.admin("GET", "/__metrics", None).expect(200);
    daemon.get("/ping").expect(200);
    daemon.portok(&["maintenance", "on"]).ended(0);
    daemon.get("/").expect(503);
    daemon.portok(&["maintenance", "off"]).ended(0);
    let mut conn = daemon.connect();
    conn.send(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    conn.answer("GET").unwrap().expect(400);
    // By now it would have been woken by one of them.
    daemon.admin("POST", "/__reload", None).expect(200);
    assert_eq!((daemon.status().phase.as_str(), app.count("start ")), ("idle", 1));
    daemon.get("/").expect(200);
    assert_eq!(app.count("start "), 2);
    daemon.terminate();
}

#[test]
fn a_pause_holds_its_requests_and_their_start() {
    let world = World::looking_often();
    let app = world.app("v1");
    let daemon = world.start(&conf(&world, &app));
    daemon.wait_until_serves("v1");
    wait_until_idle(&world, &daemon);
    daemon.portok(&["pause", "--for", "5m"]).ended(0);
    let mut conn = daemon.connect();
    conn.send(b"GET / HTTP/1.1\r\nhost: app.test\r\n\r\n").unwrap();
    wait_until(
        "it waits",
        || daemon.log(),
        || {
            // A hand-over is refused while a request waits.
            let said = daemon.portok(&["upgrade", "--binary", "/bin/false"]);
            (said.code != 0 && said.err.contains("held")).then_some(())
        },
    );
    assert_eq!(app.count("start "), 1);
    daemon.portok(&["resume"]).ended(0);
    conn.answer("GET").unwrap().expect(200);
    daemon.terminate();
}

#[test]
fn a_start_from_zero_that_fails_is_a_crash_and_no_rollback() {
    let world = World::looking_often();
    let daemon = world.start(&conf(&world, &world.app("v1")));
    daemon.wait_until_serves("v1");
    let next = world.app("v2").with("exit_if", world.path("broken").display());
    daemon.deploy(&next).expect(200);
    let before = wait_until_idle(&world, &daemon);
    assert_eq!(live(&before), Some("v2"));
    world.touch("broken");
    let mut conn = daemon.connect();
    conn.send(b"GET / HTTP/1.1\r\nhost: app.test\r\n\r\n").unwrap();
    next.wait_for(3, "start ");
    std::fs::remove_file(world.path("broken")).unwrap();
    let answer = conn.answer("GET").unwrap().expect(200);
    assert_eq!(answer.version(), "v2");
    let after = daemon.status();
    assert_eq!((after.last_switch.as_ref(), live(&after)), (before.last_switch.as_ref(), Some("v2")));
    daemon.terminate();
}

#[test]
fn the_next_daemon_finds_it_idle_and_leaves_it_so() {
    let world = World::looking_often();
    let app = world.app("v1");
    let conf = conf(&world, &app);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    wait_until_idle(&world, &daemon);
    daemon.kill();
    let daemon = world.start(&conf);
    wait_until_idle(&world, &daemon);
    assert_eq!(app.count("start "), 1);
    // What was woken serves on in the next one; a request keeps it awake until then.
    let mut conn = daemon.connect();
    conn.send(b"GET /hold?file=/nowhere HTTP/1.1\r\nhost: app.test\r\n\r\n").unwrap();
    app.wait_for(1, "hold begin");
    let pid = daemon.live_pid();
    let record = || std::fs::read_to_string(world.state_file()).unwrap();
    wait_until("its process is on disk", record, || {
        record().contains(&format!("\"pid\": {pid},")).then_some(())
    });
    daemon.kill();
    let mut daemon = world.start(&conf);
    let status = daemon.wait_until_serves("v1");
    assert_eq!((crate::harness::pid(&status), app.count("start ")), (Some(pid), 2));
    wait_until_idle(&world, &daemon);
    // A request whose client was there before is answered, too.
    let mut conn = daemon.connect();
    conn.send(b"GET / HTTP/1.1\r\n").unwrap();
    daemon.upgrade();
    wait_until_idle(&world, &daemon);
    assert_eq!(app.count("start "), 2);
    conn.send(b"host: app.test\r\n\r\n").unwrap();
    assert_eq!(conn.answer("GET").unwrap().expect(200).version(), "v1");
    assert_eq!(daemon.get("/").expect(200).version(), "v1");
    daemon.terminate();
}

#[test]
fn a_candidate_that_fails_in_the_place_of_an_idle_one_leaves_it_idle() {
    let world = World::looking_often();
    let conf = conf(&world, &world.app("v1"))
        .set("app.replicas", toml! { min = 0 max = 1 idle = "1s" })
        .set("deploy.strategy", "recreate");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    wait_until_idle(&world, &daemon);
    let answer = daemon.deploy(&world.app("v2").with("exit", 3)).refused(409, "deploy_aborted");
    assert_mentions(
        answer["message"].as_str().unwrap(),
        &["exit status 3", "is started by the next request"],
    );
    wait_until_idle(&world, &daemon);
    assert_eq!(daemon.get("/").expect(200).version(), "v1");
    daemon.terminate();
}

#[test]
fn a_deploy_and_the_way_back_of_an_idle_app_start_one() {
    let world = World::looking_often();
    let daemon = world.start(&conf(&world, &world.app("v1")));
    let first = daemon.wait_until_serves("v1");
    wait_until_idle(&world, &daemon);
    daemon.deploy(&world.app("v2")).expect(200);
    assert_eq!(daemon.get("/").expect(200).version(), "v2");
    wait_until_idle(&world, &daemon);
    daemon.admin("POST", "/__rollback", None).expect(200);
    assert_eq!(live(&daemon.status()), live(&first));
    assert_eq!(daemon.get("/").expect(200).version(), "v1");
    // What crashes is started again, and goes to rest again.
    procs::send(daemon.live_pid(), Signal::SIGKILL);
    daemon.get("/").expect(200);
    wait_until_idle(&world, &daemon);
    daemon.terminate();
}
