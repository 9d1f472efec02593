//! Tells when the configuration file, or a file of the folder of apps, may have changed.
//!
//! Editors replace files, deploy tools move symbolic links, Kubernetes swaps a folder. So every
//! folder on the way to the file is watched (its own, those of the links in between, and their
//! target's), and not the file itself. The folder of apps need not be there; once it is, it is
//! watched too, with the way to every link in it. A burst of events is one message. Content and
//! rights decide whether anything has changed, so neither a `touch` nor the daemon's own reading is
//! reported. Where inotify is missing or blind (its limits, network file systems, a replaced
//! folder), a slow poll finds the change.
//!
//! The watch owns what was seen last; nothing else needs it. It ends when the receiver of its
//! messages is dropped, or its own future. The ordering that matters: the [`Watch`] has to be made
//! **before** the file is loaded. Then a change between the two is reported, perhaps needlessly;
//! otherwise it would be missed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use super::env::Env;
use super::files::CONFIG_MAX;
use super::folder::{FILES_MAX, Stamp, app_of};
use super::load::file_of;
use super::{Sources, paths};

/// How long events have to pause before the file is looked at.
const QUIET: Duration = Duration::from_millis(100);

/// How long events that do not pause may put that off.
const BURST: Duration = Duration::from_secs(1);

/// How often the file is looked at without any event.
const POLL: Duration = Duration::from_secs(10);

/// As many symbolic links as the kernel follows (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Watches one file and the folder of apps beside it.
#[derive(Debug)]
pub struct Watch {
    file: PathBuf,
    apps: PathBuf,
    seen: (Seen, SeenFolder),
    /// The folders that are watched, and what in them counts.
    way: Arc<ArcSwap<Way>>,
    /// `None` if the system refuses; then only the poll is left.
    notify: Option<RecommendedWatcher>,
    woken: mpsc::Receiver<()>,
    /// Keeps `woken` open while there is no `notify`.
    _wake: mpsc::Sender<()>,
    poll: Duration,
}

impl Watch {
    /// Begins to watch what a configuration comes from, which need not exist. Its present content
    /// counts as known. `None`: it never comes from a file.
    pub fn of(sources: &Sources) -> Option<Self> {
        let file = file_of(sources).filter(|_| !sources.overrides.foreground)?;
        Some(Self::new(&file, &paths::apps_folder(&file, Env(&sources.env))))
    }

    fn new(file: &Path, apps: &Path) -> Self {
        // One slot: a second wake-up while one is waiting says nothing new.
        let (wake, woken) = mpsc::channel(1);
        let way = Arc::new(ArcSwap::from_pointee(Way::default()));
        let notify = notify::recommended_watcher({
            let (wake, way) = (wake.clone(), Arc::clone(&way));
            // On notify's own thread.
            move |event: notify::Result<Event>| {
                if event.map_or(true, |event| concerns(&event, &way.load())) {
                    // Full: it is awake already. Closed: the watch is over.
                    let _ = wake.try_send(());
                }
            }
        });
        let notify = notify
            .inspect_err(|error| {
                tracing::warn!(%error, every = ?POLL, "cannot watch the configuration file's folder, it is polled");
            })
            .ok();
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut watch = Self {
            file: absolute(file),
            apps: absolute(apps),
            seen: (Seen::Missing, SeenFolder::Missing),
            way,
            notify,
            woken,
            _wake: wake,
            poll: POLL,
        };
        watch.arm();
        watch.seen = watch.look();
        watch
    }

    /// What is there now.
    fn look(&self) -> (Seen, SeenFolder) {
        (Seen::look(&self.file), SeenFolder::look(&self.apps, &self.seen.1))
    }

