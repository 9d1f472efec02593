//! Several targets of one service: balance, going on to the next, ejection and trial, pins.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, AtomicUsize};

use super::*;

/// A set of apps that are live together.
pub(super) struct Set {
    pub(super) rig: Rig,
    pub(super) targets: Vec<Arc<Target>>,
    pub(super) tenure: Tenure,
    told: Arc<Told>,
}

/// The ejections that were told.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<Vec<SocketAddr>>);

impl Ejections for Told {
    fn ejected(&self, target: &Arc<Target>) {
        self.0.lock().unwrap().push(target.addr());
    }
}

impl Set {
    pub(super) fn start(addrs: &[SocketAddr], balance: Balance, change: impl FnOnce(&mut AppConfig)) -> Self {
        let mut set = Self::with(Rig::start(|config| change(of_app(config))));
        set.publish(addrs, balance);
        set
    }

    /// Without members yet.
    pub(super) fn with(rig: Rig) -> Self {
        Self { rig, targets: Vec::new(), tenure: Tenure::default(), told: Arc::default() }
    }

    /// Makes other members live, of the same tenure; members that stay keep their targets.
    pub(super) fn publish(&mut self, addrs: &[SocketAddr], balance: Balance) {
        let release = self.rig.counters.service().release("r1");
        let target = |addr: &SocketAddr| {
            let known = self.targets.iter().find(|target| target.addr() == *addr);
            known.cloned().unwrap_or_else(|| Target::new(*addr, release.clone()))
        };
        self.targets = addrs.iter().map(target).collect();
        let places = Place::of_addresses("shop", addrs.iter().copied());
        let spread = Spread::new(self.targets.clone(), balance, self.tenure.clone()).placed(places);
        self.rig.routes.set(Now::Spread(Arc::new(spread.told(self.told.clone()))));
    }

    /// Who answered `count` requests, one after the other.
    async fn answers(&self, count: usize) -> Vec<String> {
        let mut answers = Vec::new();
        for _ in 0..count {
            answers.push(self.rig.ask(GET).await.text().to_owned());
        }
        answers
    }

    fn counters(&self) -> &ServiceCounters {
        self.rig.counters.service()
    }

    fn told(&self) -> usize {
        self.told.0.lock().unwrap().len()
    }
}

/// How often each was named.
fn counted(answers: Vec<String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    answers.into_iter().for_each(|answer| *counts.entry(answer).or_default() += 1);
    counts
}

/// An app that answers every request with its name.
pub(super) async fn named(name: &'static str) -> Backend {
    Backend::start(move |mut connection, _| async move {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{name}", name.len());
        while connection.request().await.is_some() {
            connection.send(&answer).await;
        }
    })
    .await
}

/// An app whose every answer has the status that is set, and maybe more fields.
async fn with_status(status: Arc<AtomicU16>, fields: &'static str) -> Backend {
    Backend::start(move |mut connection, _| {
        let status = status.clone();
        async move {
            while connection.request().await.is_some() {
                let status = status.load(Ordering::SeqCst);
                connection.send(format!("HTTP/1.1 {status} X\r\n{fields}content-length: 1\r\n\r\nx")).await;
            }
        }
    })
    .await
}

/// An address at which nobody listens.
pub(super) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

async fn three() -> ([Backend; 3], [SocketAddr; 3]) {
    let apps = [named("a").await, named("b").await, named("c").await];
    let addrs = [apps[0].addr, apps[1].addr, apps[2].addr];
    (apps, addrs)
}

#[tokio::test]
async fn each_balance_spreads_requests_over_all_members() {
    let (_apps, addrs) = three().await;
    for balance in [Balance::Least, Balance::RoundRobin] {
        let set = Set::start(&addrs, balance, |_| ());
        let counts = counted(set.answers(30).await);
        assert_eq!(counts.values().copied().collect::<Vec<_>>(), [10, 10, 10], "{balance:?}: {counts:?}");
    }
    let set = Set::start(&addrs, Balance::Random, |_| ());
    let counts = counted(set.answers(300).await);
    assert!(counts.len() == 3 && counts.values().all(|count| *count > 50), "{counts:?}");
}

