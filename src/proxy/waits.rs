//! The deadlines of an exchange, apart from its connection's.
//!
//! State: plain cells of one client connection, set by whoever waits. The thread's sweep looks at
//! them and wakes the connection's task once a time has run out; the task then finds out which one.
//! No request sets a timer.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::clock;

/// Until when each thing is waited for.
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
    /// Whether any time has run out.
    pub(super) fn is_overdue(&self) -> bool {
        clock::now() >= self.body.get().min(self.read.get()).min(self.whole.get())
    }

    /// Whether the exchange should have ended some time ago. Its task was woken then and could not
    /// end it, because the client takes nothing.
    pub(super) fn is_long_overdue(&self) -> bool {
        clock::now() >= self.whole.get().saturating_add(2 * clock::millis(clock::TICK))
    }

    /// Gives the exchange `time` from now on, and returns its end.
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

/// How long one side of an exchange may keep the other waiting.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    waits: Rc<Waits>,
    /// For each further byte. `None`: without limit.
    time: Option<Duration>,
}

impl Patience {
    pub(super) fn new(waits: Rc<Waits>, time: Option<Duration>) -> Self {
        Self { waits, time }
    }

    /// Notes that nothing has come of the client's body. Returns whether it was waited for too
    /// long.
    pub(super) fn body_is_late(&self) -> bool {
        self.is_late(&self.waits.body)
    }

    /// Notes that a part of the client's body has come, or that nobody waits for it any more.
    pub(super) fn body_came(&self) {
        self.waits.body.set(clock::NEVER);
    }

    /// Notes that nothing has come of the app's answer. Returns the limit that was reached, if one
    /// was.
    pub(super) fn answer_is_late(&self) -> Option<&'static str> {
        if self.is_late(&self.waits.read) { Some("upstream.read_timeout") } else { self.exchange_is_late() }
    }

    /// The limit of the whole exchange, if it was reached.
    pub(super) fn exchange_is_late(&self) -> Option<&'static str> {
        (clock::now() >= self.waits.whole.get()).then_some("upstream.timeout")
    }

    /// Notes that a part of the app's answer has come.
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
