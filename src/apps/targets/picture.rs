//! How an app's targets are, as others see it: what the driver has decided, and what requests have
//! found out meanwhile. Pure.
//!
//! A member to which requests failed is marked, and out as long as another one is in. When all that
//! get requests are marked, the marks count for nothing: requests go to them, and that they failed
//! is known of each.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::AppConfig;
use crate::proxy::Target;
use crate::wire::{self, Phase, TargetState, Traffic};

/// What is known of a marked target that gets requests all the same.
const REQUESTS_FAILED: &str = "requests to it failed";

/// The app at one moment.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) config: Arc<AppConfig>,
    /// The addresses in force.
    pub(super) listed: Vec<SocketAddr>,
    /// The phase as far as the driver knows.
    pub(super) phase: Phase,
    /// The port of the first target that was ever healthy, whether or not it is now.
    pub(super) active_port: Option<u16>,
    pub(super) members: Vec<MemberView>,
    pub(super) last_switch: Option<wire::Switch>,
    pub(super) drain_until: Option<String>,
    pub(super) state_error: Option<String>,
    pub(super) traffic: Traffic,
    pub(super) paused: Option<wire::Standing>,
    pub(super) frozen: Option<wire::Standing>,
    pub(super) health: wire::HealthMetrics,
    /// A first probe has said of every listed target how it is.
    pub(super) known: bool,
}

/// One target in a [`View`].
#[derive(Debug, Clone)]
pub(super) struct MemberView {
    pub(super) addr: SocketAddr,
    pub(super) state: TargetState,
    /// Whether its health is looked at.
    pub(super) probed: bool,
    /// Whether it is on the list that is in force.
    pub(super) listed: bool,
    /// Whether its last probes failed, so many that it is out unless too many others fail too.
    pub(super) fails: bool,
    pub(super) target: Option<Arc<Target>>,
    pub(super) last_error: Option<String>,
}

/// An app's targets at one moment.
pub(super) struct Picture<'a> {
    view: &'a View,
    members: Vec<Seen<'a>>,
}

struct Seen<'a> {
    member: &'a MemberView,
    state: TargetState,
    marked: bool,
}

impl<'a> Picture<'a> {
    /// `view` is what the driver says; `is_marked` whether requests to a member failed.
    pub(super) fn of(view: &'a View, is_marked: impl Fn(&MemberView) -> bool) -> Self {
        let see = |member: &'a MemberView| Seen { member, state: member.state, marked: is_marked(member) };
        let mut members: Vec<_> = view.members.iter().map(see).collect();
        if members.iter().any(|seen| seen.is_ready() && !seen.marked) {
            for seen in members.iter_mut().filter(|seen| seen.is_ready() && seen.marked) {
                seen.state = TargetState::Ejected;
            }
        }
        Self { view, members }
    }

    /// Each target with how it is, and what is wrong with it.
    pub(super) fn targets(&self) -> impl Iterator<Item = (&'a MemberView, TargetState, Option<&str>)> {
        self.members.iter().map(|seen| {
            let found = (seen.is_ready() && seen.marked).then_some(REQUESTS_FAILED);
            (seen.member, seen.state, seen.member.last_error.as_deref().or(found))
        })
    }

    /// Those that get requests.
    pub(super) fn ready(&self) -> impl Iterator<Item = &'a MemberView> {
        self.members.iter().filter(|seen| seen.is_ready()).map(|seen| seen.member)
    }

    /// The app's phase.
    pub(super) fn phase(&self) -> Phase {
        if self.view.phase != Phase::Settled {
            return self.view.phase;
        }
        let mut ready = self.members.iter().filter(|seen| seen.is_ready());
        if ready.all(|seen| seen.marked || seen.member.fails) {
            return Phase::Unhealthy;
        }
        let wanted = self.members.iter().filter(|seen| seen.member.listed);
        if wanted.filter(|seen| seen.is_ready()).count() < self.view.listed.len() {
            Phase::Degraded
        } else {
            Phase::Settled
        }
    }
}

impl View {
    /// Before the driver has published one.
    pub(super) fn of_nothing(config: Arc<AppConfig>) -> Self {
        Self {
            config,
            listed: Vec::new(),
            phase: Phase::Starting,
            active_port: None,
            members: Vec::new(),
            last_switch: None,
            drain_until: None,
            state_error: None,
            traffic: Traffic::Open,
            paused: None,
            frozen: None,
            health: wire::HealthMetrics::default(),
            known: false,
        }
    }

    /// Those that get requests as far as the driver knows.
    pub(super) fn serving(&self) -> impl Iterator<Item = &MemberView> {
        self.members.iter().filter(|member| member.state == TargetState::Ready)
    }
}

impl Seen<'_> {
    fn is_ready(&self) -> bool {
        self.state == TargetState::Ready
    }
}
