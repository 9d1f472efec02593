//! Where a coordinator is in its life, and what it knows only there.
//!
//! ```text
//!   Booting ──▶ Moving ──▶ Finished
//!      ▲          ▲
//!      └─ Still ──┘         (frozen, then thawed)
//!           └─────▶ Leaving (replaced by another daemon)
//! ```

use tokio::sync::oneshot;

use super::message::Message;
use super::record::Record;
use crate::supervisor::Process;
use crate::wire::ErrorBody;

/// The stages of a coordinator's life.
#[derive(Debug)]
pub(super) enum Life {
    /// What an earlier daemon left is looked for; the machine knows nothing yet.
    Booting(Booting),
    /// The machine takes steps.
    Moving,
    /// Nothing moves: another daemon may take over.
    Still(Still),
    /// Every run is gone.
    Finished,
    /// It ends, and every run stays as it is.
    Leaving {
        /// The record is another daemon's by now.
        recorded: bool,
    },
}

/// What is known before the machine hears of it.
#[derive(Debug, Default)]
pub(super) struct Booting {
    /// The record of the earlier daemon.
    pub(super) record: Record,
    /// The processes that were taken over, one a run of the record.
    pub(super) taken_over: Vec<Option<Process>>,
    /// Everything is to be stopped as soon as it is known.
    pub(super) stop_all: bool,
    /// The leftovers are gone, and the app's turn to begin has not come yet.
    pub(super) awaits_turn: bool,
    /// The record may have been written by another daemon meanwhile.
    pub(super) rewrite: bool,
}

/// What is known while nothing moves.
#[derive(Debug)]
pub(super) struct Still {
    /// What it was doing where it had not begun.
    booting: Option<Booting>,
    record: StillRecord,
    /// What was reported meanwhile.
    kept: Vec<Message>,
}

/// How far the record is that another daemon may begin from.
#[derive(Debug)]
pub(super) enum StillRecord {
    /// Being written, as this save.
    Writing {
        /// The save.
        seq: u64,
        /// Who asked to stand still.
        asker: oneshot::Sender<Result<(), ErrorBody>>,
    },
    /// On disk, or as an earlier daemon left it.
    Written,
}

impl Life {
    /// What is known before the boot, also while nothing moves.
    pub(super) fn booting(&self) -> Option<&Booting> {
        match self {
            Self::Booting(booting) => Some(booting),
            Self::Still(still) => still.booting.as_ref(),
            _ => None,
        }
    }

    /// Ends the boot.
    pub(super) fn take_booting(&mut self) -> Option<Booting> {
        match std::mem::replace(self, Self::Moving) {
            Self::Booting(booting) => Some(booting),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Whether steps are taken and timers heard.
    pub(super) fn moves(&self) -> bool {
        !matches!(self, Self::Still(_))
    }

    /// Whether the record on disk is the last one that this coordinator may write.
    pub(super) fn is_recorded(&self) -> bool {
        match self {
            Self::Still(still) => matches!(still.record, StillRecord::Written),
            Self::Leaving { recorded } => *recorded,
            Self::Booting(_) => true,
            Self::Moving | Self::Finished => false,
        }
    }

    /// Stands still from now on.
    pub(super) fn stand_still(&mut self, record: StillRecord) {
        let booting = self.take_booting();
        *self = Self::Still(Still { booting, record, kept: Vec::new() });
    }

    /// Goes on as before. Gives back what was reported meanwhile.
    pub(super) fn go_on(&mut self) -> Vec<Message> {
        match std::mem::replace(self, Self::Moving) {
            Self::Still(Still { booting, kept, .. }) => {
                if let Some(booting) = booting {
                    *self = Self::Booting(booting);
                }
                kept
            }
            other => {
                *self = other;
                Vec::new()
            }
        }
    }
}

impl Still {
    /// Keeps what is dealt with when the coordinator goes on.
    pub(super) fn keep(&mut self, message: Message) {
        self.kept.push(message);
    }

    /// Save `seq` has ended. Gives back who asked to stand still, where the record was waited for.
    pub(super) fn written(&mut self, seq: u64) -> Option<oneshot::Sender<Result<(), ErrorBody>>> {
        if !matches!(&self.record, StillRecord::Writing { seq: waited, .. } if *waited == seq) {
            return None;
        }
        match std::mem::replace(&mut self.record, StillRecord::Written) {
            StillRecord::Writing { asker, .. } => Some(asker),
            StillRecord::Written => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_where_it_stood_still_with_all_that_was_reported() {
        let mut life = Life::Booting(Booting { stop_all: true, ..Booting::default() });
        life.stand_still(StillRecord::Written);
        assert!(life.booting().is_some() && life.is_recorded() && !life.moves());
        if let Life::Still(still) = &mut life {
            still.keep(Message::LeftoversGone);
        }
        assert!(matches!(life.go_on()[..], [Message::LeftoversGone]));
        assert!(life.take_booting().is_some_and(|booting| booting.stop_all));
        assert!(matches!(life, Life::Moving) && !life.is_recorded());
        assert!(life.take_booting().is_none() && life.go_on().is_empty());
        assert!(life.moves());
    }

    #[test]
    fn only_the_save_that_is_waited_for_makes_it_recorded() {
        let mut life = Life::Moving;
        let (asker, _) = oneshot::channel();
        life.stand_still(StillRecord::Writing { seq: 4, asker });
        let Life::Still(still) = &mut life else { panic!("{life:?}") };
        assert!(still.written(3).is_none());
        assert!(still.written(4).is_some() && still.written(4).is_none());
        assert!(life.is_recorded());
    }
}
