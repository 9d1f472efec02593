//! The steps around a deploy: how they are run, and what is told of them and of the room that a
//! candidate is started in.

use std::time::SystemTime;

use tokio::time::Duration;

use super::Coordinator;
use super::perform::stop_ladder;
use crate::release::message::{Message, Report, StepEnd};
use crate::release::state::{DeployStep, Event, ReleaseRef, RunId};
use crate::release::step::StepStart;
use crate::release::tasks::report;
use crate::supervisor::Process;
use crate::wire::{Autopsy, EventKind};

impl Coordinator {
    /// Runs a step of the task under way.
    pub(super) fn run_step(
        &mut self,
        id: RunId,
        release: String,
        step: DeployStep,
        beside: Option<RunId>,
        within: Duration,
    ) {
        let Some(run) = self.run_of(id).cloned() else { return };
        let settled = self.runs.enter(&run).settled();
        let port = beside.and_then(|beside| self.runs.get(beside)?.port());
        let spec = self.content(&release);
        let command = spec.as_ref().and_then(|spec| match step {
            DeployStep::Before => spec.before.clone(),
            DeployStep::Verify => spec.verify.clone(),
        });
        let (Some(spec), Some(command)) = (spec, command) else {
            // The plan was made of the very content. If it were not there, the deploy would fail
            // and not hang.
            let said = format!("release `{release}` has no such step");
            let failure = Some(Box::new(Autopsy { summary: said.clone(), ..Autopsy::default() }));
            let reports = self.tasks.reports();
            self.tasks.spawn(async move {
                for told in [Report::StepEnded(StepEnd { said, failure }), Report::Gone(None)] {
                    report(&reports, Message::Run(id, Box::new(told))).await;
                }
            });
            return;
        };
        let start = StepStart { run: id, release, step, command, spec, port, within, settled };
        self.runs.run_step(&run, start, &mut self.tasks);
    }

    pub(super) fn step_started(&mut self, run: RunId, process: Process) {
        let config = std::sync::Arc::clone(&self.config.borrow());
        let pid = process.pid();
        self.runs.spawned(run, process, SystemTime::now(), stop_ladder(&config));
        let release = self.release_of(run);
        if let Some(step) = self.state.step_of(run) {
            tracing::info!(release, pid, step = step.as_str(), "started");
            let kind = match step {
                DeployStep::Before => EventKind::BeforeStarted,
                DeployStep::Verify => EventKind::VerifyStarted,
            };
            self.voice.event(kind, &release, |event| event.pid = Some(pid));
        }
        self.step(Event::StepStarted { run });
    }

    pub(super) fn step_ended(&mut self, run: RunId, end: StepEnd) {
        let StepEnd { said, failure } = end;
        let done = failure.is_none();
        let release = self.release_of(run);
        if let Some(step) = self.state.step_of(run) {
            tracing::info!(release, step = step.as_str(), "ended: {said}");
            let kind = match step {
                DeployStep::Before => EventKind::BeforeEnded,
                DeployStep::Verify => EventKind::VerifyEnded,
            };
            self.voice.event(kind, &release, |event| event.message = Some(said));
        }
        if let Some(failure) = failure {
            self.runs.step_failed(run, failure);
        }
        self.step(Event::StepEnded { run, done });
    }

    /// The live release finishes what it has, to make room for the candidate.
    pub(super) fn tell_vacating(&mut self, run: RunId) {
        let release = self.release_of(run);
        if !self.state.is_vacant() || self.state.live_release().is_none_or(|live| live.id != release) {
            return;
        }
        let port = self.runs.get(run).and_then(|facts| facts.port());
        self.voice.event(EventKind::Draining, &release, |event| {
            event.port = port;
            event.message = Some("it finishes what it has and is stopped; requests wait".to_owned());
        });
    }

    /// Nothing is left of a run of `release`.
    pub(super) fn tell_room(&mut self, release: &ReleaseRef) {
        let recreates = self.state.task.as_ref().is_some_and(|task| task.plan.recreate);
        if recreates && self.state.is_vacant() && self.state.live_release() == Some(release) {
            self.voice.event(EventKind::Stopped, &release.id, |_| {});
        }
    }

    /// The live release, where it is down and started again once nothing else is left.
    pub(super) fn returning(&self) -> Option<String> {
        let live = self.state.live_release().filter(|_| self.state.is_vacant())?;
        (!self.is_stopping()).then(|| live.id.clone())
    }
}
