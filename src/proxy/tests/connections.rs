//! Connections to the app: kept, retried, limited, timed; and slow or idle clients.

use super::*;

#[tokio::test]
async fn a_connection_the_app_closed_is_noticed_or_retried() {
    // Each connection answers once and is then closed without a word.
    let app = Backend::start(|mut connection, number| async move {
        if number % 2 == 1 {
            connection.head().await;
            connection.send(OK).await;
            return;
        }
        connection.head().await;
        connection.send(OK).await;
        // The second request on it is read and not answered.
        connection.head().await;
    })
    .await;
    let rig = Rig::serving(&app, |_| ());
    let mut client = rig.connect().await;
    for _ in 0..8 {
        client.send(GET).await;
        assert_eq!(client.reply().await.text(), "ok");
    }
    assert_eq!(rig.counters.snapshot().total_proxy_errors, 0);
}

#[tokio::test]
async fn a_request_that_may_have_been_acted_on_is_not_sent_twice() {
    let app = Backend::start(|mut connection, _| async move {
        connection.request().await;
        connection.send(OK).await;
        connection.request().await;
    })
    .await;
    for request in [
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
        "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi",
        "PATCH / HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        let rig = Rig::serving(&app, |_| ());
        let mut client = rig.connect().await;
        client.send(GET).await;
        client.reply().await;
        let before = app.connections();
        client.send(request).await;
        let reply = client.reply().await;
        assert_eq!(
            (reply.status(), reply.header("portok-error")),
            (502, Some("upstream_reset")),
            "{request}"
        );
        assert_eq!(app.connections(), before, "{request}");
    }
}

#[tokio::test]
async fn a_failed_first_use_is_not_retried() {
    let app = Backend::start(|mut connection, _| async move {
        connection.request().await;
    })
    .await;
    let rig = Rig::serving(&app, |_| ());
    assert_eq!(rig.ask(GET).await.header("portok-error"), Some("upstream_reset"));
    assert_eq!(app.seen().concat().matches("GET").count(), 1);
}

#[tokio::test]
async fn a_get_that_its_app_took_along_is_sent_to_the_app_that_was_started_again() {
    for (request, answer) in
        [(GET, None), ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", Some("upstream_reset"))]
    {
        let ends = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = ends.local_addr().unwrap().port();
        let mut rig = Rig::start(|config| of_app(config).upstream.connect_timeout = LONG);
        rig.routes.set(Now::One(target(&rig.counters, "r1", port)));
        let mut client = rig.connect().await;
        client.send(request).await;
        let (stream, _) = ends.accept().await.unwrap();
        let mut taken = Client { stream, buf: Vec::new() };
        taken.until(b"\r\n\r\n").await;
        drop(ends);
        drop(taken);
        let again = Backend::fixed(OK).await;
        rig.route(&again);
        let reply = client.reply().await;
        assert_eq!(reply.header("portok-error"), answer, "{request}");
        assert_eq!(again.connections(), usize::from(answer.is_none()), "{request}");
    }
}

#[tokio::test]
async fn a_post_on_a_connection_found_closed_is_sent_on_a_fresh_one() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let app = Backend::start(move |mut connection, _| {
        let tell = tell.clone();
        async move {
            connection.request().await;
            connection.send(OK).await;
            connection.client.stream.shutdown().await.unwrap();
            // The proxy has noticed when it closes its side too.
            assert!(connection.is_closed().await);
            tell.send(()).await.unwrap();
        }
    })
    .await;
    let rig = Rig::serving(&app, |_| ());
    let mut client = rig.connect().await;
    for _ in 0..3 {
        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi").await;
        assert_eq!(client.reply().await.text(), "ok");
        told.recv().await.unwrap();
    }
}

