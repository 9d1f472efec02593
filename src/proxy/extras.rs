//! What only some configurations want of a request: a line in the access log, an id, a page where
//! portok answers itself, more about the client or about who answered.
//!
//! [`Wanted`] is worked out with the settings. Where nothing is wanted there is none, and a request
//! pays for one look at that. Else it has [`Extras`], which its ticket keeps until its end, and
//! which the rest of the data plane tells what becomes of it. When they are dropped, the line of
//! the request is recorded.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response};

use super::headers::{self, Context, RequestHead};
use super::sticky;
use super::target::Target;
use super::tiers::{self, Place};
use super::who;
use crate::access::{Entry, Recorder, Text};
use crate::config::{APPS_OF_REDIS, AppConfig, Config, Forwarded, ForwardedHeader, Protocol, RequestId};
use crate::http1::fields::{self, Kind, is_among, is_spelling};
use crate::http1::host::compared;

mod accept;
mod forwarded;
mod ids;

pub(super) use self::accept::takes_html;

/// The field that the admin token comes in.
const TOKEN: &[u8] = b"x-admin-token";

/// What the requests of a service want.
pub(super) struct Wanted {
    recorder: Option<Arc<Recorder>>,
    app: Name,
    has_pages: bool,
    has_tiers: bool,
    request_id: RequestId,
    debug: bool,
    /// The app speaks HTTP/2.
    is_h2c: bool,
}

/// What the app of a request is called.
enum Name {
    /// The request is for none.
    None,
    One(Arc<str>),
    /// After the host that it is for, as every app of Redis.
    OfRedis,
}

impl Name {
    fn of(config: &Config, app: &Arc<AppConfig>) -> Self {
        if config.apps.is_some() && Arc::ptr_eq(app, &config.app) {
            Self::None
        } else if config.redis.is_some() && app.name == APPS_OF_REDIS && app.routes.hosts.is_empty() {
            Self::OfRedis
        } else {
            Self::One(app.name.as_str().into())
        }
    }

    /// That of the app that a request for `host` goes to.
    fn at(&self, host: Option<&[u8]>) -> Option<Arc<str>> {
        match self {
            Self::None => None,
            Self::One(name) => Some(name.clone()),
            Self::OfRedis => {
                let host = compared(host.unwrap_or_default());
                Some(format!("{APPS_OF_REDIS}:{}", String::from_utf8_lossy(&host)).into())
            }
        }
    }
}

/// A request whose head has come.
pub(super) struct Asked<'a, F> {
    pub(super) method: &'a str,
    pub(super) host: Option<&'a [u8]>,
    /// Its path and query.
    pub(super) target: &'a [u8],
    pub(super) proto: &'static str,
    /// Gives all its fields as name and value.
    pub(super) fields: F,
}

impl Wanted {
    /// What `config` wants of the requests of `app`. `recorder` takes the lines of the access log,
    /// if there is one.
    pub(super) fn of(config: &Config, app: &Arc<AppConfig>, recorder: Option<Arc<Recorder>>) -> Option<Self> {
        let proxy = &config.proxy;
        let tells =
            proxy.forwarded_header != ForwardedHeader::XForwarded && proxy.forwarded != Forwarded::Off;
        let (has_pages, names_client) = (!app.errors.pages.is_empty(), tells || proxy.real_ip);
        let (request_id, debug) = (proxy.request_id, proxy.debug);
        let has_ids = request_id != RequestId::Off;
        let has_tiers = app.tiers.is_some();
        let is_h2c = app.upstream.protocol == Protocol::H2c;
        if recorder.is_none() && !(has_pages || has_ids || debug || names_client || has_tiers || is_h2c) {
            return None;
        }
        let app = Name::of(config, app);
        Some(Self { recorder, app, has_pages, has_tiers, request_id, debug, is_h2c })
    }

    /// Whether answers of the app may get fields of portok's own.
    pub(super) fn adds_fields(&self) -> bool {
        self.has_tiers || self.debug || self.request_id != RequestId::Off
    }

    /// Whether the requests never go the short way, whose heads are those of HTTP/1.1.
    pub(super) fn is_long(&self) -> bool {
        self.is_h2c
    }

