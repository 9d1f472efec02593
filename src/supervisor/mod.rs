//! Processes: one task owns one process group from its start until nothing of it is left.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{CommandLine, StopSignal};
use crate::wire::LogLine;

/// What stays the same for all processes of a daemon: base environment, folder for output pipes, leased ports,
/// the thread that reads what the apps print.
#[derive(Debug)]
pub struct Supervisor {}

/// What a [`Supervisor`] needs.
#[derive(Debug)]
pub struct Settings {
    /// The instance's name, for `PORTOK_INSTANCE`.
    pub instance: String,
    /// Where output FIFOs are made (mode 0700, made when missing).
    pub run_dir: PathBuf,
    /// The daemon's environment; scrubbed here of what no app may see.
    pub env: BTreeMap<OsString, OsString>,
    /// Where the apps' lines are passed on to, beside the ring that `logs` reads.
    pub sink: Sink,
}

/// Where the lines of apps go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// To standard output as they are (`portok run`).
    Stdout,
    /// To standard error, each with its release in front (a daemon without a journal).
    Stderr,
    /// To the journal, under the instance's name as identifier (a daemon with one).
    Journal,
    /// Nowhere.
    None,
}

/// One process to start.
#[derive(Debug)]
pub struct Launch {
    /// The release's id, for `PORTOK_RELEASE` and the log.
    pub release: String,
    /// `{port}` in it is replaced by the port.
    pub command: CommandLine,
    /// The resolved working directory; `None`: the daemon's own.
    pub directory: Option<PathBuf>,
    /// Added to the base environment.
    pub env: BTreeMap<String, String>,
    /// The user and group to become.
    pub identity: Option<Ids>,
    /// The variable that carries the port.
    pub port_env: String,
    /// The port, held until the process listens.
    pub lease: Lease,
}

/// A resolved user: what the child becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Name and home, for `USER`, `LOGNAME` and `HOME`.
    pub name: String,
    /// The home directory.
    pub home: PathBuf,
}

impl Ids {
    /// Looks `user` and `group` up in the system's databases.
    ///
    /// # Errors
    /// A sentence that names the one that does not exist.
    pub fn resolve(_user: Option<&str>, _group: Option<&str>) -> Result<Option<Self>, String> {
        todo!()
    }
}

/// A port that no other lease of this process has, held against others by a bound, never listening socket
/// until [`Lease::let_go`]. Dropping it gives the port back.
#[derive(Debug)]
pub struct Lease {}

impl Lease {
    /// The port.
    pub fn port(&self) -> u16 {
        todo!()
    }
    /// Closes the placeholder socket and keeps the lease.
    pub fn let_go(&self) {
        todo!()
    }
}

/// A process beyond doubt: a pid alone is reused, all three together are not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The process id, which is the group's id too.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot.
    pub start_time: u64,
    /// The random tag in the environment of the run's processes (`PORTOK_RUN`).
    pub tag: String,
}

/// How a group's leader ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// It returned this status.
    Status(i32),
    /// This signal ended it.
    Signal(i32),
    /// Nobody can know any more.
    Unknown,
}

impl std::fmt::Display for Exit {
    /// `exit status 1`, `signal 9 (SIGKILL)`, `unknown`.
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        todo!()
    }
}

/// Why a process could not be started: operation, subject, cause.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SpawnError {
    /// For people.
    pub message: String,
    /// The cause.
    #[source]
    pub source: Option<io::Error>,
}

/// Whose the listener on a port is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A process of the run (its group, its descendants, its tag).
    Ours,
    /// Proven to be another process.
    Stranger {
        /// Its pid.
        pid: u32,
        /// Its command name.
        command: String,
    },
    /// Somebody listens, and whose it is cannot be seen.
    Unproven,
    /// Nobody listens on it.
    Nobody,
}

/// A running process group. Cheap to clone; dropping it stops nothing.
#[derive(Debug, Clone)]
pub struct Process {}

impl Process {
    /// What it is, for the durable record.
    pub fn identity(&self) -> &Identity {
        todo!()
    }
    /// The leader's pid.
    pub fn pid(&self) -> u32 {
        todo!()
    }
    /// The port it was told to listen on.
    pub fn port(&self) -> u16 {
        todo!()
    }
    /// Waits until the leader has ended. Cancel safe, any number of waiters.
    pub async fn exited(&self) -> Exit {
        todo!()
    }
    /// Waits until the whole group, and everything that carries the run's tag, is gone. When the leader ends by
    /// itself, what it left behind is stopped by the ladder (`abandon`) first. Cancel safe.
    pub async fn gone(&self) -> Exit {
        todo!()
    }
    /// Starts the stop ladder: `signal` to the group, after `timeout` SIGKILL to all that is left. The first
    /// call decides the signal; a later one may only shorten the time.
    pub fn stop(&self, _signal: StopSignal, _timeout: Duration) {
        todo!()
    }
    /// SIGKILL to all of it, now.
    pub fn kill(&self) {
        todo!()
    }
    /// Gives up the port's placeholder: the app listens.
    pub fn listening(&self) {
        todo!()
    }
    /// Whose the listener on its port is.
    pub async fn owner(&self) -> Owner {
        todo!()
    }
    /// Where its processes listen.
    pub async fn listeners(&self) -> Vec<SocketAddr> {
        todo!()
    }
    /// The last `lines` it printed.
    pub fn output(&self, _lines: usize) -> Vec<LogLine> {
        todo!()
    }
    /// Whether its end looks like a taken port: it says so in its output, or a stranger listens there.
    pub async fn port_was_taken(&self) -> bool {
        todo!()
    }
    /// Lines as they are printed from now on (bounded; a slow reader loses the oldest).
    pub fn follow(&self) -> tokio::sync::broadcast::Receiver<Arc<LogLine>> {
        todo!()
    }
}

impl Supervisor {
    /// Starts the reader's thread.
    ///
    /// # Errors
    /// The run folder cannot be made, or the thread cannot be started.
    pub fn new(_settings: Settings) -> io::Result<Self> {
        todo!()
    }

    /// Leases a free loopback port. `hold`: with the placeholder socket (without it for apps that do not set
    /// `SO_REUSEADDR`).
    ///
    /// # Errors
    /// No port could be found.
    pub fn lease(&self, _hold: bool) -> io::Result<Lease> {
        todo!()
    }

    /// Starts a process group.
    ///
    /// # Errors
    /// The program, the directory or the identity is not usable; says which and why.
    pub async fn spawn(&self, _launch: Launch) -> Result<Process, SpawnError> {
        todo!()
    }

    /// The last `lines` that the processes of `release` (or of all) printed, ended ones included as far as
    /// they are remembered.
    pub fn logs(&self, _release: Option<&str>, _lines: usize) -> Vec<LogLine> {
        todo!()
    }

    /// Stops what an earlier daemon left: every group in `recorded` whose identity still holds, and every
    /// process that carries one of their tags. Never signals anything else. Returns when all is gone.
    pub async fn stop_leftovers(&self, _recorded: &[Identity], _signal: StopSignal, _timeout: Duration) {
        todo!()
    }
}

/// Reads an environment file in systemd's syntax (`EnvironmentFile=` in systemd.exec(5)).
///
/// # Errors
/// Names the file and, for a bad line, its number.
pub fn read_env_file(_path: &Path) -> Result<BTreeMap<String, String>, String> {
    todo!()
}

/// Resolves a working directory (realpath), so that a later change of a symbolic link does not move it.
///
/// # Errors
/// Names the directory and why it cannot be used.
pub fn resolve_directory(_path: &Path) -> Result<PathBuf, String> {
    todo!()
}
