//! What left its group, and what an earlier daemon left: found in `/proc`, pinned, checked, signalled.
//!
//! A pid that was read somewhere may be another process's by now. So a process is *pinned* by a pidfd first, then
//! checked again (start time, tag or group), and signalled only through that pidfd: check and signal concern one
//! process (pidfd_open(2)). A kernel without pidfds (before 5.3) gets check and kill(2) directly after one another.
//!
//! Everything here blocks on `/proc`.

use std::os::fd::OwnedFd;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

use super::identity::{Identity, is_tag};
use super::proc::{self, Mark, NO_SIGNAL, Stat};

/// The processes that are to be stopped: those known, and how more of them are recognised.
#[derive(Debug, Default)]
pub(super) struct Hunt {
    /// A process whose tag begins with one of these belongs to it, ...
    tags: Vec<String>,
    /// ... unless it begins with one of these: another run's, which somebody else looks after.
    spared: Vec<String>,
    /// A process in one of these groups belongs to it as long as a member that is known lives in the group: only so
    /// long the number cannot be another group's.
    groups: Vec<u32>,
    members: Vec<Member>,
}

/// What a round found that still lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    Members,
    /// No member, but a process of which nobody can say yet whether it is one.
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
    /// Whether it has got the first signal.
    asked: bool,
}

impl Hunt {
    /// Everything that carries the tag.
    pub(super) fn for_tag(tag: &str) -> Self {
        Self { tags: vec![tag.to_owned()], ..Self::default() }
    }

    /// The group of a recorded run, if its leader is proven to be the one that was recorded, and everything with its
    /// tag.
    pub(super) fn for_run(identity: &Identity) -> Self {
        Self::for_leftovers(std::slice::from_ref(identity), "", &[])
    }

    /// The same for several runs, and everything whose tag begins with the record's mark, but for tags that
    /// begin with one of `spared`.
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

    /// Adds what descends from the leader `root` without being in its group: once the leader has gone, nothing but
    /// the tag tells that it was ours, and the tag may have been cleared.
    pub(super) fn note_descendants(&mut self, root: u32) {
        let table = proc::all();
        let below = proc::descendants(&table, root);
        for stat in table.iter().filter(|stat| below.contains(&stat.pid) && stat.group != root) {
            self.add(stat);
        }
    }

    /// Looks for members, signals those that were not asked yet (all of them with `again`), forgets those that are
    /// gone. `SIGCONT` follows a signal, so that a stopped process can act on it.
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
                match proc::mark(stat.pid) {
                    Mark::Tag(tag) if self.wants(&tag) => self.add(stat),
                    Mark::NotYet => becoming = true,
                    Mark::Tag(_) | Mark::None => (),
                }
            }
        }
        for member in &mut self.members {
            if again || !member.asked {
                member.asked = true;
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

    /// `12 (node, state D)` for each that is left, for the log.
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
    /// Pins the process with this pid, if it is the one that started at `start_time`. What it was chosen for (tag, group,
    /// parent) was read for the same pid and start time, so it holds for the pinned one.
    fn pin(pid: u32, start_time: u64) -> Option<Self> {
        let raw = rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)?;
        let pidfd = match pidfd_open(raw, PidfdFlags::empty()) {
            Ok(pidfd) => Some(pidfd),
            Err(rustix::io::Errno::NOSYS) => None,
            Err(_) => return None,
        };
        let member = Self { pid, start_time, pidfd, asked: false };
        member.holds().then_some(member)
    }

    /// Whether the pid still is this process's.
    fn holds(&self) -> bool {
        proc::stat(self.pid).is_some_and(|stat| stat.start_time == self.start_time && stat.lives())
    }

    fn send(&self, number: i32) {
        // One that has ended meanwhile is what was wanted; one that may not be signalled shows in the next rounds.
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
