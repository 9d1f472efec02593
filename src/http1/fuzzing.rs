//! What holds for any bytes that this codec is given. hyper's client judges it: hyper reads in the
//! same way what this codec accepts. For tests and the fuzz targets.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::chunked::{Chunked, Piece};
use super::head::{self, Fields, Framing, Head, Parsed};
use super::host::{compared, is_host};
use super::target::RequestTarget;

/// How many fields an answer may have here.
const MOST: usize = 256;

/// An answer's head is read alike in pieces of any size, and as hyper reads it.
pub(crate) fn answer_heads(bytes: &[u8]) {
    let Some((&size, bytes)) = bytes.split_first() else { return };
    let whole = head_of([bytes]);
    assert_eq!(head_of(bytes.chunks(1 + usize::from(size % 64))), whole);
    if let Some(read) = own(bytes)
        && read.0 != StatusCode::SWITCHING_PROTOCOLS
        && let Ok(runtime) = tokio::runtime::Builder::new_current_thread().build()
    {
        assert_eq!(Some(read), runtime.block_on(hypers(bytes)));
    }
}

/// A body in chunks is read alike in pieces of any size, and what is wrong stays wrong.
pub(crate) fn chunks(bytes: &[u8]) {
    let Some((&size, bytes)) = bytes.split_first() else { return };
    let whole = body_of([bytes]);
    let pieces = body_of(bytes.chunks(1 + usize::from(size % 64)));
    assert_eq!(pieces.is_err(), whole.is_err());
    if whole.is_ok() {
        assert_eq!(pieces, whole);
    }
}

/// What a target names is a host and the bytes that go on; a host has one form to be compared in.
pub(crate) fn hosts(bytes: &[u8]) {
    for options in [false, true] {
        let Some(RequestTarget { authority, path }) = RequestTarget::of(bytes, options) else { continue };
        assert!(!path.contains(&b'#'));
        match authority {
            None => assert_eq!(path, bytes),
            Some(host) => {
                assert!(is_host(host));
                let rest = [host, if path == b"*" { b"" } else { path }].concat();
                assert!(bytes.ends_with(&rest));
            }
        }
    }
    if is_host(bytes) {
        let form = compared(bytes);
        assert!(!form.iter().any(u8::is_ascii_uppercase));
        assert_eq!(compared(&bytes.to_ascii_uppercase()), form);
        assert!(form.is_empty() || is_host(&form));
    }
}

/// A head as text, and what is left; `None`: more is needed.
fn head_of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<(String, Vec<u8>)>, ()> {
    let (mut buf, mut map, mut got) = (BytesMut::new(), HeaderMap::new(), None::<Head>);
    for part in parts {
        buf.extend_from_slice(part);
        while got.is_none() && !buf.is_empty() {
            match head::parse(&mut buf, false, MOST, &mut Fields::Map(&mut map)).map_err(drop)? {
                Parsed::Partial => break,
                Parsed::Interim => (),
                Parsed::Head(head) => got = Some(head),
            }
        }
    }
    Ok(got.map(|head| (format!("{head:?}"), buf.to_vec())))
}

/// A body, its trailers, and what is left.
type Read = (Vec<u8>, HeaderMap, Vec<u8>);

/// Reads a body; `None`: more is needed.
fn body_of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<Read>, ()> {
    let (mut state, mut buf) = (Chunked::Size, BytesMut::new());
    let (mut body, mut trailers, mut over) = (Vec::new(), HeaderMap::new(), false);
    for part in parts {
        buf.extend_from_slice(part);
        while !over {
            match state.decode(&mut buf) {
                Ok(Piece::Partial) => break,
                Ok(Piece::Data(data)) => body.extend_from_slice(&data),
                Ok(Piece::Trailers(map)) => (trailers, over) = (map, true),
                Ok(Piece::End) => over = true,
                Err(first) => {
                    assert_eq!(state.decode(&mut buf), Err(first), "it comes again");
                    return Err(());
                }
            }
        }
    }
    Ok(over.then(|| (body, trailers, buf.to_vec())))
}

/// Status and body of an answer that is whole; `None` when this codec does not accept it.
pub(super) fn own(bytes: &[u8]) -> Option<(StatusCode, Vec<u8>)> {
    let (mut buf, mut map) = (BytesMut::from(bytes), HeaderMap::new());
    let head = loop {
        match head::parse(&mut buf, false, MOST, &mut Fields::Map(&mut map)).ok()? {
            Parsed::Partial => return None,
            Parsed::Interim => (),
            Parsed::Head(head) => break head,
        }
    };
    let mut body = Vec::new();
    match head.framing {
        Framing::None => (),
        Framing::Length(length) => body.extend_from_slice(buf.get(..usize::try_from(length).ok()?)?),
        Framing::Eof => body.extend_from_slice(&buf),
        Framing::Chunked => {
            let mut chunked = Chunked::Size;
            loop {
                match chunked.decode(&mut buf).ok()? {
                    Piece::Partial => return None,
                    Piece::Data(data) => body.extend_from_slice(&data),
                    Piece::Trailers(_) | Piece::End => break,
                }
            }
        }
    }
    Some((head.status, body))
}

/// The same as hyper sees it.
pub(super) async fn hypers(bytes: &[u8]) -> Option<(StatusCode, Vec<u8>)> {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let handshake = http1::Builder::new().max_headers(MOST).handshake(TokioIo::new(near));
    let (mut send, connection) = handshake.await.ok()?;
    let talk = async {
        let response = send.send_request(Request::new(Empty::<Bytes>::new())).await.ok()?;
        let status = response.status();
        Some((status, response.into_body().collect().await.ok()?.to_bytes().to_vec()))
    };
    let app = async {
        let mut request = [0; 1024];
        let mut read = 0;
        while !request[..read].ends_with(b"\r\n\r\n") {
            match far.read(&mut request[read..]).await {
                Ok(count @ 1..) => read += count,
                _ => return,
            }
        }
        // hyper may have heard enough before it has read all.
        let _ = far.write_all(bytes).await;
        let _ = far.shutdown().await;
        poll_fn(|_| std::task::Poll::<()>::Pending).await;
    };
    tokio::select! {
        seen = async { tokio::join!(talk, async { drop(connection.await) }).0 } => seen,
        () = app => None,
    }
}
