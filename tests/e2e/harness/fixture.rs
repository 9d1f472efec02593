//! The fixture app: this test binary, started again with `FIXTURE` in its environment.
//!
//! `FIXTURE` holds words separated by blanks. Without any word it is a well-behaved app: it listens
//! on `PORT`, answers everything with 200 and its version, and ends at once on SIGTERM.
//!
//! | word | effect |
//! | --- | --- |
//! | `version=V`, `journal=FILE` | who it is; where it writes one line for whatever happens to it |
//! | `port=N`, `port_env=NAME` | where it learns its port, instead of `PORT` |
//! | `host=NAME` | journals `stranger HOST` for each request but probes that is for another host |
//! | `health=200,500,..` | statuses of successive health answers, the last one stays |
//! | `health_cycle=200,500` | the same, over and over |
//! | `health_file=FILE` | once it exists, its content is the status |
//! | `health_path=/p`, `health_redirect`, `health_hang` | where health is; it redirects; it never answers |
//! | `bind_after=FILE`, `bind_never`, `bind_elsewhere`, `no_reuseaddr` | when, where and how it listens |
//! | `exit=N`, `exit_if=FILE` | ends at its start (if the file exists) |
//! | `exit_file=FILE` | ends with status 1 as soon as the file exists |
//! | `ignore_term`, `term_after=FILE` | stays after SIGTERM (until the file exists) |
//! | `graceful` | ends after SIGTERM once nobody is connected any more, as Node's `server.close()` does |
//! | `leave` | leaves the work to a child and ends |
//! | `wrapper` | leaves the work to a child, and ends at SIGTERM although the child does not |
//! | `helper` | starts a helper with a session of its own that ignores SIGTERM |
//! | `flood`, `long_line`, `close_output` | prints without end; a line of 1 MiB; nothing any more |
//! | `say=WORD` | prints it |
//! | `idle_close=MS` | closes connections that are idle for so long |
//! | `banner` | speaks no HTTP: says its version on a line, and then everything again that it is told; journals `broke KIND` |
//! | `told` | every connection begins with a header of the PROXY protocol: journals `told CLIENT AT`, or `told nobody` |
//! | `stubborn` | with `no_reuseaddr`: tries to bind until it succeeds |

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use super::app::{FIXTURE, this_binary};
use super::http::find;
use super::wait::{DEADLINE, pause};

/// Set once the signals of the process are blocked, so that one thread can receive them.
const BLOCKED: &str = "FIXTURE_BLOCKED";

/// The signals that it records.
const SIGNALS: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

#[derive(Debug)]
struct Spec {
    words: BTreeMap<String, String>,
    health_asked: AtomicUsize,
    connections: AtomicUsize,
}

impl Spec {
    fn parse(text: &str) -> Self {
        let words = text.split(' ').map(|word| word.split_once('=').unwrap_or((word, "")));
        let words = words.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Self { words, health_asked: AtomicUsize::new(0), connections: AtomicUsize::new(0) }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.words.get(key).map(String::as_str)
    }

    fn has(&self, key: &str) -> bool {
        self.words.contains_key(key)
    }

    fn version(&self) -> &str {
        self.get("version").unwrap_or("unnamed")
    }

    /// The words for a helper process: the same without those that would start another helper.
    fn without(&self, left_out: &[&str], added: &str) -> String {
        let kept = self.words.iter().filter(|(key, _)| !left_out.contains(&key.as_str()));
        let words: Vec<_> = kept.map(|(key, value)| format!("{key}={value}")).collect();
        format!("{} {added}", words.join(" ")).trim().to_owned()
    }

    fn note(&self, line: &str) {
        let Some(file) = self.get("journal") else { return };
        let file = OpenOptions::new().create(true).append(true).open(file);
        file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
            .unwrap_or_else(|error| end(&format!("writing the journal: {error}"), 70));
    }

