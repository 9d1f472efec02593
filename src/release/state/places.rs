//! The places of a set: which run fills each, and which of these runs get requests.

use super::{Run, RunId};

/// A place of a set, and what fills it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Its number: the lowest that was free in its set.
    pub(super) replica: u16,
    pub(super) filling: Filling,
    /// How often it was filled again after a crash, in this tenure.
    pub(super) restarts: u32,
}

impl Place {
    fn new(replica: u16, filling: Filling) -> Self {
        Self { replica, filling, restarts: 0 }
    }
}

/// What fills a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Filling {
    /// A run that is not ready yet.
    Starting {
        run: Run,
        /// How many ports were tried.
        tries: u32,
        /// It was started because another one had crashed.
        again: bool,
    },
    /// A run that is or was ready, and has not ended.
    Ready {
        run: Run,
        /// Failed probes in a row.
        fails: u32,
        /// How many of them in the watch window.
        watched: u32,
    },
    /// Nothing; its run has ended, and what is done about it depends on what the release does.
    Undecided,
    /// Nothing, until the delay is over.
    Waiting {
        /// Names the timer; a timer with another ticket is stale.
        ticket: u64,
    },
    /// Nothing, for good.
    GivenUp,
}

impl Filling {
    /// The run that it is.
    pub(super) fn run(&self) -> Option<&Run> {
        match self {
            Self::Starting { run, .. } | Self::Ready { run, .. } => Some(run),
            Self::Undecided | Self::Waiting { .. } | Self::GivenUp => None,
        }
    }
}

/// The places of a set, in the order of their numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Places(Vec<Place>);

impl Places {
    /// Adds empty ones until there are so many.
    pub(super) fn widen(&mut self, count: u16) {
        while self.len() < count {
            self.take_in(self.lowest_free(), Filling::GivenUp);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> u16 {
        u16::try_from(self.0.len()).unwrap_or(u16::MAX)
    }

    /// All of them, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Place> {
        self.0.iter()
    }

    /// A new tenure begins: they have not been filled again yet.
    pub(super) fn forget_restarts(&mut self) {
        self.0.iter_mut().for_each(|place| place.restarts = 0);
    }

    /// The place at this position.
    pub(super) fn at(&mut self, position: usize) -> &mut Place {
        &mut self.0[position]
    }

    /// Where the first place of this filling is.
    pub(super) fn position(&self, is: impl Fn(&Filling) -> bool) -> Option<usize> {
        self.0.iter().position(|place| is(&place.filling))
    }

    /// The place that this run fills.
    pub(super) fn of(&mut self, id: RunId) -> Option<&mut Place> {
        self.0.iter_mut().find(|place| place.filling.run().is_some_and(|run| run.id == id))
    }

    /// The place of this number.
    pub(super) fn numbered(&self, replica: u16) -> Option<&Place> {
        self.0.iter().find(|place| place.replica == replica)
    }

    /// Takes the place of this number away.
    pub(super) fn remove(&mut self, replica: u16) -> Option<Place> {
        let at = self.0.iter().position(|place| place.replica == replica)?;
        Some(self.0.remove(at))
    }

    /// The number of the place that this run fills.
    pub(super) fn number_of(&self, id: RunId) -> Option<u16> {
        let of = |place: &&Place| place.filling.run().is_some_and(|run| run.id == id);
        self.0.iter().find(of).map(|place| place.replica)
    }

    /// The runs that fill places.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.0.iter().filter_map(|place| place.filling.run())
    }

    pub(super) fn runs_mut(&mut self) -> impl Iterator<Item = &mut Run> {
        self.0.iter_mut().filter_map(|place| match &mut place.filling {
            Filling::Starting { run, .. } | Filling::Ready { run, .. } => Some(run),
            _ => None,
        })
    }

    pub(super) fn ready(&self) -> impl Iterator<Item = &Run> {
        self.0.iter().filter_map(|place| match &place.filling {
            Filling::Ready { run, .. } => Some(run),
            _ => None,
        })
    }

    pub(super) fn starting(&self) -> impl Iterator<Item = &Run> {
        self.0.iter().filter_map(|place| match &place.filling {
            Filling::Starting { run, .. } => Some(run),
            _ => None,
        })
    }

