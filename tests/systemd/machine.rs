//! A machine with a real systemd: boots it, runs commands in it, looks at its files and processes, ends it.
//!
//! `boot.sh` keeps it: it ends the machine as soon as its standard input is closed, which happens when a [`Machine`] is
//! dropped and also when this process dies in whatever way. The machine's network is its own: a test's thread has to
//! [`enter`](Machine::enter_network) it before it can talk to what runs there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sched::{CloneFlags, setns};
use tempfile::TempDir;

use super::harness::app::this_binary;
use super::harness::command::{PORTOK, PORTOKD, Running, Said};
use super::harness::wait::wait_until;

/// What makes a skipped test a failed one.
const REQUIRED: &str = "PORTOK_REQUIRE_SYSTEMD";

/// Where the fixture app lies in the machine.
pub(crate) const APP: &str = "/usr/lib/portok-test/app";

/// Where the tests keep what they write in the machine: everybody may.
pub(crate) const SCRATCH: &str = "/srv/portok-test";

/// A running machine.
#[derive(Debug)]
pub(crate) struct Machine {
    /// Systemd's pid as it is seen from here.
    init: u32,
    keeper: Child,
    /// The machine ends when this is closed.
    life: Option<ChildStdin>,
    cgroup: String,
    /// Output of commands.
    folder: TempDir,
    commands: AtomicUsize,
}