#[tokio::test]
async fn a_refused_request_finds_the_app_that_was_started_again() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = gone.local_addr().unwrap().port();
    drop(gone);
    let mut rig = Rig::start(|config| of_app(config).upstream.connect_timeout = LONG);
    rig.routes.set(Now::One(target(&rig.counters, "r1", port)));
    let mut client = rig.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi").await;
    let counters = rig.counters.clone();
    eventually("the request is under way", || counters.snapshot().inflight == 1).await;
    let app = Backend::echo().await;
    rig.route(&app);
    let reply = client.reply().await;
    assert!(reply.status() == 200 && reply.text().ends_with("hi"), "{reply:?}");
    assert_eq!(rig.counters.snapshot().total_proxy_errors, 0);
}

#[tokio::test]
async fn a_refused_connection_is_a_502_in_the_end() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = gone.local_addr().unwrap().port();
    drop(gone);
    let mut rig = Rig::start(|config| of_app(config).upstream.connect_timeout = Duration::from_millis(100));
    let target = target(&rig.counters, "r1", port);
    rig.routes.set(Now::One(target.clone()));
    let reply = rig.ask(GET).await;
    assert_eq!((reply.status(), reply.header("portok-error")), (502, Some("upstream_refused")));
    assert_eq!((target.inflight(), rig.counters.snapshot().total_proxy_errors), (0, 1));
    rig.routes.set(Now::Empty);
    assert_eq!(rig.ask(GET).await.header("portok-error"), Some("no_live_target"));
}

#[tokio::test]
async fn without_keepalive_every_request_has_its_connection() {
    let app = Backend::fixed(OK).await;
    let rig = Rig::serving(&app, |config| of_app(config).upstream.keepalive = false);
    let mut client = rig.connect().await;
    for _ in 0..3 {
        client.send(GET).await;
        client.reply().await;
    }
    assert_eq!(app.connections(), 3);
    assert_eq!(app.seen().concat().matches("connection: close\r\n").count(), 3);
}

#[tokio::test]
async fn idle_connections_to_the_app_are_closed() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let app = Backend::start(move |mut connection, _| {
        let tell = tell.clone();
        async move {
            connection.head().await;
            connection.send(OK).await;
            assert!(connection.is_closed().await);
            tell.send(()).await.unwrap();
        }
    })
    .await;
    let mut rig = Rig::start(|config| of_app(config).upstream.idle_timeout = Duration::from_millis(200));
    let target = rig.route(&app);
    rig.ask(GET).await;
    tokio::time::timeout(LONG, told.recv()).await.unwrap();
    // And at once when the target closes, however long they might have stayed.
    let mut settings = config();
    of_app(&mut settings).upstream.idle_timeout = LONG;
    rig.plane.configure(Arc::new(settings));
    rig.ask(GET).await;
    target.close();
    tokio::time::timeout(LONG / 2, told.recv()).await.unwrap();
}

