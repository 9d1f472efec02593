//! What a client of HTTP/2 may write that would be something else in HTTP/1.1: ends of lines and
//! spaces where a line is made of it, framing, hosts that differ, names of others. Either the app
//! sees exactly one request that is right, or nothing.

use super::case::{Gets, asked, case, head, play};
use super::frames::*;
use crate::corpus::stage::Stage;
use crate::harness::World;
use Gets::{Ends, Nothing, Reset, Status};

const BAD: Gets = Reset(PROTOCOL_ERROR);
/// What cannot be a name, a value or a method at all ends the connection.
const UNREADABLE: Gets = Ends(PROTOCOL_ERROR);

const GET: &str = "GET /x HTTP/1.1\r\nhost: a\r\n<fwd a>\r\n";
const POST: &str = "POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n<fwd a>\r\n";

/// The pseudo-fields of a plain request, but these of them.
fn but<'a>(others: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let of = |(name, value)| *others.iter().find(|(other, _)| *other == name).unwrap_or(&(name, value));
    [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/x")].map(of).into()
}

#[test]
fn no_line_ends_in_names_and_values() {
    let hidden = "y\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    play(vec![
        asked(
            "RFC 9113 8.2.1; H2.TE",
            "a line end in a value",
            &[("x", "y\r\ntransfer-encoding: chunked")],
            UNREADABLE,
        ),
        asked("RFC 9113 8.2.1; request splitting", "a request in a value", &[("x", hidden)], UNREADABLE),
        asked("RFC 9113 8.2.1", "a line feed in a value", &[("x", "y\nz: 1")], UNREADABLE),
        asked("RFC 9113 8.2.1", "a carriage return in a value", &[("x", "y\rz")], UNREADABLE),
        asked("RFC 9113 8.2.1", "a NUL in a value", &[("x", "y\0z")], UNREADABLE),
        asked("RFC 9110 5.5", "a control byte in a value", &[("x", "y\u{1}z")], UNREADABLE),
        asked("RFC 9110 5.5", "DEL in a value", &[("x", "y\u{7f}z")], UNREADABLE),
        asked("RFC 9113 8.2.1", "a line end at the end of a value", &[("x", "y\r\n")], UNREADABLE),
        asked("RFC 9110 5.5", "a tab and bytes above ASCII in a value", &[("x", "y\t\u{fc}")], Status(200))
            .app("GET /x HTTP/1.1\r\nhost: a\r\nx: y\t\u{fc}\r\n<fwd a>\r\n"),
        asked(
            "RFC 9113 8.2.1; H2.TE",
            "a line end in a name",
            &[("x: y\r\ntransfer-encoding", "chunked")],
            UNREADABLE,
        ),
        asked("RFC 9113 8.2.1", "a colon in a name", &[("x:y", "z")], UNREADABLE),
        asked(
            "RFC 9113 8.2.1",
            "a colon at the end of a name",
            &[("transfer-encoding:", "chunked")],
            UNREADABLE,
        ),
        asked("RFC 9113 8.2.1", "a space in a name", &[("x y", "z")], UNREADABLE),
        asked("RFC 9113 8.2.1", "a space behind a name", &[("transfer-encoding ", "chunked")], UNREADABLE),
        asked("RFC 9113 8.2.1", "a tab before a name", &[("\ttransfer-encoding", "chunked")], UNREADABLE),
        asked("RFC 9113 8.2.1", "a NUL in a name", &[("x\0", "z")], UNREADABLE),
        asked(
            "RFC 9113 8.2.1",
            "a line end in a cookie",
            &[("cookie", "a=1"), ("cookie", "b=2\r\nx: y")],
            UNREADABLE,
        ),
        case(
            "RFC 9113 8.2.1",
            "a line end in a trailer",
            &[
                &post(1, &[]),
                &data(1, 0, b"hello"),
                &headers(1, ALONE, &[("x", "y\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a")]),
            ],
            UNREADABLE,
        )
        .perhaps("POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n<fwd a>\r\nhello"),
    ]);
}

