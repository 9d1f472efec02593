//! Keeps the table in force on disk. A task of its own, which writes at most once in a while: a
//! disk is slower than Redis changes. What could not be written is tried again. It ends after the
//! last table, when the source does.

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
            let goes_on =
                if keeper.fails { routes.has_changed().is_ok() } else { routes.changed().await.is_ok() };
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
            self.fails = false;
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

#[cfg(test)]
mod tests {
    use std::fs;

    use tokio::time::sleep;

    use super::super::bounds::Bounds;
    use super::super::list::Frontend;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_kept_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("late/edge.redis.json");
        let bounds = Bounds { allow: vec!["10.0.0.0/8".parse().unwrap()], ..Bounds::default() };
        let list = Frontend::read("a", &["label", "http://10.0.0.1:80"], &bounds).unwrap();
        let (routes, seen) = watch::channel(Routes::default());
        let keeping = keep(file.clone(), seen);
        routes.send_modify(|routes| routes.table = Arc::new(Table::new([list])));
        sleep(PAUSE / 2).await;
        assert!(!file.exists());
        fs::create_dir(file.parent().unwrap()).unwrap();
        sleep(PAUSE).await;
        assert!(file.exists(), "not tried again, though nothing else has changed");
        drop(routes);
        keeping.await.unwrap();
    }
}
