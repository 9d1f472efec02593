//! One request's way to the head of an answer, over as many connections as the rules allow.
//!
//! State: owned by the request. Dropped, the claim is given back and the connection to the app is
//! closed. The order that matters: a target is claimed before a connection is opened, and before
//! there is a connection, only the request's head is looked at.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::clock;
use super::connection::ClientConnection;
use super::fault::Fault;
use super::here::{NoTarget, ServiceHere};
use super::upstream::connection::Connection;
use super::upstream::exchange::{Exchange, Failed, PollHead};
use super::upstream::outgoing::Outgoing;
use super::upstream::pool::{self, Claim, Lent, LocalTarget};
use super::waits::Patience;
use super::worker::Worker;
use crate::http1::head::{Fields, Head};

/// How long a refused connection is left alone before it is tried again: at first, and at the most.
const REFUSED_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// A request to be sent on: its head is either written already, or still as hyper read it.
pub(super) trait ForwardedRequest {
    /// Whether the method is `HEAD`.
    fn to_head(&self) -> bool;

    /// Writes the head that goes to the app at `target`. Called once, and does nothing if it is
    /// written already.
    fn write_head(&mut self, out: &mut Vec<u8>, target: SocketAddr);

    /// Where the answer's fields go. Called once per attempt, after the head was written.
    fn fields(&mut self) -> Fields<'_>;
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
}

impl Attempts<'_> {
    /// Sends `request` until the head of an answer has come. It may be sent a second time over a
    /// fresh connection when a kept one broke without an answer, and either nothing was sent or it
    /// is `replayable`.
    pub(super) async fn exchange<A: ForwardedRequest>(
        &self,
        request: &mut A,
        outgoing: &mut Outgoing,
        replayable: bool,
    ) -> Result<Answered, NoAnswer> {
        let (client, upstream) = (self.client, &self.service.settings.app.upstream);
        let whole_by = upstream.timeout.map_or(clock::NEVER, |time| client.waits().begin(time));
        let mut connect_by = clock::after(upstream.connect_timeout).min(whole_by);
        let mut refused = Refused { pause: REFUSED_PAUSE.0, last: None };
        let (mut written, mut retried) = (false, false);
        // The first claim trusts the look that the request began with.
        let mut latest = None;
        loop {
            let claim = match self.worker.here.claim(latest.as_deref().unwrap_or(self.service), client) {
                Ok(claim) => claim,
                Err(NoTarget::Held) if clock::now() < connect_by => {
                    Box::pin(refused.wait()).await;
                    latest = Some(self.worker.here.look_again(self.service));
                    continue;
                }
                Err(NoTarget::Held | NoTarget::Empty) => return Err(Fault::NoLiveTarget.into()),
            };
            let fresh = retried || !upstream.keepalive;
            let mut connection = if let Some(kept) = claim.local.try_kept(fresh) {
                kept
            } else {
                // In a box, because it is rare and large: a request's future has room for
                // everything it may await.
                match Box::pin(self.open(&claim, fresh, connect_by)).await {
                    Opened::Connection(connection) => connection,
                    Opened::Late => return Err(NoAnswer::from(refused.in_the_end()).at(&claim.local)),
                    Opened::Full => return Err(Fault::UpstreamFull.into()),
                    Opened::Refused(error) => {
                        // It may be started again, then at another address.
                        let local = claim.local.clone();
                        drop(claim);
                        client.pins.leave(&local.service);
                        let paused = Box::pin(refused.pause(error, connect_by)).await;
                        paused.map_err(|fault| NoAnswer::from(fault).at(&local))?;
                        latest = Some(self.worker.here.look_again(self.service));
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
                Ok(head) => return Ok(Answered { head, connection, claim }),
                Err(Failed::Reset { answered: false, .. })
                    if connection.reused && !retried && (replayable || outgoing.is_untouched()) =>
                {
                    retried = true;
                    latest = Some(self.worker.here.look_again(self.service));
                    connect_by = clock::after(upstream.connect_timeout).min(whole_by);
                    outgoing.rewind();
                }
                Err(failed) => return Err(no_answer(failed).at(&claim.local)),
            }
        }
    }

    /// Waits for a connection or the right to open one, and then opens it.
    async fn open(&self, claim: &Claim, fresh: bool, connect_by: u64) -> Opened {
        let (client, upstream) = (self.client, &self.service.settings.app.upstream);
        let lent = match claim.local.try_take(fresh, upstream) {
            Some(lent) => Some(lent),
            None => client.until(connect_by, claim.local.wait(fresh, upstream)).await,
        };
        let permit = match lent {
            None => return Opened::Full,
            Some(Lent::Kept(connection)) => return Opened::Connection(connection),
            Some(Lent::Fresh(permit)) => permit,
        };
        let open = Connection::open(claim.local.target.addr(), permit, upstream);
        match client.until(connect_by, open).await {
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
        self.client.set_deadline(clock::NEVER);
        head
    }

    /// Waits for the head no longer than the limits allow.
    async fn converse_in_time(&self, exchange: &mut Exchange<'_>) -> Result<Head, Failed> {
        let upstream = &self.service.settings.app.upstream;
        let exchange_patience = Patience::new(self.client.waits().clone(), None);
        let (mut written, mut progress) = (0, 0);
        let (mut sent, mut moved) = (clock::now(), clock::now());
        poll_fn(|cx| {
            if let Poll::Ready(head) = exchange.poll_head(cx) {
                return Poll::Ready(head);
            }
            let now = clock::now();
            if std::mem::replace(&mut written, exchange.outgoing.written()) != exchange.outgoing.written() {
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
            self.client.set_deadline(head.min(byte));
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

/// The refused connections of one request.
struct Refused {
    /// How long the app is left alone before the next try.
    pause: Duration,
    last: Option<io::Error>,
}

impl Refused {
    /// Waits a moment before another try. Fails when time is up, or when another try would end the
    /// same way.
    async fn pause(&mut self, error: io::Error, until: u64) -> Result<(), Fault> {
        if clock::now() >= until || !pool::is_transient(&error) {
            return Err(Fault::of_connect(error));
        }
        self.wait().await;
        self.last = Some(error);
        Ok(())
    }

    /// Waits a moment, and the next time a longer one.
    async fn wait(&mut self) {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(REFUSED_PAUSE.1);
    }

    /// Why no connection came about in time: it was refused each time, or not answered.
    fn in_the_end(self) -> Fault {
        self.last.map_or(Fault::Timeout("upstream.connect_timeout"), Fault::of_connect)
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
