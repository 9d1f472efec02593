//! Errors of portok's own: why a request gets no answer of the app's, and what it gets instead.
//!
//! Pure. A [`Fault`] is made where something fails, and answered by the request's ticket, which
//! counts it.

use std::io;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::want;

/// The field that marks portok's own answers.
const ERROR: &str = "portok-error";

/// Why portok answers in the app's place.
#[derive(Debug)]
pub(super) enum Fault {
    /// No app has a route for the request's host and path. With the status to answer with.
    NoRoute(u16),
    /// No target is live.
    NoLiveTarget,
    /// The app accepts no connection.
    Refused(io::Error),
    /// portok itself lacks what a connection needs, a file descriptor for example.
    Want(io::Error),
    /// The app broke off before its answer.
    Reset(io::Error),
    /// The app's answer cannot be read.
    Invalid(&'static str),
    /// The wait that this key limits took too long.
    Timeout(&'static str),
    /// The method is `CONNECT`.
    Method,
    /// The request's body is longer than the limit.
    BodyTooLarge,
    /// The client sends nothing more of its body.
    BodyTimeout,
    /// The client's address has too many requests under way.
    TooManyAtOnce,
    /// There are too many tunnels.
    TooManyTunnels,
    /// All connections to the app are in use.
    UpstreamFull,
}

impl Fault {
    /// Why a connection to the app could not be opened.
    pub(super) fn of_connect(error: io::Error) -> Self {
        if want::is_own(&error) { Self::Want(error) } else { Self::Refused(error) }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute(status) => StatusCode::from_u16(*status).unwrap_or(StatusCode::NOT_FOUND),
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Refused(_) | Self::Reset(_) | Self::Invalid(_) => StatusCode::BAD_GATEWAY,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooManyAtOnce => StatusCode::TOO_MANY_REQUESTS,
            Self::NoLiveTarget | Self::Want(_) | Self::TooManyTunnels | Self::UpstreamFull => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The value of `portok-error`.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::NoRoute(_) => "no_route",
            Self::Method => "method_not_allowed",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::TooManyAtOnce => "too_many_at_once",
            Self::TooManyTunnels => "too_many_tunnels",
            Self::UpstreamFull => "upstream_full",
            Self::Refused(_) => "upstream_refused",
            Self::Reset(_) => "upstream_reset",
            Self::Invalid(_) => "upstream_invalid",
            Self::NoLiveTarget => "no_live_target",
            Self::Want(_) => "upstream_full",
            Self::Timeout(_) => "upstream_timeout",
        }
    }

    /// What happened, for the log and the metrics.
    pub(super) fn cause(&self) -> String {
        match self {
            Self::NoRoute(_) => "no app is there for this host and path".to_owned(),
            Self::Method => "portok opens no tunnels for CONNECT".to_owned(),
            Self::BodyTooLarge => "the request's body is longer than proxy.max_body".to_owned(),
            Self::Want(error) => format!("portok itself cannot connect to the app: {error}"),
            Self::BodyTimeout => {
                "the client sent nothing more of its body for limits.body_timeout".to_owned()
            }
            Self::TooManyAtOnce => {
                "the client's address has limits.requests_per_address requests under way".to_owned()
            }
            Self::TooManyTunnels => "limits.tunnels are open".to_owned(),
            Self::UpstreamFull => "all of upstream.max_connections are in use".to_owned(),
            Self::Refused(error) => format!("the app takes no connection: {error}"),
            Self::Reset(error) => format!("the app broke off before its answer: {error}"),
            Self::Invalid(what) => format!("the app's answer is not valid HTTP/1.1: {what}"),
            Self::NoLiveTarget => "no app is live".to_owned(),
            Self::Timeout(what) => format!("timed out: {what}"),
        }
    }

    /// The answer. `verbose`: with the cause. `close`: the connection ends with it. `late`: the
    /// status if the app took too long.
    pub(super) fn answer(&self, verbose: bool, close: bool, late: u16) -> Response<Bytes> {
        let status = match self {
            Self::Timeout(_) => StatusCode::from_u16(late).unwrap_or(self.status()),
            _ => self.status(),
        };
        let mut text = serde_json::json!({
            "error": status.canonical_reason().unwrap_or_default(),
            "code": self.code(),
        });
        if verbose {
            text["message"] = self.cause().into();
        }
        let mut response = Response::new(Bytes::from(format!("{text}\n")));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(ERROR, HeaderValue::from_static(self.code()));
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            let allow = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, TRACE");
            headers.insert(header::ALLOW, allow);
        }
        if close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
