//! Programs that ask until their standard input ends, and print what became of it as they go: one
//! JSON object a line.

use std::io::BufRead as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::PACKAGES;
use crate::harness::wait_until;

/// Such a program, and the last line that it has printed.
pub(super) struct Clients {
    child: Child,
    last: Arc<Mutex<Value>>,
}

impl Clients {
    pub(super) fn start(program: &str, words: &[String]) -> Self {
        let mut command = Command::new(program);
        command.args(words).env("PYTHONDONTWRITEBYTECODE", "1").env("NODE_PATH", PACKAGES);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (last, lines) = (Arc::<Mutex<Value>>::default(), child.stdout.take().unwrap());
        let shared = Arc::clone(&last);
        std::thread::spawn(move || {
            for line in std::io::BufReader::new(lines).lines().map_while(Result::ok) {
                *shared.lock().unwrap() = serde_json::from_str(&line).unwrap();
            }
        });
        Self { child, last }
    }

    pub(super) fn told(&self) -> Value {
        self.last.lock().unwrap().clone()
    }

    /// Whether one has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.told()["failed"].as_array().is_some_and(|failed| !failed.is_empty())
    }

    /// Lets them come to an end. Nothing may have failed.
    #[track_caller]
    pub(super) fn finish(mut self) -> Value {
        drop(self.child.stdin.take());
        wait_until(
            "the clients end",
            || format!("{:#}", self.told()),
            || (self.told()["ended"] == true).then_some(()),
        );
        self.child.wait().unwrap();
        let told = self.told();
        assert_eq!(told["failed"].as_array().map(Vec::len), Some(0), "{told:#}");
        told
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
