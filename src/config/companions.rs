//! `[app.processes]`: the companions of an app, each in a table with its name.
//!
//! A companion's table has keys of its own. They are read as the keys of `[app]` with the same
//! names are, and named by their full names in messages. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::raw::{Names, Values};
use super::read::Reader;
use super::show::{self, Secrets};
use super::values::{self, NAME_EXPECTED, is_instance_name};
use super::{CommandLine, StopSignal};

/// The most companions of an app.
pub(crate) const COMPANIONS_MOST: usize = 16;

/// The most processes of one companion.
const REPLICAS_MAX: u16 = 64;

/// The key whose table has the companions.
pub(super) const KEY: &str = "app.processes";

/// The keys of a companion, each with the key of an app that is read in the same way, and is no
/// secret or a secret likewise.
const KEYS: [(&str, &str); 7] = [
    ("command", "app.command"),
    ("replicas", "app.replicas"),
    ("env", "app.env"),
    ("directory", "app.directory"),
    ("stop_signal", "app.stop_signal"),
    ("stop_timeout", "app.stop_timeout"),
    ("start", START),
];

/// What is expected of the key's value.
const TABLES: &str = "a table of tables, such as [app.processes.worker] with a command";

const START: &str = "app.start";

const STARTS: &[(&str, CompanionStart)] =
    &[("after", CompanionStart::After), ("before", CompanionStart::Before)];

/// What the processes of the app itself are called, where its lines are asked for.
const APP_ITSELF: &str = "web";

/// What the steps of a deploy are called there.
const STEPS: [&str; 2] = ["before", "verify"];

/// Whether a companion can be called `name`.
pub(crate) fn is_companion_name(name: &str) -> bool {
    is_instance_name(name) && name != APP_ITSELF && !STEPS.contains(&name)
}

/// The companions of an app, by name.
pub type Companions = BTreeMap<String, Companion>;

/// A process of a release that gets no requests and has no port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Companion {
    /// What to run.
    pub command: CommandLine,
    /// How many processes of it run at a time.
    pub replicas: u16,
    /// Added to the environment of the app.
    pub env: BTreeMap<String, String>,
    /// Its working directory; resolved for each release, not here. `None`: the app's.
    pub directory: Option<PathBuf>,
    /// Sent to its process group first; `None`: what the app's gets.
    pub stop_signal: Option<StopSignal>,
    /// Between the stop signal and SIGKILL; `None`: as long as the app's has.
    pub stop_timeout: Option<Duration>,
    /// When it is started in a deploy.
    pub start: CompanionStart,
}

/// `start` of a companion: when it is started in a deploy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CompanionStart {
    /// After the switch, when those of the former release are gone.
    #[default]
    After,
    /// Before the candidate.
    Before,
}

/// Reads the companions of an app.
pub(super) fn read(r: &mut Reader<'_>, companions: &mut Companions) {
    let Some(tables) = r.read_entries(KEY, TABLES) else { return };
    if tables.len() > COMPANIONS_MOST {
        let (_, at, _) = tables[COMPANIONS_MOST];
        let called = r.called(KEY).into_owned();
        r.reject_called(at, &called, &format!("at most {COMPANIONS_MOST} processes, not {}", tables.len()));
        return;
    }
    *companions = BTreeMap::new();
    for (name, at, value) in tables {
        if !is_companion_name(name) {
            let called = r.called_in(KEY, name);
            let expected = match name {
                APP_ITSELF => "another name: `portok logs` calls the app's own processes web",
                name if STEPS.contains(&name) => {
                    "another name: `portok logs` calls a step of a deploy before or verify"
                }
                _ => &format!("{NAME_EXPECTED} as the name of a process"),
            };
            r.reject_called(at, &called, expected);
        } else if let Some(companion) = read_one(r, name, at, value) {
            companions.insert(name.to_owned(), companion);
        }
    }
}

