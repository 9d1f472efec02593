//! Which of several targets gets a request of this thread.
//!
//! State: where the thread's turn is, and its dice: the thread's own. What members have in flight
//! is in their counters: this thread's lane is exact, the others' count as of the last tick, so
//! that no request sums over threads. A thread begins its turns at its own number: after a rest not
//! all threads ask the same member first.
//!
//! Of the members that may be claimed, the first of these kinds is chosen, and within it by
//! `balance`: one whose trial is due; one that is in and has room; one that is in and full; one
//! that is out, when nothing else is left. A member that the request has tried is not asked again.
//! A sticky client's member comes before all of this if it is ready (in, full or not, or due), and
//! leaves the turn as it is.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::clock;
use super::spread::Spread;
use super::sticky::Wish;
use super::target::Standing;
use super::upstream::pool::{Claim, LocalTarget};
use crate::config::{Balance, Upstream};

/// The members of a spread as one thread uses them.
#[derive(Debug)]
pub(super) struct Members {
    spread: Arc<Spread>,
    locals: Box<[Rc<LocalTarget>]>,
    /// How many connections to one of them may be open.
    most: usize,
    eject_for: Duration,
    turn: Cell<usize>,
}

thread_local! {
    static DICE: Cell<u64> = Cell::new(RandomState::new().hash_one(0) | 1);
}

/// A member that a request gets.
pub(super) enum Chosen {
    Member(Claim),
    /// It was out, and this request tries it.
    Trial(Box<(Claim, Trial)>),
}

/// The one request that tries a member which was out. Unless it [passes](Self::passed), the member
/// stays out for `upstream.eject_for` from its end on.
#[derive(Debug)]
pub(super) struct Trial {
    local: Rc<LocalTarget>,
    eject_for: Duration,
}

/// Which members come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Due,
    Free,
    Full,
    Out,
}

impl Members {
    /// `locals` are the members of `spread`, at least one, on thread `lane`.
    pub(super) fn new(
        spread: Arc<Spread>,
        locals: Box<[Rc<LocalTarget>]>,
        lane: usize,
        upstream: &Upstream,
    ) -> Self {
        locals.iter().enumerate().for_each(|(at, local)| local.be_member(spread.place(at)));
        let turn = Cell::new(lane % locals.len().max(1));
        let (most, eject_for) = (upstream.max_connections, upstream.eject_for);
        Self { spread, locals, most, eject_for, turn }
    }

    /// What they are the members of.
    pub(super) fn spread(&self) -> &Spread {
        &self.spread
    }

    /// The members.
    pub(super) fn locals(&self) -> &[Rc<LocalTarget>] {
        &self.locals
    }

    /// Claims a member for a request that has `tried` some of them already, of a connection that is
    /// `pinned` to their tenure or not: the one that is its `wish`, if that is ready. `None`: there
    /// is none for it.
    pub(super) fn claim(
        &self,
        tried: &[Rc<LocalTarget>],
        pinned: bool,
        wish: Option<Wish>,
    ) -> Option<Chosen> {
        let now = clock::uptime();
        loop {
            let wished = wish.and_then(|wish| self.wished(wish, tried, pinned, now));
            let (kind, at) = match wished {
                Some(wished) => wished,
                None => self.choose(tried, pinned, now)?,
            };
            let local = &self.locals[at];
            if kind == Kind::Due && !local.target.mark().begin_trial(now) {
                // Another thread was faster.
                continue;
            }
            if wished.is_none() {
                self.turn.set(if at + 1 == self.locals.len() { 0 } else { at + 1 });
            }
            let trial =
                (kind == Kind::Due).then(|| Trial { local: local.clone(), eject_for: self.eject_for });
            // One that has been retired in this very moment is not chosen a second time.
            if let Some(claim) = Claim::new(local.clone(), pinned) {
                return Some(match trial {
                    Some(trial) => Chosen::Trial(Box::new((claim, trial))),
                    None => Chosen::Member(claim),
                });
            }
        }
    }

