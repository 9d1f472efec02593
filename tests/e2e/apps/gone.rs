//! Apps that the main file does not configure any more, over a restart of the daemon.

use std::net::SocketAddr;

use super::{apps, edge, get, live_pid, names, wait_for, wait_until_kept_as};
use crate::harness::conf::Conf;
use crate::harness::{Answer, Asked, Conn, Daemon, Load, World, assert_mentions, wait_until};

const ALL: [&str; 5] = ["a", "command", "own", "targets", "www"];

/// One app that stays.
fn few(world: &World) -> Conf {
    edge(world).set("apps.a.hosts", vec!["a.test"]).set("apps.a.redirect", "https://stays.test")
}

/// One of each kind, and one at an address of its own.
fn many(world: &World, few: &Conf, own: SocketAddr, target: u16) -> Conf {
    let targets = vec![format!("127.0.0.1:{target}")];
    few.clone()
        .set("apps.command.hosts", vec!["command.test"])
        .set("apps.command.command", world.app("command-1").command())
        .set(
            "apps.command.env",
            [("SECRET".to_owned(), "one\ntwo".into())].into_iter().collect::<toml::Table>(),
        )
        .set("apps.own.listen", vec![own.to_string()])
        .set("apps.own.targets", targets.clone())
        .set("apps.targets.hosts", vec!["targets.test"])
        .set("apps.targets.targets", targets)
        .set("apps.www.hosts", vec!["www.test"])
        .set("apps.www.redirect", "https://shop.test")
}

fn at_own(own: SocketAddr) -> Option<Answer> {
    Conn::tcp(own).ok()?.request("GET", "/", &[("host", "any.test")], None).ok()
}

#[track_caller]
fn all_answer(daemon: &Daemon<'_>, own: SocketAddr) {
    wait_for(daemon, "command.test", "command-1");
    wait_for(daemon, "targets.test", "target");
    let answers = || at_own(own).filter(|answer| answer.status() == 200);
    wait_until("the app at its own address answers", || daemon.log(), || answers().map(drop));
    get(daemon, "www.test", "/").expect(308);
    assert_eq!(names(daemon.world), ALL);
}

/// What is said of those that are spared.
#[track_caller]
fn are_spared(world: &World) {
    for app in apps(world).iter().filter(|app| app["app"] != "a") {
        assert_mentions(&app["error"].to_string(), &["4 of 5 apps", "reload --prune"]);
    }
}

#[test]
fn the_spared_ones_serve_over_upgrades_and_starts_and_go_when_that_is_asked_for() {
    let world = World::new();
    let [_, own] = crate::listeners::free();
    let target = world.app("target").start_unmanaged();
    let few = few(&world);
    let many = many(&world, &few, own, target.port);
    let mut daemon = world.start(&many);
    all_answer(&daemon, own);
    let pid = live_pid(&daemon, "command");
    few.save();
    let told = daemon.admin("POST", "/__reload", None).expect(200).json();
    assert_mentions(&told.to_string(), &["4 of 5 apps", "none of them is removed"]);
    let asked = [
        (daemon.addr, "command.test", 200),
        (daemon.addr, "targets.test", 200),
        (daemon.addr, "www.test", 308),
        (own, "any.test", 200),
    ];
    let asked = asked.map(|(addr, host, status)| Asked { addr, host: host.to_owned(), status, tls: None });
    let loads: Vec<_> = asked.iter().map(|asked| Load::of(asked, 1)).collect();
    daemon.upgrade();
    daemon.wait().ended(0);
    are_spared(&world);
    let said = daemon.portok(&["--json", "upgrade", "--wait", "10m"]).ended(0);
    daemon.has_handed_over(&said);
    are_spared(&world);
    loads.iter().for_each(|load| load.wait_for_more(30));
    for load in loads {
        load.finish_without_failure();
    }
    assert_eq!(live_pid(&daemon, "command"), pid);

    daemon.terminate();
    daemon = world.start_saved(&few);
    all_answer(&daemon, own);
    are_spared(&world);
    // One is left of those that were spared; it still is.
    let one_less = many.clone().without_app("www");
    one_less.save();
    daemon.admin("POST", "/__reload", None).expect(200);
    wait_until_kept_as(&world, "www", "spared");
    daemon.kill();
    daemon = world.start_saved(&one_less);
    all_answer(&daemon, own);
    few.save();
    let told = daemon.admin("POST", "/__reload?prune=1", None).expect(200).json();
    assert_mentions(&told.to_string(), &["removed"]);
    wait_until("they are gone", || daemon.log(), || (names(&world) == ["a"]).then_some(()));
    daemon.terminate();
    // What was removed does not come back.
    let daemon = world.start_saved(&few);
    assert_eq!(names(&world), ["a"]);
    get(&daemon, "www.test", "/").expect(404);
    daemon.terminate();
}

#[test]
fn what_was_taken_out_while_the_daemon_was_down_serves_on() {
    let world = World::new();
    let [_, own] = crate::listeners::free();
    let target = world.app("target").start_unmanaged();
    let few = few(&world);
    let mut daemon = world.start(&many(&world, &few, own, target.port));
    all_answer(&daemon, own);
    let pid = live_pid(&daemon, "command");
    wait_until_kept_as(&world, "www", "main");
    daemon.kill();
    daemon = world.start(&few);
    all_answer(&daemon, own);
    are_spared(&world);
    assert_eq!(live_pid(&daemon, "command"), pid);
    daemon.terminate();
}

#[test]
fn the_delay_of_a_removal_begins_anew_at_an_upgrade() {
    let world = World::new();
    let [_, own] = crate::listeners::free();
    let target = world.app("target").start_unmanaged();
    let all = many(&world, &few(&world), own, target.port).set("removal_delay", "1h");
    let mut daemon = world.start(&all);
    all_answer(&daemon, own);
    let pid = live_pid(&daemon, "command");
    let less = all.without_app("command");
    less.save();
    let told = daemon.admin("POST", "/__reload", None).expect(200).json();
    assert_mentions(&told.to_string(), &["pending", "1h"]);
    daemon.upgrade();
    daemon.wait().ended(0);
    all_answer(&daemon, own);
    assert_eq!(live_pid(&daemon, "command"), pid);
    less.set("removal_delay", "1ms").save();
    wait_until("it goes", || daemon.log(), || (names(&world).len() == 4).then_some(()));
    world.wait_for_none_left();
    daemon.terminate();
}

#[test]
fn at_a_start_apps_of_all_kinds_are_counted_as_they_are_at_a_reload() {
    let world = World::new();
    let mut conf = few(&world);
    for app in ["w", "x", "y"] {
        conf = conf.set(&format!("apps.{app}.hosts"), vec![format!("{app}.test")]);
        conf = conf.set(&format!("apps.{app}.redirect"), "https://stays.test");
    }
    let fewer = conf.clone();
    for app in ["c1", "c2"] {
        conf = conf.set(&format!("apps.{app}.hosts"), vec![format!("{app}.test")]);
        conf = conf.set(&format!("apps.{app}.command"), world.app(app).command());
    }
    let mut daemon = world.start(&conf);
    for app in ["c1", "c2"] {
        wait_for(&daemon, &format!("{app}.test"), app);
        live_pid(&daemon, app);
        wait_until_kept_as(&world, app, "main");
    }
    daemon.kill();
    daemon = world.start(&fewer);
    wait_until("two of six go", || daemon.log(), || (names(&world) == ["a", "w", "x", "y"]).then_some(()));
    daemon.terminate();
}
