//! Targets: whatever bytes a path has go to the app as they came, on both ways; what no app can be
//! asked for is refused.

use super::*;

/// What the app is asked, byte for byte up to the version.
async fn asked(request: &[u8]) -> Vec<u8> {
    let app = Backend::start(|mut connection, _| async move {
        while connection.until(b"\r\n\r\n").await.is_some() {
            connection.send(OK).await;
        }
    })
    .await;
    let rig = Rig::serving(&app, |_| ());
    let reply = rig.ask(request).await;
    assert_eq!(reply.status(), 200, "{}", String::from_utf8_lossy(request));
    let seen = app.seen.lock().unwrap().concat();
    let end = seen.windows(9).position(|window| window == b" HTTP/1.1").unwrap();
    seen[..end].to_vec()
}

#[tokio::test]
async fn any_byte_but_controls_space_and_hash_reaches_the_app() {
    let all: Vec<u8> = (0x21..=0xff).filter(|byte| !matches!(byte, b'#' | 0x7f)).collect();
    let paths: [Vec<u8>; 4] = [
        b"/a<b".to_vec(),
        b"/?q=\"x\"".to_vec(),
        b"/\xfc\xff?\xe4".to_vec(),
        [b"/", &all[..], b"?", &all].concat(),
    ];
    for path in paths {
        for (fields, body) in [
            ("", ""),
            ("Connection: upgrade\r\nUpgrade: websocket\r\n", ""),
            ("Expect: 100-continue\r\n", ""),
            ("TE: trailers\r\n", ""),
            ("Content-Length: 2\r\n", "ab"),
            ("Transfer-Encoding: chunked\r\n", "1\r\na\r\n0\r\n\r\n"),
        ] {
            let tail = format!(" HTTP/1.1\r\nhost: a\r\n{fields}\r\n{body}");
            let request = [b"GET ", &path[..], tail.as_bytes()].concat();
            assert_eq!(asked(&request).await, [b"GET ", &path[..]].concat(), "{fields}");
            let absolute = [b"GET http://b", &path[..], tail.as_bytes()].concat();
            assert_eq!(asked(&absolute).await, [b"GET ", &path[..]].concat(), "{fields}");
        }
    }
}

#[tokio::test]
async fn odd_targets_one_behind_the_other_are_not_mixed_up() {
    let app = Backend::echo().await;
    let rig = Rig::serving(&app, |_| ());
    let requests = [
        "GET /<1> HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /<2> HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\nGET /<3>",
        "PUT /{3} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4;x=<\r\n<ab>\r\n0\r\n\r\n",
        "GET /4 HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET http://b?<5> HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /`6` HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    ];
    let lines = ["GET /<1> ", "POST /<2> ", "PUT /{3} ", "GET /4 ", "GET /?<5> ", "GET /`6` "];
    let all = requests.concat();
    for cut in (1..all.len()).step_by(7) {
        let mut client = rig.connect().await;
        client.send(&all[..cut]).await;
        client.send(&all[cut..]).await;
        for line in lines {
            let reply = client.reply().await;
            assert!(reply.text().starts_with(line), "cut at {cut}: {}", reply.text());
        }
        assert!(client.is_closed().await && client.buf.is_empty(), "cut at {cut}");
    }
}

#[tokio::test]
async fn the_reserved_prefix_is_matched_on_what_the_client_wrote() {
    let app = Backend::echo().await;
    let rig = Rig::serving(&app, |config| config.admin.prefix = "/~_".into());
    let ask = async |path: &str| rig.ask(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
    for path in ["/~_s", "/~_s<", "/~_s?q=\"x\"", "http://b/~_s|"] {
        assert!(ask(path).await.text().starts_with("admin /~_s"), "{path}");
    }
    for path in ["/<_s", "/`_s", "/\u{fc}_s", "http://b/<_s"] {
        assert!(ask(path).await.text().starts_with("GET /"), "{path}");
    }
}

#[tokio::test]
async fn options_may_be_asked_of_the_host_as_a_whole() {
    for (target, line) in
        [("*", "*"), ("http://b", "*"), ("http://b/", "/"), ("http://b?x", "/?x"), ("/a", "/a")]
    {
        let request = format!("OPTIONS {target} HTTP/1.1\r\nhost: b\r\n\r\n");
        assert_eq!(asked(request.as_bytes()).await, format!("OPTIONS {line}").as_bytes(), "{target}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_is_noticed_though_more_was_asked() {
    let app = Backend::start(|mut connection, _| async move {
        connection.head().await;
        while !connection.is_closed().await {}
    })
    .await;
    let mut rig = Rig::start(|_| ());
    let target = rig.route(&app);
    let mut client = rig.connect().await;
    client.send("GET /<a HTTP/1.1\r\nhost: a\r\n\r\n").await;
    eventually("it is in flight", || target.inflight() == 1).await;
    drop(client);
    eventually("it has ended", || target.inflight() == 0).await;
}
