//! Processes of the session: started by it, measured, and ended by their ids when it ends.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A child that ends with the session.
pub struct Process {
    child: Child,
    /// What ends it at once.
    ending: &'static str,
}

/// pingora takes SIGTERM for minutes of grace, which nothing here needs.
fn ending(program: &str) -> &'static str {
    if program.ends_with("bench-pingora") { "INT" } else { "TERM" }
}

/// Asked first: a master that is killed leaves its workers behind.
impl Drop for Process {
    fn drop(&mut self) {
        if self.has_ended() {
            return;
        }
        let family: Vec<_> = self.family().into_iter().map(|pid| (pid, began(pid))).collect();
        ask(self.ending, self.id());
        if !wait_for(Duration::from_secs(5), || self.has_ended()) {
            let _killed = self.child.kill();
            let _reaped = self.child.wait();
        }
        // Its descendants, where they are left and the number is still theirs.
        for (pid, began_then) in family.into_iter().skip(1) {
            if began_then.is_some() && began(pid) == began_then {
                ask("KILL", pid);
            }
        }
    }
}

/// When a process began, in ticks since the boot.
fn began(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(19)?.parse().ok()
}

fn ask(signal: &str, pid: u32) {
    let _asked = Command::new("kill").args(["-s", signal, &pid.to_string()]).stderr(Stdio::null()).status();
}

/// CPU time of a process and of those that it started.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    /// On a CPU, in seconds, as the scheduler counts it.
    pub total: f64,
    /// In user space and in the kernel, in ticks.
    pub user: u64,
    pub system: u64,
}

impl Process {
    pub fn start(command: &mut Command, log: &Path) -> io::Result<Self> {
        let log = fs::File::create(log)?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let is_int = command.get_args().any(|argument| argument.to_str().is_some_and(|a| ending(a) == "INT"));
        Ok(Self { child, ending: if is_int { "INT" } else { "TERM" } })
    }

    /// A backend of this program's own, and its port. It ends with its standard input too.
    pub fn backend(pinned: Option<usize>) -> io::Result<(Self, u16)> {
        Self::start_backend(pinned, None)
    }

    /// A backend that tells `file` how long it was healthy before its first request came.
    pub fn backend_telling(file: &Path) -> io::Result<(Self, u16)> {
        Self::start_backend(None, Some(file))
    }

    fn start_backend(pinned: Option<usize>, first: Option<&Path>) -> io::Result<(Self, u16)> {
        let mut command = pinned_command(pinned, &std::env::current_exe()?.display().to_string());
        command.args(["backend", "--until-eof"]).env_remove("PORT");
        command.envs(first.map(|file| ("BENCH_FIRST", file)));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let port = line.trim().parse().map_err(|_| io::Error::other("the backend told no port"))?;
        Ok((Self { child, ending: "TERM" }, port))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    pub fn interrupt(&self) {
        ask("INT", self.id());
    }

    /// Its own id and those of its descendants.
    pub fn family(&self) -> Vec<u32> {
        let mut family = vec![self.id()];
        let mut at = 0;
        while at < family.len() {
            let pid = family[at];
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                family.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            }
            at += 1;
        }
        family
    }

    pub fn cpu(&self) -> Cpu {
        let mut sum = Cpu::default();
        for pid in self.family() {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
            sum.user += ticks(11);
            sum.system += ticks(12);
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                let nanos = text.split_whitespace().next().and_then(|text| text.parse::<f64>().ok());
                sum.total += nanos.unwrap_or(0.0) / 1e9;
            }
        }
        sum
    }

    /// Memory of its own in KiB: private, and its share of what is shared.
    pub fn memory(&self) -> u64 {
        let of = |pid: &u32| {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        self.family().iter().map(of).sum()
    }
}

/// `program` on one CPU, or anywhere. It is asked to end when this program does, in whatever way that happens.
pub fn pinned_command(cpu: Option<usize>, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", ending(program)]);
    if let Some(cpu) = cpu {
        command.args(["taskset", "-c", &cpu.to_string()]);
    }
    command.arg(program);
    command
}

/// Whether `done` came true in time.
pub fn wait_for(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    while Instant::now() < until {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    done()
}

/// The first line that `program arguments` prints, on either output.
pub fn says(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().map(|line| line.trim().to_owned())
}

/// How many files a process may have open.
pub fn descriptors() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(1024)
}
