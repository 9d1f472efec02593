//! The coarse clock of one data-plane thread.
//!
//! Requests read it instead of the kernel's clock, and no request sets a timer: once a [`TICK`] the
//! thread's keeper moves the clock, then looks whose time has run out. So a deadline is kept to
//! within a tick, and never fires early.
//!
//! There are two clocks. [`now`] stands still while the thread is kept from running: what a client
//! or an app has sent in that time waits in the kernel, and neither is late because portok did not
//! look. [`uptime`] goes on: it is for what all threads share, and for what the other side counts
//! by its own clock.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often the clock moves.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// By how much [`now`] moves at most: a thread that is moved on later than this did not run.
const MOST_AT_ONCE: u64 = 200;

/// A deadline that never passes.
pub(super) const NEVER: u64 = u64::MAX;

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(1) };
    static UPTIME: Cell<u64> = const { Cell::new(1) };
    static DATE: Cell<Date> = const { Cell::new(Date { second: 0, text: *b"Thu, 01 Jan 1970 00:00:00 GMT" }) };
}

/// A second as `Date` shows it (RFC 9110, 5.6.7).
#[derive(Clone, Copy)]
struct Date {
    second: u64,
    text: [u8; 29],
}

/// Milliseconds in which this thread ran, plus one (so that zero can mean "not yet").
pub(super) fn now() -> u64 {
    NOW.get()
}

/// Milliseconds since the counters' start plus one, the same on all threads.
pub(super) fn uptime() -> u64 {
    UPTIME.get()
}

/// Moves this thread's clocks, which never go back, and `Date` with them.
pub(super) fn advance(since_start: Duration) {
    let passed = moment(since_start).saturating_sub(UPTIME.get());
    UPTIME.set(UPTIME.get() + passed);
    NOW.set(NOW.get() + passed.min(MOST_AT_ONCE));
    set_date(SystemTime::now());
}

/// What [`uptime`] is so long after the counters' start.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_thread_did_not_see_pass_counts_for_nobody() {
        let begun = uptime();
        let at = |milliseconds| advance(Duration::from_millis(begun + milliseconds));
        at(100);
        let (ran, deadline) = (now(), after(Duration::from_secs(5)));
        at(200);
        assert_eq!((now(), uptime()), (ran + 100, begun + 201));
        at(60_000);
        assert_eq!((now(), uptime()), (ran + 100 + MOST_AT_ONCE, begun + 60_001));
        assert!(now() < deadline);
        at(50_000);
        assert_eq!(uptime(), begun + 60_001, "it never goes back");
    }
}
