//! The daemon is killed at points of a release's path, and at random moments: the next one comes
//! back to exactly one release, no process is lost, doubled or orphaned, no stranger is signalled,
//! and the state file can always be read.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use toml::toml;

use crate::harness::app::alone;
use crate::harness::conf::Conf;
use crate::harness::doomed::tries_all;
use crate::harness::random::Random;
use crate::harness::wait::pause;
use crate::harness::{Conn, Daemon, Doomed, Load, World, ask, procs, sweep, wait_until};

/// What runs of a release, and how it is deployed.
#[derive(Debug, Clone, Copy, Default)]
struct Cast {
    /// One at least.
    replicas: usize,
    /// When its companion is started, where it has one.
    companion: Option<&'static str>,
    /// No two releases run at a time, and `before` is run.
    recreate: bool,
}

impl Cast {
    const ONE: Self = Self { replicas: 1, companion: None, recreate: false };

    fn processes(self) -> usize {
        self.replicas + usize::from(self.companion.is_some())
    }

    /// The app's command. Where no two may run, one ends at once beside another.
    fn command(self, world: &World, version: &str) -> String {
        let app = world.app(version);
        if self.recreate { app.command_alone(&lock(world)) } else { app.command() }
    }

    fn conf(self, world: &World) -> Conf {
        let conf = world
            .conf()
            .set("app.command", self.command(world, "v1"))
            .set("app.replicas", i64::try_from(self.replicas).unwrap())
            .set("rollback.window", "100ms")
            .set("drain.period", "30ms")
            .set("drain.early", false)
            .set("app.stop_timeout", "2s");
        let conf = match self.companion {
            // Of two releases one runs after the other.
            Some("after") => conf
                .set("app.processes.worker.command", alone("exec sleep 1000", &worker_lock(world)))
                .set("app.processes.worker.start", "after"),
            Some(start) => conf
                .set("app.processes.worker.command", "exec sleep 1000")
                .set("app.processes.worker.start", start),
            None => conf,
        };
        if self.recreate { conf.set("deploy.strategy", "recreate").set("app.before", "true") } else { conf }
    }
}

fn lock(world: &World) -> PathBuf {
    world.path("lock")
}

fn worker_lock(world: &World) -> PathBuf {
    world.path("worker-lock")
}

/// A first deploy, a second one until the first release is gone, and the way back. Whatever of it
/// the daemon lives to see.
fn walk(world: &World, cast: Cast, daemon: &Doomed<'_>) {
    daemon.wait_until_status("the first release serves", |status| status["activePort"].is_u64());
    let watched = |status: Value| status["listen"].as_str().and_then(|addr| addr.parse().ok());
    let addr = ask(world, "GET", "/__status", None).and_then(watched);
    let over = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let witness = addr.map(|addr| scope.spawn(move || witness(addr, over)));
        let next = json!({ "command": cast.command(world, "v2"), "release": "v2" });
        ask(world, "POST", "/__deploy", Some(&next));
        daemon.wait_until_status("the second serves alone", |status| {
            status["live"]["release"] == "v2"
                && status["drainUntil"].is_null()
                && status["phase"] == "settled"
        });
        ask(world, "POST", "/__rollback", None);
        daemon.wait_until_status("the first serves again, alone", |status| {
            let alone = status["drainUntil"].is_null() && status["candidate"].is_null();
            status["live"]["release"] != "v2" && alone && status["activePort"].is_u64()
        });
        daemon.wait_until("the processes of one release are left", || {
            world.processes().len() == cast.processes()
        });
        over.store(true, Ordering::Relaxed);
        let wrong = witness.and_then(|witness| witness.join().unwrap());
        assert_eq!(wrong, None, "who is answered gets 200");
    });
}

/// Asks for the app as long as a daemon answers. Gives back the first answer that is not 200.
fn witness(addr: SocketAddr, over: &AtomicBool) -> Option<String> {
    while !over.load(Ordering::Relaxed) {
        let answer = Conn::tcp(addr).and_then(|mut conn| conn.request("GET", "/", &[], None)).ok()?;
        if answer.status() != 200 {
            return Some(format!("{} {}", answer.status(), answer.text()));
        }
        pause(Duration::from_millis(5));
    }
    None
}

/// Dies at `point`. False: the whole path was walked without coming to it.
fn dies_at(point: u64, cast: Cast) -> bool {
    let world = World::new();
    let bystander_app = world.app("bystander");
    let mut bystander = bystander_app.start_unmanaged();
    let conf = cast.conf(&world);
    let doomed = Doomed::start(&world, &conf, point);
    walk(&world, cast, &doomed);
    if !doomed.dies() {
        world.wait_for_none_left();
        return false;
    }
    let state: Value = std::fs::read(world.state_file()).map_or(Value::Null, |state| {
        serde_json::from_slice(&state)
            .unwrap_or_else(|error| panic!("point {point}: the state file cannot be read: {error}"))
    });
    let before = world.processes();
    let daemon = world.start(&conf);
    if !state.is_null() {
        assert_eq!(state["schema"], 1);
    }
    // What had served once is waited for: no request is refused.
    if state["live"].is_object() {
        daemon.get("/").expect(200);
    }
    is_whole(&daemon, cast, &["v1", "v2"], &format!("point {point}: {before:#?}"));
    // And it is as good as ever.
    let next = json!({ "command": cast.command(&world, "v3"), "release": "v3" });
    daemon.admin("POST", "/__deploy", Some(&next)).expect(200);
    assert_eq!(daemon.get("/").version(), "v3");
    for lock in [lock(&world), worker_lock(&world)] {
        let taken = lock.with_extension("taken");
        assert!(!taken.exists(), "point {point}: two ran at a time\n{}", daemon.log());
    }
    daemon.terminate();
    assert!(bystander.is_alive() && bystander_app.count("signal") == 0, "point {point}");
    true
}

