//! `--wait-window`: polls until the watch window of a release has passed, so that a pipeline sees a
//! rollback.
//!
//! The daemon does the watching. This only observes, and may stop at any time.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use super::call::Call;
use super::failure::Failure;
use super::render;
use super::session::Session;
use crate::wire::{Outcome, Phase, ReleaseRow, Status};

/// What a status tells about the watch window of a release.
#[derive(Debug, PartialEq, Eq)]
enum Window {
    /// The window is open, or the release is being restarted.
    Open,
    /// The release is live and its window has passed.
    Passed,
    /// The release is live and its window is over, but it does not stay up.
    Failed,
    /// Another release is live, or none: the list of releases tells why.
    Left,
}

fn window(release: &str, status: &Status) -> Window {
    match (&status.live, status.phase) {
        (Some(live), Phase::Settled | Phase::Idle) if live.release == release => Window::Passed,
        (Some(live), Phase::Failed) if live.release == release => Window::Failed,
        // Without a window there is no rollback: the release stays as it is.
        (Some(live), Phase::Unhealthy) if live.release == release && status.watch_until.is_none() => {
            Window::Failed
        }
        (Some(live), _) if live.release == release => Window::Open,
        _ => Window::Left,
    }
}

/// How a watch window ended without a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watched {
    /// The window has passed, and the release is live.
    Passed,
    /// A newer release is live instead, which has been reported.
    Superseded,
}

/// Polls until the watch window of `release` has passed. The daemon may be gone for a while: when
/// it restarts, it continues the window.
///
/// # Errors
/// The release was rolled back or does not stay up, the daemon was gone for too long, or Ctrl-C was
/// pressed.
pub(crate) async fn watch(
    session: &mut Session<'_>,
    release: &str,
    interrupt: Pin<&mut impl Future<Output = ()>>,
) -> Result<Watched, Failure> {
    let result = look_on(session, release, interrupt).await;
    session.screen.line(None);
    result
}

async fn look_on(
    session: &mut Session<'_>,
    release: &str,
    mut interrupt: Pin<&mut impl Future<Output = ()>>,
) -> Result<Watched, Failure> {
    session.screen.note(&render::watching(release));
    let mut gone_since: Option<Instant> = None;
    loop {
        let mut pause = session.poll_every();
        match look(session, release).await {
            Ok(Some(end)) => return Ok(end),
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

/// Polls once. Returns `Some` when the window is over.
async fn look(session: &mut Session<'_>, release: &str) -> Result<Option<Watched>, Failure> {
    let operation = || format!("watch over `{release}`");
    let (status, _) = session.client.ask::<Status>(Call::get(operation(), "status")).await?;
    match window(release, &status) {
        Window::Passed => return Ok(Some(Watched::Passed)),
        Window::Failed => {
            let reason = status.last_failure.unwrap_or_else(|| match status.phase {
                Phase::Unhealthy => "it fails its probes".to_owned(),
                _ => "it crashes again and again".to_owned(),
            });
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
            session.screen.note(&render::superseded(release, &live.release));
            Ok(Some(Watched::Superseded))
        }
        // The daemon is shutting down, or has just started and brings the release back.
        (Some(Outcome::Live) | None, None, Phase::Starting | Phase::Restarting | Phase::Stopping) => Ok(None),
        (Some(Outcome::Live) | None, None, _) => {
            unstable(status.last_failure.unwrap_or_else(|| "nothing is live any more".to_owned()))
        }
        (Some(outcome), ..) => unstable(format!("its outcome is `{}`", outcome.as_str())),
    }
}
