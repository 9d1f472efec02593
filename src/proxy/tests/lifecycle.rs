//! Start, rebind, drain, stop.

use std::sync::atomic::Ordering;

use super::*;

#[tokio::test]
async fn rebinding_loses_no_connection() {
    let app = Backend::fixed(OK).await;
    let rig = Rig::serving(&app, |config| config.proxy.threads = 2);
    let mut open = rig.connect().await;
    open.send(GET).await;
    open.reply().await;
    let mut queued = Vec::new();
    for _ in 0..50 {
        queued.push(rig.connect().await);
    }
    let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let addr = listener.local_addr().unwrap();
    rig.plane.listen(ListenerId::Instance(addr), listener).await.unwrap();
    rig.plane.leave(public()).await;
    assert!(TcpStream::connect(rig.addr).await.is_err());
    queued.push(Client { stream: TcpStream::connect(addr).await.unwrap(), buf: Vec::new() });
    queued.push(open);
    for client in &mut queued {
        client.send(GET).await;
        assert_eq!(client.reply().await.text(), "ok");
    }
}

#[tokio::test]
async fn a_drain_finishes_what_is_under_way() {
    let (go, gone) = watch::channel(false);
    let app = Backend::start(move |mut connection, _| {
        let mut gone = gone.clone();
        async move {
            while let Some(head) = connection.head().await {
                if head.starts_with("GET /slow") {
                    gone.wait_for(|gone| *gone).await.unwrap();
                }
                connection.send(OK).await;
            }
        }
    })
    .await;
    let rig = Arc::new(Rig::serving(&app, |_| ()));
    let (mut idle, mut busy, mut new) = (rig.connect().await, rig.connect().await, rig.connect().await);
    idle.send(GET).await;
    idle.reply().await;
    busy.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await;
    eventually("it is in flight", || rig.counters.snapshot().inflight == 1).await;
    let draining = tokio::spawn({
        let rig = rig.clone();
        async move { rig.plane.drain(Until::Empty).await }
    });
    // One that has said nothing yet is closed too, as is the idle one.
    assert!(idle.is_closed().await && new.is_closed().await);
    eventually("nothing is accepted", || std::net::TcpStream::connect(rig.addr).is_err()).await;
    assert!(!draining.is_finished());
    go.send(true).unwrap();
    let reply = busy.reply().await;
    assert_eq!((reply.text(), reply.header("connection")), ("ok", Some("close")));
    assert!(busy.is_closed().await);
    tokio::time::timeout(LONG, draining).await.unwrap().unwrap();
    assert_eq!(rig.counters.snapshot().client_connections, 0);
}

