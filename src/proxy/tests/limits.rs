//! What clients may use at most, and how long the app may take.

use std::net::Ipv4Addr;

use tokio::net::TcpSocket;

use super::apps::App;
use super::*;

/// A time that passes within a test, and is long for whatever is not meant to be late.
const SHORT: Duration = Duration::from_secs(1);

const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A request whose body does not come.
const STALLED: &str = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nx";

const UPGRADE: &str =
    "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n\r\n";

const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

impl Rig {
    /// A client of another address.
    async fn connect_from(&self, ip: Ipv4Addr) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((ip, 0).into()).unwrap();
        Client { stream: socket.connect(self.addr).await.unwrap(), buf: Vec::new() }
    }

    fn refused(&self, reason: &str) -> u64 {
        let counters = self.counters.snapshot();
        let all = counters.connections_refused.iter().chain(&counters.requests_refused);
        all.filter(|(name, _)| *name == reason).map(|(_, count)| count).sum()
    }
}

/// Answers whose requests hold the client's connection until the app's is closed.
async fn holding() -> Backend {
    Backend::start(|mut connection, _| async move {
        while let Some(head) = connection.head().await {
            if head.contains(" /held ") || head.starts_with("POST") {
                connection.is_closed().await;
                return;
            }
            connection.send(if head.contains("upgrade: websocket") { SWITCHED } else { OK }).await;
        }
    })
    .await
}

const HELD: &str = "GET /held HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test]
async fn a_connection_beyond_the_limit_is_closed_and_counted() {
    let app = Backend::fixed(OK).await;
    let rig = Rig::serving(&app, |config| config.limits.connections = 2);
    let mut first = rig.connect().await;
    let mut second = rig.connect().await;
    for client in [&mut first, &mut second] {
        client.send(GET).await;
        assert_eq!(client.reply().await.status(), 200);
    }
    assert!(rig.connect().await.is_closed().await);
    assert_eq!(rig.refused("connections"), 1);
    drop(second);
    eventually("a place is free", || rig.counters.snapshot().client_connections == 1).await;
    assert_eq!(rig.ask(GET).await.status(), 200);
}

#[tokio::test]
async fn connections_of_one_address_are_limited_and_trusted_peers_are_not() {
    let app = Backend::fixed(OK).await;
    let rig = Rig::serving(&app, |config| {
        config.limits.connections_per_address = Some(1);
        config.proxy.trusted = vec!["127.0.0.1/32".parse().unwrap()];
    });
    let mut one = rig.connect_from(STRANGER).await;
    one.send(GET).await;
    assert_eq!(one.reply().await.status(), 200);
    assert!(rig.connect_from(STRANGER).await.is_closed().await);
    assert_eq!(rig.refused("connections_per_address"), 1);
    let mut trusted = [rig.connect().await, rig.connect().await];
    for client in &mut trusted {
        client.send(GET).await;
        assert_eq!(client.reply().await.status(), 200);
    }
}

#[tokio::test]
async fn requests_of_one_address_at_a_time_are_limited() {
    let app = holding().await;
    let rig = Rig::serving(&app, |config| of_app(config).limits.requests_per_address = Some(2));
    let mut held = [rig.connect_from(STRANGER).await, rig.connect_from(STRANGER).await];
    held[0].send(HELD).await;
    held[1].send(STALLED).await;
    eventually("both are under way", || rig.counters.snapshot().inflight == 2).await;
    // Read by portok itself, and by hyper.
    for request in [GET.to_owned(), format!("{STALLED}{}", "x".repeat(99))] {
        let mut third = rig.connect_from(STRANGER).await;
        third.send(request).await;
        let reply = third.reply().await;
        assert_eq!(
            (reply.status(), reply.header("portok-error"), reply.header("retry-after")),
            (429, Some("too_many_at_once"), Some("1"))
        );
    }
    assert_eq!(rig.ask(GET).await.status(), 200, "another address");
    assert_eq!(rig.refused("too_many_at_once"), 2);
    assert_eq!(rig.counters.snapshot().by_class[3], 2);
    drop(held);
    eventually("they have ended", || rig.counters.snapshot().inflight == 0).await;
    let mut again = rig.connect_from(STRANGER).await;
    again.send(GET).await;
    assert_eq!(again.reply().await.status(), 200);
}

