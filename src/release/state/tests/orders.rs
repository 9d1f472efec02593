//! The invariants, in every order of events, kills of the daemon among them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// What may happen next, chosen by numbers that are taken modulo what is possible.
#[derive(Debug, Clone)]
enum Chance {
    Deploy,
    Switch(u8),
    Rollback,
    Cancel,
    Spawned(u8),
    Ready(u8),
    NotReady(u8),
    Exited(u8, bool),
    Gone(u8),
    Probed(bool),
    Saved(bool),
    Timer(u8),
    Shutdown,
    /// The daemon is killed; of its runs, these have ended when the next one comes.
    Killed(u8),
}

fn chances() -> impl Strategy<Value = Vec<Chance>> {
    let any_run = any::<u8>();
    let chance = prop_oneof![
        3 => Just(Chance::Deploy),
        1 => (0u8..3).prop_map(Chance::Switch),
        2 => Just(Chance::Rollback),
        1 => Just(Chance::Cancel),
        6 => any_run.prop_map(Chance::Spawned),
        6 => any::<u8>().prop_map(Chance::Ready),
        2 => any::<u8>().prop_map(Chance::NotReady),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(run, taken)| Chance::Exited(run, taken)),
        4 => any::<u8>().prop_map(Chance::Gone),
        3 => any::<bool>().prop_map(Chance::Probed),
        6 => prop::bool::weighted(0.9).prop_map(Chance::Saved),
        4 => any::<u8>().prop_map(Chance::Timer),
        1 => Just(Chance::Shutdown),
        1 => any::<u8>().prop_map(Chance::Killed),
    ];
    prop::collection::vec(chance, 1..120)
}

/// What the world did with the effects so far.
#[derive(Default)]
struct World {
    spawned: BTreeSet<RunId>,
    ports: BTreeMap<RunId, u16>,
    exited: BTreeSet<RunId>,
    gone: BTreeSet<RunId>,
    stopped: BTreeMap<RunId, u32>,
    probing: BTreeSet<RunId>,
    was_ready: BTreeSet<RunId>,
    routed: Option<RunId>,
    saves: Vec<u64>,
    recorded: u64,
    retired_at: BTreeMap<RunId, u64>,
    timers: Vec<Timer>,
    finished: bool,
    /// What a save would write, by its number.
    pending: BTreeMap<u64, Boot>,
    /// What is on disk.
    disk: Boot,
}

impl World {
    /// What the driver writes for a save: the state after the step.
    fn snapshot(&mut self, effects: &[Effect], state: &State) {
        let save = effects.iter().rev().find_map(|effect| match effect {
            Effect::Save { seq } => Some(*seq),
            _ => None,
        });
        let Some(seq) = save else { return };
        let runs = state.runs().filter(|run| run.managed() && run.port.is_some());
        let runs = runs.map(|run| {
            let role = state.role(run.id, self.stopped.contains_key(&run.id));
            Adopted { run: run.clone(), role, left: LEFT }
        });
        let boot = Boot {
            live: state.live_release().cloned(),
            previous: state.previous.as_ref().map(|previous| previous.release.clone()),
            restarts: state.restarts,
            window: state.window.map(|_| LEFT),
            going_back: state.task.as_ref().is_some_and(|task| task.reason == Reason::AutoRollback),
            runs: runs.collect(),
            ended: false,
        };
        self.pending.insert(seq, boot);
    }

    /// The world of the next daemon, and what that one is told of the former's.
    fn after_a_kill(&self, ended: u8) -> (Self, Boot) {
        let mut boot = self.disk.clone();
        let mut next = Self { disk: boot.clone(), ..Self::default() };
        let alive = |run: &RunId| {
            !self.exited.contains(run) && !self.gone.contains(run) && run.0 % 3 != u64::from(ended % 6)
        };
        boot.ended = boot.runs.iter().any(|adopted| adopted.role == Role::Live && !alive(&adopted.run.id));
        boot.runs.retain(|adopted| alive(&adopted.run.id));
        for (index, adopted) in boot.runs.iter_mut().enumerate() {
            let id = RunId(index as u64 + 1);
            next.spawned.insert(id);
            next.ports.insert(id, adopted.run.port.expect("a port"));
            if matches!(adopted.role, Role::Live | Role::Draining | Role::Stopping) {
                next.was_ready.insert(id);
            }
            if adopted.role == Role::Stopping {
                next.stopped.insert(id, 1);
            }
            adopted.run.id = id;
        }
        (next, boot)
    }

