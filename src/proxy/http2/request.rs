//! A request of HTTP/2 as HTTP/1.1 would have it (RFC 9113, 8.3 and 8.2; RFC 9110, 7.8): what the
//! judge judges, and what the app gets. Pure.
//!
//! What hyper refuses is refused already: fields of the connection, names with capital letters,
//! values with line ends, pseudo-fields twice or in the wrong place, a body of another length than
//! `content-length` tells.

use bytes::{BufMut, BytesMut};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use hyper::ext::Protocol;

use super::websocket::{self, Handshake};
use crate::http1::host::compared;

/// What a request is besides its fields.
#[derive(Debug)]
pub(super) struct Translated {
    /// Path and query, or `*`.
    pub(super) target: Vec<u8>,
    /// It asks for a WebSocket.
    pub(super) websocket: Option<Handshake>,
}

/// Makes `parts` those of a request of HTTP/1.1, of at most `most_fields` fields. `has_body`:
/// something follows the head. `websockets`: a client may have one.
pub(super) fn translate(
    parts: &mut Parts,
    has_body: bool,
    most_fields: usize,
    websockets: bool,
) -> Result<Translated, StatusCode> {
    if parts.headers.len() > most_fields {
        return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    if !parts.headers.values().all(is_trimmed) {
        return Err(StatusCode::BAD_REQUEST);
    }
    // hyper lets them be missing or empty in some cases; `CONNECT` alone has none of the two.
    let is_whole = !parts.uri.path().is_empty() && parts.uri.scheme_str() != Some("");
    if !is_whole && (parts.method != Method::CONNECT || parts.extensions.get::<Protocol>().is_some()) {
        return Err(StatusCode::BAD_REQUEST);
    }
    name_host(parts)?;
    name_one_length(&mut parts.headers);
    join_cookies(&mut parts.headers);
    // Whoever waits for 100 goes on by itself after a moment, and hyper does not answer it here.
    parts.headers.remove(header::EXPECT);
    if has_body && !parts.headers.contains_key(header::CONTENT_LENGTH) {
        parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let websocket = match parts.extensions.remove::<Protocol>() {
        None => None,
        Some(protocol) if websockets && websocket::is_it(protocol.as_ref()) => {
            parts.method = Method::GET;
            let handshake = Handshake::new().ok_or(StatusCode::INTERNAL_SERVER_ERROR)?;
            handshake.ask(&mut parts.headers);
            Some(handshake)
        }
        // RFC 9220, 3, says it of the same request over HTTP/3.
        Some(_) => return Err(StatusCode::NOT_IMPLEMENTED),
    };
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let target = if target.is_empty() { "/" } else { target };
    Ok(Translated { target: target.into(), websocket })
}

/// Whether a value neither begins nor ends with white space (RFC 9113, 8.2.1).
fn is_trimmed(value: &HeaderValue) -> bool {
    let is_white = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let value = value.as_bytes();
    !is_white(value.first()) && !is_white(value.last())
}

/// Writes `Host` as `:authority` says (RFC 9113, 8.3.1). A request that names two is for none.
fn name_host(parts: &mut Parts) -> Result<(), StatusCode> {
    let Some(authority) = parts.uri.authority() else { return Ok(()) };
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let differs = hosts.next().is_some_and(|host| {
        let whole = |text: &[u8]| (compared(text).into_owned(), port(text).map(<[u8]>::to_vec));
        whole(host.as_bytes()) != whole(authority.as_str().as_bytes())
    });
    if differs || hosts.next().is_some() {
        return Err(StatusCode::BAD_REQUEST);
    }
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| StatusCode::BAD_REQUEST)?;
    parts.headers.insert(header::HOST, host);
    Ok(())
}

/// Leaves one line of several that tell the same length; others have been refused.
fn name_one_length(headers: &mut HeaderMap) {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    if let (Some(first), Some(_)) = (lengths.next(), lengths.next()) {
        let first = first.clone();
        headers.insert(header::CONTENT_LENGTH, first);
    }
}

/// What follows the last colon of a host, if that is a port.
fn port(host: &[u8]) -> Option<&[u8]> {
    let colon = host.iter().rposition(|&byte| byte == b':')?;
    let port = &host[colon + 1..];
    port.iter().all(u8::is_ascii_digit).then_some(port)
}

/// Makes one line of all `cookie` lines, which a client may have taken apart (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (cookies.next(), cookies.next()) else { return };
    let mut line = BytesMut::from(first.as_bytes());
    for cookie in std::iter::once(second).chain(cookies) {
        line.put_slice(b"; ");
        line.put_slice(cookie.as_bytes());
    }
    // Parts of values with `; ` between them are a value.
    if let Ok(line) = HeaderValue::from_maybe_shared(line.freeze()) {
        headers.insert(header::COOKIE, line);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(uri: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::get(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn translated(parts: &mut Parts) -> Result<Translated, StatusCode> {
        translate(parts, false, 100, true)
    }

    #[test]
    fn the_authority_is_the_host_and_two_hosts_are_none() {
        let mut asked = parts("https://app.test/a?b=1", &[]);
        assert_eq!(translated(&mut asked).unwrap().target, b"/a?b=1");
        assert_eq!(asked.headers[header::HOST], "app.test");
        for (host, fits) in [
            ("app.test:8443", true),
            ("APP.test:8443", true),
            ("app.test", false),
            ("app.test:1", false),
            ("other.test:8443", false),
        ] {
            let mut asked = parts("https://app.test:8443/", &[("host", host)]);
            assert_eq!(translated(&mut asked).is_ok(), fits, "{host}");
        }
        let twice = [("host", "app.test"), ("host", "app.test")];
        assert_eq!(translated(&mut parts("https://app.test/", &twice)).unwrap_err(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn a_path_is_there_and_a_length_once() {
        let fields = [("host", "a"), ("content-length", "5"), ("content-length", "5")];
        let mut asked = parts("/", &fields);
        translated(&mut asked).unwrap();
        assert_eq!(asked.headers.get_all(header::CONTENT_LENGTH).iter().count(), 1);
        asked.uri = http::Uri::from_parts(http::uri::Parts::default()).unwrap();
        assert_eq!(translated(&mut asked).unwrap_err(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn cookies_become_one_line() {
        let mut asked = parts("https://app.test/", &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")]);
        translated(&mut asked).unwrap();
        let cookies: Vec<_> = asked.headers.get_all(header::COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2"]);
    }

    #[test]
    fn a_body_without_a_length_comes_in_chunks() {
        let fields = [("content-length", "3"), ("expect", "100-continue")];
        for (fields, chunked) in [(&fields[..], false), (&fields[1..], true)] {
            let mut asked = parts("https://app.test/", fields);
            translate(&mut asked, true, 100, true).unwrap();
            assert_eq!(asked.headers.contains_key(header::TRANSFER_ENCODING), chunked);
            assert!(!asked.headers.contains_key(header::EXPECT));
        }
    }

    #[test]
    fn too_many_fields_and_white_space_around_values_are_refused() {
        let refused = |fields: &[(&str, &str)], most| {
            translate(&mut parts("https://app.test/", fields), false, most, true).unwrap_err()
        };
        assert_eq!(refused(&[("a", "1"), ("b", "2")], 1), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        for value in [" x", "x ", "\tx"] {
            assert_eq!(refused(&[("a", value)], 9), StatusCode::BAD_REQUEST);
        }
    }

    #[test]
    fn a_websocket_is_asked_for_as_http_1_1_does_and_other_protocols_are_unknown() {
        let ask = |protocol: &'static str, websockets| {
            let mut asked = parts("https://app.test/chat", &[]);
            asked.method = Method::CONNECT;
            asked.extensions.insert(Protocol::from_static(protocol));
            let outcome = translate(&mut asked, false, 100, websockets);
            (outcome.map(|translated| translated.websocket.is_some()), asked)
        };
        let (outcome, asked) = ask("websocket", true);
        assert_eq!((outcome, asked.method), (Ok(true), Method::GET));
        assert_eq!(asked.headers[header::UPGRADE], "websocket");
        assert_eq!(asked.headers[header::CONNECTION], "upgrade");
        assert_eq!(ask("websocket", false).0, Err(StatusCode::NOT_IMPLEMENTED));
        assert_eq!(ask("connect-udp", true).0, Err(StatusCode::NOT_IMPLEMENTED));
    }
}
