//! Which requests are plain, and their head as the app gets it. Decided from what was parsed,
//! without I/O.

use std::net::SocketAddr;

use super::super::connection::ClientConnection;
use super::super::extras::{Asked, Extras, Wanted};
use super::super::headers;
use super::super::settings::Settings;
use super::super::sticky;
use crate::http1::fields::{self, Kind};
use crate::http1::host::is_host;

#[cfg(any(test, fuzzing))]
pub(in crate::proxy) mod fuzzing;

/// A head with more fields is left to hyper.
pub(super) const MOST_FIELDS: usize = 64;

/// A plain request, as parsed.
pub(super) struct Plain<'a> {
    method: &'static str,
    pub(super) target: &'a str,
    pub(super) host: &'a [u8],
    fields: &'a [httparse::Header<'a>],
    pub(super) to_head: bool,
    /// The client wants the connection closed after the answer.
    pub(super) close: bool,
    /// It may name another client than the peer.
    pub(super) is_forwarded: bool,
}

impl<'a> Plain<'a> {
    /// `None`: not plain. What passes here also passes hyper and the judge.
    #[inline(always)] // it has a caller for each kind of stream, and each request passes
    pub(super) fn of(request: &'a httparse::Request<'_, '_>) -> Option<Self> {
        let method = match request.method? {
            "GET" => "GET",
            "HEAD" => "HEAD",
            _ => return None,
        };
        let target = request.path?;
        if request.version != Some(1)
            || !target.starts_with('/')
            || !target.bytes().all(|byte| TARGET[usize::from(byte)])
        {
            return None;
        }
        let (mut host, mut close, mut is_forwarded) = (None, false, false);
        for field in &*request.headers {
            match Kind::of(field.name.as_bytes()) {
                Kind::Host if host.is_none() => host = Some(field.value),
                Kind::Connection if field.value.eq_ignore_ascii_case(b"keep-alive") => (),
                Kind::Connection if field.value.eq_ignore_ascii_case(b"close") => close = true,
                Kind::Forwarded | Kind::Claim => is_forwarded = true,
                Kind::Other | Kind::ForwardedAlias | Kind::Date => (),
                _ => return None,
            }
        }
        let host = host.filter(|host| is_host(host))?;
        let (fields, to_head) = (&*request.headers, method == "HEAD");
        Some(Self { method, target, host, fields, to_head, close, is_forwarded })
    }

    /// Whether the settings leave it plain: its head is not too long, and portok itself has not to
    /// answer it.
    pub(super) fn fits(&self, length: usize, settings: &Settings, client: &ClientConnection) -> bool {
        length <= settings.config.proxy.max_header_size
            && self.fields.len() <= settings.config.limits.headers
            && !settings.may_be_own(self.host, self.target.as_bytes(), || client.shown())
    }

    /// Its fields, name and value.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.fields.iter().map(|field| (field.name.as_bytes(), field.value))
    }

    /// Begins what is `wanted` of it beside being passed on.
    #[inline(never)]
    pub(super) fn begin(
        &self,
        wanted: &Wanted,
        settings: &Settings,
        peer: SocketAddr,
        knows: impl FnOnce(&[u8], bool) -> bool,
    ) -> Box<Extras> {
        let asked = Asked {
            method: self.method,
            host: Some(self.host),
            target: self.target.as_bytes(),
            proto: "HTTP/1.1",
            fields: || self.pairs(),
        };
        wanted.begin((&settings.config, settings.tiers.as_ref()), peer, &asked, knows)
    }

    /// Writes its head as the app gets it, without `cut` bytes at the beginning of the path.
    #[inline(always)] // as `of`
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        client: &ClientConnection,
        settings: &Settings,
        cut: usize,
        extras: Option<&Extras>,
    ) {
        let (taken, target) = headers::cut_prefix(self.target.as_bytes(), cut);
        let context = headers::Context {
            peer: client.peer_text(),
            scheme: client.scheme(),
            // Looked up only for a request that names another client: the look costs as much as the
            // list is long.
            trusted: self.is_forwarded && settings.trusts(client.peer.ip()),
            forwarded: settings.config.proxy.forwarded,
            // Not needed: there is a host.
            target: client.peer,
            chunked: false,
            upgrade: None,
            trailers: false,
            keep_alive: settings.app.upstream.keepalive,
            taken,
        };
        let head = headers::RequestHead {
            method: self.method,
            target,
            authority: None,
            host: Some(self.host),
            nominated: &[],
            fields: || self.pairs(),
        };
        match extras {
            None => sticky::write_head(out, head, &context, settings.sticky.as_ref()),
            Some(extras) => {
                let by = (&*settings.config, settings.sticky.as_ref());
                extras.write_head(out, head, &context, by, client.peer);
            }
        }
    }
}

