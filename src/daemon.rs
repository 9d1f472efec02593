//! The composition root: takes the daemon's place, starts the long-lived tasks, reloads, and ends
//! them all.
//!
//! Two planes: the control plane is one single-threaded runtime on the main thread (coordinators,
//! admin, probes, reloads); the data plane has threads of its own. Everything long-lived that is
//! started here is joined here. What concerns the fate of the apps is in [`crate::apps`].
//!
//! The end, in this order: nothing new is begun, no connection is accepted, requests finish within
//! `drain.period`, every process group is stopped by the ladder, the last records are written. A
//! second signal skips the waiting.
//!
//! Leaving (SIGUSR2) is the same without stopping: the records are written first, and the next
//! daemon takes over what runs. Connections that come meanwhile wait in the queue of the listening
//! socket, if the service manager keeps it.
//!
//! An upgrade is leaving without a gap: this daemon starts the next one, which serves before this
//! one stops accepting.
//!
//! | file | what it has |
//! | --- | --- |
//! | `start`, `place` | how a daemon begins; the state and the sockets that only one can have |
//! | `listeners` | the listening sockets, for the service manager and for a successor |
//! | `configuration`, `reload` | the configuration in force; a newer one |
//! | `access_log` | the access log, opened again and another one |
//! | `admin_server` | the admin socket, and the orders that come through it |
//! | `signals` | the signals that a daemon obeys |
//! | `background`, `upkeep` | the tasks beside the loop; what the service manager hears of them |
//! | `handover` | what a daemon and its successor say to one another |
//! | `upgrade`, `successor` | the daemon's side of it; the process of the successor |
//! | `succession` | the successor's side |
//! | `end` | the two ends: with the apps, and without them |

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use self::access_log::AccessLog;
use self::admin_server::{AdminServer, socket_group};
use self::background::Background;
use self::configuration::Configuration;
use self::handover::{ControlSocket, Heritage};
use self::listeners::Listeners;
use self::signals::{Signals, Told};
use self::start::Inheritance;
use self::succession::Predecessor;
use self::successor::Program;
use self::upgrade::UpgradeOutcome;
use crate::admin;
use crate::apps::{Apps, BootError, Coordinators, conflicts, kept};
use crate::config::watch::Watch;
use crate::config::{self, Config, ConfigErrors, Sources};
use crate::logging;
use crate::proxy::Plane;
use crate::release;
use crate::release::records::Records;
use crate::release::store::StoreError;
use crate::supervisor;
use crate::systemd::{Manager, Passed};
use crate::tls::{Certificates, TlsError};
use crate::wire::{self, exit};

mod access_log;
mod admin_server;
mod background;
mod configuration;
mod end;
mod handover;
mod listeners;
mod place;
mod reload;
mod signals;
mod start;
mod succession;
mod successor;
mod upgrade;
mod upkeep;

/// How long blocking work may still take at the very end.
const LAST_THREADS: Duration = Duration::from_secs(1);

/// The pause after a reload that failed. Its cause (a file that was gone for a moment, an address
/// in use) may pass without an edit.
const RELOAD_RETRY: Duration = Duration::from_secs(1);

/// Who started the daemon, and how.
#[derive(Debug)]
pub struct Options {
    /// Where the configuration comes from.
    pub sources: Sources,
    /// Set for `portok run`.
    pub foreground: Option<Foreground>,
}

