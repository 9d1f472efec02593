//! The requests for a move of traffic, and their answers: deploy, switch, rollback, cancel.

use super::{Answer, Coordinator, Step};
use crate::release::events::Attempt;
use crate::release::history::Content;
use crate::release::message::{PlannedRollback, RollbackReply, SwitchReply};
use crate::release::refusal::refused;
use crate::release::spec::{self, Prepared, ReleaseSpec};
use crate::release::state::{Event, Origin, Refusal, WayBack, WayTo};
use crate::wire::{self, Code, ErrorBody, Reason};

impl Coordinator {
    pub(super) fn deploy(
        &mut self,
        prepared: Prepared,
        reason: Reason,
        force: bool,
    ) -> Result<Attempt, ErrorBody> {
        let Prepared { id, spec, app_fingerprint, plan } = prepared;
        self.check_content(&id, &spec)?;
        if let Err(frozen) = self.orders.admits() {
            if reason == Reason::Config {
                self.edits.postpone();
            }
            return Err(frozen);
        }
        if reason == Reason::Config
            && let Some(release) = self.quarantined_like(&spec)
        {
            tracing::warn!(release, "[app] is not deployed: its content is that of a release in quarantine");
            self.edits.quarantine(app_fingerprint);
            return Err(refused(&Refusal::Quarantined { release }));
        }
        if plan.recreate
            && let Err(error) = self.may_recreate()
        {
            if reason == Reason::Config {
                tracing::error!("cannot deploy [app]: {}", error.message);
                self.voice.failed(format!("[app] was not deployed: {}", error.message));
                self.save_again();
            }
            return Err(error);
        }
        let content = Some(Content { spec: Some(spec), app: app_fingerprint.clone() });
        let before = app_fingerprint.map(|fingerprint| self.edits.attempt(fingerprint));
        let event = Event::Deploy { release: spec::managed(&id), reason, force, plan };
        let answer = self.step_with(event, Step { content, ..Step::default() });
        let answer = self.reader(answer, &id);
        if let (Err(_), Some(before)) = (&answer, before) {
            self.edits.take_back(before);
        }
        // Another request was faster: the edit's turn comes.
        let not_yet = matches!(&answer, Err(error) if matches!(error.code, Code::Busy | Code::ShuttingDown));
        if not_yet && reason == Reason::Config {
            self.edits.postpone();
        }
        // It may be the edit that a freeze held back.
        if answer.is_ok() && self.edits.is_pending() {
            self.edits.look_at(&self.config.borrow().app);
        }
        answer
    }

    /// Refuses a known release with other content: a release never changes.
    fn check_content(&self, id: &str, spec: &ReleaseSpec) -> Result<(), ErrorBody> {
        let wrong = |message| ErrorBody::new(Code::BadRequest, "Bad request", message);
        if spec::stands_for_ports(id) {
            return Err(wrong(format!(
                "release `{id}`: ids of this form stand for apps that somebody else starts"
            )));
        }
        if self.history.get(id).is_some_and(|known| known.spec.as_ref() != Some(spec)) {
            return Err(wrong(format!(
                "release `{id}` is known with other content: a release never changes"
            ))
            .with_hint("choose another id, or leave it out and get one"));
        }
        Ok(())
    }

    /// The release in quarantine that has this content.
    fn quarantined_like(&self, spec: &ReleaseSpec) -> Option<String> {
        let same = |id: &&str| self.history.get(id).is_some_and(|known| known.spec.as_ref() == Some(spec));
        self.state.past.quarantined().find(same).map(str::to_owned)
    }

    pub(super) fn switch(&mut self, ports: &[u16], reason: Reason) -> Result<SwitchReply, ErrorBody> {
        self.orders.admits()?;
        let release = spec::unmanaged_on(ports)
            .ok_or_else(|| ErrorBody::new(Code::BadRequest, "Bad request", "a switch needs a port"))?;
        let id = release.id.clone();
        match self.step(Event::Switch { release, reason }) {
            Some(Answer::AlreadyLive) => Ok(SwitchReply::AlreadyLive(self.voice.last_switch().cloned())),
            answer => self.reader(answer, &id).map(SwitchReply::Accepted),
        }
    }

