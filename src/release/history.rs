//! The known releases: what they are and what became of them. Owned by the coordinator.

use super::spec::ReleaseSpec;
use super::store::StoredRelease;
use crate::wire::ReleaseRow;

/// Releases that are remembered; beyond it the oldest that is not needed goes.
const REMEMBERED: usize = 50;

/// Oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    entries: Vec<StoredRelease>,
}

impl History {
    pub(super) fn new(entries: Vec<StoredRelease>) -> Self {
        Self { entries }
    }

    /// The entry of `id`.
    pub(super) fn get(&self, id: &str) -> Option<&StoredRelease> {
        self.entries.iter().find(|entry| entry.row.release == id)
    }

    /// Changes the row of `id`, where it is known.
    pub(super) fn update(&mut self, id: &str, change: impl FnOnce(&mut ReleaseRow)) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.row.release == id) {
            change(&mut entry.row);
        }
    }

    /// Makes `id` the newest release. One that is known keeps its dates and loses its outcome: it is tried again.
    pub(super) fn begin(&mut self, id: &str, spec: Option<ReleaseSpec>, needed: impl Fn(&str) -> bool) {
        let former = self.entries.iter().position(|entry| entry.row.release == id);
        let mut row = match former {
            Some(at) => self.entries.remove(at).row,
            None => ReleaseRow {
                release: id.to_owned(),
                command: None,
                outcome: None,
                started_at: None,
                switched_at: None,
                stopped_at: None,
                exit: None,
                port: None,
                reason: None,
            },
        };
        row.command = spec.as_ref().map(|spec| spec.command.clone());
        row.outcome = None;
        row.reason = None;
        self.entries.push(StoredRelease { row, spec });
        while self.entries.len() > REMEMBERED {
            let Some(at) = self.entries.iter().position(|entry| !needed(&entry.row.release)) else { break };
            self.entries.remove(at);
        }
    }

    /// Takes `id` out again: nothing was ever started of it.
    pub(super) fn forget(&mut self, id: &str) {
        self.entries.retain(|entry| entry.row.release != id || entry.row.started_at.is_some());
    }

    /// For the record, oldest first.
    pub(super) fn stored(&self) -> Vec<StoredRelease> {
        self.entries.clone()
    }

    /// For `portok releases`, newest first.
    pub(super) fn rows(&self) -> Vec<ReleaseRow> {
        self.entries.iter().rev().map(|entry| entry.row.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_comes_first_and_what_is_needed_stays() {
        let mut history = History::default();
        for n in 0..REMEMBERED + 5 {
            history.begin(&format!("v{n}"), None, |id| id == "v0");
        }
        let rows = history.rows();
        assert_eq!(rows.len(), REMEMBERED);
        assert_eq!(rows[0].release, format!("v{}", REMEMBERED + 4));
        assert_eq!(rows[REMEMBERED - 1].release, "v0");
    }

    #[test]
    fn a_release_that_is_tried_again_moves_to_the_front() {
        let mut history = History::default();
        for id in ["a", "b", "a"] {
            history.begin(id, None, |_| true);
        }
        let ids: Vec<_> = history.rows().into_iter().map(|row| row.release).collect();
        assert_eq!(ids, ["a", "b"]);
    }
}