#[test]
fn no_other_request_in_the_request_s_line() {
    let method = |method| but(&[(":method", method)]);
    let path = |path| but(&[(":path", path)]);
    play(vec![
        head(
            "RFC 9113 8.3.1; H2.X",
            "a line in the method",
            &method("GET / HTTP/1.1\r\nhost: b\r\n\r\nGET"),
            UNREADABLE,
        ),
        head("RFC 9110 9.1", "a space in the method", &method("GET /admin"), UNREADABLE),
        head("RFC 9110 9.1", "a line feed behind the method", &method("GET\n"), UNREADABLE),
        head("RFC 9110 9.1", "a tab in the method", &method("G\tET"), UNREADABLE),
        head("RFC 9110 9.1", "a colon in the method", &method("GET:"), UNREADABLE),
        head("RFC 9110 9.1", "a byte above ASCII in the method", &method("G\u{cb}T"), UNREADABLE),
        head("RFC 9110 9.1", "a method in small letters is another", &method("get"), Status(200))
            .app("get /x HTTP/1.1\r\nhost: a\r\n<fwd a>\r\n"),
        head("RFC 9113 3.4", "the method of the preface", &method("PRI"), Status(200))
            .app("PRI /x HTTP/1.1\r\nhost: a\r\n<fwd a>\r\n"),
        head(
            "RFC 9113 8.3.1; request splitting",
            "a request in the path",
            &path("/x HTTP/1.1\r\nhost: a\r\n\r\nGET /smuggled"),
            BAD,
        ),
        head("RFC 9112 3", "a space in the path", &path("/x y"), BAD),
        head("RFC 9112 3", "a version in the path", &path("/x HTTP/1.0"), BAD),
        head("RFC 9112 3", "a line feed in the path", &path("/x\ny"), BAD),
        head("RFC 9112 3", "a tab in the path", &path("/x\ty"), BAD),
        head("RFC 9112 3", "a NUL in the path", &path("/x\0"), BAD),
        head("RFC 9112 3", "DEL in the query", &path("/x?\u{7f}"), BAD),
        head("RFC 9112 3", "a space in the query", &path("/x?y z"), BAD),
        head("RFC 9113 8.3.1", "a path without a slash", &path("x"), BAD),
        head("RFC 9113 8.3.1", "a path with a scheme and a host", &path("http://b/x"), BAD),
        head("RFC 9113 8.3.1", "a path that is a host", &path("b:80"), BAD),
        head("RFC 9113 8.3.1", "a query without a path", &path("?x"), Status(400)),
        head("RFC 9113 8.3.1", "an asterisk without OPTIONS", &path("*"), Status(400)),
        head(
            "RFC 9113 8.3.1",
            "OPTIONS for the whole host",
            &but(&[(":method", "OPTIONS"), (":path", "*")]),
            Status(200),
        )
        .app("OPTIONS * HTTP/1.1\r\nhost: a\r\n<fwd a>\r\n"),
        head("RFC 9110 4.2.3", "two slashes are no host", &path("//b/x"), Status(200))
            .app("GET //b/x HTTP/1.1\r\nhost: a\r\n<fwd a>\r\n"),
        head(
            "SPEC 5",
            "escapes and dots pass as they are",
            &path("/%2e%2e/../;a=%0d%0a?b=%00&&/?c"),
            Status(200),
        )
        .app("GET /%2e%2e/../;a=%0d%0a?b=%00&&/?c HTTP/1.1\r\nhost: a\r\n<fwd a>\r\n"),
        // hyper takes a fragment off; the app never sees one.
        head("RFC 9110 4.2.5", "a fragment", &path("/x#y"), Status(200)).app(GET),
        head("RFC 9110 4.2.5", "a fragment alone", &path("#y"), Status(200))
            .app("GET / HTTP/1.1\r\nhost: a\r\n<fwd a>\r\n"),
        head("RFC 9113 8.3.1", "a line end in the scheme", &but(&[(":scheme", "http\r\nx: y")]), BAD),
        head("RFC 9113 8.3.1", "a URL as the scheme", &but(&[(":scheme", "http://b/y?")]), BAD),
        head(
            "RFC 9113 8.3.1",
            "a scheme says nothing about the client",
            &but(&[(":scheme", "https")]),
            Status(200),
        )
        .app(GET),
    ]);
}

