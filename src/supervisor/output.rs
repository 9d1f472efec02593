//! What apps print: one named pipe per stream, read by one thread for all processes.
//!
//! The app's end is opened for reading *and* writing, so that the pipe has a reader as long as the app lives: neither a
//! reader that stopped nor the daemon's death is an EPIPE or a SIGPIPE for it (fifo(7)). The pipe keeps its name, made of the
//! run's tag, until nothing of the run is left: by it the next daemon finds the pipe again, with what was printed meanwhile.
//!
//! Because of that open end, an end of file says little: reading stops when the process group's task says that the run is
//! gone (by dropping its [`Reading`]), after what is left in the pipe was read.
//!
//! The thread has its own runtime, so that a flood takes the reader's time and not the control plane's. It ends with the
//! [`Output`]; dropping that waits a moment, so that the last lines reach the sink.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as blocking};
use std::thread;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, fchown, mkfifo};
use tokio::net::unix::pipe;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::identity::{Identity, is_tag};
use super::keeper::Keeper;
use super::ring::{RunLog, Splitter};
use super::sink::{Passer, Sink};
use super::{Ids, last};
use crate::wire::{LogLine, Stream};

/// How much an app may print while the reader is busy: the most that an unprivileged process may ask for.
pub(super) const PIPE_SIZE: i32 = 1 << 20;
/// How much is read at once.
const CHUNK: usize = 64 << 10;
/// Runs that have ended and are still remembered.
const REMEMBERED: usize = 16;
/// How long a process group's task waits for the reader: it is a service to who reads the last lines, not a duty.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(2);
/// How long the end of the daemon waits for the last lines to reach the sink.
const LAST_LINES_DEADLINE: Duration = Duration::from_secs(1);

/// The reader, and what it remembers.
#[derive(Debug)]
pub(super) struct Output {
    run_dir: PathBuf,
    runs: Arc<Mutex<Runs>>,
    sources: mpsc::Sender<Source>,
    ending: CancellationToken,
    /// While set, nothing is read: what is printed waits in the pipes.
    hushed: watch::Sender<bool>,
    // A mutex only because the receiver is not `Sync`; taken once, at the end.
    ended: Mutex<blocking::Receiver<()>>,
    /// Has the reader's thread put another keeper in the place of its own.
    renewal: Arc<Notify>,
}

/// The runs whose lines are remembered, oldest first.
#[derive(Debug, Default)]
struct Runs {
    living: Vec<Arc<RunLog>>,
    ended: VecDeque<Arc<RunLog>>,
}

/// One pipe to read.
#[derive(Debug)]
struct Source {
    pipe: File,
    stream: Stream,
    log: Arc<RunLog>,
    /// Answered once what is in the pipe now has been read; closed when the run is gone.
    asks: mpsc::Receiver<oneshot::Sender<()>>,
}

/// The process group task's side of its run's two pipes.
#[derive(Debug)]
pub(super) struct Reading {
    log: Arc<RunLog>,
    pipes: [PathBuf; 2],
    streams: [mpsc::Sender<oneshot::Sender<()>>; 2],
    runs: Arc<Mutex<Runs>>,
}

/// The two pipes of a run, by the ending of their names.
const PIPES: [(&str, Stream); 2] = [("out", Stream::Stdout), ("err", Stream::Stderr)];

impl Output {
    /// Makes the folder and starts the threads.
    pub(super) fn start(instance: &str, run_dir: PathBuf, sink: Sink, keeper: bool) -> io::Result<Self> {
        make_private(&run_dir).map_err(|error| {
            let shown = run_dir.display();
            io::Error::new(error.kind(), format!("cannot make the folder {shown}: {error}"))
        })?;
        check_private(&run_dir)?;
        let (sources, queue) = mpsc::channel(16);
        let ending = CancellationToken::new();
        let (end, ended) = blocking::channel();
        let passer = Passer::start(sink, instance, end)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let mut tasks = JoinSet::new();
        let renewal = Arc::new(Notify::new());
        if keeper {
            let _of_the_thread = runtime.enter();
            let keeper = Keeper::start(&run_dir);
            tasks.spawn(keep_keeper(keeper, run_dir.clone(), Arc::clone(&renewal), ending.clone()));
        }
        let stop = ending.clone();
        let (hushed, hush) = watch::channel(false);
        thread::Builder::new()
            .name("portok-output".to_owned())
            .spawn(move || runtime.block_on(read_all(tasks, queue, stop, hush, passer)))?;
        Ok(Self { run_dir, runs: Arc::default(), sources, ending, hushed, ended: Mutex::new(ended), renewal })
    }