#[tokio::test]
async fn requests_wait_for_a_connection_and_all_get_one() {
    let most = Arc::new(Mutex::new((0, 0)));
    let count = most.clone();
    let app = Backend::start(move |mut connection, _| {
        let count = count.clone();
        async move {
            while connection.head().await.is_some() {
                {
                    let mut count = count.lock().unwrap();
                    count.0 += 1;
                    count.1 = count.1.max(count.0);
                }
                tokio::task::yield_now().await;
                count.lock().unwrap().0 -= 1;
                connection.send(OK).await;
            }
        }
    })
    .await;
    let rig = Rig::serving(&app, |config| {
        config.proxy.threads = 3;
        of_app(config).upstream.max_connections = 2;
        of_app(config).upstream.connect_timeout = LONG;
    });
    let clients: Vec<_> = (0..24)
        .map(|_| {
            let addr = rig.addr;
            tokio::spawn(async move {
                let mut client = Client { stream: TcpStream::connect(addr).await.unwrap(), buf: Vec::new() };
                for _ in 0..20 {
                    client.send(GET).await;
                    assert_eq!(client.reply().await.text(), "ok");
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    assert!(most.lock().unwrap().1 <= 2, "{most:?}");
    assert_eq!(rig.counters.snapshot().total_proxy_errors, 0);
}

#[tokio::test]
async fn who_waits_too_long_for_a_connection_gets_a_503() {
    let app = Backend::start(|mut connection, _| async move {
        connection.head().await;
        while !connection.is_closed().await {}
    })
    .await;
    let rig = Rig::serving(&app, |config| {
        of_app(config).upstream.max_connections = 1;
        of_app(config).upstream.connect_timeout = Duration::from_millis(100);
    });
    let mut first = rig.connect().await;
    first.send(GET).await;
    eventually("the first has the connection", || app.seen().concat().ends_with("\r\n\r\n")).await;
    let reply = rig.ask(GET).await;
    assert_eq!((reply.status(), reply.header("portok-error")), (503, Some("upstream_full")));
}

#[tokio::test]
async fn an_app_that_does_not_answer_in_time_is_a_504() {
    let app = Backend::start(|mut connection, _| async move {
        connection.head().await;
        while !connection.is_closed().await {}
    })
    .await;
    let mut rig =
        Rig::start(|config| of_app(config).upstream.response_timeout = Some(Duration::from_millis(100)));
    let target = rig.route(&app);
    let mut client = rig.connect().await;
    client.send(GET).await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.header("portok-error")), (504, Some("upstream_timeout")));
    eventually("the claim is given back", || target.inflight() == 0).await;
    // The client's connection goes on.
    rig.routes.set(Now::Empty);
    client.send(GET).await;
    assert_eq!(client.reply().await.status(), 503);
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused() {
    let app = Backend::echo().await;
    let rig = Rig::serving(&app, |config| config.proxy.max_body = Some(10));
    assert_eq!(
        rig.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n0123456789").await.status(),
        200
    );
    let before = app.connections();
    let mut client = rig.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 11\r\nexpect: 100-continue\r\n\r\n").await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.header("portok-error")), (413, Some("body_too_large")));
    assert!(client.is_closed().await);
    assert_eq!(app.connections(), before);

    // In chunks it shows only on the way.
    let mut client = rig.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n8\r\n01234567\r\n").await;
    client.send("3\r\nabc\r\n").await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.header("connection")), (413, Some("close")));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let app = Backend::start(|mut connection, _| async move {
        connection.head().await;
        connection.send("HTTP/1.1 413 Too Large\r\ncontent-length: 4\r\n\r\nstop").await;
        // It reads no more and holds the connection.
        tokio::time::sleep(LONG).await;
    })
    .await;
    let rig = Rig::serving(&app, |_| ());
    let mut client = rig.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000000\r\n\r\n").await;
    // More than the sockets on the way can hold, sent without a look at the answer.
    let block = vec![b'x'; 1 << 20];
    for _ in 0..3 {
        client.stream.write_all(&block).await.unwrap();
    }
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.text(), reply.header("portok-error")), (413, "stop", None));
    assert!(client.is_closed().await);
    eventually("it has ended", || rig.counters.snapshot().inflight == 0).await;
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_nothing_behind() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let app = Backend::start(move |mut connection, _| {
        let tell = tell.clone();
        async move {
            connection.head().await;
            tell.send(false).await.unwrap();
            tell.send(connection.is_closed().await).await.unwrap();
        }
    })
    .await;
    let mut rig = Rig::start(|_| ());
    let target = rig.route(&app);
    let mut client = rig.connect().await;
    client.send(GET).await;
    told.recv().await.unwrap();
    assert_eq!(target.inflight(), 1);
    drop(client);
    assert!(told.recv().await.unwrap());
    eventually("the claim is given back", || target.inflight() == 0).await;
    assert_eq!(rig.counters.snapshot().total_proxy_errors, 0);
}

