//! What an app may use at most: refused where portokd cannot hold it to that, kept to where it can.

use super::harness::wait::wait_until;
use super::instance::Instance;
use super::machine::{Machine, SCRATCH};

#[test]
fn an_app_gets_its_limit_of_open_files() {
    let Some(machine) = Machine::shared() else { return };
    let instance = Instance::new(machine, "files");
    instance.conf(&instance.app("v1", "")).set("app.open_files", 777).save();
    instance.systemctl("start");
    let app = instance.wait_until_live();
    let limits = machine.ok(&format!("cat /proc/{app}/limits"));
    let soft = limits.lines().filter(|line| line.starts_with("Max open files"));
    assert!(
        soft.clone().any(|line| line.split_whitespace().nth(3) == Some("777")),
        "{:?}",
        soft.collect::<Vec<_>>()
    );
}

#[test]
fn limits_are_refused_to_a_daemon_that_is_not_root() {
    let Some(machine) = Machine::shared() else { return };
    machine.write(&format!("{SCRATCH}/limited.toml"), "[app]\ncommand = \"exec app\"\nmemory = \"64MiB\"\n");
    let check = format!("portokd --check --config {SCRATCH}/limited.toml");
    let said = machine.run(&format!("setpriv --reuid=portok-test --clear-groups -- {check}")).ended(2);
    assert!(
        said.err.contains("app.memory = \"64MiB\"") && said.err.contains("only root may ask systemd"),
        "{}",
        said.err
    );
}

#[test]
fn an_app_is_held_to_its_limits_from_the_first_instruction_and_stopped_wholly() {
    let Some(machine) = Machine::boot_with_controllers() else { return };
    machine.install();
    let instance = Instance::new(&machine, "limited");
    let conf = |app: &str| {
        let conf = instance.conf(app).set("app.user", "portok-test").set("app.memory", "64MiB");
        let conf = conf.set("app.stop_timeout", "1s");
        conf.set("app.cpu", "150%").set("app.tasks", 50).set("app.open_files", 777)
    };
    conf(&instance.app("v1", "helper")).save();
    instance.systemctl("start");
    let app = instance.wait_until_live();

    // Still the daemon's child, and its group's leader, with the user, the environment and the limits it was to get.
    let stat = machine.ok(&format!("ps -o ppid=,pgid=,user:20= -p {app}"));
    let expected = [instance.main_pid().to_string(), app.to_string(), "portok-test".to_owned()];
    assert_eq!(stat.split_whitespace().collect::<Vec<_>>(), expected);
    assert!(
        machine.ok(&format!("cat /proc/{app}/limits")).lines().any(|line| {
            line.starts_with("Max open files") && line.split_whitespace().nth(3) == Some("777")
        })
    );
    let environment = machine.ok(&format!("tr '\\0' '\\n' </proc/{app}/environ"));
    for (word, there) in
        [("INVOCATION_ID=", false), ("PORTOK_INSTANCE=limited", true), ("USER=portok-test", true)]
    {
        assert_eq!(environment.lines().any(|line| line.starts_with(word)), there, "{word}: {environment}");
    }
    let scope = machine.ok(&format!("ps -o unit= -p {app}")).trim().to_owned();
    assert!(scope.starts_with("portok-limited-") && scope.ends_with(".scope"), "{scope}");
    let shown =
        machine.ok(&format!("systemctl show -p MemoryMax,CPUQuotaPerSecUSec,TasksMax,Slice,Before {scope}"));
    let unit = instance.unit();
    for part in [
        "MemoryMax=67108864",
        "CPUQuotaPerSecUSec=1.500000s",
        "TasksMax=50",
        "Slice=system-portok.slice",
        &unit,
    ] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    // The kernel keeps to it: a release that takes more memory does not come up, and the one before goes on.
    let greedy = "exec sh -c 'head -c 200M /dev/zero | tail -c 200M >/dev/null && sleep 1000'";
    machine.write(&format!("{SCRATCH}/greedy.sh"), &format!("{greedy}\n"));
    let said = instance.portok(&format!("deploy --release greedy --cmd 'sh {SCRATCH}/greedy.sh'"));
    let said = said.ended(3);
    assert!(said.err.contains("Killed"), "{}", said.err);
    assert_eq!((instance.wait_until_live(), instance.version().as_str()), (app, "v1"));

    // A restarted daemon takes it over like any other, and a stop leaves nothing of it: no helper, no scope.
    instance.systemctl("restart");
    assert_eq!(instance.wait_until_live(), app);
    instance.systemctl("stop");
    assert!(instance.is_empty(), "{}", instance.story());
    let is_without_scope = || {
        let scopes = machine.ok("systemctl list-units --plain --no-legend 'portok-limited-*'");
        scopes.trim().is_empty().then_some(())
    };
    wait_until("its scope is gone", || instance.story(), is_without_scope);

    // A daemon that is killed and cannot start again leaves the app in its scope, where it is found all the same.
    instance.systemctl("start");
    instance.wait_until_live();
    machine.ok("sed -i s/listen/lsten/ /etc/portok/limited.toml");
    machine.ok(&format!("kill -KILL {}", instance.main_pid()));
    wait_until(
        "the daemon is gone for good",
        || instance.story(),
        || (instance.property("ActiveState") == "failed").then_some(()),
    );
    assert!(!instance.is_empty(), "the app lives on without its daemon");
    machine.ok("portok stop limited");
    assert!(instance.is_empty(), "{}", instance.story());
    wait_until("its scope is gone", || instance.story(), is_without_scope);
}
