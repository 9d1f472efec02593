//! What all apps are told together, and asked together.
//!
//! Every call goes to all coordinators at the same time, those of apps that are being removed
//! among them.

use std::time::Duration;

use tokio::task::JoinSet;

use super::registry::Order;
use super::{Apps, targets};
use crate::release::Handle;
use crate::wire::{Code, ErrorBody, Phase};

/// How often the phases of several apps are looked at.
const LOOK: Duration = Duration::from_secs(1);

impl Apps {
    /// Waits until a first probe has shown whether an unmanaged app can be live, so that a daemon
    /// in front of a healthy app never answers 503 at its start. No longer than `within`.
    pub async fn ready_to_serve(&self, within: Duration) {
        let known = each(self.coordinators(), |app| async move {
            app.first_probe().await;
            // The coordinator has acted on what the probe found.
            app.beat().await;
        });
        let targets = each(self.target_sets(), |app| async move { app.first_probe().await });
        let both = async { tokio::join!(known, targets) };
        let _unanswered = tokio::time::timeout(within, both).await;
    }

    /// As [`Handle::booted`], for all.
    pub async fn booted(&self) {
        each(self.coordinators(), |app| async move { app.booted().await }).await;
    }

    /// Waits until every coordinator has received a message sent now. Cancel safe.
    pub async fn beat(&self) {
        let targets = each(self.target_sets(), |app| async move { app.beat().await });
        tokio::join!(each(self.coordinators(), |app| async move { app.beat().await }), targets);
    }

    /// Waits until it is worth looking at the phases again: for the next snapshot of the one app;
    /// for a moment where there are several. False if there will be none.
    pub async fn changed(&mut self) -> bool {
        if self.has_several() {
            tokio::time::sleep(LOOK).await;
            return self.lost.has_changed().is_ok();
        }
        if self.followed.is_none() {
            self.followed = self.coordinators().pop();
        }
        if let Some(app) = &mut self.followed
            && app.changed().await
        {
            return true;
        }
        // It has ended; another one may take its place.
        self.followed = None;
        self.known.changed().await.is_ok()
    }

    /// The phase of every app.
    pub fn phases(&self) -> Vec<Phase> {
        let known = self.known.borrow();
        let redis = known.redis.iter().flat_map(super::from_redis::Seen::phases);
        known.apps.values().map(super::App::phase).chain(redis).collect()
    }

    /// Requests in flight on all targets.
    pub fn inflight(&self) -> u64 {
        let targets: u64 = self.target_sets().iter().map(targets::Handle::inflight).sum();
        let redis = self.known.borrow().redis.as_ref().map_or(0, super::from_redis::Seen::inflight);
        redis + targets + self.coordinators().iter().map(Handle::in_flight).sum::<u64>()
    }

    /// As [`Handle::may_freeze`], for all.
    ///
    /// # Errors
    /// The first refusal. `busy`: an app is being removed.
    pub async fn may_freeze(&self) -> Result<(), ErrorBody> {
        self.removes_none()?;
        self.target_sets().iter().try_for_each(targets::Handle::may_freeze)?;
        each(self.coordinators(), |app| async move { app.may_freeze().await }).await.into_iter().collect()
    }

    /// As [`Handle::freeze`], for all or none. From then on no app is added or removed.
    ///
    /// # Errors
    /// The first refusal; nothing has changed then.
    pub async fn freeze(&self, interrupt: bool) -> Result<(), ErrorBody> {
        self.tell(Order::StandStill).await;
        let outcomes = match self.removes_none().map_err(|error| (interrupt, error)) {
            Err((false, error)) => Err(error),
            _ => Ok(each(self.coordinators(), move |app| async move {
                let frozen = app.freeze(interrupt).await;
                (app, frozen)
            })
            .await),
        };
        let refusal = match outcomes {
            Err(refusal) => refusal,
            Ok(outcomes) => {
                let sets = self.target_sets();
                let sets = each(sets, move |app| async move { app.freeze(interrupt).await }).await;
                let sets: Result<(), ErrorBody> = sets.into_iter().collect();
                let (frozen, mut refused): (Vec<_>, Vec<_>) =
                    outcomes.into_iter().partition(|(_, outcome)| outcome.is_ok());
                let refusal = match (refused.pop(), sets) {
                    (Some((app, Err(refusal))), _) => self.naming(&app, refusal),
                    (_, Err(refusal)) => refusal,
                    _ => return Ok(()),
                };
                if interrupt {
                    // It ends all the same; what is written down is written down.
                    return Err(refusal);
                }
                each(self.target_sets(), |app| async move { app.thaw().await }).await;
                each(frozen.into_iter().map(|(app, _)| app).collect(), |app| async move { app.thaw().await })
                    .await;
                refusal
            }
        };
        let _ended = self.orders.send(Order::GoOn).await;
        Err(refusal)
    }

