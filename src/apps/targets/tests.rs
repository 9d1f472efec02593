//! A set of targets between a real data plane and hand-made apps.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::*;
use crate::config::{Affinity, AppConfig, of_an_empty_file};
use crate::health::Prober;
use crate::proxy::{Board, Counters, Ejections, ListenerId, Plane, Reserved, ReservedBody, Target, bind};
use crate::release::End;
use crate::release::records::{Former, Records};
use crate::wire::{Code, HookEvent, Phase, Reason, TargetState};

/// The one deadline of everything that is waited for.
const LONG: Duration = Duration::from_secs(30);

/// Nothing is asked under the reserved prefix.
struct Nobody;

impl Reserved for Nobody {
    fn answer(
        &self,
        _: ListenerId,
        _: SocketAddr,
        _: Request<hyper::body::Incoming>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Response<ReservedBody>> + Send>> {
        unreachable!("nobody asks")
    }

    fn knows(&self, _: SocketAddr, _: &[u8], _: bool) -> bool {
        false
    }
}

/// A data plane whose one service a set of targets serves.
struct Rig {
    _plane: Plane,
    addr: SocketAddr,
    handle: Handle,
    config: watch::Sender<Arc<AppConfig>>,
    task: tokio::task::JoinHandle<End>,
    home: Home,
    told: Arc<std::sync::Mutex<Vec<HookEvent>>>,
}

/// Where the records are.
struct Home(tempfile::TempDir, Records);

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (records, _) = Records::take(&folder.path().join("state.json"), None).unwrap();
        Self(folder, records)
    }

    /// The files beside the record of the app.
    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path().join("state.d")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Rig {
    fn start(change: impl FnOnce(&mut AppConfig)) -> Self {
        Self::start_in(Home::new(), change)
    }

    fn start_in(home: Home, change: impl FnOnce(&mut AppConfig)) -> Self {
        let mut config = of_an_empty_file();
        config.proxy.threads = 2;
        let app = Arc::make_mut(&mut config.app);
        app.most_fields = 256;
        app.health.interval = Some(Duration::from_millis(20));
        app.health.failures = Some(2);
        change(app);
        let (app, counters) = (config.app.clone(), Counters::new(2));
        let (board, route) = Board::new(Arc::new(config), counters.service().clone());
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = listener.local_addr().unwrap();
        let listeners = vec![(ListenerId::Instance(addr), listener)];
        let plane =
            Plane::prepare(listeners, board, counters.clone(), Arc::new(Nobody)).unwrap().begin().unwrap();
        let config = watch::Sender::new(app);
        let told = Arc::<std::sync::Mutex<Vec<HookEvent>>>::default();
        let tell = told.clone();
        let (handle, set) = TargetSet::start(Parts {
            config: config.subscribe(),
            route,
            counters: counters.service().clone(),
            records: home.1.clone(),
            recorded: None,
            prober: Prober::with_places(4),
            former: Former::Unknown,
            notify: Box::new(move |event| tell.lock().unwrap().push(event)),
        });
        Self { _plane: plane, addr, handle, config, task: tokio::spawn(set.run()), home, told }
    }

    /// Edits the list.
    fn edit(&self, change: impl FnOnce(&mut AppConfig)) {
        self.config.send_modify(|config| change(Arc::make_mut(config)));
    }

    async fn ask(&self) -> String {
        let mut client = TcpStream::connect(self.addr).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(LONG, client.read_to_string(&mut answer)).await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        if head.starts_with("HTTP/1.1 200") { body.to_owned() } else { head[9..12].to_owned() }
    }

    /// Waits until the targets are so.
    async fn until(&self, expected: &[(SocketAddr, TargetState)]) {
        let expected: Vec<_> = expected.iter().map(|(addr, state)| (addr.to_string(), *state)).collect();
        let end = Instant::now() + LONG;
        loop {
            let targets = self.handle.status().targets;
            let found: Vec<_> = targets.iter().map(|target| (target.address.clone(), target.state)).collect();
            if found == expected {
                return;
            }
            assert!(Instant::now() < end, "{targets:?}, not {expected:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Asks without pause, over eight connections at a time, until the guard is ended; every answer
    /// is one of an app.
    fn load(&self) -> Load {
        let over = Arc::new(AtomicBool::new(false));
        let ask = || {
            let (addr, over) = (self.addr, over.clone());
            tokio::spawn(async move {
                let mut count = 0_usize;
                let (mut client, mut buf) = (TcpStream::connect(addr).await.unwrap(), [0; 1024]);
                while !over.load(Ordering::SeqCst) {
                    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
                    let mut answer = String::new();
                    while !answer.ends_with("\r\n\r\nx") {
                        let read = tokio::time::timeout(LONG, client.read(&mut buf)).await.unwrap().unwrap();
                        assert!(read > 0, "closed after {answer}");
                        answer.push_str(str::from_utf8(&buf[..read]).unwrap());
                        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                    }
                    count += 1;
                }
                count
            })
        };
        Load { clients: (0..8).map(|_| ask()).collect(), over }
    }
}

/// Clients that ask without pause.
struct Load {
    clients: Vec<tokio::task::JoinHandle<usize>>,
    over: Arc<AtomicBool>,
}

impl Load {
    async fn end(self) {
        self.over.store(true, Ordering::SeqCst);
        for client in self.clients {
            assert!(client.await.unwrap() > 0);
        }
    }
}

/// An app that answers every request with its text and the status that is set.
struct App {
    addr: SocketAddr,
    status: Arc<AtomicU16>,
    task: tokio::task::JoinHandle<()>,
}

impl App {
    async fn start(text: &'static str) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), text).await
    }

    async fn start_at(addr: SocketAddr, text: &'static str) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let (addr, status) = (listener.local_addr().unwrap(), Arc::new(AtomicU16::new(200)));
        let known = status.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let status = known.clone();
                connections.spawn(async move {
                    let mut seen = Vec::new();
                    loop {
                        while !seen.ends_with(b"\r\n\r\n") {
                            if !matches!(stream.read_buf(&mut seen).await, Ok(1..)) {
                                return;
                            }
                        }
                        seen.clear();
                        let (status, length) = (status.load(Ordering::SeqCst), text.len());
                        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{text}");
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { addr, status, task }
    }

    fn set(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// Ends with all of its connections, as a killed process does.
    fn kill(&self) {
        self.task.abort();
    }
}

use TargetState::{Draining, Ejected, Ready, Starting};

#[tokio::test]
async fn members_join_fail_and_come_back() {
    let (a, b, c) = (App::start("a").await, App::start("b").await, App::start("c").await);
    c.set(500);
    let rig = Rig::start(|app| app.targets = Some(vec![a.addr, b.addr, c.addr]));
    rig.until(&[(a.addr, Ready), (b.addr, Ready), (c.addr, Starting)]).await;
    rig.handle.first_probe().await;
    c.set(200);
    rig.until(&[(a.addr, Ready), (b.addr, Ready), (c.addr, Ready)]).await;
    assert_eq!((rig.handle.phase(), rig.handle.replicas().ready), (Phase::Settled, 3));
    a.set(503);
    rig.until(&[(a.addr, Ejected), (b.addr, Ready), (c.addr, Ready)]).await;
    assert_eq!(rig.handle.phase(), Phase::Degraded);
    assert_eq!(rig.handle.status().active_port, Some(a.addr.port()), "the first one, ready or not");
    assert!(!rig.handle.health().active_port_ok);
    assert_eq!((rig.handle.replicas().ready, rig.handle.replicas().wanted), (2, 3));
    let health = rig.handle.check_health().await;
    let replicas: Vec<_> =
        health.replicas.unwrap().into_iter().map(|each| (each.port, each.status)).collect();
    assert_eq!(replicas, [(b.addr.port(), Some(200)), (c.addr.port(), Some(200))]);
    b.set(503);
    rig.until(&[(a.addr, Ready), (b.addr, Ready), (c.addr, Ready)]).await;
    assert_eq!(rig.handle.phase(), Phase::Unhealthy, "more than half fail: all serve");
    assert_eq!((rig.handle.replicas().ready, rig.handle.replicas().wanted), (3, 3));
    let health = rig.handle.check_health().await;
    assert!(health.healthy, "one answers");
    assert_eq!((health.port, health.status, health.error), (Some(c.addr.port()), Some(200), None));
    let replicas: Vec<_> =
        health.replicas.unwrap().into_iter().map(|each| (each.healthy, each.error)).collect();
    let bad = || (false, Some("status 503".to_owned()));
    assert_eq!(replicas, [bad(), bad(), (true, None)]);
    a.set(200);
    rig.until(&[(a.addr, Ready), (b.addr, Ejected), (c.addr, Ready)]).await;
    let status = rig.handle.status();
    assert_eq!(status.targets[1].last_error.as_deref(), Some("status 503"));
}

#[tokio::test]
async fn the_only_member_is_never_out_and_what_is_known_of_it_is_told() {
    let (a, b) = (App::start("a").await, App::start("b").await);
    let (nobody, day) = ((std::net::Ipv4Addr::LOCALHOST, 1).into(), Duration::from_secs(86_400));
    let rig = Rig::start(|app| {
        app.targets = Some(vec![a.addr, b.addr]);
        app.health.interval = Some(day);
        app.upstream.eject_for = day;
        app.drain.period = Duration::ZERO;
    });
    rig.until(&[(a.addr, Ready), (b.addr, Ready)]).await;
    b.kill();
    // Nobody else finds out: the next probe is far.
    assert_eq!([rig.ask().await, rig.ask().await], ["a", "a"]);
    rig.until(&[(a.addr, Ready), (b.addr, Ejected)]).await;
    assert_eq!((rig.handle.phase(), rig.handle.replicas().ready), (Phase::Degraded, 1));

    rig.edit(|app| app.targets = Some(vec![b.addr, nobody]));
    rig.until(&[(b.addr, Ready), (nobody, Starting)]).await;
    assert_eq!(rig.ask().await, "502");
    assert_eq!((rig.handle.phase(), rig.handle.replicas().ready), (Phase::Unhealthy, 1));
    assert_eq!(rig.handle.status().targets[0].last_error.as_deref(), Some("requests to it failed"));
    assert!(!rig.handle.check_health().await.healthy);

    // A shorter interval is in force at once, and one good probe is enough.
    let again = App::start_at(b.addr, "again").await;
    rig.edit(|app| app.health.interval = Some(Duration::from_millis(20)));
    let end = Instant::now() + LONG;
    while rig.handle.phase() != Phase::Degraded {
        assert!(Instant::now() < end, "{:?}", rig.handle.status());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(rig.ask().await, "again");
    rig.edit(|app| app.targets = Some(vec![again.addr]));
    rig.until(&[(again.addr, Ready)]).await;
    assert_eq!(rig.handle.phase(), Phase::Settled);
}

#[tokio::test]
async fn an_edit_of_the_list_and_a_death_cost_no_request() {
    let (a, b, c) = (App::start("x").await, App::start("x").await, App::start("x").await);
    let rig = Rig::start(|app| {
        app.targets = Some(vec![a.addr, b.addr]);
        app.drain.period = Duration::from_millis(50);
    });
    rig.until(&[(a.addr, Ready), (b.addr, Ready)]).await;
    let load = rig.load();
    for turn in 0..20 {
        let pair = [[a.addr, c.addr], [b.addr, c.addr], [a.addr, b.addr], [c.addr, b.addr]][turn % 4];
        rig.edit(|app| app.targets = Some(pair.to_vec()));
        rig.until(&[(pair[0], Ready), (pair[1], Ready)]).await;
    }
    let switch = rig.handle.status().last_switch.unwrap();
    assert_eq!((switch.reason, switch.to_ports.len()), (Reason::Config, 2));
    rig.edit(|app| app.targets = Some(vec![a.addr]));
    rig.until(&[(a.addr, Ready)]).await;
    rig.edit(|app| app.targets = Some(vec![b.addr, c.addr]));
    rig.until(&[(b.addr, Ready), (c.addr, Ready)]).await;
    b.kill();
    rig.until(&[(b.addr, Ejected), (c.addr, Ready)]).await;
    load.end().await;
}

#[tokio::test]
async fn a_switch_goes_to_healthy_ports_or_nowhere_and_survives_a_restart() {
    let (a, b, c) = (App::start("a").await, App::start("b").await, App::start("c").await);
    let rig = Rig::start(|app| app.targets = Some(vec![a.addr]));
    rig.until(&[(a.addr, Ready)]).await;
    let port = |app: &App| app.addr.port();
    c.set(500);
    let refused = rig.handle.switch(&[port(&b), port(&c)]).await.unwrap_err();
    assert_eq!(refused.code, Code::HealthFailed);
    assert_eq!(refused.message, format!("Port {} did not respond with 2xx at /health", port(&c)));
    assert!(refused.hint.is_some_and(|hint| hint.starts_with("the probe saw: ")));
    assert_eq!(rig.ask().await, "a");
    c.set(200);
    let switched = rig.handle.switch(&[port(&c), port(&b)]).await.unwrap();
    assert_eq!(switched.message, format!("Switched to ports {}, {}", port(&c), port(&b)));
    let switch = switched.switch.unwrap();
    assert_eq!((switch.from, switch.to), (Some(port(&a)), port(&c)));
    assert_eq!((switch.reason, &switch.to_ports), (Reason::Manual, &vec![port(&c), port(&b)]));
    rig.until(&[(c.addr, Ready), (b.addr, Ready), (a.addr, Draining)]).await;
    assert_ne!(rig.ask().await, "a");
    let again = rig.handle.switch(&[port(&b), port(&c)]).await.unwrap();
    assert!(again.message.ends_with("are live already"), "{}", again.message);
    // A reload that changes something else leaves it.
    rig.edit(|app| app.drain.period = Duration::from_millis(1));
    rig.handle.beat().await;
    assert_eq!(rig.handle.status().last_switch, Some(switch.clone()));
    rig.handle.leave().await;
    rig.task.await.unwrap();
    let rig = Rig::start_in(rig.home, |app| app.targets = Some(vec![a.addr]));
    rig.until(&[(c.addr, Ready), (b.addr, Ready)]).await;
    assert_eq!(rig.handle.status().last_switch, Some(switch));
    rig.handle.leave().await;
    let rig = Rig::start_in(rig.home, |app| app.targets = Some(vec![a.addr, b.addr]));
    rig.until(&[(a.addr, Ready), (b.addr, Ready)]).await;
}

#[tokio::test]
async fn of_two_reloads_the_newer_one_wins_and_every_move_of_traffic_is_told() {
    let (a, b) = (App::start("a").await, App::start("b").await);
    let rig = Rig::start(|app| {
        app.targets = Some(vec![a.addr]);
        app.drain.period = Duration::ZERO;
    });
    rig.until(&[(a.addr, Ready)]).await;
    for turn in 0..50 {
        let pair = if turn % 2 == 0 { [a.addr, b.addr] } else { [b.addr, a.addr] };
        rig.edit(|app| app.targets = Some(vec![pair[0]]));
        rig.edit(|app| app.targets = Some(vec![pair[1]]));
        rig.handle.beat().await;
        let targets = rig.handle.status().targets;
        let listed = targets.iter().find(|target| target.state != Draining).unwrap();
        assert_eq!(listed.address, pair[1].to_string());
    }
    rig.until(&[(a.addr, Ready)]).await;
    rig.handle.switch(&[b.addr.port()]).await.unwrap();
    let told = rig.told.lock().unwrap().clone();
    assert!(told.iter().all(|event| event.event == "switched"));
    let reasons: Vec<_> = told.iter().map(|event| event.switch.as_ref().unwrap().reason).collect();
    assert_eq!(reasons.last(), Some(&Reason::Manual));
    assert!(reasons.len() > 1 && reasons[..reasons.len() - 1].iter().all(|why| *why == Reason::Config));
    let last = told.last().unwrap();
    assert_eq!(last.message, format!("traffic goes to port {}, by an operator", b.addr.port()));
    assert_eq!(last.switch, rig.handle.status().last_switch);
}

/// The one file whose name holds `part`.
fn only(files: &[String], part: &str) -> bool {
    matches!(files, [file] if file.contains(part))
}

#[tokio::test]
async fn removed_it_finishes_what_is_in_flight_and_its_record_is_taken_up_again() {
    let (a, b) = (App::start("a").await, App::start("b").await);
    let slow = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut rig = Rig::start(|app| {
        app.targets = Some(vec![a.addr]);
        app.drain.period = LONG;
    });
    rig.until(&[(a.addr, Ready)]).await;
    rig.handle.switch(&[b.addr.port()]).await.unwrap();
    let switch = rig.handle.status().last_switch;
    rig.handle.remove().await;
    assert_eq!((&mut rig.task).await.unwrap(), End::Stopped, "nothing is in flight: it does not wait");
    assert!(only(&rig.home.files(), ".json.removed-"), "{:?}", rig.home.files());
    // Added again with the list of that time: the switch is in force.
    let slow_addr = slow.local_addr().unwrap();
    let mut rig = Rig::start_in(rig.home, |app| app.targets = Some(vec![a.addr]));
    rig.until(&[(b.addr, Ready)]).await;
    assert_eq!(rig.handle.status().last_switch, switch);
    assert!(rig.home.files()[0].ends_with(".json"), "{:?}", rig.home.files());
    rig.handle.remove().await;
    (&mut rig.task).await.unwrap();
    // Added with another list: that one is.
    let mut rig = Rig::start_in(rig.home, |app| {
        app.targets = Some(vec![slow_addr]);
        app.drain.period = LONG;
    });
    let (mut probe, _) = slow.accept().await.unwrap();
    let mut buf = [0; 1024];
    assert!(probe.read(&mut buf).await.unwrap() > 0);
    probe.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
    rig.until(&[(slow_addr, Ready)]).await;
    let mut client = TcpStream::connect(rig.addr).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    // Of a probe and the request the latter has no `/health`.
    let mut request = loop {
        let (mut stream, _) = slow.accept().await.unwrap();
        let read = stream.read(&mut buf).await.unwrap();
        if buf[..read].starts_with(b"GET / ") {
            break stream;
        }
    };
    rig.handle.remove().await;
    rig.until(&[(slow_addr, Draining)]).await;
    assert_eq!(rig.handle.phase(), Phase::Stopping);
    assert!(rig.handle.status().drain_until.is_some());
    rig.handle.freeze(false).await.unwrap();
    rig.handle.shut_down().await;
    rig.handle.beat().await;
    assert_eq!(rig.handle.switch(&[a.addr.port()]).await.unwrap_err().code, Code::NoSuchApp);
    request.write_all(b"HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    let read = tokio::time::timeout(LONG, client.read(&mut buf)).await.unwrap().unwrap();
    assert!(buf[..read].ends_with(b"ok"), "{:?}", str::from_utf8(&buf[..read]));
    assert_eq!((&mut rig.task).await.unwrap(), End::Stopped);
}

#[tokio::test]
async fn a_pinned_connection_stays_with_the_former_set_while_it_drains() {
    let (a, b) = (App::start("a").await, App::start("b").await);
    let rig = Rig::start(|app| {
        app.targets = Some(vec![a.addr]);
        app.drain.affinity = Affinity::Connection;
        app.drain.period = Duration::from_secs(2);
    });
    rig.until(&[(a.addr, Ready)]).await;
    let mut client = TcpStream::connect(rig.addr).await.unwrap();
    let mut ask = async || {
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut buf = [0; 1024];
        let read = client.read(&mut buf).await.unwrap();
        char::from(buf[read - 1])
    };
    assert_eq!(ask().await, 'a');
    rig.handle.switch(&[b.addr.port()]).await.unwrap();
    assert_eq!(rig.ask().await, "b");
    assert_eq!(ask().await, 'a');
    rig.until(&[(b.addr, Ready)]).await;
    assert_eq!(ask().await, 'b', "the drain is over");
}

#[tokio::test]
async fn frozen_it_stands_still_and_stopped_it_serves_nothing() {
    let (a, b) = (App::start("a").await, App::start("b").await);
    let mut rig = Rig::start(|app| app.targets = Some(vec![a.addr]));
    rig.until(&[(a.addr, Ready)]).await;
    rig.handle.may_freeze().await.unwrap();
    rig.handle.freeze(false).await.unwrap();
    assert_eq!(rig.handle.switch(&[b.addr.port()]).await.unwrap_err().code, Code::Busy);
    rig.edit(|app| app.targets = Some(vec![b.addr]));
    rig.handle.beat().await;
    assert_eq!(rig.ask().await, "a");
    rig.handle.thaw().await;
    rig.until(&[(b.addr, Ready), (a.addr, Draining)]).await;
    rig.handle.shut_down().await;
    rig.handle.beat().await;
    assert_eq!((rig.handle.phase(), rig.ask().await.as_str()), (Phase::Stopping, "b"));
    assert_eq!(rig.handle.switch(&[a.addr.port()]).await.unwrap_err().code, Code::ShuttingDown);
    rig.handle.stop().await;
    assert_eq!((&mut rig.task).await.unwrap(), End::Stopped);
    assert_eq!(rig.ask().await, "503");
}

/// Keeps the addresses that were put out.
#[derive(Debug, Default)]
struct Told(std::sync::Mutex<Vec<SocketAddr>>);

impl Ejections for Told {
    fn ejected(&self, target: &Arc<Target>) {
        self.0.lock().unwrap().push(target.addr());
    }
}

#[tokio::test]
async fn addresses_serve_as_they_are_and_may_be_marked_from_outside() {
    let (a, b) = (App::start("a").await, App::start("b").await);
    let mut config = of_an_empty_file();
    config.proxy.threads = 1;
    Arc::make_mut(&mut config.app).most_fields = 256;
    let (app, counters) = (config.app.clone(), Counters::new(1));
    let (board, route) = Board::new(Arc::new(config), counters.service().clone());
    let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let addr = listener.local_addr().unwrap();
    let listeners = vec![(ListenerId::Instance(addr), listener)];
    let _plane =
        Plane::prepare(listeners, board, counters.clone(), Arc::new(Nobody)).unwrap().begin().unwrap();
    let ask = async || {
        let mut client = TcpStream::connect(addr).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    let told = Arc::new(Told::default());
    let mut addresses = Addresses::new(route);
    addresses.put(&[a.addr, b.addr], &[], &app, || told.clone());
    assert!(addresses.set_out(0, LONG).is_some() && addresses.set_out(0, LONG).is_none());
    assert_eq!([ask().await, ask().await], ["b", "b"]);
    addresses.set_out(1, LONG);
    let both = [ask().await, ask().await];
    assert!(both.contains(&"a".to_owned()) && both.contains(&"b".to_owned()), "all are marked: none counts");
    assert!((0..2).all(|place| addresses.set_in(place).is_some()));
    assert!(addresses.set_in(0).is_none(), "it is in");
    a.kill();
    assert_eq!([ask().await, ask().await], ["b", "b"]);
    assert_eq!(*told.0.lock().unwrap(), [a.addr]);
    let left = addresses.put(&[b.addr], &[], &app, || told.clone());
    assert_eq!(left.iter().map(|target| target.addr()).collect::<Vec<_>>(), [a.addr]);
    assert_eq!(ask().await, "b");
}
