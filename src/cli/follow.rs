//! The report of a deploy or rollback: its events as they arrive, and its result.
//!
//! The operation belongs to the daemon. What ends the report early (Ctrl-C, a broken connection)
//! does not end the operation, and every failure of the report says so.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::answer::Answer;
use super::call::Call;
use super::failure::Failure;
use super::render::{self, Progress};
use super::session::Session;
use crate::wire::{Code, ErrorBody, EventKind, Moved, NDJSON, Outcome, StreamEvent};

/// How often the progress line on a terminal is redrawn.
const REDRAW: Duration = Duration::from_millis(100);

/// What to do when the report ends before the operation.
const GOES_ON: &str = "`portok status` shows where it is, `portok cancel` ends it before traffic moves";

/// The operation that a report follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Deploy,
    Rollback,
}

impl What {
    /// The operation in words, with the release if it is known.
    pub(crate) fn of(self, release: Option<&str>) -> String {
        match (self, release) {
            (Self::Deploy, None) => "deploy".to_owned(),
            (Self::Deploy, Some(release)) => format!("deploy of `{release}`"),
            (Self::Rollback, None) => "rollback".to_owned(),
            (Self::Rollback, Some(release)) => format!("rollback to `{release}`"),
        }
    }

    /// Whether `outcome` is a success.
    fn is_reached_by(self, outcome: Outcome) -> bool {
        outcome == Outcome::Live || (self == Self::Rollback && outcome == Outcome::RolledBack)
    }
}

/// Sends `call`, which requests `what`, and shows its events until the operation has ended.
///
/// # Errors
/// The operation was refused or failed, or the report ended early.
pub(crate) async fn follow(
    session: &mut Session<'_>,
    what: What,
    mut call: Call,
    interrupt: Pin<&mut impl Future<Output = ()>>,
) -> Result<(Moved, Value), Failure> {
    call.accept = NDJSON;
    let caller = call.directory.as_ref().map(|place| String::from_utf8_lossy(place.as_bytes()).into_owned());
    let mut follower = Follower { what, progress: Progress::new(Instant::now(), caller), warning: None };
    let result = follower.run(session, call, interrupt).await;
    session.screen.line(None);
    // Whoever looks at the end alone sees these too.
    let left_out = follower.progress.left_out();
    let warning = follower.warning.as_deref().map(render::warning);
    left_out.iter().chain(&warning).for_each(|text| session.screen.note(text));
    result
}

/// What happens next in a report.
enum Next {
    Line(Result<Option<bytes::Bytes>, Failure>),
    Redraw,
    Interrupted,
}

/// Follows one operation, and reports on it.
struct Follower {
    what: What,
    progress: Progress,
    /// What the daemon warned of.
    warning: Option<String>,
}

impl Follower {
    async fn run(
        &mut self,
        session: &mut Session<'_>,
        call: Call,
        mut interrupt: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(Moved, Value), Failure> {
        let answer = tokio::select! {
            answer = session.client.send(call) => Some(answer),
            () = interrupt.as_mut() => None,
        };
        let Some(answer) = answer else { return Err(self.interrupted()) };
        let mut answer = answer?;
        if !answer.is_stream || !answer.status.is_success() {
            return answer.json().await;
        }
        let live = session.screen.is_live();
        let mut redraw = interval(REDRAW);
        redraw.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let next = tokio::select! {
                line = answer.line() => Next::Line(line),
                _ = redraw.tick(), if live => Next::Redraw,
                () = interrupt.as_mut() => Next::Interrupted,
            };
            match next {
                Next::Redraw => {}
                Next::Interrupted => return Err(self.interrupted()),
                Next::Line(Ok(None)) => return Err(self.goes_on(answer.ended_early())),
                Next::Line(Err(failure)) => return Err(self.goes_on(failure)),
                Next::Line(Ok(Some(line))) => {
                    let Some(event) = event(&answer, &line).map_err(|failure| self.goes_on(failure))? else {
                        continue;
                    };
                    let text = self.progress.event(&event, Instant::now());
                    if let Some(warning) = &event.warning {
                        session.screen.note(&render::warning(warning));
                        self.warning = Some(warning.clone());
                    }
                    if event.event == EventKind::Finished {
                        return self.finished(event).map_err(|failure| self.once(failure, session.json));
                    }
                    if let Some(text) = text {
                        session.screen.note(&text);
                    }
                }
            }
            session.screen.line(self.progress.line(Instant::now()).as_deref());
        }
    }

