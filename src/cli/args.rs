//! What may be typed at `portok`: the clap tree, its help texts, and the checks across several
//! options.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use super::RunPlan;
use super::failure::Failure;
use super::typo;
use super::values::{
    Span, app_name, health_path, instance_or_app, process_name, release_id, shell_text, span, strategy,
    variable, wait_time,
};
use crate::wire::{CommandLine, DeployStrategy};

mod host;

pub(crate) use host::{AddArgs, AppArgs, HostCommand, ImportFormat, InitArgs, RemoveArgs, Shell};

/// How many lines `logs` shows by default.
const LOG_LINES: u32 = 100;

/// The most lines that `logs` shows.
const MAX_LOG_LINES: i64 = 10_000;

/// The usual flow, shown by `portok` alone.
pub(crate) const SHORT_HELP: &str = "\
portok moves traffic from one version of an app to the next without losing a request

  portok run --listen 3000 --cmd \"node app.js\"    try it: a daemon in the foreground
  portok deploy --cmd \"node app.js\"               start a release, move traffic once it is healthy
  portok status                                   what is live, since when, and what goes on
  portok rollback                                 back to the release before
  portok logs -f                                  what the app prints
  portok init, add NAME, list, doctor             on a server, under systemd

`portok --help` lists all commands, `portok help deploy` explains one
";

const TOP_HELP: &str = "\
Where the daemon is, first match wins:
  --url or --socket; --instance; PORTOK_URL; the socket of the instance `default`;
  http://127.0.0.1:3000
Which of its apps, where an instance has several:
  --app NAME, or INSTANCE/NAME wherever an instance is named
The token for a URL, first match wins:
  --token; the instance's file; PORTOK_TOKEN (a unix socket needs none)

Exit codes:
  0 done                     3 deploy aborted or cancelled    5 refused
  1 failed or unhealthy      4 rolled back                    6 daemon not reachable
  2 usage or configuration";

