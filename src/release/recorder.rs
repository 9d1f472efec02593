//! The way to the disk: numbered saves of the record, written one after the other by a task.
//!
//! Owned by the coordinator. A save covers all saves before it, so only the newest is written. What
//! ends a save is [`Message::Saved`] with its number. A failed save is repeated until it succeeds.
//! The task ends with [`Recorder::close`], after it has written what it was given last.

use std::sync::Arc;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};

use super::events::Over;
use super::message::{Message, Reports, reply};
use super::record::Record;
use super::store::Store;
use super::tasks::report;

/// How long a write may take before it counts as failed.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// Between two attempts to write a record that could not be written.
const SAVE_RETRY: Duration = Duration::from_secs(1);

/// A record and the number of its save.
type Save = (u64, Arc<Record>);

/// Writes the record, and knows how that went.
#[derive(Debug)]
pub(super) struct Recorder {
    saves: watch::Sender<Option<Save>>,
    /// The number of the newest save.
    last: u64,
    /// When a failed save is repeated.
    retry: Option<Instant>,
    /// Why the last save failed.
    error: Option<String>,
    keeper: JoinHandle<()>,
    /// Attempts that are over, each with the save that tells of it.
    unconfirmed: Vec<(u64, Over)>,
    /// Those who wait for the end of a save.
    waiting: Vec<(u64, oneshot::Sender<()>)>,
}

/// How a save ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SaveEnded {
    /// The record is on disk.
    pub(super) ok: bool,
    /// It is, and the save before could not be written.
    pub(super) recovered: bool,
}

