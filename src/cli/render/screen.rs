//! Standard output, standard error, and the live line that a terminal redraws.
//!
//! A failed write never stops a command: a deploy goes on although nobody reads about it. An error
//! of standard output is kept and reported at the end. A closed pipe is no error: its reader had
//! enough.

use std::io::{self, IsTerminal as _, Write};
use std::os::fd::AsFd;

use anstream::{AutoStream, ColorChoice};
use serde_json::Value;
use tokio::io::Interest;
use tokio::net::unix::pipe;

use super::super::asking::Address;
use super::super::failure::Failure;
use crate::plain;
use crate::wire::exit;

/// Clears the terminal's line, and moves the cursor to its start.
const CLEAR: &str = "\r\x1b[2K";

/// Switches line wrapping off and on, so that a long live line is cut and never becomes two.
const NO_WRAP: (&str, &str) = ("\x1b[?7l", "\x1b[?7h");

/// Completes when nobody reads `out` any more. Never completes if that cannot be known, as for a
/// file.
pub(crate) async fn reader_gone(out: impl AsFd) {
    // Unchecked: the checked form would make the output non-blocking for every process that shares
    // it.
    let out = out.as_fd().try_clone_to_owned().and_then(pipe::Sender::from_owned_fd_unchecked);
    let is_gone = match out {
        Ok(out) => out.ready(Interest::ERROR).await.is_ok(),
        Err(_) => false,
    };
    if !is_gone {
        std::future::pending::<()>().await;
    }
}

/// The two outputs of a command, and the live line.
pub(crate) struct Screen {
    out: Sink,
    err: Sink,
    out_error: Option<io::Error>,
    is_line_drawn: bool,
}

/// One of the two outputs.
pub(crate) struct Sink {
    to: Box<dyn Write + Send>,
    has_colour: bool,
    is_terminal: bool,
}

impl Sink {
    /// An output, whether it shows colours, and whether it is a terminal.
    pub(crate) fn new(to: impl Write + Send + 'static, has_colour: bool, is_terminal: bool) -> Self {
        Self { to: Box::new(to), has_colour, is_terminal }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        if self.has_colour {
            self.to.write_all(text.as_bytes())?;
        } else {
            self.to.write_all(anstream::adapter::strip_str(text).to_string().as_bytes())?;
        }
        self.to.flush()
    }
}

impl Screen {
    /// The outputs of this process.
    pub(crate) fn of_process() -> Self {
        let (out, err) = (io::stdout(), io::stderr());
        let out_colour = AutoStream::choice(&out) != ColorChoice::Never;
        let err_colour = AutoStream::choice(&err) != ColorChoice::Never;
        // A dumb terminal cannot redraw a line.
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let (out_terminal, err_terminal) = (out.is_terminal(), err.is_terminal() && !is_dumb);
        Self::new(Sink::new(out, out_colour, out_terminal), Sink::new(err, err_colour, err_terminal))
    }

    /// A screen on two outputs.
    pub(crate) fn new(out: Sink, err: Sink) -> Self {
        Self { out, err, out_error: None, is_line_drawn: false }
    }

    /// Whether the live line is drawn.
    pub(crate) fn is_live(&self) -> bool {
        self.err.is_terminal
    }

    /// Whether writing to standard output has failed.
    pub(crate) fn is_out_closed(&self) -> bool {
        self.out_error.is_some()
    }

    /// Prints text on standard output, and ends its last line.
    pub(crate) fn data(&mut self, text: &str) {
        self.line(None);
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        let result = self.out.write(&format!("{text}{end}"));
        self.remember(result);
    }

    /// Prints bytes on standard output as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let result = self.out.to.write_all(bytes).and_then(|()| self.out.to.flush());
        self.remember(result);
    }

    /// Prints one JSON value on standard output.
    pub(crate) fn value(&mut self, value: &Value) {
        self.line(None);
        self.bytes(plain::json(&format!("{value:#}\n")).as_bytes());
    }

    /// Prints text on standard error.
    pub(crate) fn note(&mut self, text: &str) {
        self.line(None);
        let end = if text.ends_with('\n') { "" } else { "\n" };
        self.tell(&format!("{text}{end}"));
    }

    /// Redraws the live line, or removes it with `None`. Does nothing without a terminal.
    pub(crate) fn line(&mut self, text: Option<&str>) {
        if !self.is_live() || (text.is_none() && !self.is_line_drawn) {
            return;
        }
        // Cursor codes must not go through the colour filter.
        let drawn = text.map_or_else(String::new, |text| {
            let text = if self.err.has_colour {
                text.to_owned()
            } else {
                anstream::adapter::strip_str(text).to_string()
            };
            format!("{}{text}{}", NO_WRAP.0, NO_WRAP.1)
        });
        self.is_line_drawn = text.is_some();
        let result =
            self.err.to.write_all(format!("{CLEAR}{drawn}").as_bytes()).and_then(|()| self.err.to.flush());
        drop(result);
    }

    /// Ends the printing and returns the exit code: `code`, unless data was lost.
    pub(crate) fn close(&mut self, code: u8) -> u8 {
        match self.out_error.take() {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                let failure = Failure::Output { cause: format!("cannot write to standard output: {error}") };
                self.note(&super::failure(&failure, &Address::default()));
                if code == exit::DONE { failure.exit_code() } else { code }
            }
            _ => code,
        }
    }

    fn remember(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            self.out_error.get_or_insert(error);
        }
    }

    /// Writes to standard error. If that fails, there is no place to report it.
    fn tell(&mut self, text: &str) {
        drop(self.err.write(text));
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::Paper;
    use super::*;

    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_error_and_a_full_disk_is_one() {
        for (kind, code) in [(io::ErrorKind::BrokenPipe, 0), (io::ErrorKind::StorageFull, 1)] {
            let paper = Paper::default();
            let mut screen =
                Screen::new(Sink::new(Broken(kind), false, false), Sink::new(paper.clone(), false, false));
            screen.data("x");
            assert!(screen.is_out_closed());
            assert_eq!(screen.close(0), code, "{kind:?}");
            assert_eq!(paper.text().is_empty(), code == 0);
            screen.data("x");
            assert_eq!(screen.close(5), 5);
        }
    }

    #[tokio::test]
    async fn a_reader_that_went_is_noticed_without_writing() {
        let (reader, writer) = io::pipe().unwrap();
        let mut gone = std::pin::pin!(reader_gone(writer));
        let soon = std::time::Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, gone.as_mut()).await.is_err(), "the reader is still there");
        drop(reader);
        tokio::time::timeout(std::time::Duration::from_secs(30), gone).await.expect("noticed");
    }

    #[test]
    fn the_live_line_is_cleared_before_anything_else_is_printed() {
        let paper = Paper::default();
        let sink = |terminal| Sink::new(paper.clone(), false, terminal);
        let mut screen = Screen::new(sink(false), sink(true));
        screen.line(None);
        assert_eq!(paper.text(), "");
        screen.line(Some("waiting"));
        screen.note("done");
        screen.note("again");
        assert_eq!(paper.text(), "\r\x1b[2K\x1b[?7lwaiting\x1b[?7h\r\x1b[2Kdone\nagain\n");
    }

    #[test]
    fn without_a_terminal_there_is_no_live_line_and_no_colour() {
        let paper = Paper::default();
        let sink = || Sink::new(paper.clone(), false, false);
        let mut screen = Screen::new(sink(), sink());
        screen.line(Some("waiting"));
        screen.data("\x1b[1mbold\x1b[0m");
        assert_eq!(paper.text(), "bold\n");
    }
}
