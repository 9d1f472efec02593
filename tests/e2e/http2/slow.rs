//! Clients that begin something and do not go on, or take nothing of what they have asked for: each
//! is cut in time and holds little memory, and others are served all the while.

use std::net::TcpStream;

use super::floods::{assert_others_are_served, conf, get_path, started, stream};
use super::frames::*;
use crate::fire::memory;
use crate::harness::tls::Authority;
use crate::harness::{Conn, Daemon, World, wait_until};
use crate::listeners::free;

/// The largest window.
const MOST: u32 = 0x7fff_ffff;

fn metric(daemon: &Daemon<'_>, name: &str) -> u64 {
    daemon.admin("GET", "/__metrics", None).expect(200).json()[name].as_u64().unwrap()
}

fn under_way(daemon: &Daemon<'_>) -> u64 {
    metric(daemon, "inflight")
}

#[test]
fn what_is_begun_and_does_not_go_on_is_cut() {
    let world = World::new();
    let authority = Authority::new();
    let [plain_addr, encrypted] = free();
    let folder = world.path("certs");
    std::fs::create_dir_all(&folder).unwrap();
    authority.issue(&["c.test"]).put(&folder, "a");
    let conf = conf(&world)
        .set("proxy.header_timeout", "1s")
        .set("proxy.idle_timeout", "900ms")
        .set("limits.body_timeout", "1s")
        .set("listen", plain_addr.to_string())
        .set("tls.listen", encrypted.to_string())
        .set("tls.cert_dir", folder.display().to_string());
    let daemon = started(&world, &conf);
    let hello = [PREFACE, &settings(&[])].concat();
    let fields = block(&plain("GET", &[]));
    let begun = [
        ("nothing", vec![]),
        ("a part of the preface", PREFACE[..5].to_vec()),
        ("the preface but its end", PREFACE[..20].to_vec()),
        ("no settings", PREFACE.to_vec()),
        ("a part of the settings", [PREFACE, &[0, 0, 6, 4, 0]].concat()),
        ("no request", hello.clone()),
        ("a part of a frame", [&hello[..], &[0, 0, 100, 1, 4, 0, 0, 0, 1, 0]].concat()),
        ("a part of a head", [&*hello, &frame(HEADERS, END, 1, &fields)].concat()),
        (
            "more parts of a head",
            [&*hello, &frame(HEADERS, END, 1, &fields), &frame(CONTINUATION, 0, 1, &block(&[("x", "y")]))]
                .concat(),
        ),
        ("no other request", [&*hello, &get(1)].concat()),
    ];
    let terms = authority.terms().speaking(&[b"h2"]);
    let mut clients = Vec::new();
    for (name, bytes) in &begun {
        let plain = Conn::tcp(daemon.addr).unwrap();
        for conn in [plain, terms.connect(encrypted, "c.test").unwrap()] {
            let mut client = Client::silent(conn);
            client.send(bytes);
            clients.push((*name, client));
        }
    }
    // The body of a request that stops is the stream's matter alone.
    let mut stopped = Client::connect(daemon.addr);
    stopped.send(&[post(1, &[]), data(1, 0, b"hel")].concat());
    assert_eq!(stopped.answer(1).expect("it is answered").status(), 408);
    for (name, mut client) in clients {
        client.end();
        assert!(!client.late, "{name}");
    }
    let mut another = Client::connect(daemon.addr);
    assert_others_are_served(&daemon, &mut another, 0);
}

#[test]
fn an_answer_that_is_not_taken_is_cut() {
    let world = World::new();
    let daemon = started(&world, &conf(&world).set("limits.send_timeout", "1s"));
    // The stream's window is closed, that of the connection, or both are open and nothing is read.
    let mut closed = Client::silent(Conn::tcp(daemon.addr).unwrap());
    closed.send(&[PREFACE, &settings(&[(4, 0)]), &get_path(1, "/large/1000000")].concat());
    let mut half = Client::connect(daemon.addr);
    half.send(&get_path(1, "/large/1000000"));
    let mut another = Client::connect(daemon.addr);
    assert_others_are_served(&daemon, &mut another, 0);
    for client in [&mut closed, &mut half] {
        assert!(matches!(client.answer(1), Err(Stopped::Reset(_))), "{:?}", client.told);
        // The connection goes on: a head needs no window.
        client.send(&headers(3, ALONE, &plain("HEAD", &[])));
        assert_eq!(client.answer(3).expect("it goes on").status(), 200);
    }
    wait_until("nothing is under way", || daemon.log(), || (under_way(&daemon) == 0).then_some(()));
}

