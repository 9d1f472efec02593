//! A successor: found, started, heard, and killed if it does not take over.
//!
//! It is started through a shell in a process group of its own. Until it serves, dropping the
//! [`Successor`] kills the whole group. Once it serves, it becomes the [`Heir`], which is not
//! killed here.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt;
use tokio::process::ChildStderr;
use tokio::time::{interval, timeout};

use super::handover::{self, ControlSocket};
use crate::supervisor::start_child;
use crate::systemd::PASSED_VARIABLES;
use crate::wire;

/// How long the last words of a successor that failed may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The pause between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(10);

/// How much of its last words is told, in bytes and in lines.
const WORDS: u64 = 16 * 1024;
const WORD_LINES: usize = 10;

/// How this process was started, for its successor.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// To be called at the start: later another file may lie at the path, and the kernel's name for
    /// the running one is of no use.
    pub(super) fn of_this_process() -> io::Result<Self> {
        let mut words = std::env::args_os();
        let first = words.next().unwrap_or_default();
        let running = std::env::current_exe()?;
        // Kept as it was called: a link may lead to another file by then, and is followed then.
        let named = find(Path::new(&first)).filter(|path| same_file(path, &running));
        Ok(Self { path: named.unwrap_or(running), arguments: words.collect() })
    }

    /// The same arguments for another program.
    pub(super) fn at(self, path: Option<PathBuf>) -> Self {
        Self { path: path.unwrap_or(self.path), arguments: self.arguments }
    }
}

/// The path of a program that was called by this name.
fn find(called: &Path) -> Option<PathBuf> {
    if called.components().count() > 1 || called.is_absolute() {
        return std::path::absolute(called).ok();
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(called)).find(|path| path.is_file())
}

fn same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    identity(one).is_some() && identity(one) == identity(other)
}

/// Starts the successor and exits with its status. Once the successor serves, this shell is killed,
/// so that systemd (as subreaper) becomes the successor's parent *before* it is told `MAINPID=`.
/// systemd does not wait for a main process that is not its child: on stop it would kill it at
/// once.
const LAUNCHER: &str = r#""$0" "$@"; exit $?"#;

/// The launcher: leader of a process group of its own, which is killed with everything in it unless
/// the launcher was taken out.
#[derive(Debug)]
struct Guarded(Option<Child>);

impl Guarded {
    /// Waits for its end.
    async fn ended(&mut self) -> io::Result<ExitStatus> {
        let mut pause = interval(LOOK);
        loop {
            pause.tick().await;
            let Some(child) = &mut self.0 else { return Err(io::ErrorKind::NotFound.into()) };
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // An error says that it has ended already. The wait is not here: the kernel may hold
            // it.
            let _ended = rustix::process::kill_process_group(Pid::from_child(&child), Signal::KILL);
            let _no_thread = std::thread::Builder::new().spawn(move || child.wait());
        }
    }
}

/// A successor that was started and does not serve yet.
#[derive(Debug)]
pub(super) struct Successor {
    child: Guarded,
    control: ControlSocket,
    errors: ChildStderr,
}

/// A successor that serves.
#[derive(Debug)]
pub(super) struct Heir {
    pub(super) control: ControlSocket,
    pub(super) outcome: wire::Upgraded,
}

/// What a successor is started with.
pub(super) struct Estate {
    pub(super) program: Program,
    /// By the names under which they are handed over.
    pub(super) listeners: Vec<(String, TcpListener)>,
    pub(super) lock: Option<File>,
    pub(super) open_files: Option<u64>,
}

impl Successor {
    pub(super) fn start(estate: &Estate) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        // A missing program is an error here, before the shell complains about it.
        std::fs::metadata(&estate.program.path)?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", LAUNCHER]).arg(&estate.program.path).args(&estate.program.arguments);
        command.process_group(0).env(handover::VARIABLE, handover::VERSION);
        command.envs(estate.open_files.map(|limit| (handover::OPEN_FILES, limit.to_string())));
        for name in PASSED_VARIABLES {
            command.env_remove(name);
        }
        command.stdin(OwnedFd::from(theirs)).stderr(Stdio::piped());
        let mut child = start_child(|| command.spawn(), |child| Some(child.id()))?;
        let errors = child.stderr.take();
        let child = Guarded(Some(child));
        let errors = errors.ok_or_else(|| io::Error::other("it has no standard error"))?;
        let errors = ChildStderr::from_std(errors)?;
        let error = io::stderr();
        let mut listeners = estate.listeners.iter().map(|(name, socket)| (name.as_str(), socket.as_fd()));
        // Further listeners come last: a former version knows none of them.
        let mut descriptors: Vec<_> = listeners.next().into_iter().collect();
        descriptors.push(("error", error.as_fd()));
        descriptors.extend(estate.lock.as_ref().map(|lock| ("lock", lock.as_fd())));
        descriptors.extend(listeners);
        handover::pass_on(&ours, &descriptors)?;
        Ok(Self { child, control: ControlSocket::new(ours)?, errors })
    }

    /// Says `go`. Where it cannot be said, the successor's end is heard next, with its last words.
    pub(super) async fn go(&mut self) {
        let _gone = self.control.say("go").await;
    }

    /// Waits for a word, and returns what follows it.
    pub(super) async fn expect(&mut self, word: &str, within: Duration) -> Result<String, String> {
        match timeout(within, self.control.hear()).await {
            Ok(Ok(said)) => match (said.strip_prefix(word), said.strip_prefix("failed ")) {
                (Some(rest), _) => Ok(rest.trim().to_owned()),
                (None, Some(why)) => Err(why.to_owned()),
                (None, None) => Err(format!("it said `{said}`, not `{word}`")),
            },
            // It has closed its end of the socket: mostly because it has ended.
            Ok(Err(_)) => Err(self.last_words().await),
            Err(_) => {
                let within = humantime::format_duration(within);
                Err(format!("it did not say `{word}` within {within} and was killed"))
            }
        }
    }

    /// How it ended, and what it complained about.
    async fn last_words(&mut self) -> String {
        let how = match timeout(LAST_WORDS, self.child.ended()).await {
            Ok(Ok(status)) => describe(status),
            Ok(Err(error)) => format!("it cannot be waited for: {error}"),
            Err(_) => "it does not listen to the running daemon and was killed".to_owned(),
        };
        let mut words = Vec::new();
        let mut errors = (&mut self.errors).take(WORDS);
        let _cut_off = timeout(LAST_WORDS, errors.read_to_end(&mut words)).await;
        let words = String::from_utf8_lossy(&words);
        let lines: Vec<_> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(WORD_LINES)..];
        if last.is_empty() { how } else { format!("{how}: {}", last.join("; ")) }
    }

    /// It serves, so it is not to be killed any more.
    pub(super) fn into_heir(self, version: String, pid: u32) -> Heir {
        let Self { mut child, control, .. } = self;
        if let Some(mut launcher) = child.0.take() {
            // An error says that it has ended already. Once it is reaped, the heir has another
            // parent.
            let _ended = launcher.kill();
            let _reaped = launcher.wait();
        }
        let message = format!("portokd {version} has taken over as process {pid}");
        Heir { control, outcome: wire::Upgraded { success: true, message, pid, version } }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        // As the shell reports a signal.
        (Some(code @ 129..=192), _) => format!("it was ended by signal {}", code - 128),
        (Some(code), _) => format!("it ended with status {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it ended".to_owned(),
    }
}
