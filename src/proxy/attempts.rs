//! One request's way to the head of an answer, over as many connections as the rules allow.
//!
//! State: owned by the request. Dropped, the claim is given back and the connection to the app is
//! closed. The order that matters: a target is claimed before a connection is opened, and before
//! there is a connection, only the request's head is looked at.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::header::RETRY_AFTER;

use self::again::Again;
use self::ending::Ending;
use super::balance::Trial;
use super::client_exchange::ClientExchange;
use super::clock;
use super::connection::ClientConnection;
use super::fault::Fault;
use super::here::ServiceHere;
use super::sticky::Wish;
use super::upstream::connection::Connection;
use super::upstream::exchange::{Conversation, Exchange, Failed, PollHead};
use super::upstream::outgoing::Outgoing;
use super::upstream::pool::{Claim, Lent, LocalTarget};
use super::waits::Patience;
use super::worker::Worker;
use crate::http1::head::{Fields, Head};
use crate::proxy_header::Introduction;
use crate::want;

mod again;
mod claiming;
mod connected;
mod ending;
mod held;
mod streamed;

pub(super) use self::connected::{Approach, Connected};
pub(super) use self::streamed::Streamed;

/// A request to be sent on: its head is either written already, or still as hyper read it.
pub(super) trait ForwardedRequest {
    /// Whether the method is `HEAD`.
    fn to_head(&self) -> bool;

    /// Writes the head that goes to the app at `target`. Called once, and does nothing if it is
    /// written already.
    fn write_head(&mut self, out: &mut Vec<u8>, target: SocketAddr);

    /// It is tried once more. Called before each further attempt.
    fn tried_again(&mut self);

    /// What of it is kept while it waits for the app, beside what [`Self::write_head`] has written.
    fn kept(&self) -> Kept;

    /// Where the answer's fields go. Called for each attempt, after the head was written, and to
    /// find the fields of an answer again.
    fn fields(&mut self) -> Fields<'_>;
}

/// What is kept of a request that waits for the app.
pub(super) struct Kept {
    /// The bytes of its head.
    pub(super) head: usize,
    /// Whether the client sends its body without being asked to.
    pub(super) sends_body: bool,
}

/// An answer's head, with the connection that its body comes over and the claim that it was sent
/// under.
pub(super) struct Answered {
    pub(super) head: Head,
    pub(super) connection: Connection,
    pub(super) claim: Claim,
}

/// Why a request got no answer of the app's.
pub(super) enum NoAnswer {
    Fault {
        fault: Fault,
        /// The target that was asked, if one was.
        at: Option<Rc<LocalTarget>>,
    },
    /// The client broke off (`gone`), or what it sent is not a valid body.
    Client { gone: bool },
}

impl From<Fault> for NoAnswer {
    fn from(fault: Fault) -> Self {
        Self::Fault { fault, at: None }
    }
}

impl NoAnswer {
    /// Adds the target at which it happened.
    fn at(mut self, local: &Rc<LocalTarget>) -> Self {
        if let Self::Fault { at, .. } = &mut self {
            *at = Some(local.clone());
        }
        self
    }
}

/// What the attempts of one request need.
pub(super) struct Attempts<'a> {
    pub(super) worker: &'a Worker,
    /// As the request saw it when it began.
    pub(super) service: &'a ServiceHere,
    pub(super) client: &'a ClientConnection,
    /// The state of the request.
    pub(super) exchange: &'a ClientExchange,
    /// The member of a set that the request is for.
    pub(super) wish: &'a Option<Wish>,
}

