//! Releases of several replicas, by example.

use super::*;
use crate::config::Replicas;

/// A world in which so many replicas are wanted.
pub(super) fn bench(replicas: u16) -> Bench {
    Bench { policy: Policy { replicas: Replicas::fixed(replicas), ..policy() }, ..Bench::new() }
}

/// The processes that these effects start, with their numbers.
pub(super) fn spawns(effects: &[Effect]) -> Vec<(RunId, u16)> {
    let spawned = |effect: &Effect| match effect {
        Effect::Spawn { run, replica, .. } => Some((*run, *replica)),
        _ => None,
    };
    effects.iter().filter_map(spawned).collect()
}

fn restart(effects: &[Effect]) -> Option<(u64, Duration)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Timer(Timer::Restart(ticket, delay)) => Some((*ticket, *delay)),
        _ => None,
    })
}

/// Starts the candidate.
pub(super) fn begin(bench: &mut Bench, id: &str) -> Vec<RunId> {
    bench.deploy(id);
    let spawned = spawns(&bench.record());
    for (run, replica) in &spawned {
        bench.send(Event::Spawned { run: *run, port: 100 + replica });
    }
    spawned.into_iter().map(|(run, _)| run).collect()
}

/// A deploy from acceptance until it is live.
pub(super) fn make_live(bench: &mut Bench, id: &str) -> Vec<RunId> {
    let runs = begin(bench, id);
    for run in &runs {
        bench.send(Event::Ready { run: *run });
    }
    bench.record();
    runs
}

pub(super) fn exited(run: RunId) -> Event {
    Event::Exited { run, port_taken: false }
}

#[test]
fn traffic_moves_to_all_at_once_when_the_last_one_is_ready() {
    let mut bench = bench(3);
    let first = make_live(&mut bench, "v1");
    let second = begin(&mut bench, "v2");
    assert_eq!(second.len(), 3);
    let former = bench.set_of(first[0]);
    for run in &second[..2] {
        assert_eq!(serves(&bench.send(Event::Ready { run: *run })), None);
    }
    let effects = bench.send(Event::Ready { run: second[2] });
    assert_eq!(serves(&effects), Some((second, Some((former, FormerTarget::Retire)))));
    bench.record();
    assert_eq!(stops(&bench.drain_over(first[0])), first, "the former ones leave together");
}

#[test]
fn one_that_fails_gives_the_deploy_up_and_nothing_of_it_is_left() {
    let late = |run| Event::NotReady { run };
    for (event, was_ready) in [(late as fn(RunId) -> Event, false), (exited, false), (exited, true)] {
        let mut bench = bench(3);
        let live = make_live(&mut bench, "v1");
        let candidates = begin(&mut bench, "v2");
        if was_ready {
            bench.send(Event::Ready { run: candidates[1] });
        }
        let effects = bench.send(event(candidates[1]));
        let culprit = effects.iter().find_map(|effect| match effect {
            Effect::Tell(Tell::Aborted { run, .. }) => Some(*run),
            _ => None,
        });
        assert_eq!(culprit, Some(Some(candidates[1])), "its autopsy is the one to read");
        let mut stopped = stops(&effects);
        stopped.sort();
        assert_eq!(stopped, candidates);
        assert_eq!(bench.state.live_runs(), live);
    }
}

#[test]
fn the_port_of_one_is_tried_again_for_that_one_alone() {
    let mut bench = bench(2);
    let runs = begin(&mut bench, "v1");
    let effects = bench.send(Event::Exited { run: runs[1], port_taken: true });
    let again = spawns(&effects);
    assert_eq!((again.len(), again[0].1, stops(&effects)), (1, 1, vec![runs[1]]));
    bench.send(Event::Ready { run: runs[0] });
    bench.send(Event::Spawned { run: again[0].0, port: 9 });
    let effects = bench.send(Event::Ready { run: again[0].0 });
    assert_eq!(serves(&effects), Some((vec![runs[0], again[0].0], None)));
}

