//! Which app gets a request, and who has a route that two claim.

use std::fs;

use super::{edge, get, live_pid, put, put_text, reload, status, take_away, wait_for};
use crate::harness::conf::Conf;
use crate::harness::{Daemon, World, assert_mentions, wait_until};

#[test]
fn apps_of_one_file_are_found_by_host_and_path_and_named_over_the_api() {
    let world = World::new();
    let [api, shop] = ["api-1", "shop-1"].map(|version| world.app(version));
    let conf = edge(&world)
        .set("apps.api.hosts", vec!["api.test", "*.api.test"])
        .set("apps.api.command", api.command())
        .set("apps.shop.hosts", vec!["api.test"])
        .set("apps.shop.paths", vec!["/shop"])
        .set("apps.shop.command", shop.command())
        .set("apps.www.hosts", vec!["www.test"])
        .set("apps.www.redirect", "https://example.com");
    let daemon = world.start(&conf);
    wait_for(&daemon, "api.test", "api-1");
    wait_until(
        "the shop serves",
        || daemon.log(),
        || (get(&daemon, "api.test", "/shop").version() == "shop-1").then_some(()),
    );
    assert_eq!(get(&daemon, "a.api.test", "/shop").version(), "api-1", "the path is another host's");
    let moved = get(&daemon, "www.test", "/x?y").expect(308);
    assert_eq!(moved.header("location"), Some("https://example.com/x?y"));
    assert_eq!(get(&daemon, "other.test", "/").expect(404).header("portok-error"), Some("no_route"));

    let refused = daemon.admin("GET", "/__status", None).refused(400, "app_required");
    assert_mentions(&refused.to_string(), &["api", "shop", "www"]);
    daemon.admin("GET", "/__status?app=none", None).refused(404, "no_such_app");
    assert_eq!(status(&daemon, "www").phase.as_str(), "settled");
    daemon.admin("POST", "/__rollback?app=www", None).refused(400, "bad_request");
    // One app's deploy is no other's.
    let before = live_pid(&daemon, "shop");
    let next = serde_json::json!({ "command": world.app("api-2").command(), "release": "v2" });
    daemon.admin("POST", "/__deploy?app=api", Some(&next)).expect(200);
    wait_for(&daemon, "api.test", "api-2");
    assert_eq!((live_pid(&daemon, "shop"), get(&daemon, "api.test", "/shop").version()), (before, "shop-1"));
    daemon.terminate();
}

/// App `b` has `x.test`, which `a` has claimed since.
fn start_with_a_contested_route<'w>(world: &'w World, conf: &Conf) -> Daemon<'w> {
    put(world, "b", &["x.test"], &world.app("b-1"));
    let daemon = world.start(conf);
    wait_for(&daemon, "x.test", "b-1");
    put(world, "a", &["x.test", "y.test"], &world.app("a-1"));
    reload(&daemon);
    wait_for(&daemon, "y.test", "a-1");
    daemon
}

#[test]
fn a_route_that_two_claim_stays_until_it_is_free() {
    let world = World::new();
    let conf = edge(&world);
    let daemon = start_with_a_contested_route(&world, &conf);
    assert_eq!(get(&daemon, "x.test", "/").version(), "b-1");
    let refused = super::apps(&world)[0]["error"].to_string();
    assert_mentions(&refused, &["without host `x.test`, which app `b` has", "b.toml"]);
    let told = daemon.admin("POST", "/__reload", None).expect(200).json();
    assert_mentions(&told.to_string(), &["partial", "x.test"]);
    take_away(&world, "b");
    reload(&daemon);
    wait_for(&daemon, "x.test", "a-1");
    assert!(super::apps(&world)[0]["error"].is_null());
    daemon.terminate();
}

#[test]
fn a_route_that_two_claim_stays_over_a_crash_an_upgrade_and_a_restart() {
    let world = World::new();
    let conf = edge(&world);
    let daemon = start_with_a_contested_route(&world, &conf);
    let b_has_it = |daemon: &Daemon<'_>| {
        wait_for(daemon, "y.test", "a-1");
        wait_for(daemon, "x.test", "b-1");
        let refused = super::apps(&world)[0]["error"].to_string();
        assert_mentions(&refused, &["without host `x.test`, which app `b` has"]);
    };
    b_has_it(&daemon);
    daemon.kill();
    let mut daemon = world.start(&conf);
    b_has_it(&daemon);
    daemon.upgrade();
    b_has_it(&daemon);
    daemon.terminate();
    // New while no daemon runs, and before both.
    put_text(&world, "0", "hosts = [\"x.test\", \"y.test\"]\nredirect = \"https://example.com\"\n");
    let daemon = world.start(&conf);
    wait_for(&daemon, "y.test", "a-1");
    wait_for(&daemon, "x.test", "b-1");
    take_away(&world, "0");
    take_away(&world, "b");
    reload(&daemon);
    wait_for(&daemon, "x.test", "a-1");
    daemon.terminate();
}