    /// Sends a message whenever the file's content, rights or existence changed. A message that is
    /// not yet taken stands for all later changes too, so a capacity of 1 is enough. Returns when
    /// the receiver is dropped.
    pub async fn run(mut self, changed: mpsc::Sender<()>) {
        enum Wake {
            Over,
            Event,
            Poll,
        }
        loop {
            let wake = tokio::select! {
                () = changed.closed() => Wake::Over,
                _ = self.woken.recv() => Wake::Event,
                () = sleep(self.poll) => Wake::Poll,
            };
            match wake {
                Wake::Over => return,
                Wake::Event => self.settle().await,
                Wake::Poll => {}
            }
            // Links may lead elsewhere now. Armed before the look, so that a later change wakes
            // again.
            self.arm();
            let now = self.look();
            if now != self.seen {
                self.seen = now;
                // Full: the message that waits stands for this change too. Closed: noticed above.
                let _ = changed.try_send(());
            }
        }
    }

    /// Waits for the end of a burst.
    async fn settle(&mut self) {
        let end = Instant::now() + BURST;
        while let Ok(Some(())) = timeout_at(end.min(Instant::now() + QUIET), self.woken.recv()).await {
            if Instant::now() >= end {
                return;
            }
        }
    }

    /// Watches exactly the folders on the way to the files. A folder may be watched already; if it
    /// was replaced, the new one is watched now.
    fn arm(&mut self) {
        let way = Arc::new(Way::to(&self.file, &self.apps));
        let before = self.way.swap(Arc::clone(&way));
        let Some(notify) = &mut self.notify else { return };
        for gone in before.folders.difference(&way.folders) {
            // Fails if the folder is gone, and its watch with it.
            let _ = notify.unwatch(gone);
        }
        for folder in &way.folders {
            if let Err(error) = notify.watch(folder, RecursiveMode::NonRecursive)
                && !before.folders.contains(folder)
            {
                tracing::warn!(folder = %folder.display(), %error, every = ?POLL, "cannot watch, polling instead");
            }
        }
    }
}

/// Where a change of the files can happen.
#[derive(Debug, Default)]
struct Way {
    /// Resolved, so that none is in it twice (inotify knows folders, not names).
    folders: BTreeSet<PathBuf>,
    /// The entries in them that lead to the files.
    names: BTreeSet<OsString>,
    /// The folder of apps, in which every entry counts.
    apps: Option<PathBuf>,
}

impl Way {
    /// The way to `file`, and to all in the folder `apps`.
    fn to(file: &Path, apps: &Path) -> Self {
        let mut way = Self::default();
        way.add(file);
        way.add(apps);
        let Ok(folder) = fs::canonicalize(apps) else { return way };
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten().take(FILES_MAX) {
            // What is no link changes in the folder itself.
            if entry.file_type().is_ok_and(|kind| kind.is_symlink()) && app_of(&entry.path()).is_some() {
                way.add(&entry.path());
            }
        }
        way.folders.insert(folder.clone());
        way.apps = Some(folder);
        way
    }

    /// Adds the way to one file or folder.
    fn add(&mut self, to: &Path) {
        let mut step = to.to_owned();
        for _ in 0..LINKS_MAX {
            // The file, and every folder above it that is a link: Kubernetes swaps such a link
            // (`..data`).
            for entry in step.ancestors().filter(|path| **path == *step || path.is_symlink()) {
                let (Some(folder), Some(name)) = (entry.parent(), entry.file_name()) else { continue };
                self.names.insert(name.to_owned());
                if let Ok(folder) = fs::canonicalize(folder) {
                    // An event about the folder itself carries its own name.
                    self.names.extend(folder.file_name().map(OsStr::to_owned));
                    self.folders.insert(folder);
                }
            }
            let (Some(folder), Ok(target)) = (step.parent(), fs::read_link(&step)) else { break };
            step = folder.join(target);
        }
    }
}

/// Whether an event may be about the files. Opening and reading do not count: the daemon would wake
/// itself.
fn concerns(event: &Event, way: &Way) -> bool {
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
        EventKind::Access(_) => return false,
        _ => {}
    }
    event.need_rescan()
        || event.paths.is_empty()
        || event.paths.iter().any(|path| {
            let is_app = path.parent().is_some_and(|folder| way.apps.as_deref() == Some(folder));
            is_app || path.file_name().is_some_and(|name| way.names.contains(name))
        })
}