#[test]
fn one_that_crashes_leaves_at_once_and_is_started_again_in_its_place() {
    let mut bench = bench(3);
    bench.policy.window = false;
    let runs = make_live(&mut bench, "v1");
    let effects = bench.send(exited(runs[1]));
    assert_eq!(serves(&effects), Some((vec![runs[0], runs[2]], None)));
    assert!(!effects.contains(&Effect::Hold(HoldOn::Crash)) && stops(&effects) == [runs[1]]);
    let serve = position(&effects, |effect| matches!(effect, Effect::Serve { .. }));
    assert!(serve < position(&effects, |effect| *effect == Effect::Close { run: runs[1] }));
    assert_eq!(bench.state.phase(), Phase::Degraded);
    let (ticket, _) = restart(&effects).expect("a restart");
    let again = spawns(&bench.send(Event::RestartDue { ticket }));
    assert_eq!(again[0].1, 1, "the number is free again");
    bench.send(Event::Spawned { run: again[0].0, port: 9 });
    let effects = bench.send(Event::Ready { run: again[0].0 });
    assert_eq!(serves(&effects), Some((vec![runs[0], again[0].0, runs[2]], None)));
    assert!(effects.contains(&Effect::Tell(Tell::Joined { run: again[0].0, again: true })));
    assert_eq!((bench.state.phase(), bench.state.restarts), (Phase::Unstable, 1));
}

#[test]
fn with_the_last_one_requests_wait_and_the_first_one_back_gets_them() {
    let mut bench = bench(2);
    bench.policy.window = false;
    let runs = make_live(&mut bench, "v1");
    bench.send(exited(runs[0]));
    let effects = bench.send(exited(runs[1]));
    assert!(effects.contains(&Effect::Hold(HoldOn::Crash)));
    assert_eq!(bench.state.phase(), Phase::Restarting);
    let (ticket, _) = restart(&effects).expect("a restart");
    let again = spawns(&bench.send(Event::RestartDue { ticket }))[0].0;
    let effects = bench.send(Event::Ready { run: again });
    assert_eq!(serves(&effects), Some((vec![again], None)));
    assert!(effects.contains(&Effect::Tell(Tell::Restored { run: again, boot: false })));
}

#[test]
fn each_replica_may_crash_as_often_as_a_single_one() {
    let mut bench = bench(2);
    bench.policy.window = false;
    let mut runs = make_live(&mut bench, "v1");
    let mut delays = Vec::new();
    for crash in 0..10 {
        let effects = bench.send(exited(runs[crash % 2]));
        let (ticket, delay) = restart(&effects).expect("a restart");
        delays.push(delay.as_millis());
        runs[crash % 2] = spawns(&bench.send(Event::RestartDue { ticket }))[0].0;
        bench.send(Event::Ready { run: runs[crash % 2] });
    }
    let looping = 30_000;
    assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, looping]);
}

#[test]
fn in_the_window_the_exit_of_a_ready_one_goes_back_and_others_serve_until_then() {
    let mut bench = bench(2);
    let first = make_live(&mut bench, "v1");
    let second = make_live(&mut bench, "v2");
    let effects = bench.send(exited(second[0]));
    assert_eq!(serves(&effects), Some((vec![second[1]], None)));
    assert_eq!(restart(&effects), None, "nothing is started again before it is decided");
    for run in &first {
        assert!(effects.contains(&Effect::Probe { run: *run, patient: false }), "{effects:?}");
    }
    assert_eq!(serves(&bench.send(Event::Ready { run: first[0] })), None);
    let effects = bench.send(Event::Ready { run: first[1] });
    let left = bench.set_of(second[1]);
    assert_eq!(serves(&effects), Some((first, Some((left, FormerTarget::Close)))));
    assert_eq!(bench.state.phase(), Phase::Settled);
}

#[test]
fn where_there_is_no_way_back_the_place_is_filled_again() {
    let mut bench = bench(2);
    let runs = make_live(&mut bench, "v1");
    let effects = bench.send(exited(runs[0]));
    assert!(restart(&effects).is_some() && bench.state.window.is_none());
    assert_eq!(bench.state.phase(), Phase::Degraded);
    // One that exits before it is ready is a crash of its place.
    let (ticket, _) = restart(&effects).unwrap();
    let again = spawns(&bench.send(Event::RestartDue { ticket }))[0].0;
    assert!(restart(&bench.send(exited(again))).is_some());
}

