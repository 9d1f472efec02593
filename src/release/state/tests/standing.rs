//! The phases of a live release that crashes or fails its probes, by example.

use super::*;

fn calm(effects: &[Effect]) -> Option<(u64, Duration)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Timer(Timer::Calm(ticket, left)) => Some((*ticket, *left)),
        _ => None,
    })
}

fn saves(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Save { .. })).count()
}

/// A live release without a window, which crashed and serves again.
fn crashed_once(bench: &mut Bench) -> (RunId, Vec<Effect>) {
    bench.policy.window = false;
    let run = bench.make_live("v1", 1);
    let effects = bench.send(Event::Exited { run, port_taken: false });
    let restart = effects.iter().find_map(|effect| match effect {
        Effect::Timer(Timer::Restart(ticket, _)) => Some(*ticket),
        _ => None,
    });
    bench.now += Duration::from_secs(2);
    bench.send(Event::RestartDue { ticket: restart.expect("a restart") });
    let run = bench.last_spawn();
    bench.send(Event::Spawned { run, port: 1 });
    (run, bench.send(Event::Ready { run }))
}

#[test]
fn a_release_that_crashed_is_unstable_until_its_last_crash_is_old() {
    let mut bench = Bench::new();
    let (_, effects) = crashed_once(&mut bench);
    assert_eq!(bench.state.phase(), Phase::Unstable);
    let (ticket, left) = calm(&effects).expect("a time after which it counts as stable");
    assert_eq!(left, policy().restart.within - Duration::from_secs(2));
    bench.send(Event::Calm { ticket: ticket - 1 });
    assert_eq!(bench.state.phase(), Phase::Unstable, "another wait's end");
    bench.send(Event::Calm { ticket });
    assert_eq!(bench.state.phase(), Phase::Settled);
}

#[test]
fn the_end_of_a_wait_that_another_crash_cut_short_means_nothing() {
    let mut bench = Bench::new();
    let (run, effects) = crashed_once(&mut bench);
    let (ticket, _) = calm(&effects).unwrap();
    bench.send(Event::Exited { run, port_taken: false });
    assert_eq!(bench.send(Event::Calm { ticket }), []);
    assert_eq!(bench.state.phase(), Phase::Restarting);
}

#[test]
fn another_release_does_not_inherit_the_crashes() {
    let mut bench = Bench::new();
    crashed_once(&mut bench);
    bench.make_live("v2", 2);
    assert_eq!(bench.state.phase(), Phase::Settled);
}

#[test]
fn each_crash_is_saved_and_the_next_daemon_counts_on() {
    let mut bench = Bench::new();
    let (run, _) = crashed_once(&mut bench);
    let effects = bench.send(Event::Exited { run, port_taken: false });
    assert!(saves(&effects) > 0, "{effects:?}");
    let crashes: Vec<_> = bench.state.crashes().collect();
    assert_eq!(crashes.len(), 2);
    let mut next = Bench { now: bench.now + Duration::from_secs(1), ..Bench::new() };
    let live = Run { id: RunId(1), release: managed("v1"), process: None, port: Some(1) };
    let runs = vec![Adopted { left: Duration::ZERO, ..adopted_run(live, Role::Live) }];
    next.policy.restart.burst = 3;
    let boot = Boot { live: Some(managed("v1")), crashes, runs, ..Boot::default() };
    let effects = next.send(Event::Boot(boot));
    assert_eq!(next.state.phase(), Phase::Unstable);
    assert!(calm(&effects).is_some(), "{effects:?}");
    next.send(Event::Exited { run: RunId(1), port_taken: false });
    assert_eq!(next.state.phase(), Phase::Failed, "the third crash");
}

#[test]
fn a_release_that_fails_its_probes_outside_the_window_is_unhealthy_and_saved_as_such() {
    let mut bench = Bench::new();
    bench.policy.window = false;
    let run = bench.make_live("v1", 1);
    for fails in 1..=5 {
        let effects = bench.send(Event::LiveProbed { run, healthy: false });
        assert_eq!(saves(&effects), usize::from(fails == bench.policy.threshold), "after {fails} fails");
    }
    assert_eq!((bench.state.phase(), bench.state.failed_probes()), (Phase::Unhealthy, 5));
    let boot = Boot { live: Some(managed("v1")), failed_probes: 5, ..Boot::default() };
    let live = Run { id: RunId(1), release: managed("v1"), process: None, port: Some(1) };
    let runs = vec![Adopted { left: Duration::ZERO, ..adopted_run(live, Role::Live) }];
    let mut next = Bench::new();
    next.send(Event::Boot(Boot { runs, ..boot }));
    assert_eq!(next.state.phase(), Phase::Unhealthy);
    assert_eq!(saves(&bench.send(Event::LiveProbed { run, healthy: true })), 1);
    assert_eq!(bench.state.phase(), Phase::Settled);
}

#[test]
fn while_portok_goes_back_by_itself_the_release_is_watched_and_without_a_way_back_unhealthy() {
    let mut bench = Bench::new();
    let run = bench.make_live("v1", 1);
    for _ in 0..3 {
        bench.send(Event::LiveProbed { run, healthy: false });
    }
    assert_eq!(bench.state.phase(), Phase::Unhealthy, "there is nothing to go back to");
    let run = bench.make_live("v2", 2);
    for _ in 0..3 {
        bench.send(Event::LiveProbed { run, healthy: false });
    }
    assert!(bench.state.task.is_some());
    assert_eq!(bench.state.phase(), Phase::Watching);
}

#[test]
fn why_portok_goes_back_nowhere_is_told_truly() {
    let told = |bench: &mut Bench, run| {
        let fails = (0..3).flat_map(|_| bench.send(Event::LiveProbed { run, healthy: false }));
        let said: Vec<_> = fails.filter(|effect| matches!(effect, Effect::Tell(_))).collect();
        said
    };
    let mut bench = Bench::new();
    let first = bench.make_live("v1", 1);
    assert_eq!(told(&mut bench, first), [Effect::Tell(Tell::NoWayBack { went_back: false })]);
    let second = bench.make_live("v2", 2);
    let third = bench.make_live("v3", 3);
    bench.drain_over(second);
    bench.send(Event::Gone { run: second });
    bench.send(Event::Exited { run: third, port_taken: false });
    bench.record();
    let again = bench.last_spawn();
    bench.send(Event::Spawned { run: again, port: 4 });
    bench.send(Event::Ready { run: again });
    assert_eq!(bench.state.live_release(), Some(&managed("v2")));
    assert_eq!(told(&mut bench, again), [Effect::Tell(Tell::NoWayBack { went_back: true })]);
}
