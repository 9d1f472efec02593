//! How much memory process groups have: the `Pss` of all their processes, which counts what several
//! processes share in parts. No state.
//!
//! The kernel walks a process's memory to tell it, and keeps the process from mapping more
//! meanwhile. So it is read only when somebody asks, by one at a time, within [`LOOK_WITHIN`].

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::identity::Identity;
use super::proc::{self, Stat};

/// How long a look at all that is asked for may take, and how long one waits for its turn.
const LOOK_WITHIN: Duration = Duration::from_secs(2);

/// One look at a time, whoever asks.
static TURN: Semaphore = Semaphore::const_new(1);

/// The memory of each of these process groups in bytes, in their order. `None` where the leader has
/// ended, the kernel does not say, or there was no time for it.
pub async fn memory_of(runs: Vec<Identity>) -> Vec<Option<u64>> {
    let count = runs.len();
    if count == 0 {
        return Vec::new();
    }
    let unknown = vec![None; count];
    let Ok(Ok(turn)) = timeout(LOOK_WITHIN, TURN.acquire()).await else { return unknown };
    let look = tokio::task::spawn_blocking(move || {
        // A look that nobody waits for any more keeps its turn to its end.
        let _turn = turn;
        look(&runs, Instant::now() + LOOK_WITHIN)
    });
    look.await.unwrap_or(unknown)
}

fn look(runs: &[Identity], until: Instant) -> Vec<Option<u64>> {
    let table = Table::read();
    runs.iter().map(|run| table.memory(run, until)).collect()
}

/// The processes of this moment.
struct Table {
    by_pid: HashMap<u32, Stat>,
    children: HashMap<u32, Vec<u32>>,
    groups: HashMap<u32, Vec<u32>>,
}

impl Table {
    fn read() -> Self {
        let mut table = Self { by_pid: HashMap::new(), children: HashMap::new(), groups: HashMap::new() };
        for stat in proc::all().into_iter().filter(Stat::lives) {
            table.children.entry(stat.parent).or_default().push(stat.pid);
            table.groups.entry(stat.group).or_default().push(stat.pid);
            table.by_pid.insert(stat.pid, stat);
        }
        table
    }

    /// The processes of the run's group, and all that descend from one of them.
    fn members(&self, run: &Identity) -> Option<HashSet<u32>> {
        self.by_pid.get(&run.pid).filter(|stat| stat.start_time == run.start_time)?;
        let mut next: Vec<u32> = self.groups.get(&run.pid).cloned().unwrap_or_default();
        next.push(run.pid);
        let mut found = HashSet::new();
        while let Some(pid) = next.pop() {
            if found.insert(pid) {
                next.extend(self.children.get(&pid).into_iter().flatten());
            }
        }
        Some(found)
    }

    fn memory(&self, run: &Identity, until: Instant) -> Option<u64> {
        let mut sum = 0_u64;
        for pid in self.members(run)? {
            if Instant::now() >= until {
                return None;
            }
            match pss(pid) {
                Ok(bytes) => sum = sum.saturating_add(bytes),
                // It has ended meanwhile.
                Err(_) if proc::stat(pid).is_none_or(|stat| !stat.lives()) => {}
                Err(_) => return None,
            }
        }
        (sum > 0).then_some(sum)
    }
}

/// What `/proc/PID/smaps_rollup` says (proc(5)).
fn pss(pid: u32) -> std::io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    parse(&text).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

fn parse(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn the_line_of_the_whole_is_read() {
        let text = "55d4c0000000-7ffe rollup\nRss:   900 kB\nPss:     512 kB\nPss_Anon:  400 kB\n";
        assert_eq!(parse(text), Some(512 * 1024));
        assert_eq!(parse("Rss: 1 kB\nPss_Anon: 1 kB\n"), None);
        assert_eq!(parse("Pss: x kB\n"), None);
    }

    #[tokio::test]
    async fn a_child_counts_with_its_parent_and_a_stranger_with_the_same_pid_does_not() {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "sleep 1000 & wait"]).process_group(0);
        let mut shell = shell.spawn().unwrap();
        let run = Identity::of(shell.id(), String::new()).unwrap();
        let members = || Table::read().members(&run).map(|members| members.len());
        while members() != Some(2) {}
        let alone = pss(run.pid).unwrap();
        assert!(memory_of(vec![run.clone()]).await[0].is_some_and(|bytes| bytes > alone / 2));
        let other = Identity { start_time: run.start_time + 1, ..run };
        assert_eq!(memory_of(vec![other]).await, [None]);
        assert_eq!(memory_of(Vec::new()).await, []);
        let group = nix::unistd::Pid::from_raw(i32::try_from(shell.id()).unwrap());
        nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).unwrap();
        shell.wait().unwrap();
    }

    #[test]
    fn what_there_is_no_time_for_is_not_known() {
        let own = Identity::of(std::process::id(), String::new()).unwrap();
        assert_eq!(look(std::slice::from_ref(&own), Instant::now()), [None]);
        assert!(look(&[own], Instant::now() + LOOK_WITHIN)[0].is_some_and(|bytes| bytes > 1 << 20));
    }
}
