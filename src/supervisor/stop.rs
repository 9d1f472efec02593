//! The stop ladder's shared parts: the order to stop, how long each rung may take, and the sweep of
//! processes that are in no group of a run.
//!
//! The ladder of a run: the signal to the whole group (and `SIGCONT`), SIGKILL to it at the
//! deadline, then the same for everything else that carries the run's tag. The sweep ends when one
//! look at all processes finds nothing more.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep, timeout};

use super::hunt::{Hunt, Left};
use super::identity::Identity;
use super::proc::NO_SIGNAL;
use crate::config::StopSignal;

/// The time between the stop signal and SIGKILL where no order gives one: a leader that ended by
/// itself left something behind.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// The least time between signal and SIGKILL for what left the group, even when the group has used
/// up all the time.
const STRAY_GRACE: Duration = Duration::from_secs(1);
/// How long a process is waited for after SIGKILL. Only the kernel can hold it longer (state D: a
/// dead disk or network share). It ends when the kernel lets it, and portok goes on without it.
pub(super) const UNKILLABLE_AFTER: Duration = Duration::from_secs(30);
/// The first and the longest pause between two looks.
pub(super) const FIRST_LOOK: Duration = Duration::from_millis(1);
pub(super) const LONGEST_LOOK: Duration = Duration::from_millis(50);
/// How long to wait for a process that was just forked, or is in the middle of execve(2), to show
/// whose it is. The kernel takes milliseconds for it, more on a busy machine; a process that hangs
/// on a dead disk is most likely none of ours.
const BECOMING: Duration = Duration::from_secs(5);
/// How long one look at all of `/proc` may take. A process that is stuck in the kernel can hold the
/// reader up.
const LOOK_DEADLINE: Duration = Duration::from_secs(20);

/// An order to stop a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct StopOrder {
    /// The first signal, by number.
    pub(super) signal: i32,
    /// When SIGKILL follows.
    pub(super) kill_at: Instant,
    /// How long that is after the signal, if this daemon sent it.
    timeout: Option<Duration>,
    /// SIGKILL is due now, for everything.
    pub(super) at_once: bool,
}

impl StopOrder {
    pub(super) fn stop(signal: StopSignal, timeout: Duration) -> Self {
        let now = Instant::now();
        // A time that the clock cannot hold counts as a year.
        let kill_at = now.checked_add(timeout).unwrap_or_else(|| now + Duration::from_secs(365 * 86_400));
        Self { signal: signal.number, kill_at, timeout: Some(timeout), at_once: false }
    }

    /// The rest of a stop whose signal an earlier daemon has sent: no signal now, SIGKILL after
    /// `left`.
    pub(super) fn continued(left: Duration) -> Self {
        Self { timeout: None, ..Self::stop(StopSignal { number: NO_SIGNAL, name: "none" }, left) }
    }

    pub(super) fn kill() -> Self {
        Self { signal: Signal::SIGKILL as i32, kill_at: Instant::now(), timeout: None, at_once: true }
    }

    /// Lays a later order over the first: the signal stays, the time may only become shorter.
    /// Returns whether anything changed.
    pub(super) fn merge(slot: &mut Option<Self>, later: Self) -> bool {
        match slot {
            None => {
                *slot = Some(later);
                true
            }
            Some(first) if later.kill_at < first.kill_at || (later.at_once && !first.at_once) => {
                first.kill_at = first.kill_at.min(later.kill_at);
                first.at_once |= later.at_once;
                true
            }
            Some(_) => false,
        }
    }
}

/// The log's sentence about a process that is killed because its time to end by itself is over.
pub(super) fn overdue(order: Option<StopOrder>) -> String {
    match order {
        Some(StopOrder { timeout: Some(timeout), .. }) => format!(
            "still runs {} after its stop signal (app.stop_timeout): killed with SIGKILL",
            humantime::format_duration(timeout)
        ),
        Some(_) => "still runs after app.stop_timeout: killed with SIGKILL".to_owned(),
        None => format!(
            "left processes behind that still run {} after SIGTERM: killed with SIGKILL",
            humantime::format_duration(STOP_TIMEOUT)
        ),
    }
}

