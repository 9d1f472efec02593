//! An instance whose app somebody else starts: its hardened unit lacks nothing that portokd needs.

use std::path::Path;

use super::harness::command::PORTOKD;
use super::harness::load::Load;
use super::harness::wait::{assert_mentions, wait_until};
use super::host::bare;
use super::instance::Instance;

/// Starts a version of the app on `port`, as a unit of its own.
fn backend(instance: &Instance<'_>, version: &str, port: u16) {
    let command = instance.app(version, "");
    let machine = instance.machine;
    machine.ok(&format!("systemd-run --quiet --unit=backend-{version} -E PORT={port} sh -c '{command}'"));
    wait_until(
        &format!("{version} listens"),
        || machine.run(&format!("systemctl status --no-pager backend-{version}")).out,
        || std::net::TcpStream::connect(("127.0.0.1", port)).ok(),
    );
}

#[test]
fn an_instance_without_an_app_of_its_own_is_hardened_and_lacks_nothing() {
    let Some(machine) = bare() else { return };
    machine.ok("portok init");
    let instance = Instance::new(&machine, "web");
    let serves = |port: u16| {
        let is_it = |status: &portok::wire::Status| status.active_port.filter(|active| *active == port);
        instance.wait_for("it serves", is_it)
    };
    backend(&instance, "v1", 9101);
    backend(&instance, "v2", 9102);
    machine.ok(&format!("portok add web --toml --port {} --target 9101", instance.port));
    assert_mentions(&machine.ok("portok doctor"), &["`web` has a hardened unit"]);
    machine.ok("portok start web");
    serves(9101);
    assert_eq!(instance.version(), "v1");
    assert_eq!(instance.property("ProtectSystem"), "strict");
    let own = machine.ok(&format!("grep -E '^(CapEff|NoNewPrivs):' /proc/{}/status", instance.main_pid()));
    let own: Vec<_> = own.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(own, ["0000000000000401", "1"], "a port below 1024, the owner of a socket, and no more");
    let score = machine.ok("systemd-analyze security --no-pager portok@web.service");
    println!("{}", score.lines().last().unwrap_or_default());

    let load = Load::start(instance.addr());
    instance.portok("switch 9102").ended(0);
    machine.ok("printf '[health]\\ntimeout = \"4s\"\\n' >> /etc/portok/web.toml");
    instance.portok("reload").ended(0);
    // A program elsewhere, under a folder that is closed to writing.
    machine.put(Path::new(PORTOKD), "/root/next/portokd", 0o755);
    let former = instance.main_pid();
    instance.portok("upgrade --binary /root/next/portokd").ended(0);
    wait_until(
        "systemd knows the successor",
        || instance.story(),
        || (instance.main_pid() != former).then_some(()),
    );
    assert_eq!(
        machine.ok(&format!("readlink /proc/{}/exe", instance.main_pid())).trim(),
        "/root/next/portokd"
    );
    load.wait_for_more(100);
    machine.ok("portok restart web");
    serves(9102);
    load.wait_for_more(100);
    load.finish_without_failure();
    let former = instance.main_pid();
    machine.ok(&format!("kill -KILL {former}"));
    wait_until(
        "another daemon runs",
        || instance.story(),
        || Some(instance.main_pid()).filter(|pid| *pid != 0 && *pid != former),
    );
    serves(9102);
    assert_eq!(instance.version(), "v2", "the state was written, and read again");
    let status = instance.status().expect("it answers");
    assert_eq!(status.state_error, None);

    machine.ok("portok remove web --force");
    machine.ok("test ! -e /etc/systemd/system/portok@web.service.d && test ! -e /var/lib/portok/web");
    machine.ok("systemctl stop backend-v1 backend-v2");
}
