//! What is heard and told of companions: the processes of a release that get no requests.

use std::sync::Arc;
use std::time::Duration;

use super::Coordinator;
use super::perform::stop_ladder;
use crate::config::AppConfig;
use crate::release::autopsy::OUTPUT_LINES;
use crate::release::message::Report;
use crate::release::record::{Record, StoredRun};
use crate::release::runs::StopLadder;
use crate::release::state::{Event, ProcessName, ReleaseRef, RunId};
use crate::supervisor::{Exit, Process};
use crate::wire::{Autopsy, EventKind};

impl Coordinator {
    /// Which companion a run is.
    pub(super) fn companion_of(&self, run: RunId) -> Option<ProcessName> {
        self.runs.get(run)?.companion().cloned()
    }

    /// What the task of a companion saw.
    pub(super) fn hear_companion(&mut self, run: RunId, process: &ProcessName, report: Report) {
        let release = self.release_of(run);
        match report {
            Report::Spawned(spawned) => self.companion_spawned(run, process, spawned),
            Report::Signalled => drop(self.step(Event::Signalled { run })),
            Report::NotReady(autopsy) => {
                if self.state.place_of(run).is_some() {
                    tracing::error!(release, process = &**process, "{}", autopsy.summary);
                }
                self.companion_ended(run, process, None, autopsy.summary);
                self.step(Event::NotReady { run });
            }
            Report::Exited { exit, .. } => {
                if let Some(place) = self.state.place_of(run) {
                    tracing::error!(release, process = &**process, "a companion ended: {exit}");
                    self.exits.note(place, &release, exit.to_string());
                }
                self.companion_ended(run, process, Some(exit), format!("it ended: {exit}"));
                self.step(Event::Exited { run, port_taken: false });
            }
            Report::Gone(exit) => {
                self.runs.gone(run, exit);
                self.step(Event::Gone { run });
            }
            // It is not probed, and its lines are followed by nobody.
            _ => {}
        }
    }

    fn companion_spawned(&mut self, run: RunId, process: &ProcessName, spawned: Process) {
        let pid = spawned.pid();
        let config = Arc::clone(&self.config.borrow());
        let ladder = self.ladder_of(run, &config);
        self.runs.spawned(run, spawned, std::time::SystemTime::now(), ladder);
        if self.state.is_ahead(run) {
            let release = self.release_of(run);
            self.voice.event(EventKind::Spawned, &release, |event| {
                event.pid = Some(pid);
                event.process = Some(process.to_string());
            });
        }
        self.step(Event::Ready { run });
    }

    /// Keeps how a companion ended: for whoever gives up its release, and for what is told of it.
    fn companion_ended(&mut self, run: RunId, process: &ProcessName, exit: Option<Exit>, how: String) {
        let output = self.runs.get(run).map(|facts| facts.output(OUTPUT_LINES)).unwrap_or_default();
        let summary = format!("its process `{process}`: {how}");
        self.voice.companion_ended(process, how);
        self.runs.companion_ended(run, exit, Autopsy { summary, output, ..Autopsy::default() });
    }

    pub(super) fn tell_companion_started(&self, run: RunId, again: bool, phase: &str) {
        let Some(facts) = self.runs.get(run) else { return };
        let (release, process, pid) = (facts.release(), facts.companion(), facts.pid());
        let replica = self.state.place_of(run).map(|(_, replica)| replica);
        let process = process.map(|process| &**process);
        tracing::info!(release, process, replica, pid, again, phase, "a companion runs");
    }

    pub(super) fn tell_companion_crashed(
        &mut self,
        release: &ReleaseRef,
        process: &ProcessName,
        delay: Option<Duration>,
        loops_now: bool,
    ) {
        // Who gives up a candidate for it tells that.
        let loops_now = loops_now && self.state.live_release() == Some(release);
        self.voice.companion_crashed(&release.id, process, delay, loops_now, self.state.phase().as_str());
    }

    /// How a run is stopped: as its release says of a companion, else as it is configured now.
    pub(super) fn ladder_of(&self, run: RunId, config: &AppConfig) -> StopLadder {
        let StopLadder { signal, timeout } = stop_ladder(config);
        let own = self.runs.get(run).and_then(|facts| {
            let spec = self.history.get(facts.release())?.spec.as_ref()?;
            spec.processes.get(&**facts.companion()?)
        });
        let Some(own) = own else { return StopLadder { signal, timeout } };
        StopLadder {
            signal: own.stop_signal().unwrap_or(signal),
            timeout: own.stop_timeout().unwrap_or(timeout),
        }
    }
}

/// The longest time between the stop signal of a recorded run and SIGKILL; `of_app`: that of the
/// app, as it is configured now.
pub(super) fn stop_timeout_of(record: &Record, run: &StoredRun, of_app: Duration) -> Duration {
    let own = run.process.as_ref().and_then(|process| {
        let specs = record.releases.iter().rev().filter(|known| known.row.release == run.release);
        specs.filter_map(|known| known.spec.as_ref()?.processes.get(process)).next()?.stop_timeout()
    });
    own.unwrap_or(of_app)
}
