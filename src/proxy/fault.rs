//! Errors of portok's own: why a request gets no answer of the app's, and what it gets instead.
//!
//! Pure. A [`Fault`] is made where something fails, and answered by the request's ticket, which
//! counts it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::board::Maintenance;
use super::tiers::Quota;
use crate::config::Pages;
use crate::want;

/// The field that marks portok's own answers.
pub(super) const ERROR: &str = "portok-error";

/// When a client may come again that found the app in maintenance, in seconds.
const AFTER_MAINTENANCE: &str = "60";

/// Why portok answers in the app's place.
#[derive(Debug)]
pub(super) enum Fault {
    /// No app has a route for the request's host and path. With the status to answer with.
    NoRoute(u16),
    /// The request's host is another one than the certificate that the client was shown is for.
    Misdirected,
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
    /// The client has made as many requests as its tier allows.
    TierLimit(Box<Quota>),
    /// There are too many tunnels.
    TooManyTunnels,
    /// All connections to the app are in use.
    UpstreamFull,
    /// As many requests wait for the app as may, or all that wait have as many bytes as they may.
    HoldFull,
    /// It has waited for the app for as long as it may.
    HeldTooLong,
    /// The app is in maintenance: every request gets this answer.
    Maintenance(Arc<Maintenance>),
}

impl Fault {
    /// Why a connection to the app could not be opened.
    pub(super) fn of_connect(error: io::Error) -> Self {
        if want::is_own(&error) { Self::Want(error) } else { Self::Refused(error) }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::NoRoute(status) => StatusCode::from_u16(*status).unwrap_or(StatusCode::NOT_FOUND),
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Refused(_) | Self::Reset(_) | Self::Invalid(_) => StatusCode::BAD_GATEWAY,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooManyAtOnce | Self::TierLimit(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::NoLiveTarget
            | Self::Want(_)
            | Self::TooManyTunnels
            | Self::UpstreamFull
            | Self::HoldFull
            | Self::HeldTooLong => StatusCode::SERVICE_UNAVAILABLE,
            Self::Maintenance(answer) => {
                StatusCode::from_u16(answer.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
            }
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The value of `portok-error`.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::NoRoute(_) => "no_route",
            Self::Misdirected => "misdirected",
            Self::Method => "method_not_allowed",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::TooManyAtOnce => "too_many_at_once",
            Self::TierLimit(_) => "tier_limit",
            Self::TooManyTunnels => "too_many_tunnels",
            Self::UpstreamFull => "upstream_full",
            Self::Refused(_) => "upstream_refused",
            Self::Reset(_) => "upstream_reset",
            Self::Invalid(_) => "upstream_invalid",
            Self::NoLiveTarget => "no_live_target",
            Self::Want(_) => "upstream_full",
            Self::Timeout(_) => "upstream_timeout",
            Self::HoldFull => "hold_full",
            Self::HeldTooLong => "held_too_long",
            Self::Maintenance(_) => "maintenance",
        }
    }

    /// What happened, for the log and the metrics.
    pub(super) fn cause(&self) -> String {
        match self {
            Self::NoRoute(_) => "no app is there for this host and path".to_owned(),
            Self::Misdirected => "the certificate that the client was shown is not for this host".to_owned(),
            Self::Method => "portok opens no tunnels for CONNECT".to_owned(),
            Self::BodyTooLarge => "the request's body is longer than proxy.max_body".to_owned(),
            Self::Want(error) => format!("portok itself cannot connect to the app: {error}"),
            Self::BodyTimeout => {
                "the client sent nothing more of its body for limits.body_timeout".to_owned()
            }
            Self::TooManyAtOnce => {
                "the client's address has limits.requests_per_address requests under way".to_owned()
            }
            Self::TierLimit(quota) => {
                format!("the client has made as many requests as its tier allows: {}", quota.allowed())
            }
            Self::TooManyTunnels => "limits.tunnels are open".to_owned(),
            Self::UpstreamFull => "all of upstream.max_connections are in use".to_owned(),
            Self::Refused(error) => format!("the app takes no connection: {error}"),
            Self::Reset(error) => format!("the app broke off before its answer: {error}"),
            Self::Invalid(what) => format!("the app's answer is not valid: {what}"),
            Self::NoLiveTarget => "no app is live".to_owned(),
            Self::Timeout(what) => format!("timed out: {what}"),
            Self::HoldFull => "the app takes no request for now, and as many wait for it as \
                hold.max_requests and hold.max_memory allow"
                .to_owned(),
            Self::HeldTooLong => "the app took no request for hold.max_time".to_owned(),
            Self::Maintenance(_) => "the app is in maintenance".to_owned(),
        }
    }

    /// Whether it is a failure of somebody's, and not what an operator wants.
    pub(super) fn is_error(&self) -> bool {
        !matches!(self, Self::Maintenance(_) | Self::TierLimit(_))
    }

    /// The page that an operator wants clients to see.
    fn page(&self) -> Option<Bytes> {
        match self {
            Self::Maintenance(answer) => answer.page.clone(),
            _ => None,
        }
    }

    /// The answer. `verbose`: with the cause. `close`: the connection ends with it. `late`: the
    /// status if the app took too long. `pages`: what a client that takes HTML gets instead.
    pub(super) fn answer(
        &self,
        verbose: bool,
        close: bool,
        late: u16,
        pages: Option<&Pages>,
    ) -> Response<Bytes> {
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
        let page = self.page().or_else(|| pages?.of(status.as_u16()).cloned());
        let (content_type, body) = match page {
            Some(page) => ("text/html; charset=utf-8", page),
            None => ("application/json", Bytes::from(format!("{text}\n"))),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(ERROR, HeaderValue::from_static(self.code()));
        if matches!(self, Self::Maintenance(_)) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(AFTER_MAINTENANCE));
        } else if let Self::TierLimit(quota) = self {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(quota.seconds()));
            headers.extend(quota.header_fields());
        } else if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
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
