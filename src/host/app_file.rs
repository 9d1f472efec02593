//! The file of one app of an instance that has several: `portok add NAME --to INSTANCE` writes it,
//! `portok remove INSTANCE/NAME` removes it. The daemon, which watches the folder, does the rest;
//! the caller asks it to do so now.
//!
//! What is written is read before, in a folder of its own, as the daemon will read it: a file that
//! the daemon would refuse is never there.

use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::failure::{HostCode, HostFailure};
use super::files::{self, Existing, Readers};
use super::instances::{self, Instance, Reading};
use super::places::Places;
use super::report::HostReport;
use super::{installed, named, routes};
use crate::config::{AppConfig, Several};

/// What [`add_app`] is asked for.
#[derive(Debug, Default)]
pub(crate) struct AddAppOptions {
    /// The new app's name.
    pub(crate) name: String,
    /// Its instance.
    pub(crate) to: String,
    /// For which hosts; none: for every one, unless it has addresses of its own.
    pub(crate) hosts: Vec<String>,
    /// The beginnings of their paths; none: `/`.
    pub(crate) paths: Vec<String>,
    /// Take that beginning off before the app gets the path.
    pub(crate) strip_prefix: bool,
    /// Addresses of its own: addresses or ports.
    pub(crate) listen: Vec<String>,
    /// The command of a managed app, for `/bin/sh -c`.
    pub(crate) command: Option<String>,
    /// Where the command runs, as an absolute path.
    pub(crate) directory: Option<String>,
    /// Where an app runs that somebody else starts.
    pub(crate) targets: Vec<SocketAddr>,
    /// Where its clients are sent instead.
    pub(crate) redirect: Option<String>,
    /// The app's health path.
    pub(crate) health: Option<String>,
}

/// Writes the file of a new app.
///
/// # Errors
/// There is no such instance, it has one app only, it has an app of that name, another app has one
/// of the routes, the app is not valid, or its file cannot be written.
pub(crate) fn add_app(places: &Places, options: &AddAppOptions) -> Result<HostReport, HostFailure> {
    let AddAppOptions { name, to, .. } = options;
    if let Some(missing) =
        options.directory.as_ref().and_then(|path| named::directory("--dir", Path::new(path)))
    {
        return Err(not_added(options, HostCode::Usage, &missing.text, missing.hint));
    }
    let instance = instances::get(places, to, Reading::Lenient)?;
    let _alone = files::lock(&places.lock())?;
    let several = several_of(&instance)?;
    if let Some(place) = place_of(several, name) {
        let has_a_file = folder_of(places, to, several).join(format!("{name}.toml")).exists();
        let hint = match has_a_file {
            true => format!("change it there, or remove it first: portok remove {to}/{name}"),
            false => format!("change its table [apps.{name}] there; an edit is loaded at once"),
        };
        return Err(not_added(
            options,
            HostCode::Exists,
            &format!("`{to}` has such an app already{place}"),
            hint,
        ));
    }
    let folder = folder_of(places, to, several);
    let path = folder.join(format!("{name}.toml"));
    let text = app_text(options);
    let app = read_before(places, options, &path, &text)?;
    let others = several.apps.values().map(AsRef::as_ref);
    if let Some(clash) =
        routes::clashes(others.chain([&*app])).into_iter().find(|clash| clash.second.app == *name)
    {
        let routes::Clash { first, second } = clash;
        let overlaps = match first.route == second.route {
            true => String::new(),
            false => format!(", which overlaps {}", second.route),
        };
        let why = format!("`{}` ({}) has {} already{overlaps}", first.app, first.place, first.route);
        let hint = "give it another --host or --path, or take the route away from the other app";
        return Err(not_added(options, HostCode::InUse, &why, hint));
    }
    let mut report = HostReport::about(to);
    let is_new = folder.symlink_metadata().is_err();
    files::make_folder(&folder)?;
    if is_new {
        report.step("created", folder.display());
    }
    let user = installed::user(places)?;
    let readers = user.map_or(Readers::Owner, |user| Readers::Group(user.gid.as_raw()));
    files::write(&path, &text, readers, Existing::Keep)?;
    report.step("created", path.display());
    what_next(options, &mut report);
    Ok(report)
}

