//! The work of process 1 in a container: reaps the processes that the kernel leaves to it, and only
//! those.
//!
//! The daemon's own children are waited for where they were started, for their exit status. So they
//! are started through [`start_child`], and known by pid and start time. Any other child was left
//! here by the end of its parent, and is reaped once it has ended. Outside of a container an init
//! does that, and all of this does nothing.
//!
//! The ordering that matters: a child is known before the reaper looks again. While one is being
//! started, the reaper does nothing; it looks under the same lock.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::{proc, stop};

/// The pause between two looks, so that children that end by the hundred do not cost a hundred
/// looks.
const PAUSE: Duration = Duration::from_millis(100);

/// The children of this process. One table for all apps, because children are the process's.
static OWN: Mutex<Own> = Mutex::new(Own { starting: 0, known: BTreeMap::new() });

struct Own {
    /// How many are being started now.
    starting: usize,
    /// Start times by pid.
    known: BTreeMap<u32, u64>,
}

fn own() -> MutexGuard<'static, Own> {
    // A panic elsewhere leaves it whole: every change is one call.
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_init() -> bool {
    std::process::id() == 1
}

/// Starts a child of this process whose exit status the reaper leaves alone. `id` returns its pid.
///
/// # Errors
/// Those of `start`.
pub fn start_child<C, E>(
    start: impl FnOnce() -> Result<C, E>,
    id: impl FnOnce(&C) -> Option<u32>,
) -> Result<C, E> {
    if !is_init() {
        return start();
    }
    own().starting += 1;
    let started = start();
    // Nothing has waited for it yet, so it is there, at least as a zombie.
    let stat = started.as_ref().ok().and_then(id).and_then(proc::stat);
    let mut own = own();
    own.starting -= 1;
    own.known.extend(stat.map(|stat| (stat.pid, stat.start_time)));
    started
}

/// Reaps what is left to this process. Returns at once if it is not process 1; never otherwise.
/// Cancel safe.
pub async fn reap_orphans() {
    if !is_init() {
        return;
    }
    let mut ended = match signal(SignalKind::child()) {
        Ok(ended) => ended,
        Err(error) => {
            tracing::warn!("processes that end in this container stay as zombies: no SIGCHLD: {error}");
            return;
        }
    };
    loop {
        let done = stop::look(reap).await == Some(true);
        sleep(PAUSE).await;
        if done {
            ended.recv().await;
        }
    }
}

/// Reaps every zombie that was left to this process. False: a child is being started, so nothing
/// was done.
fn reap() -> bool {
    let mut own = own();
    if own.starting > 0 {
        return false;
    }
    let init = std::process::id();
    let children: Vec<_> = proc::all().into_iter().filter(|stat| stat.parent == init).collect();
    let is_own =
        |known: &BTreeMap<u32, u64>, stat: &proc::Stat| known.get(&stat.pid) == Some(&stat.start_time);
    for stat in &children {
        if !stat.lives() && !is_own(&own.known, stat) {
            let pid = i32::try_from(stat.pid).ok().and_then(Pid::from_raw);
            // An error says that it is gone.
            let _gone =
                pid.map(|pid| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG));
        }
    }
    // Own children are forgotten once they are reaped.
    own.known.retain(|pid, start_time| {
        children.iter().any(|stat| stat.pid == *pid && stat.start_time == *start_time)
    });
    true
}
