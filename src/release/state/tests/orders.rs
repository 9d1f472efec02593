//! The invariants, in every order of events and under every policy, kills of the daemon among them.
//!
//! [`World`] is everything around the machine: the processes, the disk and the timers. It says what
//! may happen next ([`World::possible`]), takes note of what happens, and asserts that every effect
//! is one that it can carry out. [`Life`] asserts what has to hold from one step to the next
//! (`checks`).

mod checks;
mod draws;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use draws::{chances, policies, replicas};

/// A kind of what may happen.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Deploy,
    Switch,
    Rollback,
    Cancel,
    Spawned,
    StepStarted,
    StepEnded,
    Ready,
    NotReady,
    Exited,
    Gone,
    Probed,
    Weighed,
    Saved,
    TimerOver,
    Settings,
    Load,
    Wake,
    Shutdown,
    Killed,
}

/// One thing that happens: of all that are possible of its kind the one with this number, modulo
/// how many there are.
type Chance = (Kind, u8);

/// How many replicas are wanted at most.
const MOST: u16 = 4;

/// The memory of a replica that is to be replaced.
const LARGE: u64 = 1000;

/// One of a kind, a few times as probable as the other.
fn mostly(chance: u8, usual: bool) -> bool {
    if chance.is_multiple_of(8) { !usual } else { usual }
}

/// Whether a process outlives the kill of its daemon.
fn survives(run: RunId, chance: u8) -> bool {
    run.0 % 3 != u64::from(chance % 6)
}

/// What became of a run so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Facts {
    /// portok has started a process for it.
    ours: bool,
    /// It is a step of a deploy.
    step: Option<DeployStep>,
    /// The release of a replica that was started.
    release: Option<u32>,
    port: Option<u16>,
    /// Its readiness was asked for and is not reported yet.
    judged: Judged,
    was_ready: bool,
    stops: u32,
    exited: bool,
    gone: bool,
    /// The save that records the switch that took its traffic away.
    retired_at: Option<u64>,
}

impl Facts {
    /// It is no step.
    fn is_replica(&self) -> bool {
        self.ours && self.step.is_none()
    }
}

/// Which companion a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    release: String,
    process: ProcessName,
    replica: u16,
}

/// The answer to a `Spawn`, `Await` or `Probe`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Judged {
    /// It was not asked for, or has been given.
    #[default]
    No,
    /// Due once.
    Due,
    /// The process could not be started at all.
    NeverStarted,
}

/// A number for a release, to compare it by.
fn number_of(release: &str) -> u32 {
    release.strip_prefix('v').and_then(|number| number.parse().ok()).expect("a release that portok starts")
}

/// Everything around the machine.
#[derive(Default)]
struct World {
    runs: BTreeMap<RunId, Facts>,
    /// Those of them that are companions.
    companions: BTreeMap<RunId, Known>,
    /// The companions of each release.
    wanted: BTreeMap<String, Vec<Companion>>,
    /// The save that records the last switch.
    switch: u64,
    /// The runs that requests go to.
    served: Vec<RunId>,
    saves: Vec<u64>,
    recorded: u64,
    timers: Vec<Timer>,
    finished: bool,
    releases: u32,
    /// The steps that the task under way has begun.
    steps: Vec<DeployStep>,
    /// What a save would write, by its number.
    pending: BTreeMap<u64, Boot>,
    /// What is on disk.
    disk: Boot,
}

impl World {
    fn run(&mut self, run: RunId) -> &mut Facts {
        self.runs.entry(run).or_default()
    }

    /// All runs for which this holds.
    fn those(&self, which: impl Fn(&Facts) -> bool) -> Vec<RunId> {
        self.runs.iter().filter(|(_, facts)| which(facts)).map(|(run, _)| *run).collect()
    }

