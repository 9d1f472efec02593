//! Which app a request reaches, by whatever name and in whatever form it asks; what becomes of its
//! path; and listeners of several kinds.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::apps::{App, ask, named};
use super::*;

/// Moves a connection over to hyper, where it stays.
const NOT_PLAIN: &str = "POST /first HTTP/1.1\r\nhost: any\r\ncontent-length: 0\r\n\r\n";

/// Asks over a connection of its own that is still on the short way, then over one that is hyper's.
async fn both_ways(addr: SocketAddr, request: &str) -> [Reply; 2] {
    let connect = || async { Client { stream: TcpStream::connect(addr).await.unwrap(), buf: Vec::new() } };
    let (mut short, mut hypers) = (connect().await, connect().await);
    hypers.send(NOT_PLAIN).await;
    hypers.reply().await;
    for client in [&mut short, &mut hypers] {
        client.send(request).await;
    }
    match request.starts_with("HEAD ") {
        true => [short.reply_to_head().await, hypers.reply_to_head().await],
        false => [short.reply().await, hypers.reply().await],
    }
}

fn get(host: &str, target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n")
}

/// The lines of a request as an app got it, from an app that answers with them.
fn line<'r>(reply: &'r Reply, name: &str) -> Vec<&'r str> {
    let named = |line: &'r str| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name));
    reply.text().lines().filter_map(named).map(|(_, value)| value).collect()
}

#[tokio::test]
async fn a_prefix_is_taken_off_and_the_app_is_told_which() {
    let app = Backend::echo().await;
    let rig = Rig::start(|_| ());
    let mut api = App::new(&rig, |_| ());
    api.switch(&app);
    let strip = |path| api.at_with("*", path, Handling::StripPrefix);
    rig.board.route(vec![strip("/v1"), strip("/deep/er/"), strip("/")]);
    for (asked, path, prefix) in [
        ("/v1", "/", Some("/v1")),
        ("/v1?x", "/?x", Some("/v1")),
        ("/v1/", "/", Some("/v1")),
        ("/v1/x/?y=/v1/", "/x/?y=/v1/", Some("/v1")),
        ("/v1//other.test/x", "/other.test/x", Some("/v1")),
        ("/v1///", "/", Some("/v1")),
        ("/v1/v1", "/v1", Some("/v1")),
        ("/deep/er/x", "/x", Some("/deep/er")),
        ("/deep/er/", "/", Some("/deep/er")),
        // Nothing of these is a segment of a route.
        ("/v1x", "/v1x", None),
        ("//v1", "//v1", None),
        ("/v%31/x", "/v%31/x", None),
    ] {
        for reply in both_ways(rig.addr, &get("a", asked)).await {
            assert!(
                reply.text().starts_with(&format!("GET {path} HTTP/1.1\r\n")),
                "{asked}: {}",
                reply.text()
            );
            assert_eq!(line(&reply, "x-forwarded-prefix"), prefix.as_slice(), "{asked}");
        }
    }
    let absolute = "GET http://b/v1?q HTTP/1.1\r\nhost: a\r\n\r\n";
    for reply in both_ways(rig.addr, absolute).await {
        assert!(reply.text().starts_with("GET /?q HTTP/1.1\r\nhost: b\r\n"), "{}", reply.text());
    }
    let whole = "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n";
    assert!(rig.ask(whole).await.text().starts_with("OPTIONS * HTTP/1.1\r\n"));
}

#[tokio::test]
async fn a_client_that_is_not_trusted_cannot_say_which_prefix_was_taken() {
    let app = Backend::echo().await;
    let own = "/v1".to_owned();
    let said = |reply: &Reply| {
        let lines = reply.text().lines().filter_map(|line| line.split_once(": "));
        let lines =
            lines.filter(|(name, _)| name.to_ascii_lowercase().replace('_', "-") == "x-forwarded-prefix");
        lines.map(|(_, value)| value.to_owned()).collect::<Vec<_>>()
    };
    let request =
        "GET /v1/x HTTP/1.1\r\nhost: a\r\nX-Forwarded-Prefix: /one\r\nx_forwarded-PREFIX: /two\r\n\r\n";
    for (forwarded, trusted, told) in [
        (Forwarded::Trusted, false, vec![own.clone()]),
        (Forwarded::Append, false, vec![own.clone()]),
        (Forwarded::Off, false, vec![own.clone()]),
        (Forwarded::Trusted, true, vec!["/one".into(), "/two".into(), own.clone()]),
    ] {
        let rig = Rig::start(|config| {
            config.proxy.forwarded = forwarded;
            config.proxy.trusted = if trusted { vec!["127.0.0.0/8".parse().unwrap()] } else { Vec::new() };
        });
        let mut api = App::new(&rig, |_| ());
        api.switch(&app);
        rig.board.route(vec![api.at_with("*", "/v1", Handling::StripPrefix), api.at("*", "/")]);
        for reply in both_ways(rig.addr, request).await {
            assert_eq!(said(&reply), told, "{forwarded:?}");
        }
    }
}

