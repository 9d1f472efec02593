//! The daemon is killed around its first switch, when nothing else was live: the app that runs serves on.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::harness::doomed::tries_all;
use crate::harness::random::Random;
use crate::harness::wait::pause;
use crate::harness::{Doomed, World, ask};

/// What the record says.
fn record(world: &World) -> Value {
    std::fs::read(world.state_file())
        .ok()
        .and_then(|state| serde_json::from_slice(&state).ok())
        .unwrap_or(Value::Null)
}

/// The process of the one run that the record names.
fn recorded_pid(record: &Value) -> Option<u64> {
    record["runs"][0]["identity"]["pid"].as_u64()
}

fn is_serving(world: &World) -> bool {
    ask(world, "GET", "/__status", None).is_some_and(|status| status["activePort"].is_u64())
}

/// The next daemon goes on with the process that the record names, and starts none.
fn goes_on(world: &World, what: &str) {
    let (app, left) = (world.app("v1"), record(world));
    let recorded = recorded_pid(&left);
    let before = world.processes();
    let daemon = world.start(&world.conf().app(&app));
    // From the first request on, where it had served.
    if recorded.is_some() && left["live"].is_object() {
        daemon.get("/").expect(200);
    }
    let status = daemon.wait_until_serves("v1");
    if let Some(pid) = recorded {
        let now = status.live.as_ref().and_then(|live| live.pid).map(u64::from);
        assert_eq!(now, Some(pid), "{what}: {before:#?}\n{left:#}\n{}", daemon.log());
        assert_eq!((app.count("start "), app.count("signal")), (1, 0), "{what}\n{}", daemon.log());
    }
    assert_eq!(status.phase.as_str(), "watching", "{what}");
    daemon.terminate();
}

#[test]
fn at_every_point_from_which_on_its_process_is_known() {
    let mut unrecorded_switches = 0;
    for point in 1.. {
        let world = World::new();
        let conf = world.conf().app(&world.app("v1"));
        let doomed = Doomed::start(&world, &conf, point);
        doomed
            .wait_until("all of it is on disk", || record(&world)["live"].is_object() && is_serving(&world));
        let died = doomed.is_dead();
        doomed.kill();
        let left = record(&world);
        if died && recorded_pid(&left).is_some() && left["live"].is_null() {
            unrecorded_switches += 1;
        }
        goes_on(&world, &format!("point {point}"));
        if !died {
            break;
        }
    }
    assert!(unrecorded_switches > 0, "none of the points was between process and record");
}

#[test]
fn right_after_the_first_answer() {
    let random = Mutex::new(Random::drawn());
    let rounds = if tries_all() { 200 } else { 40 };
    let next = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < rounds {
                    let world = World::new();
                    let daemon = world.start(&world.conf().app(&world.app("v1")));
                    daemon.wait_until_serves("v1");
                    let after = random.lock().unwrap().below(3_000);
                    pause(Duration::from_micros(after));
                    daemon.kill();
                    goes_on(&world, &format!("{after} µs after the answer"));
                }
            });
        }
    });
}
