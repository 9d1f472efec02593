//! The daemon is upgraded while every kind of app is asked: nothing is lost, and no process is
//! touched.

use super::{edge, live_pid, wait_for};
use crate::harness::conf::Conf;
use crate::harness::{Asked, Conn, Daemon, Load, World, assert_mentions, deploy_body, wait_until};

/// Two apps that portok starts, one of them also at an address of its own, one with targets, and a
/// redirect.
fn conf(world: &World, own: std::net::SocketAddr, target: u16) -> Conf {
    edge(world)
        .set("apps.api.hosts", vec!["api.test"])
        .set("apps.api.command", world.app("api-1").command())
        .set("apps.shop.hosts", vec!["shop.test"])
        .set("apps.shop.command", world.app("shop-1").command())
        .set("apps.own.listen", vec![own.to_string()])
        .set("apps.own.command", world.app("own-1").command())
        .set("apps.other.hosts", vec!["other.test"])
        .set("apps.other.targets", vec![format!("127.0.0.1:{target}")])
        .set("apps.www.hosts", vec!["www.test"])
        .set("apps.www.redirect", "https://shop.test")
}

/// A load for each of the apps.
fn loads(daemon: &Daemon<'_>, own: std::net::SocketAddr) -> Vec<Load> {
    let asked = [
        (daemon.addr, "api.test", 200),
        (daemon.addr, "shop.test", 200),
        (daemon.addr, "other.test", 200),
        (daemon.addr, "www.test", 308),
        (own, "any.test", 200),
    ];
    let asked = asked.map(|(addr, host, status)| Asked { addr, host: host.to_owned(), status, tls: None });
    asked.iter().map(|asked| Load::of(asked, 1)).collect()
}

fn all_go_on(loads: &[Load]) {
    loads.iter().for_each(|load| load.wait_for_more(30));
}

#[test]
fn upgrades_in_a_row_and_during_a_deploy_cost_no_app_a_request() {
    let world = World::new();
    let [_, own] = crate::listeners::free();
    let other_app = world.app("other-1");
    let mut other = other_app.start_unmanaged();
    let mut daemon = world.start(&conf(&world, own, other.port));
    for app in ["api", "shop", "other"] {
        wait_for(&daemon, &format!("{app}.test"), &format!("{app}-1"));
    }
    let managed = ["api", "shop", "own"];
    let before = managed.map(|app| live_pid(&daemon, app));
    let loads = loads(&daemon, own);
    daemon.upgrade();
    daemon.wait().ended(0);
    all_go_on(&loads);
    let said = daemon.portok(&["--json", "upgrade", "--wait", "10m"]).ended(0);
    daemon.has_handed_over(&said);
    all_go_on(&loads);
    assert_eq!(managed.map(|app| live_pid(&daemon, app)), before);

    // Whatever app deploys, the daemon is upgraded when traffic has moved.
    let next = world.app("api-2").with("bind_after", world.path("ready").display());
    daemon.admin("POST", "/__deploy?app=api&detach=1", Some(&deploy_body(&next))).expect(202);
    next.wait_for(1, "start ");
    // The one that handed over may still have answers to finish.
    let refused = || daemon.admin("POST", "/__upgrade", None).refused(409, "busy").to_string();
    wait_until("the deploy hinders it", refused, || refused().contains("`api-2`").then_some(()));
    assert_mentions(&refused(), &["app `api`"]);
    let mut upgrade = daemon.spawn_portok(&["--json", "upgrade", "--wait", "10m"]);
    wait_until(
        "the upgrade waits",
        || format!("{:?}", upgrade.said()),
        || upgrade.said().1.contains("waiting: ").then_some(()),
    );
    all_go_on(&loads);
    world.touch("ready");
    daemon.has_handed_over(&upgrade.wait().ended(0));
    wait_for(&daemon, "api.test", "api-2");
    all_go_on(&loads);
    let reports = loads.into_iter().map(Load::finish_without_failure);
    let versions: Vec<Vec<_>> = reports.map(|report| report.by_version.into_keys().collect()).collect();
    assert_eq!(
        versions,
        [vec!["api-1", "api-2"], vec!["shop-1"], vec!["other-1"], vec!["308"], vec!["own-1"]]
    );
    assert_eq!(["shop", "own"].map(|app| live_pid(&daemon, app)), before[1..]);
    assert!(other.is_alive() && other_app.count("signal") == 0);
    daemon.terminate();
    // Nobody has kept an address.
    wait_until("the addresses are free", String::new, || Conn::tcp(own).is_err().then_some(()));
}
