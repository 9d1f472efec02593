//! Streams, their padding and priorities, settings and windows: each entry names the paragraph that
//! it comes from.

use super::case::{Gets, case, play};
use super::frames::*;
use super::protocol::{GET, POST};
use Gets::{Ends, Nothing, Reset, Status};

const POST_5: &str = "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n<fwd a>\r\n";
const POST_HELLO: &str = "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n<fwd a>\r\nhello";

#[test]
fn streams_have_states_and_rising_numbers() {
    let closed = [post(1, &[]), reset(1, CANCEL)].concat();
    play(vec![
        case("RFC 9113 5.1", "data on an idle stream", &[&data(1, END, b"x")], Ends(PROTOCOL_ERROR)),
        case("RFC 9113 5.1", "a reset of an idle stream", &[&reset(1, CANCEL)], Ends(PROTOCOL_ERROR)),
        case("RFC 9113 5.1", "a window of an idle stream", &[&window(1, 100)], Ends(PROTOCOL_ERROR)),
        case(
            "RFC 9113 5.1",
            "a priority of an idle stream",
            &[&frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]), &get(1)],
            Status(200),
        )
        .app(GET),
        case("RFC 9113 5.1", "data behind the end", &[&get(1), &data(1, END, b"x")], Ends(PROTOCOL_ERROR))
            .perhaps(GET),
        case("RFC 9113 5.1", "a head behind the end", &[&get(1), &get(1)], Ends(PROTOCOL_ERROR)).perhaps(GET),
        case("RFC 9113 5.1", "data behind a reset", &[&closed, &data(1, END, b"x")], Nothing).perhaps(POST),
        case(
            "RFC 9113 5.1",
            "a head behind a reset",
            &[&closed, &headers(1, ALONE, &[])],
            Ends(PROTOCOL_ERROR),
        )
        .perhaps(POST),
        case("RFC 9113 5.1", "a window behind a reset", &[&closed, &window(1, 5)], Nothing).perhaps(POST),
        case("RFC 9113 5.1", "a reset behind a reset", &[&closed, &reset(1, CANCEL)], Nothing).perhaps(POST),
        case("RFC 9113 5.1.1", "an even number", &[&get(2)], Ends(PROTOCOL_ERROR)),
        case("RFC 9113 5.1.1", "a number below the last", &[&get(5), &get(3)], Ends(PROTOCOL_ERROR))
            .perhaps(GET),
        case("RFC 9113 5.1.1", "numbers that are left out", &[&get(99)], Status(200)).on(99).app(GET),
        case("RFC 9113 5.1.1", "a head on no stream", &[&get(0)], Ends(PROTOCOL_ERROR)),
        case("RFC 9113 6.1", "data on no stream", &[&data(0, END, b"x")], Ends(PROTOCOL_ERROR)),
        case(
            "RFC 9113 6.3",
            "a priority on no stream",
            &[&frame(PRIORITY, 0, 0, &[0; 5])],
            Ends(PROTOCOL_ERROR),
        ),
        case("RFC 9113 6.4", "a reset of no stream", &[&reset(0, CANCEL)], Ends(PROTOCOL_ERROR)),
        case("RFC 9113 6.5", "settings of a stream", &[&frame(SETTINGS, 0, 1, &[])], Ends(PROTOCOL_ERROR)),
        case(
            "RFC 9113 6.6",
            "a promise of a client",
            &[
                &post(1, &[]),
                &frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2], &*block(&plain("GET", &[]))].concat()),
            ],
            Ends(PROTOCOL_ERROR),
        )
        .perhaps(POST),
        case("RFC 9113 6.7", "a ping of a stream", &[&frame(PING, 0, 1, &[0; 8])], Ends(PROTOCOL_ERROR)),
        case("RFC 9113 6.8", "a GOAWAY of a stream", &[&frame(GOAWAY, 0, 1, &[0; 8])], Ends(PROTOCOL_ERROR)),
        case(
            "RFC 9113 6.8",
            "a GOAWAY of the client",
            &[&get(1), &frame(GOAWAY, 0, 0, &[0; 8])],
            Ends(NO_ERROR),
        )
        .perhaps(GET),
    ]);
}