/// `portok run`.
#[derive(Debug)]
pub struct Foreground {
    /// How the command line was called, to show the command that releases the next version.
    pub program: String,
}

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("cannot listen on {addr}")]
    Listen { addr: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot start the supervisor")]
    Supervisor(#[source] std::io::Error),
    #[error("cannot make the admin socket: {0}")]
    Socket(String),
    #[error("cannot speak TLS")]
    Randomness(#[source] TlsError),
    #[error("the coordinator ended unexpectedly")]
    Lost,
    #[error("the daemon that was to be succeeded is gone, or says nothing that makes sense")]
    Predecessor(#[source] std::io::Error),
    #[error("cannot open the access log{}", path.as_ref().map(|path| format!(" {}", path.display())).unwrap_or_default())]
    AccessLog { path: Option<PathBuf>, source: std::io::Error },
    #[error("cannot {operation}")]
    Io { operation: &'static str, source: std::io::Error },
}

impl From<BootError> for StartError {
    fn from(error: BootError) -> Self {
        match error {
            BootError::Record(error) => Self::Store(error),
            BootError::Supervisor(error) => Self::Supervisor(error),
        }
    }
}

impl StartError {
    fn io(operation: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { operation, source }
    }

    fn hint(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "; choose another address: --listen, listen or LISTEN_PORT",
            Self::AccessLog { .. } => "; access.file names it: its folder has to be there, and writable",
            Self::Store(StoreError::Taken { .. }) => {
                "; a second instance needs a name of its own: --instance NAME, or INSTANCE_NAME"
            }
            Self::Store(StoreError::InOthersFolder { .. } | StoreError::OthersFolder { .. }) => {
                "; let state_file or STATE_FILE name another place"
            }
            Self::Store(StoreError::NotAFile { .. }) => {
                "; let state_file or STATE_FILE name a file, or what is not there yet"
            }
            Self::Store(
                StoreError::Elsewhere { .. } | StoreError::Unreadable { .. } | StoreError::Planted { .. },
            ) => "",
            Self::Socket(_)
            | Self::Lost
            | Self::Supervisor(_)
            | Self::Randomness(_)
            | Self::Predecessor(_)
            | Self::Io { .. } => "",
        }
    }
}

/// Runs the daemon until it is told to end.
pub fn run(mut options: Options) -> ExitCode {
    // First of all: before there is another thread or a child.
    let program = Program::of_this_process().ok();
    let heritage = match Heritage::take().transpose() {
        Ok(heritage) => heritage,
        Err(error) => return failed(&format!("cannot take over from the running daemon: {error}")),
    };
    let (passed, heritage) = match heritage {
        Some(Heritage { listeners, control, lock, error }) => {
            (Passed::inherited(listeners), Some((control, lock, error)))
        }
        None => (Passed::from_env(), None),
    };
    // Watched before it is read, so that an edit in between is seen.
    let watch = Watch::of(&options.sources);
    let config = match first_configuration(&mut options.sources) {
        Ok(config) => config,
        Err(errors) => {
            last_words(&errors);
            return ExitCode::from(exit::USAGE);
        }
    };
    if let Some((_, _, error)) = &heritage
        && let Err(cause) = rustix::stdio::dup2_stderr(error)
    {
        return failed(&format!("cannot write to the standard error of the running daemon: {cause}"));
    }
    let reader =
        if options.foreground.is_some() { logging::Reader::Person } else { logging::Reader::Service };
    let _log = logging::init(reader, &config.name, &config.log.level);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    // A daemon in the foreground leaves nothing behind in a folder that it made for itself.
    let made_here = options.foreground.is_some() && config.state_file.parent() == Some(&*config.run_dir);
    let remains = made_here.then(|| (config.state_file.clone(), config.run_dir.clone()));
    let code =
        live(options, config, watch, passed, heritage.map(|(control, lock, _)| (control, lock)), program);
    if let (true, Some((record, folder))) = (code == exit::DONE, remains) {
        Records::discard(&record, &folder);
    }
    ExitCode::from(code)
}

/// Reads the configuration. Apps whose files are refused, or are not there, are as they were
/// configured last; a reload follows, which says what becomes of them.
fn first_configuration(sources: &mut Sources) -> Result<Config, ConfigErrors> {
    let config = config::load(sources)?;
    if sources.overrides.foreground {
        return Ok(config);
    }
    sources.kept = kept::at_start(&config.state_file);
    let is_there =
        |name: &String| config.apps.as_ref().is_some_and(|several| several.apps.contains_key(name));
    sources.kept.retain(|name, _| !is_there(name));
    if sources.kept.is_empty() { Ok(config) } else { config::load(sources) }
}

/// The daemon's life on its runtime. Returns the exit code.
fn live(
    options: Options,
    config: Config,
    watch: Option<Watch>,
    passed: Passed,
    predecessor: Option<(UnixStream, Option<std::fs::File>)>,
    program: Option<Program>,
) -> u8 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot start the control plane's runtime: {error}");
            return exit::FAILED;
        }
    };
    let last_word = predecessor.as_ref().and_then(|(control, _)| control.try_clone().ok());
    let outcome = runtime.block_on(async {
        let predecessor = match predecessor {
            Some((control, lock)) => {
                let control = ControlSocket::new(control).map_err(StartError::Predecessor)?;
                Some(Predecessor::new(control, lock))
            }
            None => None,
        };
        let inheritance = Inheritance { passed, predecessor, program };
        let daemon = Daemon::start(options, config, watch, inheritance).await?;
        daemon.serve().await
    });
    // A thread that hangs in the kernel (a disk that does not answer) must not keep the process.
    runtime.shutdown_timeout(LAST_THREADS);
    match outcome {
        Ok(code) => code,
        Err(error) => {
            let source =
                std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            tracing::error!("{error}{source}{}", error.hint());
            if let Some(control) = last_word {
                handover::fail(control, &format!("{error}{source}"));
            }
            exit::FAILED
        }
    }
}

