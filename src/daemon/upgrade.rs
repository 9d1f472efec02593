//! The daemon's side of an upgrade: it starts its successor, hands over to it, or takes everything back.
//!
//! Until the successor says that it serves, whatever goes wrong leaves things as they were: the successor is killed, the
//! coordinator goes on, the apps' lines are read again, the admin socket is put back in its place. A [`Successor`] that is
//! dropped before that is killed.

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
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::AsyncReadExt;
use tokio::process::ChildStderr;
use tokio::sync::oneshot;
use tokio::time::{interval, timeout};

use super::handover::{self, Control};
use super::{Daemon, StartError, open_socket};
use crate::proxy::Until;
use crate::supervisor::start_child;
use crate::systemd::{Manager, PASSED_VARIABLES};
use crate::wire::{self, Code, ErrorBody};
use crate::{admin, release};

/// How long a successor may take to prepare.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// How long a successor may take to take over: it reads the record, looks at every process, and asks the app once.
const SERVING_WITHIN: Duration = Duration::from_secs(30);

/// How long the last words of one that failed may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(10);

/// How much of its last words is told, in bytes and in lines.
const WORDS: u64 = 16 * 1024;
const WORD_LINES: usize = 10;

/// How this process was started, for its successor.
#[derive(Debug, Clone)]
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// To be called at the start: later the file may be another one, and the kernel's name for it of no use.
    pub(super) fn of_this_process() -> io::Result<Self> {
        let mut words = std::env::args_os();
        let first = words.next().unwrap_or_default();
        let running = std::env::current_exe()?;
        // A link that leads to another file by then is to be followed then.
        let named = find(Path::new(&first)).filter(|path| same_file(path, &running));
        Ok(Self { path: named.unwrap_or(running), arguments: words.collect() })
    }
}

/// Where a program that was called so is.
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

/// What starts a successor, and ends as it ends. Once the successor serves this shell is killed, and the successor is the
/// service manager's child before that is told to supervise it: of a main process that is not its child systemd waits
/// for no end, and kills it in the moment in which it asks it to stop.
const LAUNCHER: &str = r#""$0" "$@"; exit $?"#;

/// The leader of a process group of its own, the launcher with its successor, all of which is killed when nobody has let it go.
#[derive(Debug)]
struct Guarded(Option<Child>);

impl Guarded {
    /// How it ended, as soon as it has.
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
            // Errors say that it has ended already. One that the kernel holds is not waited for here.
            let _ended = rustix::process::kill_process_group(Pid::from_child(&child), Signal::KILL);
            let _no_thread = std::thread::Builder::new().spawn(move || child.wait());
        }
    }
}

/// A started successor that does not serve yet.
#[derive(Debug)]
struct Successor {
    child: Guarded,
    control: Control,
    errors: ChildStderr,
}

/// One that serves.
#[derive(Debug)]
pub(super) struct Heir {
    control: Control,
    outcome: wire::Upgraded,
}

/// What became of an attempt.
#[derive(Debug)]
pub(super) enum Outcome {
    Heir(Box<Heir>),
    /// Nothing has changed.
    Failed(ErrorBody),
    /// Nothing has changed, and the daemon was told to end meanwhile.
    Ending(ErrorBody),
}

/// What a successor needs of the daemon, and what is told to stand still.
struct Estate {
    program: Program,
    public: TcpListener,
    lock: Option<File>,
    open_files: Option<u64>,
    common: Arc<crate::supervisor::Common>,
    app: release::Handle,
}

/// How far an attempt came that failed.
struct Failed {
    /// The successor was told to go: it may have touched what is the daemon's.
    went: bool,
    error: ErrorBody,
}

