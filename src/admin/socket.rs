//! Serves the admin API on the unix socket.
//!
//! [`serve_socket`] owns the listener and joins its connections. It accepts until it is told to
//! stop, and then what is in the queue, which would be reset with the listener. It lets each
//! connection finish its answer within [`STOP_WITHIN`], removes the socket's file if it is still
//! this listener's, and returns. If its future is dropped, the connections end by
//! themselves and the file stays behind.
//!
//! The peer of a connection is identified once, before its first request: the kernel names the user
//! and group that it had when it connected. The group database says whether the user is a member of
//! the socket's group. It may ask a directory server, so it is asked on a thread of its own, within
//! a deadline. An idle connection may have to make room for a new one ([`seats`](super::seats)).

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::unistd::{Gid, Uid, User, getgrouplist};
use socket2::SockRef;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::api::{Admin, joined};
use super::seats::{Busy, Seat, Seats};
use super::{Peer, bind};
use crate::proxy::ReservedBody;
use crate::want;

/// Connections at a time: the least, where few descriptors are kept back for them ([`want`]), and
/// the most.
const CONNECTIONS: (u64, u64) = (8, 64);
/// How long a client may take for a head, and between two requests.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// The longest head, in bytes.
const MAX_HEAD: usize = 64 * 1024;
/// How long answers may take once the daemon stops.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How long the group database may take.
const LOOKUP_WITHIN: Duration = Duration::from_secs(5);
/// How often the log says that no connection makes room.
const NO_SEAT_TOLD_EVERY: Duration = Duration::from_secs(60);
/// The pause after a failed accept (no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `admin` on `listener`, whose file is at `path`, until `stop`.
pub async fn serve_socket(listener: UnixListener, path: PathBuf, admin: Arc<Admin>, stop: CancellationToken) {
    serve(listener, path, stop, move |stream| {
        let admin = Arc::clone(&admin);
        async move {
            let peer = identify(&stream, admin.config().admin.socket_group.clone(), admin.own_uid()).await?;
            let answer = move |request| joined(admin.spawn(peer.clone(), request));
            Ok((stream, answer))
        }
    })
    .await;
}

/// The loop of [`serve_socket`]. For each connection `greet` gives the function that answers its
/// requests.
async fn serve<G, Greeting, S, Answer>(
    listener: UnixListener,
    path: PathBuf,
    stop: CancellationToken,
    greet: G,
) where
    G: Fn(UnixStream) -> Greeting,
    Greeting: Future<Output = io::Result<(UnixStream, S)>> + Send + 'static,
    S: Fn(Request<Incoming>) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Response<ReservedBody>> + Send + 'static,
{
    enum Turn {
        Connection(io::Result<UnixStream>),
        Stop,
    }
    let file = SocketFile::at(path);
    let (least, most) = CONNECTIONS;
    let mut seats = Seats::new(usize::try_from((want::kept_back() / 4).clamp(least, most)).unwrap_or(8));
    let mut told = Told::default();
    let connections = TaskTracker::new();
    let mut welcome = |stream: UnixStream, told: &mut Told| {
        let uid = stream.peer_cred().map_or(u32::MAX, |peer| peer.uid());
        let Some(seat) = seats.take(uid) else { return told.no_seat(uid) };
        let (greeting, stop) = (greet(stream), stop.clone());
        connections.spawn(async move {
            match greeting.await {
                Ok((stream, answer)) => converse(stream, answer, &seat, stop).await,
                Err(cause) => tracing::warn!(%cause, "the admin socket cannot tell who its peer is"),
            }
            drop(seat);
        });
    };
    loop {
        let turn = tokio::select! {
            accepted = listener.accept() => Turn::Connection(accepted.map(|(stream, _)| stream)),
            () = stop.cancelled() => Turn::Stop,
        };
        match turn {
            Turn::Connection(Ok(stream)) => {
                told.accept_failed = false;
                welcome(stream, &mut told);
            }
            Turn::Connection(Err(cause)) => {
                told.accept_failed(&cause);
                sleep(ACCEPT_PAUSE).await;
            }
            Turn::Stop => break,
        }
    }
    // Nobody else connects once the file is gone.
    if let Some(file) = file {
        file.remove();
    }
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, _)) = listener.accept() {
            match stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream)) {
                Ok(stream) => welcome(stream, &mut told),
                Err(cause) => told.accept_failed(&cause),
            }
        }
    }
    connections.close();
    connections.wait().await;
}

