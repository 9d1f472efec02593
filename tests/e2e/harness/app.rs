//! Describes the fixture app for a test: its version, and how it misbehaves.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::wait::{lines, wait_for_lines, wait_until};

/// The variable that makes the test `fixture_app` of this binary an app.
pub(crate) const FIXTURE: &str = "FIXTURE";

/// One version of the fixture app. [`fixture`](super::fixture) lists what it understands.
#[derive(Debug, Clone)]
pub(crate) struct App {
    version: String,
    words: Vec<String>,
    journal: PathBuf,
}

impl App {
    /// A well-behaved app. It writes what happens to it into `folder/VERSION.journal`.
    pub(crate) fn new(folder: &Path, version: &str) -> Self {
        let journal = folder.join(format!("{version}.journal"));
        let words = vec![format!("version={version}"), format!("journal={}", journal.display())];
        Self { version: version.to_owned(), words, journal }
    }

    #[must_use]
    pub(crate) fn flag(mut self, name: &str) -> Self {
        self.words.push(name.to_owned());
        self
    }

    #[must_use]
    pub(crate) fn with(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        let word = format!("{key}={value}");
        assert!(!word.contains([' ', '\'']), "{word:?} does not survive the command line");
        self.words.push(word);
        self
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// The app as shell text. The shell replaces itself by the app.
    pub(crate) fn command(&self) -> String {
        let words: Vec<String> = self.exec().iter().map(|word| format!("'{word}'")).collect();
        format!("exec {}", words.join(" "))
    }

    /// The app as shell text that ends at once where another process has the lock on the file
    /// `lock`. Then a file beside it with the end `.taken` says so.
    pub(crate) fn command_alone(&self, lock: &Path) -> String {
        alone(&self.command(), lock)
    }

    /// The app as words, executed without a shell.
    pub(crate) fn exec(&self) -> Vec<String> {
        let mut words = vec!["/usr/bin/env".to_owned(), format!("{FIXTURE}={}", self.words.join(" "))];
        words.push(this_binary().display().to_string());
        words.extend(["--exact", "fixture_app", "--nocapture", "--test-threads=1"].map(str::to_owned));
        words
    }

    /// The lines of its journal: `start PID PORT`, `listen PORT`, `signal SIGTERM`, `hold begin`,
    /// ...
    pub(crate) fn journal(&self) -> Vec<String> {
        lines(&self.journal)
    }

    /// How many lines of its journal begin with `prefix`.
    pub(crate) fn count(&self, prefix: &str) -> usize {
        self.journal().iter().filter(|line| line.starts_with(prefix)).count()
    }

    /// Waits until its journal has `number` lines that begin with `prefix`, and returns the rest of
    /// the last one.
    #[track_caller]
    pub(crate) fn wait_for(&self, number: usize, prefix: &str) -> String {
        let what = format!("{} journals {number} times {prefix:?}", self.version);
        let count = |lines: &[String]| lines.iter().filter(|line| line.starts_with(prefix)).count();
        let journal = wait_for_lines(&what, &self.journal, |lines| count(lines) >= number);
        let last = journal.iter().rev().find_map(|line| line.strip_prefix(prefix)).unwrap_or_default();
        last.trim().to_owned()
    }

    /// The pids of all its starts, oldest first.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let starts = self.journal();
        starts
            .iter()
            .filter_map(|line| line.strip_prefix("start ")?.split(' ').next()?.parse().ok())
            .collect()
    }

    /// Starts it as an unmanaged app, on a port of its own choice.
    #[track_caller]
    pub(crate) fn start_unmanaged(&self) -> Unmanaged {
        let words = self.exec();
        let number = self.count("listen ") + 1;
        let child = Command::new(&words[0])
            .args(&words[1..])
            .env("PORT", "0")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("starting {words:?}: {error}"));
        let mut running = Unmanaged { child, port: 0 };
        running.port = wait_until(
            "the unmanaged app listens",
            || format!("{:#?}", self.journal()),
            || {
                assert!(running.is_alive(), "it ended: {:#?}", self.journal());
                let journal = self.journal();
                let listens: Vec<_> =
                    journal.iter().filter_map(|line| line.strip_prefix("listen ")).collect();
                (listens.len() >= number).then(|| listens[listens.len() - 1].parse().unwrap())
            },
        );
        running
    }
}

/// Shell text that ends at once where another process has the lock on the file `lock`. Then a file
/// beside it with the end `.taken` says so.
pub(crate) fn alone(command: &str, lock: &Path) -> String {
    let (taken, lock) = (lock.with_extension("taken"), lock.display());
    let is_taken = format!("{{ echo another one runs | tee -a '{}'; exit 9; }}", taken.display());
    format!("exec 9>'{lock}'; flock -n 9 || {is_taken}; {command}")
}

/// The binary that is running.
pub(crate) fn this_binary() -> PathBuf {
    std::env::current_exe().expect("a running binary has a path")
}

/// A running app that portok did not start.
#[derive(Debug)]
pub(crate) struct Unmanaged {
    child: Child,
    pub(crate) port: u16,
}

impl Unmanaged {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// Kills it and waits for its end.
    pub(crate) fn kill(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Unmanaged {
    fn drop(&mut self) {
        self.kill();
    }
}
