//! Apps are added, changed, broken and removed at random while requests go to one that is there all
//! the time: none of its requests fails, and in the end everybody serves what the files say.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use super::{edge, file, get, put_text};
use crate::harness::random::Random;
use crate::harness::wait::pause;
use crate::harness::{Daemon, Load, World, wait_until};

/// How many edits there are; `PORTOK_EDITS` says another number.
const EDITS: u64 = 400;

/// The apps that come and go.
const NAMES: u64 = 24;

/// What a file of an app says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum File {
    /// A redirect to a host that carries this number.
    Redirect(u64),
    /// One of the two unmanaged apps.
    Target(usize),
    /// A release that portok starts.
    Command(u64),
    /// What is not valid. The app stays what it was.
    Broken,
}

/// What is in the folder of apps.
struct Folder<'w> {
    world: &'w World,
    /// Where the two unmanaged apps listen.
    ports: [u16; 2],
    files: BTreeMap<u64, File>,
}

impl Folder<'_> {
    fn put(&mut self, name: u64, file: File) {
        let host = format!("hosts = [\"app-{name}.test\"]\n");
        let text = match &file {
            File::Redirect(number) => format!("{host}redirect = \"http://{number}.example\"\n"),
            File::Target(which) => format!("{host}targets = [\"127.0.0.1:{}\"]\n", self.ports[*which]),
            File::Command(number) => {
                let command = self.world.app(&format!("a{name}-{number}")).command();
                let command = toml::Value::from(command);
                format!("{host}command = {command}\nstop_timeout = \"5s\"\n[drain]\nperiod = \"50ms\"\n")
            }
            File::Broken => format!("{host}redirect = 7\n"),
        };
        put_text(self.world, &app(name), &text);
        self.files.insert(name, file);
    }

    fn remove(&mut self, name: u64) {
        if self.files.remove(&name).is_some() {
            fs::remove_file(file(self.world, &app(name))).unwrap();
        }
    }

    fn edit(&mut self, random: &mut Random, round: u64) {
        let name = random.below(NAMES);
        match random.below(10) {
            0..=3 => self.put(name, File::Redirect(round)),
            4..=6 => self.put(name, File::Target(usize::from(round.is_multiple_of(2)))),
            7 if name < 3 => self.put(name, File::Command(round)),
            7 => self.put(name, File::Broken),
            _ => self.remove(name),
        }
    }
}

fn app(name: u64) -> String {
    format!("app-{name}")
}

/// What answers for an app's host now: a version, or where a redirect leads.
fn answers(daemon: &Daemon<'_>, name: u64) -> String {
    let answer = get(daemon, &format!("{}.test", app(name)), "/");
    match answer.header("location") {
        Some(place) => place.to_owned(),
        None => format!("{} {}", answer.status(), answer.version()),
    }
}

fn edits() -> u64 {
    std::env::var("PORTOK_EDITS").map_or(EDITS, |number| number.parse().expect("PORTOK_EDITS is a number"))
}

#[test]
fn random_edits_cost_an_app_that_stays_no_request() {
    let world = World::new();
    let targets = [world.app("t0").start_unmanaged(), world.app("t1").start_unmanaged()];
    let conf = edge(&world).set("apps.always.command", world.app("v1").command());
    let daemon = world.start(&conf);
    wait_until(
        "the app that stays serves",
        || daemon.log(),
        || (answers(&daemon, 0) == "200 v1").then_some(()),
    );
    let load = Load::start(daemon.addr);
    let ports = [targets[0].port, targets[1].port];
    let mut folder = Folder { world: &world, ports, files: BTreeMap::new() };
    let mut random = Random::fixed();
    for round in 0..edits() {
        folder.edit(&mut random, round);
        // Some edits come one by one, others in bursts.
        if random.below(3) == 0 {
            pause(Duration::from_millis(random.below(60)));
        }
    }
    // Whatever was broken last is mended, so that it is known what has to be in force.
    for name in 0..NAMES {
        if folder.files.get(&name) == Some(&File::Broken) {
            folder.put(name, File::Redirect(name));
        }
    }
    for name in 0..NAMES {
        let expected = match folder.files.get(&name) {
            Some(File::Redirect(number)) => format!("http://{number}.example/"),
            Some(File::Target(which)) => format!("200 t{which}"),
            Some(File::Command(number)) => format!("200 a{name}-{number}"),
            Some(File::Broken) | None => "200 v1".to_owned(),
        };
        wait_until(
            "what serves is what the files say",
            || format!("app-{name}: {} and not {expected}\n{}", answers(&daemon, name), daemon.log()),
            || (answers(&daemon, name) == expected).then_some(()),
        );
    }
    let report = load.finish_without_failure();
    assert_eq!(report.by_version.keys().collect::<Vec<_>>(), ["v1"], "{report:#?}");
    let commands = folder.files.values().filter(|file| matches!(file, File::Command(_))).count();
    wait_until(
        "one process for each app that portok starts is left",
        || format!("{commands} apps: {:#?}\n{}", world.processes(), daemon.log()),
        || (world.processes().len() == commands + 1).then_some(()),
    );
    daemon.terminate();
}
