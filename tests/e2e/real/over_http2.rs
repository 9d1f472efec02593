//! Real clients of HTTP/2 over TLS: node's, through deploys, and curl.

use std::process::Command;

use serde_json::Value;

use super::clients::Clients;
use super::{file, has};
use crate::harness::tls::Authority;
use crate::harness::{Manager, World, wait_until};
use crate::listeners::free;

/// Waits until `more` further requests are answered. None may have failed.
fn wait_for_more(clients: &Clients, more: u64) {
    let answered = |told: &Value| told["answered"].as_u64().unwrap_or(0);
    let from = answered(&clients.told());
    wait_until(
        "more requests are answered",
        || format!("{:#}", clients.told()),
        || (answered(&clients.told()) >= from + more || clients.has_failed()).then_some(()),
    );
    assert!(!clients.has_failed(), "{:#}", clients.told());
}

#[test]
fn node_s_clients_lose_nothing_in_deploys_and_an_upgrade_and_curl_speaks_it() {
    if !has("node") || !has("curl") {
        return;
    }
    let world = World::new();
    let authority = Authority::new();
    let [plain, encrypted] = free();
    let certificates = world.path("certs");
    std::fs::create_dir_all(&certificates).unwrap();
    authority.issue(&["a.test"]).put(&certificates, "a");
    let conf = world
        .conf()
        .app(&world.app("v1"))
        .set("listen", plain.to_string())
        .set("tls.listen", encrypted.to_string())
        .set("tls.cert_dir", certificates.display().to_string())
        .set("limits.requests_per_address", 10_000)
        .set("drain.period", "300ms");
    let manager = Manager::new(&world);
    let mut daemon = world.start_managed(&conf, &manager);
    daemon.wait_until_serves("v1");
    let roots = authority.save(&world.path(""));
    let port = encrypted.port().to_string();
    let [address, roots_path] = [encrypted.to_string(), roots.display().to_string()];
    let clients = Clients::start(
        "node",
        &[file("over-http2.js"), address, "a.test".to_owned(), roots_path, "20".to_owned()],
    );
    wait_for_more(&clients, 100);
    for version in ["v2", "v3", "v4"] {
        daemon.deploy(&world.app(version)).expect(200);
        wait_for_more(&clients, 100);
    }
    daemon.admin("POST", "/__rollback", None).expect(200);
    wait_for_more(&clients, 100);
    // Their connections end with the daemon, and they are told before.
    daemon.upgrade();
    wait_for_more(&clients, 200);
    let told = clients.finish();
    assert_eq!(told["versions"].as_object().map(serde_json::Map::len), Some(4), "{told:#}");

    let curl = |url: &str, words: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "30", "--write-out", "%{http_version}"]);
        command.arg("--cacert").arg(&roots).args(["--resolve", &format!("a.test:{port}:{}", encrypted.ip())]);
        let asked = command.args(words).arg(url).output().unwrap();
        String::from_utf8_lossy(&asked.stdout).into_owned() + &String::from_utf8_lossy(&asked.stderr)
    };
    let url = format!("https://a.test:{port}/");
    assert_eq!(curl(&url, &[]), "v3\n2");
    assert_eq!(curl(&url, &["--http1.1"]), "v3\n1.1");
    let known = ["--http2-prior-knowledge", "--header", "host: b.test"];
    assert_eq!(curl(&format!("http://{plain}/"), &known), "v3\n2");
}
