//! Plays what clients send: each entry as it is, in small pieces, and right behind a plain request.

use std::io::Write;
use std::net::{Shutdown, TcpStream};

use super::case::{self, FromClient, filled, shown};
use super::message::Reader;
use super::stage::{AFTER, Stage, answer, ends, goes_on, pieces, status_of};
use crate::harness::World;

/// How the bytes of an entry come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    AtOnce,
    InPieces,
    /// In one go with a plain request before it.
    Behind,
}

/// The request before an entry, as the client sends it and as the app sees it.
const BEFORE: (&str, &str) =
    ("GET /before HTTP/1.1\r\nhost: a\r\n\r\n", "GET /before HTTP/1.1\r\nhost: a\r\n<fwd a>\r\n");

/// Plays the entries of a file, and tells of all that went otherwise.
#[track_caller]
pub(super) fn play(name: &str) {
    let world = World::new();
    let mut stage = Stage::start(&world);
    let mut failures = Vec::new();
    for case in case::read::<FromClient>("requests", name) {
        for way in [Way::AtOnce, Way::InPieces, Way::Behind] {
            if let Err(why) = play_one(&mut stage, &case, way) {
                failures.push(format!("{} ({}), {way:?}:\n  {why}", case.name, case.from));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}

fn play_one(stage: &mut Stage<'_>, case: &FromClient, way: Way) -> Result<(), String> {
    let app = stage.recorder.addr.to_string();
    let fill = |text: &str| filled(text, case.long.as_ref(), &app);
    if let Some(broken) = &case.broken {
        stage.may_break(fill(broken));
    }
    let mut expected: Vec<_> = case.app.iter().map(|request| fill(request)).collect();
    let mut gets = case.gets.clone().unwrap_or_else(|| vec![400]);
    let mut sends = fill(&case.sends);
    if way == Way::Behind {
        sends.splice(..0, BEFORE.0.bytes());
        expected.insert(0, fill(BEFORE.1));
        gets.insert(0, 200);
    }
    let mut reader = Reader::new(stage.connect());
    // What is refused early may be closed before all of it is sent.
    let _ = pieces(&sends, way == Way::InPieces).try_for_each(|piece| reader.stream.write_all(piece));
    if case.ends {
        let _ = reader.stream.shutdown(Shutdown::Write);
    }
    let mut told = Vec::new();
    let talked = talk(&mut reader, case, way, &gets, &mut told);
    if case.kept {
        expected.push(fill(AFTER.1));
    }
    drop(reader);
    let (events, _) = stage.ask_as_another()?;
    let seen: Vec<_> = stage.whole(events)?.into_iter().map(|(_, bytes)| bytes).collect();
    talked.map_err(|why| {
        format!("{why}; the app saw {:?}", seen.iter().map(|seen| shown(seen)).collect::<Vec<_>>())
    })?;
    if seen != expected {
        let show = |all: &[Vec<u8>]| all.iter().map(|one| shown(one)).collect::<Vec<_>>().join("\n    ");
        return Err(format!("the app saw\n    {}\n  instead of\n    {}", show(&seen), show(&expected)));
    }
    // Every answer of the app is that to its own request.
    for (request, answer) in seen.iter().zip(&told) {
        let line = request.split(|&byte| byte == b'\r').next().unwrap_or_default();
        let named = line.strip_suffix(b" HTTP/1.1").unwrap_or_default();
        if !named.starts_with(b"HEAD ") && named != &answer[..] {
            return Err(format!("{} was answered with {}", shown(named), shown(answer)));
        }
    }
    Ok(())
}

/// Reads the answers that are due and looks how the connection goes on. Notes the bodies of those
/// that came from the app.
fn talk(
    reader: &mut Reader<TcpStream>,
    case: &FromClient,
    way: Way,
    gets: &[u16],
    told: &mut Vec<Vec<u8>>,
) -> Result<(), String> {
    for (at, expected) in gets.iter().enumerate() {
        let to_head = case.head && !(way == Way::Behind && at == 0);
        let (head, body) =
            answer(reader, to_head).map_err(|stopped| format!("no answer {}: {stopped:?}", at + 1))?;
        let status = status_of(&head);
        if status != *expected {
            return Err(format!("answer {} is {status}, not {expected}: {}", at + 1, shown(&body.bytes)));
        }
        let code = head.values("portok-error").next();
        if code != case.code.as_deref().filter(|_| at + 1 == gets.len()) {
            return Err(format!("answer {} has the code {code:?}", at + 1));
        }
        if status == 200 {
            told.push(body.bytes);
        }
    }
    if case.kept {
        told.push(goes_on(reader)?);
        return Ok(());
    }
    ends(reader)
}
