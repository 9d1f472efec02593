//! The known releases: what they are and what became of them. Owned by the coordinator.

use std::sync::{Arc, OnceLock};

use super::spec::ReleaseSpec;
use super::store::StoredRelease;
use crate::wire::ReleaseRow;

/// Releases that are remembered; beyond it the oldest that is not needed goes.
const REMEMBERED: usize = 50;

/// Bytes that the contents of all of them may take: what is kept is written with each record.
const REMEMBERED_BYTES: usize = 4 << 20;

/// Oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    entries: Vec<StoredRelease>,
    // The rows as others see them, until an entry changes.
    rows: OnceLock<Arc<[ReleaseRow]>>,
}

impl History {
    pub(super) fn new(entries: Vec<StoredRelease>) -> Self {
        Self { entries, rows: OnceLock::new() }
    }

    /// The entry of `id`.
    pub(super) fn get(&self, id: &str) -> Option<&StoredRelease> {
        self.entries.iter().find(|entry| entry.row.release == id)
    }

    /// Changes the row of `id`, where it is known.
    pub(super) fn update(&mut self, id: &str, change: impl FnOnce(&mut ReleaseRow)) {
        self.rows.take();
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.row.release == id) {
            change(&mut entry.row);
        }
    }

    /// Makes `id` the newest release. One that is known keeps its dates and loses its outcome: it is tried again. What is not
    /// `needed` may be forgotten for it.
    pub(super) fn begin(&mut self, id: &str, spec: Option<ReleaseSpec>, needed: &[String]) {
        self.rows.take();
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
        while self.entries.len() > REMEMBERED || self.bytes() > REMEMBERED_BYTES {
            let newest = self.entries.len() - 1;
            let goes = |entry: &StoredRelease| !needed.contains(&entry.row.release);
            let Some(at) = self.entries[..newest].iter().position(goes) else { break };
            self.entries.remove(at);
        }
    }

    fn bytes(&self) -> usize {
        self.entries.iter().filter_map(|entry| entry.spec.as_ref()).map(ReleaseSpec::bytes).sum()
    }

    /// Takes `id` out again: nothing was ever started of it.
    pub(super) fn forget(&mut self, id: &str) {
        self.rows.take();
        self.entries.retain(|entry| entry.row.release != id || entry.row.started_at.is_some());
    }

    /// For the record, oldest first.
    pub(super) fn stored(&self) -> Vec<StoredRelease> {
        self.entries.clone()
    }

    /// For `portok releases`, newest first.
    pub(super) fn rows(&self) -> Arc<[ReleaseRow]> {
        let made = || self.entries.iter().rev().map(|entry| entry.row.clone()).collect();
        Arc::clone(self.rows.get_or_init(made))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_comes_first_and_what_is_needed_stays() {
        let mut history = History::default();
        for n in 0..REMEMBERED + 5 {
            history.begin(&format!("v{n}"), None, &["v0".to_owned()]);
        }
        let rows = history.rows();
        assert_eq!(rows.len(), REMEMBERED);
        assert_eq!(rows[0].release, format!("v{}", REMEMBERED + 4));
        assert_eq!(rows[REMEMBERED - 1].release, "v0");
    }

    #[test]
    fn large_releases_push_older_ones_out() {
        let mut history = History::default();
        let spec = ReleaseSpec {
            command: crate::config::CommandLine::Shell("x".repeat(1 << 20)),
            directory: None,
            env: Default::default(),
            user: None,
            group: None,
            limits: Default::default(),
            port_env: "PORT".into(),
            health_path: None,
        };
        for n in 0..10 {
            history.begin(&format!("v{n}"), Some(spec.clone()), &["v0".to_owned()]);
        }
        let rows = history.rows();
        let ids: Vec<_> = rows.iter().map(|row| row.release.as_str()).collect();
        assert_eq!(ids, ["v9", "v0"]);
    }

    #[test]
    fn a_release_that_is_tried_again_moves_to_the_front() {
        let mut history = History::default();
        for id in ["a", "b", "a"] {
            history.begin(id, None, &[]);
        }
        let rows = history.rows();
        let ids: Vec<_> = rows.iter().map(|row| row.release.as_str()).collect();
        assert_eq!(ids, ["a", "b"]);
    }
}
