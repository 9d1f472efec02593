//! Several addresses of one instance: they come, go, and are handed over together.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};

use nix::sys::signal::Signal;

use crate::harness::conf::Conf;
use crate::harness::{Conn, Load, Manager, World, assert_mentions, pid, wait_until};

/// A port on which nobody listens, and that nobody else gets meanwhile: it lies above those that the
/// kernel gives to connections, and each test gets another one.
pub(crate) fn port() -> u16 {
    const FIRST: u16 = 61_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = std::process::id() * 97;
    loop {
        let number = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed).into());
        let port = FIRST + u16::try_from(number % u32::from(u16::MAX - FIRST)).unwrap();
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// `N` addresses on which nobody listens, at one port.
pub(crate) fn free<const N: usize>() -> [SocketAddr; N] {
    let port = port();
    std::array::from_fn(|at| SocketAddr::from(([127, 0, 0, u8::try_from(at + 1).unwrap()], port)))
}

fn at(conf: &Conf, addresses: &[SocketAddr]) -> Conf {
    let addresses: Vec<_> = addresses.iter().map(|addr| toml::Value::from(addr.to_string())).collect();
    conf.clone().set("listen", addresses)
}

pub(crate) fn version(addr: SocketAddr) -> String {
    let mut conn = Conn::tcp(addr).unwrap();
    conn.request("GET", "/", &[], None).unwrap().expect(200).version().to_owned()
}

#[test]
fn addresses_come_and_go_and_one_that_cannot_be_had_changes_nothing() {
    let world = World::new();
    let [one, two, three, taken] = free();
    let conf = world.conf().app(&world.app("v1")).set("proxy.idle_timeout", "60s");
    let daemon = world.start(&at(&conf, &[one, two]));
    let before = daemon.wait_until_serves("v1");
    assert_eq!(before.listen, one.to_string());
    assert_eq!(version(two), "v1");
    let mut kept = Conn::tcp(two).unwrap();
    kept.request("GET", "/", &[], None).unwrap().expect(200);
    let load = Load::start(one);

    // The one that is taken comes last: what could be bound before it is let go of.
    let _taken = std::net::TcpListener::bind(taken).unwrap();
    at(&conf, &[one, three, taken]).save();
    let refused = daemon.admin("POST", "/__reload", None).refused(422, "config_invalid");
    assert_mentions(&refused.to_string(), &["listen", &taken.to_string()]);
    assert_eq!(version(two), "v1");
    assert!(Conn::tcp(three).is_err());

    at(&conf, &[three, one]).save();
    daemon.admin("POST", "/__reload", None).expect(200);
    assert_eq!(version(three), "v1");
    assert_eq!(kept.request("GET", "/", &[], None).unwrap().version(), "v1", "no connection is dropped");
    wait_until("the former is free", || daemon.log(), || Conn::tcp(two).is_err().then_some(()));
    let status = daemon.status();
    assert_eq!((status.listen, pid(&daemon.status())), (three.to_string(), pid(&before)));
    load.wait_for_more(50);
    load.finish_without_failure();
}

#[test]
fn all_addresses_are_handed_over_and_kept() {
    let world = World::new();
    let manager = Manager::new(&world);
    let [one, two, three] = free();
    let conf = world.conf().app(&world.app("v1")).set("drain.period", "500ms");
    let mut daemon = world.start_managed(&at(&conf, &[one, two]), &manager);
    daemon.wait_until_serves("v1");
    let name = |addr: SocketAddr| format!("listen-{}", addr.to_string().replace(':', "-"));
    manager.wait_for_kept(&[("listen".to_owned(), one), (name(two), two)]);
    let loads = [one, two].map(Load::start);
    for _ in 0..2 {
        daemon.upgrade();
        loads.iter().for_each(|load| load.wait_for_more(50));
    }
    for load in loads {
        load.finish_without_failure();
    }
    manager.wait_for_kept(&[("listen".to_owned(), one), (name(two), two)]);
    // The first is another one now, and the others move up.
    at(&conf, &[three, two, one]).save();
    daemon.admin("POST", "/__reload", None).expect(200);
    let all = [("listen".to_owned(), three), (name(two), two), (name(one), one)];
    manager.wait_for_kept(&all);
    daemon.upgrade();
    manager.wait_for_kept(&all);
    for addr in [one, two, three] {
        assert_eq!(version(addr), "v1");
    }
}

#[test]
fn a_switch_to_any_address_of_portok_s_own_is_refused() {
    let world = World::new();
    let [one] = free();
    let [other] = free();
    let conf = world.conf().app(&world.app("v1"));
    let daemon = world.start(&at(&conf, &[one, other]));
    daemon.wait_until_serves("v1");
    for addr in [one, other] {
        let refused = daemon.admin("POST", &format!("/__switch?port={}", addr.port()), None);
        assert_mentions(&refused.refused(400, "bad_request").to_string(), &["portok itself listens"]);
    }
    daemon.signal(Signal::SIGHUP);
    daemon.wait_until_serves("v1");
}
