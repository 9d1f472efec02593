//! The data plane against hand-made clients and apps, over real sockets.

mod answers;
mod apps;
mod coming_back;
mod connections;
mod framing;
mod h2c;
mod holding;
mod http2;
mod lifecycle;
mod limits;
mod messages;
mod proxy_protocol;
mod routing;
mod spread;
mod sticky;
mod switching;
mod targets;
mod tiers;
mod tunnels;
mod ways;
mod wire;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::*;
use crate::config::*;

/// The one deadline of everything that is waited for.
const LONG: Duration = Duration::from_secs(30);

/// The defaults, but for what a test would wait for, and for what depends on the host.
pub(super) fn config() -> Config {
    let mut config = of_an_empty_file();
    config.listen = vec![([127, 0, 0, 1], 0).into()];
    config.proxy =
        Proxy { threads: 1, trusted: Vec::new(), idle_timeout: LONG, header_timeout: LONG, ..config.proxy };
    let app = of_app(&mut config);
    (app.limits.body_timeout, app.limits.send_timeout) = (None, None);
    app.most_fields = 256;
    app.drain.period = LONG;
    app.upstream.idle_timeout = LONG;
    config
}

/// By which a test's clients come in.
pub(super) fn door() -> std::rc::Rc<connection::Door> {
    std::rc::Rc::new(connection::Door::new(public(), public().addr(), 0))
}

/// The listener that a rig has.
fn public() -> ListenerId {
    ListenerId::Instance(([127, 0, 0, 1], 0).into())
}

/// The app's part of `config`.
fn of_app(config: &mut Config) -> &mut AppConfig {
    Arc::make_mut(&mut config.app)
}

/// What holds up the thread that answers `/__hang/N` for as long as it is closed.
struct Gate {
    reached: AtomicBool,
    open: AtomicBool,
}

static GATES: [Gate; 3] =
    [const { Gate { reached: AtomicBool::new(false), open: AtomicBool::new(false) } }; 3];

struct Admins;

impl Reserved for Admins {
    fn answer(
        &self,
        _: ListenerId,
        peer: SocketAddr,
        request: Request<Incoming>,
    ) -> Pin<Box<dyn Future<Output = Response<ReservedBody>> + Send>> {
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            assert!(path != "/__panic", "asked to");
            if let Some(number) = path.strip_prefix("/__hang/") {
                let gate = &GATES[number.parse::<usize>().unwrap()];
                gate.reached.store(true, Ordering::SeqCst);
                while !gate.open.load(Ordering::SeqCst) {
                    std::thread::yield_now();
                }
            }
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let text = format!("admin {path} {} {}", peer.ip(), body.len());
            Response::new(Full::from(text).map_err(|never| match never {}).boxed())
        })
    }

    fn knows(&self, _: SocketAddr, token: &[u8], _: bool) -> bool {
        token == b"right"
    }
}

/// A new tenure of `port` for `release`.
fn target(counters: &Counters, release: &str, port: u16) -> Arc<Target> {
    Target::new(([127, 0, 0, 1], port).into(), counters.service().release(release))
}

/// A running plane with everything that steers it.
struct Rig {
    plane: Plane,
    addr: SocketAddr,
    counters: Arc<Counters>,
    board: Arc<Board>,
    routes: RouteWriter,
}

impl Rig {
    fn start(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config();
        change(&mut config);
        let counters = Counters::new(config.proxy.threads);
        let (board, routes) = Board::new(Arc::new(config), counters.service().clone());
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = listener.local_addr().unwrap();
        let listeners = vec![(public(), listener)];
        let plane = Plane::prepare(listeners, board.clone(), counters.clone(), Arc::new(Admins))
            .unwrap()
            .begin()
            .unwrap();
        Self { plane, addr, counters, board, routes }
    }

    /// With `app` live.
    fn serving(app: &Backend, change: impl FnOnce(&mut Config)) -> Self {
        let mut rig = Self::start(change);
        rig.route(app);
        rig
    }

    /// Makes `app` live; gives its new target.
    fn route(&mut self, app: &Backend) -> Arc<Target> {
        let target = target(&self.counters, &app.release, app.addr.port());
        self.routes.set(Now::One(target.clone()));
        target
    }

    /// Listens on one more port, as the listener that `of` makes of its address.
    async fn listen(&self, of: impl Fn(SocketAddr) -> ListenerId) -> (ListenerId, SocketAddr) {
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let addr = listener.local_addr().unwrap();
        self.plane.listen(of(addr), listener).await.unwrap();
        (of(addr), addr)
    }

    async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.addr).await.unwrap(), buf: Vec::new() }
    }

    /// One request over a connection of its own, closed by the client after the answer.
    async fn ask(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut client = self.connect().await;
        client.send(request).await;
        client.reply().await
    }
}

/// A client that writes bytes and reads answers.
struct Client {
    stream: TcpStream,
    buf: Vec<u8>,
}