#[tokio::test]
async fn the_member_with_the_fewest_in_flight_is_next() {
    let slow = Backend::start(|mut connection, _| async move {
        connection.head().await;
        while !connection.is_closed().await {}
    })
    .await;
    let quick = named("quick").await;
    let set = Set::start(&[slow.addr, quick.addr], Balance::Least, |_| ());
    let mut first = set.rig.connect().await;
    first.send(GET).await;
    eventually("the first is at the slow one", || set.targets[0].inflight() == 1).await;
    assert_eq!(counted(set.answers(8).await)["quick"], 8);
    // In turn, half of them would never be answered.
    drop(first);
}

#[tokio::test]
async fn a_refused_member_costs_no_request_whatever_its_method() {
    for request in [GET, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi"] {
        let app = named("a").await;
        let set = Set::start(&[nobody().await, nobody().await, app.addr], Balance::RoundRobin, |_| ());
        for _ in 0..9 {
            assert_eq!(set.rig.ask(request).await.text(), "a");
        }
        assert_eq!(set.told(), 2, "each is put out once");
        assert_eq!(app.seen().concat().matches("HTTP/1.1").count(), 9);
    }
}

#[tokio::test]
async fn when_all_are_refused_the_client_hears_of_it() {
    let addrs = [nobody().await, nobody().await];
    for retries in [0, 1, 3] {
        let set = Set::start(&addrs, Balance::Least, |app| app.upstream.retries = retries);
        for _ in 0..3 {
            let reply = set.rig.ask(GET).await;
            assert_eq!((reply.status(), reply.header("portok-error")), (502, Some("upstream_refused")));
        }
        assert!(set.told() <= 1, "the last one is never out");
    }
}

#[tokio::test]
async fn where_members_are_watched_a_request_that_all_refuse_waits_for_what_is_published_next() {
    let addrs = [nobody().await, nobody().await, nobody().await];
    let mut set = Set::with(Rig::start(|config| config.proxy.threads = 1));
    let watched = |set: &mut Set| {
        set.publish(&addrs, Balance::Least);
        let spread = Spread::new(set.targets.clone(), Balance::Least, set.tenure.clone());
        set.rig.routes.set(Now::Spread(Arc::new(spread.watched())));
    };
    watched(&mut set);
    let mut client = set.rig.connect().await;
    client.send(GET).await;
    // All of them have failed, but for the last one, which is never out.
    let are_out = |set: &Set| set.targets.iter().filter(|target| target.is_out(set.counters())).count() == 2;
    eventually("it has been refused", || are_out(&set)).await;
    let next = named("next").await;
    set.rig.routes.set(Now::Held(Held::Unpinned));
    set.publish(&[next.addr], Balance::Least);
    assert_eq!(client.reply().await.text(), "next");
    // Where nothing else is published it hears of it in the end.
    let soon = |config: &mut Config| of_app(config).upstream.connect_timeout = Duration::from_millis(50);
    let mut set = Set::with(Rig::start(soon));
    watched(&mut set);
    let reply = set.rig.ask(GET).await;
    assert_eq!((reply.status(), reply.header("portok-error")), (502, Some("upstream_refused")));
}

#[tokio::test]
async fn the_number_of_tries_is_bounded() {
    let app = named("a").await;
    let mut addrs = Vec::new();
    for _ in 0..4 {
        addrs.push(nobody().await);
    }
    addrs.push(app.addr);
    let set = Set::start(&addrs, Balance::RoundRobin, |app| app.upstream.retries = 2);
    assert_eq!(set.rig.ask(GET).await.status(), 502, "three tries");
    assert_eq!(set.rig.ask(GET).await.text(), "a", "the other two members");
}

