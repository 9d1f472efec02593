//! An answer of a daemon: read within limits, decoded, and turned into a [`Failure`] if it reports
//! an error.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::call::{ANSWER_DEADLINE, Call, Limits};
use super::connect::describe;
use super::failure::{Attempt, DENIED_HINT, Failure};
use crate::wire::{Code, ErrorBody};

/// An answer whose body is read line by line or as a whole.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status.
    pub(crate) status: StatusCode,
    /// Whether the body is a stream of events, one per line.
    pub(crate) is_stream: bool,
    pub(super) retry_after: Option<Duration>,
    pub(super) call: Call,
    pub(super) way: String,
    pub(super) failed: Vec<Attempt>,
    pub(super) limits: Limits,
    pub(super) body: Incoming,
    pub(super) buffer: BytesMut,
    /// Drives the connection, and ends it when dropped.
    pub(super) _driver: JoinSet<()>,
}

impl Answer {
    /// The whole body.
    ///
    /// # Errors
    /// The connection broke, or the body is too long or too slow.
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

    /// The body as JSON, if the status is a success.
    ///
    /// # Errors
    /// As [`Answer::bytes`]. An error status is [`Failure::Refused`]; a body that is not the JSON
    /// of a `T` is [`Failure::Foreign`].
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

    /// The next line of the stream without its line end; `None` at the end of the stream. Cancel
    /// safe.
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

    /// The failure of an answer that ended before its last event.
    pub(crate) fn ended_early(&self) -> Failure {
        lost(&self.call, &self.way, "the answer ended early".to_owned())
    }

    /// The failure that the error body in `bytes` describes.
    pub(crate) fn refused(&self, bytes: &[u8]) -> Failure {
        let Some(mut body) = error_body(self.status, bytes) else {
            return self.foreign(format!("it answered `{}` without an error of portokd's", self.status));
        };
        // The daemon's hint names headers of its API. The command line has options instead.
        if body.hint.is_none() || matches!(body.code, Code::Unauthorized | Code::AppRequired) {
            let denied = self.failed.iter().find(|attempt| attempt.denied);
            body.hint = match (body.code, denied) {
                (Code::Unauthorized | Code::Forbidden, Some(attempt)) => {
                    Some(format!("{} could not be used: {}; {DENIED_HINT}", attempt.way, attempt.cause))
                }
                _ => default_hint(body.code, self.retry_after),
            };
        }
        // Somebody who is refused may have reached another daemon than intended: name it.
        let operation = match body.code {
            Code::Unauthorized | Code::Forbidden | Code::RateLimited => {
                format!("{} at {}", self.call.operation, self.way)
            }
            _ => self.call.operation.clone(),
        };
        let no_right = matches!(body.code, Code::Unauthorized | Code::Forbidden);
        let no_socket = no_right && self.failed.iter().any(|attempt| !attempt.denied);
        Failure::Refused { operation, body: Box::new(body), retry_after: self.retry_after, no_socket }
    }

    fn foreign(&self, cause: String) -> Failure {
        Failure::Foreign { operation: self.call.operation.clone(), way: self.way.clone(), cause }
    }
}

/// What portokd answers a client for whom it has no app.
const NO_ROUTE: &str = "no_route";

const NOT_PUBLIC: &str = "there are no admin paths for this host: admin.public is false, as it is by default with several \
                          apps, or admin.hosts names others; use the socket, with --instance NAME or --socket PATH, \
                          or a URL with a host of admin.hosts";

/// Reads an error body leniently: an older daemon, or npm portok, sends no code.
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
    if text("code").as_deref() == Some(NO_ROUTE) {
        body.message = "the daemon took it for a request to an app, and has none for it".to_owned();
        body.hint = Some(NOT_PUBLIC.to_owned());
    }
    Some(body)
}

fn default_hint(code: Code, retry_after: Option<Duration>) -> Option<String> {
    let hint = match code {
        Code::Unauthorized => {
            "give the token with --token or PORTOK_TOKEN, or use the unix socket, to which --instance NAME leads"
                .to_owned()
        }
        Code::AppRequired => "name one of them: --app NAME, or INSTANCE/NAME where the instance is named".to_owned(),
        Code::NoSuchApp => "portok apps shows those that are there".to_owned(),
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

pub(crate) fn lost(call: &Call, way: &str, cause: String) -> Failure {
    let hint = if call.method == Method::GET {
        "try again"
    } else {
        "it may have been done; look at it with `portok status`"
    };
    Failure::Lost { operation: call.operation.clone(), way: way.to_owned(), cause, hint: hint.to_owned() }
}

pub(crate) fn too_late() -> String {
    format!("no answer within {}", humantime::format_duration(ANSWER_DEADLINE))
}
