//! The points at which a test can kill the daemon: each effect of the machine, the end of each
//! step, and each stage of a write of the record.
//!
//! They exist in builds with debug assertions only. `PORTOK_DIE_AT=N` in the environment kills the
//! daemon with SIGKILL at the N-th point that it reaches, as the OOM killer or an operator's `kill
//! -9` may do. `PORTOK_PANIC_AT=APP:N` lets what drives an app panic at the end of its N-th step, as
//! a fault of portok would; `APP:N-M` also at each further one up to the M-th.

use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Dies here, if this is the N-th point.
pub(super) fn reached() {
    static LAST: OnceLock<Option<u64>> = OnceLock::new();
    static REACHED: AtomicU64 = AtomicU64::new(0);
    let last = LAST.get_or_init(|| std::env::var("PORTOK_DIE_AT").ok()?.parse().ok());
    if last.is_some_and(|last| REACHED.fetch_add(1, Ordering::SeqCst) + 1 == last) {
        let _never_back = kill(Pid::this(), Signal::SIGKILL);
    }
}

/// Panics here, if this step of the app is to fail.
pub fn step_taken(app: &str) {
    static FAILING: OnceLock<Option<(String, RangeInclusive<u64>)>> = OnceLock::new();
    static TAKEN: AtomicU64 = AtomicU64::new(0);
    let failing = FAILING.get_or_init(|| {
        let told = std::env::var("PORTOK_PANIC_AT").ok()?;
        let (app, steps) = told.split_once(':')?;
        let (first, last) = steps.split_once('-').unwrap_or((steps, steps));
        Some((app.to_owned(), first.parse().ok()?..=last.parse().ok()?))
    });
    let Some((_, steps)) = failing.as_ref().filter(|(whose, _)| whose == app) else { return };
    let taken = TAKEN.fetch_add(1, Ordering::SeqCst) + 1;
    assert!(!steps.contains(&taken), "step {taken} of app `{app}` is to fail");
}
