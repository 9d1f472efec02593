//! A real browser over TLS, by HTTP/2: it asks, has a WebSocket and an event stream, and comes
//! through a deploy.
//!
//! It needs Chromium, and node with the packages of `package-lock.json`. Without them it skips
//! loudly, unless `PORTOK_REQUIRE_BROWSER=1` makes that a failure:
//!
//! ```sh
//! apt-get install --no-install-recommends chromium
//! PORTOK_REQUIRE_BROWSER=1 cargo test --test e2e real::browser
//! ```

use std::path::PathBuf;

use serde_json::{Value, json};

use super::clients::Clients;
use super::{PACKAGES, file};
use crate::harness::tls::Authority;
use crate::harness::{Daemon, World, wait_until};
use crate::listeners::free;

const CHROMIUM: &str = "/usr/bin/chromium";

/// How often each of them happens before the next step.
const ENOUGH: u64 = 5;

fn has_browser() -> bool {
    let lacking = [PathBuf::from(CHROMIUM), PathBuf::from(PACKAGES).join("playwright-core")];
    let lacking: Vec<_> = lacking.iter().filter(|path| !path.exists()).collect();
    let required = std::env::var("PORTOK_REQUIRE_BROWSER").is_ok_and(|value| value == "1");
    assert!(lacking.is_empty() || !required, "{lacking:?} are required");
    if !lacking.is_empty() {
        eprintln!("SKIPPED: no {lacking:?}");
    }
    lacking.is_empty()
}

fn command() -> String {
    format!("exec node {}", file("page-app.js"))
}

/// Waits until the page has had enough of everything from a release.
#[track_caller]
fn wait_for(browser: &Clients, daemon: &Daemon<'_>, release: &str) {
    let count = |what| browser.told()["answered"][format!("{what} {release}")].as_u64().unwrap_or(0);
    let has_all = || ["fetch", "websocket", "events"].iter().all(|what| count(what) >= ENOUGH);
    wait_until(
        &format!("{release} answers the browser"),
        || format!("{:#}\n{}", browser.told(), daemon.log()),
        || (has_all() || browser.has_failed()).then_some(()),
    );
    assert!(!browser.has_failed(), "{:#}", browser.told());
}

#[test]
fn a_browser_loses_nothing_in_a_deploy() {
    if !has_browser() {
        return;
    }
    let world = World::new();
    let authority = Authority::new();
    let [plain, encrypted] = free();
    std::fs::create_dir_all(world.path("certs")).unwrap();
    authority.issue(&["a.test"]).put(&world.path("certs"), "a");
    let conf = world
        .conf()
        .set("app.command", command())
        .set("app.env.NODE_PATH", PACKAGES)
        .set("health.path", "/")
        .set("listen", plain.to_string())
        .set("tls.listen", encrypted.to_string())
        .set("tls.cert_dir", world.path("certs").display().to_string())
        .set("access.file", world.path("access.log").display().to_string())
        .set("drain.tunnels", "500ms");
    let daemon = world.start(&conf);
    let first = daemon.wait_until("it is live", |status| status.live.is_some()).live.unwrap().release;
    let words = [
        file("browser.js"),
        CHROMIUM.to_owned(),
        world.path("browser").display().to_string(),
        encrypted.to_string(),
        "a.test".to_owned(),
        world.path("certs/a.crt").display().to_string(),
    ];
    let browser = Clients::start("node", &words);
    wait_for(&browser, &daemon, &first);
    let body = json!({ "command": command(), "release": "v2" });
    daemon.admin("POST", "/__deploy", Some(&body)).expect(200);
    wait_for(&browser, &daemon, "v2");
    daemon.wait_until_stopped(&first);
    let told = browser.finish();
    // The WebSocket was told to come back, and its end was agreed upon.
    assert_eq!(told["closed"], json!([{ "code": 1012, "wasClean": true }]), "{told:#}");
    assert_eq!(told["protocols"], json!(["h2"]), "{told:#}");
    daemon.terminate();
    let written = std::fs::read_to_string(world.path("access.log")).unwrap();
    let lines = written.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let tunnels: Vec<_> = lines.filter(|line| line["path"] == "/socket").collect();
    assert_eq!(tunnels.len(), 2, "{tunnels:#?}");
    for tunnel in tunnels {
        assert_eq!((&tunnel["proto"], &tunnel["tunnel"]), (&json!("HTTP/2.0"), &json!(true)), "{tunnel:#}");
    }
}
