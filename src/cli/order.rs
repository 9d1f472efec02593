//! From arguments to exit code: parse, find the daemon, do what was asked, tell how it went.

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::args::{self, Command, Global, Order, Refusal, SHORT_HELP};
use super::client::{Client, Limits};
use super::failure::Failure;
use super::locate::{Surroundings, locate};
use super::render::{self, Screen};
use super::{RunPlan, commands, deploy, logs, typo};
use crate::host::{self, Journal};
use crate::wire::exit;

/// What a command needs to do its work.
pub(crate) struct Session<'a> {
    /// The daemon.
    pub(crate) client: Client,
    /// Where everything is printed.
    pub(crate) screen: &'a mut Screen,
    /// `--json`.
    pub(crate) json: bool,
    /// How fast the daemon is asked again.
    pub(crate) pace: Pace,
}

/// The times of whatever asks again and again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Between two questions.
    pub(crate) poll: Duration,
    /// Between two questions where the daemon counts them (10 a minute unless configured otherwise).
    pub(crate) counted_poll: Duration,
    /// How long the daemon may be gone, as when it is started again, before that is a failure.
    pub(crate) absence: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            poll: Duration::from_millis(500),
            counted_poll: Duration::from_secs(10),
            absence: Duration::from_secs(60),
        }
    }
}

impl Session<'_> {
    /// Prints the data of a command: the daemon's own JSON, or text for people.
    pub(crate) fn show(&mut self, value: &Value, text: impl FnOnce() -> String) {
        if self.json { self.screen.value(value) } else { self.screen.data(&text()) }
    }

    /// How long to wait before the daemon is asked again.
    pub(crate) fn poll_every(&self) -> Duration {
        if self.client.is_rate_limited() { self.pace.counted_poll } else { self.pace.poll }
    }
}

/// The process's `main`.
pub(crate) fn main(run: impl FnOnce(RunPlan) -> ExitCode) -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let json = wants_json(&arguments);
    let mut screen = Screen::of_process();
    let code = match args::parse(arguments) {
        Ok(Order::Run(plan)) => return run(plan),
        Ok(order) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => {
                    let signals =
                        Signals { interrupt: ctrl_c(), reader_gone: render::reader_gone(std::io::stdout()) };
                    let around = Surroundings::of_process();
                    runtime.block_on(obey(order, &around, &mut screen, Pace::default(), signals))
                }
                Err(error) => tell(
                    &mut screen,
                    json,
                    &Failure::Output { cause: format!("cannot wait for anything: {error}") },
                    "",
                ),
            }
        }
        Err(refusal) => refuse(&mut screen, json, refusal),
    };
    ExitCode::from(screen.close(code))
}

/// What may happen around a command while it waits.
pub(crate) struct Signals<I, R> {
    /// Ends with Ctrl-C.
    pub(crate) interrupt: I,
    /// Ends when nobody reads standard output any more.
    pub(crate) reader_gone: R,
}

/// Does what `order` says; tells about a failure and returns the exit code.
pub(crate) async fn obey(
    order: Order,
    around: &Surroundings,
    screen: &mut Screen,
    pace: Pace,
    signals: Signals<impl Future<Output = ()>, impl Future<Output = ()>>,
) -> u8 {
    let (global, result) = match order {
        Order::Run(_) => (Global::default(), Err(not_a_question())),
        Order::Host(global, command) => {
            // What it hints at names its instance itself.
            let unnamed = Global { json: global.json, ..Global::default() };
            (unnamed, host::carry_out(&global, command, &around.places, around, screen).await)
        }
        Order::Ask(global, command) => {
            let result = ask(&global, *command, around, screen, pace, signals).await;
            (global, result)
        }
    };
    match result {
        Ok(code) => code,
        Err(failure) => tell(screen, global.json, &failure, &address(&global)),
    }
}

/// How `global` names an instance, as options to be typed again.
fn address(global: &Global) -> String {
    let named = global.instance.as_ref().filter(|_| global.url.is_none() && global.socket.is_none());
    named.map(|name| format!("--instance {name}")).unwrap_or_default()
}

