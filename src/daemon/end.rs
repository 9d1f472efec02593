//! The two ends of the daemon: with the app, and without it.
//!
//! The ordering that matters: the record is written before the first request is waited for when the daemon leaves, and after
//! the last process is gone when it stops; the sockets are closed before the coordinator ends, so that nobody is answered by
//! a daemon that knows nothing any more.

use std::io::IsTerminal as _;
use std::pin::pin;
use std::time::Duration;

use super::{Daemon, StartError, upkeep};
use crate::proxy::Until;
use crate::release;

/// How long admin requests may still be answered when everything else has ended.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// An end that takes longer than this is explained to whoever waits for it.
const SHORT_END: Duration = Duration::from_millis(300);

/// Waits for `work`; where it takes long, a terminal is told for what and how to end it.
async fn told_if_long<T>(what: impl FnOnce() -> String, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = tokio::time::sleep(SHORT_END) => {}
    }
    if std::io::stderr().is_terminal() {
        tracing::info!("waiting for {}; Ctrl-C once more ends it now", what());
    }
    work.await
}

/// What is in flight, for people.
fn what_drains(app: &release::Handle, period: Duration) -> String {
    let status = app.status();
    let targets = [status.live, status.candidate, status.previous];
    let number: u64 = targets.iter().flatten().map(|target| target.inflight).sum();
    let what = match number {
        0 => "open connections".to_owned(),
        1 => "1 request in flight".to_owned(),
        number => format!("{number} requests in flight"),
    };
    format!("{what}, at most {} (drain.period)", humantime::format_duration(period))
}

impl Daemon {
    /// Ends with the app.
    pub(super) async fn end(mut self) -> Result<(), StartError> {
        self.begin_the_end();
        let period = self.config.borrow().drain.period;
        let stop = humantime::format_duration(self.config.borrow().app.stop_timeout);
        let app = self.app.clone();
        let orderly = async {
            app.shut_down().await;
            let drained = tokio::time::timeout(period, self.plane.drain(Until::Empty));
            if told_if_long(|| what_drains(&app, period), drained).await.is_err() {
                tracing::warn!("requests are still in flight after drain.period ({period:?})");
            }
            let what = || format!("the app to stop, at most {stop} (app.stop_timeout)");
            told_if_long(what, app.stop_all()).await;
        };
        let hurried = self.signals.end();
        let in_order = tokio::select! {
            () = upkeep::extending(&self.manager, orderly) => true,
            () = hurried => false,
        };
        if !in_order {
            tracing::warn!("second signal: killing the app's processes");
            app.shut_down().await;
            app.kill_all().await;
            app.stop_all().await;
        }
        self.finish("stopped").await;
        Ok(())
    }

    /// Ends without the app: the next daemon takes over what runs.
    pub(super) async fn leave(mut self) -> Result<(), StartError> {
        self.begin_the_end();
        self.manager.status("leaving: finishing requests; the app goes on");
        if let Err(error) = self.app.freeze(true).await {
            tracing::warn!("{}; the next daemon begins from the record before", error.message);
        }
        let period = self.config.borrow().drain.period;
        let app = self.app.clone();
        let orderly = async {
            // Tunnels cannot outlive this process, whenever it ends: nothing is gained by waiting for them alone.
            let drained = tokio::time::timeout(period, self.plane.drain(Until::OnlyTunnels));
            if told_if_long(|| what_drains(&app, period), drained).await.is_err() {
                tracing::warn!("requests are still in flight after drain.period ({period:?}) and are cut");
            }
        };
        let hurried = self.signals.end();
        tokio::select! {
            () = upkeep::extending(&self.manager, orderly) => {}
            () = hurried => tracing::warn!("second signal: cutting the requests that are in flight"),
        }
        self.app.leave().await;
        self.finish("left; the app goes on").await;
        Ok(())
    }

    /// Nothing new from here on.
    pub(super) fn begin_the_end(&mut self) {
        self.manager.stopping();
        // Whoever asked for a reload, or asks now, is told at once that there is none any more.
        self.reloads.close();
        while self.reloads.try_recv().is_ok() {}
        self.upgrades.close();
        while self.upgrades.try_recv().is_ok() {}
        // Its queue would go on taking connections.
        self.public = None;
    }

    /// Joins all that is left once the app is stopped or left alone.
    pub(super) async fn finish(mut self, said: &'static str) {
        self.plane.shut_down().await;
        if let Some(socket) = self.socket {
            socket.end().await;
        }
        if tokio::time::timeout(LAST_ANSWERS, self.admin.finish()).await.is_err() {
            tracing::warn!("an admin request was still being answered after {LAST_ANSWERS:?}");
        }
        let _panicked = self.coordinator.await;
        self.over.cancel();
        while self.background.join_next().await.is_some() {}
        self.manager.flush().await;
        tracing::info!("{said}");
    }
}