/// What the log has said already, so that a lasting trouble is not repeated.
#[derive(Debug, Default)]
struct Told {
    accept_failed: bool,
    no_seat: Option<Instant>,
}

impl Told {
    fn accept_failed(&mut self, cause: &io::Error) {
        if !std::mem::replace(&mut self.accept_failed, true) {
            tracing::warn!(%cause, "the admin socket cannot accept connections for now, trying again");
        }
    }

    fn no_seat(&mut self, uid: u32) {
        if self.no_seat.is_none_or(|told| told.elapsed() >= NO_SEAT_TOLD_EVERY) {
            self.no_seat = Some(Instant::now());
            tracing::warn!(
                uid,
                "a connection to the admin socket was closed at once: all there may be are being answered"
            );
        }
    }
}

/// One connection from its first request to its end.
async fn converse<S, Answer>(stream: UnixStream, answer: S, seat: &Arc<Seat>, stop: CancellationToken)
where
    S: Fn(Request<Incoming>) -> Answer,
    Answer: Future<Output = Response<ReservedBody>>,
{
    if !has_request(&stream, seat, &stop).await {
        return;
    }
    let service = service_fn(|request| {
        let busy = seat.busy();
        let answer = answer(request);
        async move {
            let answer = answer.await.map(|body| Answering { body, _busy: busy });
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let mut connection = pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .half_close(true)
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
    );
    // What has come is begun before anything ends the connection.
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => Some(ended),
        () = stop.cancelled() => None,
        () = seat.needed() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            match timeout(STOP_WITHIN, connection).await {
                Ok(ended) => ended,
                Err(_) => {
                    tracing::warn!("a connection of the admin socket was cut: its answer took too long");
                    Ok(())
                }
            }
        }
    };
    if let Err(cause) = ended {
        tracing::debug!(%cause, "a connection of the admin socket ended early");
    }
}

/// Waits for the first bytes of a connection. False: none have come, and it is to end. A socket
/// that is closed with unread bytes resets the connection, so the kernel is asked before that.
async fn has_request(stream: &UnixStream, seat: &Seat, stop: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        readable = timeout(HEAD_WITHIN, stream.readable()) => return readable.is_ok(),
        () = stop.cancelled() => {}
        () = seat.needed() => {}
    }
    let has_arrived = matches!(SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]), Ok(1..));
    has_arrived && stream.readable().await.is_ok()
}

/// An answer's body. As long as it is sent, its connection is busy.
struct Answering {
    body: ReservedBody,
    _busy: Busy,
}

impl Body for Answering {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The peer at the other end of `stream`.
async fn identify(stream: &UnixStream, group: Option<String>, own_uid: u32) -> io::Result<Peer> {
    let credentials = stream.peer_cred()?;
    let (uid, gid) = (credentials.uid(), credentials.gid());
    let member = match group {
        // Where the user alone decides, the database is not asked.
        Some(group) if uid != 0 && uid != own_uid => {
            let lookup = tokio::task::spawn_blocking(move || is_member(uid, gid, &group));
            match timeout(LOOKUP_WITHIN, lookup).await {
                Ok(Ok(member)) => member,
                Ok(Err(_)) | Err(_) => {
                    tracing::warn!(
                        uid,
                        "the group database did not answer in time: the user is no member of admin.socket_group"
                    );
                    false
                }
            }
        }
        _ => false,
    };
    Ok(Peer::Unix { uid, gid, member })
}

fn is_member(uid: u32, gid: u32, group: &str) -> bool {
    let group = match bind::group_id(group) {
        Ok(group) => group,
        Err(cause) => {
            tracing::warn!(%cause, "admin.socket_group is unknown: it has no members");
            return false;
        }
    };
    if gid == group {
        return true;
    }
    let Ok(Some(user)) = User::from_uid(Uid::from_raw(uid)) else { return false };
    let Ok(name) = CString::new(user.name) else { return false };
    getgrouplist(&name, user.gid).is_ok_and(|groups| groups.contains(&Gid::from_raw(group)))
}

/// The file of a listener, by its inode: another daemon may have put its own in the same place
/// since.
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn at(path: PathBuf) -> Option<Self> {
        let identity = Self::identity(&path)?;
        Some(Self { path, identity })
    }

