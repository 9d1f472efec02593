//! The composition root: binds, starts the long-lived tasks, reloads, and ends them all.
//!
//! Two planes: the control plane is one single-threaded runtime on the main thread (coordinator, admin, probes, reloads);
//! the data plane has threads of its own. Everything long-lived that is started here is joined here.
//!
//! The end, in this order: nothing new is begun, no connection is accepted, requests finish within `drain.period`, every process
//! group is stopped by the ladder, the last record is written. A second signal skips the waiting.
//!
//! Leaving (SIGUSR2) is the same without the app: the record is written first, nothing is stopped, and the next daemon takes over
//! what runs. The connections that come meanwhile wait in the queue of the listening socket, where the service manager keeps it.
//!
//! An upgrade is leaving without a gap: the next daemon is started by this one and serves before this one stops accepting
//! (`handover` says what passes between the two, `upgrade` is the one side, `succession` the other).

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::handover::{Control, Heritage};
use self::signals::{Signals, Told};
use self::start::Origin;
use self::succession::Predecessor;
use self::upgrade::Outcome;
use crate::admin::{self, Admin};
use crate::config::watch::Watch;
use crate::config::{self, Config, ConfigErrors, Sources};
use crate::logging;
use crate::proxy::Plane;
use crate::release;
use crate::release::store::{Store, StoreError};
use crate::systemd::{Manager, Passed};
use crate::wire::{self, exit};

mod end;
mod handover;
mod reload;
mod signals;
mod start;
mod succession;
mod upgrade;
mod upkeep;

/// How long blocking work may still take at the very end.
const LAST_THREADS: Duration = Duration::from_secs(1);

/// After a reload that failed: what stood in its way (a file that was gone for a moment, an address in use) may pass
/// without an edit.
const RELOAD_RETRY: Duration = Duration::from_secs(1);

/// Who started the daemon, and how.
#[derive(Debug)]
pub struct Options {
    /// Where the configuration comes from.
    pub sources: Sources,
    /// For `portok run`: the command that released the next version is shown with this program's name.
    pub foreground: Option<Foreground>,
}

/// `portok run`.
#[derive(Debug)]
pub struct Foreground {
    /// How the command line was called, for the line to type next.
    pub program: String,
}

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("cannot listen on {addr}")]
    Listen { addr: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot make the admin socket: {0}")]
    Socket(String),
    #[error("the coordinator ended unexpectedly")]
    Lost,
    #[error("the daemon that was to be succeeded is gone, or says nothing that makes sense")]
    Predecessor(#[source] std::io::Error),
    #[error("cannot {operation}")]
    Io { operation: &'static str, source: std::io::Error },
}

impl StartError {
    fn hint(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "; choose another address: --listen, listen or LISTEN_PORT",
            Self::Store(StoreError::Taken { .. }) => {
                "; a second instance needs a name of its own: --instance NAME, or INSTANCE_NAME"
            }
            Self::Store(StoreError::NotAFile { .. }) => {
                "; let state_file or STATE_FILE name a file, or what is not there yet"
            }
            Self::Store(
                StoreError::Elsewhere { .. } | StoreError::Unreadable { .. } | StoreError::Planted { .. },
            ) => "",
            Self::Socket(_) | Self::Lost | Self::Predecessor(_) | Self::Io { .. } => "",
        }
    }
}

/// Runs the daemon until it is told to end.
pub fn run(options: Options) -> ExitCode {
    // First of all: before there is another thread or a child.
    let program = upgrade::Program::of_this_process().ok();
    let heritage = match Heritage::take().transpose() {
        Ok(heritage) => heritage,
        Err(error) => {
            complain(&format!("error: cannot take over from the running daemon: {error}"));
            return ExitCode::from(exit::FAILED);
        }
    };
    let (passed, heritage) = match heritage {
        Some(Heritage { listener, control, lock, error }) => {
            (Passed::inherited(listener), Some((control, lock, error)))
        }
        None => (Passed::from_env(), None),
    };
    // Watched before it is read: an edit in between is seen.
    let watch = watched_file(&options.sources).map(|file| Watch::new(&file));
    let config = match config::load(&options.sources) {
        Ok(config) => config,
        Err(errors) => {
            last_words(&errors);
            return ExitCode::from(exit::USAGE);
        }
    };
    if let Some((_, _, error)) = &heritage
        && let Err(cause) = rustix::stdio::dup2_stderr(error)
    {
        complain(&format!("error: cannot write to the standard error of the running daemon: {cause}"));
        return ExitCode::from(exit::FAILED);
    }
    let reader =
        if options.foreground.is_some() { logging::Reader::Person } else { logging::Reader::Service };
    let _log = logging::init(reader, &config.name);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot start the control plane's runtime: {error}");
            return ExitCode::from(exit::FAILED);
        }
    };
    // Whoever runs it in the foreground for a while finds nothing of it afterwards.
    let made_here = options.foreground.is_some() && config.state_file.parent() == Some(&*config.run_dir);
    let remains = made_here.then(|| (config.state_file.clone(), config.run_dir.clone()));
    let last_word = heritage.as_ref().and_then(|(control, ..)| control.try_clone().ok());
    let outcome = runtime.block_on(async {
        let predecessor = match heritage {
            Some((control, lock, _)) => {
                let control = Control::new(control).map_err(StartError::Predecessor)?;
                Some(Predecessor::new(control, lock))
            }
            None => None,
        };
        let origin = Origin { passed, predecessor, program };
        let daemon = Daemon::start(options, config, watch, origin).await?;
        daemon.serve().await
    });
    // A thread that hangs in the kernel (a disk that does not answer) must not keep the process.
    runtime.shutdown_timeout(LAST_THREADS);
    match outcome {
        Ok(()) => {
            if let Some((record, folder)) = remains {
                Store::discard(&record, &folder);
            }
            ExitCode::from(exit::DONE)
        }
        Err(error) => {
            let source =
                std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            tracing::error!("{error}{source}{}", error.hint());
            if let Some(control) = last_word {
                handover::fail(control, &format!("{error}{source}"));
            }
            ExitCode::from(exit::FAILED)
        }
    }
}

