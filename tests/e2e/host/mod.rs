//! The commands that concern a host, in folders of their own, with a `systemctl` and a `journalctl` of the test's.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::World;
use crate::harness::command::Said;

mod ending;
mod making;
mod running;

/// Keeps what it was asked in `asked`, and the state of each unit in a file; says what is in `complaint` and fails.
const SYSTEMCTL: &str = r#"#!/bin/sh
cd "$FAKES" || exit 99
echo "$*" >> asked
[ -e complaint ] && { cat complaint >&2; exit 1; }
verb=$1; now=; shift
[ "$1" = --now ] && { now=1; shift; }
state() { [ -e "$1" ] && cat "$1" || echo "$2"; }
case $verb in
show)
    for unit in "$@"; do
        case $unit in -*) continue;; esac
        case $unit in *.scope)
            # The pattern of all scopes: each is a file with the name of the unit that it is ordered before.
            for scope in $unit; do
                [ -e "$scope" ] && { echo "Id=$scope"; echo "ControlGroup=/$scope"; echo "Before=$(cat "$scope")"; echo; }
            done
            continue;;
        esac
        echo "Id=$unit"; echo "LoadState=loaded"
        echo "ActiveState=$(state "$unit.active" inactive)"
        echo "UnitFileState=$(state "$unit.file" disabled)"
        echo "ControlGroup=$(state "$unit.left" "")"
        [ -e "$unit.told" ] && cat "$unit.told"
        echo
    done;;
kill) for unit in "$@"; do rm -f "$unit.left"; case $unit in *.scope) rm -f "$unit";; esac; done;;
list-units) for file in *.active; do [ -e "$file" ] && echo "${file%.active} loaded active running"; done;;
start|restart) echo active > "$1.active";;
stop) echo inactive > "$1.active";;
enable) echo enabled > "$1.file"; [ -n "$now" ] && echo active > "$1.active";;
disable) echo disabled > "$1.file"; [ -n "$now" ] && echo inactive > "$1.active";;
esac
exit 0
"#;

/// Prints the entries in `journal`; with `--follow` then those that somebody writes into the pipe `following`.
const JOURNALCTL: &str = r#"#!/bin/sh
cd "$FAKES" || exit 99
echo "$*" >> journal-asked
[ -e journal ] && cat journal
case "$*" in *--follow*) cat following;; esac
exit 0
"#;

/// A host whose folders are the test's.
struct Host {
    world: World,
}

impl Host {
    fn new() -> Self {
        let host = Self { world: World::new() };
        for folder in ["bin", "fakes"] {
            fs::create_dir(host.path(folder)).unwrap();
        }
        for (name, script) in [("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)] {
            let path = host.path("bin").join(name);
            fs::write(&path, script).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        host
    }

    fn path(&self, inner: &str) -> PathBuf {
        self.world.path(inner)
    }

    fn config(&self, file: &str) -> PathBuf {
        self.path("conf").join(file)
    }

    fn env(&self) -> BTreeMap<String, String> {
        let mut env = self.world.env();
        let path = format!("{}:{}", self.path("bin").display(), env["PATH"]);
        env.insert("PATH".to_owned(), path);
        env.insert("FAKES".to_owned(), self.path("fakes").display().to_string());
        for (variable, folder) in
            [("PORTOK_CONFIG_DIR", "conf"), ("PORTOK_STATE_DIR", "state"), ("PORTOK_UNIT_DIR", "units")]
        {
            env.insert(variable.to_owned(), self.path(folder).display().to_string());
        }
        env
    }

    #[track_caller]
    fn portok(&self, words: &[&str]) -> Said {
        self.world.portok(words, &self.env())
    }

    /// The same with `--json`; standard output has to be one value.
    #[track_caller]
    fn json(&self, words: &[&str], code: i32) -> Value {
        self.portok(&[words, &["--json"]].concat()).ended(code).json()
    }

    /// What systemctl was asked since the last time, without the questions.
    fn asked(&self) -> Vec<String> {
        let log = self.path("fakes/asked");
        let lines = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(log);
        let is_question =
            |line: &str| ["show", "list-units", "is-"].iter().any(|verb| line.starts_with(verb));
        lines.lines().filter(|line| !is_question(line)).map(str::to_owned).collect()
    }

    fn unit_is(&self, name: &str, active: &str) {
        fs::write(self.path(&format!("fakes/portok@{name}.service.active")), active).unwrap();
    }
}

fn mode(path: &Path) -> u32 {
    let meta = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    meta.mode() & 0o7777
}

fn steps(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let steps = report["steps"].as_array().unwrap_or_else(|| panic!("{report:#}"));
    steps.iter().map(|step| (text(&step["action"]), text(&step["subject"]))).collect()
}