#[test]
fn one_host_and_no_other() {
    let host = |host| but(&[(":authority", host)]);
    let both = |host| [&but(&[])[..], &[("host", host)]].concat();
    let seen = |host: &str| format!("GET /x HTTP/1.1\r\nhost: {host}\r\n<fwd {host}>\r\n");
    play(vec![
        head("RFC 9113 8.3.1", "a user", &host("user@a"), Status(400)),
        head("RFC 9113 8.3.1", "a user and a password", &host("user:b@a"), Status(400)),
        head("RFC 9113 8.3.1", "a path behind the host", &host("a/y"), BAD),
        head("RFC 9113 8.3.1", "a query behind the host", &host("a?y"), BAD),
        head("RFC 9113 8.3.1", "a line end behind the host", &host("a\r\nx: y"), BAD),
        head("RFC 9113 8.3.1", "a space in the host", &host("a b"), BAD),
        head("RFC 9113 8.3.1", "a comma in the host", &host("a,b"), Status(200)).app(&seen("a,b")),
        head("RFC 3986 3.2.3", "a port", &host("a:8080"), Status(200)).app(&seen("a:8080")),
        head("RFC 3986 3.2.3", "a port that none is", &host("a:65536"), Status(400)),
        head("RFC 3986 3.2.3", "a port of letters", &host("a:b"), Status(400)),
        head("RFC 3986 3.2.3", "two ports", &host("a:80:81"), BAD),
        head("RFC 3986 3.2.3", "a port with a sign", &host("a:+80"), Status(400)),
        head("RFC 3986 3.2.2", "an address of IPv6", &host("[::1]:80"), Status(200)).app(&seen("[::1]:80")),
        head("RFC 3986 3.2.2", "brackets around nothing", &host("[]"), Status(400)),
        head("RFC 3986 3.2.2", "a bracket that is not closed", &host("[::1"), BAD),
        head("RFC 9113 8.3.1", "a host of another name", &both("b"), Status(400)),
        head("RFC 9113 8.3.1", "a host with another port", &both("a:81"), Status(400)),
        head("RFC 9113 8.3.1", "the same in capital letters", &both("A"), Status(200)).app(GET),
        head("RFC 9113 8.3.1", "two hosts", &[&both("a")[..], &[("host", "b")]].concat(), Status(400)),
        head(
            "RFC 9113 8.3.1",
            "two hosts that are the same",
            &[&both("a")[..], &[("host", "a")]].concat(),
            Status(400),
        ),
        head("RFC 9113 8.3.1", "an empty host beside it", &both(""), Status(400)),
        head(
            "RFC 9112 3.2",
            "an empty host alone",
            &[&but(&[])[..2], &[(":path", "/x"), ("host", "")]].concat(),
            Status(400),
        ),
        head(
            "RFC 9112 3.2",
            "two hosts as fields",
            &[&but(&[])[..2], &[(":path", "/x"), ("host", "a"), ("host", "a")]].concat(),
            Status(400),
        ),
        head(
            "RFC 9112 3.2",
            "a user in a host as a field",
            &[&but(&[])[..2], &[(":path", "/x"), ("host", "user@a")]].concat(),
            Status(400),
        ),
    ]);
}

#[test]
fn no_other_framing_than_that_of_the_frames() {
    let smuggled = b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let text = String::from_utf8_lossy(smuggled);
    let chunks = [b"0\r\n\r\n", &smuggled[..]].concat();
    let length = |length: &str| post(1, &[("content-length", length)]);
    play(vec![
        case("H2.CL", "a length of nothing before a request", &[&length("0"), &data(1, END, smuggled)], BAD).perhaps("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n<fwd a>\r\n"),
        case("H2.CL", "a length of a part of it", &[&length("10"), &data(1, END, smuggled)], BAD).perhaps("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n<fwd a>\r\nGET /smugg"),
        case("H2.CL", "a length on a GET", &[&headers(1, END_HEADERS, &plain("GET", &[("content-length", "0")])), &data(1, END, smuggled)], BAD).perhaps("GET /x HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n<fwd a>\r\n"),
        case("H2.TE", "chunks that the head announces", &[&post(1, &[("transfer-encoding", "chunked")]), &data(1, END, &chunks)], BAD),
        case("H2.TE", "chunks under a name that looks alike", &[&post(1, &[("transfer_encoding", "chunked")]), &data(1, END, &chunks)], Status(200)).app(&format!("POST /x HTTP/1.1\r\nhost: a\r\ntransfer_encoding: chunked\r\ntransfer-encoding: chunked\r\n<fwd a>\r\n0\r\n\r\n{text}")),
        case("H2.0", "a body like a last chunk is a body", &[&post(1, &[]), &data(1, END, &chunks)], Status(200)).app(&format!("{POST}0\r\n\r\n{text}")),
        case("H2.0", "a body like a request is a body", &[&post(1, &[]), &data(1, END, smuggled)], Status(200)).app(&format!("{POST}{text}")),
        case("H2.0", "the body of a GET", &[&headers(1, END_HEADERS, &plain("GET", &[])), &data(1, END, smuggled)], Status(200)).app(&format!("GET /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n<fwd a>\r\n{text}")),
        case("H2.0", "the body of a HEAD", &[&headers(1, END_HEADERS, &plain("HEAD", &[])), &data(1, END, smuggled)], Status(200)).app(&format!("HEAD /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n<fwd a>\r\n{text}")),
        case("RFC 9113 8.1.1", "a body that breaks off", &[&length("100"), &data(1, 0, smuggled), &reset(1, CANCEL)], Nothing).perhaps("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n<fwd a>\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"),
        case("RFC 9112 7.1", "chunks that break off", &[&post(1, &[]), &data(1, 0, smuggled), &reset(1, CANCEL)], Nothing).perhaps("POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n<fwd a>\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"),
        case("RFC 9113 5.1.2", "two bodies by turns", &[&post(1, &[]), &post(3, &[]), &data(1, 0, b"on"), &data(3, 0, b"t"), &data(1, END, b"e")], Status(200)).app(&format!("{POST}one")).perhaps("POST /x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n<fwd a>\r\nt"),
        asked("RFC 9110 7.6.1", "a field of a proxy ends at portok", &[("proxy-connection", "x")], BAD),
        asked("RFC 9110 7.8", "an upgrade", &[("upgrade", "h2c"), ("http2-settings", "AAMAAABk")], BAD),
        asked("RFC 9110 11.7", "what is said to proxies", &[("proxy-authorization", "Basic eDp5")], Status(200)).app("GET /x HTTP/1.1\r\nhost: a\r\nproxy-authorization: Basic eDp5\r\n<fwd a>\r\n"),
        asked("RFC 9110 14.2", "ranges pass", &[("range", "bytes=0-1")], Status(200)).app("GET /x HTTP/1.1\r\nhost: a\r\nrange: bytes=0-1\r\n<fwd a>\r\n"),
    ]);
}