#[tokio::test]
async fn behind_a_trusted_front_the_named_client_counts() {
    let app = holding().await;
    let rig = Rig::serving(&app, |config| {
        of_app(config).limits.requests_per_address = Some(1);
        config.proxy.trusted = vec!["127.0.0.1/32".parse().unwrap()];
    });
    let from = |client: &str, path: &str, body: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: a\r\nx-forwarded-for: {client}\r\n{body}\r\n")
    };
    let mut held = rig.connect().await;
    held.send(from("6.6.6.6, 1.2.3.4", "/held", "")).await;
    eventually("it is under way", || rig.counters.snapshot().inflight == 1).await;
    for body in ["", "te: trailers\r\n"] {
        assert_eq!(rig.ask(from("1.2.3.4", "/", body)).await.status(), 429);
        assert_eq!(rig.ask(from("1.2.3.4, ::ffff:1.2.3.4", "/", body)).await.status(), 429);
        assert_eq!(rig.ask(from("6.6.6.6", "/", body)).await.status(), 200);
    }
    // A front that names nobody stands for many; a stranger's word is not taken.
    let mut unnamed = rig.connect().await;
    unnamed.send(HELD).await;
    eventually("it is under way", || rig.counters.snapshot().inflight == 2).await;
    assert_eq!(rig.ask(GET).await.status(), 200);
    let mut stranger = rig.connect_from(STRANGER).await;
    stranger.send(from("1.2.3.4", "/", "")).await;
    assert_eq!(stranger.reply().await.status(), 200);
}

#[tokio::test]
async fn tunnels_have_a_limit_of_their_own() {
    let app = holding().await;
    let rig = Rig::serving(&app, |config| {
        of_app(config).limits.tunnels = 2;
        of_app(config).limits.requests_per_address = Some(1);
        of_app(config).upstream.max_connections = 1;
    });
    let mut tunnels = Vec::new();
    for _ in 0..2 {
        let mut tunnel = rig.connect().await;
        tunnel.send(UPGRADE).await;
        assert_eq!(tunnel.reply().await.status(), 101);
        tunnels.push(tunnel);
    }
    let mut third = rig.connect().await;
    third.send(UPGRADE).await;
    let reply = third.reply().await;
    assert_eq!(
        (reply.status(), reply.header("portok-error"), reply.header("retry-after")),
        (503, Some("too_many_tunnels"), Some("1"))
    );
    assert_eq!(rig.ask(GET).await.status(), 200, "a tunnel is no request, and no connection to the app");
    tunnels.clear();
    eventually("they have ended", || rig.counters.snapshot().inflight == 0).await;
    third.send(UPGRADE).await;
    assert_eq!(third.reply().await.status(), 101);
}

#[tokio::test]
async fn an_upgrade_that_was_answered_otherwise_takes_no_place_of_a_tunnel() {
    let app = Backend::start(|mut connection, _| async move {
        while let Some(head) = connection.head().await {
            if head.contains(" /plain ") {
                connection.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbegun").await;
                connection.is_closed().await;
                return;
            }
            connection.send(SWITCHED).await;
        }
    })
    .await;
    let rig = Rig::serving(&app, |config| of_app(config).limits.tunnels = 1);
    let mut reader = rig.connect().await;
    reader.send(UPGRADE.replace(" / ", " /plain ")).await;
    reader.until(b"begun").await;
    let mut first = rig.connect().await;
    first.send(UPGRADE).await;
    assert_eq!(first.reply().await.status(), 101);
    let mut second = rig.connect().await;
    second.send(UPGRADE).await;
    assert_eq!(second.reply().await.status(), 503);
    drop(reader);
    eventually("the reader's request has ended", || rig.counters.snapshot().inflight == 1).await;
    second.send(UPGRADE).await;
    assert_eq!(second.reply().await.status(), 503, "what was given back once is not given back again");
}

#[tokio::test]
async fn a_body_that_stops_is_given_up() {
    let app = holding().await;
    let rig = Rig::serving(&app, |config| of_app(config).limits.body_timeout = Some(SHORT));
    for request in [STALLED, "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhe"] {
        let mut client = rig.connect().await;
        client.send(request).await;
        let reply = client.reply().await;
        assert_eq!(
            (reply.status(), reply.header("portok-error"), reply.header("connection")),
            (408, Some("body_timeout"), Some("close"))
        );
        assert!(client.is_closed().await);
    }
    eventually("nothing is under way", || rig.counters.snapshot().inflight == 0).await;
    assert_eq!(rig.refused("body_timeout"), 2);
}

#[tokio::test]
async fn a_body_that_stops_behind_the_answer_s_head_cuts_the_answer() {
    let app = Backend::start(|mut connection, _| async move {
        connection.head().await;
        connection.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome").await;
        connection.is_closed().await;
    })
    .await;
    let rig = Rig::serving(&app, |config| of_app(config).limits.body_timeout = Some(SHORT));
    let mut client = rig.connect().await;
    client.send(STALLED).await;
    assert_eq!(client.reply_to_head().await.status(), 200);
    assert_eq!(client.rest().await, b"some");
}

