//! The search for processes that left their group, or that an earlier daemon left: found in
//! `/proc`, pinned, checked, signalled.
//!
//! A pid that was read somewhere may be another process's by now. So a process is *pinned* by a
//! pidfd first, then checked again (start time, tag or group), and signalled only through that
//! pidfd: check and signal concern one process (pidfd_open(2)). On a kernel without pidfds (before
//! 5.3), kill(2) follows directly on the check.
//!
//! Everything here blocks on `/proc`.

use std::os::fd::OwnedFd;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

use super::identity::{Identity, is_tag};
use super::proc::{self, NO_SIGNAL, Stat, Tagged};

/// The processes to stop: those already known, and how to recognise more of them.
#[derive(Debug, Default)]
pub(super) struct Hunt {
    /// A process is a member if its tag begins with one of these, ...
    tags: Vec<String>,
    /// ... unless the tag begins with one of these, which are the tags of runs that stay.
    spared: Vec<String>,
    /// Process groups whose processes are members. A group id is trusted only while a known member
    /// is alive in it; afterwards the kernel may have reused the number.
    groups: Vec<u32>,
    members: Vec<Member>,
}

/// What a round found alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Members,
    /// No member, but a process that cannot be told from one yet.
    Unknown,
    Nothing,
}

/// A pinned process.
#[derive(Debug)]
struct Member {
    pid: u32,
    start_time: u64,
    /// `None`: this kernel has no pidfds.
    pidfd: Option<OwnedFd>,
    /// Whether it has the first signal.
    signalled: bool,
}

impl Hunt {
    /// Hunts everything that carries the tag.
    pub(super) fn for_tag(tag: &str) -> Self {
        Self { tags: vec![tag.to_owned()], ..Self::default() }
    }

    /// Hunts everything with the tag of a recorded run; also its group, if its leader is proven to
    /// be the recorded one.
    pub(super) fn for_run(identity: &Identity) -> Self {
        Self::for_leftovers(std::slice::from_ref(identity), "", &[])
    }

    /// Does the same for several runs, and hunts everything whose tag begins with the record's
    /// mark, except for tags that begin with one of `spared`.
    pub(super) fn for_leftovers(recorded: &[Identity], mark: &str, spared: &[String]) -> Self {
        let mut hunt = Self { spared: spared.to_vec(), ..Self::default() };
        if is_tag(mark) {
            hunt.tags.push(mark.to_owned());
        }
        for identity in recorded {
            if is_tag(&identity.tag) {
                hunt.tags.push(identity.tag.clone());
            }
            if !identity.is_of_this_boot() || identity.pid <= 1 {
                continue;
            }
            let Some(leader) = Member::pin(identity.pid, identity.start_time) else { continue };
            if proc::stat(identity.pid).is_some_and(|stat| stat.group == identity.pid) {
                hunt.groups.push(identity.pid);
            }
            hunt.members.push(leader);
        }
        hunt
    }

    /// Adds the descendants of the leader `root` that are not in its group. Once the leader is
    /// gone, only their tag tells whose they were, and they may have cleared it.
    pub(super) fn note_descendants(&mut self, root: u32) {
        let table = proc::all();
        let below = proc::descendants(&table, root);
        for stat in table.iter().filter(|stat| below.contains(&stat.pid) && stat.group != root) {
            self.add(stat);
        }
    }

    /// Looks for members, forgets those that are gone, signals those that have no signal yet; with
    /// `again`, signals all. `SIGCONT` follows, so that a stopped process acts on the signal.
    pub(super) fn round(&mut self, signal: i32, again: bool) -> Left {
        let table = proc::all();
        let living = |member: &Member| {
            table
                .iter()
                .any(|stat| stat.pid == member.pid && stat.start_time == member.start_time && stat.lives())
        };
        self.members.retain(living);
        let groups: Vec<u32> = self
            .groups
            .iter()
            .copied()
            .filter(|&group| {
                table.iter().any(|stat| {
                    stat.group == group
                        && self.members.iter().any(|m| (m.pid, m.start_time) == (stat.pid, stat.start_time))
                })
            })
            .collect();
        let own = std::process::id();
        let mut becoming = false;
        for stat in &table {
            if stat.pid <= 1 || stat.pid == own || !stat.lives() {
                continue;
            }
            if groups.contains(&stat.group) {
                self.add(stat);
            } else if !self.tags.is_empty() {
                match proc::tagged(stat) {
                    Tagged::Tag(tag) if self.wants(&tag) => self.add(stat),
                    Tagged::NotYet => becoming = true,
                    Tagged::Tag(_) | Tagged::None => (),
                }
            }
        }
        for member in &mut self.members {
            if again || !member.signalled {
                member.signalled = true;
                member.send(signal);
                if signal != Signal::SIGKILL as i32 && signal != NO_SIGNAL {
                    member.send(Signal::SIGCONT as i32);
                }
            }
        }
        match (self.members.is_empty(), becoming) {
            (false, _) => Left::Members,
            (true, true) => Left::Unknown,
            (true, false) => Left::Nothing,
        }
    }

    fn wants(&self, tag: &str) -> bool {
        let begins_with = |beginning: &String| tag.starts_with(beginning);
        self.tags.iter().any(begins_with) && !self.spared.iter().any(begins_with)
    }

    /// Describes what is left, for the log: `12 (node, state D)` for each.
    pub(super) fn describe(&self) -> String {
        let shown = self.members.iter().filter_map(|member| {
            let stat = proc::stat(member.pid)?;
            Some(format!("{} ({}, state {})", member.pid, proc::name(member.pid), stat.state()))
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    fn add(&mut self, stat: &Stat) {
        let known = self.members.iter().any(|m| (m.pid, m.start_time) == (stat.pid, stat.start_time));
        if !known && let Some(member) = Member::pin(stat.pid, stat.start_time) {
            self.members.push(member);
        }
    }
}

impl Member {
    /// Pins the process with this pid, if it is the one that started at `start_time`. The tag,
    /// group or parent that it was chosen for was read for the same pid and start time, so it is
    /// the pinned one's.
    fn pin(pid: u32, start_time: u64) -> Option<Self> {
        let raw = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
        let pidfd = match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(pidfd) => Some(pidfd),
            Err(rustix::io::Errno::NOSYS) => None,
            Err(_) => return None,
        };
        let member = Self { pid, start_time, pidfd, signalled: false };
        member.holds().then_some(member)
    }

    /// Whether the pid is still this process's.
    fn holds(&self) -> bool {
        proc::stat(self.pid).is_some_and(|stat| stat.start_time == self.start_time && stat.lives())
    }

    fn send(&self, number: i32) {
        // An error says that it has ended, or may not be signalled: that shows in the next rounds.
        match &self.pidfd {
            Some(pidfd) => {
                if let Some(signal) = rustix::process::Signal::from_named_raw(number) {
                    let _ = pidfd_send_signal(pidfd, signal);
                }
            }
            None => {
                if let (true, Ok(pid), Ok(signal)) =
                    (self.holds(), i32::try_from(self.pid), Signal::try_from(number))
                {
                    let _ = kill(Pid::from_raw(pid), signal);
                }
            }
        }
    }
}
