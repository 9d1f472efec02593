//! Certificates that come by themselves, from a real ACME server (Debian: `pebble`) that runs here.
//!
//! Without it a test skips loudly, unless `PORTOK_REQUIRE_APPS=1` makes that a failure.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use self::front::{Front, Says};
use crate::harness::conf::Conf;
use crate::harness::tls::{Authority, Terms};
use crate::harness::{Conn, Daemon, Load, World, assert_mentions, wait_until};
use crate::listeners::port;

mod front;

/// A server, and one that tells it where every host is: here.
struct Pebble {
    children: Vec<Child>,
    directory: String,
    management: SocketAddr,
    /// Who vouches for the server itself.
    authority: Authority,
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// Where portok listens: the server asks for both proofs at one address.
fn addresses() -> [SocketAddr; 2] {
    [port(), port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
}

impl Pebble {
    /// Starts it; `None`: it is not here. It asks for proofs at the ports of these addresses.
    /// `change` changes what it is configured with.
    fn start(
        world: &World,
        [plain, encrypted]: [SocketAddr; 2],
        change: impl FnOnce(&mut Value),
    ) -> Option<Self> {
        let is_here =
            |program: &str| Command::new("which").arg(program).output().is_ok_and(|o| o.status.success());
        if !is_here("pebble") || !is_here("pebble-challtestsrv") {
            assert!(std::env::var("PORTOK_REQUIRE_APPS").is_err(), "pebble is required");
            eprintln!("SKIPPED: no pebble");
            return None;
        }
        let authority = Authority::new();
        let folder = world.path("pebble");
        fs::create_dir_all(&folder).unwrap();
        authority.issue(&["localhost"]).put(&folder, "pebble");
        let [names, names_management, listen, management] = [port(), port(), port(), port()];
        let mut config = json!({
            "listenAddress": format!("127.0.0.1:{listen}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": folder.join("pebble.crt"),
            "privateKey": folder.join("pebble.key"),
            "httpPort": plain.port(),
            "tlsPort": encrypted.port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        });
        change(&mut config);
        let file = folder.join("pebble.json");
        fs::write(&file, json!({ "pebble": config }).to_string()).unwrap();
        let log = |name: &str| fs::File::create(folder.join(name)).unwrap();
        let resolver = Command::new("pebble-challtestsrv")
            .args([
                "-dns01",
                &format!("127.0.0.1:{names}"),
                "-management",
                &format!("127.0.0.1:{names_management}"),
            ])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""])
            .args(["-defaultIPv4", &plain.ip().to_string()])
            .stdin(Stdio::null())
            .stdout(log("names.log"))
            .stderr(log("names.err"))
            .spawn()
            .unwrap();
        let server = Command::new("pebble")
            .arg("-config")
            .arg(&file)
            .args(["-dnsserver", &format!("127.0.0.1:{names}")])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "5")
            .stdin(Stdio::null())
            .stdout(log("pebble.log"))
            .stderr(log("pebble.err"))
            .spawn()
            .unwrap();
        let pebble = Self {
            children: vec![resolver, server],
            directory: format!("https://localhost:{listen}/dir"),
            management: SocketAddr::from(([127, 0, 0, 1], management)),
            authority,
        };
        wait_until(
            "pebble listens",
            || fs::read_to_string(folder.join("pebble.log")).unwrap_or_default(),
            || std::net::TcpStream::connect(pebble.management).is_ok().then_some(()),
        );
        Some(pebble)
    }

    /// How a client trusts the certificates that it issues.
    fn terms(&self) -> Terms {
        let mut conn = self.authority.terms().connect(self.management, "localhost").unwrap();
        let root = conn.request("GET", "/roots/0", &[("host", "localhost")], None).unwrap().expect(200);
        Terms::trusting(root.text().as_bytes())
    }

    /// Listens at these addresses, and gets certificates from it.
    fn conf(&self, world: &World, [plain, encrypted]: [SocketAddr; 2]) -> Conf {
        let root = self.authority.save(&world.path(""));
        world
            .conf()
            .app(&world.app("v1"))
            .set("listen", plain.to_string())
            .set("tls.listen", encrypted.to_string())
            .set("tls.acme.email", "ops@example.com")
            .set("tls.acme.directory", self.directory.clone())
            .set("tls.acme.ca_file", root.display().to_string())
            .set("tls.acme.hosts", toml::Value::from(vec!["a.test"]))
    }
}