    fn next_health(&self) -> u16 {
        if let Some(status) = self.get("health_file").and_then(|file| std::fs::read_to_string(file).ok()) {
            return status.trim().parse().unwrap_or(500);
        }
        let asked = self.health_asked.fetch_add(1, Ordering::Relaxed);
        let parse = |list: &str| list.split(',').filter_map(|code| code.parse().ok()).collect::<Vec<u16>>();
        if let Some(cycle) = self.get("health_cycle").map(parse) {
            return cycle[asked % cycle.len()];
        }
        let sequence = self.get("health").map(parse).unwrap_or_default();
        sequence.get(asked).or(sequence.last()).copied().unwrap_or(200)
    }
}

/// Runs the app, and never returns, if `FIXTURE` is set.
pub(crate) fn run_if_asked() {
    let Ok(text) = std::env::var(FIXTURE) else { return };
    if std::env::var_os(BLOCKED).is_none() {
        block_signals();
    }
    let spec = Arc::new(Spec::parse(&text));
    if spec.has("role_detach") {
        start_again(&spec.without(&["role_detach"], "role_helper ignore_term"));
        end("detached", 0);
    }
    if spec.has("role_helper") {
        nix::unistd::setsid().unwrap_or_else(|error| end(&format!("setsid: {error}"), 70));
        spec.note(&format!("helper {}", std::process::id()));
        take_signals(&spec);
        park();
    }
    take_signals(&spec);
    serve(&spec);
}

/// Blocks the signals while the process has no other thread, by executing itself once more: the
/// mask survives `execv`.
fn block_signals() {
    let mut set = SigSet::empty();
    SIGNALS.iter().for_each(|signal| set.add(*signal));
    set.thread_block().unwrap_or_else(|error| end(&format!("blocking signals: {error}"), 70));
    let words = std::env::args().map(|word| std::ffi::CString::new(word).unwrap()).collect::<Vec<_>>();
    let path = std::ffi::CString::new(this_binary().display().to_string()).unwrap();
    let variables = std::env::vars().map(|(key, value)| format!("{key}={value}"));
    let variables = variables.chain([format!("{BLOCKED}=1")]);
    let variables = variables.map(|variable| std::ffi::CString::new(variable).unwrap()).collect::<Vec<_>>();
    let error = nix::unistd::execve(&path, &words, &variables);
    end(&format!("executing myself again: {error:?}"), 70)
}

/// Receives signals. An ordinary app ends at once on SIGTERM.
fn take_signals(spec: &Arc<Spec>) {
    let spec = Arc::clone(spec);
    std::thread::spawn(move || {
        let mut set = SigSet::empty();
        SIGNALS.iter().for_each(|signal| set.add(*signal));
        loop {
            let Ok(signal) = set.wait() else { continue };
            spec.note(&format!("signal {signal}"));
            if spec.has("ignore_term") {
                continue;
            }
            if let Some(file) = spec.get("term_after").filter(|_| !spec.has("wrapper")).map(str::to_owned) {
                let spec = Arc::clone(&spec);
                std::thread::spawn(move || {
                    wait_for_file(&file);
                    spec.note("end");
                    end("asked to", 0)
                });
                continue;
            }
            while spec.has("graceful") && spec.connections.load(Ordering::SeqCst) > 0 {
                pause(Duration::from_millis(2));
            }
            spec.note("end");
            end("asked to", 0)
        }
    });
}

