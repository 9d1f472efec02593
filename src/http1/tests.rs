//! hyper's client judges this codec: hyper reads in the same way what this codec accepts.

use std::future::poll_fn;

use bytes::BytesMut;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::chunked::{Chunked, Piece};
use super::head::{self, Fields, Framing, Parsed};

/// Status and body of an answer that is whole; `None` when this codec does not accept it.
fn own(bytes: &[u8]) -> Option<(StatusCode, Vec<u8>)> {
    let (mut buf, mut map) = (BytesMut::from(bytes), HeaderMap::new());
    let head = loop {
        match head::parse(&mut buf, false, 256, &mut Fields::Map(&mut map)).ok()? {
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
async fn hypers(bytes: &[u8]) -> Option<(StatusCode, Vec<u8>)> {
    let (near, mut far) = tokio::io::duplex(1 << 16);
    let (mut send, connection) = http1::handshake(TokioIo::new(near)).await.ok()?;
    let talk = async {
        let response = send.send_request(Request::new(Empty::<bytes::Bytes>::new())).await.ok()?;
        let status = response.status();
        Some((status, response.into_body().collect().await.ok()?.to_bytes().to_vec()))
    };
    let app = async {
        let mut request = [0; 1024];
        let mut read = 0;
        while !request[..read].ends_with(b"\r\n\r\n") {
            read += far.read(&mut request[read..]).await.unwrap();
        }
        far.write_all(bytes).await.unwrap();
        far.shutdown().await.unwrap();
        poll_fn(|_| std::task::Poll::<()>::Pending).await;
    };
    tokio::select! {
        seen = async { tokio::join!(talk, async { drop(connection.await) }).0 } => seen,
        () = app => None,
    }
}

fn answer() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        3 => Just("HTTP/1.1 200 OK\r\n"),
        1 => Just("HTTP/1.1 404 Not Found\r\n"),
        1 => Just("HTTP/1.1 204 No Content\r\n"),
        1 => Just("HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n"),
        1 => Just("HTTP/1.0 200 OK\r\n"),
    ];
    let field = prop_oneof![
        3 => Just("content-length: 5\r\n"),
        1 => Just("content-length: 4\r\n"),
        1 => Just("content-length: 05\r\n"),
        3 => Just("transfer-encoding: chunked\r\n"),
        1 => Just("transfer-encoding: gzip, chunked\r\n"),
        1 => Just("x: y\r\n"),
        1 => Just("x: y\n"),
        1 => Just("x: y\r\n\tz\r\n"),
    ];
    let body = prop_oneof![
        Just("hello"),
        Just("5\r\nhello\r\n0\r\n\r\n"),
        Just("5;a=b\r\nhello\r\n0\r\nx: y\r\n\r\n"),
        Just("5 \r\nhello\r\n0\r\n\r\n"),
        Just("5\nhello\n0\n\n"),
        Just("5\r\nhello"),
        Just(""),
    ];
    (line, proptest::collection::vec(field, 0..3), body)
        .prop_map(|(line, fields, body)| format!("{line}{}\r\n{body}", fields.concat()).into_bytes())
}

proptest! {
    #[test]
    fn what_is_accepted_is_what_hyper_reads(bytes in answer()) {
        if let Some(read) = own(&bytes) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let theirs = runtime.block_on(hypers(&bytes));
            prop_assert_eq!(Some(read), theirs, "{}", String::from_utf8_lossy(&bytes));
        }
    }
}
