//! Apps that speak HTTP/2 with prior knowledge, by h2's own server and frame by frame.

use std::sync::atomic::AtomicUsize;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue};
use tokio::sync::{Notify, mpsc};

use super::*;

mod frames;

/// One request as the app has it.
struct Call {
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    /// The number of the connection that it came over, from 0.
    connection: usize,
}

impl Call {
    /// Answers with this status, head alone.
    fn answer(mut self, status: u16) {
        let response = Response::builder().status(status).body(()).unwrap();
        self.respond.send_response(response, true).unwrap();
    }

    /// The whole body of the request, and its trailers.
    async fn body(&mut self) -> (Vec<u8>, Option<HeaderMap>) {
        let (body, mut bytes) = (self.request.body_mut(), Vec::new());
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            bytes.extend_from_slice(&data);
        }
        (bytes, body.trailers().await.unwrap())
    }
}

/// An app over HTTP/2. What it has to do comes as calls.
struct App {
    addr: SocketAddr,
    calls: mpsc::Receiver<Call>,
    connections: Arc<AtomicUsize>,
    /// How many of them have ended.
    ended: Arc<AtomicUsize>,
    /// Has the connections close politely.
    leave: Arc<Notify>,
}

impl App {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(settings: impl Fn(&mut Builder)) -> Self {
        let mut builder = Builder::new();
        settings(&mut builder);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (sender, calls) = mpsc::channel(64);
        let (connections, ended, leave) = <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<Notify>)>::default();
        let (opened, closed, leaves) = (connections.clone(), ended.clone(), leave.clone());
        tokio::spawn(async move {
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                opened.fetch_add(1, Ordering::SeqCst);
                let (builder, sender) = (builder.clone(), sender.clone());
                let (closed, leaves) = (closed.clone(), leaves.clone());
                tokio::spawn(async move {
                    let mut connection = builder.handshake(stream).await.unwrap();
                    loop {
                        tokio::select! {
                            call = connection.accept() => match call {
                                Some(Ok((request, respond))) => {
                                    let _ = sender.send(Call { request, respond, connection: number }).await;
                                }
                                Some(Err(_)) | None => break,
                            },
                            () = leaves.notified() => connection.graceful_shutdown(),
                        }
                    }
                    closed.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { addr, calls, connections, ended, leave }
    }

    async fn call(&mut self) -> Call {
        tokio::time::timeout(LONG, self.calls.recv()).await.expect("no call came").unwrap()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn serving(addr: SocketAddr, change: impl FnOnce(&mut Config)) -> Rig {
    let mut rig = Rig::start(|config| {
        of_app(config).upstream.protocol = Protocol::H2c;
        change(config);
    });
    let target = target(&rig.counters, "r1", addr.port());
    rig.routes.set(Now::One(target));
    rig
}

#[tokio::test]
async fn a_connection_that_names_its_client_carries_nobody_elses_requests() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rig = serving(listener.local_addr().unwrap(), |config| {
        let upstream = &mut of_app(config).upstream;
        (upstream.proxy_protocol, upstream.keepalive) = (true, false);
    });
    for _ in 0..2 {
        let mut client = rig.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut header = [0; 28];
        stream.read_exact(&mut header).await.unwrap();
        let (own, at) = (client.stream.local_addr().unwrap(), client.stream.peer_addr().unwrap());
        assert_eq!(header[12..16], [0x21, 0x11, 0, 12]);
        assert_eq!(
            (&header[16..24], &header[24..28]),
            (&[127, 0, 0, 1, 127, 0, 0, 1][..], &[own.port(), at.port()].map(u16::to_be_bytes).concat()[..],)
        );
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        let answer = Response::builder().status(204).body(()).unwrap();
        respond.send_response(answer, true).unwrap();
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        assert_eq!(client.reply().await.status(), 204);
    }
}

const POST: &str = "POST /a?b HTTP/1.1\r\nhost: a.test:80\r\n";

#[tokio::test]
async fn a_request_is_said_in_the_way_of_http2_and_so_is_its_answer() {
    let mut app = App::start().await;
    let rig = serving(app.addr, |_| {});
    let mut client = rig.connect().await;
    client
        .send(format!(
            "{POST}te: trailers\r\nconnection: x-mine\r\nx-mine: 1\r\nX-Two: 1\r\nx-two: 2\r\ncookie: a=b\r\n\
             trailer: x-end\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-end: yes\r\nhost: no\r\n\r\n"
        ))
        .await;
    let mut call = app.call().await;
    let (body, trailers) = call.body().await;
    let (head, _) = call.request.into_parts();
    assert_eq!((head.method.as_str(), head.uri.to_string().as_str()), ("POST", "http://a.test:80/a?b"));
    let fields: Vec<_> =
        head.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    for field in
        [("te", "trailers"), ("x-two", "1"), ("x-two", "2"), ("cookie", "a=b"), ("x-forwarded-proto", "http")]
    {
        assert!(fields.contains(&field), "{field:?} is not in {fields:?}");
    }
    for name in ["host", "connection", "x-mine", "transfer-encoding", "keep-alive"] {
        assert!(!head.headers.contains_key(name), "{name} is in {fields:?}");
    }
    let trailers = trailers.unwrap();
    assert_eq!(
        (&body[..], trailers.get("x-end").map(HeaderValue::as_bytes)),
        (&b"hello"[..], Some(&b"yes"[..]))
    );
    assert!(!trailers.contains_key("host"));

    let mut respond = call.respond;
    respond.send_informational(Response::builder().status(103).body(()).unwrap()).unwrap();
    let response = Response::builder().header("trailer", "grpc-status").body(()).unwrap();
    let mut stream = respond.send_response(response, false).unwrap();
    stream.send_data(Bytes::from_static(b"world"), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers).unwrap();
    let reply = client.reply_to_head().await;
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
    let body = String::from_utf8(client.until(b"\r\n\r\n").await).unwrap();
    assert_eq!(body, "5\r\nworld\r\n0\r\ngrpc-status: 0\r\n\r\n");

    // Heads alone, over the same connection.
    for (request, status) in [(GET, 204), ("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n", 200), (GET, 404)] {
        client.send(request).await;
        let call = app.call().await;
        assert_eq!((call.connection, call.request.body().is_end_stream()), (0, true));
        call.answer(status);
        let reply = client.reply_to_head().await;
        assert_eq!(reply.status(), status);
    }
}

#[tokio::test]
async fn what_cannot_be_said_in_http2_is_refused() {
    let mut app = App::start().await;
    let rig = serving(app.addr, |_| {});
    let websocket = "GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n";
    let reply = rig.ask(websocket).await;
    assert_eq!((reply.status(), reply.header("portok-error")), (502, Some("upstream_invalid")));
    // Another protocol is left out, and the request goes on.
    let mut client = rig.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n").await;
    app.call().await.answer(200);
    assert_eq!(client.reply().await.status(), 200);
}

#[tokio::test]
async fn requests_share_a_connection_as_far_as_the_app_allows() {
    let mut app = App::with(|settings| {
        settings.max_concurrent_streams(2);
    })
    .await;
    let rig = serving(app.addr, |_| {});
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = rig.connect().await;
        client.send(GET).await;
        clients.push(client);
    }
    let mut calls = Vec::new();
    for _ in 0..5 {
        calls.push(app.call().await);
    }
    let mut seen: Vec<_> = calls.iter().map(|call| call.connection).collect();
    seen.sort_unstable();
    assert_eq!(seen, [0, 0, 1, 1, 2]);
    calls.into_iter().for_each(|call| call.answer(200));
    for client in &mut clients {
        assert_eq!(client.reply().await.status(), 200);
    }
    clients[0].send(GET).await;
    let call = app.call().await;
    assert_eq!(call.connection, 0);
    call.answer(200);
    clients[0].reply().await;
    assert_eq!(app.connections(), 3);
}

#[tokio::test]
async fn the_limit_of_connections_counts_requests() {
    let mut app = App::start().await;
    let rig = serving(app.addr, |config| {
        let app = of_app(config);
        app.upstream.max_connections = 2;
        app.upstream.connect_timeout = Duration::from_millis(300);
        app.limits.requests_per_address = None;
    });
    let (mut one, mut two) = (rig.connect().await, rig.connect().await);
    one.send(GET).await;
    two.send(GET).await;
    let calls = [app.call().await, app.call().await];
    let reply = rig.ask(GET).await;
    assert_eq!((reply.status(), reply.header("portok-error")), (503, Some("upstream_full")));
    let mut third = rig.connect().await;
    third.send(GET).await;
    for call in calls {
        call.answer(200);
    }
    app.call().await.answer(200);
    assert_eq!(third.reply().await.status(), 200, "it has waited for its turn");
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn a_stream_that_the_app_refuses_is_sent_again_whatever_its_method() {
    let mut app = App::start().await;
    let rig = serving(app.addr, |_| {});
    let mut client = rig.connect().await;
    client.send(format!("{POST}content-length: 5\r\n\r\nhello")).await;
    for _ in 0..2 {
        let mut call = app.call().await;
        assert_eq!(call.body().await.0, b"hello");
        call.respond.send_reset(Reason::REFUSED_STREAM);
    }
    let mut call = app.call().await;
    assert_eq!(call.body().await.0, b"hello");
    call.answer(200);
    assert_eq!(client.reply().await.status(), 200);
    // Not for ever.
    client.send(format!("{POST}content-length: 5\r\n\r\nhello")).await;
    for _ in 0..=3 {
        app.call().await.respond.send_reset(Reason::REFUSED_STREAM);
    }
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.header("portok-error")), (502, Some("upstream_refused")));
}

#[tokio::test]
async fn a_connection_that_the_app_leaves_ends_after_what_is_on_it() {
    let mut app = App::start().await;
    let rig = serving(app.addr, |_| {});
    let (mut one, mut two) = (rig.connect().await, rig.connect().await);
    one.send(GET).await;
    let first = app.call().await;
    app.leave.notify_one();
    // It is learned of in its own time; until then the app answers there.
    loop {
        two.send(GET).await;
        let call = app.call().await;
        let number = call.connection;
        call.answer(200);
        assert_eq!(two.reply().await.status(), 200);
        if number == 1 {
            break;
        }
    }
    assert_eq!(app.ended.load(Ordering::SeqCst), 0);
    first.answer(200);
    assert_eq!(one.reply().await.status(), 200);
    eventually("the connection has ended", || app.ended.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn a_stream_that_breaks_is_an_error_before_the_head_and_a_cut_after_it() {
    let mut app = App::start().await;
    let rig = serving(app.addr, |_| {});
    let mut client = rig.connect().await;
    client.send(format!("{POST}content-length: 5\r\n\r\nhello")).await;
    app.call().await.respond.send_reset(Reason::INTERNAL_ERROR);
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.header("portok-error")), (502, Some("upstream_reset")));

    client.send(GET).await;
    let mut call = app.call().await;
    let mut stream = call.respond.send_response(Response::new(()), false).unwrap();
    stream.send_data(Bytes::from_static(b"begin"), false).unwrap();
    client.until(b"begin").await;
    stream.send_reset(Reason::INTERNAL_ERROR);
    assert!(!client.rest().await.ends_with(b"0\r\n\r\n"), "it is no whole answer");
    // The others go on.
    let mut other = rig.connect().await;
    other.send(GET).await;
    let call = app.call().await;
    assert_eq!(call.connection, 0);
    call.answer(200);
    assert_eq!(other.reply().await.status(), 200);
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_stream_alone() {
    let mut app = App::start().await;
    let rig = serving(app.addr, |_| {});
    let mut client = rig.connect().await;
    client.send(GET).await;
    let mut before = app.call().await;
    drop(client);
    let mut client = rig.connect().await;
    client.send(GET).await;
    let mut during = app.call().await;
    let mut stream = during.respond.send_response(Response::new(()), false).unwrap();
    stream.send_data(Bytes::from_static(b"begin"), false).unwrap();
    client.until(b"begin").await;
    drop(client);
    let reset = async |respond: &mut SendResponse<Bytes>| {
        std::future::poll_fn(|cx| respond.poll_reset(cx)).await.unwrap()
    };
    assert_eq!(tokio::time::timeout(LONG, reset(&mut before.respond)).await.unwrap(), Reason::CANCEL);
    let reset = std::future::poll_fn(|cx| stream.poll_reset(cx));
    assert_eq!(tokio::time::timeout(LONG, reset).await.unwrap().unwrap(), Reason::CANCEL);
    eventually("nothing is in flight", || rig.counters.service().inflight() == 0).await;
    assert_eq!((app.connections(), app.ended.load(Ordering::SeqCst)), (1, 0));
}

#[tokio::test]
async fn long_bodies_go_both_ways_through_small_windows() {
    const LENGTH: usize = 3_000_000;
    let mut app = App::with(|settings| {
        settings.initial_window_size(1000);
    })
    .await;
    let rig = serving(app.addr, |_| {});
    let sent: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8).collect();
    let mut client = rig.connect().await;
    let (mut reading, mut writing) = client.stream.into_split();
    let request = [format!("{POST}content-length: {LENGTH}\r\n\r\n").as_bytes(), &sent].concat();
    tokio::spawn(async move {
        writing.write_all(&request).await.unwrap();
        std::future::pending::<()>().await;
    });
    let mut call = app.call().await;
    let response = Response::builder().header("content-length", LENGTH).body(()).unwrap();
    let mut stream = call.respond.send_response(response, false).unwrap();
    tokio::spawn(async move {
        // Each part goes back as it comes.
        let mut body = call.request.into_body();
        while let Some(data) = body.data().await {
            let mut data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            while !data.is_empty() {
                stream.reserve_capacity(data.len());
                let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap();
                stream.send_data(data.split_to(room.min(data.len())), false).unwrap();
            }
        }
        stream.send_data(Bytes::new(), true).unwrap();
    });
    let mut answer = Vec::new();
    let is_whole = |answer: &[u8]| {
        let head = answer.windows(4).position(|window| window == b"\r\n\r\n");
        head.is_some_and(|head| answer.len() == head + 4 + LENGTH)
    };
    while !is_whole(&answer) {
        let read = tokio::time::timeout(LONG, reading.read_buf(&mut answer)).await.unwrap().unwrap();
        assert!(read > 0, "it ended after {}", answer.len());
    }
    assert!(answer[answer.len() - LENGTH..] == sent[..]);
    client = rig.connect().await;
    client.send(GET).await;
    let call = app.call().await;
    assert_eq!(call.connection, 0);
    call.answer(200);
    client.reply().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_little_and_keeps_nobody_from_the_connection() {
    let mut app = App::start().await;
    let rig = serving(app.addr, |_| {});
    let mut deaf = rig.connect().await;
    deaf.send(GET).await;
    let mut call = app.call().await;
    let mut stream = call.respond.send_response(Response::new(()), false).unwrap();
    let given = Arc::new(AtomicUsize::new(0));
    let counted = given.clone();
    tokio::spawn(async move {
        loop {
            stream.reserve_capacity(16 * 1024);
            let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { break };
            if stream.send_data(Bytes::from(vec![0; room]), false).is_err() {
                break;
            }
            counted.fetch_add(room, Ordering::SeqCst);
        }
    });
    // It stops: what the kernel takes has an end.
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = given.load(Ordering::SeqCst);
        if now == before && now > 0 {
            break;
        }
        before = now;
    }
    for _ in 0..3 {
        let mut client = rig.connect().await;
        client.send(format!("{POST}content-length: 5\r\n\r\nhello")).await;
        let mut call = app.call().await;
        assert_eq!((call.connection, call.body().await.0), (0, b"hello".to_vec()));
        let mut stream = call.respond.send_response(Response::new(()), false).unwrap();
        stream.send_data(Bytes::from(vec![1; 40_000]), true).unwrap();
        client.until(b"0\r\n\r\n").await;
    }
    // And it goes on when the client reads.
    while given.load(Ordering::SeqCst) == before {
        deaf.buf.clear();
        assert!(deaf.fill().await);
    }
}

#[tokio::test]
async fn an_answer_before_the_whole_request_is_passed_on() {
    let mut app = App::start().await;
    let rig = serving(app.addr, |_| {});
    let mut client = rig.connect().await;
    client.send(format!("{POST}content-length: 1000000\r\n\r\nhello")).await;
    let mut call = app.call().await;
    let response = Response::builder().status(413).header("content-length", 5).body(()).unwrap();
    let mut stream = call.respond.send_response(response, false).unwrap();
    stream.send_data(Bytes::from_static(b"large"), true).unwrap();
    // With what it has not read it ends the stream (NO_ERROR).
    drop((call, stream));
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.text()), (413, "large"));
}

