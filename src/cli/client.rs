//! One request to a daemon, one answer: over the first way that can be connected, without TLS.
//!
//! A connection serves one request and ends with its [`Answer`]; dropping an answer closes the connection,
//! which cancels nothing in the daemon. Every answer has a limit on its size and, unless the daemon itself
//! bounds the operation, on its time. The token goes over TCP alone and is never part of a message.
//!
//! The ordering that matters: another way is tried only as long as nothing was sent, so no request is ever
//! made twice.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::failure::{Attempt, Failure};
use super::locate::{Daemon, Way, authority};
use crate::wire::{Code, ErrorBody, NDJSON, TOKEN_HEADER};

/// How long one way may take to connect.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// How long the whole answer may take where nothing but the daemon's own thought is waited for, a probe of the
/// app included.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);

/// When a silent TCP peer is asked whether it is still there, and how often.
const TCP_PROBE: Duration = Duration::from_secs(15);

/// Limits on what an answer may hold, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// A whole answer.
    pub(crate) answer: usize,
    /// One line of a stream.
    pub(crate) line: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { answer: 32 * 1024 * 1024, line: 4 * 1024 * 1024 }
    }
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// What the operator wants, for messages: `switch to port 8081`.
    pub(crate) operation: String,
    /// The method.
    pub(crate) method: Method,
    /// What follows the prefix: `status`, `logs?lines=5`.
    pub(crate) path: String,
    /// The JSON body.
    pub(crate) body: Option<Vec<u8>>,
    /// The media type of the answer.
    pub(crate) accept: &'static str,
    /// Who bounds the time until the answer is there.
    pub(crate) patience: Patience,
}

/// Who bounds the time of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// This client: a question.
    Question,
    /// The daemon, by the app's own limits (`start_timeout` and such), which only it knows. That it is still
    /// there is seen from the connection.
    Operation,
}

impl Call {
    /// A question.
    pub(crate) fn get(operation: impl Into<String>, path: impl Into<String>) -> Self {
        Self {
            operation: operation.into(),
            method: Method::GET,
            path: path.into(),
            body: None,
            accept: "application/json",
            patience: Patience::Question,
        }
    }

    /// An operation.
    pub(crate) fn post(operation: impl Into<String>, path: impl Into<String>) -> Self {
        Self { method: Method::POST, patience: Patience::Operation, ..Self::get(operation, path) }
    }
}

/// Asks one daemon.
#[derive(Debug)]
pub(crate) struct Client {
    daemon: Daemon,
    limits: Limits,
}

/// A connection that nothing was sent over yet.
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: JoinSet<()>,
    way: String,
    host: String,
    token: Option<HeaderValue>,
    /// The ways before it, which did not work.
    failed: Vec<Attempt>,
}

impl Client {
    /// A client of `daemon`.
    pub(crate) fn new(daemon: Daemon, limits: Limits) -> Self {
        Self { daemon, limits }
    }

    /// Whether requests are counted against a limit, so that polling must be slow.
    pub(crate) fn is_rate_limited(&self) -> bool {
        self.daemon.ways.iter().all(|way| matches!(way, Way::Tcp { .. }))
    }

    /// Sends `call` and reads the answer's JSON, both as it is and as `T`.
    ///
    /// # Errors
    /// Every [`Failure`] of a request; an error status is [`Failure::Refused`].
    pub(crate) async fn ask<T: DeserializeOwned>(&self, call: Call) -> Result<(T, Value), Failure> {
        self.send(call).await?.json().await
    }

