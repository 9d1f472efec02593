//! Clients that stay with one of several replicas: by a cookie, by their address.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;

use crate::harness::app::App;
use crate::harness::conf::Conf;
use crate::harness::http::{Answer, Conn};
use crate::harness::{Daemon, World, live, procs, wait_until};

fn conf(world: &World, app: &App, replicas: i64, sticky: &str) -> Conf {
    world
        .conf()
        .app(app)
        .set("app.replicas", replicas)
        .set("app.sticky", sticky)
        .set("rollback.window", "100ms")
        .set("drain.period", "300ms")
        .set("app.restart", toml::toml! { backoff = "10ms" max_backoff = "200ms" burst = 9 within = "60s" })
}

fn wait_until_ready(daemon: &Daemon<'_>, replicas: usize) {
    daemon.wait_until("every replica is ready", |status| {
        let ready = match &status.replicas {
            Some(all) => (all.ready, all.wanted) == (replicas, replicas),
            None => replicas == 1 && status.active_port.is_some(),
        };
        ready && status.candidate.is_none() && status.phase.as_str() != "watching"
    });
}

/// Asks over a connection of its own.
#[track_caller]
fn ask(daemon: &Daemon<'_>, path: &str, fields: &[(&str, &str)]) -> Answer {
    let mut conn = Conn::tcp(daemon.addr).expect("the daemon listens");
    let own = [("host", "a")];
    let fields: Vec<_> = own.iter().chain(fields).copied().collect();
    conn.request("GET", path, &fields, None).expect("an answer").expect(200)
}

/// The number of the replica that answers, and the cookie that the answer sets, as a client sends
/// it back.
#[track_caller]
fn replica(daemon: &Daemon<'_>, fields: &[(&str, &str)]) -> (String, Option<String>) {
    let answer = ask(daemon, "/env", fields);
    let number = answer.json()["PORTOK_REPLICA"].as_str().expect("a number").to_owned();
    let cookie = answer.header("set-cookie").map(|set| {
        let (cookie, attributes) = set.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
        cookie.to_owned()
    });
    (number, cookie)
}

#[test]
fn a_cookie_outlives_a_crash_a_deploy_growth_and_the_daemon() {
    let world = World::new();
    let app = world.app("v1");
    let mut conf = conf(&world, &app, 3, "cookie");
    let daemon = world.start(&conf);
    wait_until_ready(&daemon, 3);
    // The last one: it is what fewer replicas would lack.
    let (number, cookie) = wait_until(
        "one gets the replica of the highest number",
        || daemon.log(),
        || Some(replica(&daemon, &[])).filter(|(number, _)| number == "2"),
    );
    let cookie = cookie.expect("a cookie");
    assert_eq!(cookie, format!("portok_sticky_{}={number}", world.name()));
    let cookies = format!("a=1; {cookie}");
    let stays = |daemon: &Daemon<'_>, version: &str, what: &str| {
        for _ in 0..6 {
            assert_eq!(replica(daemon, &[("cookie", &cookies)]), (number.clone(), None), "{what}");
        }
        let answer = ask(daemon, "/", &[("cookie", &cookies), ("x-echo", "1")]);
        assert_eq!((answer.version(), answer.header("set-cookie")), (version, None), "{what}");
        let got = answer.text();
        assert!(got.contains("cookie: a=1\r\n") && !got.contains("portok_sticky"), "{got}");
    };
    stays(&daemon, "v1", "at first");

    // Its own process ends: another serves meanwhile, and the one that has its number then.
    ask(&daemon, "/exit/1", &[("cookie", &cookies)]);
    // While it dies, a second try may meet it once more.
    let is_noticed = || daemon.log().contains("exit=\"exit status 1\"").then_some(());
    wait_until("its end is noticed", || daemon.log(), is_noticed);
    let _ready_or_not = replica(&daemon, &[("cookie", &cookies)]);
    wait_until("another one has its place", || daemon.log(), || (app.count("start ") == 4).then_some(()));
    wait_until_ready(&daemon, 3);
    stays(&daemon, "v1", "after a crash");

    let before = live(&daemon.status()).unwrap().to_owned();
    daemon.deploy(&world.app("v2")).expect(200);
    stays(&daemon, "v2", "after a deploy");
    daemon.wait_until_stopped(&before);
    wait_until_ready(&daemon, 3);
    for replicas in [5, 3] {
        conf.put("app.replicas", replicas);
        conf.save();
        wait_until_ready(&daemon, usize::try_from(replicas).unwrap());
        stays(&daemon, "v2", &format!("with {replicas}"));
    }
    daemon.wait_until_recorded();
    daemon.kill();
    let daemon = world.start(&conf);
    wait_until_ready(&daemon, 3);
    stays(&daemon, "v2", "with the next daemon");

    // There is no such replica any more: the client gets another, and stays with that.
    conf.put("app.replicas", 2);
    conf.save();
    wait_until_ready(&daemon, 2);
    let (next, moved) = replica(&daemon, &[("cookie", &cookies)]);
    let moved = moved.expect("another cookie");
    for _ in 0..4 {
        assert_eq!(replica(&daemon, &[("cookie", &moved)]), (next.clone(), None));
    }
    daemon.terminate();
}

