//! What `/proc` says about processes. No state.
//!
//! Everything here blocks (the kernel may take locks of the process it describes, proc(5)), so it
//! belongs on a blocking thread.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::{fs, io};

use rustix::io::Errno;

/// The longest environment that is searched for a tag. The kernel lets no process start with more
/// than three quarters of this (execve(2)).
const ENVIRON_LIMIT: usize = 8 << 20;

/// How much of an environment is read at first. Most are shorter.
const ENVIRON_USUAL: usize = 32 << 10;

/// The variable that carries a run's tag.
pub(super) const TAG_VARIABLE: &str = "PORTOK_RUN";

/// With this number kill(2) only checks whether the process is there.
pub(super) const NO_SIGNAL: i32 = 0;

/// The flag of a process that is a thread of the kernel (`PF_KTHREAD` of linux/sched.h).
const KERNEL_THREAD: u32 = 0x0020_0000;

/// The flag of a process that was forked and has not called execve(2) since (`PF_FORKNOEXEC`).
const FORKED: u32 = 0x0000_0040;

/// The flag of a thread that is about to end (`PF_EXITING`).
const EXITING: u32 = 0x0000_0004;

/// One process as `/proc/PID/stat` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: u32,
    pub(super) parent: u32,
    pub(super) group: u32,
    /// Clock ticks from boot to its start.
    pub(super) start_time: u64,
    state: u8,
    threads: u32,
    /// It runs the program of the process that forked it, with that one's environment.
    forked: bool,
    /// Its first thread is about to end.
    exiting: bool,
    /// It has an environment that is not empty, or may get one.
    may_have_environment: bool,
}

impl Stat {
    /// Whether it still runs. A zombie does not, even if it is never reaped; except when only its
    /// first thread has ended and others live on (as while another thread calls execve(2)).
    pub(super) fn lives(&self) -> bool {
        !matches!(self.state, b'Z' | b'X') || self.threads > 1
    }

    /// Whether it is about to end: it gave its memory back, or will. While it has other threads,
    /// one of them may be calling execve(2) and take the first one's place.
    fn ends(&self) -> bool {
        !self.lives() || (self.exiting && self.threads <= 1)
    }

    /// Whether it may be a child that a daemon forked and that has not become the app yet.
    fn may_become_an_app(&self) -> bool {
        self.forked && program(self.pid).is_some_and(|name| Some(name) == program(std::process::id()))
    }

    /// The kernel's letter for its state (`D`: it waits where no signal reaches it).
    pub(super) fn state(&self) -> char {
        char::from(self.state)
    }
}

/// The process with this pid, if there is one.
pub(super) fn stat(pid: u32) -> Option<Stat> {
    // A thread that calls execve(2) takes the place of the first thread, which has no group from
    // then on. The second look finds the new one.
    const LOOKS: usize = 2;
    // Bytes, not text: a process may give itself any name.
    (0..LOOKS).find_map(|_| parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?))
}

fn parse(pid: u32, line: &[u8]) -> Option<Stat> {
    // The name stands in parentheses and may contain parentheses: the last one ends it.
    let rest = &line[line.iter().rposition(|&byte| byte == b')')? + 1..];
    let rest = std::str::from_utf8(rest).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    // Fields 9, 20, 22, 27, 50 and 51 of proc(5); the next one here is field 6.
    let flags: u32 = fields.nth(3)?.parse().ok()?;
    let threads = fields.nth(10)?.parse().ok()?;
    let start_time = fields.nth(1)?.parse().ok()?;
    let end_of_code = fields.nth(4)?;
    let (begin, end) = (fields.nth(22)?, fields.next()?);
    // execve(2) first sets where the environment begins and ends to the same place, counts its
    // variables, then sets the end, and only after that where the code ends.
    let is_complete = begin != "0" && end_of_code != "0";
    let may_have_environment = flags & KERNEL_THREAD == 0 && (begin != end || !is_complete);
    let (forked, exiting) = (flags & FORKED != 0, flags & EXITING != 0);
    Some(Stat { pid, parent, group, start_time, state, threads, forked, exiting, may_have_environment })
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

/// Whose a process is, as the environment that it was started with says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tagged {
    /// The value of `PORTOK_RUN`.
    Tag(String),
    /// It is none of ours, or its environment may not be read.
    None,
    /// Its new environment is not there yet: it is in the middle of execve(2), or a daemon has
    /// forked it and it has not called execve(2).
    NotYet,
}

