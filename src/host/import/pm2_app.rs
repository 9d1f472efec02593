//! One app of pm2's ecosystem: what of it is carried over.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::fields::{Fields, number};
use super::findings::Findings;
use super::pm2_keys;
use super::toml::{Toml, Value as Field};
use crate::config::{LEAST_MEMORY, Replicas};

/// The longest time that portok takes, in milliseconds.
const MILLIS_MAX: u64 = 7 * 24 * 3600 * 1000;

/// The longest folder that is taken, in bytes. What the system takes is longer.
const PATH_MAX: usize = 2048;

/// What `max_memory` can be, in bytes.
const LIMITS_OF_MEMORY: RangeInclusive<u64> = LEAST_MEMORY..=i64::MAX as u64;

/// What runs a script without an interpreter of its own, by the script's extension.
const INTERPRETERS: [(&str, &str); 12] = [
    ("js", "node"),
    ("mjs", "node"),
    ("cjs", "node"),
    ("sh", "bash"),
    ("py", "python3"),
    ("rb", "ruby"),
    ("php", "php"),
    ("pl", "perl"),
    ("coffee", "coffee"),
    ("ls", "lsc"),
    ("ts", "bun"),
    ("tsx", "bun"),
];

/// What an app may switch off, and portok always does.
const SWITCHED_OFF: [(&str, &str); 3] = [
    ("autorestart", "an app that exits is started again, always"),
    ("autostart", "an app is started with its daemon"),
    ("treekill", "an app is stopped with all that it has started"),
];