#[tokio::test]
async fn a_member_that_is_out_is_tried_by_one_request_and_comes_back() {
    let (status, reached) = (Arc::new(AtomicU16::new(500)), Arc::new(AtomicUsize::new(0)));
    let gate = watch::channel(false);
    let bad = {
        let (status, reached, open) = (status.clone(), reached.clone(), gate.1.clone());
        Backend::start(move |mut connection, _| {
            let (status, reached, mut open) = (status.clone(), reached.clone(), open.clone());
            async move {
                while connection.request().await.is_some() {
                    if reached.fetch_add(1, Ordering::SeqCst) > 0 {
                        let _closed = open.wait_for(|open| *open).await;
                    }
                    let status = status.load(Ordering::SeqCst);
                    connection.send(format!("HTTP/1.1 {status} X\r\ncontent-length: 3\r\n\r\nbad")).await;
                }
            }
        })
        .await
    };
    let good = named("good").await;
    let set = Set::start(&[bad.addr, good.addr], Balance::RoundRobin, |app| {
        app.upstream.eject_for = Duration::from_millis(300);
        app.upstream.eject_on = vec![500, 503];
    });
    let counts = counted(set.answers(6).await);
    assert_eq!((counts["bad"], counts["good"], set.told()), (1, 5, 1), "out at its first bad answer");
    // One request tries it when its time is over; while that waits, no other goes there.
    let waiting = tokio::spawn({
        let addr = set.rig.addr;
        async move {
            loop {
                let stream = TcpStream::connect(addr).await.unwrap();
                let mut client = Client { stream, buf: Vec::new() };
                client.send(GET).await;
                let reply = client.reply().await;
                if reply.text() == "bad" {
                    return reply.status();
                }
            }
        }
    });
    eventually("one tries it", || reached.load(Ordering::SeqCst) == 2).await;
    let waited = std::time::Instant::now();
    while waited.elapsed() < Duration::from_millis(700) {
        assert_eq!(set.rig.ask(GET).await.text(), "good");
    }
    assert_eq!(reached.load(Ordering::SeqCst), 2);
    gate.0.send_replace(true);
    assert_eq!(waiting.await.unwrap(), 500, "its answer is the client's");
    eventually("it was tried in vain", || set.told() == 2).await;
    assert_eq!(counted(set.answers(4).await)["good"], 4, "out once more");
    status.store(200, Ordering::SeqCst);
    while set.rig.ask(GET).await.text() != "bad" {}
    let counts = counted(set.answers(6).await);
    assert_eq!((counts["bad"], counts["good"]), (3, 3), "it is back");
}

#[tokio::test]
async fn the_last_member_is_never_out_and_a_503_that_says_when_to_come_again_ejects_nobody() {
    let status = Arc::new(AtomicU16::new(503));
    let apps = [with_status(status.clone(), "").await, with_status(status.clone(), "").await];
    let on_503 = |app: &mut AppConfig| app.upstream.eject_on = vec![503];
    let addrs = [apps[0].addr, apps[1].addr];
    let set = Set::start(&addrs, Balance::RoundRobin, on_503);
    for _ in 0..6 {
        assert_eq!(set.rig.ask(GET).await.status(), 503);
    }
    assert_eq!(set.told(), 1);
    let of = |app: &Backend| app.seen().concat().matches("GET").count();
    assert_eq!((of(&apps[0]), of(&apps[1])), (1, 5));
    let later = [with_status(status.clone(), "Retry-After: 1\r\n").await, with_status(status, "").await];
    let set = Set::start(&[later[0].addr, later[1].addr], Balance::RoundRobin, on_503);
    for request in [GET, "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"] {
        for _ in 0..4 {
            assert_eq!(set.rig.ask(request).await.status(), 503);
        }
    }
    assert_eq!(*set.told.0.lock().unwrap(), [later[1].addr]);
}

#[tokio::test]
async fn a_post_is_never_sent_to_two_members() {
    let dies = || async {
        Backend::start(|mut connection, number| async move {
            if number == 0 {
                connection.request().await;
                connection.send(OK).await;
            }
            connection.request().await;
        })
        .await
    };
    let apps = [dies().await, dies().await];
    let set = Set::start(&[apps[0].addr, apps[1].addr], Balance::RoundRobin, |_| ());
    // Each has a kept connection that breaks at the next request.
    for _ in 0..2 {
        assert_eq!(set.rig.ask(GET).await.text(), "ok");
    }
    let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi";
    let reply = set.rig.ask(post).await;
    assert_eq!((reply.status(), reply.header("portok-error")), (502, Some("upstream_reset")));
    let sent = apps.iter().map(|app| app.seen().concat().matches("POST").count()).sum::<usize>();
    assert_eq!(sent, 1);
}

