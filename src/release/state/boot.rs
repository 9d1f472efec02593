//! The boot: the machine goes on where an earlier daemon left the app.

use std::time::Duration;

use super::*;

impl State {
    pub(super) fn boot(&mut self, boot: Boot, round: &mut Round<'_>) {
        let Boot {
            live, past, restarts, crashes, failed_probes, unfinished, window, went_back, ended, ..
        } = boot;
        let (going_back, runs) = (boot.going_back, boot.runs);
        self.resume_standing(failed_probes, round.policy);
        runs.iter().for_each(|adopted| round.ids.skip(adopted.run.id.0));
        self.restarts = restarts;
        self.past = past;
        if let Some(live) = &live {
            self.past.went_live(live);
        }
        self.live = live.map_or(Live::None, |release| {
            let mut set = ReplicaSet::vacant(release, round);
            set.remember_crashes(crashes);
            Live::Set(set)
        });
        let took_over = !runs.is_empty();
        for Adopted { run, role, left } in runs {
            match &unfinished {
                Some((release, reason)) if role == Role::Candidate && self.may_resume(release, &run) => {
                    self.resume(run, *reason, round);
                }
                _ => self.take_over(run, role, left, round),
            }
        }
        if let Some(left) = window.filter(|_| self.live != Live::None) {
            let ticket = round.fresh();
            self.window = Some(Window { ticket, fails: 0, goes_back: !went_back });
            round.push(Effect::Resume(Timer::Window(ticket), left));
        }
        // Nothing is started where the daemon was told to end while the leftovers were looked for.
        if self.stopping == Stopping::No {
            self.take_up(ended, going_back, round);
        }
        if took_over {
            round.save();
        }
    }

    /// Whether this run may still become live: it may where no release was, because nothing is
    /// given up for it.
    fn may_resume(&self, release: &ReleaseRef, run: &Run) -> bool {
        let free = self.live == Live::None && self.task.is_none() && self.stopping == Stopping::No;
        free && run.release == *release
    }

    /// Keeps the candidate of an earlier daemon, which may have served already.
    fn resume(&mut self, run: Run, reason: Reason, round: &mut Round<'_>) {
        round.push(Effect::Await { run: run.id });
        round.push(Effect::Tell(Tell::Resumed { run: run.id }));
        let release = run.release.clone();
        self.task = Some(Task {
            release,
            reason,
            stage: Stage::Starting { set: ReplicaSet::of_starting(run, round) },
        });
    }

    /// Takes over a run of an earlier daemon.
    fn take_over(&mut self, run: Run, role: Role, left: Duration, round: &mut Round<'_>) {
        // One run takes the place of the live release; a second one, whatever wrote it down, is
        // stopped.
        let (id, stopping) = (run.id, self.stopping != Stopping::No);
        let live = self.live.set_mut().filter(|set| *set.release() == run.release && set.has_given_up());
        match (role, live) {
            (Role::Live, Some(live)) => {
                round.push(Effect::Route { run: id, former: None });
                round.push(Effect::Tell(Tell::Adopted { run: id }));
                live.take_in_ready(run);
            }
            (Role::Restoring, Some(live)) if !stopping => {
                round.push(Effect::Await { run: id });
                live.take_in_starting(run);
            }
            (Role::Draining, _) => {
                // It may be stopped before this daemon has saved anything.
                let seq = self.recorded;
                round.push(Effect::Resume(Timer::Drain(id, seq), left));
                let stage = LeavingStage::Draining { over: false, seq };
                self.leaving.push(Leaving { set: ReplicaSet::of_ready(run, round), stage });
            }
            (Role::Stopping, _) => self.forget_or_await(ReplicaSet::of_stopping(run, round)),
            (Role::Live | Role::Restoring | Role::Candidate, _) => {
                let mut set = ReplicaSet::of_ready(run, round);
                set.stop(round);
                self.forget_or_await(set);
            }
        }
    }

    /// Brings the live release up, unless a run of it was taken over; an end that nobody saw counts
    /// as a crash.
    fn take_up(&mut self, ended: bool, going_back: bool, round: &mut Round<'_>) {
        let Live::Set(set) = &mut self.live else { return };
        if set.has_given_up() {
            if !(ended && (self.window.is_some() || going_back)) {
                set.fill_up(round);
                return;
            }
            // It ended in its watch window.
            set.ended_unseen();
            let goes_back = self.window.take().is_none_or(|window| window.goes_back);
            if !(goes_back && self.roll_back(round)) {
                self.crashed(round);
            }
        } else if going_back && set.serves() {
            self.window = None;
            if !self.roll_back(round) {
                round.push(Effect::Tell(Tell::NoWayBack { went_back: false }));
            }
        }
    }
}
