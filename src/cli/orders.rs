//! `portok pause`, `resume`, `maintenance`, `freeze`, `thaw`, `scale`, `drain`: one order, one answer.

use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::args::{OnOff, SaidArgs};
use super::call::Call;
use super::client::encoded;
use super::failure::Failure;
use super::render;
use super::session::Session;
use super::values::Span;
use crate::wire::{Drain, MaintenanceRequest, Ordered, PAGE_MOST, Scaled, exit};

type Done = Result<u8, Failure>;

/// `portok pause`.
pub(crate) async fn pause(session: &mut Session<'_>, time: Option<Duration>, said: &SaidArgs) -> Done {
    give(session, Call::post("pause", path("pause", time, said))).await
}

/// `portok resume`.
pub(crate) async fn resume(session: &mut Session<'_>, said: &SaidArgs) -> Done {
    give(session, Call::post("resume", path("resume", None, said))).await
}

/// `portok freeze`.
pub(crate) async fn freeze(session: &mut Session<'_>, time: Option<Duration>, said: &SaidArgs) -> Done {
    give(session, Call::post("freeze", path("freeze", time, said))).await
}

/// `portok thaw`.
pub(crate) async fn thaw(session: &mut Session<'_>, said: &SaidArgs) -> Done {
    give(session, Call::post("thaw", path("thaw", None, said))).await
}

/// `portok maintenance`.
pub(crate) async fn maintenance(
    session: &mut Session<'_>,
    state: OnOff,
    page: Option<&Path>,
    status: Option<u16>,
    said: &SaidArgs,
) -> Done {
    let request =
        MaintenanceRequest { on: state == OnOff::On, status, page: page.map(read_page).transpose()? };
    let mut call = Call::post("maintenance", path("maintenance", None, said));
    let body = serde_json::to_vec(&request);
    call.body =
        Some(body.map_err(|error| Failure::usage(error.to_string(), "see portok maintenance --help"))?);
    give(session, call).await
}

/// `portok scale`.
pub(crate) async fn scale(session: &mut Session<'_>, replicas: Span, said: &SaidArgs) -> Done {
    let Span { min, max } = replicas;
    let bounds = vec![("min", min.to_string()), ("max", max.to_string())];
    let call = Call::post("scale", with_query("scale", bounds, said));
    let (scaled, value) = session.client.ask::<Scaled>(call).await?;
    session.show(&value, || render::scaled(&scaled, SystemTime::now()));
    Ok(exit::DONE)
}

/// `portok drain`.
pub(crate) async fn drain(session: &mut Session<'_>, extend: Option<Duration>, now: bool) -> Done {
    let call = match extend {
        Some(by) => Call::post("drain", format!("drain?extend={}ms", by.as_millis())),
        None if now => Call::post("drain", "drain?now=1".to_owned()),
        None => Call::get("drain", "drain"),
    };
    let (drain, value) = session.client.ask::<Drain>(call).await?;
    session.show(&value, || render::drain(&drain, SystemTime::now()));
    Ok(exit::DONE)
}

async fn give(session: &mut Session<'_>, call: Call) -> Done {
    let (ordered, value) = session.client.ask::<Ordered>(call).await?;
    session.show(&value, || render::ordered(&ordered));
    Ok(exit::DONE)
}

/// The path of an order with what is said of it.
fn path(name: &str, time: Option<Duration>, said: &SaidArgs) -> String {
    let time = time.map(|time| ("for", format!("{}ms", time.as_millis())));
    with_query(name, time.into_iter().collect(), said)
}

fn with_query(name: &str, asked: Vec<(&str, String)>, said: &SaidArgs) -> String {
    let by = said.by.clone().map(|by| ("by", by));
    let note = said.note.clone().map(|note| ("note", note));
    let query: Vec<_> = asked
        .into_iter()
        .chain(by)
        .chain(note)
        .map(|(name, value)| format!("{name}={}", encoded(&value)))
        .collect();
    if query.is_empty() { name.to_owned() } else { format!("{name}?{}", query.join("&")) }
}

/// The page of a maintenance.
fn read_page(file: &Path) -> Result<String, Failure> {
    let wrong = |why: String| {
        let hint = format!("give a file of at most {} KiB in UTF-8", PAGE_MOST / 1024);
        Failure::usage(format!("cannot use --page {}: {why}", file.display()), hint)
    };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(|error| wrong(error.to_string()))?;
    opened.take(PAGE_MOST as u64 + 1).read_to_end(&mut bytes).map_err(|error| wrong(error.to_string()))?;
    if bytes.len() > PAGE_MOST {
        return Err(wrong("it is too long".to_owned()));
    }
    String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8".to_owned()))
}