    pub(super) fn roll_back(&mut self, asked: &wire::RollbackRequest) -> Result<RollbackReply, ErrorBody> {
        let way = self.state.way_back(asked.release.as_deref(), asked.force, &self.policy());
        let way = way.map_err(|refusal| refused(&refusal))?;
        if asked.dry_run {
            return Ok(RollbackReply::Plan(Box::new(self.planned(way))));
        }
        let answer = self.step(Event::Rollback { to: asked.release.clone(), force: asked.force });
        if let Some(cancelled) = &way.cancels {
            self.voice.cancelled_for_it(&cancelled.id);
        }
        let mut attempt = self.reader(answer, &way.to.id)?;
        if let Some(cancelled) = way.cancels.filter(|_| way.by == WayTo::Serves) {
            attempt = self.voice.nothing_to_do(&way.to.id, Some(cancelled.id));
        }
        Ok(RollbackReply::Accepted(attempt))
    }

    /// What a way back means, for a dry run.
    fn planned(&self, way: WayBack) -> PlannedRollback {
        let WayBack { to, by, from, cancels, watched, recreates } = way;
        let managed = to.origin == Origin::Managed;
        let starts = by == WayTo::Start && managed;
        let serves = by == WayTo::Serves;
        let (to, cancelled) = (to.id, cancels.map(|release| release.id));
        let leaves = from.filter(|_| !serves).map(|release| release.id);
        let how = match by {
            WayTo::Serves => "is live already".to_owned(),
            WayTo::UnderWay => "is being gone back to already".to_owned(),
            WayTo::Revive(_) => "still runs and gets the traffic again".to_owned(),
            WayTo::Start if recreates => {
                "is started again once nothing is left of the live release; requests wait until it is healthy"
                    .to_owned()
            }
            WayTo::Start if managed => "is started again and gets the traffic once it is healthy".to_owned(),
            WayTo::Start => "gets the traffic if it answers its health path".to_owned(),
        };
        let mut message = format!("`{to}` {how}");
        if let Some(leaves) = &leaves {
            message.push_str(&format!("; `{leaves}` loses it and enters quarantine"));
        }
        if let Some(cancelled) = &cancelled {
            message.push_str(&format!("; the candidate `{cancelled}` is cancelled first"));
        }
        let entry = self.history.get(&to);
        let directory = entry.and_then(|entry| entry.spec.as_ref()?.directory.clone()).filter(|_| starts);
        let run_last = self.history.last_start(&to);
        let plan = wire::RollbackPlan {
            dry_run: true,
            message,
            release: to,
            leaves,
            cancelled,
            starts,
            watched,
            already_live: serves,
            directory_changed: None,
        };
        PlannedRollback { plan, directory: directory.zip(run_last) }
    }

    pub(super) fn cancel(&mut self) -> Result<wire::Accepted, ErrorBody> {
        let release = self.state.task.as_ref().map(|task| task.release.id.clone()).unwrap_or_default();
        if let Some(Answer::Refused(refusal)) = self.step(Event::Cancel) {
            return Err(refused(&refusal));
        }
        let message = format!("cancelled `{release}`; traffic did not move");
        Ok(wire::Accepted { success: true, message, release, warning: None })
    }

    /// The machine's answer to a request about release `id`, as something to read.
    fn reader(&self, answer: Option<Answer>, id: &str) -> Result<Attempt, ErrorBody> {
        match answer {
            Some(Answer::Refused(refusal)) => Err(refused(&refusal)),
            Some(Answer::Accepted(attempt)) => Ok(attempt),
            Some(Answer::AlreadyLive) => Ok(self.voice.nothing_to_do(id, None)),
            None => Err(ErrorBody::new(Code::Internal, "Internal error", "the request had no effect")),
        }
    }
}
