//! Probes against servers that misbehave, on real sockets.

use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use super::{Ask, Probe};
use crate::wire::ProbeReport;

mod other_ways;

const DEADLINE: Duration = Duration::from_secs(30);

/// A probe of `/`.
fn plain_probe(addr: std::net::SocketAddr) -> Probe {
    let (ask, host) = (Ask::Get("/".into()), "h".into());
    Probe { addr, ask, host, timeout: DEADLINE, most_fields: 256, tells_whose: false }
}

/// A server that answers the n-th connection (from 0) with what `answer` gives and closes it.
/// `None` holds it open.
async fn serve(
    answer: impl Fn(usize) -> Option<String> + Send + 'static,
) -> (Probe, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&heads);
    tokio::spawn(async move {
        let mut held = Vec::new();
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = read_head(&mut stream).await;
            seen.lock().unwrap().push(head);
            match answer(number) {
                Some(text) => stream.write_all(text.as_bytes()).await.unwrap(),
                None => held.push(stream),
            }
        }
    });
    let probe = Probe {
        addr,
        ask: Ask::Get("/health?full=1".into()),
        host: "app.test".into(),
        timeout: Duration::from_secs(20),
        most_fields: 256,
        tells_whose: false,
    };
    (probe, heads)
}

async fn read_head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.is_ok_and(|count| count == 1) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("no probe takes that long")
}

async fn one(answer: Option<&str>) -> ProbeReport {
    let answer = answer.map(str::to_owned);
    let (probe, _) = serve(move |_| answer.clone()).await;
    within(probe.ask()).await.unwrap()
}

#[tokio::test]
async fn any_2xx_is_healthy_and_the_request_is_a_plain_one() {
    let (probe, heads) = serve(|_| Some("HTTP/1.1 204 No Content\r\n\r\n".into())).await;
    let report = within(probe.ask()).await.unwrap();
    assert!(report.healthy && report.error.is_none(), "{report:?}");
    assert_eq!((report.status, report.attempts), (Some(204), 1));
    assert!(report.latency_ms > 0.0);
    let head = heads.lock().unwrap()[0].to_ascii_lowercase();
    assert!(head.starts_with("get /health?full=1 http/1.1\r\n"), "{head}");
    for line in ["host: app.test", "connection: close", "user-agent: portok"] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{head}");
    }
}

#[tokio::test]
async fn a_body_that_never_ends_does_not_make_a_healthy_app_wait() {
    let report = one(Some("HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nx")).await;
    assert!(report.healthy && report.body.is_none(), "{report:?}");
}

#[tokio::test]
async fn a_redirect_is_not_healthy_and_says_where_to() {
    let report = one(Some("HTTP/1.1 302 Found\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n")).await;
    assert!(!report.healthy);
    assert_eq!((report.status, report.location.as_deref()), (Some(302), Some("/login")));
    assert_eq!((report.body, report.error), (None, None));
}

#[tokio::test]
async fn a_failure_shows_the_beginning_of_its_body() {
    let report = one(Some("HTTP/1.1 500 Oh\r\ncontent-length: 11\r\n\r\ndb is \u{fe}down")).await;
    assert_eq!((report.healthy, report.status), (false, Some(500)));
    assert!(report.body.unwrap().starts_with("db is "));
    let long = format!("HTTP/1.1 503 No\r\n\r\n{}", "y".repeat(100_000));
    assert_eq!(one(Some(&long)).await.body.unwrap(), "y".repeat(512));
}

#[tokio::test]
async fn a_slow_body_ends_with_the_probes_time() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 500 Oh\r\ncontent-length: 100\r\n\r\nslow").await.unwrap();
        // Ends when the probe has closed its side.
        read_head(&mut stream).await
    });
    let probe = Probe { timeout: Duration::from_millis(300), ..plain_probe(addr) };
    let report = within(probe.ask()).await.unwrap();
    assert_eq!((report.status, report.body.as_deref(), report.error), (Some(500), Some("slow"), None));
    within(server).await.unwrap();
}

