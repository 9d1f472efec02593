//! How many requests a client may make in a time: what an edit of the file of keys does, and a bad
//! one does not.

use crate::harness::conf::write_private;
use crate::harness::http::request_bytes;
use crate::harness::{Answer, Daemon, World, assert_mentions, wait_until};

const KEY: &str = "secret-key-of-somebody";

/// A request with this key.
fn ask(daemon: &Daemon<'_>, key: &str) -> Answer {
    let mut client = daemon.connect();
    client.send(&request_bytes("GET", "/", &[("x-api-key", key)], None)).unwrap();
    client.answer("GET").unwrap()
}

/// What its client may, as the answer says.
fn policy(daemon: &Daemon<'_>, key: &str) -> String {
    ask(daemon, key).header("ratelimit-policy").unwrap_or_default().to_owned()
}

#[test]
fn an_edit_of_the_keys_is_in_force_and_a_bad_one_changes_nothing_and_shows_no_key() {
    let world = World::new();
    let keys = world.path("keys");
    write_private(&keys, &format!("{KEY} gold\n"));
    let mut conf = world.conf().app(&world.app("v1"));
    for (key, value) in [
        ("by", "header:x-api-key"),
        ("keys", keys.to_str().unwrap()),
        ("anonymous", "3/1h"),
        ("gold", "1000/1m"),
        ("silver", "500/1m"),
    ] {
        conf.put(&format!("app.tiers.{key}"), value);
    }
    let daemon = world.start(&conf);
    // Asked for at the admin API: requests would count.
    daemon.wait_until("the app is live", |status| status.active_port.is_some());
    assert_eq!(policy(&daemon, KEY), "\"gold\";q=1000;w=60");
    while ask(&daemon, "unknown").status() == 200 {}
    let refused = ask(&daemon, "unknown");
    assert_eq!((refused.status(), refused.header("portok-error")), (429, Some("tier_limit")));
    assert_eq!(ask(&daemon, KEY).status(), 200, "another client");

    write_private(&keys, &format!("{KEY} silver\n"));
    wait_until(
        "the new tier holds",
        || policy(&daemon, KEY),
        || (policy(&daemon, KEY) == "\"silver\";q=500;w=60").then_some(()),
    );
    assert_eq!(daemon.status().config.error, None);

    write_private(&keys, &format!("gold {KEY}\n"));
    let status = daemon.wait_until("the bad edit is told", |status| status.config.error.is_some());
    let error = status.config.error.unwrap();
    assert_mentions(&error, &["app.tiers.keys", "the last word of line 1 is none of the tiers"]);
    assert_eq!(policy(&daemon, KEY), "\"silver\";q=500;w=60");

    write_private(&keys, &format!("# mended\n{KEY} gold\n"));
    daemon.wait_until("the mended one is loaded", |status| status.config.error.is_none());
    assert_eq!(policy(&daemon, KEY), "\"gold\";q=1000;w=60");
    assert_eq!(ask(&daemon, "unknown").status(), 429, "what was counted is not forgotten");
    let check = world.portokd(&["--config", conf.file().to_str().unwrap(), "--check"], &world.env());
    let shown = format!("{}{}{}", daemon.log(), check.out, serde_json::to_string(&daemon.status()).unwrap());
    assert!(shown.contains("header:x-api-key") && !shown.contains(KEY), "{shown}");
}