fn serve(spec: &Arc<Spec>) -> ! {
    let port_env = spec.get("port_env").unwrap_or("PORT");
    let told = spec.get("port").map(str::to_owned).or_else(|| std::env::var(port_env).ok());
    let port: u16 =
        told.and_then(|port| port.parse().ok()).unwrap_or_else(|| end(&format!("no port in {port_env}"), 64));
    spec.note(&format!("start {} {port}", std::process::id()));
    // The test runner has not ended its line.
    print_line("");
    if let Some(word) = spec.get("say") {
        print_line(word);
        let _ = writeln!(std::io::stderr(), "{word} on standard error");
    }
    if spec.get("exit_if").is_some_and(|file| Path::new(file).exists()) {
        end("the file says so", 1);
    }
    if let Some(code) = spec.get("exit") {
        print_line("about to fail");
        end("cannot find module 'left-pad'", code.parse().unwrap_or(1));
    }
    misbehave(spec);
    if let Some(file) = spec.get("bind_after") {
        wait_for_file(file);
    }
    if spec.has("bind_never") {
        park();
    }
    let listener = listen(spec, port);
    let port = listener.local_addr().map_or(0, |addr| addr.port());
    print_line(&format!("{} listens on {port}", spec.version()));
    spec.note(&format!("listen {port}"));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let spec = Arc::clone(spec);
        spec.connections.fetch_add(1, Ordering::SeqCst);
        std::thread::spawn(move || {
            // An error means that the client is gone.
            let _ = Connection { stream, buffer: Vec::new(), spec: &spec }.serve();
            spec.connections.fetch_sub(1, Ordering::SeqCst);
        });
    }
    park()
}

fn misbehave(spec: &Arc<Spec>) {
    if let Some(file) = spec.get("exit_file").map(str::to_owned) {
        std::thread::spawn(move || {
            wait_for_file(&file);
            end("the file appeared", 1)
        });
    }
    if spec.has("helper") {
        let starter = start_again(&spec.without(&["helper"], "role_detach"));
        starter.join().unwrap_or_else(|_| end("waiting for the helper's starter", 70));
    }
    if spec.has("leave") {
        start_again(&spec.without(&["leave"], ""));
        end("the child does the work", 0);
    }
    if spec.has("wrapper") {
        start_again(&spec.without(&["wrapper"], ""));
        park();
    }
    if spec.has("long_line") {
        print_line(&"x".repeat(1024 * 1024));
        print_line("after the long line");
    }
    if spec.has("flood") {
        std::thread::spawn(|| {
            let block = "flood flood flood flood flood flood flood flood\n".repeat(1000);
            while std::io::stdout().write_all(block.as_bytes()).is_ok() {}
            end("standard output is broken", 71)
        });
    }
}

/// Starts this binary again in the same process group, and records its end.
fn start_again(spec: &str) -> JoinHandle<()> {
    let mut command = Command::new(this_binary());
    command.arg0("fixture").args(["--exact", "fixture_app", "--nocapture", "--test-threads=1"]);
    let mut child = command
        .env(FIXTURE, spec)
        .env_remove(BLOCKED)
        .stdin(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| end(&format!("starting myself again: {error}"), 70));
    std::thread::spawn(move || {
        // Only so that it does not remain a zombie.
        let _ = child.wait();
    })
}

fn listen(spec: &Spec, port: u16) -> TcpListener {
    let port = if spec.has("bind_elsewhere") { 0 } else { port };
    let host: IpAddr =
        std::env::var("HOST").ok().and_then(|host| host.parse().ok()).unwrap_or([127, 0, 0, 1].into());
    let addr = SocketAddr::new(host, port);
    loop {
        let bound = if spec.has("no_reuseaddr") { bind_plainly(addr) } else { TcpListener::bind(addr) };
        match bound {
            Ok(listener) => return listener,
            Err(error) if error.kind() == ErrorKind::AddrInUse && spec.has("stubborn") => {
                pause(Duration::from_millis(5))
            }
            Err(error) => {
                spec.note("bind failed");
                end(&format!("Error: listen EADDRINUSE: address already in use {addr}: {error}"), 1)
            }
        }
    }
}

fn bind_plainly(addr: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
    socket.bind(&addr.into())?;
    socket.listen(128)?;
    Ok(socket.into())
}

struct Connection<'a> {
    stream: TcpStream,
    buffer: Vec<u8>,
    spec: &'a Spec,
}

struct Request {
    raw: Vec<u8>,
    method: String,
    path: String,
    query: String,
}