/// An answer as it came.
#[derive(Debug, Clone)]
struct Reply {
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn status(&self) -> u16 {
        self.head[9..12].parse().unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let named = |line: &str| line.split_once(": ").is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
        self.head.lines().find(|line| named(line)).map(|line| line.split_once(": ").unwrap().1)
    }

    fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Reads more; false at the end.
    async fn fill(&mut self) -> bool {
        let read = tokio::time::timeout(LONG, self.stream.read_buf(&mut self.buf)).await;
        read.unwrap_or_else(|_| panic!("nothing more came after {:?}", String::from_utf8_lossy(&self.buf)))
            .unwrap_or(0)
            > 0
    }

    /// Reads up to and with `end`.
    async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.buf.windows(end.len()).position(|window| window == end) {
                return self.buf.drain(..at + end.len()).collect();
            }
            assert!(self.fill().await, "closed after {:?}", String::from_utf8_lossy(&self.buf));
        }
    }

    async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.buf.len() < length {
            assert!(self.fill().await, "closed after {} of {length} bytes", self.buf.len());
        }
        self.buf.drain(..length).collect()
    }

    /// Everything until the connection is closed.
    async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.buf)
    }

    /// An answer's head and the body as its framing says (chunks as they came).
    async fn reply(&mut self) -> Reply {
        let mut reply = self.reply_to_head().await;
        let length = reply.header("content-length").map(|length| length.parse::<usize>().unwrap());
        reply.body = match length {
            _ if matches!(reply.status(), 101 | 204 | 304) => Vec::new(),
            Some(length) => self.exactly(length).await,
            None if reply.header("transfer-encoding").is_some() => self.until(b"0\r\n\r\n").await,
            None => self.rest().await,
        };
        reply
    }

    async fn reply_to_head(&mut self) -> Reply {
        let head = String::from_utf8(self.until(b"\r\n\r\n").await).unwrap();
        Reply { head, body: Vec::new() }
    }

    async fn is_closed(&mut self) -> bool {
        !self.fill().await
    }
}

/// An app: what it does with each connection is up to the test; what it receives is kept.
struct Backend {
    release: String,
    addr: SocketAddr,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
    _task: tokio::task::JoinHandle<()>,
}

impl Backend {
    /// Handles each connection, counted from 0, with `handle`.
    async fn start<F>(handle: impl Fn(AppConnection, usize) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), handle)
    }

    fn on<F>(listener: TcpListener, handle: impl Fn(AppConnection, usize) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let addr = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let log = seen.clone();
        let task = tokio::spawn(async move {
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                log.lock().unwrap().push(Vec::new());
                let client = Client { stream, buf: Vec::new() };
                tokio::spawn(handle(AppConnection { client, number, seen: log.clone() }, number));
            }
        });
        Self { release: "r1".into(), addr, seen, _task: task }
    }

    /// Answers every request with `answer`.
    async fn fixed(answer: &'static str) -> Self {
        Self::start(move |mut connection, _| async move {
            while connection.request().await.is_some() {
                connection.send(answer).await;
            }
        })
        .await
    }

    /// Answers every request with its own head and body.
    async fn echo() -> Self {
        Self::start(|mut connection, _| async move {
            while let Some(request) = connection.request().await {
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", request.len());
                connection.send([answer.as_bytes(), &request].concat()).await;
            }
        })
        .await
    }

    /// What came over each connection.
    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    fn connections(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

/// A connection as the app sees it.
struct AppConnection {
    client: Client,
    number: usize,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl AppConnection {
    async fn fill(&mut self) -> bool {
        let before = self.client.buf.len();
        let more = self.client.fill().await;
        self.seen.lock().unwrap()[self.number].extend_from_slice(&self.client.buf[before..]);
        more
    }

    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.client.buf.windows(end.len()).position(|window| window == end) {
                return Some(self.client.buf.drain(..at + end.len()).collect());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    async fn head(&mut self) -> Option<String> {
        Some(String::from_utf8(self.until(b"\r\n\r\n").await?).unwrap())
    }

    async fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.client.buf.len() < length {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.client.buf.drain(..length).collect())
    }

    /// One request, head and body as they came; `None` when the connection ends before it is whole.
    async fn request(&mut self) -> Option<Vec<u8>> {
        let head = self.head().await?;
        let lower = head.to_ascii_lowercase();
        let body = match lower.split("content-length: ").nth(1) {
            Some(length) => self.exactly(length.split("\r\n").next().unwrap().parse().unwrap()).await?,
            None if lower.contains("transfer-encoding: chunked") => {
                let mut body = self.until(b"0\r\n").await?;
                body.extend(self.until(b"\r\n").await?);
                body
            }
            None => Vec::new(),
        };
        Some([head.as_bytes(), &body].concat())
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // The proxy may have gone away: that is what some tests are about.
        let _ = self.client.stream.write_all(bytes.as_ref()).await;
    }

    async fn is_closed(&mut self) -> bool {
        !self.fill().await
    }
}

/// Waits until `condition` holds.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + LONG;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