#[tokio::test]
async fn a_body_is_not_given_up_while_the_app_does_not_take_it() {
    let (go, wait) = watch::channel(false);
    let app = Backend::start(move |mut connection, _| {
        let mut wait = wait.clone();
        async move {
            connection.head().await;
            wait.wait_for(|go| *go).await.unwrap();
            connection.exactly(64 << 20).await;
            connection.send(OK).await;
        }
    })
    .await;
    let rig = Rig::serving(&app, |config| of_app(config).limits.body_timeout = Some(3 * SHORT));
    let mut client = rig.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", 64 << 20)).await;
    let mut sent = 0;
    let part = vec![b'x'; 1 << 20];
    // Until nobody takes any more for longer than the limit.
    while let Ok(written) = tokio::time::timeout(5 * SHORT, client.stream.write(&part)).await {
        sent += written.unwrap();
    }
    go.send(true).unwrap();
    while sent < 64 << 20 {
        sent += client.stream.write(&part[..part.len().min((64 << 20) - sent)]).await.unwrap();
    }
    assert_eq!(client.reply().await.status(), 200);
}

/// An app that sends more than all buffers hold, of a type.
async fn endless(kind: &'static str) -> Backend {
    Backend::start(move |mut connection, _| async move {
        connection.head().await;
        connection.send(format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n\r\n")).await;
        let part = vec![b'x'; 1 << 20];
        while connection.client.stream.write_all(&part).await.is_ok() {}
    })
    .await
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let app = endless("text/plain").await;
    let long = "GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n";
    for request in [GET, long] {
        let rig = Rig::serving(&app, |config| of_app(config).limits.send_timeout = Some(SHORT));
        let mut client = rig.connect().await;
        client.send(request).await;
        assert_eq!(client.reply_to_head().await.status(), 200);
        eventually("it is cut", || rig.counters.snapshot().client_connections == 0).await;
        eventually("the app is free", || rig.counters.snapshot().inflight == 0).await;
    }
}

#[tokio::test]
async fn an_event_stream_is_not_cut() {
    let app = endless("Text/Event-Stream; charset=utf-8").await;
    for extra in ["", "te: trailers\r\n"] {
        let rig = Rig::serving(&app, |config| of_app(config).limits.send_timeout = Some(SHORT));
        let mut stream = rig.connect().await;
        stream.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{extra}\r\n")).await;
        assert_eq!(stream.reply_to_head().await.status(), 200);
        // Another one, begun later, is.
        let plain = endless("text/plain").await;
        let mut rig = rig;
        rig.route(&plain);
        let mut other = rig.connect().await;
        other.send(GET).await;
        assert_eq!(other.reply_to_head().await.status(), 200);
        eventually("the other is cut", || rig.counters.snapshot().client_connections == 1).await;
        stream.exactly(8 << 20).await;
    }
}

#[tokio::test]
async fn a_silent_tunnel_is_cut_where_that_is_asked_for() {
    let app = holding().await;
    let rig = Rig::serving(&app, |config| of_app(config).limits.tunnel_idle = Some(SHORT));
    let mut client = rig.connect().await;
    client.send(UPGRADE).await;
    assert_eq!(client.reply().await.status(), 101);
    assert!(client.is_closed().await);
    eventually("it is over", || rig.counters.snapshot().inflight == 0).await;
}

#[tokio::test]
async fn a_connection_serves_so_many_requests() {
    let app = Backend::fixed(OK).await;
    let rig = Rig::serving(&app, |config| config.limits.requests_per_connection = Some(2));
    for request in [GET.to_owned(), format!("{STALLED}{}", "x".repeat(99))] {
        let mut client = rig.connect().await;
        client.send(&request).await;
        assert_eq!(client.reply().await.header("connection"), None);
        client.send(&request).await;
        assert_eq!(client.reply().await.header("connection"), Some("close"));
        assert!(client.is_closed().await);
    }
}

#[tokio::test]
async fn a_full_target_is_503_and_no_failure_of_the_app() {
    let app = holding().await;
    let rig = Rig::serving(&app, |config| {
        of_app(config).upstream.max_connections = 1;
        of_app(config).upstream.connect_timeout = SHORT;
    });
    let mut held = rig.connect().await;
    held.send(HELD).await;
    eventually("it is under way", || app.connections() == 1).await;
    let reply = rig.ask(GET).await;
    assert_eq!(
        (reply.status(), reply.header("portok-error"), reply.header("retry-after")),
        (503, Some("upstream_full"), Some("1"))
    );
    assert_eq!(rig.refused("upstream_full"), 1);
    let by_release: u64 = rig.counters.snapshot().by_release.iter().map(|(_, classes)| classes[4]).sum();
    assert_eq!(by_release, 0);
}

/// Sends `parts` with a pause after each that outlasts `SHORT` several times over, unless the proxy
/// has gone.
async fn slow_app(parts: &'static [&'static str]) -> Backend {
    Backend::start(move |mut connection, _| async move {
        connection.head().await;
        for part in parts {
            connection.send(part).await;
        }
        connection.is_closed().await;
    })
    .await
}

