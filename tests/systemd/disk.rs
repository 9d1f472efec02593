//! A disk that fills up and then cannot be written at all, below a daemon that is killed meanwhile. Here because a file
//! system of its own is needed, which only root may mount.

use super::harness::command::Running;
use super::harness::wait::wait_until;
use super::instance::Instance;
use super::machine::Machine;

/// Where the record lies.
const DISK: &str = "/srv/portok-disk";

/// A daemon without a unit, which nobody starts again.
fn daemon(machine: &Machine, instance: &Instance<'_>, words: &str) -> Running {
    machine.start(&format!("exec portokd --config /etc/portok/{}.toml {words}", instance.name))
}

#[test]
fn an_app_on_a_full_and_then_read_only_disk_is_neither_lost_nor_doubled() {
    let Some(machine) = Machine::shared() else { return };
    let instance = Instance::new(machine, "disk");
    machine.ok(&format!("mkdir {DISK} && mount -t tmpfs -o size=1m tmpfs {DISK}"));
    instance.conf(&instance.app("v1", "")).set("state_file", format!("{DISK}/state.json")).save();
    let mut first = daemon(machine, &instance, "");
    let app = instance.wait_until_live();
    let tells = |what: &str| instance.wait_for(what, |status| status.state_error.clone());

    // Full: what is started again cannot be written down.
    assert_ne!(machine.run(&format!("cat /dev/zero >{DISK}/rubbish")).code, 0);
    machine.ok(&format!("kill -9 {app}"));
    let unknown = instance
        .wait_for("the app was started again", |status| status.live.as_ref()?.pid.filter(|&pid| pid != app));
    assert_eq!(instance.wait_until_live(), unknown);
    tells("the status says that the disk is full");
    instance.portok("deploy --cmd false").ended(5);

    // Killed, and no file is open to be written any more: the next one finds what it may only read.
    machine.ok(&format!("pkill -9 -x -f 'portokd --config /etc/portok/{}.toml ?'", instance.name));
    first.wait();
    machine.ok(&format!("mount -o remount,ro {DISK}"));
    let mut second = daemon(machine, &instance, "");
    // What the record does not know is stopped, and the app is started once more.
    assert_ne!(instance.wait_until_live(), unknown);
    tells("the status says that the disk may only be read");
    let third = daemon(machine, &instance, "--listen 7999").wait();
    assert_eq!(third.code, 1, "{third:?}");
    assert!(third.err.contains("belongs to another running portokd"), "{third:?}");
    assert_eq!(instance.version(), "v1");
    assert_eq!(instance.processes().len(), 1, "{}", instance.story());

    machine.ok(&format!("pkill -TERM -x -f 'portokd --config /etc/portok/{}.toml ?'", instance.name));
    second.wait().ended(0);
    wait_until("nothing is left", || instance.story(), || instance.is_empty().then_some(()));
    machine.ok(&format!("umount {DISK}"));
}
