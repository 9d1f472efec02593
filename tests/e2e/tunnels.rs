//! Tunnels and event streams at the end of a drain, and `portok drain`.

use std::thread;

use serde_json::Value;

use crate::harness::{Conn, Daemon, World, assert_at, live};

/// A close frame with the status 1012, as a server sends it and as a client answers it.
const CLOSE: [u8; 4] = [0x88, 0x02, 0x03, 0xF4];
const ANSWER: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xF4];

const UPGRADE: [(&str, &str); 2] = [("connection", "upgrade"), ("upgrade", "websocket")];

/// A WebSocket whose app has sent its version.
fn websocket(daemon: &Daemon<'_>, version: &str) -> Conn {
    let mut client = daemon.connect();
    client.request("GET", "/frames", &UPGRADE, None).unwrap().expect(101);
    let frame = client.exactly(2 + version.len()).unwrap();
    assert_eq!(&frame[2..], version.as_bytes());
    client
}

/// Waits for the close frame, and answers it.
fn leave(mut client: Conn) {
    assert_eq!(client.exactly(4).unwrap(), CLOSE);
    client.send(&ANSWER).unwrap();
    assert_eq!(client.rest().unwrap(), b"", "nothing follows a close frame");
}

fn drains(daemon: &Daemon<'_>, words: &[&str]) -> Value {
    daemon.portok(&[&["--json", "drain"], words].concat()).ended(0).json()
}

#[test]
fn a_hundred_websockets_leave_before_their_release_is_told_to_stop() {
    let world = World::new();
    let app = world.app("v1");
    let conf = world.conf().app(&app).set("drain.period", "200ms").set("drain.tunnels", "4s");
    let daemon = world.start(&conf);
    let release = live(&daemon.wait_until_serves("v1")).unwrap().to_owned();
    let clients: Vec<_> = (0..100).map(|_| websocket(&daemon, "v1")).collect();
    daemon.deploy(&world.app("v2")).expect(200);
    let clients: Vec<_> = clients.into_iter().map(|client| thread::spawn(|| leave(client))).collect();
    drop(websocket(&daemon, "v2"));
    for client in clients {
        client.join().unwrap();
    }
    daemon.wait_until_stopped(&release);
    let journal = app.journal();
    let told = journal.iter().position(|line| line.starts_with("signal")).expect("it was told to stop");
    let left = |lines: &[String]| lines.iter().filter(|line| *line == "frame 0x88 1012").count();
    assert_eq!((left(&journal[..told]), left(&journal)), (100, 100), "{journal:#?}");
    assert_eq!(app.count("no close frame"), 0);
}

#[test]
fn an_event_stream_ends_whole_when_its_time_is_over() {
    let world = World::new();
    let app = world.app("v1");
    let conf = world.conf().app(&app).set("drain.period", "60s").set("drain.tunnels", "1s");
    let daemon = world.start(&conf);
    daemon.wait_until_serves("v1");
    let mut conn = daemon.connect();
    let path = format!("/sse?file={}", world.path("never").display());
    conn.send(&crate::harness::http::request_bytes("GET", &path, &[], None)).unwrap();
    conn.head().unwrap();
    assert_eq!(conn.chunk().unwrap().unwrap(), b"data: 1\n\n");
    daemon.deploy(&world.app("v2")).expect(200);
    assert_eq!(conn.chunk().unwrap(), None, "the last chunk");
    assert_eq!(conn.request("GET", "/", &[], None).unwrap().version(), "v2", "on the same connection");
    assert_eq!(app.count("signal"), 0, "requests have their own time");
}

#[test]
fn who_is_still_there_is_listed_and_the_end_can_be_changed() {
    let world = World::new();
    let app = world.app("v1");
    let daemon = world.start(&world.conf().app(&app).set("drain.period", "60s").set("drain.early", true));
    let release = live(&daemon.wait_until_serves("v1")).unwrap().to_owned();
    let nothing = drains(&daemon, &[]);
    assert_at(&nothing, "/until", Value::Null);
    daemon.portok(&["drain", "--now"]).ended(5);
    daemon.admin("POST", "/__drain?extend=1x", None).expect(400);
    daemon.admin("POST", "/__drain", None).expect(400);
    daemon.admin("DELETE", "/__drain", None).expect(405);

    let client = websocket(&daemon, "v1");
    daemon.deploy(&world.app("v2")).expect(200);
    let listed = drains(&daemon, &[]);
    assert_at(&listed, "/tunnels/0/path", "/frames");
    assert_at(&listed, "/tunnels/0/peer", "127.0.0.1");
    assert_at(&listed, "/tunnels/0/kind", "websocket");
    assert_at(&listed, "/tunnels/0/bytes", 4);
    assert_at(&listed, "/tunnels/0/release", release.as_str());
    assert_at(&listed, "/inflight", 1);
    let end = |drain: &Value| humantime::parse_rfc3339(drain["until"].as_str().unwrap()).unwrap();
    let later = drains(&daemon, &["--extend", "10m"]);
    let moved = end(&later).duration_since(end(&listed)).unwrap().as_secs();
    assert!((595..=605).contains(&moved), "{moved}");
    let shown = daemon.status().drain_until.unwrap();
    assert_eq!(humantime::parse_rfc3339(&shown).unwrap(), end(&later), "as the status has it");
    let text = daemon.portok(&["drain"]).ended(0).out;
    assert!(text.contains("/frames") && text.contains("websocket"), "{text}");

    let now = drains(&daemon, &["--now"]);
    assert!(end(&now) < end(&listed));
    leave(client);
    daemon.wait_until_stopped(&release);
    assert_eq!(app.count("frame 0x88 1012"), 1);
}
