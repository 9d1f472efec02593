//! Processes of a release that get no requests: they come with their release and go with it, are
//! started again when they end, and go on whatever becomes of the daemon.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use portok::wire::Phase;
use serde_json::{Value, json};
use toml::toml;

use crate::harness::app::App;
use crate::harness::conf::Conf;
use crate::harness::daemon::TOKEN;
use crate::harness::wait::{lines, wait_for_lines};
use crate::harness::{Daemon, World, assert_mentions, live, procs, wait_until};

/// A companion that writes down that it starts, `start RELEASE PROCESS REPLICA PORT PID`, and by
/// which signal it is stopped, `end RELEASE SIGNAL`.
struct Worker {
    journal: PathBuf,
}

impl Worker {
    fn new(world: &World) -> Self {
        Self { journal: world.path("worker.journal") }
    }

    fn command(&self) -> String {
        let journal = self.journal.display();
        let end =
            |signal: &str| format!("trap 'echo end $PORTOK_RELEASE {signal} >> {journal}; exit 0' {signal}");
        format!(
            "{}; {}; echo start $PORTOK_RELEASE $PORTOK_PROCESS $PORTOK_REPLICA ${{PORT-none}} $$ >> {journal}; \
             sleep 1000 & wait",
            end("TERM"),
            end("INT")
        )
    }

    /// What it wrote, without the pids.
    fn journal(&self) -> Vec<String> {
        lines(&self.journal).iter().map(|line| without_details(line)).collect()
    }

    fn wait_for(&self, expected: &[&str]) {
        let what = format!("{expected:?}");
        wait_for_lines(&what, &self.journal, |lines| {
            lines.iter().map(|line| without_details(line)).collect::<Vec<_>>() == expected
        });
    }

    /// The pids of all its starts, oldest first.
    fn pids(&self) -> Vec<u32> {
        let starts = lines(&self.journal).into_iter().filter(|line| line.starts_with("start "));
        starts.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect()
    }
}

/// `start RELEASE` or `end RELEASE SIGNAL`.
fn without_details(line: &str) -> String {
    let words: Vec<_> = line.split(' ').collect();
    if words[0] == "start" { words[..2].join(" ") } else { line.to_owned() }
}

fn conf(world: &World, app: &App, worker: &Worker) -> Conf {
    world
        .conf()
        .app(app)
        .set("rollback.window", "200ms")
        .set("drain.period", "50ms")
        .set("app.restart", toml! { backoff = "10ms" max_backoff = "200ms" burst = 3 within = "60s" })
        .set("app.processes.worker.command", worker.command())
}

/// The release that is live at the start.
fn first(daemon: &Daemon<'_>) -> String {
    let status = daemon.wait_until("the first release is settled", |status| status.phase == Phase::Settled);
    live(&status).unwrap().to_owned()
}

#[test]
fn after_the_switch_the_former_one_ends_and_then_the_new_one_starts() {
    let world = World::new();
    let worker = Worker::new(&world);
    let conf = conf(&world, &world.app("v1"), &worker).set("app.processes.worker.replicas", 2);
    let daemon = world.start(&conf);
    let v1 = first(&daemon);
    let lines = wait_for_lines("both start", &worker.journal, |lines| lines.len() == 2);
    let starts: Vec<_> = lines.iter().map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect();
    for replica in 0..2 {
        assert!(starts.contains(&format!("start {v1} worker {replica} none")), "{starts:?}");
    }
    daemon.deploy(&world.app("v2")).expect(200);
    let (start, end) = (format!("start {v1}"), format!("end {v1} TERM"));
    worker.wait_for(&[&start, &start, &end, &end, "start v2", "start v2"]);
    daemon.terminate();
    let journal = worker.journal();
    assert_eq!(journal[6..], ["end v2 TERM", "end v2 TERM"], "they are stopped with the daemon");
}

#[test]
fn one_that_starts_before_runs_with_the_candidate_and_goes_with_it() {
    let world = World::new();
    let worker = Worker::new(&world);
    let conf = conf(&world, &world.app("v1"), &worker)
        .set("app.processes.worker.start", "before")
        .set("app.processes.worker.stop_signal", "INT");
    let daemon = world.start(&conf);
    let v1 = first(&daemon);
    let (start, end) = (format!("start {v1}"), format!("end {v1} INT"));
    worker.wait_for(&[&start]);
    let events = daemon.deploy_stream(&world.app("v2"));
    let spawned: Vec<_> = events.iter().filter(|event| event["event"] == "spawned").collect();
    assert_eq!(
        spawned.iter().map(|event| &event["process"]).collect::<Vec<_>>(),
        [&json!("worker"), &Value::Null]
    );
    worker.wait_for(&[&start, "start v2", &end]);
    let bad = world.app("v3").flag("exit");
    let body = json!({ "command": "exit 3", "release": bad.version() });
    daemon.admin("POST", "/__deploy", Some(&body)).expect(409);
    worker.wait_for(&[&start, "start v2", &end, "start v3", "end v3 INT"]);
    assert_eq!(daemon.get("/").expect(200).version(), "v2");
    daemon.terminate();
}

