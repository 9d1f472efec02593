//! The machine's edges by example, and its invariants under random orders of events.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::config::Restart;

fn policy() -> Policy {
    Policy {
        window: true,
        threshold: 3,
        standby: false,
        restart: Restart {
            backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(30),
            burst: 5,
            within: Duration::from_secs(60),
            give_up: false,
        },
    }
}

fn managed(id: &str) -> ReleaseRef {
    ReleaseRef { id: id.into(), origin: Origin::Managed }
}

fn unmanaged(port: u16) -> ReleaseRef {
    ReleaseRef { id: format!("port-{port}"), origin: Origin::Unmanaged { port } }
}

/// The machine with a world that does what it is told, as far as a test does not say otherwise.
struct Bench {
    state: State,
    now: Duration,
    policy: Policy,
    log: Vec<Effect>,
}

impl Bench {
    fn new() -> Self {
        Self { state: State::default(), now: Duration::ZERO, policy: policy(), log: Vec::new() }
    }

    fn send(&mut self, event: Event) -> Vec<Effect> {
        let effects = self.state.step(event, self.now, &self.policy);
        self.log.extend(effects.iter().cloned());
        effects
    }

    fn deploy(&mut self, id: &str) -> Vec<Effect> {
        self.send(Event::Deploy { release: managed(id), reason: Reason::Deploy })
    }

    /// Confirms every save that was asked for.
    fn record(&mut self) -> Vec<Effect> {
        let seq = self.last_save();
        self.send(Event::Recorded { seq, ok: true })
    }

    fn last_save(&self) -> u64 {
        let seq = |effect: &Effect| if let Effect::Save { seq } = effect { Some(*seq) } else { None };
        self.log.iter().rev().find_map(seq).expect("a save")
    }

    fn last_spawn(&self) -> RunId {
        let spawned =
            |effect: &Effect| if let Effect::Spawn { run, .. } = effect { Some(*run) } else { None };
        self.log.iter().rev().find_map(spawned).expect("a spawn")
    }

    /// The end of the drain that the run is in.
    fn drain_over(&mut self, run: RunId) -> Vec<Effect> {
        let timer = |effect: &Effect| match effect {
            Effect::Timer(Timer::Drain(drained, seq)) if *drained == run => Some(*seq),
            _ => None,
        };
        let seq = self.log.iter().rev().find_map(timer).expect("a drain");
        self.send(Event::DrainOver { run, seq })
    }

    /// A deploy from acceptance until it is live.
    fn make_live(&mut self, id: &str, port: u16) -> RunId {
        self.deploy(id);
        self.record();
        let run = self.last_spawn();
        self.send(Event::Spawned { run, port });
        self.send(Event::Ready { run });
        self.record();
        run
    }
}

fn routes(effects: &[Effect]) -> Option<(RunId, Option<(RunId, FormerTarget)>)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Route { run, former } => Some((*run, *former)),
        _ => None,
    })
}

fn stops(effects: &[Effect]) -> Vec<RunId> {
    effects
        .iter()
        .filter_map(|effect| if let Effect::Stop { run } = effect { Some(*run) } else { None })
        .collect()
}

fn position(effects: &[Effect], wanted: impl Fn(&Effect) -> bool) -> usize {
    effects.iter().position(wanted).expect("the effect")
}

#[test]
fn a_candidate_is_started_only_when_its_intent_is_written_down() {
    let mut bench = Bench::new();
    let effects = bench.deploy("v1");
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Spawn { .. })));
    assert!(bench.record().iter().any(|effect| matches!(effect, Effect::Spawn { .. })));
}

#[test]
fn a_deploy_whose_intent_cannot_be_written_is_given_up_before_anything_starts() {
    let mut bench = Bench::new();
    bench.deploy("v1");
    let seq = bench.last_save();
    let effects = bench.send(Event::Recorded { seq, ok: false });
    assert!(
        matches!(effects[..], [Effect::Tell(Tell::Aborted { why: Abort::Unrecorded, .. })]),
        "{effects:?}"
    );
    assert_eq!(bench.state.phase(), Phase::Empty);
}

