//! The keeper: a small process of portok's that sees to it, while there is no daemon, that no app waits for a reader.
//!
//! A pipe that nobody reads is full after [`PIPE_SIZE`] bytes, and then whoever prints into it stands still. So each
//! daemon starts a keeper, which sleeps until the daemon is gone (the end of its standard input, which nobody else
//! holds). From then on it takes the oldest bytes out of every pipe that is more than half full: the newest half stays for
//! the next daemon. It ends when that one says so (a byte in the pipe [`CALL`], which is the keeper's standard output:
//! whatever becomes of the name, it has the pipe), or when nobody prints any more.
//!
//! One that ends otherwise while its daemon lives is started again, after a pause that grows while that goes on.
//!
//! State: open pipes, those with a name in the folder, which is its own working directory. It keeps them when the names or the
//! folder are removed (systemd does that with a unit that failed); then nobody can call it, and it ends with the last who
//! prints. Nothing is lost with the keeper but what it is for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionread;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep};

use super::output::{PIPE_SIZE, is_pipe, reading_end};
use super::start_child;

/// How a process of this program is told that it is a keeper: its name, so that `ps` shows it too.
const NAME: &str = "portok-keeper";
/// The pipe over which the next daemon sends the keeper home.
const CALL: &str = "keeper";
/// Between two looks while somebody prints a lot, and otherwise.
const BUSY: Duration = Duration::from_millis(1);
const IDLE: Duration = Duration::from_millis(50);
/// Before one that has ended is started again; doubled while that happens soon.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A keeper that sleeps as long as this process lives: the daemon's side. Its futures belong to the runtime in which it was
/// started.
#[derive(Debug)]
pub(super) struct Keeper {
    run_dir: PathBuf,
    child: io::Result<Child>,
    /// It sleeps as long as this is open; here, because [`Child::wait`] closes what it has itself.
    _life: Option<ChildStdin>,
    began: Instant,
    pause: Duration,
}

impl Keeper {
    /// Starts one for the pipes in `run_dir`. The keeper of an earlier daemon is sent home: its time is over.
    pub(super) fn start(run_dir: &Path) -> Self {
        let mut child = start(run_dir);
        let life = child.as_mut().ok().and_then(|child| child.stdin.take());
        let run_dir = run_dir.to_owned();
        Self { run_dir, child, _life: life, began: Instant::now(), pause: SHORTEST_PAUSE }
    }

    /// Starts another one whenever it has ended without being called. Ends when it was: then a successor of this daemon has
    /// its own. Cancel safe: what is dropped midway can be begun again.
    pub(super) async fn look_after(&mut self) {
        loop {
            let ended = match &mut self.child {
                Ok(child) => match child.wait().await {
                    Ok(status) if status.success() => return,
                    Ok(status) => status.to_string(),
                    Err(error) => error.to_string(),
                },
                Err(error) => error.to_string(),
            };
            if self.began.elapsed() > LONGEST_PAUSE {
                self.pause = SHORTEST_PAUSE;
            }
            tracing::warn!(
                "apps that print much would stand still without a daemon: no keeper ({ended}), the next one in {:?}",
                self.pause
            );
            sleep(self.pause).await;
            let pause = (self.pause * 2).min(LONGEST_PAUSE);
            *self = Self { pause, ..Self::start(&self.run_dir) };
        }
    }

    /// Puts another one in its place.
    pub(super) async fn renew(&mut self) {
        self.dismiss().await;
        *self = Self::start(&self.run_dir);
    }

    /// Ends it: nobody prints any more.
    pub(super) async fn dismiss(&mut self) {
        // It ends by itself as well; this way it is gone when the daemon is.
        if let Ok(child) = &mut self.child
            && matches!(child.try_wait(), Ok(None))
        {
            let _gone_already = child.kill().await;
            // One that was called has ended, and the pipe is a successor's.
            let _gone_already = fs::remove_file(self.run_dir.join(CALL));
        }
    }
}

fn start(run_dir: &Path) -> io::Result<Child> {
    let call = run_dir.join(CALL);
    // Where there is none, nobody has it open to read.
    if let Ok(mut former) = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&call) {
        let _gone_meanwhile = former.write(&[1]);
    }
    // A pipe of its own: in the former one the call may still be there when this one looks.
    match fs::remove_file(&call) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => mkfifo(&call, Mode::S_IRUSR | Mode::S_IWUSR)?,
    }
    // For writing too, so that it does not end with the first daemon that called.
    let heard = OpenOptions::new().read(true).write(true).open(&call)?;
    // The file that runs now, whatever lies at its path since.
    let mut command = Command::new("/proc/self/exe");
    // It is told the folder for `ps` only.
    command.arg0(NAME).arg(run_dir).env_clear().process_group(0).current_dir(run_dir);
    command.stdin(Stdio::piped()).stdout(heard).stderr(Stdio::null());
    start_child(|| command.spawn(), Child::id)
}

