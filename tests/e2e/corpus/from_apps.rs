//! Plays what apps answer: each entry at once and in small pieces, to a plain request and to one
//! that takes portok's other way.

use std::io::Write;
use std::net::TcpStream;

use super::case::{self, FromApp, filled, shown, text};
use super::message::{Head, Reader, Stopped};
use super::recorder::{TOLD, Told};
use super::stage::{Stage, ends, framing_of, goes_on, head, pieces, status_of};
use crate::harness::World;

/// A request that takes the short way, and one that does not.
const REQUESTS: [&str; 2] =
    ["GET /case HTTP/1.1\r\nhost: a\r\n\r\n", "GET /case HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n"];

/// Plays the entries of a file, and tells of all that went otherwise.
#[track_caller]
pub(super) fn play(name: &str) {
    let world = World::new();
    let mut stage = Stage::start(&world);
    let mut failures = Vec::new();
    for case in case::read::<FromApp>("answers", name) {
        let requests = case.sends.as_deref().map_or(REQUESTS.to_vec(), |sends| vec![sends]);
        for request in requests {
            for in_pieces in [false, true] {
                if let Err(why) = play_one(&mut stage, &case, request, in_pieces) {
                    let line = shown(request.as_bytes());
                    failures.push(format!(
                        "{} ({}), {line}, in pieces: {in_pieces}:\n  {why}",
                        case.name, case.from
                    ));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}

fn play_one(stage: &mut Stage<'_>, case: &FromApp, request: &str, in_pieces: bool) -> Result<(), String> {
    let fill = |text: &str| filled(text, case.long.as_ref(), "");
    let answers = fill(&case.answers);
    let parts = pieces(&answers, in_pieces).map(<[u8]>::to_vec).collect();
    stage.recorder.tell(Told { parts, early: case.early, closes: case.closes, resets: case.resets });
    let mut reader = Reader::new(stage.connect());
    reader.stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let talked = talk(&mut reader, case, request.contains("te: trailers"));
    drop(reader);
    let (mut events, asked) = stage.recorder.until(TOLD);
    if let Some(late) = &case.late {
        stage.recorder.send(asked, &fill(late));
    }
    let (more, next) = stage.ask_as_another()?;
    events.extend(more);
    let seen = stage.whole(events)?;
    talked?;
    let again: Vec<_> = seen.iter().filter(|(_, bytes)| text(bytes).contains(TOLD)).collect();
    let times = case.times.unwrap_or(1);
    if again.len() + 1 != times {
        return Err(format!("the app was asked {} times, not {times}", again.len() + 1));
    }
    let last = again.last().map_or(asked, |(connection, _)| *connection);
    let kept = case.app_kept.unwrap_or(case.code().is_none() && !case.cut && !case.closes && !case.resets);
    if (last == next) != kept {
        return Err(format!("the app's connection is used again: {}", last == next));
    }
    Ok(())
}

/// Reads the answer and looks how the connection goes on.
fn talk(reader: &mut Reader<TcpStream>, case: &FromApp, takes_trailers: bool) -> Result<(), String> {
    let body = match (head(reader), case.cut) {
        // Not even its head was sent.
        (Err(Stopped::Ended), true) => return Ok(()),
        (Err(stopped), _) => return Err(format!("no answer: {stopped:?}")),
        (Ok(head), _) => {
            judge(&head, case)?;
            reader.body(&head, framing_of(&head, case.head))
        }
    };
    match (body, case.cut) {
        (Err(Stopped::Midway(_)), true) => return Ok(()),
        (Ok(body), true) => return Err(format!("it looks whole: {}", shown(&body.bytes))),
        (Err(stopped), _) => return Err(format!("no whole answer: {stopped:?}")),
        (Ok(body), _) => {
            if case.body.as_ref().is_some_and(|expected| *expected != text(&body.bytes)) {
                return Err(format!("its body is {}", shown(&body.bytes)));
            }
            let trailers = case.trailers.as_deref().filter(|_| takes_trailers).unwrap_or("");
            if trailers != text(&body.trailers) {
                return Err(format!("its trailer is {}", shown(&body.trailers)));
            }
        }
    }
    if case.kept.unwrap_or(true) { goes_on(reader).map(drop) } else { ends(reader) }
}

/// Compares the head of an answer with what is expected of it.
fn judge(head: &Head, case: &FromApp) -> Result<(), String> {
    let (status, code) = (status_of(head), head.values("portok-error").next());
    if status != case.gets.unwrap_or(502) || code != case.code() {
        return Err(format!("it is {status} with the code {code:?}"));
    }
    let lines = text(&head.bytes);
    if let Some(line) = case.has.iter().find(|line| !lines.contains(&format!("\r\n{line}\r\n"))) {
        return Err(format!("{line:?} is not in {lines:?}"));
    }
    if let Some(name) = case.lacks.iter().find(|name| head.values(name).next().is_some()) {
        return Err(format!("{name} is in {lines:?}"));
    }
    match case.once.iter().find(|name| head.values(name).count() != 1) {
        Some(name) => Err(format!("{name} is not once in {lines:?}")),
        None => Ok(()),
    }
}
