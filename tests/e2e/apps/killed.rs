//! The daemon of two apps is killed at points of their releases' paths and at random moments: the
//! next one comes back to one release of each, and nothing is lost, doubled, or touched by the
//! other app.

use std::time::Duration;

use serde_json::{Value, json};

use super::{edge, get, live_pid, put, record, status};
use crate::harness::conf::Conf;
use crate::harness::random::Random;
use crate::harness::wait::pause;
use crate::harness::{Daemon, Doomed, World, ask, sweep, wait_until};

const APPS: [&str; 2] = ["api", "shop"];

/// How many random moments are tried; `PORTOK_TEST_MOMENTS` names another number.
const MOMENTS: u64 = 12;

fn moments() -> u64 {
    let number = |number: String| number.parse().expect("PORTOK_TEST_MOMENTS is a number");
    std::env::var("PORTOK_TEST_MOMENTS").map_or(MOMENTS, number)
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
    let body = json!({ "command": world.app(version).command(), "release": version });
    ask(world, "POST", &format!("/__deploy?app={app}&detach=1"), Some(&body));
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

/// Both apps start and deploy, and one goes back while the other deploys once more. Whatever of it
/// the daemon lives to see.
fn walk(world: &World, daemon: &Doomed<'_>) {
    let serves = |app: &str, what: &str, is_it: &dyn Fn(&Value) -> bool| {
        daemon.wait_until(&format!("{what} serves alone"), || {
            let status = ask(world, "GET", &format!("/__status?app={app}"), None);
            status.is_some_and(|status| {
                let alone = status["activePort"].is_u64() && status["drainUntil"].is_null();
                alone && is_it(&status["live"]["release"])
            })
        });
    };
    let is = |version: &'static str| move |live: &Value| live == version;
    APPS.iter().for_each(|app| serves(app, "the first release", &|_| true));
    APPS.iter().for_each(|app| deploy(world, app, &format!("{app}-2")));
    serves("api", "the second release", &is("api-2"));
    serves("shop", "the second release", &is("shop-2"));
    deploy(world, "shop", "shop-3");
    ask(world, "POST", "/__rollback?app=api", None);
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
    let doomed = Doomed::start(&world, &conf, point);
    walk(&world, &doomed);
    if !doomed.dies() {
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
fn at_points_of_both_apps_paths() {
    let end = sweep(5, dies_at);
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
    let mut random = Random::drawn();
    for round in 2..moments() + 2 {
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
