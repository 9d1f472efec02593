//! Sends one request to a daemon, over the first way that connects, without TLS.
//!
//! A connection serves one request and ends with its [`Answer`]. Dropping an answer closes the
//! connection, which cancels nothing in the daemon. Every answer is bounded in size and, unless the
//! daemon itself bounds the operation, in time. The token is sent over TCP only, and is never part
//! of a message.
//!
//! The order that matters: another way is tried only while nothing has been sent, so no request is
//! made twice.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Request;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use http_body_util::Full;
use hyper::client::conn::http1;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::answer::{self, Answer};
use super::call::{ANSWER_DEADLINE, Call, Limits, Patience};
use super::connect::{NotOpened, describe, open};
use super::failure::{Attempt, DENIED_HINT, Failure};
use super::way::{Daemon, Way, authority};
use crate::wire::{DIRECTORY_HEADER, NDJSON, TOKEN_HEADER};

/// How long one way may take to connect.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Asks one daemon.
#[derive(Debug)]
pub(crate) struct Client {
    daemon: Daemon,
    /// The app that every question is about, if one was named.
    app: Option<String>,
    limits: Limits,
}

/// A connection over which nothing has been sent yet.
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: JoinSet<()>,
    way: String,
    /// Whether it is a unix socket.
    local: bool,
    host: String,
    token: Option<HeaderValue>,
    /// The ways before it that did not work.
    failed: Vec<Attempt>,
}

impl Client {
    /// A client of `daemon`.
    pub(crate) fn new(daemon: Daemon, limits: Limits) -> Self {
        Self { daemon, app: None, limits }
    }

    /// The same client, which asks about `app` alone.
    pub(crate) fn about(self, app: Option<String>) -> Self {
        Self { app, ..self }
    }

    /// The app that every question is about, if one was named.
    pub(crate) fn app(&self) -> Option<&str> {
        self.app.as_deref()
    }

    /// Whether the daemon limits the number of requests on every way, so that polling must be slow.
    pub(crate) fn is_rate_limited(&self) -> bool {
        self.daemon.ways.iter().all(|way| matches!(way, Way::Tcp { .. }))
    }

    /// Sends `call` and returns the answer's JSON, both decoded as `T` and as it is.
    ///
    /// # Errors
    /// Every [`Failure`] of a request; an error status is [`Failure::Refused`].
    pub(crate) async fn ask<T: DeserializeOwned>(&self, call: Call) -> Result<(T, Value), Failure> {
        self.send(call).await?.json().await
    }

    /// Sends `call` and returns the answer before its body is read. An error status is not a
    /// failure here.
    ///
    /// # Errors
    /// No way connects, or the connection ends before the answer's head.
    pub(crate) async fn send(&self, call: Call) -> Result<Answer, Failure> {
        let mut connection = self.connect(&call.operation).await?;
        let lost = |cause: String| answer::lost(&call, &connection.way, cause);
        let request = self.request(&call, &connection).map_err(|error| lost(error.to_string()))?;
        let sending = connection.sender.send_request(request);
        let response = match call.patience {
            Patience::Question => {
                timeout(ANSWER_DEADLINE, sending).await.map_err(|_| lost(answer::too_late()))?
            }
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
            .uri(format!("{}{}", self.daemon.prefix, self.path(call)))
            .header(HOST, &connection.host)
            .header(USER_AGENT, concat!("portok/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, call.accept);
        if let Some(token) = &connection.token {
            request = request.header(TOKEN_HEADER, token);
        }
        if let Some(directory) = call.directory.as_ref().filter(|_| connection.local) {
            request = request.header(DIRECTORY_HEADER, directory);
        }
        if call.body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request.body(Full::from(call.body.clone().unwrap_or_default()))
    }

    /// The path of a request, with the app that it is about.
    fn path(&self, call: &Call) -> String {
        let Some(app) = &self.app else { return call.path.clone() };
        let mark = if call.path.contains('?') { '&' } else { '?' };
        format!("{}{mark}app={}", call.path, encoded(app))
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
                    let local = matches!(way, Way::Socket(_));
                    let way = way.to_string();
                    return Ok(Connection { sender, driver, way, local, host, token, failed });
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
        let is_denied = failed.iter().any(|attempt| attempt.denied);
        let hint = if is_denied { DENIED_HINT.to_owned() } else { self.daemon.advice.clone() };
        Err(Failure::Unreachable {
            operation: operation.to_owned(),
            instance: self.daemon.instance.clone(),
            tried: failed,
            hint: Some(hint),
        })
    }
}

/// `text` as a value of a query (RFC 3986, 2.1).
pub(crate) fn encoded(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' => value.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => value.push(char::from(byte)),
            _ => _ = write!(value, "%{byte:02X}"),
        }
    }
    value
}
