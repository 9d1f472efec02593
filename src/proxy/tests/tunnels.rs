//! Upgrades.

use super::*;
use crate::proxy::clock;

/// An answer of three bytes.
macro_rules! named {
    ($name:literal) => {
        concat!("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", $name)
    };
}

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nhost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nsec-websocket-key: x\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nsec-websocket-accept: y\r\n\r\n";

#[tokio::test]
async fn bytes_right_behind_the_heads_and_half_closes_pass() {
    let app = Backend::start(|mut connection, _| async move {
        let head = connection.head().await.unwrap();
        assert!(
            head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"),
            "{head}"
        );
        connection.send(format!("{SWITCHED}hello")).await;
        assert_eq!(connection.exactly(5).await.unwrap(), b"early");
        let mut big = vec![7; 300_000];
        connection.send(&big).await;
        // The client has ended its side; this one still speaks.
        assert!(connection.is_closed().await);
        big.clear();
        connection.send("last").await;
    })
    .await;
    let mut rig = Rig::start(|config| config.proxy.idle_timeout = Duration::from_millis(100));
    let target = rig.route(&app);
    let mut client = rig.connect().await;
    client.send(format!("{UPGRADE}early")).await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.header("upgrade")), (101, Some("websocket")));
    assert_eq!(
        (reply.header("connection"), reply.header("sec-websocket-accept")),
        (Some("upgrade"), Some("y"))
    );
    assert_eq!(client.exactly(5).await, b"hello");
    assert_eq!(client.exactly(300_000).await, vec![7; 300_000]);
    assert_eq!((target.inflight(), rig.counters.snapshot().inflight), (1, 1));
    assert_eq!((target.tunnels(), target.requests()), (1, 1));
    client.stream.shutdown().await.unwrap();
    assert_eq!(client.rest().await, b"last");
    eventually("the tunnel has ended", || target.inflight() == 0).await;
    assert_eq!((target.tunnels(), target.requests()), (0, 1));
    let snapshot = rig.counters.snapshot();
    assert_eq!((snapshot.by_class, snapshot.total_proxy_errors), ([1, 0, 0, 0, 0], 0));
}

#[tokio::test]
async fn without_a_101_it_is_an_ordinary_answer() {
    let app =
        Backend::fixed("HTTP/1.1 426 Upgrade Required\r\nupgrade: other\r\ncontent-length: 2\r\n\r\nno")
            .await;
    let rig = Rig::serving(&app, |_| ());
    let mut client = rig.connect().await;
    for _ in 0..2 {
        client.send(UPGRADE).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.text()), (426, "no"));
    }
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn a_101_nobody_asked_for_opens_no_tunnel() {
    let app = Backend::fixed(SWITCHED).await;
    let rig = Rig::serving(&app, |_| ());
    for request in [
        GET,
        "GET / HTTP/1.1\r\nhost: a\r\nupgrade: x\r\n\r\n",
        "GET / HTTP/1.0\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    ] {
        let mut client = rig.connect().await;
        client.send(request).await;
        let reply = client.reply().await;
        assert_eq!(reply.header("portok-error"), Some("upstream_invalid"), "{request} got {reply:?}");
    }
}

#[tokio::test]
async fn a_tunnel_outlives_its_drain_but_not_its_app() {
    let (end, ended) = watch::channel(false);
    let app = Backend::start(move |mut connection, _| {
        let mut ended = ended.clone();
        async move {
            connection.head().await;
            connection.send(SWITCHED).await;
            let byte = connection.exactly(1).await.unwrap();
            connection.send(byte).await;
            ended.wait_for(|ended| *ended).await.unwrap();
        }
    })
    .await;
    let mut rig = Rig::start(|_| ());
    let target = rig.route(&app);
    let mut client = rig.connect().await;
    client.send(UPGRADE).await;
    client.reply().await;
    rig.routes.set(Now::Empty);
    target.retire();
    target.close();
    client.send("x").await;
    assert_eq!(client.exactly(1).await, b"x");
    assert_eq!(target.inflight(), 1);
    // The client never ends its side.
    end.send(true).unwrap();
    assert!(client.is_closed().await);
    eventually("the tunnel has ended", || target.inflight() == 0).await;
}

