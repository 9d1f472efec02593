//! The machine's edges by example ([`boot`]: those of a start; [`sets`]: those of several
//! replicas; [`companions`]: those of companions; [`recycling`]: those of one that grows too large),
//! and its invariants under random orders of events ([`orders`]).

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::config::Restart;

mod around;
mod boot;
mod companions;
mod growth;
mod orders;
mod recycling;
mod sets;
mod standing;

/// The rest of the time of an earlier daemon's timers.
const LEFT: Duration = Duration::from_secs(3);

fn policy() -> Policy {
    Policy {
        window: true,
        threshold: 3,
        failures: 3,
        standby: false,
        replicas: crate::config::Replicas::fixed(1),
        companions: BTreeMap::new(),
        max_memory: None,
        recycle_after: Duration::from_secs(600),
        recreate: false,
        restart: Restart {
            backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(30),
            burst: 5,
            within: Duration::from_secs(60),
            give_up: false,
        },
    }
}

/// A run that an earlier daemon has left, in the first place of its set.
fn adopted_run(run: Run, role: Role) -> Adopted {
    let (step, age, grows_fast) = (None, Duration::ZERO, None);
    Adopted { run, set: 0, replica: 0, role, step, left: LEFT, age, grows_fast }
}

fn managed(id: &str) -> ReleaseRef {
    ReleaseRef { id: id.into(), origin: Origin::Managed }
}

fn unmanaged(port: u16) -> ReleaseRef {
    ReleaseRef { id: format!("port-{port}"), origin: Origin::Unmanaged { port, others: Vec::new() } }
}

fn unmanaged_set(ports: &[u16]) -> ReleaseRef {
    let origin = Origin::Unmanaged { port: ports[0], others: ports[1..].to_vec() };
    ReleaseRef { id: format!("ports-{ports:?}"), origin }
}

/// The machine in a world where every order is carried out, unless a test says otherwise.
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
        self.deploy_by(id, Plan::default())
    }

    /// A deploy that does this on its way.
    fn deploy_by(&mut self, id: &str, plan: Plan) -> Vec<Effect> {
        self.send(Event::Deploy { release: managed(id), reason: Reason::Deploy, force: false, plan })
    }

    /// Back to the previous release.
    fn roll_back(&mut self) -> Vec<Effect> {
        self.send(Event::Rollback { to: None, force: false })
    }

    /// Back to this release, also where it is in quarantine.
    fn roll_back_to(&mut self, id: &str) -> Vec<Effect> {
        self.send(Event::Rollback { to: Some(id.into()), force: true })
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

    /// The set of a run.
    fn set_of(&self, run: RunId) -> SetId {
        self.state.place_of(run).expect("its set").0
    }

    /// The last drain of a set.
    fn drain_of(&self, set: SetId) -> u64 {
        let timer = |effect: &Effect| match effect {
            Effect::Timer(Timer::Drain(drained, seq)) if *drained == set => Some(*seq),
            _ => None,
        };
        self.log.iter().rev().find_map(timer).expect("a drain")
    }

    /// The end of the drain of the run's set.
    fn drain_over(&mut self, run: RunId) -> Vec<Effect> {
        let set = self.set_of(run);
        let seq = self.drain_of(set);
        self.send(Event::DrainOver { set, seq })
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

/// The set that had requests before, and what becomes of its targets.
type Former = Option<(SetId, FormerTarget)>;

/// To which runs requests go, and what becomes of the set that had them.
fn serves(effects: &[Effect]) -> Option<(Vec<RunId>, Former)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Serve { runs, former, .. } => Some((runs.clone(), *former)),
        _ => None,
    })
}

/// To which run requests go, and whether another set had them before.
fn routes(effects: &[Effect]) -> Option<(RunId, Option<FormerTarget>)> {
    let (runs, former) = serves(effects)?;
    Some((runs[0], former.map(|(_, treatment)| treatment)))
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
    assert_eq!(routes(&effects), Some((second, Some(FormerTarget::Retire))));
    let route = position(&effects, |effect| matches!(effect, Effect::Serve { .. }));
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
    let switch = Event::Switch { release: unmanaged(9), reason: Reason::Manual };
    assert_eq!(bench.send(switch), [busy]);
}

