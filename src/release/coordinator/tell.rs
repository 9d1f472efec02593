//! What the coordinator says: to the attempt's readers, to the history, to the hooks and to the log.

use super::{Coordinator, Offered, Unconfirmed};
use crate::release::clock::now;
use crate::release::events::AttemptLog;
use crate::release::explain::explain;
use crate::release::history::attempt;
use crate::release::message::Waiting;
use crate::release::spec;
use crate::release::state::{Abort, ReleaseRef, RunId, Stage, Task, Tell};
use crate::supervisor::Process;
use crate::wire::{self, ErrorBody, EventKind, Outcome, Reason};

impl Coordinator {
    fn push(&mut self, event: wire::Event) {
        if let Some(attempt) = &mut self.attempt {
            attempt.push(event);
        }
    }

    /// Where the command of a release runs, for people.
    fn directory_of(&self, release: &str) -> Option<String> {
        let directory = self.history.get(release)?.spec.as_ref()?.directory.as_ref()?;
        Some(directory.display().to_string())
    }

    /// The process of a run, for the log.
    fn pid_of(&self, run: RunId) -> Option<u32> {
        self.slots.get(&run)?.process.as_ref().map(Process::pid)
    }

    pub(super) fn tell(&mut self, tell: Tell) {
        let phase = self.state.phase().as_str();
        match tell {
            Tell::Accepted => {
                let Some(task) = &self.state.task else { return };
                let (id, reason) = (task.release.id.clone(), task.reason);
                tracing::info!(release = id, reason = reason.as_str(), phase, "accepted");
                self.begin_row(&id);
                let mut log = AttemptLog::new(&id);
                let mut event = wire::Event::new(now(), EventKind::Accepted, id.clone());
                event.message = Some(reason.as_str().to_owned());
                event.directory = self.directory_of(&id);
                log.push(event);
                self.accepted = Some(log.reader());
                self.attempt = Some(log);
            }
            Tell::PortTaken { run } => {
                let release = self.slot(run).release.clone();
                if self.placeholder.is_held() {
                    tracing::warn!(release, "its port was taken; trying another");
                } else {
                    tracing::info!(
                        release,
                        "it cannot listen beside what holds its port (no SO_REUSEADDR): started once more, on a port that nothing holds"
                    );
                }
            }
            Tell::Switched { run, from, reason, from_release } => {
                self.switched(run, from, reason, from_release)
            }
            Tell::Draining { run } => self.tell_run(run, EventKind::Draining),
            Tell::Drained { run } => self.tell_run(run, EventKind::Drained),
            Tell::Stopped { run, release } => {
                let exit = self.slots.get(&run).and_then(|slot| slot.exit.clone());
                let pid = self.pid_of(run);
                tracing::info!(release = release.id, pid, exit, phase, "stopped");
            }
            Tell::Aborted { release, reason, run, why } => self.aborted(&release, reason, run, why),
            Tell::Crashed { release, delay, loops_now } => {
                let exit = self.verdict.take().unwrap_or_else(|| "it is not healthy".into());
                let next = match delay {
                    Some(delay) => format!("started again in {}", humantime::format_duration(delay)),
                    None => "not started again before the next deploy".to_owned(),
                };
                tracing::error!(release = release.id, phase, "the live release crashed: {exit}; {next}");
                if loops_now {
                    let message = format!("`{}` crashes again and again: {exit}; {next}", release.id);
                    self.failed(message.clone());
                    self.hook("failed", Some(release.id), message, None);
                }
            }
            Tell::Restored { run, boot } => {
                let release = self.slot(run).release.clone();
                tracing::info!(release, pid = self.pid_of(run), boot, phase, "the live release serves");
                self.history.serves(&release);
            }
            Tell::Resumed { run } => {
                let release = self.slot(run).release.clone();
                let pid = self.pid_of(run);
                tracing::info!(release, pid, "the first release runs already: it is made live");
            }
            Tell::Adopted { run } => {
                let release = self.slot(run).release.clone();
                tracing::info!(release, "the live release went on serving");
                self.history.serves(&release);
            }
            Tell::NoWayBack { went_back } => {
                let verdict = self.verdict.take().unwrap_or_default();
                let why = if went_back {
                    "portok has just gone back to it, and goes back once a deploy"
                } else {
                    "there is nothing to go back to"
                };
                let message = format!("the live release is bad ({verdict}) and {why}");
                let release = self.state.live_release().map(|release| release.id.clone());
                tracing::error!(release, phase, "{message}");
                self.failed(message.clone());
                self.hook("failed", release, message, None);
            }
            Tell::Settled => {
                let release = self.state.live_release().map(|release| release.id.as_str());
                tracing::info!(release, phase, "the watch window has passed");
            }
            Tell::Calm => {
                let release = self.state.live_release().map(|release| release.id.as_str());
                tracing::info!(release, phase, "the live release has not crashed for app.restart.within");
            }
        }
    }