/// Asks the daemon what `command` says.
async fn ask(
    global: &Global,
    command: Command,
    around: &Surroundings,
    screen: &mut Screen,
    pace: Pace,
    signals: Signals<impl Future<Output = ()>, impl Future<Output = ()>>,
) -> Result<u8, Failure> {
    let json = global.json;
    // A release's lines are the app's alone, and the daemon knows which those are.
    if let Command::Logs(args::Logs { name: Some(name), release: None, lines, follow }) = &command
        && let Some(journal) = Journal::of(&around.places, name, *lines).await
    {
        return journal.show(screen, json, *follow, signals.reader_gone).await;
    }
    let daemon = locate(global, around)?;
    if let Some(broken) = &daemon.broken_file {
        screen.note(&render::broken_file(broken));
    }
    let client = Client::new(daemon, Limits::default());
    carry_out(&mut Session { client, screen, json, pace }, command, signals).await
}

fn not_a_question() -> Failure {
    Failure::usage("run is not a question to a daemon", "see portok run --help")
}

async fn carry_out(
    session: &mut Session<'_>,
    command: Command,
    signals: Signals<impl Future<Output = ()>, impl Future<Output = ()>>,
) -> Result<u8, Failure> {
    let Signals { interrupt, reader_gone } = signals;
    match command {
        Command::Run(_) | Command::Host(_) => Err(not_a_question()),
        Command::Deploy(options) => deploy::deploy(session, &options, interrupt).await,
        Command::Switch { port } => commands::switch(session, port).await,
        Command::Rollback(options) => commands::rollback(session, &options, interrupt).await,
        Command::Cancel => commands::cancel(session).await,
        Command::Status(_) => commands::status(session).await,
        Command::Metrics { prometheus: true, .. } => commands::prometheus(session).await,
        Command::Metrics { .. } => commands::metrics(session).await,
        Command::Health(_) => commands::health(session).await,
        Command::Releases => commands::releases(session).await,
        Command::Logs(options) => logs::logs(session, &options, reader_gone).await,
        Command::Reload => commands::reload(session).await,
        Command::Upgrade { binary, wait } => commands::upgrade(session, binary, wait).await,
    }
}

/// Prints `failure` where it belongs and returns its exit code.
fn tell(screen: &mut Screen, json: bool, failure: &Failure, address: &str) -> u8 {
    if json {
        screen.value(&render::failure_value(failure, address));
    } else {
        screen.note(&render::failure(failure, address));
    }
    failure.exit_code()
}

/// Answers arguments that ask for nothing that could be carried out.
pub(crate) fn refuse(screen: &mut Screen, json: bool, refusal: Refusal) -> u8 {
    match refusal {
        Refusal::Contradiction(failure) => tell(screen, json, &failure, ""),
        Refusal::Nothing if json => {
            tell(screen, json, &Failure::usage("no command", "`portok --help` lists all commands"), "")
        }
        Refusal::Nothing => {
            screen.note(SHORT_HELP);
            exit::USAGE
        }
        Refusal::Clap(error) if !error.use_stderr() => {
            screen.data(&error.render().ansi().to_string());
            exit::DONE
        }
        Refusal::Clap(error) => {
            let text = error.render();
            if json {
                let failure =
                    Failure::Usage { message: one_line(&text.to_string()), hint: typo::hint(&error) };
                screen.value(&render::failure_value(&failure, ""));
            } else {
                screen.note(&text.ansi().to_string());
            }
            exit::USAGE
        }
    }
}

/// What clap says before it comes to tips and usage.
fn one_line(text: &str) -> String {
    let said: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    said.join(" ").trim_start_matches("error: ").to_owned()
}

/// Whether `--json` stands among the options, for errors that are found before they are all understood.
fn wants_json(arguments: &[OsString]) -> bool {
    arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json")
}

/// Ends with the first SIGINT; never, where it cannot be listened for (the default action ends the process).
async fn ctrl_c() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
