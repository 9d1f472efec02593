//! Finds processes in `/proc`.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::wait_until;

/// A process that carries a tag in its environment.
#[derive(Debug, Clone)]
pub(crate) struct Tagged {
    pub(crate) pid: u32,
    /// Its command line, for the message of a failed test.
    #[expect(dead_code, reason = "shown by Debug")]
    command: String,
}

/// All living processes that portok started for `instance`, which carry `PORTOK_INSTANCE=instance`.
pub(crate) fn of_instance(instance: &str) -> Vec<Tagged> {
    let tag = format!("PORTOK_INSTANCE={instance}").into_bytes();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == tag)
    })
    .filter(|pid| is_alive(*pid))
    .map(|pid| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        Tagged { pid, command: String::from_utf8_lossy(&words).replace('\0', " ") }
    })
    .collect()
}

/// A variable in the environment of `pid`.
pub(crate) fn variable(pid: u32, name: &str) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    variables.find_map(|variable| Some(variable.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

/// Whether `pid` exists and is no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The command's name is in parentheses and may contain any character. The state follows the
    // last parenthesis.
    stat.rsplit_once(')')
        .is_some_and(|(_, rest)| !matches!(rest.trim_start().chars().next(), Some('Z' | 'X')))
}

/// Sends `signal` to `pid`, which must belong to the test or its daemon.
pub(crate) fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).expect("a pid fits");
    // An error means that it has ended already.
    let _ = kill(Pid::from_raw(pid), signal);
}

/// How many bytes `pid` has written so far.
pub(crate) fn written(pid: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok()).unwrap_or_default()
}

/// Waits until `pid` has written far more than a pipe holds, which proves that something reads it.
#[track_caller]
pub(crate) fn wait_until_it_writes_on(pid: u32) {
    let before = written(pid);
    wait_until(
        "it goes on printing",
        || format!("{before} bytes before, now {}", written(pid)),
        || (written(pid) > before + (8 << 20)).then_some(()),
    );
}

/// The processes whose command line contains all of these words.
pub(crate) fn with_words(words: &[&str]) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc is there").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        words.iter().all(|word| line.contains(word))
    })
    .collect()
}