    fn check(&mut self, effects: &[Effect]) {
        let mut just_retired = None;
        for effect in effects {
            match effect {
                Effect::Save { seq } => {
                    self.saves.push(*seq);
                    if let Some(run) = just_retired.take() {
                        self.retired_at.insert(run, *seq);
                    }
                }
                Effect::Spawn { run, .. } => {
                    assert!(self.spawned.insert(*run), "{run:?} is started twice");
                }
                Effect::Probe { run, .. } => {
                    self.probing.insert(*run);
                }
                Effect::Route { run, former } => {
                    assert!(self.was_ready.contains(run), "{run:?} gets traffic and was never ready");
                    assert!(!self.exited.contains(run), "{run:?} gets traffic and has ended");
                    assert!(!self.stopped.contains_key(run), "{run:?} gets traffic and is being stopped");
                    self.routed = Some(*run);
                    self.retired_at.remove(run);
                    just_retired = former.map(|(former, _)| former);
                }
                Effect::Hold | Effect::Unroute => self.routed = None,
                Effect::Stop { run } => {
                    assert!(self.spawned.contains(run), "{run:?} is stopped and was never started");
                    assert_ne!(self.routed, Some(*run), "{run:?} is stopped and live");
                    let times = self.stopped.entry(*run).or_default();
                    *times += 1;
                    assert_eq!(*times, 1, "{run:?} is stopped twice");
                    if let Some(seq) = self.retired_at.get(run)
                        && !self.exited.contains(run)
                    {
                        assert!(
                            *seq <= self.recorded,
                            "{run:?} is stopped before its switch was written down"
                        );
                    }
                }
                Effect::Timer(timer) | Effect::Resume(timer, _) => self.timers.push(*timer),
                Effect::Finished => self.finished = true,
                _ => {}
            }
        }
    }
}

fn pick<T: Copy>(from: impl IntoIterator<Item = T>, chance: u8) -> Option<T> {
    let all: Vec<T> = from.into_iter().collect();
    if all.is_empty() { None } else { Some(all[usize::from(chance) % all.len()]) }
}

