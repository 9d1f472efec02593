//! `portok deploy`: sends the request, shows its events as they come, tells the end; with `--wait-window` goes
//! on until the watch window has passed.
//!
//! The deploy is the daemon's from its acceptance: Ctrl-C, a broken connection or a dropped future here end
//! the report alone.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::args;
use super::client::{Answer, Call};
use super::failure::Failure;
use super::order::Session;
use super::render::{self, Progress};
use crate::wire::{
    Accepted, Code, DeployRequest, ErrorBody, Event, EventKind, Moved, NDJSON, Outcome, Phase, ReleaseRow,
    Status, exit,
};

/// How often the line of a terminal that shows the passing time is drawn anew.
const REDRAW: Duration = Duration::from_millis(100);

/// What to do when the report of a deploy ends before the deploy.
const GOES_ON: &str = "`portok status` shows where it is, `portok cancel` ends it before traffic moves";

/// Deploys what `options` say.
///
/// # Errors
/// The deploy was refused, aborted, cancelled or rolled back; the report ended early; wrong options.
pub(crate) async fn deploy(
    session: &mut Session<'_>,
    options: &args::Deploy,
    interrupt: impl Future<Output = ()>,
) -> Result<u8, Failure> {
    let request = request(options)?;
    let mut call = Call::post(operation(request.release.as_deref()), "deploy");
    call.body = Some(serde_json::to_vec(&request).map_err(|error| Failure::Usage {
        message: format!("the request has no JSON form: {error}"),
        hint: None,
    })?);
    if options.detach {
        call.path.push_str("?detach=1");
        let (accepted, value) = session.client.ask::<Accepted>(call).await?;
        session.show(&value, || render::accepted(&accepted));
        return Ok(exit::DONE);
    }
    call.accept = NDJSON;
    let mut interrupt = pin!(interrupt);
    let mut progress = Progress::new(Instant::now());
    let followed = follow(session, call, &mut progress, interrupt.as_mut()).await;
    session.screen.line(None);
    let (moved, value) = followed?;
    if options.wait_window {
        let watched = watch(session, &moved, interrupt).await;
        session.screen.line(None);
        watched?;
    }
    session.show(&value, || render::moved(&moved));
    Ok(exit::DONE)
}

fn operation(release: Option<&str>) -> String {
    release.map_or_else(|| "deploy".to_owned(), |release| format!("deploy of `{release}`"))
}

/// The body of the request. A directory is the operator's: relative to where `portok` runs.
fn request(options: &args::Deploy) -> Result<DeployRequest, Failure> {
    let directory = match &options.dir {
        None => None,
        Some(dir) => {
            let absolute = std::path::absolute(dir).map_err(|error| Failure::Usage {
                message: format!("--dir {}: {error}", dir.display()),
                hint: None,
            })?;
            let Ok(text) = absolute.into_os_string().into_string() else {
                return Err(Failure::usage(
                    format!("--dir {}: not valid UTF-8", dir.display()),
                    "name it by a path of UTF-8 characters, a link for example",
                ));
            };
            Some(text)
        }
    };
    let env: BTreeMap<_, _> = options.env.iter().cloned().collect();
    Ok(DeployRequest {
        command: options.command.line(),
        directory,
        env: (!env.is_empty()).then_some(env),
        release: options.release.clone(),
        health_path: options.health.clone(),
    })
}

/// What the report of a deploy waits for.
enum Next {
    Line(Result<Option<bytes::Bytes>, Failure>),
    Redraw,
    Interrupted,
}

