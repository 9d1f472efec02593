//! A replica that grows too large, by example.

use super::sets::{begin, bench, exited, make_live, spawns};
use super::*;

const LIMIT: u64 = 1000;

/// So many replicas live, long after their window and their start.
fn settled(replicas: u16) -> (Bench, Vec<RunId>) {
    let mut bench = bench(replicas);
    (bench.policy.max_memory, bench.policy.window) = (Some(LIMIT), false);
    let runs = make_live(&mut bench, "v1");
    bench.now += bench.policy.recycle_after;
    (bench, runs)
}

/// As many looks as it takes, the last one's effects.
fn grows(bench: &mut Bench, run: RunId) -> Vec<Effect> {
    let look = |bench: &mut Bench| bench.send(Event::Memory { run, bytes: LIMIT + 1 });
    for _ in 0..2 {
        assert_eq!(look(bench), []);
    }
    look(bench)
}

fn tells(effects: &[Effect], which: impl Fn(&Tell) -> bool) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Tell(tell) if which(tell)))
}

#[test]
fn one_more_is_started_and_takes_over_and_the_large_one_drains() {
    let (mut bench, runs) = settled(3);
    let started = spawns(&grows(&mut bench, runs[1]));
    let (new, replica) = started[0];
    assert_eq!((started.len(), replica, bench.state.phase()), (1, 3, Phase::Settled));
    assert!(spawns(&grows_more(&mut bench, runs[0])).is_empty(), "one at a time");
    bench.send(Event::Spawned { run: new, port: 9 });
    let effects = bench.send(Event::Ready { run: new });
    let recycled = |tell: &Tell| *tell == Tell::Recycled { run: runs[1], by: new, bytes: LIMIT + 1 };
    assert!(tells(&effects, recycled), "{effects:?}");
    assert_eq!(bench.state.live_runs(), [runs[0], runs[2], new]);
    let mut served = effects.iter().filter_map(|effect| match effect {
        Effect::Serve { runs, .. } => Some(runs.clone()),
        _ => None,
    });
    assert_eq!(served.next_back(), Some(vec![runs[0], runs[2], new]), "{effects:?}");
    assert_eq!(stops(&effects), [], "it drains");
    bench.record();
    assert_eq!(stops(&bench.drain_over(runs[1])), [runs[1]]);
    assert_eq!(bench.state.restarts, 0, "it was no crash");
}

/// As [`grows`], whatever comes of the looks.
fn grows_more(bench: &mut Bench, run: RunId) -> Vec<Effect> {
    (0..3).flat_map(|_| bench.send(Event::Memory { run, bytes: 2 * LIMIT })).collect()
}

#[test]
fn two_looks_are_none_and_what_shrinks_again_begins_anew() {
    let (mut bench, runs) = settled(1);
    for bytes in [LIMIT + 1, LIMIT + 1, LIMIT, LIMIT + 1, LIMIT + 1] {
        assert_eq!(bench.send(Event::Memory { run: runs[0], bytes }), []);
    }
    assert_eq!(spawns(&bench.send(Event::Memory { run: runs[0], bytes: LIMIT + 1 })).len(), 1);
    let unknown = Event::Memory { run: RunId(999), bytes: LIMIT + 1 };
    assert_eq!(bench.send(unknown), []);
}

#[test]
fn one_that_is_soon_there_again_is_told_of_once_and_stays() {
    let (mut bench, runs) = settled(2);
    bench.policy.recycle_after *= 3;
    let effects = grows(&mut bench, runs[0]);
    let seq = bench.last_save();
    let told = Tell::GrowsFast { run: runs[0], bytes: LIMIT + 1 };
    assert_eq!(effects, [Effect::Tell(told), Effect::Save { seq }]);
    bench.now += bench.policy.recycle_after * 2;
    assert_eq!(grows_more(&mut bench, runs[0]), [], "not later either");
    assert_eq!(spawns(&grows(&mut bench, runs[1])).len(), 1, "the other one has taken its time");
}