    /// Of what kind `local` is now. `None`: it may not be claimed, or was tried.
    #[inline]
    fn kind(
        &self,
        local: &Rc<LocalTarget>,
        tried: &[Rc<LocalTarget>],
        pinned: bool,
        now: u64,
    ) -> Option<Kind> {
        let is_tried = || tried.iter().any(|tried| Rc::ptr_eq(tried, local));
        if !local.target.may_be_claimed(pinned) || is_tried() {
            return None;
        }
        Some(match local.target.mark().at(now) {
            Standing::In if local.is_full(self.most) => Kind::Full,
            Standing::In => Kind::Free,
            Standing::Due => Kind::Due,
            Standing::Out => Kind::Out,
        })
    }

    /// Where the member stands that a sticky client wishes for, and of what kind it is. `None`:
    /// none is, or it is not ready.
    #[inline(never)]
    fn wished(&self, wish: Wish, tried: &[Rc<LocalTarget>], pinned: bool, now: u64) -> Option<(Kind, usize)> {
        let ready = self.locals.iter().enumerate().filter_map(|(at, local)| {
            let kind = self.kind(local, tried, pinned, now).filter(|kind| *kind != Kind::Out)?;
            Some((kind, at, local.place()?))
        });
        let wished = match wish {
            Wish::Place(None) => None,
            Wish::Place(Some(wished)) => ready.into_iter().find(|(_, _, place)| *place == wished),
            Wish::Address(client) => ready.max_by_key(|(_, _, place)| place.weight(client)),
        };
        wished.map(|(kind, at, _)| (kind, at))
    }

    /// Where the member that is next stands, and of what kind it is.
    fn choose(&self, tried: &[Rc<LocalTarget>], pinned: bool, now: u64) -> Option<(Kind, usize)> {
        let (before, from) = self.locals.split_at(self.turn.get());
        let in_turn = from.iter().zip(before.len()..).chain(before.iter().zip(0..));
        let mut best: Option<((Kind, u64), usize)> = None;
        for (local, at) in in_turn {
            let Some(kind) = self.kind(local, tried, pinned, now) else { continue };
            let weight = match self.spread.balance() {
                Balance::Least => local.load(),
                Balance::RoundRobin => 0,
                Balance::Random => roll(),
            };
            if best.is_none_or(|(least, _)| (kind, weight) < least) {
                best = Some(((kind, weight), at));
            }
        }
        best.map(|((kind, _), at)| (kind, at))
    }

    /// `local` has failed, `why` says how. Puts it out for a while, if it is one of them and not
    /// the last one that is in. One that was on `trial` stays out.
    pub(super) fn failed(&self, local: &Rc<LocalTarget>, trial: Option<Trial>, why: &dyn fmt::Display) {
        if !self.locals.iter().any(|member| Rc::ptr_eq(member, local)) {
            return;
        }
        if trial.is_some() {
            drop(trial);
            self.spread.tell(&local.target);
        } else {
            let now = clock::uptime();
            if self.spread.eject(&local.target, now, clock::since(now, self.eject_for)) {
                let (app, target) = (local.service.name(), local.target.addr());
                let time = self.eject_for;
                tracing::info!(app, %target, "a target is out for {time:?}, a request to it failed: {why}");
            }
        }
    }
}

/// A number as of a die (xorshift: Marsaglia, 2003).
fn roll() -> u64 {
    let mut dice = DICE.get();
    dice ^= dice << 13;
    dice ^= dice >> 7;
    dice ^= dice << 17;
    DICE.set(dice);
    dice
}

impl Trial {
    /// The member is in again.
    pub(super) fn passed(self) {
        let app = self.local.service.name();
        tracing::info!(app, target = %self.local.target.addr(), "a target is back: it answers again");
        self.local.target.mark().end_trial(None);
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.local.target.mark().end_trial(Some(clock::since(clock::uptime(), self.eject_for)));
    }
}
