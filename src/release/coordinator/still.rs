//! How the coordinator stands still, and how it goes without an end.
//!
//! Standing still begins when the record is on disk. From then on the coordinator takes no step, so
//! the record stays true and a successor can start from it. What is reported meanwhile is kept and
//! dealt with after [`Message::Thaw`]; timers that ran out meanwhile are due then. After
//! [`Message::Leave`] the coordinator ends and its processes stay.
//!
//! The ordering that matters: once the coordinator has answered that it stands still, it never
//! writes the record unless it goes on. The record may be another daemon's by then.

use std::net::SocketAddr;

use tokio::sync::oneshot;

use super::Coordinator;
use crate::release::life::{Life, StillRecord};
use crate::release::message::{Message, Report, reply};
use crate::release::state::Hindrance;
use crate::wire::{Code, Ended, ErrorBody, Reason};

impl Coordinator {
    /// Stands still. With `interrupt` also where something is under way that a hand-over would
    /// lose.
    pub(super) fn freeze(&mut self, interrupt: bool, asker: oneshot::Sender<Result<(), ErrorBody>>) {
        if let Err(error) = if interrupt { Ok(()) } else { self.may_freeze() } {
            reply(asker, Err(error));
            return;
        }
        // Before the boot the record is still what an earlier daemon wrote.
        if self.life.booting().is_some() {
            self.life.stand_still(StillRecord::Written);
            self.tell_interrupted();
            reply(asker, Ok(()));
            return;
        }
        self.edits.interrupt();
        let seq = self.state.fresh();
        self.write_record(seq);
        self.life.stand_still(StillRecord::Writing { seq, asker });
    }

    /// Whether another daemon can take over now without a loss.
    pub(super) fn may_freeze(&self) -> Result<(), ErrorBody> {
        let app = &self.config.borrow().name;
        let busy = |message| {
            ErrorBody::new(Code::Busy, "Busy", message)
                .with_hint("try again when it is over, or wait for it: portok upgrade --wait 10m")
        };
        let Some(hindrance) = self.state.hindrance() else {
            // It would be in no record.
            if self.runs.are_spawning() {
                return Err(busy(format!("app `{app}`: a process of it is being started")));
            }
            return match self.traffic.waiting() {
                0 => Ok(()),
                1 => Err(busy(format!("app `{app}`: a request is held"))),
                held => Err(busy(format!("app `{app}`: {held} requests are held"))),
            };
        };
        let message = match hindrance {
            Hindrance::Task { release, reason, step } => {
                format!("app `{app}`: an attempt is under way: `{release}` ({}), {step}", reason.as_str())
            }
            Hindrance::Held { release, step } => {
                format!("app `{app}`: requests wait for `{release}`, which crashed; {step}")
            }
        };
        Err(busy(message))
    }

    /// Refuses requests and keeps reports. Gives back what means the same as at any time.
    pub(super) fn receive_while_still(&mut self, message: Message) -> Option<Message> {
        if matches!(message, Message::Deploy { reason: Reason::Config, .. }) {
            // It was interrupted when the app began to stand still.
            self.edits.prepared();
            return None;
        }
        let message = message.refuse(handing_over)?;
        match message {
            Message::Freeze { asker, .. } | Message::MayFreeze { asker } => {
                reply(asker, Err(handing_over()));
            }
            Message::Saved { seq, result } => self.saved_while_still(seq, result),
            Message::Thaw | Message::Leave { .. } | Message::Beat(_) => return Some(message),
            // Lines of output may be many, and an attempt's readers can do without them.
            Message::Run(_, report) if matches!(*report, Report::Output(_)) => {}
            other => {
                if let Life::Still(still) = &mut self.life {
                    still.keep(other);
                }
            }
        }
        None
    }

    fn saved_while_still(&mut self, seq: u64, result: Result<(), String>) {
        let Life::Still(still) = &mut self.life else { return };
        let error = result.as_ref().err().cloned();
        // The machine learns of it when it moves again.
        still.keep(Message::Saved { seq, result });
        let Some(asker) = still.written(seq) else { return };
        match error {
            None => {
                self.tell_interrupted();
                reply(asker, Ok(()));
            }
            Some(error) => {
                self.thaw();
                reply(asker, Err(ErrorBody::new(Code::StateUnwritable, "State cannot be written", error)));
            }
        }
    }

    /// Goes on as if nothing had been.
    pub(super) fn thaw(&mut self) {
        let kept = self.life.go_on();
        // A successor that failed may have written its own record.
        if let Life::Booting(booting) = &mut self.life {
            booting.rewrite = true;
        }
        self.write_record(self.recorder.last());
        for message in kept {
            self.receive(message);
        }
    }

    /// Ends and leaves every process as it is.
    pub(super) fn go_without_end(
        &mut self,
        successor: Option<SocketAddr>,
        done: oneshot::Sender<Vec<Ended>>,
    ) {
        // Where the record could not be written it went on until now.
        self.tell_interrupted();
        self.end_awaited = Some(done);
        // An address of the app's own is not among those that the successor is known by.
        let successor = successor.filter(|_| self.config.borrow().routes.listen.is_empty());
        self.hold_nobody(successor);
        self.life = Life::Leaving { recorded: self.life.is_recorded() };
    }
}

fn handing_over() -> ErrorBody {
    let message = "the daemon is handing over to its successor and begins nothing new";
    ErrorBody::new(Code::ShuttingDown, "Shutting down", message).with_hint("try again in a moment")
}