/// Reads whose a process is. Never this process itself.
pub(super) fn tagged(process: &Stat) -> Tagged {
    let pid = process.pid;
    if pid == std::process::id() {
        return Tagged::None;
    }
    // Asked before the read: a child that becomes the app in between has its tag by then.
    let untagged = if process.may_become_an_app() { Tagged::NotYet } else { Tagged::None };
    let environ = match environ(pid) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return untagged,
        // No memory: it ends, or another thread is in the middle of execve(2).
        read => read.unwrap_or_default(),
    };
    if environ.is_empty() {
        // Checked after the read: a process that has an environment by now is looked at again.
        let becomes = stat(pid).is_some_and(|stat| !stat.ends() && stat.may_have_environment);
        return if becomes { Tagged::NotYet } else { untagged };
    }
    let value = environ.split(|&byte| byte == 0).find_map(|variable| {
        variable.strip_prefix(TAG_VARIABLE.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
    });
    value.and_then(|value| String::from_utf8(value.to_vec()).ok()).map_or(untagged, Tagged::Tag)
}

/// The environment that a process was started with.
fn environ(pid: u32) -> io::Result<Vec<u8>> {
    let own = read_environ(Path::new(&format!("/proc/{pid}/environ")));
    if !own.as_ref().is_err_and(|error| error.raw_os_error() == Some(Errno::SRCH.raw_os_error())) {
        return own;
    }
    // The first thread has ended before the others, perhaps because another one is in the middle of
    // execve(2): that one has it until it takes the first one's place.
    let mut threads = fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
    threads.find_map(|thread| read_environ(&thread.path().join("environ")).ok()).map_or(own, Ok)
}

/// Read with one read(2): between two of them execve(2) may take it away, and the part that was
/// read would look like the whole.
fn read_environ(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    let mut environ = vec![0; ENVIRON_USUAL];
    loop {
        let length = file.read_at(&mut environ, 0)?;
        if length < environ.len() || length >= ENVIRON_LIMIT {
            environ.truncate(length);
            return Ok(environ);
        }
        environ.resize(length * 4, 0);
    }
}

/// The tag of a process.
pub(super) fn tag(process: &Stat) -> Option<String> {
    match tagged(process) {
        Tagged::Tag(tag) => Some(tag),
        Tagged::None | Tagged::NotYet => None,
    }
}

