//! The keeper: a small process of portok's that keeps the apps' pipes from filling up while there
//! is no daemon.
//!
//! A pipe that nobody reads is full after [`PIPE_SIZE`] bytes, and then an app that prints into it
//! stands still. So each daemon starts a keeper, which sleeps until the daemon is gone: its
//! standard input, which only the daemon holds, ends then. From then on it takes the oldest bytes
//! out of every pipe that is more than half full; the newest half stays for the next daemon.
//!
//! It ends when the next daemon dismisses it, by a byte in the pipe [`CALL`], or when no app prints
//! any more. (The pipe is the keeper's standard output, so it has the pipe whatever becomes of the
//! name.) A keeper that ends for another reason while its daemon lives is started again, after a
//! pause that grows while that goes on.
//!
//! State: the open pipes, which are those in its working directory. It keeps them when the names or
//! the folder are removed, as systemd does with a unit that failed. Nobody can dismiss it then, and
//! it ends with the last app that prints. If the keeper is lost, only the room in the pipes is lost
//! with it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionread;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::pipe::{PIPE_SIZE, is_pipe, reading_end};
use super::start_child;

/// The name that makes a process of this program a keeper. `ps` shows it too.
const NAME: &str = "portok-keeper";
/// The pipe over which the next daemon dismisses the keeper.
const CALL: &str = "keeper";
/// The pause between two looks while an app prints a lot, and otherwise.
const BUSY: Duration = Duration::from_millis(1);
const IDLE: Duration = Duration::from_millis(50);
/// The pause before a keeper is started again. It doubles while keepers end soon after their start.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The daemon's side of a keeper that sleeps as long as this process lives. Its futures belong to
/// the runtime in which it was started.
#[derive(Debug)]
pub(super) struct Keeper {
    run_dir: PathBuf,
    child: io::Result<Child>,
    /// It sleeps as long as this is open. Taken out of the child, because [`Child::wait`] would
    /// close it.
    _life: Option<ChildStdin>,
    began: Instant,
    pause: Duration,
}

impl Keeper {
    /// Starts one for the pipes in `run_dir`, and dismisses the keeper of an earlier daemon.
    pub(super) fn start(run_dir: &Path) -> Self {
        let mut child = start(run_dir);
        let life = child.as_mut().ok().and_then(|child| child.stdin.take());
        let run_dir = run_dir.to_owned();
        Self { run_dir, child, _life: life, began: Instant::now(), pause: SHORTEST_PAUSE }
    }

    /// Sees to it that there is a keeper until `ending` is cancelled; replaces it at each
    /// `renewal`. Where runs are left for the next daemon, so is the keeper: this daemon may have
    /// failed before it took them over.
    pub(super) async fn run(mut self, renewal: Arc<Notify>, ending: CancellationToken) {
        let mut dismissed = false;
        loop {
            tokio::select! {
                () = self.until_dismissed(), if !dismissed => dismissed = true,
                () = renewal.notified() => {
                    self.renew().await;
                    dismissed = false;
                }
                () = ending.cancelled() => break,
            }
        }
        let mut left = fs::read_dir(&self.run_dir).into_iter().flatten().flatten();
        if !left.any(|entry| is_pipe(&entry.file_name())) {
            self.end().await;
        }
    }

    /// Starts another one whenever it has ended without being dismissed. Returns when it was: a
    /// successor of this daemon has a keeper then. Cancel safe.
    async fn until_dismissed(&mut self) {
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
    async fn renew(&mut self) {
        self.end().await;
        *self = Self::start(&self.run_dir);
    }

    /// Ends it now. It would end by itself, but only after the daemon.
    async fn end(&mut self) {
        if let Ok(child) = &mut self.child
            && matches!(child.try_wait(), Ok(None))
        {
            let _gone_already = child.kill().await;
            // A keeper that was dismissed has ended already, and the pipe is a successor's.
            let _gone_already = fs::remove_file(self.run_dir.join(CALL));
        }
    }
}

fn start(run_dir: &Path) -> io::Result<Child> {
    let call = run_dir.join(CALL);
    // Fails where no keeper has the pipe open.
    if let Ok(mut former) = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&call) {
        let _gone_meanwhile = former.write(&[1]);
    }
    // A new pipe: in the former one the byte may still be there when this keeper looks.
    match fs::remove_file(&call) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => mkfifo(&call, Mode::S_IRUSR | Mode::S_IWUSR)?,
    }
    // For writing too, so that it does not see an end of file when a caller closes its end.
    let heard = OpenOptions::new().read(true).write(true).open(&call)?;
    // The program that runs now, whatever lies at its path since.
    let mut command = Command::new("/proc/self/exe");
    // The folder is an argument for `ps` only.
    command.arg0(NAME).arg(run_dir).env_clear().process_group(0).current_dir(run_dir);
    command.stdin(Stdio::piped()).stdout(heard).stderr(Stdio::null());
    start_child(|| command.spawn(), Child::id)
}

/// Works as the keeper if this process was started as one. To be called before anything else.
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
    /// There is room enough.
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
        // End of file: the last process that could print has gone.
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
            // Another reader was first, or nobody can read: there is time until the next look.
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
        // The end for writing can say how much waits, and cannot be read from.
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
