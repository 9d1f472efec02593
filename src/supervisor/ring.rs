//! The last lines of a run, and how bytes become lines.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use crate::wire::{LogLine, LogsRequest, Stream};

/// The longest line in bytes; a longer one goes on in the next.
pub(super) const LINE_LIMIT: usize = 16 << 10;
/// How many lines of a run are remembered.
const LINES: usize = 1000;
/// How many bytes of a run's lines are remembered.
const BYTES: usize = 256 << 10;
/// How many lines a follower may be behind.
const FOLLOW: usize = 256;

/// Numbers all lines of all runs in the order in which they were read.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// Whose lines they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Printer {
    pub(super) release: String,
    /// The number of its place.
    pub(super) replica: u16,
    /// Which companion of the release it is, or which step of a deploy.
    pub(super) process: Option<Arc<str>>,
}

/// What one run printed: its last lines, and those who follow it.
#[derive(Debug)]
pub(super) struct RunLog {
    /// The name of its app, where there are several.
    app: Option<Arc<str>>,
    printer: Printer,
    ring: Mutex<Ring>,
    followers: broadcast::Sender<Arc<LogLine>>,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<(u64, Arc<LogLine>)>,
    bytes: usize,
}

impl RunLog {
    pub(super) fn new(app: Option<Arc<str>>, printer: Printer) -> Self {
        let (followers, _) = broadcast::channel(FOLLOW);
        Self { app, printer, ring: Mutex::default(), followers }
    }

    pub(super) fn app(&self) -> Option<&Arc<str>> {
        self.app.as_ref()
    }

    pub(super) fn release(&self) -> &str {
        &self.printer.release
    }

    /// Whether its lines are wanted.
    pub(super) fn is_wanted(&self, wanted: &LogsRequest) -> bool {
        let Printer { release, replica, process } = &self.printer;
        wanted.wants(release, *replica, process.as_deref())
    }

    /// The line of this text, which was read `at` this moment.
    pub(super) fn line(&self, at: &str, stream: Stream, line: String) -> LogLine {
        let Printer { release, replica, process } = self.printer.clone();
        let process = process.map(|process| process.to_string());
        LogLine { at: at.to_owned(), release, replica, process, stream, line }
    }

    pub(super) fn push(&self, line: Arc<LogLine>) {
        {
            let mut ring = self.lock();
            ring.bytes += line.line.len();
            ring.lines.push_back((NEXT.fetch_add(1, Ordering::Relaxed), Arc::clone(&line)));
            while ring.lines.len() > LINES || ring.bytes > BYTES {
                let Some((_, oldest)) = ring.lines.pop_front() else { break };
                ring.bytes -= oldest.line.len();
            }
        }
        // Without followers this is an error, and does nothing.
        let _ = self.followers.send(line);
    }

    pub(super) fn lines(&self) -> Vec<Arc<LogLine>> {
        self.lock().lines.iter().map(|(_, line)| Arc::clone(line)).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().lines.is_empty()
    }

    /// The lines with their numbers, to merge them with those of other runs.
    pub(super) fn numbered(&self) -> Vec<(u64, Arc<LogLine>)> {
        self.lock().lines.iter().cloned().collect()
    }

    pub(super) fn follow(&self) -> broadcast::Receiver<Arc<LogLine>> {
        self.followers.subscribe()
    }

    /// A panic elsewhere leaves the ring readable: at worst its count of bytes is off by a line.
    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Cuts a stream of bytes into lines of at most [`LINE_LIMIT`] bytes.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    partial: Vec<u8>,
}

impl Splitter {
    /// Takes the next bytes and gives the lines that are complete to `line`.
    pub(super) fn feed(&mut self, bytes: &[u8], mut line: impl FnMut(String)) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (piece, complete) = match piece.strip_suffix(b"\n") {
                Some(piece) => (piece, true),
                None => (piece, false),
            };
            self.partial.extend_from_slice(piece);
            while self.partial.len() > LINE_LIMIT {
                let rest = self.partial.split_off(boundary(&self.partial));
                line(text(&self.partial));
                self.partial = rest;
            }
            if complete {
                line(text(self.partial.strip_suffix(b"\r").unwrap_or(&self.partial)));
                self.partial.clear();
            }
        }
    }

    /// Takes what is there without a line's end.
    pub(super) fn rest(&mut self) -> Option<String> {
        let rest = std::mem::take(&mut self.partial);
        (!rest.is_empty()).then(|| text(&rest))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Where to cut a line that is too long: not in the middle of a character.
fn boundary(bytes: &[u8]) -> usize {
    (LINE_LIMIT - 3..=LINE_LIMIT).rev().find(|&at| bytes[at] & 0xc0 != 0x80).unwrap_or(LINE_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn printer() -> Printer {
        Printer { release: "r".into(), replica: 0, process: None }
    }

    fn split(chunks: &[&[u8]]) -> Vec<String> {
        let (mut splitter, mut lines) = (Splitter::default(), Vec::new());
        for chunk in chunks {
            splitter.feed(chunk, |line| lines.push(line));
        }
        lines.extend(splitter.rest());
        lines
    }

    fn line(text: String) -> Arc<LogLine> {
        Arc::new(RunLog::new(None, printer()).line("", Stream::Stdout, text))
    }

    #[test]
    fn lines_come_out_whole_however_they_went_in() {
        assert_eq!(
            split(&[b"one\ntw", b"o\r\n", b"\n\x1b[1mthree\x1b[0m"]),
            ["one", "two", "", "\x1b[1mthree\x1b[0m"]
        );
        assert_eq!(split(&[b"a\xffb\n"]), ["a\u{fffd}b"]);
        assert_eq!(split(&[b"ab", b"\n", b""]), ["ab"]);
    }

    #[test]
    fn a_long_line_is_cut_between_characters_and_loses_nothing() {
        let long = "ä€😀x".repeat(30_000);
        let lines = split(&[long.as_bytes(), b"\nend\n"]);
        assert!(lines.iter().all(|line| line.len() <= LINE_LIMIT));
        assert_eq!(lines[..lines.len() - 1].concat(), long);
        assert_eq!(lines.last().unwrap(), "end");
        let exact = "x".repeat(LINE_LIMIT);
        assert_eq!(split(&[exact.as_bytes(), b"\n"]), [exact]);
    }

    #[test]
    fn the_ring_is_bounded_by_lines_and_by_bytes() {
        let log = RunLog::new(None, printer());
        for number in 0..LINES + 5 {
            log.push(line(number.to_string()));
        }
        let lines = log.lines();
        assert_eq!((lines.len(), lines[0].line.as_str()), (LINES, "5"));
        for _ in 0..40 {
            log.push(line("x".repeat(LINE_LIMIT)));
        }
        let bytes: usize = log.lines().iter().map(|line| line.line.len()).sum();
        assert!(bytes <= BYTES && bytes > BYTES - 2 * LINE_LIMIT, "{bytes}");
    }

    proptest! {
        #[test]
        fn no_bytes_are_lost(chunks in proptest::collection::vec("[a-c\n]{0,50}", 0..10)) {
            let whole = chunks.concat();
            let bytes: Vec<&[u8]> = chunks.iter().map(String::as_bytes).collect();
            prop_assert_eq!(split(&bytes), whole.lines().map(str::to_owned).collect::<Vec<_>>());
        }
    }
}
