//! The command line: turns arguments into one request to a daemon and its answer into text.
//!
//! It owns no state that outlives a command; what happens to releases is decided by the daemon alone, so a
//! command line that ends early (Ctrl-C, a closed terminal, a dropped future) ends nothing but its own report.
//!
//! - `args`: what may be typed (`daemon_args`: at `portokd`), `typo`: what was meant instead; `order`: from arguments to exit code;
//! - `locate`, `instance_file`, `sockets`: where the daemon is; `connect`, `client`, `answer`: one request, one bounded answer;
//! - `commands`: a function for each plain command; `deploy`, `follow`, `watch`, `logs`: what takes time;
//! - `host`: the commands that concern this host;
//! - `failure`: why a command did not succeed, and its exit code;
//! - `render`: the only place that makes text of it and prints.
//!
//! The one ordering that matters: a deploy's result is printed after its last progress line was cleared, so
//! that standard output and a terminal never hold half a line of each other.
//!
//! `run` needs the daemon, which lies in a layer above this one: it is handed to the caller as a [`RunPlan`].

use std::process::ExitCode;

use crate::wire::CommandLine;

pub(crate) mod answer;
pub(crate) mod args;
pub(crate) mod client;
mod commands;
pub(crate) mod connect;
pub(crate) mod daemon_args;
pub(crate) mod deploy;
pub(crate) mod failure;
mod follow;
pub(crate) mod instance_file;
pub(crate) mod locate;
mod logs;
mod order;
pub(crate) mod render;
mod sockets;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod typo;
mod watch;

pub use daemon_args::DaemonArguments;

/// What `portok run` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPlan {
    /// `--listen`: an address or a port, not checked yet.
    pub listen: Option<String>,
    /// `--health`: the health path, not checked yet.
    pub health: Option<String>,
    /// The app's command.
    pub command: CommandLine,
    /// `--instance`: the instance's name.
    pub name: Option<String>,
}

/// Parses the process's arguments, does what they say and returns the exit code. The command `run` is handed
/// to `run`; nothing is printed and no runtime is started before it is called.
pub fn main(run: impl FnOnce(RunPlan) -> ExitCode) -> ExitCode {
    order::main(run)
}
