//! Several apps on one board: which of them a request reaches.

use std::sync::atomic::AtomicUsize;

use super::*;

/// An app that answers with the host and path that it was asked for, behind its name.
pub(super) async fn named(name: &'static str) -> Backend {
    let mut app = Backend::start(move |mut connection, _| async move {
        while let Some(request) = connection.request().await {
            let request = String::from_utf8(request).unwrap();
            let path = request.split(' ').nth(1).unwrap();
            let field = |line: &str| line.strip_prefix("host: ").map(str::to_owned);
            let host = request.lines().find_map(field).unwrap_or_default();
            let text = format!("{name} {host} {path}");
            connection.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len())).await;
        }
    })
    .await;
    app.release = name.into();
    app
}

/// One of several apps.
pub(super) struct App {
    pub(super) service: Arc<Service>,
    pub(super) routes: RouteWriter,
}

impl App {
    pub(super) fn new(rig: &Rig, change: impl FnOnce(&mut AppConfig)) -> Self {
        let mut config = AppConfig::clone(&config().app);
        change(&mut config);
        let (service, routes) = rig.board.add(Arc::new(config), &rig.counters);
        Self { service, routes }
    }

    fn target(&self, app: &Backend) -> Arc<Target> {
        Target::new(app.addr, self.service.counters().release(&app.release))
    }

    /// Makes `app` live; gives the target and the one before.
    pub(super) fn switch(&mut self, app: &Backend) -> (Arc<Target>, Option<Arc<Target>>) {
        let target = self.target(app);
        let former = self.routes.set(Now::One(target.clone()));
        (target, former)
    }

    pub(super) fn at(&self, hosts: &str, path: &str) -> Route<Destination> {
        self.at_with(hosts, path, Handling::Pass)
    }

    pub(super) fn at_with(&self, hosts: &str, path: &str, how: Handling) -> Route<Destination> {
        let at = At::Instance { hosts: hosts.parse().unwrap(), path: path.into() };
        Route { at, to: Destination { service: self.service.clone(), how } }
    }
}

pub(super) async fn ask(client: &mut Client, request: &str) -> String {
    client.send(request).await;
    let reply = client.reply().await;
    let error = reply.header("portok-error").map(|code| format!("{} {code}", reply.status()));
    error.unwrap_or_else(|| reply.text().to_owned())
}

#[tokio::test]
async fn each_request_of_a_connection_is_routed_by_itself() {
    let (api, shop) = (named("api").await, named("shop").await);
    let rig = Rig::start(|_| ());
    let (mut one, mut other) = (App::new(&rig, |_| ()), App::new(&rig, |_| ()));
    one.switch(&api);
    other.switch(&shop);
    rig.board.route(vec![one.at("api.test", "/"), other.at("*.test", "/"), one.at("*.test", "/v1")]);
    let mut client = rig.connect().await;
    for (request, answer) in [
        ("GET / HTTP/1.1\r\nhost: api.test\r\n\r\n", "api api.test /"),
        ("GET / HTTP/1.1\r\nhost: www.test\r\n\r\n", "shop www.test /"),
        ("GET /v1?q HTTP/1.1\r\nhost: www.test\r\n\r\n", "api www.test /v1?q"),
        ("GET /v1x HTTP/1.1\r\nhost: www.test\r\n\r\n", "shop www.test /v1x"),
        // The app gets the host as the client wrote it.
        ("GET / HTTP/1.1\r\nHost: API.Test.:80\r\n\r\n", "api API.Test.:80 /"),
        ("GET / HTTP/1.1\r\nhost: test\r\n\r\n", "404 no_route"),
        // Hyper's way.
        ("POST / HTTP/1.1\r\nhost: www.test\r\ncontent-length: 0\r\n\r\n", "shop www.test /"),
        ("POST / HTTP/1.1\r\nhost: api.test\r\ncontent-length: 0\r\n\r\n", "api api.test /"),
        ("POST / HTTP/1.1\r\nhost: b\r\ncontent-length: 0\r\n\r\n", "404 no_route"),
        ("GET http://api.test/x HTTP/1.1\r\nhost: www.test\r\n\r\n", "api api.test /x"),
        ("GET http://www.test HTTP/1.1\r\nhost: api.test\r\n\r\n", "shop www.test /"),
        ("OPTIONS * HTTP/1.1\r\nhost: api.test\r\n\r\n", "api api.test *"),
        ("GET / HTTP/1.1\r\nhost: api.test\r\n\r\n", "api api.test /"),
    ] {
        assert_eq!(ask(&mut client, request).await, answer, "{request}");
    }
    let without_host = "GET / HTTP/1.0\r\n\r\n";
    assert_eq!(ask(&mut rig.connect().await, without_host).await, "404 no_route");
    let routes = vec![one.at("*", "/")];
    rig.board.route(routes);
    assert!(ask(&mut rig.connect().await, without_host).await.starts_with("api "));
    assert_eq!(ask(&mut client, "GET / HTTP/1.1\r\nhost: www.test\r\n\r\n").await, "api www.test /");
    rig.board.route(Vec::new());
    assert_eq!(ask(&mut client, "GET / HTTP/1.1\r\nhost: www.test\r\n\r\n").await, "404 no_route");
}

