//! A plain request is read as hyper and the judge read it. For tests and the fuzz targets.

use std::cell::RefCell;
use std::convert::Infallible;

use bytes::Bytes;
use http::Response;
use http_body::Body as _;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{MOST_FIELDS, Plain};
use crate::http1::fields::tokens;
use crate::proxy::judge::judge;

/// What this file takes for plain, hyper and the judge let pass and read in the same way.
pub(in crate::proxy) fn heads(bytes: &[u8]) {
    if let Some(read) = own(bytes)
        && let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build()
    {
        assert_eq!(Some(read), runtime.block_on(hypers(bytes)));
    }
}

/// Method, target, whether the client closes, and the fields, sorted but for lines of one name.
pub(super) type Read = (String, String, bool, Vec<(String, Vec<u8>)>);

fn fields<'a>(all: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = all.map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec())).collect();
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    all
}

pub(super) fn own(bytes: &[u8]) -> Option<Read> {
    let mut room = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut room);
    let parsed = request.parse(bytes);
    if !matches!(parsed, Ok(httparse::Status::Complete(length)) if length == bytes.len()) {
        return None;
    }
    let plain = Plain::of(&request)?;
    let all = fields(plain.fields.iter().map(|field| (field.name, field.value)));
    Some((plain.method.to_owned(), plain.target.to_owned(), plain.close, all))
}

/// The same as hyper and `forward` see it, when they let it pass.
pub(super) async fn hypers(bytes: &[u8]) -> Option<Read> {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let seen = RefCell::new(None);
    let service = service_fn(async |request: http::Request<Incoming>| {
        let target = bytes.split(|&byte| byte == b' ').nth(1);
        let (request, body) = request.into_parts();
        if judge(&request, target).is_ok() && body.is_end_stream() {
            let (uri, headers) = (&request.uri, &request.headers);
            let options = headers.get_all(http::header::CONNECTION).iter();
            let mut options = options.map(http::HeaderValue::as_bytes).flat_map(tokens);
            let close = options.any(|option| option.eq_ignore_ascii_case(b"close"));
            let all = fields(headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())));
            let target = uri.path_and_query().map_or("", |target| target.as_str());
            seen.replace(Some((request.method.to_string(), target.to_owned(), close, all)));
        }
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    far.write_all(bytes).await.ok()?;
    // It answers in any case.
    tokio::select! {
        _ = http1::Builder::new().serve_connection(TokioIo::new(near), service) => (),
        read = far.read_u8() => assert_eq!(read.ok()?, b'H'),
    }
    seen.into_inner()
}