/// Reads the companion whose table stands at `at`. `None` where it has no command.
fn read_one(r: &mut Reader<'_>, name: &str, at: usize, value: &Spanned<DeValue<'_>>) -> Option<Companion> {
    let called = r.called_in(KEY, name);
    let DeValue::Table(table) = value.get_ref() else {
        r.reject_called(at, &called, "a table, such as { command = \"node worker.js\" }");
        return None;
    };
    let mut values = Values::new();
    for (key, value) in table {
        match KEYS.iter().find(|(known, _)| known == key.get_ref()) {
            Some((_, as_of_app)) => drop(values.insert(as_of_app, value.clone())),
            None => r.unknown(
                key.span().start,
                &format!("{called}.{}", key.get_ref()),
                &nearest(&called, key.get_ref()),
            ),
        }
    }
    let mut own = r.within(Names::Table(&called), &values, at);
    let mut companion = Companion {
        command: CommandLine::Exec(Vec::new()),
        replicas: 1,
        env: BTreeMap::new(),
        directory: None,
        stop_signal: None,
        stop_timeout: None,
        start: CompanionStart::After,
    };
    if own.in_file("app.command") {
        own.set("app.command", values::command, &mut companion.command);
    } else {
        own.missing("a command");
    }
    own.set("app.replicas", values::integer(1, REPLICAS_MAX), &mut companion.replicas);
    companion.env = own.read_map("app.env", values::is_variable).into_iter().collect();
    own.set("app.directory", values::some(values::path), &mut companion.directory);
    own.set("app.stop_signal", values::some(values::signal), &mut companion.stop_signal);
    own.set("app.stop_timeout", values::some(values::duration(Duration::ZERO)), &mut companion.stop_timeout);
    own.set(START, values::choice(STARTS), &mut companion.start);
    r.take_over(own);
    Some(companion)
}

/// The key of a companion that was most likely meant by an unknown one.
fn nearest(called: &str, wrote: &str) -> String {
    let distance = |(known, _): &&(&str, &str)| strsim::damerau_levenshtein(wrote, known);
    let nearest = KEYS.iter().min_by_key(distance).map_or("", |(known, _)| known);
    format!("{called}.{nearest}")
}

/// The companions as TOML; `None` where there are none.
pub(super) fn show(companions: &Companions, secrets: Secrets) -> Option<String> {
    let shown = |(name, companion): (&String, &Companion)| {
        format!("{} = {{ {} }}", name, show_one(companion, secrets))
    };
    let all: Vec<_> = companions.iter().map(shown).collect();
    (!all.is_empty()).then(|| format!("{{ {} }}", all.join(", ")))
}

