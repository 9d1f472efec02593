//! What a stranger's fields, upgrades and trailers may not do, and what is counted: on both ways of
//! a request.

use super::*;

/// A field that takes a request the long way.
const LONG_WAY: &str = "Expect: 100-continue\r\n";

/// What the app is asked by a client that sends `fields`, on each way.
async fn asked(fields: &str, change: fn(&mut Config)) -> [String; 2] {
    let app = Backend::echo().await;
    let rig = Rig::serving(&app, change);
    let ask = async |way: &str| {
        let request = format!("GET / HTTP/1.1\r\nhost: h:81\r\n{fields}{way}\r\n");
        rig.ask(request).await.text().to_owned()
    };
    [ask("").await, ask(LONG_WAY).await]
}

fn trusting(config: &mut Config) {
    config.proxy.trusted = vec!["127.0.0.0/8".parse().unwrap()];
}

/// What a stranger may have made up about itself.
const CLAIMS: &str = "X_Forwarded_For: 6.6.6.1\r\nx-forwarded_for: 6.6.6.2\r\nX_FORWARDED_PROTO: 6.6.6.3\r\n\
    X_Forwarded_Host: 6.6.6.4\r\nx_forwarded-port: 6.6.6.5\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-Ssl: 6.6.6.7\r\n\
    X-Forwarded-Scheme: 6.6.6.8\r\nX-Forwarded-Prefix: 6.6.6.9\r\nX_Forwarded_Prefix: 6.6.6.10\r\nX-Real-IP: 6.6.6.11\r\n\
    x_real_ip: 6.6.6.12\r\nX-Forwarded-For: 6.6.6.13\r\n";

#[tokio::test]
async fn what_a_stranger_says_of_itself_reaches_nobody_in_any_spelling() {
    for head in asked(CLAIMS, |_| ()).await {
        assert!(!head.contains("6.6.6."), "{head}");
        assert!(head.contains("x-forwarded-for: 127.0.0.1\r\n"), "{head}");
    }
}

#[tokio::test]
async fn a_trusted_front_is_believed_but_not_in_spellings_that_its_clients_may_have_sent() {
    for head in asked(CLAIMS, trusting).await {
        for kept in [
            "\r\nforwarded: for=6.6.6.6\r\n",
            "x-forwarded-ssl: 6.6.6.7\r\n",
            "x-forwarded-scheme: 6.6.6.8\r\n",
            "x-forwarded-prefix: 6.6.6.9\r\n",
            "x-real-ip: 6.6.6.11\r\n",
            "x-forwarded-for: 6.6.6.13, 127.0.0.1\r\n",
        ] {
            assert!(head.contains(kept), "no {kept} in {head}");
        }
        for gone in [
            "x_forwarded_for",
            "x-forwarded_for",
            "x_forwarded_proto",
            "x_forwarded_host",
            "x_forwarded-port",
        ] {
            assert!(!head.contains(gone), "{gone} in {head}");
        }
    }
}

#[tokio::test]
async fn off_touches_nothing_and_append_is_npm_portoks() {
    for head in asked(CLAIMS, |config| config.proxy.forwarded = Forwarded::Off).await {
        assert_eq!(head.matches("6.6.6.").count(), 13, "{head}");
        assert!(!head.contains("127.0.0.1"), "{head}");
    }
    for head in asked(CLAIMS, |config| config.proxy.forwarded = Forwarded::Append).await {
        assert_eq!(head.matches("6.6.6.").count(), 13, "{head}");
        assert!(head.contains("x-forwarded-for: 6.6.6.13, 127.0.0.1\r\n"), "{head}");
    }
}

#[tokio::test]
async fn what_a_trusted_front_does_not_say_is_set_to_fit_what_it_says() {
    for (fields, proto, port, host) in [
        ("", "http", "81", "h:81"),
        ("X-Forwarded-Proto: https\r\n", "https", "81", "h:81"),
        ("X-Forwarded-Proto: https\r\nX-Forwarded-Host: outer\r\n", "https", "443", "outer"),
        ("X-Forwarded-Host: outer:8443\r\n", "http", "8443", "outer:8443"),
        ("X-Forwarded-Port: 444\r\nX-Forwarded-Proto:\r\n", "http", "444", "h:81"),
    ] {
        for head in asked(fields, trusting).await {
            for (name, value) in [("proto", proto), ("port", port), ("host", host)] {
                let line = format!("\r\nx-forwarded-{name}: {value}\r\n");
                assert!(head.contains(&line), "{fields:?}: no {line:?} in {head}");
                assert_eq!(head.matches(&format!("x-forwarded-{name}:")).count(), 1, "{head}");
            }
        }
    }
}

