//! Addresses that an app has for itself: who is answered there, who has them, and what becomes of
//! one that cannot be bound.

use std::net::{SocketAddr, TcpListener};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::{edge, file, get, live_pid, names, put, put_text, reload, status, take_away, wait_for};
use crate::harness::app::App;
use crate::harness::conf::Conf;
use crate::harness::{Answer, Conn, Daemon, Load, World, assert_mentions, procs, wait_until};
use crate::listeners::{free, version};

fn texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<toml::Value> {
    texts.into_iter().map(toml::Value::from).collect()
}

/// Writes the file of an app that runs `release`, with these addresses of its own.
fn put_at(world: &World, app: &str, addresses: &[SocketAddr], release: &App) {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    Conf::new(file(world, app))
        .set("listen", texts(addresses.iter().map(String::as_str)))
        .set("command", release.command())
        .save();
}

/// A GET to that address, for that host.
fn get_at(addr: SocketAddr, host: &str) -> Answer {
    Conn::tcp(addr).unwrap().request("GET", "/", &[("host", host)], None).unwrap()
}

/// The row of an app in `GET /__apps`.
fn row(world: &World, app: &str) -> Value {
    super::apps(world).into_iter().find(|row| row["app"] == app).unwrap_or_default()
}

/// Waits until `version` answers at that address.
#[track_caller]
fn wait_at(daemon: &Daemon<'_>, addr: SocketAddr, version: &str) {
    wait_until(
        &format!("{version} answers at {addr}"),
        || daemon.log(),
        || {
            let mut conn = Conn::tcp(addr).ok()?;
            let answer = conn.request("GET", "/", &[], None).ok()?;
            (answer.status() == 200 && answer.version() == version).then_some(())
        },
    );
}

#[track_caller]
fn wait_until_closed(daemon: &Daemon<'_>, addr: SocketAddr) {
    wait_until(&format!("{addr} is closed"), || daemon.log(), || Conn::tcp(addr).is_err().then_some(()));
}

/// An address and the one that covers it.
fn here_and_all() -> [SocketAddr; 2] {
    let [here] = free();
    [here, SocketAddr::from(([0, 0, 0, 0], here.port()))]
}

#[test]
fn an_app_alone_is_reached_at_its_own_address_by_every_host() {
    let world = World::new();
    let conf = edge(&world);
    let [one, two] = free();
    put(&world, "web", &["web.test"], &world.app("web-1"));
    put_at(&world, "hook", &[one], &world.app("hook-1"));
    Conf::new(file(&world, "both"))
        .set("listen", two.to_string())
        .set("hosts", texts(["both.test"]))
        .set("command", world.app("both-1").command())
        .save();
    let daemon = world.start(&conf);
    wait_for(&daemon, "web.test", "web-1");
    wait_at(&daemon, one, "hook-1");
    wait_at(&daemon, two, "both-1");
    for host in ["web.test", "both.test", "any.test", "127.0.0.1"] {
        assert_eq!(get_at(one, host).expect(200).version(), "hook-1", "{host}");
        assert_eq!(get_at(two, host).expect(200).version(), "both-1", "{host}");
    }
    assert_eq!(get(&daemon, "both.test", "/").expect(200).version(), "both-1");
    // Without hosts it is not at the instance's address.
    for host in ["hook.test", "any.test"] {
        assert_eq!(get(&daemon, host, "/").expect(404).header("portok-error"), Some("no_route"));
    }
    let hook = row(&world, "hook");
    assert_eq!((&hook["listen"], &hook["hosts"]), (&vec![one.to_string()].into(), &Value::Array(vec![])));
    take_away(&world, "hook");
    reload(&daemon);
    wait_until_closed(&daemon, one);
    wait_until("it is gone", || daemon.log(), || (names(&world) == ["both", "web"]).then_some(()));
    assert_eq!(get_at(two, "any.test").expect(200).version(), "both-1");
    daemon.terminate();
}

#[test]
fn addresses_that_change_or_change_hands_cost_no_request() {
    let world = World::new();
    let [one, two, three] = free();
    let instance = edge(&world);
    // In one file, so that both change at once.
    let conf = |hook: &[SocketAddr], next: &[SocketAddr]| {
        let mut conf = instance.clone();
        for (app, addresses) in [("hook", hook), ("next", next)] {
            let addresses: Vec<toml::Value> = addresses.iter().map(|addr| addr.to_string().into()).collect();
            conf.put(&format!("apps.{app}.listen"), addresses);
            conf.put(&format!("apps.{app}.command"), world.app(&format!("{app}-1")).command());
        }
        conf
    };
    let daemon = world.start(&conf(&[one], &[three]));
    wait_at(&daemon, one, "hook-1");
    wait_at(&daemon, three, "next-1");
    let mut kept = Conn::tcp(one).unwrap();
    kept.request("GET", "/", &[], None).unwrap().expect(200);
    let load = Load::start(one);
    // The app has the new address as soon as anybody can connect to it.
    conf(&[one, two], &[three]).save();
    wait_until("it listens there", || daemon.log(), || Conn::tcp(two).ok());
    assert_eq!(version(two), "hook-1");
    load.wait_for_more(50);
    load.finish_without_failure();
    let load = Load::start(two);
    conf(&[two], &[three]).save();
    reload(&daemon);
    wait_until_closed(&daemon, one);
    assert_eq!(kept.request("GET", "/", &[], None).unwrap().expect(200).version(), "hook-1");
    // Each gets the other's.
    conf(&[three], &[two]).save();
    reload(&daemon);
    load.ban("hook-1");
    load.wait_for_more(50);
    assert_eq!(version(three), "hook-1");
    let report = load.finish_without_failure();
    assert!(report.by_version.contains_key("next-1") && report.by_version.contains_key("hook-1"));
    assert_eq!(kept.request("GET", "/", &[], None).unwrap().expect(200).version(), "hook-1");
    daemon.terminate();
}

