//! The coarse clock of one data-plane thread.
//!
//! Requests read it instead of the kernel's clock, and no request sets a timer: once a [`TICK`] the
//! thread's keeper moves the clock, then looks whose time has run out. So a deadline is kept to
//! within a tick, and never fires early.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often the clock moves.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// A deadline that never passes.
pub(super) const NEVER: u64 = u64::MAX;

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(1) };
    static DATE: Cell<Date> = const { Cell::new(Date { second: 0, text: *b"Thu, 01 Jan 1970 00:00:00 GMT" }) };
}

/// A second as `Date` shows it (RFC 9110, 5.6.7).
#[derive(Clone, Copy)]
struct Date {
    second: u64,
    text: [u8; 29],
}

/// Milliseconds since the counters' start plus one (so that zero can mean "not yet").
pub(super) fn now() -> u64 {
    NOW.get()
}

/// Moves this thread's clock, which never goes back, and `Date` with it.
pub(super) fn advance(since_start: Duration) {
    NOW.set(NOW.get().max(moment(since_start)));
    set_date(SystemTime::now());
}

/// What the clock shows so long after the counters' start.
pub(super) fn moment(since_start: Duration) -> u64 {
    millis(since_start).saturating_add(1)
}

/// The value of `Date` now. It is written once a second, not once an answer.
pub(super) fn date() -> [u8; 29] {
    DATE.get().text
}

fn set_date(now: SystemTime) {
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if second != DATE.get().second
        && let Ok(text) = httpdate::fmt_http_date(now).as_bytes().try_into()
    {
        DATE.set(Date { second, text });
    }
}

/// The moment when `timeout` has surely passed.
pub(super) fn after(timeout: Duration) -> u64 {
    since(now(), timeout)
}

/// The moment when `timeout` has surely passed since `moment`.
pub(super) fn since(moment: u64, timeout: Duration) -> u64 {
    moment.saturating_add(millis(timeout)).saturating_add(millis(TICK))
}

/// Whole milliseconds of `duration`.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(NEVER)
}
