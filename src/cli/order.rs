//! From arguments to exit code: parse, find the daemon, carry out the command, report the result.

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;

use super::administer::administer;
use super::args::{self, Command, Global, Invocation, SHORT_HELP, Unparsed};
use super::asking::{self, Address};
use super::call::Limits;
use super::client::Client;
use super::failure::Failure;
use super::locate::locate;
use super::render::{self, Screen};
use super::session::{Pace, Session};
use super::surroundings::Surroundings;
use super::{RunPlan, commands, deploy, journal, logs, orders, typo, wait};
use crate::host::Journal;
use crate::wire::exit;

/// The process's `main`.
pub(crate) fn main(run: impl FnOnce(RunPlan) -> ExitCode) -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let json = wants_json(&arguments);
    let mut screen = Screen::of_process();
    let code = match args::parse(arguments) {
        Ok(Invocation::Run(plan)) => return run(plan),
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
                    &Address::default(),
                ),
            }
        }
        Err(refusal) => refuse(&mut screen, json, refusal),
    };
    ExitCode::from(screen.close(code))
}

/// What may end a command that waits.
pub(crate) struct Signals<I, R> {
    /// Completes with Ctrl-C.
    pub(crate) interrupt: I,
    /// Completes when nobody reads standard output any more.
    pub(crate) reader_gone: R,
}

/// Carries out `order`, prints a failure and returns the exit code.
pub(crate) async fn obey(
    order: Invocation,
    around: &Surroundings,
    screen: &mut Screen,
    pace: Pace,
    signals: Signals<impl Future<Output = ()>, impl Future<Output = ()>>,
) -> u8 {
    let (global, result) = match order {
        Invocation::Run(_) => (Global::default(), Err(not_a_question())),
        Invocation::Host(global, command) => {
            // Hints of these commands name the instance themselves.
            let unnamed = Global { json: global.json, ..Global::default() };
            (unnamed, administer(&global, command, around, screen).await)
        }
        Invocation::Ask(global, command) => {
            let result = ask(&global, *command, around, screen, pace, signals).await;
            (global, result)
        }
    };
    match result {
        Ok(code) => code,
        Err(failure) => tell(screen, global.json, &failure, &address(&global)),
    }
}

/// The options by which `global` names a daemon, for commands that a hint proposes. The token is
/// never among them.
fn address(global: &Global) -> Address {
    let way = match (&global.url, &global.socket, &global.instance) {
        (Some(url), ..) => Some(format!("--url {}", asking::shell_word(url))),
        (None, Some(socket), _) => {
            Some(format!("--socket {}", asking::shell_word(&socket.to_string_lossy())))
        }
        (None, None, Some(name)) => Some(format!("--instance {name}")),
        (None, None, None) => None,
    };
    let app = global.app.as_ref().map(|app| format!("--app {}", asking::shell_word(app)));
    Address { way: way.unwrap_or_default(), app: app.unwrap_or_default() }
}

/// Asks the daemon for what `command` wants; `logs NAME` reads the journal first.
async fn ask(
    global: &Global,
    command: Command,
    around: &Surroundings,
    screen: &mut Screen,
    pace: Pace,
    signals: Signals<impl Future<Output = ()>, impl Future<Output = ()>>,
) -> Result<u8, Failure> {
    let json = global.json;
    // Where only some of the app's lines are wanted, the daemon knows which those are.
    if let Command::Logs(options @ args::LogsArgs { name: Some(_), lines, follow, .. }) = &command
        && options.are_all()
        && let Some(instance) = &global.instance
        && let Some(journal) = Journal::of(&around.places, instance, global.app.as_deref(), *lines).await
    {
        return journal::show(journal, screen, json, *follow, signals.reader_gone).await;
    }
    let daemon = locate(global, around)?;
    if let Some(broken) = &daemon.broken_file {
        screen.note(&render::broken_file(broken));
    }
    let client = Client::new(daemon, Limits::default()).about(global.app.clone());
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
        Command::Switch { ports } => commands::switch(session, &ports).await,
        Command::Rollback(options) => commands::rollback(session, &options, interrupt).await,
        Command::Cancel => commands::cancel(session).await,
        Command::Pause { time, said } => orders::pause(session, time, &said).await,
        Command::Resume(said) => orders::resume(session, &said).await,
        Command::Maintenance { state, page, status, said } => {
            orders::maintenance(session, state, page.as_deref(), status, &said).await
        }
        Command::Freeze { time, said } => orders::freeze(session, time, &said).await,
        Command::Thaw(said) => orders::thaw(session, &said).await,
        Command::Scale { replicas, said } => orders::scale(session, replicas, &said).await,
        Command::Drain { extend, now } => orders::drain(session, extend, now).await,
        Command::Status { wait: Some(within), .. } => wait::wait(session, within, interrupt).await,
        Command::Status { .. } => commands::status(session).await,
        Command::Apps(_) => commands::apps(session).await,
        Command::Certs(_) => commands::certs(session).await,
        Command::Ps(_) => commands::ps(session).await,
        Command::Metrics { prometheus: true, .. } => commands::prometheus(session).await,
        Command::Metrics { .. } => commands::metrics(session).await,
        Command::Health(_) => commands::health(session).await,
        Command::Releases => commands::releases(session).await,
        Command::Logs(options) => logs::logs(session, &options, reader_gone).await,
        Command::Reload { prune } => commands::reload(session, prune).await,
        Command::Shutdown => commands::shutdown(session).await,
        Command::Upgrade { binary, wait } => commands::upgrade(session, binary, wait).await,
    }
}

/// Prints `failure` and returns its exit code.
fn tell(screen: &mut Screen, json: bool, failure: &Failure, address: &Address) -> u8 {
    if json {
        screen.value(&render::failure_value(failure, address));
    } else {
        screen.note(&render::failure(failure, address));
    }
    failure.exit_code()
}

/// Answers arguments that name no command to carry out: help, version, a usage error.
pub(crate) fn refuse(screen: &mut Screen, json: bool, refusal: Unparsed) -> u8 {
    match refusal {
        Unparsed::Contradiction(failure) => tell(screen, json, &failure, &Address::default()),
        Unparsed::Nothing if json => {
            let failure = Failure::usage("no command", "`portok --help` lists all commands");
            tell(screen, json, &failure, &Address::default())
        }
        Unparsed::Nothing => {
            screen.note(SHORT_HELP);
            exit::USAGE
        }
        Unparsed::Clap(error) if !error.use_stderr() => {
            screen.data(&error.render().ansi().to_string());
            exit::DONE
        }
        Unparsed::Clap(error) => {
            let text = error.render();
            if json {
                let failure =
                    Failure::Usage { message: one_line(&text.to_string()), hint: typo::hint(&error) };
                screen.value(&render::failure_value(&failure, &Address::default()));
            } else {
                screen.note(&text.ansi().to_string());
            }
            exit::USAGE
        }
    }
}

/// clap's message without its tips and usage.
fn one_line(text: &str) -> String {
    let said: Vec<_> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    said.join(" ").trim_start_matches("error: ").to_owned()
}

/// Whether `--json` is among the options. Errors in the options themselves need it before parsing
/// succeeds.
fn wants_json(arguments: &[OsString]) -> bool {
    arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json")
}

/// Completes with the first SIGINT. Never completes if the signal cannot be caught: then its
/// default action ends the process.
async fn ctrl_c() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