/// The next pause between two looks.
pub(super) fn longer(pause: Duration) -> Duration {
    (pause * 2).min(LONGEST_LOOK)
}

/// Runs a look at `/proc` on a blocking thread. `None`: it was not over in time.
pub(super) async fn look<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    timeout(LOOK_DEADLINE, tokio::task::spawn_blocking(work)).await.ok()?.ok()
}

/// Stops everything that `hunt` finds: `signal` once to each, SIGKILL from the time on that `order`
/// gives. Returns when nothing is found any more, or what is left cannot be ended.
pub(super) async fn sweep(mut hunt: Hunt, signal: i32, order: impl Fn() -> (Instant, bool)) {
    let begun = Instant::now();
    let mut killed_at = None;
    let mut pause = FIRST_LOOK;
    loop {
        let now = Instant::now();
        let (kill_at, at_once) = order();
        let due = at_once || signal == Signal::SIGKILL as i32 || now >= kill_at.max(begun + STRAY_GRACE);
        if due && killed_at.is_none() {
            killed_at = Some(now);
        }
        let send = if killed_at.is_some() { Signal::SIGKILL as i32 } else { signal };
        let found = look(move || {
            let left = hunt.round(send, send == Signal::SIGKILL as i32);
            (hunt, left)
        });
        match found.await {
            Some((_, Left::Nothing)) => return,
            Some((_, Left::Unknown)) if begun.elapsed() > BECOMING => return,
            Some((back, _)) => hunt = back,
            None => {
                tracing::error!("cannot look for left-over processes: /proc does not answer");
                return;
            }
        }
        if killed_at.is_some_and(|at| at.elapsed() >= UNKILLABLE_AFTER) {
            let left = look(move || hunt.describe()).await.unwrap_or_default();
            tracing::error!(processes = left, "left-over processes survive SIGKILL and are given up");
            return;
        }
        sleep(pause).await;
        pause = longer(pause);
    }
}

/// Stops what an earlier daemon left; see [`super::Supervisor::stop_leftovers`].
pub(super) async fn leftovers(
    recorded: Vec<Identity>,
    mark: String,
    spared: Vec<String>,
    signal: StopSignal,
    timeout: Duration,
) {
    let Some(hunt) = look(move || Hunt::for_leftovers(&recorded, &mark, &spared)).await else {
        tracing::error!("cannot look for left-over processes: /proc does not answer");
        return;
    };
    let order = StopOrder::stop(signal, timeout);
    sweep(hunt, signal.number, || (order.kill_at, false)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_order_decides_the_signal_and_later_ones_only_hurry() {
        let term = StopSignal { number: Signal::SIGTERM as i32, name: "SIGTERM" };
        let int = StopSignal { number: Signal::SIGINT as i32, name: "SIGINT" };
        let mut slot = None;
        assert!(StopOrder::merge(&mut slot, StopOrder::stop(term, Duration::from_secs(10))));
        let first = slot.unwrap();
        assert!(!StopOrder::merge(&mut slot, StopOrder::stop(int, Duration::from_secs(60))));
        assert_eq!(slot.unwrap().kill_at, first.kill_at);
        assert!(StopOrder::merge(&mut slot, StopOrder::stop(int, Duration::from_secs(1))));
        assert_eq!(slot.unwrap().signal, Signal::SIGTERM as i32);
        assert!(slot.unwrap().kill_at < first.kill_at && !slot.unwrap().at_once);
        assert!(StopOrder::merge(&mut slot, StopOrder::kill()));
        assert!(slot.unwrap().at_once && slot.unwrap().kill_at <= Instant::now());
        assert!(!StopOrder::merge(&mut slot, StopOrder::kill()));
    }

    #[test]
    fn no_time_is_too_long() {
        let term = StopSignal { number: 15, name: "SIGTERM" };
        assert!(StopOrder::stop(term, Duration::MAX).kill_at > Instant::now());
    }
}
