//! Client connections whose requests go to two apps in turn, while both apps deploy, roll back and
//! lose their processes: no request reaches the other app, and each gets its answer.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{edge, get, status, wait_for};
use crate::harness::app::App;
use crate::harness::fixture::checksum;
use crate::harness::http::request_bytes;
use crate::harness::wait::pause;
use crate::harness::{Answer, Conn, Daemon, World, deploy_body, procs, wait_until};

const APPS: [&str; 2] = ["api", "shop"];

/// How often each app is deployed, loses its process, and goes back.
const ROUNDS: u64 = 4;

/// How a client asks. Bodies and bare GETs take different ways through the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Gets,
    Posts,
    /// A body of unknown length, after each two GETs.
    Both,
    /// Requests for both apps are sent before the first answer is read.
    Pipelined,
}

const WAYS: [Way; 4] = [Way::Gets, Way::Posts, Way::Both, Way::Pipelined];

/// What is known of one app while clients ask for it.
#[derive(Debug, Default)]
struct Known {
    answered: AtomicU64,
    /// Odd from the kill of its process until it serves again.
    kills: AtomicU64,
    /// Requests that a process took along when it was killed.
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    connections: AtomicU64,
    apps: [Known; 2],
    /// The first failures.
    failures: Mutex<Vec<String>>,
}

impl Shared {
    fn fail(&self, failure: String) {
        let mut failures = self.failures.lock().unwrap();
        if failures.len() < 20 {
            failures.push(failure);
        }
    }
}

/// Clients that ask both apps in turn, each over a connection that it keeps.
struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Two of each way, one of which begins with the other app.
    fn start(addr: SocketAddr) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = (0..2 * WAYS.len()).map(|number| {
            let client =
                Client { addr, way: WAYS[number / 2], number, shared: Arc::clone(&shared), conn: None };
            std::thread::spawn(move || client.run())
        });
        Self { threads: threads.collect(), shared }
    }

    /// Waits until `app` has answered some more requests of each client.
    #[track_caller]
    fn wait_for_more(&self, app: usize) {
        let answered = &self.shared.apps[app].answered;
        let goal = answered.load(Ordering::Relaxed) + 10 * self.threads.len() as u64;
        wait_until(
            "the clients are answered",
            || format!("{:#?}", self.shared),
            || (answered.load(Ordering::Relaxed) >= goal).then_some(()),
        );
    }

    /// Ends them. Nothing may have failed, and a kill may have cost each at most one answer.
    fn finish(mut self) {
        let clients = self.threads.len() as u64;
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a client reports its failures and does not panic");
        }
        let failures = std::mem::take(&mut *self.shared.failures.lock().unwrap());
        assert!(failures.is_empty(), "{failures:#?}\n{:#?}", self.shared);
        let mut lost = 0;
        for known in &self.shared.apps {
            let most = known.kills.load(Ordering::Relaxed) / 2 * clients;
            let of_this = known.lost.load(Ordering::Relaxed);
            assert!(of_this <= most, "more than {most}: {:#?}", self.shared);
            lost += of_this;
        }
        let connections = self.shared.connections.load(Ordering::Relaxed);
        assert!(connections <= clients + lost, "they did not keep theirs: {:#?}", self.shared);
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

struct Client {
    addr: SocketAddr,
    way: Way,
    number: usize,
    shared: Arc<Shared>,
    conn: Option<Conn>,
}

/// A request to one of the apps.
struct Ask {
    app: usize,
    /// `None`: a GET.
    body: Option<Vec<u8>>,
    /// What was known of the app's kills when it was sent.
    kills: u64,
}