/// A frame of an app with this text.
fn text(text: &str) -> Vec<u8> {
    [&[0x81, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// How a tunnel that does nothing is asked for.
async fn open(rig: &Rig, path: &str) -> Client {
    let mut client = rig.connect().await;
    client.send(UPGRADE.replace("/chat", path)).await;
    assert_eq!(client.reply().await.status(), 101);
    client
}

#[tokio::test]
async fn a_websocket_is_closed_between_two_frames_and_its_app_hears_of_it() {
    let (go_on, goes_on) = watch::channel(false);
    let app = Backend::start(move |mut connection, _| {
        let mut goes_on = goes_on.clone();
        async move {
            connection.head().await;
            let begun = &text("hello")[..4];
            connection.send([SWITCHED.as_bytes(), &text("first"), begun].concat()).await;
            goes_on.wait_for(|goes_on| *goes_on).await.unwrap();
            // The rest of the frame, and the beginning of another.
            connection.send([&text("hello")[4..], &text("never")[..3]].concat()).await;
            assert_eq!(connection.exactly(6).await.unwrap(), [0x88, 0x80, 1, 2, 3, 4], "the client's answer");
        }
    })
    .await;
    let mut rig = Rig::start(|_| ());
    let target = rig.route(&app);
    let mut client = open(&rig, "/chat?secret=1").await;
    client.exactly(text("first").len() + 4).await;
    let bytes = || target.stayers(rig.counters.service()).iter().map(|stayer| stayer.bytes).sum::<u64>();
    eventually("what has passed is counted", || bytes() == 11).await;
    let [stayer] = &target.stayers(rig.counters.service())[..] else { panic!("one is there") };
    assert_eq!((stayer.kind, stayer.path.as_str()), (StayerKind::WebSocket, "/chat"));
    assert_eq!(stayer.peer.to_string(), "127.0.0.1");
    rig.routes.set(Now::Empty);
    target.retire();
    target.part(LONG, Some(2 * SOON), rig.counters.service());
    // Its turn comes in the last half of the time; its frame is not over then.
    tokio::time::sleep(SOON + SOON / 2).await;
    go_on.send(true).unwrap();
    assert_eq!(client.exactly(3).await, &text("hello")[4..]);
    assert_eq!(client.exactly(4).await, [0x88, 0x02, 0x03, 0xF4]);
    client.send([0x88, 0x80, 1, 2, 3, 4]).await;
    assert!(client.is_closed().await, "nothing follows a close frame");
    eventually("the tunnel has ended", || target.inflight() == 0).await;
    assert_eq!(target.stayers(rig.counters.service()), []);
}

/// Half of the time that those who stay get in a test.
const SOON: Duration = Duration::from_millis(400);

#[tokio::test]
async fn whoever_cannot_be_asked_is_cut_at_the_end_and_not_before() {
    let app = Backend::start(|mut connection, _| async move {
        let head = connection.head().await.unwrap();
        let stays = match head.contains("/frames") {
            // A frame that never ends.
            true => [SWITCHED.as_bytes(), &text("hello")[..3]].concat(),
            false => SWITCHED.replace("websocket", "other").into_bytes(),
        };
        connection.send(stays).await;
        assert!(connection.is_closed().await);
    })
    .await;
    let mut rig = Rig::start(|config| config.proxy.upgrades.push("other".to_owned()));
    let target = rig.route(&app);
    let mut frames = open(&rig, "/frames").await;
    frames.exactly(3).await;
    let mut other = rig.connect().await;
    other.send(UPGRADE.replace("websocket", "other")).await;
    assert_eq!(other.reply().await.status(), 101);
    rig.routes.set(Now::Empty);
    let begun = std::time::Instant::now();
    target.retire();
    target.part(LONG, Some(2 * SOON), rig.counters.service());
    for client in [&mut frames, &mut other] {
        assert!(client.is_closed().await, "without a close frame");
    }
    assert!(begun.elapsed() >= 2 * SOON - Duration::from_millis(150), "{:?}", begun.elapsed());
    eventually("both have ended", || target.inflight() == 0).await;
}

#[tokio::test]
async fn whoever_has_no_time_or_another_chance_stays() {
    let app = Backend::start(|mut connection, _| async move {
        connection.head().await;
        connection.send(SWITCHED).await;
        while let Some(byte) = connection.exactly(1).await {
            connection.send(byte).await;
        }
    })
    .await;
    let mut rig = Rig::start(|_| ());
    let target = rig.route(&app);
    let mut client = open(&rig, "/").await;
    rig.routes.set(Now::Empty);
    target.retire();
    target.part(Duration::ZERO, None, rig.counters.service());
    target.part(Duration::ZERO, Some(2 * SOON), rig.counters.service());
    target.stay();
    tokio::time::sleep(3 * SOON).await;
    client.send([0]).await;
    assert_eq!(client.exactly(1).await, [0]);
}

#[tokio::test]
async fn an_event_stream_ends_with_a_whole_chunk_on_every_way_and_its_client_goes_on() {
    let (go_on, goes_on) = watch::channel(0);
    let app = Backend::start(move |mut connection, _| {
        let mut goes_on = goes_on.clone();
        async move {
            connection.head().await;
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            connection.send(format!("{head}3\r\none\r\n5\r\nbeg")).await;
            goes_on.wait_for(|goes_on| *goes_on > 0).await.unwrap();
            connection.send("un\r\n5\r\nnever\r\n").await;
            assert!(connection.is_closed().await, "nobody asks for more");
        }
    })
    .await;
    let mut rig = Rig::start(|_| ());
    let target = rig.route(&app);
    let mut clients = [rig.connect().await, rig.connect().await];
    clients[0].send(GET).await;
    clients[1].send("POST /events HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
    for client in &mut clients {
        client.until(b"beg\r\n").await;
    }
    eventually("both are listed", || target.stayers(rig.counters.service()).len() == 2).await;
    let next = Backend::fixed("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
    rig.route(&next);
    target.retire();
    target.part(LONG, Some(2 * SOON), rig.counters.service());
    tokio::time::sleep(SOON + SOON / 2).await;
    go_on.send(1).unwrap();
    for client in &mut clients {
        let rest = client.until(b"0\r\n\r\n").await;
        assert_eq!(String::from_utf8_lossy(&rest), "2\r\nun\r\n0\r\n\r\n");
        client.send(GET).await;
        assert_eq!(client.reply().await.text(), "ok", "on the same connection");
    }
    assert_eq!(rig.counters.snapshot().total_proxy_errors, 0);
    eventually("both have ended", || target.inflight() == 0).await;
}

#[tokio::test]
async fn a_pin_ends_with_its_own_time_while_tunnels_stay() {
    let [old, new] = [Backend::fixed(named!("old")).await, Backend::fixed(named!("new")).await];
    let mut rig = Rig::start(|config| of_app(config).drain.affinity = Affinity::Connection);
    let target = rig.route(&old);
    let mut client = rig.connect().await;
    let ask = async |client: &mut Client| {
        client.send(GET).await;
        client.reply().await.text().to_owned()
    };
    assert_eq!(ask(&mut client).await, "old");
    rig.route(&new);
    target.retire();
    target.part(LONG, Some(LONG), rig.counters.service());
    assert_eq!(ask(&mut client).await, "old");
    target.part(Duration::ZERO, Some(LONG), rig.counters.service());
    tokio::time::sleep(2 * clock::TICK).await;
    assert_eq!(ask(&mut client).await, "new");
}
