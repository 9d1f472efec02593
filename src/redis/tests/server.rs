//! A `redis-server` of a test's own, which ends with it: for the tests of this crate and, by the
//! path of this file, for those of the whole program. Without that program a test skips loudly,
//! unless `PORTOK_REQUIRE_REDIS=1` makes that a failure.

use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Ports that the kernel gives to nobody who does not name them: a server that is killed finds its
/// own free again.
const PORTS: std::ops::Range<u64> = 20_000..32_000;

/// How often another port is tried where somebody else was faster.
const TRIES: u64 = 20;

pub(super) struct Server {
    process: Option<Child>,
    pub(super) port: u16,
    pub(super) folder: TempDir,
    options: Vec<String>,
}

impl Server {
    /// `None`: there is no such program here, which has been said.
    pub(super) fn start(options: &[&str]) -> Option<Self> {
        let options = options.iter().map(ToString::to_string).collect();
        let mut server = Self { process: None, port: 0, folder: tempfile::tempdir().unwrap(), options };
        let some = RandomState::new().hash_one(std::process::id());
        for number in 0..TRIES {
            let port = PORTS.start + some.wrapping_add(number * 101) % (PORTS.end - PORTS.start);
            server.port = u16::try_from(port).unwrap();
            if TcpListener::bind(("127.0.0.1", server.port)).is_ok() && server.serves()? {
                return Some(server);
            }
        }
        panic!("redis-server did not start at any of {TRIES} ports");
    }

    /// Starts the process again, which knows nothing of the one before.
    pub(super) fn begin(&mut self) {
        assert_eq!(self.serves(), Some(true), "redis-server did not start at port {}", self.port);
    }

    /// Starts the process. Whether it serves at its port; `None`: there is no such program.
    fn serves(&mut self) -> Option<bool> {
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.arg("--dir").arg(self.folder.path()).args(&self.options);
        let mut process = match command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn() {
            Ok(process) => process,
            Err(error) => {
                let required = std::env::var("PORTOK_REQUIRE_REDIS").is_ok_and(|value| value == "1");
                assert!(!required, "redis-server is required: {error}");
                eprintln!("SKIPPED: no redis-server: {error}");
                return None;
            }
        };
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let is_ready = lines.any(|line| line.unwrap().contains("Ready to accept connections"));
        // It goes on writing, so somebody has to read.
        std::thread::spawn(move || lines.for_each(drop));
        self.kill();
        self.process = Some(process);
        Some(is_ready)
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(super) fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().unwrap();
        kill(Pid::from_raw(i32::try_from(process.id()).unwrap()), signal).unwrap();
    }

    pub(super) fn client(&self) -> ::redis::Connection {
        ::redis::Client::open(("127.0.0.1", self.port)).unwrap().get_connection().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
