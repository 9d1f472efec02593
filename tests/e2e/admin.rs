//! Who may do what over the admin API, and in which order refusals come.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use crate::harness::conf::Conf;
use crate::harness::daemon::TOKEN;
use crate::harness::{Answer, Conn, Daemon, World, assert_at, wait_until};

const RIGHT: (&str, &str) = ("x-admin-token", TOKEN);
const WRONG: (&str, &str) = ("x-admin-token", "guess");

fn ask(addr: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    Conn::tcp(addr).and_then(|mut conn| conn.request(method, path, headers, None)).unwrap()
}

/// Whether this host has IPv6 on loopback.
fn has_ipv6() -> bool {
    let has = TcpListener::bind("[::1]:0").is_ok();
    if !has {
        eprintln!("SKIPPED: no IPv6 on this host");
    }
    has
}

fn started<'w>(world: &'w World, conf: &Conf) -> Daemon<'w> {
    let daemon = world.start(conf);
    daemon.wait_until_serves("v1");
    daemon
}

#[test]
fn a_peer_that_is_not_allowed_learns_nothing() {
    let world = World::new();
    let app = world.app("v1");
    let daemon = world
        .start(&world.conf().app(&app).set("admin.allow", vec!["10.0.0.0/8"]).set("admin.rate_limit", 2));
    daemon.wait_until_serves("v1");
    for (method, path, headers) in [
        ("GET", "/__status", &[RIGHT][..]),
        ("GET", "/__status", &[]),
        ("GET", "/__nothing", &[RIGHT]),
        ("PUT", "/__status", &[RIGHT]),
        ("POST", "/__switch?port=x", &[RIGHT]),
        ("GET", "/__status", &[RIGHT, ("x-forwarded-for", "10.1.2.3")]),
    ] {
        ask(daemon.addr, method, path, headers).refused(403, "forbidden");
    }
    assert_eq!(daemon.get("/").version(), "v1", "the app's own paths are nobody's secret");
}

#[test]
fn a_request_that_came_through_another_proxy_is_refused() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let daemon = started(&world, &conf);
    for header in [("x-forwarded-for", "127.0.0.1"), ("forwarded", "for=127.0.0.1"), ("X-Forwarded-For", "")]
    {
        ask(daemon.addr, "GET", "/__status", &[RIGHT, header]).refused(403, "forbidden");
    }
    ask(daemon.addr, "GET", "/__status", &[RIGHT]).expect(200);
    conf.set("admin.allow_forwarded", true).save();
    daemon.admin("POST", "/__reload", None).expect(200);
    ask(daemon.addr, "GET", "/__status", &[RIGHT, ("x-forwarded-for", "127.0.0.1")]).expect(200);
}

#[test]
fn refusals_come_in_the_order_of_the_contract() {
    let world = World::new();
    let daemon = started(&world, &world.conf().app(&world.app("v1")));
    let ask = |method, path, headers: &[_]| ask(daemon.addr, method, path, headers);
    // 401 before 404, 405 and 400.
    for (method, path) in
        [("GET", "/__nothing"), ("PUT", "/__status"), ("POST", "/__switch?port=x"), ("GET", "/__status")]
    {
        ask(method, path, &[]).refused(401, "unauthorized");
        ask(method, path, &[WRONG]).refused(401, "unauthorized");
    }
    // 404 before 405, 405 before 400.
    ask("PUT", "/__nothing", &[RIGHT]).refused(404, "not_found");
    let answer = ask("GET", "/__switch?port=x", &[RIGHT]);
    answer.refused(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), Some("POST"));
    ask("POST", "/__switch?port=x", &[RIGHT]).refused(400, "bad_request");
    let answer = ask("DELETE", "/__status", &[RIGHT]);
    answer.refused(405, "method_not_allowed");
    assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")), "{:?}", answer.head);
    // 400 before 409.
    let other = world.app("other").start_unmanaged();
    let candidate = world.app("v2").flag("health_hang");
    daemon.deploy_detached(&candidate);
    candidate.wait_for(1, "start ");
    ask("POST", "/__switch?port=x", &[RIGHT]).refused(400, "bad_request");
    ask("POST", &format!("/__switch?port={}", other.port), &[RIGHT]).refused(409, "busy");
    daemon.admin("POST", "/__cancel", None).expect(200);
    daemon.wait_until_stopped("v2");
}

