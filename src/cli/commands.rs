//! The quick commands: one request, one answer, one text each.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::args;
use super::call::Call;
use super::client::Client;
use super::failure::Failure;
use super::follow::{What, follow};
use super::render;
use super::session::Session;
use crate::wire::{
    Accepted, AppRow, CertificateRow, Ended, Health, InstanceStatus, Metrics, Phase, ReleaseRow, Reloaded,
    ReplicaRow, RollbackPlan, Status, Switched, UpgradeRequest, Upgraded, exit,
};

type Done = Result<u8, Failure>;

/// `portok status`. Of an instance with several apps, none of which was named, it shows all in
/// short.
pub(crate) async fn status(session: &mut Session<'_>) -> Done {
    match session.client.ask::<Status>(Call::get("status", "status")).await {
        Ok((status, _)) if are_none(&session.client, &status).await => {
            let instance = InstanceStatus::of(&status);
            session.show(&Value::Array(Vec::new()), || render::overview(&[], Some(&instance)));
            note(session, &instance);
        }
        Ok((status, value)) => session.show(&value, || render::status(&status, SystemTime::now())),
        Err(failure) if failure.wants_an_app() => {
            let (rows, value) = session.client.ask::<Vec<AppRow>>(Call::get("status", "apps")).await?;
            let instance = instance(session, "status").await;
            session.show(&value, || render::overview(&rows, instance.as_ref()));
        }
        Err(failure) => return Err(failure),
    }
    Ok(exit::DONE)
}

/// Whether the instance with this status is one of several apps and has none.
pub(crate) async fn are_none(client: &Client, status: &Status) -> bool {
    if status.app.is_some() || status.phase != Phase::Empty {
        return false;
    }
    let asked = client.ask::<Vec<AppRow>>(Call::get("status", "apps")).await;
    asked.is_ok_and(|(rows, _)| rows.is_empty())
}

/// `portok apps`.
pub(crate) async fn apps(session: &mut Session<'_>) -> Done {
    let (rows, value) = session.client.ask::<Vec<AppRow>>(Call::get("apps", "apps")).await?;
    let instance = instance(session, "apps").await;
    session.show(&value, || render::apps(&rows, instance.as_ref()));
    Ok(exit::DONE)
}

/// `portok ps`.
pub(crate) async fn ps(session: &mut Session<'_>) -> Done {
    let (rows, value) = session.client.ask::<Vec<ReplicaRow>>(Call::get("ps", "replicas")).await?;
    session.show(&value, || render::ps(&rows, SystemTime::now()));
    Ok(exit::DONE)
}

/// `portok certs`.
pub(crate) async fn certs(session: &mut Session<'_>) -> Done {
    let (rows, value) = session.client.ask::<Vec<CertificateRow>>(Call::get("certs", "certs")).await?;
    session.show(&value, || render::certs(&rows));
    Ok(exit::DONE)
}

/// What the daemon of several apps says of itself; `None` where it has one, or does not say.
async fn instance(session: &mut Session<'_>, operation: &str) -> Option<InstanceStatus> {
    let asked = session.client.ask::<Metrics>(Call::get(operation, "metrics")).await;
    let instance = asked.ok().and_then(|(metrics, _)| metrics.instance)?;
    note(session, &instance);
    Some(instance)
}

/// The rows of apps have no room for what is wrong with their instance: with `--json` it is a note.
fn note(session: &mut Session<'_>, instance: &InstanceStatus) {
    if let (true, Some(text)) = (session.json, render::troubles(instance)) {
        session.screen.note(text.trim_end());
    }
}

/// `portok metrics`.
pub(crate) async fn metrics(session: &mut Session<'_>) -> Done {
    let (metrics, value) = session.client.ask::<Metrics>(Call::get("metrics", "metrics")).await?;
    if session.client.app().is_some_and(|app| app.starts_with("redis:")) {
        session.screen.note(&render::counted_together());
    }
    session.show(&value, || render::metrics(&metrics, SystemTime::now()));
    Ok(exit::DONE)
}

/// `portok metrics --prometheus`: the daemon's text as it is.
pub(crate) async fn prometheus(session: &mut Session<'_>) -> Done {
    let call = Call { accept: "text/plain", ..Call::get("metrics", "metrics?format=prometheus") };
    let mut answer = session.client.send(call).await?;
    let bytes = answer.bytes().await?;
    if !answer.status.is_success() {
        return Err(answer.refused(&bytes));
    }
    session.screen.bytes(&bytes);
    Ok(exit::DONE)
}

/// `portok health`. An unhealthy app is an answer too, with status 503.
pub(crate) async fn health(session: &mut Session<'_>) -> Done {
    let mut answer = session.client.send(Call::get("health check", "health")).await?;
    let bytes = answer.bytes().await?;
    let decoded = answer.decode::<Health>(&bytes);
    let (health, value) = match decoded {
        Ok(decoded) if answer.status.is_success() || answer.status.as_u16() == 503 => decoded,
        Err(failure) if answer.status.is_success() => return Err(failure),
        _ => return Err(answer.refused(&bytes)),
    };
    session.show(&value, || render::health(&health));
    Ok(if health.healthy { exit::DONE } else { exit::FAILED })
}

