//! The entry point of the command line. `portok run` runs the daemon in this process.

use std::process::ExitCode;

use portok::cli::{self, RunPlan};
use portok::config::{Overrides, Sources};
use portok::daemon::{self, Foreground, Options};

fn main() -> ExitCode {
    if let Some(code) = portok::supervisor::run_keeper_if_asked() {
        return code;
    }
    cli::main(|plan: RunPlan| {
        let overrides = Overrides { listen: plan.listen, command: Some(plan.command), foreground: true };
        let mut env: std::collections::BTreeMap<_, _> = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        // The flag wins over the variable.
        env.extend(plan.health.map(|path| ("HEALTH_PATH".to_owned(), path)));
        let program = std::env::args().next().unwrap_or_else(|| "portok".into());
        daemon::run(Options {
            sources: Sources { instance: plan.name, env, overrides, ..Sources::default() },
            foreground: Some(Foreground { program }),
        })
    })
}
