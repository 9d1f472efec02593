//! What the route table costs: memory a host, the time that a new table takes, and memory an app.
//!
//! `table HOSTS` makes tables of so many hosts, all of them one app's, then as many apps for two
//! threads, and prints a line for each quantity. Nothing is served.

use std::error::Error;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use portok::config::{self, Sources};
use portok::proxy::{At, Board, Counters, Destination, Route};

/// How many tables are published, one after the other: what is measured is the last one.
const TABLES: u32 = 5;

/// Bytes of this process in memory, without what is shared with files (proc(5)).
fn resident() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [hosts] = &words[..] else { return Err("table HOSTS".into()) };
    let hosts: u32 = hosts.parse()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("table.toml");
    std::fs::write(&file, "listen = \"127.0.0.1:0\"\n")?;
    let sources = Sources { file: Some(file), ..Sources::default() };
    let config = Arc::new(config::load(&sources).map_err(|errors| errors.problems.join("; "))?);
    let counters = Counters::new(2);
    let (board, _own) = Board::new(config.clone(), counters.service().clone());
    let (service, _writer) = board.add(config.app.clone(), &counters);
    let routes = || -> Result<Vec<_>, Box<dyn Error>> {
        let route = |number| {
            let hosts = format!("customer-{number:06}.apps.example.com").parse()?;
            let at = At::Instance { hosts, path: "/".into() };
            Ok(Route { at, to: Destination::pass(service.clone()) })
        };
        (0..hosts).map(route).collect()
    };
    let before = resident()?;
    board.route(routes()?);
    let table = resident()?.saturating_sub(before);
    let mut took = Vec::new();
    for _ in 0..TABLES {
        let routes = routes()?;
        let begun = Instant::now();
        board.route(routes);
        took.push(begun.elapsed());
    }
    took.sort();
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{} bytes a host, with what the allocator keeps of the way there",
        table / u64::from(hosts)
    )?;
    writeln!(out, "{:?} for a new table of {hosts} hosts, median of {TABLES}", took[took.len() / 2])?;
    let before = resident()?;
    let apps: Vec<_> = (0..hosts).map(|_| board.add(config.app.clone(), &counters)).collect();
    let each = resident()?.saturating_sub(before) / u64::from(hosts);
    writeln!(out, "{each} bytes an app of {} that nobody asks for", apps.len())?;
    Ok(())
}