    fn identity(path: &std::path::Path) -> Option<(u64, u64)> {
        let meta = std::fs::symlink_metadata(path).ok()?;
        Some((meta.dev(), meta.ino()))
    }

    fn remove(&self) {
        if Self::identity(&self.path) == Some(self.identity)
            && let Err(cause) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %cause, "the admin socket cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    use super::super::answer;
    use super::*;

    /// A deadline that only a hang reaches.
    const LONG: Duration = Duration::from_secs(30);

    async fn connect(path: &std::path::Path) -> UnixStream {
        UnixStream::connect(path).await.unwrap()
    }

    async fn all(mut stream: UnixStream) -> String {
        let mut text = String::new();
        timeout(LONG, stream.read_to_string(&mut text)).await.expect("the connection ends").unwrap();
        text
    }

    struct Server {
        folder: tempfile::TempDir,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<()>,
    }

    impl Server {
        fn path(&self) -> PathBuf {
            self.folder.path().join("admin.sock")
        }

        /// Answers each request with its path, once `gate` (if any) was opened.
        fn start(gate: Option<oneshot::Receiver<()>>) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("admin.sock");
            let listener = bind::bind_socket(&path, None).unwrap();
            let stop = CancellationToken::new();
            let gate = Arc::new(tokio::sync::Mutex::new(gate));
            let greet = move |stream| {
                let gate = Arc::clone(&gate);
                let answer = move |request: Request<Incoming>| {
                    let gate = Arc::clone(&gate);
                    async move {
                        if let Some(gate) = gate.lock().await.take() {
                            let _ = gate.await;
                        }
                        answer::json(StatusCode::OK, &request.uri().path())
                    }
                };
                std::future::ready(Ok((stream, answer)))
            };
            let task = tokio::spawn(serve(listener, path, stop.clone(), greet));
            Self { folder, stop, task }
        }

        async fn ended(self) {
            timeout(LONG, self.task).await.expect("the server ends once it is stopped").unwrap();
        }
    }

