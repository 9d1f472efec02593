//! What WebSockets send passes byte for byte, whatever it is: a list of cases by paragraph of RFC
//! 6455, to the app and back, over HTTP/1.1 plain and encrypted and over HTTP/2 (RFC 8441), at once
//! and byte by byte. Portok keeps to no rule of theirs: that is for both ends.
//!
//! `real/autobahn.rs` runs Autobahn's suite, which has a Python of its own.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::harness::http::find;
use crate::harness::tls::{Authority, Terms};
use crate::harness::{Conn, World};
use crate::http2::frames::{Client, DATA, END, END_HEADERS, HEADERS, RST_STREAM, data, headers, window};
use crate::listeners::free;

/// The first byte of a frame: that it is the last of its message, and what it is (5.2).
const FIN: u8 = 0x80;
const MORE: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// How much is sent before it is back: less than any window of HTTP/2.
const PIECE: usize = 16 * 1024;

/// How many bytes come one by one, where they do.
const ONE_BY_ONE: usize = 40;

/// A masked frame with the shortest length that there is for it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = match payload.len() {
        length @ 0..=125 => vec![0x80 | length as u8],
        length @ 126..=0xFFFF => [&[0xFE], &(length as u16).to_be_bytes()[..]].concat(),
        length => [&[0xFF], &(length as u64).to_be_bytes()[..]].concat(),
    };
    let mask = [0xA5, 0x00, 0xFF, 0x0A];
    let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [&[first], &*length, &mask].into_iter().flatten().copied().chain(masked).collect()
}

