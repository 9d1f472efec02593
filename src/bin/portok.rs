//! The command line. Everything is in [`portok::cli`]; only `run` needs the daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    portok::cli::main(|plan| not_wired(&plan))
}

#[expect(clippy::print_stderr, reason = "stands in until the daemon is here")]
fn not_wired(plan: &portok::cli::RunPlan) -> ExitCode {
    eprintln!("error: run of `{}` failed: the daemon is not wired to this command line yet", plan.command);
    ExitCode::from(portok::wire::exit::FAILED)
}
