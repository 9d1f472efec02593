//! Companions, by example.

use super::*;

/// A world in which every release has a worker, which starts so.
fn bench(before: bool) -> Bench {
    let worker = Companion { process: "worker".into(), replicas: 1, before };
    let of = |id: &str| (id.to_owned(), vec![worker.clone()]);
    let mut bench = Bench::new();
    bench.policy.companions = ["v1", "v2", "v3"].map(of).into();
    bench
}

/// The workers that these effects start.
fn workers(effects: &[Effect]) -> Vec<RunId> {
    let worker = |effect: &Effect| match effect {
        Effect::Spawn { run, process: Some(_), .. } => Some(*run),
        _ => None,
    };
    effects.iter().filter_map(worker).collect()
}

/// The apps that these effects start.
fn apps(effects: &[Effect]) -> Vec<RunId> {
    let app = |effect: &Effect| match effect {
        Effect::Spawn { run, process: None, .. } => Some(*run),
        _ => None,
    };
    effects.iter().filter_map(app).collect()
}

/// Has the candidate serve; its switch is not written down yet.
fn switch(bench: &mut Bench, id: &str, port: u16) -> Vec<Effect> {
    bench.deploy(id);
    let run = apps(&bench.record())[0];
    bench.send(Event::Spawned { run, port });
    bench.send(Event::Ready { run })
}

/// A release that is live and has its worker.
fn make_live(bench: &mut Bench, id: &str, port: u16) -> RunId {
    assert_eq!(workers(&switch(bench, id, port)), []);
    let worker = workers(&bench.record())[0];
    bench.send(Event::Ready { run: worker });
    worker
}

fn end(bench: &mut Bench, run: RunId) -> Vec<Effect> {
    bench.send(Event::Exited { run, port_taken: false });
    bench.send(Event::Gone { run })
}

fn restart(effects: &[Effect]) -> Option<u64> {
    effects.iter().find_map(|effect| match effect {
        Effect::Timer(Timer::Restart(ticket, _)) => Some(*ticket),
        _ => None,
    })
}

/// Lets the worker crash until it is at its limit. Gives back what the last crash brings.
fn crash_to_the_limit(bench: &mut Bench, mut worker: RunId) -> Vec<Effect> {
    for _ in 1..bench.policy.restart.burst {
        let ticket = restart(&end(bench, worker)).expect("another start");
        worker = workers(&bench.send(Event::RestartDue { ticket }))[0];
        bench.send(Event::Ready { run: worker });
    }
    end(bench, worker)
}

#[test]
fn after_the_switch_the_former_ones_go_and_then_the_new_ones_come() {
    let mut bench = bench(false);
    let old = make_live(&mut bench, "v1", 1);
    let effects = switch(&mut bench, "v2", 2);
    assert_eq!((stops(&effects), workers(&effects)), (vec![], vec![]), "the switch is not written down");
    let effects = bench.record();
    assert_eq!((stops(&effects), workers(&effects)), (vec![old], vec![]), "nothing beside the former one");
    assert_eq!(workers(&bench.send(Event::Exited { run: old, port_taken: false })), []);
    let effects = bench.send(Event::Gone { run: old });
    assert_eq!(workers(&effects).len(), 1);
}

#[test]
fn those_that_start_before_run_when_the_candidate_starts() {
    let mut bench = bench(true);
    bench.deploy("v1");
    let effects = bench.record();
    let worker = workers(&effects)[0];
    assert_eq!(apps(&effects), []);
    assert_eq!(apps(&bench.send(Event::Ready { run: worker })).len(), 1);
    let effects = bench.send(Event::Cancel);
    assert!(stops(&effects).contains(&worker), "they go with the candidate: {effects:?}");
}

#[test]
fn one_that_cannot_be_started_before_its_candidate_gives_it_up() {
    let mut bench = bench(true);
    bench.deploy("v1");
    let worker = workers(&bench.record())[0];
    let effects = bench.send(Event::NotReady { run: worker });
    let culprit = |effect: &Effect| match effect {
        Effect::Tell(Tell::Aborted { run, .. }) => *run == Some(worker),
        _ => false,
    };
    assert!(effects.iter().any(culprit), "{effects:?}");
}

#[test]
fn a_rollback_does_the_same_the_other_way_round() {
    let mut bench = bench(false);
    let old = make_live(&mut bench, "v1", 1);
    switch(&mut bench, "v2", 2);
    bench.record();
    let new = workers(&end(&mut bench, old))[0];
    bench.send(Event::Ready { run: new });
    bench.roll_back();
    let run = bench.state.revived_run().expect("it still drains").id;
    assert_eq!(stops(&bench.send(Event::Ready { run })), []);
    assert_eq!(stops(&bench.record()), [new]);
    assert_eq!(workers(&end(&mut bench, new)).len(), 1);
}

#[test]
fn one_that_ends_is_started_again_when_nothing_is_left_of_it_and_the_app_goes_on() {
    let mut bench = bench(false);
    let worker = make_live(&mut bench, "v1", 1);
    let effects = bench.send(Event::Exited { run: worker, port_taken: false });
    assert_eq!((stops(&effects), restart(&effects)), (vec![worker], None));
    let ticket = restart(&bench.send(Event::Gone { run: worker })).expect("a restart");
    let again = workers(&bench.send(Event::RestartDue { ticket }))[0];
    let effects = bench.send(Event::Ready { run: again });
    assert!(effects.contains(&Effect::Tell(Tell::CompanionStarted { run: again, again: true })));
    assert_eq!((bench.state.phase(), bench.state.restarts), (Phase::Watching, 0));
    assert!(bench.state.live_run().is_some());
}

