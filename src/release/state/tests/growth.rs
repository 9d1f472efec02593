//! How the number of replicas follows the load, by example.

use super::*;
use crate::config::Replicas;

const IDLE: Duration = Duration::from_secs(10);

/// A world without a watch window, in which a release may have from `min` to `max` replicas; one is
/// busy with two requests.
fn bench(min: u16, max: u16) -> Bench {
    let replicas = Replicas { min, max, busy_at: 2, idle: IDLE };
    Bench { policy: Policy { window: false, replicas, ..policy() }, ..Bench::new() }
}

impl Bench {
    /// One second later the load is looked at.
    fn look(&mut self, inflight: u64, tunnels: &[RunId]) -> Vec<Effect> {
        self.now += Duration::from_secs(1);
        let set = self.set_of(self.state.live_run().unwrap().id);
        self.send(Event::Load { set, load: Load { inflight, tunnels: tunnels.to_vec(), elsewhere: false } })
    }

    /// Nothing is in flight until the number has changed.
    fn quieten(&mut self, tunnels: &[RunId]) -> Vec<Effect> {
        let from = self.state.wanted();
        for _ in 0..=IDLE.as_secs() {
            let effects = self.look(0, tunnels);
            if self.state.wanted() != from {
                return effects;
            }
        }
        Vec::new()
    }

    /// The runs that these effects start are ready.
    fn come_up(&mut self, effects: &[Effect]) -> Vec<RunId> {
        let started = spawned(effects);
        for run in &started {
            self.send(Event::Spawned { run: *run, port: 100 });
            self.send(Event::Ready { run: *run });
        }
        self.record();
        started
    }

    fn go_live(&mut self, id: &str) -> Vec<RunId> {
        self.deploy(id);
        let effects = self.record();
        self.come_up(&effects)
    }
}

fn spawned(effects: &[Effect]) -> Vec<RunId> {
    let spawned = |effect: &Effect| match effect {
        Effect::Spawn { run, .. } => Some(*run),
        _ => None,
    };
    effects.iter().filter_map(spawned).collect()
}

#[test]
fn two_busy_looks_in_a_row_start_one_more_up_to_the_most() {
    let mut bench = bench(1, 2);
    bench.go_live("v1");
    assert_eq!(spawned(&bench.look(2, &[])), []);
    assert_eq!(spawned(&bench.look(1, &[])), []);
    assert_eq!(spawned(&bench.look(2, &[])), []);
    let effects = bench.look(9, &[]);
    assert_eq!(spawned(&effects).len(), 1);
    for _ in 0..4 {
        assert_eq!(spawned(&bench.look(9, &[])), [], "one starts already");
    }
    bench.come_up(&effects);
    assert_eq!(bench.state.live_runs().len(), 2);
    for _ in 0..4 {
        assert_eq!(spawned(&bench.look(9, &[])), [], "these are all that may be");
    }
}

#[test]
fn a_whole_idle_of_quiet_stops_the_youngest_and_again_another_idle_later() {
    let mut bench = bench(1, 3);
    bench.go_live("v1");
    for _ in 0..2 {
        bench.look(9, &[]);
        let effects = bench.look(9, &[]);
        bench.come_up(&effects);
    }
    let runs = bench.state.live_runs();
    assert_eq!(runs.len(), 3);
    // Two would have one request each at most: that is half as busy.
    for _ in 0..IDLE.as_secs() {
        bench.look(2, &[]);
    }
    bench.look(3, &[]);
    assert_eq!(bench.state.live_runs(), runs, "the quiet began anew");
    let begins = bench.now;
    bench.quieten(&[]);
    assert_eq!(bench.now - begins, IDLE + Duration::from_secs(1));
    assert_eq!(bench.state.live_runs(), runs[..2]);
    assert!(bench.state.role(runs[2], false) == Role::Draining);
    let begins = bench.now;
    bench.quieten(&[]);
    assert!(bench.now - begins >= IDLE);
    assert_eq!(bench.state.live_runs(), runs[..1]);
    assert_eq!(bench.quieten(&[]), [], "this is the least");
    bench.record();
    assert_eq!(stops(&bench.drain_over(runs[2])), [runs[2]]);
}

