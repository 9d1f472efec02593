//! The daemon is killed at every point of a release's path, and at random moments: the next one
//! comes back to exactly one release, no process is lost, doubled or orphaned, no stranger is
//! signalled, and the state file can always be read.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::conf::Conf;
use crate::harness::random::Random;
use crate::harness::wait::pause;
use crate::harness::{Conn, Load, World, wait_until};

/// The parts of the sweep over all points, so that several run at once.
const PARTS: u64 = 4;

/// Of the points with several processes one of so many is tried, beginning at a random one; with
/// this variable set, each.
const SAMPLE: u64 = 3;
const ALL_POINTS: &str = "PORTOK_TEST_ALL_POINTS";

/// What runs of a release.
#[derive(Debug, Clone, Copy)]
struct Cast {
    replicas: usize,
    /// When its companion is started, where it has one.
    companion: Option<&'static str>,
}

impl Cast {
    const ONE: Self = Self { replicas: 1, companion: None };

    fn processes(self) -> usize {
        self.replicas + usize::from(self.companion.is_some())
    }
}

fn conf(world: &World, cast: Cast) -> Conf {
    let conf = world.conf();
    let conf = match cast.companion {
        Some(start) => conf
            .set("app.processes.worker.command", "exec sleep 1000")
            .set("app.processes.worker.start", start),
        None => conf,
    };
    conf.set("app.replicas", i64::try_from(cast.replicas).unwrap())
        .app(&world.app("v1"))
        .set("rollback.window", "100ms")
        .set("drain.period", "30ms")
        .set("drain.early", false)
        .set("app.stop_timeout", "2s")
}

/// Asks over the socket; `None` when the daemon is gone.
fn ask(world: &World, method: &str, path: &str, body: Option<&Value>) -> Option<Value> {
    let body = body.map(Value::to_string);
    let mut conn = Conn::unix(&world.socket()).ok()?;
    let answer = conn.request(method, path, &[], body.as_deref().map(str::as_bytes)).ok()?;
    serde_json::from_slice(&answer.body).ok()
}

/// A first deploy, a second one until the first release is gone, and the way back. Whatever of it
/// the daemon lives to see.
fn walk(world: &World, cast: Cast, is_over: impl Fn() -> bool) {
    let until = |what: &str, done: &dyn Fn(&Value) -> bool| {
        wait_until(
            what,
            || format!("{:?}", ask(world, "GET", "/__status", None)),
            || {
                (is_over() || ask(world, "GET", "/__status", None).is_some_and(|status| done(&status)))
                    .then_some(())
            },
        );
    };
    until("the first release serves", &|status| status["activePort"].is_u64());
    let next = serde_json::json!({ "command": world.app("v2").command(), "release": "v2" });
    ask(world, "POST", "/__deploy", Some(&next));
    until("the second serves alone", &|status| {
        status["live"]["release"] == "v2" && status["drainUntil"].is_null() && status["phase"] == "settled"
    });
    ask(world, "POST", "/__rollback", None);
    until("the first serves again, alone", &|status| {
        status["live"]["release"] != "v2" && status["drainUntil"].is_null() && status["candidate"].is_null()
    });
    wait_until(
        "the processes of one release are left",
        || format!("{:#?}", world.processes()),
        || (is_over() || world.processes().len() == cast.processes()).then_some(()),
    );
}

/// Dies at `point`. False: the whole path was walked without coming to it.
fn dies_at(point: u64, cast: Cast) -> bool {
    let world = World::new();
    let bystander_app = world.app("bystander");
    let mut bystander = bystander_app.start_unmanaged();
    let conf = conf(&world, cast);
    conf.save();
    let mut env = world.env();
    env.insert("PORTOK_DIE_AT".to_owned(), point.to_string());
    let file = conf.file().display().to_string();
    let mut running = world.spawn(crate::harness::command::PORTOKD, &["--config", &file], &env);
    let ended = std::cell::RefCell::new(&mut running);
    walk(&world, cast, || ended.borrow_mut().code().is_some());
    // The orderly end has points too.
    running.signal(Signal::SIGTERM);
    if running.wait().code == 0 {
        world.wait_for_none_left();
        return false;
    }
    if let Ok(state) = std::fs::read(world.state_file()) {
        let state: Value = serde_json::from_slice(&state)
            .unwrap_or_else(|error| panic!("point {point}: the state file cannot be read: {error}"));
        assert_eq!(state["schema"], 1);
    }
    let before = world.processes();
    let daemon = world.start(&conf);
    daemon.wait_until("something serves", |status| {
        let ready = status.replicas.map_or(usize::from(status.active_port.is_some()), |all| all.ready);
        ready == cast.replicas && status.candidate.is_none()
    });
    let version = daemon.get("/").expect(200).version().to_owned();
    assert!(["v1", "v2"].contains(&version.as_str()), "point {point}: {version} serves");
    let serves = daemon.live_pid();
    let released = daemon.status().live.expect("a live release").release;
    let companions: Vec<_> = cast.companion.iter().map(|_| ("worker".to_owned(), released.clone())).collect();
    wait_until(
        "as many processes run as are wanted, and no companion but the live release's",
        || format!("point {point}: {before:#?}, then {:#?}\n{}", world.processes(), daemon.log()),
        || {
            let all = world.processes().len() == cast.processes();
            (all && world.companions() == companions).then_some(())
        },
    );
    assert!(world.processes().iter().any(|process| process.pid == serves));
    // And it is as good as ever.
    daemon.deploy(&world.app("v3")).expect(200);
    assert_eq!(daemon.get("/").version(), "v3");
    daemon.terminate();
    assert!(bystander.is_alive() && bystander_app.count("signal") == 0, "point {point}");
    true
}

