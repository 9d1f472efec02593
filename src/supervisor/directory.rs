//! Working directories.

use std::path::{Path, PathBuf};

/// Resolves a working directory (realpath), so that a later change of a symbolic link does not move
/// it.
///
/// # Errors
/// It cannot be used. The error names it and the cause.
pub fn resolve_directory(path: &Path) -> Result<PathBuf, String> {
    let shown = path.display();
    let resolved =
        path.canonicalize().map_err(|error| format!("the directory {shown} cannot be used: {error}"))?;
    if !resolved.is_dir() {
        return Err(format!("{shown} cannot be used as a working directory: it is not a directory"));
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_followed_once() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two, link) =
            (folder.path().join("1"), folder.path().join("2"), folder.path().join("current"));
        std::fs::create_dir(&one).unwrap();
        std::fs::create_dir(&two).unwrap();
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let resolved = resolve_directory(&link).unwrap();
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&two, &link).unwrap();
        assert_eq!(resolved, one.canonicalize().unwrap());
    }

    #[test]
    fn what_is_no_directory_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = resolve_directory(&folder.path().join("gone")).unwrap_err();
        assert!(missing.contains("/gone") && missing.contains("No such file"), "{missing}");
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(resolve_directory(&file).unwrap_err().contains("not a directory"));
    }
}