/// One of these releases serves, and nothing else runs. Gives back which.
fn is_whole(daemon: &Daemon<'_>, cast: Cast, releases: &[&str], what: &str) -> String {
    let world = daemon.world;
    daemon.wait_until("something serves", |status| {
        let ready = status.replicas.map_or(usize::from(status.active_port.is_some()), |all| all.ready);
        ready == cast.replicas && status.candidate.is_none()
    });
    let version = daemon.get("/").expect(200).version().to_owned();
    assert!(releases.contains(&version.as_str()), "{what}: {version} serves");
    let serves = daemon.live_pid();
    let released = daemon.status().live.expect("a live release").release;
    let companions: Vec<_> = cast.companion.iter().map(|_| ("worker".to_owned(), released.clone())).collect();
    wait_until(
        "as many processes run as are wanted, and no companion but the live release's",
        || format!("{what}, then {:#?}\n{}", world.processes(), daemon.log()),
        || {
            let all = world.processes().len() == cast.processes();
            (all && world.companions() == companions).then_some(())
        },
    );
    assert!(world.processes().iter().any(|process| process.pid == serves), "{what}");
    version
}

#[test]
fn at_points_of_the_path_of_one_process() {
    let end = sweep(3, |point| dies_at(point, Cast::ONE));
    assert!(end > 40, "the path has more points than {end}");
}

#[test]
fn at_points_with_three_replicas_and_a_companion_that_starts_after_the_switch() {
    let cast = Cast { replicas: 3, companion: Some("after"), recreate: false };
    let end = sweep(10, |point| dies_at(point, cast));
    assert!(end > 60, "the path has more points than {end}");
}

#[test]
fn at_points_with_three_replicas_and_a_companion_that_starts_before_the_candidate() {
    let cast = Cast { replicas: 3, companion: Some("before"), recreate: false };
    let end = sweep(10, |point| dies_at(point, cast));
    assert!(end > 60, "the path has more points than {end}");
}

#[test]
fn at_points_of_recreating_with_a_step_and_a_companion() {
    let cast = Cast { replicas: 1, companion: Some("after"), recreate: true };
    let end = sweep(6, |point| dies_at(point, cast));
    assert!(end > 60, "the path has more points than {end}");
}

/// A port that no app is given (portok's are below 25000) and no outgoing connection (those are
/// above 32768).
pub(crate) fn quiet_port() -> u16 {
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    static ASKED: AtomicU16 = AtomicU16::new(0);
    // Those who ask at a time get different ones.
    let nth = ASKED.fetch_add(1, Ordering::Relaxed);
    let first = 26_000 + (u16::try_from(std::process::id() % 6000).unwrap_or_default() + 97 * nth) % 6000;
    (first..32_000).chain(26_000..first).find(free).expect("one of 6000 ports is free")
}

#[test]
fn at_random_moments_of_deploys_under_load() {
    let world = World::new();
    let bystander_app = world.app("bystander");
    let mut bystander = bystander_app.start_unmanaged();
    let conf = Cast::ONE.conf(&world).set("listen", format!("127.0.0.1:{}", quiet_port()));
    let mut daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let load = Load::start(daemon.addr);
    let mut random = Random::drawn();
    let mut serving = "v1".to_owned();
    let rounds = if tries_all() { 200 } else { 40 };
    for round in 2..2 + rounds {
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

#[test]
fn at_random_moments_with_a_set_of_which_one_is_killed_as_well() {
    let world = World::new();
    let cast = Cast { replicas: 3, companion: Some("after"), recreate: false };
    let restart = toml! { backoff = "10ms" max_backoff = "100ms" burst = 100 within = "60s" };
    let conf =
        cast.conf(&world).set("listen", format!("127.0.0.1:{}", quiet_port())).set("app.restart", restart);
    let mut daemon = world.start(&conf);
    let mut serving = is_whole(&daemon, cast, &["v1"], "at the start");
    let load = Load::idempotent(daemon.addr);
    let mut random = Random::drawn();
    let rounds = if tries_all() { 60 } else { 8 };
    for round in 2..2 + rounds {
        let version = format!("v{round}");
        let next = json!({ "command": cast.command(&world, &version), "release": version });
        daemon.admin("POST", "/__deploy?detach=1", Some(&next)).expect(202);
        pause(Duration::from_micros(random.below(400_000)));
        daemon.kill();
        // A replica or the companion, of either release, ends while nobody sees it.
        let left = world.processes();
        let killed = usize::try_from(random.below(left.len() as u64)).unwrap();
        procs::send(left[killed].pid, Signal::SIGKILL);
        daemon = world.start(&conf);
        serving = is_whole(&daemon, cast, &[&serving, &version], &format!("round {round}: {left:#?}"));
    }
    load.wait_for_more(50);
    let report = load.finish();
    // While there is no daemon nobody answers; who answers is the app.
    let wrong = |failure: &&String| ["Head", "answered"].iter().any(|word| failure.contains(word));
    assert_eq!(report.failures.iter().filter(wrong).count(), 0, "{report:#?}");
    let taken = worker_lock(&world).with_extension("taken");
    assert!(!taken.exists(), "two companions ran at a time\n{}", daemon.log());
    daemon.terminate();
}