#[test]
fn traffic_moves_before_the_outcome_is_written_and_the_old_is_stopped_after_both() {
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    bench.deploy("v2");
    bench.record();
    let second = bench.last_spawn();
    bench.send(Event::Spawned { run: second, port: 2 });
    let effects = bench.send(Event::Ready { run: second });
    assert_eq!(routes(&effects), Some((second, Some((first, FormerTarget::Retire)))));
    let route = position(&effects, |effect| matches!(effect, Effect::Route { .. }));
    let save = position(&effects, |effect| matches!(effect, Effect::Save { .. }));
    assert!(route < save);
    let outcome = bench.last_save();
    assert_eq!(stops(&bench.drain_over(first)), []);
    assert_eq!(stops(&bench.send(Event::Recorded { seq: outcome, ok: false })), [first]);
}

#[test]
fn a_second_request_is_told_what_is_under_way() {
    let mut bench = Bench::new();
    bench.deploy("v1");
    let busy = Effect::Refuse(Refusal::Busy { release: "v1".into(), reason: Reason::Deploy });
    assert_eq!(bench.deploy("v2"), std::slice::from_ref(&busy));
    assert_eq!(bench.send(Event::Rollback), std::slice::from_ref(&busy));
    let switch = Event::Switch { release: unmanaged(9), port: 9, reason: Reason::Manual };
    assert_eq!(bench.send(switch), [busy]);
}

#[test]
fn a_drain_or_a_watch_window_refuses_nothing_and_a_new_deploy_ends_the_window() {
    let mut bench = Bench::new();
    bench.make_live("v1", 1);
    bench.make_live("v2", 2);
    assert_eq!(bench.state.phase(), Phase::Watching);
    bench.deploy("v3");
    bench.record();
    assert!(bench.state.window.is_none());
    assert!(bench.state.task.is_some());
}

#[test]
fn a_deploy_that_cannot_be_recorded_leaves_the_watch_window_open() {
    let mut bench = Bench::new();
    bench.make_live("v1", 1);
    let live = bench.make_live("v2", 2);
    bench.deploy("v3");
    let seq = bench.last_save();
    bench.send(Event::Recorded { seq, ok: false });
    assert_eq!(bench.state.phase(), Phase::Watching);
    let effects = bench.send(Event::Exited { run: live, port_taken: false });
    assert!(effects.contains(&Effect::Tell(Tell::Accepted)), "it goes back: {effects:?}");
}

#[test]
fn going_back_to_a_release_that_drains_revives_the_same_run_and_cancels_its_stop() {
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    let second = bench.make_live("v2", 2);
    bench.send(Event::Rollback);
    // The drain ends while the probe is under way: the run is needed.
    assert_eq!(stops(&bench.drain_over(first)), []);
    let effects = bench.send(Event::Ready { run: first });
    assert_eq!(routes(&effects), Some((first, Some((second, FormerTarget::Close)))));
    assert_eq!(bench.state.phase(), Phase::Settled, "a rollback opens no window");
    bench.record();
    assert_eq!(stops(&bench.drain_over(first)), [], "a stale timer");
    // And forth again.
    bench.send(Event::Rollback);
    let effects = bench.send(Event::Ready { run: second });
    assert_eq!(routes(&effects), Some((second, Some((first, FormerTarget::Close)))));
    assert_eq!(stops(&bench.log), []);
}

#[test]
fn a_previous_release_that_does_not_answer_is_never_switched_to() {
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    let second = bench.make_live("v2", 2);
    bench.send(Event::Rollback);
    let effects = bench.send(Event::NotReady { run: first });
    assert_eq!(routes(&effects), None);
    assert_eq!(bench.state.live_run().map(|run| run.id), Some(second));
    assert_eq!(stops(&bench.drain_over(first)), [first]);
}

#[test]
fn a_bad_window_goes_back_once_and_flapping_does_not() {
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    let second = bench.make_live("v2", 2);
    for healthy in [false, false, true, false, false] {
        assert_eq!(bench.send(Event::Probed { run: second, healthy }), []);
    }
    let effects = bench.send(Event::Probed { run: second, healthy: false });
    assert!(effects.contains(&Effect::Probe { run: first, patient: false }), "{effects:?}");
    let effects = bench.send(Event::Ready { run: first });
    assert_eq!(routes(&effects), Some((first, Some((second, FormerTarget::Close)))));
}