/// Sends `call` and shows events until the last one.
async fn follow(
    session: &mut Session<'_>,
    call: Call,
    progress: &mut Progress,
    mut interrupt: Pin<&mut impl Future<Output = ()>>,
) -> Result<(Moved, Value), Failure> {
    let answer = tokio::select! {
        answer = session.client.send(call) => Some(answer),
        () = interrupt.as_mut() => None,
    };
    let Some(answer) = answer else { return Err(interrupted(progress)) };
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
            Next::Interrupted => return Err(interrupted(progress)),
            Next::Line(Ok(None)) => return Err(goes_on(answer.ended_early(), progress)),
            Next::Line(Err(failure)) => return Err(goes_on(failure, progress)),
            Next::Line(Ok(Some(line))) => {
                let Some(event) = event(&answer, &line).map_err(|failure| goes_on(failure, progress))? else {
                    continue;
                };
                if event.event == EventKind::Finished {
                    return finished(event);
                }
                if let Some(text) = progress.event(&event, Instant::now()) {
                    session.screen.note(&text);
                }
            }
        }
        session.screen.line(progress.line(Instant::now()).as_deref());
    }
}

/// One line of the stream; `None` for an empty one and for an event that a newer daemon added.
fn event(answer: &Answer, line: &[u8]) -> Result<Option<Event>, Failure> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let known = |name: &str| serde_json::from_value::<EventKind>(Value::from(name)).is_ok();
    let (value, _) = answer.decode::<Value>(line)?;
    if value.get("event").and_then(Value::as_str).is_some_and(|name| !known(name)) {
        return Ok(None);
    }
    answer.decode::<Event>(line).map(|(event, _)| Some(event))
}

/// The deploy's result, as the event that ends the stream tells it.
fn finished(event: Event) -> Result<(Moved, Value), Failure> {
    let Event { release, message, switch, outcome, error, .. } = event;
    if let (Some(Outcome::Live), Some(switch), None) = (outcome, switch, &error) {
        let message = message.unwrap_or_else(|| format!("release `{release}` is live on port {}", switch.to));
        let moved = Moved { success: true, message, release, outcome: Outcome::Live, switch };
        let value = serde_json::to_value(&moved).unwrap_or_default();
        return Ok((moved, value));
    }
    let mut body = error.unwrap_or_else(|| {
        let (short, told) = match outcome {
            Some(Outcome::Cancelled) => ("Deploy cancelled", "an operator ended it before traffic moved"),
            Some(Outcome::RolledBack) => ("Deploy rolled back", "traffic moved and was moved back"),
            Some(Outcome::Interrupted) => ("Deploy interrupted", "the daemon ended before traffic moved"),
            _ => ("Deploy aborted", "traffic did not move"),
        };
        ErrorBody::new(Code::DeployAborted, short, message.unwrap_or_else(|| told.to_owned()))
    });
    body.outcome = body.outcome.or(outcome);
    let release = body.release.get_or_insert(release);
    Err(Failure::Refused { operation: operation(Some(release)), body: Box::new(body), retry_after: None })
}

fn interrupted(progress: &Progress) -> Failure {
    let message = match progress.release() {
        Some(release) => format!("the deploy of `{release}` goes on in the daemon"),
        None => "the deploy goes on in the daemon, if it was accepted".to_owned(),
    };
    Failure::Interrupted { message, hint: GOES_ON.to_owned() }
}

/// A report that broke off says that the deploy did not.
fn goes_on(failure: Failure, progress: &Progress) -> Failure {
    let operation = operation(progress.release());
    let hint = format!("the deploy goes on in the daemon; {GOES_ON}");
    match failure {
        Failure::Lost { way, cause, .. } | Failure::Foreign { way, cause, .. } => {
            Failure::Lost { operation: format!("the report of the {operation}"), way, cause, hint }
        }
        other => other,
    }
}

/// What a status says about a release that traffic was moved to.
#[derive(Debug, PartialEq, Eq)]
enum Window {
    /// Its watch window is open, or it is being started again.
    Open,
    /// It is live and its window has passed.
    Passed,
    /// It is live, its window is over, and it does not stay up.
    Failed,
    /// Something else is live: the list of releases tells why.
    Left,
}