/// Complains, before there is a log.
fn failed(why: &str) -> ExitCode {
    complain(&format!("error: {why}"));
    ExitCode::from(exit::FAILED)
}

/// Prints the effective configuration, secrets masked; or all that is wrong with it.
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
            // No error here: what a deploy of an app would refuse may come about before it.
            let several = config.apps.iter().flat_map(|several| several.apps.values());
            for app in [&config.app].into_iter().chain(several).filter(|app| app.app.command.is_some()) {
                if let Err(error) = release::spec::prepare(wire::DeployRequest::default(), None, app) {
                    let table =
                        if config.apps.is_none() { "app".to_owned() } else { format!("apps.{}", app.name) };
                    complain(&format!("warning: [{table}] cannot be deployed as it is: {}", error.message));
                }
            }
            use std::io::Write;
            // A reader that closed the pipe needs no error.
            let _pipe_closed = std::io::stdout().write_all(config.effective_toml().as_bytes());
            // Who would get what at a start is the one rule by which it is given.
            let conflicts = conflicts(&config);
            let apps = config.apps.unwrap_or_default();
            let problems = apps.unreadable.iter().chain(apps.refused.values());
            let problems: Vec<_> = problems.chain(&conflicts).collect();
            for problem in problems.iter().flat_map(|problem| problem.lines()) {
                complain(&format!("error: {problem}"));
            }
            ExitCode::from(if problems.is_empty() { exit::DONE } else { exit::USAGE })
        }
        Err(errors) => {
            last_words(&errors);
            if let Some(instance) = sources.file.as_deref().and_then(config::instance_of_app_file) {
                let file = instance.display();
                complain(&format!("hint: this is one app's file of {file}: portokd --check --config {file}"));
            }
            ExitCode::from(exit::USAGE)
        }
    }
}

fn last_words(errors: &ConfigErrors) {
    for problem in &errors.problems {
        complain(&format!("error: {problem}"));
    }
}

/// Writes to standard error: the log, as long as there is none.
fn complain(line: &str) {
    use std::io::Write as _;
    // Where it is closed, nobody reads; `eprintln!` would panic.
    let _closed = writeln!(std::io::stderr(), "{line}");
}

struct Daemon {
    configuration: Configuration,
    listeners: Listeners,
    /// A duplicate of the state's lock, for a successor.
    lock: Option<std::fs::File>,
    /// How a successor is started; `None` where there is none to be.
    program: Option<Program>,
    /// The apps' limit of open files.
    open_files: Option<u64>,
    /// Cancelled once no predecessor is left.
    alone: CancellationToken,
    manager: Manager,
    plane: Plane,
    /// What the supervisors of all apps share.
    common: Arc<supervisor::Common>,
    apps: Apps,
    /// What clients are shown over TLS.
    certificates: Certificates,
    coordinators: Coordinators,
    admin: AdminServer,
    background: Background,
    access: AccessLog,
    edits: mpsc::Receiver<()>,
    signals: Signals,
}

