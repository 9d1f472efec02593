//! Socket.IO with several replicas. A session is in the memory of one process: each further
//! request of its client has to come there, else it is refused with `Session ID unknown`.

use std::collections::{BTreeMap, BTreeSet};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{PACKAGES, file, has_package};
use crate::harness::command::Running;
use crate::harness::conf::Conf;
use crate::harness::tls::Authority;
use crate::harness::{Daemon, World, procs, wait_until};
use crate::listeners::free;

const CLIENTS: usize = 9;
const REPLICAS: usize = 3;

fn conf(world: &World, sticky: &str) -> Conf {
    world
        .conf()
        .set("app.command", command())
        .set("app.env.NODE_PATH", PACKAGES)
        .set("app.replicas", i64::try_from(REPLICAS).expect("it fits"))
        .set("app.sticky", sticky)
        .set("drain.period", "500ms")
        .set("rollback.window", "100ms")
}

fn command() -> String {
    format!("exec node {}", file("socketio.js"))
}

fn wait_until_ready(daemon: &Daemon<'_>) {
    daemon.wait_until("every replica is ready", |status| {
        status.replicas.is_some_and(|all| all.ready == REPLICAS && all.wanted == REPLICAS)
            && status.phase.as_str() != "watching"
    });
}

fn deploy(daemon: &Daemon<'_>, release: &str) {
    let body = json!({ "command": command(), "release": release });
    daemon.admin("POST", "/__deploy", Some(&body)).expect(200);
}

/// Clients that send one echo after another, and come back when their connection is lost.
struct Clients<'w, 'd> {
    running: Running,
    daemon: &'d Daemon<'w>,
}

impl<'w, 'd> Clients<'w, 'd> {
    fn start(daemon: &'d Daemon<'w>, transports: &str) -> Self {
        Self::asking(daemon, &format!("http://{}", daemon.addr), transports, &[])
    }

    fn asking(daemon: &'d Daemon<'w>, url: &str, transports: &str, more: &[&str]) -> Self {
        let mut env = daemon.world.env();
        env.insert("NODE_PATH".to_owned(), PACKAGES.to_owned());
        let (script, number) = (file("socketio-clients.js"), CLIENTS.to_string());
        let words = [&[&*script, url, &number, transports], more].concat();
        Self { running: daemon.world.spawn("node", &words, &env), daemon }
    }

    /// What has happened to them so far.
    fn events(&self) -> Vec<Value> {
        let (said, _) = self.running.said();
        let complete = said.rfind('\n').map_or("", |end| &said[..end]);
        complete.lines().map(|line| serde_json::from_str(line).expect("one JSON object a line")).collect()
    }

    /// What has happened beside echoes since `from`.
    fn troubles(&self, from: usize) -> Vec<Value> {
        self.events().into_iter().skip(from).filter(|event| event["event"] != "echo").collect()
    }

    /// Waits until `check` holds for what has happened since `from`, and returns how much has
    /// happened.
    #[track_caller]
    fn wait_until(&self, what: &str, from: usize, check: impl Fn(&[Value]) -> bool) -> usize {
        let explain =
            || format!("{:#?}\n{}\n{}", self.troubles(from), self.running.said().1, self.daemon.log());
        wait_until(what, explain, || {
            let events = self.events();
            check(&events[from..]).then_some(events.len())
        })
    }

    /// Waits until each has had `number` echoes from `release` since `from`.
    #[track_caller]
    fn wait_for_echoes(&self, from: usize, number: usize, release: &str) -> usize {
        let all = |events: &[Value]| (0..CLIENTS).all(|client| echoes(events, client, release) >= number);
        self.wait_until(&format!("{release} answers every client {number} times"), from, all)
    }
}

fn echoes(events: &[Value], client: usize, release: &str) -> usize {
    let is_one = |event: &&Value| {
        event["event"] == "echo"
            && event["client"] == client
            && event["who"].as_str().is_some_and(|who| who.starts_with(&format!("{release}/")))
    };
    events.iter().filter(is_one).count()
}

/// Which processes answered which client.
fn who_answered(events: &[Value]) -> BTreeMap<u64, BTreeSet<String>> {
    let mut all: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for event in events.iter().filter(|event| event["event"] == "echo") {
        let who = event["who"].as_str().expect("an echo says who answers").to_owned();
        all.entry(event["client"].as_u64().expect("a number")).or_default().insert(who);
    }
    all
}

fn is_unknown(event: &Value) -> bool {
    event["said"].as_str().is_some_and(|said| said.contains("Session ID unknown"))
}