#[tokio::test]
async fn nobody_there_is_a_refused_connection() {
    // Bound and not listening, so that nobody else can be there.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let addr = socket.local_addr().unwrap();
    let probe = plain_probe(addr);
    let report = within(probe.ask()).await.unwrap();
    assert_eq!(report.error.as_deref(), Some("connection refused"));
    assert_eq!((report.healthy, report.status), (false, None));
}

#[tokio::test]
async fn silence_is_told_with_its_time() {
    let (mut probe, _) = serve(|_| None).await;
    probe.timeout = Duration::from_millis(250);
    let report = within(probe.ask()).await.unwrap();
    assert_eq!(report.error.as_deref(), Some("no answer within 250ms"));
    assert!(report.latency_ms >= 250.0, "{report:?}");
}

#[tokio::test]
async fn what_is_no_answer_is_said() {
    let closed = one(Some("")).await.error.unwrap();
    assert!(closed.contains("closed before an answer") || closed == "connection reset", "{closed}");
    let odd = one(Some("SSH-2.0-OpenSSH_9.2\r\n\r\n")).await.error.unwrap();
    assert!(odd.contains("not HTTP"), "{odd}");
    let (mut probe, _) = serve(|_| None).await;
    probe.ask = Ask::Get("/with a space".into());
    assert!(within(probe.ask()).await.unwrap().error.unwrap().contains("cannot be sent"));
}

#[tokio::test]
async fn what_clients_would_get_as_502_is_not_healthy() {
    let many = "x: 1\r\n".repeat(257);
    let long = format!("x: {}\r\n", "y".repeat(70_000));
    for fields in [
        "Content-Length: 3, 3\r\n",
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: +3\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        "x : y\r\n",
        "x: y\r\n z\r\n",
        &many,
        &long,
    ] {
        let report = one(Some(&format!("HTTP/1.1 200 OK\r\n{fields}\r\nabc"))).await;
        assert_eq!((report.healthy, report.status), (false, None), "{fields}");
        assert!(report.error.as_ref().is_some_and(|error| error.contains("502")), "{report:?}");
    }
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100);
    assert!(!one(Some(&interim)).await.healthy);
    let switched = one(Some("HTTP/1.1 101 S\r\nupgrade: websocket\r\n\r\n")).await;
    assert_eq!((switched.healthy, switched.status), (false, Some(101)));
    for fine in [
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.0 200 OK\r\n\r\nabc",
        &format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: 1\r\n".repeat(256)),
    ] {
        let report = one(Some(fine)).await;
        assert!(report.healthy && report.error.is_none(), "{report:?}");
    }
}

#[tokio::test]
async fn a_failure_in_chunks_shows_its_text_alone() {
    let report =
        one(Some("HTTP/1.1 500 Oh\r\ntransfer-encoding: chunked\r\n\r\n3\r\ndb \r\n4\r\ndown\r\n0\r\n\r\n"))
            .await;
    assert_eq!(report.body.as_deref(), Some("db down"));
}

#[tokio::test]
async fn the_wait_counts_and_wants_good_ones_in_a_row() {
    // good, bad, good, good
    let (probe, heads) = serve(|number| {
        let status = if number == 1 { "500 Oh" } else { "200 OK" };
        Some(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n"))
    })
    .await;
    let mut seen = Vec::new();
    let last = within(probe.until_healthy(2, |report| seen.push((report.healthy, report.attempts)))).await;
    assert_eq!(seen, [(true, 1), (false, 2), (true, 3), (true, 4)]);
    assert_eq!((last.healthy, last.attempts), (true, 4));
    assert_eq!(heads.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn a_dropped_wait_closes_its_connection() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let probe = plain_probe(addr);
    let waiting = tokio::spawn(async move { probe.until_healthy(1, |_| ()).await });
    let (mut stream, _) = within(listener.accept()).await.unwrap();
    read_head(&mut stream).await;
    waiting.abort();
    let mut rest = Vec::new();
    assert_eq!(within(stream.read_to_end(&mut rest)).await.unwrap(), 0);
}