impl Client {
    fn run(mut self) {
        let mut turn = self.number as u64;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let asks = if self.way == Way::Pipelined { 3 } else { 1 };
            let asks: Vec<_> = (turn..turn + asks).map(|turn| self.ask(turn)).collect();
            turn += asks.len() as u64;
            if let Err(failure) = self.exchange(&asks) {
                self.shared.fail(format!("{:?} client {}, turn {turn}: {failure}", self.way, self.number));
                self.conn = None;
            }
            // The load is bounded, so that the machine can also run what is tested.
            pause(Duration::from_millis(2));
        }
    }

    fn ask(&self, turn: u64) -> Ask {
        let app = usize::from(turn % 2 == 1);
        let with_body = match self.way {
            Way::Gets | Way::Pipelined => false,
            Way::Posts => true,
            Way::Both => turn.is_multiple_of(3),
        };
        let length = if turn.is_multiple_of(8) { 100_000 } else { 100 };
        let byte = |at: u64| (at.wrapping_mul(turn + self.number as u64) >> 3) as u8;
        let body = with_body.then(|| (0..length).map(byte).collect());
        Ask { app, body, kills: self.shared.apps[app].kills.load(Ordering::SeqCst) }
    }

    fn exchange(&mut self, asks: &[Ask]) -> Result<(), String> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => {
                self.shared.connections.fetch_add(1, Ordering::Relaxed);
                Conn::tcp(self.addr).map_err(|error| format!("connecting: {error}"))?
            }
        };
        let bytes: Vec<u8> = asks.iter().flat_map(|ask| self.bytes(ask)).collect();
        conn.send(&bytes).map_err(|error| format!("sending: {error}"))?;
        let mut keeps = true;
        for ask in asks {
            let method = if ask.body.is_some() { "POST" } else { "GET" };
            let answer = conn.answer(method).map_err(|error| format!("asking {}: {error}", APPS[ask.app]))?;
            self.check(ask, &answer)?;
            keeps = answer.keeps_alive();
        }
        self.conn = keeps.then_some(conn);
        Ok(())
    }

    fn bytes(&self, ask: &Ask) -> Vec<u8> {
        let host = format!("{}.test", APPS[ask.app]);
        match &ask.body {
            None => request_bytes("GET", "/", &[("host", &host)], None),
            Some(body) if self.way == Way::Both => {
                let head = format!("POST / HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: chunked\r\n\r\n");
                let size = format!("{:x}\r\n", body.len());
                [head.as_bytes(), size.as_bytes(), body, b"\r\n0\r\n\r\n"].concat()
            }
            Some(body) => request_bytes("POST", "/", &[("host", &host)], Some(body)),
        }
    }

    /// The app that was asked answers, with what was sent to it. A process that is killed may take
    /// requests along: a body is never sent twice, and a GET, which is sent once more, may find the
    /// process a second time while the kernel takes it down.
    fn check(&self, ask: &Ask, answer: &Answer) -> Result<(), String> {
        let (name, known) = (APPS[ask.app], &self.shared.apps[ask.app]);
        let kills = known.kills.load(Ordering::SeqCst);
        let died = kills != ask.kills || kills % 2 == 1;
        if died && answer.header("portok-error") == Some("upstream_reset") {
            known.lost.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let version = answer.version();
        let expected = match &ask.body {
            None => format!("{version}\n"),
            Some(body) => format!("{version} {} {:016x}\n", body.len(), checksum(body)),
        };
        let is_its = version.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'));
        if answer.status() != 200 || !is_its || answer.text() != expected {
            return Err(format!("{name} was asked, killed: {died}, {:?} {}", answer.head, answer.text()));
        }
        known.answered.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// One of the two apps, which is given no rest.
struct Fire<'d> {
    daemon: &'d Daemon<'d>,
    clients: &'d Clients,
    app: usize,
}

impl Fire<'_> {
    fn burn(&self) {
        for round in 1..=ROUNDS {
            self.deploy(&format!("{round}"));
            self.kill();
            self.roll_back();
            self.deploy_and_kill(&format!("{round}-again"));
        }
    }

    fn name(&self) -> &'static str {
        APPS[self.app]
    }

    fn post(&self, what: &str, release: Option<&App>) -> Answer {
        let mark = if what.contains('?') { '&' } else { '?' };
        let body = release.map(deploy_body);
        self.daemon.admin("POST", &format!("/__{what}{mark}app={}", self.name()), body.as_ref())
    }

    fn deploy(&self, version: &str) {
        let release = release(self.daemon.world, self.name(), version);
        self.post("deploy", Some(&release)).expect(200);
        self.clients.wait_for_more(self.app);
    }

    /// Goes back, if there is something to go back to.
    fn roll_back(&self) {
        let answer = self.post("rollback", None);
        if answer.status() != 200 {
            answer.refused(409, "no_previous");
        }
        self.clients.wait_for_more(self.app);
    }

    /// Kills its process and waits until it serves again.
    fn kill(&self) {
        let pid = self.pid();
        self.kills().fetch_add(1, Ordering::SeqCst);
        procs::send(pid, Signal::SIGKILL);
        self.recovers_from(pid);
    }

    /// The process dies while another release is on its way.
    fn deploy_and_kill(&self, version: &str) {
        let pid = self.pid();
        let release = release(self.daemon.world, self.name(), version);
        self.kills().fetch_add(1, Ordering::SeqCst);
        self.post("deploy?detach=1", Some(&release)).expect(202);
        procs::send(pid, Signal::SIGKILL);
        self.recovers_from(pid);
    }

    fn kills(&self) -> &AtomicU64 {
        &self.clients.shared.apps[self.app].kills
    }

    fn explain(&self) -> String {
        let status = status(self.daemon, self.name());
        format!("{status:#?}\n{:#?}\n{}", self.clients.shared, self.daemon.log())
    }

    fn pid(&self) -> u32 {
        let pid = || status(self.daemon, self.name()).live?.pid;
        wait_until("it has a process", || self.explain(), pid)
    }

    fn recovers_from(&self, pid: u32) {
        wait_until(
            "it serves again, and nothing is under way",
            || self.explain(),
            || {
                let status = status(self.daemon, self.name());
                let another = status.live?.pid? != pid && status.candidate.is_none();
                let serves = ["unstable", "watching", "settled"].contains(&status.phase.as_str());
                (another && serves && status.active_port.is_some()).then_some(())
            },
        );
        get(self.daemon, &format!("{}.test", self.name()), "/").expect(200);
        self.kills().fetch_add(1, Ordering::SeqCst);
        self.clients.wait_for_more(self.app);
    }
}

