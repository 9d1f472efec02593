//! Makes portok's folders and opens its files, and never behind a link that another user planted.
//!
//! In a folder that everybody may write, such as `/tmp`, another user can put a link in the place
//! of a folder that is about to be made. The link would be followed, and the folder made where that
//! user wants it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Makes `folder` with `mode`, and its missing parents with 0755. An existing folder stays as it
/// is.
///
/// # Errors
/// A planted link is in the way, which the error names; or the kernel's error.
pub fn make(folder: &Path, mode: u32) -> io::Result<()> {
    let is_there = |path: &Path| path.symlink_metadata().is_ok();
    let mut missing: Vec<_> = folder.ancestors().take_while(|path| !is_there(path)).collect();
    refuse_planted(folder)?;
    while let Some(path) = missing.pop() {
        let mode = if path == folder { mode } else { 0o755 };
        match fs::DirBuilder::new().mode(mode).create(path) {
            // Another process has made it meanwhile: check what it is now.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => refuse_planted(path)?,
            made => made?,
        }
    }
    Ok(())
}

/// Opens a regular file and nothing else. A named pipe would block, and a link may lead to another
/// user's choice.
///
/// # Errors
/// Of kind `InvalidInput` where something else than a file has the name; or the kernel's error.
pub fn open_regular(options: &mut fs::OpenOptions, path: &Path) -> io::Result<fs::File> {
    let opened = options.custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(nix::libc::ELOOP) => io::Error::new(io::ErrorKind::InvalidInput, "it is a link"),
        _ => error,
    })?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
    }
}

fn refuse_planted(path: &Path) -> io::Result<()> {
    match planted_link(path) {
        Some((link, uid)) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{} is a link that uid {uid} has made where everybody may: it is not followed",
                link.display()
            ),
        )),
        None => Ok(()),
    }
}

/// The planted link on the way to `path`, or `path` itself: it belongs neither to root nor to this
/// process's user, and lies in a folder that everybody may write, or in another user's folder
/// within such a one.
pub fn planted_link(path: &Path) -> Option<(PathBuf, u32)> {
    let own = nix::unistd::geteuid().as_raw();
    let mut link = None;
    for path in path.ancestors() {
        let Ok(meta) = path.symlink_metadata() else { continue };
        let is_strangers = ![0, own].contains(&meta.uid());
        if link.is_some() && meta.is_dir() && meta.mode() & 0o002 != 0 {
            return link;
        }
        if !is_strangers {
            link = None;
        } else if meta.is_symlink() {
            link = Some((path.to_owned(), meta.uid()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, lchown, symlink};

    #[test]
    fn nothing_is_made_behind_a_planted_link() {
        let root = tempfile::tempdir().unwrap();
        let (open, target) = (root.path().join("open"), root.path().join("target"));
        for folder in [&open, &target] {
            fs::create_dir(folder).unwrap();
        }
        symlink(&target, open.join("link")).unwrap();
        // An own link is followed, wherever it lies.
        fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
        make(&open.join("link/own/x"), 0o700).unwrap();
        assert_eq!(fs::metadata(target.join("own/x")).unwrap().mode() & 0o777, 0o700);
        make(&open.join("link/own/x"), 0o700).unwrap();
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: only root can give a link away");
            return;
        }
        lchown(open.join("link"), Some(4242), None).unwrap();
        for folder in ["link/default", "link/own", "link"] {
            let error = make(&open.join(folder), 0o700).unwrap_err().to_string();
            assert!(error.contains("uid 4242") && error.contains("link"), "{error}");
        }
        assert!(!target.join("default").exists(), "nothing was made behind it");
        symlink(root.path().join("nowhere"), open.join("dangling")).unwrap();
        lchown(open.join("dangling"), Some(4242), None).unwrap();
        assert!(make(&open.join("dangling/default"), 0o700).is_err());
        assert!(!root.path().join("nowhere").exists());
        // Where only trusted users make entries, a link of another user is theirs to allow.
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        make(&open.join("link/default"), 0o700).unwrap();
    }
}