#[test]
fn in_the_window_failed_probes_of_one_in_a_row_go_back_and_not_those_of_several() {
    let mut bench = bench(2);
    let first = make_live(&mut bench, "v1");
    let runs = make_live(&mut bench, "v2");
    for _ in 0..2 {
        for run in &runs {
            assert_eq!(bench.send(Event::LiveProbed { run: *run, healthy: false }), []);
        }
    }
    let effects = bench.send(Event::LiveProbed { run: runs[1], healthy: false });
    assert!(effects.contains(&Effect::Probe { run: first[0], patient: false }), "{effects:?}");
}

#[test]
fn outside_the_window_one_that_fails_its_probes_is_out_until_it_answers() {
    let mut bench = bench(3);
    bench.policy.window = false;
    let runs = make_live(&mut bench, "v1");
    let mut probe = |run, healthy| bench.send(Event::LiveProbed { run, healthy });
    probe(runs[2], false);
    probe(runs[2], false);
    assert_eq!(serves(&probe(runs[2], false)), Some((runs[..2].to_vec(), None)));
    assert_eq!((bench.state.phase(), bench.state.in_use()), (Phase::Degraded, 2));
    let mut probe = |run, healthy| bench.send(Event::LiveProbed { run, healthy });
    probe(runs[0], false);
    probe(runs[0], false);
    assert_eq!(serves(&probe(runs[0], false)), Some((runs.clone(), None)), "more than half fail");
    assert_eq!((bench.state.phase(), bench.state.in_use()), (Phase::Unhealthy, 3));
    let mut probe = |run, healthy| bench.send(Event::LiveProbed { run, healthy });
    assert_eq!(serves(&probe(runs[2], true)), Some((runs[1..].to_vec(), None)));
    assert_eq!(serves(&probe(runs[0], true)), Some((runs.clone(), None)));
    assert_eq!((bench.state.phase(), bench.state.in_use()), (Phase::Settled, 3));
}

#[test]
fn a_set_that_lost_one_while_it_drained_is_filled_up_when_it_is_live_again() {
    let mut bench = bench(3);
    let first = make_live(&mut bench, "v1");
    make_live(&mut bench, "v2");
    bench.send(exited(first[1]));
    bench.roll_back();
    bench.send(Event::Ready { run: first[0] });
    let effects = bench.send(Event::Ready { run: first[2] });
    assert_eq!(serves(&effects).map(|(runs, _)| runs), Some(vec![first[0], first[2]]));
    assert_eq!(spawns(&effects).iter().map(|(_, replica)| *replica).collect::<Vec<_>>(), [1]);
    assert_eq!(bench.state.phase(), Phase::Degraded);
}

#[test]
fn more_are_started_at_once_and_fewer_drain_first() {
    let mut bench = bench(2);
    bench.policy.window = false;
    let runs = make_live(&mut bench, "v1");
    bench.policy.replicas = Replicas::fixed(3);
    let third = spawns(&bench.send(Event::Settings));
    assert_eq!(third[0].1, 2);
    bench.send(Event::Spawned { run: third[0].0, port: 9 });
    let effects = bench.send(Event::Ready { run: third[0].0 });
    assert!(effects.contains(&Effect::Tell(Tell::Joined { run: third[0].0, again: false })));
    assert_eq!(bench.state.restarts, 0);
    bench.policy.replicas = Replicas::fixed(1);
    let effects = bench.send(Event::Settings);
    assert_eq!(bench.state.live_runs(), runs[..1]);
    assert_eq!(stops(&effects), []);
    bench.record();
    assert_eq!(stops(&bench.drain_over(third[0].0)), [third[0].0]);
    assert_eq!(stops(&bench.drain_over(runs[1])), [runs[1]]);
}

#[test]
fn what_is_not_ready_is_given_up_first_and_nothing_in_the_window() {
    let mut bench = bench(3);
    let runs = make_live(&mut bench, "v1");
    bench.policy.replicas = Replicas::fixed(2);
    bench.send(Event::Settings);
    assert_eq!(bench.state.live_runs(), runs, "its window is open");
    bench.send(exited(runs[0]));
    assert_eq!(bench.state.live_runs(), runs[1..], "the window ended with the exit");
    assert_eq!(bench.state.phase(), Phase::Unstable, "there are as many as are wanted");
}

