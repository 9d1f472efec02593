//! The streams of one connection of HTTP/2: each is a request, with a task and a state of its own.
//!
//! hyper asks [`Streams::begin`] for what answers a stream and gives it to [`Executor`] right
//! behind; between the two, what belongs to the stream waits in `next`. The stream's task holds its
//! place in the thread's list and in the count of the connection until all that was begun for it
//! has ended, also when the client has reset it. A task that is dropped, or cut by the thread,
//! resets the stream.

use std::cell::Cell;
use std::future::{poll_fn, ready};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::request::{Translated, translate};
use super::wire::Watch;
use super::{grpc, websocket};
use crate::proxy::answer::Body;
use crate::proxy::clock;
use crate::proxy::connection::ClientConnection;
use crate::proxy::forward;
use crate::proxy::tunnel::TunnelSlot;
use crate::proxy::worker::{Listed, Worker};

/// What comes of a stream: an answer, or its end without one.
type Outcome = Result<Response<Answer>, h2::Error>;

/// What the streams of a connection have in common.
pub(super) struct Streams {
    worker: Rc<Worker>,
    connection: Rc<ClientConnection>,
    watch: Rc<Watch>,
    /// What belongs to the stream that hyper is about to give to the executor.
    next: Cell<Option<Begun>>,
}

/// How far a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its answer's head is waited for.
    Asked,
    /// Its answer has begun, and more of it is waited for.
    Answered,
    /// The client is to take what there is of its answer.
    Sending,
}

/// The state of a stream, shared by its task and its answer.
#[derive(Debug)]
struct Stream {
    client: Rc<ClientConnection>,
    stage: Cell<Stage>,
}

impl Stream {
    /// Whether the client takes nothing of the answer for too long.
    fn is_late(&self) -> bool {
        self.stage.get() == Stage::Sending && self.client.exchange().is_overdue()
    }

    /// The client is to take something, and has so long.
    fn sends(&self) {
        self.stage.set(Stage::Sending);
        let deadline = match self.client.socket.send_timeout() {
            0 => clock::NEVER,
            time => clock::now().saturating_add(time.into()),
        };
        self.client.exchange().set_deadline(deadline);
        self.client.spare_connection();
    }

    fn waits(&self) {
        self.stage.set(Stage::Answered);
        self.client.exchange().set_deadline(clock::NEVER);
    }
}

impl Streams {
    pub(super) fn new(worker: &Rc<Worker>, connection: &Rc<ClientConnection>, watch: &Rc<Watch>) -> Self {
        let (worker, connection, watch) = (worker.clone(), connection.clone(), watch.clone());
        Self { worker, connection, watch, next: Cell::new(None) }
    }

    /// A stream has begun with this request: what answers it. Fails where there are too many.
    ///
    /// In a box, because hyper and the runtime move a stream's future six times between them.
    pub(super) fn begin(&self, request: Request<Incoming>) -> Pin<Box<dyn Future<Output = Outcome>>> {
        match self.prepare(request) {
            Ok(Ok(asked)) => Box::pin(asked.answer()),
            Ok(Err(status)) => Box::pin(ready(Ok(Answer::bare(status)))),
            Err(refused) => Box::pin(ready(Err(refused))),
        }
    }

    /// Counts the stream and makes its state. Refused: with an error, or with a status.
    fn prepare(&self, request: Request<Incoming>) -> Result<Result<Asked, StatusCode>, h2::Error> {
        let known = self.worker.here.look();
        let config = &known.settings.config;
        self.watch.stream_began();
        // hyper lets no more in than may be, but it counts none that was reset, although what was
        // begun for it may not have ended. So this one comes in the place of a reset one.
        if self.connection.streams() >= config.proxy.max_streams {
            self.watch.stream_was_reset();
            return Err(h2::Reason::REFUSED_STREAM.into());
        }
        let (mut parts, body) = request.into_parts();
        let websockets = websocket::is_allowed(&config.proxy.upgrades);
        let translated = translate(&mut parts, !body.is_end_stream(), config.limits.headers, websockets);
        let Translated { target, websocket } = match translated {
            Ok(translated) => translated,
            Err(status) => return Ok(Err(status)),
        };
        let client = ClientConnection::of_stream(&self.connection, target);
        let listed = self.worker.list(client.clone());
        if self.connection.is_last(&known.settings) {
            self.connection.close();
        }
        let stream = Rc::new(Stream { client, stage: Cell::new(Stage::Asked) });
        let slot = Rc::new(TunnelSlot::default());
        let watch = self.watch.clone();
        self.next.set(Some(Begun { stream: stream.clone(), listed, slot: slot.clone(), watch }));
        let request = Request::from_parts(parts, body);
        Ok(Ok(Asked { worker: self.worker.clone(), stream, slot, request, websocket }))
    }
}

