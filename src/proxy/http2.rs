//! HTTP/2 towards clients (RFC 9113): one connection, many requests at a time.
//!
//! hyper speaks the protocol. Each of its streams becomes a request as HTTP/1.1 has it
//! ([`request`]) and takes the way of one, with a task and a state of its own ([`streams`]). Below
//! hyper the frames are counted as they pass ([`wire`]), so that a client that only keeps portok
//! busy is sent away ([`flood`]).
//!
//! State: the connection's task owns all of it. When the task ends, or is dropped, hyper's part of
//! the connection goes with it, and the streams learn of that and end. A polite close says GOAWAY
//! and waits for the streams that have begun.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use self::streams::{Executor, Streams};
use self::wire::{Left, Watch, Wire};
use super::connection::ClientConnection;
use super::stream::{self, ClientStream};
use super::worker::Worker;

mod flood;
mod grpc;
mod request;
mod streams;
mod websocket;
mod wire;

/// What a client begins with that knows beforehand that HTTP/2 is spoken (RFC 9113, 3.4), as far as
/// it looks like a head of HTTP/1.1.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// How much of the bodies of one request, and of all requests of a connection, may come before
/// somebody takes it.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = 512 << 10;

/// How much of an answer is kept for a client that does not take it, beside the part that the app
/// sent last.
const SEND_BUFFER: usize = 32 << 10;

/// How many streams may be reset before anybody looked at them; what [`flood`] allows.
const RESETS_AT_ONCE: usize = 1000;

/// How long it may take to tell a client why it is sent away.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Whether a connection that has begun with these bytes speaks HTTP/2.
pub(super) fn is_begun_by(early: &[u8]) -> bool {
    early.starts_with(PREFACE)
}

/// Serves the connection until it ends. `early`: what was read of it already.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    client: &Rc<ClientConnection>,
    stream: Box<dyn ClientStream>,
    early: Vec<u8>,
) {
    client.multiplex();
    let watch = Rc::new(Watch::new(client.clone()));
    let (wire, left) = Wire::new(stream, early, watch.clone());
    drive(worker, client, wire, &watch).await;
    if let Some(Left { mut stream, last_words }) = left.take() {
        if let Some(code) = watch.sent_away() {
            tracing::debug!(peer = %client.peer, code, "a client of HTTP/2 is sent away");
        }
        // What does not go out in time is left.
        let said = tokio::time::timeout(LAST_WORDS, stream.write_all(&last_words)).await;
        if said.is_ok_and(|said| said.is_ok()) {
            stream::linger(&mut stream).await;
        }
    }
}

/// Runs hyper over the connection until it ends, is cut, or its client is sent away.
async fn drive(worker: &Rc<Worker>, client: &Rc<ClientConnection>, wire: Wire, watch: &Rc<Watch>) {
    let streams = Rc::new(Streams::new(worker, client, watch));
    let mut builder = http2::Builder::new(Executor(streams.clone()));
    {
        let known = worker.here.look();
        let proxy = &known.settings.config.proxy;
        builder
            .max_concurrent_streams(proxy.max_streams)
            .max_header_list_size(u32::try_from(proxy.max_header_size).unwrap_or(u32::MAX))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_pending_accept_reset_streams(RESETS_AT_ONCE);
        if websocket::is_allowed(&proxy.upgrades) {
            builder.enable_connect_protocol();
        }
    }
    let service = service_fn(|request| streams.begin(request));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(wire), service));
    let mut told = false;
    poll_fn(|cx| {
        client.watch(cx.waker());
        watch.begin_turn();
        loop {
            if client.is_cut() {
                return Poll::Ready(());
            }
            let polled = connection.as_mut().poll(cx);
            if watch.sends_away() {
                return Poll::Ready(());
            }
            if let Poll::Ready(ended) = polled {
                match ended {
                    Ok(()) => watch.is_done(told),
                    Err(_) => watch.leave(),
                }
                return Poll::Ready(());
            }
            if told || !client.is_to_close() {
                return Poll::Pending;
            }
            told = true;
            connection.as_mut().graceful_shutdown();
        }
    })
    .await
}
