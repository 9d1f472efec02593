//! Processes: one task owns one process group from its start until nothing of it is left.
//!
//! **Who owns what.** [`Supervisor`] has what all processes of a daemon share. Each process group is owned by one task
//! ([`group`]): it alone reaps the leader, signals the group and climbs the stop ladder ([`stop`]). [`Process`] is a
//! handle on that task: it asks for a stop and waits on what the task publishes. One thread of its own reads what all
//! apps print ([`output`]), so that a flood never starves the control plane. Leased ports are in one table ([`port`]).
//!
//! **What ends it.** The task ends when nothing of the run is left: the leader is reaped, its group is empty, no
//! process carries the run's tag, and what was printed is read. Dropping handles, or the [`Supervisor`], stops nothing.
//!
//! **A dropped future.** All waits are cancel safe. A dropped [`Supervisor::spawn`] kills what it started.
//!
//! **The one ordering that matters.** A process is reaped, and its group seen empty, before its id is forgotten: until
//! then the kernel gives the number to nobody else, and after it the number is never signalled again. Whatever is
//! found in another way (by its tag, or from the record of an earlier daemon) is pinned by a pidfd first, then checked,
//! then signalled ([`hunt`]).
//!
//! Neither `PR_SET_PDEATHSIG` nor `PR_SET_CHILD_SUBREAPER` is used: the former fires when a *thread* ends, the latter
//! would make strangers our children (prctl(2)).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{CommandLine, Limits, StopSignal};
use crate::wire::LogLine;

mod adopt;
mod command;
mod directory;
mod exit;
mod group;
mod hunt;
mod identity;
mod ids;
mod keeper;
mod oom;
mod orphans;
mod output;
mod owner;
mod pipe;
mod port;
mod proc;
mod reader;
mod ring;
mod scope;
mod sink;
mod spawn;
mod stop;
#[cfg(test)]
mod tests;

pub use directory::resolve_directory;
pub use exit::Exit;
pub use group::Process;
pub use identity::{Identity, new_mark};
pub use ids::Ids;
pub use keeper::run_if_asked as run_keeper_if_asked;
pub use orphans::{reap_orphans, start_child};
pub use owner::Owner;
pub use port::{Lease, PortTaken};
pub use sink::Sink;
pub use spawn::SpawnError;

/// What stays the same for all processes of a daemon: base environment, folder for output pipes, leased ports,
/// the thread that reads what the apps print. Lives as long as the daemon: with it the reading ends.
#[derive(Debug)]
pub struct Supervisor {
    instance: String,
    mark: String,
    /// What the tags of the runs that are started here begin with.
    series: String,
    env: BTreeMap<OsString, OsString>,
    open_files: Option<u64>,
    output: output::Output,
    groups: TaskTracker,
    letting_go: CancellationToken,
}

/// What a [`Supervisor`] needs.
#[derive(Debug)]
pub struct Settings {
    /// The instance's name, for `PORTOK_INSTANCE`.
    pub instance: String,
    /// What the tags of all runs begin with: the durable record's mark, or [`new_mark`] where there is none. 32
    /// hexadecimal digits.
    pub mark: String,
    /// Where output FIFOs are made (mode 0700, made when missing).
    pub run_dir: PathBuf,
    /// The daemon's environment; scrubbed here of what no app may see.
    pub env: BTreeMap<OsString, OsString>,
    /// Start a keeper, which keeps the pipes from filling up while there is no daemon: this program's `main` asks
    /// [`run_keeper_if_asked`].
    pub keeper: bool,
    /// Where the apps' lines are passed on to, beside the ring that `logs` reads.
    pub sink: Sink,
    /// The soft limit of open files that apps get: what the daemon was started with, when it raised its own.
    /// `None`: they inherit the daemon's.
    pub open_files: Option<u64>,
}

/// One process to start.
#[derive(Debug)]
pub struct Launch {
    /// The release's id, for `PORTOK_RELEASE` and the log.
    pub release: String,
    /// `{port}` in it is replaced by the port.
    pub command: CommandLine,
    /// The resolved working directory; `None`: the daemon's own.
    pub directory: Option<PathBuf>,
    /// Added to the base environment.
    pub env: BTreeMap<String, String>,
    /// The user and group to become.
    pub identity: Option<Ids>,
    /// What it may use at most.
    pub limits: Limits,
    /// The variable that carries the port.
    pub port_env: String,
    /// The port, held until the process listens.
    pub lease: Lease,
}

/// A process that an earlier daemon recorded.
#[derive(Debug, Clone)]
pub struct Survivor {
    /// Which process.
    pub identity: Identity,
    /// Its release's id.
    pub release: String,
    /// The port it was told to listen on.
    pub port: u16,
    /// It has got its stop signal; SIGKILL is due after this time.
    pub stopping: Option<Duration>,
}

