//! `portok list`: every instance of this machine with what is live, including those of `portok
//! run`.

use serde::Serialize;
use tokio::task::JoinSet;

use super::daemons::{Answered, Daemons, Serves};
use super::failure::HostFailure;
use super::instances::{self, Instance, Reading};
use super::places::Places;
use super::systemctl::{self, UnitState};
use super::unit::service_of;
use crate::wire::{AppRow, Phase, ReleaseStatus, Replicas};

/// One instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InstanceRow {
    /// Its name.
    pub(crate) name: String,
    /// The address on which it accepts requests; the configured one while it does not run.
    pub(crate) listen: Option<String>,
    /// The state of its app; null if its daemon does not answer, or has several.
    pub(crate) phase: Option<Phase>,
    /// The live release; null if it has several apps.
    pub(crate) live: Option<LiveRow>,
    /// How many of its replicas or targets get requests. Absent if it has one process, or several
    /// apps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replicas: Option<Replicas>,
    /// Its several apps. Absent if it has one, or does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) apps: Option<Vec<AppRow>>,
    /// The daemon's process id.
    pub(crate) daemon_pid: Option<u32>,
    /// The daemon's version.
    pub(crate) version: Option<String>,
    /// The state of its unit; null if systemd does not know it.
    pub(crate) unit: Option<UnitRow>,
    /// Its configuration files; empty if it has none, as under `portok run`.
    pub(crate) files: Vec<String>,
    /// The admin socket by which it was found, if no file leads to it.
    pub(crate) socket: Option<String>,
    /// What is wrong with its files.
    pub(crate) errors: Vec<String>,
    /// Whether only its daemon sees that: a file that is gone, or cannot be read by now.
    #[serde(skip)]
    pub(crate) unseen: bool,
}

/// The live release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct LiveRow {
    pub(crate) release: String,
    pub(crate) port: Option<u16>,
    pub(crate) pid: Option<u32>,
}

/// The state of an instance's unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UnitRow {
    /// `active`, `inactive`, `failed`…
    pub(crate) active: String,
    /// Whether it starts at boot.
    pub(crate) enabled: bool,
    /// Whether its daemon has ended and its app has not.
    pub(crate) app_alone: bool,
}

/// All instances, with notes about what could not be found out.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) rows: Vec<InstanceRow>,
    pub(crate) notes: Vec<String>,
}

/// Lists every instance. The daemons are asked concurrently, each for a limited time.
///
/// # Errors
/// The configuration folder cannot be read.
pub(crate) async fn list(places: &Places, daemons: &dyn Daemons) -> Result<Listing, HostFailure> {
    let instances = instances::all(places, Reading::Lenient)?;
    let mut listing = Listing::default();
    let units: Vec<_> = instances.iter().map(|instance| service_of(&instance.name)).collect();
    let states = systemctl::states(&units).unwrap_or_else(|trouble| {
        listing.notes.push(format!("nothing is known of the units: {}", trouble.describe()));
        Default::default()
    });
    let mut asking = JoinSet::new();
    for (n, instance) in instances.iter().enumerate() {
        let question = daemons.ask_instance(&instance.name, instance.called());
        asking.spawn(async move { (n, question.await) });
    }
    let mut answers: Vec<Option<Answered>> = vec![None; instances.len()];
    while let Some(answer) = asking.join_next().await {
        if let Ok((n, answered)) = answer {
            answers[n] = answered;
        }
    }
    for ((instance, unit), answered) in instances.iter().zip(&units).zip(answers) {
        listing.rows.push(row(instance, states.get(unit), answered));
    }
    let known: Vec<_> = listing.rows.iter().filter_map(|row| row.daemon_pid).collect();
    listing.rows.extend(
        without_files(daemons)
            .await
            .into_iter()
            .filter(|row| row.daemon_pid.is_some_and(|pid| !known.contains(&pid))),
    );
    Ok(listing)
}

/// The daemons of this machine that answer at the default sockets, by name.
async fn without_files(daemons: &dyn Daemons) -> Vec<InstanceRow> {
    let mut asking: JoinSet<Option<InstanceRow>> = JoinSet::new();
    for socket in daemons.sockets() {
        let question = daemons.ask_socket(&socket);
        asking.spawn(async move {
            let answered = question.await?;
            let name = answered.daemon.name.clone();
            let mut row = InstanceRow { name, ..InstanceRow::default() };
            row.files.extend(answered.daemon.config.file.clone());
            row.socket = Some(socket.display().to_string()).filter(|_| row.files.is_empty());
            row.answered(answered);
            Some(row)
        });
    }
    let mut rows: Vec<_> = asking.join_all().await.into_iter().flatten().collect();
    rows.sort_by(|one, other| (&one.name, &one.socket).cmp(&(&other.name, &other.socket)));
    rows.dedup_by_key(|row| row.daemon_pid);
    rows
}

impl InstanceRow {
    /// Takes over what the daemon answers.
    fn answered(&mut self, answered: Answered) {
        let Answered { daemon, serves } = answered;
        self.listen = Some(daemon.listen);
        self.daemon_pid = Some(daemon.pid);
        self.version = Some(daemon.version);
        // The daemon has read the same files, so its error replaces those found here.
        if let Some(error) = daemon.config.error {
            self.unseen = self.errors.is_empty();
            self.errors = error.lines().map(str::to_owned).collect();
        }
        match serves {
            Serves::One(status) => {
                self.phase = Some(status.phase);
                self.replicas = status.replicas;
                self.live = status.live.map(|live| {
                    let ReleaseStatus { release, port, pid, .. } = live;
                    LiveRow { release, port, pid }
                });
            }
            // Each has its own state, and errors of its own.
            Serves::Several(apps) => self.apps = Some(apps),
        }
    }
}

fn row(instance: &Instance, unit: Option<&UnitState>, answered: Option<Answered>) -> InstanceRow {
    let (configured, errors) = match &instance.config {
        Ok(config) => (config.listen.first().map(ToString::to_string), Vec::new()),
        Err(errors) => (None, errors.problems.clone()),
    };
    let mut row = InstanceRow {
        name: instance.name.clone(),
        listen: configured,
        unit: unit.map(|state| UnitRow {
            active: state.active.clone(),
            enabled: state.is_enabled(),
            app_alone: state.has_left_its_app(),
        }),
        files: instance.files.iter().map(|file| file.display().to_string()).collect(),
        errors,
        ..InstanceRow::default()
    };
    if let Some(answered) = answered {
        row.answered(answered);
    }
    row
}
