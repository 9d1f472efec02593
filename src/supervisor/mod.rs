//! Processes: one task owns one process group from its start until nothing of it is left.
//!
//! **Who owns what.** Each app has a [`Supervisor`] of its own: its mark, its groups, what is
//! remembered of their lines. What all apps of a daemon share is in [`Common`]. Each process group
//! is owned by one task ([`group`]): it alone reaps the leader, signals the group and climbs the
//! stop ladder ([`stop`]). [`Process`] is a handle on that task: it orders a stop, and waits for
//! what the task publishes.
//!
//! **What ends it.** The task ends when nothing of the run is left: the leader is reaped, its group
//! is empty, no process carries the run's tag, and what was printed is read. Dropping handles, or
//! the [`Supervisor`], stops nothing.
//!
//! **A dropped future.** All waits are cancel safe. A dropped [`Supervisor::spawn`] kills what it
//! started.
//!
//! **The one ordering that matters.** A process is reaped, and its group seen empty, before its id
//! is forgotten. Until then the kernel gives the number to no other process; after it, the number
//! is never signalled again. A process that is found in another way (by its tag, or from the record
//! of an earlier daemon) is pinned by a pidfd first, then checked, then signalled ([`hunt`]).
//!
//! Neither `PR_SET_PDEATHSIG` nor `PR_SET_CHILD_SUBREAPER` is used: the former fires when a
//! *thread* ends, the latter would make strangers our children (prctl(2)).
//!
//! | file | what it has |
//! | --- | --- |
//! | [`common`] | what the supervisors of all apps share |
//! | [`group`], [`adopt`] | the task of a process group: of a child; of an earlier daemon's |
//! | [`stop`], [`hunt`] | the stop ladder; the search for what left its group |
//! | [`spawn`], [`command`], [`scope`] | the fork; what is executed; an app with limits |
//! | [`identity`], [`proc`] | which process it is; what `/proc` says |
//! | [`memory`] | how much memory groups have |
//! | [`port`], [`owner`] | leased ports; whose a listener is |
//! | [`pipe`], [`reader`], [`output`] | the pipes on disk; their reader; the memory of the lines |
//! | [`keeper`] | the process that keeps the pipes from filling up while there is no daemon |
//! | [`ring`], [`sink`] | the last lines of a run; where lines go beside that |
//! | [`ids`], [`directory`], [`exit`] | users and groups; working directories; ends |
//! | [`oom`], [`orphans`] | whom the kernel kills first; the work of process 1 in a container |

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{CommandLine, Limits, StopSignal};
use crate::wire::{LogLine, LogsRequest};

mod adopt;
mod command;
mod common;
mod directory;
mod exit;
mod group;
mod hunt;
mod identity;
mod ids;
mod keeper;
mod memory;
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

pub use common::{Common, Settings};
pub use directory::resolve_directory;
pub use exit::Exit;
pub use group::Process;
pub use identity::{Identity, new_mark};
pub use ids::Ids;
pub use keeper::run_if_asked as run_keeper_if_asked;
pub use memory::memory_of;
pub use orphans::{reap_orphans, start_child};
pub use owner::Owner;
pub use port::{Lease, Port, PortTaken};
use ring::Printer;
pub use sink::Sink;
pub use spawn::SpawnError;

/// The supervisor of one app: starts its process groups, takes over and stops what an earlier
/// daemon left of them. Touches nothing of another app's.
#[derive(Debug)]
pub struct Supervisor {
    common: Arc<Common>,
    /// Its name, where there are several apps.
    app: Option<String>,
    /// What the tags of all the app's runs begin with, whichever daemon started them.
    mark: String,
    /// What the tags of the runs that are started here begin with.
    series: String,
    output: output::Output,
    groups: TaskTracker,
    letting_go: CancellationToken,
}

/// Whose a process is.
#[derive(Debug, Clone, Copy)]
struct Whose<'a> {
    instance: &'a str,
    /// The name of the app, where there are several.
    app: Option<&'a str>,
}

/// One process to start.
#[derive(Debug)]
pub struct Launch {
    /// The release's id, for `PORTOK_RELEASE` and the log.
    pub release: String,
    /// Which companion of the release it is, for `PORTOK_PROCESS`; `None`: none of them.
    pub process: Option<Arc<str>>,
    /// The step of a deploy that it is, as which its lines are told apart; `None`: it is none.
    pub step: Option<&'static str>,
    /// The number of its place among the replicas of the release, for `PORTOK_REPLICA`; `None`: it
    /// is none of them.
    pub replica: Option<u16>,
    /// `{port}` in it is replaced by the port, where it is told one.
    pub command: CommandLine,
    /// The resolved working directory; `None`: the daemon's own.
    pub directory: Option<PathBuf>,
    /// Added to the base environment.
    pub env: BTreeMap<String, String>,
    /// The user and group to become.
    pub identity: Option<Ids>,
    /// The most that it may use.
    pub limits: Limits,
    /// The variable that carries the port.
    pub port_env: String,
    /// The port that it is told.
    pub port: Port,
}

/// A process that an earlier daemon recorded.
#[derive(Debug, Clone)]
pub struct Survivor {
    /// Which process it is.
    pub identity: Identity,
    /// Its release's id.
    pub release: String,
    /// The number of its place.
    pub replica: u16,
    /// Which companion of the release it is, or which step of a deploy.
    pub process: Option<Arc<str>>,
    /// The port it was told to listen on, if it was.
    pub port: Option<u16>,
    /// Set if it has had its stop signal: SIGKILL is due after this time.
    pub stopping: Option<Duration>,
}

