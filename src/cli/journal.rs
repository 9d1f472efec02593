//! `portok logs NAME` where this machine has a journal: prints what it holds about the instance.

use std::future::Future;
use std::pin::pin;

use super::failure::Failure;
use super::render::{self, Screen};
use crate::host::Journal;
use crate::wire::exit;

/// Prints the lines; with `follow`, goes on until the process ends or nobody reads any more.
///
/// # Errors
/// journalctl cannot be started again.
pub(crate) async fn show(
    journal: Journal,
    screen: &mut Screen,
    json: bool,
    follow: bool,
    reader_gone: impl Future<Output = ()>,
) -> Result<u8, Failure> {
    if json {
        screen.value(&serde_json::json!({ "lines": journal.lines() }));
        return Ok(exit::DONE);
    }
    if !follow {
        screen.data(&render::journal_lines(journal.lines()));
        return Ok(exit::DONE);
    }
    let mut following = journal.follow()?;
    let mut reader_gone = pin!(reader_gone);
    while !screen.is_out_closed() {
        let line = tokio::select! {
            line = following.next() => line,
            () = reader_gone.as_mut() => None,
        };
        let Some(line) = line else { break };
        screen.data(&render::journal_lines(&[line]));
    }
    Ok(exit::DONE)
}
