//! How the machine's effects are carried out, one call each.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use super::{Answer, Coordinator, Step};
use crate::config::{AppConfig, HoldOn};
use crate::health::Probe;
use crate::release::message::{Message, Report};
use crate::release::run::Start;
use crate::release::runs::StopLadder;
use crate::release::spec::ReleaseSpec;
use crate::release::state::{Effect, FormerTarget, Run, RunId, SetId, Timer};
use crate::release::tasks::report;
use crate::release::traffic::{Member, Members};
use crate::wire;

impl Coordinator {
    /// Carries out one effect. Never waits.
    pub(super) fn perform(&mut self, effect: Effect, config: &Arc<AppConfig>, step: &mut Step) {
        match effect {
            Effect::Save { seq } => step.save = Some(seq),
            Effect::Spawn { run, release, replica, after, .. } => {
                self.spawn(run, release, replica, after, config);
            }
            Effect::RunStep { run, release, step, beside, within } => {
                self.run_step(run, release, step, beside, within);
            }
            Effect::Await { run } => self.await_readiness(run, config),
            Effect::Probe { run, patient } => self.start_probing(run, patient),
            Effect::Serve { set, runs, former } => self.serve(set, &runs, former, config),
            Effect::Hold(reason) => {
                self.live_probe.unrouted();
                let held = config.hold.is_on(reason);
                // The next target after a crash may be near. Another release takes its time.
                if held || reason == HoldOn::Crash { self.traffic.hold(held) } else { self.traffic.unroute() }
            }
            Effect::Idle => {
                self.live_probe.unrouted();
                self.traffic.hold(config.hold.is_on(HoldOn::Idle));
            }
            Effect::Unroute => {
                self.live_probe.unrouted();
                self.traffic.unroute();
            }
            Effect::Close { run } => self.traffic.close(run),
            Effect::Cut { run } => self.traffic.cut(run),
            Effect::Stop { run } => {
                let ladder = self.ladder_of(run, config);
                self.runs.stop(run, ladder);
            }
            Effect::Kill { run } => self.runs.kill(run),
            Effect::Forget { run } => self.runs.stop_probing(run),
            Effect::Timer(timer) => {
                let after = match timer {
                    Timer::Drain(set, _) => self.part(set, config),
                    Timer::Window(_) => config.rollback.window,
                    Timer::Restart(_, delay) | Timer::Calm(_, delay) => delay,
                };
                self.start_timer(timer, after);
            }
            Effect::Resume(timer, left) => self.start_timer(timer, left),
            Effect::Tell(tell) => self.tell(tell, step),
            Effect::Refuse(refusal) => step.answer = Some(Answer::Refused(refusal)),
            Effect::AlreadyLive => step.answer = Some(Answer::AlreadyLive),
            Effect::UnderWay => step.answer = self.voice.reader().map(Answer::Accepted),
            Effect::Finished => step.finished = true,
        }
    }

    /// Tells those who would stay with the runs of `set` until when they may; how long its drain
    /// takes.
    fn part(&self, set: SetId, config: &AppConfig) -> Duration {
        let runs = self.state.runs_of(set);
        let (drain, are_managed) = (&config.drain, self.are_managed(&runs));
        self.traffic.part(&runs, drain.period, drain.tunnels_of(are_managed));
        drain.longest(are_managed)
    }

    /// The run of this id, where the machine knows it.
    pub(super) fn run_of(&self, id: RunId) -> Option<&Run> {
        self.state.runs().find(|run| run.id == id)
    }

    fn spawn(&mut self, id: RunId, release: String, replica: u16, after: Option<RunId>, config: &AppConfig) {
        let Some(run) = self.run_of(id).cloned() else { return };
        self.runs.enter(&run);
        let spec = self.content(&release);
        let spec = match &run.process {
            Some(process) => spec.and_then(|spec| spec.as_companion(process)),
            None => spec,
        };
        let Some(spec) = spec else {
            // Every release is known before the machine hears of it. If one were not, its start
            // would fail and not hang.
            let autopsy =
                wire::Autopsy { summary: format!("release `{release}` is not known"), ..Default::default() };
            let reports = self.tasks.reports();
            self.tasks.spawn(async move {
                for told in [Report::NotReady(Box::new(autopsy)), Report::Gone(None)] {
                    report(&reports, Message::Run(id, Box::new(told))).await;
                }
            });
            return;
        };
        let start = self.how_to_start(&run, replica, spec, config);
        self.runs.spawn(start, after, &mut self.tasks);
    }

    /// A run that was taken over before it was ready.
    fn await_readiness(&mut self, id: RunId, config: &AppConfig) {
        let Some(run) = self.run_of(id).cloned() else { return };
        // It is known: only what has a content is taken over.
        let Some(spec) = self.content(&run.release.id) else { return };
        let replica = self.state.place_of(id).map_or(0, |(_, replica)| replica);
        let start = self.how_to_start(&run, replica, spec, config);
        self.runs.await_readiness(start, &mut self.tasks);
    }

    pub(super) fn content(&self, release: &str) -> Option<ReleaseSpec> {
        self.history.get(release).and_then(|entry| entry.spec.clone())
    }

    fn how_to_start(&mut self, run: &Run, replica: u16, spec: ReleaseSpec, config: &AppConfig) -> Start {
        Start {
            run: run.id,
            release: run.release.id.clone(),
            process: run.process.clone(),
            replica,
            // The port is known when the process is.
            probe: Probe::of(config, (Ipv4Addr::LOCALHOST, 0).into(), spec.health_path.clone()),
            spec,
            successes: config.health.successes,
            start_timeout: config.app.start_timeout,
            owner_check: config.app.owner_check,
            has_file: config.in_file,
            settled: self.runs.enter(run).settled(),
        }
    }

    fn serve(
        &mut self,
        set: SetId,
        runs: &[RunId],
        former: Option<(SetId, FormerTarget)>,
        config: &AppConfig,
    ) {
        let known: Vec<&Run> = runs.iter().filter_map(|id| self.run_of(*id)).collect();
        let Some(release) = known.first().map(|run| run.release.clone()) else { return };
        let member = |run: &&Run| {
            let (_, replica) = self.state.place_of(run.id)?;
            Some(Member { run: run.id, port: run.port?, replica })
        };
        let runs = known.iter().filter_map(member).collect();
        let left = former.map(|(former, treatment)| (self.state.runs_of(former), treatment));
        let left = left.as_ref().map(|(runs, treatment)| (&runs[..], *treatment));
        let members = Members { set, release: &release, runs, most: self.most_of(&release) };
        if self.traffic.serve(&members, left, config) {
            self.live_probe.routed(self.state.failed_probes());
        }
    }
}

/// How a process is stopped, as it is configured now.
pub(super) fn stop_ladder(config: &AppConfig) -> StopLadder {
    StopLadder { signal: config.app.stop_signal, timeout: config.app.stop_timeout }
}