/// Deploys apps on this host and moves their traffic without losing a request
#[derive(Debug, Parser)]
#[command(name = "portok", version, propagate_version = true, after_help = TOP_HELP)]
pub(crate) struct Typed {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// The options of every command.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Where the daemon listens, `http://host:port`; a path is taken as the admin prefix
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The daemon's unix socket
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// The instance's name; its file says where the daemon is. NAME/APP names one of its apps too
    #[arg(long, global = true, value_name = "NAME", value_parser = instance_or_app)]
    pub(crate) instance: Option<String>,
    /// The app, where the instance has several
    #[arg(long, global = true, value_name = "APP", value_parser = app_name)]
    pub(crate) app: Option<String>,
    /// The admin token, for a URL (PORTOK_TOKEN keeps it out of the process list)
    #[arg(long, global = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// Print one JSON value on standard output and nothing else there
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the daemon in the foreground with one app: no file, no token, no root
    #[command(after_help = "\
Examples:
  portok run --cmd \"node app.js\"
  portok run --listen 8080 --health / --cmd \"python3 -m http.server {port}\"
  portok run --listen 127.0.0.1:8080 -- ./server --verbose")]
    Run(RunArgs),
    /// Start a release, move traffic to it once it is healthy, drain and stop the old one
    #[command(after_help = "\
Examples:
  portok deploy                                   the [app] of the instance's file, once more
  portok deploy --cmd \"node app.js\" --dir /srv/api/v2 --release v2
  portok deploy --env NODE_ENV=production -- ./server --verbose
  portok deploy --instance api --wait-window      return only when the watch window has passed
  portok deploy --detach --json                   return once it is accepted
  portok deploy --strategy recreate               stop the live release first; requests wait

Ctrl-C ends the report, not the deploy; `portok cancel` ends the deploy.
Exit codes:
  0 live    3 aborted or cancelled: traffic never moved    4 rolled back
            5 refused                                      6 daemon not reachable")]
    Deploy(DeployArgs),
    /// Move traffic to an app that somebody else started on this host
    #[command(after_help = "\
Examples:
  portok switch 8081
  portok switch 8081 --instance api
  portok switch 8081 8082 --instance edge/shop    several, all healthy or none")]
    Switch {
        /// The port on 127.0.0.1 that the app listens on; several for one that portok does not start
        #[arg(required = true, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
        ports: Vec<u16>,
    },
    /// Go back to the previous release, starting it again where its process is gone
    #[command(after_help = "\
Examples:
  portok rollback
  portok rollback --dry-run                       what it would do
  portok rollback v41                             to this release, which was live
  portok rollback v42 --force                     also to one that was rolled back from
  portok rollback --instance api --json")]
    Rollback(RollbackArgs),
    /// End a deploy that has not moved traffic yet
    #[command(after_help = "\
Examples:
  portok cancel
  portok cancel --instance api")]
    Cancel,
    /// Have the app's requests wait, until `portok resume` or the end of a time
    #[command(after_help = "\
Examples:
  portok pause                                    for hold.max_time, which is as long as one may wait
  portok pause --for 2m --note \"new database\"
  portok pause --instance edge/api

Requests wait within the bounds of [hold]; beyond them they are answered with 503.")]
    Pause {
        /// How long, at most 10m [default: hold.max_time]
        #[arg(long = "for", value_name = "TIME", value_parser = wait_time)]
        time: Option<Duration>,
        #[command(flatten)]
        said: SaidArgs,
    },
    /// Let the requests go that `portok pause` holds, the oldest first
    #[command(after_help = "\
Examples:
  portok resume
  portok resume --instance edge/api")]
    Resume(SaidArgs),
    /// Answer every request of the app with a page, or stop that
    #[command(after_help = "\
Examples:
  portok maintenance on --page soon.html
  portok maintenance on --status 404 --note \"sold\"
  portok maintenance off")]
    Maintenance {
        #[arg(value_name = "on|off", hide_possible_values = true)]
        state: OnOff,
        /// What clients see, in HTML, at most 256 KiB
        #[arg(long, value_name = "FILE")]
        page: Option<PathBuf>,
        /// The status of the answers [default: 503]
        #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(200..600))]
        status: Option<u16>,
        #[command(flatten)]
        said: SaidArgs,
    },
    /// Stop deploys and switches, until `portok thaw` or the end of a time
    #[command(after_help = "\
Examples:
  portok freeze --note \"the sale\"
  portok freeze --for 4h

Rollbacks, restarts and watch windows go on. An edit of [app] waits; the end of the time does not deploy it.")]
    Freeze {
        /// How long [default: until portok thaw]
        #[arg(long = "for", value_name = "TIME", value_parser = wait_time)]
        time: Option<Duration>,
        #[command(flatten)]
        said: SaidArgs,
    },
    /// Let deploys and switches go on, with the edit that waited
    #[command(after_help = "\
Examples:
  portok thaw
  portok thaw --instance api")]
    Thaw(SaidArgs),
    /// Have another number of processes, whatever the file says, until it says something else
    #[command(after_help = "\
Examples:
  portok scale 4                                  four, whatever the load
  portok scale 2..8                               the number follows the load between these
  portok scale 0..4 --instance edge/api           down to none while nobody asks

A deploy under way ends first. The number is kept over a restart, until app.replicas is edited.")]
    Scale {
        /// How many, or from how many to how many
        #[arg(value_name = "N|MIN..MAX", value_parser = span)]
        replicas: Span,
        #[command(flatten)]
        said: SaidArgs,
    },
    /// Show who is still with the old version, or change when its drain ends
    #[command(after_help = "\
Examples:
  portok drain                                    who is still there: tunnels and event streams
  portok drain --extend 10m                       they may stay so much longer
  portok drain --now --instance edge/api          they are asked to leave within a second")]
    Drain {
        /// Have the drain end so much later, at most 24h
        #[arg(long, value_name = "TIME", value_parser = wait_time, conflicts_with = "now")]
        extend: Option<Duration>,
        /// Have it end now
        #[arg(long)]
        now: bool,
    },
    /// Show what is live, what goes on and what is wrong
    #[command(after_help = "\
Examples:
  portok status
  portok status api
  portok status edge/api                          one app of an instance that has several
  portok status edge --wait 60s                   return when every app is healthy; exit code 1 after 60 s
  portok status --json | jq -r .live.release")]
    Status {
        #[command(flatten)]
        named: Named,
        /// Return when the app, or every app of the instance, is healthy; exit code 1 after this
        /// time
        #[arg(long, value_name = "TIME", value_parser = wait_time)]
        wait: Option<Duration>,
    },
    /// List the apps of an instance: for which hosts, what is live, how much is asked and what
    /// fails
    #[command(after_help = "\
Examples:
  portok apps
  portok apps edge
  portok apps edge --json | jq -r '.[] | select(.error) | .app'")]
    Apps(Named),
    /// List the processes and targets: what each does, how much it has in flight, its memory
    #[command(after_help = "\
Examples:
  portok ps
  portok ps edge                                  all apps of an instance
  portok ps edge/api                              one of them
  portok ps --json | jq -r '.[] | select(.state != \"ready\") | .lastExit.exit'

BUSY counts requests and tunnels in flight, TUN the tunnels among them.")]
    Ps(Named),
    /// List the certificates that clients are shown: for which hosts, until when, what is wrong
    #[command(after_help = "\
Examples:
  portok certs
  portok certs edge
  portok certs --json | jq -r '.[] | select(.days < 14) | .file'")]
    Certs(Named),
    /// Show requests, errors and the live target's health as numbers
    #[command(after_help = "\
Examples:
  portok metrics
  portok metrics api --json
  portok metrics edge/api                         of one app; without, all apps together
  portok metrics --prometheus")]
    Metrics {
        #[command(flatten)]
        named: Named,
        /// Print the Prometheus text format
        #[arg(long)]
        prometheus: bool,
    },
    /// Ask the live target for its health now; exit code 1 when it is not healthy
    #[command(after_help = "\
Examples:
  portok health
  portok health api && echo fine")]
    Health(Named),
    /// List the known releases, newest first
    #[command(after_help = "\
Examples:
  portok releases
  portok releases --instance api --json")]
    Releases,
    /// Show what the app printed; with an instance's name, what its daemon said too
    #[command(after_help = "\
Examples:
  portok logs                     what the app printed, as the daemon keeps it
  portok logs -n 20 -f
  portok logs --release v2
  portok logs --replica 1         of several replicas only this one
  portok logs --process worker    only this companion
  portok logs edge/api            one app of an instance that has several
  portok logs api -f              the daemon's and the app's lines, from the journal where there is one")]
    Logs(LogsArgs),
    /// Load the configuration file again and tell what changed
    #[command(after_help = "\
Examples:
  portok reload
  portok reload --instance api
  portok reload --instance edge --prune           also where more than half of the apps are gone from it

Of several apps each is loaded or refused by itself.
Exit codes:
  0 all of it is in force    1 an app was refused, or is in force without one of its routes
  2 the file is not valid: nothing has changed")]
    Reload {
        /// Remove the apps that are gone from the configuration, however many they are
        #[arg(long)]
        prune: bool,
    },
    /// Put a new portokd in the running one's place, without losing a connection
    #[command(after_help = "\
Examples:
  portok upgrade                                  after the package was replaced
  portok upgrade --instance api --binary ./portokd
  portok upgrade --wait 10m                       after the deploy that is under way

The new daemon takes over the port and the app; the old one finishes the connections that it has, and ends.
When the new one does not come up, nothing has changed and the error says why.")]
    Upgrade {
        /// The new program [default: the path that the running daemon was started from]
        #[arg(long, value_name = "PATH")]
        binary: Option<PathBuf>,
        /// While the daemon is busy with a deploy or a crashed app, try again for so long, like 10m
        #[arg(long, value_name = "TIME", value_parser = wait_time)]
        wait: Option<Duration>,
    },
    /// End the daemon in order, and tell how each process of its apps ended
    #[command(after_help = "\
Examples:
  portok shutdown
  portok shutdown --instance api --json

Requests that are under way are finished, then every process is stopped; the answer comes when all are gone.
Under systemd the instance stays down until it is started again: portok start NAME.")]
    Shutdown,
    #[command(flatten)]
    Host(HostCommand),
}

