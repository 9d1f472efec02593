//! Which limits a host can hold an app to.

use super::*;

const LIMITS: &str = "[app]\nopen_files = 4096\nmemory = \"512MiB\"\ncpu = \"150%\"\ntasks = 200\n";

#[test]
fn an_app_gets_the_limits_that_the_host_can_hold_it_to() {
    let config = Case::file(LIMITS).good();
    let limits = Limits { open_files: Some(4096), memory: Some(512 << 20), cpu: Some(150), tasks: Some(200) };
    assert_eq!(config.app.app.limits, limits);
    let shown = config.effective_toml();
    for line in ["open_files = 4096", "memory = \"512MiB\"", "cpu = \"150%\"", "tasks = 200"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    assert!(Case::file("").good().app.app.limits.is_none());
}

#[test]
fn a_limit_that_the_host_cannot_hold_an_app_to_is_refused_with_the_reason() {
    let refused = |change: fn(&mut Host), parts: &[(&str, &str)]| {
        let mut case = Case::file(LIMITS);
        change(&mut case.host);
        let problems = case.problems();
        assert_eq!(problems.len(), parts.len(), "{problems:#?}");
        for (problem, (key, why)) in problems.iter().zip(parts) {
            assert!(problem.contains(key) && problem.contains(why), "{problem}: {key}, {why}");
        }
        case.sources.client = true;
        case.good();
    };
    let all = |why| [("app.memory = \"512MiB\"", why), ("app.cpu", why), ("app.tasks", why)];
    refused(|host| host.uid = 33, &all("only root may ask systemd for a scope, and this is uid 33"));
    refused(|host| host.systemd = false, &all("systemd, whose scope it takes, is not running here"));
    refused(|host| host.systemd_run = false, &all("/usr/bin/systemd-run, which it takes, is not here"));
    refused(
        |host| host.controllers = vec!["memory".into(), "cpu".into()],
        &[("app.tasks", "controller `pids`")],
    );
    refused(|host| host.open_files = 4095, &[("app.open_files = 4096", "at most 4095")]);
}
