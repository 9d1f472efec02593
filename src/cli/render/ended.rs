//! `portok shutdown`: how each process ended.

use anstyle::Style;

use super::tables::columns;
use super::words::plain;
use crate::wire::{Ended, is_step};

/// How each process ended with the daemon.
pub(crate) fn ended(all: &[Ended]) -> String {
    if all.is_empty() {
        return "the daemon has ended; none of its apps had a process".to_owned();
    }
    let head = ["APP", "RELEASE", "PROCESS", "REPLICA", "PID", "EXIT"];
    let cells = all.iter().map(|Ended { app, release, process, replica, pid, exit }| {
        let or_none = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), plain);
        // There is one of a step.
        let replica = if process.as_deref().is_some_and(is_step) { "-".into() } else { replica.to_string() };
        let (process, exit) = (or_none(process), or_none(exit));
        [plain(app), plain(release), process, replica, pid.to_string(), exit].map(|text| (Style::new(), text))
    });
    columns(head, cells).join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_process_has_a_line() {
        let process = |process: Option<&str>, replica, pid, exit: &str| Ended {
            app: "web".into(),
            release: "v1".into(),
            process: process.map(Into::into),
            replica,
            pid,
            exit: Some(exit.into()),
        };
        let text = ended(&[
            process(None, 0, 41, "exit status 0"),
            process(Some("worker"), 1, 1042, "signal 9 (SIGKILL)"),
            process(Some("before"), 0, 1043, "exit status 1"),
        ]);
        let expected = "\
APP  RELEASE  PROCESS  REPLICA  PID   EXIT
web  v1       -        0        41    exit status 0
web  v1       worker   1        1042  signal 9 (SIGKILL)
web  v1       before   -        1043  exit status 1";
        assert_eq!(anstream::adapter::strip_str(&text).to_string(), expected);
    }
}
