//! Real servers as the apps: prefork servers, and an app that blocks.
//!
//! They need node, gunicorn and puma. Without the program a test skips loudly, unless
//! `PORTOK_REQUIRE_APPS=1` makes that a failure.

use std::path::PathBuf;
use std::process::Command;

mod asking;
mod posts;
mod prefork;

/// A file beside this one.
fn file(name: &str) -> String {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/real")).join(name).display().to_string()
}

/// Whether `program` can be run here; otherwise this has been said.
fn has(program: &str) -> bool {
    let tried = Command::new(program).arg("--version").output();
    let is_here = tried.is_ok_and(|output| output.status.success());
    let required = std::env::var("PORTOK_REQUIRE_APPS").is_ok_and(|value| value == "1");
    assert!(is_here || !required, "{program} is required");
    if !is_here {
        eprintln!("SKIPPED: no {program}");
    }
    is_here
}