    /// Sends `call`; the answer's body is not read yet. An error status is not a failure here.
    ///
    /// # Errors
    /// No way could be connected, or the connection ended before the answer's head.
    pub(crate) async fn send(&self, call: Call) -> Result<Answer, Failure> {
        let mut connection = self.connect(&call.operation).await?;
        let lost = |cause: String| lost(&call, &connection.way, cause);
        let request = self.request(&call, &connection).map_err(|error| lost(error.to_string()))?;
        let sending = connection.sender.send_request(request);
        let response = match call.patience {
            Patience::Question => timeout(ANSWER_DEADLINE, sending).await.map_err(|_| lost(too_late()))?,
            Patience::Operation => sending.await,
        };
        let (head, body) = response.map_err(|error| lost(describe(&error)))?.into_parts();
        let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Ok(Answer {
            status: head.status,
            is_stream: head
                .headers
                .get(CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(NDJSON.as_bytes())),
            retry_after: retry_after.map(Duration::from_secs),
            call,
            way: connection.way,
            failed: connection.failed,
            limits: self.limits,
            body,
            buffer: BytesMut::new(),
            _driver: connection.driver,
        })
    }

    fn request(&self, call: &Call, connection: &Connection) -> http::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("{}{}", self.daemon.prefix, call.path))
            .header(HOST, &connection.host)
            .header(USER_AGENT, concat!("portok/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, call.accept);
        if let Some(token) = &connection.token {
            request = request.header(TOKEN_HEADER, token);
        }
        if call.body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request.body(Full::from(call.body.clone().unwrap_or_default()))
    }

    async fn connect(&self, operation: &str) -> Result<Connection, Failure> {
        let mut failed = Vec::new();
        for way in &self.daemon.ways {
            match timeout(CONNECT_DEADLINE, open(way)).await {
                Ok(Ok((sender, driver, token))) => {
                    let host = match way {
                        Way::Socket(_) => "localhost".to_owned(),
                        Way::Tcp { host, port, .. } => authority(host, *port),
                    };
                    return Ok(Connection { sender, driver, way: way.to_string(), host, token, failed });
                }
                Ok(Err(NotOpened { cause, denied })) => {
                    failed.push(Attempt { way: way.to_string(), cause, denied });
                }
                Err(_) => failed.push(Attempt {
                    way: way.to_string(),
                    cause: format!("no connection within {}", humantime::format_duration(CONNECT_DEADLINE)),
                    denied: false,
                }),
            }
        }
        let hint = self.unreachable_hint(&failed);
        Err(Failure::Unreachable { operation: operation.to_owned(), tried: failed, hint: Some(hint) })
    }

    fn unreachable_hint(&self, failed: &[Attempt]) -> String {
        let mut hint = if failed.iter().any(|attempt| attempt.denied) {
            DENIED_HINT.to_owned()
        } else {
            match self.daemon.instance.as_deref() {
                Some("default") => "is portokd running? name its instance with --instance NAME, or its place with --url or --socket".to_owned(),
                Some(name) => format!("is portokd running? systemctl status portok@{name}"),
                None => "is portokd running there?".to_owned(),
            }
        };
        if let Some(remark) = &self.daemon.remark {
            hint = format!("{hint} ({remark})");
        }
        hint
    }
}

/// What to do where rights are missing.
const DENIED_HINT: &str = "use sudo, or become a member of the socket's group (admin.socket_group)";

type Opened = (http1::SendRequest<Full<Bytes>>, JoinSet<()>, Option<HeaderValue>);

struct NotOpened {
    cause: String,
    denied: bool,
}

impl From<io::Error> for NotOpened {
    fn from(error: io::Error) -> Self {
        Self { denied: error.kind() == io::ErrorKind::PermissionDenied, cause: describe_io(&error) }
    }
}

