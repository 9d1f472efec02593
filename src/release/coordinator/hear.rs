//! How the coordinator takes in what its runs report: facts first, then the machine's event.

use std::sync::Arc;
use std::time::SystemTime;

use super::Coordinator;
use crate::release::clock::now;
use crate::release::message::Report;
use crate::release::state::{Event, Live, RunId};
use crate::supervisor::Exit;
use crate::wire::{self, EventKind};

impl Coordinator {
    /// What a run's task saw.
    pub(super) fn reported(&mut self, id: RunId, report: Report) {
        let news = !matches!(report, Report::Spawned(_) | Report::Output(_));
        if news && self.state.live == Live::None {
            // A first release has been asked, whatever it said.
            self.first_probe.send_replace(true);
        }
        match report {
            Report::Spawned(process) => {
                let (pid, port, time) = (process.pid(), process.port(), SystemTime::now());
                let config = Arc::clone(&self.config.borrow());
                let slot = self.slot(id);
                if slot.stop {
                    process.stop(config.app.stop_signal, config.app.stop_timeout);
                }
                if slot.kill {
                    process.kill();
                }
                slot.process = Some(process);
                slot.port = Some(port);
                slot.started_at = Some(time);
                let release = slot.release.clone();
                let candidate = !self.restores(id);
                self.history.started(&release, candidate, wire::rfc3339(time), port);
                tracing::info!(release, pid, port, "started");
                self.event_of(id, EventKind::Spawned, |event| {
                    event.pid = Some(pid);
                    event.port = Some(port);
                });
                self.step(Event::Spawned { run: id, port });
            }
            Report::Signalled => self.step(Event::Signalled { run: id }),
            Report::Probe(report) => {
                let message = report.said();
                self.event_of(id, EventKind::Probe, |event| {
                    event.message = message;
                    event.probe = Some(report);
                });
            }
            Report::Output(line) => {
                let line = line.line.clone();
                self.event_of(id, EventKind::Output, |event| event.line = Some(line));
            }
            Report::Waiting(waiting) => self.tell_waiting(id, waiting),
            Report::Unproven => {
                let release = self.slot(id).release.clone();
                tracing::warn!(release, "the listener cannot be proven to be the release's own");
            }
            Report::Ready(report) => {
                self.placeholder.succeeded();
                let message =
                    format!("status {} after {} probes", report.status.unwrap_or(0), report.attempts);
                self.event_of(id, EventKind::Healthy, |event| {
                    event.message = Some(message);
                    event.probe = Some(report);
                });
                self.step(Event::Ready { run: id });
            }
            Report::NotReady(autopsy) => {
                if self.restores(id) {
                    self.verdict = Some(autopsy.summary.clone());
                }
                self.slot(id).autopsy = Some(autopsy);
                self.placeholder.failed(None);
                self.step(Event::NotReady { run: id });
            }
            Report::Exited { exit, port_taken, autopsy } => {
                let slot = self.slot(id);
                slot.exit = Some(exit.to_string());
                let unready = autopsy.is_some();
                if unready {
                    slot.autopsy = autopsy;
                }
                let release = slot.release.clone();
                self.process_ended(id, Some(&exit.to_string()), None);
                if self.restores(id) {
                    self.verdict = Some(format!("it ended: {exit}"));
                    if port_taken.is_none() {
                        self.note_crash(release.clone(), &exit);
                    }
                }
                if self.state.live_run().is_some_and(|run| run.id == id) {
                    tracing::error!(release, "the live release ended: {exit}");
                    self.verdict = Some(format!("it ended: {exit}"));
                    self.note_crash(release, &exit);
                }
                if unready {
                    self.placeholder.failed(port_taken);
                }
                self.step(Event::Exited { run: id, port_taken: port_taken.is_some() });
            }
            Report::Gone(exit) => {
                self.process_ended(id, exit.map(|exit| exit.to_string()).as_deref(), Some(&now()));
                self.step(Event::Gone { run: id });
            }
        }
    }

    /// Writes the end of a run's process into the history.
    fn process_ended(&mut self, id: RunId, exit: Option<&str>, stopped_at: Option<&str>) {
        let slot = self.slot(id);
        let (release, started_at) = (slot.release.clone(), slot.started_at.map(wire::rfc3339));
        self.history.process_ended(&release, started_at.as_deref(), exit, stopped_at);
    }

    fn note_crash(&mut self, release: String, exit: &Exit) {
        self.last_exit = Some(wire::LastExit { release, exit: exit.to_string(), at: now() });
    }

    /// Whether this run is to bring the live release back.
    pub(super) fn restores(&self, id: RunId) -> bool {
        matches!(
            &self.state.live,
            Live::Down { stage: crate::release::state::DownStage::Starting { run, .. }, .. } if run.id == id
        )
    }

    /// Adds an event to the attempt under way, where it is about its run.
    pub(super) fn event_of(&mut self, id: RunId, kind: EventKind, fill: impl FnOnce(&mut wire::Event)) {
        let candidate = match &self.state.task {
            Some(crate::release::state::Task {
                stage: crate::release::state::Stage::Starting { run, .. },
                ..
            }) => Some(run.id),
            _ => None,
        };
        if candidate == Some(id)
            && let Some(attempt) = &mut self.attempt
        {
            let mut event = wire::Event::new(now(), kind, self.slots[&id].release.clone());
            fill(&mut event);
            attempt.push(event);
        }
    }

    /// Lets whoever waits for the attempt know that its intent is written down.
    pub(super) fn begin_attempt(&self) {
        let recorded = !matches!(
            self.state.task,
            None | Some(crate::release::state::Task {
                stage: crate::release::state::Stage::Recording { .. },
                ..
            })
        );
        if recorded && let Some(attempt) = &self.attempt {
            attempt.begin();
        }
    }
}
