//! The rules of the protocol one by one: each entry names the paragraph that it comes from.

use super::case::{Gets, case, play};
use super::frames::*;
use Gets::{Ends, IsClosed, Status};

/// What the app sees of the plain requests of [`frames`](super::frames).
pub(super) const GET: &str = "GET /x HTTP/1.1\r\nhost: a\r\n<fwd a>\r\n";
pub(super) const POST: &str = "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n<fwd a>\r\n";

/// A plain request whose block begins with these bytes.
fn before(stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(HEADERS, ALONE, stream, &[bytes, &block(&plain("GET", &[]))].concat())
}

/// A plain request whose block ends with these bytes.
fn behind(stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(HEADERS, ALONE, stream, &[&block(&plain("GET", &[])), bytes].concat())
}

#[test]
fn connections_begin_with_a_preface_and_settings() {
    let empty = settings(&[]);
    play(vec![
        case("RFC 9113 3.4", "preface and settings", &[&get(1)], Status(200)).app(GET),
        case(
            "RFC 9113 3.4",
            "a preface with another end",
            &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", &empty, &get(1)],
            IsClosed,
        )
        .raw(),
        case("RFC 9113 3.4", "a preface of half", &[b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", &empty], IsClosed)
            .raw(),
        case("RFC 9113 3.4", "a request before the settings", &[PREFACE, &get(1)], Ends(PROTOCOL_ERROR))
            .raw(),
        case(
            "RFC 9113 3.4",
            "a ping before the settings",
            &[PREFACE, &frame(PING, 0, 0, &[0; 8])],
            Ends(PROTOCOL_ERROR),
        )
        .raw(),
        case("RFC 9113 3.4", "the preface twice", &[PREFACE, PREFACE], IsClosed).raw(),
        case(
            "RFC 9113 3.4",
            "an acknowledgement instead of settings",
            &[PREFACE, &frame(SETTINGS, END, 0, &[])],
            Ends(PROTOCOL_ERROR),
        )
        .raw(),
        case("RFC 9113 3.4", "another version", &[b"PRI * HTTP/3.0\r\n\r\nSM\r\n\r\n", &empty], IsClosed)
            .raw(),
        case("RFC 9113 3.4", "a preface with a field", &[b"PRI * HTTP/2.0\r\nhost: a\r\n\r\n"], IsClosed)
            .raw(),
    ]);
}

#[test]
fn frames_have_the_sizes_and_flags_that_they_may_have() {
    let large = vec![0; 16_385];
    let full = vec![b'x'; 16_384];
    let full_post = format!("{POST}{}", "x".repeat(16_384));
    play(vec![
        case(
            "RFC 9113 4.1",
            "a frame of an unknown kind",
            &[&frame(0x77, 0xff, 0, b"?"), &get(1)],
            Status(200),
        )
        .app(GET),
        case("RFC 9113 4.1", "one on an idle stream", &[&frame(0x77, 0xff, 9, b"?"), &get(1)], Status(200))
            .app(GET),
        case(
            "RFC 9113 4.1",
            "unknown flags of a ping",
            &[&frame(PING, 0xfe, 0, &[0; 8]), &get(1)],
            Status(200),
        )
        .app(GET),
        case(
            "RFC 9113 4.1",
            "the reserved bit of a stream",
            &[&headers(0x8000_0001, ALONE, &plain("GET", &[]))],
            Status(200),
        )
        .app(GET),
        case("RFC 9113 4.2", "the largest data", &[&post(1, &[]), &data(1, END, &full)], Status(200))
            .app(&full_post),
        case(
            "RFC 9113 4.2",
            "data that are too large",
            &[&post(1, &[]), &data(1, END, &large)],
            Ends(FRAME_SIZE_ERROR),
        )
        .perhaps(POST),
        case(
            "RFC 9113 4.2",
            "a head that is too large",
            &[&frame(HEADERS, ALONE, 1, &large)],
            Ends(FRAME_SIZE_ERROR),
        ),
        case(
            "RFC 9113 4.2",
            "settings that are too large",
            &[&frame(SETTINGS, 0, 0, &[0; 16_386])],
            Ends(FRAME_SIZE_ERROR),
        ),
        case(
            "RFC 9113 4.2",
            "an unknown frame that is too large",
            &[&frame(0x77, 0, 0, &large)],
            Ends(FRAME_SIZE_ERROR),
        ),
        case(
            "RFC 9113 6.3",
            "a priority of four bytes",
            &[&frame(PRIORITY, 0, 1, &[0; 4])],
            Ends(PROTOCOL_ERROR),
        ),
        case(
            "RFC 9113 6.4",
            "a reset of three bytes",
            &[&post(1, &[]), &frame(RST_STREAM, 0, 1, &[0; 3])],
            Ends(PROTOCOL_ERROR),
        )
        .perhaps(POST),
        case(
            "RFC 9113 6.5",
            "settings of five bytes",
            &[&frame(SETTINGS, 0, 0, &[0; 5])],
            Ends(PROTOCOL_ERROR),
        ),
        case(
            "RFC 9113 6.5",
            "an acknowledgement with settings",
            &[&frame(SETTINGS, END, 0, &[0; 6])],
            Ends(PROTOCOL_ERROR),
        ),
        case("RFC 9113 6.7", "a ping of six bytes", &[&frame(PING, 0, 0, &[0; 6])], Ends(PROTOCOL_ERROR)),
        case("RFC 9113 6.7", "a ping of nine bytes", &[&frame(PING, 0, 0, &[0; 9])], Ends(PROTOCOL_ERROR)),
        case(
            "RFC 9113 6.8",
            "a GOAWAY of seven bytes",
            &[&frame(GOAWAY, 0, 0, &[0; 7])],
            Ends(PROTOCOL_ERROR),
        ),
        case(
            "RFC 9113 6.9",
            "a window of three bytes",
            &[&frame(WINDOW_UPDATE, 0, 0, &[0; 3])],
            Ends(PROTOCOL_ERROR),
        ),
        case(
            "RFC 9113 6.9",
            "a window of five bytes",
            &[&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1, 0])],
            Ends(PROTOCOL_ERROR),
        ),
    ]);
}