#[test]
fn an_app_with_targets_is_answered_by_other_programs_and_may_become_a_managed_one() {
    let world = World::new();
    let conf = edge(&world);
    let (one, two) = (world.app("one"), world.app("two"));
    let (mut first, mut second) = (one.start_unmanaged(), two.start_unmanaged());
    let targets = |list: &[u16]| {
        let list: Vec<_> = list.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
        put_text(&world, "shop", &format!("hosts = [\"shop.test\"]\ntargets = [{}]\n", list.join(", ")));
    };
    targets(&[first.port]);
    let mut daemon = world.start(&conf);
    wait_for(&daemon, "shop.test", "one");
    targets(&[second.port]);
    reload(&daemon);
    wait_for(&daemon, "shop.test", "two");
    daemon.upgrade();
    wait_for(&daemon, "shop.test", "two");
    put(&world, "shop", &["shop.test"], &world.app("managed"));
    reload(&daemon);
    wait_for(&daemon, "shop.test", "managed");
    targets(&[first.port]);
    reload(&daemon);
    wait_for(&daemon, "shop.test", "one");
    wait_until("the managed one is stopped", || daemon.log(), || world.processes().is_empty().then_some(()));
    take_away(&world, "shop");
    reload(&daemon);
    wait_until("it is gone", || daemon.log(), || super::names(&world).is_empty().then_some(()));
    assert!(first.is_alive() && second.is_alive(), "nobody here stops them");
    daemon.terminate();
}

#[test]
fn routes_that_two_apps_claim_are_found_beforehand() {
    let world = World::new();
    let mut conf = edge(&world);
    conf.put("apps.site.hosts", texts(&["x.test"]));
    conf.put("apps.site.redirect", "https://a.test");
    conf.put("apps.wide.listen", texts(&["0.0.0.0:20998"]));
    conf.put("apps.wide.redirect", "https://a.test");
    conf.save();
    let file = conf.file().display().to_string();
    let check = |code| world.portokd(&["--check", "--config", &file], &world.env()).ended(code).err;
    assert!(!check(0).contains("error"));
    put_text(&world, "api", "hosts = [\"y.test\", \"X.test\"]\nredirect = \"https://b.test\"\n");
    put_text(&world, "hook", "listen = [\"127.0.0.1:20998\"]\nredirect = \"https://b.test\"\n");
    let told = check(2);
    let main = conf.file().file_name().unwrap().to_string_lossy().into_owned();
    for (app, route, holder) in [
        ("api", "host `x.test`, which", "`site`"),
        ("hook", "127.0.0.1:20998, which overlaps address 0.0.0.0:20998", "`wide`"),
    ] {
        let own = super::file(&world, app).display().to_string();
        let line = told.lines().find(|line| line.contains(&own)).unwrap_or_else(|| panic!("{app}: {told}"));
        assert_mentions(line, &[&format!("app `{app}` would be in force without"), route, holder, &main]);
    }
    // The file of one app is not the one to check.
    let own = super::file(&world, "api").display().to_string();
    let said = world.portokd(&["--check", "--config", &own], &world.env()).ended(2).err;
    assert_mentions(&said, &[&format!("portokd --check --config {file}")]);
}

#[test]
fn a_rename_says_who_has_the_host() {
    let world = World::new();
    let conf = edge(&world).set("removal_delay", "1h");
    put(&world, "old", &["x.test"], &world.app("old-1"));
    let daemon = world.start(&conf);
    wait_for(&daemon, "x.test", "old-1");
    fs::rename(super::file(&world, "old"), super::file(&world, "new")).unwrap();
    let told = daemon.portok(&["reload"]).ended(0).out;
    assert_mentions(&told, &["pending", "old: its configuration is gone"]);
    wait_for(&daemon, "x.test", "old-1");
    let what = "app `new` has host `x.test` now, which app `old` had";
    wait_until("it has the host", || daemon.log(), || daemon.log().contains(what).then_some(()));
    assert_mentions(&daemon.log(), &["app `new` is in force without host `x.test`, which app `old` has"]);
    assert!(!daemon.log().contains("refused old"), "{}", daemon.log());
    daemon.terminate();
}

fn texts(texts: &[&str]) -> Vec<toml::Value> {
    texts.iter().map(|text| toml::Value::from(*text)).collect()
}
