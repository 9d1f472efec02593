//! The thread that writes lines, and who holds it.
//!
//! The thread sleeps while nothing comes. Once something has come it writes what is there, and then
//! pauses for a moment, so that a busy data plane wakes it a few times a second and not once a
//! request.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::destination::Destination;
use super::line;
use super::record::{Message, Recorder};
use crate::config::{Access, AccessFile, AccessFormat};

/// Entries that may wait, at most about 30 MiB if all of them have the longest texts.
const QUEUE: usize = 4096;

/// How long the thread lets entries come together.
const PAUSE: Duration = Duration::from_millis(10);

/// About how many bytes are written at a time.
const BATCH: usize = 64 * 1024;

/// How often it is said at most that lines are lost.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// An access log that is written. Dropped, its thread ends once no [`Recorder`] is left and all is
/// written.
#[derive(Debug)]
pub struct Log {
    file: AccessFile,
    format: AccessFormat,
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    reopen: Arc<AtomicBool>,
    /// Ends with the thread.
    over: Receiver<()>,
}

impl Log {
    /// Opens the log of `access`, and starts its thread. `None`: there is none. `dropped` counts
    /// the lines that are lost.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread not be started.
    pub fn start(access: &Access, dropped: Arc<AtomicU64>) -> io::Result<Option<Self>> {
        let Some(destination) = Destination::open(&access.file)? else { return Ok(None) };
        Self::to(destination, access, dropped).map(Some)
    }

    fn to(destination: Destination, access: &Access, dropped: Arc<AtomicU64>) -> io::Result<Self> {
        let (file, format) = (access.file.clone(), access.format);
        let (queue, entries) = sync_channel(QUEUE);
        let (end, over) = channel();
        let reopen = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            destination,
            file: file.clone(),
            format,
            reopen: Arc::clone(&reopen),
            dropped: Arc::clone(&dropped),
            said: None,
        };
        thread::Builder::new().name("portok-access".to_owned()).spawn(move || writer.run(&entries, end))?;
        Ok(Self { file, format, queue, dropped, reopen, over })
    }

    /// Whether it is the log of `access`, which may differ in which requests get a line.
    pub fn is_of(&self, access: &Access) -> bool {
        (&self.file, self.format) == (&access.file, access.format)
    }

    /// Takes the entries of requests, of which `access` says which get a line.
    pub fn recorder(&self, access: &Access) -> Arc<Recorder> {
        Arc::new(Recorder::new(self.queue.clone(), Arc::clone(&self.dropped), access))
    }

    /// Has the file opened anew, before the next line is written.
    pub fn reopen(&self) {
        self.reopen.store(true, Ordering::SeqCst);
        // Where the queue is full the thread has something to do anyway.
        let _full = self.queue.try_send(Message::Look);
    }

    /// Waits until all that was recorded is written, but not longer than `time`: nobody knows when
    /// a pipe is read. Every [`Recorder`] has to be gone.
    pub fn finish(self, time: Duration) {
        let Self { queue, over, .. } = self;
        drop(queue);
        // Nothing is ever sent.
        if over.recv_timeout(time) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the access log was not written to its end within {time:?}");
        }
    }
}

/// What the thread has.
struct Writer {
    destination: Destination,
    file: AccessFile,
    format: AccessFormat,
    reopen: Arc<AtomicBool>,
    dropped: Arc<AtomicU64>,
    /// How many lines were lost when that was last said, and when.
    said: Option<(u64, Instant)>,
}

impl Writer {
    /// Writes until nobody is left who could record anything.
    fn run(mut self, entries: &Receiver<Message>, _end: Sender<()>) {
        let mut lines = String::new();
        while let Ok(first) = entries.recv() {
            self.look();
            let mut next = Some(first);
            while let Some(message) = next {
                if let Message::Entry(entry) = message {
                    line::write(&mut lines, &entry, self.format);
                }
                if lines.len() >= BATCH {
                    self.write(&mut lines);
                }
                next = entries.try_recv().ok();
            }
            self.write(&mut lines);
            self.say();
            thread::park_timeout(PAUSE);
        }
    }