/// An app.
#[derive(Debug)]
pub(super) struct App {
    pub(super) place: String,
    /// As pm2 calls it.
    pub(super) name: String,
    /// Where it answered: its own port.
    pub(super) port: Option<u16>,
    command: Field,
    replicas: Option<u64>,
    /// In bytes.
    max_memory: Option<u64>,
    directory: Option<String>,
    user: Option<String>,
    group: Option<String>,
    stop_timeout: Option<u64>,
    restart: Vec<(&'static str, Field)>,
    env: Vec<(String, String)>,
}

/// Reads an app that was started from `folder`. `None`: it cannot be started.
pub(super) fn read(mut fields: Fields<'_>, folder: Option<&str>, findings: &mut Findings) -> Option<App> {
    fields.rename(pm2_keys::canonical);
    let script = fields.text("script", findings).filter(|script| !script.trim().is_empty());
    let Some(script) = script else {
        findings.problem(fields.at("script"), "expected what to start, such as \"app.js\"");
        return None;
    };
    let name = fields.text("name", findings).filter(|name| !name.is_empty());
    let stem = Path::new(script).file_stem().and_then(|stem| stem.to_str()).unwrap_or(script);
    let directory = directory(&mut fields, folder, findings);
    let (mut env, port) = environment(&mut fields, findings);
    let command = command(&mut fields, script, directory.as_deref(), &mut env, findings);
    let app = App {
        name: name.unwrap_or(stem).to_owned(),
        port,
        command,
        replicas: replicas(&mut fields, findings),
        max_memory: max_memory(&mut fields, findings),
        directory,
        user: account(&mut fields, "uid", findings),
        group: account(&mut fields, "gid", findings),
        stop_timeout: fields.number("kill_timeout", 0..=MILLIS_MAX, findings),
        restart: restart(&mut fields, findings),
        env,
        place: fields.place().to_owned(),
    };
    for (key, what) in SWITCHED_OFF {
        if fields.boolean(key, findings) == Some(false) {
            findings.note(fields.at(key), what);
        }
    }
    pm2_keys::rest(fields, findings);
    Some(app)
}

impl App {
    /// Writes its keys into the table that was begun last, whose path is `table`.
    pub(super) fn write(&self, toml: &mut Toml, table: &[&str], findings: &mut Findings) {
        toml.set("command", self.command.clone());
        if let Some(replicas) = self.replicas {
            toml.set("replicas", replicas);
        }
        if let Some(max_memory) = self.max_memory {
            toml.set("max_memory", Field::bytes(max_memory));
        }
        super::apps::set_directory(toml, &self.place, self.directory.as_deref(), findings);
        for (key, account) in [("user", &self.user), ("group", &self.group)] {
            if let Some(account) = account {
                toml.set(key, account.as_str());
            }
        }
        toml.set("stop_signal", "SIGINT");
        if let Some(stop_timeout) = self.stop_timeout {
            toml.set("stop_timeout", Field::millis(stop_timeout));
        }
        if !self.restart.is_empty() {
            toml.set("restart", Field::Table(self.restart.clone()));
        }
        if !self.env.is_empty() {
            toml.table(&[table, &["env"]].concat());
            for (name, value) in &self.env {
                toml.set(name, value.as_str());
            }
        }
    }
}

/// Where it runs: `cwd`, else where pm2 was started, which is taken to be the file's folder.
fn directory(fields: &mut Fields<'_>, folder: Option<&str>, findings: &mut Findings) -> Option<String> {
    let Some(cwd) = fields.text("cwd", findings).filter(|cwd| !cwd.is_empty()) else {
        return folder.map(str::to_owned);
    };
    if cwd.contains('\0') || cwd.len() > PATH_MAX {
        findings.problem(
            fields.at("cwd"),
            format_args!("expected a path of at most {PATH_MAX} bytes, without NUL"),
        );
    }
    if Path::new(cwd).is_absolute() {
        return Some(cwd.to_owned());
    }
    // Without `.`, which says nothing.
    let path: PathBuf = Path::new(folder?).join(cwd).components().collect();
    path.into_os_string().into_string().ok()
}

/// Its variables without the port's, and that port.
fn environment(fields: &mut Fields<'_>, findings: &mut Findings) -> (Vec<(String, String)>, Option<u16>) {
    let mut port = fields.take("port").map(|value| (fields.at("port"), value.clone()));
    let mut variables = Vec::new();
    if let Some(env) = fields.object("env", findings) {
        for name in env.keys(|_| true) {
            let place = env.at(name.escape_debug());
            let Some(value) = env.get(name) else { continue };
            let text = match value {
                Value::String(text) => text.clone(),
                // As pm2 does.
                other => other.to_string(),
            };
            if name == "PORT" {
                port = port.or_else(|| Some((place, value.clone())));
            } else if name.is_empty() || name.contains(['=', '\0']) || text.contains('\0') {
                findings.problem(place, "expected a variable without `=` in its name, and without NUL");
            } else {
                variables.push((name.to_owned(), text));
            }
        }
    }
    let Some((place, value)) = port else { return (variables, None) };
    let port = number(&value).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    findings.note(
        place,
        match port {
            Some(port) => format!(
                "clients are answered at {port}; the app gets another port in $PORT and has to listen there"
            ),
            None => format!("{value} is no port; left out"),
        },
    );
    (variables, port)
}

/// What is executed, as pm2 composes it.
fn command(
    fields: &mut Fields<'_>,
    script: &str,
    directory: Option<&str>,
    env: &mut Vec<(String, String)>,
    findings: &mut Findings,
) -> Field {
    let interpreter = fields.text("exec_interpreter", findings).filter(|name| !name.trim().is_empty());
    let node_args = words(fields, "node_args", findings);
    let args = words(fields, "args", findings);
    if script.contains('\0') || interpreter.is_some_and(|name| name.contains('\0')) {
        findings.problem(fields.at("script"), "expected a script and an interpreter without NUL");
    }
    if script.contains(' ') {
        // A whole command, which pm2 gives to a shell without `args`.
        return script.into();
    }
    let interpreter = match interpreter.unwrap_or_else(|| by_extension(script)) {
        "none" => None,
        name => match name.split_once('@') {
            Some((program, version)) => {
                let what = format!(
                    "{program} is the one in portokd's PATH; pm2 would take version {version} from nvm"
                );
                findings.note(fields.at("exec_interpreter"), what);
                Some(program)
            }
            None => Some(name),
        },
    };
    if interpreter.is_some_and(|name| name.contains("python"))
        && !env.iter().any(|(name, _)| name == "PYTHONUNBUFFERED")
    {
        env.push(("PYTHONUNBUFFERED".to_owned(), "1".to_owned()));
    }
    let words: Vec<String> = match interpreter {
        Some(program) => {
            [program.to_owned()].into_iter().chain(node_args).chain([script.to_owned()]).chain(args).collect()
        }
        None => [program(script, directory)].into_iter().chain(args).collect(),
    };
    words.into()
}

fn by_extension(script: &str) -> &'static str {
    let extension = Path::new(script).extension().and_then(|extension| extension.to_str());
    let found = INTERPRETERS.iter().find(|(known, _)| Some(*known) == extension);
    found.map_or("none", |(_, interpreter)| interpreter)
}

/// A program's path; without a slash it is looked for in PATH.
fn program(script: &str, directory: Option<&str>) -> String {
    let path = Path::new(script);
    match directory {
        Some(directory) if script.contains('/') && !path.is_absolute() => {
            let path: PathBuf = Path::new(directory).join(path).components().collect();
            path.to_string_lossy().into_owned()
        }
        _ => script.to_owned(),
    }
}

