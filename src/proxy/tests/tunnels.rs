//! Upgrades.

use super::*;

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

#[tokio::test]
async fn a_tunnel_ends_when_its_target_is_cut() {
    let app = Backend::start(|mut connection, _| async move {
        connection.head().await;
        connection.send(SWITCHED).await;
        assert!(connection.is_closed().await);
    })
    .await;
    let mut rig = Rig::start(|_| ());
    let target = rig.route(&app);
    let mut client = rig.connect().await;
    client.send(UPGRADE).await;
    client.reply().await;
    rig.routes.set(Now::Empty);
    target.cut();
    // Neither side has ended it.
    assert!(client.is_closed().await);
    eventually("the tunnel has ended", || target.inflight() == 0).await;
}
