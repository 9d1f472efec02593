//! What can be understood in two ways reaches nobody (contract, section 5; RFC 9112).

use super::*;

/// Sends `request`, expects `status` and a closed connection, and that the app saw nothing.
async fn refused(request: impl AsRef<[u8]>, status: u16) {
    let request = request.as_ref();
    let shown = String::from_utf8_lossy(&request[..request.len().min(200)]).into_owned();
    let app = Backend::fixed(OK).await;
    let rig = Rig::serving(&app, |_| ());
    let mut client = rig.connect().await;
    // The answer may come before everything is sent.
    let _ = client.stream.write_all(request).await;
    let answer = String::from_utf8(client.rest().await).unwrap();
    assert!(
        answer.get(8..).is_some_and(|line| line.starts_with(&format!(" {status} "))),
        "{shown:?} got {answer:?}"
    );
    assert_eq!(answer.matches("HTTP/1.").count(), 1, "{shown:?} got {answer:?}");
    // A head that cannot be read gets a bare answer.
    assert_eq!(answer.contains("portok-error: method_not_allowed\r\n"), status == 405, "{answer:?}");
    assert_eq!(answer.contains("portok-error"), status == 405, "{answer:?}");
    assert!(app.seen().concat().is_empty(), "{shown:?} reached the app: {:?}", app.seen());
    eventually("nothing is in flight", || rig.counters.snapshot().inflight == 0).await;
}

#[tokio::test]
async fn ambiguous_requests_are_refused() {
    for fields in [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5, 6\r\n",
        "content-length: +5\r\n",
        "content-length: 0x5\r\n",
        "content-length: -1\r\n",
        "content-length: \r\n",
        "content-length: 99999999999999999999\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: chunked, gzip\r\n",
        "transfer-encoding: chunked, chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: chunked;a=b\r\n",
        "transfer-encoding: \x0bchunked\r\n",
        "transfer-encoding: \r\n",
        "transfer-encoding : chunked\r\n",
        "content-length : 5\r\n",
        "x : y\r\n",
        "x: a\r\n folded: b\r\n",
        "x: a\r\n\tfolded\r\n",
        " x: a\r\n",
        "x: a\rb\r\n",
        "x: a\x00b\r\n",
        "x\r\n",
        ": y\r\n",
        "host: b\r\n",
        "Host: a\r\n",
        "x\x00y: 1\r\n",
    ] {
        refused(format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n5\r\nhello\r\n0\r\n\r\n"), 400).await;
    }
}

#[tokio::test]
async fn heads_without_one_valid_host_or_target_are_refused() {
    for head in [
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n",
        "GET / HTTP/1.1\r\nhost: a/b\r\n",
        "GET / HTTP/1.1\r\nhost: u@a\r\n",
        "GET / HTTP/1.1\r\nhost: [::1\r\n",
        "GET / HTTP/1.1\r\nhost: a:99999999\r\n",
        "GET / HTTP/1.1\r\nhost: a:80:90\r\n",
        "GET / HTTP/1.1\r\nhost: \r\n",
        "POST / HTTP/1.1\r\nhost: a:65536\r\n",
        "GET http://a:99999/ HTTP/1.1\r\nhost: a\r\n",
        "GET /a#b HTTP/1.1\r\nhost: a\r\n",
        "GET /?a#b HTTP/1.1\r\nhost: a\r\n",
        "POST /a#b HTTP/1.1\r\nhost: a\r\n",
        "GET http://a#b HTTP/1.1\r\nhost: a\r\n",
        "GET http://a<b/ HTTP/1.1\r\nhost: a\r\n",
        "GET /\x7f HTTP/1.1\r\nhost: a\r\n",
        "GET / HTTP/1.0\r\nhost: a\r\nhost: a\r\n",
        "GET / HTTP/1.0\r\ntransfer-encoding: chunked\r\n",
        "GET * HTTP/1.1\r\nhost: a\r\n",
        "GET a HTTP/1.1\r\nhost: a\r\n",
        "GET a:80 HTTP/1.1\r\nhost: a\r\n",
        "GET http://u@a/ HTTP/1.1\r\nhost: a\r\n",
        "GET  / HTTP/1.1\r\nhost: a\r\n",
        "GET /\tb HTTP/1.1\r\nhost: a\r\n",
        "G@T / HTTP/1.1\r\nhost: a\r\n",
        "GET / HTTP/1.2\r\nhost: a\r\n",
        "GET / HTTP/2.0\r\nhost: a\r\n",
        "GET / HTTP/1.1 x\r\nhost: a\r\n",
    ] {
        refused(format!("{head}\r\n"), 400).await;
    }
    refused("CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n", 405).await;
}

#[tokio::test]
async fn wrong_chunks_are_refused() {
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "5;a\nhello\r\n0\r\n\r\n",
        "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
        "5\r\rhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "10000000000000000\r\nhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        "0\n\r\n",
    ] {
        refused(format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}"), 400).await;
    }
}

