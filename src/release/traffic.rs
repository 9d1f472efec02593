//! An app's requests: which runs they go to, and how many each run still has. All use of the proxy
//! is here.
//!
//! Owned by the coordinator. A run has a target for each tenure, from the moment at which requests
//! are pointed at it; a target that was retired or closed never gets a new request. The members of
//! one set may come and go within a tenure.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::time::Duration;
use tokio_util::sync::CancellationToken;

use super::state::{FormerTarget, Load, Origin, ReleaseRef, RunId, SetId};
use crate::config::{Affinity, AppConfig, Balance, Mode, Sticky};
use crate::proxy::{Bar, Held, Now, Place, RouteWriter, ServiceCounters, Spread, Stayer, Target, Tenure};
use crate::wire;

/// How often an early end of a drain is looked for.
const EARLY_DRAIN_LOOK: Duration = Duration::from_millis(20);

/// How long it takes until whoever is to leave at once has left: in its last half the close frames
/// of WebSockets go out.
const GOODBYE: Duration = Duration::from_millis(500);

/// The coordinator's side of the data plane.
#[derive(Debug)]
pub struct Traffic {
    route: RouteWriter,
    counters: Arc<ServiceCounters>,
    alone: CancellationToken,
    targets: HashMap<RunId, Tenures>,
    serves: Option<Serving>,
}

/// The tenures of a run: the last one, and those before it that have not ended.
#[derive(Debug, Default)]
struct Tenures {
    targets: Vec<Arc<Target>>,
    /// The requests of those that have ended.
    ended: u64,
}

/// What requests go to.
#[derive(Debug)]
struct Serving {
    set: SetId,
    /// What the memberships of the set have in common.
    tenure: Tenure,
    members: Vec<(Arc<Target>, Place)>,
    /// Its runs are processes of portok's.
    is_managed: bool,
    way: Way,
}

/// How requests are spread, as it is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    balance: Balance,
    sticky: Sticky,
    affinity: Affinity,
    /// The release may have several replicas.
    of_several: bool,
}

impl Way {
    /// Of a set that may have `most`.
    fn of(config: &AppConfig, most: u16) -> Self {
        let (balance, sticky, affinity) = (config.balance, config.sticky, config.drain.affinity);
        Self { balance, sticky, affinity, of_several: most > 1 }
    }

    /// Whether a single member is published as one of several all the same: a pin is to a set, and
    /// a cookie names one of a set.
    fn spreads_over_one(self) -> bool {
        self.of_several && (self.affinity == Affinity::Connection || self.sticky == Sticky::Cookie)
    }
}

impl Serving {
    /// What is published of it.
    fn now(&self) -> Now {
        let Way { balance, sticky, .. } = self.way;
        match &self.members[..] {
            // The fast path.
            [(target, _)] if !self.way.spreads_over_one() => Now::One(Arc::clone(target)),
            members => {
                let targets = members.iter().map(|(target, _)| Arc::clone(target)).collect();
                let spread = Spread::new(targets, balance, self.tenure.clone());
                let spread = if self.is_managed { spread.watched() } else { spread };
                let places = || members.iter().map(|(_, place)| *place).collect();
                let spread = if sticky == Sticky::Off { spread } else { spread.placed(places()) };
                Now::Spread(Arc::new(spread))
            }
        }
    }
}

/// Runs of one set that requests are to go to.
#[derive(Debug)]
pub(super) struct Members<'a> {
    pub(super) set: SetId,
    pub(super) release: &'a ReleaseRef,
    pub(super) runs: Vec<Member>,
    /// How many the set may have.
    pub(super) most: u16,
}

impl Members<'_> {
    /// By what sticky clients of `app` know them: a process by its number, whichever run has that,
    /// and what somebody else starts by its address, whichever others there are.
    fn places(&self, app: &str) -> Box<[Place]> {
        match self.release.origin {
            Origin::Managed => self.runs.iter().map(|member| Place::new(member.replica)).collect(),
            Origin::Unmanaged { .. } => {
                Place::of_addresses(app, self.runs.iter().map(|member| at(member.port)))
            }
        }
    }
}

/// A run that requests are to go to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) run: RunId,
    pub(super) port: u16,
    /// Its number in the set.
    pub(super) replica: u16,
}

