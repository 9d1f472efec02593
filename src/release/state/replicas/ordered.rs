//! What a set is told to do: to grow, to shrink, to give its runs away and take them back, to stop.

use super::super::places::{Filling, Place};
use super::super::round::Round;
use super::super::{DownCause, Effect, Origin, Run, RunId};
use super::ReplicaSet;

impl ReplicaSet {
    /// Starts a run for each place that is empty for good. An unmanaged one is probed: until it is
    /// healthy, where `patient`.
    pub(in super::super) fn fill_up(&mut self, patient: bool, round: &mut Round<'_>) {
        while let Some(at) = self.places.position(|filling| *filling == Filling::GivenUp) {
            let replica = self.places.at(at).replica;
            let run = self.begin(replica, patient, round);
            self.places.at(at).filling = Filling::Starting { run, tries: 1, again: false };
        }
    }

    /// Adds empty places until there are so many.
    pub(in super::super) fn widen(&mut self, count: u16) {
        self.places.widen(count);
    }

    /// Adds a replica, with the lowest number that is free. Gives that back.
    pub(in super::super) fn grow(&mut self, round: &mut Round<'_>) -> u16 {
        let replica = self.places.lowest_free();
        // One more of what is started later.
        if self.cause == DownCause::Replaced && !self.serves() {
            self.places.take_in(replica, Filling::GivenUp);
            return replica;
        }
        let run = self.begin(replica, true, round);
        self.places.take_in(replica, Filling::Starting { run, tries: 1, again: false });
        self.growth.grew(round.now);
        replica
    }

    /// Takes this ready replica away. Gives it back with its number.
    pub(in super::super) fn part(&mut self, id: RunId) -> Option<(Run, u16)> {
        let replica = self.places.number_of(id).filter(|_| self.is_ready(id))?;
        let run = self.places.remove(replica)?.filling.run().cloned()?;
        Some((run, replica))
    }

    /// Takes a place away whose run is not ready. That is stopped.
    pub(in super::super) fn drop_place(&mut self, replica: u16, round: &mut Round<'_>) {
        let ready = |place: &Place| matches!(place.filling, Filling::Ready { .. });
        if self.places.numbered(replica).is_none_or(ready) {
            return;
        }
        if let Some(Place { filling: Filling::Starting { run, .. }, .. }) = self.places.remove(replica) {
            self.stop_run(run, round);
        }
    }

    /// Takes a replica away: one that is not ready, which is stopped, or the youngest, which is
    /// given back with its number; one that has tunnels last. A set without replicas is as one that
    /// was never started.
    pub(in super::super) fn shrink(&mut self, round: &mut Round<'_>) -> Option<(Run, u16)> {
        let growth = &self.growth;
        let Place { replica, filling, .. } = self.places.remove_youngest(|id| growth.has_tunnels(id))?;
        self.growth.begin_anew();
        if self.places.len() == 0 {
            self.cause = DownCause::Boot;
        }
        match filling {
            Filling::Ready { run, .. } => return Some((run, replica)),
            Filling::Starting { run, .. } => self.stop_run(run, round),
            Filling::Undecided | Filling::Waiting { .. } | Filling::GivenUp => {}
        }
        None
    }

    /// Gives its ready runs away, and nothing is started in their places for now. They are a set of
    /// their own.
    pub(in super::super) fn give_away(&mut self, round: &mut Round<'_>) -> Option<Self> {
        self.stop_starting(round);
        self.wait_for_room();
        let ready = self.places.take_ready();
        if ready.is_empty() {
            return None;
        }
        let mut former = Self::vacant(self.release.clone(), round);
        ready.into_iter().for_each(|(replica, run)| former.take_in_ready(run, replica));
        Some(former)
    }

    /// Nothing is started in its empty places for now.
    pub(in super::super) fn wait_for_room(&mut self) {
        self.places.give_up_empty();
        self.cause = DownCause::Replaced;
    }

    /// What kept it from being started is gone.
    pub(in super::super) fn has_room(&mut self) {
        self.cause = DownCause::Crash;
    }

    /// Takes the ready runs of `former` back that it gave away.
    pub(in super::super) fn take_back(&mut self, former: &mut Self) {
        for (replica, run) in former.places.take_ready() {
            self.take_in_ready(run, replica);
        }
        if self.places.are_complete() {
            self.has_room();
        }
    }

    /// The runs that are missing have ended while nobody saw it.
    pub(in super::super) fn ended_unseen(&mut self) {
        self.places.turn(&Filling::GivenUp, &Filling::Undecided);
        self.cause = DownCause::Crash;
    }

    /// Fills no place whose fate is open.
    pub(in super::super) fn give_up_undecided(&mut self) {
        self.places.turn(&Filling::Undecided, &Filling::GivenUp);
    }

    /// Stops what is not ready.
    pub(in super::super) fn stop_starting(&mut self, round: &mut Round<'_>) {
        let starting: Vec<RunId> = self.starting_runs().map(|run| run.id).collect();
        starting.into_iter().for_each(|id| self.vacate(id, Filling::GivenUp, round));
    }

    /// It gets no new run: gives up what is not ready.
    pub(in super::super) fn leave(&mut self, round: &mut Round<'_>) {
        self.stop_starting(round);
        self.places.keep_ready();
    }

    /// Lets its runs take no request any more.
    pub(in super::super) fn close(&self, round: &mut Round<'_>) {
        for run in self.ready_runs() {
            round.push(Effect::Close { run: run.id });
        }
    }

    /// Stops every run.
    pub(in super::super) fn stop(&mut self, round: &mut Round<'_>) {
        let filled: Vec<RunId> = self.places.runs().map(|run| run.id).collect();
        filled.into_iter().for_each(|id| self.vacate(id, Filling::GivenUp, round));
    }

    /// Takes a run out of its place and stops it.
    pub(super) fn vacate(&mut self, id: RunId, next: Filling, round: &mut Round<'_>) {
        if let Some(run) = self.places.empty_place(id, next) {
            self.stop_run(run, round);
        }
    }

    /// Stops a run. An unmanaged one is forgotten instead.
    pub(super) fn stop_run(&mut self, run: Run, round: &mut Round<'_>) {
        if run.managed() {
            round.push(Effect::Stop { run: run.id });
            self.stopping.push(run);
        } else {
            round.push(Effect::Forget { run: run.id });
        }
    }

    /// Starts a run. An unmanaged one is probed: until it is healthy, where `patient`.
    pub(super) fn begin(&self, replica: u16, patient: bool, round: &mut Round<'_>) -> Run {
        self.begin_after(None, replica, patient, round)
    }

    /// The same, a process not before nothing is left of the run `after`.
    pub(super) fn begin_after(
        &self,
        after: Option<RunId>,
        replica: u16,
        patient: bool,
        round: &mut Round<'_>,
    ) -> Run {
        let id = RunId(round.fresh());
        let port = match &self.release.origin {
            Origin::Managed => {
                let release = self.release.id.clone();
                let process = self.process.clone();
                round.push(Effect::Spawn { run: id, release, process, replica, after });
                None
            }
            origin @ Origin::Unmanaged { .. } => {
                round.push(Effect::Probe { run: id, patient });
                origin.ports().get(usize::from(replica)).copied()
            }
        };
        Run { id, release: self.release.clone(), process: self.process.clone(), port }
    }
}
