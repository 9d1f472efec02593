//! The boot: the machine goes on where an earlier daemon left the app.

use std::time::Duration;

use super::*;

impl State {
    pub(super) fn boot(&mut self, boot: Boot, now: Duration, policy: &Policy, out: &mut Vec<Effect>) {
        let Boot {
            live, past, restarts, crashes, failed_probes, unfinished, window, went_back, ended, ..
        } = boot;
        let (going_back, runs) = (boot.going_back, boot.runs);
        self.resume_standing(crashes, failed_probes, policy);
        let ids = runs.iter().map(|adopted| adopted.run.id.0);
        self.next = ids.fold(self.next, u64::max);
        self.restarts = restarts;
        self.past = past;
        if let Some(live) = &live {
            self.past.went_live(live);
        }
        self.live = live.map_or(Live::None, |release| Live::Down {
            release,
            cause: DownCause::Boot,
            stage: DownStage::GivenUp,
        });
        let took_over = !runs.is_empty();
        for Adopted { run, role, left } in runs {
            match &unfinished {
                Some((release, reason)) if role == Role::Candidate && self.may_resume(release, &run) => {
                    self.resume(run, *reason, out);
                }
                _ => self.take_over(run, role, left, out),
            }
        }
        if let Some(left) = window.filter(|_| self.live != Live::None) {
            let ticket = self.fresh();
            self.window = Some(Window { ticket, fails: 0, goes_back: !went_back });
            out.push(Effect::Resume(Timer::Window(ticket), left));
        }
        // Nothing is started where the daemon was told to end while the leftovers were looked for.
        if self.stopping == Stopping::No {
            self.take_up(ended, going_back, now, policy, out);
        }
        if took_over {
            self.save(out);
        }
    }

    /// Whether this run may still become live: it may where no release was, because nothing is
    /// given up for it.
    fn may_resume(&self, release: &ReleaseRef, run: &Run) -> bool {
        let free = self.live == Live::None && self.task.is_none() && self.stopping == Stopping::No;
        free && run.release == *release
    }

    /// Keeps the candidate of an earlier daemon, which may have served already.
    fn resume(&mut self, run: Run, reason: Reason, out: &mut Vec<Effect>) {
        out.push(Effect::Await { run: run.id });
        out.push(Effect::Tell(Tell::Resumed { run: run.id }));
        let release = run.release.clone();
        self.task = Some(Task { release, reason, stage: Stage::Starting { run, tries: 1 } });
    }

    /// Takes over a run of an earlier daemon.
    fn take_over(&mut self, run: Run, role: Role, left: Duration, out: &mut Vec<Effect>) {
        // One run takes the place of the live release; a second one, whatever wrote it down, is
        // stopped.
        let is_live = matches!(
            &self.live,
            Live::Down { release, stage: DownStage::GivenUp, .. } if *release == run.release
        );
        match role {
            Role::Live if is_live => {
                out.push(Effect::Route { run: run.id, former: None });
                out.push(Effect::Tell(Tell::Adopted { run: run.id }));
                self.live = Live::Up { run };
            }
            Role::Restoring if is_live && self.stopping == Stopping::No => {
                out.push(Effect::Await { run: run.id });
                let (release, stage) = (run.release.clone(), DownStage::Starting { run, tries: 1 });
                self.live = Live::Down { release, cause: DownCause::Boot, stage };
            }
            Role::Draining => {
                // It may be stopped before this daemon has saved anything.
                let seq = self.recorded;
                out.push(Effect::Resume(Timer::Drain(run.id, seq), left));
                self.leaving.push(Leaving { run, stage: LeavingStage::Draining { over: false, seq } });
            }
            Role::Stopping => self.leaving.push(Leaving { run, stage: LeavingStage::Stopping }),
            Role::Live | Role::Restoring | Role::Candidate => self.retire_run(run, out),
        }
    }

    /// Brings the live release up, unless a run of it was taken over; an end that nobody saw counts
    /// as a crash.
    fn take_up(
        &mut self,
        ended: bool,
        going_back: bool,
        now: Duration,
        policy: &Policy,
        out: &mut Vec<Effect>,
    ) {
        if let Live::Down { release, cause, stage: stage @ DownStage::GivenUp } = &mut self.live {
            if ended && (self.window.is_some() || going_back) {
                // It ended in its watch window.
                *cause = DownCause::Crash;
                *stage = DownStage::AwaitingRollback;
                let goes_back = self.window.take().is_none_or(|window| window.goes_back);
                if !(goes_back && self.roll_back(policy, out)) {
                    self.crashed(now, policy, out);
                }
                return;
            }
            let release = release.clone();
            let run = self.start(&release, out);
            let stage = DownStage::Starting { run, tries: 1 };
            self.live = Live::Down { release, cause: DownCause::Boot, stage };
        } else if going_back && matches!(self.live, Live::Up { .. }) {
            self.window = None;
            if !self.roll_back(policy, out) {
                out.push(Effect::Tell(Tell::NoWayBack { went_back: false }));
            }
        }
    }
}