#[tokio::test]
async fn a_drain_waits_for_tunnels_and_a_shut_down_cuts_them() {
    let app = Backend::start(|mut connection, _| async move {
        connection.head().await;
        connection
            .send("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
            .await;
        while !connection.is_closed().await {}
    })
    .await;
    let mut rig = Rig::start(|config| config.proxy.threads = 2);
    let target = rig.route(&app);
    let mut client = rig.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    client.reply().await;
    assert!(tokio::time::timeout(Duration::from_millis(300), rig.plane.drain(Until::Empty)).await.is_err());
    tokio::time::timeout(LONG, rig.plane.shut_down()).await.unwrap();
    assert!(client.is_closed().await);
    assert_eq!((target.inflight(), rig.counters.snapshot().client_connections), (0, 0));
}

#[tokio::test]
async fn a_drain_that_leaves_tunnels_ends_with_the_last_request() {
    let (go, gone) = watch::channel(false);
    let app = Backend::start(move |mut connection, _| {
        let mut gone = gone.clone();
        async move {
            while let Some(head) = connection.head().await {
                if head.starts_with("GET /tunnel") {
                    connection
                        .send("HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
                        .await;
                    while !connection.is_closed().await {}
                    return;
                }
                gone.wait_for(|gone| *gone).await.unwrap();
                connection.send(OK).await;
            }
        }
    })
    .await;
    let rig = Arc::new(Rig::serving(&app, |config| config.proxy.threads = 2));
    let (mut tunnel, mut busy) = (rig.connect().await, rig.connect().await);
    tunnel.send("GET /tunnel HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
    tunnel.reply().await;
    busy.send(GET).await;
    eventually("both are in flight", || rig.counters.snapshot().inflight == 2).await;
    let draining = tokio::spawn({
        let rig = rig.clone();
        async move { rig.plane.drain(Until::OnlyTunnels).await }
    });
    eventually("nothing is accepted", || std::net::TcpStream::connect(rig.addr).is_err()).await;
    assert!(!draining.is_finished());
    go.send(true).unwrap();
    assert_eq!(busy.reply().await.text(), "ok");
    tokio::time::timeout(LONG, draining).await.unwrap().unwrap();
    assert_eq!(rig.counters.snapshot().inflight, 1, "the tunnel is still there");
}

#[tokio::test]
async fn every_answer_during_a_drain_is_the_last_of_its_connection() {
    let app = Backend::fixed(OK).await;
    let rig = Arc::new(Rig::serving(&app, |_| ()));
    let mut client = rig.connect().await;
    client.send(GET).await;
    assert_eq!(client.reply().await.header("connection"), None);
    let draining = tokio::spawn({
        let rig = rig.clone();
        async move { rig.plane.drain(Until::Empty).await }
    });
    eventually("nothing is accepted", || std::net::TcpStream::connect(rig.addr).is_err()).await;
    client.send(GET).await;
    assert_eq!(client.reply().await.header("connection"), Some("close"));
    tokio::time::timeout(LONG, draining).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_pulse_stops_with_one_blocked_thread_and_does_not_keep_the_plane() {
    let app = Backend::fixed(OK).await;
    let rig = Rig::serving(&app, |config| config.proxy.threads = 2);
    let pulse = rig.plane.pulse();
    tokio::time::timeout(LONG, pulse.beat()).await.unwrap();
    // One thread hangs in the answer of this request.
    let mut client = rig.connect().await;
    client.send("GET /__hang/0 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let hangs =
        async { while tokio::time::timeout(Duration::from_millis(200), pulse.beat()).await.is_ok() {} };
    tokio::time::timeout(LONG, hangs).await.unwrap();
    GATES[0].open.store(true, Ordering::SeqCst);
    tokio::time::timeout(LONG, pulse.beat()).await.unwrap();
    tokio::time::timeout(LONG, rig.plane.shut_down()).await.unwrap();
    tokio::time::timeout(LONG, pulse.beat()).await.unwrap();
}

#[tokio::test]
async fn a_request_that_comes_while_its_connection_is_about_to_be_closed_is_answered() {
    let app = Backend::echo().await;
    let mut rig = Rig::serving(&app, |_| ());
    let (mut first, mut second) = (rig.connect().await, rig.connect().await);
    let mut idle = [rig.connect().await, rig.connect().await];
    for client in [&mut first, &mut second].into_iter().chain(&mut idle) {
        client.send(GET).await;
        client.reply().await;
    }
    // A connection that hyper has.
    idle[1].send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\nx").await;
    idle[1].reply().await;

    // When the thread goes on, it learns of the second request and, after it, that it is time to
    // close what is idle: of the time in which it is held up a little counts.
    first.send("GET /__hang/1 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let reached = |gate: usize| move || GATES[gate].reached.load(Ordering::SeqCst);
    eventually("the thread is held up", reached(1)).await;
    second.send("GET /__hang/2 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let (mut quick, since) = (config(), std::time::Instant::now());
    quick.proxy.idle_timeout = Duration::from_millis(100);
    rig.plane.configure(Arc::new(quick));
    eventually("a tick is over", || since.elapsed() > Duration::from_millis(500)).await;
    GATES[1].open.store(true, Ordering::SeqCst);
    eventually("the thread is held up again", reached(2)).await;
    for client in &mut idle {
        client.send(GET).await;
    }
    GATES[2].open.store(true, Ordering::SeqCst);
    for client in &mut idle {
        let reply = client.reply().await;
        assert_eq!((reply.status(), reply.header("connection")), (200, Some("close")));
        assert!(client.is_closed().await);
    }
}

#[tokio::test]
async fn a_plane_that_is_dropped_stops() {
    let app = Backend::fixed(OK).await;
    let Rig { plane, addr, counters, routes, .. } = Rig::serving(&app, |_| ());
    let mut client = Client { stream: TcpStream::connect(addr).await.unwrap(), buf: Vec::new() };
    client.send(GET).await;
    client.reply().await;
    drop(plane);
    assert!(client.is_closed().await);
    eventually("nothing is accepted", || std::net::TcpStream::connect(addr).is_err()).await;
    drop((counters, routes));
}

#[tokio::test]
async fn more_threads_than_counters_are_refused() {
    let mut many = config();
    many.proxy.threads = 2;
    let counters = Counters::new(1);
    let (board, _routes) = Board::new(Arc::new(many), counters.service().clone());
    let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listeners = vec![(public(), listener)];
    let error = Plane::prepare(listeners, board, counters, Arc::new(Admins)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_panic_costs_one_connection() {
    let app = Backend::fixed(OK).await;
    let rig = Rig::serving(&app, |_| ());
    let (mut one, mut other) = (rig.connect().await, rig.connect().await);
    other.send(GET).await;
    other.reply().await;
    one.send("GET /__panic HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(one.is_closed().await);
    other.send(GET).await;
    assert_eq!(other.reply().await.text(), "ok");
    let snapshot = rig.counters.snapshot();
    assert_eq!((snapshot.client_connections, snapshot.last_error.unwrap().code.as_str()), (1, "internal"));
}

#[tokio::test]
async fn counts_and_releases_are_bounded() {
    let counters = Counters::new(2);
    let kept = target(&counters, "r0", 1);
    kept.release_counters().answered(1, 204);
    for n in 1..20 {
        target(&counters, &format!("r{n}"), 1).release_counters().answered(0, 500);
    }
    kept.release_counters().answered(0, 404);
    let by_release = counters.snapshot().by_release;
    assert_eq!(by_release.len(), 9);
    assert_eq!(by_release[0], ("other".to_owned(), [0, 1, 0, 1, 11]));
    assert_eq!(by_release[8], ("r19".to_owned(), [0, 0, 0, 0, 1]));
    drop(kept);
    assert_eq!(counters.snapshot().by_release, by_release);
}