impl Successor {
    fn start(estate: &Estate) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        // The shell would say it too, in other words.
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
        let mut descriptors = vec![("listen", estate.public.as_fd()), ("error", error.as_fd())];
        descriptors.extend(estate.lock.as_ref().map(|lock| ("lock", lock.as_fd())));
        handover::pass_on(&ours, &descriptors)?;
        Ok(Self { child, control: Control::new(ours)?, errors })
    }

    /// Waits for a word; gives back what follows it.
    async fn expect(&mut self, word: &str, within: Duration) -> Result<String, String> {
        match timeout(within, self.control.hear()).await {
            Ok(Ok(said)) => match (said.strip_prefix(word), said.strip_prefix("failed ")) {
                (Some(rest), _) => Ok(rest.trim().to_owned()),
                (None, Some(why)) => Err(why.to_owned()),
                (None, None) => Err(format!("it said `{said}`, not `{word}`")),
            },
            // It has closed its end of the socket, mostly with its own end.
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

    /// It serves: it is nobody's to kill any more.
    fn into_heir(self, version: String, pid: u32) -> Heir {
        let Self { mut child, control, .. } = self;
        if let Some(mut launcher) = child.0.take() {
            // An error says that it has ended already. Its end, which is waited for, is what makes the heir another's child.
            let _ended = launcher.kill();
            let _reaped = launcher.wait();
        }
        let message = format!("portokd {version} has taken over as process {pid}");
        Heir { control, outcome: wire::Upgraded { success: true, message, pid, version } }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        // As the shell tells of a signal.
        (Some(code @ 129..=192), _) => format!("it was ended by signal {}", code - 128),
        (Some(code), _) => format!("it ended with status {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it ended".to_owned(),
    }
}

/// Starts a successor and waits until it serves.
async fn attempt(estate: Estate) -> Result<Heir, Failed> {
    let path = estate.program.path.display().to_string();
    let failed = |went, why: String| {
        let message = format!("the new portokd ({path}) did not take over: {why}");
        let error = ErrorBody::new(Code::UpgradeFailed, "Upgrade failed", message)
            .with_hint("nothing has changed: the running daemon goes on");
        Failed { went, error }
    };
    let started = Successor::start(&estate);
    let mut successor = started.map_err(|error| failed(false, format!("it cannot be started: {error}")))?;
    tracing::info!("upgrade: {path} prepares to take over");
    let version = successor.expect("ready", READY_WITHIN).await.map_err(|why| failed(false, why))?;
    estate.app.freeze(false).await.map_err(|error| Failed { went: false, error })?;
    estate.common.hush(true);
    // Where it cannot be told, it is not heard either, and its last words are.
    let _gone = successor.control.say("go").await;
    let pid = successor.expect("serving", SERVING_WITHIN).await.map_err(|why| failed(true, why))?;
    let pid = pid.parse().map_err(|_| failed(true, format!("it told `{pid}` as its process id")))?;
    Ok(successor.into_heir(version, pid))
}

impl Daemon {
    /// Starts another daemon for this one's place.
    pub(super) async fn upgrade(&mut self, booted: bool, binary: Option<PathBuf>) -> Outcome {
        let estate = match self.estate(booted, binary) {
            Ok(estate) => estate,
            Err(error) => return Outcome::Failed(error),
        };
        if let Err(error) = self.app.may_freeze().await {
            return Outcome::Failed(error);
        }
        let ended = tokio::select! {
            outcome = attempt(estate) => Some(outcome),
            () = self.signals.end() => None,
        };
        let (went, error, outcome): (bool, ErrorBody, fn(ErrorBody) -> Outcome) = match ended {
            Some(Ok(heir)) => return Outcome::Heir(Box::new(heir)),
            Some(Err(Failed { went, error })) => (went, error, Outcome::Failed),
            None => {
                let error = ErrorBody::new(
                    Code::ShuttingDown,
                    "Shutting down",
                    "the daemon was told to end before the new one had taken over",
                );
                (true, error, Outcome::Ending)
            }
        };
        tracing::error!("{}", error.message);
        self.common.hush(false);
        self.app.thaw().await;
        if went {
            self.common.restore();
            self.take_socket_back();
        }
        outcome(error)
    }

    fn estate(&self, booted: bool, binary: Option<PathBuf>) -> Result<Estate, ErrorBody> {
        let refused = |code, error: &str, message: &str| ErrorBody::new(code, error, message);
        let Some(program) = self.program.clone() else {
            return Err(refused(
                Code::BadRequest,
                "Bad request",
                "a daemon in the foreground is not upgraded: end it and run it again",
            ));
        };
        if !booted {
            return Err(refused(Code::Busy, "Busy", "the daemon itself is still starting")
                .with_hint("try again in a moment"));
        }
        if !self.alone.is_cancelled() {
            return Err(refused(
                Code::Busy,
                "Busy",
                "the daemon before this one still finishes the connections that it had",
            )
            .with_hint("wait for it to end, or cut them: kill it with SIGTERM"));
        }
        let cannot = |error: io::Error| {
            ErrorBody::new(Code::Internal, "Internal error", format!("cannot pass the sockets on: {error}"))
        };
        let public = self.public.as_ref().ok_or_else(|| cannot(io::ErrorKind::NotConnected.into()))?;
        Ok(Estate {
            program: Program { path: binary.unwrap_or(program.path), arguments: program.arguments },
            public: public.try_clone().map_err(cannot)?,
            lock: self.lock.as_ref().map(File::try_clone).transpose().map_err(cannot)?,
            open_files: self.open_files,
            common: Arc::clone(&self.common),
            app: self.app.clone(),
        })
    }

    /// The admin socket is this daemon's again.
    fn take_socket_back(&mut self) {
        let config = Arc::clone(&self.config.borrow());
        match open_socket(&config, &self.admin, admin::replace_socket) {
            Ok(fresh) => {
                // The former answers whoever asked for the upgrade.
                if let Some(former) = std::mem::replace(&mut self.socket, fresh) {
                    self.background.spawn(former.end());
                }
            }
            Err(error) => tracing::error!("{error}"),
        }
    }

    /// The heir is the daemon; this one finishes the connections that it has, however long they last, and ends.
    pub(super) async fn hand_over(
        mut self,
        heir: Heir,
        reply: oneshot::Sender<Result<wire::Upgraded, ErrorBody>>,
    ) -> Result<(), StartError> {
        let Heir { mut control, outcome } = heir;
        let managed = self.manager.listens();
        self.manager.main_pid(outcome.pid);
        self.manager.flush().await;
        // Nothing that this process says is about the daemon any more.
        self.voice.cancel();
        self.manager = Manager::none();
        // From here on there is no way back: one that has just died is started again by the service manager.
        let _heir_gone = control.say("main").await;
        tracing::info!("{}; finishing the connections that are open here", outcome.message);
        let _asker_gone = reply.send(Ok(outcome));
        self.begin_the_end();
        if let Some(socket) = self.socket.take() {
            self.background.spawn(socket.end());
        }
        self.app.leave().await;
        self.lock = None;
        let hurried = self.signals.end();
        // The service manager, which starts the next one when the heir ends, is not to find this one still there then.
        let inherited = async {
            control.gone().await;
            if !managed {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.plane.drain(Until::Empty) => {}
            () = hurried => tracing::warn!("signal: cutting the connections that are still open here"),
            () = inherited => {
                tracing::warn!("the successor has ended: cutting the connections that are still open here");
            }
        }
        self.finish("ended; its successor goes on").await;
        // Its end tells the heir that it is alone.
        drop(control);
        Ok(())
    }
}
