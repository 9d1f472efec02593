//! WebSockets over HTTP/2 (RFC 8441) that are none: the app refuses, or answers something else, and
//! what the client sent before it knew that reaches nobody.

use super::frames::*;
use crate::corpus::case::text;
use crate::corpus::recorder::{TOLD, Told};
use crate::corpus::stage::Stage;
use crate::harness::World;

/// A handshake for this path, with more fields.
fn connect(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let first = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", path),
    ];
    headers(stream, END_HEADERS, &[&first, more].concat())
}

#[test]
fn bytes_before_the_handshake_s_end_reach_no_app() {
    let world = World::new();
    let mut stage = Stage::start(&world);
    let smuggled = b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let switching = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n";
    let wrong = format!("{switching}sec-websocket-accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n");
    let none = format!("{switching}\r\n");
    let other = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    for (nth, (answer, status)) in [
        ("HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno", 403),
        ("HTTP/1.1 302 Found\r\nlocation: /b\r\ncontent-length: 0\r\n\r\n", 302),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 502),
        ("HTTP/1.1 204 No Content\r\n\r\n", 502),
        (&*wrong, 502),
        (&*none, 502),
        (other, 502),
        ("HTTP/1.1 0\r\n\r\n", 502),
    ]
    .into_iter()
    .enumerate()
    {
        let parts = vec![answer.as_bytes().to_vec()];
        stage.recorder.tell(Told { parts, ..Told::default() });
        let mut client = Client::connect(stage.daemon.addr);
        let keys = [("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="), ("sec-websocket-key", "x")];
        client.send(&[connect(1, TOLD, &keys[..nth % 3]), data(1, 0, smuggled)].concat());
        let told = client.answer(1);
        assert_eq!(told.as_ref().map(super::frames::Told::status), Ok(status), "{answer:?}");
        assert_eq!(client.ask(3, "/x").expect("it goes on").status(), 200, "{answer:?}");
        let (events, _) = stage.ask_as_another().unwrap();
        let seen: Vec<_> = stage.whole(events).unwrap().iter().map(|(_, bytes)| text(bytes)).collect();
        assert_eq!(seen.len(), 2, "{answer:?}: {seen:#?}");
        assert!(seen[0].starts_with("GET /case HTTP/1.1\r\nhost: a\r\n"), "{seen:#?}");
        for line in ["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13"] {
            assert_eq!(seen[0].matches(&format!("\r\n{line}\r\n")).count(), 1, "{line}: {seen:#?}");
        }
        assert_eq!(seen[0].matches("sec-websocket-key").count(), 1, "{seen:#?}");
        assert!(!seen[0].contains("dGhlIHNhbXBsZSBub25jZQ=="), "{seen:#?}");
    }
}

#[test]
fn handshakes_have_no_length_and_no_fields_of_a_connection() {
    let world = World::new();
    let mut stage = Stage::start(&world);
    for field in [("upgrade", "websocket"), ("connection", "upgrade"), ("transfer-encoding", "chunked")] {
        let mut client = Client::connect(stage.daemon.addr);
        client.send(&connect(1, "/x", &[field]));
        assert_eq!(client.answer(1).unwrap_err(), Stopped::Reset(PROTOCOL_ERROR), "{field:?}");
        assert_eq!(client.ask(3, "/x").expect("it goes on").status(), 200, "{field:?}");
    }
    let mut client = Client::connect(stage.daemon.addr);
    client.send(&[connect(1, "/x", &[("content-length", "5")]), data(1, 0, b"hello")].concat());
    assert_eq!(client.answer(1).unwrap_err(), Stopped::Ended(Some(PROTOCOL_ERROR)));
    let (events, _) = stage.ask_as_another().unwrap();
    let seen = stage.whole(events).unwrap();
    assert!(
        seen.iter().all(|(_, bytes)| bytes.starts_with(b"GET /x HTTP/1.1\r\nhost: a\r\nx-forw")),
        "{seen:?}"
    );
}
