//! What all apps are told together, and asked together.
//!
//! Every call goes to all that drives apps at the same time, the coordinators of apps that are
//! being removed among them.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;

use super::drivers::Driver;
use super::registry::Order;
use super::{App, Apps};
use crate::wire::{Code, Ended, ErrorBody, Phase};

/// How often the phases of several apps are looked at.
const LOOK: Duration = Duration::from_secs(1);

impl Apps {
    /// Waits until a first probe has shown whether an unmanaged app can be live, so that a daemon
    /// in front of a healthy app never answers 503 at its start. No longer than `within`.
    pub async fn ready_to_serve(&self, within: Duration) {
        let known = each(self.drivers(), |app| async move { app.first_probe().await });
        let _unanswered = tokio::time::timeout(within, known).await;
    }

    /// As [`Handle::booted`](crate::release::Handle::booted), for all.
    pub async fn booted(&self) {
        each(self.drivers(), |app| async move { app.booted().await }).await;
    }

    /// Waits until everything that drives an app has shown that it runs. Cancel safe.
    pub async fn beat(&self) {
        each(self.drivers(), |app| async move { app.beat().await }).await;
    }

    /// Waits until it is worth looking at the phases again: for the next snapshot of the one app;
    /// for a moment where there are several. False if there will be none.
    pub async fn changed(&mut self) -> bool {
        if self.has_several() {
            tokio::time::sleep(LOOK).await;
            return self.lost.has_changed().is_ok();
        }
        if self.followed.is_none() {
            self.followed = self.drivers().pop();
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
        known.apps.values().map(App::phase).chain(redis).collect()
    }

    /// Requests in flight on all targets.
    pub fn inflight(&self) -> u64 {
        let redis = self.known.borrow().redis.as_ref().map_or(0, super::from_redis::Seen::inflight);
        redis + self.drivers().iter().map(Driver::in_flight).sum::<u64>()
    }

    /// As [`Handle::may_freeze`](crate::release::Handle::may_freeze), for all.
    ///
    /// # Errors
    /// The first refusal. `busy`: an app is being removed.
    pub async fn may_freeze(&self) -> Result<(), ErrorBody> {
        self.removes_none()?;
        self.all_agree(|app| async move { app.may_freeze().await }).await
    }

    /// As [`Handle::freeze`](crate::release::Handle::freeze), for all or none. From then on no app
    /// is added or removed. What has fallen stands still already: a successor goes on from its
    /// record.
    ///
    /// # Errors
    /// The first refusal. Nothing has changed then. With `interrupt` the daemon ends in any case,
    /// so what could be written down is.
    pub async fn freeze(&self, interrupt: bool) -> Result<(), ErrorBody> {
        self.tell(Order::StandStill).await;
        let frozen = match self.removes_none() {
            Err(refusal) if !interrupt => Err(refusal),
            Ok(()) | Err(_) => self.all_agree(move |app| async move { app.freeze(interrupt).await }).await,
        };
        if frozen.is_err() && !interrupt {
            self.thaw().await;
        }
        frozen
    }

    /// Lets all go on as if they had never stood still.
    pub async fn thaw(&self) {
        each(self.drivers(), |app| async move { app.thaw().await }).await;
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

    /// Ends what drives the apps and leaves all processes as they are. A `successor` gets the
    /// requests that nothing here answers.
    pub async fn leave(&self, successor: Option<SocketAddr>) {
        self.tell(Order::End).await;
        each(self.drivers(), |app| async move { app.leave(successor).await }).await;
    }

    /// Waits until a coordinator has ended that is not started again. Before the daemon's own end,
    /// none should.
    pub async fn lost(&self) {
        let mut lost = self.lost.clone();
        let _registry_ended = lost.wait_for(|lost| *lost).await;
    }

    /// Begins nothing new from now on; gives up what is under way and has not switched.
    pub async fn shut_down(&self) {
        self.tell(Order::ShutDown).await;
        each(self.drivers(), |app| async move { app.shut_down().await }).await;
    }

    /// Stops every process group by the ladder. Waits until nothing is left and the last records
    /// are written. Gives back how each process ended.
    pub async fn stop_all(&self) -> Vec<Ended> {
        let ended = each(self.drivers(), |app| async move { app.stop_all().await }).await;
        let mut ended: Vec<_> = ended.into_iter().flatten().flatten().collect();
        ended.sort_by(|one, other| {
            let order = |of: &Ended| (of.app.clone(), of.release.clone(), of.process.clone(), of.replica);
            order(one).cmp(&order(other))
        });
        ended
    }

    /// Sends SIGKILL to what [`Apps::stop_all`] is still stopping.
    pub async fn kill_all(&self) {
        each(self.drivers(), |app| async move { app.kill_all().await }).await;
    }

    /// Asks what drives each app that has not fallen. The first refusal, which says whose it is.
    async fn all_agree<F>(&self, ask: impl Fn(Driver) -> F) -> Result<(), ErrorBody>
    where
        F: Future<Output = Result<(), ErrorBody>> + Send + 'static,
    {
        let known = std::sync::Arc::clone(&self.known.borrow());
        let running = known.apps.values().filter(|app| !app.is_down());
        let running = running.filter_map(|app| Some((app.name().to_owned(), app.driver()?)));
        let asked = running.chain(known.leaving.iter().cloned()).collect();
        let answers = each(asked, |(name, app)| {
            let answer = ask(app);
            async move { (name, answer.await) }
        });
        for answer in answers.await {
            let (name, agreed) = answer?;
            agreed.map_err(|refusal| self.naming(&name, refusal))?;
        }
        Ok(())
    }

    /// The refusal of one of several apps, which says whose it is.
    fn naming(&self, app: &str, mut refusal: ErrorBody) -> ErrorBody {
        if self.has_several() && !refusal.message.contains(&format!("`{app}`")) {
            refusal.message = format!("app `{app}`: {}", refusal.message);
        }
        refusal
    }

    /// Refuses where an app is being removed, or answers as what it was: nobody could go on with
    /// that.
    fn removes_none(&self) -> Result<(), ErrorBody> {
        let known = self.known.borrow();
        // The app is there already as what it is now.
        let answers = |name: &str| known.apps.get(name).is_some_and(|app| app.driver().is_some());
        let is_stopped =
            |(name, driver): &&(String, Driver)| matches!(driver, Driver::Releases(_)) || answers(name);
        let Some((name, _)) = known.leaving.iter().find(is_stopped) else { return Ok(()) };
        let message = match answers(name) {
            true => format!("app `{name}` answers as what it was until it is healthy as what it is now"),
            false => format!("app `{name}` is being removed: what runs of it is being stopped"),
        };
        Err(ErrorBody::new(Code::Busy, "Busy", message).with_hint("try again in a moment"))
    }

    /// What drives the apps.
    fn drivers(&self) -> Vec<Driver> {
        let known = self.known.borrow();
        let leaving = known.leaving.iter().map(|(_, driver)| driver.clone());
        known.apps.values().filter_map(App::driver).chain(leaving).collect()
    }
}

/// Asks all at the same time, and waits for all answers. What is asked goes on no longer than the
/// future lives.
///
/// # Errors
/// In the place of an answer: whoever was to give it ended by a fault of portok.
async fn each<H, T, F>(apps: Vec<H>, ask: impl Fn(H) -> F) -> Vec<Result<T, ErrorBody>>
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
        answers.push(answer.map_err(|error| {
            ErrorBody::new(Code::Internal, "Internal error", format!("an app gave no answer: {error}"))
        }));
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_asked_and_panics_has_not_agreed() {
        let answers = each(vec![1, 2, 3], |app| async move {
            assert!(app != 2, "on purpose");
            app
        });
        let (agreed, others): (Vec<_>, Vec<_>) = answers.await.into_iter().partition(Result::is_ok);
        assert_eq!((agreed.len(), others.len()), (2, 1));
        let error = others.into_iter().next().unwrap().unwrap_err();
        assert!(error.code == Code::Internal && error.message.contains("on purpose"), "{error:?}");
    }
}
