//! The test suite of WebSockets by Autobahn: its client finds the same faults with a server behind
//! portok, plain and over TLS, as with the server alone.
//!
//! It needs node with the packages of `package-lock.json`, and the suite, which runs in Python 2.7.
//! Without them it skips loudly, unless `PORTOK_REQUIRE_AUTOBAHN=1` makes that a failure. This
//! installs the suite where there is such a Python, and runs it (a minute):
//!
//! ```sh
//! python3 -m venv target/real/virtualenv
//! target/real/virtualenv/bin/pip install 'virtualenv<20.22'
//! target/real/virtualenv/bin/virtualenv -p python2.7 target/real/autobahn
//! target/real/autobahn/bin/pip install autobahntestsuite==25.10.1
//! PORTOK_REQUIRE_AUTOBAHN=1 cargo test --test e2e real::autobahn
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::{PACKAGES, file};
use crate::harness::World;
use crate::harness::tls::Authority;
use crate::listeners::free;

const SUITE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/real/autobahn/bin/wstest");

/// Framing, pings, reserved bits, opcodes, fragments, UTF-8, closing, and automatic fragments.
const GROUPS: [&str; 8] = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"];

/// How many cases these groups have.
const CASES: usize = 247;

fn has_suite() -> bool {
    let lacking = [PathBuf::from(SUITE), PathBuf::from(PACKAGES).join("ws")];
    let lacking: Vec<_> = lacking.iter().filter(|path| !path.exists()).collect();
    let required = std::env::var("PORTOK_REQUIRE_AUTOBAHN").is_ok_and(|value| value == "1");
    assert!(lacking.is_empty() || !required, "{lacking:?} are required");
    if !lacking.is_empty() {
        eprintln!("SKIPPED: no {lacking:?}");
    }
    lacking.is_empty()
}

/// What the suite says of each case: how the server behaved, how it closed, with which code.
type Verdicts = BTreeMap<String, [Value; 3]>;

/// Runs the suite against these servers, each of which has a name.
fn verdicts(folder: &Path, servers: &[(&str, String)]) -> BTreeMap<String, Verdicts> {
    let servers: Vec<_> = servers
        .iter()
        .map(|(name, url)| json!({ "agent": name, "url": url, "options": { "version": 18 } }))
        .collect();
    let spec = json!({
        "outdir": folder.join("reports"),
        "options": { "failByDrop": false },
        "servers": servers,
        "cases": GROUPS,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    });
    let path = folder.join("suite.json");
    std::fs::write(&path, spec.to_string()).unwrap();
    let output = Command::new("timeout")
        .args(["300", SUITE, "--mode", "fuzzingclient", "--spec"])
        .arg(path)
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report = std::fs::read_to_string(folder.join("reports/index.json")).unwrap();
    let report: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_str(&report).unwrap();
    let of_case = |case: Value| ["behavior", "behaviorClose", "remoteCloseCode"].map(|key| case[key].clone());
    let of_server = |cases: BTreeMap<String, Value>| {
        cases.into_iter().map(|(number, case)| (number, of_case(case))).collect::<Verdicts>()
    };
    report.into_iter().map(|(server, cases)| (server, of_server(cases))).collect()
}

#[test]
fn a_server_behind_portok_passes_the_same_cases_as_alone() {
    if !has_suite() {
        return;
    }
    let world = World::new();
    let [plain, encrypted] = free();
    std::fs::create_dir_all(world.path("certs")).unwrap();
    Authority::new().issue(&["a.test"]).put(&world.path("certs"), "a");
    let conf = world
        .conf()
        .set("app.command", format!("exec node {}", file("websocket-echo.js")))
        .set("app.env.NODE_PATH", PACKAGES)
        .set("health.path", "/")
        .set("listen", plain.to_string())
        .set("tls.listen", encrypted.to_string())
        .set("tls.cert_dir", world.path("certs").display().to_string())
        // The suite names an address as the host.
        .set("tls.default", "a");
    let daemon = world.start(&conf);
    let live = daemon.wait_until("it is live", |status| status.live.is_some()).live.unwrap();
    let alone = format!("ws://127.0.0.1:{}", live.port.unwrap());
    let servers =
        [("alone", alone), ("plain", format!("ws://{plain}")), ("tls", format!("wss://{encrypted}"))];
    let verdicts = verdicts(&world.path(""), &servers);
    let alone = &verdicts["alone"];
    assert_eq!(alone.len(), CASES);
    for (number, [behavior, ..]) in alone {
        assert!(
            ["OK", "NON-STRICT", "INFORMATIONAL"].iter().any(|fine| behavior == fine),
            "{number}: {behavior}"
        );
    }
    for way in ["plain", "tls"] {
        let others: Vec<_> = alone
            .iter()
            .map(|(number, alone)| (number, alone, verdicts[way].get(number)))
            .filter(|(_, alone, behind)| Some(*alone) != *behind)
            .collect();
        assert!(others.is_empty(), "{way}: {others:#?}");
    }
    println!("{} cases alone, plain and over TLS", alone.len());
    daemon.terminate();
}