impl Recorder {
    /// Starts the task that writes to `store`.
    pub(super) fn start(store: Store, reports: Reports) -> Self {
        let (saves, requests) = watch::channel(None);
        let keeper = tokio::spawn(keep_record(store, requests, reports));
        Self {
            saves,
            last: 0,
            retry: None,
            error: None,
            keeper,
            unconfirmed: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Has `record` written as save `seq`.
    pub(super) fn write(&mut self, seq: u64, record: Record) {
        self.last = seq;
        self.saves.send_replace(Some((seq, Arc::new(record))));
    }

    /// The number of the newest save. Repeating it covers all earlier ones.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// When a failed save is to be repeated.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry
    }

    /// The repetition of a failed save has come.
    pub(super) fn retried(&mut self) {
        self.retry = None;
    }

    /// Why the record cannot be written, while that is so.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Tells the readers of `attempt` how it ended once save `seq` has ended.
    pub(super) fn confirm_after(&mut self, seq: u64, attempt: Over) {
        self.unconfirmed.push((seq, attempt));
    }

    /// Answers `done` once the newest save has ended and [`Recorder::answer`] is called.
    pub(super) fn wait_for_last(&mut self, done: oneshot::Sender<()>) {
        self.waiting.push((self.last, done));
    }

    /// Save `seq` has ended so. The attempts that it covers are over, even where their record could
    /// not be written.
    pub(super) fn ended(&mut self, seq: u64, result: Result<(), String>) -> SaveEnded {
        let ok = result.is_ok();
        let recovered = ok && self.error.is_some();
        match &result {
            Err(error) if self.error.as_ref() != Some(error) => {
                tracing::error!("{error}; deploys and switches are refused until it can be written");
            }
            Ok(()) if recovered => tracing::info!("the state file can be written again"),
            _ => {}
        }
        self.error = result.err();
        self.retry = (!ok).then(|| Instant::now() + SAVE_RETRY);
        self.confirm(seq);
        SaveEnded { ok, recovered }
    }

    /// Answers those who wait for the end of a save up to `seq`.
    pub(super) fn answer(&mut self, seq: u64) {
        for (_, done) in self.waiting.extract_if(.., |(waited, _)| *waited <= seq) {
            reply(done, ());
        }
    }

    fn confirm(&mut self, seq: u64) {
        for (_, attempt) in self.unconfirmed.extract_if(.., |(waited, _)| *waited <= seq) {
            attempt.end();
        }
    }

    /// Ends the task once the last save has been written. Cancelling it leaves the former record or
    /// the new one, both whole.
    pub(super) fn close(mut self) -> impl Future<Output = ()> {
        self.confirm(u64::MAX);
        let Self { saves, keeper, .. } = self;
        drop(saves);
        async move {
            let _panicked = keeper.await;
        }
    }
}

/// Writes the newest record that was asked for. What was asked for meanwhile is written with the
/// next one.
async fn keep_record(store: Store, mut requests: watch::Receiver<Option<Save>>, reports: Reports) {
    let store = Arc::new(store);
    while requests.changed().await.is_ok() {
        let Some((seq, record)) = requests.borrow_and_update().clone() else { continue };
        let writer = Arc::clone(&store);
        let mut writing = tokio::task::spawn_blocking(move || writer.write(&record));
        let mut written = tokio::time::timeout(WRITE_WITHIN, &mut writing).await;
        if written.is_err() {
            let error =
                format!("the state file was not written within {WRITE_WITHIN:?}: the disk does not answer");
            report(&reports, Message::Saved { seq, result: Err(error) }).await;
            // Never two at once: the next save waits for this one, which then counts after all.
            written = Ok(writing.await);
        }
        let result = match written {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(elapsed) => Err(elapsed.to_string()),
        };
        report(&reports, Message::Saved { seq, result }).await;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::sync::mpsc;

    use super::super::events::{Attempt, AttemptLog};
    use super::super::records::Records;
    use super::*;
    use crate::wire::{EventKind, Moved, Outcome, StreamEvent};

    fn recorder(file: &Path) -> (Recorder, mpsc::Receiver<Message>) {
        let (records, _) = Records::take(file, None).unwrap();
        let (store, _) = records.open(None).unwrap();
        let (reports, inbox) = mpsc::channel(8);
        (Recorder::start(store, reports), inbox)
    }

    async fn saved(inbox: &mut mpsc::Receiver<Message>) -> (u64, Result<(), String>) {
        match inbox.recv().await {
            Some(Message::Saved { seq, result }) => (seq, result),
            other => panic!("a save has ended, not {other:?}"),
        }
    }

    fn succeeded() -> (Over, Attempt) {
        let log = AttemptLog::new("v1");
        let reader = log.reader();
        let moved = Moved {
            success: true,
            message: String::new(),
            release: "v1".into(),
            outcome: Outcome::Live,
            switch: None,
            already_live: false,
            cancelled: None,
            warning: None,
        };
        let event = StreamEvent::new("now".into(), EventKind::Finished, "v1");
        (Over { log, event, result: Ok(moved) }, reader)
    }

    #[tokio::test]
    async fn a_save_that_fails_is_repeated_and_readers_hear_of_a_move_when_it_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        let (mut recorder, mut inbox) = recorder(&file);
        // A folder in the temporary file's place: nobody can write there, root or not.
        let in_the_way = folder.path().join("state.json.tmp");
        std::fs::create_dir(&in_the_way).unwrap();
        recorder.write(1, Record::default());
        let (attempt, mut reader) = succeeded();
        recorder.confirm_after(1, attempt);
        let (done, mut answer) = oneshot::channel();
        recorder.wait_for_last(done);
        let (seq, result) = saved(&mut inbox).await;
        assert_eq!(recorder.ended(seq, result), SaveEnded { ok: false, recovered: false });
        assert!(recorder.error().is_some() && recorder.retry_at().is_some());
        assert!(reader.next().await.is_some(), "traffic has moved all the same");
        assert!(answer.try_recv().is_err(), "who waits is answered when the rest is done");
        recorder.answer(seq);
        answer.await.unwrap();

        std::fs::remove_dir(&in_the_way).unwrap();
        recorder.retried();
        recorder.write(recorder.last(), Record::default());
        let (seq, result) = saved(&mut inbox).await;
        assert_eq!(recorder.ended(seq, result), SaveEnded { ok: true, recovered: true });
        assert_eq!((recorder.error(), recorder.retry_at()), (None, None));
    }

    #[tokio::test]
    async fn the_last_save_is_written_before_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state.json");
        let (mut recorder, _inbox) = recorder(&file);
        recorder.write(1, Record::default());
        recorder.write(2, Record { restarts: 7, ..Record::default() });
        let (attempt, mut reader) = succeeded();
        recorder.confirm_after(3, attempt);
        recorder.close().await;
        assert!(reader.next().await.is_some());
        let written: Record = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(written.restarts, 7);
    }
}
