//! What is kept of the apps over a restart of the daemon: what was said of them when that was last
//! good, which are spared though nothing configures them any more, and who has the routes that two
//! claim. So an app goes on as it was, though its file is refused, its folder cannot be read or its
//! configuration is gone then, and no route changes hands.
//!
//! One file for all apps, written whole. The registry owns it: one write is under way at a time, so
//! what is written last is the newest, and a failed one is tried again later and later. While the
//! registry stands still nothing is written: the file is a successor's then. What is torn, or of
//! another format, counts as nothing. What is said of an app can hold secrets: the mode is 0600.
//! Nothing else of the main file is kept.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until, timeout};

use super::claims::{Contested, InForce, Spot, held_before};
use super::plan::Missing;
use crate::config::{AppText, Hosts, KeptApp, Several};
use crate::release::records::{kept_file, recorded};
use crate::release::store;

/// Until a write that failed is tried again. Doubles with each further failure.
const FIRST_DELAY: Duration = Duration::from_secs(1);

const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// How long the last write may take.
const LAST_WRITE: Duration = Duration::from_secs(5);

/// What is said of the apps, by their names.
type Texts = BTreeMap<String, AppText>;

/// Why apps are spared that nothing configures any more, by their names.
type Spared = BTreeMap<String, String>;

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Content {
    texts: Arc<Texts>,
    spared: Spared,
    contested: Contested,
}

/// [`Content`] as it is on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
struct OnDisk {
    /// Of apps that have files of their own.
    texts: BTreeMap<String, String>,
    /// Of apps of the main file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    main: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    spared: Spared,
    routes: Vec<Holder>,
}

/// The app that has a route.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    app: String,
    #[serde(flatten)]
    route: Place,
}

/// A [`Spot`] on disk.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Place {
    /// Without a path: a name of TLS.
    Under {
        hosts: String,
        path: String,
    },
    At(SocketAddr),
}

/// The path that no request has. Whoever knows no names of TLS reads what has it, too, and finds
/// nothing that it concerns.
const NO_PATH: &str = "";

/// Keeps them. See the module.
#[derive(Debug)]
pub(super) struct Kept {
    file: PathBuf,
    content: Content,
    /// What is on disk. `None`: a write has failed, and may have come to any point.
    written: Option<Content>,
    /// The write that is under way, and of what.
    writing: Option<(Content, JoinHandle<io::Result<()>>)>,
    /// When the next one may begin.
    due: Instant,
    /// How long after a failure.
    delay: Duration,
}

/// What was said of apps, kept beside this state file, for the start of a daemon.
pub fn at_start(state_file: &Path) -> BTreeMap<String, KeptApp> {
    let (content, recorded) = (read(state_file), recorded(state_file));
    let kept = |(name, said): (&String, &AppText)| {
        (name.clone(), KeptApp { said: said.clone(), has_record: recorded.contains(name) })
    };
    content.texts.iter().map(kept).collect()
}

/// Who had which route, as far as that may decide who of `wanted` gets it at a start.
pub(super) fn in_force(state_file: &Path, wanted: &Several) -> InForce {
    read(state_file).in_force(wanted)
}

fn read(state_file: &Path) -> Content {
    let read = store::read_whole(&kept_file(state_file)).ok();
    let read = read.and_then(|bytes| serde_json::from_slice::<OnDisk>(&bytes).ok()).unwrap_or_default();
    let said = |texts: BTreeMap<String, String>, in_main_file| {
        texts.into_iter().map(move |(name, text)| (name, AppText { text: text.into(), in_main_file }))
    };
    let texts = said(read.texts, false).chain(said(read.main, true)).collect();
    let contested = read.routes.into_iter().filter_map(Holder::spot).collect();
    Content { texts: Arc::new(texts), spared: read.spared, contested }
}

/// Removes what is kept beside this state file: the instance has one app.
pub(super) fn forget(state_file: &Path) {
    if read(state_file) != Content::default() {
        let _disk_is_read_only = std::fs::remove_file(kept_file(state_file));
    }
}

impl Content {
    /// See [`in_force`]. An app of which is said what was said had what it claims.
    fn in_force(&self, wanted: &Several) -> InForce {
        let is_same =
            |name: &String| self.texts.get(name).is_some_and(|text| wanted.texts.get(name) == Some(text));
        let stayed = wanted.apps.iter().filter(|(name, _)| is_same(name)).map(|(_, app)| &**app);
        held_before(&self.contested, stayed)
    }

    fn on_disk(&self) -> OnDisk {
        let (mut texts, mut main) = (BTreeMap::new(), BTreeMap::new());
        for (name, AppText { text, in_main_file }) in &*self.texts {
            let place = if *in_main_file { &mut main } else { &mut texts };
            place.insert(name.clone(), text.to_string());
        }
        let spared = self.spared.clone();
        OnDisk {
            texts,
            main,
            spared,
            routes: self.contested.iter().map(|(spot, app)| Holder::of(spot, app)).collect(),
        }
    }
}

