//! Where lines go: a file that is opened for appending, or standard output.
//!
//! Lines are written many at a time, and whole. A write that fails halfway leaves the beginning of
//! a line; the next one that succeeds begins a new line first.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::config::AccessFile;
use crate::folder;

/// The rights of a file that is made: the daemon's user writes it, its group reads it.
const MODE: u32 = 0o640;

/// An open log.
pub(super) struct Destination {
    to: Box<dyn Write + Send>,
    /// The beginning of a line was written, and not its end.
    is_torn: bool,
}

impl Destination {
    pub(super) fn new(to: Box<dyn Write + Send>) -> Self {
        Self { to, is_torn: false }
    }

    /// Opens what `file` names. `None`: nothing.
    pub(super) fn open(file: &AccessFile) -> io::Result<Option<Self>> {
        Ok(match file {
            AccessFile::Off => None,
            AccessFile::Stdout => Some(Self::new(Box::new(io::stdout()))),
            AccessFile::Path(path) => Some(Self::new(Box::new(open(path)?))),
        })
    }

    /// Writes `lines`. Returns how many of them were lost, and why, if any were.
    pub(super) fn write(&mut self, lines: &str) -> Result<(), (u64, io::Error)> {
        if self.is_torn {
            self.to.write_all(b"\n").map_err(|error| (count(lines), error))?;
            self.is_torn = false;
        }
        let mut rest = lines.as_bytes();
        while !rest.is_empty() {
            let failed = match self.to.write(rest) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(written) => {
                    rest = &rest[written..];
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            let done = lines.len() - rest.len();
            self.is_torn = done > 0 && !lines[..done].ends_with('\n');
            return Err((count(&lines[done..]), failed));
        }
        self.to.flush().map_err(|error| (0, error))
    }
}

/// How many lines there are, of which the first may be without its beginning.
fn count(lines: &str) -> u64 {
    lines.bytes().filter(|byte| *byte == b'\n').count() as u64
}

/// Opens a log for appending, and makes it if it is not there.
fn open(path: &Path) -> io::Result<File> {
    if let Some((link, uid)) = folder::planted_link(path) {
        let why = format!("{} is a link that uid {uid} has made where everybody may", link.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    let mut options = OpenOptions::new();
    // A pipe that is open for reading too can be opened, and written, while nobody reads it. A file
    // is not opened like that: it may be one that the daemon may only write.
    if fs::metadata(path).is_ok_and(|meta| meta.file_type().is_fifo()) {
        return options.read(true).write(true).open(path);
    }
    options.append(true).mode(MODE).custom_flags(nix::libc::O_NOCTTY);
    let file = match options.clone().create_new(true).open(path) {
        Ok(file) => {
            // Whatever the umask is: a group that may not read its log is of no use.
            file.set_permissions(Permissions::from_mode(MODE))?;
            return Ok(file);
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options.open(path)?,
        Err(error) => return Err(error),
    };
    let kind = file.metadata()?.file_type();
    if kind.is_file() || kind.is_fifo() || kind.is_char_device() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file that lines can be added to"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::sync::{Arc, Mutex};

    use super::*;

    fn at(path: &Path) -> io::Result<Destination> {
        Ok(Destination::open(&AccessFile::Path(path.to_owned()))?.unwrap())
    }

    #[test]
    fn a_file_is_made_for_the_group_to_read_and_added_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        at(&path).unwrap().write("one\n").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        at(&path).unwrap().write("two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert!(Destination::open(&AccessFile::Off).unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_opened_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let missing = at(&folder.path().join("missing/access.log")).err().unwrap();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(at(folder.path()).is_err());
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Nobody reads it, and that blocks nobody.
        at(&pipe).unwrap().write("one\n").unwrap();
    }

    /// Takes so many bytes, then fails, until it is told to take more.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (room, written) = &mut *self.0.lock().unwrap();
            let take = bytes.len().min(*room);
            if take == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *room -= take;
            written.extend_from_slice(&bytes[..take]);
            Ok(take)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_was_full_gets_whole_lines_again() {
        let disk = Disk::default();
        let mut destination = Destination::new(Box::new(disk.clone()));
        let room = |room| disk.0.lock().unwrap().0 = room;
        room(6);
        assert_eq!(destination.write("one\ntwo\nthree\n").unwrap_err().0, 2);
        assert_eq!(destination.write("four\n").unwrap_err().0, 1);
        room(100);
        destination.write("five\n").unwrap();
        let written = String::from_utf8(disk.0.lock().unwrap().1.clone()).unwrap();
        assert_eq!(written, "one\ntw\nfive\n");
        room(4);
        assert_eq!(destination.write("six\nseven\n").unwrap_err().0, 1);
        room(100);
        destination.write("eight\n").unwrap();
        let written = String::from_utf8(disk.0.lock().unwrap().1.clone()).unwrap();
        assert!(written.ends_with("five\nsix\neight\n"), "{written:?}");
    }
}
