//! The responses: one JSON value, text, or events line by line.
//!
//! The body of a stream reads a channel that a task on the control plane fills (see
//! [`super::api`]). If the body is dropped, the channel closes and that task ends, and nothing else
//! does.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::proxy::ReservedBody;
use crate::wire::{self, Code, ErrorBody};

/// A refused request's error, and the header that goes with it.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) body: Box<ErrorBody>,
    pub(super) header: Option<(HeaderName, HeaderValue)>,
}

impl From<ErrorBody> for Refusal {
    fn from(body: ErrorBody) -> Self {
        Self { body: Box::new(body), header: None }
    }
}

impl From<Box<ErrorBody>> for Refusal {
    fn from(body: Box<ErrorBody>) -> Self {
        Self { body, header: None }
    }
}

impl Refusal {
    pub(super) fn with_header(body: ErrorBody, name: HeaderName, value: HeaderValue) -> Self {
        Self { body: Box::new(body), header: Some((name, value)) }
    }

    /// The path exists, for `allowed` methods.
    pub(super) fn method_not_allowed(path: &str, allowed: &'static str) -> Self {
        let body = ErrorBody::new(
            Code::MethodNotAllowed,
            "Method not allowed",
            format!("{path} is answered to {allowed} only"),
        );
        Self::with_header(body, ALLOW, HeaderValue::from_static(allowed))
    }

    pub(super) fn into_response(self) -> Response<ReservedBody> {
        let mut response = error(&self.body);
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// An error with its code's status.
pub(super) fn error(body: &ErrorBody) -> Response<ReservedBody> {
    let status = StatusCode::from_u16(body.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(status, body)
}

/// One JSON value.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<ReservedBody> {
    match serde_json::to_vec(value) {
        Ok(bytes) => whole(status, "application/json; charset=utf-8", bytes),
        Err(cause) => {
            tracing::error!(%cause, "an answer of the admin API cannot be written as JSON");
            let text = r#"{"error":"Internal error","message":"the answer cannot be written as JSON","code":"internal"}"#;
            whole(StatusCode::INTERNAL_SERVER_ERROR, "application/json; charset=utf-8", text)
        }
    }
}

/// A response whose body is complete.
pub(super) fn whole(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<ReservedBody> {
    respond(status, content_type, Full::new(body.into()).map_err(never).boxed())
}

/// A response whose body is what comes through `lines`, until the sender is dropped.
pub(super) fn stream(lines: mpsc::Receiver<Bytes>) -> Response<ReservedBody> {
    respond(StatusCode::OK, wire::NDJSON, Lines(lines).map_err(never).boxed())
}

/// The same answer to HEAD: with the body's length and without the body (RFC 9110, 9.3.2).
pub(super) fn without_body(response: Response<ReservedBody>) -> Response<ReservedBody> {
    let (mut head, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact() {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Response::from_parts(head, Empty::new().map_err(never).boxed())
}

fn respond(status: StatusCode, content_type: &'static str, body: ReservedBody) -> Response<ReservedBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn never(never: Infallible) -> io::Error {
    match never {}
}

/// Each chunk is one frame, so that it is flushed as it comes.
struct Lines(mpsc::Receiver<Bytes>);

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text(response: Response<ReservedBody>) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn an_error_has_its_codes_status_and_its_header() {
        let response = Refusal::method_not_allowed("/__status", "GET, HEAD").into_response();
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()[ALLOW], "GET, HEAD");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        let body: ErrorBody = serde_json::from_str(&text(response).await).unwrap();
        assert_eq!(body.code, Code::MethodNotAllowed);
    }

    #[tokio::test]
    async fn the_answer_to_head_tells_the_length_and_sends_nothing() {
        let response = without_body(json(StatusCode::OK, &[1, 2, 3]));
        assert_eq!(response.headers()[CONTENT_LENGTH], "7");
        assert_eq!(text(response).await, "");
    }

    #[tokio::test]
    async fn a_stream_gives_each_line_as_its_own_frame() {
        let (sender, receiver) = mpsc::channel(4);
        let mut body = stream(receiver).into_body();
        for line in ["one\n", "two\n"] {
            sender.send(Bytes::from_static(line.as_bytes())).await.unwrap();
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), line);
        }
        drop(sender);
        assert!(body.frame().await.is_none());
    }
}