    /// Lets all go on as if they had never stood still.
    pub async fn thaw(&self) {
        each(self.target_sets(), |app| async move { app.thaw().await }).await;
        each(self.coordinators(), |app| async move { app.thaw().await }).await;
        let _ended = self.orders.send(Order::GoOn).await;
    }

    /// Leaves what the apps print in their pipes, for a successor to read; `false` reads it again.
    pub fn hush(&self, hushed: bool) {
        self.common.hush(hushed);
    }

    /// Puts back what a successor may have replaced that did not take over.
    pub fn restore(&self) {
        self.common.restore();
    }

    /// Ends the coordinators and leaves all processes as they are.
    pub async fn leave(&self) {
        self.tell(Order::End).await;
        let sets = each(self.target_sets(), |app| async move { app.leave().await });
        let coordinators = each(self.coordinators(), |app| async move { app.leave().await });
        tokio::join!(sets, coordinators);
    }

    /// Waits until a coordinator has ended that is not started again. Before the daemon's own end,
    /// none should.
    pub async fn lost(&self) {
        let mut lost = self.lost.clone();
        let _registry_ended = lost.wait_for(|lost| *lost).await;
    }

    /// Begins nothing new from now on; gives up what is under way and has not switched.
    pub async fn shut_down(&self) {
        self.tell(Order::End).await;
        let sets = each(self.target_sets(), |app| async move { app.shut_down().await });
        let coordinators = each(self.coordinators(), |app| async move { app.shut_down().await });
        tokio::join!(sets, coordinators);
    }

    /// Stops every process group by the ladder. Waits until nothing is left and the last records
    /// are written.
    pub async fn stop_all(&self) {
        let sets = each(self.target_sets(), |app| async move { app.stop().await });
        let coordinators = each(self.coordinators(), |app| async move { app.stop_all().await });
        tokio::join!(sets, coordinators);
    }

    /// Sends SIGKILL to what [`Apps::stop_all`] is still stopping.
    pub async fn kill_all(&self) {
        each(self.coordinators(), |app| async move { app.kill_all().await }).await;
    }

    /// The refusal of one of several apps, which says whose it is.
    fn naming(&self, app: &Handle, mut refusal: ErrorBody) -> ErrorBody {
        let name = app.name();
        if self.has_several() && !refusal.message.contains(&format!("`{name}`")) {
            refusal.message = format!("app `{name}`: {}", refusal.message);
        }
        refusal
    }

    /// Refuses where an app is being removed: nobody could go on with that.
    fn removes_none(&self) -> Result<(), ErrorBody> {
        if self.known.borrow().leaving.is_empty() {
            return Ok(());
        }
        let message = "an app is being removed: what runs of it is being stopped";
        Err(ErrorBody::new(Code::Busy, "Busy", message).with_hint("try again in a moment"))
    }

    /// What drives the targets of all apps that have such.
    fn target_sets(&self) -> Vec<targets::Handle> {
        let known = self.known.borrow();
        let running = known.apps.values().filter_map(super::App::targets_that_run);
        running.chain(&known.leaving_sets).cloned().collect()
    }

    /// The coordinators of all apps.
    fn coordinators(&self) -> Vec<Handle> {
        let known = self.known.borrow();
        let running = known.apps.values().filter_map(super::App::coordinator_that_runs);
        running.chain(&known.leaving).cloned().collect()
    }
}

/// Asks all at the same time, and waits for all answers. What is asked goes on no longer than the
/// future lives.
async fn each<H, T, F>(apps: Vec<H>, ask: impl Fn(H) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let mut asked: JoinSet<T> = JoinSet::new();
    for app in apps {
        asked.spawn(ask(app));
    }
    let mut answers = Vec::new();
    while let Some(answer) = asked.join_next().await {
        answers.extend(answer.ok());
    }
    answers
}