/// What was seen of the file: equal if `load` would see the same.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Seen {
    Missing,
    /// There, but it cannot be read.
    Unreadable(io::ErrorKind),
    Content {
        bytes: Vec<u8>,
        /// Mode and owner, by which `load` refuses some files.
        rights: (u32, u32),
    },
}

impl Seen {
    fn look(file: &Path) -> Self {
        let read = || -> io::Result<Self> {
            let meta = fs::metadata(file)?;
            if !meta.is_file() {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let mut bytes = Vec::new();
            // One byte more than `load` accepts: all files beyond that are equally too large.
            File::open(file)?.take(CONFIG_MAX + 1).read_to_end(&mut bytes)?;
            Ok(Self::Content { bytes, rights: (meta.mode(), meta.uid()) })
        };
        read().unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            kind => Self::Unreadable(kind),
        })
    }
}

/// What was seen of the folder of apps: equal if `load` would see the same.
#[derive(Debug, PartialEq, Eq)]
enum SeenFolder {
    Missing,
    /// There, but it cannot be read.
    Unreadable(io::ErrorKind),
    Files {
        /// Mode and owner.
        rights: (u32, u32),
        files: BTreeMap<String, SeenFile>,
    },
}

/// What was seen of the file of an app.
#[derive(Debug)]
struct SeenFile {
    /// As long as this is the same, so is the content.
    stamp: Option<Stamp>,
    /// A hash of its content and rights.
    hash: u64,
}

impl PartialEq for SeenFile {
    /// Whether the content is the same: a file may have been touched.
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl Eq for SeenFile {}

impl SeenFolder {
    /// Looks again; what has not changed since `before` is not read again.
    fn look(folder: &Path, before: &Self) -> Self {
        let look = || -> io::Result<Self> {
            let meta = fs::metadata(folder)?;
            let mut files = BTreeMap::new();
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                let Some(app) = app_of(&path) else { continue };
                let seen = SeenFile::look(&path, before.file(&app));
                files.insert(app, seen);
                if files.len() > FILES_MAX {
                    return Err(io::ErrorKind::QuotaExceeded.into());
                }
            }
            Ok(Self::Files { rights: (meta.mode(), meta.uid()), files })
        };
        look().unwrap_or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            kind => Self::Unreadable(kind),
        })
    }

    fn file(&self, app: &str) -> Option<&SeenFile> {
        match self {
            Self::Files { files, .. } => files.get(app),
            Self::Missing | Self::Unreadable(_) => None,
        }
    }
}

impl SeenFile {
    fn look(path: &Path, before: Option<&Self>) -> Self {
        let now = SystemTime::now();
        let stamp = fs::metadata(path).ok().and_then(|meta| Stamp::of(&meta, now));
        let same = before.filter(|before| stamp.is_some() && before.stamp == stamp);
        let hash = same.map_or_else(
            || {
                let mut hasher = DefaultHasher::new();
                Seen::look(path).hash(&mut hasher);
                hasher.finish()
            },
            |before| before.hash,
        );
        Self { stamp, hash }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use notify::event::{DataChange, ModifyKind};
    use tokio::task::JoinHandle;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);
    const NEVER: Duration = Duration::from_secs(3600);

    struct Fixture {
        dir: tempfile::TempDir,
        messages: mpsc::Receiver<()>,
        task: JoinHandle<()>,
    }

    impl Fixture {
        /// Watches `file` in a new folder that `prepare` has filled, without the poll's help.
        fn new(file: &str, prepare: impl FnOnce(&Path)) -> Self {
            Self::with(file, prepare, |watch| watch.poll = NEVER)
        }

