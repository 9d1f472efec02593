//! Real servers as the apps: Socket.IO with real clients, prefork servers, servers of gRPC with real
//! clients, frameworks with real clients over TLS, and an app that blocks.
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
mod autobahn;
mod browser;
mod clients;
mod grpc;
mod over_http2;
mod over_tls;
mod posts;
mod prefork;
mod socketio;

/// Where the packages are.
const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/real/node_modules");

/// The Python that has the packages of `requirements.txt`.
const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/real/python/bin/python3");

/// A file beside this one.
fn file(name: &str) -> String {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/real")).join(name).display().to_string()
}

/// Whether `program` can be run here; otherwise this has been said.
fn has(program: &str) -> bool {
    let tried = Command::new(program).arg("--version").output();
    is_here(program, tried.is_ok_and(|output| output.status.success()))
}

/// Whether node and a package for it are here; otherwise this has been said.
fn has_package(name: &str) -> bool {
    has("node") && is_here(name, PathBuf::from(PACKAGES).join(name).is_dir())
}

/// Whether [`PYTHON`] and these modules of it are here; otherwise this has been said.
fn has_modules(names: &str) -> bool {
    let import = format!("import {names}");
    let tried = Command::new(PYTHON).args(["-c", &import]).output();
    is_here(&format!("{names} in target/real/python"), tried.is_ok_and(|output| output.status.success()))
}

fn is_here(what: &str, is_here: bool) -> bool {
    let required = std::env::var("PORTOK_REQUIRE_APPS").is_ok_and(|value| value == "1");
    assert!(is_here || !required, "{what} is required");
    if !is_here {
        eprintln!("SKIPPED: no {what}");
    }
    is_here
}
