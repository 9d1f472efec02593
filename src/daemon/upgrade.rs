//! The daemon's side of an upgrade: it starts its successor, hands over to it, or takes everything
//! back.
//!
//! Until the successor says that it serves, a failure leaves things as they were: the successor is
//! killed, the apps' coordinators go on, the apps' lines are read again, the admin socket is put
//! back in its place.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::successor::{Estate, Heir, Successor};
use super::{Daemon, StartError};
use crate::admin;
use crate::apps::Apps;
use crate::proxy::Until;
use crate::systemd::Manager;
use crate::wire::{self, Code, ErrorBody};

/// How long a successor may take to prepare.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// How long a successor may take to take over: it reads the record, looks at every process, and
/// probes the app once.
const SERVING_WITHIN: Duration = Duration::from_secs(30);

/// What became of an attempt.
#[derive(Debug)]
pub(super) enum UpgradeOutcome {
    Heir(Box<Heir>),
    /// Nothing has changed.
    Failed(ErrorBody),
    /// Nothing has changed; the daemon was told to end meanwhile.
    Ending(ErrorBody),
}

/// An attempt that failed.
struct Failed {
    /// Whether the successor was told to go, so that it may have replaced what is the daemon's.
    went: bool,
    error: ErrorBody,
}

/// Starts a successor and waits until it serves.
async fn attempt(estate: Estate, apps: Apps) -> Result<Heir, Failed> {
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
    apps.freeze(false).await.map_err(|error| Failed { went: false, error })?;
    apps.hush(true);
    successor.go().await;
    let pid = successor.expect("serving", SERVING_WITHIN).await.map_err(|why| failed(true, why))?;
    let pid = pid.parse().map_err(|_| failed(true, format!("it told `{pid}` as its process id")))?;
    Ok(successor.into_heir(version, pid))
}

impl Daemon {
    /// Starts another daemon for this one's place.
    pub(super) async fn upgrade(&mut self, booted: bool, binary: Option<PathBuf>) -> UpgradeOutcome {
        let estate = match self.estate(booted, binary) {
            Ok(estate) => estate,
            Err(error) => return UpgradeOutcome::Failed(error),
        };
        if let Err(error) = self.apps.may_freeze().await {
            return UpgradeOutcome::Failed(error);
        }
        let ended = tokio::select! {
            outcome = attempt(estate, self.apps.clone()) => Some(outcome),
            () = self.signals.end() => None,
        };
        let (went, error, outcome): (bool, ErrorBody, fn(ErrorBody) -> UpgradeOutcome) = match ended {
            Some(Ok(heir)) => return UpgradeOutcome::Heir(Box::new(heir)),
            Some(Err(Failed { went, error })) => (went, error, UpgradeOutcome::Failed),
            None => {
                let error = ErrorBody::new(
                    Code::ShuttingDown,
                    "Shutting down",
                    "the daemon was told to end before the new one had taken over",
                );
                (true, error, UpgradeOutcome::Ending)
            }
        };
        tracing::error!("{}", error.message);
        self.apps.hush(false);
        self.apps.thaw().await;
        if went {
            self.apps.restore();
            self.take_socket_back();
        }
        outcome(error)
    }

    /// As [`Daemon::upgrade`]. Who asks for the end of the daemon meanwhile is refused.
    pub(super) async fn upgrade_undisturbed(
        &mut self,
        booted: bool,
        binary: Option<PathBuf>,
    ) -> UpgradeOutcome {
        let (_none, closed) = mpsc::channel(1);
        let mut shutdowns = std::mem::replace(&mut self.admin.shutdowns, closed);
        let refusing = async {
            while let Some(admin::ShutdownOrder { reply, .. }) = shutdowns.recv().await {
                let error = ErrorBody::new(Code::Busy, "Busy", "an upgrade of the daemon is under way")
                    .with_hint("try again when it is over");
                let _asker_gone = reply.send(Err(error));
            }
            std::future::pending::<std::convert::Infallible>().await
        };
        let outcome = tokio::select! {
            outcome = self.upgrade(booted, binary) => outcome,
            never = refusing => match never {},
        };
        self.admin.shutdowns = shutdowns;
        outcome
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
        Ok(Estate {
            program: program.at(binary),
            listeners: self.listeners.for_successor().map_err(cannot)?,
            lock: self.lock.as_ref().map(File::try_clone).transpose().map_err(cannot)?,
            open_files: self.open_files,
        })
    }

    /// Serves the admin socket again, if somebody has removed it.
    pub(super) fn look_for_socket(&mut self) {
        let config = self.configuration.current();
        if self.admin.is_lost(&config)
            && let Some(path) = &config.admin.socket
        {
            tracing::warn!("the admin socket {} was removed: it is made again", path.display());
            self.take_socket_back();
        }
    }

    /// Puts this daemon's admin socket back in its place.
    fn take_socket_back(&mut self) {
        match self.admin.open_again(&self.configuration.current()) {
            Ok(former) => self.background.finish(former),
            Err(error) => tracing::error!("{error}"),
        }
    }

    /// Makes the heir the daemon. This one finishes the connections that it has, however long they
    /// last, and ends.
    pub(super) async fn hand_over(
        mut self,
        heir: Heir,
        reply: oneshot::Sender<Result<wire::Upgraded, ErrorBody>>,
    ) -> Result<(), StartError> {
        let Heir { mut control, outcome } = heir;
        let managed = self.manager.listens();
        self.manager.main_pid(outcome.pid);
        self.manager.flush().await;
        // The service manager is the heir's to talk to.
        self.background.fall_silent();
        self.manager = Manager::none();
        // From here on there is no way back: if the heir dies, the service manager starts another
        // one.
        let _heir_gone = control.say("main").await;
        tracing::info!("{}; finishing the connections that are open here", outcome.message);
        let _asker_gone = reply.send(Ok(outcome));
        let successor = reached_at(self.listeners.bound());
        self.begin_the_end();
        self.background.finish(self.admin.leave_socket());
        self.apps.leave(Some(successor)).await;
        self.lock = None;
        let hurried = self.signals.end();
        // If the heir ends, the service manager starts the next daemon, and this one must be gone
        // by then.
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

/// Where a client on this host reaches what accepts at `addr`.
fn reached_at(mut addr: SocketAddr) -> SocketAddr {
    if addr.ip().is_unspecified() {
        addr.set_ip(if addr.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    addr
}
