//! How the reports of the runs are heard: first the facts are kept and told, then the machine takes
//! its step.

use std::sync::Arc;
use std::time::SystemTime;

use super::Coordinator;
use super::perform::stop_ladder;
use crate::release::clock::now;
use crate::release::history::Rest;
use crate::release::message::Report;
use crate::release::state::{Event, Live, Run, RunId};
use crate::supervisor::{Exit, Process};
use crate::wire::{self, Autopsy, EventKind, ProbeReport};

impl Coordinator {
    /// What a run's task saw.
    pub(super) fn hear(&mut self, run: RunId, report: Report) {
        if let Some(process) = self.companion_of(run) {
            self.hear_companion(run, &process, report);
            return;
        }
        let is_news = !matches!(report, Report::Spawned(_) | Report::Output(_));
        if is_news && self.state.live == Live::None {
            // A first release has been probed, whatever it said.
            self.first_probe.send_replace(true);
        }
        match report {
            Report::Spawned(process) => self.spawned(run, process),
            Report::Signalled => drop(self.step(Event::Signalled { run })),
            Report::Probe(report) => {
                let message = report.said();
                self.tell_event(run, EventKind::Probe, |event| {
                    event.message = message;
                    event.probe = Some(report);
                });
            }
            Report::Output(line) => {
                let line = line.line.clone();
                self.tell_event(run, EventKind::Output, |event| event.line = Some(line));
            }
            Report::Waiting(waiting) => {
                let is_candidate = self.state.is_candidate(run);
                self.voice.waiting(&self.release_of(run), is_candidate, waiting);
            }
            Report::Unproven => {
                let release = self.release_of(run);
                tracing::warn!(release, "the listener cannot be proven to be the release's own");
            }
            Report::Ready(report) => self.ready(run, report),
            Report::NotReady(mut autopsy) => {
                if self.restores(run) {
                    self.voice.notice(autopsy.summary.clone());
                }
                self.name_replica(run, &mut autopsy);
                self.runs.not_ready(run, autopsy);
                self.step(Event::NotReady { run });
            }
            Report::Exited { exit, port_taken, autopsy } => {
                let port_is_taken = port_taken.is_some();
                let mut autopsy = autopsy.or_else(|| self.ended_while_others_start(run, exit));
                autopsy.iter_mut().for_each(|autopsy| self.name_replica(run, autopsy));
                self.runs.exited(run, exit, port_taken, autopsy);
                self.exited(run, exit, port_is_taken);
            }
            Report::StepStarted(process) => self.step_started(run, process),
            Report::StepEnded(end) => self.step_ended(run, end),
            Report::Gone(exit) => {
                self.runs.gone(run, exit);
                self.process_ended(run, exit.map(|exit| exit.to_string()).as_deref(), Some(&now()));
                self.step(Event::Gone { run });
            }
        }
    }

    fn spawned(&mut self, run: RunId, process: Process) {
        let (pid, port, at) = (process.pid(), process.port().unwrap_or_default(), SystemTime::now());
        let config = Arc::clone(&self.config.borrow());
        self.runs.spawned(run, process, at, stop_ladder(&config));
        let release = self.release_of(run);
        let is_candidate = !self.restores(run);
        let set = self.state.place_of(run).map(|(set, _)| self.state.runs_of(set));
        let first = set.is_none_or(|runs| runs.first() == Some(&run));
        self.history.started(&release, is_candidate, first, wire::rfc3339(at), port);
        tracing::info!(release, pid, port, "started");
        self.tell_event(run, EventKind::Spawned, |event| {
            event.pid = Some(pid);
            event.port = Some(port);
        });
        self.step(Event::Spawned { run, port });
    }

    fn ready(&mut self, run: RunId, report: ProbeReport) {
        self.runs.ready(run);
        let message = format!("status {} after {} probes", report.status.unwrap_or(0), report.attempts);
        self.tell_event(run, EventKind::Healthy, |event| {
            event.message = Some(message);
            event.probe = Some(report);
        });
        self.step(Event::Ready { run });
    }

    fn exited(&mut self, run: RunId, exit: Exit, port_taken: bool) {
        let release = self.release_of(run);
        let exit = exit.to_string();
        self.process_ended(run, Some(&exit), None);
        if let Some(place) = self.state.place_of(run) {
            self.exits.note(place, &release, exit.clone());
        }
        if self.restores(run) {
            self.voice.notice(format!("it ended: {exit}"));
            if !port_taken {
                self.voice.live_exited(&release, exit.clone());
            }
        }
        if self.state.live_runs().contains(&run) {
            let (who, it) = self.who_ended(run);
            tracing::error!(release, "{who} ended: {exit}");
            self.voice.notice(format!("{it} ended: {exit}"));
            self.voice.live_exited(&release, exit);
        }
        self.step(Event::Exited { run, port_taken });
    }

    /// Writes the end of a run's process into the history.
    fn process_ended(&mut self, run: RunId, exit: Option<&str>, stopped_at: Option<&str>) {
        // The history is of replicas.
        let Some(facts) = self.runs.get(run).filter(|facts| facts.step().is_none()) else { return };
        let started_at = facts.started_at().map(wire::rfc3339);
        let rest = self.rest_of(run, facts.release());
        self.history.process_ended(facts.release(), started_at.as_deref(), rest, exit, stopped_at);
    }

    /// What there is of `release` beside this run.
    fn rest_of(&self, run: RunId, release: &str) -> Rest {
        let is_replica = |other: &&Run| {
            let step = || self.runs.get(other.id).is_some_and(|facts| facts.step().is_some());
            other.id != run && other.release.id == release && other.process.is_none() && !step()
        };
        let live = self.state.live_runs();
        let stays = |other: &Run| {
            live.contains(&other.id) || self.restores(other.id) || self.state.is_candidate(other.id)
        };
        Rest::of(self.state.runs().filter(is_replica).map(stays))
    }

    /// Whether this run is to bring the live release back.
    fn restores(&self, id: RunId) -> bool {
        self.state.restores(id)
    }

    /// The autopsy of a candidate that was healthy already, and ended before the others were.
    fn ended_while_others_start(&self, run: RunId, exit: Exit) -> Option<Box<Autopsy>> {
        let summary = format!("it was healthy, and then ended: {exit}");
        self.state.is_candidate(run).then(|| Box::new(Autopsy { summary, ..Autopsy::default() }))
    }

    /// Says in the autopsy which of several replicas it is about.
    fn name_replica(&self, run: RunId, autopsy: &mut Autopsy) {
        if let Some((_, replica)) = self.state.place_of(run)
            && self.replicas().max > 1
        {
            autopsy.summary = format!("replica {replica}: {}", autopsy.summary);
        }
    }

    /// What a live run is called in a sentence of its own, and in one about the release.
    fn who_ended(&self, run: RunId) -> (String, String) {
        match self.state.place_of(run) {
            Some((_, replica)) if self.replicas().max > 1 => {
                (format!("replica {replica} of the live release"), format!("its replica {replica}"))
            }
            _ => ("the live release".to_owned(), "it".to_owned()),
        }
    }

    /// Adds an event to the attempt under way, where it is about its run.
    fn tell_event(&mut self, run: RunId, kind: EventKind, fill: impl FnOnce(&mut wire::StreamEvent)) {
        if self.state.is_candidate(run) {
            let release = self.release_of(run);
            self.voice.event(kind, &release, fill);
        }
    }

    /// The release of a run.
    pub(super) fn release_of(&self, run: RunId) -> String {
        self.runs.get(run).map(|facts| facts.release().to_owned()).unwrap_or_default()
    }
}
