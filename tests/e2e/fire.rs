//! A public port under fire from everything at once: heads that never end, clients that say
//! nothing, handshakes that never end, clients that do not read, bodies that stop. Others are served
//! all the while, memory has a bound, and all of it is cut in time.
//!
//! A tenth of it by default; `PORTOK_TEST_ALL_POINTS=1` fires all.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::harness::conf::Conf;
use crate::harness::doomed::tries_all;
use crate::harness::http::uninterrupted;
use crate::harness::load::Asked;
use crate::harness::tls::Authority;
use crate::harness::wait::{DEADLINE, pause};
use crate::harness::{Daemon, Load, World, wait_until};
use crate::listeners::free;

/// What is fired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Silent,
    SlowHead,
    SlowBody,
    Deaf,
    /// A handshake that does not end.
    Greeting,
}

/// How many of each, when all of it is fired.
const FIRE: [(Kind, usize); 5] = [
    (Kind::Silent, 2_000),
    (Kind::Deaf, 500),
    (Kind::SlowBody, 200),
    (Kind::SlowHead, 2_000),
    (Kind::Greeting, 2_000),
];

/// How many connections come from one address.
const AN_ADDRESS: usize = 50;

/// How long a head, a body and an answer may stand still.
const PATIENCE: &str = "10s";

/// What a client that does not read, or whose body stops, may cost: what portok holds of an answer
/// (64 KiB), and as much again for everything else.
const LARGE: u64 = 128;

/// What a handshake that does not end may cost: what came of it, and the state of TLS.
const GREETING: u64 = 32;

/// What a client may cost that has not sent a head: its buffer, and its state.
const SMALL: u64 = 16;

/// What the load beside the fire may cost.
const REST: u64 = 32 * 1024;

/// A slow client.
struct Slow {
    kind: Kind,
    stream: TcpStream,
    /// What it sends, byte by byte, again and again.
    drips: std::iter::Cycle<std::vec::IntoIter<u8>>,
    is_cut: bool,
}

#[test]
fn a_port_under_fire_serves_others_and_cuts_the_fire_in_time() {
    raise_descriptors();
    let world = World::new();
    let [plain, encrypted] = free();
    let daemon = world.start(&conf(&world, plain, encrypted));
    daemon.wait_until_serves("v1");
    let terms = Authority::new();
    terms.issue(&["app.test"]).put(&world.path("certs"), "app");
    let terms = terms.terms();
    wait_until("TLS is spoken", || daemon.log(), || terms.connect(encrypted, "app.test").ok().map(drop));
    let load = |addr, tls| Load::of(&Asked { addr, host: "app.test".to_owned(), status: 200, tls }, 1);
    let loads = [load(plain, None), load(encrypted, Some(terms.clone()))];
    let (memory_before, files_before) = (memory(&daemon, "VmRSS:"), files(&daemon));

    let hello = terms.hello("app.test");
    let mut fire: Vec<_> =
        FIRE.iter().flat_map(|(kind, all)| open(*kind, *all, plain, encrypted, &hello)).collect();
    loads.iter().for_each(|load| load.wait_for_more(100));
    // Who is slow and comes to an end in time is served.
    let mut slow = terms.connect_in_pieces(encrypted, "app.test").unwrap();
    slow.request("GET", "/", &[("host", "app.test")], None).unwrap().expect(200);
    drop(slow);

    drip(&mut fire);
    for slow in &fire {
        slow.check();
    }
    // Of the loads no more than six are there at a time.
    let connections = || {
        let metrics = daemon.admin("GET", "/__metrics?format=prometheus", None).expect(200).text();
        let open = metrics.lines().find_map(|line| line.strip_prefix("portok_client_connections "));
        open.and_then(|open| open.parse::<f64>().ok()).unwrap_or(f64::MAX)
    };
    wait_until(
        "all of the fire is cut",
        || format!("{} connections are open", connections()),
        || (connections() <= 6.0).then_some(()),
    );
    for slow in fire.iter().filter(|slow| slow.kind == Kind::Deaf) {
        let got = slow.rest().unwrap_or_else(|error| panic!("a deaf client is not cut: {error}"));
        assert!(got.len() < 4 * 1024 * 1024, "it was not deaf");
    }

    for load in loads {
        load.wait_for_more(100);
        let report = load.finish_without_failure();
        assert!(report.answered > 200, "{report:#?}");
    }
    let (bound, used) = (bound(&fire), memory(&daemon, "VmHWM:") - memory_before);
    assert!(used <= bound, "{used} kB more were used at the most, not {bound}");
    println!("{} connections cost {used} kB of {bound}", fire.len());
    // Of the fire nothing is left open, on the app's side either.
    wait_until(
        "the descriptors are closed",
        || format!("{} descriptors, {files_before} before", files(&daemon)),
        || (files(&daemon) <= files_before).then_some(()),
    );
    daemon.terminate();
}

fn conf(world: &World, plain: SocketAddr, encrypted: SocketAddr) -> Conf {
    fs::create_dir_all(world.path("certs")).unwrap();
    world
        .conf()
        .app(&world.app("v1"))
        .set("listen", plain.to_string())
        .set("tls.listen", encrypted.to_string())
        .set("tls.cert_dir", world.path("certs").display().to_string())
        .set("tls.redirect", false)
        // By default it is a quarter of the descriptors, which may be less.
        .set("limits.connections", if tries_all() { 8_000 } else { 2_000 })
        .set("proxy.header_timeout", PATIENCE)
        .set("limits.body_timeout", PATIENCE)
        .set("limits.send_timeout", PATIENCE)
}