/// The requests that runs have; counted whenever it is asked.
#[derive(Debug, Clone, Default)]
pub(super) struct InFlight {
    targets: Vec<Arc<Target>>,
    /// The requests of earlier tenures.
    ended: u64,
    counters: Option<Arc<ServiceCounters>>,
}

impl Traffic {
    /// Points nowhere. `route` points requests at targets, `counters` counts their answers by
    /// release. `alone` is cancelled once no predecessor serves requests that it took before this
    /// daemon came: until then nobody here can tell whether a target is idle.
    pub fn new(route: RouteWriter, counters: Arc<ServiceCounters>, alone: CancellationToken) -> Self {
        Self { route, counters, alone, targets: HashMap::new(), serves: None }
    }

    /// Spreads new requests over `members`, and retires or closes the targets of the runs that had
    /// them. True where the set had none until now.
    pub(super) fn serve(
        &mut self,
        members: &Members<'_>,
        former: Option<(&[RunId], FormerTarget)>,
        config: &AppConfig,
    ) -> bool {
        let served = self.serves.take().filter(|serving| serving.set == members.set);
        let begins = served.is_none();
        let tenure = served.map(|serving| serving.tenure).unwrap_or_default();
        let is_managed = members.release.origin == Origin::Managed;
        let of = (members.release.id.as_str(), is_managed);
        let targets = members.runs.iter().map(|member| self.target(*member, of, begins));
        let all = targets.zip(members.places(&config.name)).collect();
        let way = Way::of(config, members.most);
        let serving = Serving { set: members.set, tenure, members: all, is_managed, way };
        drop(self.route.set(serving.now()));
        self.serves = Some(serving);
        if let Some((former, treatment)) = former {
            for target in former.iter().flat_map(|run| self.of(*run)) {
                match treatment {
                    FormerTarget::Retire => target.retire(),
                    FormerTarget::Close => target.close(),
                }
            }
        }
        begins
    }

    /// Spreads requests as it is configured now, over a set that may have `most` members.
    pub(super) fn configure(&mut self, config: &AppConfig, most: u16) {
        let way = Way::of(config, most);
        if let Some(serving) = self.serves.as_mut().filter(|serving| serving.way != way) {
            serving.way = way;
            drop(self.route.set(serving.now()));
        }
    }

    /// The target of a run of this release, which is managed or not: that of its tenure, or a new
    /// one where one `begins`.
    fn target(&mut self, member: Member, (release, is_managed): (&str, bool), begins: bool) -> Arc<Target> {
        let Member { run, port, replica } = member;
        let tenures = self.targets.entry(run).or_default();
        if let Some(target) = tenures.targets.last().filter(|_| !begins) {
            return Arc::clone(target);
        }
        let counters = self.counters.release(release);
        let target = match is_managed {
            true => Target::of_replica(at(port), replica, counters),
            false => Target::new(at(port), counters),
        };
        // A client that is pinned to an earlier tenure of this run moves to the new one.
        let Tenures { targets, ended } = tenures;
        targets.retain(|tenure| {
            // Its tunnels are those of a live run again.
            tenure.stay();
            tenure.close();
            let lives = tenure.inflight() > 0;
            *ended += if lives { 0 } else { tenure.requests() };
            lives
        });
        targets.push(Arc::clone(&target));
        target
    }

    /// Takes the live target away. Requests wait for the next one: within the bounds of `[hold]`
    /// where they are held `on_crash`, else a little.
    pub(super) fn hold(&mut self, on_crash: bool) {
        self.serves = None;
        drop(self.route.set(if on_crash { Now::Held(Held::Unpinned) } else { Now::Near }));
    }

    /// Whether nothing was ever pointed at: not by a coordinator before this one either.
    pub(super) fn is_empty(&self) -> bool {
        self.route.is_empty()
    }

    /// Puts what an operator has ordered in the way of requests, or takes it away.
    pub(super) fn bar(&mut self, bar: Option<Bar>) {
        self.route.bar(bar);
    }

    /// What becomes of requests.
    pub(super) fn now(&self) -> wire::Traffic {
        self.route.traffic()
    }

    /// Waits until a request begins to wait. Cancel safe.
    pub(super) async fn asked(&self) {
        self.route.asked().await;
    }