    /// The extras of a request of `peer` that was `asked`, by what `config` and the app's `tiers`
    /// say. `knows` says whether a token, of a peer that another proxy stands before or not, is the
    /// admin token.
    #[inline(never)]
    pub(super) fn begin<'a, F, I>(
        &self,
        (config, tiers): (&Config, Option<&tiers::Rule>),
        peer: SocketAddr,
        asked: &Asked<'a, F>,
        knows: impl FnOnce(&[u8], bool) -> bool,
    ) -> Box<Extras>
    where
        F: Fn() -> I,
        I: Iterator<Item = (&'a [u8], &'a [u8])>,
    {
        let values = |name: &'static [u8]| {
            (asked.fields)()
                .filter(move |(other, _)| other.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        };
        let proxy = &config.proxy;
        let ip = peer.ip();
        let is_trusted = || headers::is_trusted(ip, &proxy.trusted);
        let client = || match proxy.forwarded == Forwarded::Trusted && is_trusted() {
            true => who::client(ip, &proxy.trusted, &asked.fields),
            false => ip,
        };
        let trusted = self.request_id == RequestId::Keep && is_trusted();
        let id = ids::request_id(self.request_id, trusted, values(ids::REQUEST_ID));
        let is_asked_for = self.debug && {
            let is_proxied =
                || (asked.fields)().any(|(name, _)| matches!(Kind::of(name), Kind::Forwarded | Kind::Claim));
            values(TOKEN).next().is_some_and(|token| knows(token, is_proxied()))
        };
        let needs_client = self.recorder.is_some() || proxy.real_ip || self.has_tiers;
        let client = if needs_client { client() } else { ip };
        let place = tiers.map(|tiers| tiers.place((asked.fields)(), client));
        let line = self.recorder.as_ref().map(|recorder| {
            let mut entry = Box::new(Entry::new(client, asked.proto));
            fill(&mut entry, asked, recorder.has_query(), values);
            id.iter().for_each(|id| entry.set(Text::RequestId, id));
            entry.app = self.app.at(asked.host);
            entry.tier = place.as_ref().map(|place| place.tier().into());
            (recorder.clone(), entry)
        });
        Box::new(Extras {
            began: Instant::now(),
            sent: Cell::new(None),
            client,
            line: RefCell::new(line),
            place,
            takes_html: self.has_pages && takes_html(values(b"accept")),
            id,
            debug: is_asked_for.then(|| self.app.at(asked.host)).flatten(),
        })
    }
}

/// Notes what a head says.
fn fill<'a, F, I>(
    entry: &mut Entry,
    asked: &Asked<'a, F>,
    has_query: bool,
    values: impl Fn(&'static [u8]) -> I,
) where
    I: Iterator<Item = &'a [u8]>,
{
    let path = |target: &'a [u8]| match has_query {
        true => target,
        false => target.split(|&byte| byte == b'?').next().unwrap_or_default(),
    };
    entry.set(Text::Method, asked.method.as_bytes());
    entry.set(Text::Host, asked.host.unwrap_or_default());
    entry.set(Text::Path, path(asked.target));
    entry.set(Text::UserAgent, values(b"user-agent").next().unwrap_or_default());
    entry.set(Text::Referer, path(values(b"referer").next().unwrap_or_default()));
    let trace = values(b"traceparent").next().and_then(ids::trace_id);
    entry.set(Text::TraceId, trace.unwrap_or_default());
}

/// What one request has beside its way.
pub(super) struct Extras {
    began: Instant,
    /// When the app was given it.
    sent: Cell<Option<Instant>>,
    client: IpAddr,
    line: RefCell<Option<(Arc<Recorder>, Box<Entry>)>>,
    /// Where it stands among the requests of its client, if the service has tiers.
    place: Option<Box<Place>>,
    /// Its client takes pages in HTML.
    takes_html: bool,
    id: Option<Box<[u8]>>,
    /// The app of whose answer more is told.
    debug: Option<Arc<str>>,
}

