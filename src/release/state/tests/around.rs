//! What a deploy does beside starting its candidate, by example: its steps, and making room.

use super::*;

const BEFORE: Plan = Plan { before: Some(LEFT), verify: None, recreate: false };

const VERIFY: Plan = Plan { before: None, verify: Some(LEFT), recreate: false };

const RECREATE: Plan = Plan { before: None, verify: None, recreate: true };

/// The step that is started: its run, which it is, and whose port it is told.
fn step(effects: &[Effect]) -> Option<(RunId, DeployStep, Option<RunId>)> {
    effects.iter().find_map(|effect| match effect {
        Effect::RunStep { run, step, beside, .. } => Some((*run, *step, *beside)),
        _ => None,
    })
}

/// The run that is started, and its release.
fn spawn(effects: &[Effect]) -> Option<(RunId, &str)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Spawn { run, release, .. } => Some((*run, release.as_str())),
        _ => None,
    })
}

/// Why the task was given up, and whether its `before` had run.
fn aborted(effects: &[Effect]) -> Option<(Abort, bool)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Tell(Tell::Aborted { why, before_done, .. }) => Some((*why, *before_done)),
        _ => None,
    })
}

fn holds(effects: &[Effect]) -> bool {
    effects.contains(&Effect::Hold(HoldOn::Recreate))
}

impl Bench {
    /// A recreate whose former run is gone and whose candidate starts. Gives back both.
    fn make_room(&mut self, former: RunId, id: &str) -> RunId {
        self.deploy_by(id, RECREATE);
        self.record();
        self.record();
        self.drain_over(former);
        self.send(Event::Exited { run: former, port_taken: false });
        self.send(Event::Gone { run: former });
        let candidate = self.last_spawn();
        self.send(Event::Spawned { run: candidate, port: 2 });
        candidate
    }
}

#[test]
fn before_runs_before_the_candidate_is_started_and_verify_before_traffic_moves() {
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    bench.deploy_by("v2", Plan { before: Some(LEFT), ..VERIFY });
    let effects = bench.record();
    let (before, which, beside) = step(&effects).expect("a step");
    assert_eq!((which, beside, spawn(&effects)), (DeployStep::Before, None, None));
    assert_eq!(bench.state.step_of(before), Some(DeployStep::Before));
    bench.send(Event::StepStarted { run: before });
    assert_eq!(bench.state.role(before, false), Role::Candidate);
    let effects = bench.send(Event::StepEnded { run: before, done: true });
    assert_eq!(stops(&effects), [before], "what it left behind goes");
    let (candidate, release) = spawn(&effects).expect("the candidate");
    assert_eq!(release, "v2");
    bench.send(Event::Spawned { run: candidate, port: 2 });
    let effects = bench.send(Event::Ready { run: candidate });
    assert_eq!(routes(&effects), None);
    let (verify, which, beside) = step(&effects).expect("a step");
    assert_eq!((which, beside), (DeployStep::Verify, Some(candidate)));
    bench.send(Event::StepStarted { run: verify });
    let effects = bench.send(Event::StepEnded { run: verify, done: true });
    assert_eq!(routes(&effects), Some((candidate, Some(FormerTarget::Retire))));
    assert_eq!(stops(&effects), [verify]);
    // The way back has no steps.
    bench.send(Event::Exited { run: candidate, port_taken: false });
    let effects = bench.send(Event::Ready { run: first });
    assert_eq!(
        (step(&bench.log[bench.log.len() - effects.len()..]), routes(&effects)),
        (None, Some((first, None)))
    );
}

