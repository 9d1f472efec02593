//! What the tests of this folder share: outputs that can be read, and a daemon that answers from a
//! script.

use std::future::Future;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::args;

use super::order::{self, Signals};
use super::render::{Screen, Sink};
use super::session::Pace;
use super::surroundings::Surroundings;
use crate::host::Places;

/// Longer than any tested command takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// An output that keeps what is printed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Paper(Arc<Mutex<Vec<u8>>>);

impl Paper {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A request as the daemon received it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Received {
    /// `GET /__status`.
    pub(crate) line: String,
    /// The header lines, in lower case.
    pub(crate) headers: Vec<String>,
    pub(crate) body: String,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// The bytes that the daemon answers with.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    bytes: Vec<u8>,
    /// Whether the connection stays open afterwards.
    is_open: bool,
}

impl Reply {
    pub(crate) fn with(status: u16, headers: &str, body: &str) -> Self {
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
        Self { bytes: format!("{head}{body}").into_bytes(), is_open: false }
    }

    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::with(status, "content-type: application/json\r\n", &body.to_string())
    }

    /// A connection that ends without an answer.
    pub(crate) fn nothing() -> Self {
        Self { bytes: Vec::new(), is_open: false }
    }

    /// Events as a chunked stream, without the chunk that ends it.
    pub(crate) fn events(events: &[serde_json::Value]) -> Self {
        let mut bytes =
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
                .to_vec();
        for event in events {
            let line = format!("{event}\n");
            // Split in the middle, because a line need not be one chunk.
            for part in [&line[..5], &line[5..]] {
                bytes.extend_from_slice(format!("{:x}\r\n{part}\r\n", part.len()).as_bytes());
            }
        }
        Self { bytes, is_open: false }
    }

    /// Adds the regular end of the stream.
    pub(crate) fn ended(mut self) -> Self {
        self.bytes.extend_from_slice(b"0\r\n\r\n");
        self
    }

    pub(crate) fn left_open(mut self) -> Self {
        self.is_open = true;
        self
    }
}

/// Answers the n-th request.
type Script = Arc<dyn Fn(usize, &Received) -> Reply + Send + Sync>;

/// A daemon that answers from a script, on a unix socket and on a TCP port.
pub(crate) struct Fake {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) port: u16,
    received: Arc<Mutex<Vec<Received>>>,
    _tasks: tokio::task::JoinSet<()>,
}

impl Fake {
    pub(crate) fn new(script: impl Fn(usize, &Received) -> Reply + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let received = Arc::default();
        let script: Script = Arc::new(script);
        let mut tasks = tokio::task::JoinSet::new();
        let socket = folder.path().join("default");
        std::fs::create_dir(&socket).unwrap();
        let unix = tokio::net::UnixListener::bind(socket.join("admin.sock")).unwrap();
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        tcp.set_nonblocking(true).unwrap();
        let tcp = tokio::net::TcpListener::from_std(tcp).unwrap();
        let port = tcp.local_addr().unwrap().port();
        let (log, answer) = (Arc::clone(&received), Arc::clone(&script));
        tasks.spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = unix.accept().await {
                open.extend(serve(stream, &log, &answer).await);
            }
        });
        let (log, answer) = (Arc::clone(&received), script);
        tasks.spawn(async move {
            let mut open = Vec::new();
            while let Ok((stream, _)) = tcp.accept().await {
                open.extend(serve(stream, &log, &answer).await);
            }
        });
        Self { folder, port, received, _tasks: tasks }
    }

    pub(crate) fn socket(&self) -> String {
        self.folder.path().join("default/admin.sock").display().to_string()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Runs `portok --socket SOCKET line`.
    pub(crate) async fn portok(&self, line: &[&str]) -> Ran {
        let socket = self.socket();
        let line: Vec<_> = ["--socket", &socket].into_iter().chain(line.iter().copied()).collect();
        run(&line, &around(self.folder.path()), Terminals::None, std::future::pending()).await
    }
}

async fn serve<S>(mut stream: S, log: &Mutex<Vec<Received>>, script: &Script) -> Option<S>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let (line, headers) = head.split_once("\r\n").unwrap();
    let headers: Vec<_> = headers.lines().map(str::to_lowercase).collect();
    let length = headers.iter().find_map(|line| line.strip_prefix("content-length: "));
    let end = head_end + 4 + length.map_or(0, |length| length.parse().unwrap());
    while bytes.len() < end {
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "the request breaks off");
    }
    let received = Received {
        line: line.strip_suffix(" HTTP/1.1").unwrap().to_owned(),
        headers,
        body: String::from_utf8(bytes[head_end + 4..].to_vec()).unwrap(),
    };
    let reply = {
        let mut log = log.lock().unwrap();
        log.push(received.clone());
        script(log.len() - 1, &received)
    };
    stream.write_all(&reply.bytes).await.unwrap();
    stream.flush().await.unwrap();
    reply.is_open.then_some(stream)
}

/// Surroundings whose files and sockets lie in `folder`.
pub(crate) fn around(folder: &std::path::Path) -> Surroundings {
    let sockets = folder.to_owned();
    Surroundings {
        places: Places::from(|_| Some(folder.to_owned())),
        socket_places: Box::new(move |name| vec![sockets.join(name).join("admin.sock")]),
        sockets: Box::new(Vec::new),
        systemd: false,
        url: None,
        token: None,
    }
}

/// The result of a command.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ran {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Standard output, which must be one JSON value.
    pub(crate) fn value(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Which output is a terminal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Terminals {
    None,
    Err,
}

/// Runs a command, and keeps what it prints.
pub(crate) async fn run(
    line: &[&str],
    around: &Surroundings,
    terminals: Terminals,
    interrupt: impl Future<Output = ()>,
) -> Ran {
    run_on(line, around, terminals, &Paper::default(), interrupt).await
}

/// As [`run`], with an output for standard error that the caller reads meanwhile.
pub(crate) async fn run_on(
    line: &[&str],
    around: &Surroundings,
    terminals: Terminals,
    err: &Paper,
    interrupt: impl Future<Output = ()>,
) -> Ran {
    let out = Paper::default();
    let is_terminal = terminals == Terminals::Err;
    let mut screen =
        Screen::new(Sink::new(out.clone(), false, false), Sink::new(err.clone(), false, is_terminal));
    let arguments =
        std::iter::once("portok").chain(line.iter().copied()).map(std::ffi::OsString::from).collect();
    let json = line.contains(&"--json");
    let code = match args::parse(arguments) {
        Ok(args::Invocation::Run(plan)) => panic!("{plan:?}"),
        Ok(order) => {
            let pace = Pace {
                poll: Duration::from_millis(2),
                counted_poll: Duration::from_millis(3),
                absence: Duration::from_secs(30),
            };
            let signals = Signals { interrupt, reader_gone: std::future::pending() };
            let asking = order::obey(order, around, &mut screen, pace, signals);
            tokio::time::timeout(DEADLINE, asking).await.unwrap_or_else(|_| panic!("{line:?} does not end"))
        }
        Err(refusal) => order::refuse(&mut screen, json, refusal),
    };
    let code = screen.close(code);
    Ran { code, out: out.text(), err: err.text() }
}
