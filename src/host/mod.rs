//! The commands that concern this host: folders, units, instances, and whether all is well.
//!
//! Nothing here is kept between two commands: files, systemd and the daemons are asked anew each time. What is to be
//! done is decided by pure functions (`init::plan`, `ports::choose`, `unit`); the drivers around them
//! touch the system. A command that ends early leaves whole files or none; it may be repeated.
//!
//! - `args`: what may be typed; `places`: the folders; `files`: making and removing files that nobody else can slip in;
//! - `unit`: the texts of the units; `installed`: what is there of them; `systemctl`: asking systemd;
//! - `instances`: every instance's files; `ports`: which port a new one gets;
//! - `harden`: the drop-in of a unit whose daemon starts no app; `named`: what a configuration names and has to be there;
//! - `init`, `add`, `remove`, `service`, `list`, `journal`, `doctor`: the commands; `report`: what they did;
//! - `generate`: completions and man pages.
//!
//! The one ordering that matters: a daemon is ended before its files go, and a secret is written before what names it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use crate::cli::args::Global;
use crate::cli::client::{Call, Client, Limits};
use crate::cli::connect::describe_io;
use crate::cli::failure::{Failure, HostCode};
use crate::cli::locate::{Daemon, Surroundings, locate};
use crate::cli::render::{self, Screen};
use crate::wire::{Status, exit};

mod add;
pub(crate) mod args;
mod doctor;
mod files;
mod generate;
mod harden;
mod init;
mod installed;
mod instances;
mod journal;
mod list;
mod named;
mod places;
mod ports;
mod remove;
mod report;
mod service;
mod systemctl;
mod unit;

use args::HostCommand;
pub(crate) use doctor::{Check, Verdict};
pub(crate) use journal::{Journal, Line, Source};
pub(crate) use list::Row;
pub(crate) use places::Places;
pub(crate) use report::Report;
use service::Verb;

/// How long a daemon may take to say how it is, before the answer is that it says nothing.
const STATUS_WITHIN: Duration = Duration::from_secs(5);

/// Does what `command` says and prints it; a failure is the caller's to tell.
pub(crate) async fn carry_out(
    global: &Global,
    command: HostCommand,
    places: &Places,
    around: &Surroundings,
    screen: &mut Screen,
) -> Result<u8, Failure> {
    let asker = Asker { around };
    let report = match command {
        HostCommand::Init(options) => init::init(places, &options)?,
        HostCommand::Add(options) => add::add(places, &options)?,
        HostCommand::Remove(options) => remove::remove(places, &options, &asker).await?,
        HostCommand::Clean { force } => {
            let report = remove::clean(places, force, &asker).await?;
            if remove::has_work(&report) {
                return Err(not_forced(global.json, &report, screen));
            }
            report
        }
        HostCommand::Start(instance) => service::service(places, Verb::Start, &instance.name).await?,
        HostCommand::Stop(instance) => service::service(places, Verb::Stop, &instance.name).await?,
        HostCommand::Restart(instance) => service::service(places, Verb::Restart, &instance.name).await?,
        HostCommand::Enable(toggle) => {
            service::service(places, Verb::Enable { now: toggle.now }, &toggle.name).await?
        }
        HostCommand::Disable(toggle) => {
            service::service(places, Verb::Disable { now: toggle.now }, &toggle.name).await?
        }
        HostCommand::List => {
            let listing = list::list(places, &asker).await?;
            listing.notes.iter().for_each(|note| screen.note(note));
            if global.json {
                screen.value(&to_value(&listing.rows)?);
            } else {
                screen.data(&render::instances(&listing.rows));
            }
            return Ok(exit::DONE);
        }
        HostCommand::Doctor => {
            let checks = doctor::doctor(places, &asker).await;
            let is_well = checks.iter().all(|check| check.verdict != Verdict::Bad);
            if global.json {
                screen.value(&serde_json::json!({ "ok": is_well, "checks": to_value(&checks)? }));
            } else {
                screen.data(&render::checks(&checks));
            }
            return Ok(if is_well { exit::DONE } else { exit::FAILED });
        }
        HostCommand::Completions { shell } => {
            screen.bytes(&generate::completions(shell));
            return Ok(exit::DONE);
        }
        HostCommand::Man { folder } => generate::man(&folder)?,
    };
    show_report(global.json, &report, screen)?;
    Ok(exit::DONE)
}

/// `clean` without `--force`: what it would do is told, and that it was not done.
fn not_forced(json: bool, report: &Report, screen: &mut Screen) -> Failure {
    let mut causes = Vec::new();
    if json {
        causes.extend(report.steps.iter().map(|step| format!("{} {}", step.action, step.subject)));
    } else {
        screen.data(&render::report(report));
    }
    let hint = Some("portok clean --force does it".to_owned());
    Failure::Host { code: HostCode::NotForced, message: "nothing was removed".into(), causes, hint }
}

fn show_report(json: bool, report: &Report, screen: &mut Screen) -> Result<(), Failure> {
    if json {
        screen.value(&to_value(report)?);
    } else {
        screen.data(&render::report(report));
    }
    Ok(())
}

fn to_value(data: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(data)
        .map_err(|error| Failure::Output { cause: format!("cannot write JSON: {error}") })
}

/// Asks the daemons of this host how they are.
pub(crate) struct Asker<'a> {
    around: &'a Surroundings,
}

impl Asker<'_> {
    /// The admin sockets that lie at their usual places.
    pub(crate) fn sockets(&self) -> Vec<PathBuf> {
        (self.around.sockets)()
    }

    /// The status of the daemon behind `socket`, whoever that is.
    pub(crate) fn question_at(&self, socket: &Path) -> impl Future<Output = Option<Status>> + Send + use<> {
        let global = Global { socket: Some(socket.to_owned()), ..Global::default() };
        let daemon = locate(&global, self.around).ok();
        async move { status_of(daemon?).await }
    }

    /// The status of the instance `name`, whose daemon calls itself `called`; `None` when it does not answer. Another
    /// daemon that answers in its place does not count.
    pub(crate) fn question(
        &self,
        name: &str,
        called: &str,
    ) -> impl Future<Output = Option<Status>> + Send + use<> {
        let global = Global { instance: Some(name.to_owned()), ..Global::default() };
        let (daemon, called) = (locate(&global, self.around).ok(), called.to_owned());
        async move {
            let status = status_of(daemon?).await?;
            (status.instance == called).then_some(status)
        }
    }
}

async fn status_of(daemon: Daemon) -> Option<Status> {
    let client = Client::new(daemon, Limits::default());
    let asking = client.ask::<Status>(Call::get("status", "status"));
    let (status, _) = timeout(STATUS_WITHIN, asking).await.ok()?.ok()?;
    Some(status)
}

/// The portokd beside this portok: the two are installed together.
fn portokd_beside() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().map_err(|error| {
        let message = format!("cannot find out where this portok lies: {}", describe_io(&error));
        Failure::host(HostCode::Failed, message, "is /proc mounted?")
    })?;
    let portokd = own.with_file_name("portokd");
    if portokd.is_file() {
        return Ok(portokd);
    }
    let message = format!("there is no portokd beside {}", own.display());
    Err(Failure::host(HostCode::Failed, message, "install both programs into one folder"))
}