fn close(code: u16, reason: &str) -> Vec<u8> {
    frame(FIN | CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

/// The cases: a paragraph of RFC 6455, what it is about, and what a client sends.
fn cases() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut cases = Vec::new();
    let mut case = |paragraph, what: &str, bytes: Vec<u8>| cases.push((paragraph, what.to_owned(), bytes));
    for length in [0, 1, 125, 126, 127, 0xFFFF, 0x1_0000, 200_000] {
        let payload: Vec<_> = (0..length).map(|at| (at % 251) as u8).collect();
        case("5.2", &format!("a length of {length}"), frame(FIN | BINARY, &payload));
    }
    let of_five = [0x12, 0x34, 0x56, 0x78, 0x7A, 0x51, 0x3A, 0x14, 0x7D];
    let long = [&[FIN | TEXT, 0xFE, 0, 5][..], &of_five].concat();
    case("5.2", "a short length in two bytes", long);
    let longer = [&[FIN | TEXT, 0xFF, 0, 0, 0, 0, 0, 0, 0, 5][..], &of_five].concat();
    case("5.2", "a short length in eight bytes", longer);
    let endless = [&[FIN | BINARY, 0xFF, 0x7F][..], &[0xFF; 7], &[0; 4], b"and that is all"].concat();
    case("5.2", "a length of 2^63 - 1 of which little comes", endless);
    let beyond = [&[FIN | BINARY, 0xFF][..], &[0xFF; 8], &[0; 4], b"and that is all"].concat();
    case("5.2", "a length whose first bit is not 0", beyond);
    for bit in [0x40, 0x20, 0x10, 0x70] {
        case("5.2", &format!("reserved bits {bit:#x}"), frame(FIN | bit | TEXT, b"hello"));
    }
    for opcode in (0x3..=0x7).chain(0xB..=0xF) {
        case("5.2", &format!("a reserved opcode {opcode:#x}"), frame(FIN | opcode, b"hello"));
    }
    case("5.3", "a mask of zeros", [&[FIN | TEXT, 0x85, 0, 0, 0, 0][..], b"hello"].concat());
    case("5.3", "no mask", [&[FIN | TEXT, 5][..], b"hello"].concat());
    case("5.3", "a mask and no payload", frame(FIN | TEXT, b""));

    let fragments = [frame(TEXT, b"one "), frame(MORE, b"two "), frame(FIN | MORE, b"three")];
    case("5.4", "a message in three fragments", fragments.concat());
    let empty = [frame(TEXT, b""), frame(MORE, b""), frame(FIN | MORE, b"")];
    case("5.4", "empty fragments", empty.concat());
    let between = |control: &[u8]| [&fragments[0], control, &fragments[1], control, &fragments[2]].concat();
    case("5.4", "pings between fragments", between(&frame(FIN | PING, b"there?")));
    case("5.4", "a close between fragments", between(&close(1000, "")));
    case("5.4", "another message between fragments", between(&frame(FIN | BINARY, b"x")));
    case("5.4", "a fragment of no message", frame(FIN | MORE, b"whose?"));
    case("5.4", "a message that does not go on", frame(TEXT, b"and"));
    case(
        "5.4",
        "a thousand fragments of a byte",
        [frame(TEXT, b""), frame(MORE, b"x").repeat(1000)].concat(),
    );

    case("5.5", "a ping in fragments", [frame(PING, b"a"), frame(FIN | MORE, b"b")].concat());
    case("5.5", "a ping of 126 bytes", frame(FIN | PING, &[b'x'; 126]));
    for code in [0, 999, 1000, 1001, 1004, 1005, 1006, 1007, 1012, 1015, 1016, 2999, 3000, 4999, 5000, 65535]
    {
        case("5.5.1", &format!("a close with {code}"), close(code, "reason"));
    }
    case("5.5.1", "a close with nothing", frame(FIN | CLOSE, b""));
    case("5.5.1", "a close with one byte", frame(FIN | CLOSE, &[3]));
    case("5.5.1", "a close with a reason of 123 bytes", close(1000, &"x".repeat(123)));
    case("5.5.1", "a close whose reason is no UTF-8", frame(FIN | CLOSE, &[0x03, 0xE8, 0xCE, 0xBA, 0xE1]));
    case("5.5.1", "a message after a close", [close(1000, ""), frame(FIN | TEXT, b"still here")].concat());
    case("5.5.1", "two closes", [close(1000, ""), close(1001, "")].concat());
    case("5.5.2", "a ping with nothing", frame(FIN | PING, b""));
    case("5.5.2", "a ping of 125 bytes", frame(FIN | PING, &[0xFE; 125]));
    case("5.5.2", "ten pings", frame(FIN | PING, b"there?").repeat(10));
    case("5.5.3", "a pong that nobody asked for", frame(FIN | PONG, b"here!"));
    case("5.6", "a text of every character's length", frame(FIN | TEXT, "aé€𝄞".as_bytes()));
    case(
        "5.6",
        "a text cut in a character",
        [frame(TEXT, &[0xE2, 0x82]), frame(FIN | MORE, &[0xAC])].concat(),
    );
    case("8.1", "a text that is no UTF-8", frame(FIN | TEXT, &[0xC0, 0xAF, 0xED, 0xA0, 0x80, 0xFF]));
    case("1.5", "two messages in one piece", frame(FIN | TEXT, b"hello").repeat(2));
    case("5.2", "half of a head", vec![FIN | TEXT, 0xFE]);
    case("5.2", "no frames at all", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec());
    case("7.1.1", "an end with nothing before it", Vec::new());
    cases
}

/// An app that sends back what it gets until its client ends, and keeps it by the request's path.
struct Echo {
    addr: SocketAddr,
    got: Arc<Mutex<HashMap<String, Vec<u8>>>>,
}

impl Echo {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let echo = Self { addr: listener.local_addr().unwrap(), got: Arc::default() };
        let got = Arc::clone(&echo.got);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let got = Arc::clone(&got);
                // A client that went away is seen by the test.
                std::thread::spawn(move || serve(stream, &got));
            }
        });
        echo
    }
}

fn serve(mut stream: TcpStream, got: &Mutex<HashMap<String, Vec<u8>>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut bytes, mut part) = (Vec::new(), [0; 64 * 1024]);
    let end = loop {
        if let Some(end) = find(&bytes, b"\r\n\r\n") {
            break end + 4;
        }
        match stream.read(&mut part)? {
            0 => return Ok(()),
            count => bytes.extend(&part[..count]),
        }
    };
    let early = bytes.split_off(end);
    let head = String::from_utf8(bytes).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let Some(key) = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")) else {
        return stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    };
    let proof = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let proof = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, proof.as_bytes()));
    let switching = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket";
    stream.write_all(format!("{switching}\r\nsec-websocket-accept: {proof}\r\n\r\n").as_bytes())?;
    let mut all = early.clone();
    stream.write_all(&early)?;
    loop {
        match stream.read(&mut part)? {
            0 => break,
            count => {
                all.extend(&part[..count]);
                stream.write_all(&part[..count])?;
            }
        }
    }
    got.lock().unwrap().insert(path, all);
    stream.shutdown(Shutdown::Write)
}

