//! The progress of a deploy or rollback: a permanent line for each event, and a live line for what
//! is awaited.
//!
//! Pure: events and times go in, text comes out.

use std::fmt::Write as _;

use tokio::time::Instant;

use super::failure::probe_text;
use super::words::{BUSY, DIM, GOOD, STRONG, count, duration, movement, paint, place, plain, port};
use crate::wire::{EventKind, StreamEvent};

/// The spinner of the live line; one step per redraw.
const TURNS: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

/// How many lines of the app's output are shown: what else it prints would hide what happens.
const SHOWN_LINES: usize = 30;

/// The progress of one operation.
#[derive(Debug)]
pub(crate) struct Progress {
    began: Instant,
    caller: Option<String>,
    spawned: Option<Instant>,
    release: Option<String>,
    waits_for: String,
    turn: std::cell::Cell<usize>,
    /// The lines of the app's output that were shown.
    output: Vec<String>,
    /// How many were not.
    left_out: usize,
}

impl Progress {
    /// The progress of an operation requested at `began`. `caller` is the directory in which its
    /// command runs unless the daemon has another.
    pub(crate) fn new(began: Instant, caller: Option<String>) -> Self {
        Self {
            began,
            caller,
            spawned: None,
            release: None,
            waits_for: "waiting for the daemon".to_owned(),
            turn: std::cell::Cell::new(0),
            output: Vec::new(),
            left_out: 0,
        }
    }

    /// The release, once the daemon has named it.
    pub(crate) fn release(&self) -> Option<&str> {
        self.release.as_deref()
    }

    /// Takes in an event, and returns its permanent line, if it has one.
    pub(crate) fn event(&mut self, event: &StreamEvent, now: Instant) -> Option<String> {
        let release = plain(&event.release);
        self.release.get_or_insert_with(|| event.release.clone());
        let told = |style, word: &str, text: String| {
            Some(self.stamped(now, &format!("{} {text}", paint(style, format_args!("{word:<11}")))))
        };
        match event.event {
            EventKind::Accepted => {
                let line = told(STRONG, "accepted", format!("release `{release}`{}", self.runs_in(event)));
                self.waits_for = "starting".to_owned();
                line
            }
            EventKind::BeforeStarted | EventKind::VerifyStarted => {
                let step = step(event.event);
                let pid = event.pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
                let line = told(STRONG, "running", format!("{step}{pid}"));
                self.waits_for = format!("running {step}");
                line
            }
            EventKind::BeforeEnded | EventKind::VerifyEnded => {
                let line = told(DIM, "ended", format!("{}: {}", step(event.event), self.message(event)));
                self.waits_for = "going on".to_owned();
                line
            }
            EventKind::Spawned if event.process.is_some() => {
                let process = event.process.as_deref().map(plain).unwrap_or_default();
                let pid = event.pid.map(|pid| format!(", pid {pid}")).unwrap_or_default();
                told(STRONG, "started", format!("process {process}{pid}"))
            }
            EventKind::Spawned => {
                let pid = event.pid.map(|pid| format!("pid {pid}, ")).unwrap_or_default();
                let line = told(STRONG, "started", format!("{pid}port {}", port(event.port)));
                self.spawned = Some(now);
                self.waits_for = "waiting for health".to_owned();
                line
            }
            EventKind::Probe => {
                let seen = event.probe.as_ref().map_or_else(|| self.message(event), probe_text);
                let hint = event.hint.as_ref().map(|hint| format!("; {}", plain(hint))).unwrap_or_default();
                let line = told(DIM, "waiting", format!("last probe: {seen}{hint}"));
                self.waits_for = format!("waiting for health (last probe: {seen})");
                line
            }
            EventKind::Healthy => {
                let after = now.duration_since(self.spawned.unwrap_or(self.began));
                let line = told(GOOD, "healthy", format!("after {}", duration(after)));
                self.waits_for = "moving traffic".to_owned();
                line
            }
            EventKind::Switched => {
                let line = told(GOOD, "switched", self.moved(event));
                self.waits_for = "finishing".to_owned();
                line
            }
            EventKind::Draining => {
                let whom = place(Some(&event.release), event.port).unwrap_or_default();
                match &event.message {
                    Some(said) => {
                        let line = told(DIM, "draining", format!("{whom}: {}", plain(said)));
                        self.waits_for = "waiting for its requests and its end".to_owned();
                        line
                    }
                    None => told(DIM, "draining", format!("{whom} in the background")),
                }
            }
            EventKind::RolledBack => told(GOOD, "moved back", self.moved(event)),
            EventKind::Drained | EventKind::Stopped => {
                told(DIM, event.event.as_str(), format!("`{release}` {}", self.message(event)))
            }
            EventKind::Output => {
                if self.output.len() == SHOWN_LINES {
                    self.left_out += 1;
                    return None;
                }
                let line = event.line.as_deref().unwrap_or_default();
                self.output.push(line.to_owned());
                Some(paint(DIM, format_args!("           | {}", plain(line))))
            }
            // The result, which follows, says why.
            EventKind::Aborted => None,
            EventKind::Finished => {
                self.left_out += event.left_out.unwrap_or_default();
                None
            }
        }
    }

