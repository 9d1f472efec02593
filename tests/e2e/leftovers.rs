//! The time in which a new daemon still stops what a killed one left running.

use std::fs;

use nix::sys::signal::Signal;

use crate::harness::app::App;
use crate::harness::conf::Conf;
use crate::harness::{Daemon, World, live, pid, procs, wait_eagerly, wait_until};

/// A daemon is killed while `v2` is live over the configured `v1`, and then `v2` itself, but not
/// its helper, which ignores SIGTERM; the next daemon, which gives its apps `stop_timeout`, is
/// asking the helper to go. Gives that one back, with the helper's pid.
fn stopping_leftovers<'w>(
    world: &'w World,
    conf: &Conf,
    left: &App,
    stop_timeout: &str,
) -> (Daemon<'w>, u32) {
    let daemon = world.start(&conf.clone().set("rollback.window", "100ms"));
    daemon.wait_until_serves("v1");
    daemon.deploy(left).expect(200);
    daemon.wait_until("only v2 is left", |status| status.drain_until.is_none());
    let serving = daemon.live_pid();
    let helper = left.wait_for(1, "helper ").parse().unwrap();
    wait_until(
        "v1 is gone",
        || format!("{:#?}", world.processes()),
        || world.processes().iter().all(|process| [serving, helper].contains(&process.pid)).then_some(()),
    );
    daemon.wait_until("its window has passed", |status| status.phase.as_str() == "settled");
    daemon.wait_until_recorded();
    daemon.kill();
    procs::send(serving, Signal::SIGKILL);
    wait_until("v2 is gone", String::new, || (!procs::is_alive(serving)).then_some(()));
    let daemon = world.start(&conf.clone().set("app.stop_timeout", stop_timeout));
    left.wait_for(1, "signal SIGTERM");
    (daemon, helper)
}

#[test]
fn a_signal_meanwhile_ends_the_daemon_and_leaves_the_record_as_it_was() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let world = World::new();
        let conf = world.conf().app(&world.app("v1")).set("app.stop_timeout", "300ms");
        let left = world.app("v2").flag("helper");
        // Long enough for the signal to come before its end on a busy machine.
        let (mut daemon, old) = stopping_leftovers(&world, &conf, &left, "5s");
        daemon.signal(signal);
        daemon.wait().ended(0);
        assert!(!procs::is_alive(old), "it had its time and was killed");
        world.wait_for_none_left();
        let daemon = world.start(&conf);
        let status = daemon.wait_until_serves("v2");
        assert_eq!(live(&status), Some("v2"), "the record, not the configuration, says what is live");
        assert_eq!(status.previous.map(|previous| previous.release).as_deref(), Some(&*first(&daemon)));
        assert_eq!((world.app("v1").count("start "), left.count("start ")), (1, 2));
    }
}

/// The id of the oldest release.
fn first(daemon: &Daemon<'_>) -> String {
    daemon.releases().pop().expect("there are releases").release
}

#[test]
fn a_signal_as_soon_as_the_daemon_can_take_one_is_no_different() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1")).set("app.stop_timeout", "300ms");
    let left = world.app("v2").flag("helper");
    let (daemon, mut old) = stopping_leftovers(&world, &conf, &left, "10m");
    daemon.kill();
    for _ in 0..5 {
        let mut daemon = world.start(&conf);
        daemon.signal(Signal::SIGTERM);
        daemon.wait().ended(0);
        assert!(!procs::is_alive(old));
        world.wait_for_none_left();
        let daemon = world.start(&conf);
        assert_eq!(live(&daemon.wait_until_serves("v2")), Some("v2"));
        old = daemon.live_pid();
        daemon.kill();
    }
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v2");
}

#[test]
fn a_second_signal_meanwhile_kills_at_once() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1")).set("app.stop_timeout", "300ms");
    let left = world.app("v2").flag("helper");
    let (mut daemon, old) = stopping_leftovers(&world, &conf, &left, "10m");
    daemon.signal(Signal::SIGTERM);
    daemon.wait_until("it goes down", |status| status.phase.as_str() == "stopping");
    assert!(procs::is_alive(old));
    // One that comes within 0.3 s of the first is the same wish.
    wait_until(
        "a later one kills",
        || daemon.log(),
        || {
            daemon.signal(Signal::SIGTERM);
            (!procs::is_alive(old)).then_some(())
        },
    );
    daemon.wait();
    world.wait_for_none_left();
    assert!(!procs::is_alive(old));
    let daemon = world.start(&conf);
    assert_eq!(live(&daemon.wait_until_serves("v2")), Some("v2"));
}