/// Is the keeper, where this process was started as one. To be asked before anything else.
pub fn run_if_asked() -> Option<ExitCode> {
    let mut words = std::env::args_os();
    if words.next() != Some(OsString::from(NAME)) {
        return None;
    }
    Some(if keep().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn keep() -> io::Result<()> {
    let (daemon, call) = (io::stdin(), io::stdout());
    let mut both = [PollFd::new(&daemon, PollFlags::IN), PollFd::new(&call, PollFlags::IN)];
    poll(&mut both, None)?;
    if both[1].revents().contains(PollFlags::IN) {
        return Ok(());
    }
    let mut pipes = BTreeMap::new();
    let mut scrap = vec![0; 64 << 10];
    loop {
        open_new(&mut pipes);
        let mut busy = false;
        pipes.retain(|_, pipe| match relieve(pipe, &mut scrap) {
            Relief::Enough => true,
            Relief::Taken => {
                busy = true;
                true
            }
            Relief::NobodyPrints => false,
        });
        if pipes.is_empty() {
            return Ok(());
        }
        let pause = Timespec::try_from(if busy { BUSY } else { IDLE }).map_err(io::Error::other)?;
        if poll(&mut [PollFd::new(&call, PollFlags::IN)], Some(&pause))? > 0 {
            return Ok(());
        }
    }
}

fn open_new(pipes: &mut BTreeMap<OsString, File>) {
    for entry in fs::read_dir(".").into_iter().flatten().flatten() {
        let name = entry.file_name();
        if is_pipe(&name)
            && !pipes.contains_key(&name)
            && let Ok(pipe) = reading_end(&entry.path())
        {
            pipes.insert(name, pipe);
        }
    }
}

enum Relief {
    /// There was room enough.
    Enough,
    /// The oldest bytes were taken.
    Taken,
    NobodyPrints,
}

fn relieve(pipe: &mut File, scrap: &mut [u8]) -> Relief {
    let half = u64::try_from(PIPE_SIZE / 2).unwrap_or(u64::MAX);
    let waiting = match ioctl_fionread(&*pipe) {
        Ok(waiting) => waiting,
        Err(_) => return Relief::NobodyPrints,
    };
    if waiting == 0 {
        // End of file: the last who could print has gone.
        return if matches!(pipe.read(&mut scrap[..1]), Ok(0)) {
            Relief::NobodyPrints
        } else {
            Relief::Enough
        };
    }
    let mut left = waiting;
    while left > half {
        let most = usize::try_from(left - half).unwrap_or(scrap.len()).min(scrap.len());
        match pipe.read(&mut scrap[..most]) {
            Ok(read) if read > 0 => left = left.saturating_sub(read as u64),
            // Somebody else has read it, or nobody can: there is time until the next look.
            _ => break,
        }
    }
    if left < waiting { Relief::Taken } else { Relief::Enough }
}

#[cfg(test)]
mod tests {
    use nix::fcntl::{FcntlArg, fcntl};

    use super::*;

    #[test]
    fn only_what_was_taken_is_a_reason_to_look_again_at_once() {
        let (reader, mut writer) = io::pipe().unwrap();
        fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE)).unwrap();
        let mut scrap = vec![0; 64 << 10];
        let half = usize::try_from(PIPE_SIZE / 2).unwrap();
        writer.write_all(&vec![b'x'; half + 1]).unwrap();
        // The end for writing tells how much waits, and cannot be read from.
        let mut unreadable = File::from(std::os::fd::OwnedFd::from(writer));
        assert!(matches!(relieve(&mut unreadable, &mut scrap), Relief::Enough));
        let mut pipe = File::from(std::os::fd::OwnedFd::from(reader));
        assert!(matches!(relieve(&mut pipe, &mut scrap), Relief::Taken));
        assert_eq!(ioctl_fionread(&pipe).unwrap(), half as u64);
        assert!(matches!(relieve(&mut pipe, &mut scrap), Relief::Enough));
        drop(unreadable);
        pipe.read_exact(&mut vec![0; half]).unwrap();
        assert!(matches!(relieve(&mut pipe, &mut scrap), Relief::NobodyPrints));
    }
}