/// An app that reads a request and is gone, without an answer.
async fn dies_of_it(reached: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        drop(listener);
        Client { stream, buf: Vec::new() }.until(b"\r\n\r\n").await;
        reached.fetch_add(1, Ordering::SeqCst);
    });
    addr
}

#[tokio::test]
async fn what_was_sent_is_sent_again_once_in_all_and_only_where_that_does_no_harm() {
    for (request, sent) in [(GET, 2), ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", 1)] {
        let reached = Arc::new(AtomicUsize::new(0));
        let mut addrs = vec![nobody().await];
        for _ in 0..4 {
            addrs.push(dies_of_it(reached.clone()).await);
        }
        let set = Set::start(&addrs, Balance::RoundRobin, |app| app.upstream.retries = 9);
        let reply = set.rig.ask(request).await;
        assert_eq!((reply.status(), reply.header("portok-error")), (502, Some("upstream_reset")));
        assert_eq!(reached.load(Ordering::SeqCst), sent, "{request}");
    }
}

/// An app that ends with the request that is next after `answered` ones, as the kernel ends a
/// killed process: its connections break before nobody listens any more.
async fn is_killed_after(answered: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut asked = Client { stream, buf: Vec::new() };
        for _ in 0..answered {
            asked.until(b"\r\n\r\n").await;
            asked.stream.write_all(OK.as_bytes()).await.unwrap();
        }
        asked.until(b"\r\n\r\n").await;
        drop(asked);
        let _what_came_in_between = listener.accept().await.unwrap();
    });
    addr
}

#[tokio::test]
async fn a_request_that_a_killed_process_has_goes_to_another_though_it_still_seems_to_listen() {
    for answered in [0, 1] {
        let dies = is_killed_after(answered).await;
        let other = named("other").await;
        let set = Set::start(&[dies, other.addr], Balance::RoundRobin, |_| ());
        let mut answers = set.answers(2 * answered + 2).await;
        answers.retain(|answer| answer != "ok");
        assert_eq!(answers, vec!["other"; answered + 2], "after {answered}");
    }
}

#[tokio::test]
async fn a_kept_connection_that_a_living_app_closes_costs_one_connection_more_and_no_request() {
    let app = Backend::start(|mut connection, _| async move {
        connection.request().await;
        connection.send(OK).await;
        connection.request().await;
    })
    .await;
    let set = Set::start(&[app.addr], Balance::RoundRobin, |_| ());
    assert_eq!(set.answers(3).await, ["ok"; 3]);
    assert_eq!(app.seen().len(), 3);
}

#[tokio::test]
async fn a_full_member_is_passed_over_and_when_all_are_a_request_waits() {
    let hold = || async {
        Backend::start(|mut connection, _| async move {
            while let Some(request) = connection.request().await {
                if !request.starts_with(b"GET /hold") {
                    connection.send(OK).await;
                }
            }
        })
        .await
    };
    let apps = [hold().await, hold().await];
    let set = Set::start(&[apps[0].addr, apps[1].addr], Balance::RoundRobin, |app| {
        app.upstream.max_connections = 1;
        app.upstream.connect_timeout = Duration::from_millis(300);
    });
    let mut first = set.rig.connect().await;
    first.send("GET /hold HTTP/1.1\r\nhost: a\r\n\r\n").await;
    eventually("it is held", || set.targets[0].inflight() == 1).await;
    for _ in 0..4 {
        assert_eq!(set.rig.ask(GET).await.text(), "ok");
    }
    let mut second = set.rig.connect().await;
    second.send("GET /hold HTTP/1.1\r\nhost: a\r\n\r\n").await;
    eventually("both are full", || set.targets[1].inflight() == 1).await;
    let reply = set.rig.ask(GET).await;
    assert_eq!((reply.status(), reply.header("portok-error")), (503, Some("upstream_full")));
    assert_eq!(set.told(), 0, "a full member has not failed");
}