#[tokio::test]
async fn a_pin_of_one_app_never_serves_another() {
    // The second is hyper's, and with it all that follows on its connection.
    for to_other in [
        "GET / HTTP/1.1\r\nhost: other\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: other\r\ncontent-length: 0\r\n\r\n",
    ] {
        let (red, blue, green) = (named("red").await, named("blue").await, named("green").await);
        let rig = Rig::start(|_| ());
        let pinned = |config: &mut AppConfig| config.drain.affinity = Affinity::Connection;
        let (mut one, mut other) = (App::new(&rig, pinned), App::new(&rig, pinned));
        let (first, _) = one.switch(&red);
        other.switch(&blue);
        rig.board.route(vec![one.at("one", "/"), other.at("other", "/")]);
        let mut client = rig.connect().await;
        let to_one = "GET / HTTP/1.1\r\nhost: one\r\n\r\n";
        for _ in 0..2 {
            assert_eq!(ask(&mut client, to_one).await, "red one /");
            assert_eq!(ask(&mut client, to_other).await, "blue other /");
        }
        assert_eq!(first.pinned(), 1);
        let (second, former) = one.switch(&green);
        former.unwrap().retire();
        assert_eq!(ask(&mut client, to_other).await, "blue other /");
        assert_eq!(ask(&mut client, to_one).await, "red one /", "it stays where it is pinned");
        assert_eq!(ask(&mut rig.connect().await, to_one).await, "green one /");
        first.close();
        assert_eq!(ask(&mut client, to_other).await, "blue other /");
        assert_eq!(ask(&mut client, to_one).await, "green one /");
        assert_eq!((first.pinned(), first.inflight()), (0, 0));
        other.routes.set(Now::Empty).unwrap().close();
        assert_eq!(ask(&mut client, to_other).await, "503 no_live_target");
        assert_eq!(ask(&mut client, to_one).await, "green one /");
        // Without affinity it is let go, and no request is needed for that.
        rig.board.configure_app(&one.service, config().app);
        eventually("nothing is pinned", || second.pinned() == 0).await;
    }
}

