//! The entry point of the daemon: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use portok::cli::DaemonArguments;
use portok::config::{Overrides, Sources};
use portok::daemon;

fn main() -> ExitCode {
    if let Some(code) = portok::supervisor::run_keeper_if_asked() {
        return code;
    }
    let arguments = DaemonArguments::parse();
    let sources = Sources {
        file: arguments.config,
        instance: arguments.instance,
        // A variable that is not UTF-8 is none of portok's; apps get it unchanged.
        env: std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        overrides: Overrides { listen: arguments.listen, ..Overrides::default() },
        ..Sources::default()
    };
    if arguments.check {
        daemon::check(&sources)
    } else {
        daemon::run(daemon::Options { sources, foreground: None })
    }
}
