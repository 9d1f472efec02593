//! What is told of an app's releases: to the readers of the attempt under way, to the hooks, to the
//! log, and as the last switch and the last failure in `status`.
//!
//! Owned by the coordinator, which hands it plain facts. Nothing is decided by what it knows.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::clock::now;
use super::events::{Attempt, AttemptLog, Over};
use super::message::Waiting;
use super::record::{Failure, Record};
use super::spec;
use super::state::ProcessName;
use crate::wire::{self, ErrorBody, EventKind, LastExit, Outcome, Reason, StreamEvent, Switch};

/// Tells the hooks; must not block.
pub(super) type Notify = Box<dyn Fn(wire::HookEvent) + Send>;

/// What there is to tell, and to whom.
pub(super) struct Voice {
    instance: String,
    notify: Notify,
    /// The attempt under way.
    attempt: Option<AttemptLog>,
    last_switch: Option<Switch>,
    /// What went wrong last, until a later attempt succeeds.
    last_failure: Option<Failure>,
    /// The live release's last crash, until it is settled again.
    last_exit: Option<LastExit>,
    /// What is wrong with the live release, until it is told as the reason of what follows.
    symptom: Option<String>,
    /// How companions ended last, until that is told.
    companion_ends: BTreeMap<ProcessName, String>,
}

/// A move of traffic.
#[derive(Debug)]
pub(super) struct Move {
    /// The release that gets it, and its port.
    pub(super) to: (String, u16),
    /// Its process.
    pub(super) pid: Option<u32>,
    /// The release of the run that had it, and its port.
    pub(super) from: Option<(String, Option<u16>)>,
    /// The release that was live, also where it was down.
    pub(super) left: Option<String>,
    pub(super) reason: Reason,
    /// The phase after it.
    pub(super) phase: &'static str,
    /// The ports of all that get it, where these are several.
    pub(super) to_ports: Vec<u16>,
    /// The ports of all that had it, likewise.
    pub(super) from_ports: Vec<u16>,
}

/// What became of a move.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) switch: Switch,
    /// Why it went back, where it did.
    pub(super) why_back: Option<String>,
    /// The attempt that it ends, once its record is on disk.
    pub(super) attempt: Option<Over>,
}

impl fmt::Debug for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Voice").field("instance", &self.instance).finish_non_exhaustive()
    }
}

impl Voice {
    /// Goes on from what `record` says.
    pub(super) fn new(instance: String, notify: Notify, record: &Record) -> Self {
        Self {
            instance,
            notify,
            attempt: None,
            last_switch: record.last_switch.clone(),
            last_failure: record.last_failure.clone(),
            last_exit: record.last_exit.clone(),
            symptom: None,
            companion_ends: BTreeMap::new(),
        }
    }

    /// The last move of traffic.
    pub(super) fn last_switch(&self) -> Option<&Switch> {
        self.last_switch.as_ref()
    }

    /// What went wrong last, until a later attempt succeeds.
    pub(super) fn last_failure(&self) -> Option<&Failure> {
        self.last_failure.as_ref()
    }

    /// The live release's last crash, until it is settled again.
    pub(super) fn last_exit(&self) -> Option<&LastExit> {
        self.last_exit.as_ref()
    }

    // ---- the attempt under way ----

    /// An attempt begins. Gives back a reader of it.
    pub(super) fn accepted(
        &mut self,
        release: &str,
        reason: Reason,
        directory: Option<String>,
        phase: &'static str,
    ) -> Attempt {
        tracing::info!(release, reason = reason.as_str(), phase, "accepted");
        let mut log = AttemptLog::new(release);
        let mut event = StreamEvent::new(now(), EventKind::Accepted, release);
        event.message = Some(reason.as_str().to_owned());
        event.directory = directory;
        log.push(event);
        self.attempt.insert(log).reader()
    }

    /// The intent of the attempt is written down.
    pub(super) fn begun(&self) {
        if let Some(attempt) = &self.attempt {
            attempt.begin();
        }
    }

    /// A reader of the attempt under way.
    pub(super) fn reader(&self) -> Option<Attempt> {
        self.attempt.as_ref().map(AttemptLog::reader)
    }