#[test]
fn the_next_daemon_takes_every_place_up_and_starts_what_is_missing() {
    let mut bench = bench(3);
    let adopted = |id, replica, role, set, release: &str| {
        let run = Run { id: RunId(id), release: managed(release), process: None, port: Some(1) };
        Adopted { set, replica, ..adopted_run(run, role) }
    };
    let runs = vec![
        adopted(1, 2, Role::Live, 7, "v2"),
        adopted(2, 0, Role::Live, 7, "v2"),
        adopted(3, 0, Role::Live, 7, "v2"),
        adopted(4, 0, Role::Draining, 5, "v1"),
        adopted(5, 1, Role::Draining, 5, "v1"),
        adopted(6, 0, Role::Draining, 6, "v1"),
    ];
    let effects = bench.send(Event::Boot(Boot { live: Some(managed("v2")), runs, ..Boot::default() }));
    assert_eq!(bench.state.live_runs(), [RunId(2), RunId(1)]);
    assert_eq!(stops(&effects), [RunId(3)], "two of one number");
    assert_eq!(spawns(&effects).iter().map(|(_, replica)| *replica).collect::<Vec<_>>(), [1]);
    let sets: Vec<_> = bench.state.drains_under_way().map(|(_, _, runs)| runs).collect();
    assert_eq!(sets, [vec![RunId(4), RunId(5)], vec![RunId(6)]]);
}

#[test]
fn what_serves_does_not_wait_for_the_leftovers_and_what_is_missing_does() {
    let mut bench = bench(2);
    let run = Run { id: RunId(1), release: managed("v1"), process: None, port: Some(1) };
    let runs = vec![Adopted { set: 7, replica: 1, ..adopted_run(run, Role::Live) }];
    let boot = Boot { live: Some(managed("v1")), runs, leftovers: true, ended: true, ..Boot::default() };
    let effects = bench.send(Event::Boot(boot));
    assert_eq!((serves(&effects), spawns(&effects)), (Some((vec![RunId(1)], None)), vec![]));
    let started = spawns(&bench.send(Event::LeftoversGone));
    assert_eq!(started.iter().map(|(_, replica)| *replica).collect::<Vec<_>>(), [0]);
    assert_eq!(bench.send(Event::LeftoversGone), []);
}

#[test]
fn the_end_stops_every_replica_of_every_set() {
    let mut bench = bench(2);
    let first = make_live(&mut bench, "v1");
    let second = make_live(&mut bench, "v2");
    bench.send(Event::Shutdown);
    bench.send(Event::StopAll);
    let mut stopped = stops(&bench.log);
    stopped.sort();
    assert_eq!(stopped, [first, second].concat());
}

/// The runs that these effects probe.
fn probes(effects: &[Effect]) -> Vec<RunId> {
    let probed = |effect: &Effect| match effect {
        Effect::Probe { run, .. } => Some(*run),
        _ => None,
    };
    effects.iter().filter_map(probed).collect()
}

