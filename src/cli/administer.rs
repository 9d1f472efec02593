//! The commands that administer this machine: from what was typed to [`crate::host`], and what it
//! reports to the screen.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::args::{AddArgs, AppArgs, Global, HostCommand, ImportFormat, InitArgs, RemoveArgs};
use super::call::{Call, Limits};
use super::client::Client;
use super::commands;
use super::directory::absolute_directory;
use super::failure::Failure;
use super::generate;
use super::loading::{self, Edit};
use super::locate::locate;
use super::render::{self, Screen};
use super::surroundings::Surroundings;
use super::way::Daemon;
use crate::host::{
    self, AddAppOptions, AddOptions, Answered, Asking, CheckVerdict, Daemons, Format, HostCode, HostFailure,
    HostReport, InitOptions, RemoveOptions, Serves, Source, Verb,
};
use crate::wire::{AppRow, InstanceStatus, Metrics, Status, exit};

/// How long a daemon may take to answer with its status, before it counts as one that does not
/// answer.
const STATUS_WITHIN: Duration = Duration::from_secs(5);

/// Carries out `command` and prints what it did. The caller tells of a failure.
pub(crate) async fn administer(
    global: &Global,
    command: HostCommand,
    around: &Surroundings,
    screen: &mut Screen,
) -> Result<u8, Failure> {
    let places = &around.places;
    let daemons = Asker { around };
    let mut code = exit::DONE;
    let report = match command {
        HostCommand::Init(options) => host::init(places, &options.into())?,
        HostCommand::Add(options) => match options.order()? {
            NewPlace::Instance(options) => host::add(places, &options)?,
            NewPlace::App(options) => {
                let mut report = host::add_app(places, &options)?;
                let app = (options.to.as_str(), options.name.as_str());
                code = loading::load(around, app, Edit::Written, &mut report).await;
                report
            }
        },
        HostCommand::Remove(options) => match options.name.split_once('/') {
            Some((instance, app)) => {
                let mut report = host::remove_app(places, instance, app, options.dry_run)?;
                if !options.dry_run {
                    code = loading::load(around, (instance, app), Edit::Removed, &mut report).await;
                }
                report
            }
            None => {
                let RemoveArgs { name, force, keep_state, dry_run } = &options;
                let (force, keep_state, dry_run) = (*force, *keep_state, *dry_run);
                let options = RemoveOptions { name, force, keep_state, dry_run };
                host::remove(places, &options, &daemons).await?
            }
        },
        HostCommand::Clean { force } => {
            let report = host::clean(places, force, &daemons).await?;
            if host::has_work(&report) {
                return Err(not_forced(global.json, &report, screen).into());
            }
            report
        }
        HostCommand::Start(instance) => host::service(places, Verb::Start, &instance.name).await?,
        HostCommand::Stop(instance) => host::service(places, Verb::Stop, &instance.name).await?,
        HostCommand::Restart(instance) => host::service(places, Verb::Restart, &instance.name).await?,
        HostCommand::Enable(toggle) => {
            host::service(places, Verb::Enable { now: toggle.now }, &toggle.name).await?
        }
        HostCommand::Disable(toggle) => {
            host::service(places, Verb::Disable { now: toggle.now }, &toggle.name).await?
        }
        HostCommand::List => return list(global.json, around, &daemons, screen).await,
        HostCommand::Doctor => return doctor(global.json, around, &daemons, screen).await,
        HostCommand::Import { format, file } => return import(global.json, format, &file, screen),
        HostCommand::Completions { shell } => {
            screen.bytes(&generate::completions(shell));
            return Ok(exit::DONE);
        }
        HostCommand::Man { folder } => generate::man(&folder)?,
    };
    if global.json {
        screen.value(&to_value(&report)?);
    } else {
        screen.data(&render::report(&report));
    }
    Ok(code)
}

async fn list(
    json: bool,
    around: &Surroundings,
    daemons: &Asker<'_>,
    screen: &mut Screen,
) -> Result<u8, Failure> {
    let listing = host::list(&around.places, daemons).await?;
    listing.notes.iter().for_each(|note| screen.note(note));
    if json {
        screen.value(&to_value(&listing.rows)?);
    } else {
        screen.data(&render::instances(&listing.rows));
    }
    Ok(exit::DONE)
}

async fn doctor(
    json: bool,
    around: &Surroundings,
    daemons: &Asker<'_>,
    screen: &mut Screen,
) -> Result<u8, Failure> {
    let checks = host::doctor(&around.places, daemons).await;
    let is_well = checks.iter().all(|check| check.verdict != CheckVerdict::Bad);
    if json {
        screen.value(&serde_json::json!({ "ok": is_well, "checks": to_value(&checks)? }));
    } else {
        screen.data(&render::checks(&checks));
    }
    Ok(if is_well { exit::DONE } else { exit::FAILED })
}

