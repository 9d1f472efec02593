//! What makes a request: pseudo-fields, fields, lengths, trailers, CONNECT. Each entry names the
//! paragraph that it comes from.

use super::case::{Gets, asked, case, head, play};
use super::frames::*;
use super::protocol::{GET, POST};
use Gets::{Ends, Reset, Status};

const POST_5: &str = "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n<fwd a>\r\n";
const BAD: Gets = Reset(PROTOCOL_ERROR);
/// The name of a field, its value, or a pseudo-field cannot be read at all, and so may not be kept
/// apart from the state of the compression.
const UNREADABLE: Gets = Ends(PROTOCOL_ERROR);

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const HOST: (&str, &str) = (":authority", "a");
const PATH: (&str, &str) = (":path", "/x");

#[test]
fn pseudo_fields_are_there_once_and_first() {
    play(vec![
        head("RFC 9113 8.3.1", "in another order", &[PATH, HOST, SCHEME, METHOD], Status(200)).app(GET),
        head("RFC 9113 8.3.1", "no method", &[SCHEME, HOST, PATH], BAD),
        head("RFC 9113 8.3.1", "no scheme", &[METHOD, HOST, PATH], BAD),
        head("RFC 9113 8.3.1", "no path", &[METHOD, SCHEME, HOST], BAD),
        head(
            "RFC 9113 8.3.1",
            "no path, and the host as a field",
            &[METHOD, SCHEME, ("host", "a")],
            Status(400),
        ),
        head("RFC 9113 8.3.1", "an empty path", &[METHOD, SCHEME, HOST, (":path", "")], BAD),
        head("RFC 9113 8.3.1", "an empty method", &[(":method", ""), SCHEME, HOST, PATH], UNREADABLE),
        head("RFC 9113 8.3.1", "an empty scheme", &[METHOD, (":scheme", ""), HOST, PATH], Status(400)),
        head("RFC 9113 8.3.1", "an empty authority", &[METHOD, SCHEME, (":authority", ""), PATH], BAD),
        head("RFC 9113 8.3.1", "no authority and no host", &[METHOD, SCHEME, PATH], Status(400)),
        head("RFC 9113 8.3.1", "the host as a field", &[METHOD, SCHEME, PATH, ("host", "a")], Status(200))
            .app(GET),
        head(
            "RFC 9113 8.3.1",
            "both, and the same",
            &[METHOD, SCHEME, PATH, HOST, ("host", "a")],
            Status(200),
        )
        .app(GET),
        head("RFC 9113 8.3", "no field at all", &[], BAD),
        head("RFC 9113 8.3", "the method twice", &[METHOD, METHOD, SCHEME, HOST, PATH], BAD),
        head("RFC 9113 8.3", "the scheme twice", &[METHOD, SCHEME, SCHEME, HOST, PATH], BAD),
        head("RFC 9113 8.3", "the authority twice", &[METHOD, SCHEME, HOST, HOST, PATH], BAD),
        head("RFC 9113 8.3", "the path twice", &[METHOD, SCHEME, HOST, PATH, (":path", "/y")], BAD),
        head("RFC 9113 8.3", "an unknown one", &[METHOD, SCHEME, HOST, PATH, (":x", "y")], UNREADABLE),
        head("RFC 9113 8.3", "one of an answer", &[METHOD, SCHEME, HOST, PATH, (":status", "200")], BAD),
        head("RFC 9113 8.3", "behind a field", &[METHOD, SCHEME, HOST, ("x", "y"), PATH], BAD),
        head("RFC 9113 8.3", "a method of any name", &[(":method", "BREW"), SCHEME, HOST, PATH], Status(200))
            .app("BREW /x HTTP/1.1\r\nhost: a\r\n<fwd a>\r\n"),
        head("RFC 9113 8.3", "in capital letters", &[(":METHOD", "GET"), SCHEME, HOST, PATH], UNREADABLE),
    ]);
}

