//! Which targets of an unmanaged app serve: the decisions, without clock, I/O or a proxy.
//!
//! State: the members, in the order of the list that is in force, and those that leave. A member
//! **joins** once it is healthy (at once, where it is not probed). It **fails** after so many bad
//! probes in a row, and is out while at most half of the members, rounded down, fail; when more do,
//! all of them serve. One good probe brings it back. A member that is listed no more **leaves**
//! once another one serves, and is over when its drain is.
//!
//! Whoever drives it publishes what [`Set::serving`] says after each call, and only then looks at
//! [`Set::leaves`].

use std::net::SocketAddr;
use std::time::Duration;

/// Names a member for as long as the set lives. An address that is listed anew is another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(u64);

/// The members of one app; see the module.
#[derive(Debug, Default)]
pub(super) struct Set {
    members: Vec<Member>,
    last_id: u64,
}

/// One address for as long as it is listed, and its drain.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: Id,
    pub(super) addr: SocketAddr,
    /// Whether its health is looked at.
    pub(super) probed: bool,
    pub(super) last_error: Option<String>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It has not been healthy yet; with its good probes in a row, and whether it was probed at
    /// all.
    Joining { good: u32, asked: bool },
    /// It serves, unless it fails; with its bad probes in a row.
    Joined { bad: u32 },
    /// As [`Stage::Joined`]; it is listed no more, but nothing else serves yet.
    Going { bad: u32 },
    /// It gets no new request, and is over then.
    Leaving { until: Duration },
}

/// How a member is, as it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Joining,
    Serving,
    /// Its probes fail.
    Out,
    Leaving,
}

/// How the set is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// Nothing is listed, and nothing serves.
    Empty,
    /// Nothing serves yet.
    Starting,
    /// More than half of the members fail their probes.
    Unhealthy,
    Good,
}

/// What the configuration says about probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    /// Good probes in a row with which a member joins.
    pub(super) successes: u32,
    /// Bad probes in a row with which it fails.
    pub(super) failures: u32,
    /// How long a member drains that leaves.
    pub(super) drain: Duration,
}

impl Set {
    /// Another list is in force: members that are not on it leave, new ones join, others stay.
    pub(super) fn list(&mut self, addrs: &[SocketAddr], is_probed: impl Fn(SocketAddr) -> bool) {
        let mut former = std::mem::take(&mut self.members);
        for &addr in addrs {
            let is_it =
                |member: &Member| member.addr == addr && !matches!(member.stage, Stage::Leaving { .. });
            let mut member = match former.iter().position(is_it) {
                Some(at) => former.remove(at),
                None => self.member(addr, Stage::Joining { good: 0, asked: false }),
            };
            if let Stage::Going { bad } = member.stage {
                member.stage = Stage::Joined { bad };
            }
            member.look_at(is_probed(addr));
            self.members.push(member);
        }
        // One that never served has nothing to drain.
        former.retain(|member| !matches!(member.stage, Stage::Joining { .. }));
        for member in &mut former {
            if let Stage::Joined { bad } = member.stage {
                member.stage = Stage::Going { bad };
            }
        }
        self.members.extend(former);
    }

    /// Other members, which are healthy, take the place of all: traffic is switched.
    pub(super) fn switch(&mut self, addrs: &[SocketAddr], is_probed: impl Fn(SocketAddr) -> bool) {
        self.list(&[], &is_probed);
        let mut members: Vec<_> =
            addrs.iter().map(|&addr| self.member(addr, Stage::Joined { bad: 0 })).collect();
        members.iter_mut().for_each(|member| member.probed = is_probed(member.addr));
        members.append(&mut self.members);
        self.members = members;
    }

    fn member(&mut self, addr: SocketAddr, stage: Stage) -> Member {
        self.last_id += 1;
        Member { id: Id(self.last_id), addr, probed: true, last_error: None, stage }
    }

