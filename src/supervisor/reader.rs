//! The thread that reads what all apps print: one task for each pipe.
//!
//! The thread has a runtime of its own, so that a flood takes the reader's time and not the control
//! plane's. It ends with the [`Reader`]; dropping that waits a moment, so that the last lines reach
//! the sink.
//!
//! Because an app holds its own pipe open for reading too, an end of file says little: the reading
//! of a pipe stops when its [`PipeReading`] is dropped, after what is left in the pipe was read.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, mpsc as blocking};
use std::thread;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use tokio::net::unix::pipe;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::keeper::Keeper;
use super::pipe::{PIPE_SIZE, PipeFolder};
use super::ring::{RunLog, Splitter};
use super::sink::{Passer, Printed, Sink};
use crate::wire::Stream;

/// How much is read at once.
const CHUNK: usize = 64 << 10;
/// Pipes that may wait to be read.
const QUEUE: usize = 16;
/// Requests to catch up that may wait at a pipe.
const ASKS: usize = 4;
/// How long the end of the daemon waits for the last lines to reach the sink.
const LAST_LINES_DEADLINE: Duration = Duration::from_secs(1);

/// The handle on the thread.
#[derive(Debug)]
pub(super) struct Reader {
    sources: mpsc::Sender<Source>,
    ending: CancellationToken,
    /// While set, nothing is read: what is printed waits in the pipes.
    hushed: watch::Sender<bool>,
    // A mutex only because the receiver is not `Sync`; used once, at the end.
    ended: Mutex<blocking::Receiver<()>>,
    /// Has the thread replace its keeper.
    renewal: Arc<Notify>,
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

/// Keeps a pipe being read. Dropping it ends the reading.
#[derive(Debug)]
pub(super) struct PipeReading {
    asks: mpsc::Sender<oneshot::Sender<()>>,
}

impl Reader {
    /// Starts the thread, and the one behind `sink`. With `keeper`, one for the pipes in `folder`
    /// belongs to the thread.
    pub(super) fn start(instance: &str, folder: &PipeFolder, sink: Sink, keeper: bool) -> io::Result<Self> {
        let (sources, queue) = mpsc::channel(QUEUE);
        let ending = CancellationToken::new();
        let (end, ended) = blocking::channel();
        let passer = Passer::start(sink, instance, end)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let mut tasks = JoinSet::new();
        let renewal = Arc::new(Notify::new());
        if keeper {
            let _of_the_thread = runtime.enter();
            let keeper = Keeper::start(folder.path());
            tasks.spawn(keeper.run(Arc::clone(&renewal), ending.clone()));
        }
        let stop = ending.clone();
        let (hushed, hush) = watch::channel(false);
        thread::Builder::new()
            .name("portok-output".to_owned())
            .spawn(move || runtime.block_on(read_all(tasks, queue, stop, hush, passer)))?;
        Ok(Self { sources, ending, hushed, ended: Mutex::new(ended), renewal })
    }

    /// Begins to read a pipe into `log`.
    ///
    /// # Errors
    /// The thread has ended.
    pub(super) async fn read(
        &self,
        pipe: File,
        stream: Stream,
        log: &Arc<RunLog>,
    ) -> io::Result<PipeReading> {
        let (ask, asks) = mpsc::channel(ASKS);
        let source = Source { pipe, stream, log: Arc::clone(log), asks };
        self.sources.send(source).await.map_err(|_| io::Error::other("the reader's thread has ended"))?;
        Ok(PipeReading { asks: ask })
    }

    /// Leaves what is printed from now on in the pipes; `false` reads it again.
    pub(super) fn hush(&self, hushed: bool) {
        self.hushed.send_replace(hushed);
    }

    /// Starts a new keeper where a successor dismissed the former one, but did not take over.
    pub(super) fn renew_keeper(&self) {
        self.renewal.notify_one();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.ending.cancel();
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(LAST_LINES_DEADLINE);
    }
}

impl PipeReading {
    /// Waits until what is in the pipe now is in the log. At once where the reading has ended.
    pub(super) async fn catch_up(&self) {
        let (done, read) = oneshot::channel();
        if self.asks.send(done).await.is_ok() {
            let _ = read.await;
        }
    }
}

/// The thread's work, until the [`Reader`] is dropped.
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

enum PipeEvent {
    Readable,
    Hush,
    Asked(oneshot::Sender<()>),
    End,
}

/// Reads one pipe until the run is gone, the thread ends, or no writer is left.
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
        PipeReader { pipe, stream, log, passer, splitter: Splitter::default(), chunk: vec![0; CHUNK] };
    loop {
        let hushed = *hush.borrow_and_update();
        let event = tokio::select! {
            ask = asks.recv() => ask.map_or(PipeEvent::End, PipeEvent::Asked),
            Ok(()) = hush.changed() => PipeEvent::Hush,
            readable = reader.pipe.readable(), if !hushed => {
                if readable.is_ok() { PipeEvent::Readable } else { PipeEvent::End }
            }
            () = ending.cancelled() => PipeEvent::End,
        };
        match event {
            PipeEvent::Readable => {
                if reader.read().is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock) {
                    break;
                }
                // Nothing else here gives way: without this, a pipe that is never empty would keep
                // the others waiting.
                tokio::task::yield_now().await;
            }
            PipeEvent::Hush => {}
            // What is in the pipe is the successor's to read.
            PipeEvent::Asked(_) if hushed => {}
            PipeEvent::End if hushed => return reader.rest(),
            PipeEvent::Asked(done) => {
                reader.read_what_is_there();
                let _ = done.send(());
            }
            PipeEvent::End => {
                reader.read_what_is_there();
                return;
            }
        }
    }
    reader.rest();
}

struct PipeReader {
    pipe: pipe::Receiver,
    stream: Stream,
    log: Arc<RunLog>,
    passer: Passer,
    splitter: Splitter,
    chunk: Vec<u8>,
}

impl PipeReader {
    /// Reads once, where the runtime has seen that something is there. The error `UnexpectedEof`
    /// says that no writer is left.
    fn read(&mut self) -> io::Result<()> {
        let count = self.pipe.try_read(&mut self.chunk)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.take(count);
        Ok(())
    }

    /// Reads what the pipe holds now, at most its size, however fast the app goes on printing. Asks
    /// the kernel: the runtime may not have heard yet of what was printed a moment ago.
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

    /// Takes a last line without its end.
    fn rest(&mut self) {
        if let Some(line) = self.splitter.rest() {
            let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
            publish(&self.log, &self.passer, self.stream, &at, line);
        }
    }
}

fn publish(log: &RunLog, passer: &Passer, stream: Stream, at: &str, line: String) {
    let line = Arc::new(log.line(at, stream, line));
    passer.pass(Printed { app: log.app().cloned(), line: Arc::clone(&line) });
    log.push(line);
}