impl Daemon {
    /// Carries out orders until one ends the daemon.
    async fn serve(mut self) -> Result<u8, StartError> {
        enum Turn {
            Booted,
            Reload(admin::ReloadOrder),
            Edited,
            Retry,
            Upgrade(admin::UpgradeOrder),
            Shutdown(admin::ShutdownOrder),
            Told(Told),
            Addresses,
            Lost,
        }
        let mut booted = false;
        let mut retry = None;
        let mut addresses = self.apps.addresses();
        let mut again = tokio::time::interval(listeners::AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let failed = self.configuration.is_in_error();
            // Other turns do not put it off.
            retry = retry.filter(|_| failed).or_else(|| failed.then(|| Instant::now() + RELOAD_RETRY));
            let turn = tokio::select! {
                () = upkeep::extending(&self.manager, self.apps.booted()), if !booted => Turn::Booted,
                Some(order) = self.admin.reloads.recv() => Turn::Reload(order),
                Some(order) = self.admin.upgrades.recv() => Turn::Upgrade(order),
                Some(order) = self.admin.shutdowns.recv() => Turn::Shutdown(order),
                Some(()) = self.edits.recv() => Turn::Edited,
                () = tokio::time::sleep_until(retry.unwrap_or_else(Instant::now)), if failed => Turn::Retry,
                told = self.signals.next() => Turn::Told(told),
                Ok(()) = addresses.changed() => Turn::Addresses,
                _ = again.tick() => Turn::Addresses,
                () = self.apps.lost() => Turn::Lost,
            };
            match turn {
                Turn::Booted => {
                    booted = true;
                    self.manager.ready();
                }
                Turn::Reload(admin::ReloadOrder { prune, reply }) => {
                    let outcome = self.announced_reload(booted, prune).await;
                    let _asker_gone = reply.send(outcome);
                }
                // Its outcome is in the log and in the status.
                Turn::Edited | Turn::Told(Told::Reload) => {
                    let _outcome = self.announced_reload(booted, false).await;
                }
                Turn::Retry => {
                    retry = None;
                    let _outcome = self.reload(false).await;
                }
                Turn::Addresses => self.look_again().await,
                Turn::Told(Told::Reopen) => self.access.reopen(),

                Turn::Lost => {
                    // Without it nothing watches the app. The service manager starts the daemon
                    // again.
                    tracing::error!("the coordinator has ended; the daemon cannot go on without it");
                    self.end(None).await;
                    return Err(StartError::Lost);
                }
                Turn::Upgrade(admin::UpgradeOrder { binary, reply }) => {
                    let (error, ending) = match self.upgrade_undisturbed(booted, binary).await {
                        UpgradeOutcome::Heir(heir) => {
                            self.hand_over(*heir, reply).await?;
                            return Ok(exit::DONE);
                        }
                        UpgradeOutcome::Failed(error) => (error, false),
                        UpgradeOutcome::Ending(error) => (error, true),
                    };
                    let _asker_gone = reply.send(Err(error));
                    if ending {
                        return Ok(self.end(None).await);
                    }
                }
                Turn::Shutdown(order) => {
                    tracing::info!("portok shutdown: finishing requests, then stopping the app");
                    self.listeners.forget(&self.manager);
                    return Ok(self.end(Some(order)).await);
                }
                Turn::Told(Told::Leave) => {
                    tracing::info!("SIGUSR2: finishing requests, then leaving the app to the next daemon");
                    self.leave().await?;
                    return Ok(exit::DONE);
                }
                Turn::Told(Told::End(cause)) => {
                    tracing::info!("{cause}: finishing requests, then stopping the app");
                    // Nothing will accept from its queue.
                    self.listeners.forget(&self.manager);
                    return Ok(self.end(None).await);
                }
            }
        }
    }
}