/// `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The address to accept requests on; a port alone is one of 127.0.0.1
    #[arg(long, value_name = "PORT")]
    listen: Option<String>,
    /// The path that answers 2xx when the app is healthy [default: /health, or HEALTH_PATH]
    #[arg(long, value_name = "PATH")]
    health: Option<String>,
    #[command(flatten)]
    command: Words,
}

/// The two ways to give a command.
#[derive(Debug, Args)]
pub(crate) struct Words {
    /// What to run, by `/bin/sh -c`; `{port}` stands for the port, which is in `$PORT` too
    #[arg(long = "cmd", value_name = "CMD", value_parser = shell_text)]
    shell: Option<String>,
    /// Program and arguments, executed as they are
    #[arg(last = true, value_name = "WORDS", conflicts_with = "shell")]
    words: Vec<String>,
}

impl Words {
    /// The command in the form in which it was typed.
    pub(crate) fn line(&self) -> Option<CommandLine> {
        match &self.shell {
            Some(text) => Some(CommandLine::Shell(text.clone())),
            None if self.words.is_empty() => None,
            None => Some(CommandLine::Exec(self.words.clone())),
        }
    }
}

/// `deploy`.
#[derive(Debug, Args)]
pub(crate) struct DeployArgs {
    #[command(flatten)]
    pub(crate) command: Words,
    /// Add a variable to the app's environment; may be given several times
    #[arg(long, value_name = "K=V", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// The directory to run it in [default for --cmd: app.directory, else the current one]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// The release's id (made by the daemon when not given)
    #[arg(long, value_name = "ID", value_parser = release_id)]
    pub(crate) release: Option<String>,
    /// The health path of this release
    #[arg(long, value_name = "PATH", value_parser = health_path)]
    pub(crate) health: Option<String>,
    /// How it takes over, `switch` or `recreate` [default: deploy.strategy]
    #[arg(long, value_name = "STRATEGY", value_parser = strategy)]
    pub(crate) strategy: Option<DeployStrategy>,
    /// Also a release that is live already (a fresh process of it), or in quarantine
    #[arg(long)]
    pub(crate) force: bool,
    /// Return once the deploy is accepted
    #[arg(long, conflicts_with = "wait_window")]
    pub(crate) detach: bool,
    /// Return only when the watch window has passed, so that a rollback is seen
    #[arg(long)]
    pub(crate) wait_window: bool,
}

