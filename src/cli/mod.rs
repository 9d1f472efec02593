//! The command line: turns arguments into a request to a daemon or a change of this machine, and
//! the result into text.
//!
//! It owns no state that outlives a command. The daemon alone decides what happens to releases, so
//! a command line that ends early (Ctrl-C, a closed terminal) ends its own report and nothing else.
//!
//! From the top down; a file imports files of its own line or of a line below:
//!
//! - `order`: from arguments to exit code;
//! - `commands`, `deploy`, `follow`, `watch`, `wait`, `logs`: the commands that ask a daemon, the
//!   quick and the long ones;
//! - `administer`, `loading`, `generate`, `journal`: the commands of [`crate::host`], and how a
//!   daemon hears of an edit; completions and man pages; the journal;
//! - `session`: the daemon, the screen and the pace of a command that asks;
//! - `client`, `answer`, `connect`, `call`: one request and its bounded answer;
//! - `locate`, `instance_file`, `surroundings`, `sockets`, `way`: where the daemon is;
//! - `render`: the only place that prints, and makes the text;
//! - `args`, `values`, `typo`: what may be typed, and what was probably meant; `daemon_args`: the
//!   same of `portokd`;
//! - `directory`, `asking`: directories as text; the commands that ask, and how a hint names the
//!   daemon;
//! - `failure`: why a command did not succeed, and its exit code.
//!
//! The one order that matters: a deploy's last progress line is cleared before its result is
//! printed, so that standard output and the terminal never share a line.
//!
//! `portok run` needs the daemon, which lies above this layer: the command is handed to the caller
//! as a [`RunPlan`].

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
mod loading;
mod locate;
mod logs;
mod order;
mod orders;
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
mod wait;
mod watch;
mod way;

pub use daemon_args::DaemonArguments;

/// The arguments of `portok run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPlan {
    /// `--listen`: an address or a port, not validated yet.
    pub listen: Option<String>,
    /// `--health`: the health path, not validated yet.
    pub health: Option<String>,
    /// The app's command.
    pub command: CommandLine,
    /// `--instance`: the instance's name.
    pub name: Option<String>,
}

/// Parses the process's arguments, carries out the command and returns the exit code. The command
/// `portok run` is passed to `run`, before anything is printed and before any runtime is started.
pub fn main(run: impl FnOnce(RunPlan) -> ExitCode) -> ExitCode {
    order::main(run)
}