    /// Everything of this kind that may happen now.
    fn possible(&self, kind: Kind, chance: u8, state: &State, policy: &Policy) -> Vec<Event> {
        let of = |runs: Vec<RunId>, event: fn(RunId) -> Event| runs.into_iter().map(event).collect();
        match kind {
            Kind::Deploy => {
                // A new release; now and then one that is known, whatever became of it.
                let number = if chance < 192 { self.releases + 1 } else { u32::from(chance) % 4 };
                let reason = if chance.is_multiple_of(2) { Reason::Deploy } else { Reason::Config };
                let force = chance.is_multiple_of(3) && reason == Reason::Deploy;
                let step = |divisor: u8| chance.is_multiple_of(divisor).then_some(LEFT);
                let plan = Plan { before: step(3), verify: step(5), recreate: policy.recreate };
                vec![Event::Deploy { release: managed(&format!("v{number}")), reason, force, plan }]
            }
            Kind::Switch => {
                let port = 9000 + u16::from(chance % 3);
                let release = if chance < 192 { unmanaged(port) } else { unmanaged_set(&[port, port + 1]) };
                vec![Event::Switch { release, reason: Reason::Manual }]
            }
            Kind::Rollback => {
                let named = ["v1", "v2", "port-9001"][usize::from(chance) % 3];
                let to = (chance >= 192).then(|| named.to_owned());
                vec![Event::Rollback { to, force: chance.is_multiple_of(2) }]
            }
            Kind::Cancel => vec![Event::Cancel],
            Kind::Spawned => {
                let starting = |run: &Facts| run.is_replica() && run.port.is_none() && !run.gone;
                let starts = self.those(|run| starting(run) && run.judged != Judged::NeverStarted);
                let port = |run: RunId| u16::try_from(run.0).unwrap_or(1);
                // A companion is ready once it was executed.
                let executed = |run| match self.companions.get(&run) {
                    Some(_) => Event::Ready { run },
                    None => Event::Spawned { run, port: port(run) },
                };
                starts.into_iter().map(executed).collect()
            }
            Kind::StepStarted => {
                let starts = |run: &Facts| {
                    run.step.is_some() && run.port.is_none() && run.judged == Judged::Due && !run.gone
                };
                of(self.those(starts), |run| Event::StepStarted { run })
            }
            Kind::StepEnded => {
                let runs = self.those(|run| run.step.is_some() && run.judged == Judged::Due && !run.gone);
                let done = |run: &RunId| chance < 160 && self.runs[run].port.is_some();
                runs.iter().map(|run| Event::StepEnded { run: *run, done: done(run) }).collect()
            }
            Kind::Ready => {
                let may = |run: &Facts| {
                    run.step.is_none() && !run.exited && run.judged == Judged::Due && run.port.is_some()
                };
                of(self.those(may), |run| Event::Ready { run })
            }
            // A start that takes too long, or comes to nothing; an app that does not answer as it
            // should.
            Kind::NotReady => {
                let may = |run: &Facts| run.step.is_none() && !run.exited && run.judged == Judged::Due;
                of(self.those(may), |run| Event::NotReady { run })
            }
            Kind::Exited => {
                let alive = self.those(|run| run.is_replica() && run.port.is_some() && !run.exited);
                let port_taken = |run: RunId| chance >= 128 && !self.runs[&run].was_ready;
                alive.into_iter().map(|run| Event::Exited { run, port_taken: port_taken(run) }).collect()
            }
            Kind::Gone => {
                // A step that is late ends when it is stopped.
                let late = |run: &Facts| run.step.is_some() && run.judged == Judged::No && run.stops > 0;
                let ended = |run: &Facts| run.exited || late(run) || run.judged == Judged::NeverStarted;
                of(self.those(|run| ended(run) && !run.gone), |run| Event::Gone { run })
            }
            Kind::Probed => {
                let healthy = chance < 128;
                let probed = |run| Event::LiveProbed { run, healthy };
                state.live_runs().into_iter().map(probed).collect()
            }
            // The same one again and again, so that it is replaced at times.
            Kind::Weighed => {
                let bytes = LARGE * u64::from(mostly(chance, true));
                state.live_run().map(|run| Event::Memory { run: run.id, bytes }).into_iter().collect()
            }
            Kind::Saved => {
                let ok = mostly(chance, true);
                self.saves.last().map(|seq| Event::Recorded { seq: *seq, ok }).into_iter().collect()
            }
            Kind::TimerOver => self.timers.iter().copied().map(over).collect(),
            Kind::Settings => vec![Event::Settings],
            Kind::Load => {
                let Some(live) = state.live_run() else { return Vec::new() };
                let Some((set, _)) = state.place_of(live.id) else { return Vec::new() };
                let inflight = u64::from(chance % 3) * u64::from(chance % 16);
                let tunnels = state.live_runs().into_iter().filter(|run| run.0 % 2 == u64::from(chance % 2));
                let (tunnels, elsewhere) = (tunnels.collect(), chance % 8 == 7);
                vec![Event::Load { set, load: Load { inflight, tunnels, elsewhere } }]
            }
            // A request waits only where nobody serves.
            Kind::Wake if state.is_idle() => vec![Event::Wake],
            Kind::Wake => Vec::new(),
            Kind::Shutdown => vec![Event::Shutdown],
            Kind::Killed => vec![Event::Boot(self.left_after_a_kill(chance))],
        }
    }