#[test]
fn fields_are_those_of_a_message_and_not_of_a_connection() {
    play(vec![
        asked("RFC 9113 8.2.1", "a name in capital letters", &[("X", "y")], UNREADABLE),
        asked("RFC 9113 8.2.1", "a capital letter in a name", &[("x-Y", "z")], UNREADABLE),
        asked("RFC 9113 8.2.1", "an empty name", &[("", "y")], UNREADABLE),
        asked("RFC 9113 8.2.1", "a byte above ASCII in a name", &[("x\u{fc}", "y")], UNREADABLE),
        asked("RFC 9113 8.2.1", "white space before a value", &[("x", " y")], Status(400)),
        asked("RFC 9113 8.2.1", "white space behind a value", &[("x", "y\t")], Status(400)),
        asked("RFC 9113 8.2.1", "white space within a value", &[("x", "y z")], Status(200))
            .app("GET /x HTTP/1.1\r\nhost: a\r\nx: y z\r\n<fwd a>\r\n"),
        asked("RFC 9113 8.2.1", "an empty value", &[("x", "")], Status(200))
            .app("GET /x HTTP/1.1\r\nhost: a\r\nx: \r\n<fwd a>\r\n"),
        asked("RFC 9113 8.2.2", "connection", &[("connection", "close")], BAD),
        asked("RFC 9113 8.2.2", "proxy-connection", &[("proxy-connection", "keep-alive")], BAD),
        asked("RFC 9113 8.2.2", "keep-alive", &[("keep-alive", "timeout=5")], BAD),
        asked("RFC 9113 8.2.2", "transfer-encoding", &[("transfer-encoding", "chunked")], BAD),
        asked("RFC 9113 8.2.2", "upgrade", &[("upgrade", "websocket")], BAD),
        asked("RFC 9113 8.2.2", "te with trailers", &[("te", "trailers")], Status(200))
            .app("GET /x HTTP/1.1\r\nhost: a\r\n<fwd a>te: trailers\r\nconnection: te\r\n\r\n"),
        asked("RFC 9113 8.2.2", "te with something else", &[("te", "trailers, gzip")], BAD),
        asked("RFC 9113 8.2.2", "te twice", &[("te", "trailers"), ("te", "gzip")], BAD),
        asked(
            "RFC 9113 8.2.3",
            "cookies become one line",
            &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")],
            Status(200),
        )
        .app("GET /x HTTP/1.1\r\nhost: a\r\ncookie: a=1; b=2\r\nx: y\r\n<fwd a>\r\n"),
        asked(
            "RFC 9110 5.3",
            "lines of one name keep their order",
            &[("x", "1"), ("y", "2"), ("x", "3")],
            Status(200),
        )
        .app("GET /x HTTP/1.1\r\nhost: a\r\nx: 1\r\nx: 3\r\ny: 2\r\n<fwd a>\r\n"),
        asked("RFC 9110 10.1.1", "expect ends at portok", &[("expect", "100-continue")], Status(200))
            .app(GET),
        asked("RFC 9113 3.1", "http2-settings", &[("http2-settings", "AAMAAABk")], Status(200)).app(GET),
    ]);
}

