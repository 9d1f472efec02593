//! The commands that administer this machine: from what was typed to [`crate::host`], and what it
//! reports to the screen.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::args::{AddArgs, Global, HostCommand, ImportFormat, InitArgs};
use super::call::{Call, Limits};
use super::client::Client;
use super::directory::absolute_directory;
use super::failure::Failure;
use super::generate;
use super::locate::locate;
use super::render::{self, Screen};
use super::surroundings::Surroundings;
use super::way::Daemon;
use crate::host::{
    self, AddOptions, CheckVerdict, Daemons, Format, HostCode, HostFailure, HostReport, InitOptions,
    RemoveOptions, Source, StatusAnswer, Verb,
};
use crate::wire::{Status, exit};

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
    let report = match command {
        HostCommand::Init(options) => host::init(places, &options.into())?,
        HostCommand::Add(options) => host::add(places, &options.try_into()?)?,
        HostCommand::Remove(options) => {
            let options =
                RemoveOptions { name: &options.name, force: options.force, keep_state: options.keep_state };
            host::remove(places, &options, &daemons).await?
        }
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
    Ok(exit::DONE)
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

impl TryFrom<AddArgs> for AddOptions {
    type Error = Failure;

    fn try_from(typed: AddArgs) -> Result<Self, Failure> {
        let AddArgs { name, port, target, command, directory, health, toml, env, force } = typed;
        let directory = directory.as_deref().map(absolute_directory).transpose()?;
        Ok(Self { name, port, target, command, directory, health, toml, env, force })
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

    fn ask_socket(&self, socket: &Path) -> StatusAnswer {
        let global = Global { socket: Some(socket.to_owned()), ..Global::default() };
        let daemon = locate(&global, self.around).ok();
        Box::pin(async move { status_of(daemon?).await })
    }

    fn ask_instance(&self, name: &str, called: &str) -> StatusAnswer {
        let global = Global { instance: Some(name.to_owned()), ..Global::default() };
        let (daemon, called) = (locate(&global, self.around).ok(), called.to_owned());
        Box::pin(async move {
            let status = status_of(daemon?).await?;
            (status.instance == called).then_some(status)
        })
    }
}

async fn status_of(daemon: Daemon) -> Option<Status> {
    let client = Client::new(daemon, Limits::default());
    let asking = client.ask::<Status>(Call::get("status", "status"));
    let (status, _) = timeout(STATUS_WITHIN, asking).await.ok()?.ok()?;
    Some(status)
}