impl Attempts<'_> {
    /// Sends `request` until the head of an answer has come. It may be sent a second time over a
    /// fresh connection when a kept one broke without an answer, and either nothing was sent or it
    /// is `replayable`; or when it is `replayable` and the app has ended.
    pub(super) async fn exchange<A: ForwardedRequest>(
        &self,
        request: &mut A,
        outgoing: &mut Outgoing,
        replayable: bool,
    ) -> Result<Answered, NoAnswer> {
        let upstream = &self.service.settings.app.upstream;
        let mut times = self.times();
        // The first claim trusts the look that the request began with.
        let mut again: Option<Box<Again>> = None;
        let (mut written, mut retried) = (false, false);
        loop {
            let mut claim = match self.claim(&mut again, request, outgoing, &mut times) {
                Ok(claim) => claim,
                Err(claiming) => claiming.await?,
            };
            let fresh = retried || !upstream.keepalive;
            let mut connection = if let Some(at_hand) = match &mut again {
                None => claim.local.try_kept(fresh),
                Some(again) => again.at_hand(&claim.local, fresh),
            } {
                at_hand
            } else {
                // In a box, because it is rare and large: a request's future has room for
                // everything it may await.
                match Box::pin(self.open(&claim, fresh, times.connect_by)).await {
                    Opened::Connection(connection) => connection,
                    Opened::Full => return Err(Fault::UpstreamFull.into()),
                    unopened => {
                        let again = again.get_or_insert_default();
                        let local = claim.local.clone();
                        drop(claim);
                        Box::pin(self.go_on(again, &local, unopened, (times.connect_by, times.whole_by)))
                            .await?;
                        request.tried_again();
                        if local.is_member() {
                            times = self.times_again(times);
                        }
                        continue;
                    }
                }
            };
            if !connection.reused {
                self.service.counts().socket_created();
            }
            if !written {
                written = true;
                request.write_head(outgoing.head(), claim.local.target.addr());
            }
            match self.converse(request, outgoing, &mut connection).await {
                Ok(head) => {
                    if let Some(again) = &mut again {
                        claim.pass = again.held.pass.take();
                    }
                    if claim.local.is_member() {
                        self.heed(request, &head, &claim.local, again);
                    }
                    return Ok(Answered { head, connection, claim });
                }
                Err(failed) => {
                    let again = again.get_or_insert_default();
                    let sent =
                        Sent { kept: connection.reused, untouched: outgoing.is_untouched(), replayable };
                    drop(connection);
                    if retried
                        || !Box::pin(self.may_go_again(&failed, sent, again, (&claim.local, times.whole_by)))
                            .await
                    {
                        return Err(no_answer(failed).at(&claim.local));
                    }
                    retried = true;
                    request.tried_again();
                    times = self.times_again(times);
                    outgoing.rewind();
                }
            }
        }
    }

    /// Whether a request whose exchange failed may be sent once more: a kept connection broke
    /// without an answer, or what it was sent to is there no more.
    async fn may_go_again(
        &self,
        failed: &Failed,
        sent: Sent,
        again: &mut Again,
        (local, whole_by): (&Rc<LocalTarget>, u64),
    ) -> bool {
        let is_reset = matches!(failed, Failed::Reset { answered: false, .. });
        if !is_reset || !(sent.replayable || sent.kept && sent.untouched) {
            return false;
        }
        // A second try that meets the same end is the last one.
        match self.ending(local, whole_by).await {
            Ending::Ends => {
                if local.is_member() {
                    self.failed(local, again.leave(local), &"nobody listens there any more");
                }
                return true;
            }
            Ending::Lives(connection) => again.opened = Some((local.clone(), connection)),
            Ending::Unknown => (),
        }
        if sent.kept {
            again.leave_trial();
        }
        sent.kept
    }

    /// After a connection that did not come about: the request may go on to the next member of the
    /// set at once, or to the one target after a pause. `by`: until when this connection, and the
    /// whole exchange, may take.
    async fn go_on(
        &self,
        again: &mut Again,
        local: &Rc<LocalTarget>,
        unopened: Opened,
        by: (u64, u64),
    ) -> Result<(), NoAnswer> {
        let error = if let Opened::Refused(error) = unopened { Some(error) } else { None };
        let (connect_by, whole_by) = by;
        if local.is_member() {
            let is_over = clock::now() >= whole_by || error.as_ref().is_some_and(want::is_own);
            if !is_over {
                let why: &dyn fmt::Display = match &error {
                    Some(error) => error,
                    None => &"no connection in time",
                };
                self.failed(local, again.leave(local), why);
            }
            let latest = || self.worker.here.look_again(self.service).now().clone();
            let is_refused =
                error.as_ref().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
            if is_refused {
                again.refused_of(&latest());
            }
            let upstream = &self.service.settings.app.upstream;
            return match again.count(error, upstream.retries) {
                Ok(()) if !is_over => Ok(()),
                Err(()) if is_refused && again.news(upstream.connect_timeout, latest).await => Ok(()),
                _ => Err(NoAnswer::from(again.in_the_end()).at(local)),
            };
        }
        let paused = match error {
            Some(error) => {
                // It may be started again, then at another address.
                self.client.pins().leave(&local.service);
                again.pause(error, connect_by).await
            }
            None => Err(again.in_the_end()),
        };
        paused.map_err(|fault| NoAnswer::from(fault).at(local))
    }

    /// A member of a set answered: looks what that says of it.
    fn heed<A: ForwardedRequest>(
        &self,
        request: &mut A,
        head: &Head,
        local: &Rc<LocalTarget>,
        again: Option<Box<Again>>,
    ) {
        let trial = again.and_then(|mut again| again.trial());
        let status = head.status.as_u16();
        if self.service.settings.app.upstream.eject_on.contains(&status)
            && !(status == 503 && has_retry_after(request, head))
        {
            self.failed(local, trial, &format_args!("status {status}"));
        } else if let Some(trial) = trial {
            trial.passed();
        }
    }

    /// `local`, which was on `trial` or not, has failed; `why` says how.
    #[cold]
    fn failed(&self, local: &Rc<LocalTarget>, trial: Option<Trial>, why: &dyn fmt::Display) {
        if let Some(members) = self.worker.here.look_again(self.service).members() {
            members.failed(local, trial, why);
        }
    }

    /// Whose connection a new one is, if the app is to know.
    fn whose(&self) -> Option<Introduction> {
        let tells = self.service.settings.app.upstream.proxy_protocol;
        tells.then(|| self.client.introduction())
    }

    /// Waits for a connection or the right to open one, and then opens it.
    async fn open(&self, claim: &Claim, fresh: bool, connect_by: u64) -> Opened {
        let (exchange, upstream) = (self.exchange, &self.service.settings.app.upstream);
        let lent = match claim.local.try_take(fresh, upstream) {
            Some(lent) => Some(lent),
            None => exchange.until(connect_by, claim.local.wait(fresh, upstream)).await,
        };
        let permit = match lent {
            None => return Opened::Full,
            Some(Lent::Kept(connection)) => return Opened::Connection(connection),
            Some(Lent::Fresh(permit)) => permit,
        };
        let open = Connection::open(claim.local.target.addr(), permit, upstream, self.whose());
        match exchange.until(connect_by, open).await {
            Some(Ok(connection)) => Opened::Connection(connection),
            Some(Err(error)) => Opened::Refused(error),
            None => Opened::Late,
        }
    }

    /// Sends over one connection and waits for the head. The time for the answer does not run while
    /// the request is still moving.
    async fn converse<A: ForwardedRequest>(
        &self,
        request: &mut A,
        outgoing: &mut Outgoing,
        connection: &mut Connection,
    ) -> Result<Head, Failed> {
        let to_head = request.to_head();
        let most_fields = self.service.settings.config.limits.headers;
        let mut exchange = Exchange::new(connection, outgoing, to_head, request.fields(), most_fields);
        if !self.service.settings.is_impatient {
            return PollHead(&mut exchange).await;
        }
        let head = Box::pin(self.converse_in_time(&mut exchange)).await;
        self.exchange.set_deadline(clock::NEVER);
        head
    }

    /// Waits for the head no longer than the limits allow.
    async fn converse_in_time<C: Conversation>(&self, exchange: &mut C) -> Result<C::Answer, Failed> {
        let upstream = &self.service.settings.app.upstream;
        let exchange_patience = Patience::new(self.exchange.waits().clone(), None);
        let (mut written, mut progress) = (0, 0);
        let (mut sent, mut moved) = (clock::now(), clock::now());
        poll_fn(|cx| {
            if let Poll::Ready(head) = exchange.poll_head(cx) {
                return Poll::Ready(head);
            }
            let now = clock::now();
            if std::mem::replace(&mut written, exchange.written()) != exchange.written() {
                sent = now;
            }
            if std::mem::replace(&mut progress, exchange.progress()) != exchange.progress() {
                moved = now;
            }
            let until =
                |since, time: Option<Duration>| time.map_or(clock::NEVER, |time| clock::since(since, time));
            let head = until(sent, upstream.response_timeout);
            // Until its first byte has come, only the limit of the whole head holds.
            let byte = until(moved, upstream.read_timeout.filter(|_| progress > 0));
            self.exchange.set_deadline(head.min(byte));
            let late = match exchange_patience.exchange_is_late() {
                Some(what) => Some(what),
                None if now >= byte => Some("upstream.read_timeout"),
                None if now >= head => Some("upstream.response_timeout"),
                None => None,
            };
            late.map_or(Poll::Pending, |what| Poll::Ready(Err(Failed::Timeout(what))))
        })
        .await
    }
}