impl Supervisor {
    /// Makes the supervisor of the app whose durable record has this mark (or [`new_mark`], where
    /// there is none): 32 hexadecimal digits that no other app has. `app` is its name where there
    /// are several.
    ///
    /// # Errors
    /// The kernel's random numbers cannot be read.
    pub fn for_app(common: &Arc<Common>, mark: String, app: Option<String>) -> io::Result<Self> {
        let series = identity::new_series(&mark).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot read the kernel's random numbers: {error}"))
        })?;
        Ok(Self {
            common: Arc::clone(common),
            output: common.output(app.as_deref()),
            app,
            mark,
            series,
            groups: TaskTracker::new(),
            letting_go: CancellationToken::new(),
        })
    }

    /// Whose processes it starts.
    fn whose(&self) -> Whose<'_> {
        Whose { instance: &self.common.instance, app: self.app.as_deref() }
    }

    /// Leases a free loopback port. `hold`: with the placeholder socket (without it for apps that
    /// do not set `SO_REUSEADDR`).
    ///
    /// # Errors
    /// No port could be found.
    pub fn lease(&self, hold: bool) -> io::Result<Lease> {
        self.common.ports.lease(hold)
    }

    /// Starts a process group. Must be called within a tokio runtime, which then runs the group's
    /// task.
    ///
    /// # Errors
    /// The program, the directory or the identity is not usable. The error names it and the cause.
    pub async fn spawn(&self, launch: Launch) -> Result<Process, SpawnError> {
        let tag = identity::new_tag(&self.series)
            .map_err(|error| SpawnError::new(format!("cannot make the run's tag: {error}"), error))?;
        let printer = Printer {
            release: launch.release.clone(),
            replica: launch.replica.unwrap_or_default(),
            process: launch.process.clone().or_else(|| launch.step.map(Arc::from)),
        };
        let (stdout, stderr, reading) =
            self.output.open(&tag, printer, launch.identity.as_ref()).await.map_err(|error| {
                SpawnError::new(format!("cannot make the pipes for the app's output: {error}"), error)
            })?;
        let env = command::environment(&self.common.env, &self.whose(), &launch, &tag);
        let mut words = command::words(&launch.command, launch.port.number());
        let mut identity = launch.identity;
        if launch.limits.need_scope() {
            let unit = std::fs::read_to_string("/proc/self/cgroup").ok();
            let unit = unit.and_then(|cgroups| scope::unit_in(&cgroups));
            let of =
                scope::Of { whose: self.whose(), release: &launch.release, tag: &tag, unit: unit.as_deref() };
            words = scope::words(words, &launch.limits, &of, identity.take().as_ref());
        }
        let plan = spawn::ChildPlan {
            words,
            env,
            directory: launch.directory,
            identity,
            open_files: launch.limits.open_files.or(self.common.open_files),
            stdout,
            stderr,
        };
        group::start(&self.groups, &self.letting_go, plan, tag, launch.port.lease(), reading).await
    }

    /// The last lines that the wanted processes printed. Processes that have ended are included as
    /// far as they are remembered.
    pub fn logs(&self, wanted: &LogsRequest) -> Vec<LogLine> {
        self.output.logs(wanted)
    }

    /// Takes over a process that an earlier daemon started, with what it printed meanwhile. Must be
    /// called within a tokio runtime, which then runs the group's task.
    ///
    /// # Errors
    /// It is not there any more, or cannot be proven to be the recorded one. Then it is none of
    /// ours, and never signalled.
    pub async fn adopt(&self, survivor: &Survivor) -> io::Result<Process> {
        let Survivor { identity, release, replica, process, port, stopping } = survivor;
        let leader = adopt::Leader::find(identity)?;
        let taken = |port| io::Error::other(format!("port {port} is recorded for another process too"));
        let take_over = |port| self.common.ports.take_over(port).ok_or_else(|| taken(port));
        let lease = port.map(take_over).transpose()?;
        let printer = Printer { release: release.clone(), replica: *replica, process: process.clone() };
        let reading = self.output.reopen(identity, printer).await?;
        Ok(adopt::take(&self.groups, self.letting_go.clone(), leader, lease, reading, *stopping))
    }

    /// Stops what an earlier daemon left of this app: every group in `recorded` whose identity
    /// still holds, and every process that carries one of their tags, or a tag with the record's
    /// mark. Exempt: the runs in `spared`, and everything that this supervisor starts, whenever.
    /// Never signals anything else. Returns when all is gone.
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

    /// Ends the tasks of all groups without a signal to any process: they stay as they are, for
    /// another daemon to take over. A stop that is under way goes no further.
    pub fn let_go(&self) {
        self.letting_go.cancel();
    }

    /// Waits until nothing is left of any process that was started here.
    pub async fn idle(&self) {
        self.groups.close();
        self.groups.wait().await;
        self.groups.reopen();
    }
}

/// Whether what an app printed, in lower case, says that its address is in use: by the error's name
/// or its text.
pub fn tells_taken_port(printed: &str) -> bool {
    printed.contains("eaddrinuse") || printed.contains("address already in use")
}

/// The last `count` of `lines`.
fn last(lines: Vec<Arc<LogLine>>, count: usize) -> Vec<LogLine> {
    let skip = lines.len().saturating_sub(count);
    lines.into_iter().skip(skip).map(|line| (*line).clone()).collect()
}
