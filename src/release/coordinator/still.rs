//! How the coordinator stands still, and how it goes without an end.
//!
//! Standing still begins with the record on disk: from then on it makes no step, so that what is written stays what is
//! true as far as this daemon is concerned, and another one may begin from it. What is reported meanwhile is kept and
//! dealt with when it goes on; timers that ran out meanwhile are due then. It ends by [`Message::Thaw`], as if nothing had
//! been, or by [`Message::Leave`]: the coordinator ends, its processes stay.
//!
//! The ordering that matters: after it said that it stands still it never writes the record again unless it goes on. The
//! record may be another daemon's by then.

use tokio::sync::oneshot;

use super::Coordinator;
use crate::release::message::{Message, Report};
use crate::release::state::Hindrance;
use crate::wire::{Code, ErrorBody};

/// What is known while nothing moves.
#[derive(Debug)]
pub(super) struct Still {
    record: StillRecord,
    /// What was reported meanwhile.
    kept: Vec<Message>,
}

#[derive(Debug)]
enum StillRecord {
    /// Being written, as this save.
    Writing { seq: u64, reply: oneshot::Sender<Result<(), ErrorBody>> },
    /// On disk, or as an earlier daemon left it.
    Written,
}

impl Coordinator {
    pub(super) fn freeze(&mut self, interrupt: bool, reply: oneshot::Sender<Result<(), ErrorBody>>) {
        if let Err(error) = if interrupt { Ok(()) } else { self.may_freeze() } {
            let _asker_gone = reply.send(Err(error));
            return;
        }
        // Before the start the record is still what an earlier daemon wrote.
        if self.found.is_some() {
            self.still = Some(Still { record: StillRecord::Written, kept: Vec::new() });
            self.interrupted();
            let _asker_gone = reply.send(Ok(()));
            return;
        }
        let seq = self.state.fresh();
        self.save = Some(seq);
        self.write_record();
        self.still = Some(Still { record: StillRecord::Writing { seq, reply }, kept: Vec::new() });
    }

    /// Whether another daemon can take over now without a loss.
    pub(super) fn may_freeze(&self) -> Result<(), ErrorBody> {
        let Some(hindrance) = self.state.hindrance() else { return Ok(()) };
        let app = &self.config.borrow().name;
        let message = match hindrance {
            Hindrance::Task { release, reason, step } => {
                format!("app `{app}`: an attempt is under way: `{release}` ({}), {step}", reason.as_str())
            }
            Hindrance::Held { release, step } => {
                format!("app `{app}`: requests wait for `{release}`, which crashed; {step}")
            }
        };
        Err(ErrorBody::new(Code::Busy, "Busy", message)
            .with_hint("try again when it is over, or wait for it: portok upgrade --wait 10m"))
    }

    /// Whether the record on disk is the last one that this coordinator may write.
    pub(super) fn is_recorded(&self) -> bool {
        self.still.as_ref().is_some_and(|still| matches!(still.record, StillRecord::Written))
    }

    /// Gives back what is not answered or kept.
    pub(super) fn receive_while_still(&mut self, message: Message) -> Option<Message> {
        let leaving = || {
            ErrorBody::new(
                Code::ShuttingDown,
                "Shutting down",
                "the daemon is handing over to its successor and begins nothing new",
            )
            .with_hint("try again in a moment")
        };
        match message {
            Message::Deploy { reply, .. } => {
                let _asker_gone = reply.send(Err(leaving()));
            }
            Message::Rollback { reply, .. } => {
                let _asker_gone = reply.send(Err(leaving()));
            }
            Message::Switch { reply, .. } => {
                let _asker_gone = reply.send(Err(leaving()));
            }
            Message::Cancel { reply } => {
                let _asker_gone = reply.send(Err(leaving()));
            }
            Message::Freeze { reply, .. } | Message::MayFreeze { reply } => {
                let _asker_gone = reply.send(Err(leaving()));
            }
            Message::Saved { seq, result } => self.saved_while_still(seq, result),
            Message::Thaw | Message::Leave { .. } | Message::Beat(_) => return Some(message),
            // Lines for a stream that nobody may miss anything else in.
            Message::Run(_, report) if matches!(*report, Report::Output(_)) => {}
            other => {
                if let Some(still) = &mut self.still {
                    still.kept.push(other);
                }
            }
        }
        None
    }

    fn saved_while_still(&mut self, seq: u64, result: Result<(), String>) {
        let Some(still) = &mut self.still else { return };
        let awaited = match &still.record {
            StillRecord::Writing { seq, .. } => Some(*seq),
            StillRecord::Written => None,
        };
        // The machine learns of it when it moves again.
        let failed = result.as_ref().err().cloned();
        still.kept.push(Message::Saved { seq, result });
        if awaited != Some(seq) {
            return;
        }
        let record = std::mem::replace(&mut still.record, StillRecord::Written);
        let StillRecord::Writing { reply, .. } = record else { return };
        match failed {
            None => {
                self.interrupted();
                let _asker_gone = reply.send(Ok(()));
            }
            Some(error) => {
                self.thaw();
                let _asker_gone =
                    reply.send(Err(ErrorBody::new(Code::StateUnwritable, "State cannot be written", error)));
            }
        }
    }

    pub(super) fn thaw(&mut self) {
        let kept = self.still.take().map(|still| still.kept).unwrap_or_default();
        // A successor that failed may have written its own.
        self.save = Some(self.last_save);
        self.write_record();
        for message in kept {
            self.receive(message);
        }
    }

    pub(super) fn go_without_end(&mut self, done: oneshot::Sender<()>) {
        // Where the record could not be written it went on until now.
        self.interrupted();
        self.stopped = Some(done);
        self.leaves = true;
        self.finished = true;
    }
}