#[test]
fn a_step_that_fails_gives_the_deploy_up_and_all_of_it_is_stopped_once() {
    let mut bench = Bench::new();
    bench.make_live("v1", 1);
    bench.deploy_by("v2", BEFORE);
    let (before, ..) = step(&bench.record()).expect("a step");
    let effects = bench.send(Event::StepEnded { run: before, done: false });
    assert_eq!(aborted(&effects), Some((Abort::Step(DeployStep::Before), false)));
    assert_eq!(stops(&effects), [before]);
    bench.send(Event::Gone { run: before });
    bench.deploy_by("v3", Plan { before: Some(LEFT), ..VERIFY });
    let (before, ..) = step(&bench.record()).expect("a step");
    let effects = bench.send(Event::StepEnded { run: before, done: true });
    let (candidate, _) = spawn(&effects).expect("the candidate");
    let (verify, ..) = step(&bench.send(Event::Ready { run: candidate })).expect("a step");
    let effects = bench.send(Event::StepEnded { run: verify, done: false });
    assert_eq!(aborted(&effects), Some((Abort::Step(DeployStep::Verify), true)));
    assert_eq!(stops(&effects), [verify, candidate]);
    assert_eq!(bench.state.live_release(), Some(&managed("v1")));
    // What is heard of it later changes nothing.
    let effects = bench.send(Event::StepEnded { run: verify, done: true });
    assert_eq!(effects, []);
}

#[test]
fn a_candidate_that_ends_while_it_is_verified_is_given_up() {
    let mut bench = Bench::new();
    bench.make_live("v1", 1);
    bench.deploy_by("v2", VERIFY);
    bench.record();
    let candidate = bench.last_spawn();
    let (verify, ..) = step(&bench.send(Event::Ready { run: candidate })).expect("a step");
    let effects = bench.send(Event::Exited { run: candidate, port_taken: false });
    assert_eq!(aborted(&effects), Some((Abort::Exited, false)));
    assert_eq!(stops(&effects), [candidate, verify]);
}

#[test]
fn recreate_stops_the_live_release_to_its_end_before_the_candidate_starts() {
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    bench.deploy_by("v2", RECREATE);
    let effects = bench.record();
    assert!(holds(&effects) && effects.contains(&Effect::Cut { run: first }), "{effects:?}");
    assert_eq!((spawn(&effects), stops(&effects)), (None, vec![]));
    assert!(bench.state.is_vacant() && bench.state.phase() == Phase::Starting);
    assert_eq!(bench.state.role(first, false), Role::Live, "a daemon that is killed comes back to it");
    assert_eq!(stops(&bench.drain_over(first)), [], "it is not written down yet");
    assert_eq!(stops(&bench.record()), [first]);
    assert_eq!(spawn(&bench.send(Event::Exited { run: first, port_taken: false })), None);
    let effects = bench.send(Event::Gone { run: first });
    let (candidate, release) = spawn(&effects).expect("the candidate");
    assert_eq!(release, "v2");
    bench.send(Event::Spawned { run: candidate, port: 2 });
    let effects = bench.send(Event::Ready { run: candidate });
    assert_eq!(routes(&effects), Some((candidate, None)));
    assert!(bench.state.recreated);
}

#[test]
fn what_runs_alone_and_finds_its_port_taken_is_gone_before_it_is_tried_on_another() {
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    let candidate = bench.make_room(first, "v2");
    let next = |bench: &mut Bench, run| {
        let effects = bench.send(Event::Exited { run, port_taken: true });
        assert_eq!(stops(&effects), [run]);
        effects.into_iter().find_map(|effect| match effect {
            Effect::Spawn { run, after, .. } => Some((run, after)),
            _ => None,
        })
    };
    let (again, after) = next(&mut bench, candidate).expect("another try");
    assert_eq!(after, Some(candidate));
    bench.send(Event::Gone { run: candidate });
    bench.send(Event::Ready { run: again });
    // Where another one may run beside it, it does not wait.
    let mut bench = Bench::new();
    bench.deploy("v1");
    bench.record();
    let candidate = bench.last_spawn();
    assert!(matches!(next(&mut bench, candidate), Some((_, None))));
}