/// A request that asks for what `lines` say.
fn upgrade(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n{lines}\r\n")
}

#[tokio::test]
async fn only_what_is_allowed_is_offered_to_the_app() {
    let app = Backend::echo().await;
    let rig = Rig::serving(&app, |_| ());
    for (lines, offered) in [
        ("Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", None),
        ("Upgrade: H2C\r\n", None),
        ("Upgrade: websocket, h2c\r\n", Some("websocket")),
        ("Upgrade: h2c,WebSocket\r\nhttp2-settings: x\r\n", Some("WebSocket")),
        ("Upgrade: h2c\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n", Some("websocket")),
        ("Upgrade: TLS/1.0, foo\r\n", None),
        ("Upgrade:\r\n", None),
    ] {
        let reply = rig.ask(upgrade(lines)).await;
        let head = reply.text().to_ascii_lowercase();
        assert!(!head.contains("h2c") && !head.contains("http2-settings") && !head.contains("tls"), "{head}");
        let line = offered.map(|offered| format!("\r\nupgrade: {offered}\r\nconnection: upgrade\r\n"));
        match line {
            Some(line) => assert!(reply.text().contains(&line), "{lines:?}: {}", reply.text()),
            None => assert!(!head.contains("upgrade"), "{lines:?}: {head}"),
        }
    }
    // Settings alone reach nobody either, with or without a connection that names them.
    let reply = rig.ask("GET / HTTP/1.1\r\nhost: a\r\nHTTP2-Settings: x\r\n\r\n").await;
    assert!(!reply.text().contains("http2-settings"), "{}", reply.text());
}

#[tokio::test]
async fn a_101_to_something_else_opens_no_tunnel() {
    for (offer, answer, opens) in [
        ("websocket", "Upgrade: websocket\r\n", true),
        ("websocket", "Upgrade: WebSocket\r\n", true),
        ("websocket, tcp", "Upgrade: tcp\r\n", true),
        ("websocket", "Upgrade: h2c\r\n", false),
        ("websocket", "Upgrade: websocket, h2c\r\n", false),
        ("websocket", "Upgrade: websocket\r\nUpgrade: h2c\r\n", false),
        ("websocket", "Upgrade: h2c\r\nUpgrade: websocket\r\n", false),
        ("websocket", "", false),
        ("websocket", "Upgrade:\r\n", false),
        ("tcp", "Upgrade: websocket\r\n", false),
        ("h2c", "Upgrade: h2c\r\n", false),
    ] {
        let answer: &str =
            format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{answer}\r\n").leak();
        let app = Backend::fixed(answer).await;
        let rig = Rig::serving(&app, |config| config.proxy.upgrades = vec!["websocket".into(), "tcp".into()]);
        let reply = rig.ask(upgrade(&format!("Upgrade: {offer}\r\n"))).await;
        let expected = if opens { (101, None) } else { (502, Some("upstream_invalid")) };
        assert_eq!((reply.status(), reply.header("portok-error")), expected, "{offer} got {answer}");
    }
}