#[test]
fn an_exit_in_the_window_goes_back_and_to_a_stopped_release_by_starting_it_again() {
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    let second = bench.make_live("v2", 2);
    bench.drain_over(first);
    bench.send(Event::Exited { run: first, port_taken: false });
    bench.send(Event::Gone { run: first });
    bench.send(Event::Exited { run: second, port_taken: false });
    assert_eq!(bench.state.phase(), Phase::Restarting);
    bench.record();
    let again = bench.last_spawn();
    assert_ne!(again, first);
    bench.send(Event::Spawned { run: again, port: 3 });
    let effects = bench.send(Event::Ready { run: again });
    assert_eq!(routes(&effects), Some((again, None)));
    assert_eq!(bench.state.live_release(), Some(&managed("v1")));
}

#[test]
fn with_the_old_one_dead_too_the_new_one_is_restarted_like_after_any_crash() {
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    let second = bench.make_live("v2", 2);
    bench.send(Event::Exited { run: second, port_taken: false });
    let effects = bench.send(Event::NotReady { run: first });
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Timer(Timer::Restart(..)))), "{effects:?}");
    assert_eq!(bench.state.live_release(), Some(&managed("v2")));
}

#[test]
fn crashes_are_restarted_with_growing_delays_until_the_limit() {
    let mut bench = Bench::new();
    bench.policy.window = false;
    let mut run = bench.make_live("v1", 1);
    let mut delays = Vec::new();
    for _ in 0..10 {
        let effects = bench.send(Event::Exited { run, port_taken: false });
        let timer = effects.iter().find_map(|effect| match effect {
            Effect::Timer(Timer::Restart(ticket, delay)) => Some((*ticket, *delay)),
            _ => None,
        });
        let (ticket, delay) = timer.expect("a restart");
        delays.push(delay.as_millis());
        bench.now += delay;
        bench.send(Event::RestartDue { ticket });
        run = bench.last_spawn();
        bench.send(Event::Spawned { run, port: 1 });
        if delays.len() < 5 {
            bench.send(Event::Ready { run });
        }
    }
    // Once at the limit it stays there, although the first crashes are forgotten by then.
    assert_eq!(delays, [100, 200, 400, 800, 30_000, 30_000, 30_000, 30_000, 30_000, 30_000]);
    let loops = |effect: &&Effect| matches!(effect, Effect::Tell(Tell::Crashed { loops_now: true, .. }));
    assert_eq!(bench.log.iter().filter(loops).count(), 1, "told once");
    assert_eq!(bench.state.phase(), Phase::Failed);
    // A deploy mends it.
    bench.make_live("v2", 2);
    assert_eq!(bench.state.phase(), Phase::Settled);
}

#[test]
fn a_release_that_may_be_given_up_is_not_tried_again() {
    let mut bench = Bench::new();
    bench.policy = Policy {
        window: false,
        restart: Restart { burst: 1, give_up: true, ..policy().restart },
        ..policy()
    };
    let run = bench.make_live("v1", 1);
    let effects = bench.send(Event::Exited { run, port_taken: false });
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Timer(_))), "{effects:?}");
    assert_eq!(bench.state.phase(), Phase::Failed);
}

#[test]
fn a_candidate_that_finds_its_port_taken_is_tried_on_others_the_last_time_without_holding_it() {
    let mut bench = Bench::new();
    bench.deploy("v1");
    bench.record();
    let mut held = Vec::new();
    for _ in 0..3 {
        let run = bench.last_spawn();
        held.extend(bench.log.iter().rev().find_map(|effect| match effect {
            Effect::Spawn { hold_port, .. } => Some(*hold_port),
            _ => None,
        }));
        bench.send(Event::Exited { run, port_taken: true });
    }
    assert_eq!(held, [true, true, false]);
    assert!(bench.state.task.is_none());
}

#[test]
fn switching_to_the_live_port_changes_nothing_and_to_a_draining_runs_port_revives_it() {
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    bench.make_live("v2", 2);
    let switch = |port| Event::Switch { release: unmanaged(port), port, reason: Reason::Manual };
    assert_eq!(bench.send(switch(2)), [Effect::AlreadyLive]);
    bench.send(switch(1));
    let effects = bench.record();
    assert!(effects.contains(&Effect::Probe { run: first, patient: false }), "{effects:?}");
    bench.send(Event::Ready { run: first });
    assert_eq!(bench.state.live_release(), Some(&managed("v1")));
}

