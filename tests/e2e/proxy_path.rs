//! The path of a request through the real daemon.

use std::net::TcpListener;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::conf::Conf;
use crate::harness::fixture::checksum;
use crate::harness::http::request_bytes;
use crate::harness::wait::pause;
use crate::harness::{Daemon, World, wait_until};

fn conf(world: &World) -> Conf {
    world.conf().app(&world.app("v1"))
}

fn started<'w>(world: &'w World, conf: &Conf) -> Daemon<'w> {
    let daemon = world.start(conf);
    daemon.wait_until_serves("v1");
    daemon
}

/// The head as the app got it.
fn echoed(daemon: &Daemon<'_>, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let headers = [headers, &[("x-echo", "head")]].concat();
    daemon.send(method, path, &headers, None).expect(200).text()
}

/// All values of a header in a raw head.
fn values(head: &str, name: &str) -> Vec<String> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
        .collect()
}

#[test]
fn method_path_and_query_go_through_byte_for_byte() {
    let world = World::new();
    let daemon = started(&world, &conf(&world));
    for path in ["//a/%2F..;x?y=%20", "/../a/./b", "/%00%ff", "/a?b?c=d&&e", "/ü"] {
        let head = echoed(&daemon, "GET", path, &[]);
        assert!(head.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{path}: {head}");
    }
    let head = echoed(&daemon, "PURGE", "/x", &[]);
    assert!(head.starts_with("PURGE /x HTTP/1.1\r\n"), "{head}");
}

#[test]
fn headers_keep_their_values_and_hop_by_hop_ones_stay_behind() {
    let world = World::new();
    let daemon = started(&world, &conf(&world));
    let head = echoed(
        &daemon,
        "GET",
        "/",
        &[
            ("host", "shop.example:8443"),
            ("x-twice", "one"),
            ("x-twice", "two"),
            ("accept-encoding", "zstd"),
            ("connection", "keep-alive, x-private"),
            ("x-private", "secret"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip"),
        ],
    );
    assert_eq!(values(&head, "host"), ["shop.example:8443"]);
    assert_eq!(values(&head, "x-twice"), ["one", "two"]);
    assert_eq!(values(&head, "accept-encoding"), ["zstd"]);
    for name in ["x-private", "keep-alive", "proxy-connection", "te"] {
        assert!(values(&head, name).is_empty(), "{name} went through: {head}");
    }
}

#[test]
fn forwarded_headers_are_replaced_unless_the_peer_is_trusted() {
    let world = World::new();
    let base = conf(&world);
    let strangers = base.clone().set("proxy.forwarded", "trusted").set("proxy.trusted", vec!["10.0.0.0/8"]);
    let daemon = started(&world, &strangers);
    let sent =
        [("x-forwarded-for", "1.2.3.4"), ("x-forwarded-proto", "https"), ("x-forwarded-host", "forged.test")];
    let head = echoed(&daemon, "GET", "/", &sent);
    assert_eq!(values(&head, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values(&head, "x-forwarded-proto"), ["http"]);
    assert_eq!(values(&head, "x-forwarded-host"), ["app.test"]);
    assert_eq!(values(&head, "x-forwarded-port"), ["80"], "as the Host header says");
    let head = echoed(&daemon, "GET", "/", &[("host", "app.test:8443")]);
    assert_eq!(values(&head, "x-forwarded-port"), ["8443"]);

    let reconfigure = |conf: Conf| {
        conf.save();
        daemon.admin("POST", "/__reload", None).expect(200);
    };
    reconfigure(base.clone().set("proxy.forwarded", "trusted").set("proxy.trusted", vec!["127.0.0.0/8"]));
    let head = echoed(&daemon, "GET", "/", &sent);
    assert_eq!(values(&head, "x-forwarded-for").join(", "), "1.2.3.4, 127.0.0.1");
    assert!(values(&head, "x-forwarded-proto").join(",").starts_with("https"));
    assert!(values(&head, "x-forwarded-host").join(",").starts_with("forged.test"));

    reconfigure(base.clone().set("proxy.forwarded", "append"));
    let head = echoed(&daemon, "GET", "/", &sent);
    assert_eq!(values(&head, "x-forwarded-for").join(", "), "1.2.3.4, 127.0.0.1");
    assert_eq!(values(&head, "x-forwarded-host"), ["forged.test"], "set when absent only");
    assert_eq!(values(&echoed(&daemon, "GET", "/", &[]), "x-forwarded-host"), ["app.test"]);

    reconfigure(base.set("proxy.forwarded", "off"));
    let head = echoed(&daemon, "GET", "/", &sent);
    assert_eq!(values(&head, "x-forwarded-for"), ["1.2.3.4"]);
    assert!(values(&echoed(&daemon, "GET", "/", &[]), "x-forwarded-for").is_empty());
}

#[test]
fn a_connection_header_cannot_remove_portoks_own_headers() {
    let world = World::new();
    let daemon = started(&world, &conf(&world));
    let head = echoed(&daemon, "GET", "/", &[("connection", "x-forwarded-for, x-forwarded-proto")]);
    assert_eq!(values(&head, "x-forwarded-for"), ["127.0.0.1"]);
}

#[test]
fn bodies_of_all_kinds_arrive_whole() {
    let world = World::new();
    let daemon = started(&world, &conf(&world));
    let mut conn = daemon.connect();
    for length in [0, 1, 1000, 65_536, 3_000_000] {
        let body: Vec<u8> = (0..length).map(|index: u32| (index % 251) as u8).collect();
        let expected = format!("v1 {length} {:016x}\n", checksum(&body));
        assert_eq!(conn.request("POST", "/up", &[], Some(&body)).unwrap().expect(200).text(), expected);
        let mut chunked = request_bytes("POST", "/up", &[("transfer-encoding", "chunked")], None);
        for chunk in body.chunks(10_007) {
            chunked.extend(format!("{:x};ext=1\r\n", chunk.len()).into_bytes());
            chunked.extend(chunk);
            chunked.extend(b"\r\n");
        }
        chunked.extend(b"0\r\n\r\n");
        conn.send(&chunked).unwrap();
        assert_eq!(conn.answer("POST").unwrap().expect(200).text(), expected);
    }
    assert_eq!(conn.request("GET", "/large/5000000", &[], None).unwrap().expect(200).body.len(), 5_000_000);
    assert_eq!(
        conn.request("GET", "/", &[], None).unwrap().version(),
        "v1",
        "the connection is still in step"
    );
}

#[test]
fn the_expectation_of_100_continue_is_met_once() {
    let world = World::new();
    let daemon = started(&world, &conf(&world));
    let mut conn = daemon.connect();
    conn.send(b"POST /up HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n").unwrap();
    assert_eq!(conn.head().unwrap().status, 100);
    conn.send(b"body").unwrap();
    let head = conn.head().unwrap();
    assert_eq!(head.status, 200, "exactly one 100: {head:?}");
    let length: usize = head.header("content-length").unwrap().parse().unwrap();
    assert_eq!(conn.exactly(length).unwrap(), format!("v1 4 {:016x}\n", checksum(b"body")).into_bytes());
}

#[test]
fn answers_go_through_as_they_are() {
    let world = World::new();
    let daemon = started(&world, &conf(&world));
    for status in [201, 204, 301, 304, 400, 404, 418, 500, 502, 503] {
        let answer = daemon.get(&format!("/status/{status}"));
        assert_eq!((answer.status(), answer.version()), (status, "v1"));
        assert_eq!(answer.header("portok-error"), None, "the app's own errors are not portok's");
    }
    let mut conn = daemon.connect();
    let head = conn.request("HEAD", "/large/1234", &[], None).unwrap().expect(200);
    assert_eq!(head.header("content-length"), Some("1234"));
    assert_eq!(conn.request("GET", "/", &[], None).unwrap().version(), "v1", "no body was awaited");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let world = World::new();
    let daemon = started(&world, &conf(&world));
    let mut conn = daemon.connect();
    let mut bytes = Vec::new();
    for number in 0..20 {
        bytes.extend(request_bytes("POST", "/p", &[], Some(&vec![b'x'; number])));
    }
    conn.send(&bytes).unwrap();
    for number in 0..20 {
        let text = conn.answer("POST").unwrap().expect(200).text();
        assert!(text.starts_with(&format!("v1 {number} ")), "{text}");
    }
}

#[test]
fn http_1_0_clients_are_served() {
    let world = World::new();
    let daemon = started(&world, &conf(&world));
    let mut conn = daemon.connect();
    conn.send(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(conn.answer("GET").unwrap().expect(200).version(), "v1");
    assert_eq!(conn.rest().unwrap(), b"");
}

#[test]
fn an_early_answer_to_an_unfinished_upload_arrives() {
    let world = World::new();
    let daemon = started(&world, &conf(&world));
    let mut conn = daemon.connect();
    conn.send(b"POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nonly a bit").unwrap();
    let answer = conn.answer("POST").unwrap().expect(413);
    assert_eq!(answer.header("portok-error"), None, "it is the app's answer");
}

#[test]
fn a_websocket_peer_can_talk_through_a_tunnel() {
    let world = World::new();
    let daemon = started(&world, &conf(&world));
    let mut conn = daemon.connect();
    let mut bytes = request_bytes("GET", "/ws", &[("connection", "Upgrade"), ("upgrade", "websocket")], None);
    // What is sent right after the head belongs to the tunnel.
    bytes.extend(b"early\n");
    conn.send(&bytes).unwrap();
    assert_eq!(conn.answer("GET").unwrap().status(), 101);
    assert_eq!((conn.line().unwrap(), conn.line().unwrap()), ("v1".to_owned(), "early".to_owned()));
    let status = daemon.status();
    assert_eq!(status.live.unwrap().inflight, 1, "a tunnel is in flight");
    conn.finish_sending().unwrap();
    assert_eq!(conn.rest().unwrap(), b"bye\n");
    daemon.wait_until("the tunnel is not in flight any more", |status| {
        status.live.as_ref().is_some_and(|live| live.inflight == 0)
    });
}

#[test]
fn connect_is_not_allowed() {
    let world = World::new();
    let daemon = started(&world, &conf(&world));
    let mut conn = daemon.connect();
    conn.send(b"CONNECT example.com:443 HTTP/1.1\r\nhost: example.com:443\r\n\r\n").unwrap();
    let head = conn.head().unwrap();
    assert_eq!(head.status, 405);
    assert_eq!(head.header("portok-error"), Some("method_not_allowed"));
    assert_eq!(head.header("cache-control"), Some("no-store"));
}

#[test]
fn ambiguous_requests_are_refused_and_the_connection_closed() {
    let world = World::new();
    let daemon = started(&world, &conf(&world));
    let refused: [&[u8]; 11] = [
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx-a: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx-a : b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx-a: b\rc\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx-a: b\0c\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"this is not http at all\r\n\r\n",
    ];
    for bytes in refused {
        let mut conn = daemon.connect();
        conn.send(bytes).unwrap();
        let text = String::from_utf8_lossy(bytes);
        let answer = conn.answer("GET").unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!((answer.status(), answer.version()), (400, "none"), "{text:?}");
        assert!(matches!(conn.rest().as_deref(), Ok(b"") | Err(_)), "{text:?}: the connection is closed");
    }
    let mut conn = daemon.connect();
    conn.send(b"POST /up HTTP/1.1\r\nhost: a\r\nx-echo: head\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n").unwrap();
    let answer = conn.answer("POST").unwrap();
    if answer.status() != 400 {
        assert!(
            values(&answer.expect(200).text(), "content-length").is_empty(),
            "the length is never passed on"
        );
    }
    assert!(matches!(conn.rest().as_deref(), Ok(b"") | Err(_)), "the connection is closed");
}

#[test]
fn limits_of_heads_and_bodies_are_held() {
    let world = World::new();
    let base = conf(&world).set("proxy.max_header_size", "16KiB").set("proxy.max_body", "1KiB");
    let daemon = started(&world, &base);
    let large = "x".repeat(20 * 1024);
    let mut conn = daemon.connect();
    let status = conn.request("GET", "/", &[("x-large", &large)], None).unwrap().status();
    assert_eq!(status, 431);
    let mut conn = daemon.connect();
    let status = conn.request("GET", &format!("/{}", "x".repeat(80 * 1024)), &[], None).unwrap().status();
    assert!(matches!(status, 414 | 431), "{status}");
    daemon.send("POST", "/up", &[], Some(&[b'x'; 1024])).expect(200);
    let answer = daemon.send("POST", "/up", &[], Some(&[b'x'; 1025])).expect(413);
    assert_eq!(answer.header("portok-error"), Some("body_too_large"));
    assert_eq!(daemon.get("/").version(), "v1");
}

#[test]
fn clients_that_do_not_finish_their_head_or_stay_idle_are_closed() {
    let world = World::new();
    let base = conf(&world).set("proxy.header_timeout", "1500ms").set("proxy.idle_timeout", "1s");
    let daemon = started(&world, &base);
    let mut slow = daemon.connect();
    slow.send(b"GET / HTTP/1.1\r\nhost: a\r\nx-slow: ").unwrap();
    let rest = slow.rest().unwrap_or_default();
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&rest));
    let mut idle = daemon.connect();
    idle.request("GET", "/", &[], None).unwrap().expect(200);
    assert!(matches!(idle.rest().as_deref(), Ok(b"") | Err(_)));
    let mut silent = daemon.connect();
    let rest = silent.rest().unwrap_or_default();
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&rest));
    assert_eq!(daemon.get("/").version(), "v1");
}