/// Removes the file of an app; with `dry_run` only says so.
///
/// # Errors
/// There is no such instance or app, it is in the instance's own file, or its file cannot be
/// removed.
pub(crate) fn remove_app(
    places: &Places,
    instance: &str,
    app: &str,
    dry_run: bool,
) -> Result<HostReport, HostFailure> {
    let found = instances::get(places, instance, Reading::Lenient)?;
    let _alone = files::lock(&places.lock())?;
    // A main file that is broken at the moment keeps nobody from removing an app's own file.
    let several = found.config.as_ref().ok().and_then(|config| config.apps.as_ref());
    let folder =
        several.map_or_else(|| places.apps(instance), |several| folder_of(places, instance, several));
    let path = folder.join(format!("{app}.toml"));
    let mut report = HostReport { dry_run, ..HostReport::about(instance) };
    if dry_run && path.symlink_metadata().is_ok() {
        report.step("would remove", path.display());
        let what = "a running daemon lets its requests finish, and stops what it has started of it";
        report.note(format!("{what}; its record would be kept aside"));
        return Ok(report);
    }
    if files::remove(&path)? {
        report.step("removed", path.display());
        report.note(format!(
            "the record of `{app}` is kept aside; an app that is added again under that name goes on from there"
        ));
        report.next(format!("portok apps {instance}"), "the apps that are left");
        return Ok(report);
    }
    let several = several_of(&found)?;
    if let Some(host) = app.strip_prefix("redis:") {
        return Err(HostFailure::new(
            HostCode::Usage,
            format!("`{instance}/{app}` has no file: it is the list `frontend:{host}` in Redis"),
            "remove that list in Redis, and the app goes within `redis.refresh`",
        ));
    }
    match place_of(several, app) {
        Some(place) => Err(HostFailure::new(
            HostCode::Usage,
            format!("`{instance}/{app}` has no file of its own{place}"),
            format!("remove its table [apps.{app}]; the daemon loads the edit by itself"),
        )),
        None => Err(HostFailure::new(
            HostCode::NotFound,
            format!("`{instance}` has no app `{app}`: there is no {}", path.display()),
            format!("portok apps {instance} shows all"),
        )),
    }
}

/// The apps of an instance that has several.
fn several_of(instance: &Instance) -> Result<&Several, HostFailure> {
    let name = &instance.name;
    let config = instance.config.as_ref().map_err(|errors| HostFailure {
        code: HostCode::Invalid,
        message: format!("the configuration of `{name}` is not valid"),
        causes: errors.problems.clone(),
        hint: Some(format!("mend it first: portokd --check --instance {name}")),
    })?;
    config.apps.as_ref().ok_or_else(|| {
        let why = if config.app.app.command.is_some() || config.app.app.target.is_some() {
            "`[app]` with the table `[apps.NAME]`"
        } else {
            "nothing with an empty table `[apps]`"
        };
        HostFailure::new(
            HostCode::Usage,
            format!("`{name}` has one app, not several: {}", instance.file_names()),
            format!("replace {why} in {name}.toml, then: portok restart {name}"),
        )
    })
}

/// Where an app is configured, behind a comma; `None` if it is not.
fn place_of(several: &Several, app: &str) -> Option<String> {
    match (several.apps.get(app), several.refused.get(app)) {
        (Some(app), _) if !app.place.is_empty() => Some(format!(": {}", app.place)),
        (None, None) => None,
        _ => Some(String::new()),
    }
}

fn folder_of(places: &Places, instance: &str, several: &Several) -> PathBuf {
    several.folder.clone().unwrap_or_else(|| places.apps(instance))
}

fn not_added(options: &AddAppOptions, code: HostCode, why: &str, hint: impl Into<String>) -> HostFailure {
    HostFailure::new(code, format!("`{}/{}` was not added: {why}", options.to, options.name), hint)
}

/// Reads `text` as the daemon will read it at `path`, beside a copy of the instance's own files.
fn read_before(
    places: &Places,
    options: &AddAppOptions,
    path: &Path,
    text: &str,
) -> Result<Arc<AppConfig>, HostFailure> {
    let AddAppOptions { name, to, .. } = options;
    let rehearsal = Rehearsal::new()?;
    let aside = Places { config: rehearsal.0.clone(), ..places.clone() };
    for ending in ["toml", "env", "token"] {
        if let Ok(Some(text)) = files::read(&places.file(to, ending)) {
            files::write(&aside.file(to, ending), &text, Readers::Owner, Existing::Keep)?;
        }
    }
    files::make_folder(&aside.apps(to))?;
    let there = aside.apps(to).join(format!("{name}.toml"));
    files::write(&there, text, Readers::Owner, Existing::Keep)?;
    let mut read = instances::get(&aside, to, Reading::Lenient)?;
    // Problems name places in the rehearsal, of the other apps too.
    let shown = |problem: &str| {
        let problem = problem.replace(&there.display().to_string(), &path.display().to_string());
        problem.replace(&aside.config.display().to_string(), &places.config.display().to_string())
    };
    let invalid = |problems: Vec<String>| HostFailure {
        causes: problems.iter().map(|problem| shown(problem)).collect(),
        ..not_added(options, HostCode::Invalid, "it is not valid", "see portok help add")
    };
    let several = match &mut read.config {
        Ok(config) => config.apps.take().unwrap_or_default(),
        Err(errors) => return Err(invalid(errors.problems.clone())),
    };
    if let Some(why) = several.refused.get(name) {
        return Err(invalid(why.lines().map(str::to_owned).collect()));
    }
    several.apps.get(name).cloned().ok_or_else(|| invalid(vec!["it would not be read".to_owned()]))
}