    /// Takes note of what happens.
    fn happens(&mut self, event: &Event) {
        match event {
            Event::Deploy { .. } => self.releases += 1,
            Event::Spawned { run, port } => self.run(*run).port = Some(*port),
            Event::StepStarted { run } => self.run(*run).port = Some(1),
            Event::StepEnded { run, done } => {
                let run = self.run(*run);
                run.exited |= *done;
                run.judged = if run.port.is_none() { Judged::NeverStarted } else { Judged::No };
            }
            Event::Ready { run } => {
                let run = self.run(*run);
                (run.was_ready, run.judged) = (true, Judged::No);
                run.port = run.port.or(Some(1));
            }
            Event::NotReady { run } => {
                let run = self.run(*run);
                let never = run.ours && run.port.is_none();
                run.judged = if never { Judged::NeverStarted } else { Judged::No };
            }
            Event::Exited { run, .. } => self.run(*run).exited = true,
            Event::Gone { run } => self.run(*run).gone = true,
            Event::Recorded { seq, ok } => {
                self.saves.retain(|later| later > seq);
                self.recorded = self.recorded.max(*seq);
                if let Some(written) = self.pending.remove(seq).filter(|_| *ok) {
                    self.disk = written;
                }
            }
            Event::Boot(boot) => *self = self.after_a_kill(boot),
            _ => self.timers.retain(|timer| over(*timer) != *event),
        }
    }

    /// What the next daemon finds.
    fn left_after_a_kill(&self, chance: u8) -> Boot {
        let mut boot = self.disk.clone();
        let alive = |run: &RunId| {
            let ended = self.runs.get(run).is_some_and(|run| run.exited || run.gone);
            !ended && survives(*run, chance)
        };
        boot.ended = boot.runs.iter().any(|adopted| adopted.role == Role::Live && !alive(&adopted.run.id));
        boot.runs.retain(|adopted| alive(&adopted.run.id));
        for (adopted, id) in boot.runs.iter_mut().zip(1..) {
            adopted.run.id = RunId(id);
        }
        boot
    }

    /// The world of the next daemon, which has found this.
    fn after_a_kill(&self, boot: &Boot) -> Self {
        let run = |adopted: &Adopted| Facts {
            ours: true,
            step: adopted.step,
            release: adopted.run.process.is_none().then(|| number_of(&adopted.run.release.id)),
            port: Some(1),
            was_ready: matches!(adopted.role, Role::Live | Role::Draining | Role::Stopping),
            stops: u32::from(adopted.role == Role::Stopping),
            ..Facts::default()
        };
        let known = |adopted: &Adopted| {
            let Adopted { run, replica, .. } = adopted;
            let (release, process, replica) = (run.release.id.clone(), run.process.clone()?, *replica);
            Some((run.id, Known { release, process, replica }))
        };
        Self {
            runs: boot.runs.iter().map(|adopted| (adopted.run.id, run(adopted))).collect(),
            companions: boot.runs.iter().filter_map(known).collect(),
            wanted: self.wanted.clone(),
            releases: self.releases,
            disk: self.disk.clone(),
            ..Self::default()
        }
    }

