//! The attempts to make a release live: what each was about, and what became of it. Owned by the
//! coordinator.
//!
//! Every attempt (a deploy, a switch, a rollback) has a row of its own. Its outcome is written
//! once; only `live` becomes `rolled_back`, when a rollback takes traffic away again. A process
//! belongs to every row with its start: that of the attempt that started it, and those of attempts
//! that made it live again.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use super::record::StoredRelease;
use super::spec::ReleaseSpec;
use super::state::Companion;
use crate::wire::{Outcome, ReleaseRow};

/// How many attempts are remembered. Beyond it the oldest one that is not needed is forgotten.
const REMEMBERED: usize = 50;

/// How many bytes the contents of all attempts may take. All of them are written with each record.
const REMEMBERED_BYTES: usize = 4 << 20;

/// The attempts, oldest first.
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

    /// The newest attempt at `id`.
    pub(super) fn get(&self, id: &str) -> Option<&StoredRelease> {
        self.entries.iter().rev().find(|entry| entry.row.release == id)
    }

    /// What the machine has to know of the companions of each release that has some.
    pub(super) fn companions(&self) -> BTreeMap<String, Vec<Companion>> {
        let specs = self.entries.iter().filter_map(|entry| Some((&entry.row.release, entry.spec.as_ref()?)));
        let some = specs.filter(|(_, spec)| !spec.processes.is_empty());
        some.map(|(release, spec)| (release.clone(), spec.companions())).collect()
    }

    /// Begins an attempt. Releases that are not `needed` may be forgotten for it.
    pub(super) fn begin(&mut self, attempt: StoredRelease, needed: &[String]) {
        self.rows.take();
        self.entries.push(attempt);
        while self.entries.len() > REMEMBERED || self.bytes() > REMEMBERED_BYTES {
            let newest = self.entries.len() - 1;
            let Some(at) = (0..newest).find(|at| !self.is_needed(*at, needed)) else { break };
            self.entries.remove(at);
        }
    }

    /// Whether an attempt is the newest one at a release that is needed.
    fn is_needed(&self, at: usize, needed: &[String]) -> bool {
        let id = &self.entries[at].row.release;
        needed.contains(id) && !self.entries[at + 1..].iter().any(|later| later.row.release == *id)
    }

    fn bytes(&self) -> usize {
        self.entries.iter().filter_map(|entry| entry.spec.as_ref()).map(ReleaseSpec::bytes).sum()
    }

    /// When the newest process of `id` was started.
    pub(super) fn last_start(&self, id: &str) -> Option<SystemTime> {
        let starts = self.entries.iter().rev().filter(|entry| entry.row.release == id);
        let last = starts.filter_map(|entry| entry.row.started_at.as_deref()).next()?;
        humantime::parse_rfc3339(last).ok()
    }

    /// How the last attempt at the `[app]` with this fingerprint ended.
    pub(super) fn last_outcome_of_app(&self, fingerprint: &str) -> Option<Outcome> {
        let made_of_it = |entry: &&StoredRelease| entry.app.as_deref() == Some(fingerprint);
        self.entries.iter().rev().find(made_of_it)?.row.outcome
    }

    /// Removes the attempt at `id` that is under way: it never began.
    pub(super) fn take_back(&mut self, id: &str) {
        self.rows.take();
        let under_way = |row: &ReleaseRow| row.release == id && row.outcome.is_none();
        if let Some(at) = self.entries.iter().rposition(|entry| under_way(&entry.row)) {
            self.entries.remove(at);
        }
    }

    /// Ends the attempt at `id` that is under way.
    pub(super) fn ended(&mut self, id: &str, outcome: Outcome, change: impl FnOnce(&mut ReleaseRow)) {
        if let Some(row) = self.newest(|row| row.release == id && row.outcome.is_none()) {
            row.outcome = Some(outcome);
            change(row);
        }
    }

    /// Traffic was taken away from the live release `id`.
    pub(super) fn rolled_back(&mut self, id: &str, why: &str) {
        if let Some(row) = self.newest(|row| row.release == id && row.outcome == Some(Outcome::Live)) {
            row.outcome = Some(Outcome::RolledBack);
            row.reason = Some(why.to_owned());
        }
    }

    /// `id` serves although no attempt moved traffic to it: it was configured, and ran. Its first
    /// attempt counts as live.
    pub(super) fn serves(&mut self, id: &str) {
        let known = |entry: &StoredRelease| entry.row.release == id && entry.row.outcome.is_some();
        if !self.entries.iter().any(known) {
            self.ended(id, Outcome::Live, |_| {});
        }
    }

    /// A process of `id` was started: by the attempt under way where it is a `candidate`, otherwise
    /// for the attempt that made it live. Of several processes the row has start and port of the
    /// `first`, the one with the lowest number.
    pub(super) fn started(&mut self, id: &str, candidate: bool, first: bool, at: String, port: u16) {
        let row = self.newest(|row| row.release == id && row.outcome.is_none() == candidate);
        if let Some(row) = row {
            row.stopped_at = None;
            row.exit = None;
            if first || row.started_at.is_none() {
                row.started_at = Some(at);
                row.port = Some(port);
            }
        }
    }

    /// The process of `id` with this start has ended, and `rest` is what else there is of the
    /// release. Nothing is left of it where `stopped_at` is given.
    pub(super) fn process_ended(
        &mut self,
        id: &str,
        started_at: Option<&str>,
        rest: Rest,
        exit: Option<&str>,
        stopped_at: Option<&str>,
    ) {
        let Some(started_at) = started_at else { return };
        self.rows.take();
        let of_release = |row: &&mut ReleaseRow| row.release == id;
        let mut rows: Vec<_> =
            self.entries.iter_mut().rev().map(|entry| &mut entry.row).filter(of_release).collect();
        let newest = rows.iter().find_map(|row| row.started_at.clone());
        for row in rows.iter_mut().filter(|row| row.started_at.is_some()) {
            let is_newest = row.started_at == newest;
            let of_it = row.started_at.as_deref() == Some(started_at);
            // The start of a row is that of one process of several, which need not end last.
            let was_last = is_newest && rest == Rest::Nothing && row.stopped_at.is_none();
            let goes_on = is_newest && rest == Rest::Stays;
            if goes_on || !(of_it || was_last) {
                continue;
            }
            row.exit = exit.map(str::to_owned).or(row.exit.take());
            row.stopped_at = stopped_at.map(str::to_owned).or(row.stopped_at.take());
        }
    }

    fn newest(&mut self, which: impl Fn(&ReleaseRow) -> bool) -> Option<&mut ReleaseRow> {
        self.rows.take();
        self.entries.iter_mut().rev().map(|entry| &mut entry.row).find(|row| which(row))
    }

    /// Marks the rows of releases in quarantine, which the state machine knows.
    pub(super) fn mark(&mut self, is_quarantined: impl Fn(&str) -> bool) {
        for row in self.entries.iter_mut().map(|entry| &mut entry.row) {
            let quarantined = is_quarantined(&row.release);
            if row.quarantined != quarantined {
                row.quarantined = quarantined;
                self.rows.take();
            }
        }
    }

    /// For the record, oldest first. The record has the quarantine elsewhere.
    pub(super) fn stored(&self) -> Vec<StoredRelease> {
        let mut stored = self.entries.clone();
        stored.iter_mut().for_each(|entry| entry.row.quarantined = false);
        stored
    }

    /// For `portok releases`, newest first.
    pub(super) fn rows(&self) -> Arc<[ReleaseRow]> {
        let made = || self.entries.iter().rev().map(|entry| entry.row.clone()).collect();
        Arc::clone(self.rows.get_or_init(made))
    }
}

