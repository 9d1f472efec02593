//! Where the app's life stands, for people and for an upgrade of the daemon.

use super::*;

/// What a hand-over to another daemon would lose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hindrance {
    /// A deploy, switch or rollback is under way.
    Task {
        /// What it wants to make live.
        release: String,
        /// Why.
        reason: Reason,
        /// How far it is.
        step: &'static str,
    },
    /// Requests wait for the live release, which crashed. They would wait in vain: this daemon does not hear of its
    /// return once another one drives the app.
    Held {
        /// The live release.
        release: String,
        /// How far its return is.
        step: &'static str,
    },
}

impl State {
    /// Where the app's life stands.
    pub fn phase(&self) -> Phase {
        if self.stopping != Stopping::No {
            return Phase::Stopping;
        }
        match &self.live {
            Live::Up { .. } if self.window.is_some() || self.goes_back_by_itself() => Phase::Watching,
            Live::Up { .. } => Phase::Settled,
            Live::Down { cause: DownCause::Boot, .. } => Phase::Starting,
            Live::Down { cause: DownCause::Crash, .. } => Phase::Restarting,
            Live::Down { cause: DownCause::CrashLoop, .. } => Phase::Failed,
            Live::None if self.task.is_some() => Phase::Starting,
            Live::None => Phase::Empty,
        }
    }

    /// The watch window's verdict was bad and the way back is not done yet.
    fn goes_back_by_itself(&self) -> bool {
        self.task.as_ref().is_some_and(|task| task.reason == Reason::AutoRollback)
    }

    /// What a hand-over to another daemon would lose now.
    pub fn hindrance(&self) -> Option<Hindrance> {
        if let Some(Task { release, reason, stage }) = &self.task {
            let step = match stage {
                Stage::Recording { .. } => "its intent is being written down",
                Stage::Starting { .. } => "it is not healthy yet",
                Stage::Reviving { .. } => "its running process is being probed",
            };
            return Some(Hindrance::Task { release: release.id.clone(), reason: *reason, step });
        }
        // A crash loop holds no requests: they are refused.
        let Live::Down { release, cause: DownCause::Crash, stage } = &self.live else { return None };
        let step = match stage {
            DownStage::AwaitingRollback | DownStage::GivenUp => return None,
            DownStage::Waiting { .. } => "it is about to be started again",
            DownStage::Starting { .. } => "it is being started again",
        };
        Some(Hindrance::Held { release: release.id.clone(), step })
    }
}