#[tokio::test]
async fn no_request_reaches_the_wrong_app_while_both_switch() {
    let apps = [named("a1").await, named("a2").await, named("b1").await, named("b2").await];
    let rig = Rig::start(|config| config.proxy.threads = 2);
    for affinity in [Affinity::Request, Affinity::Connection] {
        let pinned = |config: &mut AppConfig| config.drain.affinity = affinity;
        let mut both = [App::new(&rig, pinned), App::new(&rig, pinned)];
        both[0].switch(&apps[0]);
        both[1].switch(&apps[2]);
        rig.board.route(vec![both[0].at("a", "/"), both[1].at("b", "/")]);
        let answered = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..8)
            .map(|number| {
                let (addr, answered) = (rig.addr, answered.clone());
                tokio::spawn(async move {
                    let stream = TcpStream::connect(addr).await.unwrap();
                    let mut client = Client { stream, buf: Vec::new() };
                    for turn in 0..400 {
                        let host = if (turn + number) % 2 == 0 { "a" } else { "b" };
                        // A connection that has had one of hyper's requests stays hyper's.
                        let request = if number % 4 < 2 && turn % 3 == 0 {
                            format!("POST / HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\n\r\n")
                        } else {
                            format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")
                        };
                        let answer = ask(&mut client, &request).await;
                        assert!(answer.starts_with(host), "{host} was asked: {answer}");
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let mut turn = 0;
        while !clients.iter().all(tokio::task::JoinHandle::is_finished) {
            let (app, next) = (turn % 2, (turn / 2 + 1) % 2);
            let (_, former) = both[app].switch(&apps[2 * app + next]);
            let former = former.unwrap();
            if turn % 3 == 0 {
                former.close()
            } else {
                former.retire()
            }
            if turn % 5 == 0 {
                rig.board.route(vec![both[0].at("a", "/"), both[1].at("b", "/")]);
            }
            turn += 1;
            let before = answered.load(Ordering::Relaxed);
            let is_over = || clients.iter().all(tokio::task::JoinHandle::is_finished);
            // Not at every request: each switch opens new connections.
            while answered.load(Ordering::Relaxed) < before + 16 && !is_over() {
                tokio::task::yield_now().await;
            }
        }
        for client in clients {
            client.await.unwrap();
        }
        assert!(turn > 10, "{turn} switches");
    }
}

#[tokio::test]
async fn what_was_live_leaves_a_thread_although_nobody_asks_for_the_app_again() {
    let (red, blue) = (named("red").await, named("blue").await);
    let rig = Rig::start(|_| ());
    let mut app = App::new(&rig, |_| ());
    let (first, _) = app.switch(&red);
    rig.board.route(vec![app.at("*", "/")]);
    assert_eq!(ask(&mut rig.connect().await, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await, "red a /");
    let (_, former) = app.switch(&blue);
    former.unwrap().close();
    eventually("only this test knows it", || Arc::strong_count(&first) == 1).await;
}

#[tokio::test]
async fn an_app_that_is_removed_leaves_the_threads() {
    let red = named("red").await;
    let rig = Rig::start(|_| ());
    let mut app = App::new(&rig, |_| ());
    let (target, _) = app.switch(&red);
    rig.board.route(vec![app.at("*", "/")]);
    let mut client = rig.connect().await;
    let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    assert_eq!(ask(&mut client, get).await, "red a /");
    rig.board.route(Vec::new());
    drop(app);
    target.close();
    eventually("only this test knows it", || Arc::strong_count(&target) == 1).await;
    assert_eq!(ask(&mut client, get).await, "404 no_route");
}

#[tokio::test]
async fn a_request_goes_on_when_its_app_loses_its_routes() {
    let red = named("red").await;
    let rig = Rig::start(|config| config.proxy.threads = 1);
    let patient = |config: &mut AppConfig| config.upstream.connect_timeout = LONG;
    let (mut app, mut other) = (App::new(&rig, patient), App::new(&rig, |_| ()));
    let blue = named("blue").await;
    other.switch(&blue);
    app.routes.set(Now::Near);
    rig.board.route(vec![app.at("a", "/"), other.at("b", "/")]);
    let mut waiting = rig.connect().await;
    let asked = tokio::spawn(async move { ask(&mut waiting, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await });
    // That the other is answered meanwhile shows that nobody waits for this one.
    let is_there = || rig.counters.snapshot().client_connections == 1;
    eventually("the request is there", is_there).await;
    let mut client = rig.connect().await;
    assert_eq!(ask(&mut client, "GET / HTTP/1.1\r\nhost: b\r\n\r\n").await, "blue b /");
    eventually("it waits", || app.service.counters().inflight() == 1).await;
    rig.board.route(vec![other.at("b", "/")]);
    app.switch(&red);
    assert_eq!(asked.await.unwrap(), "red a /");
}

#[tokio::test]
async fn a_body_that_has_no_route_is_refused_so_that_the_client_can_read_it() {
    let rig = Rig::start(|_| ());
    rig.board.route(Vec::new());
    for body in
        ["content-length: 5\r\n\r\nhello", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
    {
        let reply = rig.ask(format!("POST / HTTP/1.1\r\nhost: a\r\n{body}")).await;
        assert_eq!((reply.status(), reply.header("portok-error")), (404, Some("no_route")));
        assert_eq!(reply.header("connection"), Some("close"));
    }
}