impl Machine {
    /// The machine that the tests share, with portok installed by hand; `None` where there can be none.
    pub(crate) fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Machine>> = OnceLock::new();
        SHARED
            .get_or_init(|| {
                let machine = Self::boot()?;
                machine.install();
                Some(machine)
            })
            .as_ref()
    }

    /// Boots a machine without portok; `None` where there can be none.
    pub(crate) fn boot() -> Option<Self> {
        Self::boot_with("")
    }

    /// The same with the cgroup controllers that limits need. `None` also where the host has none of them to give.
    pub(crate) fn boot_with_controllers() -> Option<Self> {
        let has = |file: &str| fs::read_to_string(file).is_ok_and(|known| known.contains("memory"));
        if has("/sys/fs/cgroup/cgroup.controllers") {
            return Self::boot();
        }
        if Path::new("/sys/fs/cgroup/memory").is_dir() {
            return Self::boot_with("split");
        }
        eprintln!("this host has no cgroup controllers to give: no limit was tested");
        None
    }

    fn boot_with(cgroups: &str) -> Option<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd/boot.sh");
        let folder = tempfile::Builder::new().prefix("pk-machine-").tempdir().expect("a folder for output");
        let complaints = folder.path().join("boot.err");
        let mut keeper = Command::new("/bin/sh")
            .args([script.as_os_str(), "keep".as_ref(), cgroups.as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&complaints).expect("a file for complaints"))
            .spawn()
            .expect("there is a shell");
        let life = keeper.stdin.take();
        let mut said = String::new();
        let mut answers = BufReader::new(keeper.stdout.take().expect("it is piped"));
        answers.read_line(&mut said).expect("the script can be read");
        let mut words = said.split_whitespace();
        let (init, cgroup) = match (words.next(), words.next().map(str::parse), words.next()) {
            (Some("init"), Some(Ok(init)), Some(cgroup)) => (init, cgroup.to_owned()),
            _ => {
                drop(life);
                let _ = keeper.wait();
                let why = fs::read_to_string(&complaints).unwrap_or_default();
                skip(&format!("none can be booted here: {}", why.trim()));
                return None;
            }
        };
        let machine = Self { init, keeper, life, cgroup, folder, commands: AtomicUsize::new(0) };
        machine.wait_until_running();
        Some(machine)
    }

    fn wait_until_running(&self) {
        let state = || self.run("systemctl is-system-running").out;
        wait_until(
            "systemd is up",
            || format!("{}\n{}", state(), self.run("systemctl --failed; journalctl -b").out),
            || (state().trim() == "running").then_some(()),
        );
        self.ok(&format!(
            "mkdir -m 1777 {SCRATCH} && useradd --system --shell /usr/sbin/nologin portok-test"
        ));
        self.put(&this_binary(), APP, 0o755);
    }

    /// Binaries and units where a package would put them.
    pub(crate) fn install(&self) {
        self.put(Path::new(PORTOK), "/usr/bin/portok", 0o755);
        self.put(Path::new(PORTOKD), "/usr/bin/portokd", 0o755);
        let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
        for unit in ["portok@.service", "portok@.socket"] {
            self.put(&units.join(unit), &format!("/usr/lib/systemd/system/{unit}"), 0o644);
        }
        self.ok("mkdir -p /etc/portok && systemctl daemon-reload");
    }

    /// Copies a file of this host to `inside`.
    pub(crate) fn put(&self, file: &Path, inside: &str, mode: u32) {
        let to = self.path(inside);
        let folder = to.parent().expect("a path of a file");
        fs::create_dir_all(folder)
            .and_then(|()| fs::copy(file, &to))
            .and_then(|_| fs::set_permissions(&to, fs::Permissions::from_mode(mode)))
            .unwrap_or_else(|error| panic!("copying {} to {inside}: {error}", file.display()));
    }

    /// Writes a file that everybody may read.
    pub(crate) fn write(&self, inside: &str, text: &str) {
        let to = self.path(inside);
        fs::create_dir_all(to.parent().expect("a path of a file"))
            .and_then(|()| fs::write(&to, text))
            .and_then(|()| fs::set_permissions(&to, fs::Permissions::from_mode(0o644)))
            .unwrap_or_else(|error| panic!("writing {inside}: {error}"));
    }

    /// Where the machine's `inside` is seen from here. Links with absolute targets on the way would lead astray.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.init))
    }

    /// The content of a file; empty when it is not there.
    pub(crate) fn read(&self, inside: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.path(inside)).unwrap_or_default()).into_owned()
    }

    /// Runs a shell's line in the machine as root, to its end.
    #[track_caller]
    pub(crate) fn run(&self, line: &str) -> Said {
        self.start(line).wait()
    }

    /// Runs a shell's line that has to succeed; gives back what it printed.
    #[track_caller]
    pub(crate) fn ok(&self, line: &str) -> String {
        let said = self.run(line);
        assert_eq!(said.code, 0, "{line}\nstdout:\n{}\nstderr:\n{}", said.out, said.err);
        said.out
    }

    /// Starts a shell's line in the machine as root.
    #[track_caller]
    pub(crate) fn start(&self, line: &str) -> Running {
        let number = self.commands.fetch_add(1, Ordering::Relaxed);
        let init = self.init.to_string();
        let words = ["-t", &init, "-a", "--", "/bin/sh", "-c", line];
        let env = [("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("LANG", "C.UTF-8"), ("HOME", "/root")];
        let env: BTreeMap<_, _> =
            env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Running::start("nsenter", &words, &env, &self.folder.path().join(format!("run-{number}")))
    }

    /// Makes this thread, and those that it starts from now on, speak on the machine's network.
    pub(crate) fn enter_network(&self) {
        let network = File::open(format!("/proc/{}/ns/net", self.init)).expect("the machine is there");
        setns(network, CloneFlags::CLONE_NEWNET).expect("root may enter a network");
    }

    /// Whether the process `pid`, as it is seen from here, is one of the machine's.
    pub(crate) fn has(&self, pid: u32) -> bool {
        let namespace = |pid| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        namespace(pid).is_some_and(|its| namespace(self.init) == Some(its))
    }

    /// Ends it and tells where its cgroup was.
    pub(crate) fn end(mut self) -> String {
        self.close();
        std::mem::take(&mut self.cgroup)
    }

    /// Waits for the keeper to have cleaned up.
    fn close(&mut self) {
        drop(self.life.take());
        let _ = self.keeper.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.close();
    }
}

/// Says loudly that something was not tested, and why; fails where that is not allowed.
pub(crate) fn skip(why: &str) {
    let required = std::env::var_os(REQUIRED).is_some_and(|value| value != "0");
    assert!(!required, "{REQUIRED} is set, but {why}");
    // Not through the test's captured output, which a passing test would not show.
    let _ = writeln!(std::io::stderr(), "\n!!! SKIPPED, nothing was tested on a real systemd: {why}\n");
}