    /// A probe of a member had this outcome: why it was bad, or nothing.
    pub(super) fn probed(&mut self, id: Id, error: Option<String>, rules: Rules) {
        let Some(member) = self.members.iter_mut().find(|member| member.id == id && member.probed) else {
            return;
        };
        let healthy = error.is_none();
        member.stage = match member.stage {
            Stage::Joining { good, .. } if healthy && good + 1 >= rules.successes => Stage::Joined { bad: 0 },
            Stage::Joining { good, .. } if healthy => Stage::Joining { good: good + 1, asked: true },
            Stage::Joining { .. } => Stage::Joining { good: 0, asked: true },
            Stage::Joined { .. } if healthy => Stage::Joined { bad: 0 },
            Stage::Joined { bad } => Stage::Joined { bad: bad.saturating_add(1) },
            Stage::Going { .. } if healthy => Stage::Going { bad: 0 },
            Stage::Going { bad } => Stage::Going { bad: bad.saturating_add(1) },
            leaving @ Stage::Leaving { .. } => leaving,
        };
        member.last_error = error;
    }

    /// Which members requests go to.
    pub(super) fn serving(&self, rules: Rules) -> impl Iterator<Item = &Member> {
        let all = !self.has_enough(rules);
        // What goes serves until something else does.
        let listed = self.members.iter().any(|member| matches!(member.stage, Stage::Joined { .. }));
        self.members.iter().filter(move |member| match member.stage {
            Stage::Joined { bad } => all || bad < rules.failures,
            Stage::Going { .. } => !listed,
            Stage::Joining { .. } | Stage::Leaving { .. } => false,
        })
    }

    /// The first member of the list that was ever healthy, whether or not it is now; until there is
    /// one, the first that serves.
    pub(super) fn active(&self, rules: Rules) -> Option<&Member> {
        let joined = self.members.iter().find(|member| matches!(member.stage, Stage::Joined { .. }));
        joined.or_else(|| self.serving(rules).next())
    }

    /// Whether those that fail are few enough to be out.
    fn has_enough(&self, rules: Rules) -> bool {
        let joined = self.members.iter().filter_map(|member| match member.stage {
            Stage::Joined { bad } => Some(bad >= rules.failures),
            _ => None,
        });
        let (count, failing) =
            joined.fold((0, 0), |(count, failing), fails| (count + 1, failing + usize::from(fails)));
        may_be_out(failing, count)
    }

    /// Who leaves now, because another one serves or nothing is listed.
    pub(super) fn leaves(&mut self, now: Duration, rules: Rules) -> Vec<Id> {
        let is_joined = |member: &Member| matches!(member.stage, Stage::Joined { .. });
        let is_joining = |member: &Member| matches!(member.stage, Stage::Joining { .. });
        if !self.members.iter().any(is_joined) && self.members.iter().any(is_joining) {
            return Vec::new();
        }
        let mut left = Vec::new();
        for member in &mut self.members {
            if matches!(member.stage, Stage::Going { .. }) {
                member.stage = Stage::Leaving { until: now.saturating_add(rules.drain) };
                left.push(member.id);
            }
        }
        left
    }

    /// Whose drain is over at `now`, or earlier where `is_idle`. They are forgotten.
    pub(super) fn over(&mut self, now: Duration, is_idle: impl Fn(Id) -> bool) -> Vec<Id> {
        let is_over = |member: &mut Member| match member.stage {
            Stage::Leaving { until } => until <= now || is_idle(member.id),
            _ => false,
        };
        self.members.extract_if(.., is_over).map(|member| member.id).collect()
    }

    /// When the next drain is over.
    pub(super) fn drains_until(&self) -> impl Iterator<Item = Duration> {
        self.members.iter().filter_map(|member| match member.stage {
            Stage::Leaving { until } => Some(until),
            _ => None,
        })
    }

    /// All members, with how they are.
    pub(super) fn members(&self, rules: Rules) -> impl Iterator<Item = (&Member, State)> {
        let serving: Vec<_> = self.serving(rules).map(|member| member.id).collect();
        self.members.iter().map(move |member| {
            let state = match member.stage {
                Stage::Joining { .. } => State::Joining,
                Stage::Leaving { .. } => State::Leaving,
                Stage::Joined { .. } | Stage::Going { .. } if serving.contains(&member.id) => State::Serving,
                Stage::Joined { .. } => State::Out,
                Stage::Going { .. } => State::Leaving,
            };
            (member, state)
        })
    }

    /// How the set is.
    pub(super) fn condition(&self, rules: Rules) -> Condition {
        if self.serving(rules).next().is_none() {
            if self.members.iter().any(Member::is_listed) { Condition::Starting } else { Condition::Empty }
        } else if self.has_enough(rules) {
            Condition::Good
        } else {
            Condition::Unhealthy
        }
    }

