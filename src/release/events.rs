//! The events of one attempt (a deploy, switch or rollback), for any number of readers.
//!
//! The coordinator's voice is the only writer. Readers come and go, and each sees everything from
//! the first event on. A reader that goes away changes nothing. The log is bounded: lines that the
//! app prints are dropped beyond [`MAX_OUTPUT`]; the few events of the attempt itself never are. It
//! ends with the attempt.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::wire::{ErrorBody, EventKind, Moved, StreamEvent};

/// The most lines of output in the stream of one attempt. `portok logs` has the newest.
pub(super) const MAX_OUTPUT: usize = 500;

/// The writer's side.
#[derive(Debug)]
pub(super) struct AttemptLog {
    shared: Arc<Shared>,
    progress: watch::Sender<Progress>,
    output: usize,
    /// The candidate that was cancelled for this attempt.
    pub(super) cancelled: Option<String>,
}

/// The reader's side: an accepted attempt with its events so far and to come.
#[derive(Debug, Clone)]
pub struct Attempt {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
    read: usize,
}

#[derive(Debug)]
struct Shared {
    release: String,
    // Locked to push or clone one event, never over an await.
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    events: Vec<StreamEvent>,
    end: Option<Result<Moved, ErrorBody>>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    events: usize,
    begun: bool,
    ended: bool,
}

impl AttemptLog {
    /// An empty log for an attempt to make `release` live.
    pub(super) fn new(release: &str) -> Self {
        let shared = Arc::new(Shared { release: release.to_owned(), log: Mutex::default() });
        Self { shared, progress: watch::Sender::new(Progress::default()), output: 0, cancelled: None }
    }

    /// A reader that starts with the first event.
    pub(super) fn reader(&self) -> Attempt {
        Attempt { shared: Arc::clone(&self.shared), progress: self.progress.subscribe(), read: 0 }
    }

    /// The intent is written down, so the attempt has begun.
    pub(super) fn begin(&self) {
        self.progress.send_if_modified(|progress| !std::mem::replace(&mut progress.begun, true));
    }

    /// Adds an event.
    pub(super) fn push(&mut self, event: StreamEvent) {
        if event.event == EventKind::Output {
            self.output += 1;
            if self.output > MAX_OUTPUT {
                return;
            }
        }
        self.shared.lock().events.push(event);
        self.progress.send_modify(|progress| progress.events += 1);
    }

    /// Ends the attempt; nothing follows.
    pub(super) fn end(self, mut event: StreamEvent, result: Result<Moved, ErrorBody>) {
        event.left_out = self.output.checked_sub(MAX_OUTPUT).filter(|lines| *lines > 0);
        {
            let mut log = self.shared.lock();
            log.events.push(event);
            log.end = Some(result);
        }
        self.progress.send_modify(|progress| {
            progress.events += 1;
            progress.begun = true;
            progress.ended = true;
        });
    }
}

/// An attempt that is over, whose readers are to hear of it.
#[derive(Debug)]
pub(super) struct Over {
    pub(super) log: AttemptLog,
    /// The last event.
    pub(super) event: StreamEvent,
    /// The result.
    pub(super) result: Result<Moved, ErrorBody>,
}

impl Over {
    /// Ends the attempt; nothing follows.
    pub(super) fn end(self) {
        self.log.end(self.event, self.result);
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt {
    /// The release it is about.
    pub fn release(&self) -> &str {
        &self.shared.release
    }

    /// The directory in which its command runs, where it is not the daemon's own.
    pub fn directory(&self) -> Option<String> {
        self.shared.lock().events.first()?.directory.clone()
    }

    /// Waits until the attempt's intent is written down, or it has ended.
    ///
    /// # Errors
    /// The intent could not be written down, or the daemon has ended.
    pub(super) async fn begun(&mut self) -> Result<(), ErrorBody> {
        let lost = self.progress.wait_for(|progress| progress.begun).await.is_err();
        match &self.shared.lock().end {
            Some(Err(error)) if matches!(error.code, crate::wire::Code::StateUnwritable) => {
                Err(error.clone())
            }
            None if lost => Err(gone()),
            _ => Ok(()),
        }
    }

    /// Its result, where its release was live already.
    pub fn already_live(&self) -> Option<Moved> {
        let end = self.shared.lock().end.clone();
        end.and_then(Result::ok).filter(|moved| moved.already_live)
    }

    /// The next event; `None` after the last one. Cancel safe. Dropping the reader does not cancel
    /// the attempt.
    pub async fn next(&mut self) -> Option<StreamEvent> {
        let read = self.read;
        // An error means that the writer has gone. What it wrote is still read.
        let _writer_gone =
            self.progress.wait_for(|progress| progress.events > read || progress.ended).await.is_err();
        let event = self.shared.lock().events.get(read).cloned();
        self.read += usize::from(event.is_some());
        event
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// Why traffic did not move.
    pub async fn finished(mut self) -> Result<Moved, ErrorBody> {
        let _writer_gone = self.progress.wait_for(|progress| progress.ended).await.is_err();
        self.shared.lock().end.clone().unwrap_or_else(|| Err(gone()))
    }
}

fn gone() -> ErrorBody {
    ErrorBody::new(
        crate::wire::Code::ShuttingDown,
        "Shutting down",
        "the daemon ended before this did; its outcome is in the record of the next start",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind) -> StreamEvent {
        StreamEvent::new("now".into(), kind, "v1")
    }

    #[tokio::test]
    async fn every_reader_sees_all_events_and_the_end() {
        let mut log = AttemptLog::new("v1");
        let mut early = log.reader();
        log.push(event(EventKind::Accepted));
        assert_eq!(early.next().await.map(|event| event.event), Some(EventKind::Accepted));
        log.push(event(EventKind::Spawned));
        let mut late = log.reader();
        log.end(event(EventKind::Finished), Err(gone()));
        for kind in [EventKind::Spawned, EventKind::Finished] {
            assert_eq!(early.next().await.map(|event| event.event), Some(kind));
        }
        assert_eq!(early.next().await, None);
        assert_eq!(late.next().await.map(|event| event.event), Some(EventKind::Accepted));
        assert!(late.finished().await.is_err());
    }

    #[tokio::test]
    async fn output_is_bounded_and_the_rest_is_not_lost() {
        let mut log = AttemptLog::new("v1");
        for _ in 0..MAX_OUTPUT + 10 {
            log.push(event(EventKind::Output));
        }
        let mut reader = log.reader();
        log.end(event(EventKind::Finished), Err(gone()));
        let (mut kinds, mut left_out) = (Vec::new(), None);
        while let Some(event) = reader.next().await {
            kinds.push(event.event);
            left_out = event.left_out;
        }
        assert_eq!(left_out, Some(10));
        assert_eq!(kinds.len(), MAX_OUTPUT + 1);
        assert_eq!(kinds.last(), Some(&EventKind::Finished));
    }
}
