//! The host commands, from a machine that knows nothing of portok to one that knows nothing of it again.

use std::path::Path;

use serde_json::Value;

use super::harness::command::{PORTOK, PORTOKD};
use super::harness::load::Load;
use super::harness::wait::{assert_mentions, wait_until};
use super::instance::Instance;
use super::machine::Machine;

/// A machine with the two programs and nothing else, where no package puts them.
pub(crate) fn bare() -> Option<Machine> {
    let machine = Machine::boot()?;
    machine.put(Path::new(PORTOK), "/usr/sbin/portok", 0o755);
    machine.put(Path::new(PORTOKD), "/usr/sbin/portokd", 0o755);
    Some(machine)
}

#[track_caller]
fn row(machine: &Machine, name: &str) -> Value {
    let rows: Value = serde_json::from_str(&machine.ok("portok list --json")).expect("one JSON value");
    let rows = rows.as_array().expect("a list");
    rows.iter()
        .find(|row| row["name"] == name)
        .unwrap_or_else(|| panic!("{name} is not in {rows:#?}"))
        .clone()
}

#[test]
fn a_host_is_prepared_used_and_cleaned() {
    let Some(machine) = bare() else { return };
    let said = machine.run("portok doctor").ended(1);
    assert_mentions(&said.out, &["✗ there is no portok@.service", "portok init"]);
    machine.ok("portok init");
    assert!(!machine.ok("portok init").contains("created"));

    let instance = Instance::new(&machine, "shop");
    let (port, command) = (instance.port, instance.app("v1", "say=hello-of-v1"));
    machine.ok(&format!("portok add shop --port {port} --cmd '{command}'"));
    machine.ok("portok enable shop --now");
    let first = instance.wait_until_live();
    let shop = row(&machine, "shop");
    assert_eq!(
        (&shop["unit"]["active"], &shop["unit"]["enabled"]),
        (&"active".into(), &true.into()),
        "{shop:#}"
    );
    assert_eq!(shop["live"]["pid"], first, "{shop:#}");
    machine.ok("portok doctor");

    let load = Load::start(instance.addr());
    let command = instance.app("v2", "");
    instance.portok(&format!("deploy --release second --cmd '{command}'")).ended(0);
    let second = instance.wait_until_live();
    assert_ne!(first, second);
    machine.ok("portok restart shop");
    assert_eq!(instance.wait_until_live(), second, "a restart keeps the app");
    // What only a drop-in mends is no reason to refuse.
    let drop_ins = "/etc/systemd/system/portok@shop.service.d";
    machine.write("/etc/portok/shop.env", "LISTEN_PORT=nowhere\n");
    machine.ok("chmod 600 /etc/portok/shop.env");
    machine.run("portok restart shop").ended(2);
    machine.write("/etc/portok/shop.more", &format!("LISTEN_PORT={port}\n"));
    machine.write(&format!("{drop_ins}/more.conf"), "[Service]\nEnvironmentFile=/etc/portok/shop.more\n");
    machine.ok("systemctl daemon-reload");
    assert_mentions(&machine.ok("portok restart shop"), &["note: not refused"]);
    assert_eq!(instance.wait_until_live(), second);
    machine.ok(&format!(
        "rm -r /etc/portok/shop.env /etc/portok/shop.more {drop_ins} && systemctl daemon-reload"
    ));
    load.wait_for_more(100);
    load.finish_without_failure();
    let both = || machine.ok("portok logs shop");
    wait_until("the journal has both", both, || {
        let said = both();
        (said.contains("hello-of-v1") && said.contains("portokd") && said.contains("`second` is live"))
            .then_some(())
    });

    let said = machine.run("portok remove shop").ended(5);
    assert_mentions(&said.err, &["`shop` runs"]);
    machine.ok("portok stop shop");
    assert!(instance.is_empty(), "{}", instance.story());
    machine.ok("portok start shop");
    instance.wait_until_live();
    // A configuration that does not load: portok spares the daemon, systemd does not.
    machine.ok("sed -i s/listen/lsten/ /etc/portok/shop.toml");
    machine.run("portok restart shop").ended(2);
    instance.wait_until_live();
    machine.run("systemctl restart portok@shop");
    assert!(!instance.is_empty(), "the app lives on without its daemon");
    assert_mentions(&machine.run("portok doctor").ended(1).out, &["its app runs on without it", "lsten"]);
    machine.ok("portok remove shop --force");
    assert!(instance.is_empty(), "{}", instance.story());
    machine.ok("test ! -e /etc/portok/shop.toml && test ! -e /etc/portok/shop.token && test ! -e /var/lib/portok/shop");

    machine.run("portok clean").ended(5);
    machine.ok("portok clean --force");
    machine.ok(
        "test ! -e /etc/portok && test ! -e /var/lib/portok && test ! -e /etc/systemd/system/portok@.service",
    );
    assert_eq!(machine.ok("systemctl list-units --all --no-legend 'portok@*'").trim(), "");
    assert_eq!(machine.ok("find /etc/systemd/system -name '*portok@*'").trim(), "");
}

#[test]
fn a_daemon_with_a_user_of_its_own_serves_a_port_below_1024() {
    let Some(machine) = bare() else { return };
    machine.ok("portok init --user portok-test");
    let mut instance = Instance::new(&machine, "low");
    instance.port = 80;
    let command = instance.app("v1", "");
    machine.ok(&format!("portok add low --port 80 --env --cmd '{command}'"));
    machine.ok(&format!("portok add high --cmd '{command}'"));
    for name in ["low", "high"] {
        machine.ok(&format!("portok start {name}"));
        assert_eq!(row(&machine, name)["unit"]["active"], "active");
    }
    let app = instance.wait_until_live();
    assert_eq!(machine.ok(&format!("ps -o user= -p {app}")).trim(), "portok-test");
    assert_eq!(machine.ok("stat -c '%a %U %G' /etc/portok/low.env").trim(), "600 root root");
    assert_eq!(machine.ok("stat -c '%a %U %G' /etc/portok/high.token").trim(), "640 root portok-test");
    machine.ok("portok doctor");
    machine.ok("portok remove high --force");
    machine.ok(&format!("portok add --cmd '{command}' -- -dash"));
    machine.ok("portok start -- -dash");
    assert_eq!(row(&machine, "-dash")["unit"]["active"], "active", "a name may begin with a dash");
    machine.ok("portok clean --force");
    assert!(instance.is_empty(), "{}", instance.story());
}