    /// Begins the history's row of the attempt that was just accepted.
    fn begin_row(&mut self, id: &str) {
        let offered = self.offered.take();
        let known =
            || self.history.get(id).map(|entry| Offered { spec: entry.spec.clone(), app: entry.app.clone() });
        let Offered { spec, app } = offered.or_else(known).unwrap_or_default();
        let mut begun = attempt(id, spec, app);
        // What is made live again has its process already.
        let revived = match &self.state.task {
            Some(Task {
                stage: Stage::Reviving { run } | Stage::Recording { revive: Some(run), .. },
                ..
            }) => self.slots.get(run),
            _ => None,
        };
        if let Some(slot) = revived {
            begun.row.started_at = slot.started_at.map(wire::rfc3339);
            begun.row.port = slot.port;
        }
        let needed = self.needed();
        self.history.begin(begun, &needed);
        let history = &self.history;
        self.state.past.retain(|release| history.get(&release.id).is_some());
    }

    fn tell_run(&mut self, run: RunId, kind: EventKind) {
        let release = self.slot(run).release.clone();
        let phase = self.state.phase().as_str();
        tracing::info!(release, pid = self.pid_of(run), phase, "{}", kind.as_str());
    }

    /// Tells the log and the attempt's readers what is waited for.
    pub(super) fn tell_waiting(&mut self, run: RunId, waiting: Waiting) {
        let release = self.slot(run).release.clone();
        let Waiting { port, path, probe, told, hint } = waiting;
        let saw = probe.as_ref().and_then(wire::ProbeReport::said).unwrap_or_else(|| "no answer yet".into());
        let explained = hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        tracing::info!(release, "waiting for 2xx from http://127.0.0.1:{port}{path}: {saw}{explained}");
        if !told || hint.is_some() {
            self.event_of(run, EventKind::Probe, |event| {
                event.message = Some(saw);
                event.probe = probe;
                event.hint = hint;
            });
        }
    }

    fn switched(&mut self, run: RunId, from: Option<RunId>, reason: Reason, left: Option<ReleaseRef>) {
        let (release, port) = {
            let slot = self.slot(run);
            (slot.release.clone(), slot.port.unwrap_or_default())
        };
        let from_slot = from.and_then(|from| self.slots.get(&from));
        let from_port = from_slot.and_then(|slot| slot.port);
        let switch = wire::Switch {
            from: from_port,
            from_release: from_slot.map(|slot| slot.release.clone()),
            to: port,
            to_release: Some(release.clone()),
            at: now(),
            reason,
            id: spec::switch_id(),
        };
        self.last_switch = Some(switch.clone());
        self.last_failure = None;
        self.last_exit = None;
        self.history.ended(&release, Outcome::Live, |row| {
            row.switched_at = Some(switch.at.clone());
            row.port = Some(port);
        });
        let back = reason.is_rollback();
        let message = match (back, &left) {
            (true, Some(left)) => {
                let why = match reason {
                    Reason::AutoRollback => self.verdict.take().unwrap_or_else(|| "its watch failed".into()),
                    _ => "an operator asked for it".to_owned(),
                };
                self.history.rolled_back(&left.id, &why);
                format!("rolled back from `{}` to `{release}` on port {port}: {why}", left.id)
            }
            _ => format!("`{release}` is live on port {port}"),
        };
        if reason == Reason::AutoRollback {
            self.failed(message.clone());
        }
        let (pid, phase) = (self.pid_of(run), self.state.phase().as_str());
        tracing::info!(
            release,
            pid,
            from = from_port,
            to = port,
            reason = reason.as_str(),
            phase,
            "{message}"
        );
        let kind = if back { EventKind::RolledBack } else { EventKind::Switched };
        let about = if back { left.map_or_else(|| release.clone(), |left| left.id) } else { release.clone() };
        let mut event = wire::Event::new(now(), kind, about.clone());
        event.port = Some(port);
        event.switch = Some(switch.clone());
        event.message = Some(message.clone());
        self.push(event);
        self.hook(kind.as_str(), Some(about), message.clone(), Some(switch.clone()));
        if let Some(from) = from {
            let mut event = wire::Event::new(now(), EventKind::Draining, self.slot(from).release.clone());
            event.port = from_port;
            self.push(event);
        }
        let mut event = wire::Event::new(now(), EventKind::Finished, release.clone());
        event.outcome = Some(Outcome::Live);
        event.switch = Some(switch.clone());
        event.message = Some(message.clone());
        let cancelled = self.attempt.as_ref().and_then(|log| log.cancelled.clone());
        event.cancelled = cancelled.clone();
        let switch = Some(switch);
        let moved = wire::Moved {
            success: true,
            message,
            release,
            outcome: Outcome::Live,
            switch,
            already_live: false,
            cancelled,
        };
        // Traffic has moved; whoever asked is told once that is on disk too.
        if let (Some(log), Some(seq)) = (self.attempt.take(), self.save) {
            self.unconfirmed.push(Unconfirmed { seq, log, event, moved });
        }
    }