impl Extras {
    /// Whether its client takes pages in HTML.
    pub(super) fn takes_html(&self) -> bool {
        self.takes_html
    }

    /// Where it stands among the requests of its client, if the service has tiers.
    pub(super) fn place(&self) -> Option<&Place> {
        self.place.as_deref()
    }

    pub(super) fn place_mut(&mut self) -> Option<&mut Place> {
        self.place.as_deref_mut()
    }

    /// Writes `head` as the app gets it.
    #[inline(never)]
    pub(super) fn write_head<'a, F, I>(
        &self,
        out: &mut Vec<u8>,
        head: RequestHead<'a, F>,
        context: &Context<'_>,
        (config, sticky): (&Config, Option<&sticky::Rule>),
        peer: SocketAddr,
    ) where
        F: Fn() -> I,
        I: Iterator<Item = (&'a [u8], &'a [u8])>,
    {
        let proxy = &config.proxy;
        let named = if context.forwarded == Forwarded::Off {
            ForwardedHeader::XForwarded
        } else {
            proxy.forwarded_header
        };
        let added = self.added(&head, context, (named, peer, proxy.real_ip));
        let only_forwarded = named == ForwardedHeader::Forwarded;
        let is_stranger = !context.trusted && context.forwarded == Forwarded::Trusted;
        let is_replaced = |name: &[u8]| {
            let kind = Kind::of(name);
            let is_forwarded = kind == Kind::Claim && name.len() == b"forwarded".len();
            self.id.is_some() && is_spelling(name, ids::REQUEST_ID)
                || self.debug.is_some() && is_spelling(name, TOKEN)
                || proxy.real_ip && is_spelling(name, b"x-real-ip")
                || named != ForwardedHeader::XForwarded && is_forwarded
                || only_forwarded && matches!(kind, Kind::Forwarded | Kind::ForwardedAlias)
                || only_forwarded && is_stranger && kind == Kind::Claim
        };
        let all = &head.fields;
        let kept: Vec<_> = all().filter(|(name, _)| !is_replaced(name)).collect();
        let forwarded = if only_forwarded { Forwarded::Off } else { context.forwarded };
        let context = Context { forwarded, ..*context };
        let fields = || kept.iter().copied();
        sticky::write_head(out, head.with(fields), &context, sticky);
        // Before the empty line.
        out.truncate(out.len() - b"\r\n".len());
        out.extend_from_slice(&added);
        out.extend_from_slice(b"\r\n");
    }

    /// The lines that the app gets beside what the client sent.
    fn added<'a, F, I>(
        &self,
        head: &RequestHead<'a, F>,
        context: &Context<'_>,
        (named, peer, real_ip): (ForwardedHeader, SocketAddr, bool),
    ) -> Vec<u8>
    where
        F: Fn() -> I,
        I: Iterator<Item = (&'a [u8], &'a [u8])>,
    {
        let mut added = Vec::new();
        if named != ForwardedHeader::XForwarded {
            let is_believed = context.trusted || context.forwarded == Forwarded::Append;
            let came = |name: &'static [u8]| {
                let fields = (is_believed && !is_among(head.nominated, name)).then(&head.fields);
                let is_it = move |(other, value): (&[u8], &'a [u8])| {
                    other.eq_ignore_ascii_case(name).then_some(value)
                };
                fields.into_iter().flatten().filter_map(is_it)
            };
            let hop =
                forwarded::Hop { peer, host: head.authority.or(head.host), scheme: context.scheme.name() };
            let mut value = Vec::new();
            forwarded::write(&mut value, &hop, came);
            fields::line(&mut added, b"forwarded", &value);
        }
        if real_ip {
            fields::line(&mut added, b"x-real-ip", headers::text_of(self.client).as_bytes());
        }
        if let Some(id) = &self.id {
            fields::line(&mut added, ids::REQUEST_ID, id);
        }
        added
    }

    /// The fields that its answer gets, which `target` has given, if it is an app's.
    pub(super) fn answer_fields(&self, target: Option<&Target>) -> Vec<(HeaderName, HeaderValue)> {
        let mut all = Vec::new();
        let mut add = |name, value: &[u8]| {
            let value = HeaderValue::from_bytes(value).ok();
            all.extend(value.map(|value| (HeaderName::from_static(name), value)));
        };
        if let Some(id) = &self.id {
            add("x-request-id", id);
        }
        if let Some(app) = &self.debug {
            add("x-portok-app", app.as_bytes());
            if let Some(target) = target {
                add("x-portok-release", target.release_counters().name().as_bytes());
                let replica = target.replica().map(|replica| replica.to_string());
                add("x-portok-replica", replica.as_deref().unwrap_or("-").as_bytes());
            }
            if let Some(time) = self.sent.get().map(|sent| sent.elapsed()) {
                let micros = time.as_micros();
                add("x-portok-upstream-ms", format!("{}.{:03}", micros / 1000, micros % 1000).as_bytes());
            }
        }
        all
    }

    /// The app is given it.
    pub(super) fn sent(&self) {
        if self.sent.get().is_none() {
            self.sent.set(Some(Instant::now()));
        }
    }

    /// It is given to an app once more, or to another one.
    pub(super) fn tried_again(&self) {
        self.note(|entry| entry.retried = true);
    }

    /// It is answered with `status`, by `target` if an app has answered or was asked.
    #[inline(never)]
    pub(super) fn answered(&self, status: u16, target: Option<&Target>) {
        let upstream = self.sent.get().map(|sent| sent.elapsed());
        self.note(|entry| {
            entry.status = status;
            entry.upstream = upstream;
            if let Some(target) = target {
                entry.set(Text::Release, target.release_counters().name().as_bytes());
                entry.replica = target.replica();
                entry.port = Some(target.addr().port());
            }
        });
    }

    /// portok answers it itself with `response`, because of what `code` says. `at`: who was asked.
    #[inline(never)]
    pub(super) fn refused(&self, code: &'static str, response: &mut Response<Bytes>, at: Option<&Target>) {
        self.failed(code);
        self.note(|entry| {
            // A connection that goes to an app as it is has no method, and gets no answer.
            let has_body = entry.text(Text::Method).is_some_and(|method| method != b"HEAD");
            entry.bytes_out = if has_body { response.body().len() as u64 } else { 0 };
        });
        response.headers_mut().extend(self.answer_fields(at));
    }

    /// portok answers it itself, or its answer broke off, for this reason.
    pub(super) fn failed(&self, code: &'static str) {
        self.note(|entry| entry.error = Some(code));
    }

    /// Bytes came from the client, or went to it.
    pub(super) fn passed(&self, from_client: u64, to_client: u64) {
        self.note(|entry| {
            entry.bytes_in += from_client;
            entry.bytes_out += to_client;
        });
    }

    /// It has become a tunnel.
    pub(super) fn became_tunnel(&self) {
        self.note(|entry| entry.tunnel = true);
    }

    fn note(&self, what: impl FnOnce(&mut Entry)) {
        if let Some((_, entry)) = &mut *self.line.borrow_mut() {
            what(entry);
        }
    }
}

impl Drop for Extras {
    fn drop(&mut self) {
        /// The client has gone before there was an answer; nginx made the number known.
        const NO_ANSWER: u16 = 499;
        if let Some((recorder, mut entry)) = self.line.take() {
            entry.duration = self.began.elapsed();
            if entry.status == 0 {
                entry.status = NO_ANSWER;
            }
            recorder.record(entry);
        }
    }
}

/// Whether a field that an answer gets takes the place of the app's own.
pub(super) fn replaces(name: &HeaderName) -> bool {
    name.as_str().starts_with("x-")
}

/// Takes the lines of the field `name`, which is in lower case, off a head.
pub(super) fn cut_field(lines: &mut Vec<u8>, name: &[u8]) {
    let is_it = |line: &[u8]| line.starts_with(name) && line.get(name.len()) == Some(&b':');
    if !lines.split(|&byte| byte == b'\n').any(is_it) {
        return;
    }
    let others = lines.split_inclusive(|&byte| byte == b'\n').filter(|line| !is_it(line));
    *lines = others.collect::<Vec<_>>().concat();
}

#[cfg(test)]
mod tests;
