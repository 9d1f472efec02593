//! What a release is: resolved once, durable, never changed.
//!
//! A crash restart and a rollback run exactly this again, even if the configuration, the
//! environment file or a symbolic link have changed by then.

mod companion;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::state::{Origin, Plan, ReleaseRef};
use crate::config::{self, AppConfig, CommandLine, DeployStrategy, Fnv, Limits};
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
    /// What runs once a deploy, before the candidate is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<CommandLine>,
    /// What runs once a deploy, against the candidate, before traffic moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<CommandLine>,
}

impl ReleaseSpec {
    /// About how many bytes of the record it takes.
    pub fn bytes(&self) -> usize {
        let words = |command: &CommandLine| match command {
            CommandLine::Shell(text) => text.len(),
            CommandLine::Exec(words) => words.iter().map(String::len).sum(),
        };
        let steps: usize = self.before.iter().chain(&self.verify).map(words).sum();
        let companions: usize = self.processes.values().map(CompanionSpec::bytes).sum();
        // The command is in the history's row once more.
        2 * words(&self.command)
            + steps
            + companions
            + self.env.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
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
    /// What its deploy does on its way.
    pub plan: Plan,
}

/// Makes a release of a request and the configuration. Blocking: it reads the environment file and
/// resolves the directory.
///
/// # Errors
/// `no_app` without any command; `bad_request` where the directory, the environment file or the
/// user cannot be used, or the app cannot be deployed by this `strategy`.
pub fn prepare(
    request: DeployRequest,
    strategy: Option<DeployStrategy>,
    config: &AppConfig,
) -> Result<Prepared, ErrorBody> {
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
    let strategy = strategy.unwrap_or(config.deploy.strategy);
    if strategy == DeployStrategy::Recreate
        && let Some(why) = config::cannot_recreate(config)
    {
        return Err(refused(format!("the app cannot be deployed with strategy \"recreate\": {why}")));
    }
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
        before: app.before.clone(),
        verify: app.verify.clone(),
    };
    let plan = Plan {
        before: app.before.as_ref().map(|_| app.before_timeout),
        verify: app.verify.as_ref().map(|_| app.verify_timeout),
        recreate: strategy == DeployStrategy::Recreate,
    };
    let app_fingerprint = app_alone.then(|| config::app_fingerprint(app));
    Ok(Prepared { id: request.release.unwrap_or_else(fresh_id), spec, app_fingerprint, plan })
}

/// A managed release of this id.
pub fn managed(id: &str) -> ReleaseRef {
    ReleaseRef { id: id.to_owned(), origin: Origin::Managed }
}

/// The longest id of a release.
const LONGEST_ID: usize = 64;

/// The release that stands for an unmanaged app on `port`.
pub fn unmanaged(port: u16) -> ReleaseRef {
    ReleaseRef { id: format!("port-{port}"), origin: Origin::Unmanaged { port, others: Vec::new() } }
}

/// The release that stands for an unmanaged app on all of `ports`, in whatever order. `None`: there
/// are none.
pub fn unmanaged_on(ports: &[u16]) -> Option<ReleaseRef> {
    let ports: BTreeSet<u16> = ports.iter().copied().collect();
    let port = *ports.first()?;
    let others: Vec<u16> = ports.iter().skip(1).copied().collect();
    if others.is_empty() {
        return Some(unmanaged(port));
    }
    let texts: Vec<_> = ports.iter().map(u16::to_string).collect();
    let all = format!("{SEVERAL_PORTS}{}", texts.join("-"));
    let id = if all.len() <= LONGEST_ID {
        all
    } else {
        let mut hash = Fnv::new();
        hash.record("ports", &texts.join("-"));
        format!("{SEVERAL_PORTS}{port}-{}", hash.hex())
    };
    Some(ReleaseRef { id, origin: Origin::Unmanaged { port, others } })
}

/// How ids of several ports begin.
const SEVERAL_PORTS: &str = "ports-";

/// Whether an id has a form that [`unmanaged_on`] makes.
pub fn stands_for_ports(id: &str) -> bool {
    let of_several =
        |rest: &str| rest.contains('-') && rest.starts_with(|first: char| first.is_ascii_digit());
    unmanaged_port(id).is_some() || id.strip_prefix(SEVERAL_PORTS).is_some_and(of_several)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_stand_for_one_release_in_whatever_order() {
        let release = unmanaged_on(&[8082, 8081]).unwrap();
        assert_eq!((&*release.id, release.origin.ports()), ("ports-8081-8082", vec![8081, 8082]));
        assert_eq!(unmanaged_on(&[8081]), Some(unmanaged(8081)));
        assert_eq!(unmanaged_on(&[]), None);
        let many: Vec<u16> = (20_000..20_064).collect();
        let release = unmanaged_on(&many).unwrap();
        assert!(release.id.len() <= LONGEST_ID && stands_for_ports(&release.id), "{}", release.id);
        assert_ne!(Some(release), unmanaged_on(&many[..63]));
        assert!(stands_for_ports("port-1") && stands_for_ports("ports-1-2"));
        assert!(!stands_for_ports("ports-new") && !stands_for_ports("ports-1"));
    }

    #[test]
    fn a_record_of_one_port_keeps_its_bytes_and_of_several_an_older_daemon_reads_the_first() {
        let one = serde_json::to_string(&unmanaged(8081)).unwrap();
        assert_eq!(one, r#"{"id":"port-8081","origin":{"unmanaged":{"port":8081}}}"#);
        let several = serde_json::to_string(&unmanaged_on(&[8081, 8082]).unwrap()).unwrap();
        assert!(several.contains(r#""port":8081,"others":[8082]"#), "{several}");
    }
}
