//! Who has a lock file open: which process to end when another daemon has the state.
//!
//! The kernel names the process that took a lock, but a lock is passed on when a daemon replaces
//! itself. So this looks for the process that has the file open, as far as this user may see.

use std::fs;
use std::path::Path;

/// How many processes are looked at.
const MOST_PROCESSES: usize = 65_536;

/// The process, not this one, that has `file` open. `None`: there is none, or it cannot be seen.
pub(super) fn holder_of(file: &Path) -> Option<u32> {
    let file = fs::canonicalize(file).ok()?;
    let pids = fs::read_dir("/proc").ok()?.flatten().take(MOST_PROCESSES);
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|pid| *pid != std::process::id() && has_open(*pid, &file))
}

fn has_open(pid: u32, file: &Path) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|path| path == file)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn another_process_that_has_the_file_open_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let file = fs::File::create(&path).unwrap();
        assert_eq!(holder_of(&path), None, "this process is not another one");
        let mut other = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::from(file)).spawn().unwrap();
        // `cat` reads until its input ends, which this process holds.
        assert_eq!(holder_of(&path), Some(other.id()));
        drop(other.stdin.take());
        other.wait().unwrap();
        assert_eq!(holder_of(&folder.path().join("none")), None);
    }
}
