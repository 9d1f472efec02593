//! The signals that a daemon obeys.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::StartError;

/// What a signal asks for.
pub(super) enum Told {
    /// SIGHUP.
    Reload,
    /// SIGUSR2.
    Leave,
    /// By the signal of this name.
    End(&'static str),
}

/// They are caught from the moment on in which this was made.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    leave: Signal,
}

impl Signals {
    pub(super) fn catch() -> Result<Self, StartError> {
        let catch = |kind, operation| signal(kind).map_err(|source| StartError::Io { operation, source });
        Ok(Self {
            interrupt: catch(SignalKind::interrupt(), "wait for SIGINT")?,
            terminate: catch(SignalKind::terminate(), "wait for SIGTERM")?,
            hangup: catch(SignalKind::hangup(), "wait for SIGHUP")?,
            leave: catch(SignalKind::user_defined2(), "wait for SIGUSR2")?,
        })
    }

    /// The next one. Cancel safe.
    pub(super) async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.hangup.recv() => Told::Reload,
            _ = self.leave.recv() => Told::Leave,
            _ = self.interrupt.recv() => Told::End("SIGINT"),
            _ = self.terminate.recv() => Told::End("SIGTERM"),
        }
    }

    /// The next one that says to end: while the daemon ends already, it says to hurry. Cancel safe.
    pub(super) async fn end(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