#[test]
fn header_blocks_are_whole_and_readable() {
    let fields = block(&plain("GET", &[("x", "y")]));
    let (first, rest) = fields.split_at(9);
    let (second, third) = rest.split_at(1);
    let seen = "GET /x HTTP/1.1\r\nhost: a\r\nx: y\r\n<fwd a>\r\n";
    play(vec![
        case(
            "RFC 9113 6.10",
            "in three frames",
            &[
                &frame(HEADERS, END, 1, first),
                &frame(CONTINUATION, 0, 1, second),
                &frame(CONTINUATION, END_HEADERS, 1, third),
            ],
            Status(200),
        )
        .app(seen),
        case(
            "RFC 9113 6.10",
            "one of them empty",
            &[&frame(HEADERS, END, 1, &fields), &frame(CONTINUATION, END_HEADERS, 1, &[])],
            Status(200),
        )
        .app(seen),
        case(
            "RFC 9113 6.10",
            "a ping within",
            &[&frame(HEADERS, END, 1, first), &frame(PING, 0, 0, &[0; 8])],
            Ends(PROTOCOL_ERROR),
        ),
        case(
            "RFC 9113 6.10",
            "an unknown frame within",
            &[&frame(HEADERS, END, 1, first), &frame(0x77, 0, 1, &[])],
            Ends(PROTOCOL_ERROR),
        ),
        case(
            "RFC 9113 6.10",
            "another head within",
            &[&frame(HEADERS, END, 1, first), &get(3)],
            Ends(PROTOCOL_ERROR),
        ),
        case(
            "RFC 9113 6.10",
            "data within",
            &[&frame(HEADERS, 0, 1, first), &data(1, END, b"x")],
            Ends(PROTOCOL_ERROR),
        ),
        case(
            "RFC 9113 6.10",
            "it goes on with another stream",
            &[&frame(HEADERS, END, 1, first), &frame(CONTINUATION, END_HEADERS, 3, rest)],
            Ends(PROTOCOL_ERROR),
        ),
        case(
            "RFC 9113 6.10",
            "it goes on with no stream",
            &[&frame(HEADERS, END, 1, first), &frame(CONTINUATION, END_HEADERS, 0, rest)],
            Ends(PROTOCOL_ERROR),
        ),
        case(
            "RFC 9113 6.10",
            "it goes on although it is whole",
            &[&get(1), &frame(CONTINUATION, END_HEADERS, 1, &[])],
            Ends(PROTOCOL_ERROR),
        )
        .perhaps(GET),
        case(
            "RFC 9113 6.10",
            "it begins with what goes on",
            &[&frame(CONTINUATION, END_HEADERS, 1, &fields)],
            Ends(PROTOCOL_ERROR),
        ),
        case(
            "RFC 9113 4.3",
            "what is read of a refused head counts",
            &[&headers(1, ALONE, &plain("GET", &[("connection", "x")])), &get(3)],
            Status(200),
        )
        .on(3)
        .app(GET),
        case("RFC 7541 2.3.3", "an index beyond the tables", &[&behind(1, &[0xbf])], Ends(PROTOCOL_ERROR)),
        case("RFC 7541 6.1", "the index 0", &[&behind(1, &[0x80])], Ends(PROTOCOL_ERROR)),
        case(
            "RFC 7541 5.1",
            "an integer without end",
            &[&behind(1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01])],
            Ends(PROTOCOL_ERROR),
        ),
        case(
            "RFC 7541 5.2",
            "a string beyond its block",
            &[&behind(1, &[0, 1, b'x', 0x7f, 0xff, 0xff, 0x03, b'y'])],
            Ends(PROTOCOL_ERROR),
        ),
        case(
            "RFC 7541 5.2",
            "a packed string with an end of string",
            &[&behind(1, &[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff])],
            Ends(PROTOCOL_ERROR),
        ),
        case(
            "RFC 7541 5.2",
            "a packed string with padding of zeros",
            &[&behind(1, &[0, 1, b'x', 0x81, 0x00])],
            Ends(PROTOCOL_ERROR),
        ),
        case(
            "RFC 7541 5.2",
            "a packed string with a byte of padding",
            &[&behind(1, &[0, 1, b'x', 0x82, 0x07, 0xff])],
            Ends(PROTOCOL_ERROR),
        ),
        case(
            "RFC 7541 6.3",
            "a table larger than may be",
            &[&before(1, &[0x3f, 0xe2, 0x1f])],
            Ends(PROTOCOL_ERROR),
        ),
        case(
            "RFC 7541 4.2",
            "a table's size behind a field",
            &[&frame(HEADERS, ALONE, 1, &[&*fields, &[0x20]].concat())],
            Ends(PROTOCOL_ERROR),
        ),
        case("RFC 7541 4.2", "a table's size before the fields", &[&before(1, &[0x20])], Status(200))
            .app(GET),
        case(
            "RFC 7541 4.3",
            "an entry that is no longer there",
            &[
                &behind(1, &[0x40, 1, b'x', 1, b'y']),
                &frame(HEADERS, ALONE, 3, &[&[0x20], &*block(&plain("GET", &[])), &[0xbe]].concat()),
            ],
            Ends(PROTOCOL_ERROR),
        )
        .perhaps(seen),
        case(
            "RFC 7541 2.3.2",
            "an entry of another request",
            &[&behind(1, &[0x40, 1, b'x', 1, b'y']), &behind(3, &[0xbe])],
            Status(200),
        )
        .on(3)
        .app(seen)
        .app(seen),
    ]);
}