/// The file name of the program that a process runs, also if the file has been replaced since.
fn program(pid: u32) -> Option<OsString> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let name = path.file_name()?;
    Some(OsStr::from_bytes(name.as_bytes().strip_suffix(b" (deleted)").unwrap_or(name.as_bytes())).to_owned())
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

    /// A line of `/proc/7/stat`.
    fn line(flags: u32, end_of_code: u64, begin: u64, end: u64) -> Vec<u8> {
        let before = format!("S 3 5 5 0 -1 {flags} 1 2 3 4 5 6 7 8 20 0 1 0 12345");
        let after = format!("{before} 1 1 1 1 {end_of_code} {}{begin} {end} 0\n", "1 ".repeat(22));
        [b"7 (a) R (b \xff) ", after.as_bytes()].concat()
    }

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = parse(7, &line(4_194_560, 9, 5, 6)).unwrap();
        assert_eq!((stat.parent, stat.group, stat.start_time, stat.state()), (3, 5, 12345, 'S'));
        assert!(stat.lives());
        let with = |from: &str, to: &str| {
            let line = line(0, 9, 5, 6);
            let at = line.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
            parse(7, &[&line[..at], to.as_bytes(), &line[at + from.len()..]].concat())
        };
        assert!(!with(" S ", " Z ").unwrap().lives());
        assert!(
            with(" S 3 5 5 0 -1 0 1 2 3 4 5 6 7 8 20 0 1 0", " Z 3 5 5 0 -1 0 1 2 3 4 5 6 7 8 20 0 2 0")
                .unwrap()
                .lives()
        );
        let exiting = |threads| {
            let from = "-1 0 1 2 3 4 5 6 7 8 20 0 1 0";
            with(from, &format!("-1 {EXITING} 1 2 3 4 5 6 7 8 20 0 {threads} 0")).unwrap()
        };
        assert!(exiting(1).ends() && exiting(1).lives());
        assert!(!exiting(2).ends(), "another thread may be calling execve(2)");
        assert_eq!(with(" 3 5 5 ", " 3 -1 -1 "), None, "no process any more");
        assert_eq!(parse(7, b"7 (sh) Z 3"), None);
        assert_eq!(parse(7, b""), None);
    }

    #[test]
    fn only_who_has_an_environment_or_gets_one_is_looked_at_again() {
        let may = |flags, end_of_code, begin, end| {
            parse(7, &line(flags, end_of_code, begin, end)).unwrap().may_have_environment
        };
        assert!(may(0, 0, 0, 0), "in the middle of execve");
        assert!(may(0, 0, 0x7ffd_0000, 0x7ffd_0000), "a step later: its variables are being counted");
        assert!(may(0, 0x40_0000, 0x7ffd_0000, 0x7ffd_1000));
        assert!(!may(0, 0x40_0000, 0x7ffd_0000, 0x7ffd_0000), "started with none");
        assert!(!may(KERNEL_THREAD, 0, 0, 0), "a kernel thread has none, ever");
    }

    #[test]
    fn a_process_that_was_started_with_nothing_is_nobodys() {
        use std::io::{Read as _, Write as _};
        use std::process::{Command, Stdio};
        let mut empty = Command::new("/bin/cat");
        let mut empty = empty.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Once it answers, it is past its execve.
        let mut input = empty.stdin.take().unwrap();
        input.write_all(b"x").unwrap();
        empty.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        assert_eq!(tagged(&stat(empty.id()).unwrap()), Tagged::None);
        drop(input);
        empty.wait().unwrap();
    }

    #[test]
    fn a_mark_behind_a_long_environment_is_found() {
        use std::process::{Command, Stdio};
        let mut long = Command::new("/bin/cat");
        long.env("A", "a".repeat(100_000)).env(TAG_VARIABLE, "tag").env("Z", "z".repeat(100_000));
        let mut long = long.stdin(Stdio::piped()).spawn().unwrap();
        // From the moment on in which it has become what it is to be.
        let found = || tagged(&stat(long.id()).unwrap());
        while found() == Tagged::NotYet {}
        assert_eq!(found(), Tagged::Tag("tag".to_owned()));
        drop(long.stdin.take());
        long.wait().unwrap();
    }

    const EXECUTIONS: &str = "PORTOK_TEST_EXECUTIONS";

    /// Not a test: it executes itself so many times, each time from a thread that is not the first.
    #[test]
    fn executes_itself() {
        use std::os::unix::process::CommandExt as _;
        let Some(left) = std::env::var(EXECUTIONS).ok().and_then(|left| left.parse::<u32>().ok()) else {
            return;
        };
        if left > 0 {
            let mut again = std::process::Command::new(std::env::current_exe().unwrap());
            again.args(std::env::args_os().skip(1)).env(EXECUTIONS, (left - 1).to_string());
            panic!("{}", again.exec());
        }
    }

    #[test]
    fn a_process_is_never_taken_for_a_strangers_while_its_threads_execute() {
        use std::process::{Command, Stdio};
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "supervisor::proc::tests::executes_itself", "--test-threads=1"])
            .envs([(TAG_VARIABLE, "tag"), (EXECUTIONS, "50")])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let living = || stat(child.id()).filter(Stat::lives);
        let mut looks = 0;
        while let Some(process) = living() {
            match tagged(&process) {
                Tagged::Tag(tag) => assert_eq!(tag, "tag"),
                Tagged::NotYet => (),
                Tagged::None => {
                    let now = living();
                    assert!(now.is_none_or(|now| now.ends()), "look {looks}: {process:?}, then {now:?}");
                }
            }
            looks += 1;
        }
        assert!(child.wait().unwrap().success() && looks > 50, "{looks} looks");
    }

    #[test]
    fn this_process_is_found_and_never_taken_for_a_run() {
        let table = all();
        let own = std::process::id();
        let found = table.iter().find(|process| process.pid == own).unwrap();
        assert_eq!(found.start_time, stat(own).unwrap().start_time);
        assert!(found.lives());
        assert_eq!(tag(found), None);
    }

    #[test]
    fn descendants_survive_a_torn_table() {
        let process = |pid, parent| Stat {
            pid,
            parent,
            group: 1,
            start_time: 1,
            state: b'S',
            threads: 1,
            forked: false,
            exiting: false,
            may_have_environment: true,
        };
        // A pid reused while the table was read may even make a circle.
        let table = [process(2, 1), process(3, 2), process(1, 3), process(9, 8)];
        assert_eq!(descendants(&table, 1), HashSet::from([2, 3]));
    }
}