fn row(daemon: &Daemon<'_>, host: &str) -> Value {
    let rows = daemon.admin("GET", "/__certs", None).expect(200).json();
    rows.as_array().unwrap().iter().find(|row| row["name"] == host).cloned().unwrap_or_default()
}

#[track_caller]
fn wait_for_certificate(daemon: &Daemon<'_>, host: &str) -> Value {
    let explain = || format!("{:#}\n{}", row(daemon, host), daemon.log());
    wait_until(&format!("{host} has one"), explain, || {
        Some(row(daemon, host)).filter(|row| row["state"] == "serving")
    })
}

fn get(terms: &Terms, addr: SocketAddr, host: &str) -> String {
    let mut conn = terms.connect(addr, host).unwrap();
    conn.request("GET", "/", &[("host", host)], None).unwrap().expect(200).version().to_owned()
}

#[test]
fn certificates_come_by_either_challenge_and_are_not_ordered_twice() {
    for challenge in ["tls-alpn-01", "http-01"] {
        let world = World::new();
        let addresses = addresses();
        let Some(pebble) = Pebble::start(&world, addresses, |_| ()) else { return };
        let conf = pebble.conf(&world, addresses).set("tls.acme.challenge", challenge);
        let daemon = world.start(&conf);
        daemon.wait_until_serves("v1");
        let row = wait_for_certificate(&daemon, "a.test");
        assert_eq!(row["source"], "acme", "{row:#}");
        assert!(row["renewAt"].is_string() && row["error"].is_null(), "{row:#}");
        let terms = pebble.terms();
        assert_eq!(get(&terms, addresses[1], "a.test"), "v1");
        // What was a proof is an ordinary request again.
        let path = "/.well-known/acme-challenge/x";
        let mut conn = Conn::tcp(addresses[0]).unwrap();
        conn.request("GET", path, &[("host", "b.test")], None).unwrap().expect(200);
        let folder = world.state_file().with_extension("acme");
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        for file in fs::read_dir(&folder).unwrap() {
            assert_eq!(mode(&file.unwrap().path()), 0o600);
        }
        daemon.terminate();
        let daemon = world.start(&conf);
        daemon.wait_until_serves("v1");
        assert_eq!(wait_for_certificate(&daemon, "a.test")["notAfter"], row["notAfter"]);
        assert_eq!(get(&terms, addresses[1], "a.test"), "v1");
        let record: Value = serde_json::from_slice(&fs::read(folder.join("acme.json")).unwrap()).unwrap();
        assert_eq!(record["orders"].as_array().map(Vec::len), Some(1), "nothing was ordered again");
        assert!(!daemon.log().contains("PRIVATE"));
        daemon.terminate();
    }
}