impl Supervisor {
    /// Starts the reader's thread.
    ///
    /// # Errors
    /// The run folder cannot be made, `/proc` or the kernel's random numbers cannot be read, or a thread cannot be started.
    pub fn new(settings: Settings) -> io::Result<Self> {
        let Settings { instance, mark, run_dir, env, keeper, sink, open_files } = settings;
        identity::boot_id()
            .map_err(|error| io::Error::new(error.kind(), format!("cannot read the boot id: {error}")))?;
        let series = identity::new_series(&mark).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot read the kernel's random numbers: {error}"))
        })?;
        let folder = pipe::PipeFolder::make(run_dir)?;
        let reader = reader::Reader::start(&instance, &folder, sink, keeper)?;
        let output = output::Output::new(folder, reader);
        Ok(Self {
            instance,
            mark,
            series,
            env: command::scrub(env),
            open_files,
            output,
            groups: TaskTracker::new(),
            letting_go: CancellationToken::new(),
        })
    }

    /// Leases a free loopback port. `hold`: with the placeholder socket (without it for apps that do not set
    /// `SO_REUSEADDR`).
    ///
    /// # Errors
    /// No port could be found.
    pub fn lease(&self, hold: bool) -> io::Result<Lease> {
        Lease::new(hold)
    }

    /// Starts a process group. Must be called within a tokio runtime, which then runs the group's task.
    ///
    /// # Errors
    /// The program, the directory or the identity is not usable; says which and why.
    pub async fn spawn(&self, launch: Launch) -> Result<Process, SpawnError> {
        let tag = identity::new_tag(&self.series)
            .map_err(|error| SpawnError::new(format!("cannot make the run's tag: {error}"), error))?;
        let (stdout, stderr, reading) =
            self.output.open(&tag, &launch.release, launch.identity.as_ref()).await.map_err(|error| {
                SpawnError::new(format!("cannot make the pipes for the app's output: {error}"), error)
            })?;
        let env = command::environment(&self.env, &self.instance, &launch, &tag);
        let mut words = command::words(&launch.command, launch.lease.port());
        let mut identity = launch.identity;
        if launch.limits.need_scope() {
            let unit = std::fs::read_to_string("/proc/self/cgroup").ok();
            let unit = unit.and_then(|cgroups| scope::unit_in(&cgroups));
            let of = scope::Of {
                instance: &self.instance,
                release: &launch.release,
                tag: &tag,
                unit: unit.as_deref(),
            };
            words = scope::words(words, &launch.limits, &of, identity.take().as_ref());
        }
        let plan = spawn::ChildPlan {
            words,
            env,
            directory: launch.directory,
            identity,
            open_files: launch.limits.open_files.or(self.open_files),
            stdout,
            stderr,
        };
        group::start(&self.groups, &self.letting_go, plan, tag, launch.lease, reading).await
    }

    /// The last `lines` that the processes of `release` (or of all) printed, ended ones included as far as
    /// they are remembered.
    pub fn logs(&self, release: Option<&str>, lines: usize) -> Vec<LogLine> {
        self.output.logs(release, lines)
    }

    /// Takes over a process that an earlier daemon started. Must be called within a tokio runtime, which then runs the group's
    /// task. What it prints is read on, from what it printed meanwhile.
    ///
    /// # Errors
    /// It is not there any more, or cannot be proven to be the recorded one: it is none of ours, and never signalled.
    pub async fn adopt(&self, survivor: &Survivor) -> io::Result<Process> {
        let Survivor { identity, release, port, stopping } = survivor;
        let leader = adopt::Leader::find(identity)?;
        let lease = Lease::taken_over(*port)
            .ok_or_else(|| io::Error::other(format!("port {port} is recorded for another process too")))?;
        let reading = self.output.reopen(identity, release).await?;
        Ok(adopt::take(&self.groups, self.letting_go.clone(), leader, lease, reading, *stopping))
    }

    /// Removes the output pipes of processes that are not in `kept`: nobody prints into them any more. To be called before
    /// anything is started.
    pub fn remove_pipes_but(&self, kept: &[Identity]) {
        self.output.remove_pipes_but(kept);
    }

    /// Stops what an earlier daemon left: every group in `recorded` whose identity still holds, and every
    /// process that carries one of their tags or a tag with the record's mark, but for those of the runs in `spared` and of what
    /// is started here, before it or meanwhile. Never signals anything else. Returns when all is gone.
    pub async fn stop_leftovers(
        &self,
        recorded: Vec<Identity>,
        spared: &[Identity],
        signal: StopSignal,
        timeout: Duration,
    ) {
        let spared =
            spared.iter().map(|identity| identity.tag.clone()).chain([self.series.clone()]).collect();
        stop::leftovers(recorded, self.mark.clone(), spared, signal, timeout).await;
    }

    /// Leaves what the apps print from now on in their pipes, for a successor to read; `false` reads it again.
    pub fn hush(&self, hushed: bool) {
        self.output.hush(hushed);
    }

    /// To be called when a successor came to nothing after it had begun: it may have taken the place of this one's helpers.
    pub fn restore(&self) {
        self.output.renew_keeper();
    }

    /// Ends the tasks of all groups without a signal to anybody: the processes stay as they are, for another daemon to take
    /// over. A stop that is under way goes no further.
    pub fn let_go(&self) {
        self.letting_go.cancel();
    }

    /// Waits until nothing of any process that was ever started here is left.
    pub async fn idle(&self) {
        self.groups.close();
        self.groups.wait().await;
        self.groups.reopen();
    }
}

/// Whether what an app printed, in lower case, tells that its address is in use: by the code's name or its text.
pub fn tells_taken_port(printed: &str) -> bool {
    printed.contains("eaddrinuse") || printed.contains("address already in use")
}

/// A number of lines from the end of `lines`.
fn last(lines: Vec<Arc<LogLine>>, count: usize) -> Vec<LogLine> {
    let skip = lines.len().saturating_sub(count);
    lines.into_iter().skip(skip).map(|line| (*line).clone()).collect()
}
