//! Makes the admin socket so that only the right users can reach it.
//!
//! Blocking; called at the start and at a reload, with a handful of calls on one folder. A socket
//! file that is already there is removed only if the kernel refuses a connection to it: then nobody
//! listens there any more. (The state file's lock, not this, keeps apart two daemons that start at
//! once.)

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use nix::unistd::{Gid, Group};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

/// The longest path of a unix socket in bytes: `sun_path` holds 108 with the final NUL (unix(7)).
const MAX_PATH: usize = 107;

/// Binds the admin socket at `path`; members of `group`, if given, may use it. Has to be called
/// within a tokio runtime.
///
/// The socket gets the mode 0600, or 0660 with the group. A missing folder is made with its parents
/// and gets 0700, or 0750 with the group; so does a private folder that holds nothing but the
/// daemon's pipes. Any other folder is left as it is, but it has to be safe: root's or the daemon's
/// own, not writable for others, and open to the group.
///
/// # Errors
/// A complete sentence: the path is too long, the folder is not safe, something else is there,
/// another process listens there, or the kernel's own reason.
pub fn bind_socket(path: &Path, group: Option<u32>) -> Result<UnixListener, String> {
    let shown = path.display();
    let length = path.as_os_str().as_bytes().len();
    if length > MAX_PATH {
        return Err(format!(
            "the admin socket's path is {length} bytes long, a unix socket's may have {MAX_PATH}: {shown}"
        ));
    }
    let folder = path
        .parent()
        .filter(|folder| folder.is_absolute())
        .ok_or_else(|| format!("the admin socket's path has to be absolute: {shown}"))?;
    prepare(folder, path, group)?;
    clear(path)?;
    bind_at(path, path, group)
}

/// As [`bind_socket`], in the place of a socket that is being served. No client is refused
/// meanwhile: each reaches the old socket or the new one.
///
/// # Errors
/// As [`bind_socket`].
pub fn replace_socket(path: &Path, group: Option<u32>) -> Result<UnixListener, String> {
    let Some(folder) = path.parent().filter(|_| path.exists()) else { return bind_socket(path, group) };
    // A short name, because the length of a socket's path is limited.
    let new = folder.join(".n");
    // Left behind by a daemon that was killed here.
    let _mostly_not_there = fs::remove_file(&new);
    prepare(folder, path, group)?;
    let listener = bind_at(&new, path, group)?;
    fs::rename(&new, path).map_err(|cause| {
        let _may_not_exist = fs::remove_file(&new);
        format!("cannot put the admin socket {} in its place: {cause}", path.display())
    })?;
    Ok(listener)
}

/// Binds at `path`. Errors name `shown`, where the socket is going to be.
fn bind_at(path: &Path, shown: &Path, group: Option<u32>) -> Result<UnixListener, String> {
    let shown = shown.display();
    let failed = |what: &str, cause: io::Error| format!("cannot {what} the admin socket {shown}: {cause}");
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(|cause| failed("bind", cause))?;
    let open = || {
        open_to(path, group)?;
        listener.set_nonblocking(true).map_err(|cause| failed("prepare", cause))
    };
    open().and_then(|()| UnixListener::from_std(listener).map_err(|cause| failed("poll", cause))).inspect_err(
        |_| {
            // It was just made, and nobody serves it.
            let _ = fs::remove_file(path);
        },
    )
}

/// Opens a socket that is being served to another group, or to none.
///
/// # Errors
/// As [`bind_socket`]: the folder is not safe, or the kernel's own reason.
pub fn share_socket(path: &Path, group: Option<u32>) -> Result<(), String> {
    if let Some(folder) = path.parent() {
        prepare(folder, path, group)?;
    }
    open_to(path, group)
}

fn open_to(path: &Path, group: Option<u32>) -> Result<(), String> {
    let failed =
        |what: &str, cause: io::Error| format!("cannot {what} the admin socket {}: {cause}", path.display());
    if group.is_some() {
        std::os::unix::fs::lchown(path, None, group).map_err(|cause| failed("give to its group", cause))?;
    }
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|cause| failed("set the mode of", cause))
}

