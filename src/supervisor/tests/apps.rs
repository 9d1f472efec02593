//! Two apps of one daemon: whatever happens to one, the other's processes, pipes and ports stay.

use std::collections::BTreeSet;
use std::fs;

use super::super::Survivor;
use super::leftovers::{assert_untouched, left, wait_for_line};
use super::*;
use crate::wire::LogsRequest;

/// The names in the daemon's folder of pipes that belong to a run.
fn pipes(bench: &Bench, process: &Process) -> usize {
    let tag = &process.identity().tag;
    let names = fs::read_dir(bench.path().join("run")).unwrap().flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_str().unwrap().starts_with(tag)).count()
}

/// An app that goes on as long as it gets no signal.
async fn server(bench: &Bench) -> Process {
    let process = bench.sh("trap 'echo signalled' TERM; echo ready; while :; do sleep 0.02; done").await;
    said(&process, "ready").await;
    process
}

fn assert_lives(process: &Process) {
    assert!(lives(process.pid()));
    assert_eq!(texts(process), ["ready"]);
}

#[tokio::test]
async fn a_hunt_for_what_one_left_spares_the_other() {
    let web = Bench::new();
    let api = web.beside();
    let (web_runs, api_runs) = (server(&web).await, server(&api).await);
    // What earlier daemons left of both, too late to be recorded: found by the mark alone.
    let (mut of_web, _) = left(Some(&new_tag(&web.supervisor.mark)), "echo; exec sleep 600");
    let (mut of_api, _) = left(Some(&new_tag(&api.supervisor.mark)), "exec cat");
    wait_for_line(&mut of_web);
    within("stopping what was left", web.supervisor.stop_leftovers(Vec::new(), &[], TERM, DEADLINE)).await;
    of_web.wait().unwrap();
    assert_untouched(&mut of_api);
    assert_lives(&web_runs);
    assert_lives(&api_runs);
}

#[tokio::test]
async fn the_end_of_one_is_not_the_others() {
    let web = Bench::new();
    let api = web.beside();
    let (web_runs, api_runs) = (server(&web).await, server(&api).await);
    web_runs.kill();
    within("nothing of the one", web.supervisor.idle()).await;
    web.supervisor.let_go();
    assert_lives(&api_runs);
    assert_eq!(pipes(&web, &web_runs), 0);
    assert_eq!(pipes(&web, &api_runs), 2);
    // Its task still stops it, and its lines are still read.
    api_runs.stop(TERM, DEADLINE);
    said(&api_runs, "signalled").await;
    api_runs.kill();
    within("the end", api_runs.gone()).await;
    assert_eq!(pipes(&web, &api_runs), 0);
}

#[tokio::test]
async fn the_next_daemon_takes_both_over_and_keeps_their_pipes_apart() {
    let mut web = Bench::new();
    let mut api = web.beside();
    let (web_ran, api_ran) = (server(&web).await, server(&api).await);
    let stray = format!("{}.out", new_tag(&web.supervisor.mark));
    fs::write(web.path().join("run").join(&stray), "").unwrap();
    for bench in [&web, &api] {
        bench.supervisor.let_go();
    }

    web.supervisor = web.next_daemon();
    let mark = api.supervisor.mark.clone();
    api.supervisor = Supervisor::for_app(&web.supervisor.common, mark, None).unwrap();
    let recorded = [&web_ran, &api_ran].map(|process| process.identity().clone());
    web.supervisor.common.remove_pipes_but(&recorded);
    assert!(!web.path().join("run").join(&stray).exists());
    let mut runs = Vec::new();
    for (bench, process) in [(&web, &web_ran), (&api, &api_ran)] {
        assert_eq!(pipes(&web, process), 2);
        let survivor = Survivor {
            identity: process.identity().clone(),
            release: "r1".into(),
            replica: 0,
            process: None,
            port: process.port(),
            stopping: None,
        };
        runs.push(within("taking it over", bench.supervisor.adopt(&survivor)).await.unwrap());
        // One port is one app's, whatever the other's record says.
        let other = if std::ptr::eq(bench, &web) { &api } else { &web };
        let error = other.supervisor.adopt(&survivor).await.unwrap_err().to_string();
        assert!(error.contains("recorded for another process"), "{error}");
    }
    // Each boot stops what it does not find in its own record.
    for (bench, run) in [&web, &api].into_iter().zip(&runs) {
        let spared = [run.identity().clone()];
        let stopped = bench.supervisor.stop_leftovers(Vec::new(), &spared, TERM, DEADLINE);
        within("stopping what was left", stopped).await;
    }
    runs[0].kill();
    within("the end", runs[0].gone()).await;
    assert!(lives(runs[1].pid()));
    assert_eq!((pipes(&web, &runs[0]), pipes(&web, &runs[1])), (0, 2));
    let lines: Vec<_> = runs[1].output(9).into_iter().map(|line| line.line).collect();
    assert_eq!(lines, [""; 0], "it has had no signal");
}

#[tokio::test]
async fn no_port_is_leased_to_both_and_each_remembers_its_own_lines() {
    let web = Bench::new();
    let api = web.beside();
    let leases: Vec<_> =
        (0..40).map(|index| [&web, &api][index % 2].supervisor.lease(false).unwrap()).collect();
    let ports: BTreeSet<u16> = leases.iter().map(super::super::Lease::port).collect();
    assert_eq!(ports.len(), leases.len());
    for (bench, text) in [(&web, "echo from web"), (&api, "echo from api")] {
        within("the end", bench.sh(text).await.gone()).await;
    }
    for (bench, line) in [(&web, "from web"), (&api, "from api")] {
        let lines: Vec<_> = bench
            .supervisor
            .logs(&LogsRequest { lines: 9, ..LogsRequest::default() })
            .into_iter()
            .map(|line| line.line)
            .collect();
        assert_eq!(lines, [line]);
    }
}

#[test]
fn no_app_gets_a_port_that_is_avoided() {
    let web = Bench::new();
    let api = web.beside();
    // Ports that nobody listens on, as if their servers were down.
    let (avoided, others): (BTreeSet<u16>, _) = (0..=u16::MAX).partition(|port| port % 3 == 0);
    web.supervisor.common.avoid(avoided.clone());
    let leases: Vec<_> = (0..20).map(|_| api.supervisor.lease(true).unwrap()).collect();
    assert!(leases.iter().all(|lease| !avoided.contains(&lease.port())), "{leases:?}");
    // The next configuration names others.
    web.supervisor.common.avoid(others);
    assert!(avoided.contains(&api.supervisor.lease(true).unwrap().port()));
}