impl Holder {
    fn of(spot: &Spot, app: &str) -> Self {
        let route = match spot {
            Spot::Under(hosts, path) => Place::Under { hosts: hosts.to_string(), path: path.to_string() },
            Spot::Named(hosts) => Place::Under { hosts: hosts.to_string(), path: NO_PATH.to_owned() },
            Spot::At(addr) => Place::At(*addr),
        };
        Self { app: app.to_owned(), route }
    }

    /// The route and its app. `None`: there is no such route.
    fn spot(self) -> Option<(Spot, Arc<str>)> {
        let spot = match self.route {
            Place::Under { hosts, path } if path == NO_PATH => Spot::Named(hosts.parse::<Hosts>().ok()?),
            Place::Under { hosts, path } => Spot::Under(hosts.parse::<Hosts>().ok()?, path.into()),
            Place::At(addr) => Spot::At(addr),
        };
        Some((spot, self.app.into()))
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
        let content = read(state_file);
        let written = Some(content.clone());
        let (file, due) = (kept_file(state_file), Instant::now());
        Self { file, content, written, writing: None, due, delay: FIRST_DELAY }
    }

    /// See [`in_force`].
    pub(super) fn in_force(&self, wanted: &Several) -> InForce {
        self.content.in_force(wanted)
    }

    /// The apps that there were when the daemon ended, and why which of them were spared.
    pub(super) fn before(&self) -> (impl Iterator<Item = &String>, &Spared) {
        (self.content.texts.keys(), &self.content.spared)
    }

    /// Notes what is said of apps, and is valid. Of others what is kept stays as long as they are
    /// there.
    pub(super) fn note(&mut self, valid: &Texts, is_there: impl Fn(&str) -> bool) {
        let texts = &self.content.texts;
        let others = texts.iter().filter(|(name, _)| !valid.contains_key(*name) && is_there(name));
        let new: Texts = others.chain(valid).map(|(name, said)| (name.clone(), said.clone())).collect();
        if new != **texts {
            self.content.texts = Arc::new(new);
        }
    }

    /// Notes which of the missing apps are spared.
    pub(super) fn note_spared(&mut self, missing: &BTreeMap<String, Missing>) {
        let spared = missing.iter().filter_map(|(name, app)| Some((name.clone(), app.spared.clone()?)));
        self.content.spared = spared.collect();
    }

    /// Notes who has the routes that two apps claim.
    pub(super) fn note_contested(&mut self, contested: Contested) {
        self.content.contested = contested;
    }

    fn is_behind(&self) -> bool {
        self.written.as_ref() != Some(&self.content)
    }

    fn begin_write(&mut self) {
        let (content, to) = (self.content.clone(), self.file.clone());
        let write = spawn_blocking({
            let content = content.clone();
            move || store::write_whole(&to, &serde_json::to_vec(&content.on_disk())?)
        });
        self.writing = Some((content, write));
    }

    /// Waits for the end of the write that is under way. Cancel safe.
    async fn end_write(&mut self) {
        let Some((content, write)) = &mut self.writing else { return };
        match write.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => {
                self.written = Some(content.clone());
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
        [("api".to_owned(), AppText { text: text.into(), in_main_file: text == "removed" })].into()
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
        assert_eq!(*read(&state_file).texts, texts("6"));
        go_on(&mut kept).await;
        go_on(&mut kept).await;
        assert_eq!(*read(&state_file).texts, texts("last"));
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
        assert_eq!(std::fs::read(kept_file(&state_file)).unwrap(), br#"{"texts":{},"routes":[]}"#);
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_a_route_that_two_claim_is_kept_and_written_when_it_changes() {
        let home = tempfile::tempdir().unwrap();
        let state_file = home.path().join("state.json");
        let mut kept = Some(Kept::start(&state_file));
        let under = Spot::Under("*.x.test".parse().unwrap(), "/v1".into());
        let named = Spot::Named("*.x.test".parse().unwrap());
        let contested: Contested =
            [(under, "b".into()), (named, "d".into()), (Spot::At("[::1]:9080".parse().unwrap()), "c".into())]
                .into();
        kept.as_mut().unwrap().note_contested(contested.clone());
        go_on(&mut kept).await;
        go_on(&mut kept).await;
        assert_eq!(read(&state_file).contested, contested);
        let mut kept = Some(Kept::start(&state_file));
        kept.as_mut().unwrap().note_contested(contested);
        let nothing = timeout(Duration::from_secs(3600), go_on(&mut kept)).await;
        assert!(nothing.is_err(), "it is on disk");
        kept.as_mut().unwrap().note_contested(Contested::new());
        finish(&mut kept).await;
        assert_eq!(read(&state_file), Content::default());
    }
}
