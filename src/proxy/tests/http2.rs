//! HTTP/2 towards clients, by a client that knows it beforehand.

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue};

use super::*;

/// A connection of HTTP/2 to a rig.
struct Multiplexed {
    send: SendRequest<Bytes>,
    driver: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

impl Multiplexed {
    async fn connect(rig: &Rig) -> Self {
        let stream = TcpStream::connect(rig.addr).await.unwrap();
        let mut builder = h2::client::Builder::new();
        // Room for other streams beside one that takes nothing.
        builder.initial_connection_window_size(1 << 20);
        let (send, connection) = builder.handshake(stream).await.unwrap();
        Self { send, driver: tokio::spawn(connection) }
    }

    /// Asks; gives the answer to come, and where the body goes unless it `ends` here.
    async fn ask(&mut self, request: Request<()>, ends: bool) -> (ResponseFuture, SendStream<Bytes>) {
        let mut ready = self.send.clone().ready().await.unwrap();
        ready.send_request(request, ends).unwrap()
    }

    async fn get(&mut self, path: &str) -> (u16, HeaderMap, Vec<u8>) {
        let request = Request::get(format!("http://a{path}")).body(()).unwrap();
        answer(self.ask(request, true).await.0).await
    }

    /// How the connection ended.
    async fn end(self) -> Result<(), h2::Error> {
        drop(self.send);
        tokio::time::timeout(LONG, self.driver).await.expect("it ends").unwrap()
    }
}

async fn answer(asked: ResponseFuture) -> (u16, HeaderMap, Vec<u8>) {
    let response = tokio::time::timeout(LONG, asked).await.expect("it is answered").unwrap();
    let (parts, mut body) = response.into_parts();
    (parts.status.as_u16(), parts.headers, whole(&mut body).await.unwrap())
}

async fn whole(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = tokio::time::timeout(LONG, body.data()).await.expect("more comes") {
        let data = data?;
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend(data);
    }
    Ok(bytes)
}

fn post(path: &str) -> http::request::Builder {
    Request::post(format!("http://a{path}"))
}

#[tokio::test]
async fn the_app_gets_requests_of_http_1_1() {
    let app = Backend::echo().await;
    let rig = Rig::serving(&app, |_| ());
    let mut client = Multiplexed::connect(&rig).await;
    let request = Request::get("http://app.test:81/a?b=%3c")
        .header("cookie", "a=1")
        .header("x-own", "y")
        .header("cookie", "b=2")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (status, headers, text) = answer(client.ask(request, true).await.0).await;
    let text = String::from_utf8(text).unwrap();
    assert_eq!(status, 200);
    assert_eq!(headers["content-length"], text.len().to_string());
    assert!(text.starts_with("GET /a?b=%3c HTTP/1.1\r\nhost: app.test:81\r\n"), "{text}");
    for line in ["cookie: a=1; b=2", "x-own: y", "x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http"] {
        assert!(text.contains(&format!("\r\n{line}\r\n")), "{line} in {text}");
    }
    assert!(!text.contains("\r\n:") && !text.contains("transfer-encoding"), "{text}");
    // A second one over the same connections.
    assert_eq!(client.get("/").await.0, 200);
    assert_eq!(app.connections(), 1);
    let snapshot = rig.counters.snapshot();
    assert_eq!((snapshot.total_requests, snapshot.by_class), (2, [0, 2, 0, 0, 0]));
    assert!(client.end().await.is_ok());
}

#[tokio::test]
async fn many_requests_of_a_connection_run_at_a_time_and_each_is_given_up_alone() {
    let app = Backend::start(|mut connection, _| async move {
        let head = connection.head().await.unwrap();
        if head.starts_with("GET /never") {
            assert!(connection.is_closed().await);
        } else {
            connection.send(OK).await;
        }
    })
    .await;
    let mut rig = Rig::start(|_| ());
    let target = rig.route(&app);
    let mut client = Multiplexed::connect(&rig).await;
    let never: Vec<_> = (0..10).map(|_| Request::get("http://a/never").body(()).unwrap()).collect();
    let mut waiting = Vec::new();
    for request in never {
        waiting.push(client.ask(request, true).await);
    }
    eventually("all of them are under way", || target.inflight() == 10).await;
    assert_eq!(client.get("/").await.2, b"ok");
    waiting.pop().unwrap().1.send_reset(Reason::CANCEL);
    eventually("one was given up", || target.inflight() == 9).await;
    drop(waiting);
    assert!(client.end().await.is_ok());
    eventually("all of them were", || target.inflight() == 0).await;
    assert_eq!(rig.counters.snapshot().inflight, 0);
}

#[tokio::test]
async fn bodies_and_trailers_go_both_ways() {
    let app = Backend::start(|mut connection, _| async move {
        while let Some(head) = connection.head().await {
            if head.contains("content-length: 200000") {
                connection.exactly(200_000).await.unwrap();
            } else {
                assert!(head.contains("transfer-encoding: chunked"), "{head}");
                let body = connection.until(b"0\r\nx-sum: 1\r\n\r\n").await.unwrap();
                assert!(String::from_utf8_lossy(&body).contains("abc"));
            }
            let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nkeep-alive: x\r\n\r\n3\r\nabc\r\n0\r\ngrpc-status: 0\r\n\r\n";
            connection.send(answer).await;
        }
    })
    .await;
    let rig = Rig::serving(&app, |_| ());
    let mut client = Multiplexed::connect(&rig).await;
    for told in [true, false] {
        let request = post("/");
        let request = if told { request.header("content-length", 200_000) } else { request };
        let (asked, mut body) = client.ask(request.body(()).unwrap(), false).await;
        if told {
            let mut left = Bytes::from(vec![b'x'; 200_000]);
            while !left.is_empty() {
                body.reserve_capacity(left.len());
                let room = std::future::poll_fn(|cx| body.poll_capacity(cx)).await.unwrap().unwrap();
                let part = left.split_to(room.min(left.len()));
                body.send_data(part, left.is_empty()).unwrap();
            }
        } else {
            body.send_data(Bytes::from_static(b"abc"), false).unwrap();
            let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("1"))]);
            body.send_trailers(trailers).unwrap();
        }
        let (parts, mut body) = asked.await.unwrap().into_parts();
        assert!(!parts.headers.contains_key("keep-alive") && !parts.headers.contains_key("connection"));
        assert_eq!(whole(&mut body).await.unwrap(), b"abc");
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    }
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn portok_answers_itself_as_over_http_1_1() {
    let app = Backend::fixed(OK).await;
    let rig = Rig::serving(&app, |config| {
        config.proxy.ping = Some("/ping".to_owned());
        config.proxy.max_body = Some(10);
        config.limits.headers = 5;
    });
    let mut client = Multiplexed::connect(&rig).await;
    assert_eq!(client.get("/ping").await.2, b"OK\n");
    let (status, _, text) = client.get("/__status").await;
    assert_eq!((status, &*text), (200, &b"admin /__status 127.0.0.1 0"[..]));
    let request = post("/").header("content-length", 11).body(()).unwrap();
    let (asked, body) = client.ask(request, false).await;
    assert_eq!(answer(asked).await.0, 413);
    drop(body);
    let connect = Request::builder().method("CONNECT").uri("a:80").body(()).unwrap();
    assert_eq!(answer(client.ask(connect, false).await.0).await.0, 405);
    let many = (0..6).fold(Request::get("http://a/"), |request, n| request.header(format!("x-{n}"), "y"));
    assert_eq!(answer(client.ask(many.body(()).unwrap(), true).await.0).await.0, 431);
    let two_hosts = Request::get("http://a/").header("host", "b").body(()).unwrap();
    assert_eq!(answer(client.ask(two_hosts, true).await.0).await.0, 400);
    assert_eq!(client.get("/").await.2, b"ok", "the connection goes on");
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn it_is_spoken_only_where_it_may_be() {
    let app = Backend::fixed(OK).await;
    let rig = Rig::serving(&app, |config| config.proxy.http2 = false);
    let mut client = rig.connect().await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    let said = client.rest().await;
    assert!(said.starts_with(b"HTTP/1.1 4") || said.is_empty(), "{:?}", String::from_utf8_lossy(&said));
    assert_eq!(rig.ask(GET).await.status(), 200);
}

/// Why an answer of which nothing is left was reset; `None`: it was not.
async fn end_of(answer: &mut RecvStream) -> Option<Reason> {
    loop {
        match answer.data().await? {
            Ok(data) => assert!(data.is_empty(), "{data:?}"),
            Err(error) => return error.reason(),
        }
    }
}

#[tokio::test]
async fn an_answer_ends_behind_its_request_when_only_the_end_of_that_is_missing() {
    let app = Backend::start(|mut connection, _| async move {
        while let Some(head) = connection.head().await {
            connection.exactly(5).await.unwrap();
            // At once with the head, behind it, and none.
            match head.split(' ').nth(1) {
                Some("/whole") => connection.send(OK).await,
                Some("/parts") => {
                    connection.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
                    connection.send("2\r\nok\r\n0\r\n\r\n").await;
                }
                _ => connection.send("HTTP/1.1 204 No Content\r\n\r\n").await,
            }
        }
    })
    .await;
    let rig =
        Rig::serving(&app, |config| of_app(config).limits.body_timeout = Some(Duration::from_millis(300)));
    let mut client = Multiplexed::connect(&rig).await;
    for says_so in [true, false] {
        for path in ["/whole", "/parts", "/none"] {
            let request = post(path).header("content-length", 5).body(()).unwrap();
            let (asked, mut body) = client.ask(request, false).await;
            body.send_data(Bytes::from_static(b"hello"), false).unwrap();
            let mut answer = asked.await.unwrap().into_body();
            if path != "/none" {
                assert_eq!(answer.data().await.unwrap().unwrap(), "ok", "what there is comes at once");
            }
            let ended = tokio::time::timeout(Duration::from_millis(50), answer.data()).await;
            assert!(ended.is_err(), "{path}: {ended:?}");
            if says_so {
                body.send_data(Bytes::new(), true).unwrap();
                assert_eq!(end_of(&mut answer).await, None, "{path}: it is not reset");
            } else {
                // A client that never says so has its answer too.
                let end = end_of(&mut answer).await;
                assert!(matches!(end, None | Some(Reason::NO_ERROR)), "{path}: {end:?}");
            }
        }
    }
    assert_eq!(app.connections(), 1, "the app's connection is kept");
}

#[tokio::test]
async fn a_connection_ends_politely_when_it_is_idle_and_when_the_thread_drains() {
    let app = Backend::start(|mut connection, _| async move {
        while let Some(head) = connection.head().await {
            if head.starts_with("POST") {
                connection.exactly(1).await.unwrap();
            }
            connection.send(OK).await;
        }
    })
    .await;
    let rig = Rig::serving(&app, |config| config.proxy.idle_timeout = Duration::from_millis(100));
    let mut client = Multiplexed::connect(&rig).await;
    assert_eq!(client.get("/").await.0, 200);
    assert!(client.end().await.is_ok(), "it was idle");
    let mut client = Multiplexed::connect(&rig).await;
    let request = post("/slow").header("content-length", 1).body(()).unwrap();
    let (asked, mut body) = client.ask(request, false).await;
    eventually("it is under way", || rig.counters.snapshot().inflight == 1).await;
    let draining = tokio::spawn(async move { rig.plane.drain(Until::Empty).await });
    let told = tokio::time::timeout(LONG, async {
        while client.send.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    body.send_data(Bytes::from_static(b"x"), true).unwrap();
    assert_eq!(answer(asked).await.0, 200, "what has begun is answered");
    told.await.expect("a client is told to go elsewhere");
    assert!(client.end().await.is_ok());
    draining.await.unwrap();
}

#[tokio::test]
async fn a_client_that_takes_nothing_holds_up_nobody_and_is_cut() {
    let app = Backend::start(|mut connection, _| async move {
        let head = connection.head().await.unwrap();
        if head.starts_with("GET /large") {
            let length = 20 << 20;
            connection.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n")).await;
            connection.send(vec![0; length]).await;
        } else {
            connection.send(OK).await;
        }
    })
    .await;
    let mut rig = Rig::start(|config| of_app(config).limits.send_timeout = Some(Duration::from_secs(1)));
    let target = rig.route(&app);
    let mut client = Multiplexed::connect(&rig).await;
    let request = Request::get("http://a/large").body(()).unwrap();
    let mut large = client.ask(request, true).await.0.await.unwrap().into_body();
    assert_eq!(client.get("/").await.2, b"ok", "another stream goes on");
    eventually("it is cut", || target.inflight() == 0).await;
    let mut taken = 0;
    let end = loop {
        match large.data().await.unwrap() {
            Ok(data) => taken += data.len(),
            Err(error) => break error,
        }
    };
    assert_eq!(end.reason(), Some(Reason::CANCEL), "after {taken} bytes");
    assert_eq!(client.get("/").await.2, b"ok");
}

#[tokio::test]
async fn a_websocket_is_a_stream() {
    let app = Backend::start(|mut connection, _| async move {
        let head = connection.head().await.unwrap();
        let field = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            line.unwrap_or_else(|| panic!("{name} in {head}")).to_owned()
        };
        assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
        assert_eq!(
            (field("upgrade"), field("connection"), field("sec-websocket-version")),
            ("websocket".to_owned(), "upgrade".to_owned(), "13".to_owned())
        );
        if field("x-case") == "no" {
            return connection.send("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno").await;
        }
        if field("x-case") == "page" {
            return connection.send(OK).await;
        }
        let proof = match field("x-case").as_str() {
            "right" => proof_of(&field("sec-websocket-key")),
            _ => "wrong".to_owned(),
        };
        let switched = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket";
        connection
            .send(format!(
                "{switched}\r\nsec-websocket-protocol: chat\r\nsec-websocket-accept: {proof}\r\n\r\nhello"
            ))
            .await;
        if connection.exactly(5).await.as_deref() == Some(b"there") {
            connection.send(vec![7; 300_000]).await;
            assert!(connection.is_closed().await);
            connection.send("last").await;
        }
    })
    .await;
    let mut rig = Rig::start(|_| ());
    let target = rig.route(&app);
    let mut client = Multiplexed::connect(&rig).await;
    // Its settings say that it may be asked.
    assert!(client.send.is_extended_connect_protocol_enabled() || client.get("/__x").await.0 == 200);
    let ask = |case: &str| {
        let mut request = Request::builder().method("CONNECT").uri("http://a/chat").header("x-case", case);
        request = request.header("sec-websocket-version", "13");
        request.extension(h2::ext::Protocol::from_static("websocket")).body(()).unwrap()
    };
    for (case, status) in [("no", 403), ("page", 502), ("wrong", 502)] {
        assert_eq!(answer(client.ask(ask(case), false).await.0).await.0, status, "{case}");
    }
    let (asked, mut up) = client.ask(ask("right"), false).await;
    let response = asked.await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["sec-websocket-protocol"]),
        (200, &"chat".parse::<HeaderValue>().unwrap())
    );
    assert!(!response.headers().contains_key("sec-websocket-accept"));
    let mut down = response.into_body();
    assert_eq!((target.tunnels(), rig.counters.snapshot().inflight), (1, 1));
    up.send_data(Bytes::from_static(b"there"), true).unwrap();
    let said = whole(&mut down).await.unwrap();
    assert_eq!(said.len(), 5 + 300_000 + 4);
    assert!(said.starts_with(b"hello") && said.ends_with(b"last"));
    eventually("the tunnel has ended", || target.inflight() == 0).await;
    assert_eq!(target.tunnels(), 0);
}