/// Bytes of a path and query that every reader takes the same way (RFC 3986, 3.3, 3.4). A table,
/// because every byte of every target is looked up.
const TARGET: [bool; 256] = fields::table(b"-._~!$&'()*+,;=:@/?%");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::fuzzing::{hypers, own};

    fn request() -> impl Strategy<Value = Vec<u8>> {
        let method = prop_oneof![4 => Just("GET"), 2 => Just("HEAD"), 1 => Just("POST"), 1 => Just("get")];
        let target = prop_oneof![
            4 => "/[!-~]{0,12}",
            1 => Just("*".to_owned()),
            1 => Just("http://h/x".to_owned()),
            1 => Just("//x/..;a?b#c".to_owned()),
        ];
        let version = prop_oneof![6 => Just("HTTP/1.1"), 1 => Just("HTTP/1.0"), 1 => Just("HTTP/1.2")];
        let field = prop_oneof![
            4 => Just("Host: a.test:80\r\n".to_owned()),
            1 => Just("host: a b\r\n".to_owned()),
            2 => Just("Connection: keep-alive\r\n".to_owned()),
            1 => Just("connection: Close\r\n".to_owned()),
            1 => Just("Connection: close, x-a\r\n".to_owned()),
            1 => Just("Content-Length: 0\r\n".to_owned()),
            1 => Just("Transfer-Encoding: chunked\r\n".to_owned()),
            1 => Just("Expect: 100-continue\r\n".to_owned()),
            1 => Just("TE: trailers\r\n".to_owned()),
            1 => Just("X-Forwarded-For: 1.2.3.4\r\n".to_owned()),
            1 => Just("a : b\r\n".to_owned()),
            1 => Just("a: b\r\n c\r\n".to_owned()),
            1 => Just("a: b\n".to_owned()),
            4 => "[!-~]{1,3}:[ -~\t]{0,6}\r\n",
        ];
        let end = prop_oneof![8 => Just("\r\n"), 1 => Just("\n"), 1 => Just("")];
        (method, target, version, proptest::collection::vec(field, 0..5), end).prop_map(
            |(method, target, version, fields, end)| {
                format!("{method} {target} {version}\r\nHost: h\r\n{}{end}", fields.concat())
                    .replacen("Host: h\r\n", if fields.len() % 2 == 0 { "Host: h\r\n" } else { "" }, 1)
                    .into_bytes()
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]
        #[test]
        fn what_is_plain_is_what_hyper_reads(bytes in request()) {
            if let Some(read) = own(&bytes) {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                let theirs = runtime.block_on(hypers(&bytes));
                prop_assert_eq!(Some(read), theirs, "{}", String::from_utf8_lossy(&bytes));
            }
        }
    }

    #[test]
    fn plain_is_what_a_browser_asks_for_and_nothing_odd() {
        let is_plain = |text: &str| own(text.as_bytes()).is_some();
        assert!(is_plain("GET /a?b=c HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\nAccept: */*\r\n\r\n"));
        assert!(is_plain("HEAD / HTTP/1.1\r\nhost: [::1]:80\r\nconnection: close\r\n\r\n"));
        for odd in [
            "POST / HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.0\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n",
            "GET /#a HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h/\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: close, x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: x\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\n\r\n",
        ] {
            assert!(!is_plain(odd), "{odd}");
        }
    }
}
