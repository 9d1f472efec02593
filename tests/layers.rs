//! Holds the arrows of the design by reading the sources: who may import whom, and what may be done
//! where.
//!
//! wire <- config, http1 <- mechanisms (supervisor, health, proxy) <- release <- apps, admin <-
//! daemon <- the binaries; config <- host <- cli <- the binaries. Mechanisms never import one
//! another; the command line knows nothing of the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// For each part of the crate, the parts it may import. A part is a folder or file directly under
/// `src`.
const ALLOWED: [(&str, &[&str]); 22] = [
    ("wire", &[]),
    ("want", &[]),
    ("plain", &[]),
    ("folder", &[]),
    ("config", &["wire", "http1"]),
    ("http1", &[]),
    ("proxy_header", &[]),
    ("supervisor", &["wire", "config", "want", "plain", "folder"]),
    ("health", &["wire", "config", "want", "http1", "proxy_header"]),
    ("access", &["config", "folder", "plain"]),
    ("proxy", &["wire", "config", "want", "http1", "access", "tls", "proxy_header"]),
    ("redis", &["wire", "config", "folder"]),
    ("tls", &["wire", "config", "http1"]),
    ("release", &["wire", "config", "want", "folder", "supervisor", "health", "proxy"]),
    ("apps", &["wire", "config", "redis", "supervisor", "health", "proxy", "release"]),
    ("admin", &["wire", "config", "want", "folder", "proxy", "release", "apps", "tls"]),
    ("host", &["wire", "config", "plain", "tls"]),
    ("cli", &["wire", "config", "plain", "host"]),
    ("hooks", &["wire", "config", "supervisor"]),
    ("systemd", &["wire", "config"]),
    ("logging", &["wire", "config", "plain"]),
    (
        "daemon",
        &[
            "wire",
            "config",
            "access",
            "supervisor",
            "health",
            "proxy",
            "redis",
            "release",
            "apps",
            "admin",
            "hooks",
            "systemd",
            "logging",
            "tls",
        ],
    ),
];

/// Files that decide purely: no clock, no I/O, no async in them, and no mechanism.
const PURE: [&str; 31] = [
    "wire",
    "proxy_header",
    "access/combined",
    "access/format",
    "access/hipache",
    "access/json",
    "access/line",
    "release/state",
    "config/diff",
    "config/fingerprint",
    "config/show",
    "config/spots",
    "http1",
    "tls/acme/schedule",
    "apps/claims",
    "apps/plan",
    "apps/probes/book",
    "apps/restarts",
    "redis/bounds",
    "redis/dead",
    "redis/guard",
    "redis/list",
    "redis/packed",
    "redis/steps",
    "redis/table",
    "tls/names",
    "tls/pair",
    "tls/shelf",
    "tls/store",
    "apps/targets/schedule",
    "apps/targets/set",
];

/// Parts whose files import one another in no circle. A parent and its children count as one idea
/// cut by role: between them arrows may go both ways.
const WITHOUT_CIRCLES: [&str; 14] = [
    "access",
    "proxy",
    "supervisor",
    "redis",
    "release",
    "apps",
    "daemon",
    "cli",
    "host",
    "wire",
    "config",
    "admin",
    "health",
    "tls",
];

/// Words that a pure file cannot contain.
const IMPURE: [&str; 8] = [
    "tokio::",
    "std::fs",
    "std::net::Tcp",
    "Instant::now",
    "SystemTime::now",
    "async fn",
    ".await",
    "std::thread",
];

/// A source file without comments, texts and its tests.
struct Source {
    /// Relative to the crate's folder.
    path: String,
    /// The part of the crate it belongs to.
    part: String,
    code: String,
}