    /// Whether a first probe has said of every listed member how it is.
    pub(super) fn is_known(&self) -> bool {
        !self.members.iter().any(|member| matches!(member.stage, Stage::Joining { asked: false, .. }))
    }

    /// How many probes of a member were bad, one after the other.
    pub(super) fn bad_probes(member: &Member) -> u32 {
        match member.stage {
            Stage::Joined { bad } | Stage::Going { bad } => bad,
            Stage::Joining { .. } | Stage::Leaving { .. } => 0,
        }
    }
}

/// Whether so many of a set's members that fail their probes are few enough to be out: at most
/// half. When more fail, all of them serve.
pub fn may_be_out(failing: usize, members: usize) -> bool {
    failing <= members / 2
}

impl Member {
    /// Its health is looked at from now on, or not.
    fn look_at(&mut self, probed: bool) {
        self.probed = probed;
        if !probed && !matches!(self.stage, Stage::Leaving { .. }) {
            self.stage = Stage::Joined { bad: 0 };
            self.last_error = None;
        }
    }

    /// Whether it is on the list that is in force.
    pub(super) fn is_listed(&self) -> bool {
        !matches!(self.stage, Stage::Going { .. } | Stage::Leaving { .. })
    }

    /// Whether it fails: it is out, unless too many others fail too.
    pub(super) fn fails(&self, rules: Rules) -> bool {
        Set::bad_probes(self) >= rules.failures
    }

    /// Whether it is still worth a probe, and whether it waits for one to join.
    pub(super) fn wants_probe(&self) -> Option<Pace> {
        match self.stage {
            Stage::Joining { .. } if self.probed => Some(Pace::Joining),
            Stage::Joined { .. } | Stage::Going { .. } if self.probed => Some(Pace::Watching),
            _ => None,
        }
    }
}