#[test]
fn one_that_cannot_run_before_its_candidate_gives_the_deploy_up() {
    let world = World::new();
    let worker = Worker::new(&world);
    let mut conf = conf(&world, &world.app("v1"), &worker);
    let daemon = world.start(&conf);
    let v1 = first(&daemon);
    conf.put("app.processes.worker.command", toml::Value::Array(vec!["/nowhere/worker".into()]));
    conf.put("app.processes.worker.start", "before");
    conf.save();
    let status = daemon.wait_until("the edit is given up", |status| status.last_failure.is_some());
    assert_mentions(&status.last_failure.unwrap(), &["process `worker`", "/nowhere/worker"]);
    worker.wait_for(&[&format!("start {v1}")]);
    assert_eq!(live(&daemon.status()), Some(&*v1));
    daemon.terminate();
}

#[test]
fn a_rollback_brings_the_former_one_back() {
    let world = World::new();
    let worker = Worker::new(&world);
    let daemon = world.start(&conf(&world, &world.app("v1"), &worker).set("drain.period", "20s"));
    let v1 = first(&daemon);
    daemon.deploy(&world.app("v2")).expect(200);
    let (start, end) = (format!("start {v1}"), format!("end {v1} TERM"));
    worker.wait_for(&[&start, &end, "start v2"]);
    daemon.admin("POST", "/__rollback", None).expect(200);
    worker.wait_for(&[&start, &end, "start v2", "end v2 TERM", &start]);
    // An end of the app is none of its companion's.
    daemon.wait_until("it is settled", |status| status.phase == Phase::Settled);
    procs::send(daemon.live_pid(), Signal::SIGKILL);
    daemon.wait_until("the app is back", |status| {
        status.active_port.is_some() && status.live.as_ref().is_some_and(|live| live.restarts == 1)
    });
    assert_eq!(worker.journal().len(), 5);
}

#[test]
fn one_that_ends_is_started_again_and_the_app_goes_on() {
    let world = World::new();
    let worker = Worker::new(&world);
    let app = world.app("v1");
    let daemon = world.start(&conf(&world, &app, &worker));
    let v1 = first(&daemon);
    let start = format!("start {v1}");
    worker.wait_for(&[&start]);
    procs::send(worker.pids()[0], Signal::SIGKILL);
    worker.wait_for(&[&start, &start]);
    let status = daemon.status();
    assert_eq!((status.phase, app.count("start ")), (Phase::Settled, 1));
    assert_mentions(&daemon.log(), &["a companion crashed", "worker"]);
    daemon.terminate();
}

/// A worker that fails in release v2 alone.
fn fails_in_v2(worker: &Worker) -> String {
    format!("test $PORTOK_RELEASE = v2 && echo no queue for me && exit 3; {}", worker.command())
}

#[test]
fn in_the_window_one_that_crashes_again_and_again_brings_a_rollback() {
    let world = World::new();
    let worker = Worker::new(&world);
    let conf = conf(&world, &world.app("v1"), &worker)
        .set("app.processes.worker.command", fails_in_v2(&worker))
        .set("rollback.window", "60s");
    let daemon = world.start(&conf);
    let status = daemon.wait_until("the first release serves", |status| status.active_port.is_some());
    let v1 = live(&status).unwrap().to_owned();
    let (start, end) = (format!("start {v1}"), format!("end {v1} TERM"));
    worker.wait_for(&[&start]);
    daemon.deploy(&world.app("v2")).expect(200);
    worker.wait_for(&[&start, &end, &start]);
    let status = daemon.wait_until_live(&v1);
    assert_mentions(
        &status.last_failure.unwrap(),
        &["rolled back from `v2`", "process `worker`", "exit status 3"],
    );
    assert_eq!(status.quarantined, ["v2"]);
    daemon.terminate();
}

