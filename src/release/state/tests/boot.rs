//! The boot, by example: what is taken up of what an earlier daemon left.

use super::*;

fn adopted(id: u64, release: &str, role: Role) -> Adopted {
    let port = u16::try_from(id).ok();
    let run = Run { id: RunId(id), release: managed(release), process: None, port };
    adopted_run(run, role)
}

fn record(live: &str, previous: &str, runs: Vec<Adopted>) -> Boot {
    let served = [previous, live].map(|id| Served { release: managed(id), quarantined: false });
    Boot { live: Some(managed(live)), past: Past::new(served), runs, ..Boot::default() }
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
    assert_eq!(resumed, [(Timer::Drain(bench.set_of(RunId(2)), 0), LEFT), (Timer::Window(ticket), LEFT)]);
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
    let set = bench.set_of(RunId(2));
    assert_eq!(stops(&bench.send(Event::DrainOver { set, seq: 0 })), [RunId(2)]);
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
fn of_two_that_were_recorded_as_live_one_serves_and_the_other_is_stopped() {
    let mut bench = Bench::new();
    let runs = vec![
        adopted(1, "v1", Role::Live),
        adopted(2, "v1", Role::Live),
        adopted(3, "v1", Role::Restoring),
        adopted(4, "v0", Role::Live),
    ];
    let effects = bench.send(Event::Boot(record("v1", "v0", runs)));
    assert_eq!(routes(&effects), Some((RunId(1), None)));
    assert_eq!(stops(&effects), [RunId(2), RunId(3), RunId(4)]);
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
fn restarts_are_counted_on_from_whatever_the_record_says() {
    let mut bench = Bench::new();
    let runs = vec![adopted(1, "v1", Role::Live)];
    bench.send(Event::Boot(Boot { restarts: u32::MAX, ..record("v1", "v0", runs) }));
    bench.send(Event::Exited { run: RunId(1), port_taken: false });
    let ticket = bench.log.iter().rev().find_map(|effect| match effect {
        Effect::Timer(Timer::Restart(ticket, _)) => Some(*ticket),
        _ => None,
    });
    bench.send(Event::RestartDue { ticket: ticket.expect("it is started again") });
    let run = bench.last_spawn();
    bench.send(Event::Ready { run });
    assert_eq!(bench.state.live_run().map(|up| up.id), Some(run), "{:?}", bench.state.live);
    assert_eq!(bench.state.restarts, u32::MAX);
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
fn a_rollback_that_an_exit_brought_is_taken_up_again_whatever_is_left_of_what_ended() {
    let restoring = adopted(1, "v2", Role::Restoring);
    for runs in [Vec::new(), vec![adopted(1, "v2", Role::Stopping)], vec![restoring]] {
        let mut bench = Bench::new();
        let found = format!("{runs:?}");
        bench.send(Event::Boot(Boot { going_back: true, ..record("v2", "v1", runs) }));
        let task = bench.state.task.as_ref().map(|task| (task.release.id.as_str(), task.reason));
        assert_eq!(task, Some(("v1", Reason::AutoRollback)), "{found}");
        let spawned = |effect: &Effect| matches!(effect, Effect::Spawn { .. });
        assert!(!bench.log.iter().any(spawned), "{found}: what has proven bad is started again");
    }
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