/// Prints the effective configuration, secrets masked; says all that is wrong with it otherwise.
pub fn check(sources: &Sources) -> ExitCode {
    match config::load(sources) {
        Ok(config) => {
            for warning in &config.warnings {
                complain(&format!("warning: {warning}"));
            }
            if let Err(error) = socket_group(&config) {
                complain(&format!("error: admin.socket_group: {error}"));
                return ExitCode::from(exit::USAGE);
            }
            // What a deploy of [app] would refuse may still come about before it, so it is no error here.
            if config.app.command.is_some()
                && let Err(error) = release::spec::prepare(wire::DeployRequest::default(), &config)
            {
                complain(&format!("warning: [app] cannot be deployed as it is: {}", error.message));
            }
            use std::io::Write;
            // A closed pipe is no news to the one who closed it.
            let _pipe_closed = std::io::stdout().write_all(config.effective_toml().as_bytes());
            ExitCode::from(exit::DONE)
        }
        Err(errors) => {
            last_words(&errors);
            ExitCode::from(exit::USAGE)
        }
    }
}

fn last_words(errors: &ConfigErrors) {
    for problem in &errors.problems {
        complain(&format!("error: {problem}"));
    }
}

/// Before there is a log, standard error is it.
fn complain(line: &str) {
    use std::io::Write as _;
    // Whoever closed it does not want to know; `eprintln!` would panic.
    let _closed = writeln!(std::io::stderr(), "{line}");
}

struct Daemon {
    sources: Sources,
    config: watch::Sender<Arc<Config>>,
    config_status: watch::Sender<wire::ConfigStatus>,
    listen: watch::Sender<SocketAddr>,
    /// The listening socket once more, while it is listened on.
    public: Option<TcpListener>,
    /// The lock of the state once more, for a successor.
    lock: Option<std::fs::File>,
    /// How a successor is started; `None` where none is.
    program: Option<upgrade::Program>,
    open_files: Option<u64>,
    /// Cancelled once no predecessor is left.
    alone: CancellationToken,
    manager: Manager,
    plane: Plane,
    common: Arc<crate::supervisor::Common>,
    app: release::Handle,
    coordinator: tokio::task::JoinHandle<()>,
    admin: Arc<Admin>,
    socket: Option<SocketTask>,
    /// Cancelled when everything else has ended: the hooks and the watch on the file end with it.
    over: CancellationToken,
    /// Cancelled with it, or once the service manager is another daemon's to talk to.
    voice: CancellationToken,
    background: JoinSet<()>,
    reloads: mpsc::Receiver<admin::ReloadReply>,
    upgrades: mpsc::Receiver<admin::UpgradeOrder>,
    edits: mpsc::Receiver<()>,
    signals: Signals,
}

