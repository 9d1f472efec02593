//! What a converter finds out beside the TOML.

use std::fmt::Display;

use serde_json::Value;

/// The longest part of a value that a message quotes, in characters.
const QUOTED_MAX: usize = 60;

/// What is wrong with the source, and what portok does otherwise. Both in the source's order.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<String>,
    pub(super) notes: Vec<String>,
}

impl Findings {
    /// Notes that `place` holds something else than what was `expected`.
    pub(super) fn wrong(&mut self, place: impl Display, value: &Value, expected: impl Display) {
        self.problems.push(format!("{place} = {}: expected {expected}", quoted(value)));
    }

    /// Notes that something is missing, or fits nowhere.
    pub(super) fn problem(&mut self, place: impl Display, what: impl Display) {
        self.problems.push(format!("{place}: {what}"));
    }

    /// Notes what becomes of `place`.
    pub(super) fn note(&mut self, place: impl Display, what: impl Display) {
        self.notes.push(format!("{place}: {what}"));
    }
}

/// The beginning of a value.
fn quoted(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(QUOTED_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
