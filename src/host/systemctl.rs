//! Talks to systemd through the `systemctl` found in `PATH`, and explains its failures.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::failure::{HostCode, HostFailure};
use super::report::HostReport;
use crate::plain::describe_io;

/// How long an app without a daemon may take to end before it is killed: the default of
/// `app.stop_timeout`.
const LEFTOVERS_WITHIN: Duration = Duration::from_secs(10);

/// How long to wait for processes that end by themselves once their daemon has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The pattern of the scopes that portokd makes for apps with limits.
const SCOPES: &str = "portok-*.scope";

/// How long what was killed may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// The pause between two looks at the processes that are left.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Why systemd did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// There is no `systemctl`.
    Missing,
    /// There is one, but systemd does not run this machine.
    NotRunning,
    /// It refused or failed. The lines are its own words.
    Failed(Vec<String>),
}

/// The state of one unit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct UnitState {
    /// `loaded`, `not-found`, `masked`…
    pub(crate) load: String,
    /// `active`, `inactive`, `failed`…
    pub(crate) active: String,
    /// `enabled`, `disabled`; empty if systemd says nothing.
    pub(crate) file_state: String,
    /// Whether any process is in it.
    pub(crate) has_processes: bool,
    /// The scopes of its app, if the app has limits: separate units, each with processes.
    pub(crate) scopes: Vec<String>,
}

impl UnitState {
    /// Whether it runs, or is about to.
    pub(crate) fn is_running(&self) -> bool {
        !matches!(self.active.as_str(), "" | "inactive" | "failed")
    }

    /// Whether its daemon has ended and its app has not: the daemon was killed and could not start
    /// again.
    pub(crate) fn has_left_its_app(&self) -> bool {
        !self.is_running() && (self.has_processes || !self.scopes.is_empty())
    }

    /// Whether it starts at boot.
    pub(crate) fn is_enabled(&self) -> bool {
        self.file_state.starts_with("enabled")
    }
}

/// Runs `systemctl` to its end and returns what it printed.
pub(crate) fn systemctl(words: &[&str]) -> Result<String, Trouble> {
    let output = Command::new("systemctl")
        .args(words)
        .env("LC_ALL", "C")
        .env("SYSTEMD_COLORS", "0")
        .env("SYSTEMD_PAGER", "")
        // systemctl may ask for a password.
        .stdin(Stdio::inherit())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(Trouble::Missing),
        Err(error) => {
            return Err(Trouble::Failed(vec![format!("cannot run systemctl: {}", describe_io(&error))]));
        }
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(told(&String::from_utf8_lossy(&output.stderr), &output.status.to_string()))
}

/// The meaning of systemctl's error output.
fn told(stderr: &str, status: &str) -> Trouble {
    let not_running = ["not been booted with systemd", "Host is down"];
    if not_running.iter().any(|words| stderr.contains(words)) {
        return Trouble::NotRunning;
    }
    let mut causes: Vec<_> =
        stderr.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if causes.is_empty() {
        causes.push(format!("systemctl ended with {status} and said nothing"));
    }
    Trouble::Failed(causes)
}

/// The states of `units`, by name.
pub(crate) fn states(units: &[String]) -> Result<BTreeMap<String, UnitState>, Trouble> {
    if units.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut words =
        vec!["show", "--property=Id,LoadState,ActiveState,UnitFileState,ControlGroup,Before", "--"];
    words.extend(units.iter().map(String::as_str));
    words.push(SCOPES);
    Ok(parse_states(&systemctl(&words)?))
}

fn parse_states(text: &str) -> BTreeMap<String, UnitState> {
    let (mut states, mut scopes): (BTreeMap<String, UnitState>, _) = (BTreeMap::new(), Vec::new());
    for block in text.split("\n\n") {
        let pairs: BTreeMap<_, _> = block.lines().filter_map(|line| line.split_once('=')).collect();
        let get = |key| pairs.get(key).map(|value| (*value).to_owned()).unwrap_or_default();
        // The control group disappears with the last process.
        let has_processes = !get("ControlGroup").is_empty();
        let id = get("Id");
        if id.ends_with(".scope") {
            // A scope is ordered before its daemon's unit. Its name is ambiguous: the instance and
            // the release may both contain hyphens.
            let before = get("Before").split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            scopes.extend(has_processes.then_some((id, before)));
        } else if !id.is_empty() {
            let state = UnitState {
                load: get("LoadState"),
                active: get("ActiveState"),
                file_state: get("UnitFileState"),
                has_processes,
                scopes: Vec::new(),
            };
            states.insert(id, state);
        }
    }
    for (scope, before) in scopes {
        if let Some(unit) = before.iter().find(|unit| states.contains_key(*unit)) {
            states.entry(unit.clone()).or_default().scopes.push(scope);
        }
    }
    states
}