#[test]
fn a_switch_moves_to_all_ports_or_to_none_and_one_goes_back_to_all() {
    let mut bench = Bench::new();
    let switch = |ports: &[u16]| Event::Switch { release: unmanaged_set(ports), reason: Reason::Manual };
    bench.send(switch(&[1, 2]));
    let runs = probes(&bench.record());
    assert_eq!(runs.len(), 2);
    assert_eq!(serves(&bench.send(Event::Ready { run: runs[0] })), None);
    assert_eq!(serves(&bench.send(Event::Ready { run: runs[1] })), Some((runs.clone(), None)));
    bench.record();
    assert_eq!(bench.send(switch(&[1, 2])), [Effect::AlreadyLive]);
    bench.send(switch(&[2, 3]));
    let others = probes(&bench.record());
    bench.send(Event::Ready { run: others[0] });
    let effects = bench.send(Event::NotReady { run: others[1] });
    let unhealthy = |effect: &Effect| matches!(effect, Effect::Tell(Tell::Aborted { why: Abort::Unhealthy, run, .. }) if *run == Some(others[1]));
    assert!(effects.iter().any(unhealthy) && serves(&effects).is_none(), "{effects:?}");
    // One of its ports alone is another release, also while the set drains.
    bench.send(Event::Switch { release: unmanaged(2), reason: Reason::Manual });
    let one = probes(&bench.record());
    assert_eq!(one.len(), 1);
    let former = bench.set_of(runs[0]);
    let effects = bench.send(Event::Ready { run: one[0] });
    assert_eq!(serves(&effects), Some((one, Some((former, FormerTarget::Retire)))));
    bench.record();
    bench.drain_over(runs[0]);
    bench.send(Event::Rollback { to: None, force: false });
    let back = probes(&bench.record());
    back.iter().for_each(|run| drop(bench.send(Event::Ready { run: *run })));
    assert_eq!(bench.state.live_runs(), back);
    assert_eq!((back.len(), bench.state.live_release()), (2, Some(&unmanaged_set(&[1, 2]))));
}

#[test]
fn a_switch_to_several_ports_of_which_one_is_a_process_of_portok_s_is_refused() {
    let mut bench = bench(2);
    make_live(&mut bench, "v1");
    let switch = Event::Switch { release: unmanaged_set(&[100, 200]), reason: Reason::Manual };
    assert_eq!(bench.send(switch), [Effect::Refuse(Refusal::PortInUse { release: "v1".into() })]);
}

#[test]
fn members_say_what_each_place_is_for_and_what_it_does() {
    use crate::wire::{ReplicaRole as Role, ReplicaState as Does};
    let seen = |bench: &Bench| {
        let members = bench.state.members();
        members.iter().map(|member| (member.role, member.replica, member.state)).collect::<Vec<_>>()
    };
    let mut bench = bench(2);
    bench.policy.window = false;
    let first = make_live(&mut bench, "v1");
    for healthy in [false; 3] {
        bench.send(Event::LiveProbed { run: first[1], healthy });
    }
    let second = begin(&mut bench, "v2");
    bench.send(Event::Ready { run: second[0] });
    let expected = [
        (Role::Live, Some(0), Does::Ready),
        (Role::Live, Some(1), Does::Ejected),
        (Role::Candidate, Some(0), Does::Ready),
        (Role::Candidate, Some(1), Does::Starting),
    ];
    assert_eq!(seen(&bench), expected);
    bench.send(Event::Ready { run: second[1] });
    bench.send(exited(second[1]));
    let expected = [
        (Role::Live, Some(0), Does::Ready),
        (Role::Live, Some(1), Does::Waiting),
        (Role::Live, None, Does::Stopping),
        (Role::Previous, Some(0), Does::Draining),
        (Role::Previous, Some(1), Does::Draining),
    ];
    assert_eq!(seen(&bench), expected);
    let restarts = |bench: &Bench| bench.state.members().iter().map(|member| member.restarts).max();
    assert_eq!(restarts(&bench), Some(0));
    let (ticket, _) = restart(&bench.log.clone()).expect("a restart");
    let again = spawns(&bench.send(Event::RestartDue { ticket }))[0].0;
    assert_eq!((restarts(&bench), bench.state.restarts), (Some(1), 1), "whatever becomes of the start");
    bench.send(Event::Spawned { run: again, port: 9 });
    bench.send(Event::Ready { run: again });
    assert_eq!((restarts(&bench), bench.state.restarts), (Some(1), 1));
}

#[test]
fn a_rollback_that_is_ended_by_one_to_the_live_release_leaves_no_place_empty() {
    let mut bench = bench(2);
    make_live(&mut bench, "v1");
    let runs = make_live(&mut bench, "v2");
    bench.send(exited(runs[0]));
    assert!(bench.state.goes_back());
    let effects = bench.roll_back_to("v2");
    assert!(effects.contains(&Effect::AlreadyLive), "{effects:?}");
    let restarts = |effect: &Effect| matches!(effect, Effect::Timer(Timer::Restart(..)));
    assert!(effects.iter().any(restarts), "what ended is started again: {effects:?}");
}
