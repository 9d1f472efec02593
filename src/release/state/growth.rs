//! How the number of replicas follows the load, between the bounds of `app.replicas`.
//!
//! The driver looks at the load of the live set once a second, where the bounds differ. Two busy
//! looks in a row start one replica more; a whole `idle` in which those that would stay have been
//! half as busy at most stops one. There is one change at a time. Where the least is none, the last
//! one is stopped as well, and the next request starts one.
//!
//! What is in its watch window does not shrink, nor does anything while a task is under way. What
//! waits after a crash counts as one of the set, and goes first when it shrinks.

use std::time::Duration;

use super::*;
use crate::config::Replicas;

/// The looks in a row that have to be busy.
const BUSY_LOOKS: u32 = 2;

/// What one look has seen of a set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Load {
    /// The requests in flight, without tunnels.
    pub inflight: u64,
    /// The runs that have tunnels.
    pub tunnels: Vec<RunId>,
    /// A daemon before this one has requests and tunnels too, nobody here knows how many.
    pub elsewhere: bool,
}

/// What is remembered of the looks at a set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Growth {
    /// The busy looks in a row.
    busy: u32,
    /// Since when fewer would do.
    quiet_since: Option<Duration>,
    /// When the set grew last.
    grew_at: Option<Duration>,
    /// The runs that had tunnels at the last look.
    tunnels: Vec<RunId>,
}

/// What the load asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    More,
    Fewer,
}

impl Growth {
    /// Takes a look into account: `ready` runs had this load. What it asks for stands until the set
    /// has changed.
    fn look(&mut self, ready: usize, load: Load, now: Duration, replicas: &Replicas) -> Option<Wish> {
        let ready = ready as u64;
        let busy_at = u64::from(replicas.busy_at);
        let is_busy = load.inflight >= ready * busy_at;
        // The last one has to have nothing to do at all; a tunnel is something.
        let may_leave = ready > 1 || load.tunnels.is_empty();
        let is_known = !load.elsewhere;
        let is_quiet = is_known && may_leave && 2 * load.inflight <= ready.saturating_sub(1) * busy_at;
        self.busy = if is_busy { self.busy.saturating_add(1) } else { 0 };
        self.quiet_since = if is_quiet { self.quiet_since.or(Some(now)) } else { None };
        self.tunnels = load.tunnels;
        let for_long = |since: Duration| now.saturating_sub(since) >= replicas.idle;
        if self.busy >= BUSY_LOOKS {
            Some(Wish::More)
        } else if self.quiet_since.is_some_and(for_long) && self.grew_at.is_none_or(for_long) {
            Some(Wish::Fewer)
        } else {
            None
        }
    }

    /// The set has grown.
    pub(super) fn grew(&mut self, now: Duration) {
        *self = Self { grew_at: Some(now), tunnels: std::mem::take(&mut self.tunnels), ..Self::default() };
    }

    /// What was seen until now says nothing of the set as it is from now on.
    pub(super) fn begin_anew(&mut self) {
        (self.busy, self.quiet_since) = (0, None);
    }

    /// Whether this run had tunnels at the last look.
    pub(super) fn has_tunnels(&self, id: RunId) -> bool {
        self.tunnels.contains(&id)
    }
}

impl State {
    /// A look at the load of a set.
    pub(super) fn loaded(&mut self, set: SetId, load: Load, round: &mut Round<'_>) {
        let is_free = self.window.is_none() && self.task.is_none();
        let may_grow = !self.goes_back();
        let Live::Set(live) = &mut self.live else { return };
        if self.stopping != Stopping::No || live.id() != set || !live.serves() {
            return;
        }
        let replicas = round.replicas(live.release());
        let (ready, inflight, from) = (live.ready_runs().count(), load.inflight, live.places().len());
        match live.growth_mut().look(ready, load, round.now, &replicas) {
            Some(Wish::More) if may_grow && from < replicas.max && !live.places().are_growing() => {
                live.grow(round);
                round.push(Effect::Tell(Tell::Grew { from, inflight }));
            }
            Some(Wish::Fewer) if is_free && from > replicas.min && !live.places().are_growing() => {
                let parted = live.shrink(round);
                round.push(Effect::Tell(Tell::Shrank { from, inflight }));
                match parted {
                    Some((run, replica)) => self.part_with(run, replica, round),
                    // It waited after a crash.
                    None => drop(round.save()),
                }
            }
            _ => {}
        }
    }

    /// Whether the live release runs nowhere because nobody asks for it.
    pub fn is_idle(&self) -> bool {
        self.live.set().is_some_and(ReplicaSet::is_idle)
    }

    /// The set whose load is to be looked at: the one that serves, where its number may follow.
    pub fn follows_load(&self, policy: &Policy) -> Option<SetId> {
        let live = self.live.set().filter(|live| live.managed() && live.serves())?;
        (self.stopping == Stopping::No && !policy.replicas.is_fixed()).then(|| live.id())
    }

    /// How many replicas the live release is to have now.
    pub fn wanted(&self) -> u16 {
        let replacements = self.recycling.extra();
        self.live.set().map_or(0, |live| live.places().len().saturating_sub(replacements))
    }

    /// A request waits for the idle app.
    pub(super) fn wake(&mut self, round: &mut Round<'_>) {
        if self.stopping != Stopping::No || !self.is_idle() || self.is_kept_vacant() {
            return;
        }
        let Live::Set(live) = &mut self.live else { return };
        let release = live.release().clone();
        round.push(Effect::Tell(Tell::Woken { release: release.clone() }));
        // The last one may still be there.
        let reviving = self.task.as_ref().and_then(|task| task.stage.revives());
        let drains = self.draining_set_of(&release).filter(|set| reviving != Some(*set));
        if let Some(set) = drains.and_then(|set| self.take_leaving(set)) {
            self.serve_again(set, round);
            return;
        }
        let has_room = self.has_room(round.policy);
        if let Live::Set(live) = &mut self.live {
            if !has_room {
                live.wait_for_room();
            }
            live.grow(round);
            round.save();
        }
    }

    /// Makes a set of the live release that drains its live one.
    fn serve_again(&mut self, mut set: ReplicaSet, round: &mut Round<'_>) {
        let Live::Set(live) = &mut self.live else { return };
        set.succeed(live);
        let former = std::mem::replace(live, set);
        self.forget_or_await(former);
        self.serve(None, round);
        round.save();
    }
}