/// A folder in which a configuration is tried out. It goes with this value.
struct Rehearsal(PathBuf);

impl Rehearsal {
    fn new() -> Result<Self, HostFailure> {
        let folder = std::env::temp_dir();
        let failed = |error: &std::io::Error| files::failed("make a folder in", &folder, error);
        let random = files::random_hex(8).map_err(|error| failed(&error))?;
        let path = folder.join(format!("portok-add.{random}"));
        DirBuilder::new().mode(0o700).create(&path).map_err(|error| failed(&error))?;
        Ok(Self(path))
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        drop(files::remove(&self.0));
    }
}

fn what_next(options: &AddAppOptions, report: &mut HostReport) {
    let AddAppOptions { name, to, .. } = options;
    if options.command.is_some() {
        let health = options.health.as_deref().unwrap_or("/health");
        report.note(format!(
            "the app has to listen on 127.0.0.1, on the port in $PORT, and to answer {health} with 2xx (another path: \
             --health)"
        ));
    }
    report.next(format!("portok status {to}/{name} --wait 60s"), "wait until it is healthy");
    report.next(format!("portok apps {to}"), "look at all of them");
    if options.command.is_some() {
        report.next(format!("portok deploy --instance {to}/{name}"), "release the next version");
    }
}

fn app_text(options: &AddAppOptions) -> String {
    let AddAppOptions { name, to, .. } = options;
    let string = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let list = |texts: &[String]| {
        format!("[{}]", texts.iter().map(|text| string(text)).collect::<Vec<_>>().join(", "))
    };
    let mut text = format!(
        "# The app \"{name}\" of the instance \"{to}\", written by `portok add`. An edit is loaded at once.\n\
         # Its keys are those of a table [apps.{name}]; `portokd --check --instance {to}` shows them with their values.\n\n"
    );
    let mut set = |key: &str, value: String| _ = writeln!(text, "{key} = {value}");
    if !options.hosts.is_empty() {
        set("hosts", list(&options.hosts));
    }
    if !options.paths.is_empty() {
        set("paths", list(&options.paths));
    }
    if options.strip_prefix {
        set("strip_prefix", "true".to_owned());
    }
    if !options.listen.is_empty() {
        let listen = options
            .listen
            .iter()
            .map(|at| at.parse::<u16>().map_or_else(|_| string(at), |port| port.to_string()));
        set("listen", format!("[{}]", listen.collect::<Vec<_>>().join(", ")));
    }
    if let Some(command) = &options.command {
        set("command", string(command));
    }
    if let Some(directory) = &options.directory {
        set("directory", string(directory));
    }
    if !options.targets.is_empty() {
        set("targets", list(&options.targets.iter().map(ToString::to_string).collect::<Vec<_>>()));
    }
    if let Some(redirect) = &options.redirect {
        set("redirect", string(redirect));
    }
    if let Some(path) = &options.health {
        _ = write!(text, "\n[health]\npath = {}\n", string(path));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_what_was_given_and_nothing_else() {
        let least = AddAppOptions {
            name: "api".into(),
            to: "edge".into(),
            command: Some("node \"x.js\"".into()),
            ..AddAppOptions::default()
        };
        let keys = |options: &AddAppOptions| {
            let text = app_text(options);
            text.lines()
                .filter(|line| !line.starts_with('#') && !line.is_empty())
                .collect::<Vec<_>>()
                .join("\n")
        };
        assert_eq!(keys(&least), "command = 'node \"x.js\"'");
        let most = AddAppOptions {
            hosts: vec!["a.org".into(), "*.a.org".into()],
            paths: vec!["/v1".into()],
            strip_prefix: true,
            listen: vec!["9080".into(), "127.0.0.1:9081".into()],
            targets: vec!["192.168.0.42:80".parse().unwrap()],
            health: Some("/up".into()),
            command: None,
            ..least
        };
        let expected = "\
hosts = [\"a.org\", \"*.a.org\"]
paths = [\"/v1\"]
strip_prefix = true
listen = [9080, \"127.0.0.1:9081\"]
targets = [\"192.168.0.42:80\"]
[health]
path = \"/up\"";
        assert_eq!(keys(&most), expected);
        let table: toml::Table = app_text(&most).parse().unwrap();
        assert_eq!(table["health"]["path"].as_str(), Some("/up"));
    }

    /// A machine with the instance `edge`, whose main file has `main` in it.
    fn machine(main: &str) -> (tempfile::TempDir, Places) {
        let folder = tempfile::tempdir().unwrap();
        let places = Places::from(|_| Some(folder.path().to_owned()));
        files::write(&places.file("edge", "toml"), main, Readers::Owner, Existing::Keep).unwrap();
        (folder, places)
    }

    fn shop() -> AddAppOptions {
        AddAppOptions {
            name: "shop".into(),
            to: "edge".into(),
            hosts: vec!["shop.example.com".into()],
            command: Some("node shop.js".into()),
            ..AddAppOptions::default()
        }
    }

    /// The files in the folder of apps.
    fn apps(places: &Places) -> Vec<PathBuf> {
        files::entries(&places.apps("edge")).unwrap()
    }

    #[test]
    fn an_app_that_was_added_is_read_as_it_was_meant_and_removed_again() {
        let (_folder, places) =
            machine("listen = 3000\n[apps.api]\nhosts = [\"a.org\"]\ntargets = [\"127.0.0.1:1\"]\n");
        add_app(&places, &shop()).unwrap();
        let read = instances::get(&places, "edge", Reading::Strict).unwrap().config.unwrap().apps.unwrap();
        assert_eq!(read.refused, Default::default());
        let app = &read.apps["shop"];
        assert_eq!(app.app.command, Some(crate::config::CommandLine::Shell("node shop.js".into())));
        assert_eq!(app.routes.hosts, ["shop.example.com".parse().unwrap()]);
        assert_eq!(add_app(&places, &shop()).unwrap_err().code, HostCode::Exists);
        let own = AddAppOptions { name: "api".into(), ..shop() };
        assert_eq!(add_app(&places, &own).unwrap_err().code, HostCode::Exists, "in the main file");
        assert_eq!(remove_app(&places, "edge", "api", false).unwrap_err().code, HostCode::Usage);
        let told = remove_app(&places, "edge", "shop", true).unwrap();
        assert_eq!((told.dry_run, told.steps[0].action), (true, "would remove"));
        let real = remove_app(&places, "edge", "shop", false).unwrap();
        assert_eq!((real.dry_run, &real.steps[0].subject), (false, &told.steps[0].subject), "it was there");
        assert_eq!(apps(&places), [] as [PathBuf; 0]);
        assert_eq!(remove_app(&places, "edge", "shop", true).unwrap_err().code, HostCode::NotFound);
        assert_eq!(remove_app(&places, "none", "shop", false).unwrap_err().code, HostCode::NotFound);
    }

    #[test]
    fn an_app_that_the_daemon_would_refuse_is_not_written() {
        let (_folder, places) =
            machine("listen = 3000\n[apps.api]\nhosts = [\"a.org\"]\ntargets = [\"127.0.0.1:1\"]\n");
        let table = [
            (AddAppOptions { hosts: vec!["A.org".into()], ..shop() }, HostCode::InUse, "`api` ("),
            (
                AddAppOptions { redirect: Some("nonsense".into()), command: None, ..shop() },
                HostCode::Invalid,
                "redirect",
            ),
            (AddAppOptions { listen: vec!["nowhere".into()], ..shop() }, HostCode::Invalid, "listen"),
            (AddAppOptions { directory: Some("/nowhere".into()), ..shop() }, HostCode::Usage, "/nowhere"),
            (AddAppOptions { to: "none".into(), ..shop() }, HostCode::NotFound, "none"),
        ];
        for (options, code, told) in table {
            let failure = add_app(&places, &options).unwrap_err();
            assert_eq!(failure.code, code, "{failure:?}");
            let all = format!("{} {}", failure.message, failure.causes.join(" "));
            assert!(all.contains(told) && !all.contains("portok-add."), "{failure:?}");
            assert_eq!(apps(&places), [] as [PathBuf; 0], "{options:?}");
        }
    }

    #[test]
    fn an_instance_of_one_app_gets_no_second_one() {
        for main in ["listen = 3000\n[app]\ncommand = \"true\"\n", "listen = 3000\n"] {
            let (_folder, places) = machine(main);
            let failure = add_app(&places, &shop()).unwrap_err();
            assert_eq!(failure.code, HostCode::Usage, "{failure:?}");
            assert!(failure.hint.unwrap().contains("portok restart edge"));
            assert!(!places.apps("edge").exists());
        }
    }
}
