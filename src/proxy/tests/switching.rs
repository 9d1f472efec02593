//! Switches, drains and pins, while requests are in flight.

use super::*;

/// An app that answers with its name.
async fn named(name: &'static str) -> Backend {
    let answer: &'static str =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len()).leak();
    Backend { release: name.into(), ..Backend::fixed(answer).await }
}

async fn ask(client: &mut Client) -> String {
    client.send(GET).await;
    let reply = client.reply().await;
    format!(
        "{}{}",
        if reply.status() == 200 { "" } else { reply.header("portok-error").unwrap() },
        reply.text()
    )
}

#[tokio::test]
async fn a_switch_from_inside_a_request_moves_the_next_one() {
    let new = named("new").await;
    let rig = Arc::new(Mutex::new(None::<Rig>));
    let (shared, new_port) = (rig.clone(), new.addr.port());
    let old = Backend::start(move |mut connection, _| {
        let rig = shared.clone();
        async move {
            while connection.head().await.is_some() {
                let replaced = {
                    let mut rig = rig.lock().unwrap();
                    let rig = rig.as_mut().unwrap();
                    let target = target(&rig.counters, "new", new_port);
                    rig.routes.set(Now::One(target)).unwrap()
                };
                replaced.retire();
                // The request that switched is still in flight.
                assert_eq!(replaced.inflight(), 1);
                connection.send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nold").await;
            }
        }
    })
    .await;
    let started = Rig::serving(&old, |_| ());
    let mut client = started.connect().await;
    *rig.lock().unwrap() = Some(started);
    assert_eq!(ask(&mut client).await, "old");
    assert_eq!(ask(&mut client).await, "new");
    assert_eq!(ask(&mut client).await, "new");
}

#[tokio::test]
async fn while_the_next_target_is_near_a_request_waits_for_it_and_then_gets_503() {
    let app = named("again").await;
    let mut rig = Rig::start(|config| of_app(config).upstream.connect_timeout = Duration::from_millis(300));
    rig.routes.set(Now::Near);
    assert!(ask(&mut rig.connect().await).await.starts_with("no_live_target"));
    let mut rig = Rig::start(|_| ());
    rig.routes.set(Now::Near);
    let mut waiting = rig.connect().await;
    let asked = tokio::spawn(async move { ask(&mut waiting).await });
    eventually("the request is there", || rig.counters.snapshot().inflight == 1).await;
    rig.route(&app);
    assert_eq!(asked.await.unwrap(), "again");
}

#[tokio::test]
async fn a_retired_target_takes_nobody_and_a_closed_live_one_is_a_503() {
    let (old, new) = (named("old").await, named("new").await);
    let mut rig = Rig::start(|_| ());
    let first = rig.route(&old);
    let mut client = rig.connect().await;
    assert_eq!(ask(&mut client).await, "old");
    let second = target(&rig.counters, "new", new.addr.port());
    let replaced = rig.routes.set(Now::One(second.clone())).unwrap();
    assert!(Arc::ptr_eq(&first, &replaced));
    replaced.retire();
    assert_eq!(ask(&mut client).await, "new");
    second.close();
    assert!(ask(&mut client).await.starts_with("no_live_target"));
    // Going back is another tenure of the same address.
    let third = rig.route(&old);
    assert_eq!(ask(&mut client).await, "old");
    assert_eq!(ask(&mut rig.connect().await).await, "old");
    assert_eq!((first.inflight(), second.inflight(), third.inflight()), (0, 0, 0));
}

#[tokio::test]
async fn a_pinned_connection_stays_until_its_target_closes() {
    let (old, new) = (named("old").await, named("new").await);
    let mut rig = Rig::start(|config| of_app(config).drain.affinity = Affinity::Connection);
    let first = rig.route(&old);
    let (mut pinned, mut gone) = (rig.connect().await, rig.connect().await);
    assert_eq!(ask(&mut pinned).await, "old");
    assert_eq!(ask(&mut gone).await, "old");
    assert_eq!(first.pinned(), 2);
    let second = rig.route(&new);
    first.retire();
    assert_eq!(ask(&mut pinned).await, "old");
    assert_eq!(ask(&mut rig.connect().await).await, "new");
    drop(gone);
    eventually("the pin is let go", || first.pinned() == 1).await;
    first.close();
    assert_eq!(ask(&mut pinned).await, "new");
    assert_eq!((first.pinned(), first.inflight()), (0, 0));
    assert!(second.pinned() >= 1);
    // Without affinity nothing stays pinned, and no request is needed for that.
    rig.plane.configure(Arc::new(config()));
    eventually("nothing is pinned", || second.pinned() == 0).await;
}

#[tokio::test]
async fn a_pinned_connection_whose_app_is_gone_moves_at_once() {
    let new = named("new").await;
    let mut rig = Rig::start(|config| of_app(config).drain.affinity = Affinity::Connection);
    let old = named("old").await;
    let first = rig.route(&old);
    let mut client = rig.connect().await;
    assert_eq!(ask(&mut client).await, "old");
    rig.route(&new);
    first.retire();
    old._task.abort();
    // The app's kept connection still answers; make the proxy open another.
    let mut settings = config();
    of_app(&mut settings).drain.affinity = Affinity::Connection;
    of_app(&mut settings).upstream.keepalive = false;
    rig.plane.configure(Arc::new(settings));
    for _ in 0..1_000 {
        if ask(&mut client).await == "new" {
            assert_eq!(first.pinned(), 0);
            return;
        }
    }
    panic!("it never moved");
}

#[tokio::test]
async fn switches_under_load_lose_nothing_and_drain_to_zero() {
    let (red, blue) = (named("red").await, named("blue").await);
    let mut rig = Rig::serving(&red, |config| config.proxy.threads = 2);
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (addr, over) = (rig.addr, over.clone());
            tokio::spawn(async move {
                let mut client = Client { stream: TcpStream::connect(addr).await.unwrap(), buf: Vec::new() };
                let mut asked = 0;
                while !over.load(Ordering::Relaxed) {
                    let name = ask(&mut client).await;
                    assert!(name == "red" || name == "blue", "{name}");
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    let mut targets = Vec::new();
    for round in 0..60 {
        let target = target(
            &rig.counters,
            &format!("r{round}"),
            if round % 2 == 0 { &blue } else { &red }.addr.port(),
        );
        let former = rig.routes.set(Now::One(target)).unwrap();
        former.retire();
        let before = rig.counters.snapshot().total_requests;
        eventually("requests go on", || rig.counters.snapshot().total_requests > before + 10).await;
        eventually("the former target has drained", || former.inflight() == 0).await;
        former.close();
        targets.push(former);
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
    assert!(targets.iter().all(|target| target.inflight() == 0));
    let snapshot = rig.counters.snapshot();
    assert_eq!((snapshot.total_proxy_errors, snapshot.inflight), (0, 0));
    assert_eq!(snapshot.by_class[1], snapshot.total_requests);
    assert!(snapshot.by_release.len() <= 9);
    let counted: u64 = snapshot.by_release.iter().map(|(_, classes)| classes[1]).sum();
    assert_eq!(counted, snapshot.total_requests);
}