#[tokio::test]
async fn an_app_that_falls_silent_is_504_before_its_head_and_cut_behind_it() {
    type Change = fn(&mut Config);
    let read: Change = |config| of_app(config).upstream.read_timeout = Some(SHORT);
    let whole: Change = |config| of_app(config).upstream.timeout = Some(SHORT);
    let response: Change = |config| of_app(config).upstream.response_timeout = Some(SHORT);
    let plain = GET;
    let other = "GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n";
    for request in [plain, other] {
        for (change, parts) in [
            (response, &[][..]),
            (response, &["HTTP/1.1 200 OK\r\n"][..]),
            (whole, &[][..]),
            (read, &["HTTP/1.1 200 OK\r\n"][..]),
        ] {
            let app = slow_app(parts).await;
            let rig = Rig::serving(&app, |config| {
                change(config);
                of_app(config).upstream.timeout_status = 503;
            });
            let reply = rig.ask(request).await;
            assert_eq!((reply.status(), reply.header("portok-error")), (503, Some("upstream_timeout")));
            assert_eq!(reply.header("retry-after"), Some("1"));
            eventually("the app's connection is closed", || rig.counters.snapshot().inflight == 0).await;
        }
        for change in [read, whole] {
            for head in ["content-length: 9\r\n\r\nsome", "transfer-encoding: chunked\r\n\r\n4\r\nsome\r\n"] {
                let parts: &'static [&'static str] =
                    vec![&*format!("HTTP/1.1 200 OK\r\n{head}").leak()].leak();
                let app = slow_app(parts).await;
                let rig = Rig::serving(&app, change);
                let mut client = rig.connect().await;
                client.send(request).await;
                assert_eq!(client.reply_to_head().await.status(), 200);
                let rest = client.rest().await;
                assert!(String::from_utf8_lossy(&rest).contains("some"), "{rest:?}");
                let last = rig.counters.snapshot().last_error.unwrap();
                assert_eq!(last.code, "upstream_timeout");
            }
        }
    }
}

#[tokio::test]
async fn the_whole_exchange_ends_although_the_client_takes_nothing() {
    let app = endless("text/plain").await;
    let rig = Rig::serving(&app, |config| of_app(config).upstream.timeout = Some(SHORT));
    let mut client = rig.connect().await;
    client.send(GET).await;
    assert_eq!(client.reply_to_head().await.status(), 200);
    eventually("it is cut", || rig.counters.snapshot().client_connections == 0).await;
}

#[tokio::test]
async fn so_many_idle_connections_are_kept() {
    for (most, opened) in [(0, 4), (1, 3), (2, 2)] {
        let app = Backend::start(|mut connection, _| async move {
            while connection.head().await.is_some() {
                // Both requests of a pair have a connection of their own.
                connection.until(b"go").await;
                connection.send(OK).await;
            }
        })
        .await;
        let rig = Rig::serving(&app, |config| of_app(config).upstream.max_idle = most);
        let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n";
        let (mut one, mut two) = (rig.connect().await, rig.connect().await);
        for _ in 0..2 {
            one.send(post).await;
            two.send(post).await;
            eventually("both are under way", || rig.counters.snapshot().inflight == 2).await;
            for client in [&mut one, &mut two] {
                client.send("go").await;
                assert_eq!(client.reply().await.status(), 200);
            }
        }
        assert_eq!(app.connections(), opened, "with max_idle = {most}");
    }
}

