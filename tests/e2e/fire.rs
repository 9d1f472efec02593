//! A public port under fire from everything at once: heads that never end, clients that say
//! nothing, clients that do not read, bodies that stop. Others are served all the while, memory has
//! a bound, and all of it is cut in time.
//!
//! A tenth of it by default; `PORTOK_TEST_ALL_POINTS=1` fires all.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

use crate::harness::doomed::tries_all;
use crate::harness::http::uninterrupted;
use crate::harness::load::Asked;
use crate::harness::wait::{DEADLINE, pause};
use crate::harness::{Daemon, Load, World, wait_until};

/// What is fired, all of it.
const SLOW_HEADS: usize = 2_000;
const SILENT: usize = 2_000;
const DEAF: usize = 500;
const SLOW_BODIES: usize = 200;

/// How many connections come from one address.
const AN_ADDRESS: usize = 50;

/// How long a head, a body and an answer may stand still.
const PATIENCE: &str = "10s";

/// What a client that does not read, or whose body stops, may cost: what portok holds of an answer
/// (64 KiB), and as much again for everything else.
const LARGE: u64 = 128;

/// What a client may cost that has not sent a head: its buffer, and its state.
const SMALL: u64 = 16;

/// What the load beside the fire may cost.
const REST: u64 = 32 * 1024;

/// A slow client.
struct Slow {
    stream: TcpStream,
    is_cut: bool,
}

#[test]
fn a_port_under_fire_serves_others_and_cuts_the_fire_in_time() {
    let one_of = if tries_all() { 1 } else { 10 };
    let [slow_heads, silent, deaf, slow_bodies] =
        [SLOW_HEADS, SILENT, DEAF, SLOW_BODIES].map(|all| all / one_of);
    raise_descriptors();
    let world = World::new();
    let conf = world
        .conf()
        .app(&world.app("v1"))
        .set("proxy.header_timeout", PATIENCE)
        .set("limits.body_timeout", PATIENCE)
        .set("limits.send_timeout", PATIENCE);
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let load = Load::of(&Asked { addr: daemon.addr, host: "app.test".to_owned(), status: 200, tls: None }, 1);
    let before = memory(&daemon, "VmRSS:");

    let mut addresses = 0;
    let mut fire = |kind: &str, count: usize, first: &[u8]| -> Vec<Slow> {
        let fired = (0..count).map(|number| {
            addresses += usize::from(number % AN_ADDRESS == 0);
            let mut stream = connect(&daemon, addresses);
            stream.write_all(first).unwrap_or_else(|error| panic!("{kind} {number}: {error}"));
            Slow { stream, is_cut: false }
        });
        fired.collect()
    };
    let silent = fire("silent", silent, b"");
    let deaf = fire("deaf", deaf, b"GET /large/4194304 HTTP/1.1\r\nhost: app.test\r\n\r\n");
    let slow_bodies = fire(
        "slow body",
        slow_bodies,
        b"POST /up HTTP/1.1\r\nhost: app.test\r\ncontent-length: 1000\r\n\r\nhello",
    );
    let mut slow_heads = fire("slow head", slow_heads, b"GET / HTTP/1.1\r\nhost: app.test\r\nx: ");
    load.wait_for_more(100);

    // A byte now and then makes no head.
    let explain =
        |heads: &[Slow]| format!("{} are not cut", heads.iter().filter(|slow| !slow.is_cut).count());
    let start = std::time::Instant::now();
    while slow_heads.iter().any(|slow| !slow.is_cut) {
        assert!(start.elapsed() < DEADLINE, "{}", explain(&slow_heads));
        slow_heads.iter_mut().filter(|slow| !slow.is_cut).for_each(Slow::drip);
        pause(Duration::from_millis(300));
    }
    for (kind, fired) in [("silent", &silent), ("slow body", &slow_bodies)] {
        for (number, slow) in fired.iter().enumerate() {
            let told = slow.rest().unwrap_or_else(|error| panic!("{kind} {number} is not cut: {error}"));
            match kind {
                "silent" => assert!(told.is_empty() || told.starts_with("HTTP/1.1 408 "), "{told:?}"),
                _ => assert!(told.contains("portok-error: body_timeout\r\n"), "{told:?}"),
            }
        }
    }
    // Of the load no more than three are there at a time.
    let connections = || {
        let metrics = daemon.admin("GET", "/__metrics?format=prometheus", None).expect(200).text();
        let open = metrics.lines().find_map(|line| line.strip_prefix("portok_client_connections "));
        open.and_then(|open| open.parse::<f64>().ok()).unwrap_or(f64::MAX)
    };
    wait_until(
        "all of the fire is cut",
        || format!("{} connections are open", connections()),
        || (connections() <= 3.0).then_some(()),
    );
    for slow in &deaf {
        let got = slow.rest().unwrap_or_else(|error| panic!("a deaf client is not cut: {error}"));
        assert!(got.len() < 4 * 1024 * 1024, "it was not deaf");
    }

    load.wait_for_more(100);
    let report = load.finish_without_failure();
    assert!(report.answered > 200, "{report:#?}");
    let (large, small) = (deaf.len() + slow_bodies.len(), silent.len() + slow_heads.len());
    let bound = LARGE * large as u64 + SMALL * small as u64 + REST;
    let used = memory(&daemon, "VmHWM:") - before;
    assert!(used <= bound, "{used} kB more were used at the most, not {bound}");
    println!("{} connections cost {used} kB of {bound}", large + small);
    daemon.terminate();
}

impl Slow {
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
                    self.is_cut = !is_open(read) || self.stream.write_all(b"y").is_err();
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
fn connect(daemon: &Daemon<'_>, address: usize) -> TcpStream {
    let [.., high, low] = address.to_be_bytes();
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 1, high, low), 0)).into()).unwrap();
    socket.connect(&daemon.addr.into()).unwrap();
    TcpStream::from(socket)
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
