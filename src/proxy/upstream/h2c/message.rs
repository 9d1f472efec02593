//! Heads between HTTP/1.1 and HTTP/2 (RFC 9113, 8.2 and 8.3). Pure.
//!
//! What an app is sent is written as for HTTP/1.1, by the rules that hold for every app, and said
//! again here in HTTP/2's way. What it answers becomes the head that an app of HTTP/1.1 would have
//! sent.

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version, header, response};

use crate::http1::fields::{Kind, decimal};
use crate::http1::head::{Framing, Head, Invalid};

/// The request that `head` says, as [`crate::proxy::headers::write_head`] has written it. `None`:
/// HTTP/2 has no way to say it, because its target is no URI.
pub(in crate::proxy) fn request(head: &[u8]) -> Option<Request<()>> {
    let mut lines = head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut words = lines.next()?.split(|&byte| byte == b' ');
    let method = Method::from_bytes(words.next()?).ok()?;
    let target = PathAndQuery::from_maybe_shared(Bytes::copy_from_slice(words.next()?)).ok()?;
    let mut fields = HeaderMap::new();
    let mut authority = None;
    for line in lines.take_while(|line| !line.is_empty()) {
        let at = line.iter().position(|&byte| byte == b':')?;
        let (name, value) = (&line[..at], line[at + 1..].trim_ascii());
        match Kind::of(name) {
            Kind::Host => authority = Some(Authority::try_from(value).ok()?),
            // All others of a connection have no place in HTTP/2.
            Kind::Te if value == b"trailers" => {
                fields.insert(header::TE, HeaderValue::from_static("trailers"));
            }
            kind if kind.is_hop_by_hop() => {}
            _ => {
                fields.append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
            }
        }
    }
    let mut uri = http::uri::Parts::default();
    (uri.scheme, uri.authority, uri.path_and_query) = (Some(Scheme::HTTP), authority, Some(target));
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from_parts(uri).ok()?;
    *request.headers_mut() = fields;
    Some(request)
}

/// The head of an answer. `to_head`: it answers a `HEAD` request. `is_whole`: there is no body.
/// `most`: how many fields it may have.
pub(super) fn head(
    parts: response::Parts,
    to_head: bool,
    is_whole: bool,
    most: usize,
) -> Result<Head, Invalid> {
    let response::Parts { status, mut headers, .. } = parts;
    if headers.len() > most {
        return Err(Invalid("the head has too many fields"));
    }
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Invalid("HTTP/2 switches to no other protocol"));
    }
    // h2 has seen to it that its lines say the same.
    let length = headers.get(header::CONTENT_LENGTH).cloned();
    let told = length.as_ref().and_then(|length| decimal(length.as_bytes()));
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, length);
    }
    strip(&mut headers);
    let framing = match told {
        _ if to_head || is_whole || matches!(status.as_u16(), 204 | 304) => Framing::None,
        Some(length) => Framing::Length(length),
        None => Framing::Eof,
    };
    if status == StatusCode::NO_CONTENT {
        headers.remove(header::CONTENT_LENGTH);
    }
    let dated = headers.contains_key(header::DATE);
    Ok(Head { status, reason: None, headers, framing, keep_alive: true, dated, upgrade: None })
}

/// Takes off what concerns one connection only. h2 refuses most of it.
fn strip(headers: &mut HeaderMap) {
    let concerns_one = |name: &&HeaderName| Kind::of(name.as_str().as_bytes()).is_hop_by_hop();
    let names: Vec<_> = headers.keys().filter(concerns_one).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}