    /// The result, from the last event of the stream.
    fn finished(&self, event: StreamEvent) -> Result<(Moved, Value), Failure> {
        let StreamEvent { release, message, switch, outcome, error, already_live, cancelled, .. } = event;
        if let (Some(outcome), None) = (outcome, &error)
            && (switch.is_some() || already_live)
            && self.what.is_reached_by(outcome)
        {
            let message = message.unwrap_or_else(|| format!("release `{release}` is live"));
            let (success, warning) = (true, self.warning.clone());
            let moved =
                Moved { success, message, release, outcome, switch, already_live, cancelled, warning };
            let value = serde_json::to_value(&moved).unwrap_or_default();
            return Ok((moved, value));
        }
        let mut body = error.unwrap_or_else(|| {
            let (short, told) = match outcome {
                Some(Outcome::Cancelled) => ("Cancelled", "an operator ended it before traffic moved"),
                Some(Outcome::RolledBack) => ("Rolled back", "traffic moved and was moved back"),
                Some(Outcome::Interrupted) => ("Interrupted", "the daemon ended before traffic moved"),
                _ => ("Aborted", "traffic did not move"),
            };
            ErrorBody::new(Code::DeployAborted, short, message.unwrap_or_else(|| told.to_owned()))
        });
        body.outcome = body.outcome.or(outcome);
        let release = body.release.get_or_insert(release);
        Err(Failure::Refused {
            operation: self.what.of(Some(release)),
            body: Box::new(body),
            retry_after: None,
            no_socket: false,
        })
    }

    /// Removes from a failure the output that has been shown already. With `--json`, nothing has
    /// been shown.
    fn once(&self, mut failure: Failure, json: bool) -> Failure {
        if let (false, Failure::Refused { body, .. }) = (json, &mut failure)
            && let Some(autopsy) = &mut body.autopsy
        {
            autopsy.output.retain(|line| !self.progress.has_shown(line));
        }
        failure
    }

    fn interrupted(&self) -> Failure {
        let operation = self.what.of(self.progress.release());
        let accepted = if self.progress.release().is_some() { "" } else { ", if it was accepted" };
        let message = format!("the {operation} goes on in the daemon{accepted}");
        Failure::Interrupted { message, hint: GOES_ON.to_owned() }
    }

    /// Adds to the failure of a report that the operation itself goes on.
    fn goes_on(&self, failure: Failure) -> Failure {
        let operation = self.what.of(self.progress.release());
        let hint = format!("the {} goes on as long as the daemon runs; {GOES_ON}", self.what.of(None));
        match failure {
            Failure::Lost { way, cause, .. } | Failure::Foreign { way, cause, .. } => {
                Failure::Lost { operation: format!("the report of the {operation}"), way, cause, hint }
            }
            other => other,
        }
    }
}

/// Reads one line of the stream; `None` for an empty line and for an event of a newer daemon.
fn event(answer: &Answer, line: &[u8]) -> Result<Option<StreamEvent>, Failure> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let known = |name: &str| serde_json::from_value::<EventKind>(Value::from(name)).is_ok();
    let (value, _) = answer.decode::<Value>(line)?;
    if value.get("event").and_then(Value::as_str).is_some_and(|name| !known(name)) {
        return Ok(None);
    }
    answer.decode::<StreamEvent>(line).map(|(event, _)| Some(event))
}
