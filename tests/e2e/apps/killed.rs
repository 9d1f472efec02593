//! The daemon of two apps is killed at points of their releases' paths and at random moments: the
//! next one comes back to one release of each, and nothing is lost, doubled, or touched by the
//! other app.

use std::time::Duration;

use serde_json::json;

use super::{edge, get, live_pid, put, record, status};
use crate::harness::command::PORTOKD;
use crate::harness::conf::Conf;
use crate::harness::random::Random;
use crate::harness::wait::pause;
use crate::harness::{Conn, Daemon, World, wait_until};

const APPS: [&str; 2] = ["api", "shop"];

/// How many random moments; `PORTOK_TEST_MOMENTS` names another number.
const MOMENTS: u64 = 20;

/// Every so many of the points is one at which the daemon is killed.
const STRIDE: u64 = 9;

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
fn both_are_whole(daemon: &Daemon<'_>, what: &str, versions: &[[&str; 2]; 2]) {
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

#[test]
fn at_points_of_both_apps_paths() {
    let mut point = 1;
    let mut died = 0;
    loop {
        let world = World::new();
        let conf = conf(&world);
        conf.save();
        let mut env = world.env();
        env.insert("PORTOK_DIE_AT".to_owned(), point.to_string());
        let file = conf.file().display().to_string();
        let mut running = world.spawn(PORTOKD, &["--config", &file], &env);
        let ended = std::cell::RefCell::new(&mut running);
        let serves = |app: &str, version: &str| {
            wait_until(
                "it serves, or the daemon is dead",
                || format!("{point}: {app} {version}"),
                || {
                    let answer = Conn::unix(&world.socket())
                        .and_then(|mut conn| conn.request("GET", &format!("/__status?app={app}"), &[], None));
                    let status =
                        answer.ok().filter(|answer| answer.status() == 200).map(|answer| answer.json());
                    let is_live = status.is_some_and(|status| {
                        let live = &status["live"]["release"];
                        status["activePort"].is_u64() && (version.is_empty() || live == version)
                    });
                    (is_live || ended.borrow_mut().code().is_some()).then_some(())
                },
            );
        };
        APPS.iter().for_each(|app| serves(app, ""));
        APPS.iter().for_each(|app| deploy(&world, app, &format!("{app}-2")));
        APPS.iter().for_each(|app| serves(app, &format!("{app}-2")));
        running.signal(nix::sys::signal::Signal::SIGTERM);
        if running.wait().code == 0 {
            world.wait_for_none_left();
            break;
        }
        died += 1;
        let daemon = world.start_saved(&conf);
        both_are_whole(&daemon, &format!("point {point}"), &[["api-1", "api-2"], ["shop-1", "shop-2"]]);
        daemon.terminate();
        point += STRIDE;
    }
    assert!(died * STRIDE > 40, "{died} points");
}

#[test]
fn at_random_moments() {
    let moments = std::env::var("PORTOK_TEST_MOMENTS").ok().and_then(|number| number.parse().ok());
    let world = World::new();
    let conf = conf(&world);
    let mut daemon = world.start(&conf);
    both_are_whole(&daemon, "at first", &[["api-1"; 2], ["shop-1"; 2]]);
    let mut serve = APPS.map(|app| format!("{app}-1"));
    let mut random = Random::new();
    for round in 2..moments.unwrap_or(MOMENTS) + 2 {
        let next = APPS.map(|app| format!("{app}-{round}"));
        APPS.iter().zip(&next).for_each(|(app, version)| deploy(&world, app, version));
        pause(Duration::from_micros(random.below(150_000)));
        daemon.kill();
        for app in APPS {
            let text = std::fs::read(record(&world, app)).unwrap();
            serde_json::from_slice::<serde_json::Value>(&text).expect("each record can be read");
        }
        daemon = world.start_saved(&conf);
        let versions = [0, 1].map(|at| [serve[at].as_str(), next[at].as_str()]);
        both_are_whole(&daemon, &format!("round {round}"), &versions);
        serve = APPS.map(|app| get(&daemon, &format!("{app}.test"), "/").version().to_owned());
    }
    daemon.terminate();
}