    /// Carries the effects of a step out.
    fn carry_out(&mut self, effects: &[Effect], state: &State) {
        let mut just_retired = Vec::new();
        for effect in effects {
            match effect {
                Effect::Save { seq } => {
                    self.saves.push(*seq);
                    for run in just_retired.drain(..) {
                        self.run(run).retired_at = Some(*seq);
                    }
                    self.pending.insert(*seq, self.written(state));
                }
                Effect::Spawn { run, release, process, replica, .. } => {
                    assert!(!self.runs.contains_key(run), "{run:?} is started twice");
                    let number = process.is_none().then(|| number_of(release));
                    if let Some(process) = process.clone() {
                        let known = Known { release: release.clone(), process, replica: *replica };
                        self.check_start(&known, state);
                        self.companions.insert(*run, known);
                    }
                    let judged = Judged::Due;
                    *self.run(*run) = Facts { ours: true, release: number, judged, ..Facts::default() };
                }
                Effect::RunStep { run, release, step, .. } => {
                    assert!(!self.runs.contains_key(run), "{run:?} is started twice");
                    let reason = state.task.as_ref().map(|task| task.reason);
                    assert!(
                        matches!(reason, Some(Reason::Deploy | Reason::Config)),
                        "{step:?} for {reason:?}"
                    );
                    assert!(!self.steps.contains(step), "{step:?} runs twice");
                    self.steps.push(*step);
                    let (step, release) = (Some(*step), Some(number_of(release)));
                    *self.run(*run) =
                        Facts { ours: true, step, release, judged: Judged::Due, ..Facts::default() };
                }
                Effect::Tell(Tell::Accepted) => self.steps.clear(),
                Effect::Await { run } => self.run(*run).judged = Judged::Due,
                Effect::Probe { run, .. } => {
                    let run = self.run(*run);
                    run.judged = Judged::Due;
                    // Of an unmanaged app.
                    run.port = run.port.or(Some(1));
                }
                Effect::Serve { runs, former, .. } => {
                    assert!(!runs.is_empty(), "nobody gets traffic");
                    for run in runs {
                        let facts = *self.run(*run);
                        assert!(facts.was_ready, "{run:?} gets traffic and was never ready");
                        assert!(!facts.exited, "{run:?} gets traffic and has ended");
                        assert_eq!(facts.stops, 0, "{run:?} gets traffic and is being stopped");
                        self.run(*run).retired_at = None;
                    }
                    // Who had traffic, and loses it by this.
                    let lost = |run: &&RunId| !runs.contains(run) && !state.live_runs().contains(run);
                    just_retired = self.served.iter().filter(lost).copied().collect();
                    assert!(former.is_none() || !just_retired.is_empty());
                    self.served.clone_from(runs);
                }
                Effect::Idle | Effect::Hold(HoldOn::Recreate) => {
                    just_retired = std::mem::take(&mut self.served);
                }
                Effect::Hold(_) | Effect::Unroute => self.served.clear(),
                Effect::Stop { run } => self.stop(*run),
                Effect::Timer(timer) | Effect::Resume(timer, _) => self.timers.push(*timer),
                Effect::Tell(Tell::Switched { seq, from_release, .. }) => {
                    self.switched(*seq, from_release, state)
                }
                Effect::Finished => self.finished = true,
                _ => {}
            }
        }
    }

    /// A companion runs once, not before its release is live on disk, and not beside one of another
    /// tenure, unless it starts before the candidate.
    fn check_start(&self, known: &Known, state: &State) {
        let is_before = |known: &Known| {
            let mut of = self.wanted[&known.release].iter();
            of.any(|companion| companion.before && companion.process == known.process)
        };
        if is_before(known) {
            return;
        }
        let release = state.live_release().map(|release| release.id.as_str());
        assert_eq!(release, Some(known.release.as_str()), "{known:?} is started before its release is live");
        assert!(self.switch <= self.recorded, "{known:?} is started before the switch is written down");
        let others = self.companions.iter().filter(|(run, _)| !self.runs[run].gone);
        for (run, other) in others.filter(|(_, other)| !is_before(other)) {
            assert_eq!(other.release, known.release, "{known:?} runs beside {run:?}");
            assert_ne!(other, known, "it runs twice");
        }
    }

    /// The companions of what traffic has left are retired.
    fn switched(&mut self, seq: u64, left: &Option<ReleaseRef>, state: &State) {
        self.switch = seq;
        let Some(left) = left.as_ref().filter(|left| state.live_release() != Some(left)) else { return };
        for (run, _) in self.companions.iter().filter(|(_, known)| known.release == left.id) {
            if let Some(facts) =
                self.runs.get_mut(run).filter(|facts| facts.stops == 0 && facts.port.is_some())
            {
                facts.retired_at = Some(seq);
            }
        }
    }

    fn stop(&mut self, run: RunId) {
        let (live, recorded) = (self.served.contains(&run), self.recorded);
        let facts = self.run(run);
        facts.stops += 1;
        assert!(facts.ours, "{run:?} is stopped and was never started");
        assert!(!live, "{run:?} is stopped and live");
        assert_eq!(facts.stops, 1, "{run:?} is stopped twice");
        let written = facts.retired_at.is_none_or(|seq| seq <= recorded);
        assert!(written || facts.exited, "{run:?} is stopped before its switch was written down");
    }

