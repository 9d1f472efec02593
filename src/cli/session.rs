//! What a command that asks a daemon works with: the daemon, the screen, the pace of its questions.

use std::time::Duration;

use serde_json::Value;

use super::client::Client;
use super::render::Screen;

/// What a command that asks a daemon needs.
pub(crate) struct Session<'a> {
    /// The daemon.
    pub(crate) client: Client,
    /// Where everything is printed.
    pub(crate) screen: &'a mut Screen,
    /// `--json`.
    pub(crate) json: bool,
    /// How often the daemon is asked again.
    pub(crate) pace: Pace,
}

/// The pace of repeated questions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// The pause between two questions.
    pub(crate) poll: Duration,
    /// The pause where the daemon limits the number of questions (10 per minute by default).
    pub(crate) counted_poll: Duration,
    /// How long the daemon may be gone, as during a restart, before the command fails.
    pub(crate) absence: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            poll: Duration::from_millis(500),
            counted_poll: Duration::from_secs(10),
            absence: Duration::from_secs(60),
        }
    }
}

impl Session<'_> {
    /// Prints a command's data: the daemon's JSON with `--json`, else the text.
    pub(crate) fn show(&mut self, value: &Value, text: impl FnOnce() -> String) {
        if self.json { self.screen.value(value) } else { self.screen.data(&text()) }
    }

    /// The pause before the next question.
    pub(crate) fn poll_every(&self) -> Duration {
        if self.client.is_rate_limited() { self.pace.counted_poll } else { self.pace.poll }
    }
}
