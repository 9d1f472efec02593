//! What an edit of `[app]` brings: a deploy or a switch, as soon as nothing else is under way.

use std::sync::Arc;

use super::Coordinator;
use super::probes::probe_interval;
use crate::config::app_fingerprint;
use crate::release::life::Life;
use crate::release::message::Message;
use crate::release::spec;
use crate::release::state::Event;
use crate::wire::{self, Code, ErrorBody, Reason};
use tokio::sync::oneshot;

impl Coordinator {
    /// Looks whether `[app]` is to be deployed, as it is configured now, how many replicas there
    /// are to be, and how requests are spread over them.
    pub(super) fn look_at_app(&mut self) {
        {
            let watched = self.state.window.is_some();
            let config = self.config.borrow_and_update();
            self.live_probe.hasten(probe_interval(&config, watched));
            self.edits.look_at(&config.app);
        }
        self.look_at_replicas();
        self.spread();
        self.want_memory_looks();
        if matches!(self.life, Life::Moving) {
            self.step(Event::Settings);
        }
    }

    /// Deploys an edited `[app]`, unless something else is under way.
    pub(super) fn deploy_edited_app(&mut self) {
        let is_free = matches!(self.life, Life::Moving) && !self.is_stopping() && self.state.task.is_none();
        if !self.edits.is_due() || !is_free {
            return;
        }
        let config = Arc::clone(&self.config.borrow());
        if self.orders.holds_back(|| app_fingerprint(&config.app)) {
            return;
        }
        if let Some(port) = config.app.target {
            self.edits.begin(&config.app);
            if let Err(error) = self.switch(&[port], Reason::Config) {
                tracing::error!("cannot switch to the edited app.target: {}", error.message);
                self.voice.failed(error.message);
                self.save_again();
            }
            return;
        }
        self.edits.prepare(&config.app);
        self.tasks.spawn_for(async move {
            let prepare = move || spec::prepare(wire::DeployRequest::default(), None, &config);
            let prepared = tokio::task::spawn_blocking(prepare).await;
            let prepared = prepared.unwrap_or_else(|error| {
                Err(ErrorBody::new(Code::Internal, "Internal error", error.to_string()))
            });
            match prepared {
                Ok(prepared) => {
                    let (prepared, reason) = (Box::new(prepared), Reason::Config);
                    // Nobody waits for the answer: what it comes to is told by the attempt.
                    let (asker, _) = oneshot::channel();
                    Message::Deploy { prepared, reason, force: false, asker }
                }
                Err(error) => Message::ConfigNotPrepared { error: Box::new(error) },
            }
        });
    }

    /// The edit cannot be deployed as it is.
    pub(super) fn edit_not_prepared(&mut self, error: ErrorBody) {
        if !self.edits.prepared() {
            return;
        }
        tracing::error!("cannot deploy [app]: {}", error.message);
        self.voice.failed(format!("[app] was not deployed: {}", error.message));
        self.save_again();
        self.voice.hook("aborted", None, error.message, None);
    }
}