    /// Makes a run's pipes and begins to read them. Returns the app's ends.
    pub(super) async fn open(
        &self,
        tag: &str,
        release: &str,
        identity: Option<&Ids>,
    ) -> io::Result<(File, File, Reading)> {
        let [out_path, err_path] = self.pipes(tag);
        let (stdout, out) = make_pipe(&out_path, identity)?;
        let (stderr, err) = make_pipe(&err_path, identity).inspect_err(|_| remove_pipe(&out_path))?;
        let reading = self.read([Some(out), Some(err)], tag, release).await.inspect_err(|_| {
            remove_pipe(&out_path);
            remove_pipe(&err_path);
        })?;
        Ok((stdout, stderr, reading))
    }

    /// Reads on what a run prints that an earlier daemon started. A pipe that is not there any more is no reason to let
    /// the run alone.
    pub(super) async fn reopen(&self, identity: &Identity, release: &str) -> io::Result<Reading> {
        let mut pipes = [None, None];
        for ((path, number), pipe) in self.pipes(&identity.tag).iter().zip([1, 2]).zip(&mut pipes) {
            // Unread, it would be full one day, and whoever prints would stand still.
            let opened = reading_end(path).or_else(|error| nameless(identity.pid, number, path).ok_or(error));
            *pipe = opened
                .inspect_err(|error| {
                    tracing::warn!(release, %error, pipe = %path.display(), "what it prints is lost");
                })
                .ok();
        }
        self.read(pipes, &identity.tag, release).await
    }

    async fn read(&self, pipes: [Option<File>; 2], tag: &str, release: &str) -> io::Result<Reading> {
        let log = Arc::new(RunLog::new(release));
        let [out, err] = pipes;
        let streams = [self.source(out, PIPES[0].1, &log).await?, self.source(err, PIPES[1].1, &log).await?];
        lock(&self.runs).living.push(Arc::clone(&log));
        Ok(Reading { log, pipes: self.pipes(tag), streams, runs: Arc::clone(&self.runs) })
    }

    async fn source(
        &self,
        pipe: Option<File>,
        stream: Stream,
        log: &Arc<RunLog>,
    ) -> io::Result<mpsc::Sender<oneshot::Sender<()>>> {
        let (ask, asks) = mpsc::channel(4);
        if let Some(pipe) = pipe {
            let source = Source { pipe, stream, log: Arc::clone(log), asks };
            self.sources.send(source).await.map_err(|_| io::Error::other("the reader's thread has ended"))?;
        }
        Ok(ask)
    }

    /// Leaves what is printed from now on in the pipes, or reads it (again).
    pub(super) fn hush(&self, hushed: bool) {
        self.hushed.send_replace(hushed);
    }

    /// Puts a keeper in the place of one that a successor sent home, where that came to nothing itself.
    pub(super) fn renew_keeper(&self) {
        self.renewal.notify_one();
    }

    fn pipes(&self, tag: &str) -> [PathBuf; 2] {
        PIPES.map(|(ending, _)| self.run_dir.join(format!("{tag}.{ending}")))
    }

    /// Removes pipes whose runs are not in `kept`.
    pub(super) fn remove_pipes_but(&self, kept: &[Identity]) {
        for entry in fs::read_dir(&self.run_dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if tag_of_pipe(&name).is_some_and(|tag| !kept.iter().any(|identity| identity.tag == tag)) {
                remove_pipe(&entry.path());
            }
        }
    }

    /// The last lines of a release's runs, or of all, in the order in which they were read.
    pub(super) fn logs(&self, release: Option<&str>, lines: usize) -> Vec<LogLine> {
        let runs: Vec<Arc<RunLog>> = {
            let runs = lock(&self.runs);
            runs.ended.iter().chain(&runs.living).cloned().collect()
        };
        let wanted = runs.iter().filter(|log| release.is_none_or(|release| log.release() == release));
        let mut found: Vec<_> = wanted.flat_map(|log| log.numbered()).collect();
        found.sort_by_key(|(number, _)| *number);
        last(found.into_iter().map(|(_, line)| line).collect(), lines)
    }
}

/// Makes a folder that is ours alone, below folders that other instances, whoever runs them, use too.
fn make_private(folder: &Path) -> io::Result<()> {
    crate::folder::make(folder, 0o700)
}

