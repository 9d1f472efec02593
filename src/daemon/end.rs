//! The two ends of the daemon: with the apps, and without them.
//!
//! The ordering that matters: a daemon that stops writes the records after the last process is
//! gone. A daemon that leaves writes them before it waits for the first request. Either closes the
//! sockets before the coordinators end, so that it answers nobody once it knows nothing any more.

use std::io::IsTerminal as _;
use std::pin::pin;
use std::time::Duration;

use super::{Daemon, StartError, upkeep};
use crate::admin::ShutdownOrder;
use crate::apps::Apps;
use crate::config::AppConfig;
use crate::proxy::Until;
use crate::wire::exit;

/// An end that takes longer than this is explained at the terminal.
const SHORT_END: Duration = Duration::from_millis(300);

/// How long the answer to who asked for the end may take to go out.
const LAST_ANSWER: Duration = Duration::from_secs(5);

/// How often it is looked whether a request is in flight.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until the apps have no request. Cancel safe.
async fn none_in_flight(apps: &Apps) {
    while apps.inflight() > 0 {
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits for `work`. If it takes long, says at the terminal what it waits for, and how to end it.
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
fn what_drains(apps: &Apps, period: Duration) -> String {
    let what = match apps.inflight() {
        0 => "open connections".to_owned(),
        1 => "1 request in flight".to_owned(),
        number => format!("{number} requests in flight"),
    };
    format!("{what}, at most {} (drain.period)", humantime::format_duration(period))
}

impl Daemon {
    /// Ends, and stops the apps first. Answers `asker` with how each process ended. Gives back the
    /// exit status.
    pub(super) async fn end(mut self, asker: Option<ShutdownOrder>) -> u8 {
        self.listeners.last_call(&self.manager).await;
        self.begin_the_end();
        // A service manager starts a daemon again that was not asked to stay down.
        let stays_down = asker.is_some() && self.manager.listens();
        // Then its own connection ends last.
        let waits_at_listener = asker.as_ref().is_some_and(|asker| asker.over_tcp);
        let period = self.longest(|app| app.drain.period);
        let stop = humantime::format_duration(self.longest(|app| app.app.stop_timeout));
        let apps = self.apps.clone();
        // Beyond a second signal, so that what has ended before it is answered too.
        let mut stopped = pin!(apps.stop_all());
        let orderly = async {
            apps.shut_down().await;
            let drained = async {
                tokio::select! {
                    () = self.plane.drain(Until::Empty) => {}
                    () = none_in_flight(&apps), if waits_at_listener => {}
                }
            };
            let drained = tokio::time::timeout(period, drained);
            if told_if_long(|| what_drains(&apps, period), drained).await.is_err() {
                tracing::warn!("requests are still in flight after drain.period ({period:?})");
            }
            let what = || format!("the app to stop, at most {stop} (app.stop_timeout)");
            told_if_long(what, stopped.as_mut()).await
        };
        let hurried = self.signals.end();
        let ended = tokio::select! {
            ended = upkeep::extending(&self.manager, orderly) => Some(ended),
            () = hurried => None,
        };
        let ended = if let Some(ended) = ended {
            ended
        } else {
            tracing::warn!("second signal: killing the app's processes");
            apps.shut_down().await;
            apps.kill_all().await;
            stopped.await
        };
        if let Some(ShutdownOrder { reply, .. }) = asker
            && reply.send(Ok(ended)).is_ok()
            && waits_at_listener
        {
            // The answer goes out with the last connections.
            let _late = tokio::time::timeout(LAST_ANSWER, self.plane.drain(Until::Empty)).await;
        }
        self.finish("stopped").await;
        if stays_down { exit::SHUT_DOWN } else { exit::DONE }
    }

    /// Ends without stopping the apps: the next daemon takes over what runs.
    pub(super) async fn leave(mut self) -> Result<(), StartError> {
        self.listeners.last_call(&self.manager).await;
        self.begin_the_end();
        self.manager.status("leaving: finishing requests; the app goes on");
        if let Err(error) = self.apps.freeze(true).await {
            tracing::warn!("{}; the next daemon begins from the record before", error.message);
        }
        let period = self.longest(|app| app.drain.period);
        let apps = self.apps.clone();
        let orderly = async {
            // Tunnels cannot outlive this process, so nothing is gained by waiting for them alone.
            let drained = tokio::time::timeout(period, self.plane.drain(Until::OnlyTunnels));
            if told_if_long(|| what_drains(&apps, period), drained).await.is_err() {
                tracing::warn!("requests are still in flight after drain.period ({period:?}) and are cut");
            }
        };
        let hurried = self.signals.end();
        tokio::select! {
            () = upkeep::extending(&self.manager, orderly) => {}
            () = hurried => tracing::warn!("second signal: cutting the requests that are in flight"),
        }
        self.apps.leave(None).await;
        self.finish("left; the app goes on").await;
        Ok(())
    }

    /// The longest of a time that each app has.
    fn longest(&self, time: impl Fn(&AppConfig) -> Duration) -> Duration {
        let apps = self.apps.list();
        let of_all = || time(&self.configuration.current().app);
        apps.iter().map(|app| time(app.config())).max().unwrap_or_else(of_all)
    }

    /// Begins nothing new from here on.
    pub(super) fn begin_the_end(&mut self) {
        self.manager.stopping();
        self.admin.close();
        self.listeners.close();
    }

    /// Joins all that is left once the apps are stopped or left alone.
    pub(super) async fn finish(self, said: &'static str) {
        self.plane.shut_down().await;
        self.access.finish().await;
        self.admin.end().await;
        self.coordinators.ended().await;
        self.background.end().await;
        self.manager.flush().await;
        tracing::info!("{said}");
    }
}