#[test]
fn one_that_an_earlier_daemon_started_long_ago_has_taken_its_time() {
    let long = Duration::from_secs(600);
    // Unless it was there soon, which that one had seen.
    for (age, grows_fast, starts) in
        [(Duration::ZERO, None, 0), (long, None, 1), (long, Some(LIMIT), 0), (long, Some(LIMIT / 2), 1)]
    {
        let mut bench = bench(1);
        bench.policy.max_memory = Some(LIMIT);
        bench.now = Duration::from_secs(1_000_000);
        let run = Run { id: RunId(1), release: managed("v1"), process: None, port: Some(1) };
        let (role, step, left) = (Role::Live, None, LEFT);
        let live = Adopted { step, left, age, grows_fast, ..adopted_run(run, role) };
        bench.send(Event::Boot(Boot { live: Some(managed("v1")), runs: vec![live], ..Boot::default() }));
        assert_eq!(spawns(&grows_more(&mut bench, RunId(1))).len(), starts, "{age:?}, {grows_fast:?}");
        let told = bench.state.grows_fast(RunId(1)) == Some(LIMIT);
        assert_eq!(told, starts == 0, "the next daemon knows it too");
    }
}

#[test]
fn a_limit_that_is_set_later_holds_for_what_has_run_for_long() {
    let (mut bench, runs) = settled(1);
    bench.policy.max_memory = None;
    bench.send(Event::Settings);
    bench.policy.max_memory = Some(LIMIT);
    bench.send(Event::Settings);
    assert_eq!(spawns(&grows(&mut bench, runs[0])).len(), 1);
}

#[test]
fn one_that_was_soon_at_a_limit_may_take_its_time_to_the_next() {
    let (mut bench, runs) = settled(1);
    bench.policy.recycle_after *= 2;
    assert_eq!(spawns(&grows_more(&mut bench, runs[0])), [], "it grows fast");
    bench.policy.max_memory = Some(2 * LIMIT);
    bench.now += bench.policy.recycle_after;
    let look = Event::Memory { run: runs[0], bytes: 3 * LIMIT };
    assert_eq!((0..3).flat_map(|_| spawns(&bench.send(look.clone()))).count(), 1);
}

#[test]
fn one_that_is_gone_back_to_is_as_old_as_it_is() {
    let (mut bench, runs) = settled(1);
    make_live(&mut bench, "v2");
    bench.roll_back();
    bench.send(Event::Ready { run: runs[0] });
    bench.record();
    assert_eq!(bench.state.live_runs(), runs);
    assert_eq!(spawns(&grows(&mut bench, runs[0])).len(), 1);
}

#[test]
fn none_begins_in_a_watch_window_or_beside_a_deploy() {
    let (mut bench, _) = settled(2);
    bench.policy.window = true;
    let runs = make_live(&mut bench, "v2");
    bench.now += bench.policy.recycle_after;
    assert_eq!(grows_more(&mut bench, runs[0]), []);
    let ticket = bench.state.window.expect("a window").ticket;
    bench.send(Event::WindowOver { ticket });
    begin(&mut bench, "v3");
    assert_eq!(grows_more(&mut bench, runs[0]), []);
    bench.send(Event::Cancel);
    assert_eq!(spawns(&grows_more(&mut bench, runs[0])).len(), 1, "as soon as that is over");
}

#[test]
fn none_begins_where_no_two_may_run_at_a_time() {
    let (mut bench, runs) = settled(1);
    bench.policy.recreate = true;
    assert_eq!(grows_more(&mut bench, runs[0]), []);
    (bench.policy.recreate, bench.state.recreated) = (false, true);
    assert_eq!(grows_more(&mut bench, runs[0]), []);
    bench.state.recreated = false;
    assert_eq!(spawns(&grows_more(&mut bench, runs[0])).len(), 1);
}

