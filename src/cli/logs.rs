//! `portok logs`: the last lines that an app printed, and with `-f` each new one.
//!
//! The daemon keeps a window of lines and is polled for it. New lines are found by comparing two
//! windows ([`new_lines`]). The windows are bounded, so a chatty app may print more than one window
//! between two polls; the gap is reported.

use std::future::Future;
use std::pin::pin;

use tokio::time::{Instant, sleep};

use super::args;
use super::call::Call;
use super::failure::Failure;
use super::render;
use super::session::Session;
use crate::wire::{LogLine, Logs, exit};

/// How many lines one poll asks for.
const WINDOW: u32 = 1000;

/// Prints the last lines; with `follow`, continues until the process ends or nobody reads standard
/// output.
///
/// # Errors
/// The daemon refuses or cannot be reached; while following, only after it has been gone for long.
pub(crate) async fn logs(
    session: &mut Session<'_>,
    options: &args::LogsArgs,
    reader_gone: impl Future<Output = ()>,
) -> Result<u8, Failure> {
    if !options.follow {
        let (logs, value) = session.client.ask::<Logs>(call(options, options.lines)).await?;
        session.show(&value, || render::log_lines(&logs.lines, render::have_several(&logs.lines)));
        return Ok(exit::DONE);
    }
    let window = WINDOW.max(options.lines);
    let (first, _) = session.client.ask::<Logs>(call(options, window)).await?;
    let n_hidden = first.lines.len().saturating_sub(options.lines as usize);
    print(session, &first.lines[n_hidden..], render::have_several(&first.lines));
    let mut several = render::have_several(&first.lines);
    let mut seen = first.lines;
    let mut gone_since: Option<Instant> = None;
    let mut reader_gone = pin!(reader_gone);
    while !session.screen.is_out_closed() {
        let is_over = tokio::select! {
            () = sleep(session.poll_every()) => false,
            () = reader_gone.as_mut() => true,
        };
        if is_over {
            break;
        }
        match session.client.ask::<Logs>(call(options, window)).await {
            Ok((logs, _)) => {
                gone_since = None;
                let (new, complete) = new_lines(&seen, &logs.lines);
                if !complete {
                    session.screen.note("(lines may be missing here)");
                }
                several |= render::have_several(&logs.lines);
                print(session, new, several);
                seen = logs.lines;
            }
            Err(failure) if failure.is_passing() => {
                let since = *gone_since.get_or_insert_with(Instant::now);
                if since.elapsed() > session.pace.absence {
                    return Err(failure);
                }
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(exit::DONE)
}

/// `several`: each line says which replica printed it.
fn print(session: &mut Session<'_>, lines: &[LogLine], several: bool) {
    if !lines.is_empty() {
        let text = render::log_lines(lines, several);
        session.screen.data(&text);
    }
}

fn call(options: &args::LogsArgs, lines: u32) -> Call {
    let replica = options.replica.map(|replica| replica.to_string());
    let asked = [("release", &options.release), ("replica", &replica), ("process", &options.process)];
    let asked = asked.iter().filter_map(|(name, value)| Some(format!("{name}={}&", value.as_ref()?)));
    let operation = match &options.release {
        Some(release) => format!("logs of `{release}`"),
        None => "logs".to_owned(),
    };
    Call::get(operation, format!("logs?{}lines={lines}", asked.collect::<String>()))
}

/// The lines of `now` that are not in `before`, and whether the two windows overlap.
fn new_lines<'a>(before: &[LogLine], now: &'a [LogLine]) -> (&'a [LogLine], bool) {
    let longest = before.len().min(now.len());
    let overlap = (1..=longest).rev().find(|n| before[before.len() - n..] == now[..*n]);
    (&now[overlap.unwrap_or(0)..], overlap.is_some() || before.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Stream;

    fn window(lines: std::ops::Range<u32>) -> Vec<LogLine> {
        let line = |n: u32| LogLine {
            at: "2026-01-01T00:00:00.000Z".into(),
            release: "v1".into(),
            replica: 0,
            process: None,
            stream: Stream::Stdout,
            line: n.to_string(),
        };
        lines.map(line).collect()
    }

    #[test]
    fn windows_are_laid_over_one_another() {
        let table = [
            (0..0, 0..3, 0..3, true),
            (0..3, 0..3, 0..0, true),
            (0..3, 0..5, 3..5, true),
            (0..3, 2..5, 3..5, true),
            (0..3, 3..6, 3..6, false),
            (0..3, 0..0, 0..0, false),
        ];
        for (before, now, expected, complete) in table {
            let (before, now) = (window(before), window(now));
            assert_eq!(new_lines(&before, &now), (&window(expected)[..], complete));
        }
    }
}