#[test]
fn an_unmanaged_target_is_never_signalled() {
    let mut bench = Bench::new();
    bench.send(Event::Boot(Boot { live: Some(unmanaged(1)), ..Boot::default() }));
    let probe = bench.log.iter().find_map(|effect| match effect {
        Effect::Probe { run, patient: true } => Some(*run),
        _ => None,
    });
    let first = probe.expect("a patient probe");
    bench.send(Event::Ready { run: first });
    bench.make_live("v2", 2);
    let effects = bench.drain_over(first);
    assert!(effects.contains(&Effect::Forget { run: first }), "{effects:?}");
    assert_eq!(stops(&bench.log), []);
}

#[test]
fn standby_keeps_the_previous_release_until_the_window_has_passed() {
    let mut bench = Bench::new();
    bench.policy.standby = true;
    let first = bench.make_live("v1", 1);
    bench.make_live("v2", 2);
    assert_eq!(stops(&bench.drain_over(first)), []);
    let ticket = bench.state.window.expect("a window").ticket;
    assert_eq!(stops(&bench.send(Event::WindowOver { ticket })), [first]);
}

#[test]
fn cancel_gives_up_the_candidate_and_nothing_else() {
    let mut bench = Bench::new();
    bench.make_live("v1", 1);
    assert_eq!(bench.send(Event::Cancel), [Effect::Refuse(Refusal::NothingUnderWay)]);
    bench.deploy("v2");
    bench.record();
    let candidate = bench.last_spawn();
    let effects = bench.send(Event::Cancel);
    assert_eq!(stops(&effects), [candidate]);
    assert_eq!(bench.state.live_release(), Some(&managed("v1")));
}

#[test]
fn the_timer_of_an_earlier_drain_does_not_end_a_later_one() {
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    let second = bench.make_live("v2", 2);
    let earlier = bench.log.iter().find_map(|effect| match effect {
        Effect::Timer(Timer::Drain(run, seq)) if *run == first => Some(*seq),
        _ => None,
    });
    for run in [first, second] {
        bench.send(Event::Rollback);
        bench.send(Event::Ready { run });
        bench.record();
    }
    let stale = Event::DrainOver { run: first, seq: earlier.expect("a drain") };
    assert_eq!(bench.send(stale), [], "it drains for the second time");
    assert_eq!(stops(&bench.drain_over(first)), [first]);
}

#[test]
fn a_port_of_a_run_that_is_being_stopped_is_not_switched_to() {
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    bench.make_live("v2", 2);
    bench.drain_over(first);
    let effects = bench.send(Event::Switch { release: unmanaged(1), port: 1, reason: Reason::Manual });
    assert_eq!(effects, [Effect::Refuse(Refusal::PortInUse { release: "v1".into() })]);
}

#[test]
fn a_daemon_that_is_asked_to_end_before_it_has_begun_starts_nothing() {
    let mut bench = Bench::new();
    bench.send(Event::Shutdown);
    let effects = bench.send(Event::Boot(Boot { live: Some(managed("v1")), ..Boot::default() }));
    assert!(matches!(effects[..], [Effect::Save { .. }]), "{effects:?}");
    assert_eq!(bench.state.live_release(), Some(&managed("v1")), "the record stays as it was");
    assert_eq!(bench.send(Event::StopAll), [Effect::Finished]);
}

// ---- what an earlier daemon left ----

const LEFT: Duration = Duration::from_secs(3);

fn adopted(id: u64, release: &str, role: Role) -> Adopted {
    let port = u16::try_from(id).ok();
    Adopted { run: Run { id: RunId(id), release: managed(release), port }, role, left: LEFT }
}

fn record(live: &str, previous: &str, runs: Vec<Adopted>) -> Boot {
    Boot { live: Some(managed(live)), previous: Some(managed(previous)), runs, ..Boot::default() }
}

#[test]
fn what_was_live_goes_on_serving_and_its_timers_run_on() {
    let mut bench = Bench::new();
    let runs = vec![adopted(1, "v2", Role::Live), adopted(2, "v1", Role::Draining)];
    let effects = bench.send(Event::Boot(Boot { window: Some(LEFT), ..record("v2", "v1", runs) }));
    assert_eq!(routes(&effects), Some((RunId(1), None)));
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Spawn { .. } | Effect::Probe { .. })));
    let resumed = |effect: &Effect| match effect {
        Effect::Resume(timer, left) => Some((*timer, *left)),
        _ => None,
    };
    let resumed: Vec<_> = effects.iter().filter_map(resumed).collect();
    let ticket = bench.state.window.expect("the window is open").ticket;
    assert_eq!(resumed, [(Timer::Drain(RunId(2), 0), LEFT), (Timer::Window(ticket), LEFT)]);
    // And back, to the very process.
    let effects = bench.send(Event::Exited { run: RunId(1), port_taken: false });
    assert!(effects.contains(&Effect::Probe { run: RunId(2), patient: false }), "{effects:?}");
    let effects = bench.send(Event::Ready { run: RunId(2) });
    assert_eq!(routes(&effects), Some((RunId(2), None)));
}

