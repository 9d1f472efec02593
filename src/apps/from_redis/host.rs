//! One host of Redis: where its requests go. Owned by the table of hosts, which may have very many
//! of them: what most of them never need is made when it is needed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::voice::Voice;
use crate::apps::hosted::Hosted;
use crate::apps::probes::{Probed, Probes, Verdict};
use crate::apps::targets::Addresses;
use crate::config::AppConfig;
use crate::proxy::{Destination, Ejections, RouteWriter, Target};
use crate::redis::{Frontend, Marker};

/// How long a marked target is out unless its mark ends before: a mark says itself when it ends.
const OUT: Duration = Duration::from_secs(24 * 60 * 60);

/// What all hosts have in common.
pub(super) struct Common<'a> {
    pub(super) config: &'a AppConfig,
    pub(super) marker: &'a Marker,
    pub(super) probes: Option<&'a Probes>,
    pub(super) voice: &'a mut Voice,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Host {
    /// The list in force.
    list: Arc<Frontend>,
    addresses: Addresses,
    /// `None`: all is well with all of its targets.
    troubled: Option<Box<Troubled>>,
}

/// Which targets are not well.
#[derive(Debug, Default, PartialEq, Eq)]
struct Troubled {
    /// The places of those that are marked.
    marked: Box<[usize]>,
    /// What the probes said of them.
    verdict: Verdict,
}

/// Marks the targets that the data plane puts out, for the other portoks at this Redis.
#[derive(Debug)]
struct Teller {
    marker: Marker,
    list: Arc<Frontend>,
    /// How long a mark of ours counts.
    time: Duration,
}

impl Ejections for Teller {
    fn ejected(&self, target: &Arc<Target>) {
        if let Some(place) = self.list.targets().iter().position(|addr| *addr == target.addr()) {
            self.marker.mark_dead(&self.list, place, self.time);
        }
    }
}

impl Host {
    /// Points nowhere until a list is [put](Self::put).
    pub(super) fn new(list: Arc<Frontend>, route: RouteWriter) -> Self {
        Self { list, addresses: Addresses::new(route), troubled: None }
    }

    /// The list in force.
    pub(super) fn list(&self) -> &Arc<Frontend> {
        &self.list
    }

    /// Where its requests go.
    pub(super) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Where a route to it leads.
    pub(super) fn destination(&self) -> Destination {
        Destination::pass(Arc::clone(self.addresses.service()))
    }

    /// Whether more of its targets fail their probes than may be out.
    pub(super) fn is_unhealthy(&self) -> bool {
        self.troubled.as_ref().is_some_and(|troubled| troubled.verdict.is_unhealthy)
    }

    /// It as others see it.
    pub(super) fn seen(&self, probed: Option<Probed>) -> Hosted {
        let counters = Arc::clone(self.addresses.service().counters());
        Hosted::new(Arc::clone(&self.list), self.addresses.targets().clone(), counters, probed)
    }

    /// Points requests at the targets of this list; the marks of a former one are void. Returns the
    /// targets that left.
    pub(super) fn put(&mut self, list: Arc<Frontend>, common: &mut Common<'_>) -> Vec<Arc<Target>> {
        if *self.list != *list {
            self.mark(&[], common.voice);
        }
        let former = self.failing();
        let verdict = match common.probes {
            Some(probes) => {
                probes.replace(list.hosts(), self.list.targets(), list.targets());
                probes.seen().verdict(list.targets())
            }
            None => Verdict::default(),
        };
        self.list = list;
        let told = || teller(&self.list, common);
        let left = self.addresses.put(self.list.targets(), &verdict.out, common.config, told);
        self.trouble(|troubled| troubled.verdict = verdict);
        if let Some(probes) = common.probes {
            self.tell(&former, probes.seen(), common.voice);
        }
        left
    }

    /// Takes those of its targets out that fail their probes, and the others back in.
    pub(super) fn judge(&mut self, probed: &Probed, common: &mut Common<'_>) {
        let (former, verdict) = (self.failing(), probed.verdict(self.list.targets()));
        let out = self.troubled.as_ref().map(|troubled| &*troubled.verdict.out).unwrap_or_default();
        if *verdict.out != *out {
            self.addresses.leave_out(&verdict.out, common.config, || teller(&self.list, common));
        }
        self.trouble(|troubled| troubled.verdict = verdict);
        self.tell(&former, probed, common.voice);
    }

    /// The targets that are out because their probes fail, and whether too many would be.
    fn failing(&self) -> (Vec<SocketAddr>, bool) {
        let Some(troubled) = &self.troubled else { return (Vec::new(), false) };
        let addr = |place: &usize| self.list.targets().get(*place).copied();
        (troubled.verdict.out.iter().filter_map(addr).collect(), troubled.verdict.is_unhealthy)
    }

    /// Says what the probes say now that they did not say before.
    fn tell(&self, (former, was_unhealthy): &(Vec<SocketAddr>, bool), probed: &Probed, voice: &mut Voice) {
        let (hosts, (out, is_unhealthy)) = (self.list.hosts(), self.failing());
        if is_unhealthy != *was_unhealthy {
            voice.unhealthy(hosts, is_unhealthy);
        }
        for target in out.iter().filter(|target| !former.contains(target)) {
            let why = probed.error(*target).unwrap_or_default();
            voice.out(hosts, *target, format_args!("its probes fail: {why}"));
        }
        let is_back = |target: &&SocketAddr| !out.contains(target) && self.list.targets().contains(target);
        for target in former.iter().filter(|_| !is_unhealthy).filter(is_back) {
            voice.back(hosts, *target, "its probe is good again");
        }
    }

    /// These are the places that are marked now.
    pub(super) fn mark(&mut self, marked: &[usize], voice: &mut Voice) {
        let former = self.troubled.as_ref().map(|troubled| troubled.marked.clone()).unwrap_or_default();
        if *former == *marked {
            return;
        }
        let hosts = self.list.hosts();
        for place in former.iter().filter(|place| !marked.contains(place)) {
            if let Some(target) = self.addresses.set_in(*place) {
                voice.back(hosts, target.addr(), "it is marked dead in Redis no more");
            }
        }
        for place in marked.iter().filter(|place| !former.contains(place)) {
            if let Some(target) = self.addresses.set_out(*place, OUT) {
                voice.out(hosts, target.addr(), "it is marked dead in Redis");
            }
        }
        self.trouble(|troubled| troubled.marked = marked.into());
    }

    fn trouble(&mut self, change: impl FnOnce(&mut Troubled)) {
        let mut troubled = self.troubled.take().unwrap_or_default();
        change(&mut troubled);
        self.troubled = (*troubled != Troubled::default()).then_some(troubled);
    }
}

/// Tells others of the targets of this list.
fn teller(list: &Arc<Frontend>, common: &Common<'_>) -> Arc<dyn Ejections> {
    let (marker, time) = (common.marker.clone(), common.config.upstream.eject_for);
    Arc::new(Teller { marker, list: Arc::clone(list), time })
}