impl Request {
    fn header(&self, name: &str) -> Option<String> {
        let head = String::from_utf8_lossy(&self.raw);
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    }

    fn parameter(&self, name: &str) -> String {
        let mut pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).unwrap_or_default()
    }
}

type Handled = std::io::Result<bool>;

impl Connection<'_> {
    fn serve(mut self) -> std::io::Result<()> {
        self.stream.set_nodelay(true)?;
        if self.spec.has("told") {
            self.hear_of_client()?;
        }
        if self.spec.has("banner") {
            return self.speak_first();
        }
        let idle = self.spec.get("idle_close").and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
        self.stream.set_read_timeout(idle)?;
        while let Some(request) = self.head()? {
            if !self.answer(&request)? {
                break;
            }
        }
        Ok(())
    }

    /// Reads a header of version 2 (haproxy's `proxy-protocol.txt`, 2.2).
    fn hear_of_client(&mut self) -> std::io::Result<()> {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head)?;
        assert_eq!(head[..12], *b"\r\n\r\n\0\r\nQUIT\n", "a header of version 2");
        let mut facts = vec![0; usize::from(u16::from_be_bytes([head[14], head[15]]))];
        self.stream.read_exact(&mut facts)?;
        let about = match (head[12], head[13], &facts[..]) {
            (0x20, _, _) => "nobody".to_owned(),
            (0x21, 0x11, &[a, b, c, d, e, f, g, h, i, j, k, l]) => {
                let port = |high, low| u16::from_be_bytes([high, low]);
                let address = |ip: [u8; 4], port| SocketAddr::from((ip, port));
                format!("{} {}", address([a, b, c, d], port(i, j)), address([e, f, g, h], port(k, l)))
            }
            other => format!("something else: {other:?}"),
        };
        self.spec.note(&format!("told {about}"));
        Ok(())
    }

    /// Says who it is, and then everything again that it is told.
    fn speak_first(mut self) -> std::io::Result<()> {
        self.stream.write_all(format!("{}\n", self.spec.version()).as_bytes())?;
        let mut part = [0; 16 * 1024];
        loop {
            match super::http::uninterrupted(|| self.stream.read(&mut part)) {
                Ok(0) => return Ok(()),
                Ok(read) => self.stream.write_all(&part[..read])?,
                Err(error) => {
                    self.spec.note(&format!("broke {:?}", error.kind()));
                    return Err(error);
                }
            }
        }
    }

    fn head(&mut self) -> std::io::Result<Option<Request>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let raw: Vec<u8> = self.buffer.drain(..end + 4).collect();
                let first = String::from_utf8_lossy(&raw[..find(&raw, b"\r\n").unwrap_or(0)]).into_owned();
                let mut words = first.split(' ').map(str::to_owned);
                let method = words.next().unwrap_or_default();
                let target = words.next().unwrap_or_default();
                let (path, query) = target.split_once('?').unwrap_or((&target, ""));
                let (path, query) = (path.to_owned(), query.to_owned());
                return Ok(Some(Request { raw, method, path, query }));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    fn fill(&mut self) -> std::io::Result<bool> {
        let mut part = [0; 16 * 1024];
        let read = super::http::uninterrupted(|| self.stream.read(&mut part))?;
        self.buffer.extend_from_slice(&part[..read]);
        Ok(read > 0)
    }

    /// Answers one request. Returns false when the connection is to be closed.
    fn answer(&mut self, request: &Request) -> Handled {
        let spec = self.spec;
        let health = spec.get("health_path").unwrap_or("/health");
        if request.path == health {
            return self.answer_health(request);
        }
        let host = request.header("host").unwrap_or_default();
        if spec.get("host").is_some_and(|its| its != host) {
            spec.note(&format!("stranger {host}"));
        }
        if request.header("upgrade").is_some() {
            if request.path == "/frames" {
                return self.websocket();
            }
            return self.echo_tunnel();
        }
        let (what, argument) = request
            .path
            .trim_start_matches('/')
            .split_once('/')
            .unwrap_or((request.path.trim_start_matches('/'), ""));
        match what {
            "early" => {
                self.reply(request, 413, "", b"too large\n")?;
                return Ok(false);
            }
            "drop" => {
                spec.note(&format!("drop {} {argument}", request.method));
                return Ok(false);
            }
            "garbage" => {
                self.stream.write_all(b"this is not http\r\n\r\n")?;
                return Ok(false);
            }
            _ => {}
        }
        if request.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let Some(body) = self.body(request)? else { return Ok(false) };
        if request.header("x-echo").is_some() {
            return self.reply(request, 200, "", &request.raw);
        }
        match what {
            "hold" => {
                spec.note("hold begin");
                wait_for_file(&request.parameter("file"));
                spec.note("hold end");
                self.reply(request, 200, "", format!("{} held\n", spec.version()).as_bytes())
            }
            "sse" => self.stream_events(&request.parameter("file")),
            "status" => self.reply(request, argument.parse().unwrap_or(500), "", b"as asked\n"),
            "env" => self.reply_json(request, &std::env::vars().collect::<BTreeMap<_, _>>()),
            "grow" => {
                // So many megabytes that are never given back.
                let megabytes: usize = argument.parse().unwrap_or(0);
                Vec::leak(vec![1_u8; megabytes << 20]);
                self.reply_json(request, &std::process::id())
            }
            "fds" => self.reply_json(request, &open_files()),
            "cwd" => self.reply_json(request, &std::env::current_dir()?),
            "ids" => {
                let (user, group) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
                self.reply_json(request, &[user, group])
            }
            "exit" => {
                self.reply(request, 200, "connection: close\r\n", b"bye\n")?;
                end("asked to by a request", argument.parse().unwrap_or(0))
            }
            "large" => {
                let length = argument.parse().unwrap_or(0);
                self.reply(request, 200, "", &vec![b'x'; length])
            }
            _ if request.method == "POST" || request.method == "PUT" => {
                let text = format!("{} {} {:016x}\n", spec.version(), body.len(), checksum(&body));
                self.reply(request, 200, "", text.as_bytes())
            }
            _ => self.reply(request, 200, "", format!("{}\n", spec.version()).as_bytes()),
        }
    }

    fn answer_health(&mut self, request: &Request) -> Handled {
        if self.spec.has("health_hang") {
            self.spec.note("health hangs");
            park();
        }
        if self.spec.has("health_redirect") {
            self.spec.note("health 302");
            return self.reply(request, 302, "location: /login\r\n", b"please log in\n");
        }
        let status = self.spec.next_health();
        self.spec.note(&format!("health {status}"));
        self.reply(request, status, "", format!("health of {} is {status}\n", self.spec.version()).as_bytes())
    }

    /// A tunnel that sends its version and then echoes every byte, until the client ends its
    /// direction.
    fn echo_tunnel(&mut self) -> Handled {
        self.stream.set_read_timeout(None)?;
        let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
        self.stream.write_all(format!("{head}{}\n", self.spec.version()).as_bytes())?;
        self.spec.note("tunnel begin");
        loop {
            let bytes = std::mem::take(&mut self.buffer);
            self.stream.write_all(&bytes)?;
            if !self.fill()? {
                // Half-close: the client has ended its direction, and this side still sends.
                self.stream.write_all(b"bye\n")?;
                self.spec.note("tunnel end");
                return Ok(false);
            }
        }
    }

    /// A WebSocket that sends its version in a frame, and notes the close frame that comes back.
    fn websocket(&mut self) -> Handled {
        self.stream.set_read_timeout(None)?;
        let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
        let version = self.spec.version();
        let length = u8::try_from(version.len()).map_err(std::io::Error::other)?;
        self.stream.write_all(&[head.as_bytes(), &[0x81, length], version.as_bytes()].concat())?;
        // A frame of a client has a mask of four bytes behind its head.
        while self.buffer.len() < 8 {
            if !self.fill()? {
                self.spec.note("no close frame");
                return Ok(false);
            }
        }
        let Some(&[first, _, one, two, _, _, high, low]) = self.buffer.first_chunk() else {
            return Ok(false);
        };
        let code = u16::from_be_bytes([high ^ one, low ^ two]);
        self.spec.note(&format!("frame {first:#x} {code}"));
        Ok(false)
    }

    fn stream_events(&mut self, file: &str) -> Handled {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-version: {}\r\ntransfer-encoding: chunked\r\n\r\n",
            self.spec.version()
        );
        self.stream.write_all(head.as_bytes())?;
        self.stream.write_all(b"9\r\ndata: 1\n\n\r\n")?;
        wait_for_file(file);
        self.stream.write_all(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")?;
        Ok(true)
    }

    fn reply_json(&mut self, request: &Request, value: &impl serde::Serialize) -> Handled {
        let body = serde_json::to_vec(value).map_err(std::io::Error::other)?;
        self.reply(request, 200, "content-type: application/json\r\n", &body)
    }

    fn reply(&mut self, request: &Request, status: u16, headers: &str, body: &[u8]) -> Handled {
        let mut bytes = format!(
            "HTTP/1.1 {status} Fixture\r\nx-version: {}\r\n{headers}content-length: {}\r\n\r\n",
            self.spec.version(),
            body.len()
        )
        .into_bytes();
        if request.method != "HEAD" {
            bytes.extend_from_slice(body);
        }
        self.stream.write_all(&bytes)?;
        let close = request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        Ok(!close)
    }

    /// The request's body; `None` if the client broke off within it.
    fn body(&mut self, request: &Request) -> std::io::Result<Option<Vec<u8>>> {
        if request.header("transfer-encoding").is_some() {
            return self.chunked_body();
        }
        let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        self.exactly(length)
    }

    fn chunked_body(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut body = Vec::new();
        loop {
            let Some(line) = self.line()? else { return Ok(None) };
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16);
            match size.map_err(std::io::Error::other)? {
                0 => {
                    while self.line()?.is_some_and(|line| !line.is_empty()) {}
                    return Ok(Some(body));
                }
                size => {
                    let Some(chunk) = self.exactly(size + 2)? else { return Ok(None) };
                    body.extend_from_slice(&chunk[..size]);
                }
            }
        }
    }

    fn line(&mut self) -> std::io::Result<Option<String>> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    fn exactly(&mut self, length: usize) -> std::io::Result<Option<Vec<u8>>> {
        while self.buffer.len() < length {
            if !self.fill()? {
                return Ok(None);
            }
        }
        Ok(Some(self.buffer.drain(..length).collect()))
    }
}

/// The checksum (FNV-1a) that answers a POST, so that a damaged body shows.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The app's open files, as `NUMBER TARGET`.
fn open_files() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.path()).ok()?;
            Some(format!("{} {}", entry.file_name().to_string_lossy(), target.display()))
        })
        .collect()
}

fn wait_for_file(file: &str) {
    let start = std::time::Instant::now();
    while !Path::new(file).exists() {
        if start.elapsed() > 2 * DEADLINE {
            end(&format!("{file} never appeared"), 70);
        }
        pause(Duration::from_millis(5));
    }
}

/// Waits until the process is killed; ends by itself after longer than any test takes.
fn park() -> ! {
    let start = std::time::Instant::now();
    while start.elapsed() < 10 * DEADLINE {
        std::thread::park_timeout(DEADLINE);
    }
    end("forgotten by its test", 70)
}

fn print_line(line: &str) {
    let _ = std::io::stdout().write_all(format!("{line}\n").as_bytes());
}

#[expect(clippy::exit, reason = "the app is a process of its own")]
fn end(why: &str, code: i32) -> ! {
    let _ = std::io::stderr().write_all(format!("{why}\n").as_bytes());
    std::process::exit(code)
}