    /// The load of `runs`. Where connections are what clients bring, each counts for as long as it is
    /// there; else what has become a tunnel does not.
    pub(super) fn load(&self, runs: &[RunId], mode: Mode) -> Load {
        let mut load = Load { elsewhere: !self.alone.is_cancelled(), ..Load::default() };
        for run in runs {
            let targets = self.of(*run);
            let tunnels: u64 = targets.iter().map(|target| target.tunnels()).sum();
            let claims: u64 = targets.iter().map(|target| target.inflight()).sum();
            load.inflight += claims.saturating_sub(if mode == Mode::Tcp { 0 } else { tunnels });
            load.tunnels.extend((tunnels > 0).then_some(*run));
        }
        load
    }

    /// How many requests wait.
    pub(super) fn waiting(&self) -> usize {
        self.route.waiting()
    }

    /// Takes the live target away. Requests are refused.
    pub(super) fn unroute(&mut self) {
        self.serves = None;
        drop(self.route.set(Now::Empty));
    }

    /// Traffic has left `runs`: clients that are pinned to them may stay for `pinned`, tunnels and
    /// event streams for `stayers`; `None`: until somebody ends them.
    pub(super) fn part(&self, runs: &[RunId], pinned: Duration, stayers: Option<Duration>) {
        let targets = runs.iter().flat_map(|run| self.of(*run));
        targets.for_each(|target| target.part(pinned, stayers, &self.counters));
    }

    /// The tunnels and event streams of `run`.
    pub(super) fn stayers(&self, run: RunId) -> Vec<Stayer> {
        self.of(run).iter().flat_map(|target| target.stayers(&self.counters)).collect()
    }

    /// Lets another daemon answer requests, which accepts there.
    pub(super) fn pass_on(&mut self, successor: SocketAddr, release: &str) {
        self.serves = None;
        drop(self.route.set(Now::One(Target::new(successor, self.counters.release(release)))));
    }

    /// Lets `run` take no request any more.
    pub(super) fn close(&self, run: RunId) {
        self.of(run).iter().for_each(|target| target.close());
    }

    /// Lets `run` take no request any more, and has its tunnels and event streams leave at once.
    pub(super) fn cut(&self, run: RunId) {
        self.close(run);
        self.part(&[run], Duration::ZERO, Some(GOODBYE));
    }

    /// Whether `runs` have no request, and no client is pinned to one of them.
    pub(super) fn are_idle(&self, runs: &[RunId]) -> bool {
        let mut targets = runs.iter().flat_map(|run| self.of(*run));
        targets.all(|target| target.inflight() + target.pinned() == 0)
    }

    /// The requests that `runs` have.
    pub(super) fn in_flight(&self, runs: &[RunId]) -> InFlight {
        let known = runs.iter().filter_map(|run| self.targets.get(run));
        InFlight {
            targets: runs.iter().flat_map(|run| self.of(*run)).cloned().collect(),
            ended: known.map(|tenures| tenures.ended).sum(),
            counters: Some(Arc::clone(&self.counters)),
        }
    }

    /// Forgets the runs that `is_known` does not hold for.
    pub(super) fn retain(&mut self, is_known: impl Fn(RunId) -> bool) {
        self.targets.retain(|run, _| is_known(*run));
    }

    /// Waits until it is worth looking for a drain that can end early. Cancel safe.
    pub(super) async fn look_early(&self) {
        self.alone.cancelled().await;
        tokio::time::sleep(EARLY_DRAIN_LOOK).await;
    }

    fn of(&self, run: RunId) -> &[Arc<Target>] {
        self.targets.get(&run).map_or(&[], |tenures| tenures.targets.as_slice())
    }
}

/// Where a run listens.
fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

impl InFlight {
    /// How many there are now.
    pub(super) fn count(&self) -> u64 {
        self.targets.iter().map(|target| target.inflight()).sum()
    }

    /// Whether the target that has them is out for a while as one of several, because requests to
    /// it failed.
    pub(super) fn is_out(&self) -> bool {
        let out = |counters: &Arc<ServiceCounters>| self.targets.iter().any(|target| target.is_out(counters));
        self.counters.as_ref().is_some_and(out)
    }

    /// How many of them are tunnels.
    pub(super) fn tunnels(&self) -> u64 {
        self.targets.iter().map(|target| target.tunnels()).sum()
    }

    /// How many there were so far.
    pub(super) fn requests(&self) -> u64 {
        self.targets.iter().map(|target| target.requests()).sum::<u64>() + self.ended
    }
}