/// Ends the processes that an ended daemon left in `unit` and its scopes. Returns whether it
/// signalled any. Stopping the unit is not enough: systemd stops only the daemon itself.
pub(crate) async fn end_leftovers(unit: &str) -> Result<bool, Trouble> {
    let start = Instant::now();
    let (mut asked, mut killed) = (false, false);
    loop {
        let left = left_by(unit)?;
        if left.is_empty() {
            return Ok(asked);
        }
        let elapsed = start.elapsed();
        if elapsed > LEFTOVERS_WITHIN + GONE_WITHIN {
            return Err(Trouble::Failed(vec![format!("{} still runs after SIGKILL", left.join(", "))]));
        }
        if !killed && elapsed > LEFTOVERS_WITHIN {
            kill(unit, &left, "SIGKILL")?;
            killed = true;
        } else if !asked && elapsed > LAST_WORDS {
            kill(unit, &left, "SIGTERM")?;
            asked = true;
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Signals all processes in the units `left`.
fn kill(unit: &str, left: &[String], signal: &str) -> Result<(), Trouble> {
    let signal = format!("--signal={signal}");
    let mut words = vec!["kill", "--kill-who=all", &signal];
    words.extend(left.iter().map(String::as_str));
    match systemctl(&words) {
        // A scope disappears with its last process. Then systemctl fails, but the others have been
        // signalled.
        Err(trouble) if left_by(unit)? == left => Err(trouble),
        _ => Ok(()),
    }
}

/// The units in which the app of `unit` runs on without its daemon.
fn left_by(unit: &str) -> Result<Vec<String>, Trouble> {
    let state = states(&[unit.to_owned()])?.remove(unit).filter(UnitState::has_left_its_app);
    let state = state.unwrap_or_default();
    let own = state.has_processes.then(|| unit.to_owned());
    Ok(own.into_iter().chain(state.scopes).collect())
}

/// Whether systemd starts the daemon of `service` with more than portok's own units pass: variables
/// beside those of `env_file`, or other arguments.
pub(crate) fn tells_more(service: &str, instance: &str, env_file: &Path) -> Result<bool, Trouble> {
    let property = "--property=Environment,EnvironmentFiles,PassEnvironment,ExecStart";
    Ok(is_more(&systemctl(&["show", property, "--", service])?, instance, env_file))
}

fn is_more(text: &str, instance: &str, env_file: &Path) -> bool {
    let is_ours =
        |word: &str| ["PORTOK_CONFIG_DIR=", "PORTOK_STATE_DIR="].iter().any(|own| word.starts_with(own));
    text.lines().filter_map(|line| line.split_once('=')).any(|(key, value)| match key {
        "Environment" => !value.split_whitespace().all(is_ours),
        "EnvironmentFiles" => {
            value.rsplit_once(" (ignore_errors=").map_or(value, |(file, _)| file)
                != env_file.to_string_lossy()
        }
        "ExecStart" => !value.contains(&format!("portokd --instance={instance} ;")),
        "PassEnvironment" => !value.is_empty(),
        _ => false,
    })
}

/// Makes systemd read its units again. A failure is noted in the report.
pub(crate) fn read_units_again(report: &mut HostReport) {
    match systemctl(&["daemon-reload"]) {
        Ok(_) => report.step("reloaded", "systemd's units"),
        Err(trouble) => report.note(format!("systemd did not read the units again: {}", trouble.describe())),
    }
}

/// The names of all units of instances that systemd knows.
pub(crate) fn loaded() -> Result<Vec<String>, Trouble> {
    let words = ["list-units", "--all", "--plain", "--no-legend", "portok@*.service", "portok@*.socket"];
    let text = systemctl(&words)?;
    Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

impl Trouble {
    /// The failure of `operation` on `instance`.
    pub(crate) fn into_failure(self, operation: &str, instance: Option<&str>) -> HostFailure {
        let (why, causes) = match self {
            Self::Missing => ("there is no systemctl on this host", Vec::new()),
            Self::NotRunning => ("systemd does not run this host", Vec::new()),
            Self::Failed(causes) => ("systemd did not do it", causes),
        };
        let denied = ["authentication required", "Access denied", "Permission denied"];
        let is_denied = causes.iter().any(|cause| denied.iter().any(|words| cause.contains(words)));
        let hint = match instance {
            _ if is_denied => Some("use sudo".to_owned()),
            Some(name) if causes.is_empty() => Some(format!(
                "let what runs this host start the daemon: portokd --instance {name} (with the variables of {name}.env, where there is one)"
            )),
            Some(name) => Some(format!("what the daemon said: portok logs {name}")),
            None => None,
        };
        HostFailure { code: HostCode::Failed, message: format!("{operation} failed: {why}"), causes, hint }
    }

    /// The trouble in a few words.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Missing => "there is no systemctl on this host".to_owned(),
            Self::NotRunning => "systemd does not run this host".to_owned(),
            Self::Failed(causes) => causes.join("; "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_told_apart() {
        let pid1 = "System has not been booted with systemd as init system (PID 1). Can't operate.\nFailed to connect to bus: Host is down\n";
        assert_eq!(told(pid1, "exit status: 1"), Trouble::NotRunning);
        assert_eq!(
            told("", "exit status: 3"),
            Trouble::Failed(vec!["systemctl ended with exit status: 3 and said nothing".into()])
        );
        let failure = told("Failed to start: Interactive authentication required.\n", "")
            .into_failure("start of `api`", Some("api"));
        assert_eq!((failure.hint.as_deref(), failure.causes.len()), (Some("use sudo"), 1));
        assert_eq!(failure.code.exit_code(), 1);
        let hint = Trouble::Missing.into_failure("start of `api`", Some("api")).hint.unwrap();
        assert!(hint.contains("portokd --instance api"), "{hint}");
    }

    #[test]
    fn states_are_read_by_unit() {
        let text = "Id=portok@a.service\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\n\nId=portok@b.service\nLoadState=loaded\nActiveState=failed\nUnitFileState=\nControlGroup=/system.slice/b\n";
        let states = parse_states(text);
        assert!(states["portok@a.service"].is_running() && states["portok@a.service"].is_enabled());
        assert!(!states["portok@b.service"].is_running() && !states["portok@b.service"].is_enabled());
        assert!(
            states["portok@b.service"].has_left_its_app() && !states["portok@a.service"].has_left_its_app()
        );
        assert!(parse_states("").is_empty());
    }

    #[test]
    fn what_a_drop_in_adds_is_more() {
        let own = "Environment=PORTOK_CONFIG_DIR=/c PORTOK_STATE_DIR=/s\nEnvironmentFiles=/c/api.env (ignore_errors=yes)\nPassEnvironment=\n\
            ExecStart={ path=/usr/bin/portokd ; argv[]=/usr/bin/portokd --instance=api ; ignore_errors=no ; start_time=[n/a] }\n";
        let is_more = |text: &str| is_more(text, "api", Path::new("/c/api.env"));
        assert!(!is_more(own) && !is_more("Environment=\n") && !is_more(""));
        assert!(is_more(&own.replace("api ;", "api --listen 80 ;")));
        for added in
            ["Environment=LISTEN_PORT=80", "EnvironmentFiles=/c/more (ignore_errors=no)", "PassEnvironment=A"]
        {
            assert!(is_more(&format!("{own}{added}\n")), "{added}");
        }
    }

    #[test]
    fn a_scope_is_its_apps_whose_daemon_it_is_ordered_before() {
        let unit =
            |name: &str| format!("Id=portok@{name}.service\nActiveState=failed\nBefore=shutdown.target\n\n");
        let scope = "Id=portok-a-b-r1-0123abcd.scope\nActiveState=active\nControlGroup=/s\nBefore=portok@a-b.service shutdown.target\n\n";
        let states = parse_states(&(unit("a") + &unit("a-b") + scope));
        assert!(!states["portok@a.service"].has_left_its_app());
        assert!(states["portok@a-b.service"].has_left_its_app());
        assert_eq!(states["portok@a-b.service"].scopes, ["portok-a-b-r1-0123abcd.scope"]);
        assert_eq!(states.len(), 2);
    }
}