/// Opens the connections of a kind, all of them or a tenth.
fn open(kind: Kind, all: usize, plain: SocketAddr, encrypted: SocketAddr, hello: &[u8]) -> Vec<Slow> {
    // A handshake message of 60,000 bytes of which a record and the beginning of another come.
    let endless =
        [&[22, 3, 1, 0x40, 0, 1, 0, 0xEA, 0x60, 3, 3][..], &[0; 0x3FFA], &[22, 3, 1, 0x40, 0]].concat();
    let greetings = [
        (&[][..], &[][..]),
        (&hello[..hello.len() / 2], &[]),
        // Its server has answered, and waits.
        (hello, &[]),
        (&endless, &[0]),
        (&hello[..1], &hello[1..]),
    ];
    let say = |number: usize| match kind {
        Kind::Silent => (&[][..], &[][..]),
        Kind::SlowHead => (&b"GET / HTTP/1.1\r\nhost: app.test\r\nx: "[..], &b"y"[..]),
        Kind::SlowBody => {
            (&b"POST /up HTTP/1.1\r\nhost: app.test\r\ncontent-length: 1000\r\n\r\nhello"[..], &[][..])
        }
        Kind::Deaf => (&b"GET /large/4194304 HTTP/1.1\r\nhost: app.test\r\n\r\n"[..], &[][..]),
        Kind::Greeting => greetings[number % greetings.len()],
    };
    let count = if tries_all() { all } else { all / 10 };
    let opened = (0..count).map(|number| {
        let (first, drips) = say(number);
        let to = if kind == Kind::Greeting { encrypted } else { plain };
        let mut stream = connect(to, kind, number / AN_ADDRESS);
        stream.write_all(first).unwrap_or_else(|error| panic!("{kind:?} {number}: {error}"));
        Slow { kind, stream, drips: Vec::from(drips).into_iter().cycle(), is_cut: false }
    });
    opened.collect()
}

/// Sends a byte now and then until all who live of that are cut: it makes no head, and no
/// handshake.
fn drip(fire: &mut [Slow]) {
    let start = std::time::Instant::now();
    let mut left: Vec<_> = fire.iter_mut().filter(|slow| slow.drips.size_hint().0 > 0).collect();
    while !left.is_empty() {
        assert!(start.elapsed() < DEADLINE, "{} are not cut", left.len());
        left.iter_mut().for_each(|slow| slow.drip());
        left.retain(|slow| !slow.is_cut);
        pause(Duration::from_millis(300));
    }
}

/// What the fire and the load beside it may cost, in kB.
fn bound(fire: &[Slow]) -> u64 {
    let cost = |slow: &Slow| match slow.kind {
        Kind::Silent | Kind::SlowHead => SMALL,
        Kind::Greeting => GREETING,
        Kind::SlowBody | Kind::Deaf => LARGE,
    };
    fire.iter().map(cost).sum::<u64>() + REST
}

impl Slow {
    /// Waits until it is cut, and looks what it is told.
    fn check(&self) {
        let is_right: fn(&str) -> bool = match self.kind {
            // What was read of those that were cut in the middle of it tells nothing any more.
            Kind::SlowHead => return,
            // As long as it is not cut, reading would help it on.
            Kind::Deaf => return,
            Kind::Silent => |told| told.is_empty() || told.starts_with("HTTP/1.1 408 "),
            Kind::SlowBody => |told| told.contains("portok-error: body_timeout\r\n"),
            // Nothing, or what a server says in its turn.
            Kind::Greeting => |told| told.is_empty() || told.starts_with('\u{16}'),
        };
        let told = self.rest().unwrap_or_else(|error| panic!("{:?} is not cut: {error}", self.kind));
        assert!(is_right(&told), "{:?} is told {told:?}", self.kind);
    }

    /// Sends another byte, unless the connection is cut.
    fn drip(&mut self) {
        self.stream.set_nonblocking(true).expect("an open socket");
        let mut part = [0; 512];
        let is_open = |read: io::Result<usize>| match read {
            Ok(count) => count > 0,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        // It may be told why before it ends.
        while !self.is_cut {
            match self.stream.read(&mut part) {
                Ok(1..) => (),
                read => {
                    let drip = self.drips.next().expect("it drips");
                    self.is_cut = !is_open(read) || self.stream.write_all(&[drip]).is_err();
                    return;
                }
            }
        }
    }

    /// What still comes until the connection is cut.
    fn rest(&self) -> io::Result<String> {
        self.stream.set_read_timeout(Some(DEADLINE))?;
        let (mut got, mut part) = (Vec::new(), [0; 16 * 1024]);
        loop {
            match uninterrupted(|| (&self.stream).read(&mut part)) {
                Ok(0) => break,
                Ok(count) => got.extend_from_slice(&part[..count]),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(error);
                }
                // A reset.
                Err(_) => break,
            }
        }
        Ok(String::from_utf8_lossy(&got).into_owned())
    }
}

/// A connection from the address of this number that takes little at a time.
fn connect(to: SocketAddr, kind: Kind, address: usize) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let own = Ipv4Addr::new(127, 1, kind as u8, u8::try_from(address + 1).unwrap());
    socket.bind(&SocketAddr::from((own, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    TcpStream::from(socket)
}

/// How many descriptors the daemon has.
fn files(daemon: &Daemon<'_>) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}

/// What the daemon has in memory, in kB.
pub(crate) fn memory(daemon: &Daemon<'_>, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
    let value = status.lines().find_map(|known| known.strip_prefix(line)).unwrap();
    value.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Lets this process have as many descriptors as it may.
fn raise_descriptors() {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
}
