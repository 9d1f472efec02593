//! What the app and the client are told of a request: pages, ids, who the client is, who answered.

use std::fs;

use serde_json::Value;

use crate::harness::conf::Conf;
use crate::harness::daemon::TOKEN;
use crate::harness::wait::wait_for_lines;
use crate::harness::{Daemon, World, wait_until};

fn conf(world: &World) -> Conf {
    world.conf().app(&world.app("v1"))
}

fn started<'w>(world: &'w World, conf: &Conf) -> Daemon<'w> {
    let daemon = world.start(conf);
    daemon.wait_until_serves("v1");
    daemon
}

/// The head as the app got it; `method` decides which way through the proxy the request takes.
fn echoed(daemon: &Daemon<'_>, method: &str, headers: &[(&str, &str)]) -> String {
    let headers = [headers, &[("x-echo", "head")]].concat();
    let body = (method == "POST").then_some(&b"x"[..]);
    daemon.send(method, "/", &headers, body).expect(200).text()
}

/// All values of a header in a raw head.
fn values(head: &str, name: &str) -> Vec<String> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let found = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.trim().to_owned()).collect()
}

const BOTH_WAYS: [&str; 2] = ["GET", "POST"];

#[test]
fn browsers_get_a_page_and_programs_get_json() {
    let world = World::new();
    let pages = world.path("pages");
    fs::create_dir(&pages).unwrap();
    fs::write(pages.join("502.html"), "<p>gone</p>").unwrap();
    fs::write(pages.join("default.html"), "<p>oops</p>").unwrap();
    let conf = conf(&world).set("errors.dir", pages.display().to_string()).set("proxy.max_body", "10");
    let daemon = started(&world, &conf);
    let ask = |method: &str, path: &str, accept: Option<&str>| {
        let headers: Vec<_> = accept.map(|accept| ("accept", accept)).into_iter().collect();
        let body = (method == "POST").then_some(&b"more than ten bytes"[..]);
        daemon.send(method, path, &headers, body)
    };
    const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for (method, path, status, page, code) in [
        ("GET", "/drop", 502, "<p>gone</p>", "upstream_reset"),
        ("POST", "/x", 413, "<p>oops</p>", "body_too_large"),
    ] {
        let answer = ask(method, path, Some(BROWSER)).expect(status);
        assert_eq!(answer.text(), page);
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(
            (answer.header("portok-error"), answer.header("cache-control")),
            (Some(code), Some("no-store"))
        );
        for accept in [None, Some("*/*"), Some("application/json"), Some("text/html;q=0, */*")] {
            let answer = ask(method, path, accept).expect(status);
            assert_eq!(answer.json()["code"], code, "{accept:?}");
        }
    }
    // An app's own errors are its own.
    assert_eq!(ask("GET", "/status/500", Some(BROWSER)).expect(500).text(), "as asked\n");
    // Pages are read again with the configuration, and a bad folder refuses it.
    fs::write(pages.join("502.html"), "<p>another</p>").unwrap();
    daemon.admin("POST", "/__reload", None).expect(200);
    assert_eq!(ask("GET", "/drop", Some(BROWSER)).expect(502).text(), "<p>another</p>");
    fs::write(pages.join("503.html"), vec![b'x'; 300_000]).unwrap();
    let refused = daemon.admin("POST", "/__reload", None).refused(422, "config_invalid");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("errors.dir") && message.contains("503.html: it is larger than"), "{message}");
    assert_eq!(ask("GET", "/drop", Some(BROWSER)).expect(502).text(), "<p>another</p>");
}