#[tokio::test]
async fn a_pin_is_to_a_set_and_not_to_a_member() {
    let (apps, addrs) = three().await;
    let pinned = |app: &mut AppConfig| app.drain.affinity = Affinity::Connection;
    let mut set = Set::start(&addrs[..2], Balance::RoundRobin, pinned);
    let mut client = set.rig.connect().await;
    let mut ask = async || {
        client.send(GET).await;
        client.reply().await.text().to_owned()
    };
    let answers = [ask().await, ask().await, ask().await, ask().await];
    assert_eq!(counted(answers.to_vec()).len(), 2, "every member of the set serves it: {answers:?}");
    assert_eq!(set.targets.iter().map(|target| target.pinned()).collect::<Vec<_>>(), [1, 1]);
    // The set gets other members, and the connection goes with it.
    let left = set.targets[0].clone();
    set.publish(&addrs[1..], Balance::RoundRobin);
    left.retire();
    let answers = [ask().await, ask().await, ask().await, ask().await];
    assert_eq!(counted(answers.to_vec()).into_keys().collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(left.pinned(), 0);
    // Another set is live: the connection stays among the former while that drains.
    let former = set.targets.clone();
    set.tenure = Tenure::default();
    set.targets.clear();
    set.publish(&addrs[..1], Balance::RoundRobin);
    former.iter().for_each(|target| target.retire());
    assert_eq!(counted(vec![ask().await, ask().await]).into_keys().collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(set.answers(2).await, ["a", "a"], "new connections are with the new set");
    former[0].close();
    assert_eq!([ask().await, ask().await], ["c", "c"], "a member is gone, not the set");
    former[1].close();
    assert_eq!(ask().await, "a");
    assert_eq!(former.iter().map(|target| target.pinned()).sum::<u64>(), 0);
    drop(apps);
}

#[tokio::test]
async fn a_pin_to_a_single_one_is_to_its_set_once_that_has_several() {
    let (apps, addrs) = three().await;
    let pinned = |app: &mut AppConfig| app.drain.affinity = Affinity::Connection;
    let mut set = Set::start(&addrs[..1], Balance::RoundRobin, pinned);
    let first = set.targets[0].clone();
    set.rig.routes.set(Now::One(first.clone()));
    let mut client = set.rig.connect().await;
    let mut ask = async || {
        client.send(GET).await;
        client.reply().await.text().to_owned()
    };
    assert_eq!((ask().await.as_str(), first.pinned()), ("a", 1));
    set.publish(&addrs[..2], Balance::RoundRobin);
    let answers = [ask().await, ask().await, ask().await, ask().await];
    assert_eq!(counted(answers.to_vec()).into_keys().collect::<Vec<_>>(), ["a", "b"]);
    // The one that it was pinned to is taken out.
    set.publish(&addrs[1..2], Balance::RoundRobin);
    assert_eq!([ask().await, ask().await], ["b", "b"]);
    assert_eq!(first.pinned(), 0);
    drop(apps);
}

#[tokio::test]
async fn members_that_come_and_go_under_load_cost_no_request() {
    let (_apps, addrs) = three().await;
    let mut set = Set::start(&addrs, Balance::Least, |_| ());
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (addr, over) = (set.rig.addr, over.clone());
            tokio::spawn(async move {
                let stream = TcpStream::connect(addr).await.unwrap();
                let (mut client, mut count) = (Client { stream, buf: Vec::new() }, 0_usize);
                while !over.load(Ordering::SeqCst) {
                    client.send(GET).await;
                    assert_eq!(client.reply().await.status(), 200);
                    count += 1;
                }
                count
            })
        })
        .collect();
    for turn in 0..300 {
        let gone = set.targets[turn % set.targets.len()].clone();
        let rest: Vec<_> =
            set.targets.iter().map(|target| target.addr()).filter(|addr| *addr != gone.addr()).collect();
        set.publish(&rest, Balance::Least);
        gone.retire();
        if turn % 2 == 0 {
            gone.close();
        }
        tokio::task::yield_now().await;
        set.publish(&addrs, Balance::Least);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    over.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
    eventually("nothing is in flight", || set.targets.iter().all(|target| target.inflight() == 0)).await;
}
