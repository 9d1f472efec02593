//! Where a change of the watched files can happen: the folders on the way to them, the links in
//! between, and the names that count there.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind};

/// As many symbolic links as the kernel follows (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Where a change of the files can happen.
#[derive(Debug, Default)]
pub(crate) struct Way {
    /// Resolved, so that none is in it twice (inotify knows folders, not names).
    folders: BTreeSet<PathBuf>,
    /// The entries in them that lead to the files.
    names: BTreeSet<OsString>,
    /// Folders in which every entry counts.
    whole: BTreeSet<PathBuf>,
}

impl Way {
    /// Adds the way to all in a folder that `counts`, of the first `most` entries.
    pub(crate) fn add_folder(&mut self, folder: &Path, most: usize, counts: impl Fn(&Path) -> bool) {
        self.add(folder);
        let Ok(folder) = fs::canonicalize(folder) else { return };
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten().take(most) {
            // What is no link changes in the folder itself.
            if entry.file_type().is_ok_and(|kind| kind.is_symlink()) && counts(&entry.path()) {
                self.add(&entry.path());
            }
        }
        self.folders.insert(folder.clone());
        self.whole.insert(folder);
    }

    /// Adds the way to one file or folder.
    pub(crate) fn add(&mut self, to: &Path) {
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

    /// The folders to watch.
    pub(super) fn folders(&self) -> &BTreeSet<PathBuf> {
        &self.folders
    }

    /// Whether an event may be about the files. Opening and reading do not count: the daemon would
    /// wake itself.
    pub(super) fn concerns(&self, event: &Event) -> bool {
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
            EventKind::Access(_) => return false,
            _ => {}
        }
        event.need_rescan()
            || event.paths.is_empty()
            || event.paths.iter().any(|path| {
                let is_in_one = path.parent().is_some_and(|folder| self.whole.contains(folder));
                is_in_one || path.file_name().is_some_and(|name| self.names.contains(name))
            })
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{DataChange, ModifyKind};

    use super::*;

    #[test]
    fn opening_and_reading_wake_nobody() {
        let whole = BTreeSet::from([PathBuf::from("/etc/portok/api.d")]);
        let names = Way { names: BTreeSet::from([OsString::from("api.toml")]), whole, ..Way::default() };
        let event = |kind| Event::new(kind).add_path(PathBuf::from("/etc/portok/api.toml"));
        for quiet in [
            AccessKind::Open(AccessMode::Any),
            AccessKind::Open(AccessMode::Read),
            AccessKind::Read,
            AccessKind::Close(AccessMode::Read),
        ] {
            assert!(!names.concerns(&event(EventKind::Access(quiet))), "{quiet:?}");
        }
        let written = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let modified = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        assert!(names.concerns(&event(written)) && names.concerns(&event(modified)));
        let other = Event::new(modified).add_path(PathBuf::from("/etc/portok/web.toml"));
        assert!(!names.concerns(&other));
        let app = Event::new(modified).add_path(PathBuf::from("/etc/portok/api.d/shop.toml"));
        assert!(names.concerns(&app));
        let overflow = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        assert!(names.concerns(&overflow));
    }
}