struct SocketTask {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl SocketTask {
    /// Answers what is under way and leaves.
    async fn end(self) {
        self.stop.cancel();
        let _panicked = self.task.await;
    }
}

impl Daemon {
    /// Reloads when asked, until a signal ends it.
    async fn serve(mut self) -> Result<(), StartError> {
        enum Turn {
            Booted,
            Reload(admin::ReloadReply),
            Edited,
            Retry,
            Upgrade(admin::UpgradeOrder),
            Told(Told),
            Lost,
        }
        let mut booted = false;
        loop {
            let failed = self.config_status.borrow().error.is_some();
            let turn = tokio::select! {
                () = upkeep::extending(&self.manager, self.app.booted()), if !booted => Turn::Booted,
                Some(answer) = self.reloads.recv() => Turn::Reload(answer),
                Some(order) = self.upgrades.recv() => Turn::Upgrade(order),
                Some(()) = self.edits.recv() => Turn::Edited,
                () = tokio::time::sleep(RELOAD_RETRY), if failed => Turn::Retry,
                told = self.signals.next() => Turn::Told(told),
                () = self.app.ended() => Turn::Lost,
            };
            match turn {
                Turn::Booted => {
                    booted = true;
                    self.manager.ready();
                }
                Turn::Reload(answer) => {
                    let outcome = self.announced_reload(booted).await;
                    let _asker_gone = answer.send(outcome);
                }
                // The outcome is in the log and in the status.
                Turn::Edited | Turn::Told(Told::Reload) => {
                    let _outcome = self.announced_reload(booted).await;
                }
                Turn::Retry => {
                    let _outcome = self.reload().await;
                }
                Turn::Lost => {
                    // Without it nothing watches the app: better to be started again.
                    tracing::error!("the coordinator has ended; the daemon cannot go on without it");
                    self.end().await?;
                    return Err(StartError::Lost);
                }
                Turn::Upgrade(admin::UpgradeOrder { binary, reply }) => {
                    let (error, ending) = match self.upgrade(booted, binary).await {
                        Outcome::Heir(heir) => return self.hand_over(*heir, reply).await,
                        Outcome::Failed(error) => (error, false),
                        Outcome::Ending(error) => (error, true),
                    };
                    let _asker_gone = reply.send(Err(error));
                    if ending {
                        return self.end().await;
                    }
                }
                Turn::Told(Told::Leave) => {
                    tracing::info!("SIGUSR2: finishing requests, then leaving the app to the next daemon");
                    return self.leave().await;
                }
                Turn::Told(Told::End(cause)) => {
                    tracing::info!("{cause}: finishing requests, then stopping the app");
                    // Nobody is to wait in a queue that nothing will accept from.
                    self.manager.forget();
                    return self.end().await;
                }
            }
        }
    }
}

/// The file that the configuration comes from, or would come from once it is there.
fn watched_file(sources: &Sources) -> Option<PathBuf> {
    match (&sources.file, &sources.instance) {
        _ if sources.overrides.foreground => None,
        (Some(file), _) => Some(file.clone()),
        (None, Some(instance)) => Some(config::instance_file(sources, instance)),
        (None, None) => None,
    }
}

/// Serves the admin socket, bound by `bind`. Where the default place cannot be made, that is a warning.
fn open_socket(
    config: &Config,
    admin: &Arc<Admin>,
    bind: fn(&std::path::Path, Option<u32>) -> Result<tokio::net::UnixListener, String>,
) -> Result<Option<SocketTask>, StartError> {
    let Some(path) = &config.admin.socket else { return Ok(None) };
    let group = socket_group(config)?;
    let listener = match bind(path, group) {
        Ok(listener) => listener,
        Err(error) if config.admin.socket_configured => return Err(StartError::Socket(error)),
        Err(error) => {
            tracing::warn!("there is no admin socket: {error}");
            return Ok(None);
        }
    };
    let stop = CancellationToken::new();
    let task = tokio::spawn(admin::serve_socket(listener, path.clone(), Arc::clone(admin), stop.clone()));
    Ok(Some(SocketTask { stop, task }))
}

fn socket_group(config: &Config) -> Result<Option<u32>, StartError> {
    config.admin.socket_group.as_deref().map(admin::group_id).transpose().map_err(StartError::Socket)
}