    #[tokio::test]
    async fn requests_are_answered_and_the_file_goes_with_the_server() {
        let server = Server::start(None);
        let path = server.path();
        let mut stream = connect(&path).await;
        stream
            .write_all(b"GET /__a HTTP/1.1\r\n\r\nGET /__b HTTP/1.1\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let text = all(stream).await;
        assert!(text.contains("\"/__a\"") && text.ends_with("\"/__b\""), "{text}");
        server.stop.cancel();
        server.ended().await;
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn an_answer_under_way_is_finished_before_the_server_ends() {
        let (open, gate) = oneshot::channel();
        let server = Server::start(Some(gate));
        let path = server.path();
        let mut stream = connect(&path).await;
        stream.write_all(b"GET /__slow HTTP/1.1\r\n\r\n").await.unwrap();
        // An idle connection does not hold the server up.
        let idle = connect(&path).await;
        // One that was accepted later was answered: so the former two were accepted.
        server.stop.cancelled_after_accept(&path).await;
        server.stop.cancel();
        open.send(()).unwrap();
        let text = all(stream).await;
        assert!(text.ends_with("\"/__slow\""), "{text}");
        server.ended().await;
        drop(idle);
    }

    #[tokio::test]
    async fn what_has_connected_before_the_end_is_answered() {
        let server = Server::start(None);
        let path = server.path();
        // It runs, and has noted its file.
        server.stop.cancelled_after_accept(&path).await;
        // Nothing is accepted before this task waits: they are in the queue when the end comes.
        let mut waiting = Vec::new();
        for _ in 0..20 {
            let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
            io::Write::write_all(&mut stream, b"GET /__late HTTP/1.1\r\n\r\n").unwrap();
            waiting.push(stream);
        }
        server.stop.cancel();
        for stream in waiting {
            stream.set_nonblocking(true).unwrap();
            let text = all(UnixStream::from_std(stream).unwrap()).await;
            assert!(text.ends_with("\"/__late\""), "{text}");
        }
        server.ended().await;
    }

    /// Waits until the listener has accepted what came before: the queue is first in, first out.
    trait AfterAccept {
        async fn cancelled_after_accept(&self, path: &std::path::Path);
    }

    impl AfterAccept for CancellationToken {
        async fn cancelled_after_accept(&self, path: &std::path::Path) {
            let mut stream = connect(path).await;
            stream.write_all(b"BAD\r\n\r\n").await.unwrap();
            assert!(all(stream).await.starts_with("HTTP/1.1 400"));
        }
    }

    #[tokio::test]
    async fn a_socket_that_somebody_else_made_meanwhile_stays() {
        let server = Server::start(None);
        let path = server.path();
        // Seen once it has noted its file.
        AfterAccept::cancelled_after_accept(&server.stop, &path).await;
        std::fs::remove_file(&path).unwrap();
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let Server { folder, stop, task } = server;
        stop.cancel();
        timeout(LONG, task).await.expect("the server ends").unwrap();
        assert!(path.exists());
        drop(folder);
    }

    #[tokio::test]
    async fn idle_connections_keep_nobody_waiting() {
        let server = Server::start(None);
        let mut idle = Vec::new();
        for number in 0..100 {
            let mut stream = connect(&server.path()).await;
            if number % 2 == 0 {
                // One that has been answered is idle, too.
                stream.write_all(b"GET /__a HTTP/1.1\r\n\r\n").await.unwrap();
            }
            idle.push(stream);
        }
        let mut stream = connect(&server.path()).await;
        stream.write_all(b"GET /__b HTTP/1.1\r\nConnection: close\r\n\r\n").await.unwrap();
        let asked = Instant::now();
        assert!(all(stream).await.ends_with("\"/__b\""));
        assert!(asked.elapsed() < HEAD_WITHIN, "nobody's time had to be over first");
        server.stop.cancel();
        server.ended().await;
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused() {
        let server = Server::start(None);
        let mut stream = connect(&server.path()).await;
        let head = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(2 * MAX_HEAD));
        // The answer may come before everything was written.
        let _ = stream.write_all(head.as_bytes()).await;
        let mut start = [0; 12];
        timeout(LONG, stream.read_exact(&mut start)).await.expect("an answer").unwrap();
        assert_eq!(&start, b"HTTP/1.1 431");
        server.stop.cancel();
        drop(stream);
        server.ended().await;
    }

    #[tokio::test]
    async fn the_kernel_names_the_peer() {
        let (one, _other) = UnixStream::pair().unwrap();
        let own = nix::unistd::geteuid().as_raw();
        let peer = identify(&one, Some("root".to_owned()), own).await.unwrap();
        let gid = nix::unistd::getegid().as_raw();
        assert_eq!(peer, Peer::Unix { uid: own, gid, member: false }, "the own user needs no membership");
    }

    #[test]
    fn membership_is_by_group_or_by_the_database() {
        assert!(is_member(12345, 0, "root"), "by its effective group");
        assert!(is_member(0, 12345, "root"), "by its user's group in the database");
        assert!(!is_member(12345, 12345, "root"));
        assert!(!is_member(0, 0, "no-such-group-here"));
    }
}
