//! How many replicas there are: what an operator asks for, what the load asks for, and the request
//! that an idle app is woken by.

use tokio::sync::oneshot;

use super::Coordinator;
use crate::config::{DeployStrategy, HoldOn, Replicas};
use crate::release::life::Life;
use crate::release::message::ScaleReply;
use crate::release::refusal::refused;
use crate::release::scale::{Bounds, can_be_idle};
use crate::release::state::{Event, Origin, Refusal, ReleaseRef};
use crate::wire::{self, Code, ErrorBody, Said};

/// What who asks for no replica may have.
const NONE_WHILE_QUIET: &str =
    "portok scale 0..1: none runs while nobody asks, and the next request starts one";

impl Coordinator {
    /// How many replicas there are to be, whoever said so.
    pub(super) fn replicas(&self) -> Replicas {
        let replicas = self.asked_replicas();
        if self.runs_alone() { replicas.alone() } else { replicas }
    }

    /// How many replicas are asked for.
    fn asked_replicas(&self) -> Replicas {
        let config = self.config.borrow();
        self.scaling.replicas(&config.app.replicas, &config.hold)
    }

    /// Whether no two processes of the app may run at a time: it is deployed so, or the live
    /// release was.
    fn runs_alone(&self) -> bool {
        self.config.borrow().deploy.strategy == DeployStrategy::Recreate || self.state.recreated
    }

    /// Refuses to stop the live release first for the next one while several replicas are asked
    /// for.
    pub(super) fn may_recreate(&self) -> Result<(), ErrorBody> {
        let Replicas { max, .. } = self.asked_replicas();
        if max <= 1 {
            return Ok(());
        }
        let app = &self.config.borrow().name;
        let message = format!(
            "app `{app}` cannot be deployed with strategy \"recreate\": it is scaled to up to {max} replicas, \
             and with that strategy nothing may run twice"
        );
        Err(ErrorBody::new(Code::BadRequest, "Bad request", message).with_hint("first: portok scale 1"))
    }

    /// An operator asks for so many replicas.
    pub(super) fn scale(&mut self, bounds: Bounds, said: &Said) -> Result<ScaleReply, ErrorBody> {
        if self.is_stopping() {
            return Err(refused(&Refusal::ShuttingDown));
        }
        self.can_scale(bounds)?;
        let config = self.config.borrow().clone();
        self.scaling.ask(bounds, &said.by, &config.app.replicas);
        let noted = self.state.task.is_some();
        let Bounds { min, max } = bounds;
        let (app, note) = (&config.name, said.note.as_deref());
        tracing::info!(app, by = said.by, note, min, max, noted, "scaled");
        self.use_noted_scale();
        let (done, kept) = oneshot::channel();
        // Where the number changes nothing, no step has saved it.
        self.save_again();
        self.recorder.wait_for_last(done);
        let waits = !noted && self.scale_status().is_some_and(|scale| scale.waits);
        let watch_until = self.watched_until().filter(|_| waits).map(wire::rfc3339);
        Ok(ScaleReply { scaled: wire::Scaled { min, max, noted, watch_until, warning: None }, kept })
    }

    /// What an operator has asked for, as others see it.
    pub(super) fn scale_status(&self) -> Option<wire::ScaleStatus> {
        self.scaling.status(self.state.wanted(), self.state.window.is_some())
    }

    /// Refuses what this app cannot have.
    fn can_scale(&self, Bounds { min, max }: Bounds) -> Result<(), ErrorBody> {
        let config = self.config.borrow();
        let (name, most) = (&config.name, Replicas::MOST);
        let is_managed = self.state.live_release().is_some_and(|live| live.origin == Origin::Managed);
        let has_command = config.app.command.is_some() || is_managed;
        let recreates = self.state.task.as_ref().is_some_and(|task| task.plan.recreate);
        let refused = |why: String| {
            let message = format!("app `{name}` cannot be scaled to {min}..{max}: {why}");
            let error = ErrorBody::new(Code::BadRequest, "Bad request", message);
            let none = max == 0 && can_be_idle(&config.hold);
            Err(if none { error.with_hint(NONE_WHILE_QUIET) } else { error })
        };
        if !has_command {
            refused("it has no command, and only processes have replicas".to_owned())
        } else if max == 0 || max > most {
            refused(format!("the most has to be a number from 1 to {most}"))
        } else if min > max {
            refused("the least is more than the most".to_owned())
        } else if max > 1 && (self.runs_alone() || recreates) {
            refused(
                "it is deployed with strategy \"recreate\", and with that nothing may run twice".to_owned(),
            )
        } else if min == 0 && !can_be_idle(&config.hold) {
            let key = if config.hold.is_on(HoldOn::Idle) {
                "hold.max_requests is 0"
            } else {
                "hold.on has no \"idle\""
            };
            refused(format!("{key}, and a request that waits starts an app of which none runs"))
        } else {
            Ok(())
        }
    }

    /// Puts in force what an operator has asked for, once no deploy is under way.
    pub(super) fn use_noted_scale(&mut self) {
        if self.scaling.is_noted() && self.state.task.is_none() && matches!(self.life, Life::Moving) {
            self.scaling.use_noted();
            self.spread();
            self.step(Event::Settings);
        }
    }

    /// Spreads requests as it is configured now, over as many as there may be.
    pub(super) fn spread(&mut self) {
        let most = self.state.live_release().map_or(0, |live| self.most_of(live));
        self.traffic.configure(&self.config.borrow(), most);
    }

    /// How many members a set of this release may have.
    pub(super) fn most_of(&self, release: &ReleaseRef) -> u16 {
        match release.origin {
            Origin::Managed => self.replicas().max,
            Origin::Unmanaged { .. } => release.origin.count(),
        }
    }

    /// The file may say another number: then that counts.
    pub(super) fn look_at_replicas(&mut self) {
        let config = self.config.borrow().clone();
        if self.scaling.look_at(&config.app.replicas) {
            tracing::info!(
                app = config.name,
                "app.replicas counts again: the file says another number than when it was scaled"
            );
            if matches!(self.life, Life::Moving) {
                self.save_again();
            }
        }
    }

    /// Looks at the load of the live release.
    pub(super) fn look_at_load(&mut self) {
        self.load_looks.begin();
        self.load_looks.end();
        if let Some(set) = self.state.follows_load(&self.policy()) {
            let load = self.traffic.load(&self.state.live_runs(), self.config.borrow().mode);
            self.step(Event::Load { set, load });
        }
    }

    /// Starts an idle app that a request waits for, unless it would have to wait all the same.
    pub(super) fn wake(&mut self) {
        let is_asked =
            matches!(self.life, Life::Moving) && self.state.is_idle() && self.traffic.waiting() > 0;
        if is_asked && self.orders.bar().is_none() {
            self.step(Event::Wake);
        }
    }
}