    /// The attempt under way took the place of the candidate `release`.
    pub(super) fn cancelled_for_it(&mut self, release: &str) {
        if let Some(attempt) = &mut self.attempt {
            attempt.cancelled = Some(release.to_owned());
        }
    }

    /// Something happened to the candidate `release`.
    pub(super) fn event(&mut self, kind: EventKind, release: &str, fill: impl FnOnce(&mut StreamEvent)) {
        if self.attempt.is_some() {
            let mut event = StreamEvent::new(now(), kind, release);
            fill(&mut event);
            self.push(event);
        }
    }

    fn push(&mut self, event: StreamEvent) {
        if let Some(attempt) = &mut self.attempt {
            attempt.push(event);
        }
    }

    /// A run is not healthy yet. `is_candidate`: the readers of the attempt hear of it.
    pub(super) fn waiting(&mut self, release: &str, is_candidate: bool, waiting: Waiting) {
        let Waiting { port, ask, probe, told, hint } = waiting;
        let saw = probe.as_ref().and_then(wire::ProbeReport::said).unwrap_or_else(|| "no answer yet".into());
        let explained = hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        tracing::info!(release, "waiting for {}: {saw}{explained}", ask.awaited(port));
        if is_candidate && (!told || hint.is_some()) {
            self.event(EventKind::Probe, release, |event| {
                event.message = Some(saw);
                event.probe = probe;
                event.hint = hint;
            });
        }
    }

    /// Traffic has moved.
    pub(super) fn switched(&mut self, moved: Move) -> Moved {
        let Move { to: (release, port), pid, from, left, reason, phase, to_ports, from_ports } = moved;
        let from_port = from.as_ref().and_then(|(_, port)| *port);
        let switch = Switch {
            from: from_port,
            from_release: from.as_ref().map(|(release, _)| release.clone()),
            to: port,
            from_ports,
            to_ports,
            to_release: Some(release.clone()),
            at: now(),
            reason,
            id: spec::switch_id(),
        };
        self.last_switch = Some(switch.clone());
        self.last_failure = None;
        self.last_exit = None;
        let left = left.filter(|_| reason.is_rollback());
        let why_back = left.as_ref().map(|_| match reason {
            Reason::AutoRollback => self.symptom.take().unwrap_or_else(|| "its watch failed".into()),
            _ => "an operator asked for it".to_owned(),
        });
        let on = on_ports(port, &switch.to_ports);
        let message = match (&left, &why_back) {
            (Some(left), Some(why)) => format!("rolled back from `{left}` to `{release}` on {on}: {why}"),
            _ => format!("`{release}` is live on {on}"),
        };
        if reason == Reason::AutoRollback {
            self.failed(message.clone());
        }
        let reason_text = reason.as_str();
        tracing::info!(release, pid, from = from_port, to = port, reason = reason_text, phase, "{message}");
        let kind = if reason.is_rollback() { EventKind::RolledBack } else { EventKind::Switched };
        let about = left.unwrap_or_else(|| release.clone());
        self.event(kind, &about, |event| {
            event.port = Some(port);
            event.switch = Some(switch.clone());
            event.message = Some(message.clone());
        });
        self.hook(kind.as_str(), Some(about), message.clone(), Some(switch.clone()));
        if let Some((from, port)) = from {
            self.event(EventKind::Draining, &from, |event| event.port = port);
        }
        let attempt = self.attempt.take().map(|log| succeeded(log, release, message, Some(switch.clone())));
        Moved { switch, why_back, attempt }
    }

    /// An attempt that has ended before it began: `release` is live already.
    pub(super) fn nothing_to_do(&self, release: &str, cancelled: Option<String>) -> Attempt {
        let mut log = AttemptLog::new(release);
        let attempt = log.reader();
        let message = match &cancelled {
            Some(cancelled) => {
                format!("`{release}` is live already; the candidate `{cancelled}` was cancelled")
            }
            None => format!("`{release}` is live already"),
        };
        log.cancelled = cancelled;
        let mut over = succeeded(log, release.to_owned(), message, self.last_switch.clone());
        over.event.already_live = true;
        over.result = over.result.map(|moved| wire::Moved { already_live: true, ..moved });
        over.end();
        attempt
    }