    /// The live line: what is awaited, and since when.
    pub(crate) fn line(&self, now: Instant) -> Option<String> {
        let turn = self.turn.get();
        self.turn.set((turn + 1) % TURNS.len());
        let mut line = String::new();
        _ = write!(line, "{} {} ", paint(BUSY, TURNS[turn]), self.waits_for);
        line.push_str(&paint(DIM, duration(now.duration_since(self.began))));
        Some(line)
    }

    /// How many lines of the app's output were not shown, once nothing follows.
    pub(crate) fn left_out(&self) -> Option<String> {
        let (lines, release) = (count(self.left_out as u64, "further line"), self.release.as_deref()?);
        (self.left_out > 0).then(|| {
            let hint = format!("portok logs --release {}", plain(release));
            paint(DIM, format_args!("           | … {lines} of output left out: {hint}"))
        })
    }

    /// Whether `line` of the app's output was shown.
    pub(crate) fn has_shown(&self, line: &str) -> bool {
        self.output.iter().any(|shown| shown == line)
    }

    fn moved(&self, event: &StreamEvent) -> String {
        event.switch.as_ref().map_or_else(|| self.message(event), movement)
    }

    /// The directory in which the command runs, and why.
    fn runs_in(&self, event: &StreamEvent) -> String {
        let Some(directory) = &event.directory else { return String::new() };
        let why = match &self.caller {
            Some(caller) if caller == directory => " (the current directory)",
            Some(_) => " (app.directory)",
            None => "",
        };
        format!(" in {}{why}", plain(directory))
    }

    fn message(&self, event: &StreamEvent) -> String {
        event.message.as_deref().map(plain).unwrap_or_default()
    }

    /// `text` after the time since the beginning.
    fn stamped(&self, now: Instant, text: &str) -> String {
        let stamp = format!("[{:>7}]", duration(now.duration_since(self.began)));
        format!("{} {}", paint(DIM, stamp), text.trim_end())
    }
}

/// The step of a deploy that the event is about.
fn step(event: EventKind) -> &'static str {
    match event {
        EventKind::VerifyStarted | EventKind::VerifyEnded => "app.verify",
        _ => "app.before",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind) -> StreamEvent {
        StreamEvent::new(String::new(), kind, "v1")
    }

    #[test]
    fn output_beyond_some_lines_is_counted_and_hides_nothing() {
        let now = Instant::now();
        let mut progress = Progress::new(now, None);
        let print = |progress: &mut Progress, n: usize| {
            progress.event(&StreamEvent { line: Some(format!("l{n}")), ..event(EventKind::Output) }, now)
        };
        for n in 0..SHOWN_LINES {
            assert!(print(&mut progress, n).is_some());
        }
        assert_eq!(progress.left_out(), None);
        for n in SHOWN_LINES..SHOWN_LINES + 7 {
            assert_eq!(print(&mut progress, n), None);
        }
        assert!(progress.has_shown("l0") && !progress.has_shown(&format!("l{SHOWN_LINES}")));
        assert!(progress.event(&event(EventKind::Healthy), now).is_some(), "what happens is shown");
        progress.event(&StreamEvent { left_out: Some(400), ..event(EventKind::Finished) }, now);
        let told = anstream::adapter::strip_str(&progress.left_out().unwrap()).to_string();
        assert_eq!(told, "           | … 407 further lines of output left out: portok logs --release v1");
    }
}