#[test]
fn an_id_goes_to_the_app_the_client_and_the_log() {
    let world = World::new();
    let log = world.path("access.log");
    let base = || conf(&world).set("access.file", log.display().to_string());
    let daemon = started(&world, &base().set("proxy.request_id", "keep"));
    let is_made = |id: &str| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let ask = |method: &str, sent: &[(&str, &str)]| {
        let headers = [sent, &[("x-echo", "head")]].concat();
        let body = (method == "POST").then_some(&b"x"[..]);
        let answer = daemon.send(method, "/", &headers, body).expect(200);
        let told = answer.header("x-request-id").unwrap_or_default().to_owned();
        let got = values(&answer.text(), "x-request-id");
        assert_eq!(got, [told.as_str()], "the app got another one");
        told
    };
    for method in BOTH_WAYS {
        // The tests' address is trusted.
        assert_eq!(ask(method, &[("X-Request-Id", "from-outside.7")]), "from-outside.7");
        assert!(is_made(&ask(method, &[])));
        assert!(is_made(&ask(method, &[("x-request-id", "two words")])));
        assert!(is_made(&ask(method, &[("x_request_id", "spelt")])));
    }
    // Of a stranger none is kept.
    base().set("proxy.request_id", "keep").set("proxy.trusted", Vec::<String>::new()).save();
    daemon.admin("POST", "/__reload", None).expect(200);
    for method in BOTH_WAYS {
        assert!(is_made(&ask(method, &[("x-request-id", "from-outside.7")])));
    }
    base().set("proxy.request_id", "make").save();
    daemon.admin("POST", "/__reload", None).expect(200);
    let ids = BOTH_WAYS.map(|method| ask(method, &[("x-request-id", "from-outside.7")]));
    assert!(ids.iter().all(|id| is_made(id)) && ids[0] != ids[1], "{ids:?}");
    let refused = daemon.get("/drop").expect(502);
    assert!(is_made(refused.header("x-request-id").unwrap_or_default()), "{:?}", refused.head);
    wait_for_lines("the ids in the log", &log, |lines| {
        ids.iter().all(|id| lines.iter().any(|line| line.contains(&format!("\"request_id\":\"{id}\""))))
    });
    // What traces a request is nobody's but the app's and its client's.
    let traced =
        [("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), ("tracestate", "a=b")];
    let head = echoed(&daemon, "GET", &traced);
    assert_eq!(values(&head, "traceparent"), [traced[0].1]);
    assert_eq!(values(&head, "tracestate"), [traced[1].1]);
}

#[test]
fn an_app_learns_of_its_client_by_the_fields_that_are_wanted() {
    let world = World::new();
    let daemon =
        started(&world, &conf(&world).set("proxy.forwarded_header", "forwarded").set("proxy.real_ip", true));
    let sent = [
        ("x-forwarded-for", "192.0.2.1, 192.0.2.7"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "6.6.6.6"),
        ("x_real_ip", "6.6.6.6"),
    ];
    for method in BOTH_WAYS {
        // The tests' address is trusted.
        let head = echoed(&daemon, method, &sent);
        let forwarded = values(&head, "forwarded");
        assert_eq!(forwarded.len(), 1, "{head}");
        let before = "for=192.0.2.1;proto=https, for=192.0.2.7, for=\"127.0.0.1:";
        assert!(forwarded[0].starts_with(before), "{head}");
        assert!(forwarded[0].ends_with("\";proto=http;host=app.test"), "{head}");
        assert_eq!(values(&head, "x-real-ip"), ["192.0.2.7"], "{head}");
        for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x_real_ip"] {
            assert!(values(&head, name).is_empty(), "{name}: {head}");
        }
        let head = echoed(&daemon, method, &[("forwarded", "for=192.0.2.9")]);
        assert!(values(&head, "forwarded")[0].starts_with("for=192.0.2.9, for=\"127.0.0.1:"), "{head}");
        assert_eq!(values(&head, "x-real-ip"), ["192.0.2.9"], "{head}");
    }
    // A stranger says nothing of who came before.
    let strange = conf(&world).set("proxy.trusted", Vec::<String>::new()).set("proxy.real_ip", true);
    strange.set("proxy.forwarded_header", "both").save();
    daemon.admin("POST", "/__reload", None).expect(200);
    for method in BOTH_WAYS {
        let head = echoed(&daemon, method, &[("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "6.6.6.6")]);
        assert!(values(&head, "forwarded")[0].starts_with("for=\"127.0.0.1:"), "{head}");
        assert_eq!(values(&head, "x-forwarded-for"), ["127.0.0.1"], "{head}");
        assert_eq!(values(&head, "x-real-ip"), ["127.0.0.1"], "{head}");
    }
}

#[test]
fn who_has_the_token_is_told_who_answered() {
    let world = World::new();
    let daemon = started(&world, &conf(&world).set("proxy.debug", true).set("admin.rate_limit", 3));
    let release = daemon.status().live.unwrap().release;
    let told = |method: &str, token: Option<&str>| {
        let mut headers = vec![("x-echo", "head")];
        headers.extend(token.map(|token| ("x-admin-token", token)));
        let body = (method == "POST").then_some(&b"x"[..]);
        let answer = daemon.send(method, "/", &headers, body).expect(200);
        let fields = ["x-portok-app", "x-portok-release", "x-portok-replica", "x-portok-upstream-ms"];
        let found = fields.map(|name| answer.header(name).map(str::to_owned));
        (found, values(&answer.text(), "x-admin-token"))
    };
    const NOTHING: [Option<String>; 4] = [None, None, None, None];
    for method in BOTH_WAYS {
        let ([app, by, replica, time], passed) = told(method, Some(TOKEN));
        assert_eq!((app.as_deref(), by.as_deref()), (Some(world.name()), Some(&*release)));
        assert_eq!(replica.as_deref(), Some("0"));
        assert!(time.is_some_and(|time| time.parse::<f64>().unwrap() > 0.0));
        assert!(passed.is_empty(), "the app gets no token of portok's");
        assert_eq!(told(method, None), (NOTHING, Vec::new()));
    }
    // Three wrong ones are looked at, and then none, not even the right one.
    for guess in ["wrong-1", "wrong-2", "wrong-3"] {
        assert_eq!(told("GET", Some(guess)), (NOTHING, vec![guess.to_owned()]));
    }
    assert_eq!(told("GET", Some(TOKEN)).0, NOTHING);
    // They count where the admin API looks, too.
    daemon.send("GET", "/__status", &[("x-admin-token", "wrong-4")], None).refused(429, "rate_limited");
    daemon.send_admin("GET", "/__status").expect(200);
}

#[test]
fn the_log_says_as_much_as_is_wanted_of_each_part() {
    let world = World::new();
    let daemon = started(&world, &conf(&world).set("log.level", "error"));
    let fails = || daemon.get("/drop").expect(502);
    fails();
    conf(&world).set("log.level", "error,proxy=debug").save();
    daemon.admin("POST", "/__reload", None).expect(200);
    fails();
    wait_until(
        "the proxy says why",
        || daemon.log(),
        || {
            let said = |line: &&str| line.contains("a request got no answer of the app's");
            (daemon.log().lines().filter(said).count() == 1).then_some(())
        },
    );
    let log = daemon.log();
    assert!(!log.contains(" INFO ") && !log.contains("configuration loaded"), "{log}");
    conf(&world).set("log.level", "loud").save();
    let refused: Value = daemon.admin("POST", "/__reload", None).refused(422, "config_invalid");
    assert!(
        refused["message"].as_str().unwrap().contains("log.level = \"loud\": expected a level"),
        "{refused:#}"
    );
}