#[tokio::test]
async fn heads_over_a_limit_are_refused() {
    let long = "x".repeat(70_000);
    refused(format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n"), 431).await;
    refused(format!("GET / HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n"), 431).await;
    let many = "x: 1\r\n".repeat(256);
    refused(format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), 431).await;
    refused(format!("POST / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), 431).await;
    let options = "x-a, ".repeat(10_000);
    refused(format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: {options}\r\n\r\n"), 400).await;
}

#[tokio::test]
async fn a_length_beside_chunks_is_not_passed_on() {
    for fields in
        ["content-length: 3\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 3"]
    {
        let app = Backend::fixed(OK).await;
        let rig = Rig::serving(&app, |_| ());
        let mut client = rig.connect().await;
        client
            .send(format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n5\r\nhello\r\n0\r\n\r\n{GET}"))
            .await;
        let answer = String::from_utf8(client.rest().await).unwrap();
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
        let seen = app.seen().concat();
        assert!(!seen.contains("content-length") && seen.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{seen}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_midway_ends_both_connections() {
    for rest in ["5\nwrong\r\n0\r\n\r\n", ""] {
        let (tell, mut told) = tokio::sync::mpsc::channel(1);
        let app = Backend::start(move |mut connection, _| {
            let tell = tell.clone();
            async move {
                connection.until(b"hello\r\n").await.unwrap();
                tell.send(()).await.unwrap();
                while !connection.is_closed().await {}
                tell.send(()).await.unwrap();
            }
        })
        .await;
        let rig = Rig::serving(&app, |_| ());
        let mut client = rig.connect().await;
        client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
        told.recv().await.unwrap();
        if rest.is_empty() {
            client.stream.shutdown().await.unwrap();
        } else {
            client.send(rest).await;
        }
        client.rest().await;
        told.recv().await.unwrap();
        let seen = app.seen().concat();
        assert!(!seen.contains("wrong") && !seen.ends_with("0\r\n\r\n"), "{seen}");
        let snapshot = rig.counters.snapshot();
        let refused = if rest.is_empty() { 0 } else { 1 };
        assert_eq!((snapshot.total_proxy_errors, snapshot.by_class[3]), (0, refused));
    }
}

#[tokio::test]
async fn ambiguous_answers_are_not_passed_on() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx : a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\x00b\r\n\r\n",
        "HTTP/1.1 099 Low\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        "<html>hello</html>\r\n\r\n",
    ] {
        let app = Backend::fixed(answer).await;
        let rig = Rig::serving(&app, |config| config.log.verbose_errors = true);
        let reply = rig.ask(GET).await;
        assert_eq!(
            (reply.status(), reply.header("portok-error")),
            (502, Some("upstream_invalid")),
            "{answer:?}"
        );
        assert!(reply.text().contains("message"), "{reply:?}");
        let snapshot = rig.counters.snapshot();
        assert_eq!(
            (snapshot.total_proxy_errors, snapshot.last_error.unwrap().code.as_str()),
            (1, "upstream_invalid")
        );
        // The connection is not used again.
        rig.ask(GET).await;
        assert_eq!(app.connections(), 2, "{answer:?}");
    }
    let head = "x: 1\r\n".repeat(257);
    let options = "x-a, ".repeat(10_000);
    let options: &'static str = format!("HTTP/1.1 204 N\r\nconnection: {options}\r\n\r\n").leak();
    let many: &'static str = format!("HTTP/1.1 200 OK\r\n{head}\r\n").leak();
    let long: &'static str = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(70_000)).leak();
    let interim: &'static str = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100).leak();
    for answer in [many, long, interim, options] {
        let app = Backend::fixed(answer).await;
        assert_eq!(
            Rig::serving(&app, |_| ()).ask(GET).await.header("portok-error"),
            Some("upstream_invalid")
        );
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_made_to_look_whole() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n1\nx",
    ] {
        let app = Backend::start(move |mut connection, _| async move {
            connection.head().await;
            connection.send(answer).await;
        })
        .await;
        let rig = Rig::serving(&app, |_| ());
        let mut client = rig.connect().await;
        client.send(GET).await;
        let got = String::from_utf8(client.rest().await).unwrap();
        assert!(!got.ends_with("0\r\n\r\n") && got.matches("HTTP/1.1").count() <= 1, "{got}");
        assert_eq!(rig.counters.snapshot().total_proxy_errors, 1, "{answer:?}");
    }
}

#[tokio::test]
async fn bytes_behind_an_answer_are_never_taken_for_the_next_one() {
    let app = Backend::start(|mut connection, number| async move {
        while connection.head().await.is_some() {
            let own = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n#{number}");
            connection.send(format!("{own}HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")).await;
        }
    })
    .await;
    let rig = Rig::serving(&app, |_| ());
    let mut client = rig.connect().await;
    for round in 0..3 {
        client.send(GET).await;
        assert_eq!(client.reply().await.text(), format!("#{round}"));
    }
}
