//! Keeps the table in force on disk. A task of its own, which writes at most once in a while: a
//! disk is slower than Redis changes. It ends after the last table, when the source does.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::Routes;
use super::store;
use super::table::Table;

/// Between two writes.
const PAUSE: Duration = Duration::from_secs(10);

/// Keeps every table of `routes` in `file`, but for the present one, which was read there.
pub(super) fn keep(file: PathBuf, mut routes: watch::Receiver<Routes>) -> JoinHandle<()> {
    let mut keeper = Keeper { file, kept: Arc::clone(&routes.borrow_and_update().table), fails: false };
    tokio::spawn(async move {
        loop {
            let goes_on = routes.changed().await.is_ok();
            let wrote_at = Instant::now();
            let table = Arc::clone(&routes.borrow_and_update().table);
            let wrote = keeper.keep(table).await;
            if !goes_on {
                return;
            }
            if wrote {
                // The source may end meanwhile: then what there is last is written at once.
                tokio::select! {
                    () = sleep_until(wrote_at + PAUSE) => {}
                    () = ended(routes.clone()) => {}
                }
            }
        }
    })
}

/// Returns when no further table will come.
async fn ended(mut routes: watch::Receiver<Routes>) {
    while routes.changed().await.is_ok() {}
}

struct Keeper {
    file: PathBuf,
    kept: Arc<Table>,
    fails: bool,
}

impl Keeper {
    /// Writes the table, unless it is there already. Whether it has tried.
    async fn keep(&mut self, table: Arc<Table>) -> bool {
        if Arc::ptr_eq(&table, &self.kept) {
            return false;
        }
        let (file, written) = (self.file.clone(), Arc::clone(&table));
        let outcome = spawn_blocking(move || store::save(&file, &written)).await;
        match outcome.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => {
                if self.fails {
                    info!("redis: the table is kept on disk again");
                }
                (self.kept, self.fails) = (table, false);
            }
            Err(error) => {
                if !self.fails {
                    warn!("redis: {error}");
                }
                self.fails = true;
            }
        }
        true
    }
}