#[test]
fn a_drain_or_a_watch_window_refuses_nothing_and_only_a_move_of_traffic_ends_the_window() {
    let mut bench = Bench::new();
    bench.make_live("v1", 1);
    bench.make_live("v2", 2);
    assert_eq!(bench.state.phase(), Phase::Watching);
    let window = bench.state.window;
    bench.deploy("v3");
    bench.record();
    assert!(bench.state.task.is_some());
    bench.send(Event::Cancel);
    assert_eq!(bench.state.window, window);
    bench.make_live("v4", 4);
    assert_ne!(bench.state.window, window);
}

#[test]
fn an_exit_in_the_window_gives_the_candidate_up_and_goes_back() {
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    let second = bench.make_live("v2", 2);
    bench.deploy("v3");
    bench.record();
    let candidate = bench.last_spawn();
    let effects = bench.send(Event::Exited { run: second, port_taken: false });
    assert_eq!(stops(&effects), [second, candidate]);
    let made_way =
        |effect: &Effect| matches!(effect, Effect::Tell(Tell::Aborted { why: Abort::MadeWay, .. }));
    let goes = |effect: &Effect| *effect == Effect::Probe { run: first, patient: false };
    assert!(position(&effects, made_way) < position(&effects, goes));
    bench.send(Event::Ready { run: first });
    assert!(bench.state.past.is_quarantined("v2"));
    assert!(!bench.state.past.is_quarantined("v3"), "it never had traffic");
}

#[test]
fn a_rollback_to_where_it_is_gone_already_joins_and_another_one_takes_its_place() {
    let mut bench = Bench::new();
    for (id, port) in [("v0", 1), ("v1", 2), ("v2", 3)] {
        bench.make_live(id, port);
    }
    bench.roll_back();
    assert_eq!(bench.roll_back(), [Effect::UnderWay]);
    assert_eq!(bench.roll_back_to("v1"), [Effect::UnderWay]);
    let effects = bench.roll_back_to("v0");
    let made_way =
        |effect: &Effect| matches!(effect, Effect::Tell(Tell::Aborted { why: Abort::MadeWay, .. }));
    assert!(effects.iter().any(made_way), "{effects:?}");
    assert!(bench.state.task.as_ref().is_some_and(|task| task.release == managed("v0")));
    // A rollback to the live release ends the task.
    bench.roll_back_to("v2");
    assert!(bench.state.task.is_none());
}

#[test]
fn with_nothing_to_go_back_to_a_crash_leaves_the_candidate_alone() {
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    bench.deploy("v2");
    bench.record();
    bench.send(Event::Exited { run: first, port_taken: false });
    assert!(bench.state.task.is_some());
    assert_eq!(bench.state.phase(), Phase::Restarting);
}

#[test]
fn by_itself_portok_goes_back_once_a_deploy() {
    let mut bench = Bench::new();
    for (id, port) in [("v0", 1), ("v1", 2), ("v2", 3)] {
        bench.make_live(id, port);
    }
    let [old, new] = ["v1", "v2"].map(|id| {
        let of = |run: &&Run| run.release.id == id;
        bench.state.runs().find(of).map(|run| run.id).expect("its run")
    });
    bench.drain_over(old);
    bench.send(Event::Exited { run: old, port_taken: false });
    bench.send(Event::Exited { run: new, port_taken: false });
    bench.record();
    let again = bench.last_spawn();
    bench.send(Event::Spawned { run: again, port: 4 });
    bench.send(Event::Ready { run: again });
    assert_eq!(bench.state.live_release(), Some(&managed("v1")));
    assert_eq!(bench.state.phase(), Phase::Watching, "it had to be started, so it is watched");
    bench.send(Event::Exited { run: again, port_taken: false });
    assert!(bench.state.task.is_none(), "not from one to the next by itself");
    // An operator may go there.
    bench.roll_back();
    assert!(bench.state.task.as_ref().is_some_and(|task| task.release == managed("v0")));
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
    bench.roll_back();
    // The drain ends while the probe is under way: the run is needed.
    assert_eq!(stops(&bench.drain_over(first)), []);
    let effects = bench.send(Event::Ready { run: first });
    assert_eq!(routes(&effects), Some((first, Some(FormerTarget::Close))));
    assert_eq!(bench.state.phase(), Phase::Settled, "a rollback opens no window");
    bench.record();
    assert_eq!(stops(&bench.drain_over(first)), [], "a stale timer");
    // And forward again.
    assert_eq!(bench.roll_back(), [Effect::Refuse(Refusal::NoPrevious { quarantined: Some("v2".into()) })]);
    bench.roll_back_to("v2");
    let effects = bench.send(Event::Ready { run: second });
    assert_eq!(routes(&effects), Some((second, Some(FormerTarget::Close))));
    assert_eq!(stops(&bench.log), []);
}