#[test]
fn a_page_of_another_site_steers_nothing() {
    let world = World::new();
    let daemon = started(&world, &world.conf().app(&world.app("v1")).set("admin.hosts", vec!["ops.example"]));
    let over_socket = |method: &str, path: &str, headers: &[(&str, &str)]| {
        Conn::unix(&world.socket()).and_then(|mut conn| conn.request(method, path, headers, None)).unwrap()
    };
    for headers in [
        &[("origin", "https://evil.example")][..],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
    ] {
        over_socket("POST", "/__reload", headers).refused(403, "forbidden");
        ask(daemon.addr, "POST", "/__reload", &[&[RIGHT], headers].concat()).refused(403, "forbidden");
    }
    // A name that points at this host: the request says it is of the same origin.
    for (name, status) in [("evil.example", 403), ("ops.example", 200), ("127.0.0.1", 200)] {
        let request = format!("GET /__status HTTP/1.1\r\nHost: {name}\r\n{}: {}\r\n\r\n", RIGHT.0, RIGHT.1);
        for mut conn in [Conn::tcp(daemon.addr).unwrap(), Conn::unix(&world.socket()).unwrap()] {
            conn.send(request.as_bytes()).unwrap();
            conn.answer("GET").unwrap().expect(status);
        }
    }
}

#[test]
fn who_has_the_token_is_not_kept_out_by_who_has_not() {
    let world = World::new();
    let daemon = started(&world, &world.conf().app(&world.app("v1")).set("admin.rate_limit", 3));
    for _ in 0..3 {
        ask(daemon.addr, "GET", "/__status", &[WRONG]).refused(401, "unauthorized");
    }
    for headers in [&[WRONG][..], &[]] {
        ask(daemon.addr, "GET", "/__status", headers).refused(429, "rate_limited");
    }
    for _ in 0..3 {
        ask(daemon.addr, "GET", "/__status", &[RIGHT]).expect(200);
    }
    for headers in [&[RIGHT][..], &[WRONG]] {
        let answer = ask(daemon.addr, "GET", "/__status", headers);
        answer.refused(429, "rate_limited");
        let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&seconds));
    }
    ask(daemon.addr, "GET", "/__nothing", &[RIGHT]).refused(429, "rate_limited");
    // Neither the socket nor the app is limited.
    for _ in 0..20 {
        daemon.admin("GET", "/__status", None).expect(200);
        daemon.get("/").expect(200);
    }
}

#[test]
fn another_address_has_a_limit_of_its_own() {
    let world = World::new();
    let conf =
        world.conf().app(&world.app("v1")).set("admin.rate_limit", 2).set("admin.allow", vec!["127.0.0.0/8"]);
    let daemon = started(&world, &conf);
    for _ in 0..2 {
        ask(daemon.addr, "GET", "/__status", &[RIGHT]).expect(200);
    }
    ask(daemon.addr, "GET", "/__status", &[RIGHT]).refused(429, "rate_limited");
    let from = SocketAddr::from(([127, 0, 0, 77], 0));
    let mut conn = connect_from(from, daemon.addr);
    conn.request("GET", "/__status", &[RIGHT], None).unwrap().expect(200);
}

fn connect_from(from: SocketAddr, to: SocketAddr) -> Conn {
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None).unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    Conn::from_tcp(socket.into()).unwrap()
}

#[test]
fn both_ways_to_carry_the_token_work() {
    let world = World::new();
    let daemon = started(&world, &world.conf().app(&world.app("v1")));
    let bearer = format!("Bearer {TOKEN}");
    ask(daemon.addr, "GET", "/__status", &[("authorization", &bearer)]).expect(200);
    ask(daemon.addr, "GET", "/__status", &[RIGHT]).expect(200);
    for wrong in [format!("Basic {TOKEN}"), TOKEN.to_owned(), format!("Bearer {TOKEN}x"), "Bearer".to_owned()]
    {
        ask(daemon.addr, "GET", "/__status", &[("authorization", &wrong)]).refused(401, "unauthorized");
    }
    ask(daemon.addr, "GET", &format!("/__status?token={TOKEN}"), &[]).refused(401, "unauthorized");
}

