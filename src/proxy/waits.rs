//! What an exchange waits for beside its connection, and until when.
//!
//! State: plain cells of one client connection, set by whoever waits and looked at by the thread's sweep, which wakes the
//! connection's task once a time has run out; that task finds out which one. No request sets a timer.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::clock;

/// Until when something is waited for.
#[derive(Debug)]
pub(super) struct Waits {
    /// The next byte of the client's body.
    body: Cell<u64>,
    /// The next byte of the app's answer.
    read: Cell<u64>,
    /// The end of the exchange.
    whole: Cell<u64>,
}

impl Default for Waits {
    fn default() -> Self {
        let never = || Cell::new(clock::NEVER);
        Self { body: never(), read: never(), whole: never() }
    }
}

impl Waits {
    /// Whether something was waited for too long.
    pub(super) fn is_overdue(&self) -> bool {
        clock::now() >= self.body.get().min(self.read.get()).min(self.whole.get())
    }

    /// Whether the exchange should have ended some time ago, and whoever was woken then could not end it: a client takes
    /// nothing.
    pub(super) fn is_long_overdue(&self) -> bool {
        clock::now() >= self.whole.get().saturating_add(2 * clock::millis(clock::TICK))
    }

    /// From now on the exchange has `time`; gives its end.
    pub(super) fn begin(&self, time: Duration) -> u64 {
        self.whole.set(clock::after(time));
        self.whole.get()
    }

    /// The exchange has ended.
    pub(super) fn end(&self) {
        for cell in [&self.body, &self.read, &self.whole] {
            cell.set(clock::NEVER);
        }
    }
}

/// How long one side may leave the other waiting.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    waits: Rc<Waits>,
    /// For one byte of that side.
    time: Option<Duration>,
}

impl Patience {
    pub(super) fn new(waits: Rc<Waits>, time: Option<Duration>) -> Self {
        Self { waits, time }
    }

    /// Nothing has come of the client's body; whether it was waited for too long.
    pub(super) fn body_is_late(&self) -> bool {
        self.is_late(&self.waits.body)
    }

    /// Something of the client's body has come, or nobody waits for it any more.
    pub(super) fn body_came(&self) {
        self.waits.body.set(clock::NEVER);
    }

    /// Nothing has come of the app's answer; which limit was reached.
    pub(super) fn answer_is_late(&self) -> Option<&'static str> {
        if self.is_late(&self.waits.read) { Some("upstream.read_timeout") } else { self.exchange_is_late() }
    }

    /// Whether the exchange takes too long.
    pub(super) fn exchange_is_late(&self) -> Option<&'static str> {
        (clock::now() >= self.waits.whole.get()).then_some("upstream.timeout")
    }

    /// Something of the app's answer has come.
    pub(super) fn answer_came(&self) {
        self.waits.read.set(clock::NEVER);
    }

    fn is_late(&self, until: &Cell<u64>) -> bool {
        if until.get() == clock::NEVER
            && let Some(time) = self.time
        {
            until.set(clock::after(time));
        }
        clock::now() >= until.get()
    }
}
