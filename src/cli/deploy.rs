//! `portok deploy`: from options to the request, and with `--wait-window` on to the end of the watch window.
//!
//! The deploy is the daemon's from its acceptance: Ctrl-C, a broken connection or a dropped future here end
//! the report alone.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::pin;

use http::HeaderValue;

use super::args;
use super::client::Call;
use super::failure::Failure;
use super::follow::{What, follow};
use super::order::Session;
use super::render;
use super::watch::{Watched, watch};
use crate::wire::{Accepted, DeployRequest, exit};

/// Deploys what `options` say.
///
/// # Errors
/// The deploy was refused, aborted, cancelled or rolled back; the report ended early; wrong options.
pub(crate) async fn deploy(
    session: &mut Session<'_>,
    options: &args::Deploy,
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
    let flags: Vec<_> = flags.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag).collect();
    if !flags.is_empty() {
        call.path.push_str(&format!("?{}", flags.join("&")));
    }
    if options.detach {
        let (accepted, value) = session.client.ask::<Accepted>(call).await?;
        session.show(&value, || render::accepted(&accepted));
        return Ok(exit::DONE);
    }
    let mut interrupt = pin!(interrupt);
    let (moved, value) = follow(session, What::Deploy, call, interrupt.as_mut()).await?;
    let watched = match options.wait_window {
        true => watch(session, &moved.release, interrupt).await?,
        false => Watched::Passed,
    };
    // Of a release that was replaced it was told what is live instead.
    if session.json || watched == Watched::Passed {
        session.show(&value, || render::moved(&moved));
    }
    Ok(exit::DONE)
}

/// The operator's `--dir`, which is relative to where `portok` runs, for those who run elsewhere.
///
/// # Errors
/// It is not text.
pub(crate) fn directory(dir: &Path) -> Result<String, Failure> {
    let absolute = std::path::absolute(dir).map_err(|error| Failure::Usage {
        message: format!("--dir {}: {error}", dir.display()),
        hint: None,
    })?;
    absolute.into_os_string().into_string().map_err(|path| {
        Failure::usage(
            format!("--dir {}: not valid UTF-8", path.display()),
            "name it by a path of UTF-8 characters, a link for example",
        )
    })
}

/// Where `portok` was called, for a command that is to run there unless the instance says otherwise.
fn own_directory() -> Result<HeaderValue, Failure> {
    let unusable = |why: String| {
        Failure::usage(
            format!("the current directory cannot be told to the daemon: {why}"),
            "give it with --dir",
        )
    };
    let directory = std::env::current_dir().map_err(|error| unusable(error.to_string()))?;
    let text = directory.to_str().ok_or_else(|| unusable("its name is not UTF-8".to_owned()))?;
    HeaderValue::from_bytes(text.as_bytes())
        .map_err(|_| unusable("its name holds a control character".to_owned()))
}

/// The body of the request.
fn request(options: &args::Deploy) -> Result<DeployRequest, Failure> {
    let directory = options.dir.as_deref().map(directory).transpose()?;
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