#[test]
fn no_client_is_late_because_the_daemon_did_not_run() {
    let world = World::new();
    let daemon = started(&world, &conf(&world).set("proxy.header_timeout", "2s"));
    daemon.signal(Signal::SIGSTOP);
    let mut waiting: Vec<_> = (0..20).map(|_| daemon.connect()).collect();
    for conn in &mut waiting {
        conn.send(&request_bytes("GET", "/", &[], None)).unwrap();
    }
    // Longer than a head may take: the time that passes is the subject.
    pause(Duration::from_secs(3));
    daemon.signal(Signal::SIGCONT);
    for conn in &mut waiting {
        assert_eq!(conn.answer("GET").unwrap().expect(200).version(), "v1");
    }
}

#[test]
fn errors_of_the_app_get_portoks_own_answers() {
    let world = World::new();
    let daemon = started(&world, &conf(&world).set("upstream.response_timeout", "300ms"));
    let errors = || daemon.admin("GET", "/__metrics", None).json()["totalProxyErrors"].as_u64().unwrap();
    let before = errors();
    for (path, status, code) in [("/drop", 502, "upstream_reset"), ("/garbage", 502, "upstream_invalid")] {
        let answer = daemon.send("POST", path, &[], Some(b"x")).expect(status);
        assert_eq!(answer.header("portok-error"), Some(code), "{path}");
    }
    let path = format!("/hold?file={}", world.path("never").display());
    let answer = daemon.get(&path).expect(504);
    assert_eq!(answer.header("portok-error"), Some("upstream_timeout"));
    let metrics = daemon.admin("GET", "/__metrics", None).json();
    assert_eq!(errors(), before + 3);
    assert_eq!(metrics["lastProxyError"]["code"], "upstream_timeout");
}

