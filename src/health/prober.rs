//! The probes of all targets of a daemon: how many are under way at a time, and what is logged when
//! portok itself cannot make them.
//!
//! There may be very many targets, and some never answer. A probe has a [`Place`] as long as it is
//! under way; where none is free it waits for its turn, first come, first served. So the probes of
//! all apps together leave descriptors to requests and to the admin API.
//!
//! State: the places, and the shortage that was logged. All clones share both.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Probe, Unable};
use crate::want;
use crate::wire::ProbeReport;

/// A shortage is over when no probe has failed by it for so long.
const QUIET: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug, Clone)]
pub struct Prober {
    places: Arc<Semaphore>,
    shortage: Arc<Mutex<Shortage>>,
}

/// Lets one probe be under way; free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Prober {
    /// With as many places as this process has descriptors for.
    pub fn of_this_process() -> Self {
        Self::with_places(want::probes())
    }

    /// With so many places.
    pub fn with_places(places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), shortage: Arc::default() }
    }

    /// Probes once, in its turn.
    ///
    /// # Errors
    /// portok itself could not make the probe.
    pub async fn ask(&self, probe: &Probe) -> Result<ProbeReport, Unable> {
        let place = self.turn().await;
        self.ask_in(place, probe).await
    }

    /// Probes once, in this place.
    pub(super) async fn ask_in(&self, _place: Place, probe: &Probe) -> Result<ProbeReport, Unable> {
        let outcome = probe.ask().await;
        self.note(probe.addr, &outcome);
        outcome
    }

    /// A place that is free now, where nobody waits for one.
    pub(super) fn free_place(&self) -> Option<Place> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        Some(Place { _permit: permit })
    }

    /// Waits for a place. Each becomes free by the timeout of the probe that has it.
    pub(super) fn turn(&self) -> impl Future<Output = Place> + Send + use<> {
        let places = Arc::clone(&self.places);
        async move {
            match places.acquire_owned().await {
                Ok(permit) => Place { _permit: permit },
                // Nobody closes it.
                Err(_closed) => std::future::pending().await,
            }
        }
    }

    /// Logs the beginning and the end of a shortage.
    fn note(&self, addr: SocketAddr, outcome: &Result<ProbeReport, Unable>) {
        // Plain values, whole at every moment.
        let mut shortage = self.shortage.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(_) => {
                if let Some(probes) = shortage.made(Instant::now()) {
                    tracing::info!("targets can be probed again; {probes} probes could not be made");
                }
            }
            Err(unable) => {
                if shortage.failed(Instant::now()) {
                    tracing::warn!(%addr, "{unable}; further targets are counted until that is over");
                }
            }
        }
    }
}

/// What portok itself lacks for probes: from the first one that fails by it until it is
/// [over](QUIET). In between probes may fail and be made in turn.
#[derive(Debug, Default)]
struct Shortage(Option<Failed>);

#[derive(Debug)]
struct Failed {
    last: Instant,
    probes: u64,
}

impl Shortage {
    /// A probe could not be made. Whether it is the first one.
    fn failed(&mut self, now: Instant) -> bool {
        let probes = self.0.as_ref().map_or(0, |failed| failed.probes);
        self.0 = Some(Failed { last: now, probes: probes.saturating_add(1) });
        probes == 0
    }

    /// A probe was made. How many could not be, where that is over.
    fn made(&mut self, now: Instant) -> Option<u64> {
        let over = self.0.take_if(|failed| now.saturating_duration_since(failed.last) >= QUIET)?;
        Some(over.probes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortage_begins_once_and_ends_once_whatever_succeeds_meanwhile() {
        let (mut shortage, begun) = (Shortage::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(shortage.made(at(0)), None);
        assert!(shortage.failed(at(1)));
        assert_eq!(shortage.made(at(2)), None, "it may be one of few");
        assert!(!shortage.failed(at(20)));
        assert_eq!(
            (shortage.made(at(49)), shortage.made(at(50)), shortage.made(at(90))),
            (None, Some(2), None)
        );
        assert!(shortage.failed(at(91)));
    }
}