/// `rollback`.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The release to go back to, instead of the previous one
    #[arg(value_name = "RELEASE", value_parser = release_id)]
    pub(crate) release: Option<String>,
    /// Say what would happen, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also to a release in quarantine
    #[arg(long)]
    pub(crate) force: bool,
}

/// Who gives an order, and why.
#[derive(Debug, Args)]
pub(crate) struct SaidArgs {
    /// Who does it, for those who look [default: your user]
    #[arg(long, value_name = "NAME")]
    pub(crate) by: Option<String>,
    /// Why, for those who look
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
}

/// Whether something begins or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OnOff {
    /// It begins
    On,
    /// It ends
    Off,
}

/// The instance as a positional.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The instance's name, as --instance; INSTANCE/APP for one of its apps
    #[arg(value_name = "INSTANCE", value_parser = instance_or_app)]
    name: Option<String>,
}

/// `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The instance's name: its daemon's lines and its app's, from the journal; INSTANCE/APP for
    /// one app
    #[arg(value_name = "INSTANCE", value_parser = instance_or_app)]
    pub(crate) name: Option<String>,
    /// Only this release's lines
    #[arg(long, value_name = "ID", value_parser = release_id)]
    pub(crate) release: Option<String>,
    /// Only the lines of replicas of this number
    #[arg(long, value_name = "N")]
    pub(crate) replica: Option<u16>,
    /// Only the lines of this companion; `web`: of the replicas that get requests
    #[arg(long, value_name = "NAME", value_parser = process_name)]
    pub(crate) process: Option<String>,
    /// How many of the last lines
    #[arg(short = 'n', long, value_name = "LINES", default_value_t = LOG_LINES,
          value_parser = clap::value_parser!(u32).range(1..=MAX_LOG_LINES))]
    pub(crate) lines: u32,
    /// Go on with each new line
    #[arg(short, long)]
    pub(crate) follow: bool,
}

impl LogsArgs {
    /// Whether the lines of all of the app's processes are wanted.
    pub(crate) fn are_all(&self) -> bool {
        self.release.is_none() && self.replica.is_none() && self.process.is_none()
    }
}

/// A valid command with its options.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// For the caller of [`super::main`]: `portok run`.
    Run(RunPlan),
    /// For a daemon.
    Ask(Global, Box<Command>),
    /// For this machine.
    Host(Global, HostCommand),
}