    /// What the driver writes: the state after the step.
    fn written(&self, state: &State) -> Boot {
        let facts = |run: &Run| self.runs.get(&run.id).copied().unwrap_or_default();
        let runs = state.runs().filter(|run| run.managed() && facts(run).port.is_some());
        let adopted = |run: &Run| {
            let Facts { stops, step, .. } = facts(run);
            let stopped = stops > 0;
            let (set, replica) = state.place_of(run.id).map_or((0, 0), |(set, replica)| (set.0, replica));
            Adopted { set, replica, step, ..adopted_run(run.clone(), state.role(run.id, stopped)) }
        };
        Boot {
            live: state.live_release().cloned(),
            past: state.past.clone(),
            restarts: state.restarts,
            crashes: state.crashes().collect(),
            companion_crashes: state
                .companion_crashes()
                .map(|(process, crashes)| (process.clone(), crashes.collect()))
                .collect(),
            failed_probes: state.failed_probes(),
            unfinished: state
                .task
                .as_ref()
                .filter(|task| state.live == Live::None && task.plan.verify.is_none())
                .map(|task| (task.release.clone(), task.reason)),
            window: state.window.map(|_| LEFT),
            went_back: state.window.is_some_and(|window| !window.goes_back),
            going_back: state.task.as_ref().is_some_and(|task| task.reason == Reason::AutoRollback),
            recreated: state.recreated,
            recreating: state.task.as_ref().is_some_and(|task| task.plan.recreate) || state.is_vacant(),
            runs: runs.map(adopted).collect(),
            wanted: Some(state.wanted()),
            ended: false,
            leftovers: false,
        }
    }
}

/// The event that is a timer's end.
fn over(timer: Timer) -> Event {
    match timer {
        Timer::Drain(set, seq) => Event::DrainOver { set, seq },
        Timer::Window(ticket) => Event::WindowOver { ticket },
        Timer::Restart(ticket, _) => Event::RestartDue { ticket },
        Timer::Calm(ticket, _) => Event::Calm { ticket },
    }
}

/// The machine in its world.
struct Life {
    state: State,
    world: World,
    policy: Policy,
    now: Duration,
}

impl Life {
    fn new(policy: Policy) -> Self {
        let world = World { wanted: policy.companions.clone(), ..World::default() };
        Self { state: State::default(), world, policy, now: Duration::ZERO }
    }

    fn send(&mut self, event: Event) {
        self.now += Duration::from_millis(7);
        self.world.happens(&event);
        let reborn = matches!(event, Event::Boot(_));
        let before = if reborn { State::default() } else { self.state.clone() };
        self.state = before.clone();
        let effects = self.state.step(event.clone(), self.now, &self.policy);
        self.world.carry_out(&effects, &self.state);
        self.check_route();
        self.check_sets();
        self.check_companions();
        self.check_way_back();
        self.check_room();
        if let Event::Boot(boot) = &event {
            self.check_boot(boot);
        } else {
            self.check_growth(&before, &event, &effects);
            self.check_window(&before, &event, &effects);
            self.check_rollback(&before, &event, &effects);
        }
    }

    /// However it went: the end stops everything, and it ends.
    fn end(mut self) {
        self.send(Event::Shutdown);
        self.send(Event::StopAll);
        for _ in 0..1000 {
            if self.world.finished {
                break;
            }
            for kind in
                [Kind::Saved, Kind::Spawned, Kind::StepStarted, Kind::StepEnded, Kind::Exited, Kind::Gone]
            {
                let possible = self.world.possible(kind, 1, &self.state, &self.policy);
                if let Some(event) = possible.into_iter().next() {
                    self.send(event);
                }
            }
        }
        assert!(self.world.finished, "it never finished: {:?}", self.state);
        for (run, facts) in self.world.runs.iter().filter(|(_, facts)| facts.ours) {
            assert_eq!(facts.stops, 1, "{run:?} was started and not stopped");
        }
    }
}

fn play(policy: Policy, chances: &[Chance]) {
    let mut life = Life::new(policy);
    for (kind, chance) in chances {
        if matches!(kind, Kind::Settings) {
            life.policy.replicas = replicas(*chance);
        }
        let possible = life.world.possible(*kind, *chance, &life.state, &life.policy);
        if !possible.is_empty() {
            life.send(possible[usize::from(*chance) % possible.len()].clone());
        }
    }
    life.end();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_invariants_hold_in_every_order_of_events(policy in policies(), chances in chances()) {
        play(policy, &chances);
    }
}
