//! What the service manager is told as long as the daemon lives: the status line, that the daemon
//! is alive, and that something takes longer. The daemon's background tasks, which it ends.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

use super::background::Background;
use crate::apps::Apps;
use crate::proxy::{Plane, Pulse};
use crate::systemd::{self, Manager};

/// How much more time is asked for at once.
const EXTENSION: Duration = Duration::from_secs(30);

/// How often it is asked for.
const EXTEND_EVERY: Duration = Duration::from_secs(10);

/// Starts what the service manager wants to hear.
pub(super) fn start(background: &mut Background, manager: &Manager, plane: &Plane, apps: &Apps) {
    if manager.listens() {
        background.until_silent(follow_status(manager.clone(), apps.clone()));
    }
    if let Some(every) = systemd::watchdog() {
        background.until_silent(prove_alive(manager.clone(), every, plane.pulse(), apps.clone()));
    }
}

/// Tells the service manager how the apps are, whenever that changes.
async fn follow_status(manager: Manager, mut apps: Apps) {
    let mut said = String::new();
    loop {
        let line = status_line(&apps);
        if line != said {
            manager.status(&line);
            said = line;
        }
        if !apps.changed().await {
            return;
        }
    }
}

/// How the app is, or how the apps are.
fn status_line(apps: &Apps) -> String {
    match apps.find(None) {
        Ok(app) if !apps.has_several() => systemd::status_line(&app.status()),
        _ => systemd::status_line_of(&apps.phases()),
    }
}

/// Tells the service manager `every` so often that the daemon is alive, as long as every data-plane
/// thread and every coordinator has answered since the last time.
async fn prove_alive(manager: Manager, every: Duration, pulse: Pulse, apps: Apps) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = false;
    loop {
        ticks.tick().await;
        let both = async { tokio::join!(pulse.beat(), apps.beat()) };
        if timeout(every, both).await.is_ok() {
            manager.alive();
            said = false;
        } else if !std::mem::replace(&mut said, true) {
            tracing::error!(
                "a thread of the daemon has not answered within {every:?}: the service manager is not told that it is alive"
            );
        }
    }
}

/// Asks for more time again and again while `work` goes on, which has deadlines of its own.
pub(super) async fn extending<T>(manager: &Manager, work: impl Future<Output = T>) -> T {
    let ask = async {
        let mut ticks = interval(EXTEND_EVERY);
        loop {
            ticks.tick().await;
            manager.extend(EXTENSION);
        }
    };
    tokio::select! {
        biased;
        done = work => done,
        never = ask => never,
    }
}
