//! `portok list`: every instance of this host with what is live.

use serde::Serialize;
use tokio::task::JoinSet;

use super::super::failure::Failure;
use super::Asker;
use super::instances::{self, Instance, Reading};
use super::places::Places;
use super::systemctl::{self, UnitState};
use super::unit::service_of;
use crate::wire::{Phase, Status};

/// One instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    /// Its name.
    pub(crate) name: String,
    /// Where it accepts requests; where it is to, while it does not run.
    pub(crate) listen: Option<String>,
    /// Where the app's life stands; null when its daemon does not answer.
    pub(crate) phase: Option<Phase>,
    /// The release that serves.
    pub(crate) live: Option<Live>,
    /// The daemon's process.
    pub(crate) daemon_pid: Option<u32>,
    /// Its version.
    pub(crate) version: Option<String>,
    /// What systemd says; null where there is none.
    pub(crate) unit: Option<Unit>,
    /// Its configuration files.
    pub(crate) files: Vec<String>,
    /// What is wrong with them.
    pub(crate) errors: Vec<String>,
}

/// The release that serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Live {
    pub(crate) release: String,
    pub(crate) port: Option<u16>,
    pub(crate) pid: Option<u32>,
}

/// What systemd says about an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Unit {
    /// `active`, `inactive`, `failed`…
    pub(crate) active: String,
    /// Whether it is started at boot.
    pub(crate) enabled: bool,
    /// Whether its daemon is gone, and its app is not.
    pub(crate) app_alone: bool,
}

/// All instances, and what could not be found out about them.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) rows: Vec<Row>,
    pub(crate) notes: Vec<String>,
}

/// Looks at every instance; the daemons are asked at once, and none for long.
///
/// # Errors
/// The folder of the configurations cannot be read.
pub(crate) async fn list(places: &Places, asker: &Asker<'_>) -> Result<Listing, Failure> {
    let instances = instances::all(places, Reading::Lenient)?;
    let mut listing = Listing::default();
    let units: Vec<_> = instances.iter().map(|instance| service_of(&instance.name)).collect();
    let states = systemctl::states(&units).unwrap_or_else(|trouble| {
        listing.notes.push(format!("nothing is known of the units: {}", trouble.describe()));
        Default::default()
    });
    let mut asking = JoinSet::new();
    for (n, instance) in instances.iter().enumerate() {
        let question = asker.question(&instance.name, instance.called());
        asking.spawn(async move { (n, question.await) });
    }
    let mut answers: Vec<Option<Status>> = vec![None; instances.len()];
    while let Some(answer) = asking.join_next().await {
        if let Ok((n, status)) = answer {
            answers[n] = status;
        }
    }
    for ((instance, unit), status) in instances.iter().zip(&units).zip(answers) {
        listing.rows.push(row(instance, states.get(unit), status));
    }
    Ok(listing)
}

fn row(instance: &Instance, unit: Option<&UnitState>, status: Option<Status>) -> Row {
    let (configured, errors) = match &instance.config {
        Ok(config) => (Some(config.listen.to_string()), Vec::new()),
        Err(errors) => (None, errors.problems.clone()),
    };
    let mut row = Row {
        name: instance.name.clone(),
        listen: configured,
        unit: unit.map(|state| Unit {
            active: state.active.clone(),
            enabled: state.is_enabled(),
            app_alone: state.has_left_its_app(),
        }),
        files: instance.files.iter().map(|file| file.display().to_string()).collect(),
        errors,
        ..Row::default()
    };
    if let Some(status) = status {
        row.errors.extend(status.config.error);
        row.listen = Some(status.listen);
        row.phase = Some(status.phase);
        row.daemon_pid = Some(status.pid);
        row.version = Some(status.version);
        row.live = status.live.map(|live| Live { release: live.release, port: live.port, pid: live.pid });
    }
    row
}