#[test]
fn an_address_that_somebody_else_has_is_that_apps_error_until_it_is_free() {
    let world = World::new();
    let conf = edge(&world);
    let [taken, own] = free();
    let somebody = TcpListener::bind(taken).unwrap();
    put(&world, "web", &["web.test"], &world.app("web-1"));
    put_at(&world, "hook", &[taken, own], &world.app("hook-1"));
    // It is ready all the same.
    let daemon = world.start(&conf);
    wait_for(&daemon, "web.test", "web-1");
    wait_at(&daemon, own, "hook-1");
    let what = format!("cannot listen on {taken}");
    assert_mentions(&row(&world, "hook")["error"].to_string(), &[&what, "in use", "tried again"]);
    assert_mentions(&status(&daemon, "hook").config.error.unwrap_or_default(), &[&what]);
    assert!(row(&world, "web")["error"].is_null());
    // Each reload tries again, and says so to who asked; the log has it once.
    for _ in 0..2 {
        let told = daemon.admin("POST", "/__reload", None).expect(200).json();
        assert_mentions(&told.to_string(), &["\"hook\"", "partial", &what]);
    }
    drop(somebody);
    wait_at(&daemon, taken, "hook-1");
    wait_until("its error is over", || daemon.log(), || row(&world, "hook")["error"].is_null().then_some(()));
    // The log has a thread of its own.
    let bound = format!("{taken} could not be bound before");
    wait_until("it is logged", || daemon.log(), || daemon.log().contains(&bound).then_some(()));
    let log = daemon.log();
    assert_eq!(log.matches(&what).count(), 1, "{log}");
    assert_eq!(log.matches(&bound).count(), 1, "{log}");
    daemon.terminate();
}

#[test]
fn of_addresses_that_overlap_the_app_that_has_one_keeps_it_until_it_is_free() {
    let world = World::new();
    let conf = edge(&world);
    let [here, all] = here_and_all();
    put_at(&world, "hook", &[here], &world.app("hook-1"));
    put(&world, "web", &["web.test"], &world.app("web-1"));
    let daemon = world.start(&conf);
    wait_for(&daemon, "web.test", "web-1");
    wait_at(&daemon, here, "hook-1");
    // By its name it would go first.
    put_at(&world, "all", &[all], &world.app("all-1"));
    reload(&daemon);
    wait_until("it is there", || daemon.log(), || (names(&world).len() == 3).then_some(()));
    let refused = row(&world, "all")["error"].to_string();
    assert_mentions(
        &refused,
        &["all.toml", &format!("address {all}, which overlaps"), "`hook`", "hook.toml"],
    );
    assert_eq!(row(&world, "all")["listen"], Value::Array(vec![]));
    assert_eq!(version(here), "hook-1");
    take_away(&world, "hook");
    reload(&daemon);
    wait_at(&daemon, here, "all-1");
    assert!(row(&world, "all")["error"].is_null());
    assert!(!daemon.log().contains("cannot listen"), "{}", daemon.log());
    // A narrower address is bound once the wider one is out of its way.
    put_at(&world, "all", &[here], &world.app("all-1"));
    reload(&daemon);
    assert_eq!(version(here), "all-1");
    assert!(!daemon.log().contains("cannot listen"), "{}", daemon.log());
    daemon.terminate();
}

#[test]
fn the_next_daemon_listens_where_the_one_before_did() {
    let world = World::new();
    let conf = edge(&world);
    let [one, other] = free();
    put_at(&world, "hook", &[one], &world.app("hook-1"));
    put_text(&world, "moved", &format!("listen = [\"{other}\"]\nredirect = \"https://example.com\"\n"));
    let mut daemon = world.start(&conf);
    wait_at(&daemon, one, "hook-1");
    let before = live_pid(&daemon, "hook");
    let load = Load::start(one);
    daemon.upgrade();
    load.wait_for_more(50);
    let heir = daemon.upgrade();
    load.wait_for_more(50);
    load.finish_without_failure();
    procs::send(heir, Signal::SIGUSR2);
    daemon.wait_for_heir();
    let daemon = world.start_saved(&conf);
    wait_at(&daemon, one, "hook-1");
    assert_eq!(get_at(other, "any.test").status(), 308);
    daemon.kill();
    let daemon = world.start_saved(&conf);
    wait_at(&daemon, one, "hook-1");
    assert_eq!(get_at(other, "any.test").status(), 308);
    assert_eq!(live_pid(&daemon, "hook"), before);
    daemon.terminate();
}