/// What is said of a companion, but for what is the default.
fn show_one(companion: &Companion, secrets: Secrets) -> String {
    let Companion { command, replicas, env, directory, stop_signal, stop_timeout, start } = companion;
    let parts = [
        Some(format!("command = {}", show::command(command))),
        (*replicas != 1).then(|| format!("replicas = {replicas}")),
        (!env.is_empty()).then(|| format!("env = {}", show::table(env, secrets))),
        directory.as_ref().map(|directory| format!("directory = {}", show::path(directory))),
        stop_signal.map(|signal| format!("stop_signal = {}", show::string(signal.name))),
        stop_timeout.map(|time| format!("stop_timeout = {}", show::time(&time))),
        (*start != CompanionStart::After).then(|| format!("start = {}", show::word(STARTS)(start))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What they add to the fingerprint of a release.
pub(super) fn records(companions: &Companions) -> Vec<(&'static str, String)> {
    let mut records = Vec::new();
    for (name, companion) in companions {
        let Companion { command, replicas, env, directory, stop_signal, stop_timeout, start } = companion;
        records.push(("process", name.clone()));
        match command {
            CommandLine::Shell(text) => records.push(("process.command", text.clone())),
            CommandLine::Exec(words) => {
                records.extend(words.iter().map(|word| ("process.command.word", word.clone())));
            }
        }
        for (name, value) in env {
            records.extend([("process.env.name", name.clone()), ("process.env.value", value.clone())]);
        }
        let directory = directory.as_ref().map(|path| path.to_string_lossy().into_owned());
        let is_before = *start == CompanionStart::Before;
        let others = [
            ("process.replicas", (*replicas != 1).then(|| replicas.to_string())),
            ("process.directory", directory),
            ("process.stop_signal", stop_signal.map(|signal| signal.name.to_owned())),
            ("process.stop_timeout", stop_timeout.map(|time| time.as_millis().to_string())),
            ("process.start", is_before.then(|| "before".to_owned())),
        ];
        records.extend(others.into_iter().filter_map(|(name, value)| Some((name, value?))));
    }
    records
}

#[cfg(test)]
mod tests {
    use super::super::tests::Case;
    use super::super::{AppChange, app_change, app_fingerprint};
    use super::*;

    const APP: &str = "[app]\ncommand = \"node a.js\"\n";
    const WORKER: &str = "[app.processes.worker]\ncommand = \"node worker.js\"\n";

    #[test]
    fn what_is_said_of_a_companion_is_read_and_shown_again() {
        let text = format!(
            "{APP}{WORKER}replicas = 3\nenv = {{ QUEUE = \"mail\" }}\ndirectory = \"/srv\"\n\
             stop_signal = \"INT\"\nstop_timeout = \"2m\"\nstart = \"before\"\n\
             [app.processes.clock]\ncommand = [\"node\", \"clock.js\"]\n"
        );
        let config = Case::comparable(&text);
        let [clock, worker] = &config.app.app.processes.values().collect::<Vec<_>>()[..] else {
            panic!("{:?}", config.app.app.processes)
        };
        assert_eq!((clock.replicas, clock.start), (1, CompanionStart::After));
        assert_eq!(worker.command, CommandLine::Shell("node worker.js".into()));
        assert_eq!((worker.replicas, worker.start), (3, CompanionStart::Before));
        assert_eq!(worker.stop_signal.map(|signal| signal.name), Some("SIGINT"));
        assert_eq!(worker.stop_timeout, Some(Duration::from_secs(120)));
        let again = show(&config.app.app.processes, Secrets::Shown).unwrap();
        let again = Case::comparable(&format!("{APP}processes = {again}\n"));
        assert_eq!(again.app.app, config.app.app);
    }

    #[test]
    fn secrets_of_a_companion_are_not_shown() {
        let config = Case::comparable(&format!("{APP}{WORKER}env = {{ API_TOKEN = \"hunter2\" }}\n"));
        let shown = config.effective_toml();
        assert!(shown.contains("worker = { command") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_and_what_was_expected() {
        let many: String =
            (0..=COMPANIONS_MOST).map(|n| format!("[app.processes.p{n}]\ncommand = \"x\"\n")).collect();
        for (lines, said) in [
            ("[app]\nprocesses = 5\n", "app.processes = ***: expected a table of tables"),
            ("[app.processes]\nworker = \"x\"\n", "4:1: app.processes.worker: expected a table, such as"),
            ("[app.processes.worker]\nreplicas = 2\n", "3:16: app.processes.worker: expected a command"),
            ("[app.processes.worker]\ncomand = \"x\"\n", "did you mean `app.processes.worker.command`?"),
            ("[app.processes.\"a b\"]\ncommand = \"x\"\n", "app.processes.a b: expected 1 to 64 letters"),
            (
                "[app.processes.web]\ncommand = \"x\"\n",
                "app.processes.web: expected another name: `portok logs`",
            ),
            (
                "[app.processes.w]\ncommand = \"x\"\nreplicas = 65\n",
                "w.replicas = 65: expected a whole number",
            ),
            (
                "[app.processes.w]\ncommand = \"x\"\nstart = \"now\"\n",
                "w.start = \"now\": expected \"after\" or",
            ),
            (
                "[app.processes.w]\ncommand = \"x\"\nenv.API_KEY = 7\n",
                "w.env.API_KEY = ***: expected a string",
            ),
            (&many, "expected at most 16 processes, not 17"),
        ] {
            let text = if lines.starts_with("[app]") { lines.to_owned() } else { format!("{APP}{lines}") };
            let problems = Case::file(&text).problems();
            assert!(problems.iter().any(|problem| problem.contains(said)), "{said}: {problems:?}");
        }
    }

    #[test]
    fn whatever_is_said_of_a_companion_makes_another_release() {
        let mut seen = vec![app_fingerprint(&Case::comparable(APP).app.app)];
        for lines in [
            "",
            "replicas = 2",
            "env = { A = \"b\" }",
            "directory = \"/srv\"",
            "stop_signal = \"INT\"",
            "stop_timeout = \"2m\"",
            "start = \"before\"",
            "[app.processes.other]\ncommand = \"node worker.js\"",
        ] {
            let app = &Case::comparable(&format!("{APP}{WORKER}{lines}\n")).app.app;
            assert_eq!(app_change(seen.first().map(String::as_str), app), AppChange::Redeploy, "{lines}");
            seen.push(app_fingerprint(app));
        }
        let many = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), many);
    }
}