/// A client's side of a tunnel.
enum Tunnel {
    Http1(Conn),
    /// On the first stream, of which these bytes came, and whether it has ended.
    Http2(Client, Vec<u8>, bool),
}

/// The ways to a tunnel.
#[derive(Debug, Clone, Copy)]
enum Way {
    Plain,
    Encrypted,
    Http2,
}

impl Tunnel {
    fn open(way: Way, path: &str, [plain, encrypted]: [SocketAddr; 2], terms: &Terms) -> Self {
        let mut conn = match way {
            Way::Plain => Conn::tcp(plain).unwrap(),
            Way::Encrypted => terms.connect(encrypted, "a.test").unwrap(),
            Way::Http2 => {
                let mut client = Client::connect(plain);
                let first = [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http")];
                let fields = [&first[..], &[(":authority", "a.test"), (":path", path)]].concat();
                client.send(&headers(1, END_HEADERS, &fields));
                let status = client.until(HEADERS).expect("an answer").fields[0].1.clone();
                assert_eq!(status, "200", "{path}");
                return Self::Http2(client, Vec::new(), false);
            }
        };
        let fields = [
            ("host", "a.test"),
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "x"),
        ];
        conn.request("GET", path, &fields, None).unwrap().expect(101);
        Self::Http1(conn)
    }

    fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Http1(conn) => conn.send(bytes).unwrap(),
            Self::Http2(client, ..) => client.send(&data(1, 0, bytes)),
        }
    }

    /// So many bytes; fewer where it ends before.
    fn receive(&mut self, length: usize) -> Vec<u8> {
        match self {
            Self::Http1(conn) => conn.exactly(length).unwrap_or_else(|error| error.to_string().into_bytes()),
            Self::Http2(client, came, ended) => {
                while came.len() < length && !*ended {
                    let frame = client.next().expect("the connection goes on");
                    assert_ne!(frame.kind, RST_STREAM, "{frame:?}");
                    if frame.kind == DATA {
                        *ended = frame.flags & END != 0;
                        if let Ok(count @ 1..) = u32::try_from(frame.payload.len()) {
                            client.send(&[window(0, count), window(1, count)].concat());
                        }
                        came.extend(frame.payload);
                    }
                }
                came.drain(..length.min(came.len())).collect()
            }
        }
    }

    /// Ends its side, and returns what still comes.
    fn finish(mut self) -> Vec<u8> {
        match &mut self {
            Self::Http1(conn) => {
                conn.finish_sending().unwrap();
                conn.rest().unwrap()
            }
            Self::Http2(client, ..) => {
                client.send(&data(1, END, &[]));
                self.receive(usize::MAX)
            }
        }
    }
}

#[test]
fn whatever_websockets_send_passes_byte_for_byte() {
    let (world, authority, echo) = (World::new(), Authority::new(), Echo::start());
    let listeners @ [plain, encrypted] = free();
    std::fs::create_dir_all(world.path("certs")).unwrap();
    authority.issue(&["a.test"]).put(&world.path("certs"), "a");
    let conf = world
        .conf()
        .set("app.target", i64::from(echo.addr.port()))
        .set("listen", plain.to_string())
        .set("tls.listen", encrypted.to_string())
        .set("tls.cert_dir", world.path("certs").display().to_string())
        .set("tls.redirect", false);
    let daemon = world.start(&conf);
    daemon.wait_until("the app is healthy", |status| status.live.is_some());
    let terms = authority.terms();
    let cases = cases();
    for (number, (paragraph, what, bytes)) in cases.iter().enumerate() {
        for way in [Way::Plain, Way::Encrypted, Way::Http2] {
            for one_by_one in [0, ONE_BY_ONE] {
                let name =
                    format!("RFC 6455, {paragraph}: {what}, {way:?}, {one_by_one} bytes by themselves");
                let path = format!("/{number}/{way:?}/{one_by_one}");
                let mut tunnel = Tunnel::open(way, &path, listeners, &terms);
                let (single, rest) = bytes.split_at(one_by_one.min(bytes.len()));
                // None waits for the next one.
                for piece in single.chunks(1).chain(rest.chunks(PIECE)) {
                    tunnel.send(piece);
                    assert!(tunnel.receive(piece.len()) == piece, "{name}: it does not come back");
                }
                assert_eq!(tunnel.finish(), b"", "{name}");
                assert!(echo.got.lock().unwrap()[&path] == *bytes, "{name}: the app got something else");
            }
        }
    }
    println!("{} cases", cases.len());
    daemon.terminate();
}
