use std::net::SocketAddr;

use http::header::{ALLOW, RETRY_AFTER};
use http_body_util::Full;
use tokio::sync::mpsc;

use super::super::request;
use super::body::{DISCARDED, read};
use super::numbers::{health_of_all, metrics};
use super::*;
use crate::config::{self, Secret};

type Headers<'a> = &'a [(&'static str, &'a str)];

fn config() -> config::Admin {
    config::Admin {
        token: Some(Secret::new("s3cret".to_owned())),
        socket: None,
        socket_configured: false,
        socket_group: Some("deploy".to_owned()),
        allow: ["127.0.0.0/8", "::1/128", "192.0.2.0/24", "2001:db8::/32", "::ffff:203.0.113.7/128"]
            .map(|range| range.parse().unwrap())
            .to_vec(),
        hosts: vec!["ops.example.com".to_owned()],
        allow_forwarded: false,
        rate_limit: 10,
        public: true,
        prefix: "/__".to_owned(),
        remote_deploy: false,
    }
}

fn tcp(address: &str) -> Peer {
    let peer = SocketAddr::new(address.parse().unwrap(), 40_000);
    Peer::Tcp { peer, at: [127, 0, 0, 1].into() }
}

fn head(request: &str, headers: Headers<'_>) -> http::request::Parts {
    let (method, path) = request.split_once(' ').unwrap();
    let mut built = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        built = built.header(*name, *value);
    }
    built.body(()).unwrap().into_parts().0
}

/// A gate with its own limits, on a loopback listener, asked at one moment.
struct Gate {
    config: config::Admin,
    limits: Mutex<Limits>,
    now: Instant,
}

impl Gate {
    fn new(config: config::Admin) -> Self {
        Self { config, limits: Mutex::default(), now: Instant::now() }
    }

    fn ask(&self, peer: &Peer, request: &str, headers: Headers<'_>) -> Result<Route, Refusal> {
        let surface = match peer {
            Peer::Unix { .. } => Surface::Socket,
            Peer::Tcp { .. } => Surface::Loopback,
        };
        examine((peer, surface), &head(request, headers), &self.config, 1000, &self.limits, self.now)
    }

    fn status(&self, peer: &Peer, request: &str, headers: Headers<'_>) -> u16 {
        self.ask(peer, request, headers).map_or_else(|refusal| refusal.body.code.status(), |_| 200)
    }
}

const TOKEN: (&str, &str) = ("x-admin-token", "s3cret");
const BEARER: (&str, &str) = ("authorization", "Bearer s3cret");
const WRONG: (&str, &str) = ("x-admin-token", "guess");
const WRONG_BEARER: (&str, &str) = ("authorization", "Bearer guess");
const PROXIED: (&str, &str) = ("x-forwarded-for", "198.51.100.1");
const CROSS_SITE: (&str, &str) = ("sec-fetch-site", "cross-site");
const FORWARDED: (&str, &str) = ("forwarded", "for=198.51.100.1");