#[test]
fn long_polls_stay_with_their_replica_through_a_crash_and_deploys() {
    if !has_package("socket.io") {
        return;
    }
    let world = World::new();
    let daemon = world.start(&conf(&world, "cookie"));
    wait_until_ready(&daemon);
    deploy(&daemon, "v1");
    wait_until_ready(&daemon);
    let clients = Clients::start(&daemon, "polling");
    let mut seen = clients.wait_for_echoes(0, 6, "v1");
    let events = clients.events();
    let first = who_answered(&events);
    assert!(first.values().all(|who| who.len() == 1), "each has one replica: {first:#?}");
    let replicas: BTreeSet<_> = first.values().flatten().collect();
    assert_eq!(replicas.len(), REPLICAS, "{first:#?}");
    assert!(
        clients.troubles(0).iter().all(|event| event["event"] == "connected"),
        "{:#?}",
        clients.troubles(0)
    );

    // One replica is killed: its clients get another, and the others notice nothing.
    let killed = first[&0].first().expect("it was answered");
    procs::send(killed.split_once('/').unwrap().1.parse().unwrap(), Signal::SIGKILL);
    let is_mourning = |client: u64| first[&client].contains(killed);
    let has_moved = |events: &[Value]| {
        who_answered(events)
            .into_iter()
            .filter(|(client, _)| is_mourning(*client))
            .all(|(_, who)| who.iter().any(|who| who != killed))
    };
    seen = clients.wait_until("its clients have another", seen, has_moved);
    seen = clients.wait_for_echoes(seen, 4, "v1");
    wait_until_ready(&daemon);
    for event in clients.troubles(0).iter().filter(|event| event["event"] != "connected") {
        assert!(is_mourning(event["client"].as_u64().unwrap()), "{event}");
    }

    for release in ["v2", "v3"] {
        deploy(&daemon, release);
        seen = clients.wait_for_echoes(seen, 2, release);
        // From here on the set stands.
        let now = clients.wait_for_echoes(seen, 6, release);
        let troubles = clients.troubles(seen);
        assert!(troubles.is_empty(), "{troubles:#?}");
        seen = now;
    }
    assert!(clients.events().iter().all(|event| event["event"] != "wrong"), "{:#?}", clients.troubles(0));
    drop(clients);
    daemon.terminate();
}

#[test]
fn without_sticky_sessions_are_unknown() {
    if !has_package("socket.io") {
        return;
    }
    let world = World::new();
    let daemon = world.start(&conf(&world, "off"));
    wait_until_ready(&daemon);
    let clients = Clients::start(&daemon, "polling");
    clients.wait_until("a session is unknown", 0, |events| events.iter().any(is_unknown));
    drop(clients);
    daemon.terminate();
}

#[test]
fn clients_that_go_over_to_websockets_over_tls_come_back_after_a_deploy() {
    if !has_package("socket.io") {
        return;
    }
    let (world, authority) = (World::new(), Authority::new());
    std::fs::create_dir_all(world.path("certs")).expect("the folder is ours");
    let [plain, encrypted] = free();
    authority.issue(&["127.0.0.2"]).put(&world.path("certs"), "a");
    let conf = conf(&world, "cookie")
        .set("listen", plain.to_string())
        .set("tls.listen", encrypted.to_string())
        .set("tls.cert_dir", world.path("certs").display().to_string())
        .set("tls.default", "a");
    let daemon = world.start(&conf);
    wait_until_ready(&daemon);
    deploy(&daemon, "v1");
    let trusted = authority.save(&world.path("")).display().to_string();
    let clients = Clients::asking(&daemon, &format!("https://{encrypted}"), "polling,websocket", &[&trusted]);
    let count = |events: &[Value]| events.iter().filter(|event| event["event"] == "upgraded").count();
    clients.wait_until("all have a WebSocket", 0, |events| count(events) == CLIENTS);
    let seen = clients.wait_for_echoes(0, 4, "v1");
    assert!(!clients.events().iter().any(is_unknown), "{:#?}", clients.troubles(0));
    deploy(&daemon, "v2");
    let seen = clients.wait_until("all have another", seen, |events| count(events) == CLIENTS);
    clients.wait_for_echoes(seen, 4, "v2");
    let troubles = clients.troubles(0);
    assert!(!troubles.iter().any(|event| is_unknown(event) || event["event"] == "wrong"), "{troubles:#?}");
    drop(clients);
    daemon.terminate();
}