#[tokio::test]
async fn an_app_that_is_late_is_told_of_and_given_up() {
    let mut app = App::start().await;
    let rig = serving(app.addr, |config| {
        let upstream = &mut of_app(config).upstream;
        upstream.response_timeout = Some(Duration::from_millis(200));
        upstream.read_timeout = Some(Duration::from_millis(200));
    });
    let mut client = rig.connect().await;
    client.send(GET).await;
    let mut silent = app.call().await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.header("portok-error")), (504, Some("upstream_timeout")));
    let reset = std::future::poll_fn(|cx| silent.respond.poll_reset(cx));
    assert_eq!(tokio::time::timeout(LONG, reset).await.unwrap().unwrap(), Reason::CANCEL);

    client.send(GET).await;
    let mut call = app.call().await;
    let mut stream = call.respond.send_response(Response::new(()), false).unwrap();
    stream.send_data(Bytes::from_static(b"begin"), false).unwrap();
    assert!(!client.rest().await.ends_with(b"0\r\n\r\n"), "it is no whole answer");
}

#[tokio::test]
async fn who_does_not_speak_http2_gives_no_valid_answer() {
    let app = Backend::start(|mut connection, _| async move {
        connection.head().await;
        connection.send("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
        connection.is_closed().await;
    })
    .await;
    let rig = serving(app.addr, |_| {});
    let reply = rig.ask(format!("{POST}content-length: 5\r\n\r\nhello")).await;
    assert_eq!((reply.status(), reply.header("portok-error")), (502, Some("upstream_invalid")));
    assert!(!app.seen()[0].contains("hello"), "nothing of the request was sent");
}

#[tokio::test]
async fn idle_connections_of_a_target_that_is_over_close() {
    let mut app = App::start().await;
    let mut rig = serving(app.addr, |_| {});
    let mut client = rig.connect().await;
    client.send(GET).await;
    app.call().await.answer(200);
    client.reply().await;
    assert_eq!(app.ended.load(Ordering::SeqCst), 0);
    let old = match &*rig.board.own().now() {
        Now::One(target) => target.clone(),
        _ => panic!("it serves"),
    };
    let mut next = App::start().await;
    let new = target(&rig.counters, "r2", next.addr.port());
    rig.routes.set(Now::One(new));
    old.retire();
    client.send(GET).await;
    next.call().await.answer(200);
    client.reply().await;
    old.close();
    eventually("the connection has ended", || app.ended.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn without_keep_alive_each_request_has_a_connection() {
    let mut app = App::start().await;
    let rig = serving(app.addr, |config| of_app(config).upstream.keepalive = false);
    let mut client = rig.connect().await;
    for number in 0..3 {
        client.send(GET).await;
        let call = app.call().await;
        assert_eq!(call.connection, number);
        call.answer(200);
        client.reply().await;
    }
    eventually("all have ended", || app.ended.load(Ordering::SeqCst) == 3).await;
}