#[test]
fn a_post_is_never_sent_twice_and_a_get_is_on_a_stale_connection() {
    let world = World::new();
    let app = world.app("v1").with("idle_close", 30);
    let daemon = world.start(&world.conf().app(&app).set("upstream.idle_timeout", "60s"));
    daemon.wait_until_serves("v1");
    // The app closes each idle connection after 30 ms, so that some requests meet one that is just
    // closing.
    let mut conn = daemon.connect();
    for round in 0..30_u64 {
        conn.request("GET", "/", &[], None).unwrap().expect(200);
        pause(Duration::from_millis(25 + round % 12));
    }
    let posts = ["a", "b", "c", "d", "e"];
    for post in posts {
        daemon.send("POST", &format!("/drop/{post}"), &[], Some(b"once")).expect(502);
    }
    // One that met a connection which the app was just closing never reached it, and is not sent
    // again either.
    let times = posts.map(|post| app.count(&format!("drop POST {post}")));
    assert!(times.iter().all(|times| *times <= 1), "a POST was sent more than once: {times:?}");
    assert!(times.contains(&1), "no POST reached the app");
}

#[test]
fn requests_wait_for_a_free_connection_and_then_give_up() {
    let world = World::new();
    let app = world.app("v1");
    let base = world
        .conf()
        .app(&app)
        .set("upstream.max_connections", 1)
        .set("upstream.connect_timeout", "300ms")
        .set("proxy.threads", 1);
    let daemon = started(&world, &base);
    let mut held = daemon.connect();
    let path = format!("/hold?file={}", world.path("go").display());
    held.send(&request_bytes("GET", &path, &[], None)).unwrap();
    app.wait_for(1, "hold begin");
    let answer = daemon.get("/").expect(503);
    assert_eq!(answer.header("portok-error"), Some("upstream_full"));
    assert!(answer.header("retry-after").is_some(), "{:?}", answer.head);
    world.touch("go");
    held.answer("GET").unwrap().expect(200);
    assert_eq!(daemon.get("/").expect(200).version(), "v1");
}

