//! What the head of a request that hyper has read says, and whether it may pass. The fields are
//! walked once. Pure.

use http::request::Parts;
use http::{HeaderName, Method, StatusCode, Version};

use super::gate;
use crate::http1::fields::{self, Kind, MOST_OPTIONS, tokens};
use crate::http1::host::is_host;
use crate::http1::target::RequestTarget;

/// What the fields of a request say to a proxy.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The length that the head tells.
    pub(super) length: Option<u64>,
    /// The body comes in chunks.
    pub(super) chunked: bool,
    /// The client takes trailers.
    pub(super) trailers: bool,
    /// It asks for another protocol (RFC 9110, 7.8).
    pub(super) upgrade: bool,
    /// It may name another client than the peer.
    pub(super) is_forwarded: bool,
    /// The fields that `Connection` names, except those without which the message would mean
    /// something else.
    pub(super) nominated: Vec<HeaderName>,
}

impl Facts {
    /// The body that the request has.
    pub(super) fn body(&self) -> gate::BodyFraming {
        if self.chunked {
            gate::BodyFraming::Chunked
        } else {
            gate::BodyFraming::Length(self.length.unwrap_or(0))
        }
    }
}

/// Judges a request. Refuses `CONNECT`, and what hyper lets pass although it can be understood in
/// two ways (RFC 9112, 3.2 and 6.1). `raw` is the target as the client wrote it.
pub(super) fn judge<'a>(
    request: &Parts,
    raw: Option<&'a [u8]>,
) -> Result<(RequestTarget<'a>, Facts), StatusCode> {
    if request.method == Method::CONNECT {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let mut facts = Facts::default();
    let (mut hosts, mut codings, mut options) = (0, 0, 0);
    let (mut fits, mut protocols, mut asks_for_one) = (true, false, false);
    for (name, value) in &request.headers {
        let value = value.as_bytes();
        match Kind::of(name.as_str().as_bytes()) {
            Kind::Host => {
                hosts += 1;
                fits &= is_host(value);
            }
            Kind::ContentLength => facts.length = facts.length.or_else(|| fields::decimal(value)),
            Kind::TransferEncoding => {
                codings += 1;
                fits &= value.eq_ignore_ascii_case(b"chunked");
                facts.chunked = true;
            }
            Kind::Connection => {
                // One more than may be is enough to refuse it.
                for option in tokens(value).take(MOST_OPTIONS + 1 - options) {
                    options += 1;
                    asks_for_one |= option.eq_ignore_ascii_case(b"upgrade");
                    facts.nominated.extend(fields::nominated(option));
                }
                fits &= options <= MOST_OPTIONS;
            }
            Kind::Upgrade => protocols = true,
            Kind::Te => facts.trailers |= tokens(value).any(|part| part.eq_ignore_ascii_case(b"trailers")),
            Kind::Forwarded | Kind::Claim => facts.is_forwarded = true,
            _ => (),
        }
    }
    let one_host = hosts == 1 || hosts == 0 && request.version < Version::HTTP_11;
    facts.upgrade = protocols && asks_for_one && request.version >= Version::HTTP_11;
    let target = raw.and_then(|raw| RequestTarget::of(raw, request.method == Method::OPTIONS));
    let target = target.filter(|_| fits && one_host && codings <= 1).ok_or(StatusCode::BAD_REQUEST)?;
    Ok((target, facts))
}
