//! Clients that only keep portok busy: each is sent away or cut, and others are served all the
//! while.

use super::frames::*;
use crate::harness::conf::Conf;
use crate::harness::{Daemon, World};

pub(super) fn conf(world: &World) -> Conf {
    world.conf().app(&world.app("v1")).set("proxy.threads", 1)
}

pub(super) fn started<'w>(world: &'w World, conf: &Conf) -> Daemon<'w> {
    let daemon = world.start(conf);
    daemon.wait_until_serves("v1");
    daemon
}

/// A plain request for this path.
pub(super) fn get_path(stream: u32, path: &str) -> Vec<u8> {
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)];
    headers(stream, ALONE, &fields)
}

/// The number of the stream that is the client's next after `before` others.
pub(super) fn stream(before: u32) -> u32 {
    2 * before + 1
}

#[track_caller]
pub(super) fn assert_others_are_served(daemon: &Daemon<'_>, another: &mut Client, nth: u32) {
    daemon.get("/").expect(200);
    assert_eq!(another.ask(stream(nth), "/").expect("another connection is served").status(), 200);
}

#[test]
fn frames_that_ask_for_nothing_are_a_hundred_at_most() {
    let world = World::new();
    let daemon = started(&world, &conf(&world));
    let mut another = Client::connect(daemon.addr);
    let body = post(1, &[]);
    // The settings that a connection begins with count too.
    for (nth, (name, first, frame, most)) in [
        ("pings", vec![], frame(PING, 0, 0, &[0; 8]), 99),
        ("settings", vec![], settings(&[]), 99),
        ("empty data", body.clone(), data(1, 0, &[]), 99),
        ("data of padding", body, data(1, PADDED, &[3, 0, 0, 0]), 0),
        (
            "empty parts of a head",
            frame(HEADERS, END, 1, &block(&plain("GET", &[]))),
            frame(CONTINUATION, 0, 1, &[]),
            0,
        ),
        (
            "small parts of a head",
            frame(HEADERS, END, 1, &block(&plain("GET", &[]))),
            // `accept-encoding: gzip, deflate`
            frame(CONTINUATION, 0, 1, &[0x90]),
            0,
        ),
        ("acknowledgements of no ping", vec![], frame(PING, END, 0, &[0; 8]), 99),
        ("priorities", vec![], frame(PRIORITY, 0, 1, &[0; 5]), u32::MAX),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = Client::connect(daemon.addr);
        client.send(&first);
        if most == 99 {
            client.send(&frame.repeat(98));
            client.settle();
            client.send(&frame.repeat(5));
            assert_eq!(client.end(), Some(ENHANCE_YOUR_CALM), "{name}");
        } else if most == 0 {
            client.send(&frame.repeat(1000));
            assert_eq!(client.end(), Some(ENHANCE_YOUR_CALM), "{name}");
        } else {
            client.send(&frame.repeat(1000));
            client.settle();
        }
        assert!(!client.late, "{name}");
        assert_others_are_served(&daemon, &mut another, nth as u32);
    }
    assert!(!daemon.log().contains("WARN"), "nobody fills the log: {}", daemon.log());
}

#[test]
fn streams_that_are_reset_are_a_thousand_at_most_or_half_of_all() {
    let world = World::new();
    let daemon = started(&world, &conf(&world));
    let mut another = Client::connect(daemon.addr);
    // Fewer go on.
    let mut client = Client::connect(daemon.addr);
    for nth in 0..900 {
        client.send(&[get(stream(nth)), reset(stream(nth), CANCEL)].concat());
        if nth % 50 == 0 {
            client.settle();
        }
    }
    assert_eq!(client.ask(stream(900), "/").unwrap().status(), 200);
    assert_others_are_served(&daemon, &mut another, 0);
    // More do not.
    for nth in 901..2_000 {
        client.send(&[get(stream(nth)), reset(stream(nth), CANCEL)].concat());
    }
    assert_eq!(client.end(), Some(ENHANCE_YOUR_CALM));
    assert!(!client.late);
    assert_others_are_served(&daemon, &mut another, 1);
}

#[test]
fn streams_beyond_the_most_are_refused_and_the_others_go_on() {
    let world = World::new();
    let daemon = started(&world, &conf(&world).set("proxy.max_streams", 20));
    let mut another = Client::connect(daemon.addr);
    let mut client = Client::connect(daemon.addr);
    let held = format!("/hold?file={}", world.path("go").display());
    let later = format!("/hold?file={}", world.path("later").display());
    let ask = |path: &str| (0..2_000).map(|nth| get_path(stream(nth), path)).collect::<Vec<_>>();
    client.send(&ask(&held)[..1_000].concat());
    for _ in 20..1_000 {
        let came = client.until(RST_STREAM).expect("the connection goes on");
        assert_eq!(came.number(0), REFUSED_STREAM);
    }
    assert_others_are_served(&daemon, &mut another, 0);
    world.touch("go");
    for nth in 0..20 {
        let came = client.until(HEADERS).expect("the connection goes on");
        assert!(came.stream < stream(20), "{nth}: {came:?}");
    }
    // Whoever goes on like that is sent away.
    let mut client = Client::connect(daemon.addr);
    client.send(&ask(&later).concat());
    assert_eq!(client.end(), Some(ENHANCE_YOUR_CALM));
    assert!(!client.late);
    world.touch("later");
}

#[test]
fn streams_that_portok_has_to_reset_count_as_well() {
    let world = World::new();
    let daemon = started(&world, &conf(&world));
    let mut another = Client::connect(daemon.addr);
    // CVE-2025-8671: the client has the server reset what it has begun.
    let mut client = Client::connect(daemon.addr);
    for nth in 0..3_000 {
        client.send(&[post(stream(nth), &[]), window(stream(nth), 0x7fff_ffff)].concat());
    }
    assert_eq!(client.end(), Some(ENHANCE_YOUR_CALM));
    assert!(!client.late);
    assert_others_are_served(&daemon, &mut another, 0);
    assert!(!daemon.log().contains("WARN"), "nobody fills the log: {}", daemon.log());
}

#[test]
fn each_stream_counts_for_the_limits_of_requests() {
    let world = World::new();
    let limits = [("limits.requests_per_address", 5), ("limits.requests_per_connection", 8)];
    let conf = limits.iter().fold(conf(&world), |conf, (key, most)| conf.set(key, *most));
    let daemon = started(&world, &conf.set("proxy.trusted", vec!["192.0.2.0/24"]));
    let held = format!("/hold?file={}", world.path("go").display());
    let mut client = Client::connect(daemon.addr);
    client.send(&(0..7).map(|nth| get_path(stream(nth), &held)).collect::<Vec<_>>().concat());
    let refused = client.answer(stream(5)).unwrap();
    assert_eq!((refused.status(), refused.value("portok-error")), (429, Some("too_many_at_once")));
    // Those before are answered once they may be, and the eighth request is the connection's last.
    world.touch("go");
    let mut answered = 0;
    while answered < 5 {
        let came = client.until(HEADERS).expect("the connection goes on");
        answered += u32::from(came.stream < stream(5));
    }
    assert_eq!(client.ask(stream(7), "/").unwrap().status(), 200);
    assert_eq!(client.end(), Some(NO_ERROR));
    assert!(!client.late);
}