#[test]
fn meanwhile_nothing_is_begun_and_the_recorded_release_is_named() {
    let world = World::new();
    let other = world.app("other").start_unmanaged();
    let conf =
        world.conf().app(&world.app("v1")).set("app.stop_timeout", "300ms").set("hold.max_time", "100ms");
    let left = world.app("v2").flag("helper");
    let (daemon, old) = stopping_leftovers(&world, &conf, &left, "10m");
    let next = world.app("v3");
    daemon.deploy(&next).refused(409, "busy");
    daemon.admin("POST", &format!("/__switch?port={}", other.port), None).refused(409, "busy");
    daemon.admin("POST", "/__rollback", None).refused(409, "busy");
    let said = daemon.portok(&["deploy", "--json", "--cmd", &next.command()]).ended(5);
    assert_eq!(said.json()["code"], "busy");
    let status = daemon.status();
    assert_eq!((status.phase.as_str(), live(&status), pid(&status)), ("starting", Some("v2"), None));
    assert_eq!((status.active_port, daemon.get("/").status()), (None, 503));
    assert!(procs::is_alive(old) && left.count("start ") == 1, "nothing is started beside what is left");
    procs::send(old, Signal::SIGKILL);
    daemon.wait_until_serves("v2");
    assert!(next.pids().is_empty());
    assert!(daemon.releases().iter().all(|row| row.release != "v3"), "{:#?}", daemon.releases());
    assert_eq!(daemon.get("/").version(), "v2");
    // So that the end does not take ten minutes.
    conf.save();
    daemon.admin("POST", "/__reload", None).expect(200);
}

/// What becomes of what served, when the daemon is killed.
#[derive(Clone, Copy, PartialEq)]
enum Served {
    GoesOn,
    StartsAgain,
}

/// Kills the daemon as soon as a candidate's process is there, and `meanwhile` does its part; then
/// only what the next daemon serves may run.
fn killed_when_the_candidate_appears(served: Served, meanwhile: impl Fn(&World)) {
    let world = World::new();
    let conf = world.conf().app(&world.app("v0")).set("app.stop_timeout", "300ms");
    let mut daemon = world.start(&conf);
    for round in 1..=5 {
        daemon.wait_until("something serves", |status| status.active_port.is_some());
        daemon.wait_until_recorded();
        let serving = daemon.live_pid();
        let candidate = world.app(&format!("v{round}")).with("bind_after", world.path("never").display());
        daemon.deploy_detached(&candidate);
        let appeared = wait_eagerly(
            "the candidate appears",
            || daemon.log(),
            || world.processes().into_iter().find(|process| process.pid != serving),
        );
        daemon.kill();
        meanwhile(&world);
        daemon = world.start(&conf);
        daemon.wait_until_serves("v0");
        let serves = daemon.live_pid();
        assert_eq!(serves == serving, served == Served::GoesOn, "round {round}: {serving} served");
        wait_until(
            "only what serves is left",
            || format!("round {round}: {appeared:?} in {:#?}\n{}", world.processes(), daemon.log()),
            || world.processes().iter().all(|process| process.pid == serves).then_some(()),
        );
    }
}

#[test]
fn a_candidate_that_was_just_started_is_no_stray() {
    killed_when_the_candidate_appears(Served::GoesOn, |_| {});
}

#[test]
fn nor_is_it_when_the_record_is_lost() {
    let again = Served::StartsAgain;
    killed_when_the_candidate_appears(again, |world| fs::write(world.state_file(), "garbage").unwrap());
    killed_when_the_candidate_appears(again, |world| fs::remove_file(world.state_file()).unwrap());
}

#[test]
fn what_is_deployed_beside_leftovers_that_will_not_end_is_none_of_them() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1")).set("app.stop_timeout", "10m").set("drain.period", "10m");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let left = world.app("v2").flag("helper");
    daemon.deploy(&left).expect(200);
    let serving = daemon.live_pid();
    let helper = left.wait_for(1, "helper ").parse().unwrap();
    daemon.admin("POST", "/__rollback", None).expect(200);
    daemon.wait_until_serves("v1");
    daemon.wait_until_recorded();
    daemon.kill();
    procs::send(serving, Signal::SIGKILL);
    wait_until("v2 is gone", String::new, || (!procs::is_alive(serving)).then_some(()));
    let mut daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    left.wait_for(1, "signal SIGTERM");
    let next = world.app("v3");
    daemon.deploy(&next).expect(200);
    assert_eq!(daemon.get("/").version(), "v3");
    assert_eq!(next.count("signal"), 0);
    assert!(procs::is_alive(helper));
    daemon.signal(Signal::SIGTERM);
    daemon.wait_until("it goes down", |status| status.phase.as_str() == "stopping");
    wait_until(
        "who is in a hurry does not wait for it",
        || daemon.log(),
        || {
            daemon.signal(Signal::SIGTERM);
            (!procs::is_alive(helper)).then_some(())
        },
    );
    daemon.wait();
    world.wait_for_none_left();
}