#[test]
fn at_its_limit_one_brings_a_rollback_in_the_window_and_degrades_outside() {
    let mut bench = bench(false);
    let old = make_live(&mut bench, "v1", 1);
    switch(&mut bench, "v2", 2);
    bench.record();
    let new = workers(&end(&mut bench, old))[0];
    bench.send(Event::Ready { run: new });
    let effects = crash_to_the_limit(&mut bench, new);
    assert!(effects.contains(&Effect::Tell(Tell::Accepted)), "it goes back: {effects:?}");

    let mut bench = self::bench(false);
    bench.policy.window = false;
    let worker = make_live(&mut bench, "v1", 1);
    let effects = crash_to_the_limit(&mut bench, worker);
    assert_eq!(bench.state.phase(), Phase::Degraded);
    // It counts as well when it has run for a while, and not when it merely runs again.
    let ticket = restart(&effects).expect("another try");
    let again = workers(&bench.send(Event::RestartDue { ticket }))[0];
    let effects = bench.send(Event::Ready { run: again });
    assert_eq!(bench.state.phase(), Phase::Degraded);
    let calm = effects.iter().find_map(|effect| match effect {
        Effect::Timer(Timer::Calm(ticket, _)) => Some(*ticket),
        _ => None,
    });
    bench.send(Event::Calm { ticket: calm.expect("a trial") });
    assert_eq!(bench.state.phase(), Phase::Settled);
}

#[test]
fn the_next_daemon_takes_those_of_the_live_release_over_and_stops_others() {
    let mut bench = bench(false);
    let companion = |id, release: &str, replica| {
        let run =
            Run { id: RunId(id), release: managed(release), process: Some("worker".into()), port: None };
        Adopted { replica, ..adopted_run(run, Role::Candidate) }
    };
    let app = Run { id: RunId(1), release: managed("v2"), process: None, port: Some(1) };
    let app = adopted_run(app, Role::Live);
    let runs = vec![app, companion(2, "v1", 0), companion(3, "v2", 0), companion(4, "v2", 0)];
    let boot = Boot { live: Some(managed("v2")), runs, ..Boot::default() };
    let effects = bench.send(Event::Boot(boot));
    assert_eq!((stops(&effects), workers(&effects)), (vec![RunId(2), RunId(4)], vec![]));
    for gone in [2, 4] {
        assert_eq!(workers(&end(&mut bench, RunId(gone))), [], "it runs already");
    }
}

#[test]
fn one_that_is_missing_at_the_start_waits_for_the_leftovers() {
    let mut bench = bench(false);
    let run = Run { id: RunId(1), release: managed("v1"), process: None, port: Some(1) };
    let runs = vec![adopted_run(run, Role::Live)];
    let boot = Boot { live: Some(managed("v1")), runs, leftovers: true, ..Boot::default() };
    assert_eq!(workers(&bench.send(Event::Boot(boot))), []);
    assert_eq!(workers(&bench.send(Event::LeftoversGone)).len(), 1);
}

#[test]
fn the_next_daemon_goes_on_counting_their_crashes() {
    let mut bench = bench(false);
    bench.policy.window = false;
    let worker = make_live(&mut bench, "v1", 1);
    let ticket = restart(&end(&mut bench, worker)).expect("a restart");
    let known = |bench: &Bench| -> BTreeMap<ProcessName, Vec<Duration>> {
        let crashes = bench.state.companion_crashes();
        crashes.map(|(process, crashes)| (process.clone(), crashes.collect())).collect()
    };
    bench.send(Event::RestartDue { ticket });
    let crashes = known(&bench);
    assert_eq!(crashes["worker"].len(), 1);

    let mut next = self::bench(false);
    next.policy.window = false;
    let run = Run { id: RunId(1), release: managed("v1"), process: None, port: Some(1) };
    let role = Role::Live;
    let app = adopted_run(run, role);
    let many = crashes["worker"].repeat(next.policy.restart.burst as usize - 1);
    let companion_crashes = BTreeMap::from([("worker".into(), many)]);
    let boot = Boot { live: Some(managed("v1")), runs: vec![app], companion_crashes, ..Boot::default() };
    let worker = workers(&next.send(Event::Boot(boot)))[0];
    next.send(Event::Ready { run: worker });
    end(&mut next, worker);
    assert_eq!(next.state.phase(), Phase::Degraded, "that was one too many");
    assert!(known(&next)["worker"].len() > 1);
}

#[test]
fn one_of_several_that_is_missing_when_a_first_deploy_is_resumed_is_started() {
    let mut bench = bench(true);
    bench.policy.companions.values_mut().flatten().for_each(|companion| companion.replicas = 2);
    let run = |id, process: Option<&str>| {
        adopted_run(
            Run { id: RunId(id), release: managed("v1"), process: process.map(Into::into), port: Some(1) },
            Role::Candidate,
        )
    };
    let runs = vec![run(1, None), run(2, Some("worker"))];
    let boot = Boot { unfinished: Some((managed("v1"), Reason::Deploy)), runs, ..Boot::default() };
    let effects = bench.send(Event::Boot(boot));
    assert_eq!(workers(&effects).len(), 1, "{effects:?}");
}

#[test]
fn one_that_starts_before_waits_for_the_end_of_its_former_tenure() {
    let mut bench = bench(true);
    bench.policy.window = false;
    bench.deploy("v1");
    let first = workers(&bench.record())[0];
    bench.deploy("v1");
    bench.send(Event::Cancel);
    bench.deploy("v1");
    assert_eq!(workers(&bench.record()), [], "one of the same release is being stopped");
    assert_eq!(workers(&end(&mut bench, first)).len(), 1);
}
