//! The task that serves one client connection.
//!
//! A connection begins on the short way of [`plain`] requests, and goes on with hyper from the
//! first request that is not plain. It ends when the client, [`plain`] or hyper is done with it,
//! after an upgrade with the tunnel, or by an order of its thread. A dropped task drops all it
//! holds: the claim is given back, an unfinished connection to the app is closed.
//!
//! The order that matters: before a connection is closed politely the kernel is asked whether a
//! request has arrived, so that the moment in which one can be lost is as short as possible.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use http::{HeaderValue, StatusCode, header};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::address::Scheme;
use super::connection::{ClientConnection, Door};
use super::crowd::Visit;
use super::encrypted::Encrypted;
use super::forward;
use super::http2;
use super::plain;
use super::socket::Socket;
use super::stream::{self, ClientStream};
use super::tunnel::TunnelSlot;
use super::worker::Worker;
use crate::tls::{Choice, HTTP_2};

/// hyper's buffers may grow at least this large, however short a head has to be.
const BUFFER: usize = 128 * 1024;

/// Serves `stream` until it ends. The caller spawns the future on the worker's thread.
///
/// Not an `async fn`: that would keep its arguments twice for as long as the connection lives, as
/// they came and as they are used.
pub(super) fn serve<S: ClientStream>(
    worker: &Rc<Worker>,
    stream: S,
    peer: SocketAddr,
    door: Rc<Door>,
    visit: Visit,
) -> impl Future<Output = ()> + use<S> {
    let listed = worker.list(ClientConnection::new(peer, door, visit));
    async move {
        let (worker, client) = (listed.worker(), listed.client());
        let other = client.uncut(pin!(plain::serve(worker, client, stream))).await.flatten();
        if let Some((stream, early)) = other {
            // In a box of its own: hyper's state is large, and most connections never need it.
            Box::pin(go_on(worker, client, stream, early)).await;
        }
    }
}

/// Agrees with a client on how to encrypt, and serves it then. As [`serve`].
///
/// The handshake is part of the connection's task: it holds nobody else up, and is cut as a head is
/// that does not come.
pub(super) fn greet(
    worker: &Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    door: &Door,
    visit: Visit,
) -> impl Future<Output = ()> + use<> {
    let listed = worker.list(ClientConnection::new(peer, Rc::new(door.of_its_own()), visit));
    async move {
        let (worker, client) = (listed.worker(), listed.client());
        client.greet();
        let face = Arc::clone(worker.face());
        agree(worker, client, async move { face.greet(stream).await }).await;
    }
}

/// Serves a client that `greeting` agrees with.
pub(super) async fn agree(
    worker: &Rc<Worker>,
    client: &Rc<ClientConnection>,
    greeting: impl Future<Output = io::Result<(TlsStream<TcpStream>, Choice)>>,
) {
    // In a box: what a handshake needs is not held by the connection that comes of it.
    let greeting = Box::pin(greeting);
    let Some(Ok((stream, shown))) = client.uncut(pin!(greeting)).await else { return };
    client.greeted(shown);
    let speaks_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP_2);
    let stream = Encrypted::new(stream);
    if speaks_http2 {
        Box::pin(http2::serve(worker, client, Box::new(stream), Vec::new())).await;
    } else {
        attend(worker, client, stream).await;
    }
}

/// Serves an encrypted connection until it ends.
async fn attend(worker: &Rc<Worker>, client: &Rc<ClientConnection>, stream: Encrypted) {
    let other = client.uncut(pin!(plain::serve(worker, client, stream))).await.flatten();
    if let Some((stream, early)) = other {
        Box::pin(go_on(worker, client, stream, early)).await;
    }
}

/// Serves the first request that is not plain, and everything behind it.
async fn go_on<S: ClientStream>(
    worker: &Rc<Worker>,
    client: &Rc<ClientConnection>,
    stream: S,
    early: Vec<u8>,
) {
    if client.scheme() == Scheme::Http
        && http2::is_begun_by(&early)
        && worker.here.look().settings.config.proxy.http2
    {
        return Box::pin(http2::serve(worker, client, Box::new(stream), early)).await;
    }
    let slot = TunnelSlot::default();
    let (socket, left) = Socket::new(stream, &early, client.socket.clone());
    worker.spares.keep_head(early);
    if http(worker, client, socket, &slot).await == Ended::ByUs {
        return;
    }
    if let Some(tunnel) = slot.take() {
        client.become_tunnel(tunnel.service().clone(), tunnel.target());
        worker.tunnelled();
        client.uncut(pin!(tunnel.run::<S>(worker, client.exchange()))).await;
        return;
    }
    if let Some(mut stream) = left.take() {
        stream::linger(&mut stream).await;
    }
}

/// How hyper's part of a connection ended.
#[derive(PartialEq, Eq)]
enum Ended {
    ByItself,
    /// Cut, by an order of the thread.
    ByUs,
}

/// Runs hyper over the connection.
async fn http<S: ClientStream>(
    worker: &Rc<Worker>,
    client: &Rc<ClientConnection>,
    socket: Socket<S>,
    slot: &TunnelSlot,
) -> Ended {
    let mut builder = http1::Builder::new();
    {
        let known = worker.here.look();
        let config = &known.settings.config;
        let head = config.proxy.max_header_size;
        builder.max_header_size(head).max_buf_size(head.max(BUFFER)).keep_alive(!worker.is_draining());
        builder.max_headers(config.limits.headers);
    }
    let service = service_fn(async |request| {
        let mut answer = forward::forward::<S>(worker, client, request, slot).await?;
        let known = worker.here.look();
        client.tell(&known.settings, answer.headers_mut());
        let is_last = worker.is_draining() || client.is_last(&known.settings);
        if is_last && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        Ok::<_, Infallible>(answer)
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(socket), service).with_upgrades());
    let state = &client.socket;
    let mut told = false;
    poll_fn(|cx| {
        client.watch(cx.waker());
        loop {
            if client.is_cut() {
                return Poll::Ready(Ended::ByUs);
            }
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                if ended.is_err_and(|error| error.is_parse()) {
                    client.linger();
                }
                return Poll::Ready(Ended::ByItself);
            }
            if told || !client.is_to_close() {
                return Poll::Pending;
            }
            if state.ask_the_kernel() {
                continue;
            }
            if state.take_arrived() {
                return Poll::Pending;
            }
            told = true;
            connection.as_mut().graceful_shutdown();
        }
    })
    .await
}