    /// Whether every place has a run that is ready.
    pub(super) fn are_complete(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|place| matches!(place.filling, Filling::Ready { .. }))
    }

    /// Whether a place is empty for good.
    pub(super) fn has_given_up(&self) -> bool {
        self.position(|filling| *filling == Filling::GivenUp).is_some()
    }

    /// Whether the fate of a place is open.
    pub(super) fn is_undecided(&self) -> bool {
        self.position(|filling| *filling == Filling::Undecided).is_some()
    }

    /// Whether a run starts that does not start again after a crash.
    pub(super) fn are_growing(&self) -> bool {
        self.position(|filling| matches!(filling, Filling::Starting { again: false, .. })).is_some()
    }

    /// Whether a place is filled after the delay of this ticket.
    pub(super) fn waits_for(&self, ticket: u64) -> bool {
        self.position(|filling| *filling == Filling::Waiting { ticket }).is_some()
    }

    /// Whether a place is filled after a delay.
    pub(super) fn waits(&self) -> bool {
        self.position(|filling| matches!(filling, Filling::Waiting { .. })).is_some()
    }

    /// The tickets of the delays that are waited for.
    #[cfg(test)]
    pub(super) fn tickets(&self) -> impl Iterator<Item = u64> {
        self.0.iter().filter_map(|place| match place.filling {
            Filling::Waiting { ticket } => Some(ticket),
            _ => None,
        })
    }

    /// Whether a run can be put into the place of this number.
    pub(super) fn accepts(&self, replica: u16) -> bool {
        let place = self.0.iter().find(|place| place.replica == replica);
        place.is_none_or(|place| place.filling == Filling::GivenUp)
    }

    /// Fills the place of this number, which is added where it is missing.
    pub(super) fn take_in(&mut self, replica: u16, filling: Filling) {
        match self.0.iter_mut().find(|place| place.replica == replica) {
            Some(place) => place.filling = filling,
            None => {
                let at = self.0.partition_point(|place| place.replica < replica);
                self.0.insert(at, Place::new(replica, filling));
            }
        }
    }

    /// The lowest number that no place has.
    pub(super) fn lowest_free(&self) -> u16 {
        (0..)
            .zip(&self.0)
            .find(|(number, place)| *number != place.replica)
            .map_or(self.len(), |(number, _)| number)
    }

    /// Takes away one that is not ready, else the one whose run was started last; one for whose run
    /// `stays` holds only where all do.
    pub(super) fn remove_youngest(&mut self, stays: impl Fn(RunId) -> bool) -> Option<Place> {
        let not_ready = self.0.iter().rposition(|place| !matches!(place.filling, Filling::Ready { .. }));
        // Runs are numbered in the order of their starts.
        let youngest = || {
            let of = |place: &Place| place.filling.run().map(|run| (!stays(run.id), run.id));
            (0..self.0.len()).max_by_key(|at| of(&self.0[*at]))
        };
        let at = not_ready.or_else(youngest)?;
        Some(self.0.remove(at))
    }

    /// Takes the run out of its place.
    pub(super) fn empty_place(&mut self, id: RunId, next: Filling) -> Option<Run> {
        let place = self.of(id)?;
        match std::mem::replace(&mut place.filling, next) {
            Filling::Starting { run, .. } | Filling::Ready { run, .. } => Some(run),
            Filling::Undecided | Filling::Waiting { .. } | Filling::GivenUp => None,
        }
    }

    /// Takes the ready runs out of their places, each with its number.
    pub(super) fn take_ready(&mut self) -> Vec<(u16, Run)> {
        let ready: Vec<_> = self.ready().map(|run| run.id).collect();
        let taken = ready.into_iter().filter_map(|id| {
            let replica = self.number_of(id)?;
            Some((replica, self.empty_place(id, Filling::GivenUp)?))
        });
        taken.collect()
    }

    /// Makes all places that no run fills empty for good.
    pub(super) fn give_up_empty(&mut self) {
        for place in self.0.iter_mut().filter(|place| place.filling.run().is_none()) {
            place.filling = Filling::GivenUp;
        }
    }

    /// Makes all places that are `from` `to`.
    pub(super) fn turn(&mut self, from: &Filling, to: &Filling) {
        for place in self.0.iter_mut().filter(|place| place.filling == *from) {
            place.filling = to.clone();
        }
    }

    /// Keeps only the places whose run is ready.
    pub(super) fn keep_ready(&mut self) {
        self.0.retain(|place| matches!(place.filling, Filling::Ready { .. }));
    }
}

// ---- probes ----

impl Places {
    /// Counts a probe of a ready run; `in_window`: in the watch window. Gives back how many of
    /// the window have failed in a row.
    pub(super) fn probed(&mut self, id: RunId, healthy: bool, in_window: bool) -> Option<u32> {
        let Filling::Ready { fails, watched, .. } = &mut self.of(id)?.filling else { return None };
        let count = |fails: u32| if healthy { 0 } else { fails.saturating_add(1) };
        *fails = count(*fails);
        if in_window {
            *watched = count(*watched);
        }
        Some(*watched)
    }

    /// A watch window begins.
    pub(super) fn begin_window(&mut self) {
        for place in &mut self.0 {
            if let Filling::Ready { watched, .. } = &mut place.filling {
                *watched = 0;
            }
        }
    }

