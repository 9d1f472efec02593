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
///
/// All values share the memory of `head`: copied one by one they were a tenth of a gRPC call.
pub(in crate::proxy) fn request(head: &Bytes) -> Option<Request<()>> {
    let mut ends = memchr::memchr_iter(b'\n', head);
    let first = &head[..ends.next()?];
    let mut words = first.trim_ascii_end().split(|&byte| byte == b' ');
    let method = Method::from_bytes(words.next()?).ok()?;
    let target = PathAndQuery::from_maybe_shared(head.slice_ref(words.next()?)).ok()?;
    let mut fields = HeaderMap::with_capacity(ends.clone().count());
    let (mut authority, mut begin) = (None, first.len() + 1);
    for end in ends {
        let line = head[begin..end].strip_suffix(b"\r").unwrap_or(&head[begin..end]);
        begin = end + 1;
        if line.is_empty() {
            break;
        }
        let at = memchr::memchr(b':', line)?;
        let (name, value) = (&line[..at], line[at + 1..].trim_ascii());
        match Kind::of(name) {
            Kind::Host => authority = Some(Authority::from_maybe_shared(head.slice_ref(value)).ok()?),
            // All others of a connection have no place in HTTP/2.
            Kind::Te if value == b"trailers" => {
                fields.insert(header::TE, HeaderValue::from_static("trailers"));
            }
            kind if kind.is_hop_by_hop() => {}
            kind => {
                fields.append(
                    name_of(name, kind)?,
                    HeaderValue::from_maybe_shared(head.slice_ref(value)).ok()?,
                );
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

/// The fields that portok adds to every request.
static OWN: [HeaderName; 4] = [
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-host"),
];

/// A field's name. Those of [`OWN`] need no memory.
fn name_of(name: &[u8], kind: Kind) -> Option<HeaderName> {
    let own = OWN.iter().find(|own| kind == Kind::Forwarded && own.as_str().as_bytes() == name);
    own.cloned().or_else(|| HeaderName::from_bytes(name).ok())
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
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let first = lengths.next();
    let told = first.and_then(|length| decimal(length.as_bytes()));
    // h2 has seen to it that all lines say the same.
    if let (Some(length), Some(_)) = (first.cloned(), lengths.next()) {
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