fn play(chances: &[Chance]) {
    let (mut state, mut world, policy) = (State::default(), World::default(), policy());
    let mut now = Duration::ZERO;
    let mut releases = 0;
    let mut send = |event: Event, state: &mut State, world: &mut World| {
        now += Duration::from_millis(7);
        let effects = state.step(event, now, &policy);
        world.check(&effects);
        world.snapshot(&effects, state);
        effects
    };
    for chance in chances {
        let here = |world: &World| -> Vec<RunId> {
            world.spawned.iter().filter(|run| !world.gone.contains(run)).copied().collect()
        };
        let event = match chance {
            Chance::Deploy => {
                releases += 1;
                Some(Event::Deploy { release: managed(&format!("v{releases}")), reason: Reason::Deploy })
            }
            Chance::Switch(n) => {
                let port = 9000 + u16::from(*n);
                Some(Event::Switch { release: unmanaged(port), port, reason: Reason::Manual })
            }
            Chance::Rollback => Some(Event::Rollback),
            Chance::Cancel => Some(Event::Cancel),
            Chance::Spawned(n) => {
                let waiting = here(&world).into_iter().filter(|run| !world.ports.contains_key(run));
                pick(waiting.collect::<Vec<_>>(), *n).map(|run| {
                    let port = u16::try_from(run.0).unwrap_or(1);
                    world.ports.insert(run, port);
                    Event::Spawned { run, port }
                })
            }
            Chance::Ready(n) => {
                let started = here(&world)
                    .into_iter()
                    .filter(|run| world.ports.contains_key(run) && !world.exited.contains(run))
                    .filter(|run| !world.was_ready.contains(run) && !world.stopped.contains_key(run));
                let asked = world.probing.iter().copied().filter(|run| !world.exited.contains(run));
                pick(started.chain(asked).collect::<Vec<_>>(), *n).map(|run| {
                    world.was_ready.insert(run);
                    world.probing.remove(&run);
                    Event::Ready { run }
                })
            }
            Chance::NotReady(n) => pick(world.probing.iter().copied().collect::<Vec<_>>(), *n).map(|run| {
                world.probing.remove(&run);
                Event::NotReady { run }
            }),
            Chance::Exited(n, taken) => {
                let alive = here(&world).into_iter().filter(|run| !world.exited.contains(run));
                pick(alive.collect::<Vec<_>>(), *n).map(|run| {
                    world.exited.insert(run);
                    let port_taken = *taken && !world.was_ready.contains(&run);
                    Event::Exited { run, port_taken }
                })
            }
            Chance::Gone(n) => {
                let ended = here(&world).into_iter().filter(|run| world.exited.contains(run));
                pick(ended.collect::<Vec<_>>(), *n).map(|run| {
                    world.gone.insert(run);
                    Event::Gone { run }
                })
            }
            Chance::Probed(healthy) => {
                state.live_run().map(|run| Event::Probed { run: run.id, healthy: *healthy })
            }
            Chance::Saved(ok) => world.saves.pop().map(|seq| {
                world.saves.retain(|later| *later > seq);
                world.recorded = world.recorded.max(seq);
                if let Some(written) = world.pending.remove(&seq).filter(|_| *ok) {
                    world.disk = written;
                }
                Event::Recorded { seq, ok: *ok }
            }),
            Chance::Timer(n) => {
                let at = usize::from(*n) % world.timers.len().max(1);
                (at < world.timers.len()).then(|| match world.timers.swap_remove(at) {
                    Timer::Drain(run, seq) => Event::DrainOver { run, seq },
                    Timer::Window(ticket) => Event::WindowOver { ticket },
                    Timer::Restart(ticket, _) => Event::RestartDue { ticket },
                })
            }
            Chance::Shutdown => Some(Event::Shutdown),
            Chance::Killed(ended) => {
                let boot;
                (world, boot) = world.after_a_kill(*ended);
                state = State::default();
                Some(Event::Boot(boot))
            }
        };
        if let Some(event) = event {
            send(event, &mut state, &mut world);
        }
        if let Some(live) = state.live_run()
            && live.release.origin == Origin::Managed
        {
            assert_eq!(world.routed, Some(live.id), "the route is not where the machine says");
        }
    }
    // However it went: the end stops everything, and it ends.
    send(Event::Shutdown, &mut state, &mut world);
    send(Event::StopAll, &mut state, &mut world);
    for _ in 0..1000 {
        if world.finished {
            break;
        }
        if let Some(seq) = world.saves.pop() {
            world.saves.clear();
            world.recorded = world.recorded.max(seq);
            send(Event::Recorded { seq, ok: true }, &mut state, &mut world);
        }
        let next = world.spawned.iter().copied().find(|run| !world.gone.contains(run));
        if let Some(run) = next {
            if world.exited.insert(run) {
                send(Event::Exited { run, port_taken: false }, &mut state, &mut world);
            }
            world.gone.insert(run);
            send(Event::Gone { run }, &mut state, &mut world);
        }
    }
    assert!(world.finished, "it never finished: {state:?}");
    for run in &world.spawned {
        assert_eq!(world.stopped.get(run), Some(&1), "{run:?} was started and not stopped");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_invariants_hold_in_every_order_of_events(chances in chances()) {
        play(&chances);
    }
}
