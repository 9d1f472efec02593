//! The daemon is killed around its first switch, when nothing else was live: the app that runs serves on.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::command::PORTOKD;
use crate::harness::wait::pause;
use crate::harness::{Conn, World, wait_until};

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
    let status = Conn::unix(&world.socket()).and_then(|mut conn| conn.request("GET", "/__status", &[], None));
    status.is_ok_and(|answer| answer.json()["activePort"].is_u64())
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
        conf.save();
        let mut env = world.env();
        env.insert("PORTOK_DIE_AT".to_owned(), point.to_string());
        let file = conf.file().display().to_string();
        let mut running = world.spawn(PORTOKD, &["--config", &file], &env);
        let mut recorded = false;
        wait_until(
            "it dies, or all of it is on disk",
            || format!("{:#}", record(&world)),
            || {
                recorded = record(&world)["live"].is_object() && is_serving(&world);
                (recorded || running.code().is_some()).then_some(())
            },
        );
        let died = running.code().is_some();
        if !died {
            running.signal(Signal::SIGKILL);
        }
        running.wait();
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

/// Kills right after the first answer, and the next daemon goes on.
fn right_after_the_first_answer(seed: u64, rounds: u32) {
    let mut random = seed;
    for round in 0..rounds {
        let world = World::new();
        let daemon = world.start(&world.conf().app(&world.app("v1")));
        daemon.wait_until_serves("v1");
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        pause(Duration::from_micros(random % 3_000));
        daemon.kill();
        goes_on(&world, &format!("round {round} of {seed}"));
    }
}

#[test]
fn right_after_the_first_answer_the_first_hundred() {
    right_after_the_first_answer(0x9e37_79b9_7f4a_7c15, 100);
}

#[test]
fn right_after_the_first_answer_the_second_hundred() {
    right_after_the_first_answer(0x2545_f491_4f6c_dd1d, 100);
}
