//! `portok deploy`: sends the request, follows the deploy and, with `--wait-window`, the watch
//! window.
//!
//! Once accepted, the deploy belongs to the daemon: Ctrl-C or a broken connection ends the report,
//! not the deploy.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;

use super::args;
use super::call::Call;
use super::directory::{absolute_directory, own_directory};
use super::failure::Failure;
use super::follow::{What, follow};

use super::render;
use super::session::Session;
use super::watch::{Watched, watch};
use crate::wire::{Accepted, DeployRequest, exit};

/// Deploys what `options` describe.
///
/// # Errors
/// The options are wrong; the deploy was refused, aborted, cancelled or rolled back; or the report
/// ended early.
pub(crate) async fn deploy(
    session: &mut Session<'_>,
    options: &args::DeployArgs,
    interrupt: impl Future<Output = ()>,
) -> Result<u8, Failure> {
    let request = request(options)?;
    let mut call = Call::post(What::Deploy.of(request.release.as_deref()), "deploy");
    call.body = Some(serde_json::to_vec(&request).map_err(|error| Failure::Usage {
        message: format!("the request has no JSON form: {error}"),
        hint: None,
    })?);
    if request.command.is_some() && request.directory.is_none() {
        call.directory = Some(own_directory()?);
    }
    let flags = [("detach=1", options.detach), ("force=1", options.force)];
    let mut flags: Vec<_> =
        flags.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag.to_owned()).collect();
    flags.extend(options.strategy.map(|strategy| format!("strategy={}", strategy.as_str())));
    if !flags.is_empty() {
        call.path.push_str(&format!("?{}", flags.join("&")));
    }
    if options.detach {
        let (accepted, value) = session.client.ask::<Accepted>(call).await?;
        accepted.warning.iter().for_each(|warning| session.screen.note(&render::warning(warning)));
        session.show(&value, || render::accepted(&accepted));
        return Ok(exit::DONE);
    }
    let mut interrupt = pin!(interrupt);
    let (moved, value) = follow(session, What::Deploy, call, interrupt.as_mut()).await?;
    let watched = match options.wait_window {
        true => watch(session, &moved.release, interrupt).await?,
        false => Watched::Passed,
    };
    // For a replaced release, what is live instead has been printed already.
    if session.json || watched == Watched::Passed {
        session.show(&value, || render::moved(&moved));
    }
    Ok(exit::DONE)
}

/// The body of the request.
fn request(options: &args::DeployArgs) -> Result<DeployRequest, Failure> {
    let directory = options.dir.as_deref().map(absolute_directory).transpose()?;
    let env: BTreeMap<_, _> = options.env.iter().cloned().collect();
    Ok(DeployRequest {
        command: options.command.line(),
        directory,
        env: (!env.is_empty()).then_some(env),
        release: options.release.clone(),
        health_path: options.health.clone(),
    })
}

#[cfg(test)]
#[path = "deploy_tests.rs"]
mod tests;
