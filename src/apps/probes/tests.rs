//! The probes with real sockets.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::config::of_an_empty_file;

/// For what happens at once, on a busy machine.
const LONG: Duration = Duration::from_secs(120);

/// The next probe of an interval comes after the test.
const NEVER: Duration = Duration::from_secs(86_400);

/// How many probes are under way at a time.
const AT_A_TIME: usize = 100;

/// A listener at the same port of every loopback address.
async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn probes(interval: Duration) -> Probes {
    let mut config = AppConfig::clone(&of_an_empty_file().app);
    config.health.interval = Some(interval);
    config.health.failures = Some(2);
    config.health.timeout = NEVER;
    config.most_fields = 100;
    Probes::start(Arc::new(config), Prober::with_places(AT_A_TIME))
}

fn hosts(name: &str) -> Hosts {
    name.parse().unwrap()
}

/// The address with this number.
fn addr(port: u16, number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::from(([127, 1, high, low], port))
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let (stream, _) = timeout(LONG, listener.accept()).await.expect("no further probe").unwrap();
    let addr = stream.local_addr().unwrap();
    (stream, addr)
}

async fn answer(mut stream: TcpStream, status: u16) {
    let mut head = [0; 1024];
    assert!(stream.read(&mut head).await.unwrap() > 0);
    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    stream.write_all(answer.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn of_very_many_addresses_only_so_many_are_probed_at_a_time() {
    let (listener, port) = listener().await;
    let probes = probes(NEVER);
    let all: Vec<_> = (0..2 * AT_A_TIME).map(|number| addr(port, u16::try_from(number).unwrap())).collect();
    for (number, list) in all.chunks(64).enumerate() {
        probes.replace(&hosts(&format!("h{number}")), &[], list);
    }
    let mut asked = HashSet::new();
    let mut open = std::collections::VecDeque::new();
    for _ in 0..AT_A_TIME {
        let (stream, addr) = accept(&listener).await;
        assert!(asked.insert(addr), "{addr} twice");
        open.push_back(stream);
    }
    // Each that ends makes room for one.
    for _ in 0..8 {
        let further = timeout(PACE * 10, listener.accept()).await;
        assert!(further.is_err(), "{} are under way", AT_A_TIME + 1);
        answer(open.pop_front().unwrap(), 200).await;
        let (stream, addr) = accept(&listener).await;
        assert!(asked.insert(addr), "{addr} twice");
        open.push_back(stream);
    }
}

#[tokio::test]
async fn what_many_hosts_have_is_asked_once_and_speaks_for_all() {
    let (listener, port) = listener().await;
    let probes = probes(Duration::from_millis(10));
    let (shared, other, third) = (addr(port, 1), addr(port, 2), addr(port, 3));
    probes.replace(&hosts("a"), &[], &[shared, other]);
    probes.replace(&hosts("b"), &[], &[shared, other, third]);
    probes.replace(&hosts("c"), &[], &[shared]);
    // One round after the other: an address is asked again once it was answered.
    let round = async |bad: &[SocketAddr]| {
        let mut open = Vec::new();
        for _ in 0..3 {
            open.push(accept(&listener).await);
        }
        let asked: HashSet<_> = open.iter().map(|(_, addr)| *addr).collect();
        assert_eq!(asked, [shared, other, third].into());
        for (stream, addr) in open {
            answer(stream, if bad.contains(&addr) { 503 } else { 200 }).await;
        }
    };
    let seen = probes.seen().clone();
    let verdict = |list: &[SocketAddr]| {
        let Verdict { out, is_unhealthy } = seen.verdict(list);
        (out.into_vec(), is_unhealthy)
    };
    round(&[shared]).await;
    round(&[shared]).await;
    timeout(LONG, probes.turned()).await.unwrap();
    assert_eq!(probes.take_turned(), ["a", "b", "c"].map(hosts).into());
    assert_eq!(verdict(&[shared, other]), (vec![0], false));
    assert_eq!(verdict(&[other, shared, third]), (vec![1], false));
    // More than half: all serve.
    assert_eq!(verdict(&[shared]), (vec![], true));
    assert_eq!(seen.error(shared).as_deref(), Some("status 503"));
    round(&[other, shared]).await;
    round(&[other, shared]).await;
    timeout(LONG, probes.turned()).await.unwrap();
    assert_eq!(probes.take_turned(), ["a", "b"].map(hosts).into());
    assert_eq!(
        (verdict(&[shared, other]), verdict(&[other, shared, third])),
        ((vec![], true), (vec![], true))
    );
    // One good probe brings it back.
    round(&[other]).await;
    timeout(LONG, probes.turned()).await.unwrap();
    assert_eq!(probes.take_turned(), ["a", "b", "c"].map(hosts).into());
    assert_eq!((verdict(&[shared, other]), seen.error(shared)), ((vec![1], false), None));
    // What no list has any more is asked no more.
    probes.replace(&hosts("a"), &[shared, other], &[]);
    probes.replace(&hosts("b"), &[shared, other, third], &[third]);
    probes.replace(&hosts("c"), &[shared], &[]);
    let mut asked = Vec::new();
    for _ in 0..6 {
        let (stream, addr) = accept(&listener).await;
        answer(stream, 200).await;
        asked.push(addr);
    }
    // The others' probes that were under way are the first.
    assert!(asked.iter().filter(|addr| **addr != third).count() <= 2, "{asked:?}");
    assert_eq!(asked[3..], [third; 3]);
}