#[test]
fn a_stranger_says_nothing_about_itself_or_others() {
    let cookies: Vec<_> = (0..200).map(|_| ("cookie", "a=1")).collect();
    let joined = format!("GET /x HTTP/1.1\r\nhost: a\r\ncookie: a=1{}\r\n<fwd a>\r\n", "; a=1".repeat(199));
    play(vec![
        asked("SPEC 5", "who it forwards for", &[("x-forwarded-for", "10.0.0.1"), ("x-forwarded-proto", "https"), ("x-forwarded-port", "443"), ("x-forwarded-host", "b")], Status(200)).app(GET),
        asked("SPEC 5", "the same with other signs", &[("x_forwarded_for", "10.0.0.1"), ("x_forwarded-host", "b")], Status(200)).app(GET),
        asked("SPEC 5", "the same in other fields", &[("forwarded", "for=10.0.0.1"), ("x-real-ip", "10.0.0.1"), ("x_real_ip", "10.0.0.1"), ("x-forwarded-prefix", "/b"), ("x-forwarded-ssl", "on")], Status(200)).app(GET),
        asked("SPEC 5", "the same in a list", &[("x-forwarded-for", "10.0.0.1"), ("x-forwarded-for", "10.0.0.2")], Status(200)).app(GET),
        asked("RFC 9113 8.2.3", "an empty cookie", &[("cookie", ""), ("cookie", "a=1")], Status(200)).app("GET /x HTTP/1.1\r\nhost: a\r\ncookie: ; a=1\r\n<fwd a>\r\n"),
        asked("RFC 9113 8.2.3", "many parts of a cookie", &cookies, Status(200)).app(&joined),
        asked("RFC 9113 8.3", "names like pseudo-fields", &[("method", "POST"), ("path", "/y"), ("authority", "b"), ("scheme", "https")], Status(200)).app("GET /x HTTP/1.1\r\nhost: a\r\nmethod: POST\r\npath: /y\r\nauthority: b\r\nscheme: https\r\n<fwd a>\r\n"),
    ]);
}

#[test]
fn each_answer_goes_to_who_asked_for_it() {
    let world = World::new();
    let stage = Stage::start(&world);
    let mut clients: Vec<_> = (0..4).map(|_| Client::connect(stage.daemon.addr)).collect();
    let path = |client: usize, number: u32| format!("/of/{client}/{number}");
    for number in (1..200).step_by(2) {
        for (at, client) in clients.iter_mut().enumerate() {
            let path = path(at, number);
            let body = if number % 4 == 1 { "" } else { &path };
            let fields = but(&[(":path", &path), (":method", "POST")]);
            client
                .send(&[headers(number, END_HEADERS, &fields), data(number, END, body.as_bytes())].concat());
        }
    }
    for (at, client) in clients.iter_mut().enumerate() {
        let mut bodies = std::collections::BTreeMap::<_, Vec<u8>>::new();
        while bodies.len() < 100 || bodies.values().any(Vec::is_empty) {
            let came = client.until(DATA).expect("it goes on");
            bodies.entry(came.stream).or_default().extend(came.payload);
        }
        for (number, body) in bodies {
            assert_eq!(String::from_utf8_lossy(&body), format!("POST {}", path(at, number)));
        }
    }
}