/// `portok switch PORT…`.
pub(crate) async fn switch(session: &mut Session<'_>, ports: &[u16]) -> Done {
    let noun = if ports.len() == 1 { "port" } else { "ports" };
    let listed: Vec<_> = ports.iter().map(u16::to_string).collect();
    let query: Vec<_> = ports.iter().map(|port| format!("port={port}")).collect();
    let call =
        Call::post(format!("switch to {noun} {}", listed.join(", ")), format!("switch?{}", query.join("&")));
    let (switched, value) = session.client.ask::<Switched>(call).await?;
    session.show(&value, || render::switched(&switched, ports));
    switched.warning.iter().for_each(|warning| session.screen.note(&render::warning(warning)));
    Ok(exit::DONE)
}

/// `portok rollback`.
pub(crate) async fn rollback(
    session: &mut Session<'_>,
    options: &args::RollbackArgs,
    interrupt: impl Future<Output = ()>,
) -> Done {
    let release = options.release.as_ref().map(|id| format!("release={id}"));
    let flags = [("force=1", options.force), ("dry_run=1", options.dry_run)];
    let flags = flags.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag.to_owned());
    let query: Vec<_> = release.into_iter().chain(flags).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    let operation = What::Rollback.of(options.release.as_deref());
    let call = Call::post(operation, format!("rollback{mark}{}", query.join("&")));
    if options.dry_run {
        let (plan, value) = session.client.ask::<RollbackPlan>(call).await?;
        session.show(&value, || render::planned(&plan));
        return Ok(exit::DONE);
    }
    let (moved, value) = follow(session, What::Rollback, call, pin!(interrupt)).await?;
    session.show(&value, || render::moved(&moved));
    Ok(exit::DONE)
}

/// `portok cancel`.
pub(crate) async fn cancel(session: &mut Session<'_>) -> Done {
    let (accepted, value) = session.client.ask::<Accepted>(Call::post("cancel", "cancel")).await?;
    session.show(&value, || render::accepted(&accepted));
    Ok(exit::DONE)
}

/// `portok releases`.
pub(crate) async fn releases(session: &mut Session<'_>) -> Done {
    let (rows, value) = session.client.ask::<Vec<ReleaseRow>>(Call::get("releases", "releases")).await?;
    // Only the status knows which of them is live. Without it, no row is marked.
    let status = match rows.is_empty() || session.json {
        true => None,
        false => {
            session.client.ask::<Status>(Call::get("releases", "status")).await.ok().map(|(status, _)| status)
        }
    };
    session.show(&value, || render::releases(&rows, status.as_ref(), SystemTime::now()));
    Ok(exit::DONE)
}

/// `portok reload`. That not all is in force is an answer too, and a failure.
pub(crate) async fn reload(session: &mut Session<'_>, prune: bool) -> Done {
    let path = if prune { "reload?prune=1" } else { "reload" };
    let (reloaded, value) = session.client.ask::<Reloaded>(Call::post("reload", path)).await?;
    session.show(&value, || render::reloaded(&reloaded));
    Ok(if reloaded.success { exit::DONE } else { exit::FAILED })
}

/// `portok upgrade`. While the daemon is busy, it is asked again until `wait` has passed.
pub(crate) async fn upgrade(
    session: &mut Session<'_>,
    binary: Option<PathBuf>,
    wait: Option<Duration>,
) -> Done {
    let mut call = Call::post("upgrade", "upgrade");
    if let Some(path) = binary {
        let request = UpgradeRequest { binary: Some(absolute(&path)?) };
        let body = serde_json::to_vec(&request);
        call.body =
            Some(body.map_err(|error| Failure::usage(error.to_string(), "see portok upgrade --help"))?);
    }
    let began = Instant::now();
    let mut told = None;
    let (upgraded, value) = loop {
        match session.client.ask::<Upgraded>(call.clone()).await {
            Err(failure) if failure.is_busy() && wait.is_some_and(|wait| began.elapsed() < wait) => {
                let text = render::absent(&failure);
                if told.as_ref() != Some(&text) {
                    session.screen.note(&text);
                    told = Some(text);
                }
                sleep(session.poll_every()).await;
            }
            outcome => break outcome?,
        }
    };
    session.show(&value, || render::upgraded(&upgraded));
    Ok(exit::DONE)
}

/// `portok shutdown`. The answer comes when nothing of the apps is left.
pub(crate) async fn shutdown(session: &mut Session<'_>) -> Done {
    let (ended, value) = session.client.ask::<Vec<Ended>>(Call::post("shutdown", "shutdown")).await?;
    session.show(&value, || render::ended(&ended));
    Ok(exit::DONE)
}

/// `path` as an absolute path, because the daemon has another working directory.
fn absolute(path: &Path) -> Result<String, Failure> {
    let wrong = |why: String| {
        Failure::usage(format!("cannot use --binary {}: {why}", path.display()), "give an absolute path")
    };
    let absolute = std::path::absolute(path).map_err(|error| wrong(error.to_string()))?;
    absolute.into_os_string().into_string().map_err(|_| wrong("it is not UTF-8".to_owned()))
}
