//! One client address takes what it can get, and others are served all the while.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::harness::conf::Conf;
use crate::harness::{Daemon, World, wait_until};

/// More than the connections to the app that there are by default.
const MANY: usize = 1_030;

const GREEDY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn started<'w>(world: &'w World, conf: &Conf) -> Daemon<'w> {
    let daemon = world.start(conf);
    daemon.wait_until_serves("v1");
    daemon
}

fn conf(world: &World) -> Conf {
    world.conf().app(&world.app("v1"))
}

/// Connections of one address that have each sent `request`, and read nothing.
fn greedy(daemon: &Daemon<'_>, count: usize, request: &str) -> Vec<TcpStream> {
    (0..count)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            socket.bind(&SocketAddr::from((GREEDY, 0)).into()).unwrap();
            socket.connect(&daemon.addr.into()).unwrap();
            let mut stream = TcpStream::from(socket);
            // One that is refused may be closed already.
            let _ = stream.write_all(request.as_bytes());
            stream
        })
        .collect()
}

/// Waits until the log says that `limit` is full and that the greedy address fills it, and another one is served.
#[track_caller]
fn assert_others_are_served(daemon: &Daemon<'_>, limit: &str, what: &str) {
    let named = |line: &str| {
        line.contains(&format!("{limit} is full"))
            && line.contains(&format!("{GREEDY} has "))
            && line.contains(what)
    };
    wait_until(
        "the log names the limit and who fills it",
        || daemon.log(),
        || daemon.log().lines().any(named).then_some(()),
    );
    for _ in 0..3 {
        daemon.get("/").expect(200);
    }
    assert_eq!(daemon.log().lines().filter(|line| named(line)).count(), 1, "it is told once a minute");
}

#[test]
fn bodies_that_stop_take_the_app_away_from_nobody() {
    let world = World::new();
    let daemon = started(&world, &conf(&world));
    let stalled = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nx";
    let attack = greedy(&daemon, MANY, stalled);
    assert_others_are_served(&daemon, "limits.requests_per_address = 512", "proxy.trusted");
    let metrics = daemon.admin("GET", "/__metrics?format=prometheus", None).expect(200).text();
    let refused = "portok_requests_refused_total{reason=\"too_many_at_once\"} ";
    let refused = metrics.lines().find_map(|line| line.strip_prefix(refused)).unwrap();
    assert_ne!(refused, "0", "{metrics}");
    drop(attack);
}

#[test]
fn silent_websockets_take_the_app_away_from_nobody() {
    let world = World::new();
    let daemon = started(&world, &conf(&world).set("limits.tunnels", 1_025));
    let upgrade = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let mut attack = Vec::new();
    // Not more at once than requests of one address may be under way.
    while attack.len() < MANY {
        attack.extend(greedy(&daemon, 103, upgrade));
        let tunnels = attack.len().min(1_025) as u64;
        let inflight = || daemon.admin("GET", "/__metrics", None).json()["inflight"].as_u64();
        wait_until("they are tunnels", || daemon.log(), || (inflight() >= Some(tunnels)).then_some(()));
    }
    assert_others_are_served(&daemon, "limits.tunnels = 1025", "tunnels");
    drop(attack);
}

#[test]
fn clients_that_read_nothing_take_the_app_away_from_nobody() {
    let world = World::new();
    let daemon = started(&world, &conf(&world).set("upstream.max_connections", 64));
    let attack = greedy(&daemon, 70, "GET /large/4194304 HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_others_are_served(&daemon, "limits.requests_per_address = 32", "proxy.trusted");
    drop(attack);
}

#[test]
fn connections_beyond_the_limit_are_closed_and_told() {
    let world = World::new();
    let daemon = started(&world, &conf(&world).set("limits.connections_per_address", 50));
    let attack = greedy(&daemon, 60, "GET /large/4194304 HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_others_are_served(&daemon, "limits.connections_per_address = 50", "connections");
    drop(attack);
}
