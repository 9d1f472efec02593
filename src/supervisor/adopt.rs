//! A process group that an earlier daemon started: taken over, watched and stopped like any other.
//!
//! Its leader is no child of this daemon, so it is watched through a pidfd, and how it ended cannot
//! be known. It is proven first: the pidfd is taken, then boot id and start time are compared with
//! the record, so that proof and watch concern one process (pidfd_open(2)).
//!
//! Its group is never signalled by number. The daemon cannot keep the leader as a zombie, so once
//! the group is empty the kernel may give the number to another one. All members are pinned one by
//! one instead ([`super::hunt`]).
//!
//! The task ends as that of a child does ([`super::group`]). A dropped future stops nothing.

#![expect(
    unsafe_code,
    reason = "tokio waits on a descriptor of its caller's only with a promise that it stays open"
)]

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::signal::Signal;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::group::{GroupEvent, Owned, Process, pair};
use super::hunt::Hunt;
use super::output::Reading;
use super::stop::{self, StopOrder, UNKILLABLE_AFTER};
use super::{Exit, Identity, Lease, proc};

/// A leader that was proven to be the recorded one.
#[derive(Debug)]
pub(super) struct Leader {
    identity: Identity,
    pidfd: AsyncFd<OwnedFd>,
}

impl Leader {
    /// Finds the recorded process.
    ///
    /// # Errors
    /// It cannot be taken over: it has ended, the pid is another process's, the host was booted
    /// since, or the kernel has no pidfds (before 5.3).
    pub(super) fn find(identity: &Identity) -> io::Result<Self> {
        let gone = |why: &str| io::Error::new(io::ErrorKind::NotFound, why.to_owned());
        if !identity.is_of_this_boot() {
            return Err(gone("it ran before the host was booted"));
        }
        let pid = i32::try_from(identity.pid).ok().filter(|&pid| pid > 1).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| gone("the record has no usable pid"))?;
        // The pidfd becomes readable when the process ends.
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| match errno {
            rustix::io::Errno::SRCH => gone("it has ended"),
            other => other.into(),
        })?;
        let stat =
            proc::stat(identity.pid).filter(|stat| stat.lives()).ok_or_else(|| gone("it has ended"))?;
        if stat.start_time != identity.start_time {
            return Err(gone("its pid is another process's now"));
        }
        // SAFETY: the descriptor was just opened, and `OwnedFd` keeps it open and the same until
        // the `AsyncFd` that owns it is dropped; nothing takes it out.
        let pidfd = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE)? };
        Ok(Self { identity: identity.clone(), pidfd })
    }

    /// Waits for its end. Cancel safe.
    async fn ended(&self) -> Exit {
        // An error means that the runtime ends, and then nobody uses the answer.
        let _runtime_ends = self.pidfd.readable().await;
        Exit::Unknown
    }
}

/// Starts the task that owns it. `left`: an earlier daemon has sent it its stop signal, and SIGKILL
/// is due after this time.
pub(super) fn take(
    groups: &TaskTracker,
    letting_go: CancellationToken,
    leader: Leader,
    lease: Option<Lease>,
    reading: Reading,
    left: Option<Duration>,
) -> Process {
    let (process, owned) = pair(leader.identity.clone(), lease, reading);
    if let Some(left) = left {
        process.order(StopOrder::continued(left));
        // Now, so that the first record that this daemon writes says it too.
        owned.tell_signalled();
    }
    groups.spawn(async move {
        letting_go.run_until_cancelled(owned.run_adopted(leader)).await;
    });
    process
}

impl Owned {
    async fn run_adopted(mut self, leader: Leader) {
        let mut exit = None;
        let first = tokio::select! {
            ended = leader.ended() => GroupEvent::Ended(ended),
            _ = self.orders.wait_for(Option::is_some) => GroupEvent::Ordered,
        };
        if let GroupEvent::Ended(ended) = first {
            exit = Some(self.announce(ended).await);
        }
        let since = Instant::now();
        let signal = self.ordered().map_or(Signal::SIGTERM as i32, |order| order.signal);
        let hunt = self.signal(signal).await;
        while exit.is_none() {
            let (kill_at, at_once) = self.deadline(since);
            if at_once {
                break;
            }
            let event = tokio::select! {
                ended = leader.ended() => GroupEvent::Ended(ended),
                Ok(()) = self.orders.changed() => GroupEvent::Ordered,
                () = sleep_until(kill_at) => GroupEvent::Due,
            };
            match event {
                GroupEvent::Ended(ended) => exit = Some(self.announce(ended).await),
                GroupEvent::Ordered => {}
                GroupEvent::Due => {
                    self.warn_of_kill();
                    break;
                }
            }
        }
        stop::sweep(hunt, signal, || self.deadline(since)).await;
        let exit = match exit {
            Some(exit) => exit,
            None => {
                // The sweep has seen its end, or has given up.
                let ended = tokio::time::timeout(UNKILLABLE_AFTER, leader.ended()).await;
                self.announce(ended.unwrap_or(Exit::Unknown)).await
            }
        };
        self.end(exit).await;
    }

    /// Sends the first signal to all of it. Returns the hunt, to go on with.
    async fn signal(&self, signal: i32) -> Hunt {
        let identity = self.identity().clone();
        let signalled = stop::look(move || {
            let mut hunt = Hunt::for_run(&identity);
            hunt.note_descendants(identity.pid);
            hunt.round(signal, false);
            hunt
        });
        let hunt = signalled.await;
        self.tell_signalled();
        hunt.unwrap_or_else(|| Hunt::for_run(self.identity()))
    }
}
