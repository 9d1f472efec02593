//! What an operator orders of one of several apps, whoever runs its processes.

use super::{edge, get, put, put_text, record, status, wait_for};
use crate::harness::http::request_bytes;
use crate::harness::{World, assert_mentions, wait_until};

#[test]
fn each_app_has_orders_of_its_own_which_the_next_daemon_obeys() {
    let world = World::new();
    let program = world.app("shop1").start_unmanaged();
    let conf = edge(&world);
    put(&world, "api", &["api.test"], &world.app("api1"));
    put_text(
        &world,
        "shop",
        &format!("hosts = [\"shop.test\"]\ntargets = [\"127.0.0.1:{}\"]\n", program.port),
    );
    put_text(&world, "www", "hosts = [\"www.test\"]\nredirect = \"https://shop.test\"\n");
    let daemon = world.start(&conf);
    wait_for(&daemon, "api.test", "api1");
    wait_for(&daemon, "shop.test", "shop1");

    daemon.portok(&["--app", "shop", "pause", "--for", "10m"]).ended(0);
    daemon.portok(&["--app", "shop", "freeze", "--note", "the sale"]).ended(0);
    daemon.portok(&["--app", "api", "maintenance", "on"]).ended(0);
    for order in ["pause", "freeze", "resume"] {
        daemon.admin("POST", &format!("/__{order}?app=www"), None).refused(400, "bad_request");
        daemon.admin("POST", &format!("/__{order}"), None).refused(400, "app_required");
    }
    daemon.kill();
    let daemon = world.start_saved(&conf);
    let said = |app: &str| (status(&daemon, app).traffic.as_str(), status(&daemon, app).frozen.is_some());
    assert_eq!(
        (said("shop"), said("api"), said("www")),
        (("held", true), ("maintenance", false), ("open", false))
    );
    let other = world.app("shop2").start_unmanaged();
    daemon.admin("POST", &format!("/__switch?app=shop&port={}", other.port), None).refused(409, "frozen");
    let answer = get(&daemon, "api.test", "/");
    assert_eq!((answer.status(), answer.header("portok-error")), (503, Some("maintenance")));

    let mut held = daemon.connect();
    held.send(&request_bytes("GET", "/", &[("host", "shop.test")], None)).unwrap();
    let inflight = || daemon.admin("GET", "/__metrics?app=shop", None).expect(200).json()["inflight"].clone();
    wait_until("the request waits", || daemon.log(), || (inflight() == 1).then_some(()));
    let refusal = daemon.admin("POST", "/__upgrade", None).refused(409, "busy");
    assert_mentions(refusal["message"].as_str().unwrap(), &["shop", "a request is held"]);
    daemon.admin("POST", "/__resume?app=shop", None).expect(200);
    assert_eq!(held.answer("GET").unwrap().expect(200).version(), "shop1");
    daemon.admin("POST", "/__thaw?app=shop", None).expect(200);
    daemon.portok(&["--app", "api", "maintenance", "off"]).ended(0);
    wait_for(&daemon, "api.test", "api1");
    // What was ordered leaves no trace in the records.
    for entry in std::fs::read_dir(record(&world, "api").parent().unwrap()).unwrap().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        assert!(!text.contains("\"orders\""), "{text}");
    }
}