#[test]
fn nothing_is_quiet_while_a_daemon_before_this_one_has_requests_too() {
    let mut bench = bench(0, 2);
    bench.go_live("v1");
    let set = bench.set_of(bench.state.live_run().unwrap().id);
    for _ in 0..2 * IDLE.as_secs() {
        bench.now += Duration::from_secs(1);
        bench.send(Event::Load { set, load: Load { elsewhere: true, ..Load::default() } });
    }
    assert_eq!(bench.state.wanted(), 1, "nobody knows whether it has anything to do");
    let begins = bench.now;
    bench.quieten(&[]);
    assert!(bench.state.is_idle() && bench.now - begins >= IDLE, "a whole quiet is counted from then on");
}

#[test]
fn one_that_has_tunnels_is_stopped_last_and_never_for_none() {
    let mut bench = bench(0, 2);
    let first = bench.go_live("v1");
    bench.look(9, &[]);
    let effects = bench.look(9, &[]);
    let second = bench.come_up(&effects);
    bench.quieten(&second);
    assert_eq!(bench.state.live_runs(), second, "the older one had none");
    assert_eq!(bench.quieten(&second), []);
    assert_eq!(bench.state.live_runs(), second, "an open tunnel is something to do");
    bench.quieten(&[]);
    assert!(bench.state.is_idle() && first != second);
}

#[test]
fn nothing_shrinks_in_a_window_and_nothing_during_a_deploy_but_it_grows() {
    let mut bench = bench(1, 3);
    bench.policy.window = true;
    bench.go_live("v1");
    bench.look(9, &[]);
    let effects = bench.look(9, &[]);
    bench.come_up(&effects);
    assert_eq!(bench.quieten(&[]), [], "its window is open");
    let ticket = bench.state.window.unwrap().ticket;
    bench.send(Event::WindowOver { ticket });
    bench.deploy("v2");
    assert_eq!(bench.quieten(&[]), [], "a deploy is under way");
    bench.look(9, &[]);
    let effects = bench.look(9, &[]);
    assert_eq!(spawned(&effects).len(), 1);
    // The intent is written down with that.
    bench.come_up(&effects);
    let is_candidate = |effect: &&Effect| matches!(effect, Effect::Spawn { release, .. } if release == "v2");
    assert_eq!(bench.log.iter().filter(is_candidate).count(), 3, "as many as live wants by now");
}

#[test]
fn one_that_waits_after_a_crash_counts_and_goes_first() {
    let mut bench = bench(1, 2);
    bench.go_live("v1");
    bench.look(9, &[]);
    let effects = bench.look(9, &[]);
    let second = bench.come_up(&effects);
    bench.send(Event::Exited { run: second[0], port_taken: false });
    for _ in 0..4 {
        assert_eq!(spawned(&bench.look(9, &[])), [], "two is the most");
    }
    bench.quieten(&[]);
    assert_eq!((bench.state.wanted(), bench.state.live_runs().len()), (1, 1));
    assert_eq!(bench.state.phase(), Phase::Unstable);
}

#[test]
fn the_last_one_is_stopped_and_the_next_request_starts_one() {
    let mut bench = bench(0, 2);
    let runs = bench.go_live("v1");
    assert_eq!(bench.send(Event::Wake), [], "it is awake");
    let effects = bench.quieten(&[]);
    assert!(effects.contains(&Effect::Idle));
    assert_eq!(bench.state.phase(), Phase::Idle);
    bench.record();
    assert_eq!(stops(&bench.drain_over(runs[0])), runs);
    assert_eq!(bench.send(Event::Settings), []);
    let effects = bench.send(Event::Wake);
    let woken = spawned(&effects);
    assert_eq!(woken.len(), 1);
    assert_eq!(bench.state.phase(), Phase::Starting);
    assert_eq!(spawned(&bench.send(Event::Wake)), [], "one is woken");
    // A start from zero that fails is a crash.
    bench.send(Event::Exited { run: woken[0], port_taken: false });
    assert!(bench.state.task.is_none() && bench.state.crashes().count() == 1);
    assert_eq!(bench.state.wanted(), 1, "it is started again");
}

