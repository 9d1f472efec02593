//! Listening sockets: how they are made, and the task that accepts from one of them on one thread.
//!
//! All threads accept from one shared socket, each through a duplicate of its own; the kernel's
//! queue lives until the last duplicate is closed. A task ends when it is told to, after it has
//! taken what is in the queue. What comes into the queue of a socket that ends is kept out before
//! ([`last_call`](mod@super::last_call)).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::address::{ListenerId, Scheme};
use super::arrival;
use super::client;
use super::connection::Door;
use super::headers;
use super::socket;
use super::worker::Worker;
use crate::want;

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How long nothing is accepted when file descriptors or memory ran out.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Binds and listens, with the data plane's options (backlog, `SO_REUSEADDR`).
///
/// # Errors
/// The kernel's own, for example when the address is in use.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    bind_beside(addr, &[])
}

/// As [`bind()`], beside listeners at `others`: where one of these has the port for IPv4, `[::]` is
/// for IPv6 alone.
///
/// # Errors
/// The kernel's own, for example when the address is in use.
pub fn bind_beside(addr: SocketAddr, others: &[SocketAddr]) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if addr.is_ipv6() && others.iter().any(|other| other.is_ipv4() && other.port() == addr.port()) {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Prepares `listener` for the threads. Accepted sockets inherit two options: they do not wait to
/// fill a segment, and a client that takes nothing for `send_timeout` is cut.
pub(super) fn prepare(listener: &TcpListener, send_timeout: Option<Duration>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let socket = SockRef::from(listener);
    socket.set_tcp_user_timeout(send_timeout)?;
    socket.set_tcp_nodelay(true)
}

/// A task that accepts.
#[derive(Debug)]
pub(super) struct Acceptor {
    id: ListenerId,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Acceptor {
    /// Starts to accept on this thread.
    pub(super) fn start(worker: Rc<Worker>, id: ListenerId, listener: TcpListener) -> io::Result<Self> {
        let inherited = SockRef::from(&listener).tcp_user_timeout()?;
        let send_timeout = socket::send_timeout_of(inherited);
        let at = headers::canonical(listener.local_addr()?);
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (stop, stopped) = oneshot::channel();
        let porter = Porter { worker, door: Rc::new(Door::new(id, at, send_timeout)) };
        Ok(Self { id, stop, task: tokio::task::spawn_local(run(porter, listener, stopped)) })
    }

    /// The listener whose connections it accepts.
    pub(super) fn id(&self) -> ListenerId {
        self.id
    }

    /// Takes what is in the queue and closes this thread's duplicate of the socket.
    pub(super) async fn stop(self) {
        // The task holds the other end until it has ended.
        let _ = self.stop.send(());
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task that accepts connections failed");
        }
    }
}

enum Event {
    Accepted(io::Result<(TcpStream, SocketAddr)>),
    Stop,
}

async fn run(porter: Porter, listener: tokio::net::TcpListener, mut stopped: oneshot::Receiver<()>) {
    let mut exhausted = false;
    loop {
        let event = tokio::select! {
            accepted = listener.accept() => Event::Accepted(accepted),
            _ = &mut stopped => Event::Stop,
        };
        match event {
            Event::Accepted(Ok((stream, peer))) => {
                exhausted = false;
                porter.welcome(stream, peer);
            }
            Event::Accepted(Err(error)) if is_of_one_connection(&error) => (),
            Event::Accepted(Err(error)) => {
                if !std::mem::replace(&mut exhausted, true) {
                    tracing::warn!(%error, "connections cannot be accepted for now, trying again");
                }
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            Event::Stop => break,
        }
    }
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = accept(&listener) {
        porter.welcome(stream, peer);
    }
}

/// Lets accepted connections in.
struct Porter {
    worker: Rc<Worker>,
    door: Rc<Door>,
}

impl Porter {
    /// Serves a connection, or closes it when a limit is full.
    fn welcome(&self, stream: TcpStream, peer: SocketAddr) {
        let peer = headers::canonical(peer);
        // The last descriptors are kept for the control plane.
        if !want::may_keep(&stream) {
            return self.worker.guests.refuse_for_descriptors();
        }
        let service = self.worker.here.look();
        let Some(visit) = self.worker.guests.admit(peer.ip(), &service.settings) else { return };
        if service.settings.looks_closer {
            let (worker, door) = (self.worker.clone(), self.door.clone());
            tokio::task::spawn_local(arrival::receive(worker, stream, peer, door, visit));
            return;
        }
        match self.door.scheme {
            Scheme::Http => {
                let connection = client::serve(&self.worker, stream, peer, self.door.clone(), visit);
                tokio::task::spawn_local(connection);
            }
            Scheme::Https => {
                let connection = client::greet(&self.worker, stream, peer, &self.door, visit);
                tokio::task::spawn_local(connection);
            }
        }
    }
}

/// Accepts without waiting. Fails only when the queue is empty, or resources are lacking.
fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                stream.set_nonblocking(true)?;
                return Ok((TcpStream::from_std(stream)?, peer));
            }
            Err(error) if is_of_one_connection(&error) => (),
            Err(error) => return Err(error),
        }
    }
}

/// Whether an error concerns the connection that would have been accepted (accept(2)), not the
/// listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::ConnectionRefused
            | Kind::Interrupted
            | Kind::NetworkDown
            | Kind::NetworkUnreachable
            | Kind::HostUnreachable
            | Kind::TimedOut
    )
}
