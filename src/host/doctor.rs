//! `portok doctor`: checks this machine, and advises what to do where something is wrong.
//!
//! `machine` checks the machine itself, `configured` the instances by their files, `apps` the apps
//! of those that have several, `certificates` what they show over TLS, `running` the instances by
//! their daemons. Each function checks one thing. Nothing is changed. A check that needs rights
//! which this user lacks says so.

use serde::Serialize;

use super::daemons::Daemons;
use super::failure::HostFailure;
use super::installed;
use super::instances::{self, Reading};
use super::list::list;
use super::places::Places;

mod apps;
mod certificates;
mod configured;
mod machine;
mod running;

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// What was checked: `version`, `unit`, `folder`, `instance`…
    pub(crate) check: &'static str,
    pub(crate) verdict: CheckVerdict,
    /// What was found.
    pub(crate) text: String,
    /// What to do.
    pub(crate) hint: Option<String>,
}

/// The verdict of a [`Check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CheckVerdict {
    Good,
    /// It works, but the operator should know about it.
    Warning,
    Bad,
}

fn good(check: &'static str, text: impl Into<String>) -> Check {
    Check { check, verdict: CheckVerdict::Good, text: text.into(), hint: None }
}

fn warning(check: &'static str, text: impl Into<String>, hint: impl Into<String>) -> Check {
    Check { check, verdict: CheckVerdict::Warning, text: text.into(), hint: Some(hint.into()) }
}

fn bad(check: &'static str, text: impl Into<String>, hint: impl Into<String>) -> Check {
    Check { check, verdict: CheckVerdict::Bad, text: text.into(), hint: Some(hint.into()) }
}

/// A check that could not be made.
fn unknown(check: &'static str, failure: HostFailure) -> Check {
    Check { check, verdict: CheckVerdict::Bad, text: failure.message, hint: failure.hint }
}

/// Makes all checks.
pub(crate) async fn doctor(places: &Places, daemons: &dyn Daemons) -> Vec<Check> {
    let mut checks = machine::programs(places);
    checks.extend(machine::unit_files(places));
    checks.push(machine::systemd());
    checks
        .extend([machine::folder("configurations", &places.config), machine::folder("state", &places.state)]);
    let user = installed::user(places).ok().flatten();
    checks.extend(user.iter().flat_map(|user| configured::shut_out(user, &[&places.config], 0o1)));
    match instances::all(places, Reading::Strict) {
        Ok(instances) => {
            checks.extend(
                instances
                    .iter()
                    .flat_map(|instance| configured::configuration(places, instance, user.as_ref())),
            );
            checks.extend(instances.iter().filter_map(|instance| configured::hardening(places, instance)));
            checks.extend(instances.iter().flat_map(apps::configuration));
            checks.extend(instances.iter().flat_map(certificates::certificates));
            checks.extend(configured::clashes(&instances));
            checks.extend(apps::targets(&instances).await);
        }
        Err(failure) => checks.push(unknown("configuration", failure)),
    }
    let rows = list(places, daemons).await.map(|listing| listing.rows).unwrap_or_default();
    checks.extend(rows.iter().flat_map(running::running));
    checks.extend(rows.iter().filter_map(running::outdated));
    checks.extend(running::open_files(places, &rows));
    checks
}
