//! What the machine tells: the history is brought up to date, and the voice gets the facts.

use super::{Answer, Coordinator, Step};
use crate::health::Ask;
use crate::release::events::Over;
use crate::release::explain::explain;
use crate::release::history::{Content, attempt};
use crate::release::state::{Abort, ReleaseRef, RunId, Stage, Task, Tell};
use crate::release::voice::Move;
use crate::wire::{self, Outcome, Reason};

impl Coordinator {
    pub(super) fn tell(&mut self, tell: Tell, step: &mut Step) {
        let phase = self.state.phase().as_str();
        match tell {
            Tell::Accepted => self.tell_accepted(step),
            Tell::PortTaken { run } => {
                let release = self.release_of(run);
                if self.runs.placeholder().is_held() {
                    tracing::warn!(release, "its port was taken; trying another");
                } else {
                    tracing::info!(
                        release,
                        "it cannot listen beside what holds its port (no SO_REUSEADDR): started once more, on a port that nothing holds"
                    );
                }
            }
            Tell::Switched { run, from, reason, from_release, seq } => {
                self.tell_switched(run, from, reason, from_release, seq);
            }
            Tell::Draining { run } => {
                self.tell_run(run, "draining");
                self.tell_vacating(run);
            }
            Tell::Drained { run } => self.tell_run(run, "drained"),
            Tell::Stopped { run, release } => self.tell_stopped(run, &release),
            Tell::Aborted { release, reason, run, why, before_done, seq } => {
                if let Some(attempt) = self.tell_aborted(&release, reason, run, why, before_done) {
                    match seq {
                        Some(seq) => self.recorder.confirm_after(seq, attempt),
                        None => attempt.end(),
                    }
                }
            }
            Tell::Crashed { release, delay, loops_now } => {
                self.voice.crashed(&release.id, delay, loops_now, phase);
            }
            Tell::CompanionCrashed { release, process, delay, loops_now } => {
                self.tell_companion_crashed(&release, &process, delay, loops_now);
            }
            Tell::CompanionStarted { run, again } => self.tell_companion_started(run, again, phase),
            Tell::Restored { run, boot } => {
                let release = self.release_of(run);
                tracing::info!(release, pid = self.pid_of(run), boot, phase, "the live release serves");
                self.history.serves(&release);
            }
            Tell::Joined { run, again } => {
                let (release, pid) = (self.release_of(run), self.pid_of(run));
                let replica = self.state.place_of(run).map(|(_, replica)| replica);
                tracing::info!(release, replica, pid, again, phase, "one more replica serves");
            }
            tell @ (Tell::Grew { .. } | Tell::Shrank { .. } | Tell::Idle { .. } | Tell::Woken { .. }) => {
                self.tell_number(tell, phase);
            }
            tell @ (Tell::Recycling { .. }
            | Tell::Recycled { .. }
            | Tell::NotRecycled { .. }
            | Tell::GrowsFast { .. }) => self.tell_recycling(tell, phase),
            Tell::Resumed { run } => {
                let (release, pid) = (self.release_of(run), self.pid_of(run));
                tracing::info!(release, pid, "the first release runs already: it is made live");
            }
            Tell::Adopted { run } => {
                let release = self.release_of(run);
                tracing::info!(release, "the live release went on serving");
                self.history.serves(&release);
            }
            Tell::NoWayBack { went_back } => {
                let release = self.state.live_release().map(|release| release.id.clone());
                self.voice.no_way_back(release, went_back, phase);
            }
            Tell::Settled => {
                tracing::info!(release = self.live_id(), phase, "the watch window has passed");
            }
            Tell::Calm => {
                let release = self.live_id();
                tracing::info!(release, phase, "the live release has not crashed for app.restart.within");
            }
        }
    }

    /// Nothing is left of a run.
    fn tell_stopped(&mut self, run: RunId, release: &ReleaseRef) {
        self.tell_room(release);
        let phase = self.state.phase().as_str();
        let facts = self.runs.get(run);
        let (pid, exit) = (facts.and_then(|facts| facts.pid()), facts.and_then(|facts| facts.exit()));
        match facts.and_then(|facts| facts.step()) {
            Some(step) => {
                let step = step.as_str();
                tracing::info!(release = release.id, step, pid, exit, phase, "nothing is left of it");
            }
            None => {
                let process = facts.and_then(|facts| facts.process_name());
                tracing::info!(release = release.id, process, pid, exit, phase, "stopped");
            }
        }
        self.note_end(run);
    }

    /// How many replicas there are follows the load.
    fn tell_number(&self, tell: Tell, phase: &str) {
        let release = self.live_id();
        match tell {
            Tell::Grew { from, inflight } => {
                let to = from + 1;
                tracing::info!(
                    release,
                    from,
                    to,
                    inflight,
                    phase,
                    "scaled: busy, one replica more is started"
                );
            }
            Tell::Shrank { from, inflight } => {
                let to = from - 1;
                tracing::info!(
                    release,
                    from,
                    to,
                    inflight,
                    phase,
                    "scaled: quiet, one replica fewer will do"
                );
            }
            Tell::Idle { release } => {
                let release = release.id;
                tracing::info!(release, phase, "idle: nothing of it runs before the next request");
            }
            Tell::Woken { release } => {
                tracing::info!(release = release.id, phase, "woken: a request waits for it");
            }
            _ => {}
        }
    }