#[tokio::test]
async fn a_connection_that_asked_for_h2c_passes_nothing_round_the_reserved_prefix() {
    let app = Backend::echo().await;
    let rig = Rig::serving(&app, |_| ());
    let mut client = rig.connect().await;
    client.send(upgrade("Upgrade: h2c\r\nHTTP2-Settings: x\r\n")).await;
    assert_eq!(client.reply().await.status(), 200);
    client.send("GET /__s HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(client.reply().await.text().starts_with("admin /__s"));
}

#[tokio::test]
async fn bytes_behind_an_upgrade_that_is_refused_are_the_next_request() {
    let app = Backend::echo().await;
    let rig = Rig::serving(&app, |_| ());
    let mut client = rig.connect().await;
    client.send(format!("{}GET /<2> HTTP/1.1\r\nhost: a\r\n\r\n", upgrade("Upgrade: websocket\r\n"))).await;
    assert!(client.reply().await.text().starts_with("GET / "));
    assert!(client.reply().await.text().starts_with("GET /<2> "));
}

#[tokio::test]
async fn a_tunnel_gets_the_bytes_behind_its_request_as_they_are() {
    const EARLY: &[u8] = b"\r\nGET /<a> HTTP/1.1\r\n\r\n\xff<";
    let app = Backend::start(|mut connection, _| async move {
        connection.head().await;
        connection.send("HTTP/1.1 101 S\r\nupgrade: websocket\r\n\r\n").await;
        let early = connection.exactly(EARLY.len()).await.unwrap();
        connection.send(early).await;
    })
    .await;
    let rig = Rig::serving(&app, |_| ());
    let mut client = rig.connect().await;
    client.send([upgrade("Upgrade: websocket\r\n").as_bytes(), EARLY].concat()).await;
    assert_eq!(client.reply().await.status(), 101);
    assert_eq!(client.exactly(EARLY.len()).await, EARLY);
}

#[tokio::test]
async fn as_many_fields_as_are_allowed_pass() {
    let answer: &str =
        format!("HTTP/1.1 200 OK\r\n{}content-length: 2\r\n\r\nok", "x: 1\r\n".repeat(255)).leak();
    let app = Backend::fixed(answer).await;
    let rig = Rig::serving(&app, |_| ());
    let fields = "y: 1\r\n".repeat(254);
    for way in ["", LONG_WAY] {
        let reply = rig.ask(format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}{way}\r\n")).await;
        assert_eq!((reply.status(), reply.head.matches("x: 1\r\n").count()), (200, 255), "{way}");
    }
    assert_eq!(app.seen().concat().matches("y: 1\r\n").count(), 2 * 254);

    let rig = Rig::serving(&app, |config| config.limits.headers = 32);
    for way in ["", LONG_WAY] {
        let reply = rig.ask(format!("GET / HTTP/1.1\r\nhost: a\r\n{way}\r\n")).await;
        assert_eq!(reply.header("portok-error"), Some("upstream_invalid"), "{way}");
        let fields = "y: 1\r\n".repeat(32);
        assert_eq!(rig.ask(format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}{way}\r\n")).await.status(), 431);
    }
}

/// What a trailer must not say, and one thing that it may.
const TRAILERS: &str = "X-Forwarded-For: 6.6.6.6\r\nx_forwarded_host: evil\r\nAuthorization: evil\r\nCookie: evil\r\n\
    Set-Cookie: evil\r\nHost: evil\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\nX-Real-IP: evil\r\nx-sum: 7\r\n";

#[tokio::test]
async fn trailers_carry_nothing_that_belongs_into_a_head() {
    let app = Backend::start(|mut connection, _| async move {
        while connection.until(b"x-sum: 7\r\n\r\n").await.is_some() {
            let names = "X-Forwarded-For, x_forwarded_host, Authorization, Cookie, Set-Cookie, Host, X-Real-IP, x-sum";
            connection.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: {names}\r\n\r\n")).await;
            connection.send(format!("2\r\nok\r\n0\r\n{TRAILERS}\r\n")).await;
        }
    })
    .await;
    let rig = Rig::serving(&app, |_| ());
    for (te, trailer) in [("TE: trailers\r\n", "x-sum: 7\r\n"), ("", "")] {
        let mut client = rig.connect().await;
        let head = format!("POST / HTTP/1.1\r\nhost: a\r\n{te}Transfer-Encoding: chunked\r\n\r\n");
        client.send(format!("{head}1\r\na\r\n0\r\n{TRAILERS}\r\n")).await;
        client.until(b"\r\n\r\n").await;
        let body = client.until(format!("0\r\n{trailer}\r\n").as_bytes()).await;
        assert!(body.starts_with(b"2\r\nok\r\n0\r\n"), "{}", String::from_utf8_lossy(&body));
    }
    for seen in app.seen() {
        let trailer = &seen[seen.find("0\r\n").unwrap()..];
        assert!(trailer.ends_with("0\r\nx-sum: 7\r\n\r\n"), "{seen}");
        assert!(!seen.contains("6.6.6.6") && !seen.contains("evil"), "{seen}");
    }
}

#[tokio::test]
async fn the_head_of_an_answer_that_breaks_off_at_once_is_passed_and_an_error_is_counted() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nwrong\r\n",
    ] {
        for request in ["POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx", GET] {
            let app = Backend::start(move |mut connection, _| async move {
                connection.request().await;
                connection.send(answer).await;
            })
            .await;
            let rig = Rig::serving(&app, |_| ());
            let mut client = rig.connect().await;
            client.send(request).await;
            let got = String::from_utf8(client.rest().await).unwrap();
            assert!(got.starts_with("HTTP/1.1 200 OK\r\n"), "{request:?} and {answer:?} gave {got:?}");
            assert!(!got.ends_with("0\r\n\r\n"), "{got}");
            let snapshot = rig.counters.snapshot();
            assert_eq!((snapshot.total_proxy_errors, snapshot.latency_count), (1, 0), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn latency_is_that_of_whole_answers() {
    let app = Backend::start(|mut connection, _| async move {
        while let Some(request) = connection.request().await {
            let request = String::from_utf8(request).unwrap();
            match request.split(' ').nth(1).unwrap() {
                "/tunnel" => connection.send("HTTP/1.1 101 S\r\nupgrade: websocket\r\n\r\n").await,
                "/hold" => {}
                "/part" => connection.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok").await,
                "/chunk" => {
                    connection.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n").await
                }
                "/head" => connection.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n").await,
                "/304" => connection.send("HTTP/1.1 304 N\r\n\r\n").await,
                _ => connection.send(OK).await,
            }
        }
    })
    .await;
    let mut rig = Rig::start(|_| ());
    let target = rig.route(&app);
    for way in ["", LONG_WAY] {
        for path in ["/hold", "/part", "/chunk"] {
            let mut client = rig.connect().await;
            client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n{way}\r\n")).await;
            eventually("it is in flight", || target.inflight() == 1).await;
            drop(client);
            eventually("it has ended", || target.inflight() == 0).await;
        }
    }
    let mut client = rig.connect().await;
    client.send(upgrade("Upgrade: websocket\r\n").replace("GET /", "GET /tunnel")).await;
    assert_eq!(client.reply().await.status(), 101);
    drop(client);
    eventually("the tunnel has ended", || target.inflight() == 0).await;
    assert_eq!(rig.counters.snapshot().latency_count, 0);
    let mut expected = 0;
    for way in ["", LONG_WAY] {
        for line in ["GET /", "GET /304", "HEAD /head", "POST /"] {
            rig.connect().await.stream.write_all(b"").await.unwrap();
            let mut client = rig.connect().await;
            client.send(format!("{line} HTTP/1.1\r\nhost: a\r\n{way}\r\n")).await;
            client.reply_to_head().await;
            expected += 1;
            eventually("it is measured", || rig.counters.snapshot().latency_count == expected).await;
        }
    }
}

#[tokio::test]
async fn a_502_counts_for_the_release_whose_target_gave_it() {
    let closing = Backend::start(|mut connection, _| async move {
        connection.head().await;
    })
    .await;
    let invalid = Backend::fixed("HTTP/1.1 200 OK\r\ncontent-length: 3, 3\r\n\r\nabc").await;
    let switching = Backend::fixed("HTTP/1.1 101 S\r\nupgrade: x\r\n\r\n").await;
    for app in [&closing, &invalid, &switching] {
        let rig = Rig::serving(app, |_| ());
        assert_eq!(rig.ask(GET).await.status(), 502);
        let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx";
        assert_eq!(rig.ask(post).await.status(), 502);
        let snapshot = rig.counters.snapshot();
        assert_eq!(snapshot.by_release, [("r1".to_owned(), [0, 0, 0, 0, 2])]);
        assert_eq!((snapshot.by_class, snapshot.latency_count), ([0, 0, 0, 0, 2], 2));
    }
    // A refused connection is a target's, too; that nothing serves is nobody's.
    let (port, closed) = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (listener.local_addr().unwrap().port(), listener)
    };
    drop(closed);
    let mut rig = Rig::start(|config| of_app(config).upstream.connect_timeout = Duration::from_millis(50));
    rig.routes.set(Now::One(target(&rig.counters, "r2", port)));
    let status = rig.ask(GET).await.status();
    assert!(matches!(status, 502 | 504), "{status}");
    assert_eq!(rig.counters.snapshot().by_release, [("r2".to_owned(), [0, 0, 0, 0, 1])]);
    rig.routes.set(Now::Empty);
    assert_eq!(rig.ask(GET).await.status(), 503);
    assert_eq!(rig.counters.snapshot().by_release, [("r2".to_owned(), [0, 0, 0, 0, 1])]);
}

#[tokio::test]
async fn a_client_that_ends_its_side_in_mid_answer_is_gone() {
    for way in ["", LONG_WAY] {
        let (tell, mut told) = tokio::sync::mpsc::channel(1);
        let app = Backend::start(move |mut connection, _| {
            let tell = tell.clone();
            async move {
                connection.head().await;
                connection.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok").await;
                assert!(connection.is_closed().await);
                tell.send(()).await.unwrap();
            }
        })
        .await;
        let rig = Rig::serving(&app, |_| ());
        let mut client = rig.connect().await;
        client.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{way}\r\n")).await;
        client.until(b"\r\n\r\nok").await;
        client.stream.shutdown().await.unwrap();
        assert!(client.rest().await.is_empty());
        told.recv().await.unwrap();
        assert_eq!(rig.counters.snapshot().total_proxy_errors, 0);
    }
}
