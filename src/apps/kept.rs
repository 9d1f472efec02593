//! What the files of apps said when they were last good, kept on disk: so an app goes on as it was
//! over a restart of the daemon, though its file is refused or its folder cannot be read then.
//!
//! One file for all apps, written whole by a task that ends once nobody notes anything any more.
//! What is torn, or of another format, counts as nothing. A file can hold secrets: its mode is 0600.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use crate::release::records::kept_file;
use crate::release::store;

/// The texts by the apps' names.
pub type Texts = BTreeMap<String, Arc<str>>;

/// Notes what is kept. See the module.
#[derive(Debug)]
pub(super) struct Kept(watch::Sender<Arc<Texts>>);

/// What is kept beside this state file.
pub fn read(state_file: &Path) -> Texts {
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

impl Kept {
    /// Begins with what is kept beside this state file.
    pub(super) fn start(state_file: &Path) -> Self {
        let (texts, noted) = watch::channel(Arc::new(read(state_file)));
        tokio::spawn(write(kept_file(state_file), noted));
        Self(texts)
    }

    /// Notes what the valid files say. Of other apps what is kept stays as long as they are there.
    pub(super) fn note(&self, valid: &Texts, is_there: impl Fn(&str) -> bool) {
        self.0.send_if_modified(|kept| {
            let others = kept.iter().filter(|(name, _)| !valid.contains_key(*name) && is_there(name));
            let new: Texts =
                others.chain(valid).map(|(name, text)| (name.clone(), Arc::clone(text))).collect();
            let differs = new != **kept;
            if differs {
                *kept = Arc::new(new);
            }
            differs
        });
    }
}

/// Writes each newer version until there will be none.
async fn write(file: PathBuf, mut noted: watch::Receiver<Arc<Texts>>) {
    while noted.changed().await.is_ok() {
        let texts = Arc::clone(&noted.borrow_and_update());
        let to = file.clone();
        let written = tokio::task::spawn_blocking(move || {
            let texts: BTreeMap<&str, &str> = texts.iter().map(|(name, text)| (&**name, &**text)).collect();
            store::write_whole(&to, &serde_json::to_vec(&texts)?)
        });
        if let Ok(Err(error)) = written.await {
            tracing::warn!("how the apps are configured is not kept for the next start: {error}");
        }
    }
}