/// The id of the group `name`. A number that is no group's name is taken as the id itself. Blocks
/// on the group database.
///
/// # Errors
/// There is no such group, or the database does not answer.
pub fn group_id(name: &str) -> Result<u32, String> {
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => name.parse().map_err(|_| format!("there is no group {name:?}")),
        Err(cause) => Err(format!("cannot look up the group {name:?}: {cause}")),
    }
}

/// Makes the folder, or checks that it is safe, and opens it to the group.
fn prepare(folder: &Path, socket: &Path, group: Option<u32>) -> Result<(), String> {
    let shown = folder.display();
    let failed =
        |what: &str, cause: io::Error| format!("cannot {what} the admin socket's folder {shown}: {cause}");
    let (private, mode) = match fs::metadata(folder) {
        Ok(meta) if !meta.is_dir() => {
            return Err(format!("the admin socket's folder {shown} is not a folder"));
        }
        Ok(meta) => {
            let own = meta.uid() == nix::unistd::geteuid().as_raw();
            let private = own && meta.mode() & 0o1007 == 0 && is_ours_alone(folder, socket);
            (private, meta.mode())
        }
        Err(cause) if cause.kind() == ErrorKind::NotFound => {
            crate::folder::make(folder, 0o700).map_err(|cause| failed("make", cause))?;
            (true, 0o700)
        }
        Err(cause) => return Err(failed("look at", cause)),
    };
    check_owners(folder)?;
    let Some(gid) = group else {
        if private && mode & 0o7777 != 0o700 {
            return fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
                .map_err(|cause| failed("close", cause));
        }
        return Ok(());
    };
    if private {
        std::os::unix::fs::chown(folder, None, Some(gid)).map_err(|cause| failed("give the group", cause))?;
        return fs::set_permissions(folder, fs::Permissions::from_mode(0o750))
            .map_err(|cause| failed("open to the group", cause));
    }
    let reachable = mode & 0o001 != 0
        || fs::metadata(folder).is_ok_and(|meta| meta.gid() == gid && meta.mode() & 0o010 != 0);
    if reachable {
        Ok(())
    } else {
        let gid = Gid::from_raw(gid);
        let name = Group::from_gid(gid).ok().flatten().map_or_else(|| gid.to_string(), |group| group.name);
        Err(format!(
            "members of {name} cannot reach the admin socket: its folder {shown} is closed to them, \
             and it holds other files, so portok leaves it as it is"
        ))
    }
}

/// Whether `folder` holds nothing but the socket and the daemon's pipes. The pipes stay closed to
/// others when the folder is opened to a group.
fn is_ours_alone(folder: &Path, socket: &Path) -> bool {
    let is_closed_pipe = |entry: &fs::DirEntry| {
        entry.metadata().is_ok_and(|meta| meta.file_type().is_fifo() && meta.mode() & 0o077 == 0)
    };
    fs::read_dir(folder).is_ok_and(|mut entries| {
        entries.all(|entry| {
            entry.is_ok_and(|entry| {
                Some(entry.file_name().as_os_str()) == socket.file_name() || is_closed_pipe(&entry)
            })
        })
    })
}