    /// A replica has grown too large.
    fn tell_recycling(&self, tell: Tell, phase: &str) {
        match tell {
            Tell::Recycling { run, bytes } => self.tell_size(
                run,
                bytes,
                "its memory is over app.max_memory: another one is started to take its place",
            ),
            Tell::GrowsFast { run, bytes } => self.tell_size(
                run,
                bytes,
                "its memory is over app.max_memory within app.recycle_after of its start: it stays",
            ),
            Tell::Recycled { run, by, bytes } => {
                let (release, place) = (self.release_of(run), self.state.place_of(by));
                let (replica, by) = (self.replica_of(run), place.map(|(_, replica)| replica));
                tracing::info!(release, replica, by, bytes, phase, "recycled");
            }
            Tell::NotRecycled { run } => {
                let (release, replica) = (self.release_of(run), self.replica_of(run));
                let what = "what was to take its place did not become ready: it stays";
                tracing::warn!(release, replica, phase, "{what}");
            }
            _ => {}
        }
    }

    fn live_id(&self) -> Option<&str> {
        self.state.live_release().map(|release| release.id.as_str())
    }

    /// Keeps how a process ended while the daemon ends.
    fn note_end(&mut self, run: RunId) {
        let Some(facts) = self.runs.get(run).filter(|_| self.state.phase() == wire::Phase::Stopping) else {
            return;
        };
        let Some(pid) = facts.pid() else { return };
        self.ended.push(wire::Ended {
            app: self.config.borrow().name.clone(),
            release: facts.release().to_owned(),
            process: facts.process_name().map(str::to_owned),
            replica: facts.replica(),
            pid,
            exit: facts.exit().map(str::to_owned),
        });
    }

    fn tell_run(&self, run: RunId, what: &'static str) {
        let (release, phase) = (self.release_of(run), self.state.phase().as_str());
        tracing::info!(release, pid = self.pid_of(run), phase, "{what}");
    }

    /// Tells of a replica that has grown too large.
    fn tell_size(&self, run: RunId, bytes: u64, what: &'static str) {
        let (release, phase) = (self.release_of(run), self.state.phase().as_str());
        tracing::warn!(
            release,
            replica = self.replica_of(run),
            pid = self.pid_of(run),
            bytes,
            phase,
            "{what}"
        );
    }

    /// The number of the place that a run has or had.
    fn replica_of(&self, run: RunId) -> Option<u16> {
        Some(self.runs.get(run)?.replica())
    }

    fn pid_of(&self, run: RunId) -> Option<u32> {
        self.runs.get(run)?.pid()
    }

    /// Tells the readers of the attempt under way that its intent is written down.
    pub(super) fn tell_begun(&self) {
        let recording = matches!(self.state.task, Some(Task { stage: Stage::Recording { .. }, .. }));
        if self.state.task.is_some() && !recording {
            self.voice.begun();
        }
    }

    fn tell_accepted(&mut self, step: &mut Step) {
        let Some(task) = &self.state.task else { return };
        let (id, reason) = (task.release.id.clone(), task.reason);
        self.begin_row(&id, step.content.take());
        let spec = self.history.get(&id).and_then(|entry| entry.spec.as_ref());
        let directory = spec.and_then(|spec| spec.directory.as_ref());
        let directory = directory.map(|directory| directory.display().to_string());
        let phase = self.state.phase().as_str();
        step.answer = Some(Answer::Accepted(self.voice.accepted(&id, reason, directory, phase)));
    }

    /// Begins the history's row of the attempt that was just accepted.
    fn begin_row(&mut self, id: &str, content: Option<Content>) {
        let known =
            || self.history.get(id).map(|entry| Content { spec: entry.spec.clone(), app: entry.app.clone() });
        let mut begun = attempt(id, content.or_else(known).unwrap_or_default());
        // What is made live again has its process already.
        if let Some(facts) = self.state.revived_run().and_then(|run| self.runs.get(run.id)) {
            begun.row.started_at = facts.started_at().map(wire::rfc3339);
            begun.row.port = facts.port();
        }
        let needed = self.needed();
        self.history.begin(begun, &needed);
        let history = &self.history;
        self.state.past.retain(|release| history.get(&release.id).is_some());
    }

    /// The releases that must stay known.
    fn needed(&self) -> Vec<String> {
        let live = self.state.live_release().map(|release| release.id.clone());
        let previous = self.state.previous().map(|previous| previous.release.id);
        let runs = self.state.runs().map(|run| run.release.id.clone());
        live.into_iter().chain(previous).chain(runs).collect()
    }