#[test]
fn a_request_takes_the_last_one_back_while_it_drains() {
    let mut bench = bench(0, 1);
    let runs = bench.go_live("v1");
    bench.quieten(&[]);
    let effects = bench.send(Event::Wake);
    assert_eq!(spawned(&effects), []);
    assert_eq!(serves(&effects).map(|(runs, _)| runs), Some(runs.clone()));
    bench.record();
    assert_eq!(stops(&bench.drain_over(runs[0])), [], "it serves");
    assert_eq!(bench.state.phase(), Phase::Settled);
}

#[test]
fn a_deploy_of_an_idle_app_starts_one_and_the_same_release_is_live_already() {
    let mut bench = bench(0, 3);
    bench.go_live("v1");
    bench.quieten(&[]);
    assert_eq!(bench.deploy("v1"), [Effect::AlreadyLive]);
    assert_eq!(bench.go_live("v2").len(), 1);
    assert_eq!(bench.state.phase(), Phase::Settled);
}

#[test]
fn the_next_daemon_has_as_many_as_were_wanted_and_stays_idle() {
    let boot = |wanted, count: u64| {
        let run = |id| Run { id: RunId(id), release: managed("v1"), process: None, port: Some(1) };
        let replica = |id: u64| u16::try_from(id).unwrap();
        let adopted = |id| Adopted { set: 3, replica: replica(id), ..adopted_run(run(id), Role::Live) };
        let runs = (1..=count).map(adopted).collect();
        Event::Boot(Boot { live: Some(managed("v1")), wanted, runs, ..Boot::default() })
    };
    for (wanted, ran, starts) in
        [(Some(3), 2, 1), (Some(2), 2, 0), (None, 2, 0), (None, 0, 1), (Some(9), 1, 3)]
    {
        let mut bench = bench(0, 4);
        let effects = bench.send(boot(wanted, ran));
        assert_eq!(spawned(&effects).len(), starts, "{wanted:?}, {ran}");
    }
    let mut bench = bench(0, 4);
    assert_eq!(bench.send(boot(Some(0), 0)), [Effect::Idle]);
    assert_eq!(bench.state.phase(), Phase::Idle);
    assert_eq!(spawned(&bench.send(Event::Wake)).len(), 1);
    let mut bench = bench_of(2);
    assert_eq!(spawned(&bench.send(boot(Some(0), 0))).len(), 2, "the file says so by now");
}

fn bench_of(count: u16) -> Bench {
    bench(count, count)
}

#[test]
fn a_start_from_none_that_fails_is_a_crash() {
    let mut bench = bench(0, 1);
    let first = bench.go_live("v1")[0];
    bench.quieten(&[]);
    bench.record();
    bench.drain_over(first);
    bench.send(Event::Gone { run: first });
    let woken = spawned(&bench.send(Event::Wake))[0];
    assert_eq!(bench.state.phase(), Phase::Starting);
    let effects = bench.send(Event::Exited { run: woken, port_taken: false });
    assert_eq!(bench.state.phase(), Phase::Restarting);
    let ticket = effects.iter().find_map(|effect| match effect {
        Effect::Timer(Timer::Restart(ticket, _)) => Some(*ticket),
        _ => None,
    });
    let effects = bench.send(Event::RestartDue { ticket: ticket.expect("another try") });
    bench.come_up(&effects);
    assert_eq!(bench.state.restarts, 1);
}