/// The outcome of an attempt to get a connection.
enum Opened {
    Connection(Connection),
    Refused(io::Error),
    /// The app did not answer in time.
    Late,
    /// All that may be open are in use, and none was given back in time.
    Full,
}

/// How far a request got that was not answered.
#[derive(Clone, Copy)]
struct Sent {
    /// Over a kept connection.
    kept: bool,
    /// Nothing of it was sent.
    untouched: bool,
    /// It may be sent twice.
    replayable: bool,
}

/// Whether an answer says when to come again.
#[cold]
fn has_retry_after<A: ForwardedRequest>(request: &mut A, head: &Head) -> bool {
    match request.fields() {
        Fields::Map(_) => head.headers.contains_key(RETRY_AFTER),
        Fields::Lines(room) => {
            let name = RETRY_AFTER.as_str().as_bytes();
            let begins = |line: &[u8]| {
                line.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name))
                    && line.get(name.len()) == Some(&b':')
            };
            room.lines().split(|&byte| byte == b'\n').any(begins)
        }
    }
}

/// Why a request whose exchange failed gets no answer of the app's.
pub(super) fn no_answer(failed: Failed) -> NoAnswer {
    match failed {
        Failed::Client(error) => NoAnswer::Client { gone: is_gone(&error) },
        Failed::TooLarge => Fault::BodyTooLarge.into(),
        Failed::Late => Fault::BodyTimeout.into(),
        Failed::Reset { error, .. } => Fault::Reset(error).into(),
        Failed::Invalid(invalid) => Fault::Invalid(invalid.0).into(),
        Failed::Timeout(what) => Fault::Timeout(what).into(),
    }
}

/// Whether a request's body failed because the client has gone.
fn is_gone(error: &hyper::Error) -> bool {
    use io::ErrorKind as Kind;
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    let broke = |kind| matches!(kind, Kind::UnexpectedEof | Kind::ConnectionReset | Kind::BrokenPipe);
    error.is_incomplete_message() || cause.is_some_and(|cause| broke(cause.kind()))
}
