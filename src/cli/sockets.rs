//! The default places of admin sockets on this machine: those of one instance, and all that exist.
//!
//! Only folders that their owner alone may write count. A socket planted by another user would
//! receive the environment of a deploy.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::config::default_socket;

/// The folder of root's daemons.
const ROOTS: &str = "/run/portok";

/// The places of the socket of `name` that the user `uid` can trust, the user's own first.
pub(crate) fn places(name: &str, uid: u32, runtime: Option<&Path>) -> Vec<PathBuf> {
    let mut places = Vec::new();
    // `portok run` puts its socket into the user's runtime folder or the temporary one, for root
    // too.
    let temporary = temporary(uid).join(name).join("admin.sock");
    let own =
        runtime.filter(|dir| dir.is_absolute()).map(|dir| dir.join("portok").join(name).join("admin.sock"));
    let candidates = [Some(default_socket(name, uid, runtime)), own, Some(default_socket(name, 0, None))];
    for place in candidates.into_iter().flatten().chain([temporary.clone()]) {
        if places.contains(&place) || (place == temporary && !is_private(&temporary, uid)) {
            continue;
        }
        places.push(place);
    }
    places
}

/// The admin sockets that exist: those of the user `uid` and of root; for root, every user's.
pub(crate) fn all(uid: u32, runtime: Option<&Path>) -> Vec<PathBuf> {
    let mut folders = vec![(PathBuf::from(ROOTS), 0), (temporary(uid), uid)];
    folders.extend(runtime.filter(|dir| dir.is_absolute()).map(|dir| (dir.join("portok"), uid)));
    if uid == 0 {
        let user_of = |path: &Path, prefix: &str| -> Option<u32> {
            path.file_name()?.to_str()?.strip_prefix(prefix)?.parse().ok()
        };
        let by_user = |path: PathBuf| Some((path.join("portok"), user_of(&path, "")?));
        folders.extend(entries(Path::new("/run/user")).into_iter().filter_map(by_user));
        let by_name = |path: PathBuf| user_of(&path, "portok-").map(|user| (path, user));
        folders.extend(entries(Path::new("/tmp")).into_iter().filter_map(by_name));
    }
    let mut sockets: Vec<_> = folders
        .iter()
        .filter(|(folder, owner)| belongs_to(folder, *owner))
        .flat_map(|(folder, _)| within(folder))
        .collect();
    sockets.sort();
    sockets.dedup();
    sockets
}

/// The sockets of the instances in `folder`.
fn within(folder: &Path) -> Vec<PathBuf> {
    let is_socket =
        |path: &PathBuf| std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    entries(folder).into_iter().map(|entry| entry.join("admin.sock")).filter(is_socket).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn temporary(uid: u32) -> PathBuf {
    PathBuf::from(format!("/tmp/portok-{uid}"))
}

/// Whether only `uid` may write the folder of `socket`. The temporary folder above it is writable
/// for everybody.
fn is_private(socket: &Path, uid: u32) -> bool {
    socket.parent().and_then(Path::parent).is_some_and(|folder| belongs_to(folder, uid))
}

fn belongs_to(folder: &Path, uid: u32) -> bool {
    std::fs::symlink_metadata(folder)
        .is_ok_and(|meta| meta.is_dir() && meta.uid() == uid && meta.mode() & 0o022 == 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_users_own_place_comes_first_and_a_strangers_never() {
        let runtime = Path::new("/run/user/7");
        let places_of = places("api", 7, Some(runtime));
        assert_eq!(places_of[0], runtime.join("portok/api/admin.sock"));
        assert_eq!(places_of[1], Path::new("/run/portok/api/admin.sock"));
        let root = places("api", 0, Some(runtime));
        assert_eq!(root[0], Path::new("/run/portok/api/admin.sock"));
        assert_eq!(root[1], runtime.join("portok/api/admin.sock"), "where `run` puts it");
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("own/api/admin.sock");
        let own = std::fs::metadata(folder.path()).unwrap().uid();
        assert!(!is_private(&socket, own));
        std::fs::create_dir(folder.path().join("own")).unwrap();
        let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(folder.path().join("own"), mode(0o700)).unwrap();
        assert!(is_private(&socket, own));
        assert!(!is_private(&socket, own + 1));
        std::fs::set_permissions(folder.path().join("own"), mode(0o770)).unwrap();
        assert!(!is_private(&socket, own));
    }

    #[test]
    fn the_sockets_that_are_there_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("portok");
        for name in ["one", "two", "none"] {
            std::fs::create_dir_all(own.join(name)).unwrap();
        }
        let sockets = ["one", "two"].map(|name| own.join(name).join("admin.sock"));
        let _listeners = sockets.each_ref().map(|socket| UnixListener::bind(socket).unwrap());
        std::fs::write(own.join("none/admin.sock"), "").unwrap();
        std::fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let uid = nix::unistd::geteuid().as_raw();
        let found = all(uid, Some(folder.path()));
        let found: Vec<_> = found.into_iter().filter(|path| path.starts_with(folder.path())).collect();
        assert_eq!(found, sockets);
    }
}
