//! Who gets requests, and how many replicas the live release has.

use super::*;

impl State {
    /// Spreads requests over the runs of the live set that are to get them, where these are others
    /// than before. `switch`: traffic moves to this set, from another one where there was one.
    pub(super) fn serve(&mut self, switch: Option<Option<(SetId, FormerTarget)>>, round: &mut Round<'_>) {
        let Some(live) = self.live.set().filter(|live| live.serves()) else { return };
        let is_watched = self.window.is_some() && switch.is_none();
        // In the window a run that fails its probes is the verdict's business.
        let threshold = if is_watched { u32::MAX } else { round.policy.failures };
        let (set, runs) = (live.id(), live.places().served(threshold));
        if switch.is_some() || runs != self.served {
            self.served.clone_from(&runs);
            round.push(Effect::Serve { set, runs, former: switch.flatten() });
        }
    }

    /// Brings the live release between the bounds of now: at once to more, to fewer when neither a
    /// window nor a task is open.
    pub(super) fn adjust(&mut self, round: &mut Round<'_>) {
        if self.stopping != Stopping::No {
            return;
        }
        if !self.goes_back() {
            self.grow_to(0, round);
        }
        if self.window.is_none()
            && self.task.is_none()
            && let Some(live) = self.live_release()
        {
            // One that is to replace another comes on top.
            let most = round.replicas(live).max + self.recycling.extra();
            self.shrink_to(most, round);
        }
    }

    /// Takes replicas of the live release away until there are `most`.
    pub(super) fn shrink_to(&mut self, most: u16, round: &mut Round<'_>) {
        loop {
            let Live::Set(set) = &mut self.live else { return };
            if set.places().len() <= most {
                return;
            }
            if let Some((run, replica)) = set.shrink(round) {
                self.part_with(run, replica, round);
            }
        }
    }

    /// Starts replicas of the live release until there are `wanted`, as far as the bounds allow it.
    pub(super) fn grow_to(&mut self, wanted: u16, round: &mut Round<'_>) {
        let Live::Set(set) = &mut self.live else { return };
        let replicas = round.replicas(set.release());
        while set.places().len() < replicas.within(wanted) {
            set.grow(round);
        }
    }

    /// How many replicas of a candidate start: as many as the live release is to have, and at least
    /// one.
    pub(super) fn wanted_of_candidate(&self, release: &ReleaseRef, round: &Round<'_>) -> u16 {
        round.replicas(release).within(self.wanted()).max(1)
    }

    /// A replica leaves the live set: it drains as a set of its own.
    pub(super) fn part_with(&mut self, run: Run, replica: u16, round: &mut Round<'_>) {
        if self.is_idle() {
            self.served.clear();
            round.push(Effect::Idle);
            let release = run.release.clone();
            round.push(Effect::Tell(Tell::Idle { release }));
        } else {
            self.serve(None, round);
        }
        round.push(Effect::Close { run: run.id });
        let set = ReplicaSet::of_ready(run, replica, round);
        let seq = round.save();
        self.let_go(set, seq, round);
    }
}