/// Whoever may write the folder, or replace it, could put something else in the place of a pipe.
fn check_private(run_dir: &Path) -> io::Result<()> {
    let own = nix::unistd::geteuid().as_raw();
    for folder in run_dir.ancestors().take(2) {
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

impl Drop for Output {
    fn drop(&mut self) {
        self.ending.cancel();
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(LAST_LINES_DEADLINE);
    }
}

impl Reading {
    pub(super) fn log(&self) -> &Arc<RunLog> {
        &self.log
    }

    /// Waits until what is in the pipes now is in the ring. Dropping the [`Reading`] ends the reading of its pipes.
    pub(super) async fn catch_up(&self) {
        let both = async {
            for stream in &self.streams {
                let (done, read) = oneshot::channel();
                // A stream that has ended has been read.
                if stream.send(done).await.is_ok() {
                    let _ = read.await;
                }
            }
        };
        let _ = timeout(CATCH_UP_DEADLINE, both).await;
    }

    /// Nobody prints any more. Without this the pipes stay for the next daemon.
    pub(super) fn end(self) {
        self.pipes.iter().for_each(|pipe| remove_pipe(pipe));
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut runs = lock(&self.runs);
        runs.living.retain(|log| !Arc::ptr_eq(log, &self.log));
        if self.log.is_empty() {
            return;
        }
        runs.ended.push_back(Arc::clone(&self.log));
        if runs.ended.len() > REMEMBERED {
            runs.ended.pop_front();
        }
    }
}

/// The app's end, then the reader's.
fn make_pipe(path: &Path, identity: Option<&Ids>) -> io::Result<(File, File)> {
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
    open_ends(path, identity).inspect_err(|_| remove_pipe(path))
}

/// Takes a pipe's name away. One that cannot be removed takes a name in a folder of ours, no more.
fn remove_pipe(path: &Path) {
    let _may_never_have_been_there = fs::remove_file(path);
}

fn open_ends(path: &Path, identity: Option<&Ids>) -> io::Result<(File, File)> {
    let app = OpenOptions::new().read(true).write(true).open(path)?;
    let reader = reading_end(path)?;
    if let Some(ids) = identity.filter(|ids| !ids.is_own()) {
        // So that the app may open /dev/stdout again; a daemon that may not give it away runs the app without that.
        let _ = fchown(&app, Some(Uid::from_raw(ids.uid)), Some(Gid::from_raw(ids.gid)));
    }
    // The kernel's limit for the user may be used up; the default size does, too.
    let _ = fcntl(&app, FcntlArg::F_SETPIPE_SZ(PIPE_SIZE));
    Ok((app, reader))
}

/// The tag in the name of a run's pipe; `None` for whatever else is there.
fn tag_of_pipe(name: &OsStr) -> Option<&str> {
    let (tag, ending) = name.to_str()?.rsplit_once('.')?;
    (is_tag(tag) && PIPES.iter().any(|(known, _)| *known == ending)).then_some(tag)
}

/// Whether a file of that name is a run's pipe.
pub(super) fn is_pipe(name: &OsStr) -> bool {
    tag_of_pipe(name).is_some()
}

/// The reader's end of a pipe whose name was removed, by way of a process that has it open as descriptor `number`. Not what
/// else may be there: an app's own pipe, say, is for somebody else to read.
fn nameless(pid: u32, number: u32, path: &Path) -> Option<File> {
    let descriptor = PathBuf::from(format!("/proc/{pid}/fd/{number}"));
    let (is, was) = (fs::read_link(&descriptor).ok()?, path.file_name()?);
    // As the kernel shows it (proc_pid_fd(5)). No name but a run's has its tag.
    let mut removed = was.to_owned();
    removed.push(" (deleted)");
    (is.file_name()? == removed).then(|| reading_end(&descriptor).ok()).flatten()
}

pub(super) fn reading_end(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.file_type().is_fifo() { Ok(file) } else { Err(io::Error::other("it is no pipe")) }
}

/// Looks after the keeper until the [`Output`] ends. Where runs are left for the next daemon, so is the keeper; this daemon
/// may have failed before it took them over.
async fn keep_keeper(mut keeper: Keeper, run_dir: PathBuf, renewal: Arc<Notify>, ending: CancellationToken) {
    let mut called = false;
    loop {
        tokio::select! {
            () = keeper.look_after(), if !called => called = true,
            () = renewal.notified() => {
                keeper.renew().await;
                called = false;
            }
            () = ending.cancelled() => break,
        }
    }
    let mut left = fs::read_dir(&run_dir).into_iter().flatten().flatten();
    if !left.any(|entry| is_pipe(&entry.file_name())) {
        keeper.dismiss().await;
    }
}

/// The thread: a task per pipe, until the [`Output`] ends.
async fn read_all(
    mut tasks: JoinSet<()>,
    mut queue: mpsc::Receiver<Source>,
    ending: CancellationToken,
    hush: watch::Receiver<bool>,
    passer: Passer,
) {
    loop {
        tokio::select! {
            source = queue.recv() => match source {
                Some(source) => drop(tasks.spawn(read_one(source, ending.clone(), hush.clone(), passer.clone()))),
                None => break,
            },
            Some(_) = tasks.join_next() => {}
            () = ending.cancelled() => break,
        }
    }
    ending.cancel();
    while tasks.join_next().await.is_some() {}
}

enum Event {
    Readable,
    Hush,
    Asked(oneshot::Sender<()>),
    End,
}

/// Reads one pipe until the run is gone, the output ends, or no writer is left.
async fn read_one(
    source: Source,
    ending: CancellationToken,
    mut hush: watch::Receiver<bool>,
    passer: Passer,
) {
    let Source { pipe, stream, log, mut asks } = source;
    let pipe = match pipe::Receiver::from_file(pipe) {
        Ok(pipe) => pipe,
        Err(error) => {
            tracing::error!(release = log.release(), %error, "cannot read what the app prints");
            return;
        }
    };
    let mut reader =
        Reader { pipe, stream, log, passer, splitter: Splitter::default(), chunk: vec![0; CHUNK] };
    loop {
        let hushed = *hush.borrow_and_update();
        let event = tokio::select! {
            ask = asks.recv() => ask.map_or(Event::End, Event::Asked),
            Ok(()) = hush.changed() => Event::Hush,
            readable = reader.pipe.readable(), if !hushed => if readable.is_ok() { Event::Readable } else { Event::End },
            () = ending.cancelled() => Event::End,
        };
        match event {
            Event::Readable => {
                if reader.read().is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
                    break;
                }
                // A pipe that is never empty must not keep the others waiting: nothing else here gives way.
                tokio::task::yield_now().await;
            }
            Event::Hush => {}
            // It is for somebody else to read.
            Event::Asked(_) if hushed => {}
            Event::End if hushed => return reader.rest(),
            Event::Asked(done) => {
                reader.read_what_is_there();
                let _ = done.send(());
            }
            Event::End => {
                reader.read_what_is_there();
                return;
            }
        }
    }
    reader.rest();
}

struct Reader {
    pipe: pipe::Receiver,
    stream: Stream,
    log: Arc<RunLog>,
    passer: Passer,
    splitter: Splitter,
    chunk: Vec<u8>,
}

impl Reader {
    /// Reads once, where the runtime has seen that there is something. The error `UnexpectedEof` says that no writer is
    /// left.
    fn read(&mut self) -> io::Result<()> {
        let count = self.pipe.try_read(&mut self.chunk)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.take(count);
        Ok(())
    }

    /// Reads what the pipe holds now, which is at most its size, however fast somebody goes on printing. Asks the kernel,
    /// not the runtime: that may not have been told yet of what was printed a moment ago.
    fn read_what_is_there(&mut self) {
        let mut left = usize::try_from(PIPE_SIZE).unwrap_or(CHUNK);
        while left > 0 {
            match nix::unistd::read(&self.pipe, &mut self.chunk) {
                Ok(0) => break,
                Ok(count) => {
                    self.take(count);
                    left = left.saturating_sub(count);
                }
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        self.rest();
    }

    fn take(&mut self, count: usize) {
        let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        let (log, passer, stream) = (&self.log, &self.passer, self.stream);
        self.splitter.feed(&self.chunk[..count], |line| publish(log, passer, stream, &at, line));
    }

    /// A last line without its end.
    fn rest(&mut self) {
        if let Some(line) = self.splitter.rest() {
            let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
            publish(&self.log, &self.passer, self.stream, &at, line);
        }
    }
}

fn publish(log: &RunLog, passer: &Passer, stream: Stream, at: &str, line: String) {
    let line = Arc::new(LogLine { at: at.to_owned(), release: log.release().to_owned(), stream, line });
    passer.pass(Arc::clone(&line));
    log.push(line);
}

/// A panic elsewhere leaves the lists whole: every change is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        // What the umask of whoever runs the tests takes is not looked at.
        let usual = folder.path().join("usual");
        fs::create_dir(&usual).unwrap();
        assert_eq!((mode(&shared), mode(&shared.join("web"))), (mode(&usual) & 0o755, 0o700));
    }

    #[tokio::test]
    async fn pipes_that_cannot_both_be_made_leave_no_name_behind() {
        let folder = tempfile::tempdir().unwrap();
        let output = Output::start("web", folder.path().join("run"), Sink::None, false).unwrap();
        let tag = "0".repeat(32);
        let [out, err] = output.pipes(&tag);
        fs::write(&err, "somebody's").unwrap();
        output.open(&tag, "r1", None).await.unwrap_err();
        assert!(!out.exists());
        assert!(err.exists(), "it is not ours");
    }
}
