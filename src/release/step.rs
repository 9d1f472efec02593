//! One step of a deploy (`app.before`, `app.verify`), from its start until nothing is left of it.
//!
//! It is a task of the coordinator, which joins it. It owns no state. It reports `StepStarted`,
//! `StepEnded` and `Gone`, in this order, and the last two exactly once. What it prints until it
//! ends is reported too. The process is stopped through its [`Process`] handle, not through this
//! task; cancelling `settled` only ends the wait for a start.

use std::sync::Arc;

use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use super::autopsy::{OUTPUT_LINES, hint_by_exit};
use super::events::MAX_OUTPUT;
use super::message::{Report, Reports, StepEnd};
use super::run::{Teller, chain, identity, spawn_within};
use super::spec::ReleaseSpec;
use super::state::{DeployStep, RunId};
use crate::config::CommandLine;
use crate::supervisor::{Exit, Launch, Port, Process, SpawnError, Supervisor};
use crate::wire::Autopsy;

/// What a step needs to know.
#[derive(Debug)]
pub(super) struct StepStart {
    pub(super) run: RunId,
    pub(super) release: String,
    pub(super) step: DeployStep,
    pub(super) command: CommandLine,
    /// The release that it is a step of: where it runs, and as whom.
    pub(super) spec: ReleaseSpec,
    /// The port that it is told; not its own.
    pub(super) port: Option<u16>,
    /// How long it may take, its start included.
    pub(super) within: Duration,
    pub(super) settled: CancellationToken,
}

/// Starts the step and stays with it until nothing is left of it.
pub(super) async fn run_step(start: StepStart, supervisor: Arc<Supervisor>, reports: Reports) {
    let tell = Teller { run: start.run, reports };
    let deadline = Instant::now() + start.within;
    let spawning = || spawn(&start, &supervisor);
    let spawned = spawn_within(&start.release, start.within, &start.settled, spawning).await;
    let process = match spawned {
        Ok(process) => process,
        Err(error) => {
            let said = chain(&error);
            let summary = format!("its step `{}` failed: {said}", start.step.as_str());
            let failure = Some(Box::new(Autopsy { summary, ..Autopsy::default() }));
            tell.that(Report::StepEnded(StepEnd { said, failure })).await;
            tell.that(Report::Gone(None)).await;
            return;
        }
    };
    tell.that(Report::StepStarted(process.clone())).await;
    let end = until_ended(&start, &process, deadline, &tell).await;
    tell.that(Report::StepEnded(end)).await;
    tokio::select! {
        biased;
        _exit = process.gone() => {}
        () = process.signalled() => tell.that(Report::Signalled).await,
    }
    let exit = process.gone().await;
    tell.that(Report::Gone(Some(exit))).await;
}

async fn spawn(start: &StepStart, supervisor: &Supervisor) -> Result<Process, SpawnError> {
    let ReleaseSpec { directory, env, user, group, limits, port_env, .. } = start.spec.clone();
    let identity = identity(user, group).await?;
    let (release, command) = (start.release.clone(), start.command.clone());
    let port = start.port.map_or(Port::None, Port::Others);
    let (process, step, replica) = (None, Some(start.step.as_str()), None);
    let launch =
        Launch { release, process, step, replica, command, directory, env, identity, limits, port_env, port };
    supervisor.spawn(launch).await
}

/// Waits for the end of its leader, or of its time, and reports what it prints.
async fn until_ended(start: &StepStart, process: &Process, deadline: Instant, tell: &Teller) -> StepEnd {
    let mut lines = process.follow();
    let mut left = MAX_OUTPUT;
    let exit = loop {
        let line = tokio::select! {
            biased;
            exit = process.exited() => break Some(exit),
            () = tokio::time::sleep_until(deadline) => break None,
            line = lines.recv(), if left > 0 => line,
        };
        match line {
            Ok(line) => {
                left -= 1;
                tell.that(Report::Output(line)).await;
            }
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => left = 0,
        }
    };
    // All that it printed has been read by now.
    while left > 0 {
        match lines.try_recv() {
            Ok(line) => {
                left -= 1;
                tell.that(Report::Output(line)).await;
            }
            Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
        }
    }
    how_it_went(start, process, exit)
}

/// `exit`: `None` where its time is over.
fn how_it_went(start: &StepStart, process: &Process, exit: Option<Exit>) -> StepEnd {
    let step = start.step.as_str();
    let said = match exit {
        Some(exit) => exit.to_string(),
        None => format!("not done within {}", humantime::format_duration(start.within)),
    };
    if exit == Some(Exit::Status(0)) {
        return StepEnd { said, failure: None };
    }
    let (summary, hint) = match exit {
        Some(exit) => (format!("its step `{step}` failed ({said})"), hint_by_exit(exit).map(str::to_owned)),
        None => {
            let hint = format!("app.{step}_timeout is how long it may take");
            (format!("its step `{step}` was {said}"), Some(hint))
        }
    };
    let output = process.output(OUTPUT_LINES).into_iter().map(|line| line.line).collect();
    let exit = exit.map(|exit| exit.to_string());
    let failure = Some(Box::new(Autopsy { summary, exit, output, hint, ..Autopsy::default() }));
    StepEnd { said, failure }
}
