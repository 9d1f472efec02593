//! What the files of apps said when they were last good, kept on disk: so an app goes on as it was
//! over a restart of the daemon, though its file is refused or its folder cannot be read then.
//!
//! One file for all apps, written whole. The registry owns it: one write is under way at a time, so
//! what is written last is the newest, and a failed one is tried again later and later. While the
//! registry stands still nothing is written: the file is a successor's then. What is torn, or of
//! another format, counts as nothing. A file can hold secrets: its mode is 0600.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout};

use crate::config::KeptFile;
use crate::release::records::{kept_file, recorded};
use crate::release::store;

/// Until a write that failed is tried again. Doubles with each further failure.
const FIRST_DELAY: Duration = Duration::from_secs(1);

const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// How long the last write may take.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// The texts by the apps' names.
type Texts = BTreeMap<String, Arc<str>>;

/// Keeps the texts. See the module.
#[derive(Debug)]
pub(super) struct Kept {
    file: PathBuf,
    texts: Arc<Texts>,
    /// What is on disk. `None`: a write has failed, and may have come to any point.
    written: Option<Arc<Texts>>,
    /// The write that is under way, and of what.
    writing: Option<(Arc<Texts>, JoinHandle<io::Result<()>>)>,
    /// When the next one may begin.
    due: Instant,
    /// How long after a failure.
    delay: Duration,
}

/// What is kept beside this state file, for the start of a daemon.
pub fn at_start(state_file: &Path) -> BTreeMap<String, KeptFile> {
    let (texts, recorded) = (read(state_file), recorded(state_file));
    let kept = |(name, text)| {
        let has_record = recorded.contains(&name);
        (name, KeptFile { text, has_record })
    };
    texts.into_iter().map(kept).collect()
}

fn read(state_file: &Path) -> Texts {
    let read = store::read_whole(&kept_file(state_file)).ok();
    let texts = read.and_then(|bytes| serde_json::from_slice::<BTreeMap<String, String>>(&bytes).ok());
    texts.unwrap_or_default().into_iter().map(|(name, text)| (name, text.into())).collect()
}

/// Removes what is kept beside this state file: the instance has one app.
pub(super) fn forget(state_file: &Path) {
    if !read(state_file).is_empty() {
        let _disk_is_read_only = std::fs::remove_file(kept_file(state_file));
    }
}

/// Does the next step of a write. Waits as long as there is none. Cancel safe.
pub(super) async fn go_on(kept: &mut Option<Kept>) {
    match kept {
        Some(kept) if kept.writing.is_some() => kept.end_write().await,
        Some(kept) if kept.is_behind() => {
            sleep_until(kept.due).await;
            kept.begin_write();
        }
        Some(_) | None => std::future::pending().await,
    }
}

/// Writes what is not on disk yet. Where that fails now, it stays so.
pub(super) async fn finish(kept: &mut Option<Kept>) {
    let Some(kept) = kept else { return };
    let finished = async {
        kept.end_write().await;
        if kept.is_behind() {
            kept.begin_write();
            kept.end_write().await;
        }
    };
    if timeout(LAST_WRITE, finished).await.is_err() {
        tracing::warn!("how the apps are configured was not written within {LAST_WRITE:?}");
    }
}

impl Kept {
    /// Begins with what is kept beside this state file.
    pub(super) fn start(state_file: &Path) -> Self {
        let texts = Arc::new(read(state_file));
        let written = Some(Arc::clone(&texts));
        let (file, due) = (kept_file(state_file), Instant::now());
        Self { file, texts, written, writing: None, due, delay: FIRST_DELAY }
    }

    /// Notes what the valid files say. Of other apps what is kept stays as long as they are there.
    pub(super) fn note(&mut self, valid: &Texts, is_there: impl Fn(&str) -> bool) {
        let others = self.texts.iter().filter(|(name, _)| !valid.contains_key(*name) && is_there(name));
        let new: Texts = others.chain(valid).map(|(name, text)| (name.clone(), Arc::clone(text))).collect();
        if new != *self.texts {
            self.texts = Arc::new(new);
        }
    }

    fn is_behind(&self) -> bool {
        self.written.as_ref() != Some(&self.texts)
    }

    fn begin_write(&mut self) {
        let (texts, to) = (Arc::clone(&self.texts), self.file.clone());
        let write = spawn_blocking({
            let texts = Arc::clone(&texts);
            move || {
                let texts: BTreeMap<&str, &str> =
                    texts.iter().map(|(name, text)| (&**name, &**text)).collect();
                store::write_whole(&to, &serde_json::to_vec(&texts)?)
            }
        });
        self.writing = Some((texts, write));
    }

    /// Waits for the end of the write that is under way. Cancel safe.
    async fn end_write(&mut self) {
        let Some((texts, write)) = &mut self.writing else { return };
        match write.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => {
                self.written = Some(Arc::clone(texts));
                self.delay = FIRST_DELAY;
            }
            Err(error) => {
                let delay = self.delay;
                tracing::warn!(
                    "how the apps are configured is not kept for the next start: {error}; it is tried again \
                     {delay:?} later"
                );
                self.written = None;
                self.due = Instant::now() + delay;
                self.delay = (delay * 2).min(LONGEST_DELAY);
            }
        }
        self.writing = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Texts {
        [("api".to_owned(), text.into())].into()
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_written_is_tried_again_later_and_later_and_the_newest_is_written() {
        let home = tempfile::tempdir().unwrap();
        let state_file = home.path().join("gone/state.json");
        let mut kept = Some(Kept::start(&state_file));
        let began = Instant::now();
        let mut tries = Vec::new();
        for number in 0..7 {
            kept.as_mut().unwrap().note(&texts(&number.to_string()), |_| true);
            go_on(&mut kept).await;
            tries.push(began.elapsed().as_secs());
            go_on(&mut kept).await;
        }
        assert_eq!(tries, [0, 1, 3, 7, 15, 31, 61]);
        std::fs::create_dir(home.path().join("gone")).unwrap();
        go_on(&mut kept).await;
        // What is noted during a write is written after it.
        kept.as_mut().unwrap().note(&texts("last"), |_| true);
        go_on(&mut kept).await;
        assert_eq!(read(&state_file), texts("6"));
        go_on(&mut kept).await;
        go_on(&mut kept).await;
        assert_eq!(read(&state_file), texts("last"));
        let nothing = timeout(Duration::from_secs(3600), go_on(&mut kept)).await;
        assert!(nothing.is_err(), "it is written once");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_write_waits_for_no_delay() {
        let home = tempfile::tempdir().unwrap();
        let state_file = home.path().join("gone/state.json");
        let mut kept = Some(Kept::start(&state_file));
        kept.as_mut().unwrap().note(&texts("removed"), |_| true);
        for _begins_and_fails in 0..2 {
            go_on(&mut kept).await;
        }
        std::fs::create_dir(home.path().join("gone")).unwrap();
        kept.as_mut().unwrap().note(&Texts::new(), |_| false);
        finish(&mut kept).await;
        assert_eq!(std::fs::read(kept_file(&state_file)).unwrap(), b"{}");
    }
}
