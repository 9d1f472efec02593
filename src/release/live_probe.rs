//! The probes of the live release: when the next one is due, and what they say of its health.
//!
//! Owned by the coordinator, which has at most one probe of a run under way and judges the release
//! by it. Of several runs one after the other has its turn.

use tokio::time::{Duration, Instant};

use super::clock::now;
use super::state::RunId;
use crate::health::Unable;
use crate::wire::{HealthMetrics, ProbeReport};

/// The state of the probing.
#[derive(Debug, Default)]
pub(super) struct LiveProbe {
    next: Option<Instant>,
    /// The run that was probed last.
    last: Option<RunId>,
    under_way: Vec<RunId>,
    health: HealthMetrics,
    /// It was logged that portok itself cannot probe for now.
    unable_logged: bool,
}

/// What a probe says of the live release.
#[derive(Debug)]
pub(super) struct Judged {
    /// Whether the answer was 2xx.
    pub(super) healthy: bool,
    /// What is wrong, where it was not.
    pub(super) symptom: Option<String>,
}

impl LiveProbe {
    /// What the last probe said.
    pub(super) fn health(&self) -> &HealthMetrics {
        &self.health
    }

    /// When the next probe is due; `None` while nothing is to be probed, or a probe is under way.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Requests are pointed at a run that has failed `fails` probes in a row. One that was taken
    /// over may have failed for long.
    pub(super) fn routed(&mut self, fails: u32) {
        self.health = HealthMetrics {
            active_port_ok: fails == 0,
            last_checked_at: Some(now()),
            consecutive_fails: fails,
        };
    }

    /// Nothing serves any more.
    pub(super) fn unrouted(&mut self) {
        self.health.active_port_ok = false;
    }

    /// Others serve than before, so many or none: the first probe is due after `interval`, of
    /// several so much sooner.
    pub(super) fn begin_anew(&mut self, serve: usize, interval: Duration) {
        self.under_way.clear();
        self.next = (serve > 0).then(|| Instant::now() + turn(interval, serve));
    }

    /// The next probe is due after `interval` from now on at the latest.
    pub(super) fn hasten(&mut self, interval: Duration) {
        self.next = self.next.map(|next| next.min(Instant::now() + interval));
    }

    /// A probe is due. Gives back the run to probe now: the next one of the live ones in turn whose
    /// probe is not under way. Of several each is probed every `interval`.
    pub(super) fn due(&mut self, live: &[RunId], interval: Duration) -> Option<RunId> {
        self.next = (live.len() > 1).then(|| Instant::now() + turn(interval, live.len()));
        let first = live.iter().position(|run| Some(*run) == self.last).map_or(0, |at| at + 1);
        let (before, after) = live.split_at(first);
        let run = after.iter().chain(before).find(|run| !self.under_way.contains(run)).copied()?;
        self.last = Some(run);
        Some(run)
    }

    /// The probe of `run` has begun.
    pub(super) fn began(&mut self, run: RunId) {
        self.under_way.push(run);
    }

    /// A probe of `run` has ended; the next one is due after `interval`, where none is due before.
    /// False where it is not waited for.
    pub(super) fn ended(&mut self, run: RunId, interval: Duration) -> bool {
        let Some(at) = self.under_way.iter().position(|known| *known == run) else { return false };
        self.under_way.swap_remove(at);
        self.next.get_or_insert_with(|| Instant::now() + interval);
        true
    }

    /// Judges the live release by a probe's report, after `failed` failures in a row. `None` where
    /// portok itself could not probe: that says nothing of the app.
    pub(super) fn judge(
        &mut self,
        report: Result<Box<ProbeReport>, Unable>,
        failed: u32,
        threshold: u32,
    ) -> Option<Judged> {
        let report = match report {
            Ok(report) => report,
            Err(unable) => {
                if !std::mem::replace(&mut self.unable_logged, true) {
                    tracing::warn!("the live release is not watched for now: {unable}");
                }
                return None;
            }
        };
        self.unable_logged = false;
        let fails = if report.healthy { 0 } else { failed.saturating_add(1) };
        self.health = HealthMetrics {
            active_port_ok: report.healthy,
            last_checked_at: Some(now()),
            consecutive_fails: fails,
        };
        if report.healthy {
            return Some(Judged { healthy: true, symptom: None });
        }
        let said = report.said().unwrap_or_else(|| "no answer".into());
        // Each failure is logged while it can bring a rollback, later ones ever more rarely.
        if fails <= threshold || fails.is_power_of_two() {
            tracing::warn!(fails, "the live release fails its probe: {said}");
        }
        let symptom = Some(format!("{fails} failed probes in a row, the last: {said}"));
        Some(Judged { healthy: false, symptom })
    }
}

/// Between two probes of so many runs, each of which is probed every `interval`.
fn turn(interval: Duration, runs: usize) -> Duration {
    interval / u32::try_from(runs).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn report(healthy: bool) -> Result<Box<ProbeReport>, Unable> {
        Ok(Box::new(ProbeReport { healthy, status: Some(500), ..ProbeReport::default() }))
    }

    #[test]
    fn one_run_is_probed_once_at_a_time() {
        let (first, second) = (RunId(1), RunId(2));
        let mut probe = LiveProbe::default();
        probe.begin_anew(1, SECOND);
        assert!(probe.next().is_some());
        assert_eq!(probe.due(&[first], SECOND), Some(first));
        probe.began(first);
        assert_eq!((probe.next(), probe.due(&[first], SECOND)), (None, None));
        probe.begin_anew(1, SECOND);
        let due = probe.due(&[second], SECOND);
        assert_eq!(due, Some(second), "a switch does not wait for the former's answer");
        probe.began(second);
        assert!(!probe.ended(first, SECOND), "nobody waits for it any more");
        assert!(probe.ended(second, SECOND) && probe.next().is_some());
        probe.begin_anew(0, SECOND);
        assert_eq!((probe.next(), probe.due(&[], SECOND)), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn several_runs_have_their_turns_and_one_that_hangs_keeps_nobody_back() {
        let runs = [RunId(1), RunId(2), RunId(3)];
        let mut probe = LiveProbe::default();
        probe.begin_anew(3, 3 * SECOND);
        assert_eq!(probe.next(), Some(Instant::now() + SECOND));
        let mut asked = Vec::new();
        for _ in 0..5 {
            let run = probe.due(&runs, 3 * SECOND).unwrap();
            assert_eq!(probe.next(), Some(Instant::now() + SECOND));
            probe.began(run);
            asked.push(run.0);
            if run != RunId(2) {
                assert!(probe.ended(run, 3 * SECOND));
            }
        }
        assert_eq!(asked, [1, 2, 3, 1, 3]);
        assert_eq!(probe.due(&[RunId(3)], SECOND), Some(RunId(3)), "the others left");
    }

    #[test]
    fn failures_are_counted_on_and_end_with_the_first_good_answer() {
        let mut probe = LiveProbe::default();
        probe.routed(4);
        assert!(!probe.health().active_port_ok);
        let judged = probe.judge(report(false), 4, 3).unwrap();
        assert!(!judged.healthy && judged.symptom.unwrap().starts_with("5 failed probes in a row"));
        assert_eq!(probe.health().consecutive_fails, 5);
        assert!(probe.judge(report(true), 5, 3).unwrap().healthy);
        assert_eq!((probe.health().active_port_ok, probe.health().consecutive_fails), (true, 0));
        probe.unrouted();
        assert!(!probe.health().active_port_ok);
    }
}
