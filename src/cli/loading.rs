//! Has a running daemon load what `add --to` or `remove INSTANCE/APP` did to an app's file, and
//! tells what became of the app.
//!
//! A daemon finds the edit by itself, too. Asked, it says at once whether it took it.

use std::time::Duration;

use tokio::time::timeout;

use super::args::Global;
use super::call::{Call, Limits};
use super::client::Client;
use super::failure::Failure;
use super::locate::locate;
use super::surroundings::Surroundings;
use crate::host::HostReport;
use crate::wire::{AppChange, AppReload, Code, Reloaded, exit};

/// How long the daemon may take to load its configuration.
const LOADED_WITHIN: Duration = Duration::from_secs(60);

/// What was done to the app's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edit {
    Written,
    Removed,
}

/// Asks the daemon of `instance` to load its configuration, and notes in `report` what became of
/// `app`. Returns the exit code: that the daemon refused is a failure, that none runs is not.
pub(crate) async fn load(
    around: &Surroundings,
    (instance, app): (&str, &str),
    edit: Edit,
    report: &mut HostReport,
) -> u8 {
    let (code, note) = match ask(around, instance).await {
        Ok(reloaded) => {
            report.apps = reloaded.apps.into_iter().filter(|change| change.app == app).collect();
            became(&report.apps, edit)
        }
        Err(failure) => (code_of(&failure), unasked(&failure, edit)),
    };
    report.note(format!("the daemon of `{instance}` {note}"));
    code
}

async fn ask(around: &Surroundings, instance: &str) -> Result<Reloaded, Failure> {
    let global = Global { instance: Some(instance.to_owned()), ..Global::default() };
    let client = Client::new(locate(&global, around)?, Limits::default());
    let asked = client.ask::<Reloaded>(Call::post("reload", "reload"));
    match timeout(LOADED_WITHIN, asked).await {
        Ok(answer) => answer.map(|(reloaded, _)| reloaded),
        Err(_late) => {
            let within = humantime::format_duration(LOADED_WITHIN);
            Err(Failure::Output { cause: format!("it has not answered within {within}") })
        }
    }
}

/// What the daemon did with the app, and the exit code.
fn became(changes: &[AppReload], edit: Edit) -> (u8, String) {
    let of = |change| changes.iter().find(|app| app.change == change);
    let why = |app: &AppReload| app.why.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
    if let Some(app) = of(AppChange::Refused) {
        return (exit::FAILED, format!("refused it{}", why(app)));
    }
    // What lacks a route goes all the same.
    if let Some(app) = of(AppChange::Partial).filter(|_| edit == Edit::Written) {
        return (exit::FAILED, format!("has loaded it, but not all of it{}", why(app)));
    }
    let note = match (edit, of(AppChange::Pending)) {
        (Edit::Written, Some(app)) => format!("has loaded it, which is not at its end yet{}", why(app)),
        (Edit::Written, None) => "has loaded it".to_owned(),
        (Edit::Removed, Some(app)) => format!("has seen it{}", why(app)),
        (Edit::Removed, None) => "has no such app any more, or stops it now".to_owned(),
    };
    (exit::DONE, note)
}

/// That the daemon says that its configuration is not valid is a failure: the app waits for that.
fn code_of(failure: &Failure) -> u8 {
    match failure {
        Failure::Refused { body, .. } if body.code == Code::ConfigInvalid => exit::FAILED,
        _ => exit::DONE,
    }
}

/// Why the daemon has not loaded it, and what it does.
fn unasked(failure: &Failure, edit: Edit) -> String {
    let finds = match edit {
        Edit::Written => "loads it",
        Edit::Removed => "stops the app",
    };
    match failure {
        Failure::Unreachable { tried, .. } => match tried.iter().find(|attempt| attempt.denied) {
            Some(attempt) => {
                format!("was not asked ({}: {}); it {finds} by itself", attempt.way, attempt.cause)
            }
            None => format!("does not answer; once it runs, it {finds}"),
        },
        Failure::Refused { body, .. } if body.code == Code::ConfigInvalid => {
            format!("has loaded nothing, because its configuration is not valid: {}", body.message)
        }
        Failure::Refused { body, .. } => {
            format!("refused to load it now ({}); it {finds} by itself", body.message)
        }
        Failure::Lost { cause, .. } | Failure::Foreign { cause, .. } | Failure::Output { cause } => {
            format!("did not say whether it took it ({cause}); it {finds} by itself")
        }
        _ => format!("was not asked; it {finds} by itself"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::{Fake, Reply, around};
    use super::*;

    /// What a daemon that answers so makes of an edit of `default/shop`: exit code and notes.
    async fn loaded(status: u16, answer: serde_json::Value, edit: Edit) -> (u8, String) {
        let fake = Fake::new(move |_, _| Reply::json(status, &answer));
        let mut report = HostReport::default();
        let code = load(&around(fake.folder.path()), ("default", "shop"), edit, &mut report).await;
        assert_eq!(fake.received()[0].line, "POST /__reload");
        (code, report.notes.join("\n"))
    }

    fn reloaded(apps: serde_json::Value) -> serde_json::Value {
        json!({"success": true, "message": "configuration loaded", "changed": [], "apps": apps})
    }

    #[tokio::test]
    async fn what_became_of_the_app_is_told_and_nothing_of_others() {
        let refused = |app: &str| json!({"app": app, "change": "refused", "why": "shop.toml:1:1 no"});
        let added = json!({"app": "shop", "change": "added"});
        let partial = json!({"app": "shop", "change": "partial", "why": "in force without host `x`"});
        let pending = json!({"app": "shop", "change": "pending", "why": "it is stopped in 5s"});
        for (apps, edit, code, told) in [
            (json!([added, refused("other")]), Edit::Written, 0, "`default` has loaded it"),
            (json!([]), Edit::Written, 0, "`default` has loaded it"),
            (json!([refused("shop")]), Edit::Written, 1, "refused it: shop.toml:1:1 no"),
            (json!([added, partial]), Edit::Written, 1, "not all of it: in force without host `x`"),
            (json!([pending, partial]), Edit::Removed, 0, "it is stopped in 5s"),
            (json!([]), Edit::Removed, 0, "no such app any more"),
        ] {
            let (ended, notes) = loaded(200, reloaded(apps), edit).await;
            assert!(ended == code && notes.contains(told) && !notes.contains("other"), "{ended} {notes}");
        }
    }

    #[tokio::test]
    async fn a_daemon_that_loads_nothing_says_why() {
        let body = |code: &str| json!({"error": "e", "message": "line 7 is bad", "code": code});
        let (code, notes) = loaded(422, body("config_invalid"), Edit::Written).await;
        assert!(code == 1 && notes.contains("has loaded nothing") && notes.contains("line 7"), "{notes}");
        let (code, notes) = loaded(503, body("shutting_down"), Edit::Removed).await;
        assert!(code == 0 && notes.contains("it stops the app by itself"), "{notes}");
    }

    #[tokio::test]
    async fn where_no_daemon_runs_that_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let mut report = HostReport::default();
        let code = load(&around(folder.path()), ("none", "shop"), Edit::Written, &mut report).await;
        assert_eq!(code, 0);
        assert_eq!(report.notes, ["the daemon of `none` does not answer; once it runs, it loads it"]);
    }
}
