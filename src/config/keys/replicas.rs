//! The key `app.replicas`: a number, or the bounds between which the number follows the load.

use std::time::Duration;

use super::super::read::Reader;
use super::super::show;
use super::super::values::{self, Input, Parsed};
use super::super::{App, AppConfig, HoldOn, Replicas};
use super::Key;

/// Its name.
pub(in crate::config) const NAME: &str = "app.replicas";

/// What its table may have.
const PARTS: &[&str] = &["min", "max", "busy_at", "idle"];

/// The most requests in flight that make a process busy.
const BUSY_MAX: u32 = 1_000_000;

/// The load is looked at once a second.
const SHORTEST_IDLE: Duration = Duration::from_secs(1);

pub(super) const REPLICAS: Key = Key::app(
    NAME,
    |key, reader, config| read(key, reader, &mut config.app.replicas),
    // One is what it is where nothing is said.
    |config, _| (config.app.replicas != Replicas::fixed(1)).then(|| show(&config.app.replicas)),
);

fn read(key: &'static str, r: &mut Reader<'_>, replicas: &mut Replicas) {
    if !r.is_table(key) {
        let number = |input: Input<'_>| -> Parsed<u16> {
            values::integer(1, Replicas::MOST)(input)
                .map_err(|expected| format!("{expected}, or a table such as {{ min = 2, max = 8 }}"))
        };
        if let Some(count) = r.read(key, number) {
            *replicas = Replicas::fixed(count);
        }
        return;
    }
    r.only_parts(key, PARTS);
    let Replicas { busy_at, idle, .. } = Replicas::fixed(1);
    let min = r.read_part(key, "min", values::integer(0, Replicas::MOST));
    let max = r.read_part(key, "max", values::integer(1, Replicas::MOST));
    let busy_at = r.read_part(key, "busy_at", values::integer(1, BUSY_MAX)).unwrap_or(busy_at);
    let idle = r.read_part(key, "idle", values::duration(SHORTEST_IDLE)).unwrap_or(idle);
    let Some(max) = max else {
        if !r.has_part(key, "max") {
            let most = Replicas::MOST;
            r.reject(key, &format!("`max` in it, a whole number from 1 to {most}"));
        }
        return;
    };
    let min = min.unwrap_or(1);
    if min > max {
        r.reject_part(key, "min", &format!("at most as many as max ({max})"));
        return;
    }
    *replicas = Replicas { min, max, busy_at, idle };
}

fn show(replicas: &Replicas) -> String {
    let Replicas { min, max, busy_at, idle } = replicas;
    if *replicas == Replicas::fixed(*max) {
        return show::number(max);
    }
    format!("{{ min = {min}, max = {max}, busy_at = {busy_at}, idle = {} }}", show::time(idle))
}

/// Checks that there is something that has replicas, and that a request can wait for a start from
/// zero.
pub(in crate::config) fn fit(r: &mut Reader<'_>, config: &AppConfig) {
    let AppConfig { app: App { command, replicas, .. }, hold, .. } = config;
    if !r.is_set(NAME) {
        return;
    }
    if command.is_none() {
        r.reject(NAME, "nothing, because app.command is not set: only processes have replicas");
    } else if replicas.min == 0 && !hold.is_on(HoldOn::Idle) {
        let key = r.called("hold.on");
        r.reject_part(NAME, "min", &format!("at least 1, because {key} has no \"idle\": {WAKES}"));
    } else if replicas.min == 0 && hold.max_requests == 0 {
        let key = r.called("hold.max_requests");
        r.reject_part(NAME, "min", &format!("at least 1, because {key} is 0: {WAKES}"));
    }
}

/// What there is to a start from zero.
const WAKES: &str = "a request that waits starts an app of which none runs";
