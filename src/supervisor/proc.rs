//! What `/proc` says about processes: a look, no state. Everything here blocks (proc(5) may take locks of the
//! process it describes), so it belongs on a blocking thread.

use std::collections::HashSet;
use std::fs;
use std::io::Read;

/// The longest environment that is searched for a tag: more than the kernel lets a process start with
/// (three quarters of 8 MiB, execve(2)).
const ENVIRON_LIMIT: u64 = 8 << 20;

/// The variable that carries a run's tag.
pub(super) const TAG_VARIABLE: &str = "PORTOK_RUN";

/// Among the flags of a process: it belongs to the kernel (`PF_KTHREAD` of linux/sched.h).
const KERNEL_THREAD: u32 = 0x0020_0000;

/// One process as `/proc/PID/stat` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: u32,
    pub(super) parent: u32,
    pub(super) group: u32,
    /// Clock ticks from boot to its start.
    pub(super) start_time: u64,
    state: u8,
    /// It has memory of its own, and no environment in it.
    bare: bool,
}

impl Stat {
    /// Whether it can still do anything: a zombie cannot, however long its parent leaves it unread.
    pub(super) fn lives(&self) -> bool {
        !matches!(self.state, b'Z' | b'X')
    }

    /// Whether it is in the middle of execve(2): what it was before is gone, and its environment is not there yet. Only of
    /// processes whose environment may be read is it known.
    pub(super) fn is_becoming(&self) -> bool {
        self.bare && self.lives() && fs::File::open(format!("/proc/{}/environ", self.pid)).is_ok()
    }

    /// The kernel's letter for what it does (`D`: waits where no signal reaches it).
    pub(super) fn state(&self) -> char {
        char::from(self.state)
    }
}

/// One process, `None` when there is none with this pid.
pub(super) fn stat(pid: u32) -> Option<Stat> {
    // Bytes, not text: a process may give itself any name.
    parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(pid: u32, line: &[u8]) -> Option<Stat> {
    // The name stands in parentheses and may contain anything, parentheses too: the last one ends it.
    let rest = &line[line.iter().rposition(|&byte| byte == b')')? + 1..];
    let rest = std::str::from_utf8(rest).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    // Fields 9, 22 and 50 of proc(5); the next one here is field 6.
    let flags: u32 = fields.nth(3)?.parse().ok()?;
    let start_time = fields.nth(12)?.parse().ok()?;
    let bare = flags & KERNEL_THREAD == 0 && fields.nth(27) == Some("0");
    Some(Stat { pid, parent, group, start_time, state, bare })
}

/// All processes that can be seen.
pub(super) fn all() -> Vec<Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(stat).collect()
}

/// The pids below `root` in `table`, `root` not included.
pub(super) fn descendants(table: &[Stat], root: u32) -> HashSet<u32> {
    let mut found = HashSet::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for process in table.iter().filter(|process| process.parent == parent) {
            if process.pid != root && found.insert(process.pid) {
                parents.push(process.pid);
            }
        }
    }
    found
}

/// The tag in the environment that the process was started with: the value of `PORTOK_RUN`.
pub(super) fn tag(pid: u32) -> Option<String> {
    if pid == std::process::id() {
        return None;
    }
    let file = fs::File::open(format!("/proc/{pid}/environ")).ok()?;
    let mut environ = Vec::new();
    file.take(ENVIRON_LIMIT).read_to_end(&mut environ).ok()?;
    let value = environ.split(|&byte| byte == 0).find_map(|variable| {
        variable.strip_prefix(TAG_VARIABLE.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
    })?;
    String::from_utf8(value.to_vec()).ok()
}

/// The process's short name.
pub(super) fn name(pid: u32) -> String {
    fs::read(format!("/proc/{pid}/comm"))
        .map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let line = b"7 (a) R (b \xff) S 3 5 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1 2\n";
        let stat = parse(7, line).unwrap();
        assert_eq!((stat.parent, stat.group, stat.start_time, stat.state()), (3, 5, 12345, 'S'));
        assert!(stat.lives() && !stat.bare);
        assert_eq!(parse(7, b"7 (sh) Z 3"), None);
        assert_eq!(parse(7, b""), None);
    }

    #[test]
    fn a_process_without_environment_is_one_that_becomes_another() {
        let line = |flags: u32, env_start: u64| {
            let before = format!("7 (a) S 3 5 5 0 -1 {flags} 1 2 3 4 5 6 7 8 20 0 1 0 12345 1 2 3");
            format!("{before} {} {env_start} 99 0\n", "1 ".repeat(24).trim_end())
        };
        let bare = |flags, env_start| parse(7, line(flags, env_start).as_bytes()).unwrap().bare;
        assert!(bare(0x40_0100, 0));
        assert!(!bare(0x40_0100, 0x7ffd_0000_1000));
        assert!(!bare(KERNEL_THREAD, 0), "a kernel thread has none, ever");
        let own = stat(std::process::id()).unwrap();
        assert!(!own.bare && !own.is_becoming());
    }

    #[test]
    fn this_process_is_found_and_never_taken_for_a_run() {
        let table = all();
        let own = std::process::id();
        let found = table.iter().find(|process| process.pid == own).unwrap();
        assert_eq!(found.start_time, stat(own).unwrap().start_time);
        assert!(found.lives());
        assert_eq!(tag(own), None);
    }

    #[test]
    fn descendants_survive_a_torn_table() {
        let process = |pid, parent| Stat { pid, parent, group: 1, start_time: 1, state: b'S', bare: false };
        // A pid reused while the table was read may even make a circle.
        let table = [process(2, 1), process(3, 2), process(1, 3), process(9, 8)];
        assert_eq!(descendants(&table, 1), HashSet::from([2, 3]));
    }
}