/// How soon a member is probed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Soon: it is waited for.
    Joining,
    /// After `health.interval`.
    Watching,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const RULES: Rules = Rules { successes: 1, failures: 2, drain: Duration::from_secs(10) };

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn addrs(ports: &[u16]) -> Vec<SocketAddr> {
        ports.iter().copied().map(addr).collect()
    }

    fn serving(set: &Set) -> Vec<u16> {
        set.serving(RULES).map(|member| member.addr.port()).collect()
    }

    fn probe(set: &mut Set, port: u16, healthy: bool) {
        let ids: Vec<_> =
            set.members.iter().filter(|member| member.addr.port() == port).map(|m| m.id).collect();
        let error = (!healthy).then(|| "bad".to_owned());
        ids.into_iter().for_each(|id| set.probed(id, error.clone(), RULES));
    }

    #[test]
    fn members_join_when_healthy_and_the_others_stay_until_then() {
        let mut set = Set::default();
        assert_eq!(set.condition(RULES), Condition::Empty);
        set.list(&addrs(&[1, 2]), |_| true);
        assert_eq!(
            (serving(&set), set.condition(RULES), set.is_known()),
            (vec![], Condition::Starting, false)
        );
        probe(&mut set, 1, true);
        probe(&mut set, 2, false);
        assert_eq!((serving(&set), set.condition(RULES), set.is_known()), (vec![1], Condition::Good, true));
        set.list(&addrs(&[3]), |_| true);
        assert!(set.leaves(Duration::ZERO, RULES).is_empty(), "nothing else serves yet");
        assert_eq!(serving(&set), [1]);
        probe(&mut set, 3, true);
        assert_eq!(serving(&set), [3]);
        assert_eq!(set.leaves(Duration::from_secs(1), RULES).len(), 1);
        assert_eq!(set.drains_until().collect::<Vec<_>>(), [Duration::from_secs(11)]);
        assert!(set.over(Duration::from_secs(10), |_| false).is_empty());
        assert_eq!(set.over(Duration::from_secs(11), |_| false).len(), 1);
        set.list(&[], |_| true);
        assert_eq!(set.leaves(Duration::ZERO, RULES).len(), 1);
        assert_eq!((serving(&set), set.condition(RULES)), (vec![], Condition::Empty));
        assert_eq!(set.over(Duration::ZERO, |_| true).len(), 1, "an idle one may be over early");
    }

    #[test]
    fn at_most_half_are_out_and_one_good_probe_brings_back() {
        let mut set = Set::default();
        set.list(&addrs(&[1, 2, 3]), |_| true);
        (1..=3).for_each(|port| probe(&mut set, port, true));
        probe(&mut set, 1, false);
        assert_eq!(serving(&set), [1, 2, 3]);
        probe(&mut set, 1, false);
        assert_eq!((serving(&set), set.condition(RULES)), (vec![2, 3], Condition::Good));
        probe(&mut set, 2, false);
        probe(&mut set, 2, false);
        assert_eq!((serving(&set), set.condition(RULES)), (vec![1, 2, 3], Condition::Unhealthy));
        probe(&mut set, 1, true);
        assert_eq!((serving(&set), set.condition(RULES)), (vec![1, 3], Condition::Good));
        set.list(&addrs(&[1]), |_| true);
        probe(&mut set, 1, false);
        probe(&mut set, 1, false);
        assert_eq!((serving(&set), set.condition(RULES)), (vec![1], Condition::Unhealthy));
    }

    #[test]
    fn what_is_not_probed_joins_at_once_and_never_fails() {
        let mut set = Set::default();
        set.list(&addrs(&[1, 2]), |_| false);
        assert_eq!(serving(&set), [1, 2]);
        probe(&mut set, 1, false);
        probe(&mut set, 1, false);
        assert_eq!(serving(&set), [1, 2]);
    }

    #[test]
    fn a_switch_replaces_all_at_once() {
        let mut set = Set::default();
        set.list(&addrs(&[1, 2]), |_| false);
        let former: Vec<_> = set.members.iter().map(|member| member.id).collect();
        set.switch(&addrs(&[2, 3]), |_| true);
        assert_eq!(serving(&set), [2, 3]);
        assert_eq!(set.leaves(Duration::ZERO, RULES), former, "2 too: it is another member now");
    }

    #[derive(Debug, Clone)]
    enum Step {
        List(Vec<u16>),
        Switch(Vec<u16>),
        Probe(u16, bool),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let list =
            || proptest::collection::btree_set(1_u16..7, 0..5).prop_map(|set| set.into_iter().collect());
        let step = prop_oneof![
            list().prop_map(Step::List),
            list().prop_filter("ports", |list: &Vec<u16>| !list.is_empty()).prop_map(Step::Switch),
            (1_u16..7, any::<bool>()).prop_map(|(port, healthy)| Step::Probe(port, healthy)),
            (0_u64..12).prop_map(Step::Wait),
        ];
        proptest::collection::vec(step, 1..60)
    }

    proptest! {
        #[test]
        fn whatever_happens(steps in steps()) {
            let (mut set, mut now) = (Set::default(), Duration::ZERO);
            let (mut left, mut listed) = (BTreeSet::new(), Vec::new());
            for step in steps {
                let served = serving(&set);
                match &step {
                    Step::List(ports) => {
                        set.list(&addrs(ports), |addr| addr.port() != 6);
                        listed.clone_from(ports);
                    }
                    Step::Switch(ports) => {
                        set.switch(&addrs(ports), |addr| addr.port() != 6);
                        listed.clone_from(ports);
                    }
                    Step::Probe(port, healthy) => probe(&mut set, *port, *healthy),
                    Step::Wait(seconds) => now += Duration::from_secs(*seconds),
                }
                // Once it serves, it goes on serving as long as anything is listed.
                prop_assert!(served.is_empty() || listed.is_empty() || !serving(&set).is_empty(), "{step:?}: {set:?}");
                for id in set.leaves(now, RULES) {
                    prop_assert!(left.insert(id), "it leaves once");
                }
                let after: BTreeSet<_> = set.serving(RULES).map(|member| member.id).collect();
                prop_assert!(after.iter().all(|id| !left.contains(id)), "what has left serves no more");
                let joined = set.members.iter().filter(|m| matches!(m.stage, Stage::Joined { .. })).count();
                let out = set.members(RULES).filter(|(_, state)| *state == State::Out).count();
                prop_assert!(out <= joined / 2);
                let now_listed: Vec<_> = set.members.iter().filter(|m| m.is_listed()).map(|m| m.addr.port()).collect();
                prop_assert_eq!(&now_listed, &listed);
                for id in set.over(now, |_| false) {
                    prop_assert!(left.contains(&id));
                }
            }
        }
    }
}
