//! Whether a directory changed since a release ran from it: one bounded look at the disk, without
//! state.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How many entries are looked at. Changes beyond are not seen.
const ENTRIES: usize = 20_000;

/// What changed in `directory` after `since`, as a sentence; `None` where no change was seen.
/// Blocking.
pub(super) fn changed_since(directory: &Path, since: SystemTime) -> Option<String> {
    let newer = |path: &Path| {
        let changed = fs::symlink_metadata(path).and_then(|about| about.modified());
        changed.is_ok_and(|changed| changed > since)
    };
    if let Err(error) = fs::read_dir(directory) {
        return Some(format!("{} cannot be read: {error}", directory.display()));
    }
    let mut folders = vec![directory.to_owned()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        // A folder that cannot be read, or has gone meanwhile, is skipped.
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            seen += 1;
            let path: PathBuf = entry.path();
            if newer(&path) {
                return Some(format!("{} changed since it was started last", path.display()));
            }
            if seen < ENTRIES && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            }
        }
    }
    // Only the folder tells that a file was removed.
    newer(directory).then(|| format!("{} changed since it was started last", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_newer_file_at_any_depth_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("inner/app.js"), "").unwrap();
        let (hour, now) = (Duration::from_secs(3600), SystemTime::now());
        assert_eq!(changed_since(folder.path(), now + hour), None);
        let changed = changed_since(folder.path(), now - hour).unwrap();
        assert!(changed.contains("inner"), "{changed}");
        let gone = changed_since(&folder.path().join("gone"), now).unwrap();
        assert!(gone.contains("cannot be read"), "{gone}");
    }
}
