//! The named pipes that apps print into, as they lie in the run folder: one for each stream of a
//! run.
//!
//! The app's end is opened for reading *and* writing, so that the pipe has a reader as long as the
//! app lives: neither a reader that stopped nor the daemon's death is an EPIPE or a SIGPIPE for it
//! (fifo(7)). A pipe's name is made of the run's tag and stays until nothing of the run is left:
//! under that name the next daemon finds the pipe again, with what was printed meanwhile.
//!
//! The folder is trusted only if nobody but root and this user can put something else in the place
//! of a pipe.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, fchown, mkfifo};

use super::Ids;
use super::identity::{Identity, is_tag};
use crate::wire::Stream;

/// How much an app may print while nobody reads: the most that an unprivileged process may ask for.
pub(super) const PIPE_SIZE: i32 = 1 << 20;

/// The two pipes of a run, by the ending of their names.
const PIPES: [(&str, Stream); 2] = [("out", Stream::Stdout), ("err", Stream::Stderr)];

/// The folder of the pipes: made, and proven to be private.
#[derive(Debug, Clone)]
pub(super) struct PipeFolder {
    path: PathBuf,
}

/// The two pipes of one run, by their names.
#[derive(Debug)]
pub(super) struct RunPipes {
    paths: [PathBuf; 2],
}

/// Both ends of a pipe that was just made.
pub(super) struct Ends {
    pub(super) app: File,
    pub(super) reader: File,
}

impl PipeFolder {
    /// Makes the folder where it is missing.
    ///
    /// # Errors
    /// It cannot be made, or others could write it.
    pub(super) fn make(path: PathBuf) -> io::Result<Self> {
        make_private(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot make the folder {}: {error}", path.display()))
        })?;
        check_private(&path)?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The pipes of the run with this tag, whether they are there or not.
    pub(super) fn of_run(&self, tag: &str) -> RunPipes {
        RunPipes { paths: PIPES.map(|(ending, _)| self.path.join(format!("{tag}.{ending}"))) }
    }

    /// Removes the pipes whose runs are not in `kept`.
    pub(super) fn remove_all_but(&self, kept: &[Identity]) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if tag_of_pipe(&name).is_some_and(|tag| !kept.iter().any(|identity| identity.tag == tag)) {
                remove(&entry.path());
            }
        }
    }
}

impl RunPipes {
    /// Makes both pipes, standard output first. Leaves none behind where one cannot be made.
    pub(super) fn make(&self, identity: Option<&Ids>) -> io::Result<[Ends; 2]> {
        let [out, err] = &self.paths;
        let stdout = make(out, identity)?;
        let stderr = make(err, identity).inspect_err(|_| remove(out))?;
        Ok([stdout, stderr])
    }

    /// Opens both pipes of a run that an earlier daemon started. A pipe that cannot be opened is no
    /// reason to let the run alone.
    pub(super) fn reopen(&self, pid: u32, release: &str) -> [Option<File>; 2] {
        let [out, err] = &self.paths;
        [(out, 1), (err, 2)].map(|(path, descriptor)| {
            // Unread, it would fill up, and the app would stand still when it prints.
            let opened = reading_end(path).or_else(|error| nameless(pid, descriptor, path).ok_or(error));
            opened
                .inspect_err(|error| {
                    tracing::warn!(release, %error, pipe = %path.display(), "what it prints is lost");
                })
                .ok()
        })
    }

    /// Takes both names away.
    pub(super) fn remove(&self) {
        self.paths.iter().for_each(|path| remove(path));
    }
}

/// Makes a folder that is ours alone, below folders that the instances of other users use too.
fn make_private(folder: &Path) -> io::Result<()> {
    crate::folder::make(folder, 0o700)
}