#[test]
fn short_lived_ones_are_renewed_under_load_and_hosts_come_and_go() {
    let world = World::new();
    let addresses = addresses();
    let with_eab = |config: &mut Value| {
        config["certificateValidityPeriod"] = json!(12);
        config["externalAccountBindingRequired"] = json!(true);
        config["externalAccountMACKeys"] =
            json!({ "kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W" });
    };
    let Some(pebble) = Pebble::start(&world, addresses, with_eab) else { return };
    let key = world.path("eab.key");
    fs::write(&key, "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let mut conf = pebble
        .conf(&world, addresses)
        .set("tls.acme.eab.id", "kid-1")
        .set("tls.acme.eab.key_file", key.display().to_string());
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let first = wait_for_certificate(&daemon, "a.test");
    let load = Load::over_tls(addresses[1], "a.test", &pebble.terms());
    wait_until(
        "it is renewed",
        || format!("{:#}\n{}", row(&daemon, "a.test"), daemon.log()),
        || {
            let row = row(&daemon, "a.test");
            (row["notAfter"].is_string() && row["notAfter"] != first["notAfter"]).then_some(())
        },
    );
    load.wait_for_more(20);
    conf.put("tls.acme.hosts", toml::Value::from(vec!["a.test", "b.test"]));
    conf.save();
    daemon.admin("POST", "/__reload", None).expect(200);
    wait_for_certificate(&daemon, "b.test");
    load.wait_for_more(20);
    load.finish_without_failure();
    conf.put("tls.acme.hosts", toml::Value::from(vec!["b.test"]));
    conf.save();
    daemon.admin("POST", "/__reload", None).expect(200);
    assert_eq!(row(&daemon, "a.test"), Value::Null);
    let log = daemon.log();
    assert!(!log.contains("zWNDZM6e"), "the key is a secret: {log}");
}

#[test]
fn a_server_that_is_away_or_refuses_is_shown_and_tried_again_later() {
    let world = World::new();
    let addresses = addresses();
    let refusing = |config: &mut Value| config["domainBlocklist"] = json!(["blocked.test"]);
    let Some(pebble) = Pebble::start(&world, addresses, refusing) else { return };
    let mut conf = pebble.conf(&world, addresses);
    conf.put("tls.acme.directory", format!("https://localhost:{}/dir", port()));
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let wait_for_error = |host: &str, said: &str| {
        wait_until(
            &format!("{host} has a problem"),
            || format!("{:#}\n{}", row(&daemon, host), daemon.log()),
            || row(&daemon, host)["error"].as_str().filter(|error| error.contains(said)).map(str::to_owned),
        );
    };
    wait_for_error("a.test", "onnect");
    assert_eq!(row(&daemon, "a.test")["state"], "ordered");
    assert_mentions(&daemon.log(), &["no certificate has come", "it is tried again in 1m"]);
    assert_mentions(&daemon.portok(&["certs"]).ended(0).out, &["a.test", "ordered"]);

    // Another server is asked at once.
    let hosts = ["blocked.test", "a.test"];
    conf.put("tls.acme.directory", pebble.directory.clone());
    conf.put("tls.acme.hosts", toml::Value::from(hosts.to_vec()));
    conf.save();
    daemon.admin("POST", "/__reload", None).expect(200);
    wait_for_certificate(&daemon, "a.test");
    wait_for_error("blocked.test", "blocked.test");
    assert_eq!(get(&pebble.terms(), addresses[1], "a.test"), "v1");
}

#[test]
fn a_server_says_when_to_renew() {
    let world = World::new();
    let addresses = addresses();
    let Some(pebble) = Pebble::start(&world, addresses, |_| ()) else { return };
    let front = Front::start(&pebble, Says::RenewalInformation);
    let conf = pebble.conf(&world, addresses).set("tls.acme.directory", front.directory.clone());
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let explain = || format!("{:#}\n{}", row(&daemon, "a.test"), daemon.log());
    let suggests =
        || row(&daemon, "a.test")["renewAt"].as_str().filter(|at| at.starts_with("2020-01-01")).map(drop);
    wait_until("its moment is known", explain, suggests);
    // That has passed. The order names the certificate that it renews (RFC 9773, 5), which this server
    // does not confirm: it is tried again without that a minute later.
    let record = world.state_file().with_extension("acme").join("acme.json");
    let orders = || {
        let record: Value =
            serde_json::from_slice(&fs::read(&record).unwrap_or_default()).unwrap_or_default();
        record["orders"].as_array().map_or(0, Vec::len)
    };
    wait_until("it is renewed", explain, || (orders() == 2).then_some(()));
    assert_eq!(front.asked("/renewal/"), 1, "once a day");
    assert_eq!(get(&pebble.terms(), addresses[1], "a.test"), "v1");
}

#[test]
fn a_server_that_says_no_more_or_nothing_holds_nobody_up() {
    let world = World::new();
    let addresses = addresses();
    let Some(pebble) = Pebble::start(&world, addresses, |_| ()) else { return };
    let too_many = Front::start(&pebble, Says::TooMany);
    let mut conf = pebble.conf(&world, addresses).set("tls.acme.directory", too_many.directory.clone());
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let explain = || format!("{:#}\n{}", row(&daemon, "a.test"), daemon.log());
    wait_until("the server's words are shown", explain, || {
        let row = row(&daemon, "a.test");
        row["error"].as_str().filter(|error| error.contains("too many certificates this week")).map(drop)
    });
    let log = daemon.log();
    assert!(["again in 1h", "again in 59m 59s"].iter().any(|wait| log.contains(wait)), "{log}");
    let speaks = world.path("speaks");
    let silent = Front::start(&pebble, Says::NothingBefore(speaks.clone()));
    conf.put("tls.acme.directory", silent.directory.clone());
    conf.save();
    daemon.admin("POST", "/__reload", None).expect(200);
    wait_until("the silent one is asked", explain, || (silent.asked("/dir") > 0).then_some(()));
    daemon.get("/").expect(200);
    assert_eq!(row(&daemon, "a.test")["state"], "ordered");
    world.touch("speaks");
    wait_for_certificate(&daemon, "a.test");
    daemon.terminate();
}