#[tokio::test]
async fn a_redirect_keeps_path_and_query_and_asks_no_app() {
    let app = named("app").await;
    let rig = Rig::start(|_| ());
    let (mut shop, www) = (App::new(&rig, |_| ()), App::new(&rig, |_| ()));
    shop.switch(&app);
    let to = Handling::Redirect("https://example.com".into());
    rig.board.route(vec![shop.at("*", "/"), www.at_with("www", "/", to.clone()), shop.at("www", "/app")]);
    for (method, target, location) in [
        ("GET", "/", "/"),
        ("HEAD", "/a//b/../%2F?c=d&e", "/a//b/../%2F?c=d&e"),
        ("POST", "//evil.test/@x:80", "//evil.test/@x:80"),
        ("GET", "/?https://example.com", "/?https://example.com"),
        ("GET", "http://www", "/"),
        ("GET", "http://www?q", "/?q"),
        ("GET", "http://WWW.:80/x?q", "/x?q"),
        ("OPTIONS", "*", ""),
        ("OPTIONS", "http://www", ""),
    ] {
        let request = format!("{method} {target} HTTP/1.1\r\nhost: www\r\n\r\n");
        for reply in both_ways(rig.addr, &request).await {
            let expected = format!("https://example.com{location}");
            assert_eq!((reply.status(), reply.header("location")), (308, Some(&*expected)), "{request}");
            assert_eq!(reply.header("content-length").unwrap_or("0"), "0");
            assert_eq!((reply.header("portok-error"), reply.header("connection")), (None, None));
        }
    }
    // A connection goes on, and alternates.
    let mut client = rig.connect().await;
    for _ in 0..3 {
        client.send(get("www", "/x")).await;
        assert_eq!(client.reply().await.status(), 308);
        assert_eq!(ask(&mut client, &get("other", "/x")).await, "app other /x");
        assert_eq!(ask(&mut client, &get("www", "/app/y")).await, "app www /app/y");
    }
    // A body that nobody reads must not be taken for a request.
    let mut client = rig.connect().await;
    client.send("POST /x HTTP/1.1\r\nhost: www\r\ncontent-length: 5\r\n\r\nhello").await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.header("connection")), (308, Some("close")));
    assert!(client.is_closed().await);
    let counters = www.service.counters().snapshot();
    assert_eq!(counters.by_class, [0, 0, 9 * 2 + 4, 0, 0]);
    assert_eq!((counters.total_requests, counters.inflight), (22, 0));
}

#[tokio::test]
async fn an_own_listener_is_one_app_s_alone() {
    let (api, hook) = (named("api").await, named("hook").await);
    let rig = Rig::start(|config| config.proxy.threads = 2);
    let (mut one, mut other) = (App::new(&rig, |_| ()), App::new(&rig, |_| ()));
    one.switch(&api);
    other.switch(&hook);
    let (own, addr) = rig.listen(ListenerId::App).await;
    let at_own =
        |how| Route { at: At::Listener(own), to: Destination { service: other.service.clone(), how } };
    rig.board.route(vec![one.at("api", "/"), one.at("*", "/v1"), at_own(Handling::StripPrefix)]);
    for host in ["api", "any", "[::1]:9"] {
        for target in ["/", "/v1/x", "/__status"] {
            for reply in both_ways(addr, &get(host, target)).await {
                assert_eq!(
                    reply.text(),
                    format!("hook {host} {target}"),
                    "even where it is admin's elsewhere"
                );
            }
        }
    }
    assert!(rig.ask(get("api", "/")).await.text().starts_with("api "));
    assert_eq!(rig.ask(get("any", "/")).await.status(), 404);
    assert!(rig.ask(get("any", "/__status")).await.text().starts_with("admin "));
    // Without its route it falls to nobody.
    rig.board.route(vec![one.at("*", "/")]);
    for reply in both_ways(addr, &get("api", "/")).await {
        assert_eq!(reply.header("portok-error"), Some("no_route"));
    }
}

