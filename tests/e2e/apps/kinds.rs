//! An app that becomes another kind: what was serves until what is to be is healthy.

use portok::wire::Phase;

use super::faults::start_failing;
use super::targets::records;
use super::{edge, get, put, put_text, reload, status, wait_for};
use crate::harness::{Load, World, assert_mentions, wait_until};

#[test]
fn an_app_that_becomes_another_kind_answers_as_it_was_until_it_is_healthy_as_that() {
    let world = World::new();
    let (one, two) = (world.app("one"), world.app("two"));
    let mut program = one.start_unmanaged();
    let targets = |port: u16| {
        let rest = "health.interval = \"50ms\"\ndrain.period = \"10s\"\n";
        put_text(&world, "shop", &format!("hosts = [\"*\"]\ntargets = [\"127.0.0.1:{port}\"]\n{rest}"));
    };
    let conf = edge(&world);
    targets(program.port);
    let daemon = world.start(&conf);
    wait_for(&daemon, "shop.test", "one");
    let load = Load::start(daemon.addr);
    load.wait_for_more(50);

    // It never becomes healthy: nothing is lost by it.
    let broken = "hosts = [\"*\"]\ncommand = \"exit 1\"\n";
    put_text(&world, "shop", broken);
    reload(&daemon);
    let failed = || (status(&daemon, "shop").phase == Phase::Empty).then_some(());
    wait_until("its first deploy has failed", || daemon.log(), failed);
    load.wait_for_more(100);
    assert_mentions(
        &status(&daemon, "shop").config.error.unwrap(),
        &["answers as it was until it is healthy"],
    );
    daemon.admin("POST", "/__upgrade", None).refused(409, "busy");

    // It does.
    put(&world, "shop", &["*"], &two);
    reload(&daemon);
    wait_for(&daemon, "shop.test", "two");
    let is_clean = || status(&daemon, "shop").config.error.is_none().then_some(());
    wait_until("nothing is wrong with it", || daemon.log(), is_clean);
    load.wait_for_more(100);
    assert!(program.is_alive(), "nobody here stops it");

    // And back, to targets that are not there yet.
    program.kill();
    targets(program.port);
    reload(&daemon);
    let unready = || (status(&daemon, "shop").live.is_none()).then_some(());
    wait_until("it has targets", || daemon.log(), unready);
    load.wait_for_more(100);
    assert_eq!(get(&daemon, "shop.test", "/").expect(200).version(), "two");

    // An edit back takes up what runs, as it runs.
    let pids = two.pids();
    put(&world, "shop", &["*"], &two);
    reload(&daemon);
    load.wait_for_more(100);
    assert_eq!(two.pids(), pids);
    assert_eq!(status(&daemon, "shop").phase, Phase::Settled);

    let third = world.app("three").start_unmanaged();
    targets(third.port);
    reload(&daemon);
    wait_for(&daemon, "shop.test", "three");
    wait_until("what ran of it is stopped", || daemon.log(), || world.processes().is_empty().then_some(()));
    load.finish_without_failure();
    assert_mentions(&daemon.log(), &["it is another kind of app from now on"]);
    daemon.terminate();
}

/// Configures an app with one target.
fn target(world: &World, port: u16) {
    let rest = "health.interval = \"50ms\"\nhealth.timeout = \"50s\"\n";
    put_text(world, "shop", &format!("hosts = [\"*\"]\ntargets = [\"127.0.0.1:{port}\"]\n{rest}"));
}

#[test]
fn what_answers_until_then_is_driven_again_after_a_fault() {
    let world = World::new();
    let one = world.app("one");
    let program = one.start_unmanaged();
    let conf = edge(&world);
    target(&world, program.port);
    // Its driver takes a step at every probe; that of what never becomes healthy takes few.
    let daemon = start_failing(&world, &conf, "shop:200");
    wait_for(&daemon, "shop.test", "one");
    put_text(&world, "shop", "hosts = [\"*\"]\ncommand = \"exit 1\"\n");
    reload(&daemon);
    let fell = || daemon.log().contains("its set of targets ended by a fault of portok").then_some(());
    assert!(fell().is_none(), "it is another kind before that: {}", daemon.log());
    wait_until("what answers falls", || daemon.log(), fell);
    let probes = one.count("health");
    one.wait_for(probes + 5, "health");
    assert_eq!(get(&daemon, "shop.test", "/").expect(200).version(), "one");
    daemon.terminate();
}

#[test]
fn a_daemon_that_is_killed_while_an_app_changes_its_kind_loses_and_doubles_nothing() {
    let world = World::new();
    let (one, mut third) = (world.app("one").start_unmanaged(), world.app("three").start_unmanaged());
    let conf = edge(&world);
    target(&world, one.port);
    let daemon = world.start(&conf);
    wait_for(&daemon, "shop.test", "one");
    daemon.admin("POST", &format!("/__switch?app=shop&port={}", third.port), None).expect(200);
    wait_for(&daemon, "shop.test", "three");
    let switch = status(&daemon, "shop").last_switch;
    assert_eq!(records(&world), ["shop.json"]);

    // What portok is to run has a process, and is not healthy yet.
    let two = world.app("two").with("bind_after", world.path("go").display());
    put(&world, "shop", &["*"], &two);
    reload(&daemon);
    two.wait_for(1, "start");
    assert_eq!(get(&daemon, "shop.test", "/").expect(200).version(), "three");
    assert_eq!(records(&world), ["shop.json"]);
    daemon.kill();
    let daemon = world.start_saved(&conf);
    world.touch("go");
    wait_for(&daemon, "shop.test", "two");
    let one_runs = || (world.processes().len() == 1).then_some(());
    wait_until("one process of it runs", || format!("{:#?}", world.processes()), one_runs);
    assert_eq!(records(&world), ["shop.json", "shop.json.removed-"]);

    // What was switched to is in force again, and nobody listens there.
    third.kill();
    target(&world, one.port);
    reload(&daemon);
    let taken_up = || (status(&daemon, "shop").last_switch == switch).then_some(());
    wait_until("the switch is taken up", || daemon.log(), taken_up);
    assert_eq!(get(&daemon, "shop.test", "/").expect(200).version(), "two");
    assert_eq!(records(&world), ["shop.json"], "both kinds have one record");
    daemon.kill();
    let daemon = world.start_saved(&conf);
    world.wait_for_none_left();
    assert_eq!(status(&daemon, "shop").last_switch, switch);
    let set_aside = || (records(&world) == ["shop.json", "shop.json.removed-"]).then_some(());
    wait_until("what it was is set aside", || format!("{:?}", records(&world)), set_aside);

    // As an app that portok runs it goes on from there.
    put(&world, "shop", &["*"], &two);
    reload(&daemon);
    wait_for(&daemon, "shop.test", "two");
    let rows = daemon.admin("GET", "/__releases?app=shop", None).expect(200).json();
    assert!(rows.as_array().unwrap().len() > 1, "{rows:#}");
    daemon.terminate();
}
