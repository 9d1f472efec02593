//! What `[tls]` asks of requests, encrypted ones and others.
//!
//! Worked out once, when a configuration comes into force; what is shown to clients meanwhile is
//! read from the [`Face`]. Whoever has no `[tls]` has no [`Edge`], and pays for none.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::STRICT_TRANSPORT_SECURITY;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::headers::is_trusted;
use crate::config::Config;
use crate::http1::host::compared;
use crate::tls::{Choice, Face};

/// The field in which a proxy before portok says how it was asked.
const PROTO: &[u8] = b"x-forwarded-proto";

/// See the module.
#[derive(Debug)]
pub(super) struct Edge {
    face: Arc<Face>,
    /// How requests are sent to where they would be encrypted.
    redirect: Option<Redirect>,
    /// What browsers are told.
    pub(super) hsts: Option<HeaderValue>,
}

/// A status and a port.
#[derive(Debug, Clone, Copy)]
struct Redirect {
    status: StatusCode,
    port: u16,
}

impl Edge {
    /// That of `config`, where `face` is shown.
    pub(super) fn of(config: &Config, face: &Arc<Face>) -> Option<Self> {
        let tls = config.tls.as_ref()?;
        // A port that the kernel chooses is nobody's to know beforehand.
        let port = tls.listen.iter().map(|addr| addr.port()).find(|port| *port != 0);
        let status = tls.redirect.and_then(|status| StatusCode::from_u16(status).ok());
        Some(Self {
            face: Arc::clone(face),
            redirect: status.zip(port).map(|(status, port)| Redirect { status, port }),
            hsts: tls.hsts.as_ref().and_then(|value| HeaderValue::try_from(value).ok()),
        })
    }

    /// Whether portok itself may have to answer a request for this host: one that is not for the
    /// host of the certificate that the client was shown, or is not encrypted and could be.
    pub(super) fn may_answer(&self, host: &[u8], shown: Option<&Choice>) -> bool {
        match shown {
            Some(shown) => !shown.allows(host),
            None => self.redirect.is_some() && self.face.covers(host) || self.face.may_be_asked(),
        }
    }

    /// The answer to a request that is not encrypted and asks for the proof that a host is ours.
    pub(super) fn proof(&self, path: &[u8], shown: Option<&Choice>) -> Option<String> {
        if shown.is_none() { self.face.proof(path) } else { None }
    }

    /// Where a request that is not encrypted is sent, and with which status; `None`: it is served.
    /// A peer in `trusted` may say that it was encrypted on its way.
    pub(super) fn elsewhere(
        &self,
        host: Option<&[u8]>,
        headers: &HeaderMap,
        peer: IpAddr,
        trusted: &[ipnet::IpNet],
    ) -> Option<(StatusCode, String)> {
        let Redirect { status, port } = self.redirect?;
        let host = compared(host?);
        let was_encrypted = || says_https(headers) && is_trusted(peer, trusted);
        if !self.face.covers(&host) || was_encrypted() {
            return None;
        }
        let host = std::str::from_utf8(&host).ok()?;
        let port = if port == 443 { String::new() } else { format!(":{port}") };
        Some((status, format!("https://{host}{port}")))
    }

    /// Tells a browser to stay with TLS, where an app has not told it.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        if let Some(hsts) = &self.hsts
            && !headers.contains_key(STRICT_TRANSPORT_SECURITY)
        {
            headers.insert(STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
    }
}

/// Whether the outermost hop was encrypted, as a proxy before portok says it.
fn says_https(headers: &HeaderMap) -> bool {
    let mut fields = headers.iter().filter(|(name, _)| name.as_str().as_bytes() == PROTO);
    let first = fields.next().and_then(|(_, value)| value.as_bytes().split(|&byte| byte == b',').next());
    first.is_some_and(|proto| proto.trim_ascii().eq_ignore_ascii_case(b"https"))
}