/// A release that notices requests that are not its app's, and ends once nobody is connected.
fn release(world: &World, app: &str, version: &str) -> App {
    world.app(&format!("{app}-{version}")).with("host", format!("{app}.test")).flag("graceful")
}

/// Whoever watches goes back by itself when its process dies; without a window it is started again.
fn no_request_reaches_the_other(affinities: [&str; 2], windows: [&str; 2]) {
    let world = World::new();
    let mut conf = edge(&world).set("hold.max_time", "50s").set("proxy.idle_timeout", "60s");
    for ((app, affinity), window) in APPS.iter().zip(affinities).zip(windows) {
        for (key, value) in [
            ("hosts", toml::Value::from(vec![format!("{app}.test")])),
            ("command", release(&world, app, "0").command().into()),
            ("restart.burst", 1000.into()),
            ("drain.affinity", affinity.into()),
            ("drain.period", "300ms".into()),
            ("rollback.window", window.into()),
        ] {
            conf.put(&format!("apps.{app}.{key}"), value);
        }
    }
    let daemon = world.start(&conf);
    for app in APPS {
        wait_for(&daemon, &format!("{app}.test"), &format!("{app}-0"));
    }
    let clients = Clients::start(daemon.addr);
    std::thread::scope(|scope| {
        for app in 0..APPS.len() {
            let fire = Fire { daemon: &daemon, clients: &clients, app };
            scope.spawn(move || fire.burn());
        }
    });
    clients.finish();
    let folder = std::fs::read_dir(world.path("")).unwrap().flatten();
    let journals = folder.filter(|file| file.path().extension().is_some_and(|end| end == "journal"));
    for journal in journals.map(|file| file.path()) {
        let strangers = std::fs::read_to_string(&journal).unwrap();
        assert!(!strangers.contains("stranger"), "{}: {strangers}", journal.display());
    }
    daemon.terminate();
}

#[test]
fn with_each_request_routed_anew() {
    no_request_reaches_the_other(["request"; 2], ["0s"; 2]);
}

#[test]
fn with_connections_that_stay_with_what_drains() {
    no_request_reaches_the_other(["connection"; 2], ["0s"; 2]);
}

#[test]
fn with_one_app_of_each_kind_that_watch_their_releases() {
    no_request_reaches_the_other(["connection", "request"], ["10m"; 2]);
}