    /// Forgets what probes said.
    pub(super) fn forget_probes(&mut self) {
        for place in &mut self.0 {
            if let Filling::Ready { fails, watched, .. } = &mut place.filling {
                (*fails, *watched) = (0, 0);
            }
        }
    }

    /// The failed probes in a row of the ready run that has most.
    pub(super) fn most_fails(&self) -> Option<u32> {
        self.fails().map(|(_, fails)| fails).max()
    }

    /// The failed probes in a row of this ready run.
    pub(super) fn fails_of(&self, id: RunId) -> Option<u32> {
        self.fails().find(|(run, _)| run.id == id).map(|(_, fails)| fails)
    }

    fn fails(&self) -> impl Iterator<Item = (&Run, u32)> {
        self.0.iter().filter_map(|place| match &place.filling {
            Filling::Ready { run, fails, .. } => Some((run, *fails)),
            _ => None,
        })
    }

    /// The runs that get requests. One that has failed `threshold` probes in a row is out, while at
    /// most half of the places are out for that, and never the last one that is ready.
    pub(super) fn served(&self, threshold: u32) -> Vec<RunId> {
        let all_serve = self.is_unhealthy(threshold);
        let in_use = self.fails().filter(|(_, fails)| all_serve || *fails < threshold);
        in_use.map(|(run, _)| run.id).collect()
    }

    /// Whether too many runs fail their probes for these to be out.
    pub(super) fn is_unhealthy(&self, threshold: u32) -> bool {
        let failing = self.fails().filter(|(_, fails)| *fails >= threshold).count();
        failing > self.0.len() / 2 || (failing > 0 && failing == self.ready().count())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Origin, ReleaseRef};
    use super::*;

    fn run(id: u64) -> Run {
        Run {
            id: RunId(id),
            release: ReleaseRef { id: "v1".into(), origin: Origin::Managed },
            process: None,
            port: None,
        }
    }

    fn ready(fails: &[u32]) -> Places {
        let mut places = Places::default();
        for (replica, fails) in (0..).zip(fails) {
            let filling = Filling::Ready { run: run(replica.into()), fails: *fails, watched: 0 };
            places.take_in(replica, filling);
        }
        places
    }

    fn youngest(places: &mut Places) -> Option<u16> {
        places.remove_youngest(|_| false).map(|place| place.replica)
    }

    fn served(places: &Places) -> Vec<u64> {
        places.served(3).into_iter().map(|run| run.0).collect()
    }

    #[test]
    fn at_most_half_are_out_and_never_the_last_one() {
        for (fails, serve, unhealthy) in [
            (&[3][..], vec![0], true),
            (&[3, 0], vec![1], false),
            (&[3, 9], vec![0, 1], true),
            (&[0, 3, 0], vec![0, 2], false),
            (&[3, 3, 0], vec![0, 1, 2], true),
            (&[3, 3, 0, 2], vec![2, 3], false),
        ] {
            let places = ready(fails);
            assert_eq!((served(&places), places.is_unhealthy(3)), (serve, unhealthy), "{fails:?}");
        }
        let mut places = ready(&[3, 0]);
        places.empty_place(RunId(1), Filling::Undecided);
        assert_eq!((served(&places), places.is_unhealthy(3)), (vec![0], true), "the other one has ended");
    }

    #[test]
    fn a_new_place_gets_the_lowest_free_number_and_what_is_not_ready_goes_first() {
        let mut places = ready(&[0, 0, 0]);
        assert_eq!(places.lowest_free(), 3);
        places.empty_place(RunId(1), Filling::GivenUp);
        assert_eq!(youngest(&mut places), Some(1));
        assert_eq!(places.lowest_free(), 1);
        assert!(places.accepts(1) && !places.accepts(2));
        places.take_in(1, Filling::GivenUp);
        assert!(places.accepts(1));
        assert_eq!(places.number_of(RunId(2)), Some(2));
        places.keep_ready();
        assert_eq!(youngest(&mut places), Some(2));
        places.widen(3);
        assert_eq!(places.0.iter().map(|place| place.replica).collect::<Vec<_>>(), [0, 1, 2]);
    }

    #[test]
    fn the_youngest_leaves_whatever_its_number_and_one_that_stays_last() {
        let mut places = ready(&[0, 0, 0]);
        places.take_in(0, Filling::Ready { run: run(7), fails: 0, watched: 0 });
        let stays = |id: RunId| id.0 == 7 || id.0 == 2;
        let mut leaves = || places.remove_youngest(stays).map(|place| place.replica);
        assert_eq!([(); 4].map(|()| leaves()), [Some(1), Some(0), Some(2), None]);
    }
}