#[test]
fn without_a_token_nobody_gets_in_over_tcp() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let text = conf.text().replace(&format!("token = \"{TOKEN}\""), "");
    conf.save_text(&text);
    let daemon = world.start_saved(&conf);
    daemon.wait_until_serves("v1");
    for headers in [&[][..], &[WRONG], &[("x-admin-token", "")], &[("authorization", "Bearer ")]] {
        ask(daemon.addr, "GET", "/__status", headers).refused(403, "forbidden");
    }
    daemon.admin("GET", "/__status", None).expect(200);
}

#[test]
fn the_socket_needs_no_token_and_only_its_owner_reaches_it() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let daemon = started(&world, &world.conf().app(&world.app("v1")));
    daemon.admin("GET", "/__status", None).expect(200);
    daemon.admin("GET", "/__nothing", None).refused(404, "not_found");
    daemon.admin("PUT", "/__status", None).refused(405, "method_not_allowed");
    daemon.admin("POST", "/__switch", None).refused(400, "bad_request");
    let mode = std::fs::metadata(world.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o007, 0, "others have no business there: {mode:o}");
}

#[test]
fn ipv6_peers_are_told_apart() {
    if !has_ipv6() {
        return;
    }
    let world = World::new();
    let conf = world.conf().app(&world.app("v1")).set("listen", "[::1]:0");
    let daemon = started(&world, &conf.clone().set("admin.allow", vec!["::1"]));
    ask(daemon.addr, "GET", "/__status", &[RIGHT]).expect(200);
    ask(daemon.addr, "GET", "/__status", &[]).refused(401, "unauthorized");
    conf.set("admin.allow", vec!["127.0.0.1"]).save();
    daemon.admin("POST", "/__reload", None).expect(200);
    ask(daemon.addr, "GET", "/__status", &[RIGHT]).refused(403, "forbidden");
}

#[test]
fn a_mapped_address_counts_as_ipv4() {
    if !has_ipv6() {
        return;
    }
    let world = World::new();
    let conf = world.conf().app(&world.app("v1")).set("listen", "[::]:0").set("admin.rate_limit", 3);
    let daemon = world.start(&conf.clone().set("admin.allow", vec!["127.0.0.1"]));
    daemon.wait_until("it serves", |status| status.active_port.is_some());
    let v4 = SocketAddr::from(([127, 0, 0, 1], daemon.addr.port()));
    let v6: SocketAddr = format!("[::1]:{}", daemon.addr.port()).parse().unwrap();
    ask(v4, "GET", "/__status", &[RIGHT]).expect(200);
    ask(v4, "GET", "/__status", &[RIGHT, ("x-forwarded-for", "1.2.3.4")]).refused(403, "forbidden");
    ask(v6, "GET", "/__status", &[RIGHT]).refused(403, "forbidden");
    let echo = Conn::tcp(v4).unwrap().request("GET", "/", &[("x-echo", "head")], None).unwrap().text();
    assert!(echo.to_ascii_lowercase().contains("x-forwarded-for: 127.0.0.1\r\n"), "{echo}");
}

