//! The successor's side of an upgrade: how a daemon starts while another one still runs.
//!
//! Up to `go` it changes nothing that the running daemon has. If it fails after that, it leaves the
//! apps alone: they are the running daemon's again. The word `main` makes it the daemon.

use std::fs::File;
use std::io;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::StartError;
use super::handover::ControlSocket;
use crate::config::Config;
use crate::release::records::Records;

/// How long the running daemon may take to stand still: its record has to be written.
const GO_WITHIN: Duration = Duration::from_secs(30);

/// How long the running daemon may take to tell the service manager.
const MAIN_WITHIN: Duration = Duration::from_secs(10);

/// The daemon to succeed.
#[derive(Debug)]
pub(super) struct Predecessor {
    control: ControlSocket,
    lock: Option<File>,
}

impl Predecessor {
    pub(super) fn new(control: ControlSocket, lock: Option<File>) -> Self {
        Self { control, lock }
    }

    /// Says that all is prepared, and waits until the running daemon stands still. Returns its
    /// lock.
    pub(super) async fn stand_by(&mut self, config: &Config) -> Result<Option<File>, StartError> {
        if let Some(lock) = &self.lock {
            Records::check(&config.state_file, lock, config.apps.is_some())?;
        }
        self.say(&format!("ready {}", env!("CARGO_PKG_VERSION"))).await?;
        self.expect("go", GO_WITHIN).await?;
        Ok(self.lock.take())
    }

    /// Says that requests are answered here, and waits until this is the daemon.
    ///
    /// # Errors
    /// The running daemon is gone. If it is gone once this one serves, that is an error only where
    /// a service manager (`managed`) starts another daemon, which takes over what runs.
    pub(super) async fn succeed(mut self, managed: bool) -> Result<Self, StartError> {
        self.say(&format!("serving {}", std::process::id())).await?;
        if let Err(error) = self.expect("main", MAIN_WITHIN).await {
            if managed {
                return Err(error);
            }
            tracing::warn!("{error}: going on alone");
        }
        Ok(self)
    }

    /// Waits until nothing is left of it, then cancels `alone`.
    pub(super) async fn until_gone(mut self, alone: CancellationToken) {
        self.control.gone().await;
        tracing::info!("the daemon before this one has finished its connections");
        alone.cancel();
    }

    async fn say(&mut self, line: &str) -> Result<(), StartError> {
        self.control.say(line).await.map_err(StartError::Predecessor)
    }

    async fn expect(&mut self, word: &str, within: Duration) -> Result<(), StartError> {
        let heard = match timeout(within, self.control.hear()).await {
            Ok(Ok(said)) if said == word => return Ok(()),
            Ok(Ok(said)) => io::Error::other(format!("it said `{said}`, not `{word}`")),
            Ok(Err(error)) => error,
            Err(_) => io::Error::other(format!("it did not say `{word}` within {within:?}")),
        };
        Err(StartError::Predecessor(heard))
    }
}
