//! What a command that asks a daemon works with: the daemon, the screen, the pace of its questions.

use std::time::Duration;

use serde_json::Value;

use super::client::Client;
use super::render::Screen;

/// What a command needs to do its work.
pub(crate) struct Session<'a> {
    /// The daemon.
    pub(crate) client: Client,
    /// Where everything is printed.
    pub(crate) screen: &'a mut Screen,
    /// `--json`.
    pub(crate) json: bool,
    /// How fast the daemon is asked again.
    pub(crate) pace: Pace,
}

/// The times of whatever asks again and again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Between two questions.
    pub(crate) poll: Duration,
    /// Between two questions where the daemon counts them (10 a minute unless configured otherwise).
    pub(crate) counted_poll: Duration,
    /// How long the daemon may be gone, as when it is started again, before that is a failure.
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
    /// Prints the data of a command: the daemon's own JSON, or text for people.
    pub(crate) fn show(&mut self, value: &Value, text: impl FnOnce() -> String) {
        if self.json { self.screen.value(value) } else { self.screen.data(&text()) }
    }

    /// How long to wait before the daemon is asked again.
    pub(crate) fn poll_every(&self) -> Duration {
        if self.client.is_rate_limited() { self.pace.counted_poll } else { self.pace.poll }
    }
}
