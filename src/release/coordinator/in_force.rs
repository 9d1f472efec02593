//! Whether the live release is what `[app]` says, and if not, why: `config.in_force` of `status`.

use super::Coordinator;
use crate::config::{AppChange, app_change, app_fingerprint};
use crate::release::spec;
use crate::release::state::Origin;
use crate::wire::{AppInForce, Outcome, Reason};

impl Coordinator {
    pub(super) fn app_in_force(&self) -> AppInForce {
        let app = &self.config.borrow().app;
        let asks = app.command.is_some() || app.target.is_some();
        let fingerprint = app_fingerprint(app);
        let is_this =
            |id: &str| self.history.get(id).is_some_and(|entry| entry.app.as_ref() == Some(&fingerprint));
        let in_force = match (self.state.live_release(), app.target) {
            _ if !asks => true,
            (Some(live), Some(port)) => *live == spec::unmanaged(port),
            // A release of an older daemon's record has no fingerprint: its command decides.
            (Some(live), None) if live.origin == Origin::Managed => {
                let entry = self.history.get(&live.id);
                let made_of_app = entry.is_some_and(|entry| entry.app.is_some());
                let same = || {
                    let attempted = self.edits.attempted() == Some(&*fingerprint);
                    attempted
                        && entry.and_then(|entry| entry.spec.as_ref()).map(|spec| &spec.command)
                            == app.command.as_ref()
                };
                is_this(&live.id) || (!made_of_app && same())
            }
            _ => false,
        };
        let quarantined = || {
            let target = app.target.map(|port| spec::unmanaged(port).id);
            self.edits.quarantined() == Some(&*fingerprint)
                || self.state.past.quarantined().any(|id| is_this(id) || target.as_deref() == Some(id))
        };
        let under_way = self.state.task.as_ref().is_some_and(|task| task.reason == Reason::Config);
        let why = if in_force {
            None
        } else if under_way || self.edits.is_pending() {
            Some("pending")
        } else if quarantined() {
            Some("quarantined")
        } else if app_change(self.edits.attempted(), app) == AppChange::None
            && self.edits.attempted() != Some(&*fingerprint)
        {
            Some("deploy_on_change")
        } else if self.state.live_release().is_none()
            || self.history.last_outcome_of_app(&fingerprint).is_some_and(|outcome| outcome != Outcome::Live)
        {
            // One that was refused before it began has no row in the history.
            Some("aborted")
        } else {
            Some("replaced")
        };
        AppInForce { in_force, why: why.map(str::to_owned) }
    }
}
