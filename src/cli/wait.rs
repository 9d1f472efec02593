//! `portok status --wait`: asks until every app is healthy, or the one that was named.
//!
//! It only looks on, and may end at any time. A daemon that does not answer yet, as one that is
//! being started, is asked again; so is one that does not know the app yet.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::call::Call;
use super::commands;
use super::failure::Failure;
use super::render;
use super::session::Session;
use crate::wire::{AppRow, Phase, exit};

/// What came of the last question.
type Seen = Result<Vec<AppRow>, Failure>;

/// Waits no longer than `within`, and then shows the status.
///
/// # Errors
/// The daemon refuses the question, or cannot be reached when the time is over; or Ctrl-C was
/// pressed.
pub(crate) async fn wait(
    session: &mut Session<'_>,
    within: Duration,
    interrupt: impl Future<Output = ()>,
) -> Result<u8, Failure> {
    let seen = {
        let mut interrupt = pin!(interrupt);
        let asking = until_healthy(session, within);
        tokio::select! {
            seen = asking => seen?,
            () = interrupt.as_mut() => {
                return Err(Failure::Interrupted {
                    message: "not every app is healthy yet".into(),
                    hint: "`portok status` shows them".into(),
                });
            }
        }
    };
    let unwell: Vec<_> = match seen {
        Ok(rows) => rows.into_iter().filter(|row| !is_healthy(row.phase)).collect(),
        Err(failure) => return Err(failure),
    };
    commands::status(session).await?;
    if unwell.is_empty() {
        return Ok(exit::DONE);
    }
    session.screen.note(&render::unwell(&unwell, within));
    Ok(exit::FAILED)
}

/// Asks until all are healthy or the time is over. Returns the last answer.
async fn until_healthy(session: &Session<'_>, within: Duration) -> Result<Seen, Failure> {
    let deadline = Instant::now() + within;
    let mut seen: Option<Seen> = None;
    loop {
        let asking = session.client.ask::<Vec<AppRow>>(Call::get("status", "apps"));
        let answer = match seen {
            // The first answer is waited for, however short the time: without one nothing is known.
            None => asking.await,
            Some(seen) => match timeout_at(deadline, asking).await {
                Err(_over) => return Ok(seen),
                Ok(answer) => answer,
            },
        };
        let last = match answer {
            Ok((rows, _)) if rows.iter().all(|row| is_healthy(row.phase)) => return Ok(Ok(rows)),
            Ok((rows, _)) => Ok(rows),
            Err(failure) if failure.is_passing() || failure.is_of_an_unknown_app() => Err(failure),
            Err(failure) => return Err(failure),
        };
        let next = Instant::now() + session.poll_every();
        sleep_until(next.min(deadline)).await;
        if Instant::now() >= deadline {
            return Ok(last);
        }
        seen = Some(last);
    }
}

/// Whether an app in this phase serves, or would with the next request, and nothing is wrong with
/// it.
fn is_healthy(phase: Phase) -> bool {
    matches!(phase, Phase::Watching | Phase::Settled | Phase::Idle)
}