async fn open(way: &Way) -> Result<Opened, NotOpened> {
    match way {
        Way::Socket(path) => {
            let (sender, driver) = handshake(UnixStream::connect(path).await?).await?;
            Ok((sender, driver, None))
        }
        Way::Tcp { host, port, token } => {
            let token = match token.read() {
                Ok(token) => token,
                Err((cause, kind)) => {
                    return Err(NotOpened { cause, denied: kind == io::ErrorKind::PermissionDenied });
                }
            };
            let token = token.map(|token| HeaderValue::from_str(token.expose())).transpose();
            let Ok(mut token) = token else {
                return Err(NotOpened {
                    cause: "the token holds what a header cannot carry".into(),
                    denied: false,
                });
            };
            if let Some(token) = &mut token {
                token.set_sensitive(true);
            }
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            let probe = socket2::TcpKeepalive::new().with_time(TCP_PROBE).with_interval(TCP_PROBE);
            socket2::SockRef::from(&stream).set_tcp_keepalive(&probe)?;
            let (sender, driver) = handshake(stream).await?;
            Ok((sender, driver, token))
        }
    }
}

async fn handshake<S>(stream: S) -> Result<(http1::SendRequest<Full<Bytes>>, JoinSet<()>), NotOpened>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| NotOpened { cause: describe(&error), denied: false })?;
    let mut driver = JoinSet::new();
    // Its error reaches the request or the body, whichever waits.
    driver.spawn(async move { drop(connection.await) });
    Ok((sender, driver))
}

/// An answer whose body is read by the line or as a whole.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: StatusCode,
    /// Whether the body is one event a line.
    pub(crate) is_stream: bool,
    retry_after: Option<Duration>,
    call: Call,
    way: String,
    failed: Vec<Attempt>,
    limits: Limits,
    body: Incoming,
    buffer: BytesMut,
    _driver: JoinSet<()>,
}

impl Answer {
    /// The whole body.
    ///
    /// # Errors
    /// The connection broke, the body is too long, or it came too slowly.
    pub(crate) async fn bytes(&mut self) -> Result<Bytes, Failure> {
        let reading = async {
            while let Some(data) = self.frame().await? {
                if self.buffer.len() + data.len() > self.limits.answer {
                    return Err(
                        self.foreign(format!("the answer is longer than {} bytes", self.limits.answer))
                    );
                }
                self.buffer.extend_from_slice(&data);
            }
            Ok(std::mem::take(&mut self.buffer).freeze())
        };
        match timeout(ANSWER_DEADLINE, reading).await {
            Ok(result) => result,
            Err(_) => Err(lost(&self.call, &self.way, too_late())),
        }
    }

    /// The body as JSON, where the status is a success.
    ///
    /// # Errors
    /// As [`Answer::bytes`]; an error status is [`Failure::Refused`], anything but the JSON of a `T`
    /// [`Failure::Foreign`].
    pub(crate) async fn json<T: DeserializeOwned>(mut self) -> Result<(T, Value), Failure> {
        let bytes = self.bytes().await?;
        if !self.status.is_success() {
            return Err(self.refused(&bytes));
        }
        self.decode(&bytes)
    }

    /// `bytes` as JSON and as `T`.
    pub(crate) fn decode<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<(T, Value), Failure> {
        let not_json = |error: serde_json::Error| self.foreign(format!("unexpected answer: {error}"));
        let value: Value = serde_json::from_slice(bytes).map_err(not_json)?;
        let typed = T::deserialize(&value).map_err(not_json)?;
        Ok((typed, value))
    }

    /// The next line of the stream, without its end; `None` when the stream is over. Cancel safe.
    ///
    /// # Errors
    /// The connection broke or a line is too long.
    pub(crate) async fn line(&mut self) -> Result<Option<Bytes>, Failure> {
        let mut n_seen = 0;
        loop {
            if let Some(end) = self.buffer[n_seen..].iter().position(|byte| *byte == b'\n') {
                let mut line = self.buffer.split_to(n_seen + end + 1);
                line.truncate(n_seen + end);
                return Ok(Some(line.freeze()));
            }
            n_seen = self.buffer.len();
            if n_seen > self.limits.line {
                return Err(self.foreign(format!("a line is longer than {} bytes", self.limits.line)));
            }
            match self.frame().await? {
                Some(data) => self.buffer.extend_from_slice(&data),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Ok(Some(std::mem::take(&mut self.buffer).freeze())),
            }
        }
    }

