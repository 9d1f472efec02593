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

mod administer;
mod answer;
mod args;
mod asking;
mod call;
mod client;
mod commands;
mod connect;
mod daemon_args;
mod deploy;
mod directory;
mod failure;
mod follow;
mod generate;
mod instance_file;
mod journal;
mod locate;
mod logs;
mod order;
mod render;
mod session;
mod sockets;
mod surroundings;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod typo;
mod values;
mod watch;
mod way;

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