        fn with(file: &str, prepare: impl FnOnce(&Path), change: impl FnOnce(&mut Watch)) -> Self {
            let dir = tempfile::tempdir().unwrap();
            prepare(dir.path());
            let mut watch = Watch::new(&dir.path().join(file), &dir.path().join("api.d"));
            change(&mut watch);
            let (changed, messages) = mpsc::channel(1);
            let task = tokio::spawn(watch.run(changed));
            Self { dir, messages, task }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        async fn told(&mut self, what: &str) {
            match tokio::time::timeout(LONG, self.messages.recv()).await {
                Ok(Some(())) => {}
                Ok(None) => panic!("the watch ended instead of telling: {what}"),
                Err(_) => panic!("not told within {LONG:?}: {what}"),
            }
        }

        /// Ends the watch and shows that it had nothing more to tell.
        async fn nothing_more(mut self) {
            assert!(self.messages.try_recv().is_err(), "told more often than something changed");
            drop(self.messages);
            tokio::time::timeout(LONG, self.task).await.expect("ends with its receiver").unwrap();
        }
    }

    /// Writes in one step, so that no half is ever seen: in place if a file of that length is
    /// there, else by renaming.
    fn write(path: &Path, text: &str) {
        if fs::metadata(path).is_ok_and(|meta| meta.len() == text.len() as u64) {
            let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
            assert_eq!(file.write(text.as_bytes()).unwrap(), text.len());
        } else {
            let new = path.with_extension("new");
            fs::write(&new, text).unwrap();
            fs::rename(new, path).unwrap();
        }
    }

    #[tokio::test]
    async fn a_file_written_in_place_is_told() {
        let mut watch = Fixture::new("api.toml", |dir| write(&dir.join("api.toml"), "a = 1"));
        write(&watch.path("api.toml"), "a = 2");
        watch.told("written in place").await;
        let mut file = fs::OpenOptions::new().append(true).open(watch.path("api.toml")).unwrap();
        file.write_all(b"\nb = 3").unwrap();
        drop(file);
        watch.told("appended to").await;
        watch.nothing_more().await;
    }

    #[tokio::test]
    async fn a_file_replaced_by_rename_is_told() {
        let mut watch = Fixture::new("api.toml", |dir| write(&dir.join("api.toml"), "a = 1"));
        for text in ["a = 2", "a = 3", "a = 4"] {
            write(&watch.path(".api.toml.swp"), text);
            fs::rename(watch.path(".api.toml.swp"), watch.path("api.toml")).unwrap();
            watch.told("renamed over").await;
        }
        watch.nothing_more().await;
    }

