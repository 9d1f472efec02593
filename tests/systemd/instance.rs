//! One instance of portok in a machine: its configuration, its unit, its app.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};

use portok::wire::Status;
use serde_json::Value;

use super::harness::app::FIXTURE;
use super::harness::command::Said;
use super::harness::conf::Conf;
use super::harness::http::{Answer, Conn};
use super::harness::procs::{self, Tagged};
use super::harness::wait::wait_until;
use super::machine::{APP, Machine, SCRATCH};

/// An instance with a name and a port of its own. What it has to say is printed when its test fails; when it ends, it
/// is stopped.
#[derive(Debug)]
pub(crate) struct Instance<'m> {
    pub(crate) machine: &'m Machine,
    pub(crate) name: String,
    pub(crate) port: u16,
}

impl<'m> Instance<'m> {
    /// Nothing is configured yet. The calling thread speaks on the machine's network from now on.
    pub(crate) fn new(machine: &'m Machine, name: &str) -> Self {
        static PORTS: AtomicU16 = AtomicU16::new(8000);
        machine.enter_network();
        Self { machine, name: name.to_owned(), port: PORTS.fetch_add(1, Ordering::Relaxed) }
    }

    /// A `.toml` with quick timings that runs `app`, not saved yet.
    pub(crate) fn conf(&self, app: &str) -> Conf {
        Conf::new(self.machine.path(&format!("/etc/portok/{}.toml", self.name)))
            .set("listen", i64::from(self.port))
            .set("app.command", app)
            .set("drain.period", "2s")
            .set("rollback.window", "0")
    }

    /// The command of a version of the fixture app, with what [`fixture`](super::harness::fixture) understands: a script,
    /// so that nothing has to be quoted on its way through files and shells.
    pub(crate) fn app(&self, version: &str, words: &str) -> String {
        let script = format!("{SCRATCH}/{}-{version}.sh", self.name);
        let spec = format!("version={version} journal={} {words}", self.journal_of(version));
        let text = format!(
            "#!/bin/sh\n{FIXTURE}='{}' exec {APP} --exact fixture_app --nocapture --test-threads=1\n",
            spec.trim()
        );
        self.machine.write(&script, &text);
        format!("exec sh {script}")
    }

    fn journal_of(&self, version: &str) -> String {
        format!("{SCRATCH}/{}-{version}", self.name)
    }

    /// What a version of the app wrote down about itself.
    pub(crate) fn app_journal(&self, version: &str) -> Vec<String> {
        self.machine.read(&self.journal_of(version)).lines().map(str::to_owned).collect()
    }

    pub(crate) fn unit(&self) -> String {
        format!("portok@{}.service", self.name)
    }

    /// `systemctl VERB` of its unit, which has to succeed.
    #[track_caller]
    pub(crate) fn systemctl(&self, verb: &str) {
        self.machine.ok(&format!("systemctl {verb} {}", self.unit()));
    }

    /// A property of its unit.
    #[track_caller]
    pub(crate) fn property(&self, name: &str) -> String {
        self.machine.ok(&format!("systemctl show -P {name} {}", self.unit())).trim().to_owned()
    }

    /// The daemon's pid in the machine.
    #[track_caller]
    pub(crate) fn main_pid(&self) -> u32 {
        self.property("MainPID").parse().expect("a pid")
    }

    /// `portok --instance NAME WORDS`.
    #[track_caller]
    pub(crate) fn portok(&self, words: &str) -> Said {
        self.machine.run(&format!("timeout 50 portok --instance {} {words}", self.name))
    }

    /// `portok status`, once the daemon answers.
    pub(crate) fn status(&self) -> Option<Status> {
        let said = self.portok("--json status");
        serde_json::from_str(&said.out).ok().filter(|_| said.code == 0)
    }

    /// Waits until the status is such that `check` finds something in it.
    #[track_caller]
    pub(crate) fn wait_for<T>(&self, what: &str, check: impl Fn(&Status) -> Option<T>) -> T {
        wait_until(what, || self.story(), || self.status().and_then(|status| check(&status)))
    }

    /// Waits until the app answers through portok; gives back the pid of the live release.
    #[track_caller]
    pub(crate) fn wait_until_live(&self) -> u32 {
        let pid = self.wait_for("an app is live", |status| status.live.as_ref()?.pid);
        wait_until(
            "it answers",
            || self.story(),
            || self.get("/").ok().filter(|answer| answer.status() == 200),
        );
        pid
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// One request on a new connection.
    pub(crate) fn get(&self, path: &str) -> std::io::Result<Answer> {
        Conn::tcp(self.addr())?.request("GET", path, &[("connection", "close")], None)
    }

    /// The version that answers.
    #[track_caller]
    pub(crate) fn version(&self) -> String {
        self.get("/").expect("portok answers").expect(200).version().to_owned()
    }

    /// The journal's entries that `matches` picks, as JSON objects.
    #[track_caller]
    pub(crate) fn journal(&self, matches: &str) -> Vec<Value> {
        let lines = self.machine.ok(&format!("journalctl --no-pager -o json {matches}"));
        lines.lines().map(|line| serde_json::from_str(line).expect("an entry is JSON")).collect()
    }

    /// Waits until an entry that `matches` picks satisfies `check`.
    #[track_caller]
    pub(crate) fn wait_for_entry(&self, what: &str, matches: &str, check: impl Fn(&Value) -> bool) -> Value {
        wait_until(what, || self.story(), || self.journal(matches).into_iter().find(&check))
    }

    /// Whether nothing that portok started for it runs any more.
    pub(crate) fn is_empty(&self) -> bool {
        self.processes().is_empty()
    }

    /// What portok started for it and still runs.
    pub(crate) fn processes(&self) -> Vec<Tagged> {
        let mut processes = procs::of_instance(&self.name);
        processes.retain(|process| self.machine.has(process.pid));
        processes
    }

    /// What there is to know about it, for the report of a failure.
    pub(crate) fn story(&self) -> String {
        let unit = self.unit();
        let line = format!(
            "systemctl status --no-pager --full -n 0 {unit}; journalctl --no-pager -o short-precise -n 80 \
             _SYSTEMD_UNIT={unit} + UNIT={unit} + SYSLOG_IDENTIFIER={}; timeout 5 portok --instance {} status",
            self.name, self.name
        );
        let said = self.machine.run(&line);
        format!("{}\n{}\n{:#?}", said.out, said.err, self.processes())
    }
}

impl Drop for Instance<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.story());
        }
        self.machine.run(&format!(
            "timeout 30 systemctl stop {0} portok@{1}.socket; systemctl reset-failed {0}",
            self.unit(),
            self.name
        ));
        if !std::thread::panicking() {
            wait_until("nothing of it is left", || self.story(), || self.is_empty().then_some(()));
        }
    }
}