#[test]
fn bodies_are_as_long_as_their_heads_say() {
    let trailer = |fields: &[(&str, &str)]| headers(1, ALONE, fields);
    let hello = data(1, 0, b"hello");
    let length = |length: &str| post(1, &[("content-length", length)]);
    play(vec![
        case("RFC 9113 8.1.1", "as long as it says", &[&length("5"), &data(1, END, b"hello")], Status(200))
            .app(&format!("{POST_5}hello")),
        case(
            "RFC 9113 8.1.1",
            "in several frames",
            &[&length("5"), &data(1, 0, b"he"), &data(1, 0, b"ll"), &data(1, END, b"o")],
            Status(200),
        )
        .app(&format!("{POST_5}hello")),
        case("RFC 9113 8.1.1", "shorter", &[&length("6"), &data(1, END, b"hello")], BAD)
            .perhaps("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n<fwd a>\r\nhello"),
        case("RFC 9113 8.1.1", "longer", &[&length("4"), &data(1, END, b"hello")], BAD)
            .perhaps("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n<fwd a>\r\nhell"),
        case("RFC 9113 8.1.1", "longer in several frames", &[&length("5"), &hello, &data(1, END, b"!")], BAD)
            .perhaps("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n<fwd a>\r\nhello"),
        case(
            "RFC 9113 8.1.1",
            "a length and no body",
            &[&headers(1, ALONE, &plain("POST", &[("content-length", "5")]))],
            BAD,
        ),
        case(
            "RFC 9113 8.1.1",
            "no length and no body",
            &[&headers(1, ALONE, &plain("GET", &[("content-length", "0")]))],
            Status(200),
        )
        .app("GET /x HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n<fwd a>\r\n"),
        case(
            "RFC 9113 8.1.1",
            "shorter, with a trailer",
            &[&length("6"), &hello, &trailer(&[("x", "y")])],
            BAD,
        )
        .perhaps("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n<fwd a>\r\nhello"),
        case(
            "RFC 9110 8.6",
            "two lengths",
            &[&post(1, &[("content-length", "5"), ("content-length", "6")]), &data(1, END, b"hello")],
            BAD,
        ),
        case(
            "RFC 9110 8.6",
            "one length twice",
            &[&post(1, &[("content-length", "5"), ("content-length", "5")]), &data(1, END, b"hello")],
            Status(200),
        )
        .app(&format!("{POST_5}hello")),
        case("RFC 9110 8.6", "two lengths in a line", &[&length("5, 5"), &data(1, END, b"hello")], BAD),
        case("RFC 9110 8.6", "a length with a sign", &[&length("+5"), &data(1, END, b"hello")], BAD),
        case("RFC 9110 8.6", "a length below zero", &[&length("-5"), &data(1, END, b"hello")], BAD),
        case("RFC 9110 8.6", "a length that is no number", &[&length("five"), &data(1, END, b"hello")], BAD),
        case("RFC 9110 8.6", "an empty length", &[&length(""), &data(1, END, b"hello")], BAD),
        case(
            "RFC 9110 8.6",
            "a length that no number holds",
            &[&length("99999999999999999999"), &data(1, END, b"hello")],
            BAD,
        ),
        case(
            "RFC 9110 8.6",
            "a length with zeros before it",
            &[&length("005"), &data(1, END, b"hello")],
            Status(200),
        )
        .app("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 005\r\n<fwd a>\r\nhello"),
        case("RFC 9113 8.1", "an empty body", &[&post(1, &[]), &data(1, END, b"")], Status(200)).app(POST),
        case(
            "RFC 9113 8.1",
            "a body of empty frames",
            &[&post(1, &[]), &data(1, 0, b"").repeat(9), &data(1, END, b"hello")],
            Status(200),
        )
        .app(&format!("{POST}hello")),
        case("RFC 9113 8.1", "a trailer", &[&post(1, &[]), &hello, &trailer(&[("x", "y")])], Status(200))
            .app(&format!("{POST}hellox: y\r\n")),
        case("RFC 9113 8.1", "an empty trailer", &[&post(1, &[]), &hello, &trailer(&[])], Status(200))
            .app(&format!("{POST}hello")),
        case(
            "RFC 9113 8.1",
            "a trailer without an end",
            &[&post(1, &[]), &hello, &headers(1, END_HEADERS, &[("x", "y")])],
            BAD,
        )
        .perhaps("POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n<fwd a>\r\nhello"),
        // hyper takes them off without a word.
        case(
            "RFC 9113 8.1",
            "a pseudo-field in a trailer",
            &[&post(1, &[]), &hello, &trailer(&[(":path", "/y"), ("x", "y")])],
            Status(200),
        )
        .app(&format!("{POST}hellox: y\r\n")),
        case(
            "RFC 9113 8.1",
            "a name in capital letters in a trailer",
            &[&post(1, &[]), &hello, &trailer(&[("X", "y")])],
            UNREADABLE,
        )
        .perhaps("POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n<fwd a>\r\nhello"),
        case(
            "RFC 9113 8.2.2",
            "a field of the connection in a trailer",
            &[&post(1, &[]), &hello, &trailer(&[("connection", "x")])],
            BAD,
        )
        .perhaps("POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n<fwd a>\r\nhello"),
        case(
            "RFC 9110 6.5.1",
            "a trailer that frames, routes, names the client or is secret",
            &[
                &post(1, &[]),
                &hello,
                &trailer(&[
                    ("content-length", "9"),
                    ("host", "b"),
                    ("x-forwarded-for", "1.1.1.1"),
                    ("authorization", "x"),
                    ("cookie", "x"),
                    ("te", "trailers"),
                    ("ok", "1"),
                ]),
            ],
            Status(200),
        )
        .app(&format!("{POST}hellook: 1\r\n")),
        case("RFC 9113 8.1", "a HEAD", &[&headers(1, ALONE, &plain("HEAD", &[]))], Status(200))
            .app("HEAD /x HTTP/1.1\r\nhost: a\r\n<fwd a>\r\n"),
        case(
            "RFC 9110 9.3.1",
            "a GET with a body",
            &[&headers(1, END_HEADERS, &plain("GET", &[])), &data(1, END, b"hello")],
            Status(200),
        )
        .app("GET /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n<fwd a>\r\nhello"),
        case(
            "RFC 9113 5.1",
            "data behind the end of a body",
            &[&post(1, &[]), &data(1, END, b"hello"), &data(1, END, b"GET / HTTP/1.1\r\n\r\n")],
            Ends(PROTOCOL_ERROR),
        )
        .perhaps("POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n<fwd a>\r\nhello"),
    ]);
}

