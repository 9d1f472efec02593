//! An app that becomes another kind: what was serves until what is to be is healthy.

use portok::wire::Phase;

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