#[test]
fn a_refused_connection_is_answered_502_refused() {
    let world = World::new();
    let mut app = world.app("v1").start_unmanaged();
    let daemon = world.start(&world.conf().set("app.target", i64::from(app.port)));
    daemon.wait_until_serves("v1");
    app.kill();
    // Nobody else may get the port meanwhile.
    let held = TcpListener::bind(("127.0.0.1", app.port));
    drop(held);
    let answer = daemon.get("/");
    assert!(matches!(answer.status(), 502 | 503), "{:?}", answer.head);
    assert!(
        matches!(answer.header("portok-error"), Some("upstream_refused" | "no_live_target")),
        "{:?}",
        answer.head
    );
}

#[test]
fn a_client_that_goes_away_frees_its_request() {
    let world = World::new();
    let app = world.app("v1");
    let daemon = world.start(&world.conf().app(&app));
    daemon.wait_until_serves("v1");
    let mut conn = daemon.connect();
    let path = format!("/hold?file={}", world.path("never").display());
    conn.send(&request_bytes("GET", &path, &[], None)).unwrap();
    app.wait_for(1, "hold begin");
    assert_eq!(daemon.status().live.unwrap().inflight, 1);
    drop(conn);
    daemon.wait_until("nothing is in flight", |status| {
        status.live.as_ref().is_some_and(|live| live.inflight == 0)
    });
}

#[test]
fn running_out_of_descriptors_is_survived() {
    let world = World::new();
    let conf = conf(&world).set("proxy.idle_timeout", "60s").set("proxy.header_timeout", "60s");
    conf.save();
    let line = format!(
        "ulimit -n 128; exec '{}' --config '{}'",
        crate::harness::command::PORTOKD,
        conf.file().display()
    );
    let daemon = Daemon::attach(&world, world.spawn("/bin/sh", &["-c", &line], &world.env()));
    daemon.wait_until_serves("v1");
    let mut waiting = Vec::new();
    for _ in 0..200 {
        waiting.push(daemon.connect());
    }
    drop(waiting);
    wait_until(
        "it serves again",
        || daemon.log(),
        || {
            let answer = daemon.connect().request("GET", "/", &[], None).ok()?;
            (answer.status() == 200).then_some(())
        },
    );
}