/// An address of this host that is not loopback.
fn outer_address() -> Option<IpAddr> {
    // Nothing is sent: connecting a datagram socket only chooses the source address.
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[test]
fn what_changes_something_is_for_loopback_peers_unless_allowed() {
    let Some(outer) = outer_address() else {
        eprintln!("SKIPPED: this host has only loopback addresses");
        return;
    };
    let world = World::new();
    let conf =
        world.conf().app(&world.app("v1")).set("listen", "0.0.0.0:0").set("admin.allow", vec!["0.0.0.0/0"]);
    let daemon = world.start(&conf);
    daemon.wait_until("it serves", |status| status.active_port.is_some());
    let addr = SocketAddr::new(outer, daemon.addr.port());
    ask(addr, "GET", "/__status", &[RIGHT]).expect(200);
    for path in ["/__deploy", "/__rollback", "/__reload", "/__cancel", "/__nothing", "/__status"] {
        ask(addr, "POST", path, &[RIGHT]).refused(403, "forbidden");
        ask(addr, "POST", path, &[WRONG]).refused(401, "unauthorized");
    }
    ask(addr, "GET", "/__deploy", &[RIGHT]).refused(405, "method_not_allowed");
    ask(addr, "POST", "/__switch?port=x", &[RIGHT]).refused(400, "bad_request");
    let loopback = SocketAddr::from(([127, 0, 0, 1], daemon.addr.port()));
    ask(loopback, "POST", "/__rollback", &[RIGHT]).refused(409, "no_previous");
    conf.set("admin.remote_deploy", true).save();
    daemon.admin("POST", "/__reload", None).expect(200);
    ask(addr, "POST", "/__rollback", &[RIGHT]).refused(409, "no_previous");
    ask(addr, "POST", "/__deploy", &[RIGHT]).expect(200);
}

#[test]
fn the_reserved_prefix_never_reaches_the_app_and_nothing_else_is_reserved() {
    let world = World::new();
    let daemon = started(&world, &world.conf().app(&world.app("v1")));
    let echo = ("x-echo", "head");
    for path in ["/__status", "/__", "/__nothing", "/__status/", "/__STATUS", "/__a/b?c"] {
        let answer = ask(daemon.addr, "GET", path, &[echo]);
        assert_eq!(answer.version(), "none", "{path} reached the app");
        answer.refused(401, "unauthorized");
    }
    ask(daemon.addr, "GET", "/__nothing", &[RIGHT, echo]).refused(404, "not_found");
    for path in
        ["/_", "/_/_status", "//__status", "/%5F_status", "/a/__status", "/?/__status", "/x?a=/__status"]
    {
        let answer = ask(daemon.addr, "GET", path, &[RIGHT, echo]).expect(200);
        assert!(answer.text().starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{}", answer.text());
    }
}

#[test]
fn the_prefix_can_be_moved_and_taken_off_the_public_port() {
    let world = World::new();
    let conf = world.conf().app(&world.app("v1"));
    let daemon = started(&world, &conf.clone().set("admin.prefix", "/-/"));
    ask(daemon.addr, "GET", "/-/status", &[RIGHT, ("host", "localhost")]).expect(200);
    assert_eq!(ask(daemon.addr, "GET", "/__status", &[RIGHT]).expect(200).version(), "v1");
    drop(daemon);

    let world = World::new();
    let conf = world.conf().app(&world.app("v1")).set("admin.public", false);
    let daemon = started(&world, &conf);
    assert_eq!(ask(daemon.addr, "GET", "/__status", &[RIGHT]).expect(200).version(), "v1");
    assert_eq!(ask(daemon.addr, "GET", "/__deploy", &[]).expect(200).version(), "v1");
    daemon.admin("GET", "/__status", None).expect(200);
}

#[test]
fn every_answer_is_json_and_not_to_be_stored() {
    let world = World::new();
    let daemon = started(&world, &world.conf().app(&world.app("v1")));
    for path in ["/__status", "/__metrics", "/__health", "/__releases", "/__logs", "/__nothing"] {
        let answer = daemon.admin("GET", path, None);
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert!(
            answer.header("content-type").is_some_and(|kind| kind.starts_with("application/json")),
            "{path}"
        );
        answer.json();
    }
}

#[test]
fn metrics_count_requests_of_the_app_only_and_speak_prometheus() {
    let world = World::new();
    let daemon = started(&world, &world.conf().app(&world.app("v1")).set("upstream.debug", true));
    // What came before the app was live counts too.
    let counted = || {
        let metrics = daemon.admin("GET", "/__metrics", None).json();
        let pointers = ["/totalRequests", "/statusCounters/3xx", "/statusCounters/5xx", "/totalProxyErrors"];
        pointers.map(|pointer| metrics.pointer(pointer).and_then(serde_json::Value::as_u64).unwrap())
    };
    let [requests, redirects, errors, own_errors] = counted();
    for _ in 0..5 {
        daemon.get("/").expect(200);
        ask(daemon.addr, "GET", "/__status", &[RIGHT]).expect(200);
    }
    daemon.get("/status/302").expect(302);
    daemon.get("/status/503").expect(503);
    assert_eq!(counted(), [requests + 7, redirects + 1, errors + 1, own_errors]);
    let metrics = daemon.admin("GET", "/__metrics", None).json();

    assert_at(&metrics, "/inflight", 0);
    assert!(metrics["inflightMax"].as_u64().unwrap() >= 1);
    assert!(metrics["upstreamSocketsCreated"].as_u64().unwrap() >= 1);

    let by_query = daemon.admin("GET", "/__metrics?format=prometheus", None).expect(200);
    let mut conn = Conn::unix(&world.socket()).unwrap();
    let by_header = conn.request("GET", "/__metrics", &[("accept", "text/plain")], None).unwrap().expect(200);
    for answer in [by_query, by_header] {
        assert!(answer.header("content-type").unwrap().starts_with("text/plain"));
        let text = answer.text();
        let samples: Vec<_> =
            text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
        assert!(samples.len() > 10, "{text}");
        for sample in samples {
            let (name, value) = sample.rsplit_once(' ').unwrap();
            assert!(name.starts_with("portok_"), "{sample}");
            assert!(value.parse::<f64>().is_ok(), "{sample}");
        }
        assert!(text.contains("_bucket{") && text.contains("le=\"+Inf\""), "a latency histogram: {text}");
    }
    daemon.admin("GET", "/__metrics?format=xml", None).refused(400, "bad_request");
}

#[test]
fn health_is_asked_now() {
    let world = World::new();
    let app = world.app("v1").with("health_file", world.path("health").display());
    let daemon = started(&world, &world.conf().app(&app).set("rollback.interval", "10m"));
    daemon.admin("GET", "/__health", None).expect(200);
    world.write("health", "418");
    let sick = daemon.admin("GET", "/__health", None).expect(503).json();
    assert_at(&sick, "/healthy", false);
    assert_at(&sick, "/status", 418);
    assert!(sick["error"].is_string(), "{sick:#}");
    std::fs::remove_file(world.path("health")).unwrap();
    daemon.admin("GET", "/__health", None).expect(200);
}

#[test]
fn the_status_tells_how_often_the_live_release_failed_its_probe() {
    let world = World::new();
    let app = world.app("v1").with("health_file", world.path("health").display());
    let conf = world.conf().app(&app).set("rollback.interval", "50ms").set("rollback.window", "100ms");
    let daemon = started(&world, &conf);
    daemon.wait_until("it is settled", |status| status.phase.as_str() == "settled");
    world.write("health", "500");
    let sick = daemon.wait_until("three probes failed", |status| status.health.consecutive_fails >= 3);
    assert!(!sick.health.active_port_ok && sick.health.last_checked_at.is_some(), "{sick:#?}");
    let value = daemon.admin("GET", "/__status", None).expect(200).json();
    assert!(value["health"]["consecutiveFails"].as_u64() >= Some(3), "{value:#}");
    assert_at(&value, "/health/activePortOk", false);
    let metrics = daemon.admin("GET", "/__metrics", None).expect(200).json();
    assert!(metrics["health"]["consecutiveFails"].as_u64() >= Some(3), "{metrics:#}");
    let said = daemon.portok(&["status"]).ended(0);
    assert!(said.out.contains("prob"), "people are told too: {}", said.out);
    world.write("health", "200");
    let well = daemon.wait_until("it is well again", |status| status.health.active_port_ok);
    assert_eq!(well.health.consecutive_fails, 0);
}

#[test]
fn a_socket_that_somebody_removes_is_made_again() {
    let world = World::new();
    let daemon = world.start(&world.conf().app(&world.app("v1")));
    daemon.wait_until_serves("v1");
    std::fs::remove_file(world.socket()).unwrap();
    let asked =
        || Conn::unix(&world.socket()).and_then(|mut conn| conn.request("GET", "/__status", &[], None));
    wait_until("it answers again", || daemon.log(), || asked().ok()).expect(200);
    daemon.terminate();
}
