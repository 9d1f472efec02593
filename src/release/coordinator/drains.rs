//! Who is still with what traffic has left, and when that ends.

use tokio::time::Duration;

use super::Coordinator;
use crate::proxy::StayerKind;
use crate::release::state::{Origin, RunId, Timer};
use crate::wire::{self, Code, DrainRequest, ErrorBody};

/// How long a drain still takes that is to end now: WebSockets get their close frame in the last
/// half of it.
const NOW: Duration = Duration::from_secs(1);

impl Coordinator {
    /// Carries out what is asked, and says who is there then.
    pub(super) fn drains(&mut self, asked: DrainRequest) -> Result<wire::Drain, ErrorBody> {
        match asked {
            DrainRequest::Look => {}
            DrainRequest::Extend(by) => self.move_drains(asked, |left| left.saturating_add(by))?,
            DrainRequest::Now => self.move_drains(asked, |left| left.min(NOW))?,
        }
        Ok(self.who_drains())
    }

    /// Has each drain end in a time that `ends_in` makes of what is left of it.
    fn move_drains(
        &mut self,
        asked: DrainRequest,
        ends_in: impl Fn(Duration) -> Duration,
    ) -> Result<(), ErrorBody> {
        let drains: Vec<_> = self.state.drains_under_way().collect();
        let config = self.config.borrow().clone();
        if drains.is_empty() {
            let message = format!("nothing of app `{}` drains", config.name);
            return Err(ErrorBody::new(Code::NotFound, "Not found", message));
        }
        for (set, seq, runs) in drains {
            let timer = Timer::Drain(set, seq);
            let Some(left) = self.timers.left(timer) else { continue };
            let time = ends_in(left);
            let had_a_time = config.drain.tunnels_of(self.are_managed(&runs)).is_some();
            let stayers = (had_a_time || asked == DrainRequest::Now).then_some(time);
            self.timers.restart(timer, time);
            self.traffic.part(&runs, time, stayers);
        }
        tracing::info!(app = config.name, ?asked, "the end of the drain was changed");
        self.save_again();
        self.publish();
        Ok(())
    }

    /// Whether portok has started these runs, which are of one set.
    pub(super) fn are_managed(&self, runs: &[RunId]) -> bool {
        let first = runs.first().and_then(|run| self.run_of(*run));
        first.is_some_and(|run| run.release.origin == Origin::Managed)
    }

    fn who_drains(&self) -> wire::Drain {
        let drains: Vec<_> = self.state.drains_under_way().collect();
        let until = drains.iter().filter_map(|(set, seq, _)| self.timers.drain_ends(*set, *seq)).max();
        let runs: Vec<_> = drains.into_iter().flat_map(|(_, _, runs)| runs).collect();
        let mut tunnels: Vec<_> = runs.iter().flat_map(|run| self.rows_of(*run)).collect();
        tunnels.sort_by_key(|row| std::cmp::Reverse(row.age));
        wire::Drain {
            until: until.map(wire::rfc3339),
            inflight: self.traffic.in_flight(&runs).count(),
            tunnels,
        }
    }

    fn rows_of(&self, run: RunId) -> Vec<wire::DrainRow> {
        let Some(known) = self.run_of(run) else { return Vec::new() };
        let row = |stayer: crate::proxy::Stayer| wire::DrainRow {
            peer: stayer.peer.to_string(),
            path: stayer.path,
            age: stayer.age.as_secs(),
            bytes: stayer.bytes,
            kind: match stayer.kind {
                StayerKind::WebSocket => "websocket",
                StayerKind::Tunnel => "tunnel",
                StayerKind::EventStream => "event_stream",
            }
            .to_owned(),
            release: known.release.id.clone(),
            port: known.port,
        };
        self.traffic.stayers(run).into_iter().map(row).collect()
    }
}
