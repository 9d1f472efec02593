//! The task that probes a run which no process is started for: an unmanaged app, or a run that is
//! to be made live again.
//!
//! It owns no state. It ends with [`Message::ProbeEnded`], or when the coordinator cancels it.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Duration, Instant};

use super::message::Message;
use super::state::RunId;
use crate::config::AppConfig;
use crate::health::Probe;

/// Between two probes of an app that does not answer yet.
const PAUSE: Duration = Duration::from_millis(100);

/// What such a task needs to know.
#[derive(Debug)]
pub(super) struct Probing {
    pub(super) run: RunId,
    pub(super) probe: Probe,
    /// Probe until it is healthy, with the configuration of the moment: a wrong path may be mended
    /// meanwhile.
    pub(super) patient: bool,
    pub(super) config: watch::Receiver<Arc<AppConfig>>,
    /// Set with the first probe, whatever it says.
    pub(super) first_probe: watch::Sender<bool>,
}

impl Probing {
    /// Probes until the run is healthy, or is not; a patient one until it is.
    pub(super) async fn run(self) -> Message {
        let Self { run, probe: first, patient, config, first_probe } = self;
        let mut healthy = 0;
        let began = Instant::now();
        let report = loop {
            let config = config.borrow().clone();
            let probe = if patient { Probe::of(&config, first.addr, None) } else { first.clone() };
            let report = match probe.ask().await {
                Ok(report) => report,
                // portok itself cannot probe now, which says nothing of the app. Where an operator
                // waits for the answer, that is not tried for ever.
                Err(_) if patient || began.elapsed() < config.health.timeout => {
                    first_probe.send_replace(true);
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(unable) => break unable.report(),
            };
            healthy = if report.healthy { healthy + 1 } else { 0 };
            first_probe.send_replace(true);
            if healthy >= config.health.successes || !(patient || report.healthy) {
                break report;
            }
            if !report.healthy {
                tokio::time::sleep(PAUSE).await;
            }
        };
        Message::ProbeEnded(run, Box::new(report))
    }
}
