//! What is written into the record, and what follows when that has ended.

use std::time::SystemTime;

use tokio::sync::oneshot;

use super::Coordinator;
use crate::release::message::reply;
use crate::release::placeholder::Placeholder;
use crate::release::record::{Intent, Record};
use crate::release::state::Event;
use crate::wire::rfc3339;

impl Coordinator {
    /// Writes the record as save `seq`. Before the machine has heard of the earlier daemon's
    /// record, that one stays.
    pub(super) fn write_record(&mut self, seq: u64) {
        if self.life.booting().is_none() {
            let record = self.make_record();
            self.recorder.write(seq, record);
        }
    }

    fn make_record(&self) -> Record {
        let state = &self.state;
        let drains: Vec<_> = state.drains_under_way().collect();
        let drain_ends = |id| {
            let (set, seq, _) = drains.iter().find(|(_, _, runs)| runs.contains(&id))?;
            self.timers.drain_ends(*set, *seq)
        };
        let intent = state.task.as_ref();
        let intent = intent.map(|task| Intent {
            release: task.release.clone(),
            reason: task.reason,
            recreate: task.plan.recreate,
        });
        let written = |at| rfc3339(SystemTime::UNIX_EPOCH + at);
        Record {
            live: state.live_release().cloned(),
            previous: state.previous().map(|previous| previous.release),
            past: Some(state.past.clone()),
            intent,
            app_attempted: self.edits.attempted().map(str::to_owned),
            app_quarantined: self.edits.quarantined().map(str::to_owned),
            last_switch: self.voice.last_switch().cloned(),
            releases: self.history.stored(),
            runs: self.runs.stored(
                |run, signalled| state.role(run, signalled),
                |run| state.stored_place(run),
                |run| state.grows_fast(run),
                drain_ends,
            ),
            restarts: state.restarts,
            recreated: state.recreated,
            vacant: state.is_vacant(),
            no_placeholder: self.runs.placeholder() == Placeholder::Impossible,
            crashes: state.crashes().map(written).collect(),
            companion_crashes: state
                .companion_crashes()
                .map(|(process, crashes)| (process.to_string(), crashes.map(written).collect()))
                .collect(),
            failed_probes: state.failed_probes(),
            last_failure: self.voice.last_failure().cloned(),
            last_exit: self.voice.last_exit().cloned(),
            watch_until: self.watched_until(),
            watch_waits: state.window.is_some_and(|window| self.waiting_window(window.ticket).is_some()),
            orders: self.orders.clone(),
            scale: self.scaling.recorded(),
            wanted: state.live_release().filter(|_| !self.replicas().is_fixed()).map(|_| state.wanted()),
            ..Record::default()
        }
    }

    /// Writes the record although the machine has taken no step.
    pub(super) fn save_again(&mut self) {
        let seq = self.state.fresh();
        self.write_record(seq);
    }

    /// Tries once more to write what could not be written.
    pub(super) fn repeat_save(&mut self) {
        self.recorder.retried();
        self.write_record(self.recorder.last());
    }

    /// Answers `done` once a record that could not be written has been tried again. At once where
    /// it was written.
    pub(super) fn look_at_disk(&mut self, done: oneshot::Sender<()>) {
        if self.recorder.error().is_none() {
            reply(done, ());
            return;
        }
        self.save_again();
        self.recorder.wait_for_last(done);
    }

    pub(super) fn saved(&mut self, seq: u64, result: Result<(), String>) {
        let ended = self.recorder.ended(seq, result);
        self.step(Event::Recorded { seq, ok: ended.ok });
        // The snapshot comes before the answer: who waited looks at it next.
        self.publish();
        self.recorder.answer(seq);
        if ended.recovered {
            self.look_at_app();
        }
    }
}
