//! What a release is: resolved once, durable, never changed.
//!
//! A crash restart and a rollback run exactly this again, even if the configuration, the
//! environment file or a symbolic link have changed by then.

mod companion;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::state::{Origin, ReleaseRef};
use crate::config::{self, AppConfig, CommandLine, Limits};
use crate::supervisor;
use crate::wire::{Code, DeployRequest, ErrorBody};

pub use self::companion::CompanionSpec;

/// One immutable version of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseSpec {
    /// What to run.
    pub command: CommandLine,
    /// The working directory, resolved; `None`: the daemon's own.
    pub directory: Option<PathBuf>,
    /// Added to the base environment: the environment file, then `app.env`, then the request's.
    pub env: BTreeMap<String, String>,
    /// The user to become.
    pub user: Option<String>,
    /// The group to become.
    pub group: Option<String>,
    /// What it may use at most.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// The variable that carries the port.
    pub port_env: String,
    /// The health path, where the deploy named one.
    pub health_path: Option<String>,
    /// Its companions, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub processes: BTreeMap<String, CompanionSpec>,
}

impl ReleaseSpec {
    /// About how many bytes of the record it takes.
    pub fn bytes(&self) -> usize {
        let words = match &self.command {
            CommandLine::Shell(text) => text.len(),
            CommandLine::Exec(words) => words.iter().map(String::len).sum(),
        };
        let companions: usize = self.processes.values().map(CompanionSpec::bytes).sum();
        // The command is in the history's row once more.
        2 * words + companions + self.env.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }
}

/// A release that is ready to be deployed.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Its id, given or made.
    pub id: String,
    /// Its content.
    pub spec: ReleaseSpec,
    /// The fingerprint of `[app]`, where the release is `[app]` without additions.
    pub app_fingerprint: Option<String>,
}

/// Makes a release of a request and the configuration. Blocking: it reads the environment file and
/// resolves the directory.
///
/// # Errors
/// `no_app` without any command; `bad_request` where the directory, the environment file or the
/// user cannot be used.
pub fn prepare(request: DeployRequest, config: &AppConfig) -> Result<Prepared, ErrorBody> {
    let app = &config.app;
    let app_alone = request.command.is_none() && request.directory.is_none() && request.env.is_none();
    let Some(command) = request.command.or_else(|| app.command.clone()) else {
        return Err(ErrorBody::new(
            Code::NoApp,
            "No command",
            "the deploy names no command and the configuration has no [app] command",
        )
        .with_hint("pass one: portok deploy --cmd 'node app.js'"));
    };
    let refused = |message: String| ErrorBody::new(Code::BadRequest, "Bad request", message);
    let directory = request.directory.map(PathBuf::from).or_else(|| app.directory.clone());
    let directory = directory.as_deref().map(supervisor::resolve_directory).transpose().map_err(refused)?;
    let identity = supervisor::Ids::resolve(app.user.as_deref(), app.group.as_deref()).map_err(refused)?;
    let mut env = match app.env_file.as_deref() {
        Some(file) => {
            let user = identity.map(|ids| ids.uid);
            config::read_env_file(file, user, directory.as_deref()).map_err(refused)?
        }
        None => BTreeMap::new(),
    };
    env.extend(app.env.clone());
    env.extend(request.env.unwrap_or_default());
    let companion = |(name, companion): (&String, &config::Companion)| {
        let spec = CompanionSpec::prepare(companion).map_err(|error| format!("process `{name}`: {error}"))?;
        Ok((name.clone(), spec))
    };
    let processes = app.processes.iter().map(companion).collect::<Result<_, String>>().map_err(refused)?;
    let spec = ReleaseSpec {
        command,
        directory,
        env,
        user: app.user.clone(),
        group: app.group.clone(),
        limits: app.limits,
        port_env: app.port_env.clone(),
        health_path: request.health_path,
        processes,
    };
    let app_fingerprint = app_alone.then(|| config::app_fingerprint(app));
    Ok(Prepared { id: request.release.unwrap_or_else(fresh_id), spec, app_fingerprint })
}

/// A managed release of this id.
pub fn managed(id: &str) -> ReleaseRef {
    ReleaseRef { id: id.to_owned(), origin: Origin::Managed }
}

/// The release that stands for an unmanaged app on `port`.
pub fn unmanaged(port: u16) -> ReleaseRef {
    ReleaseRef { id: format!("port-{port}"), origin: Origin::Unmanaged { port } }
}

/// The port in an id of the form that [`unmanaged`] makes.
pub fn unmanaged_port(id: &str) -> Option<u16> {
    id.strip_prefix("port-")?.parse().ok()
}

/// An id that tells when it was made: `20261120-184455-3f9a`.
fn fresh_id() -> String {
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    let digits: String = now.chars().filter(char::is_ascii_digit).collect();
    let (date, time) = digits.split_at(digits.len().min(8));
    format!("{date}-{time}-{:04x}", random() & 0xffff)
}

/// The id of a move of traffic.
pub fn switch_id() -> String {
    format!("sw-{:012x}", random() & 0xffff_ffff_ffff)
}

/// Random enough to tell two things apart: std seeds its hasher from the kernel.
pub fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
