//! The state of one request of a client and its answer, or of the tunnel that they become: what it
//! waits for, until when, and who is woken then.
//!
//! Over HTTP/1.1 a connection has one, embedded in it and used for one request after the other.
//! Where several requests of a connection run at a time, each has its own. It is owned by the task
//! that serves it. The thread's sweep of the connections looks at it once a tick: every wait is a
//! moment in a plain cell, and no request sets a timer.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::board::Service;
use super::clock;
use super::settings::Settings;
use super::target::Target;
use super::waits::{Patience, Waits};

/// The state of one request; see the module.
#[derive(Debug)]
pub(super) struct ClientExchange {
    /// When it stops waiting for a connection or a head.
    deadline: Cell<u64>,
    /// Its further deadlines. Made when one is needed: most exchanges have none.
    waits: OnceCell<Rc<Waits>>,
    /// What it is a tunnel to, once it is one. In a box, because few are.
    tunnel: OnceCell<Box<TunnelTo>>,
    /// Wakes the task that serves it.
    waker: RefCell<Option<Waker>>,
}

/// What a tunnel goes to.
#[derive(Debug)]
struct TunnelTo {
    service: Arc<Service>,
    target: Option<Arc<Target>>,
    /// The app has ended its side.
    app_ended: Cell<bool>,
    /// When a byte last passed.
    moved: Cell<u64>,
}

impl TunnelTo {
    /// Whether nothing more is to pass, whatever the client has to say.
    fn is_over(&self, settings: &Settings) -> bool {
        let is_closed = self.target.as_ref().is_some_and(|target| target.is_closed());
        let is_left = self.app_ended.get() && is_closed;
        let idle = self.service.config(&settings.config).limits.tunnel_idle;
        let idle = idle.map_or(clock::NEVER, clock::millis);
        is_left || clock::now() >= self.moved.get().saturating_add(idle)
    }
}

impl Default for ClientExchange {
    fn default() -> Self {
        Self {
            deadline: Cell::new(clock::NEVER),
            waits: OnceCell::new(),
            tunnel: OnceCell::new(),
            waker: RefCell::default(),
        }
    }
}

impl ClientExchange {
    /// Its deadlines beside the one of [`Self::set_deadline`].
    pub(super) fn waits(&self) -> &Rc<Waits> {
        self.waits.get_or_init(Rc::default)
    }

    /// How long the app may be silent once its answer has begun; `None`: without limit.
    pub(super) fn patience(&self, settings: &Settings) -> Option<Patience> {
        let upstream = &settings.app.upstream;
        let is_limited = upstream.read_timeout.or(upstream.timeout).is_some();
        is_limited.then(|| Patience::new(self.waits().clone(), upstream.read_timeout))
    }

    /// Notes that it waits for nobody whose time is limited.
    pub(super) fn rest(&self) {
        if let Some(waits) = self.waits.get() {
            waits.end();
        }
    }

    /// Notes that the answer is given: nothing is waited for any more.
    pub(super) fn end(&self) {
        self.deadline.set(clock::NEVER);
        self.rest();
    }

    /// Sets when it stops waiting; see [`Self::is_overdue`].
    pub(super) fn set_deadline(&self, deadline: u64) {
        self.deadline.set(deadline);
    }

    pub(super) fn is_overdue(&self) -> bool {
        clock::now() >= self.deadline.get()
    }

    /// Waits for `future`, but not longer than until `deadline`.
    pub(super) async fn until<F: Future>(&self, deadline: u64, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        self.set_deadline(deadline);
        let output = poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if self.is_overdue() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await;
        self.set_deadline(clock::NEVER);
        output
    }

    /// Notes that it is a tunnel to `service` now, at this target.
    pub(super) fn become_tunnel(&self, service: Arc<Service>, target: Option<Arc<Target>>) {
        let (app_ended, moved) = (Cell::new(false), Cell::new(clock::now()));
        let _first = self.tunnel.set(Box::new(TunnelTo { service, target, app_ended, moved }));
    }

    /// Notes that the app has ended its side of the tunnel.
    pub(super) fn note_app_ended(&self) {
        if let Some(tunnel) = self.tunnel.get() {
            tunnel.app_ended.set(true);
        }
    }

    /// Notes a byte that has passed through the tunnel.
    pub(super) fn note_moved(&self) {
        if let Some(tunnel) = self.tunnel.get() {
            tunnel.moved.set(clock::now());
        }
    }

    /// Looks whether a time has run out, and wakes the task if one has. Returns whether it has to
    /// be cut: its task was woken before and could not end it, or it is a tunnel that is over.
    pub(super) fn sweep(&self, settings: &Settings) -> bool {
        if self.is_overdue() {
            self.wake();
        }
        let mut is_to_cut = false;
        if let Some(waits) = self.waits.get()
            && waits.is_overdue()
        {
            self.wake();
            is_to_cut = waits.is_long_overdue();
        }
        is_to_cut || self.tunnel.get().is_some_and(|tunnel| tunnel.is_over(settings))
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Remembers the task that serves it.
    pub(super) fn watch(&self, waker: &Waker) {
        let mut known = self.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }
}
