//! Where the lines go beside the ring: a thread that may block, behind a queue that never does.
//!
//! A terminal that is stopped, a pipe that nobody reads or a journal that hangs holds up this
//! thread alone. Lines that do not fit into the queue meanwhile are counted, and the count is
//! printed once there is room again.

use std::collections::HashSet;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::thread;

use crate::plain::plain;
use crate::wire::{LogLine, Stream, WEB, called, is_step};

/// Lines that may wait: at most 8 MiB, if all have the longest length.
const QUEUE: usize = 512;
/// journald's socket for structured entries (systemd.journal-fields(7), "native protocol").
const JOURNAL: &str = "/run/systemd/journal/socket";

/// Where the lines of apps go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// To standard output, each behind `app | ` (`portok run`), or `app.1 | ` where several print.
    Stdout,
    /// To standard error, each with its release in front, and with which of several printed it (a
    /// daemon without a journal).
    Stderr,
    /// To the journal, under the instance's name as identifier (a daemon with one).
    Journal,
    /// Nowhere.
    None,
}

/// A line on its way.
#[derive(Debug)]
pub(super) struct Printed {
    /// The name of the app that printed it, where there are several.
    pub(super) app: Option<Arc<str>>,
    pub(super) line: Arc<LogLine>,
}

/// The reader's end of the queue.
#[derive(Debug, Clone)]
pub(super) struct Passer {
    /// `None` where lines go nowhere.
    queue: Option<SyncSender<Printed>>,
    dropped: Arc<AtomicU64>,
    /// Nothing is sent on it. When all its copies are gone, the last line was passed on.
    _end: Sender<()>,
}

impl Passer {
    /// Starts the thread. `end` is dropped when the thread and every clone of this have ended.
    pub(super) fn start(sink: Sink, instance: &str, end: Sender<()>) -> io::Result<Self> {
        let destination: Box<dyn Destination> = match sink {
            Sink::Stdout => Box::new(Plain::new(io::stdout(), Head::App)),
            Sink::Stderr => Box::new(Plain::new(io::stderr(), Head::Release)),
            Sink::Journal => Box::new(Journal::new(instance, Path::new(JOURNAL))?),
            Sink::None => return Ok(Self { queue: None, dropped: Arc::default(), _end: end }),
        };
        Self::to(destination, end)
    }

