//! The daemon of two apps is killed at points of their releases' paths and at random moments: the
//! next one comes back to one release of each, and nothing is lost, doubled, or touched by the
//! other app.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{edge, get, live_pid, put, record, status};
use crate::harness::command::PORTOKD;
use crate::harness::conf::Conf;
use crate::harness::random::Random;
use crate::harness::wait::pause;
use crate::harness::{Conn, Daemon, World, wait_until};

const APPS: [&str; 2] = ["api", "shop"];

/// How many random moments; `PORTOK_TEST_MOMENTS` names another number.
const MOMENTS: u64 = 20;

/// Every so many of the points is one at which the daemon is killed; `PORTOK_TEST_STRIDE` names
/// another number.
const STRIDE: u64 = 1;

/// How many daemons are killed at points side by side.
const AT_ONCE: usize = 4;

/// A number that a variable may name.
fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .map_or(default, |number| number.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

fn conf(world: &World) -> Conf {
    let conf = edge(world).set("drain.period", "30ms").set("drain.early", false);
    for app in APPS {
        put(world, app, &[&format!("{app}.test")], &world.app(&format!("{app}-1")));
    }
    conf
}

/// Asks an app for its next release, if there is a daemon.
fn deploy(world: &World, app: &str, version: &str) {
    let body = json!({ "command": world.app(version).command(), "release": version }).to_string();
    let asked = Conn::unix(&world.socket()).and_then(|mut conn| {
        conn.request("POST", &format!("/__deploy?app={app}&detach=1"), &[], Some(body.as_bytes()))
    });
    // The daemon may be gone by now.
    drop(asked);
}

/// Both apps serve one of these versions each, with one process each, and go on as before.
fn both_are_whole(daemon: &Daemon<'_>, what: &str, versions: &[&[&str]; 2]) {
    let world = daemon.world;
    for (app, versions) in APPS.iter().zip(versions) {
        let explain = || format!("{what}: {:?}\n{}", status(daemon, app), daemon.log());
        wait_until("something serves", explain, || {
            let status = status(daemon, app);
            (status.active_port.is_some() && status.candidate.is_none()).then_some(())
        });
        let version = get(daemon, &format!("{app}.test"), "/").expect(200).version().to_owned();
        assert!(versions.contains(&version.as_str()), "{what}: {version} serves, none of {versions:?}");
    }
    let live = APPS.map(|app| live_pid(daemon, app));
    wait_until(
        "exactly one process of each runs",
        || format!("{what}: {live:?} {:#?}\n{}", world.processes(), daemon.log()),
        || {
            let all: Vec<_> = world.processes().iter().map(|process| process.pid).collect();
            (all.len() == 2 && live.iter().all(|pid| all.contains(pid))).then_some(())
        },
    );
}

/// Asks for an app's status, if there is a daemon.
fn ask_status(world: &World, app: &str) -> Option<Value> {
    let mut conn = Conn::unix(&world.socket()).ok()?;
    let answer = conn.request("GET", &format!("/__status?app={app}"), &[], None).ok()?;
    (answer.status() == 200).then(|| answer.json())
}

/// Both apps start and deploy, and one goes back while the other deploys once more. Whatever of it
/// the daemon lives to see.
fn walk(world: &World, is_over: impl Fn() -> bool) {
    let serves = |app: &str, what: &str, is_it: &dyn Fn(&Value) -> bool| {
        wait_until(
            &format!("{what} serves alone, or the daemon is dead"),
            || format!("{:?}", ask_status(world, app)),
            || {
                let serves = |status: Value| {
                    let alone = status["activePort"].is_u64() && status["drainUntil"].is_null();
                    alone && is_it(&status["live"]["release"])
                };
                (is_over() || ask_status(world, app).is_some_and(serves)).then_some(())
            },
        );
    };
    let is = |version: &'static str| move |live: &Value| live == version;
    APPS.iter().for_each(|app| serves(app, "the first release", &|_| true));
    APPS.iter().for_each(|app| deploy(world, app, &format!("{app}-2")));
    serves("api", "the second release", &is("api-2"));
    serves("shop", "the second release", &is("shop-2"));
    deploy(world, "shop", "shop-3");
    // The daemon may be gone by now.
    let _ = Conn::unix(&world.socket())
        .and_then(|mut conn| conn.request("POST", "/__rollback?app=api", &[], None));
    serves("api", "the first release", &|live| live != "api-2");
    serves("shop", "the third release", &is("shop-3"));
}

/// The daemon dies at `point`, and the next one finds both apps whole. False: the whole path was
/// walked without coming to it.
fn dies_at(point: u64) -> bool {
    let world = World::new();
    let bystander_app = world.app("bystander");
    let mut bystander = bystander_app.start_unmanaged();
    let conf = conf(&world);
    conf.save();
    let mut env = world.env();
    env.insert("PORTOK_DIE_AT".to_owned(), point.to_string());
    let file = conf.file().display().to_string();
    let mut running = world.spawn(PORTOKD, &["--config", &file], &env);
    let ended = std::cell::RefCell::new(&mut running);
    walk(&world, || ended.borrow_mut().code().is_some());
    // The orderly end has points too.
    running.signal(Signal::SIGTERM);
    if running.wait().code == 0 {
        world.wait_for_none_left();
        return false;
    }
    let daemon = world.start_saved(&conf);
    let versions: [&[&str]; 2] = [&["api-1", "api-2"], &["shop-1", "shop-2", "shop-3"]];
    both_are_whole(&daemon, &format!("point {point}"), &versions);
    daemon.terminate();
    assert!(bystander.is_alive() && bystander_app.count("signal") == 0, "point {point}");
    true
}

#[test]
fn at_each_point_of_both_apps_paths() {
    let stride = number("PORTOK_TEST_STRIDE", STRIDE);
    let (next, end) = (AtomicU64::new(1), AtomicU64::new(u64::MAX));
    // Of a point most is waiting, so that several go side by side.
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while end.load(Ordering::Relaxed) == u64::MAX {
                    let point = next.fetch_add(stride, Ordering::Relaxed);
                    if !dies_at(point) {
                        end.fetch_min(point, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let end = end.into_inner();
    assert!(end > 100, "the paths of two apps have more points than {end}");
}

#[test]
fn at_random_moments() {
    let world = World::new();
    let bystander_app = world.app("bystander");
    let mut bystander = bystander_app.start_unmanaged();
    let conf = conf(&world);
    let mut daemon = world.start(&conf);
    both_are_whole(&daemon, "at first", &[&["api-1"], &["shop-1"]]);
    let mut serve = APPS.map(|app| format!("{app}-1"));
    let mut random = Random::new();
    for round in 2..number("PORTOK_TEST_MOMENTS", MOMENTS) + 2 {
        let next = APPS.map(|app| format!("{app}-{round}"));
        APPS.iter().zip(&next).for_each(|(app, version)| deploy(&world, app, version));
        pause(Duration::from_micros(random.below(150_000)));
        daemon.kill();
        for app in APPS {
            let text = std::fs::read(record(&world, app)).unwrap();
            serde_json::from_slice::<Value>(&text).expect("each record can be read");
        }
        daemon = world.start_saved(&conf);
        let versions = [0, 1].map(|at| [serve[at].as_str(), next[at].as_str()]);
        both_are_whole(&daemon, &format!("round {round}"), &[&versions[0], &versions[1]]);
        for version in &next {
            assert!(world.app(version).count("start ") <= 1, "round {round}: {version} was started twice");
        }
        serve = APPS.map(|app| get(&daemon, &format!("{app}.test"), "/").version().to_owned());
    }
    daemon.terminate();
    assert!(bystander.is_alive() && bystander_app.count("signal") == 0);
}
