//! Real clients of HTTP/2 over TLS: node's, through deploys, and curl.

use std::io::BufRead as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::{file, has};
use crate::harness::tls::Authority;
use crate::harness::{Manager, World, wait_until};
use crate::listeners::free;

/// Node's clients, and the last line that they have printed.
struct Clients {
    child: Child,
    last: Arc<Mutex<Value>>,
}

impl Clients {
    fn start(words: &[String]) -> Self {
        let mut command = Command::new("node");
        command.arg(file("over-http2.js")).args(words);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (last, lines) = (Arc::<Mutex<Value>>::default(), child.stdout.take().unwrap());
        let shared = Arc::clone(&last);
        std::thread::spawn(move || {
            for line in std::io::BufReader::new(lines).lines().map_while(Result::ok) {
                *shared.lock().unwrap() = serde_json::from_str(&line).unwrap();
            }
        });
        Self { child, last }
    }

    fn told(&self) -> Value {
        self.last.lock().unwrap().clone()
    }

    /// Waits until `more` further requests are answered. None may have failed.
    fn wait_for_more(&self, more: u64) {
        let answered = |told: &Value| told["answered"].as_u64().unwrap_or(0);
        let from = answered(&self.told());
        wait_until(
            "more requests are answered",
            || format!("{:#}", self.told()),
            || {
                let told = self.told();
                let failed = told["failed"].as_array().map_or(0, Vec::len);
                (answered(&told) >= from + more || failed > 0).then_some(())
            },
        );
        assert!(self.told()["failed"].as_array().is_some_and(Vec::is_empty), "{:#}", self.told());
    }

    /// Lets them come to an end.
    fn finish(mut self) -> Value {
        drop(self.child.stdin.take());
        wait_until(
            "the clients end",
            || format!("{:#}", self.told()),
            || (self.told()["ended"] == true).then_some(()),
        );
        self.child.wait().unwrap();
        self.told()
    }
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
    let clients = Clients::start(&[
        encrypted.to_string(),
        "a.test".to_owned(),
        roots.display().to_string(),
        "20".to_owned(),
    ]);
    clients.wait_for_more(100);
    for version in ["v2", "v3", "v4"] {
        daemon.deploy(&world.app(version)).expect(200);
        clients.wait_for_more(100);
    }
    daemon.admin("POST", "/__rollback", None).expect(200);
    clients.wait_for_more(100);
    // Their connections end with the daemon, and they are told before.
    daemon.upgrade();
    clients.wait_for_more(200);
    let told = clients.finish();
    assert_eq!(told["failed"].as_array().map(Vec::len), Some(0), "{told:#}");
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
