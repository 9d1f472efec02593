//! Recycling: a replica of the live release that has grown beyond `app.max_memory` is replaced by a
//! fresh one, while it and the others serve.
//!
//! ```text
//!             over it in three looks                 ready
//!   (nothing) ──────────────────────▶ one more starts ─────▶ the old one leaves, as one does where
//!                                           │                the set shrinks
//!                                           │ it ends, or is not ready in time
//!                                           ▼
//!                    the old one stays; no further one for `app.recycle_after`
//! ```
//!
//! There is one at a time, and none begins in a watch window or beside a task, nor for an app of
//! which no two may run at a time. A replica that comes so far soon after it was ready would soon
//! be there again: that is only told.

use std::collections::BTreeMap;

use super::places::Filling;
use super::*;

/// In so many looks in a row a replica has to be too large.
const LOOKS: u32 = 3;

/// What is known of the memory of the live replicas, and the replacement under way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Recycling {
    /// The runs that were live, until nothing is left of them.
    known: BTreeMap<RunId, Known>,
    under_way: Option<Replacement>,
    /// No replacement begins before this moment.
    not_before: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    /// Since when it is ready, whoever was live and whatever the limit was meanwhile.
    ready_at: Duration,
    /// The looks in a row in which it was too large.
    over: u32,
    /// The limit that it has reached too fast for a replacement to help.
    reached: Option<u64>,
}

impl Known {
    fn ready_at(moment: Duration) -> Self {
        Self { ready_at: moment, over: 0, reached: None }
    }
}

/// One run is to take the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Replacement {
    set: SetId,
    old: RunId,
    /// The place of the new one.
    place: u16,
    /// The memory of the old one.
    bytes: u64,
}

impl Recycling {
    /// The place of the live set that is one more than wanted.
    pub(super) fn place(&self) -> Option<u16> {
        self.under_way.map(|replacement| replacement.place)
    }

    /// How many places the live set has more than wanted.
    pub(super) fn extra(&self) -> u16 {
        u16::from(self.under_way.is_some())
    }
}

impl State {
    /// A run has so much memory now.
    pub(super) fn weighed(&mut self, id: RunId, bytes: u64, round: &mut Round<'_>) {
        let Some(limit) = round.policy.max_memory else { return };
        let may_begin = self.may_recycle(round);
        let Some(known) = self.recycling.known.get_mut(&id) else { return };
        known.over = if bytes > limit { known.over.saturating_add(1) } else { 0 };
        if known.over < LOOKS || known.reached == Some(limit) {
            return;
        }
        if round.now.saturating_sub(known.ready_at) < round.policy.recycle_after {
            known.reached = Some(limit);
            round.push(Effect::Tell(Tell::GrowsFast { run: id, bytes }));
            // The next daemon knows how old it is, and would replace it.
            round.save();
        } else if may_begin
            && let Live::Set(set) = &mut self.live
            && !set.places().are_growing()
        {
            round.push(Effect::Tell(Tell::Recycling { run: id, bytes }));
            let place = set.grow(round);
            self.recycling.under_way = Some(Replacement { set: set.id(), old: id, place, bytes });
        }
    }

    /// Whether a replacement may begin now.
    fn may_recycle(&self, round: &Round<'_>) -> bool {
        let Recycling { under_way, not_before, .. } = &self.recycling;
        let is_quiet = self.stopping == Stopping::No && self.window.is_none() && self.task.is_none();
        let runs_alone = round.policy.recreate || self.recreated || self.is_vacant();
        is_quiet && !runs_alone && under_way.is_none() && round.now >= *not_before
    }

    /// Goes on with the replacement under way, and notes who may be replaced.
    pub(super) fn recycle(&mut self, round: &mut Round<'_>) {
        if let Some(replacement) = self.recycling.under_way {
            self.recycling.under_way = self.replace(replacement, round);
        }
        let live = self.live_runs();
        let known = &mut self.recycling.known;
        for (_, known) in known.iter_mut().filter(|(run, _)| !live.contains(run)) {
            // What was seen before it is live again is no look in a row with what is seen then.
            known.over = 0;
        }
        for run in live {
            known.entry(run).or_insert(Known::ready_at(round.now));
        }
    }

    /// Forgets what was noted of runs that are gone. The last thing of a step.
    pub(super) fn forget_the_gone(&mut self) {
        if !self.recycling.known.is_empty() {
            let all: Vec<RunId> = self.runs().map(|run| run.id).collect();
            self.recycling.known.retain(|run, _| all.contains(run));
        }
    }

    /// An earlier daemon started this run, and knew this of it.
    pub(super) fn has_run_for(&mut self, adopted: &Adopted, round: &Round<'_>) {
        let ready_at = Known::ready_at(round.now.saturating_sub(adopted.age));
        self.recycling.known.insert(adopted.run.id, Known { reached: adopted.grows_fast, ..ready_at });
    }

    /// The limit that this run has reached too fast for a replacement to help.
    pub fn grows_fast(&self, id: RunId) -> Option<u64> {
        self.recycling.known.get(&id)?.reached
    }

    /// Parts with the old one once the new one is ready. Gives the replacement back while it is
    /// waited for.
    fn replace(&mut self, replacement: Replacement, round: &mut Round<'_>) -> Option<Replacement> {
        let Replacement { set: of, old, place, bytes } = replacement;
        if self.stopping != Stopping::No {
            return None;
        }
        let Live::Set(set) = &mut self.live else { return None };
        if set.id() != of {
            return None;
        }
        if !set.is_ready(old) {
            // It has ended by itself, and its place is filled as after any crash.
            set.drop_place(place, round);
            return None;
        }
        let new = match &set.places().numbered(place)?.filling {
            Filling::Starting { .. } => return Some(replacement),
            Filling::Ready { run, .. } => run.id,
            Filling::Undecided | Filling::Waiting { .. } | Filling::GivenUp => return None,
        };
        if let Some((run, replica)) = set.part(old) {
            self.part_with(run, replica, round);
            round.push(Effect::Tell(Tell::Recycled { run: old, by: new, bytes }));
        }
        None
    }

    /// A run of the live set has ended before it was ready. Where it was a replacement, nothing but
    /// that ends: it is no crash of the release. True then.
    pub(super) fn gave_replacement_up(&mut self, round: &mut Round<'_>) -> bool {
        let (Some(replacement), Live::Set(set)) = (self.recycling.under_way, &mut self.live) else {
            return false;
        };
        let failed = set.places().numbered(replacement.place).map(|place| &place.filling);
        if set.id() != replacement.set || failed != Some(&Filling::Undecided) {
            return false;
        }
        set.drop_place(replacement.place, round);
        self.recycling.under_way = None;
        self.recycling.not_before = round.now.saturating_add(round.policy.recycle_after);
        round.push(Effect::Tell(Tell::NotRecycled { run: replacement.old }));
        round.save();
        true
    }
}
