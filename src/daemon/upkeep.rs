//! What goes on beside the daemon's work as long as it lives: the status line, the watchdog, and more time where the end
//! takes long. Tasks of the daemon's; they end when they are told to.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::proxy::Pulse;
use crate::release;
use crate::systemd::{self, Manager};

/// How much longer what is under way may take, each time it is asked for.
const EXTENSION: Duration = Duration::from_secs(30);

/// How often it is asked for.
const EXTEND_EVERY: Duration = Duration::from_secs(10);

/// Tells the service manager how the app is, whenever that changes.
pub(super) async fn follow_status(manager: Manager, mut app: release::Handle) {
    let mut said = String::new();
    loop {
        let line = systemd::status_line(&app.status());
        if line != said {
            manager.status(&line);
            said = line;
        }
        if !app.changed().await {
            return;
        }
    }
}

/// Tells the service manager `every` so often that the daemon is alive, as long as every data-plane thread and the
/// coordinator have answered since the last time.
pub(super) async fn prove_alive(manager: Manager, every: Duration, pulse: Pulse, app: release::Handle) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = false;
    loop {
        ticks.tick().await;
        let both = async { tokio::join!(pulse.beat(), app.beat()) };
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

/// Asks for more time again and again while `work` goes on: it has deadlines of its own.
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