    /// The attempt under way ends with `error`. Gives it back, for its readers to hear of it.
    pub(super) fn ended(&mut self, release: &str, error: ErrorBody) -> Option<Over> {
        self.event(EventKind::Aborted, release, |event| event.message = Some(error.message.clone()));
        let mut event = StreamEvent::new(now(), EventKind::Finished, release);
        event.outcome = error.outcome;
        event.before.clone_from(&error.before);
        event.error = Some(error.clone());
        self.attempt.take().map(|log| Over { log, event, result: Err(error) })
    }

    // ---- the live release ----

    /// Something is wrong with the live release. The newest symptom counts.
    pub(super) fn notice(&mut self, symptom: String) {
        self.symptom = Some(symptom);
    }

    /// The live release ended.
    pub(super) fn live_exited(&mut self, release: &str, exit: String) {
        self.last_exit = Some(LastExit { release: release.to_owned(), exit, at: now() });
    }

    /// The live release is settled: its last crash is history.
    pub(super) fn forget_exit(&mut self) {
        self.last_exit = None;
    }

    /// The live release crashed; it is started again after `delay`. `loops_now`: with this crash
    /// its crashes are too many.
    pub(super) fn crashed(
        &mut self,
        release: &str,
        delay: Option<Duration>,
        loops_now: bool,
        phase: &'static str,
    ) {
        let exit = self.symptom.take().unwrap_or_else(|| "it is not healthy".into());
        let next = match delay {
            Some(delay) => format!("started again in {}", humantime::format_duration(delay)),
            None => "not started again before the next deploy".to_owned(),
        };
        tracing::error!(release, phase, "the live release crashed: {exit}; {next}");
        if loops_now {
            let message = format!("`{release}` crashes again and again: {exit}; {next}");
            self.failed(message.clone());
            self.hook("failed", Some(release.to_owned()), message, None);
        }
    }

    /// A companion ended so.
    pub(super) fn companion_ended(&mut self, process: &ProcessName, how: String) {
        self.companion_ends.insert(process.clone(), how);
    }

    /// A companion has ended; it is started again after `delay`. `loops_now`: with this end it
    /// has ended too often in the live release.
    pub(super) fn companion_crashed(
        &mut self,
        release: &str,
        process: &ProcessName,
        delay: Option<Duration>,
        loops_now: bool,
        phase: &'static str,
    ) {
        let how = self.companion_ends.remove(process).unwrap_or_else(|| "it ended".into());
        let next = match delay {
            Some(delay) => format!("started again in {}", humantime::format_duration(delay)),
            None => "not started again before the next deploy".to_owned(),
        };
        tracing::error!(release, process = &**process, phase, "a companion crashed: {how}; {next}");
        if !loops_now {
            return;
        }
        self.notice(format!("its process `{process}` crashes again and again: {how}"));
        let message = format!("process `{process}` of `{release}` crashes again and again: {how}; {next}");
        self.failed(message.clone());
        self.hook("failed", Some(release.to_owned()), message, None);
    }

    /// The live release is bad, and portok goes back nowhere. `went_back`: because it has just gone
    /// back to it.
    pub(super) fn no_way_back(&mut self, release: Option<String>, went_back: bool, phase: &'static str) {
        let symptom = self.symptom.take().unwrap_or_default();
        let why = if went_back {
            "portok has just gone back to it, and goes back once a deploy"
        } else {
            "there is nothing to go back to"
        };
        let message = format!("the live release is bad ({symptom}) and {why}");
        tracing::error!(release, phase, "{message}");
        self.failed(message.clone());
        self.hook("failed", release, message, None);
    }

    // ---- failures and hooks ----

    /// Keeps what went wrong, until a later attempt succeeds.
    pub(super) fn failed(&mut self, message: String) {
        self.last_failure = Some(Failure { message, at: now() });
    }

    /// Tells the hooks.
    pub(super) fn hook(&self, event: &str, release: Option<String>, message: String, switch: Option<Switch>) {
        let (event, instance) = (event.to_owned(), self.instance.clone());
        (self.notify)(wire::HookEvent { at: now(), event, instance, app: None, release, message, switch });
    }
}

