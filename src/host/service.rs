//! `portok start`, `stop`, `restart`, `enable` and `disable`: systemd does the work; portok names
//! the unit and explains failures.

use super::failure::{HostCode, HostFailure};
use super::installed;
use super::instances::{self, Reading};
use super::places::Places;
use super::report::HostReport;
use super::systemctl::{self, Trouble, systemctl};
use super::unit::{self, service_of};

/// What systemd is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Start,
    Stop,
    Restart,
    /// `now`: also start it.
    Enable {
        now: bool,
    },
    /// `now`: also stop it.
    Disable {
        now: bool,
    },
}

impl Verb {
    fn words(self) -> &'static [&'static str] {
        match self {
            Self::Start => &["start"],
            Self::Stop => &["stop"],
            Self::Restart => &["restart"],
            Self::Enable { now: false } => &["enable"],
            Self::Enable { now: true } => &["enable", "--now"],
            Self::Disable { now: false } => &["disable"],
            Self::Disable { now: true } => &["disable", "--now"],
        }
    }

    /// Whether it starts the daemon.
    fn starts(self) -> bool {
        matches!(self, Self::Start | Self::Restart | Self::Enable { now: true })
    }

    fn done(self) -> &'static str {
        match self {
            Self::Start => "started",
            Self::Stop => "stopped",
            Self::Restart => "restarted",
            Self::Enable { .. } => "enabled",
            Self::Disable { .. } => "disabled",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Enable { .. } => "enabling",
            Self::Disable { .. } => "disabling",
        }
    }
}

/// Makes systemd do `verb` to the instance `name`.
///
/// # Errors
/// There is no such instance or no unit, or systemd failed.
pub(crate) async fn service(places: &Places, verb: Verb, name: &str) -> Result<HostReport, HostFailure> {
    let operation = format!("{} of `{name}`", verb.noun());
    if verb.starts() || matches!(verb, Verb::Enable { .. }) {
        instances::get(places, name, Reading::Lenient)?;
        if installed::effective(places, unit::SERVICE_NAME)?.is_none() {
            // Without systemd no unit would help.
            if let Err(trouble @ (Trouble::Missing | Trouble::NotRunning)) =
                systemctl::states(&[service_of(name)])
            {
                return Err(trouble.into_failure(&operation, Some(name)));
            }
            let message = format!("{operation} failed: there is no {} on this host", unit::SERVICE_NAME);
            return Err(HostFailure::new(HostCode::Failed, message, "portok init writes it"));
        }
    }
    let service = service_of(name);
    // An instance that lost its files may still run. But systemd also "stops" instances that never
    // existed.
    if matches!(verb, Verb::Stop | Verb::Disable { .. }) && !is_known(&service) {
        instances::get(places, name, Reading::Lenient)?;
    }
    let mut report = HostReport::about(name);
    if verb == Verb::Restart {
        spare(places, name, &service, &mut report)?;
    }
    let mut words = verb.words().to_vec();
    words.push(&service);
    systemctl(&words).map_err(|trouble| explain(places, verb, name, &operation, trouble))?;
    report.step(verb.done(), &service);
    if matches!(verb, Verb::Stop | Verb::Disable { now: true })
        && systemctl::end_leftovers(&service)
            .await
            .map_err(|trouble| trouble.into_failure(&operation, Some(name)))?
    {
        report.step("stopped", format!("what ran without its daemon in {service}"));
    }
    match verb {
        Verb::Enable { now: true } => report.step("started", &service),
        Verb::Disable { now: true } => report.step("stopped", &service),
        Verb::Enable { now: false } => report.next(format!("portok start {name}"), "start it now, too"),
        _ => {}
    }
    if verb.starts() {
        report.next(format!("portok status {name}"), "look at it");
    }
    Ok(report)
}

/// Whether anything of `service` is left for systemd to end.
fn is_known(service: &str) -> bool {
    systemctl::states(&[service.to_owned()]).is_ok_and(|states| {
        states.get(service).is_some_and(|state| {
            state.is_running() || state.has_left_its_app() || state.is_enabled() || state.active == "failed"
        })
    })
}

/// Refuses to restart a running daemon whose configuration is invalid, because it would not start
/// again. If its unit or a drop-in passes more than the instance's files, validity cannot be judged
/// here, and the restart goes on with a note.
fn spare(places: &Places, name: &str, service: &str, report: &mut HostReport) -> Result<(), HostFailure> {
    let is_running = systemctl::states(&[service.to_owned()])
        .is_ok_and(|states| states.get(service).is_some_and(|state| state.is_running()));
    // A file that this user may not read cannot be judged here.
    let instance = instances::find(places, name, Reading::Strict)
        .filter(|instance| is_running && instance.closed_file().is_none());
    let Some(Err(errors)) = instance.map(|instance| instance.config) else { return Ok(()) };
    if systemctl::tells_more(service, name, &places.file(name, "env")).unwrap_or(false) {
        report.note(format!(
            "not refused, because {service} starts the daemon with variables or words that portok does not see; without \
             them it would not start again: {}",
            errors.problems.join("; ")
        ));
        return Ok(());
    }
    let message =
        format!("restart of `{name}` refused: it runs, and would not start again with this configuration");
    let hint = Some(format!("correct it; systemctl restart {service} does it all the same"));
    Err(HostFailure { code: HostCode::Invalid, message, causes: errors.problems, hint })
}

/// The failure of `verb`. A daemon mostly fails to start because its configuration is invalid: then
/// that is the cause given.
fn explain(places: &Places, verb: Verb, name: &str, operation: &str, trouble: Trouble) -> HostFailure {
    if verb.starts()
        && matches!(trouble, Trouble::Failed(_))
        && let Some(instance) = instances::find(places, name, Reading::Strict)
        && let Err(errors) = instance.config
    {
        let mut failure = trouble.into_failure(operation, Some(name));
        failure.code = HostCode::Invalid;
        failure.causes.extend(errors.problems);
        return failure;
    }
    trouble.into_failure(operation, Some(name))
}
