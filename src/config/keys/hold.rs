//! The keys of `[hold]`: when the requests of an app wait for it, and how many, for how long.

use std::time::Duration;

use super::super::read::Reader;
use super::super::show::{self, list};
use super::super::values::{self, Input, Parsed};
use super::super::{AppConfig, HoldOn};
use super::Key;

/// What a request may wait for.
const ON: &[(&str, HoldOn)] = &[
    ("crash", HoldOn::Crash),
    ("idle", HoldOn::Idle),
    ("recreate", HoldOn::Recreate),
    ("pause", HoldOn::Pause),
];

/// The most requests that may wait, and that may be let go at a time.
const REQUESTS_MAX: usize = 1_000_000;

/// The longest that a request may wait: no pause is longer either.
const TIME: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(600));

/// The sizes that the waiting requests may have together.
const MEMORY: (u64, u64) = (64 * 1024, 1 << 40);

pub(super) const HOLD: &[Key] = &[
    Key::app("hold.on", read_on, |config, _| Some(list(|on| show::string(show_on(*on)))(&config.hold.on))),
    row!(app, "hold.max_requests", values::integer(0, REQUESTS_MAX), show::number, hold.max_requests),
    row!(instance, "hold.max_memory", values::size(MEMORY.0, MEMORY.1), show::size, hold_memory),
    row!(app, "hold.max_time", time, show::time, hold.max_time),
    row!(app, "hold.release", values::integer(1, REQUESTS_MAX), show::number, hold.release),
];

/// The reasons, each once.
fn read_on(key: &'static str, r: &mut Reader<'_>, config: &mut AppConfig) {
    if let Some(on) = r.read_different(key, 0..=ON.len(), values::choice(ON)) {
        config.hold.on = on;
    }
}

fn show_on(on: HoldOn) -> &'static str {
    ON.iter().find(|(_, known)| *known == on).map_or("", |(word, _)| word)
}

fn time(input: Input<'_>) -> Parsed<Duration> {
    let (least, most) = TIME;
    let time = values::duration(least)(input).ok().filter(|time| *time <= most);
    time.ok_or_else(|| "a duration from 100ms to 10m, such as \"30s\"".to_owned())
}
