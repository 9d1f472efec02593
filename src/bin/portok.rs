//! The command line. Everything is in [`portok::cli`]; only `run` needs the daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    portok::cli::main(|_plan| ExitCode::from(portok::wire::exit::FAILED))
}