#[test]
fn an_address_has_one_replica_through_a_crash_and_a_deploy() {
    let world = World::new();
    let app = world.app("v1");
    let daemon = world.start(&conf(&world, &app, 3, "address"));
    wait_until_ready(&daemon, 3);
    let of = |address: &str| {
        let (number, cookie) = replica(&daemon, &[("x-forwarded-for", address)]);
        assert_eq!(cookie, None);
        number
    };
    let clients: Vec<String> = (1..=12).map(|number| format!("192.0.2.{number}")).collect();
    let all = || clients.iter().map(|client| of(client)).collect::<Vec<_>>();
    let first = all();
    assert!(first.iter().collect::<BTreeSet<_>>().len() > 1, "{first:?}");
    assert_eq!(all(), first);
    let before = world.processes().into_iter().next().expect("a process").pid;
    procs::send(before, Signal::SIGKILL);
    wait_until("another one has its place", || daemon.log(), || (app.count("start ") == 4).then_some(()));
    wait_until_ready(&daemon, 3);
    assert_eq!(all(), first, "after a crash");
    daemon.deploy(&world.app("v2")).expect(200);
    assert_eq!(all(), first, "after a deploy");
    daemon.terminate();
}

#[test]
fn an_edit_is_in_force_without_a_deploy_and_one_replica_sets_no_cookie() {
    let world = World::new();
    let app = world.app("v1");
    let mut conf = conf(&world, &app, 2, "off");
    let daemon = world.start(&conf);
    wait_until_ready(&daemon, 2);
    let switched = daemon.status().last_switch;
    assert_eq!(replica(&daemon, &[]).1, None);
    conf.put("app.sticky", "cookie");
    conf.put("app.balance", "round_robin");
    conf.save();
    let cookie = wait_until("the edit is in force", || daemon.log(), || replica(&daemon, &[]).1);
    let own = replica(&daemon, &[("cookie", &cookie)]);
    assert_eq!(replica(&daemon, &[("cookie", &cookie)]), own);
    // Each thread has turns of its own, and this is one connection after the other.
    let seen: BTreeSet<_> = (0..20).map(|_| replica(&daemon, &[]).0).collect();
    assert_eq!(seen.len(), 2);
    conf.put("app.replicas", 1);
    conf.save();
    wait_until_ready(&daemon, 1);
    wait_until(
        "one sets no cookie",
        || daemon.log(),
        || {
            (replica(&daemon, &[("cookie", &cookie)]).1.is_none() && replica(&daemon, &[]).1.is_none())
                .then_some(())
        },
    );
    let got = ask(&daemon, "/", &[("cookie", &cookie), ("x-echo", "1")]).text();
    assert!(!got.contains("portok_sticky"), "{got}");
    assert_eq!((daemon.status().last_switch, app.count("start ")), (switched, 2));
    daemon.terminate();
}