#[tokio::test]
async fn slow_and_idle_clients_are_closed() {
    let app = Backend::fixed(OK).await;
    let short = Duration::from_millis(200);
    let rig = Rig::serving(&app, |config| config.proxy.header_timeout = short);
    let mut silent = rig.connect().await;
    let mut slow = rig.connect().await;
    slow.send("GET / HT").await;
    assert!(silent.is_closed().await && slow.is_closed().await);
    // Between two requests the head's time begins with its first byte.
    let mut late = rig.connect().await;
    late.send(GET).await;
    late.reply().await;
    late.send("GET / HT").await;
    assert!(late.is_closed().await);

    let rig = Rig::serving(&app, |config| config.proxy.idle_timeout = short);
    let mut idle = rig.connect().await;
    idle.send(GET).await;
    assert_eq!(idle.reply().await.text(), "ok");
    assert!(idle.is_closed().await);
    eventually("no client is counted", || rig.counters.snapshot().client_connections == 0).await;
}

#[tokio::test]
async fn a_slow_answer_is_no_idle_connection() {
    let app = Backend::start(|mut connection, _| async move {
        connection.head().await;
        tokio::time::sleep(Duration::from_millis(600)).await;
        connection.send(OK).await;
    })
    .await;
    let rig = Rig::serving(&app, |config| {
        config.proxy.idle_timeout = Duration::from_millis(100);
        config.proxy.header_timeout = Duration::from_millis(100);
    });
    assert_eq!(rig.ask(GET).await.text(), "ok");
}

#[tokio::test]
async fn a_changed_configuration_holds_for_the_next_request() {
    let app = Backend::echo().await;
    let mut rig = Rig::serving(&app, |_| ());
    let mut client = rig.connect().await;
    client.send(GET).await;
    assert!(client.reply().await.text().contains("x-forwarded-for"));
    let mut off = config();
    off.proxy.forwarded = Forwarded::Off;
    rig.plane.configure(Arc::new(off));
    for _ in 0..1_000 {
        client.send(GET).await;
        if !client.reply().await.text().contains("x-forwarded-for") {
            return;
        }
    }
    panic!("the change never arrived");
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_its_answer_whole() {
    let app = Backend::start(|mut connection, _| async move {
        while let Some(head) = connection.head().await {
            let length: usize = head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
            connection.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n")).await;
            connection.send(vec![b'x'; length]).await;
        }
    })
    .await;
    let rig = Rig::serving(&app, |config| {
        config.proxy.idle_timeout = Duration::from_millis(100);
        config.proxy.header_timeout = Duration::from_millis(100);
    });
    let mut clients = Vec::new();
    for length in [100_000, 1_000_000, 2_700_000, 2_900_000, 10_000_000] {
        let mut client = rig.connect().await;
        client.send(format!("GET /{length} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        clients.push((client, length));
    }
    // Long enough for every timeout of an idle connection, were it one.
    tokio::time::sleep(Duration::from_millis(700)).await;
    for (client, length) in &mut clients {
        assert_eq!(client.reply().await.body.len(), *length);
    }
}

#[tokio::test]
async fn many_requests_at_once_over_threads_all_come_back() {
    let app = Backend::echo().await;
    let mut rig = Rig::start(|config| config.proxy.threads = 2);
    let target = rig.route(&app);
    let clients: Vec<_> = (0..50)
        .map(|client| {
            let addr = rig.addr;
            tokio::spawn(async move {
                let mut stream = Client { stream: TcpStream::connect(addr).await.unwrap(), buf: Vec::new() };
                for round in 0..20 {
                    let body = format!("{client}-{round}").repeat(1 + round * 40);
                    let head =
                        format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
                    stream.send(head + &body).await;
                    assert!(stream.reply().await.body.ends_with(body.as_bytes()));
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let snapshot = rig.counters.snapshot();
    assert_eq!((snapshot.total_requests, snapshot.by_class[1], target.inflight()), (1_000, 1_000, 0));
    assert!(snapshot.inflight_max > 1);
}