#[test]
fn an_adopted_drain_ends_with_the_stop() {
    let mut bench = Bench::new();
    let runs = vec![adopted(1, "v2", Role::Live), adopted(2, "v1", Role::Draining)];
    bench.send(Event::Boot(record("v2", "v1", runs)));
    assert_eq!(stops(&bench.send(Event::DrainOver { run: RunId(2), seq: 0 })), [RunId(2)]);
    // New runs get new names.
    bench.make_live("v3", 3);
    assert!(bench.log.iter().all(|effect| !matches!(effect, Effect::Spawn { run: RunId(1 | 2), .. })));
}

#[test]
fn a_candidate_is_given_up_and_what_was_asked_to_stop_is_not_asked_again() {
    let mut bench = Bench::new();
    let runs = vec![
        adopted(1, "v1", Role::Live),
        adopted(2, "v2", Role::Candidate),
        adopted(3, "v0", Role::Stopping),
    ];
    let effects = bench.send(Event::Boot(record("v1", "v0", runs)));
    assert_eq!(routes(&effects), Some((RunId(1), None)));
    assert_eq!(stops(&effects), [RunId(2)]);
    assert!(bench.send(Event::Gone { run: RunId(3) }).iter().any(|e| matches!(e, Effect::Tell(_))));
}

#[test]
fn a_start_that_was_under_way_goes_on() {
    let mut bench = Bench::new();
    let effects = bench.send(Event::Boot(record("v1", "v0", vec![adopted(1, "v1", Role::Restoring)])));
    assert!(effects.contains(&Effect::Await { run: RunId(1) }), "{effects:?}");
    let effects = bench.send(Event::Ready { run: RunId(1) });
    assert_eq!(routes(&effects), Some((RunId(1), None)));
}

#[test]
fn an_end_that_nobody_saw_is_one_in_the_watch_window_and_outside_it_a_start() {
    let gone = |window| Boot { window, ended: true, ..record("v2", "v1", Vec::new()) };
    let mut bench = Bench::new();
    bench.send(Event::Boot(gone(Some(LEFT))));
    bench.record();
    let spawned = bench.log.iter().find_map(|effect| match effect {
        Effect::Spawn { release, .. } => Some(release.as_str()),
        _ => None,
    });
    assert_eq!(spawned, Some("v1"), "back to the release before");
    let mut bench = Bench::new();
    let effects = bench.send(Event::Boot(gone(None)));
    assert!(
        effects.iter().any(|e| matches!(e, Effect::Spawn { release, .. } if release == "v2")),
        "{effects:?}"
    );
}

#[test]
fn a_rollback_of_portoks_own_is_taken_up_again() {
    let mut bench = Bench::new();
    let runs = vec![adopted(1, "v2", Role::Live)];
    let effects = bench.send(Event::Boot(Boot { going_back: true, ..record("v2", "v1", runs) }));
    assert_eq!(routes(&effects), Some((RunId(1), None)), "it serves until the other one is ready");
    let task = bench.state.task.as_ref().map(|task| (task.release.id.as_str(), task.reason));
    assert_eq!(task, Some(("v1", Reason::AutoRollback)));
}

#[test]
fn a_daemon_that_is_asked_to_end_before_it_has_begun_stops_what_it_took_over() {
    let mut bench = Bench::new();
    bench.send(Event::Shutdown);
    let runs = vec![adopted(1, "v2", Role::Live), adopted(2, "v1", Role::Draining)];
    bench.send(Event::Boot(record("v2", "v1", runs)));
    bench.send(Event::StopAll);
    let mut stopped = stops(&bench.log);
    stopped.sort();
    assert_eq!(stopped, [RunId(1), RunId(2)]);
    assert_eq!(bench.state.live_release(), Some(&managed("v2")));
}

// ---- random orders ----

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
            !self.exited.contains(run) && !self.gone.contains(run) && !(run.0 % 3 == u64::from(ended % 6))
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
