//! The coordinator's way to the disk: what the record says, and the task that writes it.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{oneshot, watch};
use tokio::time::{Duration, Instant};

use super::{Coordinator, Unconfirmed};
use crate::release::message::{Message, Reports};
use crate::release::placeholder::Placeholder;
use crate::release::record::{Intent, Record, StoredRun};
use crate::release::state::{Event, Role};
use crate::release::store::Store;
use crate::wire::rfc3339;

/// How long a write may take before it counts as failed.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// Between two attempts to write a record that could not be written.
const SAVE_RETRY: Duration = Duration::from_secs(1);

impl Coordinator {
    pub(super) fn write_record(&mut self) {
        // Before the start the record is still what an earlier daemon wrote.
        if self.found.is_some() {
            return;
        }
        let Some(seq) = self.save.take() else { return };
        self.last_save = seq;
        let drains = self.draining();
        let drain_ends = |id| {
            let (run, seq) = drains.iter().find(|(run, _)| *run == id)?;
            self.timers.drain_ends(*run, *seq)
        };
        let runs = self.slots.iter().filter_map(|(&id, slot)| {
            let process = slot.process.as_ref()?;
            let role = self.state.role(id, process.was_signalled());
            Some(StoredRun {
                release: slot.release.clone(),
                identity: process.identity().clone(),
                port: process.port(),
                started_at: slot.started_at,
                role,
                until: match role {
                    Role::Draining => drain_ends(id),
                    Role::Stopping => slot.kill_at,
                    _ => None,
                },
            })
        });
        let record = Record {
            live: self.state.live_release().cloned(),
            previous: self.state.previous().map(|previous| previous.release),
            past: Some(self.state.past.clone()),
            intent: self
                .state
                .task
                .as_ref()
                .map(|task| Intent { release: task.release.clone(), reason: task.reason }),
            app_attempted: self.app_attempted.clone(),
            app_quarantined: self.app_quarantined.clone(),
            last_switch: self.last_switch.clone(),
            releases: self.history.stored(),
            runs: runs.collect(),
            restarts: self.state.restarts,
            no_placeholder: self.placeholder == Placeholder::Impossible,
            crashes: self.state.crashes().map(|at| rfc3339(SystemTime::UNIX_EPOCH + at)).collect(),
            failed_probes: self.state.failed_probes(),
            last_failure: self.last_failure.clone(),
            last_exit: self.last_exit.clone(),
            watch_until: self.state.window.and_then(|window| self.timers.window_ends(window.ticket)),
            ..Record::default()
        };
        self.saves.send_replace(Some((seq, Arc::new(record))));
    }

    /// Writes the record although the machine has taken no step.
    pub(super) fn save_again(&mut self) {
        self.save = Some(self.state.fresh());
        self.write_record();
    }

    /// Tries once more to write what could not be written, where that is so.
    pub(super) fn look_at_disk(&mut self, done: oneshot::Sender<()>) {
        if self.state_error.is_none() {
            let _asker_gone = done.send(());
            return;
        }
        self.save_again();
        self.disk_looks.push((self.last_save, done));
    }

    /// Tells those who asked for the moves up to `seq` that they are done.
    pub(super) fn confirm(&mut self, seq: u64) {
        for Unconfirmed { log, event, moved, .. } in self.unconfirmed.extract_if(.., |open| open.seq <= seq) {
            log.end(event, Ok(moved));
        }
    }

    pub(super) fn saved(&mut self, seq: u64, result: Result<(), String>) {
        let ok = result.is_ok();
        if let Err(error) = &result
            && self.state_error.as_ref() != Some(error)
        {
            tracing::error!("{error}; deploys and switches are refused until it can be written");
        } else if ok && self.state_error.is_some() {
            tracing::info!("the state file can be written again");
        }
        let recovered = ok && self.state_error.is_some();
        self.state_error = result.err();
        self.save_retry = (!ok).then(|| Instant::now() + SAVE_RETRY);
        self.confirm(seq);
        self.step(Event::Recorded { seq, ok });
        // They are to find what it came to.
        self.publish();
        for (_, done) in self.disk_looks.extract_if(.., |(look, _)| *look <= seq) {
            let _asker_gone = done.send(());
        }
        if recovered {
            self.look_at_app();
        }
    }
}

/// Writes the newest record that was asked for; what was asked for meanwhile is written with the next.
pub(super) async fn keep_record(
    store: Store,
    mut requests: watch::Receiver<Option<(u64, Arc<Record>)>>,
    reports: Reports,
) {
    let store = Arc::new(store);
    while requests.changed().await.is_ok() {
        let Some((seq, record)) = requests.borrow_and_update().clone() else { continue };
        let writer = Arc::clone(&store);
        let mut writing = tokio::task::spawn_blocking(move || writer.write(&record));
        let mut written = tokio::time::timeout(WRITE_WITHIN, &mut writing).await;
        if written.is_err() {
            let error =
                format!("the state file was not written within {WRITE_WITHIN:?}: the disk does not answer");
            let _coordinator_gone = reports.send(Message::Saved { seq, result: Err(error) }).await;
            // Never two at once: the next waits for this one, which then counts after all.
            written = Ok(writing.await);
        }
        let result = match written {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(elapsed) => Err(elapsed.to_string()),
        };
        // At the end of the daemon nobody waits for the answer any more.
        let _coordinator_gone = reports.send(Message::Saved { seq, result }).await;
    }
}
