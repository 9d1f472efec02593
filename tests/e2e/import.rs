//! `portok import`: from another tool's file to one that the daemon takes.

use std::fs::{self, File};

use crate::harness::command::{PORTOK, Running};
use crate::harness::{World, assert_mentions};

const ECOSYSTEM: &str =
    r#"{"apps": [{"script": "app.js", "watch": true, "env": {"PORT": "3000", "A": "1"}}]}"#;

#[test]
fn what_is_printed_is_a_configuration_and_what_is_lost_is_said_beside_it() {
    let world = World::new();
    let ecosystem = world.path("ecosystem.json");
    fs::write(&ecosystem, ECOSYSTEM).unwrap();
    let file = ecosystem.display().to_string();
    let said = world.portok(&["import", "pm2", &file], &world.env()).ended(0);
    assert_mentions(&said.err, &["apps[0].watch", "portok deploy"]);

    let toml = world.path("shop.toml");
    fs::write(&toml, &said.out).unwrap();
    let checked = world.portokd(&["--check", "--config", &toml.display().to_string()], &world.env()).ended(0);
    assert_mentions(&checked.out, &["listen = \"0.0.0.0:3000\"", "command = [\"node\", \"app.js\"]"]);

    let json = world.portok(&["import", "pm2", &file, "--json"], &world.env()).ended(0);
    assert_eq!(json.json()["toml"], said.out);
    assert!(json.json()["notes"][0].is_string(), "{}", json.out);
    assert_eq!(json.err, "");
}

#[test]
fn standard_input_is_imported_too() {
    let world = World::new();
    let procfile = world.path("Procfile");
    fs::write(&procfile, "web: node app.js\nworker: node worker.js\n").unwrap();
    let (stem, input) = (world.path("import"), File::open(&procfile).unwrap());
    let error = File::create(stem.with_extension("err")).unwrap();
    let words = ["import", "procfile", "-"];
    let said = Running::start_over(PORTOK, &words, &world.env(), &stem, input.into(), error.into()).wait();
    assert_mentions(&said.ended(0).out, &["[app]\ncommand = \"node app.js\"\n", "[app.processes.worker]\n"]);
}

#[test]
fn what_cannot_be_imported_prints_nothing_and_says_all_that_is_wrong() {
    let world = World::new();
    let file = world.path("config.json");
    fs::write(&file, r#"{"server": {"port": "eighty"}, "driver": "http://x"}"#).unwrap();
    let said = world.portok(&["import", "hipache", &file.display().to_string()], &world.env()).ended(2);
    assert_eq!(said.out, "");
    assert_mentions(&said.err, &["config.json", "server.port", "1 to 65535", "driver", "redis://"]);
    let missing = world.portok(&["import", "nfork", "/does/not/exist.json"], &world.env()).ended(2);
    assert_mentions(&missing.err, &["/does/not/exist.json"]);
    world.portok(&["import", "nginx", "nginx.conf"], &world.env()).ended(2);
}