fn dies_at_each_of(part: u64) {
    let mut points = (0..).map(|round| round * PARTS + part + 1);
    let walked = points.by_ref().take_while(|point| dies_at(*point, Cast::ONE)).count() as u64;
    assert!(walked * PARTS > 40, "the path has more points than {walked} times {PARTS}");
}

#[test]
fn at_the_first_quarter_of_all_points() {
    dies_at_each_of(0);
}

#[test]
fn at_the_second_quarter_of_all_points() {
    dies_at_each_of(1);
}

#[test]
fn at_the_third_quarter_of_all_points() {
    dies_at_each_of(2);
}

#[test]
fn at_the_fourth_quarter_of_all_points() {
    dies_at_each_of(3);
}

/// The part of all points, or of a sample of them, with three replicas and a companion.
fn dies_with_several_at_each_of(part: u64, start: &'static str) {
    let step = if std::env::var_os(ALL_POINTS).is_some() { 1 } else { SAMPLE };
    let first = Random::new().below(step);
    let cast = Cast { replicas: 3, companion: Some(start) };
    let points = (0..).map(|round| (round * PARTS + part) * step + first + 1);
    let walked = points.take_while(|point| dies_at(*point, cast)).count() as u64;
    assert!(walked * PARTS * step > 60, "the path has more points than {walked} times {PARTS} times {step}");
}

#[test]
fn with_several_processes_at_the_first_quarter_of_the_points() {
    dies_with_several_at_each_of(0, "after");
}

#[test]
fn with_several_processes_at_the_second_quarter_of_the_points() {
    dies_with_several_at_each_of(1, "before");
}

#[test]
fn with_several_processes_at_the_third_quarter_of_the_points() {
    dies_with_several_at_each_of(2, "after");
}

#[test]
fn with_several_processes_at_the_fourth_quarter_of_the_points() {
    dies_with_several_at_each_of(3, "before");
}

/// A port that no app is given (portok's are below 25000) and no outgoing connection (those are
/// above 32768).
fn quiet_port() -> u16 {
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let first = 26_000 + u16::try_from(std::process::id() % 6000).unwrap_or_default();
    (first..32_000).chain(26_000..first).find(free).expect("one of 6000 ports is free")
}

#[test]
fn at_two_hundred_random_moments_of_deploys_under_load() {
    let world = World::new();
    let bystander_app = world.app("bystander");
    let mut bystander = bystander_app.start_unmanaged();
    let conf = conf(&world, Cast::ONE).set("listen", format!("127.0.0.1:{}", quiet_port()));
    let mut daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let load = Load::start(daemon.addr);
    let mut random = Random::new();
    let mut serving = "v1".to_owned();
    for round in 2..202 {
        let app = world.app(&format!("v{round}"));
        daemon.deploy_detached(&app);
        pause(Duration::from_micros(random.below(120_000)));
        daemon.kill();
        let state = std::fs::read(world.state_file()).unwrap();
        let state: Value = serde_json::from_slice(&state).expect("the state file can be read");
        assert_eq!(state["schema"], 1);
        daemon = world.start(&conf);
        daemon.wait_until("something serves", |status| status.active_port.is_some());
        let version = daemon.get("/").expect(200).version().to_owned();
        let expected = [serving.as_str(), app.version()];
        assert!(
            expected.contains(&version.as_str()),
            "round {round}: {version} serves, none of {expected:?}"
        );
        assert!(app.count("start ") <= 1, "round {round}: it was started twice");
        serving = version;
        wait_until(
            "exactly one process runs",
            || format!("round {round}: {:#?}\n{}", world.processes(), daemon.log()),
            || (world.processes().len() == 1).then_some(()),
        );
    }
    load.wait_for_more(50);
    let report = load.finish();
    // While there is no daemon nobody answers; who answers is the app.
    let wrong = |failure: &&String| ["Head", "answered"].iter().any(|word| failure.contains(word));
    assert_eq!(report.failures.iter().filter(wrong).count(), 0, "{report:#?}");
    daemon.terminate();
    assert!(bystander.is_alive() && bystander_app.count("signal") == 0);
}