/// Words: a list of them, or a text that pm2 splits at spaces outside quotes.
fn words(fields: &mut Fields<'_>, key: &str, findings: &mut Findings) -> Vec<String> {
    let Some(value) = fields.take(key) else { return Vec::new() };
    let words = match value {
        Value::String(text) => Some(split(text)),
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            })
            .collect(),
        _ => None,
    };
    let words = words.filter(|words: &Vec<String>| words.iter().all(|word| !word.contains('\0')));
    if words.is_none() {
        findings.wrong(fields.at(key), value, "a string, or an array of strings, without NUL");
    }
    words.unwrap_or_default()
}

/// Splits at spaces. What stands between two quotes of a kind belongs together; quotes around a
/// whole word are taken off.
fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in text.chars() {
        match quote {
            None if c.is_whitespace() => {
                words.extend(Some(std::mem::take(&mut word)).filter(|w| !w.is_empty()))
            }
            Some(open) if c == open => {
                quote = None;
                word.push(c);
            }
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.push(c);
            }
            _ => word.push(c),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    let bare = |word: String| {
        let inner = ['"', '\''].into_iter().find_map(|quote| word.strip_prefix(quote)?.strip_suffix(quote));
        inner.map(str::to_owned).unwrap_or(word)
    };
    words.into_iter().map(bare).filter(|word| !word.trim().is_empty()).collect()
}

/// A user or a group, by name or number.
fn account(fields: &mut Fields<'_>, key: &str, findings: &mut Findings) -> Option<String> {
    let value = fields.take(key)?;
    let text = match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => number.as_u64().map(|number| number.to_string()),
        _ => None,
    };
    let fits = |text: &String| {
        (1..=256).contains(&text.len())
            && !text.starts_with('-')
            && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':' || c == '/')
    };
    let text = text.filter(fits);
    if text.is_none() {
        findings.wrong(fields.at(key), value, "the name or number of a user or group");
    }
    text
}

/// What happens after a crash.
fn restart(fields: &mut Fields<'_>, findings: &mut Findings) -> Vec<(&'static str, Field)> {
    /// The longest delay of pm2's growing ones.
    const GROWS_TO: u64 = 15_000;
    let mut restart = Vec::new();
    let fixed = fields.number("restart_delay", 0..=MILLIS_MAX, findings).filter(|millis| *millis > 0);
    let grows =
        fields.number("exp_backoff_restart_delay", 0..=MILLIS_MAX, findings).filter(|millis| *millis > 0);
    let delays = grows.map(|from| (from, from.max(GROWS_TO))).or(fixed.map(|delay| (delay, delay)));
    if let Some((from, to)) = delays {
        restart.push(("backoff", Field::millis(from)));
        restart.push(("max_backoff", Field::millis(to)));
    }
    if let Some(burst) = fields.number("max_restarts", 0..=1_000_000, findings).filter(|burst| *burst > 0) {
        restart.push(("burst", burst.min(1000).into()));
        restart.push(("give_up", true.into()));
    }
    restart
}

/// How many processes there are, where it is not one.
fn replicas(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<u64> {
    fields.skip("exec_mode");
    let instances = fields.take("instances")?;
    match number(instances) {
        Some(1) => None,
        Some(count) if (2..=Replicas::MOST.into()).contains(&count) => Some(count),
        _ => {
            let most = Replicas::MOST;
            let what =
                format_args!("one process is started; set replicas to the number of them, at most {most}");
            findings.note(fields.at("instances"), what);
            None
        }
    }
}

/// The size at which a process is replaced, in bytes: a number with K, M or G, or none of these.
fn max_memory(fields: &mut Fields<'_>, findings: &mut Findings) -> Option<u64> {
    let value = fields.take("max_memory_restart")?;
    let bytes = match value {
        Value::Null | Value::Bool(false) => return None,
        Value::String(text) if text.is_empty() => return None,
        Value::String(text) => bytes(text.trim()),
        other => other.as_u64(),
    };
    let bytes = bytes.filter(|bytes| LIMITS_OF_MEMORY.contains(bytes));
    if bytes.is_none() {
        let what = format_args!("{value} is no size that max_memory can have, such as \"512MiB\"; left out");
        findings.note(fields.at("max_memory_restart"), what);
    }
    bytes
}

/// A size as pm2 writes it.
fn bytes(text: &str) -> Option<u64> {
    let (count, unit) = match text.char_indices().next_back()? {
        (at, 'K') => (&text[..at], 1 << 10),
        (at, 'M') => (&text[..at], 1 << 20),
        (at, 'G') => (&text[..at], 1 << 30),
        _ => (text, 1_u64),
    };
    count.parse::<u64>().ok()?.checked_mul(unit)
}