    fn to(mut destination: Box<dyn Destination>, end: Sender<()>) -> io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let (count, ends) = (Arc::clone(&dropped), end.clone());
        thread::Builder::new().name("portok-sink".to_owned()).spawn(move || {
            pass_on(&lines, destination.as_mut(), &count);
            drop(ends);
        })?;
        Ok(Self { queue: Some(queue), dropped, _end: end })
    }

    /// Passes a line on; counts it if there is no room. Never blocks.
    pub(super) fn pass(&self, line: Printed) {
        if let Some(queue) = &self.queue
            && queue.try_send(line).is_err()
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

trait Destination: Send {
    fn write(&mut self, app: Option<&str>, line: &LogLine) -> io::Result<()>;
    /// Called when everything that is there now was written.
    fn flush(&mut self) -> io::Result<()>;
}

fn pass_on(lines: &Receiver<Printed>, destination: &mut dyn Destination, dropped: &AtomicU64) {
    while let Ok(first) = lines.recv() {
        let mut next = Some(first);
        while let Some(Printed { app, line }) = next {
            // Where the sink is broken, the ring still has the line, and the next one is tried
            // again.
            let _ = destination.write(app.as_deref(), &line);
            let lost = dropped.swap(0, Ordering::Relaxed);
            if lost > 0 {
                let notice = format!("portok: {lost} lines of output were not passed on: too many at once");
                let _ = destination.write(
                    app.as_deref(),
                    &LogLine { stream: Stream::Stderr, line: notice, ..LogLine::clone(&line) },
                );
            }
            next = lines.try_recv().ok();
        }
        let _ = destination.flush();
    }
}

struct Plain<W> {
    to: W,
    head: Head,
    /// The apps of which others than the first replica print, too: each of their lines says whose
    /// it is from now on.
    several: HashSet<String>,
}

impl<W> Plain<W> {
    fn new(to: W, head: Head) -> Self {
        Self { to, head, several: HashSet::new() }
    }

    /// Which of several printed a line; `main` is what those are called that get requests.
    fn who(&mut self, app: Option<&str>, line: &LogLine, main: &str) -> Option<String> {
        let app = app.unwrap_or_default();
        let process = line.process.as_deref();
        let is_step = process.is_some_and(is_step);
        if !is_step && (line.replica > 0 || process.is_some()) {
            self.several.insert(app.to_owned());
        }
        (is_step || self.several.contains(app)).then(|| called(process, line.replica, main))
    }
}

/// What tells the app's lines from the daemon's own.
enum Head {
    App,
    Release,
}

impl<W: Write + Send> Destination for Plain<W> {
    fn write(&mut self, app: Option<&str>, line: &LogLine) -> io::Result<()> {
        // One write for a line, so that the daemon's own lines do not end up inside it.
        let text = plain(&line.line);
        let whole = match self.head {
            Head::App => {
                let who = self.who(app, line, "app");
                format!("{} | {text}\n", who.as_deref().unwrap_or("app"))
            }
            Head::Release => {
                let who = self.who(app, line, WEB);
                let head = app.into_iter().chain([&*line.release]).chain(who.as_deref());
                format!("[{}] {text}\n", head.collect::<Vec<_>>().join(" "))
            }
        };
        self.to.write_all(whole.as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
    instance: String,
}

impl Journal {
    fn new(instance: &str, path: &Path) -> io::Result<Self> {
        Ok(Self { socket: UnixDatagram::unbound()?, path: path.to_owned(), instance: instance.to_owned() })
    }
}

impl Destination for Journal {
    fn write(&mut self, app: Option<&str>, line: &LogLine) -> io::Result<()> {
        // No value has a newline in it, so the protocol's simple form is enough. 6 and 4 are
        // LOG_INFO and LOG_WARNING (syslog(3)).
        let priority = match line.stream {
            Stream::Stdout => 6,
            Stream::Stderr => 4,
        };
        let process = line.process.as_ref().map(|name| format!("PORTOK_PROCESS={name}\n"));
        let process = process.unwrap_or_default();
        let entry = format!(
            "SYSLOG_IDENTIFIER={0}\nPRIORITY={priority}\nPORTOK_APP={1}\nPORTOK_RELEASE={2}\n\
             PORTOK_REPLICA={3}\n{process}MESSAGE={4}\n",
            self.instance,
            app.unwrap_or(&self.instance),
            line.release,
            line.replica,
            line.line
        );
        // By name each time: a journald that was restarted has the same one.
        self.socket.send_to(entry.as_bytes(), &self.path).map(drop)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    const DEADLINE: Duration = Duration::from_secs(30);

    fn line(stream: Stream, text: &str) -> Arc<LogLine> {
        let (release, replica, process) = ("r7".into(), 0, None);
        Arc::new(LogLine { at: "now".into(), release, replica, process, stream, line: text.into() })
    }

    /// Blocks in every write until it gets a token.
    struct Gate {
        tokens: Receiver<()>,
        seen: Arc<Mutex<Vec<String>>>,
    }

    impl Destination for Gate {
        fn write(&mut self, _app: Option<&str>, line: &LogLine) -> io::Result<()> {
            let _ = self.tokens.recv();
            self.seen.lock().unwrap().push(line.line.clone());
            Ok(())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_blocked_sink_drops_counts_and_says_so() {
        let (open, tokens) = channel();
        let (end, ended) = channel();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let passer = Passer::to(Box::new(Gate { tokens, seen: Arc::clone(&seen) }), end).unwrap();
        let sent = QUEUE + 100;
        for number in 0..sent {
            passer.pass(Printed { app: None, line: line(Stream::Stdout, &number.to_string()) });
        }
        drop(open);
        drop(passer);
        assert!(
            ended
                .recv_timeout(DEADLINE)
                .is_err_and(|error| error == std::sync::mpsc::RecvTimeoutError::Disconnected)
        );
        let seen = seen.lock().unwrap();
        let notice = seen.iter().find(|line| line.starts_with("portok: ")).unwrap();
        let lost: usize = notice.split(' ').nth(1).unwrap().parse().unwrap();
        assert_eq!(seen.len() - 1 + lost, sent);
        assert!((99..=100).contains(&lost), "{notice}");
    }

    #[test]
    fn plain_lines_are_told_from_the_daemons_own() {
        let mut plain = Plain::new(Vec::new(), Head::Release);
        plain.write(None, &line(Stream::Stdout, "\x1b[1mhello")).unwrap();
        plain.head = Head::App;
        plain.write(None, &line(Stream::Stderr, "there")).unwrap();
        plain.head = Head::Release;
        plain.write(Some("api"), &line(Stream::Stdout, "of several")).unwrap();
        assert_eq!(plain.to, b"[r7] hello\napp | there\n[api r7] of several\n");
    }

    #[test]
    fn the_lines_of_several_replicas_are_told_apart() {
        let mut plain = Plain::new(Vec::new(), Head::App);
        let one = line(Stream::Stdout, "x");
        let of = |replica, process: Option<&str>| LogLine {
            replica,
            process: process.map(str::to_owned),
            ..LogLine::clone(&one)
        };
        for line in [of(0, Some("before")), of(0, None), of(1, None), of(0, None), of(0, Some("worker"))] {
            plain.write(None, &line).unwrap();
        }
        plain.head = Head::Release;
        plain.write(None, &of(0, None)).unwrap();
        plain.write(Some("api"), &of(0, None)).unwrap();
        let told = String::from_utf8(plain.to).unwrap();
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines[..5], ["before | x", "app | x", "app.1 | x", "app.0 | x", "worker.0 | x"]);
        assert_eq!(lines[5..], ["[r7 web.0] x", "[api r7] x"]);
    }

    #[test]
    fn a_journal_entry_has_the_fields_of_the_native_protocol() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        journald.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut journal = Journal::new("web", &path).unwrap();
        journal.write(None, &line(Stream::Stderr, "oh = no")).unwrap();
        let mut buffer = [0; 256];
        let count = journald.recv(&mut buffer).unwrap();
        let entry = std::str::from_utf8(&buffer[..count]).unwrap();
        assert_eq!(
            entry,
            "SYSLOG_IDENTIFIER=web\nPRIORITY=4\nPORTOK_APP=web\nPORTOK_RELEASE=r7\n\
             PORTOK_REPLICA=0\nMESSAGE=oh = no\n"
        );
        let one = line(Stream::Stdout, "x");
        let worker = LogLine { replica: 1, process: Some("worker".into()), ..LogLine::clone(&one) };
        journal.write(Some("shop"), &worker).unwrap();
        let count = journald.recv(&mut buffer).unwrap();
        let entry = std::str::from_utf8(&buffer[..count]).unwrap();
        assert!(entry.ends_with("PORTOK_REPLICA=1\nPORTOK_PROCESS=worker\nMESSAGE=x\n"), "{entry}");
        // Without a journald only the lines are lost.
        drop(journald);
        std::fs::remove_file(&path).unwrap();
        assert!(journal.write(None, &line(Stream::Stdout, "x")).is_err());
    }
}