#[test]
fn checks_come_in_their_order() {
    let table: &[(&str, &str, Headers<'_>, u16)] = &[
        // 0. a browser that was talked into it: before it is known whether the peer is listed
        ("127.0.0.1", "POST /__reload", &[TOKEN, CROSS_SITE], 403),
        ("127.0.0.1", "GET /__status", &[TOKEN, ("host", "evil.example")], 403),
        ("127.0.0.1", "GET /__status", &[TOKEN, ("host", "ops.example.com:3000")], 200),
        ("127.0.0.1", "POST /__reload", &[TOKEN, ("host", "localhost"), ("origin", "http://localhost")], 200),
        // 1. the peer: nothing else matters to who is not listed
        ("198.51.100.1", "GET /__status", &[TOKEN], 403),
        ("198.51.100.1", "GET /__nothing", &[], 403),
        ("::ffff:198.51.100.1", "GET /__status", &[TOKEN], 403),
        ("2001:db9::1", "GET /__status", &[TOKEN], 403),
        ("127.0.0.1", "GET /__status", &[TOKEN, PROXIED], 403),
        ("127.0.0.1", "GET /__status", &[TOKEN, FORWARDED], 403),
        ("127.0.0.1", "GET /__nothing", &[WRONG, PROXIED], 403),
        ("::1", "GET /__status", &[TOKEN, PROXIED], 403),
        ("::ffff:127.0.0.1", "GET /__status", &[TOKEN, PROXIED], 403),
        ("127.0.0.1", "GET /__status", &[TOKEN, ("x-forwarded-for", "")], 403),
        // 3. the token: before anything is told about paths and methods
        ("127.0.0.1", "GET /__status", &[], 401),
        ("127.0.0.1", "GET /__status", &[WRONG], 401),
        ("127.0.0.1", "GET /__status", &[WRONG, BEARER], 401),
        ("127.0.0.1", "GET /__status", &[("authorization", "Basic s3cret")], 401),
        ("127.0.0.1", "GET /__nothing", &[WRONG], 401),
        ("127.0.0.1", "DELETE /__status", &[WRONG], 401),
        ("192.0.2.1", "POST /__deploy", &[WRONG], 401),
        // what changes something, from afar: right after the token, whatever the path
        ("192.0.2.1", "POST /__deploy", &[TOKEN], 403),
        ("192.0.2.1", "POST /__nothing", &[TOKEN], 403),
        ("192.0.2.1", "DELETE /__status", &[TOKEN], 403),
        ("192.0.2.1", "PUT /__switch", &[TOKEN], 403),
        // 4. and 5.
        ("127.0.0.1", "GET /__nothing", &[TOKEN], 404),
        ("127.0.0.1", "DELETE /__nothing", &[TOKEN], 404),
        ("127.0.0.1", "DELETE /__status", &[TOKEN], 405),
        ("127.0.0.1", "GET /__switch?port=0", &[TOKEN], 405),
        ("192.0.2.1", "GET /__deploy", &[TOKEN], 405),
        ("192.0.2.1", "GET /__nothing", &[TOKEN], 404),
        ("192.0.2.1", "GET /__switch", &[TOKEN], 405),
        // let in
        ("127.0.0.1", "GET /__status", &[TOKEN], 200),
        ("127.3.2.1", "HEAD /__status", &[BEARER], 200),
        ("127.0.0.1", "GET /__status", &[TOKEN, ("authorization", "Basic dTpw")], 200),
        ("::1", "POST /__deploy", &[TOKEN], 200),
        ("::ffff:127.0.0.1", "POST /__deploy", &[TOKEN], 200),
        ("192.0.2.1", "GET /__status", &[TOKEN], 200),
        ("192.0.2.1", "GET /__status", &[TOKEN, PROXIED], 200),
        ("192.0.2.1", "POST /__switch", &[TOKEN], 200),
        ("::ffff:192.0.2.1", "GET /__status", &[TOKEN], 200),
        ("2001:db8::7", "GET /__status", &[TOKEN], 200),
        ("203.0.113.7", "GET /__status", &[TOKEN], 200),
        ("203.0.113.8", "GET /__status", &[TOKEN], 403),
    ];
    for (peer, request, headers, expected) in table {
        assert_eq!(
            Gate::new(config()).status(&tcp(peer), request, headers),
            *expected,
            "{peer} {request} {headers:?}"
        );
    }
}

#[test]
fn requests_with_the_right_token_and_all_others_are_counted_apart() {
    let peer = tcp("127.0.0.1");
    let right: [(&str, Headers<'_>, u16); 5] = [
        ("GET /__status", &[TOKEN], 200),
        ("GET /__nothing", &[TOKEN], 404),
        ("PUT /__status", &[TOKEN], 405),
        ("POST /__switch", &[BEARER], 200),
        ("GET /__status", &[TOKEN, WRONG_BEARER], 200),
    ];
    let others: [(&str, Headers<'_>, u16); 5] = [
        ("GET /__status", &[WRONG], 401),
        ("GET /__nothing", &[WRONG], 401),
        ("PUT /__status", &[], 401),
        ("POST /__switch", &[WRONG_BEARER], 401),
        ("GET /__status", &[WRONG, BEARER], 401),
    ];
    let limited = |gate: &Gate, headers: Headers<'_>| {
        let refusal = gate.ask(&peer, "GET /__nothing", headers).unwrap_err();
        assert_eq!(refusal.body.code, Code::RateLimited);
        let response = refusal.into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[RETRY_AFTER], "60");
    };
    for (first, then) in [(right, others), (others, right)] {
        let gate = Gate::new(config());
        for requests in [first, then] {
            for (request, headers, expected) in requests.iter().chain(&requests) {
                assert_eq!(gate.status(&peer, request, headers), *expected, "{request} {headers:?}");
            }
            limited(&gate, requests[0].1);
        }
        limited(&gate, &[]);
        assert_eq!(gate.status(&tcp("::ffff:127.0.0.1"), "GET /__status", &[TOKEN]), 429, "the same peer");
        assert_eq!(gate.status(&peer, "GET /__status", &[TOKEN, PROXIED]), 403, "a stranger before that");
        assert_eq!(gate.status(&tcp("192.0.2.1"), "GET /__status", &[TOKEN]), 200, "another peer");
    }
}

#[test]
fn what_a_browser_was_talked_into_uses_up_nobodys_limit() {
    let gate = Gate::new(config());
    for _ in 0..100 {
        assert_eq!(gate.status(&tcp("127.0.0.1"), "GET /__status", &[CROSS_SITE]), 403);
    }
    for (headers, expected) in [(&[TOKEN][..], 200), (&[WRONG], 401)] {
        assert_eq!(gate.status(&tcp("127.0.0.1"), "GET /__status", headers), expected);
    }
}

#[test]
fn a_stranger_uses_up_nobodys_limit() {
    let gate = Gate::new(config());
    for _ in 0..100 {
        assert_eq!(gate.status(&tcp("127.0.0.1"), "GET /__status", &[PROXIED]), 403);
    }
    assert_eq!(gate.status(&tcp("127.0.0.1"), "GET /__status", &[TOKEN]), 200);
}

#[test]
fn strangers_all_hear_the_same() {
    let closed = config::Admin { token: None, ..config() };
    let unlisted = Gate::new(config()).ask(&tcp("198.51.100.1"), "GET /__status", &[TOKEN]).unwrap_err().body;
    for config in [config(), closed] {
        let gate = Gate::new(config);
        for (peer, request, headers) in [
            ("198.51.100.1", "POST /__deploy", &[WRONG][..]),
            ("198.51.100.1", "GET /__nothing", &[]),
            ("127.0.0.1", "GET /__status", &[TOKEN, PROXIED]),
            ("127.0.0.1", "DELETE /__nothing", &[PROXIED]),
        ] {
            assert_eq!(gate.ask(&tcp(peer), request, headers).unwrap_err().body, unlisted);
        }
    }
}

#[test]
fn without_a_token_tcp_is_closed_to_everybody() {
    let gate = Gate::new(config::Admin { token: None, ..config() });
    for headers in [&[TOKEN][..], &[], &[("x-admin-token", "")]] {
        assert_eq!(gate.status(&tcp("127.0.0.1"), "GET /__status", headers), 403);
    }
    let empty = Gate::new(config::Admin { token: Some(Secret::new(String::new())), ..config() });
    assert_eq!(empty.status(&tcp("127.0.0.1"), "GET /__status", &[("x-admin-token", "")]), 401);
}

#[test]
fn another_proxy_is_let_through_on_request_but_its_requests_come_from_afar() {
    let gate = Gate::new(config::Admin { allow_forwarded: true, ..config() });
    let peer = tcp("127.0.0.1");
    assert_eq!(gate.status(&peer, "GET /__status", &[TOKEN, PROXIED]), 200);
    assert_eq!(gate.status(&peer, "POST /__deploy", &[TOKEN, PROXIED]), 403);
    assert_eq!(gate.status(&peer, "POST /__deploy", &[TOKEN]), 200);
    let remote = Gate::new(config::Admin { allow_forwarded: true, remote_deploy: true, ..config() });
    assert_eq!(remote.status(&peer, "POST /__deploy", &[TOKEN, PROXIED]), 200);
    assert_eq!(remote.status(&tcp("192.0.2.1"), "POST /__rollback", &[TOKEN]), 200);
}

#[test]
fn on_the_socket_the_user_decides() {
    let gate = Gate::new(config::Admin { token: None, rate_limit: 1, allow: Vec::new(), ..config() });
    let user = |uid, member| Peer::Unix { uid, gid: 100, member };
    for peer in [user(0, false), user(1000, false), user(1001, true)] {
        for _ in 0..3 {
            assert_eq!(gate.status(&peer, "POST /__deploy", &[PROXIED]), 200, "{peer:?}");
        }
        assert_eq!(gate.status(&peer, "GET /__nothing", &[]), 404);
    }
    for headers in [
        &[CROSS_SITE][..],
        &[("host", "localhost"), ("origin", "http://localhost")],
        &[("host", "evil.example")],
    ] {
        assert_eq!(gate.status(&user(0, false), "POST /__reload", headers), 403, "{headers:?}");
    }
    for headers in [&[][..], &[TOKEN]] {
        let refusal = gate.ask(&user(1001, false), "GET /__status", headers).unwrap_err();
        assert_eq!(refusal.body.code, Code::Forbidden);
        assert!(refusal.body.message.contains("1001"));
    }
}

#[test]
fn no_refusal_repeats_a_token() {
    let gate = Gate::new(config());
    for (peer, request, headers) in [
        ("198.51.100.1", "GET /__status", &[TOKEN][..]),
        ("127.0.0.1", "GET /__status", &[WRONG]),
        ("127.0.0.1", "GET /__nothing?s3cret", &[TOKEN]),
        ("127.0.0.1", "PUT /__status?s3cret", &[TOKEN]),
    ] {
        let body = serde_json::to_string(&gate.ask(&tcp(peer), request, headers).unwrap_err().body).unwrap();
        assert!(!body.contains("s3cret") && !body.contains("guess"), "{body}");
    }
}

#[test]
fn a_refused_method_names_the_good_ones() {
    let refusal = Gate::new(config()).ask(&tcp("127.0.0.1"), "GET /__reload", &[TOKEN]).unwrap_err();
    assert_eq!(refusal.into_response().headers()[ALLOW], "POST");
}

#[tokio::test]
async fn a_body_has_a_limit_told_or_not() {
    let exact = vec![b' '; request::MAX_BODY];
    assert_eq!(
        read(Full::new(Bytes::from(exact.clone())), request::MAX_BODY).await.unwrap().len(),
        request::MAX_BODY
    );
    let mut longer = exact;
    longer.push(b' ');
    let told = read(Full::new(Bytes::from(longer.clone())), request::MAX_BODY).await.unwrap_err();
    assert_eq!(told.code, Code::BadRequest);
    // Without a length the body tells nothing before its end.
    let (sender, lines) = mpsc::channel(1);
    sender.send(Bytes::from(longer)).await.unwrap();
    drop(sender);
    let (_, untold) = answer::stream(lines).into_parts();
    assert_eq!(read(untold, request::MAX_BODY).await.unwrap_err(), told);
    // Much more than that is not even thrown away: the sender is left with most of it.
    let (sender, lines) = mpsc::channel(1);
    let flood = tokio::spawn(async move {
        let chunk = Bytes::from(vec![b' '; request::MAX_BODY]);
        let mut sent = 0;
        while sender.send(chunk.clone()).await.is_ok() {
            sent += 1;
        }
        sent
    });
    let (_, endless) = answer::stream(lines).into_parts();
    assert_eq!(read(endless, request::MAX_BODY).await.unwrap_err(), told);
    assert!(flood.await.unwrap() <= DISCARDED / request::MAX_BODY + 2);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up() {
    let (sender, lines) = mpsc::channel(1);
    let (_, body) = answer::stream(lines).into_parts();
    let error = read(body, request::MAX_BODY).await.unwrap_err();
    assert!(error.message.contains("within 10 s"), "{}", error.message);
    drop(sender);
}

#[test]
fn metrics_have_npm_portoks_keys() {
    let counters =
        proxy::Snapshot { by_class: [9, 1, 2, 3, 4], upstream_sockets_created: 5, ..Default::default() };
    let value = |debug| {
        serde_json::to_value(metrics(
            counters.clone(),
            wire::HealthMetrics::default(),
            "then".to_owned(),
            debug,
        ))
        .unwrap()
    };
    let plain = value(false);
    assert_eq!(plain["statusCounters"], serde_json::json!({"2xx": 1, "3xx": 2, "4xx": 3, "5xx": 4}));
    for key in [
        "startedAt",
        "inflight",
        "inflightMax",
        "totalRequests",
        "totalProxyErrors",
        "rollingRps60",
        "health",
        "lastProxyError",
    ] {
        assert!(plain.get(key).is_some(), "{key} in {plain}");
    }
    assert!(plain.get("upstreamSocketsCreated").is_none());
    assert_eq!(value(true)["upstreamSocketsCreated"], 5);
}

#[test]
fn the_health_of_all_apps_is_that_of_the_worst_that_is_probed() {
    let health = |ok, at: Option<&str>, fails| wire::HealthMetrics {
        active_port_ok: ok,
        last_checked_at: at.map(str::to_owned),
        consecutive_fails: fails,
    };
    assert_eq!(health_of_all(&[]), wire::HealthMetrics::default());
    let (well, never) = (health(true, Some("1"), 0), health(false, None, 0));
    assert_eq!(health_of_all(&[well.clone(), never.clone()]), well);
    let sick = health(false, Some("2"), 3);
    assert_eq!(health_of_all(&[well, never, sick.clone()]), sick);
}

#[tokio::test]
async fn a_task_that_panics_is_an_internal_error() {
    let response = joined(tokio::spawn(async { panic!("on purpose") })).await;
    assert_eq!(response.status(), 500);
    let endless = tokio::spawn(std::future::pending());
    endless.abort();
    assert_eq!(joined(endless).await.status(), 503);
}
