//! Which app gets a request, and who has a route that two claim.

use super::{edge, get, live_pid, put, put_text, reload, status, take_away, wait_for};
use crate::harness::{World, assert_mentions, wait_until};

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

#[test]
fn a_route_that_two_claim_stays_until_it_is_free() {
    let world = World::new();
    let conf = edge(&world);
    put(&world, "b", &["x.test"], &world.app("b-1"));
    let daemon = world.start(&conf);
    wait_for(&daemon, "x.test", "b-1");
    put(&world, "a", &["x.test", "y.test"], &world.app("a-1"));
    reload(&daemon);
    wait_for(&daemon, "y.test", "a-1");
    assert_eq!(get(&daemon, "x.test", "/").version(), "b-1");
    let refused = super::apps(&world)[0]["error"].to_string();
    assert_mentions(&refused, &["x.test", "belongs to app `b`", "b.toml"]);
    let told = daemon.admin("POST", "/__reload", None).expect(200).json();
    assert_mentions(&told.to_string(), &["refused", "x.test"]);
    take_away(&world, "b");
    reload(&daemon);
    wait_for(&daemon, "x.test", "a-1");
    assert!(super::apps(&world)[0]["error"].is_null());
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
