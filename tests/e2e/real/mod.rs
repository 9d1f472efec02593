//! Real servers as the apps: Socket.IO with real clients, prefork servers, servers of gRPC with real
//! clients, and an app that blocks.
//!
//! They need node with the packages of `package-lock.json`, gunicorn and puma, and a Python with
//! what `requirements.txt` names. Without them a test skips loudly, unless `PORTOK_REQUIRE_APPS=1`
//! makes that a failure. This installs the packages:
//!
//! ```sh
//! mkdir -p target/real && cp tests/e2e/real/package*.json target/real
//! npm ci --prefix target/real --ignore-scripts
//! python3 -m venv target/real/python
//! target/real/python/bin/pip install --only-binary :all: -r tests/e2e/real/requirements.txt
//! ```

use std::path::PathBuf;
use std::process::Command;

mod asking;
mod grpc;
mod over_http2;
mod posts;
mod prefork;
mod socketio;

/// Where the packages are.
const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/real/node_modules");

/// A file beside this one.
fn file(name: &str) -> String {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/real")).join(name).display().to_string()
}

/// Whether `program` can be run here; otherwise this has been said.
fn has(program: &str) -> bool {
    let tried = Command::new(program).arg("--version").output();
    is_here(program, tried.is_ok_and(|output| output.status.success()))
}

/// Whether node and the packages are here; otherwise this has been said.
fn has_socketio() -> bool {
    has("node") && is_here(PACKAGES, PathBuf::from(PACKAGES).join("socket.io").is_dir())
}

fn is_here(what: &str, is_here: bool) -> bool {
    let required = std::env::var("PORTOK_REQUIRE_APPS").is_ok_and(|value| value == "1");
    assert!(is_here || !required, "{what} is required");
    if !is_here {
        eprintln!("SKIPPED: no {what}");
    }
    is_here
}