/// What else there is of a release whose process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Others of it serve, or are to.
    Stays,
    /// Others of it are on their way out.
    Leaves,
    /// Nothing.
    Nothing,
}

impl Rest {
    /// Of the other processes, each of which `stays` or leaves.
    pub(super) fn of(mut stays: impl Iterator<Item = bool>) -> Self {
        match stays.next() {
            None => Self::Nothing,
            Some(first) if first || stays.any(|stays| stays) => Self::Stays,
            Some(_) => Self::Leaves,
        }
    }
}

/// The content of a release; empty for an unmanaged app.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) spec: Option<ReleaseSpec>,
    /// The fingerprint of `[app]`, where it is nothing but that.
    pub(super) app: Option<String>,
}

/// An attempt that begins.
pub(super) fn attempt(id: &str, content: Content) -> StoredRelease {
    let Content { spec, app } = content;
    let row = ReleaseRow {
        release: id.to_owned(),
        command: spec.as_ref().map(|spec| spec.command.clone()),
        outcome: None,
        started_at: None,
        switched_at: None,
        stopped_at: None,
        exit: None,
        port: None,
        reason: None,
        quarantined: false,
    };
    StoredRelease { row, spec, app }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_comes_first_and_what_is_needed_stays() {
        let mut history = History::default();
        for n in 0..REMEMBERED + 5 {
            history.begin(attempt(&format!("v{n}"), Content::default()), &["v0".to_owned()]);
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
            processes: Default::default(),
            before: None,
            verify: None,
        };
        for n in 0..10 {
            history.begin(
                attempt(&format!("v{n}"), Content { spec: Some(spec.clone()), app: None }),
                &["v0".to_owned()],
            );
        }
        let rows = history.rows();
        let ids: Vec<_> = rows.iter().map(|row| row.release.as_str()).collect();
        assert_eq!(ids, ["v9", "v0"]);
    }

    fn outcomes(history: &History) -> Vec<(String, Option<Outcome>)> {
        history.rows().iter().map(|row| (row.release.clone(), row.outcome)).collect()
    }

    #[test]
    fn a_release_that_is_tried_again_has_another_row() {
        let mut history = History::default();
        for (id, outcome) in [("a", Outcome::Live), ("b", Outcome::Live), ("a", Outcome::Aborted)] {
            history.begin(attempt(id, Content::default()), &[]);
            history.ended(id, outcome, |_| {});
        }
        history.begin(attempt("b", Content::default()), &[]);
        history.rolled_back("b", "bad");
        history.take_back("b");
        let of = |id: &str, outcome| (id.to_owned(), Some(outcome));
        assert_eq!(
            outcomes(&history),
            [of("a", Outcome::Aborted), of("b", Outcome::RolledBack), of("a", Outcome::Live)]
        );
        history.ended("a", Outcome::Cancelled, |_| {});
        assert_eq!(history.rows()[0].outcome, Some(Outcome::Aborted), "an outcome is written once");
    }

    #[test]
    fn the_end_of_a_process_is_told_where_its_start_is() {
        let mut history = History::default();
        for start in ["09:00", "10:00"] {
            history.begin(attempt("a", Content::default()), &[]);
            history.started("a", true, true, start.to_owned(), 1);
            history.ended("a", Outcome::Live, |_| {});
        }
        history.process_ended("a", Some("09:00"), Rest::Stays, Some("exit status 1"), Some("11:00"));
        let rows = history.rows();
        assert_eq!((rows[0].stopped_at.as_deref(), rows[1].stopped_at.as_deref()), (None, Some("11:00")));
        assert_eq!(rows[1].exit.as_deref(), Some("exit status 1"));
    }

    #[test]
    fn a_release_has_ended_when_its_last_process_has() {
        let mut history = History::default();
        history.begin(attempt("a", Content::default()), &[]);
        for (start, port, first) in [("09:01", 2, false), ("09:00", 1, true)] {
            history.started("a", true, first, start.to_owned(), port);
        }
        history.ended("a", Outcome::Live, |_| {});
        history.started("a", false, false, "09:02".to_owned(), 3);
        let row = history.rows()[0].clone();
        assert_eq!((row.started_at.as_deref(), row.port), (Some("09:00"), Some(1)), "those of the first");
        let ends = |history: &mut History, start: &str, rest, stopped: &str| {
            history.process_ended("a", Some(start), rest, Some("signal 15"), Some(stopped));
            let row = history.rows()[0].clone();
            (row.exit, row.stopped_at)
        };
        assert_eq!(ends(&mut history, "09:02", Rest::Stays, "10:00"), (None, None), "two others serve");
        assert_eq!(ends(&mut history, "09:01", Rest::Leaves, "11:00"), (None, None), "one leaves still");
        let ended = (Some("signal 15".to_owned()), Some("12:00".to_owned()));
        assert_eq!(ends(&mut history, "09:00", Rest::Nothing, "12:00"), ended);
    }

    #[test]
    fn of_a_needed_release_the_newest_attempt_stays() {
        let mut history = History::default();
        for _ in 0..REMEMBERED + 5 {
            history.begin(attempt("a", Content::default()), &["a".to_owned()]);
        }
        assert_eq!(history.rows().len(), REMEMBERED);
    }
}