#[test]
fn a_replacement_that_fails_is_no_crash_and_the_large_one_stays() {
    let late = |run| Event::NotReady { run };
    for event in [late as fn(RunId) -> Event, exited] {
        let (mut bench, runs) = settled(2);
        let new = spawns(&grows(&mut bench, runs[0]))[0].0;
        bench.send(Event::Spawned { run: new, port: 9 });
        let effects = bench.send(event(new));
        assert!(tells(&effects, |tell| *tell == Tell::NotRecycled { run: runs[0] }), "{effects:?}");
        assert!(!tells(&effects, |tell| matches!(tell, Tell::Crashed { .. })), "{effects:?}");
        assert_eq!(stops(&effects), [new]);
        assert_eq!((bench.state.live_runs(), bench.state.phase()), (runs.clone(), Phase::Settled));
        assert_eq!(grows_more(&mut bench, runs[0]), [], "not at once again");
        bench.now += bench.policy.recycle_after;
        assert_eq!(spawns(&grows_more(&mut bench, runs[0])).len(), 1);
    }
}

#[test]
fn a_replacement_whose_port_is_taken_is_tried_on_another() {
    let (mut bench, runs) = settled(1);
    let first = spawns(&grows(&mut bench, runs[0]))[0].0;
    let effects = bench.send(Event::Exited { run: first, port_taken: true });
    let (new, _) = spawns(&effects)[0];
    bench.send(Event::Spawned { run: new, port: 9 });
    bench.send(Event::Ready { run: new });
    assert_eq!(bench.state.live_runs(), [new]);
}

#[test]
fn where_the_large_one_ends_by_itself_there_are_as_many_as_wanted() {
    let (mut bench, runs) = settled(2);
    let new = spawns(&grows(&mut bench, runs[0]))[0].0;
    let effects = bench.send(exited(runs[0]));
    assert_eq!(stops(&effects), [runs[0], new], "its place is filled as after any crash");
    assert_eq!(bench.state.phase(), Phase::Degraded);
    let places = bench.state.members().iter().filter(|member| member.replica.is_some()).count();
    assert_eq!(places, 2);
}

#[test]
fn a_deploy_that_goes_live_meanwhile_ends_it() {
    let (mut bench, runs) = settled(2);
    let new = spawns(&grows(&mut bench, runs[0]))[0].0;
    bench.send(Event::Spawned { run: new, port: 9 });
    let second = make_live(&mut bench, "v2");
    assert!(stops(&bench.log).contains(&new));
    assert_eq!(bench.state.live_runs(), second);
    assert_eq!(bench.send(Event::Ready { run: new }), []);
}

#[test]
fn the_next_daemon_has_as_many_as_wanted_wherever_the_former_was_killed() {
    let adopted = |id: u64, replica: u16, role| Adopted {
        set: 7,
        replica,
        ..adopted_run(
            Run { id: RunId(id), release: managed("v1"), process: None, port: Some(100 + replica) },
            role,
        )
    };
    let live = |id, replica| adopted(id, replica, Role::Live);
    for (runs, stopped) in [
        (vec![live(1, 0), live(2, 1), adopted(3, 2, Role::Restoring)], 1),
        (vec![live(1, 0), live(2, 1), live(3, 2)], 0),
        (vec![live(1, 0), live(2, 2), adopted(3, 1, Role::Draining)], 0),
        (vec![live(1, 1), live(2, 2)], 0),
    ] {
        let mut bench = bench(2);
        bench.policy.max_memory = Some(LIMIT);
        let found = format!("{runs:?}");
        let boot = Boot { live: Some(managed("v1")), runs, ..Boot::default() };
        let effects = bench.send(Event::Boot(boot));
        assert_eq!(spawns(&effects), [], "{found}");
        assert_eq!(stops(&effects).len(), stopped, "{found}");
        assert_eq!(bench.state.live_runs().len(), 2, "{found}");
    }
}
