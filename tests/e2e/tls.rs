//! TLS from files: who is shown what, what becomes of files that change, and what a connection over
//! TLS has in common with a plain one.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustls::version::{TLS12, TLS13};
use serde_json::Value;

use crate::harness::conf::Conf;
use crate::harness::http::request_bytes;
use crate::harness::tls::{Authority, put};
use crate::harness::wait::DEADLINE;
use crate::harness::{Daemon, Load, Manager, World, assert_mentions, wait_until};
use crate::listeners::free;

/// A folder of certificates.
fn certs(world: &World) -> PathBuf {
    let folder = world.path("certs");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Listens at a plain address and at an encrypted one.
fn conf(world: &World, plain: SocketAddr, encrypted: SocketAddr) -> Conf {
    world
        .conf()
        .app(&world.app("v1"))
        .set("listen", plain.to_string())
        .set("tls.listen", encrypted.to_string())
        .set("tls.cert_dir", certs(world).display().to_string())
}

/// The row of a certificate.
fn row(daemon: &Daemon<'_>, name: &str) -> Value {
    let rows = daemon.admin("GET", "/__certs", None).expect(200).json();
    let rows = rows.as_array().unwrap();
    rows.iter().find(|row| row["name"] == name).cloned().unwrap_or_default()
}

fn wait_for_state(daemon: &Daemon<'_>, name: &str, state: &str) -> Value {
    let explain = || format!("{:#}\n{}", row(daemon, name), daemon.log());
    wait_until(&format!("{name} is {state}"), explain, || {
        Some(row(daemon, name)).filter(|row| row["state"] == state)
    })
}

#[test]
fn each_host_is_shown_its_certificate_and_an_unknown_one_none() {
    let world = World::new();
    let authority = Authority::new();
    let [plain, encrypted] = free();
    authority.issue(&["a.test"]).put(&certs(&world), "a");
    authority.issue(&["*.wild.test"]).put(&certs(&world), "wild");
    let conf = conf(&world, plain, encrypted);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let terms = authority.terms();
    for host in ["a.test", "b.wild.test"] {
        let mut conn = terms.connect(encrypted, host).unwrap();
        assert_eq!(conn.request("GET", "/", &[("host", host)], None).unwrap().expect(200).version(), "v1");
        for (host, port) in
            [(host.to_owned(), 443), (format!("{host}:{}", encrypted.port()), encrypted.port())]
        {
            let headers = [("host", &*host), ("x-echo", "1")];
            for body in [None, Some(&b"x"[..])] {
                let method = if body.is_some() { "POST" } else { "GET" };
                let echo = conn.request(method, "/", &headers, body).unwrap().expect(200);
                let port = format!("x-forwarded-port: {port}");
                assert_mentions(&echo.text().to_ascii_lowercase(), &["x-forwarded-proto: https", &port]);
            }
        }
    }
    for host in ["b.test", "a.b.wild.test", "wild.test", "127.0.0.1"] {
        let refused = terms.refused(encrypted, host);
        assert_mentions(&refused.to_ascii_lowercase(), &["unrecogni"]);
    }

    // With a default every host is served, and the certificate says whether that is right.
    authority.issue(&["main.test"]).put(&certs(&world), "main");
    conf.clone().set("tls.default", "main").save();
    daemon.admin("POST", "/__reload", None).expect(200);
    assert_mentions(&terms.refused(encrypted, "b.test"), &["not valid for"]);
    let mut conn = terms.connect(encrypted, "main.test").unwrap();
    conn.request("GET", "/", &[("host", "whatever.test")], None).unwrap().expect(200);
    assert_eq!(row(&daemon, "main")["default"], true);
}

#[test]
fn a_request_for_a_host_that_the_certificate_is_not_for_is_misdirected() {
    let world = World::new();
    let authority = Authority::new();
    let [plain, encrypted] = free();
    authority.issue(&["a.test", "www.a.test"]).put(&certs(&world), "a");
    authority.issue(&["b.test"]).put(&certs(&world), "b");
    let daemon = world.start(&conf(&world, plain, encrypted));
    daemon.wait_until_serves("v1");
    let terms = authority.terms();
    let mut conn = terms.connect(encrypted, "a.test").unwrap();
    let port = format!("www.a.test:{}", encrypted.port());
    conn.request("GET", "/", &[("host", &port)], None).unwrap().expect(200);
    for (method, body) in [("GET", None), ("POST", Some(&b"abc"[..]))] {
        let mut conn = terms.connect(encrypted, "a.test").unwrap();
        let answer = conn.request(method, "/", &[("host", "b.test")], body).unwrap().expect(421);
        assert_eq!(answer.header("portok-error"), Some("misdirected"));
        assert!(!answer.keeps_alive(), "the client makes a connection of its own for that host");
    }
}

#[test]
fn the_oldest_version_is_the_operator_s_choice() {
    let world = World::new();
    let authority = Authority::new();
    let [plain, encrypted] = free();
    authority.issue(&["a.test"]).put(&certs(&world), "a");
    let conf = conf(&world, plain, encrypted);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let [old, new] = [authority.terms_of(&[&TLS12]), authority.terms_of(&[&TLS13])];
    for terms in [&old, &new] {
        let mut conn = terms.connect(encrypted, "a.test").unwrap();
        assert_eq!(conn.tls().alpn_protocol(), None, "the client offered none");
        conn.request("GET", "/", &[("host", "a.test")], None).unwrap().expect(200);
    }
    conf.clone().set("tls.min_version", "1.3").save();
    daemon.admin("POST", "/__reload", None).expect(200);
    assert_mentions(&old.refused(encrypted, "a.test").to_ascii_lowercase(), &["protocol", "version"]);
    new.connect(encrypted, "a.test").unwrap();
}

#[test]
fn bad_pairs_are_left_out_named_and_taken_up_once_they_are_good() {
    let world = World::new();
    let authority = Authority::new();
    let [plain, encrypted] = free();
    let folder = certs(&world);
    let good = authority.issue(&["good.test"]);
    good.put(&folder, "good");
    authority.issue(&["swapped.test"]).put(&folder, "swapped");
    put(&folder, "swapped.key", &good.key);
    put(&folder, "alone.crt", &good.certificate);
    put(&folder, "nonsense.pem", "nonsense");
    put(&folder, "nonsense.key", "secret nonsense");
    let past = SystemTime::now() - Duration::from_secs(3600);
    authority.issue_until(&["old.test"], past).put(&folder, "old");
    let daemon = world.start(&conf(&world, plain, encrypted));
    daemon.wait_until_serves("v1");
    let terms = authority.terms();
    terms.connect(encrypted, "good.test").unwrap();
    for host in ["swapped.test", "old.test"] {
        terms.refused(encrypted, host);
    }
    for (name, state, parts) in [
        ("swapped", "bad", &["swapped.key", "belongs to another certificate"][..]),
        ("alone", "bad", &["alone.key", "No such file"]),
        ("nonsense", "bad", &["nonsense.pem", "no certificate"]),
        ("old", "expired", &["it has expired at"]),
    ] {
        let row = row(&daemon, name);
        assert_eq!(row["state"], state, "{row:#}");
        assert_mentions(row["error"].as_str().unwrap(), parts);
        assert_mentions(&daemon.log(), parts);
    }
    let good = row(&daemon, "good");
    assert_eq!(good["names"], serde_json::json!(["good.test"]));
    assert!(good["days"].as_i64().unwrap() > 20_000 && good["error"].is_null(), "{good:#}");
    assert!(!daemon.log().contains("secret nonsense"));
    let table = daemon.portok(&["certs"]).ended(0);
    assert_mentions(&table.out, &["good", "serving", "good.test", "swapped: ", "old"]);

    authority.issue(&["swapped.test"]).put(&folder, "swapped");
    wait_for_state(&daemon, "swapped", "serving");
    terms.connect(encrypted, "swapped.test").unwrap();
}

#[test]
fn certificates_are_swapped_broken_and_removed_under_load() {
    let world = World::new();
    let authority = Authority::new();
    let [plain, encrypted] = free();
    let folder = certs(&world);
    authority.issue(&["a.test"]).put(&folder, "a");
    let daemon = world.start(&conf(&world, plain, encrypted));
    daemon.wait_until_serves("v1");
    let terms = authority.terms();
    let load = Load::over_tls(encrypted, "a.test", &terms);
    // A session that is taken up again has its former certificate.
    let shown = || {
        let conn = authority.terms().connect(encrypted, "a.test").unwrap();
        conn.tls().peer_certificates().unwrap()[0].to_vec()
    };
    for _ in 0..5 {
        let before = shown();
        authority.issue(&["a.test"]).put(&folder, "a");
        wait_until("the new one is shown", || daemon.log(), || (shown() != before).then_some(()));
        load.wait_for_more(30);
    }
    put(&folder, "a.key", "broken");
    wait_for_state(&daemon, "a", "kept");
    load.wait_for_more(50);
    for ending in ["key", "crt"] {
        fs::remove_file(folder.join(format!("a.{ending}"))).unwrap();
    }
    wait_until(
        "they are gone",
        || daemon.log(),
        || row(&daemon, "a")["error"].as_str().is_some_and(|error| error.contains("are gone")).then_some(()),
    );
    load.wait_for_more(50);
    authority.issue(&["a.test"]).put(&folder, "a");
    wait_for_state(&daemon, "a", "serving");
    load.wait_for_more(50);
    load.finish_without_failure();
}

#[test]
fn one_that_expires_while_it_serves_is_left_out() {
    let world = World::new();
    let authority = Authority::new();
    let [plain, encrypted] = free();
    let folder = certs(&world);
    let soon = SystemTime::now() + Duration::from_secs(8);
    authority.issue_until(&["a.test"], soon).put(&folder, "a");
    let daemon = world.start(&conf(&world, plain, encrypted));
    daemon.wait_until_serves("v1");
    let terms = authority.terms();
    let mut conn = terms.connect(encrypted, "a.test").unwrap();
    put(&folder, "a.key", "broken");
    wait_for_state(&daemon, "a", "kept");
    terms.connect(encrypted, "a.test").unwrap();
    wait_for_state(&daemon, "a", "bad");
    assert_mentions(&terms.refused(encrypted, "a.test").to_ascii_lowercase(), &["unrecogni"]);
    // A connection keeps what it was shown.
    conn.request("GET", "/", &[("host", "a.test")], None).unwrap().expect(200);
}

#[test]
fn sessions_are_taken_up_again_also_after_a_reload() {
    let world = World::new();
    let authority = Authority::new();
    let [plain, encrypted] = free();
    authority.issue(&["a.test"]).put(&certs(&world), "a");
    let conf = conf(&world, plain, encrypted);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    for version in [&TLS12, &TLS13] {
        let terms = authority.terms_of(&[version]);
        let ask = || {
            let mut conn = terms.connect(encrypted, "a.test").unwrap();
            // The tickets come with the answer.
            conn.request("GET", "/", &[("host", "a.test")], None).unwrap().expect(200);
            conn.is_resumed()
        };
        assert!(!ask(), "{version:?}");
        assert!(ask(), "{version:?}");
        authority.issue(&["a.test"]).put(&certs(&world), "a");
        conf.clone().set("proxy.max_header_size", "32KiB").save();
        daemon.admin("POST", "/__reload", None).expect(200);
        assert!(ask(), "{version:?}");
    }
}

#[test]
fn handshakes_that_never_end_are_cut_in_time_and_held_against_the_limits() {
    let world = World::new();
    let authority = Authority::new();
    let [plain, encrypted] = free();
    authority.issue(&["a.test"]).put(&certs(&world), "a");
    let conf = conf(&world, plain, encrypted)
        .set("proxy.header_timeout", "1s")
        .set("proxy.idle_timeout", "900ms")
        .set("limits.connections", 40);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    // The beginning of a hello: a record of 512 bytes, of which one comes.
    let begun = [22, 3, 1, 2, 0, 1];
    let silent: Vec<_> = (0..40)
        .map(|number| {
            let mut stream = TcpStream::connect(encrypted).unwrap();
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            if number % 2 == 0 {
                stream.write_all(&begun).unwrap();
            }
            stream
        })
        .collect();
    for mut stream in silent {
        // A reset is an end too.
        let ended = stream.read(&mut [0; 16]);
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    let mut conn = authority.terms().connect(encrypted, "a.test").unwrap();
    conn.request("GET", "/", &[("host", "a.test")], None).unwrap().expect(200);
}

#[test]
fn a_tunnel_and_large_bodies_pass_over_tls() {
    let world = World::new();
    let authority = Authority::new();
    let [plain, encrypted] = free();
    authority.issue(&["a.test"]).put(&certs(&world), "a");
    let daemon = world.start(&conf(&world, plain, encrypted));
    daemon.wait_until_serves("v1");
    let terms = authority.terms();
    let host = ("host", "a.test");
    let mut conn = terms.connect(encrypted, "a.test").unwrap();
    let large = conn.request("GET", "/large/5000000", &[host], None).unwrap().expect(200);
    assert_eq!(large.body.len(), 5_000_000);
    let sent = conn.request("POST", "/", &[host], Some(&vec![b'y'; 3_000_000])).unwrap().expect(200);
    assert!(sent.text().starts_with("v1 3000000 "), "{}", sent.text());
    let mut bytes =
        request_bytes("GET", "/ws", &[host, ("connection", "Upgrade"), ("upgrade", "websocket")], None);
    bytes.extend(b"early\n");
    conn.send(&bytes).unwrap();
    assert_eq!(conn.answer("GET").unwrap().status(), 101);
    assert_eq!((conn.line().unwrap(), conn.line().unwrap()), ("v1".to_owned(), "early".to_owned()));
    conn.send(b"late\n").unwrap();
    assert_eq!(conn.line().unwrap(), "late");
    conn.finish_sending().unwrap();
    // An end without close_notify would be an error.
    assert_eq!(conn.rest().unwrap(), b"bye\n");
}

#[test]
fn deploys_and_an_upgrade_under_load_over_tls_lose_no_request() {
    let world = World::new();
    let manager = Manager::new(&world);
    let authority = Authority::new();
    let [plain, encrypted] = free();
    authority.issue(&["a.test"]).put(&certs(&world), "a");
    let conf = conf(&world, plain, encrypted).set("drain.period", "300ms");
    let mut daemon = world.start_managed(&conf, &manager);
    daemon.wait_until_serves("v1");
    let load = Load::over_tls(encrypted, "a.test", &authority.terms());
    for number in 2..8 {
        daemon.deploy(&world.app(&format!("v{number}"))).expect(200);
        load.wait_for_more(20);
    }
    for _ in 0..2 {
        daemon.upgrade();
        load.wait_for_more(50);
    }
    load.finish_without_failure();
}

#[test]
fn plain_requests_for_hosts_with_a_certificate_are_sent_to_where_it_is() {
    let world = World::new();
    let authority = Authority::new();
    let [plain, encrypted] = free();
    authority.issue(&["a.test"]).put(&certs(&world), "a");
    let conf = conf(&world, plain, encrypted)
        .set("proxy.ping", "/__ping")
        .set("proxy.trusted", Vec::<String>::new());
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let ask = |method: &str, path: &str, headers: &[(&str, &str)]| {
        let mut conn = daemon.connect();
        let body = (method == "POST").then_some(&b"abc"[..]);
        conn.request(method, path, headers, body).unwrap()
    };
    let https = |host: &str, path: &str| format!("https://{host}:{}{path}", encrypted.port());
    for method in ["GET", "HEAD", "POST"] {
        let answer = ask(method, "/x?y=%20", &[("host", "A.test:80")]).expect(308);
        assert_eq!(answer.header("location"), Some(&*https("a.test", "/x?y=%20")), "{method}");
    }
    // No certificate, no redirect; and never for portok's own.
    ask("GET", "/", &[("host", "b.test")]).expect(200);
    ask("GET", "/__ping", &[("host", "a.test")]).expect(200);
    // Nobody's word but a trusted peer's.
    ask("GET", "/", &[("host", "a.test"), ("x-forwarded-proto", "https")]).expect(308);
    conf.clone().set("proxy.trusted", vec!["127.0.0.1"]).set("tls.redirect", 301).save();
    daemon.admin("POST", "/__reload", None).expect(200);
    ask("GET", "/", &[("host", "a.test"), ("x-forwarded-proto", "https")]).expect(200);
    ask("GET", "/", &[("host", "a.test"), ("x-forwarded-proto", "http")]).expect(301);
    conf.clone().set("tls.redirect", false).save();
    daemon.admin("POST", "/__reload", None).expect(200);
    ask("GET", "/", &[("host", "a.test")]).expect(200);
}

#[test]
fn browsers_are_told_to_stay_with_tls_over_tls_alone() {
    let world = World::new();
    let authority = Authority::new();
    let [plain, encrypted] = free();
    authority.issue(&["a.test"]).put(&certs(&world), "a");
    let hsts = "max-age=31536000; includeSubDomains";
    let conf = conf(&world, plain, encrypted).set("tls.hsts", hsts).set("tls.redirect", false);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let mut conn = authority.terms().connect(encrypted, "a.test").unwrap();
    for (method, path, body) in
        [("GET", "/", None), ("GET", "/large/300000", None), ("POST", "/", Some(&b"x"[..]))]
    {
        let answer = conn.request(method, path, &[("host", "a.test")], body).unwrap().expect(200);
        assert_eq!(answer.header("strict-transport-security"), Some(hsts), "{method} {path}");
    }
    let plain = daemon.connect().request("GET", "/", &[("host", "a.test")], None).unwrap().expect(200);
    assert_eq!(plain.header("strict-transport-security"), None);
}

#[test]
fn curl_gets_an_answer() {
    let world = World::new();
    let authority = Authority::new();
    let [plain, encrypted] = free();
    authority.issue(&["a.test"]).put(&certs(&world), "a");
    let daemon = world.start(&conf(&world, plain, encrypted));
    daemon.wait_until_serves("v1");
    let roots = authority.save(&world.path(""));
    let (host, port) = (encrypted.ip(), encrypted.port());
    let asked = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "30", "--cacert"])
        .arg(roots)
        .arg("--resolve")
        .arg(format!("a.test:{port}:{host}"))
        .arg(format!("https://a.test:{port}/"))
        .output();
    let Ok(asked) = asked else {
        eprintln!("SKIPPED: there is no curl");
        return;
    };
    assert_eq!(String::from_utf8_lossy(&asked.stdout), "v1\n", "{}", String::from_utf8_lossy(&asked.stderr));
}
