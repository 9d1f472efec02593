//! Messages that pass: heads, bodies, versions, fields.

use super::*;

#[tokio::test]
async fn requests_share_connections_on_both_sides() {
    let app = Backend::echo().await;
    let rig = Rig::serving(&app, |_| ());
    let mut client = rig.connect().await;
    for round in 0..5 {
        client
            .send(format!("GET /{round}?a=%2F;b//c HTTP/1.1\r\nHost: example.org:81\r\nX: 1\r\nx: 2\r\n\r\n"))
            .await;
        let reply = client.reply().await;
        assert_eq!(reply.status(), 200);
        let text = reply.text();
        assert!(
            text.starts_with(&format!("GET /{round}?a=%2F;b//c HTTP/1.1\r\nhost: example.org:81\r\n")),
            "{text}"
        );
        assert!(text.contains("x: 1\r\nx: 2\r\n"), "{text}");
        assert!(text.contains("x-forwarded-for: 127.0.0.1\r\n"), "{text}");
        assert!(text.contains("x-forwarded-proto: http\r\n"), "{text}");
        assert!(text.contains("x-forwarded-port: 81\r\n"), "{text}");
        assert!(text.contains("x-forwarded-host: example.org:81\r\n"), "{text}");
    }
    assert_eq!(app.connections(), 1);
    let snapshot = rig.counters.snapshot();
    assert_eq!((snapshot.total_requests, snapshot.by_class), (5, [0, 5, 0, 0, 0]));
    assert_eq!(snapshot.by_release, [("r1".to_owned(), [0, 5, 0, 0, 0])]);
    assert_eq!((snapshot.upstream_sockets_created, snapshot.client_connections), (1, 1));
    assert_eq!((snapshot.latency_count, snapshot.inflight, snapshot.inflight_max), (5, 0, 1));
    assert!(snapshot.rolling_rps60 > 0.0);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let app = Backend::echo().await;
    let rig = Rig::serving(&app, |_| ());
    let mut client = rig.connect().await;
    let requests: String = (0..20).map(|n| format!("GET /{n} HTTP/1.1\r\nhost: a\r\n\r\n")).collect();
    client.send(requests).await;
    for n in 0..20 {
        assert!(client.reply().await.text().starts_with(&format!("GET /{n} HTTP/1.1\r\n")));
    }
}

#[tokio::test]
async fn bodies_with_a_length_pass_both_ways() {
    let app = Backend::echo().await;
    let rig = Rig::serving(&app, |_| ());
    for length in [1_usize, 1_000, 64 << 10, 3 << 20] {
        let body: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
        let reply = rig.ask([head.as_bytes(), &body].concat()).await;
        assert_eq!(reply.status(), 200);
        assert!(reply.body.ends_with(&body), "{length}");
        let head = &reply.body[..reply.body.len() - length];
        assert!(String::from_utf8_lossy(head).contains(&format!("content-length: {length}\r\n")));
    }
}