#[test]
fn a_candidate_that_fails_in_the_room_is_gone_before_the_former_release_starts_again() {
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    let candidate = bench.make_room(first, "v2");
    let effects = bench.send(Event::Exited { run: candidate, port_taken: false });
    assert_eq!(aborted(&effects), Some((Abort::Exited, false)));
    assert_eq!((stops(&effects), spawn(&effects)), (vec![candidate], None));
    assert_eq!(bench.state.phase(), Phase::Restarting);
    let of_it = |run: &Option<RunId>| *run == Some(candidate);
    let seen: Vec<_> = bench.state.members().iter().map(|member| member.run).collect();
    assert_eq!((seen.len(), seen.iter().filter(|run| of_it(run)).count()), (2, 1), "one row each: {seen:?}");
    let effects = bench.send(Event::Gone { run: candidate });
    let (again, release) = spawn(&effects).expect("the former release");
    assert_eq!(release, "v1");
    bench.send(Event::Spawned { run: again, port: 3 });
    assert_eq!(routes(&bench.send(Event::Ready { run: again })), Some((again, None)));
    assert_eq!(bench.state.restarts, 0, "it had not crashed");
}

#[test]
fn a_window_does_not_pass_while_there_is_nothing_to_watch() {
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    let candidate = bench.make_room(first, "v2");
    let ticket = bench.state.window.expect("the window of v1").ticket;
    let over = Event::WindowOver { ticket };
    assert_eq!(bench.send(over.clone()), [], "nothing of v1 runs");
    bench.send(Event::NotReady { run: candidate });
    let effects = bench.send(Event::Gone { run: candidate });
    let (again, _) = spawn(&effects).expect("the former release");
    bench.send(Event::Spawned { run: again, port: 3 });
    let begins = Effect::Timer(Timer::Window(ticket));
    assert!(bench.send(Event::Ready { run: again }).contains(&begins), "it is watched again");
    assert!(!bench.send(Event::Settings).contains(&begins), "once");
    assert_eq!(bench.send(over), [Effect::Tell(Tell::Settled)]);
}

#[test]
fn what_still_drains_is_taken_back_when_the_deploy_is_given_up() {
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    bench.deploy_by("v2", RECREATE);
    bench.record();
    let effects = bench.send(Event::Cancel);
    assert_eq!(routes(&effects), Some((first, None)));
    assert_eq!((stops(&bench.log), spawn(&effects)), (vec![], None));
    bench.record();
    assert_eq!(stops(&bench.send(Event::Settings)), []);
    assert_eq!(bench.state.live_run().map(|run| run.id), Some(first));
}

#[test]
fn the_way_back_makes_room_too() {
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    let second = bench.make_room(first, "v2");
    bench.send(Event::Ready { run: second });
    bench.record();
    bench.send(Event::Exited { run: second, port_taken: false });
    bench.record();
    assert!(bench.state.task.as_ref().is_some_and(|task| task.reason == Reason::AutoRollback));
    assert_ne!(bench.last_spawn(), bench.state.first_run().map_or(RunId(0), |run| run.id));
    let effects = bench.send(Event::Gone { run: second });
    let (again, release) = spawn(&effects).expect("the release before");
    assert_eq!(release, "v1");
    bench.send(Event::Spawned { run: again, port: 3 });
    bench.send(Event::Ready { run: again });
    assert!(bench.state.past.is_quarantined("v2") && bench.state.recreated);
}

#[test]
fn a_daemon_that_is_killed_in_the_room_stops_the_candidate_first() {
    let adopted = |id, release, role, step| Adopted {
        step,
        ..adopted_run(Run { id: RunId(id), release: managed(release), process: None, port: None }, role)
    };
    let record = |runs| Boot {
        live: Some(managed("v1")),
        past: Past::new([Served { release: managed("v1"), quarantined: false }]),
        recreating: true,
        ended: true,
        window: Some(LEFT),
        runs,
        ..Boot::default()
    };
    let mut bench = Bench::new();
    let effects = bench.send(Event::Boot(record(vec![adopted(1, "v2", Role::Candidate, None)])));
    assert_eq!((stops(&effects), spawn(&effects)), (vec![RunId(1)], None));
    let effects = bench.send(Event::Gone { run: RunId(1) });
    assert_eq!(spawn(&effects).map(|(_, release)| release), Some("v1"));
    // What had not been stopped goes on, and a step is never a replica.
    let mut bench = Bench::new();
    let runs =
        vec![adopted(1, "v1", Role::Live, None), adopted(2, "v2", Role::Candidate, Some(DeployStep::Before))];
    let effects = bench.send(Event::Boot(record(runs)));
    assert_eq!(routes(&effects), Some((RunId(1), None)));
    assert_eq!((stops(&effects), spawn(&effects)), (vec![RunId(2)], None));
    let mut bench = Bench::new();
    let first = Boot {
        unfinished: Some((managed("v1"), Reason::Deploy)),
        runs: vec![adopted(1, "v1", Role::Candidate, Some(DeployStep::Verify))],
        ..Boot::default()
    };
    assert_eq!(stops(&bench.send(Event::Boot(first))), [RunId(1)]);
    assert!(bench.state.task.is_none());
}