    fn aborted(&mut self, release: &ReleaseRef, reason: Reason, run: Option<RunId>, why: Abort) {
        let slot = run.and_then(|run| self.slots.get_mut(&run));
        let (autopsy, probe) = match slot {
            Some(slot) => (slot.autopsy.take(), slot.probe.clone()),
            None => (None, None),
        };
        let path = self.config.borrow().health.path.clone();
        let error = explain(release, reason, why, autopsy.map(|autopsy| *autopsy), probe.as_ref(), &path);
        let outcome = error.outcome.unwrap_or(Outcome::Aborted);
        let (hint, phase) = (error.hint.as_deref(), self.state.phase().as_str());
        if matches!(why, Abort::Interrupted | Abort::Cancelled | Abort::MadeWay) {
            tracing::info!(release = release.id, reason = reason.as_str(), phase, "{}", error.message);
        } else {
            tracing::error!(release = release.id, reason = reason.as_str(), phase, hint, "{}", error.message);
        }
        let rollback = reason.is_rollback();
        if why == Abort::Unrecorded {
            if reason == Reason::Config {
                // Never really attempted: its turn comes when the state can be written.
                self.app_attempted = None;
            }
            self.history.take_back(&release.id);
        } else {
            self.history.ended(&release.id, outcome, |row| row.reason = Some(error.message.clone()));
        }
        if !matches!(why, Abort::Cancelled | Abort::MadeWay) {
            self.failed(error.message.clone());
        }
        if why != Abort::Interrupted {
            let kind = if rollback { "failed" } else { "aborted" };
            self.hook(kind, Some(release.id.clone()), error.message.clone(), None);
        }
        self.told_of_the_end(release, error);
    }

    /// Tells whoever follows an attempt that it is given up, while nothing moves any more: the next daemon writes it down.
    pub(super) fn interrupted(&mut self) {
        let Some((release, reason)) =
            self.state.task.as_ref().map(|task| (task.release.clone(), task.reason))
        else {
            return;
        };
        let path = self.config.borrow().health.path.clone();
        let error = explain(&release, reason, Abort::Interrupted, None, None, &path);
        tracing::info!(release = release.id, reason = reason.as_str(), "{}", error.message);
        self.told_of_the_end(&release, error);
    }

    /// The last two events of an attempt that failed.
    fn told_of_the_end(&mut self, release: &ReleaseRef, error: ErrorBody) {
        let mut event = wire::Event::new(now(), EventKind::Aborted, release.id.clone());
        event.message = Some(error.message.clone());
        self.push(event);
        let mut event = wire::Event::new(now(), EventKind::Finished, release.id.clone());
        event.outcome = error.outcome;
        event.error = Some(error.clone());
        if let Some(attempt) = self.attempt.take() {
            attempt.end(event, Err(error));
        }
    }

    pub(super) fn hook(
        &self,
        event: &str,
        release: Option<String>,
        message: String,
        switch: Option<wire::Switch>,
    ) {
        let instance = self.config.borrow().name.clone();
        (self.notify)(wire::HookEvent {
            at: now(),
            event: event.to_owned(),
            instance,
            release,
            message,
            switch,
        });
    }
}