    async fn frame(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(lost(&self.call, &self.way, describe(&error))),
            }
        }
    }

    /// The connection ended before what was waited for.
    pub(crate) fn ended_early(&self) -> Failure {
        lost(&self.call, &self.way, "the answer ended early".to_owned())
    }

    /// The error that `bytes` tell of; what is not portokd's is told as such.
    pub(crate) fn refused(&self, bytes: &[u8]) -> Failure {
        let Some(mut body) = error_body(self.status, bytes) else {
            return self.foreign(format!("it answered `{}` without an error of portokd's", self.status));
        };
        if body.hint.is_none() {
            let denied = self.failed.iter().find(|attempt| attempt.denied);
            body.hint = match (body.code, denied) {
                (Code::Unauthorized | Code::Forbidden, Some(attempt)) => {
                    Some(format!("{} could not be used: {}; {DENIED_HINT}", attempt.way, attempt.cause))
                }
                _ => default_hint(body.code, self.retry_after),
            };
        }
        Failure::Refused {
            operation: self.call.operation.clone(),
            body: Box::new(body),
            retry_after: self.retry_after,
        }
    }

    fn foreign(&self, cause: String) -> Failure {
        Failure::Foreign { operation: self.call.operation.clone(), way: self.way.clone(), cause }
    }
}

/// Reads an error leniently: an older daemon, or npm portok, sends no code.
fn error_body(status: StatusCode, bytes: &[u8]) -> Option<ErrorBody> {
    if let Ok(body) = serde_json::from_slice(bytes) {
        return Some(body);
    }
    let value: Value = serde_json::from_slice(bytes).ok()?;
    let text = |key| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let error = text("error")?;
    let code = match status.as_u16() {
        400 => Code::BadRequest,
        401 => Code::Unauthorized,
        403 => Code::Forbidden,
        404 => Code::NotFound,
        405 => Code::MethodNotAllowed,
        409 if error.starts_with("Health check") => Code::HealthFailed,
        409 => Code::Busy,
        422 => Code::ConfigInvalid,
        429 => Code::RateLimited,
        503 => Code::ShuttingDown,
        _ => Code::Internal,
    };
    let mut body = ErrorBody::new(code, error.clone(), text("message").unwrap_or(error));
    body.hint = text("hint");
    Some(body)
}

fn default_hint(code: Code, retry_after: Option<Duration>) -> Option<String> {
    let hint = match code {
        Code::Unauthorized => {
            "give the token with --token or PORTOK_TOKEN, or use the unix socket".to_owned()
        }
        Code::Forbidden => "run it on the daemon's host, or use the unix socket".to_owned(),
        Code::Busy => "`portok status` shows what is under way, `portok cancel` ends a deploy".to_owned(),
        Code::RateLimited => {
            let wait = retry_after
                .map_or_else(|| "a minute".to_owned(), |wait| humantime::format_duration(wait).to_string());
            format!("try again in {wait}; the unix socket has no limit")
        }
        Code::NoApp => "say what to run: portok deploy --cmd \"node app.js\"".to_owned(),
        Code::StateUnwritable => "make the state file's folder writable; serving goes on".to_owned(),
        _ => return None,
    };
    Some(hint)
}

fn lost(call: &Call, way: &str, cause: String) -> Failure {
    let hint = if call.method == Method::GET {
        "try again"
    } else {
        "it may have been done; look at it with `portok status`"
    };
    Failure::Lost { operation: call.operation.clone(), way: way.to_owned(), cause, hint: hint.to_owned() }
}

fn too_late() -> String {
    format!("no answer within {}", humantime::format_duration(ANSWER_DEADLINE))
}

/// hyper's error with what lies behind it.
fn describe(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The system's words without its number.
fn describe_io(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}