#[test]
fn every_part_imports_only_what_lies_below_it() {
    let mut wrong = Vec::new();
    for source in sources() {
        if source.path == "src/lib.rs" || source.part == "bin" {
            continue;
        }
        let Some((_, allowed)) = ALLOWED.iter().find(|(part, _)| *part == source.part) else {
            wrong.push(format!("{}: a part without a place in the layers", source.path));
            continue;
        };
        for import in imports(&source) {
            if import != source.part && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{} imports crate::{import}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_files_import_one_another_in_a_circle() {
    let sources = sources();
    let mut circles = Vec::new();
    for part in WITHOUT_CIRCLES {
        let files = Files::of(part, &sources);
        assert!(files.imports.len() > 1, "{part} has no files to look at");
        circles.extend(circles_in(&files.arrows()));
    }
    assert!(circles.is_empty(), "files that need one another: {circles:#?}");
}

#[test]
fn pure_files_do_nothing_but_decide() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for source in sources() {
        let inner = source.path.trim_start_matches("src/");
        let Some(pure) = PURE.iter().find(|pure| inner.starts_with(*pure)) else { continue };
        seen.insert(*pure);
        wrong.extend(
            IMPURE
                .iter()
                .filter(|word| source.code.contains(*word))
                .map(|word| format!("{}: {word}", source.path)),
        );
        let mechanisms = ["supervisor", "health", "proxy"];
        let imports = imports(&source);
        wrong.extend(
            mechanisms
                .iter()
                .filter(|name| imports.contains(**name))
                .map(|name| format!("{}: {name}", source.path)),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(seen.len(), PURE.len(), "a pure file has another name now: only {seen:?} are there");
}

#[test]
fn unsafe_code_and_process_crates_stay_in_the_supervisor() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.part != "supervisor") {
        for word in ["unsafe", "command_group", "portpicker"] {
            if words(&source.code).any(|found| found == word) {
                wrong.push(format!("{}: {word}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_the_renderer_and_the_daemons_last_words_are_printed() {
    let mut wrong = Vec::new();
    for source in sources() {
        if source.path.starts_with("src/cli/render") {
            continue;
        }
        if source.path == "src/daemon.rs" {
            let last_words = source.code.matches("println!").count();
            assert!(last_words <= 1, "the daemon has one place for its last words, not {last_words}");
            continue;
        }
        for word in ["println!", "eprintln!", "print!", "eprint!", "dbg!"] {
            let starts = source.code.match_indices(word).filter(|(at, _)| {
                // `println!` contains `print!`-like tails; a macro's name begins at a boundary.
                !source.code[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
            });
            wrong.extend(starts.map(|_| format!("{}: {word}", source.path)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn lints_are_expected_with_a_reason_and_never_allowed() {
    let mut wrong = Vec::new();
    for source in sources().into_iter().chain(test_sources()) {
        if source.code.contains("#[allow(") || source.code.contains("#![allow(") {
            wrong.push(source.path);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn tests_sleep_in_one_helper_only() {
    let sleeping: Vec<_> = test_sources()
        .into_iter()
        .filter(|source| {
            ["thread::sleep", "time::sleep", "sleep_ms"].iter().any(|word| source.code.contains(word))
        })
        .map(|source| source.path)
        .collect();
    assert_eq!(sleeping, ["tests/e2e/harness/wait.rs"]);
}

#[test]
fn no_file_grows_beyond_what_one_reads_at_once() {
    let long: Vec<_> = read_all("src")
        .into_iter()
        .map(|source| (source.code.lines().filter(|line| !line.trim().is_empty()).count(), source.path))
        .filter(|(lines, _)| *lines > 600)
        .collect();
    assert!(long.is_empty(), "more than 600 lines of code: {long:#?}");
}

#[test]
fn every_dependency_is_used() {
    let manifest: toml::Table =
        toml::from_str(&fs::read_to_string(root().join("Cargo.toml")).unwrap()).unwrap();
    let used_in = |folders: &[&str]| -> BTreeSet<String> {
        let sources = folders.iter().flat_map(|folder| read_all(folder));
        sources.flat_map(|source| words(&source.code).map(str::to_owned).collect::<Vec<_>>()).collect()
    };
    for (section, folders) in [("dependencies", &["src"][..]), ("dev-dependencies", &["src", "tests"])] {
        let used = used_in(folders);
        let names = manifest[section].as_table().unwrap().keys();
        let unused: Vec<_> = names.filter(|name| !used.contains(&name.replace('-', "_"))).collect();
        assert!(unused.is_empty(), "[{section}] of Cargo.toml names what no source does: {unused:?}");
    }
}

#[test]
fn the_reader_itself_sees_imports_and_nothing_else() {
    let text = r#"
        //! Mentions crate::admin.
        use crate::config::Config;
        use crate::{health, wire::{self, Code}, proxy::Target};
        /* crate::daemon /* nested */ crate::cli */
        fn f() -> crate::release::Handle { let s = "crate::admin"; let c = '"'; g::<crate::supervisor::Lease>() }
        pub(crate) fn g() { super::super::bin::x(); super::sibling(); }
        #[cfg(test)]
        mod tests { use crate::cli; }
    "#;
    let source = Source { path: "src/x/y.rs".to_owned(), part: "x".to_owned(), code: strip(text) };
    let found: Vec<_> = imports(&source).into_iter().collect();
    assert_eq!(found, ["bin", "config", "health", "proxy", "release", "supervisor", "wire"]);
}

#[test]
fn a_circle_is_seen_however_it_is_written() {
    let source = |path: &str, text: &str| Source {
        path: format!("src/x/{path}"),
        part: "x".to_owned(),
        code: strip(text),
    };
    let sources = [
        source("mod.rs", "mod a; mod b; mod c; pub use a::A; pub use b::{self, B};"),
        // By a re-export of the parent's.
        source("a.rs", "use super::B; use std::fmt;"),
        // In a group, and only in the middle of the code.
        source("b.rs", "use super::{c::{self, d::D as E}}; fn f() {}"),
        source("c.rs", "mod d; use self::d::D; fn f() { super::e::f() }"),
        // A child may use what is its parent's.
        source("c/d.rs", "use super::C; use crate::y::a;"),
        source("e.rs", "use crate::x::a::A;"),
        source("f.rs", "use super::a::A;"),
    ];
    let arrows = Files::of("x", &sources).arrows();
    let circles = circles_in(&arrows);
    assert_eq!(circles, [["src/x/a.rs", "src/x/b.rs", "src/x/c.rs", "src/x/e.rs"]], "{arrows:#?}");
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The crate's sources, without files that hold only tests.
fn sources() -> Vec<Source> {
    let mut sources = read_all("src");
    let only_tests = |path: &str| {
        path.contains("/tests/")
            || ["tests.rs", "testing.rs", "fuzzing.rs"].iter().any(|name| path.ends_with(name))
    };
    sources.retain(|source| !only_tests(&source.path));
    assert!(sources.len() > 5, "the sources are where they were");
    sources
}

fn test_sources() -> Vec<Source> {
    // This file names what it looks for.
    let mut sources = read_all("tests");
    sources.retain(|source| source.path != "tests/layers.rs");
    sources
}

fn read_all(folder: &str) -> Vec<Source> {
    let root = root();
    all_files(&root.join(folder))
        .into_iter()
        .map(|file| {
            let path = file.strip_prefix(&root).expect("below the root").display().to_string();
            let part = path.split('/').nth(1).unwrap_or_default().trim_end_matches(".rs").to_owned();
            Source { code: strip(&fs::read_to_string(&file).expect("a source file is text")), path, part }
        })
        .collect()
}

fn all_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.expect("a folder can be read").path();
        if path.is_dir() {
            files.extend(all_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The parts of the crate that a file names.
fn imports(source: &Source) -> BTreeSet<String> {
    // A folder's `mod.rs` reaches the crate with one step up, a file in the folder with two, and so
    // on.
    let steps = source.path.trim_end_matches("/mod.rs").split('/').count() - 1;
    let up = &"super::".repeat(steps);
    let mut found = BTreeSet::new();
    for prefix in ["crate::", up] {
        for (at, _) in source.code.match_indices(prefix) {
            if source.code[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':')) {
                continue;
            }
            let rest = source.code[at + prefix.len()..].trim_start();
            match rest.strip_prefix('{') {
                Some(group) => found.extend(group_heads(group)),
                None => found.extend(words(rest).next().map(str::to_owned)),
            }
        }
    }
    // What begins with a capital is an item that `lib.rs` itself would define, `self` is the crate.
    found.retain(|name| name.starts_with(|c: char| c.is_lowercase()) && name != "self" && name != "super");
    found
}

/// A path of a module or of an item, one name after the other.
type Names = Vec<String>;

/// The files of one part as modules, and the paths that each of them names.
struct Files {
    /// Every module's file.
    paths: BTreeMap<Names, String>,
    /// What every module names, as whole paths from the crate on.
    imports: BTreeMap<Names, BTreeSet<Names>>,
}

impl Files {
    fn of(part: &str, sources: &[Source]) -> Self {
        let mut files = Self { paths: BTreeMap::new(), imports: BTreeMap::new() };
        let of_part = || sources.iter().filter(|source| source.part == part);
        for source in of_part() {
            files.paths.insert(module_of(source), source.path.clone());
        }
        for source in of_part() {
            let module = module_of(source);
            let named = named_paths(&source.code);
            let whole = named.into_iter().filter_map(|path| files.whole(&module, path)).collect();
            files.imports.insert(module, whole);
        }
        files
    }

    /// `path`, which `module` names, from the crate on; `None` for what another crate has.
    fn whole(&self, module: &Names, path: Names) -> Option<Names> {
        let mut whole = module.clone();
        let mut rest = path.into_iter().peekable();
        match rest.peek()?.as_str() {
            "crate" => {
                whole.clear();
                rest.next();
            }
            "self" => drop(rest.next()),
            "super" => {
                while rest.next_if(|name| name == "super").is_some() {
                    whole.pop()?;
                }
            }
            child => {
                let child = [module.clone(), vec![child.to_owned()]].concat();
                self.paths.contains_key(&child).then_some(())?;
            }
        }
        whole.extend(rest);
        Some(whole)
    }

    /// The module that has the item at `path`: one that only passes it on is looked through.
    fn owner(&self, path: &Names, depth: usize) -> Option<Names> {
        let mut module = path.clone();
        while !self.paths.contains_key(&module) {
            module.pop()?;
        }
        let passed_on = path.get(module.len()).filter(|_| depth > 0).and_then(|item| {
            let mut imports = self.imports.get(&module)?.iter();
            imports.find(|import| import.last() == Some(item) && !import.starts_with(path))
        });
        match passed_on {
            Some(import) => self.owner(import, depth - 1),
            None => Some(module),
        }
    }

    /// Which file needs which, but for a parent and its children.
    fn arrows(&self) -> BTreeMap<String, BTreeSet<String>> {
        let of_file = |(module, imports): (&Names, &BTreeSet<Names>)| {
            let owners = imports.iter().filter_map(|path| self.owner(path, 4));
            let others = owners.filter(|owner| !owner.starts_with(module) && !module.starts_with(owner));
            (self.paths[module].clone(), others.map(|owner| self.paths[&owner].clone()).collect())
        };
        self.imports.iter().map(of_file).collect()
    }
}

/// The module that a file is.
fn module_of(source: &Source) -> Names {
    let inner = source.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    inner.split('/').map(str::to_owned).collect()
}

/// The paths that `code` names, each import of a group as one of its own.
fn named_paths(code: &str) -> Vec<Names> {
    let mut found = Vec::new();
    for start in ["use ", "crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(start) {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | ':')) {
                continue;
            }
            let text = if start == "use " { &code[at + start.len()..] } else { &code[at..] };
            let end = text.find(';').unwrap_or(text.len());
            path_tree(&mut text[..end].chars().peekable(), &[], &mut found);
        }
    }
    found
}

/// Reads `path::{tree, tree as name}` and adds every path in it, each behind `before`.
fn path_tree(text: &mut std::iter::Peekable<std::str::Chars<'_>>, before: &[String], found: &mut Vec<Names>) {
    let mut path = before.to_vec();
    loop {
        while text.next_if(|c| c.is_whitespace()).is_some() {}
        let mut name = String::new();
        while let Some(c) = text.next_if(|c| c.is_alphanumeric() || *c == '_') {
            name.push(c);
        }
        // In a group `self` is the module itself.
        let is_itself = name == "self" && !path.is_empty();
        if !name.is_empty() && !is_itself {
            path.push(name);
        }
        if text.next_if_eq(&':').is_some() && text.next_if_eq(&':').is_some() {
            continue;
        }
        if text.next_if_eq(&'{').is_some() {
            while !matches!(text.peek(), None | Some('}')) {
                path_tree(text, &path, found);
                while !matches!(text.peek(), None | Some(',' | '}')) {
                    // A new name behind `as`.
                    text.next();
                }
                text.next_if_eq(&',');
                while text.next_if(|c| c.is_whitespace()).is_some() {}
            }
            text.next();
        } else {
            found.push(path);
        }
        return;
    }
}

/// The groups of files of which each needs, over others or not, every other.
fn circles_in(arrows: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let reached_from = |start: &String| {
        let mut reached = BTreeSet::new();
        let mut next: Vec<_> = arrows.get(start).into_iter().flatten().collect();
        while let Some(file) = next.pop() {
            if reached.insert(file.clone()) {
                next.extend(arrows.get(file).into_iter().flatten());
            }
        }
        reached
    };
    let reach: BTreeMap<_, _> = arrows.keys().map(|file| (file, reached_from(file))).collect();
    let mut circles: Vec<Vec<String>> = Vec::new();
    for (file, reached) in &reach {
        if reached.contains(*file) && !circles.iter().flatten().any(|known| known == *file) {
            let back = |other: &&String| reach.get(other).is_some_and(|reached| reached.contains(*file));
            circles.push(reached.iter().filter(back).cloned().collect());
        }
    }
    circles
}

/// The first names of the entries of an import group, whose opening brace was read.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let (mut depth, mut entry) = (1, String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            heads.extend(words(&entry).next().map(str::to_owned));
            entry.clear();
        } else {
            entry.push(c);
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Takes comments, texts and the tests at a file's end out of it.
fn strip(text: &str) -> String {
    let code = strip_texts_and_comments(text);
    match code.find("#[cfg(test)]\nmod tests {").or_else(|| tests_begin(&code)) {
        Some(at) => code[..at].to_owned(),
        None => code,
    }
}

/// Where an indented test module begins.
fn tests_begin(code: &str) -> Option<usize> {
    let (at, _) = code.match_indices("#[cfg(test)]").find(|(at, found)| {
        let mut following = words(&code[at + found.len()..]);
        following.next() == Some("mod") && following.next() == Some("tests")
    })?;
    code[at..].find('{').is_some_and(|brace| !code[at..at + brace].contains(';')).then_some(at)
}

fn strip_texts_and_comments(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            at += block_comment(rest);
        } else if let Some(hashes) = raw_text(rest, code.chars().next_back()) {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = hashes + 2;
            at += rest[start..].find(&end).map_or(rest.len(), |length| start + length + end.len());
            code.push_str("\"\"");
        } else if rest.starts_with('"') {
            at += quoted(rest);
            code.push_str("\"\"");
        } else if let Some(length) = character(rest) {
            at += length;
            code.push_str("' '");
        } else {
            let c = rest.chars().next().expect("not at the end");
            code.push(c);
            at += c.len_utf8();
        }
    }
    code
}

/// The length of a block comment, nested ones included.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    at
}

/// The number of hashes of a raw text that begins here.
fn raw_text(text: &str, before: Option<char>) -> Option<usize> {
    if before.is_some_and(|c| c != 'b' && (c.is_alphanumeric() || c == '_')) {
        return None;
    }
    let rest = text.strip_prefix('r')?;
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    rest[hashes..].starts_with('"').then_some(hashes)
}

/// The length of a text in quotes.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a character literal; `None` for a lifetime and for everything else.
fn character(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('\'')?;
    let first = rest.chars().next()?;
    if first == '\\' {
        // The character after the backslash may be a quote.
        let close = rest[2..].find('\'')?;
        return Some(1 + 2 + close + 1);
    }
    rest[first.len_utf8()..].starts_with('\'').then_some(1 + first.len_utf8() + 1)
}
