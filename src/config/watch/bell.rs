//! Rings when something may have changed on the way to watched files.
//!
//! A burst of events is one ring. Where inotify is missing or blind (its limits, network file
//! systems, a replaced folder), a slow poll rings. Whoever listens looks at the files and decides
//! whether anything has changed; before that look the bell has to be armed again, because links may
//! lead elsewhere now.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use super::way::Way;

/// How long events have to pause before the bell rings.
pub(super) const QUIET: Duration = Duration::from_millis(100);

/// How long events that do not pause may put that off.
pub(super) const BURST: Duration = Duration::from_secs(1);

/// How often it rings without any event.
const POLL: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(crate) struct Bell {
    /// What is watched, for the log.
    what: &'static str,
    /// The folders that are watched, and what in them counts.
    way: Arc<ArcSwap<Way>>,
    /// `None` if the system refuses; then only the poll is left.
    pub(super) notify: Option<RecommendedWatcher>,
    woken: mpsc::Receiver<()>,
    /// Keeps `woken` open while there is no `notify`.
    pub(super) _wake: mpsc::Sender<()>,
    pub(super) poll: Duration,
    /// When the burst that goes on is over at the latest.
    burst: Option<Instant>,
}

impl Bell {
    /// A bell that watches nothing yet. `what` will be watched, as the log says it.
    pub(crate) fn new(what: &'static str) -> Self {
        // One slot: a second wake-up while one is waiting says nothing new.
        let (wake, woken) = mpsc::channel(1);
        let way = Arc::new(ArcSwap::from_pointee(Way::default()));
        let notify = notify::recommended_watcher({
            let (wake, way) = (wake.clone(), Arc::clone(&way));
            // On notify's own thread.
            move |event: notify::Result<Event>| {
                if event.map_or(true, |event| way.load().concerns(&event)) {
                    // Full: it is awake already. Closed: the watch is over.
                    let _ = wake.try_send(());
                }
            }
        });
        let notify = notify
            .inspect_err(
                |error| tracing::warn!(%error, every = ?POLL, "cannot watch {what}, polling instead"),
            )
            .ok();
        Self { what, way, notify, woken, _wake: wake, poll: POLL, burst: None }
    }

    /// Watches exactly the folders of `way`. A folder may be watched already; if it was replaced,
    /// the new one is watched now.
    pub(crate) fn arm(&mut self, way: Way) {
        let way = Arc::new(way);
        let before = self.way.swap(Arc::clone(&way));
        let Some(notify) = &mut self.notify else { return };
        for gone in before.folders().difference(way.folders()) {
            // Fails if the folder is gone, and its watch with it.
            let _ = notify.unwatch(gone);
        }
        for folder in way.folders() {
            if let Err(error) = notify.watch(folder, RecursiveMode::NonRecursive)
                && !before.folders().contains(folder)
            {
                let folder = folder.display();
                tracing::warn!(%folder, %error, every = ?POLL, "cannot watch {}, polling instead", self.what);
            }
        }
    }

    /// Waits until something may have changed. Cancel safe: a burst that was noticed goes on.
    pub(crate) async fn rung(&mut self) {
        if self.burst.is_none() {
            let woken = tokio::select! {
                _ = self.woken.recv() => true,
                () = sleep(self.poll) => false,
            };
            if !woken {
                return;
            }
        }
        let end = *self.burst.get_or_insert_with(|| Instant::now() + BURST);
        while let Ok(Some(())) = timeout_at(end.min(Instant::now() + QUIET), self.woken.recv()).await {
            if Instant::now() >= end {
                break;
            }
        }
        self.burst = None;
    }
}