/// What RFC 6455, 4.2.2, asks of the app.
fn proof_of(key: &str) -> String {
    use base64::Engine as _;
    let salted = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, salted.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest)
}

#[tokio::test]
async fn who_asks_and_never_wants_the_answer_is_sent_away() {
    let app = Backend::start(|mut connection, _| async move {
        connection.head().await;
        assert!(connection.is_closed().await);
    })
    .await;
    let mut rig = Rig::start(|_| ());
    let target = rig.route(&app);
    let client = Multiplexed::connect(&rig).await;
    let mut asked = 0;
    let end = loop {
        let Ok(mut ready) = client.send.clone().ready().await else { break client.end().await };
        let request = Request::get("http://a/").body(()).unwrap();
        let Ok((answer, mut stream)) = ready.send_request(request, true) else { break client.end().await };
        // The request goes out before it is taken back.
        tokio::task::yield_now().await;
        stream.send_reset(Reason::CANCEL);
        drop(answer);
        asked += 1;
        assert!(asked < 20_000, "it is never sent away");
    };
    let error = end.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM), "after {asked}: {error:?}");
    eventually("nothing is left of it", || target.inflight() == 0).await;
}

#[tokio::test]
async fn who_sends_nothing_but_pings_is_sent_away() {
    let app = Backend::fixed(OK).await;
    let rig = Rig::serving(&app, |_| ());
    let mut client = rig.connect().await;
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    let ping = b"\0\0\x08\x06\0\0\0\0\0portok12";
    client.send(ping.repeat(50)).await;
    client.until(&[b"\0\0\x08\x06\x01\0\0\0\0portok12".as_slice()].concat()).await;
    client.send(ping.repeat(51)).await;
    let said = client.rest().await;
    assert_eq!(said[said.len() - 17..said.len() - 8], *b"\0\0\x08\x07\0\0\0\0\0", "GOAWAY is the last");
    assert_eq!(said[said.len() - 4..], [0, 0, 0, 11], "ENHANCE_YOUR_CALM");
    assert_eq!(rig.ask(GET).await.status(), 200);
}

#[tokio::test]
async fn a_preface_that_ends_there_is_cut_in_time() {
    let app = Backend::fixed(OK).await;
    let rig = Rig::serving(&app, |config| config.proxy.header_timeout = Duration::from_millis(100));
    let mut client = rig.connect().await;
    client.send(b"PRI * HTTP/2.0\r\n\r\n").await;
    client.rest().await;
}