/// Parses `arguments`, the program's name included.
///
/// # Errors
/// clap's output for `--help`, `--version` and wrong usage, or a contradiction between options.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Invocation, Unparsed> {
    let Typed { mut global, command } = Typed::try_parse_from(&arguments)
        .map_err(|error| Unparsed::Clap(typo::advise(error, &Typed::command(), &arguments)))?;
    let Some(command) = command else { return Err(Unparsed::Nothing) };
    if global.url.is_some() && global.socket.is_some() {
        return Err(contradiction(
            "--url and --socket are two different ways to a daemon",
            "give one of them",
        ));
    }
    settle_names(&mut global, command.word())?;
    match command {
        Command::Run(run) => {
            let Some(command) = run.command.line() else {
                return Err(contradiction(
                    "run: no command",
                    "say what to run: portok run --cmd \"node app.js\"",
                ));
            };
            let asks = global.url.is_some() || global.socket.is_some() || global.token.is_some();
            if asks || global.app.is_some() || global.json {
                let hint = "leave out --url, --socket, --token, --app and --json";
                return Err(contradiction("run starts a daemon of its own and asks none", hint));
            }
            return Ok(Invocation::Run(RunPlan {
                listen: run.listen,
                health: run.health,
                command,
                name: global.instance,
            }));
        }
        Command::Host(command) => {
            if global.url.is_some()
                || global.socket.is_some()
                || global.token.is_some()
                || global.instance.is_some()
                || global.app.is_some()
            {
                let hint = "leave out --url, --socket, --token, --instance and --app";
                return Err(contradiction("this command concerns the host and asks no single daemon", hint));
            }
            return Ok(Invocation::Host(global, command));
        }
        Command::Metrics { prometheus: true, .. } if global.json => {
            return Err(contradiction(
                "--json and --prometheus are two different formats",
                "give one of them",
            ));
        }
        Command::Reload { .. } | Command::Upgrade { .. } | Command::Shutdown if global.app.is_some() => {
            return Err(contradiction("this command concerns all apps of an instance", "leave out the app"));
        }
        _ => {}
    }
    if global.json && matches!(command, Command::Logs(LogsArgs { follow: true, .. })) {
        let hint = "leave out -f, or --json";
        return Err(contradiction("--json prints one value, which -f never completes", hint));
    }
    Ok(Invocation::Ask(global, Box::new(command)))
}

impl Command {
    /// The instance, maybe with an app, that a word of the command names.
    fn word(&self) -> Option<&str> {
        match self {
            Self::Status { named, .. } | Self::Metrics { named, .. } => named.name.as_deref(),
            Self::Apps(named) | Self::Ps(named) | Self::Certs(named) | Self::Health(named) => {
                named.name.as_deref()
            }
            Self::Logs(options) => options.name.as_deref(),
            _ => None,
        }
    }
}

/// Brings together what `--instance`, `--app` and a word of the command name. Afterwards
/// `global.instance` is an instance's name alone.
fn settle_names(global: &mut Global, word: Option<&str>) -> Result<(), Unparsed> {
    let named: Vec<_> = global.instance.take().into_iter().chain(word.map(str::to_owned)).collect();
    for name in named {
        let (instance, app) =
            name.split_once('/').map_or((&*name, None), |(instance, app)| (instance, Some(app)));
        agree(&mut global.instance, instance, "two different instances are named")?;
        if let Some(app) = app {
            agree(&mut global.app, app, "two different apps are named")?;
        }
    }
    Ok(())
}

/// Takes `name`, unless another one was given before.
fn agree(given: &mut Option<String>, name: &str, contradicting: &str) -> Result<(), Unparsed> {
    if given.as_ref().is_some_and(|given| given != name) {
        return Err(contradiction(contradicting, "give one of them"));
    }
    *given = Some(name.to_owned());
    Ok(())
}

/// Why the arguments name no command to carry out.
#[derive(Debug)]
pub(crate) enum Unparsed {
    /// Help, version or an error, rendered by clap.
    Clap(clap::Error),
    /// No command at all.
    Nothing,
    /// Options that contradict one another.
    Contradiction(Failure),
}

fn contradiction(message: &str, hint: &str) -> Unparsed {
    Unparsed::Contradiction(Failure::usage(message, hint))
}

#[cfg(test)]
mod tests;