fn window(release: &str, status: &Status) -> Window {
    match (&status.live, status.phase) {
        (Some(live), Phase::Settled) if live.release == release => Window::Passed,
        (Some(live), Phase::Failed) if live.release == release => Window::Failed,
        (Some(live), _) if live.release == release => Window::Open,
        _ => Window::Left,
    }
}

/// Asks until the watch window of `moved` has passed. The daemon may be gone for a while: it may be started
/// again within the window, and continues it.
async fn watch(
    session: &mut Session<'_>,
    moved: &Moved,
    mut interrupt: Pin<&mut impl Future<Output = ()>>,
) -> Result<(), Failure> {
    let release = &moved.release;
    session.screen.note(&render::watching(release));
    let mut gone_since: Option<Instant> = None;
    loop {
        let mut pause = session.poll_every();
        match look(session, release).await {
            Ok(Some(end)) => {
                if let Some(text) = end {
                    session.screen.note(&text);
                }
                return Ok(());
            }
            Ok(None) => gone_since = None,
            Err(failure) if failure.is_passing() => {
                if gone_since.is_none() {
                    session.screen.note(&render::absent(&failure));
                }
                let since = *gone_since.get_or_insert_with(Instant::now);
                let wait = match failure {
                    Failure::Refused { retry_after: Some(wait), .. } => wait.min(session.pace.absence),
                    _ => Duration::ZERO,
                };
                if since.elapsed() > session.pace.absence + wait {
                    return Err(failure);
                }
                pause = pause.max(wait);
            }
            Err(failure) => return Err(failure),
        }
        let is_over = tokio::select! {
            () = sleep(pause) => false,
            () = interrupt.as_mut() => true,
        };
        if is_over {
            let message = format!("`{release}` is live; the daemon goes on watching it");
            return Err(Failure::Interrupted {
                message,
                hint: "`portok status` shows the watch window".into(),
            });
        }
    }
}

/// One look at the window: `Some` when it has passed, with what there is to say about it.
async fn look(session: &mut Session<'_>, release: &str) -> Result<Option<Option<String>>, Failure> {
    let operation = || format!("watch over `{release}`");
    let (status, _) = session.client.ask::<Status>(Call::get(operation(), "status")).await?;
    match window(release, &status) {
        Window::Passed => return Ok(Some(None)),
        Window::Failed => {
            let reason = status.last_failure.unwrap_or_else(|| "it crashes again and again".to_owned());
            return Err(Failure::Unstable { release: release.to_owned(), reason });
        }
        Window::Open => {
            session.screen.line(Some(&render::watch_line(release, &status, SystemTime::now())));
            return Ok(None);
        }
        Window::Left => {}
    }
    let (rows, _) = session.client.ask::<Vec<ReleaseRow>>(Call::get(operation(), "releases")).await?;
    let row = rows.into_iter().find(|row| row.release == release);
    let unstable = |reason| Err(Failure::Unstable { release: release.to_owned(), reason });
    match (row.as_ref().and_then(|row| row.outcome), status.live, status.phase) {
        (Some(Outcome::RolledBack), ..) => {
            let reason = row.and_then(|row| row.reason.or(row.exit));
            Err(Failure::RolledBack { release: release.to_owned(), reason })
        }
        (Some(Outcome::Live) | None, Some(live), _) => {
            Ok(Some(Some(render::superseded(release, &live.release))))
        }
        // The daemon goes down, or has just been started and brings the release back.
        (Some(Outcome::Live) | None, None, Phase::Starting | Phase::Restarting | Phase::Stopping) => Ok(None),
        (Some(Outcome::Live) | None, None, _) => {
            unstable(status.last_failure.unwrap_or_else(|| "nothing is live any more".to_owned()))
        }
        (Some(outcome), ..) => unstable(format!("its outcome is `{}`", outcome.as_str())),
    }
}

#[cfg(test)]
#[path = "deploy_tests.rs"]
mod tests;
