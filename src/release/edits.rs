//! The edits of `[app]`: which one was attempted last, and whether a newer one waits for its
//! deploy.
//!
//! Owned by the coordinator. An `[app]` is known by its fingerprint ([`app_fingerprint`]), which
//! the record keeps.

use super::record::Record;
use crate::config::{App, AppChange, app_change, app_fingerprint};

/// What is known of the edits of `[app]`.
#[derive(Debug, Default)]
pub(super) struct Edits {
    /// The `[app]` that was attempted last.
    attempted: Option<String>,
    /// The `[app]` that was not deployed because its content is in quarantine.
    quarantined: Option<String>,
    /// `[app]` is to be deployed as soon as nothing else is under way.
    pending: bool,
    preparation: Preparation,
}

/// Whether the release of an edit is being prepared, so that its deploy has not begun. There is one
/// preparation at a time.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Preparation {
    #[default]
    None,
    UnderWay,
    /// What comes of it is not deployed.
    Interrupted,
}

/// The `[app]` that was attempted before the one of a request, to go back to where the request is
/// refused.
#[derive(Debug)]
pub(super) struct Before(Option<String>);

impl Edits {
    /// Goes on from what `record` says.
    pub(super) fn new(record: &Record) -> Self {
        let (attempted, quarantined) = (record.app_attempted.clone(), record.app_quarantined.clone());
        Self { attempted, quarantined, pending: false, preparation: Preparation::None }
    }

    /// The fingerprint of the `[app]` that was attempted last.
    pub(super) fn attempted(&self) -> Option<&str> {
        self.attempted.as_deref()
    }

    /// The fingerprint of the `[app]` that was not deployed because its content is in quarantine.
    pub(super) fn quarantined(&self) -> Option<&str> {
        self.quarantined.as_deref()
    }

    /// Whether an edit waits for its deploy.
    pub(super) fn is_pending(&self) -> bool {
        self.pending
    }

    /// Whether an edit waits for its deploy, and none is being prepared.
    pub(super) fn is_due(&self) -> bool {
        self.pending && self.preparation == Preparation::None
    }

    /// Whether an edit waits for its deploy, or is being prepared for it.
    pub(super) fn is_open(&self) -> bool {
        self.pending || self.preparation == Preparation::UnderWay
    }

    /// Compares `app`, as it is configured now, with what was attempted last.
    pub(super) fn look_at(&mut self, app: &App) {
        self.pending = app_change(self.attempted(), app) != AppChange::None;
    }

    /// Compares `app` with what the record says, at the start. `is_due`: nothing is live or becomes
    /// live.
    pub(super) fn look_at_start(&mut self, app: &App, is_due: bool) {
        self.pending = match app_change(self.attempted(), app) {
            AppChange::Redeploy => true,
            // A recorded port wins over the configured one, now and at the next reload of something
            // else.
            AppChange::Switch(_) => {
                self.adopt(app);
                false
            }
            // With a command that is the first deploy, or another try of one that failed.
            AppChange::None => is_due && app.command.is_some(),
        };
    }

    /// `app` counts as attempted.
    pub(super) fn adopt(&mut self, app: &App) {
        self.attempted = Some(app_fingerprint(app));
    }

    /// The pending edit is being deployed.
    pub(super) fn begin(&mut self, app: &App) {
        self.pending = false;
        self.adopt(app);
    }

    /// The pending edit is being prepared for its deploy.
    pub(super) fn prepare(&mut self, app: &App) {
        self.begin(app);
        self.preparation = Preparation::UnderWay;
    }

    /// The preparation is over. Whether what came of it is to be deployed.
    pub(super) fn prepared(&mut self) -> bool {
        std::mem::take(&mut self.preparation) == Preparation::UnderWay
    }

    /// Nothing is begun from now on: an edit that is only prepared was not attempted, and its turn
    /// comes, here or in the next daemon.
    pub(super) fn interrupt(&mut self) {
        if self.preparation == Preparation::UnderWay {
            self.preparation = Preparation::Interrupted;
            self.postpone();
        }
    }

    /// A request attempts the `[app]` with this fingerprint.
    pub(super) fn attempt(&mut self, fingerprint: String) -> Before {
        Before(self.attempted.replace(fingerprint))
    }

    /// The request was refused.
    pub(super) fn take_back(&mut self, before: Before) {
        self.attempted = before.0;
    }

    /// The deploy of an edit was refused because something else was under way: its turn comes.
    pub(super) fn postpone(&mut self) {
        self.attempted = None;
        self.pending = true;
    }

    /// The deploy of an edit was never begun because the state could not be written: its turn comes
    /// when it can.
    pub(super) fn never_attempted(&mut self) {
        self.attempted = None;
    }

    /// The edit with this fingerprint is not deployed: its content is in quarantine.
    pub(super) fn quarantine(&mut self, fingerprint: Option<String>) {
        self.quarantined = fingerprint;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::{Sources, load};

    fn app(command: &str) -> App {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("web.toml");
        std::fs::write(&file, format!("[app]\ncommand = \"{command}\"\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        load(&Sources { file: Some(file), ..Sources::default() }).unwrap().app.app.clone()
    }

    #[test]
    fn an_edit_whose_preparation_is_interrupted_was_not_attempted() {
        let mut edits = Edits::default();
        edits.prepare(&app("one"));
        edits.look_at(&app("two"));
        assert!(edits.attempted().is_some() && !edits.is_due(), "one at a time");
        edits.interrupt();
        assert!(edits.attempted().is_none());
        assert!(
            !edits.prepared() && edits.is_due(),
            "what was interrupted is not deployed, and its turn comes"
        );
        edits.prepare(&app("two"));
        assert!(edits.prepared());
        edits.interrupt();
        assert!(edits.attempted().is_some() && !edits.is_due(), "its deploy has begun");
    }

    #[test]
    fn an_edit_is_deployed_once_and_again_only_when_its_turn_had_not_come() {
        let mut edits = Edits::default();
        edits.look_at_start(&app("one"), false);
        assert!(edits.is_due());
        edits.begin(&app("one"));
        edits.look_at(&app("one"));
        assert!(!edits.is_due());
        edits.look_at(&app("two"));
        assert!(edits.is_due());
        edits.begin(&app("two"));
        edits.postpone();
        edits.look_at(&app("two"));
        assert!(edits.is_due());
    }

    #[test]
    fn a_refused_request_leaves_what_was_attempted_before() {
        let mut edits = Edits::default();
        edits.adopt(&app("one"));
        let one = edits.attempted().map(str::to_owned);
        let before = edits.attempt("another".into());
        assert_eq!(edits.attempted(), Some("another"));
        edits.take_back(before);
        assert_eq!(edits.attempted(), one.as_deref());
    }
}
