//! What is known of a request, for its line.
//!
//! The texts of a client are of any bytes. Each is cut at a bound when it comes in, so that an
//! entry, and the line that is made of it, is of bounded size.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A text of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
    /// The method.
    Method,
    /// The host as the client named it.
    Host,
    /// The path, and the query where lines have it.
    Path,
    /// `User-Agent`.
    UserAgent,
    /// `Referer`, without its query unless lines have it.
    Referer,
    /// The request's id.
    RequestId,
    /// The trace that it belongs to.
    TraceId,
    /// The release that answered.
    Release,
}

/// How many texts there are.
const TEXTS: usize = 8;

impl Text {
    /// How many bytes of it are kept.
    const fn most(self) -> usize {
        match self {
            Self::Method | Self::TraceId => 32,
            Self::Host => 300,
            Self::Path => 4096,
            Self::UserAgent | Self::Referer => 1024,
            Self::RequestId => 128,
            Self::Release => 64,
        }
    }
}

/// Stands at the end of a text that was cut.
const CUT: &[u8] = b"...";

/// Where a text of an entry lies.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    at: u16,
    length: u16,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When its head had come.
    pub time: SystemTime,
    /// The client's address.
    pub client: IpAddr,
    /// The version of HTTP, `HTTP/1.1`.
    pub proto: &'static str,
    /// How it was answered.
    pub status: u16,
    /// Bytes of its body that came from the client. Of a tunnel: all that came through it.
    pub bytes_in: u64,
    /// Bytes of the answer's body that went to the client. Of a tunnel: all that went through it.
    pub bytes_out: u64,
    /// From its head to the last byte of the answer, or to the tunnel's end.
    pub duration: Duration,
    /// From the moment at which it was first sent to the app to the head of the answer.
    pub upstream: Option<Duration>,
    /// The app that it was for.
    pub app: Option<Arc<str>>,
    /// The number of the replica that answered.
    pub replica: Option<u16>,
    /// The port of what answered.
    pub port: Option<u16>,
    /// It was sent, or tried to be sent, more than once.
    pub retried: bool,
    /// The code of portok's own error answer, or of what broke the app's answer off.
    pub error: Option<&'static str>,
    /// It became a tunnel.
    pub tunnel: bool,
    /// The tier of service that it was counted in.
    pub tier: Option<Arc<str>>,
    texts: Vec<u8>,
    spans: [Span; TEXTS],
}

impl Entry {
    /// A request of `client` whose head has come, with room for usual texts.
    pub fn new(client: IpAddr, proto: &'static str) -> Self {
        Self {
            time: SystemTime::now(),
            client,
            proto,
            status: 0,
            bytes_in: 0,
            bytes_out: 0,
            duration: Duration::ZERO,
            upstream: None,
            app: None,
            replica: None,
            port: None,
            retried: false,
            error: None,
            tunnel: false,
            tier: None,
            texts: Vec::with_capacity(384),
            spans: [Span::default(); TEXTS],
        }
    }

    /// Keeps `bytes` as `text`, cut at its bound. The first that comes counts.
    pub fn set(&mut self, text: Text, bytes: &[u8]) {
        if self.spans[text as usize].length > 0 {
            return;
        }
        let most = text.most();
        let at = self.texts.len();
        if bytes.len() <= most {
            self.texts.extend_from_slice(bytes);
        } else {
            self.texts.extend_from_slice(&bytes[..most - CUT.len()]);
            self.texts.extend_from_slice(CUT);
        }
        let number = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
        self.spans[text as usize] = Span { at: number(at), length: number(self.texts.len() - at) };
    }

    /// The bytes of `text`; `None`: it has none.
    pub fn text(&self, text: Text) -> Option<&[u8]> {
        let Span { at, length } = self.spans[text as usize];
        let at = usize::from(at);
        (length > 0).then(|| &self.texts[at..at + usize::from(length)])
    }

    /// Whether it went wrong for portok or the app, and not for the client alone.
    pub fn is_error(&self) -> bool {
        self.error.is_some() || self.status >= 500
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn texts_are_cut_at_their_bounds_and_the_first_counts() {
        let mut entry = Entry::new(Ipv4Addr::LOCALHOST.into(), "HTTP/1.1");
        assert_eq!(entry.text(Text::Host), None);
        entry.set(Text::Host, b"");
        assert_eq!(entry.text(Text::Host), None);
        let all = [
            Text::Method,
            Text::Host,
            Text::Path,
            Text::UserAgent,
            Text::Referer,
            Text::RequestId,
            Text::TraceId,
            Text::Release,
        ];
        for text in all {
            entry.set(text, &vec![b'x'; 100_000]);
            entry.set(text, b"second");
        }
        for text in all {
            let kept = entry.text(text).unwrap();
            assert_eq!(kept.len(), text.most(), "{text:?}");
            assert!(kept.starts_with(b"xxx") && kept.ends_with(b"x..."), "{text:?}");
        }
        let mut exact = Entry::new(Ipv4Addr::LOCALHOST.into(), "HTTP/1.1");
        exact.set(Text::Method, &[b'x'; 32]);
        assert_eq!(exact.text(Text::Method).unwrap(), [b'x'; 32]);
    }
}