#[test]
fn a_previous_release_that_does_not_answer_is_never_switched_to() {
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    let second = bench.make_live("v2", 2);
    bench.roll_back();
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
        assert_eq!(bench.send(Event::LiveProbed { run: second, healthy }), []);
    }
    let effects = bench.send(Event::LiveProbed { run: second, healthy: false });
    assert!(effects.contains(&Effect::Probe { run: first, patient: false }), "{effects:?}");
    let effects = bench.send(Event::Ready { run: first });
    assert_eq!(routes(&effects), Some((first, Some(FormerTarget::Close))));
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
    // It stays a crash loop, although the first crashes are forgotten by then.
    assert_eq!(delays, [100, 200, 400, 800, 30_000, 30_000, 30_000, 30_000, 30_000, 30_000]);
    let loops = |effect: &&Effect| matches!(effect, Effect::Tell(Tell::Crashed { loops_now: true, .. }));
    assert_eq!(bench.log.iter().filter(loops).count(), 1, "told once");
    assert_eq!(bench.state.phase(), Phase::Failed);
    // A deploy ends it.
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
fn a_candidate_that_finds_its_port_taken_is_tried_on_two_others() {
    let mut bench = Bench::new();
    bench.deploy("v1");
    bench.record();
    let mut runs = BTreeSet::new();
    for _ in 0..3 {
        let run = bench.last_spawn();
        runs.insert(run.0);
        bench.send(Event::Exited { run, port_taken: true });
    }
    assert_eq!(runs.len(), 3);
    assert!(bench.state.task.is_none());
}

#[test]
fn switching_to_the_live_port_changes_nothing_and_to_a_draining_runs_port_revives_it() {
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    bench.make_live("v2", 2);
    let switch = |port| Event::Switch { release: unmanaged(port), reason: Reason::Manual };
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
    let set = bench.set_of(first);
    let seq = bench.drain_of(set);
    for (run, id) in [(first, "v1"), (second, "v2")] {
        bench.roll_back_to(id);
        bench.send(Event::Ready { run });
        bench.record();
    }
    let stale = Event::DrainOver { set, seq };
    assert_eq!(bench.send(stale), [], "it drains for the second time");
    assert_eq!(stops(&bench.drain_over(first)), [first]);
}

#[test]
fn a_port_of_a_run_that_is_being_stopped_is_not_switched_to() {
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    bench.make_live("v2", 2);
    bench.drain_over(first);
    let effects = bench.send(Event::Switch { release: unmanaged(1), reason: Reason::Manual });
    assert_eq!(effects, [Effect::Refuse(Refusal::PortInUse { release: "v1".into() })]);
}

#[test]
fn a_daemon_that_is_asked_to_end_before_it_has_begun_starts_nothing() {
    let mut bench = Bench::new();
    bench.send(Event::Shutdown);
    let effects = bench.send(Event::Boot(Boot { live: Some(managed("v1")), ..Boot::default() }));
    assert_eq!(effects, []);
    assert_eq!(bench.state.live_release(), Some(&managed("v1")), "the record stays as it was");
    assert_eq!(bench.send(Event::StopAll), [Effect::Finished]);
}
