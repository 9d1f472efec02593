//! The corpus: messages that are malformed, that smuggle, or that only look like it, through the
//! front door of a real daemon, and exactly what became of each.
//!
//! The messages are data: `corpus/requests/*.toml` holds what clients send, `corpus/answers/*.toml`
//! what apps answer ([`case`] says how an entry is written). A raw app of its own ([`recorder`])
//! stands behind one daemon per file, records every byte that reaches it, and judges it strictly.
//! After each message another client asks for something else over whatever connections are left,
//! and must get its own answer.
//!
//! The whole corpus: `cargo test --test e2e corpus::`.

use std::collections::BTreeSet;
use std::fs;

pub(crate) mod case;
mod from_apps;
mod from_clients;
pub(crate) mod message;
pub(crate) mod recorder;
pub(crate) mod stage;

/// How many entries it has at least.
const ENTRIES: usize = 350;

/// The files of messages from clients.
const REQUESTS: [&str; 7] = ["chunks", "fields", "framing", "heads", "pipelines", "sizes", "targets"];

/// The files of messages from apps.
const ANSWERS: [&str; 2] = ["framing", "heads"];

#[test]
fn every_file_is_played_and_every_entry_has_a_name_of_its_own() {
    let mut names = BTreeSet::new();
    let mut count = 0;
    for (folder, played) in [("requests", &REQUESTS[..]), ("answers", &ANSWERS[..])] {
        let files = fs::read_dir(case::folder().join(folder)).unwrap().map(|entry| entry.unwrap().path());
        let found: BTreeSet<_> =
            files.map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        assert_eq!(found, played.iter().map(|name| (*name).to_owned()).collect(), "{folder}");
        for name in played {
            for entry in case::names(folder, name) {
                count += 1;
                assert!(names.insert((folder, *name, entry.clone())), "{folder}/{name}: {entry} twice");
            }
        }
    }
    assert!(count >= ENTRIES, "{count} entries");
}

#[test]
fn framing_of_requests() {
    from_clients::play("framing");
}

#[test]
fn chunks_of_requests() {
    from_clients::play("chunks");
}

#[test]
fn heads_of_requests() {
    from_clients::play("heads");
}

#[test]
fn hosts_and_targets() {
    from_clients::play("targets");
}

#[test]
fn fields_of_requests() {
    from_clients::play("fields");
}

#[test]
fn sizes_of_requests() {
    from_clients::play("sizes");
}

#[test]
fn several_requests_in_one_go() {
    from_clients::play("pipelines");
}

#[test]
fn framing_of_answers() {
    from_apps::play("framing");
}

#[test]
fn heads_of_answers() {
    from_apps::play("heads");
}