/// `port 1`, or `ports 1, 2` where several get traffic.
fn on_ports(port: u16, all: &[u16]) -> String {
    match all {
        [_, _, ..] => format!("ports {}", all.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")),
        _ => format!("port {port}"),
    }
}

/// The success of an attempt to make `release` live.
fn succeeded(log: AttemptLog, release: String, message: String, switch: Option<Switch>) -> Over {
    let cancelled = log.cancelled.clone();
    let mut event = StreamEvent::new(now(), EventKind::Finished, release.clone());
    event.outcome = Some(Outcome::Live);
    event.switch = switch.clone();
    event.message = Some(message.clone());
    event.cancelled = cancelled.clone();
    let moved = wire::Moved {
        success: true,
        message,
        release,
        outcome: Outcome::Live,
        switch,
        already_live: false,
        cancelled,
        warning: None,
    };
    Over { log, event, result: Ok(moved) }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    type Hooks = Arc<Mutex<Vec<(String, Option<String>)>>>;

    fn voice() -> (Voice, Hooks) {
        let hooks = Hooks::default();
        let told = Arc::clone(&hooks);
        let notify = Box::new(move |event: wire::HookEvent| {
            told.lock().unwrap().push((event.event, event.release));
        });
        (Voice::new("web".into(), notify, &Record::default()), hooks)
    }

    fn move_to(to: &str, from: &str, reason: Reason) -> Move {
        Move {
            to: (to.into(), 4001),
            pid: None,
            from: Some((from.into(), Some(4002))),
            left: Some(from.into()),
            reason,
            phase: "settled",
            to_ports: Vec::new(),
            from_ports: Vec::new(),
        }
    }

    #[tokio::test]
    async fn an_automatic_rollback_is_told_with_its_symptom_and_stays_a_failure_until_a_success() {
        let (mut voice, hooks) = voice();
        let mut reader = voice.accepted("v1", Reason::AutoRollback, None, "watching");
        voice.notice("3 failed probes".into());
        let moved = voice.switched(move_to("v1", "v2", Reason::AutoRollback));
        assert_eq!(moved.why_back.as_deref(), Some("3 failed probes"));
        assert_eq!(*hooks.lock().unwrap(), [("rolled_back".to_owned(), Some("v2".to_owned()))]);
        let failure = voice.last_failure().map(|failure| failure.message.clone()).unwrap();
        assert!(failure.starts_with("rolled back from `v2` to `v1`"), "{failure}");
        assert!(voice.reader().is_none(), "no attempt is under way any more");
        moved.attempt.unwrap().end();
        let mut kinds = Vec::new();
        while let Some(event) = reader.next().await {
            kinds.push(event.event);
        }
        let (back, end) = (EventKind::RolledBack, EventKind::Finished);
        assert_eq!(kinds, [EventKind::Accepted, back, EventKind::Draining, end]);
        voice.live_exited("v1", "status 1".into());
        let moved = voice.switched(move_to("v3", "v1", Reason::Deploy));
        assert!(moved.why_back.is_none() && moved.attempt.is_none());
        assert!(voice.last_failure().is_none() && voice.last_exit().is_none());
        assert_eq!(voice.last_switch(), Some(&moved.switch));
        let mut reader = voice.accepted("v4", Reason::Deploy, None, "settled");
        let several = Move { to_ports: vec![4001, 4003], ..move_to("v4", "v3", Reason::Deploy) };
        voice.switched(several).attempt.unwrap().end();
        let mut said = Vec::new();
        while let Some(event) = reader.next().await {
            said.extend(event.message);
        }
        assert!(said.contains(&"`v4` is live on ports 4001, 4003".to_owned()), "{said:?}");
    }

    #[tokio::test]
    async fn what_is_live_already_ends_at_once_and_names_the_candidate_that_made_way() {
        let (voice, _) = voice();
        let attempt = voice.nothing_to_do("v1", Some("v2".into()));
        let moved = attempt.already_live().unwrap();
        assert_eq!(moved.cancelled.as_deref(), Some("v2"));
        assert!(moved.message.contains("`v1` is live already"), "{}", moved.message);
    }
}