#[tokio::test]
async fn the_instance_s_listeners_share_one_table() {
    let api = named("api").await;
    let rig = Rig::start(|config| config.proxy.threads = 2);
    let mut app = App::new(&rig, |_| ());
    app.switch(&api);
    rig.board.route(vec![app.at("api", "/")]);
    let (_, further) = rig.listen(ListenerId::Instance).await;
    for addr in [rig.addr, further] {
        for reply in both_ways(addr, &get("api", "/")).await {
            assert_eq!(reply.text(), "api api /");
        }
        for reply in both_ways(addr, &get("other", "/")).await {
            assert_eq!(reply.status(), 404);
        }
    }
}

#[tokio::test]
async fn a_listener_that_is_left_under_load_fails_no_request() {
    let api = named("api").await;
    let rig = Rig::start(|config| config.proxy.threads = 2);
    let mut app = App::new(&rig, |_| ());
    app.switch(&api);
    for round in 0..5 {
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = listener.local_addr().unwrap();
        let (own, duplicate) = (ListenerId::App(addr), listener.try_clone().unwrap());
        rig.plane.listen(own, listener).await.unwrap();
        rig.board.route(vec![Route { at: At::Listener(own), to: Destination::pass(app.service.clone()) }]);
        let clients: Vec<_> = (0..8)
            .map(|number| {
                tokio::spawn(async move {
                    // Accepted or refused; what was accepted is answered.
                    let mut answered = 0;
                    while let Ok(stream) = TcpStream::connect(addr).await {
                        let mut client = Client { stream, buf: Vec::new() };
                        for _ in 0..=number % 3 {
                            assert_eq!(ask(&mut client, &get("x", "/")).await, "api x /");
                            answered += 1;
                        }
                    }
                    answered
                })
            })
            .collect();
        let begun = app.service.counters().snapshot().total_requests;
        let is_busy = || app.service.counters().snapshot().total_requests > begun + 50;
        eventually("requests are answered", is_busy).await;
        last_call(&[&duplicate]).await;
        drop(duplicate);
        rig.plane.leave(own).await;
        for client in clients {
            client.await.unwrap();
        }
        assert!(TcpStream::connect(addr).await.is_err(), "round {round}");
    }
}

#[tokio::test]
async fn with_several_apps_the_admin_paths_are_reserved_on_the_admin_s_hosts() {
    let api = named("api").await;
    let rig = Rig::start(|config| config.admin.hosts = vec!["ops.test".into()]);
    let mut app = App::new(&rig, |_| ());
    app.switch(&api);
    assert!(rig.ask(get("api.test", "/__status")).await.text().starts_with("admin "), "one app");
    rig.board.route(vec![app.at("*", "/")]);
    for host in ["ops.test", "OPS.test.:80"] {
        for reply in both_ways(rig.addr, &get(host, "/__status")).await {
            assert!(reply.text().starts_with("admin "), "{host}");
        }
        let absolute = format!("GET http://{host}/__status HTTP/1.1\r\nhost: api.test\r\n\r\n");
        assert!(rig.ask(absolute).await.text().starts_with("admin "));
    }
    for host in ["api.test", "x.ops.test", "ops.test.."] {
        for reply in both_ways(rig.addr, &get(host, "/__status")).await {
            assert_eq!(reply.text(), format!("api {host} /__status"));
        }
    }
    let absolute = "GET http://api.test/__status HTTP/1.1\r\nhost: ops.test\r\n\r\n";
    assert_eq!(rig.ask(absolute).await.text(), "api api.test /__status");
    let without = rig.ask("GET /__status HTTP/1.0\r\n\r\n").await;
    assert!(without.text().starts_with("api "), "{}", without.text());
}

/// Which app a host belongs to, thought up anew.
fn model(host: &str) -> &'static str {
    let host = host.to_ascii_lowercase();
    let name = match host.rsplit_once(']') {
        Some((address, _)) => format!("{address}]"),
        None => host.split(':').next().unwrap().to_owned(),
    };
    let name = name.strip_suffix('.').unwrap_or(&name);
    let is_below = |end| name.strip_suffix(end).is_some_and(|label| !label.is_empty());
    match name {
        "a.b" | "xn--bcher-kva.b" | "[::1]" => "exact",
        _ if is_below(".a.b") => "deep",
        _ if is_below(".b") => "below",
        _ => "any",
    }
}