#[tokio::test]
async fn chunked_bodies_and_trailers_pass_both_ways() {
    let app = Backend::start(|mut connection, _| async move {
        while let Some(request) = connection.request().await {
            let sum = String::from_utf8_lossy(&request).contains("0\r\nx-sum: 7\r\n");
            connection
                .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Got\r\n\r\n3\r\nabc\r\n")
                .await;
            connection.send(format!("0\r\nX-Got: {sum}\r\n\r\n")).await;
        }
    })
    .await;
    let rig = Rig::serving(&app, |_| ());
    let mut client = rig.connect().await;
    client
        .send("POST / HTTP/1.1\r\nhost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n")
        .await;
    client.send("3;a=b\r\nyou\r\n0\r\nX-Sum: 7\r\n\r\n").await;
    let head = client.reply_to_head().await;
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
    assert_eq!(head.header("trailer"), Some("X-Got"));
    assert_eq!(client.until(b"\r\n\r\n").await, b"3\r\nabc\r\n0\r\nx-got: true\r\n\r\n");
    let seen = app.seen().concat();
    assert!(seen.contains("transfer-encoding: chunked\r\n") && seen.contains("te: trailers\r\n"), "{seen}");
    assert!(seen.contains("connection: te\r\n"), "{seen}");

    // Who did not ask for trailers gets none, and the connection goes on.
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.reply().await.text(), "3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn answers_without_a_body_keep_their_length_and_the_connection() {
    let app = Backend::start(|mut connection, _| async move {
        while let Some(head) = connection.head().await {
            connection
                .send(match head.split(' ').nth(1).unwrap() {
                    "/204" => "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
                    "/304" => "HTTP/1.1 304 Not Modified\r\ncontent-length: 12\r\netag: x\r\n\r\n",
                    "/chunked" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                    _ => "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n",
                })
                .await;
        }
    })
    .await;
    let rig = Rig::serving(&app, |_| ());
    let mut client = rig.connect().await;
    for (request, status, length) in [
        ("HEAD /", 200, Some("12")),
        ("GET /204", 204, None),
        ("GET /304", 304, Some("12")),
        ("HEAD /chunked", 200, None),
    ] {
        client.send(format!("{request} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let reply = client.reply_to_head().await;
        assert_eq!((reply.status(), reply.header("content-length")), (status, length), "{request}");
    }
    assert_eq!(app.connections(), 1);
    assert!(client.buf.is_empty());
}

#[tokio::test]
async fn interim_answers_are_skipped() {
    let app = Backend::fixed(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 Fine\r\ncontent-length: 2\r\n\r\nok",
    )
    .await;
    let rig = Rig::serving(&app, |_| ());
    let reply = rig.ask(GET).await;
    assert_eq!((reply.head.lines().next().unwrap(), reply.text()), ("HTTP/1.1 200 Fine", "ok"));
}

#[tokio::test]
async fn an_answer_until_the_end_of_the_connection_is_passed_on_whole() {
    let app = Backend::start(|mut connection, _| async move {
        connection.head().await;
        connection.send("HTTP/1.1 200 OK\r\n\r\nuntil ").await;
        connection.send("the end").await;
    })
    .await;
    let rig = Rig::serving(&app, |_| ());
    assert!(rig.ask(GET).await.text().contains("until"));
    let reply = rig.ask("GET / HTTP/1.0\r\n\r\n").await;
    assert!(reply.head.starts_with("HTTP/1.0 200 OK"));
    assert_eq!((reply.header("transfer-encoding"), reply.text()), (None, "until the end"));
    assert_eq!(app.connections(), 2);
}

#[tokio::test]
async fn http_1_0_clients_are_served() {
    let app =
        Backend::fixed("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
    let rig = Rig::serving(&app, |_| ());
    let mut client = rig.connect().await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    assert!(String::from_utf8(client.rest().await).unwrap().ends_with("\r\n\r\nok"));
    let seen = app.seen().concat();
    assert!(seen.starts_with(&format!("GET / HTTP/1.1\r\nhost: {}\r\n", app.addr)), "{seen}");

    let app = Backend::fixed(OK).await;
    let rig = Rig::serving(&app, |_| ());
    let mut client = rig.connect().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        let reply = client.reply().await;
        assert_eq!((reply.header("connection"), reply.text()), (Some("keep-alive"), "ok"));
    }
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    assert!(client.rest().await.ends_with(b"ok"));
}

#[tokio::test]
async fn expectations_are_met_once_and_not_passed_on() {
    let app = Backend::echo().await;
    let rig = Rig::serving(&app, |_| ());
    let mut client = rig.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.until(b"\r\n\r\n").await, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello").await;
    let reply = client.reply().await;
    assert_eq!(reply.status(), 200);
    assert!(reply.text().ends_with("hello") && !reply.text().contains("expect"), "{}", reply.text());
}

#[tokio::test]
async fn nothing_is_promised_to_an_expectation_without_an_app() {
    let rig = Rig::start(|_| ());
    let mut client = rig.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.reply_to_head().await.status(), 503);
}

#[tokio::test]
async fn an_absolute_target_becomes_an_ordinary_one() {
    let app = Backend::echo().await;
    let rig = Rig::serving(&app, |_| ());
    for (target, line) in [
        ("http://b:8/c?d", "GET /c?d HTTP/1.1\r\nhost: b:8\r\n"),
        ("http://b", "GET / HTTP/1.1\r\nhost: b\r\n"),
        ("http://b?x=1", "GET /?x=1 HTTP/1.1\r\nhost: b\r\n"),
    ] {
        let reply = rig.ask(format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        assert!(reply.text().starts_with(line), "{}", reply.text());
        assert_eq!(reply.text().matches("\r\nhost: ").count(), 1);
    }
}

#[tokio::test]
async fn fields_of_one_connection_stay_there() {
    let app = Backend::start(|mut connection, _| async move {
        while let Some(head) = connection.head().await {
            let answer = "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-private\r\nkeep-alive: timeout=5\r\n\
                x-private: 1\r\nproxy-connection: a\r\nserver: mine\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
                set-cookie: a\r\nset-cookie: b\r\n";
            connection.send(format!("{answer}content-length: {}\r\n\r\n{head}", head.len())).await;
        }
    })
    .await;
    let rig = Rig::serving(&app, |_| ());
    let reply = rig
        .ask(
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: x-mine, X-Forwarded-For, host, keep-alive\r\nx-mine: 1\r\n\
            keep-alive: 1\r\nproxy-connection: b\r\nte: gzip\r\nupgrade: h2c\r\nx-stays: 1\r\n\r\n",
        )
        .await;
    for gone in ["x-mine", "keep-alive", "proxy-connection", "\r\nte:", "upgrade", "connection:"] {
        assert!(!reply.text().contains(gone), "{gone} in {}", reply.text());
    }
    for kept in ["host: a\r\n", "x-stays: 1\r\n", "x-forwarded-for: 127.0.0.1\r\n"] {
        assert!(reply.text().contains(kept), "no {kept} in {}", reply.text());
    }
    for gone in ["connection", "keep-alive", "x-private", "proxy-connection"] {
        assert_eq!(reply.header(gone), None, "{gone}");
    }
    assert_eq!(reply.header("server"), Some("mine"));
    assert_eq!(reply.head.matches("date: ").count(), 1);
    assert!(reply.head.contains("set-cookie: a\r\nset-cookie: b\r\n"), "{}", reply.head);
}

#[tokio::test]
async fn forwarded_fields_follow_the_configuration() {
    const REQUEST: &str = "GET / HTTP/1.1\r\nhost: h\r\nx-forwarded-for: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n\
        x-forwarded-proto: https\r\nx-forwarded-port: 443\r\nx-forwarded-host: outer\r\n\r\n";
    let app = Backend::echo().await;
    let trusting = |config: &mut Config| config.proxy.trusted = vec!["127.0.0.0/8".parse().unwrap()];
    let appending = |config: &mut Config| config.proxy.forwarded = Forwarded::Append;
    let off = |config: &mut Config| config.proxy.forwarded = Forwarded::Off;
    let replaced = ["127.0.0.1", "http", "80", "h"];
    let believed = ["1.1.1.1, 2.2.2.2, 127.0.0.1", "https", "443", "outer"];
    let appended = ["1.1.1.1, 2.2.2.2, 127.0.0.1", "https, http", "443, 80", "outer"];
    let untouched = ["1.1.1.1\r\nx-forwarded-for: 2.2.2.2", "https", "443", "outer"];
    let nothing: fn(&mut Config) = |_| ();
    for (change, expected) in
        [(nothing, replaced), (trusting, believed), (appending, appended), (off, untouched)]
    {
        let rig = Rig::serving(&app, change);
        let reply = rig.ask(REQUEST).await;
        for (name, value) in ["for", "proto", "port", "host"].into_iter().zip(expected) {
            assert!(
                reply.text().contains(&format!("x-forwarded-{name}: {value}\r\n")),
                "{name}: {}",
                reply.text()
            );
        }
        let lines = reply.text().matches("x-forwarded-").count();
        assert_eq!(lines, if expected == untouched { 5 } else { 4 });
    }
    let rig = Rig::serving(&app, appending);
    assert!(rig.ask(GET).await.text().contains("x-forwarded-host: a\r\n"));
    let rig = Rig::serving(&app, off);
    assert!(!rig.ask(GET).await.text().contains("x-forwarded"));
}

#[tokio::test]
async fn the_reserved_prefix_is_answered_without_an_app() {
    let rig = Rig::start(|_| ());
    let reply = rig.ask("POST /__deploy HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc").await;
    assert_eq!((reply.status(), reply.text()), (200, "admin /__deploy 127.0.0.1 3"));
    let reply = rig.ask("GET http://x/__s HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(reply.text(), "admin /__s 127.0.0.1 0");
    assert_eq!(rig.counters.snapshot().total_requests, 0);
    let reply = rig.ask(GET).await;
    assert_eq!((reply.status(), reply.header("portok-error")), (503, Some("no_live_target")));
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert!(!reply.text().contains("message"));

    let app = Backend::echo().await;
    let rig = Rig::serving(&app, |config| config.admin.public = false);
    assert!(rig.ask("GET /__s HTTP/1.1\r\nhost: a\r\n\r\n").await.text().starts_with("GET /__s "));
}

#[tokio::test]
async fn events_are_passed_on_as_they_come() {
    let app = Backend::start(|mut connection, _| async move {
        connection.head().await;
        connection
            .send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        connection.send("3\r\none\r\n").await;
        // The next event comes only when the first has arrived, and then the client goes away.
        connection.is_closed().await;
    })
    .await;
    let mut rig = Rig::start(|_| ());
    let target = rig.route(&app);
    let mut client = rig.connect().await;
    client.send(GET).await;
    client.until(b"one\r\n").await;
    assert_eq!(target.inflight(), 1);
    drop(client);
    eventually("the request has ended", || target.inflight() == 0).await;
    assert_eq!(rig.counters.snapshot().total_proxy_errors, 0);
}

#[tokio::test]
async fn answer_and_request_go_on_side_by_side() {
    let app = Backend::start(|mut connection, _| async move {
        connection.head().await;
        connection.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        for _ in 0..3 {
            let part = connection.exactly(8).await.unwrap();
            connection.send(part).await;
        }
        connection.until(b"0\r\n\r\n").await;
        connection.send("0\r\n\r\n").await;
    })
    .await;
    let rig = Rig::serving(&app, |_| ());
    let mut client = rig.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    client.until(b"\r\n\r\n").await;
    for part in ["3\r\none\r\n", "3\r\ntwo\r\n", "3\r\nsix\r\n"] {
        client.send(part).await;
        assert_eq!(client.exactly(8).await, part.as_bytes());
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.exactly(5).await, b"0\r\n\r\n");
    client.send(GET).await;
}