/// Checks that only root and the daemon's own user can put another socket in this one's place.
///
/// A folder above may be writable for everybody if it is sticky (`/tmp`). Then the folders below it
/// have to be root's or the daemon's own, because anybody could have made them.
fn check_owners(folder: &Path) -> Result<(), String> {
    let own = nix::unistd::geteuid().as_raw();
    let look = |path: &Path| {
        fs::symlink_metadata(path).map_err(|cause| {
            format!("cannot look at {}, where the admin socket lies: {cause}", path.display())
        })
    };
    let trusted = |uid: u32| uid == own || uid == 0;

    // The mode of the folder itself counts, not that of a link to it.
    let meta = fs::metadata(folder)
        .map_err(|cause| format!("cannot look at the admin socket's folder {}: {cause}", folder.display()))?;
    if !trusted(meta.uid()) {
        return Err(format!(
            "the admin socket's folder {} belongs to user {}, not to root or to the daemon's own user {own}",
            folder.display(),
            meta.uid()
        ));
    }
    if meta.mode() & 0o022 != 0 {
        return Err(format!(
            "others may write to the admin socket's folder {} (mode {:o}): use a folder of its own, or chmod go-w",
            folder.display(),
            meta.mode() & 0o7777
        ));
    }

    let mut foreign = None;
    for path in folder.ancestors() {
        let meta = look(path)?;
        let open = !meta.is_symlink() && meta.mode() & 0o002 != 0;
        if open && meta.mode() & 0o1000 == 0 {
            return Err(format!(
                "everybody may write to {}, above the admin socket's folder {}",
                path.display(),
                folder.display()
            ));
        }
        if open && let Some((foreign, uid)) = foreign {
            return Err(format!(
                "{foreign} belongs to user {uid} and lies where everybody may write: \
                 it is no place for the admin socket's folder {}",
                folder.display()
            ));
        }
        if !trusted(meta.uid()) {
            foreign = Some((path.display(), meta.uid()));
        }
    }
    Ok(())
}

/// Removes the file at `path` if nobody listens there.
fn clear(path: &Path) -> Result<(), String> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => {}
        Ok(_) => {
            return Err(format!(
                "{shown} exists and is not a socket: the admin socket cannot take its place"
            ));
        }
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(format!("cannot look at {shown}: {cause}")),
    }
    match listens(path) {
        Ok(true) => Err(format!(
            "another process listens on the admin socket {shown}: stop it, or give this instance another \
             admin.socket (or name)"
        )),
        Ok(false) => fs::remove_file(path)
            .or_else(|cause| if cause.kind() == ErrorKind::NotFound { Ok(()) } else { Err(cause) })
            .map_err(|cause| format!("cannot remove the stale admin socket {shown}: {cause}")),
        Err(cause) => {
            Err(format!("cannot tell whether another process listens on the admin socket {shown}: {cause}"))
        }
    }
}