/// `import`. Notes go to standard error, so that the TOML alone can be redirected into a file.
fn import(json: bool, format: ImportFormat, file: &Path, screen: &mut Screen) -> Result<u8, Failure> {
    let imported = host::import(format.into(), &Source::read(file)?)?;
    if json {
        screen.value(&to_value(&imported)?);
        return Ok(exit::DONE);
    }
    screen.bytes(imported.toml.as_bytes());
    imported.notes.iter().for_each(|note| screen.note(&render::note(note)));
    Ok(exit::DONE)
}

/// `clean` without `--force`: shows what it would do, and fails because it was not done.
fn not_forced(json: bool, report: &HostReport, screen: &mut Screen) -> HostFailure {
    let mut causes = Vec::new();
    if json {
        causes.extend(report.steps.iter().map(|step| format!("{} {}", step.action, step.subject)));
    } else {
        screen.data(&render::report(report));
    }
    let hint = Some("portok clean --force does it".to_owned());
    HostFailure { code: HostCode::NotForced, message: "nothing was removed".into(), causes, hint }
}

fn to_value(data: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(data)
        .map_err(|error| Failure::Output { cause: format!("cannot write JSON: {error}") })
}

impl From<ImportFormat> for Format {
    fn from(typed: ImportFormat) -> Self {
        match typed {
            ImportFormat::Hipache => Self::Hipache,
            ImportFormat::Nfork => Self::Nfork,
            ImportFormat::Procfile => Self::Procfile,
            ImportFormat::Pm2 => Self::Pm2,
        }
    }
}

impl From<InitArgs> for InitOptions {
    fn from(typed: InitArgs) -> Self {
        let InitArgs { dry_run, user, force } = typed;
        Self { dry_run, user, force }
    }
}

/// What `add` makes.
enum NewPlace {
    Instance(AddOptions),
    /// An app of an instance that has several.
    App(AddAppOptions),
}

impl AddArgs {
    /// What was ordered.
    ///
    /// # Errors
    /// The options do not go together, or the directory is not UTF-8.
    fn order(self) -> Result<NewPlace, Failure> {
        let Self { name, port, targets, command, directory, health, toml, env, force, app } = self;
        let directory = directory.as_deref().map(absolute_directory).transpose()?;
        let AppArgs { to, hosts, paths, strip_prefix, listen, redirect } = app;
        let Some(to) = to else {
            let target = match &targets[..] {
                [] => None,
                [target] if target.ip().is_loopback() => Some(target.port()),
                _ => {
                    return Err(Failure::usage(
                        "an instance has one target, which is a port on 127.0.0.1",
                        "several targets, or one on another host, are for an app of an instance: --to INSTANCE",
                    ));
                }
            };
            let options = AddOptions { name, port, target, command, directory, health, toml, env, force };
            return Ok(NewPlace::Instance(options));
        };
        if command.is_none() && targets.is_empty() && redirect.is_none() {
            return Err(Failure::usage(
                format!("`{to}/{name}` has nothing to do"),
                "say what: --cmd \"node server.js\", --target ADDRESS or --redirect URL",
            ));
        }
        Ok(NewPlace::App(AddAppOptions {
            name,
            to,
            hosts,
            paths,
            strip_prefix,
            listen,
            command,
            directory,
            targets,
            redirect,
            health,
        }))
    }
}

/// Asks the daemons of this machine, found as every other command finds them.
struct Asker<'a> {
    around: &'a Surroundings,
}

impl Daemons for Asker<'_> {
    fn sockets(&self) -> Vec<PathBuf> {
        (self.around.sockets)()
    }

    fn ask_socket(&self, socket: &Path) -> Asking {
        let global = Global { socket: Some(socket.to_owned()), ..Global::default() };
        let daemon = locate(&global, self.around).ok();
        Box::pin(async move { answer_of(daemon?).await })
    }

    fn ask_instance(&self, name: &str, called: &str) -> Asking {
        let global = Global { instance: Some(name.to_owned()), ..Global::default() };
        let (daemon, called) = (locate(&global, self.around).ok(), called.to_owned());
        Box::pin(async move {
            let answered = answer_of(daemon?).await?;
            (answered.daemon.name == called).then_some(answered)
        })
    }
}

async fn answer_of(daemon: Daemon) -> Option<Answered> {
    timeout(STATUS_WITHIN, ask(Client::new(daemon, Limits::default()))).await.ok()?
}

/// Asks for the status, and where that needs the name of an app, for all apps and the daemon's own.
async fn ask(client: Client) -> Option<Answered> {
    match client.ask::<Status>(Call::get("status", "status")).await {
        Ok((status, _)) => {
            let daemon = InstanceStatus::of(&status);
            let serves = match commands::are_none(&client, &status).await {
                true => Serves::Several(Vec::new()),
                false => Serves::One(Box::new(status)),
            };
            Some(Answered { daemon, serves })
        }
        Err(failure) if failure.wants_an_app() => {
            let (apps, _) = client.ask::<Vec<AppRow>>(Call::get("apps", "apps")).await.ok()?;
            let (metrics, _) = client.ask::<Metrics>(Call::get("metrics", "metrics")).await.ok()?;
            Some(Answered { daemon: metrics.instance?, serves: Serves::Several(apps) })
        }
        Err(_) => None,
    }
}