    /// Opens the file anew, if that is asked for. Where it cannot be opened, the former one goes
    /// on.
    fn look(&mut self) {
        if !self.reopen.swap(false, Ordering::SeqCst) {
            return;
        }
        match Destination::open(&self.file) {
            Ok(Some(destination)) => {
                self.destination = destination;
                tracing::info!("the access log was opened anew");
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!("the access log cannot be opened anew, the former file goes on: {error}")
            }
        }
    }

    fn write(&mut self, lines: &mut String) {
        self.look();
        if let Err((lost, error)) = self.destination.write(lines) {
            self.dropped.fetch_add(lost, Ordering::Relaxed);
            tracing::debug!(%error, lost, "the access log cannot be written");
        }
        lines.clear();
        lines.shrink_to(2 * BATCH);
    }

    /// Says that lines were lost, if more were than the last time.
    fn say(&mut self) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        let (before, at) = self.said.map_or((0, None), |(before, at)| (before, Some(at)));
        if dropped > before && at.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            let lost = dropped - before;
            tracing::warn!("{lost} lines of the access log were lost: it is full, or nobody reads it");
            self.said = Some((dropped, Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::net::Ipv4Addr;
    use std::path::Path;
    use std::sync::mpsc::channel;

    use super::*;
    use crate::access::{Entry, Text};

    const DEADLINE: Duration = Duration::from_secs(30);

    fn access(file: AccessFile) -> Access {
        Access { file, format: AccessFormat::Combined, query: false, sample: 1.0, slow: DEADLINE }
    }

    fn entry(number: usize) -> Box<Entry> {
        let mut entry = Entry::new(Ipv4Addr::LOCALHOST.into(), "HTTP/1.1");
        entry.set(Text::Path, format!("/{number}").as_bytes());
        Box::new(entry)
    }

    fn paths(text: &str) -> Vec<usize> {
        let number = |line: &str| line.split("/").nth(3)?.split(' ').next()?.parse().ok();
        text.lines().map(|line| number(line).unwrap_or_else(|| panic!("{line}"))).collect()
    }

    #[test]
    fn a_rotation_loses_no_line() {
        let folder = tempfile::tempdir().unwrap();
        let (path, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let dropped = Arc::new(AtomicU64::new(0));
        let access = access(AccessFile::Path(path.clone()));
        let log = Log::start(&access, Arc::clone(&dropped)).unwrap().unwrap();
        let recorder = log.recorder(&access);
        (0..1000).for_each(|number| recorder.record(entry(number)));
        fs::rename(&path, &rotated).unwrap();
        log.reopen();
        (1000..2000).for_each(|number| recorder.record(entry(number)));
        drop(recorder);
        log.finish(DEADLINE);
        let read = |path: &Path| paths(&fs::read_to_string(path).unwrap());
        let (first, second) = (read(&rotated), read(&path));
        assert_eq!([first, second].concat(), (0..2000).collect::<Vec<_>>());
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_file_that_cannot_be_opened_anew_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (inner, moved) = (folder.path().join("logs"), folder.path().join("moved"));
        fs::create_dir(&inner).unwrap();
        let access = access(AccessFile::Path(inner.join("access.log")));
        let log = Log::start(&access, Arc::default()).unwrap().unwrap();
        fs::rename(&inner, &moved).unwrap();
        log.reopen();
        log.recorder(&access).record(entry(7));
        log.finish(DEADLINE);
        assert_eq!(paths(&fs::read_to_string(moved.join("access.log")).unwrap()), [7]);
    }

    /// Blocks in every write until it gets a token.
    struct Gate(Receiver<()>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_blocked_log_holds_nobody_up_and_counts() {
        let (open, tokens) = channel();
        let dropped = Arc::new(AtomicU64::new(0));
        let access = access(AccessFile::Stdout);
        let gate = Destination::new(Box::new(Gate(tokens)));
        let log = Log::to(gate, &access, Arc::clone(&dropped)).unwrap();
        let recorder = log.recorder(&access);
        let sent = 3 * QUEUE;
        (0..sent).for_each(|number| recorder.record(entry(number)));
        let lost = dropped.load(Ordering::Relaxed);
        assert!(lost > 0 && lost <= (sent - QUEUE) as u64, "{lost} of {sent}");
        drop(open);
        drop(recorder);
        log.finish(DEADLINE);
    }
}
