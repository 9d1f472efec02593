//! Tells when the configuration file, a file of the folder of apps, or a file that one of them
//! names may have changed.
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

mod bell;
mod seen;
mod way;

use std::path::{Path, PathBuf};

use tokio::sync::{mpsc, watch};

pub(crate) use bell::Bell;
use seen::Seen;
pub(crate) use way::Way;

use super::env::Env;
use super::folder::{FILES_MAX, app_of};
use super::further::{FurtherFiles, Noted};
use super::load::file_of;
use super::{Sources, paths};

/// Watches one file, the folder of apps beside it, and what they name.
#[derive(Debug)]
pub struct Watch {
    file: PathBuf,
    apps: PathBuf,
    /// The further files that the last load has read.
    further: watch::Receiver<Noted>,
    seen: Seen,
    bell: Bell,
}

impl Watch {
    /// Begins to watch what a configuration comes from, which need not exist. Its present content
    /// counts as known. `None`: it never comes from a file.
    pub fn of(sources: &Sources) -> Option<Self> {
        let file = file_of(sources).filter(|_| !sources.overrides.foreground)?;
        let apps = paths::apps_folder(&file, Env(&sources.env));
        Some(Self::new(&file, &apps, &sources.further))
    }

    fn new(file: &Path, apps: &Path, further: &FurtherFiles) -> Self {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut watch = Self {
            file: absolute(file),
            apps: absolute(apps),
            further: further.follow(),
            seen: Seen::default(),
            bell: Bell::new("the configuration file's folder"),
        };
        watch.arm();
        watch.seen = watch.look();
        watch
    }

    /// What is there now.
    fn look(&self) -> Seen {
        self.seen.look_again(&self.file, &self.apps)
    }

    /// Sends a message whenever the file's content, rights or existence changed. A message that is
    /// not yet taken stands for all later changes too, so a capacity of 1 is enough. Returns when
    /// the receiver is dropped.
    pub async fn run(mut self, changed: mpsc::Sender<()>) {
        loop {
            tokio::select! {
                () = changed.closed() => return,
                () = self.bell.rung() => {}
                Ok(()) = self.further.changed() => {}
            }
            // What a load has read is known as it was before.
            self.seen.note(&self.further.borrow_and_update());
            // Armed before the look, so that a later change wakes again.
            self.arm();
            let now = self.look();
            if now != self.seen {
                self.seen = now;
                // Full: the message that waits stands for this change too. Closed: noticed above.
                let _ = changed.try_send(());
            }
        }
    }

    /// Watches the way to the file, to all in the folder of apps, and to the further files.
    fn arm(&mut self) {
        let mut way = Way::default();
        way.add(&self.file);
        way.add_folder(&self.apps, FILES_MAX, |entry| app_of(entry).is_some());
        self.further.borrow().keys().for_each(|file| way.add(file));
        self.bell.arm(way);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use std::time::Duration;

    use tokio::task::JoinHandle;
    use tokio::time::{Instant, sleep};

    use super::super::further;
    use super::bell::{BURST, QUIET};
    use super::*;

    const LONG: Duration = Duration::from_secs(30);
    const NEVER: Duration = Duration::from_secs(3600);

    struct Fixture {
        dir: tempfile::TempDir,
        further: FurtherFiles,
        messages: mpsc::Receiver<()>,
        task: JoinHandle<()>,
    }

    impl Fixture {
        /// Watches `file` in a new folder that `prepare` has filled, without the poll's help.
        fn new(file: &str, prepare: impl FnOnce(&Path)) -> Self {
            Self::with(file, prepare, |watch| watch.bell.poll = NEVER)
        }

        fn with(file: &str, prepare: impl FnOnce(&Path), change: impl FnOnce(&mut Watch)) -> Self {
            let dir = tempfile::tempdir().unwrap();
            prepare(dir.path());
            let further = FurtherFiles::default();
            let mut watch = Watch::new(&dir.path().join(file), &dir.path().join("api.d"), &further);
            change(&mut watch);
            let (changed, messages) = mpsc::channel(1);
            let task = tokio::spawn(watch.run(changed));
            Self { dir, further, messages, task }
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
        let mut watch =
            Watch::new(&dir.path().join("api.toml"), &dir.path().join("api.d"), &FurtherFiles::default());
        watch.bell.notify = None;
        let wake = watch.bell._wake.clone();
        wake.try_send(()).unwrap();
        let begin = Instant::now();
        let noise = async {
            loop {
                let _ = wake.try_send(());
                sleep(QUIET / 2).await;
            }
        };
        tokio::select! {
            () = watch.bell.rung() => {}
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

    #[tokio::test]
    async fn without_inotify_the_poll_finds_the_change() {
        let prepare = |dir: &Path| write(&dir.join("api.toml"), "a = 1");
        let mut watch = Fixture::with("api.toml", prepare, |watch| {
            watch.bell.notify = None;
            watch.bell.poll = Duration::from_millis(5);
        });
        write(&watch.path("api.toml"), "a = 2");
        watch.told("found by the poll").await;
        watch.nothing_more().await;
    }

    #[tokio::test]
    async fn a_folder_that_is_made_later_is_watched_from_then_on() {
        let mut watch =
            Fixture::with("later/api.toml", |_| {}, |watch| watch.bell.poll = Duration::from_millis(5));
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
    async fn a_file_that_a_load_has_read_is_watched_from_then_on() {
        let mut watch = Fixture::new("api.toml", |dir| {
            fs::create_dir(dir.join("keys")).unwrap();
            write(&dir.join("keys/one"), "a");
        });
        let note = |watch: &Fixture, names: &[&str]| {
            let look = |name: &&str| (watch.path(name), further::look(&watch.path(name)));
            names.iter().map(look).collect::<Noted>()
        };
        let noted = note(&watch, &["keys/one", "keys/two"]);
        // A change between the load and its word is none that is missed.
        write(&watch.path("keys/one"), "b");
        watch.further.publish(noted);
        watch.told("written since the load").await;
        write(&watch.path("keys/two"), "a");
        watch.told("a missing one is there").await;
        let noted = note(&watch, &["keys/two"]);
        watch.further.publish(noted);
        write(&watch.path("keys/two"), "b");
        watch.told("and written again").await;
        write(&watch.path("keys/one"), "c");
        write(&watch.path("api.toml"), "a = 1");
        watch.told("the file itself, and not what it names no more").await;
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