#[tokio::test]
async fn a_client_that_stops_and_goes_on_gets_every_byte() {
    const LENGTH: usize = 48 << 20;
    fn pattern() -> Vec<u8> {
        (0..LENGTH / 4).flat_map(|number| u32::try_from(number).unwrap().to_le_bytes()).collect()
    }
    let app = Backend::start(|mut connection, _| async move {
        connection.head().await;
        connection.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n")).await;
        connection.send(pattern()).await;
    })
    .await;
    let rig = Rig::serving(&app, |_| ());
    let mut client = rig.connect().await;
    client.send(GET).await;
    client.reply_to_head().await;
    let mut body = client.exactly(4 << 20).await;
    // Until the proxy takes no more of the app's.
    let mut before = 0;
    eventually("it waits for the client", || {
        let waiting = rx_queue(app.addr.port());
        std::mem::replace(&mut before, waiting) == waiting && waiting > 0
    })
    .await;
    body.extend(client.exactly(LENGTH - body.len()).await);
    assert!(body == pattern(), "bytes are missing, or came twice");
    eventually("it has ended", || rig.counters.snapshot().inflight == 0).await;
}

/// How many bytes wait in this host's sockets to be read from the app's `port`.
fn rx_queue(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let of_port = format!(":{port:04X}");
    let rows = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[2].ends_with(&of_port))
        .map(|row| u64::from_str_radix(row[4].split_once(':').unwrap().1, 16).unwrap())
        .sum()
}

#[tokio::test]
async fn each_app_s_limits_are_its_own() {
    let app = holding().await;
    let rig = Rig::start(|_| ());
    let limited = |change: fn(&mut AppConfig)| {
        let mut served = App::new(&rig, |config| {
            (config.limits.requests_per_address, config.limits.tunnels) = (Some(1), 1);
            change(config);
        });
        served.switch(&app);
        served
    };
    let one = limited(|config| config.limits.tunnel_idle = Some(SHORT));
    let other = limited(|config| config.limits.body_timeout = Some(SHORT));
    let open = limited(|config| config.limits.requests_per_address = None);
    rig.board.route(vec![one.at("one", "/"), other.at("other", "/"), open.at("open", "/")]);
    let to = |host: &str, request: &str| request.replace("host: a\r\n", &format!("host: {host}\r\n"));
    let ask = async |host: &str, request: &str| {
        let reply = rig.ask(to(host, request)).await;
        (reply.status(), reply.header("portok-error").map(str::to_owned))
    };
    let refused = |status, code: &str| (status, Some(code.to_owned()));

    let mut held = rig.connect().await;
    held.send(to("one", HELD)).await;
    eventually("it is under way", || one.service.counters().inflight() == 1).await;
    assert_eq!(ask("one", GET).await, refused(429, "too_many_at_once"));
    assert_eq!(ask("other", GET).await, (200, None));
    drop(held);
    eventually("it has ended", || one.service.counters().inflight() == 0).await;
    assert_eq!(ask("one", GET).await, (200, None));

    let mut many = [rig.connect().await, rig.connect().await, rig.connect().await];
    for client in &mut many {
        client.send(to("open", HELD)).await;
    }
    eventually("all are under way", || open.service.counters().inflight() == 3).await;
    drop(many);

    let mut silent = rig.connect().await;
    silent.send(to("one", UPGRADE)).await;
    assert_eq!(silent.reply().await.status(), 101);
    assert_eq!(ask("one", UPGRADE).await, refused(503, "too_many_tunnels"));
    let mut lasting = rig.connect().await;
    lasting.send(to("other", UPGRADE)).await;
    assert_eq!(lasting.reply().await.status(), 101);
    assert!(silent.is_closed().await, "its app has a limit for silence");
    assert_eq!(ask("other", STALLED).await, refused(408, "body_timeout"));
    assert_eq!(ask("other", UPGRADE).await, refused(503, "too_many_tunnels"), "the tunnel is there still");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_by_the_limit_of_the_app_that_answers() {
    let (endless, short) = (endless("text/plain").await, Backend::fixed(OK).await);
    let rig = Rig::start(|_| ());
    let mut strict = App::new(&rig, |config| config.limits.send_timeout = Some(SHORT));
    let mut patient = App::new(&rig, |config| config.limits.send_timeout = None);
    strict.switch(&endless);
    patient.switch(&short);
    rig.board.route(vec![strict.at("strict", "/"), patient.at("*", "/")]);
    let to_strict = GET.replace("host: a", "host: strict");
    // Before hyper drives the connection, and after.
    for before in [GET.to_owned(), format!("{STALLED}{}", "x".repeat(99))] {
        let mut client = rig.connect().await;
        client.send(&before).await;
        assert_eq!(client.reply().await.status(), 200);
        client.send(&to_strict).await;
        assert_eq!(client.reply_to_head().await.status(), 200);
        eventually("it is cut", || rig.counters.snapshot().client_connections == 0).await;
    }
}
