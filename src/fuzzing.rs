//! The fuzz targets: what holds for any bytes that come from outside.
//!
//! Each is a function that panics where something does not hold; it stands in the `fuzzing` module
//! of the part whose private matters it looks at. `cargo fuzz` runs them for as long as one likes
//! (`fuzz/README.md`). `cargo test fuzzing` runs each over its seeds, over the corpus of the
//! end-to- end tests, and over some thousand inputs made of these. No product has this module.

use crate::{admin, config, http1, proxy, redis};

/// A fuzz target.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: [(&str, Target); 9] = [
    ("request_heads", proxy::fuzzing::request_heads),
    ("answer_heads", http1::fuzzing::answer_heads),
    ("chunks", http1::fuzzing::chunks),
    ("proxy_headers", proxy::fuzzing::proxy_headers),
    ("hosts", hosts),
    ("configuration", config::fuzzing::configuration),
    ("env_files", config::fuzzing::env_files),
    ("admin_bodies", admin::fuzzing::bodies),
    ("redis_lists", redis::fuzzing::lists),
];

fn hosts(bytes: &[u8]) {
    http1::fuzzing::hosts(bytes);
    config::fuzzing::hosts(bytes);
}

/// Runs a target.
///
/// # Panics
/// There is no such target, or something does not hold.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = target.unwrap_or_else(|| panic!("no target {name}"));
    target(bytes);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    /// How many inputs are made for each target, and which: another number makes others.
    const RUNS: &str = "PORTOK_FUZZ_RUNS";
    const SEED: &str = "PORTOK_FUZZ_SEED";

    /// No input grows longer.
    const LONGEST: usize = 8 * 1024;

    /// What is likely to matter to a parser.
    const WORDS: [&[u8]; 24] = [
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b"\t",
        b":",
        b",",
        b";",
        b"=",
        b"\"",
        b"'",
        b"\\",
        b"/",
        b"#",
        b"%00",
        b"[",
        b"]",
        b"{",
        b"\xff",
        b"0",
        b"chunked",
        b"content-length: 5\r\n",
        b"transfer-encoding: chunked\r\n",
    ];

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    fn number(variable: &str, usual: u64) -> u64 {
        std::env::var(variable).ok().map_or(usual, |text| text.parse().unwrap())
    }

    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// What the end-to-end tests send or answer.
    fn corpus(folder: &str, key: &str) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        for file in files(&root().join("tests/e2e/corpus").join(folder)) {
            let table: toml::Table = fs::read_to_string(file).unwrap().parse().unwrap();
            for case in table["case"].as_array().unwrap() {
                let text = case[key].as_str().unwrap();
                found.push(text.chars().map(|byte| u8::try_from(byte).unwrap()).collect());
            }
        }
        found
    }

    /// What the inputs of a target are made of.
    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let own = files(&root().join("fuzz/seeds").join(target)).into_iter();
        let mut seeds: Vec<_> = own.map(|file| fs::read(file).unwrap()).collect();
        assert!(!seeds.is_empty(), "{target} has no seeds");
        // The first byte of these is a number to the target.
        let numbered = |bytes: Vec<u8>| [&b"\x06"[..], &bytes].concat();
        let bodies = |bytes: Vec<u8>| {
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
            Some(numbered(bytes[end + 4..].to_vec()))
        };
        match target {
            "request_heads" => {
                seeds.extend(corpus("requests", "sends"));
                seeds.extend(corpus("requests", "sends").into_iter().map(numbered));
            }
            "answer_heads" => seeds.extend(corpus("answers", "answers").into_iter().map(numbered)),
            "chunks" => seeds.extend(corpus("requests", "sends").into_iter().filter_map(bodies)),
            _ => (),
        }
        seeds
    }

    /// Numbers that are always the same (xorshift64*).
    struct Numbers(u64);

    impl Numbers {
        /// One below `most`.
        fn below(&mut self, most: usize) -> usize {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
            usize::try_from(number).unwrap() % most.max(1)
        }

        fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
            &all[self.below(all.len())]
        }
    }

    /// Changes an input in one place.
    fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], numbers: &mut Numbers) {
        let at = numbers.below(bytes.len() + 1);
        let end = (at + 1 + numbers.below(16)).min(bytes.len());
        match numbers.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << numbers.below(8),
            1 if at < bytes.len() => bytes[at] = u8::try_from(numbers.below(256)).unwrap(),
            2 => drop(bytes.splice(at..at, numbers.one_of(&WORDS).iter().copied())),
            3 if at < end => drop(bytes.drain(at..end)),
            4 if at < end => {
                let part = bytes[at..end].to_vec();
                let to = numbers.below(bytes.len());
                bytes.splice(to..to, part);
            }
            5 => {
                let other = numbers.one_of(seeds);
                let from = numbers.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => bytes.truncate(at),
        }
        bytes.truncate(LONGEST);
    }

    /// Runs a target over its seeds, and over inputs that are made of them.
    fn holds(name: &str) {
        let (seeds, mut numbers) = (seeds(name), Numbers(number(SEED, 1)));
        let must_hold = |bytes: &[u8]| {
            let outcome = std::panic::catch_unwind(|| run(name, bytes));
            assert!(outcome.is_ok(), "{name} does not hold for \"{}\"", bytes.escape_ascii());
        };
        seeds.iter().for_each(|seed| must_hold(seed));
        for _ in 0..number(RUNS, 2_000) {
            let mut bytes = numbers.one_of(&seeds).clone();
            for _ in 0..=numbers.below(4) {
                change(&mut bytes, &seeds, &mut numbers);
            }
            must_hold(&bytes);
        }
    }

    #[test]
    fn request_heads_hold() {
        holds("request_heads");
    }

    #[test]
    fn answer_heads_hold() {
        holds("answer_heads");
    }

    #[test]
    fn chunks_hold() {
        holds("chunks");
    }

    #[test]
    fn proxy_headers_hold() {
        holds("proxy_headers");
    }

    #[test]
    fn hosts_hold() {
        holds("hosts");
    }

    #[test]
    fn configuration_holds() {
        holds("configuration");
    }

    #[test]
    fn env_files_hold() {
        holds("env_files");
    }

    #[test]
    fn admin_bodies_hold() {
        holds("admin_bodies");
    }

    #[test]
    fn redis_lists_hold() {
        holds("redis_lists");
    }

    #[test]
    fn every_target_is_a_program_of_cargo_fuzz_and_a_test_here() {
        let known: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
        let table: toml::Table = fs::read_to_string(root().join("fuzz/Cargo.toml")).unwrap().parse().unwrap();
        let programs = table["bin"].as_array().unwrap().iter();
        let programs: BTreeSet<_> =
            programs.map(|program| program["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(programs, known);
        let here = include_str!("fuzzing.rs");
        for name in known {
            assert!(here.contains(&format!("        holds(\"{name}\");")), "{name}");
        }
    }
}