#[test]
fn a_client_that_reads_nothing_of_many_answers_holds_little() {
    let world = World::new();
    let daemon = started(&world, &conf(&world).set("limits.send_timeout", "1s"));
    let mut another = Client::connect(daemon.addr);
    let before = memory(&daemon, "VmRSS:");
    let mut client = Client::silent(Conn::from_tcp(TcpStream::connect(daemon.addr).unwrap()).unwrap());
    let asked = (0..100).map(|nth| get_path(stream(nth), "/large/2000000")).collect::<Vec<_>>().concat();
    let open = [PREFACE, &settings(&[(4, MOST)]), &window(0, MOST - 65_535)].concat();
    client.send(&[open, asked].concat());
    wait_until("some are under way", || daemon.log(), || (metric(&daemon, "inflightMax") > 1).then_some(()));
    assert_others_are_served(&daemon, &mut another, 0);
    wait_until("all are cut", || daemon.log(), || (under_way(&daemon) == 0).then_some(()));
    // A frame of no known kind goes through as long as the connection is open.
    let is_closed = || client.try_send(&frame(0x77, 0, 0, &[])).err();
    wait_until("the connection is cut", || daemon.log(), is_closed);
    // All of it would be 200 MB.
    let most = memory(&daemon, "VmHWM:") - before;
    assert!(most < 32 << 10, "{most} KiB");
    assert_others_are_served(&daemon, &mut another, 1);
}

#[test]
fn the_connection_s_window_comes_back_whatever_becomes_of_a_body() {
    let world = World::new();
    let daemon = started(&world, &conf(&world).set("proxy.max_body", "10KB"));
    let mut client = Client::connect(daemon.addr);
    let (mut room, mut body) = (65_535, 0);
    let part = vec![b'x'; 16_000];
    for nth in 0..200 {
        let number = stream(nth);
        let path = ["/early", "/drop", "/x"][nth as usize % 3];
        let mut fields = plain("POST", &[]);
        fields[3].1 = path;
        let more =
            [("x", " y"), ("content-length", "5"), ("content-length", "16000"), ("x", "y"), ("te", "gzip")];
        fields.push(more[nth as usize % more.len()]);
        client.send(&headers(number, END_HEADERS, &fields));
        while room < part.len() {
            let came = client.next().unwrap_or_else(|| panic!("after {body} bytes: {:?}", client.told));
            if came.kind == WINDOW_UPDATE && came.stream == 0 {
                room += came.number(0) as usize;
            }
        }
        let end = if nth % 2 == 0 { END } else { 0 };
        client.send(&data(number, end, &part));
        if end == 0 {
            client.send(&reset(number, CANCEL));
        }
        (room, body) = (room - part.len(), body + part.len());
    }
    client.settle();
    assert_eq!(client.ask(stream(200), "/").expect("it goes on").status(), 200);
}

#[test]
fn a_body_that_nobody_takes_has_a_stream_s_window() {
    let world = World::new();
    let daemon = started(
        &world,
        &conf(&world).set("upstream.max_connections", 1).set("proxy.trusted", vec!["127.0.0.1"]),
    );
    let mut client = Client::connect(daemon.addr);
    let held = format!("/hold?file={}", world.path("go").display());
    client.send(&get_path(1, &held));
    client.settle();
    wait_until("it is under way", || daemon.log(), || (under_way(&daemon) == 1).then_some(()));
    // It waits for a connection to the app; 160,000 bytes are more than its window of 128 KiB.
    client.send(&[post(3, &[]), data(3, 0, &[b'x'; 16_000]).repeat(10)].concat());
    assert_eq!(client.answer(3).unwrap_err(), Stopped::Reset(FLOW_CONTROL_ERROR));
    world.touch("go");
    assert_eq!(client.answer(1).expect("it goes on").status(), 200);
}

#[test]
fn a_stream_that_is_answered_before_its_body_s_end_is_done() {
    let world = World::new();
    let daemon = started(&world, &conf(&world).set("proxy.max_body", "10KB").set("proxy.max_streams", 10));
    let mut client = Client::connect(daemon.addr);
    let long = [("content-length", "20000")];
    for (nth, (path, more, status)) in [
        ("/early", &[][..], 413),
        ("/x", &[("x", " y")], 400),
        ("/x", &long, 413),
        ("/garbage", &[], 502),
        ("/__portok/none", &[("host", "b")], 400),
    ]
    .into_iter()
    .cycle()
    .take(60)
    .enumerate()
    {
        let number = stream(nth as u32);
        let mut fields = plain("POST", more);
        fields[3].1 = path;
        client.send(&headers(number, END_HEADERS, &fields));
        assert_eq!(client.answer(number).expect(path).status(), status, "{path}");
        // What was under way when the answer came disturbs nobody.
        client.send(&data(number, 0, b"late"));
    }
    assert_eq!(client.ask(stream(60), "/").expect("it goes on").status(), 200);
    assert!(!client.late);
}