    fn tell_switched(
        &mut self,
        run: RunId,
        from: Option<RunId>,
        reason: Reason,
        left: Option<ReleaseRef>,
        seq: u64,
    ) {
        let Some(facts) = self.runs.get(run) else { return };
        let (release, port) = (facts.release().to_owned(), facts.port().unwrap_or_default());
        let pid = facts.pid();
        let (to_ports, from_ports) = (self.ports_beside(Some(run)), self.ports_beside(from));
        let from = from.and_then(|from| self.runs.get(from));
        let from = from.map(|facts| (facts.release().to_owned(), facts.port()));
        let (left, phase) = (left.map(|left| left.id), self.state.phase().as_str());
        let (to, lost) = ((release.clone(), port), left.clone());
        let moved = self.voice.switched(Move { to, pid, from, left, reason, phase, to_ports, from_ports });
        self.history.ended(&release, Outcome::Live, |row| {
            row.switched_at = Some(moved.switch.at);
            row.port = Some(port);
        });
        if let (Some(lost), Some(why)) = (lost, moved.why_back) {
            self.history.rolled_back(&lost, &why);
        }
        // Traffic has moved. The readers hear of it once that is on disk, too.
        if let Some(attempt) = moved.attempt {
            self.recorder.confirm_after(seq, attempt);
        }
    }

    /// The ports of the set that a run belongs to, where there are several.
    fn ports_beside(&self, run: Option<RunId>) -> Vec<u16> {
        let set = run.and_then(|run| self.state.place_of(run));
        let runs = set.map(|(set, _)| self.state.ready_runs_of(set)).unwrap_or_default();
        let ports: Vec<_> = runs.into_iter().filter_map(|run| self.runs.get(run)?.port()).collect();
        if ports.len() > 1 { ports } else { Vec::new() }
    }

    fn tell_aborted(
        &mut self,
        release: &ReleaseRef,
        reason: Reason,
        run: Option<RunId>,
        why: Abort,
        before_done: bool,
    ) -> Option<Over> {
        let autopsy = run.and_then(|run| self.runs.take_autopsy(run));
        let facts = run.and_then(|run| self.runs.get(run));
        let seen = (facts.and_then(|facts| facts.port()), facts.and_then(|facts| facts.probe()));
        let asked = Ask::of(&self.config.borrow(), None);
        let mut error = explain(release, reason, why, autopsy, seen, &asked);
        error.before = before_done.then(|| "done".to_owned());
        if let Some(live) = self.returning() {
            let then = if self.state.is_idle() { "by the next request" } else { "again" };
            let also = format!("; `{live}` is started {then}");
            error.message.push_str(&also);
            error.autopsy.iter_mut().for_each(|autopsy| autopsy.summary.push_str(&also));
        }
        let (hint, phase) = (error.hint.as_deref(), self.state.phase().as_str());
        let is_wanted = matches!(why, Abort::Interrupted | Abort::Cancelled | Abort::MadeWay);
        if is_wanted {
            tracing::info!(release = release.id, reason = reason.as_str(), phase, "{}", error.message);
        } else {
            tracing::error!(release = release.id, reason = reason.as_str(), phase, hint, "{}", error.message);
        }
        if why == Abort::Unrecorded {
            if reason == Reason::Config {
                self.edits.never_attempted();
            }
            self.history.take_back(&release.id);
        } else {
            let outcome = error.outcome.unwrap_or(Outcome::Aborted);
            // Of several replicas the row is about the one that was the reason.
            let guilty = run.and_then(|run| self.runs.get(run)).filter(|facts| facts.is_of_the_app());
            let guilty = guilty.map(|facts| (facts.started_at(), facts.port(), facts.exit()));
            self.history.ended(&release.id, outcome, |row| {
                row.reason = Some(error.message.clone());
                if let Some((Some(started_at), port, exit)) = guilty {
                    row.started_at = Some(wire::rfc3339(started_at));
                    (row.port, row.exit) = (port, exit.map(str::to_owned));
                }
            });
        }
        if !matches!(why, Abort::Cancelled | Abort::MadeWay) {
            self.voice.failed(error.message.clone());
        }
        if why != Abort::Interrupted {
            let kind = if reason.is_rollback() { "failed" } else { "aborted" };
            self.voice.hook(kind, Some(release.id.clone()), error.message.clone(), None);
        }
        self.voice.ended(&release.id, error)
    }

    /// Ends the attempt under way for its readers when this daemon hands over. Nothing is recorded
    /// here; the next daemon records it as interrupted.
    pub(super) fn tell_interrupted(&mut self) {
        let Some(task) = &self.state.task else { return };
        let (release, reason) = (task.release.clone(), task.reason);
        let asked = Ask::of(&self.config.borrow(), None);
        let error = explain(&release, reason, Abort::Interrupted, None, (None, None), &asked);
        tracing::info!(release = release.id, reason = reason.as_str(), "{}", error.message);
        if let Some(attempt) = self.voice.ended(&release.id, error) {
            attempt.end();
        }
    }
}
