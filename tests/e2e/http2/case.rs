//! An entry of the lists of HTTP/2: what a client sends, and what has to become of it.
//!
//! Each is played over a connection of its own to one daemon, whose app records all that reaches
//! it. Whatever was wrong with a stream, the connection goes on and carries another request;
//! whatever was wrong with a connection, others go on.

use super::frames::{self, Client, PREFACE, Stopped, plain, settings};
use crate::corpus::case::{filled, shown, text};
use crate::corpus::stage::Stage;
use crate::harness::{Conn, World};

/// What becomes of what was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gets {
    /// The stream is answered with this status, by the app if it is 200.
    Status(u16),
    /// The stream is reset with this code.
    Reset(u32),
    /// The connection ends with `GOAWAY` of this code.
    Ends(u32),
    /// The connection ends, and nobody needs to be told why.
    IsClosed,
    /// Nothing.
    Nothing,
}

/// One entry.
pub(super) struct Case {
    /// The paragraph or the known attack that it comes from.
    from: &'static str,
    name: &'static str,
    sends: Vec<u8>,
    gets: Gets,
    /// The stream that `gets` is about.
    stream: u32,
    /// The connection begins with `sends`.
    raw: bool,
    /// The requests that the app sees, beside the one that shows that the connection goes on.
    app: Vec<String>,
    /// What the app may see of a request whose stream or connection ends early: this, less, or
    /// nothing.
    perhaps: Option<&'static str>,
}

/// An entry about stream 1, after the preface and empty settings.
pub(super) fn case(from: &'static str, name: &'static str, sends: &[&[u8]], gets: Gets) -> Case {
    let sends = sends.concat();
    Case { from, name, sends, gets, stream: 1, raw: false, app: Vec::new(), perhaps: None }
}

/// An entry of a request for `/x` with more fields. Of one that passes, the app sees `app` behind
/// the head's first line.
pub(super) fn asked(from: &'static str, name: &'static str, more: &[(&str, &str)], gets: Gets) -> Case {
    case(from, name, &[&frames::headers(1, frames::ALONE, &plain("GET", more))], gets)
}

/// An entry of a request with these fields.
pub(super) fn head(from: &'static str, name: &'static str, fields: &[(&str, &str)], gets: Gets) -> Case {
    case(from, name, &[&frames::headers(1, frames::ALONE, fields)], gets)
}

impl Case {
    pub(super) fn on(self, stream: u32) -> Self {
        Self { stream, ..self }
    }

    pub(super) fn raw(self) -> Self {
        Self { raw: true, ..self }
    }

    /// `<fwd HOST>` stands for what portok says about the client.
    pub(super) fn app(mut self, request: &str) -> Self {
        self.app.push(request.to_owned());
        self
    }

    pub(super) fn perhaps(self, request: &'static str) -> Self {
        Self { perhaps: Some(request), ..self }
    }
}

/// The request on a connection that goes on, as the app sees it, and its stream.
const AFTER: (&str, u32) = ("GET /after HTTP/1.1\r\nhost: a\r\n<fwd a>\r\n", 100_001);

/// Plays entries, and tells of all that went otherwise.
#[track_caller]
pub(super) fn play(cases: Vec<Case>) {
    let world = World::new();
    let mut stage = Stage::start(&world);
    let mut failures = Vec::new();
    for case in &cases {
        if let Err(why) = play_one(&mut stage, case) {
            failures.push(format!("{} ({}):\n  {why}", case.name, case.from));
        }
    }
    assert!(failures.is_empty(), "{} of {} failed\n{}", failures.len(), cases.len(), failures.join("\n"));
}

fn play_one(stage: &mut Stage<'_>, case: &Case) -> Result<(), String> {
    let fill = |text: &str| filled(text, None, "");
    let perhaps = case.perhaps.map(fill);
    stage.may_break(perhaps.clone().unwrap_or_default());
    let mut expected: Vec<_> = case.app.iter().map(|request| fill(request)).collect();
    let mut client = Client::silent(Conn::tcp(stage.daemon.addr).map_err(|error| error.to_string())?);
    if !case.raw {
        client.send(&[PREFACE, &settings(&[])].concat());
    }
    client.send(&case.sends);
    let talked = talk(&mut client, case);
    if matches!(case.gets, Gets::Status(_) | Gets::Reset(_) | Gets::Nothing) {
        expected.push(fill(AFTER.0));
    }
    drop(client);
    let (events, _) = stage.ask_as_another()?;
    let seen = stage.whole(events)?.into_iter().map(|(_, bytes)| bytes);
    let seen: Vec<_> = seen.filter(|bytes| perhaps.as_ref() != Some(bytes)).collect();
    let show = |all: &[Vec<u8>]| all.iter().map(|one| shown(one)).collect::<Vec<_>>().join("\n    ");
    talked.map_err(|why| format!("{why}; the app saw\n    {}", show(&seen)))?;
    if seen == expected {
        return Ok(());
    }
    Err(format!("the app saw\n    {}\n  instead of\n    {}", show(&seen), show(&expected)))
}

/// Reads what is due, and looks how the connection goes on.
fn talk(client: &mut Client, case: &Case) -> Result<(), String> {
    match case.gets {
        Gets::Ends(code) => match client.end() {
            told if told == Some(code) => return Ok(()),
            told => return Err(format!("it ends with {told:?}")),
        },
        Gets::IsClosed => {
            client.end();
            return if client.late { Err("it does not end".to_owned()) } else { Ok(()) };
        }
        Gets::Nothing => (),
        Gets::Status(_) | Gets::Reset(_) => {
            let answer = client.answer(case.stream);
            let got = match &answer {
                Ok(told) => Gets::Status(told.status()),
                Err(Stopped::Reset(code)) => Gets::Reset(*code),
                Err(Stopped::Ended(code)) => return Err(format!("it ends with {code:?}")),
            };
            if got != case.gets {
                return Err(format!("it is {got:?}, not {:?}", case.gets));
            }
            // The answer of the app is that to its own request.
            if let (Ok(told), Some(request)) = (answer, case.app.last())
                && !request.starts_with("HEAD ")
                && request.split(" HTTP/1.1").next() != Some(&*text(&told.body))
            {
                return Err(format!("it was answered with {}", shown(&told.body)));
            }
        }
    }
    let after = client.ask(AFTER.1, "/after").map_err(|stopped| format!("it does not go on: {stopped:?}"))?;
    match (after.status(), &*after.body) {
        (200, b"GET /after") => Ok(()),
        (status, body) => Err(format!("the request after it got {status} {}", shown(body))),
    }
}