    #[tokio::test]
    async fn a_burst_is_told_once() {
        let mut watch = Fixture::new("api.toml", |dir| write(&dir.join("api.toml"), "a = 1"));
        // Nothing is awaited here, so all of it has happened before the watch looks.
        for n in 10..60 {
            write(&watch.path("api.toml"), &format!("a = {n}"));
        }
        watch.told("written fifty times").await;
        watch.nothing_more().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_without_a_pause_does_not_put_the_look_off_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let mut watch = Watch::new(&dir.path().join("api.toml"), &dir.path().join("api.d"));
        watch.notify = None;
        let wake = watch._wake.clone();
        let begin = Instant::now();
        let noise = async {
            loop {
                let _ = wake.try_send(());
                sleep(QUIET / 2).await;
            }
        };
        tokio::select! {
            () = watch.settle() => {}
            () = noise => {}
        }
        // Virtual time: the noise never pauses for as long as QUIET.
        assert!((BURST..BURST + QUIET).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    }

    #[tokio::test]
    async fn truncated_deleted_and_made_again_is_told_each_time() {
        let mut watch = Fixture::new("api.toml", |dir| write(&dir.join("api.toml"), "a = 1"));
        fs::OpenOptions::new().write(true).truncate(true).open(watch.path("api.toml")).unwrap();
        watch.told("truncated").await;
        fs::remove_file(watch.path("api.toml")).unwrap();
        watch.told("deleted").await;
        write(&watch.path("api.toml"), "a = 1");
        watch.told("made again").await;
        watch.nothing_more().await;
    }

    #[tokio::test]
    async fn other_rights_are_told() {
        let mut watch = Fixture::new("api.toml", |dir| write(&dir.join("api.toml"), "a = 1"));
        fs::set_permissions(watch.path("api.toml"), fs::Permissions::from_mode(0o666)).unwrap();
        watch.told("chmod").await;
        watch.nothing_more().await;
    }

    #[tokio::test]
    async fn a_link_that_moves_to_another_file_is_told_and_so_are_changes_of_that_file() {
        let mut watch = Fixture::new("here/api.toml", |dir| {
            for folder in ["here", "one", "two"] {
                fs::create_dir(dir.join(folder)).unwrap();
            }
            write(&dir.join("one/a.toml"), "a = 1");
            write(&dir.join("two/b.toml"), "b = 1");
            symlink("../one/a.toml", dir.join("here/api.toml")).unwrap();
        });
        write(&watch.path("one/a.toml"), "a = 2");
        watch.told("the target was written").await;
        symlink("../two/b.toml", watch.path("here/new")).unwrap();
        fs::rename(watch.path("here/new"), watch.path("here/api.toml")).unwrap();
        watch.told("the link moved").await;
        write(&watch.path("two/b.toml"), "b = 2");
        watch.told("the new target was written").await;
        watch.nothing_more().await;
    }

    #[tokio::test]
    async fn a_swapped_folder_is_told_as_kubernetes_does_it() {
        let mut watch = Fixture::new("api.toml", |dir| {
            fs::create_dir(dir.join("..v1")).unwrap();
            write(&dir.join("..v1/api.toml"), "a = 1");
            symlink("..v1", dir.join("..data")).unwrap();
            symlink("..data/api.toml", dir.join("api.toml")).unwrap();
        });
        for version in ["2", "3"] {
            let folder = watch.path(&format!("..v{version}"));
            fs::create_dir(&folder).unwrap();
            write(&folder.join("api.toml"), &format!("a = {version}"));
            symlink(&folder, watch.path("..data_tmp")).unwrap();
            fs::rename(watch.path("..data_tmp"), watch.path("..data")).unwrap();
            watch.told("..data was swapped").await;
        }
        watch.nothing_more().await;
    }

    #[tokio::test]
    async fn reading_the_file_and_writing_the_same_again_tell_nothing() {
        let mut watch = Fixture::new("api.toml", |dir| write(&dir.join("api.toml"), "a = 1"));
        for _ in 0..50 {
            assert_eq!(fs::read_to_string(watch.path("api.toml")).unwrap(), "a = 1");
        }
        write(&watch.path("other.toml"), "b = 1");
        // A later change is told once, after everything before it was seen.
        write(&watch.path("api.toml"), "a = 2");
        watch.told("the one change").await;
        fs::read_to_string(watch.path("api.toml")).unwrap();
        watch.nothing_more().await;
    }

    #[test]
    fn opening_and_reading_wake_nobody() {
        let apps = Some(PathBuf::from("/etc/portok/api.d"));
        let names = Way { names: BTreeSet::from([OsString::from("api.toml")]), apps, ..Way::default() };
        let event = |kind| Event::new(kind).add_path(PathBuf::from("/etc/portok/api.toml"));
        for quiet in [
            AccessKind::Open(AccessMode::Any),
            AccessKind::Open(AccessMode::Read),
            AccessKind::Read,
            AccessKind::Close(AccessMode::Read),
        ] {
            assert!(!concerns(&event(EventKind::Access(quiet)), &names), "{quiet:?}");
        }
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let modified = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        assert!(concerns(&event(written), &names) && concerns(&event(modified), &names));
        let other = Event::new(modified).add_path(PathBuf::from("/etc/portok/web.toml"));
        assert!(!concerns(&other, &names));
        let app = Event::new(modified).add_path(PathBuf::from("/etc/portok/api.d/shop.toml"));
        assert!(concerns(&app, &names));
        let overflow = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        assert!(concerns(&overflow, &names));
    }

    #[tokio::test]
    async fn without_inotify_the_poll_finds_the_change() {
        let prepare = |dir: &Path| write(&dir.join("api.toml"), "a = 1");
        let mut watch = Fixture::with("api.toml", prepare, |watch| {
            watch.notify = None;
            watch.poll = Duration::from_millis(5);
        });
        write(&watch.path("api.toml"), "a = 2");
        watch.told("found by the poll").await;
        watch.nothing_more().await;
    }

    #[tokio::test]
    async fn a_folder_that_is_made_later_is_watched_from_then_on() {
        let mut watch =
            Fixture::with("later/api.toml", |_| {}, |watch| watch.poll = Duration::from_millis(5));
        fs::create_dir(watch.path("later")).unwrap();
        write(&watch.path("later/api.toml"), "a = 1");
        watch.told("made with its folder").await;
        fs::remove_dir_all(watch.path("later")).unwrap();
        watch.told("deleted with its folder").await;
        fs::create_dir(watch.path("later")).unwrap();
        write(&watch.path("later/api.toml"), "a = 1");
        watch.told("made again with its folder").await;
    }

    #[tokio::test]
    async fn files_of_apps_are_told_and_so_is_their_folder_whenever_it_appears() {
        let mut watch = Fixture::new("api.toml", |dir| write(&dir.join("api.toml"), "a = 1"));
        fs::create_dir(watch.path("api.d")).unwrap();
        watch.told("the folder was made").await;
        write(&watch.path("api.d/shop.toml"), "a = 1");
        watch.told("an app was added").await;
        write(&watch.path("api.d/shop.toml"), "a = 2");
        watch.told("an app was written in place").await;
        fs::remove_file(watch.path("api.d/shop.toml")).unwrap();
        watch.told("an app was removed").await;
        fs::set_permissions(watch.path("api.d"), fs::Permissions::from_mode(0o777)).unwrap();
        watch.told("the folder's rights").await;
        fs::rename(watch.path("api.d"), watch.path("other")).unwrap();
        watch.told("the folder is gone").await;
        fs::create_dir(watch.path("api.d")).unwrap();
        write(&watch.path("api.d/web.toml"), "a = 1");
        watch.told("the folder is there again").await;
        write(&watch.path("api.d/web.toml"), "a = 2");
        watch.told("and it is watched again").await;
        watch.nothing_more().await;
    }

    #[tokio::test]
    async fn many_apps_at_once_are_told_once_and_what_is_no_app_is_not_told() {
        let mut watch = Fixture::new("api.toml", |dir| fs::create_dir(dir.join("api.d")).unwrap());
        for name in ["shop.toml~", ".#shop.toml", ".shop.toml.swp", "README"] {
            fs::write(watch.path("api.d").join(name), "x").unwrap();
        }
        for app in 0..50 {
            fs::write(watch.path(&format!("api.d/{app}.toml")), "a = 1").unwrap();
        }
        watch.told("fifty apps").await;
        fs::write(watch.path("api.d/7.toml~"), "x").unwrap();
        fs::write(watch.path("api.d/7.toml"), "a = 1").unwrap();
        watch.nothing_more().await;
    }

    #[tokio::test]
    async fn the_target_of_an_apps_file_that_is_a_link_is_watched() {
        let mut watch = Fixture::new("api.toml", |dir| {
            for folder in ["api.d", "there"] {
                fs::create_dir(dir.join(folder)).unwrap();
            }
            write(&dir.join("there/x.toml"), "a = 1");
            symlink("../there/x.toml", dir.join("api.d/shop.toml")).unwrap();
        });
        write(&watch.path("there/x.toml"), "a = 2");
        watch.told("the target was written").await;
        watch.nothing_more().await;
    }
}