#[test]
fn nothing_is_started_in_the_room_beside_what_an_earlier_daemon_left() {
    let mut bench = Bench::new();
    let run = Run { id: RunId(1), release: managed("v1"), process: None, port: Some(1) };
    let role = Role::Live;
    let live = adopted_run(run, role);
    let past = Past::new([Served { release: managed("v1"), quarantined: false }]);
    let runs = vec![live];
    bench.send(Event::Boot(Boot {
        live: Some(managed("v1")),
        past,
        runs,
        leftovers: true,
        ..Boot::default()
    }));
    bench.deploy_by("v2", RECREATE);
    bench.record();
    bench.record();
    bench.drain_over(RunId(1));
    bench.send(Event::Exited { run: RunId(1), port_taken: false });
    assert_eq!(spawn(&bench.send(Event::Gone { run: RunId(1) })), None, "leftovers may still run");
    assert_eq!(spawn(&bench.send(Event::LeftoversGone)).map(|(_, release)| release), Some("v2"));
}

#[test]
fn a_way_back_to_what_ends_before_its_answer_still_stops_the_live_release_first() {
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    bench.policy.recreate = true;
    bench.deploy_by("v2", Plan::default());
    bench.record();
    let second = bench.last_spawn();
    bench.send(Event::Spawned { run: second, port: 2 });
    bench.send(Event::Ready { run: second });
    bench.record();
    let effects = bench.roll_back();
    assert!(effects.contains(&Effect::Probe { run: first, patient: false }), "it drains: {effects:?}");
    bench.send(Event::Exited { run: first, port_taken: false });
    let effects = bench.record();
    assert_eq!((spawn(&effects), holds(&effects)), (None, true), "{effects:?}");
}

#[test]
fn a_daemon_that_is_killed_after_a_candidate_has_failed_in_the_room_waits_for_its_end() {
    let mut bench = Bench::new();
    bench.policy.recreate = true;
    let run = Run { id: RunId(1), release: managed("v2"), process: None, port: None };
    let role = Role::Stopping;
    let failed = adopted_run(run, role);
    let past = Past::new([Served { release: managed("v1"), quarantined: false }]);
    let boot = Boot { live: Some(managed("v1")), past, runs: vec![failed], ..Boot::default() };
    assert_eq!(spawn(&bench.send(Event::Boot(boot))), None);
    let effects = bench.send(Event::Gone { run: RunId(1) });
    assert_eq!(spawn(&effects).map(|(_, release)| release), Some("v1"));
}

#[test]
fn what_runs_alone_is_started_again_when_nothing_is_left_of_what_crashed() {
    let mut bench = Bench::new();
    bench.policy.recreate = true;
    bench.policy.window = false;
    let first = bench.make_live("v1", 1);
    let effects = bench.send(Event::Exited { run: first, port_taken: false });
    let restart = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::Timer(Timer::Restart(ticket, _)) => Some(*ticket),
            _ => None,
        })
    };
    let ticket = restart(&effects).expect("a restart");
    let effects = bench.send(Event::RestartDue { ticket });
    assert_eq!((spawn(&effects), restart(&effects)), (None, Some(ticket)), "its group has its ladder still");
    bench.send(Event::Gone { run: first });
    assert!(spawn(&bench.send(Event::RestartDue { ticket })).is_some());
}