/// Fails if another user could write the folder or replace it, and so put something else in the
/// place of a pipe.
fn check_private(folder: &Path) -> io::Result<()> {
    let own = nix::unistd::geteuid().as_raw();
    for folder in folder.ancestors().take(2) {
        let meta = fs::symlink_metadata(folder)?;
        if !meta.is_dir() || ![0, own].contains(&meta.uid()) || meta.mode() & 0o022 != 0 {
            return Err(io::Error::other(format!(
                "{} must be a folder of root's or of uid {own}'s that nobody else may write",
                folder.display()
            )));
        }
    }
    Ok(())
}

fn make(path: &Path, identity: Option<&Ids>) -> io::Result<Ends> {
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
    open_ends(path, identity).inspect_err(|_| remove(path))
}

fn open_ends(path: &Path, identity: Option<&Ids>) -> io::Result<Ends> {
    let app = OpenOptions::new().read(true).write(true).open(path)?;
    let reader = reading_end(path)?;
    if let Some(ids) = identity.filter(|ids| !ids.is_own()) {
        // So that the app may open /dev/stdout again. Where this is not allowed, the app runs
        // without.
        let _ = fchown(&app, Some(Uid::from_raw(ids.uid)), Some(Gid::from_raw(ids.gid)));
    }
    // Where the kernel's limit for the user is used up, the pipe keeps its default size.
    let _ = fcntl(&app, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
    Ok(Ends { app, reader })
}

/// Takes a pipe's name away. One that cannot be removed costs a name in a folder of ours, no more.
fn remove(path: &Path) {
    let _may_never_have_been_there = fs::remove_file(path);
}

/// The tag in the name of a run's pipe; `None` for any other file.
fn tag_of_pipe(name: &OsStr) -> Option<&str> {
    let (tag, ending) = name.to_str()?.rsplit_once('.')?;
    (is_tag(tag) && PIPES.iter().any(|(known, _)| *known == ending)).then_some(tag)
}

/// Whether a file of that name is a run's pipe.
pub(super) fn is_pipe(name: &OsStr) -> bool {
    tag_of_pipe(name).is_some()
}

/// The streams of a run in the order of its pipes.
pub(super) fn streams() -> [Stream; 2] {
    PIPES.map(|(_, stream)| stream)
}

/// The reader's end of a pipe whose name was removed, by way of a process that has it open as
/// descriptor `number`. `None` for anything else there: an app's own pipe, say, has other readers.
fn nameless(pid: u32, number: u32, path: &Path) -> Option<File> {
    let descriptor = PathBuf::from(format!("/proc/{pid}/fd/{number}"));
    let (is, was) = (fs::read_link(&descriptor).ok()?, path.file_name()?);
    // As the kernel shows it (proc_pid_fd(5)). No name but a run's has its tag.
    let mut removed = was.to_owned();
    removed.push(" (deleted)");
    (is.file_name()? == removed).then(|| reading_end(&descriptor).ok()).flatten()
}

/// Opens a pipe to read from it without waiting.
pub(super) fn reading_end(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.file_type().is_fifo() { Ok(file) } else { Err(io::Error::other("it is no pipe")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_folder_itself_is_ours_alone() {
        let folder = tempfile::tempdir().unwrap();
        let shared = folder.path().join("portok");
        make_private(&shared.join("web")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        // The folder above keeps what the umask of whoever runs the tests leaves of 755.
        let usual = folder.path().join("usual");
        fs::create_dir(&usual).unwrap();
        assert_eq!((mode(&shared), mode(&shared.join("web"))), (mode(&usual) & 0o755, 0o700));
    }

    #[test]
    fn pipes_that_cannot_both_be_made_leave_no_name_behind() {
        let folder = tempfile::tempdir().unwrap();
        let pipes = PipeFolder::make(folder.path().join("run")).unwrap().of_run(&"0".repeat(32));
        let [out, err] = &pipes.paths;
        fs::write(err, "somebody's").unwrap();
        assert!(pipes.make(None).is_err());
        assert!(!out.exists());
        assert!(err.exists(), "it is not ours");
    }
}
