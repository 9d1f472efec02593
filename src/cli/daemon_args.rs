//! What may be typed at `portokd`. Its clap tree lies beside that of `portok`, because one command
//! makes the man pages of both.

use std::path::PathBuf;

use clap::Parser;

/// The deploy agent: owns an app's port, starts its releases, moves traffic between them
#[derive(Debug, Parser)]
#[command(
    name = "portokd",
    version,
    after_help = "Without --config and --instance the environment alone configures."
)]
pub struct DaemonArguments {
    /// Read this TOML file
    #[arg(long, value_name = "FILE", conflicts_with = "instance")]
    pub config: Option<PathBuf>,
    /// Read NAME.toml of the configuration folder, or the environment alone where there is none
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
    /// Listen on this address or port, whatever the file says
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Validate, print the effective configuration with secrets masked, and exit (0 good, 2 bad)
    #[arg(long)]
    pub check: bool,
}