/// A request on its way.
struct Asked {
    worker: Rc<Worker>,
    stream: Rc<Stream>,
    slot: Rc<TunnelSlot>,
    request: Request<Incoming>,
    websocket: Option<websocket::Handshake>,
}

impl Asked {
    /// Not an `async fn`: that would have all of it twice.
    fn answer(self) -> impl Future<Output = Outcome> {
        let Self { worker, stream, slot, request, websocket } = self;
        async move {
            let is_call = grpc::is_call(request.headers());
            let forwarded = forward::forward::<Streams>(&worker, &stream.client, request, &slot);
            let mut answer = match forwarded.await {
                Ok(answer) => answer,
                Err(never) => match never {},
            };
            stream.client.tell(&worker.here.look().settings, answer.headers_mut());
            if is_call {
                grpc::translate(&mut answer);
            }
            if let Some(handshake) = websocket {
                match handshake.answer(answer.status(), answer.headers_mut()) {
                    Ok(status) => *answer.status_mut() = status,
                    Err(()) => {
                        drop(slot.take());
                        stream.waits();
                        return Ok(Answer::bare(StatusCode::BAD_GATEWAY));
                    }
                }
            }
            stream.waits();
            Ok(answer.map(|body| Answer(Some((body, stream)))))
        }
    }
}

/// The body of an answer over HTTP/2; `None`: there is none, and nobody counts it.
pub(super) struct Answer(Option<(Body, Rc<Stream>)>);

impl Answer {
    fn bare(status: StatusCode) -> Response<Self> {
        let mut response = Response::new(Self(None));
        *response.status_mut() = status;
        response
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some((body, stream)) = &mut self.0 else { return Poll::Ready(None) };
        stream.waits();
        let polled = Pin::new(body).poll_frame(cx);
        if matches!(polled, Poll::Ready(Some(Ok(_)))) {
            stream.sends();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|(body, _)| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |(body, _)| body.size_hint())
    }
}

/// What belongs to a stream beside hyper's part of it.
struct Begun {
    stream: Rc<Stream>,
    listed: Listed,
    slot: Rc<TunnelSlot>,
    watch: Rc<Watch>,
}

impl Begun {
    /// Runs hyper's part of the stream to its end, and the tunnel that it may have become.
    async fn run(self, future: impl Future<Output = ()>) {
        let Self { stream, listed, slot, watch } = self;
        let (worker, client) = (listed.worker(), listed.client());
        {
            let mut future = pin!(future);
            poll_fn(|cx| {
                client.watch(cx.waker());
                if client.is_cut() || stream.is_late() { Poll::Ready(()) } else { future.as_mut().poll(cx) }
            })
            .await;
        }
        if stream.stage.get() == Stage::Asked && !client.is_cut() {
            watch.stream_was_reset();
        }
        if let Some(tunnel) = slot.take() {
            client.spare_connection();
            client.become_tunnel(tunnel.service().clone(), tunnel.target());
            worker.tunnelled();
            // In a box: every stream has the room of this, and few become tunnels.
            let run = Box::pin(tunnel.run_in_stream(worker, client.exchange()));
            client.uncut(pin!(run)).await;
        }
    }
}

/// Starts what hyper has to have done: each stream as a task of this thread.
#[derive(Clone)]
pub(super) struct Executor(pub(super) Rc<Streams>);

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        match self.0.next.take() {
            Some(begun) => tokio::task::spawn_local(begun.run(future)),
            None => tokio::task::spawn_local(future),
        };
    }
}