/// Whether somebody listens at `path`. Does not wait: a full queue is a listener's.
fn listens(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(cause) => match cause.kind() {
            ErrorKind::WouldBlock => Ok(true),
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => Ok(false),
            _ => Err(cause),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/admin.sock");
        (folder, path)
    }

    fn own_group() -> u32 {
        nix::unistd::getegid().as_raw()
    }

    #[tokio::test]
    async fn folder_and_socket_are_made_closed() {
        let (_root, path) = place();
        let listener = bind_socket(&path, None).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        drop(listener);
    }

    #[tokio::test]
    async fn a_group_opens_folder_and_socket_and_its_end_closes_them() {
        let (_root, path) = place();
        drop(bind_socket(&path, Some(own_group())).unwrap());
        assert_eq!(mode(&path), 0o660);
        assert_eq!(mode(path.parent().unwrap()), 0o750);
        assert_eq!(fs::metadata(&path).unwrap().gid(), own_group());
        drop(bind_socket(&path, None).unwrap());
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
    }

    #[tokio::test]
    async fn the_daemons_own_pipes_close_the_folder_to_nobody() {
        let (_root, path) = place();
        let folder = path.parent().unwrap();
        fs::create_dir_all(folder).unwrap();
        set(folder, 0o700);
        let pipe = folder.join("keeper");
        let make = |mode| nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(mode)).unwrap();
        make(0o600);
        drop(bind_socket(&path, Some(own_group())).unwrap());
        assert_eq!(mode(folder), 0o750);
        fs::remove_file(&pipe).unwrap();
        set(folder, 0o700);
        make(0o600);
        set(&pipe, 0o620);
        assert!(bind_socket(&path, Some(own_group())).is_err(), "it is open to somebody else");
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_a_live_one_is_named() {
        let (_root, path) = place();
        let first = bind_socket(&path, None).unwrap();
        let error = bind_socket(&path, None).unwrap_err();
        assert!(error.contains("another process listens") && error.contains("admin.sock"), "{error}");
        assert!(path.exists(), "a live socket stays");
        drop(first);
        assert!(path.exists(), "its file is stale now");
        bind_socket(&path, None).unwrap();
    }

    #[tokio::test]
    async fn a_listener_whose_queue_is_full_is_live() {
        let (_root, path) = place();
        drop(bind_socket(&path, None).unwrap());
        fs::remove_file(&path).unwrap();
        let busy = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        busy.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        busy.listen(0).unwrap();
        let mut clients = Vec::new();
        let full = loop {
            let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            if let Err(cause) = client.connect(&SockAddr::unix(&path).unwrap()) {
                break cause.kind();
            }
            clients.push(client);
        };
        assert_eq!(full, ErrorKind::WouldBlock);
        assert!(bind_socket(&path, None).unwrap_err().contains("another process listens"));
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let (_root, path) = place();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(bind_socket(&path, None).unwrap_err().contains("is not a socket"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_folder_with_other_files_is_left_as_it_is() {
        let (_root, path) = place();
        let folder = path.parent().unwrap();
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("other"), "").unwrap();
        set(folder, 0o711);
        drop(bind_socket(&path, Some(own_group())).unwrap());
        assert_eq!(mode(folder), 0o711);
        set(folder, 0o700);
        assert!(bind_socket(&path, Some(own_group())).unwrap_err().contains("cannot reach"));
        assert_eq!(mode(folder), 0o700);
        // Nor is an empty one that is open to others: it may be somebody's meeting place.
        fs::remove_file(folder.join("other")).unwrap();
        fs::remove_file(&path).unwrap();
        set(folder, 0o755);
        drop(bind_socket(&path, None).unwrap());
        assert_eq!(mode(folder), 0o755);
    }

    #[tokio::test]
    async fn a_folder_that_others_may_write_to_is_refused() {
        let (root, path) = place();
        let folder = path.parent().unwrap();
        fs::create_dir_all(folder).unwrap();
        for open in [0o777, 0o1777, 0o775] {
            fs::write(folder.join("other"), "").unwrap();
            set(folder, open);
            let error = bind_socket(&path, None).unwrap_err();
            assert!(error.contains("others may write"), "{open:o}: {error}");
        }
        set(folder, 0o755);
        set(&root.path().join("a"), 0o777);
        assert!(bind_socket(&path, None).unwrap_err().contains("everybody may write"));
    }

    #[tokio::test]
    async fn a_strangers_folder_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: only root can give a folder away");
            return;
        }
        let (root, path) = place();
        let folder = path.parent().unwrap();
        fs::create_dir_all(folder).unwrap();
        std::os::unix::fs::chown(folder, Some(4242), None).unwrap();
        assert!(bind_socket(&path, None).unwrap_err().contains("belongs to user 4242"));
        // Above it, a stranger's folder is one too many where everybody could have made it.
        std::os::unix::fs::chown(folder, Some(0), None).unwrap();
        std::os::unix::fs::chown(root.path().join("a"), Some(4242), None).unwrap();
        let error = bind_socket(&path, None).unwrap_err();
        assert!(error.contains("4242") && error.contains("everybody may write"), "{error}");
    }

    #[tokio::test]
    async fn a_path_that_no_socket_can_have_is_refused() {
        let long = PathBuf::from(format!("/tmp/{}/admin.sock", "x".repeat(100)));
        let error = bind_socket(&long, None).unwrap_err();
        assert!(error.contains("107") && error.contains("116 bytes"), "{error}");
        assert!(bind_socket(Path::new("admin.sock"), None).unwrap_err().contains("absolute"));
    }

    #[test]
    fn groups_are_found_by_name_or_number() {
        assert_eq!(group_id("root"), Ok(0));
        assert_eq!(group_id("4242"), Ok(4242));
        assert!(group_id("no-such-group-here").unwrap_err().contains("no-such-group-here"));
    }
}