#[test]
fn outside_the_window_one_that_crashes_again_and_again_degrades() {
    let world = World::new();
    let worker = Worker::new(&world);
    let conf = conf(&world, &world.app("v1"), &worker)
        .set("app.processes.worker.command", fails_in_v2(&worker))
        .set("rollback.window", "0");
    let daemon = world.start(&conf);
    first(&daemon);
    daemon.deploy(&world.app("v2")).expect(200);
    let status = daemon.wait_until("it is degraded", |status| status.phase == Phase::Degraded);
    assert_eq!(live(&status), Some("v2"));
    assert_eq!(daemon.get("/").expect(200).version(), "v2");
    daemon.deploy(&world.app("v3")).expect(200);
    daemon.wait_until("the next release has a good one", |status| status.phase == Phase::Settled);
    daemon.terminate();
}

#[test]
fn the_next_daemon_takes_it_over_and_starts_one_that_ended_meanwhile() {
    let world = World::new();
    let worker = Worker::new(&world);
    let conf = conf(&world, &world.app("v1"), &worker);
    let daemon = world.start(&conf);
    let v1 = first(&daemon);
    let (start, end) = (format!("start {v1}"), format!("end {v1} TERM"));
    worker.wait_for(&[&start]);
    daemon.wait_until_recorded();
    let record = std::fs::read_to_string(world.state_file()).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    let run = record["runs"].as_array().unwrap().iter().find(|run| run["process"] == "worker").unwrap();
    assert_eq!(run["role"], "candidate", "a daemon that knows no companions stops it");
    daemon.kill();
    let daemon = world.start(&conf);
    first(&daemon);
    assert_mentions(&daemon.log(), &["taken over", "worker"]);
    assert!(procs::is_alive(worker.pids()[0]));
    daemon.wait_until_recorded();
    daemon.kill();
    procs::send(worker.pids()[0], Signal::SIGKILL);
    let mut daemon = world.start(&conf);
    worker.wait_for(&[&start, &start]);
    first(&daemon);
    // And a daemon in this one's place has it too.
    daemon.wait_until_recorded();
    daemon.upgrade();
    first(&daemon);
    daemon.deploy(&world.app("v2")).expect(200);
    worker.wait_for(&[&start, &start, &end, "start v2"]);
    daemon.terminate();
}

#[test]
fn an_edit_that_adds_changes_or_removes_one_is_a_deploy() {
    let world = World::new();
    let worker = Worker::new(&world);
    let app = world.app("v1");
    let mut conf = conf(&world, &app, &worker);
    let with_none = world.conf().app(&app).set("rollback.window", "200ms").set("drain.period", "50ms");
    let daemon = world.start(&with_none);
    let mut before = first(&daemon);
    let mut next = |conf: &Conf| {
        conf.save();
        let status = daemon.wait_until("another release is live", |status| {
            live(status).is_some_and(|release| release != before) && status.phase == Phase::Settled
        });
        before = live(&status).unwrap().to_owned();
        before.clone()
    };
    let added = next(&conf);
    worker.wait_for(&[&format!("start {added}")]);
    conf.put("app.processes.worker.env", toml! { QUEUE = "mail" });
    let changed = next(&conf);
    let expected = [format!("start {added}"), format!("end {added} TERM"), format!("start {changed}")];
    worker.wait_for(&expected.each_ref().map(String::as_str));
    next(&with_none);
    wait_until(
        "only the app is left",
        || format!("{:#?}", world.processes()),
        || (world.processes().len() == 1).then_some(()),
    );
    daemon.terminate();
}

#[test]
fn those_of_an_app_that_is_removed_end_with_it() {
    let world = World::new();
    let worker = Worker::new(&world);
    let app = world.app("v1");
    let several = Conf::new(world.path(&format!("conf/{}.toml", world.name())))
        .set("name", world.name())
        .set("listen", "127.0.0.1:0")
        .set("state_file", world.state_file().display().to_string())
        .set("removal_delay", "100ms")
        .set("drain.period", "50ms")
        .set("admin.socket", world.socket().display().to_string())
        .set("admin.token", TOKEN)
        .set("admin.rate_limit", 10_000)
        .set("apps.shop.command", app.command())
        .set("apps.shop.processes.worker.command", worker.command());
    let daemon = world.start(&several);
    let lines = wait_for_lines("it starts", &worker.journal, |lines| lines.len() == 1);
    assert!(lines[0].contains(" worker 0 none "), "{lines:?}");
    several.without_app("shop").set("apps", toml::Table::new()).save();
    daemon.portok(&["reload", "--prune"]).ended(0);
    world.wait_for_none_left();
    assert!(worker.journal()[1].ends_with("TERM"));
    daemon.terminate();
}
