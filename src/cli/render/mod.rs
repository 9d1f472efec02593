//! Text for people, and the one place that prints.
//!
//! The functions are pure: they take an answer and the present time and return text with colours,
//! which [`Screen`] strips where they do not belong. Text that an app or a daemon made goes through
//! `words::plain` first, so that it can neither move a terminal's cursor nor colour what is not its
//! own.

mod apps;
mod certs;
mod drain;
mod ended;
mod failure;
mod host;
mod lines;
mod progress;
mod ps;
mod releases;
mod results;
mod screen;
mod status;
mod tables;
mod targets;
mod words;

pub(crate) use apps::{apps, overview, troubles, unwell};
pub(crate) use certs::certs;
pub(crate) use drain::drain;
pub(crate) use ended::ended;
pub(crate) use failure::{failure, failure_value};
pub(crate) use host::{checks, instances, journal_lines, note, report};
pub(crate) use progress::Progress;
pub(crate) use ps::ps;
pub(crate) use releases::releases;
pub(crate) use results::{
    absent, accepted, broken_file, counted_together, have_several, health, log_lines, moved, ordered,
    planned, reloaded, scaled, superseded, switched, upgraded, warning, watch_line, watching,
};
#[cfg(test)]
pub(crate) use screen::Sink;
pub(crate) use screen::{Screen, reader_gone};
pub(crate) use status::status;
pub(crate) use tables::metrics;
