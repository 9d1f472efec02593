//! The daemon's entrance: arguments in, exit code out.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use portok::config::{Overrides, Sources};
use portok::daemon;

/// The deploy agent: owns an app's port, starts its releases, moves traffic between them.
#[derive(Debug, Parser)]
#[command(
    name = "portokd",
    version,
    after_help = "Without --config and --instance the environment alone configures."
)]
struct Arguments {
    /// Read this TOML file
    #[arg(long, value_name = "FILE", conflicts_with = "instance")]
    config: Option<PathBuf>,
    /// Read NAME.toml of the configuration folder, or the environment alone where there is none
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,
    /// Listen on this address or port, whatever the file says
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Validate, print the effective configuration with secrets masked, and exit (0 good, 2 bad)
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    if let Some(code) = portok::supervisor::run_keeper_if_asked() {
        return code;
    }
    let arguments = Arguments::parse();
    let sources = Sources {
        file: arguments.config,
        instance: arguments.instance,
        // What is not UTF-8 is none of portok's variables; apps get it unchanged.
        env: std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        overrides: Overrides { listen: arguments.listen, ..Overrides::default() },
        client: false,
    };
    if arguments.check {
        daemon::check(&sources)
    } else {
        daemon::run(daemon::Options { sources, foreground: None })
    }
}
