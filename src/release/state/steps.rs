//! The steps around a deploy: `app.before` runs before the candidate is started, `app.verify`
//! against the candidate once all of it is ready.
//!
//! A step is a run of its own, in no set: it never gets requests and is never started again. It
//! belongs to the task under way ([`Stage::Before`], [`Stage::Verifying`]). Once it has ended, or
//! was given up, what is left of it leaves as any run that is stopped.

use serde::{Deserialize, Serialize};

use super::*;
use crate::wire::STEPS;

/// A step around a deploy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeployStep {
    /// `app.before`.
    Before,
    /// `app.verify`.
    Verify,
}

impl DeployStep {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        let [before, verify] = STEPS;
        match self {
            Self::Before => before,
            Self::Verify => verify,
        }
    }
}

impl Stage {
    /// The step that runs.
    pub fn step(&self) -> Option<(DeployStep, &Run)> {
        match self {
            Self::Before { run } => Some((DeployStep::Before, run)),
            Self::Verifying { run, .. } => Some((DeployStep::Verify, run)),
            _ => None,
        }
    }
}

impl State {
    /// The step of the task under way that this run is.
    pub fn step_of(&self, id: RunId) -> Option<DeployStep> {
        let (step, run) = self.task.as_ref()?.stage.step()?;
        (run.id == id).then_some(step)
    }

    /// What the task does once its intent is written down.
    pub(super) fn begin_plan(&mut self, round: &mut Round<'_>) {
        let Some(task) = &mut self.task else { return };
        match task.plan.before {
            Some(within) => {
                let run = start_step(DeployStep::Before, &task.release, None, within, round);
                task.stage = Stage::Before { run };
            }
            None => self.make_room(round),
        }
    }

    /// The candidate is ready, all of it.
    pub(super) fn all_ready(&mut self, set: ReplicaSet, round: &mut Round<'_>) {
        let Some(task) = &mut self.task else { return };
        match task.plan.verify {
            Some(within) => {
                let first = set.ready_runs().next().map(|run| run.id);
                let run = start_step(DeployStep::Verify, &task.release, first, within, round);
                task.stage = Stage::Verifying { set, run };
            }
            None => {
                let started = set.managed();
                self.go_live(set, started, round);
            }
        }
    }

    /// The process of a step was started.
    pub(super) fn step_started(&self, id: RunId, round: &mut Round<'_>) {
        if self.runs().any(|run| run.id == id) {
            round.save();
        }
    }

    /// A step has ended; `done`: as it should. Otherwise it failed, could not be started, or its
    /// time is over.
    pub(super) fn step_ended(&mut self, id: RunId, done: bool, round: &mut Round<'_>) {
        // One that was given up is being stopped.
        let Some(step) = self.step_of(id) else { return };
        if !done {
            self.abort(Abort::Step(step), Some(id), round);
            return;
        }
        let Some(task) = &mut self.task else { return };
        match std::mem::replace(&mut task.stage, Stage::Vacating { former: None }) {
            Stage::Before { run } => {
                task.before_done = true;
                self.stop_step(run, round);
                self.make_room(round);
            }
            Stage::Verifying { set, run } => {
                self.stop_step(run, round);
                self.go_live(set, true, round);
            }
            other => task.stage = other,
        }
    }

    /// Stops what is left of a step.
    pub(super) fn stop_step(&mut self, run: Run, round: &mut Round<'_>) {
        round.push(Effect::Stop { run: run.id });
        self.forget_or_await(ReplicaSet::of_stopping(run, round));
    }
}

fn start_step(
    step: DeployStep,
    release: &ReleaseRef,
    beside: Option<RunId>,
    within: Duration,
    round: &mut Round<'_>,
) -> Run {
    let run = RunId(round.fresh());
    round.push(Effect::RunStep { run, release: release.id.clone(), step, beside, within });
    Run { id: run, release: release.clone(), process: None, port: None }
}
