//! Requests that wait for an app, and what portok answers itself meanwhile.

use std::sync::atomic::AtomicUsize;

use super::*;

/// As long as a test waits for the end of a time: a tick and more.
const SHORT: Duration = Duration::from_millis(150);

const HELD: Now = Now::Held(Held::All);

/// A plane whose requests are held.
fn held(change: impl FnOnce(&mut Config)) -> Rig {
    let mut rig = Rig::start(change);
    rig.routes.set(HELD);
    rig
}

/// Requests that wait, one a connection.
async fn waiting(rig: &Rig, count: usize) -> Vec<Client> {
    let before = rig.routes.waiting();
    let mut clients = Vec::new();
    for number in 0..count {
        let mut client = rig.connect().await;
        client.send(format!("GET /{number} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        clients.push(client);
    }
    eventually("all of them wait", || rig.routes.waiting() == before + count).await;
    clients
}

fn said(reply: &Reply) -> (u16, Option<&str>, Option<&str>) {
    (reply.status(), reply.header("portok-error"), reply.header("retry-after"))
}

/// An app that answers with the path, and knows how many requests it has at a time.
async fn counting(most: &Arc<AtomicUsize>, order: &Arc<Mutex<Vec<String>>>) -> Backend {
    let (now, most, order) = (Arc::new(AtomicUsize::new(0)), most.clone(), order.clone());
    Backend::start(move |mut connection, _| {
        let (now, most, order) = (now.clone(), most.clone(), order.clone());
        async move {
            while let Some(request) = connection.request().await {
                let path = String::from_utf8_lossy(&request).split(' ').nth(1).unwrap().to_owned();
                order.lock().unwrap().push(path.clone());
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // Others have their turn, as far as they are here.
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                now.fetch_sub(1, Ordering::SeqCst);
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len());
                connection.send(answer).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn held_requests_go_oldest_first_and_so_many_at_a_time_and_new_ones_queue_behind() {
    let mut rig = held(|config| of_app(config).hold.release = 4);
    let mut clients = waiting(&rig, 60).await;
    let (most, order) = (Arc::new(AtomicUsize::new(0)), Arc::default());
    let app = counting(&most, &order).await;
    rig.route(&app);
    let mut late = rig.connect().await;
    late.send("GET /late HTTP/1.1\r\nhost: a\r\n\r\n").await;
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.reply().await.text(), format!("/{number}"));
    }
    assert_eq!(late.reply().await.text(), "/late");
    assert!(most.load(Ordering::SeqCst) <= 5, "{most:?}: four, and one that came when all were gone");
    let order = order.lock().unwrap().clone();
    let began = |path: &str| order.iter().position(|known| known == path).unwrap();
    for number in 4..60 {
        // Of four at a time, which is first in the app is the kernel's business.
        assert!(began(&format!("/{number}")) + 4 > number, "{order:?}");
    }
    assert_eq!((rig.routes.waiting(), rig.board.held_bytes().load(Ordering::SeqCst)), (0, 0));
    // Then nothing is in the way any more.
    for _ in 0..3 {
        assert_eq!(rig.ask("GET /next HTTP/1.1\r\nhost: a\r\n\r\n").await.text(), "/next");
    }
}

#[tokio::test]
async fn of_five_thousand_a_thousand_leave_and_the_others_are_answered() {
    let mut rig = held(|config| {
        config.proxy.threads = 2;
        of_app(config).hold.max_requests = 5000;
        of_app(config).limits.requests_per_address = None;
    });
    let mut clients = waiting(&rig, 5000).await;
    let refused = rig.ask(GET).await;
    assert_eq!(said(&refused), (503, Some("hold_full"), Some("1")));
    let left: Vec<_> = (0..1000).map(|number| clients.swap_remove(number * 4)).collect();
    drop(left);
    eventually("they have left", || rig.routes.waiting() == 4000).await;
    let (most, order) = (Arc::new(AtomicUsize::new(0)), Arc::default());
    let app = counting(&most, &order).await;
    rig.route(&app);
    for client in &mut clients {
        assert_eq!(client.reply().await.status(), 200);
    }
    assert!(most.load(Ordering::SeqCst) <= 32, "{most:?}");
    assert_eq!(order.lock().unwrap().len(), 4000, "nobody is asked for those that have left");
    assert_eq!((rig.routes.waiting(), rig.board.held_bytes().load(Ordering::SeqCst)), (0, 0));
}

#[tokio::test]
async fn a_request_waits_no_longer_than_its_time() {
    let rig = held(|config| of_app(config).hold.max_time = SHORT);
    let reply = rig.ask(GET).await;
    assert_eq!(said(&reply), (503, Some("held_too_long"), Some("1")));
    let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nabc";
    let reply = rig.ask(post).await;
    assert_eq!(said(&reply), (503, Some("held_too_long"), Some("1")));
    assert_eq!((rig.routes.waiting(), rig.board.held_bytes().load(Ordering::SeqCst)), (0, 0));
}

#[tokio::test]
async fn the_time_of_the_exchange_does_not_run_while_a_request_waits() {
    let app = Backend::fixed(OK).await;
    let mut rig = held(|config| of_app(config).upstream.timeout = Some(SHORT));
    let mut clients = waiting(&rig, 1).await;
    // Another one waits for as long as the exchange may take, and a tick.
    tokio::time::sleep(3 * SHORT).await;
    rig.route(&app);
    assert_eq!(clients[0].reply().await.text(), "ok");
}

#[tokio::test]
async fn what_waits_is_bounded_in_bytes_with_what_was_read_of_bodies() {
    let rig = held(|config| config.hold_memory = 10_000);
    let long = "x".repeat(6000);
    let mut first = rig.connect().await;
    first.send(format!("GET /?{long} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
    eventually("it waits", || rig.routes.waiting() == 1).await;
    let reply = rig.ask(format!("GET /?{long} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
    assert_eq!(said(&reply), (503, Some("hold_full"), Some("1")));
    let body = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9000\r\n\r\n{long}");
    assert_eq!(said(&rig.ask(body).await), (503, Some("hold_full"), Some("1")));
    let small = waiting(&rig, 1).await;
    drop((first, small));
    eventually("both have left", || rig.routes.waiting() == 0).await;
    assert_eq!(rig.board.held_bytes().load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_post_whose_body_was_begun_waits_and_goes_on() {
    let app = Backend::echo().await;
    let mut rig = held(|_| ());
    let (mut told, mut chunked) = (rig.connect().await, rig.connect().await);
    told.send("POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nabcde").await;
    chunked.send("POST /b HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    eventually("both wait", || rig.routes.waiting() == 2).await;
    let mut asks = rig.connect().await;
    asks.send("POST /c HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n").await;
    eventually("the third waits", || rig.routes.waiting() == 3).await;
    told.send("fg").await;
    rig.route(&app);
    assert_eq!(asks.until(b"\r\n\r\n").await, b"HTTP/1.1 100 Continue\r\n\r\n");
    asks.send("xyz").await;
    assert!(asks.reply().await.text().ends_with("\r\n\r\nxyz"));
    told.send("hij").await;
    assert!(told.reply().await.text().ends_with("\r\n\r\nabcdefghij"));
    chunked.send("2\r\nde\r\n0\r\n\r\n").await;
    let reply = chunked.reply().await;
    assert!(reply.text().contains("3\r\nabc\r\n") && reply.text().ends_with("2\r\nde\r\n0\r\n\r\n"));
}

#[tokio::test]
async fn who_goes_away_amid_a_body_leaves_and_so_does_who_has_sent_all_of_it() {
    let rig = held(|_| ());
    for sent in ["content-length: 10\r\n\r\nabc", "content-length: 3\r\n\r\nabc"] {
        let mut client = rig.connect().await;
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{sent}")).await;
        eventually("it waits", || rig.routes.waiting() == 1).await;
        drop(client);
        eventually("it has left", || rig.routes.waiting() == 0).await;
    }
    assert_eq!(rig.board.held_bytes().load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn where_nothing_is_to_come_all_that_wait_are_refused_at_once() {
    let mut rig = held(|_| ());
    let mut clients = waiting(&rig, 5).await;
    rig.routes.set(Now::Empty);
    for client in &mut clients {
        assert_eq!(said(&client.reply().await), (503, Some("no_live_target"), Some("1")));
    }
}

#[tokio::test]
async fn what_an_operator_orders_stands_before_where_requests_go() {
    let (old, new) = (Backend::fixed(OK).await, Backend::echo().await);
    let mut rig = Rig::serving(&old, |config| of_app(config).drain.affinity = Affinity::Connection);
    let mut pinned = rig.connect().await;
    pinned.send(GET).await;
    assert_eq!(pinned.reply().await.text(), "ok");
    rig.routes.bar(Some(Bar::Pause));
    assert_eq!(rig.routes.traffic(), crate::wire::Traffic::Held);
    let mut clients = waiting(&rig, 2).await;
    pinned.send(GET).await;
    eventually("the pinned one waits too", || rig.routes.waiting() == 3).await;
    // A switch meanwhile is in force with the resume.
    rig.route(&new);
    let page = Bytes::from_static(b"<p>soon");
    let answer = Arc::new(Maintenance { status: 503, page: Some(page) });
    rig.routes.bar(Some(Bar::Maintenance(answer)));
    assert_eq!(rig.routes.traffic(), crate::wire::Traffic::Maintenance);
    for client in &mut clients {
        assert_eq!(client.reply().await.text(), "<p>soon");
    }
    assert_eq!(pinned.reply().await.text(), "<p>soon");
    rig.routes.bar(None);
    assert_eq!(rig.routes.traffic(), crate::wire::Traffic::Open);
    assert!(rig.ask(GET).await.text().starts_with("GET / HTTP/1.1"));
}

#[tokio::test]
async fn in_maintenance_every_request_gets_the_page() {
    let app = Backend::fixed(OK).await;
    let mut rig = Rig::serving(&app, |_| ());
    let page = Bytes::from_static("<p>später".as_bytes());
    rig.routes.bar(Some(Bar::Maintenance(Arc::new(Maintenance { status: 404, page: Some(page) }))));
    for request in
        [GET, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello", "GET / HTTP/1.0\r\n\r\n"]
    {
        let reply = rig.ask(request).await;
        assert_eq!(said(&reply), (404, Some("maintenance"), Some("60")), "{request}");
        assert_eq!(reply.text(), "<p>später");
        assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
    let mut client = rig.connect().await;
    client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.reply_to_head().await.header("content-length"), Some("10"));
    rig.routes.bar(Some(Bar::Maintenance(Arc::new(Maintenance { status: 503, page: None }))));
    let reply = rig.ask(GET).await;
    assert!(reply.text().contains("\"code\":\"maintenance\""), "{}", reply.text());
    let counted = rig.counters.snapshot();
    assert_eq!(counted.total_proxy_errors, 0, "that is what an operator wants");
    assert_eq!(app.connections(), 0);
}

#[tokio::test]
async fn a_tunnel_and_an_event_stream_let_the_next_one_go() {
    let app = Backend::start(|mut connection, _| async move {
        let Some(request) = connection.request().await else { return };
        let request = String::from_utf8_lossy(&request).into_owned();
        let answer = match request.split(' ').nth(1) {
            Some("/ws") => "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            Some("/events") => {
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n"
            }
            _ => OK,
        };
        connection.send(answer).await;
        connection.is_closed().await;
    })
    .await;
    let mut rig = held(|config| of_app(config).hold.release = 1);
    let mut clients = Vec::new();
    for request in [
        "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        "GET /events HTTP/1.1\r\nhost: a\r\n\r\n",
        GET,
    ] {
        let mut client = rig.connect().await;
        client.send(request).await;
        clients.push(client);
        eventually("it waits", || rig.routes.waiting() == clients.len()).await;
    }
    rig.route(&app);
    let statuses = [101, 200, 200];
    for (client, status) in clients.iter_mut().zip(statuses) {
        assert_eq!(client.reply_to_head().await.status(), status);
    }
}

#[tokio::test]
async fn portok_itself_says_that_it_is_there_in_every_state() {
    let app = Backend::echo().await;
    let mut rig = Rig::start(|config| {
        config.proxy.ping = Some("/.ping".to_owned());
        config.proxy.ping_host = Some("__ping__".to_owned());
        of_app(config).limits.requests_per_address = Some(1);
    });
    let pings = [
        "GET /.ping HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /.ping?from=lb HTTP/1.0\r\n\r\n",
        "GET /any/path HTTP/1.1\r\nhost: __Ping__:80\r\n\r\n",
        "GET http://__ping__/ HTTP/1.1\r\nhost: __ping__\r\n\r\n",
    ];
    for state in 0..3 {
        match state {
            0 => drop(rig.routes.set(Now::Empty)),
            1 => rig.routes.bar(Some(Bar::Pause)),
            _ => rig.routes.bar(Some(Bar::Maintenance(Arc::new(Maintenance { status: 503, page: None })))),
        }
        for ping in pings {
            let reply = rig.ask(ping).await;
            assert_eq!((reply.status(), reply.text()), (200, "OK\n"), "{ping}");
        }
        let mut client = rig.connect().await;
        client.send("HEAD /.ping HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.reply_to_head().await.status(), 200);
        // The connection goes on, and the next request is an ordinary one.
        client.send("HEAD /.ping HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.reply_to_head().await.status(), 200);
    }
    rig.routes.bar(None);
    rig.route(&app);
    for other in [
        "POST /.ping HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
        "GET /.pin HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /x HTTP/1.1\r\nhost: ping\r\n\r\n",
    ] {
        let reply = rig.ask(other).await;
        assert!(reply.text().starts_with(&other[..6]), "{other} {reply:?}");
    }
    assert_eq!(
        rig.ask("GET /__status HTTP/1.1\r\nhost: a\r\n\r\n").await.text(),
        "admin /__status 127.0.0.1 0"
    );
    assert_eq!(rig.counters.snapshot().by_class[1], 3, "a ping is not counted");
}