#[test]
fn padding_and_priorities_are_passed_over() {
    let fields = block(&plain("GET", &[]));
    let padded = |length: u8, zeros: usize| [&[length], &*fields, &vec![0; zeros]].concat();
    let prioritized = |on: u8| [&[0, 0, 0, on, 16], &*fields].concat();
    play(vec![
        case(
            "RFC 9113 6.2",
            "a padded head",
            &[&frame(HEADERS, ALONE | PADDED, 1, &padded(7, 7))],
            Status(200),
        )
        .app(GET),
        case(
            "RFC 9113 6.2",
            "more padding than there is",
            &[&frame(HEADERS, ALONE | PADDED, 1, &padded(250, 7))],
            Ends(PROTOCOL_ERROR),
        ),
        case(
            "RFC 9113 6.2",
            "padding without its length",
            &[&frame(HEADERS, ALONE | PADDED, 1, &[])],
            Ends(PROTOCOL_ERROR),
        ),
        case(
            "RFC 9113 6.1",
            "padded data",
            &[&post(1, &[]), &data(1, END | PADDED, b"\x03hello\0\0\0")],
            Status(200),
        )
        .app(POST_HELLO),
        case(
            "RFC 9113 6.1",
            "data that are padding only",
            &[&post(1, &[]), &data(1, PADDED, b"\x03\0\0\0"), &data(1, END, b"hello")],
            Status(200),
        )
        .app(POST_HELLO),
        case(
            "RFC 9113 6.1",
            "padding as long as the data",
            &[&post(1, &[]), &data(1, END | PADDED, b"\x05hell")],
            Ends(PROTOCOL_ERROR),
        )
        .perhaps(POST),
        case(
            "RFC 9113 6.1",
            "padded data without a length",
            &[&post(1, &[]), &data(1, END | PADDED, b"")],
            Ends(PROTOCOL_ERROR),
        )
        .perhaps(POST),
        case(
            "RFC 9113 6.1",
            "padding does not count for content-length",
            &[&post(1, &[("content-length", "5")]), &data(1, END | PADDED, b"\x03hello\0\0\0")],
            Status(200),
        )
        .app(&format!("{POST_5}hello")),
        case(
            "RFC 9113 6.2",
            "a head with a priority",
            &[&frame(HEADERS, ALONE | PRIORITIZED, 1, &prioritized(0))],
            Status(200),
        )
        .app(GET),
        case(
            "RFC 9113 5.3.1",
            "a head that depends on itself",
            &[&frame(HEADERS, ALONE | PRIORITIZED, 1, &prioritized(1))],
            Reset(PROTOCOL_ERROR),
        ),
        case(
            "RFC 9113 5.3.1",
            "a priority that depends on itself",
            &[&frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0]), &get(1)],
            Reset(PROTOCOL_ERROR),
        ),
        case(
            "RFC 9218 7.1",
            "a PRIORITY_UPDATE",
            &[&frame(0x10, 0, 0, b"\0\0\0\x01u=3"), &get(1)],
            Status(200),
        )
        .app(GET),
    ]);
}

#[test]
fn settings_have_values_that_they_may_have() {
    let with = |key: u16, value: u32| [settings(&[(key, value)]), get(1)].concat();
    play(vec![
        case("RFC 9113 6.5.2", "an unknown setting", &[&with(0x77, 7)], Status(200)).app(GET),
        case("RFC 9113 6.5.2", "push neither off nor on", &[&with(2, 2)], Ends(PROTOCOL_ERROR)),
        case("RFC 9113 6.5.2", "a window that is too large", &[&with(4, 0x8000_0000)], Ends(PROTOCOL_ERROR)),
        case("RFC 9113 6.5.2", "a window as large as may be", &[&with(4, 0x7fff_ffff)], Status(200)).app(GET),
        case("RFC 9113 6.5.2", "frames that are too small", &[&with(5, 16_383)], Ends(PROTOCOL_ERROR)),
        case("RFC 9113 6.5.2", "frames that are too large", &[&with(5, 0x0100_0000)], Ends(PROTOCOL_ERROR)),
        case("RFC 9113 6.5.2", "frames as large as may be", &[&with(5, 0x00ff_ffff)], Status(200)).app(GET),
        case("RFC 9113 6.5.2", "no table", &[&with(1, 0)], Status(200)).app(GET),
        case("RFC 9113 6.5.2", "the largest table", &[&with(1, u32::MAX)], Status(200)).app(GET),
        case("RFC 9113 6.5.2", "no streams of the server", &[&with(3, 0)], Status(200)).app(GET),
        case("RFC 8441 3", "CONNECT neither off nor on", &[&with(8, 2)], Ends(PROTOCOL_ERROR)),
        case(
            "RFC 9113 6.5.3",
            "an acknowledgement that nobody asked for",
            &[&frame(SETTINGS, END, 0, &[]).repeat(3), &get(1)],
            Ends(PROTOCOL_ERROR),
        ),
        case("RFC 9113 6.5", "a setting twice", &[&settings(&[(4, 1), (4, 65_535)]), &get(1)], Status(200))
            .app(GET),
    ]);
}

#[test]
fn windows_are_kept_to() {
    let most = 0x7fff_ffff;
    play(vec![
        case("RFC 9113 6.9", "nothing more for the connection", &[&window(0, 0)], Ends(PROTOCOL_ERROR)),
        case(
            "RFC 9113 6.9",
            "nothing more for a stream",
            &[&post(1, &[]), &window(1, 0)],
            Ends(PROTOCOL_ERROR),
        )
        .perhaps(POST),
        case("RFC 9113 6.9.1", "too much for the connection", &[&window(0, most)], Ends(FLOW_CONTROL_ERROR)),
        case(
            "RFC 9113 6.9.1",
            "too much for a stream",
            &[&post(1, &[]), &window(1, most)],
            Reset(FLOW_CONTROL_ERROR),
        )
        .perhaps(POST),
        case(
            "RFC 9113 6.9.2",
            "too much for a stream by settings",
            &[&post(1, &[]), &window(1, most - 65_535), &settings(&[(4, 65_536)])],
            Ends(FLOW_CONTROL_ERROR),
        )
        .perhaps(POST),
        case(
            "RFC 9113 6.9",
            "more for a stream",
            &[&post(1, &[]), &window(1, 1), &data(1, END, b"hello")],
            Status(200),
        )
        .app(POST_HELLO),
    ]);
}
