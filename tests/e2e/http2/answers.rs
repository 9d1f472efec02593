//! The corpus of what apps answer, to a client of HTTP/2: what is malformed is no answer here
//! either, and of one that is right nothing is there that concerns the app's connection.

use std::collections::BTreeSet;

use super::frames::{ALONE, Client, Stopped, Told, headers};
use crate::corpus::case::{self, FromApp, filled, shown, text};
use crate::corpus::recorder::{TOLD, Told as Bytes};
use crate::corpus::stage::Stage;
use crate::harness::World;

/// What is between portok and the app alone (RFC 9113, 8.2.2).
const OF_CONNECTIONS: [&str; 5] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// Plays the entries of a file whose request is a plain one.
#[track_caller]
fn play(name: &str) {
    let world = World::new();
    let mut stage = Stage::start(&world);
    let mut client = Client::connect(stage.daemon.addr);
    let (mut failures, mut asked) = (Vec::new(), 0);
    for case in case::read::<FromApp>("answers", name) {
        if case.sends.is_some() {
            continue;
        }
        asked += 1;
        if let Err(why) = play_one(&mut stage, &mut client, 2 * asked - 1, &case) {
            failures.push(format!("{} ({}):\n  {why}", case.name, case.from));
        }
    }
    assert!(asked > 30, "{asked} entries");
    assert!(failures.is_empty(), "{} of {asked} failed\n{}", failures.len(), failures.join("\n"));
}

fn play_one(stage: &mut Stage<'_>, client: &mut Client, stream: u32, case: &FromApp) -> Result<(), String> {
    let parts = vec![filled(&case.answers, case.long.as_ref(), "")];
    stage.recorder.tell(Bytes { parts, early: case.early, closes: case.closes, resets: case.resets });
    // All entries share the client's connection, which goes on whatever came of the one before.
    let request = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", TOLD)];
    client.send(&headers(stream, ALONE, &[&request[..], &[("te", "trailers")]].concat()));
    let told = client.answer(stream);
    let (_, asked) = stage.recorder.until(TOLD);
    if let Some(late) = &case.late {
        stage.recorder.send(asked, &filled(late, case.long.as_ref(), ""));
    }
    let (events, _) = stage.ask_as_another()?;
    stage.whole(events)?;
    match (told, case.cut) {
        (Err(Stopped::Reset(_)), true) => Ok(()),
        (Ok(told), true) => Err(format!("it looks whole: {}", shown(&told.body))),
        (Err(stopped), _) => Err(format!("no whole answer: {stopped:?}")),
        (Ok(told), false) => judge(&told, case),
    }
}

fn judge(told: &Told, case: &FromApp) -> Result<(), String> {
    let (status, code) = (told.status(), told.value("portok-error"));
    if status != case.gets.unwrap_or(502) || code != case.code() {
        return Err(format!("it is {status} with the code {code:?}"));
    }
    if case.body.as_ref().is_some_and(|expected| *expected != text(&told.body)) {
        return Err(format!("its body is {}", shown(&told.body)));
    }
    let trailer = told.trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    if trailer.collect::<String>()
        != case.http2_trailers.as_ref().or(case.trailers.as_ref()).map_or("", |lines| lines)
    {
        return Err(format!("its trailer is {:?}", told.trailers));
    }
    let names: BTreeSet<_> = told.fields.iter().map(|(name, _)| &**name).collect();
    if let Some(name) = names.iter().find(|name| name.chars().any(|letter| letter.is_ascii_uppercase())) {
        return Err(format!("{name} has capital letters"));
    }
    let mut not_there = case.lacks.iter().map(|name| &**name).chain(OF_CONNECTIONS);
    if let Some(name) = not_there.find(|name| names.contains(name)) {
        return Err(format!("{name} is in {:?}", told.fields));
    }
    let lines = case.has.iter().filter_map(|line| line.split_once(": "));
    let mut lines = lines.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()));
    let is_there = |line: &(String, String)| {
        OF_CONNECTIONS.contains(&&*line.0) || told.fields.iter().any(|field| field == line)
    };
    if let Some((name, value)) = lines.find(|line| !is_there(line)) {
        return Err(format!("{name}: {value:?} is not in {:?}", told.fields));
    }
    let once = |name: &&String| told.fields.iter().filter(|(key, _)| key == *name).count() == 1;
    match case.once.iter().find(|name| !OF_CONNECTIONS.contains(&&***name) && !once(name)) {
        Some(name) => Err(format!("{name} is not once in {:?}", told.fields)),
        None => Ok(()),
    }
}

#[test]
fn framing_of_answers() {
    play("framing");
}

#[test]
fn heads_of_answers() {
    play("heads");
}