fn host() -> impl Strategy<Value = String> {
    let label = prop_oneof![
        4 => "[a-z0-9_]{1,3}",
        2 => Just("a".to_owned()),
        1 => Just("xn--bcher-kva".to_owned()),
        1 => "[!-~]{1,3}",
        1 => Just("b%2e".to_owned()),
        1 => Just("x".repeat(300)),
        1 => Just(String::new()),
    ];
    let name = prop_oneof![
        4 => Just("a.b".to_owned()),
        4 => label.clone().prop_map(|label| format!("{label}.b")),
        3 => label.clone().prop_map(|label| format!("{label}.a.b")),
        2 => label,
        1 => Just("[::1]".to_owned()),
        1 => Just("[0::1]".to_owned()),
        1 => Just("[::FFFF:1.2.3.4]".to_owned()),
        1 => Just("::1".to_owned()),
        1 => Just("127.0.0.1".to_owned()),
        1 => Just("user@a.b".to_owned()),
        1 => Just("a.b/".to_owned()),
    ];
    let end = prop_oneof![
        5 => Just(""), 2 => Just("."), 1 => Just(".."), 2 => Just(":80"), 1 => Just(".:80"), 1 => Just(":"),
        1 => Just(":65536"), 1 => Just(":x"), 1 => Just(" "), 1 => Just("\t"), 1 => Just(",a.b"),
    ];
    (name, end, any::<bool>()).prop_map(|(name, end, upper)| {
        let host = format!("{name}{end}");
        if upper { host.to_ascii_uppercase() } else { host }
    })
}

/// A request.
#[derive(Debug, Clone)]
struct Asked {
    text: String,
    /// The host that it is for; `None`: it names two, and none is right.
    host: Option<String>,
    /// All that it names is beyond doubt a host.
    is_plain: bool,
}

fn request() -> impl Strategy<Value = Asked> {
    (host(), host(), 0..9_u8).prop_map(|(one, other, form)| {
        let text = match form {
            0..3 => format!("GET /p HTTP/1.1\r\nHost: {one}\r\n\r\n"),
            3 => format!("GET http://{one}/p HTTP/1.1\r\nx: y\r\nhost: {other}\r\n\r\n"),
            4 => format!("GET HTTPS://{one} HTTP/1.1\r\nhost: {other}\r\n\r\n"),
            5 => format!("GET /p HTTP/1.1\r\nhost: {one}\r\nHOST: {other}\r\n\r\n"),
            6 => format!("GET /p HTTP/1.1\r\nhost:{one}\r\nx_host: {other}\r\n\r\n"),
            7 => format!("OPTIONS * HTTP/1.1\r\nhost: {one}\r\n\r\n"),
            _ => format!("GET /p HTTP/1.0\r\nhost: {one}\r\n\r\n"),
        };
        let is_plain = form != 5 && is_plain(&one) && (!(3..5).contains(&form) || is_plain(&other));
        // In a target the path ends it, in a field blanks are no part of it.
        let host = match form {
            3..5 => one.split(['/', '?']).next().unwrap_or_default(),
            _ => one.trim(),
        };
        let host = host.to_owned();
        Asked { text, host: (form != 5).then_some(host), is_plain }
    })
}

#[test]
fn the_host_that_routes_is_the_host_that_is_sent() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (rig, apps, _backends) = runtime.block_on(async {
        let backends = [named("exact").await, named("deep").await, named("below").await, named("any").await];
        let rig = Rig::start(|_| ());
        let mut apps = Vec::new();
        for backend in &backends {
            let mut app = App::new(&rig, |_| ());
            app.switch(backend);
            apps.push(app);
        }
        let exact = ["a.b", "xn--bcher-kva.b", "[::1]"].map(|host| apps[0].at(host, "/"));
        let others = [apps[1].at("*.a.b", "/"), apps[2].at("*.b", "/"), apps[3].at("*", "/")];
        rig.board.route(exact.into_iter().chain(others).collect());
        (rig, apps, backends)
    });
    let check = |Asked { text: request, host, is_plain }| {
        for reply in runtime.block_on(both_ways(rig.addr, &request)) {
            if reply.status() == 400 {
                prop_assert!(!is_plain, "refused: {request}");
                continue;
            }
            prop_assert_eq!(reply.status(), 200, "{}", request);
            let text = reply.text().to_owned();
            let (app, sent) = text.split_once(' ').unwrap();
            let sent = sent.rsplit_once(' ').unwrap().0;
            prop_assert_eq!(Some(sent), host.as_deref(), "{}", request);
            prop_assert_eq!(app, model(sent), "{}", request);
            // hyper's own reader, which takes no `%`, finds the same name in it.
            if let Ok(theirs) = sent.parse::<http::uri::Authority>() {
                prop_assert_eq!(app, model(theirs.host()), "{}", request);
            }
        }
        Ok(())
    };
    let config = ProptestConfig { cases: 768, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config).run(&request(), check).unwrap();
    drop(apps);
}

/// Whether a host has nothing unusual in it: letters, digits, dots, maybe a port.
fn is_plain(host: &str) -> bool {
    let (name, port) = host.split_once(':').unwrap_or((host, "80"));
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !name.is_empty() && name.bytes().all(plain) && port.parse::<u16>().is_ok()
}