#[test]
fn connect_makes_no_tunnel_but_for_websockets() {
    let connect = (":method", "CONNECT");
    let socket = (":protocol", "websocket");
    play(vec![
        head("RFC 9113 8.5", "CONNECT", &[connect, (":authority", "a:443")], Status(405)),
        head("RFC 9113 8.5", "CONNECT with a path", &[connect, (":authority", "a:443"), PATH], BAD),
        head("RFC 9113 8.5", "CONNECT with a scheme", &[connect, (":authority", "a:443"), SCHEME], BAD),
        head("RFC 9113 8.5", "CONNECT without an authority", &[connect], Status(405)),
        head("RFC 8441 4", "a protocol without CONNECT", &[METHOD, socket, SCHEME, HOST, PATH], BAD),
        head("RFC 8441 4", "a protocol without a path", &[connect, socket, SCHEME, HOST], BAD),
        head("RFC 8441 4", "a protocol without a scheme", &[connect, socket, HOST, PATH], BAD),
        head("RFC 8441 4", "a protocol without an authority", &[connect, socket, SCHEME, PATH], Status(400)),
        head("RFC 8441 4", "a protocol twice", &[connect, socket, socket, SCHEME, HOST, PATH], BAD),
        head(
            "RFC 8441 4",
            "an unknown protocol",
            &[connect, (":protocol", "connect-udp"), SCHEME, HOST, PATH],
            Status(501),
        ),
        head(
            "RFC 8441 4",
            "an empty protocol",
            &[connect, (":protocol", ""), SCHEME, HOST, PATH],
            Status(501),
        ),
        head(
            "RFC 8441 4",
            "two protocols",
            &[connect, (":protocol", "websocket, h2c"), SCHEME, HOST, PATH],
            Status(501),
        ),
    ]);
}

#[test]
fn heads_that_are_too_large_are_refused() {
    let value = "v".repeat(16_000);
    let large = |times: usize| -> Vec<u8> {
        let name: Vec<_> = (0..times).map(|at| format!("x{at}")).collect();
        let more: Vec<_> = name.iter().map(|name| (&**name, &*value)).collect();
        in_frames(&block(&plain("GET", &more)))
    };
    let many = |count: usize| {
        let names: Vec<_> = (0..count).map(|at| format!("x{at}")).collect();
        let more: Vec<_> = names.iter().map(|name| (&**name, "")).collect();
        in_frames(&block(&plain("GET", &more)))
    };
    // An entry of 4,000 bytes in the table, and then its index over and over.
    let entry = [&[0x40, 1, b'x'][..], &string(&"v".repeat(4000))].concat();
    let bomb = |times: usize| in_frames(&[&*block(&plain("GET", &[])), &*entry, &vec![0xbe; times]].concat());
    play(vec![
        case("RFC 9113 10.5.1", "a head above the limit", &[&large(5)], Status(431)),
        case("RFC 9113 10.5.1", "a head far above the limit", &[&large(20)], Ends(ENHANCE_YOUR_CALM)),
        case("RFC 9113 10.5.1", "too many fields", &[&many(300)], Status(431)),
        case("RFC 9113 10.5.1", "very many fields", &[&many(1500)], Status(431)),
        case("RFC 9113 10.5.1", "a head that grows above the limit", &[&bomb(20)], Status(431)),
        case("RFC 9113 10.5.1", "a head that grows without end", &[&bomb(16_000)], Ends(ENHANCE_YOUR_CALM)),
        case("RFC 9113 10.5.1", "the next one is as any", &[&large(5), &get(3)], Status(200)).on(3).app(GET),
    ]);
}

/// A head in as many frames as it needs.
fn in_frames(block: &[u8]) -> Vec<u8> {
    let mut parts = block.chunks(16_000).peekable();
    let mut out = Vec::new();
    let mut kind = HEADERS;
    while let Some(part) = parts.next() {
        let whole = if parts.peek().is_none() { END_HEADERS } else { 0 };
        let end = if kind == HEADERS { END } else { 0 };
        out.extend(frame(kind, whole | end, 1, part));
        kind = CONTINUATION;
    }
    out
}
