//! The successor's side of an upgrade: how a daemon starts while another one still runs.
//!
//! Up to `go` it changes nothing that the running daemon has. What fails after that leaves the apps alone: they are the running
//! daemon's again. The word `main` makes it the daemon.

use std::fs::File;
use std::io;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::StartError;
use super::handover::Control;
use crate::config::Config;
use crate::release::store::Store;

/// How long the running daemon may take to stand still: its record has to be written.
const GO_WITHIN: Duration = Duration::from_secs(30);

/// How long the running daemon may take to tell the service manager.
const MAIN_WITHIN: Duration = Duration::from_secs(10);

/// The daemon that is to be succeeded.
#[derive(Debug)]
pub(super) struct Predecessor {
    control: Control,
    lock: Option<File>,
}

impl Predecessor {
    pub(super) fn new(control: Control, lock: Option<File>) -> Self {
        Self { control, lock }
    }

    /// All is prepared: says so, and waits until the running daemon stands still. Gives back its lock.
    pub(super) async fn stand_by(&mut self, config: &Config) -> Result<Option<File>, StartError> {
        if let Some(lock) = &self.lock {
            Store::check(&config.state_file, lock)?;
        }
        self.say(&format!("ready {}", env!("CARGO_PKG_VERSION"))).await?;
        self.expect("go", GO_WITHIN).await?;
        Ok(self.lock.take())
    }

    /// Requests are answered here.
    pub(super) async fn serving(&mut self) -> Result<(), StartError> {
        self.say(&format!("serving {}", std::process::id())).await
    }

    /// Waits until this is the daemon.
    pub(super) async fn until_main(&mut self) -> Result<(), StartError> {
        self.expect("main", MAIN_WITHIN).await
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
